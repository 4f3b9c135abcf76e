//! What steps printed: beside the events, outside the hash chain, and never read to decide anything.
use crate::{
    step::{Phase, Stream},
    value::Timestamp,
};
use serde::{Deserialize, Serialize};

/// A piece of what a step printed, without the content of secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printed {
    /// Its place in the run, from 1; a number may be missing where something was cut.
    pub no: u64,
    /// When it came.
    pub at: Timestamp,
    /// The step.
    pub node: String,
    /// Forward or undo.
    pub phase: Phase,
    /// The attempt.
    pub attempt: u32,
    /// Where it was printed.
    pub stream: Stream,
    /// How many bytes are missing here because the cap was reached; `text` is empty then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut: u64,
    /// The text, whole lines as a rule.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What goes into a journal in one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prints {
    /// Pieces to keep; one at a place that is taken replaces what stands there.
    pub keep: Vec<Printed>,
    /// Places to empty.
    pub forget: Vec<u64>,
}

/// Which pieces of a run are asked for, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrintedOf {
    /// Only those behind this place.
    pub after: u64,
    /// Only those of this step and of what is inside it.
    pub step: Option<String>,
    /// At most so many, the newest of them where `newest`, else the oldest.
    pub most: u32,
    /// Which end is asked for.
    pub newest: bool,
}

impl PrintedOf {
    /// All pieces behind a place, some at a time.
    #[must_use]
    pub fn after(after: u64) -> Self {
        Self {
            after,
            step: None,
            most: 1_000,
            newest: false,
        }
    }

    /// The last pieces of a step.
    #[must_use]
    pub fn last(step: &str, most: u32) -> Self {
        Self {
            after: 0,
            step: Some(step.to_owned()),
            most,
            newest: true,
        }
    }

    /// Whether a piece is asked for, but for how many there may be.
    pub(super) fn fits(&self, printed: &Printed) -> bool {
        printed.no > self.after
            && self.step.as_ref().is_none_or(|step| {
                printed
                    .node
                    .strip_prefix(step.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '[']))
            })
    }
}

/// How much of a run is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrintedSize {
    /// The last place that is taken.
    pub last: u64,
    /// Bytes of text.
    pub bytes: u64,
}
