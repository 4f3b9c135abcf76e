//! The operators. Types bite: unlike types and NULL fail instead of answering false.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an operator takes few types of values and refuses all others alike"
)]
use super::number;
use crate::value::{Duration, Size, Value};
use std::cmp::Ordering;

/// What goes wrong inside an operator or a function; its place is known to rhai.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Trouble {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
    pub(super) fn secret() -> Self {
        Self::new("a secret can only be passed on whole or inside text")
            .help("no function, operator or condition may look at it")
    }
}

/// A value as a message shows it: with its type, short.
pub(super) fn shown(value: &Value) -> String {
    let short = |text: &str| -> String {
        let mut cut: String = text.chars().take(40).collect();
        if cut.len() < text.len() {
            cut.push('…');
        }
        cut
    };
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Text(text) => format!("text {:?}", short(text)),
        Value::List(items) => format!("a list of {}", items.len()),
        Value::Map(map) => format!("a map of {}", map.len()),
        Value::Secret(_) => "a secret".to_owned(),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        other => format!("{} {}", other.type_name(), short(&other.to_string())),
    }
}

fn alike(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
        || (number::is_number(a) && number::is_number(b))
}

fn unlike(op: &str, a: &Value, b: &Value) -> Trouble {
    let trouble = Trouble::new(format!(
        "{} {op} {}: unlike types cannot be compared",
        shown(a),
        shown(b)
    ));
    match (a, b) {
        (Value::Text(text), other) | (other, Value::Text(text)) => match other {
            Value::Duration(_) => trouble.help(format!(
                "write a duration such as 30s without quotes, or duration({text:?})"
            )),
            Value::Size(_) => trouble.help(format!(
                "write a size such as 20GiB without quotes, or size({text:?})"
            )),
            Value::Timestamp(_) => trouble.help("make the text an instant with timestamp(\"…\")"),
            other if number::is_number(other) => {
                trouble.help("make the text a number with number(…)")
            }
            _ => trouble,
        },
        _ => trouble,
    }
}

