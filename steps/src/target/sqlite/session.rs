//! One connection to a SQLite file.
use super::{errors::Trouble, values};
use crate::{
    sql::params::{Bound, quote},
    target::{Affected, Fingerprint, LedgerKey, LedgerState, Rows, Session, Until},
};
use futures_util::future::BoxFuture;
use rusqlite::{Connection, InterruptHandle, types::ValueRef};
use sha2::{Digest, Sha256};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use windlass_engine::{
    step::{Cause, Certainty, Failure, Identity},
    value::{Duration, Timestamp},
};

/// How often a wait for a lock asks again.
const LOCK_POLL: Duration = Duration::from_millis(15);
/// How often a statement that must end is told so again: an interrupt that comes between two statements is lost.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(10);
/// Instructions of SQLite's machine between two looks at the flag.
const PROGRESS: i32 = 4_000;

/// A connection and the means to end what it does.
pub(super) struct SqliteSession {
    connection: Option<Connection>,
    who: Identity,
    ender: Arc<Ender>,
}

struct Ender {
    flag: AtomicBool,
    handle: InterruptHandle,
}

impl Ender {
    fn end(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.handle.interrupt();
    }
}

/// Ends the statement where the future that waits for it is dropped.
struct EndOnDrop<'a>(Option<&'a Ender>);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(ender) = self.0 {
            ender.end();
        }
    }
}

impl SqliteSession {
    pub(super) fn new(connection: Connection, who: Identity) -> Self {
        let ender = Arc::new(Ender {
            flag: AtomicBool::new(false),
            handle: connection.get_interrupt_handle(),
        });
        Self {
            connection: Some(connection),
            who,
            ender,
        }
    }

    /// Does work on the connection. Where `until` comes first, the work is interrupted and awaited.
    async fn work<T: Send + 'static>(
        &mut self,
        until: Option<&Until>,
        work: impl FnOnce(&mut Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        if let Some(cause) = until.and_then(Until::passed) {
            return Err(Trouble::Ended(cause));
        }
        let mut connection = self.connection.take().ok_or(Trouble::Lost)?;
        self.ender.flag.store(false, Ordering::Relaxed);
        let ender = self.ender.clone();
        let mut task = tokio::task::spawn_blocking(move || {
            let flagged = ender.clone();
            let watched = connection
                .progress_handler(PROGRESS, Some(move || flagged.flag.load(Ordering::Relaxed)));
            let result = watched
                .map_err(Trouble::Sqlite)
                .and_then(|()| work(&mut connection));
            (connection, result)
        });
        let mut on_drop = EndOnDrop(Some(&self.ender));
        let mut cause = None;
        let joined = loop {
            tokio::select! {
                joined = &mut task => break joined,
                ended = over(until), if cause.is_none() => {
                    cause = Some(ended);
                    self.ender.end();
                }
                () = again(until), if cause.is_some() => self.ender.end(),
            }
        };
        on_drop.0 = None;
        let (connection, result) = joined.map_err(|_| Trouble::Lost)?;
        self.connection = Some(connection);
        match (result, cause) {
            (Err(trouble), Some(cause)) if trouble.is_interrupt() => Err(Trouble::Ended(cause)),
            (result, _) => result,
        }
    }

    /// Does work again and again while another connection holds the lock, up to the lock timeout.
    async fn patiently<T: Send + 'static>(
        &mut self,
        until: &Until,
        interruptible: bool,
        work: impl Fn(&mut Connection) -> Result<T, Trouble> + Clone + Send + 'static,
    ) -> Result<T, Trouble> {
        let give_up = until.lock_timeout.after(until.now());
        loop {
            let work = work.clone();
            let result = self
                .work(interruptible.then_some(until), move |connection| {
                    connection.busy_timeout(std::time::Duration::ZERO)?;
                    work(connection)
                })
                .await;
            match result {
                Err(trouble) if trouble.is_busy() && until.now() < give_up => {
                    if let Some(cause) = until.passed() {
                        return Err(Trouble::Ended(cause));
                    }
                    until.sleep(LOCK_POLL.min(until.left())).await;
                }
                result => return result,
            }
        }
    }
}

async fn over(until: Option<&Until>) -> Cause {
    match until {
        Some(until) => until.over().await,
        None => std::future::pending().await,
    }
}

async fn again(until: Option<&Until>) {
    match until {
        // The step is over, so its own sleep would return at once.
        Some(_) => tokio::time::sleep(INTERRUPT_AGAIN.to_std()).await,
        None => std::future::pending().await,
    }
}

fn run(connection: &Connection, bound: &Bound, max_rows: usize) -> Result<Affected, Trouble> {
    let mut statement = connection.prepare(&bound.sql)?;
    values::bind(&mut statement, bound)?;
    let returned = values::rows(&mut statement, max_rows)?;
    drop(statement);
    let verb = bound.shape.verb.as_str();
    let changes = matches!(verb, "INSERT" | "REPLACE" | "UPDATE" | "DELETE");
    let rows = if changes { connection.changes() } else { 0 };
    let inserted = matches!(verb, "INSERT" | "REPLACE") && rows > 0;
    Ok(Affected {
        rows,
        last_insert_id: inserted.then(|| connection.last_insert_rowid()),
        returned,
    })
}

