//! Tokens of SQL, as far as the engine must know them: where text is only text, and where a name is a parameter.

/// Where engines differ in how they write text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// `[name]` is an identifier.
    pub(crate) brackets: bool,
    /// `$tag$ … $tag$` is text.
    pub(crate) dollar_quotes: bool,
    /// A comment in a comment.
    pub(crate) nested_comments: bool,
    /// `\'` in a text.
    pub(crate) backslashes: bool,
    /// `#` starts a comment.
    pub(crate) hash_comments: bool,
    /// A carriage return ends a comment that a `--` began.
    pub(crate) return_ends_comments: bool,
    /// What stands before the number of a bound value.
    pub(crate) placeholder: char,
}

impl Dialect {
    /// What holds for every engine alike, for checks before the engine is known.
    pub(crate) const COMMON: Self = Self {
        brackets: true,
        dollar_quotes: true,
        nested_comments: false,
        backslashes: false,
        hash_comments: false,
        return_ends_comments: false,
        placeholder: '?',
    };
    /// PostgreSQL.
    pub(crate) const POSTGRES: Self = Self {
        brackets: false,
        nested_comments: true,
        return_ends_comments: true,
        placeholder: '$',
        ..Self::COMMON
    };
    /// SQLite.
    pub(crate) const SQLITE: Self = Self {
        dollar_quotes: false,
        ..Self::COMMON
    };
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// White space and comments.
    Blank,
    /// A bare word.
    Word,
    /// A literal: text or number.
    Literal,
    /// A quoted identifier.
    Quoted,
    /// `:name`.
    Value,
    /// `:"name"`.
    Identifier,
    /// `:'name'`.
    QuotedValue,
    /// `;`
    Semicolon,
    /// `(`
    Open,
    /// `)`
    Close,
    /// Anything else.
    Other,
}

/// A piece of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
}

impl<'a> Token<'a> {
    /// The name in `:name`, `:"name"` and `:'name'`.
    pub(crate) fn name(&self) -> &'a str {
        self.text.trim_matches(['\'', '"', ':'])
    }

    fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }
}

/// Text that cannot be cut into tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LexError {
    /// A quote or comment without its end.
    #[error("the {what} that begins on line {line} of the SQL has no end")]
    Unterminated { what: &'static str, line: usize },
    /// `E:'a'`.
    #[error(
        "{text} on line {line} of the SQL is directly behind a word, which would change how it is read; put a space between"
    )]
    Joined { text: String, line: usize },
    /// `:"a b"`.
    #[error("{text} on line {line} of the SQL is no parameter: its name must be a word")]
    Name { text: String, line: usize },
}

struct Lexer<'a> {
    sql: &'a str,
    bytes: &'a [u8],
    dialect: Dialect,
    at: usize,
}

