//! The walk over the graph.
use super::{
    Cost, Counts, Decision, ForeachPlan, NodePlan, PLAN_FORMAT, Plan, PlanLine, PlanPreview,
    PlanRequest, PlanSource, PlanTarget, PointOfNoReturn, UndoHow, UndoPlan, UndoStep, cost,
    digest::digest,
    host::{PlanHost, not_yet, words},
    known::{After, Item, Known, Scope, StepKnown, World, short},
};
use crate::{
    expr::{Expr, Template},
    graph::{Action, Body, CallDef, Foreach, InputDecl, NodeId, StepDef, TargetDecl, Undo},
    playbook::inputs::coerce,
    step::{DynStep, Effect, Failure, Fidelity, Preview, PreviewContext, Target},
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
        renames: Vec::new(),
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

struct Walk<'a> {
    world: World<'a>,
    request: &'a PlanRequest<'a>,
    counts: Counts,
    point: Option<PointOfNoReturn>,
    secrets: BTreeSet<String>,
}

/// What stands around a list of nodes.
#[derive(Clone)]
struct Around {
    /// Before each id.
    prefix: String,
    /// The last steps that would or may write before the list starts; those before them go without saying.
    writes_before: After,
    /// Whether the list is there whatever the steps before it give.
    bound: bool,
    /// Whether the list is certain to run.
    certain: bool,
}

struct Listed {
    nodes: Vec<NodePlan>,
    /// Steps that would or may have written when the list is done.
    writes: After,
    cost: Cost,
}

