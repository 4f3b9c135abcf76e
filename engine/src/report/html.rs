//! A report as one page that needs nothing else: for a browser, a phone and paper.
use super::{
    graph::{self, sign},
    human::visible,
    model::{Report, StepReport},
    page::{Block, blocks, flat, took, word},
};
use crate::{
    plan,
    value::{Duration, Timestamp},
};

const STYLE: &str = include_str!("page.css");

/// Rows of the timeline; a `foreach` may have any number.
const MOST_BARS: usize = 300;

/// Text of others is no markup, and hides nothing.
pub(super) fn escape(text: &str) -> String {
    plan::escape(&visible(text))
}

/// The class of a cell that tells how something went.
fn verdict(cell: &str) -> &'static str {
    match cell {
        "held" | "approved" => "good",
        "failed" | "rejected" => "bad",
        "warning" => "warn",
        _ => "",
    }
}

impl Report {
    /// The report as one HTML page, without scripts and without anything from elsewhere.
    #[must_use]
    pub fn to_html(&self) -> String {
        let title = escape(&format!("{} {}", self.playbook, self.short_id));
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <title>{title}: {}</title>\n<style>\n{STYLE}</style>\n<main>\n\
             <h1>{title} <span class=\"state {}\">{}</span></h1>\n",
            escape(&word(&self.state)),
            escape(&self.state),
            escape(&word(&self.state)),
        );
        for block in blocks(self) {
            self.block(block, &mut page);
        }
        page.push_str("</main>\n</html>\n");
        page
    }

    fn block(&self, block: Block, page: &mut String) {
        match block {
            Block::Part(title) => page.push_str(&format!("<h2>{title}</h2>\n")),
            Block::Text(text) => page.push_str(&format!("<p>{}</p>\n", escape(&text))),
            Block::Warning(text) => {
                page.push_str(&format!("<p class=\"warning\">{}</p>\n", escape(&text)));
            }
            Block::Facts(facts) => {
                page.push_str("<dl>\n");
                for (name, what) in facts {
                    page.push_str(&format!(
                        "<dt>{}</dt><dd>{}</dd>\n",
                        escape(&name),
                        escape(&what)
                    ));
                }
                page.push_str("</dl>\n");
            }
            Block::Table { head, rows } => table(&head, &rows, page),
            Block::Verbatim { label, text } => page.push_str(&format!(
                "<div class=\"label\">{}</div><pre>{}</pre>\n",
                escape(&label),
                escape(text.trim_end())
            )),
            Block::Graph => page.push_str(&graph::svg(self)),
            Block::Timeline => self.timeline(page),
            Block::Step {
                path,
                state,
                word,
                beside,
                depth,
            } => page.push_str(&format!(
                "<h3 class=\"depth{}\"><span class=\"state {}\">{} {}</span> {} <small>{}</small></h3>\n",
                depth.min(3),
                escape(&state),
                sign(&state),
                escape(&word),
                escape(&path),
                escape(&beside)
            )),
        }
    }

    fn timeline(&self, page: &mut String) {
        let instant = |text: &str| text.parse::<Timestamp>().ok();
        let Some(start) = instant(&self.started_at) else {
            return;
        };
        let whole = self.took_ms.max(1);
        let share = |at: &str| {
            let ms = instant(at).map_or(0, |at| Duration::between(start, at).as_millis());
            // In thousandths of the whole, so that no rounding of floats differs between machines.
            (ms.clamp(0, whole) * 1_000 / whole).clamp(0, 1_000)
        };
        let all: Vec<&StepReport> = flat(&self.steps)
            .into_iter()
            .map(|(_, step)| step)
            .filter(|step| !step.attempts.is_empty())
            .collect();
        page.push_str("<div class=\"timeline\">\n");
        for step in all.iter().take(MOST_BARS) {
            let mut bars = String::new();
            for attempt in &step.attempts {
                let end = attempt.ended_at.as_deref().unwrap_or(&self.last_event_at);
                bars.push_str(&bar(
                    share(&attempt.started_at),
                    share(end),
                    match (attempt.is_undo, attempt.end.as_deref()) {
                        (_, Some("failed" | "in doubt")) => "failed",
                        (true, _) => "undone",
                        (false, _) => "ran",
                    },
                ));
                for wait in &attempt.waits {
                    let until = wait.until.as_deref().unwrap_or(end);
                    bars.push_str(&bar(share(&wait.from), share(until), "slept"));
                }
            }
            page.push_str(&format!(
                "<div class=\"who\">{}</div><div class=\"bars\">{bars}</div><div class=\"took\">{}</div>\n",
                escape(&step.path),
                step.took_ms.map(took).unwrap_or_default()
            ));
        }
        page.push_str("</div>\n");
        if all.len() > MOST_BARS {
            page.push_str(&format!(
                "<p>and {} more steps, which the JSON report holds</p>\n",
                all.len() - MOST_BARS
            ));
        }
        page.push_str(
            "<p class=\"legend\"><i class=\"ran\"></i> ran <i class=\"slept\"></i> waited \
             <i class=\"failed\"></i> failed <i class=\"undone\"></i> undone</p>\n",
        );
    }
}

fn bar(from: i64, to: i64, class: &str) -> String {
    format!(
        "<i class=\"{class}\" style=\"left:{}.{}%;width:{}.{}%\"></i>",
        from / 10,
        from % 10,
        (to - from).max(4) / 10,
        (to - from).max(4) % 10
    )
}

fn table(head: &[&str], rows: &[Vec<String>], page: &mut String) {
    if rows.is_empty() {
        return;
    }
    let cells: String = head.iter().map(|name| format!("<th>{name}</th>")).collect();
    page.push_str(&format!(
        "<div class=\"wide\"><table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n"
    ));
    for row in rows {
        let cells: String = row
            .iter()
            .zip(head)
            .map(|(one, name)| {
                format!(
                    "<td data-name=\"{name}\" class=\"{}\">{}</td>",
                    verdict(one),
                    escape(one)
                )
            })
            .collect();
        page.push_str(&format!("<tr>{cells}</tr>\n"));
    }
    page.push_str("</tbody></table></div>\n");
}
