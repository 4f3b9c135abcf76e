//! A journal in memory, for tests and the crash simulation. It keeps what a disk would keep: the stored form of
//! each event, through the same encoder and the same chain as the durable journals.
use super::{
    Audit, Journal, JournalError, Keyed, Lease, LockHeld, NotBegun, Printed, PrintedOf,
    PrintedSize, Prints, REFUSED_KEPT, RefusedStart, RunSummary, StartKey, Terms,
    record::{self, Batch, Chain, Graphs, Hash, Record, Unreadable},
};
use crate::{
    machine::{Event, Holder, Submitted},
    step::Account,
    value::Timestamp,
};
use futures_util::future::BoxFuture;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Clone)]
struct Run {
    id: String,
    playbook: String,
    environment: String,
    by: String,
    account: Option<Account>,
    started_at: Timestamp,
    updated_at: Timestamp,
    key: Option<StartKey>,
    state: String,
    head: Hash,
    records: Vec<Record>,
    epoch: u64,
}

#[derive(Clone)]
struct Entry {
    command: Submitted,
    taken: bool,
}

/// The durable content: what a crash leaves behind.
#[derive(Clone, Default)]
struct Content {
    runs: Vec<Run>,
    blobs: HashMap<Hash, Arc<str>>,
    inbox: Vec<Entry>,
    locks: BTreeMap<String, String>,
    /// By run, then by place.
    printed: HashMap<String, BTreeMap<u64, Printed>>,
    refused: VecDeque<RefusedStart>,
}

impl Content {
    fn keyed(&self, key: &str) -> Option<Keyed> {
        self.runs.iter().find_map(|run| {
            let used = run.key.as_ref().filter(|used| used.key == key)?;
            Some(Keyed {
                run: run.id.clone(),
                of: used.of.clone(),
            })
        })
    }

    /// Takes all of these locks, or says who holds the first that is taken.
    fn lock(&mut self, run: &str, names: &[String]) -> Result<(), LockHeld> {
        self.check_locks(run, names)?;
        for name in names {
            self.locks.insert(name.clone(), run.to_owned());
        }
        Ok(())
    }

    fn check_locks(&self, run: &str, names: &[String]) -> Result<(), LockHeld> {
        for name in names {
            if let Some(holder) = self.locks.get(name)
                && holder != run
                && self
                    .run(holder)
                    .is_ok_and(|held| !record::is_over(&held.state))
            {
                return Err(LockHeld::Held {
                    name: name.clone(),
                    run: holder.clone(),
                });
            }
        }
        Ok(())
    }

    fn run(&self, id: &str) -> Result<&Run, JournalError> {
        let found = self.runs.iter().find(|run| run.id == id);
        found.ok_or_else(|| JournalError::NoSuchRun(id.to_owned()))
    }

    fn run_mut(&mut self, id: &str) -> Result<&mut Run, JournalError> {
        let found = self.runs.iter_mut().find(|run| run.id == id);
        found.ok_or_else(|| JournalError::NoSuchRun(id.to_owned()))
    }

    /// Checks first, then writes: all of the batch or nothing.
    fn append(&mut self, id: &str, batch: Batch, state: &str) -> Result<(), JournalError> {
        for (command, _) in &batch.takes {
            let held = |entry: &&Entry| {
                entry.command.id == *command && entry.command.run == id && !entry.taken
            };
            if !self.inbox.iter().any(|entry| held(&entry)) {
                return Err(JournalError::NotInInbox {
                    run: id.to_owned(),
                    id: command.clone(),
                });
            }
        }
        for entry in &mut self.inbox {
            entry.taken |= batch.takes.iter().any(|(id, _)| *id == entry.command.id);
        }
        let run = self.run_mut(id)?;
        // What is written down after the end of a run does not move its end.
        if let Some(last) = batch.records.last()
            && (batch.finished || !record::is_over(state))
            && let Ok(at) = last.at.parse()
        {
            run.updated_at = at;
        }
        state.clone_into(&mut run.state);
        run.head = batch.head;
        run.records.extend(batch.records);
        for blob in batch.blobs {
            self.blobs.entry(blob.hash).or_insert(blob.body.into());
        }
        if batch.finished {
            self.locks.retain(|_, holder| holder != id);
        }
        Ok(())
    }
}

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written, and the writer is told that it failed.
    Before,
    /// Everything is written, and the writer is told that it failed.
    After,
}

