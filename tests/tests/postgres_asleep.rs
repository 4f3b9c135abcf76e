//! A client that falls asleep inside its COMMIT and wakes when another host has taken over its run.
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
playbook: pays
targets: { db: { kind: postgres } }
steps:
  - id: pay
    uses: sql.execute
    timeout: 2m
    with: { target: db, sql: INSERT INTO payments VALUES (7) }
    undo: none
"#;

#[test]
fn a_client_that_wakes_after_its_run_was_taken_over_writes_nothing() {
    let server = Postgres::start(&[]);
    // The COMMIT itself takes a while: what is deferred runs inside of it.
    server.psql(
        "CREATE TABLE payments (n int);
         CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER lingers AFTER INSERT ON payments DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION linger()",
    );
    let asleep = Drill::on(&server, PLAYBOOK);
    let mut sleeper = asleep
        .command("ana", &["run", asleep.playbook()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it is inside its COMMIT", || {
        server.ask(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'windlass/%' AND query = 'COMMIT' AND wait_event = 'PgSleep'",
        ) == "1"
    });
    let pid = Pid::from_raw(i32::try_from(sleeper.id()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();

    // On its own host nobody takes the run from a process that is there, asleep or not.
    let told = asleep.say(&["resume", "last"]).exits(5).all;
    assert!(told.contains(&format!("{}", sleeper.id())), "{told}");

    // Another host has the journal as it was, and no lock of this one.
    let awake = Drill::on(&server, PLAYBOOK);
    for entry in std::fs::read_dir(asleep.path()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("journal.db") {
            std::fs::copy(entry.path(), awake.path().join(name)).unwrap();
        }
    }
    let copy = rusqlite::Connection::open(awake.path().join("journal.db")).unwrap();
    copy.execute("UPDATE home SET host = 'another'", [])
        .unwrap();
    drop(copy);
    let told = awake.say(&["resume", "last"]).exits(0).all;
    assert!(
        told.contains("its probe found that it did not happen"),
        "{told}"
    );
    assert_eq!(server.ask("SELECT count(*) FROM payments"), "1");

    kill(pid, Signal::SIGCONT).unwrap();
    let ended = sleeper.wait().unwrap();
    assert_eq!(
        server.ask("SELECT count(*) FROM payments"),
        "1",
        "what the sleeper wrote is either the one payment or none; it ended with {ended}"
    );
}
