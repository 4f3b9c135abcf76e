//! The end of a run: what came of it, what is left, what to do next.
use super::{
    Style, again, elapsed, indented,
    next::{self, run_of},
    question::question,
    value_lines,
    words::{place_of, remains, undo_of},
};
use windlass_engine::{
    machine::{Holder, Instance, Machine, NodeState, Outcome, Role, RunState},
    step::WaitOn,
    value::Timestamp,
};

/// The outcome in one line.
pub(crate) fn headline(machine: &Machine, is_driven: bool, now: Timestamp, style: Style) -> String {
    let started = machine.started();
    let end = machine.root().finished_at.unwrap_or(now);
    let state = machine.state();
    let what = match state {
        RunState::Finished(Outcome::Succeeded) => "",
        RunState::Finished(Outcome::Failed) => {
            ": it ran to its end, with failures that it let pass"
        }
        RunState::Finished(Outcome::Compensated)
            if !machine
                .instances()
                .any(|instance| instance.state == NodeState::Undone) =>
        {
            ": there was nothing to undo"
        }
        RunState::Finished(Outcome::Compensated) => ": what it did is undone",
        RunState::Finished(Outcome::Stopped) => ": things stand as they are, a person is needed",
        RunState::Finished(Outcome::Cancelled) => "",
        RunState::Running | RunState::Compensating if is_driven => "",
        RunState::Running => ": it can be resumed",
        RunState::Waiting => "",
        RunState::Paused => "",
        RunState::Compensating => ": it is undoing what it did, and can be resumed",
        RunState::Stuck => ": a person is needed before it can end",
    };
    format!(
        "{} {} {} after {}{what}",
        style.bold(&started.run.playbook),
        started.run.short_id,
        style.run(state.as_str()),
        elapsed(started.run.started_at, end),
    )
}

/// One failed step: where, why, what helps.
pub(crate) fn failure(machine: &Machine, instance: &Instance, style: Style) -> String {
    let mut text = String::new();
    for (what, execution) in [("", &instance.forward), ("undo of ", &instance.undo)] {
        let Some(failure) = &execution.failure else {
            continue;
        };
        text.push_str(&format!(
            "  {} {what}{}: {} {}\n",
            style.red("failed"),
            style.bold(&instance.path),
            super::one_line(&failure.message),
            style.dim(&format!("({})", failure.code)),
        ));
        if let Some(place) = place_of(machine, instance) {
            text.push_str(&format!("    {} {place}\n", style.blue("-->")));
        }
        text.push_str(&format!("    = {}\n", failure.certainty));
        if let Some(help) = &failure.help {
            text.push_str(&format!(
                "    = {}: {}\n",
                style.bold("help"),
                super::one_line(help)
            ));
        }
    }
    text
}

/// One doubt: why, and what it means.
pub(crate) fn doubt(machine: &Machine, instance: &Instance, style: Style) -> Option<String> {
    let (what, execution) = [("", &instance.forward), ("undo of ", &instance.undo)]
        .into_iter()
        .find(|(_, execution)| execution.stage == windlass_engine::machine::Stage::InDoubt)?;
    let mut text = format!(
        "  {} {what}{}: it is not known whether attempt {} took effect\n",
        style.magenta("in doubt"),
        style.bold(&instance.path),
        execution.attempt,
    );
    if let Some(place) = place_of(machine, instance) {
        text.push_str(&format!("    {} {place}\n", style.blue("-->")));
    }
    if let Some(why) = &execution.doubt {
        text.push_str(&format!("    = {}\n", super::one_line(why)));
    }
    if let Some(mark) = &execution.mark {
        text.push_str("    = its mark, for asking the server by hand:\n");
        text.push_str(&indented("        ", &value_lines(&mark.token, 12)));
    }
    Some(text)
}

/// Failures and doubts that still stand.
pub(crate) fn troubles(machine: &Machine, style: Style) -> String {
    let mut text = String::new();
    for instance in machine.instances() {
        if let Some(doubt) = doubt(machine, instance, style) {
            text.push_str(&doubt);
            continue;
        }
        // A container fails because of what is inside it, which is told there.
        if instance.role != Role::Step
            && instance.forward.failure.is_some()
            && !instance.children.is_empty()
        {
            continue;
        }
        let forward = instance.forward.stage == windlass_engine::machine::Stage::Failed;
        let undo = instance.undo.stage == windlass_engine::machine::Stage::Failed;
        if forward || undo {
            text.push_str(&failure(machine, instance, style));
        }
    }
    text
}

