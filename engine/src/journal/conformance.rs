//! What every journal must do: one suite, run against each implementation. An implementation calls
//! [`journal_conformance!`](crate::journal_conformance) in its tests with a way to open handles to one empty store.
#![expect(clippy::unwrap_used, reason = "a suite of assertions")]
mod printed;

pub use printed::*;

use super::{
    Journal, JournalError, Lease, LockHeld, NotBegun, REFUSED_KEPT, RefusedBy, RefusedStart,
    StartKey, StartOf, Terms,
};
use crate::{
    graph::{GRAPH_FORMAT, Graph, Policy, Scope, Source},
    machine::{
        Command, CommandRefused, CommandTaken, EVENT_FORMAT, Event, EventBody, Finished, Holder,
        LeaseTaken, Outcome, Progressed, RunStarted, Submitted, Unpaused,
    },
    step::{Account, Phase, RunInfo, Target},
    value::{Timestamp, Value},
};
use indexmap::IndexMap;
use std::sync::Arc;

/// Opens another handle to the store under test, as another process would.
pub type Open<'a> = &'a (dyn Fn() -> Arc<dyn Journal> + Sync);

/// Runs the suite; `$store` makes an empty store and gives `(guard, closure that opens a handle)`.
#[doc(hidden)]
#[macro_export]
macro_rules! journal_conformance {
    ($store:expr) => {
        $crate::journal_conformance!(@each $store;
            reads_back, loads_from_a_place, survives_reopening, refuses_a_taken_place,
            refuses_a_place_beyond_the_end, create_twice, unknown_runs, one_lease_at_a_time,
            a_superseded_lease_appends_nothing, a_dropped_lease_is_lost, commands_are_taken_once,
            a_command_is_withdrawn_until_it_is_taken,
            the_same_command_twice_is_once, commands_of_other_runs_stay, a_refused_append_changes_nothing,
            finds_by_either_end, lists_runs, the_version_changes, locks_are_all_or_none,
            locks_outlive_their_driver, large_values, too_deep_values, empty_appends, audits,
            fifty_runs_at_once, two_appenders, graphs_are_shared, a_start_takes_its_locks_or_leaves_nothing,
            a_key_starts_one_run, many_starts_by_one_key, refused_starts_are_no_runs,
            what_comes_after_the_end_does_not_move_it, prints_are_kept, prints_are_replaced_and_forgotten,
            prints_need_the_lease, prints_are_no_events);
    };
    (@each $store:expr; $($case:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (_guard, open) = $store;
                $crate::journal::conformance::$case(&open).await;
            }
        )+
    };
}

/// A fixed time, so many seconds after the first.
#[must_use]
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// An account of the operating system.
#[must_use]
pub fn account(name: &str) -> Account {
    Account {
        name: name.to_owned(),
        uid: 1_000 + u32::try_from(name.len()).unwrap(),
        host: "db-ops-1".to_owned(),
    }
}

/// Somebody who drives.
#[must_use]
pub fn holder(user: &str) -> Holder {
    Holder {
        user: user.to_owned(),
        account: Some(account(user)),
        host: "db-ops-1".to_owned(),
        pid: 4_711,
        since: at(0),
    }
}

/// A graph without steps; its source is as long as wanted.
#[must_use]
pub fn graph(source: &str) -> Arc<Graph> {
    Arc::new(Graph {
        format: GRAPH_FORMAT,
        playbook: "nightly-check".to_owned(),
        description: Some("Checks.".to_owned()),
        owner: None,
        sources: vec![Source {
            path: "nightly-check.yaml".to_owned(),
            sha256: "00".to_owned(),
            text: source.to_owned(),
        }],
        targets: IndexMap::new(),
        policy: Policy::default(),
        nodes: Vec::new(),
        root: Scope::default(),
    })
}

/// The first event of a run.
#[must_use]
pub fn started(run: &str, graph: &Arc<Graph>) -> Event {
    let target = Target {
        name: "orders".to_owned(),
        kind: "sqlite".to_owned(),
        url: Value::text("orders.db"),
        role: Some("primary".to_owned()),
        labels: IndexMap::from([("env".to_owned(), "prod".to_owned())]),
        ledger: None,
        options: IndexMap::new(),
        identity: None,
        never: Vec::new(),
        avoid: Vec::new(),
        entry: None,
    };
    let start = RunStarted {
        format: EVENT_FORMAT,
        run: RunInfo {
            id: run.to_owned(),
            short_id: run.to_owned(),
            playbook: "nightly-check".to_owned(),
            environment: "prod".to_owned(),
            by: "dana".to_owned(),
            account: Some(account("dana")),
            started_at: at(0),
            url: None,
        },
        graph: graph.clone(),
        inputs: Value::map([("size", Value::Int(3))]),
        targets: IndexMap::from([("orders".to_owned(), target)]),
        unreachable: IndexMap::from([("audit".to_owned(), "no answer".to_owned())]),
        approvers: IndexMap::from([("dba".to_owned(), vec!["dana".to_owned()])]),
        secrets: Value::map([("file", Value::text("secrets.json"))]),
        digest: "d1".to_owned(),
        engine: "0.1.0".to_owned(),
    };
    Event {
        at: at(0),
        body: EventBody::RunStarted(Box::new(start)),
    }
}

