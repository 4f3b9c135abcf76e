//! Each event: whether it may come now, and what it says.
use super::{
    Check, Oracle, Path, Shape,
    record::{Ending, Scope, ScopePhase, Stand},
    wrong,
};
use crate::simulation::{adapter, world::World};
use windlass_engine::{
    machine::{Command, Event, EventBody},
    step::{Phase, WaitOn},
    value::Duration,
};

impl Oracle {
    /// An event became durable.
    pub(crate) fn observe(&mut self, event: &Event, world: &mut World) -> Check {
        let body = &event.body;
        if adapter::is_closed(body) {
            self.closed = true;
            return Ok(());
        }
        if self.finished.is_some()
            && !matches!(
                body,
                EventBody::CommandAccepted(_)
                    | EventBody::CommandRefused(_)
                    | EventBody::LeaseTaken(_)
                    | EventBody::Reopened(_)
                    | EventBody::InputEdited(_)
            )
        {
            return wrong("P11", format!("after the end of the run: {body:?}"));
        }
        match body {
            EventBody::LeaseTaken(_) => {
                self.set_clock(0);
                for rec in self.recs.values_mut() {
                    for exec in [&mut rec.forward, &mut rec.undo] {
                        exec.lost = exec.stand == Stand::Running;
                    }
                }
                Ok(())
            }
            EventBody::Expanded(e) => {
                self.rec_mut(&e.node).items = Some(e.items.len());
                Ok(())
            }
            EventBody::Started(e) => match e.phase {
                Phase::Do => {
                    self.lost_may_have_acted(&e.node, world);
                    self.on_started(e, event.at)
                }
                Phase::Undo => self.on_undo_started(e),
            },
            EventBody::Marked(e) => {
                self.exec_mut(&e.node, e.phase).marked = true;
                Ok(())
            }
            EventBody::Suspended(e) => {
                let exec = self.exec_mut(&e.node, e.phase);
                exec.stand = match e.wait.on {
                    WaitOn::Approval(_) => Stand::Asking,
                    WaitOn::Timer(_) | WaitOn::Signal(_) => Stand::Asleep,
                };
                exec.approved = None;
                Ok(())
            }
            EventBody::Awoken(e) => self.on_awoken(e),
            EventBody::Succeeded(e) => match e.phase {
                Phase::Do => self.on_succeeded(e, world),
                Phase::Undo => self.on_undone(e, world),
            },
            EventBody::Failed(e) => {
                // A container fails as what is in it does.
                if e.failure.code == "policy.window" && self.shape(&e.node) == Shape::Step {
                    self.on_window_refused(e, event.at, world)?;
                }
                self.on_failed(e)
            }
            EventBody::RetryScheduled(e) => {
                if e.phase == Phase::Do && self.rec(&e.node).forward.lost {
                    self.lost_may_have_acted(&e.node, world);
                }
                let exec = self.exec_mut(&e.node, e.phase);
                exec.stand = Stand::Backoff;
                exec.not_done = false;
                Ok(())
            }
            EventBody::Gated(e) => {
                self.check_needs(&e.node)?;
                let rec = self.rec_mut(&e.node);
                rec.ordered |= rec.forward.stand == Stand::Ordered;
                rec.forward.stand = Stand::Gated;
                Ok(())
            }
            EventBody::WindowClosed(e) => self.on_window_closed(e, event.at),
            EventBody::ClockStepped(e) => {
                self.set_clock(Duration::between(event.at, e.wall).as_millis());
                Ok(())
            }
            EventBody::Withdrawn(e) => {
                let stand = self.stand(&e.node);
                if !matches!(stand, Stand::Gated | Stand::Shut) {
                    return wrong("P1", format!("{} is withdrawn and is {stand:?}", e.node));
                }
                let held = !self.needs_around(&e.node).is_empty();
                if !held && self.broken_around(&e.node).is_none() {
                    return wrong(
                        "P9",
                        format!("{} is withdrawn, and nothing holds it", e.node),
                    );
                }
                self.exec_mut(&e.node, Phase::Do).stand = Stand::Pending;
                Ok(())
            }
            EventBody::Skipped(e) => match e.phase {
                Phase::Do => {
                    if e.why == windlass_engine::machine::SkipCause::Ended
                        && self.is_repeatable(&e.node)
                    {
                        // Nobody asks about it: an undo of nothing does nothing.
                        world.begin(&e.node);
                    }
                    self.on_skipped(e)
                }
                Phase::Undo => self.on_undo_skipped(e),
            },
            EventBody::Doubted(e) => {
                let exec = self.exec_mut(&e.node, e.phase);
                exec.stand = Stand::Doubt;
                exec.not_done = false;
                Ok(())
            }
            EventBody::Probed(e) => {
                let exec = self.exec_mut(&e.node, e.phase);
                exec.not_done = e.in_doubt.is_none();
                Ok(())
            }
            EventBody::Voted(e) => {
                let phase = if self.undo_stand(&e.node) == Stand::Asking {
                    Phase::Undo
                } else {
                    Phase::Do
                };
                let votes = &mut self.exec_mut(&e.node, phase).votes;
                votes.retain(|vote| vote.who != e.vote.who);
                votes.push(e.vote.clone());
                Ok(())
            }
            EventBody::CommandAccepted(e) => {
                self.command = Some(e.command.clone());
                self.answer(&e.id, true)
            }
            EventBody::CommandRefused(e) => self.answer(&e.id, false),
            EventBody::Resolved(e) => {
                let path = &e.node;
                let before = self.exec(path, e.phase).stand;
                if !e.done {
                    self.exec_mut(path, e.phase).not_done = true;
                    return Ok(());
                }
                if e.phase == Phase::Undo {
                    // Who looked says so of what failed or was in doubt, and of no more.
                    let part = self.exec(path, Phase::Undo).part;
                    world.part_by_hand(path, part);
                    self.part_undone(path, part);
                    return Ok(());
                }
                if !self.writes(path) {
                    return wrong("P12", format!("{path} only reads, and is resolved as done"));
                }
                if before == Stand::Failed {
                    self.reopen(path, false);
                }
                world.by_hand(path, Phase::Do);
                let truly = world.effects.get(path).is_some_and(|effect| effect.full);
                // One that never started is undone in its place all the same.
                self.starts += 1;
                let order = self.starts;
                let rec = self.rec_mut(path);
                if rec.order == 0 {
                    rec.order = order;
                }
                rec.forward.stand = Stand::Succeeded;
                rec.effect = true;
                rec.by_hand = before == Stand::Failed || !truly;
                if before == Stand::Failed {
                    // A life of its own: what a person left of the one before is not of this one.
                    rec.undo.started = false;
                    rec.undo.acted = false;
                    if rec.undo.stand == Stand::Succeeded {
                        rec.undo.stand = Stand::Pending;
                    }
                    rec.undone_in = None;
                    rec.leave_no_more();
                }
                if before == Stand::Failed {
                    self.ask_about_others(path);
                }
                Ok(())
            }
            EventBody::RetryOrdered(e) => {
                if self.exec(&e.node, e.phase).stand == Stand::Doubt {
                    return Ok(());
                }
                if e.phase == Phase::Do {
                    if let Some(effect) = world.effects.get_mut(&e.node) {
                        // A person orders it to act again, whatever it did before.
                        effect.maybe |= effect.full;
                        effect.full = false;
                    }
                    self.exec_mut(&e.node, e.phase).stand = Stand::Ordered;
                    self.call_again(&e.node);
                    self.reopen(&e.node, true);
                }
                self.exec_mut(&e.node, e.phase).stand = Stand::Ordered;
                if e.phase == Phase::Do {
                    self.rec_mut(&e.node).outer_end = false;
                    self.ask_about_others(&e.node);
                }
                Ok(())
            }
            EventBody::InputEdited(e) => {
                if e.name == "open" {
                    self.inputs_open = e.value.as_bool() == Some(true);
                }
                // Gates are asked again as nodes start: those behind them are pending, as far as they may start at all.
                let again: Vec<Path> = self
                    .recs
                    .iter()
                    .filter(|(_, rec)| rec.forward.stand == Stand::Gated)
                    .map(|(path, _)| path.clone())
                    .filter(|path| self.goes_forward(path).is_ok())
                    .filter(|path| self.needs_around(path).is_empty())
                    .filter(|path| self.broken_around(path).is_none())
                    .collect();
                for path in again {
                    self.rec_mut(&path).forward.stand = Stand::Pending;
                }
                Ok(())
            }
            EventBody::Paused(e) => {
                self.paused |= e.who.is_some();
                Ok(())
            }
            EventBody::Unpaused(_) => {
                if self.command == Some(Command::Unpause) {
                    self.paused = false;
                }
                Ok(())
            }
            EventBody::Cancelled(e) => {
                self.on_cancelled(e.undo, e.force);
                Ok(())
            }
            EventBody::Overran(e) => self.on_overran(e),
            EventBody::CompensationStarted(e) => self.on_compensation(&e.scope),
            EventBody::CleanupStarted(e) => self.on_cleanup(&e.scope),
            EventBody::FinallyStarted(e) => self.on_finally(&e.scope, e.outcome, world),
            EventBody::Finished(e) => self.on_finished(e, world),
            EventBody::Reopened(e) => {
                self.finished = None;
                self.closed = false;
                if e.only_finally {
                    self.scope_mut("").phase = ScopePhase::Finally;
                    return Ok(());
                }
                self.cancelled = None;
                self.undo_ordered = e.undo;
                if e.undo {
                    // What a person left is part of what a person orders to be undone now.
                    for rec in self.recs.values_mut().filter(|rec| rec.left) {
                        rec.left = false;
                        if rec.undo.stand == Stand::Skipped {
                            rec.undo.stand = Stand::Pending;
                        }
                    }
                }
                // A cancel is over with the run that it ended.
                for state in self.scopes.values_mut() {
                    if state.ending.is_some_and(|ending| ending.cancelled) {
                        state.ending = None;
                    }
                }
                let ending = e.undo.then_some(Ending {
                    undo: true,
                    own: true,
                    cancelled: false,
                    outer: false,
                });
                self.finally_runs_again("");
                let state = self.scope_mut("");
                state.phase = ScopePhase::Forward;
                state.ending = ending;
                if e.undo {
                    self.end("", true, false);
                    // Whatever ended between: what a person orders to be undone is undone.
                    let forward: Vec<Path> = self
                        .scopes
                        .iter()
                        .filter(|(_, state)| state.phase == ScopePhase::Forward)
                        .map(|(at, _)| at.clone())
                        .filter(|at| !self.crosses_finally(at, ""))
                        .collect();
                    for at in forward {
                        if let Some(ending) = &mut self.scope_mut(&at).ending {
                            ending.undo = true;
                        }
                    }
                } else {
                    self.call_off("", "", true);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An attempt that was lost, and is begun anew, may have acted: no probe asks about it.
    fn lost_may_have_acted(&mut self, path: &Path, world: &mut World) {
        let may_have = self.stand(path) == Stand::Running
            && self.is_repeatable(path)
            && self.writes(path)
            && (!self.marks(path) || self.rec(path).forward.marked);
        if may_have {
            world.begin(path);
            self.rec_mut(path).effect = true;
        }
    }

    fn answer(&mut self, id: &str, accepted: bool) -> Check {
        if self.answered.insert(id.to_owned(), accepted).is_some() {
            return wrong("P2", format!("command {id} is answered twice"));
        }
        Ok(())
    }

    pub(super) fn exec(&self, path: &str, phase: Phase) -> &super::Exec {
        match phase {
            Phase::Do => &self.rec(path).forward,
            Phase::Undo => &self.rec(path).undo,
        }
    }

    pub(super) fn exec_mut(&mut self, path: &str, phase: Phase) -> &mut super::Exec {
        let rec = self.rec_mut(path);
        match phase {
            Phase::Do => &mut rec.forward,
            Phase::Undo => &mut rec.undo,
        }
    }

    pub(super) fn scope_mut(&mut self, path: &str) -> &mut Scope {
        self.scopes.entry(path.into()).or_default()
    }
}
