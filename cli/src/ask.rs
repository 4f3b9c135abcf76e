//! Asking something of a run: through the inbox, answered by whoever drives it, or by driving it.
use crate::{
    clock, drive,
    error::{CliError, short},
    exit::Exit,
    reporter::Reporter,
    session::{self, Session},
};
use std::{sync::Arc, time::Duration};
use windlass_engine::{
    journal::{Journal, JournalError},
    machine::{Command, Event, EventBody, Submitted},
    run::{DriveOptions, RunError},
    value::Timestamp,
};

/// How often the journal is asked whether the answer is there.
const POLL: Duration = Duration::from_millis(50);
/// How long the answer of a process that drives is waited for.
const PATIENCE: windlass_engine::value::Duration = windlass_engine::value::Duration::from_secs(10);

/// What every command that asks something takes.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct AskArgs {
    /// Only put it into the run's inbox; whoever drives the run next takes it
    #[arg(long)]
    pub(crate) queue: bool,
    /// Tell the events as JSON, one a line, where this process drives the run
    #[arg(long)]
    pub(crate) json: bool,
}

/// Asks, and waits for the answer. Where nobody drives the run, this process does, until the run only waits.
pub(crate) async fn ask(
    session: &Session,
    journal: Arc<dyn Journal>,
    run: &str,
    command: Command,
    args: AskArgs,
) -> Result<Exit, CliError> {
    let submitted = Submitted {
        id: uuid::Uuid::now_v7().simple().to_string(),
        run: run.to_owned(),
        who: session.user(),
        at: clock::now(),
        command,
    };
    let from = session::summary(journal.as_ref(), run).await?.events + 1;
    journal.submit(submitted.clone()).await?;
    if args.queue {
        session.ui.say(&format!(
            "queued: the next process that drives the run takes it; `windlass resume {}` does so now",
            short(run)
        ));
        return Ok(Exit::Succeeded);
    }
    let deadline = PATIENCE.after(clock::now());
    loop {
        let driver = drive::driver(session, &journal)?;
        let options = DriveOptions {
            leave_when_waiting: true,
            ..DriveOptions::default()
        };
        match driver.resume(run, options).await {
            Ok(handle) => {
                let mut reporter = Reporter::new(&session.ui, run, args.json);
                reporter.look_out(&submitted.id);
                let exit = drive::follow(session, &journal, handle, &mut reporter).await?;
                return match reporter.verdict() {
                    Some(Err(reason)) => Err(refused(run, reason)),
                    Some(Ok(())) => Ok(exit),
                    // Another process took it between the two: its events have the answer.
                    None => answer(session, journal.as_ref(), &submitted, from, deadline).await,
                };
            }
            // Somebody drives it: they answer.
            Err(RunError::Journal(JournalError::LeaseHeld { .. })) => {
                if let Some(verdict) = verdict(journal.as_ref(), &submitted, from).await? {
                    return told(session, &submitted, verdict);
                }
                if clock::now() > deadline {
                    return answer(session, journal.as_ref(), &submitted, from, deadline).await;
                }
                tokio::time::sleep(POLL).await;
            }
            Err(RunError::Over { .. }) => {
                return answer(session, journal.as_ref(), &submitted, from, deadline).await;
            }
            Err(error) => {
                return Err(CliError::from(error)
                    .note("what was asked is in the run's inbox, and stays there"));
            }
        }
    }
}

fn refused(run: &str, reason: &str) -> CliError {
    CliError::new(Exit::Refused, format!("refused: {reason}"))
        .note("the refusal stands in the journal")
        .help(format!(
            "`windlass show {}` says where the run stands",
            short(run)
        ))
}

async fn verdict(
    journal: &dyn Journal,
    submitted: &Submitted,
    from: u64,
) -> Result<Option<Result<Timestamp, String>>, CliError> {
    let events: Vec<Event> = journal.load(&submitted.run, from).await?;
    Ok(events.iter().find_map(|event| {
        if let EventBody::CommandAccepted(taken) = &event.body
            && taken.id == submitted.id
        {
            return Some(Ok(event.at));
        }
        if let EventBody::CommandRefused(refused) = &event.body
            && refused.id == submitted.id
        {
            return Some(Err(refused.reason.clone()));
        }
        None
    }))
}

async fn answer(
    session: &Session,
    journal: &dyn Journal,
    submitted: &Submitted,
    from: u64,
    deadline: Timestamp,
) -> Result<Exit, CliError> {
    loop {
        if let Some(verdict) = verdict(journal, submitted, from).await? {
            return told(session, submitted, verdict);
        }
        if clock::now() > deadline {
            session.ui.say(&format!(
                "queued: the process that drives the run has not taken it yet; `windlass watch {}` follows it",
                short(&submitted.run)
            ));
            return Ok(Exit::Succeeded);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn told(
    session: &Session,
    submitted: &Submitted,
    verdict: Result<Timestamp, String>,
) -> Result<Exit, CliError> {
    match verdict {
        Ok(_) => {
            session.ui.say(&format!(
                "accepted: {}; `windlass watch {}` follows it",
                word(&submitted.command),
                short(&submitted.run)
            ));
            Ok(Exit::Succeeded)
        }
        Err(reason) => Err(refused(&submitted.run, &reason)),
    }
}

fn word(command: &Command) -> String {
    match command {
        Command::Vote {
            node,
            approve: true,
            ..
        } => format!("{node} has your approval"),
        Command::Vote {
            node,
            approve: false,
            ..
        } => format!("{node} is rejected"),
        Command::Signal { name, .. } => format!("signal {name} is delivered"),
        Command::Pause { .. } => "the run starts nothing new".to_owned(),
        Command::Unpause => "the run goes on".to_owned(),
        Command::Cancel { undo: true, .. } => "the run ends, and what it did is undone".to_owned(),
        Command::Cancel { undo: false, .. } => "the run ends, and what it did is left".to_owned(),
        Command::Resolve { node, .. } => format!("{node} is settled"),
        Command::Retry { node } => format!("{node} is tried again"),
        Command::Skip { node, .. } => format!("{node} is passed over"),
        Command::SetInput { name, .. } => format!("input {name} is changed"),
        Command::Undo => "what the run did is undone".to_owned(),
    }
}
