//! Doubts on a real PostgreSQL: each trap that makes a COMMIT look like what it was not.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test; how long a process takes is measured from outside of it"
)]
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use windlass_tests::{
    program::windlass,
    servers::{
        pgbouncer::{PgBouncer, PoolMode},
        postgres::Postgres,
    },
};

const INSERT: &str = "
playbook: insert
targets: { db: { kind: postgres } }
steps:
  - id: insert
    uses: sql.execute
    with: { target: db, sql: INSERT INTO n VALUES (1), lock_timeout: 30s }
    undo: { uses: sql.execute, with: { target: db, sql: DELETE FROM n WHERE i = 1 } }
";

/// A folder with the playbook and its environment.
struct Lab(TempDir);

impl Lab {
    fn new(server: &Postgres) -> Self {
        Self::at(&server.url("postgres"), INSERT)
    }

    fn at(url: &str, playbook: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = format!(
            "journal: journal.db\nenvironments:\n  local:\n    targets:\n      db: {{ url: '{url}', tls: off }}\n"
        );
        std::fs::write(folder.path().join("windlass.yaml"), environment).unwrap();
        std::fs::write(folder.path().join("p.yaml"), playbook).unwrap();
        Self(folder)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(windlass());
        command
            .args(args)
            .current_dir(self.0.path())
            .env_remove("WINDLASS_JOURNAL")
            .env_remove("WINDLASS_ENV_FILE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    #[track_caller]
    fn run(&self, args: &[&str], code: i32) -> String {
        let done = self.command(args).output().unwrap();
        let told = format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        assert_eq!(done.status.code(), Some(code), "{told}");
        told
    }

    fn journal(&self) -> rusqlite::Connection {
        let journal = rusqlite::Connection::open(self.0.path().join("journal.db")).unwrap();
        journal.busy_timeout(Duration::from_secs(20)).unwrap();
        journal
    }

    fn events(&self, kind: &str) -> i64 {
        let sql = "SELECT count(*) FROM events WHERE body LIKE ?1";
        let like = format!("{{\"{kind}\"%");
        self.journal()
            .query_row(sql, [like], |row| row.get(0))
            .unwrap_or(0)
    }
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "never {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn rows(server: &Postgres) -> String {
    server.ask("SELECT count(*) FROM n")
}

/// Starts a run and holds up its journal while the INSERT runs: the transaction is open, its mark is not written yet.
fn stopped_before_its_mark(lab: &Lab, server: &Postgres) -> (Child, rusqlite::Connection) {
    let mut holder = server.session();
    holder.run("BEGIN; LOCK TABLE n");
    let running = lab.start(&["run", "p.yaml"]);
    until("waits for the table", || {
        server.ask("SELECT count(*) FROM pg_locks WHERE NOT granted") == "1"
    });
    let rival = lab.journal();
    rival.execute_batch("BEGIN IMMEDIATE").unwrap();
    holder.run("COMMIT");
    until("is before its mark", || {
        server.ask(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%pg_current_xact_id%'",
        ) == "1"
    });
    (running, rival)
}

#[test]
fn a_server_that_crashed_before_the_commit_is_believed_and_gives_the_id_to_nobody_else() {
    let mut server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int); CREATE TABLE other (i int)");
    let lab = Lab::new(&server);
    let (running, rival) = stopped_before_its_mark(&lab, &server);
    // The log of the step's own write is on disk only because the mark flushed it.
    std::thread::sleep(Duration::from_millis(100));
    server.crash();
    rival.execute_batch("ROLLBACK").unwrap();
    let done = running.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(lab.events("marked"), 1, "{told}");
    server.start_again();
    for _ in 0..5 {
        server.psql("INSERT INTO other VALUES (1)");
    }
    // Down, it could not be asked; up again, it tells that the transaction was lost, so nothing is undone either.
    assert_eq!(done.status.code(), Some(3), "{told}");
    let told = lab.run(&["retry", "last", "insert"], 1);
    assert!(
        told.contains("its probe found that it did not happen"),
        "{told}"
    );
    assert!(!told.contains("undo started"), "{told}");
    assert_eq!(rows(&server), "0", "{told}");
    let marked: i64 = {
        let body: String = lab
            .journal()
            .query_row(
                "SELECT body FROM events WHERE body LIKE '{\"marked\"%'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let xid = &body["marked"]["mark"]["token"]["transaction"]["xid"];
        xid.as_str().unwrap().parse().unwrap()
    };
    let next: i64 = server
        .ask("SELECT min(xmin::text::bigint) FROM other")
        .parse()
        .unwrap();
    assert!(
        next > marked,
        "the id {marked} was given to another transaction: {next}"
    );
}

#[test]
fn a_standby_that_lost_the_commit_is_not_believed() {
    let mut primary = Postgres::start(&["wal_level=replica"]);
    // The COMMIT takes a while: what is deferred runs inside of it.
    primary.psql(
        "CREATE TABLE n (i int);
         CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER lingers AFTER INSERT ON n DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION linger()",
    );
    let mut standby = primary.standby(&[]);
    until("streams", || {
        primary.ask("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1"
    });
    // From here on nothing reaches it.
    standby.crash();
    let lab = Lab::new(&primary);
    let mut running = lab.start(&["run", "p.yaml"]);
    until("is inside its COMMIT", || {
        primary.ask("SELECT count(*) FROM pg_stat_activity WHERE query = 'COMMIT' AND wait_event = 'PgSleep'") == "1"
    });
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!((lab.events("marked"), lab.events("succeeded")), (1, 0));
    until("is committed", || rows(&primary) == "1");
    primary.crash();
    standby.take_place_of(&primary);
    standby.start_again();
    standby.promote();
    let told = lab.run(&["resume", "last"], 3);
    assert!(told.contains("a failover came in between"), "{told}");
    let failover = "db was failed over since the run started (timeline 1 then, 2 now)";
    assert!(told.contains(failover), "{told}");
    assert_eq!(rows(&standby), "0", "lost with the primary");
    for command in ["show", "report"] {
        let told = lab.run(&[command, "last"], 0);
        assert!(told.contains(failover), "{told}");
    }
    let because = ["--because", "the new primary does not have the row"];
    lab.run(
        &[&["resolve", "last", "insert", "--not-done"][..], &because].concat(),
        0,
    );
    assert_eq!(rows(&standby), "1");
}

#[test]
fn what_a_standby_lost_with_its_ledger_row_is_not_undone() {
    let mut primary = Postgres::start(&["wal_level=replica"]);
    primary.psql("CREATE TABLE acct AS SELECT 1 AS v");
    primary.make_ledger();
    let mut standby = primary.standby(&[]);
    primary.wait_for(&standby);
    // From here on nothing reaches it.
    standby.crash();
    let playbook = "
playbook: lost
targets: { db: { kind: postgres } }
steps:
  - id: add
    uses: sql.execute
    with: { target: db, sql: UPDATE acct SET v = v + 100, all_rows: true }
    undo: { uses: sql.execute, with: { target: db, sql: UPDATE acct SET v = v - 100, all_rows: true } }
  - id: alone
    uses: sql.execute
    with: { target: db, sql: UPDATE acct SET v = v + 1000, all_rows: true }
    undo:
      uses: sql.execute
      with: { target: db, sql: UPDATE acct SET v = v - 1000, all_rows: true, transaction: none }
      probe: { sql: SELECT v FROM acct, done: row.v < 1000 }
";
    let url = format!("{}', ledger: 'windlass_ledger", primary.url("postgres"));
    let lab = Lab::at(&url, playbook);
    lab.run(&["run", "p.yaml"], 0);
    lab.run(&["undo", "last"], 0);
    let there = primary.ask("SELECT v FROM acct");
    assert_eq!(there, "1", "what the ledger holds is undone");
    lab.run(&["run", "p.yaml"], 0);
    assert_eq!(primary.ask("SELECT v FROM acct"), "1101");
    primary.crash();
    standby.take_place_of(&primary);
    standby.start_again();
    standby.promote();

    let told = lab.run(&["undo", "last"], 3);
    let lost = "the ledger windlass_ledger of db does not hold the row of attempt 1 of this step";
    assert!(told.contains(lost), "{told}");
    assert!(told.contains("windlass resolve"), "{told}");
    assert_eq!(
        standby.ask("SELECT v FROM acct"),
        "1",
        "it never had the 100"
    );
    let because = ["--because", "the new primary never had it"];
    // An undo that comes later finds the same, and so does one that is asked again.
    for (step, code) in [("alone", 3), ("add", 1)] {
        let told = lab.run(&["retry", "last", step], 3);
        assert!(told.contains(lost), "{told}");
        assert_eq!(standby.ask("SELECT v FROM acct"), "1");
        let settled = &["resolve", "last", step, "--done"][..];
        lab.run(&[settled, &because].concat(), code);
    }
    assert_eq!(standby.ask("SELECT v FROM acct"), "1");
}

#[test]
fn a_failover_in_the_midst_of_a_run_is_told() {
    let mut primary = Postgres::start(&["wal_level=replica"]);
    primary.psql("CREATE TABLE n (i int)");
    let mut standby = primary.standby(&[]);
    until("streams", || {
        primary.ask("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1"
    });
    let playbook = "
playbook: midst
targets: { db: { kind: postgres } }
steps:
  - id: first
    uses: sql.execute
    with: { target: db, sql: INSERT INTO n VALUES (1) }
    undo: none
  - id: meanwhile
    uses: wait.signal
    with: { name: moved }
  - id: second
    uses: sql.execute
    with: { target: db, sql: INSERT INTO n VALUES (2) }
    undo: none
";
    let lab = Lab::at(&primary.url("postgres"), playbook);
    let running = lab.start(&["run", "p.yaml"]);
    until("waits", || lab.events("suspended") == 1);
    primary.crash();
    standby.stop();
    standby.take_place_of(&primary);
    standby.start_again();
    standby.promote();
    lab.run(&["signal", "last", "moved"], 0);
    let done = running.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{told}");
    let failover = "db was failed over since the run started (timeline 1 then, 2 now)";
    assert!(told.contains(failover), "{told}");
}

#[test]
fn a_commit_that_waits_for_a_standby_is_settled_by_its_end() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int)");
    server.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.psql("SELECT pg_reload_conf()");
    let lab = Lab::new(&server);
    let mut running = lab.start(&["run", "p.yaml"]);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    until("waits for a standby", || server.ask(waiting) == "1");
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!((lab.events("marked"), lab.events("succeeded")), (1, 0));
    assert_eq!(
        server.ask(waiting),
        "1",
        "a client that was killed ends nothing"
    );
    // The end of the backend ends its wait, and what is in its own log stands.
    lab.run(&["resume", "last"], 0);
    assert_eq!(rows(&server), "1");
    assert_eq!(server.ask(waiting), "0");
}

#[test]
fn through_a_pooler_the_transaction_is_known_again() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int)");
    let pooler = PgBouncer::start(&server, PoolMode::Transaction);
    let lab = Lab::at(&pooler.url("postgres"), INSERT);
    for round in 1..=3 {
        let (mut running, rival) = stopped_before_its_mark(&lab, &server);
        rival.execute_batch("ROLLBACK").unwrap();
        until("is committed", || rows(&server) == round.to_string());
        running.kill().unwrap();
        running.wait().unwrap();
        if lab.events("succeeded") < round {
            lab.run(&["resume", "last"], 0);
        }
        assert_eq!(rows(&server), round.to_string(), "{}", pooler.log());
    }
}

