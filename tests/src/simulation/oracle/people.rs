//! What an order of a person changes around a node: what is open again, and what is pending again.
use super::{
    Oracle, Path, Shape, is_item, parent,
    record::{Ending, Exec, ScopePhase, Stand},
    standing::Reaction,
    within,
};

impl Oracle {
    pub(super) fn on_cancelled(&mut self, undo: bool, force: bool) {
        self.cancelled = Some((undo, force));
        if undo {
            // An undo that the order before gave up, and that has not come to its end, continues.
            let mut again = Vec::new();
            for (at, state) in &mut self.scopes {
                if matches!(state.phase, ScopePhase::Undoing | ScopePhase::Cleaning)
                    && let Some(ending) = &mut state.ending
                    && ending.cancelled
                    && !ending.undo
                {
                    ending.undo = true;
                    again.push((at.clone(), state.phase));
                }
            }
            for (at, phase) in again {
                self.open_undo(&at, phase);
            }
        }
        self.paused = false;
        // What asked waits for no answer any more.
        let failed: Vec<Path> = self
            .recs
            .iter()
            .filter(|(_, rec)| rec.forward.stand == Stand::Failed)
            .map(|(path, _)| path.clone())
            .collect();
        for path in failed {
            let asks = std::mem::take(&mut self.rec_mut(&path).asks);
            let scope = self.scope_of(&path);
            match self.reaction(&path) {
                Reaction::Ask => self.end(&scope, false, false),
                Reaction::End { undo } if asks => self.end(&scope, undo, false),
                _ => {}
            }
        }
        let root = self.scope("");
        match root.phase {
            ScopePhase::Forward => self.end("", undo, true),
            // What sleeps in it fails by events of its own; the rest of it runs.
            ScopePhase::Finally if !undo => self.scope_mut("").turns_back = false,
            ScopePhase::Undoing | ScopePhase::Cleaning | ScopePhase::Finally | ScopePhase::Over => {
                self.scope_mut("").turns_back = root.phase == ScopePhase::Finally;
                if root.phase == ScopePhase::Finally {
                    // What is called from it ends, too.
                    for step in self.finally_of("") {
                        let apart: Vec<Path> = self
                            .scopes
                            .keys()
                            .filter(|at| within(at, &step) && self.crosses_finally(at, &step))
                            .cloned()
                            .collect();
                        for (at, state) in &mut self.scopes {
                            let is_apart = apart.contains(at);
                            if !is_apart && within(at, &step) && state.phase == ScopePhase::Forward
                            {
                                state.ending = Some(Ending {
                                    undo,
                                    own: undo,
                                    cancelled: true,
                                    outer: true,
                                });
                            }
                        }
                    }
                }
                self.scope_mut("").ending = Some(Ending {
                    undo,
                    own: undo,
                    cancelled: true,
                    outer: false,
                });
            }
        }
        if !undo {
            let apart: Vec<Path> = self
                .scopes
                .keys()
                .filter(|path| self.crosses_finally(path, ""))
                .cloned()
                .collect();
            for (at, state) in &mut self.scopes {
                if apart.contains(at) {
                    continue;
                }
                if matches!(state.phase, ScopePhase::Undoing | ScopePhase::Cleaning) {
                    let ending = state.ending.get_or_insert(Ending {
                        undo: false,
                        own: false,
                        cancelled: true,
                        outer: true,
                    });
                    ending.undo = false;
                    ending.cancelled = true;
                }
            }
        }
    }

