//! Starts and resumes runs.
use super::{
    api::{DriveOptions, Ended, NewRun, RunError, RunHandle},
    clock::{Clock, SystemClock},
    drive::{Drive, spawn},
    targets::{self, Met},
    work::Message,
};
use crate::{
    graph::Graph,
    journal::{Journal, Lease, LockHeld},
    machine::{Cancelled, EVENT_FORMAT, Event, EventBody, Holder, LeaseTaken, Machine, RunStarted},
    secret::{RunSecrets, Secrets},
    step::{Registry, Resources, RunInfo, Target},
    value::{Duration, Value},
};
use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How often the inbox is looked at for commands of other processes, and what steps share is tidied up.
const INBOX_POLL: Duration = Duration::from_millis(250);

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
            .create(&id, self.holder(), vec![started.clone()])
            .await?;
        if !locks.is_empty()
            && let Err(held) = self.0.journal.lock(lease.as_ref(), &locks).await
        {
            self.give_up(&mut machine, lease.as_ref(), &held).await?;
            return Err(held.into());
        }
        let seen = vec![(1, started)];
        Ok(self.drive(machine, lease, secrets, met, options, seen))
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

    /// Takes a run's lease and goes on where it stands.
    ///
    /// # Errors
    /// Where another process drives it, a target is another server now, or the journal fails.
    pub async fn resume(&self, run: &str, options: DriveOptions) -> Result<RunHandle, RunError> {
        let lease = self.0.journal.lease(run, self.holder()).await?;
        let events = self.0.journal.load(run, 1).await?;
        let mut machine = Machine::recover(&events).map_err(|e| replay(run, &e))?;
        let used = used(&events);
        drop(events);
        if let Some(finished) = machine.finished()
            && self.0.journal.inbox(Some(run)).await?.is_empty()
        {
            return Err(RunError::Over {
                run: run.to_owned(),
                outcome: finished.outcome.as_str(),
            });
        }
        let secrets = self.0.secrets.of_run(&machine.started().run.environment);
        // What they are in is on the servers now: a step that reads it must not write it down.
        secrets
            .learn(&used, self.0.clock.now())
            .await
            .map_err(|failure| RunError::Secret {
                why: format!("run {run} has used a secret: {}", failure.message),
                help: failure.help,
            })?;
        let compared = targets::compare(&self.0, &machine, &secrets).await;
        // What a person asks of the run goes on without the target: only the steps that use it fail.
        if let Some(changed) = compared.changed
            && !options.even_if_changed
            && self.0.journal.inbox(Some(run)).await?.is_empty()
        {
            return Err(changed);
        }
        let at = self.0.clock.now().max(machine.last_at());
        let taken = EventBody::LeaseTaken(LeaseTaken {
            epoch: lease.epoch(),
            holder: self.holder(),
            failovers: compared.failovers,
            unreachable: compared.unreachable,
        });
        let first = machine.seq() + 1;
        let mut events = Vec::new();
        for body in std::iter::once(taken).chain(compared.identified) {
            let event = Event { at, body };
            machine.apply(&event).map_err(|e| replay(run, &e))?;
            events.push(event);
        }
        let state = machine.state().as_str();
        self.0
            .journal
            .append(lease.as_ref(), first, events.clone(), state)
            .await?;
        let seen = (first..).zip(events).collect();
        Ok(self.drive(machine, lease, secrets, compared.met, options, seen))
    }

    fn holder(&self) -> Holder {
        Holder {
            since: self.0.clock.now(),
            ..self.0.holder.clone()
        }
    }

    fn drive(
        &self,
        machine: Machine,
        lease: Box<dyn Lease>,
        secrets: Arc<RunSecrets>,
        met: Met,
        options: DriveOptions,
        seen: Vec<(u64, Event)>,
    ) -> RunHandle {
        let id = lease.run().to_owned();
        let (tx, rx) = mpsc::unbounded_channel();
        let (observers, events) = mpsc::unbounded_channel();
        for (seq, event) in seen {
            drop(observers.send((seq, Arc::new(event))));
        }
        let stop = CancellationToken::new();
        let (told, ended) = watch::channel(None);
        self.0.runs().insert(id.clone(), tx.clone());
        self.poll_inbox();
        let drive = Drive {
            shared: self.0.clone(),
            machine,
            lease,
            secrets,
            met: Arc::new(met),
            options,
            rx,
            tx,
            observers,
            stop: stop.clone(),
            in_flight: HashMap::new(),
            taken: HashSet::new(),
            batch: Vec::new(),
        };
        let shared = self.0.clone();
        let run = id.clone();
        // Boxed, or the task would hold the run twice: as it was given, and as it is driven.
        let driven = Box::pin(drive.run());
        spawn(async move {
            let result: Result<Ended, RunError> = driven.await;
            shared.runs().remove(&run);
            told.send_replace(Some(result.map_err(Arc::new)));
        });
        RunHandle {
            id,
            events,
            stop,
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
            while let Some(shared) = shared.upgrade() {
                let clock = shared.clock.clone();
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
                clock.sleep_until(INBOX_POLL.after(clock.now())).await;
            }
        });
    }
}

fn replay(run: &str, error: &crate::machine::IllegalEvent) -> RunError {
    RunError::Replay {
        run: run.to_owned(),
        why: error.to_string(),
    }
}

/// The secrets that a run has used: in its targets, and in the parameters of what it started.
fn used(events: &[Event]) -> BTreeSet<String> {
    fn collect(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Secret(secret) => into.extend(secret.names().map(str::to_owned)),
            Value::List(items) => items.iter().for_each(|item| collect(item, into)),
            Value::Map(map) => map.values().for_each(|value| collect(value, into)),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Decimal(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Duration(_)
            | Value::Size(_)
            | Value::Timestamp(_)
            | Value::Bytes(_) => {}
        }
    }
    let mut names = BTreeSet::new();
    for event in events {
        let targets = match &event.body {
            EventBody::RunStarted(started) => &started.targets,
            EventBody::Started(started) => {
                collect(&started.input, &mut names);
                &started.targets
            }
            _ => continue,
        };
        for target in targets.values() {
            collect(&target.url, &mut names);
            target
                .options
                .values()
                .for_each(|value| collect(value, &mut names));
        }
    }
    names
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
