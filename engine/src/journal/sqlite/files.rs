//! Making the folder and the files of a journal, for their owner alone or for a group.
use super::{
    open::unusable,
    place::{beside, real},
};
use crate::journal::JournalError;
use nix::unistd::{Gid, Group, Uid, User};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{self as unix, DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Who may use a journal that is yet to be made. One that is there keeps its owner, group and mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sharing {
    /// The id of the group whose members may read and write it; without one, its owner alone.
    pub group: Option<u32>,
}

impl Sharing {
    /// The mode of a folder: what is made in it belongs to the group, too.
    pub const FOLDER: u32 = 0o2770;
    /// The mode of a file.
    pub const FILE: u32 = 0o660;
}

/// Makes the folder and the file where they are missing; the path without symbolic links.
pub(super) fn prepare(path: &Path, sharing: Sharing) -> Result<std::path::PathBuf, JournalError> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_folder(folder, sharing).map_err(|e| {
            let folder = folder.display();
            unusable(path, format!("cannot make the folder {folder}: {e}"))
        })?;
    }
    let path = real(path).map_err(|e| unusable(path, e.to_string()))?;
    if path.is_dir() {
        return Err(unusable(&path, "it is a folder; a journal is a file"));
    }
    make_file(&path, sharing).map_err(|e| denied(&path, &e))?;
    Ok(path)
}

/// All that is missing of the way to it belongs to the group, or its members could not pass.
fn make_folder(folder: &Path, sharing: Sharing) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above, sharing)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        // Another process made it meanwhile, and gives it to the group.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {
            return Ok(());
        }
        made => made?,
    }
    if let Some(group) = sharing.group {
        unix::chown(folder, None, Some(group))?;
        fs::set_permissions(folder, Permissions::from_mode(Sharing::FOLDER))?;
    }
    Ok(())
}

/// A file that is there is not opened: closing it again would take SQLite's locks on it from the other handles of this process.
fn make_file(path: &Path, sharing: Sharing) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(file) => {
            if let Some(group) = sharing.group {
                unix::fchown(&file, None, Some(group))?;
                file.set_permissions(Permissions::from_mode(Sharing::FILE))?;
            }
            Ok(())
        }
    }
}

/// The lock file beside the database. A new one is as the database is, so that whoever may write to the one may lock the other;
/// SQLite does the same for the files that it makes.
pub(super) fn open_locks(path: &Path) -> Result<File, JournalError> {
    let locks = beside(path, ".locks");
    let denied = |error: io::Error| denied(&locks, &error);
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(&locks) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.map_err(denied),
    }
    match options.clone().create_new(true).mode(0o600).open(&locks) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            options.open(&locks).map_err(denied)
        }
        Err(error) => Err(denied(error)),
        Ok(file) => {
            let database = fs::metadata(path).map_err(denied)?;
            let owner = Uid::effective().is_root().then_some(database.uid());
            let mode = Permissions::from_mode(database.mode() & 0o666);
            let group = Some(database.gid());
            unix::fchown(&file, owner, group)
                .and_then(|()| file.set_permissions(mode))
                .map_err(denied)?;
            Ok(file)
        }
    }
}

/// An error about a file, with whose it is.
fn denied(path: &Path, error: &io::Error) -> JournalError {
    unusable(path, format!("{error}{}", whose(path)))
}

/// `; it is dana's, group dba, mode 0600`, of the file or of the folder where there is none.
pub(super) fn whose(path: &Path) -> String {
    let (what, file) = match fs::metadata(path) {
        Ok(file) => ("it", file),
        Err(_) => match path.parent().map(fs::metadata) {
            Some(Ok(folder)) => ("its folder", folder),
            Some(Err(_)) | None => return String::new(),
        },
    };
    let user = User::from_uid(Uid::from_raw(file.uid())).ok().flatten();
    let group = Group::from_gid(Gid::from_raw(file.gid())).ok().flatten();
    format!(
        "; {what} belongs to {}, group {}, mode {:04o}",
        user.map_or_else(|| file.uid().to_string(), |user| user.name),
        group.map_or_else(|| file.gid().to_string(), |group| group.name),
        file.mode() & 0o7777
    )
}
