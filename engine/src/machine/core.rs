//! The machine's data, and access to it.
use super::{
    agenda::Agenda,
    event::{Cancelled, Closed, Failover, Finished, Outcome, Paused, RunStarted},
    execution::{Stage, Trigger},
    scope::Ending,
    state::{Instance, InstanceId, Signals},
    tally::Tally,
    tree::Tree,
    watch::Watch,
};
use crate::{
    graph::{Graph, Node, Scope},
    value::{Duration, Timestamp, Value},
};
use indexmap::IndexMap;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A journal's history is not one that the machine could have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalEvent {
    /// The first event is not [`EventBody::RunStarted`](super::EventBody::RunStarted), or a later one is.
    #[error("event {seq}: a run begins with run_started, once")]
    NotStarted {
        /// Its place.
        seq: u64,
    },
    /// No such node.
    #[error("event {seq}: there is no node {node:?}")]
    NoNode {
        /// Its place.
        seq: u64,
        /// The node.
        node: String,
    },
    /// The node is not in a state in which this can happen.
    #[error("event {seq}: {node:?} is {stage:?} and cannot {trigger:?}")]
    Transition {
        /// Its place.
        seq: u64,
        /// The node.
        node: String,
        /// Where it is.
        stage: Stage,
        /// What was to happen.
        trigger: Trigger,
    },
    /// The attempt is not the one that runs.
    #[error("event {seq}: {node:?} is at attempt {current}, not {given}")]
    Attempt {
        /// Its place.
        seq: u64,
        /// The node.
        node: String,
        /// The attempt that runs.
        current: u32,
        /// The attempt of the event.
        given: u32,
    },
    /// The run or scope is in a phase in which this cannot happen.
    #[error("event {seq}: {what}")]
    Phase {
        /// Its place.
        seq: u64,
        /// What is wrong.
        what: String,
    },
    /// Written by a newer engine.
    #[error("the run was written in format {found}; this windlass reads up to {known}")]
    Newer {
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
}

/// Where a scope is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScopePhase {
    Forward,
    Undoing,
    Cleaning,
    Finally,
    Over,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ScopeState {
    pub phase: ScopePhase,
    /// Failures that end it, the first one first.
    pub fatal: BTreeSet<(Timestamp, InstanceId)>,
    /// How many failures `continue` let pass.
    pub soft: u32,
    /// Its compensation left something that cannot be undone, or was not.
    pub blocked: bool,
    /// How it ended its steps, as it turned from them.
    pub left_by: Option<Ending>,
    /// It ended only since a scope around it did.
    pub outer_end: bool,
    /// A cancel in its `finally`: it undoes what it did, then its `finally` runs again.
    pub turns_back: bool,
    /// As its `finally` began.
    pub outcome: Option<Outcome>,
    pub watch: Watch,
}

impl Default for ScopeState {
    fn default() -> Self {
        Self {
            phase: ScopePhase::Forward,
            fatal: BTreeSet::new(),
            soft: 0,
            blocked: false,
            left_by: None,
            outer_end: false,
            turns_back: false,
            outcome: None,
            watch: Watch::default(),
        }
    }
}

/// One run: folds events, decides what comes next. Synchronous and pure.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub(super) started: Arc<RunStarted>,
    pub(super) graph: Arc<Graph>,
    pub(super) tree: Tree,
    pub(super) tallies: Vec<Tally>,
    pub(super) scopes: BTreeMap<InstanceId, ScopeState>,
    pub(super) agenda: Agenda,
    /// Failures that a person is asked about, where their scope goes forward.
    pub(super) asking: BTreeSet<InstanceId>,
    /// Scopes with a `max_duration` in which steps run.
    pub(super) watching: BTreeSet<InstanceId>,
    /// Items of a foreach that are still to be undone, the first started first.
    pub(super) undo_chains: BTreeMap<InstanceId, Vec<InstanceId>>,
    pub(super) inputs: Value,
    pub(super) signals: Signals,
    /// A person paused it. That a failure asks is seen from the failure.
    pub(super) paused: Option<Paused>,
    pub(super) cancelled: Option<Cancelled>,
    /// Who ordered that a run that was over is undone.
    pub(super) undo_ordered: Option<String>,
    pub(super) finished: Option<Finished>,
    pub(super) closed: Option<Closed>,
    pub(super) starts: u64,
    pub(super) seq: u64,
    pub(super) last_at: Timestamp,
    pub(super) epoch: u64,
    pub(super) failovers: IndexMap<String, Failover>,
    /// How far the wall clock is ahead of the time of the run, below zero if behind: under this lease, as far as it was noticed.
    pub(super) wall_ahead: Duration,
}

impl Machine {
    /// The instance.
    #[must_use]
    pub fn get(&self, id: InstanceId) -> &Instance {
        self.tree.get(id)
    }

    /// The graph's node of an instance; `None` for the root.
    #[must_use]
    pub fn def(&self, id: InstanceId) -> Option<&Node> {
        self.get(id).def.map(|def| self.graph.node(def))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an InstanceId is made only with its tally"
    )]
    pub(super) fn tally(&self, id: InstanceId) -> &Tally {
        &self.tallies[id.0 as usize]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an InstanceId is made only with its tally"
    )]
    pub(super) fn tally_mut(&mut self, id: InstanceId) -> &mut Tally {
        &mut self.tallies[id.0 as usize]
    }

    pub(super) fn scope_phase(&self, scope: InstanceId) -> ScopePhase {
        self.scopes
            .get(&scope)
            .map_or(ScopePhase::Over, |s| s.phase)
    }

    /// The definition of the scope that an instance opens.
    pub(super) fn scope_def(&self, scope: InstanceId) -> &Scope {
        self.get(scope)
            .def
            .and_then(|def| self.graph.scope(def))
            .unwrap_or(&self.graph.root)
    }
}
