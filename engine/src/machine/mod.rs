//! The state machine of a run: synchronous and pure.
mod command;
mod event;
mod state;

pub use command::{Command, Submitted};
pub use event::*;
pub use state::*;
