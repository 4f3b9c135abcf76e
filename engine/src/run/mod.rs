//! The driver: the only place that spawns tasks and reads the clock.
//!
//! It asks the machine what to do, appends the events as one batch, and only when they are durable starts
//! what they order. After a crash it loads the events and goes on: there is no other path.
mod api;
mod clock;
mod drive;
mod driver;
mod parked;
mod print;
mod redact;
mod taking;
mod targets;
#[cfg(test)]
mod tests;
mod unlearned;
mod work;

pub use api::{DriveOptions, Ended, Events, NewRun, RunError, RunHandle};
pub use clock::{Clock, SystemClock};
pub use driver::{Driver, start_of};
pub use targets::{Found, identify};
