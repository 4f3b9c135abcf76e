//! `verify`
mod compare;

use crate::{
    sql::{
        MAX_RESULT_ROWS, QueryOutput, ask, binding, one,
        params::{Params, check},
    },
    target::Until,
    wait::At,
};
use compare::{Compare, Compared};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    expr::Vars,
    step::{
        Cause, Effect, Evidence, Failure, Fidelity, Figure, Outcome, ParamError, Preview,
        PreviewContext, Redo, Resume, Step, StepContext, StepKind, StepTraits, UndoSupport,
        params::{Expression, SqlText, TargetName, Text},
    },
    value::{Duration, Timestamp, Value, to_value},
};

/// Proves by named checks that things are as they should be.
///
/// Every check is made, also when one before it fails, and all of them are in the output and in the evidence,
/// also when the step fails. A check asks a database (`sql`, read-only) or only computes (`expect` alone).
/// `rpo` and `rto` check times, `compare` two databases table by table. A check of severity `warning` that does not
/// hold is reported and does not fail the step.
///
/// The step only reads, so a crash simply repeats it, and it cannot be skipped.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyParams {
    /// The target of the checks that name none.
    target: Option<TargetName>,
    /// Named checks.
    #[serde(default)]
    checks: Vec<Check>,
    /// How much data may be lost: the age of the newest data, at the moment of the check.
    rpo: Option<Rpo>,
    /// How long recovery may take: the time since it began, at the moment of the check.
    rto: Option<Rto>,
    /// Two databases, table by table.
    compare: Option<Compare>,
}

/// One named check.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Check {
    /// What it proves, for people.
    name: Text,
    /// The target to ask; by default the step's `target`.
    target: Option<TargetName>,
    /// One statement that reads.
    sql: Option<SqlText>,
    /// The values of the names in `sql`.
    #[serde(default)]
    params: Params,
    /// What must hold: `value == 0`.
    #[schemars(extend("x-windlass-names" = ["value", "row", "rows", "row_count", "truncated"]))]
    expect: Expression,
    /// Whether the step fails with it.
    #[serde(default)]
    severity: Severity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Severity {
    /// The step fails.
    #[default]
    Error,
    /// It is only reported.
    Warning,
}

/// Recovery point: how old the newest data may be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rpo {
    /// When the newest data was written.
    at: At,
    /// The longest that is allowed.
    max: Duration,
}

/// Recovery time: how long it may take.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rto {
    /// When recovery began.
    since: At,
    /// The longest that is allowed.
    max: Duration,
}

/// How one check went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CheckOutput {
    /// Its name.
    name: String,
    /// Whether it held.
    passed: bool,
    /// Whether the step fails with it.
    severity: Severity,
    /// What must hold, as it is written.
    expected: String,
    /// What was seen: the answer's `value`, `row` or the first rows; without `sql`, whether the condition held.
    seen: Value,
    /// Why it could not be checked, where that is so.
    error: Option<String>,
    /// How long it took.
    took: Duration,
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct VerifyOutput {
    /// How many held.
    passed: u64,
    /// How many did not, warnings included.
    failed: u64,
    /// Each of them, in order.
    checks: Vec<CheckOutput>,
    /// Each table of `compare`.
    tables: Vec<Compared>,
}

pub(crate) struct Verify(VerifyParams);

/// How many rows a check shows of what it saw.
const SHOWN_ROWS: usize = 20;

impl StepKind for Verify {
    const NAME: &'static str = "verify";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::ReadOnly,
        redo: Redo::Repeatable,
        marks: false,
        captures: false,
        undo: UndoSupport::None,
        fidelity: Fidelity::Simulated,
        skippable: false,
    };
    const EXAMPLE: &'static str = "\
target: orders
checks:
  - name: nothing is pending
    sql: SELECT count(*) FROM orders WHERE state = 'pending'
    expect: value == 0
  - name: most have a region
    sql: SELECT avg(region IS NOT NULL) FROM orders
    expect: value >= 0.99
    severity: warning
