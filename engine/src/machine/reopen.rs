//! Forward again: what a person's order for a failed node opens, and what is pending again by it.
use super::{
    core::{IllegalEvent, Machine, ScopePhase},
    event::StartCause,
    execution::{At, Change, Stage},
    state::{Instance, InstanceId, Role},
};
use crate::{
    step::{Certainty, Failure, Phase, Redo},
    value::Value,
};

impl Machine {
    /// A failed node that was given another answer: the containers around it are open, and its scopes go forward again.
    ///
    /// A node in a `finally` that runs opens only what is around it there. `cause` is why what is pending around it starts.
    pub(super) fn reopen_around(
        &mut self,
        id: InstanceId,
        cause: Option<StartCause>,
    ) -> Result<(), IllegalEvent> {
        self.undone_no_more(id)?;
        let is_skipped = |at: InstanceId| self.tree.stage(at, Phase::Do) == Stage::Skipped;
        // What a person passes over inside a container that is passed over itself opens nothing.
        if cause.is_none() && self.tree.around(id).any(is_skipped) {
            return Ok(());
        }
        let mut at = id;
        while let Some(container) = self.get(at).parent {
            let in_running_finally = self.get(at).in_finally
                && self.scope_phase(self.get(at).scope) == ScopePhase::Finally;
            if in_running_finally && self.tree.is_finally_step(at) {
                return Ok(());
            }
            self.open_again(container, cause)?;
            let is_scope = matches!(self.get(container).role, Role::Root | Role::Call);
            if is_scope && !in_running_finally {
                self.go_forward(container)?;
            } else if self.is_failing(container) {
                self.ask_about_others(container)?;
            }
            at = container;
        }
        Ok(())
    }

    /// Its own compensation is no more than history: a person has given it another answer.
    fn undone_no_more(&mut self, id: InstanceId) -> Result<(), IllegalEvent> {
        if self.get(id).undone_by.is_none() {
            return Ok(());
        }
        self.shift(id, Phase::Undo, Change::Again)?;
        let instance = self.tree.get_mut(id);
        instance.undone_by = None;
        instance.execution_mut(Phase::Undo).forget();
        Ok(())
    }

    /// A container that has settled is open again. An item needs one of its loop's slots first: it is pending, and so is what is
    /// inside it. What is inside a playbook that is pending waits for that.
    fn open_again(
        &mut self,
        container: InstanceId,
        cause: Option<StartCause>,
    ) -> Result<(), IllegalEvent> {
        if !self.tree.stage(container, Phase::Do).is_settled() {
            return Ok(());
        }
        let waits = std::iter::once(container)
            .chain(self.tree.around(container))
            .map(|at| self.get(at))
            .any(|at| at.item.is_some() && !at.forward.stage().is_active())
            || self
                .tree
                .around(container)
                .any(|at| self.tree.stage(at, Phase::Do) == Stage::Idle);
        let was_skipped = self.tree.stage(container, Phase::Do) == Stage::Skipped;
        let instance = self.tree.get_mut(container);
        instance.finished_at = None;
        instance.skipped = None;
        if waits {
            self.execution_mut(container, Phase::Do).next_cause = cause;
            self.shift(container, Phase::Do, Change::Again)?;
        } else {
            self.shift(container, Phase::Do, Change::Reopen)?;
        }
        if was_skipped {
            // What was undone with it by a scope around it was passed over with it; now it counts again, and runs again. What a playbook
            // in it undid for a failure of its own is that playbook's.
            for id in self.tree.inside(container) {
                let by = self.get(id).undone_by;
                if !by.is_some_and(|by| self.tree.around(container).any(|at| at == by)) {
                    continue;
                }
                if self.tree.stage(id, Phase::Do) == Stage::Failed {
                    self.undone_no_more(id)?;
                } else {
                    self.pending_again(id)?;
                    self.open_between(id, container)?;
                }
            }
        }
        // What was open in it when it failed is open again with it.
        for child in self.get(container).children.clone() {
            if self.get(child).forward.at == At::Ended && !self.tree.is_finally_step(child) {
                self.reopen_ended(child)?;
            }
        }
        Ok(())
    }

