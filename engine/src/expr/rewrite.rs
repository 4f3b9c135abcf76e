//! Tokens → the text that rhai compiles: one line, in which every token knows its place in the source.
//!
//! Texts become double-quoted, `5s` a call of `duration`, `.member` an index (so that no word is reserved
//! after a dot), and all that follows a `?.` in a chain gives `()` where something before it is `()`.
use super::{
    ExprError, helpers,
    lex::{Kind, Token},
};
use std::fmt::Write as _;

/// What rhai compiles.
pub(super) struct Rewritten {
    pub(super) text: String,
    /// First character in `text` of each token, and its first byte in the source.
    places: Vec<(usize, usize)>,
}

impl Rewritten {
    /// The byte in the source for a column (from 1) that rhai reports.
    pub(super) fn offset(&self, column: usize) -> usize {
        let at = self
            .places
            .partition_point(|(start, _)| *start < column.max(1));
        self.places
            .get(at.saturating_sub(1))
            .map_or(0, |(_, source)| *source)
    }
}

/// Member of a map; `()` where it has none.
pub(super) const OPTIONAL: &str = "__optional";
/// What `targets.NAME.reachable` reads, by the name of the target: a target itself is a text or a list, which has no members.
pub(crate) const REACHABLE: &str = "__reachable";
/// Member of a map.
pub(super) const MEMBER: &str = "__member";

const FORBIDDEN: [&str; 22] = [
    "let", "const", "while", "loop", "until", "do", "for", "fn", "return", "throw", "try", "catch",
    "import", "export", "switch", "this", "private", "global", "break", "continue", "eval", "as",
];

struct Writer {
    text: String,
    chars: usize,
    places: Vec<(usize, usize)>,
}

impl Writer {
    fn put(&mut self, source: usize, text: &str) {
        self.places.push((self.chars, source));
        self.chars += text.chars().count() + 1;
        self.text.push_str(text);
        self.text.push(' ');
    }
}

struct Open {
    op: &'static str,
    start: usize,
    /// Whether the chain that the bracket belongs to is optional.
    chain: bool,
    index: bool,
}

