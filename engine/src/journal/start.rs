//! How a run begins: its locks and its key are taken in the commit that makes it, so that a start which is refused leaves no run.
use super::{JournalError, LockHeld};
use crate::{
    step::{Account, shown},
    value::Timestamp,
};
use serde::{Deserialize, Serialize};

/// What a run takes as it begins, in one commit with its first events: all of it, or there is no run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Names of `policy.locks`.
    pub locks: Vec<String>,
    /// The key that the start is known by.
    pub key: Option<StartKey>,
}

/// A start that happens once, however often it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartKey {
    /// Unique in a journal, for good.
    pub key: String,
    /// What it starts.
    pub of: StartOf,
}

/// What a start is of, as hashes: the same key for anything else is a mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartOf {
    /// Of the playbook's text, and of the texts that it calls.
    pub playbook: String,
    /// Of its inputs.
    pub inputs: String,
    /// Of the environment's name and of where its targets are.
    pub place: String,
}

impl StartOf {
    /// The first thing that differs from what the key started, in words.
    #[must_use]
    pub fn differs(&self, first: &Self) -> Option<&'static str> {
        [
            ("with another playbook", self.playbook == first.playbook),
            ("with other inputs", self.inputs == first.inputs),
            (
                "in another environment or with other targets",
                self.place == first.place,
            ),
        ]
        .into_iter()
        .find_map(|(what, same)| (!same).then_some(what))
    }
}

/// The run that a key started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// The run.
    pub run: String,
    /// What it was started of.
    pub of: StartOf,
}

/// Why no run began. Nothing was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotBegun {
    /// A lock is taken.
    #[error(transparent)]
    Locked(LockHeld),
    /// The key has started a run.
    #[error("key {key:?} has started run {}", first.run)]
    KeyUsed {
        /// The key.
        key: String,
        /// What it started.
        first: Keyed,
    },
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What refused a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBy {
    /// `policy.windows`.
    Window,
    /// `policy.locks`: another run holds one.
    Lock,
    /// A target that is another one, or has another role, than the playbook asks for.
    Target,
    /// A target that cannot be reached.
    Unreachable,
    /// The approved plan is not what would run.
    Plan,
    /// The key has started another run.
    Key,
}

impl RefusedBy {
    /// The word for lists.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Lock => "lock",
            Self::Target => "target",
            Self::Unreachable => "unreachable",
            Self::Plan => "plan",
            Self::Key => "key",
        }
    }
}

/// A start that was refused: no run came of it, so it is no run. A journal keeps the last [`REFUSED_KEPT`] of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedStart {
    /// When.
    pub at: Timestamp,
    /// The playbook's name.
    pub playbook: String,
    /// The environment's name.
    pub environment: String,
    /// Who asked for it.
    pub by: String,
    /// The account of the operating system that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// The key that it was asked for with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What refused it.
    pub refused_by: RefusedBy,
    /// Why, in a sentence.
    pub why: String,
}

impl RefusedStart {
    /// Who asked for it, as people read it.
    #[must_use]
    pub fn starter(&self) -> String {
        shown(&self.by, self.account.as_ref())
    }
}

/// How many refused starts a journal keeps: a scheduler that asks each minute must not fill it.
pub const REFUSED_KEPT: u64 = 1_000;
