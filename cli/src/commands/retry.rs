//! `windlass retry`: another attempt of a failed step, a failed undo or a probe that could not tell.
use crate::{
    ask::{AskArgs, ask},
    error::CliError,
    exit::Exit,
    session::{self, Session},
};
use windlass_engine::machine::Command;

/// What `retry` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::ask::EXITS)]
pub(crate) struct RetryArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// The step, by its path
    step: String,
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) async fn run(session: &Session, args: &RetryArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let command = Command::Retry {
        node: args.step.clone(),
    };
    ask(session, journal, &run, command, args.ask).await
}
