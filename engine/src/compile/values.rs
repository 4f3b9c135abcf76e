//! Values of the file read by the shape that is expected at their place.
use super::{
    references::Names,
    scope::Scoped,
    shape::{Fields, Shape},
};
use crate::{
    diagnostic::{Diagnostic, codes, nearest, suggest},
    expr::{Expr, Template},
    playbook::inputs,
    source::{Map, Node, NodeKind, Range, Scalar, Style},
    value::{Duration, Size, Value},
};
use indexmap::IndexMap;

/// What is collected while parameters are read.
pub(super) struct With<'n> {
    pub(super) names: &'n Names,
    /// Bare expressions among the parameters.
    pub(super) expressions: Vec<Expr>,
    /// Where names of targets stand.
    pub(super) targets: Vec<Vec<String>>,
    /// Keys and positions from the root to the value that is read.
    pub(super) path: Vec<String>,
}

impl<'n> With<'n> {
    pub(super) fn new(names: &'n Names) -> Self {
        Self {
            names,
            expressions: Vec::new(),
            targets: Vec::new(),
            path: Vec::new(),
        }
    }
}

impl<'s> Scoped<'s, '_, '_> {
    /// A value by its shape.
    pub(super) fn template(
        &mut self,
        node: &'s Node,
        shape: &Shape,
        with: &mut With<'_>,
        what: &str,
    ) -> Template {
        let shape = if let Shape::OneOf(shapes) = shape {
            let mut solid = shapes.iter().filter(|shape| **shape != Shape::Null);
            let only = solid
                .next()
                .filter(|_| solid.next().is_none() && !node.is_null());
            let Some(shape) = only.or_else(|| choose(node, shapes)) else {
                self.param_type(node, shape, what);
                return Template::default();
            };
            shape
        } else {
            shape
        };
        match (&node.kind, shape) {
            (NodeKind::Scalar(_), Shape::Expression { names }) => {
                let names = with.names.with_extra(names);
                match self.bare(node, what, &names) {
                    Some(expr) => {
                        let text = Value::text(expr.source());
                        with.expressions.push(expr);
                        Template::Literal(text)
                    }
                    None => Template::default(),
                }
            }
            (NodeKind::Scalar(scalar), shape) if scalar.text.contains("${{") => {
                self.interpolated(node, scalar, shape, with, what)
            }
            (NodeKind::Scalar(_), shape) if node.is_null() => {
                if !matches!(shape, Shape::Any | Shape::Null) {
                    self.param_type(node, shape, what);
                } else if matches!(shape, Shape::Any) && self.reader.swallowed(node, what, |_| true)
                {
                    return Template::default();
                }
                Template::Literal(Value::Null)
            }
            (NodeKind::Scalar(scalar), shape) => Template::Literal(
                self.literal(node, scalar, shape, with, what)
                    .unwrap_or_default(),
            ),
            (NodeKind::List(items), Shape::List(inner)) => {
                self.list_template(items, inner, with, what)
            }
            (NodeKind::List(items), Shape::Any) => {
                self.list_template(items, &Shape::Any, with, what)
            }
            (NodeKind::Map(map), Shape::Map(fields)) => {
                let first = crate::playbook::first_line(self.file, node.range);
                self.map_template(map, fields, with, what, first)
            }
            (NodeKind::Map(map), Shape::Any) => {
                let any = Fields {
                    known: IndexMap::new(),
                    rest: Some(Box::new(Shape::Any)),
                };
                self.map_template(map, &any, with, what, node.range)
            }
            (NodeKind::List(_) | NodeKind::Map(_), shape) => {
                self.param_type(node, shape, what);
                Template::default()
            }
        }
    }

