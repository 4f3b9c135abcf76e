//! Reading a journal that may not be written to: a file of another account, a read-only folder, a copy on read-only storage.
//!
//! SQLite reads a database with a write-ahead log by way of an index in shared memory, a file that it makes where it is missing.
//! Where it may not, or must not since it would be left behind, one of three ways is taken:
//!
//! | log | index | |
//! |---|---|---|
//! | none, or empty | any | the database file alone, as if nobody wrote (`immutable`) |
//! | holds something | there | SQLite's own way for readers that may not write |
//! | holds something | none | nobody has it open: the log is read with an index in memory |
//!
//! The first and the last hold only while nobody writes. So the files are looked at before and after, and what was read is thrown
//! away where they changed.
use super::{
    open::{not_opened, reader, settled, unusable},
    place::{beside, is_open, may_have_names},
};
use crate::journal::JournalError;
use nix::unistd::{AccessFlags, access};
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

/// How often a read is tried again because somebody wrote meanwhile.
pub(super) const TRIES: u32 = 20;

/// What changes when anybody writes: of the file, its log and its index, the inode, the length and the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<(u64, u64, i64, i64)>>);

impl Stamp {
    pub(super) fn of(path: &Path) -> Self {
        let files = ["", "-wal"].map(|ending| {
            let file = fs::metadata(beside(path, ending)).ok()?;
            Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
        });
        Self(files.into())
    }

    /// As a number, for those who wait for news.
    pub(super) fn number(&self) -> u64 {
        let hash: [u8; 32] = Sha256::digest(format!("{:?}", self.0).as_bytes()).into();
        hash.iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

fn may(path: &Path, flags: AccessFlags) -> bool {
    access(path, flags).is_ok()
}

/// Whether this process may use the file as every other does, beside writers.
pub(super) fn may_write(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let both = AccessFlags::R_OK | AccessFlags::W_OK;
    // A second name of the file has no log of its own, and must not get one.
    let alone = !may_have_names(path);
    let made = ["-wal", "-shm"].iter().all(|ending| {
        let file = beside(path, ending);
        !file.exists() || may(&file, both)
    });
    (alone || beside(path, "-wal").exists())
        && may(path, both)
        && may(folder, AccessFlags::W_OK)
        && made
}

/// A journal of which every file may be written to, or why not. Asked before SQLite opens it, which would leave a log behind that
/// its owner may not write to.
pub(super) fn check_writable(path: &Path) -> Result<(), JournalError> {
    for ending in ["", "-wal", "-shm"] {
        let file = beside(path, ending);
        if file.exists() && !may(&file, AccessFlags::R_OK | AccessFlags::W_OK) {
            let what = if ending.is_empty() {
                "it".to_owned()
            } else {
                file.display().to_string()
            };
            let whose = super::files::whose(&file);
            return Err(unusable(
                path,
                format!("{what} may not be written to by this account{whose}"),
            ));
        }
    }
    Ok(())
}

/// A file that can be read at all, or why not.
pub(super) fn check_readable(path: &Path) -> Result<(), JournalError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(JournalError::Missing {
                path: path.display().to_string(),
            });
        }
        Err(error) => return Err(unusable(path, error.to_string())),
        Ok(file) if file.is_dir() => {
            return Err(unusable(path, "it is a folder; a journal is a file"));
        }
        Ok(file) if !file.is_file() => return Err(unusable(path, "it is not a regular file")),
        Ok(file) if file.len() == 0 && log_length(path) == 0 => {
            return Err(unusable(
                path,
                "it is empty: no journal was ever written to it; nothing was changed",
            ));
        }
        Ok(_) => {}
    }
    if !may(path, AccessFlags::R_OK) {
        let whose = super::files::whose(path);
        return Err(unusable(path, format!("it may not be read{whose}")));
    }
    // Only where there is no log beside it: to open and close the file would take SQLite's locks from this process's own handles.
    if may_have_names(path) && !beside(path, "-wal").exists() && is_open(path) {
        return Err(unusable(
            path,
            "it is in use under another name (a hard link, or a mount of the single file), beside which is what was written last",
        ));
    }
    for ending in ["-wal", "-shm"] {
        let file = beside(path, ending);
        if log_length(path) > 0 && file.exists() && !may(&file, AccessFlags::R_OK) {
            let whose = super::files::whose(&file);
            let what = format!(
                "{} may not be read, and holds what was written last{whose}",
                file.display()
            );
            return Err(unusable(path, what));
        }
    }
    Ok(())
}

fn log_length(path: &Path) -> u64 {
    fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len())
}

/// A connection that writes nothing, not even a file beside the database.
pub(super) fn peek(path: &Path) -> Result<Connection, JournalError> {
    let opened = if log_length(path) == 0 {
        immutable(path)
    } else if beside(path, "-shm").exists() {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(path, flags)
    } else {
        index_in_memory(path)
    };
    opened
        .and_then(settled)
        .map_err(|error| not_opened(path, &error))
}

/// A connection for reading: beside writers where that is allowed, else one that writes nothing.
pub(super) fn connection(path: &Path) -> Result<Connection, JournalError> {
    if may_write(path) {
        reader(path).map_err(|error| not_opened(path, &error))
    } else {
        peek(path)
    }
}

fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
}

/// Without locks, since there is nobody to lock out, and with the index of the log in memory, as for one who has the file alone.
fn index_in_memory(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags_and_vfs(path, flags, "unix-none")?;
    conn.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |row| {
        row.get::<_, String>(0)
    })?;
    Ok(conn)
}
