//! The locks that a plan tells, beside those that the server takes when the statement really runs.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]
use std::collections::BTreeMap;
use windlass_tests::{drill::Drill, servers::postgres::Postgres};

const TABLES: &str = "
    CREATE TABLE t (id int PRIMARY KEY, a int, b text, j int);
    INSERT INTO t SELECT i, i, 'x', 1 FROM generate_series(1, 100) i;
    CREATE TABLE other (id int PRIMARY KEY, t_id int);
    CREATE TABLE parted (id int NOT NULL, a int) PARTITION BY RANGE (id);
    CREATE TABLE part (id int NOT NULL, a int);
    CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (1000) TO (2000);
    CREATE TABLE heir (id int NOT NULL, a int);
    CREATE TABLE elder (id int, a int);
    CREATE INDEX t_a ON t (a);
    CREATE UNIQUE INDEX t_j ON t (id, j);
    CREATE SCHEMA shop; CREATE TABLE shop.\"Or ders\" (id int);
    CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM other;
    CREATE VIEW watched AS SELECT * FROM other;
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER told BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION f();
    ALTER TABLE t ADD CONSTRAINT small CHECK (a < 1000000) NOT VALID";

/// Each may run in a transaction, and does here.
const STATEMENTS: &[&str] = &[
    "ALTER TABLE IF EXISTS ONLY t ADD COLUMN c int",
    "ALTER TABLE t ADD c int DEFAULT 1, ALTER a SET STATISTICS 100",
    "ALTER TABLE t ALTER a SET STATISTICS 100",
    "ALTER TABLE t ALTER COLUMN a SET (n_distinct = 5)",
    "ALTER TABLE t ALTER a TYPE bigint",
    "ALTER TABLE t ALTER a SET NOT NULL",
    "ALTER TABLE t ALTER a SET DEFAULT 1",
    "ALTER TABLE t ADD COLUMN made int GENERATED ALWAYS AS (a + 1) STORED",
    "ALTER TABLE t ADD COLUMN counted bigserial",
    "ALTER TABLE t ADD COLUMN counted int GENERATED ALWAYS AS IDENTITY",
    "ALTER TABLE t ADD COLUMN at timestamptz DEFAULT clock_timestamp()",
    "ALTER TABLE t SET TABLESPACE pg_default",
    "ALTER TABLE t DROP COLUMN a",
    "ALTER TABLE t VALIDATE CONSTRAINT small",
    "ALTER TABLE t ADD CONSTRAINT big CHECK (a > 0) NOT VALID",
    "ALTER TABLE t ADD UNIQUE (a)",
    "ALTER TABLE t ADD CONSTRAINT one UNIQUE USING INDEX t_j",
    "ALTER TABLE other ADD FOREIGN KEY (t_id) REFERENCES t (id)",
    "ALTER TABLE other ADD CONSTRAINT k FOREIGN KEY (t_id) REFERENCES t NOT VALID",
    "ALTER TABLE other ADD COLUMN more int REFERENCES t",
    "ALTER TABLE t SET (autovacuum_enabled = false, fillfactor = 90)",
    "ALTER TABLE t RESET (fillfactor)",
    "ALTER TABLE t CLUSTER ON t_a",
    "ALTER TABLE t SET UNLOGGED",
    "ALTER TABLE t RENAME a TO z",
    "ALTER TABLE t OWNER TO CURRENT_USER",
    "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE other DISABLE TRIGGER told",
    "ALTER TABLE t REPLICA IDENTITY FULL",
    "ALTER TABLE heir INHERIT elder",
    "ALTER TABLE parted ATTACH PARTITION part FOR VALUES FROM (1) TO (10)",
    "ALTER TABLE parted DETACH PARTITION part_1",
    "CREATE TABLE part_2 PARTITION OF parted FOR VALUES FROM (2000) TO (3000)",
    "CREATE TABLE refers (id int REFERENCES t, o int REFERENCES other (id))",
    "CREATE INDEX ON t (b)",
    "CREATE UNIQUE INDEX IF NOT EXISTS i ON ONLY t (id, b)",
    "CREATE OR REPLACE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)",
    "CREATE POLICY p ON t USING (true)",
    "CREATE STATISTICS s ON a, b FROM t",
    "DROP TABLE IF EXISTS part, heir",
    "DROP INDEX t_a",
    "DROP TRIGGER told ON other",
    "DROP VIEW watched",
    "DROP MATERIALIZED VIEW seen",
    "TRUNCATE TABLE ONLY part, heir RESTART IDENTITY",
    "ANALYZE VERBOSE t (a), other",
    "REINDEX TABLE t",
    "REINDEX (VERBOSE) INDEX t_a",
    "CLUSTER t USING t_a",
    "REFRESH MATERIALIZED VIEW seen",
    "LOCK TABLE t, other IN SHARE ROW EXCLUSIVE MODE NOWAIT",
    "LOCK t",
    "COMMENT ON TABLE t IS 'x'",
    "UPDATE ONLY t SET a = 2 WHERE id = 1",
    "DELETE FROM shop.\"Or ders\" WHERE id = 1",
    "INSERT INTO other VALUES (1, 1)",
    "WITH gone AS (DELETE FROM part WHERE id = 1 RETURNING id) INSERT INTO heir SELECT id FROM gone",
    "COPY t TO '/dev/null'",
];

