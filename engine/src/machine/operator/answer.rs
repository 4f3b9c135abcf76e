//! `retry`, `skip`, `resolve`: a person's answer to a step that failed, is in doubt or waits.
use super::{Command, Submitted, Verdict};
use crate::{
    graph::{Body, NodeId, readers},
    machine::{
        core::{Machine, ScopePhase},
        event::*,
        execution::{Asked, At, Stage},
        state::{InstanceId, Role},
        tree::ROOT,
    },
    step::{Effect, Phase},
    value::{Timestamp, Value},
};

impl Machine {
    pub(super) fn judge_retry(&self, node: &str, who: &str) -> Verdict {
        let (id, phase) = self.unsettled(node)?;
        let instance = self.get(id);
        let execution = instance.execution(phase);
        if let At::InDoubt { asked, .. } = &execution.at {
            return match asked {
                Asked::InVain | Asked::Wanted if !self.can_be_asked(id, phase) => Err(format!(
                    "only a person can say whether {node} happened: `resolve` it"
                )),
                // Wanted: whoever takes a run over asks at once, before it reads the order to ask.
                Asked::InVain | Asked::Wanted => Ok(vec![self.ordered(id, phase, who)]),
                Asked::NotDone => Err(format!(
                    "it is known that {node} did not happen; its next attempt follows"
                )),
            };
        }
        if phase == Phase::Undo {
            return Ok(vec![self.ordered(id, phase, who)]);
        }
        match self.failed_inside(id).as_slice() {
            [] => {}
            [inside] => return Err(format!("{node} failed because of {inside}: `retry` that")),
            [inside, others @ ..] => {
                return Err(format!(
                    "{node} failed because of {inside} and {} more in it: `retry` each of them",
                    others.len()
                ));
            }
        }
        self.not_shown(id)?;
        let mut doing = self.forward_again(id, who)?;
        if !self.runs_again_with_the_run(id) {
            doing.push(self.ordered(id, phase, who));
        }
        Ok(doing)
    }

    /// A group or playbook that ended only because the run did, or of which the run has undone something, or begun to: it continues as
    /// soon as the run does.
    fn runs_again_with_the_run(&self, id: InstanceId) -> bool {
        let state = self.scopes.get(&id);
        let undone = |inner: &InstanceId| {
            self.get(*inner).undone_by == Some(ROOT) || self.may_be_half_undone(*inner)
        };
        self.finished.is_some()
            && (state.is_some_and(|state| state.outer_end)
                || self.tree.inside(id).iter().any(undone))
    }

    fn ordered(&self, id: InstanceId, phase: Phase, who: &str) -> EventBody {
        EventBody::RetryOrdered(RetryOrdered {
            node: self.get(id).path.clone(),
            phase,
            who: who.to_owned(),
        })
    }

    /// The steps inside a container for which the container failed.
    fn failed_inside(&self, container: InstanceId) -> Vec<&str> {
        let failed = |id: &InstanceId| self.tree.stage(*id, Phase::Do) == Stage::Failed;
        let inside = self.tree.inside(container).into_iter().filter(failed);
        // The innermost: what is around it failed because of it.
        inside
            .filter(|id| !self.tree.inside(*id).iter().any(failed))
            .map(|id| &*self.get(id).path)
            .collect()
    }

    /// A retry that would fail at once without having run is no help: whoever orders it is told why instead.
    pub(super) fn check_retry(
        &self,
        submitted: &Submitted,
        tried: &Self,
        at: Timestamp,
    ) -> Result<(), String> {
        let Command::Retry { node } = &submitted.command else {
            return Ok(());
        };
        let Some(id) = self.id_of(node) else {
            return Ok(());
        };
        if tried.tree.stage(id, Phase::Do) != Stage::Idle {
            return Ok(());
        }
        // A step whose undo was left half-way is not done again by itself: it asks as soon as the scope goes forward. A run that was
        // cancelled waits for no answer.
        if tried.is_halted(id) {
            let ending = tried.ending_of(tried.get(id).scope);
            let why = ending.map_or_else(String::new, |ending| format!(": {}", tried.why(ending)));
            return Err(format!("{node} would not run{why}"));
        }
        if tried.tally(id).needs > 0 {
            return Ok(());
        }
        match tried.start(id, at) {
            EventBody::Failed(failed) => Err(format!(
                "{node} would fail again at once: {}",
                failed.failure.message
            )),
            _ => Ok(()),
        }
    }

