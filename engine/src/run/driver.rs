//! Starts and resumes runs.
use super::{
    api::{DriveOptions, Ended, Ends, Events, NewRun, RunError, RunHandle},
    clock::{Clock, RunClock, SystemClock, is_step},
    drive::{Drive, Line, Turned, spawn},
    parked::Parked,
    taking::{Taken, replay, take},
    targets::{self, Met},
    unlearned::Unlearned,
    work::Message,
};
use crate::{
    graph::Graph,
    journal::{
        Journal, JournalError, Keyed, LockHeld, NotBegun, RefusedStart, StartKey, StartOf, Terms,
    },
    machine::{EVENT_FORMAT, Event, EventBody, Holder, Machine, RunStarted},
    secret::{RunSecrets, Secrets},
    step::{Registry, Resources, RunInfo, Target},
    value::{Duration, Timestamp, Value},
};
use futures_channel::mpsc;
use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How often the inbox is looked at for commands of other processes, and what steps share is tidied up.
const INBOX_POLL: Duration = Duration::from_millis(250);
/// The inbox is late when it was not read for this many times its interval.
const LATE: u64 = 3;

/// How often in a row the journal may fail before the run is given back.
const FAILURES: u32 = 6;

/// The pause after the first of these; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// Drives runs: one task each, and one that watches the inbox of all.
#[derive(Clone)]
pub struct Driver(Arc<Shared>);

pub(super) struct Shared {
    pub journal: Arc<dyn Journal>,
    pub registry: Arc<Registry>,
    pub clock: Arc<dyn Clock>,
    pub holder: Holder,
    pub resources: Resources,
    secrets: Secrets,
    runs: Mutex<HashMap<String, mpsc::UnboundedSender<Message>>>,
    polling: AtomicBool,
    /// When the inbox was looked at last, in milliseconds of [`Clock::elapsed`].
    looked: AtomicU64,
}

impl Shared {
    /// Whether the look at the inbox is late: this process was stopped, and what wakes it first must not start what an order that
    /// waits there forbids.
    pub(super) fn is_late(&self) -> bool {
        let late = u64::try_from(INBOX_POLL.as_millis())
            .unwrap_or_default()
            .saturating_mul(LATE);
        millis(self.clock.as_ref()).saturating_sub(self.looked.load(Ordering::Relaxed)) > late
    }

    /// This process, as the journal names it from now on.
    pub(super) fn holder_now(&self) -> Holder {
        Holder {
            since: self.clock.now(),
            ..self.holder.clone()
        }
    }

