//! The state machine of a run: synchronous and pure.
//!
//! | file | what |
//! |---|---|
//! | `event.rs` | what a run writes down |
//! | `state.rs` | what a run and its nodes are |
//! | `execution.rs` | one execution of a node: its places, and the table of all transitions |
//! | `tree.rs` | who is where: containers, scopes, siblings |
//! | `core.rs` | the machine's data |
//! | `construct.rs` | its construction from the first event, by replay, and of instances as nodes open |
//! | `tally.rs` | the one setter, and the sums of what nodes contribute around them |
//! | `agenda.rs` | what is due, as one ordered list |
//! | `reaction.rs` | what a failure leads to |
//! | `apply.rs` | the only mutator: each event, and what those of scopes and of the run do |
//! | `handlers.rs` | what the events of one execution do |
//! | `scope.rs` | the life of a scope: forward, compensation or clean-up, `finally`, its end |
//! | `undo.rs` | the order of compensation |
//! | `reopen.rs` | forward again, by a person's order |
//! | `decide.rs` | what comes next |
//! | `retrying.rs` | whether a failed attempt is repeated, and why not |
//! | `start.rs` | how a node starts: its condition, its gate, its items, its parameters |
//! | `watch.rs` | `max_duration`, of the run and of playbooks that are called |
//! | `window.rs` | whether the windows of the policy let a step start |
//! | `report.rs` | what the driver reports, as events |
//! | `operator/` | what people ask, as events or a refusal |
//! | `query.rs` | what others ask of it |
//! | `vars.rs`, `targets.rs` | what expressions and target names mean from where a step is |
mod agenda;
mod apply;
mod construct;
mod core;
mod decide;
mod event;
mod execution;
mod handlers;
mod operator;
mod query;
mod reaction;
mod reopen;
mod report;
mod retrying;
mod scope;
mod start;
mod state;
mod tally;
mod targets;
#[cfg(test)]
mod tests;
mod tree;
mod undo;
mod vars;
mod watch;
mod window;

pub use core::{IllegalEvent, Machine};
pub use event::*;
pub use execution::{Execution, Stage, Trigger, transitions};
pub use operator::{CANNOT_BE_DONE, Command, Submitted};
pub use query::CLOSED;
pub use report::Report;
pub use retrying::NotRetried;
pub use state::*;
pub use vars::{reachable_value, targets_value};
