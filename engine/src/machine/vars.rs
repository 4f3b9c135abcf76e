//! What expressions see: `inputs`, `let` names, `steps`, `run`, items.
use super::{
    core::{Machine, ScopePhase},
    execution::Stage,
    state::{Instance, InstanceId, Role},
    tree::ROOT,
};
use crate::{
    expr::{self, Expr, ExprError, StepView, Vars, View},
    graph::{Graph, TargetDecl},
    step::{Phase, Target},
    value::{Duration, Value},
};
use indexmap::IndexMap;
use std::sync::Arc;

/// What `steps.ID.error` reads.
pub(super) fn error_value(instance: &Instance) -> Value {
    instance
        .forward
        .failure
        .as_ref()
        .map_or(Value::Null, |failure| {
            Value::map([
                ("code", Value::from(failure.code.as_str())),
                ("message", Value::from(failure.message.as_str())),
            ])
        })
}

/// What `steps.ID` reads.
fn step_view(instance: &Instance) -> StepView {
    let at = |time: Option<crate::value::Timestamp>| time.map_or(Value::Null, Value::Timestamp);
    let duration = match (instance.started_at, instance.finished_at) {
        (Some(start), Some(end)) => Value::Duration(Duration::between(start, end)),
        (Some(_) | None, None) | (None, Some(_)) => Value::Null,
    };
    StepView {
        output: instance.output.clone(),
        state: Value::from(instance.state.as_str()),
        error: error_value(instance),
        started_at: at(instance.started_at),
        finished_at: at(instance.finished_at),
        duration,
        attempts: Value::Int(i64::from(instance.forward.attempt)),
    }
}

/// A run as an instance sees it.
struct Seen<'m> {
    machine: &'m Machine,
    id: InstanceId,
    /// The scope whose names it sees; a call itself sees those around it.
    scope: InstanceId,
}

impl View for Seen<'_> {
    fn step(&self, name: &str) -> Option<StepView> {
        let found = self.machine.visible(self.id, name)?;
        Some(step_view(self.machine.get(found)))
    }

    fn inputs(&self) -> Value {
        if self.scope == ROOT {
            self.machine.inputs.clone()
        } else {
            self.machine.get(self.scope).forward.input.clone()
        }
    }

    fn run(&self) -> Value {
        let machine = self.machine;
        let root = machine.scopes.get(&ROOT);
        let outcome = match (&machine.finished, root.and_then(|scope| scope.outcome)) {
            (Some(finished), _) => Value::from(machine.outcome_word(finished.outcome)),
            (None, Some(outcome)) => Value::from(machine.outcome_word(outcome)),
            (None, None) => Value::Null,
        };
        let failed = machine.ending_of(ROOT).is_some()
            || root.is_some_and(|scope| scope.soft > 0 || scope.phase == ScopePhase::Undoing);
        machine.started.run.view(outcome, Value::Bool(failed))
    }

    fn targets(&self) -> (Value, Value) {
        let (graph, bound) = (&self.machine.graph, &self.machine.started.targets);
        let names = self.machine.target_names_in(self.scope);
        (
            targets_value(graph, &names, bound),
            reachable_value(graph, &names, bound),
        )
    }

    fn item(&self, name: &str) -> Option<Value> {
        let mut at = Some(self.id);
        while let Some(current) = at {
            let instance = self.machine.get(current);
            if let Some((index, item)) = &instance.item {
                let named = || self.machine.def(current)?.foreach.as_ref();
                match name {
                    "index" => return Some(Value::Int(i64::from(*index))),
                    "item" => return Some(item.clone()),
                    name if named().is_some_and(|foreach| foreach.name == name) => {
                        return Some(item.clone());
                    }
                    _ => {}
                }
            }
            if instance.role == Role::Call && current != self.id {
                return None;
            }
            at = instance.parent;
        }
        None
    }

    fn lets(&self) -> &IndexMap<String, Expr> {
        &self.machine.scope_def(self.scope).lets
    }
}

