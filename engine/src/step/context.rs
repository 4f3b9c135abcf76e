use super::{Account, Failure, Identity, Mark, Phase, Target, shown};
use crate::{
    expr::{Expr, ExprError, Vars},
    value::{Duration, SecretText, Timestamp, Value},
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// What every step may know about its run; expressions read it as `run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The run's id.
    pub id: String,
    /// Its last eight characters.
    pub short_id: String,
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
    /// The run's page, where a server shows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl RunInfo {
    /// Who started it, as people read it.
    #[must_use]
    pub fn starter(&self) -> String {
        shown(&self.by, self.account.as_ref())
    }

    /// What `run` reads in expressions.
    #[must_use]
    pub fn view(&self, outcome: Value, failed: Value) -> Value {
        Value::map([
            ("id", Value::from(self.id.as_str())),
            ("short_id", Value::from(self.short_id.as_str())),
            ("url", self.url.as_deref().map_or(Value::Null, Value::from)),
            ("by", Value::from(self.by.as_str())),
            ("playbook", Value::from(self.playbook.as_str())),
            ("environment", Value::from(self.environment.as_str())),
            ("started_at", Value::Timestamp(self.started_at)),
            ("outcome", outcome),
            ("failed", failed),
        ])
    }
}

/// Something that a run keeps to prove what it saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What it is: `stdout`, `rows`.
    pub name: String,
    /// Media type, such as `text/plain`.
    pub media_type: String,
    /// The content, cut to the step's cap.
    pub content: Value,
    /// Its full size in bytes before it was cut.
    pub size: u64,
    /// Whether it was cut.
    pub truncated: bool,
}

impl Evidence {
    /// The name of that a target was failed over since the run started; it is told as the step ends.
    pub const FAILOVER: &'static str = "failover";

    /// That a target was failed over since the run started, by its timelines.
    #[must_use]
    pub fn failover(target: &str, from: u32, to: u32) -> Self {
        let text = failed_over(target, from, to);
        Self {
            name: Self::FAILOVER.to_owned(),
            media_type: "text/plain".to_owned(),
            size: text.len() as u64,
            content: Value::from(text),
            truncated: false,
        }
    }
}

/// What it means for a run that a target was failed over since the run started.
pub fn failed_over(target: &str, from: u32, to: u32) -> String {
    format!(
        "{target} was failed over since the run started (timeline {from} then, {to} now): what the run committed before \
         may not have reached the new primary"
    )
}

/// Where a step printed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The standard output of a program.
    Stdout,
    /// The standard error of a program.
    Stderr,
    /// What a database server told beside its answer: a notice, a warning.
    Notice,
    /// What a service answered.
    Answer,
}

impl Stream {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Notice => "notice",
            Self::Answer => "answer",
        }
    }
}

tokio::task_local! {
    /// The step that runs in this task.
    static STEP: Arc<dyn StepHost>;
}

/// Runs a step so that [`overheard`] knows it.
pub(crate) async fn speaking<T>(host: Arc<dyn StepHost>, step: impl Future<Output = T>) -> T {
    STEP.scope(host, step).await
}

/// As [`StepHost::print`], for what reaches a kind by a way that knows no step, such as the log of a driver: it is printed by
/// the step whose task this is, and by none where there is none.
pub fn overheard(stream: Stream, text: &str) {
    // Outside of a step nobody asked for it.
    STEP.try_with(|host| host.print(stream, text)).ok();
}

/// A secret's content, or text with secrets put in. Never printed.
#[derive(Clone)]
pub struct Revealed(String);

impl Revealed {
    /// Wraps content.
    #[must_use]
    pub fn new(content: String) -> Self {
        Self(content)
    }
    /// The content, for the driver of a target or the environment of a process.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revealed(…)")
    }
}

/// Something that step kinds share for the life of the process, such as open connections.
pub trait Resource: Any + Send + Sync {
    /// Called several times a second while there are runs: lets go of what was not used for a while.
    fn tidy(&self) {}
}

