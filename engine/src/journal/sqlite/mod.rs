//! The embedded journal: one SQLite file (WAL, `synchronous=FULL`), one writer thread, group commit over everything in
//! flight. Readers have connections of their own. Leases are operating-system locks.
mod leases;
mod open;
mod printed;
mod read;
#[cfg(test)]
mod tests;
mod writer;

use super::{
    Audit, Journal, JournalError, Lease, LockHeld, Printed, PrintedOf, PrintedSize, Prints,
    RunSummary,
    memory::check_place,
    record::{self, Graphs},
};
use crate::machine::{Event, Holder, Submitted};
use futures_util::future::BoxFuture;
use leases::Leases;
use read::Reader;
use rusqlite::Connection;
use std::{
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
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    leases: Arc<Leases>,
    #[cfg(test)]
    commits: Arc<std::sync::atomic::AtomicU64>,
    graphs: Graphs,
    /// Idle connections for reading.
    readers: Mutex<Vec<Connection>>,
    free: Semaphore,
    /// Only asked for its `data_version`, which changes with commits of any other connection.
    watcher: Mutex<Connection>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the writer was told to everybody who waited for it.
            drop(thread.join());
        }
    }
}

/// A journal in one SQLite file, for all processes of one host.
pub struct SqliteJournal(Arc<Inner>);

impl SqliteJournal {
    /// Opens a journal, or makes it where nothing stands.
    ///
    /// # Errors
    /// Where the file is not a journal, was written by a newer Windlass (nothing is changed then), or cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let path = std::path::absolute(path.as_ref())
            .map_err(|e| JournalError::Store(format!("the path of the journal: {e}")))?;
        let conn = open::writer(&path)?;
        let leases = Arc::new(Leases::new(open::open_locks(&path)?));
        let watcher = Mutex::new(open::reader(&path)?);
        let (queue, jobs) = mpsc::channel();
        let writer = Writer {
            conn,
            path: path.clone(),
            leases: leases.clone(),
            #[cfg(test)]
            commits: Arc::default(),
        };
        #[cfg(test)]
        let commits = writer.commits.clone();
        let thread = std::thread::Builder::new()
            .name("windlass-journal".to_owned())
            .spawn(move || writer.run(&jobs))
            .map_err(|e| JournalError::Store(format!("cannot start the journal's thread: {e}")))?;
        Ok(Self(Arc::new(Inner {
            path,
            queue: Some(queue),
            thread: Some(thread),
            leases,
            #[cfg(test)]
            commits,
            graphs: Graphs::default(),
            readers: Mutex::default(),
            free: Semaphore::new(READERS),
            watcher,
        })))
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
        let queue = self.0.queue.as_ref().ok_or_else(gone)?;
        queue.send(Job { request, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader<'_>, &Inner) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let unread = |e: &dyn std::fmt::Display| JournalError::Store(format!("a read failed: {e}"));
        let _turn = self.0.free.acquire().await.map_err(|e| unread(&e))?;
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || {
            let idle = inner.idle_readers().pop();
            let conn = match idle {
                Some(conn) => conn,
                None => open::reader(&inner.path)?,
            };
            let reader = Reader {
                conn: &conn,
                path: &inner.path,
                graphs: &inner.graphs,
            };
            let done = read(&reader, &inner);
            inner.idle_readers().push(conn);
            done
        });
        done.await.map_err(|e| unread(&e))?
    }

    async fn take_lease(&self, request: Request) -> Result<Box<dyn Lease>, JournalError> {
        match self.ask(request).await? {
            Reply::Leased(lease) => Ok(Box::new(lease)),
            Reply::Done | Reply::Taken { .. } => Err(JournalError::Store(
                "the journal's writer gave no lease".to_owned(),
            )),
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

    async fn create_now(
        &self,
        id: String,
        holder: Holder,
        events: Vec<Event>,
    ) -> Result<Box<dyn Lease>, JournalError> {
        let info = record::first_event(&id, &events)?.run.clone();
        let mut batch = record::encode(&id, record::genesis(&id), 1, &events, &self.0.graphs)?;
        let graph = batch.graph.take();
        let create = Create {
            id,
            playbook: info.playbook,
            environment: info.environment,
            by: info.by,
            started_at: info.started_at.to_string(),
            holder: holder_text(&holder)?,
            batch,
        };
        let lease = self.take_lease(Request::Create(Box::new(create))).await?;
        if let Some((hash, graph)) = graph {
            self.0.graphs.remember(hash, &graph);
        }
        Ok(lease)
    }
}

impl Inner {
    fn idle_readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn version(&self) -> rusqlite::Result<u64> {
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let mut select = watcher.prepare_cached("PRAGMA data_version")?;
        select.query_row([], |row| row.get(0))
    }
}

fn holder_text(holder: &Holder) -> Result<String, JournalError> {
    serde_json::to_string(holder)
        .map_err(|e| JournalError::Store(format!("the holder cannot be written: {e}")))
}

impl Journal for SqliteJournal {
    fn create(
        &self,
        run: &str,
        holder: Holder,
        events: Vec<Event>,
    ) -> BoxFuture<'_, Result<Box<dyn Lease>, JournalError>> {
        Box::pin(self.create_now(run.to_owned(), holder, events))
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
        Box::pin(self.read(move |reader, _| reader.load(&run, from)))
    }

    fn find(&self, id: &str) -> BoxFuture<'_, Result<String, JournalError>> {
        let id = id.to_owned();
        Box::pin(self.read(move |reader, _| reader.find(&id)))
    }

    fn runs(&self) -> BoxFuture<'_, Result<Vec<RunSummary>, JournalError>> {
        Box::pin(self.read(|reader, inner| reader.runs(&inner.leases)))
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

    fn inbox(&self, run: Option<&str>) -> BoxFuture<'_, Result<Vec<Submitted>, JournalError>> {
        let run = run.map(str::to_owned);
        Box::pin(self.read(move |reader, _| reader.inbox(run.as_deref())))
    }

    fn version(&self) -> BoxFuture<'_, Result<u64, JournalError>> {
        Box::pin(async move {
            let version = self.0.version();
            version.map_err(|error| open::store_error(&self.0.path, &error))
        })
    }

    fn audit(&self, run: &str) -> BoxFuture<'_, Result<Audit, JournalError>> {
        let run = run.to_owned();
        Box::pin(self.read(move |reader, _| reader.audit(&run)))
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
                Reply::Done | Reply::Leased(_) => Ok(()),
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
        Box::pin(self.read(move |reader, _| reader.printed(&run, &of)))
    }

    fn printed_size(&self, run: &str) -> BoxFuture<'_, Result<PrintedSize, JournalError>> {
        let run = run.to_owned();
        Box::pin(self.read(move |reader, _| reader.printed_size(&run)))
    }
}
