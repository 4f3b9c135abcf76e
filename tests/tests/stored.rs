//! Journals that an earlier Windlass wrote: each is read, says how the run was left, and can be brought to an end.
#![expect(
    clippy::unwrap_used,
    reason = "what a test shares may panic as the test may"
)]
use futures_util::future::BoxFuture;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use windlass_engine::{
    environment::EnvironmentFile,
    journal::{
        Journal, JournalError, LockHeld, MemoryJournal, NotBegun, SqliteJournal, StartKey, StartOf,
        Terms,
    },
    machine::{Command, Event, EventBody, Holder, Machine, Submitted},
    run::{DriveOptions, Driver, Ended, RunError},
    secret::Redactor,
    step::{
        DynStep, Failure, Fidelity, Identity, Kind, Mark, Outcome as StepOutcome, ParamError,
        Phase, Preview, PreviewContext, Probed, Registry, Resume, StepContext, Target, TargetKind,
    },
    value::{Timestamp, Value},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/journals")
}

/// Every stored run, by name.
fn stored() -> Vec<(String, Vec<Event>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "jsonl") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let events = text
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{name}: {e}: {line}"))
            })
            .collect();
        all.push((name, events));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(all.len() > 70, "only {} stored runs", all.len());
    all
}

/// How the run was left, by its events alone.
fn outcome(events: &[Event]) -> Option<&'static str> {
    events.iter().rev().find_map(|event| match &event.body {
        EventBody::Finished(finished) => Some(Some(finished.outcome.as_str())),
        EventBody::Reopened(_) => Some(None),
        _ => None,
    })?
}

#[test]
fn every_stored_run_is_read() {
    let mut wrong = Vec::new();
    for (name, events) in stored() {
        for end in 1..=events.len() {
            match Machine::recover(&events[..end]) {
                Ok(machine) => {
                    let over = machine.finished().map(|finished| finished.outcome.as_str());
                    if over != outcome(&events[..end]) {
                        wrong.push(format!(
                            "{name}, event {end}: {over:?} instead of {:?}",
                            outcome(&events[..end])
                        ));
                    }
                    assert!(!machine.state().as_str().is_empty());
                }
                // Only whole batches were ever durable: a prefix that ends inside of one need not be a run.
                Err(error) if end == events.len() => wrong.push(format!("{name}: {error}")),
                Err(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A step of any kind: it acts at once, or says that it did not happen.
struct Stub;

fn prepare(_: &Value) -> Result<Arc<dyn DynStep>, Vec<ParamError>> {
    Ok(Arc::new(Stub))
}

impl DynStep for Stub {
    fn preview<'a>(&'a self, _: &'a PreviewContext) -> BoxFuture<'a, Result<Preview, Failure>> {
        Box::pin(async { Ok(Preview::new(Fidelity::Simulated, "acts")) })
    }
    fn capture<'a>(&'a self, _: &'a StepContext) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async { Ok(Value::Null) })
    }
    fn execute<'a>(
        &'a self,
        _: &'a Value,
        _: Resume<Value>,
        _: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepOutcome<Value, Value>, Failure>> {
        Box::pin(async { Ok(StepOutcome::Done(Value::Null)) })
    }
    fn probe<'a>(
        &'a self,
        _: &'a Value,
        _: Option<&'a Mark>,
        _: &'a StepContext,
    ) -> BoxFuture<'a, Result<Probed<Value>, Failure>> {
        Box::pin(async { Ok(Probed::NotDone) })
    }
    fn undo<'a>(
        &'a self,
        _: &'a Value,
        _: Option<&'a Value>,
        _: Resume<Value>,
        _: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepOutcome<Value, Value>, Failure>> {
        Box::pin(async { Ok(StepOutcome::Done(Value::Null)) })
    }
    fn check_output(&self, _: &Value) -> Result<(), String> {
        Ok(())
    }
}

/// Every target is where the run found it.
struct SameServer;

impl TargetKind for SameServer {
    fn name(&self) -> &'static str {
        "sqlite"
    }
    fn identify<'a>(
        &'a self,
        target: &'a Target,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Identity, Failure>> {
        let missing = || Failure::new("stub.target", "a target without an identity");
        let identity = target.identity.clone().ok_or_else(missing);
        Box::pin(async move { identity })
    }
}

