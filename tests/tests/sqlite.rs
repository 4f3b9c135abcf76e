//! Playbooks on real SQLite databases, from YAML to outcome.
use windlass_engine::{
    machine::{NodeState, Outcome},
    run::Ended,
    step::Cause,
    value::Value,
};
use windlass_tests::House;

const ENVIRONMENT: &str = "
environments:
  dev:
    targets:
      shop: { url: 'sqlite:shop.db', create: true, ledger: windlass_ledger }
approvers:
  dba: [ana, bruno]
";

#[tokio::test]
async fn a_change_runs_and_its_outputs_are_exact() {
    let house = House::new(ENVIRONMENT);
    let playbook = r#"
playbook: shop-setup
inputs:
  rows: { type: integer, default: 3 }
targets:
  shop: { kind: sqlite }
defaults:
  sql.*: { timeout: 30s, with: { target: shop } }
steps:
  - id: make
    uses: sql.script
    undo: none
    with:
      sql: |
        CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT);
        INSERT INTO orders (note) VALUES ('a;b'), (:note), (NULL);
      params: { note: "it's ${{ inputs.rows }}" }
  - id: count
    uses: sql.query
    with:
      sql: SELECT count(*) AS n, 9007199254740993 AS big FROM orders WHERE id IN (:ids)
      params: { ids: "${{ [1, 2, 3] }}" }
  - id: check
    uses: verify
    with:
      target: shop
      checks:
        - name: all are there
          sql: SELECT count(*) FROM orders
          expect: value == inputs.rows
outputs:
  n: ${{ steps.count.output.row.n }}
  big: ${{ steps.count.output.row.big + 1 }}
"#;
    let (_, ended, machine) = house.run(playbook, &[]).await;
    assert_eq!(
        ended,
        Ended::Finished(Outcome::Succeeded),
        "{:?}",
        failures(&machine)
    );
    assert_eq!(machine.outputs().get("n"), Some(&Value::Int(3)));
    assert_eq!(
        machine.outputs().get("big"),
        Some(&Value::Int(9_007_199_254_740_994))
    );
    let note: String = house
        .database("shop.db")
        .query_row("SELECT note FROM orders WHERE id = 2", [], |row| row.get(0))
        .unwrap();
    assert_eq!(note, "it's 3");
}

fn failures(machine: &windlass_engine::machine::Machine) -> Vec<String> {
    machine
        .instances()
        .filter_map(|i| {
            i.forward
                .failure
                .as_ref()
                .or(i.undo.failure.as_ref())
                .map(|f| format!("{}: {f}", i.path))
        })
        .collect()
}

#[tokio::test]
async fn a_failure_undoes_what_was_done_and_the_guards_hold() {
    let house = House::new(ENVIRONMENT);
    house
        .database("shop.db")
        .execute_batch("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1), (2), (3)")
        .unwrap();
    let playbook = r#"
playbook: guarded
targets:
  shop: { kind: sqlite }
steps:
  - id: add
    uses: sql.execute
    with: { target: shop, sql: "INSERT INTO t VALUES (4)" }
    undo:
      uses: sql.execute
      with: { target: shop, sql: "DELETE FROM t WHERE a = 4" }
  - id: too_many
    uses: sql.execute
    with: { target: shop, sql: "UPDATE t SET a = a + 10 WHERE a > 0", max_rows: 2 }
"#;
    let (_, ended, machine) = house.run(playbook, &[]).await;
    assert_eq!(
        ended,
        Ended::Finished(Outcome::Compensated),
        "{:?}",
        failures(&machine)
    );
    assert_eq!(machine.instance("add").unwrap().state, NodeState::Undone);
    let failure = machine
        .instance("too_many")
        .unwrap()
        .forward
        .failure
        .clone()
        .unwrap();
    assert_eq!(failure.cause, Cause::Refused);
    assert!(failure.message.contains("4 rows affected"), "{failure}");
    let sum: i64 = house
        .database("shop.db")
        .query_row("SELECT sum(a) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sum, 6, "as it was");
    let ledger: i64 = house
        .database("shop.db")
        .query_row(
            "SELECT count(*) FROM windlass_ledger WHERE state = 'done'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(
        ledger, 2,
        "one row for the step and one for its undo; the refused one left none"
    );
}

#[tokio::test]
async fn a_query_never_writes_and_a_timeout_ends_the_statement() {
    let house = House::new(ENVIRONMENT);
    house
        .database("shop.db")
        .execute_batch("CREATE TABLE t (a INTEGER)")
        .unwrap();
    let playbook = r#"
playbook: refused
targets:
  shop: { kind: sqlite }
steps:
  - id: sneaky
    uses: sql.query
    on_failure: continue
    with: { target: shop, sql: PRAGMA user_version = 7 }
  - id: endless
    uses: sql.query
    on_failure: continue
    timeout: 300ms
    with:
      target: shop
      sql: WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n
"#;
    let (_, ended, machine) = house.run(playbook, &[]).await;
    assert_eq!(ended, Ended::Finished(Outcome::Failed));
    let failure = |id: &str| {
        machine
            .instance(id)
            .unwrap()
            .forward
            .failure
            .clone()
            .unwrap()
    };
    assert_eq!(failure("sneaky").code, "sql.not_read_only");
    assert_eq!(failure("endless").cause, Cause::Timeout);
    let version: i64 = house
        .database("shop.db")
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 0);
}

#[tokio::test]
async fn a_command_is_ended_with_its_whole_group() {
    let house = House::new(ENVIRONMENT);
    let playbook = r#"
playbook: commands
steps:
  - id: hello
    uses: command
    with: { argv: [echo, "[1, 2]"], effect: reads, parse: json }
  - id: family
    uses: command
    on_failure: continue
    timeout: 300ms
    with: { argv: [sh, -c, "sleep 31.4159 & wait"], effect: reads }
outputs:
  second: ${{ steps.hello.output.value[1] }}
"#;
    let (_, ended, machine) = house.run(playbook, &[]).await;
    assert_eq!(
        ended,
        Ended::Finished(Outcome::Failed),
        "{:?}",
        failures(&machine)
    );
    assert_eq!(machine.outputs().get("second"), Some(&Value::Int(2)));
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let left = processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains("31.4159"));
    assert!(!left, "the grandchild is gone too");
}
