//! A plan as a tree for a terminal, without colours.
use super::{Decision, NodePlan, Plan, UndoHow, UndoPlan};
use crate::{
    step::{Effect, Fidelity},
    value::{Duration, Value},
};

impl Plan {
    /// The plan as a tree for a terminal, without colours; ends with a line break.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = Lines(Vec::new());
        out.add(
            0,
            format!("Plan of {} in {}", self.playbook, self.environment),
        );
        if let Some(description) = &self.description {
            out.block(2, description);
        }
        out.add(2, format!("digest {}", self.digest));
        out.add(0, "");
        if !self.targets.is_empty() {
            out.add(0, "Targets");
            let rows: Vec<Vec<String>> = self.targets.iter().map(target_row).collect();
            columns(&rows).into_iter().for_each(|row| out.add(2, row));
            out.add(0, "");
        }
        for line in self.head() {
            out.add(0, line);
        }
        out.add(0, "");
        out.add(0, "Steps");
        self.steps.iter().for_each(|node| render(node, 2, &mut out));
        if !self.finally.is_empty() {
            out.add(0, "Finally");
            self.finally
                .iter()
                .for_each(|node| render(node, 2, &mut out));
        }
        out.0.join("\n") + "\n"
    }

    /// Counts, the point of no return, time, secrets: a line each.
    pub(super) fn head(&self) -> Vec<String> {
        let counts = self.counts;
        let mut lines = Vec::new();
        let mut parts = vec![
            format!("{} read", counts.reads),
            format!("{} write", counts.writes),
        ];
        for (count, word) in [
            (counts.destroys, "destroy"),
            (counts.irreversible, "cannot be undone"),
            (counts.unknown, "unknown"),
            (counts.decided_at_run_time, "decided at run time"),
            (counts.skipped, "skipped"),
            (counts.failed, "failed to preview"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {word}"));
            }
        }
        let noun = if counts.steps == 1 { "step" } else { "steps" };
        lines.push(format!("{} {noun}: {}", counts.steps, parts.join(", ")));
        lines.push(match &self.point_of_no_return {
            Some(point) => format!(
                "Point of no return: {} ({}:{}){}",
                point.path,
                point.file,
                point.line,
                if point.certain { "" } else { ", if it runs" }
            ),
            None => "Point of no return: none; every step can be undone".to_owned(),
        });
        let bounded = self.worst_case.time > Duration::ZERO;
        let mut time = match (bounded, self.worst_case.without_limit.is_empty()) {
            (true, _) | (false, true) => format!("Worst case: {}", self.worst_case.time),
            (false, false) => "Worst case: without end".to_owned(),
        };
        if let Some(limit) = self.max_duration {
            time.push_str(&format!(" of {limit} allowed"));
            if self.worst_case.time > limit {
                time.push_str(", TOO LONG");
            }
        }
        if !self.worst_case.without_limit.is_empty() {
            time.push_str(&format!(
                "; no `timeout`: {}",
                self.worst_case.without_limit.join(", ")
            ));
        }
        lines.push(time);
        if !self.windows.is_empty() {
            let now = match &self.window_opens {
                Some(opens) => format!("; outside its window now; opens {opens}"),
                None => String::new(),
            };
            lines.push(format!("Windows: {}{now}", self.windows.join(", ")));
        }
        for (word, list) in [("Locks", &self.locks), ("Secrets", &self.secrets)] {
            if !list.is_empty() {
                lines.push(format!("{word}: {}", list.join(", ")));
            }
        }
        if let Some(inputs) = self.inputs.as_map().filter(|inputs| !inputs.is_empty()) {
            let inputs: Vec<String> = inputs
                .iter()
                .map(|(name, value)| format!("{name}={}", super::known::short(value)))
                .collect();
            lines.push(format!("Inputs: {}", inputs.join(", ")));
        }
        lines
    }
}

struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, indent: usize, text: impl AsRef<str>) {
        let text = text.as_ref();
        self.0.push(if text.is_empty() {
            String::new()
        } else {
            format!("{}{text}", " ".repeat(indent))
        });
    }
    fn block(&mut self, indent: usize, text: &str) {
        for line in text.trim_end().lines() {
            self.add(indent, line);
        }
    }
}

pub(super) fn target_row(target: &super::PlanTarget) -> Vec<String> {
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    let place = match &target.like {
        Some(like) => format!("like {like}, {}", target.url),
        None => target.url.clone(),
    };
    vec![
        target.name.clone(),
        target.kind.clone(),
        place,
        or_empty(&target.role),
        match &target.unreachable {
            Some(_) => "does not answer".to_owned(),
            None => or_empty(&target.version),
        },
    ]
}

fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let width = |at: usize| {
        rows.iter()
            .filter_map(|row| row.get(at))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(at, cell)| format!("{cell:<width$}", width = width(at)))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

pub(super) fn effect_word(effect: Effect) -> &'static str {
    match effect {
        Effect::ReadOnly => "reads",
        Effect::Writes => "writes",
        Effect::Destroys => "destroys",
    }
}

