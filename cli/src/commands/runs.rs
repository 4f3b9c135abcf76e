//! `windlass runs`: the runs of a journal, newest first.
use crate::{
    clock,
    error::{CliError, short},
    exit::Exit,
    session::Session,
    ui::{elapsed, stamp},
};
use serde::Serialize;
use windlass_engine::{
    journal::{Journal, RefusedBy, RefusedStart, RunSummary},
    machine::{CLOSED, Outcome, RunState},
    report::standing::{INTERRUPTED, listed},
};

/// What `runs` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RunsArgs {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    /// Only runs in this state
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// The starts that a window, a lock, a plan, a target or a key refused, instead of runs; the newest 1000 are kept
    #[arg(long, conflicts_with = "state")]
    refused: bool,
}

/// The states of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum State {
    Running,
    Interrupted,
    Waiting,
    Paused,
    Stuck,
    Compensating,
    Succeeded,
    Failed,
    Compensated,
    Stopped,
    Closed,
    Cancelled,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => RunState::Running.as_str(),
            Self::Interrupted => INTERRUPTED,
            Self::Waiting => RunState::Waiting.as_str(),
            Self::Paused => RunState::Paused.as_str(),
            Self::Stuck => RunState::Stuck.as_str(),
            Self::Compensating => RunState::Compensating.as_str(),
            Self::Succeeded => Outcome::Succeeded.as_str(),
            Self::Failed => Outcome::Failed.as_str(),
            Self::Compensated => Outcome::Compensated.as_str(),
            Self::Stopped => Outcome::Stopped.as_str(),
            Self::Closed => CLOSED,
            Self::Cancelled => Outcome::Cancelled.as_str(),
        }
    }
}

pub(crate) async fn run(session: &Session, args: &RunsArgs) -> Result<Exit, CliError> {
    let journal = session.reading()?;
    let limit = args.limit.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(usize::MAX);
    if args.refused {
        let mut refused = journal.refused().await?;
        refused.truncate(limit);
        return list_refused(session, args.json, &refused);
    }
    let mut runs = journal.runs().await?;
    for run in &mut runs {
        run.state = listed(&run.state, run.holder.is_some()).to_owned();
    }
    if let Some(state) = args.state {
        runs.retain(|run| run.state == state.as_str());
    }
    runs.truncate(limit);
    if args.json {
        return json(session, &runs);
    }
    if runs.is_empty() {
        session.ui.say(&none(args, journal.as_ref()).await?);
        return Ok(Exit::Succeeded);
    }
    table(session, &runs);
    Ok(Exit::Succeeded)
}

async fn none(args: &RunsArgs, journal: &dyn Journal) -> Result<String, CliError> {
    if let Some(state) = args.state {
        return Ok(format!("no run is {}", state.as_str()));
    }
    let refused = match journal.refused().await?.len() {
        0 => String::new(),
        n => format!("; {n} starts were refused: `windlass runs --refused`"),
    };
    Ok(format!(
        "no runs{refused}; `windlass run PLAYBOOK` starts one"
    ))
}

fn json(session: &Session, what: &impl Serialize) -> Result<Exit, CliError> {
    let json = serde_json::to_string_pretty(what)
        .map_err(|error| CliError::new(Exit::Broken, format!("cannot write the runs: {error}")))?;
    session.ui.json(&json);
    Ok(Exit::Succeeded)
}

fn table(session: &Session, runs: &[RunSummary]) {
    let style = session.ui.out;
    let now = clock::now();
    let width = |of: &dyn Fn(&RunSummary) -> usize| runs.iter().map(of).max().unwrap_or(0);
    let playbook = width(&|run| run.playbook.chars().count()).max(8);
    let environment = width(&|run| run.environment.chars().count()).max(3);
    let by = width(&|run| run.starter().chars().count()).max(2);
    session.ui.line(
        &style.bold(
            format!(
                "{:<8}  {:<playbook$}  {:<environment$}  {:<12}  {:<20}  {:>7}  {:<by$}  {}",
                "RUN", "PLAYBOOK", "ENV", "STATE", "STARTED", "TOOK", "BY", "DRIVEN BY"
            )
            .trim_end(),
        ),
    );
    for run in runs {
        let end = if run.holder.is_some() && !run.is_over() {
            now
        } else {
            run.updated_at
        };
        let word = run.state.as_str();
        let holder = run
            .holder
            .as_ref()
            .map(|holder| {
                format!(
                    "{} on {}, process {}",
                    holder.who(),
                    holder.host,
                    holder.pid
                )
            })
            .unwrap_or_default();
        session.ui.line(
            format!(
                "{:<8}  {:<playbook$}  {:<environment$}  {}{}  {:<20}  {:>7}  {:<by$}  {holder}",
                short(&run.id),
                run.playbook,
                run.environment,
                style.run(word),
                " ".repeat(12_usize.saturating_sub(word.len())),
                stamp(run.started_at),
                elapsed(run.started_at, end),
                run.starter(),
            )
            .trim_end(),
        );
    }
}

/// With what the process of a refused start ended.
fn exit_of(refused_by: RefusedBy) -> Exit {
    match refused_by {
        RefusedBy::Unreachable => Exit::Unreachable,
        RefusedBy::Window
        | RefusedBy::Lock
        | RefusedBy::Target
        | RefusedBy::Plan
        | RefusedBy::Key => Exit::Refused,
    }
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    start: &'a RefusedStart,
    exit: u8,
}

fn list_refused(
    session: &Session,
    as_json: bool,
    refused: &[RefusedStart],
) -> Result<Exit, CliError> {
    let row = |start| Row {
        start,
        exit: exit_of(start.refused_by).code(),
    };
    if as_json {
        return json(session, &refused.iter().map(row).collect::<Vec<_>>());
    }
    if refused.is_empty() {
        session.ui.say("no start was refused");
        return Ok(Exit::Succeeded);
    }
    let width = |of: &dyn Fn(&RefusedStart) -> usize| refused.iter().map(of).max().unwrap_or(0);
    let playbook = width(&|start| start.playbook.chars().count()).max(8);
    let environment = width(&|start| start.environment.chars().count()).max(3);
    let by = width(&|start| start.starter().chars().count()).max(2);
    let line = |row: [&str; 6]| {
        let [at, name, place, who, what, why] = row;
        let line = format!(
            "{at:<20}  {name:<playbook$}  {place:<environment$}  {who:<by$}  {what:<11}  {why}"
        );
        line.trim_end().to_owned()
    };
    let style = session.ui.out;
    let heading = line(["REFUSED", "PLAYBOOK", "ENV", "BY", "REFUSED BY", "WHY"]);
    session.ui.line(&style.bold(&heading));
    for start in refused {
        let why = crate::ui::one_line(&start.why);
        session.ui.line(&line([
            &stamp(start.at),
            &start.playbook,
            &start.environment,
            &start.starter(),
            start.refused_by.as_str(),
            &why,
        ]));
    }
    Ok(Exit::Succeeded)
}