/// One node, planned.
struct Planned {
    node: NodePlan,
    known: StepKnown,
    /// Steps that would or may have written when it is done, those before it included.
    writes: After,
    cost: Cost,
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
            plan.undo = Some(undo(step, node.cleanup));
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
        let mut renames = scope.renames.clone();
        renames.push(Arc::new(call.targets.clone()));
        let mut inner = Scope {
            inputs,
            lets: Arc::new(call.scope.lets.clone()),
            steps: HashMap::new(),
            items: Vec::new(),
            renames,
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

    async fn step(
        &mut self,
        step: &StepDef,
        mut plan: NodePlan,
        scope: &Scope,
        around: &Around,
    ) -> Planned {
        let action = &step.action;
        let traits = action.traits;
        self.count(step, &plan, around);
        self.template_secrets(&action.with);
        let seen = self.preview(step, &mut plan, scope, around).await;
        let (mut preview, facts) = match seen {
            Ok((preview, facts)) => (preview, facts),
            Err(after) => (
                PlanPreview {
                    fidelity: Fidelity::Unknown,
                    summary: format!("known after {}", words(&after)),
                    lines: as_written(&action.with),
                    output: None,
                    known_after: after.into_iter().collect(),
                    error: None,
                    before_the_change: false,
                },
                Value::Null,
            ),
        };
        if preview.fidelity == Fidelity::Unknown {
            self.counts.unknown += 1;
        }
        if preview.error.is_some() {
            self.counts.failed += 1;
        }
        if around.bound {
            plan.binding = binding(scope, action, &facts);
        }
        let read = preview.output.take();
        let known = match &read {
            // What was read before a change is shown, and later steps may use it: that was asked for.
            Some(output) if traits.effect == Effect::ReadOnly => {
                StepKnown::succeeded(&plan.path, output.clone())
            }
            Some(_) | None => StepKnown::after(&plan.path),
        };
        let hidden = step.evidence.as_ref().map(|evidence| &evidence.mask);
        preview.output = read.map(|output| match hidden {
            Some(mask) if !mask.is_empty() => masked(&output, mask),
            Some(_) | None => output,
        });
        plan.preview = Some(preview);
        let writes = if traits.effect == Effect::ReadOnly {
            around.writes_before.clone()
        } else {
            // Whoever comes after it comes after those before it too.
            After::from([plan.path.clone()])
        };
        let cost = if cost::is_waiting(&action.kind, &traits) {
            Cost::default()
        } else {
            Cost::of_step(&plan.path, action.timeout, action.retry.as_ref())
        };
        Planned {
            node: plan,
            known,
            writes,
            cost,
        }
    }

    /// The preview of a step, or the steps after which there can be one.
    async fn preview(
        &mut self,
        step: &StepDef,
        plan: &mut NodePlan,
        scope: &Scope,
        around: &Around,
    ) -> Result<(PlanPreview, Value), After> {
        let action = &step.action;
        let traits = action.traits;
        let reads = traits.effect == Effect::ReadOnly && traits.fidelity == Fidelity::Executed;
        let changed = &around.writes_before;
        let mut waits = self.world.waits(scope, action.with.expressions());
        if reads && !changed.is_empty() && !step.plan_read {
            waits.extend(changed.iter().cloned());
        }
        let with = match self.world.resolve(scope, &action.with) {
            Ok(Known::Value(with)) if waits.is_empty() => with,
            Ok(_) => {
                plan.targets = literal_targets(action);
                return Err(waits);
            }
            Err(error) => {
                plan.targets = literal_targets(action);
                return Ok((
                    failed_preview(&error.to_string(), error.help.as_deref()),
                    Value::Null,
                ));
            }
        };
        self.collect_secrets(&with);
        plan.targets = targets_in(action, &with);
        let mut targets = HashMap::new();
        for name in &plan.targets {
            match self.bind(scope, &scope.global_target(name), 0) {
                Ok(target) => {
                    self.collect_secrets(&target.url);
                    target
                        .options
                        .values()
                        .for_each(|value| self.collect_secrets(value));
                    targets.insert(name.clone(), Ok(target));
                }
                Err(Unbound::After(after)) => return Err(after),
                Err(Unbound::Failed(failure)) => {
                    targets.insert(name.clone(), Err(failure));
                }
            }
        }
        let prepared = self.prepare(action, &with);
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(message) => return Ok((failed_preview(&message, None), Value::Null)),
        };
        let cx = PreviewContext {
            run: self.request.run.clone(),
            node: plan.path.as_str().into(),
            rehearse: self.request.rehearse,
            cancel: self.request.cancel.clone(),
            host: Arc::new(self.host(action, scope, targets)),
        };
        let preview = if self.request.cancel.is_cancelled() {
            Err(Failure::new("plan.cancelled", "the plan was interrupted"))
        } else {
            prepared.preview(&cx).await
        };
        match preview {
            Ok(preview) => {
                self.secrets.extend(preview.secrets.iter().cloned());
                let facts = preview.binding.clone();
                let mut shown = shown(preview);
                shown.before_the_change = reads && step.plan_read && !changed.is_empty();
                Ok((shown, facts))
            }
            // A table that a step before it would make is not there yet: that is no mistake.
            Err(_) if !changed.is_empty() && !step.plan_read => Err(changed.clone()),
            Err(failure) => Ok((
                failed_preview(&failure.message, failure.help.as_deref()),
                Value::Null,
            )),
        }
    }

    fn prepare(&self, action: &Action, with: &Value) -> Result<Arc<dyn DynStep>, String> {
        let kind = self
            .request
            .registry
            .kind(&action.kind)
            .ok_or_else(|| format!("this build has no step kind {}", action.kind))?;
        (kind.prepare)(with).map_err(|errors| {
            errors
                .iter()
                .map(|error| match error.path.as_str() {
                    "" => error.message.clone(),
                    path => format!("{path}: {}", error.message),
                })
                .collect::<Vec<_>>()
                .join("; ")
        })
    }

