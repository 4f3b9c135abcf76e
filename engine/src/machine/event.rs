//! What a run writes down. Stored formats: a change that old journals would not read needs a new version.
use crate::{
    graph::Graph,
    step::{
        Account, Evidence, Failure, Identity, Mark, Phase, RunInfo, Target, Vote, Wait, Woken,
        shown,
    },
    value::{Timestamp, Value},
};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The version of the stored format of events.
pub const EVENT_FORMAT: u32 = 1;

/// The path of a node instance: `fill`, `fill[17]`, `fill[17]/copy`; the root is empty.
pub type NodePath = Arc<str>;

/// One durable line of the journal. Its sequence number is its place in the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When; never earlier than the event before it.
    pub at: Timestamp,
    /// What.
    #[serde(rename = "event")]
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventBody {
    /// The first event of every run.
    RunStarted(Box<RunStarted>),
    /// A driver took the lease. What was in flight under the one before is lost.
    LeaseTaken(Box<LeaseTaken>),
    /// A step reached a target of which the run did not know who it is, or which was failed over since.
    Identified(Box<Identified>),
    /// The wall clock of the machine that drives was set.
    ClockStepped(ClockStepped),
    /// The items of a `foreach`, before any of them starts.
    Expanded(Expanded),
    /// An attempt starts, or a group, call or foreach opens.
    Started(Box<Started>),
    /// What undo will need.
    Captured(Captured),
    /// The act that cannot be taken back comes next.
    Marked(Box<Marked>),
    /// A checkpoint.
    Progressed(Progressed),
    /// A step sleeps.
    Suspended(Box<Suspended>),
    /// A sleeping step is called again.
    Awoken(Box<Awoken>),
    /// A step, group, call or foreach succeeded; in phase undo: it is undone.
    Succeeded(Box<Succeeded>),
    /// An attempt, group, call or foreach failed.
    Failed(Box<Failed>),
    /// A failed attempt will be repeated.
    RetryScheduled(RetryScheduled),
    /// A node waits: its gate does not hold.
    Gated(Box<Gated>),
    /// A step that writes waits: the windows of the policy are closed.
    WindowClosed(WindowClosed),
    /// A node that waited for its gate or its window is pending again: what it needs runs again, or what it is part of fails.
    Withdrawn(Withdrawn),
    /// A node does not run.
    Skipped(Box<Skipped>),
    /// It is not known whether a started step took effect; a probe follows.
    Doubted(Doubted),
    /// A probe answered anything but "done" (which is [`EventBody::Succeeded`] by [`SettledBy::Probe`]).
    Probed(Probed),
    /// A vote on an approval.
    Voted(Box<Voted>),
    /// A signal from outside; kept until a wait takes it.
    Signalled(Signalled),
    /// A command from the inbox was taken and what follows it in this batch is its doing.
    CommandAccepted(Box<CommandTaken>),
    /// A command from the inbox was refused.
    CommandRefused(Box<CommandRefused>),
    /// A person settled a doubt, a failed undo or a failed step.
    Resolved(Box<Resolved>),
    /// A person ordered another attempt of a failed node.
    RetryOrdered(RetryOrdered),
    /// An input was changed by a person.
    InputEdited(InputEdited),
    /// Nothing new starts.
    Paused(Paused),
    /// Things start again.
    Unpaused(Unpaused),
    /// The run is cancelled.
    Cancelled(Cancelled),
    /// The forward phase took longer than `policy.max_duration`.
    Overran(Overran),
    /// A scope starts to undo itself, once what runs has drained.
    CompensationStarted(CompensationStarted),
    /// A scope starts its clean-up of scratch resources after success.
    CleanupStarted(ScopeEvent),
    /// A scope starts its `finally`.
    FinallyStarted(FinallyStarted),
    /// The run is over.
    Finished(Box<Finished>),
    /// A finished run is undone, or a stopped one continues, by a person's order.
    Reopened(Reopened),
    /// A stopped or stuck run is over as it is, by a person's order.
    Closed(Closed),
}

/// See [`EventBody::RunStarted`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// [`EVENT_FORMAT`].
    pub format: u32,
    /// Id, playbook, environment, who, when.
    pub run: RunInfo,
    /// The definition that the run finishes on.
    pub graph: Arc<Graph>,
    /// The inputs, checked and with their defaults.
    pub inputs: Value,
    /// Named targets as resolved, with identities; `many` targets under `name[i]`.
    pub targets: IndexMap<String, Target>,
    /// Targets that did not answer (`when_down: continue`), by name, and why; they have no identity yet.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub unreachable: IndexMap<String, String>,
    /// Members of approver groups.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub approvers: IndexMap<String, Vec<String>>,
    /// Where secrets come from (names and sources, no content), as the environment has it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub secrets: Value,
    /// Digest of the approved plan, or of the graph and inputs where there was no plan.
    pub digest: String,
    /// Version of the engine that started the run.
    pub engine: String,
}

