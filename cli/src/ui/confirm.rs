//! What a person reads before they say yes: an undo, or a run that passes a point of no return.
use super::{Style, cut, next::run_of, one_line, without_password};
use crate::undoing::Undoing;
use windlass_engine::{
    machine::{Holder, Machine},
    plan::{Decision, NodePlan, Plan, UndoHow},
    step::Effect,
};

/// How many steps are listed one by one.
const MOST: usize = 30;

/// What an undo would do.
pub(crate) fn undo(undoing: &Undoing, holder: Option<&Holder>, style: Style) -> String {
    let machine = &undoing.machine;
    let started = machine.started();
    let mut text = format!(
        "undo of {} {}, in environment {}\n",
        style.bold(&started.run.playbook),
        run_of(machine),
        started.run.environment
    );
    if !undoing.running.is_empty() {
        text.push_str(&format!(
            "  runs now and finishes first: {}\n",
            undoing.running.join(", ")
        ));
    }
    if undoing.steps.is_empty() {
        text.push_str("  nothing would be undone\n");
    } else {
        text.push_str("  would be undone, in this order:\n");
    }
    for (index, step) in undoing.steps.iter().enumerate() {
        if index == MOST {
            text.push_str(&format!(
                "    … and {} more\n",
                undoing.steps.len().saturating_sub(MOST)
            ));
            break;
        }
        let what = match &step.fails {
            Some(why) => style.red(&format!(
                "its undo fails before it starts: {}",
                one_line(why)
            )),
            None => {
                let targets: Vec<String> = step
                    .targets
                    .iter()
                    .map(|target| place(machine, target))
                    .collect();
                let on = if targets.is_empty() { "" } else { " on " };
                format!("by {}{on}{}", step.kind, targets.join(", "))
            }
        };
        text.push_str(&format!(
            "    {:>3}. {}  {what}\n",
            index + 1,
            style.bold(&step.path)
        ));
    }
    for (path, why) in &undoing.stays {
        text.push_str(&format!("  {} {path}: {why}\n", style.red("stays:")));
    }
    for path in &undoing.doubts {
        text.push_str(&format!(
            "  {} {path}: it is settled before the undo goes past it\n",
            style.magenta("in doubt:")
        ));
    }
    if !undoing.finally.is_empty() {
        text.push_str(&format!("  then finally: {}\n", undoing.finally.join(", ")));
    }
    if let Some(holder) = holder {
        text.push_str(&format!(
            "  {} drives the run and would do it\n",
            super::words::driver(holder)
        ));
    }
    text
}

/// `orders (postgres db1:5432/shop)`.
fn place(machine: &Machine, name: &str) -> String {
    match machine.started().targets.get(name) {
        Some(target) => {
            let at = target.identity.as_ref().map_or_else(
                || without_password(&target.url.to_string()),
                |identity| identity.instance.clone(),
            );
            format!("{name} ({} {at})", target.kind)
        }
        None => name.to_owned(),
    }
}

/// A plan in short: where a run would act, what it would write, what cannot be undone.
pub(crate) fn plan(plan: &Plan, style: Style) -> String {
    let mut text = format!(
        "{} in environment {} passes a point of no return\n",
        style.bold(&plan.playbook),
        plan.environment
    );
    for target in &plan.targets {
        let at = target
            .instance
            .clone()
            .unwrap_or_else(|| without_password(&target.url));
        text.push_str(&format!("  target {}: {} {at}\n", target.name, target.kind));
    }
    let all = plan.all();
    let acts: Vec<&&NodePlan> = all
        .iter()
        .filter(|node| matches!(node.effect, Some(Effect::Writes | Effect::Destroys)))
        .filter(|node| !matches!(node.decision, Decision::Skip { .. }))
        .collect();
    for node in acts.iter().take(MOST) {
        let word = match node.effect {
            Some(Effect::Destroys) => style.red("destroys"),
            Some(Effect::Writes | Effect::ReadOnly) | None => "writes".to_owned(),
        };
        let summary = node.preview.as_ref().map_or("", |preview| &preview.summary);
        let mut line = format!(
            "  {word} {} ({}): {}",
            style.bold(&node.path),
            node.kind,
            cut(&one_line(summary), 100)
        );
        if let Decision::Unknown { condition, .. } = &node.decision {
            line.push_str(&format!("; runs if {}", one_line(condition)));
        }
        if is_final(node) {
            line.push_str(&format!("; {}", style.red("cannot be undone")));
        }
        text.push_str(&format!("{line}\n"));
    }
    if acts.len() > MOST {
        text.push_str(&format!(
            "  … and {} more steps that write; `windlass plan` shows all\n",
            acts.len() - MOST
        ));
    }
    text
}

/// Whether a step cannot be undone.
fn is_final(node: &NodePlan) -> bool {
    node.undo
        .as_ref()
        .is_some_and(|undo| undo.how == UndoHow::Impossible)
}
