//! The machine's construction: from a run's first event, by replay, and the instances that are added as nodes open.
use super::{
    core::{IllegalEvent, Machine, Meta, ScopeState, UndoMark},
    event::{EVENT_FORMAT, Event, EventBody, NodePath, RunStarted},
    state::{Execution, Instance, InstanceId, NodeState, Role, Signals, Stage},
};
use crate::{
    graph::{Body, NodeId, Scope},
    step::Phase,
    value::{Duration, Timestamp, Value},
};
use indexmap::IndexMap;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

impl Machine {
    /// The machine after these events. Only applies.
    ///
    /// # Errors
    /// Where the events are not a history that a machine could have written.
    pub fn recover<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Self, IllegalEvent> {
        let mut events = events.into_iter();
        let mut machine = match events.next() {
            Some(Event {
                at,
                body: EventBody::RunStarted(started),
            }) => Self::new(started, *at)?,
            Some(_) | None => return Err(IllegalEvent::NotStarted { seq: 1 }),
        };
        for event in events {
            machine.apply(event)?;
        }
        Ok(machine)
    }

    fn new(started: &RunStarted, at: Timestamp) -> Result<Self, IllegalEvent> {
        let known = EVENT_FORMAT;
        if started.format > known {
            return Err(IllegalEvent::Newer {
                found: started.format,
                known,
            });
        }
        let graph = started.graph.clone();
        let mut dependents = vec![Vec::new(); graph.nodes.len()];
        let mut positions = vec![0; graph.nodes.len()];
        let mut lists = vec![graph.root.all()];
        for (index, node) in graph.nodes.iter().enumerate() {
            let id = NodeId(u32::try_from(index).unwrap_or(u32::MAX));
            for need in &node.needs {
                if let Some(list) = dependents.get_mut(need.index()) {
                    list.push(id);
                }
            }
            lists.push(graph.children(id));
        }
        for list in lists {
            for (position, id) in list.iter().enumerate() {
                if let Some(slot) = positions.get_mut(id.index()) {
                    *slot = position;
                }
            }
        }
        let instances = graph.nodes.len() + 1;
        let mut machine = Self {
            inputs: started.inputs.clone(),
            started: Arc::new(started.clone()),
            graph: graph.clone(),
            dependents: Arc::new(dependents),
            positions: Arc::new(positions),
            nodes: Vec::with_capacity(instances),
            meta: Vec::with_capacity(instances),
            by_path: HashMap::with_capacity(instances),
            scopes: BTreeMap::new(),
            ready: BTreeSet::new(),
            closing: BTreeSet::new(),
            due_scopes: BTreeSet::new(),
            timers: BTreeSet::new(),
            lost: BTreeSet::new(),
            not_done: BTreeSet::new(),
            attention: BTreeSet::new(),
            undo_ready: BTreeSet::new(),
            undo_chains: BTreeMap::new(),
            undo_failed: BTreeSet::new(),
            standing: BTreeSet::new(),
            gated: BTreeSet::new(),
            signals: Signals::new(),
            listening: BTreeMap::new(),
            wanted: BTreeSet::new(),
            paused: None,
            cancelled: None,
            finished: None,
            starts: 0,
            seq: 1,
            last_at: at,
            epoch: 1,
            failovers: IndexMap::new(),
            busy: 0,
            busy_since: at,
            busy_total: Duration::ZERO,
            overran: false,
        };
        let root = machine.add(NewInstance {
            path: "".into(),
            def: None,
            parent: None,
            role: Role::Root,
            position: 0,
            in_finally: false,
            item: None,
        });
        machine.get_mut(root).execution_mut(Phase::Do).stage = Stage::Running;
        machine.get_mut(root).state = NodeState::Running;
        machine.get_mut(root).started_at = Some(at);
        machine.scopes.insert(root, ScopeState::default());
        machine.open_lists(root, &graph.root);
        Ok(machine)
    }

    pub(super) fn add(&mut self, new: NewInstance) -> InstanceId {
        let id = InstanceId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        let scope = match new.parent {
            None => id,
            Some(parent) => match self.get(parent).role {
                Role::Root | Role::Call => parent,
                Role::Foreach | Role::Group | Role::Step => self.meta(parent).scope,
            },
        };
        if let Some(parent) = new.parent {
            self.get_mut(parent).children.push(id);
        }
        self.by_path.insert(new.path.clone(), id);
        self.nodes.push(Instance {
            path: new.path,
            def: new.def,
            parent: new.parent,
            state: NodeState::Pending,
            forward: Execution::idle(),
            undo: Execution::idle(),
            output: Value::Null,
            started_at: None,
            finished_at: None,
            item: new.item,
            votes: Vec::new(),
            skipped: None,
            children: Vec::new(),
            role: new.role,
            took_effect: false,
        });
        self.meta.push(Meta {
            scope,
            position: new.position,
            in_finally: new.in_finally,
            waiting_on: 0,
            unsettled: 0,
            active: 0,
            failed_items: 0,
            next_item: 0,
            failing: None,
            closed_by_end: false,
            expanded: false,
            start_order: 0,
            undo: UndoMark::default(),
        });
        id
    }

    /// Adds the instances of a scope: its steps and its `finally`.
    pub(super) fn open_lists(&mut self, scope: InstanceId, def: &Scope) {
        self.open_list(scope, &def.steps, false);
        self.open_list(scope, &def.finally, true);
        if def.steps.is_empty() {
            self.due_scopes.insert(scope);
        }
    }

    /// Adds the instances of a list below its container; those that need nothing are ready.
    pub(super) fn open_list(&mut self, parent: InstanceId, list: &[NodeId], is_finally: bool) {
        let graph = self.graph.clone();
        let base = self.get(parent).path.clone();
        let in_finally =
            is_finally || self.meta(parent).in_finally && self.get(parent).role != Role::Call;
        for def in list {
            let node = graph.node(*def);
            let path: NodePath = if base.is_empty() {
                node.id.as_str().into()
            } else {
                format!("{base}/{}", node.id).into()
            };
            let role = match (&node.foreach, &node.body) {
                (Some(_), _) => Role::Foreach,
                (None, Body::Step(_)) => Role::Step,
                (None, Body::Group { .. }) => Role::Group,
                (None, Body::Call(_)) => Role::Call,
            };
            let position = self.get(parent).children.len();
            let id = self.add(NewInstance {
                path,
                def: Some(*def),
                parent: Some(parent),
                role,
                position,
                in_finally,
                item: None,
            });
            if !is_finally {
                self.meta_mut(id).waiting_on = node.needs.len();
                if node.needs.is_empty() {
                    self.ready.insert(id);
                }
            }
        }
        if !is_finally {
            self.meta_mut(parent).unsettled += list.len();
        }
    }
}

pub(super) struct NewInstance {
    pub path: NodePath,
    pub def: Option<NodeId>,
    pub parent: Option<InstanceId>,
    pub role: Role,
    pub position: usize,
    pub in_finally: bool,
    pub item: Option<(u32, Value)>,
}
