//! Starts and resumes runs.
use super::{
    api::{DriveOptions, Ended, NewRun, RunError, RunHandle},
    clock::{Clock, SystemClock},
    drive::{Drive, spawn},
    redact,
    work::Message,
};
use crate::{
    graph::{Graph, TargetDecl},
    journal::{
        Journal, JournalError, Keyed, Lease, NotBegun, RefusedStart, StartKey, StartOf, Terms,
    },
    machine::{EVENT_FORMAT, Event, EventBody, Failover, Holder, LeaseTaken, Machine, RunStarted},
    secret::{RunSecrets, Secrets},
    step::{Failure, Registry, Resources, Revealed, RunInfo, Target},
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
            key.as_ref().map(|key| key.key.clone()),
        );
        let begun = self.begin(new, key, options).await;
        if let Err(error) = &begun
            && let Some(refused_by) = error.refused_by()
        {
            let (at, playbook, environment, by, key) = asked;
            let refused = RefusedStart {
                at,
                playbook,
                environment,
                by,
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
        let targets = self.identify(&new.graph, &new.targets, &secrets).await?;
        let id = uuid::Uuid::now_v7().simple().to_string();
        let short_id = id.chars().skip(id.len().saturating_sub(8)).collect();
        let digest = new
            .digest
            .unwrap_or_else(|| digest(&new.graph, &new.inputs, &targets));
        let run = RunInfo {
            id: id.clone(),
            short_id,
            playbook: new.graph.playbook.clone(),
            environment: new.environment,
            by: new.by,
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
                targets,
                approvers: new.approvers,
                secrets: secrets.names(),
                digest,
                engine: env!("CARGO_PKG_VERSION").to_owned(),
            })),
        };
        let machine = Machine::recover([&started]).map_err(|e| replay(&id, &e))?;
        let begun = self
            .0
            .journal
            .begin(&id, self.holder(), vec![started.clone()], terms)
            .await;
        let lease = begun.map_err(|refused| match (refused, &key) {
            (NotBegun::KeyUsed { first, .. }, Some(key)) => key_used(key, first),
            (NotBegun::Locked(held), _) => held.into(),
            (NotBegun::Journal(error), _) => error.into(),
            (refused @ NotBegun::KeyUsed { .. }, None) => {
                JournalError::Store(refused.to_string()).into()
            }
        })?;
        Ok(self.drive(machine, lease, secrets, options, vec![(1, started)]))
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
        // An order may open it again, and it gave its locks back when it ended.
        if machine.finished().is_some() {
            let locks = &machine.graph().policy.locks;
            self.0.journal.lock(lease.as_ref(), locks).await?;
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
        let failovers = self.failovers(&machine, &secrets).await?;
        let taken = Event {
            at: self.0.clock.now().max(machine.last_at()),
            body: EventBody::LeaseTaken(LeaseTaken {
                epoch: lease.epoch(),
                holder: self.holder(),
                failovers,
            }),
        };
        machine.apply(&taken).map_err(|e| replay(run, &e))?;
        let seq = machine.seq();
        self.0
            .journal
            .append(
                lease.as_ref(),
                seq,
                vec![taken.clone()],
                machine.state().as_str(),
            )
            .await?;
        Ok(self.drive(machine, lease, secrets, options, vec![(seq, taken)]))
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
                let version = shared.journal.version().await;
                if let Err(JournalError::Replaced { .. }) = &version {
                    // Each run finds it for itself, and stops.
                    for tx in shared.runs().values() {
                        drop(tx.send(Message::Inbox));
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
                            drop(tx.send(Message::Inbox));
                        }
                    }
                }
                drop(shared);
                clock.sleep_until(INBOX_POLL.after(clock.now())).await;
            }
        });
    }

    /// Asks every target who it is.
    async fn identify(
        &self,
        graph: &Graph,
        targets: &IndexMap<String, Target>,
        secrets: &RunSecrets,
    ) -> Result<IndexMap<String, Target>, RunError> {
        let mut known = IndexMap::new();
        for (name, target) in targets {
            let mut target = target.clone();
            target.identity = Some(self.ask(&target, secrets).await?);
            // Whose role the run itself changes has it as the run starts, and may lose it on the way; its timeline changes, too.
            if let Some(TargetDecl::Named { moves: true, .. }) = graph.targets.get(name) {
                target.role = None;
                if let Some(identity) = &mut target.identity {
                    identity.timeline = None;
                }
            }
            known.insert(name.clone(), target);
        }
        Ok(known)
    }

    async fn ask(
        &self,
        target: &Target,
        secrets: &RunSecrets,
    ) -> Result<crate::step::Identity, RunError> {
        let refused = |failure: Failure| {
            RunError::target(target, redact::failure(secrets.redactor(), failure))
        };
        let kind = self.0.registry.target(&target.kind).ok_or_else(|| {
            refused(Failure::new(
                "target.kind",
                format!("this windlass cannot reach a {}", target.kind),
            ))
        })?;
        let url = match &target.url {
            Value::Secret(secret) => secrets
                .reveal(secret, self.0.clock.now())
                .await
                .map_err(refused)?,
            plain => Revealed::new(plain.to_string()),
        };
        kind.identify(target, url.expose())
            .await
            .map(|identity| redact::identity(secrets.redactor(), identity))
            .map_err(refused)
    }

    /// Which targets were failed over since the run started. One that is another server now is refused: what was read of
    /// the first does not hold for the second.
    async fn failovers(
        &self,
        machine: &Machine,
        secrets: &RunSecrets,
    ) -> Result<IndexMap<String, Failover>, RunError> {
        let mut found = IndexMap::new();
        for target in machine.started().targets.values() {
            let Some(before) = &target.identity else {
                continue;
            };
            let now = self.ask(target, secrets).await?;
            if now.instance != before.instance || now.system != before.system {
                return Err(RunError::Target {
                    target: target.name.clone(),
                    why: format!(
                        "it is {} now, and was {} when the run started",
                        now.instance, before.instance
                    ),
                    help: Some(
                        "point the target back at the server that the run started on".to_owned(),
                    ),
                });
            }
            // A standby tells its timeline late.
            if let (Some(from), Some(to), Some("primary")) =
                (before.timeline, now.timeline, now.role.as_deref())
                && from != to
            {
                found.insert(target.name.clone(), Failover { from, to });
            }
        }
        Ok(found)
    }
}

fn replay(run: &str, error: &crate::machine::IllegalEvent) -> RunError {
    RunError::Replay {
        run: run.to_owned(),
        why: error.to_string(),
    }
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
        .flat_map(|source| [text(&source.path), text(&source.sha256)])
        .collect();
    StartOf {
        playbook: hash(&sources),
        inputs: hash(&[json(&new.inputs)]),
        place: hash(&place),
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
