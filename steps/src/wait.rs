//! `wait.for`, `wait.until`, `wait.condition`, `wait.signal`
use crate::sql::{
    self,
    params::{self as sql_params, Statement},
};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Cause, Failure, Fidelity, Outcome, ParamError, Preview, PreviewContext, Resume, Step,
        StepContext, StepKind, StepTraits, Wait, WaitOn, Woken,
        params::{Expression, SqlText, TargetName, Text},
    },
    value::{Duration, Timestamp, Value},
};

const WAITS: StepTraits = StepTraits {
    fidelity: Fidelity::Simulated,
    ..StepTraits::READ_ONLY
};

/// What a wait gives.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Waited {
    /// What a signal carried, or the last value that a condition saw.
    #[serde(default)]
    pub payload: Value,
}

fn timed_out(what: &str) -> Failure {
    Failure::new("wait.timeout", format!("{what} did not come in time")).cause(Cause::Timeout)
}

/// Suspends until an instant, and is done when it has come.
fn until(at: Timestamp, woken: Option<&Woken>) -> Result<Outcome<Waited, ()>, Failure> {
    match woken {
        Some(Woken::Timer) => Ok(Outcome::Done(Waited::default())),
        Some(Woken::Deadline | Woken::Signal(_) | Woken::Decision(_)) => Err(timed_out("the time")),
        None => Ok(Outcome::Suspend {
            state: (),
            wait: Wait {
                on: WaitOn::Timer(at),
                deadline: None,
            },
        }),
    }
}

/// Waits for a length of time. Survives a restart; holds no thread.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForParams {
    /// How long.
    pub duration: Duration,
}
/// The kind `wait.for`.
pub struct For;
/// A prepared wait.
pub struct ForStep(ForParams);

impl StepKind for For {
    const NAME: &'static str = "wait.for";
    const TRAITS: StepTraits = WAITS;
    const EXAMPLE: &'static str = "duration: 5m\n";
    type Params = ForParams;
    type Step = ForStep;
    fn prepare(params: ForParams) -> Result<ForStep, Vec<ParamError>> {
        if params.duration < Duration::ZERO {
            return Err(vec![ParamError::new(
                "duration",
                "a wait cannot be negative",
            )]);
        }
        Ok(ForStep(params))
    }
}

impl Step for ForStep {
    type Capture = ();
    type State = ();
    type Output = Waited;
    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Ok(Preview::new(
            Fidelity::Simulated,
            format!("waits {}", self.0.duration),
        ))
    }
    async fn execute(
        &self,
        (): &(),
        resume: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<Waited, ()>, Failure> {
        until(
            self.0.duration.after(cx.first_started_at),
            resume.woken.as_ref(),
        )
    }
}

/// Waits until an instant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UntilParams {
    /// The instant, in RFC 3339.
    pub time: Text,
}
/// The kind `wait.until`.
pub struct Until;
/// A prepared wait.
pub struct UntilStep(Timestamp);

impl StepKind for Until {
    const NAME: &'static str = "wait.until";
    const TRAITS: StepTraits = WAITS;
    const EXAMPLE: &'static str = "time: \"2026-12-01T02:00:00Z\"\n";
    type Params = UntilParams;
    type Step = UntilStep;
    fn prepare(params: UntilParams) -> Result<UntilStep, Vec<ParamError>> {
        params.time.parse().map(UntilStep).map_err(|_| {
            vec![
                ParamError::new("time", format!("{:?} is not a time", params.time.0))
                    .help("write it as 2026-12-01T02:00:00Z"),
            ]
        })
    }
}

impl Step for UntilStep {
    type Capture = ();
    type State = ();
    type Output = Waited;
    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Ok(Preview::new(
            Fidelity::Simulated,
            format!("waits until {}", self.0),
        ))
    }
    async fn execute(
        &self,
        (): &(),
        resume: Resume<()>,
        _: &StepContext,
    ) -> Result<Outcome<Waited, ()>, Failure> {
        until(self.0, resume.woken.as_ref())
    }
}

/// Waits for a signal from outside (`windlass signal RUN NAME`). One that came early is kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalParams {
    /// The signal's name.
    pub name: Text,
    /// When to give up; without it, by the step's timeout.
    #[serde(default)]
    pub expires: Option<Duration>,
}
/// The kind `wait.signal`.
pub struct Signal;
/// A prepared wait.
pub struct SignalStep(SignalParams);

