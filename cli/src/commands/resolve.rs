//! `windlass resolve`: a person settles a doubt or a failed undo.
use crate::{
    ask::{AskArgs, ask},
    error::CliError,
    exit::Exit,
    session::{self, Session},
};
use windlass_engine::{
    machine::{Command, Machine},
    step::Registry,
    value::Value,
};

/// What `resolve` takes.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("verdict").required(true).args(["done", "not_done"]))]
pub(crate) struct ResolveArgs {
    /// The run: its id, the beginning or end of it, or `last`
    run: String,
    /// The step, by its path
    step: String,
    /// It took effect (or, for an undo, it is undone)
    #[arg(long)]
    done: bool,
    /// It did not take effect and cannot any more (or, for an undo, it is not undone)
    #[arg(long)]
    not_done: bool,
    /// On what grounds; it stands in the journal
    #[arg(long, value_name = "REASON")]
    because: String,
    /// What later steps read as the step's output
    #[arg(long, value_name = "JSON", conflicts_with = "not_done")]
    output: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) async fn run(session: &Session, args: &ResolveArgs) -> Result<Exit, CliError> {
    let output = match &args.output {
        Some(text) => super::json("--output", text)?,
        None => Value::Null,
    };
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let machine = session::machine(journal.as_ref(), &run).await?;
    check_output(&machine, session.registry(), &args.step, &output)?;
    let command = Command::Resolve {
        node: args.step.clone(),
        done: args.done,
        output,
        because: args.because.clone(),
    };
    ask(session, journal, &run, command, args.ask).await
}

/// An output must be one that the step's kind could have given, or what reads it would fail later.
pub(crate) fn check_output(
    machine: &Machine,
    registry: &Registry,
    step: &str,
    output: &Value,
) -> Result<(), CliError> {
    use windlass_engine::graph::Body;
    if output.is_null() {
        return Ok(());
    }
    let Some(instance) = machine.instance(step) else {
        // The machine itself refuses a step that is not there, with what is near.
        return Ok(());
    };
    let Some(Body::Step(def)) = crate::ui::words::node_of(machine, instance).map(|node| &node.body)
    else {
        return Ok(());
    };
    let Some(kind) = registry.kind(&def.action.kind) else {
        return Ok(());
    };
    // A step that never started has no resolved parameters to prepare it from.
    let Ok(prepared) = (kind.prepare)(&instance.forward.input) else {
        return Ok(());
    };
    prepared.check_output(output).map_err(|why| {
        CliError::invalid(format!("--output is no output of {}: {why}", kind.name)).help(format!(
            "`windlass steps {}` shows what its output holds",
            kind.name
        ))
    })
}
