//! Exact arithmetic over integers, decimals and floats.
//!
//! A float meets a decimal as the shortest decimal that reads back as that float, so `0.1` in a
//! playbook equals NUMERIC `0.1`.
use super::ops::{Trouble, shown};
use crate::value::{Decimal, Value};
use bigdecimal::{BigDecimal, RoundingMode, Signed, ToPrimitive, Zero};
use std::cmp::Ordering;

/// More digits than any database keeps; beyond, arithmetic would only cost time.
const MAX_DIGITS: u64 = 5_000;
/// Digits after the point of a quotient that does not end.
const QUOTIENT_DIGITS: i64 = 20;

pub(super) fn is_number(value: &Value) -> bool {
    matches!(value, Value::Int(_) | Value::Decimal(_) | Value::Float(_))
}

/// The exact decimal of a number.
pub(super) fn decimal(value: &Value) -> Result<BigDecimal, Trouble> {
    let number = match value {
        Value::Int(i) => BigDecimal::from(*i),
        Value::Decimal(Decimal(d)) => d.clone(),
        Value::Float(x) if x.is_finite() => x
            .to_string()
            .parse()
            .map_err(|_| Trouble::new(format!("{x} is no number")))?,
        other => {
            return Err(Trouble::new(format!(
                "{} is no finite number",
                shown(other)
            )));
        }
    };
    checked(number)
}

fn checked(number: BigDecimal) -> Result<BigDecimal, Trouble> {
    let (_, scale) = number.as_bigint_and_exponent();
    if scale.unsigned_abs() > MAX_DIGITS || number.digits() > MAX_DIGITS {
        return Err(Trouble::new("the number has more digits than can be kept"));
    }
    Ok(number)
}

pub(super) fn from_decimal(number: BigDecimal) -> Result<Value, Trouble> {
    Ok(Value::Decimal(Decimal(checked(number)?)))
}

/// Order of two numbers.
pub(super) fn compare(a: &Value, b: &Value) -> Result<Ordering, Trouble> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Float(x), _) if !x.is_finite() => unbounded(*x, b),
        (_, Value::Float(x)) if !x.is_finite() => unbounded(*x, a).map(Ordering::reverse),
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b).unwrap_or(Ordering::Equal)),
        _ => Ok(decimal(a)?.cmp(&decimal(b)?)),
    }
}

fn unbounded(x: f64, other: &Value) -> Result<Ordering, Trouble> {
    let nan = |value: f64| value.is_nan();
    let other_float = if let Value::Float(y) = other {
        Some(*y)
    } else {
        None
    };
    if nan(x) || other_float.is_some_and(nan) {
        return Err(Trouble::new("NaN cannot be compared"));
    }
    Ok(match other_float {
        Some(y) => x.partial_cmp(&y).unwrap_or(Ordering::Equal),
        None if x > 0.0 => Ordering::Greater,
        None => Ordering::Less,
    })
}

