//! Expression source → tokens with their places, before rhai reads it.
use super::ExprError;
use crate::value::{Duration, Size};

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind<'a> {
    /// A name or a keyword.
    Word(&'a str),
    /// A plain number.
    Number(&'a str),
    /// `5s`, `1h30m`.
    Duration(&'a str),
    /// `20GiB`.
    Size(&'a str),
    /// Text, its escapes resolved.
    Text(String),
    /// An operator or a bracket.
    Op(&'static str),
}

/// A token and its first byte in the source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) start: usize,
}

impl Token<'_> {
    pub(super) fn is(&self, op: &str) -> bool {
        matches!(self.kind, Kind::Op(this) if this == op)
    }
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.kind, Kind::Word(this) if this == word)
    }
    /// Whether an operand may end here, so that what follows is a binary operator or an index.
    pub(super) fn ends_operand(&self) -> bool {
        match self.kind {
            Kind::Word(word) => !matches!(word, "if" | "else" | "in"),
            Kind::Number(_) | Kind::Duration(_) | Kind::Size(_) | Kind::Text(_) => true,
            Kind::Op(op) => matches!(op, ")" | "]" | "}"),
        }
    }
}

/// All operators of the language, the longer first.
const OPS: [&str; 31] = [
    "?.", "?[", "??", "&&", "||", "==", "!=", "<=", ">=", "#{", "(", ")", "[", "]", "{", "}", ",",
    ":", ".", "|", "!", "<", ">", "+", "-", "*", "/", "%", ";", "=", "&",
];

/// Reads the whole source.
pub(super) fn tokens(source: &str) -> Result<Vec<Token<'_>>, ExprError> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(first) = rest.chars().next() else {
            break;
        };
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (kind, len) = if first.is_ascii_alphabetic() || first == '_' {
            let len = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            (Kind::Word(head(rest, len)), len)
        } else if first.is_ascii_digit() {
            number(rest, at)?
        } else if first == '"' || first == '\'' {
            let (text, len) = text(rest, first, at)?;
            (Kind::Text(text), len)
        } else if first == '`' {
            return Err(ExprError::at(
                at,
                "a text is written in single or double quotes",
            ));
        } else if rest.starts_with("//") || rest.starts_with("/*") {
            return Err(ExprError::at(at, "a comment cannot stand in an expression")
                .with_help("write it in YAML, after ` # `, on a line of its own"));
        } else if let Some(op) = OPS.into_iter().find(|op| rest.starts_with(op)) {
            (Kind::Op(op), op.len())
        } else {
            return Err(ExprError::at(
                at,
                format!("`{first}` cannot stand in an expression"),
            ));
        };
        all.push(Token { kind, start: at });
        at += len;
    }
    Ok(all)
}

fn head(text: &str, len: usize) -> &str {
    text.get(..len).unwrap_or_default()
}

/// A number, a duration or a size: all that starts with a digit.
fn number(rest: &str, at: usize) -> Result<(Kind<'_>, usize), ExprError> {
    let bytes = rest.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    let mut len = 0;
    while let Some(&byte) = bytes.get(len) {
        let exponent_sign = (byte == b'+' || byte == b'-')
            && len > 0
            && matches!(bytes.get(len - 1), Some(b'e' | b'E'))
            && digit(len + 1)
            && head(rest, len - 1)
                .bytes()
                .all(|b| b.is_ascii_digit() || b == b'.' || b == b'_');
        let point = byte == b'.' && digit(len + 1);
        if byte.is_ascii_alphanumeric() || byte == b'_' || point || exponent_sign {
            len += 1;
        } else {
            break;
        }
    }
    let text = head(rest, len);
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'_')
        || (text.replace('_', "").parse::<f64>().is_ok()
            && text.matches('.').count() <= 1
            && !text.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E')));
    if plain {
        Ok((Kind::Number(text), len))
    } else if text.parse::<Duration>().is_ok() {
        Ok((Kind::Duration(text), len))
    } else if text.parse::<Size>().is_ok() {
        Ok((Kind::Size(text), len))
    } else {
        Err(ExprError::at(
            at,
            format!("`{text}` is not a number, a duration or a size"),
        )
        .with_help("write 5, 1.5, 30s, 1h30m or 20GiB; a text is written in quotes"))
    }
}

/// A text in quotes; its value and its length in the source.
fn text(rest: &str, quote: char, at: usize) -> Result<(String, usize), ExprError> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        if c == quote {
            return Ok((value, i + 1));
        }
        if c != '\\' {
            value.push(c);
            continue;
        }
        let bad = |what: &str| {
            ExprError::at(at + i, format!("`\\{what}` is not an escape of a text"))
                .with_help(format!("write `\\\\{what}` for a backslash"))
        };
        let Some((_, escape)) = chars.next() else {
            break;
        };
        match escape {
            'n' => value.push('\n'),
            'r' => value.push('\r'),
            't' => value.push('\t'),
            '\\' | '\'' | '"' => value.push(escape),
            'x' | 'u' | 'U' => {
                let digits = match escape {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let hex: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                let code = u32::from_str_radix(&hex, 16)
                    .ok()
                    .filter(|_| hex.len() == digits);
                value.push(
                    code.and_then(char::from_u32)
                        .ok_or_else(|| bad(&format!("{escape}{hex}")))?,
                );
            }
            other => return Err(bad(&other.to_string())),
        }
    }
    Err(ExprError::at(at, "this text has no closing quote"))
}
