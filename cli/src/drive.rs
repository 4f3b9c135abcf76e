//! Driving a run in the foreground: events to the reporter, Ctrl-C to the driver, an exit code at the end.
use crate::{
    clock,
    error::{CliError, short},
    exit::Exit,
    output,
    reporter::Reporter,
    session::{self, Session},
    ui::summary,
};
use std::{sync::Arc, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};
use windlass_engine::{
    journal::Journal,
    machine::{Machine, Outcome},
    run::{Driver, Ended, RunHandle},
};

/// How often the live tree is redrawn.
const FRAME: Duration = Duration::from_millis(100);

/// With what the process ends. `is_closed`: a person has closed the run, so its exit code asks for none.
pub(crate) fn exit_of(ended: &Ended, is_closed: bool) -> Exit {
    match ended {
        Ended::Finished(Outcome::Stopped) if is_closed => Exit::Failed,
        Ended::Finished(Outcome::Succeeded) => Exit::Succeeded,
        Ended::Finished(Outcome::Failed | Outcome::Compensated | Outcome::Cancelled) => {
            Exit::Failed
        }
        Ended::Finished(Outcome::Stopped) | Ended::Stuck | Ended::Paused => Exit::Person,
        Ended::Waiting => Exit::Waiting,
        Ended::Interrupted => Exit::Interrupted,
    }
}

fn listen(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind)
        .map_err(|error| CliError::new(Exit::Broken, format!("cannot listen for signals: {error}")))
}

/// A driver of this process.
pub(crate) fn driver(session: &Session, journal: &Arc<dyn Journal>) -> Result<Driver, CliError> {
    Ok(Driver::with_secrets(
        journal.clone(),
        session.registry().clone(),
        session.holder(),
        session.secrets()?.clone(),
    ))
}

/// Follows a run that this process drives until it gives it back, and sums it up.
pub(crate) async fn follow(
    session: &Session,
    journal: &Arc<dyn Journal>,
    mut handle: RunHandle,
    reporter: &mut Reporter<'_>,
) -> Result<Exit, CliError> {
    let mut interrupts = listen(SignalKind::interrupt())?;
    let mut terminations = listen(SignalKind::terminate())?;
    // A terminal that is closed, a lost connection.
    let mut hangups = listen(SignalKind::hangup())?;
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut stops = 0_u32;
    let mut broken = None;
    loop {
        tokio::select! {
            event = handle.events.recv() => match event {
                None => break,
                Some((seq, event)) => {
                    if broken.is_none()
                        && let Err(error) = reporter.take(journal.as_ref(), seq, &event).await
                    {
                        // The run goes on: only this process cannot tell it any more.
                        broken = Some(error);
                        handle.stop();
                    }
                }
            },
            _ = frames.tick(), if reporter.wants_frames() => {
                // A journal that cannot be read now fails the run by itself.
                drop(reporter.frame(journal.as_ref()).await);
            }
            _ = interrupts.recv() => {
                stops += 1;
                match stops {
                    1 => {
                        handle.stop();
                        reporter.note(&stopping(reporter, &handle.id));
                    }
                    2 => {
                        handle.end();
                        reporter.note(&ending(reporter, &handle.id));
                    }
                    _ => leave(reporter, &handle.id),
                }
            }
            _ = terminations.recv() => {
                if stops == 0 {
                    reporter.note(&stopping(reporter, &handle.id));
                }
                stops = stops.max(1);
                handle.stop();
            }
            _ = hangups.recv() => {
                stops = stops.max(1);
                handle.stop();
            }
        }
    }
    let ended = handle.ended().await;
    match (ended, broken) {
        (Err(error), _) => {
            reporter.let_go();
            Err(CliError::from(error.as_ref()))
        }
        (Ok(_), Some(error)) => {
            reporter.clear();
            Err(error)
        }
        (Ok(ended), None) => {
            reporter.let_go();
            sum_up(session, journal.as_ref(), reporter, &ended).await?;
            let closed = reporter.machine().and_then(Machine::closed);
            Ok(exit_of(&ended, closed.is_some()))
        }
    }
}

/// The steps that run, forward or undo.
fn running(reporter: &Reporter<'_>) -> Vec<String> {
    use windlass_engine::machine::{Role, Stage};
    reporter.machine().map_or_else(Vec::new, |machine| {
        machine
            .instances()
            .filter(|instance| {
                instance.role == Role::Step
                    && crate::ui::words::current(instance).1.stage() == Stage::Running
            })
            .map(|instance| instance.path.to_string())
            .collect()
    })
}

fn resume_command(run: &str) -> String {
    crate::ui::again::command(&format!("windlass resume {}", short(run)))
}

/// After the first Ctrl-C.
fn stopping(reporter: &Reporter<'_>, run: &str) -> String {
    let running = running(reporter);
    let what = if running.is_empty() {
        "nothing is running".to_owned()
    } else {
        format!("letting {} finish", running.join(", "))
    };
    format!(
        "starting nothing new; {what}; continue with: {}; Ctrl-C again ends what runs",
        resume_command(run)
    )
}

/// After the second.
fn ending(reporter: &Reporter<'_>, run: &str) -> String {
    let running = running(reporter);
    let what = if running.is_empty() {
        "nothing is running".to_owned()
    } else {
        format!("ending {}", running.join(", "))
    };
    format!(
        "{what}; the run keeps its place, and {} continues it; Ctrl-C again leaves at once",
        resume_command(run)
    )
}

/// After the third: as if the process had been killed.
fn leave(reporter: &mut Reporter<'_>, run: &str) -> ! {
    let running = running(reporter);
    let what = if running.is_empty() {
        "nothing was running".to_owned()
    } else {
        format!("{} may still run", running.join(", "))
    };
    reporter.note(&format!(
        "leaving at once: {what}; {} asks what became of it, and continues",
        resume_command(run)
    ));
    reporter.let_go();
    std::process::exit(i32::from(Exit::Interrupted.code()))
}

async fn sum_up(
    session: &Session,
    journal: &dyn Journal,
    reporter: &Reporter<'_>,
    ended: &Ended,
) -> Result<(), CliError> {
    if reporter.is_json() {
        return Ok(());
    }
    let Some(machine) = reporter.machine() else {
        return Ok(());
    };
    let holder = session::summary(journal, &machine.started().run.id)
        .await?
        .holder
        .filter(|holder| holder.pid != std::process::id());
    let ui = &session.ui;
    if ui.quiet && *ended == Ended::Finished(Outcome::Succeeded) {
        return Ok(());
    }
    if *ended == Ended::Interrupted {
        let left = running(reporter);
        let what = if left.is_empty() {
            "nothing of it runs any more, and it keeps its place".to_owned()
        } else {
            format!(
                "{} may still run on a server, such as a COMMIT that was under way; the run keeps its place, and the process that \
                 continues it asks what became of it",
                left.join(", ")
            )
        };
        ui.line(&ui.out.yellow(&format!("interrupted: {what}")));
    }
    let output = output::of_run(journal, machine).await?;
    ui.print(&summary::render(
        machine,
        holder.as_ref(),
        &output,
        clock::now(),
        ui,
    ));
    Ok(())
}