/// These refuse a transaction: what the manual says of them.
const ALONE: &[(&str, &str)] = &[
    (
        "CREATE INDEX CONCURRENTLY i ON t (b)",
        "SHARE UPDATE EXCLUSIVE on t",
    ),
    (
        "DROP INDEX CONCURRENTLY IF EXISTS t_a",
        "SHARE UPDATE EXCLUSIVE on t",
    ),
    (
        "REINDEX TABLE CONCURRENTLY t",
        "SHARE UPDATE EXCLUSIVE on t",
    ),
    (
        "VACUUM (ANALYZE, VERBOSE) t, other",
        "SHARE UPDATE EXCLUSIVE on other",
    ),
    ("VACUUM (FULL) t", "ACCESS EXCLUSIVE on t"),
    ("VACUUM FULL VERBOSE t", "ACCESS EXCLUSIVE on t"),
    (
        "ALTER TABLE parted DETACH PARTITION part_1 CONCURRENTLY",
        "SHARE UPDATE EXCLUSIVE on parted",
    ),
];

const STRENGTH: [&str; 8] = [
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
];

fn strength(lock: &str) -> usize {
    STRENGTH.iter().position(|known| *known == lock).unwrap()
}

/// The strongest lock on each table while a transaction that ran the statement is open.
fn taken(server: &Postgres, statement: &str) -> BTreeMap<String, &'static str> {
    // Names are looked up by number: what was dropped has none any more.
    let tables = server.ask(
        "SELECT string_agg(oid || '=' || oid::regclass, ',') FROM pg_class \
         WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace IN ('public'::regnamespace, 'shop'::regnamespace)",
    );
    let names: BTreeMap<&str, &str> = tables
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let seen = server
        .try_psql(&format!(
            "BEGIN; {statement}; SELECT 'LOCK=' || relation || '=' || mode FROM pg_locks \
             WHERE pid = pg_backend_pid() AND locktype = 'relation'; ROLLBACK"
        ))
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
    let mut all: BTreeMap<String, &'static str> = BTreeMap::new();
    for line in seen.lines().filter_map(|line| line.strip_prefix("LOCK=")) {
        let (relation, mode) = line.split_once('=').unwrap();
        let Some(name) = names.get(relation) else {
            continue;
        };
        let lock = STRENGTH
            .into_iter()
            .find(|lock| format!("{}LOCK", lock.replace(' ', "")) == mode.to_uppercase())
            .unwrap();
        let strongest = all.entry((*name).to_owned()).or_insert(lock);
        if strength(lock) > strength(strongest) {
            *strongest = lock;
        }
    }
    all
}

/// Whether a statement writes a table into a new file.
fn rewrites(server: &Postgres, statement: &str) -> bool {
    let files = "SELECT 'FILES=' || string_agg(pg_relation_filenode(oid)::text, ',' ORDER BY oid) FROM pg_class \
        WHERE relname IN ('t', 'other', 'seen')";
    let seen = server
        .try_psql(&format!("BEGIN; {files}; {statement}; {files}; ROLLBACK"))
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
    let all: Vec<&str> = seen
        .lines()
        .filter(|line| line.starts_with("FILES="))
        .collect();
    all.first() != all.last()
}

