use super::*;
use crate::{
    journal::conformance::{account, command, create, graph, holder, progressed, started},
    machine::EventBody,
    value::Value,
};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

crate::journal_conformance!({
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.db");
    (folder, move || {
        Arc::new(SqliteJournal::open(&path).unwrap()) as Arc<dyn Journal>
    })
});

fn commits(journal: &SqliteJournal) -> &std::sync::atomic::AtomicU64 {
    let Source::Written { commits, .. } = &journal.0.source else {
        panic!("not written to")
    };
    commits
}

fn large() -> Value {
    Value::text("x".repeat(100_000))
}

/// A closed journal with one run: its start, an event, a large event, an event.
async fn sample(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let lease = create(&journal, "r1").await;
    for (seq, value) in [(2, Value::Int(2)), (3, large()), (4, Value::Int(4))] {
        let events = vec![progressed(seq, value)];
        let appended = journal.append(lease.as_ref(), seq, events, "running");
        appended.await.unwrap();
    }
    path
}

async fn audit(path: &Path) -> Option<(u64, String)> {
    let journal = SqliteJournal::read(path).unwrap();
    journal.audit("r1").await.unwrap().broken
}

#[tokio::test]
async fn every_edit_is_found_and_named() {
    let edits = [
        (
            "UPDATE events SET body = replace(body, ':2', ':3') WHERE seq = 2",
            2,
            "was changed",
        ),
        (
            "UPDATE events SET body = replace(body, '}', '') WHERE seq = 2",
            2,
            "not even JSON",
        ),
        (
            "UPDATE events SET body = CAST(x'ff' AS TEXT) WHERE seq = 2",
            2,
            "was changed",
        ),
        (
            "UPDATE events SET at = replace(at, '2', '3') WHERE seq = 4",
            4,
            "was changed",
        ),
        (
            "UPDATE events SET hash = zeroblob(32) WHERE seq = 2",
            2,
            "was changed",
        ),
        (
            "UPDATE events SET hash = x'00' WHERE seq = 4",
            4,
            "was changed",
        ),
        (
            "UPDATE events SET seq = 9 WHERE seq = 4",
            4,
            "missing; the next event there is 9",
        ),
        ("UPDATE events SET seq = 9 WHERE seq = 2", 2, "missing"),
        ("UPDATE events SET run_no = 77 WHERE seq = 3", 3, "missing"),
        (
            "DELETE FROM events WHERE seq = 4",
            4,
            "missing: the run has 4 events",
        ),
        ("DELETE FROM events WHERE seq = 2", 2, "missing"),
        ("DELETE FROM events WHERE seq = 1", 1, "missing"),
        ("DELETE FROM events", 1, "missing"),
        (
            "INSERT INTO events SELECT run_no, 5, at, body, hash FROM events WHERE seq = 4",
            5,
            "was changed",
        ),
        (
            "UPDATE blobs SET body = replace(body, 'xxxxx', 'xxxxy') WHERE length(body) > 90000",
            3,
            "was changed",
        ),
        (
            "UPDATE blobs SET body = CAST(x'ff' AS TEXT) WHERE length(body) > 90000",
            3,
            "was changed",
        ),
        ("DELETE FROM blobs WHERE length(body) > 90000", 3, "missing"),
        ("DELETE FROM blobs WHERE length(body) < 90000", 1, "missing"),
        (
            "UPDATE blobs SET hash = zeroblob(32) WHERE length(body) > 90000",
            3,
            "missing",
        ),
        ("UPDATE runs SET head_seq = 3", 4, "after the end"),
        (
            "UPDATE runs SET head_seq = -3",
            0,
            "does not hold what was written",
        ),
        ("UPDATE runs SET head_seq = 6", 5, "missing"),
        ("UPDATE runs SET head_hash = zeroblob(32)", 4, "head"),
        ("UPDATE runs SET no = 5", 1, "missing"),
    ];
    let folder = TempDir::new().unwrap();
    let path = sample(&folder).await;
    assert_eq!(audit(&path).await, None);
    for (edit, seq, why) in edits {
        let folder = TempDir::new().unwrap();
        let copy = folder.path().join("journal.db");
        std::fs::copy(&path, &copy).unwrap();
        let second = Connection::open(&copy).unwrap();
        assert!(second.execute(edit, []).unwrap() > 0, "{edit}");
        drop(second);
        let (place, what) = audit(&copy)
            .await
            .unwrap_or_else(|| panic!("unseen: {edit}"));
        assert!(
            place == seq && what.contains(why),
            "{edit}: {place}: {what}"
        );
        let journal = SqliteJournal::read(&copy).unwrap();
        match journal.load("r1", 1).await {
            Err(JournalError::Corrupt {
                run, seq: place, ..
            }) => {
                assert_eq!((run.as_str(), place), ("r1", seq), "{edit}");
            }
            other => panic!("{edit}: loaded {other:?}"),
        }
    }
}

