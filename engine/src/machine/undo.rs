//! Compensation: which undo may start when.
//!
//! A node's undo starts when all that depended on it is undone or had no effect. Items of a foreach are undone one by one,
//! the last started first; where they ran side by side, one whose undo fails holds up no other. What cannot be undone blocks
//! what it needs, but for scratch: `cleanup: always` asks only whether the step took effect.
use super::{
    core::{IllegalEvent, Machine, ScopePhase},
    execution::{Change, Stage},
    scope::{Ending, Reason},
    state::{InstanceId, Role},
    tree::ROOT,
};
use crate::{
    graph::{Body, StepDef, Undo},
    step::Phase,
};

/// Where an instance is in a compensation. Made anew by each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// Dependents that must settle first.
    pub waiting_on: u32,
    /// Containers: children that are not settled.
    pub unsettled: u32,
    /// Something that needs it took effect for good.
    pub blocked: bool,
    pub settled: bool,
    /// Its turn has come.
    ready: bool,
    /// An item that failed to be undone, and whose turn went on to the next.
    passed_on: bool,
}

impl Mark {
    pub(super) fn may_start(self, machine: &Machine, id: InstanceId) -> bool {
        self.ready && !self.settled && !machine.undo_is_given_up(id)
    }
}

/// What there is to undo of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// It took effect, and no undo is there for it.
    Impossible,
    Undo,
}

impl Machine {
    /// Starts the compensation of a scope, or only its clean-up of scratch resources.
    pub(super) fn open_undo(&mut self, scope: InstanceId) -> Result<(), IllegalEvent> {
        // What was ready in a clean-up that this compensation takes over waits for its turn in this one.
        for id in self.tree.inside(scope) {
            if self.tally(id).undo != Mark::default() {
                self.tally_mut(id).undo = Mark::default();
                self.touch(id);
            }
            // An undo that failed, or was given up, in an earlier one is pending, and so is one that had nothing to do there: its
            // condition is asked anew in its turn. What a person left stays.
            let is_pending = match self.tree.stage(id, Phase::Undo) {
                Stage::Failed | Stage::Ended => true,
                Stage::Skipped => !self.get(id).undo.left,
                _ => false,
            };
            if is_pending {
                if !self.get(id).undo.begun {
                    self.execution_mut(id, Phase::Undo).part = 0;
                }
                self.shift(id, Phase::Undo, Change::Again)?;
            }
        }
        self.tally_mut(scope).undo = Mark::default();
        if let Some(state) = self.scopes.get_mut(&scope) {
            state.blocked = false;
        }
        let mut work = Vec::new();
        self.open_undo_children(scope, &mut work);
        self.advance_undo(work)
    }

    /// Who orders a run that is over to be undone means what a person left before, too: what held its undo up may be gone.
    pub(super) fn take_up_left(&mut self) {
        for id in self.tree.inside(ROOT) {
            if self.get(id).undo.left {
                self.execution_mut(id, Phase::Undo).left = false;
                self.tree.get_mut(id).skipped = None;
            }
        }
    }

    /// An undo is done, or left (`left`).
    pub(super) fn undo_settled(&mut self, id: InstanceId, left: bool) -> Result<(), IllegalEvent> {
        // One that was in doubt since an earlier compensation may settle before its turn in this one, which then finds it done.
        let mark = self.tally(id).undo;
        if mark.settled || !mark.ready {
            return Ok(());
        }
        let mut work = Vec::new();
        self.settle_undo(id, left, &mut work)?;
        self.advance_undo(work)
    }

    /// An undo failed. In a loop whose items ran side by side none needs another: what did not come to its end in one does not hold up
    /// the others.
    pub(super) fn undo_failed(&mut self, id: InstanceId) -> Result<(), IllegalEvent> {
        let Some(scope) = self.compensating(id) else {
            return Ok(());
        };
        let item = std::iter::once(id)
            .chain(self.tree.around(id))
            .take_while(|at| *at != scope)
            .find(|at| self.get(*at).item.is_some());
        let foreach = item.and_then(|item| self.get(item).parent);
        let (Some(item), Some(foreach)) = (item, foreach) else {
            return Ok(());
        };
        let def = self.def(foreach).and_then(|node| node.foreach.as_ref());
        let side_by_side = def.is_some_and(|def| def.max_parallel > 1);
        let mark = &mut self.tally_mut(item).undo;
        if !side_by_side || std::mem::replace(&mut mark.passed_on, true) {
            return Ok(());
        }
        let chain = self.undo_chains.get_mut(&foreach);
        let work = chain.and_then(Vec::pop).into_iter().collect();
        self.advance_undo(work)
    }

