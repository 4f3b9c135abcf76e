use std::{fmt, str::FromStr};

/// A number of bytes, written `512B`, `20GiB` (powers of 1024) or `20GB` (powers of 1000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub i64);

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size; write a number and a unit, such as 512B, 64KiB, 20GiB or 20GB")]
pub struct SizeError {
    text: String,
}

/// The largest first, so that a size is written with the smallest number.
const UNITS: [(&str, i64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

impl Size {
    /// That many bytes; above 8 EiB, 8 EiB.
    #[must_use]
    pub fn of_bytes(bytes: u64) -> Self {
        Self(i64::try_from(bytes).unwrap_or(i64::MAX))
    }

    /// For people: one digit after the point, such as `8.4 MiB`. [`Display`](fmt::Display) is exact.
    #[must_use]
    pub fn rounded(self) -> String {
        let bytes = self.0.unsigned_abs();
        let unit = ["KiB", "MiB", "GiB", "TiB"].into_iter().zip(1u32..);
        let fits = unit.filter(|(_, power)| bytes >> (10 * power) > 0).last();
        let Some((unit, power)) = fits else {
            return self.to_string();
        };
        let tenths = (u128::from(bytes) * 10) >> (10 * power);
        let sign = if self.0 < 0 { "-" } else { "" };
        format!("{sign}{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

impl FromStr for Size {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError {
            text: text.to_owned(),
        };
        let split = text
            .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-')
            .ok_or_else(error)?;
        let (number, unit) = text.split_at(split);
        let factor = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(error)?
            .1;
        let number: bigdecimal::BigDecimal = number.parse().map_err(|_| error())?;
        let bytes = number * bigdecimal::BigDecimal::from(factor);
        if !bytes.is_integer() {
            return Err(error());
        }
        use bigdecimal::ToPrimitive;
        bytes.to_i64().map(Self).ok_or_else(error)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest unit that goes into it evenly: 20GB, not 19531250KiB.
        let (unit, factor) = UNITS
            .into_iter()
            .filter(|(_, factor)| self.0 != 0 && self.0 % factor == 0)
            .max_by_key(|(_, factor)| *factor)
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl serde::Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Accepts `"20GiB"` and the journal's `{"$size": "20GiB"}`.
impl<'de> serde::Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        super::convert::text_or_tagged(d, "$size")
    }
}

impl schemars::JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "x-windlass": "size",
            "description": "A number and a unit, such as 512B, 64KiB, 20GiB or 20GB",
            "pattern": r"^([0-9]+(\.[0-9]+)?([KMGT]i?B|B)|.*\$\{\{.*)$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_for_people() {
        for (bytes, text) in [
            (1_023, "1023B"),
            (1_024, "1.0 KiB"),
            (8_808_039, "8.4 MiB"),
            (u64::MAX, "8388607.9 TiB"),
        ] {
            assert_eq!(Size::of_bytes(bytes).rounded(), text);
        }
    }

    #[test]
    fn reads_and_writes() {
        for (text, bytes, canonical) in [
            ("20GiB", 20 << 30, "20GiB"),
            ("1.5KiB", 1_536, "1536B"),
            ("20GB", 20_000_000_000, "20GB"),
            ("0B", 0, "0B"),
        ] {
            let read: Size = text.parse().expect(text);
            assert_eq!(read.0, bytes, "{text}");
            assert_eq!(read.to_string(), canonical, "{text}");
        }
        for bad in ["", "20", "20 GiB", "GiB", "0.3B", "20gb"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
