//! From events to a report.
use super::{
    human::without_password,
    masks::{Masks, map_of},
    model::*,
    words,
};
use crate::{
    graph::{Body, EvidenceDef},
    journal::Head,
    machine::{
        Event, EventBody, IllegalEvent, Instance, InstanceId, Machine, Resolved, Role, RunState,
        SettledBy, StartCause,
    },
    step::{ApprovalRequest, Evidence, Failure, Phase, Target, Vote, WaitOn},
    value::{Duration, Timestamp, Value},
};
use indexmap::IndexMap;

/// An instant as reports write it.
pub(super) fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// What the events tell of one node that its state no longer does.
#[derive(Default)]
struct Past {
    attempts: Vec<AttemptReport>,
    evidence: Vec<Evidence>,
    doubts: Vec<DoubtReport>,
    request: Option<ApprovalRequest>,
}

impl Past {
    fn attempt(&mut self, phase: Phase) -> Option<&mut AttemptReport> {
        let is_undo = phase == Phase::Undo;
        self.attempts
            .iter_mut()
            .rev()
            .find(|attempt| attempt.is_undo == is_undo)
    }

    fn end(&mut self, phase: Phase, at: Timestamp, how: &str) {
        if let Some(attempt) = self.attempt(phase)
            && attempt.end.as_deref().is_none_or(|end| end == "in doubt")
        {
            attempt.end = Some(how.to_owned());
            attempt.ended_at.get_or_insert_with(|| instant(at));
            wake(attempt, at);
        }
    }

    fn settle(&mut self, how: String) {
        if let Some(doubt) = self
            .doubts
            .last_mut()
            .filter(|doubt| doubt.settled.is_none())
        {
            doubt.settled = Some(how);
        }
    }
}

fn wake(attempt: &mut AttemptReport, at: Timestamp) {
    if let Some(wait) = attempt.waits.last_mut().filter(|wait| wait.until.is_none()) {
        wait.until = Some(instant(at));
    }
}

fn failure(failure: &Failure) -> FailureReport {
    FailureReport {
        code: failure.code.clone(),
        message: failure.message.clone(),
        certainty: failure.certainty.to_string(),
        help: failure.help.clone(),
    }
}

/// Where a target is: as the server said, or as the playbook derived it.
fn place(target: &Target) -> String {
    if let Some(identity) = &target.identity {
        return identity.instance.clone();
    }
    let keys = ["path", "host", "port", "database", "login"];
    let mut parts = vec![without_password(&target.url.to_string())];
    let changed = keys
        .iter()
        .filter_map(|key| Some(format!("{key} {}", target.options.get(*key)?)));
    parts.extend(changed);
    parts.join(", ")
}

/// Everything that is gathered on the way through the events.
#[derive(Default)]
struct Gathered {
    nodes: IndexMap<String, Past>,
    targets: Vec<TargetReport>,
    commands: Vec<CommandReport>,
    drivers: Vec<DriverReport>,
    log: Vec<LogLine>,
}

impl Gathered {
    fn node(&mut self, path: &str) -> &mut Past {
        self.nodes.entry(path.to_owned()).or_default()
    }

    /// Targets as they were bound; a derived one each time that it is another place.
    fn found(&mut self, targets: &IndexMap<String, Target>) {
        for (name, target) in targets {
            let found = TargetReport {
                name: name.clone(),
                kind: target.kind.clone(),
                place: place(target),
                system: target.identity.as_ref().and_then(|who| who.system.clone()),
                role: target.identity.as_ref().and_then(|who| who.role.clone()),
                timeline: target.identity.as_ref().and_then(|who| who.timeline),
                version: target.identity.as_ref().map(|who| who.version.clone()),
            };
            if !self.targets.contains(&found) {
                self.targets.push(found);
            }
        }
    }

