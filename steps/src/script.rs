//! `script`
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    expr::Vars,
    step::{
        Failure, Fidelity, Outcome, ParamError, Preview, PreviewContext, Resume, Step, StepContext,
        StepKind, StepTraits, params::Expression,
    },
    value::Value,
};

/// Computes a value from inputs and outputs of earlier steps. Pure: no target, no clock.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptParams {
    /// A bare expression; see `windlass explain expressions`.
    pub code: Expression,
}

/// What a script computed.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ScriptOutput {
    /// The value of the expression.
    pub value: Value,
}

/// The kind `script`.
pub struct Script;
/// A prepared script.
pub struct ScriptStep(ScriptParams);

impl StepKind for Script {
    const NAME: &'static str = "script";
    const TRAITS: StepTraits = StepTraits {
        fidelity: Fidelity::Simulated,
        ..StepTraits::READ_ONLY
    };
    const EXAMPLE: &'static str = "code: 1 + 1\n";
    type Params = ScriptParams;
    type Step = ScriptStep;
    fn prepare(params: ScriptParams) -> Result<ScriptStep, Vec<ParamError>> {
        Ok(ScriptStep(params))
    }
}

impl Step for ScriptStep {
    type Capture = ();
    type State = ();
    type Output = ScriptOutput;

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let mut preview = Preview::new(Fidelity::Simulated, "computes a value")
            .line("code", self.0.code.0.source());
        if let Ok(value) = cx.host.evaluate(&self.0.code.0, Vars::new()) {
            preview.output = Some(Value::map([("value", value)]));
        }
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<ScriptOutput, ()>, Failure> {
        let value = cx
            .evaluate(&self.0.code.0, Vars::new())
            .map_err(|error| Failure::new("script.failed", error.message))?;
        Ok(Outcome::Done(ScriptOutput { value }))
    }
}
