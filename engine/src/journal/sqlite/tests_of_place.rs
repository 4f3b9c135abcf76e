//! A journal that is moved, replaced, put back or reached by another name.
use super::*;
use crate::{
    journal::conformance::{create, holder, progressed},
    value::Value,
};
use std::fs;
use tempfile::TempDir;

fn step(seq: u64) -> Vec<Event> {
    vec![progressed(seq, Value::text("x".repeat(2_000)))]
}

async fn append(journal: &SqliteJournal, lease: &dyn Lease, seq: u64) -> Result<(), JournalError> {
    journal.append(lease, seq, step(seq), "running").await
}

#[track_caller]
fn is_replaced(done: Result<(), JournalError>, says: &str) {
    match done {
        Err(JournalError::Replaced { what, .. }) => assert!(what.contains(says), "{what}"),
        other => panic!("{says}: {other:?}"),
    }
}

fn move_all(from: &Path, to: &Path) {
    for ending in ["", "-wal", "-shm", ".locks"] {
        fs::rename(beside(from, ending), beside(to, ending)).unwrap();
    }
}

#[tokio::test]
async fn what_was_moved_takes_nothing_more() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.db");
    let away = folder.path().join("away.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let lease = create(&journal, "r1").await;
    append(&journal, lease.as_ref(), 2).await.unwrap();
    move_all(&path, &away);
    is_replaced(journal.in_place().await, "moved or deleted");
    is_replaced(
        append(&journal, lease.as_ref(), 3).await,
        "moved or deleted",
    );
    is_replaced(journal.version().await.map(drop), "moved or deleted");
    is_replaced(journal.load("r1", 1).await.map(drop), "moved or deleted");
    // Another one at its name is not the one.
    let rival = SqliteJournal::open(&path).unwrap();
    create(&rival, "r1").await;
    is_replaced(append(&journal, lease.as_ref(), 3).await, "another file");
    is_replaced(journal.in_place().await, "another file");
    drop(rival);
    for ending in ["", "-wal", "-shm", ".locks"] {
        drop(fs::remove_file(beside(&path, ending)));
    }
    // Back in its place it goes on: nothing was lost.
    move_all(&away, &path);
    append(&journal, lease.as_ref(), 3).await.unwrap();
    assert_eq!(journal.audit("r1").await.unwrap().head.seq, 3);
}

/// Each of the files belongs to it: without the log others do not see what is committed, without the lock file they drive the
/// same run.
#[tokio::test]
async fn each_file_is_missed() {
    for ending in ["-wal", "-shm", ".locks"] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("journal.db");
        let journal = SqliteJournal::open(&path).unwrap();
        let lease = create(&journal, "r1").await;
        fs::remove_file(beside(&path, ending)).unwrap();
        is_replaced(append(&journal, lease.as_ref(), 2).await, ending);
        let begun = journal.lease("r1", holder("lee")).await.map(drop);
        is_replaced(begun, ending);
    }
}

/// A copy of an earlier moment, written over the file under its name, while the log of now lies beside it.
#[tokio::test]
async fn what_was_put_back_in_place_is_noticed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.db");
    let backup = folder.path().join("backup.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let lease = create(&journal, "r1").await;
    for seq in 2..20 {
        append(&journal, lease.as_ref(), seq).await.unwrap();
    }
    let checkpoint = || {
        let other = Connection::open(&path).unwrap();
        other
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
                row.get::<_, i64>(0)
            })
            .unwrap()
    };
    assert_eq!(checkpoint(), 0);
    fs::copy(&path, &backup).unwrap();
    // A checkpoint by another process is no reason to stop.
    append(&journal, lease.as_ref(), 20).await.unwrap();
    for seq in 21..60 {
        append(&journal, lease.as_ref(), seq).await.unwrap();
    }
    assert_eq!(checkpoint(), 0);
    append(&journal, lease.as_ref(), 60).await.unwrap();
    fs::write(&path, fs::read(&backup).unwrap()).unwrap();
    is_replaced(append(&journal, lease.as_ref(), 61).await, "another moment");
    is_replaced(append(&journal, lease.as_ref(), 61).await, "another moment");
}

