use super::{Name, Spanned};
use crate::{
    diagnostic::{Diagnostic, codes, nearest, suggest},
    source::{Map, Node, Range, SourceFile, Style, quoted, yaml_11_boolean},
    value::{Duration, Size},
};
use std::{fmt::Display, str::FromStr};

/// Reads nodes as what is expected of them; collects what is wrong.
#[derive(Debug)]
pub struct Reader<'f> {
    /// The file.
    pub file: &'f SourceFile,
    /// What is wrong so far.
    pub diagnostics: Vec<Diagnostic>,
}

impl<'f> Reader<'f> {
    /// Nothing is wrong yet.
    #[must_use]
    pub fn new(file: &'f SourceFile) -> Self {
        Self {
            file,
            diagnostics: Vec::new(),
        }
    }

    /// An error at a place.
    pub fn error(&mut self, code: &'static str, range: Range, message: impl Into<String>) {
        self.diagnostics
            .push(Diagnostic::error(code, self.file.span(range), message));
    }

    /// An error at a place, with what to do.
    pub fn error_help(
        &mut self,
        code: &'static str,
        range: Range,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.diagnostics
            .push(Diagnostic::error(code, self.file.span(range), message).help(help));
    }

    /// A value of another type than what stands here.
    pub fn wrong_type(&mut self, node: &Node, what: &str, expected: &str) {
        if expected == "text" && self.swallowed(node, what, |_| true) {
            return;
        }
        let range = first_line(self.file, node.range);
        self.diagnostics.push(
            Diagnostic::error(
                codes::WRONG_TYPE,
                self.file.span(range),
                format!("{what} must be {expected}, not {}", node.type_name()),
            )
            .label(format!("expected {expected}")),
        );
    }

    /// Tells of a value that YAML took for a comment, if that is what happened; quotes mend it where the value then fits.
    pub fn swallowed(&mut self, node: &Node, what: &str, fits: impl Fn(&str) -> bool) -> bool {
        let empty = node
            .scalar()
            .is_some_and(|scalar| scalar.style == Style::Plain && scalar.text.is_empty());
        let text = self.file.text();
        let from = node.range.start as usize;
        let line_start = text
            .get(..from)
            .and_then(|lead| lead.rfind('\n'))
            .map_or(0, |at| at + 1);
        let line = self.file.rest_of_line(line_start);
        let Some(comment) = line.find(": #").map(|at| at + 2).filter(|_| empty) else {
            return false;
        };
        let value = line.get(comment..).unwrap_or("").trim_end();
        let range = Range::new(line_start + comment, line_start + comment + value.len());
        let diagnostic = Diagnostic::error(
            codes::SWALLOWED,
            self.file.span(range),
            format!("{what} has no value: YAML takes what starts with `#` as a comment"),
        );
        self.diagnostics.push(if fits(value) {
            diagnostic.mended_by(range.bytes(), quoted(value))
        } else {
            diagnostic.help(format!("write {}", quoted(value)))
        });
        true
    }