/// What step kinds share for the life of the process, by type.
#[derive(Default)]
pub struct Resources(Mutex<HashMap<TypeId, Arc<dyn Resource>>>);

impl Resources {
    /// The one value of this type, made on first use.
    pub fn get<T: Resource + Default>(&self) -> Arc<T> {
        let shared: Arc<dyn Any + Send + Sync> = self
            .lock()
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Arc::new(T::default()))
            .clone();
        shared.downcast().unwrap_or_default()
    }

    /// Lets go of what was not used for a while.
    pub fn tidy(&self) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        for resource in all {
            resource.tidy();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TypeId, Arc<dyn Resource>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the driver provides to a step. Steps use [`StepContext`] and [`PreviewContext`].
pub trait StepHost: Send + Sync {
    /// Journals a mark; durable when it returns.
    fn mark(&self, mark: Mark) -> BoxFuture<'_, Result<(), Failure>>;
    /// Journals a checkpoint without leaving the step.
    fn progress(&self, state: Value) -> BoxFuture<'_, Result<(), Failure>>;
    /// Evaluates a bare expression of the step's parameters; `extra` are the names that the kind adds.
    fn evaluate(&self, expr: &Expr, extra: Vars) -> Result<Value, ExprError>;
    /// A declared target that this step names.
    fn target(&self, name: &str) -> Result<Target, Failure>;
    /// Who answered at a target, before the step acts on it. A target that the run has not met yet is bound to this, durably;
    /// a server that is not the one that the run knows is refused.
    ///
    /// Every kind that connects to a target says so: a run may go on while a target is down, so nothing else compares it.
    fn met<'a>(
        &'a self,
        target: &'a Target,
        who: &'a Identity,
    ) -> BoxFuture<'a, Result<(), Failure>>;
    /// The content of secrets.
    fn reveal<'a>(&'a self, secret: &'a SecretText) -> BoxFuture<'a, Result<Revealed, Failure>>;
    /// The time of the run: it never steps, and is never before the run's last event.
    fn now(&self) -> Timestamp;
    /// When an instant that people name is in the time of the run, as the wall clock stands now: the same instant, unless
    /// somebody has set the clock.
    fn of_wall(&self, at: Timestamp) -> Timestamp;
    /// Sleeps; ends early when the step is cancelled.
    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()>;
    /// Keeps evidence with the event that ends this execution.
    fn keep(&self, evidence: Evidence);
    /// Keeps what a program or a server printed, for `windlass logs`: soon, without the content of secrets, and within a
    /// cap. Never fails, and never slows the step by more than reading the text.
    fn print(&self, stream: Stream, text: &str);
    /// A text without the content of secrets. What is taken apart for a message passes here before: of a piece nobody can tell.
    fn clean(&self, text: String) -> String;
    /// What kinds share.
    fn resources(&self) -> &Resources;
}

/// What an undo takes back: a forward action of which the step itself, or a probe, found that it took effect.
#[derive(Debug, Clone)]
pub struct Undoes {
    /// The attempt that took effect.
    pub attempt: u32,
    /// What it had written down before it acted.
    pub mark: Mark,
    /// The targets that it named, as they were bound then.
    pub targets: Vec<Target>,
}

impl Undoes {
    /// Whether the forward action named this target, and it is the same place still.
    #[must_use]
    pub fn named(&self, target: &Target) -> bool {
        self.targets
            .iter()
            .any(|acted| acted.name == target.name && acted.is_written_as(target))
    }
}

