//! The table of the functions of expressions. Each stands here with its example, which a test evaluates.
use super::{
    functions::{
        Answer, absolute, any, average, contains, every, extreme, filter, from_json, int, join,
        len, list, map, matches, members, no_secret, parsed, percentile, secret, sha256, split,
        sum, text, to_number,
    },
    number,
};
use crate::value::{Timestamp, Value};
use std::{cmp::Ordering, ops::RangeInclusive};

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
