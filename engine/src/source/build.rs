use super::{
    Entry, Map, Node, NodeKind, Range, Scalar, SourceFile, Style, before_comment, core_value,
    quoted,
};
use crate::diagnostic::{Diagnostic, codes};
use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, StructureStyle};
use std::collections::HashMap;

/// How large a file may be.
pub const MAX_BYTES: usize = 16 << 20;
/// How deep maps and lists may be nested.
pub const MAX_DEPTH: usize = 64;
/// How many mistakes are worked around before reading stops.
const MAX_MENDS: usize = 32;

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

fn offset_of(error: &ScanError, file: &SourceFile) -> usize {
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

/// Where the parser stops, if it stops.
fn stops_at(file: &SourceFile, text: &str) -> Option<usize> {
    Parser::new_from_str_with_options(text, options())
        .find_map(Result::err)
        .map(|error| offset_of(&error, file))
}

fn options() -> granit_parser::Options {
    granit_parser::options! { emit_comments: false, emit_unresolved_aliases: true }
}

/// Works around the mistakes that are ours to explain: the text with the place masked, byte for byte.
fn mend(
    file: &SourceFile,
    masked: &str,
    error: &ScanError,
    at: usize,
    mends: &[Range],
) -> Option<(Range, String, Diagnostic)> {
    // Each mistake costs a few passes over the file, so a huge one is not read on for long.
    let most = MAX_MENDS.min(1 + (8 << 20) / masked.len().max(1));
    if mends.len() >= most {
        return None;
    }
    let candidates = [
        flow_expression(file, masked, at),
        leading_bang(file, masked, at),
        whole_value(file, masked, error, at),
    ];
    candidates
        .into_iter()
        .flatten()
        .find_map(|(range, diagnostic)| {
            let mut bytes = masked.as_bytes().to_vec();
            for byte in bytes.get_mut(range.bytes())? {
                // Line ends stay, so that indentation is still what it was.
                if *byte != b'\n' {
                    *byte = b'x';
                }
            }
            let text = String::from_utf8(bytes).ok()?;
            // Only what lets the parser get further was the cause.
            stops_at(file, &text)
                .is_none_or(|next| next > at)
                .then_some((range, text, diagnostic))
        })
}

/// The `${{ }}` at or before the place where the parser stopped.
fn flow_expression(file: &SourceFile, masked: &str, at: usize) -> Option<(Range, Diagnostic)> {
    let until = (at + 3).min(masked.len());
    let before = masked.get(..until).or_else(|| masked.get(..at))?;
    let start = before.rfind("${{")?;
    let end = start + masked.get(start..)?.find("}}")? + 2;
    if end + 200 < at {
        return None;
    }
    let range = Range::new(start, end);
    let expression = file.slice(range);
    let diagnostic = Diagnostic::error(
        codes::FLOW_EXPRESSION,
        file.span(range),
        "inside `{ }` or `[ ]` YAML reads `${{ }}` as nested maps",
    )
    .label("needs quotes")
    .mended_by(range.bytes(), quoted(expression));
    Some((range, diagnostic))
}

/// A value that starts with `!` on the line where the parser stopped, or the one before.
fn leading_bang(file: &SourceFile, masked: &str, at: usize) -> Option<(Range, Diagnostic)> {
    let line_start = masked.get(..at)?.rfind('\n').map_or(0, |at| at + 1);
    let earlier = masked
        .get(..line_start.saturating_sub(1))?
        .rfind('\n')
        .map_or(0, |at| at + 1);
    [line_start, earlier].into_iter().find_map(|from| {
        let line = masked.get(from..)?.lines().next()?;
        let bang = [": !", "- !"]
            .into_iter()
            .find_map(|lead| line.find(lead))?
            + 2;
        let start = from + bang;
        let text = before_comment(file.rest_of_line(start));
        Some((
            Range::new(start, start + 1),
            bang_diagnostic(file, Range::new(start, start + text.len())),
        ))
    })
}

/// The value of a key in the line where the parser stopped: one text or expression that needs quotes.
fn whole_value(
    file: &SourceFile,
    masked: &str,
    error: &ScanError,
    at: usize,
) -> Option<(Range, Diagnostic)> {
    let from = masked.get(..at)?.rfind('\n').map_or(0, |at| at + 1);
    let line = masked.get(from..)?.lines().next()?;
    let key = line.trim_start().trim_start_matches("- ");
    let colon = key.find(": ")?;
    let name = key.get(..colon)?;
    if name.is_empty()
        || !name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*'))
    {
        return None;
    }
    let value = before_comment(key.get(colon + 2..)?.trim());
    // Collections and block texts are not one text; what they hold has its own mistakes. What is opened and not closed
    // wants its end, not quotes.
    let count = |sign: char| value.chars().filter(|c| *c == sign).count();
    let open = match value.chars().next()? {
        '{' | '|' | '>' | '#' => true,
        '[' => count('[') != count(']'),
        quote @ ('"' | '\'') => count(quote) % 2 == 1,
        _ => false,
    };
    if open {
        return None;
    }
    let start = value.as_ptr() as usize - masked.as_ptr() as usize;
    let range = Range::new(start, start + value.len());
    let diagnostic = Diagnostic::error(
        codes::SYNTAX,
        file.span(range),
        format!("this is not YAML: {}", error.kind()),
    )
    .label("one text or expression needs quotes")
    .mended_by(range.bytes(), quoted(file.slice(range)));
    Some((range, diagnostic))
}

fn bang_diagnostic(file: &SourceFile, range: Range) -> Diagnostic {
    Diagnostic::error(
        codes::TAG,
        file.span(range),
        "a value that starts with `!` is a tag to YAML, not an expression",
    )
    .label("needs quotes")
    .mended_by(range.bytes(), quoted(file.slice(range)))
}

fn syntax(file: &SourceFile, masked: &str, error: &ScanError, at: usize) -> Diagnostic {
    let (line, _) = file.line_column(at);
    let line_start = file
        .text()
        .get(..at)
        .and_then(|lead| lead.rfind('\n'))
        .map_or(0, |at| at + 1);
    let text = file.rest_of_line(line_start);
    let indent: &str = text
        .get(..text.len() - text.trim_start().len())
        .unwrap_or("");
    let here = Range::new(
        at,
        at + file
            .rest_of_line(at)
            .chars()
            .next()
            .map_or(0, char::len_utf8),
    );
    let about_tabs = matches!(
        error.kind(),
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart
    );
    if about_tabs || indent.contains('\t') {
        let near = if indent.contains('\t') {
            line_start
        } else {
            at
        };
        let rest = file.text().get(near..).unwrap_or("");
        let start = near + rest.find('\t').unwrap_or(0);
        let diagnostic = Diagnostic::error(
            codes::TAB,
            file.span(Range::new(start, start + 1)),
            "a tab in the indentation",
        );
        let line_start = file
            .text()
            .get(..start)
            .and_then(|lead| lead.rfind('\n'))
            .map_or(0, |at| at + 1);
        return match spaces(file, masked, line_start) {
            Some((range, text)) => Diagnostic {
                help: Some("indent with spaces, or let `windlass fmt` do it".to_owned()),
                ..diagnostic.mended_by(range.bytes(), text)
            },
            None => diagnostic.help("indent with spaces"),
        };
    }
    if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
        return too_deep(file, here);
    }
    let diagnostic = Diagnostic::error(
        codes::SYNTAX,
        file.span(here),
        format!("this is not YAML: {}", error.kind()),
    );
    let value = text.split_once(": ").map(|(_, value)| value.trim());
    match value {
        Some(value)
            if value.contains(": ")
                || value.starts_with(['"', '\'', '[', '{', '%', '@', '`', '&', '*', '|', '>']) =>
        {
            diagnostic.help(format!(
                "if the value in line {line} is one text or one expression, quote it as a whole: {}",
                quoted(value)
            ))
        }
        _ => diagnostic.help("check the indentation and the quotes in this line and the one above"),
    }
}

