use crate::{
    graph::Graph,
    journal::{JournalError, LockHeld, RefusedBy},
    machine::{Event, Outcome},
    step::{Cause, Failure, Target},
    value::Value,
};
use futures_channel::mpsc;
use indexmap::IndexMap;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What a new run is made of.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// The compiled playbook.
    pub graph: Arc<Graph>,
    /// Checked inputs.
    pub inputs: Value,
    /// Bound targets, without identities: the driver asks each server who it is.
    pub targets: IndexMap<String, Target>,
    /// The environment's name.
    pub environment: String,
    /// Members of approver groups.
    pub approvers: IndexMap<String, Vec<String>>,
    /// Who starts it.
    pub by: String,
    /// The digest of the approved plan, where there is one.
    pub digest: Option<String>,
}

/// How a driver behaves for one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DriveOptions {
    /// Give the lease back as soon as the run only waits (exit code 4) instead of waiting with it.
    pub leave_when_waiting: bool,
    /// Go on although a target is another server than the run knows: the steps that use it fail.
    pub even_if_changed: bool,
    /// Give the run back as soon as the journal fails, as a process that dies would, instead of taking it again a few times.
    pub die_with_journal: bool,
}

/// Why a driver gave the run back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The run is over.
    Finished(Outcome),
    /// A person is needed: an undo failed or a doubt stands.
    Stuck,
    /// Paused, and nothing is in flight.
    Paused,
    /// Only waits (with [`DriveOptions::leave_when_waiting`]).
    Waiting,
    /// [`RunHandle::stop`] was called; what was in flight has finished, the run can be resumed.
    Interrupted,
}

/// What keeps a run from being driven.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A lock of `policy.locks`.
    #[error(transparent)]
    Locked(#[from] LockHeld),
    /// Outside every window of `policy.windows`.
    #[error("outside the windows of this playbook: {0}")]
    OutsideWindow(String),
    /// A secret that the run has used cannot be fetched again, so that it could not be kept out of what is written.
    #[error("{why}")]
    Secret {
        /// What is wrong.
        why: String,
        /// What to do.
        help: Option<String>,
    },
    /// A target cannot be reached, or is not the one that the playbook or the run means.
    #[error("target {target}: {why}")]
    Target {
        /// The target.
        target: String,
        /// What is wrong.
        why: String,
        /// The code of the failure.
        code: String,
        /// The cause: a rule refused it (its role, who it is), it is down, or anything else.
        cause: Cause,
        /// What to do.
        help: Option<String>,
    },
    /// The journal holds a history that the machine does not allow.
    #[error("run {run} cannot be replayed: {why}")]
    Replay {
        /// The run.
        run: String,
        /// What is wrong.
        why: String,
    },
    /// The key has started a run. Where nothing differs, that is the run that was asked for.
    #[error("key {key:?} has started run {run}{}", differs.map(|what| format!(", {what}")).unwrap_or_default())]
    KeyUsed {
        /// The key.
        key: String,
        /// The run.
        run: String,
        /// What this start has and that one had not.
        differs: Option<&'static str>,
    },
    /// The run is over.
    #[error("run {run} is over: {outcome}")]
    Over {
        /// The run.
        run: String,
        /// How it ended.
        outcome: &'static str,
    },
}

impl RunError {
    /// What refused a start; nothing where it failed.
    #[must_use]
    pub fn refused_by(&self) -> Option<RefusedBy> {
        match self {
            Self::Locked(LockHeld::Held { .. }) => Some(RefusedBy::Lock),
            Self::OutsideWindow(_) => Some(RefusedBy::Window),
            Self::Target { cause, code, .. } => match code.as_str() {
                _ if *cause == Cause::Refused => Some(RefusedBy::Target),
                // What the environment says of it is wrong: no server was asked.
                "target.url" | "target.option" | "target.kind" => None,
                _ => Some(RefusedBy::Unreachable),
            },
            Self::KeyUsed { differs, .. } => differs.map(|_| RefusedBy::Key),
            Self::Locked(LockHeld::Journal(_))
            | Self::Journal(_)
            | Self::Secret { .. }
            | Self::Replay { .. }
            | Self::Over { .. } => None,
        }
    }

    /// What is wrong with a target; kinds that name it themselves are not told twice.
    #[must_use]
    pub fn target(target: &Target, failure: Failure) -> Self {
        let lead = format!("target {}: ", target.called());
        Self::Target {
            target: target.called(),
            why: failure
                .message
                .strip_prefix(&lead)
                .map_or(failure.message.clone(), str::to_owned),
            code: failure.code,
            cause: failure.cause,
            help: failure.help,
        }
    }

    /// Whether it is not known what the journal has: it is looked at again before anything acts.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Journal(JournalError::Store(_)))
    }

    /// With the names of others that are in the way too.
    pub(super) fn beside(mut self, others: &[String]) -> Self {
        if let Self::Target { why, .. } = &mut self
            && !others.is_empty()
        {
            why.push_str(&format!("; so it is with {}", others.join(", ")));
        }
        self
    }
}

/// Durable events of a run, for whoever watches it.
///
/// The queue starts empty and grows by what is in it: a process that drives thousands of runs that wait has one for each.
pub struct Events(pub(super) mpsc::UnboundedReceiver<(u64, Arc<Event>)>);

impl Events {
    /// The next event with its sequence number; none when the driver has given the run back.
    pub async fn recv(&mut self) -> Option<(u64, Arc<Event>)> {
        self.0.recv().await.ok()
    }

    /// An event that is there already.
    pub fn ready(&mut self) -> Option<(u64, Arc<Event>)> {
        self.0.try_recv().ok()
    }
}

/// How a driver gave a run back, as soon as it is known.
pub(super) enum Ends {
    Later(oneshot::Receiver<Result<Ended, Arc<RunError>>>),
    Known(Result<Ended, Arc<RunError>>),
}

/// A run that is being driven.
pub struct RunHandle {
    /// The run's id.
    pub id: String,
    /// Durable events, as they become durable, with their sequence numbers; ends when the driver ends.
    pub events: Events,
    pub(super) stop: CancellationToken,
    pub(super) end: CancellationToken,
    pub(super) ended: Ends,
}

impl RunHandle {
    /// Starts nothing new, lets what is in flight finish, and leaves the run resumable.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Starts nothing new, ends on its server what is in flight, and leaves the run resumable: a step that was ended without
    /// effect starts anew, and one that may have taken effect is asked about.
    pub fn end(&self) {
        self.stop.cancel();
        self.end.cancel();
    }

    /// Waits until the driver gives the run back.
    ///
    /// # Errors
    /// Where the journal failed or the lease was lost.
    pub async fn ended(&mut self) -> Result<Ended, Arc<RunError>> {
        let ended = match &mut self.ended {
            Ends::Known(ended) => ended.clone(),
            Ends::Later(told) => told.await.unwrap_or_else(|_| {
                Err(Arc::new(RunError::Replay {
                    run: self.id.clone(),
                    why: "the driver stopped without saying why".to_owned(),
                }))
            }),
        };
        self.ended = Ends::Known(ended.clone());
        ended
    }
}
