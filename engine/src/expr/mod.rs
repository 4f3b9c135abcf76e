//! Expressions: rhai without I/O, clock or random.
//!
//! The source is read twice: [`lex`] finds tokens, from which [`refs`] learns what is read and [`rewrite`]
//! makes what rhai compiles; rhai evaluates with the operators of [`ops`] and the [`functions`] that stand
//! in the table of [`helpers`] only. Lists and maps stay where they are: rhai sees a shared [`Value`].
mod engine;
mod functions;
mod helpers;
mod lex;
mod number;
mod ops;
mod reference_page;
mod refs;
mod rewrite;
mod template;
#[cfg(test)]
mod tests;
mod vars;
mod view;

pub use reference_page::reference_page;
pub(crate) use rewrite::REACHABLE;
pub use template::{Template, TemplatePart, expression_ranges};
pub use vars::Vars;
pub use view::{StepView, View, vars};

use crate::value::Value;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::{Arc, OnceLock};

/// A parsed expression. In the journal it is its source text.
#[derive(Clone)]
pub struct Expr {
    source: Arc<str>,
    /// Made on first use: a stored graph may hold many expressions of which a run needs few.
    lazy: Arc<Lazy>,
}

#[derive(Default)]
struct Lazy {
    references: OnceLock<Vec<Reference>>,
    compiled: OnceLock<Result<engine::Compiled, ExprError>>,
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

impl ExprError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            offset: None,
            help: None,
        }
    }
    fn at(offset: usize, message: impl Into<String>) -> Self {
        Self {
            offset: Some(offset),
            ..Self::new(message)
        }
    }
    fn with_help(self, help: impl Into<String>) -> Self {
        self.maybe_help(Some(help))
    }
    fn maybe_help(mut self, help: Option<impl Into<String>>) -> Self {
        self.help = help.map(Into::into);
        self
    }
}

/// The longest source of one expression, in bytes.
const MAX_SOURCE: usize = 16 * 1024;

impl Expr {
    /// Parses and finds the references.
    ///
    /// # Errors
    /// Where it is not an expression of the language.
    pub fn parse(source: &str) -> Result<Self, ExprError> {
        let expr = Self::lazy(source);
        match expr.compiled() {
            Ok(_) => Ok(expr),
            Err(error) => Err(error.clone()),
        }
    }

    fn lazy(source: &str) -> Self {
        Self {
            source: source.into(),
            lazy: Arc::default(),
        }
    }

    fn compiled(&self) -> Result<&engine::Compiled, &ExprError> {
        self.lazy
            .compiled
            .get_or_init(|| {
                if self.source.len() > MAX_SOURCE {
                    return Err(ExprError::at(0, "the expression is longer than 16 KiB"));
                }
                engine::compile(&lex::tokens(&self.source)?)
            })
            .as_ref()
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it reads.
    #[must_use]
    pub fn references(&self) -> &[Reference] {
        self.lazy.references.get_or_init(|| {
            lex::tokens(&self.source)
                .map(|tokens| refs::references(&tokens))
                .unwrap_or_default()
        })
    }

    /// The names of the secrets that it names literally.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let tokens = lex::tokens(&self.source).unwrap_or_default();
        tokens
            .windows(3)
            .filter_map(|window| match window {
                [name, open, argument] if name.is_word("secret") && open.is("(") => {
                    match &argument.kind {
                        lex::Kind::Text(text) => Some(text.clone()),
                        _ => None,
                    }
                }
                _ => None,
            })
            .collect()
    }

    /// Its value. Pure: the same variables give the same value.
    ///
    /// # Errors
    /// Where types do not fit, a member is missing or a limit is reached.
    pub fn evaluate(&self, vars: &Vars) -> Result<Value, ExprError> {
        let compiled = self.compiled().map_err(Clone::clone)?;
        engine::evaluate(compiled, self.references(), vars)
    }
}

impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expr").field(&self.source).finish()
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

/// It was parsed before it was written, so it is compiled only when it is used; a source that was
/// tampered with fails there.
impl<'de> Deserialize<'de> for Expr {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self::lazy(&String::deserialize(d)?))
    }
}

/// The name that was probably meant.
fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|near| {
            (
                strsim::damerau_levenshtein(&name.to_lowercase(), &near.to_lowercase()),
                near,
            )
        })
        .filter(|(distance, near)| *distance <= 1 + near.len().min(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, near)| near)
}
