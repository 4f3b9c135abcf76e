//! The compiled playbook: an arena of nodes in a tree of scopes. Stored with every run.
//!
//! A *list* is a sequence of sibling nodes: the steps of the root, of a group, of a called playbook, or a
//! `finally`. `needs` holds siblings of the same list only. A *scope* (the root, a call) has its own inputs,
//! names, outputs and `finally`, and is what compensation undoes as a whole.
mod order;
mod policy;
pub(crate) mod readers;
mod render;
mod secrets;

pub use policy::{Backoff, OnFailure, OutsideWindow, Policy, Retry};

use crate::{
    expr::{Expr, Template},
    step::{Identity, StepTraits, Target},
    value::{Duration, Value},
};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// The version of the stored format.
pub const GRAPH_FORMAT: u32 = 1;

/// Index of a node in [`Graph::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

impl NodeId {
    /// As an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A compiled playbook with all that it calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// [`GRAPH_FORMAT`].
    pub format: u32,
    /// The playbook's name.
    pub playbook: String,
    /// Its description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The files it was compiled from; the first is the playbook itself.
    pub sources: Vec<Source>,
    /// Targets by the name that the root playbook uses.
    pub targets: IndexMap<String, TargetDecl>,
    /// Locks, windows, limits, what a failure does.
    pub policy: Policy,
    /// All nodes, in document order; children follow their parent.
    pub nodes: Vec<Node>,
    /// The root scope.
    pub root: Scope,
}

/// A file that the graph was compiled from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// As it was named.
    pub path: String,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
    /// Its text.
    pub text: String,
}

/// A place in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// Index in [`Graph::sources`].
    pub source: u32,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A scope: the root playbook or a called one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Scope {
    /// The playbook's name.
    pub playbook: String,
    /// What it takes.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub inputs: IndexMap<String, InputDecl>,
    /// Named expressions, in an order in which each names only earlier ones.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub lets: IndexMap<String, Expr>,
    /// Its steps.
    pub steps: Vec<NodeId>,
    /// What runs at the end whatever happened, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finally: Vec<NodeId>,
    /// What it gives.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub outputs: IndexMap<String, Template>,
}

/// The type of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InputType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number; decimals stay exact.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Such as `5s`.
    Duration,
    /// An instant in RFC 3339.
    Timestamp,
    /// Such as `20GiB`.
    Size,
    /// A list.
    List,
    /// A map.
    Map,
}

/// A declared input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputDecl {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: InputType,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Used if none is given; without it the input is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// The only values allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Value>,
    /// A regular expression that the whole text must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The least value, or length of a text or list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Value>,
    /// The greatest value, or length of a text or list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Value>,
    /// The type of a list's items or a map's values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<InputType>,
}

/// A declared target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetDecl {
    /// Found in the environment under its name.
    Named {
        /// `sqlite`, `postgres`, …
        kind: String,
        /// The role that it must have.
        role: Option<String>,
        /// For people.
        description: Option<String>,
        /// Whether the run itself may change the role.
        moves: bool,
        /// What a start does if it does not answer.
        #[serde(default, skip_serializing_if = "WhenDown::is_refuse")]
        when_down: WhenDown,
    },
    /// Another target with some keys replaced; bound on first use.
    Derived {
        /// The target that it is like.
        like: String,
        /// Keys of the environment that are replaced (`url`, `host`, `path`, `login`, …).
        with: IndexMap<String, Template>,
        /// Targets that it must not turn out to be.
        never: Vec<String>,
        /// For people.
        description: Option<String>,
    },
    /// All targets of the environment with these labels; resolved at the start.
    Many {
        /// `sqlite`, `postgres`, …
        kind: String,
        /// Labels that must be equal.
        select: IndexMap<String, String>,
        /// For people.
        description: Option<String>,
        /// What a start does with a member that does not answer.
        #[serde(default, skip_serializing_if = "WhenDown::is_refuse")]
        when_down: WhenDown,
    },
}

impl TargetDecl {
    /// What a start does if the target does not answer. A derived target is reached only by the step that uses it.
    #[must_use]
    pub fn when_down(&self) -> WhenDown {
        match self {
            Self::Named { when_down, .. } | Self::Many { when_down, .. } => *when_down,
            Self::Derived { .. } => WhenDown::Continue,
        }
    }

    /// Makes who answered the identity of a target. If the run itself changes its role (`moves`), the target has the role only
    /// now, and may lose it on the way, and with it its history.
    pub fn bind(decl: Option<&Self>, target: &mut Target, who: Identity) {
        let moves = matches!(decl, Some(Self::Named { moves: true, .. }));
        let timeline = who.timeline.filter(|_| !moves);
        target.role = target.role.take().filter(|_| !moves);
        target.identity = Some(Identity { timeline, ..who });
    }
}

/// What a start does if a target does not answer.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WhenDown {
    /// Nothing starts.
    #[default]
    Refuse,
    /// The run starts; its identity is bound when a step first reaches it.
    Continue,
}

