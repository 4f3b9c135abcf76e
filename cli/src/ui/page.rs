//! The page of `windlass show`: all that on-call needs at 3 a.m.
use super::{
    Style, Ui, clock, cut, elapsed,
    inbox::Inbox,
    indented,
    next::{self, Next},
    one_line,
    question::question,
    span, stamp, summary, undone, value_lines, without_password,
    words::{self, current, is_impossible, kind_of, node_of, place_of, undo_of, waits_for},
};
use crate::activity::Now;
use indexmap::IndexMap;
use windlass_engine::{
    expr::{Template, TemplatePart},
    graph::{Body, Undo},
    machine::{Holder, Instance, Machine, NodeState, Role, RunState, Stage},
    policy::windows::next_opening,
    report::{
        figures,
        output::LastLines,
        progress::{self, is_long, long_loop, stands_out},
    },
    step::{Activity, Phase, Registry, Target, WaitOn},
    value::{Duration, Timestamp, Value},
};

/// The whole page.
pub(crate) fn render(
    ui: &Ui,
    registry: &Registry,
    machine: &Machine,
    holder: Option<&Holder>,
    (servers, output): (&Now, &LastLines),
    inbox: &Inbox,
    now: Timestamp,
) -> String {
    let style = ui.out;
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
                Some(why) if target.identity.is_none() => {
                    format!("{}  has not answered yet: {why}", target_line(target))
                }
                Some(_) | None => target_line(target),
            };
            text.push_str(&format!("  {}  {line}\n", target.called()));
        }
    }
    text.push_str(&format!("{}\n", style.bold("steps")));
    let since = holder.map(|holder| holder.since);
    text.push_str(&steps(ui, registry, machine, since, now));
    text.push_str(&running(ui, machine, (servers, output), now));
    text.push_str(&asked(ui, machine, now));
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
        line.push_str(&format!("  is {}", identity.instance));
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
        let time = match (execution.first_started_at, instance.finished_at, phase) {
            (Some(from), Some(to), Phase::Do) => elapsed(from, to),
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
        more.extend(waits_for(instance, execution, now));
        more.extend(instance.skipped.as_deref().map(one_line));
        let indent = "  ".repeat(instance.path.matches('/').count());
        let name = format!("{indent}{}", instance.path);
        text.push_str(&format!(
            "  {} {name:<width$}  {}  {:>7}  {}\n",
            style.state(instance.state, ui.glyphs.state(instance.state, 0)),
            style.state(instance.state, &format!("{:<17}", instance.state.as_str())),
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

fn running(
    ui: &Ui,
    machine: &Machine,
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
            style.bold(if execution.stage() == Stage::InDoubt {
                "in doubt"
            } else {
                "running"
            }),
            style.bold(&instance.path),
            kind_of(machine, instance),
        ));
        if let Some(place) = place_of(machine, instance) {
            text.push_str(&format!("    {} {place}\n", style.blue("-->")));
        }
        if let Some(from) = execution.started_at {
            let mut line = format!("attempt {}, for {}", execution.attempt, elapsed(from, now));
            if let Some(deadline) = execution.deadline {
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

fn asked(ui: &Ui, machine: &Machine, now: Timestamp) -> String {
    let style = ui.out;
    let mut text = String::new();
    for instance in machine.instances() {
        let (_, execution) = current(instance);
        let Some(wait) = execution.wait() else {
            continue;
        };
        match (&wait.on, execution.stage()) {
            (WaitOn::Approval(request), Stage::AwaitingApproval) => {
                text.push_str(&format!(
                    "{} {}\n",
                    style.bold("approval"),
                    style.bold(&instance.path)
                ));
                text.push_str(&question(request, instance, style));
                if let Some(deadline) = wait.deadline {
                    text.push_str(&format!(
                        "  expires at {} (in {})\n",
                        stamp(deadline),
                        span(Duration::between(now, deadline))
                    ));
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
        if let Some(command) = next::answer(machine, instance) {
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

/// Parameters as they are written in the playbook, in one line; SQL stands before everything else.
fn written(template: &Template) -> String {
    type Pairs = Vec<(String, String)>;
    let pairs: Pairs = match template {
        Template::Map(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), inner(value)))
            .collect(),
        Template::Literal(Value::Map(map)) => map
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        other => return inner(other),
    };
    let (sql, rest): (Pairs, Pairs) = pairs.into_iter().partition(|(key, _)| key == "sql");
    let rest: Vec<String> = rest
        .into_iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    match sql.first() {
        Some((_, sql)) => format!("{}  ({})", one_line(sql), rest.join(", ")),
        None => rest.join(", "),
    }
}

fn inner(template: &Template) -> String {
    match template {
        Template::Literal(value) => value.to_string(),
        Template::Expr(expr) => format!("${{{{ {} }}}}", expr.source()),
        Template::Text(parts) => parts
            .iter()
            .map(|part| match part {
                TemplatePart::Text(text) => text.clone(),
                TemplatePart::Expr(expr) => format!("${{{{ {} }}}}", expr.source()),
            })
            .collect(),
        Template::List(items) => {
            let items: Vec<String> = items.iter().map(inner).collect();
            format!("[{}]", items.join(", "))
        }
        Template::Map(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}: {}", inner(value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

/// `is_lost`: no process drives it, so that what ran is lost.
fn done_so_far(ui: &Ui, machine: &Machine, is_lost: bool) -> String {
    let style = ui.out;
    let effects: Vec<&Instance> = machine
        .instances()
        .filter(|i| i.role == Role::Step && i.took_effect && i.state != NodeState::Undone)
        .collect();
    let mut text = format!("{}\n", style.bold("done so far"));
    let doubts: Vec<String> = machine
        .instances()
        .filter(|instance| current(instance).1.stage() == Stage::InDoubt)
        .chain(
            is_lost
                .then(|| machine.doubtful_if_lost())
                .into_iter()
                .flatten(),
        )
        .map(|instance| instance.path.to_string())
        .collect();
    if !doubts.is_empty() {
        text.push_str(&format!(
            "  {} {}\n",
            style.magenta("perhaps:"),
            doubts.join(", ")
        ));
    }
    let passing = passing(ui, machine);
    text.push_str(&passing);
    if effects.is_empty() {
        let more = if doubts.is_empty() && passing.is_empty() {
            "nothing"
        } else {
            "nothing else"
        };
        text.push_str(&format!("  {more} that would need undoing\n"));
        return text;
    }
    // Items of one foreach are undone alike: one line for all of them.
    let mut groups: Vec<Vec<&Instance>> = Vec::new();
    for &instance in &effects {
        match groups.last_mut() {
            Some(group) if group.last().is_some_and(|last| last.def == instance.def) => {
                group.push(instance)
            }
            Some(_) | None => groups.push(vec![instance]),
        }
    }
    for group in &groups {
        let (Some(instance), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        let how = undo_of(machine, instance).unwrap_or_default();
        let name = if group.len() > 1 {
            format!(
                "{} … {} ({} of them)",
                instance.path,
                last.path,
                group.len()
            )
        } else {
            instance.path.to_string()
        };
        text.push_str(&format!("  {name}  {}\n", style.dim(&how)));
        if let Some(Body::Step(step)) = node_of(machine, instance).map(|node| &node.body)
            && let Undo::Steps(actions) = &step.undo
        {
            for action in actions {
                let with = written(&action.with);
                text.push_str(&format!(
                    "      {} {}\n",
                    action.kind,
                    cut(&one_line(&with), 110)
                ));
            }
        }
    }
    let passed: Vec<String> = effects
        .iter()
        .filter(|instance| is_impossible(machine, instance))
        .map(|instance| instance.path.to_string())
        .collect();
    // An undo that was tried and is not done is told of under "undo".
    let undo_is_open = effects
        .iter()
        .any(|instance| instance.undo.stage() != Stage::Idle);
    text.push_str(
        &if passed.is_empty() && (!passing.is_empty() || undo_is_open) {
            String::new()
        } else if passed.is_empty() {
            "  the point of no return is not passed: all of it can be undone\n".to_owned()
        } else {
            format!(
                "  {} {} cannot be undone, nor what it needs\n",
                style.red("the point of no return is passed:"),
                passed.join(", ")
            )
        },
    );
    text
}

/// Steps that run now and cannot be undone: until they end it is not known whether there is a way back.
fn passing(ui: &Ui, machine: &Machine) -> String {
    let now: Vec<&str> = machine
        .instances()
        .filter(|instance| {
            instance.role == Role::Step
                && matches!(instance.forward.stage(), Stage::Running | Stage::InDoubt)
                && is_impossible(machine, instance)
        })
        .map(|instance| instance.path.as_ref())
        .collect();
    if now.is_empty() {
        return String::new();
    }
    format!(
        "  {} {}: once it has taken effect, neither it nor what it needs can be undone\n",
        ui.out.red("the point of no return is being passed by"),
        now.join(", ")
    )
}

fn what_ends(ui: &Ui, machine: &Machine, holder: Option<&Holder>) -> String {
    if matches!(machine.state(), RunState::Finished(_)) {
        return String::new();
    }
    let running = machine
        .instances()
        .filter(|i| i.role == Role::Step && current(i).1.stage() == Stage::Running)
        .count();
    let mut text = format!("{}\n", ui.out.bold("to end it"));
    if let Some(holder) = holder {
        text.push_str(&format!(
            "  Ctrl-C in process {} on {}: starts nothing new, lets {} finish, leaves the run to be resumed; a second \
             one ends what runs on its server\n",
            holder.pid,
            holder.host,
            match running {
                0 => "nothing".to_owned(),
                1 => "the running step".to_owned(),
                n => format!("the {n} running steps"),
            }
        ));
    }
    text.push_str("  cancel --undo: lets running steps finish, undoes what was done in reverse order, runs finally\n");
    text.push_str(
        "  cancel --leave: lets running steps finish, leaves what was done, runs finally\n",
    );
    text.push_str(
        "  --force with either: ends running steps on their server instead of awaiting them\n",
    );
    text
}
