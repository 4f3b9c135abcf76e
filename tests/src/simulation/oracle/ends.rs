//! How an execution ends, and what its end leads to.
use super::{
    Check, Oracle, Shape,
    record::{ScopePhase, Stand},
    standing::Reaction,
    within, wrong,
};
use crate::simulation::world::{Slot, World};
use windlass_engine::{
    graph::Undo,
    machine::{Failed, SettledBy, SkipCause, Skipped, Succeeded},
    step::{Certainty, Phase},
};

impl Oracle {
    pub(super) fn on_succeeded(&mut self, e: &Succeeded, world: &World) -> Check {
        let path: &str = &e.node;
        let stand = self.stand(path);
        if !matches!(stand, Stand::Running | Stand::Doubt) {
            return wrong("P1", format!("{path} succeeds and is {stand:?}"));
        }
        match self.shape(path) {
            Shape::Step => {
                if self.kind(path) == "sim.approval"
                    && (e.by != SettledBy::Step || self.rec(path).forward.approved != Some(true))
                {
                    return wrong(
                        "P12",
                        format!("{path} succeeds, and no decision approved it"),
                    );
                }
                if self.writes(path) && e.by != SettledBy::Operator {
                    let there = world
                        .effects
                        .get(path)
                        .is_some_and(|effect| effect.full || effect.by_hand);
                    let did = world.did(&e.node, Slot::Do, e.attempt);
                    if !there || !did {
                        return wrong(
                            "P6",
                            format!("{path} says succeeded, and its effect is not there"),
                        );
                    }
                }
                let effect =
                    self.writes(path) || matches!(self.undo_of(path), Some(Undo::Steps(_)));
                let rec = self.rec_mut(path);
                rec.effect |= effect;
                rec.by_hand = false;
            }
            Shape::Group | Shape::Foreach => self.check_inside(path)?,
            Shape::Call => {
                self.check_scope_end(path)?;
                self.check_forward_done(path)?;
                self.scope_mut(path).phase = ScopePhase::Over;
            }
            Shape::Root => {}
        }
        let rec = self.rec_mut(path);
        rec.forward.stand = Stand::Succeeded;
        rec.reopened = false;
        Ok(())
    }

    pub(super) fn on_failed(&mut self, e: &Failed) -> Check {
        let path: &str = &e.node;
        let shape = self.shape(path);
        if e.phase == Phase::Undo {
            let acted = match e.failure.certainty {
                Certainty::NoEffect => false,
                Certainty::Partial => true,
                Certainty::Unknown => e.is_final || self.undo_is_repeatable(path),
            };
            let rec = self.rec_mut(path);
            rec.undo.acted |= acted;
            rec.undo.failure = Some(e.failure.clone());
            if e.is_final {
                rec.undo.stand = Stand::Failed;
                rec.undo_failed = true;
            }
            return Ok(());
        }
        let stand = self.stand(path);
        if stand.is_settled() {
            return wrong("P1", format!("{path} fails and is {stand:?}"));
        }
        let acts = self.writes(path) || matches!(self.undo_of(path), Some(Undo::Steps(_)));
        let certainty = e.failure.certainty;
        let repeatable = self.is_repeatable(path);
        let undone = self.scope_mut_ending(path);
        let rec = self.rec_mut(path);
        rec.forward.failure = Some(e.failure.clone());
        if shape == Shape::Step && acts {
            rec.effect |= certainty == Certainty::Partial
                || certainty == Certainty::Unknown && (e.is_final || repeatable);
        }
        if !e.is_final {
            return Ok(());
        }
        rec.forward.stand = Stand::Failed;
        rec.outer_end = shape == Shape::Call && undone;
        rec.reopened = false;
        if matches!(shape, Shape::Group | Shape::Foreach) {
            // It takes up nothing more: what is open in it ends with it.
            let scope = self.scope_of(path);
            let open: Vec<super::Path> = self
                .recs
                .iter()
                .filter(|(at, rec)| within(at, path) && rec.forward.stand == Stand::Running)
                .map(|(at, _)| at.clone())
                .filter(|at| matches!(self.shape(at), Shape::Group | Shape::Foreach))
                .filter(|at| self.scope_of(at) == scope)
                .collect();
            for at in open {
                self.rec_mut(&at).forward.stand = Stand::Ended;
            }
        }
        if shape != Shape::Step {
            if let Some(active) = self.active_in(path) {
                return wrong(
                    "P9",
                    format!(
                        "{path} fails while {active} inside is {:?}",
                        self.stand(&active)
                    ),
                );
            }
            let failed_inside = self.recs.iter().any(|(at, rec)| {
                **at != *path && within(at, path) && rec.forward.stand == Stand::Failed
            });
            self.rec_mut(path).by_itself = !failed_inside;
        }
        if shape == Shape::Call && self.scopes.contains_key(path) && e.attempt > 0 {
            if !matches!(stand, Stand::Pending | Stand::Ordered) {
                self.check_scope_end(path)?;
            }
            self.scope_mut(path).phase = ScopePhase::Over;
        }
        let mut reaction = self.reaction(path);
        if reaction == Reaction::Ask && self.cancelled.is_some() {
            // A run that was cancelled waits for no answers.
            reaction = Reaction::End { undo: false };
        }
        match reaction {
            // It fails since the scope around it ends, and is no reason of its own.
            _ if self.rec(path).outer_end => {}
            // What a person ordered for the run comes first.
            Reaction::End { .. } if self.undo_ordered && !self.crosses_finally(path, "") => {}
            Reaction::End { undo } => {
                let scope = self.scope_of(path);
                self.end(&scope, undo, false);
            }
            Reaction::Tolerate { .. } if self.is_finally_step(path) => {
                let scope = self.scope_of(path);
                self.scope_mut(&scope).finally_failed.push(e.node.clone());
            }
            Reaction::Tolerate { .. } | Reaction::Break | Reaction::Count | Reaction::Ask => {}
        }
        Ok(())
    }

