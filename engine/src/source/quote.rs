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

/// A line up to its comment, where a ` #` inside the quotes of an expression begins none. Where quotes stay open, any
/// ` #` does.
#[must_use]
pub fn before_comment(line: &str) -> &str {
    let mut quote = None;
    let mut escaped = false;
    let mut blank = true;
    for (at, c) in line.char_indices() {
        match quote {
            None if c == '#' && blank && at > 0 => {
                return line.get(..at).unwrap_or(line).trim_end();
            }
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if c == open && !escaped => quote = None,
            None | Some(_) => {}
        }
        escaped = c == '\\' && !escaped;
        blank = matches!(c, ' ' | '\t');
    }
    let end = if quote.is_some() {
        line.find(" #")
    } else {
        None
    };
    line.get(..end.unwrap_or(line.len()))
        .unwrap_or(line)
        .trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_end_where_quotes_do_not_hold_them() {
        for (line, expected) in [
            ("a == b # why", "a == b"),
            ("a == \"b #1\" # why", "a == \"b #1\""),
            ("a == 'b #1'", "a == 'b #1'"),
            ("a == \"\\\" #\" # why", "a == \"\\\" #\""),
            ("it's # why", "it's"),
            ("#3 of # them", "#3 of"),
            ("a#b", "a#b"),
        ] {
            assert_eq!(before_comment(line), expected, "{line}");
        }
    }

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
