//! What may be typed.
use crate::{commands, exit, ui::ColorChoice};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Runs the runbooks of database reliability engineers: a playbook is a DAG of typed steps that survives a
/// crash at any instant and undoes itself when it fails.
#[derive(Debug, Parser)]
#[command(name = "windlass", version, after_help = after_help(), arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

fn after_help() -> String {
    format!(
        "{}\nWith --json standard output and standard error are JSON alone. An error is the last line of standard error:\n  \
         {{\"error\": {{\"exit\": 5, \"message\": …, \"notes\": […], \"help\": […], \"diagnostics\": […]}}}}; `windlass schema error` \
         has its schema.\n",
        exit::table()
    )
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The journal's file; by default `journal` of the environment file, or .windlass/journal.db beside it
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "WINDLASS_JOURNAL",
        help_heading = "Global options"
    )]
    pub(crate) journal: Option<PathBuf>,
    /// The environment file; by default the nearest windlass.yaml upward from here, or from the playbook
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "WINDLASS_ENV_FILE",
        help_heading = "Global options"
    )]
    pub(crate) env_file: Option<PathBuf>,
    /// A name for you, if several people share an account of the operating system: it is recorded beside the account,
    /// and does not count where an approval asks for separation of duties
    #[arg(
        long = "as",
        global = true,
        value_name = "NAME",
        env = "WINDLASS_USER",
        hide_env_values = true,
        value_parser = claimed,
        help_heading = "Global options"
    )]
    pub(crate) claimed: Option<String>,
    /// When to colour; `auto` honours NO_COLOR
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Global options"
    )]
    pub(crate) color: ColorChoice,
    /// Say only what was asked for, and errors
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write windlass.yaml and a first playbook; existing files are not overwritten
    Init(commands::init::InitArgs),
    /// Quote what needs quotes, and lay playbooks out in one way
    Fmt(commands::fmt::FmtArgs),
    /// Check playbooks without touching any target
    Validate(commands::validate::ValidateArgs),
    /// Show the steps of a playbook and what waits for what
    Graph(commands::graph::GraphArgs),
    /// Dry run: what each step would do, and how that is known
    Plan(Box<commands::plan::PlanArgs>),
    /// Start a run and drive it
    Run(Box<commands::run::RunArgs>),
    /// Continue a run from its place
    Resume(commands::resume::ResumeArgs),
    /// Vote for what a step asks
    Approve(commands::approve::ApproveArgs),
    /// Vote against what a step asks
    Reject(commands::approve::RejectArgs),
    /// Send a signal that a step waits for
    Signal(commands::signal::SignalArgs),
    /// Settle a doubt, a failed undo or a failed step
    Resolve(commands::resolve::ResolveArgs),
    /// Try a failed step, a failed undo or a probe again
    Retry(commands::retry::RetryArgs),
    /// Pass over a step that is pending or failed
    Skip(commands::skip::SkipArgs),
    /// Let a run start nothing new
    Pause(commands::pause::PauseArgs),
    /// Let a paused run continue
    Unpause(commands::pause::UnpauseArgs),
    /// End a run
    Cancel(commands::cancel::CancelArgs),
    /// End a stopped or stuck run as it is
    Close(commands::close::CloseArgs),
    /// Change an input of a run
    Set(commands::set::SetArgs),
    /// Undo what a run did, over or not
    Undo(commands::undo::UndoArgs),
    /// List the runs
    Runs(commands::runs::RunsArgs),
    /// All about one run: its state, what it did, what to do next
    Show(commands::show::ShowArgs),
    /// Follow a run that another process drives
    Watch(commands::watch::WatchArgs),
    /// Print what programs and servers printed in a run
    Logs(commands::logs::LogsArgs),
    /// Write a report of a run: Markdown, one HTML page, or JSON
    Report(commands::report::ReportArgs),
    /// Verify that the journal was not altered
    Audit(commands::audit::AuditArgs),
    /// List the kinds of steps, or show one
    Steps(commands::steps::StepsArgs),
    /// Check that the targets of an environment can be reached and used
    Doctor(commands::doctor::DoctorArgs),
    /// Explain a diagnostic, the expression language or the exit codes
    Explain(commands::explain::ExplainArgs),
    /// Print a JSON Schema
    Schema(commands::schema::SchemaArgs),
    /// Print completions for a shell
    Completions(commands::completions::CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(commands::man::ManArgs),
}

/// A name that a person claims; an empty one claims nothing, as an unset variable does.
fn claimed(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() {
        return Ok(String::new());
    }
    windlass_engine::step::check_claimed(name).map(|()| name.to_owned())
}

/// `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        Some(_) | None => Err("write it as NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold() {
        Cli::command().debug_assert();
    }

    #[test]
    fn pairs() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("=b").is_err());
        assert!(pair("a").is_err());
    }
}
