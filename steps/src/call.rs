//! `playbook`: the page of a kind that the compiler itself puts in place.
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Effect, Failure, Fidelity, Figure, Outcome, ParamError, Preview, PreviewContext, Redo,
        Resume, Step, StepContext, StepKind, StepTraits, UndoSupport,
    },
    value::Value,
};

/// Calls another playbook: its steps become a scope of the same graph.
///
/// The called file is compiled with the caller and checked with it; its steps stand in the plan, are undone in
/// reverse order with the rest, and have paths such as `call/step`. Its `finally` runs when the call ends. Its
/// `outputs` are the output of the step. A call that fails undoes its own scope first, then fails.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "read from the schema by the compiler, never as values"
)]
pub(crate) struct CallParams {
    /// The playbook's file, relative to this one; a literal.
    path: String,
    /// Its inputs.
    #[serde(default)]
    inputs: IndexMap<String, Value>,
    /// Its targets, each named by one of the caller's.
    #[serde(default)]
    targets: IndexMap<String, String>,
}

/// The outputs that the called playbook declares, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct CallOutput(IndexMap<String, Value>);

pub(crate) struct Call;

impl StepKind for Call {
    const NAME: &'static str = "playbook";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::Repeatable,
        marks: false,
        captures: false,
        undo: UndoSupport::Auto,
        fidelity: Fidelity::Simulated,
        skippable: true,
    };
    const EXAMPLE: &'static str = "\
path: restore.yaml
inputs:
  backup: nightly
targets:
  db: scratch
";
    type Params = CallParams;
    type Step = Self;

    fn prepare(_: CallParams) -> Result<Self, Vec<ParamError>> {
        Err(vec![
            ParamError::new(
                "",
                "a call is a scope of the graph, not a step that runs by itself",
            )
            .help("this graph was not made by the compiler of this version"),
        ])
    }
}

fn refused() -> Failure {
    Failure::new(
        "playbook.not_a_step",
        "a call is a scope of the graph, not a step that runs by itself",
    )
}

impl Step for Call {
    type Capture = ();
    type State = ();
    type Output = CallOutput;

    fn figures(output: &CallOutput) -> Vec<Figure> {
        let outputs = output.0.len() as u64;
        vec![Figure::count("outputs", outputs, "output", "outputs")]
    }

    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Err(refused())
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        _: &StepContext,
    ) -> Result<Outcome<CallOutput, ()>, Failure> {
        Err(refused())
    }
}
