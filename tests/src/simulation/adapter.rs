//! The only file that knows the machine's interface.
use serde_json::json;
use std::sync::Arc;
use windlass_engine::{
    graph::Graph,
    machine::{
        ClockStepped, Command, Event, EventBody, Holder, LeaseTaken, Machine, NodePath, Outcome,
        Report, Stage, Submitted, Trigger, Wanted, Work,
    },
    step::{Phase, Woken},
    value::{Duration, Timestamp, Value},
};

/// The digest that votes name.
pub(super) const DIGEST: &str = "d";

/// The machine, as the player sees it.
#[derive(Clone, PartialEq)]
pub(super) struct Engine(Machine);

/// What is in flight.
pub(super) type Job = Wanted;

/// What an execution starts with.
#[derive(Debug, Clone)]
pub(super) struct Brief {
    pub path: NodePath,
    pub phase: Phase,
    pub attempt: u32,
    pub part: u32,
    pub probe: bool,
    pub marked: bool,
    pub captured: bool,
    /// The last checkpoint, or what it kept when it went to sleep.
    pub state: Option<Value>,
    pub woken: Option<Woken>,
}

impl Engine {
    pub(super) fn recover(events: &[Event]) -> Result<Self, String> {
        Machine::recover(events)
            .map(Self)
            .map_err(|e| e.to_string())
    }

    pub(super) fn apply(&mut self, event: &Event) -> Result<(), String> {
        self.0.apply(event).map_err(|e| e.to_string())
    }

    pub(super) fn next_event(&self, now: Timestamp) -> Option<Event> {
        self.0.next_event(now)
    }

    pub(super) fn next_wake(&self, sent: Timestamp) -> Option<Event> {
        self.0.next_wake(sent)
    }

    /// Whom the wall clock wakes that was set. `ahead` is how far it is ahead of the time of the run, in milliseconds.
    pub(super) fn woken_by_clock(&self, now: Timestamp, ahead: i64) -> Vec<Event> {
        let of_wall = |at| of_wall(at, ahead);
        self.0.clone().look_at_the_clock(now, of_wall).unwrap()
    }

    pub(super) fn is_held_up(&self) -> bool {
        self.0.is_held_up()
    }

    pub(super) fn command(&self, submitted: &Submitted, now: Timestamp) -> Vec<Event> {
        self.0.command(submitted, now)
    }

    pub(super) fn report(&self, job: &Job, report: Report, now: Timestamp) -> Vec<Event> {
        self.0.report(job, report, now)
    }

    pub(super) fn wanted(&self) -> Vec<Job> {
        self.0.wanted().collect()
    }

    /// What is to end and may never have begun.
    pub(super) fn unwanted(&self) -> Vec<Job> {
        self.0.unwanted().collect()
    }

    pub(super) fn unbegun(&self, job: &Job) -> Report {
        self.0.unbegun(job)
    }

    /// Whether every count and every line of the agenda is what it should be.
    pub(super) fn check(&self) -> Result<(), String> {
        self.0.check()
    }

    pub(super) fn brief(&self, job: &Job) -> Brief {
        let instance = self.0.get(job.instance);
        let execution = instance.execution(job.phase);
        let is_auto = job.phase == Phase::Undo
            && matches!(
                self.0.def(job.instance).map(|node| &node.body),
                Some(windlass_engine::graph::Body::Step(step))
                    if matches!(step.undo, windlass_engine::graph::Undo::Auto { .. })
            );
        Brief {
            path: instance.path.clone(),
            phase: job.phase,
            attempt: job.attempt,
            part: execution.part,
            probe: job.work == Work::Probe,
            marked: execution.mark.is_some(),
            captured: execution.capture.is_some() || is_auto,
            state: execution.state.clone(),
            woken: execution.woken.as_deref().cloned(),
        }
    }

