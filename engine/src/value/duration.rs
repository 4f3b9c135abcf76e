use std::{fmt, str::FromStr};

/// A span of time with millisecond resolution, written `90s`, `1h30m`, `250ms`, `7d`, `2w`.
///
/// A day is 24 hours: calendars belong to windows and schedules, not to durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(i64);

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration; write a number and a unit, such as 250ms, 30s, 5m, 4h, 7d or 1h30m"
)]
pub struct DurationError {
    text: String,
}

const UNITS: [(&str, i64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// From milliseconds.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// From whole seconds.
    #[must_use]
    pub const fn from_secs(s: i64) -> Self {
        Self(s.saturating_mul(1_000))
    }

    /// In milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// In seconds.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "shown and compared, never counted with"
    )]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    /// As the standard library has it; a negative duration is zero.
    #[must_use]
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }

    /// The time from `start` to `end`, negative where `end` is earlier.
    #[must_use]
    pub fn between(start: jiff::Timestamp, end: jiff::Timestamp) -> Self {
        Self(end.as_millisecond().saturating_sub(start.as_millisecond()))
    }

    /// The instant that lies this far after `at`, at most the last one that can be told.
    #[must_use]
    pub fn after(self, at: jiff::Timestamp) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(at.as_millisecond().saturating_add(self.0))
            .unwrap_or(jiff::Timestamp::MAX)
    }
}

impl From<std::time::Duration> for Duration {
    fn from(d: std::time::Duration) -> Self {
        Self(i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }
}

impl FromStr for Duration {
    type Err = DurationError;
    fn from_str(text: &str) -> Result<Self, DurationError> {
        let error = || DurationError {
            text: text.to_owned(),
        };
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.is_empty() {
            return Err(error());
        }
        let mut total: i64 = 0;
        let mut last = i64::MAX;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(error)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let factor = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(error)?
                .1;
            if factor >= last {
                return Err(error());
            }
            last = factor;
            let millis = match number.split_once('.') {
                None => number
                    .parse::<i64>()
                    .ok()
                    .and_then(|n| n.checked_mul(factor)),
                Some((whole, part)) if !whole.is_empty() && !part.is_empty() && part.len() <= 6 => {
                    let scale = 10_i64.pow(u32::try_from(part.len()).unwrap_or(0));
                    format!("{whole}{part}")
                        .parse::<i64>()
                        .ok()
                        .and_then(|n| n.checked_mul(factor))
                        .filter(|n| n % scale == 0)
                        .map(|n| n / scale)
                }
                Some(_) => None,
            };
            total = millis
                .and_then(|m| total.checked_add(m))
                .ok_or_else(error)?;
            rest = tail;
        }
        Ok(Self(if negative { -total } else { total }))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut rest = self.0.unsigned_abs();
        // Weeks are read but not written: `400d` reads better than `57w1d`.
        for (unit, factor) in UNITS.iter().rev().skip(1) {
            let factor = factor.unsigned_abs();
            let count = rest / factor;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

impl serde::Serialize for Duration {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Accepts `"5s"` and the journal's `{"$duration": "5s"}`.
impl<'de> serde::Deserialize<'de> for Duration {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        super::convert::text_or_tagged(d, "$duration")
    }
}

impl schemars::JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "x-windlass": "duration",
            "description": "A number and a unit, such as 250ms, 30s, 5m, 4h, 7d or 1h30m",
            "pattern": r"^(-?([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+|.*\$\{\{.*)$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, millis, canonical) in [
            ("250ms", 250, "250ms"),
            ("1h30m", 5_400_000, "1h30m"),
            ("1.5s", 1_500, "1s500ms"),
            ("90s", 90_000, "1m30s"),
            ("2w", 1_209_600_000, "14d"),
            ("0s", 0, "0s"),
            ("-5s", -5_000, "-5s"),
        ] {
            let read: Duration = text.parse().expect(text);
            assert_eq!(read.as_millis(), millis, "{text}");
            assert_eq!(read.to_string(), canonical, "{text}");
        }
        for bad in ["", "5", "5x", "s", "5s1h", "1.0005ms", "- 5s", "5 s"] {
            assert!(bad.parse::<Duration>().is_err(), "{bad}");
        }
    }
}