    fn list_template(
        &mut self,
        items: &'s [Node],
        shape: &Shape,
        with: &mut With<'_>,
        what: &str,
    ) -> Template {
        let mut all = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            with.path.push(at.to_string());
            all.push(self.template(item, shape, with, what));
            with.path.pop();
        }
        list_of(all)
    }

    /// A map with the members of a struct.
    pub(super) fn map_template(
        &mut self,
        map: &'s Map,
        fields: &Fields,
        with: &mut With<'_>,
        what: &str,
        range: Range,
    ) -> Template {
        let mut all = IndexMap::with_capacity(map.entries.len());
        for entry in &map.entries {
            if let Some(template) = self.field(entry, fields, with, what) {
                all.insert(entry.key.to_string(), template);
            }
        }
        for (name, field) in &fields.known {
            if field.required && map.get(name).is_none() {
                self.missing_param(range, name, what);
            }
        }
        map_of(all)
    }

    /// One member; `None` where there is no such member.
    pub(super) fn field(
        &mut self,
        entry: &'s crate::source::Entry,
        fields: &Fields,
        with: &mut With<'_>,
        what: &str,
    ) -> Option<Template> {
        if entry.key.contains("${{") {
            self.reader.error_help(
                codes::NOT_LITERAL,
                entry.key_range,
                "the name of a parameter cannot be computed",
                "write the name itself, or compute the whole map: `${{ … }}`",
            );
            return None;
        }
        let shape = match (fields.known.get(&*entry.key), &fields.rest) {
            (Some(field), _) => &field.shape,
            (None, Some(rest)) => rest,
            (None, None) => {
                let diagnostic = Diagnostic::error(
                    codes::UNKNOWN_PARAM,
                    self.file.span(entry.key_range),
                    format!("{what} has no parameter `{}`", entry.key),
                );
                let help = suggest(&entry.key, fields.known.keys().map(String::as_str));
                self.reader.diagnostics.push(match help {
                    Some(help) => diagnostic.help(help),
                    None => diagnostic,
                });
                return None;
            }
        };
        with.path.push(entry.key.to_string());
        let template = self.template(&entry.value, shape, with, &format!("`{}`", entry.key));
        with.path.pop();
        Some(template)
    }

    pub(super) fn missing_param(&mut self, range: Range, name: &str, what: &str) {
        self.reader.error_help(
            codes::MISSING_PARAM,
            range,
            format!("{what} needs the parameter `{name}`"),
            format!("add `{name}:`"),
        );
    }

    fn param_type(&mut self, node: &Node, shape: &Shape, what: &str) {
        let is_text = !matches!(shape, Shape::List(_) | Shape::Map(_));
        if is_text && self.reader.swallowed(node, what, |_| true) {
            return;
        }
        let range = crate::playbook::first_line(self.file, node.range);
        let expected = shape.words();
        let stands = match node.scalar() {
            Some(scalar) if !node.is_null() => format!("`{}`", scalar.text.trim()),
            _ => node.type_name().to_owned(),
        };
        self.reader.diagnostics.push(
            Diagnostic::error(
                codes::PARAM_TYPE,
                self.file.span(range),
                format!("{what} must be {expected}, not {stands}"),
            )
            .label(format!("expected {expected}")),
        );
    }

    fn literal(
        &mut self,
        node: &Node,
        scalar: &Scalar,
        shape: &Shape,
        with: &mut With<'_>,
        what: &str,
    ) -> Option<Value> {
        let text = &*scalar.text;
        let value = match shape {
            Shape::Any => Some(inputs::untyped(node)),
            Shape::Sql | Shape::Text | Shape::String => Some(Value::text(text)),
            Shape::Target => {
                self.use_target_in(text, node.range, with.names);
                with.targets.push(with.path.clone());
                return Some(Value::text(text));
            }
            Shape::Duration => text.parse::<Duration>().ok().map(Value::from),
            Shape::Size => text.parse::<Size>().ok().map(Value::from),
            Shape::Words(words) => {
                if words.iter().any(|word| word == text) {
                    return Some(Value::text(text));
                }
                let diagnostic = Diagnostic::error(
                    codes::NOT_ALLOWED,
                    self.file.span(node.range),
                    format!("{what} cannot be `{text}`"),
                )
                .label(format!("expected {}", shape.words()));
                self.reader.diagnostics.push(
                    match nearest(text, words.iter().map(String::as_str)) {
                        Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                        None => diagnostic,
                    },
                );
                return None;
            }
            Shape::Integer { min, max } => {
                let int = text.parse::<i64>().ok();
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a limit that is told, not a sum"
                )]
                let outside = int.is_some_and(|int| {
                    min.is_some_and(|min| (int as f64) < min)
                        || max.is_some_and(|max| int as f64 > max)
                });
                if outside {
                    let least = min.map(|min| format!("at least {min}"));
                    let most = max.map(|max| format!("at most {max}"));
                    let limits: Vec<String> = least.into_iter().chain(most).collect();
                    self.reader.error(
                        codes::NUMBER,
                        node.range,
                        format!("{what} must be {}, not {text}", limits.join(" and ")),
                    );
                    return None;
                }
                int.map(Value::Int)
            }
            Shape::Number => text.parse::<i64>().map(Value::Int).ok().or_else(|| {
                text.parse::<f64>()
                    .ok()
                    .filter(|x| x.is_finite())
                    .map(Value::Float)
            }),
            Shape::Boolean => return self.reader.boolean(node, what).map(Value::Bool),
            Shape::Null
            | Shape::List(_)
            | Shape::Map(_)
            | Shape::OneOf(_)
            | Shape::Expression { .. } => None,
        };
        if value.is_none() {
            let help = if matches!(shape, Shape::Duration) {
                text.parse::<Duration>()
                    .err()
                    .map(|error| error.to_string())
            } else if matches!(shape, Shape::Size) {
                text.parse::<Size>().err().map(|error| error.to_string())
            } else {
                None
            };
            match help {
                Some(message) => {
                    let range = node.range;
                    self.reader
                        .error(codes::PARAM_TYPE, range, format!("{what}: {message}"));
                }
                None => self.param_type(node, shape, what),
            }
        }
        value
    }
}

