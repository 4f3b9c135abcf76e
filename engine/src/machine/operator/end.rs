//! `cancel`, `undo`, `close`: how a run is ended.
use super::Verdict;
use crate::{
    machine::{
        agenda::Rank,
        core::{Machine, ScopePhase},
        event::*,
        execution::Stage,
        state::{InstanceId, Role, RunState},
        tree::ROOT,
        undo::Need,
    },
    step::{Cause, Certainty, Failure, Phase},
    value::Timestamp,
};

impl Machine {
    pub(super) fn judge_cancel(
        &self,
        who: &str,
        undo: bool,
        force: bool,
        because: Option<&String>,
    ) -> Verdict {
        if !undo && self.scopes.get(&ROOT).is_some_and(|root| root.turns_back) {
            return Err(
                "it turns back from its finally to undo; `cancel --leave` gives that up once it undoes"
                    .to_owned(),
            );
        }
        if undo && self.scope_phase(ROOT) == ScopePhase::Undoing && !self.gives_up(ROOT) {
            return Err("it is undoing what it did already".to_owned());
        }
        // What sleeps in `finally` now may have come to sleep since.
        let mut cut: Vec<EventBody> = self.cut_finally(who).collect();
        if force && !undo {
            cut.extend(self.rest_of_finally(who));
        }
        // What has started since a forced cancel is ended by another.
        let runs = self.agenda.has(Rank::Runs);
        if let Some(before) = &self.cancelled
            && before.undo == undo
            && (before.force || !force)
            && cut.is_empty()
            && !(force && runs)
        {
            return Err(format!(
                "it was cancelled by {} already{}",
                before.who,
                match (runs, self.agenda.has(Rank::Told)) {
                    (true, _) => "; what runs comes to its end first: `--force` ends it at once",
                    (false, true) => "; what runs is being ended",
                    (false, false) => "",
                }
            ));
        }
        // One that turns back already may be left with nothing to undo, and still sleeps in a `finally`.
        let turns_back = self.scopes.get(&ROOT).is_some_and(|root| root.turns_back);
        if self.scope_phase(ROOT) == ScopePhase::Finally && undo && !turns_back {
            self.something_to_undo()?;
        }
        let mut doing = vec![EventBody::Cancelled(Cancelled {
            undo,
            force,
            who: who.to_owned(),
            because: because.cloned(),
        })];
        doing.extend(cut);
        Ok(doing)
    }

    /// What sleeps in a `finally` fails, so that the rest of it runs. It is not skipped: what comes behind an approval there must
    /// not run as if it had been given.
    fn cut_finally(&self, who: &str) -> impl Iterator<Item = EventBody> {
        let why = format!("cancelled by {who} while it waited");
        self.steps()
            .filter(|id| self.tree.stage(*id, Phase::Do).is_asleep())
            .filter(|id| {
                let mut at = std::iter::once(*id).chain(self.tree.around(*id));
                at.any(|at| {
                    let scope = self.tree.finally_of(at);
                    scope.is_some_and(|scope| self.scope_phase(scope) == ScopePhase::Finally)
                })
            })
            .map(move |id| {
                let certainty = if self.may_have_acted(id) {
                    Certainty::Partial
                } else {
                    Certainty::NoEffect
                };
                let failure = Failure::new("run.cancelled", why.clone())
                    .cause(Cause::Cancelled)
                    .certainty(certainty);
                self.failed_event(id, Phase::Do, failure, Vec::new(), true)
            })
    }

    /// What of the run's `finally` has not started: a forced cancel that comes while it runs passes over it.
    fn rest_of_finally(&self, who: &str) -> Vec<EventBody> {
        if self.scope_phase(ROOT) != ScopePhase::Finally {
            return Vec::new();
        }
        let idle = |id: &InstanceId| self.tree.stage(*id, Phase::Do) == Stage::Idle;
        let passed_over = |id| {
            let failure = Failure::new("run.cancelled", format!("passed over: cancelled by {who}"));
            let failure = failure
                .cause(Cause::Cancelled)
                .certainty(Certainty::NoEffect);
            self.failed_event(id, Phase::Do, failure, Vec::new(), true)
        };
        self.tree
            .finally_steps(ROOT)
            .filter(idle)
            .map(passed_over)
            .collect()
    }

