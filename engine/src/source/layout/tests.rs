//! Examples by hand, and documents that are written tidily and untidily by a writer of their own.
use super::*;
use proptest::prelude::*;

#[test]
fn lays_out() {
    let text = "\u{feff}# head\r\n\r\n\r\nsteps:\r\n# of a\n-   id:   a # why\n    with:   {a: 1,b:  [ x,y ], c: { }, \"d\": \"e\"}\n    sql: |\n          SELECT 1\n            FROM t  \n\n\n          WHERE x\n\n\n    # ends a\n# of b\n-\n     id: 'b'\n     list:\n     - - 1\n       - '2'\n     - plain text\n       that goes on\n     -\t[a,   # one\n     b,]\n     when: >-\n       a\n       && b\n\n\n";
    let expected = "# head\n\nsteps:\n  # of a\n  - id: a # why\n    with: { a: 1, b: [x, y], c: {}, d: e }\n    sql: |\n      SELECT 1\n        FROM t  \n\n\n      WHERE x\n\n    # ends a\n  # of b\n  - id: b\n    list:\n      - - 1\n        - '2'\n      - plain text\n        that goes on\n      - [\n          a,   # one\n          b\n        ]\n    when: >-\n      a\n      && b\n";
    let laid = laid_out(text).unwrap();
    assert_eq!(laid, expected, "\n{laid}");
    assert_eq!(laid_out(&laid).unwrap(), laid);
}

#[test]
fn quotes_that_say_something_stay() {
    let text = "a: '1'\nb: \"true\"\nc: 'off'\nd: 'null'\ne: ''\nf: 'x #y'\ng: 'a: b'\nh: '2024-01-01'\ni: '${{ x }}'\nj: ' x'\n'1': '- x'\nk: [ 'x, y', '{' ]\n";
    assert_eq!(
        laid_out(text).as_deref(),
        Ok(&*text.replace("[ 'x, y', '{' ]", "['x, y', '{']"))
    );
    assert_eq!(laid_out("{a: ?, ?}").as_deref(), Ok("{ a: '?', '?' }\n"));
    assert_eq!(
        laid_out("'a b': \"it works\"\n").as_deref(),
        Ok("a b: it works\n")
    );
}

#[test]
fn what_stands_around_the_document_stays() {
    for (text, expected) in [
        (
            "--- # one\na: 1 # two\n...\n# three\n",
            "--- # one\na: 1 # two\n\n# three\n",
        ),
        ("%YAML 1.2\n---\na: 1\n", "%YAML 1.2\n---\na: 1\n"),
        ("a: 1\n\n\n# end", "a: 1\n\n# end\n"),
        ("{a: 1}", "{ a: 1 }\n"),
        ("? a # why\n: b\n", "a: # why\n  b\n"),
        ("a:\n- [x: y, {z}]\n", "a:\n  - [{ x: y }, { z }]\n"),
        ("a: |", "a: |\n"),
        ("a:   1   # one\n", "a: 1   # one\n"),
        (
            "a:   1  # one\nbb:  2 # two\nccccc:   3  # three\nd:       4  # four\n",
            "a: 1  # one\nbb: 2 # two\nccccc: 3    # three\nd: 4        # four\n",
        ),
        (
            "# a\n%X y # b\n# c\n---\na: 1\n",
            "# a\n%X y # b\n# c\n---\na: 1\n",
        ),
        ("? >", "'':\n"),
        ("--- ---", "---\n'---'\n"),
        ("? --- a\n", "'--- a':\n"),
        ("? | # why\n  a b\n: c\n", "\"a b\\n\": # why\n  c\n"),
        ("{ a\n  b: c }\n", "{\n  a b: c\n}\n"),
        ("a: # one\n# two\n  |\n  x", "a: # one\n  # two\n  |\n  x\n"),
        ("a:\n- b\n# of c\nc:\n", "a:\n  - b\n# of c\nc:\n"),
        (
            "a: {b: 1, # one\n\n  # two\n  c: [d,\n e]}\n",
            "a: {\n  b: 1, # one\n\n  # two\n  c: [\n    d,\n    e\n  ]\n}\n",
        ),
    ] {
        assert_eq!(laid_out(text).as_deref(), Ok(expected), "{text:?}");
        assert_eq!(laid_out(expected).as_deref(), Ok(expected), "{text:?}");
    }
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
        "a: >+\n\n\n  x\n  ",
        "a: |+\n  ",
        "a: |+\n  \n  ",
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
    /// Quotes that say something.
    Number(u8),
    Block(Vec<u8>),
    Flow(Vec<u8>),
    /// Over several lines, some with a comment.
    Wide(Vec<(u8, bool)>),
    List(Vec<Part>),
    Map(Vec<Part>),
}