    /// Whether a call ends since the scope around it does.
    pub(super) fn scope_mut_ending(&self, path: &str) -> bool {
        self.scopes
            .get(path)
            .and_then(|scope| scope.ending)
            .is_some_and(|ending| ending.outer)
    }

    pub(super) fn on_skipped(&mut self, e: &Skipped) -> Check {
        let path: &str = &e.node;
        let stand = self.stand(path);
        match &e.why {
            SkipCause::When(_) => {
                self.check_needs(path)?;
                self.rec_mut(path).forward.stand = Stand::Skipped;
            }
            SkipCause::Ended => {
                if self.goes_forward(path).is_ok() {
                    return wrong("P9", format!("{path} is ended, and its scope goes forward"));
                }
                if !stand.is_active() && stand != Stand::Ordered {
                    return wrong("P1", format!("{path} is ended and is {stand:?}"));
                }
                // What slept, or was lost, after its act leaves an effect behind.
                let forward = &self.rec(path).forward;
                let may_have = match stand {
                    Stand::Asleep | Stand::Asking => true,
                    Stand::Running => !self.marks(path) || forward.marked,
                    _ => false,
                };
                let acted = may_have && self.writes(path);
                let rec = self.rec_mut(path);
                rec.forward.stand = Stand::Ended;
                rec.effect |= acted;
            }
            SkipCause::Operator { .. } => {
                if !self.is_skippable(path) {
                    return wrong("P12", format!("{path} is skipped, and cannot be"));
                }
                if let Some(left) = self.unskippable_left(path) {
                    return wrong(
                        "P12",
                        format!("{path} is skipped, and {left} in it cannot be"),
                    );
                }
                match stand {
                    Stand::Failed => {
                        self.rec_mut(path).forward.stand = Stand::Skipped;
                        self.reopen(path, false);
                    }
                    // An item that is open again waits for a slot.
                    Stand::Running if self.is_pending_container(path) => {}
                    Stand::Running | Stand::Doubt | Stand::Succeeded | Stand::Skipped => {
                        return wrong("P2", format!("{path} is skipped and is {stand:?}"));
                    }
                    Stand::Pending
                    | Stand::Ordered
                    | Stand::Backoff
                    | Stand::Gated
                    | Stand::Shut
                    | Stand::Asleep
                    | Stand::Asking
                    | Stand::Ended => {}
                }
                // What slept after its act leaves an effect behind.
                let acted = matches!(stand, Stand::Asleep | Stand::Asking) && self.writes(path);
                let rec = self.rec_mut(path);
                rec.effect |= acted;
                rec.forward.stand = Stand::Skipped;
                rec.outer_end = false;
                rec.asks = false;
                if stand == Stand::Failed {
                    self.ask_about_others(path);
                }
            }
            SkipCause::NoEffect | SkipCause::Blocked => {
                return wrong("P1", format!("{path} is skipped forward for {:?}", e.why));
            }
        }
        Ok(())
    }
}
