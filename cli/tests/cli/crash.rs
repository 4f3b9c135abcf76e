//! Killed, resumed, fought over, tampered with.
use crate::common::{Lab, settings};
use nix::sys::signal::Signal;

const SLOW: &str = r#"
playbook: slow
targets:
  app: { kind: sqlite }
steps:
  - id: table
    uses: sql.execute
    with: { target: app, sql: CREATE TABLE n (i INTEGER) }
    undo: none
  - id: first
    uses: sql.execute
    with: { target: app, sql: INSERT INTO n VALUES (1) }
    undo: none
  - id: pause
    uses: wait.for
    with: { duration: 1500ms }
  - id: second
    uses: sql.execute
    with: { target: app, sql: INSERT INTO n VALUES (2) }
    undo: none
"#;

#[test]
fn killed_in_the_middle_and_resumed_it_goes_on_from_its_place() {
    let lab = Lab::new();
    lab.write("p.yaml", SLOW);
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("pause", "waiting");
    running.signal(Signal::SIGKILL);
    running.wait();
    let page = lab
        .run(&["show", "last"])
        .exits(0)
        .says("driven by    no process")
        .says("windlass resume");
    assert!(page.stdout.contains("waiting"), "{}", page.all());
    let done = lab.run(&["resume", "last"]).exits(0).says("resumed by ana");
    assert!(!done.stdout.contains("first: started"), "{}", done.all());
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 2);
    lab.run(&["audit"]).exits(0).says("holds run").says("head");
}

#[test]
fn an_edited_byte_is_named_by_run_and_event() {
    let lab = Lab::new();
    lab.write("p.yaml", SLOW);
    lab.run(&["run", "p.yaml", "-q"]).exits(0);
    let id = lab.run_id();
    let holds = lab.run(&["audit", "last", "--json"]).exits(0);
    let audit: serde_json::Value = serde_json::from_str(&holds.stdout).unwrap();
    let head = audit[0]["head"]["hash"].as_str().unwrap().to_owned();
    lab.run(&["audit", "last", "--expect", &head]).exits(0);
    lab.run(&["audit", "last", "--expect", &"0".repeat(64)])
        .exits(1)
        .says("its head is not the one expected");
    // One byte of the stored text of an event.
    let path = lab.path(".windlass/journal.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(connection);
    let mut bytes = std::fs::read(&path).unwrap();
    let needle = b"\"node\":\"second\"";
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap();
    bytes[at + needle.len() - 2] = b't';
    std::fs::write(&path, bytes).unwrap();
    let done = lab
        .run(&["audit"])
        .exits(1)
        .says(&format!("run {id}, event "));
    settings(&lab)
        .bind(|| insta::assert_snapshot!("damaged", format!("{}{}", done.stdout, done.stderr)));
}

#[test]
fn a_run_that_was_taken_out_of_the_list_is_found() {
    let lab = Lab::new();
    lab.write("p.yaml", SLOW);
    lab.run(&["run", "p.yaml", "-q"]).exits(0);
    let connection = rusqlite::Connection::open(lab.path(".windlass/journal.db")).unwrap();
    connection
        .execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM runs")
        .unwrap();
    lab.run(&["audit"])
        .exits(1)
        .says("belong to a run that its list of runs does not have");
}

#[test]
fn of_two_that_resume_at_once_one_drives_and_the_other_says_who() {
    let lab = Lab::new();
    lab.write("p.yaml", SLOW);
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("pause", "waiting");
    running.signal(Signal::SIGKILL);
    running.wait();
    let one = lab.spawn("bruno", &["resume", "last"]);
    let two = lab.spawn("bruno", &["resume", "last"]);
    let pids = [one.pid(), two.pid()];
    let (one, two) = (one.wait(), two.wait());
    let mut codes = [one.code, two.code];
    codes.sort_unstable();
    assert_eq!(codes, [0, 5], "{}\n{}", one.all(), two.all());
    let (refused, driver) = if one.code == 5 {
        (one, pids[1])
    } else {
        (two, pids[0])
    };
    assert!(
        refused.stderr.contains("is driven by bruno")
            && refused.stderr.contains(&format!("process {driver}")),
        "{}",
        refused.all()
    );
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 2);
}

const PROGRAM: &str = r#"
playbook: program
steps:
  - id: before
    uses: wait.for
    with: { duration: 1ms }
  - id: work
    uses: command
    with: { argv: [sh, -c, "echo started >> log.txt; sleep 30"] }
    undo: none
  - id: after
    uses: command
    with: { argv: [sh, -c, "echo after >> log.txt"] }
    undo: none
"#;

/// A run whose program was killed with it, so that nobody can know what it did.
fn in_doubt() -> Lab {
    let lab = Lab::new();
    lab.write("p.yaml", PROGRAM);
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("work", "running");
    running.signal(Signal::SIGKILL);
    running.wait();
    lab
}

