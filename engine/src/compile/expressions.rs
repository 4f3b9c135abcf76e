//! Expressions of the file: bare ones, and those that stand in `${{ }}`.
use super::{references::Names, scope::Scoped, shape::Shape, values::With};
use crate::{
    diagnostic::{Diagnostic, codes},
    expr::{Expr, Template, TemplatePart},
    playbook::inputs,
    source::{Node, Range, Scalar, Style, before_comment, needs_quotes, quoted},
    value::Value,
};

impl<'s> Scoped<'s, '_, '_> {
    /// A bare expression, parsed and checked.
    pub(super) fn bare(&mut self, node: &'s Node, what: &str, names: &Names) -> Option<Expr> {
        let (expr, base) = self.parse_bare(node, what)?;
        self.check(&expr, node, base, names);
        Some(expr)
    }

    /// The items of a `foreach`: a bare expression, or a list of literals.
    pub(super) fn items(&mut self, node: &'s Node, names: &Names) -> Option<Expr> {
        if node.list().is_none() {
            return self.bare(node, "`items`", names);
        }
        let text = rhai_literal(&inputs::untyped(node));
        if text.contains("${{") {
            self.reader.error_help(
                codes::WRAPPED,
                node.range,
                "a list of items holds literals only",
                "write the list as one expression: \"[inputs.a, inputs.b]\"",
            );
            return None;
        }
        match Expr::parse(&text) {
            Ok(expr) => Some(expr),
            Err(error) => {
                self.reader
                    .error(codes::EXPRESSION, node.range, error.message);
                None
            }
        }
    }

    /// A bare expression, with the place in the node's text where it starts.
    pub(super) fn parse_bare(&mut self, node: &'s Node, what: &str) -> Option<(Expr, usize)> {
        let Some(scalar) = node.scalar().filter(|_| !node.is_null()) else {
            let fits = |text: &str| Expr::parse(text).is_ok();
            if !self.reader.swallowed(node, what, fits) {
                let range = crate::playbook::first_line(self.file, node.range);
                self.reader.error_help(
                    codes::EXPRESSION,
                    range,
                    format!("{what} must be an expression, not {}", node.type_name()),
                    "an expression that starts with `[` or `{` needs quotes around the whole",
                );
            }
            return None;
        };
        let text = &*scalar.text;
        let mut inner = text.trim();
        if let Some(start) = text.find("${{") {
            let stripped = inner
                .strip_prefix("${{")
                .and_then(|rest| rest.strip_suffix("}}"));
            let whole = stripped
                .map(str::trim)
                .filter(|inside| !inside.contains("${{"));
            let range = self.file.within(node, start, 3);
            let diagnostic = Diagnostic::error(
                codes::WRAPPED,
                self.file.span(range),
                format!("{what} holds an expression already, without `${{{{ }}}}`"),
            );
            let in_line = !matches!(scalar.style, Style::Literal | Style::Folded);
            self.reader.diagnostics.push(match whole {
                Some(inside) if in_line && !inside.contains('\n') => {
                    diagnostic.mended_by(node.range.bytes(), plain_or_quoted(inside))
                }
                Some(inside) => diagnostic.help(format!("write {what} without it: {inside}")),
                None => diagnostic.help(
                    "write the names bare, and text in quotes: steps.a.output.value > inputs.max",
                ),
            });
            inner = whole?;
        }
        let base = inner.as_ptr() as usize - text.as_ptr() as usize;
        match Expr::parse(inner) {
            Ok(expr) => Some((expr, base)),
            Err(error) => {
                if !self.cut(node, scalar) {
                    let offset = base + error.offset.unwrap_or(0);
                    let range = match error.offset {
                        Some(_) => self.file.within(node, offset, 1),
                        None => node.range,
                    };
                    self.expression_error(range, what, error);
                }
                None
            }
        }
    }

