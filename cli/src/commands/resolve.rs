//! `windlass resolve`: a person settles a doubt, a failed undo or a failed step.
use crate::{
    ask::{AskArgs, ask},
    error::CliError,
    exit::Exit,
    session::{self, Session},
};
use serde_json::Value as Json;
use windlass_engine::{
    machine::{Command, Machine},
    step::Registry,
    value::Value,
};

/// What `resolve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::ask::EXITS)]
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
    /// On what grounds; the journal keeps it
    #[arg(long, value_name = "REASON")]
    because: String,
    /// What later steps read as the step's output
    #[arg(long, value_name = "JSON", conflicts_with = "not_done")]
    output: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) async fn run(session: &Session, args: &ResolveArgs) -> Result<Exit, CliError> {
    let journal = session.journal_of_runs()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let machine = session::machine(journal.as_ref(), &run).await?;
    let output = output(
        &machine,
        session.registry(),
        (&args.step, true),
        args.output.as_deref(),
    )?;
    let command = Command::Resolve {
        node: args.step.clone(),
        done: args.done,
        output,
        because: args.because.clone(),
    };
    ask(session, journal, &run, command, args.ask).await
}

/// The output that a person gives a step. What later steps read of it must be there; the rest of what its kind always gives is filled
/// in. It must be one that the kind could have given, or what reads it would fail later.
pub(crate) fn output(
    machine: &Machine,
    registry: &Registry,
    (step, is_done): (&str, bool),
    given: Option<&str>,
) -> Result<Value, CliError> {
    use windlass_engine::graph::Body;
    let Some(text) = given else {
        return Ok(Value::Null);
    };
    let plain = super::json("--output", text)?;
    let Some(instance) = machine.instance(step) else {
        // The machine itself refuses a step that is not there, with what is near.
        return Ok(plain);
    };
    let Some(Body::Step(def)) = crate::ui::words::node_of(machine, instance).map(|node| &node.body)
    else {
        return Ok(plain);
    };
    let Some(kind) = registry.kind(&def.action.kind) else {
        return Ok(plain);
    };
    // A step that never started has no resolved parameters to prepare it from.
    let Ok(prepared) = (kind.prepare)(&instance.forward.input) else {
        return Ok(plain);
    };
    let mut json: Json = serde_json::from_str(text).unwrap_or_default();
    let schema = (kind.output_schema)();
    if let Some(unknown) = unknown_field(&json, &schema) {
        return Err(CliError::invalid(format!(
            "--output does not fit the output of {}: it has no field {unknown:?}",
            kind.name
        ))
        .help(format!(
            "`windlass steps {}` shows what its output holds",
            kind.name
        )));
    }
    if let Some(needed) = machine.needed_output(step, is_done)
        && let Ok(needed) = serde_json::from_str(&needed)
        && let Some(missing) = not_given(&json, &needed)
    {
        return Err(CliError::invalid(format!(
            "--output has no {missing:?}, which a later step reads"
        ))
        .help(format!("give at least: {needed}")));
    }
    fill_in(&mut json, &schema);
    let whole = super::json("--output", &json.to_string())?;
    prepared.check_output(&whole).map_err(|why| {
        CliError::invalid(format!(
            "--output does not fit the output of {}: {why}",
            kind.name
        ))
        .help(format!(
            "`windlass steps {}` shows what its output holds",
            kind.name
        ))
    })?;
    Ok(whole)
}

/// A field that a schema does not know, if it says which there are.
fn unknown_field<'j>(json: &'j Json, schema: &Json) -> Option<&'j str> {
    let known = schema.get("properties")?.as_object()?;
    let given = json.as_object()?;
    given
        .keys()
        .find(|name| !known.contains_key(*name))
        .map(String::as_str)
}

/// What must be given and is not, as `row.v`.
fn not_given(json: &Json, needed: &Json) -> Option<String> {
    needed.as_object()?.iter().find_map(|(name, inner)| {
        let Some(given) = json.get(name) else {
            return Some(name.clone());
        };
        not_given(given, inner).map(|deeper| format!("{name}.{deeper}"))
    })
}

/// Adds what a schema requires and a person has left out, empty: a list without items, a text without characters, zero, false.
fn fill_in(json: &mut Json, schema: &Json) {
    let Json::Object(given) = json else {
        return;
    };
    let required = schema.get("required").and_then(Json::as_array);
    let names = required.into_iter().flatten().filter_map(Json::as_str);
    for name in names {
        let property = schema.get("properties").and_then(|all| all.get(name));
        if !given.contains_key(name) {
            let empty = property.map_or(Json::Null, empty);
            given.insert(name.to_owned(), empty);
        }
    }
    let properties = schema.get("properties").and_then(Json::as_object);
    for (name, property) in properties.into_iter().flatten() {
        if let Some(inner) = given.get_mut(name) {
            // One of several shapes: the one that has fields.
            let shapes = property.get("anyOf").and_then(Json::as_array);
            let shape =
                shapes.and_then(|all| all.iter().find(|one| one.get("properties").is_some()));
            fill_in(inner, shape.unwrap_or(property));
        }
    }
}

fn empty(schema: &Json) -> Json {
    let kind = schema.get("type");
    let is = |name: &str| match kind {
        Some(Json::String(one)) => one == name,
        Some(Json::Array(several)) => several.iter().any(|one| one == name),
        Some(_) | None => false,
    };
    if is("null") {
        Json::Null
    } else if is("array") {
        Json::Array(Vec::new())
    } else if is("object") {
        let mut object = Json::Object(serde_json::Map::new());
        fill_in(&mut object, schema);
        object
    } else if is("string") {
        Json::String(String::new())
    } else if is("boolean") {
        Json::Bool(false)
    } else if is("integer") || is("number") {
        Json::from(0)
    } else {
        Json::Null
    }
}
