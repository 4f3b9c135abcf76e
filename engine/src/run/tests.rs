//! The driver and the machine together, over a journal in memory and kinds that only record.
mod recovery;

use super::{DriveOptions, Driver, Ended, NewRun, RunError};
use crate::{
    graph::Graph,
    journal::{Journal, MemoryJournal, PrintedOf, RefusedBy},
    machine::{Command, EventBody, Holder, Machine, NodeState, Outcome, Submitted},
    step::{
        ApprovalRequest, Cause, Effect, Failure, Identity, Kind, Outcome as StepOutcome, Preview,
        PreviewContext, Redo, Registry, Resume, Step, StepContext, StepKind, StepTraits, Stream,
        Target, TargetKind, UndoSupport, Wait, WaitOn, Woken,
    },
    value::Value,
};
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::{Arc, LazyLock, Mutex};

/// What steps did, by run and in order.
static DONE: LazyLock<Mutex<Vec<String>>> = LazyLock::new(Mutex::default);

fn done(run: &str) -> Vec<String> {
    DONE.lock()
        .unwrap()
        .iter()
        .filter_map(|line| line.strip_prefix(&format!("{run} ")).map(str::to_owned))
        .collect()
}

/// Records what it does; fails as told.
#[derive(Deserialize, JsonSchema)]
struct NoteParams {
    #[serde(default)]
    fail_until: u32,
    #[serde(default)]
    fail: bool,
    #[serde(default)]
    fail_undo: bool,
    #[serde(default)]
    says: String,
}
struct Note(NoteParams);
struct NoteKind;

impl StepKind for NoteKind {
    const NAME: &'static str = "test.note";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::AskOperator,
        marks: false,
        captures: false,
        undo: UndoSupport::Auto,
        ..StepTraits::READ_ONLY
    };
    const EXAMPLE: &'static str = "fail: false";
    type Params = NoteParams;
    type Step = Note;
    fn prepare(params: NoteParams) -> Result<Note, Vec<crate::step::ParamError>> {
        Ok(Note(params))
    }
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
struct NoteOutput {
    n: i64,
}

impl Step for Note {
    type Capture = ();
    type State = ();
    type Output = NoteOutput;
    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Ok(Preview::new(crate::step::Fidelity::Simulated, "notes"))
    }
    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<StepOutcome<NoteOutput, ()>, Failure> {
        if !self.0.says.is_empty() {
            // Parted in the middle of the line, and without its end.
            let (one, two) = self.0.says.split_at(self.0.says.len() / 2);
            cx.print(Stream::Stdout, one);
            cx.print(Stream::Stdout, two);
        }
        if self.0.fail {
            return Err(Failure::new("test.failed", "told to fail"));
        }
        if cx.attempt < self.0.fail_until {
            return Err(Failure::new("test.busy", "not yet").cause(Cause::LockTimeout));
        }
        DONE.lock()
            .unwrap()
            .push(format!("{} +{}", cx.run.id, cx.node));
        Ok(StepOutcome::Done(NoteOutput {
            n: i64::from(cx.attempt),
        }))
    }
    async fn undo(
        &self,
        (): &(),
        _: Option<&NoteOutput>,
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<StepOutcome<(), ()>, Failure> {
        if self.0.fail_undo {
            return Err(Failure::new("test.undo_failed", "told to fail"));
        }
        DONE.lock()
            .unwrap()
            .push(format!("{} -{}", cx.run.id, cx.node));
        Ok(StepOutcome::Done(()))
    }
}

/// Asks people.
#[derive(Deserialize, JsonSchema)]
struct AskParams {}
struct Ask;
struct AskKind;

impl StepKind for AskKind {
    const NAME: &'static str = "test.ask";
    const TRAITS: StepTraits = StepTraits {
        skippable: false,
        ..StepTraits::READ_ONLY
    };
    const EXAMPLE: &'static str = "{}";
    type Params = AskParams;
    type Step = Ask;
    fn prepare(AskParams {}: AskParams) -> Result<Ask, Vec<crate::step::ParamError>> {
        Ok(Ask)
    }
}

