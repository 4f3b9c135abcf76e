//! What needs quotes gets them, files are laid out in one way, and nothing else changes.
use crate::common::Lab;
use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

/// Each value that YAML would change, and some untidy layout.
const UNTIDY: &str = r#"
playbook: untidy
inputs:
    n: {type: integer,default: 1}   # how many
targets:
    app: {kind: sqlite}
steps:
# the first
-   id: first
    uses: sql.query
    with: {target: app, sql: SELECT 1}


-   id: second
    uses: sql.query
    when: !steps.first.output.truncated
    with: { target: app, sql: "SELECT :n", params: { n: ${{ inputs.n }} } }
-   id: third
    uses: verify
    when: "eu" == run.environment
    with:
        checks:
        -   name: a comment is no part of it
            expect: "a".len() == 1 || 'x #y' == 'z'
        -   name: nor is this
            expect: inputs.n > 0 || run.id == 'a #b'
"#;

#[test]
fn what_yaml_would_change_is_quoted() {
    let lab = Lab::new();
    lab.write("untidy.yaml", UNTIDY);
    let wrong = lab.run(&["validate", "untidy.yaml"]).exits(2);
    assert!(
        wrong.stderr.matches("windlass fmt").count() >= 3,
        "{}",
        wrong.stderr
    );
    lab.run(&["fmt", "--check", "untidy.yaml"])
        .exits(1)
        .says("would change untidy.yaml");
    assert_eq!(
        lab.read("untidy.yaml"),
        UNTIDY.trim_start(),
        "--check writes nothing"
    );
    let path = lab.path("untidy.yaml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    lab.run(&["fmt", "untidy.yaml"])
        .exits(0)
        .says("changed untidy.yaml")
        .says("WL0112");
    insta::assert_snapshot!("formatted", lab.read("untidy.yaml"));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    lab.run(&["validate", "untidy.yaml"]).exits(0);
    let again = lab.run(&["fmt", "untidy.yaml"]).exits(0);
    assert_eq!(again.stdout, "");
    lab.run(&["fmt", "--check", "."]).exits(0);
}

#[test]
fn a_file_with_other_mistakes_is_left() {
    let lab = Lab::new();
    let text = "playbook: broken\nsteps:\n  - id: a\n    when: !b\n    id: a\n";
    lab.write("broken.yaml", text);
    let done = lab
        .run(&["fmt", "broken.yaml"])
        .exits(2)
        .says("WL0106")
        .says("left as it is");
    assert!(!done.stderr.contains("WL0103"), "{}", done.stderr);
    assert_eq!(lab.read("broken.yaml"), text);
}

/// Every mistake that YAML makes of what was meant.
const GUARDS: &str = r##"
playbook: guards
description: #3 of the migration
inputs:
  n: { type: integer, default: 1 }
targets:
  app: { kind: sqlite }
steps:
  - id: first
    uses: sql.query
    with: { target: app, sql: SELECT :n AS n, params: { n: ${{ inputs.n }} } }
  - id: second
	uses: sql.query
	when: !steps.first.output.truncated # a comment stays
	with:
	  target: app
	  sql: SELECT 1
  - id: third
    uses: verify
    when: ${{ inputs.n > 0 }}
    with:
      target: app
      checks:
        - name: by whom
          expect: run.by != "batch #1" # another one
        - name: where
          expect: "eu" != run.environment
        - { name: cut, expect: !steps.first.output.truncated }
  - id: last
    uses: script
    with:
      code: "#{ 'a': 1 }"
outputs:
  total: ${{ steps.first.output.row.n }}
"##;

#[test]
fn every_guard_is_told_mended_and_then_valid() {
    let lab = Lab::new();
    lab.write("guards.yaml", GUARDS);
    lab.write("mended.yaml", GUARDS);
    let mut told = lab.run(&["validate", "guards.yaml"]).exits(2).stderr;
    let diff = lab.run(&["fmt", "--diff", "mended.yaml"]).exits(1);
    assert!(
        diff.stdout
            .contains("\n-description: #3 of the migration\n+description: '#3")
    );
    assert_eq!(
        lab.read("mended.yaml"),
        GUARDS.trim_start(),
        "--diff writes nothing"
    );
    told.push_str(&lab.run(&["fmt", "mended.yaml"]).exits(0).stdout);
    told.push_str(&lab.read("mended.yaml"));
    insta::assert_snapshot!("guards", told);
    lab.run(&["validate", "mended.yaml"]).exits(0);
    lab.run(&["fmt", "--check", "mended.yaml"]).exits(0);
}

#[test]
fn a_folder_means_what_is_ours() {
    let lab = Lab::new();
    lab.run(&["fmt"]).exits(0);
    let untidy = "environments:   {}\n";
    lab.write("deep/er/prod.yaml", untidy);
    lab.write("deep/p.yaml", "playbook:   p\n");
    lab.write("deep/p.test.yaml", "case:   a\n");
    lab.write("deep/compose.yaml", "services:   {}\n");
    lab.write("deep/.hidden/p.yaml", "playbook:   p\n");
    let done = lab.run(&["fmt", "--check"]).exits(1);
    assert_eq!(
        done.stdout,
        "would change ./deep/er/prod.yaml\nwould change ./deep/p.test.yaml\nwould change ./deep/p.yaml\n"
    );
    lab.run(&["fmt", "-q"]).exits(0);
    assert_eq!(lab.read("deep/er/prod.yaml"), "environments: {}\n");
    assert_eq!(lab.read("deep/compose.yaml"), "services:   {}\n");
    // Named, any YAML file is meant.
    lab.run(&["fmt", "deep/compose.yaml"]).exits(0);
    assert_eq!(lab.read("deep/compose.yaml"), "services: {}\n");
    // One file that cannot be mended keeps no other from it.
    lab.write("a.yaml", "playbook: [\n");
    lab.write("b.yaml", "playbook:   b\n");
    lab.run(&["fmt", "."])
        .exits(2)
        .says("a.yaml is left as it is");
    assert_eq!(lab.read("a.yaml"), "playbook: [\n");
    assert_eq!(lab.read("b.yaml"), "playbook: b\n");
}

#[test]
fn the_standard_input_is_printed() {
    use std::io::Write as _;
    let lab = Lab::new();
    let mut child = lab
        .command("ana", &["fmt", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a:   {b: 1}\r\nc:\n- 1\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "a: { b: 1 }\nc:\n  - 1\n"
    );
}

#[test]
fn what_ships_is_laid_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let lab = Lab::new();
    for folder in ["examples", "playbooks"] {
        let folder = root.join(folder);
        if folder.is_dir() {
            lab.run(&["fmt", "--check", folder.to_str().unwrap()])
                .exits(0);
        }
    }
}
