//! The walk over the graph.
use super::{
    Cost, Counts, Decision, ForeachPlan, NodePlan, PLAN_FORMAT, Plan, PlanRequest, PlanSource,
    PointOfNoReturn,
    digest::digest,
    known::{After, Caller, Item, Known, Scope, StepKnown, World, short},
    preview::undo,
};
use crate::{
    expr::{Expr, Template},
    graph::{Body, CallDef, Foreach, InputDecl, NodeId, definition},
    playbook::inputs::coerce,
    value::{Map, Value},
};
use futures_util::future::BoxFuture;
use indexmap::IndexMap;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// Items of a `foreach` that a plan shows one by one.
const MAX_SHOWN: usize = 100;

/// Plans a run. What fails stands in the plan beside its step.
pub async fn plan(request: PlanRequest<'_>) -> Plan {
    let graph = request.graph;
    let mut walk = Walk {
        world: World {
            graph,
            run: &request.run,
            targets: &request.targets,
        },
        request: &request,
        counts: Counts::default(),
        point: None,
        secrets: BTreeSet::new(),
    };
    let inputs = request
        .inputs
        .as_map()
        .map(|map| {
            map.iter()
                .map(|(name, value)| (name.to_string(), Known::Value(value.clone())))
                .collect()
        })
        .unwrap_or_default();
    let mut scope = Scope {
        inputs,
        lets: Arc::new(graph.root.lets.clone()),
        steps: HashMap::new(),
        items: Vec::new(),
        caller: None,
    };
    let whole = Around {
        prefix: String::new(),
        writes_before: After::new(),
        bound: true,
        certain: true,
    };
    let forward = walk.list(&graph.root.steps, &mut scope, &whole).await;
    let end = Around {
        writes_before: forward.writes,
        ..whole
    };
    let finally = walk.list(&graph.root.finally, &mut scope, &end).await;
    let targets = walk.targets();
    let mut without_limit = forward.cost.without_limit;
    without_limit.sort();
    without_limit.dedup();
    let mut plan = Plan {
        format: PLAN_FORMAT,
        engine: env!("CARGO_PKG_VERSION").to_owned(),
        playbook: graph.playbook.clone(),
        description: graph.description.clone(),
        environment: request.run.environment.clone(),
        digest: String::new(),
        sources: graph
            .sources
            .iter()
            .map(|source| PlanSource {
                path: source.path.clone(),
                sha256: source.sha256.clone(),
            })
            .collect(),
        inputs: request.inputs.clone(),
        targets,
        counts: walk.counts,
        point_of_no_return: walk.point,
        worst_case: Cost {
            time: forward.cost.time,
            without_limit,
        },
        max_duration: graph.policy.max_duration,
        windows: graph.policy.windows.clone(),
        locks: graph.policy.locks.clone(),
        secrets: walk.secrets.into_iter().collect(),
        steps: forward.nodes,
        finally: finally.nodes,
    };
    plan.digest = digest(&plan);
    plan
}

pub(super) struct Walk<'a> {
    pub(super) world: World<'a>,
    pub(super) request: &'a PlanRequest<'a>,
    pub(super) counts: Counts,
    pub(super) point: Option<PointOfNoReturn>,
    pub(super) secrets: BTreeSet<String>,
}

/// What stands around a list of nodes.
#[derive(Clone)]
pub(super) struct Around {
    /// Before each id.
    pub(super) prefix: String,
    /// The last steps that would or may write before the list starts; those before them go without saying.
    pub(super) writes_before: After,
    /// Whether the list is there whatever the steps before it give.
    pub(super) bound: bool,
    /// Whether the list is certain to run.
    pub(super) certain: bool,
}

struct Listed {
    nodes: Vec<NodePlan>,
    /// Steps that would or may have written when the list is done.
    writes: After,
    cost: Cost,
}

/// One node, planned.
pub(super) struct Planned {
    pub(super) node: NodePlan,
    pub(super) known: StepKnown,
    /// Steps that would or may have written when it is done, those before it included.
    pub(super) writes: After,
    pub(super) cost: Cost,
}

