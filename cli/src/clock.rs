//! The time, as the run's clock has it.
use windlass_engine::{
    run::{Clock, SystemClock},
    value::Timestamp,
};

/// Now.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}