/// An event that carries a value.
#[must_use]
pub fn progressed(n: u64, state: Value) -> Event {
    Event {
        at: at(i64::try_from(n).unwrap()),
        body: EventBody::Progressed(Progressed {
            node: "fill".into(),
            phase: Phase::Do,
            attempt: 1,
            state,
        }),
    }
}

fn step(n: u64) -> Event {
    progressed(n, Value::Int(i64::try_from(n).unwrap()))
}

fn finished(outcome: Outcome) -> Event {
    Event {
        at: at(90),
        body: EventBody::Finished(Box::new(Finished {
            outcome,
            outputs: Value::Null,
            finally_failed: Vec::new(),
            output_error: None,
        })),
    }
}

/// An inbox entry.
#[must_use]
pub fn command(id: &str, run: &str) -> Submitted {
    Submitted {
        id: id.to_owned(),
        run: run.to_owned(),
        who: "lee".to_owned(),
        account: Some(account("operator")),
        at: at(5),
        command: Command::Signal {
            name: "go".to_owned(),
            payload: Value::text("now"),
        },
    }
}

fn accepted(id: &str) -> Event {
    let sent = command(id, "");
    Event {
        at: at(6),
        body: EventBody::CommandAccepted(Box::new(CommandTaken {
            id: sent.id,
            who: sent.who,
            account: sent.account,
            sent: sent.at,
            command: sent.command,
        })),
    }
}

fn refused(id: &str) -> Event {
    let sent = command(id, "");
    Event {
        at: at(6),
        body: EventBody::CommandRefused(Box::new(CommandRefused {
            id: sent.id,
            who: sent.who,
            account: sent.account,
            sent: sent.at,
            command: sent.command,
            reason: "nothing waits for it".to_owned(),
        })),
    }
}

/// A run with its first event.
pub async fn create(journal: &dyn Journal, run: &str) -> Box<dyn Lease> {
    let first = started(run, &graph("steps: []"));
    let made = journal.create(run, holder("dana"), vec![first]).await;
    made.unwrap()
}

async fn ids(journal: &dyn Journal, run: Option<&str>) -> Vec<String> {
    let inbox = journal.inbox(run).await.unwrap();
    inbox.into_iter().map(|command| command.id).collect()
}

async fn count(journal: &dyn Journal, run: &str) -> usize {
    journal.load(run, 1).await.unwrap().len()
}

/// What is written is read, in order and exactly.
pub async fn reads_back(open: Open<'_>) {
    let journal = open();
    let graph = graph("steps: []");
    let first = vec![
        started("r1", &graph),
        Event {
            at: "2027-01-15T08:00:00.123456789Z".parse().unwrap(),
            body: EventBody::LeaseTaken(Box::new(LeaseTaken {
                failovers: indexmap::IndexMap::new(),
                unreachable: IndexMap::from([("orders".to_owned(), "no answer".to_owned())]),
                epoch: 1,
                holder: holder("dana"),
            })),
        },
    ];
    let created = journal.create("r1", holder("dana"), first.clone()).await;
    let lease = created.unwrap();
    assert_eq!((lease.run(), lease.epoch()), ("r1", 1));
    let exact = Value::list(vec![
        Value::Decimal("12345678901234567890.50".parse().unwrap()),
        Value::Duration("90s".parse().unwrap()),
        Value::text("ünïcödé \u{1F980} \" \\ \n \u{0}"),
        Value::map([("$decimal", Value::Int(1))]),
        Value::Bytes(vec![0, 159, 146, 150].into()),
    ]);
    let more = vec![progressed(3, exact), step(4)];
    let appended = journal.append(lease.as_ref(), 3, more.clone(), "waiting");
    appended.await.unwrap();
    let mut all = first;
    all.extend(more);
    assert_eq!(journal.load("r1", 1).await.unwrap(), all);
}

/// A reader may begin anywhere.
pub async fn loads_from_a_place(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    let events = vec![step(2), step(3), step(4)];
    let appended = journal.append(lease.as_ref(), 2, events, "running");
    appended.await.unwrap();
    assert_eq!(journal.load("r1", 0).await.unwrap().len(), 4);
    assert_eq!(journal.load("r1", 3).await.unwrap(), [step(3), step(4)]);
    assert_eq!(journal.load("r1", 4).await.unwrap(), [step(4)]);
    assert_eq!(journal.load("r1", 5).await.unwrap(), []);
    assert_eq!(journal.load("r1", 500).await.unwrap(), []);
}

/// All is there after the last handle is closed; the epoch goes on growing.
pub async fn survives_reopening(open: Open<'_>) {
    let keep = open();
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    let appended = journal.append(lease.as_ref(), 2, vec![step(2)], "waiting");
    appended.await.unwrap();
    journal.submit(command("c1", "r1")).await.unwrap();
    let locks = ["orders.region".to_owned()];
    journal.lock(lease.as_ref(), &locks).await.unwrap();
    let head = journal.audit("r1").await.unwrap().head;
    drop((lease, journal));
    let journal = open();
    drop(keep);
    assert_eq!(count(journal.as_ref(), "r1").await, 2);
    assert_eq!(ids(journal.as_ref(), Some("r1")).await, ["c1"]);
    assert_eq!(journal.audit("r1").await.unwrap().head, head);
    let lease = journal.lease("r1", holder("lee")).await.unwrap();
    assert_eq!(lease.epoch(), 2);
    let appended = journal.append(lease.as_ref(), 3, vec![accepted("c1")], "running");
    appended.await.unwrap();
    assert_eq!(count(journal.as_ref(), "r1").await, 3);
    let other = create(journal.as_ref(), "r2").await;
    let held = journal.lock(other.as_ref(), &locks).await;
    assert!(matches!(held, Err(LockHeld::Held { run, .. }) if run == "r1"));
}

