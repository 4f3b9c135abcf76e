//! A plan as Markdown, for a pull request.
use super::{
    Decision, NodePlan, Plan,
    text::{
        brief, decision_words, effect_word, fidelity_word, foreach_words, target_row, undo_words,
    },
};
use crate::step::Effect;

impl Plan {
    /// The plan as Markdown; ends with a line break.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out: Vec<String> = vec![format!(
            "## Plan of `{}` in `{}`",
            self.playbook, self.environment
        )];
        out.push(String::new());
        if let Some(description) = &self.description {
            out.push(description.trim_end().to_owned());
            out.push(String::new());
        }
        out.push(format!("Digest `{}`", self.digest));
        out.push(String::new());
        if !self.targets.is_empty() {
            out.push("| target | kind | where | role | version |".to_owned());
            out.push("|---|---|---|---|---|".to_owned());
            for target in &self.targets {
                let cells: Vec<String> = target_row(target)
                    .iter()
                    .map(|cell| escaped(cell))
                    .collect();
                out.push(format!("| {} |", cells.join(" | ")));
            }
            out.push(String::new());
        }
        out.extend(
            self.head()
                .iter()
                .map(|line| format!("- {}", escaped(line))),
        );
        out.push(String::new());
        out.push("### Steps".to_owned());
        out.push(String::new());
        self.steps.iter().for_each(|node| render(node, 0, &mut out));
        if !self.finally.is_empty() {
            out.push(String::new());
            out.push("### Finally".to_owned());
            out.push(String::new());
            self.finally
                .iter()
                .for_each(|node| render(node, 0, &mut out));
        }
        out.join("\n") + "\n"
    }
}

fn render(node: &NodePlan, depth: usize, out: &mut Vec<String>) {
    let pad = "  ".repeat(depth);
    let mut head = format!("{pad}- **{}** `{}`", escaped(&node.path), node.kind);
    if !node.targets.is_empty() {
        head.push_str(&format!(" on {}", escaped(&node.targets.join(", "))));
    }
    if let Some(effect) = node.effect {
        head.push_str(&format!(" · {}", effect_word(effect)));
    }
    if let Some(undo) = node
        .undo
        .as_ref()
        .filter(|_| node.effect != Some(Effect::ReadOnly))
    {
        head.push_str(&format!(" · {}", undo_words(undo)));
    }
    out.push(head);
    let inner = format!("{pad}  ");
    if let Some(description) = &node.description {
        out.push(format!(
            "{inner}{}  ",
            escaped(&description.replace('\n', " "))
        ));
    }
    if node.decision != (Decision::Run { because: None }) {
        out.push(format!(
            "{inner}{}  ",
            escaped(&decision_words(&node.decision))
        ));
    }
    if let Some(foreach) = &node.foreach {
        out.push(format!("{inner}{}  ", escaped(&foreach_words(foreach))));
    }
    if let Some(preview) = &node.preview {
        let words = match &preview.error {
            Some(error) => format!("preview failed: {error}"),
            None if preview.known_after.is_empty() => {
                let before = if preview.before_the_change {
                    " (before the change)"
                } else {
                    ""
                };
                let word = fidelity_word(preview.fidelity);
                format!("*{word}{before}*: {}", escaped(&preview.summary))
            }
            None => escaped(&preview.summary),
        };
        out.push(format!("{inner}{words}  "));
        for line in &preview.lines {
            labelled(&line.label, &line.text, &inner, out);
        }
        if let Some(output) = &preview.output {
            labelled("gives", &brief(output), &inner, out);
        }
    }
    if let Some(undo) = &node.undo {
        for step in &undo.steps {
            out.push(format!("{inner}undo `{}`  ", step.kind));
            for (label, text) in &step.with {
                labelled(label, text, &inner, out);
            }
        }
    }
    for child in &node.steps {
        render(child, depth + 1, out);
    }
    if let Some(foreach) = &node.foreach
        && let Some(items) = foreach.items
        && items > foreach.shown
    {
        out.push(format!(
            "{inner}- … and {} more items",
            items - foreach.shown
        ));
    }
    for child in &node.finally {
        render(child, depth + 1, out);
    }
}

/// Text in a fence that no text inside it can close.
fn labelled(label: &str, text: &str, pad: &str, out: &mut Vec<String>) {
    let text = text.trim_end();
    if !text.contains(['\n', '`']) && text.chars().count() <= 100 {
        out.push(format!("{pad}{}: `{text}`  ", escaped(label)));
        return;
    }
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    let language = if label.contains("sql") { "sql" } else { "" };
    out.push(format!("{pad}{}:", escaped(label)));
    out.push(String::new());
    out.push(format!("{pad}{fence}{language}"));
    out.extend(text.lines().map(|line| format!("{pad}{line}")));
    out.push(format!("{pad}{fence}"));
    out.push(String::new());
}

/// What users wrote is shown as text, never as markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut code = false;
    for c in text.chars() {
        if c == '`' {
            code = !code;
        } else if !code && matches!(c, '*' | '_' | '<' | '>' | '[' | ']' | '\\' | '#') || c == '|' {
            out.push('\\');
        }
        out.push(if c == '\n' { ' ' } else { c });
    }
    out
}
