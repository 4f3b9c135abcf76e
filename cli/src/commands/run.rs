//! `windlass run`: starts a run and drives it.
use super::plan;
use crate::{
    drive,
    error::CliError,
    exit::Exit,
    playbook::{self, Given},
    reporter::Reporter,
    session::Session,
    ui::confirm,
};
use std::path::PathBuf;
use windlass_engine::{
    graph::{Body, Graph, Undo},
    run::DriveOptions,
    step::Effect,
};

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
    /// Do not ask. Without it a terminal shows the plan in short before a run that passes a point of no return, and asks;
    /// a script is not asked
    #[arg(long, short)]
    yes: bool,
    /// Tell the events as JSON, one a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &RunArgs) -> Result<Exit, CliError> {
    let prepared = playbook::prepare(session, &args.given)?;
    let agreed = match &args.plan {
        Some(path) => Some(plan::agree(session, path, &prepared).await?),
        None => None,
    };
    if !args.yes && session.ui.can_ask() && may_pass(&prepared.graph) {
        let plan = match &agreed {
            Some(plan) => plan.clone(),
            None => plan::make(session, &prepared, false).await?,
        };
        // A step that cannot be undone may be skipped with these inputs.
        if plan.counts.irreversible > 0 {
            session.ui.complain(&confirm::plan(&plan, session.ui.err));
            if !session.ui.confirm("Run it? [y/N] ")? {
                return Err(CliError::invalid("not started: the answer was not yes")
                    .note("nothing was changed, and the journal has no record of it")
                    .help("`windlass plan` shows all that it would do; `--yes` runs it without a question"));
            }
        }
    }
    let digest = agreed.map(|plan| plan.digest);
    let journal = session.journal()?;
    let driver = drive::driver(session, &journal)?;
    let options = DriveOptions {
        leave_when_waiting: args.no_wait,
    };
    let handle = driver
        .start(prepared.new_run(session.user(), digest), options)
        .await?;
    let mut reporter = Reporter::new(session, &handle.id, args.json);
    drive::follow(session, &journal, handle, &mut reporter).await
}

/// Whether a step of the playbook, or of one that it calls, cannot be undone once it took effect.
fn may_pass(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| {
        matches!(&node.body, Body::Step(step)
            if step.undo == Undo::Impossible && step.action.traits.effect != Effect::ReadOnly)
    })
}
