//! `windlass undo`: undoes a run that is finished, stopped or paused.
use crate::{
    ask::{AskArgs, ask},
    error::CliError,
    exit::Exit,
    session::{self, Session},
};
use windlass_engine::machine::{Command, Outcome};

/// What `undo` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct UndoArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) async fn run(session: &Session, args: &UndoArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let exit = ask(session, journal.clone(), &run, Command::Undo, args.ask).await?;
    let machine = session::machine(journal.as_ref(), &run).await?;
    // Undone is what was asked for.
    Ok(match machine.finished().map(|finished| finished.outcome) {
        Some(Outcome::Compensated | Outcome::Cancelled) => Exit::Succeeded,
        Some(Outcome::Succeeded | Outcome::Failed | Outcome::Stopped) | None => exit,
    })
}
