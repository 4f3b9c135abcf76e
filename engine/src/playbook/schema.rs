use crate::step::Registry;

/// The JSON Schema of a playbook file.
#[must_use]
pub fn schema(registry: &Registry) -> serde_json::Value {
    serde_json::json!({ "kinds": registry.kinds().map(|kind| kind.name).collect::<Vec<_>>() })
}
