//! What comes next: a pure decision. The driver asks until there is none.
use super::{
    core::{IllegalEvent, Machine, ROOT, ScopePhase},
    event::*,
    settle::Reaction,
    state::{InstanceId, Role, Stage},
};
use crate::{
    expr::{Expr, ExprError, Template},
    graph::{Action, Body, Node},
    step::{Cause, Certainty, Effect, Failure, Phase, Redo, WaitOn, Woken},
    value::{Duration, Timestamp, Value},
};
use indexmap::IndexMap;

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

    fn succeeded_event(&self, id: InstanceId, output: Value) -> EventBody {
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

    fn expand(&self, id: InstanceId) -> Result<EventBody, Failure> {
        let node = self
            .def(id)
            .ok_or_else(|| Failure::new("foreach.no_node", "the node is gone"))?;
        let Some(foreach) = &node.foreach else {
            return Err(Failure::new("foreach.no_items", "the node has no foreach"));
        };
        let wrong = |what: String| Failure::new("foreach.items", what);
        let vars = self
            .vars(id, Phase::Do, [&foreach.items])
            .map_err(|e| expression_failed("items", &foreach.items, &e))?;
        let items = foreach
            .items
            .evaluate(&vars)
            .map_err(|e| expression_failed("items", &foreach.items, &e))?;
        let Some(items) = items.as_list() else {
            return Err(wrong(format!(
                "items must be a list, but {} is a {}",
                foreach.items.source(),
                items.type_name()
            )));
        };
        let mut kept = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if let Some(when) = &foreach.when {
                let vars = self
                    .vars(id, Phase::Do, [when])
                    .map_err(|e| expression_failed("foreach.when", when, &e))?
                    .with("item", item.clone())
                    .with(foreach.name.as_str(), item.clone())
                    .with(
                        "index",
                        Value::Int(i64::try_from(index).unwrap_or(i64::MAX)),
                    );
                if !truth("foreach.when", when, &vars)? {
                    continue;
                }
            }
            kept.push(item.clone());
        }
        if let Some(max) = foreach.max_items
            && kept.len() > max as usize
        {
            return Err(wrong(format!(
                "{} items, but max_items is {max}; nothing was started",
                kept.len()
            )));
        }
        Ok(EventBody::Expanded(Expanded {
            node: self.get(id).path.clone(),
            items: kept,
        }))
    }

    // ---- scopes --------------------------------------------------------------------------------------

    fn next_scope(&self) -> Option<EventBody> {
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
                Stage::Waiting | Stage::AwaitingApproval => {
                    let timer = execution
                        .wait
                        .as_ref()
                        .is_some_and(|w| w.on == WaitOn::Timer(*at));
                    let by = if timer { Woken::Timer } else { Woken::Deadline };
                    return Some(EventBody::Awoken(Awoken {
                        node: self.get(*id).path.clone(),
                        phase: *phase,
                        by,
                    }));
                }
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

    /// The event with which a ready instance starts, waits at its gate, is skipped, or fails.
    fn start(&self, id: InstanceId, now: Timestamp) -> EventBody {
        self.try_start(id, now).unwrap_or_else(|(failure, facts)| {
            self.failed_event(id, Phase::Do, failure, facts, true)
        })
    }

    fn try_start(&self, id: InstanceId, now: Timestamp) -> Result<EventBody, (Failure, Vec<Fact>)> {
        let instance = self.get(id);
        let node = self
            .def(id)
            .ok_or_else(|| (Failure::new("run.no_node", "the node is gone"), Vec::new()))?;
        let mut facts = Vec::new();
        let plain = |failure| (failure, Vec::new());
        // An item shares its node with its foreach, which has asked `when` already.
        let is_item = instance.item.is_some();
        if let Some(when) = &node.when
            && !is_item
            && instance.forward.attempt == 0
        {
            let vars = self
                .vars(id, Phase::Do, [when])
                .map_err(|e| plain(expression_failed("when", when, &e)))?;
            let holds = truth("when", when, &vars).map_err(plain)?;
            let fact = Fact {
                what: "when".to_owned(),
                expr: when.source().to_owned(),
                value: Value::Bool(holds),
            };
            if !holds {
                return Ok(EventBody::Skipped(Skipped {
                    node: instance.path.clone(),
                    phase: Phase::Do,
                    why: SkipCause::When(fact),
                }));
            }
            facts.push(fact);
        }
        let mut started = Started {
            node: instance.path.clone(),
            phase: Phase::Do,
            part: 0,
            attempt: instance.forward.attempt + 1,
            cause: instance.forward.next_cause.unwrap_or(StartCause::First),
            input: Value::Null,
            facts,
            targets: IndexMap::new(),
            deadline: None,
        };
        match (instance.role, &node.body) {
            (Role::Step, Body::Step(step)) => {
                if let Some(gate) = &step.gate {
                    let vars = self
                        .vars(id, Phase::Do, [gate])
                        .map_err(|e| plain(expression_failed("gate", gate, &e)))?;
                    let holds = truth("gate", gate, &vars).map_err(plain)?;
                    let fact = Fact {
                        what: "gate".to_owned(),
                        expr: gate.source().to_owned(),
                        value: Value::Bool(holds),
                    };
                    if !holds {
                        return Ok(EventBody::Gated(Gated {
                            node: instance.path.clone(),
                            gate: fact,
                        }));
                    }
                    started.facts.push(fact);
                }
                let (input, targets) = self
                    .resolve(id, Phase::Do, &step.action)
                    .map_err(|f| (f, started.facts.clone()))?;
                started.input = input;
                started.targets = targets;
                started.deadline = self
                    .timeout(id, Phase::Do, &step.action)
                    .map(|t| t.after(now));
            }
            (Role::Call, Body::Call(call)) => {
                started.input = self
                    .call_inputs(id, node, call)
                    .map_err(|f| (f, started.facts.clone()))?;
            }
            _ => {}
        }
        Ok(EventBody::Started(Box::new(started)))
    }

    fn call_inputs(
        &self,
        id: InstanceId,
        node: &Node,
        call: &crate::graph::CallDef,
    ) -> Result<Value, Failure> {
        let mut given = IndexMap::new();
        for (name, template) in &call.inputs {
            given.insert(name.clone(), self.evaluate(id, Phase::Do, name, template)?);
        }
        crate::compile::inputs::check_value(&call.scope.inputs, &given).map_err(|error| {
            Failure::new(
                "call.inputs",
                format!("{} cannot be called: {error}", node.id),
            )
        })
    }

    /// Evaluates a template as an instance sees it.
    pub(super) fn evaluate(
        &self,
        id: InstanceId,
        phase: Phase,
        what: &str,
        template: &Template,
    ) -> Result<Value, Failure> {
        if let Template::Literal(value) = template {
            return Ok(value.clone());
        }
        let failed = |e: ExprError| {
            let failure = Failure::new("expression.failed", format!("{what}: {}", e.message));
            match e.help {
                Some(help) => failure.help(help),
                None => failure,
            }
        };
        let vars = self
            .vars(id, phase, template.expressions())
            .map_err(failed)?;
        template.evaluate(&vars).map_err(failed)
    }

    /// Parameters of an action, with the derived targets that they name.
    fn resolve(
        &self,
        id: InstanceId,
        phase: Phase,
        action: &Action,
    ) -> Result<(Value, IndexMap<String, crate::step::Target>), Failure> {
        let input = self.evaluate(id, phase, "with", &action.with)?;
        let mut bound = IndexMap::new();
        for path in &action.targets {
            let Some(name) = at_path(&input, path).and_then(Value::as_str) else {
                continue;
            };
            if let Some(target) = self.bind_target(id, phase, name)? {
                bound.insert(name.to_owned(), target);
            }
        }
        Ok((input, bound))
    }

    // ---- undo ----------------------------------------------------------------------------------------

    fn next_undo(&self, now: Timestamp) -> Option<EventBody> {
        if self.paused.is_some() {
            return None;
        }
        Some(self.start_undo(*self.undo_ready.first()?, now))
    }

    fn start_undo(&self, id: InstanceId, now: Timestamp) -> EventBody {
        let instance = self.get(id);
        let nothing = || {
            EventBody::Skipped(Skipped {
                node: instance.path.clone(),
                phase: Phase::Undo,
                why: SkipCause::NoEffect,
            })
        };
        let Some(action) = self.action(id, Phase::Undo) else {
            return nothing();
        };
        let mut started = Started {
            node: instance.path.clone(),
            phase: Phase::Undo,
            part: instance.undo.part,
            attempt: instance.undo.attempt + 1,
            cause: instance.undo.next_cause.unwrap_or(StartCause::First),
            input: Value::Null,
            facts: Vec::new(),
            targets: IndexMap::new(),
            deadline: self.timeout(id, Phase::Undo, action).map(|t| t.after(now)),
        };
        if self.undo_is_auto(id) {
            // The kind undoes what it did, with the parameters that it did it with.
            started.input = instance.forward.input.clone();
            started.targets.clone_from(&instance.forward.targets);
            return EventBody::Started(Box::new(started));
        }
        let failed = |failure| self.failed_event(id, Phase::Undo, failure, Vec::new(), true);
        if let Some(when) = &action.when {
            let holds = self
                .vars(id, Phase::Undo, [when])
                .map_err(|e| expression_failed("undo.when", when, &e))
                .and_then(|vars| truth("undo.when", when, &vars));
            match holds {
                Err(failure) => return failed(failure),
                Ok(false) if instance.undo.part == 0 && instance.undo.attempt == 0 => {
                    return nothing();
                }
                // A later part that has nothing to do is a part that is done.
                Ok(false) => {
                    return EventBody::Skipped(Skipped {
                        node: instance.path.clone(),
                        phase: Phase::Undo,
                        why: SkipCause::NoEffect,
                    });
                }
                Ok(true) => started.facts.push(Fact {
                    what: "undo.when".to_owned(),
                    expr: when.source().to_owned(),
                    value: Value::Bool(true),
                }),
            }
        }
        match self.resolve(id, Phase::Undo, action) {
            Ok((input, targets)) => {
                started.input = input;
                started.targets = targets;
                EventBody::Started(Box::new(started))
            }
            Err(failure) => failed(failure),
        }
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

    fn timeout(&self, id: InstanceId, phase: Phase, action: &Action) -> Option<Duration> {
        if phase == Phase::Undo
            && let Some(Body::Step(step)) = self.def(id).map(|node| &node.body)
            && let crate::graph::Undo::Auto {
                timeout: Some(timeout),
                ..
            } = &step.undo
        {
            return Some(*timeout);
        }
        action.timeout
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

    /// What the failure of a node would lead to, in words; for pages that explain.
    #[must_use]
    pub fn failure_leads_to(&self, id: InstanceId) -> &'static str {
        match self.reaction(id) {
            Reaction::Tolerate { .. } => "the run goes on",
            Reaction::FailParent | Reaction::CountItem => "what it is part of fails",
            Reaction::End { undo: true } => "the run undoes what it did",
            Reaction::End { undo: false } => "the run stops and leaves things as they are",
            Reaction::Ask => "the run pauses and asks",
        }
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

fn expression_failed(what: &str, expr: &Expr, error: &ExprError) -> Failure {
    let failure = Failure::new(
        "expression.failed",
        format!(
            "{what}: {} cannot be decided: {}",
            expr.source(),
            error.message
        ),
    );
    match &error.help {
        Some(help) => failure.help(help.clone()),
        None => failure,
    }
}

fn truth(what: &str, expr: &Expr, vars: &crate::expr::Vars) -> Result<bool, Failure> {
    let value = expr
        .evaluate(vars)
        .map_err(|e| expression_failed(what, expr, &e))?;
    value.as_bool().ok_or_else(|| {
        Failure::new(
            "expression.not_boolean",
            format!(
                "{what}: {} is a {}, not true or false",
                expr.source(),
                value.type_name()
            ),
        )
    })
}

/// The member of a value at a path of keys and positions.
pub(super) fn at_path<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| match value {
        Value::List(items) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
        Value::Map(map) => map.get(key.as_str()),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Secret(_) => None,
    })
}
