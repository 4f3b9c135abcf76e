//! What a report says, in the order in which people read it; Markdown and HTML only write it differently.
use super::{
    human::{plain_lines, span},
    model::*,
};
use crate::{step::shown, value::Duration};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// A piece of the page.
pub(super) enum Block {
    /// A heading of a part.
    Part(&'static str),
    /// A sentence.
    Text(String),
    /// A sentence that must not be overlooked.
    Warning(String),
    /// Names and what they are.
    Facts(Vec<(String, String)>),
    /// A table; the first cell of a row may be a state.
    Table {
        head: Vec<&'static str>,
        rows: Vec<Vec<String>>,
    },
    /// Text as it is, under a label.
    Verbatim { label: String, text: String },
    /// The graph with states.
    Graph,
    /// What took how long.
    Timeline,
    /// A step: its path, its state, what stands beside it; how deep it is.
    Step {
        path: String,
        state: String,
        word: String,
        beside: String,
        depth: usize,
    },
}

/// Lines of one value that a page shows.
const MOST_LINES: usize = 120;

pub(super) fn took(ms: i64) -> String {
    span(Duration::from_millis(ms))
}

/// A state as people say it.
pub(super) fn word(state: &str) -> String {
    state.replace('_', " ")
}

/// A value on one line.
pub(super) fn short(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => "–".to_owned(),
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => value.to_string(),
    }
}

fn is_short(value: &Json) -> bool {
    let text = short(value);
    text.len() <= 100 && !text.contains('\n')
}

fn verbatim(label: impl Into<String>, value: &Json) -> Block {
    let mut lines = match value {
        // A program may have printed it.
        Json::String(text) => plain_lines(text),
        other => plain_lines(&serde_json::to_string_pretty(other).unwrap_or_default()),
    };
    if lines.len() > MOST_LINES {
        let more = lines.len() - MOST_LINES;
        lines.truncate(MOST_LINES);
        lines.push(format!("… {more} more lines, which the JSON report holds"));
    }
    let text = lines.join("\n");
    Block::Verbatim {
        label: label.into(),
        text,
    }
}

fn named(values: &BTreeMap<String, Json>, page: &mut Vec<Block>) {
    let (short_ones, long): (Vec<_>, Vec<_>) =
        values.iter().partition(|(_, value)| is_short(value));
    if !short_ones.is_empty() {
        page.push(Block::Facts(
            short_ones
                .into_iter()
                .map(|(name, value)| (name.clone(), short(value)))
                .collect(),
        ));
    }
    page.extend(long.into_iter().map(|(name, value)| verbatim(name, value)));
}

/// All steps, inner ones after the one around them.
pub(super) fn flat(steps: &[StepReport]) -> Vec<(usize, &StepReport)> {
    fn walk<'a>(steps: &'a [StepReport], depth: usize, into: &mut Vec<(usize, &'a StepReport)>) {
        for step in steps {
            into.push((depth, step));
            walk(&step.steps, depth + 1, into);
        }
    }
    let mut all = Vec::new();
    walk(steps, 0, &mut all);
    all
}

/// The page of a report.
pub(super) fn blocks(report: &Report) -> Vec<Block> {
    let mut page = Vec::new();
    head(report, &mut page);
    proofs(report, &mut page);
    if !report.outputs.is_empty() {
        page.push(Block::Part("Outputs"));
        named(&report.outputs, &mut page);
    }
    troubles(report, &mut page);
    page.push(Block::Part("Graph"));
    page.push(Block::Graph);
    page.push(Block::Part("Timeline"));
    page.push(Block::Timeline);
    people(report, &mut page);
    surroundings(report, &mut page);
    page.push(Block::Part("Steps"));
    for (depth, one) in flat(&report.steps) {
        step(depth, one, &mut page);
    }
    page.push(Block::Part("Log"));
    page.push(Block::Table {
        head: vec!["at", "step", "what"],
        rows: report
            .log
            .iter()
            .map(|line| vec![line.at.clone(), line.node.clone(), line.text.clone()])
            .collect(),
    });
    proof_of_itself(report, &mut page);
    page
}

