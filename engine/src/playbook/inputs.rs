//! Inputs: from the text of a command line, a file or a call to typed values within their limits.
use crate::{
    diagnostic::{Diagnostic, codes, suggest},
    graph::{InputDecl, InputType},
    source::{self, Node, NodeKind, Range, SourceFile, Style, core_value, yaml_11_boolean},
    value::{Decimal, Duration, Map, Size, Timestamp, Value},
};
use indexmap::IndexMap;
use std::{cmp::Ordering, sync::Arc};

/// Checks what was given on a command line or in a file; gives a map with every declared input that
/// has a value.
///
/// # Errors
/// All that is unknown, missing, of another type or outside its limits.
pub fn check(
    decls: &IndexMap<String, InputDecl>,
    given: &[(String, String)],
) -> Result<Value, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let mut values: IndexMap<&str, Value> = IndexMap::new();
    for (name, text) in given {
        let Some(decl) = decls.get(name) else {
            errors.push(unknown(decls, name));
            continue;
        };
        match from_text(decl.kind, decl.of, text) {
            Err(message) => {
                let message = format!("input `{name}`: {message}");
                errors.push(Diagnostic::bare(codes::INPUT_TYPE, message).help(describe(decl)));
            }
            Ok(value) => {
                if let Err(message) = within_limits(decl, &value) {
                    let message = format!("input `{name}` {message}");
                    errors.push(Diagnostic::bare(codes::INPUT_LIMIT, message).help(describe(decl)));
                }
                values.insert(name, value);
            }
        }
    }
    for (name, decl) in decls {
        if !given.iter().any(|(given, _)| given == name) && decl.default.is_none() {
            let message = format!("input `{name}` is required");
            errors.push(
                Diagnostic::bare(codes::MISSING_INPUT, message).help(format!(
                    "give it with --input {name}=…; it is {}",
                    describe(decl)
                )),
            );
        }
    }
    if errors.is_empty() {
        Ok(complete(decls, |name| values.swap_remove(name)))
    } else {
        Err(errors)
    }
}

/// Checks the values that a call gives at run time.
///
/// # Errors
/// The first that is unknown, missing, of another type or outside its limits.
pub fn check_value(
    decls: &IndexMap<String, InputDecl>,
    given: &IndexMap<String, Value>,
) -> Result<Value, String> {
    let mut values: IndexMap<&str, Value> = IndexMap::new();
    for (name, value) in given {
        let Some(decl) = decls.get(name) else {
            return Err(unknown(decls, name).message);
        };
        let value = coerce(decl.kind, decl.of, value)
            .map_err(|message| format!("input `{name}`: {message}"))?;
        within_limits(decl, &value).map_err(|message| format!("input `{name}` {message}"))?;
        values.insert(name, value);
    }
    if let Some((name, _)) = decls
        .iter()
        .find(|(name, decl)| decl.default.is_none() && !given.contains_key(*name))
    {
        return Err(format!("input `{name}` is required"));
    }
    Ok(complete(decls, |name| values.swap_remove(name)))
}

fn unknown(decls: &IndexMap<String, InputDecl>, name: &str) -> Diagnostic {
    let diagnostic = Diagnostic::bare(
        codes::UNKNOWN_GIVEN_INPUT,
        format!("there is no input `{name}`"),
    );
    match suggest(name, decls.keys().map(String::as_str)) {
        Some(help) => diagnostic.help(help),
        None => diagnostic.help("the playbook takes no inputs"),
    }
}

/// In the order of the declarations.
fn complete(
    decls: &IndexMap<String, InputDecl>,
    mut take: impl FnMut(&str) -> Option<Value>,
) -> Value {
    Value::map(decls.iter().filter_map(|(name, decl)| {
        let value = take(name).or_else(|| decl.default.clone())?;
        Some((name.as_str(), value))
    }))
}

/// The type and limits of an input in words.
#[must_use]
pub fn describe(decl: &InputDecl) -> String {
    let mut words = decl.kind.word().to_owned();
    if let Some(of) = decl.of {
        words.push_str(&format!(" of {}", of.word()));
    }
    if !decl.allowed.is_empty() {
        let all: Vec<String> = decl.allowed.iter().map(ToString::to_string).collect();
        words.push_str(&format!(", one of {}", all.join(", ")));
    }
    for (word, limit) in [("at least", &decl.min), ("at most", &decl.max)] {
        if let Some(limit) = limit {
            words.push_str(&format!(", {word} {limit}"));
        }
    }
    if let Some(pattern) = &decl.pattern {
        words.push_str(&format!(", matching {pattern}"));
    }
    words
}

