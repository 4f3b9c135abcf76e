//! On a real server: who may log in afterwards, what is put back, and what the server's log holds.
use super::{server::Server, *};
use crate::testing::{Bench, step, try_step, with};
use serde_json::json;
use std::sync::Arc;
use windlass_engine::{step::Phase, value::SecretText};

fn secret(name: &str) -> serde_json::Value {
    let reference = Value::Secret(Arc::new(SecretText::reference(name)));
    serde_json::to_value(reference).unwrap()
}

/// With the target `pg`, as `user`, and the secrets `new` and `old`.
fn bench(server: &Server, user: &str) -> Bench {
    let bench = Bench::new("");
    bench.secret("new", "n3w-cän\u{a0}ary'\"\\");
    bench.secret("old", "0ld-canary");
    bench.secret("admin", "adm1n-canary");
    let mut target = crate::testing::sqlite_target("pg", std::path::Path::new("x"));
    target.kind = "postgres".to_owned();
    target.url = Value::from(format!(
        "postgres://{user}@127.0.0.1:{}/postgres",
        server.port
    ));
    target.options.insert("tls".to_owned(), Value::from("off"));
    bench.add(target);
    bench
}

const NEW: &str = "n3w-cän\u{a0}ary'\"\\";
const VERIFIER_OF_APP: &str = "SELECT rolpassword FROM pg_authid WHERE rolname = 'we ird\"r'";

/// A role with an awkward name and the password `old`.
fn role(server: &Server) {
    server.sql("CREATE ROLE \"we ird\"\"r\" LOGIN PASSWORD '0ld-canary'");
}

fn params() -> serde_json::Value {
    json!({"target": "pg", "role": "we ird\"r", "password": secret("new")})
}

async fn run(bench: &Bench, params: serde_json::Value) -> Result<Value, Failure> {
    let step = step("sql.set_password", with(params));
    let cx = bench.context();
    let capture = step.capture(&cx).await?;
    step.execute(&capture, crate::testing::fresh(), &cx).await?;
    Ok(capture)
}

async fn undo(
    bench: &mut Bench,
    params: serde_json::Value,
    capture: &Value,
) -> Result<(), Failure> {
    bench.phase = Phase::Undo;
    let step = step("sql.set_password", with(params));
    let cx = bench.context();
    let undone = step.undo(capture, None, crate::testing::fresh(), &cx).await;
    bench.phase = Phase::Do;
    undone.map(drop)
}

/// Nothing of a password or a verifier is in what the server or the engine wrote down.
fn clean(server: &Server, bench: &Bench, capture: &Value, from: usize) {
    let log = server.log();
    let log = log.get(from..).unwrap();
    let marks = format!("{:?}", bench.host.marks.lock().unwrap());
    for text in [log, &format!("{capture:?}"), &marks] {
        for canary in ["canary", "SCRAM-SHA-256$", "n3w"] {
            assert!(!text.contains(canary), "{canary} in {text}");
        }
    }
}

#[tokio::test]
async fn the_new_password_logs_in_and_undo_puts_back_the_old_one() {
    let server = Server::start();
    role(&server);
    let mut bench = bench(&server, "app");
    let before = server.sql(VERIFIER_OF_APP);
    let from = server.log().len();

    let preview = bench
        .preview("sql.set_password", with(params()))
        .await
        .unwrap();
    let lines = format!("{:?}", preview.lines);
    assert!(lines.contains("puts back the verifier"), "{lines}");
    assert_eq!(preview.secrets, ["new"]);
    assert_eq!(
        server.sql(VERIFIER_OF_APP),
        before,
        "a plan changes nothing"
    );
    assert!(server.logs_in("we ird\"r", "0ld-canary"));

    let from_run = server.log().len();
    let capture = run(&bench, params()).await.unwrap();
    clean(&server, &bench, &capture, from_run);
    assert!(server.logs_in("we ird\"r", NEW));
    assert!(!server.logs_in("we ird\"r", "0ld-canary"));
    assert!(
        server
            .sql(VERIFIER_OF_APP)
            .starts_with("SCRAM-SHA-256$4096:")
    );
    // What a crash after the COMMIT finds.
    let mark = bench.host.marks.lock().unwrap().last().cloned();
    let probed = step("sql.set_password", with(params()))
        .probe(&capture, mark.as_ref(), &bench.context())
        .await
        .unwrap();
    assert!(matches!(probed, Probed::Done(Some(_))), "{probed:?}");

    let from_undo = server.log().len();
    undo(&mut bench, params(), &capture).await.unwrap();
    undo(&mut bench, params(), &capture).await.unwrap();
    let log = server.log();
    assert!(
        !log.get(from_undo..).unwrap().contains("SCRAM-SHA-256$"),
        "{log}"
    );
    assert_eq!(server.sql(VERIFIER_OF_APP), before);
    assert!(server.logs_in("we ird\"r", "0ld-canary"));
    assert!(!log.get(from..).unwrap().contains("canary"));
}

