//! `windlass cancel`: ends a run; what it did is undone or left, as the user says.
use crate::{
    ask::{AskArgs, ask},
    error::CliError,
    exit::Exit,
    session::{self, Session},
};
use windlass_engine::machine::{Command, Outcome};

/// What `cancel` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::ask::ENDS)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["undo", "leave"]))]
pub(crate) struct CancelArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// Undo what it did, in reverse order
    #[arg(long)]
    undo: bool,
    /// Leave what it did as it is
    #[arg(long)]
    leave: bool,
    /// End running steps on their server too, instead of letting them finish; with `--leave` while `finally` runs, pass over the rest of it
    #[arg(long)]
    force: bool,
    /// Why
    #[arg(long, value_name = "REASON")]
    because: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) async fn run(session: &Session, args: &CancelArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let command = Command::Cancel {
        undo: args.undo,
        force: args.force,
        because: args.because.clone(),
    };
    let exit = ask(session, journal.clone(), &run, command, args.ask).await?;
    let machine = session::machine(journal.as_ref(), &run).await?;
    // Cancelled is what was asked for.
    Ok(match machine.finished().map(|finished| finished.outcome) {
        Some(Outcome::Cancelled | Outcome::Compensated) => Exit::Succeeded,
        Some(Outcome::Succeeded | Outcome::Failed | Outcome::Stopped) | None => exit,
    })
}
