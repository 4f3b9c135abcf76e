use crate::{step::Cause, value::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What holds for a run as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// Names of which one run at a time may hold each, across all hosts on one journal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
    /// When a run may start, and each of its steps that writes, such as `Mon-Fri 09:00-17:00 America/Sao_Paulo`. Undo
    /// and `finally` are not bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
    /// What a step that writes does outside the windows.
    #[serde(default, skip_serializing_if = "OutsideWindow::is_default")]
    pub outside_window: OutsideWindow,
    /// The time for the forward phase; approvals and waits are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,
    /// What a step's failure does where the step does not say.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// What a step that writes does when its turn comes outside the windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutsideWindow {
    /// It waits for the next opening.
    #[default]
    Wait,
    /// It fails, and nothing is written.
    Refuse,
}

impl OutsideWindow {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a failure does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Undo what the run did.
    #[default]
    Undo,
    /// Pause and ask on-call.
    Pause,
    /// Leave everything as it is; a person is needed.
    Stop,
    /// Go on; the run ends *failed*.
    Continue,
    /// Go on as if nothing had happened.
    Ignore,
}

/// When a failed step is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// How the delay grows.
    pub backoff: Backoff,
    /// The shortest delay.
    pub delay: Duration,
    /// The bound of the longest delay.
    pub max_delay: Duration,
    /// Causes that are retried although they are not transient.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Cause>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::Exponential,
            delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(30),
            also: Vec::new(),
        }
    }
}

/// How a retry's delay grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// Drawn between `delay` and a bound that doubles each time, up to `max_delay`.
    #[default]
    Exponential,
    /// Stays the same.
    Constant,
}
