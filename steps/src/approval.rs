//! `approval`
use crate::wait::{gives_up, waits_on};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use windlass_engine::{
    expr::Vars,
    step::{
        ApprovalDecision, ApprovalRequest, Cause, Choice, Effect, Evidence, Failure, Fidelity,
        Figure, Outcome, ParamError, Preview, PreviewContext, Question, Redo, Resume, Step,
        StepContext, StepHost, StepKind, StepTraits, UndoSupport, Vote, Wait, WaitOn, Woken,
        params::{Expression, Text},
    },
    value::{Duration, Timestamp, Value, to_value},
};

/// Waits until people approve.
///
/// Members of `groups` (accounts of the operating system, as the environment file lists them) vote with `windlass approve
/// RUN STEP` or `windlass reject`. A vote is recorded and drives nothing. One account has one vote, whatever name it
/// claims (`--as`, `WINDLASS_USER`); both names are recorded. One rejection rejects; `quorum` approvals with the same answers approve. A vote is bound to the plan's
/// digest and to what was shown, and counts by the time at which it was cast.
///
/// Questions under `ask` have typed answers, given with `--answer NAME=VALUE` (for `choose`, the numbers of the
/// options), which later steps read as `steps.ID.output.answers.NAME`.
///
/// The wait holds no thread and survives a restart. It cannot be skipped, and there is nothing to undo. When it
/// expires it fails (`on_expiry: reject`), or it is marked as paged in the journal and waits on without an end
/// (`on_expiry: page`). The step's `timeout` ends it in any case.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApprovalParams {
    /// The question, as text.
    prompt: Text,
    /// Groups whose members may vote; without any, everyone may.
    #[serde(default)]
    groups: Vec<Text>,
    /// How many approvals are needed.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    quorum: u32,
    /// How long the question is open.
    expires: Option<Duration>,
    /// Whether the account that started the run may not vote, and a claimed name opens no group: accounts alone count.
    /// With `false`, a claimed name that is in a group may vote.
    #[serde(default = "yes")]
    separation_of_duties: bool,
    /// What to do when it expires.
    #[serde(default)]
    on_expiry: OnExpiry,
    /// What voters are shown with the question: rows, text, anything but a secret.
    #[serde(default)]
    show: Value,
    /// Questions whose answers become output.
    #[serde(default)]
    ask: IndexMap<String, Ask>,
}

fn one() -> u32 {
    1
}
fn yes() -> bool {
    true
}

/// What to do when it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnExpiry {
    /// It fails as if it were rejected.
    #[default]
    Reject,
    /// It is marked as paged and waits on.
    Page,
}

/// A question: `choose` among options, or give a value of a `type`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ask {
    /// Choose `one` of the options or `many`.
    choose: Option<Choose>,
    /// The options: a list.
    #[serde(default)]
    from: Value,
    /// What people read for an option: an expression over `item`, such as `item.name`; else the option as it is.
    #[schemars(extend("x-windlass-names" = ["item"]))]
    label: Option<Expression>,
    /// How many must be chosen at least; by default 1.
    min: Option<u32>,
    /// How many may be chosen at most; by default all.
    max: Option<u32>,
    /// The type of the answer, where nothing is chosen.
    #[serde(rename = "type")]
    kind: Option<AnswerType>,
    /// The only answers allowed.
    #[serde(default, rename = "enum")]
    allowed: Vec<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Choose {
    One,
    Many,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AnswerType {
    String,
    Integer,
    Number,
    Boolean,
    Duration,
    Timestamp,
    Size,
}

impl AnswerType {
    fn word(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Duration => "duration",
            Self::Timestamp => "timestamp",
            Self::Size => "size",
        }
    }

    /// An allowed answer, as the type reads it (`5s` as a duration).
    fn typed(self, value: &Value) -> Option<Value> {
        let text = || value.to_string();
        match (self, value) {
            (Self::String, Value::List(_) | Value::Map(_) | Value::Null | Value::Secret(_)) => None,
            (Self::String, other) => Some(Value::from(other.to_string())),
            (Self::Integer, Value::Int(_))
            | (Self::Number, Value::Int(_) | Value::Decimal(_))
            | (Self::Boolean, Value::Bool(_)) => Some(value.clone()),
            // Answers are exact, so what YAML read as binary is too.
            (Self::Number, Value::Float(x)) => {
                let text = x.to_string();
                let int = text.parse().ok().map(Value::Int);
                int.or_else(|| text.parse().ok().map(Value::Decimal))
            }
            (Self::Duration, _) => text().parse().ok().map(Value::Duration),
            (Self::Timestamp, _) => text().parse().ok().map(Value::Timestamp),
            (Self::Size, _) => text().parse().ok().map(Value::Size),
            (Self::Integer | Self::Number | Self::Boolean, _) => None,
        }
    }
}

