//! The end of a scope and of the run.
use super::{
    Check, Oracle, Path, Shape,
    record::{ScopePhase, Stand},
    standing::Reaction,
    within, wrong,
};
use crate::simulation::world::World;
use windlass_engine::{
    graph::{Body, OnFailure, Undo},
    machine::{Finished, Outcome, Overran},
};

impl Oracle {
    /// Everything directly inside a container has settled as its success says.
    pub(super) fn check_inside(&self, path: &str) -> Check {
        if self.shape(path) == Shape::Foreach {
            if self.rec(path).items.is_none() {
                return wrong("P6", format!("{path} succeeds without its items"));
            }
            let (failed, budget) = (self.failed_items(path), self.budget(path));
            if failed > budget {
                return wrong(
                    "P4",
                    format!("{path} succeeds, {failed} items failed and {budget} may"),
                );
            }
            for item in self.inside(path) {
                if !self.stand(&item).is_settled()
                    || self.undo_stand(&item) == Stand::Succeeded && !self.is_scratch(&item)
                {
                    return wrong(
                        "P6",
                        format!(
                            "{path} succeeds, and its item {item} is {:?}",
                            self.stand(&item)
                        ),
                    );
                }
            }
            return Ok(());
        }
        for inner in self.inside(path) {
            if !self.passed(&inner) {
                return wrong(
                    "P6",
                    format!(
                        "{path} succeeds, and {inner} inside has not passed: it is {:?}",
                        self.stand(&inner)
                    ),
                );
            }
        }
        Ok(())
    }

    /// Everything of a scope that goes well has passed, and what is inside it too.
    pub(super) fn check_forward_done(&self, scope: &str) -> Check {
        let mut stack = vec![Path::from(scope)];
        while let Some(at) = stack.pop() {
            self.check_inside(&at)?;
            for inner in self.inside(&at) {
                if self.stand(&inner) == Stand::Succeeded && self.shape(&inner) != Shape::Step {
                    stack.push(inner);
                }
            }
        }
        Ok(())
    }

    /// The time of a run, or of a playbook that is called, is over.
    pub(super) fn on_overran(&mut self, e: &Overran) -> Check {
        let call = self.node(&e.scope).map(|node| &node.body);
        let (limit, policy) = match call {
            Some(Body::Call(call)) => (call.max_duration, call.on_failure),
            Some(Body::Step(_) | Body::Group { .. }) => (None, OnFailure::Stop),
            None => (self.graph.policy.max_duration, self.graph.policy.on_failure),
        };
        if limit != Some(e.limit) || self.active_in(&e.scope).is_none() {
            return wrong(
                "P9",
                format!(
                    "{:?} overruns, and has no such limit, or nothing runs",
                    e.scope
                ),
            );
        }
        let scope = self.scope(&e.scope);
        if scope.phase != ScopePhase::Forward {
            return wrong(
                "P9",
                format!("{:?} overruns and is {:?}", e.scope, scope.phase),
            );
        }
        self.end(&e.scope, policy == OnFailure::Undo, false);
        Ok(())
    }

    fn has_soft_failure(&self, scope: &str) -> bool {
        self.recs.iter().any(|(at, rec)| {
            rec.forward.stand == Stand::Failed
                && *self.scope_of(at) == *scope
                && !self.in_finally(at)
                && self.reaction(at) == Reaction::Tolerate { soft: true }
        })
    }

    pub(super) fn on_finally(&mut self, scope: &str, outcome: Outcome, world: &mut World) -> Check {
        let state = self.scope(scope);
        if matches!(state.phase, ScopePhase::Finally | ScopePhase::Over) {
            return wrong(
                "P1",
                format!("{scope:?} starts its finally and is {:?}", state.phase),
            );
        }
        if let Some(active) = self.active_in(scope) {
            return wrong(
                "P9",
                format!(
                    "{scope:?} starts its finally while {active} is {:?}",
                    self.stand(&active)
                ),
            );
        }
        if state.ending.is_none() && state.phase == ScopePhase::Forward {
            self.check_forward_done(scope)?;
        }
        self.check_undone(scope)?;
        self.check_outcome(scope, outcome, world)?;
        let again = self
            .finally_of(scope)
            .iter()
            .any(|step| self.stand(step) == Stand::Ordered);
        self.overtake(scope);
        let state = self.scope_mut(scope);
        state.phase = ScopePhase::Finally;
        state.outcome = Some(outcome);
        if again {
            return Ok(());
        }
        state.finally_failed.clear();
        state.turns_back = false;
        for step in self.finally_of(scope) {
            for (at, rec) in &mut self.recs {
                if within(at, &step) {
                    // Each round is a life of its own.
                    world.effects.remove(at);
                    rec.order = 0;
                    rec.reopened = false;
                }
            }
        }
        Ok(())
    }

    /// A scope turns away from its finally, which runs again later.
    pub(super) fn finally_runs_again(&mut self, scope: &str) {
        if !matches!(
            self.scope(scope).phase,
            ScopePhase::Finally | ScopePhase::Over
        ) {
            return;
        }
        for step in self.finally_of(scope) {
            for (at, rec) in &mut self.recs {
                if within(at, &step) {
                    rec.forward.stand = Stand::Pending;
                    rec.forward.started = false;
                    rec.effect = false;
                    rec.undo.stand = Stand::Pending;
                    rec.undone_in = None;
                    rec.outer_end = false;
                    rec.asks = false;
                }
            }
        }
    }