fn head(report: &Report, page: &mut Vec<Block>) {
    if let Some(description) = &report.description {
        page.push(Block::Text(description.trim().to_owned()));
    }
    if !report.is_finished {
        page.push(Block::Warning(format!(
            "This run is not over: it is {}. The report shows it as of event {}.",
            word(&report.state),
            report.chain.events
        )));
    }
    let outcome = if report.state_means.is_empty() {
        word(&report.state)
    } else {
        format!("{}: {}", word(&report.state), report.state_means)
    };
    let mut facts = vec![
        ("Outcome".to_owned(), outcome),
        ("Run".to_owned(), report.run.clone()),
        ("Environment".to_owned(), report.environment.clone()),
        (
            "Started".to_owned(),
            format!(
                "{} by {}",
                report.started_at,
                shown(&report.by, report.account.as_ref())
            ),
        ),
        (
            if report.is_finished {
                "Ended"
            } else {
                "Last event"
            }
            .to_owned(),
            format!("{}, after {}", report.last_event_at, took(report.took_ms)),
        ),
    ];
    if let Some(owner) = &report.owner {
        facts.insert(2, ("Owner".to_owned(), owner.clone()));
    }
    facts.push(("Digest".to_owned(), report.digest.clone()));
    page.push(Block::Facts(facts));
}

fn proofs(report: &Report, page: &mut Vec<Block>) {
    if report.checks.is_empty() {
        return;
    }
    page.push(Block::Part("What was checked"));
    let (recovery, checks): (Vec<_>, Vec<_>) = report
        .checks
        .iter()
        .partition(|check| matches!(check.name.as_str(), "rpo" | "rto"));
    if !recovery.is_empty() {
        page.push(Block::Facts(
            recovery
                .iter()
                .map(|check| {
                    let name = if check.name == "rpo" {
                        "Recovery point (RPO)"
                    } else {
                        "Recovery time (RTO)"
                    };
                    let held = if check.passed { "held" } else { "NOT held" };
                    let seen = format!("{}, {}: {held}", short(&check.seen), check.expected);
                    (name.to_owned(), seen)
                })
                .collect(),
        ));
    }
    if !checks.is_empty() {
        page.push(Block::Table {
            head: vec!["", "step", "check", "expected", "seen"],
            rows: checks
                .iter()
                .map(|check| {
                    let seen = match &check.error {
                        Some(error) => format!("{} ({error})", short(&check.seen)),
                        None => short(&check.seen),
                    };
                    vec![
                        match (check.passed, check.severity.as_str()) {
                            (true, _) => "held",
                            (false, "warning") => "warning",
                            (false, _) => "failed",
                        }
                        .to_owned(),
                        check.step.clone(),
                        check.name.clone(),
                        check.expected.clone(),
                        seen,
                    ]
                })
                .collect(),
        });
    }
}

fn troubles(report: &Report, page: &mut Vec<Block>) {
    let mut rows = Vec::new();
    let mut doubts = Vec::new();
    for (_, step) in flat(&report.steps) {
        for attempt in &step.attempts {
            if let Some(failure) = &attempt.failure {
                let what = if attempt.is_undo { "undo of " } else { "" };
                let help = failure.help.as_ref().map(|help| format!("; help: {help}"));
                let retry = failure.not_retried.as_ref().map(|why| format!("; {why}"));
                rows.push(vec![
                    format!("{what}{}", step.path),
                    attempt.attempt.to_string(),
                    format!(
                        "{} ({}){}{}",
                        failure.message,
                        failure.code,
                        retry.unwrap_or_default(),
                        help.unwrap_or_default()
                    ),
                    failure.certainty.clone(),
                ]);
            }
        }
        for doubt in &step.doubts {
            doubts.push(vec![
                step.path.clone(),
                doubt.at.clone(),
                doubt.why.clone(),
                doubt
                    .settled
                    .clone()
                    .unwrap_or_else(|| "still in doubt".to_owned()),
            ]);
        }
    }
    if !rows.is_empty() {
        page.push(Block::Part("Failures"));
        page.push(Block::Table {
            head: vec!["step", "attempt", "why", "effect"],
            rows,
        });
    }
    if !doubts.is_empty() {
        page.push(Block::Part("Doubts"));
        page.push(Block::Table {
            head: vec!["step", "at", "why", "settled"],
            rows: doubts,
        });
    }
    let beside = report
        .finally_failed
        .iter()
        .map(|step| format!("finally step {step} failed"))
        .chain(report.output_error.iter().cloned());
    page.extend(beside.map(Block::Warning));
}

