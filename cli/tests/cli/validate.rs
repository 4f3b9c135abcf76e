//! Mistakes as a compiler tells them.

use crate::common::{Lab, settings};

/// Ten different mistakes.
const WRONG: &str = r#"
playbook: Wrong_Name
inputs:
  size: { type: integer, default: lots }
targets:
  app: { kind: sqlite }
steps:
  - id: first
    uses: sql.query
    with: { target: app, sql: "SELECT 1", max_rows_: 3 }
  - id: second
    uses: sql.qery
    with: { target: app, sql: SELECT 2 }
  - id: third
    uses: sql.query
    when: inputs.sise > 1
    with: { target: app, sql: SELECT 3 }
  - id: third
    uses: wait.for
    with: { duration: 5 parsecs }
  - id: fifth
    uses: sql.query
    needs: [nobody]
    with: { target: ap, sql: SELECT 5 }
  - id: sixth
    uses: sql.query
    timeot: 5s
    with: { target: app, sql: "SELECT ${{ inputs.size }}" }
  - id: seventh
    uses: sql.query
    cleanup: yes
    with: { target: app, sql: SELECT 7 }
"#;

#[test]
fn ten_mistakes_are_ten_diagnostics_with_places() {
    let lab = Lab::new();
    lab.write("wrong.yaml", WRONG);
    let done = lab.run(&["validate", "wrong.yaml"]).exits(2);
    let errors = done.stderr.matches("error[WL").count();
    assert!(errors >= 10, "{errors}: {}", done.stderr);
    assert_eq!(done.stderr.matches("--> wrong.yaml:").count(), errors);
    assert!(done.stderr.ends_with(&format!("{errors} errors\n")));
    settings(&lab).bind(|| insta::assert_snapshot!("ten_mistakes", done.stderr));
}

#[test]
fn as_json_each_has_its_code_and_place() {
    let lab = Lab::new();
    lab.write("wrong.yaml", WRONG);
    let done = lab.run(&["validate", "--json", "wrong.yaml"]).exits(2);
    let all: Vec<serde_json::Value> = serde_json::from_str(&done.stdout).unwrap();
    assert!(all.len() >= 10);
    for one in &all {
        assert!(one["code"].as_str().unwrap().starts_with("WL"), "{one}");
        assert!(one["span"]["line"].as_u64().unwrap() > 0, "{one}");
    }
}

#[test]
fn colour_is_for_terminals_and_who_asks_for_it() {
    let lab = Lab::new();
    lab.write("wrong.yaml", WRONG);
    let escape = '\x1b';
    let pipe = lab.run(&["validate", "wrong.yaml"]);
    assert!(!pipe.stderr.contains(escape));
    let always = lab.run(&["validate", "wrong.yaml", "--color", "always"]);
    assert!(always.stderr.contains(escape));
    // What is asked for on the command line wins over the environment.
    let mut command = lab.command("ana", &["validate", "wrong.yaml", "--color", "always"]);
    let both = command.env("NO_COLOR", "1").output().unwrap();
    assert!(String::from_utf8(both.stderr).unwrap().contains(escape));
    let never = lab.run(&["validate", "wrong.yaml", "--color", "never"]);
    assert_eq!(never.stderr, pipe.stderr);
}

#[test]
fn usage_and_files_that_are_not_there_exit_2() {
    let lab = Lab::new();
    lab.run(&["validate", "nothing.yaml"])
        .exits(2)
        .says("cannot read nothing.yaml")
        .says("= help:");
    lab.run(&["validate"]).exits(2);
    lab.run(&["no-such-command"]).exits(2);
    lab.run(&["validate", "."])
        .exits(2)
        .says("holds no playbook.yaml");
    lab.write("binary.yaml", "playbook: \u{0}");
    lab.run(&["validate", "binary.yaml"]).exits(2);
    lab.write("windlass.yaml", "environments: { local: { targts: {} } }");
    lab.run(&["runs"])
        .exits(2)
        .says("did you mean")
        .says("windlass.yaml:1:");
    lab.run(&["--help"])
        .exits(0)
        .says("Exit codes:")
        .says("130");
}

#[test]
fn inputs_targets_and_environments_that_are_wrong_are_told_at_once() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        r#"
playbook: inputs
inputs:
  size: { type: integer, max: 10 }
  mode: { type: string, enum: [fast, slow], default: fast }
targets:
  app: { kind: sqlite }
steps:
  - id: one
    uses: sql.query
    with: { target: app, sql: SELECT 1 }
"#,
    );
    let done = lab
        .run(&[
            "run",
            "p.yaml",
            "-i",
            "size=11",
            "-i",
            "mode=fastt",
            "-i",
            "sice=1",
            "--target",
            "ap=x",
        ])
        .exits(2);
    settings(&lab).bind(|| insta::assert_snapshot!("wrong_inputs", done.stderr));
    lab.run(&["run", "p.yaml", "-i", "size=3", "--env", "prod"])
        .exits(2)
        .says("there is no environment \"prod\"");
    lab.execute("app.db", "CREATE TABLE n (i INTEGER)");
    lab.write("inputs.json", r#"{ "size": 3, "mode": "slow" }"#);
    lab.run(&[
        "run",
        "p.yaml",
        "--inputs",
        "inputs.json",
        "--input",
        "mode=fast",
    ])
    .exits(0);
    assert_eq!(
        lab.show()["inputs"],
        serde_json::json!({ "size": 3, "mode": "fast" })
    );
}