/// `+`, `-`, `*`, `/`, `%` of two numbers.
pub(super) fn arithmetic(op: &str, a: &Value, b: &Value) -> Result<Value, Trouble> {
    let overflow = || {
        Trouble::new(format!(
            "{} {op} {} is beyond the largest integer",
            shown(a),
            shown(b)
        ))
        .help("an integer has 64 bits; number(\"…\") makes an exact decimal of any size")
    };
    let by_zero = || Trouble::new(format!("{} is divided by zero", shown(a)));
    if matches!(op, "/" | "%") && is_zero(b) {
        return Err(by_zero());
    }
    match (a, b) {
        (Value::Int(x), Value::Int(y)) => {
            let result = match op {
                "+" => x.checked_add(*y),
                "-" => x.checked_sub(*y),
                "*" => x.checked_mul(*y),
                "%" => x.checked_rem(*y),
                _ if x.checked_rem(*y) == Some(0) => x.checked_div(*y),
                _ if x.checked_rem(*y).is_none() => None,
                _ => return quotient(&BigDecimal::from(*x), &BigDecimal::from(*y)),
            };
            result.map(Value::Int).ok_or_else(overflow)
        }
        (Value::Float(_), Value::Float(_) | Value::Int(_)) | (Value::Int(_), Value::Float(_)) => {
            let (x, y) = (float(a), float(b));
            let result = match op {
                "+" => x + y,
                "-" => x - y,
                "*" => x * y,
                "%" => x % y,
                _ => x / y,
            };
            if result.is_finite() || !x.is_finite() || !y.is_finite() {
                Ok(Value::Float(result))
            } else {
                Err(Trouble::new(format!(
                    "{} {op} {} is beyond the largest number",
                    shown(a),
                    shown(b)
                )))
            }
        }
        _ => {
            let (x, y) = (decimal(a)?, decimal(b)?);
            match op {
                "+" => from_decimal(x + y),
                "-" => from_decimal(x - y),
                "*" => from_decimal(x * y),
                "%" => from_decimal(x % y),
                _ => quotient(&x, &y),
            }
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Int(i) => *i == 0,
        Value::Float(x) => *x == 0.0,
        Value::Decimal(Decimal(d)) => d.is_zero(),
        _ => false,
    }
}

/// Exact where the quotient ends, else to twenty digits after the point, half away from zero.
pub(super) fn quotient(x: &BigDecimal, y: &BigDecimal) -> Result<Value, Trouble> {
    if y.is_zero() {
        return Err(Trouble::new("a number is divided by zero"));
    }
    let exact = x / y;
    let (_, scale) = exact.as_bigint_and_exponent();
    let kept = if scale > QUOTIENT_DIGITS {
        exact
            .with_scale_round(QUOTIENT_DIGITS, RoundingMode::HalfUp)
            .normalized()
    } else {
        exact.normalized()
    };
    from_decimal(if kept.as_bigint_and_exponent().1 < 0 {
        kept.with_scale(0)
    } else {
        kept
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "only where the other side is a float already"
)]
fn float(value: &Value) -> f64 {
    match value {
        Value::Int(i) => *i as f64,
        Value::Float(x) => *x,
        _ => f64::NAN,
    }
}

pub(super) fn negate(value: &Value) -> Result<Value, Trouble> {
    match value {
        Value::Int(i) => i
            .checked_neg()
            .map(Value::Int)
            .ok_or_else(|| Trouble::new(format!("-({i}) is beyond the largest integer"))),
        Value::Float(x) => Ok(Value::Float(-x)),
        other => from_decimal(-decimal(other)?),
    }
}

pub(super) fn abs(value: &Value) -> Result<Value, Trouble> {
    match value {
        Value::Int(i) if *i < 0 => negate(value),
        Value::Int(_) => Ok(value.clone()),
        Value::Float(x) => Ok(Value::Float(x.abs())),
        other => from_decimal(decimal(other)?.abs()),
    }
}

/// Rounds half away from zero; an integer where no digits are asked for.
pub(super) fn round(value: &Value, digits: i64) -> Result<Value, Trouble> {
    if !(0..=100).contains(&digits) {
        return Err(Trouble::new(format!(
            "round takes 0 to 100 digits, not {digits}"
        )));
    }
    let rounded = decimal(value)?.with_scale_round(digits, RoundingMode::HalfUp);
    if digits == 0 {
        integer(&Value::Decimal(Decimal(rounded)))
    } else {
        from_decimal(rounded)
    }
}

/// The number as an integer; an exact decimal where it needs more than 64 bits.
pub(super) fn integer(value: &Value) -> Result<Value, Trouble> {
    if let Value::Int(_) = value {
        return Ok(value.clone());
    }
    let number = decimal(value)?;
    if !number.is_integer() {
        return Err(Trouble::new(format!("{} is no whole number", shown(value)))
            .help("round(x) makes it one"));
    }
    Ok(match number.to_i64() {
        Some(i) => Value::Int(i),
        None => from_decimal(number.with_scale(0))?,
    })
}

/// Times a duration or a size in its smallest unit.
pub(super) fn scaled(units: i64, op: &str, by: &Value) -> Result<i64, Trouble> {
    let units = BigDecimal::from(units);
    let by = decimal(by)?;
    let exact = if op == "/" {
        if by.is_zero() {
            return Err(Trouble::new("it is divided by zero"));
        }
        units / by
    } else {
        units * by
    };
    exact
        .with_scale_round(0, RoundingMode::HalfUp)
        .to_i64()
        .ok_or_else(|| Trouble::new("the result is too large"))
}

/// Reads a number: an integer where it is one, else an exact decimal.
pub(super) fn parse(text: &str) -> Result<Value, Trouble> {
    let plain = text.trim();
    if let Ok(i) = plain.parse::<i64>() {
        return Ok(Value::Int(i));
    }
    let digits = plain.bytes().filter(u8::is_ascii_digit).count();
    let number = (digits > 0 && plain.len() <= 2 * 5_000)
        .then(|| plain.parse::<BigDecimal>().ok())
        .flatten()
        .ok_or_else(|| Trouble::new(format!("{} is no number", shown(&Value::text(text)))))?;
    from_decimal(number)
}
