use super::{Cause, Failure, Figure, PreviewContext, StepContext, Wait, Woken};
use crate::value::{Duration, Value, from_value, to_value};
use futures_util::future::BoxFuture;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{future::Future, sync::Arc};

/// What a step does to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Only reads.
    ReadOnly,
    /// Writes.
    Writes,
    /// Removes what cannot be brought back.
    Destroys,
}

/// What recovery does with a step that had started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Redo {
    /// Run it again: twice is as good as once.
    Repeatable,
    /// Ask [`Step::probe`] first.
    ProbeFirst,
    /// Ask a person.
    AskOperator,
}

/// What the kind itself can do to undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UndoSupport {
    /// [`Step::undo`] restores what [`Step::capture`] read: the default of the step is `undo: auto`.
    Auto,
    /// There is nothing to undo.
    None,
    /// It cannot be undone unless the playbook says how.
    Impossible,
}

/// How a preview knows what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fidelity {
    /// It really ran, read-only.
    Executed,
    /// It ran in a transaction and was rolled back.
    RolledBack,
    /// The target was asked what it would cost.
    Estimated,
    /// The resource as it is, beside the resource as it would be.
    Compared,
    /// Worked out without the target.
    Simulated,
    /// Not known.
    Unknown,
}

/// What holds for every step of a kind, or of a kind with these literal parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepTraits {
    /// What it does to its target.
    pub effect: Effect,
    /// What recovery does with it.
    pub redo: Redo,
    /// Whether it calls [`StepContext::point_of_no_return`] before the act. Without, *started* is the mark.
    pub marks: bool,
    /// Whether [`Step::capture`] reads anything; where false it is not called.
    pub captures: bool,
    /// How it is undone.
    pub undo: UndoSupport,
    /// The best that its preview can do.
    pub fidelity: Fidelity,
    /// Whether `windlass skip` may pass over it (`approval` and `verify`: no).
    pub skippable: bool,
}

impl StepTraits {
    /// A kind that only reads.
    pub const READ_ONLY: Self = Self {
        effect: Effect::ReadOnly,
        redo: Redo::Repeatable,
        marks: false,
        captures: false,
        undo: UndoSupport::None,
        fidelity: Fidelity::Executed,
        skippable: true,
    };
}

/// Which of a step's two executions.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Forward.
    Do,
    /// Compensation.
    Undo,
}

/// Journalled just before the act that cannot be taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// What [`Step::probe`] needs to ask whether the act happened.
    pub token: Value,
    /// What undo needs, where it is read inside the transaction; replaces an earlier capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Value>,
    /// The output, should the act turn out to have happened.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
}

/// With what an execution goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume<S> {
    /// The last checkpoint, or the default where there is none.
    pub state: S,
    /// Whether there was a checkpoint.
    pub resumed: bool,
    /// What woke it, where it was suspended.
    pub woken: Option<Woken>,
}

/// How an execution ends when it does not fail.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<O, S> {
    /// It is done.
    Done(O),
    /// It keeps this state and is called again at once.
    Checkpoint(S),
    /// It keeps this state and is called again when woken.
    Suspend {
        /// What to keep.
        state: S,
        /// What wakes it.
        wait: Wait,
    },
}

/// The answer of a probe.
#[derive(Debug, Clone, PartialEq)]
pub enum Probed<O> {
    /// It happened; the output where it is known (else the mark's).
    Done(Option<O>),
    /// It did not happen, and cannot happen any more.
    NotDone,
    /// It cannot be told, and why.
    InDoubt(String),
    /// The target has it, and the history of this run does not say how: a person may only settle it as done. Why.
    Unexplained(String),
}

/// What a step would do, for `windlass plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// How the preview knows.
    pub fidelity: Fidelity,
    /// One line: what would happen.
    pub summary: String,
    /// More lines: bound SQL, lock mode, rows, URLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<PreviewLine>,
    /// The output, where the step really ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Facts that go into the plan's digest (not estimates, not values read).
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub binding: Value,
    /// Names of secrets that it would use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// How long an attempt takes at most where the step has no `timeout`; `None` is without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_within: Option<Duration>,
}

