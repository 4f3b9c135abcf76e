//! The step kinds of Windlass. They see targets, values and secrets; never the journal or the machine.
//!
//! | module | kinds |
//! |---|---|
//! | [`sql`] | `sql.query`, `sql.execute`, `sql.script` |
//! | [`wait`] | `wait.for`, `wait.until`, `wait.condition`, `wait.signal` |
//! | [`verify`] | `verify` |
//! | [`approval`] | `approval` |
//! | [`script`] | `script` |
//! | [`command`] | `command` |
//! | [`target`] | connections, one file a database |
pub mod approval;
pub mod command;
pub mod script;
pub mod sql;
pub mod target;
pub mod verify;
pub mod wait;

use std::sync::Arc;
use windlass_engine::step::{Kind, Registry};

macro_rules! step_kinds {
    ($($kind:ty),* $(,)?) => {
        /// All kinds of this build, for a driver, a compiler or a page.
        #[must_use]
        pub fn registry() -> Registry {
            Registry::new(vec![$(Kind::of::<$kind>()),*], vec![Arc::new(target::sqlite::Sqlite)])
        }
    };
}

step_kinds![
    sql::query::Query,
    sql::execute::Execute,
    sql::script::Script,
    wait::For,
    wait::Until,
    wait::Condition,
    wait::Signal,
    verify::Verify,
    approval::Approval,
    script::Script,
    command::Command,
];
