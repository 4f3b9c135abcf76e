//! What others ask of the machine: where the run stands, what is in it, what is wanted, when to look again.
use super::{
    agenda::Rank,
    core::{Machine, ScopePhase},
    event::{Cancelled, Closed, Failover, Finished, Outcome, Paused, RunStarted},
    execution::Stage,
    state::{Instance, InstanceId, Role, RunState, Wanted},
    tree::ROOT,
};
use crate::{
    expr::Expr,
    graph::{Graph, readers},
    step::{Effect, Fidelity, Phase},
    value::{Timestamp, Value},
};
use indexmap::IndexMap;
use std::sync::Arc;

/// The word for a run that a person has closed.
pub const CLOSED: &str = "closed";

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

    /// Who paused it, and why. Failures that ask hold it up, too: [`Machine::questions`].
    #[must_use]
    pub fn paused(&self) -> Option<&Paused> {
        self.paused.as_ref()
    }

    /// Failures that hold the run up until a person answers each.
    pub fn questions(&self) -> impl Iterator<Item = &Instance> {
        [Rank::Asks, Rank::Asking]
            .into_iter()
            .flat_map(|rank| self.agenda.of_rank(rank))
            .map(|(_, _, id, _)| self.get(*id))
    }

    /// Who closed it, and why.
    #[must_use]
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
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

    /// Why it is being ended or undone, if it is.
    #[must_use]
    pub fn ending(&self) -> Option<String> {
        // A cancel that leaves, and comes in `finally`, cuts only that short: what the run came to stays. One that came before
        // would have made it *cancelled*, or *stopped* where something could not be undone.
        if let Some(state) = self.scopes.get(&ROOT)
            && let (Some(outcome), Some(cancelled)) = (state.outcome, &self.cancelled)
            && !state.turns_back
            && !matches!(outcome, Outcome::Cancelled | Outcome::Stopped)
        {
            let (who, outcome) = (&cancelled.who, outcome.as_str());
            return Some(format!(
                "{who} cancelled its `finally`; the outcome stays {outcome}"
            ));
        }
        self.ending_of(ROOT).map(|ending| self.why(ending))
    }

    /// Whether the run is or was to be undone: it failed or was cancelled, and nothing said that things stay as they are.
    #[must_use]
    pub fn is_to_be_undone(&self) -> bool {
        self.ending_of(ROOT).is_some_and(|ending| ending.undo)
    }

    /// Whether it belongs to a `finally`, of its own playbook or of one around it: nothing of that is ever undone.
    #[must_use]
    pub fn is_in_finally(&self, instance: &Instance) -> bool {
        self.id_of(&instance.path)
            .is_some_and(|id| self.tree.is_in_finally(id))
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

    /// Steps under way of which it is in doubt whether they act, if the process that runs them is gone.
    pub fn doubtful_if_lost(&self) -> impl Iterator<Item = &Instance> {
        let phases = [Phase::Do, Phase::Undo];
        self.instances().filter(move |instance| {
            let id = self.id_of(&instance.path);
            instance.role == Role::Step
                && phases.iter().any(|phase| {
                    instance.execution(*phase).stage() == Stage::Running
                        && id.is_some_and(|id| !self.begins_anew(id, *phase))
                })
        })
    }

    /// The gate that does not hold for a step now, and the inputs of the run that it reads: `set` changes them.
    #[must_use]
    pub fn closed_gate(&self, id: InstanceId) -> Option<(&Expr, Vec<&str>)> {
        let instance = self.get(id);
        let def = instance.def.filter(|_| instance.forward.is_gated())?;
        let gate = self.graph.node(def).gate()?;
        let inputs = self.graph.root.inputs.keys().map(String::as_str);
        let read = inputs.filter(|input| {
            instance.scope == ROOT && readers::gate_reads_input(&self.graph, def, input)
        });
        Some((gate, read.collect()))
    }

    /// The instance at a path.
    #[must_use]
    pub fn instance(&self, path: &str) -> Option<&Instance> {
        self.id_of(path).map(|id| self.get(id))
    }

    /// The id of a path.
    #[must_use]
    pub fn id_of(&self, path: &str) -> Option<InstanceId> {
        self.tree.id_of(path)
    }

    /// Where the run is.
    #[must_use]
    pub fn state(&self) -> RunState {
        if let Some(finished) = &self.finished {
            return RunState::Finished(finished.outcome);
        }
        let has = |ranks: &[Rank]| ranks.iter().any(|rank| self.agenda.has(*rank));
        let runs = has(&[Rank::Runs, Rank::Probed, Rank::Told]);
        // What was lost is not begun anew while a person's pause holds. A delay before an attempt is no wait: what follows is known.
        let follows = self.paused.is_none() && (has(&[Rank::Lost]) || self.has_retry());
        if runs || follows {
            return match self.scope_phase(ROOT) {
                ScopePhase::Undoing => RunState::Compensating,
                _ if self.is_held_up() => RunState::Paused,
                _ => RunState::Running,
            };
        }
        if has(&[Rank::Doubt, Rank::UndoFailed]) {
            return RunState::Stuck;
        }
        if self.is_held_up() {
            return RunState::Paused;
        }
        if has(&[Rank::Timer, Rank::Sleeps, Rank::Gated]) {
            return RunState::Waiting;
        }
        RunState::Running
    }

    /// Whether an attempt follows after its delay. Failures that ask hold up what goes forward, but not what is being undone.
    fn has_retry(&self) -> bool {
        let mut retries = self.agenda.of_rank(Rank::Retry);
        retries.any(|(.., phase)| !self.holds(*phase))
    }

    /// Whether only a person leads on: an undo failed, or a doubt is left, even if it is being asked about once more.
    pub(super) fn is_stuck(&self) -> bool {
        let has = |ranks: &[Rank]| ranks.iter().any(|rank| self.agenda.has(*rank));
        has(&[Rank::Doubt, Rank::UndoFailed, Rank::Probed])
            && !has(&[Rank::Lost, Rank::Runs, Rank::Told])
            && !self.has_retry()
    }

    /// The word for people and lists: a run that failed before it did anything is not called compensated, and one that a person
    /// has closed needs nobody any more.
    #[must_use]
    pub fn word(&self) -> &'static str {
        if self.closed.is_some() && self.finished.is_some() {
            return CLOSED;
        }
        match self.state() {
            RunState::Finished(outcome) => self.outcome_word(outcome),
            state => state.as_str(),
        }
    }

    pub(super) fn outcome_word(&self, outcome: Outcome) -> &'static str {
        let mut steps = self.tree.ids().map(|id| self.get(id));
        if outcome == Outcome::Compensated && !steps.any(|one| one.undo.stage() == Stage::Succeeded)
        {
            return Outcome::Failed.as_str();
        }
        outcome.as_str()
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        if self.finished.is_some() {
            return None;
        }
        let sleeper = self.next_sleeping().map(|(at, ..)| at);
        sleeper.into_iter().chain(self.overrun_at()).min()
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
}