impl Preview {
    /// A preview of one line.
    pub fn new(fidelity: Fidelity, summary: impl Into<String>) -> Self {
        Self {
            fidelity,
            summary: summary.into(),
            lines: Vec::new(),
            output: None,
            binding: Value::Null,
            secrets: Vec::new(),
            ends_within: None,
        }
    }

    /// With one more line.
    #[must_use]
    pub fn line(mut self, label: impl Into<String>, text: impl Into<String>) -> Self {
        self.lines.push(PreviewLine {
            label: label.into(),
            text: text.into(),
        });
        self
    }
}

/// One labelled line of a preview (`sql`, `lock`, `rows`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewLine {
    /// What it is.
    pub label: String,
    /// The text; may have several lines.
    pub text: String,
}

/// A parameter that is well-typed and still wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamError {
    /// Path within `with`, such as `checks[1].expect`; empty for the whole.
    pub path: String,
    /// What is wrong, lower case, without a full stop.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl ParamError {
    /// An error at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            help: None,
        }
    }

    /// With help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A kind of step: its name, its parameters, what holds for all of them.
///
/// The doc comment of `Params` is the kind's page in `windlass steps KIND`, its fields' comments the
/// descriptions in the schema.
pub trait StepKind: 'static {
    /// `sql.execute`.
    const NAME: &'static str;
    /// What holds for every step of this kind.
    const TRAITS: StepTraits;
    /// An example of `with` (YAML), shown on the kind's page and compiled in the tests.
    const EXAMPLE: &'static str;
    /// What `with` holds; `deny_unknown_fields`.
    type Params: DeserializeOwned + JsonSchema;
    /// The step.
    type Step: Step;

    /// Pure: no I/O, no clock, no environment.
    ///
    /// # Errors
    /// All that is wrong with the parameters beyond their types.
    fn prepare(params: Self::Params) -> Result<Self::Step, Vec<ParamError>>;

    /// What holds for a step with these parameters; only their literal parts are there.
    #[must_use]
    fn traits(with: &Value) -> StepTraits {
        let _ = with;
        Self::TRAITS
    }

    /// Causes of its failures after which another attempt is clean: nothing happened, or running it twice is as good as
    /// once. `validate` warns of a `retry` that covers none of them.
    #[must_use]
    fn retried(with: &Value) -> &'static [Cause] {
        let _ = with;
        Cause::OF_SERVERS
    }
}

/// One step, prepared.
pub trait Step: Send + Sync + 'static {
    /// What undo needs; `()` where [`StepTraits::captures`] is false.
    type Capture: Serialize + DeserializeOwned + Default + Send + Sync;
    /// What a step that waits or checkpoints keeps.
    type State: Serialize + DeserializeOwned + Default + Send + Sync;
    /// What expressions read as `steps.ID.output`.
    type Output: Serialize + DeserializeOwned + JsonSchema + Send + Sync;

    /// What it did, from its output or from what it had seen when it failed, in the order in which people read it.
    #[must_use]
    fn figures(output: &Self::Output) -> Vec<Figure> {
        let _ = output;
        Vec::new()
    }

    /// Dry run. Reads only, and says how it knows.
    fn preview(&self, cx: &PreviewContext)
    -> impl Future<Output = Result<Preview, Failure>> + Send;

    /// Reads what undo will need; journalled before `execute` starts.
    fn capture(
        &self,
        cx: &StepContext,
    ) -> impl Future<Output = Result<Self::Capture, Failure>> + Send {
        let _ = cx;
        async { Ok(Self::Capture::default()) }
    }

    /// Acts.
    fn execute(
        &self,
        capture: &Self::Capture,
        resume: Resume<Self::State>,
        cx: &StepContext,
    ) -> impl Future<Output = Result<Outcome<Self::Output, Self::State>, Failure>> + Send;

    /// After a crash or an unknown failure: did it happen? "Not done" only where it cannot happen any more, and "in doubt"
    /// only once nothing of it runs any more: the playbook's own probe is asked then. Else an error.
    fn probe(
        &self,
        capture: &Self::Capture,
        mark: Option<&Mark>,
        cx: &StepContext,
    ) -> impl Future<Output = Result<Probed<Self::Output>, Failure>> + Send {
        let _ = (capture, mark, cx);
        async { Ok(Probed::InDoubt("this kind of step cannot tell".to_owned())) }
    }

    /// Restores what `capture` read. Twice is as good as once.
    fn undo(
        &self,
        capture: &Self::Capture,
        done: Option<&Self::Output>,
        resume: Resume<Self::State>,
        cx: &StepContext,
    ) -> impl Future<Output = Result<Outcome<(), Self::State>, Failure>> + Send {
        let _ = (capture, done, resume, cx);
        async {
            Err(Failure::new(
                "step.no_undo",
                "this kind of step has no undo of its own",
            ))
        }
    }
}

