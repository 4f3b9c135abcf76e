//! The schemas in `schemas/` are those of the code, and a validator that is not ours accepts every playbook
//! and environment that ships.
use serde_json::{Map, Value as Json};
use std::path::{Path, PathBuf};
use windlass_engine::{
    environment, playbook,
    source::{Node, NodeKind, SourceTree, Style, core_value},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn schemas() -> Vec<(&'static str, Json)> {
    vec![
        (
            "playbook.schema.json",
            playbook::schema(&windlass_steps::registry()),
        ),
        ("environment.schema.json", environment::schema()),
    ]
}

/// Run with `WINDLASS_WRITE_SCHEMAS=1` after a change of a type.
#[test]
fn the_schemas_are_those_of_the_code() {
    for (name, schema) in schemas() {
        let path = root().join("schemas").join(name);
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("WINDLASS_WRITE_SCHEMAS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == text,
            "{name} is not what the code makes; run the tests with WINDLASS_WRITE_SCHEMAS=1"
        );
    }
}

fn json(node: &Node) -> Json {
    match &node.kind {
        NodeKind::List(items) => Json::Array(items.iter().map(json).collect()),
        NodeKind::Map(map) => {
            let pairs = map
                .entries
                .iter()
                .map(|entry| (entry.key.to_string(), json(&entry.value)));
            Json::Object(pairs.collect::<Map<_, _>>())
        }
        NodeKind::Scalar(scalar) => match scalar.style {
            Style::Plain => core_value(&scalar.text).map_or_else(
                || Json::String(scalar.text.to_string()),
                |value| value.to_plain_json(),
            ),
            Style::SingleQuoted | Style::DoubleQuoted | Style::Literal | Style::Folded => {
                Json::String(scalar.text.to_string())
            }
        },
    }
}

fn shipped(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            shipped(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn a_foreign_validator_accepts_what_ships_and_refuses_what_is_wrong() {
    let [(_, playbooks), (_, environments)] = schemas().try_into().unwrap();
    let playbooks = jsonschema::validator_for(&playbooks).unwrap();
    let environments = jsonschema::validator_for(&environments).unwrap();
    let mut files = Vec::new();
    shipped(&root().join("examples"), &mut files);
    assert!(files.len() >= 3, "{files:?}");
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let tree = SourceTree::parse(&path.display().to_string(), &text).unwrap();
        let validator = if path.ends_with("windlass.yaml") {
            &environments
        } else {
            &playbooks
        };
        let errors: Vec<String> = validator
            .iter_errors(&json(&tree.root))
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(
            errors.is_empty(),
            "{}: {}",
            path.display(),
            errors.join("\n")
        );
    }
    let wrong: Json = serde_json::json!({
        "playbook": "p", "steps": [{ "id": "a", "uses": "wait.for", "with": { "duration": "5s", "until": 1 } }],
    });
    assert!(
        !playbooks.is_valid(&wrong),
        "an unknown parameter of a kind"
    );
}