    pub(super) fn judge_undo(&self, who: &str) -> Verdict {
        if self.finished.is_some() {
            self.something_to_undo()?;
            return Ok(vec![EventBody::Reopened(Reopened {
                who: who.to_owned(),
                undo: true,
                only_finally: false,
            })]);
        }
        let doing = self.judge_cancel(who, true, false, None)?;
        // What runs, waits or is in doubt may leave something behind that can be undone.
        let is_at_rest = self
            .steps()
            .all(|id| !self.tree.stage(id, Phase::Do).is_active());
        if is_at_rest {
            self.something_to_undo()
                .map_err(|why| format!("{why}; `cancel --leave` ends the run as it is"))?;
        }
        Ok(doing)
    }

    /// Whether an undo would undo anything.
    ///
    /// # Errors
    /// That nothing is left to undo, or which step is in the way.
    pub fn something_to_undo(&self) -> Result<(), String> {
        let mut tried = self.clone();
        // As `undo` would do it. What cannot even be opened is told by the trial of the command.
        tried.finished = None;
        tried.closed = None;
        tried.cancelled = None;
        tried.paused = None;
        tried.undo_ordered = Some(String::new());
        if self.finished.is_some() {
            tried.take_up_left();
        }
        for state in tried.scopes.values_mut() {
            state.phase = ScopePhase::Over;
        }
        if let Some(root) = tried.scopes.get_mut(&ROOT) {
            root.phase = ScopePhase::Undoing;
        }
        if tried.open_undo(ROOT).is_err() {
            return Ok(());
        }
        tried.refresh();
        // An undo of which the condition does not hold is passed over, and others come to their turn by it.
        while let Some(body) = tried.next_undone(self.last_at) {
            let at = self.last_at;
            let passed_over = matches!(&body, EventBody::Skipped(_));
            if !passed_over || tried.take(&Event { at, body }, at).is_err() {
                return Ok(());
            }
            tried.refresh();
        }
        // One that was in doubt as the run was closed is asked about.
        if tried.tally(ROOT).undoing > 0 {
            return Ok(());
        }
        let in_the_way = self
            .steps()
            .find(|id| tried.undo_need(*id) == Need::Impossible);
        Err(match in_the_way {
            Some(id) => {
                let path = &self.get(id).path;
                match self.tree.stage(id, Phase::Undo) {
                    Stage::Skipped => {
                        format!("nothing can be undone: the undo of {path} was skipped")
                    }
                    _ => {
                        format!("nothing can be undone: {path} is in the way, it cannot be undone")
                    }
                }
            }
            None => "there is nothing to undo".to_owned(),
        })
    }

    /// The next undo, or the next step of one.
    fn next_undone(&self, now: Timestamp) -> Option<EventBody> {
        let mut parts = self.agenda.of_rank(Rank::Retry);
        let part = parts.find(|(.., phase)| *phase == Phase::Undo);
        part.map(|(_, _, id, _)| self.start_undo(*id, now))
            .or_else(|| self.next_undo(now))
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = InstanceId> {
        let all = self.tree.inside(ROOT).into_iter();
        all.filter(|id| self.get(*id).role == Role::Step)
    }

    pub(super) fn judge_close(&self, who: &str, because: &str) -> Verdict {
        if let Some(closed) = &self.closed {
            return Err(format!("{} has closed it already", closed.who));
        }
        let closed = EventBody::Closed(Closed {
            who: who.to_owned(),
            because: because.to_owned(),
        });
        match self.state() {
            RunState::Finished(Outcome::Stopped) => Ok(vec![closed]),
            RunState::Finished(_) => Err(format!("the run is over: {}", self.word())),
            // What it left behind stays, and is told by its report.
            _ if self.is_stuck() => Ok(vec![
                closed,
                EventBody::Finished(Box::new(Finished {
                    outcome: Outcome::Stopped,
                    outputs: crate::value::Value::Null,
                    finally_failed: Vec::new(),
                    output_error: None,
                })),
            ]),
            state => Err(format!(
                "it is {}: only a stopped or stuck run can be closed; `cancel` ends this one",
                state.as_str()
            )),
        }
    }
}
