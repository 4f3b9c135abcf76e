//! `windlass validate`: all that is wrong with playbooks, at once, without touching a target.
use crate::{error::CliError, exit::Exit, playbook, session::Session, ui::diagnostics};
use std::path::PathBuf;
use windlass_engine::diagnostic::Diagnostic;

/// What `validate` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArgs {
    /// Playbooks: files, or folders that hold playbook.yaml
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print the diagnostics as JSON
    #[arg(long)]
    json: bool,
}

fn count(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

pub(crate) fn run(session: &Session, args: &ValidateArgs) -> Result<Exit, CliError> {
    let mut all: Vec<Diagnostic> = Vec::new();
    let mut text = String::new();
    let mut valid = Vec::new();
    for path in &args.paths {
        let compiled = playbook::compile(session, path)?;
        if !compiled.diagnostics.is_empty() {
            // The count comes once, after all files.
            let each = diagnostics::each(
                &compiled.diagnostics,
                |d| compiled.text_of(d),
                session.ui.err,
            );
            text.push_str(&each);
        }
        if let Some(graph) = &compiled.graph {
            valid.push(format!(
                "{} {}: {}, {}",
                session.ui.out.green("valid"),
                path.display(),
                count(graph.nodes.len(), "step"),
                count(graph.targets.len(), "target")
            ));
        }
        all.extend(compiled.diagnostics);
    }
    let is_wrong = all.iter().any(Diagnostic::is_error);
    if args.json {
        let json = serde_json::to_string_pretty(&all).map_err(|error| {
            CliError::new(
                Exit::Broken,
                format!("cannot write the diagnostics: {error}"),
            )
        })?;
        session.ui.json(&json);
    } else {
        text.push_str(&diagnostics::count(&all, session.ui.err));
        if !text.is_empty() {
            session.ui.complain(&text);
        }
        if !session.ui.quiet {
            for line in valid {
                session.ui.line(&line);
            }
        }
    }
    Ok(if is_wrong {
        Exit::Invalid
    } else {
        Exit::Succeeded
    })
}
