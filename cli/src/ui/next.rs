//! The exact next commands.
use super::{again, one_line, summary::undo_part, words::current};
use crate::{account, clock, error::short};
use windlass_engine::{
    machine::{Command, Holder, Instance, Machine, Role, RunState, Stage, Submitted},
    step::{Phase, Question, WaitOn},
    value::Value,
};

/// A command that can be copied, and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Next {
    /// As it is typed.
    pub(crate) command: String,
    /// What it does.
    pub(crate) what: String,
}

fn next(command: String, what: impl Into<String>) -> Next {
    Next {
        command: again::command(&command),
        what: what.into(),
    }
}

/// The short id of a machine's run.
pub(crate) fn run_of(machine: &Machine) -> &str {
    short(&machine.started().run.id)
}

/// A path as a shell takes it: `fill[17]` is a pattern to it.
pub(crate) fn quoted(path: &str) -> String {
    if path
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
    {
        path.to_owned()
    } else {
        format!("'{path}'")
    }
}

/// The command that answers what a sleeping step waits for.
pub(crate) fn answer(machine: &Machine, instance: &Instance) -> Option<String> {
    let (_, execution) = current(instance);
    let run = run_of(machine);
    match &execution.wait()?.on {
        WaitOn::Timer(_) => None,
        WaitOn::Signal(name) => Some(again::command(&format!(
            "windlass signal {run} {}",
            quoted(name)
        ))),
        WaitOn::Approval(request) => {
            let mut command = format!("windlass approve {run} {}", quoted(&instance.path));
            for (name, question) in &request.ask {
                command.push_str(&format!(" --answer {name}={}", example(question)));
            }
            Some(again::command(&command))
        }
    }
}

/// What stands for an answer. A choice is left to the person: a line that is copied half asleep must not choose.
fn example(question: &Question) -> String {
    match question {
        Question::Choose {
            many: true, max, ..
        } if *max > 1 => "NUMBERS".to_owned(),
        Question::Choose { .. } => "NUMBER".to_owned(),
        Question::Value { allowed, kind } => allowed.first().map_or_else(
            || kind.to_ascii_uppercase(),
            |value| quoted(&value.to_string()),
        ),
    }
}

/// How many steps the list speaks of. A loop may have thousands that failed, and each answer is tried on a copy of the run.
const MANY: usize = 6;

/// Whether the machine would take a command now.
pub(crate) fn takes(machine: &Machine, command: Command) -> bool {
    let submitted = Submitted {
        id: String::new(),
        run: machine.started().run.id.clone(),
        who: String::new(),
        account: None,
        at: clock::now(),
        command,
    };
    machine.accepts(&submitted, submitted.at).is_ok()
}

/// What can be done about one instance: what the machine would take of who claims this name.
fn about(machine: &Machine, instance: &Instance, claimed: Option<&str>) -> Vec<Next> {
    let (phase, execution) = current(instance);
    let run = run_of(machine);
    let node = quoted(&instance.path);
    let mut all = Vec::new();
    match execution.stage() {
        Stage::AwaitingApproval => {
            let deadline = execution.wait().and_then(|wait| wait.deadline);
            if deadline.is_some_and(|deadline| deadline < clock::now()) {
                return all;
            }
            let may = machine.may_vote(instance, account::name(claimed), Some(account::ours()));
            let but = may
                .err()
                .map_or_else(String::new, |why| format!("; not by you: {why}"));
            if let Some(command) = answer(machine, instance) {
                all.push(next(command, format!("approve{but}")));
            }
            all.push(next(
                format!("windlass reject {run} {node} --because \"…\""),
                format!("reject{but}"),
            ));
        }
        Stage::Waiting => {
            if let Some(command) = answer(machine, instance) {
                all.push(next(command, "send the signal that it waits for"));
            }
        }
        Stage::InDoubt | Stage::Failed => all.extend(answers(machine, instance, phase)),
        Stage::Backoff => all.extend(opens(machine, instance)),
        Stage::Idle | Stage::Running | Stage::Succeeded | Stage::Skipped | Stage::Ended => {}
    }
    all
}

