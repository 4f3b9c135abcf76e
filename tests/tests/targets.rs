//! Which database a target's name means: in calls, in fleets, and where it must never be.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]
use windlass_engine::{machine::Outcome, run::Ended};
use windlass_tests::House;

const TARGETS: &str = "
environments:
  local:
    targets:
      shop: { url: 'sqlite:shop.db', create: true }
      east: { url: 'sqlite:east.db', create: true, labels: { tier: edge } }
      west: { url: 'sqlite:west.db', create: true, labels: { tier: edge } }
      other: { url: 'sqlite:other.db', create: true, labels: { tier: core } }
";

const CALLEE: &str = "
playbook: mark
inputs:
  name: { type: string }
targets:
  db: { kind: sqlite }
  own: { like: db, path: '${{ inputs.name }}-own.db' }
  edge: { kind: sqlite, many: true, select: { tier: edge } }
steps:
  - id: here
    uses: sql.execute
    with: { target: db, sql: 'CREATE TABLE marked (a)' }
    undo: none
  - id: there
    uses: sql.execute
    with: { target: own, sql: 'CREATE TABLE marked (a)' }
    undo: none
  - id: everywhere
    uses: sql.execute
    foreach: { items: targets.edge, as: db, max_items: 10 }
    with: { target: '${{ db }}', sql: 'CREATE TABLE called (a)' }
    undo: none
";

fn has(house: &House, file: &str, table: &str) -> bool {
    house.path().join(file).exists()
        && house
            .database(file)
            .query_row(
                "SELECT count(*) = 1 FROM sqlite_schema WHERE name = ?1",
                [table],
                |row| row.get(0),
            )
            .unwrap()
}

#[tokio::test]
async fn a_derived_target_means_what_its_own_playbook_says() {
    let house = House::new(TARGETS);
    let callee = house.path().join("mark.yaml");
    std::fs::write(&callee, CALLEE).unwrap();
    let caller = format!(
        "
playbook: caller
inputs:
  name: {{ type: string, default: outer }}
targets:
  shop: {{ kind: sqlite }}
  side: {{ like: shop, path: '${{{{ inputs.name }}}}-side.db' }}
steps:
  - id: sub
    uses: playbook
    with: {{ path: '{}', inputs: {{ name: inner }}, targets: {{ db: side }} }}
",
        callee.display()
    );
    let (_, ended, machine) = house.run(&caller, &[]).await;
    let why = [
        "sub/here",
        "sub/there",
        "sub/everywhere",
        "sub/everywhere[0]",
    ]
    .map(|path| {
        machine
            .instance(path)
            .and_then(|i| i.forward.failure.clone())
    });
    assert_eq!(ended, Ended::Finished(Outcome::Succeeded), "{why:?}");
    assert!(
        has(&house, "outer-side.db", "marked"),
        "by the caller's input"
    );
    assert!(
        has(&house, "inner-own.db", "marked"),
        "by the callee's input"
    );
    assert!(!house.path().join("inner-side.db").exists());
    assert!(has(&house, "east.db", "called") && has(&house, "west.db", "called"));
    assert!(!house.path().join("other.db").exists(), "another label");
}

#[tokio::test]
async fn a_fleet_is_every_target_of_its_labels() {
    let house = House::new(TARGETS);
    let playbook = "
playbook: fleet
targets:
  edge: { kind: sqlite, many: true, select: { tier: edge } }
steps:
  - id: make
    uses: sql.execute
    foreach: { items: targets.edge, as: db, max_parallel: 2, max_items: 10 }
    with: { target: '${{ db }}', sql: 'CREATE TABLE t (a)' }
    undo: { uses: sql.execute, with: { target: '${{ db }}', sql: 'DROP TABLE t' } }
  - id: boom
    uses: sql.execute
    foreach: { items: targets.edge, as: db, max_items: 10 }
    with: { target: '${{ db }}', sql: 'INSERT INTO nowhere VALUES (1)' }
    undo: none
";
    let (_, ended, machine) = house.run(playbook, &[]).await;
    assert_eq!(ended, Ended::Finished(Outcome::Compensated));
    for item in ["make[0]", "make[1]"] {
        assert_eq!(machine.instance(item).unwrap().state.as_str(), "undone");
    }
    for file in ["east.db", "west.db"] {
        assert!(house.path().join(file).exists(), "it was written to");
        assert!(!has(&house, file, "t"), "and taken back");
    }
    assert!(!house.path().join("other.db").exists());
}

#[tokio::test]
async fn never_holds_for_derived_targets_too() {
    let house = House::new(TARGETS);
    let playbook = "
playbook: guarded
inputs:
  name: { type: string, default: copy }
targets:
  shop: { kind: sqlite }
  copy: { like: shop, path: copy.db, never: [shop, scratch] }
  scratch: { like: shop, path: '${{ inputs.name }}.db', never: [shop, copy] }
steps:
  - id: write
    uses: sql.execute
    with: { target: scratch, sql: 'CREATE TABLE t (a)' }
    undo: none
  - id: other
    uses: sql.execute
    with: { target: copy, sql: 'CREATE TABLE t (a)' }
    undo: none
";
    for name in ["copy", "shop"] {
        let (_, ended, machine) = house.run(playbook, &[("name", name)]).await;
        assert_eq!(ended, Ended::Finished(Outcome::Compensated), "{name}");
        let failure = machine.instance("write").unwrap().forward.failure.clone();
        assert_eq!(failure.unwrap().code, "target.never", "{name}");
    }
    assert!(!house.path().join("copy.db").exists());
    let (_, ended, _) = house.run(playbook, &[("name", "scratch")]).await;
    assert_eq!(ended, Ended::Finished(Outcome::Succeeded));
}
