//! The last lines that steps printed, from the journal.
use crate::error::CliError;
use windlass_engine::{
    journal::{Journal, PrintedOf},
    machine::{Instance, Machine, Role, Stage},
    report::{output::LastLines, words::current},
};

/// Pieces that are asked for of one step; a piece holds many lines as a rule.
const PIECES: u32 = 20;
/// Steps that are asked about: of a loop with thousands of failures no reader wants more.
const STEPS: usize = 50;

/// Whether the last lines of a step are shown: it runs, failed, or is in doubt.
pub(crate) fn is_told(instance: &Instance) -> bool {
    instance.role == Role::Step
        && matches!(
            current(instance).1.stage(),
            Stage::Running | Stage::Failed | Stage::InDoubt | Stage::Backoff
        )
}

/// The last lines of what runs, failed, or is in doubt.
pub(crate) async fn of_run(
    journal: &dyn Journal,
    machine: &Machine,
) -> Result<LastLines, CliError> {
    let mut last = LastLines::default();
    for instance in machine
        .instances()
        .filter(|instance| is_told(instance))
        .take(STEPS)
    {
        last.take(&of_step(journal, machine, &instance.path).await?);
    }
    Ok(last)
}

/// The last pieces of one step.
pub(crate) async fn of_step(
    journal: &dyn Journal,
    machine: &Machine,
    path: &str,
) -> Result<Vec<windlass_engine::journal::Printed>, CliError> {
    let run = &machine.started().run.id;
    Ok(journal.printed(run, PrintedOf::last(path, PIECES)).await?)
}
