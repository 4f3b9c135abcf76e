//! What `show` and `next` say of a run at odd moments.
use crate::common::Lab;
use serde_json::Value as Json;

fn next(lab: &Lab) -> Vec<String> {
    let page = lab.show();
    let all = page["next"].as_array().unwrap().iter();
    all.map(|next| next["command"].as_str().unwrap().to_owned())
        .collect()
}

fn proposes(lab: &Lab, words: &str) -> bool {
    next(lab).iter().any(|command| command.contains(words))
}

#[test]
fn a_step_that_no_process_runs_is_interrupted() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        "playbook: lost\nsteps:\n  - id: work\n    uses: command\n    with: { idempotent: true, argv: [sleep, '30'] }\n",
    );
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("work", "running");
    lab.run(&["show", "last"]).says("running work (command)");
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait();
    let page = lab.run(&["show", "last"]).exits(0);
    let page = page.says("interrupted work (command)");
    let row = page.stdout.lines().find(|line| line.contains(" work "));
    assert!(row.unwrap().contains("interrupted"), "{}", page.all());
    assert!(!page.stdout.contains("its timeout"), "{}", page.all());
}

/// A group that waits with what is in it is open, whether a process drives the run or not.
#[test]
fn a_group_that_waits_is_not_interrupted() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        "playbook: waits\nsteps:\n  - id: g\n    steps:\n      - id: w\n        uses: wait.signal\n        with: { name: end }\n",
    );
    lab.run(&["run", "p.yaml", "--no-wait"]).exits(4);
    let page = lab.run(&["show", "last"]).exits(0);
    assert!(!page.stdout.contains("interrupted"), "{}", page.all());
}

const NO_WAY_BACK: &str = r#"
playbook: beyond
steps:
  - id: gone
    uses: command
    with: { argv: ["true"] }
    undo: impossible
  - id: fails
    uses: command
    with: { argv: ["false"] }
    undo: none
    on_failure: pause
"#;

/// An undo that would undo nothing would only close the way forward.
#[test]
fn an_undo_of_nothing_is_neither_proposed_nor_taken() {
    let lab = Lab::new();
    lab.write("p.yaml", NO_WAY_BACK);
    lab.run(&["run", "p.yaml"]).exits(3);
    assert_eq!(lab.state(), "paused");
    assert!(!proposes(&lab, "--undo"), "{:?}", next(&lab));
    assert!(proposes(&lab, "cancel") && proposes(&lab, "--leave"));
    lab.run(&["undo", "last"])
        .exits(5)
        .says("gone is in the way, it cannot be undone")
        .says("`cancel --leave` ends the run as it is");
    assert_eq!(lab.state(), "paused");
}

const GATED: &str = r#"
playbook: gated
inputs:
  open: { type: boolean, default: false }
steps:
  - id: work
    uses: command
    gate: inputs.open
    with: { argv: ["true"] }
    undo: none
"#;

#[test]
fn a_closed_gate_is_shown_with_the_input_that_opens_it() {
    let lab = Lab::new();
    lab.write("p.yaml", GATED);
    lab.run(&["run", "p.yaml", "--no-wait"])
        .exits(4)
        .says("waits: work for its gate: inputs.open");
    assert!(proposes(&lab, " open=…"), "{:?}", next(&lab));
    lab.run(&["set", "last", "open=true"]).exits(0);
    assert_eq!(lab.state(), "succeeded");
}

const STOPPED: &str = r#"
playbook: stopped
inputs:
  file: { type: string, default: nowhere }
steps:
  - id: reads
    uses: command
    with: { argv: [cat, "${{ inputs.file }}"], effect: reads }
    on_failure: stop
"#;

/// With another input a retry may succeed: both are taken of a run that stopped, and neither of one that a person has closed.
#[test]
fn an_input_of_a_stopped_run_can_be_changed() {
    let lab = Lab::new();
    lab.write("p.yaml", STOPPED);
    lab.write("here", "");
    lab.run(&["run", "p.yaml"]).exits(3);
    lab.run(&["set", "last", "file=here"]).exits(3);
    assert_eq!(lab.state(), "stopped");
    lab.run(&["retry", "last", "reads"]).exits(0);
    lab.run(&["run", "p.yaml"]).exits(3);
    lab.run(&["close", "last", "--because", "x"]).exits(0);
    lab.run(&["set", "last", "file=here"])
        .exits(5)
        .says("has closed the run");
}

const ASKS: &str = r#"
playbook: asks
steps:
  - id: sign_off
    uses: approval
    with: { prompt: Go on?, quorum: 2 }
"#;

#[test]
fn a_vote_in_the_inbox_is_counted_where_it_is_shown() {
    let lab = Lab::new();
    lab.write("p.yaml", ASKS);
    lab.run(&["run", "p.yaml", "--no-wait"]).exits(4);
    lab.run_as("bruno", &["approve", "last"]).exits(0);
    lab.run(&["show", "last"])
        .says("1 of 2 approvals")
        .says("votes that wait in the inbox are counted")
        .says("answer with: ");
    lab.run_as("carla", &["reject", "last"]).exits(0);
    let page = lab
        .run(&["show", "last"])
        .says("decided by what waits in the inbox");
    assert!(!page.stdout.contains("answer with"), "{}", page.all());
    lab.run_as("dora", &["approve", "last"])
        .exits(5)
        .says("2 commands wait in its inbox");
}

#[test]
fn an_expired_question_is_not_asked() {
    let lab = Lab::new();
    lab.write("p.yaml", &ASKS.replace("quorum: 2", "expires: 50ms"));
    lab.run(&["run", "p.yaml", "--no-wait"]);
    std::thread::sleep(std::time::Duration::from_millis(60));
    let page = lab.run(&["show", "last"]).says("expired at");
    assert!(!page.stdout.contains("answer with"), "{}", page.all());
}

#[test]
fn a_run_that_is_over_asks_nothing_about_its_many_failures() {
    let lab = Lab::new();
    let items: Vec<String> = (0..9).map(|n| n.to_string()).collect();
    let playbook = format!(
        "playbook: many\nsteps:\n  - id: each\n    foreach: {{ items: [{}], max_items: 9, max_failures: 9 }}\n    \
         uses: command\n    with: {{ argv: ['false'], effect: reads }}\n",
        items.join(", ")
    );
    lab.write("p.yaml", &playbook);
    let done = lab.run(&["run", "p.yaml", "--key", "nightly-7"]);
    assert!(!done.all().contains("more steps wait"), "{}", done.all());
    let page: Json = lab.show();
    let text = page["next"].to_string();
    assert!(!text.contains("more steps wait"), "{text}");
    // By which key it was started.
    assert_eq!(page["key"], "nightly-7");
    lab.run(&["show", "last"]).says("nightly-7");
}

#[test]
fn a_word_or_a_code_is_explained_by_itself() {
    let lab = Lab::new();
    lab.run(&["explain", "stuck"])
        .exits(0)
        .says("It cannot continue without a person");
    lab.run(&["explain", "failed"])
        .exits(0)
        .says("# States of a run")
        .says("# States of a step");
    lab.run(&["explain", "5"])
        .exits(0)
        .says("refused by a rule");
    lab.run(&["explain", "8"]).exits(2);
    lab.run(&["runs", "--limit", "0"]).exits(2);
}
