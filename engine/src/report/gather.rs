//! From events to a report.
use super::{
    figures,
    human::without_password,
    masks::{Masks, map_of},
    model::*,
    standing,
    teller::{Aside, Teller},
    words,
};
use crate::{
    journal::Head,
    machine::{Event, EventBody, IllegalEvent, Machine, Resolved, RunState, SettledBy, StartCause},
    step::{ApprovalRequest, Evidence, Failure, Phase, Registry, Target, WaitOn},
    value::{Duration, Timestamp, Value},
};
use indexmap::IndexMap;

/// An instant as reports write it.
pub(super) fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// What the events tell of one node that its state no longer does.
#[derive(Default)]
pub(super) struct Past {
    pub(super) attempts: Vec<AttemptReport>,
    pub(super) evidence: Vec<Evidence>,
    pub(super) doubts: Vec<DoubtReport>,
    pub(super) request: Option<ApprovalRequest>,
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

fn failure(failure: &Failure, not_retried: Option<String>) -> FailureReport {
    FailureReport {
        not_retried,
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
pub(super) struct Gathered {
    pub(super) nodes: IndexMap<String, Past>,
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

    fn take(&mut self, event: &Event, machine: &Machine, registry: &Registry, masks: &Masks) {
        let figures = |node: &str, place, output: &Value| -> Vec<FigureReport> {
            let Some(instance) = machine.instance(node) else {
                return Vec::new();
            };
            let output = masks.value(output);
            let figures = figures::of_execution(machine, registry, instance, place, &output);
            figures.iter().map(FigureReport::from).collect()
        };
        let at = event.at;
        match &event.body {
            EventBody::RunStarted(started) => self.found(&started.targets),
            EventBody::LeaseTaken(taken) => self.drivers.push(DriverReport {
                epoch: taken.epoch,
                user: taken.holder.user.clone(),
                account: taken.holder.account.clone(),
                host: taken.holder.host.clone(),
                pid: taken.holder.pid,
                since: instant(taken.holder.since),
                failovers: words::failovers(&taken.failovers).collect(),
                unreachable: words::unreachable(&taken.unreachable).collect(),
            }),
            EventBody::CommandAccepted(taken) => self.commands.push(CommandReport {
                at: instant(taken.sent),
                who: taken.who.clone(),
                account: taken.account.clone(),
                command: serde_json::to_value(&taken.command).unwrap_or_default(),
                refused: None,
            }),
            EventBody::CommandRefused(taken) => self.commands.push(CommandReport {
                at: instant(taken.sent),
                who: taken.who.clone(),
                account: taken.account.clone(),
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
                    figures: Vec::new(),
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
                let figures = figures(&done.node, (done.phase, done.part), &done.output);
                let past = self.node(&done.node);
                match done.by {
                    SettledBy::Step => {}
                    SettledBy::Probe => past.settle("its probe found it done".to_owned()),
                    SettledBy::Operator => past.settle("a person says that it is done".to_owned()),
                }
                past.end(done.phase, at, "succeeded");
                if let Some(attempt) = past.attempt(done.phase) {
                    attempt.figures = figures;
                }
                past.evidence.extend(done.evidence.iter().cloned());
            }
            EventBody::Failed(failed) => {
                let not_retried =
                    standing::not_retried(machine, &failed.node, failed.phase, &failed.failure);
                let place = (failed.phase, failed.part);
                let figures = figures(&failed.node, place, &failed.failure.output);
                let past = self.node(&failed.node);
                past.end(failed.phase, at, "failed");
                past.evidence.extend(failed.evidence.iter().cloned());
                if let Some(attempt) = past.attempt(failed.phase) {
                    attempt.figures = figures;
                    attempt.failure = Some(failure(&failed.failure, not_retried));
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
            | EventBody::WindowClosed(_)
            | EventBody::Withdrawn(_)
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
            | EventBody::Reopened(_)
            | EventBody::Closed(_) => {}
        }
    }
}

fn resolution(resolved: &Resolved) -> String {
    let word = if resolved.done { "done" } else { "not done" };
    format!("{} says it is {word}: {}", resolved.who, resolved.because)
}

impl Report {
    /// The report of a run from all of its events. Evidence that a playbook keeps for a time only is left out after it.
    ///
    /// # Errors
    /// Where the events are no run.
    pub fn new(events: &[Event], head: &Head, aside: &Aside<'_>) -> Result<Self, IllegalEvent> {
        let registry = aside.registry;
        let mut machine = Machine::recover(events.first())?;
        let masks = Masks::of(machine.graph());
        let mut gathered = Gathered::default();
        for (at, event) in events.iter().enumerate() {
            if at > 0 {
                machine.apply(event)?;
            }
            gathered.take(event, &machine, registry, &masks);
            if let Some(line) = words::describe(&event.body, &machine, registry) {
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
            aside,
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
            account: started.run.account.clone(),
            started_at: instant(started.run.started_at),
            // What was written after the end, such as the refusal of a command, does not move it.
            last_event_at: instant(machine.root().finished_at.unwrap_or(machine.last_at())),
            took_ms: Duration::between(
                started.run.started_at,
                machine.root().finished_at.unwrap_or(machine.last_at()),
            )
            .as_millis(),
            state: machine.word().to_owned(),
            state_means: standing::standing(&machine, true).means,
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