    /// The execution of a node that a person may settle: in doubt, or failed for good.
    fn unsettled(&self, node: &str) -> Result<(InstanceId, Phase), String> {
        let id = self.named(node)?;
        let instance = self.get(id);
        for phase in [Phase::Undo, Phase::Do] {
            let stage = instance.execution(phase).stage();
            // An undo that failed and was given up is no question any more; the step itself may be one.
            let is_open = phase == Phase::Do || self.compensating(id).is_some();
            if stage == Stage::InDoubt || stage == Stage::Failed && is_open {
                return Ok((id, phase));
            }
        }
        Err(format!(
            "{node} has not failed and is not in doubt: its state is {}",
            instance.state.as_str()
        ))
    }

    /// What lets the scopes around a failed node go forward again.
    fn forward_again(&self, id: InstanceId, who: &str) -> Verdict {
        let finallies: Vec<InstanceId> = std::iter::once(id)
            .chain(self.tree.around(id))
            .filter_map(|at| self.tree.finally_of(at))
            .collect();
        // The `finally` of a run that was cancelled runs like any other.
        let ends_by_order = !finallies.contains(&ROOT);
        if let Some(cancelled) = self.cancelled.as_ref().filter(|_| ends_by_order) {
            return Err(format!(
                "{} has cancelled the run: it does not go forward again",
                cancelled.who
            ));
        }
        if let Some(ordered) = self.undo_ordered.as_ref().filter(|_| ends_by_order) {
            return Err(format!(
                "{ordered} has ordered that the run is undone: it does not go forward again"
            ));
        }
        if self.finished.is_some() {
            if finallies.iter().any(|scope| *scope != ROOT) {
                return Err("the `finally` that it is in is over".to_owned());
            }
            return Ok(vec![EventBody::Reopened(Reopened {
                who: who.to_owned(),
                undo: false,
                only_finally: !finallies.is_empty(),
            })]);
        }
        if self.scopes.get(&ROOT).is_some_and(|root| root.turns_back) {
            return Err("the run turns back from its finally to undo what it did".to_owned());
        }
        for scope in self.tree.scopes_around(id) {
            let in_finally = finallies.contains(&scope);
            self.may_go_forward(scope, in_finally)?;
            // What is around a `finally` that runs does not turn for it.
            if in_finally {
                break;
            }
        }
        Ok(Vec::new())
    }

    fn may_go_forward(&self, scope: InstanceId, in_finally: bool) -> Result<(), String> {
        match (self.scope_phase(scope), in_finally) {
            (ScopePhase::Finally, true) => Ok(()),
            (ScopePhase::Over, true) => Err("the `finally` that it is in is over".to_owned()),
            // What ends inside one that goes forward ends for a reason between them.
            (ScopePhase::Forward, _) if self.ending_of(scope).is_none() => Ok(()),
            (ScopePhase::Forward, _) => self.nothing_inside_is_ending(scope),
            (ScopePhase::Undoing | ScopePhase::Cleaning, _) => self.nothing_is_being_undone(scope),
            // Its `finally` runs again later, from the start: what of it is under way comes to its end first.
            (ScopePhase::Finally | ScopePhase::Over, false) => {
                let mut steps = self.tree.inside(scope).into_iter();
                let active = steps.find(|step| {
                    let is_its = self.tree.finally_of(*step) == Some(scope);
                    is_its && self.tree.stage(*step, Phase::Do).is_active()
                });
                active.map_or(Ok(()), |step| {
                    Err(format!(
                        "{} runs in `finally`; order it when that has ended, or `skip` that",
                        self.get(step).path
                    ))
                })
            }
        }
    }

