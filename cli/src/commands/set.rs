//! `windlass set`: changes an input of a run, for what has not started.
use crate::{
    args::pair,
    ask::{AskArgs, ask},
    error::CliError,
    exit::Exit,
    session::{self, Session},
};
use windlass_engine::machine::Command;

/// What `set` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::ask::EXITS)]
pub(crate) struct SetArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// The input and its new value; decisions that were made with the old one stay
    #[arg(value_name = "NAME=VALUE", value_parser = pair)]
    input: (String, String),
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) async fn run(session: &Session, args: &SetArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let (name, value) = args.input.clone();
    ask(
        session,
        journal,
        &run,
        Command::SetInput { name, value },
        args.ask,
    )
    .await
}
