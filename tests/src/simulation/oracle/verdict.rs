//! Whether a command must be accepted or refused where the semantics say so; many places leave both open.
use super::{
    Oracle, Shape,
    record::{ScopePhase, Stand},
};
use crate::simulation::{adapter, world};
use windlass_engine::{
    expr::{Expr, Template},
    graph::Body,
    machine::{Command, Outcome, Submitted},
    step::Phase,
    value::Value,
};

/// What the answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Refuse(&'static str),
    Either,
}

use Verdict::{Accept, Either, Refuse};

impl Oracle {
    pub(crate) fn verdict(&self, submitted: &Submitted) -> Verdict {
        let command = &submitted.command;
        if adapter::is_close(command) {
            return match self.finished {
                Some(Outcome::Stopped) if !self.closed => Accept,
                Some(_) => Refuse("only a stopped or a stuck run is closed"),
                None => Either,
            };
        }
        match command {
            Command::Retry { node } => self.verdict_retry(node),
            Command::Skip { node, output, .. } => self.verdict_skip(node, output),
            Command::Resolve {
                node, done, output, ..
            } => self.verdict_resolve(node, *done, output),
            _ if *command == Command::Undo => self.verdict_undo(),
            // With another input a retry may succeed.
            Command::SetInput { .. } if self.finished == Some(Outcome::Stopped) && !self.closed => {
                self.verdict_set(command)
            }
            _ if self.finished.is_some() => Refuse("the run is over"),
            Command::Vote { node, .. } => self.verdict_vote(submitted, node),
            Command::Signal { .. } => Accept,
            Command::Pause { .. } if self.paused => Refuse("a person paused it already"),
            Command::Pause { .. } => Accept,
            Command::Unpause if self.paused => Accept,
            Command::Unpause => Refuse("no person paused it"),
            Command::SetInput { .. } => self.verdict_set(command),
            Command::Cancel { undo, force, .. } => self.verdict_cancel(*undo, *force),
            _ => Either,
        }
    }

    fn verdict_set(&self, command: &Command) -> Verdict {
        match command {
            Command::SetInput { name, value }
                if matches!(name.as_str(), "open" | "flag")
                    && matches!(value.as_str(), "true" | "false") =>
            {
                self.verdict_input()
            }
            _ => Refuse("no such input, or no such value"),
        }
    }

    /// An input that is read behind an approval stays as it was shown.
    fn verdict_input(&self) -> Verdict {
        // What is asked, or checked, started with the values that are.
        let asked = self.recs.iter().any(|(at, rec)| {
            let judges = matches!(self.kind(at), "sim.approval" | "sim.verify");
            let voted = !rec.forward.votes.is_empty() || !rec.undo.votes.is_empty();
            judges && rec.forward.stand.is_active() || voted
        });
        if asked { Either } else { Accept }
    }

    fn verdict_cancel(&self, undo: bool, force: bool) -> Verdict {
        let root = self.scope("");
        match root.phase {
            ScopePhase::Forward => match self.cancelled {
                None => Accept,
                // What has come to sleep in a `finally` since is ended by it.
                Some((before, forced)) if before == undo && (forced == force) => {
                    // What has started since is ended by it.
                    if self.sleeps_in_finally() || force {
                        Either
                    } else {
                        Refuse("the same cancel again")
                    }
                }
                Some((before, _)) if before != undo => Accept,
                Some((_, false)) => Accept,
                Some(_) => Either,
            },
            ScopePhase::Undoing if undo && root.ending.is_some_and(|ending| !ending.undo) => Accept,
            ScopePhase::Undoing if undo => Refuse("it undoes already"),
            ScopePhase::Undoing | ScopePhase::Cleaning => match (self.cancelled, undo) {
                (None, _) => Accept,
                (Some((true, _)), false) => Accept,
                (Some(_), _) => Either,
            },
            ScopePhase::Finally if undo => {
                let any = self.recs.values().any(|rec| rec.effect);
                // One that turns back already ends what sleeps in it.
                if any || root.turns_back && self.sleeps_in_finally() {
                    Either
                } else {
                    Refuse("nothing can be undone")
                }
            }
            ScopePhase::Finally | ScopePhase::Over => Either,
        }
    }

    fn sleeps_in_finally(&self) -> bool {
        self.known().any(|(path, forward, _)| {
            let asleep = matches!(
                forward.stand,
                Stand::Asleep | Stand::Asking | Stand::Backoff | Stand::Gated
            );
            let mut at = Some(&**path);
            let mut in_finally = false;
            while let Some(current) = at {
                in_finally |= self.in_finally(current);
                at = super::parent(current);
            }
            asleep && in_finally
        })
    }