    fn check_outcome(&self, scope: &str, outcome: Outcome, world: &World) -> Check {
        let ending = self.scope(scope).ending;
        // A cancel that comes while it cleans up finds nothing of it left to run forward.
        let forward_is_over = self.scope(scope).phase == ScopePhase::Cleaning;
        match outcome {
            Outcome::Succeeded | Outcome::Failed => {
                if ending.is_some() && !forward_is_over {
                    return wrong(
                        "P6",
                        format!("{scope:?} was ended, and its outcome is {outcome:?}"),
                    );
                }
                self.check_forward_done(scope)?;
                let soft = self.has_soft_failure(scope);
                if soft && outcome == Outcome::Succeeded {
                    return wrong(
                        "P6",
                        format!(
                            "{scope:?} succeeded, and a failure that `continue` let pass is there"
                        ),
                    );
                }
                self.check_effects(scope, world)
            }
            Outcome::Compensated => {
                let undid = self.scope(scope).phase == ScopePhase::Undoing;
                if !undid && !ending.is_some_and(|ending| ending.undo) {
                    return wrong(
                        "P7",
                        format!("{scope:?} is compensated, and nothing ended it with undo"),
                    );
                }
                if scope.is_empty() && self.cancelled.is_some() {
                    return wrong(
                        "P7",
                        "the run was cancelled, and its outcome is compensated",
                    );
                }
                self.check_nothing_left(scope, world)
            }
            Outcome::Cancelled => match ending {
                Some(ending) if ending.cancelled && ending.undo => {
                    self.check_nothing_left(scope, world)
                }
                Some(ending) if ending.cancelled => Ok(()),
                // In a `finally` that a person cut short.
                _ if self.cancelled.is_some() => Ok(()),
                _ => wrong(
                    "P7",
                    format!("{scope:?} is cancelled, and nobody cancelled it"),
                ),
            },
            Outcome::Stopped => {
                if ending.is_none() && self.scope(scope).phase == ScopePhase::Forward {
                    return wrong("P6", format!("{scope:?} is stopped, and nothing ended it"));
                }
                Ok(())
            }
        }
    }

    /// What says succeeded is there.
    fn check_effects(&self, scope: &str, world: &World) -> Check {
        for (at, rec) in &self.recs {
            if within(at, scope)
                && rec.forward.stand == Stand::Succeeded
                && rec.undo.stand != Stand::Succeeded
                && self.shape(at) == Shape::Step
                && self.writes(at)
                && !self.is_scratch(at)
                && self.reached(at, scope)
                && !world
                    .effects
                    .get(at)
                    .is_some_and(|effect| effect.full || effect.by_hand)
            {
                return wrong(
                    "P6",
                    format!("{scope:?} succeeded, and the effect of {at} is not there"),
                );
            }
        }
        Ok(())
    }

    /// Whether everything around a node, up to a scope, succeeded: else it may have been undone by its own scope.
    fn reached(&self, path: &str, scope: &str) -> bool {
        let mut at = path;
        while let Some(up) = super::parent(at) {
            if up == scope {
                return true;
            }
            if self.stand(up) != Stand::Succeeded {
                return false;
            }
            at = up;
        }
        true
    }

    /// No effect is left but those that nothing undoes.
    fn check_nothing_left(&self, scope: &str, world: &World) -> Check {
        for step in self.steps_in(scope) {
            if world.effects.get(&step).is_some_and(|effect| effect.full)
                && !matches!(self.undo_of(&step), Some(Undo::None))
                && !self.rec(&step).by_hand
                && !self.may_pass_over(&step)
            {
                let ended = match self.stand(&step) {
                    Stand::Ended => ", which was ended after its act,",
                    Stand::Skipped => ", which was skipped after its act,",
                    _ => "",
                };
                return wrong(
                    "P7",
                    format!(
                        "{scope:?} says that it is undone, and the effect of {step}{ended} is left"
                    ),
                );
            }
        }
        Ok(())
    }

    /// A call, or the run, comes to its end: its finally has settled.
    pub(super) fn check_scope_end(&self, scope: &str) -> Check {
        let state = self.scope(scope);
        if state.phase != ScopePhase::Finally {
            return wrong("P9", format!("{scope:?} ends and is {:?}", state.phase));
        }
        for step in self.finally_of(scope) {
            let stand = self.stand(&step);
            if !stand.is_settled() && stand != Stand::Ended {
                return wrong(
                    "P9",
                    format!("{scope:?} ends, and {step} of its finally is {stand:?}"),
                );
            }
        }
        Ok(())
    }

    pub(super) fn on_finished(&mut self, e: &Finished, world: &World) -> Check {
        self.finished = Some(e.outcome);
        self.paused = false;
        // Who closes a run leaves it as it is, with its doubts.
        if self
            .command
            .as_ref()
            .is_some_and(crate::simulation::adapter::is_close)
        {
            self.scope_mut("").phase = ScopePhase::Over;
            return Ok(());
        }
        for (at, rec) in &self.recs {
            let container = self.shape(at) != Shape::Step;
            for (name, exec) in [("forward", &rec.forward), ("undo", &rec.undo)] {
                if exec.stand.is_active() && !(container && name == "forward") {
                    return wrong(
                        "P11",
                        format!("the run ends, and {at} ({name}) is {:?}", exec.stand),
                    );
                }
            }
        }
        self.check_scope_end("")?;
        let said = self.scope("").outcome;
        if said != Some(e.outcome) {
            return wrong(
                "P9",
                format!(
                    "the outcome was {said:?} when finally began and is {:?} at the end",
                    e.outcome
                ),
            );
        }
        if matches!(e.outcome, Outcome::Succeeded | Outcome::Failed) {
            self.check_forward_done("")?;
            self.check_effects("", world)?;
        }
        if e.outcome == Outcome::Compensated {
            self.check_nothing_left("", world)?;
        }
        self.scope_mut("").phase = ScopePhase::Over;
        Ok(())
    }
}
