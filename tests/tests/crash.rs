//! Crash simulation: random graphs, and the death of the process before and after every append.
//!
//! The world outside is a set of committed effects. Whatever happens: every effect at most once, nothing
//! undone that was not done, dependents undone first, every prefix recovers.
#![expect(
    clippy::unwrap_used,
    reason = "what a test shares may panic as the test may"
)]
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock, Mutex},
};
use windlass_engine::{
    graph::Graph,
    journal::{Fault, Journal, MemoryJournal},
    machine::{Holder, Machine, NodeState, Outcome, RunState},
    run::{DriveOptions, Driver, Ended, NewRun},
    step::{
        Cause, Effect, Failure, Fidelity, Kind, Mark, Outcome as StepOutcome, ParamError, Phase,
        Preview, PreviewContext, Probed, Redo, Registry, Resume, Step, StepContext, StepKind,
        StepTraits, UndoSupport,
    },
    value::Value,
};

/// One attempt: run, node, phase, number.
type Attempt = (String, String, Phase, u32);

/// Committed effects in order: (run, node, phase).
static WORLD: LazyLock<Mutex<Vec<(String, String, Phase)>>> = LazyLock::new(Mutex::default);
/// Attempts that were asked about and told as not done: they must never commit.
static VOID: LazyLock<Mutex<HashMap<Attempt, bool>>> = LazyLock::new(Mutex::default);

#[derive(Deserialize, JsonSchema)]
struct Params {
    #[serde(default)]
    fail: bool,
    #[serde(default)]
    busy: u32,
}
struct Act(Params);
struct ActKind;

impl StepKind for ActKind {
    const NAME: &'static str = "sim.act";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::ProbeFirst,
        marks: true,
        captures: true,
        undo: UndoSupport::Auto,
        fidelity: Fidelity::Simulated,
        skippable: true,
    };
    const EXAMPLE: &'static str = "fail: false";
    type Params = Params;
    type Step = Act;
    fn prepare(params: Params) -> Result<Act, Vec<ParamError>> {
        Ok(Act(params))
    }
}

fn key(cx: &StepContext) -> Attempt {
    (cx.run.id.clone(), cx.node.to_string(), cx.phase, cx.attempt)
}

fn commit(cx: &StepContext) -> Result<(), Failure> {
    let mut void = VOID.lock().unwrap();
    if void.insert(key(cx), true) == Some(false) {
        return Err(Failure::new("sim.void", "told as not done already"));
    }
    WORLD
        .lock()
        .unwrap()
        .push((cx.run.id.clone(), cx.node.to_string(), cx.phase));
    Ok(())
}

