//! temporary
use crate::{diagnostic::Diagnostic, graph::InputDecl, value::Value};
use indexmap::IndexMap;
pub(super) fn check_value(
    _d: &IndexMap<String, InputDecl>,
    g: &IndexMap<String, Value>,
) -> Result<Value, String> {
    Ok(Value::map(g.iter().map(|(k, v)| (k.clone(), v.clone()))))
}
pub(super) fn check(
    _d: &IndexMap<String, InputDecl>,
    g: &[(String, String)],
) -> Result<Value, Vec<Diagnostic>> {
    Ok(Value::map(
        g.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))),
    ))
}
