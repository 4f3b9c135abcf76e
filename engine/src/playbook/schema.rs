use super::file::{CallWith, PlaybookFile};
use crate::step::Registry;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value as Json, json};

/// Any text with an expression in it.
const COMPUTED: &str = r"\$\{\{";

/// The JSON Schema (draft 2020-12) of a playbook file, in which the `with` of a step is checked by the
/// kind that its `uses` names. Every playbook that compiles fits it; what only the compiler knows
/// (references, order, what `defaults` supply) it lets pass.
#[must_use]
pub fn schema(registry: &Registry) -> Json {
    let mut root = schema_of::<PlaybookFile>();
    let mut kinds = vec![json!({
        "const": "playbook",
        "description": "Another playbook, as a scope of this run."
    })];
    let mut defs = Map::new();
    let call = schema_of::<CallWith>();
    let mut rules = vec![rule("playbook", &strip(call, &mut defs))];
    // A call is the compiler's own; its kind in the registry is there for its page.
    for kind in registry.kinds().filter(|kind| kind.name != "playbook") {
        let mut params = (kind.params_schema)();
        let description = params.get("description").cloned();
        let name = format!("with {}", kind.name);
        let pointer = format!("#/$defs/{}", name.replace('~', "~0").replace('/', "~1"));
        relocate(&mut params, &pointer);
        let mut params = params.as_object().map(inside).unwrap_or_default();
        // `defaults` may supply any of them.
        for key in ["required", "$schema", "title"] {
            params.remove(key);
        }
        defs.insert(name, Json::Object(params));
        rules.push(rule(
            kind.name,
            &json!({ "$ref": pointer.replace(' ', "%20") }),
        ));
        let mut one = json!({ "const": kind.name });
        if let (Some(one), Some(description)) = (one.as_object_mut(), description) {
            one.insert("description".to_owned(), description);
        }
        kinds.push(one);
    }
    let Some(object) = root.as_object_mut() else {
        return root;
    };
    object.insert(
        "$id".to_owned(),
        json!("https://windlass.dev/schemas/playbook.schema.json"),
    );
    object.insert("title".to_owned(), json!("Windlass playbook"));
    if let Some(Json::Object(own)) = object.get_mut("$defs") {
        for name in ["Step", "UndoStep", "Probe"] {
            let Some(Json::Object(step)) = own.get_mut(name) else {
                continue;
            };
            if let Some(uses) = step
                .get_mut("properties")
                .and_then(|all| all.get_mut("uses"))
            {
                let description = uses.get("description").cloned();
                *uses = json!({ "oneOf": kinds, "description": description });
            }
            step.insert("allOf".to_owned(), Json::Array(rules.clone()));
            match name {
                "Step" => step.insert("oneOf".to_owned(), either("uses", "steps")),
                "Probe" => step.insert("oneOf".to_owned(), either("sql", "uses")),
                _ => None,
            };
        }
        own.extend(defs);
    }
    root
}

fn either(one: &str, other: &str) -> Json {
    json!([{ "required": [one] }, { "required": [other] }])
}

fn rule(kind: &str, with: &Json) -> Json {
    json!({
        "if": { "properties": { "uses": { "const": kind } }, "required": ["uses"] },
        "then": { "properties": { "with": with } }
    })
}

fn schema_of<T: JsonSchema>() -> Json {
    SchemaGenerator::new(SchemaSettings::draft2020_12())
        .into_root_schema_for::<T>()
        .to_value()
}

/// Takes the definitions out of a schema.
fn strip(mut schema: Json, defs: &mut Map<String, Json>) -> Json {
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.remove("title");
        if let Some(Json::Object(own)) = object.remove("$defs") {
            defs.extend(own);
        }
    }
    schema
}

