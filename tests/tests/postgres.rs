//! SQL steps on a real PostgreSQL.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test; how long a run takes is measured from outside of it"
)]
use std::time::{Duration, Instant};
use windlass_engine::{
    machine::{Machine, NodeState, Outcome},
    run::Ended,
    step::{Cause, Failure},
    value::Value,
};
use windlass_tests::{House, output, servers::postgres::Postgres};

fn failure(machine: &Machine, step: &str) -> Failure {
    let instance = machine.instance(step).unwrap();
    instance
        .forward
        .failure
        .as_deref()
        .cloned()
        .unwrap_or_else(|| panic!("{step}: {:?}", instance.state))
}

#[tokio::test]
async fn writes_are_exactly_once_guarded_and_undone() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE orders (id int PRIMARY KEY, state text NOT NULL); INSERT INTO orders SELECT i, 'new' FROM generate_series(1, 1001) i");
    server.make_ledger();
    let house = House::on(&server, ", ledger: windlass_ledger");
    let playbook = r#"
playbook: writes
targets: { db: { kind: postgres } }
steps:
  - id: open
    uses: sql.execute
    with:
      target: db
      sql: UPDATE orders SET state = :to WHERE id = ANY (:ids::int[]) RETURNING id, state
      params: { to: open, ids: "{1,2}" }
      expect_rows: 2
    undo: { uses: sql.execute, with: { target: db, sql: "UPDATE orders SET state = :to WHERE state = 'open'", params: { to: new } } }
  - id: listed
    uses: sql.query
    with: { target: db, sql: "SELECT count(*) AS n FROM orders WHERE id IN (:ids) AND state = :state", params: { ids: [1, 2, 3], state: open } }
  - id: too_many
    uses: sql.execute
    on_failure: continue
    with: { target: db, sql: "UPDATE orders SET state = 'x' WHERE id > :id", params: { id: 0 }, max_rows: 1000 }
  - id: boom
    uses: sql.execute
    with: { target: db, sql: INSERT INTO nowhere VALUES (1) }
    undo: none
"#;
    let (_, ended, machine) = house.run(playbook, &[]).await;
    assert_eq!(
        ended,
        Ended::Finished(Outcome::Compensated),
        "{:?}",
        failure(&machine, "boom")
    );
    assert_eq!(
        output(&machine, "listed").get("value"),
        Some(&Value::Int(2))
    );
    let guarded = failure(&machine, "too_many");
    assert_eq!(guarded.code, "sql.guard", "{guarded}");
    let boom = failure(&machine, "boom");
    assert!(boom.message.contains("42P01"), "{boom}");
    assert_eq!(machine.instance("open").unwrap().state, NodeState::Undone);
    assert_eq!(
        server.ask("SELECT count(*) FROM orders WHERE state <> 'new'"),
        "0"
    );
    assert_eq!(
        server.ask("SELECT node, phase, state FROM windlass_ledger ORDER BY at"),
        "open\tdo\tdone\nopen\tundo\tdone",
        "what was rolled back left no row"
    );
}

