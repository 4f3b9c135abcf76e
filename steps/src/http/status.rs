//! Which statuses are a success.
use std::{fmt, ops::RangeInclusive};
use windlass_engine::value::Value;

/// Ranges of statuses, as `200`, `2xx`, `200-204` or a list of them are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// 200 to 299.
    pub(super) fn success() -> Self {
        Self(vec![200..=299])
    }

    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        let ranges = match value.as_list() {
            Some([]) => return Err("no status would be a success".to_owned()),
            Some(items) => items.iter().map(one).collect::<Result<_, _>>()?,
            None => vec![one(value)?],
        };
        Ok(Self(ranges))
    }

    pub(super) fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

fn one(value: &Value) -> Result<RangeInclusive<u16>, String> {
    let text = value.to_string();
    let wrong = || format!("{text:?} is no status; write 200, 2xx, 200-204 or a list of them");
    let status = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|status| (100..=599).contains(status))
            .ok_or_else(wrong)
    };
    if let Some(hundred) = text.strip_suffix("xx") {
        let first = status(&format!("{hundred}00"))?;
        return Ok(first..=first + 99);
    }
    match text.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (status(first)?, status(last)?);
            if first > last {
                return Err(wrong());
            }
            Ok(first..=last)
        }
        None => status(&text).map(|status| status..=status),
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            let (first, last) = (range.start(), range.end());
            if first == last {
                write!(f, "{first}")?;
            } else if first % 100 == 0 && *last == first + 99 {
                write!(f, "{}xx", first / 100)?;
            } else {
                write!(f, "{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_and_written() {
        let read = |value: Value| Statuses::parse(&value);
        assert_eq!(read(Value::Int(204)).unwrap().to_string(), "204");
        assert_eq!(read(Value::from("2xx")).unwrap(), Statuses::success());
        let many = Value::list(vec![
            Value::Int(200),
            Value::from("409"),
            Value::from("3xx"),
            Value::from("500-503"),
        ]);
        let many = read(many).unwrap();
        assert_eq!(many.to_string(), "200, 409, 3xx, 500-503");
        for (status, expected) in [
            (200, true),
            (201, false),
            (302, true),
            (503, true),
            (504, false),
        ] {
            assert_eq!(many.contains(status), expected, "{status}");
        }
        for wrong in ["2x", "20", "600", "204-200", "ok", "-1", ""] {
            assert!(read(Value::from(wrong)).is_err(), "{wrong}");
        }
        assert!(read(Value::list(vec![])).is_err());
    }
}
