//! What a node counts for around it, and the sums of it.
//!
//! Every count is the sum of what the nodes below contribute. What a node was counted for is kept beside its sums, so that
//! `recount` takes away exactly that and adds what the node contributes now, whatever was changed before in whatever order.
//! So settling twice counts once, and reopening takes back what settling gave.
use super::{
    core::{IllegalEvent, Machine},
    event::StartCause,
    execution::{At, Change, Stage},
    reaction::Reaction,
    state::{InstanceId, NodeState, Role},
};
use crate::{step::Phase, value::Timestamp};

/// What is summed up for one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Needed siblings that have not passed.
    pub needs: u32,
    /// Containers: children that have not settled, `finally` apart.
    pub open: u32,
    /// Containers: children whose failure fails the container.
    pub broken: u32,
    /// Foreach: items that failed.
    pub failed: u32,
    /// Foreach: items that have not started, and those that hold one of its slots.
    pub idle: u32,
    pub in_use: u32,
    /// Foreach: idle items that a person ordered to run.
    pub ordered: u32,
    /// Foreach: no item before this one is idle.
    pub cursor: u32,
    /// Containers: steps and calls inside that are under way, at any depth.
    pub active: u32,
    /// Containers: undos inside that are under way, at any depth.
    pub undoing: u32,
    pub undo: super::undo::Mark,
    /// What the node itself is counted for.
    pub counted: Share,
}

/// What a node contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Share {
    /// Those that need it may start.
    passed: bool,
    failed_item: bool,
    broken: bool,
    idle: bool,
    ordered: bool,
    in_use: bool,
    active: bool,
    undoing: bool,
    /// A step that runs: `max_duration` counts.
    busy: bool,
    /// It ends its scope.
    fatal: Option<Timestamp>,
    /// It asks a person.
    asks: bool,
    /// It was let pass, and the scope ends *failed*.
    soft: bool,
}

impl Share {
    pub(super) fn is_ordered(self) -> bool {
        self.ordered
    }

    pub(super) fn fails_container(self) -> bool {
        self.broken || self.failed_item
    }
}

fn add(count: &mut u32, before: bool, after: bool) -> Option<()> {
    match (before, after) {
        (false, true) => *count = count.checked_add(1)?,
        (true, false) => *count = count.checked_sub(1)?,
        (false, false) | (true, true) => {}
    }
    Some(())
}

impl Machine {
    /// Moves an execution along the table, and all counts with it.
    pub(super) fn shift(
        &mut self,
        id: InstanceId,
        phase: Phase,
        change: Change,
    ) -> Result<(), IllegalEvent> {
        let was_settled = self.tree.stage(id, Phase::Do).is_settled();
        if let Err((stage, trigger)) = self.tree.get_mut(id).execution_mut(phase).on(change) {
            return Err(IllegalEvent::Transition {
                seq: self.seq + 1,
                node: self.get(id).path.to_string(),
                stage,
                trigger,
            });
        }
        let instance = self.tree.get_mut(id);
        let undo = match instance.undo.stage() {
            // It began, and was given up: what is left is not known.
            Stage::Ended if instance.undo.begun => Stage::Failed,
            stage => stage,
        };
        instance.state = NodeState::of(&instance.forward.at, undo);
        self.touch(id);
        // Failures inside that ask do so as long as it is open, or will be.
        let is_settled = self.tree.stage(id, Phase::Do).is_settled();
        if !self.asking.is_empty() && was_settled != is_settled {
            self.touch_inside(id);
        }
        self.recount(id)
    }

    /// Counts all failures anew: what they lead to has changed.
    pub(super) fn recount_failed(&mut self) -> Result<(), IllegalEvent> {
        for id in self.tree.ids() {
            if self.tree.stage(id, Phase::Do) == Stage::Failed {
                self.touch(id);
                self.recount(id)?;
            }
        }
        Ok(())
    }

    /// What a node contributes as it is now.
    pub(super) fn share(&self, id: InstanceId) -> Share {
        let instance = self.get(id);
        let forward = &instance.forward;
        let stage = forward.stage();
        let leaf = matches!(instance.role, Role::Step | Role::Call);
        let mut share = Share {
            idle: stage == Stage::Idle,
            ordered: stage == Stage::Idle && forward.next_cause == Some(StartCause::Operator),
            in_use: stage.is_active(),
            active: leaf && stage.is_active(),
            undoing: instance.undo.stage().is_active(),
            busy: instance.role == Role::Step && stage == Stage::Running,
            ..Share::default()
        };
        match &forward.at {
            // If what it needs runs again, those that need it wait for that, too: `needs` that is left out names only the step before. A
            // step that was skipped is in its place.
            At::Succeeded | At::Skipped => share.passed = self.tally(id).needs == 0,
            // A playbook that failed only since the scope around it ends is no reason for that.
            At::Failed { .. } if self.ended_with_outer(id) => {}
            At::Failed { asks, .. } => match self.reaction_now(id, *asks) {
                Reaction::Tolerate { soft } => {
                    share.passed = true;
                    share.soft = soft;
                }
                Reaction::CountItem => share.failed_item = true,
                Reaction::FailParent => share.broken = true,
                Reaction::End { .. } => {
                    share.fatal = Some(instance.finished_at.unwrap_or(Timestamp::MIN));
                }
                Reaction::Ask => share.asks = true,
            },
            At::Idle
            | At::Running { .. }
            | At::Backoff { .. }
            | At::Gated
            | At::Asleep(_)
            | At::InDoubt { .. }
            | At::Ended => {}
        }
        share
    }

