//! The journal of an environment: is it one, and may those who share it use it.
use crate::{
    error::CliError,
    session::{Session, group},
    ui::again::quoted,
};
use nix::unistd::{AccessFlags, Gid, Uid, User, access, getegid, getgroups};
use serde_json::{Value as Json, json};
use std::{
    ffi::OsString,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use windlass_engine::{
    journal::{Sharing, SqliteJournal},
    step::{Examination, Failure},
};

/// The journal and what was found.
pub(super) struct Journal {
    path: PathBuf,
    group: Option<String>,
    is_there: bool,
    /// Only its findings are filled.
    pub(super) seen: Examination,
}

/// Looks at the journal; nothing of it is changed.
pub(super) fn examine(session: &Session) -> Result<Journal, CliError> {
    let path = session.journal_path()?;
    let path = std::path::absolute(&path).map_err(|error| CliError::file(&path, "find", &error))?;
    let mut journal = Journal {
        group: session.journal_group()?.map(str::to_owned),
        is_there: path.exists(),
        path,
        seen: Examination::default(),
    };
    if journal.is_there {
        journal.usable();
    } else {
        journal.can_be_made();
    }
    if let Some(name) = journal.group.clone() {
        match group(&name) {
            Ok(found) => journal.shared(&name, found.gid),
            Err(error) => journal.problem("journal.group", error.message, error.help.join("; ")),
        }
    } else {
        journal.own();
    }
    Ok(journal)
}

impl Journal {
    pub(super) fn state(&self) -> &'static str {
        match (self.seen.is_fit(), self.is_there) {
            (false, _) => "problem",
            (true, true) => "ok",
            (true, false) => "not made yet",
        }
    }

    /// `journal /var/lib/windlass/journal.db, group dba`.
    pub(super) fn name(&self) -> String {
        let group = self.group.as_ref();
        let group = group.map(|group| format!(", group {group}"));
        format!("{}{}", self.path.display(), group.unwrap_or_default())
    }

    pub(super) fn as_json(&self) -> Json {
        json!({
            "path": self.path.display().to_string(),
            "group": self.group,
            "state": self.state(),
            "findings": super::findings(&self.seen),
        })
    }

    fn problem(&mut self, code: &'static str, message: String, help: String) {
        self.seen.problem(Failure::new(code, message).help(help));
    }

    /// The folder that is there, or the one in which it would be made.
    fn can_be_made(&mut self) {
        let around = self.path.ancestors().skip(1).find(|folder| folder.exists());
        let folder = around.unwrap_or(Path::new("/")).to_owned();
        if access(&folder, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
            self.problem(
                "journal.not_writable",
                format!(
                    "the journal is not made yet, and this account may not write to the folder {}",
                    folder.display()
                ),
                "make the folder writable, or write another `journal` in windlass.yaml".to_owned(),
            );
        }
    }

    fn usable(&mut self) {
        if let Err(error) = SqliteJournal::read(&self.path) {
            let error = CliError::from(error);
            self.problem("journal.unusable", error.message, error.help.join("; "));
            return;
        }
        let folder = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        for file in self.files().into_iter().chain([folder]) {
            if access(&file, AccessFlags::W_OK).is_err() {
                self.problem(
                    "journal.not_writable",
                    format!(
                        "{} may not be written to by this account: its runs can be shown, and neither driven nor answered",
                        file.display()
                    ),
                    "to share it, write `journal: { path: …, group: … }` in windlass.yaml, and call doctor as its owner"
                        .to_owned(),
                );
                return;
            }
        }
    }

    /// The database and what is beside it.
    fn files(&self) -> Vec<PathBuf> {
        let beside = |ending: &str| {
            let mut name = OsString::from(&self.path);
            name.push(ending);
            PathBuf::from(name)
        };
        let files = ["", "-wal", "-shm", ".locks"].map(beside);
        files.into_iter().filter(|file| file.exists()).collect()
    }

    /// One account's journal that others may read: what runs leave in it can be confidential.
    fn own(&mut self) {
        let open = |file: &PathBuf| fs::metadata(file).is_ok_and(|file| file.mode() & 0o007 != 0);
        let files: Vec<PathBuf> = self.files().into_iter().filter(open).collect();
        if !files.is_empty() {
            let failure = Failure::new(
                "journal.open",
                "every account of this host may use the journal, which holds what steps read and printed",
            );
            let failure = failure.help(format!("chmod o= {}", all(&files)));
            self.seen.advice(failure);
        }
    }

    fn shared(&mut self, name: &str, gid: Gid) {
        let of_group = |file: &Metadata| file.gid() == gid.as_raw();
        let groups = getgroups().unwrap_or_default();
        if !Uid::effective().is_root() && getegid() != gid && !groups.contains(&gid) {
            let user = User::from_uid(Uid::current()).ok().flatten();
            let user = user.map_or_else(|| "USER".to_owned(), |user| user.name);
            self.problem(
                "journal.not_a_member",
                format!("this account is not in the group {name}, which shares the journal"),
                format!("as root: usermod -aG {name} {user}; then log in again"),
            );
        }
        let folder = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        if let Ok(found) = fs::metadata(&folder)
            && (!of_group(&found) || found.mode() & Sharing::FOLDER != Sharing::FOLDER)
        {
            let place = quoted(&folder);
            self.problem(
                "journal.folder",
                format!(
                    "the folder {} is not shared by the group {name}: SQLite makes files in it, which must be the group's",
                    folder.display()
                ),
                format!("chgrp {name} {place} && chmod 2770 {place}"),
            );
        }
        let closed = folder.ancestors().skip(1).find(|above| {
            fs::metadata(above).is_ok_and(|found| {
                found.mode() & 0o001 == 0 && !(of_group(&found) && found.mode() & 0o010 != 0)
            })
        });
        if let Some(above) = closed {
            self.problem(
                "journal.closed_way",
                format!("members of {name} cannot pass {}", above.display()),
                "keep the journal in a folder that they can reach, such as /var/lib/windlass"
                    .to_owned(),
            );
        }
        let wrong = |file: &PathBuf| {
            fs::metadata(file)
                .is_ok_and(|found| !of_group(&found) || found.mode() & 0o666 != Sharing::FILE)
        };
        let files: Vec<PathBuf> = self.files().into_iter().filter(wrong).collect();
        if !files.is_empty() {
            let names = all(&files);
            self.problem(
                "journal.files",
                format!("not all files of the journal are read and written by the group {name}, and by it alone"),
                format!("chgrp {name} {names} && chmod 0660 {names}"),
            );
        }
    }
}

fn all(files: &[PathBuf]) -> String {
    let quoted: Vec<String> = files.iter().map(|file| quoted(file)).collect();
    quoted.join(" ")
}
