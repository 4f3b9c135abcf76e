//! What the failure of a node leads to, found from the node outward.
use super::{
    core::Machine,
    state::{InstanceId, Role},
};
use crate::graph::{Body, OnFailure};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// It counts as passed; `soft` makes its scope end *failed*.
    Tolerate { soft: bool },
    /// The container around it fails too.
    FailParent,
    /// The foreach around it counts it.
    CountItem,
    /// The scope ends.
    End { undo: bool },
    /// A person is asked.
    Ask,
}

impl Machine {
    pub(super) fn reaction(&self, id: InstanceId) -> Reaction {
        // A step of `finally` that fails stands beside the outcome.
        if self.tree.is_finally_step(id) {
            return Reaction::Tolerate { soft: false };
        }
        let in_finally = self.get(id).in_finally;
        let mut at = id;
        loop {
            let Some(parent) = self.get(at).parent else {
                return Reaction::End { undo: true };
            };
            let is_own = at == id;
            let outward = |tolerate| {
                if is_own {
                    tolerate
                } else {
                    Reaction::FailParent
                }
            };
            // An item shares its node with its foreach: what the node says, it says of the foreach.
            if self.get(parent).role == Role::Foreach {
                return outward(Reaction::CountItem);
            }
            let is_scope = matches!(self.get(parent).role, Role::Root | Role::Call);
            let said = self.def(at).and_then(|node| node.on_failure);
            // In a `finally` the failure of an inner node fails the step of `finally` around it.
            let said = match said {
                Some(OnFailure::Continue | OnFailure::Ignore) => said,
                _ if in_finally => return Reaction::FailParent,
                None if is_scope => Some(self.scope_policy(parent)),
                _ => said,
            };
            match said {
                Some(OnFailure::Continue) => return outward(Reaction::Tolerate { soft: true }),
                Some(OnFailure::Ignore) => return outward(Reaction::Tolerate { soft: false }),
                Some(OnFailure::Undo) => return Reaction::End { undo: true },
                Some(OnFailure::Stop) => return Reaction::End { undo: false },
                Some(OnFailure::Pause) => return Reaction::Ask,
                None => at = parent,
            }
        }
    }

    /// What a failure leads to as the run is now. One that a person is asked about (`asks`) waits for the answer; once the run
    /// is cancelled nothing waits for answers any more.
    pub(super) fn reaction_now(&self, id: InstanceId, asks: bool) -> Reaction {
        let is_cancelled = self.cancelled.is_some();
        match self.reaction(id) {
            Reaction::Ask if is_cancelled => Reaction::End { undo: false },
            _ if asks && !is_cancelled => Reaction::Ask,
            reaction => reaction,
        }
    }

    /// What a failure that nothing in a scope handles does.
    pub(super) fn scope_policy(&self, scope: InstanceId) -> OnFailure {
        match self.def(scope).map(|node| &node.body) {
            Some(Body::Call(call)) => call.on_failure,
            Some(Body::Step(_) | Body::Group { .. }) | None => self.graph.policy.on_failure,
        }
    }
}