    pub(super) fn secrets_of(&self, environment: &str) -> Arc<RunSecrets> {
        self.secrets.of_run(environment)
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::UnboundedSender<Message>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver {
    /// A driver on a journal, with the step kinds of this build, under the name of a process.
    #[must_use]
    pub fn new(journal: Arc<dyn Journal>, registry: Arc<Registry>, holder: Holder) -> Self {
        Self::with_clock(journal, registry, holder, Arc::new(SystemClock))
    }

    /// With the secrets of the environments that its runs are in.
    #[must_use]
    pub fn with_secrets(
        journal: Arc<dyn Journal>,
        registry: Arc<Registry>,
        holder: Holder,
        secrets: Secrets,
    ) -> Self {
        Self::made_of(journal, registry, holder, Arc::new(SystemClock), secrets)
    }

    /// With a clock of its own, for tests.
    #[must_use]
    pub fn with_clock(
        journal: Arc<dyn Journal>,
        registry: Arc<Registry>,
        holder: Holder,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self::made_of(journal, registry, holder, clock, Secrets::default())
    }

    fn made_of(
        journal: Arc<dyn Journal>,
        registry: Arc<Registry>,
        holder: Holder,
        clock: Arc<dyn Clock>,
        secrets: Secrets,
    ) -> Self {
        Self(Arc::new(Shared {
            secrets,
            journal,
            registry,
            clock,
            holder,
            resources: Resources::default(),
            runs: Mutex::default(),
            polling: AtomicBool::new(false),
            looked: AtomicU64::new(0),
        }))
    }

    /// Starts a run. It is in the journal when this returns, and goes on in the background.
    ///
    /// # Errors
    /// Where a target cannot be reached, a lock is held, or the journal fails.
    pub async fn start(&self, new: NewRun, options: DriveOptions) -> Result<RunHandle, RunError> {
        self.start_once(new, None, options).await
    }

    /// As [`Driver::start`], by a key: however often it is asked for, and by however many, one run starts.
    ///
    /// # Errors
    /// As [`Driver::start`]; [`RunError::KeyUsed`] where the key has started a run.
    pub async fn start_once(
        &self,
        new: NewRun,
        key: Option<String>,
        options: DriveOptions,
    ) -> Result<RunHandle, RunError> {
        let key = key.map(|key| StartKey {
            key,
            of: start_of(&new),
        });
        let asked = (
            self.0.clock.now(),
            new.graph.playbook.clone(),
            new.environment.clone(),
            new.by.clone(),
            self.0.holder.account.clone(),
            key.as_ref().map(|key| key.key.clone()),
        );
        let begun = self.begin(new, key, options).await;
        if let Err(error) = &begun
            && let Some(refused_by) = error.refused_by()
        {
            let (at, playbook, environment, by, account, key) = asked;
            let refused = RefusedStart {
                at,
                playbook,
                environment,
                by,
                account,
                key,
                refused_by,
                why: error.to_string(),
            };
            // What is told is the refusal, not that it could not be kept.
            drop(self.0.journal.refuse(refused).await);
        }
        begun
    }

    async fn begin(
        &self,
        new: NewRun,
        key: Option<StartKey>,
        options: DriveOptions,
    ) -> Result<RunHandle, RunError> {
        // Before anything that could refuse it: who asks again wants to know what became of the first, at whatever hour.
        if let Some(key) = &key
            && let Some(first) = self.0.journal.keyed(&key.key).await?
        {
            return Err(key_used(key, first));
        }
        let now = self.0.clock.now();
        crate::policy::windows::check(&new.graph.policy.windows, now)
            .map_err(RunError::OutsideWindow)?;
        let secrets = self.0.secrets.of_run(&new.environment);
        let found =
            targets::identify(&self.0.registry, &new.graph, &new.targets, &secrets, now).await?;
        let met = Met::of(&found.targets);
        let id = uuid::Uuid::now_v7().simple().to_string();
        let short_id = id.chars().skip(id.len().saturating_sub(8)).collect();
        let digest = new
            .digest
            .unwrap_or_else(|| digest(&new.graph, &new.inputs, &found.targets));
        let run = RunInfo {
            id: id.clone(),
            short_id,
            playbook: new.graph.playbook.clone(),
            environment: new.environment,
            by: new.by,
            account: self.0.holder.account.clone(),
            started_at: now,
            url: None,
        };
        let terms = Terms {
            locks: new.graph.policy.locks.clone(),
            key: key.clone(),
        };
        let started = Event {
            at: now,
            body: EventBody::RunStarted(Box::new(RunStarted {
                format: EVENT_FORMAT,
                run,
                graph: new.graph,
                inputs: new.inputs,
                targets: found.targets,
                unreachable: found.unreachable,
                approvers: new.approvers,
                secrets: secrets.names(),
                digest,
                engine: env!("CARGO_PKG_VERSION").to_owned(),
            })),
        };
        let machine = Box::new(Machine::recover([&started]).map_err(|e| replay(&id, &e))?);
        let begun = self
            .0
            .journal
            .begin(&id, self.0.holder_now(), vec![started.clone()], terms)
            .await;
        let lease = begun.map_err(|refused| match (refused, &key) {
            (NotBegun::KeyUsed { first, .. }, Some(key)) => key_used(key, first),
            (NotBegun::Locked(held), _) => held.into(),
            (NotBegun::Journal(error), _) => error.into(),
            (refused @ NotBegun::KeyUsed { .. }, None) => {
                JournalError::Store(refused.to_string()).into()
            }
        })?;
        let taken = Taken {
            clock: Arc::new(RunClock::new(self.0.clock.clone(), now)),
            offset: None,
            order: None,
            machine,
            lease,
            secrets,
            unlearned: Unlearned::default(),
            met: Arc::new(met),
            seen: (1, vec![started]),
        };
        Ok(self.drive(taken, options))
    }

    /// Takes a run's lease and continues it from its place. Targets are compared with what they were at the start as far as they
    /// answer in a short time; a step compares the rest when it first uses them.
    ///
    /// # Errors
    /// Where another process drives it, a target is another server now, or the journal fails.
    pub async fn resume(&self, run: &str, options: DriveOptions) -> Result<RunHandle, RunError> {
        let taken = take(&self.0, run, options, None).await?;
        Ok(self.drive(taken, options))
    }

    /// Takes a run for an order that waits in its inbox, and gives it back before anything starts if that is refused.
    ///
    /// # Errors
    /// As [`Driver::resume`].
    pub async fn obey(
        &self,
        run: &str,
        order: &str,
        options: DriveOptions,
    ) -> Result<RunHandle, RunError> {
        let mut taken = take(&self.0, run, options, None).await?;
        taken.order = Some(order.to_owned());
        Ok(self.drive(taken, options))
    }

    fn drive(&self, mut taken: Taken, options: DriveOptions) -> RunHandle {
        let id = taken.lease.run().to_owned();
        let (observers, events) = mpsc::unbounded();
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        let (told, ended) = oneshot::channel();
        let (first, seen) = std::mem::take(&mut taken.seen);
        let mut line = Line::new(observers, first, (stop.clone(), end.clone()));
        line.tell(first, seen);
        self.0.runs().insert(id.clone(), line.tx.clone());
        self.poll_inbox();
        let shared = self.0.clone();
        let run = id.clone();
        // Boxed, or the task would hold it twice: as it was made, and as it is awaited.
        let driven = Box::pin(driven(self.0.clone(), Box::new(taken), options, line));
        spawn(async move {
            let result: Result<Ended, RunError> = driven.await;
            shared.runs().remove(&run);
            // Its handle may be gone.
            drop(told.send(result.map_err(Arc::new)));
        });
        RunHandle {
            id,
            events: Events(events),
            stop,
            end,
            ended: Ends::Later(ended),
        }
    }

    /// One task looks for commands of other processes, for all runs of this driver, and tidies up what their steps share.
    fn poll_inbox(&self) {
        if self.0.polling.swap(true, Ordering::SeqCst) {
            return;
        }
        let shared: Weak<Shared> = Arc::downgrade(&self.0);
        spawn(async move {
            let mut seen = None;
            let Some(clock) = shared.upgrade().map(|shared| shared.clock.clone()) else {
                return;
            };
            let mut watch = RunClock::new(clock.clone(), Timestamp::MIN);
            while let Some(shared) = shared.upgrade() {
                if is_step(watch.offset()) {
                    watch = RunClock::new(clock.clone(), Timestamp::MIN);
                    for tx in shared.runs().values() {
                        drop(tx.unbounded_send(Message::Clock));
                    }
                }
                shared.resources.tidy();
                let version = shared.journal.version().await;
                if let Err(JournalError::Replaced { .. }) = &version {
                    // Each run finds it for itself, and stops.
                    for tx in shared.runs().values() {
                        drop(tx.unbounded_send(Message::Inbox));
                    }
                } else if let Ok(version) = version
                    && seen != Some(version)
                    && let Ok(commands) = shared.journal.inbox(None).await
                {
                    seen = Some(version);
                    let runs = shared.runs();
                    let waiting: HashSet<&str> = commands
                        .iter()
                        .map(|command| command.run.as_str())
                        .collect();
                    for run in waiting {
                        if let Some(tx) = runs.get(run) {
                            drop(tx.unbounded_send(Message::Inbox));
                        }
                    }
                }
                shared
                    .looked
                    .store(millis(clock.as_ref()), Ordering::Relaxed);
                drop(shared);
                clock.sleep(INBOX_POLL).await;
            }
        });
    }
}

fn millis(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Drives a run under one lease after another: where an append has an unknown result, nothing is known of the machine any more,
/// so it is dropped, and the run is taken anew from what the journal has.
///
/// What is rarely awaited is boxed, here and in `Drive`: thousands of runs that wait would each keep room for it.
async fn driven(
    shared: Arc<Shared>,
    mut taken: Box<Taken>,
    options: DriveOptions,
    mut line: Line,
) -> Result<Ended, RunError> {
    let run = taken.lease.run().to_owned();
    let order = taken.order.clone();
    let mut failures = 0;
    loop {
        let before = line.told();
        let result = match Box::pin(drive(&shared, taken, options, &mut line)).await {
            Ok(Driven::Ended(ended)) => Ok(ended),
            Ok(Driven::Parked(parked)) => {
                parked.wait(&mut line).await;
                match Box::pin(parked.taken_up(&shared)).await {
                    Ok(again) => {
                        taken = Box::new(again);
                        continue;
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if line.told() > before {
            failures = 0;
        }
        taken = match result {
            Err(error) if error.is_unknown() && !options.die_with_journal => {
                let taken = again(&shared, &run, options, &line, (&mut failures, error));
                let taken = Box::pin(taken).await.map(|mut taken| {
                    taken.order = order.clone().filter(|order| !accepts(&taken.seen.1, order));
                    taken
                });
                match taken {
                    // It was its last event of which the result was not known. A lock is asked for only by a run that is over
                    // and has an order: the order stays in the inbox.
                    Err(RunError::Over { .. } | RunError::Locked(LockHeld::Held { .. })) => {
                        return Box::pin(over(&shared, &run, &mut line)).await;
                    }
                    taken => Box::new(taken?),
                }
            }
            // A command may have come between the last look and the end of the lease: it is not left for nobody.
            Ok(ended @ (Ended::Waiting | Ended::Stuck | Ended::Paused)) => {
                match shared.journal.inbox(Some(&run)).await {
                    Ok(commands) if !commands.is_empty() => {}
                    Ok(_) | Err(_) => return Ok(ended),
                }
                match Box::pin(take(&shared, &run, options, Some(line.told()))).await {
                    Ok(taken) => Box::new(taken),
                    // Who holds the lease takes the command, too.
                    Err(_) => return Ok(ended),
                }
            }
            other => return other,
        };
        let (first, seen) = std::mem::take(&mut taken.seen);
        line.tell(first, seen);
    }
}

/// Whether an order was accepted by the append of which the result was not known.
fn accepts(events: &[Event], order: &str) -> bool {
    events
        .iter()
        .any(|event| matches!(&event.body, EventBody::CommandAccepted(taken) if taken.id == order))
}

enum Driven {
    Ended(Ended),
    Parked(Box<Parked>),
}

/// Drives a run under one lease, which goes back as this returns, but for a run that is put away.
async fn drive(
    shared: &Arc<Shared>,
    taken: Box<Taken>,
    options: DriveOptions,
    line: &mut Line,
) -> Result<Driven, RunError> {
    let mut drive = Drive::new(shared.clone(), *taken, options, line);
    Ok(match drive.run().await? {
        Turned::Ended(ended) => Driven::Ended(ended),
        Turned::Parks => Driven::Parked(Box::new(drive.park())),
    })
}

/// How a run ended whose end was written without a word that it was.
async fn over(shared: &Shared, run: &str, line: &mut Line) -> Result<Ended, RunError> {
    let events = shared.journal.load(run, 1).await?;
    let machine = Machine::recover(&events).map_err(|e| replay(run, &e))?;
    line.tell(1, events);
    machine.finished().map_or_else(
        || {
            Err(RunError::Replay {
                run: run.to_owned(),
                why: "it was over, and is not any more".to_owned(),
            })
        },
        |finished| Ok(Ended::Finished(finished.outcome)),
    )
}

fn key_used(key: &StartKey, first: Keyed) -> RunError {
    RunError::KeyUsed {
        key: key.key.clone(),
        differs: key.of.differs(&first.of),
        run: first.run,
    }
}

/// What a start is of, for its key: the playbook's text, the inputs, the environment and where its targets are. Not who they say
/// they are: a server that was failed over meanwhile is the same target.
#[must_use]
pub fn start_of(new: &NewRun) -> StartOf {
    let hash = |parts: &[Vec<u8>]| {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hex::encode(hasher.finalize())
    };
    // A value that is no JSON cannot be stored with the run either, which says so.
    let json = |value: &Value| serde_json::to_vec(value).unwrap_or_default();
    let text = |text: &String| text.clone().into_bytes();
    let mut place = vec![text(&new.environment)];
    for (name, target) in &new.targets {
        place.extend([text(name), text(&target.kind), json(&target.url)]);
    }
    let sources: Vec<Vec<u8>> = new
        .graph
        .sources
        .iter()
        .map(|source| text(&source.sha256))
        .collect();
    StartOf {
        playbook: hash(&sources),
        inputs: hash(&[json(&new.inputs)]),
        place: hash(&place),
    }
}

/// Takes a run again after the journal failed, a few times, each after a longer pause.
async fn again(
    shared: &Shared,
    run: &str,
    options: DriveOptions,
    line: &Line,
    (failures, mut error): (&mut u32, RunError),
) -> Result<Taken, RunError> {
    while *failures < FAILURES && !line.stop.is_cancelled() {
        let pause = Duration::from_millis(PAUSE.as_millis() << *failures);
        *failures += 1;
        tokio::select! {
            () = shared.clock.sleep(pause) => {}
            () = line.stop.cancelled() => break,
        }
        match take(shared, run, options, Some(line.told())).await {
            Ok(taken) => return Ok(taken),
            Err(next) if next.is_unknown() => error = next,
            Err(next) => return Err(next),
        }
    }
    Err(error)
}

/// What a run without an approved plan is known by: its definition, inputs and targets.
fn digest(graph: &Graph, inputs: &Value, targets: &IndexMap<String, Target>) -> String {
    let mut hasher = Sha256::new();
    for source in &graph.sources {
        hasher.update(source.sha256.as_bytes());
    }
    for part in [serde_json::to_vec(inputs), serde_json::to_vec(targets)]
        .into_iter()
        .flatten()
    {
        hasher.update(part);
    }
    hex::encode(hasher.finalize())
}
