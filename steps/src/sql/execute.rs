//! `sql.execute`
use super::{
    alone, binding, count, default_max_rows, guards, one, open_for_preview,
    params::{Bound, Params, Statement, check},
    transaction::{self, Transaction},
};
use crate::target::{self, Access, Affected, Session, Until};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    expr::{Expr, ExprError, Vars},
    step::{
        Cause, Effect, Failure, Fidelity, Figure, Mark, Outcome, ParamError, Preview,
        PreviewContext, Probed, Redo, Resume, Step, StepContext, StepKind, StepTraits, Target,
        UndoSupport,
        params::{Expression, SqlText, TargetName},
    },
    value::{Duration, Value, to_value},
};

/// Whether the statement runs in a transaction of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TransactionMode {
    /// In one of its own, with the guards and the ledger row inside.
    #[default]
    Own,
    /// Without: for statements that refuse one (`VACUUM`). Needs a `probe` of the step.
    None,
}

/// Runs one statement that writes, in a transaction, exactly once.
///
/// Guards are checked before the commit, and a guard that refuses takes everything back. An UPDATE or
/// DELETE without WHERE is refused unless `all_rows` is true.
///
/// **Exactly once.** Where the environment names a `ledger` table for the target, the step's own row goes into
/// it in the same transaction (SQLite makes the table where it is missing, `windlass doctor --init-ledger` elsewhere).
/// After a crash between the COMMIT and the journal the row decides: there, and the step is done with the output it had;
/// not there, and a void row is put in its place, so that a late commit fails, and the step runs again. A row that the journal
/// does not know (it was put back from a backup) lets the step act no second time: it is in doubt. Without a ledger
/// PostgreSQL is asked for the transaction itself; SQLite cannot tell, and the step is in doubt until a person settles
/// it with `windlass resolve`.
///
/// **Undo.** None of its own: give the step an `undo`, or it is `impossible`. SQL that undoes a step on the step's own
/// target asks its ledger first: where the step's row is not there any more (the server lost it, by a failover or a
/// restore), nothing is undone, and a person decides.
///
/// **`transaction: none`** runs the statement alone, for those that refuse a transaction. Then there are no guards and
/// no ledger row, and the step needs a `probe`, in `undo` too. A server continues such a statement when its client is
/// gone: after a crash it is waited for, as long as the step may take, its session is ended, and then the probe is
/// asked. Name the server itself in the environment, not a pooler in front of it.
///
/// A timeout, or `windlass cancel`, ends the statement in the database and takes it back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecuteParams {
    /// The target to write to.
    target: TargetName,
    /// One statement. Values go by `:name`, identifiers by `:"name"`, quoted literals by `:'name'`.
    sql: SqlText,
    /// The values of the names in `sql`. A list binds as `IN (:list)`.
    #[serde(default)]
    params: Params,
    /// How many rows must be affected: a number, or a condition on `rows_affected`. Otherwise it is rolled back and fails.
    #[schemars(extend("x-windlass-names" = ["rows_affected"]))]
    expect_rows: Option<Expression>,
    /// How many rows may be affected at most. Beyond, it is rolled back and fails.
    max_rows: Option<u64>,
    /// Lets UPDATE and DELETE go without WHERE.
    #[serde(default)]
    all_rows: bool,
    /// How long to wait for a lock; by default the target's `busy_timeout`.
    lock_timeout: Option<Duration>,
    /// `own`, or `none` for a statement that refuses a transaction.
    #[serde(default)]
    transaction: TransactionMode,
    /// How many rows to keep of what the statement returns (`RETURNING`).
    #[serde(default = "default_max_rows")]
    #[schemars(range(min = 1, max = 100_000))]
    max_result_rows: u32,
}

impl ExecuteParams {
    /// The guards on rows that are given.
    fn row_guards(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("expect_rows", self.expect_rows.is_some()),
            ("max_rows", self.max_rows.is_some()),
        ];
        given
            .into_iter()
            .filter_map(|(key, given)| given.then_some(key))
    }
}

