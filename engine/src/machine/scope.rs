//! The life of a scope: forward, then compensation or clean-up, then its `finally`, then its end.
use super::{
    core::{IllegalEvent, Machine, ScopePhase},
    event::*,
    execution::Change,
    state::{InstanceId, Role},
    tree::ROOT,
};
use crate::{
    expr::ExprError,
    graph::OnFailure,
    step::{Certainty, Failure, Phase},
    value::Value,
};

/// Why a scope ends before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Cancelled,
    /// A run that was over is undone.
    Ordered,
    /// The time of this scope was over.
    Overran(InstanceId),
    Failed(InstanceId),
}

/// That a scope ends before its last step. It follows from what is written; nothing is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending {
    pub reason: Reason,
    pub undo: bool,
}

/// What a scope turns to next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Undo,
    Clean,
    Finally,
    Close,
}

impl Machine {
    /// Whether a scope ends, and how. What a person ordered for the run comes first, then what the scope itself came to, then
    /// the scopes around it.
    pub(super) fn ending_of(&self, scope: InstanceId) -> Option<Ending> {
        let mut at = scope;
        let mut found: Option<Ending> = None;
        loop {
            let own = self.own_ending(at);
            found = match (found, own) {
                // Nothing around it takes back that things are left as they are; and what has begun to undo does so.
                (Some(inner), Some(outer)) if self.scope_phase(scope) == ScopePhase::Forward => {
                    let undo = inner.undo && outer.undo;
                    Some(Ending { undo, ..inner })
                }
                (inner, outer) => inner.or(outer),
            };
            if at == ROOT {
                return self.ordered_ending().or(found);
            }
            let around = self.get(at).scope;
            // What is called from a `finally` runs whatever the scope around it came to, unless that turns back from it.
            if self.get(at).in_finally {
                let turns = self
                    .scopes
                    .get(&around)
                    .is_some_and(|state| state.turns_back);
                return if turns {
                    self.ordered_ending().or(found)
                } else {
                    found
                };
            }
            at = around;
        }
    }

    fn ordered_ending(&self) -> Option<Ending> {
        if let Some(cancelled) = &self.cancelled {
            return Some(Ending {
                reason: Reason::Cancelled,
                undo: cancelled.undo,
            });
        }
        self.undo_ordered.as_ref().map(|_| Ending {
            reason: Reason::Ordered,
            undo: true,
        })
    }

    /// Of several failures one that leaves things as they are outweighs one that undoes: undoing can still follow, and cannot
    /// be taken back.
    fn own_ending(&self, scope: InstanceId) -> Option<Ending> {
        let state = self.scopes.get(&scope)?;
        let overran = state.watch.overran.then(|| Ending {
            reason: Reason::Overran(scope),
            undo: self.scope_policy(scope) == OnFailure::Undo,
        });
        let fatal = &state.fatal;
        let Some((_, first)) = fatal.first() else {
            return overran;
        };
        let undoes = |(_, id): &(_, InstanceId)| {
            self.reaction_now(*id, false) != super::reaction::Reaction::End { undo: false }
        };
        Some(Ending {
            reason: Reason::Failed(*first),
            undo: fatal.iter().all(undoes) && overran.is_none_or(|overran| overran.undo),
        })
    }

    /// Why a scope ends, for people.
    pub(super) fn why(&self, ending: Ending) -> String {
        match ending.reason {
            Reason::Cancelled => {
                let who = self.cancelled.as_ref().map_or("", |c| c.who.as_str());
                format!("cancelled by {who}")
            }
            Reason::Ordered => {
                let who = self.undo_ordered.as_deref().unwrap_or_default();
                format!("undo ordered by {who}")
            }
            Reason::Overran(scope) => {
                let limit = self.limit_of(scope).unwrap_or_default();
                let what = match &*self.get(scope).path {
                    "" => "the run",
                    path => path,
                };
                format!("{what} took longer than max_duration ({limit})")
            }
            Reason::Failed(id) => {
                let instance = self.get(id);
                let failure = instance.forward.failure.as_ref();
                let message = failure.map_or("", |failure| failure.message.as_str());
                format!("{} failed: {message}", instance.path)
            }
        }
    }

    /// Whether a scope still runs its steps.
    pub(super) fn goes_forward(&self, scope: InstanceId) -> bool {
        self.scope_phase(scope) == ScopePhase::Forward && self.ending_of(scope).is_none()
    }

