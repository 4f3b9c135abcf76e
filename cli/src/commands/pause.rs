//! `windlass pause` and `windlass unpause`.
use crate::{
    ask::{AskArgs, ask},
    error::CliError,
    exit::Exit,
    session::{self, Session},
};
use windlass_engine::machine::Command;

/// What `pause` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes:
    0  the run is paused; or it is recorded (--queue)
    2  an option is wrong, or no run, step or input has the name
    5  it is refused and changes nothing; the message says why
    7  the journal failed; it may not be recorded")]
pub(crate) struct PauseArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// Why
    #[arg(long, value_name = "REASON")]
    because: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

/// What `unpause` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::ask::EXITS)]
pub(crate) struct UnpauseArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) async fn pause(session: &Session, args: &PauseArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let command = Command::Pause {
        because: args.because.clone(),
    };
    let exit = ask(session, journal, &run, command, args.ask).await?;
    // Paused is what was asked for.
    Ok(if exit == Exit::Person {
        Exit::Succeeded
    } else {
        exit
    })
}

pub(crate) async fn unpause(session: &Session, args: &UnpauseArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    ask(session, journal, &run, Command::Unpause, args.ask).await
}
