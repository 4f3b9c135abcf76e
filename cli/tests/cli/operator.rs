//! What on-call does to a run: signals, pauses, cancels, skips, and a run that is stuck.
use crate::common::{Lab, settings};

const STUCK: &str = r#"
playbook: stuck
targets:
  app: { kind: sqlite }
steps:
  - id: table
    uses: sql.execute
    with: { target: app, sql: CREATE TABLE n (i INTEGER) }
    undo:
      uses: sql.execute
      with: { target: app, sql: DROP TABLE n }
  - id: one
    uses: sql.execute
    with: { target: app, sql: INSERT INTO n VALUES (1) }
    undo:
      uses: sql.execute
      with: { target: app, sql: INSERT INTO undone VALUES (1) }
  - id: boom
    uses: sql.query
    with: { target: app, sql: SELECT 1 FROM nowhere }
"#;

#[test]
fn an_undo_that_fails_is_stuck_and_says_what_to_do() {
    let lab = Lab::new();
    lab.write("p.yaml", STUCK);
    let done = lab.run(&["run", "p.yaml"]).exits(3);
    settings(&lab).bind(|| insta::assert_snapshot!("stuck", done.stdout));
    assert_eq!(lab.state(), "stuck");
    lab.run(&["resume", "last"]).exits(3);
    // Mended by hand, it is tried again, and the rest is undone.
    lab.execute("app.db", "CREATE TABLE undone (i INTEGER)");
    lab.run(&["retry", "last", "one"])
        .exits(1)
        .says("undone, in this order: one, table");
    assert_eq!(lab.state(), "compensated");
}

#[test]
fn a_failed_undo_may_be_settled_by_hand() {
    let lab = Lab::new();
    lab.write("p.yaml", STUCK);
    lab.run(&["run", "p.yaml", "-q"]).exits(3);
    lab.run(&[
        "resolve",
        "last",
        "one",
        "--done",
        "--because",
        "deleted by hand",
    ])
    .exits(1)
    .says("ana says it is undone: deleted by hand");
    assert_eq!(lab.state(), "compensated");
}

const WAITS: &str = r#"
playbook: waits
targets:
  app: { kind: sqlite }
steps:
  - id: table
    uses: sql.execute
    with: { target: app, sql: CREATE TABLE n (i INTEGER) }
    undo:
      uses: sql.execute
      with: { target: app, sql: DROP TABLE n }
  - id: ready
    uses: wait.signal
    with: { name: go }
  - id: one
    uses: sql.execute
    with: { target: app, sql: "INSERT INTO n VALUES (:i)", params: { i: "${{ steps.ready.output.payload.i }}" } }
    undo: none
"#;

fn waiting() -> Lab {
    let lab = Lab::new();
    lab.write("p.yaml", WAITS);
    lab.run(&["run", "p.yaml", "--no-wait"])
        .exits(4)
        .says("for signal go")
        .says("windlass signal");
    lab
}

#[test]
fn a_signal_carries_a_payload() {
    let lab = waiting();
    lab.run(&["signal", "last", "go", "--payload", "{i: 7}"])
        .exits(2)
        .says("is not JSON");
    lab.run(&["signal", "last", "go", "--payload", "{\"i\": 7}", "--drive"])
        .exits(0);
    assert_eq!(lab.count("app.db", "SELECT i FROM n"), 7);
}

#[test]
fn cancel_undoes_or_leaves_as_it_is_told() {
    let lab = waiting();
    lab.run(&["cancel", "last"]).exits(2).says("--undo");
    lab.run(&["cancel", "last", "--undo", "--because", "wrong day"])
        .exits(0)
        .says("cancelled by ana, undoing what it did: wrong day");
    assert_eq!(
        lab.count(
            "app.db",
            "SELECT count(*) FROM sqlite_master WHERE name = 'n'"
        ),
        0
    );
    lab.run(&["cancel", "last", "--undo"])
        .exits(5)
        .says("the run is over");
    let lab = waiting();
    lab.run(&["cancel", "last", "--leave"]).exits(0);
    assert_eq!(
        lab.count(
            "app.db",
            "SELECT count(*) FROM sqlite_master WHERE name = 'n'"
        ),
        1
    );
    assert_eq!(lab.state(), "cancelled");
}