    fn expression_error(&mut self, range: Range, what: &str, error: crate::expr::ExprError) {
        let diagnostic = Diagnostic::error(
            codes::EXPRESSION,
            self.file.span(range),
            format!("{what} is not an expression: {}", error.message),
        );
        self.reader.diagnostics.push(match error.help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        });
    }

    /// Tells of a plain scalar that YAML ended at ` #`, if that is what happened.
    fn cut(&mut self, node: &Node, scalar: &Scalar) -> bool {
        if scalar.style != Style::Plain {
            return false;
        }
        let end = node.range.end as usize;
        let rest = self.file.rest_of_line(end);
        if !rest.trim_start().starts_with('#') || rest.starts_with('#') {
            return false;
        }
        // What the author wrote: up to a `#` that no quotes hold, or all of it.
        let line = |text: &'s str| {
            text.split('\n')
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let whole = self
            .file
            .slice(Range::new(node.range.start as usize, end + rest.len()));
        let last = whole.rfind('\n').map_or(0, |at| at + 1);
        let (lead, tail) = whole.split_at_checked(last).unwrap_or(("", whole));
        let held = lead.len() + tail.len() - tail.trim_start().len()
            + before_comment(tail.trim_start()).len();
        let candidates =
            [held, whole.trim_end().len()].map(|len| whole.get(..len).unwrap_or(whole));
        let meant = candidates
            .iter()
            .find(|text| text.len() > node.range.bytes().len() && Expr::parse(&line(text)).is_ok());
        let Some(text) = meant.or_else(|| {
            candidates
                .first()
                .filter(|text| text.len() > node.range.bytes().len())
        }) else {
            return false;
        };
        let start = end + rest.len() - rest.trim_start().len();
        let range = Range::new(
            node.range.start as usize,
            node.range.start as usize + text.len(),
        );
        let diagnostic = Diagnostic::error(
            codes::CUT_EXPRESSION,
            self.file.span(Range::new(start, range.end as usize)),
            "YAML takes this as a comment, so the expression ends before it",
        );
        let text = quoted(&line(text));
        self.reader.diagnostics.push(if meant.is_some() {
            diagnostic.mended_by(range.bytes(), text)
        } else {
            diagnostic.help(format!("write {text}"))
        });
        true
    }

    /// A scalar with `${{ }}` in it.
    pub(super) fn interpolated(
        &mut self,
        node: &'s Node,
        scalar: &Scalar,
        shape: &Shape,
        with: &mut With<'_>,
        what: &str,
    ) -> Template {
        let text = &*scalar.text;
        let ranges = match crate::expr::expression_ranges(text) {
            Ok(ranges) => ranges,
            Err(error) => {
                if !self.cut(node, scalar) {
                    let at = error.offset.unwrap_or(0);
                    let range = self.file.within(node, at, 3);
                    self.reader.error_help(
                        codes::UNCLOSED,
                        range,
                        "this `${{` has no `}}`",
                        "close the expression with `}}`",
                    );
                }
                return Template::default();
            }
        };
        if *shape == Shape::Sql {
            for range in &ranges {
                self.sql_expression(node, text, range);
            }
            return Template::default();
        }
        let mut parts = Vec::new();
        let mut from = 0;
        for range in &ranges {
            let plain = text.get(from..range.start.saturating_sub(3)).unwrap_or("");
            if !plain.is_empty() {
                parts.push(TemplatePart::Text(plain.to_owned()));
            }
            from = range.end + 2;
            let inside = text.get(range.clone()).unwrap_or("");
            let lead = inside.len() - inside.trim_start().len();
            let base = range.start + lead;
            match Expr::parse(inside.trim()) {
                Ok(expr) => {
                    self.check(&expr, node, base, with.names);
                    parts.push(TemplatePart::Expr(expr));
                }
                Err(error) => {
                    let at = base + error.offset.unwrap_or(0);
                    let place = self.file.within(node, at, 1);
                    self.expression_error(place, what, error);
                }
            }
        }
        let rest = text.get(from..).unwrap_or("");
        if !rest.is_empty() {
            parts.push(TemplatePart::Text(rest.to_owned()));
        }
        if *shape == Shape::Target {
            self.any_target = true;
            with.targets.push(with.path.clone());
        }
        let blank = |part: &TemplatePart| matches!(part, TemplatePart::Text(text) if text.trim().is_empty());
        let mut solid = parts.iter().filter(|part| !blank(part));
        if let (Some(TemplatePart::Expr(only)), None) = (solid.next(), solid.next()) {
            return Template::Expr(only.clone());
        }
        if matches!(shape, Shape::List(_) | Shape::Map(_)) {
            self.reader.error_help(
                codes::PARAM_TYPE,
                node.range,
                format!(
                    "{what} must be {}, and text around `${{{{ }}}}` makes it text",
                    shape.words()
                ),
                "write one `${{ }}` and nothing around it",
            );
        }
        Template::Text(parts)
    }

    fn sql_expression(&mut self, node: &Node, text: &str, range: &std::ops::Range<usize>) {
        let inside = text.get(range.clone()).unwrap_or("").trim();
        let name: String = inside
            .rsplit('.')
            .next()
            .unwrap_or("")
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let name = if name.is_empty() {
            "value".to_owned()
        } else {
            name
        };
        let place = self
            .file
            .within(node, range.start.saturating_sub(3), range.len() + 5);
        self.reader.error_help(
            codes::SQL_EXPRESSION,
            place,
            "`${{ }}` cannot stand inside SQL: values are bound by name",
            format!(
                "write `:{name}` here and bind it under `params:` as `{name}: ${{{{ {inside} }}}}`; an identifier is `:\"{name}\"`"
            ),
        );
    }
}

/// A text as a scalar that may stand anywhere, in braces too.
fn plain_or_quoted(text: &str) -> String {
    if needs_quotes(text) || text.contains(['{', '}', '[', ']', ',']) {
        quoted(text)
    } else {
        text.to_owned()
    }
}

/// A literal as the expression language writes it.
fn rhai_literal(value: &Value) -> String {
    match value {
        Value::Null => "()".to_owned(),
        Value::List(items) => {
            let all: Vec<String> = items.iter().map(rhai_literal).collect();
            format!("[{}]", all.join(", "))
        }
        Value::Map(map) => {
            let all: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{}: {}", text_literal(key), rhai_literal(value)))
                .collect();
            format!("#{{{}}}", all.join(", "))
        }
        Value::Text(text) => text_literal(text),
        Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Secret(_) => value.to_string(),
    }
}

fn text_literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
