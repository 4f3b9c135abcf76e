//! `windlass`: the only crate that prints or reads the terminal.
//!
//! | file | what lives there |
//! |---|---|
//! | `args.rs` | what may be typed |
//! | `commands/` | one file a command |
//! | `exit.rs`, `error.rs` | exit codes; errors as users read them |
//! | `hygiene.rs` | no core file, one redactor over all that is printed |
//! | `session.rs`, `environment.rs`, `playbook.rs` | the journal, who the user is, the environment file, playbooks |
//! | `drive.rs`, `ask.rs`, `reporter.rs` | driving a run, asking something of one, telling how it goes |
//! | `ui/` | colour, the live tree, pages, summaries |
mod activity;
mod args;
mod ask;
mod clock;
mod commands;
mod drive;
mod environment;
mod error;
mod exit;
mod files;
mod hygiene;
mod playbook;
mod reporter;
mod session;
mod ui;

use args::Cli;
use clap::Parser;
use exit::Exit;
use session::Session;
use std::process::ExitCode;

fn main() -> ExitCode {
    hygiene::close_memory();
    std::panic::set_hook(Box::new(|panic| {
        use std::io::Write as _;
        // Nobody is left to tell where standard error is closed.
        let panic = hygiene::redactor().string(panic.to_string());
        drop(writeln!(
            std::io::stderr(),
            "error: windlass is broken: {panic}\n  = nothing that is in the journal is lost\n  = help: `windlass resume \
             RUN` goes on; please report this"
        ));
    }));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Invalid
            } else {
                Exit::Succeeded
            };
            // A reader that has gone is no error.
            drop(error.print());
            return exit.into();
        }
    };
    let session = Session::new(cli.global);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        commands::dispatch(&session, cli.command)
    }));
    match done {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(error)) => {
            if !error.said {
                session.ui.complain(&error.render(session.ui.err));
            }
            error.exit.into()
        }
        Err(_) => Exit::Broken.into(),
    }
}