type Prepare = fn(&Value) -> Result<Arc<dyn DynStep>, Vec<ParamError>>;

/// A step kind with its types erased.
#[derive(Clone)]
pub struct Kind {
    /// `sql.execute`.
    pub name: &'static str,
    /// What holds for every step of this kind.
    pub traits: StepTraits,
    /// An example of `with`.
    pub example: &'static str,
    /// JSON Schema of `with`.
    pub params_schema: fn() -> serde_json::Value,
    /// JSON Schema of the output.
    pub output_schema: fn() -> serde_json::Value,
    /// What holds for a step with these parameters.
    pub traits_of: fn(&Value) -> StepTraits,
    /// See [`StepKind::retried`].
    pub retried: fn(&Value) -> &'static [Cause],
    /// See [`Step::figures`]; nothing where this is no output of the kind.
    pub figures: fn(&Value) -> Vec<Figure>,
    /// Reads parameters and prepares a step.
    pub prepare: Prepare,
}

impl Kind {
    /// Erases a kind.
    #[must_use]
    pub fn of<K: StepKind>() -> Self {
        Self {
            name: K::NAME,
            traits: K::TRAITS,
            example: K::EXAMPLE,
            params_schema: schema_of::<K::Params>,
            output_schema: schema_of::<<K::Step as Step>::Output>,
            traits_of: K::traits,
            retried: K::retried,
            figures: figures::<K>,
            prepare: prepare::<K>,
        }
    }
}

fn schema_of<T: JsonSchema>() -> serde_json::Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    SchemaGenerator::new(settings)
        .into_root_schema_for::<T>()
        .to_value()
}

fn prepare<K: StepKind>(with: &Value) -> Result<Arc<dyn DynStep>, Vec<ParamError>> {
    let params = from_value::<K::Params>(with)
        .map_err(|error| vec![ParamError::new("", error.to_string())])?;
    Ok(Arc::new(K::prepare(params)?))
}

/// Of an output that a person gave there may be none.
fn figures<K: StepKind>(output: &Value) -> Vec<Figure> {
    from_value::<<K::Step as Step>::Output>(output)
        .map(|output| K::Step::figures(&output))
        .unwrap_or_default()
}

/// A prepared step with its types erased; values in and out are those of the journal.
pub trait DynStep: Send + Sync {
    /// See [`Step::preview`].
    fn preview<'a>(&'a self, cx: &'a PreviewContext) -> BoxFuture<'a, Result<Preview, Failure>>;
    /// See [`Step::capture`].
    fn capture<'a>(&'a self, cx: &'a StepContext) -> BoxFuture<'a, Result<Value, Failure>>;
    /// See [`Step::execute`].
    fn execute<'a>(
        &'a self,
        capture: &'a Value,
        resume: Resume<Value>,
        cx: &'a StepContext,
    ) -> BoxFuture<'a, Result<Outcome<Value, Value>, Failure>>;
    /// See [`Step::probe`].
    fn probe<'a>(
        &'a self,
        capture: &'a Value,
        mark: Option<&'a Mark>,
        cx: &'a StepContext,
    ) -> BoxFuture<'a, Result<Probed<Value>, Failure>>;
    /// See [`Step::undo`].
    fn undo<'a>(
        &'a self,
        capture: &'a Value,
        done: Option<&'a Value>,
        resume: Resume<Value>,
        cx: &'a StepContext,
    ) -> BoxFuture<'a, Result<Outcome<Value, Value>, Failure>>;
    /// Whether this value could be the step's output (`windlass resolve --output`).
    ///
    /// # Errors
    /// What does not fit.
    fn check_output(&self, output: &Value) -> Result<(), String>;
}

