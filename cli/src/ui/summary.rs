//! The end of a run: what came of it, what is left, what to do next.
use super::{
    Style, Ui, again, elapsed, indented,
    next::{self, run_of},
    question::question,
    undone::undone,
    value_lines,
    words::{not_retried, place_of, standing},
};
use indexmap::IndexMap;
use std::collections::HashSet;
use windlass_engine::{
    machine::{Holder, Instance, Machine, Outcome, Role, RunState, Stage},
    report::{output::LastLines, progress::long_loop},
    step::{Phase, WaitOn},
    value::Timestamp,
};

/// The outcome in one line.
pub(crate) fn headline(machine: &Machine, is_driven: bool, now: Timestamp, style: Style) -> String {
    let started = machine.started();
    // What was refused after the end is no part of the run.
    let end = machine.root().finished_at.unwrap_or(now);
    let standing = standing(machine, is_driven);
    let means = if standing.means.is_empty() {
        String::new()
    } else {
        format!(": {}", standing.means)
    };
    format!(
        "{} {} {} after {}{means}",
        style.bold(&started.run.playbook),
        started.run.short_id,
        style.run(standing.word),
        elapsed(started.run.started_at, end),
    )
}

/// The playbook's outputs under a heading; empty where there are none.
pub(crate) fn outputs(machine: &Machine, style: Style) -> String {
    let outputs = machine.outputs().as_map();
    let Some(outputs) = outputs.filter(|outputs| !outputs.is_empty()) else {
        return String::new();
    };
    let mut text = format!("{}\n", style.bold("outputs"));
    for (name, value) in outputs {
        let lines = value_lines(value, 20);
        if let [line] = lines.as_slice() {
            text.push_str(&format!("  {name} = {line}\n"));
        } else {
            text.push_str(&format!("  {name} =\n{}", indented("    ", &lines)));
        }
    }
    text
}

/// Failures of one loop that are shown one by one.
pub(crate) const MOST_FAILED: usize = 20;

/// Lines of output under a step.
const LINES: usize = 5;

/// What a step printed last, and how to read all of it.
pub(crate) fn last_lines(
    machine: &Machine,
    instance: &Instance,
    (phase, attempt): (Phase, u32),
    output: &LastLines,
    style: Style,
) -> String {
    let (lines, more) = output.of(&instance.path, phase, attempt, LINES);
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
    let all = if more {
        let command = format!(
            "windlass logs {} {}",
            run_of(machine),
            next::quoted(&instance.path)
        );
        format!(", the last lines of {}", again::command(&command))
    } else {
        String::new()
    };
    format!(
        "    = it printed{all}\n{}",
        style.dim(&indented("      | ", &lines))
    )
}

