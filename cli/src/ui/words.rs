//! Events and instances in words; what waits for a person comes with the command that answers.
pub(crate) use windlass_engine::report::{standing::*, words::*};
use windlass_engine::{
    machine::{EventBody, Machine},
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
