//! `verify`
use crate::sql::{
    self,
    params::{self as sql_params, Statement},
};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    expr::Vars,
    step::{
        Cause, Evidence, Failure, Fidelity, Outcome, ParamError, Preview, PreviewContext, Resume,
        Step, StepContext, StepKind, StepTraits,
        params::{Expression, SqlText, TargetName, Text},
    },
    value::{Value, to_value},
};

/// Named checks, all of them evaluated; one that does not hold fails the step, which keeps what was seen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyParams {
    /// Where, for checks that do not say.
    #[serde(default)]
    pub target: Option<TargetName>,
    /// The checks.
    pub checks: Vec<CheckParams>,
}

/// One check.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckParams {
    /// What it says when it holds.
    pub name: Text,
    /// Where.
    #[serde(default)]
    pub target: Option<TargetName>,
    /// One statement that reads; without it, `expect` looks at earlier steps alone.
    #[serde(default)]
    pub sql: Option<SqlText>,
    /// Values for `:name`.
    #[serde(default)]
    pub params: IndexMap<String, Value>,
    /// What must hold, over `value`, `row`, `rows` and `row_count`.
    #[schemars(extend("x-windlass-names" = ["value", "row", "rows", "row_count"]))]
    pub expect: Expression,
}

/// What was seen.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct VerifyOutput {
    /// How many checks hold.
    pub passed: u64,
    /// How many do not.
    pub failed: u64,
    /// Each check.
    pub checks: Vec<CheckOutput>,
}

/// What one check saw.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct CheckOutput {
    /// Its name.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What was expected.
    pub expected: String,
    /// What was seen.
    #[serde(default)]
    pub seen: Value,
    /// Why it could not be decided.
    #[serde(default)]
    pub error: Option<String>,
}

/// The kind `verify`.
pub struct Verify;
/// Prepared checks.
pub struct VerifyStep {
    params: VerifyParams,
    statements: Vec<Option<Statement>>,
}

impl StepKind for Verify {
    const NAME: &'static str = "verify";
    const TRAITS: StepTraits = StepTraits {
        skippable: false,
        ..StepTraits::READ_ONLY
    };
    const EXAMPLE: &'static str = "target: shop\nchecks:\n  - name: nothing is left\n    sql: SELECT count(*) FROM orders WHERE region IS NULL\n    expect: value == 0\n";
    type Params = VerifyParams;
    type Step = VerifyStep;

    fn prepare(params: VerifyParams) -> Result<VerifyStep, Vec<ParamError>> {
        let mut errors = Vec::new();
        let mut statements = Vec::new();
        if params.checks.is_empty() {
            errors.push(ParamError::new("checks", "no check"));
        }
        for (index, check) in params.checks.iter().enumerate() {
            let Some(sql) = &check.sql else {
                statements.push(None);
                continue;
            };
            let mut parsed = sql_params::parse(sql);
            errors.extend(sql_params::check(&parsed, &check.params).into_iter().map(
                |mut error| {
                    error.path = format!("checks[{index}].{}", error.path);
                    error
                },
            ));
            if parsed.len() != 1 {
                errors.push(ParamError::new(
                    format!("checks[{index}].sql"),
                    "one statement is needed",
                ));
            }
            if check.target.is_none() && params.target.is_none() {
                errors.push(ParamError::new(
                    format!("checks[{index}]"),
                    "no target: neither the check nor the step names one",
                ));
            }
            statements.push(parsed.pop());
        }
        if errors.is_empty() {
            Ok(VerifyStep { params, statements })
        } else {
            Err(errors)
        }
    }
}

impl Step for VerifyStep {
    type Capture = ();
    type State = ();
    type Output = VerifyOutput;

    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        let count = self.params.checks.len();
        let mut preview = Preview::new(Fidelity::Simulated, format!("would check {count} things"));
        for check in &self.params.checks {
            preview = preview.line(
                "check",
                format!("{}: {}", check.name.0, check.expect.0.source()),
            );
        }
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<VerifyOutput, ()>, Failure> {
        let mut output = VerifyOutput::default();
        for (check, statement) in self.params.checks.iter().zip(&self.statements) {
            let seen = self.check(check, statement.as_ref(), cx).await?;
            if seen.passed {
                output.passed += 1;
            } else {
                output.failed += 1;
            }
            output.checks.push(seen);
        }
        let content =
            to_value(&output).map_err(|e| Failure::new("step.stored_format", e.to_string()))?;
        let size = content.to_string().len() as u64;
        cx.host.keep(Evidence {
            name: "checks".to_owned(),
            media_type: "application/json".to_owned(),
            content: content.clone(),
            size,
            truncated: false,
        });
        if output.failed == 0 {
            return Ok(Outcome::Done(output));
        }
        let lines: Vec<String> = output
            .checks
            .iter()
            .filter(|check| !check.passed)
            .map(|check| match &check.error {
                Some(error) => format!("{}: {error}", check.name),
                None => format!(
                    "{}: expected {}, saw {}",
                    check.name, check.expected, check.seen
                ),
            })
            .collect();
        let all = self.params.checks.len();
        Err(Failure::new(
            "verify.failed",
            format!(
                "{} of {all} checks failed: {}",
                output.failed,
                lines.join("; ")
            ),
        )
        .cause(Cause::Refused)
        .output(content))
    }
}

impl VerifyStep {
    /// One check. A failure to read is what it saw; only a passing cause leaves the step, to be retried.
    async fn check(
        &self,
        check: &CheckParams,
        statement: Option<&Statement>,
        cx: &StepContext,
    ) -> Result<CheckOutput, Failure> {
        let mut seen = CheckOutput {
            name: check.name.0.clone(),
            expected: check.expect.0.source().to_owned(),
            ..CheckOutput::default()
        };
        let vars = match (
            statement,
            check.target.as_ref().or(self.params.target.as_ref()),
        ) {
            (Some(statement), Some(target)) => {
                match sql::read(cx, target, statement, &check.params, 1_000).await {
                    Ok(rows) => sql::vars(&rows),
                    Err(failure) if failure.cause.is_transient() || cx.cancel.is_cancelled() => {
                        return Err(failure);
                    }
                    Err(failure) => {
                        seen.error = Some(failure.message);
                        return Ok(seen);
                    }
                }
            }
            _ => Vars::new(),
        };
        seen.seen = ["value", "row", "rows"]
            .iter()
            .find_map(|name| vars.get(name).cloned())
            .unwrap_or_default();
        match cx.evaluate(&check.expect.0, vars) {
            Ok(Value::Bool(passed)) => seen.passed = passed,
            Ok(other) => seen.error = Some(format!("expect is {other}, not true or false")),
            Err(error) => seen.error = Some(error.message),
        }
        Ok(seen)
    }
}