/// A place is written once.
pub async fn refuses_a_taken_place(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    for seq in [2, 3] {
        let appended = journal.append(lease.as_ref(), seq, vec![step(seq)], "running");
        appended.await.unwrap();
    }
    for seq in [1, 2, 3] {
        let again = journal.append(lease.as_ref(), seq, vec![step(99)], "failed");
        let again = again.await.unwrap_err();
        assert!(
            matches!(&again, JournalError::SequenceTaken { run, seq: taken } if run == "r1" && *taken == seq),
            "{again:?}"
        );
    }
    assert_eq!(journal.load("r1", 2).await.unwrap(), [step(2), step(3)]);
    assert_eq!(journal.runs().await.unwrap()[0].state, "running");
}

/// There are no holes.
pub async fn refuses_a_place_beyond_the_end(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    let beyond = journal.append(lease.as_ref(), 3, vec![step(3)], "running");
    let beyond = beyond.await.unwrap_err().to_string();
    assert!(
        beyond.contains("event 3 of run r1 cannot follow event 1"),
        "{beyond}"
    );
    assert_eq!(count(journal.as_ref(), "r1").await, 1);
}

/// An id is one run's.
pub async fn create_twice(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    drop(lease);
    let first = started("r1", &graph("other"));
    let again = journal.create("r1", holder("lee"), vec![first]).await;
    assert!(matches!(
        again.err().unwrap(),
        JournalError::SequenceTaken { run, seq: 1 } if run == "r1"
    ));
    // The refusal held nothing back.
    drop(journal.lease("r1", holder("lee")).await.unwrap());
    let headless = journal.create("r2", holder("lee"), vec![step(1)]).await;
    let headless = headless.err().unwrap().to_string();
    assert!(headless.contains("does not begin with"), "{headless}");
    assert_eq!(journal.runs().await.unwrap().len(), 1);
}

/// Nothing is said of a run that is not there.
pub async fn unknown_runs(open: Open<'_>) {
    let journal = open();
    create(journal.as_ref(), "r1").await;
    let no_such = |error: JournalError| matches!(error, JournalError::NoSuchRun(id) if id == "r9");
    assert!(no_such(journal.load("r9", 1).await.unwrap_err()));
    assert!(no_such(journal.find("r9").await.unwrap_err()));
    assert!(no_such(journal.audit("r9").await.unwrap_err()));
    let lease = journal.lease("r9", holder("lee")).await;
    assert!(no_such(lease.err().unwrap()));
    let submitted = journal.submit(command("c1", "r9")).await;
    assert!(no_such(submitted.unwrap_err()));
    assert_eq!(ids(journal.as_ref(), None).await, [""; 0]);
}

/// Two handles, as of two processes, exclude each other; so do two callers of one handle.
pub async fn one_lease_at_a_time(open: Open<'_>) {
    let (one, two) = (open(), open());
    let lease = create(one.as_ref(), "r1").await;
    for journal in [&one, &two] {
        let refused = journal.lease("r1", holder("lee")).await.err().unwrap();
        assert!(
            matches!(&refused, JournalError::LeaseHeld { run, holder } if run == "r1" && holder.user == "dana"),
            "{refused:?}"
        );
    }
    drop(lease);
    let lease = two.lease("r1", holder("lee")).await.unwrap();
    assert_eq!(lease.epoch(), 2);
    let refused = one.lease("r1", holder("dana")).await.err().unwrap();
    assert!(matches!(refused, JournalError::LeaseHeld { holder, .. } if holder.user == "lee"));
    let seen = one.runs().await.unwrap();
    assert_eq!(seen[0].holder.as_ref().unwrap().user, "lee");
    drop(lease);
    assert_eq!(one.runs().await.unwrap()[0].holder, None);
    assert_eq!(two.runs().await.unwrap()[0].holder, None);
}

/// A lease that only pretends: its epoch was never granted here.
struct Forged(u64);

impl Lease for Forged {
    fn run(&self) -> &str {
        "r1"
    }
    fn epoch(&self) -> u64 {
        self.0
    }
}

/// Only the epoch that was granted last appends and locks.
pub async fn a_superseded_lease_appends_nothing(open: Open<'_>) {
    let (one, two) = (open(), open());
    drop(create(one.as_ref(), "r1").await);
    let lease = two.lease("r1", holder("lee")).await.unwrap();
    for journal in [&one, &two] {
        for epoch in [0, 1, 3] {
            let forged = Forged(epoch);
            let stale = journal.append(&forged, 2, vec![step(2)], "running");
            let stale = stale.await.unwrap_err();
            assert!(
                matches!(&stale, JournalError::LeaseLost { run } if run == "r1"),
                "{stale:?}"
            );
            let locks = ["a".to_owned()];
            let stale = journal.lock(&forged, &locks).await;
            assert!(matches!(
                stale.unwrap_err(),
                LockHeld::Journal(JournalError::LeaseLost { .. })
            ));
        }
    }
    let appended = two.append(lease.as_ref(), 2, vec![step(2)], "running");
    appended.await.unwrap();
    assert_eq!(one.load("r1", 2).await.unwrap(), [step(2)]);
}