impl Step for Ask {
    type Capture = ();
    type State = ();
    type Output = Value;
    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Ok(Preview::new(crate::step::Fidelity::Simulated, "asks"))
    }
    async fn execute(
        &self,
        (): &(),
        resume: Resume<()>,
        _: &StepContext,
    ) -> Result<StepOutcome<Value, ()>, Failure> {
        match resume.woken {
            Some(Woken::Decision(decision)) if decision.approved => {
                Ok(StepOutcome::Done(Value::Bool(true)))
            }
            Some(_) => Err(Failure::new("approval.rejected", "rejected").cause(Cause::Refused)),
            None => Ok(StepOutcome::Suspend {
                state: (),
                wait: Wait {
                    on: WaitOn::Approval(Box::new(ApprovalRequest {
                        prompt: "go on?".to_owned(),
                        groups: vec!["dba".to_owned()],
                        quorum: 1,
                        separation_of_duties: true,
                        show: Value::Null,
                        shown_hash: "hash".to_owned(),
                        ask: indexmap::IndexMap::new(),
                    })),
                    deadline: None,
                    wall: None,
                },
            }),
        }
    }
}

/// A server that nobody may use: its url says why.
struct Server;

impl TargetKind for Server {
    fn name(&self) -> &'static str {
        "server"
    }
    fn identify<'a>(
        &'a self,
        _: &'a Target,
        url: &'a str,
    ) -> BoxFuture<'a, Result<Identity, Failure>> {
        let cause = match url {
            "down" => Cause::ConnectionLost,
            _ => Cause::Refused,
        };
        Box::pin(async move { Err(Failure::new("test.server", url).cause(cause)) })
    }
}

fn registry() -> Arc<Registry> {
    Arc::new(Registry::new(
        vec![Kind::of::<NoteKind>(), Kind::of::<AskKind>()],
        vec![Arc::new(Server)],
    ))
}

fn step(
    id: &str,
    kind: &str,
    needs: &[u32],
    with: serde_json::Value,
    more: serde_json::Value,
) -> serde_json::Value {
    let kinds = registry();
    let traits = kinds.kind(kind).unwrap().traits;
    let undo = if kind == "test.note" {
        json!({"auto": {}})
    } else {
        json!("none")
    };
    let mut def = json!({
        "action": {"kind": kind, "traits": traits, "with": {"literal": with}},
        "undo": undo,
        "skippable": true,
    });
    let mut node =
        json!({ "id": id, "place": {"source": 0, "line": 1, "column": 1}, "needs": needs });
    for (key, value) in more.as_object().unwrap() {
        if key == "retry" {
            def["action"]["retry"] = value.clone();
        } else {
            node[key] = value.clone();
        }
    }
    node["body"] = json!({ "step": def });
    node
}

fn graph(
    nodes: Vec<serde_json::Value>,
    steps: &[u32],
    finally: &[u32],
    policy: serde_json::Value,
) -> Arc<Graph> {
    let graph = json!({
        "format": 1, "playbook": "test", "sources": [], "targets": {}, "policy": policy, "nodes": nodes,
        "root": {"playbook": "test", "steps": steps, "finally": finally},
    });
    Arc::new(serde_json::from_value(graph).unwrap())
}