    fn verdict_undo(&self) -> Verdict {
        let Some(outcome) = self.finished else {
            let root = self.scope("");
            let mut steps = self
                .recs
                .iter()
                .filter(|(at, _)| self.shape(at) == Shape::Step);
            return if root.phase != ScopePhase::Forward || root.ending.is_some() {
                Either
            } else if steps.any(|(_, rec)| rec.forward.stand.is_active()) {
                Accept
            } else if !self.recs.values().any(|rec| rec.effect) {
                Refuse("nothing can be undone")
            } else {
                self.something_to_undo()
            };
        };
        if !self.recs.values().any(|rec| rec.effect) {
            return Refuse("nothing can be undone");
        }
        if outcome == Outcome::Compensated {
            Either
        } else {
            self.something_to_undo()
        }
    }

    /// Accepted if an effect can be undone with nothing in its way.
    fn something_to_undo(&self) -> Verdict {
        let can = self.steps_in("").into_iter().any(|step| {
            let rec = self.rec(&step);
            rec.effect
                && !rec.left
                && !rec.by_hand
                && rec.undo.stand == Stand::Pending
                && !self.may_pass_over(&step)
                && matches!(
                    self.undo_of(&step),
                    Some(
                        windlass_engine::graph::Undo::Auto { .. }
                            | windlass_engine::graph::Undo::Steps(_)
                    )
                )
                && self.is_blocked(&step, "").is_none()
        });
        if can { Accept } else { Either }
    }

    fn verdict_vote(&self, submitted: &Submitted, node: &str) -> Verdict {
        let Command::Vote {
            approve,
            answers,
            digest,
            shown_hash,
            ..
        } = &submitted.command
        else {
            return Either;
        };
        let phase = if self.undo_stand(node) == Stand::Asking {
            Phase::Undo
        } else {
            Phase::Do
        };
        let exec = self.exec(node, phase);
        if exec.stand != Stand::Asking {
            return Refuse("it asks for no approval");
        }
        let request = world::request(node);
        let who = submitted.who.as_str();
        if digest != adapter::DIGEST || *shown_hash != request.shown_hash {
            return Refuse("the vote is on something else");
        }
        if !request.groups.is_empty() && !["bo", "cy", "di"].contains(&who) {
            return Refuse("the voter is in no group that may vote");
        }
        if request.separation_of_duties && who == "ana" {
            return Refuse("the one who started the run may not vote");
        }
        let before = exec.votes.iter().find(|vote| vote.who == who);
        let same = before.is_some_and(|vote| {
            let given =
                |(name, answer): (&String, &Value)| answers.get(name) == Some(&answer.to_string());
            vote.approve == *approve && vote.answers.iter().all(given)
        });
        if same {
            return Refuse("one person, one vote");
        }
        if *approve
            && (answers.len() != request.ask.len()
                || answers.values().any(|a| a != "1" && a != "2"))
        {
            return Refuse("the answers are wrong");
        }
        // A deadline may have passed.
        Either
    }

    /// A step that reads the output of a node and has not run.
    fn reader(&self, path: &str) -> Option<super::Path> {
        self.reader_that(path, |reader| {
            matches!(
                self.stand(reader),
                Stand::Pending | Stand::Gated | Stand::Shut
            )
        })
    }

    /// A loop that runs, or failed before its last item, reads it with each item that has not started: only the machine knows whether
    /// one is left.
    fn loop_may_read(&self, path: &str) -> bool {
        self.reader_that(path, |reader| {
            let may = matches!(
                self.stand(reader),
                Stand::Running | Stand::Failed | Stand::Ended
            );
            may && self.shape(reader) == Shape::Foreach
        })
        .is_some()
    }

    /// Whether an approval that is asked, or was given, shows the output of a node.
    fn is_shown(&self, path: &str) -> bool {
        self.reader_that(path, |reader| {
            let rec = self.rec(reader);
            self.kind(reader) == "sim.approval"
                && (rec.forward.stand == Stand::Asking || !rec.forward.votes.is_empty())
        })
        .is_some()
    }

    fn reader_that(&self, path: &str, is: impl Fn(&str) -> bool) -> Option<super::Path> {
        let up = super::parent(path)?;
        let id = &self.node(path)?.id;
        // What is in what was passed over does not run.
        let mut around = std::iter::successors(Some(up), |at| super::parent(at));
        if around.any(|at| self.stand(at) == Stand::Skipped) {
            return None;
        }
        if super::is_item(path) {
            return None;
        }
        let reads = |expr: &Expr| expr.source().contains(&format!("steps.{id}.output"));
        self.inside(up).into_iter().find(|sibling| {
            is(sibling)
                && matches!(
                    self.node(sibling).map(|node| &node.body),
                    Some(Body::Step(step)) if match &step.action.with {
                        Template::Map(map) => map.values().any(|t| matches!(t, Template::Expr(e) if reads(e))),
                        _ => false,
                    }
                )
        })
    }

