//! What the functions of expressions do.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a function takes few types of values and refuses all others alike"
)]
use super::{
    number,
    ops::{self, Trouble, shown},
};
use crate::value::{Duration, SecretText, Size, Value};
use regex::Regex;
use sha2::{Digest as _, Sha256};
use std::{
    cmp::Ordering,
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

pub(super) type Answer = Result<Value, Trouble>;

fn wrong(wanted: &str, value: &Value) -> Trouble {
    match value {
        Value::Secret(_) => Trouble::secret(),
        other => Trouble::new(format!("{wanted} is needed, not {}", shown(other))),
    }
}

pub(super) fn list(value: &Value) -> Result<&[Value], Trouble> {
    value.as_list().ok_or_else(|| wrong("a list", value))
}

pub(super) fn members(value: &Value) -> Result<&crate::value::Map, Trouble> {
    value.as_map().ok_or_else(|| wrong("a map", value))
}

pub(super) fn text(value: &Value) -> Result<&str, Trouble> {
    value.as_str().ok_or_else(|| wrong("a text", value))
}

pub(super) fn int(value: &Value) -> Result<i64, Trouble> {
    value.as_int().ok_or_else(|| wrong("an integer", value))
}

fn truth(value: &Value) -> Result<bool, Trouble> {
    value
        .as_bool()
        .ok_or_else(|| wrong("a boolean from the function", value))
}

/// No secret at any depth: what these functions give shows all of their argument.
pub(super) fn no_secret(value: &Value) -> Result<(), Trouble> {
    match value {
        Value::Secret(_) => Err(Trouble::secret()),
        Value::List(items) => items.iter().try_for_each(no_secret),
        Value::Map(map) => map.values().try_for_each(no_secret),
        _ => Ok(()),
    }
}

fn count(n: usize) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

pub(super) fn len(a: &[Value]) -> Answer {
    match &a[0] {
        Value::List(items) => Ok(count(items.len())),
        Value::Map(map) => Ok(count(map.len())),
        Value::Text(text) => Ok(count(text.chars().count())),
        Value::Bytes(bytes) => Ok(count(bytes.len())),
        other => Err(wrong("a list, a map or a text", other)),
    }
}

pub(super) fn filter(value: &Value, f: &mut dyn FnMut(&Value) -> Answer) -> Answer {
    let mut kept = Vec::new();
    for item in list(value)? {
        if truth(&f(item)?)? {
            kept.push(item.clone());
        }
    }
    Ok(Value::list(kept))
}

pub(super) fn map(value: &Value, f: &mut dyn FnMut(&Value) -> Answer) -> Answer {
    Ok(Value::list(
        list(value)?.iter().map(f).collect::<Result<_, _>>()?,
    ))
}

pub(super) fn any(value: &Value, f: &mut dyn FnMut(&Value) -> Answer) -> Answer {
    for item in list(value)? {
        if truth(&f(item)?)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

pub(super) fn every(value: &Value, f: &mut dyn FnMut(&Value) -> Answer) -> Answer {
    for item in list(value)? {
        if !truth(&f(item)?)? {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn present(value: &Value) -> Result<impl Iterator<Item = &Value>, Trouble> {
    Ok(list(value)?.iter().filter(|item| !item.is_null()))
}

pub(super) fn sum(value: &Value) -> Answer {
    let mut total: Option<Value> = None;
    for item in present(value)? {
        if !number::is_number(item) && !matches!(item, Value::Duration(_) | Value::Size(_)) {
            return Err(wrong("a number, a duration or a size", item));
        }
        total = Some(match total {
            None => item.clone(),
            Some(total) => ops::binary("+", &total, item)?,
        });
    }
    Ok(total.unwrap_or(Value::Int(0)))
}

pub(super) fn average(value: &Value) -> Answer {
    let items = present(value)?.count();
    if items == 0 {
        return Ok(Value::Null);
    }
    ops::binary("/", &sum(value)?, &count(items))
}

pub(super) fn extreme(a: &[Value], wanted: Ordering) -> Answer {
    let items = match a {
        [one] => list(one)?,
        several => several,
    };
    let mut best: Option<&Value> = None;
    for item in items.iter().filter(|item| !item.is_null()) {
        let better = match best {
            None => {
                ops::order("<", item, item)?;
                true
            }
            Some(best) => ops::order("<", item, best)? == wanted,
        };
        if better {
            best = Some(item);
        }
    }
    Ok(best.cloned().unwrap_or_default())
}

pub(super) fn percentile(a: &[Value]) -> Answer {
    let mut items: Vec<&Value> = present(&a[0])?.collect();
    let p = number::decimal(&a[1])?;
    let (least, most) = (0_i64, 100_i64);
    if p < least || p > most {
        return Err(Trouble::new(format!(
            "a percentile lies from 0 to 100; this is {}",
            shown(&a[1])
        )));
    }
    let mut trouble = None;
    items.sort_by(|x, y| match ops::order("<", x, y) {
        Ok(order) => order,
        Err(error) => {
            trouble.get_or_insert(error);
            Ordering::Equal
        }
    });
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    let rank: bigdecimal::BigDecimal = p * number::decimal(&count(items.len()))? / 100;
    let rank = rank.with_scale_round(0, bigdecimal::RoundingMode::Ceiling);
    let rank = bigdecimal::ToPrimitive::to_usize(&rank).unwrap_or(0).max(1);
    Ok(items
        .get(rank - 1)
        .map(|value| (*value).clone())
        .unwrap_or_default())
}

pub(super) fn contains(a: &[Value]) -> Answer {
    let (whole, part) = (&a[0], &a[1]);
    match whole {
        Value::List(items) => {
            for item in items.iter() {
                if ops::equal("==", item, part)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        Value::Text(whole) => Ok(Value::Bool(whole.contains(text(part)?))),
        Value::Map(map) => Ok(Value::Bool(map.contains_key(text(part)?))),
        other => Err(wrong("a list, a text or a map", other)),
    }
}

/// Compiled regular expressions: a closure over rows uses one many times.
static REGEXES: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);

pub(super) fn matches(a: &[Value]) -> Answer {
    let (whole, pattern) = (text(&a[0])?, text(&a[1])?);
    let mut known = REGEXES.lock().unwrap_or_else(PoisonError::into_inner);
    let regex = match known.get(pattern) {
        Some(regex) => regex.clone(),
        None => {
            let regex = regex::RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build()
                .map_err(|error| {
                    let why = error.to_string();
                    let why = why.lines().last().unwrap_or_default().trim();
                    Trouble::new(format!("{pattern:?} is no regular expression: {why}"))
                })?;
            if known.len() >= 64 {
                known.clear();
            }
            known.insert(pattern.to_owned(), regex.clone());
            regex
        }
    };
    drop(known);
    Ok(Value::Bool(regex.is_match(whole)))
}

pub(super) fn split(a: &[Value]) -> Answer {
    let (whole, separator) = (text(&a[0])?, text(&a[1])?);
    if separator.is_empty() {
        return Err(Trouble::new("split needs a separator that is not empty"));
    }
    Ok(Value::list(
        whole.split(separator).map(Value::from).collect(),
    ))
}

pub(super) fn join(a: &[Value]) -> Answer {
    no_secret(&a[0])?;
    let parts: Vec<String> = list(&a[0])?
        .iter()
        .map(super::engine::inside_text)
        .collect::<Result<_, _>>()?;
    Ok(Value::text(parts.join(text(&a[1])?)))
}

pub(super) fn absolute(a: &[Value]) -> Answer {
    match &a[0] {
        Value::Duration(d) if *d < Duration::ZERO => ops::unary("-", &a[0]),
        Value::Size(s) if *s < Size(0) => ops::unary("-", &a[0]),
        Value::Duration(_) | Value::Size(_) => Ok(a[0].clone()),
        value if number::is_number(value) => number::abs(value),
        other => Err(wrong("a number", other)),
    }
}

pub(super) fn to_number(value: &Value) -> Answer {
    match value {
        Value::Text(text) => number::parse(text),
        value if number::is_number(value) => Ok(value.clone()),
        other => Err(wrong("a number or a text", other)),
    }
}

pub(super) fn from_json(a: &[Value]) -> Answer {
    let source = text(&a[0])?;
    let json: serde_json::Value = serde_json::from_str(source)
        .map_err(|error| Trouble::new(format!("this is no JSON: {error}")))?;
    // The journal's tags (`$secret`) mean nothing in a user's JSON: its objects stay maps.
    Ok(of_json(&json))
}

fn of_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => n.as_i64().map_or_else(
            || number::parse(&n.to_string()).unwrap_or_default(),
            Value::Int,
        ),
        serde_json::Value::String(s) => Value::text(s.as_str()),
        serde_json::Value::Array(items) => Value::list(items.iter().map(of_json).collect()),
        serde_json::Value::Object(map) => {
            Value::map(map.iter().map(|(k, v)| (k.as_str(), of_json(v))))
        }
    }
}

pub(super) fn sha256(a: &[Value]) -> Answer {
    no_secret(&a[0])?;
    let mut hash = Sha256::new();
    match &a[0] {
        Value::Text(text) => hash.update(text.as_bytes()),
        Value::Bytes(bytes) => hash.update(bytes),
        other => hash.update(other.to_plain_json().to_string().as_bytes()),
    }
    Ok(Value::text(hex::encode(hash.finalize())))
}

pub(super) fn parsed<E: std::fmt::Display>(
    value: &Value,
    what: &str,
    read: impl FnOnce(&str) -> Result<Value, E>,
) -> Answer {
    match value {
        Value::Text(text) => read(text)
            .map_err(|error| Trouble::new(error.to_string().trim_end_matches('.').to_owned())),
        Value::Duration(_) if what == "a duration" => Ok(value.clone()),
        Value::Size(_) if what == "a size" => Ok(value.clone()),
        Value::Timestamp(_) if what == "an instant" => Ok(value.clone()),
        other => Err(wrong(&format!("a text that holds {what}"), other)),
    }
}

pub(super) fn secret(a: &[Value]) -> Answer {
    let name = text(&a[0])?;
    if name.is_empty() {
        return Err(Trouble::new("the name of a secret is missing"));
    }
    Ok(Value::Secret(Arc::new(SecretText::reference(name))))
}
