//! The embedded journal: one SQLite file (WAL, `synchronous=FULL`), one writer thread, group commit over everything in
//! flight. Readers have connections of their own. Leases are operating-system locks.
mod access;
mod ahead;
mod files;
mod home;
mod leases;
mod open;
mod place;
mod printed;
mod read;
mod starts;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_place;
mod writer;

pub use open::Sharing;

use super::{
    Audit, Journal, JournalError, Keyed, Lease, LockHeld, NotBegun, Printed, PrintedOf,
    PrintedSize, Prints, RefusedStart, RunSummary, Terms,
    memory::check_place,
    record::{self, Graphs},
};
use crate::machine::{Event, Holder, Submitted};
use access::Stamp;
use futures_util::future::BoxFuture;
use leases::{Leases, Locks};
use place::{FileId, Place, beside};
use read::Reader;
use rusqlite::Connection;
use std::{
    cell::Cell,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};
use tokio::sync::{Semaphore, oneshot};
use writer::{Create, Job, Reply, Request, Writer};

/// Reads at one time: more would each take a thread and a connection, and not be quicker.
const READERS: usize = 4;

struct Inner {
    path: PathBuf,
    source: Source,
    leases: Arc<Leases>,
    graphs: Graphs,
    /// Idle connections for reading.
    readers: Mutex<Vec<Connection>>,
    free: Semaphore,
}

/// How the file is used.
enum Source {
    /// Written to, and read beside other writers.
    Written {
        queue: Option<mpsc::Sender<Job>>,
        thread: Option<JoinHandle<()>>,
        place: Arc<Place>,
        watcher: Watcher,
        #[cfg(test)]
        commits: Arc<std::sync::atomic::AtomicU64>,
    },
    /// Only read, beside writers, as every reader of SQLite does.
    Shared { file: FileId, watcher: Watcher },
    /// Only read, and not even a file beside it is written.
    Untouched { file: FileId },
}

/// Only asked for its `data_version`, which changes with commits of any other connection.
struct Watcher(Mutex<Connection>);

impl Watcher {
    fn on(path: &Path) -> Result<Self, JournalError> {
        let conn = open::reader(path).map_err(|error| open::not_opened(path, &error))?;
        Ok(Self(Mutex::new(conn)))
    }

    fn version(&self) -> rusqlite::Result<u64> {
        let watcher = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut select = watcher.prepare_cached("PRAGMA data_version")?;
        select.query_row([], |row| row.get(0))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Source::Written { queue, thread, .. } = &mut self.source {
            drop(queue.take());
            if let Some(thread) = thread.take() {
                // A panic of the writer was told to everybody who waited for it.
                drop(thread.join());
            }
        }
    }
}

/// A journal in one SQLite file, for all processes of one host.
pub struct SqliteJournal(Arc<Inner>);