impl Step for Act {
    type Capture = String;
    type State = ();
    type Output = i64;

    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Ok(Preview::new(Fidelity::Simulated, "acts"))
    }
    async fn capture(&self, _: &StepContext) -> Result<String, Failure> {
        Ok("before".to_owned())
    }
    async fn execute(
        &self,
        capture: &String,
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<StepOutcome<i64, ()>, Failure> {
        assert_eq!(capture, "before", "captured before it acts");
        if self.0.fail {
            return Err(Failure::new("sim.failed", "told to fail"));
        }
        if cx.attempt <= self.0.busy {
            return Err(Failure::new("sim.busy", "not yet").cause(Cause::Deadlock));
        }
        tokio::task::yield_now().await;
        cx.point_of_no_return(Mark {
            token: Value::Null,
            capture: None,
            output: Value::Int(7),
        })
        .await?;
        commit(cx)?;
        tokio::task::yield_now().await;
        Ok(StepOutcome::Done(7))
    }
    async fn probe(
        &self,
        _: &String,
        mark: Option<&Mark>,
        cx: &StepContext,
    ) -> Result<Probed<i64>, Failure> {
        assert!(mark.is_some(), "only what was marked is asked about");
        let mut void = VOID.lock().unwrap();
        let done = *void.entry(key(cx)).or_insert(false);
        Ok(if done {
            Probed::Done(None)
        } else {
            Probed::NotDone
        })
    }
    async fn undo(
        &self,
        capture: &String,
        _: Option<&i64>,
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<StepOutcome<(), ()>, Failure> {
        assert_eq!(capture, "before");
        // Twice is as good as once: only the first counts.
        let entry = (cx.run.id.clone(), cx.node.to_string(), Phase::Undo);
        let mut world = WORLD.lock().unwrap();
        if !world.contains(&entry) {
            world.push(entry);
        }
        Ok(StepOutcome::Done(()))
    }
}

struct Random(u64);
impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A random graph: needs at random, retries, a foreach, perhaps a step that fails.
fn graph(seed: u64) -> Arc<Graph> {
    let mut random = Random(seed.wrapping_mul(977).wrapping_add(13));
    let count = 2 + random.below(6);
    let failing = random.below(count * 2);
    let mut nodes = Vec::new();
    for index in 0..count {
        let needs: Vec<u64> = (0..index).filter(|_| random.below(3) == 0).collect();
        let mut node = json!({
            "id": format!("s{index}"), "place": {"source": 0, "line": 1, "column": 1}, "needs": needs,
            "body": {"step": {
                "action": {
                    "kind": "sim.act", "traits": ActKind::TRAITS,
                    "with": {"literal": {"fail": index == failing, "busy": random.below(2)}},
                    "retry": {"attempts": 20, "backoff": "constant", "delay": "1ms", "max_delay": "1ms"},
                },
                "undo": {"auto": {}}, "skippable": true,
            }},
        });
        if random.below(4) == 0 && index != failing {
            node["foreach"] = json!({
                "items": "[1, 2, 3]", "name": "n", "max_parallel": 1 + random.below(3), "max_failures": {"count": 0},
            });
        }
        nodes.push(node);
    }
    let steps: Vec<u64> = (0..count).collect();
    let tail = json!({
        "id": "tail", "place": {"source": 0, "line": 1, "column": 1}, "in_finally": true,
        "body": {"step": {
            "action": {"kind": "sim.act", "traits": ActKind::TRAITS, "with": {"literal": {}},
                "retry": {"attempts": 20, "backoff": "constant", "delay": "1ms", "max_delay": "1ms"}},
            "undo": "none", "skippable": true,
        }},
    });
    nodes.push(tail);
    let whole: Json = json!({
        "format": 1, "playbook": "sim", "sources": [], "targets": {}, "policy": {}, "nodes": nodes,
        "root": {"playbook": "sim", "steps": steps, "finally": [count]},
    });
    Arc::new(serde_json::from_value(whole).unwrap())
}

/// A death is the end of a driver: it does not take the run again.
const DYING: DriveOptions = DriveOptions {
    leave_when_waiting: false,
    even_if_changed: false,
    die_with_journal: true,
};

fn driver(journal: &Arc<MemoryJournal>) -> Driver {
    let registry = Arc::new(Registry::new(vec![Kind::of::<ActKind>()], Vec::new()));
    let since = windlass_engine::value::Timestamp::UNIX_EPOCH;
    let holder = Holder {
        user: "ana".to_owned(),
        account: None,
        host: "here".to_owned(),
        pid: 1,
        since,
    };
    Driver::new(journal.clone(), registry, holder)
}

fn new_run(graph: &Arc<Graph>) -> NewRun {
    NewRun {
        graph: graph.clone(),
        inputs: Value::map::<&str>([]),
        targets: indexmap::IndexMap::new(),
        environment: "sim".to_owned(),
        approvers: indexmap::IndexMap::new(),
        by: "ana".to_owned(),
        digest: None,
    }
}

/// What must hold of a run that is over.
async fn judge(journal: &MemoryJournal, run: &str, graph: &Graph, what: &str) {
    let events = journal.load(run, 1).await.unwrap();
    let machine = Machine::recover(&events).unwrap();
    let RunState::Finished(outcome) = machine.state() else {
        panic!("{what}: {:?}", machine.state())
    };
    for cut in 1..=events.len() {
        Machine::recover(events.get(..cut).unwrap())
            .unwrap_or_else(|e| panic!("{what}: prefix {cut}: {e}"));
    }
    let mut effects: BTreeMap<(String, Phase), usize> = BTreeMap::new();
    let mut order = Vec::new();
    for (id, node, phase) in WORLD.lock().unwrap().iter() {
        if id == run {
            *effects.entry((node.clone(), *phase)).or_default() += 1;
            order.push((node.clone(), *phase));
        }
    }
    assert!(
        effects.values().all(|count| *count == 1),
        "{what}: an effect twice: {effects:?}"
    );
    for instance in machine.instances().filter(|i| i.children.is_empty()) {
        let done = effects.contains_key(&(instance.path.to_string(), Phase::Do));
        let undone = effects.contains_key(&(instance.path.to_string(), Phase::Undo));
        let expected = match instance.state {
            NodeState::Succeeded => (true, false),
            NodeState::Undone => (true, true),
            NodeState::Pending | NodeState::Failed | NodeState::Skipped | NodeState::Ended => {
                (false, false)
            }
            other => panic!("{what}: {} is {other:?} at the end", instance.path),
        };
        assert_eq!((done, undone), expected, "{what}: {}", instance.path);
        if outcome == Outcome::Compensated && instance.path.as_ref() != "tail" {
            assert_ne!(
                instance.state,
                NodeState::Succeeded,
                "{what}: {} is left",
                instance.path
            );
        }
    }
    // Dependents are undone before what they need, and done after it.
    for node in &graph.nodes {
        for need in &node.needs {
            let need = &graph.node(*need).id;
            let is = |path: &str, id: &str| path == id || path.starts_with(&format!("{id}["));
            let last = |id: &str, phase| order.iter().rposition(|(n, p)| is(n, id) && *p == phase);
            let first = |id: &str, phase| order.iter().position(|(n, p)| is(n, id) && *p == phase);
            if let (Some(a), Some(b)) = (last(need, Phase::Do), first(&node.id, Phase::Do)) {
                assert!(a < b, "{what}: {} before {need}", node.id);
            }
            if let (Some(a), Some(b)) = (last(&node.id, Phase::Undo), first(need, Phase::Undo)) {
                assert!(a < b, "{what}: {need} undone before {}", node.id);
            }
        }
    }
    assert_eq!(
        order.last().map(|(node, _)| node.as_str()),
        Some("tail"),
        "{what}: finally comes last"
    );
}

#[tokio::test]
async fn death_before_and_after_every_append() {
    let mut crashes = 0;
    for seed in 0..30 {
        let graph = graph(seed);
        for fault in [Fault::Before, Fault::After] {
            // Write 1 is the run's creation; without it there is no run.
            for write in 2..400 {
                let what = format!("seed {seed}, write {write}, {fault:?}");
                let mut journal = Arc::new(MemoryJournal::new());
                journal.die_at(write, fault);
                let mut handle = driver(&journal)
                    .start(new_run(&graph), DYING)
                    .await
                    .unwrap();
                let run = handle.id.clone();
                match handle.ended().await {
                    Ok(ended) => {
                        assert!(matches!(ended, Ended::Finished(_)), "{what}: {ended:?}");
                        judge(&journal, &run, &graph, &what).await;
                        break;
                    }
                    Err(_) => crashes += 1,
                }
                // The process is gone; what is durable is all that is left. It may die once more on the way.
                journal = Arc::new(MemoryJournal::from_snapshot(&journal.snapshot()));
                journal.die_at(journal.writes() + 3, fault);
                let again = match driver(&journal).resume(&run, DYING).await {
                    Ok(mut handle) => handle.ended().await.ok(),
                    Err(_) => None,
                };
                if again.is_none() {
                    journal = Arc::new(MemoryJournal::from_snapshot(&journal.snapshot()));
                    let finished = Machine::recover(&journal.load(&run, 1).await.unwrap()).unwrap();
                    if finished.finished().is_none() {
                        let mut handle = driver(&journal).resume(&run, DYING).await.unwrap();
                        let ended = handle.ended().await.unwrap();
                        assert!(matches!(ended, Ended::Finished(_)), "{what}: {ended:?}");
                    }
                }
                judge(&journal, &run, &graph, &what).await;
            }
        }
    }
    assert!(crashes > 500, "only {crashes} crashes were simulated");
}
