//! Who is where: instances by id and by path, their containers, scopes and siblings.
use super::{
    event::NodePath,
    execution::Execution,
    state::{Instance, InstanceId, NodeState, Role},
};
use crate::{
    graph::{Body, Graph, NodeId},
    step::Phase,
    value::Value,
};
use std::{collections::HashMap, sync::Arc};

/// The root's instance.
pub(super) const ROOT: InstanceId = InstanceId(0);

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    graph: Arc<Graph>,
    /// For each node of the graph, the siblings that need it.
    dependents: Vec<Vec<NodeId>>,
    /// For each node of the graph, its place in its list.
    positions: Vec<u32>,
    nodes: Vec<Instance>,
    by_path: HashMap<NodePath, InstanceId>,
}

impl Tree {
    pub(super) fn new(graph: Arc<Graph>) -> Self {
        let mut dependents = vec![Vec::new(); graph.nodes.len()];
        let mut positions = vec![0; graph.nodes.len()];
        let mut lists = vec![graph.root.all()];
        for (index, node) in graph.nodes.iter().enumerate() {
            let id = NodeId(number(index));
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
                    *slot = number(position);
                }
            }
        }
        let mut tree = Self {
            nodes: Vec::with_capacity(graph.nodes.len() + 1),
            by_path: HashMap::new(),
            graph,
            dependents,
            positions,
        };
        tree.add("".into(), None, None, Role::Root, false, None);
        tree
    }

    /// Adds an instance below a container. One that was there before, in an earlier opening of the container, is taken
    /// up again with its attempts: none is used twice.
    pub(super) fn put(
        &mut self,
        parent: InstanceId,
        def: NodeId,
        name: &str,
        role: Role,
        in_finally: bool,
        item: Option<(u32, Value)>,
    ) -> InstanceId {
        if let Some(known) = self.by_path.get(name).copied() {
            let position = number(self.get(parent).children.len());
            self.get_mut(parent).children.push(known);
            let instance = self.get_mut(known);
            instance.position = position;
            instance.item = item;
            return known;
        }
        self.add(name.into(), Some(def), Some(parent), role, in_finally, item)
    }

    fn add(
        &mut self,
        path: NodePath,
        def: Option<NodeId>,
        parent: Option<InstanceId>,
        role: Role,
        in_finally: bool,
        item: Option<(u32, Value)>,
    ) -> InstanceId {
        let id = InstanceId(number(self.nodes.len()));
        let mut position = 0;
        let scope = parent.map_or(id, |parent| {
            let around = self.get_mut(parent);
            position = number(around.children.len());
            around.children.push(id);
            match around.role {
                Role::Root | Role::Call => parent,
                Role::Foreach | Role::Group | Role::Step => around.scope,
            }
        });
        self.by_path.insert(path.clone(), id);
        self.nodes.push(Instance {
            path,
            def,
            parent,
            state: NodeState::Pending,
            forward: Execution::idle(),
            undo: Execution::idle(),
            output: Value::Null,
            started_at: None,
            finished_at: None,
            item,
            votes: Vec::new(),
            skipped: None,
            children: Vec::new(),
            role,
            took_effect: false,
            by_hand: false,
            scope,
            position,
            in_finally,
            expanded: false,
            start_order: 0,
            undone_by: None,
        });
        id
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an InstanceId is made only with its instance"
    )]
    pub(super) fn get(&self, id: InstanceId) -> &Instance {
        &self.nodes[id.0 as usize]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an InstanceId is made only with its instance"
    )]
    pub(super) fn get_mut(&mut self, id: InstanceId) -> &mut Instance {
        &mut self.nodes[id.0 as usize]
    }

    pub(super) fn id_of(&self, path: &str) -> Option<InstanceId> {
        self.by_path.get(path).copied()
    }

    pub(super) fn len(&self) -> u32 {
        number(self.nodes.len())
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = InstanceId> + use<> {
        (0..self.len()).map(InstanceId)
    }

    /// The containers around it, the innermost first.
    pub(super) fn around(&self, id: InstanceId) -> impl Iterator<Item = InstanceId> {
        std::iter::successors(self.get(id).parent, |at| self.get(*at).parent)
    }

    /// The scopes around it, its own first, the root last.
    pub(super) fn scopes_around(&self, id: InstanceId) -> impl Iterator<Item = InstanceId> {
        std::iter::successors(Some(self.get(id).scope), |at| {
            (*at != ROOT).then(|| self.get(*at).scope)
        })
    }

    /// Everything inside, parents before their children.
    pub(super) fn inside(&self, id: InstanceId) -> Vec<InstanceId> {
        let mut all = Vec::new();
        let mut stack: Vec<InstanceId> = self.get(id).children.iter().rev().copied().collect();
        while let Some(id) = stack.pop() {
            all.push(id);
            stack.extend(self.get(id).children.iter().rev());
        }
        all
    }

    /// Siblings that must pass before it. Items of a foreach need nothing: what their node needs, the foreach needs.
    pub(super) fn needs(&self, id: InstanceId) -> impl Iterator<Item = InstanceId> {
        let node = self.listed(id).map(|def| self.graph.node(def));
        self.siblings(id, node.map_or(&[], |node| &node.needs))
    }

    /// Siblings that need it.
    pub(super) fn dependents(&self, id: InstanceId) -> impl Iterator<Item = InstanceId> {
        let list = self
            .listed(id)
            .and_then(|def| self.dependents.get(def.index()));
        self.siblings(id, list.map_or(&[], |list| list))
    }

    fn listed(&self, id: InstanceId) -> Option<NodeId> {
        let instance = self.get(id);
        let parent = self.get(instance.parent?);
        instance.def.filter(|_| parent.role != Role::Foreach)
    }

    fn siblings<'a>(
        &'a self,
        id: InstanceId,
        nodes: &'a [NodeId],
    ) -> impl Iterator<Item = InstanceId> + 'a {
        let parent = self.get(id).parent.map(|parent| self.get(parent));
        nodes.iter().filter_map(move |node| {
            let position = *self.positions.get(node.index())?;
            parent?.children.get(position as usize).copied()
        })
    }

    /// Whether it stands directly in a `finally`.
    pub(super) fn is_finally_step(&self, id: InstanceId) -> bool {
        let instance = self.get(id);
        instance.in_finally && instance.parent == Some(instance.scope)
    }

    /// The scope in whose `finally` it stands. A playbook that is called there has a scope of its own.
    pub(super) fn finally_of(&self, id: InstanceId) -> Option<InstanceId> {
        let instance = self.get(id);
        instance.in_finally.then_some(instance.scope)
    }

    /// Whether it belongs to a `finally`, of its own scope or of one around it.
    pub(super) fn is_in_finally(&self, id: InstanceId) -> bool {
        let mut all = std::iter::once(id).chain(self.around(id));
        all.any(|at| self.get(at).in_finally)
    }

    pub(super) fn finally_steps(&self, scope: InstanceId) -> impl Iterator<Item = InstanceId> {
        let children = self.get(scope).children.iter().copied();
        children.filter(|id| self.is_finally_step(*id))
    }

    /// The graph's node of an instance; `None` for the root.
    pub(super) fn def(&self, id: InstanceId) -> Option<&crate::graph::Node> {
        self.get(id).def.map(|def| self.graph.node(def))
    }

    /// The step of an instance, where it is one.
    pub(super) fn step(&self, id: InstanceId) -> Option<&crate::graph::StepDef> {
        match &self.def(id)?.body {
            Body::Step(step) if self.get(id).role == Role::Step => Some(step),
            Body::Step(_) | Body::Group { .. } | Body::Call(_) => None,
        }
    }

    pub(super) fn stage(&self, id: InstanceId, phase: Phase) -> super::Stage {
        self.get(id).execution(phase).stage()
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