    /// A failed node gets another chance: what is around it is open again, and goes forward.
    pub(super) fn reopen(&mut self, path: &str, ordered: bool) {
        // What is passed over inside what is passed over itself opens nothing.
        let mut around = std::iter::successors(parent(path), |at| parent(at));
        if !ordered && around.any(|at| self.stand(at) == Stand::Skipped) {
            return;
        }
        let mut at = path.to_owned();
        while let Some(up) = parent(&at).map(str::to_owned) {
            let rec = self.rec_mut(&up);
            let was = rec.forward.stand;
            if (was.is_settled() || was == Stand::Ended) && !up.is_empty() {
                rec.forward.stand = Stand::Running;
                rec.reopened = true;
                rec.ordered |= ordered;
                rec.asks = false;
                self.open_overtaken(&up);
                if was == Stand::Skipped {
                    self.counts_again(&up);
                }
            }
            at = up;
        }
        let mut inner = path.to_owned();
        for scope in self.scopes_around(path) {
            let of_finally = self.in_finally(&inner);
            inner = scope.to_string();
            let state = self.scope_mut(&scope);
            if of_finally {
                // What is around a `finally` that runs does not turn for it.
                state.phase = ScopePhase::Finally;
                break;
            }
            if state.phase == ScopePhase::Forward && state.ending.is_none() {
                continue;
            }
            let turned = state.phase != ScopePhase::Forward;
            self.finally_runs_again(&scope);
            let state = self.scope_mut(&scope);
            state.phase = ScopePhase::Forward;
            state.ending = None;
            self.call_off(&scope, path, turned);
        }
    }

    /// A container that was passed over is open again: what a scope around it had undone of it runs again.
    fn counts_again(&mut self, container: &str) {
        let around = self.scopes_around(container);
        let undone: Vec<Path> = self
            .recs
            .iter()
            .filter(|(at, _)| within(at, container) && ***at != *container)
            .filter(|(_, rec)| {
                let by = rec.undone_in.as_deref();
                by.is_some_and(|by| around.iter().any(|scope| **scope == *by))
            })
            .map(|(at, _)| at.clone())
            .collect();
        for at in undone {
            let rec = self.rec_mut(&at);
            rec.undone_in = None;
            rec.undo.stand = Stand::Pending;
            if rec.forward.stand != Stand::Failed {
                rec.forward.stand = Stand::Pending;
                self.open_between(&at, container);
            }
        }
    }

    /// A playbook that failed by itself, as its time was over, goes forward again: what it undid runs again.
    pub(super) fn call_again(&mut self, call: &str) {
        if self.shape(call) != Shape::Call || !self.scopes.contains_key(call) {
            return;
        }
        let turned = self.scope(call).phase != ScopePhase::Forward;
        self.finally_runs_again(call);
        let state = self.scope_mut(call);
        state.phase = ScopePhase::Forward;
        state.ending = None;
        self.call_off(call, call, turned);
    }

    /// What was open in a container when it failed is open again with it; items wait for their slots.
    fn open_overtaken(&mut self, container: &str) {
        for inner in self.inside(container) {
            if self.shape(&inner) == Shape::Step || self.stand(&inner) != Stand::Ended {
                continue;
            }
            let rec = self.rec_mut(&inner);
            rec.reopened = true;
            rec.forward.stand = if is_item(&inner) {
                Stand::Pending
            } else {
                Stand::Running
            };
            self.open_overtaken(&inner);
        }
    }

    /// The end of a scope overtakes the groups and loops that are open in it.
    pub(super) fn overtake(&mut self, scope: &str) {
        let open: Vec<Path> = self
            .recs
            .iter()
            .filter(|(at, rec)| within(at, scope) && rec.forward.stand == Stand::Running)
            .map(|(at, _)| at.clone())
            .filter(|at| matches!(self.shape(at), Shape::Group | Shape::Foreach))
            .filter(|at| *self.scope_of(at) == *scope)
            .collect();
        for at in open {
            self.rec_mut(&at).forward.stand = Stand::Ended;
        }
    }

    /// Whether it is in an item that waits for a slot of its loop.
    fn waits_around(&self, path: &str) -> bool {
        let mut around = std::iter::successors(parent(path), |at| parent(at));
        around.any(|at| match self.stand(at) {
            Stand::Pending | Stand::Ordered => !at.is_empty(),
            stand => is_item(at) && !stand.is_active(),
        })
    }

    /// A group or loop around it that would break at once by its other failures: they ask, too. What a person passes over inside what
    /// is passed over itself opens nothing.
    pub(super) fn ask_about_others(&mut self, path: &str) {
        let mut around = std::iter::successors(parent(path), |at| parent(at));
        if around.any(|at| self.stand(at) == Stand::Skipped) {
            return;
        }
        let mut at = path.to_owned();
        while let Some(up) = parent(&at).map(str::to_owned) {
            // What is around a `finally` that runs does not turn for it.
            if self.is_finally_step(&at) {
                break;
            }
            if self.breaks(&up).is_some() {
                for inner in self.inside(&up) {
                    let breaks = matches!(self.reaction(&inner), Reaction::Break | Reaction::Count);
                    if self.stand(&inner) == Stand::Failed && breaks {
                        self.rec_mut(&inner).asks = true;
                    }
                }
            }
            at = up;
        }
    }

