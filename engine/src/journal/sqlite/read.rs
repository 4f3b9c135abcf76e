//! What readers ask of the database, each on a connection of its own, beside the writer.
use super::{
    ahead,
    leases::Leases,
    open::{has_accounts, has_table, is_damage, store_error},
};
use crate::{
    journal::{
        Audit, JournalError, RunSummary,
        memory::pick,
        record::{self, Chain, Graphs, Hash, Unreadable},
    },
    machine::{Event, EventBody, RunStarted, Submitted},
    value::Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, params, types::ValueRef};
use serde::de::IgnoredAny;
use std::path::Path;

/// A connection and what its answers are read with.
pub(super) struct Reader<'a> {
    pub(super) conn: &'a Connection,
    pub(super) path: &'a Path,
    pub(super) graphs: &'a Graphs,
}

/// Why a walk along a run ended early.
pub(super) enum Stopped {
    /// The first event that does not hold, and why.
    Broken(u64, String),
    Failed(JournalError),
}

impl Stopped {
    pub(super) fn no_thread(error: &std::io::Error) -> Self {
        let why = format!("no thread can be started to read the run: {error}");
        Self::Failed(JournalError::Store(why))
    }

    /// At an event that holds, and cannot be read.
    pub(super) fn unreadable(seq: u64, error: Unreadable) -> Self {
        match error {
            Unreadable::Damaged(what) => Self::Broken(seq, what),
            Unreadable::Newer(_) | Unreadable::Store(_) => Self::Failed(error.at("", seq)),
        }
    }
}

struct RunRow {
    no: i64,
    playbook: String,
    environment: String,
    by: String,
    started_at: String,
    head_seq: u64,
    head_hash: Vec<u8>,
}

