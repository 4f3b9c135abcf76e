//! What a report says, as data: `schemas/report.schema.json`.
use crate::step::{Account, Figure, Measure};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The version of the report's form.
pub const REPORT_FORMAT: u32 = 1;

/// A run, by its events: the same events give the same report, byte for byte, but for `last_lines`.
///
/// Instants are RFC 3339 in UTC, spans are whole milliseconds. Secrets were taken out before the journal; what a step's
/// `evidence.mask` names is masked here wherever it appears.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Report {
    /// [`REPORT_FORMAT`].
    pub format: u32,
    /// The run's id.
    pub run: String,
    /// Its last eight characters.
    pub short_id: String,
    /// The playbook.
    pub playbook: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The environment.
    pub environment: String,
    /// Who started it, as they call themselves.
    pub by: String,
    /// The account of the operating system that started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// When.
    pub started_at: String,
    /// The last event; the end, where the run is over.
    pub last_event_at: String,
    /// From the start to the last event.
    pub took_ms: i64,
    /// `succeeded`, `failed`, `compensated`, `stopped`, `cancelled`, or its state so far: `running`, `waiting`, `paused`,
    /// `compensating`, `stuck`.
    pub state: String,
    /// What that means here; empty where the word says it all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state_means: String,
    /// Whether it is over.
    pub is_finished: bool,
    /// The digest of the plan that was approved, or of the definition and the inputs.
    pub digest: String,
    /// The version of the engine that started it.
    pub engine: String,
    /// The files that it ran from.
    pub sources: Vec<SourceFile>,
    /// The inputs.
    pub inputs: BTreeMap<String, Json>,
    /// Where it acted.
    pub targets: Vec<TargetReport>,
    /// What the playbook gives.
    pub outputs: BTreeMap<String, Json>,
    /// Every check of every step that makes checks, recovery point and recovery time among them.
    pub checks: Vec<CheckReport>,
    /// What people were asked, and what they said.
    pub approvals: Vec<ApprovalReport>,
    /// What people ordered.
    pub commands: Vec<CommandReport>,
    /// The processes that took it over from the one that started it.
    pub drivers: Vec<DriverReport>,
    /// The steps in the order of the playbook, inner ones within.
    pub steps: Vec<StepReport>,
    /// The names of `finally` steps that failed beside the outcome.
    pub finally_failed: Vec<String>,
    /// Outputs that could not be computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_error: Option<String>,
    /// What happened, one line an event.
    pub log: Vec<LogLine>,
    /// The head of the run's hash chain; `windlass audit RUN --expect HEAD` checks the journal against it.
    pub chain: Chain,
}

/// A file that a run ran from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SourceFile {
    /// As it was named.
    pub path: String,
    /// Of its text, in hexadecimal.
    pub sha256: String,
}

/// A target as the run found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TargetReport {
    /// As the playbook names it.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What distinguishes the server from every other: host and port or a path; of a derived one its URL and what was replaced.
    pub place: String,
    /// What distinguishes the cluster from every other: a system identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// `primary` or `standby`, where it has roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Which history of its cluster it was on: each promotion begins the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// The server's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A check.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CheckReport {
    /// The step that made it.
    pub step: String,
    /// What it proves; `rpo` and `rto` are those of a recovery.
    pub name: String,
    /// Whether it held.
    pub passed: bool,
    /// `error` or `warning`.
    pub severity: String,
    /// What must hold.
    pub expected: String,
    /// What was seen.
    pub seen: Json,
    /// Why it could not be made, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A question to people.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ApprovalReport {
    /// The step.
    pub step: String,
    /// What was asked.
    pub prompt: String,
    /// What was shown with it.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub shown: Json,
    /// SHA-256 of what was shown.
    pub shown_hash: String,
    /// Who was asked; empty means anyone.
    pub groups: Vec<String>,
    /// How many had to agree.
    pub quorum: u32,
    /// Whether the one who started the run could not vote.
    pub separation_of_duties: bool,
    /// The votes.
    pub votes: Vec<VoteReport>,
}

/// A vote.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct VoteReport {
    /// Who, as they call themselves.
    pub who: String,
    /// The account of the operating system that voted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// When it was cast.
    pub at: String,
    /// For or against.
    pub approve: bool,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The answers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, Json>,
    /// The hash of what the voter was shown.
    pub shown_hash: String,
}

/// What a person ordered.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CommandReport {
    /// When it was sent.
    pub at: String,
    /// Who, as they call themselves.
    pub who: String,
    /// The account of the operating system that sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// What.
    pub command: Json,
    /// Why it was refused, where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A process that drove the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DriverReport {
    /// Grows by one with each.
    pub epoch: u64,
    /// Whose process, as they call themselves.
    pub user: String,
    /// The account of the operating system that it ran under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// Where.
    pub host: String,
    /// Its id.
    pub pid: u32,
    /// When it took the run over.
    pub since: String,
    /// Targets that were failed over since the run started, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failovers: Vec<String>,
    /// Targets that could not be reached when it took the run over, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<String>,
}

