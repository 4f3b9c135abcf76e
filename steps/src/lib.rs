//! The step kinds of Windlass.
//!
//! | module | what lives there |
//! |---|---|
//! | `sql` | query, execute, script; the lexer and the parameters that every database shares |
//! | `sqlite` | a copy of a SQLite database while it is in use |
//! | `wait` | for, until, condition, signal |
//! | `verify` | named checks; two databases compared |
//! | `http` | http, notify.slack, notify.webhook |
//! | `approval`, `script`, `command`, `call` | one kind each |
//! | `target` | connections: one file a database |
mod approval;
mod call;
mod command;
mod http;
mod script;
mod sql;
mod sqlite;
mod target;
#[cfg(test)]
mod testing;
mod verify;
mod wait;

use std::sync::Arc;
use windlass_engine::step::{Kind, Registry};

/// All kinds, one a line.
macro_rules! step_kinds {
    ($($kind:ty),* $(,)?) => {
        vec![$(Kind::of::<$kind>()),*]
    };
}

/// All kinds of steps and targets that this build has.
#[must_use]
pub fn registry() -> Registry {
    let kinds = step_kinds![
        sql::query::Query,
        sql::execute::Execute,
        sql::script::Script,
        sql::password::SetPassword,
        sqlite::Backup,
        wait::duration::For,
        wait::until::WaitUntil,
        wait::condition::Condition,
        wait::signal::Signal,
        verify::Verify,
        approval::Approval,
        script::Script,
        command::Command,
        http::request::Http,
        http::slack::Slack,
        http::webhook::Webhook,
        call::Call,
    ];
    Registry::new(
        kinds,
        vec![
            Arc::new(target::sqlite::Sqlite),
            Arc::new(target::postgres::Postgres),
        ],
    )
}