    /// What a scope may turn to now; `None` as long as something in it must come to its end first.
    pub(super) fn turn(&self, scope: InstanceId) -> Option<Turn> {
        let state = self.scopes.get(&scope)?;
        let tally = self.tally(scope);
        match state.phase {
            ScopePhase::Forward => match self.ending_of(scope) {
                Some(_) if tally.active > 0 => None,
                Some(ending) if ending.undo => Some(Turn::Undo),
                Some(_) => Some(Turn::Finally),
                None if tally.open > 0 => None,
                None if self.has_scratch(scope) => Some(Turn::Clean),
                None => Some(Turn::Finally),
            },
            ScopePhase::Undoing => self.undo_is_over(scope).then_some(Turn::Finally),
            // A cancel that undoes makes a whole compensation of a clean-up; what is being cleaned up comes to its end first.
            ScopePhase::Cleaning => match self.ending_of(scope).filter(|_| scope == ROOT) {
                Some(ending) if ending.undo => (tally.undoing == 0).then_some(Turn::Undo),
                Some(_) | None => self.undo_is_over(scope).then_some(Turn::Finally),
            },
            ScopePhase::Finally if tally.active > 0 => None,
            ScopePhase::Finally if state.turns_back => Some(Turn::Undo),
            ScopePhase::Finally => self.finally_is_done(scope).then_some(Turn::Close),
            ScopePhase::Over => None,
        }
    }

    /// The event of a scope's turn.
    pub(super) fn turn_event(&self, scope: InstanceId, turn: Turn) -> EventBody {
        let path = self.get(scope).path.clone();
        match turn {
            Turn::Undo => EventBody::CompensationStarted(CompensationStarted {
                scope: path,
                why: self
                    .ending_of(scope)
                    .map_or_else(String::new, |ending| self.why(ending)),
            }),
            Turn::Clean => EventBody::CleanupStarted(ScopeEvent { scope: path }),
            Turn::Finally => EventBody::FinallyStarted(FinallyStarted {
                scope: path,
                outcome: self.outcome_of(scope),
            }),
            Turn::Close if scope == ROOT => self.finish(),
            Turn::Close => self.close_call(scope),
        }
    }

    pub(super) fn set_phase(
        &mut self,
        scope: InstanceId,
        to: ScopePhase,
    ) -> Result<(), IllegalEvent> {
        use ScopePhase as P;
        let from = self.scope_phase(scope);
        let allowed = match to {
            P::Forward => true,
            // Finally: a cancel there that undoes.
            P::Undoing => matches!(from, P::Forward | P::Cleaning | P::Finally),
            P::Cleaning => from == P::Forward,
            P::Finally => matches!(from, P::Forward | P::Undoing | P::Cleaning),
            // From anywhere: a run that is closed as it is.
            P::Over => from == P::Finally || self.closed.is_some(),
        };
        let ending = self.ending_of(scope);
        let outer_end = self.own_ending(scope).is_none() && ending.is_some();
        let state = self.scopes.get_mut(&scope).filter(|_| allowed);
        let Some(state) = state else {
            return Err(self.misplaced(&format!("a scope cannot turn from {from:?} to {to:?}")));
        };
        if from == P::Forward {
            state.outer_end = outer_end;
            state.left_by = ending;
        }
        state.phase = to;
        if to == P::Forward {
            state.outer_end = false;
        }
        if matches!(to, P::Forward | P::Undoing) {
            state.turns_back = false;
            state.outcome = None;
        }
        self.touch_inside(scope);
        if matches!(from, P::Forward | P::Finally) && to != P::Over {
            self.end_open(scope)?;
        }
        if matches!(from, P::Finally | P::Over) && matches!(to, P::Forward | P::Undoing) {
            // It runs again at the end that comes now.
            for step in self.tree.finally_steps(scope).collect::<Vec<_>>() {
                self.pending_again(step)?;
            }
        }
        Ok(())
    }

    /// What the scope comes to, as it stands when its `finally` begins.
    fn outcome_of(&self, scope: InstanceId) -> Outcome {
        let Some(state) = self.scopes.get(&scope) else {
            return Outcome::Stopped;
        };
        // A playbook that is called comes to what it turned to, whatever ends around it meanwhile; but it gives that up with it.
        let comes_to_its_end = scope != ROOT && state.phase != ScopePhase::Forward;
        // A cancel of a run that was opened again since is over.
        let left_by = state
            .left_by
            .filter(|ending| ending.reason != Reason::Cancelled || self.cancelled.is_some());
        let ending = if comes_to_its_end && !self.gives_up(scope) && left_by == state.left_by {
            left_by
        } else {
            self.ending_of(scope)
        };
        match ending {
            None if state.soft > 0 => Outcome::Failed,
            None => Outcome::Succeeded,
            Some(Ending {
                reason: Reason::Cancelled,
                undo: false,
            }) => Outcome::Cancelled,
            Some(_) if state.blocked => Outcome::Stopped,
            Some(Ending {
                reason: Reason::Cancelled,
                ..
            }) => Outcome::Cancelled,
            Some(Ending { undo: true, .. }) => Outcome::Compensated,
            Some(_) => Outcome::Stopped,
        }
    }