/// All kinds of this build by their names; none of them acts.
fn stubs() -> Arc<Registry> {
    let real = windlass_steps::registry();
    let kinds = real.kinds().cloned();
    let stubs = kinds.map(|kind| Kind { prepare, ..kind }).collect();
    Arc::new(Registry::new(stubs, vec![Arc::new(SameServer)]))
}

fn driver(journal: &MemoryJournal) -> Driver {
    let file = "environments:\n  dev:\n    secrets:\n      token: { command: [echo, not-for-the-journal] }\n";
    let environment = EnvironmentFile::parse("windlass.yaml", file).unwrap();
    let holder = Holder {
        user: "lee".to_owned(),
        account: None,
        host: "db-ops-2".to_owned(),
        pid: 1,
        since: Timestamp::UNIX_EPOCH,
    };
    let secrets = environment.secrets(Path::new("/"), Redactor::default().into());
    Driver::with_secrets(Arc::new(journal.clone()), stubs(), holder, secrets)
}

async fn order(journal: &MemoryJournal, run: &str, at: Timestamp, command: Command) {
    let submitted = Submitted {
        id: format!("{run}-{at}-{}", journal.inbox(None).await.unwrap().len()),
        run: run.to_owned(),
        who: "lee".to_owned(),
        account: None,
        at,
        command,
    };
    journal.submit(submitted).await.unwrap();
}

/// What leads out of a doubt or a failed undo: a person's word for each. What does not fit is refused and does no harm.
fn words(events: &[Event]) -> Vec<Command> {
    let mut doubts = BTreeSet::new();
    let mut failed = BTreeSet::new();
    for event in events {
        match &event.body {
            EventBody::Doubted(doubted) => drop(doubts.insert(doubted.node.to_string())),
            EventBody::Failed(undo) if undo.phase == Phase::Undo => {
                failed.insert(undo.node.to_string());
            }
            _ => {}
        }
    }
    let because = || "it was looked at".to_owned();
    let settle = |node| Command::Resolve {
        node,
        done: false,
        output: Value::Null,
        because: because(),
    };
    let leave = |node| Command::Skip {
        node,
        output: Value::Null,
        because: because(),
    };
    let settled = doubts.into_iter().map(settle);
    settled.chain(failed.into_iter().map(leave)).collect()
}

/// The order that an event answers, as it stood in the inbox.
fn taken(run: &str, event: &Event) -> Option<Submitted> {
    let (id, who, at, command) = match &event.body {
        EventBody::CommandAccepted(taken) => (&taken.id, &taken.who, taken.sent, &taken.command),
        EventBody::CommandRefused(refused) => {
            (&refused.id, &refused.who, refused.sent, &refused.command)
        }
        _ => return None,
    };
    Some(Submitted {
        id: id.clone(),
        run: run.to_owned(),
        who: who.clone(),
        account: None,
        at,
        command: command.clone(),
    })
}