/// What the statement did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ExecuteOutput {
    /// Rows that the statement inserted, changed or deleted; not those of triggers.
    pub(crate) rows_affected: u64,
    /// The id that the database chose for the last inserted row, if any.
    pub(crate) last_insert_id: Option<i64>,
    /// What the statement returned (`RETURNING`), as maps by column.
    pub(crate) rows: Vec<Value>,
    /// Whether it returned more rows than `rows` holds.
    pub(crate) truncated: bool,
}

impl From<Affected> for ExecuteOutput {
    fn from(affected: Affected) -> Self {
        Self {
            rows_affected: affected.rows,
            last_insert_id: affected.last_insert_id,
            rows: affected.returned.rows,
            truncated: affected.returned.truncated,
        }
    }
}

pub(crate) struct Execute(ExecuteParams);

/// What holds for SQL that writes; `transaction: none` leaves recovery to the step's probe or a person.
pub(super) fn write_traits(with: &Value) -> StepTraits {
    let alone = with.get("transaction").and_then(Value::as_str) == Some("none");
    StepTraits {
        effect: Effect::Writes,
        redo: if alone {
            Redo::AskOperator
        } else {
            Redo::ProbeFirst
        },
        marks: true,
        captures: false,
        undo: UndoSupport::Impossible,
        fidelity: Fidelity::Estimated,
        skippable: true,
    }
}

impl StepKind for Execute {
    const NAME: &'static str = "sql.execute";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::ProbeFirst,
        marks: true,
        captures: false,
        undo: UndoSupport::Impossible,
        fidelity: Fidelity::Estimated,
        skippable: true,
    };
    const EXAMPLE: &'static str = "\
target: orders
sql: UPDATE orders SET state = :to WHERE state = :from
params:
  from: pending
  to: open
expect_rows: rows_affected > 0
max_rows: 5000
lock_timeout: 2s
";
    type Params = ExecuteParams;
    type Step = Self;

    fn traits(with: &Value) -> StepTraits {
        write_traits(with)
    }

    fn prepare(params: ExecuteParams) -> Result<Self, Vec<ParamError>> {
        let mut errors = Vec::new();
        let statements = check("sql", &params.sql, &params.params, &mut errors);
        if statements.len() > 1 {
            errors.push(
                ParamError::new(
                    "sql",
                    format!(
                        "sql.execute runs one statement, and there are {}",
                        statements.len()
                    ),
                )
                .help("use sql.script, or make a step of each"),
            );
        }
        for statement in &statements {
            let shape = &statement.shape;
            errors.extend(guards::unbounded("sql", shape, params.all_rows));
            errors.extend(
                params
                    .row_guards()
                    .filter_map(|key| guards::uncounted(key, shape)),
            );
            if shape.verb == "EXPLAIN" {
                errors.push(
                    ParamError::new("sql", "EXPLAIN only asks, and with ANALYZE no guard holds")
                        .help("use sql.query; `windlass plan` shows how a statement would run"),
                );
            }
        }
        if params.transaction == TransactionMode::Own {
            let refusing = |statement: &Statement| guards::needs_none("sql", &statement.shape);
            errors.extend(statements.iter().filter_map(refusing));
        }
        if params.transaction == TransactionMode::None {
            errors.extend(params.row_guards().map(|key| {
                ParamError::new(key, "a guard takes the transaction back, and with `transaction: none` there is none")
                    .help("leave it out, or check afterwards with verify")
            }));
        }
        errors.extend(positive("lock_timeout", params.lock_timeout));
        if errors.is_empty() {
            Ok(Self(params))
        } else {
            Err(errors)
        }
    }
}

pub(super) fn positive(key: &str, duration: Option<Duration>) -> Option<ParamError> {
    duration
        .filter(|duration| *duration <= Duration::ZERO)
        .map(|_| ParamError::new(key, "must be longer than nothing"))
}

impl Execute {
    fn bound(&self, target: &Target) -> Result<Bound, Failure> {
        let bound = one(target, &self.0.sql, &self.0.params)?;
        guards::admitted(&bound.shape, self.0.all_rows)?;
        Ok(bound)
    }