/// An index that is made without a transaction, and taken away again without one.
const INDEX: &str = "
playbook: index
targets: { db: { kind: postgres } }
inputs: { fails: { type: boolean, default: false } }
defaults: { sql.execute: { with: { lock_timeout: 30s } } }
steps:
  - id: index
    uses: sql.execute
    with: { target: db, sql: CREATE INDEX CONCURRENTLY n_i ON n (i), transaction: none }
    probe: { sql: \"SELECT count(*) = 1 AS made FROM pg_index WHERE indexrelid = to_regclass('n_i') AND indisvalid\", done: row.made }
    undo:
      uses: sql.execute
      with: { target: db, sql: DROP INDEX CONCURRENTLY n_i, transaction: none }
      probe: { sql: \"SELECT to_regclass('n_i') IS NULL AS gone\", done: row.gone }
  - id: after
    uses: verify
    with: { target: db, checks: [ { name: wanted, sql: SELECT 1, expect: '!inputs.fails' } ] }
";

fn index_is_worked_on(server: &Postgres, verb: &str) -> bool {
    server.ask(&format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '{verb} INDEX%' AND state = 'active' AND wait_event_type = 'Lock'"
    )) == "1"
}

#[test]
fn a_statement_that_outlives_its_client_is_waited_for_and_not_run_again() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int); INSERT INTO n VALUES (1)");
    let lab = Lab::at(&server.url("postgres"), INDEX);
    let mut holder = server.session();
    holder.run("BEGIN; INSERT INTO n VALUES (2)");
    let mut running = lab.start(&["run", "p.yaml", "--input", "fails=true"]);
    until("waits for the writer", || {
        index_is_worked_on(&server, "CREATE")
    });
    running.kill().unwrap();
    running.wait().unwrap();
    let mut resumed = lab.start(&["resume", "last"]);
    until("is in doubt", || lab.events("doubted") == 1);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        lab.events("probed"),
        0,
        "nothing is asked while the statement runs"
    );
    // In the undo the same: DROP INDEX CONCURRENTLY waits for whoever uses the table.
    let mut reader = server.session();
    reader.run("BEGIN; SELECT * FROM n");
    holder.run("COMMIT");
    until("is waited for", || {
        server.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' AND state = 'active'") == "0"
    });
    reader.run("COMMIT; BEGIN; SELECT * FROM n");
    until("is undone", || index_is_worked_on(&server, "DROP"));
    let started = lab.events("started");
    assert_eq!(started, 3, "made once, verified once, undone once");
    resumed.kill().unwrap();
    resumed.wait().unwrap();
    let mut again = lab.start(&["resume", "last"]);
    until("is in doubt again", || lab.events("doubted") == 2);
    reader.run("COMMIT");
    assert_eq!(again.wait().unwrap().code(), Some(1));
    assert_eq!(lab.events("started"), started, "undone once");
    assert_eq!(server.ask("SELECT to_regclass('n_i') IS NULL"), "t");
    let told = lab.run(&["show", "last"], 0);
    assert!(told.contains("compensated"), "{told}");
}