#[test]
fn a_paused_run_starts_nothing_new() {
    let lab = waiting();
    lab.run(&["pause", "last", "--because", "lunch"]).exits(0);
    assert_eq!(lab.state(), "paused");
    lab.run(&["pause", "last"]).exits(5).says("paused already");
    lab.run(&["signal", "last", "go", "--payload", "{\"i\": 1}", "--drive"])
        .exits(3);
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 0);
    lab.run(&["resume", "last"])
        .exits(3)
        .says("windlass unpause");
    lab.run(&["unpause", "last"]).exits(0);
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 1);
}

#[test]
fn a_skip_gives_what_later_steps_read() {
    let lab = waiting();
    lab.run(&["skip", "last", "ready"])
        .exits(2)
        .says("--because");
    let done = lab.run(&[
        "skip",
        "last",
        "ready",
        "--because",
        "known already",
        "--output",
        "{\"payload\": {\"i\": 9}}",
    ]);
    done.exits(0).says("ready: skipped by ana: known already");
    assert_eq!(lab.count("app.db", "SELECT i FROM n"), 9);
}

#[test]
fn what_another_process_is_asked_is_answered_by_it() {
    let lab = Lab::new();
    lab.write("p.yaml", WAITS);
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("ready", "waiting");
    let page = lab.run(&["show", "last"]).exits(0);
    assert!(
        page.stdout.contains(&format!("process {}", running.pid())),
        "{}",
        page.stdout
    );
    let watching = lab.spawn("bruno", &["watch", "last"]);
    lab.run_as("bruno", &["retry", "last", "ready"])
        .exits(5)
        .says("refused:");
    lab.run_as(
        "bruno",
        &["signal", "last", "go", "--payload", "{\"i\": 1}"],
    )
    .exits(0)
    .says("accepted: signal go");
    running.wait().exits(0).says("refused the command of bruno");
    watching
        .wait()
        .exits(0)
        .says("one: succeeded")
        .says("succeeded after");
}

#[test]
fn a_finished_run_can_be_undone() {
    let lab = waiting();
    lab.run(&[
        "signal",
        "last",
        "go",
        "--payload",
        "{\"i\": 1}",
        "--drive",
        "-q",
    ])
    .exits(0);
    let page = lab.run(&["show", "last"]).exits(0);
    assert!(
        page.stdout.contains("the point of no return"),
        "{}",
        page.stdout
    );
    lab.run(&["undo", "last"])
        .exits(0)
        .says("undone, in this order: table");
}

const LOST: &str = r#"
playbook: lost
steps:
  - id: before
    uses: command
    with: { argv: [sh, -c, "echo before >> log.txt"] }
    undo: none
  - id: work
    uses: command
    with: { idempotent: true, argv: [sh, -c, "echo work >> log.txt; test -e go || sleep 30"] }
    undo: none
"#;

/// A run whose driver is gone, and whose step may be begun anew.
fn lost() -> Lab {
    let lab = Lab::new();
    lab.write("p.yaml", LOST);
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("work", "running");
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait();
    lab
}

#[test]
fn a_refused_command_and_a_pause_start_nothing() {
    let lab = lost();
    let begun = || lab.read("log.txt").matches("work").count();
    assert_eq!(begun(), 1);
    let events = || lab.show()["events"].clone();
    let before = events();
    for (refused, code) in [
        (&["retry", "last", "wrok"][..], 2),
        (&["set", "last", "nosuch=1"], 2),
        (&["approve", "last", "wrok"], 2),
        (&["retry", "last", "before"], 5),
        (&["close", "last", "--because", "x"], 5),
        (&["unpause", "last"], 5),
    ] {
        let done = lab.run(refused).exits(code);
        assert!(done.stdout.is_empty(), "{}", done.all());
        assert_eq!(begun(), 1, "{refused:?}");
        assert_eq!(events(), before, "{refused:?}");
    }
    lab.run(&["retry", "last", "wrok"])
        .exits(2)
        .says("did you mean \"work\"?");
    lab.run(&["pause", "last"]).exits(0);
    assert_eq!(begun(), 1);
    assert_eq!(lab.state(), "paused");
    lab.write("go", "");
    lab.run(&["unpause", "last"]).exits(0);
    assert_eq!(begun(), 2);
    assert_eq!(lab.state(), "succeeded");
}