/// What people decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ApprovalOutput {
    /// Who approved, in order.
    approved_by: Vec<String>,
    /// The answers that the quorum agrees on, by question.
    answers: Value,
    /// Every vote: `who`, `at`, `approve`, `reason`.
    votes: Vec<Value>,
    /// Whether it expired once and was paged.
    paged: bool,
}

/// What a question keeps while it stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ApprovalState {
    paged: bool,
    /// As first asked: what is shown does not change while people look at it.
    request: Option<ApprovalRequest>,
}

pub(crate) struct Approval(ApprovalParams);

impl StepKind for Approval {
    const NAME: &'static str = "approval";
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
prompt: End these sessions?
groups: [dba]
quorum: 2
expires: 4h
ask:
  how: { type: string, enum: [cancel, terminate] }
";
    type Params = ApprovalParams;
    type Step = Self;

    fn retried(_: &Value) -> &'static [Cause] {
        &[Cause::Refused, Cause::Timeout]
    }

    fn prepare(params: ApprovalParams) -> Result<Self, Vec<ParamError>> {
        let mut errors = Vec::new();
        let mut wrong = |path: &str, message: String| errors.push(ParamError::new(path, message));
        if params.prompt.trim().is_empty() {
            wrong("prompt", "people need a question to answer".to_owned());
        }
        if params.quorum == 0 {
            wrong("quorum", "at least one approval is needed".to_owned());
        }
        if params
            .expires
            .is_some_and(|expires| expires <= Duration::ZERO)
        {
            wrong("expires", "must be longer than nothing".to_owned());
        }
        if params.on_expiry == OnExpiry::Page && params.expires.is_none() {
            wrong(
                "on_expiry",
                "it never expires: give `expires` too".to_owned(),
            );
        }
        if has_secret(&params.show) {
            wrong("show", "a secret cannot be shown".to_owned());
        }
        for (name, ask) in &params.ask {
            ask.check(&format!("ask.{name}"), &mut wrong);
        }
        if errors.is_empty() {
            Ok(Self(params))
        } else {
            Err(errors)
        }
    }
}

fn has_secret(value: &Value) -> bool {
    match value {
        Value::Secret(_) => true,
        Value::List(items) => items.iter().any(has_secret),
        Value::Map(map) => map.values().any(has_secret),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_) => false,
    }
}

impl Ask {
    fn check(&self, path: &str, wrong: &mut impl FnMut(&str, String)) {
        match (self.choose, self.kind) {
            (Some(_), Some(_)) | (None, None) => {
                wrong(
                    path,
                    "a question says `choose` (with `from`) or `type`, one of the two".to_owned(),
                );
            }
            (Some(choose), None) => {
                let Some(items) = self.from.as_list() else {
                    wrong(
                        &format!("{path}.from"),
                        format!("must be a list, not a {}", self.from.type_name()),
                    );
                    return;
                };
                if items.iter().any(has_secret) {
                    wrong(
                        &format!("{path}.from"),
                        "a secret cannot be shown".to_owned(),
                    );
                }
                if !self.allowed.is_empty() {
                    wrong(
                        &format!("{path}.enum"),
                        "the options stand under `from`".to_owned(),
                    );
                }
                if choose == Choose::One && (self.min.is_some() || self.max.is_some()) {
                    wrong(
                        path,
                        "`choose: one` takes exactly one; min and max are for `many`".to_owned(),
                    );
                }
                if let (Some(min), Some(max)) = (self.min, self.max)
                    && min > max
                {
                    wrong(path, format!("min {min} is more than max {max}"));
                }
                if self.max == Some(0) {
                    wrong(&format!("{path}.max"), "must be 1 or more".to_owned());
                }
            }
            (None, Some(kind)) => {
                if !self.from.is_null()
                    || self.label.is_some()
                    || self.min.is_some()
                    || self.max.is_some()
                {
                    wrong(path, "from, label, min and max are for `choose`".to_owned());
                }
                for value in &self.allowed {
                    if kind.typed(value).is_none() {
                        wrong(
                            &format!("{path}.enum"),
                            format!("{value} is no {}", kind.word()),
                        );
                    }
                }
            }
        }
    }

