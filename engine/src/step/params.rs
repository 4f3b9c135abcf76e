//! Types for parameters of steps whose meaning the compiler must know: it finds them by the
//! `x-windlass` keyword in the parameters' schema.
//!
//! | type | `x-windlass` | what the compiler does |
//! |---|---|---|
//! | [`SqlText`] | `sql` | refuses `${{ }}` inside |
//! | [`Expression`] | `expression` | parses it bare, checks its references; names that the kind adds stand in `x-windlass-names` |
//! | [`TargetName`] | `target` | the name must be a declared target |
//! | [`Text`] | `text` | takes a scalar as it was written (`014` stays `014`) |
//! | [`Duration`](crate::value::Duration), [`Size`](crate::value::Size) | `duration`, `size` | checks the text |
//! | [`Value`](crate::value::Value) | `value` | anything; plain scalars are typed as YAML 1.2 does |
use crate::{expr::Expr, value::Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::borrow::Cow;

macro_rules! marked_text {
    ($(#[$doc:meta])* $name:ident, $marker:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl std::ops::Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "x-windlass": $marker })
            }
        }
    };
}

marked_text!(
    /// One SQL statement, or a script of them. Values go by `:name`, identifiers by `:"name"`.
    SqlText,
    "sql"
);
marked_text!(
    /// The name of a declared target.
    TargetName,
    "target"
);

impl<'de> Deserialize<'de> for SqlText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(Self)
    }
}

impl<'de> Deserialize<'de> for TargetName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(Self)
    }
}

/// Text; a number, boolean, duration or other scalar is taken as it reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Default)]
#[serde(transparent)]
pub struct Text(pub String);

impl std::ops::Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Value::deserialize(d)? {
            Value::List(_) | Value::Map(_) | Value::Null => Err(D::Error::custom("expected text")),
            Value::Secret(_) => Err(D::Error::custom(
                "a secret cannot stand here, since it would be shown",
            )),
            scalar => Ok(Self(scalar.to_string())),
        }
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"], "x-windlass": "text" })
    }
}

/// A bare expression that the step evaluates itself.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Expression(pub Expr);

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // A bare expression may be a scalar that YAML typed: `until: true`.
        let source = Value::deserialize(d)?.to_string();
        Expr::parse(&source).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Expression {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Expression".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "boolean"], "x-windlass": "expression" })
    }
}
