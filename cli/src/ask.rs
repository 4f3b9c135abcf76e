//! Asking something of a run: through the inbox, answered by whoever drives it, or by driving it.
use crate::{
    clock, drive,
    error::{CliError, short},
    exit::Exit,
    reporter::Reporter,
    session::{self, Session},
    vote,
};
use std::{sync::Arc, time::Duration};
use windlass_engine::{
    journal::{Journal, JournalError},
    machine::{Command, Event, EventBody, Machine, Role, Stage, Submitted},
    run::{DriveOptions, RunError},
    value::Timestamp,
};

/// How often the journal is asked whether the answer is there.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// How often it is asked anew whether a process still drives the run: the list of runs costs more than one run.
const RENEW: windlass_engine::value::Duration = windlass_engine::value::Duration::from_secs(1);
/// How long the answer of a process that drives is waited for.
pub(crate) const PATIENCE: windlass_engine::value::Duration =
    windlass_engine::value::Duration::from_secs(10);

/// The exit codes of a command that lets a run continue, for its help.
pub(crate) const EXITS: &str = "\
Exit codes:
    0  another process drives the run and has taken the command; or it is recorded (--queue)
    2  an option is wrong, or no run, step or input has the name
    5  it is refused and changes nothing; the message says why
    7  the journal failed; it may not be recorded
    If no process drives the run, this one does until the run only waits: the exit code of the run, as of `windlass resume`";

/// The exit codes of a command that ends a run as it is asked: in its help.
pub(crate) const ENDS: &str = "\
Exit codes:
    0  the run has ended as this command asks; or another process drives the run and has taken it; or it is recorded (--queue)
    2  an option is wrong, or no run, step or input has the name
    5  it is refused and changes nothing; the message says why
    7  the journal failed; it may not be recorded
    If no process drives the run, this one does until the run only waits: else the exit code of the run, as of `windlass resume`";

/// What every command that asks something takes.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct AskArgs {
    /// Only record it in the run's inbox; the next process that drives the run takes it
    #[arg(long)]
    pub(crate) queue: bool,
    /// Print the events as JSON, one per line, if this process drives the run
    #[arg(long)]
    pub(crate) json: bool,
}

/// Asks, and waits for the answer. If no process drives the run, this one does, until the run only waits.
pub(crate) async fn ask(
    session: &Session,
    journal: Arc<dyn Journal>,
    run: &str,
    command: Command,
    args: AskArgs,
) -> Result<Exit, CliError> {
    let submitted = session.asks(run, command);
    let summary = session::summary(journal.as_ref(), run).await?;
    let machine = session::machine(journal.as_ref(), run).await?;
    names(&machine, &submitted.command)?;
    if summary.holder.is_none() && !args.queue {
        let again = check(journal.as_ref(), &machine, &submitted).await?;
        if let Some(again) = again.filter(|_| !args.json) {
            session.ui.say(&again);
        }
    }
    submit(session, journal, submitted, summary.events + 1, args).await
}

/// A name that is not there is a mistake of whoever typed it, and no question to the run.
fn names(machine: &Machine, command: &Command) -> Result<(), CliError> {
    machine
        .names(command)
        .map_err(|why| not_there(machine, why))
}

pub(crate) fn not_there(machine: &Machine, why: String) -> CliError {
    CliError::invalid(why)
        .note("nothing was recorded")
        .help(shows(&machine.started().run.id))
}

fn shows(run: &str) -> String {
    format!(
        "`windlass show {}` shows the run and what can be done",
        short(run)
    )
}

/// Refuses what the next process that drives the run would refuse; else what it lets run again, in words. To take the run over for it
/// would ask probes, write to the journal and reach the targets, and a refused command changes nothing.
async fn check(
    journal: &dyn Journal,
    machine: &Machine,
    submitted: &Submitted,
) -> Result<Option<String>, CliError> {
    let waiting = journal.inbox(Some(&submitted.run)).await?;
    let ahead = machine
        .taken_over()
        .and_then(|machine| machine.after_orders(&waiting))
        .map_err(|error| vote::replay(machine, error))?;
    ahead
        .accepts(submitted, submitted.at)
        .map_err(|reason| not_taken(&submitted.run, &reason))?;
    let after = ahead
        .after_orders([submitted])
        .map_err(|error| vote::replay(machine, error))?;
    Ok(again(&ahead, &after))
}

/// Names that are listed one by one.
const MOST: usize = 12;

/// The steps that a command lets run again beside the one that it names: who orders one step must know of the others.
fn again(before: &Machine, after: &Machine) -> Option<String> {
    let pending = |machine: &Machine, path: &str| {
        let stage = machine.instance(path).map(|at| at.forward.stage());
        stage.is_none_or(|stage| stage == Stage::Idle)
    };
    let again: Vec<&str> = after
        .instances()
        .filter(|at| at.role == Role::Step && at.forward.attempt > 0)
        .map(|at| at.path.as_ref())
        .filter(|path| pending(after, path) && !pending(before, path))
        .collect();
    let shown = again.iter().take(MOST).copied().collect::<Vec<_>>();
    let more = match again.len().saturating_sub(MOST) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    (again.len() > 1).then(|| {
        format!(
            "runs again, with what was undone or ended since: {}{more}",
            shown.join(", ")
        )
    })
}

/// A command that is refused before it is recorded.
pub(crate) fn not_taken(run: &str, reason: &str) -> CliError {
    CliError::new(Exit::Refused, format!("refused: {reason}"))
        .note("nothing was recorded")
        .help(shows(run))
}

