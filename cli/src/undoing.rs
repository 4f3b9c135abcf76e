//! What an undo would do, as the machine itself decides it: on a copy, in which every step answers at once that it is
//! done. Nothing is written, and no target is touched.
use crate::{
    clock,
    error::CliError,
    session::Session,
    ui::words::{current, is_impossible, remains},
    vote,
};
use windlass_engine::{
    journal::RunSummary,
    machine::{Command, EventBody, Machine, Report, RunState, Stage, Wanted, Work},
    step::{Phase, Probed},
    value::Value,
};

/// One step of the undo.
pub(crate) struct Undone {
    /// The step that is undone.
    pub(crate) path: String,
    /// The kind that undoes it.
    pub(crate) kind: String,
    /// The targets that it names.
    pub(crate) targets: Vec<String>,
    /// Why its undo cannot even start.
    pub(crate) fails: Option<String>,
}

/// What an undo would do.
pub(crate) struct Undoing {
    /// In this order.
    pub(crate) steps: Vec<Undone>,
    /// What is left, and why.
    pub(crate) stays: Vec<(String, &'static str)>,
    /// What runs now and is let finish first.
    pub(crate) running: Vec<String>,
    /// What has to be settled before the undo can end.
    pub(crate) doubts: Vec<String>,
    /// Steps of `finally` that run at the end.
    pub(crate) finally: Vec<String>,
    /// The run, as the undo would leave it.
    pub(crate) machine: Machine,
}

/// More turns than any run has steps and retries: a machine that does not come to an end is not waited for.
const MOST_TURNS: usize = 1_000_000;

/// Rehearses `windlass undo`; the error is the machine's own refusal.
pub(crate) fn rehearse(
    session: &Session,
    mut machine: Machine,
    summary: &RunSummary,
) -> Result<Result<Undoing, String>, CliError> {
    let mut now = clock::now().max(machine.last_at());
    let replay = |machine: &Machine, error: windlass_engine::machine::IllegalEvent| {
        vote::replay(machine, error)
    };
    if summary.holder.is_none() && machine.finished().is_none() {
        // What was in flight is lost to a new driver, and decided by what it left behind.
        machine = machine
            .taken_over()
            .map_err(|error| replay(&machine, error))?;
    }
    let command = session.asks(&machine.started().run.id.clone(), Command::Undo);
    if let Err(reason) = machine.accepts(&command, now) {
        return Ok(Err(reason));
    }
    for event in machine.command(&command, now) {
        machine
            .apply(&event)
            .map_err(|error| replay(&machine, error))?;
    }
    let mut steps = Vec::new();
    let (mut running, mut finally) = (Vec::new(), Vec::new());
    for wanted in machine.wanted() {
        if wanted.phase == Phase::Do && wanted.work == Work::Execute {
            running.push(machine.get(wanted.instance).path.to_string());
        }
    }
    for _ in 0..MOST_TURNS {
        let events = machine
            .settle(now)
            .map_err(|error| replay(&machine, error))?;
        for event in &events {
            note(&machine, &event.body, &mut steps, &mut finally);
        }
        if matches!(machine.state(), RunState::Finished(_)) {
            break;
        }
        let Some(wanted) = machine.wanted().next() else {
            match machine.next_timer().filter(|at| *at > now) {
                Some(at) => now = at,
                None => break,
            }
            continue;
        };
        let answer = machine.report(&wanted, done(&wanted), now);
        if answer.is_empty() {
            break;
        }
        for event in answer {
            machine
                .apply(&event)
                .map_err(|error| replay(&machine, error))?;
        }
    }
    let doubts = machine
        .instances()
        .filter(|instance| current(instance).1.stage() == Stage::InDoubt)
        .map(|instance| instance.path.to_string())
        .collect();
    let stays = machine
        .instances()
        .filter(|instance| remains(&machine, instance))
        .map(|instance| {
            let why = if is_impossible(&machine, instance) {
                "cannot be undone"
            } else if instance.undo.stage() == Stage::Failed {
                "its undo fails"
            } else {
                "is needed by a step that cannot be undone"
            };
            (instance.path.to_string(), why)
        })
        .collect();
    Ok(Ok(Undoing {
        steps,
        stays,
        running,
        doubts,
        finally,
        machine,
    }))
}

/// What a step answers that does what it should. What a probe would find is not known.
fn done(wanted: &Wanted) -> Report {
    match wanted.work {
        Work::Execute => Report::Done {
            output: Value::Null,
            evidence: Vec::new(),
        },
        Work::Probe => Report::Probed(Probed::InDoubt("it was not asked".to_owned())),
    }
}

fn note(machine: &Machine, body: &EventBody, steps: &mut Vec<Undone>, finally: &mut Vec<String>) {
    match body {
        EventBody::Started(started) if started.phase == Phase::Undo => {
            let action = machine
                .id_of(&started.node)
                .and_then(|id| machine.action(id, Phase::Undo));
            let targets = action.map_or_else(Vec::new, |action| {
                action
                    .targets
                    .iter()
                    .filter_map(|path| named(&started.input, path))
                    .collect()
            });
            steps.push(Undone {
                path: started.node.to_string(),
                kind: action.map_or_else(String::new, |action| action.kind.clone()),
                targets,
                fails: None,
            });
        }
        EventBody::Failed(failed) if failed.phase == Phase::Undo => steps.push(Undone {
            path: failed.node.to_string(),
            kind: String::new(),
            targets: Vec::new(),
            fails: Some(failed.failure.message.clone()),
        }),
        EventBody::Started(started) => {
            let is_finally = machine
                .instance(&started.node)
                .and_then(|instance| instance.def)
                .is_some_and(|def| machine.graph().root.finally.contains(&def));
            if is_finally {
                finally.push(started.node.to_string());
            }
        }
        _ => {}
    }
}

/// The target that stands at a path of parameters.
fn named(input: &Value, path: &[String]) -> Option<String> {
    let found = path.iter().try_fold(input, |value, key| match value {
        Value::List(items) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
        map => map.get(key),
    });
    found?.as_str().map(str::to_owned)
}