impl StepKind for Signal {
    const NAME: &'static str = "wait.signal";
    const TRAITS: StepTraits = WAITS;
    const EXAMPLE: &'static str = "name: traffic-drained\nexpires: 30m\n";
    type Params = SignalParams;
    type Step = SignalStep;
    fn prepare(params: SignalParams) -> Result<SignalStep, Vec<ParamError>> {
        Ok(SignalStep(params))
    }
}

impl Step for SignalStep {
    type Capture = ();
    type State = ();
    type Output = Waited;
    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Ok(Preview::new(
            Fidelity::Simulated,
            format!("waits for the signal {}", self.0.name.0),
        ))
    }
    async fn execute(
        &self,
        (): &(),
        resume: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<Waited, ()>, Failure> {
        match resume.woken {
            Some(Woken::Signal(payload)) => Ok(Outcome::Done(Waited { payload })),
            Some(Woken::Timer | Woken::Deadline | Woken::Decision(_)) => {
                Err(timed_out(&format!("the signal {}", self.0.name.0)))
            }
            None => Ok(Outcome::Suspend {
                state: (),
                wait: Wait {
                    on: WaitOn::Signal(self.0.name.0.clone()),
                    deadline: self.0.expires.map(|d| d.after(cx.first_started_at)),
                },
            }),
        }
    }
}

/// Asks a target again and again until a condition holds. Only reads, and writes nothing down meanwhile.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConditionParams {
    /// Where.
    pub target: TargetName,
    /// One statement that reads.
    pub sql: SqlText,
    /// Values for `:name`.
    #[serde(default)]
    pub params: IndexMap<String, Value>,
    /// The condition, over `value`, `row`, `rows` and `row_count`.
    #[schemars(extend("x-windlass-names" = ["value", "row", "rows", "row_count"]))]
    pub until: Expression,
    /// How long between two looks.
    #[serde(default = "every")]
    pub every: Duration,
}

fn every() -> Duration {
    Duration::from_secs(5)
}

/// The kind `wait.condition`.
pub struct Condition;
/// A prepared wait.
pub struct ConditionStep(ConditionParams, Statement);

impl StepKind for Condition {
    const NAME: &'static str = "wait.condition";
    const TRAITS: StepTraits = WAITS;
    const EXAMPLE: &'static str = "target: shop\nsql: SELECT count(*) FROM jobs WHERE done = 0\nuntil: value == 0\nevery: 5s\n";
    type Params = ConditionParams;
    type Step = ConditionStep;
    fn prepare(params: ConditionParams) -> Result<ConditionStep, Vec<ParamError>> {
        let mut statements = sql_params::parse(&params.sql);
        let mut errors = sql_params::check(&statements, &params.params);
        if statements.len() != 1 {
            errors.push(ParamError::new("sql", "one statement is needed"));
        }
        if params.every < Duration::from_millis(100) {
            errors.push(ParamError::new("every", "100ms is the shortest"));
        }
        match statements.pop() {
            Some(statement) if errors.is_empty() => Ok(ConditionStep(params, statement)),
            _ => Err(errors),
        }
    }
}

impl Step for ConditionStep {
    type Capture = ();
    type State = ();
    type Output = Waited;
    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Ok(Preview::new(
            Fidelity::Simulated,
            format!(
                "asks every {} until {}",
                self.0.every,
                self.0.until.0.source()
            ),
        )
        .line("sql", self.1.text().trim()))
    }
    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<Waited, ()>, Failure> {
        loop {
            let rows = sql::read(cx, &self.0.target, &self.1, &self.0.params, 1_000).await?;
            let vars = sql::vars(&rows);
            let payload = vars.get("value").cloned().unwrap_or_default();
            let holds = cx.evaluate(&self.0.until.0, vars).map_err(|error| {
                Failure::new("wait.condition", format!("until: {}", error.message))
            })?;
            match holds {
                Value::Bool(true) => return Ok(Outcome::Done(Waited { payload })),
                Value::Bool(false) => {}
                other => {
                    return Err(Failure::new(
                        "wait.condition",
                        format!("until is {other}, not true or false"),
                    ));
                }
            }
            if cx.remaining() == Some(Duration::ZERO) {
                return Err(timed_out("the condition").output(Value::map([("last", payload)])));
            }
            cx.host
                .sleep(
                    cx.remaining()
                        .map_or(self.0.every, |left| left.min(self.0.every)),
                )
                .await;
            if cx.cancel.is_cancelled() {
                return Err(Failure::new("wait.cancelled", "cancelled while it waited")
                    .cause(Cause::Cancelled));
            }
        }
    }
}
