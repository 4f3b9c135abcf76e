//! The state of a run and of each node instance.
use super::event::{NodePath, Outcome, StartCause};
use crate::{
    graph::NodeId,
    step::{Failure, Mark, Phase, Vote, Wait, Woken},
    value::{Timestamp, Value},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

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

/// Where one execution of an instance stands. Forward and undo go through the same stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Not started.
    #[default]
    Idle,
    /// An attempt runs, or the group, call or foreach is open.
    Running,
    /// Waits for its next attempt, or for its gate.
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
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 9] = [
        Self::Idle,
        Self::Running,
        Self::Backoff,
        Self::Waiting,
        Self::AwaitingApproval,
        Self::InDoubt,
        Self::Succeeded,
        Self::Skipped,
        Self::Failed,
    ];

    /// Whether it sleeps: nothing is in flight, and something may wake it.
    #[must_use]
    pub fn is_asleep(self) -> bool {
        matches!(self, Self::Backoff | Self::Waiting | Self::AwaitingApproval)
    }

    /// Whether it has started and not settled.
    #[must_use]
    pub fn is_active(self) -> bool {
        self.is_asleep() || matches!(self, Self::Running | Self::InDoubt)
    }
}

impl NodeState {
    /// The state of a node whose executions stand so.
    #[must_use]
    pub fn of(forward: Stage, undo: Stage) -> Self {
        match undo {
            Stage::Idle | Stage::Skipped => match forward {
                Stage::Idle => Self::Pending,
                Stage::Running => Self::Running,
                Stage::Backoff => Self::Backoff,
                Stage::Waiting => Self::Waiting,
                Stage::AwaitingApproval => Self::AwaitingApproval,
                Stage::InDoubt => Self::InDoubt,
                Stage::Succeeded => Self::Succeeded,
                Stage::Skipped => Self::Skipped,
                Stage::Failed => Self::Failed,
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

/// One execution of an instance: forward, or undo.
#[derive(Debug, Clone, Default)]
pub struct Execution {
    /// Where it stands.
    pub stage: Stage,
    /// The last attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// The last attempt that is known to have taken effect; 0 if none. It outlives an undo, as `attempt` does.
    pub done_attempt: u32,
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
    /// Instances inside, in the order of the list or of the items; a call's `finally` comes last.
    pub children: Vec<InstanceId>,
    /// What it is.
    pub role: Role,
    /// Whether it, or something inside, may have changed the world (a failure without effect has not).
    pub took_effect: bool,
}

impl Execution {
    /// One that has not begun; all of them are the same one.
    pub(super) fn idle() -> Arc<Self> {
        static IDLE: LazyLock<Arc<Execution>> = LazyLock::new(Arc::default);
        IDLE.clone()
    }
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
