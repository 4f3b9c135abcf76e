//! Compensation and clean-up: what is undone, when, and in which order.
use super::{
    Check, Oracle, Path, Shape, is_item, parent,
    record::{ScopePhase, Stand},
    within, wrong,
};
use crate::simulation::world::World;
use windlass_engine::{
    graph::Undo,
    machine::{SkipCause, Skipped, StartCause, Started, Succeeded},
    step::Phase,
};

impl Oracle {
    /// The scope whose compensation or clean-up a node is part of.
    pub(super) fn undoing_scope(&self, path: &str) -> Option<Path> {
        let mut inner = path.to_owned();
        for scope in self.scopes_around(path) {
            if self.in_finally(&inner) {
                return None;
            }
            match self.scope(&scope).phase {
                ScopePhase::Undoing => return Some(scope),
                ScopePhase::Cleaning if self.is_scratch_of(path, &scope) => return Some(scope),
                ScopePhase::Forward
                | ScopePhase::Cleaning
                | ScopePhase::Finally
                | ScopePhase::Over => {}
            }
            inner = scope.to_string();
        }
        None
    }

    /// What a person did by hand has no capture for the kind's own undo.
    fn lacks_capture(&self, path: &str) -> bool {
        self.rec(path).by_hand
            && matches!(self.undo_of(path), Some(Undo::Auto { .. }))
            && self.captures(path)
    }

    fn stays(&self, path: &str) -> bool {
        let rec = self.rec(path);
        rec.effect
            && (rec.left
                || matches!(self.undo_of(path), Some(Undo::Impossible))
                || self.lacks_capture(path))
    }

    /// What depends on a node, at its own level and at those around it up to a scope.
    fn all_dependents(&self, path: &str, scope: &str) -> Vec<Path> {
        let mut at = path.to_owned();
        let mut all = Vec::new();
        while at != scope {
            all.extend(self.dependents(&at));
            match parent(&at) {
                Some(up) => at = up.to_owned(),
                None => break,
            }
        }
        all
    }

    pub(super) fn is_blocked(&self, path: &str, scope: &str) -> Option<Path> {
        self.all_dependents(path, scope)
            .iter()
            .flat_map(|dependent| self.steps_in(dependent))
            .find(|step| self.stays(step))
    }

    /// Whether a step has an effect whose undo is still to come.
    fn is_to_undo(&self, path: &str) -> bool {
        let rec = self.rec(path);
        // What was ended may have acted or not: whether its effect is left is looked up in the world.
        rec.effect
            && !rec.left
            && rec.forward.stand != Stand::Ended
            && !self.lacks_capture(path)
            && matches!(self.undo_of(path), Some(Undo::Auto { .. } | Undo::Steps(_)))
            && !matches!(rec.undo.stand, Stand::Succeeded | Stand::Skipped)
    }

    pub(super) fn on_undo_started(&mut self, e: &Started) -> Check {
        let path: &str = &e.node;
        self.check_start(e)?;
        let Some(scope) = self.undoing_scope(path) else {
            return wrong(
                "P9",
                format!("{path} is undone, and no scope around it undoes"),
            );
        };
        let state = self.scope(&scope);
        let scratch = self.is_scratch(path);
        let prev = self.undo_stand(path);
        let fresh = prev == Stand::Pending;
        if fresh
            && state.phase == ScopePhase::Undoing
            && state.ending.is_some_and(|ending| !ending.undo)
        {
            return wrong("P9", format!("{path} is undone, and the undo was given up"));
        }
        if !self.rec(path).effect {
            return wrong("P7", format!("{path} is undone, and took no effect"));
        }
        if fresh {
            self.check_order(path, &scope, &state.phase, scratch)?;
        }
        let marks = self.undo_marks(path);
        let rec = self.rec_mut(path);
        rec.undo.acted |= prev == Stand::Running && (!marks || rec.undo.marked);
        rec.undo_failed &= !fresh;
        rec.undo.stand = Stand::Running;
        rec.undo.attempt = e.attempt;
        rec.undo.part = e.part;
        rec.undo.lost = false;
        rec.undo.not_done = false;
        rec.undo.marked = false;
        rec.undo.started = true;
        if e.cause != StartCause::Interrupted {
            rec.undo.votes.clear();
        }
        rec.undo.failure = None;
        Ok(())
    }