/// References of a recursive kind point into its own definition.
fn relocate(schema: &mut Json, pointer: &str) {
    match schema {
        Json::Object(object) => {
            for (key, value) in object.iter_mut() {
                if key == "$ref"
                    && let Some(rest) = value.as_str().and_then(|text| text.strip_prefix('#'))
                {
                    *value = Json::String(format!("{}{rest}", pointer.replace(' ', "%20")));
                } else {
                    relocate(value, pointer);
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| relocate(item, pointer)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// The schema of a parameter as it may be written: computed by `${{ }}`, or a scalar that the declared
/// type reads although YAML types it otherwise.
fn loosened(schema: &Json) -> Json {
    let Some(object) = schema.as_object() else {
        return schema.clone();
    };
    let mut out = inside(object);
    let marker = object.get("x-windlass").and_then(Json::as_str);
    let types: Vec<&str> = match object.get("type") {
        Some(Json::String(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    };
    let words = object.contains_key("enum") || object.contains_key("const");
    match marker {
        Some("value" | "duration" | "size") => return Json::Object(out),
        Some("sql" | "target" | "text" | "expression") => {
            widen(&mut out, &types);
            return Json::Object(out);
        }
        _ => {}
    }
    if types == ["string"] && !words && !object.contains_key("pattern") {
        widen(&mut out, &types);
        return Json::Object(out);
    }
    let plain = match types.as_slice() {
        _ if words => Some(COMPUTED.to_owned()),
        [] => None,
        names if names.contains(&"integer") => Some(format!("^-?[0-9]+$|{COMPUTED}")),
        names if names.contains(&"number") => Some(format!("^-?[0-9][0-9.eE+-]*$|{COMPUTED}")),
        names if names.contains(&"boolean") => Some(format!("^(true|false)$|{COMPUTED}")),
        _ => Some(COMPUTED.to_owned()),
    };
    match plain {
        None => Json::Object(out),
        Some(pattern) => {
            let mut whole = Map::new();
            // Where an editor looks for it.
            if let Some(description) = out.remove("description") {
                whole.insert("description".to_owned(), description);
            }
            let computed = json!({ "type": "string", "pattern": pattern });
            whole.insert("anyOf".to_owned(), json!([Json::Object(out), computed]));
            Json::Object(whole)
        }
    }
}

/// A schema with all that it holds loosened.
fn inside(object: &Map<String, Json>) -> Map<String, Json> {
    let mut out = Map::new();
    for (key, value) in object {
        let value = match (key.as_str(), value) {
            ("properties" | "$defs" | "patternProperties", Json::Object(members)) => {
                let all = members
                    .iter()
                    .map(|(name, schema)| (name.clone(), loosened(schema)));
                Json::Object(all.collect())
            }
            ("items" | "additionalProperties", schema) => loosened(schema),
            ("anyOf" | "oneOf" | "allOf", Json::Array(variants)) => {
                variants.iter().map(loosened).collect()
            }
            _ => value.clone(),
        };
        // A computed variant fits every alternative, so "exactly one" cannot be asked.
        let key = if key == "oneOf" { "anyOf" } else { key };
        out.insert(key.to_owned(), value);
    }
    out
}

/// Text is read as it is written, so a number or a boolean is text too.
fn widen(out: &mut Map<String, Json>, types: &[&str]) {
    let mut all = vec!["string", "number", "boolean"];
    if types.contains(&"null") {
        all.push("null");
    }
    out.insert("type".to_owned(), json!(all));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compile::tests::fakes,
        playbook::{PLAYBOOK_KEYS, STEP_KEYS, document, inputs, steps},
        source::SourceTree,
    };

    fn keys(schema: &Json, name: &str) -> Vec<String> {
        let at = if name.is_empty() {
            schema
        } else {
            &schema["$defs"][name]
        };
        let mut keys: Vec<String> = at["properties"]
            .as_object()
            .expect(name)
            .keys()
            .cloned()
            .collect();
        keys.sort();
        keys
    }

    fn sorted(keys: &[&str]) -> Vec<String> {
        let mut keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        keys.sort();
        keys
    }

    #[test]
    fn the_types_have_the_keys_that_are_read() {
        let schema = schema(&fakes::registry());
        for (name, known) in [
            ("", PLAYBOOK_KEYS),
            ("Step", STEP_KEYS),
            ("Input", document::INPUT_KEYS),
            ("Target", document::NAMED_TARGET_KEYS),
            ("Policy", document::POLICY_KEYS),
            ("Defaults", document::DEFAULTS_KEYS),
            ("Foreach", steps::FOREACH_KEYS),
            ("Retry", steps::RETRY_KEYS),
            ("UndoStep", steps::UNDO_KEYS),
            ("Probe", steps::PROBE_KEYS),
            ("Evidence", steps::EVIDENCE_KEYS),
        ] {
            assert_eq!(keys(&schema, name), sorted(known), "{name}");
        }
    }

    fn fits(text: &str) -> Result<(), String> {
        let tree = SourceTree::parse("x.yaml", text).expect("YAML");
        let json = inputs::untyped(&tree.root).to_plain_json();
        let validator = jsonschema::validator_for(&schema(&fakes::registry())).expect("a schema");
        validator
            .validate(&json)
            .map_err(|error| format!("{error} at {}", error.instance_path()))
    }

    #[test]
    fn a_playbook_is_checked_by_the_kinds_of_its_steps() {
        let text = |with: &str| {
            format!(
                "playbook: a\ntargets:\n  db: {{ kind: sqlite, role: primary }}\nowner: 014\ndefaults:\n  sql.*: {{ timeout: 5s, with: {{ target: db }} }}\nsteps:\n  - id: a\n    uses: sql.query\n    with: {with}\n"
            )
        };
        assert_eq!(fits(&text("{ sql: SELECT 1 }")), Ok(()));
        assert_eq!(
            fits(&text(
                "{ sql: SELECT 1, params: { a: \"${{ inputs.b }}\" }, lock_timeout: 2s }"
            )),
            Ok(())
        );
        assert!(fits(&text("{ sqll: SELECT 1 }")).is_err());
        assert!(fits(&text("{ sql: [SELECT 1] }")).is_err());
        assert!(fits(&text("{ sql: x, lock_timeout: soon }")).is_err());
        assert!(fits("playbook: a\nsteps: []\n").is_err());
        assert!(fits("playbook: a\nsteps: [{ id: a }]\n").is_err());
        assert!(fits("playbook: a\nsteps: [{ id: a, uses: nothing }]\n").is_err());
        assert_eq!(
            fits(
                "playbook: a\nsteps:\n  - id: a\n    foreach: { items: [1, 2], max_failures: 10%, max_parallel: 2 }\n    steps:\n      - id: b\n        uses: playbook\n        with: { path: b.yaml, inputs: { x: 1 } }\n      - id: c\n        uses: verify\n        with: { checks: [{ name: 1, expect: true }], max: \"5\", strict: \"${{ inputs.s }}\" }\n        undo: none\n        evidence: { keep: true, for: 400d }\n"
            ),
            Ok(())
        );
        assert!(fits("playbook: a\nsteps:\n  - id: c\n    uses: verify\n    with: { checks: [{ name: x }] }\n").is_err());
    }
}