    fn take(&mut self, event: &Event, masks: &Masks) {
        let at = event.at;
        match &event.body {
            EventBody::RunStarted(started) => self.found(&started.targets),
            EventBody::LeaseTaken(taken) => self.drivers.push(DriverReport {
                epoch: taken.epoch,
                user: taken.holder.user.clone(),
                host: taken.holder.host.clone(),
                pid: taken.holder.pid,
                since: instant(taken.holder.since),
                failovers: words::failovers(&taken.failovers).collect(),
                unreachable: words::unreachable(&taken.unreachable).collect(),
            }),
            EventBody::CommandAccepted(taken) => self.commands.push(CommandReport {
                at: instant(taken.sent),
                who: taken.who.clone(),
                command: serde_json::to_value(&taken.command).unwrap_or_default(),
                refused: None,
            }),
            EventBody::CommandRefused(taken) => self.commands.push(CommandReport {
                at: instant(taken.sent),
                who: taken.who.clone(),
                command: serde_json::to_value(&taken.command).unwrap_or_default(),
                refused: Some(taken.reason.clone()),
            }),
            EventBody::Identified(met) => {
                let known = self
                    .targets
                    .iter_mut()
                    .find(|known| known.name == met.target && known.version.is_none());
                if let Some(known) = known {
                    known.place.clone_from(&met.identity.instance);
                    known.system.clone_from(&met.identity.system);
                    known.role.clone_from(&met.identity.role);
                    known.timeline = met.identity.timeline;
                    known.version = Some(met.identity.version.clone());
                }
            }
            EventBody::Started(started) => {
                let decided = started.facts.iter().map(|fact| FactReport {
                    what: fact.what.clone(),
                    expr: fact.expr.clone(),
                    value: masks.json(&fact.value),
                });
                let attempt = AttemptReport {
                    is_undo: started.phase == Phase::Undo,
                    attempt: started.attempt,
                    cause: match started.cause {
                        StartCause::First => "first",
                        StartCause::Retry => "retry",
                        StartCause::Interrupted => "interrupted",
                        StartCause::Operator => "operator",
                    }
                    .to_owned(),
                    started_at: instant(at),
                    ended_at: None,
                    end: None,
                    failure: None,
                    input: masks.json(&started.input),
                    decided: decided.collect(),
                    capture: serde_json::Value::Null,
                    mark: serde_json::Value::Null,
                    waits: Vec::new(),
                };
                self.node(&started.node).attempts.push(attempt);
                self.found(&started.targets);
            }
            EventBody::Captured(captured) => {
                let capture = masks.json(&captured.capture);
                if let Some(attempt) = self.node(&captured.node).attempt(captured.phase) {
                    attempt.capture = capture;
                }
            }
            EventBody::Marked(marked) => {
                let mark = masks.json(&marked.mark.token);
                if let Some(attempt) = self.node(&marked.node).attempt(marked.phase) {
                    attempt.mark = mark;
                }
            }
            EventBody::Suspended(suspended) => {
                let past = self.node(&suspended.node);
                let on = match &suspended.wait.on {
                    WaitOn::Timer(_) => "timer".to_owned(),
                    WaitOn::Signal(name) => format!("signal {name}"),
                    WaitOn::Approval(request) => {
                        past.request = Some(request.as_ref().clone());
                        "approval".to_owned()
                    }
                };
                if let Some(attempt) = past.attempt(suspended.phase) {
                    wake(attempt, at);
                    // A step that polls sleeps many times in a row, which is one wait.
                    let from = instant(at);
                    match attempt.waits.last_mut() {
                        Some(last) if last.on == on && last.until.as_deref() == Some(&from) => {
                            last.until = None;
                        }
                        _ => attempt.waits.push(WaitReport {
                            on,
                            from,
                            until: None,
                        }),
                    }
                }
            }
            EventBody::Awoken(awoken) => {
                if let Some(attempt) = self.node(&awoken.node).attempt(awoken.phase) {
                    wake(attempt, at);
                }
            }
            EventBody::Succeeded(done) => {
                let past = self.node(&done.node);
                match done.by {
                    SettledBy::Step => {}
                    SettledBy::Probe => past.settle("its probe found it done".to_owned()),
                    SettledBy::Operator => past.settle("a person says that it is done".to_owned()),
                }
                past.end(done.phase, at, "succeeded");
                past.evidence.extend(done.evidence.iter().cloned());
            }
            EventBody::Failed(failed) => {
                let past = self.node(&failed.node);
                past.end(failed.phase, at, "failed");
                past.evidence.extend(failed.evidence.iter().cloned());
                if let Some(attempt) = past.attempt(failed.phase) {
                    attempt.failure = Some(failure(&failed.failure));
                }
            }
            EventBody::Doubted(doubted) => {
                let past = self.node(&doubted.node);
                past.end(doubted.phase, at, "in doubt");
                past.doubts.push(DoubtReport {
                    at: instant(at),
                    why: doubted.why.clone(),
                    settled: None,
                });
            }
            EventBody::Probed(probed) if probed.in_doubt.is_none() => {
                let past = self.node(&probed.node);
                past.settle("its probe found that it did not happen".to_owned());
                past.end(probed.phase, at, "not done");
            }
            EventBody::Resolved(resolved) => {
                let past = self.node(&resolved.node);
                past.settle(resolution(resolved));
                let how = if resolved.done {
                    "succeeded"
                } else {
                    "not done"
                };
                past.end(resolved.phase, at, how);
            }
            EventBody::Expanded(_)
            | EventBody::Progressed(_)
            | EventBody::RetryScheduled(_)
            | EventBody::Gated(_)
            | EventBody::Skipped(_)
            | EventBody::Probed(_)
            | EventBody::Voted(_)
            | EventBody::Signalled(_)
            | EventBody::ClockStepped(_)
            | EventBody::RetryOrdered(_)
            | EventBody::InputEdited(_)
            | EventBody::Paused(_)
            | EventBody::Unpaused(_)
            | EventBody::Cancelled(_)
            | EventBody::Overran(_)
            | EventBody::CompensationStarted(_)
            | EventBody::CleanupStarted(_)
            | EventBody::FinallyStarted(_)
            | EventBody::Finished(_)
            | EventBody::Reopened(_) => {}
        }
    }
}

