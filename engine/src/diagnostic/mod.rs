//! What is wrong with a playbook, an environment or an input, as a compiler says it.
use serde::Serialize;
use std::sync::Arc;

/// A place in a source file, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// First byte.
    pub start: usize,
    /// Length in bytes; 0 marks a place between two characters.
    pub len: usize,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing is refused.
    Warning,
    /// The playbook cannot run.
    Error,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// `WL0101`; `windlass explain WL0101` has its page.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, lower case, one sentence, without a full stop.
    pub message: String,
    /// Where; `None` where there is no file (an input on the command line).
    pub span: Option<Span>,
    /// What stands at the place, beside the marked text ("expected a duration").
    pub label: Option<String>,
    /// What to do ("did you mean `target`?").
    pub help: Option<String>,
}
