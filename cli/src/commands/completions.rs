//! `windlass completions`.
use crate::{args::Cli, error::CliError, exit::Exit, session::Session};
use clap::CommandFactory;
use clap_complete::Shell;

/// What `completions` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(session: &Session, args: &CompletionsArgs) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "windlass", &mut script);
    session.ui.print(&String::from_utf8_lossy(&script));
    Ok(Exit::Succeeded)
}