/// Whether two values are equal.
pub(super) fn equal(op: &str, a: &Value, b: &Value) -> Result<bool, Trouble> {
    match (a, b) {
        (Value::Secret(_), _) | (_, Value::Secret(_)) => Err(Trouble::secret()),
        (Value::Null, _) | (_, Value::Null) => Ok(a.is_null() && b.is_null()),
        (Value::List(x), Value::List(y)) => {
            if x.len() != y.len() {
                return Ok(false);
            }
            for (x, y) in x.iter().zip(y.iter()) {
                if !equal(op, x, y)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Map(x), Value::Map(y)) => {
            if x.len() != y.len() {
                return Ok(false);
            }
            for (key, x) in x.iter() {
                match y.get(key) {
                    Some(y) if equal(op, x, y)? => {}
                    Some(_) | None => return Ok(false),
                }
            }
            Ok(true)
        }
        _ if number::is_number(a) && number::is_number(b) => {
            Ok(number::compare(a, b)? == Ordering::Equal)
        }
        _ if alike(a, b) => Ok(a == b),
        _ => Err(unlike(op, a, b)),
    }
}

/// The order of two values.
pub(super) fn order(op: &str, a: &Value, b: &Value) -> Result<Ordering, Trouble> {
    match (a, b) {
        (Value::Secret(_), _) | (_, Value::Secret(_)) => Err(Trouble::secret()),
        (Value::Null, _) | (_, Value::Null) => Err(Trouble::new(format!(
            "{} {op} {}: NULL cannot be compared",
            shown(a),
            shown(b)
        ))
        .help("test it with `!= ()` first, or give a default with `coalesce(x, 0)`")),
        (Value::Text(x), Value::Text(y)) => Ok(x.cmp(y)),
        (Value::Duration(x), Value::Duration(y)) => Ok(x.cmp(y)),
        (Value::Size(x), Value::Size(y)) => Ok(x.cmp(y)),
        (Value::Timestamp(x), Value::Timestamp(y)) => Ok(x.cmp(y)),
        _ if number::is_number(a) && number::is_number(b) => number::compare(a, b),
        _ if alike(a, b) => Err(Trouble::new(format!(
            "{} {op} {}: values of this type have no order",
            shown(a),
            shown(b)
        ))),
        _ => Err(unlike(op, a, b)),
    }
}

/// An operator with two sides.
pub(super) fn binary(op: &'static str, a: &Value, b: &Value) -> Result<Value, Trouble> {
    Ok(Value::Bool(match op {
        "==" => equal(op, a, b)?,
        "!=" => !equal(op, a, b)?,
        "<" => order(op, a, b)?.is_lt(),
        "<=" => order(op, a, b)?.is_le(),
        ">" => order(op, a, b)?.is_gt(),
        ">=" => order(op, a, b)?.is_ge(),
        _ => return arithmetic(op, a, b),
    }))
}

fn arithmetic(op: &'static str, a: &Value, b: &Value) -> Result<Value, Trouble> {
    let too_large = || Trouble::new(format!("{} {op} {} is too large", shown(a), shown(b)));
    let add = |x: i64, y: i64| {
        if op == "+" {
            x.checked_add(y)
        } else {
            x.checked_sub(y)
        }
    };
    match (a, b, op) {
        (Value::Secret(_), _, _) | (_, Value::Secret(_), _) => Err(Trouble::secret()),
        (Value::Null, _, _) | (_, Value::Null, _) => Err(Trouble::new(format!(
            "{} {op} {}: NULL cannot be computed with",
            shown(a),
            shown(b)
        ))
        .help("give a default with `coalesce(x, 0)`")),
        _ if number::is_number(a) && number::is_number(b) => number::arithmetic(op, a, b),
        (Value::Text(x), Value::Text(y), "+") => Ok(Value::text(format!("{x}{y}"))),
        (Value::List(x), Value::List(y), "+") => {
            Ok(Value::list(x.iter().chain(y.iter()).cloned().collect()))
        }
        (Value::Duration(x), Value::Duration(y), "+" | "-") => add(x.as_millis(), y.as_millis())
            .map(|ms| Value::Duration(Duration::from_millis(ms)))
            .ok_or_else(too_large),
        (Value::Size(x), Value::Size(y), "+" | "-") => add(x.0, y.0)
            .map(|bytes| Value::Size(Size(bytes)))
            .ok_or_else(too_large),
        (Value::Duration(x), Value::Duration(y), "/") => {
            number::arithmetic("/", &Value::Int(x.as_millis()), &Value::Int(y.as_millis()))
        }
        (Value::Size(x), Value::Size(y), "/") => {
            number::arithmetic("/", &Value::Int(x.0), &Value::Int(y.0))
        }
        (Value::Duration(x), by, "*" | "/") | (by, Value::Duration(x), "*")
            if number::is_number(by) =>
        {
            Ok(Value::Duration(Duration::from_millis(number::scaled(
                x.as_millis(),
                op,
                by,
            )?)))
        }
        (Value::Size(x), by, "*" | "/") | (by, Value::Size(x), "*") if number::is_number(by) => {
            Ok(Value::Size(Size(number::scaled(x.0, op, by)?)))
        }
        (Value::Timestamp(x), Value::Timestamp(y), "-") => {
            Ok(Value::Duration(Duration::between(*y, *x)))
        }
        (Value::Timestamp(x), Value::Duration(y), "+" | "-") => shift(*x, *y, op == "-"),
        (Value::Duration(y), Value::Timestamp(x), "+") => shift(*x, *y, false),
        _ => {
            let trouble = Trouble::new(format!(
                "{} {op} {}: there is no such operation",
                shown(a),
                shown(b)
            ));
            Err(
                if op == "+" && (a.as_str().is_some() || b.as_str().is_some()) {
                    trouble.help("make both text with text(x), or write \"… ${{ x }}\" in YAML")
                } else {
                    trouble
                },
            )
        }
    }
}

fn shift(at: crate::value::Timestamp, by: Duration, back: bool) -> Result<Value, Trouble> {
    let span = jiff::SignedDuration::from_millis(by.as_millis());
    let moved = if back {
        at.checked_sub(span)
    } else {
        at.checked_add(span)
    };
    moved
        .map(Value::Timestamp)
        .map_err(|_| Trouble::new("the instant is out of range"))
}

/// An operator with one side.
pub(super) fn unary(op: &'static str, a: &Value) -> Result<Value, Trouble> {
    match (op, a) {
        (_, Value::Secret(_)) => Err(Trouble::secret()),
        ("!", Value::Bool(b)) => Ok(Value::Bool(!b)),
        ("!", _) => Err(Trouble::new(format!(
            "`!` needs a boolean, not {}",
            shown(a)
        ))),
        ("-", Value::Duration(d)) => d
            .as_millis()
            .checked_neg()
            .map(|ms| Value::Duration(Duration::from_millis(ms)))
            .ok_or_else(|| Trouble::new("the duration is too large")),
        ("-", Value::Size(s)) => {
            s.0.checked_neg()
                .map(|bytes| Value::Size(Size(bytes)))
                .ok_or_else(|| Trouble::new("the size is too large"))
        }
        ("-", _) if number::is_number(a) => number::negate(a),
        ("+", _) if number::is_number(a) => Ok(a.clone()),
        _ => Err(Trouble::new(format!(
            "`{op}` needs a number, not {}",
            shown(a)
        ))),
    }
}

/// The member of a map, a list or a text.
pub(super) fn member(of: &Value, key: &Value, optional: bool) -> Result<Value, Trouble> {
    match (of, key) {
        (Value::Secret(_), _) | (_, Value::Secret(_)) => Err(Trouble::secret()),
        (Value::Map(map), Value::Text(key)) => {
            if let Some(value) = map.get(key) {
                return unless_truncated(map, key, value);
            }
            let mut loose = map
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(key));
            match (loose.next(), loose.next()) {
                (Some((name, value)), None) => unless_truncated(map, name, value),
                (Some(_), Some(_)) => Err(Trouble::new(format!(
                    "`{key}` is ambiguous: several members differ from it only in case"
                ))
                .help(format!("write one of them exactly: {}", list_members(map)))),
                (None, _) if optional => Ok(Value::Null),
                (None, _) => Err(missing(map, key)),
            }
        }
        (Value::List(items), Value::Int(i)) => {
            let at = if *i < 0 {
                usize::try_from(i.unsigned_abs())
                    .ok()
                    .and_then(|back| items.len().checked_sub(back))
            } else {
                usize::try_from(*i).ok()
            };
            match at.and_then(|at| items.get(at)) {
                Some(value) => Ok(value.clone()),
                None if optional => Ok(Value::Null),
                None => Err(Trouble::new(format!(
                    "there is no item {i} in a list of {} items",
                    items.len()
                ))),
            }
        }
        (Value::Null, _) if optional => Ok(Value::Null),
        (Value::Null, _) => Err(
            Trouble::new(format!("NULL has no member {}", plain_key(key)))
                .help("read it with `?.`, or test it with `!= ()` first"),
        ),
        _ => {
            let trouble = Trouble::new(format!("{} has no member {}", shown(of), plain_key(key)));
            Err(match (of, key) {
                (Value::List(_), Value::Text(_)) => {
                    trouble.help("take one item first: `first(list)` or `list[0]`")
                }
                _ => trouble,
            })
        }
    }
}