#[tokio::test]
async fn reads_only_read_and_values_are_exact() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE SEQUENCE s; CREATE TABLE t (a int)");
    let columns = [
        ("1.50::numeric", "1.50"),
        ("'NaN'::numeric", "NaN"),
        (
            "12345678901234567890.123456789::numeric",
            "12345678901234567890.123456789",
        ),
        ("9223372036854775807::bigint", "9223372036854775807"),
        ("0.1::float8", "0.1"),
        ("'infinity'::timestamptz", "infinity"),
        ("'infinity'::date", "infinity"),
        ("'0044-03-15 BC'::date", "0044-03-15 BC"),
        ("'1 mon -2 days 03:00'::interval", "1 mon -2 days +03:00:00"),
        ("'10.0.0.1/8'::inet", "10.0.0.1/8"),
        ("'08:00:2b:01:02:03'::macaddr", "08:00:2b:01:02:03"),
        ("'[1,5)'::int4range", "[1,5)"),
        ("B'101'::bit(3)", "101"),
        ("'sad'::mood", "sad"),
        ("5::positive", "5"),
        ("ROW(1, 'a b')", "(1,\"a b\")"),
        ("'<a/>'::xml", "<a/>"),
        ("'12:00:00+02'::timetz", "12:00:00+02"),
        ("'(1,2)'::point", "(1,2)"),
        ("'0/16B3748'::pg_lsn", "0/16B3748"),
        ("'7'::xid8", "7"),
        ("'a b'::tsvector", "'a' 'b'"),
        ("12.34::money", "$12.34"),
        ("'x'::\"char\"", "x"),
        ("'pg_class'::regclass", "pg_class"),
        (
            "'2026-01-02 03:04:05.678'::timestamp",
            "2026-01-02 03:04:05.678",
        ),
        (
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ),
    ];
    let select: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(at, (sql, _))| format!("{sql} AS c{at}"))
        .collect();
    let refused = [
        "SELECT pg_promote()",
        "SELECT pg_catalog.pg_terminate_backend(1)",
        "SELECT nextval('s')",
        "SELECT setval('s', 9)",
        "SELECT pg_advisory_lock(1)",
        "SELECT \"pg_switch_wal\"()",
        "WITH x AS (SELECT lo_create(0) AS l) SELECT * FROM x",
        "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
    ];
    let mut steps = format!(
        "  - id: exact\n    uses: sql.query\n    with: {{ target: db, sql: \"SELECT {}\" }}\n",
        select.join(", ").replace('\\', "\\\\").replace('"', "\\\"")
    );
    for (at, sql) in refused.iter().enumerate() {
        let sql = sql.replace('"', "\\\"");
        steps.push_str(&format!("  - id: refused{at}\n    uses: sql.query\n    on_failure: continue\n    with: {{ target: db, sql: \"{sql}\" }}\n"));
    }
    steps.push_str(
        r#"
  - id: lists
    uses: sql.query
    with:
      target: db
      sql: |
        SELECT ARRAY[1,NULL,3] AS a, ARRAY['x y','"'] AS b, true AS c, '\x00ff'::bytea AS d, NULL::int AS e,
          '2026-01-02 03:04:05+02'::timestamptz AS f
  - id: sizes
    uses: sql.query
    with:
      target: db
      sql: SELECT pg_total_relation_size('t') >= 0 AS ok, now() > :past AS later
      params: { past: "2000-01-01T00:00:00Z" }
  - id: shown
    uses: sql.query
    with: { target: db, sql: SHOW server_version }
  - id: many
    uses: sql.query
    with: { target: db, sql: "SELECT g FROM generate_series(1, 1000000) g", max_result_rows: 10 }
"#,
    );
    let house = House::on(&server, "");
    let playbook =
        format!("playbook: reads\ntargets: {{ db: {{ kind: postgres }} }}\nsteps:\n{steps}");
    let (_, _, machine) = house.run(&playbook, &[]).await;
    let row = output(&machine, "exact").get("row").unwrap().clone();
    for (at, (sql, text)) in columns.iter().enumerate() {
        assert_eq!(
            row.get(&format!("c{at}"))
                .map(ToString::to_string)
                .as_deref(),
            Some(*text),
            "{sql}"
        );
    }
    for (at, sql) in refused.iter().enumerate() {
        let failure = failure(&machine, &format!("refused{at}"));
        assert!(
            matches!(failure.code.as_str(), "sql.volatile" | "sql.not_read_only"),
            "{sql}: {failure}"
        );
        assert_eq!(failure.cause, Cause::Refused, "{sql}");
    }
    let lists = output(&machine, "lists").get("row").unwrap().clone();
    assert_eq!(
        lists.get("a"),
        Some(&Value::list(vec![
            Value::Int(1),
            Value::Null,
            Value::Int(3)
        ]))
    );
    assert_eq!(
        lists.get("b"),
        Some(&Value::list(vec!["x y".into(), "\"".into()]))
    );
    assert_eq!(lists.get("d"), Some(&Value::Bytes(vec![0, 255].into())));
    assert_eq!(
        lists.get("f").map(ToString::to_string).as_deref(),
        Some("2026-01-02T01:04:05Z")
    );
    let sizes = output(&machine, "sizes").get("row").unwrap().clone();
    assert_eq!(
        (sizes.get("ok"), sizes.get("later")),
        (Some(&Value::Bool(true)), Some(&Value::Bool(true)))
    );
    assert_eq!(
        output(&machine, "many").get("truncated"),
        Some(&Value::Bool(true))
    );
    assert_eq!(server.ask("SELECT count(*) FROM t"), "0");
    assert_eq!(server.ask("SELECT is_called FROM s"), "f");
}

#[tokio::test]
async fn a_timeout_ends_the_statement_and_a_lock_names_its_holder() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let house = House::on(&server, "");
    let playbook = "
