//! What other processes ask of a run, through the journal's inbox.
use crate::{
    step::{Account, shown},
    value::{Timestamp, Value},
};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Vote on an approval.
    Vote {
        /// The approval's path.
        node: String,
        /// For or against.
        approve: bool,
        /// Answers as typed, by question.
        #[serde(default)]
        answers: IndexMap<String, String>,
        /// Why.
        #[serde(default)]
        reason: Option<String>,
        /// The run's digest, as the voter saw it.
        digest: String,
        /// The hash of what the voter was shown.
        shown_hash: String,
    },
    /// Deliver a signal.
    Signal {
        /// Its name.
        name: String,
        /// What it carries.
        #[serde(default)]
        payload: Value,
    },
    /// Start nothing new.
    Pause {
        /// Why.
        #[serde(default)]
        because: Option<String>,
    },
    /// Go on after a pause.
    Unpause,
    /// End the run.
    Cancel {
        /// Whether what was done is undone.
        undo: bool,
        /// Whether running steps are ended, instead of awaited.
        force: bool,
        /// Why.
        #[serde(default)]
        because: Option<String>,
    },
    /// Settle a doubt, a failed undo or a failed step.
    Resolve {
        /// The node's path.
        node: String,
        /// Whether it took effect (or is undone).
        done: bool,
        /// What later steps read.
        #[serde(default)]
        output: Value,
        /// On what grounds.
        because: String,
    },
    /// Try a failed node (or a failed undo, or an unsettled probe) again.
    Retry {
        /// The node's path.
        node: String,
    },
    /// Pass over a node that is pending or failed.
    Skip {
        /// The node's path.
        node: String,
        /// What later steps read.
        #[serde(default)]
        output: Value,
        /// Why.
        because: String,
    },
    /// Change an input, for what has not started.
    SetInput {
        /// The input.
        name: String,
        /// As typed.
        value: String,
    },
    /// Undo what a run did, over or not.
    Undo,
    /// End a stopped or stuck run as it is.
    Close {
        /// On what grounds.
        because: String,
    },
}

/// An entry of the inbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// Chosen by the sender: the same id is consumed once.
    pub id: String,
    /// The run's id.
    pub run: String,
    /// Who sent it, as they call themselves.
    pub who: String,
    /// The account that sent it; none in entries of before accounts were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// When it was sent.
    pub at: Timestamp,
    /// What it says.
    pub command: Command,
}

impl Submitted {
    /// Who sent it, as people read it.
    #[must_use]
    pub fn sender(&self) -> String {
        shown(&self.who, self.account.as_ref())
    }
}