impl Reader<'_> {
    pub(super) fn failed(&self, error: &rusqlite::Error) -> JournalError {
        store_error(self.path, error)
    }

    /// A damaged page is a broken place of the run; anything else is a failure of the store.
    fn stopped(&self, seq: u64, error: &rusqlite::Error) -> Stopped {
        if is_damage(error) {
            Stopped::Broken(seq, format!("the database file is damaged there: {error}"))
        } else if error.sqlite_error().is_none() {
            // Not the database's word but ours: a column does not hold what it must.
            Stopped::Broken(
                seq,
                format!("a column does not hold what was written: {error}"),
            )
        } else {
            Stopped::Failed(self.failed(error))
        }
    }

    fn run_row(&self, run: &str) -> Result<RunRow, Stopped> {
        let row = self
            .conn
            .prepare_cached(
                "SELECT no, playbook, environment, \"by\", started_at, head_seq, head_hash FROM runs WHERE id = ?1",
            )
            .and_then(|mut select| {
                select
                    .query_row([run], |row| {
                        Ok(RunRow {
                            no: row.get(0)?,
                            playbook: text(row, 1)?,
                            environment: text(row, 2)?,
                            by: text(row, 3)?,
                            started_at: text(row, 4)?,
                            head_seq: row.get(5)?,
                            head_hash: row.get(6)?,
                        })
                    })
                    .optional()
            });
        match row {
            Ok(Some(row)) => Ok(row),
            Ok(None) => Err(Stopped::Failed(JournalError::NoSuchRun(run.to_owned()))),
            Err(error) => Err(self.stopped(0, &error)),
        }
    }

    /// The number by which the tables know a run.
    pub(super) fn number(&self, run: &str) -> Result<i64, JournalError> {
        let number = self
            .conn
            .prepare_cached("SELECT no FROM runs WHERE id = ?1")
            .and_then(|mut select| select.query_row([run], |row| row.get(0)).optional());
        number
            .map_err(|error| self.failed(&error))?
            .ok_or_else(|| JournalError::NoSuchRun(run.to_owned()))
    }

    fn blob(&self, hash: &Hash) -> Result<Option<String>, Unreadable> {
        let body = self
            .conn
            .prepare_cached("SELECT body FROM blobs WHERE hash = ?1")
            .and_then(|mut select| {
                let body = select.query_row([hash], |row| Ok(bytes(row.get_ref(0)?).to_vec()));
                body.optional()
            });
        match body {
            Ok(None) => Ok(None),
            Ok(Some(body)) => String::from_utf8(body)
                .map(Some)
                .map_err(|_| Unreadable::Damaged("the blob that it names was changed".to_owned())),
            Err(error) if is_damage(&error) => Err(Unreadable::Damaged(format!(
                "the database file is damaged at the blob that it names: {error}"
            ))),
            Err(error) => Err(Unreadable::Store(self.failed(&error))),
        }
    }

    /// Walks the stored events from `chain` on, in order, and checks each.
    fn walk(
        &self,
        no: i64,
        chain: &mut Chain,
        visit: &mut dyn FnMut(&str, &str) -> Result<(), Unreadable>,
    ) -> Result<(), Stopped> {
        let mut select = self
            .conn
            .prepare_cached(
                "SELECT seq, at, body, hash FROM events WHERE run_no = ?1 AND seq > ?2 ORDER BY seq",
            )
            .map_err(|error| self.stopped(chain.seq + 1, &error))?;
        let mut rows = select
            .query(params![no, chain.seq])
            .map_err(|error| self.stopped(chain.seq + 1, &error))?;
        loop {
            let next = chain.seq + 1;
            let damaged = |error: &rusqlite::Error| self.stopped(next, error);
            let Some(row) = rows.next().map_err(|error| damaged(&error))? else {
                return Ok(());
            };
            let seq: u64 = row.get(0).map_err(|error| damaged(&error))?;
            let column = |index| row.get_ref(index).map(bytes).map_err(|e| damaged(&e));
            let (at, body, hash) = (column(1)?, column(2)?, column(3)?);
            chain.check(seq, at, body, hash).map_err(|(seq, what)| {
                let json = serde_json::from_slice::<IgnoredAny>(body).is_ok();
                let more = if json || seq != next {
                    ""
                } else {
                    "; it is not even JSON"
                };
                Stopped::Broken(seq, format!("{what}{more}"))
            })?;
            let (Ok(at), Ok(body)) = (std::str::from_utf8(at), std::str::from_utf8(body)) else {
                return Err(Stopped::Broken(seq, "its text is not UTF-8".to_owned()));
            };
            visit(at, body).map_err(|error| Stopped::unreadable(seq, error))?;
        }
    }

    /// All events from `from` on.
    pub(super) fn load(&self, run: &str, from: u64) -> Result<Vec<Event>, JournalError> {
        let loaded = self.in_snapshot(|| self.load_checked(run, from.max(1)));
        loaded.map_err(|stopped| match stopped {
            Stopped::Broken(seq, what) => JournalError::Corrupt {
                run: run.to_owned(),
                seq,
                what,
            },
            Stopped::Failed(error) => error,
        })
    }

    fn load_checked(&self, run: &str, from: u64) -> Result<Vec<Event>, Stopped> {
        let row = self.run_row(run)?;
        if from > row.head_seq {
            return Ok(Vec::new());
        }
        let mut chain = Chain::from(from - 1, self.hash_before(run, row.no, from)?);
        let expected = usize::try_from(row.head_seq - chain.seq).unwrap_or_default();
        let expected = expected.min(1 << 20);
        let decode = |at: &str, body: &str| {
            let mut blob = |hash: &Hash| self.blob(hash);
            record::decode(at, body, self.graphs, &mut blob)
        };
        let events = if expected < ahead::LONG {
            let mut events = Vec::with_capacity(expected);
            self.walk(row.no, &mut chain, &mut |at, body| {
                events.push(decode(at, body)?);
                Ok(())
            })?;
            events
        } else {
            ahead::load((from, expected), self.graphs, |decoder| {
                self.walk(row.no, &mut chain, &mut |at, body| {
                    if record::names_blobs(body) {
                        decoder.event(decode(at, body)?)
                    } else {
                        decoder.text(at, body)
                    }
                })
            })?
        };
        let ends = chain.check_head(row.head_seq, &row.head_hash);
        ends.map_err(|(seq, what)| Stopped::Broken(seq, what))?;
        Ok(events)
    }

    fn hash_before(&self, run: &str, no: i64, from: u64) -> Result<Hash, Stopped> {
        if from == 1 {
            return Ok(record::genesis(run));
        }
        let before = from - 1;
        let hash = self
            .conn
            .prepare_cached("SELECT hash FROM events WHERE run_no = ?1 AND seq = ?2")
            .and_then(|mut select| {
                let hash = select.query_row(params![no, before], |row| row.get::<_, Hash>(0));
                hash.optional()
            });
        match hash {
            Ok(Some(hash)) => Ok(hash),
            Ok(None) => Err(Stopped::Broken(before, "it is missing".to_owned())),
            Err(error) => Err(self.stopped(before, &error)),
        }
    }

    /// Checks the run's chain, its blobs, its head and what lists show of it.
    pub(super) fn audit(&self, run: &str) -> Result<Audit, JournalError> {
        let mut chain = Chain::from(0, record::genesis(run));
        let broken = match self.in_snapshot(|| self.audit_chain(run, &mut chain)) {
            Ok(()) => None,
            Err(Stopped::Broken(seq, what)) => Some((seq, what)),
            Err(Stopped::Failed(error)) => return Err(error),
        };
        Ok(Audit {
            run: run.to_owned(),
            head: chain.head(),
            ended: chain.ended(),
            broken,
        })
    }

    fn audit_chain(&self, run: &str, chain: &mut Chain) -> Result<(), Stopped> {
        let row = self.run_row(run)?;
        let mut first = None;
        self.walk(row.no, chain, &mut |at, body| {
            let mut blob = |hash: &Hash| self.blob(hash);
            record::check_blobs(body, &mut blob)?;
            if first.is_none() {
                first = Some(record::decode(at, body, self.graphs, &mut blob)?);
            }
            Ok(())
        })?;
        let ends = chain.check_head(row.head_seq, &row.head_hash);
        ends.map_err(|(seq, what)| Stopped::Broken(seq, what))?;
        if let Some(EventBody::RunStarted(start)) = first.map(|event| event.body)
            && let Some(column) = row.differs_from(&start)
        {
            let what = format!("the list of runs shows another {column} than this event");
            return Err(Stopped::Broken(1, what));
        }
        let mut unreadable = None;
        let read = self.open_commands(Some(run), |command| {
            unreadable = unreadable.take().or(command.err());
        });
        read.map_err(Stopped::Failed)?;
        match unreadable {
            Some(id) => Err(Stopped::Broken(
                row.head_seq,
                format!(
                    "command {id}, which waits in the inbox behind this event, cannot be read; it must be sent again"
                ),
            )),
            None => Ok(()),
        }
    }

    /// One moment of the database for all that is read.
    fn in_snapshot<T>(&self, read: impl FnOnce() -> Result<T, Stopped>) -> Result<T, Stopped> {
        let tx = self.conn.unchecked_transaction();
        let tx = tx.map_err(|error| self.stopped(0, &error))?;
        let done = read();
        drop(tx);
        done
    }

    /// The full id.
    pub(super) fn find(&self, given: &str) -> Result<String, JournalError> {
        if given.is_empty() {
            return Err(JournalError::NoSuchRun(given.to_owned()));
        }
        let fits = || {
            let mut select = self.conn.prepare_cached(
                "SELECT id FROM runs WHERE id = ?1 OR substr(id, 1, length(?1)) = ?1 OR substr(id, -length(?1)) = ?1",
            )?;
            let ids = select.query_map([given], |row| row.get(0))?;
            ids.collect::<rusqlite::Result<Vec<String>>>()
        };
        pick(given, fits().map_err(|error| self.failed(&error))?)
    }

    /// All runs, newest first.
    pub(super) fn runs(&self, leases: &Leases) -> Result<Vec<RunSummary>, JournalError> {
        let ours = leases.ours();
        let list = || {
            let key = if has_table(self.conn, "start_keys")? {
                "(SELECT key FROM start_keys WHERE run = id)"
            } else {
                "NULL"
            };
            let mut select = self.conn.prepare_cached(&format!(
                // The account is in the first event alone, or in its blob; damage there must not keep the list back.
                "SELECT no, id, playbook, environment, \"by\", started_at, updated_at, state, head_seq, holder, {key},
                   (SELECT CASE WHEN json_valid(body) THEN json_extract(body, '$.run_started.run.account') END
                    FROM (SELECT coalesce(b.body, e.body) AS body FROM events AS e LEFT JOIN blobs AS b
                      ON e.body LIKE '{{\"$blob\":%' AND b.hash = unhex(substr(e.body, 11, 64))
                      WHERE e.run_no = no AND e.seq = 1))
                 FROM runs LEFT JOIN leases ON leases.run_no = no ORDER BY no DESC",
            ))?;
            let rows = select.query_map([], |row| {
                let no = row.get(0)?;
                let holder: Option<String> = row.get(9)?;
                let account: Option<String> = row.get(11)?;
                let holder = holder.and_then(|holder| serde_json::from_str(&holder).ok());
                let driven = ours.contains(&no) || leases.held_elsewhere(no, holder.as_ref());
                Ok(RunSummary {
                    id: row.get(1)?,
                    playbook: row.get(2)?,
                    environment: row.get(3)?,
                    by: row.get(4)?,
                    account: account.and_then(|account| serde_json::from_str(&account).ok()),
                    // One row that was damaged must not keep the list back: `audit` finds it.
                    started_at: timestamp(row, 5).unwrap_or(Timestamp::UNIX_EPOCH),
                    updated_at: timestamp(row, 6).unwrap_or(Timestamp::UNIX_EPOCH),
                    state: row.get(7)?,
                    events: row.get(8)?,
                    key: row.get(10)?,
                    holder: holder.filter(|_| driven),
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        list().map_err(|error| self.failed(&error))
    }

    /// Commands that no driver has taken, oldest first. A damaged one keeps nothing back: nothing can be answered to it.
    pub(super) fn inbox(&self, run: Option<&str>) -> Result<Vec<Submitted>, JournalError> {
        let mut all = Vec::new();
        self.open_commands(run, |command| all.extend(command.ok()))?;
        Ok(all)
    }

    /// Calls `each` with every command that no driver has taken; with its id if it cannot be read.
    fn open_commands(
        &self,
        run: Option<&str>,
        mut each: impl FnMut(Result<Submitted, String>),
    ) -> Result<(), JournalError> {
        let mut list = || {
            let account = if has_accounts(self.conn)? {
                "account"
            } else {
                "NULL"
            };
            let mut select = self.conn.prepare_cached(&format!(
                "SELECT id, run, who, at, body, {account} FROM inbox
                 WHERE taken_by IS NULL AND (?1 IS NULL OR run = ?1) ORDER BY no",
            ))?;
            let mut rows = select.query([run])?;
            while let Some(row) = rows.next()? {
                let read = command(row);
                each(match read {
                    Ok(command) => Ok(command),
                    Err(_) => Err(text(row, 0)?),
                });
            }
            Ok(())
        };
        list().map_err(|error| self.failed(&error))
    }

    /// Events whose run is not in the list of runs.
    pub(super) fn unlisted(&self) -> Result<u64, JournalError> {
        let count = self.conn.query_row(
            "SELECT count(*) FROM events WHERE run_no NOT IN (SELECT no FROM runs)",
            [],
            |row| row.get(0),
        );
        count.map_err(|error| self.failed(&error))
    }
}

fn command(row: &Row<'_>) -> rusqlite::Result<Submitted> {
    let body: String = row.get(4)?;
    let account: Option<String> = row.get(5)?;
    let account = account.map(|text| serde_json::from_str(&text)).transpose();
    Ok(Submitted {
        id: row.get(0)?,
        run: row.get(1)?,
        who: row.get(2)?,
        account: account.map_err(|e| unreadable(5, e))?,
        at: timestamp(row, 3)?,
        command: serde_json::from_str(&body).map_err(|e| unreadable(4, e))?,
    })
}

impl RunRow {
    /// The first column that is not what the run's first event says.
    fn differs_from(&self, start: &RunStarted) -> Option<&'static str> {
        let run = &start.run;
        let same_start = self.started_at == run.started_at.to_string();
        [
            ("playbook", self.playbook == run.playbook),
            ("environment", self.environment == run.environment),
            ("starter", self.by == run.by),
            ("start", same_start),
        ]
        .iter()
        .find(|(_, same)| !same)
        .map(|(column, _)| *column)
    }
}

/// Whatever bytes stand in a column.
fn bytes(column: ValueRef<'_>) -> &[u8] {
    match column {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => &[],
    }
}

/// Text for comparison only: damage must not stop the reader.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(String::from_utf8_lossy(bytes(row.get_ref(column)?)).into_owned())
}

fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let text: String = row.get(column)?;
    text.parse().map_err(|e| unreadable(column, e))
}

fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
}
