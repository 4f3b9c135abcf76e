//! The machine's data, access to it, and how an execution moves from stage to stage.
use super::{
    event::{Cancelled, Failover, Finished, NodePath, Outcome, Paused, RunStarted},
    state::{Instance, InstanceId, NodeState, Role, Signals, Stage, Wanted, Work},
    table::{Trigger, next_stage},
};
use crate::{
    graph::{Body, Graph, Node, NodeId, OnFailure, Scope},
    step::{Failure, Phase},
    value::{Duration, Timestamp, Value},
};
use indexmap::IndexMap;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The root's instance.
pub(super) const ROOT: InstanceId = InstanceId(0);

/// A journal's history is not one that the machine could have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalEvent {
    /// The first event is not [`EventBody::RunStarted`], or a later one is.
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
        /// Where it stands.
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

/// What the machine keeps about an instance beside what others may read.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    /// The scope that it is in; the root's is itself.
    pub scope: InstanceId,
    /// Its place in its parent's list.
    pub position: usize,
    pub in_finally: bool,
    /// Needed siblings that are not settled.
    pub waiting_on: usize,
    /// Containers: children that are not settled.
    pub unsettled: usize,
    /// Containers: active steps and calls inside, at any depth.
    pub active: usize,
    /// Foreach: items that failed, and the next that has not been offered.
    pub failed_items: usize,
    pub next_item: usize,
    /// Containers: why nothing more starts inside.
    pub failing: Option<Failure>,
    /// Containers: closed because their scope ended, not by their own doing.
    pub closed_by_end: bool,
    /// Foreach: its items are there, even if there are none.
    pub expanded: bool,
    /// When it started, among all starts of the run.
    pub start_order: u64,
    pub undo: UndoMark,
}

/// Where an instance stands in a compensation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct UndoMark {
    /// Dependents that must settle first.
    pub waiting_on: usize,
    /// Containers: children that are not settled.
    pub unsettled: usize,
    /// Something that needs it took effect for good.
    pub blocked: bool,
    pub settled: bool,
}

/// Where a scope stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScopePhase {
    Forward,
    Undoing,
    Cleaning,
    Finally,
    Over,
}

/// Why a scope ends before its last step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub why: String,
    pub undo: bool,
    pub cancelled: bool,
    /// Running steps are ended too.
    pub force: bool,
    /// `finally` is passed over.
    pub skip_finally: bool,
}

#[derive(Debug, Clone)]
pub(super) struct ScopeState {
    pub phase: ScopePhase,
    pub ending: Option<Ending>,
    pub sleeping: BTreeSet<InstanceId>,
    /// A failure that `continue` let pass.
    pub soft_failure: bool,
    pub blocked: bool,
    pub finally_failed: Vec<NodePath>,
    pub outcome: Option<Outcome>,
}

impl Default for ScopeState {
    fn default() -> Self {
        Self {
            phase: ScopePhase::Forward,
            ending: None,
            sleeping: BTreeSet::new(),
            soft_failure: false,
            blocked: false,
            finally_failed: Vec::new(),
            outcome: None,
        }
    }
}

