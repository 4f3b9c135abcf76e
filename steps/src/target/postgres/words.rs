//! The words of a statement, read one after the other: as much of a grammar as its locks need.
use crate::sql::lex::{self, Dialect, Kind};

/// A word, a name with its schema, or a sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// A name or text that is no keyword.
    is_quoted: bool,
}

impl Word {
    pub(super) fn is(&self, keyword: &str) -> bool {
        !self.is_quoted && self.text.eq_ignore_ascii_case(keyword)
    }
}

/// The words of a statement; a name and its schema are one.
pub(super) fn words(sql: &str) -> Vec<Word> {
    let tokens = lex::tokens(sql, Dialect::POSTGRES).unwrap_or_default();
    let mut all: Vec<Word> = Vec::new();
    let mut joins = false;
    for token in tokens.iter().filter(|token| token.kind != Kind::Blank) {
        let is_name = matches!(token.kind, Kind::Word | Kind::Quoted);
        match all.last_mut() {
            Some(last) if token.text == "." => {
                last.text.push('.');
                last.is_quoted = true;
                joins = true;
            }
            Some(last) if joins && is_name => {
                last.text.push_str(token.text);
                joins = false;
            }
            _ => {
                joins = false;
                all.push(Word {
                    text: token.text.to_owned(),
                    is_quoted: matches!(token.kind, Kind::Quoted | Kind::Literal),
                });
            }
        }
    }
    all
}

/// Where the reading stands.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'w>(pub(super) &'w [Word]);

impl<'w> Cursor<'w> {
    pub(super) fn is(self, keyword: &str) -> bool {
        self.0.first().is_some_and(|word| word.is(keyword))
    }

    /// Passes over these keywords where all of them stand here.
    pub(super) fn takes(&mut self, keywords: &[&str]) -> bool {
        let here = keywords
            .iter()
            .enumerate()
            .all(|(at, keyword)| self.0.get(at).is_some_and(|word| word.is(keyword)));
        if here {
            self.0 = self.0.get(keywords.len()..).unwrap_or_default();
        }
        here
    }

    /// Passes over any of these.
    pub(super) fn skips(&mut self, keywords: &[&str]) {
        while keywords.iter().any(|keyword| self.takes(&[keyword])) {}
    }

    /// Passes over `( … )`.
    pub(super) fn skips_parentheses(&mut self) {
        if !self.is("(") {
            return;
        }
        let mut depth = 0_usize;
        while let Some((word, rest)) = self.0.split_first() {
            self.0 = rest;
            match word.text.as_str() {
                "(" => depth += 1,
                ")" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    pub(super) fn name(&mut self) -> Option<String> {
        self.skips(&["IF", "NOT", "EXISTS", "ONLY"]);
        let (word, rest) = self.0.split_first()?;
        self.0 = rest;
        self.skips(&["*"]);
        Some(word.text.clone())
    }

    /// Names with commas between them, each with its columns.
    pub(super) fn names(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(name) = self.name() {
            all.push(name);
            self.skips_parentheses();
            if !self.takes(&[","]) {
                break;
            }
        }
        all
    }

    /// Whether these keywords stand anywhere behind, one after the other.
    pub(super) fn has(self, keywords: &[&str]) -> bool {
        self.behind(keywords).is_some()
    }

    /// What stands behind the first of these keywords.
    pub(super) fn behind(mut self, keywords: &[&str]) -> Option<Self> {
        while !self.0.is_empty() {
            if self.takes(keywords) {
                return Some(self);
            }
            self.0 = self.0.get(1..).unwrap_or_default();
        }
        None
    }

    /// Its parts between commas that stand in no parentheses.
    pub(super) fn parts(self) -> Vec<Self> {
        let mut depth = 0_usize;
        let mut all = Vec::new();
        let mut start = 0;
        for (at, word) in self.0.iter().enumerate() {
            match word.text.as_str() {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                "," if depth == 0 => {
                    all.push(Self(self.0.get(start..at).unwrap_or_default()));
                    start = at + 1;
                }
                _ => {}
            }
        }
        all.push(Self(self.0.get(start..).unwrap_or_default()));
        all
    }
}
