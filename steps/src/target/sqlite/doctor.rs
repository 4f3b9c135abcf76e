//! What `windlass doctor` asks of a SQLite file, and the ledger that it makes there.
use super::{errors::Trouble, options, path_of, session};
use nix::unistd::{AccessFlags, access};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::path::{Path, PathBuf};
use windlass_engine::{
    step::{Cause, Examination, Failure, LedgerRecipe, LedgerStanding, Now, Target, TargetKind},
    value::Duration,
};

/// What was read inside the file.
struct Seen {
    ledger: LedgerStanding,
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, Trouble> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(std::time::Duration::from_secs(2))?;
    Ok(connection)
}

/// Whether a table stands under the ledger's name, and has its columns.
fn standing(connection: &Connection, table: &str) -> Result<LedgerStanding, Trouble> {
    let name = table.rsplit('.').next().unwrap_or(table);
    let kind: Option<String> = connection
        .query_row(
            "SELECT type FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')",
            [name],
            |row| row.get(0),
        )
        .optional()?;
    if kind.is_none() {
        return Ok(LedgerStanding::Missing);
    }
    let mut columns = connection.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
    let columns: Vec<String> = columns
        .query_map([name], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(if columns == session::LEDGER_COLUMNS {
        LedgerStanding::Ready
    } else {
        LedgerStanding::Wrong
    })
}

fn look(path: &Path, ledger: Option<&str>) -> Result<Seen, Trouble> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // The first page is read only when something is asked.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
        row.get::<_, i64>(0)
    })?;
    Ok(Seen {
        ledger: match ledger {
            None => LedgerStanding::NotNamed,
            Some(table) => standing(&connection, table)?,
        },
    })
}

