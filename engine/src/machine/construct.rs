//! The machine's construction: from a run's first event, by replay; and the instances that are added as nodes open.
use super::{
    agenda::Agenda,
    core::{IllegalEvent, Machine, ScopeState},
    event::{EVENT_FORMAT, Event, EventBody, RunStarted},
    execution::Change,
    state::{InstanceId, Role, Signals},
    tally::Tally,
    tree::{ROOT, Tree},
};
use crate::{
    graph::{Body, NodeId, Scope},
    step::Phase,
    value::{Duration, Timestamp, Value},
};
use indexmap::IndexMap;
use std::{
    collections::{BTreeMap, BTreeSet},
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
        let mut machine = Self {
            inputs: started.inputs.clone(),
            started: Arc::new(started.clone()),
            tree: Tree::new(graph.clone()),
            tallies: vec![Tally::default()],
            scopes: [(ROOT, ScopeState::default())].into(),
            agenda: Agenda::default(),
            asking: BTreeSet::new(),
            watching: BTreeSet::new(),
            undo_chains: BTreeMap::new(),
            signals: Signals::new(),
            paused: None,
            cancelled: None,
            undo_ordered: None,
            finished: None,
            closed: None,
            starts: 0,
            seq: 1,
            last_at: at,
            epoch: 1,
            failovers: IndexMap::new(),
            wall_ahead: Duration::ZERO,
            graph,
        };
        machine.tree.get_mut(ROOT).started_at = Some(at);
        machine.shift(ROOT, Phase::Do, Change::Start { epoch: 1 })?;
        machine.open_scope(ROOT);
        machine.refresh();
        Ok(machine)
    }

    /// What is inside a container that opens. One that was open before has it already.
    pub(super) fn open(&mut self, id: InstanceId) {
        let graph = self.graph.clone();
        for child in self.get(id).children.clone() {
            self.touch(child);
        }
        match (
            self.get(id).role,
            self.get(id).def.map(|def| &graph.node(def).body),
        ) {
            (Role::Group, Some(Body::Group { steps })) if self.get(id).children.is_empty() => {
                self.add_list(id, steps, self.get(id).in_finally);
            }
            (Role::Call, _) => {
                self.scopes.entry(id).or_default();
                if self.get(id).children.is_empty() {
                    self.open_scope(id);
                }
            }
            // A foreach gets its items by an event.
            (Role::Root | Role::Foreach | Role::Group | Role::Step, _) => {}
        }
    }

    fn open_scope(&mut self, scope: InstanceId) {
        let graph = self.graph.clone();
        let def: &Scope = self
            .get(scope)
            .def
            .and_then(|def| graph.scope(def))
            .unwrap_or(&graph.root);
        self.add_list(scope, &def.steps, false);
        self.add_list(scope, &def.finally, true);
    }

    fn add_list(&mut self, parent: InstanceId, list: &[NodeId], in_finally: bool) {
        let graph = self.graph.clone();
        let base = self.get(parent).path.clone();
        let first = self.get(parent).children.len();
        for def in list {
            let node = graph.node(*def);
            let path = if base.is_empty() {
                node.id.clone()
            } else {
                format!("{base}/{}", node.id)
            };
            let role = match (&node.foreach, &node.body) {
                (Some(_), _) => Role::Foreach,
                (None, Body::Step(_)) => Role::Step,
                (None, Body::Group { .. }) => Role::Group,
                (None, Body::Call(_)) => Role::Call,
            };
            self.put(parent, *def, &path, role, in_finally, None);
        }
        // Once the list is whole: what a node needs may come after it.
        for id in self
            .get(parent)
            .children
            .iter()
            .skip(first)
            .copied()
            .collect::<Vec<_>>()
        {
            self.enlist(id);
        }
    }

    /// The items of a foreach.
    pub(super) fn add_items(&mut self, foreach: InstanceId, def: NodeId, items: &[Value]) {
        let role = match &self.graph.node(def).body {
            Body::Step(_) => Role::Step,
            Body::Group { .. } => Role::Group,
            Body::Call(_) => Role::Call,
        };
        let base = self.get(foreach).path.clone();
        let in_finally = self.get(foreach).in_finally;
        for (index, item) in items.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let item = Some((index, item.clone()));
            let id = self.put(
                foreach,
                def,
                &format!("{base}[{index}]"),
                role,
                in_finally,
                item,
            );
            self.enlist(id);
        }
    }

    fn put(
        &mut self,
        parent: InstanceId,
        def: NodeId,
        path: &str,
        role: Role,
        in_finally: bool,
        item: Option<(u32, Value)>,
    ) -> InstanceId {
        let id = self.tree.put(parent, def, path, role, in_finally, item);
        if self.tallies.len() < self.tree.len() as usize {
            self.tallies.push(Tally::default());
        }
        id
    }
}
