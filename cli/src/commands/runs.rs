//! `windlass runs`: the runs of a journal, newest first.
use crate::{
    clock,
    error::{CliError, short},
    exit::Exit,
    session::Session,
    ui::{elapsed, stamp},
};

/// What `runs` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RunsArgs {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    /// Only runs in this state, such as waiting, stuck or succeeded
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

pub(crate) async fn run(session: &Session, args: &RunsArgs) -> Result<Exit, CliError> {
    let mut runs = match session.journal_if_any()? {
        Some(journal) => journal.runs().await?,
        None => Vec::new(),
    };
    if let Some(state) = &args.state {
        runs.retain(|run| run.state == *state);
    }
    runs.truncate(args.limit.unwrap_or(usize::MAX));
    if args.json {
        let json = serde_json::to_string_pretty(&runs).map_err(|error| {
            CliError::new(Exit::Broken, format!("cannot write the runs: {error}"))
        })?;
        session.ui.line(&json);
        return Ok(Exit::Succeeded);
    }
    if runs.is_empty() {
        session
            .ui
            .say("no runs; `windlass run PLAYBOOK` starts one");
        return Ok(Exit::Succeeded);
    }
    let style = session.ui.out;
    let now = clock::now();
    let width = |of: &dyn Fn(&windlass_engine::journal::RunSummary) -> usize| {
        runs.iter().map(of).max().unwrap_or(0)
    };
    let playbook = width(&|run| run.playbook.chars().count()).max(8);
    let environment = width(&|run| run.environment.chars().count()).max(3);
    let by = width(&|run| run.by.chars().count()).max(2);
    session.ui.line(
        &style.bold(
            format!(
                "{:<8}  {:<playbook$}  {:<environment$}  {:<12}  {:<20}  {:>7}  {:<by$}  {}",
                "RUN", "PLAYBOOK", "ENV", "STATE", "STARTED", "TOOK", "BY", "DRIVEN BY"
            )
            .trim_end(),
        ),
    );
    for run in &runs {
        let end = if run.holder.is_some() {
            now
        } else {
            run.updated_at
        };
        let holder = run
            .holder
            .as_ref()
            .map(|holder| format!("{} on {}, process {}", holder.user, holder.host, holder.pid))
            .unwrap_or_default();
        session.ui.line(
            format!(
                "{:<8}  {:<playbook$}  {:<environment$}  {}{}  {:<20}  {:>7}  {:<by$}  {holder}",
                short(&run.id),
                run.playbook,
                run.environment,
                style.run(&run.state),
                " ".repeat(12_usize.saturating_sub(run.state.len())),
                stamp(run.started_at),
                elapsed(run.started_at, end),
                run.by,
            )
            .trim_end(),
        );
    }
    Ok(Exit::Succeeded)
}