/// What is refused is judged behind what waits in the inbox, and takes nothing of it.
#[test]
fn a_refused_command_leaves_the_inbox_as_it_is() {
    let lab = lost();
    lab.run(&["pause", "last", "--queue"]).exits(0);
    lab.run(&["pause", "last"])
        .exits(5)
        .says("it is paused already");
    assert_eq!(lab.show()["inbox"].as_array().unwrap().len(), 1);
    lab.run(&["unpause", "last"]).exits(0);
}

#[test]
fn what_waits_in_the_inbox_is_taken_before_anything_else_is_proposed() {
    let lab = lost();
    lab.run(&["cancel", "last", "--leave", "--queue"]).exits(0);
    let page = lab.show();
    let next = page["next"].as_array().unwrap();
    assert_eq!(next.len(), 1, "{next:?}");
    assert!(
        next[0]["command"]
            .as_str()
            .unwrap()
            .starts_with("windlass resume")
    );
}

#[test]
fn a_closed_run_says_who_closed_it_and_why_and_asks_for_nobody() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        "playbook: p\npolicy: { on_failure: stop }\nsteps:\n  - { id: a, uses: command, with: { argv: [\"false\"] } }\n",
    );
    lab.run(&["run", "p.yaml", "-q"]).exits(3);
    let ended = lab.run(&["report", "last"]).exits(0).stdout;
    let end = |text: &str| {
        let line = text.lines().find(|line| line.contains("Ended"));
        line.unwrap().to_owned()
    };
    lab.run(&["close", "last", "--because", "settled by hand"])
        .exits(0);
    let page = lab.run(&["show", "last"]).exits(0).stdout;
    assert!(
        page.contains("closed after") && page.contains("settled by hand"),
        "{page}"
    );
    assert!(!page.contains("a person is needed"), "{page}");
    assert_eq!(
        end(&ended),
        end(&lab.run(&["report", "last"]).exits(0).stdout)
    );
    lab.run(&["runs", "--state", "closed"])
        .exits(0)
        .says("closed");
    lab.run(&["runs", "--state", "stopped"])
        .exits(0)
        .says("no run is stopped");
    lab.run(&["resume", "last"]).exits(1);
}

#[test]
fn an_output_is_filled_in_as_far_as_nobody_reads_it() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        "playbook: p\npolicy: { on_failure: pause }\nsteps:\n  - { id: ask, uses: command, with: { argv: [\"false\"] } }\n  \
         - { id: read, uses: command, with: { argv: [echo, \"${{ steps.ask.output.stdout }}\"] }, undo: none }\n",
    );
    lab.run(&["run", "p.yaml", "-q"]).exits(3);
    let page = lab.run(&["show", "last"]).exits(0).stdout;
    assert!(page.contains(r#"--output '{"stdout":null}'"#), "{page}");
    lab.run(&[
        "skip",
        "last",
        "ask",
        "--because",
        "x",
        "--output",
        r#"{"stdot":"7"}"#,
    ])
    .exits(2)
    .says("has no field \"stdot\"");
    lab.run(&["skip", "last", "ask", "--because", "x", "--output", "{}"])
        .exits(2)
        .says("has no \"stdout\", which a later step reads");
    lab.run(&[
        "skip",
        "last",
        "ask",
        "--because",
        "x",
        "--output",
        r#"{"stdout":"7"}"#,
    ])
    .exits(0);
    assert_eq!(lab.state(), "succeeded");
}

/// A driver that was stopped for a while finds the end of a step and an order at once: the order comes first.
#[test]
fn an_order_that_came_while_the_driver_was_stopped_comes_before_the_next_step() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        "playbook: two\nsteps:\n  - id: one\n    uses: command\n    \
         with: { argv: [sh, -c, 'until [ -e go ]; do sleep 0.05; done'] }\n    undo: none\n  - id: two\n    uses: command\n    \
         with: { argv: [touch, two] }\n    undo: none\n",
    );
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("one", "running");
    running.signal(nix::sys::signal::Signal::SIGSTOP);
    lab.run(&["pause", "last", "--queue"]).exits(0);
    lab.write("go", "");
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    running.signal(nix::sys::signal::Signal::SIGCONT);
    running.wait().exits(3);
    assert_eq!(lab.state(), "paused");
    assert!(!lab.path("two").exists());
    lab.run(&["unpause", "last"]).exits(0);
    assert!(lab.path("two").exists());
}

