//! The page of `windlass show`: all that on-call needs at 3 a.m.
//!
//! `running.rs` what runs and what its servers do for it, `done.rs` what is done so far and how to end it, `written.rs` parameters as
//! the playbook has them.
mod done;
mod running;
mod written;

use super::{
    Ui, cut, elapsed,
    inbox::Inbox,
    next::{self, Next},
    one_line,
    question::question,
    span, stamp, summary, undone, without_password,
    words::{self, current, kind_of, waits_for},
};
use crate::activity::Now;
use done::{done_so_far, what_ends};
use indexmap::IndexMap;
use running::running;
use windlass_engine::{
    journal::RunSummary,
    machine::{Holder, Instance, Machine, NodeState, Role, Stage},
    policy::windows::next_opening,
    report::{
        figures,
        output::LastLines,
        progress::{self, is_long, long_loop, stands_out},
        standing::INTERRUPTED,
    },
    step::{Phase, Registry, Target, WaitOn},
    value::{Duration, Timestamp},
};
use written::written;

/// The whole page.
pub(crate) fn render(
    ui: &Ui,
    registry: &Registry,
    machine: &Machine,
    listed: &RunSummary,
    (servers, output): (&Now, &LastLines),
    inbox: &Inbox,
    now: Timestamp,
) -> String {
    let style = ui.out;
    let holder = listed.holder.as_ref();
    let started = machine.started();
    let mut text = format!(
        "{}\n",
        summary::headline(machine, holder.is_some(), now, style)
    );
    let mut fact = |name: &str, value: String| {
        text.push_str(&format!(
            "  {} {value}\n",
            style.dim(&format!("{name:<12}"))
        ));
    };
    fact("run", started.run.id.clone());
    if let Some(key) = &listed.key {
        fact("key", key.clone());
    }
    fact("environment", started.run.environment.clone());
    fact(
        "started",
        format!(
            "{} by {}",
            stamp(started.run.started_at),
            started.run.starter()
        ),
    );
    fact(
        "last event",
        format!(
            "{}, {} ago",
            stamp(machine.last_at()),
            elapsed(machine.last_at(), now)
        ),
    );
    fact(
        "driven by",
        holder.map_or_else(
            || "no process".to_owned(),
            |holder| {
                format!(
                    "{} on {}, process {}, since {}",
                    holder.who(),
                    holder.host,
                    holder.pid,
                    stamp(holder.since)
                )
            },
        ),
    );
    fact("digest", started.digest.clone());
    if let Some(inputs) = machine
        .inputs()
        .as_map()
        .filter(|inputs| !inputs.is_empty())
    {
        let pairs: Vec<String> = inputs
            .iter()
            .map(|(name, value)| format!("{name}={}", cut(&one_line(&value.to_string()), 60)))
            .collect();
        fact("inputs", pairs.join("  "));
    }
    let policy = &machine.graph().policy;
    if !policy.windows.is_empty() && machine.finished().is_none() {
        fact("windows", windows(&policy.windows, now));
    }
    for failover in words::failovers(machine.failovers()) {
        fact("failover", failover);
    }
    if let Some(why) = machine.ending() {
        fact("ending", one_line(&why));
    }
    if !started.targets.is_empty() {
        text.push_str(&format!("{}\n", style.bold("targets")));
        for (name, target) in &started.targets {
            let line = match started.unreachable.get(name) {
                // What has answered since the start has told who it is.
                Some(why) if target.identity.is_none() => {
                    format!(
                        "{}  has not answered yet: {}",
                        target_line(target),
                        one_line(why)
                    )
                }
                Some(_) | None => target_line(target),
            };
            text.push_str(&format!("  {}  {line}\n", target.called()));
        }
    }
    text.push_str(&format!("{}\n", style.bold("steps")));
    let since = holder.map(|holder| holder.since);
    text.push_str(&steps(ui, registry, machine, since, now));
    text.push_str(&running(
        ui,
        machine,
        holder.is_some(),
        (servers, output),
        now,
    ));
    text.push_str(&asked(ui, machine, inbox, now));
    text.push_str(&inbox.render(&started.run.id, holder, now, style));
    let troubles = summary::troubles(machine, output, style);
    if !troubles.is_empty() {
        text.push_str(&format!("{}\n{troubles}", style.bold("trouble")));
    }
    text.push_str(&probes(ui, machine));
    let undone = undone::undone(machine, style);
    if !undone.is_empty() {
        text.push_str(&format!("{}\n{undone}", style.bold("undo")));
    }
    text.push_str(&done_so_far(ui, machine, holder.is_none()));
    text.push_str(&summary::outputs(machine, style));
    text.push_str(&what_ends(ui, machine, holder));
    text.push_str(&next::render(
        &all_next(machine, holder, inbox, ui.claimed.as_deref()),
        style,
    ));
    text
}

