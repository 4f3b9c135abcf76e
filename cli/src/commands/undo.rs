//! `windlass undo`: undoes a run that is finished, stopped or paused.
use crate::{
    ask::{AskArgs, ask},
    error::CliError,
    exit::Exit,
    session::{self, Session},
};
use windlass_engine::machine::Command;

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
    ask(session, journal, &run, Command::Undo, args.ask).await
}
