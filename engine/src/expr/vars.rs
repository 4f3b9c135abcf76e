use crate::value::Value;
use std::sync::Arc;

/// The variables of one evaluation. Values are shared, so this is cheap to build.
#[derive(Debug, Clone, Default)]
pub struct Vars(Vec<(Arc<str>, Value)>);

impl Vars {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one; a later one of the same name wins.
    pub fn set(&mut self, name: impl Into<Arc<str>>, value: Value) {
        self.0.push((name.into(), value));
    }

    /// With one more.
    #[must_use]
    pub fn with(mut self, name: impl Into<Arc<str>>, value: Value) -> Self {
        self.set(name, value);
        self
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .rev()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| value)
    }

    /// All, in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Value)> {
        self.0.iter()
    }

    /// These and those; those win.
    #[must_use]
    pub fn and(mut self, those: Self) -> Self {
        self.0.extend(those.0);
        self
    }
}
