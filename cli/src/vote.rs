//! Votes and signals: they are recorded, and never make the voter the driver of the run.
//!
//! The voter's account may hold neither the secrets nor a way to the targets: nothing here but the journal is opened.
use crate::{
    ask::{self, AskArgs, POLL},
    clock,
    error::{CliError, short},
    exit::Exit,
    session::{self, Session},
    ui::{again, next, words},
};
use serde_json::json;
use std::sync::Arc;
use windlass_engine::{
    journal::Journal,
    machine::{Command, Holder, Instance, Machine, Stage, Submitted},
    run::RunError,
    step::{ApprovalRequest, WaitOn},
};

/// With which code a vote or a signal ends, for the help of its command.
pub(crate) const EXITS: &str = "\
Exit codes:
    0  it is recorded: the process that drives the run has taken it, or the next one that drives the run takes it
    2  a question is not answered, a name is wrong, several steps ask
    5  it is refused and changes nothing; the message says why
    7  the journal failed; it may not be recorded
    With --drive: the exit code of the run, as of `windlass resume`";

/// What every vote and signal takes.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct VoteArgs {
    /// Also drive the run on, as `windlass resume` does, if no process drives it
    #[arg(long, conflicts_with = "queue")]
    drive: bool,
    /// Do not wait for the answer of the process that drives the run
    #[arg(long)]
    queue: bool,
    /// Print the answer as JSON; with --drive, the events, one a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Records a vote or a signal, and prints who drives the run or how to.
pub(crate) async fn cast(
    session: &Session,
    journal: Arc<dyn Journal>,
    run: &str,
    command: Command,
    args: VoteArgs,
) -> Result<Exit, CliError> {
    let submitted = session.asks(run, command);
    let summary = session::summary(journal.as_ref(), run).await?;
    let mut ahead = None;
    if summary.holder.is_none() {
        // No driver is there to refuse it: whoever asks gets to know now, and not when somebody drives the run on.
        let mut machine = self::ahead(journal.as_ref(), run).await?.machine;
        if let Some(reason) = refusal(&mut machine, &submitted)? {
            return Err(ask::not_taken(run, &reason));
        }
        ahead = Some(machine);
    }
    let unheard = match (&submitted.command, &ahead) {
        (Command::Signal { name, .. }, Some(machine)) => unheard(machine, name),
        (Command::Signal { name, .. }, None) => {
            unheard(&session::machine(journal.as_ref(), run).await?, name)
        }
        _ => None,
    };
    if let Some(unheard) = unheard
        && !args.json
    {
        session.ui.say(&unheard);
    }
    let from = summary.events + 1;
    if args.drive {
        let args = AskArgs {
            queue: false,
            json: args.json,
        };
        return ask::submit(session, journal, submitted, from, args).await;
    }
    journal.submit(submitted.clone()).await?;
    if args.queue {
        answer(
            session,
            &submitted,
            summary.holder.as_ref(),
            None,
            ahead,
            args,
        )?;
        return Ok(Exit::Succeeded);
    }
    let Some(mut holder) = summary.holder else {
        answer(session, &submitted, None, None, ahead, args)?;
        return Ok(Exit::Succeeded);
    };
    let deadline = ask::PATIENCE.after(clock::now());
    loop {
        match ask::verdict(journal.as_ref(), &submitted, from).await? {
            Some(Ok(_)) => {
                let machine = session::machine(journal.as_ref(), run).await?;
                answer(
                    session,
                    &submitted,
                    Some(&holder),
                    Some(true),
                    Some(machine),
                    args,
                )?;
                return Ok(Exit::Succeeded);
            }
            Some(Err(reason)) => return Err(ask::refused(run, &reason)),
            None if clock::now() > deadline => break,
            None => tokio::time::sleep(POLL).await,
        }
    }
    // It is busy, or has gone since.
    match session::summary(journal.as_ref(), run).await?.holder {
        Some(now) => {
            holder = now;
            answer(session, &submitted, Some(&holder), Some(false), None, args)?;
        }
        None => answer(session, &submitted, None, None, None, args)?,
    }
    Ok(Exit::Succeeded)
}

/// A run as it will be once what waits in its inbox is taken.
pub(crate) struct Ahead {
    /// By the machine's own decisions; nothing is written.
    pub(crate) machine: Machine,
    /// How many commands wait.
    pub(crate) waiting: usize,
}

pub(crate) async fn ahead(journal: &dyn Journal, run: &str) -> Result<Ahead, CliError> {
    let machine = session::machine(journal, run).await?;
    let waiting = journal.inbox(Some(run)).await?;
    let ahead = machine.after_orders(&waiting);
    Ok(Ahead {
        machine: ahead.map_err(|error| replay(&machine, error))?,
        waiting: waiting.len(),
    })
}

pub(crate) fn replay(machine: &Machine, error: impl std::fmt::Display) -> CliError {
    RunError::Replay {
        run: machine.started().run.id.clone(),
        why: error.to_string(),
    }
    .into()
}

