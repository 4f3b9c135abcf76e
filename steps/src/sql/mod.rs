//! SQL steps, for every database alike; what differs stands in [`crate::target`].
mod alone;
pub(crate) mod execute;
mod guards;
pub(crate) mod lex;
pub(crate) mod params;
pub(crate) mod password;
pub(crate) mod query;
pub(crate) mod script;
pub(crate) mod shape;
#[cfg(test)]
mod tests;
pub(crate) mod transaction;

use crate::target::{self, Access, Rows, Session, Until};
use lex::Dialect;
use params::{Bound, Params, Statement};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use windlass_engine::{
    expr::Vars,
    step::{Failure, Figure, Preview, PreviewContext, StepHost, Target},
    value::Value,
};

/// How many rows a step keeps where it does not say.
pub(crate) const MAX_RESULT_ROWS: u32 = 1_000;

pub(crate) fn default_max_rows() -> u32 {
    MAX_RESULT_ROWS
}

/// What a query gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct QueryOutput {
    /// The rows, as maps by column, up to `max_result_rows`.
    pub(crate) rows: Vec<Value>,
    /// The only row; reading it is an error unless there is exactly one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub(crate) row: Option<Value>,
    /// The only column of the only row; reading it is an error unless there is exactly one of each.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub(crate) value: Option<Value>,
    /// How many rows are in `rows`.
    pub(crate) row_count: u64,
    /// The names of the columns, in order.
    pub(crate) columns: Vec<String>,
    /// Whether there were more rows than `rows` holds.
    pub(crate) truncated: bool,
}

/// A NULL that is there is not a value that is missing.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

impl From<Rows> for QueryOutput {
    fn from(rows: Rows) -> Self {
        let row = match rows.rows.as_slice() {
            [row] if !rows.truncated => Some(row.clone()),
            _ => None,
        };
        let value = row
            .as_ref()
            .and_then(Value::as_map)
            .filter(|map| map.len() == 1)
            .and_then(|map| map.values().next().cloned());
        Self {
            row_count: rows.rows.len() as u64,
            rows: rows.rows,
            row,
            value,
            columns: rows.columns,
            truncated: rows.truncated,
        }
    }
}

impl QueryOutput {
    /// How many rows came, as far as they are kept.
    pub(crate) const fn figure(&self) -> Figure {
        if self.truncated {
            Figure::count("rows", self.row_count, "row kept", "rows kept")
        } else {
            Figure::rows(self.row_count)
        }
    }

    /// The names that expressions over a query see; `row` and `value` only where they are.
    pub(crate) fn vars(&self) -> Vars {
        let mut vars = Vars::new()
            .with("rows", Value::list(self.rows.clone()))
            .with("row_count", count(self.row_count))
            .with("truncated", Value::Bool(self.truncated));
        for (name, value) in [("row", &self.row), ("value", &self.value)] {
            if let Some(value) = value {
                vars.set(name, value.clone());
            }
        }
        vars
    }
}

pub(crate) fn count(n: u64) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// The statements of a text, as this target's database reads them.
pub(crate) fn statements(target: &Target, sql: &str) -> Result<Vec<Statement>, Failure> {
    let dialect = match target.kind.as_str() {
        "sqlite" => Dialect::SQLITE,
        "postgres" => Dialect::POSTGRES,
        _ => Dialect::COMMON,
    };
    params::parse(sql, dialect).map_err(|error| Failure::new("sql.text", error.to_string()))
}

/// The one statement of a text, with its parameters.
pub(crate) fn one(target: &Target, sql: &str, given: &Params) -> Result<Bound, Failure> {
    let all = statements(target, sql)?;
    match all.as_slice() {
        [one] => one.bind(given),
        many => Err(Failure::new(
            "sql.statements",
            format!("one statement is needed here, and there are {}", many.len()),
        )),
    }
}

/// Asks a target one question.
pub(crate) async fn ask(
    host: &dyn StepHost,
    target: &Target,
    bound: Bound,
    max_rows: u32,
    until: &Until,
) -> Result<QueryOutput, Failure> {
    let bound = bound.reveal(host).await?;
    let mut session = target::open(host, target, Access::Read, until).await?;
    let rows = session.read(&bound, max_rows as usize, until).await?;
    Ok(rows.into())
}

/// What goes into a plan's digest of SQL.
pub(crate) fn binding(sql: &str) -> Value {
    Value::map([("sql", Value::from(sql))])
}

/// A connection for a preview; where there is no database yet, the preview that says so.
pub(crate) async fn open_for_preview(
    cx: &PreviewContext,
    target: &Target,
    access: Access,
    until: &Until,
) -> Result<Result<Box<dyn Session>, Preview>, Failure> {
    let url = target::url(cx.host.as_ref(), target).await?;
    let database = target::database(target)?;
    if !database.exists(target, url.expose())? {
        return Ok(Err(Preview::new(
            windlass_engine::step::Fidelity::Unknown,
            format!(
                "{} does not exist yet, so nothing can be asked of it",
                target.name
            ),
        )));
    }
    Ok(Ok(database
        .open(target, url.expose(), access, until)
        .await?))
}
