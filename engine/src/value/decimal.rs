use bigdecimal::BigDecimal;
use std::{fmt, str::FromStr};

/// An exact decimal of any size, with its scale kept (`1.50` stays `1.50`).
///
/// Equality and order are by number: `1.5 == 1.50`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(pub BigDecimal);

impl FromStr for Decimal {
    type Err = bigdecimal::ParseBigDecimalError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        BigDecimal::from_str(text).map(Self)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_plain_string())
    }
}

impl From<i64> for Decimal {
    fn from(i: i64) -> Self {
        Self(BigDecimal::from(i))
    }
}
impl From<u64> for Decimal {
    fn from(i: u64) -> Self {
        Self(BigDecimal::from(i))
    }
}