fn holder() -> Holder {
    Holder {
        user: "ana".to_owned(),
        account: None,
        host: "here".to_owned(),
        pid: 1,
        since: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
}

fn new_run(graph: Arc<Graph>) -> NewRun {
    NewRun {
        graph,
        inputs: Value::map::<&str>([]),
        targets: indexmap::IndexMap::new(),
        environment: "test".to_owned(),
        approvers: [("dba".to_owned(), vec!["ana".to_owned(), "bruno".to_owned()])].into(),
        by: "ana".to_owned(),
        digest: None,
    }
}

async fn run(graph: Arc<Graph>) -> (Arc<MemoryJournal>, String, Ended, Machine) {
    let journal = Arc::new(MemoryJournal::new());
    let driver = Driver::new(journal.clone(), registry(), holder());
    let mut handle = driver
        .start(new_run(graph), DriveOptions::default())
        .await
        .unwrap();
    let ended = handle.ended().await.unwrap();
    let events = journal.load(&handle.id, 1).await.unwrap();
    // Live equals replay.
    let machine = Machine::recover(&events).unwrap();
    (journal, handle.id.clone(), ended, machine)
}

#[tokio::test]
async fn a_chain_runs_in_order() {
    let nodes = vec![
        step("a", "test.note", &[], json!({}), json!({})),
        step("b", "test.note", &[0], json!({}), json!({})),
        step("c", "test.note", &[1], json!({}), json!({})),
    ];
    let (_, id, ended, machine) = run(graph(nodes, &[0, 1, 2], &[], json!({}))).await;
    assert_eq!(ended, Ended::Finished(Outcome::Succeeded));
    assert_eq!(done(&id), ["+a", "+b", "+c"]);
    assert!(machine.instances().all(|i| i.state == NodeState::Succeeded));
}

#[tokio::test]
async fn a_failure_undoes_in_reverse_and_finally_runs() {
    let nodes = vec![
        step("a", "test.note", &[], json!({}), json!({})),
        step("b", "test.note", &[0], json!({}), json!({})),
        step("c", "test.note", &[1], json!({"fail": true}), json!({})),
        step(
            "tell",
            "test.note",
            &[],
            json!({}),
            json!({"in_finally": true}),
        ),
    ];
    let (_, id, ended, machine) = run(graph(nodes, &[0, 1, 2], &[3], json!({}))).await;
    assert_eq!(ended, Ended::Finished(Outcome::Compensated));
    assert_eq!(done(&id), ["+a", "+b", "-b", "-a", "+tell"]);
    assert_eq!(machine.instance("c").unwrap().state, NodeState::Failed);
    assert_eq!(machine.instance("a").unwrap().state, NodeState::Undone);
}

#[tokio::test]
async fn a_failed_undo_is_stuck_until_a_person_settles_it() {
    let nodes = vec![
        step("a", "test.note", &[], json!({}), json!({})),
        step(
            "b",
            "test.note",
            &[0],
            json!({"fail_undo": true}),
            json!({}),
        ),
        step("c", "test.note", &[1], json!({"fail": true}), json!({})),
    ];
    let (journal, id, ended, machine) = run(graph(nodes, &[0, 1, 2], &[], json!({}))).await;
    assert_eq!(ended, Ended::Stuck);
    assert_eq!(done(&id), ["+a", "+b"], "a is not undone before b");
    assert_eq!(machine.instance("b").unwrap().state, NodeState::UndoFailed);
    let resolve = Command::Resolve {
        node: "b".to_owned(),
        done: true,
        output: Value::Null,
        because: "done by hand".to_owned(),
    };
    assert_eq!(
        order(&journal, &id, "bruno", resolve).await,
        Ended::Finished(Outcome::Compensated)
    );
    assert_eq!(done(&id), ["+a", "+b", "-a"]);
}

/// Submits a command and drives the run with it.
async fn order(journal: &Arc<MemoryJournal>, run: &str, who: &str, command: Command) -> Ended {
    journal
        .submit(Submitted {
            id: uuid::Uuid::now_v7().to_string(),
            run: run.to_owned(),
            who: who.to_owned(),
            account: None,
            at: crate::run::Clock::now(&crate::run::SystemClock),
            command,
        })
        .await
        .unwrap();
    let driver = Driver::new(journal.clone(), registry(), holder());
    let options = DriveOptions {
        leave_when_waiting: true,
        ..DriveOptions::default()
    };
    let mut handle = driver.resume(run, options).await.unwrap();
    handle.ended().await.unwrap()
}

#[tokio::test]
async fn a_passing_cause_is_retried_and_a_permanent_one_is_not() {
    let retry = json!({"retry": {"attempts": 3, "backoff": "constant", "delay": "5ms", "max_delay": "5ms"}});
    let nodes = vec![step(
        "a",
        "test.note",
        &[],
        json!({"fail_until": 3}),
        retry.clone(),
    )];
    let (_, _, ended, machine) = run(graph(nodes, &[0], &[], json!({}))).await;
    assert_eq!(ended, Ended::Finished(Outcome::Succeeded));
    assert_eq!(machine.instance("a").unwrap().forward.attempt, 3);
    let nodes = vec![step("a", "test.note", &[], json!({"fail": true}), retry)];
    let (_, _, ended, machine) = run(graph(nodes, &[0], &[], json!({"on_failure": "stop"}))).await;
    assert_eq!(ended, Ended::Finished(Outcome::Stopped));
    assert_eq!(machine.instance("a").unwrap().forward.attempt, 1);
}

#[tokio::test]
async fn foreach_runs_its_items_and_undoes_them_last_first() {
    let foreach = json!({"foreach": {"items": "[1, 2, 3]", "name": "n", "max_parallel": 1, "max_failures": {"count": 0}}});
    let nodes = vec![
        step("a", "test.note", &[], json!({}), foreach),
        step("b", "test.note", &[0], json!({"fail": true}), json!({})),
    ];
    let (_, id, ended, _) = run(graph(nodes, &[0, 1], &[], json!({}))).await;
    assert_eq!(ended, Ended::Finished(Outcome::Compensated));
    assert_eq!(
        done(&id),
        ["+a[0]", "+a[1]", "+a[2]", "-a[2]", "-a[1]", "-a[0]"]
    );
}

#[tokio::test]
async fn a_tolerated_failure_lets_the_run_go_on_to_failed() {
    let nodes = vec![
        step(
            "a",
            "test.note",
            &[],
            json!({"fail": true}),
            json!({"on_failure": "continue"}),
        ),
        step("b", "test.note", &[0], json!({}), json!({})),
    ];
    let (_, id, ended, _) = run(graph(nodes, &[0, 1], &[], json!({}))).await;
    assert_eq!(ended, Ended::Finished(Outcome::Failed));
    assert_eq!(done(&id), ["+b"]);
}

fn vote(machine: &Machine, digest: Option<&str>) -> Command {
    Command::Vote {
        node: "ok".to_owned(),
        approve: true,
        answers: indexmap::IndexMap::new(),
        reason: None,
        digest: digest.unwrap_or(&machine.started().digest).to_owned(),
        shown_hash: "hash".to_owned(),
    }
}

#[tokio::test]
async fn an_approval_takes_the_right_votes_and_refuses_the_others() {
    let nodes = vec![
        step("ok", "test.ask", &[], json!({}), json!({})),
        step("b", "test.note", &[0], json!({}), json!({})),
    ];
    let journal = Arc::new(MemoryJournal::new());
    let driver = Driver::new(journal.clone(), registry(), holder());
    let options = DriveOptions {
        leave_when_waiting: true,
        ..DriveOptions::default()
    };
    let mut handle = driver
        .start(new_run(graph(nodes, &[0, 1], &[], json!({}))), options)
        .await
        .unwrap();
    assert_eq!(handle.ended().await.unwrap(), Ended::Waiting);
    let id = handle.id.clone();
    let machine = Machine::recover(&journal.load(&id, 1).await.unwrap()).unwrap();
    for (who, digest, why) in [
        ("ana", None, "separation_of_duties"),
        ("eve", None, "none of the groups"),
        ("bruno", Some("another"), "another plan"),
    ] {
        assert_eq!(
            order(&journal, &id, who, vote(&machine, digest)).await,
            Ended::Waiting,
            "{who}"
        );
        let events = journal.load(&id, 1).await.unwrap();
        let refused = events.iter().rev().find_map(|event| match &event.body {
            EventBody::CommandRefused(refused) => Some(refused.reason.clone()),
            _ => None,
        });
        assert!(
            refused.as_ref().is_some_and(|reason| reason.contains(why)),
            "{who}: {refused:?}"
        );
    }
    let ended = order(&journal, &id, "bruno", vote(&machine, None)).await;
    assert_eq!(ended, Ended::Finished(Outcome::Succeeded));
    assert_eq!(done(&id), ["+b"]);
}

#[tokio::test]
async fn every_prefix_of_a_run_recovers_to_the_same_decisions() {
    let nodes = vec![
        step("a", "test.note", &[], json!({}), json!({})),
        step("b", "test.note", &[0], json!({}), json!({})),
        step("c", "test.note", &[1], json!({"fail": true}), json!({})),
    ];
    let (journal, id, ..) = run(graph(nodes, &[0, 1, 2], &[], json!({}))).await;
    let events = journal.load(&id, 1).await.unwrap();
    for cut in 1..=events.len() {
        let prefix = events.get(..cut).unwrap();
        let machine = Machine::recover(prefix).unwrap();
        assert_eq!(machine.seq(), cut as u64);
        if let Some(next) = machine.next_event(events.get(cut - 1).unwrap().at) {
            let written = events
                .get(cut)
                .map(|event| std::mem::discriminant(&event.body));
            assert_eq!(
                Some(std::mem::discriminant(&next.body)),
                written,
                "after {cut} events"
            );
        }
    }
}

#[tokio::test]
async fn two_drivers_never_drive_one_run() {
    let nodes = vec![step("ok", "test.ask", &[], json!({}), json!({}))];
    let journal = Arc::new(MemoryJournal::new());
    let driver = Driver::new(journal.clone(), registry(), holder());
    let handle = driver
        .start(
            new_run(graph(nodes, &[0], &[], json!({}))),
            DriveOptions::default(),
        )
        .await
        .unwrap();
    let error = driver
        .resume(&handle.id, DriveOptions::default())
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("is driven by ana"), "{error}");
    handle.stop();
}

