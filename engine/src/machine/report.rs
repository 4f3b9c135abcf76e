//! What the driver reports about an execution, as events.
use super::{
    core::Machine,
    event::*,
    execution::{At, Stage},
    state::Wanted,
};
use crate::{
    step::{
        Cause, Certainty, Effect, Evidence, Failure, Mark, Phase, Probed as ProbeAnswer, Redo, Wait,
    },
    value::{Timestamp, Value},
};

/// What came of an execution, or comes while it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// Undo's data was read.
    Captured(Value),
    /// The act comes next.
    Marked(Mark),
    /// A checkpoint.
    Progressed(Value),
    /// It sleeps.
    Suspended {
        /// What it keeps.
        state: Value,
        /// What wakes it.
        wait: Wait,
    },
    /// It is done.
    Done {
        /// Its output.
        output: Value,
        /// What it keeps.
        evidence: Vec<Evidence>,
    },
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
        /// What it keeps.
        evidence: Vec<Evidence>,
    },
    /// A probe answered.
    Probed(ProbeAnswer<Value>),
}

impl Machine {
    /// The report of an attempt that is told to end and has not begun in this process: nobody else reports its end. One that was
    /// woken may have acted before it slept.
    #[must_use]
    pub fn unbegun(&self, work: &Wanted) -> Report {
        let execution = self.get(work.instance).execution(work.phase);
        let acted = execution.woken.is_some() || execution.mark.is_some();
        let certainty = if acted {
            Certainty::Partial
        } else {
            Certainty::NoEffect
        };
        Report::Failed {
            failure: Failure::new("run.cancelled", "cancelled before it began")
                .cause(Cause::Cancelled)
                .certainty(certainty),
            evidence: Vec::new(),
        }
    }

    /// The events that a report causes; none where it comes too late to count.
    #[must_use]
    pub fn report(&self, work: &Wanted, report: Report, now: Timestamp) -> Vec<Event> {
        let at = now.max(self.last_at);
        self.report_bodies(work, report, at)
            .into_iter()
            .map(|body| Event { at, body })
            .collect()
    }

    /// The event of an execution that its driver ended on the server, without effect: it starts anew when the run continues.
    /// None where that is not so, or where it comes too late to count.
    #[must_use]
    pub fn interrupted(&self, work: &Wanted, failure: &Failure, now: Timestamp) -> Vec<Event> {
        let (id, phase) = (work.instance, work.phase);
        let execution = self.get(id).execution(phase);
        let counts = execution.attempt == work.attempt && execution.stage() == Stage::Running;
        if !counts || failure.certainty != Certainty::NoEffect {
            return Vec::new();
        }
        let at = now.max(self.last_at);
        let body = EventBody::RetryScheduled(RetryScheduled {
            node: self.get(id).path.clone(),
            phase,
            not_before: at,
            cause: StartCause::Interrupted,
        });
        vec![Event { at, body }]
    }

    fn report_bodies(&self, work: &Wanted, report: Report, now: Timestamp) -> Vec<EventBody> {
        let (id, phase, attempt) = (work.instance, work.phase, work.attempt);
        let execution = self.get(id).execution(phase);
        // An attempt under an earlier lease is lost, whatever still comes of it.
        let expected = match (&report, &execution.at) {
            (Report::Probed(_), At::InDoubt { .. }) => true,
            (Report::Probed(_), _) => false,
            (_, At::Running { epoch, .. }) => *epoch == self.epoch,
            (_, _) => false,
        };
        // A run that was closed in doubt does not learn what its probe found.
        let counts = self.finished.is_none() && execution.attempt == attempt;
        if !counts || !expected {
            return Vec::new();
        }
        let node = self.get(id).path.clone();
        match report {
            Report::Captured(capture) => vec![EventBody::Captured(Captured {
                node,
                phase,
                attempt,
                capture,
            })],
            Report::Marked(mark) => vec![EventBody::Marked(Box::new(Marked {
                node,
                phase,
                attempt,
                mark,
            }))],
            Report::Progressed(state) => {
                vec![EventBody::Progressed(Progressed {
                    node,
                    phase,
                    attempt,
                    state,
                })]
            }
            Report::Suspended { state, mut wait } => {
                // The timeout of a step that sleeps is for the whole of it.
                let limit = self
                    .action(id, phase)
                    .and_then(|action| self.timeout(id, phase, action))
                    .map(|timeout| timeout.after(execution.first_started_at.unwrap_or(now)));
                wait.deadline = match (wait.deadline, limit) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                vec![EventBody::Suspended(Box::new(Suspended {
                    node,
                    phase,
                    attempt,
                    state,
                    wait,
                }))]
            }
            Report::Done { output, evidence } => vec![EventBody::Succeeded(Box::new(Succeeded {
                node,
                phase,
                part: execution.part,
                attempt,
                output,
                evidence,
                by: SettledBy::Step,
            }))],
            Report::Failed { failure, evidence } => {
                self.failure_bodies(work, failure, evidence, now)
            }
            Report::Probed(ProbeAnswer::Done(output)) => {
                let marked = || {
                    execution
                        .mark
                        .as_ref()
                        .map(|mark| mark.output.clone())
                        .unwrap_or_default()
                };
                vec![EventBody::Succeeded(Box::new(Succeeded {
                    node,
                    phase,
                    part: execution.part,
                    attempt,
                    output: output.unwrap_or_else(marked),
                    evidence: Vec::new(),
                    by: SettledBy::Probe,
                }))]
            }
            Report::Probed(ProbeAnswer::NotDone) => {
                vec![EventBody::Probed(Probed {
                    node,
                    phase,
                    attempt,
                    in_doubt: None,
                    unexplained: false,
                })]
            }
            Report::Probed(ProbeAnswer::InDoubt(why)) => {
                vec![EventBody::Probed(Probed {
                    node,
                    phase,
                    attempt,
                    in_doubt: Some(why),
                    unexplained: false,
                })]
            }
            Report::Probed(ProbeAnswer::Unexplained(why)) => {
                vec![EventBody::Probed(Probed {
                    node,
                    phase,
                    attempt,
                    in_doubt: Some(why),
                    unexplained: true,
                })]
            }
        }
    }

    fn failure_bodies(
        &self,
        work: &Wanted,
        mut failure: Failure,
        evidence: Vec<Evidence>,
        now: Timestamp,
    ) -> Vec<EventBody> {
        let (id, phase) = (work.instance, work.phase);
        let reads = self
            .action(id, phase)
            .is_some_and(|a| a.traits.effect == Effect::ReadOnly);
        if reads && !(phase == Phase::Undo && self.undo_is_auto(id)) {
            failure.certainty = Certainty::NoEffect;
        }
        let repeatable = self.redo(id, phase) == Redo::Repeatable;
        let doubt = failure.certainty == Certainty::Unknown && !repeatable;
        let retry = !doubt && self.may_retry(id, phase, &failure);
        let why = failure.message.clone();
        let mut failed = self.failed_event(id, phase, failure, Vec::new(), !doubt && !retry);
        if let EventBody::Failed(failed) = &mut failed {
            failed.evidence = evidence;
        }
        let mut bodies = vec![failed];
        if doubt {
            bodies.push(EventBody::Doubted(Doubted {
                node: self.get(id).path.clone(),
                phase,
                attempt: work.attempt,
                why,
            }));
        } else if retry {
            bodies.push(self.retry_event(id, phase, now));
        }
        bodies
    }
}
