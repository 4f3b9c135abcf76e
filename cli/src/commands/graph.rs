//! `windlass graph`: the steps of a playbook and what waits for what.
use crate::{error::CliError, exit::Exit, playbook, session::Session};
use std::path::PathBuf;

/// How a graph is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// A tree for people
    #[default]
    Text,
    /// For Graphviz
    Dot,
    /// A diagram for a page that renders it
    Mermaid,
}

/// What `graph` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct GraphArgs {
    /// The playbook: a file, or a folder that holds playbook.yaml
    path: PathBuf,
    /// How to print it
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

pub(crate) fn run(session: &Session, args: &GraphArgs) -> Result<Exit, CliError> {
    let graph = playbook::graph(session, &args.path)?;
    session.ui.print(&match args.format {
        Format::Text => graph.to_text(),
        Format::Dot => graph.to_dot(),
        Format::Mermaid => graph.to_mermaid(),
    });
    Ok(Exit::Succeeded)
}