#[tokio::test]
async fn a_role_without_a_password_gets_none_back() {
    let server = Server::start();
    server.sql("CREATE ROLE app2 LOGIN");
    let mut bench = bench(&server, "app");
    let params =
        json!({"target": "pg", "role": "app2", "password": secret("old"), "iterations": 8192});
    let capture = run(&bench, params.clone()).await.unwrap();
    assert!(server.logs_in("app2", "0ld-canary"));
    let now = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app2'";
    assert!(server.sql(now).starts_with("SCRAM-SHA-256$8192:"));
    undo(&mut bench, params, &capture).await.unwrap();
    assert_eq!(server.sql(now), "");
    assert!(!server.logs_in("app2", "0ld-canary"));
}

#[tokio::test]
async fn a_mark_that_is_refused_changes_nothing() {
    let server = Server::start();
    role(&server);
    let bench = bench(&server, "app");
    let before = server.sql(VERIFIER_OF_APP);
    *bench.host.on_mark.lock().unwrap() =
        Some(Box::new(|| Err(Failure::new("journal.refused", "no"))));
    let failure = run(&bench, params()).await.unwrap_err();
    assert_eq!(failure.code, "journal.refused");
    assert_eq!(server.sql(VERIFIER_OF_APP), before);
}

#[tokio::test]
async fn a_password_that_someone_else_set_is_left_alone() {
    let server = Server::start();
    role(&server);
    let mut bench = bench(&server, "app");
    let capture = run(&bench, params()).await.unwrap();
    server.sql("ALTER ROLE \"we ird\"\"r\" PASSWORD 'third'");
    let failure = undo(&mut bench, params(), &capture).await.unwrap_err();
    assert_eq!(failure.code, "sql.password_changed");
    assert!(server.logs_in("we ird\"r", "third"));
    // And with another secret under the same name, what was kept cannot be read.
    bench.secret("new", "something else");
    let failure = undo(&mut bench, params(), &capture).await.unwrap_err();
    assert_eq!(failure.code, "sql.password_sealed");
}

/// As on a managed service: a user who may change roles and not read their verifiers.
#[tokio::test]
async fn without_the_right_to_read_verifiers_the_way_back_must_be_given() {
    let server = Server::start();
    role(&server);
    server.sql("CREATE ROLE admin LOGIN CREATEROLE PASSWORD 'adm1n-canary'");
    let mut bench = bench(&server, "admin:adm1n-canary");
    for failure in [
        run(&bench, params()).await.unwrap_err(),
        bench
            .preview("sql.set_password", with(params()))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(failure.code, "sql.password_unreadable", "{failure:?}");
        assert!(failure.help.unwrap().contains("previous"));
    }
    assert!(server.logs_in("we ird\"r", "0ld-canary"));
    let mut given = params();
    given["previous"] = secret("old");
    let capture = run(&bench, given.clone()).await.unwrap();
    assert!(server.logs_in("we ird\"r", NEW));
    undo(&mut bench, given, &capture).await.unwrap();
    assert!(server.logs_in("we ird\"r", "0ld-canary"));
    let mut forward = params();
    forward["reversible"] = json!(false);
    run(&bench, forward).await.unwrap();
    assert!(server.logs_in("we ird\"r", NEW));
    // The password itself never went, whoever was asked to write it down.
    assert!(!server.log().contains("n3w"));
}

#[tokio::test]
async fn a_refusal_of_the_server_says_why_and_logs_no_verifier() {
    let server = Server::start();
    role(&server);
    server.sql("CREATE ROLE weak LOGIN PASSWORD 'weak'");
    let bench = bench(&server, "weak:weak");
    let mut forward = params();
    forward["reversible"] = json!(false);
    let from = server.log().len();
    let failure = run(&bench, forward).await.unwrap_err();
    assert!(failure.message.contains("permission denied"), "{failure:?}");
    assert!(!format!("{failure:?}").contains("SCRAM"), "{failure:?}");
    let log = server.log();
    let log = log.get(from..).unwrap();
    // A user who may not turn logging off: bound values are logged, the statement put together on the server is not.
    for line in log.lines().filter(|line| line.contains("SCRAM-SHA-256$")) {
        assert!(line.contains("DETAIL:  parameters: $1 = "), "{line}");
    }
    let missing = json!({"target": "pg", "role": "nobody", "password": secret("new")});
    let failure = run(&bench, missing).await.unwrap_err();
    assert_eq!(failure.code, "sql.no_role");
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
