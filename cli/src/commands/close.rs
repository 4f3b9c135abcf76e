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
    let exit = ask(session, journal.clone(), &run, command, args.ask).await?;
    // Closed is what was asked for.
    let machine = session::machine(journal.as_ref(), &run).await?;
    Ok(match machine.closed() {
        Some(_) => Exit::Succeeded,
        None => exit,
    })
}