    pub(super) fn finished(&self) -> Option<Outcome> {
        self.0.finished().map(|finished| finished.outcome)
    }

    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.0.next_timer()
    }

    pub(super) fn stage(&self, path: &str, phase: Phase) -> Option<Stage> {
        Some(self.0.instance(path)?.execution(phase).stage())
    }

    pub(super) fn paths(&self) -> Vec<NodePath> {
        self.0.instances().map(|i| i.path.clone()).collect()
    }

    /// What a page would show, and what comes next: equal for machines that are equal.
    pub(super) fn face(&self, now: Timestamp) -> String {
        use std::fmt::Write;
        let machine = &self.0;
        let mut text = String::new();
        for instance in std::iter::once(machine.root()).chain(machine.instances()) {
            writeln!(text, "{instance:?}").unwrap();
        }
        let mut next = machine.next_event(now);
        if let Some(next) = &mut next {
            next.at = Timestamp::UNIX_EPOCH;
        }
        writeln!(
            text,
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {next:?}",
            self.wanted(),
            machine.state(),
            machine.next_timer(),
            machine.paused(),
            machine.cancelled(),
            machine.finished(),
            machine.inputs(),
        )
        .unwrap();
        text
    }
}

/// An instant of the wall clock in the time of the run; small differences are none.
pub(super) fn of_wall(at: Timestamp, ahead: i64) -> Timestamp {
    if ahead.abs() < 1_000 {
        return at;
    }
    Duration::from_millis(-ahead).after(at)
}

/// The wall clock was found elsewhere.
pub(super) fn clock_stepped(now: Timestamp, by: i64, ahead: i64) -> Event {
    let step = ClockStepped {
        by: Duration::from_millis(by),
        wall: Duration::from_millis(ahead).after(now),
    };
    Event {
        at: now,
        body: EventBody::ClockStepped(step),
    }
}

/// The first event of a run.
pub(super) fn started(graph: &Arc<Graph>, at: Timestamp) -> Event {
    let body = json!({"run_started": {
        "format": 1, "graph": &**graph, "targets": {}, "digest": DIGEST, "engine": "0",
        "inputs": Value::map([("open", Value::Bool(false)), ("flag", Value::Bool(true))]),
        "approvers": {"dba": ["bo", "cy", "di"]},
        "run": {"id": "r", "short_id": "r", "playbook": "sim", "environment": "sim", "by": "ana", "started_at": at},
    }});
    Event {
        at,
        body: serde_json::from_value(body).unwrap(),
    }
}

pub(super) fn lease(epoch: u64, at: Timestamp) -> Event {
    let holder = Holder {
        user: "ana".to_owned(),
        account: None,
        host: "here".to_owned(),
        pid: 1,
        since: at,
    };
    Event {
        at,
        body: EventBody::LeaseTaken(Box::new(LeaseTaken {
            epoch,
            holder,
            failovers: indexmap::IndexMap::new(),
            unreachable: indexmap::IndexMap::new(),
        })),
    }
}

/// The command that closes a run, where the machine has it.
pub(super) fn close() -> Option<Command> {
    serde_json::from_value(json!({"close": {"because": "over"}})).ok()
}

pub(super) fn is_close(command: &Command) -> bool {
    stored_name(&serde_json::to_value(command).unwrap()) == "close"
}

/// Whether this event closes the run.
pub(super) fn is_closed(body: &EventBody) -> bool {
    event_name(body) == "closed"
}

fn stored_name(json: &serde_json::Value) -> String {
    match json {
        serde_json::Value::String(name) => name.clone(),
        other => other
            .as_object()
            .and_then(|map| map.keys().next().cloned())
            .unwrap_or_default(),
    }
}

/// The event's name, as it is stored.
pub(super) fn event_name(body: &EventBody) -> String {
    use EventBody as B;
    let name = match body {
        B::RunStarted(_) => "run_started",
        B::Started(_) => "started",
        B::Captured(_) => "captured",
        B::Marked(_) => "marked",
        B::Succeeded(_) => "succeeded",
        B::Failed(_) => "failed",
        other => return stored_name(&serde_json::to_value(other).unwrap()),
    };
    name.to_owned()
}

/// Every transition of the table that an event names. What follows for other nodes from an event about one is not seen here.
pub(super) fn table() -> Vec<(Stage, Trigger)> {
    let follows = [
        Trigger::NextPart,
        Trigger::AskAgain,
        Trigger::Tell,
        Trigger::Announce,
        Trigger::Ask,
        Trigger::Reopen,
        Trigger::Again,
    ];
    let mut all = windlass_engine::machine::transitions();
    all.retain(|(_, trigger)| !follows.contains(trigger));
    all
}
