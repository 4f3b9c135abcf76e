//! What comes next: a pure decision. The driver asks until there is none.
use super::{
    agenda::Rank,
    core::{IllegalEvent, Machine},
    event::*,
    execution::{At, Stage},
    retrying::backoff,
    state::{InstanceId, NodeState, Role},
};
use crate::{
    step::{Certainty, Effect, Failure, Phase, Redo, Target, WaitOn, Woken},
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
        // In this order: what is lost, before anything is decided by it; what a person is asked, before anything starts; what
        // ends, before what begins; what was under way, before what is new.
        let body = self
            .next_lost(now)
            .or_else(|| self.next_not_done(now))
            .or_else(|| self.next_question())
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
    /// Never by its own decisions; an error is a defect of the engine, reported instead of hidden.
    pub fn settle(&mut self, now: Timestamp) -> Result<Vec<Event>, IllegalEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.next_event(now) {
            self.apply(&event)?;
            events.push(event);
        }
        Ok(events)
    }

    /// Whether nothing new starts: a person paused the run, or a failure asks.
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        self.paused.is_some() || self.agenda.has(Rank::Asks) || self.agenda.has(Rank::Asking)
    }

    /// Whether nothing of this phase starts or is woken. A failure that asks holds up what goes forward; what is being undone is undone.
    pub(super) fn holds(&self, phase: Phase) -> bool {
        match phase {
            Phase::Do => self.is_held_up(),
            Phase::Undo => self.paused.is_some(),
        }
    }

    /// Wakes what slept until `sent` or earlier, and starts nothing: what expired before a command was sent has expired, and the
    /// command comes before all that expires later, however late it is taken.
    ///
    /// # Errors
    /// Never by its own decisions.
    pub fn wake(&mut self, sent: Timestamp) -> Result<Vec<Event>, IllegalEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.next_wake(sent) {
            self.apply(&event)?;
            events.push(event);
        }
        Ok(events)
    }

    /// One event of [`Machine::wake`]. Apply it before asking again.
    #[must_use]
    pub fn next_wake(&self, sent: Timestamp) -> Option<Event> {
        if self.finished.is_some() {
            return None;
        }
        let lines = self.agenda.of_rank(Rank::Timer);
        let body = lines
            .take_while(|(_, at, ..)| *at <= sent)
            .filter(|(.., phase)| !self.holds(*phase))
            .find_map(|(_, at, id, phase)| self.awoken(*id, *phase, *at))?;
        let at = sent.max(self.last_at);
        Some(Event { at, body })
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
        for id in self.tree.ids() {
            let instance = self.get(id);
            for phase in [Phase::Do, Phase::Undo] {
                let Some(wait) = instance.execution(phase).wait() else {
                    continue;
                };
                // What it belongs to ends: it does, too.
                if self.is_cut_off(id, phase) {
                    continue;
                }
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
                    bodies.push(EventBody::Awoken(Box::new(Awoken {
                        node: instance.path.clone(),
                        phase,
                        by,
                    })));
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
        let wait = self.get(id).execution(phase).wait()?;
        let by = match wait.on {
            WaitOn::Timer(timer) if timer == at => Woken::Timer,
            WaitOn::Timer(_) | WaitOn::Signal(_) | WaitOn::Approval(_) => Woken::Deadline,
        };
        Some(EventBody::Awoken(Box::new(Awoken {
            node: self.get(id).path.clone(),
            phase,
            by,
        })))
    }

    /// An execution that a driver left behind: nothing happened, or it is in doubt.
    /// Under a person's pause it is not begun anew.
    fn next_lost(&self, now: Timestamp) -> Option<EventBody> {
        let mut lost = self.agenda.of_rank(Rank::Lost);
        let (_, _, id, phase) = lost.find(|(_, _, id, phase)| {
            let starts = self.begins_anew(*id, *phase) && !self.is_cut_off(*id, *phase);
            self.paused.is_none() || !starts
        })?;
        let (id, phase) = (*id, *phase);
        let instance = self.get(id);
        let execution = instance.execution(phase);
        if !self.begins_anew(id, phase) {
            let why = if self.marks(id, phase) {
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
        if self.is_cut_off(id, phase) {
            return Some(self.ended_event(id, phase));
        }
        // A step begun anew is a start like any other: outside the windows its turn is given back, and then decided.
        if phase == Phase::Do && self.window_opens(id, now).is_some() {
            return Some(EventBody::RetryScheduled(RetryScheduled {
                node: instance.path.clone(),
                phase,
                not_before: now,
                cause: StartCause::Interrupted,
            }));
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

    /// Whether an execution that was lost may be begun anew: twice is as good as once, or it had not come to its act.
    pub(super) fn begins_anew(&self, id: InstanceId, phase: Phase) -> bool {
        let marked = self.get(id).execution(phase).mark.is_some();
        self.redo(id, phase) == Redo::Repeatable || self.marks(id, phase) && !marked
    }

    /// Steps that a driver before may have left in the middle of their act: their probes ask about them.
    #[must_use]
    pub fn left_in_doubt(&self) -> Vec<NodePath> {
        let lost = self.agenda.of_rank(Rank::Lost);
        let lost = lost.filter(|(_, _, id, phase)| !self.begins_anew(*id, *phase));
        let doubts = [Rank::Probed, Rank::Doubt].into_iter();
        let doubts = doubts.flat_map(|rank| self.agenda.of_rank(rank));
        lost.chain(doubts)
            .map(|(_, _, id, _)| self.get(*id).path.clone())
            .collect()
    }

    /// What the driver before may have left running without effect, by target: no probe asks about it, and no mark finds it.
    #[must_use]
    pub fn left_behind(&self) -> Vec<(Target, Vec<NodePath>)> {
        let mut all: Vec<(Target, Vec<NodePath>)> = Vec::new();
        for (_, _, id, phase) in self.agenda.of_rank(Rank::Lost) {
            let Some(action) = self.action(*id, *phase) else {
                continue;
            };
            if !self.begins_anew(*id, *phase) {
                continue;
            }
            let instance = self.get(*id);
            for name in self.target_names(action, &instance.execution(*phase).input) {
                let Some(target) = self.target(*id, *phase, &name) else {
                    continue;
                };
                // Items of a loop may derive different servers by one name.
                let path = instance.path.clone();
                match all.iter_mut().find(|(known, _)| known == target) {
                    Some((_, nodes)) => nodes.push(path),
                    None => all.push((target.clone(), vec![path])),
                }
            }
        }
        all
    }

    /// A doubt that turned out as "not done": the failure before it decides, or it starts anew.
    fn next_not_done(&self, now: Timestamp) -> Option<EventBody> {
        let (id, phase) = self.agenda.first(Rank::NotDone)?;
        let failure = self.get(id).execution(phase).own_failure().cloned();
        let failure = failure.map(|failure| failure.certainty(Certainty::NoEffect));
        match failure {
            Some(failure) if self.may_retry(id, phase, &failure) => {
                Some(self.retry_event(id, phase, now))
            }
            Some(failure) => Some(self.failed_event(id, phase, failure, Vec::new(), true)),
            None if self.is_cut_off(id, phase) => Some(self.ended_event(id, phase)),
            None => Some(EventBody::RetryScheduled(RetryScheduled {
                node: self.get(id).path.clone(),
                phase,
                not_before: now,
                cause: StartCause::Interrupted,
            })),
        }
    }

    /// A failure that asks a person: the run is paused for it.
    fn next_question(&self) -> Option<EventBody> {
        let (id, _) = self.agenda.first(Rank::Asks)?;
        let instance = self.get(id);
        let failure = instance.forward.failure.as_ref();
        let message = failure.map_or("", |failure| failure.message.as_str());
        Some(EventBody::Paused(Paused {
            who: None,
            why: format!("{} failed: {message}", instance.path),
            node: Some(instance.path.clone()),
        }))
    }

    /// A foreach without its items, or a container whose inside has settled or failed.
    fn next_closing(&self) -> Option<EventBody> {
        let (mut id, _) = self.agenda.first(Rank::Closing)?;
        // A container that fails ends what is open in it: what closes inside closes first, or its own failure would be lost.
        while self.is_failing(id) {
            let mut lines = self.agenda.of_rank(Rank::Closing);
            let inner = lines.find(|(_, _, inner, _)| self.tree.around(*inner).any(|at| at == id));
            match inner {
                Some((_, _, inner, _)) => id = *inner,
                None => break,
            }
        }
        let instance = self.get(id);
        if self.is_failing(id) {
            let failure = self.failure_inside(id);
            return Some(self.failed_event(id, Phase::Do, failure, Vec::new(), true));
        }
        if instance.role == Role::Foreach && !instance.expanded {
            return Some(self.expand(id).unwrap_or_else(|failure| {
                self.failed_event(id, Phase::Do, failure, Vec::new(), true)
            }));
        }
        Some(self.succeeded_event(id, Value::Null))
    }

    /// Why a container fails: the first failure inside, or too many.
    fn failure_inside(&self, container: InstanceId) -> Failure {
        let children = &self.get(container).children;
        let broken = children
            .iter()
            .map(|id| self.get(*id))
            .filter(|child| self.tally(container).broken > 0 && child.state == NodeState::Failed)
            .min_by_key(|child| child.finished_at);
        let Some((child, failure)) =
            broken.and_then(|child| Some((child, child.forward.failure.as_deref()?.clone())))
        else {
            let (failed, total) = (self.tally(container).failed, children.len());
            let may = self.budget(container);
            return Failure::new(
                "foreach.too_many_failures",
                format!("{failed} of {total} items failed, and max_failures is {may}"),
            )
            .certainty(Certainty::Partial);
        };
        Failure {
            message: format!("{}: {}", child.path, failure.message),
            output: Value::Null,
            certainty: Certainty::Partial,
            ..failure
        }
    }

    fn next_scope(&self) -> Option<EventBody> {
        self.agenda
            .of_rank(Rank::Scope)
            .find_map(|(_, _, scope, _)| {
                let turn = self.turn(*scope)?;
                // A run that is held up begins nothing new, nor does it end by itself.
                let begins = self.goes_forward(*scope);
                (!begins || !self.is_held_up()).then(|| self.turn_event(*scope, turn))
            })
    }

    fn ended_event(&self, id: InstanceId, phase: Phase) -> EventBody {
        EventBody::Skipped(Box::new(Skipped {
            node: self.get(id).path.clone(),
            phase,
            why: SkipCause::Ended,
        }))
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
        let mut lines = self.agenda.of_rank(Rank::Signal);
        let (_, _, id, phase) = *lines.find(|(.., phase)| !self.holds(*phase))?;
        let WaitOn::Signal(name) = &self.get(id).execution(phase).wait()?.on else {
            return None;
        };
        Some(EventBody::Awoken(Box::new(Awoken {
            node: self.get(id).path.clone(),
            phase,
            by: Woken::Signal(self.signals.get(name)?.first()?.clone()),
        })))
    }

    fn next_due(&self, now: Timestamp) -> Option<EventBody> {
        let (at, id, phase) = self.next_sleeping().filter(|(at, ..)| *at <= now)?;
        let awoken = self.awoken(id, phase, at);
        awoken.or_else(|| {
            Some(match phase {
                Phase::Do => self.start(id, now),
                Phase::Undo => self.start_undo(id, now),
            })
        })
    }

    /// Whether a wait is over. An order that was sent before that, and not taken yet, comes first.
    #[must_use]
    pub fn expires(&self, now: Timestamp) -> bool {
        let timers = self.agenda.of_rank(Rank::Timer);
        let mut expired = timers.take_while(|(_, at, ..)| *at <= now);
        self.finished.is_none() && expired.any(|(.., phase)| !self.holds(*phase))
    }

    /// Who is due next by the clock, and when.
    pub(super) fn next_sleeping(&self) -> Option<(Timestamp, InstanceId, Phase)> {
        let first = |rank| {
            let mut lines = self.agenda.of_rank(rank);
            lines.find(|(.., phase)| !self.holds(*phase))
        };
        let due = first(Rank::Retry).into_iter().chain(first(Rank::Timer));
        due.map(|(_, at, id, phase)| (*at, *id, *phase)).min()
    }

    /// A scope that ends wakes nothing: what sleeps is ended.
    fn next_sleeper(&self) -> Option<EventBody> {
        let (id, phase) = self.agenda.first(Rank::Sleeper)?;
        let execution = self.get(id).execution(phase);
        if !self.is_cut_off(id, phase) {
            let node = self.get(id).path.clone();
            return Some(EventBody::Withdrawn(Withdrawn { node }));
        }
        if let (Phase::Do, At::Backoff { .. }, Some(failure)) =
            (phase, &execution.at, execution.own_failure().cloned())
        {
            return Some(self.failed_event(id, Phase::Do, failure, Vec::new(), true));
        }
        Some(self.ended_event(id, phase))
    }

    // ---- starting ------------------------------------------------------------------------------------

    fn next_ready(&self, now: Timestamp) -> Option<EventBody> {
        if self.paused.is_some() {
            return None;
        }
        // What a person ordered runs although another failure asks.
        let ordered = self.agenda.first(Rank::Ordered);
        let ready = || {
            self.agenda
                .first(Rank::Ready)
                .filter(|_| !self.is_held_up())
        };
        let (id, _) = ordered.or_else(ready)?;
        // A foreach stands for the item that comes next.
        let id = match self.tree.stage(id, Phase::Do) {
            Stage::Running => self.next_item(id)?,
            _ => id,
        };
        Some(self.start(id, now))
    }

    pub(super) fn next_undo(&self, now: Timestamp) -> Option<EventBody> {
        if self.paused.is_some() {
            return None;
        }
        let (id, _) = self.agenda.first(Rank::Undo)?;
        Some(self.start_undo(id, now))
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

    /// Whether a probe can find out if an execution happened: that of its kind, or that of the playbook.
    #[must_use]
    pub fn can_be_asked(&self, id: InstanceId, phase: Phase) -> bool {
        let action = self.action(id, phase);
        self.redo(id, phase) != Redo::AskOperator
            || action.is_some_and(|action| action.probe.is_some())
    }

    pub(super) fn marks(&self, id: InstanceId, phase: Phase) -> bool {
        self.action(id, phase)
            .is_some_and(|action| action.traits.marks)
    }

    /// The next attempt, after a delay.
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
