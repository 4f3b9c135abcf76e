use super::{
    Evidence, Foreach, Probe, Question, Reader, Spanned, Step, StepBody, Undo, UndoStep, Use,
    document::{ON_FAILURE, optional_text, refuse},
};
use crate::{
    diagnostic::codes,
    graph::{Backoff, MaxFailures, OnFailure, Retry},
    source::{Map, Node},
    step::Cause,
};

/// The keys of a step.
pub const STEP_KEYS: &[&str] = &[
    "id",
    "description",
    "uses",
    "with",
    "steps",
    "when",
    "needs",
    "foreach",
    "retry",
    "timeout",
    "gate",
    "on_failure",
    "undo",
    "cleanup",
    "probe",
    "evidence",
    "plan",
];

pub(super) const FOREACH_KEYS: &[&str] = &[
    "items",
    "as",
    "when",
    "max_parallel",
    "max_failures",
    "max_items",
];
pub(super) const RETRY_KEYS: &[&str] = &["attempts", "backoff", "delay", "max_delay", "also"];
pub(super) const UNDO_KEYS: &[&str] = &["uses", "with", "when", "retry", "timeout", "probe"];
pub(super) const PROBE_KEYS: &[&str] = &["sql", "params", "uses", "with", "done"];
pub(super) const EVIDENCE_KEYS: &[&str] = &["keep", "mask", "for"];

const CAUSES: &[(&str, Cause)] = &[
    ("serialization_failure", Cause::SerializationFailure),
    ("deadlock", Cause::Deadlock),
    ("lock_timeout", Cause::LockTimeout),
    ("connection_lost", Cause::ConnectionLost),
    ("throttled", Cause::Throttled),
    ("timeout", Cause::Timeout),
    ("refused", Cause::Refused),
    ("permanent", Cause::Permanent),
];

pub(super) fn list<'t>(
    reader: &mut Reader<'_>,
    node: &'t Node,
    what: &str,
    in_finally: bool,
) -> Vec<Step<'t>> {
    let Some(items) = reader.list(node, what) else {
        return Vec::new();
    };
    if items.is_empty() {
        reader.error(codes::EMPTY_LIST, node.range, format!("{what} is empty"));
    }
    items
        .iter()
        .filter_map(|item| step(reader, item, in_finally, what == "`finally`"))
        .collect()
}

fn step<'t>(
    reader: &mut Reader<'_>,
    node: &'t Node,
    in_finally: bool,
    top_of_finally: bool,
) -> Option<Step<'t>> {
    let map = reader.map(node, "a step")?;
    reader.known_keys(map, STEP_KEYS, "a step");
    let id = match map.get("id") {
        Some(id) => reader.literal(id, "`id`"),
        None => {
            reader.missing_key(node.range, "id", "the step");
            None
        }
    };
    // Without a name the rest is still read, for its own mistakes.
    let id = id.unwrap_or(Spanned::new("", node.range));
    let body = body(reader, map, node, in_finally);
    if in_finally {
        refuse(
            reader,
            map,
            &["undo", "cleanup", "on_failure"],
            "has no meaning in `finally`, which is never undone and always runs to its end",
            "leave it out",
        );
    }
    if top_of_finally {
        refuse(
            reader,
            map,
            &["needs"],
            "has no meaning here: the steps of `finally` run in their order",
            "leave it out",
        );
    }
    if matches!(body, StepBody::Group(_)) {
        refuse(
            reader,
            map,
            &[
                "with", "retry", "timeout", "gate", "undo", "cleanup", "probe", "evidence", "plan",
            ],
            "does not belong to a group",
            "give it to the steps inside",
        );
    }
    if matches!(&body, StepBody::Uses(uses) if uses.kind.value == "playbook") {
        refuse(
            reader,
            map,
            &[
                "retry", "timeout", "gate", "undo", "probe", "evidence", "plan",
            ],
            "does not belong to a call",
            "give it to the steps of the called playbook",
        );
    }
    Some(Step {
        range: node.range,
        id,
        description: optional_text(reader, map, "description"),
        body,
        needs: map.get("needs").map(|node| reader.texts(node, "`needs`")),
        when: map.get("when"),
        foreach: map.get("foreach").and_then(|node| foreach(reader, node)),
        retry: map.get("retry").and_then(|node| placed_retry(reader, node)),
        timeout: map
            .get("timeout")
            .and_then(|node| reader.duration(node, "`timeout`")),
        gate: map.get("gate"),
        on_failure: map
            .get("on_failure")
            .and_then(|node| reader.word::<OnFailure>(node, "`on_failure`", ON_FAILURE)),
        undo: map
            .get("undo")
            .map(|node| Spanned::new(undo(reader, node), node.range)),
        cleanup: map.get("cleanup").and_then(|node| {
            reader
                .word(node, "`cleanup`", &[("always", ())])
                .map(|()| node.range)
        }),
        probe: map.get("probe").and_then(|node| probe(reader, node)),
        evidence: map.get("evidence").and_then(|node| evidence(reader, node)),
        plan_read: map
            .get("plan")
            .and_then(|node| reader.word(node, "`plan`", &[("read", true)]))
            .unwrap_or(false),
    })
}

