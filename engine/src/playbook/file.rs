//! The playbook file as types, for its JSON Schema: an editor completes and checks by it. Reading does
//! not go through them, since a reader keeps places and collects mistakes; a test holds both together.
#![expect(dead_code, reason = "the types are read by their schema only")]

use crate::{
    graph::{Backoff, InputType, OnFailure, OutsideWindow, WhenDown},
    step::params::Text,
    value::{Duration, Value},
};
use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

macro_rules! scalar {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

scalar!(
    /// A boolean; quotes do not hurt.
    Flag,
    { "enum": [true, false, "true", "false"] }
);
scalar!(
    /// A whole number; quotes do not hurt.
    Count,
    { "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+$" }
);
scalar!(
    /// A number of failures or a percentage.
    Failures,
    { "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+%?$" }
);
scalar!(
    /// A bare expression.
    Bare,
    { "type": ["string", "boolean", "number"], "x-windlass": "expression" }
);
scalar!(
    /// A bare expression for a list, or a list of literals.
    Items,
    { "type": ["string", "array"], "x-windlass": "expression" }
);
scalar!(
    /// A name.
    Id,
    { "type": "string", "pattern": "^[a-z][a-z0-9_]*$" }
);
scalar!(
    /// A playbook's name.
    PlaybookName,
    { "type": "string", "pattern": "^[a-z][a-z0-9]*(-[a-z0-9]+)*$" }
);
scalar!(
    /// Parameters, checked by the kind that `uses` names.
    With,
    { "type": "object" }
);

/// A Windlass playbook: steps that act on declared targets, in order, each with its undo.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Playbook")]
pub(super) struct PlaybookFile {
    /// The playbook's name, in kebab-case.
    playbook: PlaybookName,
    /// What it is for, in a sentence or two.
    description: Option<Text>,
    /// Who answers for it.
    owner: Option<Text>,
    /// What a run is given, by name; expressions read `inputs.NAME`.
    inputs: Option<IndexMap<String, InputFile>>,
    /// What the steps act on, by name; the environment says where each is.
    targets: Option<IndexMap<String, TargetFile>>,
    /// What holds for a run as a whole.
    policy: Option<PolicyFile>,
    /// What steps of some kinds have in common, by kind (`sql.query`) or family (`sql.*`).
    defaults: Option<IndexMap<String, DefaultsFile>>,
    /// Named expressions, which the expressions of this file may read by their name.
    #[schemars(rename = "let")]
    lets: Option<IndexMap<String, Bare>>,
    /// The steps. Without `needs` each waits for all above it.
    #[schemars(length(min = 1))]
    steps: Vec<StepFile>,
    /// Steps that run at the end whatever happened, in order.
    #[schemars(length(min = 1))]
    finally: Option<Vec<StepFile>>,
    /// What the playbook gives to a run's report and to a playbook that calls it.
    outputs: Option<IndexMap<String, Value>>,
}

/// A declared input.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Input")]
pub(super) struct InputFile {
    /// Its type.
    #[schemars(rename = "type")]
    kind: InputType,
    /// What it is for.
    description: Option<Text>,
    /// Used if none is given; without it the input is required.
    default: Option<Value>,
    /// The only values allowed.
    #[schemars(rename = "enum")]
    allowed: Option<Vec<Value>>,
    /// A regular expression that the whole text must match.
    pattern: Option<Text>,
    /// The least value, or length of a text or list.
    min: Option<Value>,
    /// The greatest value, or length of a text or list.
    max: Option<Value>,
    /// The type of a list's items or a map's values.
    of: Option<InputType>,
}

/// A declared target: named (`kind`), many (`kind`, `many`, `select`) or derived (`like`, with the keys
/// that it replaces, such as `host`, `path` or `login`).
#[derive(JsonSchema)]
#[schemars(rename = "Target")]
pub(super) struct TargetFile {
    /// The kind of target, such as `sqlite`.
    kind: Option<Text>,
    /// The role that the server must have, such as `primary`.
    role: Option<Text>,
    /// What it is.
    description: Option<Text>,
    /// Whether the run itself may change the role (a switchover): it is checked as the run starts, and not after.
    moves: Option<Flag>,
    /// What a run does if the target does not answer as it starts: `refuse` starts nothing; `continue` starts all the same:
    /// who the server is is bound when a step first reaches it, and until then only the steps that use the target fail.
    /// Expressions read `targets.NAME.reachable`: whether the run has reached it; of many targets, the list of those it has.
    when_down: Option<WhenDown>,
    /// Whether it is all targets of the environment with the labels of `select`.
    many: Option<Flag>,
    /// Labels that must be equal.
    select: Option<IndexMap<String, Text>>,
    /// The target that this one is like; all other keys replace those of the environment.
    like: Option<Text>,
    /// Targets that this one must never turn out to be.
    never: Option<Vec<Text>>,
}

/// What holds for a run as a whole.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Policy")]
pub(super) struct PolicyFile {
    /// Names of which one run at a time may hold each, across all hosts on one journal.
    locks: Option<Vec<Text>>,
    /// When a run may start, and each of its steps that writes, such as `Mon-Fri 09:00-17:00 America/Sao_Paulo`. What
    /// runs when a window closes is let finish; undo and `finally` are not bound.
    windows: Option<Vec<Text>>,
    /// What a step that writes does if its turn comes outside the windows (after a long approval, say): wait for the
    /// next opening, or fail; by default wait. The start of a run outside them is refused in any case.
    outside_window: Option<OutsideWindow>,
    /// The time for the forward phase; approvals and waits are not counted.
    max_duration: Option<Duration>,
    /// What a step's failure does where the step does not say: undo, pause or stop.
    on_failure: Option<OnFailure>,
}

/// What steps of some kinds have in common.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Defaults")]
pub(super) struct DefaultsFile {
    /// The time for one attempt.
    timeout: Option<Duration>,
    /// When a failed step is tried again.
    retry: Option<RetryFile>,
    /// Parameters; those of the step win.
    with: Option<With>,
}

/// When a step that failed for a passing cause is tried again.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Retry")]
pub(super) struct RetryFile {
    /// Attempts in all, the first included; by default 3.
    attempts: Option<Count>,
    /// How the delay grows; by default exponential.
    backoff: Option<Backoff>,
    /// The shortest delay; by default 1s. With exponential backoff the delay is drawn between it and a bound that starts
    /// at twice as long and doubles with each attempt.
    delay: Option<Duration>,
    /// The bound of the longest delay; by default 30s.
    max_delay: Option<Duration>,
    /// Causes that are retried although they do not pass by themselves: serialization_failure, deadlock,
    /// lock_timeout, connection_lost, throttled, timeout, refused, permanent.
    also: Option<Vec<RetryCause>>,
}

/// A cause of a failure.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum RetryCause {
    SerializationFailure,
    Deadlock,
    LockTimeout,
    ConnectionLost,
    Throttled,
    Timeout,
    Refused,
    Permanent,
}