/// What was given back appends nothing, and gives nothing back twice.
pub async fn a_dropped_lease_is_lost(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    drop(lease);
    let forged = Forged(1);
    let gone = journal.append(&forged, 2, vec![step(2)], "running");
    assert!(matches!(
        gone.await.unwrap_err(),
        JournalError::LeaseLost { .. }
    ));
    assert_eq!(count(journal.as_ref(), "r1").await, 1);
}

/// A command leaves the inbox in the commit that journals its event, and never twice.
pub async fn commands_are_taken_once(open: Open<'_>) {
    let (journal, sender) = (open(), open());
    let lease = create(journal.as_ref(), "r1").await;
    for id in ["c1", "c2", "c3"] {
        sender.submit(command(id, "r1")).await.unwrap();
    }
    let inbox = journal.inbox(Some("r1")).await.unwrap();
    assert_eq!(inbox[0], command("c1", "r1"));
    assert_eq!(ids(journal.as_ref(), None).await, ["c1", "c2", "c3"]);
    let both = vec![accepted("c2"), step(3), refused("c1")];
    let appended = journal.append(lease.as_ref(), 2, both, "running");
    appended.await.unwrap();
    assert_eq!(ids(sender.as_ref(), Some("r1")).await, ["c3"]);
    for events in [
        vec![step(5), accepted("c1")],
        vec![refused("c2")],
        vec![accepted("c3"), accepted("c2")],
    ] {
        let again = journal.append(lease.as_ref(), 5, events, "failed");
        let again = again.await.unwrap_err();
        assert!(
            matches!(again, JournalError::NotInInbox { .. }),
            "{again:?}"
        );
    }
    assert_eq!(ids(journal.as_ref(), Some("r1")).await, ["c3"]);
    assert_eq!(count(journal.as_ref(), "r1").await, 4);
    let never = journal.append(lease.as_ref(), 5, vec![accepted("c9")], "running");
    let never = never.await.unwrap_err();
    assert!(matches!(never, JournalError::NotInInbox { id, .. } if id == "c9"));
    let last = journal.append(lease.as_ref(), 5, vec![accepted("c3")], "running");
    last.await.unwrap();
    assert_eq!(ids(journal.as_ref(), None).await, [""; 0]);
    // One that was taken does not come back by being sent again.
    sender.submit(command("c3", "r1")).await.unwrap();
    assert_eq!(ids(journal.as_ref(), None).await, [""; 0]);
}

/// A sender that learns that nothing can take its command now takes it back.
pub async fn a_command_is_withdrawn_until_it_is_taken(open: Open<'_>) {
    let (journal, sender) = (open(), open());
    let lease = create(journal.as_ref(), "r1").await;
    for id in ["c1", "c2"] {
        sender.submit(command(id, "r1")).await.unwrap();
    }
    let appended = journal.append(lease.as_ref(), 2, vec![accepted("c1")], "running");
    appended.await.unwrap();
    for (run, id, was_there) in [
        ("r1", "c1", false),
        ("r2", "c2", false),
        ("r1", "c2", true),
        ("r1", "c2", false),
    ] {
        let withdrawn = sender.withdraw(run, id).await.unwrap();
        assert_eq!(withdrawn, was_there, "{run} {id}");
    }
    assert_eq!(ids(journal.as_ref(), None).await, [""; 0]);
}

/// A sender that does not know whether it was heard sends again.
pub async fn the_same_command_twice_is_once(open: Open<'_>) {
    let journal = open();
    create(journal.as_ref(), "r1").await;
    journal.submit(command("c1", "r1")).await.unwrap();
    let mut other = command("c1", "r1");
    other.who = "somebody else".to_owned();
    journal.submit(other).await.unwrap();
    let inbox = journal.inbox(None).await.unwrap();
    assert_eq!(inbox, [command("c1", "r1")]);
}

/// A run takes only what was sent to it.
pub async fn commands_of_other_runs_stay(open: Open<'_>) {
    let journal = open();
    let one = create(journal.as_ref(), "r1").await;
    create(journal.as_ref(), "r2").await;
    journal.submit(command("c1", "r1")).await.unwrap();
    journal.submit(command("c2", "r2")).await.unwrap();
    assert_eq!(ids(journal.as_ref(), Some("r1")).await, ["c1"]);
    assert_eq!(ids(journal.as_ref(), Some("r2")).await, ["c2"]);
    let foreign = journal.append(one.as_ref(), 2, vec![accepted("c2")], "running");
    let foreign = foreign.await.unwrap_err();
    assert!(matches!(foreign, JournalError::NotInInbox { run, id } if run == "r1" && id == "c2"));
    assert_eq!(ids(journal.as_ref(), None).await, ["c1", "c2"]);
}

