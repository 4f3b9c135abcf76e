//! `wait.condition`
use super::{WAITS, timed_out};
use crate::{
    sql::{
        MAX_RESULT_ROWS, QueryOutput, ask, binding, one, open_for_preview,
        params::{Params, check},
    },
    target::{Access, Until},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Cause, Failure, Fidelity, Figure, Outcome, ParamError, Preview, PreviewContext, Resume,
        Step, StepContext, StepKind, StepTraits,
        params::{Expression, SqlText, TargetName},
    },
    value::{Duration, Value},
};

/// Asks a database again and again until a condition on the answer holds.
///
/// Each question is a read-only query, as of `sql.query`. While the condition does not hold nothing is
/// written to the journal; a crash starts the wait anew, within the same timeout. Give the step a `timeout`: when it
/// comes, the step fails with the last answer as its output.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConditionParams {
    /// The target to ask.
    target: TargetName,
    /// One statement that reads. Values go by `:name`.
    sql: SqlText,
    /// The values of the names in `sql`.
    #[serde(default)]
    params: Params,
    /// What must hold, as of the answer: `value == 0`.
    #[schemars(extend("x-windlass-names" = ["value", "row", "rows", "row_count", "truncated"]))]
    until: Expression,
    /// How long to wait between two questions.
    #[serde(default = "every")]
    every: Duration,
    /// What to do when a question fails.
    #[serde(default)]
    on_error: OnError,
}

fn every() -> Duration {
    Duration::from_secs(5)
}

/// What to do when a question fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnError {
    /// The step fails.
    #[default]
    Fail,
    /// Ask again after `every`: the database may be restarting.
    Retry,
}

/// The answer for which the condition held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ConditionOutput {
    /// How many questions it took.
    polls: u64,
    /// The answer, as of `sql.query`.
    answer: QueryOutput,
}

pub(crate) struct Condition(ConditionParams);

impl StepKind for Condition {
    const NAME: &'static str = "wait.condition";
    const TRAITS: StepTraits = WAITS;
    const EXAMPLE: &'static str = "\
target: orders
sql: SELECT count(*) FROM orders WHERE state = 'pending'
until: value == 0
every: 2s
on_error: retry
";
    type Params = ConditionParams;
    type Step = Self;

    fn prepare(params: ConditionParams) -> Result<Self, Vec<ParamError>> {
        let mut errors = Vec::new();
        if check("sql", &params.sql, &params.params, &mut errors).len() > 1 {
            errors.push(ParamError::new("sql", "a condition asks one question"));
        }
        if params.every < Duration::from_millis(10) {
            errors.push(ParamError::new("every", "must be 10ms or longer"));
        }
        if errors.is_empty() {
            Ok(Self(params))
        } else {
            Err(errors)
        }
    }
}

impl Condition {
    async fn poll(&self, cx: &StepContext) -> Result<(QueryOutput, bool), Failure> {
        let target = cx.target(&self.0.target)?;
        let until = Until::one_of(cx, &target)?;
        let bound = one(&target, &self.0.sql, &self.0.params)?;
        let answer = ask(cx.host.as_ref(), &target, bound, MAX_RESULT_ROWS, &until).await?;
        let holds = cx
            .evaluate(&self.0.until.0, answer.vars())
            .map_err(|error| {
                Failure::new("expression.failed", format!("until: {}", error.message))
                    .cause(Cause::Refused)
            })?;
        match holds.as_bool() {
            Some(holds) => Ok((answer, holds)),
            None => Err(Failure::new(
                "expression.type",
                format!(
                    "until gives a {}, where true or false is needed",
                    holds.type_name()
                ),
            )
            .cause(Cause::Refused)),
        }
    }
}

impl Step for Condition {
    type Capture = ();
    type State = ();
    type Output = ConditionOutput;

    fn figures(output: &ConditionOutput) -> Vec<Figure> {
        vec![
            Figure::count("polls", output.polls, "question", "questions"),
            output.answer.figure(),
        ]
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let target = cx.target(&self.0.target)?;
        let until = Until::preview(cx, &target)?;
        let bound = one(&target, &self.0.sql, &self.0.params)?;
        let condition = self.0.until.0.source();
        let mut preview = match open_for_preview(cx, &target, Access::Read, &until).await? {
            Err(preview) => preview,
            Ok(mut session) => {
                let revealed = bound.clone().reveal(cx.host.as_ref()).await?;
                let rows = session
                    .read(&revealed, MAX_RESULT_ROWS as usize, &until)
                    .await?;
                let seen = match QueryOutput::from(rows) {
                    QueryOutput {
                        value: Some(value), ..
                    } => value.to_string(),
                    answer => format!("{} rows", answer.row_count),
                };
                Preview::new(
                    Fidelity::Simulated,
                    format!(
                        "would wait until {condition}, asking every {}",
                        self.0.every
                    ),
                )
                .line("now", seen)
            }
        };
        preview = preview.line("sql", bound.shown.clone());
        preview.binding = binding(&self.0.sql);
        preview.secrets = bound.secrets();
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<ConditionOutput, ()>, Failure> {
        let mut polls = 0;
        let mut last = Value::Null;
        let mut trouble = None;
        loop {
            polls += 1;
            match self.poll(cx).await {
                Ok((answer, true)) => return Ok(Outcome::Done(ConditionOutput { polls, answer })),
                Ok((answer, false)) => {
                    last = windlass_engine::value::to_value(&answer).unwrap_or_default();
                    trouble = None;
                }
                // A wrong expression stays wrong.
                Err(failure)
                    if self.0.on_error == OnError::Fail || failure.cause == Cause::Refused =>
                {
                    // The step's own end is told below, with the last answer.
                    let over = cx.remaining().is_some_and(|left| left <= Duration::ZERO);
                    if !over || failure.cause != Cause::Timeout {
                        return Err(failure);
                    }
                }
                Err(failure) => trouble = Some(failure.message),
            }
            if cx.cancel.is_cancelled() && cx.deadline.is_none_or(|deadline| cx.now() < deadline) {
                return Err(Failure::new("wait.cancelled", "the wait was cancelled")
                    .cause(Cause::Cancelled)
                    .output(last));
            }
            let left = cx.remaining();
            if left.is_some_and(|left| left <= Duration::ZERO) {
                let mut why = format!("{} did not hold in {polls} polls", self.0.until.0.source());
                if let Some(trouble) = trouble {
                    why.push_str(&format!("; the last one failed: {trouble}"));
                }
                return Err(timed_out(cx, &why).output(last));
            }
            let pause = left.map_or(self.0.every, |left| left.min(self.0.every));
            tokio::select! {
                () = cx.host.sleep(pause) => {}
                () = cx.cancel.cancelled() => {}
            }
        }
    }
}
