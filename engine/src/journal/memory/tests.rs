use super::*;
use crate::journal::conformance::{command, create, holder, progressed};
use crate::value::Value;

crate::journal_conformance!({
    let journal = MemoryJournal::new();
    ((), move || Arc::new(journal.clone()) as Arc<dyn Journal>)
});

fn step(seq: u64) -> Vec<Event> {
    vec![progressed(seq, Value::Null)]
}

#[tokio::test]
async fn a_snapshot_stands_still() {
    let journal = MemoryJournal::new();
    let lease = create(&journal, "r1").await;
    journal.submit(command("c1", "r1")).await.unwrap();
    let snapshot = journal.snapshot();
    let appended = journal.append(lease.as_ref(), 2, step(2), "running");
    appended.await.unwrap();
    let copy = MemoryJournal::from_snapshot(&snapshot);
    assert_eq!(copy.load("r1", 1).await.unwrap().len(), 1);
    assert_eq!(copy.inbox(None).await.unwrap().len(), 1);
    let other = copy.lease("r1", holder("lee")).await.unwrap();
    assert_eq!(other.epoch(), 2);
    assert_eq!(journal.load("r1", 1).await.unwrap().len(), 2);
}

#[tokio::test]
async fn faults_strike_before_or_after() {
    let journal = MemoryJournal::new();
    let lease = create(&journal, "r1").await;
    assert_eq!(journal.writes(), 1);
    journal.fail_at(3, Fault::Before);
    let append = |seq| journal.append(lease.as_ref(), seq, step(seq), "running");
    append(2).await.unwrap();
    assert!(matches!(append(3).await, Err(JournalError::Store(_))));
    assert_eq!(journal.load("r1", 1).await.unwrap().len(), 2);
    append(3).await.unwrap();
    journal.die_at(journal.writes() + 1, Fault::After);
    assert!(append(4).await.is_err());
    assert_eq!(journal.load("r1", 1).await.unwrap().len(), 4);
    assert!(append(5).await.is_err());
    journal.break_leases();
    let lost = append(5).await;
    assert!(matches!(lost, Err(JournalError::LeaseLost { .. })));
    let next = journal.lease("r1", holder("lee")).await.unwrap();
    drop(lease);
    let appended = journal.append(next.as_ref(), 5, step(5), "running");
    appended.await.unwrap();
}
