//! `windlass show`: the page for 3 a.m.
use crate::{
    activity::{self, Now},
    clock,
    error::CliError,
    exit::Exit,
    output,
    session::{self, Session},
    ui::{inbox::Inbox, page, undone, without_password, words},
};
use serde_json::{Value as Json, json};
use windlass_engine::{
    journal::RunSummary,
    machine::{Instance, Machine, Role, Stage},
    policy::windows::next_opening,
    report::{FigureReport, figures, output::LastLines, progress},
    step::{Phase, Registry},
    value::Timestamp,
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
    let events = journal.load(&run, 1).await?;
    let machine = session::recover(&run, &events)?;
    let inbox = Inbox::new(journal.inbox(Some(&run)).await?, &events);
    drop(events);
    let summary = session::summary(journal.as_ref(), &run).await?;
    let now = activity::of(session, &machine).await;
    let output = output::of_run(journal.as_ref(), &machine).await?;
    if args.json {
        let page = as_json(session, &machine, &summary, &inbox, (&now, &output));
        let text = serde_json::to_string_pretty(&page).map_err(|error| {
            CliError::new(Exit::Broken, format!("cannot write the run: {error}"))
        })?;
        session.ui.json(&text);
    } else {
        let page = page::render(
            &session.ui,
            session.registry(),
            &machine,
            &summary,
            (&now, &output),
            &inbox,
            clock::now(),
        );
        session.ui.print(&page);
    }
    Ok(Exit::Succeeded)
}

fn as_json(
    session: &Session,
    machine: &Machine,
    summary: &RunSummary,
    inbox: &Inbox,
    (now, output): (&Now, &LastLines),
) -> Json {
    let standing = words::standing(machine, summary.holder.is_some());
    let since = summary.holder.as_ref().map(|holder| holder.since);
    let started = machine.started();
    let holder = summary.holder.as_ref();
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
        "key": summary.key,
        "state": standing.word,
        "state_means": standing.means,
        "digest": started.digest,
        "engine": started.engine,
        "inputs": machine.inputs().to_plain_json(),
        "targets": targets,
        "driven_by": holder,
        "events": summary.events,
        "last_event_at": machine.last_at(),
        "windows": machine.graph().policy.windows,
        "window_opens": next_opening(&machine.graph().policy.windows, clock::now()).filter(|opens| *opens > clock::now()),
        "ending": machine.ending(),
        "paused": machine.paused(),
        "on_the_servers": now.seen.iter().map(|(target, activity)| json!({ "target": target, "activity": activity })).collect::<Vec<_>>(),
        "not_asked": now.unknown,
        "outputs": machine.outputs().to_plain_json(),
        "finally_failed": machine.finished().map(|finished| &finished.finally_failed),
        "steps": machine.instances().map(|instance| step(session.registry(), machine, instance, since, output)).collect::<Vec<_>>(),
        "inbox": inbox.waiting_json(&started.run.id, holder),
        "refused": inbox.refused_json(),
        "next": page::all_next(machine, holder, inbox, session.ui.claimed.as_deref())
            .into_iter()
            .map(|next| json!({ "command": next.command, "what": next.what }))
            .collect::<Vec<_>>(),
    })
}

fn step(
    registry: &Registry,
    machine: &Machine,
    instance: &Instance,
    since: Option<Timestamp>,
    output: &LastLines,
) -> Json {
    let figures: Vec<FigureReport> = figures::of_instance(machine, registry, instance)
        .iter()
        .map(FigureReport::from)
        .collect();
    let progress = (instance.role == Role::Foreach).then(|| {
        let progress = progress::of(machine, instance, since, clock::now());
        json!({
            "done": progress.done,
            "failed": progress.failed,
            "of": progress.of,
            "is_undo": progress.is_undo,
            "per_second": progress.rate,
            "left_ms": progress.left.map(|left| left.as_millis()),
        })
    });
    let (phase, current) = words::current(instance);
    let (last_lines, _) = output.of(&instance.path, phase, current.attempt, 20);
    json!({
        "figures": figures,
        "progress": progress,
        "last_lines": last_lines,
        "not_undone": undone::why_not(machine, instance),
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
        "forward": execution(machine, instance, Phase::Do),
        "undoing": execution(machine, instance, Phase::Undo),
    })
}

fn execution(machine: &Machine, instance: &Instance, phase: Phase) -> Json {
    let execution = instance.execution(phase);
    let not_retried = execution
        .failure
        .as_ref()
        .filter(|_| execution.stage() == Stage::Failed)
        .and_then(|failure| words::not_retried(machine, &instance.path, phase, failure));
    if execution.attempt == 0 && execution.failure.is_none() {
        return Json::Null;
    }
    json!({
        "stage": execution.stage(),
        "attempts": execution.attempt,
        "started_at": execution.started_at,
        "deadline": execution.deadline,
        "input": execution.input.to_plain_json(),
        "wait": execution.wait(),
        "not_before": execution.not_before(),
        "outside_window": execution.window_opens().is_some(),
        "doubt": execution.doubt(),
        "failure": execution.failure,
        "not_retried": not_retried,
    })
}
