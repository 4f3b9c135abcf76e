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
    let text = "playbook: broken\nsteps:\n  - id: a\n    id: a\n";
    lab.write("broken.yaml", text);
    lab.run(&["fmt", "broken.yaml"])
        .exits(2)
        .says("WL0106")
        .says("left as it is");
    assert_eq!(lab.read("broken.yaml"), text);
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
