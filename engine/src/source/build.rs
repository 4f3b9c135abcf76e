use super::mistakes::{bang_diagnostic, mend, options, syntax, too_deep};
use super::{
    Entry, Map, Node, NodeKind, Range, Scalar, SourceFile, Style, before_comment, core_value,
    quoted,
};
use crate::diagnostic::{Diagnostic, codes};
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StructureStyle};
use std::collections::HashMap;

/// How large a file may be.
pub const MAX_BYTES: usize = 16 << 20;
/// How deep maps and lists may be nested.
pub const MAX_DEPTH: usize = 64;
/// How many mistakes are worked around before reading stops.
pub(super) const MAX_MENDS: usize = 32;

/// What came of a file.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The file.
    pub file: SourceFile,
    /// The document, as far as it could be read.
    pub root: Option<Node>,
    /// All that is wrong, by place.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses a file; goes on after what can be worked around.
#[must_use]
pub fn parse(path: &str, text: &str) -> Parsed {
    if text.len() > MAX_BYTES {
        let file = SourceFile::new(path, "");
        let diagnostic = Diagnostic::error(
            codes::TOO_LARGE,
            file.span(Range::default()),
            format!(
                "the file has {} bytes, more than the {MAX_BYTES} that are read",
                text.len()
            ),
        )
        .help("split it into playbooks that one playbook calls");
        return Parsed {
            file,
            root: None,
            diagnostics: vec![diagnostic],
        };
    }
    let file = SourceFile::new(path, text);
    let mut mends = Vec::new();
    let mut masked = text.to_owned();
    let mut diagnostics = Vec::new();
    let (root, mut found, whole) = loop {
        let mut builder = Builder::new(&file, &mends);
        let Err(error) = builder.read(&masked) else {
            let whole = std::mem::take(&mut builder.whole);
            let (root, found) = builder.finish();
            break (root, found, whole);
        };
        let at = offset_of(&error, &file);
        match mend(&file, &masked, &error, at, &mends) {
            Some((mend, text, diagnostic)) => {
                masked = text;
                mends.push(mend);
                diagnostics.push(diagnostic);
            }
            None => {
                builder.diagnostics.push(syntax(&file, &masked, &error, at));
                break (None, builder.diagnostics, builder.whole);
            }
        }
    };
    // Quotes go around the whole text, whatever part of it was the cause; around none that has some already.
    for diagnostic in &mut diagnostics {
        let Some(part) = diagnostic.mend.take().map(|mend| mend.bytes) else {
            continue;
        };
        let around = whole
            .iter()
            .find(|range| (range.start as usize) < part.end && part.start < range.end as usize);
        *diagnostic = match around {
            Some(range) => {
                let text = quoted(file.slice(*range));
                diagnostic.clone().mended_by(range.bytes(), text)
            }
            None => diagnostic
                .clone()
                .help("check the quotes and braces of the whole value"),
        };
    }
    diagnostics.append(&mut found);
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.as_ref().map_or(0, |span| span.start));
    Parsed {
        file,
        root,
        diagnostics,
    }
}

pub(super) fn offset_of(error: &ScanError, file: &SourceFile) -> usize {
    let at = error
        .marker()
        .byte_offset()
        .unwrap_or(0)
        .min(file.text().len());
    (0..=at)
        .rev()
        .find(|at| file.text().is_char_boundary(*at))
        .unwrap_or(0)
}

/// A collection that is being read.
enum Open {
    List {
        start: u32,
        items: Vec<Node>,
        flow: bool,
    },
    Map {
        start: u32,
        map: Map,
        key: Option<(Box<str>, Range)>,
        seen: Option<HashMap<Box<str>, usize>>,
    },
}

/// Maps up to this size are searched, larger ones are hashed.
const SMALL_MAP: usize = 12;