/// Whoever sees the end of an attempt finds what it printed, of each attempt.
#[tokio::test]
async fn what_is_printed_is_durable_before_the_end_is() {
    let retry = json!({"attempts": 3, "backoff": "constant", "delay": "1ms", "max_delay": "1ms"});
    let says = json!({"says": "one line and a rest", "fail_until": 2});
    let nodes = vec![step("a", "test.note", &[], says, json!({ "retry": retry }))];
    let journal = Arc::new(MemoryJournal::new());
    let driver = Driver::new(journal.clone(), registry(), holder());
    let mut handle = driver
        .start(
            new_run(graph(nodes, &[0], &[], json!({}))),
            DriveOptions::default(),
        )
        .await
        .unwrap();
    let mut ends = 0;
    while let Some((_, event)) = handle.events.recv().await {
        if matches!(event.body, EventBody::Failed(_) | EventBody::Succeeded(_)) {
            ends += 1;
            let printed = journal
                .printed(&handle.id, PrintedOf::after(0))
                .await
                .unwrap();
            let of: Vec<(u32, &str)> = printed
                .iter()
                .filter(|one| one.attempt == ends)
                .map(|one| (one.attempt, one.text.as_str()))
                .collect();
            assert_eq!(of, [(ends, "one line and a rest")]);
        }
    }
    assert_eq!(ends, 2);
    assert_eq!(
        handle.ended().await.unwrap(),
        Ended::Finished(Outcome::Succeeded)
    );
}

