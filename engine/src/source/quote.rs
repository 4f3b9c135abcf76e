use super::{NodeKind, Style, parse};

/// The text in the quotes that change it least: single, double where that saves doubling, else single
/// with its quotes doubled.
#[must_use]
pub fn quoted(text: &str) -> String {
    let printable = !text.chars().any(|c| c.is_control());
    if printable && !text.contains('\'') {
        return format!("'{text}'");
    }
    if printable && !text.contains(['"', '\\']) {
        return format!("\"{text}\"");
    }
    if printable {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether YAML would read this text, written plain as the value of a block map's key, as anything else
/// than this text.
#[must_use]
pub fn needs_quotes(text: &str) -> bool {
    if text.is_empty() || text.trim() != text || text.contains('\n') {
        return true;
    }
    let parsed = parse("", &format!("k: {text}\n"));
    let Some(root) = parsed.root.filter(|_| parsed.diagnostics.is_empty()) else {
        return true;
    };
    let value = root
        .map()
        .and_then(|map| map.get("k"))
        .map(|node| &node.kind);
    !matches!(value, Some(NodeKind::Scalar(scalar)) if scalar.style == Style::Plain && *scalar.text == *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_little_as_possible() {
        for (text, expected) in [
            ("a", "'a'"),
            ("it's", "\"it's\""),
            ("it's \"x\"", "'it''s \"x\"'"),
            ("a\nb", "\"a\\nb\""),
        ] {
            assert_eq!(quoted(text), expected);
            let tree =
                crate::source::SourceTree::parse("x", &format!("k: {expected}\n")).expect(text);
            let node = tree
                .root
                .map()
                .and_then(|map| map.get("k"))
                .and_then(|n| n.scalar());
            assert_eq!(node.map(|scalar| &*scalar.text), Some(text));
        }
        for plain in ["a", "a == b", "a['x']", "${{ inputs.x }}", "x ${{ y }} z"] {
            assert!(!needs_quotes(plain), "{plain}");
        }
        for cut in [
            "!a",
            "a #b",
            "# a",
            "\"a\" == b",
            "a: b",
            "",
            " a",
            "[a] == b",
            "*a",
        ] {
            assert!(needs_quotes(cut), "{cut}");
        }
    }
}
