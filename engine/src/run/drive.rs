//! The loop that drives one run under one lease.
use super::{
    api::{DriveOptions, Ended, RunError},
    clock::{RunClock, is_step},
    driver::Shared,
    parked::{MOST_EVENTS, Parked, WORTH_IT},
    print::Printer,
    redact,
    taking::Taken,
    targets::{self, Met},
    unlearned::Unlearned,
    work::{Assignment, Message, Reported},
};
use crate::{
    journal::Lease,
    machine::{
        ClockStepped, Event, EventBody, IllegalEvent, Machine, Report, RunState, Wanted, Work,
    },
    secret::RunSecrets,
    step::{Cause, Certainty, Failure, Identity, Probed},
    value::{Duration, Timestamp},
};
use futures_channel::mpsc;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

type Answer = (oneshot::Sender<Result<(), Failure>>, Result<(), Failure>);

/// What connects a run with its steps, its process and its watchers: it outlives a lease that had to be taken again.
pub(super) struct Line {
    pub rx: mpsc::UnboundedReceiver<Message>,
    pub tx: mpsc::UnboundedSender<Message>,
    observers: mpsc::UnboundedSender<(u64, Arc<Event>)>,
    /// The last event that the watchers were told.
    told: u64,
    /// Starts nothing new.
    pub stop: CancellationToken,
    /// Ends what is in flight, too.
    pub end: CancellationToken,
}

impl Line {
    pub(super) fn new(
        observers: mpsc::UnboundedSender<(u64, Arc<Event>)>,
        from: u64,
        (stop, end): (CancellationToken, CancellationToken),
    ) -> Self {
        let (tx, rx) = mpsc::unbounded();
        Self {
            rx,
            tx,
            observers,
            told: from.saturating_sub(1),
            stop,
            end,
        }
    }

    /// Tells events that are durable, each once, in order.
    pub(super) fn tell(&mut self, first: u64, events: impl IntoIterator<Item = Event>) {
        for (seq, event) in (first..).zip(events) {
            if seq > self.told {
                self.told = seq;
                // Its watcher may be gone.
                drop(self.observers.unbounded_send((seq, Arc::new(event))));
            }
        }
    }

    pub(super) fn told(&self) -> u64 {
        self.told
    }
}

/// Why a drive returns.
pub(super) enum Turned {
    Ended(Ended),
    /// The run only waits, and is put away until something comes.
    Parks,
}

pub(super) struct Drive<'l> {
    shared: Arc<Shared>,
    machine: Box<Machine>,
    lease: Box<dyn Lease>,
    secrets: Arc<RunSecrets>,
    printer: Arc<Printer>,
    unlearned: Unlearned,
    /// Targets that are who the run knows, as far as this process has met them.
    met: Arc<Met>,
    clock: Arc<RunClock>,
    /// The run was not put away by this process, but taken from another, or started.
    is_taken_over: bool,
    /// How far the wall clock was ahead of the run's time when it was last looked at.
    offset: Duration,
    /// Who waits for an instant of the wall clock has not looked at it again since it was set.
    looks: bool,
    options: DriveOptions,
    line: &'l mut Line,
    in_flight: HashMap<Wanted, CancellationToken>,
    /// The run was taken for this order alone.
    order: Option<String>,
    /// Inbox entries that this driver has taken.
    taken: HashSet<String>,
    /// Applied, and not yet durable.
    batch: Vec<Event>,
}

impl<'l> Drive<'l> {
    pub(super) fn new(
        shared: Arc<Shared>,
        taken: Taken,
        options: DriveOptions,
        line: &'l mut Line,
    ) -> Self {
        let clock = taken.clock;
        let printer = Printer::new(
            taken.lease.run().to_owned(),
            taken.lease.epoch(),
            (shared.clone(), clock.clone()),
            taken.secrets.redactor().clone(),
        );
        Self {
            shared,
            printer,
            machine: taken.machine,
            lease: taken.lease,
            secrets: taken.secrets,
            unlearned: taken.unlearned,
            met: taken.met,
            clock,
            is_taken_over: taken.offset.is_none(),
            offset: taken.offset.unwrap_or(Duration::ZERO),
            looks: false,
            options,
            line,
            in_flight: HashMap::new(),
            order: taken.order,
            taken: HashSet::new(),
            batch: Vec::new(),
        }
    }

