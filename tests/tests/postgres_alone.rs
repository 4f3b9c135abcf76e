//! Statements that refuse a transaction, on a real PostgreSQL: what their failures mean, and what settles them.
use windlass_tests::{
    drill::Drill,
    servers::{postgres::Postgres, until},
};

fn playbook(step: &str) -> String {
    format!("playbook: alone\ntargets: {{ db: {{ kind: postgres }} }}\nsteps:\n{step}")
}

const SLOW: &str = r#"
  - id: slow
    uses: sql.execute
    with: { target: db, sql: INSERT INTO n SELECT 7 FROM pg_sleep(1.5), transaction: none }
    retry: { attempts: 3, delay: 100ms }
    probe: { sql: SELECT count(*) > 0 AS made FROM n, done: row.made }
    undo: none
"#;

#[test]
fn a_connection_that_broke_leaves_a_doubt_that_the_probe_settles() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int)");
    let drill = Drill::on(&server, &playbook(SLOW));
    let running = std::thread::scope(|scope| {
        let running = scope.spawn(|| drill.call("run", &[]));
        let slow = "FROM pg_stat_activity WHERE query LIKE 'INSERT INTO n%' AND state = 'active'";
        until("the statement runs", || {
            server.ask(&format!("SELECT count(*) {slow}")) == "1"
        });
        server.psql(&format!("SELECT pg_terminate_backend(pid) {slow}"));
        running.join().unwrap()
    });
    let told = running.exits(0).all;
    assert!(told.contains("in doubt whether it happened"), "{told}");
    assert!(
        told.contains("its probe found that it did not happen"),
        "{told}"
    );
    assert_eq!(server.ask("SELECT count(*) FROM n"), "1", "{told}");
}

#[test]
fn what_a_failed_statement_leaves_is_undone() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int); INSERT INTO n VALUES (1), (1)");
    let drill = Drill::on(
        &server,
        &playbook(
            r#"
  - id: index
    uses: sql.execute
    with: { target: db, sql: CREATE UNIQUE INDEX CONCURRENTLY n_i ON n (i), transaction: none }
    probe: { sql: "SELECT count(*) = 1 AS made FROM pg_index WHERE indexrelid = to_regclass('n_i') AND indisvalid", done: row.made }
    undo:
      uses: sql.execute
      with: { target: db, sql: DROP INDEX CONCURRENTLY IF EXISTS n_i, transaction: none }
      probe: { sql: "SELECT to_regclass('n_i') IS NULL AS gone", done: row.gone }
"#,
        ),
    );
    let told = drill.call("run", &[]).exits(1).all;
    assert!(told.contains("it may have taken effect in part"), "{told}");
    assert_eq!(
        server.ask("SELECT to_regclass('n_i') IS NULL"),
        "t",
        "{told}"
    );
}

#[test]
fn an_answer_that_cannot_be_read_does_not_mean_that_nothing_happened() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int)");
    let drill = Drill::on(
        &server,
        &playbook(
            r#"
  - id: twice
    uses: sql.execute
    with: { target: db, sql: "INSERT INTO n VALUES (1) RETURNING i, i", transaction: none }
    probe: { sql: SELECT count(*) > 0 AS made FROM n, done: row.made }
    undo: none
"#,
        ),
    );
    let told = drill.call("run", &[]).exits(0).all;
    assert!(told.contains("its probe found it done"), "{told}");
    assert_eq!(server.ask("SELECT count(*) FROM n"), "1");
}

#[test]
fn of_a_script_half_way_the_probe_is_not_believed_where_it_says_no() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int)");
    let text = playbook(
        r#"
  - id: many
    uses: sql.script
    with: { target: db, transaction: none, sql: "INSERT INTO n VALUES (1); INSERT INTO n SELECT 2 FROM pg_sleep(1.5); INSERT INTO n VALUES (3)" }
    probe: { sql: SELECT count(*) > 0 AS made FROM n WHERE i = 3, done: row.made }
    undo: none
"#,
    );
    let drill = Drill::on(&server, &text);
    let mut running = drill
        .command("ana", &["run", drill.playbook()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the second runs", || {
        server.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO n SELECT 2%' AND state = 'active'") == "1"
    });
    running.kill().unwrap();
    running.wait().unwrap();
    let told = drill.say(&["resume", "last"]).exits(3).all;
    assert!(
        told.contains("its statement 2 ran without a transaction"),
        "{told}"
    );
    assert_eq!(
        server.ask("SELECT string_agg(i::text, ',' ORDER BY i) FROM n"),
        "1,2",
        "{told}"
    );

    let set = text.replace("INSERT INTO n VALUES (1);", "SET search_path TO elsewhere;");
    let told = Drill::on(&server, &set).call("run", &[]).exits(2).all;
    assert!(told.contains("SET lasts for one session"), "{told}");
}