    /// A group or loop that would fail at once again by what else failed in it: that is asked about, too.
    fn ask_about_others(&mut self, container: InstanceId) -> Result<(), IllegalEvent> {
        for id in self.get(container).children.clone() {
            let failed = At::Failed {
                asks: false,
                announced: false,
            };
            if self.get(id).forward.at == failed && self.share(id).fails_container() {
                self.shift(id, Phase::Do, Change::Ask)?;
            }
        }
        Ok(())
    }

    /// A scope goes forward again. What its compensation undid and what its end overtook is pending again; failures that
    /// had ended it ask from now on, or it would end at once by the one that nobody has answered yet.
    pub(super) fn go_forward(&mut self, scope: InstanceId) -> Result<(), IllegalEvent> {
        if self.scope_phase(scope) != ScopePhase::Forward {
            self.set_phase(scope, ScopePhase::Forward)?;
            for id in self.tree.inside(scope) {
                if self.is_passed_over(id, scope) {
                    continue;
                }
                if self.get(id).undone_by != Some(scope) {
                    if self.may_be_half_undone(id) {
                        self.half_undone(id)?;
                        self.open_between(id, scope)?;
                    }
                    continue;
                }
                if self.tree.stage(id, Phase::Do) == Stage::Failed {
                    // It failed, and what it did before it failed was undone. What failed because of it asks, so it is not opened:
                    // it would fail again at once.
                    self.undone_no_more(id)?;
                    continue;
                }
                self.pending_again(id)?;
                self.open_between(id, scope)?;
            }
        }
        if let Some(state) = self.scopes.get_mut(&scope) {
            state.watch.again();
        }
        // These first: as long as one is not asked about, the scope and those inside it still end.
        let fatal: Vec<InstanceId> = match self.scopes.get(&scope) {
            Some(state) => state.fatal.iter().map(|(_, id)| *id).collect(),
            None => Vec::new(),
        };
        for id in fatal {
            if !matches!(self.get(id).forward.at, At::Failed { asks: true, .. }) {
                self.shift(id, Phase::Do, Change::Ask)?;
            }
        }
        for id in self.tree.inside(scope) {
            let instance = self.get(id);
            if instance.in_finally || self.is_passed_over(id, scope) {
                continue;
            }
            // A playbook inside that was ending with this scope had not come to its end yet.
            if instance.scope != scope && !self.goes_forward(instance.scope) {
                continue;
            }
            if instance.forward.at == At::Ended {
                self.reopen_ended(id)?;
            } else if instance.forward.stage() == Stage::Failed && self.ended_with_outer(id) {
                // A playbook that ended only since this scope did goes forward with it.
                self.open_again(id, None)?;
                self.go_forward(id)?;
            }
        }
        self.touch_inside(scope);
        Ok(())
    }

    /// Whether it is in a container of a scope that a person skipped: it is passed over with that.
    fn is_passed_over(&self, id: InstanceId, scope: InstanceId) -> bool {
        let mut between = self.tree.around(id).take_while(|at| *at != scope);
        between.any(|at| self.tree.stage(at, Phase::Do) == Stage::Skipped)
    }

    /// Whether a step is done whose undo has begun, did not come to its end, and may have taken something away.
    pub(super) fn may_be_half_undone(&self, id: InstanceId) -> bool {
        let instance = self.get(id);
        let undo = &instance.undo;
        let left = undo.stage() != Stage::Succeeded;
        let no_effect = undo
            .own_failure()
            .is_some_and(|failure| failure.certainty == Certainty::NoEffect);
        let may_have_acted = undo.part > 0 || undo.acted_before || !no_effect;
        let is_done = instance.forward.stage() == Stage::Succeeded && instance.took_effect;
        is_done && left && undo.begun && may_have_acted
    }

    /// Such a step is not done any more. If twice is as good as once, it runs again; else a person knows what is left of it.
    fn half_undone(&mut self, id: InstanceId) -> Result<(), IllegalEvent> {
        if self.redo(id, Phase::Do) == Redo::Repeatable {
            // What is left of it is still to be undone, in its place, and from the step that its undo had come to.
            let (order, part) = (self.get(id).start_order, self.get(id).undo.part);
            self.pending_again(id)?;
            let instance = self.tree.get_mut(id);
            instance.took_effect = true;
            instance.start_order = order;
            let undo = instance.execution_mut(Phase::Undo);
            undo.part = part;
            undo.begun = part > 0;
            return Ok(());
        }
        let undo = self.get(id).undo.failure.as_deref();
        let why = undo.map_or("", |failure| failure.message.as_str());
        let failure = Failure::new(
            "undo.left",
            format!("its undo began and was left ({why}): what is left of it is not known"),
        );
        let execution = self.execution_mut(id, Phase::Do);
        execution.failure = Some(Box::new(failure.certainty(Certainty::Partial)));
        execution.failed_attempt = execution.attempt;
        self.shift(id, Phase::Do, Change::Ask)
    }

