//! What the events of one execution do: its starts, its waits and answers, how it ends.
use super::{
    construct::NewInstance,
    core::{IllegalEvent, Machine},
    event::*,
    state::{InstanceId, Role, Stage, Work},
    table::Trigger,
};
use crate::{
    graph::{Body, Undo},
    step::{Certainty, Effect, Phase, WaitOn, Woken},
    value::Timestamp,
};

impl Machine {
    fn attempt_is(&self, id: InstanceId, phase: Phase, attempt: u32) -> Result<(), IllegalEvent> {
        let current = self.get(id).execution(phase).attempt;
        if current == attempt {
            return Ok(());
        }
        Err(IllegalEvent::Attempt {
            seq: self.seq + 1,
            node: self.get(id).path.to_string(),
            current,
            given: attempt,
        })
    }

    pub(super) fn running(
        &mut self,
        node: &str,
        phase: Phase,
        attempt: u32,
    ) -> Result<InstanceId, IllegalEvent> {
        let id = self.find(node)?;
        self.attempt_is(id, phase, attempt)?;
        self.shift(id, phase, Trigger::Note)?;
        Ok(id)
    }

    pub(super) fn on_expanded(&mut self, e: &Expanded) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        self.shift(id, Phase::Do, Trigger::Note)?;
        let Some(def) = self.get(id).def else {
            return Err(self.misplaced("the root has no items"));
        };
        let graph = self.graph.clone();
        let node = graph.node(def);
        let Some(foreach) = &node.foreach else {
            return Err(self.misplaced("only a foreach has items"));
        };
        let role = match &node.body {
            Body::Step(_) => Role::Step,
            Body::Group { .. } => Role::Group,
            Body::Call(_) => Role::Call,
        };
        let base = self.get(id).path.clone();
        let in_finally = self.meta(id).in_finally;
        for (position, item) in e.items.iter().enumerate() {
            let index = u32::try_from(position).unwrap_or(u32::MAX);
            self.add(NewInstance {
                path: format!("{base}[{index}]").into(),
                def: Some(def),
                parent: Some(id),
                role,
                position,
                in_finally,
                item: Some((index, item.clone())),
            });
        }
        self.meta_mut(id).expanded = true;
        self.meta_mut(id).unsettled = e.items.len();
        self.closing.remove(&id);
        if e.items.is_empty() {
            self.closing.insert(id);
        }
        for _ in 0..foreach.max_parallel.max(1) {
            self.offer_item(id);
        }
        Ok(())
    }

    pub(super) fn on_started(&mut self, e: &Started, at: Timestamp) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        let before = self.get(id).execution(e.phase).attempt;
        if e.attempt != before + 1 {
            return Err(IllegalEvent::Attempt {
                seq: self.seq + 1,
                node: e.node.to_string(),
                current: before,
                given: e.attempt,
            });
        }
        self.unwant(id, e.phase);
        self.shift(id, e.phase, Trigger::Start)?;
        self.clear_sleep(id, e.phase);
        self.lost.remove(&(id, e.phase));
        self.starts += 1;
        let order = self.starts;
        let interrupted = e.cause == StartCause::Interrupted;
        {
            let execution = self.get_mut(id).execution_mut(e.phase);
            execution.attempt = e.attempt;
            execution.part = e.part;
            if !interrupted {
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
            execution.doubt = None;
            execution.next_cause = None;
        }
        match e.phase {
            Phase::Undo => {
                self.undo_ready.remove(&id);
                self.want(id, Phase::Undo, Work::Execute);
            }
            Phase::Do => {
                self.ready.remove(&id);
                self.get_mut(id).started_at.get_or_insert(at);
                if self.meta(id).start_order == 0 {
                    self.meta_mut(id).start_order = order;
                }
                self.open(id);
            }
        }
        Ok(())
    }

    /// A step is wanted; a container gets what is inside it.
    fn open(&mut self, id: InstanceId) {
        let graph = self.graph.clone();
        match self.get(id).role {
            Role::Step => self.want(id, Phase::Do, Work::Execute),
            Role::Foreach => {
                self.closing.insert(id);
            }
            Role::Group => {
                if let Some(Body::Group { steps }) =
                    self.get(id).def.map(|def| &graph.node(def).body)
                {
                    self.open_list(id, steps, false);
                    if steps.is_empty() {
                        self.closing.insert(id);
                    }
                }
            }
            Role::Call => {
                self.scopes.insert(id, super::core::ScopeState::default());
                if let Some(Body::Call(call)) = self.get(id).def.map(|def| &graph.node(def).body) {
                    self.open_lists(id, &call.scope);
                }
            }
            Role::Root => {}
        }
    }

    pub(super) fn on_suspended(&mut self, e: &Suspended) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        self.attempt_is(id, e.phase, e.attempt)?;
        self.unwant(id, e.phase);
        let asks = matches!(e.wait.on, WaitOn::Approval(_));
        self.shift(
            id,
            e.phase,
            if asks {
                Trigger::AskPeople
            } else {
                Trigger::Suspend
            },
        )?;
        if asks {
            self.get_mut(id).votes.clear();
        }
        let execution = self.get_mut(id).execution_mut(e.phase);
        execution.state = Some(e.state.clone());
        execution.woken = None;
        execution.wait = Some(e.wait.clone());
        if let Some(deadline) = e.wait.deadline {
            self.timers.insert((deadline, id, e.phase));
        }
        match &e.wait.on {
            WaitOn::Timer(at) => {
                self.timers.insert((*at, id, e.phase));
            }
            WaitOn::Signal(name) => {
                self.listening
                    .entry(name.clone())
                    .or_default()
                    .insert((id, e.phase));
            }
            WaitOn::Approval(_) => {}
        }
        Ok(())
    }

    pub(super) fn on_awoken(&mut self, e: &Awoken) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        if let (Woken::Signal(_), Some(WaitOn::Signal(name))) = (
            &e.by,
            self.get(id)
                .execution(e.phase)
                .wait
                .as_ref()
                .map(|wait| &wait.on),
        ) {
            let name = name.clone();
            if let Some(kept) = self.signals.get_mut(&name)
                && !kept.is_empty()
            {
                kept.remove(0);
                if kept.is_empty() {
                    self.signals.remove(&name);
                }
            }
        }
        self.shift(id, e.phase, Trigger::Wake)?;
        self.clear_sleep(id, e.phase);
        self.get_mut(id).execution_mut(e.phase).woken = Some(e.by.clone());
        self.want(id, e.phase, Work::Execute);
        Ok(())
    }

    pub(super) fn on_succeeded(
        &mut self,
        e: &Succeeded,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        self.attempt_is(id, e.phase, e.attempt)?;
        self.unwant(id, e.phase);
        self.get_mut(id).execution_mut(e.phase).done_attempt = e.attempt;
        if e.phase == Phase::Undo {
            self.shift(id, Phase::Undo, Trigger::Succeed)?;
            if e.part + 1 < self.undo_parts(id) {
                self.next_part(id, e.part + 1, at);
            } else {
                self.undo_settled(id, false);
            }
            return Ok(());
        }
        let role = self.get(id).role;
        self.shift(id, Phase::Do, Trigger::Succeed)?;
        self.closing.remove(&id);
        let output = match role {
            Role::Foreach => self.foreach_view(id),
            Role::Group => self.group_view(id),
            Role::Step | Role::Call | Role::Root => e.output.clone(),
        };
        let writes = self.writes(id);
        let instance = self.get_mut(id);
        instance.output = output;
        instance.finished_at = Some(at);
        instance.took_effect = writes || role != Role::Step;
        instance.execution_mut(Phase::Do).failure = None;
        if role == Role::Call {
            self.close_scope(id)?;
        }
        self.settled(id, true);
        Ok(())
    }

    /// How many steps the undo has.
    fn undo_parts(&self, id: InstanceId) -> u32 {
        match self.def(id).map(|node| &node.body) {
            Some(Body::Step(step)) => match &step.undo {
                Undo::Steps(parts) => u32::try_from(parts.len()).unwrap_or(u32::MAX),
                Undo::Auto { .. } | Undo::None | Undo::Impossible => 1,
            },
            Some(Body::Group { .. } | Body::Call(_)) | None => 1,
        }
    }

    /// The undo's next step, in the same execution.
    fn next_part(&mut self, id: InstanceId, part: u32, at: Timestamp) {
        self.enter(id, Phase::Undo, Stage::Backoff);
        {
            let execution = self.get_mut(id).execution_mut(Phase::Undo);
            execution.part = part;
            execution.tries = 0;
            execution.mark = None;
        }
        self.sleep_until(id, Phase::Undo, at, StartCause::First);
    }

    /// Whether a step has an effect to undo: its kind writes, or the playbook says how to undo it.
    fn writes(&self, id: InstanceId) -> bool {
        match self.def(id).map(|node| &node.body) {
            Some(Body::Step(step)) => {
                step.action.traits.effect != Effect::ReadOnly || matches!(step.undo, Undo::Steps(_))
            }
            Some(Body::Group { .. } | Body::Call(_)) | None => true,
        }
    }

    pub(super) fn on_failed(&mut self, e: &Failed, at: Timestamp) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        if e.attempt != 0 {
            self.attempt_is(id, e.phase, e.attempt)?;
        }
        self.get_mut(id).execution_mut(e.phase).failure = Some(e.failure.clone());
        if e.phase == Phase::Do && self.get(id).role == Role::Step && self.writes(id) {
            match (e.failure.certainty, e.is_final) {
                (Certainty::NoEffect, _) => {}
                // A doubt is settled first; "not done" leaves nothing to undo.
                (Certainty::Unknown, false) => {}
                (Certainty::Partial, _) | (Certainty::Unknown, true) => {
                    self.get_mut(id).took_effect = true;
                }
            }
        }
        self.unwant(id, e.phase);
        if !e.is_final {
            return self.shift(id, e.phase, Trigger::FailAttempt);
        }
        self.ready.remove(&id);
        self.closing.remove(&id);
        self.undo_ready.remove(&id);
        self.shift(id, e.phase, Trigger::Fail)?;
        self.clear_sleep(id, e.phase);
        if e.phase == Phase::Undo {
            return Ok(());
        }
        let role = self.get(id).role;
        let output = match role {
            Role::Foreach => self.foreach_view(id),
            Role::Group => self.group_view(id),
            Role::Step | Role::Call | Role::Root => e.failure.output.clone(),
        };
        let instance = self.get_mut(id);
        instance.finished_at = Some(at);
        instance.output = output;
        if role == Role::Call && self.scopes.contains_key(&id) {
            self.close_scope(id)?;
        }
        self.failed(id, &e.failure);
        Ok(())
    }

    pub(super) fn sleep_until(
        &mut self,
        id: InstanceId,
        phase: Phase,
        at: Timestamp,
        cause: StartCause,
    ) {
        let execution = self.get_mut(id).execution_mut(phase);
        execution.not_before = Some(at);
        execution.next_cause = Some(cause);
        self.timers.insert((at, id, phase));
    }

    pub(super) fn on_skipped(&mut self, e: &Skipped, at: Timestamp) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        let words = match &e.why {
            SkipCause::When(fact) => format!("{} is {}", fact.expr, fact.value),
            SkipCause::Ended => "the run ended before its turn".to_owned(),
            SkipCause::Operator { who, because, .. } => format!("by {who}: {because}"),
            SkipCause::NoEffect => "nothing to undo".to_owned(),
            SkipCause::Blocked => "what needs it cannot be undone".to_owned(),
        };
        self.unwant(id, e.phase);
        if e.phase == Phase::Undo {
            self.undo_ready.remove(&id);
            self.clear_sleep(id, Phase::Undo);
            self.shift(id, Phase::Undo, Trigger::Skip)?;
            if e.why == SkipCause::NoEffect {
                let part = self.get(id).undo.part;
                if part + 1 < self.undo_parts(id) {
                    self.next_part(id, part + 1, at);
                    return Ok(());
                }
                if self.get(id).undo.attempt > 0 {
                    self.enter(id, Phase::Undo, Stage::Succeeded);
                }
            }
            let left = matches!(e.why, SkipCause::Operator { .. } | SkipCause::Blocked);
            if left {
                self.get_mut(id).skipped = Some(format!("undo skipped {words}"));
            }
            self.undo_settled(id, left);
            return Ok(());
        }
        let was_failed = self.get(id).forward.stage == Stage::Failed;
        if was_failed {
            self.reopen_around(id);
        }
        self.ready.remove(&id);
        self.attention.remove(&id);
        self.clear_sleep(id, Phase::Do);
        self.shift(id, Phase::Do, Trigger::Skip)?;
        let instance = self.get_mut(id);
        instance.skipped = Some(words);
        instance.finished_at = Some(at);
        if let SkipCause::Operator { output, .. } = &e.why {
            instance.output = output.clone();
        }
        self.settled(id, true);
        Ok(())
    }

    pub(super) fn on_resolved(&mut self, e: &Resolved, at: Timestamp) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        self.unwant(id, e.phase);
        if !e.done {
            self.shift(id, e.phase, Trigger::ResolveNotDone)?;
            self.standing.remove(&(id, e.phase));
            self.not_done.insert((id, e.phase));
            return Ok(());
        }
        let was_failed = self.get(id).execution(e.phase).stage == Stage::Failed;
        if was_failed && e.phase == Phase::Do {
            self.reopen_around(id);
        }
        self.shift(id, e.phase, Trigger::ResolveDone)?;
        let execution = self.get_mut(id).execution_mut(e.phase);
        execution.done_attempt = execution.attempt;
        if e.phase == Phase::Undo {
            self.undo_settled(id, false);
            return Ok(());
        }
        self.attention.remove(&id);
        let mark_output = self
            .get(id)
            .forward
            .mark
            .as_ref()
            .map(|mark| mark.output.clone())
            .unwrap_or_default();
        let instance = self.get_mut(id);
        instance.output = if e.output.is_null() {
            mark_output
        } else {
            e.output.clone()
        };
        instance.finished_at = Some(at);
        instance.took_effect = true;
        self.settled(id, true);
        Ok(())
    }

    pub(super) fn on_retry_ordered(
        &mut self,
        e: &RetryOrdered,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let id = self.find(&e.node)?;
        self.unwant(id, e.phase);
        if self.get(id).execution(e.phase).stage == Stage::InDoubt {
            self.shift(id, e.phase, Trigger::OrderRetry)?;
            self.standing.remove(&(id, e.phase));
            self.want(id, e.phase, Work::Probe);
            return Ok(());
        }
        if e.phase == Phase::Do {
            self.reopen_around(id);
            self.attention.remove(&id);
        }
        self.shift(id, e.phase, Trigger::OrderRetry)?;
        self.get_mut(id).execution_mut(e.phase).tries = 0;
        self.sleep_until(id, e.phase, at, StartCause::Operator);
        Ok(())
    }
}
