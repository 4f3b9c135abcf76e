//! What the command line says when it cannot do as asked: what, where or why, and what to do next.
use crate::{exit::Exit, ui::Style};
use windlass_engine::{
    journal::{JournalError, LockHeld, RefusedBy},
    run::RunError,
};

/// An error as the user reads it.
#[derive(Debug, Clone)]
pub(crate) struct CliError {
    /// With what the process ends.
    pub(crate) exit: Exit,
    /// What happened: one sentence, lower case, without a full stop.
    pub(crate) message: String,
    /// Where it is, or what it means.
    pub(crate) notes: Vec<String>,
    /// What to do next.
    pub(crate) help: Vec<String>,
    /// Everything was said already; only the exit code is left.
    pub(crate) said: bool,
}

impl CliError {
    /// An error that ends the process so.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            notes: Vec::new(),
            help: Vec::new(),
            said: false,
        }
    }

    /// Wrong usage, input or file.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Exit::Invalid, message)
    }

    /// All that there is to say is on the screen.
    pub(crate) fn said(exit: Exit) -> Self {
        Self {
            said: true,
            ..Self::new(exit, "")
        }
    }

    /// With where it is or what it means.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// With what to do next.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &std::path::Path, doing: &str, error: &std::io::Error) -> Self {
        Self::invalid(format!("cannot {doing} {}: {error}", path.display()))
    }

    /// As it is printed.
    pub(crate) fn render(&self, style: Style) -> String {
        let mut text = format!("{}: {}\n", style.red("error"), self.message);
        for note in &self.notes {
            indent(&mut text, &format!("  {} ", style.blue("=")), "    ", note);
        }
        for help in &self.help {
            let lead = format!("  {} {}: ", style.blue("="), style.bold("help"));
            indent(&mut text, &lead, "          ", help);
        }
        text
    }
}

fn indent(text: &mut String, first: &str, rest: &str, body: &str) {
    for (index, line) in body.lines().enumerate() {
        let lead = if index == 0 { first } else { rest };
        text.push_str(&format!("{lead}{line}\n"));
    }
}

impl From<JournalError> for CliError {
    fn from(error: JournalError) -> Self {
        let message = error.to_string();
        match error {
            JournalError::NoSuchRun(_) => Self::invalid(message)
                .help("`windlass runs` lists the runs of this journal; `--journal PATH` names another journal"),
            JournalError::Ambiguous { .. } => Self::invalid(message).help("`windlass runs` shows the whole ids"),
            JournalError::LeaseHeld { run, holder } => Self::new(Exit::Refused, message)
                .note("one process at a time drives a run")
                .help(format!(
                    "`windlass watch {0}` follows it; Ctrl-C in process {1} on {2} lets it go, and then this command continues the run",
                    short(&run),
                    holder.pid,
                    holder.host
                )),
            JournalError::LeaseLost { run } => Self::new(Exit::Refused, message)
                .note("this process started nothing after that")
                .help(format!("`windlass show {}` says who drives it now", short(&run))),
            JournalError::SequenceTaken { run, .. } => Self::new(Exit::Refused, message)
                .note("another process wrote to this run")
                .help(format!("`windlass show {}` shows its state", short(&run))),
            JournalError::NotInInbox { run, .. } => Self::new(Exit::Refused, message)
                .help(format!("`windlass show {}` says what became of it", short(&run))),
            JournalError::Corrupt { run, .. } => Self::new(Exit::Broken, message)
                .note("the file was changed by something other than windlass, or the disk is failing")
                .help(format!(
                    "keep a copy of the journal, then `windlass audit {}`; nothing is run from a history that does not hold",
                    short(&run)
                )),
            JournalError::Newer { .. } => {
                Self::invalid(message).help("use the windlass that wrote it, or a newer one")
            }
            JournalError::Missing { .. } => Self::invalid(message)
                .note("so there is no run yet")
                .help("`windlass run PLAYBOOK` starts one; `--journal PATH` names another journal"),
            JournalError::Unusable { .. } => Self::invalid(message).help(
                "`--journal PATH` names another journal; `windlass doctor` checks who may use this one",
            ),
            JournalError::Copied { original, .. } => Self::new(Exit::Refused, message)
                .note("both hold the same runs and neither sees the other's locks: a run that both drive acts twice")
                .help(format!("use {original}; what a copy holds can be shown, audited and reported"))
                .help(format!("if {original} is no longer used, move it away: then this one takes its place")),
            JournalError::Replaced { .. } => Self::new(Exit::Broken, message)
                .note(
                    "a run that this process drove is open: it stopped before its next step, and what it did last may not be in \
                     the journal",
                )
                .help("put the journal's files back (FILE, FILE-wal and FILE.locks belong together), then `windlass resume RUN`")
                .help("never move or restore a journal under a run: `windlass runs` says which runs are driven"),
            JournalError::DiskFull { .. } => Self::new(Exit::Broken, message)
                .note("a run that this process drove is open and keeps its place")
                .help("free some space, then `windlass resume RUN` continues it"),
            JournalError::Store(_) => Self::new(Exit::Broken, message)
                .note("a run that this process drove is open and keeps its place")
                .help("check the journal's file and folder, then `windlass resume RUN` continues it"),
        }
    }
}