    /// The map that must stand here.
    pub fn map<'t>(&mut self, node: &'t Node, what: &str) -> Option<&'t Map> {
        let map = node.map();
        if map.is_none() {
            self.wrong_type(node, what, "a map");
        }
        map
    }

    /// The list that must stand here.
    pub fn list<'t>(&mut self, node: &'t Node, what: &str) -> Option<&'t [Node]> {
        let list = node.list();
        if list.is_none() {
            self.wrong_type(node, what, "a list");
        }
        list
    }

    /// A scalar as it is written, whatever YAML would make of it: `014` stays `014`.
    pub fn text<'t>(&mut self, node: &'t Node, what: &str) -> Option<Name<'t>> {
        match node.scalar() {
            Some(scalar) if !node.is_null() => Some(Spanned::new(&scalar.text, node.range)),
            _ => {
                self.wrong_type(node, what, "text");
                None
            }
        }
    }

    /// Text that is no expression.
    pub fn literal<'t>(&mut self, node: &'t Node, what: &str) -> Option<Name<'t>> {
        let text = self.text(node, what)?;
        if text.value.contains("${{") {
            self.error_help(
                codes::NOT_LITERAL,
                node.range,
                format!("{what} is read before anything runs, so it cannot hold an expression"),
                "write the value itself",
            );
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        let text = self.literal(node, what)?;
        match text.value {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                let diagnostic = Diagnostic::error(
                    codes::BOOLEAN,
                    self.file.span(node.range),
                    format!("{what} must be true or false; YAML 1.2 reads `{other}` as text"),
                )
                .label("expected true or false");
                self.diagnostics.push(match yaml_11_boolean(other) {
                    Some(meant) => diagnostic.mended_by(node.range.bytes(), meant.to_string()),
                    None => diagnostic.help("write true or false"),
                });
                None
            }
        }
    }

    /// A value of a type with a textual form.
    fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        node: &Node,
        what: &str,
        code: &'static str,
        expected: &str,
    ) -> Option<T> {
        let text = self.literal(node, what)?;
        text.value
            .parse()
            .map_err(|error: T::Err| {
                self.diagnostics.push(
                    Diagnostic::error(code, self.file.span(node.range), format!("{what}: {error}"))
                        .label(format!("expected {expected}")),
                );
            })
            .ok()
    }

    /// A duration.
    pub fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let duration: Duration = self.parsed(node, what, codes::DURATION, "a duration")?;
        if duration < Duration::ZERO {
            self.error(
                codes::DURATION,
                node.range,
                format!("{what} cannot be negative"),
            );
            return None;
        }
        Some(duration)
    }

    /// A size.
    pub fn size(&mut self, node: &Node, what: &str) -> Option<Size> {
        self.parsed(node, what, codes::WRONG_TYPE, "a size")
    }

    /// A whole number within limits.
    pub fn count(&mut self, node: &Node, what: &str, min: u32, max: u32) -> Option<u32> {
        let text = self.literal(node, what)?;
        let number = text
            .value
            .parse()
            .ok()
            .filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.diagnostics.push(
                Diagnostic::error(
                    codes::NUMBER,
                    self.file.span(node.range),
                    format!(
                        "{what} must be a whole number from {min} to {max}, not `{}`",
                        text.value
                    ),
                )
                .label("expected a whole number"),
            );
        }
        number
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.literal(node, what)?;
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let diagnostic = Diagnostic::error(
                codes::NOT_ALLOWED,
                self.file.span(node.range),
                format!("{what} cannot be `{}`", text.value),
            )
            .label(format!("expected one of {}", all.join(", ")));
            self.diagnostics.push(match nearest(text.value, all) {
                Some(word) => diagnostic.help(format!("did you mean `{word}`?")),
                None => diagnostic,
            });
        }
        found.map(|(_, value)| *value)
    }

    /// A list of texts.
    pub fn texts<'t>(&mut self, node: &'t Node, what: &str) -> Vec<Name<'t>> {
        let items = self.list(node, what).unwrap_or_default();
        items
            .iter()
            .filter_map(|item| self.literal(item, what))
            .collect()
    }

    /// Tells of keys that are not among the known.
    pub fn known_keys(&mut self, map: &Map, known: &[&str], what: &str) {
        for entry in &map.entries {
            if !known.contains(&&*entry.key) {
                self.unknown_key(entry.key_range, &entry.key, known.iter().copied(), what);
            }
        }
    }

    /// Tells of an unknown key.
    pub fn unknown_key<'k>(
        &mut self,
        range: Range,
        key: &str,
        known: impl IntoIterator<Item = &'k str>,
        what: &str,
    ) {
        let diagnostic = Diagnostic::error(
            codes::UNKNOWN_KEY,
            self.file.span(range),
            format!("{what} has no key `{key}`"),
        );
        self.diagnostics.push(match suggest(key, known) {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        });
    }

    /// Tells of a missing key.
    pub fn missing_key(&mut self, range: Range, key: &str, what: &str) {
        let range = first_line(self.file, range);
        self.error_help(
            codes::MISSING_KEY,
            range,
            format!("{what} has no `{key}`"),
            format!("add `{key}:`"),
        );
    }
}

/// The part of a range in its first line, at least one character.
pub(crate) fn first_line(file: &SourceFile, range: Range) -> Range {
    let text = file.slice(range);
    let len = text.lines().next().map_or(0, |line| line.trim_end().len());
    Range::new(range.start as usize, range.start as usize + len)
}