struct Builder<'a> {
    file: &'a SourceFile,
    mends: &'a [Range],
    /// Plain texts with a part that is worked around: what must be quoted.
    whole: Vec<Range>,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Builder<'a> {
    fn new(file: &'a SourceFile, mends: &'a [Range]) -> Self {
        Self {
            file,
            mends,
            whole: Vec::new(),
            open: Vec::new(),
            root: None,
            documents: 0,
            diagnostics: Vec::new(),
        }
    }

    fn read(&mut self, text: &str) -> Result<(), ScanError> {
        for next in Parser::new_from_str_with_options(text, options()) {
            let (event, span) = next?;
            if !self.event(event, span) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn finish(mut self) -> (Option<Node>, Vec<Diagnostic>) {
        // Collections are open where reading stopped early: what was read of them is kept.
        while let Some(open) = self.open.pop() {
            let end = self.file.text().len();
            let node = self.close(open, end);
            self.value(node);
        }
        if self.root.is_none() && self.diagnostics.is_empty() {
            let diagnostic = Diagnostic::error(
                codes::EMPTY_FILE,
                self.file.span(Range::default()),
                "the file holds nothing",
            );
            self.diagnostics
                .push(diagnostic.help("`windlass init` writes one to start from"));
        }
        (self.root, self.diagnostics)
    }

    /// Takes an event; `false` ends the reading.
    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        let range = span
            .byte_range()
            .map_or_else(Range::default, |r| Range::new(r.start, r.end));
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Comment(..) => true,
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let diagnostic = Diagnostic::error(
                        codes::DOCUMENTS,
                        self.file.span(range),
                        "another document starts here",
                    );
                    self.diagnostics
                        .push(diagnostic.help("put it into a file of its own"));
                    return false;
                }
                true
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.anchor(range, "alias");
                let text = self.file.slice(range).into();
                self.value(Node {
                    range,
                    kind: NodeKind::Scalar(Scalar {
                        text,
                        style: Style::SingleQuoted,
                    }),
                });
                true
            }
            Event::Scalar(text, style, anchor, tag) => {
                // `!a && b`: the tag says it all.
                if anchor != 0 && tag.is_none() {
                    self.anchor(self.before(range, '&'), "anchor");
                }
                let mut range = range;
                let mut text: Box<str> = text.into();
                let mut style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted => Style::SingleQuoted,
                    ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
                    ScalarStyle::Literal => Style::Literal,
                    ScalarStyle::Folded => Style::Folded,
                };
                if style == Style::Plain && range.bytes().is_empty() {
                    // Nothing is written; the parser calls that `~`.
                    text = "".into();
                }
                if tag.is_some() {
                    // Read on with what was most likely meant: the text, `!` and all.
                    let whole = self.tag(&span, range, style);
                    if style == Style::Plain {
                        range = whole;
                        text = self.file.slice(range).into();
                        style = Style::SingleQuoted;
                    } else {
                        range = Range::new(whole.start as usize, range.end as usize);
                    }
                } else if self.mended(range) {
                    if style == Style::Plain {
                        range = self.with_hash(range);
                        self.whole.push(range);
                    }
                    // Quoted, in spirit: it must not be typed or complained about again.
                    text = self.file.slice(range).into();
                    style = Style::SingleQuoted;
                }
                self.scalar(Scalar { text, style }, range);
                true
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.properties(anchor, tag.is_some(), &span, range);
                self.push(
                    Open::List {
                        start: range.start,
                        items: Vec::new(),
                        flow: style == StructureStyle::Flow,
                    },
                    range,
                )
            }
            Event::MappingStart(style, anchor, tag) => {
                self.properties(anchor, tag.is_some(), &span, range);
                let map = Map {
                    entries: Vec::new(),
                    flow: style == StructureStyle::Flow,
                };
                self.push(
                    Open::Map {
                        start: range.start,
                        map,
                        key: None,
                        seen: None,
                    },
                    range,
                )
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let node = self.close(open, range.end as usize);
                    self.value(node);
                }
                true
            }
            Event::Anchor(..) | _ => true,
        }
    }

    fn mended(&self, range: Range) -> bool {
        self.mends
            .iter()
            .any(|mend| mend.start < range.end && range.start < mend.end)
    }

    fn in_flow(&self) -> bool {
        self.open.last().is_some_and(|open| match open {
            Open::List { flow, .. } => *flow,
            Open::Map { map, .. } => map.flow,
        })
    }

    /// A plain text, with what YAML took for a comment although quotes of the expression are around it.
    fn with_hash(&self, range: Range) -> Range {
        let bytes = range.bytes();
        let whole = before_comment(self.file.rest_of_line(bytes.start)).len();
        if self.in_flow() || self.file.slice(range).contains('\n') {
            return range;
        }
        Range::new(bytes.start, bytes.end.max(bytes.start + whole))
    }

    fn push(&mut self, open: Open, range: Range) -> bool {
        if self.open.len() >= MAX_DEPTH {
            self.diagnostics.push(too_deep(self.file, range));
            return false;
        }
        self.open.push(open);
        true
    }

    fn close(&mut self, open: Open, end: usize) -> Node {
        match open {
            Open::List { start, items, .. } => {
                let end = items
                    .last()
                    .map_or(end, |last| (last.range.end as usize).max(end));
                Node {
                    range: Range::new(start as usize, end),
                    kind: NodeKind::List(items),
                }
            }
            Open::Map { start, map, .. } => {
                let end = map
                    .entries
                    .last()
                    .map_or(end, |last| (last.value.range.end as usize).max(end));
                Node {
                    range: Range::new(start as usize, end),
                    kind: NodeKind::Map(map),
                }
            }
        }
    }

    fn scalar(&mut self, scalar: Scalar, range: Range) {
        if let Some(Open::Map {
            key: key @ None, ..
        }) = self.open.last_mut()
        {
            *key = Some((scalar.text.clone(), range));
            let plain = scalar.style == Style::Plain;
            if plain && &*scalar.text == "<<" {
                let diagnostic = Diagnostic::error(
                    codes::MERGE,
                    self.file.span(range),
                    "`<<` is a merge key, which playbooks do not use",
                );
                self.diagnostics.push(
                    diagnostic.help("write the keys out, or give them once under `defaults`"),
                );
            } else if plain && core_value(&scalar.text).is_some() {
                let diagnostic =
                    Diagnostic::error(codes::KEY_TYPE, self.file.span(range), "a key must be text");
                self.diagnostics.push(if range.bytes().is_empty() {
                    diagnostic
                } else {
                    diagnostic.mended_by(range.bytes(), quoted(&scalar.text))
                });
            }
            return;
        }
        self.value(Node {
            range,
            kind: NodeKind::Scalar(scalar),
        });
    }

    /// A finished node: the root, an item, a key that is no scalar, or the value of a key.
    fn value(&mut self, node: Node) {
        let Some(open) = self.open.last_mut() else {
            if self.root.is_none() {
                self.root = Some(node);
            }
            return;
        };
        match open {
            Open::List { items, .. } => items.push(node),
            Open::Map { map, key, seen, .. } => {
                let Some((name, key_range)) = key.take() else {
                    let diagnostic = Diagnostic::error(
                        codes::KEY_TYPE,
                        self.file.span(node.range),
                        format!("a key must be text, not {}", node.type_name()),
                    );
                    self.diagnostics.push(diagnostic);
                    *key = Some((self.file.slice(node.range).into(), node.range));
                    return;
                };
                let first = match seen {
                    Some(seen) => seen.get(&name).copied(),
                    None => map.entries.iter().position(|entry| entry.key == name),
                };
                if let Some(first) = first.and_then(|index| map.entries.get(index)) {
                    let (line, column) = self.file.line_column(first.key_range.start as usize);
                    let diagnostic = Diagnostic::error(
                        codes::DUPLICATE_KEY,
                        self.file.span(key_range),
                        format!("`{name}` is here twice"),
                    )
                    .label(format!("first in line {line}, column {column}"))
                    .help("keep one of the two");
                    self.diagnostics.push(diagnostic);
                    return;
                }
                if let Some(seen) = seen {
                    seen.insert(name.clone(), map.entries.len());
                }
                map.entries.push(Entry {
                    key: name,
                    key_range,
                    value: node,
                });
                if seen.is_none() && map.entries.len() > SMALL_MAP {
                    let keys = map.entries.iter().enumerate();
                    *seen = Some(keys.map(|(at, entry)| (entry.key.clone(), at)).collect());
                }
            }
        }
    }

    fn properties(&mut self, anchor: usize, tagged: bool, span: &Span, range: Range) {
        if anchor != 0 {
            self.anchor(self.before(range, '&'), "anchor");
        }
        if tagged {
            self.tag(span, range, Style::Literal);
        }
    }

    /// The word before a node that starts with this sign.
    fn before(&self, range: Range, sign: char) -> Range {
        let lead = self.file.text().get(..range.start as usize).unwrap_or("");
        let Some(start) = lead.rfind(sign) else {
            return range;
        };
        let word = lead.get(start..).unwrap_or("");
        let len = word.find(char::is_whitespace).unwrap_or(word.len());
        Range::new(start, start + len)
    }

    fn anchor(&mut self, range: Range, what: &str) {
        let diagnostic = Diagnostic::error(
            codes::ANCHOR,
            self.file.span(range),
            format!(
                "`{}` is a YAML {what}, which playbooks do not use",
                self.file.slice(range)
            ),
        );
        self.diagnostics.push(
            diagnostic.help("name a value once under `let`, give parameters once under `defaults`, or quote the text"),
        );
    }

    /// Tells of a tag; gives it with the text behind it.
    fn tag(&mut self, span: &Span, range: Range, style: Style) -> Range {
        let start = span
            .tag_start()
            .and_then(|mark| mark.byte_offset())
            .unwrap_or(range.start as usize);
        let line = self.file.rest_of_line(start);
        let flow = self.in_flow();
        let ends = |c: char| c.is_whitespace() || (flow && ",[]{}".contains(c));
        let tag = line
            .find(ends)
            .map_or(line, |end| line.get(..end).unwrap_or(line));
        let behind = if range.bytes().is_empty() {
            0
        } else {
            range.end as usize
        };
        let mut whole = Range::new(start, behind.max(start + tag.len()));
        let one_line = whole.end as usize <= start + line.len();
        if style == Style::Plain && one_line {
            whole = self.with_hash(whole);
        }
        if tag.starts_with("!!") || tag.starts_with("!<") {
            let diagnostic = Diagnostic::error(
                codes::TAG,
                self.file.span(Range::new(start, start + tag.len())),
                format!("`{tag}` is a YAML tag, which playbooks do not use"),
            );
            self.diagnostics
                .push(diagnostic.help("leave it out: the type follows from the key"));
            return whole;
        }
        let is_text = !matches!(style, Style::Literal | Style::Folded);
        if is_text && one_line {
            self.diagnostics.push(bang_diagnostic(self.file, whole));
        } else {
            let mut diagnostic = bang_diagnostic(self.file, Range::new(start, start + tag.len()));
            diagnostic.mend = None;
            diagnostic.help = Some("a text that starts with `!` needs quotes around it".to_owned());
            self.diagnostics.push(diagnostic);
        }
        whole
    }
}
