//! `windlass run`: starts a run and drives it.
use super::plan;
use crate::{
    clock, drive,
    error::CliError,
    exit::Exit,
    keyed,
    playbook::{self, Given},
    reporter::Reporter,
    session::Session,
};
use std::path::PathBuf;
use windlass_engine::{
    journal::{RefusedBy, RefusedStart},
    run::{DriveOptions, NewRun, RunError, start_of},
};

/// What `run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    given: Given,
    /// Run only if a plan made now would be this one (written by `windlass plan -o`); else end with code 5
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Start once by this key, unique in the journal: the same command again drives or reports the first run
    #[arg(long, value_name = "KEY", value_parser = keyed::parse)]
    key: Option<String>,
    /// End with code 4 as soon as the run only waits, instead of waiting with it
    #[arg(long)]
    no_wait: bool,
    /// Tell the events as JSON, one a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &RunArgs) -> Result<Exit, CliError> {
    let prepared = playbook::prepare(session, &args.given)?;
    let journal = session.journal()?;
    let options = DriveOptions {
        leave_when_waiting: args.no_wait,
        ..DriveOptions::default()
    };
    let mut new = prepared.clone().new_run(session.user(), None);
    // A plan of a run that has begun would differ by what the run did.
    if let Some(key) = &args.key
        && let Some(first) = journal.keyed(key).await?
        && start_of(&new).differs(&first.of).is_none()
    {
        return keyed::outcome(session, &journal, &first.run, options, args.json).await;
    }
    if let Some(path) = &args.plan {
        match plan::agree(session, path, &prepared).await {
            Ok(digest) => new.digest = Some(digest),
            Err(no) => {
                if let Some(refused_by) = no.refused_by {
                    let refused = refused(&new, args, refused_by, &no.error.message);
                    // What is told is the refusal, not that it could not be kept.
                    drop(journal.refuse(refused).await);
                }
                return Err(no.error);
            }
        }
    }
    let driver = drive::driver(session, &journal)?;
    match driver.start_once(new, args.key.clone(), options).await {
        Ok(handle) => {
            let mut reporter = Reporter::new(&session.ui, &handle.id, args.json);
            drive::follow(session, &journal, handle, &mut reporter).await
        }
        // Another process was quicker with the same start.
        Err(RunError::KeyUsed {
            run, differs: None, ..
        }) => keyed::outcome(session, &journal, &run, options, args.json).await,
        Err(error) => Err(error.into()),
    }
}

/// A start that is refused as its plan is compared.
fn refused(new: &NewRun, args: &RunArgs, refused_by: RefusedBy, why: &str) -> RefusedStart {
    RefusedStart {
        at: clock::now(),
        playbook: new.graph.playbook.clone(),
        environment: new.environment.clone(),
        by: new.by.clone(),
        key: args.key.clone(),
        refused_by,
        why: why.to_owned(),
    }
}
