use crate::value::Value;
use std::{borrow::Cow, fmt};

/// How much or what a figure says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// So many.
    Count(u64),
    /// So many of so many.
    Share {
        /// So many.
        part: u64,
        /// Of so many.
        of: u64,
    },
    /// So many bytes.
    Bytes(u64),
    /// A number that is no amount, such as a status.
    Code(i64),
    /// A text.
    Text(String),
}

/// One thing that a step did, as its kind counts it: rows, bytes, a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// What it is, in one word: `rows`, `stdout`, `status`.
    pub name: &'static str,
    /// How much or what.
    pub measure: Measure,
    /// What stands before the measure.
    before: &'static str,
    /// What stands behind it, for one and for many.
    behind: (&'static str, &'static str),
}

/// The longest text that stands beside a step's time.
const MOST: usize = 40;

impl Figure {
    /// `2,000 rows`, by the word for one and for many.
    #[must_use]
    pub const fn count(name: &'static str, n: u64, one: &'static str, many: &'static str) -> Self {
        Self {
            name,
            measure: Measure::Count(n),
            before: "",
            behind: (one, many),
        }
    }

    /// `2,000 rows`.
    #[must_use]
    pub const fn rows(n: u64) -> Self {
        Self::count("rows", n, "row", "rows")
    }

    /// `3 of 5 checks passed`.
    #[must_use]
    pub const fn share(name: &'static str, part: u64, of: u64, what: &'static str) -> Self {
        Self {
            name,
            measure: Measure::Share { part, of },
            before: "",
            behind: (what, what),
        }
    }

    /// `14.2 MiB`, and what they are where that is not plain: `14.2 MiB on stderr`.
    #[must_use]
    pub const fn bytes(name: &'static str, n: u64, what: &'static str) -> Self {
        Self {
            name,
            measure: Measure::Bytes(n),
            before: "",
            behind: (what, what),
        }
    }

    /// `exit 0`, `http 204`.
    #[must_use]
    pub const fn code(name: &'static str, before: &'static str, code: i64) -> Self {
        Self {
            name,
            measure: Measure::Code(code),
            before,
            behind: ("", ""),
        }
    }

    /// `by maria`.
    #[must_use]
    pub fn text(name: &'static str, before: &'static str, text: impl Into<String>) -> Self {
        Self {
            name,
            measure: Measure::Text(text.into()),
            before,
            behind: ("", ""),
        }
    }

    /// A value that may be of any type: a list and a map by their length.
    #[must_use]
    pub fn value(name: &'static str, before: &'static str, value: &Value) -> Self {
        match value {
            Value::List(items) => Self::count(name, items.len() as u64, "item", "items"),
            Value::Map(map) => Self::count(name, map.len() as u64, "key", "keys"),
            other => Self::text(name, before, other.to_string()),
        }
    }

    /// Several figures of the same name as one, where they are amounts.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let measure = match (&self.measure, &other.measure) {
            (Measure::Count(a), Measure::Count(b)) => Measure::Count(a.saturating_add(*b)),
            (Measure::Bytes(a), Measure::Bytes(b)) => Measure::Bytes(a.saturating_add(*b)),
            (Measure::Share { part: a, of: m }, Measure::Share { part: b, of: n }) => {
                Measure::Share {
                    part: a.saturating_add(*b),
                    of: m.saturating_add(*n),
                }
            }
            _ => return None,
        };
        (self.name == other.name).then(|| Self {
            measure,
            ..self.clone()
        })
    }
}

/// `2,000`: thousands apart.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `900 bytes`, `14.2 MiB`: rounded down, so that what is shown was there.
fn sized(n: u64) -> String {
    let units = [
        (1_u64 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match units.into_iter().find(|(unit, _)| n >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(n) * 10 / u128::from(unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None if n == 1 => "1 byte".to_owned(),
        None => format!("{n} bytes"),
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, one): (Cow<'_, str>, bool) = match &self.measure {
            Measure::Count(n) => (grouped(*n).into(), *n == 1),
            Measure::Share { part, of } => (
                format!("{} of {}", grouped(*part), grouped(*of)).into(),
                false,
            ),
            Measure::Bytes(n) => (sized(*n).into(), false),
            Measure::Code(code) => (code.to_string().into(), false),
            Measure::Text(text) => {
                // Text of others must not move the cursor.
                let mut line: String = text
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(MOST + 1)
                    .collect();
                if line.chars().count() > MOST {
                    line.pop();
                    line.pop();
                    line.push('…');
                }
                (line.into(), false)
            }
        };
        if !self.before.is_empty() {
            write!(f, "{} ", self.before)?;
        }
        f.write_str(&text)?;
        let behind = if one { self.behind.0 } else { self.behind.1 };
        if !behind.is_empty() {
            write!(f, " {behind}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let said = |figure: Figure| figure.to_string();
        assert_eq!(said(Figure::rows(0)), "0 rows");
        assert_eq!(said(Figure::rows(1)), "1 row");
        assert_eq!(said(Figure::rows(999)), "999 rows");
        assert_eq!(said(Figure::rows(2_000)), "2,000 rows");
        assert_eq!(said(Figure::rows(1_234_567)), "1,234,567 rows");
        assert_eq!(said(Figure::bytes("stdout", 1, "")), "1 byte");
        assert_eq!(said(Figure::bytes("stdout", 1_023, "")), "1023 bytes");
        assert_eq!(said(Figure::bytes("stdout", 14_890_000, "")), "14.2 MiB");
        assert_eq!(
            said(Figure::bytes("stderr", 1_536, "on stderr")),
            "1.5 KiB on stderr"
        );
        assert_eq!(said(Figure::bytes("x", u64::MAX, "")), "16777215.9 TiB");
        assert_eq!(
            said(Figure::share("checks", 3, 5, "checks passed")),
            "3 of 5 checks passed"
        );
        assert_eq!(said(Figure::code("exit", "exit", -1)), "exit -1");
        assert_eq!(said(Figure::text("by", "by", "maria")), "by maria");
        let long = said(Figure::text("v", "", "x\u{1b}[2J\n".repeat(40)));
        assert!(
            long.chars().count() <= MOST && long.ends_with('…'),
            "{long}"
        );
        assert!(!long.contains(['\u{1b}', '\n']), "{long}");
    }

    #[test]
    fn only_amounts_of_one_name_are_added() {
        let rows = Figure::rows(1).plus(&Figure::rows(2_000));
        assert_eq!(rows.unwrap().to_string(), "2,001 rows");
        assert_eq!(Figure::rows(1).plus(&Figure::bytes("rows", 1, "")), None);
        assert_eq!(Figure::rows(1).plus(&Figure::count("x", 1, "", "")), None);
        let code = Figure::code("exit", "exit", 0);
        assert_eq!(code.plus(&code), None);
    }
}
