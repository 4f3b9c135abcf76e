//! What an approval asks.
use super::{Style, indented, one_line, stamp, value_lines, words::votes};
use windlass_engine::{
    machine::Instance,
    step::{ApprovalRequest, Question},
    value::Value,
};

/// What people are asked: the prompt, what is shown, the questions with their options, the votes.
pub(crate) fn question(request: &ApprovalRequest, instance: &Instance, style: Style) -> String {
    let mut text = String::new();
    for line in value_lines(&Value::text(request.prompt.as_str()), 20) {
        text.push_str(&format!("  {}\n", style.bold(&line)));
    }
    if !request.show.is_null() {
        text.push_str("  shown\n");
        text.push_str(&indented("    ", &value_lines(&request.show, 60)));
        text.push_str(&format!(
            "  {}\n",
            style.dim(&format!("sha256 of what is shown: {}", request.shown_hash))
        ));
    }
    for (name, ask) in &request.ask {
        match ask {
            Question::Choose { from, min, max, .. } => {
                let many = match (min, max) {
                    (0, max) => format!("up to {max}"),
                    (min, max) if min == max => max.to_string(),
                    (min, max) => format!("{min} to {max}"),
                };
                text.push_str(&format!("  question {name}: choose {many}\n"));
                for (index, choice) in from.iter().enumerate() {
                    text.push_str(&format!(
                        "    {:>3}  {}\n",
                        index + 1,
                        one_line(&choice.label)
                    ));
                }
            }
            Question::Value { kind, allowed } => {
                let words: Vec<String> = allowed.iter().map(ToString::to_string).collect();
                let of = if words.is_empty() {
                    String::new()
                } else {
                    format!(", one of {}", words.join(", "))
                };
                text.push_str(&format!("  question {name}: {kind}{of}\n"));
            }
        }
    }
    let who = if request.groups.is_empty() {
        "anyone".to_owned()
    } else {
        request.groups.join(", ")
    };
    let duties = if request.separation_of_duties {
        "; not by whoever started the run"
    } else {
        ""
    };
    text.push_str(&format!(
        "  {} by {who}{duties}\n",
        votes(instance, request.quorum)
    ));
    for vote in &instance.votes {
        let word = if vote.approve { "approved" } else { "rejected" };
        let why = vote
            .reason
            .as_ref()
            .map(|why| format!(": {}", one_line(why)))
            .unwrap_or_default();
        text.push_str(&format!(
            "    {} {word} at {}{why}\n",
            vote.voter(),
            stamp(vote.at)
        ));
    }
    text
}
