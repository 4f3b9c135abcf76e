//! `windlass approve` and `windlass reject`: a vote on what a step asks, bound to what the voter was shown.
use crate::{
    args::pair,
    error::CliError,
    exit::Exit,
    session::{self, Session},
    ui::{next, question::question},
    vote::{self, EXITS, VoteArgs},
};
use indexmap::IndexMap;
use windlass_engine::machine::Command;

/// What `approve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXITS)]
pub(crate) struct ApproveArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// The step that asks, by its path; may be left out where only one does
    step: Option<String>,
    /// An answer, as QUESTION=VALUE; options by their numbers, such as victims=1,3
    #[arg(long = "answer", value_name = "QUESTION=VALUE", value_parser = pair)]
    answers: Vec<(String, String)>,
    /// Why; it is recorded with the vote
    #[arg(long, value_name = "REASON")]
    because: Option<String>,
    #[command(flatten)]
    vote: VoteArgs,
}

/// What `reject` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXITS)]
pub(crate) struct RejectArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// The step that asks, by its path; may be left out where only one does
    step: Option<String>,
    /// Why; it is recorded with the vote
    #[arg(long, value_name = "REASON")]
    because: Option<String>,
    #[command(flatten)]
    vote: VoteArgs,
}

pub(crate) async fn approve(session: &Session, args: &ApproveArgs) -> Result<Exit, CliError> {
    let answers = args.answers.iter().cloned().collect();
    let vote = Vote {
        approve: true,
        answers,
        because: args.because.clone(),
    };
    cast(session, &args.run, args.step.as_deref(), vote, args.vote).await
}

pub(crate) async fn reject(session: &Session, args: &RejectArgs) -> Result<Exit, CliError> {
    let vote = Vote {
        approve: false,
        answers: IndexMap::new(),
        because: args.because.clone(),
    };
    cast(session, &args.run, args.step.as_deref(), vote, args.vote).await
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
    args: VoteArgs,
) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), run).await?;
    let ahead = vote::ahead(journal.as_ref(), &run).await?;
    let machine = &ahead.machine;
    let (instance, request) = vote::asking(&ahead, step)?;
    if let Some(unknown) = vote
        .answers
        .keys()
        .find(|name| !request.ask.contains_key(*name))
    {
        let asked: Vec<&str> = request.ask.keys().map(String::as_str).collect();
        let error = CliError::invalid(format!("{} asks no question {unknown:?}", instance.path))
            .note("nothing was recorded");
        return Err(match asked.as_slice() {
            [] => error.help("it asks none: leave `--answer` out"),
            asked => error.help(format!("it asks: {}", asked.join(", "))),
        });
    }
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
        let error = CliError::invalid(format!("question {missing:?} is not answered"))
            .note("nothing was recorded");
        return Err(match next::answer(machine, instance) {
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
    vote::cast(session, journal, &run, command, args).await
}
