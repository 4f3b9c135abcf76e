//! Keys of a target in the environment.
use super::{DEFAULT_POOL, DEFAULT_STATEMENT_TIMEOUT};
use windlass_engine::{
    step::{Failure, Target},
    value::{Duration, Value},
};

fn wrong(target: &Target, key: &str, wanted: &str, given: &Value) -> Failure {
    Failure::new(
        "target.option",
        format!(
            "{key} of target {} must be {wanted}, not {given}",
            target.name
        ),
    )
    .help("correct it in the environment file")
}

fn duration(target: &Target, key: &str, default: Duration) -> Result<Duration, Failure> {
    let Some(value) = target.options.get(key) else {
        return Ok(default);
    };
    let read = if let Value::Duration(duration) = value {
        Some(*duration)
    } else {
        value.as_str().and_then(|text| text.parse().ok())
    };
    read.filter(|duration| *duration > Duration::ZERO)
        .ok_or_else(|| wrong(target, key, "a duration above zero, such as 30s", value))
}

/// A key that is `true` or `false`.
pub(crate) fn flag(target: &Target, key: &str) -> Result<bool, Failure> {
    match target.options.get(key) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(wrong(target, key, "true or false", other)),
    }
}

/// How long a statement may take where the step has no timeout.
pub(crate) fn statement_timeout(target: &Target) -> Result<Duration, Failure> {
    duration(target, "statement_timeout", DEFAULT_STATEMENT_TIMEOUT)
}

/// How long connecting may take.
pub(crate) fn connect_timeout(target: &Target) -> Result<Duration, Failure> {
    duration(target, "connect_timeout", Duration::from_secs(10))
}

/// How long to wait for a lock where the step does not say.
pub(crate) fn busy_timeout(target: &Target) -> Result<Duration, Failure> {
    duration(target, "busy_timeout", Duration::from_secs(5))
}

/// The same, of a server.
pub(crate) fn lock_timeout(target: &Target) -> Result<Duration, Failure> {
    duration(target, "lock_timeout", Duration::from_secs(5))
}

/// How many connections this process may have at once.
pub(crate) fn pool(target: &Target) -> Result<u32, Failure> {
    match target.options.get("pool") {
        None => Ok(DEFAULT_POOL),
        Some(value) => value
            .as_int()
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| *count > 0)
            .ok_or_else(|| wrong(target, "pool", "a whole number above zero", value)),
    }
}

/// Refuses keys that this kind of target would ignore.
pub(crate) fn known(target: &Target, keys: &[&str]) -> Result<(), Failure> {
    match target
        .options
        .keys()
        .find(|key| !keys.contains(&key.as_str()))
    {
        None => Ok(()),
        Some(key) => Err(Failure::new(
            "target.option",
            format!(
                "target {} has the key {key}, which a {} target does not know",
                target.name, target.kind
            ),
        )
        .help(format!(
            "it knows {}; correct it in the environment file",
            keys.join(", ")
        ))),
    }
}