/// A value with what stands around it.
#[derive(Debug, Clone)]
struct Part {
    /// An empty line before it.
    gap: bool,
    /// A comment in a line of its own before it.
    above: bool,
    /// A comment in its first line.
    beside: bool,
    value: Doc,
}

fn docs() -> impl Strategy<Value = Doc> {
    let leaf = prop_oneof![
        3 => any::<u8>().prop_map(Doc::Plain),
        1 => any::<u8>().prop_map(Doc::Number),
        1 => prop::collection::vec(0..4u8, 1..4).prop_map(Doc::Block),
        1 => prop::collection::vec(any::<u8>(), 0..3).prop_map(Doc::Flow),
        1 => prop::collection::vec((any::<u8>(), any::<bool>()), 1..3).prop_map(Doc::Wide),
    ];
    let doc = leaf.prop_recursive(4, 40, 4, |inner| {
        let part = (
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.2),
            inner,
        )
            .prop_map(|(gap, above, beside, value)| Part {
                gap,
                above,
                beside,
                value,
            });
        prop_oneof![
            prop::collection::vec(part.clone(), 1..4).prop_map(Doc::List),
            prop::collection::vec(part, 1..4).prop_map(Doc::Map),
        ]
    });
    doc.prop_filter("a document is a map or a list", |doc| {
        matches!(doc, Doc::List(_) | Doc::Map(_))
    })
}

fn pad(indent: usize) -> String {
    " ".repeat(indent)
}

/// Writes documents; untidily where there is untidiness left to take.
struct Untidy {
    out: String,
    left: Option<std::vec::IntoIter<u8>>,
    comments: usize,
    /// A dash that waits for the first key or dash below it.
    dash: Option<String>,
}

impl Untidy {
    fn some(&mut self, most: u8) -> usize {
        let next = self.left.as_mut().and_then(Iterator::next);
        usize::from(next.unwrap_or(0) % (most + 1))
    }

    fn remark(&mut self) -> String {
        self.comments += 1;
        format!("# no. {}", self.comments)
    }

    fn end(&mut self) {
        let tail = pad(self.some(1));
        self.out.push_str(&format!("{tail}\n"));
    }

    /// What stands before a part: an empty line, a comment; begins its line.
    fn lead(&mut self, indent: usize, part: &Part) {
        if let Some(dash) = self.dash.take() {
            if !part.above {
                let gap = self.out.len() - self.out.trim_end_matches(' ').len();
                assert_eq!(gap, 0);
                self.out.push_str(&dash);
                return;
            }
            self.end();
        }
        if part.gap && !self.out.is_empty() {
            let more = self.some(2);
            self.out.push_str(&"\n".repeat(1 + more));
        }
        if part.above {
            let remark = self.remark();
            self.out.push_str(&format!("{}{remark}", pad(indent)));
            self.end();
        }
        self.out.push_str(&pad(indent));
    }

    fn plain(&mut self, n: u8) -> String {
        match self.some(3) {
            1 => format!("'v{n}'"),
            2 => format!("\"v{n}\""),
            _ => format!("v{n}"),
        }
    }

    fn flow(&mut self, items: &[u8]) -> String {
        let (before, after) = (pad(self.some(2)), pad(self.some(2)));
        let comma = match self.some(2) {
            0 => ", ",
            1 => ",",
            _ => " ,  ",
        };
        let items: Vec<String> = items.iter().map(|n| self.plain(*n)).collect();
        format!("[{before}{}{after}]", items.join(comma))
    }