/// All of an append or nothing of it: events, inbox, state, locks, chain.
pub async fn a_refused_append_changes_nothing(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    journal.submit(command("c1", "r1")).await.unwrap();
    let locks = ["a".to_owned()];
    journal.lock(lease.as_ref(), &locks).await.unwrap();
    let before = (
        journal.audit("r1").await.unwrap(),
        journal.runs().await.unwrap(),
    );
    let events = vec![
        accepted("c1"),
        finished(Outcome::Failed),
        accepted("missing"),
    ];
    let refused = journal.append(lease.as_ref(), 2, events, "failed").await;
    assert!(matches!(
        refused.unwrap_err(),
        JournalError::NotInInbox { .. }
    ));
    let after = (
        journal.audit("r1").await.unwrap(),
        journal.runs().await.unwrap(),
    );
    assert_eq!(after, before);
    assert_eq!(ids(journal.as_ref(), Some("r1")).await, ["c1"]);
    let other = create(journal.as_ref(), "r2").await;
    assert!(journal.lock(other.as_ref(), &locks).await.is_err());
    let appended = journal.append(lease.as_ref(), 2, vec![accepted("c1")], "running");
    appended.await.unwrap();
    assert_eq!(journal.audit("r1").await.unwrap().broken, None);
}

/// People type the beginning or the end of an id.
pub async fn finds_by_either_end(open: Open<'_>) {
    let journal = open();
    for run in ["0190-aaaa-1111", "0190-bbbb-2222", "0191-bbbb-1111", "0191"] {
        create(journal.as_ref(), run).await;
    }
    let found = |given: &'static str| {
        let journal = journal.clone();
        async move { journal.find(given).await }
    };
    assert_eq!(found("0190-aaaa-1111").await.unwrap(), "0190-aaaa-1111");
    assert_eq!(found("0190-a").await.unwrap(), "0190-aaaa-1111");
    assert_eq!(found("2222").await.unwrap(), "0190-bbbb-2222");
    assert_eq!(found("0191").await.unwrap(), "0191", "exact before prefix");
    for (given, fits) in [("0190", 2), ("1111", 2), ("019", 4)] {
        let error = found(given).await.unwrap_err();
        assert!(
            matches!(&error, JournalError::Ambiguous { prefix, count } if prefix == given && *count == fits),
            "{error:?}"
        );
    }
    for given in ["bbbb", "", "%", "0190_", "0190-aaaa-11112"] {
        let error = found(given).await.unwrap_err();
        assert!(matches!(error, JournalError::NoSuchRun(_)), "{given}");
    }
}

/// Newest first, with the state of the last append.
pub async fn lists_runs(open: Open<'_>) {
    let journal = open();
    assert_eq!(journal.runs().await.unwrap(), []);
    let one = create(journal.as_ref(), "r1").await;
    drop(create(journal.as_ref(), "r2").await);
    let appended = journal.append(one.as_ref(), 2, vec![step(2), step(7)], "paused");
    appended.await.unwrap();
    let runs = journal.runs().await.unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(
        (runs[0].id.as_str(), runs[0].state.as_str()),
        ("r2", "running")
    );
    assert_eq!((runs[0].events, &runs[0].holder), (1, &None));
    let r1 = &runs[1];
    assert_eq!((r1.id.as_str(), r1.state.as_str()), ("r1", "paused"));
    assert_eq!((r1.events, r1.started_at, r1.updated_at), (3, at(0), at(7)));
    assert_eq!(
        (
            r1.playbook.as_str(),
            r1.environment.as_str(),
            r1.by.as_str()
        ),
        ("nightly-check", "prod", "dana")
    );
    assert_eq!(r1.account, Some(account("dana")));
    assert_eq!(r1.holder, Some(holder("dana")));
}

/// Whoever polls sees every kind of change, of their own handle and of others.
pub async fn the_version_changes(open: Open<'_>) {
    let (journal, other) = (open(), open());
    let mut seen = [
        journal.version().await.unwrap(),
        other.version().await.unwrap(),
    ];
    assert_eq!(
        seen[0],
        journal.version().await.unwrap(),
        "quiet while nothing happens"
    );
    let lease = create(journal.as_ref(), "r1").await;
    for round in 0..4 {
        match round {
            0 => {}
            1 => {
                let appended = journal.append(lease.as_ref(), 2, vec![step(2)], "running");
                appended.await.unwrap();
            }
            2 => other.submit(command("c1", "r1")).await.unwrap(),
            _ => {
                let locks = ["a".to_owned()];
                journal.lock(lease.as_ref(), &locks).await.unwrap();
            }
        }
        let now = [
            journal.version().await.unwrap(),
            other.version().await.unwrap(),
        ];
        assert!(
            now[0] != seen[0] && now[1] != seen[1],
            "round {round}: {seen:?} {now:?}"
        );
        seen = now;
    }
}

