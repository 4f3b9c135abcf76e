//! The state of a run and of each node instance.
use super::event::{NodePath, Outcome, StartCause};
use crate::{
    graph::NodeId,
    step::{Failure, Mark, Phase, Vote, Wait, Woken},
    value::{Timestamp, Value},
};
use std::collections::BTreeMap;

/// Index of an instance in a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u32);

/// The state of a node instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Not started.
    Pending,
    /// An attempt runs, or the group, call or foreach is open.
    Running,
    /// Waits for its next attempt.
    Backoff,
    /// Sleeps until a time or a signal.
    Waiting,
    /// Sleeps until people decide.
    AwaitingApproval,
    /// It is not known whether it took effect.
    InDoubt,
    /// Done.
    Succeeded,
    /// Did not run.
    Skipped,
    /// Failed for good.
    Failed,
    /// Its undo runs (or waits, or is in doubt: see [`Instance::undo`]).
    Undoing,
    /// Undone.
    Undone,
    /// Its undo failed.
    UndoFailed,
}

/// The state of a run as lists and pages show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Something runs or will.
    Running,
    /// Only waits for a time, a signal or people.
    Waiting,
    /// Paused by a person or by a failure.
    Paused,
    /// Undoes what it did.
    Compensating,
    /// An undo failed or a doubt stands; a person is needed.
    Stuck,
    /// Over.
    Finished(Outcome),
}

impl RunState {
    /// The word for people and for the journal's list.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Compensating => "compensating",
            Self::Stuck => "stuck",
            Self::Finished(outcome) => outcome.as_str(),
        }
    }
}

/// One execution of an instance: forward, or undo.
#[derive(Debug, Clone, Default)]
pub struct Execution {
    /// The last attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// Attempts that count against `retry`.
    pub tries: u32,
    /// Which undo step, where the undo has several.
    pub part: u32,
    /// When the first attempt started.
    pub first_started_at: Option<Timestamp>,
    /// When the last attempt started.
    pub started_at: Option<Timestamp>,
    /// When the last attempt is over.
    pub deadline: Option<Timestamp>,
    /// Resolved parameters.
    pub input: Value,
    /// Derived targets as bound for the last attempt.
    pub targets: indexmap::IndexMap<String, crate::step::Target>,
    /// What was captured in the last attempt.
    pub capture: Option<Value>,
    /// The mark of the last attempt.
    pub mark: Option<Mark>,
    /// The last checkpoint.
    pub state: Option<Value>,
    /// What it sleeps on.
    pub wait: Option<Wait>,
    /// What woke it, until the step is called with it.
    pub woken: Option<Woken>,
    /// When the next attempt may start.
    pub not_before: Option<Timestamp>,
    /// Why the next attempt starts.
    pub next_cause: Option<StartCause>,
    /// Why it is in doubt.
    pub doubt: Option<String>,
    /// The last failure.
    pub failure: Option<Failure>,
}

/// A node of the run: a graph node at a path.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its path, such as `fill[17]/copy`; the root's is empty.
    pub path: NodePath,
    /// Its node in the graph; `None` for the root.
    pub def: Option<NodeId>,
    /// The instance around it.
    pub parent: Option<InstanceId>,
    /// Its state.
    pub state: NodeState,
    /// Forward.
    pub forward: Execution,
    /// Undo.
    pub undo: Execution,
    /// What expressions read as its output.
    pub output: Value,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it settled forward.
    pub finished_at: Option<Timestamp>,
    /// Its item, where it is one of a foreach.
    pub item: Option<(u32, Value)>,
    /// Votes on an approval.
    pub votes: Vec<Vote>,
    /// Why it was skipped, in words.
    pub skipped: Option<String>,
    /// Instances inside, by id or item.
    pub children: Vec<InstanceId>,
}

impl Instance {
    /// The execution of a phase.
    #[must_use]
    pub fn execution(&self, phase: Phase) -> &Execution {
        match phase {
            Phase::Do => &self.forward,
            Phase::Undo => &self.undo,
        }
    }
}

/// What is wanted of the driver, level-triggered: it starts what is wanted and not in flight, and cancels
/// what is in flight and not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wanted {
    /// The instance.
    pub instance: InstanceId,
    /// Forward or undo.
    pub phase: Phase,
    /// Which attempt.
    pub attempt: u32,
    /// What.
    pub work: Work,
}

/// Work for the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Read what undo will need, then act.
    Execute,
    /// Ask whether it happened.
    Probe,
}

/// Signals that no wait has taken yet, oldest first, by name.
pub type Signals = BTreeMap<String, Vec<Value>>;
