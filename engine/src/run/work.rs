//! One execution of one step, from what the machine wants to what the driver reports.
use super::{
    clock::RunClock,
    drive::Surroundings,
    driver::Shared,
    print::{Printer, Who},
    redact,
    targets::Met,
};
use crate::{
    expr::{Expr, ExprError, Vars},
    graph::{Action, Body, Undo},
    machine::{Machine, Report, Wanted, Work},
    secret::RunSecrets,
    step::{
        Cause, Certainty, DynStep, Evidence, Failure, Identity, Mark, Outcome, Phase, Probed,
        Resources, Resume, Revealed, StepContext, StepHost, Stream, Target, Undoes, speaking,
    },
    value::{Duration, SecretText, Timestamp, Value},
};
use futures_channel::mpsc;
use futures_util::{FutureExt, future::BoxFuture};
use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How long a step that was told to end may take to do so.
const GRACE: Duration = Duration::from_secs(15);

/// The pauses between the questions of a probe whose server is down.
const PROBE_PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// What reaches a run's driver.
pub(super) enum Message {
    /// From a step.
    ///
    /// Boxed: a queue keeps room for 32 messages, and thousands of runs that wait have one each.
    Report(Box<Reported>),
    /// A step has reached a target.
    Met(Box<Meeting>),
    /// A task has ended.
    Ended(Wanted),
    /// There may be something in the inbox.
    Inbox,
    /// The wall clock was set.
    Clock,
}

/// What a step reports; who waits for the answer is told when the events are durable.
pub(super) struct Reported {
    pub(super) wanted: Wanted,
    pub(super) report: Report,
    pub(super) answer: Option<oneshot::Sender<Result<(), Failure>>>,
}

/// Which target a step has reached, and who that is; the answer comes when what is to be known of it is durable.
pub(super) struct Meeting {
    pub(super) target: String,
    pub(super) who: Identity,
    pub(super) answer: oneshot::Sender<Result<(), Failure>>,
}

impl Message {
    /// The last report of an execution.
    pub(super) fn report(wanted: Wanted, report: Report) -> Self {
        Self::Report(Box::new(Reported {
            wanted,
            report,
            answer: None,
        }))
    }
}

/// A probe of the playbook's own, which is asked where the kind cannot tell.
struct Question {
    action: Action,
    input: Value,
    done: Expr,
    vars: Vars,
}

/// Everything that one execution needs; made while the machine is at hand.
pub(super) struct Assignment {
    wanted: Wanted,
    action: Action,
    auto_undo: bool,
    question: Option<Question>,
    input: Value,
    capture: Value,
    captured: bool,
    mark: Option<Mark>,
    output: Option<Value>,
    resume: Resume<Value>,
    context: StepContext,
    host: Arc<Host>,
    shared: Arc<Shared>,
}