impl WhenDown {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_refuse(&self) -> bool {
        *self == Self::Refuse
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its id, unique in its list and the lists around it up to the scope.
    pub id: String,
    /// The group or call around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<NodeId>,
    /// Whether it stands in a `finally`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_finally: bool,
    /// Where it is written.
    pub place: Place,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Siblings that must settle before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<NodeId>,
    /// Whether it runs at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expr>,
    /// Once for each item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreach: Option<Foreach>,
    /// What it is.
    pub body: Body,
    /// What its failure does; `None` is what the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Its undo runs before `finally`, on success too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cleanup: bool,
}

impl Node {
    /// The condition for whose coming true the node waits before it starts. Only a step has one.
    pub(crate) fn gate(&self) -> Option<&Expr> {
        match &self.body {
            Body::Step(step) => step.gate.as_ref(),
            Body::Group { .. } | Body::Call(_) => None,
        }
    }
}

/// Once for each item of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Foreach {
    /// The list.
    pub items: Expr,
    /// The name of an item in expressions; by default `item`.
    pub name: String,
    /// Which items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expr>,
    /// How many at once; by default 1.
    pub max_parallel: u32,
    /// How many may fail.
    #[serde(default)]
    pub max_failures: MaxFailures,
    /// How many items there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<u32>,
}

/// A budget of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxFailures {
    /// So many.
    Count(u32),
    /// So many of a hundred items, rounded down.
    Percent(u32),
}

impl Default for MaxFailures {
    fn default() -> Self {
        Self::Count(0)
    }
}

impl MaxFailures {
    /// How many of `items` may fail.
    #[must_use]
    pub fn of(self, items: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => items.saturating_mul(percent as usize) / 100,
        }
    }
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// A step of a kind.
    Step(Box<StepDef>),
    /// A list of nodes.
    Group {
        /// The nodes.
        steps: Vec<NodeId>,
    },
    /// Another playbook, as a scope of this graph.
    Call(Box<CallDef>),
}

/// A step of a kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepDef {
    /// What it does.
    pub action: Action,
    /// A condition that must hold before each attempt and between the chunks of a loop; waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Expr>,
    /// How it is undone.
    pub undo: Undo,
    /// What to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceDef>,
    /// Whether `windlass skip` may pass over it.
    pub skippable: bool,
    /// `plan: read`: read in a plan although a step before it would write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plan_read: bool,
}

/// One thing to do: a step, or a step of its undo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The kind's name.
    pub kind: String,
    /// The kind's traits for these parameters, kept with the run.
    pub traits: StepTraits,
    /// Its parameters.
    pub with: Template,
    /// Bare expressions among the parameters, which the step evaluates itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expressions: Vec<Expr>,
    /// Where target names stand in `with`: keys from the root, list positions as numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Vec<String>>,
    /// Retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// The time for one attempt. Waits and approvals: the time for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether it runs at all (undo steps).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expr>,
    /// What settles its doubt, beyond the kind's own probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Box<ProbeDef>>,
}

/// How a step is undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// By the kind, from its capture.
    Auto {
        /// Retries.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry: Option<Retry>,
        /// The time for one attempt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<Duration>,
    },
    /// There is nothing to undo.
    None,
    /// It cannot be undone.
    Impossible,
    /// By these, in order.
    Steps(Vec<Action>),
}

/// A probe of the playbook's own: a question, and what its answer must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeDef {
    /// A read-only action.
    pub action: Action,
    /// Whether it was done, by the action's output (`row`, `rows`, `value`, `output`).
    pub done: Expr,
}

/// What reports tell of what a step saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceDef {
    /// Whether they tell its output and evidence.
    pub keep: bool,
    /// Columns or keys whose values they mask.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<String>,
    /// For how long after the step they tell it.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub keep_for: Option<Duration>,
}

/// A call of another playbook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallDef {
    /// The path as it was written.
    pub path: String,
    /// Inputs that it is given.
    pub inputs: IndexMap<String, Template>,
    /// For each target name of the callee, the caller's name for it; for one that the callee derives or
    /// selects itself, its name in [`Graph::targets`] (`CALL/PATH/name`).
    pub targets: IndexMap<String, String>,
    /// The callee.
    pub scope: Scope,
    /// The callee's own policy for failures.
    pub on_failure: OnFailure,
    /// The time for the callee's forward phase.
    #[serde(default)]
    pub max_duration: Option<Duration>,
}

impl Graph {
    /// The node.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "a NodeId is made only with its node"
    )]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }
}

impl Graph {
    /// The targets that the root playbook declares, twice: by its name for each and by the graph's, which are one.
    #[must_use]
    pub fn root_targets(&self) -> Vec<(String, String)> {
        let own = self.targets.keys().filter(|name| !name.contains('/'));
        own.map(|name| (name.clone(), name.clone())).collect()
    }
}

/// The path of a node in the definition: `fill[17]/copy` is the step `fill/copy`.
#[must_use]
pub fn definition(path: &str) -> String {
    path.split('/')
        .map(|part| part.split('[').next().unwrap_or(part))
        .collect::<Vec<_>>()
        .join("/")
}
