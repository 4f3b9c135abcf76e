//! The exact JSON form: what [`Value`] writes is what it reads.
use super::{Decimal, Map, SecretText, Value};
use base64::Engine as _;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};
use std::{fmt, sync::Arc};

const B64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;

fn tagged<S: Serializer>(s: S, tag: &str, content: &impl Serialize) -> Result<S::Ok, S::Error> {
    let mut map = s.serialize_map(Some(1))?;
    map.serialize_entry(tag, content)?;
    map.end()
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => s.serialize_unit(),
            Self::Bool(b) => s.serialize_bool(*b),
            Self::Int(i) => s.serialize_i64(*i),
            Self::Float(x) if x.is_finite() => s.serialize_f64(*x),
            Self::Float(x) => tagged(s, "$float", &x.to_string()),
            Self::Text(t) => s.serialize_str(t),
            Self::Decimal(d) => tagged(s, "$decimal", &d.to_string()),
            Self::Duration(d) => tagged(s, "$duration", d),
            Self::Size(z) => tagged(s, "$size", z),
            Self::Timestamp(t) => tagged(s, "$timestamp", t),
            Self::Bytes(b) => tagged(s, "$bytes", &B64.encode(b)),
            Self::Secret(x) => tagged(s, "$secret", x.as_ref()),
            Self::List(items) => {
                let mut seq = s.serialize_seq(Some(items.len()))?;
                for item in items.iter() {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            // As pairs, so that reading never meets a map that looks like one of ours.
            Self::Map(map) if looks_tagged(map) => {
                let pairs: Vec<(&str, &Value)> = map.iter().map(|(k, v)| (&**k, v)).collect();
                tagged(s, "$map", &pairs)
            }
            Self::Map(map) => Plain(map).serialize(s),
        }
    }
}

/// A user's map that would read back as one of ours is wrapped in `$map`.
fn looks_tagged(map: &Map) -> bool {
    map.len() == 1 && map.keys().next().is_some_and(|key| key.starts_with('$'))
}

struct Plain<'a>(&'a Map);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(&**key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }
    fn visit_i64<E>(self, i: i64) -> Result<Value, E> {
        Ok(Value::Int(i))
    }
    fn visit_u64<E>(self, i: u64) -> Result<Value, E> {
        Ok(i64::try_from(i).map_or_else(|_| Value::Decimal(Decimal::from(i)), Value::Int))
    }
    fn visit_f64<E>(self, x: f64) -> Result<Value, E> {
        Ok(Value::Float(x))
    }
    fn visit_str<E>(self, t: &str) -> Result<Value, E> {
        Ok(Value::Text(t.into()))
    }
    fn visit_string<E>(self, t: String) -> Result<Value, E> {
        Ok(Value::Text(t.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(4_096));
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(Arc::new(items)))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::with_capacity(access.size_hint().unwrap_or(0).min(4_096));
        while let Some((key, value)) = access.next_entry::<String, Value>()? {
            map.insert(key.into(), value);
        }
        if looks_tagged(&map)
            && let Some((tag, content)) = map.iter().next()
        {
            return untag(tag, content).map_err(A::Error::custom);
        }
        Ok(Value::Map(Arc::new(map)))
    }
}

fn untag(tag: &str, content: &Value) -> Result<Value, String> {
    let text = || {
        content
            .as_str()
            .ok_or_else(|| format!("{tag} must hold text"))
    };
    let bad = |e: &dyn fmt::Display| format!("{tag}: {e}");
    Ok(match tag {
        "$decimal" => Value::Decimal(text()?.parse().map_err(|e| bad(&e))?),
        "$duration" => Value::Duration(text()?.parse().map_err(|e| bad(&e))?),
        "$size" => Value::Size(text()?.parse().map_err(|e| bad(&e))?),
        "$timestamp" => Value::Timestamp(text()?.parse().map_err(|e| bad(&e))?),
        "$float" => Value::Float(text()?.parse().map_err(|e| bad(&e))?),
        "$bytes" => Value::Bytes(B64.decode(text()?).map_err(|e| bad(&e))?.into()),
        "$secret" => {
            let parts = serde_json::to_value(content).map_err(|e| bad(&e))?;
            let parts: SecretText = serde_json::from_value(parts).map_err(|e| bad(&e))?;
            Value::Secret(Arc::new(parts))
        }
        "$map" => {
            let pairs = content.as_list().ok_or("$map must hold pairs")?;
            let pairs = pairs.iter().map(|pair| match pair.as_list() {
                Some([Value::Text(key), value]) => Ok((key.clone(), value.clone())),
                _ => Err("$map must hold pairs"),
            });
            Value::Map(Arc::new(pairs.collect::<Result<_, _>>()?))
        }
        _ => return Err(format!("unknown tag {tag}")),
    })
}

impl Value {
    /// JSON as people read it: durations, decimals and the rest as bare text, secrets as `secret(name)`.
    ///
    /// For output and for parameters of steps, not for the journal: it does not read back exactly.
    #[must_use]
    pub fn to_plain_json(&self) -> serde_json::Value {
        use serde_json::Value as J;
        match self {
            Self::Null => J::Null,
            Self::Bool(b) => J::Bool(*b),
            Self::Int(i) => J::from(*i),
            Self::Float(x) => {
                serde_json::Number::from_f64(*x).map_or_else(|| J::String(x.to_string()), J::Number)
            }
            Self::Text(t) => J::String(t.to_string()),
            Self::Bytes(b) => J::String(B64.encode(b)),
            Self::Decimal(_)
            | Self::Duration(_)
            | Self::Size(_)
            | Self::Timestamp(_)
            | Self::Secret(_) => J::String(self.to_string()),
            Self::List(items) => J::Array(items.iter().map(Self::to_plain_json).collect()),
            Self::Map(map) => J::Object(
                map.iter()
                    .map(|(k, v)| (k.to_string(), v.to_plain_json()))
                    .collect(),
            ),
        }
    }
}

/// In a schema a value is anything.
impl schemars::JsonSchema for Value {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Value".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "x-windlass": "value" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_reads_back_exactly() {
        let all = Value::list(vec![
            Value::Null,
            Value::Bool(true),
            Value::Int(i64::MIN),
            Value::Float(0.1),
            Value::Float(f64::INFINITY),
            Value::Decimal(
                "123456789012345678901234567890.1200"
                    .parse()
                    .expect("decimal"),
            ),
            Value::text("a"),
            Value::Duration("1h30m".parse().expect("duration")),
            Value::Size("20GiB".parse().expect("size")),
            Value::Timestamp("2026-01-02T03:04:05.000001Z".parse().expect("timestamp")),
            Value::Bytes(vec![0, 255].into()),
            Value::Secret(Arc::new(SecretText::reference("db"))),
            Value::map([("$decimal", Value::Int(1))]),
            Value::map([("b", Value::Int(1)), ("a", Value::Null)]),
        ]);
        let json = serde_json::to_string(&all).expect("writes");
        let back: Value = serde_json::from_str(&json).expect("reads");
        assert_eq!(back, all);
        assert_eq!(serde_json::to_string(&back).expect("writes"), json);
        let u64_max: Value = serde_json::from_str("18446744073709551615").expect("reads");
        assert_eq!(u64_max.to_string(), "18446744073709551615");
    }
}
