//! `script`
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    expr::Vars,
    step::{
        Cause, Failure, Fidelity, Figure, Outcome, ParamError, Preview, PreviewContext, Resume,
        Step, StepContext, StepKind, StepTraits, params::Expression,
    },
    value::Value,
};

/// Computes a value from what is known.
///
/// `code` is an expression as everywhere in a playbook: it reads inputs, outputs of earlier steps and the run,
/// and has no clock, no random and no I/O. It may stand over several lines. Use it where several
/// steps need the same value; where one does, write the expression there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScriptParams {
    /// A bare expression.
    code: Expression,
}

/// What the expression gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ScriptOutput {
    /// The value.
    value: Value,
}

pub(crate) struct Script(ScriptParams);

impl StepKind for Script {
    const NAME: &'static str = "script";
    const TRAITS: StepTraits = StepTraits {
        fidelity: Fidelity::Simulated,
        ..StepTraits::READ_ONLY
    };
    const EXAMPLE: &'static str = "\
code: |
  [1, 2, 3, 4]
    .filter(|n| n % 2 == 0)
    .sum()
";
    type Params = ScriptParams;
    type Step = Self;

    fn retried(_: &Value) -> &'static [Cause] {
        &[Cause::Permanent]
    }

    fn prepare(params: ScriptParams) -> Result<Self, Vec<ParamError>> {
        Ok(Self(params))
    }
}

impl Step for Script {
    type Capture = ();
    type State = ();
    type Output = ScriptOutput;

    fn figures(output: &ScriptOutput) -> Vec<Figure> {
        vec![Figure::value("value", "value", &output.value)]
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        // What it reads may not exist yet in a plan.
        let Ok(value) = cx.host.evaluate(&self.0.code.0, Vars::new()) else {
            return Ok(Preview::new(
                Fidelity::Unknown,
                "would compute a value from what is not known yet",
            ));
        };
        let mut preview = Preview::new(Fidelity::Executed, format!("gives {value}"));
        preview.output = Some(Value::map([("value", value)]));
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<ScriptOutput, ()>, Failure> {
        let value = cx.evaluate(&self.0.code.0, Vars::new()).map_err(|error| {
            let failure = Failure::new("expression.failed", format!("code: {}", error.message));
            match error.help {
                Some(help) => failure.help(help),
                None => failure,
            }
        })?;
        Ok(Outcome::Done(ScriptOutput { value }))
    }
}
