//! Values to the server and back, exact.
use super::json;
use crate::{sql::params::Bound, target::Rows};
use sha2::{Digest, Sha256};
use sqlx::{
    Arguments as _, AssertSqlSafe, Column, PgConnection, Row, TypeInfo, ValueRef as _,
    postgres::{PgArguments, PgRow, PgTypeInfo, PgValueFormat, PgValueRef},
};
use std::collections::HashMap;
use windlass_engine::{
    step::Failure,
    value::{Decimal, Map, Timestamp, Value},
};

/// A statement that is ready for the server: its values as texts or NULL, which the server reads as the types that it
/// infers for them.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    /// With `$1::text::int4`, ….
    pub(super) sql: String,
    /// With `($1::text[])[1]::int4`, …: all values in one.
    in_one: String,
    values: Vec<Option<String>>,
}

impl Typed {
    /// A statement of our own.
    pub(super) fn plain(sql: String) -> Self {
        Self {
            in_one: String::new(),
            sql,
            values: Vec::new(),
        }
    }

    /// With the types of its values, as the server names them.
    pub(super) fn new(bound: &Bound, types: &[String]) -> Result<Self, Failure> {
        let kind = |place: usize| {
            let kind = types
                .get(place.saturating_sub(1))
                .map_or("", String::as_str);
            if matches!(kind, "unknown" | "") {
                "text"
            } else {
                kind
            }
        };
        let cast = |place: usize| match kind(place) {
            "text" => String::new(),
            // By these names of the standard they would be cut to a length of one.
            "character" => "::bpchar".to_owned(),
            "character[]" => "::bpchar[]".to_owned(),
            "bit" => "::pg_catalog.\"bit\"".to_owned(),
            "bit[]" => "::pg_catalog.\"bit\"[]".to_owned(),
            known => format!("::{known}"),
        };
        let values = bound
            .values
            .iter()
            .enumerate()
            .map(|(at, value)| text_of(value, kind(at + 1)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            sql: bound.with_places(|place| format!("${place}::text{}", cast(place))),
            in_one: bound.with_places(|place| format!("($1::text[])[{place}]{}", cast(place))),
            values,
        })
    }

    /// Whether it has no values.
    pub(super) fn is_plain(&self) -> bool {
        self.values.is_empty()
    }

    /// The values, each in its place.
    pub(super) fn arguments(&self) -> PgArguments {
        let mut arguments = PgArguments::default();
        for text in &self.values {
            // Text always encodes.
            drop(arguments.add(text));
        }
        arguments
    }

    /// What a statement with these values gives, read in full: text only.
    ///
    /// By the extended protocol, in which the server takes one statement and refuses a second one, whatever we took the
    /// text for.
    pub(super) async fn fetch(
        &self,
        sql: String,
        connection: &mut PgConnection,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        sqlx::query_with(AssertSqlSafe(sql), self.arguments())
            .persistent(false)
            .fetch_all(connection)
            .await
    }

    /// The statement as three.
    pub(super) fn in_one(&self) -> InOne {
        let mut values = PgArguments::default();
        drop(values.add(&self.values));
        // For those who look at what the server does: the statement, not our way to it.
        let told = self.sql.replace("/*", "/ *").replace("*/", "* /");
        if self.is_plain() {
            return InOne {
                values: None,
                prepare: format!("PREPARE {STATEMENT} AS {}", self.sql),
                execute: format!("/* {told} */ EXECUTE {STATEMENT}"),
            };
        }
        InOne {
            values: Some(values),
            prepare: format!("PREPARE {STATEMENT} (text[]) AS {}", self.in_one),
            execute: format!(
                "/* {told} */ EXECUTE {STATEMENT} (current_setting('windlass.values')::text[])"
            ),
        }
    }
}

/// A statement whose rows come as text although the server was given it alone, and with values: these are set as one list, it is prepared, it is executed.
/// The values stand in no text.
pub(super) struct InOne {
    /// For [`SET`], where it has values.
    pub(super) values: Option<PgArguments>,
    pub(super) prepare: String,
    pub(super) execute: String,
}