    fn guard(
        &self,
        affected: u64,
        evaluate: impl FnOnce(&Expr, Vars) -> Result<Value, ExprError>,
    ) -> Result<(), Failure> {
        let refused = |message: String| {
            Failure::new("sql.guard", message)
                .cause(Cause::Refused)
                .output(Value::map([("rows_affected", count(affected))]))
                .help("nothing was changed: the transaction was rolled back")
        };
        if let Some(max) = self.0.max_rows
            && affected > max
        {
            return Err(refused(format!(
                "{affected} rows affected, more than max_rows {max}; rolled back"
            )));
        }
        let Some(expected) = &self.0.expect_rows else {
            return Ok(());
        };
        let vars = Vars::new().with("rows_affected", count(affected));
        let value = evaluate(&expected.0, vars).map_err(|error| {
            Failure::new(
                "expression.failed",
                format!("expect_rows: {}", error.message),
            )
        })?;
        let holds = match (value.as_bool(), value.as_int()) {
            (Some(holds), _) => holds,
            (None, Some(wanted)) => i128::from(wanted) == i128::from(affected),
            (None, None) => {
                return Err(Failure::new(
                    "expression.type",
                    format!(
                        "expect_rows gives a {}, where a number or true or false is needed",
                        value.type_name()
                    ),
                ));
            }
        };
        if holds {
            Ok(())
        } else {
            Err(refused(format!(
                "{affected} rows affected, and expect_rows is {}; rolled back",
                expected.0.source()
            )))
        }
    }

    async fn in_transaction(
        &self,
        cx: &StepContext,
        target: Target,
        bound: Bound,
    ) -> Result<ExecuteOutput, Failure> {
        let mut transaction = Transaction::begin(cx, target, self.0.lock_timeout).await?;
        let affected = transaction.run(cx, bound, self.0.max_result_rows).await?;
        let guarded = self.guard(affected.rows, |expr, vars| cx.evaluate(expr, vars));
        transaction.or_back(guarded).await?;
        let output = ExecuteOutput::from(affected);
        let kept = transaction.or_back(kept(&output)).await?;
        transaction.commit(cx, kept).await?;
        Ok(output)
    }

    async fn on_its_own(
        &self,
        cx: &StepContext,
        target: Target,
        bound: Bound,
    ) -> Result<ExecuteOutput, Failure> {
        let until = Until::of(cx, &target, self.0.lock_timeout)?;
        let mut session = target::open(cx.host.as_ref(), &target, Access::Write, &until).await?;
        transaction::has_what_is_undone(cx, &mut session, &target, &until).await?;
        let shape = bound.shape.clone();
        let bound = bound.reveal(cx.host.as_ref()).await?;
        alone::mark(cx, &mut session, 1, &until).await?;
        let affected = session
            .run(&bound, self.0.max_result_rows as usize, &until)
            .await
            .map_err(|failure| alone::failed(failure, &shape))?;
        Ok(affected.into())
    }
}

pub(super) fn kept<T: Serialize>(output: &T) -> Result<Value, Failure> {
    to_value(output).map_err(|error| Failure::new("step.stored_format", error.to_string()))
}

/// Why statements would leave a trace although they are taken back, asked of the database before any of them runs.
pub(super) async fn leaves_trace(
    session: &mut Box<dyn Session>,
    all: &[&Bound],
    until: &Until,
) -> Result<Option<String>, Failure> {
    session.begin(until).await?;
    let mut found = None;
    for bound in all {
        found = session
            .trace(bound, until)
            .await
            .unwrap_or_else(|failure| Some(failure.to_string()));
        if found.is_some() {
            break;
        }
    }
    session.rollback().await?;
    Ok(found)
}

/// The label of the reason why something was estimated although a rehearsal was asked for.
pub(super) const NOT_REHEARSED: &str = "not rehearsed";

