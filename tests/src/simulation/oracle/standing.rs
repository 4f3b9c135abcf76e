//! What follows from where nodes stand: who has passed, who holds the run, what a failure leads to.
use super::{
    Oracle, Path, Shape, is_item, parent,
    record::{Ending, ScopePhase, Stand},
    within,
};
use windlass_engine::{
    graph::{Action, Body, OnFailure, Undo},
    step::{Effect, Phase, Redo},
};

/// What a failure leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    Tolerate { soft: bool },
    Break,
    Count,
    End { undo: bool },
    Ask,
}

impl Oracle {
    pub(super) fn reaction(&self, path: &str) -> Reaction {
        let of = |policy: OnFailure, own: bool| match policy {
            OnFailure::Continue if own => Reaction::Tolerate { soft: true },
            OnFailure::Ignore if own => Reaction::Tolerate { soft: false },
            OnFailure::Continue | OnFailure::Ignore => Reaction::Break,
            OnFailure::Undo => Reaction::End { undo: true },
            OnFailure::Stop => Reaction::End { undo: false },
            OnFailure::Pause => Reaction::Ask,
        };
        if self.is_finally_step(path) {
            return Reaction::Tolerate { soft: false };
        }
        if is_item(path) {
            return Reaction::Count;
        }
        let own = self.node(path).and_then(|node| node.on_failure);
        if self.in_finally(path) {
            // Inside a `finally` only what tolerates counts: the rest breaks the step of `finally` around it.
            return match own {
                Some(OnFailure::Continue) => Reaction::Tolerate { soft: true },
                Some(OnFailure::Ignore) => Reaction::Tolerate { soft: false },
                Some(OnFailure::Undo | OnFailure::Stop | OnFailure::Pause) | None => {
                    Reaction::Break
                }
            };
        }
        if let Some(policy) = own {
            return of(policy, true);
        }
        let mut at = path;
        while let Some(up) = parent(at) {
            match self.shape(up) {
                Shape::Root => return of(self.graph.policy.on_failure, at == path),
                Shape::Call => {
                    let Some(Body::Call(call)) = self.node(up).map(|node| &node.body) else {
                        return Reaction::Break;
                    };
                    return of(call.on_failure, at == path);
                }
                Shape::Group if is_item(up) => return Reaction::Break,
                Shape::Group => {
                    if let Some(policy) = self.node(up).and_then(|node| node.on_failure) {
                        return of(policy, false);
                    }
                }
                Shape::Foreach | Shape::Step => return Reaction::Break,
            }
            at = up;
        }
        Reaction::Break
    }

    pub(super) fn passed(&self, path: &str) -> bool {
        let rec = self.rec(path);
        match rec.forward.stand {
            Stand::Succeeded => {
                (rec.undo.stand != Stand::Succeeded || self.is_scratch(path))
                    && self.needs(path).iter().all(|need| self.passed(need))
            }
            Stand::Skipped => self.needs(path).iter().all(|need| self.passed(need)),
            Stand::Failed => matches!(self.reaction(path), Reaction::Tolerate { .. }),
            _ => false,
        }
    }

    /// Whether something below (or the node itself) is under way.
    pub(super) fn active_in(&self, path: &str) -> Option<Path> {
        self.recs
            .iter()
            .find(|(at, rec)| {
                within(at, path)
                    && rec.forward.stand.is_active()
                    && self.shape(at) == Shape::Step
                    && !(self.in_finally(at) && *self.scope_of(at) == *path)
            })
            .map(|(at, _)| at.clone())
    }

    /// Whether the scope of a node, and all around it, go forward.
    pub(super) fn goes_forward(&self, path: &str) -> Result<(), String> {
        let mut inner = path.to_owned();
        for scope in self.scopes_around(path) {
            let state = self.scope(&scope);
            if self.in_finally(&inner) {
                if state.phase != ScopePhase::Finally || state.turns_back {
                    return Err(format!(
                        "{inner} is in the finally of {scope:?}, which is {:?}",
                        state.phase
                    ));
                }
                // It runs however the scopes further out end.
                return Ok(());
            } else if state.phase != ScopePhase::Forward || state.ending.is_some() {
                return Err(format!(
                    "the scope {scope:?} is {:?}, ending {:?}",
                    state.phase, state.ending
                ));
            }
            inner = scope.to_string();
        }
        Ok(())
    }

