//! `sql.query`
use super::{
    MAX_RESULT_ROWS, QueryOutput, ask, binding, default_max_rows, one, open_for_preview,
    params::{Params, check},
};
use crate::target::{Access, Until};
use schemars::JsonSchema;
use serde::Deserialize;
use windlass_engine::{
    step::{
        Failure, Fidelity, Figure, Outcome, ParamError, Preview, PreviewContext, Resume, Step,
        StepContext, StepKind, StepTraits,
        params::{SqlText, TargetName},
    },
    value::to_value,
};

/// Asks a database one question.
///
/// The connection is read-only and the statement is checked to be one that only reads, so a query can
/// neither write by mistake nor on purpose. It runs for real in `windlass plan`. Values come back exactly:
/// integers of 64 bits, decimals and text as they are stored, bytes, NULL as `null`; a column declared
/// BOOLEAN gives `true` and `false`. Two columns of one name are refused, since a row is a map.
///
/// When the step's timeout comes, or `statement_timeout` of the target where the step has none (five
/// minutes if neither is given), the statement is ended in the database. After a crash the query simply
/// runs again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryParams {
    /// The target to ask.
    target: TargetName,
    /// One statement that reads. Values go by `:name`, identifiers by `:"name"`, quoted literals by `:'name'`.
    sql: SqlText,
    /// The values of the names in `sql`. A list binds as `IN (:list)`.
    #[serde(default)]
    params: Params,
    /// How many rows to keep; with more, `truncated` is true.
    #[serde(default = "default_max_rows")]
    #[schemars(range(min = 1, max = 100_000))]
    max_result_rows: u32,
}

pub(crate) struct Query(QueryParams);

impl StepKind for Query {
    const NAME: &'static str = "sql.query";
    const TRAITS: StepTraits = StepTraits::READ_ONLY;
    const EXAMPLE: &'static str = "\
target: orders
sql: SELECT count(*) FROM orders WHERE region = :region
params:
  region: north
";
    type Params = QueryParams;
    type Step = Self;

    fn prepare(params: QueryParams) -> Result<Self, Vec<ParamError>> {
        let mut errors = Vec::new();
        let statements = check("sql", &params.sql, &params.params, &mut errors);
        if statements.len() > 1 {
            errors.push(
                ParamError::new(
                    "sql",
                    format!(
                        "a query is one statement, and there are {}",
                        statements.len()
                    ),
                )
                .help("make a step of each"),
            );
        }
        for statement in &statements {
            let verb = statement.shape.verb.as_str();
            if matches!(
                verb,
                "INSERT"
                    | "UPDATE"
                    | "DELETE"
                    | "REPLACE"
                    | "MERGE"
                    | "CREATE"
                    | "DROP"
                    | "ALTER"
                    | "TRUNCATE"
                    | "VACUUM"
                    | "REINDEX"
                    | "ATTACH"
                    | "DETACH"
            ) {
                errors.push(
                    ParamError::new("sql", format!("{verb} writes, and a query only reads"))
                        .help("use sql.execute"),
                );
            }
        }
        if !(1..=100_000).contains(&params.max_result_rows) {
            errors.push(ParamError::new(
                "max_result_rows",
                format!("must be between 1 and 100000; {MAX_RESULT_ROWS} is the default"),
            ));
        }
        if errors.is_empty() {
            Ok(Self(params))
        } else {
            Err(errors)
        }
    }
}

impl Step for Query {
    type Capture = ();
    type State = ();
    type Output = QueryOutput;

    fn figures(output: &QueryOutput) -> Vec<Figure> {
        vec![output.figure()]
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let target = cx.target(&self.0.target)?;
        let until = Until::preview(cx, &target)?;
        let bound = one(&target, &self.0.sql, &self.0.params)?;
        let (shown, secrets) = (bound.shown.clone(), bound.secrets());
        let mut preview = match open_for_preview(cx, &target, Access::Read, &until).await? {
            Err(preview) => preview,
            Ok(mut session) => {
                let bound = bound.reveal(cx.host.as_ref()).await?;
                let rows = session
                    .read(&bound, self.0.max_result_rows as usize, &until)
                    .await?;
                let output = QueryOutput::from(rows);
                let summary = match &output.value {
                    Some(value) => format!("gives {value}"),
                    None if output.truncated => {
                        format!("gives more than {} rows", output.row_count)
                    }
                    None => format!("gives {} rows", output.row_count),
                };
                let mut preview = Preview::new(Fidelity::Executed, summary);
                preview.output = Some(
                    to_value(&output)
                        .map_err(|error| Failure::new("step.stored_format", error.to_string()))?,
                );
                preview
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
    ) -> Result<Outcome<QueryOutput, ()>, Failure> {
        let target = cx.target(&self.0.target)?;
        let until = Until::of(cx, &target, None)?;
        let bound = one(&target, &self.0.sql, &self.0.params)?;
        let output = ask(
            cx.host.as_ref(),
            &target,
            bound,
            self.0.max_result_rows,
            &until,
        )
        .await?;
        Ok(Outcome::Done(output))
    }
}