pub(super) fn fidelity_word(fidelity: Fidelity) -> &'static str {
    match fidelity {
        Fidelity::Executed => "executed",
        Fidelity::RolledBack => "rolled back",
        Fidelity::Estimated => "estimated",
        Fidelity::Compared => "compared",
        Fidelity::Simulated => "simulated",
        Fidelity::Unknown => "unknown",
    }
}

pub(super) fn undo_words(undo: &UndoPlan) -> String {
    let how = match undo.how {
        UndoHow::Auto => "undo: auto".to_owned(),
        UndoHow::None => "undo: none needed".to_owned(),
        UndoHow::Impossible => "CANNOT BE UNDONE".to_owned(),
        UndoHow::Steps => format!(
            "undo: {}",
            undo.steps
                .iter()
                .map(|step| step.kind.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    if undo.cleanup {
        format!("{how}, always at the end")
    } else {
        how
    }
}

pub(super) fn decision_words(decision: &Decision) -> String {
    match decision {
        Decision::Run { because: None } => "would run".to_owned(),
        Decision::Run {
            because: Some(because),
        } => format!("would run, since {because}"),
        Decision::Skip { because } => format!("would skip, because not {because}"),
        Decision::Unknown { condition, until } => {
            format!("cannot know until {}: `{condition}`", until.join(", "))
        }
        Decision::Fails { because } => format!("would fail: {because}"),
    }
}

fn marker(node: &NodePlan) -> char {
    match (&node.decision, node.effect) {
        (Decision::Skip { .. }, _) => 'o',
        (Decision::Fails { .. }, _) => '!',
        (Decision::Unknown { .. }, _) => '?',
        (Decision::Run { .. }, None | Some(Effect::ReadOnly)) => '.',
        (Decision::Run { .. }, Some(Effect::Writes)) => '+',
        (Decision::Run { .. }, Some(Effect::Destroys)) => '-',
    }
}

pub(super) fn foreach_words(foreach: &super::ForeachPlan) -> String {
    let mut words = match foreach.items {
        Some(1) => "1 item".to_owned(),
        Some(items) => format!("{items} items"),
        None => format!("items known after {}", foreach.known_after.join(", ")),
    };
    if let Some(max) = foreach.max_items {
        words.push_str(&format!(", at most {max}"));
    }
    words.push_str(&format!(
        ", {} at once, of `{}`",
        foreach.max_parallel, foreach.of
    ));
    words
}

fn render(node: &NodePlan, indent: usize, out: &mut Lines) {
    let mut head = vec![node.path.clone(), node.kind.clone()];
    if !node.targets.is_empty() {
        head.push(node.targets.join(", "));
    }
    if let Some(effect) = node.effect {
        head.push(effect_word(effect).to_owned());
    }
    if let Some(undo) = node
        .undo
        .as_ref()
        .filter(|_| node.effect != Some(Effect::ReadOnly))
    {
        head.push(undo_words(undo));
    }
    out.add(indent, format!("{} {}", marker(node), head.join("  ")));
    let inner = indent + 4;
    if let Some(description) = &node.description {
        out.block(inner, description);
    }
    if node.decision != (Decision::Run { because: None }) {
        out.add(inner, decision_words(&node.decision));
    }
    if let Some(foreach) = &node.foreach {
        out.add(inner, foreach_words(foreach));
    }
    if let Some(preview) = &node.preview {
        let word = fidelity_word(preview.fidelity);
        match &preview.error {
            Some(error) => out.add(inner, format!("preview failed: {error}")),
            None if preview.known_after.is_empty() => {
                let before = if preview.before_the_change {
                    " (before the change)"
                } else {
                    ""
                };
                out.add(inner, format!("{word}{before}: {}", preview.summary));
            }
            None => out.add(inner, &preview.summary),
        }
        for line in &preview.lines {
            labelled(&line.label, &line.text, inner, out);
        }
        if let Some(output) = &preview.output {
            labelled("gives", &brief(output), inner, out);
        }
    }
    if let Some(undo) = &node.undo {
        for step in &undo.steps {
            let when = step.when.as_ref().map(|when| format!(" when {when}"));
            out.add(
                inner,
                format!("undo {}{}", step.kind, when.unwrap_or_default()),
            );
            for (label, text) in &step.with {
                labelled(label, text, inner + 2, out);
            }
        }
    }
    for child in &node.steps {
        render(child, indent + 2, out);
    }
    if let Some(foreach) = &node.foreach
        && let Some(items) = foreach.items
        && items > foreach.shown
    {
        out.add(inner, format!("… and {} more items", items - foreach.shown));
    }
    if !node.finally.is_empty() {
        out.add(inner, "finally");
        node.finally
            .iter()
            .for_each(|child| render(child, indent + 6, out));
    }
}

fn labelled(label: &str, text: &str, indent: usize, out: &mut Lines) {
    let text = text.trim_end();
    if text.contains('\n') {
        out.add(indent, format!("{label}:"));
        out.block(indent + 2, text);
    } else {
        out.add(indent, format!("{label}: {text}"));
    }
}

/// What a step read, short enough for a line.
pub(super) fn brief(value: &Value) -> String {
    let text = value.to_string();
    let mut cut: String = text.chars().take(160).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}
