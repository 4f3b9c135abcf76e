//! What a settled node sets free, what a failed one holds up, and how scopes end.
use super::{
    core::{Ending, Machine, ROOT, ScopePhase},
    state::{InstanceId, NodeState, Role, Stage},
};
use crate::{
    graph::{Body, OnFailure},
    step::{Failure, Phase},
    value::Value,
};
use std::sync::Arc;

/// What the failure of a node leads to, found from the node outward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    /// It counts as settled; `soft` makes the run end *failed*.
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
    /// A node is done, skipped or its failure tolerated: those that need it may go on.
    pub(super) fn settled(&mut self, id: InstanceId, satisfied: bool) {
        let Some(parent) = self.get(id).parent else {
            return;
        };
        let role = self.get(parent).role;
        if self.is_finally_step(id) {
            self.next_finally(id);
            return;
        }
        if role == Role::Foreach {
            if !satisfied {
                self.meta_mut(parent).failed_items += 1;
            }
            self.meta_mut(parent).unsettled = self.meta(parent).unsettled.saturating_sub(1);
            let total = self.get(parent).children.len();
            let budget = self
                .def(parent)
                .and_then(|node| node.foreach.as_ref())
                .map_or(0, |foreach| foreach.max_failures.of(total));
            if self.meta(parent).failed_items > budget {
                if self.meta(parent).failing.is_none() {
                    let failed = self.meta(parent).failed_items;
                    self.meta_mut(parent).failing = Some(Failure::new(
                        "foreach.too_many_failures",
                        format!("{failed} of {total} items failed; {budget} may"),
                    ));
                }
                if self.meta(parent).active == 0 {
                    self.closing.insert(parent);
                }
            } else {
                self.offer_item(parent);
                if self.meta(parent).unsettled == 0 {
                    self.closing.insert(parent);
                }
            }
            return;
        }
        if !satisfied {
            return;
        }
        self.meta_mut(parent).unsettled = self.meta(parent).unsettled.saturating_sub(1);
        if let Some(def) = self.get(id).def {
            let dependents = self.dependents.clone();
            for dependent in dependents.get(def.index()).into_iter().flatten() {
                let position = self
                    .positions
                    .get(dependent.index())
                    .copied()
                    .unwrap_or(usize::MAX);
                if let Some(sibling) = self.get(parent).children.get(position).copied() {
                    let meta = self.meta_mut(sibling);
                    meta.waiting_on = meta.waiting_on.saturating_sub(1);
                    if meta.waiting_on == 0 && self.get(sibling).forward.stage == Stage::Idle {
                        self.ready.insert(sibling);
                    }
                }
            }
        }
        if self.meta(parent).unsettled == 0 {
            match role {
                Role::Root | Role::Call => {
                    self.due_scopes.insert(parent);
                }
                Role::Group | Role::Foreach | Role::Step => {
                    self.closing.insert(parent);
                }
            }
        }
    }

    /// Puts the next item of a foreach among the ready.
    pub(super) fn offer_item(&mut self, foreach: InstanceId) {
        let next = self.meta(foreach).next_item;
        if let Some(item) = self.get(foreach).children.get(next).copied() {
            self.meta_mut(foreach).next_item = next + 1;
            if self.get(item).forward.stage == Stage::Idle {
                self.ready.insert(item);
            }
        }
    }

    /// A node failed for good.
    pub(super) fn failed(&mut self, id: InstanceId, failure: &Failure) {
        match self.reaction(id) {
            Reaction::Tolerate { soft } => {
                if soft {
                    self.scope_of(id).soft_failure = true;
                }
                self.settled(id, true);
            }
            Reaction::CountItem => self.settled(id, false),
            Reaction::FailParent => {
                if let Some(parent) = self.get(id).parent {
                    if self.meta(parent).failing.is_none() {
                        let path = &self.get(id).path;
                        let mut inner = failure.clone();
                        inner.message = format!("{path}: {}", failure.message);
                        inner.output = Value::Null;
                        self.meta_mut(parent).failing = Some(inner);
                    }
                    if self.meta(parent).active == 0 {
                        self.closing.insert(parent);
                    }
                }
            }
            Reaction::Ask => {
                self.attention.insert(id);
            }
            Reaction::End { undo } => {
                let scope = self.meta(id).scope;
                let why = format!("{} failed: {}", self.get(id).path, failure.message);
                self.end_scope(scope, &why, undo);
            }
        }
    }

    /// What the failure of a node leads to.
    fn reaction(&self, id: InstanceId) -> Reaction {
        if self.is_finally_step(id) {
            return Reaction::Tolerate { soft: false };
        }
        let in_finally = self.meta(id).in_finally;
        let mut at = id;
        loop {
            let Some(parent) = self.get(at).parent else {
                return Reaction::End { undo: true };
            };
            // An item shares its node with its foreach: what the node says, it says of the foreach.
            let is_item = self.get(parent).role == Role::Foreach;
            if is_item {
                return if at == id {
                    Reaction::CountItem
                } else {
                    Reaction::FailParent
                };
            }
            match self.def(at).and_then(|node| node.on_failure) {
                Some(OnFailure::Continue) => {
                    return if at == id {
                        Reaction::Tolerate { soft: true }
                    } else {
                        Reaction::FailParent
                    };
                }
                Some(OnFailure::Ignore) => {
                    return if at == id {
                        Reaction::Tolerate { soft: false }
                    } else {
                        Reaction::FailParent
                    };
                }
                Some(OnFailure::Undo) if !in_finally => return Reaction::End { undo: true },
                Some(OnFailure::Stop) if !in_finally => return Reaction::End { undo: false },
                Some(OnFailure::Pause) if !in_finally => return Reaction::Ask,
                Some(OnFailure::Undo | OnFailure::Stop | OnFailure::Pause) | None => {}
            }
            match self.get(parent).role {
                Role::Group => at = parent,
                Role::Root | Role::Call => {
                    if in_finally {
                        return Reaction::FailParent;
                    }
                    return match self.scope_policy(parent) {
                        OnFailure::Undo => Reaction::End { undo: true },
                        OnFailure::Stop => Reaction::End { undo: false },
                        OnFailure::Pause => Reaction::Ask,
                        OnFailure::Continue if at == id => Reaction::Tolerate { soft: true },
                        OnFailure::Ignore if at == id => Reaction::Tolerate { soft: false },
                        OnFailure::Continue | OnFailure::Ignore => Reaction::FailParent,
                    };
                }
                Role::Foreach | Role::Step => return Reaction::CountItem,
            }
            // In a `finally` the failure of an inner node fails the step of `finally` around it.
            if in_finally {
                return Reaction::FailParent;
            }
        }
    }

    /// What the failure of a node would lead to, in words; for pages that explain.
    #[must_use]
    pub fn failure_leads_to(&self, id: InstanceId) -> &'static str {
        match self.reaction(id) {
            Reaction::Tolerate { .. } => "the run goes on",
            Reaction::FailParent | Reaction::CountItem => "what it is part of fails",
            Reaction::End { undo: true } => "the run undoes what it did",
            Reaction::End { undo: false } => "the run stops and leaves things as they are",
            Reaction::Ask => "the run pauses and asks",
        }
    }

    /// A scope, and every scope that is open inside it, starts nothing more.
    pub(super) fn end_scope(&mut self, scope: InstanceId, why: &str, undo: bool) {
        let ending = Ending {
            why: why.to_owned(),
            undo,
            cancelled: false,
            force: false,
            skip_finally: false,
        };
        let inside: Vec<InstanceId> = self
            .scopes
            .keys()
            .copied()
            .filter(|other| *other == scope || self.is_inside(*other, scope))
            .collect();
        for scope in inside {
            if self.scope_phase(scope) == ScopePhase::Forward
                && let Some(state) = self.scopes.get_mut(&scope)
                && state.ending.is_none()
            {
                state.ending = Some(ending.clone());
                self.due_scopes.insert(scope);
            }
        }
    }

    fn is_inside(&self, id: InstanceId, outer: InstanceId) -> bool {
        let mut up = self.get(id).parent;
        while let Some(parent) = up {
            if parent == outer {
                return true;
            }
            up = self.get(parent).parent;
        }
        false
    }

    // ---- finally -------------------------------------------------------------------------------------

    /// Whether it stands directly in a `finally`.
    pub(super) fn is_finally_step(&self, id: InstanceId) -> bool {
        self.get(id)
            .parent
            .is_some_and(|parent| matches!(self.get(parent).role, Role::Root | Role::Call))
            && self.def(id).is_some_and(|node| node.in_finally)
    }

    pub(super) fn finally_steps(&self, scope: InstanceId) -> Vec<InstanceId> {
        self.get(scope)
            .children
            .iter()
            .copied()
            .filter(|id| self.def(*id).is_some_and(|node| node.in_finally))
            .collect()
    }

    pub(super) fn start_finally(&mut self, scope: InstanceId) {
        let skip = self
            .scopes
            .get(&scope)
            .and_then(|state| state.ending.as_ref())
            .is_some_and(|ending| ending.skip_finally);
        if !skip && let Some(first) = self.finally_steps(scope).first() {
            self.ready.insert(*first);
        }
        self.due_scopes.insert(scope);
    }

    fn next_finally(&mut self, id: InstanceId) {
        let scope = self.meta(id).scope;
        if self.get(id).forward.stage == Stage::Failed {
            let path = self.get(id).path.clone();
            self.scope_of(id).finally_failed.push(path);
        }
        let steps = self.finally_steps(scope);
        let next = steps
            .iter()
            .position(|step| *step == id)
            .and_then(|at| steps.get(at + 1));
        if let Some(next) = next {
            self.ready.insert(*next);
        }
        self.due_scopes.insert(scope);
    }

    /// Whether every step of a scope's `finally` has settled.
    pub(super) fn finally_done(&self, scope: InstanceId) -> bool {
        let skip = self
            .scopes
            .get(&scope)
            .and_then(|state| state.ending.as_ref())
            .is_some_and(|ending| ending.skip_finally);
        let steps = self.finally_steps(scope);
        let settled = |id: &InstanceId| {
            matches!(
                self.get(*id).forward.stage,
                Stage::Succeeded | Stage::Skipped | Stage::Failed
            )
        };
        if skip {
            steps
                .iter()
                .all(|id| !self.get(*id).forward.stage.is_active())
        } else {
            steps.iter().all(settled)
        }
    }

    pub(super) fn reset_finally(&mut self, scope: InstanceId) {
        for id in self.finally_steps(scope) {
            // The attempt goes on counting: no attempt is used twice.
            let instance = self.get_mut(id);
            let forward = instance.execution_mut(Phase::Do);
            forward.stage = Stage::Idle;
            forward.tries = 0;
            instance.state = NodeState::Pending;
            instance.skipped = None;
            instance.finished_at = None;
            instance.children.clear();
            let meta = self.meta_mut(id);
            meta.failing = None;
            meta.expanded = false;
            meta.unsettled = 0;
            meta.failed_items = 0;
            meta.next_item = 0;
        }
    }

    // ---- closing and reopening -----------------------------------------------------------------------

    /// Closes the groups and loops of a scope that its end left open.
    pub(super) fn close_open(&mut self, scope: InstanceId) {
        let mut stack: Vec<InstanceId> = self.get(scope).children.clone();
        while let Some(id) = stack.pop() {
            self.ready.remove(&id);
            let open = self.get(id).forward.stage == Stage::Running && !self.is_in_finally_of(id);
            match self.get(id).role {
                Role::Group | Role::Foreach if open => {
                    self.enter(id, Phase::Do, Stage::Failed);
                    self.meta_mut(id).closed_by_end = true;
                    self.closing.remove(&id);
                    stack.extend(self.get(id).children.iter().copied());
                }
                Role::Group | Role::Foreach | Role::Step | Role::Call | Role::Root => {}
            }
        }
    }

    fn is_in_finally_of(&self, id: InstanceId) -> bool {
        self.meta(id).in_finally
    }

    /// Opens again what the end of the run had closed.
    pub(super) fn reopen_closed(&mut self) {
        for index in 0..self.nodes.len() {
            let id = InstanceId(u32::try_from(index).unwrap_or(u32::MAX));
            if self.meta(id).closed_by_end {
                self.meta_mut(id).closed_by_end = false;
                self.enter(id, Phase::Do, Stage::Running);
            }
            if self.get(id).forward.stage == Stage::Idle && self.can_be_ready(id) {
                self.ready.insert(id);
            }
        }
    }

    fn can_be_ready(&self, id: InstanceId) -> bool {
        let Some(parent) = self.get(id).parent else {
            return false;
        };
        if self.meta(id).in_finally || self.get(parent).forward.stage != Stage::Running {
            return false;
        }
        if self.get(parent).role == Role::Foreach {
            return self.meta(id).position < self.meta(parent).next_item;
        }
        self.meta(id).waiting_on == 0
    }

    /// A failed node gets another chance: the containers that failed with it are open again.
    pub(super) fn reopen_around(&mut self, id: InstanceId) {
        let mut at = id;
        while let Some(parent) = self.get(at).parent {
            if matches!(self.get(parent).role, Role::Root | Role::Call) {
                break;
            }
            let was_item = self.get(parent).role == Role::Foreach;
            if was_item {
                let meta = self.meta_mut(parent);
                meta.failed_items = meta.failed_items.saturating_sub(1);
                meta.unsettled += 1;
            }
            self.meta_mut(parent).failing = None;
            self.closing.remove(&parent);
            if self.get(parent).forward.stage != Stage::Failed {
                break;
            }
            self.attention.remove(&parent);
            self.enter(parent, Phase::Do, Stage::Running);
            at = parent;
        }
    }

    // ---- views ---------------------------------------------------------------------------------------

    /// A foreach's output: a view that shares its items' outputs.
    pub(super) fn foreach_view(&self, id: InstanceId) -> Value {
        let mut succeeded = 0;
        let mut failed = 0;
        let items = self
            .get(id)
            .children
            .iter()
            .map(|child| {
                let child = self.get(*child);
                match child.forward.stage {
                    Stage::Succeeded => succeeded += 1,
                    Stage::Failed => failed += 1,
                    Stage::Idle
                    | Stage::Running
                    | Stage::Backoff
                    | Stage::Waiting
                    | Stage::AwaitingApproval
                    | Stage::InDoubt
                    | Stage::Skipped => {}
                }
                Value::map([
                    (
                        "item",
                        child
                            .item
                            .as_ref()
                            .map(|(_, item)| item.clone())
                            .unwrap_or_default(),
                    ),
                    ("state", Value::from(child.state.as_str())),
                    ("output", child.output.clone()),
                    ("error", super::vars::error_value(child)),
                ])
            })
            .collect();
        Value::map([
            ("items", Value::List(Arc::new(items))),
            ("succeeded", Value::Int(succeeded)),
            ("failed", Value::Int(failed)),
        ])
    }

    /// A group's output: the outputs of its steps by id.
    pub(super) fn group_view(&self, id: InstanceId) -> Value {
        Value::map(self.get(id).children.iter().filter_map(|child| {
            let node = self.def(*child)?;
            Some((node.id.clone(), self.get(*child).output.clone()))
        }))
    }

    /// The action that an execution runs; for an undo of several parts, the one that it has come to.
    #[must_use]
    pub fn action(&self, id: InstanceId, phase: Phase) -> Option<&crate::graph::Action> {
        let Some(Body::Step(step)) = self.def(id).map(|node| &node.body) else {
            return None;
        };
        match phase {
            Phase::Do => Some(&step.action),
            Phase::Undo => match &step.undo {
                crate::graph::Undo::Steps(parts) => parts.get(self.get(id).undo.part as usize),
                crate::graph::Undo::Auto { .. } => Some(&step.action),
                crate::graph::Undo::None | crate::graph::Undo::Impossible => None,
            },
        }
    }

    /// Whether an undo is the kind's own.
    pub(super) fn undo_is_auto(&self, id: InstanceId) -> bool {
        matches!(
            self.def(id).map(|node| &node.body),
            Some(Body::Step(step)) if matches!(step.undo, crate::graph::Undo::Auto { .. })
        )
    }

    pub(super) fn root_forward(&self) -> bool {
        self.scope_phase(ROOT) == ScopePhase::Forward && !self.is_ending(ROOT)
    }
}
