//! A report for a ticket.
use super::{
    graph,
    human::visible,
    model::Report,
    page::{Block, blocks, word},
};

/// A cell: on one line, and no markup.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in visible(&text.replace('\r', " ")).chars() {
        match c {
            '\n' | '\t' => safe.push(' '),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '~' => {
                safe.push('\\');
                safe.push(c);
            }
            c => safe.push(c),
        }
    }
    safe
}

/// A fence that is longer than any in the text.
fn fenced(language: &str, text: &str) -> String {
    let text = visible(text);
    let longest = text
        .split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end())
}

impl Report {
    /// The report in Markdown. Text of others is no markup in it.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "# {} {}: {}\n",
            cell(&self.playbook),
            self.short_id,
            word(&self.state)
        );
        for block in blocks(self) {
            if matches!(&block, Block::Table { rows, .. } if rows.is_empty()) {
                continue;
            }
            text.push('\n');
            match block {
                Block::Part(title) => text.push_str(&format!("## {title}\n")),
                Block::Text(sentence) => text.push_str(&format!("{}\n", cell(&sentence))),
                Block::Warning(sentence) => {
                    text.push_str(&format!("> **{}**\n", cell(&sentence)));
                }
                Block::Facts(facts) => {
                    for (name, what) in facts {
                        text.push_str(&format!("- {}: {}\n", cell(&name), cell(&what)));
                    }
                }
                Block::Table { head, rows } => {
                    text.push_str(&format!("| {} |\n", head.join(" | ")));
                    text.push_str(&format!("|{}\n", "---|".repeat(head.len())));
                    for row in rows {
                        let cells: Vec<String> = row.iter().map(|one| cell(one)).collect();
                        text.push_str(&format!("| {} |\n", cells.join(" | ")));
                    }
                }
                Block::Verbatim { label, text: whole } => {
                    text.push_str(&format!("{}\n\n{}", cell(&label), fenced("", &whole)));
                }
                Block::Graph => text.push_str(&fenced("mermaid", &graph::mermaid(self))),
                Block::Timeline => {
                    text.push_str("| step | from | took |\n|---|---|---|\n");
                    for (_, step) in super::page::flat(&self.steps) {
                        let (Some(from), Some(ms)) = (&step.started_at, step.took_ms) else {
                            continue;
                        };
                        text.push_str(&format!(
                            "| {} | {from} | {} |\n",
                            cell(&step.path),
                            super::page::took(ms)
                        ));
                    }
                }
                Block::Step {
                    path,
                    state,
                    word,
                    beside,
                    ..
                } => text.push_str(&format!(
                    "### {} {}: {}\n\n{}\n",
                    graph::sign(&state),
                    cell(&path),
                    word,
                    cell(&beside)
                )),
            }
        }
        text
    }
}
