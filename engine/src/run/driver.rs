//! Starts and resumes runs.
use super::{
    api::{DriveOptions, Ended, NewRun, RunError, RunHandle},
    clock::{Clock, RunClock, SystemClock, is_step},
    drive::{Drive, Line, spawn},
    taking::{Taken, replay, take},
    targets::{self, Met},
    unlearned::Unlearned,
    work::Message,
};
use crate::{
    graph::Graph,
    journal::{Journal, Lease, LockHeld},
    machine::{Cancelled, EVENT_FORMAT, Event, EventBody, Holder, Machine, RunStarted},
    secret::{RunSecrets, Secrets},
    step::{Registry, Resources, RunInfo, Target},
    value::{Duration, Timestamp, Value},
};
use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How often the inbox is looked at for commands of other processes, and what steps share is tidied up.
const INBOX_POLL: Duration = Duration::from_millis(250);

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
}

impl Shared {
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
        }))
    }

    /// Starts a run. It is in the journal when this returns, and goes on in the background.
    ///
    /// # Errors
    /// Where a target cannot be reached, a lock is held, or the journal fails.
    pub async fn start(&self, new: NewRun, options: DriveOptions) -> Result<RunHandle, RunError> {
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
            started_at: now,
            url: None,
        };
        let locks = new.graph.policy.locks.clone();
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
        let mut machine = Machine::recover([&started]).map_err(|e| replay(&id, &e))?;
        let lease = self
            .0
            .journal
            .create(&id, self.0.holder_now(), vec![started.clone()])
            .await?;
        if !locks.is_empty()
            && let Err(held) = self.0.journal.lock(lease.as_ref(), &locks).await
        {
            self.give_up(&mut machine, lease.as_ref(), &held).await?;
            return Err(held.into());
        }
        let taken = Taken {
            clock: RunClock::new(self.0.clock.clone(), now),
            machine,
            lease,
            secrets,
            unlearned: Unlearned::default(),
            met,
            seen: (1, vec![started]),
        };
        Ok(self.drive(taken, options))
    }

    /// A run that may not begin ends before its first step.
    async fn give_up(
        &self,
        machine: &mut Machine,
        lease: &dyn Lease,
        held: &LockHeld,
    ) -> Result<(), RunError> {
        let now = self.0.clock.now();
        let first = machine.seq() + 1;
        let mut events = Vec::new();
        // The second passes over `finally`.
        for _ in 0..2 {
            let event = Event {
                at: now,
                body: EventBody::Cancelled(Cancelled {
                    undo: false,
                    force: true,
                    who: self.0.holder.user.clone(),
                    because: Some(held.to_string()),
                }),
            };
            machine.apply(&event).map_err(|e| replay(lease.run(), &e))?;
            events.push(event);
        }
        events.extend(machine.settle(now).map_err(|e| replay(lease.run(), &e))?);
        Ok(self
            .0
            .journal
            .append(lease, first, events, machine.state().as_str())
            .await?)
    }

    /// Takes a run's lease and goes on where it stands. Targets are compared with what they were at the start as far as they
    /// answer in a short time; a step compares the rest when it first uses them.
    ///
    /// # Errors
    /// Where another process drives it, a target is another server now, or the journal fails.
    pub async fn resume(&self, run: &str, options: DriveOptions) -> Result<RunHandle, RunError> {
        let taken = take(&self.0, run, options, None).await?;
        Ok(self.drive(taken, options))
    }

    fn drive(&self, mut taken: Taken, options: DriveOptions) -> RunHandle {
        let id = taken.lease.run().to_owned();
        let (observers, events) = mpsc::unbounded_channel();
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        let (told, ended) = watch::channel(None);
        let (first, seen) = std::mem::take(&mut taken.seen);
        let mut line = Line::new(observers, first, (stop.clone(), end.clone()));
        line.tell(first, seen);
        self.0.runs().insert(id.clone(), line.tx.clone());
        self.poll_inbox();
        let shared = self.0.clone();
        let run = id.clone();
        // Boxed, or the task would hold the run twice: as it was given, and as it is driven.
        let driven = Box::pin(driven(self.0.clone(), taken, options, line));
        spawn(async move {
            let result: Result<Ended, RunError> = driven.await;
            shared.runs().remove(&run);
            told.send_replace(Some(result.map_err(Arc::new)));
        });
        RunHandle {
            id,
            events,
            stop,
            end,
            ended,
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
                        drop(tx.send(Message::Clock));
                    }
                }
                shared.resources.tidy();
                if let Ok(version) = shared.journal.version().await
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
                            drop(tx.send(Message::Inbox));
                        }
                    }
                }
                drop(shared);
                clock.sleep(INBOX_POLL).await;
            }
        });
    }
}

/// Drives a run under one lease after another: where an append has an unknown result, nothing is known of the machine any more,
/// so it is dropped, and the run is taken anew from what the journal has.
async fn driven(
    shared: Arc<Shared>,
    mut taken: Taken,
    options: DriveOptions,
    mut line: Line,
) -> Result<Ended, RunError> {
    let run = taken.lease.run().to_owned();
    let mut failures = 0;
    loop {
        let before = line.told();
        let result = Drive::new(shared.clone(), taken, options, &mut line)
            .run()
            .await;
        if line.told() > before {
            failures = 0;
        }
        taken = match result {
            Err(error) if error.is_unknown() && !options.die_with_journal => {
                match again(&shared, &run, options, &line, (&mut failures, error)).await {
                    // It was its last event of which the result was not known.
                    Err(RunError::Over { .. }) => return over(&shared, &run, &mut line).await,
                    taken => taken?,
                }
            }
            // A command may have come between the last look and the end of the lease: it is not left for nobody.
            Ok(ended @ (Ended::Waiting | Ended::Stuck | Ended::Paused)) => {
                match shared.journal.inbox(Some(&run)).await {
                    Ok(commands) if !commands.is_empty() => {}
                    Ok(_) | Err(_) => return Ok(ended),
                }
                match take(&shared, &run, options, Some(line.told())).await {
                    Ok(taken) => taken,
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
