//! What a plan may do on a real PostgreSQL: nothing that stays, also not where it rehearses.
use windlass_tests::{drill::Drill, servers::postgres::Postgres};

fn playbook(steps: &[(&str, &str, &str)]) -> String {
    let mut text = "playbook: asks\ntargets: { db: { kind: postgres } }\nsteps:\n".to_owned();
    for (id, kind, sql) in steps {
        text.push_str(&format!(
            "  - id: {id}\n    uses: {kind}\n    on_failure: continue\n    needs: []\n    with: {{ target: db, sql: \"{sql}\" }}\n"
        ));
    }
    text
}

#[test]
fn what_acts_is_refused_in_a_plan_and_in_a_run() {
    let server = Postgres::start(&[]);
    server.psql(
        "CREATE SEQUENCE s; CREATE VIEW innocent AS SELECT nextval('s') AS n;
         CREATE FUNCTION acts() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
         CREATE VIEW deeper AS SELECT acts() AS one FROM generate_series(1, 3)",
    );
    let acting = [
        ("promotes", "SELECT pg_promote()"),
        (
            "ends",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
        ),
        ("hidden", "SELECT * FROM innocent"),
        ("deeper", "SELECT one FROM deeper WHERE one > 0"),
        ("explained", "EXPLAIN ANALYZE SELECT acts()"),
        ("escaped", "SELECT U&\\\"pg_prom\\\\006fte\\\"()"),
    ];
    let steps: Vec<_> = acting
        .iter()
        .map(|(id, sql)| (*id, "sql.query", *sql))
        .collect();
    let drill = Drill::on(&server, &playbook(&steps));
    let planned = drill.call("plan", &[]).all;
    let ran = drill.call("run", &[]).exits(1).all;
    for (id, _) in acting {
        assert_eq!(drill.state_of(id), "failed", "{id}:\n{ran}");
    }
    assert!(planned.matches("may not call").count() >= 5, "{planned}");
    assert_eq!(
        server.ask("SELECT is_called FROM s"),
        "f",
        "nothing was drawn"
    );
    assert!(!server.in_recovery());

    // What only reads is let through, also behind the server's own views.
    let reads = [
        (
            "activity",
            "sql.query",
            "SELECT count(*) FROM pg_stat_activity",
        ),
        (
            "locks",
            "sql.query",
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)",
        ),
        (
            "files",
            "sql.query",
            "SELECT count(*) FROM pg_file_settings",
        ),
        (
            "slots",
            "sql.query",
            "SELECT count(*) FROM pg_replication_slots",
        ),
        (
            "size",
            "sql.query",
            "SELECT pg_database_size(current_database()), clock_timestamp(), random()",
        ),
        ("show", "sql.query", "SHOW server_version"),
        ("table", "sql.query", "TABLE pg_stat_user_tables"),
        ("values", "sql.query", "VALUES (1), (2)"),
    ];
    let drill = Drill::on(&server, &playbook(&reads));
    let told = drill.call("run", &[]).exits(0);
    assert!(told.all.contains("succeeded"), "{}", told.all);
}

/// Texts that the server reads as two statements. Ours does, too; and where it did not, the server would refuse them.
#[test]
fn a_second_statement_is_never_run() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int, t text); INSERT INTO n SELECT generate_series(1, 3)");
    let texts = [
        "SELECT E'a'\\n'b\\\\'' ; COMMIT; DELETE FROM n WHERE i = 1; --'",
        "SELECT true -- x\\r; COMMIT; DELETE FROM n WHERE i = 2 --\\n AND true",
        "SELECT 1; COMMIT; DELETE FROM n",
    ];
    let steps: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(at, sql)| (["a", "b", "c"][at], "sql.query", *sql))
        .collect();
    let drill = Drill::on(&server, &playbook(&steps));
    let told = [drill.call("plan", &[]).all, drill.call("run", &[]).all].concat();
    assert_eq!(server.ask("SELECT count(*) FROM n"), "3", "{told}");
    let writes = "INSERT INTO n VALUES (5, E'a'\\n'b\\\\'' ); COMMIT; DELETE FROM n; --'";
    let drill = Drill::on(&server, &playbook(&[("w", "sql.execute", writes)]));
    let told = [
        drill.call("plan", &[]).all,
        drill.call("plan", &["--rehearse"]).all,
    ]
    .concat();
    assert_eq!(server.ask("SELECT count(*) FROM n"), "3", "{told}");
}