/// One run at a time holds a lock; who gets one of several gets all.
pub async fn locks_are_all_or_none(open: Open<'_>) {
    let (journal, other) = (open(), open());
    let one = create(journal.as_ref(), "r1").await;
    let two = create(other.as_ref(), "r2").await;
    let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    let (ab, bc, c) = (names(&["a", "b"]), names(&["c", "b"]), names(&["c"]));
    journal.lock(one.as_ref(), &ab).await.unwrap();
    journal.lock(one.as_ref(), &ab).await.unwrap();
    let held = other.lock(two.as_ref(), &bc).await.unwrap_err();
    assert!(
        matches!(&held, LockHeld::Held { name, run } if name == "b" && run == "r1"),
        "{held:?}"
    );
    journal.lock(one.as_ref(), &c).await.unwrap();
    let end = vec![finished(Outcome::Succeeded)];
    let appended = journal.append(one.as_ref(), 2, end, "succeeded");
    appended.await.unwrap();
    other.lock(two.as_ref(), &bc).await.unwrap();
    other.lock(two.as_ref(), &[]).await.unwrap();
    // Back after its end, it finds the locks of the other.
    let back = journal.lock(one.as_ref(), &names(&["a", "c"])).await;
    assert!(matches!(back.unwrap_err(), LockHeld::Held { run, .. } if run == "r2"));
}

/// A run that nobody drives is not over: its locks stay.
pub async fn locks_outlive_their_driver(open: Open<'_>) {
    let journal = open();
    let names = ["a".to_owned()];
    let one = create(journal.as_ref(), "r1").await;
    journal.lock(one.as_ref(), &names).await.unwrap();
    drop(one);
    let two = create(journal.as_ref(), "r2").await;
    let held = journal.lock(two.as_ref(), &names).await;
    assert!(matches!(held.unwrap_err(), LockHeld::Held { run, .. } if run == "r1"));
    let one = journal.lease("r1", holder("lee")).await.unwrap();
    journal.lock(one.as_ref(), &names).await.unwrap();
    let end = vec![finished(Outcome::Cancelled)];
    let appended = journal.append(one.as_ref(), 2, end, "cancelled");
    appended.await.unwrap();
    journal.lock(two.as_ref(), &names).await.unwrap();
}

/// Values of any size, several at once, and the same one twice.
pub async fn large_values(open: Open<'_>) {
    let journal = open();
    let large = |letter: &str, size: usize| Value::text(letter.repeat(size));
    let source = "# a long playbook\n".repeat(20_000);
    let first = vec![
        started("r1", &graph(&source)),
        progressed(2, large("a", 70_000)),
    ];
    let created = journal.create("r1", holder("dana"), first.clone()).await;
    let lease = created.unwrap();
    let more = vec![
        progressed(3, large("a", 70_000)),
        progressed(4, large("b", 3_000_000)),
        progressed(5, large("c", 65_400)),
        progressed(6, large("d", 65_536)),
        step(7),
    ];
    let appended = journal.append(lease.as_ref(), 3, more.clone(), "running");
    appended.await.unwrap();
    let mut all = first;
    all.extend(more);
    let reopened = open();
    assert!(reopened.load("r1", 1).await.unwrap() == all);
    assert_eq!(reopened.audit("r1").await.unwrap().broken, None);
}

/// What could not be read again is not written.
pub async fn too_deep_values(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    let nested = |depth| (0..depth).fold(Value::Int(1), |inner, _| Value::list(vec![inner]));
    let deep = journal.append(
        lease.as_ref(),
        2,
        vec![progressed(2, nested(500))],
        "running",
    );
    let deep = deep.await.unwrap_err().to_string();
    assert!(deep.contains("nested too deep"), "{deep}");
    let wide = Value::list(vec![nested(50); 10]);
    let brackets = Value::text("\\\"[{".repeat(500));
    let most = vec![
        progressed(2, wide),
        progressed(3, brackets),
        progressed(4, nested(118)),
    ];
    let fine = journal.append(lease.as_ref(), 2, most.clone(), "running");
    fine.await.unwrap();
    assert_eq!(journal.load("r1", 2).await.unwrap(), most);
}

/// A state may change without an event.
pub async fn empty_appends(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    let empty = journal.append(lease.as_ref(), 2, Vec::new(), "waiting");
    empty.await.unwrap();
    let runs = journal.runs().await.unwrap();
    assert_eq!((runs[0].state.as_str(), runs[0].events), ("waiting", 1));
    let appended = journal.append(lease.as_ref(), 2, vec![step(2)], "running");
    appended.await.unwrap();
    assert_eq!(journal.audit("r1").await.unwrap().broken, None);
}

/// A sound chain has the head that anybody can keep elsewhere; it depends on every event and on the run's id.
pub async fn audits(open: Open<'_>) {
    let journal = open();
    let graph = graph("steps: []");
    let mut heads = Vec::new();
    for run in ["r1", "r2"] {
        let first = vec![started("same", &graph)];
        let lease = journal.create(run, holder("dana"), first).await.unwrap();
        for seq in 2..5 {
            let appended = journal.append(lease.as_ref(), seq, vec![step(seq)], "running");
            appended.await.unwrap();
        }
        let audit = journal.audit(run).await.unwrap();
        assert_eq!(
            (audit.run.as_str(), audit.head.seq, &audit.broken),
            (run, 4, &None)
        );
        assert_eq!(audit.head.hash.len(), 64);
        assert_eq!(journal.audit(run).await.unwrap(), audit);
        heads.push(audit.head.hash);
        let unpaused = Event {
            at: at(9),
            body: EventBody::Unpaused(Unpaused {
                who: "lee".to_owned(),
            }),
        };
        let appended = journal.append(lease.as_ref(), 5, vec![unpaused], "running");
        appended.await.unwrap();
        heads.push(journal.audit(run).await.unwrap().head.hash);
    }
    heads.sort();
    heads.dedup();
    assert_eq!(heads.len(), 4);
}

