//! The state of a run in words, and why a failure was not followed by another attempt.
use super::{
    human::one_line,
    words::{is_impossible, remains},
};
use crate::{
    machine::{Instance, InstanceId, Machine, NodeState, NotRetried, Outcome, Role, RunState},
    step::{Certainty, Failure, Phase},
};

/// Where a run stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// One word; `windlass explain states` says what each means.
    pub word: &'static str,
    /// What it means here; empty where the word says it all.
    pub means: String,
}

/// A run that no process drives although something is to be done.
pub const INTERRUPTED: &str = "interrupted";

/// The word for a run in a list, by what its journal's summary holds.
#[must_use]
pub fn listed(state: &str, is_driven: bool) -> &str {
    let goes_on = [RunState::Running, RunState::Compensating].map(RunState::as_str);
    if !is_driven && goes_on.contains(&state) {
        INTERRUPTED
    } else {
        state
    }
}

/// The one place that puts the state of a run into words. `is_driven`: a process drives it now.
#[must_use]
pub fn standing(machine: &Machine, is_driven: bool) -> Standing {
    let state = machine.state();
    let means = match state {
        RunState::Finished(Outcome::Succeeded) => let_pass(machine),
        RunState::Finished(Outcome::Failed) => {
            "it ran to its end, with failures that it let pass".to_owned()
        }
        RunState::Finished(Outcome::Compensated) if machine.word() != state.as_str() => {
            "there was nothing to undo".to_owned()
        }
        RunState::Finished(Outcome::Compensated) => "what it did is undone".to_owned(),
        RunState::Finished(Outcome::Stopped) => match machine.closed() {
            Some(closed) => format!("by {}: {}", closed.who, one_line(&closed.because)),
            None => why_stopped(machine),
        },
        RunState::Finished(Outcome::Cancelled) => {
            machine.cancelled().map_or_else(String::new, |cancelled| {
                let why = cancelled.because.as_deref().map(one_line);
                match why {
                    Some(why) => format!("by {}: {why}", cancelled.who),
                    None => format!("by {}", cancelled.who),
                }
            })
        }
        RunState::Running if is_driven => String::new(),
        RunState::Running => "no process drives it; it can be resumed".to_owned(),
        RunState::Compensating if is_driven => String::new(),
        RunState::Compensating => {
            "no process drives it; it was undoing what it did, and can be resumed".to_owned()
        }
        RunState::Waiting if is_driven => String::new(),
        RunState::Waiting => "no process drives it".to_owned(),
        RunState::Paused => match machine.paused().map(|paused| &paused.who) {
            Some(Some(who)) => format!("by {who}"),
            Some(None) => "a failure waits for a person".to_owned(),
            None => String::new(),
        },
        RunState::Stuck => "a person is needed before it can end".to_owned(),
    };
    let word = match state {
        RunState::Running | RunState::Compensating if !is_driven => INTERRUPTED,
        RunState::Running
        | RunState::Waiting
        | RunState::Paused
        | RunState::Compensating
        | RunState::Stuck
        | RunState::Finished(_) => machine.word(),
    };
    Standing { word, means }
}

/// The loops of a run that succeeded of which items failed: the budget let them pass.
fn let_pass(machine: &Machine) -> String {
    let loops = machine.instances().filter_map(|one| {
        let is_over = one.role == Role::Foreach && one.state == NodeState::Succeeded;
        let failed = |id: &&InstanceId| machine.get(**id).state == NodeState::Failed;
        let failed = one.children.iter().filter(failed).count();
        (is_over && failed > 0).then(|| {
            format!(
                "{failed} of {} items of {} failed, which `max_failures` allows",
                one.children.len(),
                one.path
            )
        })
    });
    loops.collect::<Vec<_>>().join("; ")
}

/// Why a run stopped and was not undone to its beginning: what cannot be undone, what could not be, or that it should not.
fn why_stopped(machine: &Machine) -> String {
    let of = |fits: &dyn Fn(&Instance) -> bool| -> Vec<&str> {
        machine
            .instances()
            .filter(|one| one.role == Role::Step && fits(one))
            .map(|one| one.path.as_ref())
            .collect()
    };
    let failed = of(&|one| one.state == NodeState::UndoFailed);
    let impossible = of(&|one| remains(machine, one) && is_impossible(machine, one));
    let mut why = Vec::new();
    if !failed.is_empty() {
        why.push(format!("the undo of {} failed and was left", list(&failed)));
    }
    if machine.is_to_be_undone() && !impossible.is_empty() {
        why.push(format!("{} cannot be undone", list(&impossible)));
    }
    if why.is_empty() {
        let undone = of(&|one| one.state == NodeState::Undone);
        let left = if undone.is_empty() {
            "what it did"
        } else {
            "what is not undone"
        };
        why.push(format!("{left} is left as it is"));
    }
    format!("{}; a person is needed", why.join(", and "))
}

/// `a, b and 3 more`.
fn list(names: &[&str]) -> String {
    const MOST: usize = 5;
    let shown = names.iter().take(MOST).copied().collect::<Vec<_>>();
    match names.len().saturating_sub(MOST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Why a failure is not followed by another attempt; `None` where it is, and where the step has no `retry`.
#[must_use]
pub fn not_retried(
    machine: &Machine,
    node: &str,
    phase: Phase,
    failure: &Failure,
) -> Option<String> {
    let why = machine.not_retried(machine.id_of(node)?, phase, failure)?;
    let cause = failure.cause.as_str();
    Some(match why {
        NotRetried::Cause { also_helps: true } => format!(
            "not retried: its cause is {cause}, and retry is for passing causes; `retry.also: [{cause}]` widens it"
        ),
        NotRetried::Cause { also_helps: false } => format!(
            "not retried: its cause is {cause}, {}, and running it twice is not as good as once",
            failure.certainty
        ),
        NotRetried::Effect(Certainty::Unknown) => {
            "not retried: it is in doubt whether it happened".to_owned()
        }
        NotRetried::Effect(certainty) => {
            format!("not retried: {certainty}, and running it twice is not as good as once")
        }
        NotRetried::Attempts { of: 1 } => "not retried: `retry` allows one attempt".to_owned(),
        NotRetried::Attempts { of } => format!("not retried: {of} of {of} attempts are used"),
        NotRetried::Ended => "not retried: what it belongs to is ending".to_owned(),
    })
}