pub(super) fn rewrite(tokens: &[Token<'_>]) -> Result<Rewritten, ExprError> {
    let mut out = Writer {
        text: String::new(),
        chars: 0,
        places: Vec::with_capacity(tokens.len()),
    };
    let mut open: Vec<Open> = Vec::new();
    let mut chain = false;
    let mut i = 0;
    while let Some(token) = tokens.get(i) {
        let at = token.start;
        let after_operand = i > 0 && tokens[i - 1].ends_operand();
        let next = tokens.get(i + 1);
        i += 1;
        match &token.kind {
            Kind::Op(op @ ("." | "?.")) => {
                let Some(Token {
                    kind: Kind::Word(word),
                    start,
                }) = next
                else {
                    return Err(ExprError::at(
                        at,
                        "a member's name is missing after the dot",
                    ));
                };
                let optional = *op == "?.";
                if tokens.get(i + 1).is_some_and(|token| token.is("(")) {
                    check_call(word, *start)?;
                    out.put(at, if chain || optional { "?." } else { "." });
                    out.put(*start, word);
                } else if optional {
                    out.put(at, "?.");
                    out.put(*start, &format!("{OPTIONAL}({word:?})"));
                } else if chain {
                    out.put(at, "?.");
                    out.put(*start, &format!("{MEMBER}({word:?})"));
                } else {
                    out.put(*start, &format!("[{word:?}]"));
                }
                chain |= optional;
                i += 1;
            }
            Kind::Op("(") if !after_operand && next.is_some_and(|token| token.is(")")) => {
                out.put(at, "()");
                i += 1;
                chain = false;
            }
            Kind::Op(op @ ("[" | "?[" | "(" | "{" | "#{")) => {
                let index = matches!(*op, "[" | "?[") && after_operand;
                let call = *op == "(" && after_operand;
                let kept = (index || call) && (chain || *op == "?[");
                out.put(at, if index && kept { "?[" } else { op });
                open.push(Open {
                    op,
                    start: at,
                    chain: kept,
                    index,
                });
                chain = false;
            }
            Kind::Op(op @ (")" | "]" | "}")) => {
                let pair = open.pop().filter(|open| {
                    matches!(
                        (open.op, *op),
                        ("(", ")") | ("[" | "?[", "]") | ("{" | "#{", "}")
                    )
                });
                let Some(pair) = pair else {
                    return Err(ExprError::at(at, format!("`{op}` closes nothing")));
                };
                if pair.index && i >= 2 && tokens[i - 2].start == pair.start {
                    return Err(ExprError::at(at, "an index is missing"));
                }
                out.put(at, op);
                chain = pair.chain;
            }
            Kind::Op("!") if next.is_some_and(|token| token.is_word("in")) && after_operand => {
                out.put(at, "!in");
                i += 1;
                chain = false;
            }
            Kind::Op(op @ (";" | "=" | "&")) => {
                return Err(
                    ExprError::at(at, format!("`{op}` cannot stand in an expression")).maybe_help(
                        match *op {
                            "=" => Some("compare with `==`"),
                            "&" => Some("write `&&` for and"),
                            _ => None,
                        },
                    ),
                );
            }
            Kind::Op(op) => {
                out.put(at, op);
                chain = false;
            }
            Kind::Word("targets") if let Some((name, start)) = asks_reachable(&tokens[i..]) => {
                chain = false;
                out.put(at, REACHABLE);
                out.put(start, &format!("[{name:?}]"));
                i += 4;
            }
            Kind::Word(word) => {
                chain = false;
                let in_map = open.last().is_some_and(|open| open.op == "#{");
                if *word == "null" {
                    out.put(at, "()");
                } else if in_map && next.is_some_and(|token| token.is(":")) {
                    out.put(at, &format!("{word:?}"));
                } else if FORBIDDEN.contains(word) {
                    return Err(ExprError::at(
                        at,
                        format!("`{word}` cannot stand in an expression"),
                    ));
                } else {
                    if next.is_some_and(|token| token.is("("))
                        && !matches!(*word, "if" | "in" | "else")
                    {
                        check_call(word, at)?;
                    } else if word.starts_with("__") {
                        return Err(ExprError::at(at, format!("no name may be `{word}`")));
                    }
                    out.put(at, word);
                }
            }
            Kind::Number(number) => {
                chain = false;
                out.put(at, &number_text(number));
            }
            Kind::Duration(text) => {
                chain = false;
                out.put(at, &format!("duration({text:?})"));
            }
            Kind::Size(text) => {
                chain = false;
                out.put(at, &format!("size({text:?})"));
            }
            Kind::Text(text) => {
                chain = false;
                out.put(at, &quoted(text));
            }
        }
    }
    if let Some(open) = open.pop() {
        return Err(ExprError::at(
            open.start,
            format!("`{}` is never closed", open.op),
        ));
    }
    if out.places.is_empty() {
        return Err(ExprError::at(0, "an expression is missing"));
    }
    Ok(Rewritten {
        text: out.text,
        places: out.places,
    })
}

/// The target of `.NAME.reachable` after `targets`, and where its name stands.
fn asks_reachable<'a>(after: &[Token<'a>]) -> Option<(&'a str, usize)> {
    match after {
        [dot, name, member, reachable, ..]
            if dot.is(".") && member.is(".") && reachable.is_word("reachable") =>
        {
            match name.kind {
                Kind::Word(word) => Some((word, name.start)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Integers beyond 64 bits, and fractions that a float would not keep, are exact decimals.
fn number_text(number: &str) -> String {
    let plain = number.replace('_', "");
    let digits = plain.bytes().filter(u8::is_ascii_digit).count();
    let exact = if plain.contains(['.', 'e', 'E']) {
        digits <= 15 && plain.parse::<f64>().is_ok_and(f64::is_finite)
    } else {
        plain.parse::<i64>().is_ok()
    };
    if exact && plain.contains(['e', 'E']) {
        // rhai reads an exponent only after a point.
        let float: f64 = plain.parse().unwrap_or_default();
        format!("number({:?})", format!("{float}"))
    } else if exact {
        plain
    } else {
        format!("number({plain:?})")
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => {
                // Writing to a String cannot fail.
                if write!(out, "\\U{:08x}", u32::from(c)).is_err() {
                    out.push(c);
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn check_call(name: &str, at: usize) -> Result<(), ExprError> {
    if helpers::find(name).is_some() {
        return Ok(());
    }
    let near = super::nearest(name, helpers::names());
    Err(
        ExprError::at(at, format!("there is no function `{name}`")).maybe_help(
            near.map(|near| format!("did you mean `{near}`?"))
                .or_else(|| Some("`windlass explain expressions` lists all functions".to_owned())),
        ),
    )
}
