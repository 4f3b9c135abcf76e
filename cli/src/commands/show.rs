//! `windlass show`: the page for 3 a.m.
use crate::{
    activity::{self, Now},
    clock,
    error::CliError,
    exit::Exit,
    session::{self, Session},
    ui::{next, page, without_password, words},
};
use serde_json::{Value as Json, json};
use windlass_engine::{
    journal::RunSummary,
    machine::{Execution, Instance, Machine},
};

/// What `show` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The run: its id, the beginning or end of it, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &ShowArgs) -> Result<Exit, CliError> {
    let journal = session.reading()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let machine = session::machine(journal.as_ref(), &run).await?;
    let summary = session::summary(journal.as_ref(), &run).await?;
    let now = activity::of(session, &machine).await;
    if args.json {
        let page = as_json(&machine, &summary, &now);
        let text = serde_json::to_string_pretty(&page).map_err(|error| {
            CliError::new(Exit::Broken, format!("cannot write the run: {error}"))
        })?;
        session.ui.line(&text);
    } else {
        let page = page::render(
            &session.ui,
            &machine,
            summary.holder.as_ref(),
            &now,
            clock::now(),
        );
        session.ui.print(&page);
    }
    Ok(Exit::Succeeded)
}

fn as_json(machine: &Machine, summary: &RunSummary, now: &Now) -> Json {
    let started = machine.started();
    let targets: serde_json::Map<String, Json> = started
        .targets
        .iter()
        .map(|(name, target)| {
            let value = json!({
                "kind": target.kind,
                "url": without_password(&target.url.to_string()),
                "identity": target.identity,
            });
            (name.clone(), value)
        })
        .collect();
    json!({
        "run": started.run,
        "state": machine.state().as_str(),
        "digest": started.digest,
        "engine": started.engine,
        "inputs": machine.inputs().to_plain_json(),
        "targets": targets,
        "driven_by": summary.holder,
        "events": summary.events,
        "last_event_at": machine.last_at(),
        "ending": machine.ending(),
        "paused": machine.paused(),
        "on_the_servers": now.seen.iter().map(|(target, activity)| json!({ "target": target, "activity": activity })).collect::<Vec<_>>(),
        "not_asked": now.unknown,
        "outputs": machine.outputs().to_plain_json(),
        "finally_failed": machine.finished().map(|finished| &finished.finally_failed),
        "steps": machine.instances().map(|instance| step(machine, instance)).collect::<Vec<_>>(),
        "next": next::all(machine, summary.holder.as_ref())
            .into_iter()
            .map(|next| json!({ "command": next.command, "what": next.what }))
            .collect::<Vec<_>>(),
    })
}

fn step(machine: &Machine, instance: &Instance) -> Json {
    json!({
        "path": instance.path,
        "kind": words::kind_of(machine, instance),
        "state": instance.state.as_str(),
        "place": words::place_of(machine, instance),
        "started_at": instance.started_at,
        "finished_at": instance.finished_at,
        "skipped": instance.skipped,
        "took_effect": instance.took_effect,
        "undo": words::undo_of(machine, instance),
        "output": instance.output.to_plain_json(),
        "votes": instance.votes,
        "forward": execution(&instance.forward),
        "undoing": execution(&instance.undo),
    })
}

fn execution(execution: &Execution) -> Json {
    if execution.attempt == 0 && execution.failure.is_none() {
        return Json::Null;
    }
    json!({
        "stage": execution.stage,
        "attempts": execution.attempt,
        "started_at": execution.started_at,
        "deadline": execution.deadline,
        "input": execution.input.to_plain_json(),
        "wait": execution.wait,
        "not_before": execution.not_before,
        "doubt": execution.doubt,
        "failure": execution.failure,
    })
}
