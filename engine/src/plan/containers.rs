//! Nodes that hold others: groups, calls and loops.
use super::{
    Cost, Decision, ForeachPlan, NodePlan,
    known::{After, Caller, Item, Known, Scope, StepKnown, short},
    walk::{Around, Planned, Walk, reads_steps},
};
use crate::{
    expr::{Expr, Template},
    graph::{Body, CallDef, Foreach, InputDecl, NodeId, definition},
    playbook::inputs::coerce,
    value::{Map, Value},
};
use indexmap::IndexMap;
use std::{collections::HashMap, sync::Arc};

/// Items of a `foreach` that a plan shows one by one.
const MAX_SHOWN: usize = 100;

impl Walk<'_> {
    pub(super) async fn body(
        &mut self,
        id: NodeId,
        plan: NodePlan,
        scope: &mut Scope,
        around: &Around,
    ) -> Planned {
        let graph = self.world.graph;
        match &graph.node(id).body {
            Body::Step(step) => self.step(step, plan, scope, around).await,
            Body::Group { steps } => {
                let inside = Around {
                    prefix: format!("{}/", plan.path),
                    ..around.clone()
                };
                let mut inner = scope.clone();
                let listed = self.list(steps, &mut inner, &inside).await;
                let known = outcome(&plan.path, &listed.nodes, Known::Value(Value::Null), &inner);
                Planned {
                    known,
                    writes: listed.writes,
                    cost: listed.cost,
                    node: NodePlan {
                        steps: listed.nodes,
                        ..plan
                    },
                }
            }
            Body::Call(call) => self.call(call, plan, scope, around).await,
        }
    }

    async fn call(
        &mut self,
        call: &CallDef,
        mut plan: NodePlan,
        scope: &Scope,
        around: &Around,
    ) -> Planned {
        let mut inputs: IndexMap<String, Known> = IndexMap::new();
        for (name, decl) in &call.scope.inputs {
            let known = match call.inputs.get(name) {
                Some(template) => match self.input(scope, decl, template) {
                    Ok(known) => known,
                    Err(error) => {
                        plan.decision = Decision::Fails {
                            because: format!("input {name}: {error}"),
                        };
                        Known::after(&plan.path)
                    }
                },
                None => Known::Value(decl.default.clone().unwrap_or_default()),
            };
            if let Known::Value(value) = &known {
                self.collect_secrets(value);
            }
            inputs.insert(name.clone(), known);
        }
        let caller = Caller {
            scope: scope.clone(),
            targets: call.targets.clone(),
            home: definition(&plan.path),
        };
        let mut inner = Scope {
            inputs,
            lets: Arc::new(call.scope.lets.clone()),
            steps: HashMap::new(),
            items: Vec::new(),
            caller: Some(Arc::new(caller)),
        };
        let inside = Around {
            prefix: format!("{}/", plan.path),
            bound: around.bound
                && !call
                    .inputs
                    .values()
                    .flat_map(Template::expressions)
                    .any(|expr| reads_steps(scope, expr)),
            ..around.clone()
        };
        let listed = self.list(&call.scope.steps, &mut inner, &inside).await;
        let end = Around {
            writes_before: listed.writes.clone(),
            ..inside
        };
        let finally = self.list(&call.scope.finally, &mut inner, &end).await;
        let mut output = Map::new();
        let mut waits = After::new();
        for (name, template) in &call.scope.outputs {
            match self.world.resolve(&inner, template) {
                Ok(Known::Value(value)) => {
                    output.insert(name.as_str().into(), value);
                }
                Ok(Known::After(after)) => waits.extend(after),
                Err(_) => {
                    waits.insert(plan.path.clone());
                }
            }
        }
        let output = if waits.is_empty() {
            Known::Value(Value::Map(Arc::new(output)))
        } else {
            Known::After(waits)
        };
        let mut cost = listed.cost.then(finally.cost);
        if let Some(limit) = call.max_duration
            && cost.time > limit
        {
            cost.time = limit;
        }
        plan.description = plan.description.or_else(|| Some(call.path.clone()));
        Planned {
            known: outcome(&plan.path, &listed.nodes, output, &inner),
            writes: finally.writes,
            cost,
            node: NodePlan {
                steps: listed.nodes,
                finally: finally.nodes,
                ..plan
            },
        }
    }

    /// An input of a call, as the type that the callee declares.
    fn input(&self, scope: &Scope, decl: &InputDecl, template: &Template) -> Result<Known, String> {
        match self.world.resolve(scope, template) {
            Ok(Known::Value(value)) => coerce(decl.kind, decl.of, &value).map(Known::Value),
            Ok(after) => Ok(after),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) async fn foreach(
        &mut self,
        id: NodeId,
        foreach: &Foreach,
        mut plan: NodePlan,
        scope: &mut Scope,
        around: &Around,
    ) -> Planned {
        let mut around = around.clone();
        around.bound &= !reads_steps(scope, &foreach.items)
            && foreach
                .when
                .as_ref()
                .is_none_or(|when| !reads_steps(scope, when));
        let mut shape = ForeachPlan {
            of: foreach.items.source().to_owned(),
            items: None,
            shown: 0,
            max_items: foreach.max_items,
            max_parallel: foreach.max_parallel,
            known_after: Vec::new(),
        };
        let items = match self.items(foreach, scope) {
            Ok(Known::Value(Value::List(items))) => Ok(items),
            Ok(Known::After(after)) => Err(after),
            Ok(Known::Value(other)) => {
                plan.decision = Decision::Fails {
                    because: format!(
                        "`{}` must be a list, and is {}",
                        foreach.items.source(),
                        short(&other)
                    ),
                };
                Ok(Arc::new(Vec::new()))
            }
            Err(because) => {
                plan.decision = Decision::Fails { because };
                Ok(Arc::new(Vec::new()))
            }
        };
        let (shown, count): (Vec<(String, Known, Known)>, u64) = match &items {
            Ok(items) => {
                shape.items = Some(items.len() as u64);
                let shown = items
                    .iter()
                    .take(MAX_SHOWN)
                    .enumerate()
                    .map(|(index, item)| {
                        let at = Value::Int(i64::try_from(index).unwrap_or(i64::MAX));
                        (
                            format!("[{index}]"),
                            Known::Value(at),
                            Known::Value(item.clone()),
                        )
                    })
                    .collect();
                (shown, items.len() as u64)
            }
            Err(after) => {
                self.counts.decided_at_run_time += 1;
                shape.known_after = after.iter().cloned().collect();
                let unknown = Known::After(after.clone());
                let each = vec![("[…]".to_owned(), unknown.clone(), unknown)];
                (each, u64::from(foreach.max_items.unwrap_or(1)))
            }
        };
        shape.shown = shown.len() as u64;
        let mut cost = Cost::default();
        let mut writes = around.writes_before.clone();
        let mut views = Vec::new();
        let mut all_known = items.is_ok() && shown.len() as u64 == count;
        let each = plan.clone();
        for (suffix, index, value) in shown {
            let mut inner = scope.clone();
            inner.items.push(Item {
                name: foreach.name.clone(),
                index,
                value: value.clone(),
            });
            let item = NodePlan {
                path: format!("{}{suffix}", plan.path),
                decision: Decision::Run { because: None },
                ..each.clone()
            };
            // Another item may have written before this one starts.
            let inside = Around {
                writes_before: writes.clone(),
                ..around.clone()
            };
            let planned = self.body(id, item, &mut inner, &inside).await;
            writes.extend(planned.writes.iter().cloned());
            cost = cost.beside(planned.cost);
            match (&planned.known.state, &planned.known.output) {
                (Known::Value(state), Known::Value(output)) => views.push(Value::map([
                    ("item", value.value()),
                    ("state", state.clone()),
                    ("output", output.clone()),
                    ("error", Value::Null),
                ])),
                _ => all_known = false,
            }
            plan.steps.push(planned.node);
        }
        if items.is_err() && foreach.max_items.is_none() {
            cost.without_limit.push(plan.path.clone());
        }
        let known = if all_known {
            let succeeded = i64::try_from(views.len()).unwrap_or(i64::MAX);
            StepKnown::succeeded(
                &plan.path,
                Value::map([
                    ("items", Value::list(views)),
                    ("succeeded", Value::Int(succeeded)),
                    ("failed", Value::Int(0)),
                ]),
            )
        } else {
            StepKnown::after(&plan.path)
        };
        plan.foreach = Some(shape);
        Planned {
            node: plan,
            known,
            writes,
            cost: cost.times(count, foreach.max_parallel),
        }
    }

    /// The items, those that `when` passes over left out.
    fn items(&self, foreach: &Foreach, scope: &Scope) -> Result<Known, String> {
        let failed = |expr: &Expr, error| format!("`{}`: {error}", expr.source());
        let known = self
            .world
            .evaluate(scope, &foreach.items)
            .map_err(|error| failed(&foreach.items, error))?;
        let (Some(when), Known::Value(Value::List(items))) = (&foreach.when, &known) else {
            return Ok(known);
        };
        let mut kept = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let mut inner = scope.clone();
            inner.items.push(Item {
                name: foreach.name.clone(),
                index: Known::Value(Value::Int(i64::try_from(index).unwrap_or(i64::MAX))),
                value: Known::Value(item.clone()),
            });
            match self.world.evaluate(&inner, when) {
                Ok(Known::Value(Value::Bool(true))) => kept.push(item.clone()),
                Ok(Known::Value(Value::Bool(false))) => {}
                Ok(Known::After(after)) => return Ok(Known::After(after)),
                Ok(Known::Value(other)) => {
                    return Err(format!(
                        "`{}` must be true or false, and is {}",
                        when.source(),
                        short(&other)
                    ));
                }
                Err(error) => return Err(failed(when, error)),
            }
        }
        Ok(Known::Value(Value::list(kept)))
    }
}

fn outcome(path: &str, nodes: &[NodePlan], output: Known, inner: &Scope) -> StepKnown {
    let all_known = nodes.iter().all(|node| {
        let id = node.path.rsplit('/').next().unwrap_or_default();
        inner
            .steps
            .get(id)
            .is_some_and(|step| matches!(step.state, Known::Value(_)))
    });
    StepKnown {
        path: path.to_owned(),
        state: if all_known {
            Known::Value(Value::from("succeeded"))
        } else {
            Known::after(path)
        },
        output,
    }
}