impl SqliteJournal {
    /// Opens a journal to write to, or makes it where nothing stands, for its owner alone.
    ///
    /// # Errors
    /// Where the file is not a journal, was written by a newer Windlass (nothing is changed then), or cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        Self::open_shared(path, Sharing::default())
    }

    /// As [`SqliteJournal::open`]; a journal that is made here is for others, too.
    ///
    /// # Errors
    /// As [`SqliteJournal::open`].
    pub fn open_shared(path: impl AsRef<Path>, sharing: Sharing) -> Result<Self, JournalError> {
        let given = absolute(path.as_ref())?;
        let open::Opened {
            path,
            conn,
            locks,
            place,
        } = open::writer(&given, sharing)?;
        let leases = Arc::new(Leases::new(Locks::Open(locks)));
        let place = Arc::new(place);
        let watcher = Watcher::on(&path)?;
        let (queue, jobs) = mpsc::channel();
        let writer = Writer {
            conn,
            path: path.clone(),
            leases: leases.clone(),
            place: place.clone(),
            written: Cell::new(place.written()),
            #[cfg(test)]
            commits: Arc::default(),
        };
        #[cfg(test)]
        let commits = writer.commits.clone();
        let thread = std::thread::Builder::new()
            .name("windlass-journal".to_owned())
            .spawn(move || writer.run(&jobs))
            .map_err(|e| JournalError::Store(format!("cannot start the journal's thread: {e}")))?;
        let source = Source::Written {
            queue: Some(queue),
            thread: Some(thread),
            place,
            watcher,
            #[cfg(test)]
            commits,
        };
        Ok(Self::of(path, source, leases))
    }

    /// Opens a journal that is there to read it. Nothing is made, and nothing is written where this process may not write.
    ///
    /// # Errors
    /// Where there is none, where the file is not a journal, or cannot be read.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let given = absolute(path.as_ref())?;
        let path = place::real(&given).unwrap_or(given);
        access::check_readable(&path)?;
        open::check_journal(&path, &access::peek(&path)?)?;
        let file = FileId::at(&path).ok_or_else(|| JournalError::Missing {
            path: path.display().to_string(),
        })?;
        let leases = Leases::new(match File::open(beside(&path, ".locks")) {
            Ok(locks) => Locks::Open(locks),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Locks::Missing,
            Err(_) => Locks::Closed,
        });
        let source = if access::may_write(&path) {
            let watcher = Watcher::on(&path)?;
            Source::Shared { file, watcher }
        } else {
            Source::Untouched { file }
        };
        Ok(Self::of(path, source, Arc::new(leases)))
    }

    fn of(path: PathBuf, source: Source, leases: Arc<Leases>) -> Self {
        Self(Arc::new(Inner {
            path,
            source,
            leases,
            graphs: Graphs::default(),
            readers: Mutex::default(),
            free: Semaphore::new(READERS),
        }))
    }

    /// Bounds the file to so many pages, as a full disk does. For tests.
    ///
    /// # Errors
    /// Where the store fails.
    #[doc(hidden)]
    pub async fn limit_pages(&self, pages: u32) -> Result<(), JournalError> {
        self.ask(Request::LimitPages(pages)).await.map(drop)
    }

    async fn ask(&self, request: Request) -> Result<Reply, JournalError> {
        let gone = || JournalError::Store("the journal's writer thread has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        let Source::Written { queue, .. } = &self.0.source else {
            return Err(open::unusable(
                &self.0.path,
                "it was opened to be read, and is not written to",
            ));
        };
        let queue = queue.as_ref().ok_or_else(gone)?;
        queue.send(Job { request, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn ask_to_read<T: Send + 'static>(
        &self,
        read: impl Fn(&Reader<'_>, &Inner) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let unread = |e: &dyn std::fmt::Display| JournalError::Store(format!("a read failed: {e}"));
        let _turn = self.0.free.acquire().await.map_err(|e| unread(&e))?;
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || inner.read(&read));
        let done = done.await.map_err(|e| unread(&e))?;
        if matches!(self.0.source, Source::Written { .. }) {
            return done;
        }
        done.map_err(|error| open::unread(&self.0.path, error))
    }

    async fn take_lease(&self, request: Request) -> Result<Box<dyn Lease>, JournalError> {
        match self.ask(request).await? {
            Reply::Leased(lease) => Ok(Box::new(lease)),
            Reply::Done | Reply::Withdrawn(_) | Reply::Taken { .. } | Reply::KeyUsed(_) => {
                Err(no_lease())
            }
        }
    }

    async fn append_now(
        &self,
        lease: &dyn Lease,
        seq: u64,
        events: Vec<Event>,
        state: &'static str,
    ) -> Result<(), JournalError> {
        let (run, epoch) = (lease.run().to_owned(), lease.epoch());
        let Some(tip) = self.0.leases.tip(&run, epoch) else {
            return Err(JournalError::LeaseLost { run });
        };
        check_place(&run, seq, tip.seq)?;
        let batch = record::encode(&run, tip.hash, seq, &events, &self.0.graphs)?;
        drop(events);
        let request = Request::Append {
            run,
            epoch,
            tip,
            batch: Box::new(batch),
            state,
        };
        self.ask(request).await.map(drop)
    }

    async fn begin_now(
        &self,
        id: String,
        holder: Holder,
        events: Vec<Event>,
        terms: Terms,
    ) -> Result<Box<dyn Lease>, NotBegun> {
        let info = record::first_event(&id, &events)?.run.clone();
        let mut batch = record::encode(&id, record::genesis(&id), 1, &events, &self.0.graphs)?;
        let graph = batch.graph.take();
        let key = terms.key.as_ref().map(|key| key.key.clone());
        let create = Create {
            id,
            playbook: info.playbook,
            environment: info.environment,
            by: info.by,
            started_at: info.started_at.to_string(),
            holder: holder_text(&holder)?,
            terms,
            batch,
        };
        let lease = match self.ask(Request::Create(Box::new(create))).await? {
            Reply::Leased(lease) => lease,
            Reply::Taken { name, run } => {
                return Err(NotBegun::Locked(LockHeld::Held { name, run }));
            }
            Reply::KeyUsed(first) => {
                let key = key.unwrap_or_default();
                return Err(NotBegun::KeyUsed { key, first });
            }
            Reply::Done | Reply::Withdrawn(_) => return Err(no_lease().into()),
        };
        if let Some((hash, graph)) = graph {
            self.0.graphs.remember(hash, &graph);
        }
        Ok(Box::new(lease))
    }
}

fn absolute(path: &Path) -> Result<PathBuf, JournalError> {
    std::path::absolute(path)
        .map_err(|e| JournalError::Store(format!("the path of the journal: {e}")))
}

fn no_lease() -> JournalError {
    JournalError::Store("the journal's writer gave no lease".to_owned())
}

impl Inner {
    fn idle_readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the path still leads to the file that was opened, and nothing that belongs to it was taken away.
    fn in_place(&self) -> Result<(), JournalError> {
        match &self.source {
            Source::Written { place, .. } => place.check(),
            Source::Shared { file, .. } | Source::Untouched { file } => {
                place::check_one(&self.path, *file)
            }
        }
    }

    fn version(&self) -> Result<u64, JournalError> {
        self.in_place()?;
        match &self.source {
            Source::Written { watcher, .. } | Source::Shared { watcher, .. } => watcher
                .version()
                .map_err(|error| open::store_error(&self.path, &error)),
            Source::Untouched { .. } => Ok(Stamp::of(&self.path).number()),
        }
    }

    fn read<T>(
        &self,
        read: &impl Fn(&Reader<'_>, &Self) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        self.in_place()?;
        if matches!(self.source, Source::Untouched { .. }) {
            return self.read_untouched(read);
        }
        let idle = self.idle_readers().pop();
        let conn = match idle {
            Some(conn) => conn,
            None => open::reader(&self.path).map_err(|e| open::store_error(&self.path, &e))?,
        };
        let done = read(&self.reader(&conn), self);
        self.idle_readers().push(conn);
        done
    }

    /// What was read counts only if nobody wrote meanwhile: no lock keeps writers away from this reader.
    fn read_untouched<T>(
        &self,
        read: &impl Fn(&Reader<'_>, &Self) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        for _ in 0..access::TRIES {
            let before = Stamp::of(&self.path);
            let done =
                access::connection(&self.path).and_then(|conn| read(&self.reader(&conn), self));
            if Stamp::of(&self.path) == before {
                return done;
            }
        }
        Err(open::unusable(
            &self.path,
            "it is written to all the time, and may not be read beside its writers",
        ))
    }

    fn reader<'c>(&'c self, conn: &'c Connection) -> Reader<'c> {
        Reader {
            conn,
            path: &self.path,
            graphs: &self.graphs,
        }
    }
}

fn holder_text(holder: &Holder) -> Result<String, JournalError> {
    serde_json::to_string(holder)
        .map_err(|e| JournalError::Store(format!("the holder cannot be written: {e}")))
}

impl Journal for SqliteJournal {
    fn begin(
        &self,
        run: &str,
        holder: Holder,
        events: Vec<Event>,
        terms: Terms,
    ) -> BoxFuture<'_, Result<Box<dyn Lease>, NotBegun>> {
        Box::pin(self.begin_now(run.to_owned(), holder, events, terms))
    }

    fn keyed(&self, key: &str) -> BoxFuture<'_, Result<Option<Keyed>, JournalError>> {
        let key = key.to_owned();
        Box::pin(self.ask_to_read(move |reader, _| reader.keyed(&key)))
    }

    fn refuse(&self, start: RefusedStart) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            let body = serde_json::to_string(&start)
                .map_err(|e| JournalError::Store(format!("the start cannot be written: {e}")))?;
            self.ask(Request::Refuse(body)).await.map(drop)
        })
    }

    fn refused(&self) -> BoxFuture<'_, Result<Vec<RefusedStart>, JournalError>> {
        Box::pin(self.ask_to_read(|reader, _| reader.refused()))
    }

    fn in_place(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move { self.0.in_place() })
    }

    fn lease(
        &self,
        run: &str,
        holder: Holder,
    ) -> BoxFuture<'_, Result<Box<dyn Lease>, JournalError>> {
        let run = run.to_owned();
        Box::pin(async move {
            let holder = holder_text(&holder)?;
            self.take_lease(Request::Lease { run, holder }).await
        })
    }

    fn append<'a>(
        &'a self,
        lease: &'a dyn Lease,
        seq: u64,
        events: Vec<Event>,
        state: &'static str,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(self.append_now(lease, seq, events, state))
    }

    fn load(&self, run: &str, from: u64) -> BoxFuture<'_, Result<Vec<Event>, JournalError>> {
        let run = run.to_owned();
        Box::pin(self.ask_to_read(move |reader, _| reader.load(&run, from)))
    }

    fn find(&self, id: &str) -> BoxFuture<'_, Result<String, JournalError>> {
        let id = id.to_owned();
        Box::pin(self.ask_to_read(move |reader, _| reader.find(&id)))
    }

    fn runs(&self) -> BoxFuture<'_, Result<Vec<RunSummary>, JournalError>> {
        Box::pin(self.ask_to_read(|reader, inner| reader.runs(&inner.leases)))
    }

    fn submit(&self, command: Submitted) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            let body = serde_json::to_string(&command.command)
                .map_err(|e| JournalError::Store(format!("the command cannot be written: {e}")))?;
            let account = command
                .account
                .as_ref()
                .map(serde_json::to_string)
                .transpose();
            let account = account
                .map_err(|e| JournalError::Store(format!("the account cannot be written: {e}")))?;
            let request = Request::Submit {
                id: command.id,
                run: command.run,
                who: command.who,
                at: command.at.to_string(),
                body,
                account,
            };
            self.ask(request).await.map(drop)
        })
    }

    fn withdraw(&self, run: &str, id: &str) -> BoxFuture<'_, Result<bool, JournalError>> {
        let (run, id) = (run.to_owned(), id.to_owned());
        Box::pin(async move {
            let reply = self.ask(Request::Withdraw { run, id }).await?;
            Ok(matches!(reply, Reply::Withdrawn(true)))
        })
    }

    fn inbox(&self, run: Option<&str>) -> BoxFuture<'_, Result<Vec<Submitted>, JournalError>> {
        let run = run.map(str::to_owned);
        Box::pin(self.ask_to_read(move |reader, _| reader.inbox(run.as_deref())))
    }

    fn version(&self) -> BoxFuture<'_, Result<u64, JournalError>> {
        Box::pin(async move { self.0.version() })
    }

    fn audit(&self, run: &str) -> BoxFuture<'_, Result<Audit, JournalError>> {
        let run = run.to_owned();
        Box::pin(self.ask_to_read(move |reader, _| reader.audit(&run)))
    }

    fn unlisted(&self) -> BoxFuture<'_, Result<u64, JournalError>> {
        Box::pin(self.ask_to_read(|reader, _| reader.unlisted()))
    }

    fn lock<'a>(
        &'a self,
        lease: &'a dyn Lease,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<(), LockHeld>> {
        Box::pin(async move {
            let (run, epoch) = (lease.run().to_owned(), lease.epoch());
            let Some(tip) = self.0.leases.tip(&run, epoch) else {
                return Err(JournalError::LeaseLost { run }.into());
            };
            let request = Request::Lock {
                run,
                epoch,
                no: tip.no,
                names: names.to_vec(),
            };
            match self.ask(request).await? {
                Reply::Taken { name, run } => Err(LockHeld::Held { name, run }),
                Reply::Done | Reply::Withdrawn(_) | Reply::Leased(_) | Reply::KeyUsed(_) => Ok(()),
            }
        })
    }

    fn print(
        &self,
        run: &str,
        epoch: u64,
        prints: Prints,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        let run = run.to_owned();
        Box::pin(async move {
            let Some(tip) = self.0.leases.tip(&run, epoch) else {
                return Err(JournalError::LeaseLost { run });
            };
            let request = Request::Print {
                run,
                epoch,
                no: tip.no,
                prints,
            };
            self.ask(request).await.map(drop)
        })
    }

    fn printed(
        &self,
        run: &str,
        of: PrintedOf,
    ) -> BoxFuture<'_, Result<Vec<Printed>, JournalError>> {
        let run = run.to_owned();
        Box::pin(self.ask_to_read(move |reader, _| reader.printed(&run, &of)))
    }

    fn printed_size(&self, run: &str) -> BoxFuture<'_, Result<PrintedSize, JournalError>> {
        let run = run.to_owned();
        Box::pin(self.ask_to_read(move |reader, _| reader.printed_size(&run)))
    }
}
