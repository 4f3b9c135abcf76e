//! `sql.execute`
use super::{
    params::{self, Statement},
    transaction,
};
use crate::target::sqlite::{self, Access};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Cause, Certainty, Effect, Failure, Fidelity, Mark, Outcome, ParamError, Preview,
        PreviewContext, Probed, Redo, Resume, Step, StepContext, StepKind, StepTraits, UndoSupport,
        params::{SqlText, TargetName},
    },
    value::Value,
};

/// Whether a statement runs in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransactionMode {
    /// In one, with a mark before its COMMIT.
    #[default]
    Own,
    /// In none (`VACUUM`); after a crash only the step's `probe` can tell whether it happened.
    None,
}

/// Writes with one statement, in a transaction of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecuteParams {
    /// Where.
    pub target: TargetName,
    /// One statement.
    pub sql: SqlText,
    /// Values for `:name`, `:"name"` and `:'name'`.
    #[serde(default)]
    pub params: IndexMap<String, Value>,
    /// How many rows it must affect; any other number is rolled back.
    #[serde(default)]
    pub expect_rows: Option<u64>,
    /// How many rows it may affect; more are rolled back.
    #[serde(default)]
    pub max_rows: Option<u64>,
    /// Allows an UPDATE or DELETE without WHERE.
    #[serde(default)]
    pub all_rows: bool,
    /// `none` for statements that cannot run in a transaction; the step then needs a `probe`.
    #[serde(default)]
    pub transaction: TransactionMode,
}

/// What a statement did.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ExecuteOutput {
    /// How many rows it affected.
    pub rows_affected: u64,
    /// The id of the last row that was inserted on the connection.
    pub last_insert_id: i64,
    /// Rows that it returned (RETURNING), 1,000 at most.
    pub rows: Vec<Value>,
}

/// The kind `sql.execute`.
pub struct Execute;

/// A prepared statement that writes.
pub struct ExecuteStep {
    params: ExecuteParams,
    statement: Statement,
}

const WRITES: StepTraits = StepTraits {
    effect: Effect::Writes,
    redo: Redo::ProbeFirst,
    marks: true,
    captures: false,
    undo: UndoSupport::Impossible,
    fidelity: Fidelity::Estimated,
    skippable: true,
};

/// What holds for a statement with these parameters.
pub(super) fn traits_of(with: &Value) -> StepTraits {
    match with.get("transaction").and_then(Value::as_str) {
        Some("none") => StepTraits {
            redo: Redo::AskOperator,
            marks: false,
            ..WRITES
        },
        _ => WRITES,
    }
}

impl StepKind for Execute {
    const NAME: &'static str = "sql.execute";
    const TRAITS: StepTraits = WRITES;
    const EXAMPLE: &'static str = "target: shop\nsql: UPDATE orders SET region = :region WHERE region IS NULL\nparams: { region: unknown }\nmax_rows: 1000\n";
    type Params = ExecuteParams;
    type Step = ExecuteStep;

    fn prepare(params: ExecuteParams) -> Result<ExecuteStep, Vec<ParamError>> {
        let statement = super::single(&params.sql).map_err(|error| vec![error])?;
        let mut errors = params::check(std::slice::from_ref(&statement), &params.params);
        if !params.all_rows && lacks_where(&statement) {
            errors.push(
                ParamError::new("sql", "an UPDATE or DELETE without WHERE touches every row")
                    .help("add a WHERE, or `all_rows: true` where that is meant"),
            );
        }
        if params.transaction == TransactionMode::None
            && (params.expect_rows.is_some() || params.max_rows.is_some())
        {
            errors.push(ParamError::new(
                "transaction",
                "without a transaction nothing can be rolled back: expect_rows and max_rows cannot hold",
            ));
        }
        if errors.is_empty() {
            Ok(ExecuteStep { params, statement })
        } else {
            Err(errors)
        }
    }

    fn traits(with: &Value) -> StepTraits {
        traits_of(with)
    }
}

fn lacks_where(statement: &Statement) -> bool {
    let text = statement.text();
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .map(str::to_ascii_uppercase)
        .collect();
    let first = words
        .iter()
        .find(|word| !word.is_empty())
        .map(String::as_str);
    matches!(first, Some("UPDATE" | "DELETE")) && !words.iter().any(|word| word == "WHERE")
}

