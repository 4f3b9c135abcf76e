//! What playbooks mask: `evidence: { mask: [query] }`.
use crate::{
    graph::{Body, Graph},
    value::Value,
};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// What stands where something is masked.
const MASK: &str = "(masked)";

/// The names that any step of a run masks, in lower case. What one step reads others pass on, so a name is masked
/// wherever it appears.
pub(super) struct Masks(BTreeSet<String>);

impl Masks {
    /// Those of a graph.
    pub(super) fn of(graph: &Graph) -> Self {
        let names = graph.nodes.iter().filter_map(|node| match &node.body {
            Body::Step(step) => step.evidence.as_ref(),
            Body::Group { .. } | Body::Call(_) => None,
        });
        Self(
            names
                .flat_map(|evidence| &evidence.mask)
                .map(|name| name.to_lowercase())
                .collect(),
        )
    }

    /// A value with the masked keys covered.
    pub(super) fn value(&self, value: &Value) -> Value {
        if self.0.is_empty() {
            return value.clone();
        }
        match value {
            Value::List(items) => Value::list(items.iter().map(|item| self.value(item)).collect()),
            Value::Map(map) => Value::map(map.iter().map(|(key, value)| {
                let covered = if self.0.contains(&key.to_lowercase()) {
                    Value::text(MASK)
                } else {
                    self.value(value)
                };
                (key.clone(), covered)
            })),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Decimal(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Duration(_)
            | Value::Size(_)
            | Value::Timestamp(_)
            | Value::Bytes(_)
            | Value::Secret(_) => value.clone(),
        }
    }

    /// The same, as plain JSON.
    pub(super) fn json(&self, value: &Value) -> Json {
        self.value(value).to_plain_json()
    }
}

/// The entries of a map as plain JSON; none of anything else.
pub(super) fn map_of(value: &Value) -> BTreeMap<String, Json> {
    value
        .as_map()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.to_string(), value.to_plain_json()))
        .collect()
}