/// Why the machine would refuse a command; where it would not, the command is taken.
fn refusal(machine: &mut Machine, command: &Submitted) -> Result<Option<String>, CliError> {
    // What the question itself says about its end is clearer than what has become of the step after it.
    if let Some(reason) = machine.accepts(command, command.at).err() {
        return Ok(Some(reason));
    }
    machine
        .settle(command.at)
        .map_err(|error| replay(machine, error))?;
    let reason = machine.accepts(command, command.at).err();
    if reason.is_none() {
        *machine = machine
            .after_orders([command])
            .map_err(|error| replay(machine, error))?;
    }
    Ok(reason)
}

/// Says what became of it: `taken` if a driver had its chance to take it.
fn answer(
    session: &Session,
    submitted: &Submitted,
    holder: Option<&Holder>,
    taken: Option<bool>,
    after: Option<Machine>,
    args: VoteArgs,
) -> Result<(), CliError> {
    let run = short(&submitted.run);
    let taken_now = taken == Some(true);
    let next = match holder {
        Some(_) => format!("windlass watch {run}"),
        None => format!("windlass resume {run}"),
    };
    if args.json {
        let text = json!({
            "run": submitted.run,
            "id": submitted.id,
            "command": submitted.command,
            "answer": if taken_now { "accepted" } else { "recorded" },
            "driven_by": holder,
            "next": again::command(&next),
        });
        session.ui.json(&text.to_string());
        return Ok(());
    }
    let word = if taken_now { "accepted" } else { "recorded" };
    let mut text = format!("{word}: {}", ask::word(&submitted.command));
    if let Some(machine) = &after {
        text.push_str(&standing(machine, &submitted.command));
    }
    text.push('\n');
    text.push_str(&match (holder, taken) {
        (Some(holder), Some(true)) => format!(
            "  {} drives the run; `{next}` follows it",
            words::driver(holder)
        ),
        (Some(holder), Some(false)) => format!(
            "  {} drives the run and has not taken it yet; it waits in the run's inbox; `{next}` follows the run",
            words::driver(holder)
        ),
        (Some(holder), None) => format!(
            "  it waits in the run's inbox; {} drives the run and takes it; `{next}` follows the run",
            words::driver(holder)
        ),
        (None, _) => format!(
            "  no process drives the run: it waits in the run's inbox; `{next}` drives the run and takes it"
        ),
    });
    session.ui.say(&text);
    Ok(())
}

/// `: 1 of 2 approvals`, or who waits for a signal.
fn standing(machine: &Machine, command: &Command) -> String {
    match command {
        Command::Vote { node, .. } => {
            let Some(instance) = machine.instance(node) else {
                return String::new();
            };
            match asked(instance) {
                Some(request) => format!("; it has {}", words::votes(instance, request.quorum)),
                None => "; it is decided".to_owned(),
            }
        }
        _ => String::new(),
    }
}

/// Says so if no step waits for a signal: a wrong name would be kept without a word for ever.
fn unheard(machine: &Machine, signal: &str) -> Option<String> {
    let waits: Vec<(&str, &str)> = machine
        .instances()
        .filter_map(|instance| match &words::current(instance).1.wait()?.on {
            WaitOn::Signal(name) => Some((&*instance.path, name.as_str())),
            WaitOn::Approval(_) | WaitOn::Timer(_) => None,
        })
        .collect();
    if waits.iter().any(|(_, name)| *name == signal) {
        return None;
    }
    let others: String = waits
        .iter()
        .map(|(step, name)| format!("; {step} waits for signal {name}"))
        .collect();
    Some(format!(
        "signal {signal}: no step waits for it now; it is kept until a step does{others}"
    ))
}

/// What a step asks people now.
pub(crate) fn asked(instance: &Instance) -> Option<&ApprovalRequest> {
    let (_, execution) = words::current(instance);
    match &execution.wait()?.on {
        WaitOn::Approval(request) if execution.stage() == Stage::AwaitingApproval => {
            Some(request.as_ref())
        }
        WaitOn::Approval(_) | WaitOn::Timer(_) | WaitOn::Signal(_) => None,
    }
}

/// The step that asks, and what it asks.
pub(crate) fn asking<'m>(
    Ahead { machine, waiting }: &'m Ahead,
    step: Option<&str>,
) -> Result<(&'m Instance, &'m ApprovalRequest), CliError> {
    if let Some(step) = step {
        machine
            .named(step)
            .map_err(|why| ask::not_there(machine, why))?;
    }
    let all: Vec<(&Instance, &ApprovalRequest)> = machine
        .instances()
        .filter_map(|instance| Some((instance, asked(instance)?)))
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
        .note(match waiting {
            0 => format!("the run is {}", machine.word()),
            1 => "a command waits in its inbox and is taken first".to_owned(),
            n => format!("{n} commands wait in its inbox and are taken first"),
        })
        .help(format!("`windlass show {run}` shows the run")));
    }
    Err(match step {
        Some(step) => CliError::new(
            Exit::Refused,
            format!("{step:?} does not ask for an approval now"),
        )
        .help(format!("these steps do: {}", names())),
        None => CliError::invalid("several steps ask for an approval")
            .help(format!("name one of: {}", names())),
    })
}