/// The name that it is prepared under.
pub(super) const STATEMENT: &str = "windlass_statement";
/// Sets the values, for this transaction.
pub(super) const SET: &str = "SELECT set_config('windlass.values', $1::text[]::text, true)";
/// Forgets the statement.
pub(super) const UNSET: &str = "DEALLOCATE windlass_statement";

/// A value as the server reads it for a type.
fn text_of(value: &Value, kind: &str) -> Result<Option<String>, Failure> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::Bytes(bytes) => format!("\\x{}", hex::encode(bytes)),
        Value::Duration(duration) => format!("{} seconds", duration.as_secs_f64()),
        Value::List(_) | Value::Map(_) if matches!(kind, "json" | "jsonb") => {
            let mut text = String::new();
            json::write(value, &mut text)?;
            text
        }
        Value::List(items) if kind.ends_with("[]") => {
            let mut text = String::new();
            write_array(items, kind.trim_end_matches("[]"), &mut text)?;
            text
        }
        Value::List(_) | Value::Map(_) => {
            return Err(Failure::new(
                "sql.parameter_type",
                format!("a {} cannot be bound where the server takes {kind}", value.type_name()),
            )
            .help("lists go into IN (:list) and into arrays, lists and maps into json and jsonb: write a cast, :name::jsonb"));
        }
        other => other.to_string(),
    };
    if text.contains('\0') {
        return Err(Failure::new(
            "sql.parameter_type",
            "a text with NUL cannot be stored by PostgreSQL",
        ));
    }
    Ok(Some(text))
}

/// What stands between the items of an array.
fn delimiter(element: &str) -> char {
    if element.eq_ignore_ascii_case("box") {
        ';'
    } else {
        ','
    }
}

fn write_array(items: &[Value], element: &str, out: &mut String) -> Result<(), Failure> {
    out.push('{');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(delimiter(element));
        }
        match item {
            Value::List(inner) if !matches!(element, "json" | "jsonb") => {
                write_array(inner, element, out)?;
            }
            Value::Secret(_) => json::write(item, out)?,
            _ => match text_of(item, element)? {
                None => out.push_str("NULL"),
                Some(text) => {
                    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
                    out.push_str(&format!("\"{quoted}\""));
                }
            },
        }
    }
    out.push('}');
    Ok(())
}

/// Rows as maps by column.
pub(super) fn rows(rows: &[PgRow], arrays: &Arrays) -> Result<Rows, Failure> {
    let Some(first) = rows.first() else {
        return Ok(Rows::default());
    };
    let columns: Vec<String> = first
        .columns()
        .iter()
        .map(|column| column.name().to_owned())
        .collect();
    for (at, name) in columns.iter().enumerate() {
        if columns.iter().take(at).any(|before| before == name) {
            return Err(Failure::new(
                "sql.duplicate_column",
                format!("two columns are called {name}, and a row is a map"),
            )
            .help("give one of them another name with AS"));
        }
    }
    let maps = rows
        .iter()
        .map(|row| {
            let mut map = Map::new();
            for (at, name) in columns.iter().enumerate() {
                map.insert(name.as_str().into(), value(row, at, arrays)?);
            }
            Ok(Value::Map(map.into()))
        })
        .collect::<Result<_, Failure>>()?;
    Ok(Rows {
        columns,
        rows: maps,
        truncated: false,
    })
}

fn raw(row: &PgRow, at: usize) -> Result<PgValueRef<'_>, Failure> {
    row.try_get_raw(at)
        .map_err(|error| Failure::new("sql.driver", error.to_string()))
}

/// How large a row is, in bytes.
pub(super) fn size(row: &PgRow) -> usize {
    let columns = 0..row.columns().len();
    columns
        .filter_map(|at| row.try_get_raw(at).ok()?.as_bytes().ok().map(<[u8]>::len))
        .sum()
}

/// A column of a row that came by the simple protocol; `None` where it is NULL or not there.
pub(super) fn text(row: &PgRow, at: usize) -> Option<String> {
    let raw = row.try_get_raw(at).ok()?;
    raw.as_str().ok().map(str::to_owned)
}

/// Array types of the database's own, by number, with the name of what they hold: `INT4[]` for an array of a domain.
#[derive(Debug, Default)]
pub(super) struct Arrays(HashMap<u32, Option<String>>);

