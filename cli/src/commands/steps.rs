//! `windlass steps`: the kinds of steps, and a page for each.
use crate::{error::CliError, exit::Exit, session::Session, ui::Style};
use serde_json::Value as Json;
use windlass_engine::{
    diagnostic::suggest,
    step::{Effect, Fidelity, Kind, Redo, StepTraits, UndoSupport},
};

/// What `steps` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct StepsArgs {
    /// One kind, such as sql.execute
    kind: Option<String>,
    /// Print them as JSON, with their schemas
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(session: &Session, args: &StepsArgs) -> Result<Exit, CliError> {
    let registry = session.registry();
    let kinds: Vec<&Kind> = match &args.kind {
        None => registry.kinds().collect(),
        Some(name) => {
            let kind = registry.kind(name).ok_or_else(|| {
                let error = CliError::invalid(format!("there is no kind of step {name:?}"));
                match suggest(name, registry.kinds().map(|kind| kind.name)) {
                    Some(help) => error.help(help),
                    None => error.help("`windlass steps` lists all kinds"),
                }
            })?;
            vec![kind]
        }
    };
    if args.json {
        let all: Vec<Json> = kinds.iter().map(|kind| as_json(kind)).collect();
        let text = serde_json::to_string_pretty(&all).map_err(|error| {
            CliError::new(Exit::Broken, format!("cannot write the kinds: {error}"))
        })?;
        session.ui.json(&text);
        return Ok(Exit::Succeeded);
    }
    if let (Some(_), [kind]) = (&args.kind, kinds.as_slice()) {
        session.ui.print(&page(kind, session.ui.out));
        return Ok(Exit::Succeeded);
    }
    let width = kinds.iter().map(|kind| kind.name.len()).max().unwrap_or(0);
    for kind in kinds {
        let pad = " ".repeat(width - kind.name.len());
        session.ui.line(&format!(
            "{}{pad}  {:<8}  {}",
            session.ui.out.bold(kind.name),
            effect(kind.traits.effect),
            first_sentence(&kind.params_schema())
        ));
    }
    Ok(Exit::Succeeded)
}

/// The schemas of a kind are functions in fields.
trait Schemas {
    fn params_schema(&self) -> Json;
    fn output_schema(&self) -> Json;
}

impl Schemas for Kind {
    fn params_schema(&self) -> Json {
        (self.params_schema)()
    }
    fn output_schema(&self) -> Json {
        (self.output_schema)()
    }
}

fn as_json(kind: &Kind) -> Json {
    serde_json::json!({
        "kind": kind.name,
        "traits": kind.traits,
        "with": kind.params_schema(),
        "output": kind.output_schema(),
        "example": kind.example,
    })
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::ReadOnly => "reads",
        Effect::Writes => "writes",
        Effect::Destroys => "destroys",
    }
}

fn first_sentence(schema: &Json) -> String {
    let text = schema
        .get("description")
        .and_then(Json::as_str)
        .unwrap_or("");
    let line = text.lines().next().unwrap_or("");
    line.split_once(". ")
        .map_or(line, |(first, _)| first)
        .trim_end_matches('.')
        .to_owned()
}

fn facts(traits: &StepTraits) -> Vec<(&'static str, &'static str)> {
    vec![
        ("effect", effect(traits.effect)),
        (
            "after a crash",
            match traits.redo {
                Redo::Repeatable => "run again: twice is as good as once",
                Redo::ProbeFirst => "asked first whether it happened",
                Redo::AskOperator => "a person is asked",
            },
        ),
        (
            "undo",
            match traits.undo {
                UndoSupport::Auto => "auto: it restores what it read before it acted",
                UndoSupport::None => "none: there is nothing to undo",
                UndoSupport::Impossible => "impossible, unless the playbook says how",
            },
        ),
        (
            "in a plan",
            match traits.fidelity {
                Fidelity::Executed => "really runs, read-only",
                Fidelity::RolledBack => "runs and is rolled back",
                Fidelity::Estimated => "the target is asked what it would cost",
                Fidelity::Compared => "as it is, beside as it would be",
                Fidelity::Simulated => "worked out without the target",
                Fidelity::Unknown => "not known",
            },
        ),
        (
            "skip",
            if traits.skippable {
                "may be skipped"
            } else {
                "may not be skipped, unless the playbook allows it"
            },
        ),
    ]
}

