//! Compensation: which undo may start when.
//!
//! A node's undo starts when all that depended on it is undone or had no effect. Items of a foreach are
//! undone one by one, the last started first. What cannot be undone blocks what it needs.
use super::{
    core::{Machine, ScopePhase, UndoMark},
    state::{InstanceId, Role, Stage},
};
use crate::graph::{Body, Undo};

enum Need {
    Nothing,
    Impossible,
    Undo,
}

impl Machine {
    /// Starts the compensation of a scope, or only its clean-up of scratch resources.
    pub(super) fn open_undo(&mut self, scope: InstanceId) {
        self.meta_mut(scope).undo = UndoMark::default();
        if let Some(state) = self.scopes.get_mut(&scope) {
            state.blocked = false;
        }
        let mut work = Vec::new();
        if self.open_undo_children(scope, &mut work) == 0 {
            self.due_scopes.insert(scope);
        }
        self.advance_undo(work);
    }

    /// An undo is done, or left (`blocked`).
    pub(super) fn undo_settled(&mut self, id: InstanceId, blocked: bool) {
        if self.meta(id).undo.settled {
            return;
        }
        let mut work = Vec::new();
        self.settle_undo(id, blocked, &mut work);
        self.advance_undo(work);
    }

    /// Whether the undo of a scope has come to its end.
    pub(super) fn undo_is_over(&self, scope: InstanceId) -> bool {
        self.meta(scope).undo.unsettled == 0
    }

    // A work list instead of recursion: a chain of ten thousand steps is as deep.
    fn advance_undo(&mut self, mut work: Vec<InstanceId>) {
        while let Some(id) = work.pop() {
            if self.meta(id).undo.settled {
                continue;
            }
            if self.meta(id).undo.blocked {
                self.settle_undo(id, true, &mut work);
                continue;
            }
            match self.get(id).role {
                Role::Step => match self.undo_need(id) {
                    Need::Nothing => self.settle_undo(id, false, &mut work),
                    Need::Impossible => self.settle_undo(id, true, &mut work),
                    Need::Undo => {
                        self.undo_ready.insert(id);
                    }
                },
                Role::Group | Role::Foreach | Role::Call | Role::Root => {
                    let nothing_inside = self.get(id).children.is_empty()
                        || self.get(id).role == Role::Call && self.is_cleaning(id);
                    if nothing_inside || self.open_undo_children(id, &mut work) == 0 {
                        self.settle_undo(id, false, &mut work);
                    }
                }
            }
        }
    }

    fn open_undo_children(&mut self, container: InstanceId, work: &mut Vec<InstanceId>) -> usize {
        let children: Vec<InstanceId> = self
            .get(container)
            .children
            .iter()
            .copied()
            .filter(|id| !self.is_finally_step(*id))
            .collect();
        for id in &children {
            self.meta_mut(*id).undo = UndoMark::default();
        }
        if self.get(container).role == Role::Foreach {
            let mut chain: Vec<InstanceId> = children
                .into_iter()
                .filter(|id| self.meta(*id).start_order > 0)
                .collect();
            chain.sort_by_key(|id| self.meta(*id).start_order);
            let count = chain.len();
            self.meta_mut(container).undo.unsettled = count;
            work.extend(chain.pop());
            self.undo_chains.insert(container, chain);
            return count;
        }
        let dependents = self.dependents.clone();
        for id in &children {
            let count = self
                .get(*id)
                .def
                .and_then(|def| dependents.get(def.index()))
                .map_or(0, Vec::len);
            self.meta_mut(*id).undo.waiting_on = count;
            if count == 0 {
                work.push(*id);
            }
        }
        self.meta_mut(container).undo.unsettled = children.len();
        children.len()
    }

    fn settle_undo(&mut self, id: InstanceId, blocked: bool, work: &mut Vec<InstanceId>) {
        self.meta_mut(id).undo.settled = true;
        let Some(parent) = self.get(id).parent else {
            return;
        };
        if self.get(parent).role == Role::Foreach {
            if let Some(chain) = self.undo_chains.get_mut(&parent) {
                work.extend(chain.pop());
            }
        } else if let Some(def) = self.get(id).def {
            let graph = self.graph.clone();
            for need in &graph.node(def).needs {
                let position = self
                    .positions
                    .get(need.index())
                    .copied()
                    .unwrap_or(usize::MAX);
                let Some(sibling) = self.get(parent).children.get(position).copied() else {
                    continue;
                };
                let mark = &mut self.meta_mut(sibling).undo;
                mark.blocked |= blocked;
                mark.waiting_on = mark.waiting_on.saturating_sub(1);
                if mark.waiting_on == 0 {
                    work.push(sibling);
                }
            }
        }
        let mark = &mut self.meta_mut(parent).undo;
        mark.blocked |= blocked;
        mark.unsettled = mark.unsettled.saturating_sub(1);
        if mark.unsettled > 0 {
            return;
        }
        let blocked = mark.blocked;
        if matches!(
            self.scope_phase(parent),
            ScopePhase::Undoing | ScopePhase::Cleaning
        ) && matches!(self.get(parent).role, Role::Root | Role::Call)
        {
            if let Some(state) = self.scopes.get_mut(&parent) {
                state.blocked = blocked;
            }
            self.due_scopes.insert(parent);
        } else {
            self.settle_undo(parent, blocked, work);
        }
    }

    fn undo_need(&self, id: InstanceId) -> Need {
        let instance = self.get(id);
        if !instance.took_effect || instance.undo.stage == Stage::Succeeded {
            return Need::Nothing;
        }
        if self.is_cleaning(id) && !self.is_scratch(id) {
            return Need::Nothing;
        }
        if instance.undo.stage == Stage::Skipped {
            return Need::Impossible;
        }
        match self.def(id).map(|node| &node.body) {
            Some(Body::Step(step)) => match &step.undo {
                Undo::None => Need::Nothing,
                Undo::Impossible => Need::Impossible,
                Undo::Auto { .. } | Undo::Steps(_) => Need::Undo,
            },
            Some(Body::Group { .. } | Body::Call(_)) | None => Need::Nothing,
        }
    }

    /// Whether the compensation around an instance is only a clean-up.
    fn is_cleaning(&self, id: InstanceId) -> bool {
        let mut at = id;
        while let Some(parent) = self.get(at).parent {
            if matches!(self.get(parent).role, Role::Root | Role::Call) {
                match self.scope_phase(parent) {
                    ScopePhase::Cleaning => return true,
                    ScopePhase::Undoing => return false,
                    ScopePhase::Forward | ScopePhase::Finally | ScopePhase::Over => {}
                }
            }
            at = parent;
        }
        false
    }

    /// Whether `cleanup: always` holds for it or a group around it.
    fn is_scratch(&self, id: InstanceId) -> bool {
        let mut at = Some(id);
        while let Some(current) = at {
            if matches!(self.get(current).role, Role::Root) {
                return false;
            }
            if self.def(current).is_some_and(|node| node.cleanup) {
                return true;
            }
            at = self.get(current).parent;
        }
        false
    }

    /// Whether a scope has anything to clean up.
    pub(super) fn has_scratch(&self, scope: InstanceId) -> bool {
        let mut stack: Vec<InstanceId> = self.get(scope).children.clone();
        while let Some(id) = stack.pop() {
            if self.def(id).is_some_and(|node| node.cleanup) && !self.meta(id).in_finally {
                return true;
            }
            if self.get(id).role != Role::Call {
                stack.extend(self.get(id).children.iter().copied());
            }
        }
        false
    }
}
