//! What expressions see: `inputs`, `let` names, `steps`, `run`, items.
use super::{
    core::{Machine, ScopePhase},
    execution::Stage,
    state::{Instance, InstanceId, Role},
    tree::ROOT,
};
use crate::{
    expr::{Expr, ExprError, REACHABLE, Vars},
    graph::{Graph, TargetDecl},
    step::{Phase, Target},
    value::{Duration, Value},
};
use indexmap::IndexMap;
use std::{collections::BTreeSet, sync::Arc};

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
fn step_value(instance: &Instance) -> Value {
    let at = |time: Option<crate::value::Timestamp>| time.map_or(Value::Null, Value::Timestamp);
    let duration = match (instance.started_at, instance.finished_at) {
        (Some(start), Some(end)) => Value::Duration(Duration::between(start, end)),
        (Some(_) | None, None) | (None, Some(_)) => Value::Null,
    };
    Value::map([
        ("output", instance.output.clone()),
        ("state", Value::from(instance.state.as_str())),
        ("error", error_value(instance)),
        ("started_at", at(instance.started_at)),
        ("finished_at", at(instance.finished_at)),
        ("duration", duration),
        ("attempts", Value::Int(i64::from(instance.forward.attempt))),
    ])
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
        let mut vars = Vars::new();
        let mut steps: Vec<(String, Value)> = Vec::new();
        let mut roots: BTreeSet<String> = BTreeSet::new();
        let mut queue: Vec<Expr> = exprs.into_iter().cloned().collect();
        let scope = self.scope_for(id);
        let mut lets: Vec<(String, Expr)> = Vec::new();
        while let Some(expr) = queue.pop() {
            for reference in expr.references() {
                if reference.root == "steps" {
                    if let Some(name) = reference.path.first()
                        && !steps.iter().any(|(known, _)| known == name)
                        && let Some(found) = self.visible(id, name)
                    {
                        steps.push((name.clone(), step_value(self.get(found))));
                    }
                    roots.insert("steps".to_owned());
                } else if roots.insert(reference.root.clone())
                    && let Some(named) = self.scope_def(scope).lets.get(&reference.root)
                {
                    lets.push((reference.root.clone(), named.clone()));
                    queue.push(named.clone());
                }
            }
        }
        if roots.contains("steps") {
            vars.set("steps", Value::map(steps));
        }
        if roots.contains("inputs") {
            vars.set("inputs", self.inputs_of(scope));
        }
        if roots.contains("run") {
            vars.set("run", self.run_value());
        }
        if roots.contains("targets") {
            let names = self.target_names_in(scope);
            let bound = &self.started.targets;
            let reachable = reachable_value(&self.graph, &names, bound);
            vars.set(REACHABLE, reachable);
            vars.set("targets", targets_value(&self.graph, &names, bound));
        }
        self.item_vars(id, &roots, &mut vars);
        if phase == Phase::Undo {
            let instance = self.get(id);
            let capture = instance.forward.capture.clone().unwrap_or_default();
            vars.set("capture", capture);
            let output = instance.output.clone();
            vars.set("output", output);
        }
        // A `let` names only earlier ones, so the scope's order is an order of evaluation.
        let names: Vec<&String> = self.scope_def(scope).lets.keys().collect();
        lets.sort_by_key(|(name, _)| names.iter().position(|known| *known == name));
        for (name, expr) in lets {
            let value = expr.evaluate(&vars)?;
            vars.set(name, value);
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

    /// The scope whose names an instance sees; a call itself sees those around it.
    fn scope_for(&self, id: InstanceId) -> InstanceId {
        if id == ROOT { ROOT } else { self.get(id).scope }
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

    fn inputs_of(&self, scope: InstanceId) -> Value {
        if scope == ROOT {
            self.inputs.clone()
        } else {
            self.get(scope).forward.input.clone()
        }
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

    fn item_vars(&self, id: InstanceId, roots: &BTreeSet<String>, vars: &mut Vars) {
        // The innermost item wins, so the outer ones are set first.
        let mut chain = Vec::new();
        let mut at = Some(id);
        while let Some(current) = at {
            if let Some((index, item)) = &self.get(current).item {
                let name = self
                    .def(current)
                    .and_then(|node| node.foreach.as_ref())
                    .map(|foreach| &foreach.name);
                chain.push((*index, item.clone(), name.cloned()));
            }
            if self.get(current).role == Role::Call && current != id {
                break;
            }
            at = self.get(current).parent;
        }
        for (index, item, name) in chain.into_iter().rev() {
            if roots.contains("index") {
                vars.set("index", Value::Int(i64::from(index)));
            }
            if roots.contains("item") {
                vars.set("item", item.clone());
            }
            if let Some(name) = name
                && name != "item"
                && roots.contains(&name)
            {
                vars.set(name, item);
            }
        }
    }

    /// What `run` reads.
    fn run_value(&self) -> Value {
        let run = &self.started.run;
        let root = self.scopes.get(&ROOT);
        let outcome = match (&self.finished, root.and_then(|scope| scope.outcome)) {
            (Some(finished), _) => Value::from(finished.outcome.as_str()),
            (None, Some(outcome)) => Value::from(outcome.as_str()),
            (None, None) => Value::Null,
        };
        let failed = self.ending_of(ROOT).is_some()
            || root.is_some_and(|scope| scope.soft > 0 || scope.phase == ScopePhase::Undoing);
        Value::map([
            ("id", Value::from(run.id.as_str())),
            ("short_id", Value::from(run.short_id.as_str())),
            ("url", run.url.as_deref().map_or(Value::Null, Value::from)),
            ("by", Value::from(run.by.as_str())),
            ("playbook", Value::from(run.playbook.as_str())),
            ("environment", Value::from(run.environment.as_str())),
            ("started_at", Value::Timestamp(run.started_at)),
            ("outcome", outcome),
            ("failed", Value::Bool(failed)),
        ])
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
