//! YAML text → a tree with a span for every key and value.
//!
//! Scalars stay text: what a plain `014` means is decided by the type that is expected at its place.
//! What playbooks do not use (tags, anchors, merges, several documents) is refused here, and so are the
//! expressions that YAML would silently change; reading goes on, so that all mistakes are told at once.
mod build;
mod layout;
mod mistakes;
mod quote;
mod scalar;

pub use build::{MAX_BYTES, MAX_DEPTH, Parsed, parse};
pub use layout::{LayoutError, laid_out};
pub use quote::{before_comment, needs_quotes, quoted};
pub use scalar::{core_value, yaml_11_boolean};

use crate::diagnostic::{Diagnostic, Span};
use std::sync::Arc;

/// A range of bytes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Range {
    /// First byte.
    pub start: u32,
    /// Byte after the last.
    pub end: u32,
}

impl Range {
    /// From byte offsets.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        let end = u32::try_from(end).unwrap_or(u32::MAX).max(start);
        Self { start, end }
    }

    /// For slicing.
    #[must_use]
    pub fn bytes(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A file with its name and its line starts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SourceFile {
    path: Arc<str>,
    text: Arc<str>,
    lines: Arc<[u32]>,
}

impl SourceFile {
    /// Finds the lines.
    #[must_use]
    pub fn new(path: &str, text: &str) -> Self {
        let starts = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| u32::try_from(at + 1).unwrap_or(u32::MAX));
        Self {
            path: path.into(),
            text: text.into(),
            lines: std::iter::once(0).chain(starts).collect(),
        }
    }

    /// As it was named.
    #[must_use]
    pub fn path(&self) -> &Arc<str> {
        &self.path
    }

    /// Its whole text.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The text of a range; empty where there is none.
    #[must_use]
    pub fn slice(&self, range: Range) -> &str {
        self.text.get(range.bytes()).unwrap_or("")
    }

    /// Line and column (in characters) of a byte, both from 1.
    #[must_use]
    pub fn line_column(&self, offset: usize) -> (u32, u32) {
        let at = u32::try_from(offset).unwrap_or(u32::MAX);
        let line = self.lines.partition_point(|start| *start <= at).max(1);
        let start = self.lines.get(line - 1).map_or(0, |start| *start as usize);
        let column = self
            .text
            .get(start..offset.min(self.text.len()))
            .map_or(0, |lead| lead.chars().count());
        (
            u32::try_from(line).unwrap_or(u32::MAX),
            u32::try_from(column + 1).unwrap_or(u32::MAX),
        )
    }

    /// For a diagnostic: whole characters of the file.
    #[must_use]
    pub fn span(&self, range: Range) -> Span {
        let start = self.text.floor_char_boundary(range.start as usize);
        let end = self.text.ceil_char_boundary(range.end as usize);
        let (line, column) = self.line_column(start);
        Span {
            file: self.path.clone(),
            start,
            len: end.saturating_sub(start),
            line,
            column,
        }
    }

    /// From the byte to the end of its line, without the line's end.
    #[must_use]
    pub fn rest_of_line(&self, offset: usize) -> &str {
        let rest = self.text.get(offset..).unwrap_or("");
        rest.lines().next().unwrap_or("")
    }

    /// Where a part of a scalar's text stands in the file; the whole scalar where escapes or folding
    /// make that impossible to tell.
    #[must_use]
    pub fn within(&self, node: &Node, from: usize, len: usize) -> Range {
        let NodeKind::Scalar(scalar) = &node.kind else {
            return node.range;
        };
        let raw = self.slice(node.range);
        let base = node.range.start as usize;
        let exact = |lead: usize| Range::new(base + lead + from, base + lead + from + len);
        match scalar.style {
            Style::Plain if raw == &*scalar.text => exact(0),
            Style::SingleQuoted | Style::DoubleQuoted
                if raw.len() == scalar.text.len() + 2
                    && raw.get(1..raw.len() - 1) == Some(&*scalar.text) =>
            {
                exact(1)
            }
            Style::Literal => {
                let before = scalar.text.get(..from).unwrap_or("");
                let line = before.matches('\n').count();
                let column = before.rsplit('\n').next().unwrap_or("").len();
                let wanted = scalar.text.lines().nth(line).unwrap_or("");
                let mut offset = 0;
                let mut seen = 0;
                for raw_line in raw.split_inclusive('\n') {
                    let body = raw_line.trim_end_matches(['\n', '\r']);
                    let header = offset == 0 && body.trim_start().starts_with('|');
                    if !header {
                        if seen == line && body.ends_with(wanted) {
                            let start = base + offset + (body.len() - wanted.len()) + column;
                            return Range::new(start, start + len);
                        }
                        seen += 1;
                    }
                    offset += raw_line.len();
                }
                node.range
            }
            Style::Plain | Style::SingleQuoted | Style::DoubleQuoted | Style::Folded => node.range,
        }
    }
}

/// A parsed file.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The file.
    pub file: SourceFile,
    /// Its one document.
    pub root: Node,
}

/// Parses files into trees.
pub struct SourceTree;

impl SourceTree {
    /// Parses a file of one document. To go on after mistakes, use [`parse`].
    ///
    /// # Errors
    /// All that is wrong with the file as YAML.
    pub fn parse(path: &str, text: &str) -> Result<Tree, Vec<Diagnostic>> {
        let parsed = parse(path, text);
        match parsed.root {
            Some(root) if parsed.diagnostics.is_empty() => Ok(Tree {
                file: parsed.file,
                root,
            }),
            _ => Err(parsed.diagnostics),
        }
    }
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands; a block collection from its first key or dash.
    pub range: Range,
    /// What it is.
    pub kind: NodeKind,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// A scalar.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map.
    Map(Map),
}

/// A scalar as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// Its content, escapes and folding undone.
    pub text: Box<str>,
    /// How it is written.
    pub style: Style,
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// `'…'`
    SingleQuoted,
    /// `"…"`
    DoubleQuoted,
    /// `|`
    Literal,
    /// `>`
    Folded,
}

/// A map in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map {
    /// Keys with their values; no key twice.
    pub entries: Vec<Entry>,
    /// Whether it is written with braces.
    pub flow: bool,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Box<str>,
    /// Where it stands.
    pub key_range: Range,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// The scalar, if it is one.
    #[must_use]
    pub fn scalar(&self) -> Option<&Scalar> {
        if let NodeKind::Scalar(scalar) = &self.kind {
            Some(scalar)
        } else {
            None
        }
    }

    /// The items, if it is a list.
    #[must_use]
    pub fn list(&self) -> Option<&[Node]> {
        if let NodeKind::List(items) = &self.kind {
            Some(items)
        } else {
            None
        }
    }

    /// The map, if it is one.
    #[must_use]
    pub fn map(&self) -> Option<&Map> {
        if let NodeKind::Map(map) = &self.kind {
            Some(map)
        } else {
            None
        }
    }

    /// Whether it is a plain `null`, `~` or nothing at all.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.scalar().is_some_and(|scalar| {
            scalar.style == Style::Plain
                && matches!(&*scalar.text, "" | "~" | "null" | "Null" | "NULL")
        })
    }

    /// What people call it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            NodeKind::Scalar(_) if self.is_null() => "nothing",
            NodeKind::Scalar(_) => "a scalar",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a map",
        }
    }
}

impl Map {
    /// The entry of a key.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| &*entry.key == key)
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }
}

#[cfg(test)]
mod tests;
