//! The state of a run and of each node instance.
use super::{
    event::{NodePath, Outcome},
    execution::{At, Execution, Stage},
};
use crate::{
    graph::NodeId,
    step::{Phase, Vote},
    value::{Timestamp, Value},
};
use std::{collections::BTreeMap, sync::Arc};

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
    /// Sleeps until a time or a signal, or waits for its gate or its window.
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
    /// The run ended before it could settle.
    Ended,
    /// Its undo runs (or waits, or is in doubt: see [`Instance::undo`]).
    Undoing,
    /// Undone.
    Undone,
    /// Its undo failed.
    UndoFailed,
}

impl NodeState {
    /// The state of a node of which the executions are there.
    pub(super) fn of(forward: &At, undo: Stage) -> Self {
        match undo {
            // It waits for no attempt.
            Stage::Idle | Stage::Skipped | Stage::Ended
                if matches!(forward, At::Gated | At::Backoff { shut: Some(_), .. }) =>
            {
                Self::Waiting
            }
            Stage::Idle | Stage::Skipped | Stage::Ended => match forward.stage() {
                Stage::Idle => Self::Pending,
                Stage::Running => Self::Running,
                Stage::Backoff => Self::Backoff,
                Stage::Waiting => Self::Waiting,
                Stage::AwaitingApproval => Self::AwaitingApproval,
                Stage::InDoubt => Self::InDoubt,
                Stage::Succeeded => Self::Succeeded,
                Stage::Skipped => Self::Skipped,
                Stage::Failed => Self::Failed,
                Stage::Ended => Self::Ended,
            },
            Stage::Running
            | Stage::Backoff
            | Stage::Waiting
            | Stage::AwaitingApproval
            | Stage::InDoubt => Self::Undoing,
            Stage::Succeeded => Self::Undone,
            Stage::Failed => Self::UndoFailed,
        }
    }

    /// The word for people and for `steps.ID.state`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Waiting => "waiting",
            Self::AwaitingApproval => "awaiting_approval",
            Self::InDoubt => "in_doubt",
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Ended => "ended",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
        }
    }
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

/// A node of the run: a graph node at a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Its path, such as `fill[17]/copy`; the root's is empty.
    pub path: NodePath,
    /// Its node in the graph; `None` for the root.
    pub def: Option<NodeId>,
    /// The instance around it.
    pub parent: Option<InstanceId>,
    /// Its state.
    pub state: NodeState,
    /// Forward. Shared while it is idle: most steps of most runs have not begun.
    pub forward: Arc<Execution>,
    /// Undo.
    pub undo: Arc<Execution>,
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
    /// Instances inside, in the order of the list or of the items; a scope's `finally` comes last.
    pub children: Vec<InstanceId>,
    /// What it is.
    pub role: Role,
    /// Whether it may have changed the world, and has not been undone. A failure without effect has not.
    pub took_effect: bool,
    /// Whether a person did it by hand: no capture was read.
    pub by_hand: bool,
    /// The scope that it is in; the root's is itself.
    pub(super) scope: InstanceId,
    /// Its place in its parent's list.
    pub(super) position: u32,
    pub(super) in_finally: bool,
    /// Foreach: its items are there, even if there are none.
    pub(super) expanded: bool,
    /// When it started, among all starts of the run: items are undone in the reverse order.
    pub(super) start_order: u64,
    /// The scope whose compensation or clean-up undid it.
    pub(super) undone_by: Option<InstanceId>,
}

impl Instance {
    pub(super) fn execution_mut(&mut self, phase: Phase) -> &mut Execution {
        match phase {
            Phase::Do => Arc::make_mut(&mut self.forward),
            Phase::Undo => Arc::make_mut(&mut self.undo),
        }
    }

    /// The execution of a phase.
    #[must_use]
    pub fn execution(&self, phase: Phase) -> &Execution {
        match phase {
            Phase::Do => &self.forward,
            Phase::Undo => &self.undo,
        }
    }
}

/// What an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The run itself.
    Root,
    /// The list of items of a foreach.
    Foreach,
    /// A group, or one item of a foreach over a group.
    Group,
    /// A call of another playbook.
    Call,
    /// A step.
    Step,
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