fn body<'t>(
    reader: &mut Reader<'_>,
    map: &'t Map,
    node: &'t Node,
    in_finally: bool,
) -> StepBody<'t> {
    match (map.entry("uses"), map.entry("steps")) {
        (Some(_), None) => uses(reader, map).map_or(StepBody::Broken, StepBody::Uses),
        (None, Some(steps)) => StepBody::Group(list(reader, &steps.value, "`steps`", in_finally)),
        (Some(_), Some(steps)) => {
            reader.error_help(
                codes::EXCLUSIVE,
                steps.key_range,
                "a step has `uses` or `steps`, not both",
                "make it two steps",
            );
            StepBody::Broken
        }
        (None, None) => {
            reader.missing_key(node.range, "uses", "the step");
            StepBody::Broken
        }
    }
}

fn uses<'t>(reader: &mut Reader<'_>, map: &'t Map) -> Option<Use<'t>> {
    let kind = reader.literal(map.get("uses")?, "`uses`")?;
    let with = map.entry("with");
    Some(Use {
        kind,
        with: with.and_then(|entry| reader.map(&entry.value, "`with`")),
        with_range: with.map_or(kind.range, |entry| entry.key_range),
    })
}

fn foreach<'t>(reader: &mut Reader<'_>, node: &'t Node) -> Option<Foreach<'t>> {
    let map = reader.map(node, "`foreach`")?;
    reader.known_keys(map, FOREACH_KEYS, "`foreach`");
    if map.get("items").is_none() {
        reader.missing_key(node.range, "items", "`foreach`");
    }
    let count = |reader: &mut Reader<'_>, key: &str, max: u32| {
        map.get(key)
            .and_then(|node| reader.count(node, &format!("`{key}`"), 1, max))
    };
    let max_parallel = count(reader, "max_parallel", 10_000).unwrap_or(1);
    let max_items = count(reader, "max_items", 1_000_000);
    Some(Foreach {
        range: node.range,
        items: map.get("items"),
        name: map.get("as").and_then(|node| reader.literal(node, "`as`")),
        when: map.get("when"),
        max_parallel,
        max_failures: map
            .get("max_failures")
            .and_then(|node| max_failures(reader, node))
            .unwrap_or_default(),
        max_items,
    })
}

fn max_failures(reader: &mut Reader<'_>, node: &Node) -> Option<MaxFailures> {
    let text = reader.literal(node, "`max_failures`")?.value;
    let read = match text.strip_suffix('%') {
        Some(percent) => percent
            .parse()
            .ok()
            .filter(|p| *p <= 100)
            .map(MaxFailures::Percent),
        None => text.parse().ok().map(MaxFailures::Count),
    };
    if read.is_none() {
        reader.error_help(
            codes::NUMBER,
            node.range,
            format!("`max_failures` must be a whole number or a percentage, not `{text}`"),
            "write 3 or 10%",
        );
    }
    read
}