/// See [`EventBody::LeaseTaken`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTaken {
    /// Grows by one with each driver.
    pub epoch: u64,
    /// Who drives.
    pub holder: Holder,
    /// Targets that were failed over since the run started, by name: what was committed there before may be lost.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub failovers: IndexMap<String, Failover>,
    /// Targets that could not be compared with what they were at the start, by name, and why: the first step that uses one
    /// compares it.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub unreachable: IndexMap<String, String>,
}

/// See [`EventBody::ClockStepped`].
///
/// The times of a run never step: from here on they differ from those of the wall clock by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStepped {
    /// How far, forwards; below zero, backwards.
    pub by: crate::value::Duration,
    /// What the wall clock says now.
    pub wall: Timestamp,
}

/// See [`EventBody::Identified`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identified {
    /// The target, by its name in the run.
    pub target: String,
    /// Who it is. If the run knew nobody, every later use is compared with this.
    pub identity: Identity,
    /// The promotion since the run started, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
}

/// A promotion that the run had no part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// The timeline when the run started.
    pub from: u32,
    /// The timeline now.
    pub to: u32,
}

/// A process that drives a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Whose process it is, as they call themselves.
    pub user: String,
    /// The account that it runs under; none in journals of before accounts were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// The host.
    pub host: String,
    /// The process id.
    pub pid: u32,
    /// Since when.
    pub since: Timestamp,
}

impl Holder {
    /// Whose process it is, as people read it.
    #[must_use]
    pub fn who(&self) -> String {
        shown(&self.user, self.account.as_ref())
    }
}

/// See [`EventBody::Expanded`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expanded {
    /// The foreach.
    pub node: NodePath,
    /// The items that run, after `foreach.when`.
    pub items: Vec<Value>,
}

/// Why an attempt starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartCause {
    /// The first time.
    First,
    /// After a failure, by `retry`.
    Retry,
    /// The engine stopped while it ran, before anything happened.
    Interrupted,
    /// By a person's order.
    Operator,
}

/// See [`EventBody::Started`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// Which of several undo steps; 0 otherwise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub part: u32,
    /// The attempt, from 1. Never used twice by one node in one phase.
    pub attempt: u32,
    /// Why.
    pub cause: StartCause,
    /// Resolved parameters, secrets as references; a call's inputs.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub input: Value,
    /// Expressions that were decided, with their values (`when: true`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
    /// Derived targets as bound for this attempt.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub targets: IndexMap<String, Target>,
    /// When the attempt is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// An expression and what it gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// `when`, `gate`, `items`, …
    pub what: String,
    /// Its source.
    pub expr: String,
    /// Its value.
    pub value: Value,
}

/// See [`EventBody::Captured`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Captured {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// The attempt.
    pub attempt: u32,
    /// What was read.
    pub capture: Value,
}

/// See [`EventBody::Marked`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Marked {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// The attempt.
    pub attempt: u32,
    /// The mark.
    pub mark: Mark,
}

/// See [`EventBody::Progressed`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progressed {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// The attempt.
    pub attempt: u32,
    /// What the step keeps.
    pub state: Value,
}

/// See [`EventBody::Suspended`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suspended {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// The attempt.
    pub attempt: u32,
    /// What the step keeps.
    pub state: Value,
    /// What wakes it.
    pub wait: Wait,
}

/// See [`EventBody::Awoken`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Awoken {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// By what.
    pub by: Woken,
}

/// Who says that a node succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettledBy {
    /// The step itself.
    Step,
    /// A probe, after a doubt.
    Probe,
    /// A person.
    Operator,
}

/// See [`EventBody::Succeeded`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Succeeded {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// Which of several undo steps; 0 otherwise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub part: u32,
    /// The attempt.
    pub attempt: u32,
    /// The output.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// What it keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// Who says so.
    pub by: SettledBy,
}

/// See [`EventBody::Failed`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// Which of several undo steps; 0 otherwise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub part: u32,
    /// The attempt; 0 where it failed before one started (an expression).
    pub attempt: u32,
    /// Why.
    pub failure: Failure,
    /// What it keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// Expressions that were decided, with their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
    /// Whether neither a retry nor a probe follows by itself: what `on_failure` looks at. A person may still answer it.
    pub is_final: bool,
}

/// See [`EventBody::RetryScheduled`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryScheduled {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// When.
    pub not_before: Timestamp,
    /// Why: a failure, a gate that does not hold, an interruption.
    pub cause: StartCause,
}

/// See [`EventBody::Gated`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gated {
    /// The node.
    pub node: NodePath,
    /// The gate, which is false.
    pub gate: Fact,
}

/// See [`EventBody::WindowClosed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowClosed {
    /// The node.
    pub node: NodePath,
    /// When the next window opens: its turn comes again then.
    pub opens: Timestamp,
}

/// See [`EventBody::Withdrawn`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// The node.
    pub node: NodePath,
}

/// See [`EventBody::Overran`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overran {
    /// The scope whose `policy.max_duration` it is: empty for the root, or a call's path.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub scope: NodePath,
    /// How long steps may run in it.
    pub limit: crate::value::Duration,
}

