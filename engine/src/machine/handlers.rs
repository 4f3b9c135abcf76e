//! What the events of one execution do: its starts, its waits and answers, how it ends.
use super::{
    agenda::Rank,
    core::{IllegalEvent, Machine},
    event::*,
    execution::{At, Change, Stage},
    state::{InstanceId, Role},
};
use crate::{
    graph::Undo,
    step::{Certainty, Effect, Phase, Redo, WaitOn, Woken},
    value::{Timestamp, Value},
};

impl Machine {
    fn attempt_is(&self, id: InstanceId, phase: Phase, attempt: u32) -> Result<(), IllegalEvent> {
        let current = self.get(id).execution(phase).attempt;
        if current == attempt {
            return Ok(());
        }
        Err(self.wrong_attempt(id, current, attempt))
    }

    fn wrong_attempt(&self, id: InstanceId, current: u32, given: u32) -> IllegalEvent {
        IllegalEvent::Attempt {
            seq: self.seq + 1,
            node: self.get(id).path.to_string(),
            current,
            given,
        }
    }

    /// An attempt that runs, of which something is noted.
    pub(super) fn noted(
        &mut self,
        node: &str,
        phase: Phase,
        attempt: u32,
    ) -> Result<InstanceId, IllegalEvent> {
        let id = self.find(node)?;
        self.attempt_is(id, phase, attempt)?;
        self.shift(id, phase, Change::Note)?;
        Ok(id)
    }