/// A copy of an earlier moment, put back through SQLite: the file is the same, and says less than was written.
#[tokio::test]
async fn an_earlier_state_is_noticed() {
    for (edit, says) in [
        (
            "DELETE FROM events WHERE seq > 1; UPDATE runs SET head_seq = 1, head_hash = (SELECT hash FROM events WHERE seq = 1)",
            "1 events, and 3 were written",
        ),
        (
            "DELETE FROM events; DELETE FROM leases; DELETE FROM runs",
            "is not in it any more",
        ),
        ("UPDATE leases SET epoch = 0", "does not know who drives"),
        ("DELETE FROM leases", "does not know who drives"),
    ] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("journal.db");
        let journal = SqliteJournal::open(&path).unwrap();
        let lease = create(&journal, "r1").await;
        append(&journal, lease.as_ref(), 2).await.unwrap();
        append(&journal, lease.as_ref(), 3).await.unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch(edit).unwrap();
        is_replaced(append(&journal, lease.as_ref(), 4).await, says);
    }
}

/// Leases and locks are those of the file, by whatever symbolic link it is reached.
#[tokio::test]
async fn a_symbolic_link_leads_to_the_same_locks() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.db");
    fs::create_dir(folder.path().join("other")).unwrap();
    let link = folder.path().join("other/j.db");
    std::os::unix::fs::symlink("../journal.db", &link).unwrap();
    // The first to come through the link makes the file where the link points to.
    let two = SqliteJournal::open(&link).unwrap();
    let one = SqliteJournal::open(&path).unwrap();
    let lease = create(&one, "r1").await;
    let held = two.lease("r1", holder("lee")).await.err().unwrap();
    assert!(matches!(held, JournalError::LeaseHeld { .. }), "{held:?}");
    let seen = SqliteJournal::read(&link).unwrap().runs().await.unwrap();
    assert!(seen[0].holder.is_some());
    drop(lease);
    drop(two.lease("r1", holder("lee")).await.unwrap());
    let names: Vec<_> = fs::read_dir(folder.path().join("other")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

/// SQLite keeps a log beside each name of a file, so that two names are two journals over one file.
#[tokio::test]
async fn a_second_name_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.db");
    let name = folder.path().join("name.db");
    let journal = SqliteJournal::open(&path).unwrap();
    create(&journal, "r1").await;
    fs::hard_link(&path, &name).unwrap();
    let refused = SqliteJournal::open(&name).err().unwrap().to_string();
    assert!(refused.contains("hard links"), "{refused}");
    assert!(!beside(&name, "-wal").exists());
    // While it is in use, what the name shows would be old.
    let old = SqliteJournal::read(&name).err().unwrap().to_string();
    assert!(old.contains("in use under another name"), "{old}");
    // The name by which it was opened before is still its name.
    let again = SqliteJournal::open(&path).unwrap();
    drop(again.lease("r1", holder("lee")).await.unwrap());
    // What the name shows is read without a log of its own.
    drop((journal, again));
    assert_eq!(
        SqliteJournal::read(&name)
            .unwrap()
            .runs()
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(!beside(&name, "-wal").exists());
    // A whole folder of links has the lock file as well, which says that it is another's.
    let links = folder.path().join("links");
    fs::create_dir(&links).unwrap();
    fs::remove_file(&name).unwrap();
    for file in ["journal.db", "journal.db.locks"] {
        fs::hard_link(folder.path().join(file), links.join(file)).unwrap();
    }
    let refused = SqliteJournal::open(links.join("journal.db")).err().unwrap();
    assert!(
        matches!(refused, JournalError::Unusable { .. }),
        "{refused:?}"
    );
    fs::remove_dir_all(&links).unwrap();
    // Renamed, with one name again, it is as before.
    fs::rename(&path, &name).unwrap();
    let moved = SqliteJournal::open(&name).unwrap();
    drop(moved.lease("r1", holder("lee")).await.unwrap());
}

/// A run that is in two files would be driven twice.
#[tokio::test]
async fn a_copy_is_only_read_while_its_original_is_there() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.db");
    let copy = folder.path().join("copy.db");
    drop(create(&SqliteJournal::open(&path).unwrap(), "r1").await);
    fs::copy(&path, &copy).unwrap();
    let refused = SqliteJournal::open(&copy).err().unwrap();
    assert!(
        matches!(&refused, JournalError::Copied { original, .. } if original.ends_with("journal.db")),
        "{refused:?}"
    );
    let read = SqliteJournal::read(&copy).unwrap();
    assert_eq!(read.runs().await.unwrap().len(), 1);
    let refused = read.lease("r1", holder("lee")).await.err().unwrap();
    assert!(
        matches!(refused, JournalError::Unusable { .. }),
        "{refused:?}"
    );
    drop(read);
    // Put back where the original was: it takes its place.
    fs::remove_file(&path).unwrap();
    fs::copy(&copy, &path).unwrap();
    drop(SqliteJournal::open(&path).unwrap());
    // Now that is the original, and the copy is still a copy.
    fs::remove_file(&path).unwrap();
    drop(SqliteJournal::open(&copy).unwrap());
    drop(SqliteJournal::open(&copy).unwrap());
}