impl From<LockHeld> for CliError {
    fn from(error: LockHeld) -> Self {
        let message = error.to_string();
        match error {
            LockHeld::Held { run, .. } => Self::new(Exit::Refused, message)
                .note("`policy.locks` lets one run at a time hold it")
                .help(format!(
                    "`windlass show {}` shows the state of that run; start again when it has ended",
                    short(&run)
                )),
            LockHeld::Journal(error) => error.into(),
        }
    }
}

/// The short form of a run's id: its last eight characters, as lists show it.
pub(crate) fn short(run: &str) -> &str {
    let start = run.char_indices().rev().nth(7).map_or(0, |(at, _)| at);
    run.get(start..).unwrap_or(run)
}

impl From<&RunError> for CliError {
    fn from(error: &RunError) -> Self {
        let message = error.to_string();
        match error {
            RunError::Journal(inner) => inner.clone().into(),
            RunError::Locked(held) => held.clone().into(),
            RunError::OutsideWindow(_) => Self::new(Exit::Refused, message)
                .note("`policy.windows` of the playbook says when it may start; nothing was started")
                .help("start it again inside a window"),
            RunError::Secret { help, .. } => {
                let error = Self::new(Exit::Refused, message)
                    .note("no step was started: what the secret left on the servers could not be kept out of the journal")
                    .note("the run keeps its place; what needs no step (a rejection, `windlass cancel RUN --leave`) is done without it");
                let gone = "where the secret is gone for good, let its source in windlass.yaml give anything of four or \
                            more characters, then `windlass resume`";
                match help {
                    Some(help) => error.help(help.clone()).help(gone),
                    None => error.help(gone),
                }
            }
            RunError::Target {
                target,
                cause,
                help,
                ..
            } => {
                let exit = match error.refused_by() {
                    Some(RefusedBy::Unreachable) => Exit::Unreachable,
                    Some(_) => Exit::Refused,
                    None => Exit::Invalid,
                };
                let error = Self::new(exit, message).note("nothing was started");
                let error = match help {
                    Some(help) => error.help(help.clone()),
                    None => error.help("check the target's url in windlass.yaml and that the server answers"),
                };
                if cause.is_down() {
                    error.help(format!(
                        "if the run can begin without it, write `when_down: continue` at target {} of the playbook",
                        target.split(['[', ' ']).next().unwrap_or(target)
                    ))
                } else {
                    error
                }
            }
            RunError::Replay { run, .. } => Self::new(Exit::Broken, message)
                .note("the journal was changed by something other than windlass, or this windlass is older")
                .help(format!("`windlass audit {}` says whether the chain holds", short(run))),
            RunError::KeyUsed { run, .. } => Self::new(Exit::Refused, message)
                .note("a key is for one start: the same playbook, inputs, environment and targets; nothing was started")
                .help(format!(
                    "`windlass show {}` shows that run; give another key to start another one",
                    short(run)
                )),
            RunError::Over { run, .. } => Self::new(Exit::Refused, message).help(format!(
                "`windlass show {0}` shows it; `windlass undo {0}` undoes what it did",
                short(run)
            )),
        }
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        Self::from(&error)
    }
}
