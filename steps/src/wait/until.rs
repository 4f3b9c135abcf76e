//! `wait.until`
use super::{At, Goal, TimerState, WAITS, Waited, timer};
use schemars::JsonSchema;
use serde::Deserialize;
use windlass_engine::{
    step::{
        Cause, Failure, Fidelity, Figure, Outcome, ParamError, Preview, PreviewContext, Resume,
        Step, StepContext, StepKind, StepTraits,
    },
    value::{Duration, Value},
};

/// Waits until an instant.
///
/// An instant that has passed is no wait at all. The wait holds no thread and no connection, and survives a
/// restart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UntilParams {
    /// The instant, with its offset: `2026-11-20T03:00:00Z`, or an expression that gives a timestamp.
    time: At,
}

pub(crate) struct WaitUntil(UntilParams);

impl StepKind for WaitUntil {
    const NAME: &'static str = "wait.until";
    const TRAITS: StepTraits = WAITS;
    const EXAMPLE: &'static str = "time: \"2030-01-01T03:00:00Z\"\n";
    type Params = UntilParams;
    type Step = Self;

    fn retried(_: &Value) -> &'static [Cause] {
        &[Cause::Timeout]
    }

    fn prepare(params: UntilParams) -> Result<Self, Vec<ParamError>> {
        Ok(Self(params))
    }
}

impl Step for WaitUntil {
    type Capture = ();
    type State = TimerState;
    type Output = Waited;

    fn figures(output: &Waited) -> Vec<Figure> {
        let until = output.until.0.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        vec![Figure::text("until", "until", until)]
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let left = Duration::between(cx.host.now(), self.0.time.0);
        Ok(Preview::new(
            Fidelity::Simulated,
            if left > Duration::ZERO {
                format!("would wait until {}", self.0.time.0)
            } else {
                format!("would not wait: {} has passed", self.0.time.0)
            },
        ))
    }

    async fn execute(
        &self,
        (): &(),
        resume: Resume<TimerState>,
        cx: &StepContext,
    ) -> Result<Outcome<Waited, TimerState>, Failure> {
        timer(&resume, &Goal::Instant(self.0.time.0), cx)
    }
}
