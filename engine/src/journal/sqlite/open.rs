//! Opening a journal file: what it is, whether it is ours, its schema.
use super::printed;
use crate::journal::JournalError;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi};
use std::{
    ffi::OsString,
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

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
            "{shown} was held by another process for more than {} seconds",
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

/// The lock file that stands beside the database.
pub(super) fn open_locks(path: &Path) -> Result<File, JournalError> {
    let mut name = OsString::from(path);
    name.push(".locks");
    let locks = PathBuf::from(name);
    private_file(&locks)
        .map_err(|e| JournalError::Store(format!("cannot open {}: {e}", locks.display())))
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

/// Makes the folder and the file where they are missing, for the owner alone.
fn prepare(path: &Path) -> Result<(), JournalError> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| {
            let folder = folder.display();
            JournalError::Store(format!("cannot make the folder {folder}: {e}"))
        })?;
    }
    if path.is_dir() {
        return Err(JournalError::Store(format!(
            "{} is a folder; a journal is a file",
            path.display()
        )));
    }
    let made = private_file(path);
    made.map(drop)
        .map_err(|e| JournalError::Store(format!("cannot open {}: {e}", path.display())))
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
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    if application == APPLICATION_ID {
        return Ok(if version > FORMAT {
            Kind::Newer(version)
        } else {
            Kind::Ours
        });
    }
    let tables = number("SELECT count(*) FROM sqlite_master")?;
    Ok(if application == 0 && version == 0 && tables == 0 {
        Kind::Empty
    } else {
        Kind::Foreign
    })
}

fn refuse(path: &Path, kind: Kind) -> Result<(), JournalError> {
    match kind {
        Kind::Empty | Kind::Ours => Ok(()),
        Kind::Newer(found) => Err(JournalError::Newer {
            found,
            known: FORMAT,
        }),
        Kind::Foreign => Err(JournalError::Store(format!(
            "{} is the database of another program; nothing was changed",
            path.display()
        ))),
    }
}

/// Opens the file for writing, after a look that changes nothing.
pub(super) fn writer(path: &Path) -> Result<Connection, JournalError> {
    prepare(path)?;
    let explain = |error: rusqlite::Error| {
        if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) {
            return JournalError::Store(format!(
                "{} is not a journal: it is no SQLite database; nothing was changed",
                path.display()
            ));
        }
        store_error(path, &error)
    };
    if path.metadata().is_ok_and(|file| file.len() > 0) {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(explain)?;
        conn.busy_timeout(BUSY).map_err(explain)?;
        refuse(path, kind(&conn).map_err(explain)?)?;
    }
    let mut conn = connect(path).map_err(explain)?;
    journal_mode(&conn).map_err(explain)?;
    let found = initialise(&mut conn).map_err(explain)?;
    refuse(path, found)?;
    Ok(conn)
}

/// A connection for reading.
pub(super) fn reader(path: &Path) -> Result<Connection, JournalError> {
    let open = || {
        let conn = connect(path)?;
        conn.pragma_update(None, "query_only", true)?;
        Ok(conn)
    };
    open().map_err(|error| store_error(path, &error))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
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
    tx.commit()?;
    Ok(found)
}

/// Whether the inbox says from which account a command came: a journal that may only be read may be an older one.
pub(super) fn has_accounts(conn: &Connection) -> rusqlite::Result<bool> {
    let mut columns =
        conn.prepare_cached("SELECT 1 FROM pragma_table_info('inbox') WHERE name = 'account'")?;
    columns.exists([])
}
