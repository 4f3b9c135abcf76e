use super::{Defaults, Document, Input, Name, Reader, Spanned, Target, TargetSort, inputs, steps};
use crate::{
    diagnostic::{Diagnostic, codes},
    graph::{InputDecl, InputType, OnFailure, OutsideWindow, Policy, WhenDown},
    source::{Map, Node, Range},
};
use std::str::FromStr;

/// The keys of a playbook.
pub const PLAYBOOK_KEYS: &[&str] = &[
    "playbook",
    "description",
    "owner",
    "inputs",
    "targets",
    "policy",
    "defaults",
    "let",
    "steps",
    "finally",
    "outputs",
];

pub(super) const INPUT_KEYS: &[&str] = &[
    "type",
    "description",
    "default",
    "enum",
    "pattern",
    "min",
    "max",
    "of",
];
pub(super) const NAMED_TARGET_KEYS: &[&str] = &[
    "kind",
    "role",
    "description",
    "moves",
    "when_down",
    "many",
    "select",
    "like",
    "never",
];
pub(super) const POLICY_KEYS: &[&str] = &[
    "locks",
    "windows",
    "outside_window",
    "max_duration",
    "on_failure",
];
pub(super) const DEFAULTS_KEYS: &[&str] = &["timeout", "retry", "with"];

pub(super) const OUTSIDE_WINDOW: &[(&str, OutsideWindow)] = &[
    ("wait", OutsideWindow::Wait),
    ("refuse", OutsideWindow::Refuse),
];

pub(super) const ON_FAILURE: &[(&str, OnFailure)] = &[
    ("undo", OnFailure::Undo),
    ("pause", OnFailure::Pause),
    ("stop", OnFailure::Stop),
    ("continue", OnFailure::Continue),
    ("ignore", OnFailure::Ignore),
];

const WHEN_DOWN: &[(&str, WhenDown)] = &[
    ("refuse", WhenDown::Refuse),
    ("continue", WhenDown::Continue),
];

const INPUT_TYPES: &[(&str, InputType)] = &[
    ("string", InputType::String),
    ("integer", InputType::Integer),
    ("number", InputType::Number),
    ("boolean", InputType::Boolean),
    ("duration", InputType::Duration),
    ("timestamp", InputType::Timestamp),
    ("size", InputType::Size),
    ("list", InputType::List),
    ("map", InputType::Map),
];

/// Reads a playbook file; what cannot be read is told and left out.
pub fn read<'t>(reader: &mut Reader<'_>, root: &'t Node) -> Document<'t> {
    let mut document = Document::default();
    let Some(map) = reader.map(root, "a playbook") else {
        return document;
    };
    reader.known_keys(map, PLAYBOOK_KEYS, "a playbook");
    match map.get("playbook") {
        Some(node) => document.name = reader.literal(node, "`playbook`"),
        None => reader.missing_key(root.range, "playbook", "the file"),
    }
    document.description = optional_text(reader, map, "description");
    document.owner = optional_text(reader, map, "owner");
    if let Some(node) = map.get("inputs") {
        document.inputs = named(reader, node, "`inputs`", input);
    }
    if let Some(node) = map.get("targets") {
        document.targets = named(reader, node, "`targets`", |reader, name, node| {
            Some(target(reader, name, node))
        });
    }
    if let Some(node) = map.get("policy") {
        (document.policy, document.windows) = policy(reader, node);
    }
    if let Some(node) = map.get("defaults") {
        document.defaults = named(reader, node, "`defaults`", defaults);
    }
    if let Some(node) = map.get("let") {
        document.lets = named(reader, node, "`let`", |_, name, node| Some((name, node)));
    }
    match map.get("steps") {
        Some(node) => document.steps = steps::list(reader, node, "`steps`", false),
        None => reader.missing_key(root.range, "steps", "the playbook"),
    }
    if let Some(node) = map.get("finally") {
        document.finally = steps::list(reader, node, "`finally`", true);
    }
    if let Some(node) = map.get("outputs") {
        document.outputs = named(reader, node, "`outputs`", |_, name, node| {
            Some((name, node))
        });
    }
    document
}

pub(super) fn optional_text<'t>(
    reader: &mut Reader<'_>,
    map: &'t Map,
    key: &str,
) -> Option<&'t str> {
    let node = map.get(key)?;
    reader
        .literal(node, &format!("`{key}`"))
        .map(|text| text.value)
}

/// Reads each entry of a map.
fn named<'t, T>(
    reader: &mut Reader<'_>,
    node: &'t Node,
    what: &str,
    mut read: impl FnMut(&mut Reader<'_>, Name<'t>, &'t Node) -> Option<T>,
) -> Vec<T> {
    let Some(map) = reader.map(node, what) else {
        return Vec::new();
    };
    map.entries
        .iter()
        .filter_map(|entry| {
            read(
                reader,
                Spanned::new(&entry.key, entry.key_range),
                &entry.value,
            )
        })
        .collect()
}