    /// Failures that ask a person, as long as their scope goes forward.
    pub(super) fn asking(&self) -> Vec<Path> {
        self.recs
            .iter()
            .filter(|(_, rec)| rec.forward.stand == Stand::Failed)
            .filter(|_| self.cancelled.is_none())
            .filter(|(path, _)| {
                // What is in a container that has settled is answered with it.
                let mut around = std::iter::successors(parent(path), |at| parent(at));
                !around.any(|at| self.stand(at).is_settled())
            })
            .filter(|(path, rec)| rec.asks || self.reaction(path) == Reaction::Ask)
            .filter(|(path, _)| self.goes_forward(path).is_ok())
            .map(|(path, _)| path.clone())
            .collect()
    }

    pub(super) fn failed_items(&self, foreach: &str) -> usize {
        self.inside(foreach)
            .iter()
            .filter(|item| self.stand(item) == Stand::Failed && !self.waits_for_answer(item))
            .count()
    }

    /// A run that was cancelled waits for no answers.
    fn waits_for_answer(&self, path: &str) -> bool {
        self.rec(path).asks && self.cancelled.is_none()
    }

    pub(super) fn budget(&self, foreach: &str) -> usize {
        let items = self.rec(foreach).items.unwrap_or(0);
        self.node(foreach)
            .and_then(|node| node.foreach.as_ref())
            .map_or(0, |def| def.max_failures.of(items))
    }

    /// Why nothing new may start inside a container.
    pub(super) fn breaks(&self, container: &str) -> Option<String> {
        match self.shape(container) {
            Shape::Foreach => {
                let (failed, budget) = (self.failed_items(container), self.budget(container));
                (failed > budget)
                    .then(|| format!("{failed} items of {container} failed, {budget} may"))
            }
            Shape::Group => self
                .inside(container)
                .iter()
                .find(|inner| {
                    self.stand(inner) == Stand::Failed
                        && self.reaction(inner) == Reaction::Break
                        && !self.waits_for_answer(inner)
                })
                .map(|inner| format!("{inner} failed and breaks {container}")),
            Shape::Root | Shape::Call | Shape::Step => None,
        }
    }

    /// Whether `cleanup: always` holds for it when a scope cleans up: what a scope inside declares is that scope's own.
    pub(super) fn is_scratch_of(&self, path: &str, scope: &str) -> bool {
        let mut at = Some(path);
        while let Some(current) = at.filter(|at| *at != scope) {
            if *self.scope_of(current) == *scope
                && self.node(current).is_some_and(|node| node.cleanup)
            {
                return true;
            }
            at = parent(current);
        }
        false
    }

    /// Whether it is undone though what depends on it stays, as a scope compensates itself.
    pub(super) fn is_scratch_within(&self, path: &str, scope: &str) -> bool {
        let mut at = Some(path);
        while let Some(current) = at.filter(|at| *at != scope) {
            if self.node(current).is_some_and(|node| node.cleanup) {
                return true;
            }
            at = parent(current);
        }
        false
    }

    /// Whether it is undone though what depends on it stays.
    pub(super) fn is_scratch(&self, path: &str) -> bool {
        let mut at = Some(path);
        while let Some(current) = at {
            if self.node(current).is_some_and(|node| node.cleanup) {
                return true;
            }
            at = parent(current);
        }
        false
    }

    pub(super) fn undo_of(&self, path: &str) -> Option<&Undo> {
        match self.node(path).map(|node| &node.body) {
            Some(Body::Step(step)) => Some(&step.undo),
            Some(Body::Group { .. } | Body::Call(_)) | None => None,
        }
    }

    pub(super) fn kind(&self, path: &str) -> &str {
        match self.node(path).map(|node| &node.body) {
            Some(Body::Step(step)) => &step.action.kind,
            Some(Body::Group { .. } | Body::Call(_)) | None => "",
        }
    }

    pub(super) fn writes(&self, path: &str) -> bool {
        match self.node(path).map(|node| &node.body) {
            Some(Body::Step(step)) => step.action.traits.effect != Effect::ReadOnly,
            Some(Body::Group { .. } | Body::Call(_)) | None => false,
        }
    }

    pub(super) fn captures(&self, path: &str) -> bool {
        matches!(
            self.node(path).map(|node| &node.body),
            Some(Body::Step(step)) if step.action.traits.captures || step.action.traits.marks
        )
    }

    pub(super) fn marks(&self, path: &str) -> bool {
        matches!(
            self.node(path).map(|node| &node.body),
            Some(Body::Step(step)) if step.action.traits.marks
        )
    }

    /// A container in an item of a loop that is open again waits for a slot with it, and one in a container that was ordered waits for
    /// that: it is pending until then.
    pub(super) fn is_pending_container(&self, path: &str) -> bool {
        let mut around = std::iter::successors(Some(path), |at| parent(at));
        self.shape(path) != Shape::Step && (around.any(is_item) || self.rec(path).reopened)
    }

