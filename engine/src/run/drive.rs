//! The loop that drives one run.
use super::{
    api::{DriveOptions, Ended, RunError},
    driver::Shared,
    redact,
    work::{Assignment, Message},
};
use crate::{
    journal::Lease,
    machine::{Event, IllegalEvent, Machine, Report, RunState, Wanted, Work},
    secret::RunSecrets,
    step::{Certainty, Failure, Probed},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

type Answer = (oneshot::Sender<Result<(), Failure>>, Result<(), Failure>);

pub(super) struct Drive {
    pub shared: Arc<Shared>,
    pub machine: Machine,
    pub lease: Box<dyn Lease>,
    pub secrets: Arc<RunSecrets>,
    pub options: DriveOptions,
    pub rx: mpsc::UnboundedReceiver<Message>,
    pub tx: mpsc::UnboundedSender<Message>,
    pub observers: mpsc::UnboundedSender<(u64, Arc<Event>)>,
    pub stop: CancellationToken,
    pub in_flight: HashMap<Wanted, CancellationToken>,
    /// Inbox entries that this driver has taken.
    pub taken: HashSet<String>,
    /// Applied, and not yet durable.
    pub batch: Vec<Event>,
}

impl Drive {
    /// Drives until the run ends, needs a person, or is told to stop.
    pub(super) async fn run(mut self) -> Result<Ended, RunError> {
        let result = self.turn().await;
        // Nothing outlives the lease: what is in flight is ended and awaited.
        for cancel in self.in_flight.values() {
            cancel.cancel();
        }
        while !self.in_flight.is_empty() {
            match self.rx.recv().await {
                Some(Message::Ended(wanted)) => {
                    self.in_flight.remove(&wanted);
                }
                Some(Message::Report(..) | Message::Inbox) => {}
                None => break,
            }
        }
        result
    }

    async fn turn(&mut self) -> Result<Ended, RunError> {
        self.read_inbox().await?;
        let mut answers: Vec<Answer> = Vec::new();
        loop {
            let now = self.shared.clock.now();
            if !self.stop.is_cancelled() {
                let events = self.machine.settle(now).map_err(|e| self.illegal(&e))?;
                self.batch.extend(events);
            }
            self.commit(&mut answers).await?;
            let missing = self.missing();
            if !missing.is_empty() {
                // Else an effect would follow from what no name leads to any more.
                self.shared.journal.in_place().await?;
            }
            self.reconcile(missing);
            if let Some(ended) = self.ended() {
                return Ok(ended);
            }
            let message = self.next_message().await;
            // Group commit: everything that has arrived by now goes into one batch.
            let mut inbox = false;
            let mut next = message;
            while let Some(message) = next {
                match message {
                    Message::Report(wanted, report, answer) => {
                        self.take(&wanted, *report, answer, &mut answers)?
                    }
                    Message::Ended(wanted) => {
                        self.in_flight.remove(&wanted);
                    }
                    Message::Inbox => inbox = true,
                }
                next = self.rx.try_recv().ok();
            }
            if inbox {
                self.read_inbox().await?;
            }
        }
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
        if self.stop.is_cancelled() {
            return Some(Ended::Interrupted);
        }
        match self.machine.state() {
            RunState::Stuck => Some(Ended::Stuck),
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
        let stopping = self.stop.is_cancelled();
        let timer = self.machine.next_timer().filter(|_| !stopping);
        let due = async {
            match timer {
                Some(at) => self.shared.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let stop = async {
            if stopping {
                std::future::pending().await
            } else {
                self.stop.cancelled().await;
            }
        };
        tokio::select! {
            message = self.rx.recv() => message,
            () = due => None,
            () = stop => None,
        }
    }

    fn take(
        &mut self,
        wanted: &Wanted,
        report: Report,
        answer: Option<oneshot::Sender<Result<(), Failure>>>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), RunError> {
        let events = self.machine.report(wanted, report, self.shared.clock.now());
        let counted = !events.is_empty();
        self.apply(events)?;
        if let Some(answer) = answer {
            let verdict = if counted {
                Ok(())
            } else {
                Err(
                    Failure::new("run.superseded", "this attempt no longer counts")
                        .cause(crate::step::Cause::Cancelled),
                )
            };
            answers.push((answer, verdict));
        }
        Ok(())
    }

    fn apply(&mut self, events: Vec<Event>) -> Result<(), RunError> {
        for event in &events {
            self.machine.apply(event).map_err(|e| self.illegal(&e))?;
        }
        self.batch.extend(events);
        Ok(())
    }

    /// Appends what was applied; only then are answers given and observers told.
    async fn commit(&mut self, answers: &mut Vec<Answer>) -> Result<(), RunError> {
        if !self.batch.is_empty() {
            let events = std::mem::take(&mut self.batch);
            let first = self.machine.seq() + 1 - events.len() as u64;
            let state = self.machine.state().as_str();
            self.shared
                .journal
                .append(self.lease.as_ref(), first, events.clone(), state)
                .await?;
            for (seq, event) in (first..).zip(events) {
                // Nobody has to watch.
                drop(self.observers.send((seq, Arc::new(event))));
            }
        }
        for (answer, verdict) in answers.drain(..) {
            drop(answer.send(verdict));
        }
        Ok(())
    }

    /// What is wanted and not in flight.
    fn missing(&self) -> Vec<Wanted> {
        if self.stop.is_cancelled() {
            return Vec::new();
        }
        let wanted = self.machine.wanted().iter().copied();
        wanted
            .filter(|wanted| !self.in_flight.contains_key(wanted))
            .collect()
    }

    /// Starts what is missing; ends what is in flight and not wanted.
    fn reconcile(&mut self, missing: Vec<Wanted>) {
        for (wanted, cancel) in &self.in_flight {
            if !self.machine.is_wanted(wanted) {
                cancel.cancel();
            }
        }
        for wanted in missing {
            let cancel = CancellationToken::new();
            self.in_flight.insert(wanted, cancel.clone());
            let tx = self.tx.clone();
            let made = Assignment::new(
                &self.machine,
                wanted,
                &self.shared,
                &self.secrets,
                &tx,
                cancel,
            );
            match made {
                Ok(assignment) => {
                    spawn(async move {
                        let report = assignment.run().await;
                        drop(tx.send(Message::Report(wanted, Box::new(report), None)));
                        drop(tx.send(Message::Ended(wanted)));
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
                    drop(tx.send(Message::Report(wanted, Box::new(report), None)));
                    drop(tx.send(Message::Ended(wanted)));
                }
            }
        }
    }

    /// Takes every command of the inbox, each at its own time: what was due before it comes first.
    async fn read_inbox(&mut self) -> Result<(), RunError> {
        let mut commands = self.shared.journal.inbox(Some(self.lease.run())).await?;
        commands.sort_by_key(|command| command.at);
        for command in commands {
            if !self.taken.insert(command.id.clone()) {
                continue;
            }
            let now = self.shared.clock.now();
            if !self.stop.is_cancelled() {
                let due = self
                    .machine
                    .settle(command.at.min(now))
                    .map_err(|e| self.illegal(&e))?;
                self.batch.extend(due);
            }
            let command = redact::submitted(self.secrets.redactor(), command);
            let events = self.machine.command(&command, command.at.min(now));
            self.apply(events)?;
        }
        Ok(())
    }
}

/// The only place that spawns.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that spawns"
)]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
