//! SQLite. Its calls block, so they run on the blocking pool; a statement that must end is interrupted.
mod doctor;
mod errors;
mod session;
#[cfg(test)]
mod tests;
mod values;

use super::{Access, Database, Session, Until, options};
use errors::Trouble;
use futures_util::future::BoxFuture;
use rusqlite::{Connection, OpenFlags};
use session::SqliteSession;
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use windlass_engine::step::{
    Cause, Examination, Failure, Identity, LedgerRecipe, Now, Target, TargetKind,
};

/// The keys that a target of this kind may have.
const KEYS: &[&str] = &[
    "statement_timeout",
    "connect_timeout",
    "busy_timeout",
    "create",
    "read_only",
];

/// The target kind `sqlite`: one file.
pub(crate) struct Sqlite;

/// `sqlite:path`, `sqlite:///path`, `file:path` or a path.
pub(crate) fn path_of(target: &Target, url: &str) -> Result<PathBuf, Failure> {
    let wrong = |why: &str| {
        Failure::new(
            "target.url",
            format!("the url of target {} is no SQLite file: {why}", target.name),
        )
        .help("write sqlite:path/to/file.db, sqlite:///absolute/path.db or a plain path")
    };
    let rest = url.strip_prefix("sqlite:").unwrap_or(url);
    let path = match rest.strip_prefix("//") {
        Some(rest) if rest.starts_with('/') => rest,
        Some(_) => return Err(wrong("after sqlite:// an absolute path must follow")),
        None => rest,
    };
    if path.is_empty() {
        return Err(wrong("the path is empty"));
    }
    if path.contains(":memory:") {
        return Err(wrong("a database in memory is gone when the step ends"));
    }
    if path.contains("://") {
        return Err(wrong("it names another protocol"));
    }
    if path.contains('\0') || path.contains('?') {
        return Err(wrong("the path has a character that cannot stand there"));
    }
    Ok(PathBuf::from(path))
}

/// Who a file is. One that a run may create has no inode to be known by.
fn identity(path: &Path, create: bool) -> Identity {
    let real = resolved(path);
    let file = real.metadata().ok().filter(|_| !create);
    Identity {
        instance: real.display().to_string(),
        system: file.map(|file| format!("{}:{}", file.dev(), file.ino())),
        role: None,
        timeline: None,
        version: format!("SQLite {}", rusqlite::version()),
    }
}

/// A path without links, whether its last parts are there already or not: it is the same before and after a run makes the file.
fn resolved(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = whole.ancestors().find_map(|part| {
        let rest = whole.strip_prefix(part).ok()?;
        Some((part.canonicalize().ok()?, rest))
    });
    match found {
        Some((real, rest)) if rest.as_os_str().is_empty() => real,
        Some((real, rest)) => real.join(rest),
        None => whole,
    }
}

fn missing(target: &Target, path: &Path) -> Failure {
    Failure::new(
        "target.missing",
        format!("target {}: there is no database file {}", target.called(), path.display()),
    )
    .cause(Cause::ConnectionLost)
    .help("correct the url in the environment, or add `create: true` there to let a writing step create it")
}

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
            options::known(target, KEYS)?;
            let path = path_of(target, url)?;
            let create = options::flag(target, "create")?;
            if !create && !path.exists() {
                return Err(missing(target, &path));
            }
            Ok(identity(&path, create))
        })
    }

    fn examine<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        now: Now<'a>,
    ) -> BoxFuture<'a, Examination> {
        Box::pin(doctor::examine(target, url, now))
    }

    fn ledger_recipe(&self, target: &Target) -> Option<LedgerRecipe> {
        doctor::recipe(target)
    }

    fn make_ledger<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(doctor::make(target, url))
    }
}

impl Database for Sqlite {
    fn open<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        access: Access,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, Failure>> {
        Box::pin(async move {
            options::known(target, KEYS)?;
            let path = path_of(target, url)?;
            let create = options::flag(target, "create")?;
            if access == Access::Write && options::flag(target, "read_only")? {
                return Err(Failure::new(
                    "target.read_only",
                    format!("target {} is read_only in this environment", target.name),
                ));
            }
            if !path.exists() && (access == Access::Read || !create) {
                return Err(missing(target, &path));
            }
            let flags = match access {
                Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
                Access::Write if create => {
                    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
                }
                Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
            } | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let opening = tokio::task::spawn_blocking(move || {
                if access == Access::Write
                    && create
                    && let Some(folder) = path.parent()
                {
                    // Where it cannot be made, opening the file says so.
                    drop(std::fs::create_dir_all(folder));
                }
                let connection = Connection::open_with_flags(&path, flags)?;
                connection.pragma_update(None, "foreign_keys", true)?;
                if access == Access::Read {
                    connection.pragma_update(None, "query_only", true)?;
                }
                Ok::<_, Trouble>((connection, identity(&path, create)))
            });
            let limit = options::connect_timeout(target)?.min(until.left());
            tokio::select! {
                opened = opening => match opened {
                    Ok(Ok((connection, who))) => Ok(Box::new(SqliteSession::new(connection, who)) as Box<dyn Session>),
                    Ok(Err(trouble)) => Err(trouble.failure()),
                    Err(_) => Err(Failure::new("sql.defect", "the code that opens the database failed")),
                },
                () = until.sleep(limit) => Err(match until.passed() {
                    Some(cause) => Until::ended(cause),
                    None => Failure::new(
                        "target.connect_timeout",
                        format!("target {} could not be opened within {limit}", target.name),
                    )
                    .cause(Cause::ConnectionLost),
                }),
            }
        })
    }

    fn exists(&self, target: &Target, url: &str) -> Result<bool, Failure> {
        Ok(path_of(target, url)?.exists())
    }
}
