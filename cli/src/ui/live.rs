//! The live tree: redrawn in place, as high as the terminal allows.
use super::{
    Ui, cut, elapsed, next, one_line, span,
    words::{current, kind_of, waits_for},
};
use windlass_engine::{
    machine::{Instance, Machine, NodeState, Role, RunState, Stage},
    step::Phase,
    value::{Duration, Timestamp},
};

/// What stands on the terminal now.
#[derive(Default)]
pub(crate) struct Live {
    lines: u16,
    tick: usize,
    notes: Vec<String>,
}

impl Live {
    /// A line that stays above the tree.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Draws the tree over what was drawn before.
    pub(crate) fn draw(&mut self, ui: &Ui, machine: &Machine, now: Timestamp) {
        let (width, height) = crossterm::terminal::size().unwrap_or((80, 24));
        let lines = tree(
            ui,
            machine,
            now,
            self.tick,
            usize::from(width),
            usize::from(height).saturating_sub(2),
        );
        self.tick = self.tick.wrapping_add(1);
        // Begin and end of a synchronised update: no flicker where the terminal knows it.
        let mut text = String::from("\x1b[?2026h");
        self.clear_into(&mut text);
        for note in self.notes.drain(..) {
            text.push_str(&note);
            text.push('\n');
        }
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("\x1b[?2026l");
        self.lines = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        ui.print(&text);
    }

    fn clear_into(&self, text: &mut String) {
        text.push('\r');
        if self.lines > 0 {
            text.push_str(&format!("\x1b[{}A", self.lines));
        }
        text.push_str("\x1b[J");
    }

    /// Takes the tree away.
    pub(crate) fn clear(&mut self, ui: &Ui) {
        let mut text = String::new();
        self.clear_into(&mut text);
        self.lines = 0;
        for note in self.notes.drain(..) {
            text.push_str(&note);
            text.push('\n');
        }
        ui.print(&text);
    }
}

struct Row {
    depth: usize,
    sign: &'static str,
    state: NodeState,
    name: String,
    time: String,
    more: String,
    /// What to type, on a line of its own: it is there to be copied.
    command: Option<String>,
    /// Settled rows go first where there is no room.
    settled: bool,
    pending: bool,
}

/// The tree as lines of at most `width` columns, at most `height` of them.
pub(crate) fn tree(
    ui: &Ui,
    machine: &Machine,
    now: Timestamp,
    tick: usize,
    width: usize,
    height: usize,
) -> Vec<String> {
    let style = ui.out;
    let started = machine.started();
    let end = machine.root().finished_at.unwrap_or(now);
    let head = format!(
        "{}  {}  {}  {}  {}",
        style.bold(&started.run.playbook),
        started.run.short_id,
        style.dim(&started.run.environment),
        style.run(machine.state().as_str()),
        style.dim(&elapsed(started.run.started_at, end)),
    );
    let rows = rows(ui, machine, now, tick);
    let (rows, hidden) = fit(rows, height.saturating_sub(2));
    let widest = rows
        .iter()
        .map(|row| row.depth * 2 + row.name.chars().count())
        .max()
        .unwrap_or(0)
        .min(40);
    let mut lines = vec![head];
    for row in rows {
        let indent = "  ".repeat(row.depth);
        let room = widest.saturating_sub(row.depth * 2);
        let name = format!("{:<room$}", cut(&row.name, room.max(1)));
        // Sign, name and time take so much; what is more is cut to the rest, or it would wrap and break the redraw.
        let used = 2 + 2 + widest + 2 + 7 + 2;
        let more = cut(&row.more, width.saturating_sub(used + 1).max(4));
        lines.push(
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
                    | NodeState::Undoing
                    | NodeState::Undone => style.dim(&more),
                }
            )
            .trim_end()
            .to_owned(),
        );
        if let Some(command) = &row.command {
            let room = width.saturating_sub(row.depth * 2 + 7);
            lines.push(format!(
                "    {indent}{} {}",
                style.yellow(">"),
                style.cyan(&cut(command, room))
            ));
        }
    }
    if let Some(hidden) = hidden {
        lines.push(style.dim(&hidden));
    }
    lines
}

