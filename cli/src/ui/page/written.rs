//! Parameters as they are written in the playbook.
use crate::ui::one_line;
use windlass_engine::{
    expr::{Template, TemplatePart},
    value::Value,
};

/// In one line; SQL stands before everything else.
pub(super) fn written(template: &Template) -> String {
    type Pairs = Vec<(String, String)>;
    let pairs: Pairs = match template {
        Template::Map(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), inner(value)))
            .collect(),
        Template::Literal(Value::Map(map)) => map
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        other => return inner(other),
    };
    let (sql, rest): (Pairs, Pairs) = pairs.into_iter().partition(|(key, _)| key == "sql");
    let rest: Vec<String> = rest
        .into_iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    match sql.first() {
        Some((_, sql)) => format!("{}  ({})", one_line(sql), rest.join(", ")),
        None => rest.join(", "),
    }
}

fn inner(template: &Template) -> String {
    match template {
        Template::Literal(value) => value.to_string(),
        Template::Expr(expr) => format!("${{{{ {} }}}}", expr.source()),
        Template::Text(parts) => parts
            .iter()
            .map(|part| match part {
                TemplatePart::Text(text) => text.clone(),
                TemplatePart::Expr(expr) => format!("${{{{ {} }}}}", expr.source()),
            })
            .collect(),
        Template::List(items) => {
            let items: Vec<String> = items.iter().map(inner).collect();
            format!("[{}]", items.join(", "))
        }
        Template::Map(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}: {}", inner(value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}
