//! `windlass skip`: passes over a step.
use crate::{
    ask::{AskArgs, ask},
    error::CliError,
    exit::Exit,
    session::{self, Session},
};
use windlass_engine::machine::Command;

/// What `skip` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::ask::EXITS)]
pub(crate) struct SkipArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// The step, by its path
    step: String,
    /// Why; the journal keeps it
    #[arg(long, value_name = "REASON")]
    because: String,
    /// What later steps read as the step's output
    #[arg(long, value_name = "JSON")]
    output: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) async fn run(session: &Session, args: &SkipArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let machine = session::machine(journal.as_ref(), &run).await?;
    let output = super::resolve::output(
        &machine,
        session.registry(),
        (&args.step, false),
        args.output.as_deref(),
    )?;
    let command = Command::Skip {
        node: args.step.clone(),
        output,
        because: args.because.clone(),
    };
    ask(session, journal, &run, command, args.ask).await
}