impl Arrays {
    /// The first number of a type that a server does not ship.
    const OWN: u32 = 16_384;

    /// The types of a row that are not known yet.
    fn unknown(&self, row: &PgRow) -> Vec<u32> {
        let kinds = row.columns().iter().map(|column| column.type_info().oid());
        kinds
            .filter_map(|oid| oid.map(|oid| oid.0))
            .filter(|oid| *oid >= Self::OWN && !self.0.contains_key(oid))
            .collect()
    }

    /// Asks the server for the types of a row that are not known yet.
    pub(super) async fn learn(
        &mut self,
        row: &PgRow,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        let unknown = self.unknown(row);
        if unknown.is_empty() {
            return Ok(());
        }
        let numbers: Vec<String> = unknown.iter().map(ToString::to_string).collect();
        let found = sqlx::raw_sql(AssertSqlSafe(format!(
            "WITH RECURSIVE down AS ( \
               SELECT oid, typelem AS held FROM pg_type WHERE oid IN ({}) AND typcategory = 'A' \
               UNION ALL SELECT d.oid, t.typbasetype FROM down d JOIN pg_type t ON t.oid = d.held WHERE t.typtype = 'd') \
             SELECT d.oid, upper(t.typname) || '[]' FROM down d JOIN pg_type t ON t.oid = d.held WHERE t.typtype <> 'd'",
            numbers.join(", ")
        )))
        .fetch_all(connection)
        .await?;
        self.0.extend(unknown.into_iter().map(|oid| (oid, None)));
        for row in &found {
            if let Some(oid) = text(row, 0).and_then(|oid| oid.parse().ok()) {
                self.0.insert(oid, text(row, 1));
            }
        }
        Ok(())
    }

    /// What a column's type is called here.
    fn name(&self, kind: &PgTypeInfo) -> String {
        let own = kind.oid().and_then(|oid| self.0.get(&oid.0)?.clone());
        own.unwrap_or_else(|| kind.name().to_owned())
    }
}

fn value(row: &PgRow, at: usize, arrays: &Arrays) -> Result<Value, Failure> {
    let raw = raw(row, at)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = arrays.name(&raw.type_info());
    let name = || row.columns().get(at).map_or("", Column::name);
    let cannot = |why: String| {
        Failure::new(
            "sql.column_type",
            format!("column {} of type {kind} cannot be read: {why}", name()),
        )
        .help(format!("cast it: {}::text", name()))
    };
    // Rows come by the simple protocol, as the server itself writes them; what is text is so in binary, too.
    if raw.format() == PgValueFormat::Binary && !matches!(kind.as_str(), "TEXT" | "JSON" | "XML") {
        return Err(cannot("it came in binary".to_owned()));
    }
    let text = raw.as_str().map_err(|error| cannot(error.to_string()))?;
    typed(&kind, text.to_owned()).map_err(cannot)
}

/// A value from the server's own text of it. What has no exact type here stays text.
fn typed(kind: &str, text: String) -> Result<Value, String> {
    let wrong = |what: &str| format!("{what} is no {kind}");
    if let Some(element) = kind.strip_suffix("[]") {
        return array(element, &text).map_or(Ok(Value::from(text)), Ok);
    }
    Ok(match kind {
        "BOOL" => Value::Bool(text == "t"),
        "INT2" | "INT4" | "INT8" | "OID" => Value::Int(text.parse().map_err(|_| wrong(&text))?),
        "NUMERIC" => match text.parse::<Decimal>() {
            Ok(decimal) => Value::Decimal(decimal),
            // NaN and the infinities are no numbers anybody can count with.
            Err(_) => Value::from(text),
        },
        "FLOAT4" | "FLOAT8" => match text.parse::<f64>() {
            Ok(float) if float.is_finite() => Value::Float(float),
            Ok(_) | Err(_) => Value::from(text),
        },
        "JSON" | "JSONB" => json::read(&text).unwrap_or_else(|| Value::from(text)),
        "TIMESTAMPTZ" => instant(&text).map_or(Value::from(text), Value::Timestamp),
        "BYTEA" => {
            let digits = text.strip_prefix("\\x").ok_or_else(|| wrong(&text))?;
            Value::Bytes(hex::decode(digits).map_err(|_| wrong(&text))?.into())
        }
        _ => Value::from(text),
    })
}

