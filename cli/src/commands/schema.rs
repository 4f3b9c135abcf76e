//! `windlass schema`: JSON Schemas, generated from the types that read the files.
use crate::{error::CliError, exit::Exit, playbook, session::Session};
use std::path::PathBuf;

/// What has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// A playbook
    Playbook,
    /// windlass.yaml
    Environment,
    /// What `windlass plan -o` writes
    Plan,
    /// What `windlass report` writes as JSON
    Report,
    /// The lines on standard error of a command with --json
    Error,
}

/// What `schema` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct SchemaArgs {
    /// Of what
    subject: Subject,
    /// Print nothing; end with code 1 where this file is not the schema
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

pub(crate) fn run(session: &Session, args: &SchemaArgs) -> Result<Exit, CliError> {
    let schema = match args.subject {
        Subject::Playbook => windlass_engine::playbook::schema(session.registry()),
        Subject::Environment => windlass_engine::environment::schema(),
        Subject::Plan => windlass_engine::plan::schema(),
        Subject::Report => windlass_engine::report::schema(),
        Subject::Error => windlass_engine::diagnostic::schema(),
    };
    let text = serde_json::to_string_pretty(&schema).map_err(|error| {
        CliError::new(Exit::Broken, format!("cannot write the schema: {error}"))
    })?;
    let Some(path) = &args.check else {
        session.ui.json(&text);
        return Ok(Exit::Succeeded);
    };
    if playbook::read(path)?.trim_end() == text {
        return Ok(Exit::Succeeded);
    }
    let subject = match args.subject {
        Subject::Playbook => "playbook",
        Subject::Environment => "environment",
        Subject::Plan => "plan",
        Subject::Report => "report",
        Subject::Error => "error",
    };
    Err(CliError::new(
        Exit::Failed,
        format!("{} is not the schema of this windlass", path.display()),
    )
    .help(format!(
        "write it anew: windlass schema {subject} > {}",
        path.display()
    )))
}
