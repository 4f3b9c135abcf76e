//! `windlass close`: ends a stopped or stuck run as it is.
use crate::{
    ask::{AskArgs, ask},
    error::CliError,
    exit::Exit,
    session::{self, Session},
};
use windlass_engine::machine::Command;

/// What `close` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::ask::ENDS)]
pub(crate) struct CloseArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// On what grounds; it is kept in the journal
    #[arg(long, value_name = "REASON")]
    because: String,
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) async fn run(session: &Session, args: &CloseArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let command = Command::Close {
        because: args.because.clone(),
    };
    let exit = ask(session, journal, &run, command, args.ask).await?;
    // A closed run has the outcome *stopped*, and that is what was asked for.
    Ok(match exit {
        Exit::Person => Exit::Succeeded,
        exit => exit,
    })
}
