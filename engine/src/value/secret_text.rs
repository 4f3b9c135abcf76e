use serde::{Deserialize, Serialize};
use std::fmt;

/// Text that holds references to secrets. Their content is fetched at the moment of use and kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText {
    /// The parts, in order.
    pub parts: Vec<SecretPart>,
}

/// One part of a [`SecretText`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretPart {
    /// Plain text around a reference.
    Text(String),
    /// The name of a secret.
    Secret(String),
}

impl SecretText {
    /// A reference to one secret and nothing around it.
    #[must_use]
    pub fn reference(name: &str) -> Self {
        Self {
            parts: vec![SecretPart::Secret(name.to_owned())],
        }
    }

    /// The names that it refers to.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            SecretPart::Secret(name) => Some(name.as_str()),
            SecretPart::Text(_) => None,
        })
    }
}

impl fmt::Display for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            SecretPart::Text(text) => f.write_str(text),
            SecretPart::Secret(name) => write!(f, "secret({name})"),
        })
    }
}