/// As many rows as fit: what runs, waits or failed before what is done or to come.
fn fit(rows: Vec<Row>, height: usize) -> (Vec<Row>, Option<String>) {
    let commands = rows.iter().filter(|row| row.command.is_some()).count();
    if rows.len() + commands <= height {
        return (rows, None);
    }
    // A row with a command takes two lines.
    let height = height.saturating_sub(commands.min(height / 2)).max(3);
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
        (others, "more running or waiting"),
        (coming, "to come"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    (kept, Some(format!("  … {}", parts.join(", "))))
}

fn rows(ui: &Ui, machine: &Machine, now: Timestamp, tick: usize) -> Vec<Row> {
    let over = matches!(machine.state(), RunState::Finished(_));
    machine
        .instances()
        .filter(|instance| !(over && instance.state == NodeState::Pending))
        .map(|instance| row(ui, machine, instance, now, tick))
        .collect()
}

fn row(ui: &Ui, machine: &Machine, instance: &Instance, now: Timestamp, tick: usize) -> Row {
    let (phase, execution) = current(instance);
    let depth = instance.path.matches(['/', '[']).count();
    let name = match (&instance.item, instance.path.rsplit('/').next()) {
        (Some((_, item)), Some(last)) => {
            let index = last.find('[').and_then(|at| last.get(at..)).unwrap_or(last);
            format!("{index} {}", cut(&one_line(&item.to_string()), 24))
        }
        (None, Some(last)) => last.to_owned(),
        (_, None) => instance.path.to_string(),
    };
    let end = match execution.stage {
        Stage::Succeeded | Stage::Failed | Stage::Skipped if phase == Phase::Do => {
            instance.finished_at.unwrap_or(now)
        }
        Stage::Idle
        | Stage::Running
        | Stage::Backoff
        | Stage::Waiting
        | Stage::AwaitingApproval
        | Stage::InDoubt
        | Stage::Succeeded
        | Stage::Skipped
        | Stage::Failed => now,
    };
    let is_settled = matches!(
        execution.stage,
        Stage::Succeeded | Stage::Skipped | Stage::Failed
    );
    let time = match (execution.first_started_at, phase, is_settled) {
        // When an undo ended is not kept with the instance.
        (Some(_), Phase::Undo, true) | (None, _, _) => String::new(),
        (Some(from), _, _) => span(Duration::between(from, end)),
    };
    let mut more = Vec::new();
    if execution.attempt > 1 {
        more.push(format!("attempt {}", execution.attempt));
    }
    match execution.stage {
        Stage::Backoff | Stage::Waiting | Stage::AwaitingApproval => {
            more.extend(waits_for(instance, execution, now));
        }
        Stage::InDoubt => more.push(format!(
            "in doubt: {}",
            execution.doubt.as_deref().map(one_line).unwrap_or_default()
        )),
        Stage::Failed => more.extend(
            execution
                .failure
                .as_ref()
                .map(|failure| one_line(&failure.message)),
        ),
        Stage::Skipped => more.extend(instance.skipped.as_deref().map(one_line)),
        Stage::Running if phase == Phase::Do && instance.role == Role::Step => {
            more.push(kind_of(machine, instance).to_owned());
        }
        Stage::Idle | Stage::Running | Stage::Succeeded => {}
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
        | NodeState::Failed => {}
    }
    Row {
        depth,
        sign: ui.glyphs.state(instance.state, tick),
        state: instance.state,
        name,
        time,
        more: more.join(" · "),
        command: next::answer(machine, instance)
            .filter(|_| matches!(execution.stage, Stage::Waiting | Stage::AwaitingApproval)),
        settled: matches!(
            instance.state,
            NodeState::Succeeded | NodeState::Skipped | NodeState::Undone
        ),
        pending: instance.state == NodeState::Pending,
    }
}