/// A list, literal where all of it is.
fn list_of(all: Vec<Template>) -> Template {
    if all.iter().all(|one| matches!(one, Template::Literal(_))) {
        Template::Literal(Value::list(
            all.into_iter().filter_map(into_literal).collect(),
        ))
    } else {
        Template::List(all)
    }
}

/// A map, literal where all of it is.
pub(super) fn map_of(all: IndexMap<String, Template>) -> Template {
    if all.values().all(|one| matches!(one, Template::Literal(_))) {
        let pairs = all
            .into_iter()
            .filter_map(|(key, one)| Some((key, into_literal(one)?)));
        Template::Literal(Value::map(pairs))
    } else {
        Template::Map(all)
    }
}

fn into_literal(template: Template) -> Option<Value> {
    match template {
        Template::Literal(value) => Some(value),
        Template::Expr(_) | Template::Text(_) | Template::List(_) | Template::Map(_) => None,
    }
}

/// The literal parts of a template; what is computed is left out of maps and null in lists.
pub(super) fn literal_parts(template: &Template) -> Value {
    match template {
        Template::Literal(value) => value.clone(),
        Template::Expr(_) | Template::Text(_) => Value::Null,
        Template::List(items) => Value::list(items.iter().map(literal_parts).collect()),
        Template::Map(map) => Value::map(
            map.iter()
                .filter(|(_, one)| !matches!(one, Template::Expr(_) | Template::Text(_)))
                .map(|(key, one)| (key.as_str(), literal_parts(one))),
        ),
    }
}

/// The alternative that fits best what is written.
fn choose<'a>(node: &Node, shapes: &'a [Shape]) -> Option<&'a Shape> {
    let fits = |shape: &Shape| -> Option<i64> {
        match (&node.kind, shape) {
            (_, Shape::Any) => Some(1),
            (NodeKind::Scalar(scalar), shape) => scalar_fit(node, scalar, shape),
            (NodeKind::List(_), Shape::List(_)) => Some(10),
            (NodeKind::Map(map), Shape::Map(fields)) => Some(map_fit(map, fields)),
            (NodeKind::List(_) | NodeKind::Map(_), _) => None,
        }
    };
    let scored = shapes
        .iter()
        .filter_map(|shape| fits(shape).map(|score| (score, shape)));
    // The first of the best.
    scored
        .fold(
            None,
            |best: Option<(i64, &Shape)>, (score, shape)| match best {
                Some((high, _)) if high >= score => best,
                _ => Some((score, shape)),
            },
        )
        .map(|(_, shape)| shape)
}

fn scalar_fit(node: &Node, scalar: &Scalar, shape: &Shape) -> Option<i64> {
    let text = &*scalar.text;
    if node.is_null() {
        return (*shape == Shape::Null).then_some(10);
    }
    let computed = text.contains("${{");
    let plain = scalar.style == Style::Plain;
    match shape {
        Shape::Words(words) => words
            .iter()
            .any(|word| word == text)
            .then_some(9)
            .or(Some(0)),
        Shape::Boolean => (plain && matches!(text, "true" | "false")).then_some(8),
        Shape::Integer { .. } => (plain && text.parse::<i64>().is_ok()).then_some(7),
        Shape::Number => (plain && text.parse::<f64>().is_ok()).then_some(6),
        Shape::Duration => text.parse::<Duration>().is_ok().then_some(5),
        Shape::Size => text.parse::<Size>().is_ok().then_some(5),
        Shape::Sql | Shape::Target | Shape::Expression { .. } | Shape::Text | Shape::String => {
            Some(3)
        }
        // A list or map may be computed as a whole.
        Shape::List(_) | Shape::Map(_) => computed.then_some(2),
        Shape::Null | Shape::Any | Shape::OneOf(_) => None,
    }
}

fn map_fit(map: &Map, fields: &Fields) -> i64 {
    let mut score = 0;
    for (name, field) in &fields.known {
        let value = map.get(name);
        match (&field.shape, value.and_then(Node::scalar)) {
            (Shape::Words(words), Some(scalar)) if words.len() == 1 => {
                let same = words.first().is_some_and(|word| **word == *scalar.text);
                score += if same { 100 } else { -100 };
            }
            _ if value.is_some() => score += 10,
            _ if field.required => score -= 5,
            _ => {}
        }
    }
    let unknown = map
        .entries
        .iter()
        .filter(|entry| !fields.known.contains_key(&*entry.key))
        .count();
    if fields.rest.is_none() {
        score -= 8 * i64::try_from(unknown).unwrap_or(0);
    }
    score
}