/// A preview of statements that write: bound, planned by the database, not run.
pub(super) async fn preview(
    cx: &PreviewContext,
    target: &str,
    statements: &[Statement],
    params: &IndexMap<String, Value>,
) -> Result<Preview, Failure> {
    let target = cx.target(target)?;
    let url = cx.reveal(&target.url).await?;
    // Shown as they are written: a secret stays a reference.
    let mut preview = Preview::new(
        Fidelity::Estimated,
        format!("would write to {}", target.name),
    );
    for statement in statements {
        let shown = super::bind(statement, params)?;
        let values: Vec<String> = shown.values.iter().map(ToString::to_string).collect();
        preview = preview.line("sql", shown.sql.trim());
        if !values.is_empty() {
            preview = preview.line("values", values.join(", "));
        }
    }
    if let [statement] = statements
        && std::path::Path::new(url.expose().trim_start_matches("sqlite:")).exists()
    {
        let mut bound = super::bind(statement, params)?;
        bound.sql = format!("EXPLAIN QUERY PLAN {}", bound.sql);
        let planned = sqlite::with(
            &target,
            url.expose(),
            Access::Read,
            super::preview_limits(cx),
            move |connection| super::rows(connection, &bound, 50),
        )
        .await;
        // What a step before it would make is not there yet; then there is no plan to show.
        if let Ok(rows) = planned {
            for row in &rows.rows {
                if let Some(detail) = row.get("detail") {
                    preview = preview.line("plan", detail.to_string());
                }
            }
        }
    }
    preview.binding = Value::list(statements.iter().map(|s| Value::from(s.text())).collect());
    Ok(preview)
}

impl Step for ExecuteStep {
    type Capture = ();
    type State = ();
    type Output = ExecuteOutput;

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        preview(
            cx,
            &self.params.target,
            std::slice::from_ref(&self.statement),
            &self.params.params,
        )
        .await
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<ExecuteOutput, ()>, Failure> {
        if self.params.transaction == TransactionMode::None {
            return self.without_transaction(cx).await.map(Outcome::Done);
        }
        let (expect, max) = (self.params.expect_rows, self.params.max_rows);
        let statements = vec![self.statement.clone()];
        transaction::run(
            cx,
            &self.params.target,
            statements,
            &self.params.params,
            move |done| {
                let refused = |message: String| {
                    Err(Failure::new("sql.rows", message)
                        .cause(Cause::Refused)
                        .help("it was rolled back"))
                };
                let affected: u64 = done.iter().map(|d| d.rows_affected).sum();
                if let Some(expect) = expect
                    && affected != expect
                {
                    return refused(format!(
                        "{affected} rows affected, but expect_rows is {expect}"
                    ));
                }
                if let Some(max) = max
                    && affected > max
                {
                    return refused(format!("{affected} rows affected, but max_rows is {max}"));
                }
                Ok(ExecuteOutput {
                    rows_affected: affected,
                    last_insert_id: done.last().map_or(0, |d| d.last_insert_id),
                    rows: done.last().map(|d| d.rows.rows.clone()).unwrap_or_default(),
                })
            },
        )
        .await
        .map(Outcome::Done)
    }

    async fn probe(
        &self,
        (): &(),
        mark: Option<&Mark>,
        cx: &StepContext,
    ) -> Result<Probed<ExecuteOutput>, Failure> {
        if self.params.transaction == TransactionMode::None {
            return Ok(Probed::InDoubt(
                "it ran without a transaction, and the step has no probe".to_owned(),
            ));
        }
        transaction::probe(cx, &self.params.target, mark).await
    }
}

impl ExecuteStep {
    async fn without_transaction(&self, cx: &StepContext) -> Result<ExecuteOutput, Failure> {
        let target = cx.target(&self.params.target)?;
        let url = super::url(cx, &target).await?;
        let known = super::revealed(&self.params.params, cx.host.as_ref()).await?;
        let bound = super::bind(&self.statement, &known)?;
        sqlite::with(
            &target,
            &url,
            Access::Write,
            super::limits(cx),
            move |connection| {
                let done = transaction::statement(connection, &bound).map_err(|failure| {
                    // SQLite undoes a single statement that fails; one that was interrupted may have left a file.
                    let certainty = if failure.code == "sql.interrupted" {
                        Certainty::Unknown
                    } else {
                        Certainty::NoEffect
                    };
                    failure.certainty(certainty)
                })?;
                Ok(ExecuteOutput {
                    rows_affected: done.rows_affected,
                    last_insert_id: done.last_insert_id,
                    rows: done.rows.rows,
                })
            },
        )
        .await
    }
}
