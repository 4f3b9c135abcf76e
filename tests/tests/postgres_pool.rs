//! Connections of one process to a real PostgreSQL: bounded, used again, and never in anybody's way.
#![expect(
    clippy::disallowed_methods,
    reason = "how long a run takes is measured from outside of it"
)]
use std::time::{Duration, Instant};
use windlass_engine::{machine::Outcome, run::Ended, value::Value};
use windlass_tests::{House, output, servers::postgres::Postgres};

/// How many connections of windlass a server has let in.
fn let_in(server: &Postgres) -> usize {
    let log = server.log();
    let authorized = log
        .lines()
        .filter(|line| line.contains("connection authorized"));
    authorized
        .filter(|line| line.contains("application_name=windlass"))
        .count()
}

#[tokio::test]
async fn a_target_has_no_more_connections_than_its_pool() {
    let server = Postgres::start(&[]);
    let house = House::on(&server, ", pool: 2");
    let playbook = "
playbook: crowds
targets: { db: { kind: postgres } }
steps:
  - id: each
    uses: sql.query
    foreach: { items: [1, 2, 3, 4, 5, 6], max_parallel: 6, max_items: 6 }
    timeout: 30s
    with:
      target: db
      sql: |
        SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'windlass/%each%') AS there, pg_sleep(0.2)
  - id: crowded
    uses: sql.query
    foreach: { items: [1, 2, 3], max_parallel: 3, max_items: 3, max_failures: 3 }
    timeout: 4s
    on_failure: continue
    with: { target: db, sql: SELECT pg_sleep(2.5) }
";
    let (_, _, machine) = house.run(playbook, &[]).await;
    for item in 0..6 {
        let there = output(&machine, &format!("each[{item}]"))
            .get("row")
            .unwrap()
            .get("there")
            .cloned();
        assert!(matches!(there, Some(Value::Int(1 | 2))), "{there:?}");
    }
    let full = (0..3)
        .filter_map(|item| {
            machine
                .instance(&format!("crowded[{item}]"))
                .unwrap()
                .forward
                .failure
                .clone()
        })
        .collect::<Vec<_>>();
    assert_eq!(full.len(), 1, "{full:?}");
    assert!(
        matches!(full[0].code.as_str(), "target.pool" | "sql.timeout"),
        "{full:?}"
    );
}

#[tokio::test]
async fn one_connection_serves_many_steps_and_carries_nothing_from_one_to_the_next() {
    let server = Postgres::start(&["log_connections=on"]);
    server.psql(
        "CREATE TABLE n (i int);
         CREATE FUNCTION leaves() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           PERFORM set_config('search_path', 'elsewhere', false), set_config('lock_timeout', '1', false), pg_advisory_lock(7);
           CREATE TEMP TABLE IF NOT EXISTS left_behind (i int);
           RETURN NEW; END $$;
         CREATE TRIGGER leaves BEFORE INSERT ON n FOR EACH ROW EXECUTE FUNCTION leaves()",
    );
    let house = House::on(&server, "");
    let mut playbook = "
playbook: follows
targets: { db: { kind: postgres } }
steps:
  - id: leaves
    uses: sql.execute
    with: { target: db, sql: INSERT INTO n VALUES (1) }
    undo: none
  - id: finds
    uses: sql.query
    with:
      target: db
      sql: |
        SELECT current_setting('search_path') AS path, to_regclass('left_behind') IS NULL AS no_table,
          (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS locks,
          current_setting('application_name') LIKE 'windlass/%/finds' AS named
"
    .to_owned();
    for step in 0..20 {
        playbook.push_str(&format!(
            "  - id: s{step}\n    uses: sql.query\n    with: {{ target: db, sql: 'SELECT {step} AS n' }}\n"
        ));
    }
    let (_, ended, machine) = house.run(&playbook, &[]).await;
    assert_eq!(ended, Ended::Finished(Outcome::Succeeded));
    let found = output(&machine, "finds").get("row").unwrap();
    let wanted = [
        ("path", Value::from("\"$user\", public")),
        ("no_table", Value::Bool(true)),
        ("locks", Value::Int(0)),
        ("named", Value::Bool(true)),
    ];
    for (column, value) in wanted {
        assert_eq!(found.get(column), Some(&value), "{column}");
    }
    // One that asks who the server is, one for the steps, one that flushes before the COMMIT.
    assert!(let_in(&server) <= 3, "{}", server.log());
}

#[tokio::test]
async fn a_connection_that_is_kept_is_in_nobodys_way() {
    let server = Postgres::start(&[]);
    let house = House::new(&format!(
        "environments:\n  local:\n    targets:\n      db: {{ url: '{}', tls: off }}\n      maintenance: {{ url: '{}', tls: off }}\n",
        server.url("scratch"),
        server.url("postgres"),
    ));
    server.psql("CREATE DATABASE scratch");
    let playbook = "
playbook: drops
targets: { db: { kind: postgres }, maintenance: { kind: postgres } }
steps:
  - id: reads
    uses: sql.query
    with: { target: db, sql: SELECT 1 }
  - id: drops
    uses: sql.execute
    with: { target: maintenance, sql: DROP DATABASE scratch, transaction: none }
    probe: { sql: \"SELECT count(*) = 0 AS done FROM pg_database WHERE datname = 'scratch'\", done: row.done }
    undo: none
  - id: reads_again
    uses: sql.query
    with: { target: maintenance, sql: SELECT 1 }
  - id: rests
    uses: command
    with: { argv: [sleep, '3'], idempotent: true }
    undo: none
";
    let start = Instant::now();
    let running = house.run(playbook, &[]);
    let watching = async {
        let kept = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'windlass'";
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(server.ask(kept), "0", "closed while the run rests");
    };
    let ((_, ended, machine), ()) = tokio::join!(running, watching);
    assert_eq!(
        ended,
        Ended::Finished(Outcome::Succeeded),
        "{:?}",
        machine.instance("drops").unwrap().forward.failure
    );
    // The server waits up to five seconds for others to leave a database that is to be dropped.
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_connection_that_was_ended_meanwhile_is_made_anew() {
    let server = Postgres::start(&[]);
    let house = House::on(&server, "");
    let playbook = format!("
playbook: ended
targets: {{ db: {{ kind: postgres }} }}
steps:
  - id: reads
    uses: sql.query
    with: {{ target: db, sql: SELECT pg_backend_pid() AS pid }}
  - id: ends
    uses: command
    with:
      argv: [psql, -X, '{}', -c, \"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'windlass'\"]
      idempotent: true
    undo: none
  - id: reads_again
    uses: sql.query
    with: {{ target: db, sql: SELECT pg_backend_pid() AS pid }}
  - id: ended_beside
    uses: sql.query
    with: {{ target: db, sql: SELECT pg_backend_pid() AS pid }}
", server.url("postgres"));
    let (_, ended, machine) = house.run(&playbook, &[]).await;
    assert_eq!(
        ended,
        Ended::Finished(Outcome::Succeeded),
        "{:?}",
        machine.instance("ends").unwrap().forward.failure
    );
    let pid = |step: &str| output(&machine, step).get("value").cloned();
    assert_ne!(pid("reads"), pid("reads_again"));
    assert_eq!(pid("reads_again"), pid("ended_beside"));
}
