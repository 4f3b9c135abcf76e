//! What runs, and what its servers do for it.
use super::{
    super::{Style, Ui, clock, elapsed, indented, one_line, span, summary, value_lines},
    target_line,
};
use crate::{
    activity::Now,
    ui::words::{current, is_impossible, kind_in, node_of, place_of},
};
use windlass_engine::{
    graph::Body,
    machine::{Instance, Machine, Role, Stage},
    report::{output::LastLines, standing::INTERRUPTED},
    step::{Activity, Phase},
    value::{Duration, Timestamp},
};

pub(super) fn running(
    ui: &Ui,
    machine: &Machine,
    is_driven: bool,
    (servers, output): (&Now, &LastLines),
    now: Timestamp,
) -> String {
    let style = ui.out;
    let mut text = String::new();
    for instance in machine
        .instances()
        .filter(|instance| instance.role == Role::Step)
    {
        let (phase, execution) = current(instance);
        if !matches!(execution.stage(), Stage::Running | Stage::InDoubt) {
            continue;
        }
        let what = match phase {
            Phase::Do => "",
            Phase::Undo => "undo of ",
        };
        text.push_str(&format!(
            "{} {what}{} ({})\n",
            style.bold(match (execution.stage(), is_driven) {
                (Stage::InDoubt, _) => "in doubt",
                (_, true) => "running",
                (_, false) => INTERRUPTED,
            }),
            style.bold(&instance.path),
            kind_in(machine, instance, phase),
        ));
        if let Some(place) = place_of(machine, instance) {
            text.push_str(&format!("    {} {place}\n", style.blue("-->")));
        }
        if let Some(from) = execution.started_at {
            let mut line = if is_driven {
                format!("attempt {}, for {}", execution.attempt, elapsed(from, now))
            } else {
                format!(
                    "attempt {}, started {} ago",
                    execution.attempt,
                    elapsed(from, now)
                )
            };
            if let Some(deadline) = execution.deadline.filter(|_| is_driven) {
                let left = Duration::between(now, deadline);
                line.push_str(&format!(
                    "; its timeout is at {} (in {})",
                    clock(deadline, now),
                    span(left)
                ));
            }
            text.push_str(&format!("    {line}\n"));
        }
        if phase == Phase::Do
            && execution.stage() == Stage::Running
            && let Some(warning) = no_way_back(machine, instance)
        {
            text.push_str(&format!("    {}\n", style.red(&warning)));
        }
        if execution.stage() == Stage::Running {
            let place = (phase, execution.attempt);
            text.push_str(&summary::last_lines(
                machine, instance, place, output, style,
            ));
        }
        if !execution.input.is_null() {
            text.push_str("    with\n");
            text.push_str(&indented("      ", &value_lines(&execution.input, 24)));
        }
        for (name, target) in &execution.targets {
            text.push_str(&format!("    target {name}: {}\n", target_line(target)));
        }
        if let Some(state) = &execution.state {
            text.push_str("    last checkpoint\n");
            text.push_str(&indented("      ", &value_lines(state, 8)));
        }
        for (target, activity) in servers.of_node(&instance.path) {
            text.push_str(&on_the_server(target, activity, style));
        }
    }
    for why in &servers.unknown {
        text.push_str(&format!(
            "  {} what its servers do now is not known: {}\n",
            style.yellow("warning:"),
            one_line(why)
        ));
    }
    text
}

/// That a step which cannot be undone runs now, and whether its point of no return is passed.
fn no_way_back(machine: &Machine, instance: &Instance) -> Option<String> {
    if !is_impossible(machine, instance) {
        return None;
    }
    let Some(Body::Step(step)) = node_of(machine, instance).map(|node| &node.body) else {
        return None;
    };
    Some(
        match (step.action.traits.marks, &instance.forward.mark) {
            (true, Some(_)) => "it cannot be undone, and its point of no return is passed",
            (true, None) => "it cannot be undone; its point of no return is not passed yet",
            (false, _) => "it cannot be undone, and may have taken effect already",
        }
        .to_owned(),
    )
}

/// What a server does for a step now, who holds it up, and what would end that.
fn on_the_server(target: &str, activity: &Activity, style: Style) -> String {
    let wait = activity
        .waits_for
        .as_ref()
        .map(|wait| format!(", waits for {wait}"))
        .unwrap_or_default();
    let mut text = format!(
        "    on {target}: {}, {} for {}{wait}: {}\n",
        activity.session,
        activity.state,
        span(activity.since),
        one_line(&activity.statement)
    );
    for blocker in &activity.blockers {
        text.push_str(&format!(
            "    {} {}, {}, {}, its transaction is {} old: {}\n",
            style.red("held up by"),
            blocker.session,
            one_line(&blocker.who),
            blocker.state,
            span(blocker.since),
            one_line(&blocker.statement)
        ));
        text.push_str(&format!(
            "      ends it and takes back what it did: {}\n",
            style.cyan(&blocker.end)
        ));
    }
    text
}