/// Asks what was made already; its answer stands at `from` or later.
pub(crate) async fn submit(
    session: &Session,
    journal: Arc<dyn Journal>,
    submitted: Submitted,
    from: u64,
    args: AskArgs,
) -> Result<Exit, CliError> {
    let run = submitted.run.as_str();
    journal.submit(submitted.clone()).await?;
    if args.queue {
        session.ui.say(&format!(
            "recorded: the process that drives the run takes it; if none does, it waits in the inbox until `windlass resume {}`",
            short(run)
        ));
        return Ok(Exit::Succeeded);
    }
    let deadline = PATIENCE.after(clock::now());
    loop {
        // Whoever drives the run answers: then neither the environment nor a target is needed here.
        let summary = session::summary(journal.as_ref(), run).await?;
        if summary.holder.is_some() {
            let soon = RENEW.after(clock::now()).min(deadline);
            while clock::now() <= soon {
                if let Some(verdict) = verdict(journal.as_ref(), &submitted, from).await? {
                    return told(session, &submitted, verdict);
                }
                tokio::time::sleep(POLL).await;
            }
            if clock::now() > deadline {
                return answer(session, journal.as_ref(), &submitted, from, deadline).await;
            }
            continue;
        }
        let driver = match drive::driver(session, &journal) {
            Ok(driver) => driver,
            Err(error) => return Err(taken_back(journal.as_ref(), &submitted, error).await),
        };
        let options = DriveOptions {
            leave_when_waiting: true,
            ..DriveOptions::default()
        };
        match driver.obey(run, &submitted.id, options).await {
            Ok(handle) => {
                let mut reporter = Reporter::new(session, run, args.json);
                reporter.look_out(&submitted.id);
                let followed = drive::follow(session, &journal, handle, &mut reporter).await;
                let exit = match (followed, reporter.verdict()) {
                    (Ok(exit), _) => exit,
                    (Err(error), Some(_)) => return Err(error),
                    // It could not drive the run far enough to take it.
                    (Err(error), None) => {
                        return Err(taken_back(journal.as_ref(), &submitted, error).await);
                    }
                };
                return match reporter.verdict() {
                    Some(Err(reason)) => Err(refused(run, reason)),
                    Some(Ok(())) => Ok(exit),
                    // Another process took it between the two: its events have the answer.
                    None => answer(session, journal.as_ref(), &submitted, from, deadline).await,
                };
            }
            // Another process was faster: it answers.
            Err(RunError::Journal(JournalError::LeaseHeld { .. })) => {}
            Err(RunError::Over { .. }) => {
                return answer(session, journal.as_ref(), &submitted, from, deadline).await;
            }
            Err(error) => {
                return Err(taken_back(journal.as_ref(), &submitted, error.into()).await);
            }
        }
        if clock::now() > deadline {
            return answer(session, journal.as_ref(), &submitted, from, deadline).await;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What keeps this process from driving the run: the command that it gave is taken out of the inbox again, or it would act later
/// although whoever gave it was told that it failed.
async fn taken_back(journal: &dyn Journal, submitted: &Submitted, error: CliError) -> CliError {
    match journal.withdraw(&submitted.run, &submitted.id).await {
        Ok(true) => error.note("the command is not recorded: give it again once that is fixed"),
        // Another process took it, or the journal fails, too.
        Ok(false) | Err(_) => error.note(format!(
            "the command may be recorded: `windlass show {}` says what became of it",
            short(&submitted.run)
        )),
    }
}

pub(crate) fn refused(run: &str, reason: &str) -> CliError {
    CliError::new(Exit::Refused, format!("refused: {reason}"))
        .note("the refusal is recorded in the journal; nothing else was changed")
        .help(shows(run))
}

pub(crate) async fn verdict(
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
                "recorded: the process that drives the run has not taken it yet; `windlass watch {}` follows the run",
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
            let run = short(&submitted.run);
            let next = match &submitted.command {
                // A process that only waited with the run has ended.
                Command::Pause { .. } => format!(
                    "`windlass unpause {run}` lets it continue, and drives it if no process does"
                ),
                _ => format!("`windlass watch {run}` follows the run"),
            };
            session
                .ui
                .say(&format!("accepted: {}; {next}", word(&submitted.command)));
            Ok(Exit::Succeeded)
        }
        Err(reason) => Err(refused(&submitted.run, &reason)),
    }
}

pub(crate) fn word(command: &Command) -> String {
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
        } => format!("{node} has your rejection"),
        Command::Signal { name, .. } => format!("signal {name}"),
        Command::Pause { .. } => "the run starts nothing new".to_owned(),
        Command::Unpause => "the run starts steps again".to_owned(),
        Command::Cancel { undo, force, .. } => {
            let once = match force {
                true => "at once",
                false => "as soon as what runs has ended (`--force` ends it at once)",
            };
            let what = match undo {
                true => "what it did is undone",
                false => "what it did stays",
            };
            format!("the run ends {once}: {what}, and then its `finally` runs")
        }
        Command::Resolve { node, .. } => format!("{node} is settled"),
        Command::Retry { node } => format!("{node} runs again"),
        Command::Skip { node, .. } => format!("{node} is skipped"),
        Command::SetInput { name, .. } => format!("input {name} is changed"),
        Command::Undo => "what the run did is being undone".to_owned(),
        Command::Close { .. } => "the run is over as it is".to_owned(),
    }
}
