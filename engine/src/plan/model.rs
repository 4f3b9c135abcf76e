//! A plan as it is kept, shown and compared.
use crate::{
    step::{Effect, Fidelity},
    value::{Duration, Value},
};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the stored format.
pub const PLAN_FORMAT: u32 = 1;

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The version of this format.
    pub format: u32,
    /// The version of the engine that made it.
    pub engine: String,
    /// The playbook's name.
    pub playbook: String,
    /// Its description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The environment's name.
    pub environment: String,
    /// SHA-256, in hexadecimal, of all that binds a run to this plan; not of estimates or values read.
    pub digest: String,
    /// The files that it was made from; the first is the playbook itself.
    pub sources: Vec<PlanSource>,
    /// The inputs; secrets are references.
    pub inputs: Value,
    /// Where it would act.
    pub targets: Vec<PlanTarget>,
    /// How many steps of which sort.
    pub counts: Counts,
    /// The first step that cannot be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_of_no_return: Option<PointOfNoReturn>,
    /// The longest that the forward phase can take; approvals and waits are not counted.
    pub worst_case: Cost,
    /// What the policy allows for the forward phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,
    /// When it may start, and each of its steps that writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
    /// When the next window opens, in RFC 3339, if the plan was made outside of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_opens: Option<String>,
    /// What it locks against other runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
    /// The names of the secrets that it would use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// The steps, in an order in which each comes after those that it needs.
    pub steps: Vec<NodePlan>,
    /// What runs at the end whatever happened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finally: Vec<NodePlan>,
}

/// A file that a plan was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanSource {
    /// As it was named.
    pub path: String,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
}

/// A target as it was resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanTarget {
    /// The name in the playbook.
    pub name: String,
    /// `sqlite`, `postgres`, …
    pub kind: String,
    /// Where it is, secrets as references.
    pub url: String,
    /// What distinguishes this server from every other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What distinguishes this database from every other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Which history of its cluster it is on: each promotion begins the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// The server's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// If it does not answer, and a run starts all the same (`when_down: continue`): why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// Where it is derived and not bound yet: what it is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
}

/// How many steps of which sort; those of a group, a call or an item count each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// All that would or may run.
    pub steps: u32,
    /// Of these, those that only read.
    pub reads: u32,
    /// Of these, those that write.
    pub writes: u32,
    /// Of these, those that remove what cannot be brought back.
    pub destroys: u32,
    /// Writing steps that cannot be undone.
    pub irreversible: u32,
    /// Steps of which the plan cannot say what they would do.
    pub unknown: u32,
    /// Steps whose condition or number of items is decided at run time.
    pub decided_at_run_time: u32,
    /// Steps that would be skipped.
    pub skipped: u32,
    /// Steps whose preview failed.
    pub failed: u32,
}

/// The first step that cannot be undone once it took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PointOfNoReturn {
    /// Its path.
    pub path: String,
    /// The file that it is in.
    pub file: String,
    /// The line.
    pub line: u32,
    /// Whether it is certain to run.
    pub certain: bool,
}

/// A longest time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// The time of all that has a limit, along the longest path.
    pub time: Duration,
    /// Steps without a timeout, or of unknown number, on any path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_limit: Vec<String>,
}

/// Whether a step would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Decision {
    /// It would run.
    Run {
        /// The condition that holds, and what it saw.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<String>,
    },
    /// It would be skipped.
    Skip {
        /// The condition that does not hold, and what it saw.
        because: String,
    },
    /// It is decided at run time.
    Unknown {
        /// The condition.
        condition: String,
        /// The steps that it waits for.
        until: Vec<String>,
    },
    /// Its condition fails, and so would the step.
    Fails {
        /// How.
        because: String,
    },
}

/// A step, a group, a call, a `foreach` or one of its items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodePlan {
    /// Its path, such as `fill[17]/copy`.
    pub path: String,
    /// The kind of step; `group`, or `playbook` for a call.
    pub kind: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The file that it is in.
    pub file: String,
    /// The line.
    pub line: u32,
    /// What it does to its target; `None` for a group or call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// The targets that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Whether it would run.
    pub decision: Decision,
    /// How it is undone; `None` for a group or call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoPlan>,
    /// Its items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreach: Option<ForeachPlan>,
    /// What it would do; `None` for a group, a call or a skipped step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<PlanPreview>,
    /// The time for one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Attempts in all.
    pub attempts: u32,
    /// What binds a run to this step: its parameters as written, and the facts of its kind.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub binding: serde_json::Value,
    /// Steps inside, or items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<NodePlan>,
    /// A call's own `finally`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finally: Vec<NodePlan>,
}

/// The items of a `foreach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForeachPlan {
    /// The list, as it was written.
    pub of: String,
    /// How many items; `None` is known only at run time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u64>,
    /// How many of them the plan shows.
    pub shown: u64,
    /// How many there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<u32>,
    /// How many at once.
    pub max_parallel: u32,
    /// The steps that the number waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_after: Vec<String>,
}

/// What a step would do, and how the plan knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanPreview {
    /// How the plan knows.
    pub fidelity: Fidelity,
    /// One line.
    pub summary: String,
    /// More lines: bound SQL, lock mode, rows, URLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<PlanLine>,
    /// What it read, where it really ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Steps after which more is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_after: Vec<String>,
    /// Why the preview failed, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it was read although a step before it would write (`plan: read`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub before_the_change: bool,
    /// How long an attempt takes at most by the target's own limit, where the step has no `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_within: Option<Duration>,
}

/// One labelled line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanLine {
    /// What it is.
    pub label: String,
    /// The text; may have several lines.
    pub text: String,
}

/// How a step is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UndoPlan {
    /// How.
    pub how: UndoHow,
    /// Whether the undo runs at the end of every run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cleanup: bool,
    /// The steps that undo it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<UndoStep>,
}

/// How a step is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UndoHow {
    /// By the kind, from what it read before.
    Auto,
    /// There is nothing to undo.
    None,
    /// It cannot be undone.
    Impossible,
    /// By steps of the playbook.
    Steps,
}

/// A step of an undo, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UndoStep {
    /// Its kind.
    pub kind: String,
    /// Its condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Its parameters, in one line each.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub with: IndexMap<String, String>,
}

impl NodePlan {
    /// This node and all inside it, outermost first.
    pub fn all(&self) -> Vec<&NodePlan> {
        let inside = self.steps.iter().chain(&self.finally);
        std::iter::once(self)
            .chain(inside.flat_map(NodePlan::all))
            .collect()
    }
}

impl Plan {
    /// Every node, outermost first, `finally` last.
    pub fn all(&self) -> Vec<&NodePlan> {
        self.steps
            .iter()
            .chain(&self.finally)
            .flat_map(NodePlan::all)
            .collect()
    }
}

impl Plan {
    /// Without the content of secrets: what was read and what failed may hold it.
    ///
    /// # Errors
    /// Where the plan cannot be written as JSON and read back.
    pub fn redacted(self, redactor: &crate::secret::Redactor) -> Result<Self, serde_json::Error> {
        serde_json::from_value(redactor.json(serde_json::to_value(self)?))
    }
}
