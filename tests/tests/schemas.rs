//! The schemas in `schemas/` are those of the code, and a validator that is not ours accepts every playbook
//! and environment that ships.
use serde_json::{Map, Value as Json};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use windlass_engine::{
    diagnostic, environment, plan, playbook, report,
    source::{Node, NodeKind, SourceTree, Style, core_value},
};
use windlass_tests::program;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn schemas() -> [(&'static str, Json); 5] {
    [
        (
            "playbook.schema.json",
            playbook::schema(&windlass_steps::registry()),
        ),
        ("environment.schema.json", environment::schema()),
        ("plan.schema.json", plan::schema()),
        ("report.schema.json", report::schema()),
        ("error.schema.json", diagnostic::schema()),
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
    let [(_, playbooks), (_, environments), ..] = schemas();
    let playbooks = jsonschema::validator_for(&playbooks).unwrap();
    let environments = jsonschema::validator_for(&environments).unwrap();
    let mut files = Vec::new();
    shipped(&root().join("examples"), &mut files);
    shipped(&root().join("playbooks"), &mut files);
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

#[test]
fn plans_and_reports_are_what_their_schemas_say() {
    let folder = tempfile::tempdir().unwrap();
    let examples = root().join("examples").canonicalize().unwrap();
    let environment = folder.path().join("windlass.yaml");
    std::fs::copy(examples.join("windlass.yaml"), &environment).unwrap();
    let playbook = examples.join("backup-verify");
    let call = |args: &[&str]| {
        let done = Command::new(program::windlass())
            .args(args)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{args:?}: {done:?}");
    };
    let playbook = playbook.to_str().unwrap();
    call(&["plan", playbook, "-o", "plan.json"]);
    call(&["run", playbook, "--input", "orders=10"]);
    call(&["report", "last", "-o", "report.json"]);
    for (file, (_, schema)) in [("plan.json", &schemas()[2]), ("report.json", &schemas()[3])] {
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        let json: Json = serde_json::from_str(&text).unwrap();
        let validator = jsonschema::validator_for(schema).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&json)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{file}: {}", errors.join("\n"));
        assert!(!validator.is_valid(&Json::Object(Map::new())));
    }
}