fn may(path: &Path, how: AccessFlags) -> bool {
    access(path, how).is_ok()
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

fn user() -> String {
    let uid = nix::unistd::Uid::effective();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

pub(super) async fn examine(target: &Target, url: &str, now: Now<'_>) -> Examination {
    let mut seen = Examination {
        ledger: match target.ledger {
            Some(_) => LedgerStanding::Unknown,
            None => LedgerStanding::NotNamed,
        },
        ..Examination::default()
    };
    let began = now();
    match super::Sqlite.identify(target, url).await {
        Ok(identity) => seen.identity = Some(identity),
        Err(failure) => {
            seen.problem(failure);
            return seen;
        }
    }
    seen.user = Some(user());
    let (path, create, read_only) = match (
        path_of(target, url),
        options::flag(target, "create"),
        options::flag(target, "read_only"),
    ) {
        (Ok(path), Ok(create), Ok(read_only)) => (path, create, read_only),
        (Err(failure), _, _) | (_, Err(failure), _) | (_, _, Err(failure)) => {
            seen.problem(failure);
            return seen;
        }
    };
    if create && !path.exists() {
        absent(target, &path, &mut seen);
        return seen;
    }
    if !path.is_file() {
        seen.problem(
            Failure::new(
                "target.not_a_file",
                format!("target {}: {} is no file", target.name, path.display()),
            )
            .help("let the url in the environment name the database's file"),
        );
        return seen;
    }
    if !may(&path, AccessFlags::R_OK) {
        seen.rights = Some("none".to_owned());
        seen.problem(
            Failure::new(
                "target.rights",
                format!(
                    "target {}: {} may not read {}",
                    target.name,
                    user(),
                    path.display()
                ),
            )
            .help(format!(
                "let its owner grant it: chmod or chgrp {}, or run windlass as another user",
                path.display()
            )),
        );
        return seen;
    }
    let (file, table) = (path.clone(), target.ledger.clone());
    let looked = tokio::task::spawn_blocking(move || {
        look(&file, table.as_deref()).map_err(Trouble::failure)
    })
    .await;
    match looked {
        Ok(Ok(inside)) => {
            seen.latency = Some(Duration::between(began, now()));
            seen.ledger = inside.ledger;
        }
        Ok(Err(failure)) => {
            seen.problem(failure);
            return seen;
        }
        Err(_) => {
            seen.problem(Failure::new(
                "sql.defect",
                "the code that opens the database failed",
            ));
            return seen;
        }
    }
    // SQLite writes a journal beside the file, so the folder counts as well.
    let writes = may(&path, AccessFlags::W_OK) && may(&folder(&path), AccessFlags::W_OK);
    seen.rights = Some(
        match (writes, read_only) {
            (true, false) => "reads and writes",
            (_, true) => "reads only (read_only)",
            (false, false) => "reads only",
        }
        .to_owned(),
    );
    if !writes && !read_only {
        seen.advice(
            Failure::new(
                "target.read_only",
                format!(
                    "target {}: {} may not write {} or its folder, so steps that write would fail",
                    target.name,
                    user(),
                    path.display()
                ),
            )
            .help("grant it, or say `read_only: true` in the environment if nothing should write there"),
        );
    }
    ledger(target, &mut seen);
    seen
}

/// A file that the first step that writes would make.
fn absent(target: &Target, path: &Path, seen: &mut Examination) {
    let mut folder = folder(path);
    while !folder.exists() {
        match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => folder = parent.to_owned(),
            Some(_) | None => {
                folder = PathBuf::from(".");
                break;
            }
        }
    }
    if may(&folder, AccessFlags::W_OK) {
        seen.rights = Some("may be created".to_owned());
        seen.ledger = match target.ledger {
            Some(_) => LedgerStanding::Missing,
            None => LedgerStanding::NotNamed,
        };
        seen.advice(
            Failure::new(
                "target.absent",
                format!(
                    "target {}: {} is not there yet; the first step that writes makes it",
                    target.name,
                    path.display()
                ),
            )
            .help("nothing needs to be done; if it should be there, correct the url"),
        );
    } else {
        seen.rights = Some("none".to_owned());
        seen.problem(
            Failure::new(
                "target.rights",
                format!(
                    "target {}: {} is not there, and {} may not write into {}",
                    target.name,
                    path.display(),
                    user(),
                    folder.display()
                ),
            )
            .help("grant it, or correct the url in the environment"),
        );
    }
}

fn ledger(target: &Target, seen: &mut Examination) {
    let table = target.ledger.as_deref().unwrap_or_default();
    match seen.ledger {
        LedgerStanding::Missing => seen.advice(
            Failure::new(
                "target.ledger_missing",
                format!(
                    "target {}: the ledger {table} is not there yet; the first step that writes makes it",
                    target.name
                ),
            )
            .help(format!(
                "nothing needs to be done; `windlass doctor {} --init-ledger` makes it now",
                target.name
            )),
        ),
        LedgerStanding::Wrong => seen.problem(
            Failure::new(
                "target.ledger_wrong",
                format!(
                    "target {}: {table} is there and is no ledger: its columns are others",
                    target.name
                ),
            )
            .help("name another table as `ledger` in the environment"),
        ),
        LedgerStanding::NotNamed | LedgerStanding::Ready | LedgerStanding::Unknown => {}
    }
}

pub(super) fn recipe(target: &Target) -> Option<LedgerRecipe> {
    let table = target.ledger.as_deref()?;
    Some(LedgerRecipe {
        ddl: session::ledger_ddl(table),
        rights: "whoever runs windlass must be able to write the file and its folder".to_owned(),
    })
}

pub(super) async fn make(target: &Target, url: &str) -> Result<(), Failure> {
    let path = path_of(target, url)?;
    let create = options::flag(target, "create")?;
    let Some(table) = target.ledger.clone() else {
        return Err(Failure::new(
            "target.no_ledger",
            format!("target {} names no ledger", target.name),
        ));
    };
    if !path.exists() && !create {
        return Err(super::missing(target, &path));
    }
    let making = tokio::task::spawn_blocking(move || {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        if create {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
            drop(std::fs::create_dir_all(folder(&path)));
        }
        session::make_ledger(&open(&path, flags)?, &table)
    });
    match making.await {
        Ok(made) => made.map_err(Trouble::failure),
        Err(_) => Err(
            Failure::new("sql.defect", "the code that makes the ledger failed")
                .cause(Cause::Permanent),
        ),
    }
}
