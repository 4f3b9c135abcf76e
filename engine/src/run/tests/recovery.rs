//! A journal that fails under a driver, and commands that come at the wrong moment.
use super::*;
use crate::{
    journal::{Audit, Fault, JournalError, Lease, LockHeld, RunSummary},
    machine::{Event, StartCause},
    run::RunHandle,
};
use futures_util::future::BoxFuture;
use std::sync::atomic::{AtomicUsize, Ordering};

fn chain() -> Arc<Graph> {
    let nodes = vec![
        step("a", "test.note", &[], json!({}), json!({})),
        step("b", "test.note", &[0], json!({}), json!({})),
        step("c", "test.note", &[1], json!({}), json!({})),
    ];
    graph(nodes, &[0, 1, 2], &[], json!({}))
}

async fn started(journal: &Arc<MemoryJournal>, graph: Arc<Graph>) -> RunHandle {
    Driver::new(journal.clone(), registry(), holder())
        .start(new_run(graph), DriveOptions::default())
        .await
        .unwrap()
}

/// All that the watcher of a run was told, to its end.
async fn watched(handle: &mut RunHandle) -> Vec<(u64, Event)> {
    let mut seen = Vec::new();
    while let Some((seq, event)) = handle.events.recv().await {
        seen.push((seq, (*event).clone()));
    }
    seen
}

#[tokio::test]
async fn an_append_of_unknown_result_is_looked_at_again() {
    let count = {
        let journal = Arc::new(MemoryJournal::new());
        let mut handle = started(&journal, chain()).await;
        handle.ended().await.unwrap();
        journal.writes()
    };
    for fault in [Fault::Before, Fault::After] {
        for write in 2..=count {
            let journal = Arc::new(MemoryJournal::new());
            journal.fail_at(write, fault);
            let mut handle = started(&journal, chain()).await;
            let ended = handle.ended().await.unwrap();
            let what = format!("{fault:?} at {write}");
            let events = journal.load(&handle.id, 1).await.unwrap();
            let told: Vec<Event> = watched(&mut handle)
                .await
                .into_iter()
                .enumerate()
                .map(|(at, (seq, event))| {
                    assert_eq!(seq, at as u64 + 1, "{what}: each event once, in order");
                    event
                })
                .collect();
            assert_eq!(told, events, "{what}");
            let mut effects = done(&handle.id);
            effects.dedup();
            assert_eq!(effects, done(&handle.id), "{what}: no effect twice");
            // A step of this kind that had started is in doubt: it may have taken effect.
            match ended {
                Ended::Finished(Outcome::Succeeded) => {
                    assert_eq!(done(&handle.id), ["+a", "+b", "+c"], "{what}");
                }
                Ended::Stuck => {
                    let machine = Machine::recover(&events).unwrap();
                    let doubts = machine
                        .instances()
                        .filter(|i| i.state == NodeState::InDoubt);
                    assert_eq!(doubts.count(), 1, "{what}");
                }
                other => panic!("{what}: {other:?}"),
            }
            let epochs = events.iter().filter_map(|event| match &event.body {
                EventBody::LeaseTaken(taken) => Some(taken.epoch),
                _ => None,
            });
            // A run whose last event came through needs no further driver.
            let is_over = write == count && matches!(fault, Fault::After);
            let expected = if is_over { vec![] } else { vec![2] };
            assert_eq!(epochs.collect::<Vec<_>>(), expected, "{what}: a new epoch");
        }
    }
}

#[tokio::test]
async fn a_journal_that_is_gone_for_a_while_is_waited_for_and_one_that_stays_away_is_not() {
    let journal = Arc::new(MemoryJournal::new());
    journal.die_at(2, Fault::Before);
    let mut handle = started(&journal, chain()).await;
    let back = {
        let journal = journal.clone();
        async move {
            tokio::time::sleep(std::time::Duration::from_millis(400)).await;
            journal.break_leases();
        }
    };
    let (ended, ()) = tokio::join!(handle.ended(), back);
    assert_eq!(ended.unwrap(), Ended::Finished(Outcome::Succeeded));

    let journal = Arc::new(MemoryJournal::new());
    journal.die_at(2, Fault::Before);
    let mut handle = started(&journal, chain()).await;
    let error = handle.ended().await.unwrap_err();
    assert!(error.is_unknown(), "{error}");
    assert_eq!(done(&handle.id), [""; 0], "nothing acts without its event");
}

