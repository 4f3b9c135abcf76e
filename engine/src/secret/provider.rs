//! What gives the content of a secret, and what goes wrong with it. No text here ever holds content.
use crate::step::{Cause, Failure, Revealed};
use futures_util::future::BoxFuture;
use std::{fmt, path::PathBuf};

/// Gives the content of one secret.
pub trait SecretProvider: fmt::Debug + Send + Sync {
    /// Where it comes from, for people: `environment variable ORDERS_PASSWORD`. Never what it is.
    fn source(&self) -> String;

    /// Fetches the content, without the line break at its end.
    ///
    /// # Errors
    /// Where it is not there or may not be read; the text never holds the content.
    fn fetch(&self) -> BoxFuture<'_, Result<Revealed, SecretError>>;
}

/// Why the content of a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The environment names no such secret.
    #[error("the environment has no secret {name:?}")]
    Unknown {
        /// The name.
        name: String,
        /// What to do.
        help: String,
    },
    /// The variable is not there.
    #[error("environment variable {variable} is not set")]
    Unset {
        /// Its name.
        variable: String,
    },
    /// The content is no text.
    #[error("{origin} holds bytes that are not UTF-8 text")]
    NotText {
        /// Where it comes from.
        origin: String,
    },
    /// The content has nothing in it, or too little to be told from other text.
    #[error("{origin} holds {chars} characters, and a secret has {least} or more")]
    TooShort {
        /// Where it comes from.
        origin: String,
        /// How many there are.
        chars: usize,
        /// How many there must be.
        least: usize,
    },
    /// The content is longer than any secret.
    #[error("{origin} holds more than {limit} bytes")]
    TooLong {
        /// Where it comes from.
        origin: String,
        /// The most that it may hold.
        limit: usize,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Others may read the file.
    #[error("{} can be read by {who} (mode {mode:o})", path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// `its group` or `everybody`.
        who: &'static str,
    },
    /// The program does not start.
    #[error("{program} could not be started: {error}")]
    NotStarted {
        /// The program.
        program: String,
        /// Why.
        error: std::io::Error,
    },
    /// The program failed.
    #[error("{program} {how}")]
    Program {
        /// The program.
        program: String,
        /// `ended with exit code 1`.
        how: String,
    },
    /// The program took too long.
    #[error("{program} did not answer within {limit} and was ended")]
    Timeout {
        /// The program.
        program: String,
        /// How long it had.
        limit: crate::value::Duration,
    },
}

impl SecretError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "secret.unknown",
            Self::Unset { .. } => "secret.not_set",
            Self::NotText { .. } => "secret.not_text",
            Self::TooShort { .. } => "secret.too_short",
            Self::TooLong { .. } => "secret.too_long",
            Self::File { .. } => "secret.file",
            Self::Readable { .. } => "secret.readable",
            Self::NotStarted { .. } | Self::Program { .. } => "secret.command",
            Self::Timeout { .. } => "secret.timeout",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Unknown { help, .. } => help.clone(),
            Self::Unset { variable } => {
                format!("export {variable}, or name another source under `secrets` in windlass.yaml")
            }
            Self::NotText { .. } => {
                "keep it as text: base64, say, which the step decodes".to_owned()
            }
            Self::TooShort { chars: 0, .. } => "put the secret there".to_owned(),
            Self::TooShort { .. } => {
                "take a longer one: one this short could not be kept out of what is written".to_owned()
            }
            Self::TooLong { .. } => "point the source at the secret alone".to_owned(),
            Self::File { .. } => {
                "check `file` of the secret in windlass.yaml; a relative path starts there".to_owned()
            }
            Self::Readable { path, who, .. } => {
                let other = if *who == "its group" {
                    ", or write `allow_group_read: true` beside `file` in windlass.yaml"
                } else {
                    ""
                };
                format!("chmod 600 {}{other}", path.display())
            }
            Self::NotStarted { .. } => {
                "check `command` of the secret in windlass.yaml: a list of the program and its arguments, without a \
                 shell; `inherit_env` lets variables through"
                    .to_owned()
            }
            Self::Program { .. } => {
                "run it by hand: what it said is not shown, since it may hold the secret; `inherit_env` lets \
                 variables through"
                    .to_owned()
            }
            Self::Timeout { .. } => {
                "run it by hand; does it ask for something? `timeout` beside `command` gives it longer".to_owned()
            }
        }
    }

    /// As the failure of whoever needed the secret of this name.
    #[must_use]
    pub fn failure(&self, name: &str) -> Failure {
        let message = match self {
            Self::Unknown { .. } => self.to_string(),
            other => format!("secret {name:?} cannot be fetched: {other}"),
        };
        let failure = Failure::new(self.code(), message).help(self.help());
        match self {
            // A vault that does not answer may answer a moment later.
            Self::Timeout { .. } => failure.cause(Cause::ConnectionLost),
            Self::Unknown { .. }
            | Self::Unset { .. }
            | Self::NotText { .. }
            | Self::TooShort { .. }
            | Self::TooLong { .. }
            | Self::File { .. }
            | Self::Readable { .. }
            | Self::NotStarted { .. }
            | Self::Program { .. } => failure,
        }
    }
}
