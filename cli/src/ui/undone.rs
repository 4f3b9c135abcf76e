//! What became of what a run did: undone, not undone and why, failed to be undone, still to be undone.
use super::{
    Style, one_line,
    words::{is_impossible, is_scratch, remains, undo_of},
};
use windlass_engine::{
    graph::NodeId,
    machine::{Instance, Machine, NodeState, Outcome, Role, RunState, Stage},
};

/// Names that are listed one by one.
const MOST: usize = 20;

/// Whether anything is or was being undone.
pub(crate) fn is_any(machine: &Machine) -> bool {
    matches!(machine.state(), RunState::Compensating)
        || machine
            .instances()
            .any(|instance| instance.role == Role::Step && instance.undo.stage() != Stage::Idle)
}

/// What was undone, in the order in which it was; what was not, and why. Empty where nothing was to be undone.
pub(crate) fn undone(machine: &Machine, style: Style) -> String {
    let steps = || {
        machine
            .instances()
            .filter(|instance| instance.role == Role::Step)
    };
    let mut done: Vec<&Instance> = steps()
        .filter(|instance| instance.state == NodeState::Undone)
        .collect();
    done.sort_by_key(|instance| instance.undo.started_at);
    let succeeded = matches!(machine.state(), RunState::Finished(Outcome::Succeeded));
    let mut text = String::new();
    // In a run that was undone, what is scratch has its place in the order.
    let (scratch, undone): (Vec<&Instance>, Vec<&Instance>) = done
        .into_iter()
        .partition(|instance| succeeded && is_scratch(machine, instance));
    for (heading, done) in [("undone, in this order:", undone), ("cleaned up:", scratch)] {
        if !done.is_empty() {
            text.push_str(&format!("  {} {}\n", style.blue(heading), names(&done)));
        }
    }
    // A run that is stuck in a doubt while it goes forward undoes nothing.
    let undoes = match machine.state() {
        RunState::Compensating => true,
        RunState::Stuck => machine.is_to_be_undone(),
        _ => false,
    };
    if undoes {
        let open: Vec<&Instance> = steps()
            .filter(|instance| {
                remains(machine, instance)
                    && !is_impossible(machine, instance)
                    && matches!(instance.undo.stage(), Stage::Idle)
            })
            .collect();
        if !open.is_empty() {
            let heading = style.yellow("still to be undone:");
            text.push_str(&format!("  {heading} {}\n", names(&open)));
        }
    }
    let is_over = matches!(
        machine.state(),
        RunState::Finished(Outcome::Compensated | Outcome::Stopped | Outcome::Cancelled)
            | RunState::Stuck
    );
    if is_over || is_any(machine) && !succeeded {
        for (instance, why) in steps().filter_map(|one| Some((one, why_not(machine, one)?))) {
            text.push_str(&format!(
                "  {} {}: {why}\n",
                style.yellow("not undone:"),
                style.bold(&instance.path)
            ));
        }
    }
    text
}

fn names(all: &[&Instance]) -> String {
    let shown: Vec<&str> = all
        .iter()
        .take(MOST)
        .map(|instance| instance.path.as_ref())
        .collect();
    match all.len().saturating_sub(MOST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Why what a step did is still there although the run was undone, or was to be.
pub(crate) fn why_not(machine: &Machine, instance: &Instance) -> Option<String> {
    if instance.state == NodeState::UndoFailed {
        let failure = instance.undo.failure.as_ref();
        return Some(match failure {
            Some(failure) => format!("its undo failed: {}", one_line(&failure.message)),
            None => "its undo began and was given up".to_owned(),
        });
    }
    if !remains(machine, instance) || instance.undo.stage().is_active() {
        return None;
    }
    if is_impossible(machine, instance) {
        return Some("it cannot be undone".to_owned());
    }
    if instance.undo.stage() == Stage::Skipped {
        return Some(match in_the_way(machine, instance) {
            Some(other) => format!("{other} needs it, and is not undone"),
            None => "its undo was passed over".to_owned(),
        });
    }
    let is_over = matches!(machine.state(), RunState::Finished(_));
    // Where nothing was to be undone, nothing was in the way.
    let in_the_way = machine
        .is_to_be_undone()
        .then(|| in_the_way(machine, instance))
        .flatten();
    is_over.then(|| match in_the_way {
        Some(other) => format!("{other} needs it, and is not undone"),
        None => {
            let by = if machine.cancelled().is_some_and(|cancelled| !cancelled.undo) {
                " by the cancel"
            } else {
                ""
            };
            let how = undo_of(machine, instance).unwrap_or_default();
            format!("it was left{by} ({how})")
        }
    })
}

/// A step that depends on this one, by way of others too, and whose effect stays.
fn in_the_way<'m>(machine: &'m Machine, instance: &Instance) -> Option<&'m str> {
    let graph = machine.graph();
    let mut wanted: Vec<NodeId> = instance.def.into_iter().collect();
    // What stands in a group or a loop is needed by what needs that.
    let mut up = instance.parent;
    while let Some(id) = up {
        let around = machine.get(id);
        wanted.extend(around.def);
        up = around.parent;
    }
    let own = wanted.len();
    let mut at = 0;
    while let Some(id) = wanted.get(at).copied() {
        at += 1;
        for (n, node) in (0_u32..).zip(&graph.nodes) {
            let dependent = NodeId(n);
            let inside = node.parent == Some(id) && at > own;
            if (node.needs.contains(&id) || inside) && !wanted.contains(&dependent) {
                wanted.push(dependent);
            }
        }
    }
    machine
        .instances()
        .filter(|other| other.role == Role::Step && other.path != instance.path)
        .filter(|other| remains(machine, other))
        .filter(|other| is_impossible(machine, other) || other.state == NodeState::UndoFailed)
        .find(|other| other.def.is_some_and(|def| wanted.contains(&def)))
        .map(|other| other.path.as_ref())
}