    /// A playbook that is called and ends since this scope does comes to its end first: what it has undone by then would be
    /// missing in a scope that goes forward.
    fn nothing_inside_is_ending(&self, scope: InstanceId) -> Result<(), String> {
        let mut ending = self.tree.inside(scope).into_iter().filter(|id| {
            let state = self.scopes.get(id);
            state.is_some_and(|state| state.outer_end && state.phase != ScopePhase::Over)
        });
        ending.next().map_or(Ok(()), |call| {
            Err(format!(
                "{} is ending; order it when that has ended",
                self.get(call).path
            ))
        })
    }

    /// A compensation is called off only between two undos: what is being undone is neither there nor gone.
    fn nothing_is_being_undone(&self, scope: InstanceId) -> Result<(), String> {
        for id in self.tree.inside(scope) {
            let path = &self.get(id).path;
            match self.tree.stage(id, Phase::Undo) {
                Stage::Running | Stage::Backoff | Stage::Waiting | Stage::AwaitingApproval => {
                    return Err(format!(
                        "{path} is being undone; `pause` the run, and order it when that has ended"
                    ));
                }
                Stage::InDoubt => {
                    return Err(format!(
                        "it is not known whether {path} is undone: `resolve` that first"
                    ));
                }
                Stage::Failed => {
                    return Err(format!(
                        "the undo of {path} failed, so it is not known what is left of it: `retry`, `resolve` or `skip` \
                         that first"
                    ));
                }
                Stage::Idle | Stage::Succeeded | Stage::Skipped | Stage::Ended => {}
            }
        }
        Ok(())
    }

    // ---- skip ----------------------------------------------------------------------------------------

    pub(super) fn judge_skip(
        &self,
        node: &str,
        output: &Value,
        because: &str,
        who: &str,
    ) -> Verdict {
        let id = self.named(node)?;
        let instance = self.get(id);
        let skipped = |phase| {
            EventBody::Skipped(Box::new(Skipped {
                node: instance.path.clone(),
                phase,
                why: SkipCause::Operator {
                    who: who.to_owned(),
                    because: because.to_owned(),
                    output: output.clone(),
                },
            }))
        };
        let undo = instance.undo.stage();
        let is_undoing = self.compensating(id).is_some() && self.finished.is_none();
        if is_undoing && (undo == Stage::Failed || undo.is_asleep()) {
            return Ok(vec![skipped(Phase::Undo)]);
        }
        if is_undoing && undo == Stage::InDoubt {
            return Err(format!(
                "it is in doubt whether {node} is undone: `resolve` that first"
            ));
        }
        if is_undoing && undo.is_active() {
            return Err(format!("the undo of {node} runs; it cannot be skipped now"));
        }
        if let Some(Body::Step(step)) = self.def(id).map(|node| &node.body)
            && !step.skippable
        {
            return Err(format!(
                "{node} is of kind {}, which cannot be skipped",
                step.action.kind
            ));
        }
        if let Some((inside, kind)) = self.unskippable_inside(id) {
            return Err(format!(
                "{node} holds {inside}, which is of kind {kind} and cannot be skipped: skip the other steps in it, or `cancel` the run"
            ));
        }
        let settled = |at: &InstanceId| self.tree.stage(*at, Phase::Do).is_settled();
        let closed = self.tree.around(id).find(settled);
        let mut doing = match instance.forward.stage() {
            Stage::Idle | Stage::Backoff | Stage::Waiting | Stage::AwaitingApproval
                if closed.is_some() =>
            {
                let around = closed.unwrap_or(ROOT);
                let (path, state) = (&self.get(around).path, self.get(around).state.as_str());
                return Err(format!("{node} will not start: {path} is {state}"));
            }
            Stage::Idle | Stage::Backoff | Stage::Waiting | Stage::AwaitingApproval => {
                if self.is_halted(id) && !self.comes_in_finally(id) {
                    return Err(format!("{node} will not start: the run is ending or over"));
                }
                Vec::new()
            }
            Stage::Failed if self.runs_again_with_the_run(id) => {
                return Err(format!(
                    "{node} runs again as soon as the run does, so it cannot be skipped: `retry` it, or `skip` the steps in it"
                ));
            }
            Stage::Failed => {
                self.not_shown(id)?;
                self.forward_again(id, who)?
            }
            Stage::Running => {
                return Err(format!(
                    "{node} runs: it can be skipped if it fails; `cancel` ends the run"
                ));
            }
            Stage::InDoubt => return Err(format!("{node} is in doubt: `resolve` it")),
            Stage::Succeeded | Stage::Skipped | Stage::Ended => {
                return Err(format!("{node} is {} already", instance.state.as_str()));
            }
        };
        if output.is_null() {
            self.output_is_not_read(id, false)?;
        }
        doing.push(skipped(Phase::Do));
        Ok(doing)
    }