#[derive(Default)]
struct Store {
    content: Content,
    /// Who drives each run, with the epoch.
    leases: HashMap<String, (u64, Holder)>,
    version: u64,
    writes: u64,
    fault: Option<(u64, Fault)>,
    /// The process is dead: nothing more is written until [`MemoryJournal::break_leases`].
    dead: bool,
    dies: bool,
}

impl Store {
    /// Carries out a write of a driver, or fails as it was told to.
    fn write<T, E: From<JournalError>>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let failed = || JournalError::Store("an injected fault".to_owned()).into();
        if self.dead {
            return Err(failed());
        }
        self.writes += 1;
        let fault = match self.fault {
            Some((at, fault)) if at == self.writes => {
                self.fault = None;
                self.dead = self.dies;
                Some(fault)
            }
            Some(_) | None => None,
        };
        if fault == Some(Fault::Before) {
            return Err(failed());
        }
        let done = act(self)?;
        self.version += 1;
        if fault == Some(Fault::After) {
            return Err(failed());
        }
        Ok(done)
    }

    fn check_lease(&self, run: &str, epoch: u64) -> Result<(), JournalError> {
        match self.leases.get(run) {
            Some((held, _)) if *held == epoch => Ok(()),
            Some(_) | None => Err(JournalError::LeaseLost {
                run: run.to_owned(),
            }),
        }
    }
}

/// The durable content of a [`MemoryJournal`] at one moment.
#[derive(Clone)]
pub struct Snapshot(Content);

/// A journal in memory. A clone is another handle to the same store.
#[derive(Clone, Default)]
pub struct MemoryJournal {
    store: Arc<Mutex<Store>>,
    graphs: Arc<Graphs>,
}

struct MemoryLease {
    store: Arc<Mutex<Store>>,
    run: String,
    epoch: u64,
}

