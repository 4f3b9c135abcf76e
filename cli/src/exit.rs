//! The exit codes: the one place where they stand.
use std::process::ExitCode;

/// How the command ends, for scripts and schedulers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked is done; a run succeeded.
    Succeeded,
    /// The run failed, was undone or was cancelled; the answer is no (`fmt --check`, a damaged journal).
    Failed,
    /// The playbook, an input, the environment or the command line is wrong. Nothing was touched.
    Invalid,
    /// A person is needed: a doubt stands, an undo failed, the run stopped or is paused.
    Person,
    /// The run waits for an approval, a signal or a time, and nobody drives it.
    Waiting,
    /// Refused: the plan drifted, outside the windows, a lock is taken, another process drives the run, a vote
    /// does not count.
    Refused,
    /// Interrupted by Ctrl-C or SIGTERM; the run can be resumed.
    Interrupted,
}

impl Exit {
    /// Every exit code, in the order of the numbers.
    pub(crate) const ALL: [Self; 7] = [
        Self::Succeeded,
        Self::Failed,
        Self::Invalid,
        Self::Person,
        Self::Waiting,
        Self::Refused,
        Self::Interrupted,
    ];

    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::Person => 3,
            Self::Waiting => 4,
            Self::Refused => 5,
            Self::Interrupted => 130,
        }
    }

    /// What it means, in one line.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed, compensated (undone) or cancelled; a check that says no",
            Self::Invalid => "invalid playbook, input, environment or usage; nothing was touched",
            Self::Person => {
                "stuck, stopped or paused: a person is needed, `windlass show RUN` says for what"
            }
            Self::Waiting => {
                "waiting for an approval, a signal or a time, and nobody drives the run"
            }
            Self::Refused => {
                "refused: plan drift, window, lock, driven by another process, a vote that does not count"
            }
            Self::Interrupted => "interrupted (Ctrl-C, SIGTERM); `windlass resume RUN` goes on",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table, for `--help` and `windlass explain exit-codes`.
pub(crate) fn table() -> String {
    let mut text = String::from("Exit codes:\n");
    for exit in Exit::ALL {
        text.push_str(&format!("  {:>3}  {}\n", exit.code(), exit.meaning()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_there_once() {
        let mut codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        codes.dedup();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 130]);
        assert!(table().contains("130  interrupted"));
    }
}
