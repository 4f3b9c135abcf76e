use super::*;

fn codes_of(text: &str) -> Vec<(&'static str, u32, u32)> {
    parse("x.yaml", text)
        .diagnostics
        .into_iter()
        .map(|d| {
            let span = d.span.expect("a place");
            (d.code, span.line, span.column)
        })
        .collect()
}

fn tree(text: &str) -> Tree {
    SourceTree::parse("x.yaml", text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

#[test]
fn every_key_and_value_has_its_place() {
    let tree = tree("a: 014\nb: [x, \"y z\"]\nc:\n  d: {e: f}\n");
    let map = tree.root.map().expect("a map");
    let a = map.entry("a").expect("a");
    assert_eq!(tree.file.slice(a.key_range), "a");
    assert_eq!(tree.file.slice(a.value.range), "014");
    assert_eq!(a.value.scalar().map(|s| &*s.text), Some("014"));
    let b = map.get("b").and_then(Node::list).expect("b");
    assert_eq!(tree.file.slice(b[1].range), "\"y z\"");
    assert_eq!(b[1].scalar().map(|s| s.style), Some(Style::DoubleQuoted));
    let d = map
        .get("c")
        .and_then(Node::map)
        .and_then(|c| c.entry("d"))
        .expect("d");
    assert_eq!(tree.file.line_column(d.key_range.start as usize), (4, 3));
    assert!(d.value.map().is_some_and(|map| map.flow));
}

#[test]
fn refuses_what_playbooks_do_not_use() {
    assert_eq!(codes_of("a: !!str 1\nb: 2\n"), [("WL0103", 1, 4)]);
    assert_eq!(
        codes_of("a: &x 1\nb: *x\nc: *nowhere\n"),
        [("WL0104", 1, 4), ("WL0104", 2, 4), ("WL0104", 3, 4)]
    );
    assert_eq!(codes_of("a: 1\nb: 2\na: 3\n"), [("WL0106", 3, 1)]);
    assert_eq!(codes_of("a: 1\n---\nb: 2\n"), [("WL0109", 2, 1)]);
    assert_eq!(
        codes_of("1: a\ntrue: b\n\"2\": c\n"),
        [("WL0110", 1, 1), ("WL0110", 2, 1)]
    );
    assert_eq!(
        codes_of("? [a, b]\n: c\n").first().map(|c| c.0),
        Some("WL0110")
    );
    assert_eq!(codes_of("<<: {a: 1}\nb: 1\n"), [("WL0105", 1, 1)]);
    assert_eq!(codes_of("").first().map(|c| c.0), Some("WL0111"));
    assert_eq!(
        codes_of("# only a comment\n").first().map(|c| c.0),
        Some("WL0111")
    );
    assert_eq!(codes_of("a:\n\t- b\n").first().map(|c| c.0), Some("WL0102"));
    let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    assert_eq!(codes_of(&deep).first().map(|c| c.0), Some("WL0107"));
    let deeper = format!("{}1", "[".repeat(100_000));
    assert_eq!(codes_of(&deeper).first().map(|c| c.0), Some("WL0107"));
    let ok = format!("{}1{}", "[".repeat(64), "]".repeat(64));
    assert!(codes_of(&ok).is_empty());
    let large = format!("a: {}", "x".repeat(MAX_BYTES));
    assert_eq!(codes_of(&large).first().map(|c| c.0), Some("WL0108"));
}

#[test]
fn a_large_map_still_finds_its_duplicates() {
    let mut text: String = (0..40).map(|i| format!("k{i}: {i}\n")).collect();
    text.push_str("k3: again\n");
    assert_eq!(codes_of(&text), [("WL0106", 41, 1)]);
}

#[test]
fn expressions_in_braces_are_worked_around() {
    let parsed = parse(
        "x",
        "a: { b: ${{ inputs.b }}, c: x-${{ inputs.c }}-y }\nd: [ ${{ e }} ]\nf: f\nf: g\n",
    );
    let found: Vec<_> = parsed
        .diagnostics
        .iter()
        .map(|d| (d.code, d.help.clone().unwrap_or_default()))
        .collect();
    assert_eq!(
        found[0],
        (
            "WL0112",
            "write '${{ inputs.b }}', or let `windlass fmt` do it".to_owned()
        )
    );
    assert_eq!(found[1].0, "WL0112");
    assert_eq!(
        found[2],
        (
            "WL0112",
            "write '${{ e }}', or let `windlass fmt` do it".to_owned()
        )
    );
    assert_eq!(found[3].0, "WL0106", "reading went on");
    let root = parsed.root.expect("a tree");
    let a = root
        .map()
        .and_then(|map| map.get("a"))
        .and_then(Node::map)
        .expect("a");
    assert_eq!(
        a.get("b").and_then(Node::scalar).map(|s| &*s.text),
        Some("${{ inputs.b }}")
    );
    assert_eq!(
        a.get("c").and_then(Node::scalar).map(|s| &*s.text),
        Some("x-${{ inputs.c }}-y")
    );
}

#[test]
fn a_leading_bang_is_explained() {
    for text in [
        "when: !steps.a.output.ok\nb: 1\n",
        "when: !(a || b)\nb: 1\n",
        "when: !a && b\nb: 1\n",
        "- when: !a.b && c\n  b: 1\n",
    ] {
        let parsed = parse("x", text);
        assert_eq!(
            parsed.diagnostics.len(),
            1,
            "{text}: {:?}",
            parsed.diagnostics
        );
        assert_eq!(parsed.diagnostics[0].code, "WL0103", "{text}");
        let help = parsed.diagnostics[0].help.clone().unwrap_or_default();
        assert!(help.starts_with("write '!"), "{help}");
        let root = parsed.root.expect("a tree");
        let map = root
            .list()
            .and_then(|l| l[0].map())
            .or(root.map())
            .expect("a map");
        let when = map.get("when").and_then(Node::scalar).expect("a scalar");
        assert!(when.text.starts_with('!'), "{text}: {}", when.text);
        assert!(map.get("b").is_some(), "{text}");
    }
}

#[test]
fn places_inside_scalars() {
    let text = "a: plain text\nb: 'single text'\nc: |\n  first\n    second text\nd: >\n  folded\n";
    let tree = tree(text);
    let map = tree.root.map().expect("a map");
    for (key, line) in [("a", 1), ("b", 2), ("c", 5)] {
        let node = map.get(key).expect(key);
        let scalar = node.scalar().expect(key);
        let at = scalar.text.find("text").expect(key);
        let range = tree.file.within(node, at, 4);
        assert_eq!(tree.file.slice(range), "text", "{key}");
        assert_eq!(tree.file.line_column(range.start as usize).0, line, "{key}");
    }
    let d = map.get("d").expect("d");
    assert_eq!(tree.file.within(d, 0, 3), d.range);
}

#[test]
fn syntax_errors_say_where() {
    for (text, whole) in [
        ("a: b: c\nd: 1\n", "'b: c'"),
        ("a: \"x\" == y\nd: 1\n", "'\"x\" == y'"),
        ("a: 'x' == y\nd: 1\n", "\"'x' == y\""),
        ("- a: n == 1 ? 2 : 3\n  d: 1\n", "'n == 1 ? 2 : 3'"),
        ("a: [x] == y\nd: 1\n", "'[x] == y'"),
    ] {
        let parsed = parse("x", text);
        assert_eq!(
            parsed.diagnostics.len(),
            1,
            "{text}: {:?}",
            parsed.diagnostics
        );
        assert_eq!(parsed.diagnostics[0].code, "WL0101");
        assert_eq!(
            parsed.diagnostics[0].help,
            Some(format!("write {whole}, or let `windlass fmt` do it")),
            "{text}"
        );
        let root = parsed.root.expect("reading went on");
        let map = root
            .list()
            .and_then(|l| l[0].map())
            .or(root.map())
            .expect("a map");
        assert!(map.get("d").is_some(), "{text}");
        let value = map
            .get("a")
            .and_then(Node::scalar)
            .map(|s| s.text.to_string());
        assert_eq!(
            value.as_deref(),
            text.split_once("a: ").and_then(|(_, v)| v.lines().next())
        );
    }
    assert_eq!(codes_of("a: \"open\nb: 1\n").len(), 1);
    assert_eq!(codes_of("a: [open\nb: 1\n").len(), 1);
    assert_eq!(codes_of("a: 1\n b: 2\n").len(), 1);
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "[a-c:{}\\[\\]!&*#$\"'|> \n\t-]{0,60}") {
        let parsed = parse("x", &text);
        for d in &parsed.diagnostics {
            proptest::prop_assert!(!d.render(&text).is_empty());
        }
    }
}
