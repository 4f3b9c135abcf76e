//! `windlass man`: manual pages, made from the same definition as the help.
use crate::{args::Cli, error::CliError, exit::Exit, session::Session};
use clap::CommandFactory;
use clap_mangen::Man;
use std::path::PathBuf;

/// What `man` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Write windlass.1 and one page for each command into this folder
    #[arg(long, short, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

pub(crate) fn run(session: &Session, args: &ManArgs) -> Result<Exit, CliError> {
    let Some(folder) = &args.output else {
        let mut page = Vec::new();
        Man::new(Cli::command())
            .render(&mut page)
            .map_err(|error| CliError::new(Exit::Broken, format!("cannot write: {error}")))?;
        session.ui.print(&String::from_utf8_lossy(&page));
        return Ok(Exit::Succeeded);
    };
    let failed = |error: std::io::Error| CliError::file(folder, "write into", &error);
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
    session.ui.say(&format!(
        "wrote the manual pages; `man -l {}` shows the first",
        folder.join("windlass.1").display()
    ));
    Ok(Exit::Succeeded)
}