/// What waits in the inbox is obeyed before an interrupted step is begun anew.
#[tokio::test]
async fn a_cancel_that_waits_comes_before_an_interrupted_step() {
    let nodes = vec![
        step("a", "test.note", &[], json!({}), json!({})),
        step("ok", "test.ask", &[0], json!({}), json!({})),
    ];
    let graph = graph(nodes, &[0, 1], &[], json!({}));
    // The process dies as the second step has started.
    let mut found = None;
    for write in 2..20 {
        let journal = Arc::new(MemoryJournal::new());
        journal.die_at(write, Fault::After);
        let driver = Driver::new(journal.clone(), registry(), holder());
        let options = DriveOptions {
            die_with_journal: true,
            ..DriveOptions::default()
        };
        let mut handle = driver.start(new_run(graph.clone()), options).await.unwrap();
        assert!(handle.ended().await.is_err());
        let machine = Machine::recover(&journal.load(&handle.id, 1).await.unwrap()).unwrap();
        if machine.instance("ok").unwrap().state == NodeState::Running {
            found = Some((journal, handle.id.clone()));
            break;
        }
    }
    let (journal, id) = found.unwrap();
    journal.break_leases();
    let cancel = Command::Cancel {
        undo: true,
        force: false,
        because: None,
    };
    let ended = order(&journal, &id, "bruno", cancel).await;
    assert_eq!(ended, Ended::Finished(Outcome::Cancelled));
    let events = journal.load(&id, 1).await.unwrap();
    let anew = events.iter().any(|event| {
        matches!(&event.body, EventBody::Started(started) if started.cause == StartCause::Interrupted)
    });
    assert!(!anew, "the cancel comes first");
    assert_eq!(done(&id), ["+a", "-a"]);
}

/// A journal in which a command comes just after the driver has looked for the last time.
struct Late {
    journal: MemoryJournal,
    looks: AtomicUsize,
}

impl Journal for Late {
    fn create(
        &self,
        run: &str,
        holder: Holder,
        events: Vec<Event>,
    ) -> BoxFuture<'_, Result<Box<dyn Lease>, JournalError>> {
        self.journal.create(run, holder, events)
    }
    fn lease(
        &self,
        run: &str,
        holder: Holder,
    ) -> BoxFuture<'_, Result<Box<dyn Lease>, JournalError>> {
        self.journal.lease(run, holder)
    }
    fn append<'a>(
        &'a self,
        lease: &'a dyn Lease,
        seq: u64,
        events: Vec<Event>,
        state: &'static str,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        self.journal.append(lease, seq, events, state)
    }
    fn load(&self, run: &str, from: u64) -> BoxFuture<'_, Result<Vec<Event>, JournalError>> {
        self.journal.load(run, from)
    }
    fn find(&self, id: &str) -> BoxFuture<'_, Result<String, JournalError>> {
        self.journal.find(id)
    }
    fn runs(&self) -> BoxFuture<'_, Result<Vec<RunSummary>, JournalError>> {
        self.journal.runs()
    }
    fn submit(&self, command: Submitted) -> BoxFuture<'_, Result<(), JournalError>> {
        self.journal.submit(command)
    }
    fn inbox(&self, run: Option<&str>) -> BoxFuture<'_, Result<Vec<Submitted>, JournalError>> {
        let run = run.map(str::to_owned);
        Box::pin(async move {
            let found = self.journal.inbox(run.as_deref()).await?;
            if let Some(run) = run
                && self.looks.fetch_add(1, Ordering::SeqCst) == 0
            {
                let pause = Command::Cancel {
                    undo: true,
                    force: false,
                    because: None,
                };
                let command = Submitted {
                    id: "late".to_owned(),
                    run,
                    who: "bruno".to_owned(),
                    at: crate::run::Clock::now(&crate::run::SystemClock),
                    command: pause,
                };
                self.journal.submit(command).await?;
            }
            Ok(found)
        })
    }
    fn version(&self) -> BoxFuture<'_, Result<u64, JournalError>> {
        // The one who looks for all runs sees nothing: only the last look of the driver can.
        Box::pin(async { Ok(0) })
    }
    fn audit(&self, run: &str) -> BoxFuture<'_, Result<Audit, JournalError>> {
        self.journal.audit(run)
    }
    fn lock<'a>(
        &'a self,
        lease: &'a dyn Lease,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<(), LockHeld>> {
        self.journal.lock(lease, names)
    }
}

#[tokio::test]
async fn a_command_that_comes_as_the_driver_leaves_is_taken() {
    let nodes = vec![
        step("a", "test.note", &[], json!({}), json!({})),
        step("ok", "test.ask", &[0], json!({}), json!({})),
    ];
    let journal = Arc::new(Late {
        journal: MemoryJournal::new(),
        looks: AtomicUsize::new(0),
    });
    let options = DriveOptions {
        leave_when_waiting: true,
        ..DriveOptions::default()
    };
    let driver = Driver::new(journal.clone(), registry(), holder());
    let graph = graph(nodes, &[0, 1], &[], json!({}));
    let mut handle = driver.start(new_run(graph), options).await.unwrap();
    let ended = handle.ended().await.unwrap();
    assert_eq!(ended, Ended::Finished(Outcome::Cancelled));
    assert_eq!(done(&handle.id), ["+a", "-a"]);
}
