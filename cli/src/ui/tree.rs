//! A run as a tree of lines, as high and as wide as the terminal allows.
use super::{
    Style, Ui, cut, elapsed, next, one_line,
    question::question,
    span,
    words::{current, kind_of, waits_for},
};
use std::collections::HashMap;
use windlass_engine::{
    machine::{Instance, Machine, NodeState, Role, RunState, Stage},
    report::{
        figures,
        output::LastLines,
        progress::{self, is_long, stands_out},
        standing::{INTERRUPTED, standing},
    },
    step::{Phase, Registry, WaitOn},
    value::{Duration, Timestamp},
};

/// Figures of what has settled, by path, attempt and state: a large output is not read again for each frame.
pub(crate) type Figures = HashMap<(String, u32, NodeState), Option<String>>;

/// What a tree is drawn from.
pub(crate) struct Seen<'a> {
    pub(crate) ui: &'a Ui,
    pub(crate) registry: &'a Registry,
    pub(crate) machine: &'a Machine,
    pub(crate) output: &'a LastLines,
    /// Since when the process that drives the run does so.
    pub(crate) since: Option<Timestamp>,
    pub(crate) now: Timestamp,
}

/// A line under a row.
enum Below {
    /// What to type: it is there to be copied.
    Command(String),
    /// What people are asked.
    Question(String),
    /// What the step printed last.
    Output(String),
}

struct Row {
    depth: usize,
    sign: &'static str,
    state: NodeState,
    name: String,
    time: String,
    more: String,
    below: Vec<Below>,
    /// Settled rows go first where there is no room.
    settled: bool,
    pending: bool,
}

/// Lines of a question and of output, as long as there is room.
const QUESTION: usize = 14;
const OUTPUT: usize = 3;

/// The tree as lines of at most `width` columns, at most `height` of them.
pub(crate) fn tree(
    seen: &Seen<'_>,
    known: &mut Figures,
    tick: usize,
    width: usize,
    height: usize,
) -> Vec<String> {
    let style = seen.ui.out;
    let started = seen.machine.started();
    let end = seen.machine.root().finished_at.unwrap_or(seen.now);
    let head = format!(
        "{}  {}  {}  {}  {}",
        style.bold(&started.run.playbook),
        started.run.short_id,
        style.dim(&started.run.environment),
        style.run(standing(seen.machine, seen.since.is_some()).word),
        style.dim(&elapsed(started.run.started_at, end)),
    );
    let mut rows = rows(seen, known, tick);
    wrap(&mut rows, width);
    let room = height.saturating_sub(2);
    trim(&mut rows, room);
    let (rows, hidden) = fit(rows, room);
    let widest = rows
        .iter()
        .map(|row| row.depth * 2 + row.name.chars().count())
        .max()
        .unwrap_or(0)
        .min(width.saturating_sub(40).clamp(16, 40));
    let mut lines = vec![head];
    for row in &rows {
        line(row, style, widest, width, &mut lines);
    }
    if let Some(hidden) = hidden {
        lines.push(style.dim(&hidden));
    }
    lines
}

fn line(row: &Row, style: Style, widest: usize, width: usize, into: &mut Vec<String>) {
    let indent = "  ".repeat(row.depth);
    let room = widest.saturating_sub(row.depth * 2);
    let name = format!("{:<room$}", cut(&row.name, room.max(1)));
    // Sign, name and time take so much; what is more is cut to the rest, or it would wrap and break the redraw.
    let used = 2 + 2 + widest + 2 + 7 + 2;
    let more = cut(&row.more, width.saturating_sub(used + 1).max(4));
    into.push(
        format!(
            "  {indent}{} {}  {:>7}  {}",
            style.state(row.state, row.sign),
            if row.pending { style.dim(&name) } else { name },
            style.dim(&format!("{:>7}", row.time)),
            match row.state {
                NodeState::Failed
                | NodeState::UndoFailed
                | NodeState::InDoubt
                | NodeState::AwaitingApproval
                | NodeState::Waiting
                | NodeState::Backoff => style.state(row.state, &more),
                NodeState::Pending
                | NodeState::Running
                | NodeState::Succeeded
                | NodeState::Skipped
                | NodeState::Ended
                | NodeState::Undoing
                | NodeState::Undone => style.dim(&more),
            }
        )
        .trim_end()
        .to_owned(),
    );
    let room = room_below(row, width);
    for below in &row.below {
        into.push(match below {
            Below::Command(text) => format!(
                "    {indent}{} {}",
                style.yellow(">"),
                style.cyan(&cut(text, room))
            ),
            Below::Question(text) => format!("    {indent}  {}", cut(text, room)),
            Below::Output(text) => {
                format!(
                    "    {indent}{}",
                    style.dim(&format!("| {}", cut(text, room)))
                )
            }
        });
    }
}