fn placed_retry(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<Retry>> {
    let before = reader.diagnostics.len();
    let retry = retry(reader, node)?;
    // What is wrong in itself is not judged further.
    (reader.diagnostics.len() == before).then(|| Spanned::new(retry, node.range))
}

pub(super) fn retry(reader: &mut Reader<'_>, node: &Node) -> Option<Retry> {
    let map = reader.map(node, "`retry`")?;
    reader.known_keys(map, RETRY_KEYS, "`retry`");
    let mut retry = Retry::default();
    if let Some(node) = map.get("attempts")
        && let Some(attempts) = reader.count(node, "`attempts`", 1, 1_000)
    {
        retry.attempts = attempts;
    }
    let words = [
        ("exponential", Backoff::Exponential),
        ("constant", Backoff::Constant),
    ];
    if let Some(node) = map.get("backoff")
        && let Some(backoff) = reader.word(node, "`backoff`", &words)
    {
        retry.backoff = backoff;
    }
    let delay = map
        .get("delay")
        .and_then(|node| reader.duration(node, "`delay`"));
    let max_delay = map
        .get("max_delay")
        .and_then(|node| reader.duration(node, "`max_delay`"));
    retry.delay = delay.unwrap_or(retry.delay);
    retry.max_delay = max_delay.unwrap_or(retry.max_delay.max(retry.delay));
    if let Some(node) = map.get("max_delay")
        && retry.max_delay < retry.delay
    {
        reader.error(
            codes::NUMBER,
            node.range,
            "`max_delay` is shorter than `delay`",
        );
    }
    if let Some(node) = map.get("also") {
        for item in reader.list(node, "`also`").unwrap_or_default() {
            retry.also.extend(reader.word(item, "a cause", CAUSES));
        }
    }
    Some(retry)
}

fn undo<'t>(reader: &mut Reader<'_>, node: &'t Node) -> Undo<'t> {
    if let Some(items) = node.list() {
        if items.is_empty() {
            reader.error_help(
                codes::EMPTY_LIST,
                node.range,
                "the list of undo steps is empty",
                "write `undo: none` where there is nothing to undo",
            );
        }
        return Undo::Steps(
            items
                .iter()
                .filter_map(|item| undo_step(reader, item))
                .collect(),
        );
    }
    if node.map().is_some() {
        return undo_step(reader, node).map_or(Undo::Broken, |step| Undo::Steps(vec![step]));
    }
    let words = [("auto", 0), ("none", 1), ("impossible", 2)];
    match reader.word(node, "`undo`", &words) {
        Some(0) => Undo::Auto,
        Some(1) => Undo::None,
        Some(_) => Undo::Impossible,
        None => Undo::Broken,
    }
}

fn undo_step<'t>(reader: &mut Reader<'_>, node: &'t Node) -> Option<UndoStep<'t>> {
    let map = reader.map(node, "a step of `undo`")?;
    reader.known_keys(map, UNDO_KEYS, "a step of `undo`");
    if map.get("uses").is_none() {
        reader.missing_key(node.range, "uses", "the step of `undo`");
    }
    let retry = map.get("retry").and_then(|node| placed_retry(reader, node));
    let timeout = map
        .get("timeout")
        .and_then(|node| reader.duration(node, "`timeout`"));
    Some(UndoStep {
        uses: uses(reader, map)?,
        when: map.get("when"),
        retry,
        timeout,
        probe: map.get("probe").and_then(|node| probe(reader, node)),
    })
}

fn probe<'t>(reader: &mut Reader<'_>, node: &'t Node) -> Option<Probe<'t>> {
    let map = reader.map(node, "`probe`")?;
    reader.known_keys(map, PROBE_KEYS, "`probe`");
    if map.get("done").is_none() {
        reader.missing_key(node.range, "done", "`probe`");
    }
    let question = match (map.entry("sql"), map.entry("uses")) {
        (Some(sql), None) => {
            if let Some(entry) = map.entry("with") {
                reader.error_help(
                    codes::EXCLUSIVE,
                    entry.key_range,
                    "`with` belongs to `uses`, not to `sql`",
                    "use `params` for the values that the query binds",
                );
            }
            Question::Sql {
                sql: &sql.value,
                params: map
                    .entry("params")
                    .map(|entry| (Spanned::new(&*entry.key, entry.key_range), &entry.value)),
            }
        }
        (None, Some(_)) => {
            if let Some(entry) = map.entry("params") {
                reader.error_help(
                    codes::EXCLUSIVE,
                    entry.key_range,
                    "`params` belongs to `sql`",
                    "put it under `with`",
                );
            }
            uses(reader, map).map_or(Question::Broken, Question::Uses)
        }
        (Some(_), Some(uses)) => {
            reader.error(
                codes::EXCLUSIVE,
                uses.key_range,
                "a probe has `sql` or `uses`, not both",
            );
            Question::Broken
        }
        (None, None) => {
            reader.missing_key(node.range, "sql", "`probe`");
            Question::Broken
        }
    };
    Some(Probe {
        range: node.range,
        question,
        done: map.get("done"),
    })
}

fn evidence(reader: &mut Reader<'_>, node: &Node) -> Option<Evidence> {
    let map = reader.map(node, "`evidence`")?;
    reader.known_keys(map, EVIDENCE_KEYS, "`evidence`");
    let keep = map
        .get("keep")
        .and_then(|node| reader.boolean(node, "`keep`"));
    let mask = map
        .get("mask")
        .map(|node| reader.texts(node, "`mask`"))
        .unwrap_or_default();
    Some(Evidence {
        keep: keep.unwrap_or(true),
        mask: mask.iter().map(|name| name.value.to_owned()).collect(),
        keep_for: map
            .get("for")
            .and_then(|node| reader.duration(node, "`for`")),
    })
}
