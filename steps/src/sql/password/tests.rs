//! What needs no server.
use super::*;
use crate::testing::{Bench, try_step, with};
use serde_json::json;
use std::sync::Arc;
use windlass_engine::value::SecretText;

fn secret(name: &str) -> serde_json::Value {
    let reference = Value::Secret(Arc::new(SecretText::reference(name)));
    serde_json::to_value(reference).unwrap()
}

#[test]
fn a_password_is_never_a_text() {
    for (params, path) in [
        (
            json!({"target": "db", "role": "app", "password": "abc"}),
            "password",
        ),
        (
            json!({"target": "db", "role": "app", "password": secret("pw"), "previous": "abc"}),
            "previous",
        ),
        (
            json!({"target": "db", "role": "app", "password": secret("pw"), "previous": secret("old"), "reversible": false}),
            "previous",
        ),
        (
            json!({"target": "db", "role": "", "password": secret("pw")}),
            "role",
        ),
        (
            json!({"target": "db", "role": "app", "password": secret("pw"), "iterations": 1}),
            "iterations",
        ),
    ] {
        let errors = try_step("sql.set_password", &with(params)).err().unwrap();
        assert_eq!(errors[0].path, path, "{errors:?}");
    }
}

#[test]
fn what_cannot_be_undone_says_so() {
    let kind = crate::registry()
        .kind("sql.set_password")
        .unwrap()
        .traits_of;
    assert_eq!(kind(&with(json!({}))).undo, UndoSupport::Auto);
    let traits = kind(&with(json!({"reversible": false})));
    assert_eq!(
        (traits.undo, traits.redo),
        (UndoSupport::Impossible, Redo::ProbeFirst)
    );
}

#[tokio::test]
async fn a_file_has_no_roles() {
    let bench = Bench::new("");
    let params = json!({"target": "db", "role": "app", "password": secret("pw")});
    let failure = bench
        .execute("sql.set_password", with(params))
        .await
        .unwrap_err();
    assert_eq!(failure.code, "sql.no_roles");
}

/// What stands in the text of statements is bound values and settings, and never a verifier.
#[test]
fn no_statement_holds_a_verifier() {
    let target = crate::testing::sqlite_target("db", std::path::Path::new("x"));
    let target = Target {
        kind: "postgres".to_owned(),
        ..target
    };
    let values = [("role", "app"), ("verifier", "SCRAM-SHA-256$canary")];
    for (sql, values) in [(QUIET, &[][..]), (HAND_OVER, &values), (ALTER, &[])] {
        let bound = bound(&target, sql, values).unwrap();
        assert!(
            !bound.sql.contains("canary") && !bound.shown.contains("canary"),
            "{bound:?}"
        );
        assert_eq!(bound.values.len(), values.len(), "{}", bound.sql);
    }
}

#[tokio::test]
async fn an_empty_secret_is_no_password() {
    let bench = Bench::new("");
    bench.target(|target| "postgres".clone_into(&mut target.kind));
    for content in ["", "a\0b"] {
        bench.secret("pw", content);
        let params =
            json!({"target": "db", "role": "app", "password": secret("pw"), "reversible": false});
        let failure = bench
            .execute("sql.set_password", with(params))
            .await
            .unwrap_err();
        assert_eq!(failure.code, "sql.password", "{failure:?}");
    }
    assert!(bench.host.marks.lock().unwrap().is_empty());
}
