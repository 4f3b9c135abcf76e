//! `windlass resume`: goes on with a run from where it stands.
use crate::{
    clock, drive,
    error::{CliError, short},
    exit::Exit,
    output,
    reporter::{Reporter, json_line},
    session::{self, Session},
    ui::summary,
};
use windlass_engine::{
    journal::Journal,
    run::{DriveOptions, Ended, RunError},
    step::Cause,
};

/// What `resume` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// End with code 4 as soon as the run only waits, instead of waiting with it
    #[arg(long)]
    no_wait: bool,
    /// Go on although a target is another server than when the run started; the steps that use it fail
    #[arg(long)]
    even_if_changed: bool,
    /// Print the events as JSON, one per line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &ResumeArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let options = DriveOptions {
        leave_when_waiting: args.no_wait,
        even_if_changed: args.even_if_changed,
        ..DriveOptions::default()
    };
    let handle = match drive::driver(session, &journal)?
        .resume(&run, options)
        .await
    {
        Ok(handle) => handle,
        Err(RunError::Over { .. }) => {
            return over(session, journal.as_ref(), &run, args.json).await;
        }
        Err(error) => return Err(resumed(error, &run)),
    };
    let mut reporter = Reporter::new(session, &run, args.json);
    drive::follow(session, &journal, handle, &mut reporter).await
}

/// A run that is over reports how it ended, as often as it is asked: a supervisor may repeat the call.
async fn over(
    session: &Session,
    journal: &dyn Journal,
    run: &str,
    json: bool,
) -> Result<Exit, CliError> {
    let events = journal.load(run, 1).await?;
    let machine = session::recover(run, &events)?;
    let Some(finished) = machine.finished() else {
        return Ok(Exit::Broken);
    };
    if json {
        if let Some(last) = events.last() {
            let seq = u64::try_from(events.len()).unwrap_or(u64::MAX);
            session.ui.json(&json_line(run, seq, last)?);
        }
    } else {
        let output = output::of_run(journal, &machine).await?;
        session.ui.print(&summary::render(
            &machine,
            None,
            &output,
            clock::now(),
            &session.ui,
        ));
    }
    Ok(drive::exit_of(
        &Ended::Finished(finished.outcome),
        machine.closed().is_some(),
    ))
}

/// What keeps a run from being resumed: it stays open, and what may be done about it.
pub(crate) fn resumed(error: RunError, run: &str) -> CliError {
    let is_changed = matches!(
        &error,
        RunError::Target {
            cause: Cause::Refused,
            ..
        }
    );
    let error = CliError::from(error);
    if is_changed {
        let run = short(run);
        error
            .note("the run is as it was")
            .help(format!(
                "if that server is gone for good: `windlass resume {run} --even-if-changed` continues the run, and the steps that use it fail"
            ))
            .help(format!("`windlass cancel {run} --leave` ends the run as it is"))
    } else {
        error
    }
}