impl InputType {
    /// As it is written in a playbook.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Duration => "duration",
            Self::Timestamp => "timestamp",
            Self::Size => "size",
            Self::List => "list",
            Self::Map => "map",
        }
    }
}

/// A value from text: lists and maps as YAML or JSON, lists also as `a,b,c`.
///
/// # Errors
/// Why it is no such value.
pub fn from_text(kind: InputType, of: Option<InputType>, text: &str) -> Result<Value, String> {
    match kind {
        InputType::List if !text.trim_start().starts_with('[') => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            let read = |item: &str| match of {
                Some(of) => from_text(of, None, item),
                None => Ok(core_value(item).unwrap_or_else(|| Value::text(item))),
            };
            items
                .map(read)
                .collect::<Result<Vec<_>, _>>()
                .map(Value::list)
        }
        InputType::List | InputType::Map => {
            let parsed = source::parse("input", text);
            match (parsed.root, parsed.diagnostics.into_iter().next()) {
                (_, Some(diagnostic)) => Err(diagnostic.message),
                (Some(node), None) => {
                    from_node(&parsed.file, &node, kind, of).map_err(|(_, message)| message)
                }
                (None, None) => Err("there is nothing".to_owned()),
            }
        }
        InputType::String
        | InputType::Integer
        | InputType::Number
        | InputType::Boolean
        | InputType::Duration
        | InputType::Timestamp
        | InputType::Size => scalar(kind, text),
    }
}

fn scalar(kind: InputType, text: &str) -> Result<Value, String> {
    match kind {
        InputType::String => Ok(Value::text(text)),
        InputType::Integer => text
            .parse()
            .map(Value::Int)
            .map_err(|_| format!("`{text}` is not a whole number")),
        InputType::Number => match text.parse() {
            Ok(int) => Ok(Value::Int(int)),
            Err(_) => text
                .parse::<Decimal>()
                .map(Value::Decimal)
                .map_err(|_| format!("`{text}` is not a number")),
        },
        InputType::Boolean => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            other => Err(match yaml_11_boolean(other) {
                Some(meant) => format!("`{other}` is not a boolean; write {meant}"),
                None => format!("`{other}` is not a boolean; write true or false"),
            }),
        },
        InputType::Duration => text
            .parse::<Duration>()
            .map(Value::from)
            .map_err(|error| error.to_string()),
        InputType::Size => text
            .parse::<Size>()
            .map(Value::from)
            .map_err(|error| error.to_string()),
        InputType::Timestamp => text
            .parse::<Timestamp>()
            .map(Value::from)
            .map_err(|_| format!("`{text}` is not a timestamp; write 2026-05-01T03:00:00Z")),
        InputType::List | InputType::Map => Err(format!("`{text}` is not a {}", kind.word())),
    }
}

/// A value from a literal in a file.
///
/// # Errors
/// Where and why it is no such value.
pub fn from_node(
    file: &SourceFile,
    node: &Node,
    kind: InputType,
    of: Option<InputType>,
) -> Result<Value, (Range, String)> {
    let wrong = |node: &Node| {
        let range = super::read::first_line(file, node.range);
        Err((
            range,
            format!("expected {}, not {}", kind.word(), node.type_name()),
        ))
    };
    let inner = |node: &Node| match of {
        Some(of) => from_node(file, node, of, None),
        None => Ok(untyped(node)),
    };
    match (&node.kind, kind) {
        (NodeKind::List(items), InputType::List) => items
            .iter()
            .map(inner)
            .collect::<Result<Vec<_>, _>>()
            .map(Value::list),
        (NodeKind::Map(map), InputType::Map) => {
            let pairs = map.entries.iter().map(|entry| {
                inner(&entry.value).map(|value| (Arc::<str>::from(&*entry.key), value))
            });
            Ok(Value::Map(Arc::new(pairs.collect::<Result<Map, _>>()?)))
        }
        (NodeKind::Scalar(text), _)
            if !matches!(kind, InputType::List | InputType::Map) && !node.is_null() =>
        {
            scalar(kind, &text.text).map_err(|message| (node.range, message))
        }
        (NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_), _) => wrong(node),
    }
}