    /// What a scope's end did is pending again. If it had not turned from its steps yet, it undid nothing.
    pub(super) fn call_off(&mut self, scope: &str, but: &str, turned: bool) {
        // Scopes inside that end only since this one did go forward with it.
        let forward: Vec<Path> = self
            .scopes
            .iter()
            .filter(|(at, state)| within(at, scope) && state.phase == ScopePhase::Forward)
            .filter(|(_, state)| state.ending.is_some_and(|ending| ending.outer))
            .map(|(at, _)| at.clone())
            .filter(|at| {
                // But not those that end since one between them does.
                let between = self.scopes_around(at);
                let mut between = between.iter().take_while(|around| ***around != *scope);
                !between.any(|around| {
                    let ending = self.scope(around).ending;
                    ending.is_some_and(|ending| !ending.outer)
                })
            })
            .collect();
        for at in forward {
            self.scope_mut(&at).ending = None;
        }
        self.own_endings(scope);
        let all: Vec<Path> = self
            .recs
            .keys()
            .filter(|at| within(at, scope) && ***at != *scope)
            .cloned()
            .collect();
        // A run that was cancelled waits for no answers: they end their scope again.
        let is_cancelled = self.cancelled.is_some();
        let mut again: Vec<Path> = Vec::new();
        for at in &all {
            let ends = matches!(self.reaction(at), Reaction::End { .. })
                || is_cancelled && self.reaction(at) == Reaction::Ask;
            let of_scope = *self.scope_of(at) == *scope;
            let repeatable = self.is_repeatable(at);
            let container = matches!(self.shape(at), Shape::Group | Shape::Foreach);
            // What is in what a person passed over is passed over with it.
            let mut around =
                std::iter::successors(parent(at), |up| parent(up)).take_while(|up| **up != *scope);
            let passed_over = around.any(|up| self.stand(up) == Stand::Skipped);
            // An item waits for a slot, and what is in it with it.
            let waits = is_item(at) || self.waits_around(at);
            let rec = self.rec_mut(at);
            if rec.forward.stand == Stand::Ended && container {
                rec.reopened = true;
                rec.forward.stand = if waits {
                    Stand::Pending
                } else {
                    Stand::Running
                };
            } else if rec.forward.stand == Stand::Ended {
                // What may have acted is not started again unasked.
                if rec.effect && !repeatable {
                    rec.forward.stand = Stand::Failed;
                    rec.asks = true;
                } else {
                    rec.forward.stand = Stand::Pending;
                }
            }
            if rec.forward.stand == Stand::Failed
                && ends
                && of_scope
                && **at != *but
                && !rec.outer_end
            {
                if is_cancelled {
                    again.push(at.clone());
                } else {
                    rec.asks = true;
                }
            }
            let undone_here = !passed_over && rec.undone_in.as_deref() == Some(scope);
            let is_half = !passed_over && turned && rec.is_half_undone();
            if is_half && repeatable {
                // It runs again; what is left of it is still to be undone.
                rec.forward.stand = Stand::Pending;
                rec.undo = Exec {
                    attempt: rec.undo.attempt,
                    part: rec.undo.part,
                    ..Exec::default()
                };
                rec.left = false;
            } else if is_half {
                rec.forward.stand = Stand::Failed;
                rec.asks = true;
            }
            let was = rec.forward.stand;
            if undone_here {
                rec.undone_in = None;
                rec.undo.stand = Stand::Pending;
                if was != Stand::Failed {
                    rec.forward.stand = Stand::Pending;
                }
            }
            // It ended with the playbook around it, and that may have come to its end for a reason of its own.
            let around = self.scope_of(at);
            let ends_with_it = *around != *scope && self.stand(&around).is_settled();
            let rec = self.rec_mut(at);
            if rec.outer_end && !ends_with_it && !passed_over && **at != *but {
                rec.outer_end = false;
                rec.forward.stand = Stand::Running;
                rec.reopened = true;
                let turned = self.scope(at).phase != ScopePhase::Forward;
                self.runs_again(at);
                self.call_off(at, but, turned);
            }
            if undone_here && was != Stand::Failed || is_half {
                self.open_between(at, scope);
            }
        }
        for at in again {
            let undo = self.reaction(&at) == Reaction::End { undo: true };
            let scope = self.scope_of(&at);
            self.end(&scope, undo, false);
        }
    }
    /// Scopes inside that end for a reason of their own undo what that says, now that the stop around them is taken back.
    fn own_endings(&mut self, scope: &str) {
        let inside: Vec<Path> = self
            .scopes
            .iter()
            .filter(|(at, state)| {
                within(at, scope) && ***at != *scope && state.phase == ScopePhase::Forward
            })
            .map(|(at, _)| at.clone())
            .collect();
        for at in &inside {
            // One that ends with a playbook between them undoes what that says.
            let between = self.scopes_around(at);
            let own: Vec<bool> = between
                .iter()
                .take_while(|around| ***around != *scope)
                .filter_map(|around| self.scope(around).ending)
                .filter(|ending| !ending.outer && !ending.cancelled)
                .map(|ending| ending.own)
                .collect();
            if let Some(ending) = &mut self.scope_mut(at).ending
                && ending.outer
                && !ending.cancelled
                && !own.is_empty()
            {
                ending.undo = own.into_iter().all(|own| own);
            }
        }
        for at in inside {
            let between = self.scopes_around(&at);
            let mut between = between.iter().take_while(|around| ***around != *scope);
            if between.any(|around| self.scope(around).ending.is_some()) {
                continue;
            }
            if let Some(ending) = &mut self.scope_mut(&at).ending
                && !ending.outer
                && !ending.cancelled
            {
                ending.undo = ending.own;
            }
        }
    }

