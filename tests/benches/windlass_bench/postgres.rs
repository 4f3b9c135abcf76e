//! SQL steps on a PostgreSQL server, beside the bare driver on the same server.
use crate::{
    limits::median,
    process::{self, Figures},
    table::Table,
};
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::time::Instant;
use windlass_engine::{machine::Outcome, run::Ended};
use windlass_tests::{House, servers::postgres::Postgres};

const STEPS: usize = 200;
const READ: &str = "SELECT n FROM counted WHERE id = 1";
const WRITE: &str = "UPDATE counted SET n = n + 1 WHERE id = 1";
const MILLION: usize = 1_000_000;

fn house(server: &Postgres, ledger: bool) -> House {
    let ledger = if ledger {
        ", ledger: windlass_ledger"
    } else {
        ""
    };
    House::new(&format!(
        "environments:\n  local:\n    targets:\n      db: {{ url: '{}', tls: off{ledger} }}\n",
        server.url("postgres")
    ))
}

/// Steps one after the other: how many a rate.
async fn steps(server: &Postgres, kind: &str, sql: &str, ledger: bool) -> f64 {
    let mut playbook = "playbook: steps\ntargets: { db: { kind: postgres } }\nsteps:\n".to_owned();
    for step in 0..STEPS {
        playbook.push_str(&format!(
            "  - id: s{step}\n    uses: {kind}\n    with: {{ target: db, sql: {sql} }}\n"
        ));
        if kind == "sql.execute" {
            playbook.push_str("    undo: none\n");
        }
    }
    let house = house(server, ledger);
    let begin = Instant::now();
    let (_, ended, _) = house.run(&playbook, &[]).await;
    assert_eq!(ended, Ended::Finished(Outcome::Succeeded));
    STEPS as f64 / begin.elapsed().as_secs_f64()
}

/// The same statement by the driver alone, in a transaction of its own on one open connection.
async fn bare(server: &Postgres, begin: &'static str, sql: &'static str) -> f64 {
    let mut connection = PgConnection::connect(&server.url("postgres"))
        .await
        .unwrap();
    let start = Instant::now();
    for _ in 0..STEPS {
        connection.execute(begin).await.unwrap();
        connection.fetch_all(sql).await.unwrap();
        connection.execute("COMMIT").await.unwrap();
    }
    STEPS as f64 / start.elapsed().as_secs_f64()
}

/// In a process of its own: every row of a large table read and compared with itself.
pub(crate) async fn million() -> Figures {
    let server = Postgres::start(&[]);
    server.psql(&format!(
        "CREATE TABLE large AS SELECT i AS id, repeat('x', 100) AS text FROM generate_series(1, {MILLION}) i; \
         ALTER TABLE large ADD PRIMARY KEY (id)"
    ));
    let before = process::peak_megabytes();
    let house = house(&server, false);
    let begin = Instant::now();
    let (_, ended, _) = house
        .run(
            "playbook: reads\ntargets: { db: { kind: postgres } }\nsteps:\n  - id: all\n    uses: verify\n    timeout: 10m\n    with: { compare: { left: db, right: db, checksums: true } }\n",
            &[],
        )
        .await;
    assert_eq!(ended, Ended::Finished(Outcome::Succeeded));
    eprintln!("read twice in {:?}; {before} MB before", begin.elapsed());
    Figures {
        megabytes: process::peak_megabytes(),
        rate: 2.0 * MILLION as f64 / begin.elapsed().as_secs_f64(),
    }
}

/// The rows of the table.
pub(crate) async fn rows(table: &mut Table) {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE counted (id int PRIMARY KEY, n int NOT NULL); INSERT INTO counted VALUES (1, 0)");
    server.make_ledger();
    let kinds = [
        (
            "sql.query on PostgreSQL, a step",
            "sql.query",
            READ,
            false,
            "BEGIN READ ONLY",
        ),
        (
            "sql.execute, known again by its transaction",
            "sql.execute",
            WRITE,
            false,
            "BEGIN",
        ),
        (
            "sql.execute, with the ledger",
            "sql.execute",
            WRITE,
            true,
            "BEGIN",
        ),
    ];
    for (what, kind, sql, ledger, begin) in kinds {
        let (mut reached, mut limit) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            limit.push(bare(&server, begin, sql).await);
            reached.push(steps(&server, kind, sql, ledger).await);
        }
        table.share(
            what,
            median(reached),
            "transactions of the bare driver",
            median(limit),
            None,
        );
    }
}
