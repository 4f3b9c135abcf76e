//! Each event: whether it may come now, and what it says.
use super::{
    Check, Oracle, Path, Shape, parent,
    record::{Ending, Scope, ScopePhase, Stand},
    standing::Reaction,
    within, wrong,
};
use crate::simulation::{
    adapter,
    world::{Slot, World},
};
use windlass_engine::{
    graph::Undo,
    machine::{
        Awoken, Command, Event, EventBody, Failed, SettledBy, SkipCause, Skipped, StartCause,
        Started, Succeeded,
    },
    step::{Certainty, Phase, WaitOn, Woken},
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
            )
        {
            return wrong("P11", format!("after the end of the run: {body:?}"));
        }
        match body {
            EventBody::LeaseTaken(_) => {
                for rec in self.recs.values_mut() {
                    for exec in [&mut rec.forward, &mut rec.undo] {
                        exec.lost = exec.stand == Stand::Running;
                        exec.asked = None;
                    }
                }
                Ok(())
            }
            EventBody::Expanded(e) => {
                self.rec_mut(&e.node).items = Some(e.items.len());
                Ok(())
            }
            EventBody::Started(e) => match e.phase {
                Phase::Do => self.on_started(e),
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
                exec.votes.clear();
                exec.approved = None;
                Ok(())
            }
            EventBody::Awoken(e) => self.on_awoken(e),
            EventBody::Succeeded(e) => match e.phase {
                Phase::Do => self.on_succeeded(e, world),
                Phase::Undo => self.on_undone(e, world),
            },
            EventBody::Failed(e) => self.on_failed(e),
            EventBody::RetryScheduled(e) => {
                let exec = self.exec_mut(&e.node, e.phase);
                exec.stand = Stand::Backoff;
                exec.not_done = false;
                Ok(())
            }
            EventBody::Gated(e) => {
                self.check_needs(&e.node)?;
                self.exec_mut(&e.node, Phase::Do).stand = Stand::Gated;
                Ok(())
            }
            EventBody::Skipped(e) => match e.phase {
                Phase::Do => {
                    if e.why == SkipCause::Ended && self.is_repeatable(&e.node) {
                        // Nobody asks about it: an undo of nothing does nothing.
                        world.effects.entry(e.node.clone()).or_default().maybe = true;
                    }
                    self.on_skipped(e)
                }
                Phase::Undo => self.on_undo_skipped(e),
            },
            EventBody::Doubted(e) => {
                let exec = self.exec_mut(&e.node, e.phase);
                exec.stand = Stand::Doubt;
                exec.asked = Some(true);
                exec.not_done = false;
                Ok(())
            }
            EventBody::Probed(e) => {
                let exec = self.exec_mut(&e.node, e.phase);
                exec.asked = Some(false);
                exec.not_done = e.in_doubt.is_none();
                Ok(())
            }
            EventBody::Voted(e) => {
                let phase = if self.undo_stand(&e.node) == Stand::Asking {
                    Phase::Undo
                } else {
                    Phase::Do
                };
                self.exec_mut(&e.node, phase).votes.push(e.vote.clone());
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
                    world.by_hand(path, Phase::Undo);
                    self.settle_undo(path);
                    return Ok(());
                }
                if !self.writes(path) {
                    return wrong("P12", format!("{path} only reads, and is resolved as done"));
                }
                if before == Stand::Failed {
                    self.reopen(path);
                }
                world.by_hand(path, Phase::Do);
                let truly = world.effects.get(path).is_some_and(|effect| effect.full);
                let rec = self.rec_mut(path);
                rec.forward.stand = Stand::Succeeded;
                rec.effect = true;
                rec.by_hand = before == Stand::Failed || !truly;
                if before == Stand::Failed {
                    self.ask_about_others(path);
                }
                Ok(())
            }
            EventBody::RetryOrdered(e) => {
                if self.exec(&e.node, e.phase).stand == Stand::Doubt {
                    self.exec_mut(&e.node, e.phase).asked = Some(true);
                    return Ok(());
                }
                if e.phase == Phase::Do {
                    self.reopen(&e.node);
                }
                self.exec_mut(&e.node, e.phase).stand = Stand::Ordered;
                if e.phase == Phase::Do {
                    self.ask_about_others(&e.node);
                }
                Ok(())
            }
            EventBody::InputEdited(e) => {
                if e.name == "open" {
                    self.inputs_open = e.value.as_bool() == Some(true);
                }
                for rec in self.recs.values_mut() {
                    if rec.forward.stand == Stand::Gated {
                        rec.forward.stand = Stand::Pending;
                    }
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
            EventBody::Overran(_) => {
                let undo = self.graph.policy.on_failure == windlass_engine::graph::OnFailure::Undo;
                self.end("", undo, false);
                Ok(())
            }
            EventBody::CompensationStarted(e) => self.on_compensation(&e.scope),
            EventBody::CleanupStarted(e) => self.on_cleanup(&e.scope),
            EventBody::FinallyStarted(e) => self.on_finally(&e.scope, e.outcome, world),
            EventBody::Finished(e) => self.on_finished(e, world),
            EventBody::Reopened(e) => {
                self.finished = None;
                self.cancelled = None;
                self.undo_ordered = e.undo;
                let ending = e.undo.then_some(Ending {
                    undo: true,
                    cancelled: false,
                    outer: false,
                });
                if e.only_finally {
                    self.scope_mut("").phase = ScopePhase::Finally;
                    return Ok(());
                }
                self.finally_runs_again("");
                let state = self.scope_mut("");
                state.phase = ScopePhase::Forward;
                state.ending = ending;
                Ok(())
            }
            _ => Ok(()),
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

    // ---- starts --------------------------------------------------------------------------------------

    /// What every start of an execution must be.
    pub(super) fn check_start(&self, e: &Started) -> Check {
        let exec = self.exec(&e.node, e.phase);
        let (path, prev) = (&e.node, exec.stand);
        if e.attempt <= exec.attempt {
            return wrong(
                "P10",
                format!(
                    "{path} {:?}: attempt {} comes after attempt {}",
                    e.phase, e.attempt, exec.attempt
                ),
            );
        }
        let interrupted = e.cause == StartCause::Interrupted;
        let legal = match prev {
            Stand::Pending | Stand::Ordered | Stand::Backoff | Stand::Gated | Stand::Ended => true,
            Stand::Running => exec.lost && interrupted || self.rec(path).reopened,
            Stand::Doubt => exec.not_done,
            // A part of an undo that had nothing to do; the next one starts.
            Stand::Skipped => e.phase == Phase::Undo && !self.rec(path).left,
            Stand::Asleep | Stand::Asking | Stand::Succeeded | Stand::Failed => false,
        };
        if !legal {
            return wrong(
                "P1",
                format!("{path} {:?} starts though it is {prev:?}", e.phase),
            );
        }
        if self.paused && !interrupted {
            return wrong(
                "P9",
                format!("{path} {:?} starts while a person's pause holds", e.phase),
            );
        }
        let ordered = prev == Stand::Ordered
            || self
                .recs
                .iter()
                .any(|(at, rec)| within(at, path) && rec.forward.stand == Stand::Ordered);
        if !interrupted
            && !ordered
            && let Some(asks) = self.asking().first()
        {
            return wrong(
                "P9",
                format!(
                    "{path} {:?} starts while the failure of {asks} asks",
                    e.phase
                ),
            );
        }
        Ok(())
    }

    fn check_needs(&self, path: &str) -> Check {
        for need in self.needs(path) {
            if !self.passed(&need) {
                return wrong(
                    "P3",
                    format!(
                        "{path} starts, and what it needs has not passed: {need} is {:?}",
                        self.stand(&need)
                    ),
                );
            }
        }
        let mut at = path;
        while let Some(up) = parent(at) {
            if self.shape(up) != Shape::Root {
                let rec = self.rec(up);
                if rec.forward.stand != Stand::Running {
                    return wrong(
                        "P3",
                        format!(
                            "{path} starts inside {up}, which is {:?}",
                            rec.forward.stand
                        ),
                    );
                }
                if rec.reopened
                    && let Some(need) = self.needs(up).iter().find(|need| !self.passed(need))
                {
                    return wrong(
                        "P3",
                        format!(
                            "{path} starts, and {up} around it needs {need}, which has not passed"
                        ),
                    );
                }
            }
            // A playbook that is called runs to its end, whatever runs again around it.
            if self.shape(up) == Shape::Call {
                break;
            }
            at = up;
        }
        Ok(())
    }

    fn check_loops(&self, e: &Started, prev: Stand) -> Check {
        let path: &str = &e.node;
        let mut at = path;
        while let Some(up) = parent(at) {
            if self.shape(up) == Shape::Foreach {
                let most = self
                    .node(up)
                    .and_then(|node| node.foreach.as_ref())
                    .map_or(1, |def| def.max_parallel.max(1) as usize);
                let others = self.inside(up);
                let busy: Vec<&Path> = others
                    .iter()
                    .filter(|item| ***item != *at)
                    .filter(|item| {
                        let rec = self.rec(item);
                        let open = rec.forward.stand == Stand::Running && !rec.reopened;
                        open || self.active_in(item).is_some()
                    })
                    .collect();
                if busy.len() + 1 > most {
                    return wrong(
                        "P4",
                        format!(
                            "{path} starts beside {busy:?}, and max_parallel of {up} is {most}"
                        ),
                    );
                }
                let starts_item = at == path && prev == Stand::Pending;
                if starts_item
                    && let Some(earlier) = others
                        .iter()
                        .take_while(|item| ***item != *at)
                        .find(|item| matches!(self.stand(item), Stand::Pending | Stand::Ended))
                {
                    return wrong(
                        "P4",
                        format!("{path} starts before {earlier}: items start in order"),
                    );
                }
            }
            at = up;
        }
        Ok(())
    }

    fn on_started(&mut self, e: &Started) -> Check {
        let path: &str = &e.node;
        let prev = self.stand(path);
        self.check_start(e)?;
        if let Err(why) = self.goes_forward(path) {
            return wrong("P9", format!("{path} starts, though {why}"));
        }
        let fresh = matches!(
            prev,
            Stand::Pending | Stand::Ended | Stand::Gated | Stand::Ordered
        );
        if fresh {
            self.check_needs(path)?;
            self.check_loops(e, prev)?;
        }
        if matches!(prev, Stand::Pending | Stand::Gated) {
            let mut at = path;
            while let Some(up) = parent(at) {
                if let Some(why) = self.breaks(up) {
                    let property = if self.shape(up) == Shape::Foreach {
                        "P4"
                    } else {
                        "P9"
                    };
                    return wrong(property, format!("{path} starts, though {why}"));
                }
                if matches!(self.shape(up), Shape::Root | Shape::Call) {
                    break;
                }
                at = up;
            }
        }
        if fresh && self.is_finally_step(path) {
            let scope = self.scope_of(path);
            for earlier in self.finally_of(&scope) {
                if *earlier == *path {
                    break;
                }
                let stand = self.stand(&earlier);
                if !stand.is_settled() && !matches!(stand, Stand::Ordered | Stand::Ended) {
                    return wrong(
                        "P9",
                        format!(
                            "{path} starts before {earlier}, which is {stand:?}: finally is in order"
                        ),
                    );
                }
            }
        }
        let gate = self.shape(path) == Shape::Step && self.node(path).is_some_and(|node| {
            matches!(&node.body, windlass_engine::graph::Body::Step(step) if step.gate.is_some())
        });
        if gate && fresh && self.scope_of(path).is_empty() && !self.inputs_open {
            return wrong("P3", format!("{path} starts, and its gate does not hold"));
        }
        self.starts += 1;
        let order = self.starts;
        let shape = self.shape(path);
        let reopened = self.rec(path).reopened;
        let rec = self.rec_mut(path);
        rec.forward.stand = Stand::Running;
        rec.forward.attempt = e.attempt;
        rec.forward.lost = false;
        rec.forward.marked = false;
        rec.forward.not_done = false;
        rec.forward.started = true;
        // An attempt that is interrupted goes on with the decision that it was woken by.
        if e.cause != StartCause::Interrupted {
            rec.forward.votes.clear();
            rec.forward.approved = None;
        }
        rec.asks = false;
        rec.outer_end = false;
        rec.reopened = false;
        if rec.order == 0 || matches!(prev, Stand::Pending) {
            rec.order = order;
        }
        if rec.undo.stand == Stand::Succeeded || !rec.effect {
            // A new life: what was undone is not undone of this one.
            rec.undo.stand = Stand::Pending;
            rec.undo.part = 0;
            rec.undone_in = None;
        }
        if shape == Shape::Call && !reopened {
            self.scopes.insert(e.node.clone(), Scope::default());
        }
        Ok(())
    }

    fn on_awoken(&mut self, e: &Awoken) -> Check {
        let path = &e.node;
        let stand = self.exec(path, e.phase).stand;
        if !matches!(stand, Stand::Asleep | Stand::Asking) {
            return wrong(
                "P1",
                format!("{path} {:?} is awoken and is {stand:?}", e.phase),
            );
        }
        let vote = matches!(e.by, Woken::Decision(_));
        if !vote && self.paused {
            return wrong(
                "P9",
                format!(
                    "{path} is awoken by {:?} while a person's pause holds",
                    e.by
                ),
            );
        }
        if !vote && let Some(asks) = self.asking().first() {
            return wrong(
                "P9",
                format!(
                    "{path} is awoken by {:?} while the failure of {asks} asks",
                    e.by
                ),
            );
        }
        if e.phase == Phase::Do
            && let Err(why) = self.goes_forward(path)
        {
            return wrong("P9", format!("{path} is awoken, though {why}"));
        }
        if let Woken::Decision(decision) = &e.by
            && decision.approved
        {
            self.check_decision(path, e.phase)?;
        }
        let exec = self.exec_mut(path, e.phase);
        exec.stand = Stand::Running;
        exec.approved = match &e.by {
            Woken::Decision(decision) => Some(decision.approved),
            Woken::Timer | Woken::Deadline | Woken::Signal(_) => None,
        };
        Ok(())
    }

    /// Enough people, who may, have said yes, and gave the same answers.
    fn check_decision(&self, path: &str, phase: Phase) -> Check {
        let request = crate::simulation::world::request(path);
        let votes = &self.exec(path, phase).votes;
        let Some(last) = votes.last() else {
            return wrong("P12", format!("{path} is approved without a vote"));
        };
        let mut people: Vec<&str> = votes
            .iter()
            .filter(|vote| vote.approve && vote.answers == last.answers)
            .map(|vote| vote.who.as_str())
            .filter(|who| request.groups.is_empty() || ["bo", "cy", "di"].contains(who))
            .filter(|who| !(request.separation_of_duties && *who == "ana"))
            .collect();
        people.sort_unstable();
        people.dedup();
        let rejected = votes.iter().any(|vote| !vote.approve);
        if rejected || people.len() < request.quorum as usize {
            return wrong(
                "P12",
                format!(
                    "{path} is approved by {people:?}, rejected {rejected}, quorum {}",
                    request.quorum
                ),
            );
        }
        Ok(())
    }

    // ---- ends ----------------------------------------------------------------------------------------

    fn on_succeeded(&mut self, e: &Succeeded, world: &World) -> Check {
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

    fn on_failed(&mut self, e: &Failed) -> Check {
        let path: &str = &e.node;
        let shape = self.shape(path);
        if e.phase == Phase::Undo {
            let exec = self.exec_mut(path, Phase::Undo);
            exec.failure = Some(e.failure.clone());
            if e.is_final {
                exec.stand = Stand::Failed;
            }
            return Ok(());
        }
        let stand = self.stand(path);
        if stand.is_settled() {
            return wrong("P1", format!("{path} fails and is {stand:?}"));
        }
        let acts = self.writes(path) || matches!(self.undo_of(path), Some(Undo::Steps(_)));
        let certainty = e.failure.certainty;
        let undone = self.scope_mut_ending(path);
        let rec = self.rec_mut(path);
        rec.forward.failure = Some(e.failure.clone());
        if shape == Shape::Step && acts {
            rec.effect |=
                certainty == Certainty::Partial || certainty == Certainty::Unknown && e.is_final;
        }
        if !e.is_final {
            return Ok(());
        }
        rec.forward.stand = Stand::Failed;
        rec.outer_end = shape == Shape::Call && undone;
        rec.reopened = false;
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
            self.check_scope_end(path)?;
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
    fn scope_mut_ending(&self, path: &str) -> bool {
        self.scopes
            .get(path)
            .and_then(|scope| scope.ending)
            .is_some_and(|ending| ending.outer)
    }

    fn on_skipped(&mut self, e: &Skipped) -> Check {
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
                let acted = self.writes(path) && self.rec(path).forward.started;
                let rec = self.rec_mut(path);
                rec.forward.stand = Stand::Ended;
                rec.effect |= acted;
            }
            SkipCause::Operator { .. } => {
                if !self.is_skippable(path) {
                    return wrong("P12", format!("{path} is skipped, and cannot be"));
                }
                match stand {
                    Stand::Failed => self.reopen(path),
                    Stand::Running | Stand::Doubt | Stand::Succeeded | Stand::Skipped => {
                        return wrong("P2", format!("{path} is skipped and is {stand:?}"));
                    }
                    Stand::Pending
                    | Stand::Ordered
                    | Stand::Backoff
                    | Stand::Gated
                    | Stand::Asleep
                    | Stand::Asking
                    | Stand::Ended => {}
                }
                // What slept after its act leaves an effect behind.
                let acted = matches!(stand, Stand::Asleep | Stand::Asking) && self.writes(path);
                let rec = self.rec_mut(path);
                rec.effect |= acted;
                rec.forward.stand = Stand::Skipped;
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

    // ---- people --------------------------------------------------------------------------------------

    fn on_cancelled(&mut self, undo: bool, force: bool) {
        self.cancelled = Some((undo, force));
        self.paused = false;
        // What asked waits for no answer any more.
        let asked: Vec<Path> = self
            .recs
            .iter()
            .filter(|(_, rec)| rec.forward.stand == Stand::Failed)
            .map(|(path, _)| path.clone())
            .collect();
        for path in asked {
            let reaction = self.reaction(&path);
            let asks = std::mem::take(&mut self.rec_mut(&path).asks);
            let scope = self.scope_of(&path);
            match reaction {
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
                self.scope_mut("").ending = Some(Ending {
                    undo,
                    cancelled: true,
                    outer: false,
                });
            }
        }
        if !undo {
            for state in self.scopes.values_mut() {
                if matches!(state.phase, ScopePhase::Undoing | ScopePhase::Cleaning)
                    && let Some(ending) = &mut state.ending
                {
                    ending.undo = false;
                    ending.cancelled = true;
                }
            }
        }
    }

    /// A failed node gets another chance: what is around it is open again, and goes forward.
    pub(super) fn reopen(&mut self, path: &str) {
        let mut at = path.to_owned();
        while let Some(up) = parent(&at).map(str::to_owned) {
            let rec = self.rec_mut(&up);
            if rec.forward.stand.is_settled() && !up.is_empty() {
                rec.forward.stand = Stand::Running;
                rec.reopened = true;
                rec.asks = false;
            }
            at = up;
        }
        let mut inner = path.to_owned();
        for scope in self.scopes_around(path) {
            let of_finally = self.in_finally(&inner);
            inner = scope.to_string();
            let state = self.scope_mut(&scope);
            if of_finally {
                state.phase = ScopePhase::Finally;
                continue;
            }
            if state.phase == ScopePhase::Forward && state.ending.is_none() {
                continue;
            }
            self.finally_runs_again(&scope);
            let state = self.scope_mut(&scope);
            state.phase = ScopePhase::Forward;
            state.ending = None;
            self.call_off(&scope, path);
        }
    }

    /// A group or loop around it that would break at once by its other failures: they ask, too.
    fn ask_about_others(&mut self, path: &str) {
        let mut at = path.to_owned();
        while let Some(up) = parent(&at).map(str::to_owned) {
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

    /// What a scope's end did is pending again.
    fn call_off(&mut self, scope: &str, but: &str) {
        // Scopes inside that end only since this one did go forward with it.
        for (at, state) in &mut self.scopes {
            if within(at, scope)
                && state.phase == ScopePhase::Forward
                && state.ending.is_some_and(|ending| ending.outer)
            {
                state.ending = None;
            }
        }
        let all: Vec<Path> = self
            .recs
            .keys()
            .filter(|at| within(at, scope) && ***at != *scope)
            .cloned()
            .collect();
        for at in &all {
            let ends = matches!(self.reaction(at), Reaction::End { .. });
            let of_scope = *self.scope_of(at) == *scope;
            let rec = self.rec_mut(at);
            if rec.forward.stand == Stand::Ended {
                rec.forward.stand = Stand::Pending;
            }
            if rec.forward.stand == Stand::Failed
                && ends
                && of_scope
                && **at != *but
                && !rec.outer_end
            {
                rec.asks = true;
            }
            let undone_here = rec.undone_in.as_deref() == Some(scope);
            let was = rec.forward.stand;
            if undone_here {
                rec.undone_in = None;
                rec.undo.stand = Stand::Pending;
                if was != Stand::Failed {
                    rec.forward.stand = Stand::Pending;
                }
            }
            let outer_end = rec.outer_end;
            if outer_end {
                rec.outer_end = false;
                rec.forward.stand = Stand::Running;
                rec.reopened = true;
                self.finally_runs_again(at);
                let state = self.scope_mut(at);
                state.phase = ScopePhase::Forward;
                state.ending = None;
                self.call_off(at, but);
            }
            if undone_here && was != Stand::Failed {
                let mut up = parent(at).map(str::to_owned);
                while let Some(container) = up.filter(|up| **up != *scope && !up.is_empty()) {
                    let is_call = self.shape(&container) == Shape::Call;
                    let rec = self.rec_mut(&container);
                    if rec.forward.stand.is_settled() {
                        rec.forward.stand = Stand::Running;
                        rec.reopened = true;
                    }
                    if is_call {
                        self.finally_runs_again(&container);
                        let state = self.scope_mut(&container);
                        state.phase = ScopePhase::Forward;
                        state.ending = None;
                    }
                    up = parent(&container).map(str::to_owned);
                }
            }
        }
    }
}
