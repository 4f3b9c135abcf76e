//! Whether a failed attempt is repeated, and why not.
use super::{core::Machine, state::InstanceId};
use crate::{
    graph::{Backoff, Body, Retry, Undo},
    step::{Cause, Certainty, Failure, Phase, Redo},
    value::Duration,
};
use sha2::{Digest, Sha256};

/// Why a failed attempt is not repeated although the step has a `retry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRetried {
    /// The cause does not pass by itself, and `also` does not name it.
    Cause {
        /// Whether it would be repeated if `also` named it.
        also_helps: bool,
    },
    /// Something may have happened, and twice is not as good as once.
    Effect(Certainty),
    /// All attempts are used.
    Attempts {
        /// How many there may be.
        of: u32,
    },
    /// What the step belongs to is ending.
    Ended,
}

impl Machine {
    /// Why a failure of this execution is not followed by another attempt; `None` where it is, and where the step has no
    /// `retry`.
    #[must_use]
    pub fn not_retried(
        &self,
        id: InstanceId,
        phase: Phase,
        failure: &Failure,
    ) -> Option<NotRetried> {
        let retry = self.retry_policy(id, phase)?;
        if matches!(failure.cause, Cause::Cancelled | Cause::Interrupted)
            && !retry.also.contains(&failure.cause)
        {
            return Some(NotRetried::Ended);
        }
        let is_clean = match failure.certainty {
            Certainty::NoEffect => true,
            Certainty::Partial | Certainty::Unknown => self.redo(id, phase) == Redo::Repeatable,
        };
        // The failure itself may be what ends the scope: that is asked last, or it would hide the reason.
        if !failure.cause.is_transient() && !retry.also.contains(&failure.cause) {
            Some(NotRetried::Cause {
                also_helps: is_clean,
            })
        } else if !is_clean {
            Some(NotRetried::Effect(failure.certainty))
        } else if self.get(id).execution(phase).tries >= retry.attempts {
            Some(NotRetried::Attempts { of: retry.attempts })
        } else if self.is_cut_off(id, phase) {
            Some(NotRetried::Ended)
        } else {
            None
        }
    }

    pub(super) fn may_retry(&self, id: InstanceId, phase: Phase, failure: &Failure) -> bool {
        self.retry_policy(id, phase).is_some() && self.not_retried(id, phase, failure).is_none()
    }

    pub(super) fn retry_policy(&self, id: InstanceId, phase: Phase) -> Option<Retry> {
        if phase == Phase::Undo
            && let Some(Body::Step(step)) = self.def(id).map(|node| &node.body)
            && let Undo::Auto { retry, .. } = &step.undo
        {
            return retry.clone();
        }
        self.action(id, phase)?.retry.clone()
    }
}

/// The delay before the next attempt: never shorter than `delay`, and with exponential backoff drawn between it and a bound
/// that doubles with each attempt, up to `max_delay`. The draw is a hash, so that replay and tests are exact.
pub(super) fn backoff(retry: &Retry, run: &str, node: &str, tries: u32) -> Duration {
    let least = retry.delay.as_millis();
    let bound = match retry.backoff {
        Backoff::Constant => return retry.delay,
        Backoff::Exponential => least
            .saturating_mul(1_i64 << tries.min(40))
            .min(retry.max_delay.as_millis()),
    };
    let span = u64::try_from(bound.saturating_sub(least)).unwrap_or(0);
    let digest = Sha256::digest(format!("{run}/{node}/{tries}"));
    let random = digest
        .iter()
        .take(8)
        .fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let over = random % span.saturating_add(1);
    Duration::from_millis(least.saturating_add(i64::try_from(over).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn retry(delay: i64, max_delay: i64) -> Retry {
        Retry {
            delay: Duration::from_millis(delay),
            max_delay: Duration::from_millis(max_delay),
            ..Retry::default()
        }
    }

    proptest! {
        /// `delay` is the shortest delay of any attempt, `max_delay` bounds the longest, and the bound doubles.
        #[test]
        fn the_delay_is_a_floor(delay in 0_i64..100_000, more in 0_i64..1_000_000, node in "[a-z]{1,9}", tries in 1_u32..200) {
            let retry = retry(delay, delay + more);
            let drawn = backoff(&retry, "run", &node, tries).as_millis();
            prop_assert!(drawn >= delay);
            prop_assert!(drawn <= delay + more);
            let doubled = i128::from(delay) << tries.min(60);
            prop_assert!(i128::from(drawn) <= doubled.max(i128::from(delay)));
            prop_assert_eq!(drawn, backoff(&retry, "run", &node, tries).as_millis());
        }

        /// Where `max_delay` is shorter than `delay`, `delay` holds.
        #[test]
        fn a_bound_below_the_floor_is_no_bound(delay in 1_i64..100_000, tries in 1_u32..70) {
            let drawn = backoff(&retry(delay, delay - 1), "run", "a", tries);
            prop_assert_eq!(drawn.as_millis(), delay);
        }
    }

    /// Items that fail together are not tried again together.
    #[test]
    fn the_first_delay_is_drawn() {
        let retry = retry(1_000, 30_000);
        let drawn: std::collections::BTreeSet<i64> = (0..50)
            .map(|n| backoff(&retry, "run", &format!("fill[{n}]"), 1).as_millis())
            .collect();
        assert!(drawn.len() > 40, "{drawn:?}");
        assert!(drawn.iter().all(|ms| (1_000..=2_000).contains(ms)));
    }
}
