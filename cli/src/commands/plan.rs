//! `windlass plan`: the dry run. Nothing is changed.
use crate::{
    clock,
    error::CliError,
    exit::Exit,
    playbook::{self, Given, Prepared},
    session::Session,
    ui::Style,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use windlass_engine::{
    journal::RefusedBy,
    plan::{self, Plan, PlanRequest, Reveal},
    report::human,
    run::{self, RunError},
    step::{Resources, RunInfo},
};

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// A tree for people
    #[default]
    Text,
    /// For a pull request
    Markdown,
    /// For programs; `windlass run --plan` reads it
    Json,
    /// A diagram for a page that renders it
    Mermaid,
    /// For Graphviz
    Dot,
    /// One page that needs nothing else
    Html,
}

/// What `plan` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    given: Given,
    /// How to print it
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Also write it here as JSON, for `windlass run --plan`
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Run what changes rows in a transaction, and roll it back, where the server allows it
    #[arg(long)]
    rehearse: bool,
}

pub(crate) async fn run(session: &Session, args: &PlanArgs) -> Result<Exit, CliError> {
    let prepared = playbook::prepare(session, &args.given)?;
    let plan = make(session, &prepared, args.rehearse)
        .await
        .map_err(|no| no.error)?;
    if let Some(path) = &args.output {
        std::fs::write(path, json(&plan)? + "\n")
            .map_err(|error| CliError::file(path, "write", &error))?;
    }
    match args.format {
        Format::Text => session.ui.print(&painted(&plan.to_text(), session.ui.out)),
        Format::Markdown => session.ui.print(&plan.to_markdown()),
        Format::Json => session.ui.json(&json(&plan)?),
        Format::Mermaid => session.ui.print(&prepared.graph.to_mermaid()),
        Format::Dot => session.ui.print(&prepared.graph.to_dot()),
        Format::Html => session.ui.print(&plan.to_html()),
    }
    if let Some(path) = &args.output {
        session.ui.say(&format!(
            "wrote {0}; `windlass run --plan {0} {1}` runs exactly this",
            path.display(),
            args.given.path.display()
        ));
    }
    if plan.counts.failed > 0 {
        let word = if plan.counts.failed == 1 {
            "step"
        } else {
            "steps"
        };
        return Err(CliError::new(
            Exit::Failed,
            format!(
                "the plan cannot say what {} {word} would do: the preview failed",
                plan.counts.failed
            ),
        )
        .help("the plan shows each with its reason"));
    }
    Ok(Exit::Succeeded)
}

/// Why there is no plan, or not the approved one.
pub(crate) struct NoPlan {
    pub(crate) error: CliError,
    /// What refused it; nothing if it failed.
    pub(crate) refused_by: Option<RefusedBy>,
}

impl NoPlan {
    fn drifted(error: CliError) -> Self {
        Self {
            error,
            refused_by: Some(RefusedBy::Plan),
        }
    }
}

impl From<CliError> for NoPlan {
    fn from(error: CliError) -> Self {
        Self {
            error,
            refused_by: None,
        }
    }
}

impl From<RunError> for NoPlan {
    fn from(error: RunError) -> Self {
        Self {
            refused_by: error.refused_by(),
            error: error.into(),
        }
    }
}

/// Plans what was prepared.
pub(crate) async fn make(
    session: &Session,
    prepared: &Prepared,
    rehearse: bool,
) -> Result<Plan, NoPlan> {
    let registry = session.registry();
    let secrets = session.secrets()?.of_run(&prepared.environment);
    let now = clock::now();
    let found = run::identify(registry, &prepared.graph, &prepared.targets, &secrets, now).await?;
    let fetching = secrets.clone();
    let reveal: Reveal = Arc::new(move |secret| {
        let secrets = fetching.clone();
        Box::pin(async move { secrets.reveal(&secret, clock::now()).await })
    });
    let cancel = CancellationToken::new();
    let request = PlanRequest {
        graph: &prepared.graph,
        registry,
        inputs: prepared.inputs.clone(),
        targets: found.targets,
        unreachable: found.unreachable,
        run: RunInfo {
            id: "(run)".to_owned(),
            short_id: "(run)".to_owned(),
            playbook: prepared.graph.playbook.clone(),
            environment: prepared.environment.clone(),
            by: session.user(),
            account: Some(crate::account::ours().clone()),
            started_at: clock::now(),
            url: None,
        },
        rehearse,
        cancel: cancel.clone(),
        reveal,
        now: Arc::new(clock::now),
        resources: Arc::new(Resources::default()),
    };
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| {
        CliError::new(Exit::Broken, format!("cannot listen for signals: {error}"))
    })?;
    let planning = plan::plan(request);
    tokio::pin!(planning);
    tokio::select! {
        plan = &mut planning => {
            return plan.redacted(secrets.redactor()).map_err(|error| {
                CliError::new(Exit::Broken, format!("cannot write the plan: {error}")).into()
            });
        }
        _ = interrupts.recv() => cancel.cancel(),
    }
    // What runs on a server is ended before the process is.
    drop(planning.await);
    let error = CliError::new(Exit::Interrupted, "interrupted; a plan changes nothing");
    Err(error.into())
}

fn json(plan: &Plan) -> Result<String, CliError> {
    serde_json::to_string_pretty(plan)
        .map(|text| human::json(&text).into_owned())
        .map_err(|error| CliError::new(Exit::Broken, format!("cannot write the plan: {error}")))
}

/// Headings stand out; everything else is as it is.
fn painted(text: &str, style: Style) -> String {
    text.lines()
        .map(|line| {
            let is_heading = !line.is_empty() && !line.starts_with(' ');
            let line = if is_heading {
                style.bold(line)
            } else {
                line.to_owned()
            };
            line + "\n"
        })
        .collect()
}

/// The plan made now, if it is the one of the file; else what changed, and exit code 5.
pub(crate) async fn agree(
    session: &Session,
    path: &Path,
    prepared: &Prepared,
) -> Result<Plan, NoPlan> {
    let text = playbook::read(path)?;
    let approved: Plan = serde_json::from_str(&text).map_err(|error| {
        CliError::invalid(format!("{} is not a plan: {error}", path.display()))
            .help("write one with `windlass plan -o plan.json`")
    })?;
    if approved.format > plan::PLAN_FORMAT {
        let error = CliError::new(
            Exit::Refused,
            format!("{} was written by a newer windlass", path.display()),
        );
        return Err(NoPlan::drifted(
            error.help("use that windlass, or plan again"),
        ));
    }
    let now = make(session, prepared, false).await?;
    if now.digest == approved.digest {
        return Ok(now);
    }
    let mut error = CliError::new(
        Exit::Refused,
        format!("what would run is not what {} says", path.display()),
    );
    for line in plan::diff(&approved, &now) {
        error = error.note(line);
    }
    let error = error.note("nothing was run").help(format!(
        "plan again, have it read again: windlass plan -o {} …",
        path.display()
    ));
    Err(NoPlan::drifted(error))
}