fn people(report: &Report, page: &mut Vec<Block>) {
    if !report.approvals.is_empty() {
        page.push(Block::Part("Approvals"));
    }
    for approval in &report.approvals {
        let who = if approval.groups.is_empty() {
            "anyone".to_owned()
        } else {
            approval.groups.join(", ")
        };
        let duties = if approval.separation_of_duties {
            ", but not whoever started the run"
        } else {
            ""
        };
        page.push(Block::Text(format!(
            "{}: {} ({} of {who}{duties})",
            approval.step, approval.prompt, approval.quorum
        )));
        if !approval.shown.is_null() {
            page.push(verbatim(
                format!("shown, SHA-256 {}", approval.shown_hash),
                &approval.shown,
            ));
        }
        page.push(Block::Table {
            head: vec!["vote", "who", "at", "why", "answers"],
            rows: approval
                .votes
                .iter()
                .map(|vote| {
                    let answers: Vec<String> = vote
                        .answers
                        .iter()
                        .map(|(name, answer)| format!("{name} = {}", short(answer)))
                        .collect();
                    vec![
                        if vote.approve { "approved" } else { "rejected" }.to_owned(),
                        shown(&vote.who, vote.account.as_ref()),
                        vote.at.clone(),
                        vote.reason.clone().unwrap_or_default(),
                        answers.join("; "),
                    ]
                })
                .collect(),
        });
    }
    // Votes stand with what was asked.
    let orders: Vec<&CommandReport> = report
        .commands
        .iter()
        .filter(|command| command.refused.is_some() || command.command.get("vote").is_none())
        .collect();
    if !orders.is_empty() {
        page.push(Block::Part("What people ordered"));
        page.push(Block::Table {
            head: vec!["at", "who", "what", "refused"],
            rows: orders
                .into_iter()
                .map(|command| {
                    vec![
                        command.at.clone(),
                        shown(&command.who, command.account.as_ref()),
                        order(&command.command),
                        command.refused.clone().unwrap_or_default(),
                    ]
                })
                .collect(),
        });
    }
}

/// `resolve: node fill, done true, because it is there`.
fn order(command: &Json) -> String {
    let Some((verb, details)) = command.as_object().and_then(|map| map.iter().next()) else {
        return short(command);
    };
    let details: Vec<String> = details
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("{name} {}", short(value)))
        .collect();
    format!("{}: {}", word(verb), details.join(", "))
}

fn surroundings(report: &Report, page: &mut Vec<Block>) {
    if !report.targets.is_empty() {
        page.push(Block::Part("Targets"));
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        page.push(Block::Table {
            head: vec!["name", "kind", "where", "role", "version", "system"],
            rows: report
                .targets
                .iter()
                .map(|target| {
                    vec![
                        target.name.clone(),
                        target.kind.clone(),
                        target.place.clone(),
                        match (&target.role, target.timeline) {
                            (Some(role), Some(timeline)) => format!("{role}, timeline {timeline}"),
                            (role, _) => text(role),
                        },
                        text(&target.version),
                        text(&target.system),
                    ]
                })
                .collect(),
        });
    }
    if !report.inputs.is_empty() {
        page.push(Block::Part("Inputs"));
        named(&report.inputs, page);
    }
}