fn stored<T: DeserializeOwned + Default>(what: &str, value: &Value) -> Result<T, Failure> {
    if value.is_null() {
        return Ok(T::default());
    }
    from_value(value).map_err(|error| {
        Failure::new(
            "step.stored_format",
            format!("the journal's {what} of this step cannot be read: {error}"),
        )
    })
}

fn kept<T: Serialize>(what: &str, typed: &T) -> Result<Value, Failure> {
    // The act may have happened by now, hence not "no effect".
    to_value(typed).map_err(|error| {
        Failure::new(
            "step.stored_format",
            format!("the {what} of this step cannot be written: {error}"),
        )
        .certainty(super::Certainty::Unknown)
    })
}

fn resume_with<S: DeserializeOwned + Default>(resume: Resume<Value>) -> Result<Resume<S>, Failure> {
    Ok(Resume {
        state: stored("state", &resume.state)?,
        resumed: resume.resumed,
        woken: resume.woken,
    })
}

fn outcome<O: Serialize, S: Serialize>(
    outcome: &Outcome<O, S>,
) -> Result<Outcome<Value, Value>, Failure> {
    Ok(match outcome {
        Outcome::Done(output) => Outcome::Done(kept("output", output)?),
        Outcome::Checkpoint(state) => Outcome::Checkpoint(kept("state", state)?),
        Outcome::Suspend { state, wait } => Outcome::Suspend {
            state: kept("state", state)?,
            wait: wait.clone(),
        },
    })
}

impl<S: Step> DynStep for S {
    fn preview<'a>(&'a self, cx: &'a PreviewContext) -> BoxFuture<'a, Result<Preview, Failure>> {
        Box::pin(Step::preview(self, cx))
    }

    fn capture<'a>(&'a self, cx: &'a StepContext) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async move { kept("capture", &Step::capture(self, cx).await?) })
    }

    fn execute<'a>(
        &'a self,
        capture: &'a Value,
        resume: Resume<Value>,
        cx: &'a StepContext,
    ) -> BoxFuture<'a, Result<Outcome<Value, Value>, Failure>> {
        Box::pin(async move {
            let capture = stored("capture", capture)?;
            outcome(&Step::execute(self, &capture, resume_with(resume)?, cx).await?)
        })
    }

    fn probe<'a>(
        &'a self,
        capture: &'a Value,
        mark: Option<&'a Mark>,
        cx: &'a StepContext,
    ) -> BoxFuture<'a, Result<Probed<Value>, Failure>> {
        Box::pin(async move {
            let capture = stored("capture", capture)?;
            Ok(match Step::probe(self, &capture, mark, cx).await? {
                Probed::Done(Some(output)) => Probed::Done(Some(kept("output", &output)?)),
                Probed::Done(None) => Probed::Done(None),
                Probed::NotDone => Probed::NotDone,
                Probed::InDoubt(why) => Probed::InDoubt(why),
                Probed::Unexplained(why) => Probed::Unexplained(why),
            })
        })
    }

    fn undo<'a>(
        &'a self,
        capture: &'a Value,
        done: Option<&'a Value>,
        resume: Resume<Value>,
        cx: &'a StepContext,
    ) -> BoxFuture<'a, Result<Outcome<Value, Value>, Failure>> {
        Box::pin(async move {
            let capture = stored("capture", capture)?;
            let done = done
                .map(from_value::<S::Output>)
                .transpose()
                .map_err(|error| {
                    Failure::new(
                        "step.stored_format",
                        format!("the output of this step cannot be read: {error}"),
                    )
                })?;
            outcome(&Step::undo(self, &capture, done.as_ref(), resume_with(resume)?, cx).await?)
        })
    }

    fn check_output(&self, output: &Value) -> Result<(), String> {
        from_value::<S::Output>(output)
            .map(drop)
            .map_err(|error| error.to_string())
    }
}
