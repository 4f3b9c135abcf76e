//! `windlass signal`: sends a signal; it is kept until a step takes it.
use crate::{
    error::CliError,
    exit::Exit,
    session::{self, Session},
    vote::{self, EXITS, VoteArgs},
};
use windlass_engine::{machine::Command, value::Value};

/// What `signal` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXITS)]
pub(crate) struct SignalArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// The signal's name
    name: String,
    /// What it carries
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    #[command(flatten)]
    vote: VoteArgs,
}

pub(crate) async fn run(session: &Session, args: &SignalArgs) -> Result<Exit, CliError> {
    let payload = match &args.payload {
        Some(text) => super::json("--payload", text)?,
        None => Value::Null,
    };
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let command = Command::Signal {
        name: args.name.clone(),
        payload,
    };
    vote::cast(session, journal, &run, command, args.vote).await
}