playbook: waits
targets: { db: { kind: postgres } }
steps:
  - id: slow
    uses: sql.query
    timeout: 700ms
    on_failure: continue
    with: { target: db, sql: SELECT pg_sleep(60) }
  - id: slow_write
    uses: sql.execute
    timeout: 700ms
    on_failure: continue
    with: { target: db, sql: 'UPDATE t SET a = 2 WHERE pg_sleep(60) IS NOT NULL' }
    undo: none
  - id: locked
    uses: sql.execute
    on_failure: continue
    with: { target: db, sql: UPDATE t SET a = 3 WHERE a = 1, lock_timeout: 1s }
    undo: none
";
    let mut holder = server.session();
    holder.run("SET application_name = 'night shift'; BEGIN; UPDATE t SET a = 9 WHERE a = 1");
    let start = Instant::now();
    let (_, _, machine) = house.run(playbook, &[]).await;
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    for step in ["slow", "slow_write"] {
        assert_eq!(failure(&machine, step).cause, Cause::Timeout, "{step}");
    }
    let locked = failure(&machine, "locked");
    assert_eq!(locked.cause, Cause::LockTimeout, "{locked}");
    assert!(
        locked.message.contains("held by pid") && locked.message.contains("night shift"),
        "{locked}"
    );
    assert_eq!(
        server.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'windlass/%' AND state <> 'idle'"),
        "0"
    );
}

#[tokio::test]
async fn a_server_that_cannot_be_used_says_why() {
    let server = Postgres::start(&[]);
    for (url, tls, code) in [
        (server.url("nothing"), "off", "has no database nothing"),
        (
            format!(
                "postgres://app@127.0.0.1:{}/postgres",
                windlass_tests::servers::free_port()
            ),
            "off",
            "nothing listens",
        ),
        (server.url("postgres"), "verify", "offers no TLS"),
        (
            "postgres://app@no-such-host.invalid/postgres".to_owned(),
            "off",
            "is not known here",
        ),
    ] {
        let house = House::new(&format!(
            "environments:\n  local:\n    targets:\n      db: {{ url: '{url}', tls: {tls} }}\n"
        ));
        let graph = House::compile(
            "playbook: p\ntargets: { db: { kind: postgres } }\nsteps:\n  - id: a\n    uses: sql.query\n    with: { target: db, sql: SELECT 1 }\n",
        );
        let new = house.new_run(graph, &[]);
        let options = windlass_engine::run::DriveOptions {
            leave_when_waiting: true,
            ..windlass_engine::run::DriveOptions::default()
        };
        let error = house
            .driver()
            .start(new, options)
            .await
            .err()
            .map(|error| error.to_string());
        assert!(
            error.as_deref().is_some_and(|error| error.contains(code)),
            "{url}: {error:?}"
        );
    }
}

#[test]
fn a_plan_tells_the_lock_and_its_holder_and_writes_nothing() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE orders (id int PRIMARY KEY, state text); INSERT INTO orders SELECT i, 'new' FROM generate_series(1, 5000) i; ANALYZE orders");
    let folder = tempfile::tempdir().unwrap();
    let environment = format!(
        "environments:\n  local:\n    targets:\n      db: {{ url: '{}', tls: off }}\n",
        server.url("postgres")
    );
    std::fs::write(folder.path().join("windlass.yaml"), environment).unwrap();
    std::fs::write(
        folder.path().join("p.yaml"),
        "
playbook: change
targets: { db: { kind: postgres } }
steps:
  - id: before
    uses: sql.query
    with: { target: db, sql: SELECT count(*) FROM orders }
  - id: alter
    uses: sql.execute
    with: { target: db, sql: ALTER TABLE orders ADD COLUMN region text }
    undo: { uses: sql.execute, with: { target: db, sql: ALTER TABLE orders DROP COLUMN region } }
  - id: fill
    uses: sql.execute
    with: { target: db, sql: \"UPDATE orders SET state = :to WHERE id < :id\", params: { to: open, id: 100 } }
    undo: none
",
    )
    .unwrap();
    let mut holder = server.session();
    holder.run("SET application_name = 'report'; BEGIN; SELECT count(*) FROM orders");
    let state = "SELECT (SELECT string_agg(o::text, ',' ORDER BY id) FROM orders o), \
        (SELECT count(*) FROM pg_class), pg_current_xact_id_if_assigned(), (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables)";
    let before = server.ask(state);
    let done = std::process::Command::new(windlass_tests::program::windlass())
        .args(["plan", "p.yaml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    for line in [
        "gives 5000",
        "takes ACCESS EXCLUSIVE on orders: reads and writes wait",
        "about 5000 rows",
        "would wait now for pid",
        "report",
        "takes ROW EXCLUSIVE on orders",
        "Update on orders",
        "SET state = 'open' WHERE id < 100",
    ] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    assert_eq!(server.ask(state), before);
}
