//! What others ask of the machine: where the run stands, what is in it, what is wanted, when to look again.
use super::{
    core::{Machine, ROOT, ScopePhase},
    event::{Cancelled, Failover, Finished, Paused, RunStarted},
    state::{Instance, InstanceId, RunState, Stage, Wanted},
};
use crate::{
    graph::Graph,
    step::{Effect, Fidelity},
    value::{Duration, Timestamp, Value},
};
use indexmap::IndexMap;
use std::{collections::BTreeSet, sync::Arc};

impl Machine {
    /// The first event.
    #[must_use]
    pub fn started(&self) -> &RunStarted {
        &self.started
    }

    /// The definition that the run finishes on.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// How many events were applied.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The lease under which the last events were written.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When the last event was.
    #[must_use]
    pub fn last_at(&self) -> Timestamp {
        self.last_at
    }

    /// The inputs as they are now.
    #[must_use]
    pub fn inputs(&self) -> &Value {
        &self.inputs
    }

    /// How the run ended.
    #[must_use]
    pub fn finished(&self) -> Option<&Finished> {
        self.finished.as_ref()
    }

    /// The playbook's outputs, once the run is over.
    #[must_use]
    pub fn outputs(&self) -> &Value {
        static NONE: Value = Value::Null;
        self.finished
            .as_ref()
            .map_or(&NONE, |finished| &finished.outputs)
    }

    /// Why it is paused.
    #[must_use]
    pub fn paused(&self) -> Option<&Paused> {
        self.paused.as_ref()
    }

    /// Who cancelled it.
    #[must_use]
    pub fn cancelled(&self) -> Option<&Cancelled> {
        self.cancelled.as_ref()
    }

    /// Targets that were failed over since it started, as the last driver found them.
    #[must_use]
    pub fn failovers(&self) -> &IndexMap<String, Failover> {
        &self.failovers
    }

    /// Why it is being ended or undone, where it is.
    #[must_use]
    pub fn ending(&self) -> Option<&str> {
        self.scopes
            .get(&ROOT)
            .and_then(|scope| scope.ending.as_ref())
            .map(|ending| ending.why.as_str())
    }

    /// All instances, parents before their children.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        let mut stack = vec![ROOT];
        std::iter::from_fn(move || {
            let id = stack.pop()?;
            let instance = self.get(id);
            stack.extend(instance.children.iter().rev());
            Some(instance)
        })
        .skip(1)
    }

    /// The run itself, around all instances.
    #[must_use]
    pub fn root(&self) -> &Instance {
        self.get(ROOT)
    }

    /// The instance at a path.
    #[must_use]
    pub fn instance(&self, path: &str) -> Option<&Instance> {
        self.id_of(path).map(|id| self.get(id))
    }

    /// The id of a path.
    #[must_use]
    pub fn id_of(&self, path: &str) -> Option<InstanceId> {
        self.by_path.get(path).copied()
    }

    /// What should be in flight.
    #[must_use]
    pub fn wanted(&self) -> &BTreeSet<Wanted> {
        &self.wanted
    }

    /// Whether an execution in flight is to be ended rather than awaited.
    #[must_use]
    pub fn is_wanted(&self, wanted: &Wanted) -> bool {
        self.wanted.contains(wanted)
    }

    /// Where the run stands.
    #[must_use]
    pub fn state(&self) -> RunState {
        if let Some(finished) = &self.finished {
            return RunState::Finished(finished.outcome);
        }
        if !self.wanted.is_empty() {
            return match self.scopes.get(&ROOT).map(|scope| scope.phase) {
                Some(ScopePhase::Undoing) => RunState::Compensating,
                _ if self.paused.is_some() => RunState::Paused,
                _ => RunState::Running,
            };
        }
        if !self.standing.is_empty() || !self.undo_failed.is_empty() {
            return RunState::Stuck;
        }
        if self.paused.is_some() {
            return RunState::Paused;
        }
        if !self.timers.is_empty()
            || !self.listening.is_empty()
            || !self.gated.is_empty()
            || self.is_asked()
        {
            return RunState::Waiting;
        }
        RunState::Running
    }

    fn is_asked(&self) -> bool {
        self.scopes.values().any(|scope| {
            scope
                .sleeping
                .iter()
                .any(|id| self.get(*id).forward.stage == Stage::AwaitingApproval)
        }) || self
            .nodes
            .iter()
            .any(|instance| instance.undo.stage == Stage::AwaitingApproval)
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        if self.finished.is_some() || self.paused.is_some() {
            return None;
        }
        let sleeper = self.timers.first().map(|(at, ..)| *at);
        let limit = self.overrun_at();
        match (sleeper, limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether an execution only sleeps, or computes with what the journal has: it reaches no server and reads nothing new.
    #[must_use]
    pub fn only_waits(&self, wanted: &Wanted) -> bool {
        self.action(wanted.instance, wanted.phase)
            .is_some_and(|action| {
                action.traits.effect == Effect::ReadOnly
                    && action.traits.fidelity == Fidelity::Simulated
                    && action.targets.is_empty()
            })
    }

    /// When `policy.max_duration` is over, as long as steps run.
    pub(super) fn overrun_at(&self) -> Option<Timestamp> {
        let limit = self.graph.policy.max_duration?;
        let forward = self
            .scopes
            .get(&ROOT)
            .is_some_and(|s| s.phase == ScopePhase::Forward && s.ending.is_none());
        if self.overran || !forward || self.busy == 0 {
            return None;
        }
        let left = limit
            .as_millis()
            .saturating_sub(self.busy_total.as_millis());
        Some(Duration::from_millis(left.max(0)).after(self.busy_since))
    }
}
