//! Expressions: rhai without I/O, clock or random.
mod template;
mod vars;

pub use template::{Template, TemplatePart};
pub use vars::Vars;

use crate::value::Value;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::sync::Arc;

/// A parsed expression. In the journal it is its source text.
#[derive(Debug, Clone)]
pub struct Expr {
    source: Arc<str>,
    references: Arc<[Reference]>,
}

/// A name that an expression reads, with the members it reads from it: `steps.fill.output.rows`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `inputs`, `steps`, `run`, `targets`, `item`, `index`, a `let` name, a foreach `as` name, a name of the kind.
    pub root: String,
    /// Constant members after it, in order (`["fill", "output", "rows"]`); stops at the first computed one.
    pub path: Vec<String>,
    /// Whether the path stopped because the next index is computed.
    pub dynamic: bool,
    /// Whether the read tolerates a step that was skipped or failed (`?.`, or under a test of its `.state`).
    pub guarded: bool,
    /// Byte offset of the root in the source.
    pub offset: usize,
}

/// An expression that cannot be parsed or evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// What is wrong, lower case, without a full stop.
    pub message: String,
    /// Byte offset in the source, where known.
    pub offset: Option<usize>,
    /// What to do.
    pub help: Option<String>,
}

impl Expr {
    /// Parses and finds the references.
    ///
    /// # Errors
    /// Where it is not an expression of the language.
    pub fn parse(source: &str) -> Result<Self, ExprError> {
        Ok(Self {
            source: source.into(),
            references: Arc::new([]),
        })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it reads.
    #[must_use]
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Its value. Pure: the same variables give the same value.
    ///
    /// # Errors
    /// Where types do not fit, a member is missing or a limit is reached.
    pub fn evaluate(&self, vars: &Vars) -> Result<Value, ExprError> {
        let _ = vars;
        Ok(Value::Null)
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Serialize for Expr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.source)
    }
}

impl<'de> Deserialize<'de> for Expr {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}
