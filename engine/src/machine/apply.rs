//! The only mutator: each event, and what those of scopes and of the run do.
use super::{
    core::{Ending, IllegalEvent, Machine, ROOT, ScopePhase},
    event::*,
    state::{InstanceId, Role, Stage, Work},
    table::Trigger,
};
use crate::{step::Phase, value::Value};
use std::sync::Arc;

impl Machine {
    /// Folds one event.
    ///
    /// # Errors
    /// Where the event cannot follow what was applied before. The machine must then be dropped.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalEvent> {
        self.last_at = self.last_at.max(event.at);
        let at = event.at;
        match &event.body {
            EventBody::RunStarted(_) => return Err(IllegalEvent::NotStarted { seq: self.seq + 1 }),
            EventBody::LeaseTaken(e) => self.on_lease(e),
            EventBody::Identified(e) => self.on_identified(e)?,
            EventBody::Expanded(e) => self.on_expanded(e)?,
            EventBody::Started(e) => self.on_started(e, at)?,
            EventBody::Captured(e) => {
                let id = self.running(&e.node, e.phase, e.attempt)?;
                self.get_mut(id).execution_mut(e.phase).capture = Some(e.capture.clone());
            }
            EventBody::Marked(e) => {
                let id = self.running(&e.node, e.phase, e.attempt)?;
                let execution = self.get_mut(id).execution_mut(e.phase);
                if let Some(capture) = &e.mark.capture {
                    execution.capture = Some(capture.clone());
                }
                execution.mark = Some(e.mark.clone());
            }
            EventBody::Progressed(e) => {
                let id = self.running(&e.node, e.phase, e.attempt)?;
                let execution = self.get_mut(id).execution_mut(e.phase);
                execution.state = Some(e.state.clone());
                execution.woken = None;
            }
            EventBody::Suspended(e) => self.on_suspended(e)?,
            EventBody::Awoken(e) => self.on_awoken(e)?,
            EventBody::Succeeded(e) => self.on_succeeded(e, at)?,
            EventBody::Failed(e) => self.on_failed(e, at)?,
            EventBody::RetryScheduled(e) => {
                let id = self.find(&e.node)?;
                self.unwant(id, e.phase);
                self.shift(id, e.phase, Trigger::ScheduleRetry)?;
                self.sleep_until(id, e.phase, e.not_before, e.cause);
            }
            EventBody::Gated(e) => {
                let id = self.find(&e.node)?;
                self.shift(id, Phase::Do, Trigger::Gate)?;
                self.ready.remove(&id);
                self.clear_sleep(id, Phase::Do);
                self.gated.insert(id);
            }
            EventBody::Skipped(e) => self.on_skipped(e, at)?,
            EventBody::Doubted(e) => {
                let id = self.find(&e.node)?;
                self.unwant(id, e.phase);
                self.shift(id, e.phase, Trigger::Doubt)?;
                self.get_mut(id).execution_mut(e.phase).doubt = Some(e.why.clone());
                self.want(id, e.phase, Work::Probe);
            }
            EventBody::Probed(e) => {
                let id = self.find(&e.node)?;
                self.shift(id, e.phase, Trigger::Probe)?;
                self.unwant(id, e.phase);
                match &e.in_doubt {
                    None => {
                        self.standing.remove(&(id, e.phase));
                        self.not_done.insert((id, e.phase));
                    }
                    Some(why) => {
                        self.get_mut(id).execution_mut(e.phase).doubt = Some(why.clone());
                        self.standing.insert((id, e.phase));
                    }
                }
            }
            EventBody::Voted(e) => {
                let id = self.find(&e.node)?;
                self.get_mut(id).votes.push(e.vote.clone());
            }
            EventBody::Signalled(e) => {
                self.signals
                    .entry(e.name.clone())
                    .or_default()
                    .push(e.payload.clone());
            }
            // Spans are in the time of the run, which does not step; who waits for an instant is woken.
            EventBody::ClockStepped(_)
            | EventBody::CommandAccepted(_)
            | EventBody::CommandRefused(_) => {}
            EventBody::Resolved(e) => self.on_resolved(e, at)?,
            EventBody::RetryOrdered(e) => self.on_retry_ordered(e, at)?,
            EventBody::InputEdited(e) => {
                let mut map = self.inputs.as_map().cloned().unwrap_or_default();
                map.insert(e.name.as_str().into(), e.value.clone());
                self.inputs = Value::Map(Arc::new(map));
                for id in std::mem::take(&mut self.gated) {
                    self.sleep_until(id, Phase::Do, at, StartCause::First);
                }
            }
            EventBody::Paused(e) => {
                self.paused = Some(e.clone());
                self.attention.clear();
            }
            EventBody::Unpaused(_) => self.paused = None,
            EventBody::Cancelled(e) => self.on_cancelled(e),
            EventBody::Overran(e) => {
                self.overran = true;
                let undo = match self.graph.policy.on_failure {
                    crate::graph::OnFailure::Undo => true,
                    crate::graph::OnFailure::Pause
                    | crate::graph::OnFailure::Stop
                    | crate::graph::OnFailure::Continue
                    | crate::graph::OnFailure::Ignore => false,
                };
                self.end_scope(
                    ROOT,
                    &format!("the run took longer than max_duration ({})", e.limit),
                    undo,
                );
            }
            EventBody::CompensationStarted(e) => {
                let scope = self.find(&e.scope)?;
                self.close_open(scope);
                self.set_phase(scope, ScopePhase::Undoing)?;
                self.open_undo(scope);
            }
            EventBody::CleanupStarted(e) => {
                let scope = self.find(&e.scope)?;
                self.set_phase(scope, ScopePhase::Cleaning)?;
                self.open_undo(scope);
            }
            EventBody::FinallyStarted(e) => {
                let scope = self.find(&e.scope)?;
                self.close_open(scope);
                self.set_phase(scope, ScopePhase::Finally)?;
                if let Some(state) = self.scopes.get_mut(&scope) {
                    state.outcome = Some(e.outcome);
                }
                self.start_finally(scope);
            }
            EventBody::Finished(e) => {
                if self.finished.is_some() {
                    return Err(self.misplaced("the run is over already"));
                }
                self.set_phase(ROOT, ScopePhase::Over)?;
                self.enter(ROOT, Phase::Do, Stage::Succeeded);
                self.get_mut(ROOT).finished_at = Some(at);
                self.finished = Some((**e).clone());
                self.paused = None;
            }
            EventBody::Reopened(e) => self.on_reopened(e)?,
        }
        self.seq += 1;
        Ok(())
    }

    pub(super) fn misplaced(&self, what: &str) -> IllegalEvent {
        IllegalEvent::Phase {
            seq: self.seq + 1,
            what: what.to_owned(),
        }
    }

    pub(super) fn find(&self, path: &str) -> Result<InstanceId, IllegalEvent> {
        self.id_of(path).ok_or_else(|| IllegalEvent::NoNode {
            seq: self.seq + 1,
            node: path.to_owned(),
        })
    }

    fn set_phase(&mut self, scope: InstanceId, phase: ScopePhase) -> Result<(), IllegalEvent> {
        let before = self.scope_phase(scope);
        let allowed = match phase {
            ScopePhase::Forward => false,
            ScopePhase::Undoing | ScopePhase::Cleaning => before == ScopePhase::Forward,
            ScopePhase::Finally => {
                matches!(
                    before,
                    ScopePhase::Forward | ScopePhase::Undoing | ScopePhase::Cleaning
                )
            }
            ScopePhase::Over => before == ScopePhase::Finally,
        };
        if !allowed {
            return Err(self.misplaced(&format!("a scope cannot go from {before:?} to {phase:?}")));
        }
        if let Some(state) = self.scopes.get_mut(&scope) {
            state.phase = phase;
        }
        self.due_scopes.insert(scope);
        Ok(())
    }

    fn on_lease(&mut self, e: &LeaseTaken) {
        self.epoch = e.epoch;
        self.failovers.clone_from(&e.failovers);
        self.busy_since = self.last_at;
        // What was in flight is lost; what a probe could not settle is asked anew.
        let lost: Vec<_> = std::mem::take(&mut self.wanted).into_iter().collect();
        for wanted in lost {
            match wanted.work {
                Work::Execute => {
                    self.lost.insert((wanted.instance, wanted.phase));
                }
                Work::Probe => self.want(wanted.instance, wanted.phase, Work::Probe),
            }
        }
        // A forced cancel takes steps out of `wanted` while they still run.
        for index in 0..self.nodes.len() {
            let id = InstanceId(u32::try_from(index).unwrap_or(u32::MAX));
            if self.get(id).role != Role::Step {
                continue;
            }
            for phase in [Phase::Do, Phase::Undo] {
                if self.get(id).execution(phase).stage == Stage::Running {
                    self.lost.insert((id, phase));
                }
            }
        }
        for (id, phase) in std::mem::take(&mut self.standing) {
            self.want(id, phase, Work::Probe);
        }
    }

    pub(super) fn close_scope(&mut self, call: InstanceId) -> Result<(), IllegalEvent> {
        if self.scope_phase(call) == ScopePhase::Finally {
            self.set_phase(call, ScopePhase::Over)?;
        }
        self.due_scopes.remove(&call);
        Ok(())
    }

    fn on_cancelled(&mut self, e: &Cancelled) {
        let again = self.cancelled.is_some();
        self.cancelled = Some(e.clone());
        self.paused = None;
        let why = format!("cancelled by {}", e.who);
        let ending = Ending {
            why,
            undo: e.undo,
            cancelled: true,
            force: e.force,
            skip_finally: again && e.force,
        };
        let scopes: Vec<InstanceId> = self.scopes.keys().copied().collect();
        for scope in scopes {
            if self.scope_phase(scope) == ScopePhase::Forward || scope == ROOT {
                if let Some(state) = self.scopes.get_mut(&scope) {
                    state.ending = Some(ending.clone());
                }
                self.due_scopes.insert(scope);
            }
        }
        if e.force {
            // No longer wanted: the driver ends them on the server and reports.
            let forward: Vec<_> = self
                .wanted
                .iter()
                .filter(|w| w.phase == Phase::Do)
                .copied()
                .collect();
            for wanted in forward {
                if wanted.work == Work::Execute {
                    self.wanted.remove(&wanted);
                }
            }
        }
    }

    fn on_reopened(&mut self, e: &Reopened) -> Result<(), IllegalEvent> {
        if self.finished.take().is_none() {
            return Err(self.misplaced("the run is not over"));
        }
        self.enter(ROOT, Phase::Do, Stage::Running);
        self.get_mut(ROOT).finished_at = None;
        self.cancelled = None;
        self.reset_finally(ROOT);
        let state = self.scopes.entry(ROOT).or_default();
        state.phase = ScopePhase::Forward;
        state.outcome = None;
        state.finally_failed.clear();
        state.blocked = false;
        state.ending = e.undo.then(|| Ending {
            why: format!("undo ordered by {}", e.who),
            undo: true,
            cancelled: false,
            force: false,
            skip_finally: false,
        });
        if !e.undo {
            self.reopen_closed();
        }
        self.due_scopes.insert(ROOT);
        Ok(())
    }
}