    /// What stands behind a key or a dash, and below it.
    fn value(&mut self, part: &Part, indent: usize, in_list: bool) {
        let space = pad(1 + self.some(2));
        let beside = if part.beside {
            format!(" {}", self.remark())
        } else {
            String::new()
        };
        match &part.value {
            Doc::Plain(n) => {
                let text = self.plain(*n);
                self.out.push_str(&format!("{space}{text}{beside}"));
                self.end();
            }
            Doc::Number(n) => {
                self.out.push_str(&format!("{space}'{n}'{beside}"));
                self.end();
            }
            Doc::Flow(items) => {
                let flow = self.flow(items);
                self.out.push_str(&format!("{space}{flow}{beside}"));
                self.end();
            }
            Doc::Wide(items) => {
                let base = if in_list { indent + STEP } else { indent };
                self.out.push_str(&format!("{space}[{beside}"));
                self.end();
                for (at, (n, remark)) in items.iter().enumerate() {
                    let comma = if at + 1 < items.len() || self.some(1) == 1 {
                        ","
                    } else {
                        ""
                    };
                    let remark = if *remark {
                        format!(" {}", self.remark())
                    } else {
                        String::new()
                    };
                    let text = self.plain(*n);
                    let deeper = pad(base + STEP + self.some(3));
                    self.out.push_str(&format!("{deeper}{text}{comma}{remark}"));
                    self.end();
                }
                self.out.push_str(&format!("{}]", pad(base)));
                self.end();
            }
            Doc::Block(lines) => {
                let deeper = indent + STEP + self.some(3);
                self.out.push_str(&format!("{space}|{beside}"));
                self.end();
                for (at, extra) in lines.iter().enumerate() {
                    let extra = if at == 0 { 0 } else { usize::from(*extra) };
                    self.out
                        .push_str(&format!("{}# text {at}\n", pad(deeper + extra)));
                }
            }
            Doc::List(_) | Doc::Map(_) if in_list && !part.beside && self.some(2) < 2 => {
                self.body(indent + 1 + space.len(), &part.value, Some(space));
            }
            Doc::List(_) | Doc::Map(_) => {
                self.out.push_str(&beside);
                self.end();
                let under = matches!(part.value, Doc::List(_)) && !in_list && self.some(2) == 1;
                let deeper = if under {
                    indent
                } else {
                    indent + STEP + self.some(3)
                };
                self.body(deeper, &part.value, None);
            }
        }
    }

    fn body(&mut self, indent: usize, doc: &Doc, dash: Option<String>) {
        self.dash = dash;
        match doc {
            Doc::List(items) => {
                for item in items {
                    self.lead(indent, item);
                    self.out.push('-');
                    self.value(item, indent, true);
                }
            }
            Doc::Map(values) => {
                for (at, value) in values.iter().enumerate() {
                    self.lead(indent, value);
                    let colon = if self.some(2) == 1 { "'" } else { "" };
                    self.out.push_str(&format!("{colon}k{at}{colon}:"));
                    self.value(value, indent, false);
                }
            }
            Doc::Plain(_) | Doc::Number(_) | Doc::Block(_) | Doc::Flow(_) | Doc::Wide(_) => {}
        }
    }
}

/// Tidy without `untidy`; else as many of its liberties are taken as there are numbers.
fn written(doc: &Doc, untidy: Option<Vec<u8>>) -> String {
    let mut writer = Untidy {
        out: String::new(),
        left: untidy.map(Vec::into_iter),
        comments: 0,
        dash: None,
    };
    writer.body(0, doc, None);
    writer.out
}

proptest! {
    #[test]
    fn what_is_untidy_becomes_what_is_tidy(doc in docs(), untidy in prop::collection::vec(any::<u8>(), 0..300)) {
        let tidy = written(&doc, None);
        let untidy = written(&doc, Some(untidy));
        let laid = laid_out(&untidy).map_err(|e| TestCaseError::fail(format!("{e}\n{untidy}")))?;
        prop_assert_eq!(&laid, &tidy, "{}\n=>\n{}\nnot\n{}", &untidy, &laid, &tidy);
        prop_assert_eq!(laid_out(&laid), Ok(tidy));
    }

    /// Whatever it is: laid out, it stays, and never says anything else.
    #[test]
    fn what_is_laid_out_stays(text in "([a-c'\"\\[{]{0,3}[:?-]? {0,2}[a-c\\[\\]{},|>'\"#0-9+-]{0,4}\n? {0,4}){0,8}") {
        match laid_out(&text) {
            Ok(laid) => prop_assert_eq!(laid_out(&laid), Ok(laid.clone())),
            Err(error) => prop_assert_eq!(error, LayoutError::Mistakes, "{:?}", text),
        }
    }
}