    fn reopen_ended(&mut self, id: InstanceId) -> Result<(), IllegalEvent> {
        match self.get(id).role {
            Role::Step | Role::Call => self.resume_ended(id),
            Role::Group | Role::Foreach | Role::Root => self.open_again(id, None),
        }
    }

    /// A step that the end of its scope overtook is pending again. One that may have acted is not started again unasked, unless
    /// twice is as good as once.
    fn resume_ended(&mut self, id: InstanceId) -> Result<(), IllegalEvent> {
        let acted = self.get(id).took_effect && self.redo(id, Phase::Do) != Redo::Repeatable;
        let instance = self.tree.get_mut(id);
        instance.skipped = None;
        if acted {
            let failure = Failure::new(
                "run.ended",
                "the run ended while it waited; it may have acted before",
            );
            let failure = Box::new(failure.certainty(Certainty::Partial));
            self.execution_mut(id, Phase::Do).failure = Some(failure);
            return self.shift(id, Phase::Do, Change::Ask);
        }
        instance.finished_at = None;
        let execution = instance.execution_mut(Phase::Do);
        execution.tries = 0;
        execution.first_started_at = None;
        execution.state = None;
        execution.woken = None;
        execution.next_cause = None;
        self.shift(id, Phase::Do, Change::Again)
    }

    /// Opens the containers between a node and a scope around it.
    fn open_between(&mut self, id: InstanceId, scope: InstanceId) -> Result<(), IllegalEvent> {
        for container in self.tree.around(id).collect::<Vec<_>>() {
            if container == scope {
                break;
            }
            self.open_again(container, None)?;
            if self.get(container).role == Role::Call {
                self.go_forward(container)?;
            }
        }
        Ok(())
    }

    /// A node, and everything inside it, is as if it had not run yet; only its attempts continue to count.
    pub(super) fn pending_again(&mut self, id: InstanceId) -> Result<(), IllegalEvent> {
        let mut all = self.tree.inside(id);
        all.push(id);
        // From the inside outward, so that nothing inside counts any more when its container is set back.
        all.sort_unstable();
        for id in all.into_iter().rev() {
            for phase in [Phase::Undo, Phase::Do] {
                if self.tree.stage(id, phase) != Stage::Idle {
                    self.shift(id, phase, Change::Again)?;
                }
            }
            forget(self.tree.get_mut(id));
            self.tally_mut(id).undo = super::undo::Mark::default();
            self.touch(id);
            self.recount(id)?;
            self.close_inside(id);
        }
        Ok(())
    }

    /// A foreach asks for its items anew: those that come again take up where the old ones of their path were. A call opens a new
    /// scope.
    fn close_inside(&mut self, id: InstanceId) {
        match self.get(id).role {
            Role::Foreach if self.get(id).expanded => {
                let instance = self.tree.get_mut(id);
                instance.expanded = false;
                instance.children.clear();
                let tally = self.tally(id);
                *self.tally_mut(id) = super::tally::Tally {
                    needs: tally.needs,
                    counted: tally.counted,
                    ..Default::default()
                };
            }
            Role::Call => drop(self.scopes.remove(&id)),
            Role::Root | Role::Foreach | Role::Group | Role::Step => {}
        }
    }
}

fn forget(instance: &mut Instance) {
    instance.output = Value::Null;
    instance.started_at = None;
    instance.finished_at = None;
    instance.votes.clear();
    instance.skipped = None;
    instance.took_effect = false;
    instance.by_hand = false;
    instance.undone_by = None;
    instance.start_order = 0;
    for phase in [Phase::Do, Phase::Undo] {
        // One that never started may have been ordered, or have failed before it could.
        let execution = instance.execution(phase);
        let is_new =
            execution.attempt == 0 && execution.next_cause.is_none() && execution.failure.is_none();
        if !is_new {
            instance.execution_mut(phase).forget();
        }
    }
}