/// What opens a closed gate: another value of an input that it reads.
fn opens(machine: &Machine, instance: &Instance) -> Vec<Next> {
    let id = machine.id_of(&instance.path);
    let Some((gate, inputs)) = id.and_then(|id| machine.closed_gate(id)) else {
        return Vec::new();
    };
    let run = run_of(machine);
    inputs
        .into_iter()
        .filter(|name| {
            // Whether it may be changed at all: the value that it has is a valid one.
            let value = machine.inputs().get(name).map(text_of).unwrap_or_default();
            let name = (*name).to_owned();
            takes(machine, Command::SetInput { name, value })
        })
        .map(|name| {
            next(
                format!("windlass set {run} {name}=…"),
                format!(
                    "the gate of {} reads it: {}",
                    instance.path,
                    one_line(gate.source())
                ),
            )
        })
        .collect()
}

fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The answers to a failure or a doubt that the machine would take.
fn answers(machine: &Machine, instance: &Instance, phase: Phase) -> Vec<Next> {
    let run = run_of(machine);
    let node = quoted(&instance.path);
    let in_doubt = current(instance).1.stage() == Stage::InDoubt;
    // The output that each way needs, as a command and as it is typed.
    let needed = |is_done| {
        let skeleton = (phase == Phase::Do)
            .then(|| machine.needed_output(&instance.path, is_done))
            .flatten();
        skeleton.map_or((Value::Null, String::new()), |skeleton| {
            (Value::from("…"), format!(" --output '{skeleton}'"))
        })
    };
    let (of_done, output) = needed(true);
    let (of_skip, skip_output) = needed(false);
    let resolve = |done| Command::Resolve {
        node: instance.path.to_string(),
        done,
        output: of_done.clone(),
        because: String::new(),
    };
    let retry = Command::Retry {
        node: instance.path.to_string(),
    };
    let skip = Command::Skip {
        node: instance.path.to_string(),
        output: of_skip,
        because: String::new(),
    };
    let part = undo_part(machine, instance, phase);
    let (tried, done, not_done, skipped) = match (phase, in_doubt) {
        (Phase::Do, true) => (
            "ask its probe again",
            "it happened",
            "it did not happen, and cannot any more",
            "",
        ),
        (Phase::Undo, true) if part.is_some() => (
            "ask its probe again",
            "this step of its undo happened; those after it follow",
            "this step of its undo did not happen: it runs again",
            "",
        ),
        (Phase::Undo, true) => (
            "ask its probe again",
            "it is undone",
            "it is not undone: its undo runs again",
            "",
        ),
        (Phase::Do, false) => (
            "try it again",
            "a person has done it since",
            "",
            "continue without it",
        ),
        (Phase::Undo, false) if part.is_some() => (
            "try this step of its undo again",
            "this step of its undo was done by hand; those after it follow",
            "",
            "leave it as it is, and what it needs",
        ),
        (Phase::Undo, false) => (
            "try its undo again",
            "it was undone by hand",
            "",
            "leave it as it is, and what it needs",
        ),
    };
    let candidates = [
        (retry, format!("windlass retry {run} {node}"), tried),
        (
            resolve(true),
            format!("windlass resolve {run} {node} --done{output} --because \"…\""),
            done,
        ),
        (
            resolve(false),
            format!("windlass resolve {run} {node} --not-done --because \"…\""),
            not_done,
        ),
        (
            skip,
            format!("windlass skip {run} {node}{skip_output} --because \"…\""),
            skipped,
        ),
    ];
    candidates
        .into_iter()
        .filter(|(command, _, _)| takes(machine, command.clone()))
        .map(|(_, command, what)| next(command, what))
        .collect()
}

/// Whether a step waits for a person.
fn is_open(instance: &Instance) -> bool {
    match current(instance).1.stage() {
        Stage::AwaitingApproval | Stage::Waiting | Stage::InDoubt | Stage::Failed => true,
        Stage::Backoff => instance.forward.is_gated(),
        Stage::Idle | Stage::Running | Stage::Succeeded | Stage::Skipped | Stage::Ended => false,
    }
}