    pub(super) fn ended_with_outer(&self, call: InstanceId) -> bool {
        let state = self.scopes.get(&call);
        state.is_some_and(|state| state.outer_end)
    }

    /// Takes away what a node was counted for, and counts what it contributes now; and so on for those whose share changes by it.
    /// What a loop no longer has among its items counts for nothing.
    pub(super) fn recount(&mut self, id: InstanceId) -> Result<(), IllegalEvent> {
        let mut work = vec![id];
        while let Some(id) = work.pop() {
            let (before, after) = (self.tally(id).counted, self.share(id));
            if before == after || !self.is_listed(id) {
                continue;
            }
            self.tally_mut(id).counted = after;
            self.sum_one(id, before, after, &mut work)
                .ok_or_else(|| IllegalEvent::Phase {
                    seq: self.seq + 1,
                    what: format!("a count around {:?} is below zero", self.get(id).path),
                })?;
        }
        Ok(())
    }

    fn sum_one(
        &mut self,
        id: InstanceId,
        before: Share,
        after: Share,
        work: &mut Vec<InstanceId>,
    ) -> Option<()> {
        if before.busy != after.busy {
            self.count_busy(id, before.busy)?;
        }
        if before.passed != after.passed {
            for other in self.tree.dependents(id).collect::<Vec<_>>() {
                let held = self.tally(other).needs > 0;
                add(
                    &mut self.tally_mut(other).needs,
                    !before.passed,
                    !after.passed,
                )?;
                self.touch(other);
                // What is inside an open container waits for what the container needs, if that runs again.
                if held != (self.tally(other).needs > 0) && !self.get(other).children.is_empty() {
                    self.touch_inside(other);
                }
                work.push(other);
            }
        }
        let Some(parent) = self.get(id).parent else {
            return Some(());
        };
        let held_before = self.is_failing(parent);
        let is_finally = self.tree.is_finally_step(id);
        let position = self.get(id).position;
        {
            let is_open = |share: Share| !share.passed && !share.failed_item && !is_finally;
            let tally = self.tally_mut(parent);
            add(&mut tally.open, is_open(before), is_open(after))?;
            add(&mut tally.broken, before.broken, after.broken)?;
            add(&mut tally.failed, before.failed_item, after.failed_item)?;
            add(&mut tally.idle, before.idle, after.idle)?;
            add(&mut tally.ordered, before.ordered, after.ordered)?;
            add(&mut tally.in_use, before.in_use, after.in_use)?;
            if after.idle {
                tally.cursor = tally.cursor.min(position);
            }
        }
        if !after.idle && self.get(parent).role == Role::Foreach {
            self.advance_cursor(parent);
        }
        if is_finally {
            // The next one, or the end of `finally`.
            for step in self.tree.finally_steps(parent).collect::<Vec<_>>() {
                self.touch(step);
            }
        }
        self.touch(parent);
        if held_before != self.is_failing(parent) {
            self.touch_inside(parent);
        }
        if before.active != after.active || before.undoing != after.undoing {
            let mut at = id;
            while let Some(container) = self.get(at).parent {
                let tally = self.tally_mut(container);
                add(&mut tally.active, before.active, after.active)?;
                add(&mut tally.undoing, before.undoing, after.undoing)?;
                if tally.active == 0 || tally.undoing == 0 {
                    self.touch(container);
                }
                at = container;
            }
        }
        let scope = self.get(id).scope;
        if before.soft != after.soft {
            let state = self.scopes.get_mut(&scope)?;
            add(&mut state.soft, before.soft, after.soft)?;
        }
        if before.fatal != after.fatal {
            let was_ending = self.ending_of(scope);
            let state = self.scopes.get_mut(&scope)?;
            if let Some(at) = before.fatal {
                state.fatal.remove(&(at, id)).then_some(())?;
            }
            if let Some(at) = after.fatal {
                state.fatal.insert((at, id));
            }
            if was_ending != self.ending_of(scope) {
                self.touch_inside(scope);
            }
        }
        if before.asks != after.asks {
            if after.asks {
                self.asking.insert(id);
            } else {
                self.asking.remove(&id).then_some(())?;
            }
        }
        Some(())
    }

