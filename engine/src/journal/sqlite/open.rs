//! Opening a journal file: what it is, whether it is ours, its schema.
use super::{
    access, files, home,
    place::{FileId, Place, check_names, check_only_name},
    printed,
};
use crate::journal::JournalError;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi};
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

pub use files::Sharing;

/// The version of the schema.
pub(super) const FORMAT: i64 = 1;
/// "WIND", in the file's header.
const APPLICATION_ID: i64 = 0x5749_4E44;
/// Several processes write to one file; each commit takes milliseconds.
const BUSY: Duration = Duration::from_secs(10);

const SCHEMA: &str = r#"
CREATE TABLE runs (
  no INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  playbook TEXT NOT NULL,
  environment TEXT NOT NULL,
  "by" TEXT NOT NULL,
  started_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  state TEXT NOT NULL,
  head_seq INTEGER NOT NULL,
  head_hash BLOB NOT NULL
) STRICT;
CREATE TABLE events (
  run_no INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  at TEXT NOT NULL,
  body TEXT NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (run_no, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE blobs (
  hash BLOB PRIMARY KEY NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE TABLE inbox (
  no INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  run TEXT NOT NULL,
  who TEXT NOT NULL,
  at TEXT NOT NULL,
  body TEXT NOT NULL,
  taken_by INTEGER,
  account TEXT
) STRICT;
CREATE INDEX inbox_open ON inbox (run) WHERE taken_by IS NULL;
CREATE TABLE leases (
  run_no INTEGER PRIMARY KEY NOT NULL,
  epoch INTEGER NOT NULL,
  holder TEXT NOT NULL
) STRICT;
CREATE TABLE locks (
  name TEXT PRIMARY KEY NOT NULL,
  run TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX locks_run ON locks (run);
"#;

const LATER: &str = r#"
CREATE TABLE start_keys (
  key TEXT PRIMARY KEY NOT NULL,
  run TEXT NOT NULL UNIQUE,
  playbook TEXT NOT NULL,
  inputs TEXT NOT NULL,
  place TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE refused_starts (
  no INTEGER PRIMARY KEY AUTOINCREMENT,
  body TEXT NOT NULL
) STRICT;
CREATE TABLE home (
  one INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
  host TEXT NOT NULL,
  path TEXT NOT NULL,
  device INTEGER NOT NULL,
  inode INTEGER NOT NULL
) STRICT;
"#;

/// What a failure of the database means for the journal.
pub(super) fn store_error(path: &Path, error: &rusqlite::Error) -> JournalError {
    let shown = path.display();
    let said = |what: String| JournalError::Store(what);
    let Some(sqlite) = error.sqlite_error() else {
        return said(format!("{shown}: {error}"));
    };
    if sqlite.code == ErrorCode::DiskFull || sqlite.extended_code == ffi::SQLITE_IOERR_SHMSIZE {
        return JournalError::DiskFull {
            path: shown.to_string(),
        };
    }
    if is_damage(error) {
        return said(format!("the database file {shown} is damaged: {error}"));
    }
    if matches!(
        sqlite.code,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked
    ) {
        return said(format!(
            "{shown}: it was held by another process for more than {} seconds",
            BUSY.as_secs()
        ));
    }
    said(format!("{shown}: {error}"))
}

/// Whether the file itself is damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// What a file says that it is.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Empty,
    Ours,
    Newer(i64),
    Foreign,
}

fn kind(conn: &Connection) -> rusqlite::Result<Kind> {
    let number = |pragma| conn.query_row(pragma, [], |row| row.get::<_, i64>(0));
    // The tables first: a journal that another process makes in this moment would have them, and not yet a name.
    let tables = number("SELECT count(*) FROM sqlite_master")?;
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    if application == APPLICATION_ID {
        return Ok(if version > FORMAT {
            Kind::Newer(version)
        } else {
            Kind::Ours
        });
    }
    Ok(if application == 0 && version == 0 && tables == 0 {
        Kind::Empty
    } else {
        Kind::Foreign
    })
}

fn refuse(path: &Path, kind: &Kind) -> Result<(), JournalError> {
    match kind {
        Kind::Empty | Kind::Ours => Ok(()),
        Kind::Newer(found) => Err(JournalError::Newer {
            found: *found,
            known: FORMAT,
        }),
        Kind::Foreign => Err(unusable(
            path,
            "it is the database of another program; nothing was changed",
        )),
    }
}

/// A file that cannot be used as a journal.
pub(super) fn unusable(path: &Path, why: impl Into<String>) -> JournalError {
    JournalError::Unusable {
        path: path.display().to_string(),
        why: why.into(),
    }
}

/// What keeps a file from being opened, where the database says so.
pub(super) fn not_opened(path: &Path, error: &rusqlite::Error) -> JournalError {
    if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) {
        return unusable(
            path,
            "it is no SQLite database, so it is not a journal; nothing was changed",
        );
    }
    unread(path, store_error(path, error))
}

/// A failure of the store where nothing was to be written: the file cannot be used, and no run is in question.
pub(super) fn unread(path: &Path, error: JournalError) -> JournalError {
    match error {
        JournalError::Store(why) => {
            let shown = path.display().to_string();
            let why = why.strip_prefix(&shown).unwrap_or(&why);
            unusable(path, why.trim_start_matches(':').trim_start())
        }
        other => other,
    }
}

/// Refuses what is there and is no journal, with a look that changes nothing. An empty file may become one.
fn look(path: &Path) -> Result<(), JournalError> {
    if !path.metadata().is_ok_and(|file| file.len() > 0) {
        return Ok(());
    }
    let explain = |error: rusqlite::Error| not_opened(path, &error);
    let conn = access::peek(path)?;
    refuse(path, &kind(&conn).map_err(explain)?)
}

/// A journal that may be written to.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) conn: Connection,
    pub(super) locks: File,
    pub(super) place: Place,
}

/// Opens the file for writing, or makes it.
pub(super) fn writer(path: &Path, sharing: Sharing) -> Result<Opened, JournalError> {
    let path = files::prepare(path, sharing)?;
    let explain = |error: rusqlite::Error| not_opened(&path, &error);
    look(&path)?;
    check_only_name(&path)?;
    access::check_writable(&path)?;
    let mut locks = files::open_locks(&path)?;
    check_names(&path, &mut locks)?;
    let found = FileId::at(&path);
    let mut conn = connect(&path).map_err(explain)?;
    journal_mode(&conn).map_err(explain)?;
    let kind = initialise(&mut conn).map_err(explain)?;
    refuse(&path, &kind)?;
    let place = Place::of(&path)?;
    // What was looked at, what is open and what is watched is one file.
    if found.is_none() || FileId::at(&path) != found {
        return Err(JournalError::Replaced {
            path: path.display().to_string(),
            what: "another file took its place while it was opened".to_owned(),
        });
    }
    home::settle(&conn, &path)?;
    Ok(Opened {
        path,
        conn,
        locks,
        place,
    })
}

/// Whether a connection holds a journal; an empty file does not.
pub(super) fn check_journal(path: &Path, conn: &Connection) -> Result<(), JournalError> {
    match kind(conn).map_err(|error| not_opened(path, &error))? {
        Kind::Empty => Err(unusable(
            path,
            "it is empty: no journal was ever written to it",
        )),
        kind => refuse(path, &kind),
    }
}

/// A connection for reading beside writers.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    settled(Connection::open_with_flags(path, flags)?)
}

/// With what every connection has.
pub(super) fn settled(conn: Connection) -> rusqlite::Result<Connection> {
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// Whether a table is there: a journal that may only be read can be older than it.
pub(super) fn has_table(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1")?
        .exists([name])
}

fn journal_mode(conn: &Connection) -> rusqlite::Result<()> {
    // The switch of a new file to WAL does not wait for another process that does the same: ask again.
    let mut left = 100;
    loop {
        let mode = conn.query_row("PRAGMA journal_mode = WAL", [], |row| {
            row.get::<_, String>(0)
        });
        match mode {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && left > 0 =>
            {
                left -= 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    conn.pragma_update(None, "cache_size", -8_000)
}

fn initialise(conn: &mut Connection) -> rusqlite::Result<Kind> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = kind(&tx)?;
    if found == Kind::Empty {
        tx.execute_batch(SCHEMA)?;
        tx.execute_batch(printed::TABLE)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", FORMAT)?;
    } else if found == Kind::Ours && !has_accounts(&tx)? {
        // A journal of before accounts were kept. Whoever does not know the column writes without it, so that the
        // format is the same.
        tx.execute_batch("ALTER TABLE inbox ADD COLUMN account TEXT")?;
    }
    if found == Kind::Ours {
        tx.execute_batch(printed::TABLE)?;
    }
    // Tables that came later. Whoever does not know them leaves them alone, so that the format is the same.
    if matches!(found, Kind::Empty | Kind::Ours) && !has_table(&tx, "home")? {
        tx.execute_batch(LATER)?;
    }
    tx.commit()?;
    Ok(found)
}

/// Whether the inbox says from which account a command came: a journal that may only be read may be an older one.
pub(super) fn has_accounts(conn: &Connection) -> rusqlite::Result<bool> {
    let mut columns =
        conn.prepare_cached("SELECT 1 FROM pragma_table_info('inbox') WHERE name = 'account'")?;
    columns.exists([])
}
