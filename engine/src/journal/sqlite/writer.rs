//! The one thread that writes. It takes all that is queued into one transaction, so that everything in flight
//! shares one sync to the disk. What is refused is refused before it wrote anything, or rolled back alone.
use super::{
    leases::{Leases, SqliteLease, Tip},
    open::{reader, store_error},
    place::{Place, Written},
    read::Reader,
};
use crate::{
    journal::{
        JournalError, Keyed, Prints, Terms,
        memory::check_place,
        record::{self, Batch, Graphs, Hash},
    },
    machine::Holder,
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use std::{
    cell::Cell,
    path::PathBuf,
    sync::{Arc, mpsc},
};
use tokio::sync::oneshot;

/// The most that goes into one transaction, so that the first in it does not wait for thousands.
const MOST_JOBS: usize = 2_048;

/// What the writer is asked to do. Everything that costs time is done by the one who asks.
pub(super) enum Request {
    Create(Box<Create>),
    Lease {
        run: String,
        holder: String,
    },
    Append {
        run: String,
        epoch: u64,
        tip: Tip,
        batch: Box<Batch>,
        state: &'static str,
    },
    Submit {
        id: String,
        run: String,
        who: String,
        at: String,
        body: String,
        account: Option<String>,
    },
    Withdraw {
        run: String,
        id: String,
    },
    Lock {
        run: String,
        epoch: u64,
        no: i64,
        names: Vec<String>,
    },
    Print {
        run: String,
        epoch: u64,
        no: i64,
        prints: Prints,
    },
    /// A start that was refused, as JSON.
    Refuse(String),
    /// Bounds the size of the file, for tests of a full disk.
    LimitPages(u32),
}

pub(super) struct Create {
    pub(super) id: String,
    pub(super) playbook: String,
    pub(super) environment: String,
    pub(super) by: String,
    pub(super) started_at: String,
    pub(super) holder: String,
    pub(super) terms: Terms,
    pub(super) batch: Batch,
}

pub(super) enum Reply {
    Done,
    /// Whether it was in the inbox.
    Withdrawn(bool),
    Leased(SqliteLease),
    /// The key of a start has started a run.
    KeyUsed(Keyed),
    /// A lock is taken.
    Taken {
        name: String,
        run: String,
    },
}

pub(super) type Answer = Result<Reply, JournalError>;

pub(super) struct Job {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// A refusal of one request (inside), or a failure of the database (outside).
pub(super) type Tried<T> = rusqlite::Result<Result<T, JournalError>>;

pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
    pub(super) leases: Arc<Leases>,
    pub(super) place: Arc<Place>,
    /// When the database file was written last, as far as this process knows.
    pub(super) written: Cell<Written>,
    #[cfg(test)]
    pub(super) commits: Arc<std::sync::atomic::AtomicU64>,
}

impl Writer {
    /// Writes until nobody can ask any more.
    pub(super) fn run(self, queue: &mpsc::Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut jobs = vec![first];
            jobs.extend(queue.try_iter().take(MOST_JOBS - 1));
            self.commit(jobs);
        }
    }

    fn commit(&self, jobs: Vec<Job>) {
        if let Err(error) = self.place.check().and_then(|()| self.check_content()) {
            return Self::refuse_all(jobs, &error);
        }
        let done = self.transaction(&jobs);
        self.written.set(self.place.written());
        match done {
            Ok(answers) => {
                // It was moved between the look and the commit: nothing may follow from what no name leads to any more.
                if let Err(error) = self.place.check() {
                    return Self::refuse_all(jobs, &error);
                }
                for (job, answer) in jobs.into_iter().zip(answers) {
                    self.tell(job, answer);
                }
            }
            // Nothing of it was written. One that is too large for the disk must not fail the others.
            Err(failed) if jobs.len() > 1 && failed.clean => {
                for job in jobs {
                    self.commit(vec![job]);
                }
            }
            Err(failed) => {
                for job in jobs {
                    let error = store_error(&self.path, &failed.error);
                    self.tell(job, Err(error));
                }
            }
        }
    }

    fn refuse_all(jobs: Vec<Job>, error: &JournalError) {
        for job in jobs {
            drop(job.answer.send(Err(error.clone())));
        }
    }

    /// In the database file itself only checkpoints write. Where somebody else wrote to it, that was the checkpoint of another
    /// process, or the file was put back from a copy under its name: pages in memory and in the log would hide that. So the runs
    /// that this process drives are read from the disk again.
    fn check_content(&self) -> Result<(), JournalError> {
        let now = self.place.written();
        if now == self.written.get() {
            return Ok(());
        }
        let replaced = |what: String| JournalError::Replaced {
            path: self.path.display().to_string(),
            what: format!("its content is that of another moment: {what}"),
        };
        let conn = reader(&self.path).map_err(|error| store_error(&self.path, &error))?;
        let graphs = Graphs::default();
        let read = Reader {
            conn: &conn,
            path: &self.path,
            graphs: &graphs,
        };
        for (run, seq) in self.leases.driven() {
            let audit = match read.audit(&run) {
                Err(gone @ JournalError::NoSuchRun(_)) => return Err(replaced(gone.to_string())),
                audit => audit?,
            };
            if let Some((place, what)) = audit.broken {
                return Err(replaced(format!("event {place} of run {run}: {what}")));
            }
            if audit.head.seq < seq {
                return Err(replaced(format!(
                    "run {run} has {} events, and {seq} were written",
                    audit.head.seq
                )));
            }
        }
        self.written.set(now);
        Ok(())
    }

    fn tell(&self, job: Job, answer: Answer) {
        if let (
            Request::Append {
                run, epoch, batch, ..
            },
            Ok(_),
        ) = (&job.request, &answer)
        {
            self.leases
                .advance(run, *epoch, batch.last_seq(), batch.head);
        }
        // One who does not wait any more does not want to know; a lease in the answer is given back.
        drop(job.answer.send(answer));
    }

    fn transaction(&self, jobs: &[Job]) -> Result<Vec<Answer>, Failed> {
        let clean = |error| Failed { error, clean: true };
        self.execute("BEGIN IMMEDIATE").map_err(|error| Failed {
            // Busy: to ask again for each would wait as long again for each.
            clean: false,
            error,
        })?;
        let answers: rusqlite::Result<Vec<Answer>> =
            jobs.iter().map(|job| self.apply(&job.request)).collect();
        let done = answers.map_err(clean).and_then(|answers| {
            let committed = self.execute("COMMIT");
            #[cfg(test)]
            self.commits
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            committed.map(|()| answers).map_err(|error| Failed {
                clean: error.sqlite_error_code() == Some(ErrorCode::DiskFull),
                error,
            })
        });
        if !self.conn.is_autocommit() {
            // Where even this fails, the next BEGIN fails too and says why.
            drop(self.execute("ROLLBACK"));
        }
        done
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn apply(&self, request: &Request) -> Tried<Reply> {
        match request {
            Request::Create(create) => self.create(create),
            Request::Lease { run, holder } => self.lease(run, holder),
            Request::Append {
                run,
                epoch,
                tip,
                batch,
                state,
            } => self.append(run, *epoch, tip, batch, state),
            Request::Submit {
                id,
                run,
                who,
                at,
                body,
                account,
            } => self.submit([id, run, who, at, body], account.as_deref()),
            Request::Withdraw { run, id } => self.withdraw(run, id),
            Request::Lock {
                run,
                epoch,
                no,
                names,
            } => self.lock(run, *epoch, *no, names),
            Request::Print {
                run,
                epoch,
                no,
                prints,
            } => Ok(self
                .print(run, (*epoch, *no), prints)?
                .map(|()| Reply::Done)),
            Request::Refuse(body) => self.refuse(body),
            Request::LimitPages(pages) => {
                let sql = format!("PRAGMA max_page_count = {pages}");
                self.conn.query_row(&sql, [], |_| Ok(Ok(Reply::Done)))
            }
        }
    }

    fn lease(&self, run: &str, holder: &str) -> Tried<Reply> {
        let mut head = self
            .conn
            .prepare_cached("SELECT no, head_seq, head_hash FROM runs WHERE id = ?1")?;
        let head = head.query_row([run], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, Hash>(2)?))
        });
        let Some((no, seq, hash)) = head.optional()? else {
            return Ok(Err(JournalError::NoSuchRun(run.to_owned())));
        };
        self.grant(run, no, holder, seq, hash)
    }

    /// Takes the operating system's lock first: until then the run is another's.
    pub(super) fn grant(
        &self,
        run: &str,
        no: i64,
        holder: &str,
        seq: u64,
        hash: Hash,
    ) -> Tried<Reply> {
        let mut lease = match self.leases.reserve(run, no) {
            Ok(Some(lease)) => lease,
            Ok(None) => return self.held(run, no),
            Err(error) => {
                return Ok(Err(JournalError::Store(format!(
                    "the lock of run {run} beside {} cannot be taken: {error}",
                    self.path.display()
                ))));
            }
        };
        let mut grow = self.conn.prepare_cached(
            "INSERT INTO leases (run_no, epoch, holder) VALUES (?1, 1, ?2)
             ON CONFLICT (run_no) DO UPDATE SET epoch = epoch + 1, holder = excluded.holder RETURNING epoch",
        )?;
        let epoch = grow.query_row(params![no, holder], |row| row.get(0))?;
        lease.grant(epoch, seq, hash);
        Ok(Ok(Reply::Leased(lease)))
    }

    fn held(&self, run: &str, no: i64) -> Tried<Reply> {
        let mut holder = self
            .conn
            .prepare_cached("SELECT holder FROM leases WHERE run_no = ?1")?;
        let holder = holder.query_row([no], |row| row.get::<_, String>(0));
        let holder = holder.optional()?.unwrap_or_default();
        Ok(Err(match serde_json::from_str::<Holder>(&holder) {
            Ok(holder) => JournalError::LeaseHeld {
                run: run.to_owned(),
                holder: Box::new(holder),
            },
            Err(_) => JournalError::Store(format!(
                "run {run} is driven by another process, which has not said who it is yet"
            )),
        }))
    }

    fn append(&self, run: &str, epoch: u64, tip: &Tip, batch: &Batch, state: &str) -> Tried<Reply> {
        // Only an append that takes from the inbox can be refused after it wrote something.
        if batch.takes.is_empty() {
            return Ok(self
                .append_all(run, epoch, tip, batch, state)?
                .map(|()| Reply::Done));
        }
        self.whole(|| {
            Ok(self
                .append_all(run, epoch, tip, batch, state)?
                .map(|()| Reply::Done))
        })
    }

    /// What is refused after it wrote something is taken back, alone.
    pub(super) fn whole(&self, act: impl FnOnce() -> Tried<Reply>) -> Tried<Reply> {
        self.execute("SAVEPOINT one")?;
        let done = act()?;
        if done.is_err() {
            self.execute("ROLLBACK TO one")?;
        }
        self.execute("RELEASE one")?;
        Ok(done)
    }

    fn append_all(
        &self,
        run: &str,
        epoch: u64,
        tip: &Tip,
        batch: &Batch,
        state: &str,
    ) -> Tried<()> {
        let mut head = self.conn.prepare_cached(
            "UPDATE runs SET head_seq = ?2, head_hash = ?3, state = ?4, updated_at = coalesce(?5, updated_at)
             WHERE no = ?1 AND head_seq = ?6 AND head_hash = ?7
             AND (SELECT epoch FROM leases WHERE run_no = ?1) = ?8",
        )?;
        let moved = head.execute(params![
            tip.no,
            batch.last_seq(),
            batch.head,
            state,
            // What is written down after the end of a run, such as the refusal of a command, does not move its end.
            batch
                .records
                .last()
                .filter(|_| batch.finished || !record::is_over(state))
                .map(|record| &record.at),
            tip.seq,
            tip.hash,
            epoch,
        ])?;
        if moved == 0 {
            return self.why_refused(run, epoch, tip);
        }
        let mut take = self.conn.prepare_cached(
            "UPDATE inbox SET taken_by = ?3 WHERE id = ?1 AND run = ?2 AND taken_by IS NULL",
        )?;
        for (id, seq) in &batch.takes {
            if take.execute(params![id, run, seq])? == 0 {
                return Ok(Err(JournalError::NotInInbox {
                    run: run.to_owned(),
                    id: id.clone(),
                }));
            }
        }
        self.write(tip.no, batch)?;
        if batch.finished {
            self.conn
                .prepare_cached("DELETE FROM locks WHERE run = ?1")?
                .execute([run])?;
        }
        Ok(Ok(()))
    }

    fn why_refused(&self, run: &str, epoch: u64, tip: &Tip) -> Tried<()> {
        let mut now = self.conn.prepare_cached(
            "SELECT head_seq, epoch FROM runs LEFT JOIN leases ON run_no = no WHERE no = ?1",
        )?;
        let now = now.query_row([tip.no], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, Option<u64>>(1)?))
        });
        // The lease says how far the run was written. Less than that, or no such run, is an older state of the file.
        let older = |what: String| JournalError::Replaced {
            path: self.path.display().to_string(),
            what: format!("it was put back to an earlier state: {what}"),
        };
        let run = run.to_owned();
        Ok(Err(match now.optional()? {
            None => older(format!("run {run} is not in it any more")),
            Some((_, Some(now))) if now > epoch => JournalError::LeaseLost { run },
            Some((written, _)) if written < tip.seq => older(format!(
                "run {run} has {written} events, and {} were written",
                tip.seq
            )),
            Some((_, now)) if now != Some(epoch) => {
                older(format!("it does not know who drives run {run}"))
            }
            Some((written, _)) => match check_place(&run, tip.seq + 1, written) {
                Err(error) => error,
                Ok(()) => JournalError::Corrupt {
                    run,
                    seq: written,
                    what: "the hash in the run's head is not the one that was written".to_owned(),
                },
            },
        }))
    }

    pub(super) fn write(&self, no: i64, batch: &Batch) -> rusqlite::Result<()> {
        if !batch.blobs.is_empty() {
            let mut insert = self.conn.prepare_cached(
                "INSERT INTO blobs (hash, body) VALUES (?1, ?2) ON CONFLICT (hash) DO NOTHING",
            )?;
            for blob in &batch.blobs {
                insert.execute(params![blob.hash, blob.body])?;
            }
        }
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO events (run_no, seq, at, body, hash) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for (seq, record) in (batch.seq..).zip(&batch.records) {
            insert.execute(params![no, seq, record.at, record.body, record.hash])?;
        }
        Ok(())
    }

    fn submit(&self, [id, run, who, at, body]: [&str; 5], account: Option<&str>) -> Tried<Reply> {
        let mut known = self
            .conn
            .prepare_cached("SELECT 1 FROM runs WHERE id = ?1")?;
        if !known.exists([run])? {
            return Ok(Err(JournalError::NoSuchRun(run.to_owned())));
        }
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO inbox (id, run, who, at, body, account) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO NOTHING",
        )?;
        insert.execute(params![id, run, who, at, body, account])?;
        Ok(Ok(Reply::Done))
    }

    fn withdraw(&self, run: &str, id: &str) -> Tried<Reply> {
        let mut delete = self
            .conn
            .prepare_cached("DELETE FROM inbox WHERE id = ?1 AND run = ?2 AND taken_by IS NULL")?;
        let was_there = delete.execute(params![id, run])? > 0;
        Ok(Ok(Reply::Withdrawn(was_there)))
    }

    fn lock(&self, run: &str, epoch: u64, no: i64, names: &[String]) -> Tried<Reply> {
        let mut lease = self
            .conn
            .prepare_cached("SELECT 1 FROM leases WHERE run_no = ?1 AND epoch = ?2")?;
        if !lease.exists(params![no, epoch])? {
            let run = run.to_owned();
            return Ok(Err(JournalError::LeaseLost { run }));
        }
        if let Some((name, run)) = self.taken(run, names)? {
            return Ok(Ok(Reply::Taken { name, run }));
        }
        self.take(run, names)?;
        Ok(Ok(Reply::Done))
    }
}

struct Failed {
    error: rusqlite::Error,
    /// Nothing was written, and to try each alone is worth it.
    clean: bool,
}
