//! The graph of a run, drawn: who waited for whom, and how each ended.
use super::{
    html::escape,
    human::one_line,
    model::{Report, StepReport},
    page::took,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

const WIDTH: usize = 190;
const HEIGHT: usize = 46;
const GAP_X: usize = 20;
const GAP_Y: usize = 30;
/// Boxes side by side; more of a layer stand below.
const MOST_IN_ROW: usize = 5;

/// The sign of a state: it must be told without colour too.
pub(super) fn sign(state: &str) -> &'static str {
    match state {
        "succeeded" => "✓",
        "failed" | "undo_failed" => "✗",
        "skipped" => "–",
        "undone" => "↶",
        "in_doubt" => "?",
        "pending" => "·",
        _ => "…",
    }
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// What stands under the name of a step in its box.
fn beside(step: &StepReport) -> String {
    let mut words = vec![step.word()];
    let mut items: BTreeMap<String, usize> = BTreeMap::new();
    for item in step.steps.iter().filter(|_| step.kind == "foreach") {
        *items.entry(item.word()).or_default() += 1;
    }
    if !items.is_empty() {
        let counts: Vec<String> = items
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        words = vec![counts.join(", ")];
    }
    words.extend(step.took_ms.map(took));
    words.join(" · ")
}

/// How many steps must settle before each; `finally` comes after all others, in order.
fn layers(steps: &[StepReport]) -> BTreeMap<usize, Vec<&StepReport>> {
    let mut depth: HashMap<&str, usize> = HashMap::new();
    let mut layers: BTreeMap<usize, Vec<&StepReport>> = BTreeMap::new();
    for step in steps {
        // A step needs only steps above it.
        let mut own = step
            .needs
            .iter()
            .filter_map(|need| depth.get(need.as_str()))
            .map(|before| before + 1)
            .max()
            .unwrap_or(0);
        if step.in_finally {
            own = layers.keys().next_back().map_or(0, |last| last + 1);
        }
        depth.insert(&step.path, own);
        layers.entry(own).or_default().push(step);
    }
    layers
}

/// The steps of the playbook as one picture; what a group, a call or a `foreach` holds is in its box.
pub(super) fn svg(report: &Report) -> String {
    let layers = layers(&report.steps);
    let columns = layers
        .values()
        .map(Vec::len)
        .max()
        .unwrap_or(1)
        .min(MOST_IN_ROW);
    let width = columns * (WIDTH + GAP_X);
    let mut at: HashMap<&str, (usize, usize)> = HashMap::new();
    let mut y = 2;
    let mut boxes = String::new();
    for layer in layers.values() {
        for row in layer.chunks(MOST_IN_ROW) {
            let left = (width - row.len() * (WIDTH + GAP_X)) / 2 + GAP_X / 2;
            for (column, step) in row.iter().enumerate() {
                let x = left + column * (WIDTH + GAP_X);
                at.insert(&step.path, (x, y));
                draw(step, x, y, &mut boxes);
            }
            y += HEIGHT + GAP_Y;
        }
    }
    let mut lines = String::new();
    for step in &report.steps {
        let Some((x, y)) = at.get(step.path.as_str()) else {
            continue;
        };
        for need in &step.needs {
            if let Some((from_x, from_y)) = at.get(need.as_str()) {
                let (start, end) = (from_x + WIDTH / 2, x + WIDTH / 2);
                let (top, bottom) = (from_y + HEIGHT, *y);
                let middle = bottom.saturating_sub(GAP_Y / 2);
                write!(
                    lines,
                    "<path class=\"edge\" d=\"M{start} {top} C{start} {middle} {end} {middle} {end} {bottom}\"/>"
                )
                .ok();
            }
        }
    }
    let height = y.saturating_sub(GAP_Y) + 4;
    format!(
        "<svg class=\"graph\" viewBox=\"0 0 {width} {height}\" style=\"max-width:{width}px\" role=\"img\" \
         aria-label=\"the steps and how each ended\">{lines}{boxes}</svg>\n"
    )
}

fn draw(step: &StepReport, x: usize, y: usize, into: &mut String) {
    let state = escape(&step.state);
    let dashed = if matches!(step.state.as_str(), "skipped" | "pending") {
        " stroke-dasharray=\"4 3\""
    } else {
        ""
    };
    write!(
        into,
        "<g class=\"box {state}\"><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         rx=\"5\"{dashed}/><text x=\"{}\" y=\"{}\" class=\"name\">{} {}</text>\
         <text x=\"{}\" y=\"{}\" class=\"small\">{}</text></g>",
        escape(&format!("{}: {}", step.path, step.word())),
        x + 10,
        y + 19,
        sign(&step.state),
        escape(&cut(&step.path, 22)),
        x + 10,
        y + 36,
        escape(&cut(&beside(step), 30)),
    )
    .ok();
}

/// The same for Markdown, which draws Mermaid.
pub(super) fn mermaid(report: &Report) -> String {
    let name = |path: &str| {
        path.chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect::<String>()
    };
    let mut text = "flowchart TD\n".to_owned();
    for step in &report.steps {
        let label = format!("{} {} · {}", sign(&step.state), step.path, beside(step));
        writeln!(
            text,
            "  s_{}[\"{}\"]",
            name(&step.path),
            one_line(&label).replace('"', "'")
        )
        .ok();
        for need in &step.needs {
            writeln!(text, "  s_{} --> s_{}", name(need), name(&step.path)).ok();
        }
    }
    text
}
