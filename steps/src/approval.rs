//! `approval`
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use windlass_engine::{
    step::{
        ApprovalRequest, Cause, Choice, Failure, Fidelity, Outcome, ParamError, Preview,
        PreviewContext, Question, Resume, Step, StepContext, StepKind, StepTraits, Wait, WaitOn,
        Woken, params::Text,
    },
    value::{Duration, Value},
};

/// Asks people. A vote is bound to the run's digest and to what was shown; a rejection decides at once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalParams {
    /// The question.
    pub prompt: Text,
    /// Groups of the environment whose members may vote; anyone where none is named.
    #[serde(default)]
    pub groups: Vec<Text>,
    /// How many must approve, with the same answers.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub quorum: u32,
    /// When it counts as rejected.
    #[serde(default)]
    pub expires: Option<Duration>,
    /// Whether the one who started the run may not vote.
    #[serde(default = "yes")]
    pub separation_of_duties: bool,
    /// What is shown with the question.
    #[serde(default)]
    pub show: Value,
    /// Questions, whose answers become output.
    #[serde(default)]
    pub ask: IndexMap<String, AskParams>,
}

/// A question: `choose` among options, or give a value of a `type`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskParams {
    /// Choose `one` of the options, or `many`.
    #[serde(default)]
    pub choose: Option<Choose>,
    /// The options: a list.
    #[serde(default)]
    pub from: Value,
    /// The key of an option that people read; the whole option where none is given.
    #[serde(default)]
    pub label: Option<Text>,
    /// How many must be chosen at least.
    #[serde(default)]
    pub min: Option<u32>,
    /// How many may be chosen at most.
    #[serde(default)]
    pub max: Option<u32>,
    /// The type of a value.
    #[serde(default, rename = "type")]
    pub kind: Option<AnswerType>,
    /// The only values allowed.
    #[serde(default, rename = "enum")]
    pub allowed: Vec<Value>,
}

/// How many options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Choose {
    /// Exactly one.
    One,
    /// Several.
    Many,
}

/// The type of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names of the types of inputs")]
pub enum AnswerType {
    String,
    Integer,
    Number,
    Boolean,
    Duration,
    Timestamp,
    Size,
}

fn one() -> u32 {
    1
}
fn yes() -> bool {
    true
}

/// What people decided.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalOutput {
    /// Who approved.
    pub approved_by: Vec<String>,
    /// The answers, by question.
    pub answers: IndexMap<String, Value>,
}

/// The kind `approval`.
pub struct Approval;
/// A prepared approval.
pub struct ApprovalStep {
    params: ApprovalParams,
    ask: IndexMap<String, Question>,
}

impl StepKind for Approval {
    const NAME: &'static str = "approval";
    const TRAITS: StepTraits = StepTraits {
        fidelity: Fidelity::Simulated,
        skippable: false,
        ..StepTraits::READ_ONLY
    };
    const EXAMPLE: &'static str =
        "prompt: Drop the old column?\ngroups: [dba]\nquorum: 2\nexpires: 4h\n";
    type Params = ApprovalParams;
    type Step = ApprovalStep;

    fn prepare(params: ApprovalParams) -> Result<ApprovalStep, Vec<ParamError>> {
        let mut errors = Vec::new();
        let mut ask = IndexMap::new();
        if params.quorum == 0 {
            errors.push(ParamError::new("quorum", "at least one must approve"));
        }
        for (name, question) in &params.ask {
            match question_of(question) {
                Ok(question) => {
                    ask.insert(name.clone(), question);
                }
                Err(why) => errors.push(ParamError::new(format!("ask.{name}"), why)),
            }
        }
        if errors.is_empty() {
            Ok(ApprovalStep { params, ask })
        } else {
            Err(errors)
        }
    }
}

fn question_of(ask: &AskParams) -> Result<Question, String> {
    match (ask.choose, ask.kind) {
        (Some(choose), None) => {
            let options = ask
                .from
                .as_list()
                .ok_or("`from` must be a list of options")?;
            let label = |option: &Value| match &ask.label {
                Some(key) => option
                    .get(key)
                    .map_or_else(|| option.to_string(), ToString::to_string),
                None => option.to_string(),
            };
            let many = choose == Choose::Many;
            let count = u32::try_from(options.len()).unwrap_or(u32::MAX);
            Ok(Question::Choose {
                from: options
                    .iter()
                    .map(|o| Choice {
                        label: label(o),
                        value: o.clone(),
                    })
                    .collect(),
                min: ask.min.unwrap_or(u32::from(!many)),
                max: if many { ask.max.unwrap_or(count) } else { 1 },
                many,
            })
        }
        (None, Some(kind)) => {
            let kind = serde_json::to_value(kind)
                .ok()
                .and_then(|v| v.as_str().map(str::to_owned));
            Ok(Question::Value {
                kind: kind.unwrap_or_default(),
                allowed: ask.allowed.clone(),
            })
        }
        (Some(_), Some(_)) | (None, None) => {
            Err("give either `choose` and `from`, or `type`".to_owned())
        }
    }
}

impl Step for ApprovalStep {
    type Capture = ();
    type State = ();
    type Output = ApprovalOutput;

    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        let who = if self.params.groups.is_empty() {
            "anyone".to_owned()
        } else {
            self.params
                .groups
                .iter()
                .map(|g| g.0.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        Ok(Preview::new(
            Fidelity::Simulated,
            format!("asks {who} for {} approvals", self.params.quorum),
        )
        .line("prompt", self.params.prompt.0.as_str()))
    }

    async fn execute(
        &self,
        (): &(),
        resume: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<ApprovalOutput, ()>, Failure> {
        let refused =
            |code: &str, message: String| Err(Failure::new(code, message).cause(Cause::Refused));
        match resume.woken {
            Some(Woken::Decision(decision)) if decision.approved => {
                let approved_by = decision
                    .votes
                    .iter()
                    .filter(|v| v.approve)
                    .map(|v| v.who.clone())
                    .collect();
                Ok(Outcome::Done(ApprovalOutput {
                    approved_by,
                    answers: decision.answers,
                }))
            }
            Some(Woken::Decision(decision)) => {
                let against: Vec<String> = decision
                    .votes
                    .iter()
                    .filter(|vote| !vote.approve)
                    .map(|vote| match &vote.reason {
                        Some(reason) => format!("{} ({reason})", vote.who),
                        None => vote.who.clone(),
                    })
                    .collect();
                refused(
                    "approval.rejected",
                    format!("rejected by {}", against.join(", ")),
                )
            }
            Some(Woken::Deadline | Woken::Timer | Woken::Signal(_)) => {
                refused("approval.expired", "nobody decided in time".to_owned())
            }
            None => {
                let shown = serde_json::to_vec(&(&self.params.prompt.0, &self.params.show))
                    .map_err(|e| Failure::new("step.stored_format", e.to_string()))?;
                Ok(Outcome::Suspend {
                    state: (),
                    wait: Wait {
                        on: WaitOn::Approval(Box::new(ApprovalRequest {
                            prompt: self.params.prompt.0.clone(),
                            groups: self.params.groups.iter().map(|g| g.0.clone()).collect(),
                            quorum: self.params.quorum,
                            separation_of_duties: self.params.separation_of_duties,
                            show: self.params.show.clone(),
                            shown_hash: hex::encode(Sha256::digest(shown)),
                            ask: self.ask.clone(),
                        })),
                        deadline: self.params.expires.map(|d| d.after(cx.first_started_at)),
                    },
                })
            }
        }
    }
}