/// What can be done about the run. If something waits in its inbox, that is taken first: what else would be accepted depends on it.
pub(crate) fn all_next(
    machine: &Machine,
    holder: Option<&Holder>,
    inbox: &Inbox,
    claimed: Option<&str>,
) -> Vec<Next> {
    match inbox.taken_by(&machine.started().run.id, holder) {
        Some(command) => vec![Next {
            command,
            what: "take what waits in its inbox".to_owned(),
        }],
        None => next::all(machine, holder, claimed),
    }
}

/// `Mon-Fri 09:00-17:00 UTC (closed: opens 2026-11-23 09:00:00Z, in 2d3h)`.
fn windows(windows: &[String], now: Timestamp) -> String {
    let standing = match next_opening(windows, now) {
        Some(opens) if opens > now => format!(
            "closed: opens {}, in {}",
            stamp(opens),
            span(Duration::between(now, opens))
        ),
        Some(_) => "open now".to_owned(),
        None => "closed".to_owned(),
    };
    format!("{} ({standing})", windows.join("; "))
}

fn target_line(target: &Target) -> String {
    let mut line = format!(
        "{} {}",
        target.kind,
        without_password(&target.url.to_string())
    );
    if let Some(identity) = &target.identity {
        line.push_str(&format!("  last seen as {}", identity.instance));
        if let Some(role) = &identity.role {
            line.push_str(&format!(", {role}"));
        }
        if let Some(timeline) = identity.timeline {
            line.push_str(&format!(", timeline {timeline}"));
        }
        line.push_str(&format!(", {}", identity.version));
    }
    line
}

fn steps(
    ui: &Ui,
    registry: &Registry,
    machine: &Machine,
    since: Option<Timestamp>,
    now: Timestamp,
) -> String {
    let style = ui.out;
    // A loop is one line, with what stands out in it.
    let mut of_loop: IndexMap<&str, usize> = IndexMap::new();
    let rows: Vec<&Instance> = machine
        .instances()
        .filter(|instance| match long_loop(machine, instance) {
            None => true,
            Some(_) if !stands_out(instance) => false,
            Some(around) => {
                let seen = of_loop.entry(&around.path).or_default();
                *seen += 1;
                *seen <= summary::MOST_FAILED
            }
        })
        .collect();
    let width = rows
        .iter()
        .map(|i| i.path.matches('/').count() * 2 + i.path.chars().count())
        .max()
        .unwrap_or(0)
        .min(40);
    let mut text = String::new();
    for instance in rows {
        let (phase, execution) = current(instance);
        // No process runs it: nothing is known of it since the last event.
        let is_interrupted =
            since.is_none() && instance.role == Role::Step && execution.stage() == Stage::Running;
        let time = match (execution.first_started_at, instance.finished_at, phase) {
            (Some(from), Some(to), Phase::Do) => elapsed(from, to),
            (Some(from), _, _) if is_interrupted => elapsed(from, machine.last_at()),
            (Some(from), _, _) if execution.stage().is_active() => elapsed(from, now),
            _ => String::new(),
        };
        let mut more = vec![kind_of(machine, instance).to_owned()];
        if is_long(instance) && instance.state != NodeState::Succeeded {
            more.push(progress::of(machine, instance, since, now).to_string());
        } else if matches!(instance.state, NodeState::Succeeded | NodeState::Failed) {
            more.extend(figures::said(&figures::of_instance(
                machine, registry, instance,
            )));
        }
        if execution.attempt > 1 {
            more.push(format!("{} attempts", execution.attempt));
        }
        more.extend(waits_for(machine, instance, execution, now));
        more.extend(instance.skipped.as_deref().map(one_line));
        let word = if is_interrupted {
            INTERRUPTED
        } else {
            instance.state.as_str()
        };
        let indent = "  ".repeat(instance.path.matches('/').count());
        let name = format!("{indent}{}", instance.path);
        text.push_str(&format!(
            "  {} {name:<width$}  {}  {:>7}  {}\n",
            style.state(instance.state, ui.glyphs.state(instance.state, 0)),
            style.state(instance.state, &format!("{word:<17}")),
            time,
            style.dim(&more.join(" · ")),
        ));
    }
    for (path, seen) in of_loop {
        if let Some(more) = seen.checked_sub(summary::MOST_FAILED + 1) {
            let line = format!(
                "  … and {} more in {path} that run, wait or failed\n",
                more + 1
            );
            text.push_str(&style.dim(&line));
        }
    }
    text
}