fn step(depth: usize, step: &StepReport, page: &mut Vec<Block>) {
    let mut beside = vec![step.kind.clone()];
    beside.extend(step.place.clone());
    beside.extend(step.took_ms.map(took));
    beside.extend(step.figures.iter().map(|figure| figure.text.clone()));
    beside.extend(step.undo.clone());
    page.push(Block::Step {
        path: step.path.clone(),
        state: step.state.clone(),
        word: step.word(),
        beside: beside.join(" · "),
        depth,
    });
    if let Some(description) = &step.description
        && step.item.is_null()
    {
        page.push(Block::Text(description.trim().to_owned()));
    }
    if let Some(why) = &step.skipped {
        page.push(Block::Text(format!("skipped: {why}")));
    }
    if !step.item.is_null() {
        page.push(Block::Text(format!("item: {}", short(&step.item))));
    }
    let several = step.attempts.len() > 1;
    for attempt in &step.attempts {
        let what = if attempt.is_undo { "undo" } else { "attempt" };
        if several || attempt.is_undo || attempt.failure.is_some() {
            let end = attempt.end.as_deref().unwrap_or("in progress");
            let why = attempt.failure.as_ref().map(|failure| {
                let retry = failure.not_retried.as_ref();
                let retry = retry.map(|why| format!("; {why}")).unwrap_or_default();
                format!(": {} ({}){retry}", failure.message, failure.code)
            });
            let figures: String = attempt
                .figures
                .iter()
                .map(|figure| format!(" · {}", figure.text))
                .collect();
            page.push(Block::Text(format!(
                "{what} {} from {}: {end}{}{figures}",
                attempt.attempt,
                attempt.started_at,
                why.unwrap_or_default()
            )));
        }
        for fact in &attempt.decided {
            page.push(Block::Text(format!(
                "{}: {} is {}",
                fact.what,
                fact.expr,
                short(&fact.value)
            )));
        }
        for wait in &attempt.waits {
            let until = wait.until.as_deref().unwrap_or("now");
            page.push(Block::Text(format!(
                "waited for {} from {} until {until}",
                wait.on, wait.from
            )));
        }
        if let Some(Json::String(sql)) = attempt.input.get("sql") {
            page.push(verbatim(
                if attempt.is_undo { "undo SQL" } else { "SQL" },
                &Json::String(sql.trim_end().to_owned()),
            ));
        }
        let rest = match &attempt.input {
            Json::Object(map) => Json::Object(
                map.iter()
                    .filter(|(key, value)| *key != "sql" && *key != "checks" && !value.is_null())
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect(),
            ),
            other => other.clone(),
        };
        if rest.as_object().is_none_or(|map| !map.is_empty()) && !rest.is_null() {
            let label = if attempt.is_undo {
                "undo parameters"
            } else {
                "parameters"
            };
            page.push(if is_short(&rest) {
                Block::Text(format!("{label}: {}", short(&rest)))
            } else {
                verbatim(label, &rest)
            });
        }
        if !attempt.capture.is_null() {
            page.push(verbatim("captured for its undo", &attempt.capture));
        }
    }
    if !step.last_lines.is_empty() {
        page.push(Block::Verbatim {
            label: "what it printed last (kept beside the events, outside their chain)".to_owned(),
            text: step.last_lines.join("\n"),
        });
    }
    if let Some(why) = &step.left_out {
        page.push(Block::Text(format!("Output and evidence are {why}.")));
    }
    let has_checks = step.output.get("checks").is_some();
    if !step.output.is_null() && !has_checks {
        page.push(verbatim("output", &step.output));
    }
    for evidence in &step.evidence {
        let cut = if evidence.truncated {
            format!(", cut; {} bytes in full", evidence.size)
        } else {
            String::new()
        };
        page.push(verbatim(
            format!("evidence: {} ({}{cut})", evidence.name, evidence.media_type),
            &evidence.content,
        ));
    }
}

fn proof_of_itself(report: &Report, page: &mut Vec<Block>) {
    page.push(Block::Part("How to check this report"));
    page.push(Block::Text(format!(
        "The journal holds {} events of this run, chained by SHA-256. Where it is still the one that was written, this holds:",
        report.chain.events
    )));
    page.push(Block::Verbatim {
        label: "command".to_owned(),
        text: format!(
            "windlass audit {} --expect {}",
            report.run, report.chain.head
        ),
    });
    page.push(Block::Table {
        head: vec!["file", "SHA-256"],
        rows: report
            .sources
            .iter()
            .map(|source| vec![source.path.clone(), source.sha256.clone()])
            .collect(),
    });
    page.push(Block::Table {
        head: vec!["taken over", "user", "host", "process", "since"],
        rows: report
            .drivers
            .iter()
            .map(|driver| {
                vec![
                    driver.epoch.to_string(),
                    shown(&driver.user, driver.account.as_ref()),
                    driver.host.clone(),
                    driver.pid.to_string(),
                    driver.since.clone(),
                ]
            })
            .collect(),
    });
    for driver in &report.drivers {
        for seen in driver.failovers.iter().chain(&driver.unreachable) {
            page.push(Block::Text(seen.clone()));
        }
    }
    page.push(Block::Text(format!(
        "Written from the journal by windlass; the run was started by version {}.",
        report.engine
    )));
}