/// Lists are made from columns beside the chain; an audit compares those that events prove.
#[tokio::test]
async fn an_edited_list_is_found() {
    let folder = TempDir::new().unwrap();
    let path = sample(&folder).await;
    for (column, word) in [
        ("playbook", "playbook"),
        ("environment", "environment"),
        ("\"by\"", "starter"),
        ("started_at", "start"),
    ] {
        let second = Connection::open(&path).unwrap();
        let edit = format!("UPDATE runs SET {column} = {column} || 'x'");
        second.execute(&edit, []).unwrap();
        let (place, what) = audit(&path).await.unwrap();
        assert!(place == 1 && what.contains(word), "{place}: {what}");
        let back = format!("UPDATE runs SET {column} = substr({column}, 1, length({column}) - 1)");
        second.execute(&back, []).unwrap();
        assert_eq!(audit(&path).await, None);
    }
}

/// No damaged page makes it panic or passes for sound: each page is overwritten in turn.
#[tokio::test]
async fn damaged_pages_are_told() {
    let folder = TempDir::new().unwrap();
    let path = sample(&folder).await;
    let whole = std::fs::read(&path).unwrap();
    let intact = SqliteJournal::open(&path).unwrap();
    let events = intact.load("r1", 1).await.unwrap();
    drop(intact);
    let mut told = 0;
    for page in 0..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096..][..4096].fill(0xA5);
        std::fs::write(&path, &bytes).unwrap();
        let Ok(journal) = SqliteJournal::open(&path) else {
            told += 1;
            continue;
        };
        match journal.audit("r1").await {
            Ok(audit) if audit.broken.is_none() => {
                // The page holds nothing of this run: then all of it is still there.
                assert_eq!(journal.load("r1", 1).await.unwrap(), events, "page {page}");
            }
            Ok(_) => {
                told += 1;
                assert!(journal.load("r1", 1).await.is_err(), "page {page}");
            }
            Err(error) => {
                told += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(told > 20, "only {told} of {} pages", whole.len() / 4096);
}

#[tokio::test]
async fn a_cut_file_is_told() {
    let folder = TempDir::new().unwrap();
    let path = sample(&folder).await;
    let whole = std::fs::read(&path).unwrap();
    for keep in [1, 50, 4096, 5000, whole.len() / 2, whole.len() - 4096] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        let seen = match SqliteJournal::open(&path) {
            Ok(journal) => match journal.audit("r1").await {
                Ok(audit) => audit.broken.map(|(_, what)| what),
                Err(error) => Some(error.to_string()),
            },
            Err(error) => Some(error.to_string()),
        };
        assert!(
            seen.is_some(),
            "cut to {keep} bytes of {} unseen",
            whole.len()
        );
    }
}

