//! SQL on every engine that the build has: `query` reads, `execute` writes one statement, `script` several.
pub mod execute;
pub mod params;
pub mod query;
pub mod script;
mod transaction;

use crate::target::sqlite::{self, Limits};
use indexmap::IndexMap;
use params::{Bound, Statement};
use rusqlite::Connection;
use windlass_engine::{
    step::{Failure, PreviewContext, StepContext, StepHost, Target},
    value::Value,
};

/// Rows as a query gives them.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Column names, in order.
    pub columns: Vec<String>,
    /// Rows as maps.
    pub rows: Vec<Value>,
    /// Whether there were more.
    pub truncated: bool,
}

/// Parameters with the content of secrets put in, for the driver alone.
async fn revealed(
    params: &IndexMap<String, Value>,
    host: &dyn StepHost,
) -> Result<IndexMap<String, Value>, Failure> {
    let mut known = params.clone();
    for value in known.values_mut() {
        if let Value::Secret(secret) = value {
            *value = Value::from(host.reveal(secret).await?.expose());
        }
    }
    Ok(known)
}

fn bind(statement: &Statement, params: &IndexMap<String, Value>) -> Result<Bound, Failure> {
    statement
        .bind(params)
        .map_err(|why| Failure::new("sql.parameters", why))
}

fn limits(cx: &StepContext) -> Limits {
    Limits {
        cancel: cx.cancel.clone(),
        deadline: cx.deadline,
        host: cx.host.clone(),
    }
}

fn preview_limits(cx: &PreviewContext) -> Limits {
    Limits {
        cancel: cx.cancel.clone(),
        deadline: None,
        host: cx.host.clone(),
    }
}

/// Runs a statement and reads at most `max` rows.
fn rows(connection: &Connection, bound: &Bound, max: usize) -> Result<Rows, Failure> {
    let mut statement = connection.prepare(&bound.sql).map_err(sqlite::failure)?;
    let columns: Vec<String> = statement
        .column_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    for (index, name) in columns.iter().enumerate() {
        if columns.iter().skip(index + 1).any(|other| other == name) {
            return Err(Failure::new(
                "sql.duplicate_column",
                format!("two columns are named {name:?}"),
            )
            .help("name one of them with AS"));
        }
    }
    let declared: Vec<Option<String>> = statement
        .columns()
        .iter()
        .map(|column| column.decl_type().map(str::to_owned))
        .collect();
    let values: Vec<_> = bound.values.iter().map(sqlite::bound).collect();
    let mut found = statement
        .query(rusqlite::params_from_iter(values))
        .map_err(sqlite::failure)?;
    let mut result = Rows {
        columns: columns.clone(),
        ..Rows::default()
    };
    while let Some(row) = found.next().map_err(sqlite::failure)? {
        if result.rows.len() == max {
            result.truncated = true;
            break;
        }
        let mut map = Vec::with_capacity(columns.len());
        for (index, name) in columns.iter().enumerate() {
            let column = row.get_ref(index).map_err(sqlite::failure)?;
            let declared = declared.get(index).and_then(Option::as_deref);
            map.push((name.as_str(), sqlite::value(column, declared)));
        }
        result.rows.push(Value::map(map));
    }
    Ok(result)
}

/// The text of a value that says where a target is.
async fn url(cx: &StepContext, target: &Target) -> Result<String, Failure> {
    Ok(cx.reveal(&target.url).await?.expose().to_owned())
}

/// A read on a target, for `sql.query`, `verify` and `wait.condition`.
///
/// # Errors
/// Where the statement writes, fails, or takes too long.
pub async fn read(
    cx: &StepContext,
    target: &str,
    statement: &Statement,
    params: &IndexMap<String, Value>,
    max: usize,
) -> Result<Rows, Failure> {
    let target = cx.target(target)?;
    let url = url(cx, &target).await?;
    let params = revealed(params, cx.host.as_ref()).await?;
    read_at(&target, &url, limits(cx), bind(statement, &params)?, max).await
}

async fn read_at(
    target: &Target,
    url: &str,
    limits: Limits,
    bound: Bound,
    max: usize,
) -> Result<Rows, Failure> {
    sqlite::with(
        target,
        url,
        sqlite::Access::Read,
        limits,
        move |connection| {
            let reads = connection
                .prepare(&bound.sql)
                .map_err(sqlite::failure)?
                .readonly();
            if !reads {
                return Err(Failure::new(
                    "sql.not_read_only",
                    "the statement writes, and a query only reads",
                )
                .help("use sql.execute"));
            }
            rows(connection, &bound, max)
        },
    )
    .await
}

/// The names that a query's result adds to an expression.
#[must_use]
pub fn vars(rows: &Rows) -> windlass_engine::expr::Vars {
    let mut vars = windlass_engine::expr::Vars::new();
    let count = i64::try_from(rows.rows.len()).unwrap_or(i64::MAX);
    vars.set("row_count", Value::Int(count));
    if let [row] = rows.rows.as_slice() {
        vars.set("row", row.clone());
        if let Some((_, value)) = row
            .as_map()
            .filter(|map| map.len() == 1)
            .and_then(|map| map.first())
        {
            vars.set("value", value.clone());
        }
    }
    vars.set("rows", Value::list(rows.rows.clone()));
    vars
}

/// The one statement of a parameter that takes one.
fn single(sql: &str) -> Result<Statement, windlass_engine::step::ParamError> {
    let mut statements = params::parse(sql);
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (Some(_), false) => Err(windlass_engine::step::ParamError::new(
            "sql",
            "more than one statement",
        )
        .help("use sql.script for several statements")),
        (None, _) => Err(windlass_engine::step::ParamError::new(
            "sql",
            "no statement",
        )),
    }
}
