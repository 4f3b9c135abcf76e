//! The state machine of a run: synchronous and pure.
//!
//! | file | what |
//! |---|---|
//! | `event.rs` | what a run writes down |
//! | `command.rs` | what other processes ask |
//! | `state.rs` | what a run and its nodes are |
//! | `table.rs` | the transitions of one execution |
//! | `core.rs` | the machine's data and what may be read from it |
//! | `apply.rs` | the only mutator: what each event does |
//! | `settle.rs` | what a settled node sets free, what a failed one holds up |
//! | `undo.rs` | the order of compensation |
//! | `decide.rs` | what comes next |
//! | `report.rs`, `inbox.rs` | what the driver and people say, as events |
//! | `vars.rs`, `targets.rs` | what expressions and target names mean from where a step stands |
// No `_` arm where state meets event: a new event or stage must be thought through everywhere.
#![deny(clippy::wildcard_enum_match_arm)]

mod apply;
mod command;
mod core;
mod decide;
mod event;
mod inbox;
mod report;
mod settle;
mod state;
mod table;
mod targets;
mod undo;
mod vars;

pub use command::{Command, Submitted};
pub use core::{IllegalEvent, Machine};
pub use event::*;
pub use report::Report;
pub use state::*;
pub use table::{Trigger, next_stage};
pub use vars::targets_value;