/// What is no journal is told as such, and nothing is written.
#[tokio::test]
async fn reading_makes_nothing() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("empty.db"), "").unwrap();
    fs::write(file("notes.txt"), "no database at all\n".repeat(300)).unwrap();
    let foreign = Connection::open(file("orders.db")).unwrap();
    foreign
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER)")
        .unwrap();
    drop(foreign);
    let before: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    for (name, says) in [
        ("empty.db", "it is empty"),
        ("notes.txt", "not a journal"),
        ("orders.db", "another program"),
        (".", "is a folder"),
        ("missing.db", "there is no journal"),
        ("missing/journal.db", "there is no journal"),
    ] {
        let refused = SqliteJournal::read(file(name)).err().unwrap().to_string();
        assert!(refused.contains(says), "{name}: {refused}");
    }
    let after: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(before.len(), after.len(), "{after:?}");
    assert_eq!(fs::read(file("empty.db")).unwrap(), b"");
}

/// The three ways of reading without writing, each beside a journal that has something in its log.
#[tokio::test]
async fn reading_without_writing_sees_the_log() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let lease = create(&journal, "r1").await;
    append(&journal, lease.as_ref(), 2).await.unwrap();
    let events = |path: &Path| {
        let conn = access::peek(path)?;
        let count = conn.query_row("SELECT count(*) FROM events", [], |row| {
            row.get::<_, i64>(0)
        });
        count.map_err(|e| open::store_error(path, &e))
    };
    assert_eq!(events(&path).unwrap(), 2);
    // A copy of file and log, without the index.
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
    assert_eq!(events(&copy).unwrap(), 2);
    assert!(!beside(&copy, "-shm").exists());
    assert!(beside(&copy, "-wal").exists());
    drop((lease, journal));
    assert_eq!(events(&path).unwrap(), 2);
    assert!(!beside(&path, "-wal").exists() && !beside(&path, "-shm").exists());
}

#[test]
fn a_journal_for_a_group_is_made_for_it() {
    use std::os::unix::fs::MetadataExt;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state/team/journal.db");
    let group = fs::metadata(folder.path()).unwrap().gid();
    let sharing = Sharing { group: Some(group) };
    let journal = SqliteJournal::open_shared(&path, sharing).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
    for above in ["state", "state/team"] {
        assert_eq!(mode(folder.path().join(above)), Sharing::FOLDER, "{above}");
    }
    for ending in ["", "-wal", "-shm", ".locks"] {
        let file = beside(&path, ending);
        assert_eq!(fs::metadata(&file).unwrap().gid(), group);
        assert_eq!(mode(file), Sharing::FILE, "{ending}");
    }
    drop(journal);
}
