//! The state machine of a run: synchronous and pure.
//!
//! | file | what |
//! |---|---|
//! | `event.rs` | what a run writes down |
//! | `command.rs` | what other processes ask |
//! | `state.rs` | what a run and its nodes are |
//! | `table.rs` | the transitions of one execution |
//! | `core.rs` | the machine's data, and how an execution moves from stage to stage |
//! | `construct.rs` | its construction from the first event, by replay, and of instances as nodes open |
//! | `query.rs` | what others ask of it |
//! | `apply.rs` | the only mutator: each event, and what those of scopes and of the run do |
//! | `execution.rs` | what the events of one execution do |
//! | `settle.rs` | what a settled node sets free, what a failed one holds up |
//! | `undo.rs` | the order of compensation |
//! | `decide.rs` | what comes next |
//! | `start.rs` | how a node starts: its condition, its gate, its items, its parameters |
//! | `scope.rs` | what comes next for a scope: compensation or clean-up, `finally`, its end |
//! | `report.rs`, `inbox.rs` | what the driver and people say, as events |
//! | `vars.rs`, `targets.rs` | what expressions and target names mean from where a step stands |
// No `_` arm where state meets event: a new event or stage must be thought through everywhere.
#![deny(clippy::wildcard_enum_match_arm)]

mod apply;
mod command;
mod construct;
mod core;
mod decide;
mod event;
mod execution;
mod inbox;
mod query;
mod report;
mod scope;
mod settle;
mod start;
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
pub use vars::{reachable_value, targets_value};
