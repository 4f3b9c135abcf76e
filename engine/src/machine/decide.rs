//! What comes next: a pure decision. The driver asks until there is none.
use super::{
    core::{IllegalEvent, Machine, ScopePhase},
    event::*,
    state::{InstanceId, Role, Stage},
};
use crate::{
    graph::Body,
    step::{Cause, Certainty, Effect, Failure, Phase, Redo, WaitOn, Woken},
    value::{Duration, Timestamp, Value},
};

impl Machine {
    /// The next event, if one is due at `now`. Apply it before asking again.
    #[must_use]
    pub fn next_event(&self, now: Timestamp) -> Option<Event> {
        if self.finished.is_some() {
            return None;
        }
        let now = now.max(self.last_at);
        let body = self
            .next_lost(now)
            .or_else(|| self.next_not_done(now))
            .or_else(|| self.next_attention())
            .or_else(|| self.next_closing())
            .or_else(|| self.next_scope())
            .or_else(|| self.next_signal())
            .or_else(|| self.next_due(now))
            .or_else(|| self.next_sleeper())
            .or_else(|| self.next_overrun(now))
            .or_else(|| self.next_ready(now))
            .or_else(|| self.next_undo(now))?;
        Some(Event { at: now, body })
    }

    /// All events due at `now`, applied.
    ///
    /// # Errors
    /// Never by its own decisions; an error is a defect of the engine, told instead of hidden.
    pub fn settle(&mut self, now: Timestamp) -> Result<Vec<Event>, IllegalEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.next_event(now) {
            self.apply(&event)?;
            events.push(event);
        }
        Ok(events)
    }

    /// Wakes what slept until an instant that has passed, and starts nothing: what expired before a command was sent has expired,
    /// and the command comes before all that a driver would begin anew.
    ///
    /// # Errors
    /// Never by its own decisions.
    pub fn wake(&mut self, now: Timestamp) -> Result<Vec<Event>, IllegalEvent> {
        let mut events = Vec::new();
        while self.finished.is_none() && self.paused.is_none() {
            let now = now.max(self.last_at);
            let due = self.timers.iter().take_while(|(at, ..)| *at <= now);
            let mut due =
                due.filter(|(_, id, phase)| *phase == Phase::Undo || !self.is_halted(*id));
            let Some(body) = due.find_map(|(at, id, phase)| self.awoken(*id, *phase, *at)) else {
                break;
            };
            let event = Event { at: now, body };
            self.apply(&event)?;
            events.push(event);
        }
        Ok(events)
    }

    /// Wakes those who wait for an instant of the wall clock that is elsewhere in the time of the run now: they look again.
    /// `now` is the time of the run, `of_wall` finds an instant in it.
    ///
    /// # Errors
    /// Never by its own decisions.
    pub fn look_at_the_clock(
        &mut self,
        now: Timestamp,
        of_wall: impl Fn(Timestamp) -> Timestamp,
    ) -> Result<Vec<Event>, IllegalEvent> {
        if self.finished.is_some() {
            return Ok(Vec::new());
        }
        let at = now.max(self.last_at);
        let mut bodies = Vec::new();
        for instance in &self.nodes {
            for phase in [Phase::Do, Phase::Undo] {
                let execution = instance.execution(phase);
                let asleep = matches!(execution.stage, Stage::Waiting | Stage::AwaitingApproval);
                let Some(wait) = execution.wait.as_ref().filter(|_| asleep) else {
                    continue;
                };
                let (set, by) = match &wait.on {
                    WaitOn::Timer(at) => (Some(*at), Woken::Timer),
                    WaitOn::Signal(_) | WaitOn::Approval(_) => (wait.deadline, Woken::Deadline),
                };
                // As far apart as the driver takes for a step of the clock.
                let is_elsewhere = |set: Timestamp, wall: Timestamp| {
                    Duration::between(set, of_wall(wall)).as_millis().abs() >= 1000
                };
                if let (Some(set), Some(wall)) = (set, wait.wall)
                    && is_elsewhere(set, wall)
                {
                    bodies.push(EventBody::Awoken(Awoken {
                        node: instance.path.clone(),
                        phase,
                        by,
                    }));
                }
            }
        }
        let mut events = Vec::new();
        for body in bodies {
            let event = Event { at, body };
            self.apply(&event)?;
            events.push(event);
        }
        Ok(events)
    }

    /// The event that wakes a sleeper at an instant; none if it does not sleep, or only until its next attempt.
    fn awoken(&self, id: InstanceId, phase: Phase, at: Timestamp) -> Option<EventBody> {
        let execution = self.get(id).execution(phase);
        if !matches!(execution.stage, Stage::Waiting | Stage::AwaitingApproval) {
            return None;
        }
        let timer = execution
            .wait
            .as_ref()
            .is_some_and(|w| w.on == WaitOn::Timer(at));
        let by = if timer { Woken::Timer } else { Woken::Deadline };
        Some(EventBody::Awoken(Awoken {
            node: self.get(id).path.clone(),
            phase,
            by,
        }))
    }

    /// An execution that a driver left behind: nothing happened, or it is in doubt.
    fn next_lost(&self, now: Timestamp) -> Option<EventBody> {
        let (id, phase) = *self.lost.first()?;
        let instance = self.get(id);
        let execution = instance.execution(phase);
        let repeatable = self.redo(id, phase) == Redo::Repeatable;
        let marks = self.marks(id, phase);
        let nothing = repeatable || marks && execution.mark.is_none();
        if !nothing {
            let why = if marks {
                "the engine stopped after the step's point of no return"
            } else {
                "the engine stopped while the step ran"
            };
            return Some(EventBody::Doubted(Doubted {
                node: instance.path.clone(),
                phase,
                attempt: execution.attempt,
                why: why.to_owned(),
            }));
        }
        if phase == Phase::Do && self.is_halted(id) {
            let failure =
                Failure::new("run.ended", "ended before it took effect").cause(Cause::Interrupted);
            return Some(self.failed_event(id, phase, failure, Vec::new(), true));
        }
        Some(EventBody::Started(Box::new(Started {
            node: instance.path.clone(),
            phase,
            part: execution.part,
            attempt: execution.attempt + 1,
            cause: StartCause::Interrupted,
            input: execution.input.clone(),
            facts: Vec::new(),
            targets: execution.targets.clone(),
            deadline: self
                .action(id, phase)
                .and_then(|a| self.timeout(id, phase, a))
                .map(|t| t.after(now)),
        })))
    }

    /// A doubt that turned out as "not done": the failure before it decides, or it starts anew.
    fn next_not_done(&self, now: Timestamp) -> Option<EventBody> {
        let (id, phase) = *self.not_done.first()?;
        let execution = self.get(id).execution(phase);
        let halted = phase == Phase::Do && self.is_halted(id);
        let failure = execution
            .failure
            .clone()
            .map(|f| f.certainty(Certainty::NoEffect));
        match failure {
            Some(failure) if halted || !self.may_retry(id, phase, &failure) => {
                Some(self.failed_event(id, phase, failure, Vec::new(), true))
            }
            None if halted => {
                let failure = Failure::new("run.ended", "ended before it took effect")
                    .cause(Cause::Interrupted);
                Some(self.failed_event(id, phase, failure, Vec::new(), true))
            }
            Some(_) => Some(self.retry_event(id, phase, now)),
            None => Some(EventBody::RetryScheduled(RetryScheduled {
                node: self.get(id).path.clone(),
                phase,
                not_before: now,
                cause: StartCause::Interrupted,
            })),
        }
    }

    fn next_attention(&self) -> Option<EventBody> {
        if self.paused.is_some() {
            return None;
        }
        let id = *self.attention.first()?;
        let instance = self.get(id);
        let message = instance
            .forward
            .failure
            .as_ref()
            .map(|f| f.message.clone())
            .unwrap_or_default();
        Some(EventBody::Paused(Paused {
            who: None,
            why: format!("{} failed: {message}", instance.path),
        }))
    }

    /// A foreach without its items, or a container whose inside has settled.
    fn next_closing(&self) -> Option<EventBody> {
        let id = *self.closing.iter().find(|id| !self.is_held(**id))?;
        let instance = self.get(id);
        if let Some(failure) = self.meta(id).failing.clone() {
            let failure = failure.certainty(Certainty::Partial);
            return Some(self.failed_event(id, Phase::Do, failure, Vec::new(), true));
        }
        if instance.role == Role::Foreach && instance.children.is_empty() && !self.meta(id).expanded
        {
            return Some(self.expand(id).unwrap_or_else(|failure| {
                self.failed_event(id, Phase::Do, failure, Vec::new(), true)
            }));
        }
        Some(self.succeeded_event(id, Value::Null))
    }

    pub(super) fn succeeded_event(&self, id: InstanceId, output: Value) -> EventBody {
        let instance = self.get(id);
        EventBody::Succeeded(Box::new(Succeeded {
            node: instance.path.clone(),
            phase: Phase::Do,
            part: 0,
            attempt: instance.forward.attempt,
            output,
            evidence: Vec::new(),
            by: SettledBy::Step,
        }))
    }

    pub(super) fn failed_event(
        &self,
        id: InstanceId,
        phase: Phase,
        failure: Failure,
        facts: Vec<Fact>,
        is_final: bool,
    ) -> EventBody {
        let instance = self.get(id);
        let execution = instance.execution(phase);
        EventBody::Failed(Box::new(Failed {
            node: instance.path.clone(),
            phase,
            part: execution.part,
            attempt: execution.attempt,
            failure,
            evidence: Vec::new(),
            facts,
            is_final,
        }))
    }

    // ---- sleepers ------------------------------------------------------------------------------------

    fn next_signal(&self) -> Option<EventBody> {
        let (name, payloads) = self
            .signals
            .iter()
            .find(|(name, _)| self.listening.contains_key(*name))?;
        let (id, phase) = *self.listening.get(name)?.first()?;
        Some(EventBody::Awoken(Awoken {
            node: self.get(id).path.clone(),
            phase,
            by: Woken::Signal(payloads.first()?.clone()),
        }))
    }

    fn next_due(&self, now: Timestamp) -> Option<EventBody> {
        if self.paused.is_some() {
            return None;
        }
        for (at, id, phase) in &self.timers {
            if *at > now {
                return None;
            }
            // What an ending scope leaves asleep is ended by `next_sleeper`.
            if *phase == Phase::Do && self.is_halted(*id) {
                continue;
            }
            let execution = self.get(*id).execution(*phase);
            match execution.stage {
                Stage::Backoff if *phase == Phase::Do => return Some(self.start(*id, now)),
                Stage::Backoff => return Some(self.start_undo(*id, now)),
                Stage::Waiting | Stage::AwaitingApproval => return self.awoken(*id, *phase, *at),
                Stage::Idle
                | Stage::Running
                | Stage::InDoubt
                | Stage::Succeeded
                | Stage::Skipped
                | Stage::Failed => {}
            }
        }
        None
    }

    /// A scope that ends wakes nobody: sleepers are ended.
    fn next_sleeper(&self) -> Option<EventBody> {
        for (scope, state) in &self.scopes {
            let Some(ending) = &state.ending else {
                continue;
            };
            let over = match state.phase {
                ScopePhase::Forward => true,
                ScopePhase::Finally => ending.skip_finally,
                ScopePhase::Undoing | ScopePhase::Cleaning | ScopePhase::Over => false,
            };
            if !over {
                continue;
            }
            let Some(id) = state
                .sleeping
                .iter()
                .find(|id| ending.skip_finally || !self.meta(**id).in_finally)
            else {
                continue;
            };
            debug_assert_eq!(self.meta(*id).scope, *scope);
            let instance = self.get(*id);
            if instance.forward.stage == Stage::Backoff
                && let Some(failure) = instance.forward.failure.clone()
            {
                return Some(self.failed_event(*id, Phase::Do, failure, Vec::new(), true));
            }
            return Some(EventBody::Skipped(Skipped {
                node: instance.path.clone(),
                phase: Phase::Do,
                why: SkipCause::Ended,
            }));
        }
        None
    }

    fn next_overrun(&self, now: Timestamp) -> Option<EventBody> {
        let at = self.overrun_at()?;
        let limit = self.graph.policy.max_duration?;
        (at <= now).then_some(EventBody::Overran(Overran { limit }))
    }

    // ---- starting ------------------------------------------------------------------------------------

    fn next_ready(&self, now: Timestamp) -> Option<EventBody> {
        if self.paused.is_some() {
            return None;
        }
        let id = *self.ready.iter().find(|id| !self.is_held(**id))?;
        Some(self.start(id, now))
    }

    /// Whether an instance must not start or go on: its scope ends, is past its steps, or a container fails.
    fn is_held(&self, id: InstanceId) -> bool {
        if self.is_halted(id) {
            return true;
        }
        let mut up = self.get(id).parent;
        while let Some(container) = up {
            if matches!(self.get(container).role, Role::Root | Role::Call) {
                return false;
            }
            if self.meta(container).failing.is_some() {
                return true;
            }
            up = self.get(container).parent;
        }
        false
    }

    /// Whether the scope of an instance no longer runs what the instance belongs to.
    pub(super) fn is_halted(&self, id: InstanceId) -> bool {
        let scope = self.meta(id).scope;
        let Some(state) = self.scopes.get(&scope) else {
            return true;
        };
        if self.meta(id).in_finally && self.finally_of(id) == Some(scope) {
            let skipped = state
                .ending
                .as_ref()
                .is_some_and(|ending| ending.skip_finally);
            return state.phase != ScopePhase::Finally || skipped;
        }
        state.phase != ScopePhase::Forward || state.ending.is_some()
    }

    /// The scope in whose `finally` an instance stands, if it is the scope that the instance is in.
    fn finally_of(&self, id: InstanceId) -> Option<InstanceId> {
        let mut at = id;
        loop {
            if self.is_finally_step(at) {
                return self.get(at).parent;
            }
            let parent = self.get(at).parent?;
            if matches!(self.get(parent).role, Role::Root | Role::Call) {
                return None;
            }
            at = parent;
        }
    }

    fn next_undo(&self, now: Timestamp) -> Option<EventBody> {
        if self.paused.is_some() {
            return None;
        }
        Some(self.start_undo(*self.undo_ready.first()?, now))
    }

    // ---- policies ------------------------------------------------------------------------------------

    pub(super) fn redo(&self, id: InstanceId, phase: Phase) -> Redo {
        if phase == Phase::Undo && self.undo_is_auto(id) {
            return Redo::Repeatable;
        }
        self.action(id, phase).map_or(Redo::AskOperator, |action| {
            if action.traits.effect == Effect::ReadOnly {
                Redo::Repeatable
            } else {
                action.traits.redo
            }
        })
    }

    fn marks(&self, id: InstanceId, phase: Phase) -> bool {
        self.action(id, phase)
            .is_some_and(|action| action.traits.marks)
    }

    pub(super) fn may_retry(&self, id: InstanceId, phase: Phase, failure: &Failure) -> bool {
        if phase == Phase::Do && self.is_halted(id) {
            return false;
        }
        let Some(retry) = self.retry_policy(id, phase) else {
            return false;
        };
        let passing = failure.cause.is_transient() || retry.also.contains(&failure.cause);
        let clean = match failure.certainty {
            Certainty::NoEffect => true,
            Certainty::Partial | Certainty::Unknown => self.redo(id, phase) == Redo::Repeatable,
        };
        passing && clean && self.get(id).execution(phase).tries < retry.attempts
    }

    fn retry_policy(&self, id: InstanceId, phase: Phase) -> Option<crate::graph::Retry> {
        if phase == Phase::Undo
            && let Some(Body::Step(step)) = self.def(id).map(|node| &node.body)
            && let crate::graph::Undo::Auto { retry, .. } = &step.undo
        {
            return retry.clone();
        }
        self.action(id, phase)?.retry.clone()
    }

    /// The next attempt, after a delay with full jitter.
    pub(super) fn retry_event(&self, id: InstanceId, phase: Phase, now: Timestamp) -> EventBody {
        let instance = self.get(id);
        let execution = instance.execution(phase);
        let delay = self
            .retry_policy(id, phase)
            .map_or(Duration::ZERO, |retry| {
                backoff(
                    &retry,
                    &self.started.run.id,
                    &instance.path,
                    execution.tries,
                )
            });
        EventBody::RetryScheduled(RetryScheduled {
            node: instance.path.clone(),
            phase,
            not_before: delay.after(now),
            cause: StartCause::Retry,
        })
    }
}

/// The delay before the next attempt; the jitter is a hash, so that replay and tests are exact.
fn backoff(retry: &crate::graph::Retry, run: &str, node: &str, tries: u32) -> Duration {
    let cap = match retry.backoff {
        crate::graph::Backoff::Constant => return retry.delay,
        crate::graph::Backoff::Exponential => {
            let factor = 1_i64 << tries.saturating_sub(1).min(40);
            retry
                .delay
                .as_millis()
                .saturating_mul(factor)
                .min(retry.max_delay.as_millis())
        }
    };
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(format!("{run}/{node}/{tries}"));
    let random = digest
        .iter()
        .take(8)
        .fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let cap = u64::try_from(cap).unwrap_or(0);
    Duration::from_millis(i64::try_from(random % (cap + 1)).unwrap_or(0))
}