/// A step, group, call or `foreach`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StepReport {
    /// Its path: `fill[17]/copy`.
    pub path: String,
    /// The kind of a step; `group`, `playbook` or `foreach`.
    pub kind: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `playbook.yaml:12`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Its state.
    pub state: String,
    /// The siblings that had to settle before it.
    pub needs: Vec<String>,
    /// Whether it is undone on success too: a scratch resource.
    pub is_cleanup: bool,
    /// Whether it is in `finally`.
    pub in_finally: bool,
    /// Its item, where it is one of a `foreach`.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub item: Json,
    /// When it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// From the one to the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<i64>,
    /// What it did: rows, bytes, a status.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<FigureReport>,
    /// What it printed last, where it failed, runs or is in doubt. It is kept beside the events: the chain does not cover it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
    /// Why it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// How it would be undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
    /// Its attempts, those of its undo among them.
    pub attempts: Vec<AttemptReport>,
    /// What it gave.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub output: Json,
    /// What it kept to prove what it saw.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<EvidenceReport>,
    /// Why output and evidence are not here, where they were left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// Doubts, and how each was settled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<DoubtReport>,
    /// What is inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepReport>,
}

/// One thing that a step did.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FigureReport {
    /// What it is, in one word: `rows`, `stdout`, `status`.
    pub name: String,
    /// What the value is: `count`, `share` (of `of`), `bytes`, `code` or `text`.
    pub unit: String,
    /// The value.
    pub value: Json,
    /// The whole, of a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// As people read it: `2,000 rows`.
    pub text: String,
}

impl From<&Figure> for FigureReport {
    fn from(figure: &Figure) -> Self {
        let (unit, value, of) = match &figure.measure {
            Measure::Count(n) => ("count", Json::from(*n), None),
            Measure::Share { part, of } => ("share", Json::from(*part), Some(*of)),
            Measure::Bytes(n) => ("bytes", Json::from(*n), None),
            Measure::Code(code) => ("code", Json::from(*code), None),
            Measure::Text(text) => ("text", Json::from(text.as_str()), None),
        };
        Self {
            name: figure.name.to_owned(),
            unit: unit.to_owned(),
            value,
            of,
            text: figure.to_string(),
        }
    }
}

/// An attempt.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct AttemptReport {
    /// Whether it is one of the undo.
    pub is_undo: bool,
    /// From 1.
    pub attempt: u32,
    /// Why it started: `first`, `retry`, `interrupted`, `operator`.
    pub cause: String,
    /// When.
    pub started_at: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// How: `succeeded`, `failed`, `in doubt`, `not done`; none while it is in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// What it did: rows, bytes, a status.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<FigureReport>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureReport>,
    /// Its parameters; secrets are names.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub input: Json,
    /// Conditions that were decided, with what they gave.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decided: Vec<FactReport>,
    /// What was read so that it could be undone.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub capture: Json,
    /// What would tell whether it took effect.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub mark: Json,
    /// Times in which it slept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<WaitReport>,
}

/// An expression and what it gave.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FactReport {
    /// `when`, `gate`, `items`.
    pub what: String,
    /// Its source.
    pub expr: String,
    /// What it gave.
    pub value: Json,
}

/// A time in which a step slept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WaitReport {
    /// For what: `timer`, `signal NAME`, `approval`.
    pub on: String,
    /// From when.
    pub from: String,
    /// Until when; none while it sleeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FailureReport {
    /// A stable code.
    pub code: String,
    /// What happened.
    pub message: String,
    /// Whether anything took effect.
    pub certainty: String,
    /// Why no other attempt followed, where the step has a `retry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_retried: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Something that was kept.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct EvidenceReport {
    /// What it is.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// The content.
    pub content: Json,
    /// Its size in bytes before it was cut.
    pub size: u64,
    /// Whether it was cut.
    pub truncated: bool,
}

/// A doubt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DoubtReport {
    /// When it arose.
    pub at: String,
    /// Why it was not known.
    pub why: String,
    /// How it was settled, and by whom; none if it is still in doubt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<String>,
}

/// One event in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LogLine {
    /// When.
    pub at: String,
    /// Whom it is about; empty for the run.
    pub node: String,
    /// What happened.
    pub text: String,
}

/// The head of a hash chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Chain {
    /// How many events it holds.
    pub events: u64,
    /// SHA-256 in hexadecimal.
    pub head: String,
}

impl StepReport {
    /// Its state as people say it.
    #[must_use]
    pub fn word(&self) -> String {
        match self.state.as_str() {
            "undone" if self.is_cleanup => "cleaned up".to_owned(),
            other => other.replace('_', " "),
        }
    }
}
