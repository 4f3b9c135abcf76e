//! A journal that fails under a driver, and commands that come at the wrong moment.
use super::*;
use crate::{
    journal::{
        Audit, Fault, JournalError, Keyed, Lease, LockHeld, NotBegun, Printed, PrintedOf,
        PrintedSize, Prints, RefusedStart, RunSummary, Terms,
    },
    machine::{ClockStepped, Event, Identified, LeaseTaken, StartCause},
    run::RunHandle,
};
use indexmap::IndexMap;
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

/// A journal in which a command comes just after the driver has looked for the last time, or that has lost its last events.
struct Late {
    journal: MemoryJournal,
    looks: AtomicUsize,
    lost: usize,
}

impl Journal for Late {
    fn begin(
        &self,
        run: &str,
        holder: Holder,
        events: Vec<Event>,
        terms: Terms,
    ) -> BoxFuture<'_, Result<Box<dyn Lease>, NotBegun>> {
        self.journal.begin(run, holder, events, terms)
    }
    fn keyed(&self, key: &str) -> BoxFuture<'_, Result<Option<Keyed>, JournalError>> {
        self.journal.keyed(key)
    }
    fn refuse(&self, start: RefusedStart) -> BoxFuture<'_, Result<(), JournalError>> {
        self.journal.refuse(start)
    }
    fn refused(&self) -> BoxFuture<'_, Result<Vec<RefusedStart>, JournalError>> {
        self.journal.refused()
    }
    fn in_place(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        self.journal.in_place()
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
        let run = run.to_owned();
        Box::pin(async move {
            let mut events = self.journal.load(&run, from).await?;
            events.truncate(events.len().saturating_sub(self.lost));
            Ok(events)
        })
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
    fn withdraw(&self, run: &str, id: &str) -> BoxFuture<'_, Result<bool, JournalError>> {
        self.journal.withdraw(run, id)
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
                    account: None,
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
    fn print(
        &self,
        run: &str,
        epoch: u64,
        prints: Prints,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        self.journal.print(run, epoch, prints)
    }
    fn printed(
        &self,
        run: &str,
        of: PrintedOf,
    ) -> BoxFuture<'_, Result<Vec<Printed>, JournalError>> {
        self.journal.printed(run, of)
    }
    fn printed_size(&self, run: &str) -> BoxFuture<'_, Result<PrintedSize, JournalError>> {
        self.journal.printed_size(run)
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
        lost: 0,
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

/// The driver looks again after a failure, and what it finds is older than what it wrote: nothing acts on that.
#[tokio::test]
async fn a_journal_that_was_put_back_while_it_failed_is_not_driven_on() {
    let journal = MemoryJournal::new();
    journal.fail_at(4, Fault::Before);
    let journal = Arc::new(Late {
        journal,
        looks: AtomicUsize::new(1),
        lost: 1,
    });
    let driver = Driver::new(journal.clone(), registry(), holder());
    let started = driver.start(new_run(chain()), DriveOptions::default());
    let mut handle = started.await.unwrap();
    let error = handle.ended().await.unwrap_err();
    assert!(matches!(&*error, RunError::Replay { .. }), "{error:?}");
    assert!(error.to_string().contains("an earlier state"), "{error}");
    assert!(done(&handle.id).len() < 3, "it is not driven to its end");
    let events = journal.journal.load(&handle.id, 1).await.unwrap();
    let again = |event: &Event| matches!(event.body, EventBody::LeaseTaken(_));
    assert!(!events.iter().any(again), "nothing is written to it");
}

/// A run that ended without a word that it did, and has an order that needs a lock of another run, is over: the order waits.
#[tokio::test]
async fn an_order_to_a_run_that_is_over_waits_for_its_lock() {
    let policy = json!({"locks": ["l"]});
    let nodes = vec![step("a", "test.note", &[], json!({}), json!({}))];
    let first = graph(nodes, &[0], &[], policy.clone());
    let journal = Arc::new(MemoryJournal::new());
    let mut one = started(&journal, first).await;
    let ended = one.ended().await.unwrap();
    assert_eq!(ended, Ended::Finished(Outcome::Succeeded));
    let mut two = started(&journal, locked(policy)).await;
    let undo = Submitted {
        id: "undo".to_owned(),
        run: one.id.clone(),
        who: "bruno".to_owned(),
        account: None,
        at: crate::run::Clock::now(&crate::run::SystemClock),
        command: Command::Undo,
    };
    journal.submit(undo).await.unwrap();
    let driver = Driver::new(journal.clone(), registry(), holder());
    let held = driver.resume(&one.id, DriveOptions::default()).await;
    assert!(
        matches!(held.err().unwrap(), RunError::Locked(LockHeld::Held { run, .. }) if run == two.id)
    );
    assert_eq!(journal.inbox(Some(&one.id)).await.unwrap().len(), 1);
    two.stop();
    two.ended().await.unwrap();
    let cancel = Command::Cancel {
        undo: false,
        force: false,
        because: None,
    };
    order(&journal, &two.id, "bruno", cancel).await;
    let mut one = driver
        .resume(&one.id, DriveOptions::default())
        .await
        .unwrap();
    one.ended().await.unwrap();
    assert_eq!(done(&one.id), ["+a", "-a"]);
}

/// What a driver writes down about a run that is over, and that opens nothing again, leaves its report as it was.
#[tokio::test]
async fn what_comes_after_the_end_changes_no_report() {
    let (journal, id, ..) = run(chain()).await;
    let before = journal.audit(&id).await.unwrap().head;
    let lease = journal.lease(&id, holder()).await.unwrap();
    let at = crate::run::Clock::now(&crate::run::SystemClock);
    let identity = json!({"instance": "db-2:5432", "version": "17.2"});
    let after = [
        EventBody::LeaseTaken(Box::new(LeaseTaken {
            epoch: lease.epoch(),
            holder: holder(),
            failovers: IndexMap::new(),
            unreachable: IndexMap::from([("t".to_owned(), "no answer".to_owned())]),
        })),
        EventBody::Identified(Box::new(Identified {
            target: "t".to_owned(),
            identity: serde_json::from_value(identity).unwrap(),
            failover: None,
        })),
        EventBody::ClockStepped(ClockStepped {
            by: crate::value::Duration::from_millis(-60_000),
            wall: at,
        }),
    ];
    let after: Vec<Event> = after.into_iter().map(|body| Event { at, body }).collect();
    let appended = journal.append(lease.as_ref(), before.seq + 1, after, "succeeded");
    appended.await.unwrap();
    let audit = journal.audit(&id).await.unwrap();
    assert_eq!(audit.head.seq, before.seq + 3);
    assert_eq!(audit.reported(), &before);
}