    pub(super) fn is_repeatable(&self, path: &str) -> bool {
        matches!(
            self.node(path).map(|node| &node.body),
            Some(Body::Step(step)) if step.action.traits.redo == Redo::Repeatable
        )
    }

    /// What the undo of a step does next, by an action of its own.
    fn undo_action(&self, path: &str) -> Option<&Action> {
        match self.undo_of(path)? {
            Undo::Steps(actions) => actions.get(self.rec(path).undo.part as usize),
            Undo::Auto { .. } | Undo::None | Undo::Impossible => None,
        }
    }

    /// Whether its undo says when it is about to act: one that only restores does not.
    pub(super) fn undo_marks(&self, path: &str) -> bool {
        let own = self.undo_action(path);
        own.is_some_and(|action| action.traits.marks)
    }

    /// An undo that restores what the step read before it acted is as good twice as once.
    pub(super) fn undo_is_repeatable(&self, path: &str) -> bool {
        let own = self.undo_action(path);
        own.is_none_or(|action| {
            action.traits.redo == Redo::Repeatable || action.traits.effect == Effect::ReadOnly
        })
    }

    /// Whether neither the kind of what it does in a phase nor a probe can find out if it happened.
    pub(super) fn only_a_person_can_say(&self, path: &str, phase: Phase) -> bool {
        let action = match (phase, self.node(path).map(|node| &node.body)) {
            (Phase::Do, Some(Body::Step(step))) => Some(&step.action),
            (Phase::Do, _) => None,
            (Phase::Undo, _) => self.undo_action(path),
        };
        action.is_some_and(|action| {
            let traits = action.traits;
            traits.redo == Redo::AskOperator
                && traits.effect != Effect::ReadOnly
                && action.probe.is_none()
        })
    }

    /// Whether a group, call or loop holds an approval or a check that may not be passed over.
    pub(super) fn holds_unskippable(&self, path: &str) -> bool {
        let Some(def) = self.def(path).filter(|_| self.shape(path) != Shape::Step) else {
            return false;
        };
        self.graph
            .inside(def)
            .into_iter()
            .any(|node| matches!(&self.graph.node(node).body, Body::Step(step) if !step.skippable))
    }

    /// One that has not passed.
    pub(super) fn unskippable_left(&self, path: &str) -> Option<Path> {
        let mut inside = self
            .recs
            .iter()
            .filter(|(at, _)| within(at, path) && ***at != *path);
        let left = inside.find(|(at, rec)| {
            let passed = matches!(rec.forward.stand, Stand::Succeeded | Stand::Skipped);
            self.shape(at) == Shape::Step
                && !self.is_skippable(at)
                && !passed
                && !self.in_finally(at)
        });
        left.map(|(at, _)| at.clone())
    }

    pub(super) fn is_skippable(&self, path: &str) -> bool {
        match self.node(path).map(|node| &node.body) {
            Some(Body::Step(step)) => step.skippable,
            Some(Body::Group { .. } | Body::Call(_)) | None => true,
        }
    }

    /// Whether a `finally` lies between a scope and one around it.
    pub(super) fn crosses_finally(&self, path: &str, scope: &str) -> bool {
        let mut at = Some(path);
        while let Some(current) = at.filter(|at| *at != scope) {
            if self.is_finally_step(current) {
                return true;
            }
            at = parent(current);
        }
        false
    }

    /// A scope ends, and those that are open inside it.
    pub(super) fn end(&mut self, scope: &str, undo: bool, cancelled: bool) {
        // What is called from a `finally` does not end with the scope around that.
        let apart: Vec<Path> = self
            .scopes
            .keys()
            .filter(|path| self.crosses_finally(path, scope))
            .cloned()
            .collect();
        for (path, state) in &mut self.scopes {
            let is_apart = apart.contains(path);
            if is_apart || !within(path, scope) || state.phase != ScopePhase::Forward {
                continue;
            }
            let outer = **path != *scope;
            let ending = Ending {
                undo,
                own: undo,
                cancelled,
                outer,
            };
            state.ending = Some(match state.ending {
                // The first reason counts, but for a stop, which nothing that only failed takes back.
                Some(before) if before.cancelled && !cancelled => before,
                Some(before) if !cancelled => Ending {
                    undo: before.undo && undo,
                    own: match (before.outer, outer) {
                        (false, false) => before.own && undo,
                        (false, true) => before.own,
                        (true, _) => undo,
                    },
                    // One that has a reason of its own, too, did not end for the scope around it alone.
                    outer: before.outer && ending.outer,
                    ..before
                },
                Some(_) | None => ending,
            });
        }
    }
}
