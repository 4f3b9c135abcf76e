//! `windlass run`: starts a run and drives it.
use super::plan::{self, NoPlan};
use crate::{
    clock, drive,
    error::CliError,
    exit::Exit,
    keyed,
    playbook::{self, Given, Prepared},
    reporter::Reporter,
    session::Session,
    ui::confirm,
};
use std::path::PathBuf;
use windlass_engine::{
    graph::{Body, Graph, Undo},
    journal::{JournalError, RefusedBy, RefusedStart},
    plan::Plan,
    run::{DriveOptions, NewRun, RunError, start_of},
    step::{Account, Effect},
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
    /// Do not ask. Without it a terminal shows the plan in short before a run that passes a point of no return, and asks;
    /// a script is not asked
    #[arg(long, short)]
    yes: bool,
    /// Print the events as JSON, one per line
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
    // A plan of a run that has begun would differ by what the run did, and its point of no return was agreed to before.
    if let Some(key) = &args.key
        && let Some(first) = journal.keyed(key).await?
        && start_of(&new).differs(&first.of).is_none()
    {
        return keyed::outcome(session, &journal, &first.run, options, args.json).await;
    }
    match agreed(session, args, &prepared).await {
        Ok(plan) => new.digest = plan.map(|plan| plan.digest),
        Err(no) => {
            if let Some(refused_by) = no.refused_by {
                let refused = refused(
                    &new,
                    args,
                    crate::account::ours().clone(),
                    (refused_by, &no.error.message),
                );
                // What is told is the refusal, not that it could not be kept.
                drop(journal.refuse(refused).await);
            }
            return Err(no.error);
        }
    }
    let driver = drive::driver(session, &journal)?;
    match driver.start_once(new, args.key.clone(), options).await {
        Ok(handle) => {
            let mut reporter = Reporter::new(session, &handle.id, args.json);
            drive::follow(session, &journal, handle, &mut reporter).await
        }
        // Another process was quicker with the same start.
        Err(RunError::KeyUsed {
            run, differs: None, ..
        }) => keyed::outcome(session, &journal, &run, options, args.json).await,
        Err(RunError::Journal(error @ (JournalError::DiskFull { .. } | JournalError::Store(_)))) => {
            Err(CliError::new(Exit::Broken, error.to_string())
                .note("it is not known whether the run has begun; no step of it was started")
                .help("once the journal can be written to, `windlass runs` shows whether it is there: `windlass resume RUN` continues it, and if it is not, start it again"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The plan of `--plan`, if one made now is the same; and the answer of a person, where one sits there and the run passes a point
/// of no return.
async fn agreed(
    session: &Session,
    args: &RunArgs,
    prepared: &Prepared,
) -> Result<Option<Plan>, NoPlan> {
    let agreed = match &args.plan {
        Some(path) => Some(plan::agree(session, path, prepared).await?),
        None => None,
    };
    if !args.yes && session.ui.can_ask() && may_pass(&prepared.graph) {
        let plan = match &agreed {
            Some(plan) => plan.clone(),
            None => plan::make(session, prepared, false).await?,
        };
        // A step that cannot be undone may be skipped with these inputs.
        if plan.counts.irreversible > 0 {
            let page = confirm::plan(&plan, session.ui.err);
            if !session.ui.confirm(&page, "Run it? [y/N] ").await? {
                return Err(CliError::invalid("not started: the answer was not yes")
                    .note("nothing was changed, and the journal has no record of it")
                    .help("`windlass plan` shows all that it would do; `--yes` runs it without a question")
                    .into());
            }
        }
    }
    Ok(agreed)
}

/// A start that is refused as its plan is compared.
fn refused(
    new: &NewRun,
    args: &RunArgs,
    account: Account,
    (refused_by, why): (RefusedBy, &str),
) -> RefusedStart {
    RefusedStart {
        at: clock::now(),
        playbook: new.graph.playbook.clone(),
        environment: new.environment.clone(),
        by: new.by.clone(),
        account: Some(account),
        key: args.key.clone(),
        refused_by,
        why: why.to_owned(),
    }
}

/// Whether a step of the playbook, or of one that it calls, cannot be undone once it took effect.
fn may_pass(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| {
        matches!(&node.body, Body::Step(step)
            if step.undo == Undo::Impossible && step.action.traits.effect != Effect::ReadOnly)
    })
}