/// Why a node does not run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipCause {
    /// Its `when` is false; the fact.
    When(Fact),
    /// The run ended before its turn.
    Ended,
    /// A person skipped it, with a reason and perhaps an output.
    Operator {
        /// Who.
        who: String,
        /// Why.
        because: String,
        /// What later steps read as its output.
        output: Value,
    },
    /// Its undo has nothing to do.
    NoEffect,
    /// Its undo waits for one that is impossible or failed and was left.
    Blocked,
}

/// See [`EventBody::Skipped`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// Why.
    pub why: SkipCause,
}

/// See [`EventBody::Doubted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubted {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// The attempt.
    pub attempt: u32,
    /// Why it is not known.
    pub why: String,
}

/// See [`EventBody::Probed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// The attempt that was asked about.
    pub attempt: u32,
    /// `None`: it did not happen and cannot any more. Otherwise why it still is not known.
    pub in_doubt: Option<String>,
    /// The target has it, and the run does not know how: it cannot be settled as not done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unexplained: bool,
}

/// See [`EventBody::Voted`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Voted {
    /// The approval.
    pub node: NodePath,
    /// The vote.
    pub vote: Vote,
}

/// See [`EventBody::Signalled`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signalled {
    /// The signal's name.
    pub name: String,
    /// What it carries.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub payload: Value,
}

/// See [`EventBody::CommandAccepted`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandTaken {
    /// The inbox entry.
    pub id: String,
    /// Who sent it, as they call themselves.
    pub who: String,
    /// The account that sent it; none in journals of before accounts were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// When it was sent.
    pub sent: Timestamp,
    /// What it says.
    pub command: super::Command,
}

/// See [`EventBody::CommandRefused`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandRefused {
    /// The inbox entry.
    pub id: String,
    /// Who sent it, as they call themselves.
    pub who: String,
    /// The account that sent it; none in journals of before accounts were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// When it was sent.
    pub sent: Timestamp,
    /// What it says.
    pub command: super::Command,
    /// Why not, for the one who sent it.
    pub reason: String,
}

impl CommandTaken {
    /// Who sent it, as people read it.
    #[must_use]
    pub fn sender(&self) -> String {
        shown(&self.who, self.account.as_ref())
    }
}

impl CommandRefused {
    /// Who sent it, as people read it.
    #[must_use]
    pub fn sender(&self) -> String {
        shown(&self.who, self.account.as_ref())
    }
}

/// See [`EventBody::Resolved`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// Whether it took effect (forward) or is undone (undo).
    pub done: bool,
    /// The step of an undo of several that was in doubt: those after it follow. None if the whole undo is done, and in journals of
    /// before that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u32>,
    /// The output, where it took effect.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// Who says so.
    pub who: String,
    /// On what grounds.
    pub because: String,
}

/// See [`EventBody::RetryOrdered`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryOrdered {
    /// The node.
    pub node: NodePath,
    /// Forward or undo.
    pub phase: Phase,
    /// Who.
    pub who: String,
}

/// See [`EventBody::InputEdited`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputEdited {
    /// The input.
    pub name: String,
    /// Its new value.
    pub value: Value,
    /// Who.
    pub who: String,
}

/// See [`EventBody::Paused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Who, if a person did.
    pub who: Option<String>,
    /// Why.
    pub why: String,
    /// The node whose failure asks, if that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodePath>,
}

/// See [`EventBody::Unpaused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpaused {
    /// Who.
    pub who: String,
}

/// See [`EventBody::Cancelled`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Whether what was done is undone.
    pub undo: bool,
    /// Whether running steps are ended too, instead of awaited.
    pub force: bool,
    /// Who.
    pub who: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// See [`EventBody::CompensationStarted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompensationStarted {
    /// The scope: empty for the root, or a call's path.
    pub scope: NodePath,
    /// Why.
    pub why: String,
}

/// An event about a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeEvent {
    /// The scope: empty for the root, or a call's path.
    pub scope: NodePath,
}

/// See [`EventBody::FinallyStarted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinallyStarted {
    /// The scope: empty for the root, or a call's path.
    pub scope: NodePath,
    /// What `run.outcome` reads from here on.
    pub outcome: Outcome,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything that should be done is done.
    Succeeded,
    /// It ran to its end with a failure that `continue` let pass.
    Failed,
    /// It failed and everything that it did is undone.
    Compensated,
    /// It failed and things are left as they are; a person is needed.
    Stopped,
    /// A person cancelled it.
    Cancelled,
}

impl Outcome {
    /// The word for people and for `run.outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Compensated => "compensated",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// See [`EventBody::Finished`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// How.
    pub outcome: Outcome,
    /// The playbook's outputs.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub outputs: Value,
    /// Steps of `finally` that failed: they stand beside the outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finally_failed: Vec<NodePath>,
    /// An output that could not be evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_error: Option<String>,
}

/// See [`EventBody::Reopened`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reopened {
    /// Who.
    pub who: String,
    /// Whether it is undone now; otherwise it continues where it stopped.
    pub undo: bool,
    /// Only for a step of its `finally`: nothing else of the run goes forward again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_finally: bool,
}

/// See [`EventBody::Closed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Who.
    pub who: String,
    /// On what grounds.
    pub because: String,
}
