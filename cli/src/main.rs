//! `windlass`: the only crate that prints or reads the terminal.
//!
//! | file | what lives there |
//! |---|---|
//! | `args.rs` | what may be typed |
//! | `commands/` | one file a command |
//! | `habits.rs` | words of other tools, translated |
//! | `exit.rs`, `error.rs` | exit codes; errors as users read them |
//! | `hygiene.rs` | no core file, one redactor over all that is printed |
//! | `session.rs`, `environment.rs`, `playbook.rs` | the journal, who the user is, the environment file, playbooks |
//! | `drive.rs`, `keyed.rs`, `ask.rs`, `reporter.rs` | driving a run, by a key once, asking something of one, telling how it goes |
//! | `undoing.rs` | what an undo would do, before it is done |
//! | `vote.rs` | votes and signals, which are recorded and drive nothing |
//! | `ui/` | colour, the live tree, pages, summaries |
mod account;
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
mod habits;
mod hygiene;
mod keyed;
mod output;
mod playbook;
mod reporter;
mod session;
mod ui;
mod undoing;
mod vote;

use args::Cli;
use clap::Parser;
use error::CliError;
use exit::Exit;
use session::Session;
use std::process::ExitCode;
use ui::Ui;
use windlass_engine::diagnostic::{ErrorLine, Line};

fn main() -> ExitCode {
    hygiene::close_memory();
    // Known before the rest is read: a mistake in the rest is printed as JSON, too.
    let json = std::env::args_os()
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json");
    std::panic::set_hook(Box::new(move |panic| {
        let panic = hygiene::redactor().string(panic.to_string());
        let error = CliError::new(Exit::Broken, format!("windlass is broken: {panic}"))
            .note("nothing that is in the journal is lost")
            .help("`windlass resume RUN` continues the run; please report this");
        Ui::new(ui::ColorChoice::Never, false, json).fail(&error);
    }));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mut error) if error.use_stderr() => {
            habits::translate(&mut error);
            if json {
                let line = ErrorLine {
                    exit: Exit::Invalid.code(),
                    message: error.to_string().trim_end().to_owned(),
                    notes: Vec::new(),
                    help: Vec::new(),
                    diagnostics: Vec::new(),
                };
                ui::write_line(&Line::Error(line));
            } else {
                // A reader that has gone is no error.
                drop(error.print());
            }
            return Exit::Invalid.into();
        }
        Err(page) => {
            drop(page.print());
            return Exit::Succeeded.into();
        }
    };
    let session = Session::new(cli.global, json);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        commands::dispatch(&session, cli.command)
    }));
    match done {
        Ok(Ok(exit)) => {
            session.ui.end();
            exit.into()
        }
        Ok(Err(error)) => {
            session.ui.fail(&error);
            error.exit.into()
        }
        Err(_) => Exit::Broken.into(),
    }
}