";
    type Params = VerifyParams;
    type Step = Self;

    /// What a database does not answer is a check that failed.
    fn retried(_: &Value) -> &'static [Cause] {
        &[Cause::Refused, Cause::Timeout]
    }

    fn prepare(params: VerifyParams) -> Result<Self, Vec<ParamError>> {
        let mut errors = Vec::new();
        if params.checks.is_empty()
            && params.rpo.is_none()
            && params.rto.is_none()
            && params.compare.is_none()
        {
            errors.push(
                ParamError::new("", "there is nothing to check")
                    .help("give `checks`, `rpo`, `rto` or `compare`"),
            );
        }
        for (at, one) in params.checks.iter().enumerate() {
            let path = format!("checks[{at}]");
            if params
                .checks
                .iter()
                .take(at)
                .any(|before| before.name == one.name)
            {
                errors.push(ParamError::new(
                    format!("{path}.name"),
                    format!("two checks are named {}", one.name.0),
                ));
            }
            match &one.sql {
                Some(sql) => {
                    if check(&format!("{path}.sql"), sql, &one.params, &mut errors).len() > 1 {
                        errors.push(ParamError::new(
                            format!("{path}.sql"),
                            "a check asks one question",
                        ));
                    }
                    if one.target.is_none() && params.target.is_none() {
                        errors.push(
                            ParamError::new(path, "no target to ask")
                                .help("give `target` here, or one for all checks beside `checks`"),
                        );
                    }
                }
                None if one.target.is_some() || !one.params.is_empty() => {
                    errors.push(ParamError::new(
                        path,
                        "target and params are for a check with `sql`",
                    ));
                }
                None => {}
            }
        }
        if let Some(compare) = &params.compare {
            compare.check(&mut errors);
        }
        if errors.is_empty() {
            Ok(Self(params))
        } else {
            Err(errors)
        }
    }
}

impl Verify {
    async fn asked(&self, one_check: &Check, cx: &StepContext) -> Result<(Vars, Value), Failure> {
        let Some(sql) = &one_check.sql else {
            return Ok((Vars::new(), Value::Null));
        };
        let name = one_check.target.as_ref().or(self.0.target.as_ref());
        let name = name.ok_or_else(|| Failure::new("verify.no_target", "no target to ask"))?;
        let target = cx.target(name)?;
        let until = Until::one_of(cx, &target)?;
        let bound = one(&target, sql, &one_check.params)?;
        let answer = ask(cx.host.as_ref(), &target, bound, MAX_RESULT_ROWS, &until).await?;
        Ok((answer.vars(), seen(answer)))
    }

    async fn check(&self, one_check: &Check, cx: &StepContext) -> CheckOutput {
        let began = cx.now();
        let mut output = CheckOutput {
            name: one_check.name.0.clone(),
            passed: false,
            severity: one_check.severity,
            expected: one_check.expect.0.source().to_owned(),
            seen: Value::Null,
            error: None,
            took: Duration::ZERO,
        };
        match self.asked(one_check, cx).await {
            Err(failure) => output.error = Some(failure.message),
            Ok((vars, seen)) => {
                output.seen = seen;
                match cx.evaluate(&one_check.expect.0, vars) {
                    Ok(Value::Bool(holds)) => {
                        output.passed = holds;
                        if one_check.sql.is_none() {
                            output.seen = Value::Bool(holds);
                        }
                    }
                    Ok(other) => {
                        output.error = Some(format!(
                            "expect gives a {}, where true or false is needed",
                            other.type_name()
                        ));
                    }
                    Err(error) => output.error = Some(error.message),
                }
            }
        }
        output.took = Duration::between(began, cx.now());
        output
    }
}

fn seen(answer: QueryOutput) -> Value {
    match (answer.value, answer.row) {
        (Some(value), _) => value,
        (None, Some(row)) => row,
        (None, None) => Value::list(answer.rows.into_iter().take(SHOWN_ROWS).collect()),
    }
}

/// A time that must not be longer than allowed.
fn within(name: &str, from: Timestamp, now: Timestamp, max: Duration) -> CheckOutput {
    let age = Duration::between(from, now);
    CheckOutput {
        name: name.to_owned(),
        passed: age <= max && age >= Duration::ZERO,
        severity: Severity::Error,
        expected: format!("at most {max}"),
        seen: Value::Duration(age),
        error: (age < Duration::ZERO).then(|| format!("{from} lies in the future")),
        took: Duration::ZERO,
    }
}

impl Step for Verify {
    type Capture = ();
    type State = ();
    type Output = VerifyOutput;

