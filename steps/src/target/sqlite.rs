//! SQLite: one connection a step, in a blocking thread; a timeout or a cancel interrupts the statement.
use futures_util::future::BoxFuture;
use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags, types::ValueRef};
use std::{path::PathBuf, sync::Arc};
use tokio::sync::oneshot;
use windlass_engine::{
    step::{Cause, Certainty, Failure, Identity, StepHost, Target, TargetKind},
    value::{Duration, Timestamp, Value},
};

/// The longest that a statement may take where neither the step nor the environment says.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest to wait for a lock where the environment does not say.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The target kind `sqlite`.
pub struct Sqlite;

impl TargetKind for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn identify<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
    ) -> BoxFuture<'a, Result<Identity, Failure>> {
        Box::pin(async move {
            let path = path_of(url);
            let may_create = target.options.get("create").and_then(Value::as_bool) == Some(true);
            let known = match std::fs::canonicalize(&path) {
                Ok(path) => path,
                Err(_) if may_create => std::path::absolute(&path).unwrap_or(path),
                Err(error) => {
                    return Err(Failure::new(
                        "sqlite.no_file",
                        format!("{}: {error}", path.display()),
                    )
                    .help("check the url, or set `create: true` where a step makes the database"));
                }
            };
            Ok(Identity {
                instance: known.display().to_string(),
                system: None,
                role: None,
                version: format!("SQLite {}", rusqlite::version()),
            })
        })
    }
}

/// The file of a URL: `sqlite:path`, `sqlite://path` or a bare path.
fn path_of(url: &str) -> PathBuf {
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    PathBuf::from(path.strip_prefix("//").unwrap_or(path))
}

/// What may be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing is written, whatever the statement says.
    Read,
    /// Reads and writes.
    Write,
}

/// What ends a statement early.
pub struct Limits {
    /// Ends it when cancelled.
    pub cancel: tokio_util::sync::CancellationToken,
    /// The step's own deadline.
    pub deadline: Option<Timestamp>,
    /// For the time and for sleeping.
    pub host: Arc<dyn StepHost>,
}

/// Runs `act` on a new connection in a blocking thread.
///
/// # Errors
/// Where the database cannot be opened, `act` fails, or a limit is reached (then the statement has ended).
pub async fn with<T: Send + 'static>(
    target: &Target,
    url: &str,
    access: Access,
    limits: Limits,
    act: impl FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let path = path_of(url);
    let option = |name: &str, default: Duration| match target.options.get(name) {
        Some(Value::Duration(duration)) => *duration,
        Some(Value::Text(text)) => text.parse().unwrap_or(default),
        _ => default,
    };
    let busy = option("busy_timeout", BUSY_TIMEOUT);
    let create = target.options.get("create").and_then(Value::as_bool) == Some(true);
    let name = target.name.clone();
    let (handle, interrupt) = oneshot::channel::<InterruptHandle>();
    let work = tokio::task::spawn_blocking(move || {
        let flags = match access {
            Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Access::Write if create => {
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
            }
            Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let opened = Connection::open_with_flags(&path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX);
        let mut connection = opened.map_err(|error| {
            Failure::new(
                "sql.connect",
                format!("target {name} ({}): {error}", path.display()),
            )
            .cause(Cause::ConnectionLost)
        })?;
        let prepare = || -> rusqlite::Result<()> {
            connection.busy_timeout(busy.to_std())?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.pragma_update(None, "query_only", access == Access::Read)
        };
        prepare().map_err(failure)?;
        // Nobody listens any more where the step was cancelled meanwhile; the statement then never starts.
        if handle.send(connection.get_interrupt_handle()).is_err() {
            return Err(Failure::new("sql.cancelled", "cancelled before it started")
                .cause(Cause::Cancelled));
        }
        act(&mut connection)
    });
    tokio::pin!(work);
    let now = limits.host.now();
    let own = option("statement_timeout", STATEMENT_TIMEOUT).after(now);
    let deadline = limits.deadline.map_or(own, |deadline| deadline.min(own));
    let late = limits
        .host
        .sleep(Duration::between(now, deadline).max(Duration::ZERO));
    let joined = |result: Result<Result<T, Failure>, tokio::task::JoinError>| match result {
        Ok(result) => result,
        Err(error) => Err(Failure::new(
            "sql.thread",
            format!("the statement's thread failed: {error}"),
        )
        .certainty(Certainty::Unknown)),
    };
    // A cancel ends the sleep early too.
    tokio::select! {
        result = &mut work => return joined(result),
        () = late => {}
        () = limits.cancel.cancelled() => {}
    }
    let cancelled = limits.cancel.is_cancelled();
    if let Ok(interrupt) = interrupt.await {
        interrupt.interrupt();
    }
    joined(work.await).map_err(|mut failure| {
        if failure.code == "sql.interrupted" {
            (failure.cause, failure.message) = if cancelled {
                (
                    Cause::Cancelled,
                    "cancelled; the statement has ended".to_owned(),
                )
            } else {
                (
                    Cause::Timeout,
                    "the statement took too long and was ended".to_owned(),
                )
            };
        }
        failure
    })
}

/// An error of SQLite as a failure without effect; its cause decides about a retry.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub fn failure(error: rusqlite::Error) -> Failure {
    let (code, cause) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            ("sql.lock_timeout", Cause::LockTimeout)
        }
        Some(ErrorCode::OperationInterrupted) => ("sql.interrupted", Cause::Cancelled),
        Some(ErrorCode::ConstraintViolation) => ("sql.constraint", Cause::Permanent),
        Some(ErrorCode::ReadOnly) => ("sql.read_only", Cause::Permanent),
        Some(ErrorCode::DiskFull) => ("sql.disk_full", Cause::Permanent),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            ("sql.corrupt", Cause::Permanent)
        }
        _ => ("sql.error", Cause::Permanent),
    };
    Failure::new(code, error.to_string()).cause(cause)
}

/// A column of a row as it is stored: integers, reals, text and blobs stay what they are.
#[must_use]
pub fn value(column: ValueRef<'_>, declared: Option<&str>) -> Value {
    match column {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n)
            if declared.is_some_and(|t| t.eq_ignore_ascii_case("boolean"))
                && (n == 0 || n == 1) =>
        {
            Value::Bool(n == 1)
        }
        ValueRef::Integer(n) => Value::Int(n),
        ValueRef::Real(x) => Value::Float(x),
        ValueRef::Text(text) => Value::from(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.into()),
    }
}

/// A value as SQLite binds it; exact decimals that are no integer of 64 bits go as text.
#[must_use]
pub fn bound(value: &Value) -> rusqlite::types::Value {
    use rusqlite::types::Value as Sql;
    match value {
        Value::Null => Sql::Null,
        Value::Bool(b) => Sql::Integer(i64::from(*b)),
        Value::Int(n) => Sql::Integer(*n),
        Value::Float(x) => Sql::Real(*x),
        Value::Bytes(bytes) => Sql::Blob(bytes.to_vec()),
        Value::Size(size) => Sql::Integer(size.0),
        Value::Text(_)
        | Value::Decimal(_)
        | Value::Duration(_)
        | Value::Timestamp(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Secret(_) => Sql::Text(value.to_string()),
    }
}