/// A literal of no declared type: plain scalars as YAML 1.2 types their canonical form, else text.
#[must_use]
pub fn untyped(node: &Node) -> Value {
    match &node.kind {
        NodeKind::Scalar(scalar) => match scalar.style {
            Style::Plain => core_value(&scalar.text).unwrap_or_else(|| Value::text(&*scalar.text)),
            Style::SingleQuoted | Style::DoubleQuoted | Style::Literal | Style::Folded => {
                Value::text(&*scalar.text)
            }
        },
        NodeKind::List(items) => Value::list(items.iter().map(untyped).collect()),
        NodeKind::Map(map) => Value::map(
            map.entries
                .iter()
                .map(|entry| (&*entry.key, untyped(&entry.value))),
        ),
    }
}

/// A computed value as the declared type.
///
/// # Errors
/// Why it does not fit.
pub fn coerce(kind: InputType, of: Option<InputType>, value: &Value) -> Result<Value, String> {
    let inner = |value: &Value| match of {
        Some(of) => coerce(of, None, value),
        None => Ok(value.clone()),
    };
    match (kind, value) {
        (InputType::String, Value::Text(_) | Value::Secret(_))
        | (InputType::Integer, Value::Int(_))
        | (InputType::Number, Value::Int(_) | Value::Decimal(_) | Value::Float(_))
        | (InputType::Boolean, Value::Bool(_))
        | (InputType::Duration, Value::Duration(_))
        | (InputType::Timestamp, Value::Timestamp(_))
        | (InputType::Size, Value::Size(_)) => Ok(value.clone()),
        (InputType::List, Value::List(items)) => items
            .iter()
            .map(inner)
            .collect::<Result<Vec<_>, _>>()
            .map(Value::list),
        (InputType::Map, Value::Map(map)) => {
            let pairs = map
                .iter()
                .map(|(key, value)| inner(value).map(|value| (key.clone(), value)));
            Ok(Value::Map(Arc::new(pairs.collect::<Result<Map, _>>()?)))
        }
        // Text from a query or a file that reads as such a value.
        (InputType::Duration | InputType::Timestamp | InputType::Size, Value::Text(text)) => {
            scalar(kind, text)
        }
        (_, other) => Err(format!(
            "expected {}, not {}",
            kind.word(),
            other.type_name()
        )),
    }
}

/// Whether a value keeps within `enum`, `pattern`, `min` and `max`.
///
/// # Errors
/// What is wrong, to follow the input's name.
pub fn within_limits(decl: &InputDecl, value: &Value) -> Result<(), String> {
    if !decl.allowed.is_empty() && !decl.allowed.iter().any(|allowed| same(allowed, value)) {
        let all: Vec<String> = decl.allowed.iter().map(ToString::to_string).collect();
        return Err(format!("is `{value}`, not one of {}", all.join(", ")));
    }
    if let (Some(pattern), Value::Text(text)) = (&decl.pattern, value) {
        let whole = regex::Regex::new(&format!("^(?:{pattern})$"));
        if !whole.is_ok_and(|regex| regex.is_match(text)) {
            return Err(format!("is `{text}`, which does not match {pattern}"));
        }
    }
    let (measured, what) = match value {
        Value::Text(text) => (Value::Int(int(text.chars().count())), " characters"),
        Value::List(items) => (Value::Int(int(items.len())), " items"),
        Value::Map(map) => (Value::Int(int(map.len())), " entries"),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Secret(_) => (value.clone(), ""),
    };
    if let Some(min) = &decl.min
        && order(&measured, min) == Some(Ordering::Less)
    {
        return Err(format!(
            "is {measured}{what}, less than the {min} that are allowed at least"
        ));
    }
    if let Some(max) = &decl.max
        && order(&measured, max) == Some(Ordering::Greater)
    {
        return Err(format!(
            "is {measured}{what}, more than the {max} that are allowed at most"
        ));
    }
    Ok(())
}