/// A rate is told once enough is known, of the time in which a process drove, and a loop that stalls is slower and slower.
#[tokio::test]
async fn a_rate_is_honest() {
    use crate::{report::progress, value::Duration};
    let items: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let foreach = json!({"foreach": {
        "items": format!("[{}]", items.join(", ")), "name": "n", "max_parallel": 1, "max_failures": {"count": 0},
    }});
    let nodes = vec![step("a", "test.note", &[], json!({}), foreach)];
    let (journal, id, _, _) = run(graph(nodes, &[0], &[], json!({}))).await;
    let events = journal.load(&id, 1).await.unwrap();
    let done = |machine: &Machine| {
        progress::of(
            machine,
            machine.instance("a").unwrap(),
            None,
            machine.last_at(),
        )
        .done
    };
    // The run as it was with ten items done and one that runs.
    let machine = (1..events.len())
        .map(|n| Machine::recover(&events[..n]).unwrap())
        .filter(|machine| {
            machine
                .instance("a")
                .is_some_and(|one| !one.children.is_empty())
        })
        .find(|machine| {
            done(machine) == 10 && machine.instance("a[10]").unwrap().started_at.is_some()
        })
        .unwrap();
    let of = |since, seconds| {
        let now = Duration::from_secs(seconds).after(machine.last_at());
        progress::of(&machine, machine.instance("a").unwrap(), since, now)
    };
    let start = machine.started().run.started_at;
    assert_eq!(
        of(Some(start), 0).rate,
        None,
        "too short a time says nothing"
    );
    assert_eq!(of(None, 10).rate, None, "no process drives it");
    // Taken over after the ten were done: nothing is known of the new process yet.
    let later = Duration::from_secs(1).after(machine.last_at());
    assert_eq!(of(Some(later), 100).rate, None);
    let after_10 = of(Some(start), 10);
    assert!(
        (0.9..=1.1).contains(&after_10.rate.unwrap()),
        "{after_10:?}"
    );
    let left = after_10.left.unwrap().as_millis();
    assert!((9_000..=11_000).contains(&left), "{after_10:?}");
    let stalled = of(Some(start), 1_000);
    assert!(stalled.rate.unwrap() < 0.02, "{stalled:?}");
    assert_eq!((stalled.done, stalled.of, stalled.failed), (10, 20, 0));
}