impl<'a> Walk<'a> {
    fn list<'s>(
        &'s mut self,
        ids: &'s [NodeId],
        scope: &'s mut Scope,
        around: &'s Around,
    ) -> BoxFuture<'s, Listed> {
        Box::pin(async move {
            let graph = self.world.graph;
            let mut done: HashMap<NodeId, (After, Cost)> = HashMap::new();
            let mut nodes = Vec::with_capacity(ids.len());
            let mut whole = Cost::default();
            let needed: BTreeSet<NodeId> = ids
                .iter()
                .flat_map(|id| graph.node(*id).needs.iter().copied())
                .collect();
            for id in order(graph, ids) {
                let node = graph.node(id);
                let mut before = around.clone();
                if node.needs.iter().any(|need| done.contains_key(need)) {
                    // What these wrote comes after what was written before the list.
                    before.writes_before = After::new();
                }
                let mut start = Cost::default();
                for need in &node.needs {
                    if let Some((writes, cost)) = done.get(need) {
                        before.writes_before.extend(writes.iter().cloned());
                        start = start.beside(cost.clone());
                    }
                }
                let planned = self.node(id, scope, &before).await;
                let end = Cost {
                    time: start.time,
                    without_limit: Vec::new(),
                }
                .then(planned.cost);
                whole = whole.beside(end.clone());
                done.insert(id, (planned.writes, end));
                scope.steps.insert(node.id.clone(), planned.known);
                nodes.push(planned.node);
            }
            // The last ones tell: whatever wrote before them stands behind them.
            let mut writes = After::new();
            for (id, (wrote, _)) in &done {
                if !needed.contains(id) {
                    writes.extend(wrote.iter().cloned());
                }
            }
            if done.is_empty() {
                writes.clone_from(&around.writes_before);
            }
            Listed {
                nodes,
                writes,
                cost: whole,
            }
        })
    }

    async fn node(&mut self, id: NodeId, scope: &mut Scope, around: &Around) -> Planned {
        let graph = self.world.graph;
        let node = graph.node(id);
        let path = format!("{}{}", around.prefix, node.id);
        let mut around = around.clone();
        let decision = self.decide(scope, node.when.as_ref());
        around.bound &= node
            .when
            .as_ref()
            .is_none_or(|when| !reads_steps(scope, when));
        around.certain &= matches!(decision, Decision::Run { .. });
        let mut plan = NodePlan {
            path: path.clone(),
            kind: match &node.body {
                Body::Step(step) => step.action.kind.clone(),
                Body::Group { .. } => "group".to_owned(),
                Body::Call(_) => "playbook".to_owned(),
            },
            description: node.description.clone(),
            file: graph
                .sources
                .get(node.place.source as usize)
                .map(|source| source.path.clone())
                .unwrap_or_default(),
            line: node.place.line,
            effect: None,
            targets: Vec::new(),
            decision,
            undo: None,
            foreach: None,
            preview: None,
            timeout: None,
            attempts: 1,
            binding: serde_json::Value::Null,
            steps: Vec::new(),
            finally: Vec::new(),
        };
        if let Body::Step(step) = &node.body {
            plan.effect = Some(step.action.traits.effect);
            plan.undo = Some(undo(&self.world, scope, step, node.cleanup));
            plan.timeout = step.action.timeout;
            plan.attempts = step.action.retry.as_ref().map_or(1, |retry| retry.attempts);
        }
        match &plan.decision {
            Decision::Skip { .. } => {
                self.counts.skipped += 1;
                Planned {
                    known: StepKnown::skipped(&path),
                    writes: around.writes_before,
                    cost: Cost::default(),
                    node: plan,
                }
            }
            Decision::Fails { .. } => {
                self.counts.failed += 1;
                Planned {
                    known: StepKnown::after(&path),
                    writes: around.writes_before,
                    cost: Cost::default(),
                    node: plan,
                }
            }
            Decision::Run { .. } | Decision::Unknown { .. } => {
                let until = match &plan.decision {
                    Decision::Unknown { until, .. } => {
                        self.counts.decided_at_run_time += 1;
                        until.iter().cloned().collect()
                    }
                    Decision::Run { .. } | Decision::Skip { .. } | Decision::Fails { .. } => {
                        After::new()
                    }
                };
                let mut planned = match &node.foreach {
                    Some(foreach) => self.foreach(id, foreach, plan, scope, &around).await,
                    None => self.body(id, plan, scope, &around).await,
                };
                if !until.is_empty() {
                    // It may be skipped: then its output is not what the preview saw.
                    planned.known.state = Known::After(until.clone());
                    planned.known.output = Known::After(until);
                }
                planned
            }
        }
    }

    fn decide(&self, scope: &Scope, when: Option<&Expr>) -> Decision {
        let Some(when) = when else {
            return Decision::Run { because: None };
        };
        let seen = || {
            let facts = self.world.facts(scope, when);
            if facts.is_empty() {
                format!("`{}`", when.source())
            } else {
                format!("`{}`: {facts}", when.source())
            }
        };
        match self.world.evaluate(scope, when) {
            Ok(Known::After(until)) => Decision::Unknown {
                condition: when.source().to_owned(),
                until: until.into_iter().collect(),
            },
            Ok(Known::Value(Value::Bool(true))) => Decision::Run {
                because: Some(seen()),
            },
            Ok(Known::Value(Value::Bool(false))) => Decision::Skip { because: seen() },
            Ok(Known::Value(other)) => Decision::Fails {
                because: format!(
                    "`{}` must be true or false, and is {}",
                    when.source(),
                    short(&other)
                ),
            },
            Err(error) => Decision::Fails {
                because: format!("`{}`: {error}", when.source()),
            },
        }
    }

    async fn body(
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

    async fn foreach(
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

/// Each after those that it needs, else as written.
fn order(graph: &crate::graph::Graph, ids: &[NodeId]) -> Vec<NodeId> {
    let mut left: Vec<NodeId> = ids.to_vec();
    let mut done: Vec<NodeId> = Vec::with_capacity(left.len());
    let mut ready: BTreeSet<NodeId> = BTreeSet::new();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|id| {
            let free = graph
                .node(*id)
                .needs
                .iter()
                .all(|need| ready.contains(need) || !ids.contains(need));
            if free {
                ready.insert(*id);
                done.push(*id);
            }
            !free
        });
        if left.len() == before {
            // A cycle is refused by the compiler; a tampered graph is shown as it stands.
            done.append(&mut left);
        }
    }
    done
}

/// Whether an expression reads what a step gave, itself or through a `let`.
pub(super) fn reads_steps(scope: &Scope, expr: &Expr) -> bool {
    expr.references().iter().any(|reference| {
        reference.root == "steps"
            || scope
                .lets
                .get(&reference.root)
                .is_some_and(|named| named != expr && reads_steps(scope, named))
    })
}

/// Whether it reads what differs from one run to the next.
pub(super) fn reads_run(scope: &Scope, expr: &Expr) -> bool {
    expr.references().iter().any(|reference| {
        let first = reference.path.first().map(String::as_str);
        reference.root == "run" && matches!(first, Some("id" | "short_id" | "started_at" | "url"))
            || scope
                .lets
                .get(&reference.root)
                .is_some_and(|named| named != expr && reads_run(scope, named))
    })
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
