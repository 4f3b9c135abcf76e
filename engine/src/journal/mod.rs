//! Where runs are written down.
//!
//! A journal is append-only. One process at a time drives a run, under a lease with an epoch that
//! grows; an append under a superseded lease is refused. Each run is a hash chain.
#[doc(hidden)]
pub mod conformance;
mod memory;
mod printed;
mod record;
mod sqlite;
mod start;

pub use memory::{Fault, MemoryJournal, Snapshot};
pub use printed::{Printed, PrintedOf, PrintedSize, Prints};
pub use sqlite::{Sharing, SqliteJournal};
pub use start::{Keyed, NotBegun, REFUSED_KEPT, RefusedBy, RefusedStart, StartKey, StartOf, Terms};

use crate::{
    machine::{Event, Holder, Submitted},
    step::{Account, shown},
    value::Timestamp,
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// What a journal says when it cannot do as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// No run has this id.
    #[error("no run {0}")]
    NoSuchRun(String),
    /// A short id fits more than one run.
    #[error("{prefix} fits {count} runs; give more of the id")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many fit.
        count: usize,
    },
    /// Another process drives the run.
    #[error("run {run} is driven by {} on {}, process {}, since {:.0}", holder.who(), holder.host, holder.pid, holder.since)]
    LeaseHeld {
        /// The run.
        run: String,
        /// Who.
        holder: Box<Holder>,
    },
    /// The lease was superseded: somebody else drives the run now.
    #[error("the lease on run {run} was taken by another process")]
    LeaseLost {
        /// The run.
        run: String,
    },
    /// The place in the run is taken already.
    #[error("event {seq} of run {run} is written already")]
    SequenceTaken {
        /// The run.
        run: String,
        /// The place.
        seq: u64,
    },
    /// An event takes a command that the inbox does not hold for this run. Nothing was written.
    #[error("command {id} of run {run} was taken already, or never sent")]
    NotInInbox {
        /// The run.
        run: String,
        /// The command's id.
        id: String,
    },
    /// What stands in the journal is not what was written.
    #[error("the journal is damaged at run {run}, event {seq}: {what}")]
    Corrupt {
        /// The run.
        run: String,
        /// The event's sequence number.
        seq: u64,
        /// What is wrong.
        what: String,
    },
    /// A newer Windlass wrote it.
    #[error("the journal has format {found}, this windlass writes {known}; nothing was changed")]
    Newer {
        /// Its format.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// There is no file.
    #[error("there is no journal at {path}")]
    Missing {
        /// Where.
        path: String,
    },
    /// The file cannot be opened, or is no journal. Nothing was written.
    #[error("the journal {path} cannot be opened: {why}")]
    Unusable {
        /// Where.
        path: String,
        /// Why.
        why: String,
    },
    /// The file is a copy of a journal that is still in its place: a run that both hold would be driven twice.
    #[error("{path} is a copy of the journal {original}, which is still there")]
    Copied {
        /// The copy.
        path: String,
        /// What it is a copy of.
        original: String,
    },
    /// The file is not the one that this process opened, or not as this process left it. What was asked may have been written
    /// to a file that no name leads to.
    #[error("the journal {path} was changed under this process: {what}")]
    Replaced {
        /// Where it was.
        path: String,
        /// What happened to it.
        what: String,
    },
    /// The disk is full. Nothing that was written is lost.
    #[error("no space left for the journal at {path}; nothing that was written is lost")]
    DiskFull {
        /// Where.
        path: String,
    },
    /// The store failed. Whether the append happened is not known.
    #[error("the journal failed: {0}")]
    Store(String),
}

/// The right to append to one run. Dropping it gives it back.
pub trait Lease: Send + Sync {
    /// The run.
    fn run(&self) -> &str;
    /// Grows by one with each lease of the run.
    fn epoch(&self) -> u64;
}

/// One run, for lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its id.
    pub id: String,
    /// The playbook's name.
    pub playbook: String,
    /// The environment's name.
    pub environment: String,
    /// Who started it, as they call themselves.
    pub by: String,
    /// The account that started it; none in runs of before accounts were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// When.
    pub started_at: Timestamp,
    /// When the last event was written; of a run that is over, when it ended.
    pub updated_at: Timestamp,
    /// `running`, `waiting`, `compensating`, `stuck`, `paused`, `closed`, or an outcome; as of the last append.
    pub state: String,
    /// How many events it has.
    pub events: u64,
    /// The key that it was started by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Who drives it now, if somebody does.
    pub holder: Option<Holder>,
}

impl RunSummary {
    /// Who started it, as people read it.
    #[must_use]
    pub fn starter(&self) -> String {
        shown(&self.by, self.account.as_ref())
    }

    /// Whether it is over, as of the last append.
    #[must_use]
    pub fn is_over(&self) -> bool {
        record::is_over(&self.state)
    }
}

impl Audit {
    /// The head that a report of the run has.
    #[must_use]
    pub fn reported(&self) -> &Head {
        self.ended.as_ref().unwrap_or(&self.head)
    }
}

/// The head of a run's hash chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of events.
    pub seq: u64,
    /// SHA-256 over the whole chain, in hexadecimal.
    pub hash: String,
}

/// One line of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The run.
    pub run: String,
    /// The head, where the chain holds.
    pub head: Head,
    /// The head when the run ended, where only refusals of commands came after: a report of the run is of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Head>,
    /// The first event that does not hold, and why.
    pub broken: Option<(u64, String)>,
}