    fn host(
        &self,
        action: &Action,
        scope: &Scope,
        targets: HashMap<String, Result<Target, Failure>>,
    ) -> PlanHost {
        let expressions = action
            .expressions
            .iter()
            .map(|expr| {
                let waits = self.world.waits(scope, [expr]);
                let vars = if waits.is_empty() {
                    self.world
                        .vars(scope, [expr])
                        .map_err(|_| After::from(["its `let`".to_owned()]))
                } else {
                    Err(waits)
                };
                (expr.source().to_owned(), vars)
            })
            .collect();
        PlanHost {
            expressions,
            targets,
            reveal: Arc::clone(&self.request.reveal),
            now: Arc::clone(&self.request.now),
            resources: Arc::clone(&self.request.resources),
        }
    }

    /// A target by the name of the root playbook; a derived one is bound from what is known.
    fn bind(&self, scope: &Scope, name: &str, depth: u32) -> Result<Target, Unbound> {
        let unknown = || {
            Unbound::Failed(Failure::new(
                "target.unknown",
                format!("{name:?} is not a declared target"),
            ))
        };
        if let Some(target) = self.request.targets.get(name) {
            return Ok(target.clone());
        }
        let Some(TargetDecl::Derived {
            like, with, never, ..
        }) = self.world.graph.targets.get(name)
        else {
            return Err(unknown());
        };
        if depth > 16 {
            return Err(unknown());
        }
        let base = self.bind(scope, like, depth + 1)?;
        let mut replaced = Map::new();
        for (key, template) in with {
            match self.world.resolve(scope, template) {
                Ok(Known::Value(value)) => {
                    replaced.insert(key.as_str().into(), value);
                }
                Ok(Known::After(after)) => return Err(Unbound::After(after)),
                Err(error) => {
                    return Err(Unbound::Failed(Failure::new(
                        "target.derived",
                        format!("target {name}, {key}: {error}"),
                    )));
                }
            }
        }
        let mut target =
            crate::environment::derive(name, &base, &replaced).map_err(Unbound::Failed)?;
        let same = |other: &&String| {
            self.request
                .targets
                .get(*other)
                .is_some_and(|other| other.url == target.url)
        };
        if let Some(other) = never.iter().find(same) {
            return Err(Unbound::Failed(Failure::new(
                "target.never",
                format!("target {name} would be {other}, which `never` forbids"),
            )));
        }
        target.never.clone_from(never);
        Ok(target)
    }

    fn count(&mut self, step: &StepDef, plan: &NodePlan, around: &Around) {
        self.counts.steps += 1;
        match step.action.traits.effect {
            Effect::ReadOnly => {
                self.counts.reads += 1;
                return;
            }
            Effect::Writes => self.counts.writes += 1,
            Effect::Destroys => self.counts.destroys += 1,
        }
        if step.undo == Undo::Impossible {
            self.counts.irreversible += 1;
            if self.point.is_none() {
                self.point = Some(PointOfNoReturn {
                    path: plan.path.clone(),
                    file: plan.file.clone(),
                    line: plan.line,
                    certain: around.certain,
                });
            }
        }
    }

