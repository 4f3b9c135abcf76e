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