fn locked(policy: serde_json::Value) -> Arc<Graph> {
    let nodes = vec![step("sign_off", "test.ask", &[], json!({}), json!({}))];
    graph(nodes, &[0], &[], policy)
}

/// A start that is refused, by whatever, leaves no run behind, and is kept as what it is.
#[tokio::test]
async fn a_refused_start_is_no_run() {
    let journal = Arc::new(MemoryJournal::new());
    let driver = Driver::new(journal.clone(), registry(), holder());
    let wait = DriveOptions {
        leave_when_waiting: true,
        ..DriveOptions::default()
    };
    let one = driver.start(new_run(locked(json!({"locks": ["l"]}))), wait);
    let mut one = one.await.unwrap();
    assert_eq!(one.ended().await.unwrap(), Ended::Waiting);
    let mut refusals = Vec::new();
    for (policy, target) in [
        (json!({"locks": ["l", "m"]}), None),
        (json!({"windows": []}), Some("standby")),
        (json!({"windows": []}), Some("down")),
    ] {
        let mut new = new_run(locked(policy));
        if let Some(url) = target {
            let server = json!({"name": "t", "kind": "server", "url": url});
            let server = serde_json::from_value(server).unwrap();
            new.targets.insert("t".to_owned(), server);
        }
        let error = driver.start_once(new, Some("k".to_owned()), wait).await;
        refusals.push(error.err().unwrap().to_string());
    }
    // A kind that this build does not have is a mistake in the environment: no rule and no server refused it.
    let mut new = new_run(locked(json!({})));
    let unknown = serde_json::from_value(json!({"name": "t", "kind": "none", "url": "none:"}));
    new.targets.insert("t".to_owned(), unknown.unwrap());
    assert!(driver.start(new, wait).await.is_err());
    assert_eq!(journal.runs().await.unwrap().len(), 1);
    assert_eq!(journal.keyed("k").await.unwrap(), None);
    let mut kept = journal.refused().await.unwrap();
    kept.reverse();
    let told: Vec<_> = kept.iter().map(|start| start.refused_by).collect();
    assert_eq!(
        told,
        [RefusedBy::Lock, RefusedBy::Target, RefusedBy::Unreachable]
    );
    let why: Vec<_> = kept.iter().map(|start| &start.why).collect();
    assert_eq!(why, refusals.iter().collect::<Vec<_>>());
    assert!(kept.iter().all(|start| start.key.as_deref() == Some("k")));
}

/// The key is asked before windows, targets and locks: they may refuse by now what they let pass then.
#[tokio::test]
async fn a_key_is_asked_before_all_that_could_refuse() {
    let journal = Arc::new(MemoryJournal::new());
    let driver = Driver::new(journal.clone(), registry(), holder());
    let wait = DriveOptions {
        leave_when_waiting: true,
        ..DriveOptions::default()
    };
    let key = || Some("k".to_owned());
    let new = || new_run(locked(json!({"locks": ["l"]})));
    let first = driver.start_once(new(), key(), wait).await.unwrap().id;
    let again = driver.start_once(new(), key(), wait).await;
    assert!(
        matches!(again.err().unwrap(), RunError::KeyUsed { run, differs: None, .. } if run == first)
    );
    let mut other = new();
    other.inputs = Value::map([("n", Value::Int(1))]);
    let mut elsewhere = new();
    elsewhere.environment = "prod".to_owned();
    for (new, what) in [(other, "other inputs"), (elsewhere, "another environment")] {
        match driver.start_once(new, key(), wait).await.err().unwrap() {
            RunError::KeyUsed {
                run,
                differs: Some(differs),
                ..
            } => assert!(run == first && differs.contains(what), "{differs}"),
            error => panic!("{error:?}"),
        }
    }
    // Only what is another start is a refusal.
    let kept = journal.refused().await.unwrap();
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().all(|start| start.refused_by == RefusedBy::Key));
    assert_eq!(journal.runs().await.unwrap().len(), 1);
}