impl Lease for MemoryLease {
    fn run(&self) -> &str {
        &self.run
    }
    fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if store.check_lease(&self.run, self.epoch).is_ok() {
            store.leases.remove(&self.run);
        }
    }
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of what is durable now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.store().content.clone())
    }

    /// A journal as another process finds it after a crash: the durable content, no lease held.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        let journal = Self::default();
        journal.store().content = snapshot.0.clone();
        journal
    }

    /// As if every process had died: all leases are free, and nothing is appended under them any more.
    pub fn break_leases(&self) {
        let mut store = self.store();
        store.leases.clear();
        store.dead = false;
        store.fault = None;
    }

    /// How many writes of drivers (creations and appends) were tried so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.store().writes
    }

    /// Makes one write fail: `write` counts as [`Self::writes`] does, so the next is `writes() + 1`.
    pub fn fail_at(&self, write: u64, fault: Fault) {
        let mut store = self.store();
        store.fault = Some((write, fault));
        store.dies = false;
    }

    /// Like [`Self::fail_at`], and every later write fails too, with nothing written, until [`Self::break_leases`].
    pub fn die_at(&self, write: u64, fault: Fault) {
        let mut store = self.store();
        store.fault = Some((write, fault));
        store.dies = true;
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease_of(&self, run: &str, epoch: u64) -> Box<dyn Lease> {
        Box::new(MemoryLease {
            store: self.store.clone(),
            run: run.to_owned(),
            epoch,
        })
    }

    fn begin_now(
        &self,
        id: &str,
        holder: Holder,
        events: &[Event],
        terms: &Terms,
    ) -> Result<Box<dyn Lease>, NotBegun> {
        let info = &record::first_event(id, events)?.run;
        let genesis = record::genesis(id);
        let batch = record::encode(id, genesis, 1, events, &Graphs::default())?;
        self.store().write(|store| {
            if let Some(key) = &terms.key
                && let Some(first) = store.content.keyed(&key.key)
            {
                let key = key.key.clone();
                return Err(NotBegun::KeyUsed { key, first });
            }
            let free = store.content.check_locks(id, &terms.locks);
            free.map_err(NotBegun::Locked)?;
            if store.content.run(id).is_ok() {
                return Err(NotBegun::Journal(JournalError::SequenceTaken {
                    run: id.to_owned(),
                    seq: 1,
                }));
            }
            store.content.runs.push(Run {
                id: id.to_owned(),
                playbook: info.playbook.clone(),
                environment: info.environment.clone(),
                by: info.by.clone(),
                account: info.account.clone(),
                started_at: info.started_at,
                updated_at: info.started_at,
                key: terms.key.clone(),
                state: "running".to_owned(),
                head: genesis,
                records: Vec::new(),
                epoch: 1,
            });
            if let Err(error) = store.content.append(id, batch, "running") {
                store.content.runs.pop();
                return Err(NotBegun::Journal(error));
            }
            let locked = store.content.lock(id, &terms.locks);
            locked.map_err(NotBegun::Locked)?;
            store.leases.insert(id.to_owned(), (1, holder));
            Ok(())
        })?;
        Ok(self.lease_of(id, 1))
    }

    fn lease_now(&self, run: &str, holder: Holder) -> Result<Box<dyn Lease>, JournalError> {
        let epoch = {
            let mut store = self.store();
            if let Some((_, holder)) = store.leases.get(run) {
                return Err(JournalError::LeaseHeld {
                    run: run.to_owned(),
                    holder: Box::new(holder.clone()),
                });
            }
            let stored = store.content.run_mut(run)?;
            stored.epoch += 1;
            let epoch = stored.epoch;
            store.leases.insert(run.to_owned(), (epoch, holder));
            store.version += 1;
            epoch
        };
        Ok(self.lease_of(run, epoch))
    }

    fn append_now(
        &self,
        lease: &dyn Lease,
        seq: u64,
        events: &[Event],
        state: &str,
    ) -> Result<(), JournalError> {
        let run = lease.run();
        self.store().write(|store| {
            store.check_lease(run, lease.epoch())?;
            let stored = store.content.run(run)?;
            check_place(run, seq, stored.records.len() as u64)?;
            let batch = record::encode(run, stored.head, seq, events, &Graphs::default())?;
            store.content.append(run, batch, state)
        })
    }

    fn load_now(&self, id: &str, from: u64) -> Result<Vec<Event>, JournalError> {
        // A copy of the stored text would be as large as the run; events are decoded under the lock instead.
        let store = self.store();
        let run = store.content.run(id)?;
        let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        let mut events = Vec::with_capacity(run.records.len().saturating_sub(skipped));
        for (seq, record) in (1..).zip(&run.records).skip(skipped) {
            let mut blob = |hash: &Hash| Ok(store.content.blobs.get(hash).map(|b| b.to_string()));
            let event = record::decode(&record.at, &record.body, &self.graphs, &mut blob);
            events.push(event.map_err(|e| e.at(id, seq))?);
        }
        Ok(events)
    }

    fn audit_now(&self, id: &str) -> Result<Audit, JournalError> {
        let store = self.store();
        let run = store.content.run(id)?;
        let mut chain = Chain::from(0, record::genesis(id));
        let mut broken = None;
        for (seq, record) in (1..).zip(&run.records) {
            let mut blob = |hash: &Hash| Ok(store.content.blobs.get(hash).map(|b| b.to_string()));
            let held = chain
                .check(
                    seq,
                    record.at.as_bytes(),
                    record.body.as_bytes(),
                    &record.hash,
                )
                .and_then(|()| {
                    record::check_blobs(&record.body, &mut blob).map_err(|e| match e {
                        Unreadable::Damaged(what) => (seq, what),
                        Unreadable::Newer(_) | Unreadable::Store(_) => (seq, format!("{e:?}")),
                    })
                });
            if let Err(place) = held {
                broken = Some(place);
                break;
            }
        }
        Ok(Audit {
            run: id.to_owned(),
            head: chain.head(),
            ended: chain.ended(),
            broken,
        })
    }

    fn lock_now(&self, lease: &dyn Lease, names: &[String]) -> Result<(), LockHeld> {
        let mut store = self.store();
        store.check_lease(lease.run(), lease.epoch())?;
        store.content.lock(lease.run(), names)?;
        store.version += 1;
        Ok(())
    }

    /// Not counted as a write: what is printed has no place among the events that a fault may strike.
    fn print_now(&self, run: &str, epoch: u64, prints: Prints) -> Result<(), JournalError> {
        let mut store = self.store();
        if store.dead {
            return Err(JournalError::Store("an injected fault".to_owned()));
        }
        store.check_lease(run, epoch)?;
        let kept = store.content.printed.entry(run.to_owned()).or_default();
        for place in prints.forget {
            kept.remove(&place);
        }
        kept.extend(prints.keep.into_iter().map(|one| (one.no, one)));
        store.version += 1;
        Ok(())
    }

    fn printed_now(&self, run: &str, of: &PrintedOf) -> Result<Vec<Printed>, JournalError> {
        let store = self.store();
        store.content.run(run)?;
        let all = store.content.printed.get(run).into_iter().flatten();
        let fits = all.map(|(_, one)| one).filter(|one| of.fits(one));
        let most = of.most as usize;
        Ok(if of.newest {
            let mut last: Vec<Printed> = fits.rev().take(most).cloned().collect();
            last.reverse();
            last
        } else {
            fits.take(most).cloned().collect()
        })
    }

    fn submit_now(&self, command: Submitted) -> Result<(), JournalError> {
        let mut store = self.store();
        store.content.run(&command.run)?;
        let known = |entry: &Entry| entry.command.id == command.id;
        if !store.content.inbox.iter().any(known) {
            let taken = false;
            store.content.inbox.push(Entry { command, taken });
            store.version += 1;
        }
        Ok(())
    }

    fn runs_now(&self) -> Vec<RunSummary> {
        let store = self.store();
        let summary = |run: &Run| RunSummary {
            id: run.id.clone(),
            playbook: run.playbook.clone(),
            environment: run.environment.clone(),
            by: run.by.clone(),
            account: run.account.clone(),
            started_at: run.started_at,
            updated_at: run.updated_at,
            state: run.state.clone(),
            events: run.records.len() as u64,
            key: run.key.as_ref().map(|key| key.key.clone()),
            holder: store.leases.get(&run.id).map(|(_, holder)| holder.clone()),
        };
        store.content.runs.iter().rev().map(summary).collect()
    }
}