/// One run: folds events, decides what comes next. Synchronous and pure.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(super) started: Arc<RunStarted>,
    pub(super) graph: Arc<Graph>,
    /// For each node, the siblings that need it.
    pub(super) dependents: Arc<Vec<Vec<NodeId>>>,
    /// For each node, its place in its list.
    pub(super) positions: Arc<Vec<usize>>,
    pub(super) nodes: Vec<Instance>,
    pub(super) meta: Vec<Meta>,
    pub(super) by_path: HashMap<NodePath, InstanceId>,
    pub(super) scopes: BTreeMap<InstanceId, ScopeState>,
    pub(super) inputs: Value,
    /// May start, as far as their needs go.
    pub(super) ready: BTreeSet<InstanceId>,
    /// Containers to open further (a foreach without its items) or to close.
    pub(super) closing: BTreeSet<InstanceId>,
    pub(super) due_scopes: BTreeSet<InstanceId>,
    pub(super) timers: BTreeSet<(Timestamp, InstanceId, Phase)>,
    /// Executions that a driver left behind.
    pub(super) lost: BTreeSet<(InstanceId, Phase)>,
    /// Doubts that turned out as "not done".
    pub(super) not_done: BTreeSet<(InstanceId, Phase)>,
    /// Failures that a person is asked about.
    pub(super) attention: BTreeSet<InstanceId>,
    pub(super) undo_ready: BTreeSet<InstanceId>,
    /// Items of a foreach that are still to be undone, the first started first.
    pub(super) undo_chains: BTreeMap<InstanceId, Vec<InstanceId>>,
    pub(super) undo_failed: BTreeSet<InstanceId>,
    /// Doubts that no probe settles.
    pub(super) standing: BTreeSet<(InstanceId, Phase)>,
    pub(super) gated: BTreeSet<InstanceId>,
    pub(super) signals: Signals,
    pub(super) listening: BTreeMap<String, BTreeSet<(InstanceId, Phase)>>,
    pub(super) wanted: BTreeSet<Wanted>,
    pub(super) paused: Option<Paused>,
    pub(super) cancelled: Option<Cancelled>,
    pub(super) finished: Option<Finished>,
    pub(super) starts: u64,
    pub(super) seq: u64,
    pub(super) last_at: Timestamp,
    pub(super) epoch: u64,
    pub(super) failovers: IndexMap<String, Failover>,
    /// Running forward steps, and for how long there have been any.
    pub(super) busy: usize,
    pub(super) busy_since: Timestamp,
    pub(super) busy_total: Duration,
    pub(super) overran: bool,
}