fn input<'t>(reader: &mut Reader<'_>, name: Name<'t>, node: &'t Node) -> Option<Input<'t>> {
    let mut decl = InputDecl {
        kind: InputType::String,
        description: None,
        default: None,
        allowed: Vec::new(),
        pattern: None,
        min: None,
        max: None,
        of: None,
    };
    let what = format!("input `{}`", name.value);
    let Some(map) = reader.map(node, &what) else {
        return Some(Input { name, decl });
    };
    reader.known_keys(map, INPUT_KEYS, &what);
    decl.description = optional_text(reader, map, "description").map(str::to_owned);
    match map.get("type") {
        Some(node) => match reader.word(node, "the type of an input", INPUT_TYPES) {
            Some(kind) => decl.kind = kind,
            // The limits of an unknown type cannot be read.
            None => return Some(Input { name, decl }),
        },
        None => {
            reader.missing_key(node.range, "type", &what);
            return Some(Input { name, decl });
        }
    }
    if let Some(node) = map.get("of") {
        decl.of = reader.word(node, "`of`", INPUT_TYPES);
        if !matches!(decl.kind, InputType::List | InputType::Map) {
            reader.error_help(
                codes::INPUT_DECLARATION,
                node.range,
                "`of` is the type of a list's items or a map's values",
                "leave it out, or make the type `list` or `map`",
            );
        }
    }
    let typed = |reader: &mut Reader<'_>, key: &str, kind: InputType| {
        let node = map.get(key)?;
        match inputs::from_node(reader.file, node, kind, decl.of) {
            Ok(value) => Some((value, node.range)),
            Err((range, message)) => {
                reader.error(
                    codes::INPUT_DECLARATION,
                    range,
                    format!("`{key}` of {what}: {message}"),
                );
                None
            }
        }
    };
    let limit = match decl.kind {
        InputType::String | InputType::List | InputType::Map => Some(InputType::Integer),
        InputType::Boolean => None,
        InputType::Integer
        | InputType::Number
        | InputType::Duration
        | InputType::Timestamp
        | InputType::Size => Some(decl.kind),
    };
    let default = typed(reader, "default", decl.kind);
    if let Some(limit) = limit {
        decl.min = typed(reader, "min", limit).map(|(value, _)| value);
        decl.max = typed(reader, "max", limit).map(|(value, _)| value);
    } else {
        for key in ["min", "max"] {
            if let Some(entry) = map.entry(key) {
                reader.error(
                    codes::INPUT_DECLARATION,
                    entry.key_range,
                    format!("a boolean has no `{key}`"),
                );
            }
        }
    }
    if let Some(node) = map.get("enum") {
        for item in reader.list(node, "`enum`").unwrap_or_default() {
            match inputs::from_node(reader.file, item, decl.kind, decl.of) {
                Ok(value) => decl.allowed.push(value),
                Err((range, message)) => {
                    reader.error(
                        codes::INPUT_DECLARATION,
                        range,
                        format!("`enum` of {what}: {message}"),
                    );
                }
            }
        }
    }
    if let Some(node) = map.get("pattern")
        && let Some(pattern) = reader.literal(node, "`pattern`")
    {
        if decl.kind != InputType::String {
            reader.error(
                codes::INPUT_DECLARATION,
                node.range,
                "`pattern` is for inputs of type string",
            );
        } else if let Err(error) = regex::Regex::from_str(pattern.value) {
            reader.error(
                codes::INPUT_DECLARATION,
                node.range,
                format!("not a regular expression: {error}"),
            );
        } else {
            decl.pattern = Some(pattern.value.to_owned());
        }
    }
    if let Some((value, range)) = default {
        if let Err(message) = inputs::within_limits(&decl, &value) {
            reader.error_help(
                codes::INPUT_DECLARATION,
                range,
                format!("the default of {what} {message}"),
                "change the default or the limit",
            );
        }
        decl.default = Some(value);
    }
    Some(Input { name, decl })
}