/// `2026-11-21 03:04:05.678+01`, `…+05:30`; infinities, years before Christ and beyond 9999 are none.
fn instant(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once(' ')?;
    let sign = rest.rfind(['+', '-'])?;
    let (time, offset) = rest.split_at(sign);
    let offset = if offset.len() == 3 {
        format!("{offset}:00")
    } else {
        offset.to_owned()
    };
    format!("{date}T{time}{offset}").parse().ok()
}

/// `{1,NULL,"a b",{…}}`
fn array(element: &str, text: &str) -> Option<Value> {
    // Bounds other than one are said before it: `[0:1]={…}`. These stay text.
    let mut chars = text.char_indices().peekable();
    let value = items(element, &mut chars)?;
    chars.next().is_none().then_some(value)
}

fn items(
    element: &str,
    chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
) -> Option<Value> {
    if chars.next()?.1 != '{' {
        return None;
    }
    let mut all = Vec::new();
    loop {
        match chars.peek()?.1 {
            '}' => {
                chars.next();
                return Some(Value::list(all));
            }
            char if char == delimiter(element) => {
                chars.next();
            }
            '{' => all.push(items(element, chars)?),
            '"' => {
                chars.next();
                let mut item = String::new();
                loop {
                    match chars.next()?.1 {
                        '"' => break,
                        '\\' => item.push(chars.next()?.1),
                        other => item.push(other),
                    }
                }
                all.push(typed(element, item).ok()?);
            }
            _ => {
                let mut item = String::new();
                while let Some((_, char)) = chars.peek()
                    && *char != '}'
                    && *char != delimiter(element)
                {
                    item.push(*char);
                    chars.next();
                }
                all.push(if item == "NULL" {
                    Value::Null
                } else {
                    typed(element, item).ok()?
                });
            }
        }
    }
}

/// The names of the columns.
pub(super) fn digest_columns(hasher: &mut Sha256, row: &PgRow) {
    for column in row.columns() {
        hasher.update(column.name().as_bytes());
        hasher.update([0]);
    }
}

/// Length before each value, so that no two different rows read alike.
pub(super) fn digest_row(hasher: &mut Sha256, row: &PgRow) -> Result<(), Failure> {
    for at in 0..row.columns().len() {
        let raw = raw(row, at)?;
        if raw.is_null() {
            hasher.update([0]);
            continue;
        }
        let bytes = raw
            .as_bytes()
            .map_err(|error| Failure::new("sql.driver", error.to_string()))?;
        hasher.update([1]);
        hasher.update((bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_server() {
        for (kind, text, value) in [
            ("INT8", "-9223372036854775808", Value::Int(i64::MIN)),
            ("NUMERIC", "NaN", Value::from("NaN")),
            ("FLOAT8", "Infinity", Value::from("Infinity")),
            ("BYTEA", "\\x00ff", Value::Bytes(vec![0, 255].into())),
            ("TIMESTAMPTZ", "infinity", Value::from("infinity")),
            (
                "TIMESTAMPTZ",
                "0044-03-15 12:00:00+00 BC",
                Value::from("0044-03-15 12:00:00+00 BC"),
            ),
            (
                "TIMESTAMPTZ",
                "2026-11-21 03:04:05.678+05:30",
                Value::Timestamp("2026-11-20T21:34:05.678Z".parse().unwrap()),
            ),
            (
                "INT4[]",
                "{1,NULL,{2}}",
                Value::list(vec![
                    Value::Int(1),
                    Value::Null,
                    Value::list(vec![Value::Int(2)]),
                ]),
            ),
            (
                "TEXT[]",
                r#"{"a \"b\"",NULL,"NULL",x y}"#,
                Value::list(vec![
                    "a \"b\"".into(),
                    Value::Null,
                    "NULL".into(),
                    "x y".into(),
                ]),
            ),
            ("INT4[]", "[0:1]={1,2}", Value::from("[0:1]={1,2}")),
        ] {
            assert_eq!(typed(kind, text.to_owned()), Ok(value), "{kind} {text}");
        }
    }
}