fn resolution(resolved: &Resolved) -> String {
    let word = if resolved.done { "done" } else { "not done" };
    format!("{} says it is {word}: {}", resolved.who, resolved.because)
}

impl Report {
    /// The report of a run from all of its events, as of `now`: evidence that a playbook keeps for a time only is left
    /// out after it.
    ///
    /// # Errors
    /// Where the events are no run.
    pub fn new(events: &[Event], head: &Head, now: Timestamp) -> Result<Self, IllegalEvent> {
        let mut machine = Machine::recover(events.first())?;
        let masks = Masks::of(machine.graph());
        let mut gathered = Gathered::default();
        for (at, event) in events.iter().enumerate() {
            if at > 0 {
                machine.apply(event)?;
            }
            gathered.take(event, &masks);
            if let Some(line) = words::describe(&event.body, &machine) {
                gathered.log.push(LogLine {
                    at: instant(event.at),
                    node: line.node,
                    text: line.text,
                });
            }
        }
        let teller = Teller {
            machine: &machine,
            masks: &masks,
            now,
            gathered: &gathered,
        };
        let (steps, mut checks, mut approvals) = (teller.steps(), Vec::new(), Vec::new());
        for instance in machine.instances() {
            teller.checks(instance, &mut checks);
            approvals.extend(teller.approval(instance));
        }
        let started = machine.started();
        let graph = machine.graph();
        Ok(Self {
            format: REPORT_FORMAT,
            run: started.run.id.clone(),
            short_id: started.run.short_id.clone(),
            playbook: started.run.playbook.clone(),
            description: graph.description.clone(),
            owner: graph.owner.clone(),
            environment: started.run.environment.clone(),
            by: started.run.by.clone(),
            started_at: instant(started.run.started_at),
            last_event_at: instant(machine.last_at()),
            took_ms: Duration::between(
                started.run.started_at,
                machine.root().finished_at.unwrap_or(machine.last_at()),
            )
            .as_millis(),
            state: machine.state().as_str().to_owned(),
            is_finished: matches!(machine.state(), RunState::Finished(_)),
            digest: started.digest.clone(),
            engine: started.engine.clone(),
            sources: graph
                .sources
                .iter()
                .map(|source| SourceFile {
                    path: source.path.clone(),
                    sha256: source.sha256.clone(),
                })
                .collect(),
            inputs: map_of(&masks.value(machine.inputs())),
            targets: gathered.targets,
            outputs: map_of(&masks.value(machine.outputs())),
            checks,
            approvals,
            steps,
            finally_failed: machine
                .finished()
                .map(|end| end.finally_failed.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            output_error: machine.finished().and_then(|end| end.output_error.clone()),
            chain: Chain {
                events: head.seq,
                head: head.hash.clone(),
            },
            commands: gathered.commands,
            drivers: gathered.drivers,
            log: gathered.log,
        })
    }
}

struct Teller<'a> {
    machine: &'a Machine,
    masks: &'a Masks,
    now: Timestamp,
    gathered: &'a Gathered,
}

