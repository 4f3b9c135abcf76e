//! What this machine can do without us.
use crate::{
    folder,
    table::{Table, per_second},
};
use rusqlite::{Connection, params};
use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

const BODY: &str = r#"{"succeeded":{"node":"step_4711","phase":"do","attempt":1,"output":{"rows_affected":2000,"duration":"12ms"},"by":"step"}}"#;

/// How often `act` runs in a second.
fn rate(span: Duration, mut act: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut times = 0.0;
    while begin.elapsed() < span {
        act();
        times += 1.0;
    }
    times / begin.elapsed().as_secs_f64()
}

/// Records of 512 bytes, each synced to the disk.
pub(crate) fn synced_appends(folder: &Path, span: Duration) -> f64 {
    let mut file = File::create(folder.join("appends")).unwrap();
    let record = [7_u8; 512];
    rate(span, || {
        file.write_all(&record).unwrap();
        file.sync_data().unwrap();
    })
}

fn database(folder: &Path) -> Connection {
    let path = folder.join("bare.db");
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
         CREATE TABLE IF NOT EXISTS events (no INTEGER PRIMARY KEY, at TEXT, body TEXT, hash BLOB);",
    )
    .unwrap();
    conn
}

fn insert(conn: &Connection) {
    let mut insert = conn
        .prepare_cached("INSERT INTO events (at, body, hash) VALUES (?1, ?2, ?3)")
        .unwrap();
    insert
        .execute(params!["2027-01-15T08:00:00.123456Z", BODY, [7_u8; 32]])
        .unwrap();
}

/// Commits of one row each.
pub(crate) fn commits(folder: &Path, span: Duration) -> f64 {
    let conn = database(folder);
    rate(span, || insert(&conn))
}

/// Rows in commits of 32.
pub(crate) fn batched(folder: &Path, span: Duration) -> f64 {
    let conn = database(folder);
    let batches = rate(span, || {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..32 {
            insert(&conn);
        }
        conn.execute_batch("COMMIT").unwrap();
    });
    batches * 32.0
}

/// The rows of the table.
pub(crate) fn rows(table: &mut Table) {
    let folder = folder();
    let span = Duration::from_millis(1_500);
    let synced = synced_appends(folder.path(), span);
    table.plain(
        "this machine: appends of 512 bytes, fdatasync each",
        per_second(synced),
    );
    let single = commits(folder.path(), span);
    table.plain(
        "this machine: SQLite commits of one row (WAL, FULL)",
        per_second(single),
    );
    let many = batched(folder.path(), span);
    table.plain(
        "this machine: SQLite rows in commits of 32",
        per_second(many),
    );
}

/// The middle of an odd number of figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