    /// Drives until the run ends, needs a person, or is told to stop.
    pub(super) async fn run(&mut self) -> Result<Turned, RunError> {
        let result = self.turn().await;
        // Nothing outlives the lease: what is in flight is ended and awaited.
        for cancel in self.in_flight.values() {
            cancel.cancel();
        }
        while !self.in_flight.is_empty() {
            match self.line.rx.recv().await {
                Ok(Message::Ended(wanted)) => {
                    self.in_flight.remove(&wanted);
                }
                Ok(Message::Report(..) | Message::Met(..) | Message::Inbox | Message::Clock) => {}
                Err(_) => break,
            }
        }
        result
    }

    /// What this was when nothing is in flight: its lease, and where the run stands.
    pub(super) fn park(self) -> Parked {
        Parked {
            seq: self.machine.seq(),
            timer: self.machine.next_timer(),
            lease: self.lease,
            secrets: self.secrets,
            unlearned: self.unlearned,
            met: self.met,
            clock: self.clock,
            offset: self.offset,
        }
    }

    /// Whether the run only waits, for longer than a replay of it is worth.
    fn parks(&self) -> bool {
        let soon = WORTH_IT.after(self.clock.now());
        self.in_flight.is_empty()
            && self.batch.is_empty()
            && self.line.tx.is_empty()
            && !self.looks
            && !self.is_stopping()
            && self.machine.seq() <= MOST_EVENTS
            && self.machine.state() == RunState::Waiting
            && self.machine.next_timer().is_none_or(|at| at > soon)
    }