fn int(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || order(a, b) == Some(Ordering::Equal)
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Size(a), Value::Size(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        _ => Some(decimal(a)?.cmp(&decimal(b)?)),
    }
}

fn decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::Int(int) => Some(Decimal::from(*int)),
        Value::Decimal(decimal) => Some(decimal.clone()),
        Value::Float(float) => float.to_string().parse().ok(),
        Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Secret(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decl(kind: InputType) -> InputDecl {
        InputDecl {
            kind,
            description: None,
            default: None,
            allowed: Vec::new(),
            pattern: None,
            min: None,
            max: None,
            of: None,
        }
    }

    fn given(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn reads_every_type() {
        for (kind, text, expected) in [
            (InputType::String, "014", "text"),
            (InputType::Integer, "14", "integer"),
            (InputType::Number, "1.50", "decimal"),
            (InputType::Boolean, "true", "boolean"),
            (InputType::Duration, "5s", "duration"),
            (InputType::Timestamp, "2026-05-01T03:00:00Z", "timestamp"),
            (InputType::Size, "20GiB", "size"),
            (InputType::List, "a,b", "list"),
            (InputType::List, "[1, 2]", "list"),
            (InputType::Map, "{a: 1}", "map"),
        ] {
            let value = from_text(kind, None, text).expect(text);
            assert_eq!(value.type_name(), expected, "{text}");
        }
        for (kind, text) in [
            (InputType::Integer, "1.5"),
            (InputType::Number, "x"),
            (InputType::Boolean, "yes"),
            (InputType::Duration, "5"),
            (InputType::Timestamp, "yesterday"),
            (InputType::Size, "5"),
            (InputType::Map, "[1]"),
        ] {
            assert!(from_text(kind, None, text).is_err(), "{text}");
        }
        assert!(from_text(InputType::List, Some(InputType::Integer), "1,x").is_err());
    }

    #[test]
    fn tells_all_at_once() {
        let mut decls = IndexMap::new();
        decls.insert(
            "size".to_owned(),
            InputDecl {
                min: Some(Value::Int(1)),
                max: Some(Value::Int(10)),
                ..decl(InputType::Integer)
            },
        );
        decls.insert(
            "mode".to_owned(),
            InputDecl {
                allowed: vec!["fast".into(), "slow".into()],
                default: Some("fast".into()),
                ..decl(InputType::String)
            },
        );
        decls.insert(
            "name".to_owned(),
            InputDecl {
                pattern: Some("[a-z]+".to_owned()),
                ..decl(InputType::String)
            },
        );
        let codes = |pairs: &[(&str, &str)]| -> Vec<&str> {
            check(&decls, &given(pairs))
                .map(|_| Vec::new())
                .unwrap_or_else(|e| e.iter().map(|d| d.code).collect())
        };
        assert_eq!(
            codes(&[("size", "11"), ("mode", "medium"), ("nam", "x")]),
            ["WL0904", "WL0904", "WL0901", "WL0902"]
        );
        assert_eq!(
            codes(&[("size", "x"), ("name", "a1")]),
            ["WL0903", "WL0904"]
        );
        let errors = check(
            &decls,
            &given(&[("size", "1"), ("name", "a"), ("siez", "2")]),
        )
        .expect_err("unknown");
        assert_eq!(errors[0].help.as_deref(), Some("did you mean `size`?"));
        let ok = check(&decls, &given(&[("name", "a"), ("size", "10")])).expect("fits");
        assert_eq!(ok.to_string(), r#"{"size":10,"mode":"fast","name":"a"}"#);
    }

    #[test]
    fn checks_values_of_calls() {
        let mut decls = IndexMap::new();
        decls.insert(
            "wait".to_owned(),
            InputDecl {
                max: Some(Value::from(Duration::from_secs(60))),
                ..decl(InputType::Duration)
            },
        );
        let call =
            |value: Value| check_value(&decls, &IndexMap::from([("wait".to_owned(), value)]));
        assert!(call("5s".into()).is_ok());
        assert!(call(Value::from(Duration::from_secs(61))).is_err());
        assert!(call(Value::Int(5)).is_err());
        assert_eq!(
            check_value(&decls, &IndexMap::new()),
            Err("input `wait` is required".to_owned())
        );
    }
}
