//! A plan as one page that needs nothing else.
use super::{
    Decision, NodePlan, Plan,
    text::{
        brief, decision_words, effect_word, fidelity_word, foreach_words, target_row, undo_words,
    },
};
use crate::step::Effect;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;\
color:#1b1f24;background:#fff}h1{font-size:1.5rem;margin:0}code,pre{font:13px/1.45 ui-monospace,monospace}\
pre{background:#f4f5f7;padding:.5rem .75rem;border-radius:4px;overflow-x:auto;margin:.25rem 0}\
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem 1rem .15rem 0;vertical-align:top}\
.step{border-left:3px solid #c4c9d0;padding:.35rem 0 .35rem .9rem;margin:.6rem 0}.writes{border-color:#b7791f}\
.destroys,.fails{border-color:#c53030}.skip{opacity:.6}.path{font-weight:600}.dim{color:#57606a}\
.warn{color:#c53030;font-weight:600}@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#15181c}\
pre{background:#1f2429}.dim{color:#9aa4af}.warn{color:#fc8181}}";

/// Text of others is no markup.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

fn labelled(label: &str, text: &str) -> String {
    format!(
        "<div><span class=\"dim\">{}</span><pre>{}</pre></div>\n",
        escape(label),
        escape(text.trim_end())
    )
}

impl Plan {
    /// The plan as one HTML page, without scripts and without anything from elsewhere.
    #[must_use]
    pub fn to_html(&self) -> String {
        let title = escape(&format!(
            "Plan of {} in {}",
            self.playbook, self.environment
        ));
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n<h1>{title}</h1>\n"
        );
        if let Some(description) = &self.description {
            page.push_str(&format!("<p>{}</p>\n", escape(description.trim())));
        }
        page.push_str(&format!(
            "<p class=\"dim\">digest <code>{}</code></p>\n",
            escape(&self.digest)
        ));
        if !self.targets.is_empty() {
            page.push_str("<h2>Targets</h2>\n<table>\n");
            for target in &self.targets {
                let cells: String = target_row(target)
                    .iter()
                    .map(|cell| format!("<td>{}</td>", escape(cell)))
                    .collect();
                page.push_str(&format!("<tr>{cells}</tr>\n"));
            }
            page.push_str("</table>\n");
        }
        page.push_str("<ul>\n");
        for line in self.head() {
            page.push_str(&format!("<li>{}</li>\n", escape(&line)));
        }
        page.push_str("</ul>\n<h2>Steps</h2>\n");
        self.steps.iter().for_each(|node| render(node, &mut page));
        if !self.finally.is_empty() {
            page.push_str("<h2>Finally</h2>\n");
            self.finally.iter().for_each(|node| render(node, &mut page));
        }
        page.push_str("</html>\n");
        page
    }
}

fn class(node: &NodePlan) -> &'static str {
    match (&node.decision, node.effect) {
        (Decision::Skip { .. }, _) => "step skip",
        (Decision::Fails { .. }, _) => "step fails",
        (Decision::Run { .. } | Decision::Unknown { .. }, Some(Effect::Destroys)) => {
            "step destroys"
        }
        (Decision::Run { .. } | Decision::Unknown { .. }, Some(Effect::Writes)) => "step writes",
        (Decision::Run { .. } | Decision::Unknown { .. }, Some(Effect::ReadOnly) | None) => "step",
    }
}

fn render(node: &NodePlan, page: &mut String) {
    let mut facts = vec![node.kind.clone()];
    facts.extend(node.targets.iter().cloned());
    facts.extend(node.effect.map(|effect| effect_word(effect).to_owned()));
    if node.effect != Some(Effect::ReadOnly) {
        facts.extend(node.undo.as_ref().map(undo_words));
    }
    page.push_str(&format!(
        "<div class=\"{}\"><div><span class=\"path\">{}</span> <span class=\"dim\">{} — {}:{}</span></div>\n",
        class(node),
        escape(&node.path),
        escape(&facts.join(" · ")),
        escape(&node.file),
        node.line
    ));
    let mut line = |text: &str, class: &str| {
        page.push_str(&format!("<div class=\"{class}\">{}</div>\n", escape(text)));
    };
    if let Some(description) = &node.description {
        line(description.trim(), "");
    }
    if node.decision != (Decision::Run { because: None }) {
        line(&decision_words(&node.decision), "");
    }
    if let Some(foreach) = &node.foreach {
        line(&foreach_words(foreach), "");
    }
    if let Some(preview) = &node.preview {
        match &preview.error {
            Some(error) => line(&format!("preview failed: {error}"), "warn"),
            None => {
                let before = if preview.before_the_change {
                    " (before the change)"
                } else {
                    ""
                };
                line(
                    &format!(
                        "{}{before}: {}",
                        fidelity_word(preview.fidelity),
                        preview.summary
                    ),
                    "",
                );
            }
        }
        for shown in &preview.lines {
            page.push_str(&labelled(&shown.label, &shown.text));
        }
        if let Some(output) = &preview.output {
            page.push_str(&labelled("gives", &brief(output)));
        }
    }
    for step in node.undo.iter().flat_map(|undo| &undo.steps) {
        let when = step
            .when
            .as_ref()
            .map(|when| format!(" when {when}"))
            .unwrap_or_default();
        page.push_str(&format!(
            "<div>undo {}{}</div>\n",
            escape(&step.kind),
            escape(&when)
        ));
        for (label, text) in &step.with {
            page.push_str(&labelled(label, text));
        }
    }
    node.steps.iter().for_each(|child| render(child, page));
    if !node.finally.is_empty() {
        page.push_str("<div class=\"dim\">finally</div>\n");
        node.finally.iter().for_each(|child| render(child, page));
    }
    page.push_str("</div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_no_markup() {
        assert_eq!(
            escape("<a href=\"x\">'&'"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;"
        );
    }
}