    /// The answer to whoever wants to go on with a failed node, by `retry`, `skip` or `resolve`.
    fn verdict_failed(&self, path: &str) -> Verdict {
        if self.is_shown(path) {
            return Either;
        }
        if self.closed && self.finished.is_some() {
            return Refuse("the run is closed");
        }
        // The `finally` of the run runs whatever was ordered.
        let mut in_root_finally = false;
        let mut at = Some(path);
        while let Some(current) = at {
            in_root_finally |= self.is_finally_step(current) && self.scope_of(current).is_empty();
            at = super::parent(current);
        }
        if in_root_finally && (self.cancelled.is_some() || self.undo_ordered) {
            return Either;
        }
        if self.cancelled.is_some() || self.undo_ordered {
            return Refuse("the run was cancelled, or is undone by order");
        }
        if let Some(outcome) = self.finished {
            return if outcome == Outcome::Stopped {
                Either
            } else {
                Refuse("the run is over")
            };
        }
        if self.goes_forward(path).is_ok() {
            let outermost = self.is_finally_step(path) || !self.in_finally(path);
            let around_failed = {
                let mut at = path;
                let mut failed = false;
                while let Some(up) = super::parent(at) {
                    failed |= self.stand(up).is_settled();
                    at = up;
                }
                failed
            };
            return if outermost && !around_failed {
                Accept
            } else {
                Either
            };
        }
        for scope in self.scopes_around(path) {
            let phase = self.scope(&scope).phase;
            if matches!(phase, ScopePhase::Undoing | ScopePhase::Cleaning) && !self.in_finally(path)
            {
                let busy = self.steps_in(&scope).into_iter().any(|step| {
                    matches!(
                        self.undo_stand(&step),
                        Stand::Running | Stand::Doubt | Stand::Failed
                    )
                });
                if busy {
                    return Refuse(
                        "something there is being undone, is in doubt, or failed to be undone",
                    );
                }
            }
        }
        Either
    }

    fn failed_container(&self, path: &str) -> Option<Verdict> {
        if self.shape(path) == Shape::Step {
            return None;
        }
        if self.stand(path) != Stand::Failed {
            return Some(Refuse("it did not fail"));
        }
        let failed = |(at, rec): (&super::Path, &super::Rec)| {
            **at != *path && super::within(at, path) && rec.forward.stand == Stand::Failed
        };
        if !self.rec(path).by_itself {
            // What failed inside may have been answered since.
            return Some(if self.recs.iter().any(failed) {
                Refuse("a step inside failed")
            } else {
                Either
            });
        }
        Some(match self.verdict_failed(path) {
            Accept => Either,
            verdict => verdict,
        })
    }

    fn verdict_retry(&self, path: &str) -> Verdict {
        if self.node(path).is_none() {
            return Refuse("there is no such step");
        }
        let rec = self.rec(path);
        for (phase, exec) in [(Phase::Undo, &rec.undo), (Phase::Do, &rec.forward)] {
            if exec.stand == Stand::Doubt && self.finished.is_none() {
                return if exec.not_done {
                    Either
                } else if self.only_a_person_can_say(path, phase) {
                    Refuse("no probe can find out whether it happened")
                } else {
                    Accept
                };
            }
        }
        if self
            .finished
            .is_some_and(|outcome| outcome != Outcome::Stopped)
        {
            return Refuse("the run is over");
        }
        if rec.undo.stand == Stand::Failed {
            return if self.finished.is_some()
                || self.undoing_scope(path).is_none()
                || self.given_up()
            {
                Either
            } else {
                Accept
            };
        }
        if let Some(verdict) = self.failed_container(path) {
            return verdict;
        }
        if rec.forward.stand != Stand::Failed {
            return Refuse("it did not fail, and is not in doubt");
        }
        match self.verdict_failed(path) {
            // What failed before it ran may fail again at once.
            Accept if !rec.forward.started => Either,
            Accept if self.needs(path).iter().any(|need| !self.passed(need)) => Either,
            Accept if self.reads_nothing(path) => Either,
            // Outside the windows it may be refused again at once: only the machine has the time at which it is judged.
            Accept if self.is_bound_by_windows(path) => Either,
            verdict => verdict,
        }
    }

    /// Whether it reads an output that may not be there.
    fn reads_nothing(&self, path: &str) -> bool {
        matches!(
            self.node(path).map(|node| &node.body),
            Some(Body::Step(step)) if !matches!(step.action.with, Template::Literal(_)) || step.gate.is_some()
        )
    }