/// The page of a kind: what it does, what it takes and gives, an example.
fn page(kind: &Kind, style: Style) -> String {
    let with = kind.params_schema();
    let mut text = format!("{}\n", style.bold(kind.name));
    if let Some(description) = with.get("description").and_then(Json::as_str) {
        text.push_str(&format!("\n{}\n", description.trim_end()));
    }
    text.push('\n');
    for (name, value) in facts(&kind.traits) {
        text.push_str(&format!(
            "  {}  {value}\n",
            style.dim(&format!("{name:<13}"))
        ));
    }
    text.push_str(&format!("\n{}\n", style.bold("with")));
    text.push_str(&properties(&with, style, 1));
    text.push_str(&format!("\n{}\n", style.bold("output")));
    text.push_str(&properties(&kind.output_schema(), style, 1));
    text.push_str(&format!("\n{}\n", style.bold("example")));
    text.push_str(&format!(
        "  - id: example\n    uses: {}\n    with:\n",
        kind.name
    ));
    for line in kind.example.trim_matches('\n').lines() {
        text.push_str(&format!("      {line}\n"));
    }
    text
}

fn properties(schema: &Json, style: Style, depth: usize) -> String {
    let pad = "  ".repeat(depth);
    let Some(all) = schema
        .get("properties")
        .and_then(Json::as_object)
        .filter(|all| !all.is_empty())
    else {
        let kind = type_of(schema);
        return format!(
            "{pad}{}\n",
            if kind == "anything" {
                "nothing".to_owned()
            } else {
                kind
            }
        );
    };
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Json::as_array)
        .map(|names| names.iter().filter_map(Json::as_str).collect())
        .unwrap_or_default();
    let mut text = String::new();
    for (name, property) in all {
        let must = if required.contains(&name.as_str()) && depth == 1 {
            ", required"
        } else {
            ""
        };
        let default = property
            .get("default")
            .filter(|default| !default.is_null())
            .map(|default| format!(", default {default}"))
            .unwrap_or_default();
        text.push_str(&format!(
            "{pad}{}  {}\n",
            style.cyan(name),
            style.dim(&format!("{}{must}{default}", type_of(property)))
        ));
        if let Some(description) = property.get("description").and_then(Json::as_str) {
            for line in description.lines().filter(|line| !line.trim().is_empty()) {
                text.push_str(&format!("{pad}    {}\n", line.trim()));
            }
        }
        if depth < 3 {
            for inner in [
                Some(property),
                property.get("items"),
                property.get("additionalProperties"),
            ]
            .into_iter()
            .flatten()
            .filter(|inner| inner.get("properties").is_some())
            {
                text.push_str(&properties(inner, style, depth + 1));
            }
        }
    }
    text
}

fn type_of(schema: &Json) -> String {
    if let Some(marker) = schema.get("x-windlass").and_then(Json::as_str) {
        return match marker {
            "sql" => "SQL".to_owned(),
            "value" => "any value".to_owned(),
            "target" => "a target".to_owned(),
            other => other.to_owned(),
        };
    }
    if let Some(words) = schema.get("enum").and_then(Json::as_array) {
        let words: Vec<&str> = words.iter().filter_map(Json::as_str).collect();
        return words.join(" | ");
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(options) = schema.get(key).and_then(Json::as_array) {
            let mut words: Vec<String> = options
                .iter()
                .map(|option| {
                    option
                        .get("const")
                        .and_then(Json::as_str)
                        .map_or_else(|| type_of(option), ToOwned::to_owned)
                })
                .filter(|word| word != "null")
                .collect();
            words.dedup();
            return words.join(" | ");
        }
    }
    match schema.get("type") {
        Some(Json::String(word)) if word == "array" => match schema.get("items") {
            Some(items) => format!("list of {}", type_of(items)),
            None => "list".to_owned(),
        },
        Some(Json::String(word)) if word == "object" => "map".to_owned(),
        Some(Json::String(word)) => word.clone(),
        Some(Json::Array(words)) => {
            let words: Vec<&str> = words
                .iter()
                .filter_map(Json::as_str)
                .filter(|word| *word != "null")
                .collect();
            if words == ["array"]
                && let Some(items) = schema.get("items")
            {
                return format!("list of {}", type_of(items));
            }
            words
                .join(" | ")
                .replace("object", "map")
                .replace("array", "list")
        }
        Some(_) | None => "anything".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_well() {
        let of = |json: Json| type_of(&json);
        assert_eq!(
            of(serde_json::json!({"type": ["string", "null"]})),
            "string"
        );
        assert_eq!(
            of(serde_json::json!({"type": "array", "items": {"type": "integer"}})),
            "list of integer"
        );
        assert_eq!(of(serde_json::json!({"enum": ["a", "b"]})), "a | b");
        assert_eq!(
            of(serde_json::json!({"type": "string", "x-windlass": "sql"})),
            "SQL"
        );
        assert_eq!(
            of(serde_json::json!({"anyOf": [{"type": "string"}, {"type": "null"}]})),
            "string"
        );
    }
}