    fn check_order(&self, path: &str, scope: &str, phase: &ScopePhase, scratch: bool) -> Check {
        let cleaning = *phase == ScopePhase::Cleaning;
        for dependent in self.all_dependents(path, scope) {
            for step in self.steps_in(&dependent) {
                if cleaning && !self.is_scratch_of(&step, scope) {
                    continue;
                }
                if self.is_to_undo(&step) && (!scratch || self.is_blocked(&step, scope).is_none()) {
                    return wrong(
                        "P7",
                        format!("{path} is undone before {step}, which needed it"),
                    );
                }
                if self.stays(&step) && !scratch {
                    return wrong("P7", format!("{path} is undone under {step}, which stays"));
                }
                if self.stand(&step).is_active() {
                    return wrong("P7", format!("{path} is undone while {step} is under way"));
                }
            }
        }
        let mut at = path.to_owned();
        while at != scope {
            let Some(up) = parent(&at).map(str::to_owned) else {
                break;
            };
            if is_item(&at) && self.shape(&up) == Shape::Foreach {
                let order = self.rec(&at).order;
                let foreach = self.node(&up).and_then(|node| node.foreach.as_ref());
                let side_by_side = foreach.is_some_and(|foreach| foreach.max_parallel > 1);
                for item in self.inside(&up).iter().filter(|item| ***item != *at) {
                    // An item that was opened again has steps from before and after others.
                    let again = |at: &str| self.rec(at).forward.attempt > 1;
                    // Where items ran side by side, one in which an undo failed, or is tried again since, holds up no other, and is
                    // held up by none.
                    let failed = |step: &Path| self.rec(step).undo_failed;
                    let mut both = [at.as_str(), item].into_iter();
                    if side_by_side && both.any(|item| self.steps_in(item).iter().any(failed)) {
                        continue;
                    }
                    let later = self.rec(item).order > order && !again(&at) && !again(item);
                    for step in self.steps_in(item) {
                        if cleaning && !self.is_scratch_of(&step, scope) {
                            continue;
                        }
                        let rec = self.rec(&step);
                        if rec.undo.stand.is_active() || rec.undo.stand == Stand::Failed {
                            return wrong(
                                "P7",
                                format!(
                                    "{path} is undone beside {step}: items are undone one by one"
                                ),
                            );
                        }
                        if later
                            && self.is_to_undo(&step)
                            && self.is_blocked(&step, scope).is_none()
                        {
                            return wrong(
                                "P7",
                                format!("{path} is undone before {step}, which started later"),
                            );
                        }
                    }
                }
            }
            at = up;
        }
        Ok(())
    }

    pub(super) fn on_undone(&mut self, e: &Succeeded, world: &World) -> Check {
        let path: &str = &e.node;
        let stand = self.undo_stand(path);
        if !matches!(stand, Stand::Running | Stand::Doubt) {
            return wrong(
                "P1",
                format!("the undo of {path} succeeds and is {stand:?}"),
            );
        }
        if world.effects.get(path).is_some_and(|effect| effect.full) && !self.may_pass_over(path) {
            return wrong("P6", format!("{path} says undone, and its effect is there"));
        }
        self.part_undone(path, e.part);
        Ok(())
    }

    fn undo_parts(&self, path: &str) -> u32 {
        match self.undo_of(path) {
            Some(Undo::Steps(parts)) => u32::try_from(parts.len()).unwrap_or(1),
            Some(Undo::Auto { .. } | Undo::None | Undo::Impossible) | None => 1,
        }
    }

    /// Whether its undo may begin with a step of which the condition does not hold: then it leaves what is there.
    pub(super) fn may_pass_over(&self, path: &str) -> bool {
        matches!(self.undo_of(path), Some(Undo::Steps(parts)) if parts.first().is_some_and(|part| part.when.is_some()))
    }

    /// A part of an undo is done, or had nothing to do.
    pub(super) fn part_undone(&mut self, path: &str, part: u32) {
        if part + 1 < self.undo_parts(path) {
            let exec = self.exec_mut(path, Phase::Undo);
            exec.stand = Stand::Backoff;
            exec.part = part + 1;
        } else {
            self.settle_undo(path);
        }
    }

    pub(super) fn settle_undo(&mut self, path: &str) {
        let scope = self.undoing_scope(path);
        let rec = self.rec_mut(path);
        rec.undo.stand = Stand::Succeeded;
        rec.effect = false;
        rec.by_hand = false;
        rec.left = false;
        rec.undone_in = scope;
    }

