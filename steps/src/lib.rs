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
    target::listen();
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

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_engine::value::Value;

    /// An output of each kind, and what it says. A kind that is not here fails the test: it says what it did, or why not.
    const SAID: &[(&str, &str, &str)] = &[
        (
            "sql.query",
            r#"{"rows":[],"row_count":2000,"columns":[],"truncated":false}"#,
            "2,000 rows",
        ),
        (
            "sql.execute",
            r#"{"rows_affected":1,"last_insert_id":null,"rows":[],"truncated":false}"#,
            "1 row",
        ),
        (
            "sql.script",
            r#"{"rows_affected":12,"statements":[{"number":1,"statement":"x","rows_affected":12}]}"#,
            "1 statement, 12 rows",
        ),
        ("sql.set_password", r#"{"role":"app"}"#, "role app"),
        (
            "sqlite.backup",
            r#"{"file":"x","size":"14MiB","took":"3s"}"#,
            "14.0 MiB",
        ),
        // Its time says it all.
        (
            "wait.for",
            r#"{"from":"2026-11-20T03:00:00Z","until":"2026-11-20T03:00:01Z"}"#,
            "",
        ),
        (
            "wait.until",
            r#"{"from":"2026-11-20T03:00:00Z","until":"2026-11-20T03:00:01Z"}"#,
            "until 2026-11-20 03:00:01Z",
        ),
        (
            "wait.condition",
            r#"{"polls":3,"answer":{"rows":[],"row_count":1,"columns":[],"truncated":false}}"#,
            "3 questions, 1 row",
        ),
        ("wait.signal", r#"{"payload":{"a":1,"b":2}}"#, "2 keys"),
        (
            "verify",
            r#"{"passed":3,"failed":2,"checks":[],"tables":[]}"#,
            "3 of 5 checks passed",
        ),
        (
            "approval",
            r#"{"approved_by":["maria","ana"],"answers":{"n":1},"votes":[],"paged":false}"#,
            "by maria, ana, 1 answer",
        ),
        ("script", r#"{"value":42}"#, "value 42"),
        (
            "command",
            r#"{"exit_code":0,"stdout":"x","stderr":"","stdout_bytes":14890000,"stderr_bytes":7,"value":"x","truncated":true}"#,
            "exit 0, 14.2 MiB, 7 bytes on stderr",
        ),
        (
            "http",
            r#"{"status":204,"headers":{},"body":"","json":null,"truncated":false,"duration":"80ms"}"#,
            "http 204",
        ),
        ("notify.slack", r#"{"status":200}"#, "http 200"),
        ("notify.webhook", r#"{"status":200}"#, "http 200"),
        ("playbook", r#"{"a":1}"#, "1 output"),
    ];

    #[test]
    fn every_kind_says_what_it_did() {
        let registry = registry();
        for kind in registry.kinds() {
            let (_, output, expected) = SAID
                .iter()
                .find(|(name, ..)| *name == kind.name)
                .unwrap_or_else(|| panic!("{} has no sample here", kind.name));
            let output: Value = serde_json::from_str(output).unwrap();
            let said = (kind.figures)(&output);
            let said: Vec<String> = said.iter().map(ToString::to_string).collect();
            assert_eq!(said.join(", "), *expected, "{}", kind.name);
            assert!((kind.figures)(&Value::Bool(true)).is_empty());
        }
        assert_eq!(SAID.len(), registry.kinds().count());
    }
}
