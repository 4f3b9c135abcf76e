//! Approvals, answered from another process.
use crate::common::{Lab, settings};
use std::time::{Duration, Instant};

pub(crate) fn asking(with: &str) -> Lab {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        &format!(
            r#"
playbook: asks
targets:
  app: {{ kind: sqlite }}
steps:
  - id: table
    uses: sql.execute
    with: {{ target: app, sql: CREATE TABLE IF NOT EXISTS n (i INTEGER) }}
    undo: none
  - id: one
    uses: sql.execute
    with: {{ target: app, sql: INSERT INTO n VALUES (1) }}
    undo:
      uses: sql.execute
      with: {{ target: app, sql: DELETE FROM n WHERE i = 1 }}
  - id: sign_off
    uses: approval
    with:
      prompt: Go on with this?
      groups: [dba]
{with}
  - id: two
    uses: sql.execute
    with: {{ target: app, sql: INSERT INTO n VALUES (2) }}
    undo: none
"#
        ),
    );
    lab
}

#[test]
fn a_foreground_run_goes_on_within_a_second_of_the_approval() {
    let lab = asking("      expires: 1h");
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("sign_off", "awaiting_approval");
    lab.run_as(
        "bruno",
        &["approve", "last", "sign_off", "--because", "looks right"],
    )
    .exits(0)
    .says("Go on with this?")
    .says("accepted: sign_off has your approval");
    let approved = Instant::now();
    let done = running.wait().exits(0).says("bruno approves: looks right");
    assert!(
        approved.elapsed() < Duration::from_secs(1),
        "{}",
        done.all()
    );
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 2);
    assert_eq!(lab.step("sign_off")["votes"][0]["who"], "bruno");
}

#[test]
fn who_starts_a_run_may_not_approve_it() {
    let lab = asking("      expires: 1h");
    lab.run(&["run", "p.yaml", "--no-wait"])
        .exits(4)
        .says("windlass approve");
    lab.run_as("ana", &["approve", "last", "sign_off"])
        .exits(5)
        .says("separation_of_duties");
    lab.run_as("mallory", &["approve", "last", "sign_off"])
        .exits(5)
        .says("refused:");
    assert_eq!(lab.state(), "waiting");
    lab.run_as("bruno", &["approve", "last", "--drive"])
        .exits(0);
    assert_eq!(lab.state(), "succeeded");
    lab.run_as("carla", &["approve", "last"])
        .exits(5)
        .says("no step of this run asks");
}

#[test]
fn a_rejection_undoes_what_was_done() {
    let lab = asking("      expires: 1h");
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("sign_off", "awaiting_approval");
    lab.run_as(
        "bruno",
        &["reject", "last", "sign_off", "--because", "not today"],
    )
    .exits(0);
    let done = running
        .wait()
        .exits(1)
        .says("bruno rejects: not today")
        .says("undone, in this order: one");
    assert!(done.stdout.contains("sign_off"), "{}", done.all());
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 0);
}

#[test]
fn an_approval_that_expires_counts_as_rejected() {
    let lab = asking("      expires: 300ms");
    lab.run(&["run", "p.yaml"])
        .exits(1)
        .says("undone, in this order: one");
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 0);
}

#[test]
fn a_quorum_needs_two_people() {
    let lab = asking("      quorum: 2");
    lab.run(&["run", "p.yaml", "--no-wait"])
        .exits(4)
        .says("0 of 2 approvals");
    lab.run_as("bruno", &["approve", "last", "--drive"])
        .exits(4)
        .says("1 of 2 approvals");
    lab.run_as("bruno", &["approve", "last"])
        .exits(5)
        .says("has voted already");
    lab.run_as("carla", &["approve", "last", "--drive"])
        .exits(0);
}

#[test]
fn questions_are_shown_with_their_options_and_answered_by_number() {
    let lab = asking(
        r#"      show: { blockers: 3 }
      ask:
        victims: { choose: many, from: [11, 22, 33], max: 2 }
        how: { type: string, enum: [cancel, terminate] }"#,
    );
    let done = lab.run(&["run", "p.yaml", "--no-wait"]).exits(4);
    assert!(
        done.stdout
            .contains("--answer victims=NUMBERS --answer how=cancel"),
        "{}",
        done.all()
    );
    assert!(done.stdout.contains("    3  33"), "{}", done.all());
    // Shown to an account that may vote: for another account `show` adds a line.
    let page = lab.run_as("bruno", &["show", "last"]).exits(0);
    settings(&lab).bind(|| insta::assert_snapshot!("approval_page", page.stdout));
    lab.run_as("bruno", &["approve", "last"])
        .exits(2)
        .says("is not answered")
        .says("--answer victims=NUMBERS");
    lab.run_as(
        "bruno",
        &[
            "approve",
            "last",
            "--answer",
            "victims=4",
            "--answer",
            "how=cancel",
        ],
    )
    .exits(5)
    .says("there is no option 4");
    lab.run_as(
        "bruno",
        &[
            "approve",
            "last",
            "--answer",
            "victims=1,3",
            "--answer",
            "how=stop",
        ],
    )
    .exits(5)
    .says("is not one of: cancel, terminate");
    lab.run_as(
        "bruno",
        &[
            "approve",
            "last",
            "--answer",
            "victims=1,3",
            "--answer",
            "how=cancel",
            "--drive",
        ],
    )
    .exits(0);
    let output = &lab.step("sign_off")["output"];
    assert!(output.to_string().contains("[11,33]"), "{output:#}");
}

#[test]
fn a_queued_vote_counts_when_somebody_drives_the_run() {
    let lab = asking("      expires: 1h");
    lab.run(&["run", "p.yaml", "--no-wait"]).exits(4);
    lab.run_as("bruno", &["approve", "last", "--queue"])
        .exits(0)
        .says("recorded");
    assert_eq!(lab.state(), "waiting");
    lab.run(&["resume", "last"]).exits(0);
}
