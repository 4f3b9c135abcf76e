//! `sql.script`
use super::{
    execute::preview,
    params::{self, Statement},
    transaction,
};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Failure, Mark, Outcome, ParamError, Preview, PreviewContext, Probed, Resume, Step,
        StepContext, StepKind, StepTraits,
        params::{SqlText, TargetName},
    },
    value::Value,
};

/// Writes with several statements, in one transaction: all of them, or none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptParams {
    /// Where.
    pub target: TargetName,
    /// Statements, each ended by a semicolon.
    pub sql: SqlText,
    /// Values for `:name`, `:"name"` and `:'name'`.
    #[serde(default)]
    pub params: IndexMap<String, Value>,
}

/// What a script did.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ScriptOutput {
    /// How many rows all statements affected.
    pub rows_affected: u64,
    /// How many statements ran.
    pub statements: u64,
}

/// The kind `sql.script`.
pub struct Script;

/// A prepared script.
pub struct ScriptStep {
    params: ScriptParams,
    statements: Vec<Statement>,
}

impl StepKind for Script {
    const NAME: &'static str = "sql.script";
    const TRAITS: StepTraits = super::execute::Execute::TRAITS;
    const EXAMPLE: &'static str = "target: shop\nsql: |\n  CREATE TABLE regions (code TEXT PRIMARY KEY);\n  INSERT INTO regions VALUES ('eu');\n";
    type Params = ScriptParams;
    type Step = ScriptStep;

    fn prepare(params: ScriptParams) -> Result<ScriptStep, Vec<ParamError>> {
        let statements = params::parse(&params.sql);
        let mut errors = params::check(&statements, &params.params);
        if statements.is_empty() {
            errors.push(ParamError::new("sql", "no statement"));
        }
        if errors.is_empty() {
            Ok(ScriptStep { params, statements })
        } else {
            Err(errors)
        }
    }
}

impl Step for ScriptStep {
    type Capture = ();
    type State = ();
    type Output = ScriptOutput;

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        preview(
            cx,
            &self.params.target,
            &self.statements,
            &self.params.params,
        )
        .await
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<ScriptOutput, ()>, Failure> {
        transaction::run(
            cx,
            &self.params.target,
            self.statements.clone(),
            &self.params.params,
            |done| {
                Ok(ScriptOutput {
                    rows_affected: done.iter().map(|d| d.rows_affected).sum(),
                    statements: done.len() as u64,
                })
            },
        )
        .await
        .map(Outcome::Done)
    }

    async fn probe(
        &self,
        (): &(),
        mark: Option<&Mark>,
        cx: &StepContext,
    ) -> Result<Probed<ScriptOutput>, Failure> {
        transaction::probe(cx, &self.params.target, mark).await
    }
}