impl Machine {
    /// The variables that these expressions need, as an instance sees them.
    ///
    /// # Errors
    /// Where a `let` expression fails.
    pub fn vars<'a>(
        &self,
        id: InstanceId,
        phase: Phase,
        exprs: impl IntoIterator<Item = &'a Expr>,
    ) -> Result<Vars, ExprError> {
        let scope = if id == ROOT { ROOT } else { self.get(id).scope };
        let seen = Seen {
            machine: self,
            id,
            scope,
        };
        let mut vars = expr::vars(&seen, exprs)?;
        if phase == Phase::Undo {
            let instance = self.get(id);
            let capture = instance.forward.capture.clone().unwrap_or_default();
            vars.set("capture", capture);
            vars.set("output", instance.output.clone());
        }
        Ok(vars)
    }

    // ---- views ---------------------------------------------------------------------------------------

    /// A foreach's output: a view that shares its items' outputs.
    pub(super) fn foreach_view(&self, id: InstanceId) -> Value {
        let mut succeeded = 0;
        let mut failed = 0;
        let items = self
            .get(id)
            .children
            .iter()
            .map(|child| {
                let child = self.get(*child);
                match child.forward.stage() {
                    Stage::Succeeded => succeeded += 1,
                    Stage::Failed => failed += 1,
                    Stage::Idle
                    | Stage::Running
                    | Stage::Backoff
                    | Stage::Waiting
                    | Stage::AwaitingApproval
                    | Stage::InDoubt
                    | Stage::Skipped
                    | Stage::Ended => {}
                }
                Value::map([
                    (
                        "item",
                        child
                            .item
                            .as_ref()
                            .map(|(_, item)| item.clone())
                            .unwrap_or_default(),
                    ),
                    ("state", Value::from(child.state.as_str())),
                    ("output", child.output.clone()),
                    ("error", error_value(child)),
                ])
            })
            .collect();
        Value::map([
            ("items", Value::List(Arc::new(items))),
            ("succeeded", Value::Int(succeeded)),
            ("failed", Value::Int(failed)),
        ])
    }

    /// A group's output: the outputs of its steps by id.
    pub(super) fn group_view(&self, id: InstanceId) -> Value {
        Value::map(self.get(id).children.iter().filter_map(|child| {
            let node = self.def(*child)?;
            Some((node.id.clone(), self.get(*child).output.clone()))
        }))
    }

    /// The variables that a scope's own expressions (its outputs) need.
    pub(super) fn scope_vars<'a>(
        &self,
        scope: InstanceId,
        exprs: impl IntoIterator<Item = &'a Expr>,
    ) -> Result<Vars, ExprError> {
        // Seen from a step of the scope; a scope without steps has nothing to name but inputs.
        let inside = self.get(scope).children.first().copied().unwrap_or(scope);
        self.vars(inside, Phase::Do, exprs)
    }

    /// The instance that `steps.NAME` means here: in the same list, or one of those around it up to the scope.
    fn visible(&self, id: InstanceId, name: &str) -> Option<InstanceId> {
        let mut at = id;
        while let Some(parent) = self.get(at).parent {
            if self.get(parent).role != Role::Foreach {
                let base = &self.get(parent).path;
                let path = if base.is_empty() {
                    name.to_owned()
                } else {
                    format!("{base}/{name}")
                };
                if let Some(found) = self.id_of(&path) {
                    return Some(found);
                }
            }
            if matches!(self.get(parent).role, Role::Root | Role::Call) {
                return None;
            }
            at = parent;
        }
        None
    }

    /// The names that `targets` has in a scope, each with its name in the graph.
    fn target_names_in(&self, scope: InstanceId) -> Vec<(String, String)> {
        match self.def(scope).map(|node| &node.body) {
            Some(crate::graph::Body::Call(call)) => call
                .targets
                .keys()
                .map(|name| (name.clone(), self.global_in(scope, name)))
                .collect(),
            Some(_) | None => self.graph.root_targets(),
        }
    }
}

/// What `targets` reads in expressions: a name, or the names of a `many` target. `names` are those of a scope, each with its
/// name in the graph.
#[must_use]
pub fn targets_value(
    graph: &Graph,
    names: &[(String, String)],
    bound: &IndexMap<String, Target>,
) -> Value {
    Value::map(names.iter().map(|(name, global)| {
        let value = match graph.targets.get(global) {
            Some(TargetDecl::Many { .. }) => members(global, bound, |_| true),
            Some(TargetDecl::Named { .. } | TargetDecl::Derived { .. }) | None => {
                Value::from(name.as_str())
            }
        };
        (name.as_str(), value)
    }))
}

/// What `targets.NAME.reachable` reads: whether the run has reached the target, or the names of the members that it has.
#[must_use]
pub fn reachable_value(
    graph: &Graph,
    names: &[(String, String)],
    bound: &IndexMap<String, Target>,
) -> Value {
    Value::map(names.iter().map(|(name, global)| {
        let value = match graph.targets.get(global) {
            Some(TargetDecl::Many { .. }) => {
                members(global, bound, |target| target.identity.is_some())
            }
            Some(TargetDecl::Named { .. } | TargetDecl::Derived { .. }) | None => bound
                .get(global)
                .map_or(Value::Null, |target| Value::Bool(target.identity.is_some())),
        };
        (name.as_str(), value)
    }))
}

fn members(many: &str, bound: &IndexMap<String, Target>, keep: impl Fn(&Target) -> bool) -> Value {
    let prefix = format!("{many}[");
    let of_it = bound
        .iter()
        .filter(|(key, target)| key.starts_with(&prefix) && keep(target));
    Value::list(of_it.map(|(key, _)| Value::from(key.as_str())).collect())
}