fn target<'t>(reader: &mut Reader<'_>, name: Name<'t>, node: &'t Node) -> Target<'t> {
    let what = format!("target `{}`", name.value);
    let Some(map) = reader.map(node, &what) else {
        return Target {
            name,
            description: None,
            sort: TargetSort::Broken,
        };
    };
    let description = optional_text(reader, map, "description");
    let many = map
        .get("many")
        .and_then(|node| reader.boolean(node, "`many`"))
        .unwrap_or(false);
    let sort = if let Some(node) = map.get("like") {
        derived(reader, map, node)
    } else if let Some(node) = map.get("kind") {
        reader.known_keys(map, NAMED_TARGET_KEYS, &what);
        let kind = reader.literal(node, "`kind`");
        let select = map.entry("select");
        for (key, here) in [("never", !many), ("role", many), ("moves", many)] {
            if let Some(entry) = map.entry(key).filter(|_| here || key == "never") {
                let message = if key == "never" {
                    "`never` is for targets with `like`"
                } else {
                    "`role` and `moves` are for single targets"
                };
                reader.error(codes::EXCLUSIVE, entry.key_range, message);
            }
        }
        if let Some(entry) = select.filter(|_| !many) {
            reader.error_help(
                codes::EXCLUSIVE,
                entry.key_range,
                "`select` is for many targets",
                "add `many: true`",
            );
        }
        let moves = map
            .get("moves")
            .and_then(|node| reader.boolean(node, "`moves`"));
        let when_down = map
            .get("when_down")
            .and_then(|node| reader.word(node, "`when_down`", WHEN_DOWN))
            .unwrap_or_default();
        let role = optional_text(reader, map, "role");
        match kind {
            None => TargetSort::Broken,
            Some(kind) if many => {
                let mut labels = Vec::new();
                if let Some(entry) = select
                    && let Some(map) = reader.map(&entry.value, "`select`")
                {
                    for entry in &map.entries {
                        if let Some(text) = reader.literal(&entry.value, "a label") {
                            labels.push((&*entry.key, text.value));
                        }
                    }
                }
                TargetSort::Many {
                    kind,
                    select: labels,
                    when_down,
                }
            }
            Some(kind) => TargetSort::Named {
                kind,
                role,
                moves: moves.unwrap_or(false),
                when_down,
            },
        }
    } else {
        reader.known_keys(map, NAMED_TARGET_KEYS, &what);
        reader.error_help(
            codes::MISSING_KEY,
            name.range,
            format!("{what} has no `kind`"),
            "add `kind: sqlite` (or another kind), or `like: other_target`",
        );
        TargetSort::Broken
    };
    Target {
        name,
        description,
        sort,
    }
}

fn derived<'t>(reader: &mut Reader<'_>, map: &'t Map, like: &'t Node) -> TargetSort<'t> {
    let like = reader.literal(like, "`like`");
    let mut never = Vec::new();
    let mut with = Vec::new();
    for entry in &map.entries {
        match &*entry.key {
            "like" | "description" => {}
            "never" => never = reader.texts(&entry.value, "`never`"),
            "kind" | "role" | "moves" | "when_down" | "many" | "select" => reader.error_help(
                codes::EXCLUSIVE,
                entry.key_range,
                format!("a target with `like` takes its `{}` from there", entry.key),
                "leave it out",
            ),
            key => with.push((Spanned::new(key, entry.key_range), &entry.value)),
        }
    }
    match like {
        Some(like) => TargetSort::Derived { like, never, with },
        None => TargetSort::Broken,
    }
}

fn policy(reader: &mut Reader<'_>, node: &Node) -> (Policy, Vec<Range>) {
    let mut policy = Policy::default();
    let Some(map) = reader.map(node, "`policy`") else {
        return (policy, Vec::new());
    };
    reader.known_keys(map, POLICY_KEYS, "`policy`");
    let mut ranges = Vec::new();
    if let Some(node) = map.get("locks") {
        let locks = reader.texts(node, "`locks`");
        policy.locks = locks.iter().map(|lock| lock.value.to_owned()).collect();
    }
    if let Some(node) = map.get("windows") {
        for window in reader.texts(node, "`windows`") {
            policy.windows.push(window.value.to_owned());
            ranges.push(window.range);
        }
    }
    if let Some(node) = map.get("outside_window")
        && let Some(word) = reader.word(node, "`outside_window`", OUTSIDE_WINDOW)
    {
        if policy.windows.is_empty() {
            reader.error_help(
                codes::NOT_ALLOWED,
                node.range,
                "`outside_window` has no meaning without `windows`",
                "add `windows`, or leave it out",
            );
        }
        policy.outside_window = word;
    }
    if let Some(node) = map.get("max_duration") {
        policy.max_duration = reader.duration(node, "`max_duration`");
    }
    if let Some(node) = map.get("on_failure")
        && let Some(word) = reader.word(node, "`on_failure`", ON_FAILURE)
    {
        if matches!(word, OnFailure::Continue | OnFailure::Ignore) {
            reader.error_help(
                codes::NOT_ALLOWED,
                node.range,
                "a policy cannot let every failure pass",
                "write undo, pause or stop here, and continue or ignore at single steps",
            );
        } else {
            policy.on_failure = word;
        }
    }
    (policy, ranges)
}

fn defaults<'t>(
    reader: &mut Reader<'_>,
    pattern: Name<'t>,
    node: &'t Node,
) -> Option<Defaults<'t>> {
    let what = format!("`defaults` of `{}`", pattern.value);
    let map = reader.map(node, &what)?;
    reader.known_keys(map, DEFAULTS_KEYS, &what);
    Some(Defaults {
        pattern,
        timeout: map
            .get("timeout")
            .and_then(|node| reader.duration(node, "`timeout`")),
        retry: map.get("retry").and_then(|node| steps::retry(reader, node)),
        with: map.get("with").and_then(|node| reader.map(node, "`with`")),
    })
}

/// Tells of a key that does not belong here.
pub(super) fn refuse(reader: &mut Reader<'_>, map: &Map, keys: &[&str], why: &str, help: &str) {
    for key in keys {
        if let Some(entry) = map.entry(key) {
            let span = reader.file.span(entry.key_range);
            reader.diagnostics.push(
                Diagnostic::error(codes::EXCLUSIVE, span, format!("`{key}` {why}")).help(help),
            );
        }
    }
}
