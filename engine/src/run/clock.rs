#![expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the clock"
)]
//! The time, for the driver and for steps.
use crate::value::{Duration, Timestamp};
use futures_util::future::BoxFuture;

/// Tells the time and sleeps; tests have their own.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Sleeps until an instant.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        // Durations have milliseconds: one more, so that a timer is never early.
        let left =
            Duration::between(Timestamp::now(), at).to_std() + std::time::Duration::from_millis(1);
        Box::pin(tokio::time::sleep(left))
    }
}