    fn label(&self, item: &Value, host: &dyn StepHost) -> Result<String, Failure> {
        let Some(label) = &self.label else {
            return Ok(item.to_string());
        };
        host.evaluate(&label.0, Vars::new().with("item", item.clone()))
            .map(|value| value.to_string())
            .map_err(|error| Failure::new("expression.failed", format!("label: {}", error.message)))
    }

    fn question(&self, name: &str, host: &dyn StepHost) -> Result<Question, Failure> {
        let Some(choose) = self.choose else {
            let kind = self.kind.unwrap_or(AnswerType::String);
            return Ok(Question::Value {
                kind: kind.word().to_owned(),
                allowed: self
                    .allowed
                    .iter()
                    .filter_map(|value| kind.typed(value))
                    .collect(),
            });
        };
        let items = self.from.as_list().unwrap_or_default();
        let from = items
            .iter()
            .map(|item| {
                Ok(Choice {
                    label: self.label(item, host)?,
                    value: item.clone(),
                })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let count = u32::try_from(from.len()).unwrap_or(u32::MAX);
        let many = choose == Choose::Many;
        let min = self.min.unwrap_or(1);
        if count < min {
            return Err(Failure::new(
                "approval.too_few_options",
                format!("question {name} needs {min} chosen, and there are {count} options"),
            )
            .help("skip the step where there is nothing to choose: `when: len(…) > 0`"));
        }
        Ok(Question::Choose {
            from,
            min,
            max: if many { self.max.unwrap_or(count) } else { 1 },
            many,
        })
    }
}

impl Approval {
    fn request(&self, host: &dyn StepHost) -> Result<ApprovalRequest, Failure> {
        let ask = self
            .0
            .ask
            .iter()
            .map(|(name, ask)| Ok((name.clone(), ask.question(name, host)?)))
            .collect::<Result<IndexMap<_, _>, Failure>>()?;
        let shown = serde_json::to_vec(&(&self.0.prompt.0, &self.0.show, &ask))
            .map_err(|error| Failure::new("step.stored_format", error.to_string()))?;
        Ok(ApprovalRequest {
            prompt: self.0.prompt.0.clone(),
            groups: self.0.groups.iter().map(|group| group.0.clone()).collect(),
            quorum: self.0.quorum,
            separation_of_duties: self.0.separation_of_duties,
            show: self.0.show.clone(),
            shown_hash: hex::encode(Sha256::digest(shown)),
            ask,
        })
    }

    /// When it expires; one that has paged waits without end.
    fn expires(&self, state: &ApprovalState, cx: &StepContext) -> Option<Timestamp> {
        self.0
            .expires
            .filter(|_| !state.paged)
            .map(|expires| expires.after(cx.first_started_at))
    }

    fn wait(
        &self,
        state: ApprovalState,
        request: ApprovalRequest,
        cx: &StepContext,
    ) -> Outcome<ApprovalOutput, ApprovalState> {
        let deadline = gives_up(self.expires(&state, cx), cx);
        Outcome::Suspend {
            state,
            wait: Wait {
                on: WaitOn::Approval(Box::new(request)),
                deadline,
                wall: None,
            },
        }
    }

    fn decided(
        &self,
        decision: &ApprovalDecision,
        paged: bool,
        cx: &StepContext,
    ) -> Result<ApprovalOutput, Failure> {
        let names = |approve: bool| -> Vec<String> {
            let votes = decision.votes.iter().filter(|vote| vote.approve == approve);
            votes.map(Vote::voter).collect()
        };
        let votes: Vec<Value> = decision.votes.iter().map(vote).collect();
        let output = ApprovalOutput {
            approved_by: names(true),
            answers: Value::map(
                decision
                    .answers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.clone())),
            ),
            votes,
            paged,
        };
        let kept = to_value(&output)
            .map_err(|error| Failure::new("step.stored_format", error.to_string()))?;
        cx.host.keep(Evidence {
            name: "decision".to_owned(),
            media_type: "application/json".to_owned(),
            size: kept.to_string().len() as u64,
            content: kept.clone(),
            truncated: false,
        });
        if decision.approved {
            return Ok(output);
        }
        let reasons: Vec<String> = decision
            .votes
            .iter()
            .filter(|vote| !vote.approve)
            .filter_map(|vote| vote.reason.clone())
            .collect();
        let mut message = format!("rejected by {}", names(false).join(", "));
        if !reasons.is_empty() {
            message.push_str(&format!(": {}", reasons.join("; ")));
        }
        Err(Failure::new("approval.rejected", message)
            .cause(Cause::Refused)
            .output(kept))
    }
}