    /// Whether the undo of a scope has come to its end.
    pub(super) fn undo_is_over(&self, scope: InstanceId) -> bool {
        let tally = self.tally(scope);
        tally.undo.unsettled == 0 || self.gives_up(scope) && tally.undoing == 0
    }

    /// A cancel that leaves things as they are: no further undo starts, and one that failed is left.
    pub(super) fn gives_up(&self, scope: InstanceId) -> bool {
        let ending = Ending {
            reason: Reason::Cancelled,
            undo: false,
        };
        let phase = self.scope_phase(scope);
        matches!(phase, ScopePhase::Undoing | ScopePhase::Cleaning)
            && self.ending_of(scope) == Some(ending)
    }

    /// The scopes that give up what they were to undo.
    pub(super) fn given_up(&self) -> Vec<InstanceId> {
        let scopes = self.scopes.keys().copied();
        scopes.filter(|scope| self.gives_up(*scope)).collect()
    }

    pub(super) fn undo_is_given_up(&self, id: InstanceId) -> bool {
        self.compensating(id)
            .is_none_or(|scope| self.gives_up(scope))
    }

    /// The scope whose compensation or clean-up an instance is part of now.
    pub(super) fn compensating(&self, id: InstanceId) -> Option<InstanceId> {
        self.tree.scopes_around(id).find(|scope| {
            matches!(
                self.scope_phase(*scope),
                ScopePhase::Undoing | ScopePhase::Cleaning
            )
        })
    }

    // A work list instead of recursion: a chain of ten thousand steps is as deep.
    fn advance_undo(&mut self, mut work: Vec<InstanceId>) -> Result<(), IllegalEvent> {
        while let Some(id) = work.pop() {
            let mark = self.tally(id).undo;
            if mark.settled {
                continue;
            }
            if self.get(id).role == Role::Step {
                let need = self.undo_need(id);
                let goes = need == Need::Undo && (!mark.blocked || self.is_scratch(id));
                if goes {
                    self.tally_mut(id).undo.ready = true;
                    self.touch(id);
                } else {
                    let stays = mark.blocked || need == Need::Impossible;
                    self.settle_undo(id, stays, &mut work)?;
                }
                continue;
            }
            // A playbook that is called has cleaned up after itself, unless all of it is scratch.
            let is_call = self.get(id).role == Role::Call;
            let passes_over = is_call && self.is_cleaning(id) && !self.is_scratch(id);
            if passes_over || self.open_undo_children(id, &mut work) == 0 {
                self.settle_undo(id, mark.blocked, &mut work)?;
            }
        }
        Ok(())
    }

    fn open_undo_children(&mut self, container: InstanceId, work: &mut Vec<InstanceId>) -> usize {
        let blocked = self.tally(container).undo.blocked;
        let children: Vec<InstanceId> = self
            .get(container)
            .children
            .iter()
            .copied()
            .filter(|id| !self.tree.is_finally_step(*id))
            .collect();
        for id in &children {
            self.tally_mut(*id).undo = Mark {
                blocked,
                ..Mark::default()
            };
            self.touch(*id);
        }
        self.touch(container);
        if self.get(container).role == Role::Foreach {
            let mut chain: Vec<InstanceId> = children
                .into_iter()
                .filter(|id| self.get(*id).start_order > 0)
                .collect();
            chain.sort_by_key(|id| self.get(*id).start_order);
            let count = chain.len();
            self.tally_mut(container).undo.unsettled = number(count);
            work.extend(chain.pop());
            self.undo_chains.insert(container, chain);
            return count;
        }
        for id in &children {
            let count = self.tree.dependents(*id).count();
            self.tally_mut(*id).undo.waiting_on = number(count);
            if count == 0 {
                work.push(*id);
            }
        }
        self.tally_mut(container).undo.unsettled = number(children.len());
        children.len()
    }

