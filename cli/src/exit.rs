//! The exit codes: the one place where they stand.
use std::process::ExitCode;

/// How the command ends, for scripts and schedulers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked is done; a run succeeded.
    Succeeded,
    /// The run is over: it failed, was undone or was cancelled. Or a check says no (`fmt --check`, `doctor`, `audit`). Never of a
    /// run that is open.
    Failed,
    /// The playbook, an input, the environment or the command line is wrong. Nothing was touched.
    Invalid,
    /// A person is needed: a doubt stands, an undo failed, the run stopped or is paused.
    Person,
    /// The run waits for an approval, a signal or a time, and no process drives it.
    Waiting,
    /// Refused by a rule: the plan drifted, outside the windows, a lock is taken, a target is another server or has another role,
    /// another process drives the run, a vote does not count.
    Refused,
    /// A target cannot be reached, so nothing was started.
    Unreachable,
    /// The journal or this process failed. A run that was driven is open, keeps its place and can be resumed.
    Broken,
    /// Interrupted by Ctrl-C or SIGTERM; the run can be resumed.
    Interrupted,
}

impl Exit {
    /// Every exit code, in the order of the numbers.
    pub(crate) const ALL: [Self; 9] = [
        Self::Succeeded,
        Self::Failed,
        Self::Invalid,
        Self::Person,
        Self::Waiting,
        Self::Refused,
        Self::Unreachable,
        Self::Broken,
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
            Self::Unreachable => 6,
            Self::Broken => 7,
            Self::Interrupted => 130,
        }
    }

    /// What it means, in one line.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => {
                "the run is over: failed, compensated (undone) or cancelled; or a check says no"
            }
            Self::Invalid => {
                "invalid playbook, input, environment, journal or usage, or a question was not answered with yes; nothing was touched"
            }
            Self::Person => {
                "stuck, stopped or paused: a person is needed, `windlass show RUN` says for what"
            }
            Self::Waiting => {
                "waiting for an approval, a signal or a time, and no process drives the run"
            }
            Self::Refused => {
                "refused by a rule: plan, window, lock, key, another server, another process that drives the run, a command or vote that the run does not take"
            }
            Self::Unreachable => "a target cannot be reached; nothing was started",
            Self::Broken => {
                "the journal or the process failed; a run is open, and `windlass resume RUN` continues it"
            }
            Self::Interrupted => {
                "interrupted (Ctrl-C, SIGTERM); a run that was driven is open, and `windlass resume RUN` continues it"
            }
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

/// One code, by its number.
pub(crate) fn one(code: &str) -> Option<String> {
    let exit = Exit::ALL
        .into_iter()
        .find(|exit| exit.code().to_string() == code)?;
    Some(format!("exit code {code}: {}", exit.meaning()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_there_once() {
        let mut codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        codes.dedup();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 130]);
        assert!(table().contains("130  interrupted"));
    }
}
