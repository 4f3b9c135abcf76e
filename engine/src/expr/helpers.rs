//! The functions of expressions. Each stands here with its example, which a test evaluates.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a function takes few types of values and refuses all others alike"
)]
use super::{
    number,
    ops::{self, Trouble, shown},
};
use crate::value::{Duration, SecretText, Size, Timestamp, Value};
use regex::Regex;
use sha2::{Digest as _, Sha256};
use std::{
    cmp::Ordering,
    collections::HashMap,
    ops::RangeInclusive,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

type Answer = Result<Value, Trouble>;
/// A function of values.
pub(super) type Plain = fn(&[Value]) -> Answer;
/// A function that calls a closure for each item.
pub(super) type Each = fn(&Value, &mut dyn FnMut(&Value) -> Answer) -> Answer;

#[derive(Clone, Copy)]
pub(super) enum Call {
    Plain(Plain),
    Each(Each),
}

/// One function.
pub(super) struct Helper {
    pub(super) name: &'static str,
    pub(super) arguments: RangeInclusive<usize>,
    pub(super) usage: &'static str,
    pub(super) about: &'static str,
    /// An expression without variables, and the expression that it equals.
    pub(super) example: (&'static str, &'static str),
    pub(super) call: Call,
}

pub(super) fn find(name: &str) -> Option<&'static Helper> {
    ALL.iter().find(|helper| helper.name == name)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|helper| helper.name)
}

const fn plain(
    name: &'static str,
    arguments: RangeInclusive<usize>,
    usage: &'static str,
    about: &'static str,
    example: (&'static str, &'static str),
    call: Plain,
) -> Helper {
    Helper {
        name,
        arguments,
        usage,
        about,
        example,
        call: Call::Plain(call),
    }
}

const fn each(
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    example: (&'static str, &'static str),
    call: Each,
) -> Helper {
    Helper {
        name,
        arguments: 2..=2,
        usage,
        about,
        example,
        call: Call::Each(call),
    }
}

