//! What SQLite's errors mean for a step.
use super::super::Until;
use rusqlite::ErrorCode;
use windlass_engine::step::{Cause, Failure};

/// Why work on a connection did not succeed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// SQLite said so.
    Sqlite(rusqlite::Error),
    /// A guard of ours refused.
    Refused(Failure),
    /// The time was over, or the step cancelled.
    Ended(Cause),
    /// The connection is gone: the code on it failed.
    Lost,
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Trouble {
    /// Whether a lock of another connection stood in the way.
    pub(super) fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Sqlite(error) if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            )
        )
    }

    /// Whether the statement was interrupted.
    pub(super) fn is_interrupt(&self) -> bool {
        matches!(self, Self::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
    }

    /// For a person. SQLite takes back a statement that fails, so nothing happened.
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Ended(cause) => Until::ended(cause),
            Self::Refused(failure) => failure,
            Self::Lost => Failure::new(
                "sql.defect",
                "the code on this connection failed; this is a defect of Windlass",
            ),
            Self::Sqlite(error) => classified(&error),
        }
    }
}

fn classified(error: &rusqlite::Error) -> Failure {
    let text = if let rusqlite::Error::SqlInputError { msg, .. } = error {
        msg.clone()
    } else {
        error.to_string()
    };
    let failure = |code: &str, what: &str| Failure::new(code, format!("{what}: {text}"));
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => failure(
            "sql.lock_timeout",
            "another connection holds the database's lock",
        )
        .cause(Cause::LockTimeout)
        .help("see who writes to this file, or raise lock_timeout"),
        Some(ErrorCode::ConstraintViolation) => {
            failure("sql.constraint", "a constraint of the table refused")
        }
        Some(ErrorCode::DiskFull) => failure("sql.disk_full", "the database's disk is full"),
        Some(ErrorCode::ReadOnly) => failure("sql.read_only", "the database refuses writes"),
        Some(ErrorCode::CannotOpen) => {
            failure("target.unreachable", "the database file cannot be opened")
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            failure("sql.corrupt", "the file is no sound SQLite database")
                .help("PRAGMA integrity_check lists what is damaged; restore it from a backup")
        }
        Some(ErrorCode::SystemIoFailure) => {
            failure("sql.io", "the file could not be read or written")
        }
        Some(ErrorCode::OperationInterrupted) => {
            failure("sql.interrupted", "the statement was ended").cause(Cause::Interrupted)
        }
        Some(_) | None => failure("sql.error", "the database refused the statement"),
    }
}
