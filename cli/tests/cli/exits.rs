//! The exit codes that say whether a run is open: 5, 6 and 7 are never its end.
use crate::common::Lab;
use serde_json::Value as Json;
use std::process::{Command, Stdio};

const READS: &str = "playbook: reads\ntargets: { app: { kind: sqlite } }\nsteps:\n  - id: read\n    uses: sql.query\n    \
    with: { target: app, sql: SELECT 1 }\n";

fn environment(target: &str) -> String {
    format!("environments:\n  local:\n    targets:\n      app: {target}\n")
}

#[test]
fn a_target_that_cannot_be_reached_starts_nothing() {
    let lab = Lab::new();
    lab.write("p.yaml", READS);
    lab.write(
        "windlass.yaml",
        &environment("{ url: 'sqlite:nowhere/app.db' }"),
    );
    lab.run(&["run", "p.yaml"])
        .exits(6)
        .says("target app: there is no database file")
        .says("nothing was started");
    lab.run(&["plan", "p.yaml"]).exits(6);
    // What is wrong with the environment is no server's fault.
    lab.write(
        "windlass.yaml",
        &environment("{ url: 'sqlite:app.db', create: maybe }"),
    );
    lab.run(&["run", "p.yaml"]).exits(2);
    lab.write(
        "windlass.yaml",
        &environment("{ url: 'sqlite:app.db', pool: 3 }"),
    );
    lab.run(&["run", "p.yaml"]).exits(2);
    // And there is no run, but a start that was refused: by the server that is down, and not by what is wrong here.
    lab.run(&["show", "last"]).exits(2);
    lab.write(
        "windlass.yaml",
        &environment("{ url: 'sqlite:app.db', create: true }"),
    );
    lab.run(&["plan", "p.yaml", "-o", "plan.json"]).exits(0);
    lab.write(
        "windlass.yaml",
        &environment("{ url: 'sqlite:nowhere/app.db' }"),
    );
    lab.run(&["run", "p.yaml", "--plan", "plan.json"]).exits(6);
    let refused = lab.run(&["runs", "--refused", "--json"]).exits(0);
    let refused: Vec<Json> = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(refused.len(), 2);
    for start in refused {
        assert_eq!(
            (&start["refused_by"], &start["exit"]),
            (&"unreachable".into(), &6.into())
        );
    }
}

#[test]
fn a_journal_that_is_none_is_named() {
    let lab = Lab::new();
    lab.write("p.yaml", READS);
    lab.write("journal.db", "this is no journal");
    for command in [
        &["runs"][..],
        &["show", "last"],
        &["run", "p.yaml"],
        &["resume", "last"],
    ] {
        let args = [command, &["--journal", "journal.db"]].concat();
        lab.run(&args).exits(2).says("journal.db");
    }
}

/// The journal may grow no further, as on a full disk: the run is open, and continues when there is room.
#[test]
fn a_journal_that_fails_leaves_the_run_open() {
    let lab = Lab::new();
    let big = "x".repeat(3000);
    let items: Vec<u32> = (0..200).collect();
    lab.write(
        "p.yaml",
        &format!(
            "playbook: grows\nsteps:\n  - id: each\n    foreach: {{ items: \"{items:?}\", as: n, max_parallel: 1 }}\n    \
             uses: command\n    undo: none\n    with: {{ idempotent: true, argv: [sh, -c, 'echo $1 >> done; echo {big}', sh, \"${{{{ n }}}}\"] }}\n"
        ),
    );
    let mut limited = Command::new("sh");
    let done = limited
        .args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" run p.yaml"])
        .arg(env!("CARGO_BIN_EXE_windlass"))
        .current_dir(lab.path(""))
        .env("WINDLASS_USER", "ana")
        .env_remove("WINDLASS_JOURNAL")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let done = crate::common::Done::from(done).exits(7);
    done.says("windlass resume").says("is open");
    assert_eq!(lab.state(), "interrupted");
    lab.run(&["resume", "last"]).exits(0);
    let done = lab.read("done");
    assert!(
        items
            .iter()
            .all(|n| done.lines().any(|line| line == n.to_string()))
    );
}