/// All functions, by subject.
pub(super) static ALL: &[Helper] = &[
    plain(
        "len",
        1..=1,
        "len(x)",
        "Items of a list, members of a map, characters of a text, bytes of binary data.",
        ("len([1, 2, 3])", "3"),
        len,
    ),
    plain(
        "first",
        1..=1,
        "first(list)",
        "The first item; NULL where the list is empty.",
        ("first([7, 8])", "7"),
        |a| Ok(list(&a[0])?.first().cloned().unwrap_or_default()),
    ),
    plain(
        "last",
        1..=1,
        "last(list)",
        "The last item; NULL where the list is empty.",
        ("last([7, 8])", "8"),
        |a| Ok(list(&a[0])?.last().cloned().unwrap_or_default()),
    ),
    each(
        "filter",
        "filter(list, |x| …)",
        "The items for which the function is true.",
        ("filter([1, 2, 3], |x| x > 1)", "[2, 3]"),
        filter,
    ),
    each(
        "map",
        "map(list, |x| …)",
        "What the function gives for each item.",
        ("map([1, 2], |x| x * 10)", "[10, 20]"),
        map,
    ),
    each(
        "any",
        "any(list, |x| …)",
        "Whether the function is true for an item.",
        ("any([1, 2], |x| x == 2)", "true"),
        any,
    ),
    each(
        "all",
        "all(list, |x| …)",
        "Whether the function is true for every item; true for an empty list.",
        ("all([1, 2], |x| x > 0)", "true"),
        every,
    ),
    plain(
        "sum",
        1..=1,
        "sum(list)",
        "The sum of numbers, durations or sizes, NULLs left out; 0 for an empty list.",
        ("sum([1, 2, 3.5])", "6.5"),
        |a| sum(&a[0]),
    ),
    plain(
        "avg",
        1..=1,
        "avg(list)",
        "The exact mean of numbers, durations or sizes, NULLs left out; NULL for an empty list.",
        ("avg([1, 2])", "1.5"),
        |a| average(&a[0]),
    ),
    plain(
        "min",
        1..=5,
        "min(list) or min(a, b)",
        "The least, NULLs left out; NULL for an empty list.",
        ("min(3, 1, 2)", "1"),
        |a| extreme(a, Ordering::Less),
    ),
    plain(
        "max",
        1..=5,
        "max(list) or max(a, b)",
        "The greatest, NULLs left out; NULL for an empty list.",
        ("max([5s, 1m])", "1m"),
        |a| extreme(a, Ordering::Greater),
    ),
    plain(
        "percentile",
        2..=2,
        "percentile(list, p)",
        "The least item that is not below p of a hundred items (nearest rank), NULLs left out; NULL for an empty list.",
        ("percentile([1, 2, 3, 4], 50)", "2"),
        percentile,
    ),
    plain(
        "contains",
        2..=2,
        "contains(x, part) or part in x",
        "Whether a list has an item, a text a part, a map a key.",
        ("2 in [1, 2]", "true"),
        contains,
    ),
    plain(
        "keys",
        1..=1,
        "keys(map)",
        "The keys of a map, in its order.",
        ("keys(#{ a: 1 })", "[\"a\"]"),
        |a| {
            Ok(Value::list(
                members(&a[0])?
                    .keys()
                    .map(|k| Value::Text(k.clone()))
                    .collect(),
            ))
        },
    ),
    plain(
        "values",
        1..=1,
        "values(map)",
        "The values of a map, in its order.",
        ("values(#{ a: 1 })", "[1]"),
        |a| Ok(Value::list(members(&a[0])?.values().cloned().collect())),
    ),
    plain(
        "coalesce",
        1..=5,
        "coalesce(a, b, …)",
        "The first that is not NULL.",
        ("coalesce((), 5)", "5"),
        |a| Ok(a.iter().find(|v| !v.is_null()).cloned().unwrap_or_default()),
    ),
    plain(
        "matches",
        2..=2,
        "matches(text, regex)",
        "Whether a part of the text matches the regular expression; ^ and $ bind it to the whole.",
        ("matches(\"orders_2026\", \"^orders_\\\\d+$\")", "true"),
        matches,
    ),
    plain(
        "split",
        2..=2,
        "split(text, separator)",
        "The parts between the separators.",
        ("split(\"a,b\", \",\")", "[\"a\", \"b\"]"),
        split,
    ),
    plain(
        "join",
        2..=2,
        "join(list, separator)",
        "The items as text with the separator between.",
        ("join([1, \"a\"], \"-\")", "\"1-a\""),
        join,
    ),
    plain(
        "starts_with",
        2..=2,
        "starts_with(text, part)",
        "Whether the text starts so.",
        ("starts_with(\"db-1\", \"db\")", "true"),
        |a| Ok(Value::Bool(text(&a[0])?.starts_with(text(&a[1])?))),
    ),
    plain(
        "ends_with",
        2..=2,
        "ends_with(text, part)",
        "Whether the text ends so.",
        ("ends_with(\"a.sql\", \".sql\")", "true"),
        |a| Ok(Value::Bool(text(&a[0])?.ends_with(text(&a[1])?))),
    ),
    plain(
        "upper",
        1..=1,
        "upper(text)",
        "In capitals.",
        ("upper(\"a\")", "\"A\""),
        |a| Ok(Value::text(text(&a[0])?.to_uppercase())),
    ),
    plain(
        "lower",
        1..=1,
        "lower(text)",
        "In small letters.",
        ("lower(\"A\")", "\"a\""),
        |a| Ok(Value::text(text(&a[0])?.to_lowercase())),
    ),
    plain(
        "trim",
        1..=1,
        "trim(text)",
        "Without white space around it.",
        ("trim(\" a \")", "\"a\""),
        |a| Ok(Value::text(text(&a[0])?.trim())),
    ),
    plain(
        "round",
        1..=2,
        "round(x) or round(x, digits)",
        "Rounded half away from zero; an integer where no digits are given.",
        ("round(2.5)", "3"),
        |a| {
            number::round(
                &a[0],
                match a.get(1) {
                    None => 0,
                    Some(digits) => int(digits)?,
                },
            )
        },
    ),
    plain(
        "abs",
        1..=1,
        "abs(x)",
        "Without its sign.",
        ("abs(-3)", "3"),
        absolute,
    ),
    plain(
        "int",
        1..=1,
        "int(x)",
        "A whole number from a text or a number that has no fraction.",
        ("int(\"42\")", "42"),
        |a| number::integer(&to_number(&a[0])?),
    ),
    plain(
        "number",
        1..=1,
        "number(x)",
        "An exact number from a text.",
        ("number(\"0.1\") * 3 == 0.3", "true"),
        |a| to_number(&a[0]),
    ),
    plain(
        "text",
        1..=1,
        "text(x)",
        "A value as text.",
        ("text(5s)", "\"5s\""),
        |a| {
            no_secret(&a[0])?;
            super::engine::inside_text(&a[0]).map(Value::text)
        },
    ),
    plain(
        "json",
        1..=1,
        "json(x)",
        "A value as JSON text.",
        ("json([1, ()])", "\"[1,null]\""),
        |a| {
            no_secret(&a[0])?;
            Ok(Value::text(a[0].to_plain_json().to_string()))
        },
    ),
    plain(
        "from_json",
        1..=1,
        "from_json(text)",
        "The value that a JSON text holds.",
        ("from_json('{\"n\": 1}').n", "1"),
        from_json,
    ),
    plain(
        "sha256",
        1..=1,
        "sha256(x)",
        "SHA-256 in hexadecimal: of a text's or binary data's bytes, else of its JSON.",
        (
            "sha256(\"\")",
            "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
        ),
        sha256,
    ),
    plain(
        "duration",
        1..=1,
        "duration(text)",
        "A duration from text; in an expression 5s needs no call.",
        ("duration(\"90s\")", "1m30s"),
        |a| parsed(&a[0], "a duration", |t| t.parse().map(Value::Duration)),
    ),
    plain(
        "size",
        1..=1,
        "size(text)",
        "A size from text; in an expression 20GiB needs no call.",
        ("size(\"1KiB\")", "1024B"),
        |a| parsed(&a[0], "a size", |t| t.parse().map(Value::Size)),
    ),
    plain(
        "timestamp",
        1..=1,
        "timestamp(text)",
        "An instant from RFC 3339.",
        (
            "timestamp(\"2026-01-01T00:00:10Z\") - timestamp(\"2026-01-01T00:00:00Z\")",
            "10s",
        ),
        |a| {
            parsed(&a[0], "an instant", |t| {
                t.parse::<Timestamp>().map(Value::Timestamp)
            })
        },
    ),
    plain(
        "secret",
        1..=1,
        "secret(name)",
        "A reference to a secret. It can be passed on whole or inside text, and nothing else.",
        ("[secret(\"slack\")].len()", "1"),
        secret,
    ),
];