/// Cuts SQL into tokens; all of them together are the text again.
pub(crate) fn tokens(sql: &str, dialect: Dialect) -> Result<Vec<Token<'_>>, LexError> {
    let mut lexer = Lexer {
        sql,
        bytes: sql.as_bytes(),
        dialect,
        at: 0,
    };
    let mut all: Vec<Token<'_>> = Vec::new();
    // A text goes on in the next line, with the escapes that it began with: `E'a'`, a line break, `'b\''`.
    let (mut in_escapes, mut on_next_line) = (false, false);
    while lexer.at < lexer.bytes.len() {
        let start = lexer.at;
        let begins = all
            .last()
            .is_some_and(|before| before.is("e") && dialect.dollar_quotes);
        let escapes = begins || in_escapes && on_next_line;
        let kind = lexer.next(escapes)?;
        let text = sql.get(start..lexer.at).unwrap_or_default();
        match kind {
            Kind::Literal => (in_escapes, on_next_line) = (escapes, false),
            Kind::Blank => on_next_line |= text.contains(['\n', '\r']),
            _ => (in_escapes, on_next_line) = (false, false),
        }
        let is_joined = all
            .last()
            .is_some_and(|before| before.kind == Kind::Word || before.text == "&");
        if is_joined && matches!(kind, Kind::QuotedValue | Kind::Identifier) {
            return Err(LexError::Joined {
                text: text.to_owned(),
                line: lexer.line(start),
            });
        }
        all.push(Token { kind, text });
    }
    Ok(all)
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn in_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit()
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn line(&self, at: usize) -> usize {
        1 + self
            .bytes
            .iter()
            .take(at)
            .filter(|byte| **byte == b'\n')
            .count()
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.at < self.bytes.len() && wanted(self.peek(0)) {
            self.at += 1;
        }
    }

    fn next(&mut self, escapes: bool) -> Result<Kind, LexError> {
        Ok(match (self.peek(0), self.peek(1)) {
            (byte, _) if byte.is_ascii_whitespace() => {
                self.skip(|byte| byte.is_ascii_whitespace());
                Kind::Blank
            }
            (b'-', b'-') => {
                let returns = self.dialect.return_ends_comments;
                self.skip(|byte| byte != b'\n' && !(returns && byte == b'\r'));
                Kind::Blank
            }
            (b'#', _) if self.dialect.hash_comments => {
                self.skip(|byte| byte != b'\n');
                Kind::Blank
            }
            (b'/', b'*') => {
                self.comment()?;
                Kind::Blank
            }
            (b'\'', _) => {
                self.quoted(b'\'', "text", escapes || self.dialect.backslashes)?;
                Kind::Literal
            }
            (b'"', _) => {
                self.quoted(b'"', "quoted name", false)?;
                Kind::Quoted
            }
            (b'`', _) => {
                self.quoted(b'`', "quoted name", false)?;
                Kind::Quoted
            }
            // `a[1]` and `a[:i]` are subscripts.
            (b'[', after)
                if self.dialect.brackets && starts_word(after) && self.brackets_hold_a_name() =>
            {
                let start = self.at;
                self.skip(|byte| byte != b']');
                if self.at >= self.bytes.len() {
                    return Err(LexError::Unterminated {
                        what: "[name]",
                        line: self.line(start),
                    });
                }
                self.at += 1;
                Kind::Quoted
            }
            (b'$', _) if self.dialect.dollar_quotes => {
                if self.dollar()? {
                    Kind::Literal
                } else {
                    self.at += 1;
                    Kind::Other
                }
            }
            (b':', b':' | b'=') => {
                self.at += 2;
                Kind::Other
            }
            (b':', quote @ (b'"' | b'\'')) => {
                let start = self.at;
                self.at += 1;
                self.quoted(quote, "parameter", false)?;
                let text = self.sql.get(start..self.at).unwrap_or_default();
                let name = text.trim_matches(['\'', '"', ':']).as_bytes();
                if !name.first().copied().is_some_and(starts_word)
                    || !name.iter().copied().all(in_word)
                {
                    return Err(LexError::Name {
                        text: text.to_owned(),
                        line: self.line(start),
                    });
                }
                if quote == b'"' {
                    Kind::Identifier
                } else {
                    Kind::QuotedValue
                }
            }
            (b':', after) if starts_word(after) => {
                self.at += 1;
                self.skip(in_word);
                Kind::Value
            }
            (b';', _) => self.one(Kind::Semicolon),
            (b'(', _) => self.one(Kind::Open),
            (b')', _) => self.one(Kind::Close),
            (byte, _) if byte.is_ascii_digit() => {
                self.skip(|byte| in_word(byte) || byte == b'.');
                Kind::Literal
            }
            (byte, _) if starts_word(byte) => {
                self.skip(|byte| in_word(byte) || byte == b'$');
                Kind::Word
            }
            _ => self.one(Kind::Other),
        })
    }

    /// `[a name]`, but not `[a, :b]` and `[a + 1]`, which are elements and subscripts.
    fn brackets_hold_a_name(&self) -> bool {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        let name = rest.split(|byte| *byte == b']').next().unwrap_or_default();
        !name
            .iter()
            .any(|byte| matches!(byte, b',' | b'+' | b'*' | b'/' | b'(' | b'\''))
    }

    fn one(&mut self, kind: Kind) -> Kind {
        self.at += 1;
        kind
    }

    fn comment(&mut self) -> Result<(), LexError> {
        let start = self.at;
        let mut depth = 0_usize;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') if depth == 0 || self.dialect.nested_comments => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => self.at += 1,
            }
        }
        Err(LexError::Unterminated {
            what: "comment",
            line: self.line(start),
        })
    }

    fn quoted(&mut self, quote: u8, what: &'static str, escapes: bool) -> Result<(), LexError> {
        let start = self.at;
        self.at += 1;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'\\', _) if escapes => self.at += 2,
                (byte, after) if byte == quote && after == quote => self.at += 2,
                (byte, _) if byte == quote => {
                    self.at += 1;
                    return Ok(());
                }
                _ => self.at += 1,
            }
        }
        self.at = self.bytes.len();
        Err(LexError::Unterminated {
            what,
            line: self.line(start),
        })
    }

    /// Reads a dollar quote, if one begins here.
    fn dollar(&mut self) -> Result<bool, LexError> {
        let start = self.at;
        let rest = self.bytes.get(start + 1..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == b'$') else {
            return Ok(false);
        };
        let tag = rest.get(..length).unwrap_or_default();
        if tag.first().is_some_and(|byte| !starts_word(*byte)) || !tag.iter().copied().all(in_word)
        {
            return Ok(false);
        }
        let fence = self
            .bytes
            .get(start..start + length + 2)
            .unwrap_or_default();
        let body = start + length + 2;
        let end = self
            .bytes
            .get(body..)
            .unwrap_or_default()
            .windows(fence.len())
            .position(|window| window == fence);
        match end {
            Some(end) => {
                self.at = body + end + fence.len();
                Ok(true)
            }
            None => Err(LexError::Unterminated {
                what: "dollar quote",
                line: self.line(start),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::shape::split, *};

    fn names(sql: &str) -> Vec<String> {
        tokens(sql, Dialect::COMMON)
            .expect("lexes")
            .iter()
            .filter(|token| {
                matches!(
                    token.kind,
                    Kind::Value | Kind::Identifier | Kind::QuotedValue
                )
            })
            .map(|token| token.text.to_owned())
            .collect()
    }

    #[test]
    fn parameters_are_found_only_where_they_are_parameters() {
        for (sql, wanted) in [
            ("SELECT :a, :b_1", &[":a", ":b_1"][..]),
            (
                "SELECT ':a', ''':b', \"x:c\", `d:d`, [e :e] FROM t WHERE f = :f",
                &[":f"],
            ),
            ("-- :no\nSELECT /* :no ' */ :yes -- ' :no", &[":yes"]),
            (
                "SELECT a::text, x := :v, $$ :no $$, $t$ :no $$ $t$, :last",
                &[":v", ":last"],
            ),
            (
                "SELECT * FROM :\"tab\" WHERE x IN (:list)",
                &[":\"tab\"", ":list"],
            ),
            ("VACUUM INTO :'path'", &[":'path'"]),
            ("SELECT a[1], a[:i], a[2:3], '10:30', 12:3", &[":i"]),
            ("SELECT E'it\\' :no', :yes", &[":yes"]),
            ("SELECT 'ünï:no' || :ünï", &[":ünï"]),
            ("SELECT 1 :", &[]),
            ("SELECT ARRAY[i, :a], b[i + :c]", &[":a", ":c"]),
        ] {
            assert_eq!(names(sql), wanted, "{sql}");
            let all = tokens(sql, Dialect::COMMON).expect("lexes");
            assert_eq!(
                all.iter().map(|token| token.text).collect::<String>(),
                sql,
                "tokens are the text"
            );
        }
    }

    #[test]
    fn what_postgresql_reads_as_two_statements_is_two() {
        for sql in [
            "SELECT E'a'\n'b\\'' ; COMMIT; --'",
            "SELECT e'a' -- x\n 'b\\'' ; COMMIT; --'",
            "SELECT true -- x\r; COMMIT; --\n AND true",
        ] {
            let all = tokens(sql, Dialect::POSTGRES).expect("lexes");
            assert!(split(&all).len() > 1, "{sql:?}");
        }
        for sql in [
            "SELECT E:'a'",
            "SELECT U&:'a'",
            "SELECT U&:\"a\"",
            "SELECT x:'a'",
        ] {
            assert!(
                matches!(
                    tokens(sql, Dialect::POSTGRES),
                    Err(LexError::Joined { line: 1, .. })
                ),
                "{sql}"
            );
        }
    }

    #[test]
    fn what_has_no_end_is_told_with_its_line() {
        for (sql, line) in [
            ("SELECT 'a", 1),
            ("SELECT 1;\n/* x", 2),
            ("\n\n\"x", 3),
            ("$q$ x", 1),
            ("SELECT [a", 1),
        ] {
            match tokens(sql, Dialect::COMMON) {
                Err(LexError::Unterminated { line: seen, .. }) => assert_eq!(seen, line, "{sql}"),
                other => panic!("{sql}: {other:?}"),
            }
        }
        assert!(matches!(
            tokens("SELECT :\"a b\"", Dialect::COMMON),
            Err(LexError::Name { .. })
        ));
    }
}