/// What is asked of people now. A vote that waits in the inbox is counted as whoever takes it will count it.
fn asked(ui: &Ui, machine: &Machine, inbox: &Inbox, now: Timestamp) -> String {
    let style = ui.out;
    let ahead = inbox.taken(machine);
    let ahead = ahead.as_ref().unwrap_or(machine);
    let mut text = String::new();
    for instance in machine.instances() {
        let (_, execution) = current(instance);
        let Some(wait) = execution.wait() else {
            continue;
        };
        let mut answered = None;
        match (&wait.on, execution.stage()) {
            (WaitOn::Approval(request), Stage::AwaitingApproval) => {
                text.push_str(&format!(
                    "{} {}\n",
                    style.bold("approval"),
                    style.bold(&instance.path)
                ));
                let then = ahead.instance(&instance.path).unwrap_or(instance);
                text.push_str(&question(request, then, style));
                if then.votes.len() > instance.votes.len() {
                    text.push_str("  votes that wait in the inbox are counted\n");
                }
                if current(then).1.stage() != Stage::AwaitingApproval {
                    answered = Some("decided by what waits in the inbox".to_owned());
                } else if let Some(deadline) = wait.deadline {
                    if deadline > now {
                        text.push_str(&format!(
                            "  expires at {} (in {})\n",
                            stamp(deadline),
                            span(Duration::between(now, deadline))
                        ));
                    } else {
                        answered = Some(format!(
                            "expired at {}: it counts as rejected as soon as a process drives the run",
                            stamp(deadline)
                        ));
                    }
                }
            }
            (WaitOn::Signal(name), Stage::Waiting) => {
                text.push_str(&format!(
                    "{} {} waits for signal {name}\n",
                    style.bold("signal"),
                    style.bold(&instance.path)
                ));
            }
            (WaitOn::Timer(_) | WaitOn::Signal(_) | WaitOn::Approval(_), _) => continue,
        }
        if let Some(answered) = answered {
            text.push_str(&format!("  {answered}\n"));
        } else if let Some(command) = next::answer(machine, instance) {
            text.push_str(&format!("  answer with: {}\n", style.cyan(&command)));
        }
    }
    text
}

/// For each doubt, the question that settles it, to be asked by hand.
fn probes(ui: &Ui, machine: &Machine) -> String {
    let mut text = String::new();
    for instance in machine
        .instances()
        .filter(|i| current(i).1.stage() == Stage::InDoubt)
    {
        let phase = current(instance).0;
        let probe = machine
            .id_of(instance.path.as_ref())
            .and_then(|id| machine.action(id, phase))
            .and_then(|action| action.probe.as_ref());
        if let Some(probe) = probe {
            text.push_str(&format!(
                "  {} {}: {}; it is done where {}\n",
                ui.out.bold("probe by hand"),
                instance.path,
                one_line(&written(&probe.action.with)),
                probe.done.source()
            ));
        }
    }
    text
}