/// How SQL that writes would run, asked of the database; with `rehearse` it runs and is taken back.
pub(super) async fn look(
    cx: &PreviewContext,
    session: &mut Box<dyn Session>,
    bound: &Bound,
    until: &Until,
) -> Preview {
    let verb = bound.shape.verb.as_str();
    match session.explain(bound, until).await {
        Ok(lines) => {
            let preview = Preview::new(Fidelity::Estimated, format!("would run {verb}"));
            if lines.is_empty() {
                preview
            } else {
                preview.line("access", lines.join("\n"))
            }
        }
        Err(failure) => Preview::new(
            if cx.cancel.is_cancelled() {
                Fidelity::Unknown
            } else {
                Fidelity::Simulated
            },
            format!("would run {verb}; as the database is now it says: {failure}"),
        ),
    }
}

/// Statements that a database takes back without a trace.
pub(super) fn can_be_rehearsed(bound: &Bound) -> bool {
    matches!(
        bound.shape.verb.as_str(),
        "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "SELECT" | "VALUES"
    )
}

impl Step for Execute {
    type Capture = ();
    type State = ();
    type Output = ExecuteOutput;

    fn figures(output: &ExecuteOutput) -> Vec<Figure> {
        vec![Figure::rows(output.rows_affected)]
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let target = cx.target(&self.0.target)?;
        let until = Until::preview(cx, &target)?;
        let bound = self.bound(&target)?;
        let (shown, secrets) = (bound.shown.clone(), bound.secrets());
        let rehearse =
            cx.rehearse && self.0.transaction == TransactionMode::Own && can_be_rehearsed(&bound);
        let access = if rehearse {
            Access::Write
        } else {
            Access::Read
        };
        let mut preview = match open_for_preview(cx, &target, access, &until).await? {
            Err(preview) => preview,
            Ok(mut session) => {
                let bound = bound.reveal(cx.host.as_ref()).await?;
                let trace = if rehearse {
                    leaves_trace(&mut session, &[&bound], &until).await?
                } else {
                    None
                };
                if let Some(why) = trace {
                    look(cx, &mut session, &bound, &until)
                        .await
                        .line(NOT_REHEARSED, why)
                } else if rehearse {
                    session.begin(&until).await?;
                    let ran = session
                        .run(&bound, self.0.max_result_rows as usize, &until)
                        .await;
                    let checked = match &ran {
                        Ok(_) => session.check_deferred().await,
                        Err(_) => Ok(()),
                    };
                    session.rollback().await?;
                    match ran {
                        Ok(affected) => {
                            let changes = guards::counts(&bound.shape);
                            let summary = match changes {
                                true => format!("would affect {} rows", affected.rows),
                                false => format!("would run {}", bound.shape.verb),
                            };
                            let guarded = self
                                .guard(affected.rows, |expr, vars| cx.host.evaluate(expr, vars));
                            let mut preview = Preview::new(Fidelity::RolledBack, summary);
                            for (label, held) in [("guard", guarded), ("at its COMMIT", checked)] {
                                if let Err(failure) = held {
                                    let text = format!("would fail: {}", failure.message);
                                    preview = preview.line(label, text);
                                }
                            }
                            preview
                        }
                        Err(failure) => {
                            Preview::new(Fidelity::RolledBack, format!("would fail: {failure}"))
                        }
                    }
                } else {
                    look(cx, &mut session, &bound, &until).await
                }
            }
        };
        preview = preview.line("sql", shown);
        preview.binding = binding(&self.0.sql);
        preview.ends_within = Some(until.limit);
        preview.secrets = secrets;
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<ExecuteOutput, ()>, Failure> {
        let target = cx.target(&self.0.target)?;
        let bound = self.bound(&target)?;
        let output = match self.0.transaction {
            TransactionMode::Own => self.in_transaction(cx, target, bound).await?,
            TransactionMode::None => self.on_its_own(cx, target, bound).await?,
        };
        Ok(Outcome::Done(output))
    }

    async fn probe(
        &self,
        (): &(),
        mark: Option<&Mark>,
        cx: &StepContext,
    ) -> Result<Probed<ExecuteOutput>, Failure> {
        let target = cx.target(&self.0.target)?;
        match (mark, self.0.transaction) {
            (Some(mark), TransactionMode::None) => alone::probe(mark, cx, &target).await,
            _ => transaction::probe(mark, cx, target).await,
        }
    }
}