/// A step: a kind with its parameters (`uses`, `with`), or a group (`steps`).
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Step")]
pub(super) struct StepFile {
    /// Its name; expressions read `steps.ID.output`.
    id: Id,
    /// What it is for.
    description: Option<Text>,
    /// The step kind; `windlass steps` lists them.
    uses: Option<Id>,
    /// The kind's parameters.
    with: Option<With>,
    /// The steps of a group.
    #[schemars(length(min = 1))]
    steps: Option<Vec<StepFile>>,
    /// A condition: where it is false, the step is skipped. A bare expression.
    when: Option<Bare>,
    /// Steps of the same list that must settle before it; `[]` starts at once.
    needs: Option<Vec<Id>>,
    /// Once for each item of a list.
    foreach: Option<ForeachFile>,
    /// When a failed attempt is tried again.
    retry: Option<RetryFile>,
    /// The time for one attempt; the statement is ended on the server.
    timeout: Option<Duration>,
    /// A condition that must hold before the step and between the chunks of a loop; waited for.
    gate: Option<Bare>,
    /// What its failure does; by default what the policy says.
    on_failure: Option<OnFailure>,
    /// How it is undone: auto (by the kind), none (nothing to undo), impossible, or by steps.
    undo: Option<UndoFile>,
    /// `always`: its undo runs before `finally`, on success too. For scratch resources.
    cleanup: Option<Cleanup>,
    /// What settles its doubt after a crash.
    probe: Option<ProbeFile>,
    /// What reports tell of what it saw.
    evidence: Option<EvidenceFile>,
    /// `read`: read in a plan although a step before it would write.
    plan: Option<PlanMode>,
}