    fn collect_secrets(&mut self, value: &Value) {
        match value {
            Value::Secret(secret) => self.secrets.extend(secret.names().map(str::to_owned)),
            Value::List(items) => items.iter().for_each(|item| self.collect_secrets(item)),
            Value::Map(map) => map.values().for_each(|item| self.collect_secrets(item)),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Decimal(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Duration(_)
            | Value::Size(_)
            | Value::Timestamp(_)
            | Value::Bytes(_) => {}
        }
    }

    /// Secrets with a constant name, known before the rest of the parameters is.
    fn template_secrets(&mut self, template: &Template) {
        for expr in template.expressions() {
            self.secrets.extend(expr.secrets());
        }
    }

    fn targets(&mut self) -> Vec<PlanTarget> {
        let targets: Vec<&Target> = self.request.targets.values().collect();
        let mut all: Vec<PlanTarget> = Vec::new();
        for (name, target) in self.request.targets.iter() {
            let identity = target.identity.as_ref();
            all.push(PlanTarget {
                name: name.clone(),
                kind: target.kind.clone(),
                url: target.url.to_string(),
                instance: identity.map(|identity| identity.instance.clone()),
                system: identity.and_then(|identity| identity.system.clone()),
                role: identity
                    .and_then(|identity| identity.role.clone())
                    .or_else(|| target.role.clone()),
                version: identity.map(|identity| identity.version.clone()),
                like: None,
            });
        }
        for target in targets {
            self.collect_secrets(&target.url);
            target
                .options
                .values()
                .for_each(|value| self.collect_secrets(value));
        }
        for (name, decl) in &self.world.graph.targets {
            if let TargetDecl::Derived { like, .. } = decl
                && !self.request.targets.contains_key(name)
            {
                all.push(PlanTarget {
                    name: name.clone(),
                    kind: self
                        .request
                        .targets
                        .get(like)
                        .map(|target| target.kind.clone())
                        .unwrap_or_default(),
                    url: "bound on first use".to_owned(),
                    instance: None,
                    system: None,
                    role: None,
                    version: None,
                    like: Some(like.clone()),
                });
            }
        }
        all
    }
}

enum Unbound {
    After(After),
    Failed(Failure),
}

impl From<Unbound> for Failure {
    fn from(unbound: Unbound) -> Self {
        match unbound {
            Unbound::After(after) => not_yet(&after),
            Unbound::Failed(failure) => failure,
        }
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
fn reads_steps(scope: &Scope, expr: &Expr) -> bool {
    expr.references().iter().any(|reference| {
        reference.root == "steps"
            || scope
                .lets
                .get(&reference.root)
                .is_some_and(|named| named != expr && reads_steps(scope, named))
    })
}

/// Whether it reads what differs from one run to the next.
fn reads_run(scope: &Scope, expr: &Expr) -> bool {
    expr.references().iter().any(|reference| {
        let first = reference.path.first().map(String::as_str);
        reference.root == "run" && matches!(first, Some("id" | "short_id" | "started_at" | "url"))
            || scope
                .lets
                .get(&reference.root)
                .is_some_and(|named| named != expr && reads_run(scope, named))
    })
}

/// The parameters as written, and the kind's facts where nothing that was read is in them.
fn binding(scope: &Scope, action: &Action, facts: &Value) -> serde_json::Value {
    let with = serde_json::to_value(&action.with).unwrap_or_default();
    let constant = !action
        .with
        .expressions()
        .into_iter()
        .any(|expr| reads_steps(scope, expr) || reads_run(scope, expr));
    let facts = if constant {
        serde_json::to_value(facts).unwrap_or_default()
    } else {
        serde_json::Value::Null
    };
    serde_json::json!({ "with": with, "facts": facts })
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

fn failed_preview(message: &str, help: Option<&str>) -> PlanPreview {
    PlanPreview {
        fidelity: Fidelity::Unknown,
        summary: "the preview failed".to_owned(),
        lines: Vec::new(),
        output: None,
        known_after: Vec::new(),
        error: Some(match help {
            Some(help) => format!("{message}; {help}"),
            None => message.to_owned(),
        }),
        before_the_change: false,
    }
}

fn shown(preview: Preview) -> PlanPreview {
    PlanPreview {
        fidelity: preview.fidelity,
        summary: preview.summary,
        lines: preview
            .lines
            .into_iter()
            .map(|line| PlanLine {
                label: line.label,
                text: line.text,
            })
            .collect(),
        output: preview.output,
        known_after: Vec::new(),
        error: None,
        before_the_change: false,
    }
}

/// A value with the named columns or keys hidden, at any depth.
fn masked(value: &Value, mask: &[String]) -> Value {
    match value {
        Value::Map(map) => Value::Map(Arc::new(
            map.iter()
                .map(|(key, value)| {
                    let hide = mask.iter().any(|name| name.eq_ignore_ascii_case(key));
                    let value = if hide {
                        Value::from("(masked)")
                    } else {
                        masked(value, mask)
                    };
                    (Arc::clone(key), value)
                })
                .collect(),
        )),
        Value::List(items) => Value::list(items.iter().map(|item| masked(item, mask)).collect()),
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
        | Value::Secret(_) => value.clone(),
    }
}

fn undo(step: &StepDef, cleanup: bool) -> UndoPlan {
    let (how, steps) = match &step.undo {
        Undo::Auto { .. } => (UndoHow::Auto, Vec::new()),
        Undo::None => (UndoHow::None, Vec::new()),
        Undo::Impossible => (UndoHow::Impossible, Vec::new()),
        Undo::Steps(actions) => (
            UndoHow::Steps,
            actions
                .iter()
                .map(|action| UndoStep {
                    kind: action.kind.clone(),
                    when: action.when.as_ref().map(|when| when.source().to_owned()),
                    with: as_written(&action.with)
                        .into_iter()
                        .map(|line| (line.label, line.text))
                        .collect(),
                })
                .collect(),
        ),
    };
    UndoPlan {
        how,
        cleanup,
        steps,
    }
}

/// Parameters as they are written, a line each.
fn as_written(with: &Template) -> Vec<PlanLine> {
    let line = |label: &str, text: String| PlanLine {
        label: label.to_owned(),
        text,
    };
    match with {
        Template::Map(map) => map
            .iter()
            .map(|(key, value)| line(key, written(value)))
            .collect(),
        Template::Literal(Value::Map(map)) => map
            .iter()
            .map(|(key, value)| line(key, value.to_string()))
            .collect(),
        Template::Literal(Value::Null) => Vec::new(),
        Template::Literal(_) | Template::Expr(_) | Template::Text(_) | Template::List(_) => {
            vec![line("with", written(with))]
        }
    }
}

fn written(template: &Template) -> String {
    match template {
        Template::Literal(value) => value.to_string(),
        Template::Expr(expr) => format!("${{{{ {} }}}}", expr.source()),
        Template::Text(parts) => parts
            .iter()
            .map(|part| match part {
                crate::expr::TemplatePart::Text(text) => text.clone(),
                crate::expr::TemplatePart::Expr(expr) => format!("${{{{ {} }}}}", expr.source()),
            })
            .collect(),
        Template::List(items) => {
            let items: Vec<String> = items.iter().map(written).collect();
            format!("[{}]", items.join(", "))
        }
        Template::Map(map) => {
            let members: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}: {}", written(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

/// The target names among the resolved parameters.
fn targets_in(action: &Action, with: &Value) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for path in &action.targets {
        let found = path.iter().try_fold(with, |value, key| match value {
            Value::List(items) => key.parse::<usize>().ok().and_then(|at| items.get(at)),
            other => other.get(key),
        });
        if let Some(name) = found.and_then(Value::as_str)
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// The target names that stand literally in parameters that are not known as a whole.
fn literal_targets(action: &Action) -> Vec<String> {
    let mut names = Vec::new();
    for path in &action.targets {
        let mut at = &action.with;
        let mut rest = path.as_slice();
        let name = loop {
            match (at, rest) {
                (Template::Map(map), [key, more @ ..]) => match map.get(key) {
                    Some(inner) => (at, rest) = (inner, more),
                    None => break None,
                },
                (Template::List(items), [key, more @ ..]) => {
                    match key.parse::<usize>().ok().and_then(|i| items.get(i)) {
                        Some(inner) => (at, rest) = (inner, more),
                        None => break None,
                    }
                }
                (Template::Literal(value), rest) => {
                    break rest
                        .iter()
                        .try_fold(value, |value, key| value.get(key))
                        .and_then(Value::as_str)
                        .map(str::to_owned);
                }
                _ => break None,
            }
        };
        if let Some(name) = name
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}
