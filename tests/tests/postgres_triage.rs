//! The triage playbooks that ship, on a server in trouble.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test; how long a process takes is measured from outside of it"
)]
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use windlass_tests::{program::windlass, servers::postgres::Postgres};

fn lab(server: &Postgres) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let environment = format!(
        "journal: journal.db\nenvironments:\n  local:\n    targets:\n      db: {{ url: '{}', tls: off }}\n",
        server.url("postgres")
    );
    std::fs::write(folder.path().join("windlass.yaml"), environment).unwrap();
    folder
}

fn playbook(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("playbooks/postgres").join(name)
}

#[track_caller]
fn run(lab: &TempDir, args: &[&str], code: i32) -> String {
    let done = Command::new(windlass())
        .args(args)
        .current_dir(lab.path())
        .env("WINDLASS_USER", "ana")
        .output()
        .unwrap();
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert_eq!(done.status.code(), Some(code), "{told}");
    told
}

#[track_caller]
fn until(server: &Postgres, sql: &str, answer: &str) {
    let start = Instant::now();
    while server.ask(sql) != answer {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{sql} is never {answer}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_session_that_was_picked_is_ended_and_no_other() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let lab = lab(&server);
    let path = playbook("blocking-sessions");
    let path = path.to_str().unwrap();
    let quiet = run(&lab, &["run", path, "--input", "waiting=0s"], 0);
    assert!(quiet.contains("holders = 0"), "{quiet}");

    let mut holder = server.session();
    holder.run("SET application_name = 'forgotten'; BEGIN; UPDATE t SET a = 2");
    let mut bystander = server.session();
    bystander.run("SET application_name = 'bystander'; BEGIN; SELECT 1");
    let waiter = std::thread::scope(|scope| {
        let waiter =
            scope.spawn(|| server.try_psql("SET statement_timeout = '20s'; UPDATE t SET a = 3"));
        until(
            &server,
            "SELECT count(*) FROM pg_locks WHERE NOT granted",
            "1",
        );
        let asked = run(
            &lab,
            &["run", path, "--no-wait", "--input", "waiting=1ms"],
            4,
        );
        assert!(
            asked.contains("forgotten") && !asked.contains("bystander"),
            "{asked}"
        );
        let told = run(
            &lab,
            &[
                "approve",
                "last",
                "pick",
                "--answer",
                "sessions=1",
                "--drive",
            ],
            0,
        );
        assert!(told.contains("holders = 1"), "{told}");
        waiter.join().unwrap()
    });
    assert!(waiter.is_ok(), "{waiter:?}");
    assert_eq!(server.ask("SELECT a FROM t"), "3");
    let left = "SELECT string_agg(application_name, ',') FROM pg_stat_activity WHERE application_name IN ('forgotten', 'bystander')";
    assert_eq!(server.ask(left), "bystander");
}

#[test]
fn what_holds_back_the_horizon_and_what_autovacuum_missed_is_found() {
    let server = Postgres::start(&["autovacuum=off", "max_prepared_transactions=2"]);
    let lab = lab(&server);
    let (long, health) = (playbook("long-transactions"), playbook("autovacuum-health"));
    let (long, health) = (long.to_str().unwrap(), health.to_str().unwrap());
    let fine = run(&lab, &["run", long], 0);
    assert!(fine.contains("succeeded"), "{fine}");

    let mut holder = server.session();
    holder
        .run("SET application_name = 'night job'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    server.psql("CREATE TABLE t (a int) WITH (autovacuum_enabled = no, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2900)");
    server.psql("INSERT INTO t SELECT generate_series(1, 3000)");
    server.psql("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left over'");
    server.psql("UPDATE t SET a = a + 1");
    let told = run(&lab, &["run", long, "--input", "older=1ms"], 1);
    assert!(
        told.contains("no transaction is older than allowed"),
        "{told}"
    );
    // Who it is stands in the outputs, whatever the verdict.
    assert!(
        told.contains("night job") && told.contains("failed"),
        "{told}"
    );
    let page = run(&lab, &["show", "last", "--json"], 0);
    assert!(
        page.contains("night job") && page.contains("left over"),
        "{page}"
    );

    until(
        &server,
        "SELECT pg_stat_force_next_flush() IS NOT NULL AND n_dead_tup >= 3000 FROM pg_stat_user_tables",
        "t",
    );
    let told = run(&lab, &["run", health, "--input", "dead_rows=0"], 1);
    assert!(told.contains("autovacuum is on"), "{told}");
    assert!(told.contains("no table is far behind"), "{told}");
    // By the settings of the table itself, and switched off in a word that is none of the usual two.
    let page = run(&lab, &["show", "last", "--json"], 0);
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["outputs"]["behind"][0]["threshold"], 2900, "{page}");
    assert_eq!(page["outputs"]["forbidden"][0]["name"], "t", "{page}");
}