/// Many runs at once lose nothing and mix nothing up.
pub async fn fifty_runs_at_once(open: Open<'_>) {
    let journals = [open(), open()];
    let drive = |n: usize| {
        let journal = journals[n % 2].clone();
        async move {
            let run = format!("run-{n}");
            let lease = create(journal.as_ref(), &run).await;
            for seq in 2..=201 {
                let value = Value::text(format!("{run} {seq}"));
                let events = vec![progressed(seq, value)];
                let appended = journal.append(lease.as_ref(), seq, events, "running");
                appended.await.unwrap();
            }
        }
    };
    futures_util::future::join_all((0..50).map(drive)).await;
    for n in 0..50 {
        let run = format!("run-{n}");
        let events = journals[0].load(&run, 2).await.unwrap();
        assert_eq!(events.len(), 200);
        for (seq, event) in (2..).zip(events) {
            assert_eq!(
                event,
                progressed(seq, Value::text(format!("{run} {seq}"))),
                "{run}"
            );
        }
        assert_eq!(journals[1].audit(&run).await.unwrap().broken, None);
    }
}

/// Two that append at one place: one gets it, the other is told.
pub async fn two_appenders(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    for seq in 2..100 {
        let append = |who: i64| {
            let events = vec![progressed(seq, Value::Int(who))];
            journal.append(lease.as_ref(), seq, events, "running")
        };
        let (one, two) = futures_util::future::join(append(1), append(2)).await;
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        let lost = one.err().or(two.err()).unwrap();
        assert!(
            matches!(lost, JournalError::SequenceTaken { seq: taken, .. } if taken == seq),
            "{lost:?}"
        );
    }
    assert_eq!(journal.audit("r1").await.unwrap().head.seq, 99);
}

/// Runs of one playbook share one graph in memory.
pub async fn graphs_are_shared(open: Open<'_>) {
    let journal = open();
    for run in ["r1", "r2", "r3"] {
        create(journal.as_ref(), run).await;
    }
    let journal = open();
    let graph_of = |events: Vec<Event>| match events.into_iter().next().map(|event| event.body) {
        Some(EventBody::RunStarted(start)) => start.graph,
        other => panic!("{other:?}"),
    };
    let one = graph_of(journal.load("r1", 1).await.unwrap());
    let two = graph_of(journal.load("r2", 1).await.unwrap());
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(one, graph("steps: []"));
    drop((one, two));
    let three = graph_of(journal.load("r3", 1).await.unwrap());
    assert_eq!(three, graph("steps: []"));
}

fn key(key: &str, inputs: &str) -> StartKey {
    StartKey {
        key: key.to_owned(),
        of: StartOf {
            playbook: "p1".to_owned(),
            inputs: inputs.to_owned(),
            place: "prod".to_owned(),
        },
    }
}

fn terms(locks: &[&str], key: Option<StartKey>) -> Terms {
    let locks = locks.iter().map(|&lock| lock.to_owned()).collect();
    Terms { locks, key }
}

async fn begin(journal: &dyn Journal, run: &str, terms: Terms) -> Result<Box<dyn Lease>, NotBegun> {
    let first = vec![started(run, &graph("steps: []"))];
    journal.begin(run, holder("dana"), first, terms).await
}

/// A start that a lock refuses makes no run and takes no other lock; the locks of a start are held at once and until its end.
pub async fn a_start_takes_its_locks_or_leaves_nothing(open: Open<'_>) {
    let (journal, other) = (open(), open());
    let one = begin(journal.as_ref(), "r1", terms(&["a", "b"], None)).await;
    let one = one.unwrap();
    let wanted = || terms(&["c", "b"], Some(key("k", "i")));
    let refused = begin(other.as_ref(), "r2", wanted()).await.err().unwrap();
    assert!(
        matches!(&refused, NotBegun::Locked(LockHeld::Held { name, run }) if name == "b" && run == "r1"),
        "{refused:?}"
    );
    assert_eq!(journal.runs().await.unwrap().len(), 1);
    assert_eq!(journal.keyed("k").await.unwrap(), None);
    let lost = other.lease("r2", holder("lee")).await.err().unwrap();
    assert!(matches!(lost, JournalError::NoSuchRun(_)), "{lost:?}");
    // The lock that was free is free.
    let three = begin(other.as_ref(), "r3", terms(&["c"], None)).await;
    let three = three.unwrap();
    let end = vec![finished(Outcome::Succeeded)];
    let appended = other.append(three.as_ref(), 2, end, "succeeded");
    appended.await.unwrap();
    // Nobody drives it any more, and it holds them still.
    drop(one);
    assert!(begin(other.as_ref(), "r2", wanted()).await.is_err());
    let one = journal.lease("r1", holder("dana")).await.unwrap();
    let end = vec![finished(Outcome::Cancelled)];
    let appended = journal.append(one.as_ref(), 2, end, "cancelled");
    appended.await.unwrap();
    begin(other.as_ref(), "r2", wanted()).await.unwrap();
    assert_eq!(journal.keyed("k").await.unwrap().unwrap().run, "r2");
}

