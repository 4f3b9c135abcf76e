use super::{Expr, ExprError, Vars, engine};
use crate::value::{SecretPart, SecretText, Value};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::{ops::Range, sync::Arc};

/// A value of the playbook in which `${{ }}` may stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// No expression inside.
    Literal(Value),
    /// `${{ expr }}` as a whole scalar: keeps its type.
    Expr(Expr),
    /// Text with expressions in it.
    Text(Vec<TemplatePart>),
    /// A list with an expression somewhere.
    List(Vec<Template>),
    /// A map with an expression somewhere.
    Map(IndexMap<String, Template>),
}

/// A piece of an interpolated text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplatePart {
    /// As it stands.
    Text(String),
    /// `${{ expr }}`.
    Expr(Expr),
}

impl Default for Template {
    fn default() -> Self {
        Self::Literal(Value::Null)
    }
}

/// Where the expressions of a scalar stand: the bytes between `${{` and `}}`, blanks included.
///
/// Braces, brackets and quotes inside an expression are seen, so `${{ #{ a: "}}" }.a }}` is one.
///
/// # Errors
/// Where a `${{` is never closed.
pub fn expression_ranges(text: &str) -> Result<Vec<Range<usize>>, ExprError> {
    let bytes = text.as_bytes();
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find("${{")) {
        let start = at + found + 3;
        let mut depth = 0_usize;
        let mut quote = None;
        let mut i = start;
        let end = loop {
            let Some(&byte) = bytes.get(i) else {
                return Err(ExprError::at(start - 3, "`${{` is never closed")
                    .with_help("close it with `}}`"));
            };
            match (quote, byte) {
                (Some(_), b'\\') => i += 1,
                (Some(open), _) if open == byte => quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => quote = Some(byte),
                (None, b'{') => depth += 1,
                (None, b'}') if depth > 0 => depth -= 1,
                (None, b'}') if bytes.get(i + 1) == Some(&b'}') => break i,
                (None, _) => {}
            }
            i += 1;
        };
        ranges.push(start..end);
        at = end + 2;
    }
    Ok(ranges)
}

impl Template {
    /// Reads a scalar of the playbook: a whole `${{ expr }}` keeps its type, inside text it is interpolated,
    /// and a text without any is a literal.
    ///
    /// # Errors
    /// Where an expression is wrong; the offset is the byte in `text`.
    pub fn parse_scalar(text: &str) -> Result<Self, ExprError> {
        let ranges = expression_ranges(text)?;
        let part = |range: &Range<usize>| -> Result<Expr, ExprError> {
            let inside = text.get(range.clone()).unwrap_or_default();
            let trimmed = inside.trim_start();
            let start = range.start + inside.len() - trimmed.len();
            Expr::parse(trimmed.trim_end()).map_err(|error| ExprError {
                offset: Some(start + error.offset.unwrap_or(0)),
                ..error
            })
        };
        match ranges.as_slice() {
            [] => Ok(Self::Literal(Value::text(text))),
            [whole]
                if text.trim_start().len() + whole.start == text.len() + 3
                    && whole.end + 2 == text.trim_end().len() =>
            {
                part(whole).map(Self::Expr)
            }
            several => {
                let mut parts = Vec::new();
                let mut from = 0;
                for range in several {
                    if let Some(plain) = text
                        .get(from..range.start - 3)
                        .filter(|plain| !plain.is_empty())
                    {
                        parts.push(TemplatePart::Text(plain.to_owned()));
                    }
                    parts.push(TemplatePart::Expr(part(range)?));
                    from = range.end + 2;
                }
                if let Some(plain) = text.get(from..).filter(|plain| !plain.is_empty()) {
                    parts.push(TemplatePart::Text(plain.to_owned()));
                }
                Ok(Self::Text(parts))
            }
        }
    }

    /// Every expression in it.
    pub fn expressions(&self) -> Vec<&Expr> {
        fn collect<'a>(template: &'a Template, into: &mut Vec<&'a Expr>) {
            match template {
                Template::Literal(_) => {}
                Template::Expr(expr) => into.push(expr),
                Template::Text(parts) => into.extend(parts.iter().filter_map(|part| match part {
                    TemplatePart::Expr(expr) => Some(expr),
                    TemplatePart::Text(_) => None,
                })),
                Template::List(items) => items.iter().for_each(|item| collect(item, into)),
                Template::Map(map) => map.values().for_each(|value| collect(value, into)),
            }
        }
        let mut all = Vec::new();
        collect(self, &mut all);
        all
    }

    /// Its value.
    ///
    /// # Errors
    /// Where an expression fails; the offset is within that expression, whose source the message names.
    pub fn evaluate(&self, vars: &Vars) -> Result<Value, ExprError> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Expr(expr) => evaluate(expr, vars),
            Self::Text(parts) => interpolate(parts, vars),
            Self::List(items) => Ok(Value::list(
                items
                    .iter()
                    .map(|item| item.evaluate(vars))
                    .collect::<Result<_, _>>()?,
            )),
            Self::Map(map) => {
                let mut values = crate::value::Map::with_capacity(map.len());
                for (key, value) in map {
                    values.insert(key.as_str().into(), value.evaluate(vars)?);
                }
                Ok(Value::Map(Arc::new(values)))
            }
        }
    }
}

fn evaluate(expr: &Expr, vars: &Vars) -> Result<Value, ExprError> {
    expr.evaluate(vars).map_err(|error| ExprError {
        message: format!("in `{}`: {}", expr.source(), error.message),
        ..error
    })
}

/// Text with values put in; where a secret is among them the whole stays a reference.
fn interpolate(parts: &[TemplatePart], vars: &Vars) -> Result<Value, ExprError> {
    let mut done: Vec<SecretPart> = Vec::with_capacity(parts.len());
    let mut secret = false;
    let mut push = |part: SecretPart| match (done.last_mut(), part) {
        (Some(SecretPart::Text(before)), SecretPart::Text(more)) => before.push_str(&more),
        (_, part) => done.push(part),
    };
    for part in parts {
        match part {
            TemplatePart::Text(text) => push(SecretPart::Text(text.clone())),
            TemplatePart::Expr(expr) => {
                let value = evaluate(expr, vars)?;
                if let Value::Secret(inner) = value {
                    secret = true;
                    inner.parts.iter().cloned().for_each(&mut push);
                    continue;
                }
                match engine::inside_text(&value) {
                    Ok(text) => push(SecretPart::Text(text)),
                    Err(trouble) => {
                        return Err(ExprError::at(
                            0,
                            format!("in `{}`: {}", expr.source(), trouble.message),
                        )
                        .maybe_help(trouble.help));
                    }
                }
            }
        }
    }
    if secret {
        return Ok(Value::Secret(Arc::new(SecretText { parts: done })));
    }
    Ok(match done.pop() {
        Some(SecretPart::Text(text)) => Value::text(text),
        Some(SecretPart::Secret(_)) | None => Value::text(""),
    })
}