/// What the plan tells of each step: table and lock, and whether it speaks of a rewrite.
fn told(drill: &Drill, count: usize) -> Vec<(Vec<(String, String)>, bool)> {
    let plan = drill.call("plan", &["--format", "json"]).all;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    (0..count)
        .map(|step| {
            let node = plan["steps"]
                .as_array()
                .unwrap()
                .iter()
                .find(|node| node["path"] == format!("s{step}"))
                .unwrap();
            let mut all = Vec::new();
            let text = node.to_string();
            for piece in text.split("takes ").skip(1) {
                let (lock, rest) = piece.split_once(" on ").unwrap();
                let (table, _) = rest.split_once(": ").unwrap();
                all.push((table.replace("\\\"", "\""), lock.to_owned()));
            }
            (
                all,
                text.contains("rewrite") || text.contains("runs its query"),
            )
        })
        .collect()
}

fn planned<'s>(
    server: &Postgres,
    statements: impl Iterator<Item = &'s str>,
    more: &str,
) -> Vec<(Vec<(String, String)>, bool)> {
    let mut playbook = "playbook: locks\ntargets: { db: { kind: postgres } }\nsteps:\n".to_owned();
    let mut count = 0;
    for statement in statements {
        playbook.push_str(&format!(
            "  - id: s{count}\n    uses: sql.execute\n    needs: []\n    undo: none\n    with: {{ target: db, all_rows: true, sql: {} {more} }}\n    probe: {{ sql: SELECT true AS done, done: row.done }}\n",
            serde_json::to_string(statement).unwrap()
        ));
        count += 1;
    }
    told(&Drill::on(server, &playbook), count)
}

#[test]
fn a_plan_tells_the_locks_that_the_server_takes() {
    let server = Postgres::start(&[]);
    server.psql(TABLES);
    let told = planned(&server, STATEMENTS.iter().copied(), "");
    let mut wrong = Vec::new();
    for (statement, (told, tells_rewrite)) in STATEMENTS.iter().zip(told) {
        let taken = taken(&server, statement);
        let drops = statement.starts_with("DROP");
        if !drops && rewrites(&server, statement) && !tells_rewrite {
            wrong.push(format!("{statement}: rewrites, not told"));
        }
        for (table, lock) in &told {
            if taken.get(table) != Some(&lock.as_str()) {
                wrong.push(format!(
                    "{statement}: told {lock} on {table}, took {:?}",
                    taken.get(table)
                ));
            }
        }
        for (table, lock) in &taken {
            let is_told = told.iter().any(|(told, _)| told == table);
            // Reads of other tables hold up nobody.
            if !is_told && strength(lock) >= strength("ROW EXCLUSIVE") {
                wrong.push(format!("{statement}: took {lock} on {table}, not told"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Of a table in parts, the size of its parts.
    server
        .psql("INSERT INTO parted SELECT i, i FROM generate_series(1000, 1999) i; ANALYZE part_1");
    let drill = Drill::on(
        &server,
        "playbook: size\ntargets: { db: { kind: postgres } }\nsteps:\n  - { id: a, uses: sql.execute, undo: none, with: { target: db, sql: ALTER TABLE parted ADD c int } }\n  - { id: b, uses: sql.execute, undo: none, with: { target: db, sql: ALTER TABLE heir ADD c int } }\n",
    );
    let plan = drill.call("plan", &[]).all;
    assert!(plan.contains("and about 1000 rows"), "{plan}");
    assert!(
        plan.contains("heir has 0B; how many rows is not known before ANALYZE"),
        "{plan}"
    );

    let told = planned(
        &server,
        ALONE.iter().map(|(statement, _)| *statement),
        ", transaction: none",
    );
    for ((statement, wanted), (told, _)) in ALONE.iter().zip(told) {
        let all: Vec<String> = told
            .iter()
            .map(|(table, lock)| format!("{lock} on {table}"))
            .collect();
        assert!(
            all.iter().any(|one| one == wanted),
            "{statement}: {wanted} is not in {all:?}"
        );
    }
}