    async fn turn(&mut self) -> Result<Turned, RunError> {
        let mut answers: Vec<Answer> = Vec::new();
        if self.is_taken_over {
            self.look_at_the_clock()?;
            // Before anything else: a cancel that waits there is obeyed before an interrupted step is begun anew.
            let order = self.order.take();
            let accepted = Box::pin(self.read_inbox()).await?;
            if order.is_some_and(|order| !accepted.contains(&order)) {
                self.commit(&mut answers).await?;
                self.unlearned.nothing_is_left()?;
                let finished = self.machine.finished();
                return Ok(Turned::Ended(
                    finished.map_or(Ended::Interrupted, |finished| {
                        Ended::Finished(finished.outcome)
                    }),
                ));
            }
        }
        loop {
            if !self.is_stopping() {
                let now = self.clock.now();
                // A process that was stopped for a while has not seen what came in time.
                if self.machine.expires(now) || self.shared.is_late() {
                    Box::pin(self.read_inbox()).await?;
                }
                if !self.unlearned.is_empty() {
                    Box::pin(self.hold_without_secrets(now)).await?;
                }
                self.wake_by_the_clock(now)?;
                let events = self.machine.settle(now).map_err(|e| self.illegal(&e))?;
                self.batch.extend(events);
            }
            let wrote = self.commit(&mut answers).await?;
            let missing = self.missing();
            if !missing.is_empty() && !wrote {
                // Else an effect would follow from what no name leads to any more. An append has just looked for itself.
                self.shared.journal.in_place().await?;
            }
            self.reconcile(missing);
            if let Some(ended) = self.ended() {
                // What was left in the inbox needs what this process does not have.
                if self.machine.finished().is_none() {
                    self.unlearned.nothing_is_left()?;
                }
                return Ok(Turned::Ended(ended));
            }
            if self.parks() {
                return Ok(Turned::Parks);
            }
            let message = self.next_message().await;
            // Group commit: everything that has arrived by now goes into one batch.
            let (mut inbox, mut clock) = (false, false);
            let mut next = message;
            while let Some(message) = next {
                match message {
                    Message::Report(reported) => self.take(*reported, &mut answers)?,
                    Message::Met(met) => {
                        let verdict = self.meet(&met.target, met.who)?;
                        answers.push((met.answer, verdict));
                    }
                    Message::Ended(wanted) => {
                        self.in_flight.remove(&wanted);
                    }
                    Message::Inbox => inbox = true,
                    Message::Clock => clock = true,
                }
                next = self.line.rx.try_recv().ok();
            }
            if clock {
                self.look_at_the_clock()?;
            }
            if inbox || clock {
                Box::pin(self.read_inbox()).await?;
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.line.stop.is_cancelled() || self.line.end.is_cancelled()
    }

    fn illegal(&self, error: &IllegalEvent) -> RunError {
        RunError::Replay {
            run: self.lease.run().to_owned(),
            why: error.to_string(),
        }
    }

    fn ended(&self) -> Option<Ended> {
        if let Some(finished) = self.machine.finished() {
            return Some(Ended::Finished(finished.outcome));
        }
        if !self.in_flight.is_empty() {
            return None;
        }
        if self.is_stopping() {
            return Some(Ended::Interrupted);
        }
        match self.machine.state() {
            RunState::Stuck => Some(Ended::Stuck),
            // What is being undone continues, though a failure elsewhere waits for an answer.
            RunState::Paused
                if self.machine.next_timer().is_some() && !self.options.leave_when_waiting =>
            {
                None
            }
            RunState::Paused => Some(Ended::Paused),
            RunState::Waiting if self.options.leave_when_waiting => Some(Ended::Waiting),
            RunState::Waiting
            | RunState::Running
            | RunState::Compensating
            | RunState::Finished(_) => None,
        }
    }

    /// The next message, or none when a timer is due or a stop was asked for.
    async fn next_message(&mut self) -> Option<Message> {
        let stopping = self.is_stopping();
        let ending = self.line.end.is_cancelled();
        let timer = self.machine.next_timer().filter(|_| !stopping);
        let clock = self.clock.clone();
        let due = async {
            match timer {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let stop = async {
            if stopping {
                std::future::pending().await
            } else {
                self.line.stop.cancelled().await;
            }
        };
        let end = async {
            if ending {
                std::future::pending().await
            } else {
                self.line.end.cancelled().await;
            }
        };
        tokio::select! {
            message = self.line.rx.recv() => message.ok(),
            () = due => None,
            () = stop => None,
            () = end => None,
        }
    }

    fn take(&mut self, reported: Reported, answers: &mut Vec<Answer>) -> Result<(), RunError> {
        let Reported {
            wanted,
            report,
            answer,
        } = reported;
        let now = self.clock.now();
        let events = match &report {
            // Ended by this process, and not by the run: it keeps its place. What may have taken effect is left as a crash
            // would leave it, so that a probe tells.
            Report::Failed { failure, .. }
                if self.line.end.is_cancelled() && failure.cause == Cause::Cancelled =>
            {
                self.machine.interrupted(&wanted, failure, now)
            }
            Report::Probed(Probed::InDoubt(_)) if self.line.end.is_cancelled() => Vec::new(),
            Report::Captured(_)
            | Report::Marked(_)
            | Report::Progressed(_)
            | Report::Suspended { .. }
            | Report::Done { .. }
            | Report::Failed { .. }
            | Report::Probed(_) => self.machine.report(&wanted, report, now),
        };
        let counted = !events.is_empty();
        self.apply(events)?;
        if let Some(answer) = answer {
            let verdict = if counted {
                Ok(())
            } else {
                Err(
                    Failure::new("run.superseded", "this attempt no longer counts")
                        .cause(Cause::Cancelled),
                )
            };
            answers.push((answer, verdict));
        }
        Ok(())
    }

    /// A step has reached a target: who it is, is bound or compared before the step acts there.
    fn meet(&mut self, target: &str, who: Identity) -> Result<Result<(), Failure>, RunError> {
        // A derived target is not one of the run's own: who it must not be, its step compares.
        let Some(known) = self.machine.started().targets.get(target) else {
            return Ok(Ok(()));
        };
        match targets::judge(&self.machine, known, who) {
            Err(failure) => Ok(Err(failure)),
            Ok(None) => Ok(Ok(())),
            Ok(Some(news)) => {
                let at = self.clock.now().max(self.machine.last_at());
                let body = EventBody::Identified(Box::new(news));
                self.apply(vec![Event { at, body }])?;
                Ok(Ok(()))
            }
        }
    }

    /// Notices that the wall clock was set. Spans do not notice; who waits for an instant looks at it again, after the orders that were
    /// sent before.
    fn look_at_the_clock(&mut self) -> Result<(), RunError> {
        let offset = self.clock.offset();
        let by = Duration::from_millis(offset.as_millis() - self.offset.as_millis());
        if self.machine.finished().is_some() {
            return Ok(());
        }
        let now = self.clock.now();
        if is_step(by) {
            self.offset = offset;
            let step = ClockStepped {
                by,
                wall: self.clock.wall(),
            };
            let at = now.max(self.machine.last_at());
            let body = EventBody::ClockStepped(step);
            self.apply(vec![Event { at, body }])?;
        }
        self.looks = true;
        Ok(())
    }

    /// While the run is held up nobody is woken, for whatever reason: they look once it continues.
    fn wake_by_the_clock(&mut self, now: Timestamp) -> Result<(), RunError> {
        if !self.looks || self.machine.is_held_up() {
            return Ok(());
        }
        self.looks = false;
        let clock = self.clock.clone();
        let woken = self
            .machine
            .look_at_the_clock(now, |at| clock.of_wall(at))
            .map_err(|e| self.illegal(&e))?;
        self.batch.extend(woken);
        Ok(())
    }

    fn apply(&mut self, events: Vec<Event>) -> Result<(), RunError> {
        for event in &events {
            self.machine.apply(event).map_err(|e| self.illegal(&e))?;
        }
        self.batch.extend(events);
        Ok(())
    }

    /// Appends what was applied; only then are answers given and observers told. Whether anything was appended.
    async fn commit(&mut self, answers: &mut Vec<Answer>) -> Result<bool, RunError> {
        let writes = !self.batch.is_empty();
        if writes {
            let events = std::mem::take(&mut self.batch);
            let first = self.machine.seq() + 1 - events.len() as u64;
            let state = self.machine.word();
            self.shared
                .journal
                .append(self.lease.as_ref(), first, events.clone(), state)
                .await?;
            self.line.tell(first, events);
        }
        for (answer, verdict) in answers.drain(..) {
            drop(answer.send(verdict));
        }
        Ok(writes)
    }

    /// What is wanted and not in flight.
    fn missing(&self) -> Vec<Wanted> {
        if self.is_stopping() {
            return Vec::new();
        }
        self.machine
            .wanted()
            .filter(|wanted| !self.in_flight.contains_key(wanted))
            .collect()
    }

    /// Starts what is missing; ends what is in flight and not wanted.
    fn reconcile(&mut self, missing: Vec<Wanted>) {
        let ends_all = self.line.end.is_cancelled();
        for (wanted, cancel) in &self.in_flight {
            if ends_all || !self.machine.is_wanted(wanted) {
                cancel.cancel();
            }
        }
        // An attempt that was started and told to end in one batch has not begun here: nobody else reports its end. As this process ends
        // what runs, others have ended without a report that counts: they may have acted, and are left as a crash would leave them.
        for wanted in self.machine.unwanted() {
            if !ends_all && !self.in_flight.contains_key(&wanted) {
                let report = self.machine.unbegun(&wanted);
                drop(self.line.tx.unbounded_send(Message::report(wanted, report)));
            }
        }
        for wanted in missing {
            let cancel = CancellationToken::new();
            self.in_flight.insert(wanted, cancel.clone());
            let tx = self.line.tx.clone();
            let made = Assignment::new(&self.machine, wanted, &self.surroundings(), cancel);
            match made {
                Ok(assignment) => {
                    spawn(async move {
                        let report = assignment.run().await;
                        drop(tx.unbounded_send(Message::report(wanted, report)));
                        drop(tx.unbounded_send(Message::Ended(wanted)));
                    });
                }
                Err(failure) => {
                    let report = match wanted.work {
                        Work::Probe => Report::Probed(Probed::InDoubt(failure.message)),
                        Work::Execute => Report::Failed {
                            failure: failure.certainty(Certainty::NoEffect),
                            evidence: Vec::new(),
                        },
                    };
                    let report = redact::report(self.secrets.redactor(), report);
                    drop(tx.unbounded_send(Message::report(wanted, report)));
                    drop(tx.unbounded_send(Message::Ended(wanted)));
                }
            }
        }
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            shared: self.shared.clone(),
            secrets: self.secrets.clone(),
            printer: self.printer.clone(),
            met: self.met.clone(),
            clock: self.clock.clone(),
            tx: self.line.tx.clone(),
        }
    }

    /// Takes every command of the inbox, each at its own time: what had expired before it comes first. Nothing is begun anew before
    /// the commands are known. Returns the ids of those that were accepted.
    async fn read_inbox(&mut self) -> Result<Vec<String>, RunError> {
        let mut accepted = Vec::new();
        let commands = self.shared.journal.inbox(Some(self.lease.run())).await?;
        let was_over = self.machine.finished().is_some();
        let mut before = Timestamp::MIN;
        for command in commands {
            if self.taken.contains(&command.id) {
                continue;
            }
            let now = self.clock.now();
            // They are in the order in which they came, whatever the clocks of those who sent them say.
            let sent = self.clock.of_wall(command.at).min(now).max(before);
            before = sent;
            if !self.is_stopping() {
                self.hold_without_secrets(sent).await?;
                let due = self.machine.wake(sent);
                self.batch.extend(due.map_err(|e| self.illegal(&e))?);
            }
            let command = redact::submitted(self.secrets.redactor(), command);
            if !self.may_take(&command, sent).await? {
                continue;
            }
            self.taken.insert(command.id.clone());
            let events = self.machine.command(&command, sent);
            let refused = |event: &Event| matches!(event.body, EventBody::CommandRefused(_));
            if !events.iter().any(refused) {
                accepted.push(command.id.clone());
            }
            self.apply(events)?;
        }
        if was_over && self.machine.finished().is_none() {
            // Windows are of the wall clock, of which nothing was written while the run was over.
            self.look_at_the_clock()?;
        }
        Ok(accepted)
    }

    /// Without the content of a secret that the run has used, nothing may act: what it reads could not be kept out of the
    /// journal. The run is given back before such a step is written down as started, so that nothing fails or is in doubt.
    async fn hold_without_secrets(&mut self, now: Timestamp) -> Result<(), RunError> {
        if self.unlearned.is_empty() {
            return Ok(());
        }
        let mut ahead = self.machine.clone();
        ahead.settle(now).map_err(|e| self.illegal(&e))?;
        if self.would_act(&ahead) {
            let now = self.clock.now();
            self.unlearned.learn(&self.secrets, now).await?;
        }
        Ok(())
    }

    /// Whether a command may be taken now: one after which a step would act stays in the inbox until the secrets are there.
    async fn may_take(
        &mut self,
        command: &crate::machine::Submitted,
        sent: Timestamp,
    ) -> Result<bool, RunError> {
        if self.unlearned.is_empty() {
            return Ok(true);
        }
        let mut ahead = self.machine.clone();
        for event in ahead.command(command, sent) {
            ahead.apply(&event).map_err(|e| self.illegal(&e))?;
        }
        ahead.settle(sent).map_err(|e| self.illegal(&e))?;
        let now = self.clock.now();
        if self.would_act(&ahead)
            && let Err(error) = self.unlearned.learn(&self.secrets, now).await
        {
            self.unlearned.leave(error);
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether a machine wants a step to act of which more can come than the journal knows already.
    fn would_act(&self, ahead: &Machine) -> bool {
        ahead
            .wanted()
            .any(|wanted| !self.in_flight.contains_key(&wanted) && !ahead.only_waits(&wanted))
    }
}

/// What an execution needs of its driver.
pub(super) struct Surroundings {
    pub shared: Arc<Shared>,
    pub secrets: Arc<RunSecrets>,
    pub printer: Arc<Printer>,
    pub met: Arc<Met>,
    pub clock: Arc<RunClock>,
    pub tx: mpsc::UnboundedSender<Message>,
}

/// The only place that spawns.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that spawns"
)]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
