//! What every journal must do with what steps printed.
use super::{Open, at, create, holder, step};
use crate::{
    journal::{Journal, JournalError, Lease, Printed, PrintedOf, PrintedSize, Prints},
    step::{Phase, Stream},
};

fn printed(no: u64, node: &str, text: &str) -> Printed {
    Printed {
        no,
        at: at(1),
        node: node.to_owned(),
        phase: if no.is_multiple_of(2) {
            Phase::Undo
        } else {
            Phase::Do
        },
        attempt: 3,
        stream: Stream::Stderr,
        cut: no / 7,
        text: text.to_owned(),
    }
}

async fn print(journal: &dyn Journal, lease: &dyn Lease, keep: Vec<Printed>, forget: Vec<u64>) {
    let prints = Prints { keep, forget };
    journal
        .print(lease.run(), lease.epoch(), prints)
        .await
        .unwrap();
}

async fn places(journal: &dyn Journal, of: PrintedOf) -> Vec<u64> {
    let found = journal.printed("r1", of).await.unwrap();
    found.into_iter().map(|one| one.no).collect()
}

/// What is printed is read back as it was, by another process, from a place on, by step, from either end.
pub async fn prints_are_kept(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    let other = create(journal.as_ref(), "r2").await;
    let nodes = ["dump", "dump[1]", "dump[1]/x", "dumper", "dump/y", "fill"];
    let all: Vec<Printed> = (1..)
        .zip(nodes)
        .map(|(no, node)| printed(no, node, &format!("«{no}» \0 '\"\n")))
        .collect();
    print(journal.as_ref(), lease.as_ref(), all.clone(), Vec::new()).await;
    print(
        journal.as_ref(),
        other.as_ref(),
        vec![printed(1, "dump", "another run")],
        Vec::new(),
    )
    .await;
    let journal = open();
    let read = journal.printed("r1", PrintedOf::after(0)).await.unwrap();
    assert_eq!(read, all);
    let journal = journal.as_ref();
    assert_eq!(places(journal, PrintedOf::after(4)).await, [5, 6]);
    let of_dump = PrintedOf {
        step: Some("dump".to_owned()),
        ..PrintedOf::after(0)
    };
    assert_eq!(places(journal, of_dump.clone()).await, [1, 2, 3, 5]);
    assert_eq!(places(journal, PrintedOf::last("dump", 2)).await, [3, 5]);
    let first = PrintedOf { most: 2, ..of_dump };
    assert_eq!(places(journal, first).await, [1, 2]);
    // A step is named by its path, not by a pattern.
    assert!(places(journal, PrintedOf::last("d%", 2)).await.is_empty());
    let size = journal.printed_size("r1").await.unwrap();
    let bytes = all.iter().map(|one| one.text.len() as u64).sum();
    assert_eq!(size, PrintedSize { last: 6, bytes });
    let none = journal.printed("no-such", PrintedOf::after(0)).await;
    assert!(matches!(none, Err(JournalError::NoSuchRun(_))), "{none:?}");
    let none = journal.printed_size("no-such").await;
    assert!(matches!(none, Err(JournalError::NoSuchRun(_))), "{none:?}");
}

/// A place that is taken is replaced, a place that is emptied stays empty.
pub async fn prints_are_replaced_and_forgotten(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    let (journal, lease) = (journal.as_ref(), lease.as_ref());
    let all = (1..=5).map(|no| printed(no, "dump", "x")).collect();
    print(journal, lease, all, Vec::new()).await;
    let replaced = printed(2, "dump", "y");
    print(journal, lease, vec![replaced.clone()], vec![1, 4, 99]).await;
    let read = journal.printed("r1", PrintedOf::after(0)).await.unwrap();
    assert_eq!(
        read,
        [replaced, printed(3, "dump", "x"), printed(5, "dump", "x")]
    );
    let size = journal.printed_size("r1").await.unwrap();
    assert_eq!(size, PrintedSize { last: 5, bytes: 3 });
}

/// One whose lease was taken writes nothing.
pub async fn prints_need_the_lease(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    let epoch = lease.epoch();
    drop(lease);
    let next = open();
    let taken = next.lease("r1", holder("lee")).await.unwrap();
    let prints = Prints {
        keep: vec![printed(1, "dump", "x")],
        forget: Vec::new(),
    };
    let late = journal.print("r1", epoch, prints.clone()).await;
    assert!(
        matches!(late, Err(JournalError::LeaseLost { .. })),
        "{late:?}"
    );
    assert!(places(next.as_ref(), PrintedOf::after(0)).await.is_empty());
    next.print("r1", taken.epoch(), prints).await.unwrap();
    assert_eq!(places(next.as_ref(), PrintedOf::after(0)).await, [1]);
}

/// What is printed changes neither the events nor their chain.
pub async fn prints_are_no_events(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    let before = journal.audit("r1").await.unwrap();
    print(
        journal.as_ref(),
        lease.as_ref(),
        vec![printed(1, "dump", "x")],
        Vec::new(),
    )
    .await;
    assert_eq!(journal.audit("r1").await.unwrap(), before);
    assert_eq!(journal.load("r1", 1).await.unwrap().len(), 1);
    let appended = journal.append(lease.as_ref(), 2, vec![step(2)], "running");
    appended.await.unwrap();
}
