//! Pages about the language and the kinds, and a first project.
use crate::common::{Lab, settings};

#[test]
fn every_kind_has_a_page() {
    let lab = Lab::new();
    let list = lab.run(&["steps"]).exits(0);
    let kinds: Vec<&str> = list
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(
        kinds.contains(&"sql.execute") && kinds.contains(&"approval"),
        "{kinds:?}"
    );
    for kind in &kinds {
        let page = lab.run(&["steps", kind]).exits(0);
        for part in ["with\n", "output\n", "example\n", "after a crash"] {
            assert!(
                page.stdout.contains(part),
                "{kind} has no {part:?}:\n{}",
                page.stdout
            );
        }
    }
    lab.run(&["steps", "sql.excute"])
        .exits(2)
        .says("did you mean `sql.execute`?");
    let json: serde_json::Value =
        serde_json::from_str(&lab.run(&["steps", "--json"]).stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), kinds.len());
    let page = lab.run(&["steps", "sql.query"]).exits(0);
    settings(&lab).bind(|| insta::assert_snapshot!("steps_sql_query", page.stdout));
}

#[test]
fn every_code_is_explained() {
    let lab = Lab::new();
    let list = lab.run(&["explain"]).exits(0);
    let codes: Vec<&str> = list
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| word.starts_with("WL"))
        .collect();
    assert!(codes.len() > 50, "{codes:?}");
    for code in [codes[0], codes[codes.len() / 2], codes[codes.len() - 1]] {
        lab.run(&["explain", &code.to_lowercase()])
            .exits(0)
            .says(code);
    }
    lab.run(&["explain", "expressions"])
        .exits(0)
        .says("percentile");
    lab.run(&["explain", "exit-codes"]).exits(0).says("130");
    lab.run(&["explain", "expresions"])
        .exits(2)
        .says("did you mean expressions?");
}

#[test]
fn schemas_can_be_checked_for_drift() {
    let lab = Lab::new();
    for subject in ["playbook", "environment", "plan"] {
        let schema = lab.run(&["schema", subject]).exits(0);
        lab.write("schema.json", &schema.stdout);
        lab.run(&["schema", subject, "--check", "schema.json"])
            .exits(0);
        lab.write("schema.json", &schema.stdout.replace("object", "array"));
        lab.run(&["schema", subject, "--check", "schema.json"])
            .exits(1)
            .says("windlass schema");
    }
}

#[test]
fn completions_and_help_come_for_every_command() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish"] {
        lab.run(&["completions", shell]).exits(0).says("validate");
    }
    let help = lab.run(&["--help"]).exits(0);
    settings(&lab).bind(|| insta::assert_snapshot!("help", help.stdout));
}

#[test]
fn a_graph_is_printed_in_three_formats() {
    let lab = Lab::new();
    lab.run(&["init", "new"]).exits(0);
    lab.run(&["graph", "new/playbooks/first"])
        .exits(0)
        .says("check");
    lab.run(&["graph", "new/playbooks/first", "--format", "dot"])
        .exits(0)
        .says("digraph");
    lab.run(&["graph", "new/playbooks/first", "--format", "mermaid"])
        .exits(0)
        .says("check");
}

#[test]
fn a_first_project_runs_and_nothing_is_overwritten() {
    let lab = Lab::new();
    lab.run(&["init", "new"])
        .exits(0)
        .says("wrote new/windlass.yaml");
    let ignored = std::fs::read_to_string(lab.path("new/.gitignore")).unwrap();
    assert_eq!(ignored, ".windlass/\n");
    lab.write(
        "new/windlass.yaml",
        "environments: { mine: { targets: { app: { url: 'sqlite:app.db', create: true } } } }\n",
    );
    lab.run(&["init", "new"])
        .exits(0)
        .says("kept new/windlass.yaml");
    assert_eq!(
        std::fs::read_to_string(lab.path("new/.gitignore")).unwrap(),
        ignored
    );
    let env = ["--env-file", "new/windlass.yaml"];
    let with =
        |args: &[&'static str]| -> Vec<&'static str> { args.iter().chain(&env).copied().collect() };
    lab.run(&with(&["validate", "new/playbooks/first"]))
        .exits(0);
    lab.run(&with(&["plan", "new/playbooks/first"])).exits(0);
    lab.run(&with(&["run", "new/playbooks/first"]))
        .exits(0)
        .says("noted = hello");
    assert!(lab.path("new/.windlass/journal.db").exists());
    assert!(lab.path("new/app.db").exists());
    lab.run(&with(&["undo", "last"])).exits(0);
    assert_eq!(lab.count("new/app.db", "SELECT count(*) FROM greetings"), 0);
}
