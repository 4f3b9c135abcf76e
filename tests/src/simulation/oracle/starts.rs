//! What starts or is woken: after what it needs, in its place, while nothing holds it.
use super::{
    Check, Oracle, Path, Shape, parent,
    record::{Scope, Stand},
    within, wrong,
};
use windlass_engine::{
    machine::{Awoken, StartCause, Started},
    step::{Phase, Woken},
    value::Timestamp,
};

impl Oracle {
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
            Stand::Pending
            | Stand::Ordered
            | Stand::Backoff
            | Stand::Gated
            | Stand::Shut
            | Stand::Ended => true,
            Stand::Running => {
                // An item that is open again starts once more: it needs one of its loop's slots.
                let in_item =
                    std::iter::successors(Some(&**path), |at| parent(at)).any(super::is_item);
                let waits = in_item && self.shape(path) != Shape::Step;
                exec.lost && interrupted || self.rec(path).reopened || waits
            }
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
        if self.paused {
            return wrong(
                "P9",
                format!("{path} {:?} starts while a person's pause holds", e.phase),
            );
        }
        let ordered = prev == Stand::Ordered
            || self.rec(path).ordered
            || self
                .recs
                .iter()
                .any(|(at, rec)| within(at, path) && rec.forward.stand == Stand::Ordered);
        // What is being undone is undone, whatever asks elsewhere.
        if !interrupted
            && !ordered
            && e.phase == Phase::Do
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

    pub(super) fn check_needs(&self, path: &str) -> Check {
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
        // A `finally`, and a playbook that is called, run to their end, whatever runs again around them.
        let mut goes_on = false;
        while let Some(up) = parent(at) {
            goes_on |= self.is_finally_step(at) || self.shape(up) == Shape::Call;
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
                    && !goes_on
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
            at = up;
        }
        Ok(())
    }

    /// What it needs, or a container around it in its playbook needs, and has not passed.
    pub(super) fn needs_around(&self, path: &str) -> Vec<Path> {
        let mut at = Some(path);
        let mut all = Vec::new();
        while let Some(current) = at {
            all.extend(self.needs(current));
            at = parent(current).filter(|up| !matches!(self.shape(up), Shape::Root | Shape::Call));
        }
        all.retain(|need| !self.passed(need));
        all
    }

    /// What a container around it that takes up nothing new would break, and why it takes up nothing.
    pub(super) fn broken_around(&self, path: &str) -> Option<(&'static str, String)> {
        let mut at = path;
        while let Some(up) = parent(at) {
            if let Some(why) = self.breaks(up) {
                let property = match self.shape(up) {
                    Shape::Foreach => "P4",
                    Shape::Root | Shape::Call | Shape::Group | Shape::Step => "P9",
                };
                return Some((property, why));
            }
            if matches!(self.shape(up), Shape::Root | Shape::Call) {
                break;
            }
            at = up;
        }
        None
    }

    pub(super) fn check_loops(&self, e: &Started, prev: Stand) -> Check {
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
                // One in which a person ordered something comes first.
                let ordered = self.rec(at).ordered
                    || self.recs.iter().any(|(inner, rec)| {
                        within(inner, at) && rec.forward.stand == Stand::Ordered
                    });
                let starts_item = at == path && prev == Stand::Pending && !ordered;
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

    pub(super) fn on_started(&mut self, e: &Started, at: Timestamp) -> Check {
        let path: &str = &e.node;
        let prev = self.stand(path);
        self.check_start(e)?;
        if self.is_bound_by_windows(path) && !self.is_open(at) {
            return wrong("P13", format!("{path} starts outside the windows"));
        }
        if let Err(why) = self.goes_forward(path) {
            return wrong("P9", format!("{path} starts, though {why}"));
        }
        let fresh = matches!(
            prev,
            Stand::Pending | Stand::Ended | Stand::Gated | Stand::Shut | Stand::Ordered
        );
        if fresh {
            self.check_needs(path)?;
            self.check_loops(e, prev)?;
        }
        if matches!(prev, Stand::Pending | Stand::Gated | Stand::Shut)
            && let Some((property, why)) = self.broken_around(path)
        {
            return wrong(property, format!("{path} starts, though {why}"));
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
        rec.ordered = false;
        if rec.order == 0 || matches!(prev, Stand::Pending) {
            rec.order = order;
        }
        rec.undo.started = false;
        rec.undo.acted = false;
        rec.leave_no_more();
        if rec.undo.stand == Stand::Succeeded || !rec.effect {
            // A new life: what was undone is not undone of this one.
            rec.undo.stand = Stand::Pending;
            rec.undo.part = 0;
            rec.undone_in = None;
        }
        // One that a person ordered continues with what had ended it since.
        let continues = prev == Stand::Ordered && self.scopes.contains_key(&e.node);
        if shape == Shape::Call && !reopened && !continues {
            self.scopes.insert(e.node.clone(), Scope::default());
        }
        Ok(())
    }

    pub(super) fn on_awoken(&mut self, e: &Awoken) -> Check {
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
        // What is being undone is undone, whatever asks elsewhere.
        if !vote
            && e.phase == Phase::Do
            && let Some(asks) = self.asking().first()
        {
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
    pub(super) fn check_decision(&self, path: &str, phase: Phase) -> Check {
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
}
