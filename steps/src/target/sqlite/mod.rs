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

fn missing(target: &Target, path: &Path) -> Failure {
    Failure::new(
        "target.missing",
        format!("target {}: there is no database file {}", target.name, path.display()),
    )
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
            let version = format!("SQLite {}", rusqlite::version());
            let Ok(real) = path.canonicalize() else {
                if !create {
                    return Err(missing(target, &path));
                }
                let instance = std::path::absolute(&path).unwrap_or(path);
                return Ok(Identity {
                    instance: instance.display().to_string(),
                    system: None,
                    role: None,
                    timeline: None,
                    version,
                });
            };
            // A file that a run may create has no inode to be known by.
            let system = (!create)
                .then(|| real.metadata().ok())
                .flatten()
                .map(|file| format!("{}:{}", file.dev(), file.ino()));
            Ok(Identity {
                instance: real.display().to_string(),
                system,
                role: None,
                timeline: None,
                version,
            })
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
                Ok::<_, Trouble>(connection)
            });
            let limit = options::connect_timeout(target)?.min(until.left());
            tokio::select! {
                opened = opening => match opened {
                    Ok(Ok(connection)) => Ok(Box::new(SqliteSession::new(connection)) as Box<dyn Session>),
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