/// `always`.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Cleanup {
    /// The undo runs before `finally`, on success too.
    Always,
}

/// `read`.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum PlanMode {
    /// The value is read and labelled "before the change".
    Read,
}

/// Once for each item of a list.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Foreach")]
pub(super) struct ForeachFile {
    /// The list: a bare expression, or literals.
    items: Items,
    /// The name of an item in expressions; by default `item`.
    #[schemars(rename = "as")]
    name: Option<Id>,
    /// Which items. A bare expression.
    when: Option<Bare>,
    /// How many at once; by default 1.
    max_parallel: Option<Count>,
    /// How many may fail, as a number or a percentage; by default none.
    max_failures: Option<Failures>,
    /// How many items there may be; required where they are known only at run time.
    max_items: Option<Count>,
}

/// How a step is undone.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "Undo")]
pub(super) enum UndoFile {
    /// By the kind, not at all, or not possible.
    Word(UndoWord),
    /// By one step.
    Step(Box<UndoStepFile>),
    /// By several, in order.
    Steps(Vec<UndoStepFile>),
}

/// An undo in a word.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum UndoWord {
    /// By the kind, from what it captured.
    Auto,
    /// There is nothing to undo.
    None,
    /// It cannot be undone: once it took effect, nothing that it needs is undone.
    Impossible,
}

/// A step that undoes another. It sees that step's `capture` and `output`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "UndoStep")]
pub(super) struct UndoStepFile {
    /// The step kind.
    uses: Id,
    /// The kind's parameters.
    with: Option<With>,
    /// A condition. A bare expression.
    when: Option<Bare>,
    /// When a failed attempt is tried again.
    retry: Option<RetryFile>,
    /// The time for one attempt.
    timeout: Option<Duration>,
    /// What settles its doubt after a crash.
    probe: Option<ProbeFile>,
}

/// What settles a step's doubt: a query on its own target, or a step that only reads.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Probe")]
pub(super) struct ProbeFile {
    /// A query on the step's own target.
    sql: Option<Text>,
    /// Values that the query binds.
    params: Option<IndexMap<String, Value>>,
    /// A step kind that only reads.
    uses: Option<Id>,
    /// The kind's parameters.
    with: Option<With>,
    /// Whether the step was done, by the answer (`row`, `rows`, `value`, `output`); NULL if it cannot tell yet, which leaves the step
    /// in doubt. A bare expression.
    done: Bare,
}

/// What reports show of what a step saw. The journal keeps all of it as long as the run.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Evidence")]
pub(super) struct EvidenceFile {
    /// Whether reports show its output and evidence; by default true.
    keep: Option<Flag>,
    /// Columns or keys whose values no report shows, wherever they appear in the run.
    mask: Option<Vec<Text>>,
    /// For how long after the step reports show it.
    #[schemars(rename = "for")]
    keep_for: Option<Duration>,
}

/// The parameters of a call.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "CallWith")]
pub(super) struct CallWith {
    /// The called playbook's file, relative to this one.
    path: Text,
    /// Its inputs.
    inputs: Option<IndexMap<String, Value>>,
    /// Its targets, by the names of this playbook's.
    targets: Option<IndexMap<String, Text>>,
}