impl Assignment {
    /// Reads from the machine what a wanted execution needs.
    pub(super) fn new(
        machine: &Machine,
        wanted: Wanted,
        around: &Surroundings,
        cancel: CancellationToken,
    ) -> Result<Self, Failure> {
        let gone = || {
            Failure::new(
                "step.no_definition",
                "the step is not in the run's definition",
            )
        };
        let (id, phase) = (wanted.instance, wanted.phase);
        let instance = machine.get(id);
        let execution = instance.execution(phase);
        let Some(Body::Step(step)) = machine.def(id).map(|node| &node.body) else {
            return Err(gone());
        };
        let auto_undo = phase == Phase::Undo && matches!(step.undo, Undo::Auto { .. });
        let own = match (phase, &step.undo) {
            (Phase::Undo, Undo::Steps(parts)) => {
                parts.get(execution.part as usize).ok_or_else(gone)?
            }
            (Phase::Undo, _) | (Phase::Do, _) => &step.action,
        };
        let probe = own
            .probe
            .as_deref()
            .filter(|_| wanted.work == Work::Probe && !auto_undo);
        let failed = |e: ExprError| Failure::new("expression.failed", e.message);
        let asked = probe.iter().flat_map(|probe| &probe.action.expressions);
        let vars = machine
            .vars(id, phase, own.expressions.iter().chain(asked))
            .map_err(failed)?;
        let mut names = machine.target_names(own, &execution.input);
        let question = match probe {
            None => None,
            Some(probe) => {
                let with = &probe.action.with;
                let all = machine
                    .vars(id, phase, with.expressions())
                    .map_err(failed)?;
                let input = with.evaluate(&all).map_err(failed)?;
                names.extend(machine.target_names(&probe.action, &input));
                Some(Question {
                    action: probe.action.clone(),
                    input,
                    done: probe.done.clone(),
                    vars: machine.vars(id, phase, [&probe.done]).map_err(failed)?,
                })
            }
        };
        let mut targets = HashMap::new();
        for name in names {
            // A probe of the playbook's own may name targets that the attempt itself did not bind.
            let target = match machine.target(id, phase, &name) {
                Some(target) => Some(target.clone()),
                None => machine.bind_target(id, phase, &name)?,
            };
            if let Some(mut target) = target {
                // What an attempt bound under another name may be from before the run knew who it is.
                if let Some(known) = machine.declared_target(id, &name) {
                    target.identity.clone_from(&known.identity);
                    target.role.clone_from(&known.role);
                }
                targets.insert(name, target);
            }
        }
        let forward = &instance.forward;
        let capture = if phase == Phase::Undo && auto_undo {
            &forward.capture
        } else {
            &execution.capture
        };
        let undoes = match phase {
            Phase::Do => None,
            Phase::Undo => forward.mark_of_done().map(|mark| Undoes {
                attempt: forward.done_attempt,
                mark: mark.clone(),
                targets: machine
                    .target_names(&step.action, &forward.input)
                    .iter()
                    .filter_map(|name| machine.target(id, Phase::Do, name).cloned())
                    .collect(),
            }),
        };
        let host = Arc::new(Host {
            wanted,
            who: Who {
                node: instance.path.clone(),
                phase,
                attempt: wanted.attempt,
            },
            printer: around.printer.clone(),
            vars,
            targets,
            evidence: Mutex::new(Vec::new()),
            tx: around.tx.clone(),
            shared: around.shared.clone(),
            secrets: around.secrets.clone(),
            met: around.met.clone(),
            clock: around.clock.clone(),
            cancel: cancel.clone(),
        });
        Ok(Self {
            wanted,
            action: own.clone(),
            auto_undo,
            question,
            input: execution.input.clone(),
            capture: capture.clone().unwrap_or_default(),
            captured: capture.is_some(),
            mark: execution.mark.as_deref().cloned(),
            output: auto_undo
                .then(|| instance.output.clone())
                .filter(|output| !output.is_null()),
            resume: Resume {
                state: execution.state.clone().unwrap_or_default(),
                resumed: execution.state.is_some(),
                woken: execution.woken.as_deref().cloned(),
            },
            context: StepContext {
                run: machine.started().run.clone(),
                digest: machine.started().digest.clone(),
                node: instance.path.clone(),
                phase,
                attempt: wanted.attempt,
                done_attempt: execution.done_attempt,
                undoes,
                first_started_at: execution.first_started_at.unwrap_or(machine.last_at()),
                deadline: if wanted.work == Work::Probe {
                    None
                } else {
                    execution.deadline
                },
                cancel,
                host: host.clone(),
            },
            host,
            shared: around.shared.clone(),
        })
    }

    /// Runs it to its report, without the content of secrets.
    pub(super) async fn run(self) -> Report {
        let redactor = self.host.secrets.redactor().clone();
        let host = self.host.clone();
        let report = redact::report(&redactor, self.reported().await);
        // Before the report goes out: whoever reads that it ended finds what it printed.
        let failed = matches!(report, Report::Failed { .. });
        host.printer.end(&host.who, failed).await;
        report
    }