    fn given_up(&self) -> bool {
        matches!(self.cancelled, Some((false, _)))
    }

    fn verdict_skip(&self, path: &str, output: &Value) -> Verdict {
        if self.node(path).is_none() {
            return Refuse("there is no such step");
        }
        if self
            .finished
            .is_some_and(|outcome| outcome != Outcome::Stopped)
        {
            return Refuse("the run is over");
        }
        let rec = self.rec(path);
        match rec.undo.stand {
            Stand::Failed
                if self.finished.is_none()
                    && !self.given_up()
                    && self.undoing_scope(path).is_some() =>
            {
                return Accept;
            }
            Stand::Running | Stand::Doubt if self.shape(path) == Shape::Step => {
                return Refuse("its undo runs, or is in doubt");
            }
            Stand::Pending if rec.effect && self.undoing_scope(path).is_some() => return Either,
            Stand::Pending | Stand::Skipped => {}
            _ => return Either,
        }
        if !self.is_skippable(path) {
            return Refuse("its kind cannot be skipped");
        }
        if output.is_null() && self.loop_may_read(path) || self.holds_unskippable(path) {
            return Either;
        }
        match rec.forward.stand {
            Stand::Running if self.is_pending_container(path) => Either,
            Stand::Running | Stand::Doubt | Stand::Succeeded | Stand::Skipped => {
                Refuse("it runs, is in doubt, or has settled")
            }
            Stand::Pending
            | Stand::Ordered
            | Stand::Backoff
            | Stand::Gated
            | Stand::Shut
            | Stand::Asleep
            | Stand::Asking
            | Stand::Ended => {
                if self.goes_forward(path).is_err() {
                    return if self.in_finally(path) {
                        Either
                    } else {
                        Refuse("its scope ends, or has ended")
                    };
                }
                if output.is_null() && self.reader(path).is_some() {
                    return Refuse("a step that has not run reads its output, and none was given");
                }
                if self.finished.is_some() {
                    Either
                } else {
                    self.placed(path)
                }
            }
            Stand::Failed => {
                if output.is_null() && self.reader(path).is_some() {
                    return Refuse("a step that has not run reads its output, and none was given");
                }
                self.verdict_failed(path)
            }
        }
    }

    /// A pending node may lie in a container that has settled, or failed.
    fn placed(&self, path: &str) -> Verdict {
        let mut at = path;
        while let Some(up) = super::parent(at) {
            if self.stand(up).is_settled() || self.breaks(up).is_some() {
                return Either;
            }
            // The machine knows what is inside only once the container has opened.
            if !up.is_empty() && self.stand(up) != Stand::Running {
                return Either;
            }
            at = up;
        }
        Accept
    }

    fn verdict_resolve(&self, path: &str, done: bool, output: &Value) -> Verdict {
        if self.node(path).is_none() {
            return Refuse("there is no such step");
        }
        if self.closed && self.finished.is_some() {
            return Refuse("the run is closed");
        }
        if self
            .finished
            .is_some_and(|outcome| outcome != Outcome::Stopped)
        {
            return Refuse("the run is over");
        }
        let rec = self.rec(path);
        if rec.undo.stand == Stand::Doubt || rec.forward.stand == Stand::Doubt {
            let exec = if rec.undo.stand == Stand::Doubt {
                &rec.undo
            } else {
                &rec.forward
            };
            let forward = rec.undo.stand != Stand::Doubt;
            if exec.not_done {
                return Either;
            }
            if done && forward && output.is_null() && self.reader(path).is_some() {
                return if exec.marked {
                    Either
                } else {
                    Refuse("a step that has not run reads its output, and none was given")
                };
            }
            return Accept;
        }
        if rec.undo.stand == Stand::Failed {
            return match (done, self.finished) {
                (false, _) => Refuse("a failed undo is not in doubt"),
                (true, None) if self.undoing_scope(path).is_some() && !self.given_up() => Accept,
                (true, _) => Either,
            };
        }
        if let Some(verdict) = self.failed_container(path) {
            return if verdict == Either { Either } else { verdict };
        }
        if rec.forward.stand != Stand::Failed {
            return Refuse("there is nothing to settle");
        }
        if !done {
            return Refuse("it failed, and is not in doubt");
        }
        if !self.writes(path) {
            return Refuse("it only reads");
        }
        // An item of a loop that has begun may read it, too.
        if output.is_null() {
            return match self.verdict_failed(path) {
                Accept => Either,
                verdict => verdict,
            };
        }
        self.verdict_failed(path)
    }
}
