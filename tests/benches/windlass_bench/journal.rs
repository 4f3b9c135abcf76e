//! The journal alone.
use crate::{
    folder,
    limits::{self, median},
    table::Table,
};
use futures_util::future::join_all;
use std::time::{Duration, Instant};
use windlass_engine::{
    journal::{
        Journal, Lease, SqliteJournal,
        conformance::{create, progressed},
    },
    value::Value,
};

const SPAN: Duration = Duration::from_millis(700);

async fn append(journal: &SqliteJournal, lease: &dyn Lease, seq: u64, events: u64) {
    let state = Value::text("a state as a step keeps it: some sixty bytes, not more, not less");
    let events = (seq..seq + events).map(|n| progressed(n % 1_000, state.clone()));
    let appended = journal.append(lease, seq, events.collect(), "running");
    appended.await.unwrap();
}

/// One run after which the next event is appended: nothing to share a commit with.
async fn one_by_one() -> f64 {
    let folder = folder();
    let journal = SqliteJournal::open(folder.path().join("journal.db")).unwrap();
    let lease = create(&journal, "r1").await;
    let events = 2_000;
    let begin = Instant::now();
    for seq in 2..events + 2 {
        append(&journal, lease.as_ref(), seq, 1).await;
    }
    events as f64 / begin.elapsed().as_secs_f64()
}

/// Many runs at once, one event each at a time.
async fn in_flight(runs: usize) -> f64 {
    let folder = folder();
    let journal = SqliteJournal::open(folder.path().join("journal.db")).unwrap();
    let created = (0..runs).map(|n| {
        let journal = &journal;
        async move { create(journal, &format!("r{n}")).await }
    });
    let leases = join_all(created).await;
    let each = 30_000 / runs as u64;
    let begin = Instant::now();
    let driven = leases.iter().map(|lease| {
        let journal = &journal;
        async move {
            for seq in 2..each + 2 {
                append(journal, lease.as_ref(), seq, 1).await;
            }
        }
    });
    join_all(driven).await;
    (each * runs as u64) as f64 / begin.elapsed().as_secs_f64()
}

/// Reading and checking a run of 100,000 events.
async fn reading() -> (f64, f64) {
    let folder = folder();
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let lease = create(&journal, "r1").await;
    for batch in 0..100 {
        append(&journal, lease.as_ref(), 2 + batch * 1_000, 1_000).await;
    }
    drop((lease, journal));
    let journal = SqliteJournal::open(&path).unwrap();
    let begin = Instant::now();
    let events = journal.load("r1", 1).await.unwrap();
    let loaded = begin.elapsed().as_secs_f64();
    assert_eq!(events.len(), 100_001);
    drop(events);
    let begin = Instant::now();
    assert_eq!(journal.audit("r1").await.unwrap().broken, None);
    (loaded, begin.elapsed().as_secs_f64())
}

/// The rows of the table.
pub(crate) async fn rows(table: &mut Table) {
    let folder = folder();
    let (mut single, mut singles) = (Vec::new(), Vec::new());
    let (mut many, mut manys) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        singles.push(limits::commits(folder.path(), SPAN));
        single.push(one_by_one().await);
        manys.push(limits::batched(folder.path(), SPAN));
        many.push(in_flight(64).await);
    }
    table.share(
        "journal: events one by one",
        median(single),
        "commits",
        median(singles),
        None,
    );
    table.share(
        "journal: events of 64 runs at once",
        median(many),
        "batched rows",
        median(manys),
        None,
    );
    let (load, audit) = reading().await;
    table.below(
        "journal: load 100,000 events, chain checked",
        load * 1e3,
        "ms",
        700.0,
    );
    table.plain(
        "journal: audit of 100,000 events",
        format!("{:.0} ms", audit * 1e3),
    );
}
