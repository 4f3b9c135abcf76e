//! Questions about order that several modules ask of a graph.
use super::{Body, Graph, NodeId, Scope};

impl Graph {
    /// The nodes directly inside a node: a group's steps, a call's steps and then its `finally`.
    #[must_use]
    pub fn children(&self, id: NodeId) -> Vec<NodeId> {
        match &self.node(id).body {
            Body::Step(_) => Vec::new(),
            Body::Group { steps } => steps.clone(),
            Body::Call(call) => call.scope.all(),
        }
    }

    /// The scope of a call.
    #[must_use]
    pub fn scope(&self, id: NodeId) -> Option<&Scope> {
        match &self.node(id).body {
            Body::Call(call) => Some(&call.scope),
            Body::Step(_) | Body::Group { .. } => None,
        }
    }

    /// All that runs after a node because of it: what needs it, or a group around it, directly or through others, with what is inside
    /// groups. A playbook that is called is one of them; its steps are its own.
    #[must_use]
    pub fn behind(&self, id: NodeId) -> Vec<NodeId> {
        let mut found: Vec<NodeId> = Vec::new();
        let mut around = Some(id);
        while let Some(at) = around {
            let mut work = vec![at];
            while let Some(at) = work.pop() {
                for (index, node) in self.nodes.iter().enumerate() {
                    let next = NodeId(u32::try_from(index).unwrap_or(u32::MAX));
                    if node.needs.contains(&at) && !found.contains(&next) {
                        found.push(next);
                        work.push(next);
                    }
                }
            }
            let parent = self.node(at).parent;
            around = parent.filter(|parent| self.scope(*parent).is_none());
        }
        // The `finally` of its playbook comes after all.
        if !self.node(id).in_finally {
            let mut around = Some(id);
            while let Some(at) = around.filter(|at| self.scope(*at).is_none()) {
                around = self.node(at).parent;
            }
            let scope = around.and_then(|call| self.scope(call));
            found.extend(&scope.unwrap_or(&self.root).finally);
        }
        let mut inside = found.clone();
        while let Some(at) = inside.pop() {
            if let Body::Group { steps } = &self.node(at).body {
                found.extend(steps);
                inside.extend(steps);
            }
        }
        found
    }

    /// All that is inside a group or call, or inside the items of a loop, at any depth.
    #[must_use]
    pub fn inside(&self, id: NodeId) -> Vec<NodeId> {
        let within = |node: &NodeId| {
            let mut around = self.node(*node).parent;
            while let Some(at) = around {
                if at == id {
                    return true;
                }
                around = self.node(at).parent;
            }
            false
        };
        let all =
            (0..self.nodes.len()).map(|index| NodeId(u32::try_from(index).unwrap_or(u32::MAX)));
        all.filter(within).collect()
    }

    /// Ids from the outermost to the node, joined by `/`: its path but for items.
    #[must_use]
    pub fn static_path(&self, id: NodeId) -> String {
        let node = self.node(id);
        match node.parent {
            Some(parent) => format!("{}/{}", self.static_path(parent), node.id),
            None => node.id.clone(),
        }
    }
}

impl Scope {
    /// Its steps, then its `finally`.
    #[must_use]
    pub fn all(&self) -> Vec<NodeId> {
        self.steps.iter().chain(&self.finally).copied().collect()
    }
}