fn wrong(wanted: &str, value: &Value) -> Trouble {
    match value {
        Value::Secret(_) => Trouble::secret(),
        other => Trouble::new(format!("{wanted} is needed, not {}", shown(other))),
    }
}

fn list(value: &Value) -> Result<&[Value], Trouble> {
    value.as_list().ok_or_else(|| wrong("a list", value))
}

fn members(value: &Value) -> Result<&crate::value::Map, Trouble> {
    value.as_map().ok_or_else(|| wrong("a map", value))
}

fn text(value: &Value) -> Result<&str, Trouble> {
    value.as_str().ok_or_else(|| wrong("a text", value))
}

fn int(value: &Value) -> Result<i64, Trouble> {
    value.as_int().ok_or_else(|| wrong("an integer", value))
}

fn truth(value: &Value) -> Result<bool, Trouble> {
    value
        .as_bool()
        .ok_or_else(|| wrong("a boolean from the function", value))
}

/// No secret at any depth: what these functions give shows all of their argument.
fn no_secret(value: &Value) -> Result<(), Trouble> {
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

fn len(a: &[Value]) -> Answer {
    match &a[0] {
        Value::List(items) => Ok(count(items.len())),
        Value::Map(map) => Ok(count(map.len())),
        Value::Text(text) => Ok(count(text.chars().count())),
        Value::Bytes(bytes) => Ok(count(bytes.len())),
        other => Err(wrong("a list, a map or a text", other)),
    }
}

fn filter(value: &Value, f: &mut dyn FnMut(&Value) -> Answer) -> Answer {
    let mut kept = Vec::new();
    for item in list(value)? {
        if truth(&f(item)?)? {
            kept.push(item.clone());
        }
    }
    Ok(Value::list(kept))
}

fn map(value: &Value, f: &mut dyn FnMut(&Value) -> Answer) -> Answer {
    Ok(Value::list(
        list(value)?.iter().map(f).collect::<Result<_, _>>()?,
    ))
}

fn any(value: &Value, f: &mut dyn FnMut(&Value) -> Answer) -> Answer {
    for item in list(value)? {
        if truth(&f(item)?)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn every(value: &Value, f: &mut dyn FnMut(&Value) -> Answer) -> Answer {
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

fn sum(value: &Value) -> Answer {
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

fn average(value: &Value) -> Answer {
    let items = present(value)?.count();
    if items == 0 {
        return Ok(Value::Null);
    }
    ops::binary("/", &sum(value)?, &count(items))
}

fn extreme(a: &[Value], wanted: Ordering) -> Answer {
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

fn percentile(a: &[Value]) -> Answer {
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

fn contains(a: &[Value]) -> Answer {
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

fn matches(a: &[Value]) -> Answer {
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

fn split(a: &[Value]) -> Answer {
    let (whole, separator) = (text(&a[0])?, text(&a[1])?);
    if separator.is_empty() {
        return Err(Trouble::new("split needs a separator that is not empty"));
    }
    Ok(Value::list(
        whole.split(separator).map(Value::from).collect(),
    ))
}

fn join(a: &[Value]) -> Answer {
    no_secret(&a[0])?;
    let parts: Vec<String> = list(&a[0])?
        .iter()
        .map(super::engine::inside_text)
        .collect::<Result<_, _>>()?;
    Ok(Value::text(parts.join(text(&a[1])?)))
}

fn absolute(a: &[Value]) -> Answer {
    match &a[0] {
        Value::Duration(d) if *d < Duration::ZERO => ops::unary("-", &a[0]),
        Value::Size(s) if *s < Size(0) => ops::unary("-", &a[0]),
        Value::Duration(_) | Value::Size(_) => Ok(a[0].clone()),
        value if number::is_number(value) => number::abs(value),
        other => Err(wrong("a number", other)),
    }
}

fn to_number(value: &Value) -> Answer {
    match value {
        Value::Text(text) => number::parse(text),
        value if number::is_number(value) => Ok(value.clone()),
        other => Err(wrong("a number or a text", other)),
    }
}

fn from_json(a: &[Value]) -> Answer {
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

fn sha256(a: &[Value]) -> Answer {
    no_secret(&a[0])?;
    let mut hash = Sha256::new();
    match &a[0] {
        Value::Text(text) => hash.update(text.as_bytes()),
        Value::Bytes(bytes) => hash.update(bytes),
        other => hash.update(other.to_plain_json().to_string().as_bytes()),
    }
    Ok(Value::text(hex::encode(hash.finalize())))
}

fn parsed<E: std::fmt::Display>(
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

fn secret(a: &[Value]) -> Answer {
    let name = text(&a[0])?;
    if name.is_empty() {
        return Err(Trouble::new("the name of a secret is missing"));
    }
    Ok(Value::Secret(Arc::new(SecretText::reference(name))))
}