/// Columns for what stands below a row.
fn room_below(row: &Row, width: usize) -> usize {
    width.saturating_sub(row.depth * 2 + 7)
}

/// A question is shown whole: one that is longer than a line is wrapped.
fn wrap(rows: &mut [Row], width: usize) {
    for row in rows {
        let room = room_below(row, width).max(1);
        let below = std::mem::take(&mut row.below);
        row.below = below
            .into_iter()
            .flat_map(|below| match below {
                Below::Question(text) => textwrap::wrap(&text, room)
                    .into_iter()
                    .map(|line| Below::Question(line.into_owned()))
                    .collect(),
                Below::Command(_) | Below::Output(_) => vec![below],
            })
            .collect();
    }
}

/// What stands below rows gives way first: the last lines of output, then all but the beginning of a question.
fn trim(rows: &mut [Row], height: usize) {
    for (output, question) in [(OUTPUT, QUESTION), (1, QUESTION), (1, 6), (0, 6), (0, 1)] {
        for row in rows.iter_mut() {
            let is_output = |below: &Below| matches!(below, Below::Output(_));
            let mut over = row
                .below
                .iter()
                .filter(|below| is_output(below))
                .count()
                .saturating_sub(output);
            row.below.retain(|below| {
                let goes = over > 0 && is_output(below);
                over -= usize::from(goes);
                !goes
            });
            let mut asked = 0;
            row.below.retain(|below| {
                asked += usize::from(matches!(below, Below::Question(_)));
                !matches!(below, Below::Question(_)) || asked <= question
            });
        }
        if high(rows) <= height {
            return;
        }
    }
}

fn high(rows: &[Row]) -> usize {
    rows.iter().map(|row| 1 + row.below.len()).sum()
}