/// Where runs are written down. `seq` counts from 1.
pub trait Journal: Send + Sync + 'static {
    /// Makes a run with its first events, takes its locks, its key and its lease, in one commit or not at all.
    fn begin(
        &self,
        run: &str,
        holder: Holder,
        events: Vec<Event>,
        terms: Terms,
    ) -> BoxFuture<'_, Result<Box<dyn Lease>, NotBegun>>;
    /// [`Journal::begin`] without locks and without a key.
    fn create(
        &self,
        run: &str,
        holder: Holder,
        events: Vec<Event>,
    ) -> BoxFuture<'_, Result<Box<dyn Lease>, JournalError>> {
        let begun = self.begin(run, holder, events, Terms::default());
        Box::pin(async move {
            begun.await.map_err(|refused| match refused {
                NotBegun::Journal(error) => error,
                NotBegun::Locked(_) | NotBegun::KeyUsed { .. } => {
                    JournalError::Store(refused.to_string())
                }
            })
        })
    }
    /// The run that a key started, if it started one.
    fn keyed(&self, key: &str) -> BoxFuture<'_, Result<Option<Keyed>, JournalError>>;
    /// Keeps that a start was refused.
    fn refuse(&self, start: RefusedStart) -> BoxFuture<'_, Result<(), JournalError>>;
    /// The starts that were refused, newest first.
    fn refused(&self) -> BoxFuture<'_, Result<Vec<RefusedStart>, JournalError>>;
    /// Whether the store is still the one that was opened: asked before an effect starts, so it must be cheap. An append
    /// asks by itself.
    fn in_place(&self) -> BoxFuture<'_, Result<(), JournalError>>;
    /// Takes the lease of a run, at once or not at all.
    fn lease(
        &self,
        run: &str,
        holder: Holder,
    ) -> BoxFuture<'_, Result<Box<dyn Lease>, JournalError>>;
    /// Appends, durably when it returns. `seq` is the place of the first event. Inbox entries that the events
    /// accept or refuse are consumed in the same commit. `state` is what lists show from now on.
    fn append<'a>(
        &'a self,
        lease: &'a dyn Lease,
        seq: u64,
        events: Vec<Event>,
        state: &'static str,
    ) -> BoxFuture<'a, Result<(), JournalError>>;
    /// All events of a run from `from` on (1 is the first).
    fn load(&self, run: &str, from: u64) -> BoxFuture<'_, Result<Vec<Event>, JournalError>>;
    /// The full id for an id or the beginning or end of one.
    fn find(&self, id: &str) -> BoxFuture<'_, Result<String, JournalError>>;
    /// All runs, newest first.
    fn runs(&self) -> BoxFuture<'_, Result<Vec<RunSummary>, JournalError>>;
    /// Puts a command into a run's inbox, durably. The same id twice is once.
    fn submit(&self, command: Submitted) -> BoxFuture<'_, Result<(), JournalError>>;
    /// Takes a command out of the inbox that no driver has taken; whether it was there. Who sent it has learned that nothing can take it
    /// now: it must not act later, as if it had not been refused.
    fn withdraw(&self, run: &str, id: &str) -> BoxFuture<'_, Result<bool, JournalError>>;
    /// Commands that no driver has taken yet, oldest first; of one run or of all. One that cannot be read is passed over, so that
    /// it keeps no run back: [`Journal::audit`] reports it.
    fn inbox(&self, run: Option<&str>) -> BoxFuture<'_, Result<Vec<Submitted>, JournalError>>;
    /// A number that changes whenever anything in the journal may have changed; cheap enough to ask often.
    fn version(&self) -> BoxFuture<'_, Result<u64, JournalError>>;
    /// Checks a run's hash chain and its blobs.
    fn audit(&self, run: &str) -> BoxFuture<'_, Result<Audit, JournalError>>;
    /// How many events belong to no run of [`Journal::runs`]: a line was taken out of that list.
    fn unlisted(&self) -> BoxFuture<'_, Result<u64, JournalError>> {
        Box::pin(async { Ok(0) })
    }
    /// Named locks of `policy.locks`: takes all or none for a run that holds its lease.
    ///
    /// The error names who holds the first that is taken.
    fn lock<'a>(
        &'a self,
        lease: &'a dyn Lease,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<(), LockHeld>>;
    /// Keeps what steps of a run printed, under the lease of this epoch, durably when it returns. It is beside the events:
    /// no event follows from it, and the hash chain does not cover it.
    fn print(
        &self,
        run: &str,
        epoch: u64,
        prints: Prints,
    ) -> BoxFuture<'_, Result<(), JournalError>>;
    /// What steps of a run printed, as far as it is kept.
    fn printed(
        &self,
        run: &str,
        of: PrintedOf,
    ) -> BoxFuture<'_, Result<Vec<Printed>, JournalError>>;
    /// How much of that there is.
    fn printed_size(&self, run: &str) -> BoxFuture<'_, Result<PrintedSize, JournalError>>;
}

/// A lock of `policy.locks` is taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LockHeld {
    /// By another run.
    #[error("lock {name:?} is held by run {run}")]
    Held {
        /// The lock.
        name: String,
        /// The run that holds it.
        run: String,
    },
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}