fn plain_key(key: &Value) -> String {
    match key {
        Value::Text(text) => format!("`{text}`"),
        other => shown(other),
    }
}

/// A list that was cut would make a count or a check wrong in silence.
fn unless_truncated(map: &crate::value::Map, key: &str, value: &Value) -> Result<Value, Trouble> {
    let cut = key == "rows"
        && map.contains_key("columns")
        && map.get("truncated").and_then(Value::as_bool) == Some(true);
    if cut {
        return Err(Trouble::new(
            "the rows were cut at the limit of this query's result, so `rows` is not all of them",
        )
        .help("raise max_result_rows of the step, or let the query count or aggregate"));
    }
    Ok(value.clone())
}

fn list_members(map: &crate::value::Map) -> String {
    let mut names: Vec<String> = map
        .keys()
        .take(12)
        .map(|name| format!("`{name}`"))
        .collect();
    if map.len() > names.len() {
        names.push("…".to_owned());
    }
    names.join(", ")
}

fn missing(map: &crate::value::Map, key: &str) -> Trouble {
    let trouble = Trouble::new(format!("there is no member `{key}`"));
    match super::nearest(key, map.keys().map(AsRef::as_ref)) {
        Some(near) => trouble.help(format!("did you mean `{near}`?")),
        None if map.is_empty() => trouble.help("the map is empty"),
        None => trouble.help(format!("it has {}", list_members(map))),
    }
}
