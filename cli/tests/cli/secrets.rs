//! A run whose secret cannot be fetched any more: nothing acts, and what needs no step is done.
use crate::common::{Done, Lab};

const ENVIRONMENT: &str = r#"
environments:
  local:
    secrets: { pw: { env: PW } }
    targets: {}
approvers:
  dba: [ana, bruno, carla, daemon, bin]
"#;

const PLAYBOOK: &str = r#"
playbook: uses
steps:
  - id: before
    uses: command
    with: { argv: ["true"], env: { PW: "${{ secret('pw') }}" } }
    undo: UNDO
  - id: sign_off
    uses: approval
    with: { prompt: Go on?, groups: [dba] }
  - id: after
    uses: command
    with: { argv: [sh, -c, "echo acted >> acted"] }
    undo: none
"#;

const SECRET: &str = "a-canary-in-the-journal";

/// A run that has used the secret and waits for a vote.
fn waiting(undo: &str) -> Lab {
    let lab = Lab::new();
    lab.write("windlass.yaml", ENVIRONMENT);
    lab.write("p.yaml", &PLAYBOOK.replace("UNDO", undo));
    with(&lab, "ana", &["run", "p.yaml", "--no-wait"]).exits(4);
    lab
}

/// With the secret at hand.
fn with(lab: &Lab, who: &str, args: &[&str]) -> Done {
    let mut command = lab.command(who, args);
    command.env("PW", SECRET).output().unwrap().into()
}

const UNDONE: &str = "{ uses: command, with: { argv: [sh, -c, \"echo undone >> undone\"] } }";

#[test]
fn what_needs_no_step_is_done_without_the_secret() {
    let lab = waiting("none");
    lab.run(&["resume", "last", "--no-wait"]).exits(4);
    lab.run_as("bruno", &["reject", "last", "--because", "no"])
        .exits(0);
    lab.run(&["resume", "last"]).exits(1);
    // There was nothing to undo.
    assert_eq!(lab.state(), "failed");

    let lab = waiting(UNDONE);
    lab.run(&["cancel", "last", "--leave"]).exits(0);
    assert_eq!(lab.state(), "cancelled");
    assert!(!lab.path("undone").exists());
}

#[test]
fn no_step_acts_without_the_secret_and_nothing_fails() {
    let lab = waiting(UNDONE);
    let told = lab
        .run(&["cancel", "last", "--undo"])
        .exits(5)
        .says("pw")
        .says("is not recorded");
    assert!(!told.all().contains(SECRET));
    // It waits: nothing was written down as started, and nothing is left that would act later.
    assert!(lab.show()["inbox"].as_array().unwrap().is_empty());
    assert_eq!(lab.state(), "waiting");
    assert!(!lab.path("undone").exists());
    // There are two ways on: without what acts, or with the secret.
    let other = waiting(UNDONE);
    other.run(&["cancel", "last", "--undo"]).exits(5);
    other.run(&["cancel", "last", "--leave"]).exits(0);
    assert_eq!(other.state(), "cancelled");
    assert!(!other.path("undone").exists());

    with(&lab, "ana", &["cancel", "last", "--undo"]).exits(0);
    assert_eq!(lab.state(), "cancelled");
    assert_eq!(lab.read("undone"), "undone\n");
}
