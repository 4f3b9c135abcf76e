//! JSON of the server to exact values and back: no number goes through a float.
use base64::Engine as _;
use windlass_engine::{
    step::Failure,
    value::{Decimal, Map, Value},
};

/// Deeper JSON stays text.
const DEPTH: usize = 100;
/// Numbers with more zeros than this behind their digits (`1e999999`) stay text.
const EXPONENT: i64 = 1_000;

/// The value of a JSON text; `None` where it is none, or one that cannot be held.
pub(super) fn read(text: &str) -> Option<Value> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.blank();
    (reader.at == text.len()).then_some(value)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn blank(&mut self) {
        let rest = self.rest();
        let solid = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.at += rest.len() - solid.len();
    }

    fn takes(&mut self, word: &str) -> bool {
        let taken = self.rest().starts_with(word);
        if taken {
            self.at += word.len();
        }
        taken
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH {
            return None;
        }
        self.blank();
        match self.rest().bytes().next()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Value::from),
            b't' => self.takes("true").then_some(Value::Bool(true)),
            b'f' => self.takes("false").then_some(Value::Bool(false)),
            b'n' => self.takes("null").then_some(Value::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.takes("{");
        let mut map = Map::new();
        self.blank();
        if self.takes("}") {
            return Some(Value::Map(map.into()));
        }
        loop {
            self.blank();
            let key = self.string()?;
            self.blank();
            if !self.takes(":") {
                return None;
            }
            map.insert(key.into(), self.value(depth + 1)?);
            self.blank();
            if self.takes("}") {
                return Some(Value::Map(map.into()));
            }
            if !self.takes(",") {
                return None;
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        self.takes("[");
        let mut items = Vec::new();
        self.blank();
        if self.takes("]") {
            return Some(Value::list(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.blank();
            if self.takes("]") {
                return Some(Value::list(items));
            }
            if !self.takes(",") {
                return None;
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        let rest = self.rest();
        if !rest.starts_with('"') {
            return None;
        }
        let mut escaped = false;
        let end = rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        let quoted = rest.get(..end + 2)?;
        self.at += quoted.len();
        serde_json::from_str(quoted).ok()
    }

    fn number(&mut self) -> Option<Value> {
        let rest = self.rest();
        let length = rest
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E')))
            .unwrap_or(rest.len());
        let number = rest.get(..length).filter(|number| !number.is_empty())?;
        self.at += length;
        if let Ok(int) = number.parse() {
            return Some(Value::Int(int));
        }
        if let Some((_, exponent)) = number.split_once(['e', 'E'])
            && !exponent
                .parse::<i64>()
                .is_ok_and(|exponent| exponent.abs() <= EXPONENT)
        {
            return Some(Value::from(number));
        }
        number.parse::<Decimal>().ok().map(Value::Decimal)
    }
}

/// A value as JSON text; what JSON has no type for is text there.
pub(super) fn write(value: &Value, out: &mut String) -> Result<(), Failure> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(_) | Value::Int(_) | Value::Decimal(_) => out.push_str(&value.to_string()),
        Value::Float(float) => match serde_json::Number::from_f64(*float) {
            Some(number) => out.push_str(&number.to_string()),
            None => string(&value.to_string(), out),
        },
        Value::Bytes(bytes) => string(
            &base64::engine::general_purpose::STANDARD.encode(bytes),
            out,
        ),
        Value::Text(_) | Value::Duration(_) | Value::Size(_) | Value::Timestamp(_) => {
            string(&value.to_string(), out);
        }
        Value::Secret(_) => {
            return Err(Failure::new(
                "sql.parameter_type",
                "a secret cannot be bound inside a list or a map",
            )
            .help("bind it as a value of its own"));
        }
        Value::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (at, (key, item)) in map.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                string(key, out);
                out.push(':');
                write(item, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again() {
        for text in [
            "null",
            "[]",
            "{}",
            r#"{"b":1.10,"a":[true,false,null,"\"\\/\u0001é"],"c":{"$decimal":"1"}}"#,
            "[123456789012345678901234567890,-9223372036854775808,0.1,-0.0000001]",
        ] {
            let mut out = String::new();
            write(&read(text).unwrap(), &mut out).unwrap();
            assert_eq!(out, text);
        }
        let spread = " { \"a\" : [ 1 , 2.50 ] } ";
        let mut out = String::new();
        write(&read(spread).unwrap(), &mut out).unwrap();
        assert_eq!(out, r#"{"a":[1,2.50]}"#);
        assert_eq!(read("\"\\ud83d\\ude00\""), Some(Value::from("😀")));
        assert_eq!(
            read("1.5e3").map(|value| value.to_string()).as_deref(),
            Some("1500")
        );
        assert_eq!(read("1e999999999"), Some(Value::from("1e999999999")));
        for none in ["", "{", "[1,]", "{\"a\"}", "1 2", "nul", "\"", "{1:2}"] {
            assert_eq!(read(none), None, "{none}");
        }
        let deep = format!("{}{}", "[".repeat(9_000), "]".repeat(9_000));
        assert_eq!(read(&deep), None, "deep JSON stays text");
    }
}