    fn figures(output: &VerifyOutput) -> Vec<Figure> {
        let all = output.passed.saturating_add(output.failed);
        let mut figures = vec![Figure::share("checks", output.passed, all, "checks passed")];
        if !output.tables.is_empty() {
            let tables = output.tables.len() as u64;
            figures.push(Figure::count("tables", tables, "table", "tables"));
        }
        figures
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let mut texts = Vec::new();
        let mut preview = Preview::new(Fidelity::Simulated, "");
        let mut count = self.0.checks.len();
        for check in &self.0.checks {
            let mut text = check.expect.0.source().to_owned();
            if let Some(sql) = &check.sql {
                let name = check.target.as_ref().or(self.0.target.as_ref());
                let target = match name {
                    Some(name) => cx.target(name)?,
                    None => return Err(Failure::new("verify.no_target", "no target to ask")),
                };
                let bound = one(&target, sql, &check.params)?;
                preview.secrets.extend(bound.secrets());
                text = format!("{text}, of {}: {}", target.name, bound.shown);
                texts.push(sql.0.clone());
            }
            preview = preview.line(format!("check {}", check.name.0), text);
        }
        for (name, max) in [
            ("rpo", self.0.rpo.as_ref().map(|rpo| rpo.max)),
            ("rto", self.0.rto.as_ref().map(|rto| rto.max)),
        ] {
            if let Some(max) = max {
                count += 1;
                preview = preview.line(name, format!("at most {max}"));
            }
        }
        if let Some(compare) = &self.0.compare {
            count += 1;
            preview = preview.line("compare", compare.describe());
        }
        preview.summary = format!("would make {count} checks");
        preview.binding = binding(&texts.join(";\n"));
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<VerifyOutput, ()>, Failure> {
        let mut checks = Vec::new();
        for check in &self.0.checks {
            checks.push(self.check(check, cx).await);
        }
        if let Some(rpo) = &self.0.rpo {
            checks.push(within("rpo", rpo.at.0, cx.now(), rpo.max));
        }
        if let Some(rto) = &self.0.rto {
            checks.push(within("rto", rto.since.0, cx.now(), rto.max));
        }
        let mut tables = Vec::new();
        if let Some(compare) = &self.0.compare {
            let began = cx.now();
            let result = compare.run(cx, &mut tables).await;
            let differing: Vec<&str> = tables
                .iter()
                .filter(|t| !t.equal)
                .map(|t| t.table.as_str())
                .collect();
            let error = match result {
                Err(failure) => Some(failure.message),
                Ok(()) if tables.is_empty() => Some("there is no table to compare".to_owned()),
                Ok(()) => None,
            };
            checks.push(CheckOutput {
                name: "compare".to_owned(),
                passed: error.is_none() && differing.is_empty(),
                severity: Severity::Error,
                expected: compare.describe(),
                seen: Value::from(if differing.is_empty() {
                    format!("{} tables are equal", tables.len())
                } else {
                    format!("different: {}", differing.join(", "))
                }),
                error,
                took: Duration::between(began, cx.now()),
            });
        }
        // A run that is being ended did not fail its checks.
        if cx.cancel.is_cancelled() {
            return Err(Failure::new(
                "verify.cancelled",
                "the checks were not finished: the step is cancelled",
            )
            .cause(Cause::Cancelled));
        }
        let failed: Vec<&CheckOutput> = checks.iter().filter(|check| !check.passed).collect();
        let fatal: Vec<String> = failed
            .iter()
            .filter(|check| check.severity == Severity::Error)
            .map(|check| told(check))
            .collect();
        let output = VerifyOutput {
            passed: (checks.len() - failed.len()) as u64,
            failed: failed.len() as u64,
            checks: checks.clone(),
            tables,
        };
        let kept = to_value(&output)
            .map_err(|error| Failure::new("step.stored_format", error.to_string()))?;
        cx.host.keep(Evidence {
            name: "checks".to_owned(),
            media_type: "application/json".to_owned(),
            size: kept.to_string().len() as u64,
            content: kept.clone(),
            truncated: false,
        });
        if fatal.is_empty() {
            return Ok(Outcome::Done(output));
        }
        let timed_out = cx.remaining().is_some_and(|left| left <= Duration::ZERO);
        Err(Failure::new(
            "verify.failed",
            format!(
                "{} of {} checks failed: {}",
                fatal.len(),
                checks.len(),
                fatal.join("; ")
            ),
        )
        .cause(if timed_out {
            Cause::Timeout
        } else {
            Cause::Refused
        })
        .output(kept))
    }
}

fn told(check: &CheckOutput) -> String {
    match &check.error {
        Some(error) => format!("{} ({error})", check.name),
        None => {
            let seen: String = check.seen.to_string().chars().take(120).collect();
            format!("{} (expected {}, saw {seen})", check.name, check.expected)
        }
    }
}