#[tokio::test]
async fn a_newer_journal_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = sample(&folder).await;
    let second = Connection::open(&path).unwrap();
    second.pragma_update(None, "user_version", 2).unwrap();
    drop(second);
    let before = std::fs::read(&path).unwrap();
    let error = SqliteJournal::open(&path).err().unwrap();
    assert!(
        matches!(error, JournalError::Newer { found: 2, known: 1 }),
        "{error:?}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn newer_events_are_told_as_newer() {
    let folder = TempDir::new().unwrap();
    let journal = SqliteJournal::open(folder.path().join("journal.db")).unwrap();
    let mut first = started("r1", &graph("steps: []"));
    if let crate::machine::EventBody::RunStarted(start) = &mut first.body {
        start.format = 7;
    }
    let created = journal.create("r1", holder("dana"), vec![first]).await;
    drop(created.unwrap());
    let error = journal.load("r1", 1).await.unwrap_err();
    assert!(
        matches!(error, JournalError::Newer { found: 7, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn other_files_are_refused_untouched() {
    let folder = TempDir::new().unwrap();
    let garbage = folder.path().join("notes.txt");
    std::fs::write(&garbage, "not a database at all\n".repeat(500)).unwrap();
    let foreign = folder.path().join("orders.db");
    let orders = Connection::open(&foreign).unwrap();
    orders
        .execute_batch("CREATE TABLE orders (id INTEGER)")
        .unwrap();
    drop(orders);
    for (path, why) in [
        (&garbage, "is not a journal"),
        (&foreign, "of another program"),
    ] {
        let before = std::fs::read(path).unwrap();
        let error = SqliteJournal::open(path).err().unwrap().to_string();
        assert!(
            error.contains(why) && error.contains("nothing was changed"),
            "{error}"
        );
        assert_eq!(std::fs::read(path).unwrap(), before);
    }
    let below = garbage.join("journal.db");
    let error = SqliteJournal::open(&below).err().unwrap().to_string();
    assert!(error.contains("cannot make the folder"), "{error}");
    let error = SqliteJournal::open(folder.path())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("is a folder"), "{error}");
}

#[tokio::test]
async fn only_the_owner_may_read_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state/windlass/journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    create(&journal, "r1").await;
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.path().join("state/windlass")), 0o700);
    for name in [
        "journal.db",
        "journal.db-wal",
        "journal.db-shm",
        "journal.db.locks",
    ] {
        assert_eq!(mode(path.with_file_name(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let lease = create(&journal, "r1").await;
    journal.limit_pages(60).await.unwrap();
    let mut written = 1;
    let full = loop {
        let events = vec![progressed(
            written + 1,
            Value::text(format!("{written}{}", "y".repeat(30_000))),
        )];
        match journal
            .append(lease.as_ref(), written + 1, events, "running")
            .await
        {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000, "never full");
    };
    assert!(
        matches!(&full, JournalError::DiskFull { path } if path.ends_with("journal.db")),
        "{full:?}"
    );
    assert!(written > 2);
    assert_eq!(journal.load("r1", 1).await.unwrap().len() as u64, written);
    // What still fits is written beside what does not, though both were asked for at once.
    let small = journal.submit(crate::journal::conformance::command("c1", "r1"));
    let large = journal.append(
        lease.as_ref(),
        written + 1,
        vec![progressed(written + 1, large())],
        "running",
    );
    let (small, large) = futures_util::future::join(small, large).await;
    small.unwrap();
    assert!(matches!(large, Err(JournalError::DiskFull { .. })));
    journal.limit_pages(100_000).await.unwrap();
    let again = journal.append(
        lease.as_ref(),
        written + 1,
        vec![progressed(written + 1, Value::Null)],
        "running",
    );
    again.await.unwrap();
    drop((lease, journal));
    let journal = SqliteJournal::open(&path).unwrap();
    assert_eq!(
        journal.load("r1", 1).await.unwrap().len() as u64,
        written + 1
    );
    assert_eq!(journal.audit("r1").await.unwrap().broken, None);
}

/// Ten thousand waiting runs are small: the graph stands once.
#[tokio::test]
async fn runs_of_one_playbook_share_the_stored_graph() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.db");
    let graph = graph(&"# a long playbook\n".repeat(20_000));
    for round in 0..2 {
        let journal = SqliteJournal::open(&path).unwrap();
        for n in 0..20 {
            let run = format!("r{round}-{n}");
            let first = vec![started(&run, &graph)];
            journal.create(&run, holder("dana"), first).await.unwrap();
        }
    }
    let second = Connection::open(&path).unwrap();
    let blobs = second.query_row("SELECT count(*) FROM blobs", [], |row| row.get::<_, u64>(0));
    assert_eq!(blobs.unwrap(), 1);
    assert!(path.metadata().unwrap().len() < 1_000_000);
}

/// Appends of many runs that are in flight together share commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_shares_commits() {
    let folder = TempDir::new().unwrap();
    let journal = SqliteJournal::open(folder.path().join("journal.db")).unwrap();
    let creations = (0..64).map(|n| {
        let journal = &journal;
        async move { create(journal, &format!("r{n}")).await }
    });
    let leases = futures_util::future::join_all(creations).await;
    let appends = leases.iter().map(|lease| {
        let events = vec![progressed(2, Value::Null)];
        journal.append(lease.as_ref(), 2, events, "running")
    });
    let before = commits(&journal).load(std::sync::atomic::Ordering::Relaxed);
    for done in futures_util::future::join_all(appends).await {
        done.unwrap();
    }
    let commits = commits(&journal).load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(
        (1..32).contains(&commits),
        "{commits} commits for 64 appends"
    );
}

/// Somebody who gives up waiting for a lease does not keep it.
#[tokio::test]
async fn a_lease_that_nobody_waits_for_is_given_back() {
    let folder = TempDir::new().unwrap();
    let journal = SqliteJournal::open(folder.path().join("journal.db")).unwrap();
    drop(create(&journal, "r1").await);
    for _ in 0..20 {
        let mut asked = journal.lease("r1", holder("lee"));
        let polled = futures_util::poll!(&mut asked);
        drop((polled, asked));
    }
    // The writer answers in order: by now it has answered all of them.
    journal.limit_pages(100_000).await.unwrap();
    assert!(journal.lease("r1", holder("dana")).await.is_ok());
}

/// An append whose caller went away still moves the chain on for the next one.
#[tokio::test]
async fn an_abandoned_append_is_still_an_append() {
    let folder = TempDir::new().unwrap();
    let journal = SqliteJournal::open(folder.path().join("journal.db")).unwrap();
    let lease = create(&journal, "r1").await;
    let mut asked = journal.append(
        lease.as_ref(),
        2,
        vec![progressed(2, Value::Null)],
        "running",
    );
    assert!(futures_util::poll!(&mut asked).is_pending());
    drop(asked);
    journal.limit_pages(100_000).await.unwrap();
    let next = journal.append(
        lease.as_ref(),
        3,
        vec![progressed(3, Value::Null)],
        "running",
    );
    next.await.unwrap();
    assert_eq!(journal.audit("r1").await.unwrap().head.seq, 3);
}

/// The epoch in the file is what fences, whatever a process believes of its locks.
#[tokio::test]
async fn another_epoch_in_the_file_fences() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let lease = create(&journal, "r1").await;
    let second = Connection::open(&path).unwrap();
    let grown = second.execute("UPDATE leases SET epoch = epoch + 1", []);
    assert_eq!(grown.unwrap(), 1);
    let appended = journal.append(
        lease.as_ref(),
        2,
        vec![progressed(2, Value::Null)],
        "running",
    );
    assert!(matches!(
        appended.await,
        Err(JournalError::LeaseLost { .. })
    ));
    let names = ["a".to_owned()];
    let locked = journal.lock(lease.as_ref(), &names).await;
    assert!(matches!(
        locked,
        Err(LockHeld::Journal(JournalError::LeaseLost { .. }))
    ));
    assert_eq!(journal.load("r1", 1).await.unwrap().len(), 1);
}

/// A journal of before accounts were kept is read, listed and written to, by this windlass and by the one before.
#[tokio::test]
async fn a_journal_without_accounts_is_read_and_gets_them() {
    let folder = TempDir::new().unwrap();
    let path = sample(&folder).await;
    let old = Connection::open(&path).unwrap();
    old.execute_batch(
        "ALTER TABLE inbox DROP COLUMN account;
         INSERT INTO inbox (id, run, who, at, body)
         VALUES ('old', 'r1', 'lee', '2026-01-01T00:00:00Z', '{\"pause\":{}}')",
    )
    .unwrap();
    let journal = SqliteJournal::open(&path).unwrap();
    let new = command("new", "r1");
    journal.submit(new.clone()).await.unwrap();
    // The windlass before names the columns that it knows.
    old.execute_batch(
        "INSERT INTO inbox (id, run, who, at, body)
         VALUES ('old2', 'r1', 'lee', '2026-01-01T00:00:01Z', '\"unpause\"')",
    )
    .unwrap();
    let inbox = journal.inbox(Some("r1")).await.unwrap();
    let accounts: Vec<_> = inbox
        .iter()
        .map(|command| (command.id.as_str(), command.account.clone()))
        .collect();
    assert_eq!(
        accounts,
        [("old", None), ("new", new.account), ("old2", None)]
    );
}

/// A first event that is large enough for a blob still says which account started the run; a damaged one says nothing.
#[tokio::test]
async fn the_list_knows_the_account_of_every_run() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let mut large = started("r1", &graph("steps: []"));
    if let EventBody::RunStarted(start) = &mut large.body {
        start.inputs = Value::map([("text", Value::text("x".repeat(100_000)))]);
    }
    drop(
        journal
            .create("r1", holder("dana"), vec![large])
            .await
            .unwrap(),
    );
    drop(create(&journal, "r2").await);
    drop(create(&journal, "r3").await);
    let second = Connection::open(&path).unwrap();
    second
        .execute("UPDATE events SET body = '{\"run_st' WHERE run_no = 3", [])
        .unwrap();
    let runs = journal.runs().await.unwrap();
    let accounts: Vec<_> = runs.iter().map(|run| run.account.clone()).collect();
    assert_eq!(
        accounts,
        [None, Some(account("dana")), Some(account("dana"))]
    );
}

