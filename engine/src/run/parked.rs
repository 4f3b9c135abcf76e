//! A run that only waits, put away: its history is in the journal, and is replayed when something comes. Thousands of runs that wait
//! hold little more than their leases.
use super::{
    api::RunError,
    clock::RunClock,
    drive::Line,
    driver::Shared,
    taking::{Taken, replay},
    targets::Met,
    unlearned::Unlearned,
};
use crate::{
    journal::Lease,
    machine::Machine,
    secret::RunSecrets,
    value::{Duration, Timestamp},
};
use std::sync::Arc;

/// Waits that are shorter are not worth a replay.
pub(super) const WORTH_IT: Duration = Duration::from_secs(5);

/// A history of more events takes too long to replay.
pub(super) const MOST_EVENTS: u64 = 2_000;

pub(super) struct Parked {
    pub lease: Box<dyn Lease>,
    pub secrets: Arc<RunSecrets>,
    pub unlearned: Unlearned,
    pub met: Arc<Met>,
    pub clock: Arc<RunClock>,
    /// How far the wall clock was ahead of the run's time when it was last looked at.
    pub offset: Duration,
    /// The last event that is written.
    pub seq: u64,
    /// When the run goes on by itself.
    pub timer: Option<Timestamp>,
}

impl Parked {
    /// Waits until something comes: a message, the timer, or that the process is to stop.
    pub(super) async fn wait(&self, line: &mut Line) {
        let timer = async {
            match self.timer {
                Some(at) => self.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = line.rx.recv() => {
                if let Ok(message) = message {
                    // The driver takes it from there.
                    drop(line.tx.unbounded_send(message));
                }
            }
            () = timer => {}
            () = line.stop.cancelled() => {}
            () = line.end.cancelled() => {}
        }
    }

    /// The run as it was, from its history.
    ///
    /// # Errors
    /// If the journal fails, or has another history than it had.
    pub(super) async fn taken_up(self, shared: &Shared) -> Result<Taken, RunError> {
        let run = self.lease.run().to_owned();
        let events = shared.journal.load(&run, 1).await?;
        let machine = Box::new(Machine::recover(&events).map_err(|e| replay(&run, &e))?);
        if machine.seq() != self.seq {
            return Err(RunError::Replay {
                run,
                why: format!(
                    "{} events of it were written, and the journal has {}",
                    self.seq,
                    machine.seq()
                ),
            });
        }
        Ok(Taken {
            machine,
            lease: self.lease,
            secrets: self.secrets,
            unlearned: self.unlearned,
            met: self.met,
            clock: self.clock,
            offset: Some(self.offset),
            order: None,
            seen: (self.seq + 1, Vec::new()),
        })
    }
}
