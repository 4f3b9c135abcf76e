//! The only mutator: each event, and what those of scopes and of the run do.
//!
//! An event changes the executions that it is about (`shift`), which keeps every count; then what was touched finds its line
//! on the agenda anew. Nothing else moves.
use super::{
    agenda::Rank,
    core::{IllegalEvent, Machine, ScopePhase},
    event::*,
    execution::{At, Change},
    operator::same_voter,
    state::InstanceId,
    tree::ROOT,
};
use crate::{
    step::{Phase, WaitOn},
    value::{Duration, Timestamp, Value},
};
use std::sync::Arc;

impl Machine {
    /// Folds one event.
    ///
    /// # Errors
    /// Where the event cannot follow what was applied before. The machine must then be dropped.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalEvent> {
        let before = self.last_at;
        self.last_at = before.max(event.at);
        self.take(event, before)?;
        self.refresh();
        self.seq += 1;
        // Small runs are checked whole in debug builds; for a large one that would take as long as the run has events.
        #[cfg(debug_assertions)]
        if self.tree.len() < 8 {
            self.check().map_err(|what| self.misplaced(&what))?;
        }
        Ok(())
    }

    /// `before` is the time of the event before this one.
    pub(super) fn take(&mut self, event: &Event, before: Timestamp) -> Result<(), IllegalEvent> {
        let at = event.at;
        match &event.body {
            EventBody::RunStarted(_) => return Err(IllegalEvent::NotStarted { seq: self.seq + 1 }),
            EventBody::LeaseTaken(e) => self.on_lease(e, before)?,
            EventBody::Identified(e) => self.on_identified(e)?,
            EventBody::Expanded(e) => self.on_expanded(e)?,
            EventBody::Started(e) => self.on_started(e, at)?,
            EventBody::Captured(e) => {
                let id = self.noted(&e.node, e.phase, e.attempt)?;
                self.execution_mut(id, e.phase).capture = Some(e.capture.clone());
            }
            EventBody::Marked(e) => {
                let id = self.noted(&e.node, e.phase, e.attempt)?;
                let execution = self.execution_mut(id, e.phase);
                if let Some(capture) = &e.mark.capture {
                    execution.capture = Some(capture.clone());
                }
                execution.mark = Some(Box::new(e.mark.clone()));
            }
            EventBody::Progressed(e) => {
                let id = self.noted(&e.node, e.phase, e.attempt)?;
                let execution = self.execution_mut(id, e.phase);
                execution.state = Some(e.state.clone());
                execution.woken = None;
            }
            EventBody::Suspended(e) => self.on_suspended(e)?,
            EventBody::Awoken(e) => self.on_awoken(e)?,
            EventBody::Succeeded(e) => self.on_succeeded(e, at)?,
            EventBody::Failed(e) => self.on_failed(e, at)?,
            EventBody::RetryScheduled(e) => {
                let id = self.find(&e.node)?;
                if e.phase == Phase::Do && self.is_lost(id) && self.may_have_acted(id) {
                    // It may be cut off before it starts again, and then nothing else says so.
                    self.tree.get_mut(id).took_effect = true;
                }
                self.execution_mut(id, e.phase).next_cause = Some(e.cause);
                let until = e.not_before;
                self.shift(id, e.phase, Change::Retry { until })?;
            }
            EventBody::Gated(e) => {
                let id = self.find(&e.node)?;
                self.shift(id, Phase::Do, Change::Gate)?;
            }
            EventBody::Withdrawn(e) => {
                let id = self.find(&e.node)?;
                self.shift(id, Phase::Do, Change::Again)?;
            }
            EventBody::WindowClosed(e) => {
                let id = self.find(&e.node)?;
                // Why the attempt starts stays what it was: an interrupted one keeps its checkpoint.
                let until = self.of_wall(e.opens);
                let opens = e.opens;
                self.shift(id, Phase::Do, Change::Shut { until, opens })?;
            }
            EventBody::Skipped(e) => self.on_skipped(e, at)?,
            EventBody::Doubted(e) => {
                let id = self.find(&e.node)?;
                self.shift(id, e.phase, Change::Doubt(e.why.clone()))?;
            }
            EventBody::Probed(e) => {
                let id = self.find(&e.node)?;
                self.shift(id, e.phase, Change::Probe(e.in_doubt.clone()))?;
                let execution = self.execution_mut(id, e.phase);
                execution.unexplained = e.unexplained;
                execution.not_done_by = e.in_doubt.is_none().then_some(SettledBy::Probe);
            }
            EventBody::Voted(e) => {
                let id = self.find(&e.node)?;
                let separated = [Phase::Do, Phase::Undo].iter().any(|phase| {
                    let wait = self.get(id).execution(*phase).wait();
                    wait.is_some_and(|wait| match &wait.on {
                        WaitOn::Approval(request) => request.separation_of_duties,
                        WaitOn::Timer(_) | WaitOn::Signal(_) => false,
                    })
                });
                let votes = &mut self.tree.get_mut(id).votes;
                votes.retain(|before| !same_voter(before, &e.vote, separated));
                votes.push(e.vote.clone());
            }
            EventBody::Signalled(e) => {
                self.signals
                    .entry(e.name.clone())
                    .or_default()
                    .push(e.payload.clone());
                self.touch_rank(Rank::Sleeps);
                self.touch_rank(Rank::Timer);
            }
            // Spans are in the time of the run, which does not step; who waits for an instant is woken.
            EventBody::ClockStepped(e) => self.set_wall(Duration::between(self.last_at, e.wall))?,
            EventBody::CommandAccepted(_) | EventBody::CommandRefused(_) => {}
            EventBody::Resolved(e) => self.on_resolved(e, at)?,
            EventBody::RetryOrdered(e) => self.on_retry_ordered(e, at)?,
            EventBody::InputEdited(e) => self.on_input(e)?,
            EventBody::Paused(e) => self.on_paused(e)?,
            EventBody::Unpaused(_) => self.paused = None,
            EventBody::Cancelled(e) => self.on_cancelled(e)?,
            EventBody::Overran(e) => self.on_overran(e)?,
            EventBody::CompensationStarted(e) => {
                let scope = self.find(&e.scope)?;
                self.set_phase(scope, ScopePhase::Undoing)?;
                self.open_undo(scope)?;
            }
            EventBody::CleanupStarted(e) => {
                let scope = self.find(&e.scope)?;
                self.set_phase(scope, ScopePhase::Cleaning)?;
                self.open_undo(scope)?;
            }
            EventBody::FinallyStarted(e) => {
                let scope = self.find(&e.scope)?;
                self.set_phase(scope, ScopePhase::Finally)?;
                if let Some(state) = self.scopes.get_mut(&scope) {
                    state.outcome = Some(e.outcome);
                }
            }
            EventBody::Finished(e) => {
                if self.finished.is_some() {
                    return Err(self.misplaced("the run is over already"));
                }
                self.set_phase(ROOT, ScopePhase::Over)?;
                self.tree.get_mut(ROOT).finished_at = Some(at);
                self.finished = Some((**e).clone());
                self.paused = None;
                self.shift(ROOT, Phase::Do, Change::Succeed)?;
                self.touch_inside(ROOT);
            }
            EventBody::Reopened(e) => self.on_reopened(e)?,
            EventBody::Closed(e) => self.closed = Some(e.clone()),
        }
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

    pub(super) fn execution_mut(
        &mut self,
        id: InstanceId,
        phase: Phase,
    ) -> &mut super::execution::Execution {
        self.tree.get_mut(id).execution_mut(phase)
    }

    fn on_lease(&mut self, e: &LeaseTaken, before: Timestamp) -> Result<(), IllegalEvent> {
        self.failovers.clone_from(&e.failovers);
        self.watches_pass_over(before);
        self.begin_epoch(e.epoch)
    }

    /// Windows are of the wall clock: what waits for one asks again.
    fn set_wall(&mut self, ahead: Duration) -> Result<(), IllegalEvent> {
        if self.wall_ahead == ahead {
            return Ok(());
        }
        self.wall_ahead = ahead;
        let timers: Vec<_> = self.agenda.of_rank(Rank::Timer).copied().collect();
        for (_, _, id, phase) in timers {
            if matches!(self.get(id).execution(phase).at, At::Backoff { .. }) {
                self.shift(id, phase, Change::Again)?;
            }
        }
        Ok(())
    }

    pub(super) fn begin_epoch(&mut self, epoch: u64) -> Result<(), IllegalEvent> {
        // Its driver measures by a clock of its own.
        self.set_wall(Duration::ZERO)?;
        self.epoch = epoch;
        // What was in flight under the lease before is lost.
        for rank in [Rank::Runs, Rank::Told] {
            self.touch_rank(rank);
        }
        // A server that could not be asked may answer this process.
        let doubts: Vec<_> = self.agenda.of_rank(Rank::Doubt).copied().collect();
        for (_, _, id, phase) in doubts {
            self.shift(id, phase, Change::AskAgain)?;
        }
        Ok(())
    }

    fn on_input(&mut self, e: &InputEdited) -> Result<(), IllegalEvent> {
        let mut map = self.inputs.as_map().cloned().unwrap_or_default();
        map.insert(e.name.as_str().into(), e.value.clone());
        self.inputs = Value::Map(Arc::new(map));
        let gated: Vec<_> = self.agenda.of_rank(Rank::Gated).copied().collect();
        for (_, _, id, phase) in gated {
            self.shift(id, phase, Change::Again)?;
        }
        Ok(())
    }

    fn on_paused(&mut self, e: &Paused) -> Result<(), IllegalEvent> {
        if e.who.is_some() {
            self.paused = Some(e.clone());
            return Ok(());
        }
        // For a failure. Journals of before do not say which: it was for all that asked then.
        let asking: Vec<InstanceId> = match &e.node {
            Some(node) => vec![self.find(node)?],
            None => self.asking.iter().copied().collect(),
        };
        for id in asking {
            if matches!(self.get(id).forward.at, At::Failed { .. }) {
                self.shift(id, Phase::Do, Change::Announce)?;
            }
        }
        Ok(())
    }

    fn on_cancelled(&mut self, e: &Cancelled) -> Result<(), IllegalEvent> {
        let gave_up = self.given_up();
        self.cancelled = Some(e.clone());
        self.recount_failed()?;
        self.paused = None;
        if self.scope_phase(ROOT) == ScopePhase::Finally
            && let Some(state) = self.scopes.get_mut(&ROOT)
        {
            state.turns_back = e.undo;
        }
        // What an order before gave up is undone after all.
        for scope in gave_up {
            if !self.gives_up(scope) {
                self.open_undo(scope)?;
            }
        }
        self.touch_inside(ROOT);
        if e.force {
            // Their statements end on the servers, and they report. An undo is given up only by a cancel that leaves.
            let runs: Vec<_> = self.agenda.of_rank(Rank::Runs).copied().collect();
            for (_, _, id, phase) in runs {
                if phase == Phase::Do || !e.undo {
                    self.shift(id, phase, Change::Tell)?;
                }
            }
        }
        Ok(())
    }

    fn on_reopened(&mut self, e: &Reopened) -> Result<(), IllegalEvent> {
        if self.finished.take().is_none() {
            return Err(self.misplaced("the run is not over"));
        }
        self.closed = None;
        self.shift(ROOT, Phase::Do, Change::Reopen)?;
        self.tree.get_mut(ROOT).finished_at = None;
        self.touch_inside(ROOT);
        if e.only_finally {
            if let Some(state) = self.scopes.get_mut(&ROOT) {
                state.phase = ScopePhase::Finally;
            }
            return Ok(());
        }
        self.cancelled = None;
        self.recount_failed()?;
        self.undo_ordered = e.undo.then(|| e.who.clone());
        if e.undo {
            self.take_up_left();
            return self.set_phase(ROOT, ScopePhase::Forward);
        }
        self.go_forward(ROOT)
    }
}
