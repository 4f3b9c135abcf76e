//! Between SQLite's values and ours, exactly.
use super::errors::Trouble;
use crate::{sql::params::Bound, target::Rows};
use rusqlite::{
    Statement,
    types::{ToSql, ToSqlOutput, ValueRef},
};
use std::sync::Arc;
use windlass_engine::{
    step::Failure,
    value::{Map, Value},
};

/// A value on its way in.
struct In<'a>(&'a Value);

impl ToSql for In<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Bool(b) => ToSqlOutput::Borrowed(ValueRef::Integer(i64::from(*b))),
            Value::Int(i) => ToSqlOutput::Borrowed(ValueRef::Integer(*i)),
            Value::Float(x) => ToSqlOutput::Borrowed(ValueRef::Real(*x)),
            Value::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Value::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Value::Size(size) => ToSqlOutput::Borrowed(ValueRef::Integer(size.0)),
            // As text a decimal keeps every digit; a column of numbers makes a number of it.
            Value::Decimal(_) | Value::Timestamp(_) => ToSqlOutput::from(self.0.to_string()),
            Value::Duration(duration) if duration.as_millis() % 1_000 == 0 => {
                ToSqlOutput::from(duration.as_millis() / 1_000)
            }
            Value::Duration(duration) => ToSqlOutput::from(duration.as_secs_f64()),
            Value::List(_) | Value::Map(_) | Value::Secret(_) => {
                return Err(rusqlite::Error::ToSqlConversionFailure(
                    format!("a {} cannot be bound", self.0.type_name()).into(),
                ));
            }
        })
    }
}

/// Binds all values; a placeholder of SQLite's own would be NULL in silence, so it is refused.
pub(super) fn bind(statement: &mut Statement<'_>, bound: &Bound) -> Result<(), Trouble> {
    if statement.parameter_count() != bound.values.len() {
        return Err(Trouble::Refused(
            Failure::new(
                "sql.placeholder",
                "the SQL has a placeholder that is not written :name",
            )
            .help("write values as :name and list them under params; ?, ?1, @name and $name are not read"),
        ));
    }
    for (at, value) in bound.values.iter().enumerate() {
        statement.raw_bind_parameter(at + 1, In(value))?;
    }
    Ok(())
}

/// The names of the columns; a name that stands twice is refused.
pub(super) fn columns(statement: &Statement<'_>) -> Result<Vec<String>, Trouble> {
    let names: Vec<String> = statement
        .column_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    for (at, name) in names.iter().enumerate() {
        if names.iter().take(at).any(|before| before == name) {
            return Err(Trouble::Refused(
                Failure::new(
                    "sql.duplicate_column",
                    format!("the result has two columns named {name}"),
                )
                .help(format!("name one of them: … AS {name}_2")),
            ));
        }
    }
    Ok(names)
}

/// Steps through the rows and keeps the first ones.
pub(super) fn rows(statement: &mut Statement<'_>, max_rows: usize) -> Result<Rows, Trouble> {
    // Rows that nobody keeps need no names.
    let columns = match max_rows {
        0 => Vec::new(),
        _ => columns(statement)?,
    };
    let booleans: Vec<bool> = statement
        .columns()
        .iter()
        .map(|column| {
            column.decl_type().is_some_and(|declared| {
                declared.eq_ignore_ascii_case("boolean") || declared.eq_ignore_ascii_case("bool")
            })
        })
        .collect();
    let keys: Vec<Arc<str>> = columns.iter().map(|name| name.as_str().into()).collect();
    let mut kept = Vec::new();
    let mut truncated = false;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        // A statement that writes must run to its end all the same.
        if kept.len() == max_rows {
            truncated = true;
            continue;
        }
        let mut map = Map::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            let boolean = booleans.get(at).copied().unwrap_or(false);
            map.insert(key.clone(), out(row.get_ref(at)?, boolean));
        }
        kept.push(Value::Map(Arc::new(map)));
    }
    Ok(Rows {
        columns,
        rows: kept,
        truncated,
    })
}

/// A value on its way out.
pub(super) fn out(value: ValueRef<'_>, boolean: bool) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(i @ (0 | 1)) if boolean => Value::Bool(i == 1),
        ValueRef::Integer(i) => Value::Int(i),
        ValueRef::Real(x) => Value::Float(x),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Value::text(text),
            Err(_) => Value::Bytes(text.into()),
        },
        ValueRef::Blob(bytes) => Value::Bytes(bytes.into()),
    }
}
