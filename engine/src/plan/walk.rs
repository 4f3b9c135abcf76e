//! The walk over the graph.
use super::{
    Cost, Counts, Decision, NodePlan, PLAN_FORMAT, Plan, PlanRequest, PlanSource, PointOfNoReturn,
    digest::digest,
    known::{After, Known, Scope, StepKnown, World, short},
    preview::undo,
};
use crate::{
    expr::Expr,
    graph::{Body, NodeId},
    policy::windows::next_opening,
    value::Value,
};
use futures_util::future::BoxFuture;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

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
    let now = (request.now)();
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
        window_opens: next_opening(&graph.policy.windows, now)
            .filter(|opens| *opens > now)
            .map(|opens| opens.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
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

/// A list of nodes, planned.
pub(super) struct Listed {
    pub(super) nodes: Vec<NodePlan>,
    /// Steps that would or may have written when the list is done.
    pub(super) writes: After,
    pub(super) cost: Cost,
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
    pub(super) fn list<'s>(
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
