//! What a command prints on standard error when its output is JSON: lines of JSON, nothing else.
use super::Diagnostic;
use schemars::JsonSchema;
use serde::Serialize;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The command could not do as asked; the last line.
    Error(ErrorLine),
    /// What is worth knowing of a file that can be used.
    Warnings(Vec<Diagnostic>),
    /// What a person would read beside the output.
    Note(String),
}

/// Why a command could not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErrorLine {
    /// With what the process ends; `windlass explain exit-codes` lists them.
    pub exit: u8,
    /// What happened: one sentence.
    pub message: String,
    /// Where it is, or what it means for the run.
    pub notes: Vec<String>,
    /// What to do next.
    pub help: Vec<String>,
    /// What is wrong with the playbook, the environment or an input, each with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// The JSON Schema of a line.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Line).to_value()
}
