//! Values to the server and back, exact.
use crate::target::Rows;
use sha2::{Digest, Sha256};
use sqlx::{
    Arguments as _, Column, Row, TypeInfo, ValueRef as _,
    postgres::{PgArguments, PgRow, PgValueFormat, PgValueRef},
};
use windlass_engine::{
    step::Failure,
    value::{Decimal, Map, Timestamp, Value},
};

/// Values as the server reads them: text, or NULL.
#[derive(Debug)]
pub(super) struct Texts(Vec<Option<String>>);

impl Texts {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bound(self) -> PgArguments {
        let mut arguments = PgArguments::default();
        for text in self.0 {
            // Text always encodes.
            drop(arguments.add(text));
        }
        arguments
    }
}

pub(super) fn arguments(values: &[Value]) -> Result<Texts, Failure> {
    values
        .iter()
        .map(|value| {
            let text = match value {
                Value::Null => return Ok(None),
                Value::Bytes(bytes) => format!("\\x{}", hex::encode(bytes)),
                Value::Duration(duration) => format!("{} seconds", duration.as_secs_f64()),
                other => other.to_string(),
            };
            if text.contains('\0') {
                return Err(Failure::new(
                    "sql.parameter_type",
                    "a text with NUL cannot be stored by PostgreSQL",
                ));
            }
            Ok(Some(text))
        })
        .collect::<Result<_, _>>()
        .map(Texts)
}

/// Rows as maps by column.
pub(super) fn rows(rows: &[PgRow]) -> Result<Rows, Failure> {
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
                map.insert(name.as_str().into(), value(row, at)?);
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

fn value(row: &PgRow, at: usize) -> Result<Value, Failure> {
    let raw = raw(row, at)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info().name().to_owned();
    let name = || row.columns().get(at).map_or("", Column::name);
    let cannot = |why: String| {
        Failure::new(
            "sql.column_type",
            format!("column {} of type {kind} cannot be read: {why}", name()),
        )
        .help(format!("cast it: {}::text", name()))
    };
    let text = match raw.format() {
        PgValueFormat::Text => raw
            .as_str()
            .map_err(|error| cannot(error.to_string()))?
            .to_owned(),
        PgValueFormat::Binary => {
            let bytes = raw.as_bytes().map_err(|error| cannot(error.to_string()))?;
            return binary(&kind, bytes)
                .ok_or_else(|| cannot("a statement with values returns it in binary".to_owned()));
        }
    };
    typed(&kind, text).map_err(cannot)
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
            ',' => {
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
                    && !matches!(char, ',' | '}')
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

/// What a statement with values returns, for the types whose binary form says all.
fn binary(kind: &str, bytes: &[u8]) -> Option<Value> {
    let utf8 = || std::str::from_utf8(bytes).ok().map(Value::from);
    match kind {
        "BOOL" => Some(Value::Bool(bytes == [1])),
        "INT2" => Some(Value::Int(i64::from(i16::from_be_bytes(
            bytes.try_into().ok()?,
        )))),
        "INT4" => Some(Value::Int(i64::from(i32::from_be_bytes(
            bytes.try_into().ok()?,
        )))),
        "INT8" => Some(Value::Int(i64::from_be_bytes(bytes.try_into().ok()?))),
        "OID" => Some(Value::Int(i64::from(u32::from_be_bytes(
            bytes.try_into().ok()?,
        )))),
        "FLOAT4" => finite(f64::from(f32::from_be_bytes(bytes.try_into().ok()?))),
        "FLOAT8" => finite(f64::from_be_bytes(bytes.try_into().ok()?)),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "JSON" | "\"CHAR\"" | "XML" | "UNKNOWN" => utf8(),
        "JSONB" => std::str::from_utf8(bytes.get(1..)?).ok().map(Value::from),
        "BYTEA" => Some(Value::Bytes(bytes.to_vec().into())),
        "UUID" => {
            let digits = hex::encode(bytes);
            let part = |range| digits.get(range).unwrap_or_default();
            Some(Value::from(format!(
                "{}-{}-{}-{}-{}",
                part(0..8),
                part(8..12),
                part(12..16),
                part(16..20),
                part(20..32)
            )))
        }
        "NUMERIC" => numeric(bytes),
        "TIMESTAMPTZ" => {
            /// Microseconds from 1970 to 2000.
            const EPOCH: i64 = 946_684_800_000_000;
            let micros = i64::from_be_bytes(bytes.try_into().ok()?);
            Timestamp::from_microsecond(micros.checked_add(EPOCH)?)
                .ok()
                .map(Value::Timestamp)
        }
        _ => None,
    }
}

fn finite(float: f64) -> Option<Value> {
    Some(if float.is_finite() {
        Value::Float(float)
    } else {
        Value::from(match (float.is_nan(), float > 0.0) {
            (true, _) => "NaN",
            (false, true) => "Infinity",
            (false, false) => "-Infinity",
        })
    })
}

/// Groups of four digits, a weight, a sign and a scale.
fn numeric(bytes: &[u8]) -> Option<Value> {
    let word = |at: usize| {
        let pair: [u8; 2] = bytes.get(at * 2..at * 2 + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(pair))
    };
    let count = usize::from(word(0)?);
    let weight = i32::from(i16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
    let sign = match word(2)? {
        0x0000 => "",
        0x4000 => "-",
        0xC000 => return Some(Value::from("NaN")),
        0xD000 => return Some(Value::from("Infinity")),
        0xF000 => return Some(Value::from("-Infinity")),
        _ => return None,
    };
    let scale = usize::from(word(3)?);
    let mut digits = String::new();
    for at in 0..count {
        digits.push_str(&format!("{:04}", word(4 + at)?));
    }
    let point = (weight + 1) * 4;
    let (mut whole, mut part) = match usize::try_from(point) {
        Ok(point) if point >= digits.len() => (
            format!("{digits}{}", "0".repeat(point - digits.len())),
            String::new(),
        ),
        Ok(point) => (
            digits.get(..point)?.to_owned(),
            digits.get(point..)?.to_owned(),
        ),
        Err(_) => {
            let zeros = usize::try_from(-point).ok()?;
            (String::new(), format!("{}{digits}", "0".repeat(zeros)))
        }
    };
    if whole.is_empty() {
        whole.push('0');
    }
    while part.len() < scale {
        part.push('0');
    }
    part.truncate(scale);
    let text = if scale == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{part}")
    };
    text.parse::<Decimal>().ok().map(Value::Decimal)
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

    #[test]
    fn numerics_in_binary_keep_their_scale() {
        let words = |all: &[u16]| {
            all.iter()
                .flat_map(|w| w.to_be_bytes())
                .collect::<Vec<u8>>()
        };
        for (bytes, text) in [
            (words(&[2, 0, 0, 4, 1, 5000]), "1.5000"),
            (words(&[1, 1, 0, 0, 3]), "30000"),
            (words(&[1, 0xFFFF, 0x4000, 6, 12]), "-0.001200"),
            (words(&[0, 0, 0, 2]), "0.00"),
        ] {
            let value = numeric(&bytes).expect(text);
            assert_eq!(value.to_string(), text);
        }
    }
}
