//! Examples by hand, and documents that are written tidily and untidily by a writer of their own.
use super::*;
use proptest::prelude::*;

#[test]
fn lays_out() {
    let text = "\u{feff}# head\r\n\r\n\r\nsteps:\r\n# of a\n-   id:   a   # why\n    with:   {a: 1,b:  [ x,y ], c: { }}\n    sql: |\n          SELECT 1\n            FROM t  \n\n\n          WHERE x\n\n\n    # ends a\n# of b\n-\n     id: b\n     list:\n     - - 1\n       - 2\n     - plain text\n       that goes on\n     when: >-\n       a\n       && b\n\n\n";
    let expected = "# head\n\nsteps:\n  # of a\n  - id:   a   # why\n    with:   { a: 1, b:  [x, y], c: {} }\n    sql: |\n      SELECT 1\n        FROM t  \n\n\n      WHERE x\n\n    # ends a\n  # of b\n  -\n    id: b\n    list:\n      - - 1\n        - 2\n      - plain text\n        that goes on\n    when: >-\n      a\n      && b\n";
    let laid = laid_out(text).unwrap();
    assert_eq!(laid, expected, "\n{laid}");
    assert_eq!(laid_out(&laid).unwrap(), laid);
}

#[test]
fn a_file_with_mistakes_is_left() {
    assert_eq!(laid_out("a: [1"), Err(LayoutError::Mistakes));
    assert_eq!(laid_out("a: 1\na: 2\n"), Err(LayoutError::Mistakes));
}

#[test]
fn block_texts_keep_every_character() {
    for text in [
        "a: |2\n    two more\n  none\nb: 1\n",
        "a: |+\n    kept\n\n\nb: |-\n  x\n",
        "a: |+\n  kept\n\n\n",
        "a:\n    - |\n        x\n         y\n\n    - >\n        z\n",
        "a: |\n      x\n          \n      y\n",
        "a: \"x\n   y\\\n   z\"\n",
        "a: {b: 1,\n    c: 2}\n",
        "a:\n- b:\n  \n  -",
        "a: {b: 1, c  }\n",
        "\n\u{feff}a:\r  b: 1\r",
        "- |-\n  x\n-   >2\n    y\n",
        "a: # says\n   - 1 # one\n   - # two\n     2\n",
    ] {
        let laid = laid_out(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(laid_out(&laid).as_deref(), Ok(&*laid), "{text:?} {laid:?}");
    }
}

/// A document as it is meant.
#[derive(Debug, Clone)]
enum Doc {
    Plain(u8),
    Block(Vec<u8>),
    Flow(Vec<u8>),
    List(Vec<Doc>),
    Map(Vec<Doc>),
}

fn docs() -> impl Strategy<Value = Doc> {
    let leaf = prop_oneof![
        any::<u8>().prop_map(Doc::Plain),
        prop::collection::vec(0..4u8, 1..4).prop_map(Doc::Block),
        prop::collection::vec(any::<u8>(), 0..3).prop_map(Doc::Flow),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Doc::List),
            prop::collection::vec(inner, 1..4).prop_map(Doc::Map),
        ]
    })
}

/// Writes documents; untidily where there is untidiness left to take.
struct Writer {
    out: String,
    untidy: Option<std::vec::IntoIter<u8>>,
}

impl Writer {
    fn some(&mut self, most: u8) -> usize {
        let next = self.untidy.as_mut().and_then(Iterator::next);
        usize::from(next.unwrap_or(0) % (most + 1))
    }

    fn line(&mut self, indent: usize, text: &str) {
        for _ in 0..self.some(2) {
            self.out.push('\n');
        }
        if self.some(3) == 3 {
            self.out
                .push_str(&format!("{}# {}\n", pad(indent), self.out.len()));
        }
        let tail = " ".repeat(self.some(1));
        self.out.push_str(&format!("{}{text}{tail}\n", pad(indent)));
    }

    fn flow(&mut self, items: &[u8]) -> String {
        let (before, after) = (" ".repeat(self.some(2)), " ".repeat(self.some(2)));
        let comma = match self.some(2) {
            0 => ", ",
            1 => ",",
            _ => " ,  ",
        };
        let items: Vec<String> = items.iter().map(|n| format!("v{n}")).collect();
        format!("[{before}{}{after}]", items.join(comma))
    }

    /// What stands behind a key or a dash, and below it.
    fn value(&mut self, head: &str, indent: usize, doc: &Doc) {
        match doc {
            Doc::Plain(n) => self.line(indent, &format!("{head} v{n}")),
            Doc::Flow(items) => {
                let flow = self.flow(items);
                self.line(indent, &format!("{head} {flow}"));
            }
            Doc::Block(lines) => {
                let deeper = indent + STEP + self.some(3);
                self.line(indent, &format!("{head} |"));
                for (at, extra) in lines.iter().enumerate() {
                    let extra = if at == 0 { 0 } else { usize::from(*extra) };
                    self.out
                        .push_str(&format!("{}text {at}\n", pad(deeper + extra)));
                }
            }
            Doc::List(_) | Doc::Map(_) => {
                self.line(indent, head);
                let deeper = indent + STEP + self.some(3);
                self.body(deeper, doc);
            }
        }
    }

    fn body(&mut self, indent: usize, doc: &Doc) {
        match doc {
            Doc::List(items) => items.iter().for_each(|item| self.value("-", indent, item)),
            Doc::Map(values) => {
                for (at, value) in values.iter().enumerate() {
                    self.value(&format!("k{at}:"), indent, value);
                }
            }
            Doc::Plain(_) | Doc::Block(_) | Doc::Flow(_) => {
                self.value("k:", indent, doc);
            }
        }
    }
}

fn written(doc: &Doc, untidy: Option<Vec<u8>>) -> String {
    let mut writer = Writer {
        out: String::new(),
        untidy: untidy.map(Vec::into_iter),
    };
    writer.body(0, doc);
    writer.out
}

fn without_comments(text: &str) -> String {
    let kept = text
        .lines()
        .filter(|line| !line.is_empty() && !line.trim_start().starts_with('#'));
    kept.map(|line| format!("{line}\n")).collect()
}

fn comments(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| line.starts_with('#')).collect()
}

proptest! {
    #[test]
    fn what_is_untidy_becomes_what_is_tidy(doc in docs(), untidy in prop::collection::vec(any::<u8>(), 0..200)) {
        let tidy = written(&doc, None);
        let untidy = written(&doc, Some(untidy));
        let laid = laid_out(&untidy).map_err(|e| TestCaseError::fail(format!("{e}\n{untidy}")))?;
        prop_assert_eq!(without_comments(&laid), tidy, "{}", untidy);
        prop_assert_eq!(comments(&laid), comments(&untidy));
        prop_assert_eq!(laid_out(&laid), Ok(laid.clone()));
    }
}
