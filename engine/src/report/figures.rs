//! What steps, loops, groups and calls did, in figures. Their kinds give them; nothing here knows a kind.
use super::words::{kind_of, node_of};
use crate::{
    graph::{Body, Undo},
    machine::{Instance, Machine, NodeState, Role, Stage},
    step::{Figure, Measure, Phase, Registry},
    value::Value,
};

/// What an instance did forward: from its output, or from what it had seen when it failed.
#[must_use]
pub fn of_instance(machine: &Machine, registry: &Registry, instance: &Instance) -> Vec<Figure> {
    let children = instance.children.len() as u64;
    match instance.role {
        Role::Root => Vec::new(),
        Role::Step => of_output(registry, kind_of(machine, instance), seen(instance)),
        Role::Foreach => of_items(machine, registry, instance),
        Role::Group if children == 0 => Vec::new(),
        Role::Group => vec![Figure::count("steps", children, "step", "steps")],
        Role::Call if children == 0 => Vec::new(),
        Role::Call => {
            let mut figures = vec![Figure::count("steps", children, "step", "steps")];
            if instance.forward.stage() == Stage::Succeeded {
                figures.extend(of_output(
                    registry,
                    kind_of(machine, instance),
                    &instance.output,
                ));
            }
            figures
        }
    }
}

/// The output of a step that succeeded; of one that failed, what it had seen.
#[must_use]
pub fn seen(instance: &Instance) -> &Value {
    static NOTHING: Value = Value::Null;
    let execution = &instance.forward;
    match (execution.stage(), &execution.failure) {
        (Stage::Succeeded, _) => &instance.output,
        (_, Some(failure)) => &failure.output,
        (_, None) => &NOTHING,
    }
}

/// What the action of an execution did, by its output. An undo by the kind itself gives none.
#[must_use]
pub fn of_execution(
    machine: &Machine,
    registry: &Registry,
    instance: &Instance,
    (phase, part): (Phase, u32),
    output: &Value,
) -> Vec<Figure> {
    let Some(Body::Step(step)) = node_of(machine, instance).map(|node| &node.body) else {
        return Vec::new();
    };
    let action = match (phase, &step.undo) {
        (Phase::Do, _) => Some(&step.action),
        (Phase::Undo, Undo::Steps(parts)) => parts.get(part as usize),
        (Phase::Undo, Undo::Auto { .. } | Undo::None | Undo::Impossible) => None,
    };
    action.map_or_else(Vec::new, |action| of_output(registry, &action.kind, output))
}

/// What a step of a kind did, by its output.
#[must_use]
pub fn of_output(registry: &Registry, kind: &str, output: &Value) -> Vec<Figure> {
    match registry.kind(kind) {
        Some(kind) if !output.is_null() => (kind.figures)(output),
        Some(_) | None => Vec::new(),
    }
}

/// How many items, how many of them failed, and the amounts of all that succeeded.
fn of_items(machine: &Machine, registry: &Registry, instance: &Instance) -> Vec<Figure> {
    let items = instance.children.iter().map(|id| machine.get(*id));
    let (mut all, mut failed) = (0, 0);
    let mut sums: Vec<Figure> = Vec::new();
    for item in items {
        all += 1;
        match item.forward.stage() {
            Stage::Failed => failed += 1,
            Stage::Succeeded if item.role == Role::Step && item.state != NodeState::Undone => {
                for figure in of_instance(machine, registry, item) {
                    let amount = matches!(
                        figure.measure,
                        Measure::Count(_) | Measure::Bytes(_) | Measure::Share { .. }
                    );
                    match sums.iter_mut().find(|sum| sum.name == figure.name) {
                        Some(sum) => *sum = sum.plus(&figure).unwrap_or_else(|| sum.clone()),
                        None if amount => sums.push(figure),
                        None => {}
                    }
                }
            }
            _ => {}
        }
    }
    let mut figures = vec![Figure::count("items", all, "item", "items")];
    if failed > 0 {
        figures.push(Figure::count("failed", failed, "failed", "failed"));
    }
    figures.extend(sums);
    figures
}

/// In one line: `exit 0, 14.2 MiB`; `None` where there are none.
#[must_use]
pub fn said(figures: &[Figure]) -> Option<String> {
    let texts: Vec<String> = figures.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}
