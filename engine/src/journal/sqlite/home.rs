//! Where a journal lives. A copy of a journal has every run of the original, and neither sees the other's leases and locks: a run
//! that is driven from both acts twice. So a journal knows its file, and a copy whose original is still there may only be read.
use super::{open::store_error, place::FileId};
use crate::journal::JournalError;
use nix::unistd::gethostname;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;

/// Refuses a copy, and writes down the file of a journal that is new, was moved, or was put back where the original is gone.
pub(super) fn settle(conn: &Connection, path: &Path) -> Result<(), JournalError> {
    let failed = |error: rusqlite::Error| store_error(path, &error);
    let Some(now) = FileId::at(path) else {
        return Ok(());
    };
    let host = gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default();
    let known = conn
        .query_row("SELECT host, path, device, inode FROM home", [], |row| {
            let id = FileId {
                device: signed(row.get(2)?),
                inode: signed(row.get(3)?),
            };
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, id))
        })
        .optional()
        .map_err(failed)?;
    let shown = path.display().to_string();
    if let Some((there, original, id)) = &known {
        if *id == now && *original == shown {
            return Ok(());
        }
        // Another host's file cannot be looked at; a container has another name each time, and the same file.
        if *id != now && *there == host && FileId::at(Path::new(original)) == Some(*id) {
            return Err(JournalError::Copied {
                path: shown,
                original: original.clone(),
            });
        }
    }
    conn.execute(
        "INSERT OR REPLACE INTO home (one, host, path, device, inode) VALUES (1, ?1, ?2, ?3, ?4)",
        params![
            host,
            shown,
            now.device.cast_signed(),
            now.inode.cast_signed()
        ],
    )
    .map(drop)
    .map_err(failed)
}

/// SQLite has no unsigned numbers.
fn signed(stored: i64) -> u64 {
    stored.cast_unsigned()
}
