use crate::value::{Decimal, Value};

/// What YAML 1.2's core schema reads in a plain scalar, where the text is the canonical form of the
/// value: `14` is an integer, `014`, `1_000`, `+1` and `0x1F` stay text. Decimals stay exact.
#[must_use]
pub fn core_value(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" => return Some(Value::Null),
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit())
        || !digits.chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        return None;
    }
    let (whole, part) = match digits.split_once('.') {
        Some((whole, part)) => (whole, Some(part)),
        None => (digits, None),
    };
    let canonical = (whole == "0" || !whole.starts_with('0'))
        && part.is_none_or(|part| !part.is_empty() && !part.contains('.'));
    if !canonical || text == "-0" {
        return None;
    }
    if part.is_none()
        && let Ok(int) = text.parse::<i64>()
    {
        return Some(Value::Int(int));
    }
    text.parse::<Decimal>().ok().map(Value::Decimal)
}

/// What YAML 1.1 read as a boolean and YAML 1.2 reads as text.
#[must_use]
pub fn yaml_11_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "y" => Some(true),
        "no" | "off" | "n" => Some(false),
        // `True` and `TRUE` are YAML 1.2 booleans, but not in the form that the language asks for.
        "true" => (text != "true").then_some(true),
        "false" => (text != "false").then_some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_only_the_canonical_form() {
        assert_eq!(core_value("14"), Some(Value::Int(14)));
        assert_eq!(core_value("-3"), Some(Value::Int(-3)));
        assert_eq!(core_value("0"), Some(Value::Int(0)));
        assert_eq!(core_value("null"), Some(Value::Null));
        assert_eq!(core_value("false"), Some(Value::Bool(false)));
        assert_eq!(
            core_value("1.50").map(|v| v.to_string()).as_deref(),
            Some("1.50")
        );
        assert_eq!(
            core_value("92233720368547758070").map(|v| v.type_name()),
            Some("decimal")
        );
        for text in [
            "014",
            "1_000",
            "+1",
            "0x1F",
            "0o7",
            "1.",
            ".5",
            "1e3",
            "1.2.3",
            "-0",
            "yes",
            "True",
            "5s",
            "2024-01-01",
            "-",
            "nan",
        ] {
            assert_eq!(core_value(text), None, "{text}");
        }
    }
}
