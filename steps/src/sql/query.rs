//! `sql.query`
use super::params::{self, Statement};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Failure, Fidelity, Outcome, ParamError, Preview, PreviewContext, Resume, Step, StepContext,
        StepKind, StepTraits,
        params::{SqlText, TargetName},
    },
    value::Value,
};

/// Reads rows. Nothing is written, whatever the statement says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryParams {
    /// Where.
    pub target: TargetName,
    /// One statement that reads.
    pub sql: SqlText,
    /// Values for `:name`.
    #[serde(default)]
    pub params: IndexMap<String, Value>,
    /// How many rows are kept; more make the result `truncated`.
    #[serde(default = "default_max")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_result_rows: u32,
}

fn default_max() -> u32 {
    1_000
}

/// What a query gives.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct QueryOutput {
    /// The rows, each a map of its columns.
    pub rows: Vec<Value>,
    /// The row, where there is exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<Value>,
    /// The value, where there is exactly one row of one column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// How many rows are kept.
    pub row_count: u64,
    /// The columns, in order.
    pub columns: Vec<String>,
    /// Whether there were more rows.
    pub truncated: bool,
}

impl From<super::Rows> for QueryOutput {
    fn from(rows: super::Rows) -> Self {
        let vars = super::vars(&rows);
        Self {
            row: vars.get("row").cloned(),
            value: vars.get("value").cloned(),
            row_count: rows.rows.len() as u64,
            rows: rows.rows,
            columns: rows.columns,
            truncated: rows.truncated,
        }
    }
}

/// The kind `sql.query`.
pub struct Query;

/// A prepared query.
pub struct QueryStep {
    params: QueryParams,
    statement: Statement,
}

impl StepKind for Query {
    const NAME: &'static str = "sql.query";
    const TRAITS: StepTraits = StepTraits::READ_ONLY;
    const EXAMPLE: &'static str = "target: shop\nsql: SELECT count(*) FROM orders WHERE region = :region\nparams: { region: eu }\n";
    type Params = QueryParams;
    type Step = QueryStep;

    fn prepare(params: QueryParams) -> Result<QueryStep, Vec<ParamError>> {
        let statement = super::single(&params.sql).map_err(|error| vec![error])?;
        let errors = params::check(std::slice::from_ref(&statement), &params.params);
        if errors.is_empty() {
            Ok(QueryStep { params, statement })
        } else {
            Err(errors)
        }
    }
}

impl Step for QueryStep {
    type Capture = ();
    type State = ();
    type Output = QueryOutput;

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let target = cx.target(&self.params.target)?;
        let url = cx.reveal(&target.url).await?;
        let known = super::revealed(&self.params.params, cx.host.as_ref()).await?;
        let bound = super::bind(&self.statement, &known)?;
        let max = self.params.max_result_rows as usize;
        let rows =
            super::read_at(&target, url.expose(), super::preview_limits(cx), bound, max).await?;
        let mut preview = Preview::new(
            Fidelity::Executed,
            format!("reads {} rows", rows.rows.len()),
        )
        .line("sql", self.statement.text().trim());
        let output = QueryOutput::from(rows);
        preview.output = windlass_engine::value::to_value(&output).ok();
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<QueryOutput, ()>, Failure> {
        let max = self.params.max_result_rows as usize;
        let rows = super::read(
            cx,
            &self.params.target,
            &self.statement,
            &self.params.params,
            max,
        )
        .await?;
        Ok(Outcome::Done(rows.into()))
    }
}
