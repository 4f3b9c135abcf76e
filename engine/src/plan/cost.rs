//! How long a run can take at worst.
use super::Cost;
use crate::{
    graph::{Backoff, Retry},
    step::StepTraits,
    value::Duration,
};

fn plus(a: Duration, b: Duration) -> Duration {
    Duration::from_millis(a.as_millis().saturating_add(b.as_millis()))
}

impl Cost {
    /// One after the other.
    pub(super) fn then(mut self, next: Self) -> Self {
        self.time = plus(self.time, next.time);
        self.without_limit.extend(next.without_limit);
        self
    }

    /// At the same time.
    pub(super) fn beside(mut self, other: Self) -> Self {
        self.time = self.time.max(other.time);
        self.without_limit.extend(other.without_limit);
        self
    }

    /// So many, so many at once.
    pub(super) fn times(mut self, count: u64, at_once: u32) -> Self {
        let rounds = count.div_ceil(u64::from(at_once.max(1)));
        let rounds = i64::try_from(rounds).unwrap_or(i64::MAX);
        self.time = Duration::from_millis(self.time.as_millis().saturating_mul(rounds));
        self
    }

    pub(super) fn unlimited(path: &str) -> Self {
        Self {
            time: Duration::ZERO,
            without_limit: vec![path.to_owned()],
        }
    }

    /// Every attempt takes its whole timeout, and every pause its whole delay.
    pub(super) fn of_step(path: &str, timeout: Option<Duration>, retry: Option<&Retry>) -> Self {
        let Some(timeout) = timeout else {
            return Self::unlimited(path);
        };
        let attempts = retry.map_or(1, |retry| retry.attempts.max(1));
        let mut time = timeout.as_millis().saturating_mul(i64::from(attempts));
        if let Some(retry) = retry {
            let mut delay = retry.delay.as_millis();
            for _ in 1..attempts {
                time = time.saturating_add(delay.min(retry.max_delay.as_millis()));
                if time == i64::MAX {
                    break;
                }
                if retry.backoff == Backoff::Exponential {
                    delay = delay.saturating_mul(2);
                }
            }
        }
        Self {
            time: Duration::from_millis(time),
            without_limit: Vec::new(),
        }
    }
}

/// Time that people or the world take is not counted against `max_duration`.
pub(super) fn is_waiting(kind: &str, traits: &StepTraits) -> bool {
    (kind == "approval" || kind == "wait" || kind.starts_with("wait."))
        && traits.effect == crate::step::Effect::ReadOnly
}