/// As many rows as fit: what runs, waits or failed before what is done or to come.
fn fit(rows: Vec<Row>, height: usize) -> (Vec<Row>, Option<String>) {
    let below: usize = rows.iter().map(|row| row.below.len()).sum();
    if rows.len() + below <= height {
        return (rows, None);
    }
    let height = height.saturating_sub(below.min(height / 2)).max(3);
    let mut room = height.saturating_sub(
        rows.iter()
            .filter(|row| !row.settled && !row.pending)
            .count(),
    );
    let (mut done, mut coming, mut others) = (0_usize, 0_usize, 0_usize);
    // The last settled and the first pending are the most telling.
    let settled = rows.iter().filter(|row| row.settled).count();
    let keep_settled = (room / 2).min(settled);
    room = room.saturating_sub(keep_settled);
    let mut seen_settled = 0;
    let mut kept = Vec::new();
    for row in rows {
        if row.settled {
            seen_settled += 1;
            if settled - seen_settled < keep_settled {
                kept.push(row);
            } else {
                done += 1;
            }
        } else if row.pending {
            if room > 0 {
                room -= 1;
                kept.push(row);
            } else {
                coming += 1;
            }
        } else if kept.len() < height {
            kept.push(row);
        } else {
            others += 1;
        }
    }
    let mut parts = Vec::new();
    for (count, word) in [
        (done, "done"),
        (others, "more running, waiting or failed"),
        (coming, "to come"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    (kept, Some(format!("  … {}", parts.join(", "))))
}

fn rows(seen: &Seen<'_>, known: &mut Figures, tick: usize) -> Vec<Row> {
    let over = matches!(seen.machine.state(), RunState::Finished(_));
    let mut rows = Vec::new();
    let mut stack: Vec<(&Instance, bool)> = children(seen, seen.machine.root(), false);
    while let Some((instance, in_loop)) = stack.pop() {
        // A loop is one line, with what stands out in it.
        if in_loop && !stands_out(instance) || over && instance.state == NodeState::Pending {
            continue;
        }
        rows.push(row(seen, instance, known, tick));
        stack.extend(children(seen, instance, in_loop));
    }
    rows
}

fn children<'a>(seen: &Seen<'a>, of: &'a Instance, in_loop: bool) -> Vec<(&'a Instance, bool)> {
    let in_loop = in_loop || is_long(of);
    let children = of.children.iter().rev();
    children
        .map(|id| (seen.machine.get(*id), in_loop))
        .collect()
}

fn name(instance: &Instance) -> String {
    match (&instance.item, instance.path.rsplit('/').next()) {
        (Some((_, item)), Some(last)) => {
            let index = last.find('[').and_then(|at| last.get(at..)).unwrap_or(last);
            format!("{index} {}", cut(&one_line(&item.to_string()), 24))
        }
        (None, Some(last)) => last.to_owned(),
        (_, None) => instance.path.to_string(),
    }
}

fn time(seen: &Seen<'_>, instance: &Instance) -> String {
    let (phase, execution) = current(instance);
    let is_settled = execution.stage().is_settled();
    let end = if is_settled && phase == Phase::Do {
        instance.finished_at.unwrap_or(seen.now)
    } else {
        seen.now
    };
    match (execution.first_started_at, phase, is_settled) {
        // When an undo ended is not kept with the instance.
        (Some(_), Phase::Undo, true) | (None, _, _) => String::new(),
        (Some(from), _, _) => span(Duration::between(from, end)),
    }
}

fn row(seen: &Seen<'_>, instance: &Instance, known: &mut Figures, tick: usize) -> Row {
    let (phase, execution) = current(instance);
    let mut more = Vec::new();
    if execution.attempt > 1 {
        more.push(format!("attempt {}", execution.attempt));
    }
    if is_long(instance) && instance.state != NodeState::Succeeded {
        let progress = progress::of(seen.machine, instance, seen.since, seen.now);
        more.push(progress.to_string());
    }
    // Why it failed comes first: a narrow terminal cuts the rest.
    let failure = execution.failure.as_ref();
    if execution.stage() == Stage::Failed {
        more.extend(failure.map(|failure| one_line(&failure.message)));
    }
    if matches!(instance.state, NodeState::Succeeded | NodeState::Failed) {
        let key = (instance.path.to_string(), execution.attempt, instance.state);
        let figures = known.entry(key).or_insert_with(|| {
            figures::said(&figures::of_instance(seen.machine, seen.registry, instance))
        });
        more.extend(figures.clone());
    }
    match execution.stage() {
        Stage::Backoff | Stage::Waiting | Stage::AwaitingApproval => {
            more.extend(waits_for(seen.machine, instance, execution, seen.now));
        }
        Stage::InDoubt => more.push(format!(
            "in doubt: {}",
            execution.doubt().map(one_line).unwrap_or_default()
        )),
        Stage::Skipped | Stage::Ended => more.extend(instance.skipped.as_deref().map(one_line)),
        Stage::Running if seen.since.is_none() && instance.role == Role::Step => {
            more.push(INTERRUPTED.to_owned());
        }
        Stage::Running if phase == Phase::Do && instance.role == Role::Step => {
            more.push(kind_of(seen.machine, instance).to_owned());
        }
        Stage::Idle | Stage::Running | Stage::Succeeded | Stage::Failed => {}
    }
    match instance.state {
        NodeState::Undoing => more.push("undoing".to_owned()),
        NodeState::Undone => more.push("undone".to_owned()),
        NodeState::UndoFailed => more.push("its undo failed".to_owned()),
        NodeState::Pending
        | NodeState::Running
        | NodeState::Backoff
        | NodeState::Waiting
        | NodeState::AwaitingApproval
        | NodeState::InDoubt
        | NodeState::Succeeded
        | NodeState::Skipped
        | NodeState::Ended
        | NodeState::Failed => {}
    }
    Row {
        depth: instance.path.matches(['/', '[']).count(),
        sign: seen.ui.glyphs.state(instance.state, tick),
        state: instance.state,
        name: name(instance),
        time: time(seen, instance),
        more: more.join(" · "),
        below: below(seen, instance),
        settled: matches!(
            instance.state,
            NodeState::Succeeded | NodeState::Skipped | NodeState::Undone
        ),
        pending: instance.state == NodeState::Pending,
    }
}

/// What stands under a row: what people are asked and the command that answers, or what it printed last.
fn below(seen: &Seen<'_>, instance: &Instance) -> Vec<Below> {
    let (phase, execution) = current(instance);
    let mut below = Vec::new();
    match execution.stage() {
        Stage::Waiting | Stage::AwaitingApproval => {
            if let Some(WaitOn::Approval(request)) = execution.wait().map(|wait| &wait.on) {
                let text = question(request, instance, Style::PLAIN);
                let lines: Vec<&str> = text
                    .lines()
                    .map(|line| line.strip_prefix("  ").unwrap_or(line))
                    .collect();
                let shown = if lines.len() > QUESTION {
                    QUESTION - 1
                } else {
                    lines.len()
                };
                let asked = lines.iter().take(shown);
                below.extend(asked.map(|line| Below::Question((*line).to_owned())));
                if lines.len() > shown {
                    below.push(Below::Question(format!(
                        "… {} more lines: windlass show {}",
                        lines.len() - shown,
                        next::run_of(seen.machine)
                    )));
                }
            }
            below.extend(next::answer(seen.machine, instance).map(Below::Command));
        }
        Stage::Running | Stage::Failed | Stage::Backoff | Stage::InDoubt
            if instance.role == Role::Step =>
        {
            let (lines, _) = seen
                .output
                .of(&instance.path, phase, execution.attempt, OUTPUT);
            below.extend(lines.into_iter().map(|line| Below::Output(line.to_owned())));
        }
        Stage::Idle
        | Stage::Running
        | Stage::Backoff
        | Stage::InDoubt
        | Stage::Succeeded
        | Stage::Skipped
        | Stage::Failed
        | Stage::Ended => {}
    }
    below
}