impl Machine {
    /// The instance.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "an InstanceId is made only with its instance"
    )]
    pub fn get(&self, id: InstanceId) -> &Instance {
        &self.nodes[id.0 as usize]
    }

    /// The graph's node of an instance; `None` for the root.
    #[must_use]
    pub fn def(&self, id: InstanceId) -> Option<&Node> {
        self.get(id).def.map(|def| self.graph.node(def))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an InstanceId is made only with its instance"
    )]
    pub(super) fn get_mut(&mut self, id: InstanceId) -> &mut Instance {
        &mut self.nodes[id.0 as usize]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an InstanceId is made only with its instance"
    )]
    pub(super) fn meta(&self, id: InstanceId) -> &Meta {
        &self.meta[id.0 as usize]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an InstanceId is made only with its instance"
    )]
    pub(super) fn meta_mut(&mut self, id: InstanceId) -> &mut Meta {
        &mut self.meta[id.0 as usize]
    }

    /// The state of the scope that an instance is in.
    pub(super) fn scope_of(&mut self, id: InstanceId) -> &mut ScopeState {
        let scope = self.meta(id).scope;
        self.scopes.entry(scope).or_default()
    }

    pub(super) fn scope_phase(&self, scope: InstanceId) -> ScopePhase {
        self.scopes
            .get(&scope)
            .map_or(ScopePhase::Over, |s| s.phase)
    }

    pub(super) fn is_ending(&self, scope: InstanceId) -> bool {
        self.scopes.get(&scope).is_some_and(|s| s.ending.is_some())
    }

    /// The definition of the scope that an instance opens.
    pub(super) fn scope_def(&self, scope: InstanceId) -> &Scope {
        self.get(scope)
            .def
            .and_then(|def| self.graph.scope(def))
            .unwrap_or(&self.graph.root)
    }

    /// What a failure that nothing in a scope handles does.
    pub(super) fn scope_policy(&self, scope: InstanceId) -> OnFailure {
        match self.def(scope).map(|node| &node.body) {
            Some(Body::Call(call)) => call.on_failure,
            Some(Body::Step(_) | Body::Group { .. }) | None => self.graph.policy.on_failure,
        }
    }

    // ---- stages --------------------------------------------------------------------------------------

    /// Moves an execution along the table and keeps what depends on its stage.
    pub(super) fn shift(
        &mut self,
        id: InstanceId,
        phase: Phase,
        trigger: Trigger,
    ) -> Result<(), IllegalEvent> {
        let stage = self.get(id).execution(phase).stage;
        let Some(to) = next_stage(stage, trigger) else {
            return Err(IllegalEvent::Transition {
                seq: self.seq + 1,
                node: self.get(id).path.to_string(),
                stage,
                trigger,
            });
        };
        self.enter(id, phase, to);
        Ok(())
    }

    pub(super) fn enter(&mut self, id: InstanceId, phase: Phase, to: Stage) {
        let from = self.get(id).execution(phase).stage;
        self.get_mut(id).execution_mut(phase).stage = to;
        let instance = self.get_mut(id);
        instance.state = NodeState::of(instance.forward.stage, instance.undo.stage);
        let role = instance.role;
        if phase == Phase::Do {
            let counts = matches!(role, Role::Step | Role::Call);
            match (counts && from.is_active(), counts && to.is_active()) {
                (false, true) => self.activate(id),
                (true, false) => self.deactivate(id),
                (false, false) | (true, true) => {}
            }
            if role == Role::Step {
                let asleep = to.is_asleep();
                let scope = self.scope_of(id);
                if asleep {
                    scope.sleeping.insert(id);
                } else {
                    scope.sleeping.remove(&id);
                }
                match (from == Stage::Running, to == Stage::Running) {
                    (false, true) => {
                        if self.busy == 0 {
                            self.busy_since = self.last_at;
                        }
                        self.busy += 1;
                    }
                    (true, false) => {
                        self.busy = self.busy.saturating_sub(1);
                        if self.busy == 0 {
                            self.stop_the_watch();
                        }
                    }
                    (false, false) | (true, true) => {}
                }
            }
        }
        if to != Stage::InDoubt {
            self.standing.remove(&(id, phase));
            self.not_done.remove(&(id, phase));
        }
        if phase == Phase::Undo {
            if to == Stage::Failed {
                self.undo_failed.insert(id);
            } else {
                self.undo_failed.remove(&id);
            }
        }
        if to != Stage::Running {
            self.lost.remove(&(id, phase));
        }
    }

    fn stop_the_watch(&mut self) {
        let passed = Duration::between(self.busy_since, self.last_at)
            .as_millis()
            .max(0);
        self.busy_total = Duration::from_millis(self.busy_total.as_millis().saturating_add(passed));
        self.busy_since = self.last_at;
    }

    fn activate(&mut self, id: InstanceId) {
        let mut up = self.get(id).parent;
        while let Some(container) = up {
            self.meta_mut(container).active += 1;
            up = self.get(container).parent;
        }
    }

    fn deactivate(&mut self, id: InstanceId) {
        let mut up = self.get(id).parent;
        while let Some(container) = up {
            let meta = self.meta_mut(container);
            meta.active = meta.active.saturating_sub(1);
            if meta.active == 0 {
                if meta.failing.is_some() {
                    self.closing.insert(container);
                }
                if matches!(self.get(container).role, Role::Root | Role::Call) {
                    self.due_scopes.insert(container);
                }
            }
            up = self.get(container).parent;
        }
    }

    /// Forgets every timer of an execution.
    pub(super) fn clear_sleep(&mut self, id: InstanceId, phase: Phase) {
        let execution = self.get(id).execution(phase);
        let mut times = vec![];
        times.extend(execution.not_before);
        let mut name = None;
        if let Some(wait) = &execution.wait {
            times.extend(wait.deadline);
            match &wait.on {
                crate::step::WaitOn::Timer(at) => times.push(*at),
                crate::step::WaitOn::Signal(signal) => name = Some(signal.clone()),
                crate::step::WaitOn::Approval(_) => {}
            }
        }
        for at in times {
            self.timers.remove(&(at, id, phase));
        }
        if let Some(name) = name
            && let Some(listeners) = self.listening.get_mut(&name)
        {
            listeners.remove(&(id, phase));
            if listeners.is_empty() {
                self.listening.remove(&name);
            }
        }
        let execution = self.get_mut(id).execution_mut(phase);
        execution.wait = None;
        execution.not_before = None;
        execution.outside_window = false;
        self.gated.remove(&id);
    }

    pub(super) fn want(&mut self, instance: InstanceId, phase: Phase, work: Work) {
        let attempt = self.get(instance).execution(phase).attempt;
        self.wanted.insert(Wanted {
            instance,
            phase,
            attempt,
            work,
        });
    }

    pub(super) fn unwant(&mut self, instance: InstanceId, phase: Phase) {
        let attempt = self.get(instance).execution(phase).attempt;
        for work in [Work::Execute, Work::Probe] {
            self.wanted.remove(&Wanted {
                instance,
                phase,
                attempt,
                work,
            });
        }
    }
}