/// What a step sees while it acts.
pub struct StepContext {
    /// The run.
    pub run: RunInfo,
    /// The digest of the approved plan, or of the graph where there was no plan.
    pub digest: String,
    /// The node's path, such as `fill[17]/copy`.
    pub node: Arc<str>,
    /// Forward or undo.
    pub phase: Phase,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The last attempt of this phase that the journal knows to have taken effect; 0 if none. What a target says of a later one
    /// comes from a history that the journal has lost.
    pub done_attempt: u32,
    /// In an undo, the forward action that it takes back; none where that left no mark, or where a person settled it.
    pub undoes: Option<Undoes>,
    /// When the first attempt of this execution started.
    pub first_started_at: Timestamp,
    /// When this attempt is over; a statement must end on the server by then.
    pub deadline: Option<Timestamp>,
    /// Cancelled when the step must end what it does on the server and return.
    pub cancel: CancellationToken,
    /// What the driver provides.
    pub host: Arc<dyn StepHost>,
}

impl StepContext {
    /// Journals a mark, durably, just before the act that cannot be taken back. Where this fails, do not act.
    ///
    /// # Errors
    /// Where the journal refuses: the run has another driver now, or the disk is full.
    pub async fn point_of_no_return(&self, mark: Mark) -> Result<(), Failure> {
        self.host.mark(mark).await
    }

    /// Journals a checkpoint without leaving the step.
    ///
    /// # Errors
    /// Where the journal refuses.
    pub async fn progress(&self, state: &impl Serialize) -> Result<(), Failure> {
        let state = crate::value::to_value(state)
            .map_err(|error| Failure::new("step.stored_format", error.to_string()))?;
        self.host.progress(state).await
    }

    /// Evaluates a bare expression of the parameters, with names that the kind adds.
    ///
    /// # Errors
    /// Where the expression fails.
    pub fn evaluate(&self, expr: &Expr, extra: Vars) -> Result<Value, ExprError> {
        self.host.evaluate(expr, extra)
    }

    /// A target by the name that the parameters hold.
    ///
    /// # Errors
    /// Where this step may not use it.
    pub fn target(&self, name: &str) -> Result<Target, Failure> {
        self.host.target(name)
    }

    /// Keeps what a program or a server printed, for `windlass logs`.
    pub fn print(&self, stream: Stream, text: &str) {
        self.host.print(stream, text);
    }

    /// The text of a value with its secrets revealed; only for the moment of use.
    ///
    /// # Errors
    /// Where a provider does not have the secret.
    pub async fn reveal(&self, value: &Value) -> Result<Revealed, Failure> {
        reveal(self.host.as_ref(), value).await
    }

    /// The time of the run, by which spans are measured.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.host.now()
    }

    /// When an instant that people name is in the time of the run, as the wall clock stands now. What waits for one says so by
    /// [`super::Wait::wall`], and asks again when it is woken.
    #[must_use]
    pub fn of_wall(&self, at: Timestamp) -> Timestamp {
        self.host.of_wall(at)
    }

    /// Time left for this attempt; `None` is without end.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| Duration::between(self.now(), deadline).max(Duration::ZERO))
    }
}

/// What a step sees in a dry run. Nothing here writes.
pub struct PreviewContext {
    /// The digest's inputs, for text that a step shows.
    pub run: RunInfo,
    /// The node's path in the plan.
    pub node: Arc<str>,
    /// Whether DML may run in a transaction that is rolled back (`--rehearse`).
    pub rehearse: bool,
    /// Cancelled when the user interrupts.
    pub cancel: CancellationToken,
    /// What the planner provides; marks, progress and evidence are refused.
    pub host: Arc<dyn StepHost>,
}

impl PreviewContext {
    /// A target by the name that the parameters hold.
    ///
    /// # Errors
    /// Where this step may not use it.
    pub fn target(&self, name: &str) -> Result<Target, Failure> {
        self.host.target(name)
    }

    /// The text of a value with its secrets revealed; only to connect.
    ///
    /// # Errors
    /// Where a provider does not have the secret.
    pub async fn reveal(&self, value: &Value) -> Result<Revealed, Failure> {
        reveal(self.host.as_ref(), value).await
    }
}

async fn reveal(host: &dyn StepHost, value: &Value) -> Result<Revealed, Failure> {
    if let Value::Secret(secret) = value {
        host.reveal(secret).await
    } else {
        Ok(Revealed::new(value.to_string()))
    }
}