/// Refuses an append that is not at the end of the run.
pub(super) fn check_place(run: &str, seq: u64, written: u64) -> Result<(), JournalError> {
    if seq == written + 1 {
        Ok(())
    } else if seq <= written {
        Err(JournalError::SequenceTaken {
            run: run.to_owned(),
            seq,
        })
    } else {
        Err(JournalError::Store(format!(
            "event {seq} of run {run} cannot follow event {written}; nothing was written"
        )))
    }
}

/// The one id that is, begins with or ends with what was given.
pub(super) fn pick(given: &str, mut fits: Vec<String>) -> Result<String, JournalError> {
    if let Some(exact) = fits.iter().position(|id| id == given) {
        return Ok(fits.swap_remove(exact));
    }
    if fits.len() > 1 {
        return Err(JournalError::Ambiguous {
            prefix: given.to_owned(),
            count: fits.len(),
        });
    }
    fits.pop()
        .ok_or_else(|| JournalError::NoSuchRun(given.to_owned()))
}

impl Journal for MemoryJournal {
    fn begin(
        &self,
        run: &str,
        holder: Holder,
        events: Vec<Event>,
        terms: Terms,
    ) -> BoxFuture<'_, Result<Box<dyn Lease>, NotBegun>> {
        let run = run.to_owned();
        Box::pin(async move { self.begin_now(&run, holder, &events, &terms) })
    }

    fn keyed(&self, key: &str) -> BoxFuture<'_, Result<Option<Keyed>, JournalError>> {
        let key = key.to_owned();
        Box::pin(async move { Ok(self.store().content.keyed(&key)) })
    }

    fn refuse(&self, start: RefusedStart) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            let mut store = self.store();
            let kept = &mut store.content.refused;
            kept.push_front(start);
            kept.truncate(usize::try_from(REFUSED_KEPT).unwrap_or(usize::MAX));
            store.version += 1;
            Ok(())
        })
    }

    fn refused(&self) -> BoxFuture<'_, Result<Vec<RefusedStart>, JournalError>> {
        Box::pin(async move { Ok(self.store().content.refused.iter().cloned().collect()) })
    }

    fn in_place(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async { Ok(()) })
    }

    fn lease(
        &self,
        run: &str,
        holder: Holder,
    ) -> BoxFuture<'_, Result<Box<dyn Lease>, JournalError>> {
        let run = run.to_owned();
        Box::pin(async move { self.lease_now(&run, holder) })
    }

    fn append<'a>(
        &'a self,
        lease: &'a dyn Lease,
        seq: u64,
        events: Vec<Event>,
        state: &'static str,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move { self.append_now(lease, seq, &events, state) })
    }

    fn load(&self, run: &str, from: u64) -> BoxFuture<'_, Result<Vec<Event>, JournalError>> {
        let run = run.to_owned();
        Box::pin(async move { self.load_now(&run, from) })
    }

    fn find(&self, id: &str) -> BoxFuture<'_, Result<String, JournalError>> {
        let given = id.to_owned();
        Box::pin(async move {
            let store = self.store();
            let ids = store.content.runs.iter().map(|run| &run.id);
            let fits = ids.filter(|id| id.starts_with(&given) || id.ends_with(&given));
            if given.is_empty() {
                return Err(JournalError::NoSuchRun(given));
            }
            pick(&given, fits.cloned().collect())
        })
    }

    fn runs(&self) -> BoxFuture<'_, Result<Vec<RunSummary>, JournalError>> {
        Box::pin(async move { Ok(self.runs_now()) })
    }

    fn submit(&self, command: Submitted) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move { self.submit_now(command) })
    }

    fn withdraw(&self, run: &str, id: &str) -> BoxFuture<'_, Result<bool, JournalError>> {
        let (run, id) = (run.to_owned(), id.to_owned());
        Box::pin(async move {
            let mut store = self.store();
            let inbox = &mut store.content.inbox;
            let before = inbox.len();
            inbox.retain(|entry| entry.taken || entry.command.run != run || entry.command.id != id);
            let was_there = inbox.len() < before;
            store.version += u64::from(was_there);
            Ok(was_there)
        })
    }

    fn inbox(&self, run: Option<&str>) -> BoxFuture<'_, Result<Vec<Submitted>, JournalError>> {
        let run = run.map(str::to_owned);
        Box::pin(async move {
            let store = self.store();
            let open = store.content.inbox.iter().filter(|entry| !entry.taken);
            let asked = open.filter(|e| run.as_ref().is_none_or(|run| e.command.run == *run));
            Ok(asked.map(|entry| entry.command.clone()).collect())
        })
    }

    fn version(&self) -> BoxFuture<'_, Result<u64, JournalError>> {
        Box::pin(async move { Ok(self.store().version) })
    }

    fn audit(&self, run: &str) -> BoxFuture<'_, Result<Audit, JournalError>> {
        let run = run.to_owned();
        Box::pin(async move { self.audit_now(&run) })
    }

    fn lock<'a>(
        &'a self,
        lease: &'a dyn Lease,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<(), LockHeld>> {
        Box::pin(async move { self.lock_now(lease, names) })
    }

    fn print(
        &self,
        run: &str,
        epoch: u64,
        prints: Prints,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        let run = run.to_owned();
        Box::pin(async move { self.print_now(&run, epoch, prints) })
    }

    fn printed(
        &self,
        run: &str,
        of: PrintedOf,
    ) -> BoxFuture<'_, Result<Vec<Printed>, JournalError>> {
        let run = run.to_owned();
        Box::pin(async move { self.printed_now(&run, &of) })
    }

    fn printed_size(&self, run: &str) -> BoxFuture<'_, Result<PrintedSize, JournalError>> {
        let run = run.to_owned();
        Box::pin(async move {
            let store = self.store();
            store.content.run(&run)?;
            let kept = store.content.printed.get(&run);
            Ok(PrintedSize {
                last: kept
                    .and_then(|kept| kept.keys().next_back().copied())
                    .unwrap_or(0),
                bytes: kept
                    .into_iter()
                    .flatten()
                    .map(|(_, one)| one.text.len() as u64)
                    .sum(),
            })
        })
    }
}

#[cfg(test)]
mod tests;
