//! `windlass explain states`: every word for where a run or a step stands.
use windlass_engine::{
    machine::{CLOSED, NodeState, Outcome, RunState},
    report::standing::INTERRUPTED,
};

/// What a run's state means; `None` is that of a run that no process drives although something is to be done.
fn of_run(state: Option<RunState>) -> &'static str {
    match state {
        Some(RunState::Running) => "A process drives it, and something runs or will run.",
        None => {
            "It is not over, something is to be done, and no process drives it: the one that did was killed, or was told to \
             stop. It can be resumed: `windlass resume RUN`."
        }
        Some(RunState::Waiting) => {
            "Nothing runs: it waits for a time, a signal, an approval or a gate. Without a process that drives it, the answer is \
             kept until it is resumed."
        }
        Some(RunState::Paused) => {
            "Nothing new starts: a person paused it (`unpause`), or a failure waits for a person (`retry`, `skip`, `cancel`)."
        }
        Some(RunState::Compensating) => {
            "It failed or is cancelled, and undoes what it did, the last first."
        }
        Some(RunState::Stuck) => {
            "It cannot continue without a person: it is in doubt whether a step happened (`resolve`), or an undo failed (`retry`, \
             `resolve`, `skip`). `close` ends it as it is."
        }
        Some(RunState::Finished(Outcome::Succeeded)) => {
            "It is over: every step succeeded, was skipped, or failed where the playbook lets it (`on_failure: ignore`, items within \
             `max_failures`). A step of `finally` that failed changes nothing of it: `windlass show RUN` names it."
        }
        Some(RunState::Finished(Outcome::Failed)) => {
            "It is over. Either it ran to its end with a failure that `on_failure: continue` let pass, or it failed before \
             anything was to be undone."
        }
        Some(RunState::Finished(Outcome::Compensated)) => {
            "It is over, and what it did is undone: it failed, or a person ordered it after its end (`windlass \
             undo`)."
        }
        Some(RunState::Finished(Outcome::Stopped)) => {
            "It is over, and what it did is still there, in part or in full: a step cannot be undone, an undo failed and was \
             left, or `on_failure: stop` says so. A person is needed; `windlass show RUN` says why, and for what."
        }
        Some(RunState::Finished(Outcome::Cancelled)) => {
            "It is over because a person cancelled it; what it did is undone or left, as that person said."
        }
    }
}

const IS_CLOSED: &str = "It was stopped or stuck, and a person has closed it as it is (`windlass close`): it needs no person any more.";

fn of_step(state: NodeState) -> &'static str {
    match state {
        NodeState::Pending => {
            "It has not begun: what it needs has not settled, or no slot is free."
        }
        NodeState::Running => {
            "An attempt runs; or the group, call or loop is open and something in it is left."
        }
        NodeState::Backoff => "An attempt failed; the next one starts at a set time.",
        NodeState::Waiting => {
            "It sleeps until a time or a signal, or it has not begun and its gate does not hold, or its window is closed."
        }
        NodeState::AwaitingApproval => "It sleeps until people approve or reject.",
        NodeState::InDoubt => {
            "An attempt may have taken effect, and neither its kind nor its probe can tell. Nothing that depends on it starts \
             until a person settles it: `windlass resolve RUN STEP --done` or `--not-done`."
        }
        NodeState::Succeeded => "It is done.",
        NodeState::Skipped => "It did not run: its `when` is false, or a person skipped it.",
        NodeState::Failed => "It failed, and no attempt follows unless a person orders one.",
        NodeState::Ended => {
            "The run ended while it waited, or before it had come to its end. It is neither done nor failed, and is pending again if \
             the run goes forward again."
        }
        NodeState::Undoing => "What it did is being undone, or its undo waits or is in doubt.",
        NodeState::Undone => "What it did is undone; of a scratch resource: it is cleaned up.",
        NodeState::UndoFailed => {
            "Its undo failed, or was given up after it had begun, so what it did is still there, in part or in full, and what it needs \
             is not undone either."
        }
    }
}

const RUNS: [Option<RunState>; 11] = [
    Some(RunState::Running),
    None,
    Some(RunState::Waiting),
    Some(RunState::Paused),
    Some(RunState::Compensating),
    Some(RunState::Stuck),
    Some(RunState::Finished(Outcome::Succeeded)),
    Some(RunState::Finished(Outcome::Failed)),
    Some(RunState::Finished(Outcome::Compensated)),
    Some(RunState::Finished(Outcome::Stopped)),
    Some(RunState::Finished(Outcome::Cancelled)),
];

const STEPS: [NodeState; 13] = [
    NodeState::Pending,
    NodeState::Running,
    NodeState::Backoff,
    NodeState::Waiting,
    NodeState::AwaitingApproval,
    NodeState::InDoubt,
    NodeState::Succeeded,
    NodeState::Skipped,
    NodeState::Failed,
    NodeState::Ended,
    NodeState::Undoing,
    NodeState::Undone,
    NodeState::UndoFailed,
];

const OF_RUN: &str = "# States of a run";
const OF_STEP: &str = "# States of a step, group, call or loop";

fn runs() -> impl Iterator<Item = (&'static str, &'static str)> {
    RUNS.into_iter().flat_map(|state| {
        let closed = state == Some(RunState::Finished(Outcome::Stopped));
        let word = state.map_or(INTERRUPTED, RunState::as_str);
        std::iter::once((word, of_run(state))).chain(closed.then_some((CLOSED, IS_CLOSED)))
    })
}

fn steps() -> impl Iterator<Item = (&'static str, &'static str)> {
    STEPS
        .into_iter()
        .map(|state| (state.as_str(), of_step(state)))
}

/// The page.
pub(crate) fn page() -> String {
    let mut text = format!("{OF_RUN}\n\n");
    text.extend(runs().map(|(word, means)| entry(word, means)));
    text.push_str(&format!("\n{OF_STEP}\n\n"));
    text.extend(steps().map(|(word, means)| entry(word, means)));
    text
}

/// One word: of a run, of a step, or of both.
pub(crate) fn one(word: &str) -> Option<String> {
    let of = |heading: &str, found: Option<(&str, &str)>| {
        found.map(|(word, means)| format!("{heading}\n\n{}\n", entry(word, means)))
    };
    let run = of(OF_RUN, runs().find(|(known, _)| *known == word));
    let step = of(OF_STEP, steps().find(|(known, _)| *known == word));
    let text: String = run.into_iter().chain(step).collect();
    (!text.is_empty()).then(|| format!("{}\n", text.trim_end()))
}

/// A word and its sentence, broken at 78 columns.
fn entry(word: &str, means: &str) -> String {
    const LEAD: usize = 19;
    let mut text = format!("{word:<LEAD$}");
    let mut column = LEAD;
    for (n, part) in means.split(' ').enumerate() {
        let length = part.chars().count();
        if n > 0 && column + 1 + length > 78 {
            text.push_str(&format!("\n{:LEAD$}", ""));
            column = LEAD;
        } else if n > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(part);
        column += length;
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_there_once_and_fits() {
        let page = page();
        for state in STEPS {
            let word = state.as_str();
            assert!(page.contains(&format!("\n{word} ")), "{word}");
        }
        let runs = page.split("# States of a step").next().unwrap();
        let words = runs
            .lines()
            .filter(|line| !line.starts_with([' ', '#']) && !line.is_empty());
        assert_eq!(words.count(), RUNS.len() + 1);
        assert!(
            page.lines().all(|line| line.chars().count() <= 78),
            "{page}"
        );
        assert!(page.contains("\ninterrupted "));
    }
}
