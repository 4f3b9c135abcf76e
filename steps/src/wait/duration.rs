//! `wait.for`
use super::{Goal, TimerState, WAITS, Waited, timer};
use schemars::JsonSchema;
use serde::Deserialize;
use windlass_engine::{
    step::{
        Cause, Failure, Fidelity, Outcome, ParamError, Preview, PreviewContext, Resume, Step,
        StepContext, StepKind, StepTraits,
    },
    value::{Duration, Value},
};

/// Waits for a span of time.
///
/// The wait holds no thread and no connection, and survives a restart: it ends at the instant that was
/// fixed when it began, not later because of a crash.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForParams {
    /// How long.
    duration: Duration,
}

pub(crate) struct For(ForParams);

impl StepKind for For {
    const NAME: &'static str = "wait.for";
    const TRAITS: StepTraits = WAITS;
    const EXAMPLE: &'static str = "duration: 10m\n";
    type Params = ForParams;
    type Step = Self;

    fn retried(_: &Value) -> &'static [Cause] {
        &[Cause::Timeout]
    }

    fn prepare(params: ForParams) -> Result<Self, Vec<ParamError>> {
        if params.duration < Duration::ZERO {
            return Err(vec![ParamError::new(
                "duration",
                "a wait cannot be shorter than nothing",
            )]);
        }
        Ok(Self(params))
    }
}

impl Step for For {
    type Capture = ();
    type State = TimerState;
    type Output = Waited;

    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Ok(Preview::new(
            Fidelity::Simulated,
            format!("would wait {}", self.0.duration),
        ))
    }

    async fn execute(
        &self,
        (): &(),
        resume: Resume<TimerState>,
        cx: &StepContext,
    ) -> Result<Outcome<Waited, TimerState>, Failure> {
        timer(&resume, &Goal::Span(self.0.duration), cx)
    }
}
