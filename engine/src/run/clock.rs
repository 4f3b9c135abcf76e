#![expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the clock"
)]
//! The time, for the driver and for steps.
//!
//! Spans (timeouts, delays, waits for a while, `max_duration`) are measured by a clock that never steps; instants that
//! people name (wait until 02:00) are those of the wall clock, also after it was set.
use crate::value::{Duration, Timestamp};
use futures_util::future::BoxFuture;
use std::{
    sync::{Arc, LazyLock},
    time::Instant,
};

/// How far the wall clock may be from where it should be before that is a step: small corrections are none.
const STEP: Duration = Duration::from_secs(1);

/// Whether the wall clock has been set, if it is this far from where it should be.
pub(super) fn is_step(by: Duration) -> bool {
    by >= STEP || by <= Duration::from_millis(-STEP.as_millis())
}

/// Tells the time and sleeps; tests have their own.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. It may be set, forwards and backwards.
    fn now(&self) -> Timestamp;
    /// The time since some moment of this process. It never steps.
    fn elapsed(&self) -> std::time::Duration;
    /// Sleeps for a span of the time that never steps.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> std::time::Duration {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGAN.elapsed()
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        // Durations have milliseconds: one more, so that a timer is never early.
        let left = span.to_std() + std::time::Duration::from_millis(1);
        Box::pin(tokio::time::sleep(left))
    }
}

/// The time of one run while one process drives it: it begins with the wall clock, but never before the run's last event, and
/// continues by the clock that never steps.
pub(super) struct RunClock {
    clock: Arc<dyn Clock>,
    began: Timestamp,
    origin: std::time::Duration,
}

impl RunClock {
    pub(super) fn new(clock: Arc<dyn Clock>, not_before: Timestamp) -> Self {
        let began = clock.now().max(not_before);
        let origin = clock.elapsed();
        Self {
            clock,
            began,
            origin,
        }
    }

    /// Now, in the time of the run.
    pub(super) fn now(&self) -> Timestamp {
        let passed = self.clock.elapsed().saturating_sub(self.origin);
        self.began.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// Now, by the wall clock.
    pub(super) fn wall(&self) -> Timestamp {
        self.clock.now()
    }

    /// How far the wall clock is ahead of the time of the run; below zero if it is behind.
    pub(super) fn offset(&self) -> Duration {
        Duration::between(self.now(), self.wall())
    }

    /// When an instant of the wall clock is, in the time of the run, as the wall clock stands now.
    pub(super) fn of_wall(&self, at: Timestamp) -> Timestamp {
        if is_step(self.offset()) {
            Duration::between(self.wall(), at).after(self.now())
        } else {
            at
        }
    }

    pub(super) fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(span)
    }

    pub(super) fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        self.clock
            .sleep(Duration::between(self.now(), at).max(Duration::ZERO))
    }
}