/// A command that the disk damaged keeps no run back, nor another command; an audit finds it.
#[tokio::test]
async fn a_damaged_command_keeps_nothing_back() {
    let folder = TempDir::new().unwrap();
    let path = sample(&folder).await;
    let journal = SqliteJournal::open(&path).unwrap();
    for id in ["a", "b", "c"] {
        journal.submit(command(id, "r1")).await.unwrap();
    }
    let second = Connection::open(&path).unwrap();
    for damage in [
        "body = '{\"pau'",
        "at = 'once'",
        "who = CAST(x'ff' AS TEXT)",
        "account = '{'",
    ] {
        let edit = format!("UPDATE inbox SET {damage} WHERE id = 'b'");
        second.execute(&edit, []).unwrap();
        for run in [None, Some("r1")] {
            let inbox = journal.inbox(run).await.unwrap();
            let ids: Vec<_> = inbox.iter().map(|command| command.id.as_str()).collect();
            assert_eq!(ids, ["a", "c"], "{damage}");
        }
        let (_, what) = audit(&path).await.unwrap();
        assert!(what.contains("command b"), "{damage}: {what}");
    }
}

#[tokio::test]
async fn events_that_the_list_of_runs_does_not_have_are_counted() {
    let folder = TempDir::new().unwrap();
    let path = sample(&folder).await;
    let journal = SqliteJournal::open(&path).unwrap();
    assert_eq!(journal.unlisted().await.unwrap(), 0);
    let second = Connection::open(&path).unwrap();
    second
        .execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM runs")
        .unwrap();
    assert!(journal.unlisted().await.unwrap() > 0);
    assert!(journal.runs().await.unwrap().is_empty());
}
