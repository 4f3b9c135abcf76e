//! `windlass report`: what a run leaves for those who were not there.
use crate::{
    clock,
    error::CliError,
    exit::Exit,
    files, output,
    session::{self, Session},
};
use std::path::{Path, PathBuf};
use windlass_engine::{
    report::{Aside, Report, human::json},
    run::RunError,
};

/// The forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For a ticket
    Markdown,
    /// For programs: schemas/report.schema.json
    Json,
    /// One page that needs nothing else
    Html,
}

/// What `report` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// The run: its id, the beginning or end of it, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// The form; by default from the ending of the file (.md, .json, .html), otherwise Markdown
    #[arg(long, short)]
    format: Option<Format>,
    /// Write it to this file, readable by you alone, instead of printing it
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) async fn run(session: &Session, args: &ReportArgs) -> Result<Exit, CliError> {
    let format = match args.format {
        Some(format) => format,
        None => by_ending(args.output.as_deref())?,
    };
    let journal = session.reading()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    // The head first: events that come meanwhile are left for the next report.
    let audit = journal.audit(&run).await?;
    if let Some((seq, what)) = &audit.broken {
        return Err(CliError::new(
            Exit::Broken,
            format!("damaged run {run}, event {seq}: {what}"),
        )
        .note("a report of it would prove nothing")
        .help(
            "keep a copy of the journal as it is; `windlass audit` lists the runs that are intact",
        ));
    }
    let mut events = journal.load(&run, 1).await?;
    // What was refused after the end is no part of the run: its report stays what it was.
    let head = audit.reported();
    events.truncate(usize::try_from(head.seq).unwrap_or(usize::MAX));
    let machine = session::recover(&run, &events)?;
    let output = output::of_run(journal.as_ref(), &machine).await?;
    let aside = Aside {
        registry: session.registry(),
        output: &output,
        now: clock::now(),
    };
    let report = Report::new(&events, head, &aside).map_err(|error| {
        CliError::from(RunError::Replay {
            run: run.clone(),
            why: error.to_string(),
        })
    })?;
    let text = match format {
        Format::Markdown => report.to_markdown(),
        Format::Html => report.to_html(),
        Format::Json => {
            let text = serde_json::to_string_pretty(&report).map_err(|error| {
                CliError::new(Exit::Broken, format!("cannot write the report: {error}"))
            })?;
            json(&text).into_owned() + "\n"
        }
    };
    match &args.output {
        None => session.ui.print(&text),
        Some(path) => {
            files::replace(path, &text)?;
            session.ui.say(&format!(
                "wrote {}: {} {} as of event {}",
                path.display(),
                report.playbook,
                report.short_id,
                report.chain.events
            ));
        }
    }
    Ok(Exit::Succeeded)
}

fn by_ending(path: Option<&Path>) -> Result<Format, CliError> {
    let Some(path) = path else {
        return Ok(Format::Markdown);
    };
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("md" | "markdown") => Ok(Format::Markdown),
        Some("json") => Ok(Format::Json),
        Some("html" | "htm") => Ok(Format::Html),
        Some(_) | None => Err(CliError::invalid(format!(
            "cannot tell the form of {} by its ending",
            path.display()
        ))
        .help("end it with .md, .json or .html, or give --format")),
    }
}