    /// What has not passed inside a group, call or loop and may not be passed over, and its kind: an approval, a check.
    fn unskippable_inside(&self, container: InstanceId) -> Option<(String, &str)> {
        let def = self.get(container).def?;
        if self.get(container).role == Role::Step {
            return None;
        }
        let inside: Vec<InstanceId> = self.tree.inside(container);
        let passed = |node: NodeId| {
            let of_node = |id: &&InstanceId| self.get(**id).def == Some(node);
            let mut all = inside.iter().filter(of_node).peekable();
            let done = |id: &InstanceId| {
                matches!(
                    self.tree.stage(*id, Phase::Do),
                    Stage::Succeeded | Stage::Skipped
                )
            };
            all.peek().is_some() && all.all(done)
        };
        let counts = |node: &NodeId| {
            // The `finally` of a playbook in it guards nothing that comes after it.
            !self.graph.node(*node).in_finally || self.graph.node(def).in_finally
        };
        self.graph
            .inside(def)
            .into_iter()
            .filter(counts)
            .find_map(|node| {
                let Body::Step(step) = &self.graph.node(node).body else {
                    return None;
                };
                let kind = step.action.kind.as_str();
                (!step.skippable && !passed(node)).then(|| (self.graph.static_path(node), kind))
            })
    }

    /// A pending step of a `finally` that is still to come.
    fn comes_in_finally(&self, id: InstanceId) -> bool {
        self.finished.is_none()
            && self
                .tree
                .finally_of(id)
                .is_some_and(|scope| self.scope_phase(scope) != ScopePhase::Over)
    }

    // ---- resolve -------------------------------------------------------------------------------------

