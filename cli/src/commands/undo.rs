//! `windlass undo`: undoes what a run did, over or not.
use crate::{
    ask::{AskArgs, ask, not_taken},
    error::{CliError, short},
    exit::Exit,
    session::{self, Session},
    ui::{again, confirm},
    undoing, vote,
};
use windlass_engine::machine::{Command, Outcome};

/// What `undo` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::ask::ENDS)]
pub(crate) struct UndoArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// Do not ask. Without it a terminal shows what would be undone, and asks; a script is not asked
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) async fn run(session: &Session, args: &UndoArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    if !args.yes && session.ui.can_ask() {
        let summary = session::summary(journal.as_ref(), &run).await?;
        let ahead = vote::ahead(journal.as_ref(), &run).await?;
        let undoing = undoing::rehearse(session, ahead.machine, &summary)?
            .map_err(|reason| not_taken(&run, &reason))?;
        let page = confirm::undo(&undoing, summary.holder.as_ref(), session.ui.err);
        if !session.ui.confirm(&page, "Undo it? [y/N] ").await? {
            return Err(CliError::invalid("not undone: the answer was not yes")
                .note("nothing was changed")
                .help(format!(
                    "without a question: {}",
                    again::command(&format!("windlass undo {} --yes", short(&run)))
                )));
        }
    }
    let exit = ask(session, journal.clone(), &run, Command::Undo, args.ask).await?;
    let machine = session::machine(journal.as_ref(), &run).await?;
    // Undone is what was asked for.
    Ok(match machine.finished().map(|finished| finished.outcome) {
        Some(Outcome::Compensated) => Exit::Succeeded,
        // Who cancelled it may have left the rest as it is.
        Some(Outcome::Cancelled) if machine.is_to_be_undone() => Exit::Succeeded,
        Some(Outcome::Succeeded | Outcome::Failed | Outcome::Stopped | Outcome::Cancelled)
        | None => exit,
    })
}