    fn finish(&self) -> EventBody {
        let state = self.scopes.get(&ROOT);
        let outcome = state
            .and_then(|state| state.outcome)
            .unwrap_or(Outcome::Stopped);
        let (outputs, output_error) = match outcome {
            Outcome::Succeeded | Outcome::Failed => match self.scope_outputs(ROOT) {
                Ok(outputs) => (outputs, None),
                Err(error) => (Value::Null, Some(error.message)),
            },
            Outcome::Compensated | Outcome::Stopped | Outcome::Cancelled => (Value::Null, None),
        };
        EventBody::Finished(Box::new(Finished {
            outcome,
            outputs,
            finally_failed: self.finally_failed(ROOT),
            output_error,
        }))
    }

    fn scope_outputs(&self, scope: InstanceId) -> Result<Value, ExprError> {
        let outputs = &self.scope_def(scope).outputs;
        let mut map = crate::value::Map::new();
        for (name, template) in outputs {
            let vars = self.scope_vars(scope, template.expressions())?;
            let value = template.evaluate(&vars).map_err(|mut error| {
                error.message = format!("output {name}: {}", error.message);
                error
            })?;
            map.insert(name.as_str().into(), value);
        }
        Ok(Value::Map(std::sync::Arc::new(map)))
    }

    /// A call ends as its scope did.
    fn close_call(&self, call: InstanceId) -> EventBody {
        let state = self.scopes.get(&call);
        let outcome = state
            .and_then(|state| state.outcome)
            .unwrap_or(Outcome::Stopped);
        let why = self
            .ending_of(call)
            .map_or_else(|| "a step failed".to_owned(), |ending| self.why(ending));
        let failure = |certainty| {
            Failure::new(format!("call.{}", outcome.as_str()), why.clone()).certainty(certainty)
        };
        let failure = match outcome {
            Outcome::Succeeded => match self.scope_outputs(call) {
                Ok(outputs) => return self.succeeded_event(call, outputs),
                Err(error) => {
                    Failure::new("call.outputs", error.message).certainty(Certainty::Partial)
                }
            },
            Outcome::Compensated => failure(Certainty::NoEffect),
            Outcome::Failed | Outcome::Stopped | Outcome::Cancelled => failure(Certainty::Partial),
        };
        self.failed_event(call, Phase::Do, failure, Vec::new(), true)
    }

    // ---- finally -------------------------------------------------------------------------------------

    /// Whether it is a step's turn in its `finally`: those before it have settled, and no other is under way.
    pub(super) fn is_finally_turn(&self, id: InstanceId) -> bool {
        let steps = self.tree.finally_steps(self.get(id).scope);
        let position = self.get(id).position;
        steps.into_iter().all(|other| {
            let stage = self.tree.stage(other, Phase::Do);
            let is_before = self.get(other).position < position;
            other == id || !stage.is_active() && (!is_before || stage.is_settled())
        })
    }

    /// The end of a scope, a group or a loop overtakes the groups and loops that are open in it.
    pub(super) fn end_open(&mut self, container: InstanceId) -> Result<(), IllegalEvent> {
        let scope = match self.get(container).role {
            Role::Root | Role::Call => container,
            Role::Foreach | Role::Group | Role::Step => self.get(container).scope,
        };
        for id in self.tree.inside(container) {
            let instance = self.get(id);
            let is_container = matches!(instance.role, Role::Group | Role::Foreach);
            let is_open = instance.forward.stage() == super::Stage::Running;
            if instance.scope == scope && is_container && is_open {
                self.shift(id, Phase::Do, Change::End)?;
            }
        }
        Ok(())
    }

    fn finally_is_done(&self, scope: InstanceId) -> bool {
        self.tree
            .finally_steps(scope)
            .all(|id| self.tree.stage(id, Phase::Do).is_settled())
    }

    fn finally_failed(&self, scope: InstanceId) -> Vec<NodePath> {
        let failed = |id: &InstanceId| self.tree.stage(*id, Phase::Do) == super::Stage::Failed;
        self.tree
            .finally_steps(scope)
            .filter(failed)
            .map(|id| self.get(id).path.clone())
            .collect()
    }
}