/// What can be done about the run, the most useful first. If no process drives it, as the next one finds it.
pub(crate) fn all(machine: &Machine, holder: Option<&Holder>, claimed: Option<&str>) -> Vec<Next> {
    let state = machine.state();
    let taken = holder
        .is_none()
        .then(|| machine.taken_over().ok())
        .flatten();
    let machine = taken.as_ref().unwrap_or(machine);
    let run = run_of(machine);
    let mut open = machine
        .instances()
        .filter(|instance| instance.role == Role::Step && is_open(instance));
    let mut all: Vec<Next> = open
        .by_ref()
        .take(MANY)
        .flat_map(|instance| about(machine, instance, claimed))
        .collect();
    let more = open.count();
    // In a run that is over, what failed asks for nothing.
    if more > 0 && !all.is_empty() {
        all.push(next(
            format!("windlass show {run} --json"),
            format!("{more} more steps wait for an answer"),
        ));
    }
    if !matches!(state, RunState::Finished(_)) {
        let is_driven = holder.is_some();
        if takes(machine, Command::Unpause) {
            all.push(next(format!("windlass unpause {run}"), "let it continue"));
        }
        match state {
            RunState::Running | RunState::Waiting | RunState::Compensating if !is_driven => {
                let what = if machine.cancelled().is_some() {
                    "let it end: it is cancelled"
                } else {
                    "continue from its place"
                };
                all.push(next(format!("windlass resume {run}"), what));
            }
            RunState::Running
            | RunState::Waiting
            | RunState::Compensating
            | RunState::Paused
            | RunState::Stuck
            | RunState::Finished(_) => {}
        }
        if is_driven {
            all.push(next(format!("windlass watch {run}"), "follow it"));
        }
    }
    let cancel = |undo| Command::Cancel {
        undo,
        force: false,
        because: None,
    };
    if let Some(cancelled) = machine.cancelled() {
        let force = Command::Cancel {
            undo: cancelled.undo,
            force: true,
            because: None,
        };
        let runs = machine
            .instances()
            .any(|one| one.role == Role::Step && current(one).1.stage() == Stage::Running);
        if runs && takes(machine, force) {
            let how = if cancelled.undo { "--undo" } else { "--leave" };
            all.push(next(
                format!("windlass cancel {run} {how} --force"),
                "end what still runs, also on its server",
            ));
        }
    }
    let close = Command::Close {
        because: String::new(),
    };
    let in_doubt = machine
        .instances()
        .any(|one| current(one).1.stage() == Stage::InDoubt);
    let (undoes, leaves) = if in_doubt {
        (
            "undo what it did, once what is in doubt is resolved",
            "end it and leave what it did, once what is in doubt is resolved",
        )
    } else {
        (
            "end it and undo what it did",
            "end it and leave what it did",
        )
    };
    let ends = [
        (
            Command::Undo,
            matches!(state, RunState::Finished(_)),
            format!("windlass undo {run}"),
            "undo what it did",
        ),
        (
            cancel(true),
            takes(machine, Command::Undo),
            format!("windlass cancel {run} --undo"),
            undoes,
        ),
        (
            cancel(false),
            true,
            format!("windlass cancel {run} --leave"),
            leaves,
        ),
        (
            close,
            true,
            format!("windlass close {run} --because \"…\""),
            "it is settled by hand: end it as it is",
        ),
    ];
    for (command, applies, text, what) in ends {
        if applies && takes(machine, command) {
            all.push(next(text, what));
        }
    }
    all
}

/// As lines under a heading; empty where there is nothing to do.
pub(crate) fn render(all: &[Next], style: super::Style) -> String {
    if all.is_empty() {
        return String::new();
    }
    let width = all
        .iter()
        .map(|next| next.command.chars().count())
        .max()
        .unwrap_or(0)
        .min(72);
    let mut text = format!("{}\n", style.bold("next"));
    for next in all {
        let pad = " ".repeat(width.saturating_sub(next.command.chars().count()));
        text.push_str(&format!(
            "  {}{pad}  {}\n",
            style.cyan(&next.command),
            style.dim(&format!("# {}", next.what))
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_expand_is_quoted() {
        assert_eq!(quoted("fill"), "fill");
        assert_eq!(quoted("fill[17]/copy"), "'fill[17]/copy'");
    }
}
