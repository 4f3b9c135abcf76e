//! Between [`Value`] and the typed parameters and outputs of step kinds.
use super::Value;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error as _};
use std::{fmt::Display, str::FromStr};

/// A value did not fit the type that a step declares.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FromValueError(#[from] serde_json::Error);

/// Reads a typed structure from a value; scalars with a tag (`$duration`) fit the types of this module.
///
/// # Errors
/// Where a field is missing, unknown or of another type.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, FromValueError> {
    Ok(serde_json::from_value(serde_json::to_value(value)?)?)
}

/// The value of a typed structure.
///
/// # Errors
/// Where the structure cannot be written as JSON (a map whose keys are not text).
pub fn to_value<T: Serialize>(typed: &T) -> Result<Value, FromValueError> {
    Ok(serde_json::from_value(serde_json::to_value(typed)?)?)
}

/// Reads `"text"` or `{"$tag": "text"}`.
pub(super) fn text_or_tagged<'de, D, T>(d: D, tag: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    match serde_json::Value::deserialize(d)? {
        serde_json::Value::String(text) => text.parse().map_err(D::Error::custom),
        serde_json::Value::Object(map) => match map.get(tag).and_then(|v| v.as_str()) {
            Some(text) if map.len() == 1 => text.parse().map_err(D::Error::custom),
            _ => Err(D::Error::custom(format!("expected text or {tag}"))),
        },
        other => Err(D::Error::custom(format!(
            "expected text such as \"5s\", got {other}"
        ))),
    }
}