/// What was undone, in the order in which it was; and what was not.
fn undone(machine: &Machine, style: Style) -> String {
    let mut done: Vec<&Instance> = machine
        .instances()
        .filter(|instance| instance.role == Role::Step && instance.state == NodeState::Undone)
        .collect();
    done.sort_by_key(|instance| instance.undo.started_at);
    let mut text = String::new();
    if !done.is_empty() {
        let names: Vec<String> = done
            .iter()
            .map(|instance| instance.path.to_string())
            .collect();
        text.push_str(&format!(
            "  {} {}\n",
            style.blue(
                if matches!(machine.state(), RunState::Finished(Outcome::Succeeded)) {
                    "cleaned up:"
                } else {
                    "undone, in this order:"
                }
            ),
            names.join(", ")
        ));
    }
    let ended_undoing = matches!(
        machine.state(),
        RunState::Finished(Outcome::Compensated | Outcome::Stopped | Outcome::Cancelled)
            | RunState::Stuck
    );
    if ended_undoing {
        for instance in machine.instances().filter(|i| remains(machine, i)) {
            text.push_str(&format!(
                "  {} {} ({})\n",
                style.yellow("remains:"),
                instance.path,
                undo_of(machine, instance).unwrap_or_default()
            ));
        }
    }
    text
}

/// The whole summary.
pub(crate) fn render(
    machine: &Machine,
    holder: Option<&Holder>,
    now: Timestamp,
    style: Style,
) -> String {
    let mut text = format!("{}\n", headline(machine, false, now, style));
    text.push_str(&troubles(machine, style));
    text.push_str(&undone(machine, style));
    if let Some(finished) = machine.finished() {
        for node in &finished.finally_failed {
            text.push_str(&format!(
                "  {} finally step {node} failed\n",
                style.yellow("warning:")
            ));
        }
        if let Some(error) = &finished.output_error {
            text.push_str(&format!(
                "  {} {}\n",
                style.yellow("warning:"),
                super::one_line(error)
            ));
        }
        if let Some(outputs) = finished
            .outputs
            .as_map()
            .filter(|outputs| !outputs.is_empty())
        {
            text.push_str(&format!("{}\n", style.bold("outputs")));
            for (name, value) in outputs {
                let lines = value_lines(value, 20);
                if let [line] = lines.as_slice() {
                    text.push_str(&format!("  {name} = {line}\n"));
                } else {
                    text.push_str(&format!("  {name} =\n{}", indented("    ", &lines)));
                }
            }
        }
    }
    if let Some(paused) = machine.paused() {
        let who = paused
            .who
            .as_ref()
            .map(|who| format!(" by {who}"))
            .unwrap_or_default();
        text.push_str(&format!(
            "  {}{who}: {}\n",
            style.yellow("paused"),
            super::one_line(&paused.why)
        ));
    }
    for instance in machine
        .instances()
        .filter(|instance| instance.role == Role::Step)
    {
        let (_, execution) = super::words::current(instance);
        if matches!(
            execution.stage,
            windlass_engine::machine::Stage::Waiting
                | windlass_engine::machine::Stage::AwaitingApproval
        ) && let Some(waits) = super::words::waits_for(instance, execution, now)
        {
            text.push_str(&format!(
                "  {} {} {waits}\n",
                style.yellow("waits:"),
                instance.path
            ));
            if let Some(WaitOn::Approval(request)) = execution.wait.as_ref().map(|wait| &wait.on) {
                text.push_str(&question(request, instance, style));
            }
        }
    }
    let mut steps = next::all(machine, holder);
    if !matches!(machine.state(), RunState::Finished(Outcome::Succeeded)) {
        steps.push(next::Next {
            command: again::command(&format!("windlass show {}", run_of(machine))),
            what: "everything about it".to_owned(),
        });
    } else {
        steps = vec![next::Next {
            command: again::command(&format!("windlass show {}", run_of(machine))),
            what: "everything about it".to_owned(),
        }];
    }
    text.push_str(&next::render(&steps, style));
    text
}
