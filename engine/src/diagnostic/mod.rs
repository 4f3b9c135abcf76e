//! What is wrong with a playbook, an environment or an input, as a compiler says it.
pub mod codes;
mod line;
mod render;

pub use codes::{CODES, Code};
pub use line::{ErrorLine, Line, schema};
pub use render::MarkedLine;

use indexmap::IndexSet;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

/// A place in a source file, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing is refused.
    Warning,
    /// The playbook cannot run.
    Error,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Diagnostic {
    /// `WL0101`; `windlass explain WL0101` has its page.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, lower case, one sentence, without a full stop.
    pub message: String,
    /// Where; `None` where there is no file (an input on the command line).
    pub span: Option<Span>,
    /// The label at the place, beside the marked text ("expected a duration").
    pub label: Option<String>,
    /// What to do ("did you mean `target`?").
    pub help: Option<String>,
    /// What `windlass fmt` writes instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<Mend>,
}

/// A part of a file and what should stand there instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Mend {
    /// The bytes.
    pub bytes: std::ops::Range<usize>,
    /// The text.
    pub text: String,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            ..Self::bare(code, message)
        }
    }

    /// Mended by writing this instead of these bytes of the span's file; says so in the help.
    #[must_use]
    pub fn mended_by(mut self, bytes: std::ops::Range<usize>, text: String) -> Self {
        self.help = Some(format!("write {text}, or let `windlass fmt` do it"));
        self.mend = Some(Mend { bytes, text });
        self
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, span, message)
        }
    }

    /// An error without a place.
    pub fn bare(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            span: None,
            label: None,
            help: None,
            mend: None,
        }
    }

    /// With what stands at the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// With what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether it refuses the playbook.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The nearest of `known` to what was written, if one is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = match written.chars().count() {
        0 => return None,
        1..=3 => 1,
        4..=6 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .filter(|(distance, name)| *distance <= limit && *distance < name.chars().count().max(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `did you mean …?`, or the names that there are where none is near and they are few.
#[must_use]
pub fn suggest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // An id that is there twice is a mistake of its own.
    let known: Vec<&str> = known
        .into_iter()
        .collect::<IndexSet<_>>()
        .into_iter()
        .collect();
    if let Some(name) = nearest(written, known.iter().copied()) {
        return Some(format!("did you mean `{name}`?"));
    }
    (!known.is_empty() && known.len() <= 12).then(|| format!("known here: {}", known.join(", ")))
}
