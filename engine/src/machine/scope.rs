//! What comes next for a scope: compensation or clean-up, then its `finally`, then its end.
use super::{
    core::{Machine, ROOT, ScopePhase},
    event::*,
    state::InstanceId,
};
use crate::{
    expr::ExprError,
    step::{Certainty, Failure, Phase},
    value::Value,
};

impl Machine {
    pub(super) fn next_scope(&self) -> Option<EventBody> {
        self.due_scopes
            .iter()
            .find_map(|scope| self.scope_event(*scope))
    }

    fn scope_event(&self, scope: InstanceId) -> Option<EventBody> {
        let state = self.scopes.get(&scope)?;
        let path = self.get(scope).path.clone();
        let forward_active = self.meta(scope).active > 0;
        match state.phase {
            ScopePhase::Forward => {
                if let Some(ending) = &state.ending {
                    if forward_active {
                        return None;
                    }
                    if ending.undo {
                        return Some(EventBody::CompensationStarted(CompensationStarted {
                            scope: path,
                            why: ending.why.clone(),
                        }));
                    }
                    return Some(self.finally_event(scope));
                }
                if self.meta(scope).unsettled > 0 || self.paused.is_some() {
                    return None;
                }
                if self.has_scratch(scope) {
                    return Some(EventBody::CleanupStarted(ScopeEvent { scope: path }));
                }
                Some(self.finally_event(scope))
            }
            ScopePhase::Undoing | ScopePhase::Cleaning => {
                self.undo_is_over(scope).then(|| self.finally_event(scope))
            }
            ScopePhase::Finally => {
                if forward_active || !self.finally_done(scope) {
                    return None;
                }
                Some(if scope == ROOT {
                    self.finish()
                } else {
                    self.close_call(scope)
                })
            }
            ScopePhase::Over => None,
        }
    }

    fn finally_event(&self, scope: InstanceId) -> EventBody {
        EventBody::FinallyStarted(FinallyStarted {
            scope: self.get(scope).path.clone(),
            outcome: self.scope_outcome(scope),
        })
    }

    fn scope_outcome(&self, scope: InstanceId) -> Outcome {
        let Some(state) = self.scopes.get(&scope) else {
            return Outcome::Stopped;
        };
        match &state.ending {
            None if state.soft_failure => Outcome::Failed,
            None => Outcome::Succeeded,
            Some(_) if state.blocked => Outcome::Stopped,
            Some(ending) if ending.cancelled => Outcome::Cancelled,
            Some(ending) if ending.undo => Outcome::Compensated,
            Some(_) => Outcome::Stopped,
        }
    }

    fn finish(&self) -> EventBody {
        let outcome = self.scope_outcome(ROOT);
        let (outputs, output_error) = match outcome {
            Outcome::Succeeded | Outcome::Failed => match self.scope_outputs(ROOT) {
                Ok(outputs) => (outputs, None),
                Err(error) => (Value::Null, Some(error.message)),
            },
            Outcome::Compensated | Outcome::Stopped | Outcome::Cancelled => (Value::Null, None),
        };
        let finally_failed = self
            .scopes
            .get(&ROOT)
            .map(|s| s.finally_failed.clone())
            .unwrap_or_default();
        EventBody::Finished(Box::new(Finished {
            outcome,
            outputs,
            finally_failed,
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
        let outcome = self.scope_outcome(call);
        let why = self
            .scopes
            .get(&call)
            .and_then(|s| s.ending.as_ref())
            .map_or_else(|| "a step failed".to_owned(), |ending| ending.why.clone());
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
}