/// Spaces for the tabs that indent this line, and for those of all later lines that begin with one: as many for each as
/// let the parser get furthest.
fn spaces(file: &SourceFile, masked: &str, line_start: usize) -> Option<(Range, String)> {
    let lead = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let rest = masked.get(line_start..)?;
    let first = rest.get(..lead(rest))?;
    first.find('\t')?;
    let end = if first.starts_with('\t') {
        let last = rest.rfind("\n\t").map_or(0, |at| at + 1);
        last + lead(rest.get(last..)?)
    } else {
        first.len()
    };
    let (head, tail) = (masked.get(..line_start)?, rest.get(end..)?);
    let spaced = |text: &str, width: usize| -> String {
        let lines = text.split_inclusive('\n').enumerate();
        let lines = lines.map(|(index, line)| match line.split_at_checked(lead(line)) {
            Some((indent, text)) if index == 0 || indent.starts_with('\t') => {
                format!("{}{text}", indent.replace('\t', &" ".repeat(width)))
            }
            Some(_) | None => line.to_owned(),
        });
        lines.collect()
    };
    let unread = |width: &usize| {
        let text = format!(
            "{head}{}{tail}",
            spaced(rest.get(..end).unwrap_or(""), *width)
        );
        let stops = Parser::new_from_str_with_options(&text, options()).find_map(Result::err);
        stops.map_or(0, |error| {
            text.len() - error.marker().byte_offset().unwrap_or(0).min(text.len())
        })
    };
    let width = [2, 4, 8].into_iter().min_by_key(unread)?;
    // The line itself must have been read.
    let line = rest.find('\n').map_or(0, |at| rest.len() - at);
    let range = Range::new(line_start, line_start + end);
    (unread(&width) <= line).then(|| (range, spaced(file.slice(range), width)))
}

fn too_deep(file: &SourceFile, range: Range) -> Diagnostic {
    Diagnostic::error(
        codes::NESTING,
        file.span(range),
        format!("maps and lists are nested more than {MAX_DEPTH} deep"),
    )
    .help("put the inner part into a playbook of its own and call it")
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
                        format!("`{name}` stands here twice"),
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
