//! Events and instances in words; what waits for a person comes with the command that answers.
use super::one_line;
pub(crate) use windlass_engine::report::{standing::*, words::*};
use windlass_engine::{
    machine::{Command, EventBody, Holder, Machine},
    step::Registry,
};

/// An event in words, after the machine has applied it. `None` where nobody needs to read it.
pub(crate) fn describe(body: &EventBody, machine: &Machine, registry: &Registry) -> Option<Line> {
    let mut line = windlass_engine::report::words::describe(body, machine, registry)?;
    if let EventBody::Suspended(suspended) = body
        && let Some(instance) = machine.instance(&suspended.node)
        && let Some(command) = super::next::answer(machine, instance)
    {
        line.text.push_str(&format!("; answer with: {command}"));
    }
    Some(line)
}

/// `process 4711 of ana (account root) on db-1`.
pub(crate) fn driver(holder: &Holder) -> String {
    format!(
        "process {} of {} on {}",
        holder.pid,
        holder.who(),
        holder.host
    )
}

/// What somebody asks, in the words of the command line: `approve sign_off`.
pub(crate) fn command(command: &Command) -> String {
    let text = match command {
        Command::Vote { node, approve, .. } => {
            format!("{} {node}", if *approve { "approve" } else { "reject" })
        }
        Command::Signal { name, .. } => format!("signal {name}"),
        Command::Pause { .. } => "pause".to_owned(),
        Command::Unpause => "unpause".to_owned(),
        Command::Cancel { undo, force, .. } => format!(
            "cancel --{}{}",
            if *undo { "undo" } else { "leave" },
            if *force { " --force" } else { "" }
        ),
        Command::Resolve { node, done, .. } => format!(
            "resolve {node} --{}",
            if *done { "done" } else { "not-done" }
        ),
        Command::Retry { node } => format!("retry {node}"),
        Command::Skip { node, .. } => format!("skip {node}"),
        Command::SetInput { name, .. } => format!("set {name}"),
        Command::Undo => "undo".to_owned(),
        Command::Close { .. } => "close".to_owned(),
    };
    one_line(&text)
}
