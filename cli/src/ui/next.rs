//! The exact next commands.
use super::{
    again,
    words::{current, remains},
};
use crate::error::short;
use windlass_engine::{
    machine::{Holder, Instance, Machine, Outcome, Role, RunState, Stage},
    step::{Phase, Question, WaitOn},
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
    match &execution.wait.as_ref()?.on {
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

/// What can be done about one instance.
pub(crate) fn about(machine: &Machine, instance: &Instance) -> Vec<Next> {
    let (phase, execution) = current(instance);
    let run = run_of(machine);
    let node = quoted(&instance.path);
    let mut all = Vec::new();
    match execution.stage {
        Stage::AwaitingApproval => {
            if let Some(command) = answer(machine, instance) {
                all.push(next(command, "approve"));
            }
            all.push(next(
                format!("windlass reject {run} {node} --because \"…\""),
                "reject",
            ));
        }
        Stage::Waiting => {
            if let Some(command) = answer(machine, instance) {
                all.push(next(command, "send the signal that it waits for"));
            }
        }
        Stage::InDoubt => {
            let (done, not) = match phase {
                Phase::Do => ("it happened", "it did not happen, and cannot any more"),
                Phase::Undo => ("it is undone", "it is not undone"),
            };
            let output = if phase == Phase::Do && is_read(machine, instance) {
                " --output '{…}'"
            } else {
                ""
            };
            all.push(next(
                format!("windlass resolve {run} {node} --done{output} --because \"…\""),
                done,
            ));
            all.push(next(
                format!("windlass resolve {run} {node} --not-done --because \"…\""),
                not,
            ));
            all.push(next(
                format!("windlass retry {run} {node}"),
                "ask its probe again",
            ));
        }
        Stage::Failed if phase == Phase::Undo => {
            all.push(next(
                format!("windlass retry {run} {node}"),
                "try its undo again",
            ));
            all.push(next(
                format!("windlass resolve {run} {node} --done --because \"…\""),
                "it was undone by hand",
            ));
        }
        Stage::Failed if asks_about(machine, instance) => {
            all.push(next(format!("windlass retry {run} {node}"), "try it again"));
            all.push(next(
                format!("windlass skip {run} {node} --because \"…\""),
                "go on without it",
            ));
        }
        Stage::Idle
        | Stage::Running
        | Stage::Backoff
        | Stage::Succeeded
        | Stage::Skipped
        | Stage::Failed => {}
    }
    all
}

/// Whether an expression of the playbook reads this step's output.
fn is_read(machine: &Machine, instance: &Instance) -> bool {
    let Some(node) = super::words::node_of(machine, instance) else {
        return false;
    };
    // The stored form holds every expression as its source text.
    serde_json::to_string(&machine.graph().nodes)
        .is_ok_and(|text| text.contains(&format!("steps.{}.output", node.id)))
}

/// Whether the run is held by the failure of this step.
fn asks_about(machine: &Machine, instance: &Instance) -> bool {
    if instance.role != Role::Step {
        return false;
    }
    match machine.state() {
        RunState::Paused => machine.paused().is_some_and(|paused| paused.who.is_none()),
        RunState::Finished(Outcome::Stopped) => true,
        RunState::Finished(
            Outcome::Succeeded | Outcome::Failed | Outcome::Compensated | Outcome::Cancelled,
        )
        | RunState::Running
        | RunState::Waiting
        | RunState::Compensating
        | RunState::Stuck => false,
    }
}

/// What can be done about the run, the most useful first.
pub(crate) fn all(machine: &Machine, holder: Option<&Holder>) -> Vec<Next> {
    let run = run_of(machine);
    let mut all: Vec<Next> = machine
        .instances()
        .filter(|instance| instance.role == Role::Step)
        .flat_map(|instance| about(machine, instance))
        .collect();
    match machine.state() {
        RunState::Finished(outcome) => match outcome {
            Outcome::Succeeded | Outcome::Failed | Outcome::Stopped => {
                if machine
                    .instances()
                    .any(|instance| remains(machine, instance))
                {
                    all.push(next(format!("windlass undo {run}"), "undo what it did"));
                }
            }
            Outcome::Compensated | Outcome::Cancelled => {}
        },
        RunState::Paused if machine.paused().is_some_and(|paused| paused.who.is_some()) => {
            all.push(next(format!("windlass unpause {run}"), "go on"));
        }
        RunState::Running
        | RunState::Waiting
        | RunState::Paused
        | RunState::Compensating
        | RunState::Stuck => {}
    }
    if !matches!(machine.state(), RunState::Finished(_)) {
        match (machine.state(), holder) {
            (RunState::Running | RunState::Waiting | RunState::Compensating, None) => {
                let what = if machine.cancelled().is_some() {
                    "let it end: it is cancelled"
                } else {
                    "go on from where it stands"
                };
                all.push(next(format!("windlass resume {run}"), what));
            }
            (_, Some(_)) => all.push(next(format!("windlass watch {run}"), "follow it")),
            (RunState::Paused | RunState::Stuck | RunState::Finished(_), None) => {}
        }
        let is_ending = matches!(machine.state(), RunState::Compensating | RunState::Stuck);
        if !is_ending && machine.cancelled().is_none() {
            all.push(next(
                format!("windlass cancel {run} --undo"),
                "end it and undo what it did",
            ));
            all.push(next(
                format!("windlass cancel {run} --leave"),
                "end it and leave what it did",
            ));
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