/// One failed step: where, why, what helps.
pub(crate) fn failure(
    machine: &Machine,
    instance: &Instance,
    output: &LastLines,
    style: Style,
) -> String {
    let mut text = String::new();
    for (what, phase, execution) in [
        ("", Phase::Do, &instance.forward),
        ("undo of ", Phase::Undo, &instance.undo),
    ] {
        let Some(failure) = &execution.failure else {
            continue;
        };
        let part = undo_part(machine, instance, phase);
        let step = part
            .as_ref()
            .map_or(String::new(), |part| format!(", {part}"));
        text.push_str(&format!(
            "  {} {what}{}{step}: {} {}\n",
            style.red("failed"),
            style.bold(&instance.path),
            super::one_line(&failure.message),
            style.dim(&format!("({})", failure.code)),
        ));
        if let Some(place) = place_of(machine, instance) {
            text.push_str(&format!("    {} {place}\n", style.blue("-->")));
        }
        let before = match (&part, instance.undo.part) {
            (Some(_), 1..) => "; the steps of its undo before this one are done",
            _ => "",
        };
        text.push_str(&format!("    = {}{before}\n", failure.certainty));
        if let Some(why) = not_retried(machine, &instance.path, phase, failure) {
            text.push_str(&format!("    = {why}\n"));
        }
        let place = (phase, execution.attempt);
        text.push_str(&last_lines(machine, instance, place, output, style));
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
pub(crate) fn doubt(
    machine: &Machine,
    instance: &Instance,
    output: &LastLines,
    style: Style,
) -> Option<String> {
    let (what, phase, execution) = [
        ("", Phase::Do, &instance.forward),
        ("undo of ", Phase::Undo, &instance.undo),
    ]
    .into_iter()
    .find(|(_, _, execution)| execution.stage() == Stage::InDoubt)?;
    let part = undo_part(machine, instance, phase)
        .map(|part| format!(", {part}"))
        .unwrap_or_default();
    let not_known = if execution.unexplained {
        "what it does is there, and the journal does not say that this run did it".to_owned()
    } else {
        format!(
            "it is not known whether attempt {} took effect",
            execution.attempt
        )
    };
    let mut text = format!(
        "  {} {what}{}{part}: {not_known}\n",
        style.magenta("in doubt"),
        style.bold(&instance.path),
    );
    if let Some(place) = place_of(machine, instance) {
        text.push_str(&format!("    {} {place}\n", style.blue("-->")));
    }
    if let Some(why) = execution.doubt() {
        text.push_str(&format!("    = {}\n", super::one_line(why)));
    }
    let place = (phase, execution.attempt);
    text.push_str(&last_lines(machine, instance, place, output, style));
    if let Some(mark) = &execution.mark {
        text.push_str("    = its mark, for asking the server by hand:\n");
        text.push_str(&indented("        ", &value_lines(&mark.token, 12)));
    }
    Some(text)
}

/// Which step of an undo of several it has come to: `step 2 of 3`.
pub(crate) fn undo_part(machine: &Machine, instance: &Instance, phase: Phase) -> Option<String> {
    let id = machine.id_of(&instance.path)?;
    let of = machine.undo_parts(id);
    (phase == Phase::Undo && of > 1).then(|| format!("step {} of {of}", instance.undo.part + 1))
}

/// What failed in one long loop.
#[derive(Default)]
struct Alike<'m> {
    /// Why, forward or as it was undone.
    said: HashSet<(bool, Option<&'m str>)>,
    /// How many are not shown.
    more: usize,
}

/// Failures and doubts that still stand.
pub(crate) fn troubles(machine: &Machine, output: &LastLines, style: Style) -> String {
    let mut text = String::new();
    // Of a loop in which hundreds fail, the first are enough to see why.
    let mut of_loop: IndexMap<&str, Alike<'_>> = IndexMap::new();
    for instance in machine.instances() {
        if let Some(doubt) = doubt(machine, instance, output, style) {
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
        let forward = instance.forward.stage() == Stage::Failed;
        let undo = instance.undo.stage() == Stage::Failed;
        if forward || undo {
            if let Some(around) = long_loop(machine, instance) {
                let seen = of_loop.entry(&around.path).or_default();
                let execution = if undo {
                    &instance.undo
                } else {
                    &instance.forward
                };
                let why = execution.failure.as_ref().map(|why| why.message.as_str());
                // One of those that fail alike is enough to see why.
                if !seen.said.insert((undo, why)) || seen.said.len() > MOST_FAILED {
                    seen.more += 1;
                    continue;
                }
            }
            text.push_str(&failure(machine, instance, output, style));
        }
    }
    for (path, Alike { more, .. }) in of_loop {
        if more > 0 {
            text.push_str(&format!(
                "  … and {more} more in {path} failed: {}\n",
                again::command(&format!("windlass show {} --json", run_of(machine)))
            ));
        }
    }
    text
}

/// The whole summary.
pub(crate) fn render(
    machine: &Machine,
    holder: Option<&Holder>,
    output: &LastLines,
    now: Timestamp,
    ui: &Ui,
) -> String {
    let style = ui.out;
    let is_driven = holder.is_some();
    let mut text = format!("{}\n", headline(machine, is_driven, now, style));
    text.push_str(&troubles(machine, output, style));
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
        text.push_str(&outputs(machine, style));
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
        if (execution.window_opens().is_some()
            || execution.is_gated()
            || matches!(execution.stage(), Stage::Waiting | Stage::AwaitingApproval))
            && let Some(waits) = super::words::waits_for(machine, instance, execution, now)
        {
            text.push_str(&format!(
                "  {} {} {waits}\n",
                style.yellow("waits:"),
                instance.path
            ));
            if let Some(WaitOn::Approval(request)) = execution.wait().map(|wait| &wait.on) {
                text.push_str(&question(request, instance, style));
            }
        }
    }
    let mut steps = next::all(machine, holder, ui.claimed.as_deref());
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
