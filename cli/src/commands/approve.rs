//! `windlass approve` and `windlass reject`: a vote on what a step asks, bound to what the voter was shown.
use crate::{
    args::pair,
    ask::{AskArgs, ask},
    error::CliError,
    exit::Exit,
    session::{self, Session},
    ui::{next, question::question, words},
};
use indexmap::IndexMap;
use windlass_engine::{
    machine::{Command, Instance, Machine, Stage},
    step::{ApprovalRequest, WaitOn},
};

/// What `approve` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ApproveArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// The step that asks, by its path; may be left out where only one does
    step: Option<String>,
    /// An answer, as QUESTION=VALUE; options by their numbers, such as victims=1,3
    #[arg(long = "answer", value_name = "QUESTION=VALUE", value_parser = pair)]
    answers: Vec<(String, String)>,
    /// Why
    #[arg(long, value_name = "REASON")]
    because: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

/// What `reject` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RejectArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// The step that asks, by its path; may be left out where only one does
    step: Option<String>,
    /// Why
    #[arg(long, value_name = "REASON")]
    because: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) async fn approve(session: &Session, args: &ApproveArgs) -> Result<Exit, CliError> {
    let answers = args.answers.iter().cloned().collect();
    let vote = Vote {
        approve: true,
        answers,
        because: args.because.clone(),
    };
    cast(session, &args.run, args.step.as_deref(), vote, args.ask).await
}

pub(crate) async fn reject(session: &Session, args: &RejectArgs) -> Result<Exit, CliError> {
    let vote = Vote {
        approve: false,
        answers: IndexMap::new(),
        because: args.because.clone(),
    };
    cast(session, &args.run, args.step.as_deref(), vote, args.ask).await
}

struct Vote {
    approve: bool,
    answers: IndexMap<String, String>,
    because: Option<String>,
}

async fn cast(
    session: &Session,
    run: &str,
    step: Option<&str>,
    vote: Vote,
    args: AskArgs,
) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), run).await?;
    let machine = session::machine(journal.as_ref(), &run).await?;
    let (instance, request) = asking(&machine, step)?;
    if !args.json && !session.ui.quiet {
        session
            .ui
            .print(&question(request, instance, session.ui.out));
    }
    if vote.approve
        && let Some(missing) = request
            .ask
            .keys()
            .find(|name| !vote.answers.contains_key(*name))
    {
        let error = CliError::invalid(format!("question {missing:?} is not answered"));
        return Err(match next::answer(&machine, instance) {
            Some(command) => error.help(format!("answer all of them: {command}")),
            None => error,
        });
    }
    let command = Command::Vote {
        node: instance.path.to_string(),
        approve: vote.approve,
        answers: vote.answers,
        reason: vote.because,
        digest: machine.started().digest.clone(),
        shown_hash: request.shown_hash.clone(),
    };
    ask(session, journal, &run, command, args).await
}

/// The step that asks, and what it asks.
fn asking<'m>(
    machine: &'m Machine,
    step: Option<&str>,
) -> Result<(&'m Instance, &'m ApprovalRequest), CliError> {
    let all: Vec<(&Instance, &ApprovalRequest)> = machine
        .instances()
        .filter_map(|instance| {
            let (_, execution) = words::current(instance);
            match &execution.wait()?.on {
                WaitOn::Approval(request) if execution.stage() == Stage::AwaitingApproval => {
                    Some((instance, request.as_ref()))
                }
                WaitOn::Approval(_) | WaitOn::Timer(_) | WaitOn::Signal(_) => None,
            }
        })
        .collect();
    let names = || {
        let names: Vec<&str> = all.iter().map(|(instance, _)| &*instance.path).collect();
        names.join(", ")
    };
    let found = match step {
        Some(step) => all.iter().find(|(instance, _)| &*instance.path == step),
        None if all.len() == 1 => all.first(),
        None => None,
    };
    if let Some(found) = found {
        return Ok(*found);
    }
    let run = next::run_of(machine);
    if all.is_empty() {
        return Err(CliError::new(
            Exit::Refused,
            "no step of this run asks for an approval now",
        )
        .note(format!("the run is {}", machine.state().as_str()))
        .help(format!("`windlass show {run}` says where it stands")));
    }
    Err(match step {
        Some(step) => CliError::new(
            Exit::Refused,
            format!("{step:?} does not ask for an approval now"),
        )
        .help(format!("these do: {}", names())),
        None => CliError::invalid("several steps ask for an approval")
            .help(format!("name one of: {}", names())),
    })
}