#[test]
fn a_doubt_that_nothing_settles_waits_for_a_person() {
    let lab = in_doubt();
    let done = lab.run(&["resume", "last"]).exits(3);
    settings(&lab).bind(|| insta::assert_snapshot!("in_doubt", done.stdout));
    let page = lab.run(&["show", "last"]).exits(0);
    settings(&lab).bind(|| insta::assert_snapshot!("in_doubt_page", page.stdout));
    lab.run(&["resolve", "last", "work", "--done"]).exits(2);
    lab.run(&[
        "resolve",
        "last",
        "work",
        "--done",
        "--because",
        "x",
        "--output",
        "{\"a\": 1}",
    ])
    .exits(2)
    .says("does not fit the output of command");
    lab.run(&["resolve", "last", "wrk", "--done", "--because", "x"])
        .exits(2)
        .says("did you mean");
    lab.run(&[
        "resolve",
        "last",
        "work",
        "--done",
        "--because",
        "the log says so",
    ])
    .exits(0)
    .says("ana says it is done: the log says so");
    let log = std::fs::read_to_string(lab.path("log.txt")).unwrap();
    assert_eq!(log, "started\nafter\n");
}

#[test]
fn not_done_runs_it_again() {
    let lab = in_doubt();
    lab.write("p.yaml", PROGRAM);
    lab.run(&["resume", "last", "-q"]).exits(3);
    let again = lab.spawn(
        "bruno",
        &[
            "resolve",
            "last",
            "work",
            "--not-done",
            "--because",
            "the host was rebooted",
        ],
    );
    lab.until("a second attempt", |page| {
        page["steps"][1]["forward"]["attempts"] == 2 && page["steps"][1]["state"] == "running"
    });
    again.signal(Signal::SIGKILL);
    again.wait();
    let log = std::fs::read_to_string(lab.path("log.txt")).unwrap();
    assert_eq!(log, "started\nstarted\n");
}

const INSERT: &str = r#"
playbook: insert
targets:
  app: { kind: sqlite }
steps:
  - id: insert
    uses: sql.execute
    with: { target: app, sql: INSERT INTO n VALUES (1), lock_timeout: 30s }
    undo: { uses: sql.execute, with: { target: app, sql: DELETE FROM n WHERE i = 1 } }
  - id: after
    uses: sql.query
    with: { target: app, sql: SELECT count(*) FROM n }
outputs:
  rows: ${{ steps.after.output.value }}
"#;

/// Kills a run when its COMMIT is through and the journal does not know it yet.
fn killed_after_the_commit(lab: &Lab) {
    lab.execute("app.db", "CREATE TABLE n (i INTEGER)");
    lab.write("p.yaml", INSERT);
    // Whoever reads holds up the COMMIT of a database without a write-ahead log …
    let reader = rusqlite::Connection::open(lab.path("app.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM n").unwrap();
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    let journal = lab.path(".windlass/journal.db");
    lab.until("marked", |_| {
        lab.count(
            ".windlass/journal.db",
            "SELECT count(*) FROM events WHERE body LIKE '{\"marked\"%'",
        ) == 1
    });
    // … until the journal is held up instead.
    let rival = rusqlite::Connection::open(&journal).unwrap();
    rival
        .busy_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    rival.execute_batch("BEGIN IMMEDIATE").unwrap();
    reader.execute_batch("COMMIT").unwrap();
    let start = std::time::Instant::now();
    while lab.count("app.db", "SELECT count(*) FROM n") == 0 {
        assert!(start.elapsed().as_secs() < 30, "the COMMIT never came");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running.signal(Signal::SIGKILL);
    running.wait();
    rival.execute_batch("ROLLBACK").unwrap();
    let known = lab.count(
        ".windlass/journal.db",
        "SELECT count(*) FROM events WHERE body LIKE '{\"succeeded\"%'",
    );
    assert_eq!(known, 0, "the journal does not know");
}

#[test]
fn killed_between_commit_and_journal_the_ledger_tells() {
    let lab = Lab::new();
    killed_after_the_commit(&lab);
    lab.run(&["resume", "last"]).exits(0).says("rows = 1");
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 1);
}

#[test]
fn killed_between_commit_and_journal_without_a_ledger_a_person_tells() {
    let lab = Lab::new();
    lab.write(
        "windlass.yaml",
        &crate::common::ENVIRONMENT.replace(", ledger: windlass_ledger", ""),
    );
    killed_after_the_commit(&lab);
    lab.run(&["resume", "last"])
        .exits(3)
        .says("in doubt")
        .says("windlass resolve");
    let because = ["--because", "the row is there"];
    lab.run(&[&["resolve", "last", "insert", "--done"][..], &because].concat())
        .exits(0)
        .says("rows = 1");
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 1);
}
