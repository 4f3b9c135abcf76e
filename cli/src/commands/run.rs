//! `windlass run`: starts a run and drives it.
use super::plan;
use crate::{
    drive,
    error::CliError,
    exit::Exit,
    playbook::{self, Given},
    reporter::Reporter,
    session::Session,
};
use std::path::PathBuf;
use windlass_engine::run::DriveOptions;

/// What `run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    given: Given,
    /// Run only if a plan made now would be this one (written by `windlass plan -o`); else end with code 5
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// End with code 4 as soon as the run only waits, instead of waiting with it
    #[arg(long)]
    no_wait: bool,
    /// Tell the events as JSON, one a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &RunArgs) -> Result<Exit, CliError> {
    let prepared = playbook::prepare(session, &args.given)?;
    let digest = match &args.plan {
        Some(path) => Some(plan::agree(session, path, &prepared).await?),
        None => None,
    };
    let journal = session.journal()?;
    let driver = drive::driver(session, &journal)?;
    let options = DriveOptions {
        leave_when_waiting: args.no_wait,
        ..DriveOptions::default()
    };
    let handle = driver
        .start(prepared.new_run(session.user(), digest), options)
        .await?;
    let mut reporter = Reporter::new(&session.ui, &handle.id, args.json);
    drive::follow(session, &journal, handle, &mut reporter).await
}
