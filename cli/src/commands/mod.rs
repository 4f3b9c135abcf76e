//! One file a command.
pub(crate) mod approve;
pub(crate) mod audit;
pub(crate) mod cancel;
pub(crate) mod close;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod fmt;
pub(crate) mod graph;
pub(crate) mod init;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod pause;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod resolve;
pub(crate) mod resume;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schema;
pub(crate) mod set;
pub(crate) mod show;
pub(crate) mod signal;
pub(crate) mod skip;
pub(crate) mod steps;
pub(crate) mod undo;
pub(crate) mod validate;
pub(crate) mod watch;

use crate::{args::Command, error::CliError, exit::Exit, session::Session};

/// Does what was asked.
pub(crate) fn dispatch(session: &Session, command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Init(args) => init::run(session, &args),
        Command::Validate(args) => validate::run(session, &args),
        Command::Fmt(args) => fmt::run(session, &args),
        Command::Graph(args) => graph::run(session, &args),
        Command::Plan(args) => block_on(plan::run(session, &args)),
        Command::Run(args) => block_on(run::run(session, &args)),
        Command::Resume(args) => block_on(resume::run(session, &args)),
        Command::Approve(args) => block_on(approve::approve(session, &args)),
        Command::Reject(args) => block_on(approve::reject(session, &args)),
        Command::Signal(args) => block_on(signal::run(session, &args)),
        Command::Resolve(args) => block_on(resolve::run(session, &args)),
        Command::Retry(args) => block_on(retry::run(session, &args)),
        Command::Skip(args) => block_on(skip::run(session, &args)),
        Command::Pause(args) => block_on(pause::pause(session, &args)),
        Command::Unpause(args) => block_on(pause::unpause(session, &args)),
        Command::Cancel(args) => block_on(cancel::run(session, &args)),
        Command::Close(args) => block_on(close::run(session, &args)),
        Command::Set(args) => block_on(set::run(session, &args)),
        Command::Undo(args) => block_on(undo::run(session, &args)),
        Command::Runs(args) => block_on(runs::run(session, &args)),
        Command::Show(args) => block_on(show::run(session, &args)),
        Command::Watch(args) => block_on(watch::run(session, &args)),
        Command::Logs(args) => block_on(logs::run(session, &args)),
        Command::Report(args) => block_on(report::run(session, &args)),
        Command::Audit(args) => block_on(audit::run(session, &args)),
        Command::Steps(args) => steps::run(session, &args),
        Command::Doctor(args) => block_on(doctor::run(session, &args)),
        Command::Explain(args) => explain::run(session, &args),
        Command::Schema(args) => schema::run(session, &args),
        Command::Completions(args) => completions::run(session, &args),
        Command::Man(args) => man::run(session, &args),
    }
}

/// Only commands that touch a journal or a target pay for a runtime.
fn block_on(task: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CliError::new(Exit::Broken, format!("cannot start the runtime: {error}"))
        })?;
    let done = runtime.block_on(Box::pin(task));
    // A statement that a server does not end must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    done
}

/// A JSON value typed on the command line.
pub(crate) fn json(what: &str, text: &str) -> Result<windlass_engine::value::Value, CliError> {
    serde_json::from_str(text).map_err(|error| {
        CliError::invalid(format!("{what} is not JSON: {error}"))
            .help(format!("write it as {what} '{{\"key\": 1}}'"))
    })
}
