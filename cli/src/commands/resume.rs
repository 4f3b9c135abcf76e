//! `windlass resume`: goes on with a run from where it stands.
use crate::{
    drive,
    error::CliError,
    exit::Exit,
    reporter::Reporter,
    session::{self, Session},
};
use windlass_engine::run::DriveOptions;

/// What `resume` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// End with code 4 as soon as the run only waits, instead of waiting with it
    #[arg(long)]
    no_wait: bool,
    /// Tell the events as JSON, one a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &ResumeArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let options = DriveOptions {
        leave_when_waiting: args.no_wait,
    };
    let handle = drive::driver(session, &journal)?
        .resume(&run, options)
        .await?;
    let mut reporter = Reporter::new(session, &run, args.json);
    drive::follow(session, &journal, handle, &mut reporter).await
}