impl Teller<'_> {
    fn steps(&self) -> Vec<StepReport> {
        let root = self.machine.root();
        root.children.iter().map(|id| self.step(*id)).collect()
    }

    fn kept(&self, instance: &Instance) -> Option<&EvidenceDef> {
        match &words::node_of(self.machine, instance)?.body {
            Body::Step(step) => step.evidence.as_ref(),
            Body::Group { .. } | Body::Call(_) => None,
        }
    }

    /// Why the output and the evidence of a step are not told.
    fn left_out(&self, instance: &Instance) -> Option<String> {
        let kept = self.kept(instance)?;
        if !kept.keep {
            return Some("left out: the playbook says evidence.keep: false".to_owned());
        }
        let until = kept
            .keep_for?
            .after(instance.finished_at.unwrap_or(self.machine.last_at()));
        (self.now > until).then(|| format!("left out: they were kept until {}", instant(until)))
    }

    fn step(&self, id: InstanceId) -> StepReport {
        let machine = self.machine;
        let instance = machine.get(id);
        let node = words::node_of(machine, instance);
        let past = self.gathered.nodes.get(&*instance.path);
        let left_out = self.left_out(instance);
        let evidence = past
            .map(|past| past.evidence.as_slice())
            .unwrap_or_default();
        // The output of what holds others is the output of those.
        let is_view = matches!(instance.role, Role::Foreach | Role::Group);
        StepReport {
            path: instance.path.to_string(),
            kind: words::kind_of(machine, instance).to_owned(),
            description: node.and_then(|node| node.description.clone()),
            place: words::place_of(machine, instance),
            state: instance.state.as_str().to_owned(),
            needs: node
                .filter(|_| instance.item.is_none())
                .map(|node| {
                    let around = instance.path.rsplit_once('/').map(|(around, _)| around);
                    node.needs
                        .iter()
                        .map(|need| {
                            let id = &machine.graph().node(*need).id;
                            around.map_or_else(|| id.clone(), |around| format!("{around}/{id}"))
                        })
                        .collect()
                })
                .unwrap_or_default(),
            is_cleanup: node.is_some_and(|node| node.cleanup),
            in_finally: node.is_some_and(|node| node.in_finally),
            item: instance
                .item
                .as_ref()
                .map(|(_, item)| self.masks.json(item))
                .unwrap_or_default(),
            started_at: instance.started_at.map(instant),
            finished_at: instance.finished_at.map(instant),
            took_ms: instance
                .started_at
                .zip(instance.finished_at)
                .map(|(from, to)| Duration::between(from, to).as_millis()),
            skipped: instance.skipped.clone(),
            undo: words::undo_of(machine, instance),
            attempts: past.map(|past| past.attempts.clone()).unwrap_or_default(),
            output: if is_view || left_out.is_some() {
                serde_json::Value::Null
            } else {
                self.masks.json(&instance.output)
            },
            evidence: evidence
                .iter()
                .filter(|_| left_out.is_none())
                .map(|one| EvidenceReport {
                    name: one.name.clone(),
                    media_type: one.media_type.clone(),
                    content: self.masks.json(&one.content),
                    size: one.size,
                    truncated: one.truncated,
                })
                .collect(),
            left_out,
            doubts: past.map(|past| past.doubts.clone()).unwrap_or_default(),
            steps: instance.children.iter().map(|id| self.step(*id)).collect(),
        }
    }

    /// The checks in an output: a list `checks` of maps with `name`, `passed`, `expected` and `seen`.
    fn checks(&self, instance: &Instance, into: &mut Vec<CheckReport>) {
        if instance.role != Role::Step || self.left_out(instance).is_some() {
            return;
        }
        let output = self.masks.value(&instance.output);
        let text = |check: &Value, key: &str| {
            check
                .get(key)
                .filter(|value| !value.is_null())
                .map(ToString::to_string)
        };
        let checks = output.get("checks").and_then(Value::as_list);
        for check in checks.unwrap_or_default() {
            let (Some(name), Some(passed)) = (
                text(check, "name"),
                check.get("passed").and_then(Value::as_bool),
            ) else {
                continue;
            };
            into.push(CheckReport {
                step: instance.path.to_string(),
                name,
                passed,
                severity: text(check, "severity").unwrap_or_else(|| "error".to_owned()),
                expected: text(check, "expected").unwrap_or_default(),
                seen: check
                    .get("seen")
                    .map(Value::to_plain_json)
                    .unwrap_or_default(),
                error: text(check, "error"),
            });
        }
    }

    fn approval(&self, instance: &Instance) -> Option<ApprovalReport> {
        let request = self.gathered.nodes.get(&*instance.path)?.request.as_ref()?;
        Some(ApprovalReport {
            step: instance.path.to_string(),
            prompt: request.prompt.clone(),
            shown: self.masks.json(&request.show),
            shown_hash: request.shown_hash.clone(),
            groups: request.groups.clone(),
            quorum: request.quorum.max(1),
            separation_of_duties: request.separation_of_duties,
            votes: instance.votes.iter().map(|vote| self.vote(vote)).collect(),
        })
    }

    fn vote(&self, vote: &Vote) -> VoteReport {
        VoteReport {
            who: vote.who.clone(),
            at: instant(vote.at),
            approve: vote.approve,
            reason: vote.reason.clone(),
            answers: vote
                .answers
                .iter()
                .map(|(name, answer)| (name.clone(), self.masks.json(answer)))
                .collect(),
            shown_hash: vote.shown_hash.clone(),
        }
    }
}
