//! The values that playbooks compute with, and their one exact JSON form.
//!
//! JSON has no decimals, durations, sizes, timestamps, bytes or secrets. [`Value`] writes those as an
//! object with a single `$` key (`{"$decimal": "1.50"}`), so that a value read back from the journal is
//! the value that was written. Lists, maps and text are shared: a clone never copies their content.
mod convert;
mod decimal;
mod duration;
mod json;
mod secret_text;
mod size;

pub use convert::{FromValueError, from_value, to_value};
pub use decimal::Decimal;
pub use duration::Duration;
pub use jiff::Timestamp;
pub use secret_text::{SecretPart, SecretText};
pub use size::Size;

use std::sync::Arc;

/// An ordered map with shared keys: columns of a row stay in the order of the query.
pub type Map = indexmap::IndexMap<Arc<str>, Value>;

/// A value of the playbook language.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// `null`, SQL NULL, rhai `()`.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer that fits 64 bits.
    Int(i64),
    /// An exact decimal, or an integer beyond 64 bits.
    Decimal(Decimal),
    /// A binary floating-point number.
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// A span of time, such as `5s`.
    Duration(Duration),
    /// A number of bytes, such as `20GiB`.
    Size(Size),
    /// An instant.
    Timestamp(Timestamp),
    /// Binary data.
    Bytes(Arc<[u8]>),
    /// A list.
    List(Arc<Vec<Value>>),
    /// A map.
    Map(Arc<Map>),
    /// A reference to one or more secrets, never their content.
    Secret(Arc<SecretText>),
}

impl Value {
    /// Text from anything that is text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// A list.
    pub fn list(items: Vec<Value>) -> Self {
        Self::List(Arc::new(items))
    }

    /// A map from pairs, in their order.
    pub fn map<K: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Map(Arc::new(
            pairs.into_iter().map(|(k, v)| (k.into(), v)).collect(),
        ))
    }

    /// The member of a map, if this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Map(map) => map.get(key),
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Decimal(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::Duration(_)
            | Self::Size(_)
            | Self::Timestamp(_)
            | Self::Bytes(_)
            | Self::List(_)
            | Self::Secret(_) => None,
        }
    }

    /// The text, if this is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The boolean, if this is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(b) = self {
            Some(*b)
        } else {
            None
        }
    }

    /// The integer, if this is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(i) = self {
            Some(*i)
        } else {
            None
        }
    }

    /// The items, if this is a list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Self::List(items) = self {
            Some(items)
        } else {
            None
        }
    }

    /// The map, if this is one.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        if let Self::Map(map) = self {
            Some(map)
        } else {
            None
        }
    }

    /// Whether this is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The word that users read for this value's type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) => "integer",
            Self::Decimal(_) => "decimal",
            Self::Float(_) => "number",
            Self::Text(_) => "text",
            Self::Duration(_) => "duration",
            Self::Size(_) => "size",
            Self::Timestamp(_) => "timestamp",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Secret(_) => "secret",
        }
    }
}

/// As it reads inside text: scalars bare, lists and maps as JSON, secrets as `secret(name)`.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(i) => write!(f, "{i}"),
            Self::Decimal(d) => write!(f, "{d}"),
            Self::Float(x) => write!(f, "{x}"),
            Self::Text(t) => f.write_str(t),
            Self::Duration(d) => write!(f, "{d}"),
            Self::Size(s) => write!(f, "{s}"),
            Self::Timestamp(t) => write!(f, "{t}"),
            Self::Bytes(b) => write!(f, "{} bytes", b.len()),
            Self::Secret(s) => write!(f, "{s}"),
            Self::List(_) | Self::Map(_) => {
                write!(f, "{}", self.to_plain_json())
            }
        }
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}
impl From<i64> for Value {
    fn from(i: i64) -> Self {
        Self::Int(i)
    }
}
impl From<f64> for Value {
    fn from(x: f64) -> Self {
        Self::Float(x)
    }
}
impl From<&str> for Value {
    fn from(t: &str) -> Self {
        Self::Text(t.into())
    }
}
impl From<String> for Value {
    fn from(t: String) -> Self {
        Self::Text(t.into())
    }
}
impl From<Duration> for Value {
    fn from(d: Duration) -> Self {
        Self::Duration(d)
    }
}
impl From<Size> for Value {
    fn from(s: Size) -> Self {
        Self::Size(s)
    }
}
impl From<Timestamp> for Value {
    fn from(t: Timestamp) -> Self {
        Self::Timestamp(t)
    }
}
impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::list(items)
    }
}