fn vote(vote: &Vote) -> Value {
    Value::map([
        ("who", Value::from(vote.voter().as_str())),
        ("at", Value::Timestamp(vote.at)),
        ("approve", Value::Bool(vote.approve)),
        (
            "reason",
            vote.reason.as_deref().map_or(Value::Null, Value::from),
        ),
    ])
}

impl Step for Approval {
    type Capture = ();
    type State = ApprovalState;
    type Output = ApprovalOutput;

    fn figures(output: &ApprovalOutput) -> Vec<Figure> {
        let who = output.approved_by.join(", ");
        let mut figures = Vec::new();
        if !who.is_empty() {
            figures.push(Figure::text("approved_by", "by", who));
        }
        if let Some(answers) = output
            .answers
            .as_map()
            .filter(|answers| !answers.is_empty())
        {
            let answers = answers.len() as u64;
            figures.push(Figure::count("answers", answers, "answer", "answers"));
        }
        figures
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let request = self.request(cx.host.as_ref())?;
        let groups = if request.groups.is_empty() {
            "anyone".to_owned()
        } else {
            request.groups.join(", ")
        };
        let mut preview = Preview::new(
            Fidelity::Simulated,
            format!("would ask {groups} for {} approval(s)", request.quorum),
        )
        .line("prompt", request.prompt.clone());
        if let Some(expires) = self.0.expires {
            let then = match self.0.on_expiry {
                OnExpiry::Reject => "then fails",
                OnExpiry::Page => "then pages and waits on",
            };
            preview = preview.line("expires", format!("after {expires}, {then}"));
        }
        if !self.0.show.is_null() {
            preview = preview.line("show", self.0.show.to_string());
        }
        preview.binding = Value::map([
            (
                "groups",
                Value::list(
                    request
                        .groups
                        .iter()
                        .map(|g| Value::from(g.as_str()))
                        .collect(),
                ),
            ),
            ("quorum", Value::Int(i64::from(request.quorum))),
            (
                "separation_of_duties",
                Value::Bool(request.separation_of_duties),
            ),
        ]);
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        resume: Resume<ApprovalState>,
        cx: &StepContext,
    ) -> Result<Outcome<ApprovalOutput, ApprovalState>, Failure> {
        let mut state = resume.state;
        let request = match state.request.take() {
            Some(request) => request,
            None => self.request(cx.host.as_ref())?,
        };
        state.request = Some(request.clone());
        match resume.woken {
            Some(Woken::Decision(decision)) => {
                self.decided(&decision, state.paged, cx).map(Outcome::Done)
            }
            Some(Woken::Deadline) if !waits_on(self.expires(&state, cx), cx) => {
                let timed_out = cx.deadline.is_some_and(|deadline| deadline <= cx.now());
                if !timed_out && self.0.on_expiry == OnExpiry::Page && !state.paged {
                    state.paged = true;
                    return Ok(self.wait(state, request, cx));
                }
                let cause = if timed_out {
                    Cause::Timeout
                } else {
                    Cause::Refused
                };
                Err(
                    Failure::new("approval.expired", "no approver decided in time")
                        .cause(cause)
                        .help(format!("`windlass retry RUN {}` asks again", cx.node)),
                )
            }
            Some(Woken::Deadline | Woken::Timer | Woken::Signal(_)) | None => {
                Ok(self.wait(state, request, cx))
            }
        }
    }
}