    async fn reported(self) -> Report {
        let marked = |this: &Self| this.mark.is_some() || !this.action.traits.marks;
        let certainty = if marked(&self) {
            Certainty::Unknown
        } else {
            Certainty::NoEffect
        };
        let speaking = speaking(self.host.clone(), self.perform());
        let report = AssertUnwindSafe(speaking).catch_unwind().await;
        let mut report = report.unwrap_or_else(|_| {
            let failure = Failure::new(
                "step.panicked",
                "the step's code failed; this is a defect of Windlass",
            )
            .certainty(certainty);
            Report::Failed {
                failure,
                evidence: Vec::new(),
            }
        });
        let kept = std::mem::take(
            &mut *self
                .host
                .evidence
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        match &mut report {
            Report::Done { evidence, .. } | Report::Failed { evidence, .. } => {
                evidence.extend(kept)
            }
            Report::Captured(_)
            | Report::Marked(_)
            | Report::Progressed(_)
            | Report::Suspended { .. }
            | Report::Probed(_) => {}
        }
        report
    }

    async fn perform(&self) -> Report {
        let failed = |failure| Report::Failed {
            failure,
            evidence: Vec::new(),
        };
        if self.wanted.work == Work::Probe {
            return Report::Probed(self.ask_until_answered().await);
        }
        let step = match self.prepare(&self.action, &self.input) {
            Ok(step) => step,
            Err(failure) => return failed(failure),
        };
        let acting = self.act(step.as_ref());
        tokio::pin!(acting);
        let deadline = self.context.deadline;
        // A step ends its statement by its own deadline; this is for one that does not.
        let late = async {
            match deadline {
                Some(at) => {
                    self.host
                        .clock
                        .sleep_until(Duration::from_secs(1).after(at))
                        .await
                }
                None => std::future::pending().await,
            }
        };
        let cancelled = self.context.cancel.cancelled();
        let timed_out = tokio::select! {
            report = &mut acting => return report,
            () = late => true,
            () = cancelled => false,
        };
        self.context.cancel.cancel();
        let cause = if timed_out {
            Cause::Timeout
        } else {
            Cause::Cancelled
        };
        tokio::select! {
            report = &mut acting => match report {
                Report::Failed { mut failure, evidence } if failure.cause == Cause::Cancelled => {
                    failure.cause = cause;
                    Report::Failed { failure, evidence }
                }
                other => other,
            },
            () = self.host.clock.sleep(GRACE) => failed(
                Failure::new("step.abandoned", format!("the step did not end within {GRACE} of being told to"))
                    .cause(cause)
                    .certainty(Certainty::Unknown),
            ),
        }
    }

    fn prepare(&self, action: &Action, input: &Value) -> Result<Arc<dyn DynStep>, Failure> {
        let kind = self.shared.registry.kind(&action.kind).ok_or_else(|| {
            Failure::new(
                "step.unknown_kind",
                format!("this windlass has no step kind {}", action.kind),
            )
        })?;
        (kind.prepare)(input).map_err(|errors| {
            let all: Vec<String> = errors
                .into_iter()
                .map(|e| {
                    if e.path.is_empty() {
                        e.message
                    } else {
                        format!("{}: {}", e.path, e.message)
                    }
                })
                .collect();
            Failure::new("step.parameters", all.join("; "))
        })
    }

    async fn act(&self, step: &dyn DynStep) -> Report {
        let failed = |failure| Report::Failed {
            failure,
            evidence: Vec::new(),
        };
        let mut capture = self.capture.clone();
        if self.action.traits.captures && !self.captured && !self.auto_undo {
            match step.capture(&self.context).await {
                Ok(read) => {
                    if let Err(failure) = redact::capture(self.host.secrets.redactor(), &read) {
                        return failed(failure);
                    }
                    capture = read.clone();
                    if let Err(failure) = self.host.send(Report::Captured(read)).await {
                        return failed(failure);
                    }
                }
                Err(failure) => return failed(failure.certainty(Certainty::NoEffect)),
            }
        }
        let mut resume = self.resume.clone();
        loop {
            let outcome = if self.auto_undo {
                step.undo(&capture, self.output.as_ref(), resume, &self.context)
                    .await
            } else {
                step.execute(&capture, resume, &self.context).await
            };
            match outcome {
                Ok(Outcome::Done(output)) => {
                    return Report::Done {
                        output,
                        evidence: Vec::new(),
                    };
                }
                Ok(Outcome::Suspend { state, wait }) => return Report::Suspended { state, wait },
                Ok(Outcome::Checkpoint(state)) => {
                    // Live goes on with what a replay would read.
                    let state = self.host.secrets.redactor().value(state);
                    if let Err(failure) = self.host.send(Report::Progressed(state.clone())).await {
                        return failed(failure);
                    }
                    resume = Resume {
                        state,
                        resumed: true,
                        woken: None,
                    };
                }
                Err(failure) => return failed(failure),
            }
        }
    }

    /// A server that restarts answers a little later: a person is asked only if it stays away.
    async fn ask_until_answered(&self) -> Probed<Value> {
        for pause in PROBE_PAUSES {
            let mut is_away = false;
            let answer = self.ask(&mut is_away).await;
            if !is_away {
                return answer;
            }
            tokio::select! {
                () = self.host.clock.sleep(pause) => {}
                () = self.context.cancel.cancelled() => return answer,
            }
        }
        self.ask(&mut false).await
    }

    /// Asks the kind first: it ends what may still run, and what it knows needs no question. Where it cannot tell, the
    /// playbook's own probe is asked. Where it fails, a "not done" of the playbook's probe might not stay true.
    async fn ask(&self, is_away: &mut bool) -> Probed<Value> {
        let unsure = |e: Failure| Probed::InDoubt(format!("the probe failed: {}", e.message));
        let step = match self.prepare(&self.action, &self.input) {
            Ok(step) => step,
            Err(failure) => return Probed::InDoubt(failure.message),
        };
        let own = step
            .probe(&self.capture, self.mark.as_ref(), &self.context)
            .await;
        *is_away = own.as_ref().is_err_and(|failure| failure.cause.is_down());
        match (own, &self.question) {
            (Ok(Probed::InDoubt(_)), Some(question)) => {
                self.answer(question).await.unwrap_or_else(unsure)
            }
            // What the target has is no longer open to "not done".
            (Ok(Probed::Unexplained(why)), Some(question)) => match self.answer(question).await {
                Ok(Probed::Done(output)) => Probed::Done(output),
                Ok(_) | Err(_) => Probed::Unexplained(why),
            },
            (Err(failure), Some(question)) => match self.answer(question).await {
                Ok(Probed::Done(output)) => Probed::Done(output),
                Ok(Probed::NotDone) => Probed::InDoubt(format!(
                    "its probe says that it was not done, which does not settle it: {}",
                    failure.message
                )),
                Ok(in_doubt @ (Probed::InDoubt(_) | Probed::Unexplained(_))) => in_doubt,
                Err(_) => unsure(failure),
            },
            (own, _) => own.unwrap_or_else(unsure),
        }
    }

    async fn answer(&self, question: &Question) -> Result<Probed<Value>, Failure> {
        let step = self.prepare(&question.action, &question.input)?;
        let resume = Resume {
            state: Value::Null,
            resumed: false,
            woken: None,
        };
        let output = match step.execute(&Value::Null, resume, &self.context).await? {
            Outcome::Done(output) => output,
            Outcome::Checkpoint(_) | Outcome::Suspend { .. } => {
                return Ok(Probed::InDoubt(
                    "the probe did not come to an answer".to_owned(),
                ));
            }
        };
        let mut vars = question.vars.clone().with("output", output.clone());
        for (name, value) in output.as_map().into_iter().flatten() {
            vars.set(name.clone(), value.clone());
        }
        Ok(match question.done.evaluate(&vars) {
            Ok(Value::Bool(true)) => Probed::Done(None),
            Ok(Value::Bool(false)) => Probed::NotDone,
            Ok(Value::Null) => {
                Probed::InDoubt("its probe cannot tell whether it was done".to_owned())
            }
            Ok(other) => Probed::InDoubt(format!("probe.done is {other}, not true or false")),
            Err(error) => Probed::InDoubt(format!("probe.done: {}", error.message)),
        })
    }
}

/// What a step may ask of the driver.
pub(super) struct Host {
    wanted: Wanted,
    who: Who,
    printer: Arc<Printer>,
    vars: Vars,
    targets: HashMap<String, Target>,
    evidence: Mutex<Vec<Evidence>>,
    tx: mpsc::UnboundedSender<Message>,
    shared: Arc<Shared>,
    secrets: Arc<RunSecrets>,
    met: Arc<Met>,
    clock: Arc<RunClock>,
    cancel: CancellationToken,
}

/// The failure of a step whose word no longer reaches the journal.
fn superseded() -> Failure {
    Failure::new(
        "journal.refused",
        "the journal did not take it: this process no longer drives the run",
    )
    .cause(Cause::Interrupted)
}

impl Host {
    /// Has a report journalled; durable when it returns.
    async fn send(&self, report: Report) -> Result<(), Failure> {
        let report = redact::report(self.secrets.redactor(), report);
        let (answer, durable) = oneshot::channel();
        let reported = Reported {
            wanted: self.wanted,
            report,
            answer: Some(answer),
        };
        self.tx
            .unbounded_send(Message::Report(Box::new(reported)))
            .map_err(|_| superseded())?;
        durable.await.unwrap_or_else(|_| Err(superseded()))
    }
}

impl StepHost for Host {
    fn mark(&self, mark: Mark) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let mark = redact::mark(self.secrets.redactor(), mark)?;
            self.send(Report::Marked(mark)).await
        })
    }

    fn progress(&self, state: Value) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.send(Report::Progressed(state)))
    }

    fn evaluate(&self, expr: &Expr, extra: Vars) -> Result<Value, ExprError> {
        expr.evaluate(&self.vars.clone().and(extra))
    }

    fn target(&self, name: &str) -> Result<Target, Failure> {
        self.targets.get(name).cloned().ok_or_else(|| {
            Failure::new(
                "target.unknown",
                format!("target {name:?} is not one that this step names"),
            )
        })
    }

    fn met<'a>(
        &'a self,
        target: &'a Target,
        who: &'a Identity,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            if target.identity.is_some() && self.met.has(&target.name) {
                return Ok(());
            }
            let who = redact::identity(self.secrets.redactor(), who.clone());
            let (answer, durable) = oneshot::channel();
            let meeting = Meeting {
                target: target.name.clone(),
                who,
                answer,
            };
            self.tx
                .unbounded_send(Message::Met(Box::new(meeting)))
                .map_err(|_| superseded())?;
            durable.await.unwrap_or_else(|_| Err(superseded()))?;
            self.met.add(&target.name);
            Ok(())
        })
    }

    fn reveal<'a>(&'a self, secret: &'a SecretText) -> BoxFuture<'a, Result<Revealed, Failure>> {
        Box::pin(self.secrets.reveal(secret, self.clock.now()))
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn of_wall(&self, at: Timestamp) -> Timestamp {
        self.clock.of_wall(at)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        let sleep = self.clock.sleep(duration);
        Box::pin(async move {
            tokio::select! {
                () = sleep => {}
                () = self.cancel.cancelled() => {}
            }
        })
    }

    fn keep(&self, evidence: Evidence) {
        self.evidence
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(evidence);
    }

    fn print(&self, stream: Stream, text: &str) {
        self.printer.print(&self.who, stream, text);
    }

    fn clean(&self, text: String) -> String {
        self.secrets.redactor().string(text)
    }

    fn resources(&self) -> &Resources {
        &self.shared.resources
    }
}
