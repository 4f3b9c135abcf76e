use crate::value::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether anything happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Nothing happened, and nothing will.
    NoEffect,
    /// A part happened (a script without a transaction, stopped half-way).
    Partial,
    /// It may have happened: probe before anything else.
    Unknown,
}

/// Why a step failed, as far as `retry` cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The database gave up a transaction that raced another.
    SerializationFailure,
    /// The database broke a deadlock.
    Deadlock,
    /// A lock was not granted in time.
    LockTimeout,
    /// The connection was lost or could not be made.
    ConnectionLost,
    /// The service asked to slow down.
    Throttled,
    /// The step's own timeout.
    Timeout,
    /// The run was cancelled.
    Cancelled,
    /// A guard of the step refused (`expect_rows`, a failed check, a rejected approval).
    Refused,
    /// The engine stopped while it ran, before anything happened.
    Interrupted,
    /// Anything else: the same call would fail again.
    Permanent,
}

impl Cause {
    /// What a step that speaks to a server may fail with.
    pub const OF_SERVERS: &'static [Self] = &[
        Self::SerializationFailure,
        Self::Deadlock,
        Self::LockTimeout,
        Self::ConnectionLost,
        Self::Throttled,
        Self::Timeout,
        Self::Refused,
        Self::Permanent,
    ];

    /// As `retry.also` names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SerializationFailure => "serialization_failure",
            Self::Deadlock => "deadlock",
            Self::LockTimeout => "lock_timeout",
            Self::ConnectionLost => "connection_lost",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
            Self::Permanent => "permanent",
        }
    }

    /// Whether a server did not answer, or has no room now: nothing is known to be wrong with what was asked of it.
    #[must_use]
    pub fn is_down(self) -> bool {
        matches!(self, Self::ConnectionLost | Self::Throttled)
    }

    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_transient(self) -> bool {
        match self {
            Self::SerializationFailure
            | Self::Deadlock
            | Self::LockTimeout
            | Self::ConnectionLost
            | Self::Throttled => true,
            Self::Timeout
            | Self::Cancelled
            | Self::Refused
            | Self::Interrupted
            | Self::Permanent => false,
        }
    }
}

/// What a step says when it did not succeed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// A stable code, such as `sql.lock_timeout` or `verify.failed`.
    pub code: String,
    /// What happened, in one sentence, lower case, without a full stop.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Why, for `retry`.
    pub cause: Cause,
    /// Whether anything happened.
    pub certainty: Certainty,
    /// What was seen all the same (`verify`: all its checks).
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
}

impl Failure {
    /// A permanent failure without effect.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            help: None,
            cause: Cause::Permanent,
            certainty: Certainty::NoEffect,
            output: Value::Null,
        }
    }

    /// With what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With a cause.
    #[must_use]
    pub fn cause(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// With a certainty.
    #[must_use]
    pub fn certainty(mut self, certainty: Certainty) -> Self {
        self.certainty = certainty;
        self
    }

    /// With what was seen.
    #[must_use]
    pub fn output(mut self, output: Value) -> Self {
        self.output = output;
        self
    }
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEffect => "nothing happened",
            Self::Partial => "it may have taken effect in part",
            Self::Unknown => "it is not known whether it happened",
        })
    }
}
