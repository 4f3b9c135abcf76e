//! How a node starts: its condition, its gate, its items, its parameters; forward and undo.
use super::{
    core::Machine,
    event::*,
    state::{InstanceId, Role},
};
use crate::{
    expr::{Expr, ExprError, Template},
    graph::{Action, Body, Node},
    step::{Failure, Phase},
    value::{Duration, Timestamp, Value},
};
use indexmap::IndexMap;

impl Machine {
    /// The event with which a ready instance starts, waits at its gate, is skipped, or fails.
    pub(super) fn start(&self, id: InstanceId, now: Timestamp) -> EventBody {
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
            && !instance.forward.begun
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
                return Ok(EventBody::Skipped(Box::new(Skipped {
                    node: instance.path.clone(),
                    phase: Phase::Do,
                    why: SkipCause::When(fact),
                })));
            }
            facts.push(fact);
        }
        // Before the gate: nothing is asked for a step that may not start yet.
        if let Some(opens) = self.window_opens(id, now) {
            return match self.window_refuses(id, opens) {
                Some(refused) => Err((refused, facts)),
                None => Ok(EventBody::WindowClosed(WindowClosed {
                    node: instance.path.clone(),
                    opens,
                })),
            };
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
                        return Ok(EventBody::Gated(Box::new(Gated {
                            node: instance.path.clone(),
                            gate: fact,
                        })));
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
                // An item that is open again keeps what it was called with.
                started.input = if instance.forward.begun {
                    instance.forward.input.clone()
                } else {
                    self.call_inputs(id, node, call)
                        .map_err(|f| (f, started.facts.clone()))?
                };
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

    pub(super) fn expand(&self, id: InstanceId) -> Result<EventBody, Failure> {
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

    // ---- undo ----------------------------------------------------------------------------------------

    pub(super) fn start_undo(&self, id: InstanceId, now: Timestamp) -> EventBody {
        let instance = self.get(id);
        let nothing = || {
            EventBody::Skipped(Box::new(Skipped {
                node: instance.path.clone(),
                phase: Phase::Undo,
                why: SkipCause::NoEffect,
            }))
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
                // A later part that has nothing to do is a part that is done.
                Ok(false) => return nothing(),
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

    // ---- parameters ----------------------------------------------------------------------------------

    pub(super) fn timeout(
        &self,
        id: InstanceId,
        phase: Phase,
        action: &Action,
    ) -> Option<Duration> {
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