/// The second start by a key hears of the first, whatever it would have started.
pub async fn a_key_starts_one_run(open: Open<'_>) {
    let (journal, other) = (open(), open());
    assert_eq!(journal.keyed("k").await.unwrap(), None);
    let first = begin(journal.as_ref(), "r1", terms(&["a"], Some(key("k", "i")))).await;
    drop(first.unwrap());
    for inputs in ["i", "j"] {
        // The key is asked before the locks: the run that holds them is the one that was asked for.
        let again = begin(other.as_ref(), "r2", terms(&["a"], Some(key("k", inputs)))).await;
        match again.err().unwrap() {
            NotBegun::KeyUsed { key: used, first } => {
                assert_eq!((used.as_str(), first.run.as_str()), ("k", "r1"));
                let differs = key("k", inputs).of.differs(&first.of);
                assert_eq!(differs.is_some(), inputs == "j", "{differs:?}");
            }
            refused => panic!("{refused:?}"),
        }
    }
    // An id that is taken uses up no key.
    let taken = begin(other.as_ref(), "r1", terms(&[], Some(key("l", "i")))).await;
    assert!(matches!(
        taken.err().unwrap(),
        NotBegun::Journal(JournalError::SequenceTaken { .. })
    ));
    assert_eq!(other.keyed("l").await.unwrap(), None);
    drop(begin(other.as_ref(), "r2", terms(&[], Some(key("l", "i")))).await);
    let runs = journal.runs().await.unwrap();
    let keys: Vec<_> = runs.iter().map(|run| run.key.as_deref()).collect();
    assert_eq!(keys, [Some("l"), Some("k")]);
    drop((journal, other));
    let reopened = open();
    let kept = reopened.keyed("k").await.unwrap().unwrap();
    assert_eq!((kept.run.as_str(), kept.of), ("r1", key("k", "i").of));
}

/// However many start by one key at once: one run begins, and all others hear of it.
pub async fn many_starts_by_one_key(open: Open<'_>) {
    let handles: Vec<_> = (0..4).map(|_| open()).collect();
    let starts = (0..40_usize).map(|n| {
        let journal = handles[n % handles.len()].clone();
        async move {
            let run = format!("r{n}");
            let begun = begin(journal.as_ref(), &run, terms(&["a"], Some(key("k", "i")))).await;
            match begun {
                Ok(_) => (true, run),
                Err(NotBegun::KeyUsed { first, .. }) => (false, first.run),
                Err(refused) => panic!("{refused:?}"),
            }
        }
    });
    let told = futures_util::future::join_all(starts).await;
    let begun: Vec<&String> = told
        .iter()
        .filter(|(begun, _)| *begun)
        .map(|(_, run)| run)
        .collect();
    assert_eq!(begun.len(), 1);
    assert!(told.iter().all(|(_, run)| run == begun[0]), "{told:?}");
    let runs = handles[0].runs().await.unwrap();
    assert_eq!(runs.len(), 1);
}

fn refusal(second: i64) -> RefusedStart {
    RefusedStart {
        at: at(second),
        playbook: "nightly-check".to_owned(),
        environment: "prod".to_owned(),
        by: "dana".to_owned(),
        account: None,
        key: (second % 2 == 0).then(|| format!("k{second}")),
        refused_by: RefusedBy::Window,
        why: "outside of \"Mon-Fri\"".to_owned(),
    }
}

/// A refused start is kept beside the runs, and the oldest make way.
pub async fn refused_starts_are_no_runs(open: Open<'_>) {
    let (journal, other) = (open(), open());
    create(journal.as_ref(), "r1").await;
    assert_eq!(journal.refused().await.unwrap(), []);
    journal.refuse(refusal(1)).await.unwrap();
    other.refuse(refusal(2)).await.unwrap();
    assert_eq!(journal.refused().await.unwrap(), [refusal(2), refusal(1)]);
    assert_eq!(journal.runs().await.unwrap().len(), 1);
    let more = (3..=i64::try_from(REFUSED_KEPT).unwrap() + 5).map(|n| journal.refuse(refusal(n)));
    for kept in futures_util::future::join_all(more).await {
        kept.unwrap();
    }
    let kept = journal.refused().await.unwrap();
    assert_eq!(kept.len() as u64, REFUSED_KEPT);
    assert!(!kept.contains(&refusal(5)) && kept.contains(&refusal(6)));
}

/// A run ended when it ended: what is refused later is in its chain, and moves neither its end nor its state.
pub async fn what_comes_after_the_end_does_not_move_it(open: Open<'_>) {
    let journal = open();
    let lease = create(journal.as_ref(), "r1").await;
    let mut end = finished(Outcome::Succeeded);
    end.at = at(3);
    let appended = journal.append(lease.as_ref(), 2, vec![end], "succeeded");
    appended.await.unwrap();
    journal.submit(command("c1", "r1")).await.unwrap();
    let after = vec![refused("c1")];
    let appended = journal.append(lease.as_ref(), 3, after, "succeeded");
    appended.await.unwrap();
    let run = journal.runs().await.unwrap().remove(0);
    assert_eq!((run.updated_at, run.events), (at(3), 3));
    // Opened again and ended once more, it has a new end.
    let again = vec![step(7), finished(Outcome::Compensated)];
    let appended = journal.append(lease.as_ref(), 4, again, "compensated");
    appended.await.unwrap();
    let run = journal.runs().await.unwrap().remove(0);
    assert_eq!(run.updated_at, at(90));
}
