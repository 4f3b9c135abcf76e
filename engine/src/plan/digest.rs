//! What binds a run to its plan, as one number; and what changed between two plans.
use super::{NodePlan, Plan, PlanTarget};
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// SHA-256 over the canonical JSON of all that binds: sources, inputs, targets, what each step would be
/// given, the engine's version. Not estimates, and not values that the plan read.
pub(super) fn digest(plan: &Plan) -> String {
    let bound = json!({
        "engine": plan.engine,
        "environment": plan.environment,
        "sources": plan.sources.iter().map(|s| &s.sha256).collect::<Vec<_>>(),
        "inputs": plan.inputs,
        // That a target is down binds; how it said so differs from one moment to the next.
        "targets": plan.targets.iter().map(|target| PlanTarget {
            unreachable: target.unreachable.as_ref().map(|_| String::new()),
            ..target.clone()
        }).collect::<Vec<_>>(),
        "steps": bound_nodes(plan).into_iter().map(|node| json!({
            "path": node.path,
            "kind": node.kind,
            "effect": node.effect,
            "undo": node.undo,
            "binding": node.binding,
        })).collect::<Vec<_>>(),
    });
    hex::encode(Sha256::digest(canonical(&bound).as_bytes()))
}

/// Nodes that are there whatever the plan read: what a step's output decided is not binding.
fn bound_nodes(plan: &Plan) -> Vec<&NodePlan> {
    let mut all = plan.all();
    all.retain(|node| !node.binding.is_null());
    all
}

/// JSON with the keys of every object in order, so that equal things have equal text.
fn canonical(json: &Json) -> String {
    match json {
        Json::Object(map) => {
            let sorted: BTreeMap<&String, &Json> = map.iter().collect();
            let members: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Json::from(key.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => json.to_string(),
    }
}

/// What changed from one plan to another, a line each; empty where their digests are the same.
#[must_use]
pub fn diff(a: &Plan, b: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    if a.digest == b.digest {
        return lines;
    }
    let mut changed = |what: &str, was: &str, is: &str| {
        if was != is {
            lines.push(format!("{what}: was {was}, is {is}"));
        }
    };
    changed("playbook", &a.playbook, &b.playbook);
    changed("engine", &a.engine, &b.engine);
    changed("environment", &a.environment, &b.environment);
    sources(a, b, &mut lines);
    inputs(a, b, &mut lines);
    targets(a, b, &mut lines);
    steps(a, b, &mut lines);
    if lines.is_empty() {
        lines.push("the digests differ".to_owned());
    }
    lines
}

fn sources(a: &Plan, b: &Plan, lines: &mut Vec<String>) {
    for old in &a.sources {
        match b.sources.iter().find(|new| new.path == old.path) {
            None => lines.push(format!("{}: is no longer part of it", old.path)),
            Some(new) if new.sha256 != old.sha256 => {
                lines.push(format!("{}: its text changed", old.path));
            }
            Some(_) => {}
        }
    }
    for new in &b.sources {
        if !a.sources.iter().any(|old| old.path == new.path) {
            lines.push(format!("{}: is new", new.path));
        }
    }
}

fn inputs(a: &Plan, b: &Plan, lines: &mut Vec<String>) {
    let (Some(old), Some(new)) = (a.inputs.as_map(), b.inputs.as_map()) else {
        return;
    };
    for (name, was) in old {
        match new.get(name) {
            None => lines.push(format!("input {name}: was {was}, is not given")),
            Some(is) if is != was => lines.push(format!("input {name}: was {was}, is {is}")),
            Some(_) => {}
        }
    }
    for (name, is) in new {
        if !old.contains_key(name) {
            lines.push(format!("input {name}: is new, {is}"));
        }
    }
}

fn targets(a: &Plan, b: &Plan, lines: &mut Vec<String>) {
    type Field = (&'static str, fn(&PlanTarget) -> Option<String>);
    let fields: [Field; 8] = [
        ("kind", |t| Some(t.kind.clone())),
        ("url", |t| Some(t.url.clone())),
        ("instance", |t| t.instance.clone()),
        ("system", |t| t.system.clone()),
        ("role", |t| t.role.clone()),
        ("timeline", |t| {
            t.timeline.map(|timeline| timeline.to_string())
        }),
        ("version", |t| t.version.clone()),
        ("answer", |t| {
            Some(
                if t.unreachable.is_some() {
                    "none"
                } else {
                    "yes"
                }
                .to_owned(),
            )
        }),
    ];
    for old in &a.targets {
        let Some(new) = b.targets.iter().find(|new| new.name == old.name) else {
            lines.push(format!("target {}: is gone", old.name));
            continue;
        };
        for (name, read) in fields {
            let (was, is) = (read(old), read(new));
            if was != is {
                let told = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
                let (was, is) = (told(was), told(is));
                lines.push(format!("target {}, {name}: was {was}, is {is}", old.name));
            }
        }
    }
    for new in &b.targets {
        if !a.targets.iter().any(|old| old.name == new.name) {
            lines.push(format!("target {}: is new, {}", new.name, new.url));
        }
    }
}

fn steps(a: &Plan, b: &Plan, lines: &mut Vec<String>) {
    let (old, new) = (bound_nodes(a), bound_nodes(b));
    let find = |all: &[&NodePlan], path: &str| all.iter().position(|node| node.path == path);
    for node in &old {
        let Some(other) = find(&new, &node.path).and_then(|at| new.get(at)) else {
            lines.push(format!("step {}: is gone", node.path));
            continue;
        };
        if node.kind != other.kind {
            lines.push(format!(
                "step {}: was {}, is {}",
                node.path, node.kind, other.kind
            ));
        }
        if node.effect != other.effect {
            lines.push(format!("step {}: its effect changed", node.path));
        }
        if node.undo != other.undo {
            lines.push(format!("step {}: its undo changed", node.path));
        }
        if node.binding != other.binding {
            let what = binding_changes(&node.binding, &other.binding);
            lines.push(format!("step {}: {what}", node.path));
        }
    }
    for node in &new {
        if find(&old, &node.path).is_none() {
            lines.push(format!("step {}: is new ({})", node.path, node.kind));
        }
    }
}

fn binding_changes(was: &Json, is: &Json) -> String {
    let mut changed = Vec::new();
    paths(was, is, String::new(), &mut changed);
    changed.truncate(3);
    changed.join("; ")
}

fn paths(was: &Json, is: &Json, at: String, changed: &mut Vec<String>) {
    if let (Json::Object(a), Json::Object(b)) = (was, is) {
        for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
            let inner = if at.is_empty() {
                key.clone()
            } else {
                format!("{at}.{key}")
            };
            paths(
                a.get(key).unwrap_or(&Json::Null),
                b.get(key).unwrap_or(&Json::Null),
                inner,
                changed,
            );
        }
    } else if was != is {
        changed.push(format!("{at} was {was}, is {is}"));
    }
}