    /// Sets an instance up to be counted, as it is added below its container or taken up again.
    pub(super) fn enlist(&mut self, id: InstanceId) {
        let needs = self.tree.needs(id).count();
        let share = self.share(id);
        let is_finally = self.tree.is_finally_step(id);
        let tally = self.tally_mut(id);
        tally.needs = u32::try_from(needs).unwrap_or(u32::MAX);
        tally.counted = share;
        if let Some(parent) = self.get(id).parent {
            let tally = self.tally_mut(parent);
            tally.open += u32::from(!is_finally);
            tally.idle += u32::from(share.idle);
            tally.ordered += u32::from(share.ordered);
        }
        self.touch(id);
    }

    fn advance_cursor(&mut self, foreach: InstanceId) {
        let children = &self.get(foreach).children;
        let from = self.tally(foreach).cursor;
        let next = children
            .iter()
            .skip(from as usize)
            .position(|item| self.tree.stage(*item, Phase::Do) == Stage::Idle)
            .unwrap_or(children.len());
        let next = from.saturating_add(u32::try_from(next).unwrap_or(u32::MAX));
        self.tally_mut(foreach).cursor = next;
    }

    /// Whether a container starts nothing more, because of what failed inside.
    pub(super) fn is_failing(&self, container: InstanceId) -> bool {
        let tally = self.tally(container);
        tally.broken > 0 || tally.failed > self.budget(container)
    }

    /// How many items of a foreach may fail.
    pub(super) fn budget(&self, foreach: InstanceId) -> u32 {
        let items = self.get(foreach).children.len();
        let budget = self
            .def(foreach)
            .and_then(|node| node.foreach.as_ref())
            .map_or(0, |foreach| foreach.max_failures.of(items));
        u32::try_from(budget).unwrap_or(u32::MAX)
    }

    /// Compares every count with what the nodes contribute, and the agenda with what is due.
    ///
    /// # Errors
    /// The first that differs: a defect of the engine.
    pub fn check(&self) -> Result<(), String> {
        for id in self.tree.ids() {
            self.check_node(id)?;
            self.check_lines(id)?;
        }
        for (scope, state) in &self.scopes {
            let limited = self.limit_of(*scope).is_some();
            let inside = self.tree.inside(*scope).into_iter();
            let busy = inside.filter(|id| limited && self.share(*id).busy).count();
            let watched = self.watching.contains(scope);
            if state.watch.busy as usize != busy || watched != (busy > 0) {
                let path = &self.get(*scope).path;
                return Err(format!(
                    "{path:?}: {} steps are watched ({watched}), and {busy} run",
                    state.watch.busy
                ));
            }
        }
        Ok(())
    }

    fn check_node(&self, id: InstanceId) -> Result<(), String> {
        let tally = self.tally(id);
        if tally.counted != self.share(id) && self.is_listed(id) {
            let (path, counted, share) = (&self.get(id).path, tally.counted, self.share(id));
            return Err(format!(
                "{path:?} is counted as {counted:?}, and is {share:?}"
            ));
        }
        let children: Vec<(InstanceId, Share)> = self
            .get(id)
            .children
            .iter()
            .map(|child| (*child, self.share(*child)))
            .collect();
        let count = |of: &dyn Fn(InstanceId, Share) -> bool| {
            let count = children.iter().filter(|(id, share)| of(*id, *share));
            u32::try_from(count.count()).unwrap_or(u32::MAX)
        };
        // What is inside a child, and the child itself.
        let deep = |of: &dyn Fn(Share) -> bool, below: &dyn Fn(&Tally) -> u32| {
            let all = children.iter();
            all.map(|(id, share)| u32::from(of(*share)) + below(self.tally(*id)))
                .sum::<u32>()
        };
        let is_open = |id: InstanceId, share: Share| {
            !share.passed && !share.failed_item && !self.tree.is_finally_step(id)
        };
        let needs = self.tree.needs(id).filter(|n| !self.share(*n).passed);
        let needs = u32::try_from(needs.count()).unwrap_or(u32::MAX);
        let active = deep(&|share| share.active, &|tally| tally.active);
        let undoing = deep(&|share| share.undoing, &|tally| tally.undoing);
        let sums = [
            ("needs", tally.needs, needs),
            ("open", tally.open, count(&is_open)),
            ("broken", tally.broken, count(&|_, share| share.broken)),
            ("failed", tally.failed, count(&|_, share| share.failed_item)),
            ("idle", tally.idle, count(&|_, share| share.idle)),
            ("ordered", tally.ordered, count(&|_, share| share.ordered)),
            ("in use", tally.in_use, count(&|_, share| share.in_use)),
            ("active", tally.active, active),
            ("undoing", tally.undoing, undoing),
        ];
        match sums.iter().find(|(_, kept, real)| kept != real) {
            Some((what, kept, real)) => {
                let path = &self.get(id).path;
                Err(format!("{path:?}: {what} is {kept}, and should be {real}"))
            }
            None => Ok(()),
        }
    }
}