    pub(super) fn on_undo_skipped(&mut self, e: &Skipped) -> Check {
        let path: &str = &e.node;
        let prev = self.undo_stand(path);
        let lost = e.why == SkipCause::Ended
            && match prev {
                Stand::Running => self.rec(path).undo.lost,
                Stand::Doubt => self.rec(path).undo.not_done,
                _ => false,
            };
        if !lost && matches!(prev, Stand::Running | Stand::Doubt | Stand::Succeeded) {
            return wrong(
                "P2",
                format!("the undo of {path} is skipped and is {prev:?}"),
            );
        }
        let parts = self.undo_parts(path);
        let rec = self.rec_mut(path);
        if e.why == SkipCause::NoEffect {
            // A part of an undo that has nothing to do.
            if rec.undo.part + 1 < parts {
                rec.undo.part += 1;
                rec.undo.stand = Stand::Backoff;
            } else if rec.undo.started {
                self.settle_undo(path);
            } else {
                rec.undo.part = 0;
                rec.undo.stand = Stand::Skipped;
            }
            return Ok(());
        }
        // Given up by a cancel: a later compensation tries it anew.
        if e.why == SkipCause::Ended {
            rec.undo.stand = Stand::Ended;
            return Ok(());
        }
        rec.undo.stand = Stand::Skipped;
        rec.left |= matches!(e.why, SkipCause::Operator { .. });
        Ok(())
    }

    pub(super) fn on_compensation(&mut self, scope: &str) -> Check {
        let state = self.scope(scope);
        if matches!(state.phase, ScopePhase::Undoing | ScopePhase::Over) {
            return wrong(
                "P1",
                format!("{scope:?} starts to undo and is {:?}", state.phase),
            );
        }
        let failed = self.recs.iter().any(|(at, rec)| {
            rec.forward.stand == Stand::Failed
                && *self.scope_of(at) == *scope
                && self.reaction(at) == super::standing::Reaction::End { undo: true }
        });
        if !state.ending.is_some_and(|ending| ending.undo) && !failed {
            return wrong(
                "P9",
                format!(
                    "{scope:?} starts to undo, and nothing says so: {:?}",
                    state.ending
                ),
            );
        }
        if let Some(active) = self.active_in(scope) {
            return wrong(
                "P9",
                format!(
                    "{scope:?} starts to undo while {active} is {:?}",
                    self.stand(&active)
                ),
            );
        }
        // Its own reason counts once the end of the scope around it was taken back.
        self.scope_mut(scope)
            .ending
            .get_or_insert(super::record::Ending {
                undo: true,
                own: true,
                cancelled: false,
                outer: false,
            });
        self.finally_runs_again(scope);
        self.open_undo(scope, ScopePhase::Undoing);
        Ok(())
    }

    pub(super) fn on_cleanup(&mut self, scope: &str) -> Check {
        if self.scope(scope).phase != ScopePhase::Forward || self.scope(scope).ending.is_some() {
            return wrong(
                "P9",
                format!("{scope:?} cleans up and is {:?}", self.scope(scope)),
            );
        }
        self.check_forward_done(scope)?;
        self.open_undo(scope, ScopePhase::Cleaning);
        Ok(())
    }

    pub(super) fn open_undo(&mut self, scope: &str, phase: ScopePhase) {
        self.overtake(scope);
        self.scope_mut(scope).phase = phase;
        for (at, rec) in &mut self.recs {
            // What had nothing to do, or was blocked, is looked at anew; what a person left stays.
            if within(at, scope) && rec.undo.stand == Stand::Skipped && !rec.left && rec.effect {
                rec.undo.stand = Stand::Pending;
            }
            // An undo that failed, or was given up, in an earlier compensation is tried anew.
            if within(at, scope) && matches!(rec.undo.stand, Stand::Failed | Stand::Ended) {
                rec.undo.stand = Stand::Pending;
            }
        }
    }

    /// Whether the compensation of a scope has come to its end.
    pub(super) fn check_undone(&self, scope: &str) -> Check {
        let state = self.scope(scope);
        if let Some(busy) = self.recs.iter().find(|(at, rec)| {
            within(at, scope) && (rec.undo.stand.is_active() || rec.undo.stand == Stand::Failed)
        }) {
            let given_up = state.ending.is_some_and(|ending| !ending.undo);
            if !given_up || busy.1.undo.stand.is_active() {
                return wrong(
                    "P7",
                    format!(
                        "{scope:?} comes to its finally, and the undo of {} is {:?}",
                        busy.0, busy.1.undo.stand
                    ),
                );
            }
        }
        if state.ending.is_some_and(|ending| !ending.undo) {
            return Ok(());
        }
        for step in self.steps_in(scope) {
            if !self.is_to_undo(&step) {
                continue;
            }
            let scratch = self.is_scratch_within(&step, scope);
            let due = match state.phase {
                ScopePhase::Cleaning | ScopePhase::Forward => self.is_scratch_of(&step, scope),
                ScopePhase::Undoing | ScopePhase::Finally | ScopePhase::Over => {
                    scratch || self.is_blocked(&step, scope).is_none()
                }
            };
            if due {
                return wrong(
                    "P7",
                    format!(
                        "{scope:?} comes to its finally after {:?}, and {step} is not undone",
                        state.phase
                    ),
                );
            }
        }
        Ok(())
    }
}
