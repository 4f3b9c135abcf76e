//! What a step that suspends waits for, and what wakes it.
use super::{Account, shown};
use crate::value::{Timestamp, Value};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// A suspended step holds no thread and no connection; this says what wakes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// What wakes it.
    pub on: WaitOn,
    /// When it gives up ([`Woken::Deadline`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// The instant of the wall clock that it is about, if it is about one (wait until 02:00): the timer or
    /// the deadline is where that instant was in the time of the run, and is set anew if the wall clock is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<Timestamp>,
}

/// What wakes a suspended step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitOn {
    /// An instant.
    Timer(Timestamp),
    /// A signal of this name, sent from outside. Signals that came early are kept; the oldest is taken.
    Signal(String),
    /// A decision by people.
    Approval(Box<ApprovalRequest>),
}

/// What woke a suspended step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Woken {
    /// The timer came.
    Timer,
    /// The deadline came first.
    Deadline,
    /// The signal came, with its payload.
    Signal(Value),
    /// People decided.
    Decision(ApprovalDecision),
}

/// What people are asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// The question, as text.
    pub prompt: String,
    /// Groups whose members may vote; empty means anyone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// How many approvals are needed.
    pub quorum: u32,
    /// Whether the one who started the run may not vote.
    pub separation_of_duties: bool,
    /// What was shown with the question.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub show: Value,
    /// SHA-256 of the JSON of `show`, in hexadecimal; a vote names it.
    pub shown_hash: String,
    /// Questions with typed answers.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub ask: IndexMap<String, Question>,
}

/// A question whose answer becomes output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Choose among options.
    Choose {
        /// The options, in the order shown; an answer gives their numbers from 1.
        from: Vec<Choice>,
        /// How many must be chosen at least.
        min: u32,
        /// How many may be chosen at most; 1 makes the answer a single value.
        max: u32,
        /// Whether the answer is a list.
        many: bool,
    },
    /// Give a value of a declared type.
    Value {
        /// `string`, `integer`, `number`, `boolean`, `duration`, `timestamp` or `size`.
        #[serde(rename = "type")]
        kind: String,
        /// The only values allowed, if any are named.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allowed: Vec<Value>,
    },
}

/// One option of a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// What people read.
    pub label: String,
    /// What the answer becomes.
    pub value: Value,
}

/// An answer as it was given on the command line or over HTTP, before it is checked.
pub type Answer = String;

/// One person's vote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    /// Who voted, as they call themselves.
    pub who: String,
    /// The account that voted; none in votes of before accounts were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// When.
    pub at: Timestamp,
    /// For or against.
    pub approve: bool,
    /// Checked answers.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub answers: IndexMap<String, Value>,
    /// Why, in the voter's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The hash of what the voter was shown.
    pub shown_hash: String,
}

impl Vote {
    /// Who voted, as people read it.
    #[must_use]
    pub fn voter(&self) -> String {
        shown(&self.who, self.account.as_ref())
    }
}

/// What people decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalDecision {
    /// Whether the quorum approved.
    pub approved: bool,
    /// Every vote that counted.
    pub votes: Vec<Vote>,
    /// The answers that the quorum agrees on.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub answers: IndexMap<String, Value>,
}