    fn settle_undo(
        &mut self,
        mut id: InstanceId,
        left: bool,
        work: &mut Vec<InstanceId>,
    ) -> Result<(), IllegalEvent> {
        let mut left = left || self.tally(id).undo.blocked;
        // Outward as long as containers settle with it.
        loop {
            self.tally_mut(id).undo.settled = true;
            self.touch(id);
            let Some(parent) = self.get(id).parent else {
                return Ok(());
            };
            if self.get(parent).role == Role::Foreach {
                if !self.tally(id).undo.passed_on
                    && let Some(chain) = self.undo_chains.get_mut(&parent)
                {
                    work.extend(chain.pop());
                }
            } else {
                for need in self.tree.needs(id).collect::<Vec<_>>() {
                    let mark = &mut self.tally_mut(need).undo;
                    mark.blocked |= left;
                    let Some(waiting_on) = mark.waiting_on.checked_sub(1) else {
                        return Err(self.misplaced("an undo settled twice"));
                    };
                    mark.waiting_on = waiting_on;
                    if waiting_on == 0 {
                        work.push(need);
                    }
                }
            }
            let mark = &mut self.tally_mut(parent).undo;
            mark.blocked |= left;
            let Some(unsettled) = mark.unsettled.checked_sub(1) else {
                return Err(self.misplaced("an undo settled twice"));
            };
            mark.unsettled = unsettled;
            let blocked = mark.blocked;
            self.touch(parent);
            if unsettled > 0 {
                return Ok(());
            }
            let is_scope = matches!(self.get(parent).role, Role::Root | Role::Call);
            let phase = self.scope_phase(parent);
            if is_scope && matches!(phase, ScopePhase::Undoing | ScopePhase::Cleaning) {
                if let Some(state) = self.scopes.get_mut(&parent) {
                    state.blocked = blocked;
                }
                return Ok(());
            }
            (id, left) = (parent, blocked);
        }
    }

    /// What there is to undo of a step, as far as it goes by itself.
    pub(super) fn undo_need(&self, id: InstanceId) -> Need {
        let instance = self.get(id);
        let Some(step) = self.tree.step(id).filter(|_| instance.took_effect) else {
            return Need::Nothing;
        };
        if self.is_cleaning(id) && !self.is_scratch(id) {
            return Need::Nothing;
        }
        if instance.undo.left {
            return Need::Impossible;
        }
        match &step.undo {
            Undo::None => Need::Nothing,
            Undo::Impossible => Need::Impossible,
            Undo::Auto { .. } | Undo::Steps(_) if instance.by_hand && needs_capture(step) => {
                Need::Impossible
            }
            Undo::Auto { .. } | Undo::Steps(_) => Need::Undo,
        }
    }

    fn is_cleaning(&self, id: InstanceId) -> bool {
        self.compensating(id)
            .is_some_and(|scope| self.scope_phase(scope) == ScopePhase::Cleaning)
    }

    /// Whether `cleanup: always` is said of it, or of what is around it in the scope that compensates or cleans up. What is said
    /// of the scope itself is about the scope around it.
    fn is_scratch(&self, id: InstanceId) -> bool {
        let scope = self.compensating(id);
        std::iter::once(id)
            .chain(self.tree.around(id))
            .take_while(|at| Some(*at) != scope)
            .any(|at| self.def(at).is_some_and(|node| node.cleanup))
    }

    /// Whether a scope has anything to clean up.
    pub(super) fn has_scratch(&self, scope: InstanceId) -> bool {
        let mut stack: Vec<InstanceId> = self.get(scope).children.clone();
        while let Some(id) = stack.pop() {
            if self.def(id).is_some_and(|node| node.cleanup) && !self.get(id).in_finally {
                return true;
            }
            if self.get(id).role != Role::Call {
                stack.extend(self.get(id).children.iter().copied());
            }
        }
        false
    }

    /// How many steps the undo has.
    #[must_use]
    pub fn undo_parts(&self, id: InstanceId) -> u32 {
        match self.tree.step(id).map(|step| &step.undo) {
            Some(Undo::Steps(parts)) => number(parts.len()),
            Some(Undo::Auto { .. } | Undo::None | Undo::Impossible) | None => 1,
        }
    }

    /// Whether an undo is the kind's own.
    pub(super) fn undo_is_auto(&self, id: InstanceId) -> bool {
        let step = self.tree.step(id);
        step.is_some_and(|step| matches!(step.undo, Undo::Auto { .. }))
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
                Undo::Steps(parts) => parts.get(self.get(id).undo.part as usize),
                Undo::Auto { .. } => Some(&step.action),
                Undo::None | Undo::Impossible => None,
            },
        }
    }
}

/// Whether an undo reads what was captured before the step acted.
fn needs_capture(step: &StepDef) -> bool {
    match &step.undo {
        Undo::Auto { .. } => step.action.traits.captures || step.action.traits.marks,
        Undo::Steps(parts) => parts.iter().any(|part| {
            let with = part.with.expressions();
            let all = with.into_iter().chain(&part.expressions).chain(&part.when);
            all.flat_map(|expr| expr.references())
                .any(|reference| reference.root == "capture")
        }),
        Undo::None | Undo::Impossible => false,
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
