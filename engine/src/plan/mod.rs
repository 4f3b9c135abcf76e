//! The dry run: what a run would do, how the plan knows it, and a digest of what was planned.
//!
//! [`plan`] walks the graph as the machine would. A step that only reads really runs, through its preview,
//! when all that it needs is known and nothing that would write stands before it; what needs an output that
//! does not exist yet is *known after* that step. Nothing here writes.
mod containers;
mod cost;
mod digest;
mod host;
mod html;
mod known;
mod markdown;
mod model;
mod preview;
mod targets;
#[cfg(test)]
mod tests;
mod text;
mod walk;

pub use digest::diff;
pub use host::Reveal;
pub(crate) use html::escape;
pub use model::{
    Cost, Counts, Decision, ForeachPlan, NodePlan, PLAN_FORMAT, Plan, PlanLine, PlanPreview,
    PlanSource, PlanTarget, PointOfNoReturn, UndoHow, UndoPlan, UndoStep,
};
pub use walk::plan;

use crate::{
    graph::Graph,
    step::{Registry, Resources, RunInfo, Target},
    value::{Timestamp, Value},
};
use indexmap::IndexMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What is to be planned.
pub struct PlanRequest<'a> {
    /// The compiled playbook.
    pub graph: &'a Graph,
    /// The kinds of steps.
    pub registry: &'a Registry,
    /// Checked inputs, defaults included: a map.
    pub inputs: Value,
    /// Targets as the environment has them, with their identities where the server was asked.
    pub targets: IndexMap<String, Target>,
    /// Targets that may be down (`when_down: continue`) and do not answer, and why.
    pub unreachable: IndexMap<String, String>,
    /// The run as it would be; its id is a placeholder.
    pub run: RunInfo,
    /// Whether DML may run in a transaction that is rolled back.
    pub rehearse: bool,
    /// Cancelled when the user interrupts.
    pub cancel: CancellationToken,
    /// Fetches the content of secrets, only to connect.
    pub reveal: Reveal,
    /// The clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// What kinds share (connection pools).
    pub resources: Arc<Resources>,
}

/// JSON Schema of a plan in JSON (`schemas/plan.schema.json`).
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Plan).to_value()
}