#[test]
fn a_rehearsal_tells_what_would_refuse_it() {
    let server = Postgres::start(&[]);
    server.psql(
        "CREATE TABLE p (id int PRIMARY KEY);
         CREATE TABLE f (id int REFERENCES p DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE \"o'clock\" (\"it's\" int); INSERT INTO \"o'clock\" VALUES (1)",
    );
    let text = "playbook: p\ntargets: { db: { kind: postgres } }\nsteps:
  - { id: a, uses: sql.execute, undo: none, with: { target: db, sql: INSERT INTO p VALUES (1), expect_rows: 2 } }
  - { id: b, uses: sql.execute, undo: none, with: { target: db, sql: INSERT INTO f VALUES (7) } }\n";
    let told = Drill::on(&server, text).call("plan", &["--rehearse"]).all;
    for said in [
        "would fail: 1 rows affected, and expect_rows is 2",
        "would fail: a constraint refused",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
    let large = "SELECT repeat('x', 1000000) FROM generate_series(1, 100)";
    let asks = [
        ("named", "sql.query", "SELECT * FROM \\\"o'clock\\\""),
        ("large", "sql.query", large),
    ];
    let drill = Drill::on(&server, &playbook(&asks));
    let told = drill.call("run", &[]).exits(1).all;
    assert_eq!(drill.state_of("named"), "succeeded", "{told}");
    assert!(told.contains("the answer is larger than"), "{told}");
    let vacuum = "playbook: p\ntargets: { db: { kind: postgres } }\nsteps:\n  - { id: a, uses: sql.execute, undo: none, with: { target: db, sql: VACUUM p } }\n";
    let told = Drill::on(&server, vacuum)
        .call("validate", &[])
        .exits(2)
        .all;
    assert!(told.contains("this VACUUM refuses a transaction"), "{told}");
}

#[test]
fn what_no_guard_could_hold_is_refused() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int); INSERT INTO n SELECT generate_series(1, 3)");
    for (sql, more) in [
        (
            "WITH d AS (DELETE FROM n RETURNING *) SELECT count(*) FROM d",
            "max_rows: 1",
        ),
        ("EXPLAIN ANALYZE DELETE FROM n", "all_rows: true"),
        (
            "UPDATE n SET i = i /* all /* but */ WHERE i = 1 */",
            "max_rows: 9",
        ),
        ("DELETE FROM n RETURNING i AS where", "max_rows: 9"),
        ("ABORT", "all_rows: true"),
        ("PREPARE TRANSACTION 'w'", "all_rows: true"),
        ("COPY n FROM STDIN", "all_rows: true"),
    ] {
        let text = format!(
            "playbook: p\ntargets: {{ db: {{ kind: postgres }} }}\nsteps:\n  - {{ id: a, uses: sql.execute, undo: none, with: {{ target: db, sql: \"{sql}\", {more} }} }}\n"
        );
        let told = Drill::on(&server, &text).call("run", &[]);
        assert!(
            told.all.contains("WL0605") || told.all.contains("sql.guard"),
            "{sql}: {}",
            told.all
        );
    }
    assert_eq!(server.ask("SELECT count(*) FROM n"), "3");
    assert_eq!(server.ask("SELECT count(*) FROM pg_prepared_xacts"), "0");
}

#[test]
fn a_rehearsal_leaves_no_trace_or_does_not_take_place() {
    let server = Postgres::start(&[]);
    server.psql(
        "CREATE TABLE plain (a int); INSERT INTO plain SELECT generate_series(1, 10);
         CREATE TABLE watched (a int); INSERT INTO watched VALUES (1);
         CREATE TABLE numbered (id serial, a int);
         CREATE TABLE child (a int PRIMARY KEY); CREATE TABLE parent (b int REFERENCES child ON DELETE CASCADE);
         CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('numbered_id_seq'); RETURN NEW; END $$;
         CREATE TRIGGER tells AFTER UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION tell();
         CREATE TRIGGER tells AFTER DELETE ON parent FOR EACH ROW EXECUTE FUNCTION tell()",
    );
    let steps = [
        (
            "fine",
            "sql.execute",
            "UPDATE plain SET a = a + 1 WHERE a > 3",
        ),
        (
            "trigger",
            "sql.execute",
            "UPDATE watched SET a = 2 WHERE a = 1",
        ),
        (
            "sequence",
            "sql.execute",
            "INSERT INTO numbered (a) VALUES (1)",
        ),
        ("cascade", "sql.execute", "DELETE FROM child WHERE a = 1"),
        (
            "volatile",
            "sql.execute",
            "UPDATE plain SET a = nextval('numbered_id_seq') WHERE a = 1",
        ),
        (
            "script",
            "sql.script",
            "UPDATE plain SET a = 5 WHERE a = 4; UPDATE watched SET a = 3 WHERE a = 1",
        ),
    ];
    let drill = Drill::on(&server, &playbook(&steps));
    let state = "SELECT (SELECT sum(a) FROM plain), (SELECT sum(a) FROM watched), (SELECT is_called FROM numbered_id_seq), \
                 (SELECT count(*) FROM numbered)";
    let before = server.ask(state);
    let told = drill.call("plan", &["--rehearse"]).exits(0).all;
    assert_eq!(server.ask(state), before);
    assert!(told.contains("would affect 7 rows"), "{told}");
    assert_eq!(told.matches("not rehearsed").count(), 5, "{told}");
    for why in [
        "it fires the trigger tells of watched",
        "tells of parent",
        "nextval",
    ] {
        assert!(told.contains(why), "{why}:\n{told}");
    }
}
