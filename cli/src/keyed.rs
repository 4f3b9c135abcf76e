//! `windlass run --key`: the start that is asked for again. A scheduler that repeats its command wants the outcome of the one run,
//! whoever drives it, and drives it if no process does.
use crate::{
    clock,
    commands::{
        resume::resumed,
        watch::{self, Watched},
    },
    drive,
    error::{CliError, short},
    exit::Exit,
    output,
    reporter::Reporter,
    session::{self, Session},
    ui::summary,
};
use std::sync::Arc;
use windlass_engine::{
    journal::{Journal, JournalError},
    run::{DriveOptions, Ended, RunError},
};

/// What may be a key: it is shown in lists, and no reader should have to guess how it is spelled.
pub(crate) fn parse(key: &str) -> Result<String, String> {
    let fits = !key.is_empty()
        && key.chars().count() <= 200
        && !key.chars().any(|c| c.is_whitespace() || c.is_control());
    if fits {
        Ok(key.to_owned())
    } else {
        Err("a key has 1 to 200 characters and no blanks, such as nightly-2027-01-15".to_owned())
    }
}

/// The outcome of a run that a key started before.
pub(crate) async fn outcome(
    session: &Session,
    journal: &Arc<dyn Journal>,
    run: &str,
    options: DriveOptions,
    json: bool,
) -> Result<Exit, CliError> {
    let mut reporter = Reporter::new(session, run, json);
    let driver = drive::driver(session, journal)?;
    session.ui.say(&format!(
        "this key has started run {}; nothing is started again",
        short(run)
    ));
    let mut told = false;
    loop {
        let machine = session::machine(journal.as_ref(), run).await?;
        if let Some(finished) = machine.finished()
            && !json
        {
            let outcome = finished.outcome;
            let output = output::of_run(journal.as_ref(), &machine).await?;
            let page = summary::render(&machine, None, &output, clock::now(), &session.ui);
            session.ui.print(&page);
            let is_closed = machine.closed().is_some();
            return Ok(drive::exit_of(&Ended::Finished(outcome), is_closed));
        }
        if machine.finished().is_none() {
            match driver.resume(run, options).await {
                Ok(handle) => return drive::follow(session, journal, handle, &mut reporter).await,
                // It ended just now.
                Err(RunError::Over { .. }) => {}
                Err(RunError::Journal(JournalError::LeaseHeld { holder, .. })) => {
                    if !told {
                        session.ui.say(&format!(
                            "it is driven by {} on {}, process {}; this process waits for its end",
                            holder.who(),
                            holder.host,
                            holder.pid
                        ));
                        told = true;
                    }
                }
                Err(error) => return Err(resumed(error, run)),
            }
        }
        let leave = options.leave_when_waiting;
        match watch::follow(session, journal.as_ref(), run, &mut reporter, leave).await? {
            // Whoever drove it is gone, and it is not over: this process drives it on.
            Watched::Alone => {}
            Watched::Interrupted => return Ok(Exit::Interrupted),
            Watched::Over | Watched::Waiting => {
                return watch::sum_up(session, journal.as_ref(), &reporter, json).await;
            }
        }
    }
}