/// Drives the run until it is over: what it did is left.
async fn end(events: Vec<Event>) -> Result<(), String> {
    let EventBody::RunStarted(start) = &events[0].body else {
        return Err("no start".to_owned());
    };
    let run = start.run.id.clone();
    let journal = MemoryJournal::new();
    let holder = Holder {
        user: "dana".to_owned(),
        account: None,
        host: "db-ops-1".to_owned(),
        pid: 1,
        since: Timestamp::UNIX_EPOCH,
    };
    let (first, rest) = events.split_at(1);
    let lease = journal.create(&run, holder, first.to_vec()).await.unwrap();
    // What the events take from the inbox must have been there.
    for event in rest {
        if let Some(submitted) = taken(&run, event) {
            journal.submit(submitted).await.unwrap();
        }
    }
    let appended = journal.append(lease.as_ref(), 2, rest.to_vec(), "running");
    appended.await.unwrap();
    drop(lease);
    let driver = driver(&journal);
    let mut last = String::new();
    for round in 0..6 {
        let so_far = journal.load(&run, 1).await.unwrap();
        let now = so_far.last().unwrap().at;
        if round > 0 {
            for command in words(&so_far) {
                order(&journal, &run, now, command).await;
            }
        }
        let leave = Command::Cancel {
            undo: false,
            force: round > 1,
            because: None,
        };
        order(&journal, &run, now, leave).await;
        let options = DriveOptions {
            leave_when_waiting: true,
            ..DriveOptions::default()
        };
        let mut handle = match driver.resume(&run, options).await {
            Ok(handle) => handle,
            Err(RunError::Over { .. }) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        match tokio::time::timeout(Duration::from_secs(5), handle.ended()).await {
            Err(_) => return Err(format!("hangs in round {round}, after {last}")),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(Ended::Finished(_))) => return Ok(()),
            Ok(Ok(ended)) => last = format!("{ended:?}"),
        }
    }
    Err(format!("never ends: {last}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stored_run_can_be_brought_to_an_end() {
    let open = stored()
        .into_iter()
        .filter(|(_, events)| outcome(events).is_none());
    let ends = open.map(|(name, events)| async move { (name, end(events).await) });
    let ends = futures_util::future::join_all(ends).await;
    assert!(ends.len() > 20, "only {} open runs", ends.len());
    let stranded: Vec<(String, String)> = ends
        .into_iter()
        .filter_map(|(name, end)| end.err().map(|why| (name, why)))
        .collect();
    assert!(stranded.is_empty(), "{stranded:#?}");
}

/// A file of the first format opens as it is, holds, and takes new events.
#[tokio::test]
async fn a_file_of_the_first_format_is_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    std::fs::copy(folder().join("journal.db"), &path).unwrap();
    // Read as it is: nothing is added to a file that is only looked at.
    let before = std::fs::read(&path).unwrap();
    let read = SqliteJournal::read(&path).unwrap();
    assert_eq!(read.runs().await.unwrap().len(), 3);
    assert_eq!(read.refused().await.unwrap(), []);
    assert_eq!(read.keyed("k").await.unwrap(), None);
    drop(read);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let journal = SqliteJournal::open(&path).unwrap();
    assert_eq!(journal.keyed("k").await.unwrap(), None);
    let runs = journal.runs().await.unwrap();
    let states: Vec<&str> = runs.iter().map(|run| run.state.as_str()).collect();
    assert_eq!(states, ["cancelled", "waiting", "succeeded"]);
    for run in &runs {
        let audit = journal.audit(&run.id).await.unwrap();
        assert_eq!(audit.broken, None, "{}", run.id);
        assert_eq!(audit.head.seq, run.events);
        let events = journal.load(&run.id, 1).await.unwrap();
        Machine::recover(&events).unwrap();
    }
    let waiting = &runs[1];
    let inbox = journal.inbox(Some(&waiting.id)).await.unwrap();
    assert_eq!(inbox.len(), 1);
    let events = journal.load(&waiting.id, 1).await.unwrap();
    let holder = Holder {
        user: "lee".to_owned(),
        account: None,
        host: "db-ops-2".to_owned(),
        pid: 1,
        since: Timestamp::UNIX_EPOCH,
    };
    let lease = journal.lease(&waiting.id, holder).await.unwrap();
    assert_eq!(lease.epoch(), 2);
    let seq = waiting.events + 1;
    let again = vec![events.last().unwrap().clone()];
    let taken = journal.append(lease.as_ref(), waiting.events, again.clone(), "waiting");
    assert!(matches!(
        taken.await,
        Err(JournalError::SequenceTaken { .. })
    ));
    let appended = journal.append(lease.as_ref(), seq, again, "waiting");
    appended.await.unwrap();
    assert_eq!(journal.audit(&waiting.id).await.unwrap().head.seq, seq);
    // Its lock is known, and a new run has what came later: a key.
    let (_, mut events) = stored().into_iter().next().unwrap();
    events.truncate(1);
    let holder = || Holder {
        user: "lee".to_owned(),
        account: None,
        host: "db-ops-2".to_owned(),
        pid: 1,
        since: Timestamp::UNIX_EPOCH,
    };
    let terms = |lock: &str| Terms {
        locks: vec![lock.to_owned()],
        key: Some(StartKey {
            key: "k".to_owned(),
            of: StartOf {
                playbook: "p".to_owned(),
                inputs: "i".to_owned(),
                place: "e".to_owned(),
            },
        }),
    };
    let begin = |lock| journal.begin("r9", holder(), events.clone(), terms(lock));
    let held = begin("shop.nightly").await.err().unwrap();
    assert!(
        matches!(&held, NotBegun::Locked(LockHeld::Held { run, .. }) if *run == waiting.id),
        "{held:?}"
    );
    begin("another").await.unwrap();
    assert_eq!(journal.keyed("k").await.unwrap().unwrap().run, "r9");
}