    pub(super) fn on_expanded(&mut self, e: &Expanded) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        self.shift(id, Phase::Do, Change::Note)?;
        let Some(def) = self
            .get(id)
            .def
            .filter(|_| self.get(id).role == Role::Foreach)
        else {
            return Err(self.misplaced("only a foreach has items"));
        };
        self.tree.get_mut(id).expanded = true;
        self.add_items(id, def, &e.items);
        self.touch(id);
        Ok(())
    }

    pub(super) fn on_started(&mut self, e: &Started, at: Timestamp) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        let before = self.get(id).execution(e.phase).attempt;
        // Journals of before count the attempts inside a `finally` from 1 again when it runs again.
        let counts_anew = e.attempt == 1 && self.get(id).in_finally;
        if e.attempt != before + 1 && !counts_anew {
            return Err(self.wrong_attempt(id, before, e.attempt));
        }
        // Started again after its driver was lost: the attempt before may have acted, whatever comes of this one.
        if e.phase == Phase::Do && self.may_have_acted(id) {
            self.tree.get_mut(id).took_effect = true;
        }
        let was_lost = self.tree.stage(id, e.phase) == Stage::Running;
        if was_lost || e.cause != StartCause::Interrupted {
            self.execution_mut(id, e.phase).not_done_by = None;
        }
        if e.phase == Phase::Undo && was_lost {
            // An undo that is the kind's own leaves no mark.
            let is_marked = self.marks(id, e.phase) && !self.undo_is_auto(id);
            let may_have = !is_marked || self.get(id).undo.mark.is_some();
            self.execution_mut(id, e.phase).acted_before |= may_have;
        }
        let epoch = self.epoch;
        self.shift(id, e.phase, Change::Start { epoch })?;
        self.starts += 1;
        let order = self.starts;
        {
            let execution = self.execution_mut(id, e.phase);
            execution.attempt = e.attempt;
            execution.begun = true;
            execution.part = e.part;
            if e.cause != StartCause::Interrupted {
                execution.tries += 1;
                execution.state = None;
                execution.woken = None;
            }
            execution.first_started_at.get_or_insert(at);
            execution.started_at = Some(at);
            execution.deadline = e.deadline;
            execution.input = e.input.clone();
            execution.targets.clone_from(&e.targets);
            execution.capture = None;
            execution.mark = None;
            execution.next_cause = None;
            execution.unexplained = false;
        }
        if e.cause != StartCause::Interrupted {
            // The question is asked anew. One that only looks at the clock, or pages somebody else, keeps its votes.
            self.tree.get_mut(id).votes.clear();
        }
        if e.phase == Phase::Do {
            let instance = self.tree.get_mut(id);
            instance.started_at.get_or_insert(at);
            instance.by_hand = false;
            instance.skipped = None;
            if instance.start_order == 0 {
                instance.start_order = order;
            }
            // What is done from here on is undone from its first undo step.
            if instance.undo.attempt > 0 || instance.undo.left {
                instance.execution_mut(Phase::Undo).forget();
            }
            self.open(id);
        }
        Ok(())
    }

    pub(super) fn on_suspended(&mut self, e: &Suspended) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        self.attempt_is(id, e.phase, e.attempt)?;
        self.shift(id, e.phase, Change::Suspend(Box::new(e.wait.clone())))?;
        let execution = self.execution_mut(id, e.phase);
        execution.state = Some(e.state.clone());
        execution.woken = None;
        Ok(())
    }

    pub(super) fn on_awoken(&mut self, e: &Awoken) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        let wait = self.get(id).execution(e.phase).wait();
        if let (Woken::Signal(_), Some(WaitOn::Signal(name))) = (&e.by, wait.map(|wait| &wait.on)) {
            let name = name.clone();
            if let Some(kept) = self.signals.get_mut(&name).filter(|kept| !kept.is_empty()) {
                kept.remove(0);
                if kept.is_empty() {
                    self.signals.remove(&name);
                }
            }
            // Others that listened for it sleep on.
            self.touch_rank(Rank::Signal);
        }
        let epoch = self.epoch;
        self.shift(id, e.phase, Change::Wake { epoch })?;
        self.execution_mut(id, e.phase).woken = Some(Box::new(e.by.clone()));
        Ok(())
    }

    /// What a container's output is made of, or the output itself.
    fn output_of(&self, id: InstanceId, output: &Value) -> Value {
        match self.get(id).role {
            Role::Foreach => self.foreach_view(id),
            Role::Group => self.group_view(id),
            Role::Step | Role::Call | Role::Root => output.clone(),
        }
    }

    pub(super) fn on_succeeded(
        &mut self,
        e: &Succeeded,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        self.attempt_is(id, e.phase, e.attempt)?;
        self.execution_mut(id, e.phase).took_effect(e.attempt, e.by);
        if e.phase == Phase::Undo {
            return self.part_undone(id, e.part, Change::Succeed, at);
        }
        let output = self.output_of(id, &e.output);
        let acted = self.writes(id);
        let instance = self.tree.get_mut(id);
        instance.output = output;
        instance.finished_at = Some(at);
        instance.took_effect = acted;
        self.execution_mut(id, Phase::Do).failure = None;
        self.shift(id, Phase::Do, Change::Succeed)?;
        self.close_scope(id);
        Ok(())
    }

    /// The scope of a call that has settled is over.
    fn close_scope(&mut self, id: InstanceId) {
        if let Some(state) = self.scopes.get_mut(&id)
            && state.phase == super::core::ScopePhase::Finally
        {
            state.phase = super::core::ScopePhase::Over;
        }
    }

    /// The undo's next step, in the same execution.
    fn next_part(&mut self, id: InstanceId, part: u32, at: Timestamp) -> Result<(), IllegalEvent> {
        let execution = self.execution_mut(id, Phase::Undo);
        execution.part = part;
        execution.tries = 0;
        execution.mark = None;
        execution.next_cause = Some(StartCause::First);
        self.shift(id, Phase::Undo, Change::NextPart { until: at })
    }

    /// A step of an undo is done; those after it follow.
    fn part_undone(
        &mut self,
        id: InstanceId,
        part: u32,
        change: Change,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        match part + 1 {
            next if next < self.undo_parts(id) => self.next_part(id, next, at),
            _ => self.undone(id, change),
        }
    }

    fn undone(&mut self, id: InstanceId, change: Change) -> Result<(), IllegalEvent> {
        self.shift(id, Phase::Undo, change)?;
        let by = self.compensating(id);
        let instance = self.tree.get_mut(id);
        instance.undone_by = by;
        instance.took_effect = false;
        self.undo_settled(id, false)
    }

    /// Whether a step has an effect to undo: its kind writes, or the playbook says how to undo it.
    fn writes(&self, id: InstanceId) -> bool {
        self.tree.step(id).is_some_and(|step| {
            step.action.traits.effect != Effect::ReadOnly || matches!(step.undo, Undo::Steps(_))
        })
    }

    pub(super) fn on_failed(&mut self, e: &Failed, at: Timestamp) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        if e.attempt != 0 {
            self.attempt_is(id, e.phase, e.attempt)?;
        }
        let execution = self.execution_mut(id, e.phase);
        execution.failure = Some(Box::new(e.failure.clone()));
        execution.failed_attempt = execution.attempt;
        let may_have_acted = match e.failure.certainty {
            Certainty::NoEffect => false,
            Certainty::Partial => true,
            // A doubt is settled first; "not done" leaves nothing to undo. What may be repeated is never in doubt.
            Certainty::Unknown => e.is_final || self.redo(id, e.phase) == Redo::Repeatable,
        };
        match e.phase {
            Phase::Do if may_have_acted && self.writes(id) => {
                self.tree.get_mut(id).took_effect = true;
            }
            Phase::Do => {}
            Phase::Undo => self.execution_mut(id, Phase::Undo).acted_before |= may_have_acted,
        }
        if !e.is_final {
            return self.shift(id, e.phase, Change::FailAttempt);
        }
        if e.phase == Phase::Undo {
            self.shift(id, Phase::Undo, Change::Fail)?;
            return self.undo_failed(id);
        }
        let output = self.output_of(id, &e.failure.output);
        let was_idle = self.tree.stage(id, Phase::Do) == Stage::Idle;
        let instance = self.tree.get_mut(id);
        instance.finished_at = Some(at);
        instance.output = output;
        self.shift(id, Phase::Do, Change::Fail)?;
        if was_idle && let Some(state) = self.scopes.get_mut(&id) {
            // A playbook that was to run again, and does not: what it was called for before is over.
            state.phase = super::core::ScopePhase::Over;
        }
        // It takes up nothing more: groups and loops in it that wait for their next step are overtaken by its end.
        if matches!(self.get(id).role, Role::Group | Role::Foreach) {
            self.end_open(id)?;
        }
        self.close_scope(id);
        Ok(())
    }

    /// What is said of a step that the end of its scope overtook.
    fn overtaken(&self, id: InstanceId) -> String {
        let forward = &self.get(id).forward;
        match (forward.stage(), &forward.failure) {
            // Another attempt was ordered, or follows by its `retry`.
            (Stage::Idle | Stage::Backoff, Some(failure)) => format!(
                "the run ended before its next attempt; the last one failed: {}",
                failure.message
            ),
            (Stage::Idle | Stage::Backoff, None) => "the run ended before its turn".to_owned(),
            _ => "the run ended before it was done".to_owned(),
        }
    }

    pub(super) fn on_skipped(&mut self, e: &Skipped, at: Timestamp) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        let words = match &e.why {
            SkipCause::When(fact) => format!("{} is {}", fact.expr, fact.value),
            SkipCause::Ended => self.overtaken(id),
            SkipCause::Operator { who, because, .. } => format!("by {who}: {because}"),
            SkipCause::NoEffect => "nothing to undo".to_owned(),
            SkipCause::Blocked => "what needs it cannot be undone".to_owned(),
        };
        if e.phase == Phase::Undo {
            return self.on_undo_skipped(id, &e.why, &words, at);
        }
        let was_failed = self.get(id).forward.stage() == Stage::Failed;
        let may_have_acted = self.may_have_acted(id);
        let change = match e.why {
            SkipCause::Ended => Change::End,
            _ => Change::Skip,
        };
        self.shift(id, Phase::Do, change)?;
        let instance = self.tree.get_mut(id);
        instance.took_effect |= may_have_acted;
        instance.skipped = Some(words);
        instance.finished_at = Some(at);
        if let SkipCause::Operator { output, .. } = &e.why {
            instance.output = output.clone();
        }
        if was_failed {
            self.reopen_around(id, None)?;
        }
        Ok(())
    }

    /// Whether the process that ran a step is gone.
    pub(super) fn is_lost(&self, id: InstanceId) -> bool {
        matches!(self.get(id).forward.at, At::Running { epoch, .. } if epoch != self.epoch)
    }

    /// Whether a step that is ended or skipped where it is may have acted. One that sleeps may have done so before (and waits for what it
    /// set off); one that was lost has not if its mark is missing; a doubt was settled as "not done".
    pub(super) fn may_have_acted(&self, id: InstanceId) -> bool {
        let forward = &self.get(id).forward;
        let acted = match &forward.at {
            At::Asleep(_) => true,
            At::Running { .. } => !self.marks(id, Phase::Do) || forward.mark.is_some(),
            At::Idle
            | At::Backoff { .. }
            | At::Gated
            | At::InDoubt { .. }
            | At::Succeeded
            | At::Skipped
            | At::Failed { .. }
            | At::Ended => false,
        };
        acted && self.writes(id)
    }

    fn on_undo_skipped(
        &mut self,
        id: InstanceId,
        why: &SkipCause,
        words: &str,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        match why {
            SkipCause::NoEffect => {
                let (part, acted) = (self.get(id).undo.part, self.get(id).undo.begun);
                if part + 1 < self.undo_parts(id) {
                    return self.next_part(id, part + 1, at);
                }
                if acted {
                    return self.undone(id, Change::Succeed);
                }
                self.shift(id, Phase::Undo, Change::Skip)?;
                self.undo_settled(id, false)
            }
            // Given up by a cancel.
            SkipCause::Ended => self.shift(id, Phase::Undo, Change::End),
            SkipCause::Operator { .. } | SkipCause::Blocked | SkipCause::When(_) => {
                self.shift(id, Phase::Undo, Change::Skip)?;
                self.execution_mut(id, Phase::Undo).left = true;
                self.tree.get_mut(id).skipped = Some(format!("undo skipped {words}"));
                self.undo_settled(id, true)
            }
        }
    }

    pub(super) fn on_resolved(&mut self, e: &Resolved, at: Timestamp) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        if !e.done {
            self.execution_mut(id, e.phase).not_done_by = Some(SettledBy::Operator);
            return self.shift(id, e.phase, Change::ResolveNotDone);
        }
        let execution = self.execution_mut(id, e.phase);
        execution.took_effect(execution.attempt, SettledBy::Operator);
        if e.phase == Phase::Undo {
            return match e.part {
                Some(part) => self.part_undone(id, part, Change::ResolveDone, at),
                None => self.undone(id, Change::ResolveDone),
            };
        }
        let was_failed = self.get(id).forward.stage() == Stage::Failed;
        let marked = self.get(id).forward.mark.as_ref();
        let output = if e.output.is_null() {
            marked.map(|mark| mark.output.clone()).unwrap_or_default()
        } else {
            e.output.clone()
        };
        self.shift(id, Phase::Do, Change::ResolveDone)?;
        let instance = self.tree.get_mut(id);
        instance.output = output;
        instance.finished_at = Some(at);
        instance.took_effect = true;
        instance.by_hand = was_failed;
        if was_failed && (instance.undo.attempt > 0 || instance.undo.left) {
            // Done since, by hand: what an undo of it did before counts no more.
            instance.execution_mut(Phase::Undo).forget();
        }
        if instance.start_order == 0 {
            // It never started, and is undone in its place all the same.
            self.starts += 1;
            self.tree.get_mut(id).start_order = self.starts;
        }
        if was_failed {
            self.reopen_around(id, None)?;
        }
        Ok(())
    }

    pub(super) fn on_retry_ordered(
        &mut self,
        e: &RetryOrdered,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        let was_failed = self.get(id).execution(e.phase).stage() == Stage::Failed;
        let at_once = (e.phase == Phase::Undo).then_some(at);
        if was_failed {
            let execution = self.execution_mut(id, e.phase);
            execution.tries = 0;
            // A wait that expired has its whole time again.
            execution.first_started_at = None;
            execution.next_cause = Some(StartCause::Operator);
        }
        self.shift(id, e.phase, Change::OrderRetry { at_once })?;
        if was_failed && e.phase == Phase::Do {
            self.tree.get_mut(id).finished_at = None;
        }
        if was_failed && e.phase == Phase::Do {
            // A playbook that failed by itself: what it undid runs again.
            if self.scopes.contains_key(&id) {
                self.go_forward(id)?;
            }
            self.reopen_around(id, Some(StartCause::Operator))?;
        }
        Ok(())
    }
}
