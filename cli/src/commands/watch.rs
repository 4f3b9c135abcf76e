//! `windlass watch`: follows a run that another process drives, from the journal.
use crate::{
    clock, drive,
    error::CliError,
    exit::Exit,
    output,
    reporter::Reporter,
    session::{self, Session},
    ui::summary,
};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use windlass_engine::{
    journal::Journal,
    machine::{Machine, RunState},
    run::Ended,
};

/// How often the journal is asked for news.
const POLL: Duration = Duration::from_millis(100);
/// How many looks may find no process that drives the run before that is believed: between two drivers there is a gap.
pub(crate) const ALONE: u32 = 10;

/// What `watch` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    /// The run: its id, the beginning or end of it, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// Print the events as JSON, one per line, from the first
    #[arg(long)]
    json: bool,
}

/// Why a run is no longer followed.
pub(crate) enum Watched {
    /// It is over.
    Over,
    /// It only waits, and that was asked for.
    Waiting,
    /// It is not over, and no process drives it.
    Alone,
    /// Ctrl-C.
    Interrupted,
}

pub(crate) async fn run(session: &Session, args: &WatchArgs) -> Result<Exit, CliError> {
    let journal = session.reading()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let mut reporter = Reporter::new(session, &run, args.json);
    match follow(session, journal.as_ref(), &run, &mut reporter, false).await? {
        Watched::Interrupted => Ok(Exit::Interrupted),
        Watched::Over | Watched::Waiting | Watched::Alone => {
            sum_up(session, journal.as_ref(), &reporter, args.json).await
        }
    }
}

/// Follows a run from the journal, from where the reporter is.
pub(crate) async fn follow(
    session: &Session,
    journal: &dyn Journal,
    run: &str,
    reporter: &mut Reporter<'_>,
    leave_when_waiting: bool,
) -> Result<Watched, CliError> {
    let wrong = |error: std::io::Error| {
        CliError::new(Exit::Broken, format!("cannot listen for signals: {error}"))
    };
    let mut interrupts = signal(SignalKind::interrupt()).map_err(wrong)?;
    let mut ticks = tokio::time::interval(POLL);
    let mut seen = reporter.machine().map_or(0, Machine::seq);
    let (mut version, mut alone) = (None, 0_u32);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = interrupts.recv() => {
                reporter.settle();
                session.ui.say("the run continues without being watched");
                return Ok(Watched::Interrupted);
            }
        }
        let now = journal.version().await?;
        if version != Some(now) {
            version = Some(now);
            seen = news(journal, run, seen, reporter).await?;
        }
        reporter.frame(journal).await?;
        let Some(machine) = reporter.machine() else {
            continue;
        };
        match machine.state() {
            RunState::Finished(_) => return Ok(Watched::Over),
            RunState::Waiting if leave_when_waiting => return Ok(Watched::Waiting),
            RunState::Running
            | RunState::Waiting
            | RunState::Paused
            | RunState::Compensating
            | RunState::Stuck => {}
        }
        if session::summary(journal, run).await?.holder.is_some() {
            alone = 0;
        } else {
            alone += 1;
        }
        if alone >= ALONE {
            return Ok(Watched::Alone);
        }
    }
}

/// What came of a run that was followed, with the exit code that its driver has.
pub(crate) async fn sum_up(
    session: &Session,
    journal: &dyn Journal,
    reporter: &Reporter<'_>,
    json: bool,
) -> Result<Exit, CliError> {
    let Some(machine) = reporter.machine() else {
        return Ok(Exit::Succeeded);
    };
    if !json {
        let output = output::of_run(journal, machine).await?;
        session.ui.print(&summary::render(
            machine,
            None,
            &output,
            clock::now(),
            &session.ui,
        ));
    }
    Ok(exit(machine))
}

async fn news(
    journal: &dyn Journal,
    run: &str,
    seen: u64,
    reporter: &mut Reporter<'_>,
) -> Result<u64, CliError> {
    let mut seen = seen;
    for event in journal.load(run, seen + 1).await? {
        seen += 1;
        reporter.take(journal, seen, &event).await?;
    }
    Ok(seen)
}

/// As if this process had driven it.
fn exit(machine: &Machine) -> Exit {
    let ended = match machine.state() {
        RunState::Finished(outcome) => Ended::Finished(outcome),
        RunState::Stuck => Ended::Stuck,
        RunState::Paused => Ended::Paused,
        RunState::Waiting => Ended::Waiting,
        // Left in the middle: whoever drove it is gone, and it can be resumed.
        RunState::Running | RunState::Compensating => return Exit::Broken,
    };
    drive::exit_of(&ended, machine.closed().is_some())
}
