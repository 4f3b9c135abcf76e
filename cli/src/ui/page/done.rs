//! What is done so far, whether it can be undone, and how to end the run.
use super::{
    super::{Ui, cut, next::takes, one_line},
    written::written,
};
use crate::ui::words::{current, is_impossible, node_of, remains, undo_of};
use windlass_engine::{
    graph::{Body, Undo},
    machine::{Command, Holder, Instance, Machine, NodeState, Role, RunState, Stage},
};

/// `is_lost`: no process drives it, so that what ran is lost.
pub(super) fn done_so_far(ui: &Ui, machine: &Machine, is_lost: bool) -> String {
    let style = ui.out;
    let effects: Vec<&Instance> = machine
        .instances()
        .filter(|i| i.role == Role::Step && i.took_effect && i.state != NodeState::Undone)
        .collect();
    let mut text = format!("{}\n", style.bold("done so far"));
    let doubts: Vec<String> = machine
        .instances()
        .filter(|instance| current(instance).1.stage() == Stage::InDoubt)
        .chain(
            is_lost
                .then(|| machine.doubtful_if_lost())
                .into_iter()
                .flatten(),
        )
        .map(|instance| instance.path.to_string())
        .collect();
    if !doubts.is_empty() {
        text.push_str(&format!(
            "  {} {}\n",
            style.magenta("in doubt:"),
            doubts.join(", ")
        ));
    }
    let passing = passing(ui, machine);
    text.push_str(&passing);
    if effects.is_empty() {
        let more = if doubts.is_empty() && passing.is_empty() {
            "nothing"
        } else {
            "nothing else"
        };
        text.push_str(&format!("  {more} that would need undoing\n"));
        return text;
    }
    // Items of one foreach are undone alike: one line for all of them.
    let mut groups: Vec<Vec<&Instance>> = Vec::new();
    for &instance in &effects {
        match groups.last_mut() {
            Some(group) if group.last().is_some_and(|last| last.def == instance.def) => {
                group.push(instance)
            }
            Some(_) | None => groups.push(vec![instance]),
        }
    }
    for group in &groups {
        let (Some(instance), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        let how = undo_of(machine, instance).unwrap_or_default();
        let name = if group.len() > 1 {
            format!("{} of {} … {}", group.len(), instance.path, last.path)
        } else {
            instance.path.to_string()
        };
        text.push_str(&format!("  {name}  {}\n", style.dim(&how)));
        if let Some(Body::Step(step)) = node_of(machine, instance).map(|node| &node.body)
            && let Undo::Steps(actions) = &step.undo
        {
            for action in actions {
                let with = written(&action.with);
                text.push_str(&format!(
                    "      {} {}\n",
                    action.kind,
                    cut(&one_line(&with), 110)
                ));
            }
        }
    }
    let passed: Vec<String> = effects
        .iter()
        .filter(|instance| is_impossible(machine, instance))
        .map(|instance| instance.path.to_string())
        .collect();
    // An undo that was tried and is not done is told of under "undo".
    let undo_is_open = effects
        .iter()
        .any(|instance| instance.undo.stage() != Stage::Idle);
    let can_be_undone = effects
        .iter()
        .any(|instance| remains(machine, instance) && !is_impossible(machine, instance));
    text.push_str(
        &if passed.is_empty() && (!passing.is_empty() || undo_is_open || !can_be_undone) {
            String::new()
        } else if passed.is_empty() {
            "  the point of no return is not passed: all of it can be undone\n".to_owned()
        } else {
            format!(
                "  {} {} cannot be undone, nor what it needs\n",
                style.red("the point of no return is passed:"),
                passed.join(", ")
            )
        },
    );
    text
}

/// Steps that run now and cannot be undone: until they end it is not known whether there is a way back.
fn passing(ui: &Ui, machine: &Machine) -> String {
    let now: Vec<&str> = machine
        .instances()
        .filter(|instance| {
            instance.role == Role::Step
                && matches!(instance.forward.stage(), Stage::Running | Stage::InDoubt)
                && is_impossible(machine, instance)
        })
        .map(|instance| instance.path.as_ref())
        .collect();
    if now.is_empty() {
        return String::new();
    }
    format!(
        "  {} {}: once it has taken effect, neither it nor what it needs can be undone\n",
        ui.out.red("the point of no return is being passed by"),
        now.join(", ")
    )
}

pub(super) fn what_ends(ui: &Ui, machine: &Machine, holder: Option<&Holder>) -> String {
    if matches!(machine.state(), RunState::Finished(_)) {
        return String::new();
    }
    let running = machine
        .instances()
        .filter(|i| i.role == Role::Step && current(i).1.stage() == Stage::Running)
        .count();
    let mut text = format!("{}\n", ui.out.bold("to end it"));
    if let Some(holder) = holder {
        text.push_str(&format!(
            "  Ctrl-C in process {} on {}: starts nothing new, {}leaves the run to be resumed; a second one ends what \
             runs\n",
            holder.pid,
            holder.host,
            match running {
                0 => String::new(),
                1 => "lets the running step finish, ".to_owned(),
                n => format!("lets the {n} running steps finish, "),
            }
        ));
    }
    let cancel = |undo| Command::Cancel {
        undo,
        force: false,
        because: None,
    };
    let ways = [
        (
            takes(machine, Command::Undo),
            "cancel --undo: lets running steps finish, undoes what was done in reverse order, runs finally",
        ),
        (
            takes(machine, cancel(false)),
            "cancel --leave: lets running steps finish, leaves what was done, runs finally",
        ),
    ];
    let ways: Vec<&str> = ways
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, way)| *way)
        .collect();
    for way in &ways {
        text.push_str(&format!("  {way}\n"));
    }
    match ways.len() {
        0 if holder.is_none() => return String::new(),
        0 => {}
        n => text.push_str(&format!(
            "  --force with {}: ends running steps, also on their server, instead of awaiting them\n",
            if n == 1 { "it" } else { "either" }
        )),
    }
    text
}
