//! What a process that was killed has left running on its server: its locks are in the way of no attempt, and outlive no run.
#![expect(
    clippy::unwrap_used,
    reason = "what a test shares may panic as the test may"
)]
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::process::Stdio;
use windlass_tests::{
    drill::Drill,
    servers::{postgres::Postgres, until},
};

const PLAYBOOK: &str = r#"
playbook: slow
targets: { db: { kind: postgres } }
steps:
  - id: a_step_with_a_name_that_is_longer_than_the_server_keeps_of_it
    uses: sql.execute
    with: { target: db, sql: "UPDATE n SET i = i + 1 WHERE pg_sleep((SELECT s FROM speed)) IS NOT NULL", lock_timeout: 2s }
    undo: { uses: sql.execute, with: { target: db, sql: UPDATE n SET i = i - 1 WHERE true } }
"#;

const LEFT: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'windlass/%' AND state <> 'idle' \
                    AND query LIKE 'UPDATE n%'";

/// A run whose process is gone, and whose statement is not.
fn killed(server: &Postgres) -> Drill {
    server.psql("DROP TABLE IF EXISTS n, speed; CREATE TABLE n (i int); INSERT INTO n VALUES (1); CREATE TABLE speed (s float8); INSERT INTO speed VALUES (600)");
    let drill = Drill::on(server, PLAYBOOK);
    let mut driver = drill
        .command("ana", &["run", drill.playbook()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the statement runs", || server.ask(LEFT) == "1");
    let pid = Pid::from_raw(i32::try_from(driver.id()).unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    driver.wait().unwrap();
    assert_eq!(server.ask(LEFT), "1", "the server has not noticed");
    drill
}

#[test]
fn the_next_attempt_does_not_wait_for_it() {
    let server = Postgres::start(&[]);
    let drill = killed(&server);
    server.psql("UPDATE speed SET s = 0");
    drill.say(&["resume", "last"]).exits(0);
    assert_eq!(server.ask(LEFT), "0");
    assert_eq!(server.ask("SELECT i FROM n"), "2");
}

#[test]
fn it_does_not_outlive_a_run_that_is_cancelled() {
    let server = Postgres::start(&[]);
    let drill = killed(&server);
    drill.say(&["cancel", "last", "--leave"]).exits(0);
    assert_eq!(server.ask(LEFT), "0");
    assert_eq!(server.ask("SELECT i FROM n"), "1");
}