    pub(super) fn judge_resolve(
        &self,
        node: &str,
        done: bool,
        output: &Value,
        who: &str,
        because: &str,
    ) -> Verdict {
        let (id, phase) = self.unsettled(node)?;
        let instance = self.get(id);
        let in_doubt = instance.execution(phase).stage() == Stage::InDoubt;
        if !in_doubt && !done {
            return Err(format!(
                "{node} is {}, not in doubt: that it is not done is known",
                instance.state.as_str()
            ));
        }
        if !done && instance.execution(phase).unexplained {
            let why = instance.execution(phase).doubt().unwrap_or_default();
            return Err(format!("{node} cannot be declared not done: {why}"));
        }
        let mut doing = Vec::new();
        if phase == Phase::Do && !in_doubt {
            let acts = self
                .tree
                .step(id)
                .is_some_and(|step| step.action.traits.effect != Effect::ReadOnly);
            if instance.role != Role::Step {
                return Err(format!(
                    "{node} is a group, call or loop: `resolve` the step in it that a person has done"
                ));
            }
            if !acts {
                return Err(format!(
                    "{node} only reads: there is nothing in it that a person could have done by hand"
                ));
            }
            self.not_shown(id)?;
            doing = self.forward_again(id, who)?;
        }
        let marked = instance.forward.mark.as_ref();
        let known = !output.is_null() || marked.is_some_and(|mark| !mark.output.is_null());
        if phase == Phase::Do && done && !known {
            self.output_is_not_read(id, true)?;
        }
        doing.push(EventBody::Resolved(Box::new(Resolved {
            node: instance.path.clone(),
            phase,
            done,
            // Who says that it is done says so of the step of an undo that failed or is in doubt: those after it are still to be done.
            part: (phase == Phase::Undo).then_some(instance.undo.part),
            output: output.clone(),
            who: who.to_owned(),
            because: because.to_owned(),
        })));
        Ok(doing)
    }

    /// What reads the output of a step later would fail without it, and undo what was declared done.
    fn output_is_not_read(&self, id: InstanceId, is_done: bool) -> Result<(), String> {
        let Some((reader, skeleton)) = self.reader_of(id, is_done) else {
            return Ok(());
        };
        let path = &self.get(id).path;
        let verb = if is_done { "resolve" } else { "skip" };
        Err(format!(
            "{reader} reads the output of {path}, so it must be given: `{verb} … --output '{skeleton}'`"
        ))
    }

    /// The first that has not run yet and reads the output of this step, and what the output must hold for all readers. `is_done`: the
    /// step counts as done, so that its own undo may run.
    fn reader_of(&self, id: InstanceId, is_done: bool) -> Option<(String, String)> {
        // Such a run never goes forward again: of what is pending it runs only what is in a `finally`.
        let ends_by_order = self.cancelled.is_some() || self.undo_ordered.is_some();
        let pending = |node: &NodeId| {
            let of_node = |id: &InstanceId| self.get(*id).def == Some(*node);
            // What is in what was skipped does not run.
            let passed = |at: InstanceId| self.tree.stage(at, Phase::Do) == Stage::Skipped;
            let runs = |other: InstanceId| {
                !self.tree.stage(other, Phase::Do).is_settled()
                    && !self.tree.around(other).any(passed)
                    && (!ends_by_order || self.tree.is_in_finally(other))
            };
            // Another item of a loop reads what is in itself.
            let sees = |other: &InstanceId| {
                let list = self.get(id).parent;
                self.tree.around(*other).any(|at| Some(at) == list)
                    || self.tree.around(id).any(|at| at == *other)
            };
            self.tree.ids().filter(of_node).filter(sees).any(runs)
        };
        let def = self.get(id).def?;
        let mut read = readers::of(&self.graph, def);
        if is_done {
            read.extend(readers::by_its_undo(&self.graph, def));
        }
        let reader = read.iter().find_map(|reader| match reader.node {
            Some(node) if node == def => {
                Some(format!("the undo of {}", self.graph.static_path(def)))
            }
            Some(node) => pending(&node).then(|| self.graph.static_path(node)),
            None => (is_done && !ends_by_order).then(|| "an output of the playbook".to_owned()),
        })?;
        Some((reader, readers::skeleton(&read)))
    }

    /// What `--output` must hold where a person settles a step as done (`is_done`) or skips it: JSON to be filled in. `None` if nothing
    /// that is still to come reads its output, or the mark of its attempt holds it.
    #[must_use]
    pub fn needed_output(&self, path: &str, is_done: bool) -> Option<String> {
        let id = self.id_of(path)?;
        let marked = self.get(id).forward.mark.as_ref();
        if marked.is_some_and(|mark| !mark.output.is_null()) {
            return None;
        }
        self.reader_of(id, is_done).map(|(_, skeleton)| skeleton)
    }
}
