//! `wait.signal`
use super::{WAITS, gives_up, timed_out, waits_on};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Cause, Failure, Fidelity, Figure, Outcome, ParamError, Preview, PreviewContext, Resume,
        Step, StepContext, StepKind, StepTraits, Wait, WaitOn, Woken, params::Text,
    },
    value::{Duration, Value},
};

/// Waits for a signal from outside: `windlass signal RUN NAME --payload JSON`.
///
/// A signal that comes before the wait is kept, and the wait takes the oldest. The wait holds no thread and no
/// connection, and survives a restart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalParams {
    /// The signal's name.
    name: Text,
    /// How long to wait before the step fails; the step's `timeout` holds too.
    expires: Option<Duration>,
}

/// What the signal brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SignalOutput {
    /// What the sender gave with it; null where there was nothing.
    payload: Value,
}

pub(crate) struct Signal(SignalParams);

impl StepKind for Signal {
    const NAME: &'static str = "wait.signal";
    const TRAITS: StepTraits = WAITS;
    const EXAMPLE: &'static str = "name: traffic_moved\nexpires: 2h\n";
    type Params = SignalParams;
    type Step = Self;

    fn retried(_: &Value) -> &'static [Cause] {
        &[Cause::Timeout]
    }

    fn prepare(params: SignalParams) -> Result<Self, Vec<ParamError>> {
        let mut errors = Vec::new();
        if params.name.trim().is_empty() {
            errors.push(ParamError::new("name", "a signal needs a name"));
        }
        if params
            .expires
            .is_some_and(|expires| expires <= Duration::ZERO)
        {
            errors.push(ParamError::new("expires", "must be longer than nothing"));
        }
        if errors.is_empty() {
            Ok(Self(params))
        } else {
            Err(errors)
        }
    }
}

impl Step for Signal {
    type Capture = ();
    type State = ();
    type Output = SignalOutput;

    fn figures(output: &SignalOutput) -> Vec<Figure> {
        if output.payload.is_null() {
            return vec![Figure::text("payload", "", "without a payload")];
        }
        vec![Figure::value("payload", "payload", &output.payload)]
    }

    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Ok(Preview::new(
            Fidelity::Simulated,
            format!("would wait for the signal {}", self.0.name.0),
        ))
    }

    async fn execute(
        &self,
        (): &(),
        resume: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<SignalOutput, ()>, Failure> {
        let expires = self
            .0
            .expires
            .map(|expires| expires.after(cx.first_started_at));
        match resume.woken {
            Some(Woken::Signal(payload)) => Ok(Outcome::Done(SignalOutput { payload })),
            Some(Woken::Deadline) if !waits_on(expires, cx) => {
                Err(
                    timed_out(cx, &format!("no signal {} came", self.0.name.0)).help(format!(
                        "send it with `windlass signal`, then `windlass retry` the step {}",
                        cx.node
                    )),
                )
            }
            Some(Woken::Deadline | Woken::Timer | Woken::Decision(_)) | None => {
                let deadline = gives_up(expires, cx);
                Ok(Outcome::Suspend {
                    state: (),
                    wait: Wait {
                        on: WaitOn::Signal(self.0.name.0.clone()),
                        deadline,
                        wall: None,
                    },
                })
            }
        }
    }
}