/// `ledger` or `schema.ledger`, quoted.
fn table_name(table: &str) -> String {
    table.split('.').map(quote).collect::<Vec<_>>().join(".")
}

/// The columns of a ledger, in order.
pub(super) const LEDGER_COLUMNS: [&str; 6] = ["run", "node", "phase", "attempt", "state", "at"];

/// The statement that makes a ledger where there is none.
pub(super) fn ledger_ddl(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n  \
           run TEXT NOT NULL,\n  node TEXT NOT NULL,\n  phase TEXT NOT NULL,\n  attempt INTEGER NOT NULL,\n  \
           state TEXT NOT NULL,\n  at TEXT NOT NULL,\n  PRIMARY KEY (run, node, phase, attempt)\n)",
        table_name(table)
    )
}

pub(super) fn make_ledger(connection: &Connection, table: &str) -> Result<(), Trouble> {
    connection.execute_batch(&ledger_ddl(table))?;
    Ok(())
}

fn ask_ledger(
    connection: &Connection,
    table: &str,
    key: &LedgerKey,
) -> Result<LedgerState, Trouble> {
    let sql = format!(
        "SELECT attempt, state FROM {} WHERE run = ?1 AND node = ?2 AND phase = ?3 AND attempt > ?4",
        table_name(table)
    );
    let mut asked = connection.prepare(&sql)?;
    let rows = asked
        .query_map((&key.run, &key.node, key.phase, key.after()), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<Vec<(i64, String)>, _>>()?;
    key.read(table, rows).map_err(Trouble::Refused)
}

/// Length and kind before each value, so that no two different rows read alike.
fn digest_row(hasher: &mut Sha256, row: &rusqlite::Row<'_>, columns: usize) -> Result<(), Trouble> {
    for at in 0..columns {
        let (tag, bytes): (u8, std::borrow::Cow<'_, [u8]>) = match row.get_ref(at)? {
            ValueRef::Null => (0, (&[][..]).into()),
            ValueRef::Integer(i) => (1, i.to_be_bytes().to_vec().into()),
            ValueRef::Real(x) => (2, x.to_bits().to_be_bytes().to_vec().into()),
            ValueRef::Text(text) => (3, text.into()),
            ValueRef::Blob(bytes) => (4, bytes.into()),
        };
        hasher.update([tag]);
        hasher.update((bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    }
    Ok(())
}

fn fingerprint(
    connection: &Connection,
    table: &str,
    checksum: bool,
) -> Result<Fingerprint, Trouble> {
    let name = table_name(table);
    if !checksum {
        let rows: i64 =
            connection.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| {
                row.get(0)
            })?;
        return Ok(Fingerprint {
            rows: u64::try_from(rows).unwrap_or(0),
            sha256: None,
        });
    }
    let mut columns: Vec<(String, i64)> = connection
        .prepare("SELECT name, pk FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid")?
        .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    if columns.is_empty() {
        return Err(Trouble::Refused(Failure::new(
            "sql.no_table",
            format!("there is no table {table}"),
        )));
    }
    let all: Vec<String> = columns.iter().map(|(name, _)| quote(name)).collect();
    columns.retain(|(_, key)| *key > 0);
    columns.sort_by_key(|(_, key)| *key);
    // Without a key, all columns together are the order; equal rows are alike.
    let order: Vec<String> = if columns.is_empty() {
        all.clone()
    } else {
        columns.iter().map(|(name, _)| quote(name)).collect()
    };
    let order: Vec<String> = order
        .iter()
        .map(|column| format!("{column} COLLATE BINARY"))
        .collect();
    let sql = format!(
        "SELECT {} FROM {name} ORDER BY {}",
        all.join(", "),
        order.join(", ")
    );
    let mut statement = connection.prepare(&sql)?;
    let mut hasher = Sha256::new();
    for column in &all {
        hasher.update(column.as_bytes());
        hasher.update([0]);
    }
    let mut count = 0_u64;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        digest_row(&mut hasher, row, all.len())?;
        count += 1;
    }
    Ok(Fingerprint {
        rows: count,
        sha256: Some(hex::encode(hasher.finalize())),
    })
}

impl Session for SqliteSession {
    fn read<'a>(
        &'a mut self,
        statement: &'a Bound,
        max_rows: usize,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Rows, Failure>> {
        let bound = statement.clone();
        Box::pin(async move {
            self.patiently(until, true, move |connection| {
                let mut statement = connection.prepare(&bound.sql)?;
                // ATTACH and the transaction words count as readers there.
                let reads = matches!(
                    bound.shape.verb.as_str(),
                    "SELECT" | "VALUES" | "EXPLAIN" | "PRAGMA"
                );
                if !reads || !statement.readonly() {
                    return Err(Trouble::Refused(
                        Failure::new(
                            "sql.not_read_only",
                            format!("{} is not a statement that only reads", bound.shape.verb),
                        )
                        .help("use sql.execute"),
                    ));
                }
                values::bind(&mut statement, &bound)?;
                values::rows(&mut statement, max_rows)
            })
            .await
            .map_err(Trouble::failure)
        })
    }

    fn begin<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            self.patiently(until, true, |connection| {
                Ok(connection.execute_batch("BEGIN IMMEDIATE")?)
            })
            .await
            .map_err(Trouble::failure)
        })
    }

    fn run<'a>(
        &'a mut self,
        statement: &'a Bound,
        max_rows: usize,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Affected, Failure>> {
        let bound = statement.clone();
        Box::pin(async move {
            // SQLite takes back a statement that meets a lock, so that it can run again.
            self.patiently(until, true, move |connection| {
                run(connection, &bound, max_rows)
            })
            .await
            .map_err(Trouble::failure)
        })
    }

    fn commit<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            // A commit is not interrupted half-way: it is awaited, and repeated while a reader holds the lock.
            let committed = self
                .patiently(until, false, |connection| {
                    Ok(connection.execute_batch("COMMIT")?)
                })
                .await;
            let Err(trouble) = committed else {
                return Ok(());
            };
            // Still in the transaction: then it can be taken back for certain.
            let undone = self
                .work(None, |connection| {
                    if connection.is_autocommit() {
                        return Ok(false);
                    }
                    connection.execute_batch("ROLLBACK")?;
                    Ok(true)
                })
                .await
                .unwrap_or(false);
            Err(trouble.failure().certainty(if undone {
                Certainty::NoEffect
            } else {
                Certainty::Unknown
            }))
        })
    }

    fn rollback(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.work(None, |connection| {
                if !connection.is_autocommit() {
                    connection.execute_batch("ROLLBACK")?;
                }
                Ok(())
            })
            .await
            .map_err(Trouble::failure)
        })
    }

    fn ledger_ask<'a>(
        &'a mut self,
        table: &'a str,
        key: &'a LedgerKey,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<LedgerState, Failure>> {
        let (table, key) = (table.to_owned(), key.clone());
        Box::pin(async move {
            self.patiently(until, true, move |connection| {
                make_ledger(connection, &table)?;
                ask_ledger(connection, &table, &key)
            })
            .await
            .map_err(Trouble::failure)
        })
    }

    fn ledger_write<'a>(
        &'a mut self,
        table: &'a str,
        key: &'a LedgerKey,
        state: LedgerState,
        at: Timestamp,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        let (table, key) = (table.to_owned(), key.clone());
        Box::pin(async move {
            self.patiently(until, true, move |connection| {
                let state = match state {
                    LedgerState::Done => "done",
                    LedgerState::Void | LedgerState::Absent | LedgerState::Unknown(_) => "void",
                };
                make_ledger(connection, &table)?;
                connection.execute(
                    &format!(
                        "INSERT INTO {} (run, node, phase, attempt, state, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                        table_name(&table)
                    ),
                    (&key.run, &key.node, key.phase, key.attempt, state, at.to_string()),
                )?;
                Ok(())
            })
            .await
            .map_err(Trouble::failure)
        })
    }

    fn explain<'a>(
        &'a mut self,
        statement: &'a Bound,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        let bound = statement.clone();
        Box::pin(async move {
            self.patiently(until, true, move |connection| {
                let planned = matches!(
                    bound.shape.verb.as_str(),
                    "SELECT" | "VALUES" | "INSERT" | "REPLACE" | "UPDATE" | "DELETE"
                );
                if !planned {
                    // Preparing it finds wrong names.
                    connection.prepare(&bound.sql)?;
                    return Ok(Vec::new());
                }
                let mut statement =
                    connection.prepare(&format!("EXPLAIN QUERY PLAN {}", bound.sql))?;
                values::bind(&mut statement, &bound)?;
                let mut lines = Vec::new();
                let mut rows = statement.raw_query();
                while let Some(row) = rows.next()? {
                    lines.push(row.get("detail")?);
                }
                Ok(lines)
            })
            .await
            .map_err(Trouble::failure)
        })
    }

    fn who(&self) -> &Identity {
        &self.who
    }

    fn tables<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            self.patiently(until, true, |connection| {
                let names = connection
                    .prepare(
                        "SELECT name FROM pragma_table_list \
                         WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
                         ORDER BY name",
                    )?
                    .query_map([], |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                Ok(names)
            })
            .await
            .map_err(Trouble::failure)
        })
    }

    fn fingerprint<'a>(
        &'a mut self,
        table: &'a str,
        checksum: bool,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Fingerprint, Failure>> {
        let table = table.to_owned();
        Box::pin(async move {
            self.patiently(until, true, move |connection| {
                fingerprint(connection, &table, checksum)
            })
            .await
            .map_err(Trouble::failure)
        })
    }
}
