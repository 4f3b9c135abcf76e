//! Which file a journal is, whatever name leads to it, and whether it is still there.
//!
//! SQLite keeps the write-ahead log and its index beside the name by which the database was opened. So one file under two names
//! has two logs, and what one process commits the other does not see: the second name is refused. A symbolic link is no second
//! name, since it is followed first.
use crate::journal::JournalError;
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};
use std::{
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// How many symbolic links may lead to one another; as many as the kernel follows.
const LINKS: usize = 40;

/// What tells a file from every other on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl FileId {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
        }
    }

    /// Of the file at a path; `None` where there is none.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|file| Self::of(&file))
    }
}

/// A file that SQLite or this crate keeps beside the database.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// The path without symbolic links. The file need not be there, but its folder must.
pub(super) fn real(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..LINKS {
        if let Ok(real) = path.canonicalize() {
            return Ok(real);
        }
        // A link to a file that is yet to be made.
        let Ok(next) = fs::read_link(&path) else {
            break;
        };
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        path = folder.join(next);
    }
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok(folder.canonicalize()?.join(name)),
        _ => Ok(path),
    }
}

/// Refuses a second name of a file: it would have a log of its own. The lock file keeps the name by which the file was opened while
/// it had only one.
pub(super) fn check_names(path: &Path, locks: &mut File) -> Result<(), JournalError> {
    let unusable = |why: String| super::open::unusable(path, why);
    let failed = |error: io::Error| unusable(format!("its lock file cannot be used: {error}"));
    let names = fs::metadata(path).map_err(failed)?.nlink();
    let ours = name_of(path).map_err(failed)?;
    let mut known = Vec::new();
    locks.seek(SeekFrom::Start(0)).map_err(failed)?;
    locks.read_to_end(&mut known).map_err(failed)?;
    if known == ours {
        return Ok(());
    }
    if names > 1 {
        return Err(second_name(path));
    }
    locks.seek(SeekFrom::Start(0)).map_err(failed)?;
    locks.set_len(0).map_err(failed)?;
    locks.write_all(&ours).map_err(failed)
}

/// Refuses a file that is mounted alone, or has several names of which this one was never opened, before anything is made beside it.
pub(super) fn check_only_name(path: &Path) -> Result<(), JournalError> {
    if is_mounted_alone(path) {
        return Err(super::open::unusable(
            path,
            "it is mounted as a single file, so its write-ahead log would be in another folder; mount the folder that it is in",
        ));
    }
    let several = fs::metadata(path).is_ok_and(|file| file.nlink() > 1);
    if several && !beside(path, ".locks").exists() {
        return Err(second_name(path));
    }
    Ok(())
}

/// Whether the file can have another name than this, with a log beside that one.
pub(super) fn may_have_names(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.nlink() > 1) || is_mounted_alone(path)
}

/// Whether a process has the file open as a database. SQLite holds a lock on it as long as it has a log.
pub(super) fn is_open(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    // SQLite's shared lock, as its file format lays it down.
    let mut lock = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: 0,
        l_start: 0x4000_0002,
        l_len: 510,
        l_pid: 0,
    };
    let asked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock));
    asked.is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
}

fn second_name(path: &Path) -> JournalError {
    super::open::unusable(
        path,
        format!(
            "it has several names (hard links), and was not opened by this one before: SQLite would keep a second write-ahead \
             log beside this name. `find FOLDER -samefile {}` finds the others; a backup of a journal is a copy, not a link",
            path.display()
        ),
    )
}

/// The folder's inode and the name in it: a bind mount of the folder does not change it, a link from another folder does.
fn name_of(path: &Path) -> io::Result<Vec<u8>> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut name = format!("{} ", fs::metadata(folder)?.ino()).into_bytes();
    name.extend(path.file_name().unwrap_or_default().as_bytes());
    name.push(b'\n');
    Ok(name)
}

/// Whether the path itself is a mount point, as a container makes it of a single file.
fn is_mounted_alone(path: &Path) -> bool {
    let Ok(mounts) = fs::read("/proc/self/mountinfo") else {
        return false;
    };
    mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .any(|place| unescaped(place) == path.as_os_str().as_bytes())
}

/// The kernel writes a blank in a path as `\040`.
fn unescaped(place: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(place.len());
    let mut rest = place;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let byte = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match byte {
            Some(byte) => {
                plain.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

/// The files of a journal as a writer found them. While its connection is open nothing may take their place: the log and its index
/// are deleted by the last connection only, and the lock file by nobody.
pub(super) struct Place {
    path: PathBuf,
    files: Vec<(PathBuf, FileId)>,
}

impl Place {
    pub(super) fn of(path: &Path) -> Result<Self, JournalError> {
        let mut files = Vec::new();
        for ending in ["", "-wal", "-shm", ".locks"] {
            let file = beside(path, ending);
            let id = FileId::at(&file).ok_or_else(|| replaced(path, &file, None))?;
            files.push((file, id));
        }
        let path = path.to_owned();
        Ok(Self { path, files })
    }

    /// Four questions to the kernel, some microseconds.
    pub(super) fn check(&self) -> Result<(), JournalError> {
        self.files
            .iter()
            .try_for_each(|(file, id)| check_file(&self.path, file, *id))
    }

    /// When the database file itself was written last, and how long it is.
    pub(super) fn written(&self) -> Written {
        let file = fs::metadata(&self.path).ok();
        Written(file.map(|file| (file.mtime(), file.mtime_nsec(), file.len())))
    }
}

/// Whether the path still leads to this file.
pub(super) fn check_one(path: &Path, id: FileId) -> Result<(), JournalError> {
    check_file(path, path, id)
}

fn check_file(path: &Path, file: &Path, id: FileId) -> Result<(), JournalError> {
    let now = FileId::at(file);
    if now == Some(id) {
        return Ok(());
    }
    Err(replaced(path, file, now))
}

/// See [`Place::written`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written(Option<(i64, i64, u64)>);

fn replaced(path: &Path, file: &Path, now: Option<FileId>) -> JournalError {
    let shown = file.display();
    let what = match now {
        None => format!("{shown} was moved or deleted"),
        Some(_) => format!("there is another file at {shown}"),
    };
    JournalError::Replaced {
        path: path.display().to_string(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_kernel() {
        assert_eq!(unescaped(b"/a\\040b/c\\134d"), b"/a b/c\\d");
        assert_eq!(unescaped(b"/a\\04"), b"/a\\04");
    }

    #[test]
    fn links_are_followed_to_a_file_that_is_not_there_yet() {
        let folder = tempfile::tempdir().unwrap();
        let real_folder = folder.path().canonicalize().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::os::unix::fs::symlink("data/j.db", folder.path().join("one")).unwrap();
        std::os::unix::fs::symlink("one", folder.path().join("two")).unwrap();
        let end = real(&folder.path().join("two")).unwrap();
        assert_eq!(end, real_folder.join("data/j.db"));
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
        real(&folder.path().join("loop")).unwrap();
    }
}