    /// A playbook inside runs forward again: what it made for itself alone and has cleaned up is made anew.
    fn runs_again(&mut self, call: &str) {
        self.finally_runs_again(call);
        let state = self.scope_mut(call);
        if state.phase == ScopePhase::Forward {
            // What it came to by itself it still comes to.
            state.ending = state.ending.filter(|ending| !ending.outer);
            return;
        }
        state.phase = ScopePhase::Forward;
        state.ending = None;
        // Failures that had ended it ask from now on.
        let ended: Vec<Path> = self
            .recs
            .iter()
            .filter(|(at, rec)| {
                rec.forward.stand == Stand::Failed && !rec.outer_end && *self.scope_of(at) == *call
            })
            .filter(|(at, _)| matches!(self.reaction(at), Reaction::End { .. }))
            .map(|(at, _)| at.clone())
            .collect();
        for at in ended {
            if self.cancelled.is_none() {
                self.rec_mut(&at).asks = true;
                continue;
            }
            // A run that was cancelled waits for no answers: it ends again.
            let undo = self.reaction(&at) == Reaction::End { undo: true };
            self.end(call, undo, false);
        }
        let undone: Vec<Path> = self
            .recs
            .iter()
            .filter(|(_, rec)| {
                rec.undo.stand == Stand::Succeeded
                    && matches!(rec.forward.stand, Stand::Succeeded | Stand::Skipped)
                    && rec.undone_in.as_deref() == Some(call)
            })
            .map(|(at, _)| at.clone())
            .collect();
        for at in undone {
            let rec = self.rec_mut(&at);
            rec.forward.stand = Stand::Pending;
            rec.undo.stand = Stand::Pending;
            rec.undone_in = None;
            self.open_between(&at, call);
        }
    }

    /// What is between a node that is pending again and a scope around it is open again.
    fn open_between(&mut self, path: &str, scope: &str) {
        let mut up = parent(path).map(str::to_owned);
        while let Some(container) = up.filter(|up| **up != *scope && !up.is_empty()) {
            let is_call = self.shape(&container) == Shape::Call;
            let rec = self.rec_mut(&container);
            if rec.forward.stand.is_settled() {
                rec.forward.stand = Stand::Running;
                rec.reopened = true;
            }
            if is_call {
                self.runs_again(&container);
            }
            up = parent(&container).map(str::to_owned);
        }
    }
}