/// What keeps this process from driving the run keeps the command out of the run, too.
#[test]
fn a_command_that_cannot_be_driven_is_taken_back() {
    let lab = Lab::new();
    let locked = |id: &str, step: &str| {
        format!(
            "playbook: {id}\npolicy: {{ locks: [the.lock], on_failure: stop }}\nsteps:\n  - id: {id}\n    {step}\n"
        )
    };
    lab.write(
        "fails.yaml",
        &locked(
            "fails",
            "uses: command\n    with: { argv: ['false'], effect: reads }",
        ),
    );
    lab.write(
        "waits.yaml",
        &locked("waits", "uses: wait.signal\n    with: { name: end }"),
    );
    lab.run(&["run", "fails.yaml"]).exits(3);
    let stopped = lab.run_id();
    lab.run(&["run", "waits.yaml", "--no-wait"]).exits(4);
    lab.run(&["retry", &stopped, "fails"])
        .exits(5)
        .says("the.lock")
        .says("the command is not recorded");
    let page = lab.run(&["show", &stopped, "--json"]).exits(0);
    let page: serde_json::Value = serde_json::from_str(&page.stdout).unwrap();
    assert_eq!(page["inbox"].as_array().unwrap().len(), 0);
    assert_eq!(page["state"], "stopped");
    // So nothing keeps it from being closed.
    lab.run(&["close", &stopped, "--because", "x"]).exits(0);
    assert_eq!(lab.run(&["resume", &stopped]).code, 1);
}

const GUARDED: &str = r#"
playbook: guarded
policy: { on_failure: pause }
steps:
  - id: g
    steps:
      - id: ask
        uses: approval
        with: { prompt: Go on? }
  - id: acts
    uses: command
    with: { argv: [touch, acted] }
    undo: none
"#;

/// What may not be skipped may not be skipped with what is around it.
#[test]
fn an_approval_is_not_skipped_with_its_group() {
    let lab = Lab::new();
    lab.write("p.yaml", GUARDED);
    lab.run(&["run", "p.yaml", "--no-wait"]).exits(4);
    lab.run_as("bruno", &["reject", "last", "--drive"]);
    lab.run(&["skip", "last", "g", "--because", "x"])
        .exits(5)
        .says("g/ask, which is of kind approval and cannot be skipped");
    assert!(!lab.path("acted").exists());
}

const SHOWN: &str = r#"
playbook: shown
steps:
  - id: count
    uses: command
    with: { argv: [cat, rows], parse: text, effect: reads }
    on_failure: continue
  - id: ask
    uses: approval
    with: { prompt: "rows: ${{ steps.count.output?.value ?? '0' }}" }
  - id: acts
    uses: command
    with: { argv: [touch, "acted-${{ steps.count.output?.value ?? '0' }}"] }
    undo: none
"#;

/// What people were shown is what is done.
#[test]
fn an_output_that_people_were_shown_is_not_replaced() {
    let lab = Lab::new();
    lab.write("p.yaml", SHOWN);
    lab.run(&["run", "p.yaml", "--no-wait"])
        .exits(4)
        .says("rows: 0");
    lab.write("rows", "700");
    lab.run(&["retry", "last", "count"])
        .exits(5)
        .says("ask shows the output of count");
    let skip = [
        "skip",
        "last",
        "count",
        "--because",
        "x",
        "--output",
        r#"{"value": "500"}"#,
    ];
    lab.run(&skip)
        .exits(5)
        .says("ask shows the output of count");
    lab.run_as("bruno", &["approve", "last", "--drive"])
        .exits(1);
    assert!(lab.path("acted-0").exists());
}
