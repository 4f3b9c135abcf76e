//! SQL steps on real SQLite files.
use crate::testing::{Bench, fresh, sqlite_target, try_step, with};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration as StdDuration,
};
use windlass_engine::{
    step::{Cause, Certainty, Failure, Fidelity, Phase, Probed, Undoes},
    value::{Duration, SecretText, Value},
};

const ORDERS: &str = "CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT NOT NULL, paid BOOLEAN, price DECIMAL(10,2), raw BLOB);
INSERT INTO orders VALUES (1,'new',1,'1.50',x'00ff'),(2,'new',0,NULL,NULL),(3,'old',NULL,'2',NULL);";

/// Never ends by itself.
const FOREVER: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

fn update() -> Value {
    with(
        json!({"target": "db", "sql": "UPDATE orders SET state = :to WHERE state = :from",
        "params": {"to": "open", "from": "new"}}),
    )
}

fn new_rows(bench: &Bench) -> i64 {
    bench.value("SELECT count(*) FROM orders WHERE state = 'new'")
}

#[tokio::test]
async fn a_query_gives_exact_values() {
    let bench = Bench::new(
        "CREATE TABLE t (i INTEGER, r REAL, s TEXT, b BLOB, n, flag BOOLEAN, d DECIMAL TEXT);
         INSERT INTO t VALUES (9223372036854775807, 0.1, 'ünï', x'00ff', NULL, 1, '1.10');",
    );
    let output = bench
        .execute(
            "sql.query",
            with(json!({"target": "db", "sql": "SELECT *, 2 AS flag2 FROM t"})),
        )
        .await
        .unwrap();
    let row = output.get("row").unwrap();
    for (name, value) in [
        ("i", Value::Int(i64::MAX)),
        ("r", Value::Float(0.1)),
        ("s", Value::from("ünï")),
        ("b", Value::Bytes(vec![0, 255].into())),
        ("n", Value::Null),
        ("flag", Value::Bool(true)),
        ("flag2", Value::Int(2)),
    ] {
        assert_eq!(row.get(name), Some(&value), "{name}");
    }
    assert_eq!(output.get("value"), None, "more than one column");
    assert_eq!(output.get("row_count"), Some(&Value::Int(1)));
}

#[tokio::test]
async fn row_and_value_are_there_only_where_there_is_one() {
    let bench = Bench::new(ORDERS);
    let ask = |sql: &str| with(json!({"target": "db", "sql": sql, "max_result_rows": 2}));
    let output = bench
        .execute("sql.query", ask("SELECT price FROM orders WHERE id = 2"))
        .await
        .unwrap();
    assert_eq!(output.get("value"), Some(&Value::Null), "a NULL is a value");
    let output = bench
        .execute("sql.query", ask("SELECT id FROM orders WHERE id > 9"))
        .await
        .unwrap();
    assert_eq!((output.get("row"), output.get("value")), (None, None));
    let output = bench
        .execute("sql.query", ask("SELECT id FROM orders"))
        .await
        .unwrap();
    assert_eq!(output.get("truncated"), Some(&Value::Bool(true)));
    assert_eq!(output.get("row_count"), Some(&Value::Int(2)));
    let step = crate::testing::step("sql.query", ask("SELECT 1"));
    step.check_output(&output).unwrap();
}

#[tokio::test]
async fn a_query_cannot_write() {
    let bench = Bench::new(ORDERS);
    let before = bench.snapshot();
    for sql in [
        "DELETE FROM orders WHERE id = 1",
        "WITH x AS (SELECT 1) DELETE FROM orders WHERE id = 1",
        "CREATE TABLE x (a)",
        "VACUUM",
        "ATTACH 'other.db' AS other",
    ] {
        let params = with(json!({"target": "db", "sql": sql}));
        assert!(try_step("sql.query", &params).is_err(), "{sql}");
    }
    for sql in [
        "PRAGMA user_version = 7",
        "PRAGMA journal_mode = WAL",
        "EXPLAIN DELETE FROM orders",
    ] {
        let result = bench
            .execute("sql.query", with(json!({"target": "db", "sql": sql})))
            .await;
        if let Err(failure) = result {
            assert_eq!(failure.certainty, Certainty::NoEffect, "{sql}");
        }
        assert_eq!(bench.snapshot(), before, "{sql}");
    }
}

#[tokio::test]
async fn what_sqlite_itself_would_take_in_silence_is_refused() {
    let bench = Bench::new(ORDERS);
    for (sql, code) in [
        ("SELECT id, state AS id FROM orders", "sql.duplicate_column"),
        ("SELECT ?", "sql.placeholder"),
        ("SELECT @name", "sql.placeholder"),
        ("SELECT nothing FROM orders", "sql.error"),
    ] {
        let failure = bench
            .execute("sql.query", with(json!({"target": "db", "sql": sql})))
            .await
            .unwrap_err();
        assert_eq!(failure.code, code, "{sql}: {failure}");
    }
}

#[tokio::test]
async fn a_query_needs_its_file() {
    let bench = Bench::new(ORDERS);
    let missing = bench.folder.path().join("missing.db");
    bench.add(sqlite_target("gone", &missing));
    let ask = with(json!({"target": "gone", "sql": "SELECT 1"}));
    assert_eq!(
        bench
            .execute("sql.query", ask.clone())
            .await
            .unwrap_err()
            .code,
        "target.missing"
    );
    let preview = bench.preview("sql.query", ask).await.unwrap();
    assert_eq!(preview.fidelity, Fidelity::Unknown);
    assert!(!missing.exists());
}

#[tokio::test]
async fn text_stays_text_whatever_it_holds() {
    let bench = Bench::new(ORDERS);
    let evil = "x'; DROP TABLE orders; --";
    let output = bench
        .execute(
            "sql.query",
            with(json!({"target": "db", "sql": "SELECT :a AS v", "params": {"a": evil}})),
        )
        .await
        .unwrap();
    assert_eq!(output.get("value"), Some(&Value::from(evil)));
    let failure = bench
        .execute(
            "sql.query",
            with(json!({"target": "db", "sql": "SELECT * FROM :\"t\"",
            "params": {"t": "orders\"; DROP TABLE orders; --"}})),
        )
        .await
        .unwrap_err();
    assert_eq!(failure.code, "sql.error", "{failure}");
    bench
        .execute(
            "sql.execute",
            with(
                json!({"target": "db", "sql": "CREATE TABLE x AS SELECT :'v' AS v",
            "params": {"v": "a'; DROP TABLE orders; --"}}),
            ),
        )
        .await
        .unwrap();
    assert_eq!(
        bench.value::<String>("SELECT v FROM x"),
        "a'; DROP TABLE orders; --"
    );
    assert_eq!(bench.value::<i64>("SELECT count(*) FROM orders"), 3);
}

#[tokio::test]
async fn lists_bind_one_by_one() {
    let bench = Bench::new(ORDERS);
    let output = bench
        .execute(
            "sql.query",
            with(json!({"target": "db",
            "sql": "SELECT id FROM orders WHERE id IN (:ids) OR state IN ( :states ) ORDER BY id",
            "params": {"ids": [1, 2], "states": ["old"]}})),
        )
        .await
        .unwrap();
    assert_eq!(output.get("row_count"), Some(&Value::Int(3)));
    let failure = bench
        .execute(
            "sql.query",
            with(json!({"target": "db", "sql": "SELECT 1 IN (:l)", "params": {"l": []}})),
        )
        .await
        .unwrap_err();
    assert_eq!(failure.code, "sql.empty_list");
}

#[tokio::test]
async fn an_execute_marks_before_it_commits_and_tells_what_it_did() {
    let bench = Bench::new(ORDERS);
    let path = bench.path();
    let seen = Arc::new(AtomicBool::new(false));
    let at_mark = seen.clone();
    *bench.host.on_mark.lock().unwrap() = Some(Box::new(move || {
        let outside = rusqlite::Connection::open(&path).unwrap();
        let new: i64 = outside
            .query_row(
                "SELECT count(*) FROM orders WHERE state = 'new'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        at_mark.store(new == 2, Ordering::SeqCst);
        Ok(())
    }));
    let output = bench.execute("sql.execute", update()).await.unwrap();
    assert!(
        seen.load(Ordering::SeqCst),
        "at the mark nothing was committed yet"
    );
    assert_eq!(output.get("rows_affected"), Some(&Value::Int(2)));
    assert_eq!(new_rows(&bench), 0);
    let marks = bench.host.marks.lock().unwrap();
    assert_eq!(marks.len(), 1);
    assert_eq!(marks[0].output, output, "the mark holds the output");
}

#[tokio::test]
async fn a_mark_that_is_refused_takes_everything_back() {
    let bench = Bench::new(ORDERS);
    *bench.host.on_mark.lock().unwrap() = Some(Box::new(|| {
        Err(Failure::new("journal.refused", "another driver"))
    }));
    let failure = bench.execute("sql.execute", update()).await.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.certainty),
        ("journal.refused", Certainty::NoEffect)
    );
    assert_eq!(new_rows(&bench), 2);
    assert_eq!(
        bench.probe("sql.execute", update()).await.unwrap(),
        Probed::NotDone
    );
}

#[tokio::test]
async fn guards_take_everything_back() {
    let bench = Bench::new(ORDERS);
    let guarded = |key: &str, value: serde_json::Value| {
        let mut all =
            json!({"target": "db", "sql": "UPDATE orders SET state = 'x' WHERE state = 'new'"});
        all[key] = value;
        with(all)
    };
    for (key, value) in [
        ("expect_rows", json!(3)),
        ("expect_rows", json!("rows_affected == 1")),
        ("max_rows", json!(1)),
    ] {
        let failure = bench
            .execute("sql.execute", guarded(key, value.clone()))
            .await
            .unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.cause),
            ("sql.guard", Cause::Refused),
            "{key}"
        );
        assert_eq!(new_rows(&bench), 2, "{key} {value}");
    }
    let failure = bench
        .execute("sql.execute", guarded("expect_rows", json!("'two'")))
        .await
        .unwrap_err();
    assert_eq!(failure.code, "expression.type");
    bench
        .execute("sql.execute", guarded("expect_rows", json!(2)))
        .await
        .unwrap();
    assert_eq!(new_rows(&bench), 0);
}

#[test]
fn what_is_wrong_before_anything_runs() {
    for (kind, params, wanted) in [
        (
            "sql.execute",
            json!({"target": "db", "sql": "DELETE FROM orders"}),
            "without WHERE",
        ),
        (
            "sql.script",
            json!({"target": "db", "sql": "SELECT 1; UPDATE orders SET a = 1"}),
            "statement 2",
        ),
        (
            "sql.execute",
            json!({"target": "db", "sql": "SELECT 1; SELECT 2"}),
            "one statement",
        ),
        (
            "sql.execute",
            json!({"target": "db", "sql": "COMMIT"}),
            "transaction of the step",
        ),
        (
            "sql.execute",
            json!({"target": "db", "sql": "VACUUM", "transaction": "none", "max_rows": 1}),
            "guard",
        ),
        (
            "sql.execute",
            json!({"target": "db", "sql": "SELECT 1", "lock_timeout": "0s"}),
            "longer than nothing",
        ),
        (
            "sql.query",
            json!({"target": "db", "sql": "SELECT 1", "max_result_rows": 0}),
            "between 1",
        ),
        (
            "sql.query",
            json!({"target": "db", "sql": " -- nothing"}),
            "no statement",
        ),
        (
            "sql.query",
            json!({"target": "db", "sql": "SELECT 'x"}),
            "no end",
        ),
        (
            "sql.query",
            json!({"target": "db", "sql": "SELECT 1", "paramz": {}}),
            "unknown field",
        ),
    ] {
        let errors = try_step(kind, &with(params)).err().unwrap_or_default();
        assert!(
            errors.iter().any(|error| error.message.contains(wanted)),
            "{wanted}: {errors:?}"
        );
    }
    let all = json!({"target": "db", "sql": "DELETE FROM orders", "all_rows": true});
    assert!(try_step("sql.execute", &with(all)).is_ok());
}

#[tokio::test]
async fn returning_and_ids() {
    let bench = Bench::new(ORDERS);
    let output = bench
        .execute("sql.execute", with(json!({"target": "db",
            "sql": "INSERT INTO orders (state) VALUES ('a'), ('b') RETURNING id, state", "max_result_rows": 1})))
        .await
        .unwrap();
    assert_eq!(output.get("last_insert_id"), Some(&Value::Int(5)));
    assert_eq!(output.get("rows_affected"), Some(&Value::Int(2)));
    assert_eq!(output.get("truncated"), Some(&Value::Bool(true)));
    assert_eq!(
        bench.value::<i64>("SELECT count(*) FROM orders"),
        5,
        "rows beyond the cap are written too"
    );
}

#[tokio::test]
async fn a_secret_reaches_the_database_and_nothing_else() {
    let bench = Bench::new("CREATE TABLE t (v TEXT CHECK (v <> 's3cr3t-canary' OR 1))");
    let mut params = json!({"target": "db", "sql": "INSERT INTO t VALUES (:pw)"});
    params["params"] = json!({"pw": serde_json::to_value(Value::Secret(Arc::new(SecretText::reference("pw")))).unwrap()});
    let preview = bench
        .preview("sql.execute", with(params.clone()))
        .await
        .unwrap();
    assert_eq!(preview.secrets, ["pw"]);
    let output = bench.execute("sql.execute", with(params)).await.unwrap();
    assert_eq!(bench.value::<String>("SELECT v FROM t"), "s3cr3t-canary");
    let told = format!(
        "{preview:?}{output:?}{:?}",
        bench.host.marks.lock().unwrap()
    );
    assert!(!told.contains("canary"), "{told}");
}

#[tokio::test]
async fn with_a_ledger_the_row_decides() {
    let mut bench = Bench::new(ORDERS);
    bench.target(|target| target.ledger = Some("windlass_ledger".to_owned()));
    let output = bench.execute("sql.execute", update()).await.unwrap();
    assert_eq!(bench.host.marks.lock().unwrap()[0].output, output);
    assert_eq!(
        bench.probe("sql.execute", update()).await.unwrap(),
        Probed::Done(None)
    );
    // Another attempt has a key of its own.
    (bench.attempt, bench.done_attempt) = (2, 1);
    bench.execute("sql.execute", update()).await.unwrap();
    assert_eq!(
        bench.value::<i64>("SELECT count(*) FROM windlass_ledger"),
        2
    );
}

#[tokio::test]
async fn not_done_cannot_become_false() {
    let bench = Bench::new(ORDERS);
    bench.target(|target| target.ledger = Some("ledger".to_owned()));
    // The mark is written, the process dies before COMMIT: nothing is there, and the probe takes the key.
    bench
        .execute(
            "sql.execute",
            with(json!({"target": "db", "sql": "SELECT 1"})),
        )
        .await
        .unwrap();
    bench.connect().execute_batch("DELETE FROM ledger").unwrap();
    assert_eq!(
        bench.probe("sql.execute", update()).await.unwrap(),
        Probed::NotDone
    );
    assert_eq!(
        bench.probe("sql.execute", update()).await.unwrap(),
        Probed::NotDone,
        "again"
    );
    let failure = bench.execute("sql.execute", update()).await.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.certainty),
        ("sql.voided", Certainty::NoEffect)
    );
    assert_eq!(new_rows(&bench), 2);
}

#[tokio::test]
async fn a_commit_that_is_late_loses_against_the_probe() {
    let bench = Arc::new(Bench::new(ORDERS));
    bench.target(|target| target.ledger = Some("ledger".to_owned()));
    // The probe needs the lock that the late transaction holds, so one of the two comes first.
    let holder = bench.connect();
    holder
        .execute_batch(
            "BEGIN IMMEDIATE;
             CREATE TABLE ledger (run TEXT, node TEXT, phase TEXT, attempt INTEGER, state TEXT, at TEXT, PRIMARY KEY (run, node, phase, attempt));
             INSERT INTO ledger VALUES ('run-0000-1', 'step', 'do', 1, 'done', '');
             UPDATE orders SET state = 'open' WHERE state = 'new';",
        )
        .unwrap();
    bench
        .host
        .marks
        .lock()
        .unwrap()
        .push(windlass_engine::step::Mark {
            token: Value::map([
                ("ledger", Value::from("ledger")),
                ("attempt", Value::Int(1)),
            ]),
            capture: None,
            output: Value::Null,
        });
    let asking = bench.clone();
    let probe = async move { asking.probe("sql.execute", update()).await };
    let late = async {
        tokio::time::sleep(StdDuration::from_millis(150)).await;
        holder.execute_batch("COMMIT").unwrap();
    };
    let (probed, ()) = tokio::join!(probe, late);
    assert_eq!(probed.unwrap(), Probed::Done(None));
}

/// Attempts of which the journal knows that they took effect were undone since; of any other, it has lost the history.
#[tokio::test]
async fn a_row_that_the_journal_does_not_know_is_a_doubt() {
    for (known, row, acts) in [
        (0, 1, false),
        (1, 1, true),
        (1, 2, false),
        (1, 3, false),
        (0, 3, false),
    ] {
        let mut bench = Bench::new(&format!(
            "CREATE TABLE t (x); \
             CREATE TABLE ledger (run TEXT, node TEXT, phase TEXT, attempt INTEGER, state TEXT, at TEXT, PRIMARY KEY (run, node, phase, attempt));
             INSERT INTO ledger VALUES ('run-0000-1', 'step', 'do', {row}, 'done', ''), ('run-0000-1', 'step', 'undo', 9, 'done', ''),
               ('run-0000-1', 'other', 'do', 9, 'done', ''), ('run-0000-2', 'step', 'do', 9, 'done', '')"
        ));
        bench.target(|target| target.ledger = Some("ledger".to_owned()));
        (bench.attempt, bench.done_attempt) = (2, known);
        let insert = || with(json!({"target": "db", "sql": "INSERT INTO t VALUES (1)"}));
        let what = format!("known {known}, row {row}");
        let done = bench.execute("sql.execute", insert()).await;
        assert_eq!(
            bench.value::<i64>("SELECT count(*) FROM t"),
            i64::from(acts),
            "{what}"
        );
        if acts {
            done.unwrap();
            continue;
        }
        let failure = done.unwrap_err();
        let seen = (failure.code.as_str(), failure.certainty);
        assert_eq!(seen, ("sql.already_done", Certainty::Unknown), "{what}");
        match bench.probe("sql.execute", insert()).await.unwrap() {
            Probed::Unexplained(why) => assert!(why.contains("backup"), "{what}: {why}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

const ACCOUNT: &str = "CREATE TABLE acct (v INTEGER); INSERT INTO acct VALUES (1);";

fn add(by: i64) -> Value {
    with(
        json!({"target": "db", "sql": "UPDATE acct SET v = v + :by", "params": {"by": by}, "all_rows": true}),
    )
}

fn balance(bench: &Bench) -> i64 {
    bench.value("SELECT v FROM acct")
}

/// A step that added 100, with the ledger that is given; what comes next is its undo.
async fn added(ledger: Option<&str>) -> Bench {
    let mut bench = Bench::new(ACCOUNT);
    bench.target(|target| target.ledger = ledger.map(str::to_owned));
    bench.execute("sql.execute", add(100)).await.unwrap();
    assert_eq!(balance(&bench), 101);
    bench.phase = Phase::Undo;
    bench.undoes = Some(Undoes {
        attempt: 1,
        mark: bench.host.marks.lock().unwrap()[0].clone(),
        targets: vec![bench.context().target("db").unwrap()],
    });
    bench
}

/// The three ways in which SQL may take back what the step added.
fn takings() -> [(&'static str, Value); 3] {
    let sql = "UPDATE acct SET v = v - 100";
    let all = |more: serde_json::Value| {
        let mut all = json!({"target": "db", "sql": sql, "all_rows": true});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        with(all)
    };
    [
        ("sql.execute", add(-100)),
        ("sql.script", all(json!({}))),
        ("sql.script", all(json!({"transaction": "none"}))),
    ]
}

#[tokio::test]
async fn what_the_ledger_has_lost_is_not_undone() {
    for lost in [
        // A state of before the step, and one in which the row is void.
        "DELETE FROM ledger; UPDATE acct SET v = 1",
        "UPDATE ledger SET state = 'void'; UPDATE acct SET v = 1",
        "DROP TABLE ledger; UPDATE acct SET v = 1",
        // An earlier attempt, of which the effect was taken back since.
        "UPDATE ledger SET attempt = 0; UPDATE acct SET v = 1",
    ] {
        for (kind, undo) in takings() {
            let bench = added(Some("ledger")).await;
            bench.connect().execute_batch(lost).unwrap();
            let before = bench.snapshot();
            let failure = bench.execute(kind, undo).await.unwrap_err();
            assert_eq!(
                (failure.code.as_str(), failure.cause, failure.certainty),
                ("sql.nothing_to_undo", Cause::Permanent, Certainty::NoEffect),
                "{lost}: {failure:?}"
            );
            assert!(
                failure.message.starts_with(
                    "the ledger ledger of db does not hold the row of attempt 1 of this step"
                ),
                "{failure:?}"
            );
            let help = failure.help.unwrap();
            assert!(
                help.contains("`windlass resolve 000000-1 step --done --because …`"),
                "{help}"
            );
            assert_eq!(bench.snapshot(), before, "{lost}");
            assert_eq!(bench.host.marks.lock().unwrap().len(), 1, "{lost}");
        }
    }
}

#[tokio::test]
async fn a_file_that_was_put_back_from_a_copy_is_not_undone() {
    let mut bench = Bench::new(ACCOUNT);
    bench.target(|target| target.ledger = Some("ledger".to_owned()));
    let copy = bench.folder.path().join("copy");
    std::fs::copy(bench.path(), &copy).unwrap();
    bench.execute("sql.execute", add(100)).await.unwrap();
    std::fs::copy(&copy, bench.path()).unwrap();
    bench.phase = Phase::Undo;
    bench.undoes = Some(Undoes {
        attempt: 1,
        mark: bench.host.marks.lock().unwrap()[0].clone(),
        targets: vec![bench.context().target("db").unwrap()],
    });
    let failure = bench.execute("sql.execute", add(-100)).await.unwrap_err();
    assert_eq!(failure.code, "sql.nothing_to_undo");
    assert_eq!(balance(&bench), 1);
}

#[tokio::test]
async fn what_the_ledger_holds_is_undone() {
    for (kind, undo) in takings() {
        let mut bench = added(Some("ledger")).await;
        // Crashed before the COMMIT: the probe takes its key, and another attempt undoes it.
        *bench.host.on_mark.lock().unwrap() = Some(Box::new(|| Err(Failure::new("died", "died"))));
        bench.execute(kind, undo.clone()).await.unwrap_err();
        assert_eq!(balance(&bench), 101, "{kind}");
        *bench.host.on_mark.lock().unwrap() = None;
        bench.attempt = 2;
        bench.execute(kind, undo).await.unwrap();
        assert_eq!(balance(&bench), 1, "{kind}");
    }
}

/// Crashed behind its COMMIT, and then the server lost what the step did together with its undo.
#[tokio::test]
async fn an_undo_that_the_ledger_has_lost_with_its_step_is_not_repeated() {
    let mut bench = added(Some("ledger")).await;
    bench.execute("sql.execute", add(-100)).await.unwrap();
    let probed = bench.probe("sql.execute", add(-100)).await.unwrap();
    assert_eq!(probed, Probed::Done(None));
    bench.connect().execute_batch("DELETE FROM ledger").unwrap();
    let probed = bench.probe("sql.execute", add(-100)).await.unwrap();
    assert_eq!(probed, Probed::NotDone);
    bench.attempt = 2;
    let failure = bench.execute("sql.execute", add(-100)).await.unwrap_err();
    assert_eq!(failure.code, "sql.nothing_to_undo");
    assert_eq!(balance(&bench), 1);
}

#[tokio::test]
async fn an_undo_asks_the_ledger_only_of_its_own_step_and_target() {
    type Change = fn(&mut Bench);
    let changes: [(&str, Option<&str>, Change); 5] = [
        ("no ledger", None, |_| ()),
        ("a person settled it", Some("ledger"), |bench| {
            bench.undoes = None
        }),
        ("another target", Some("ledger"), |bench| {
            bench.undoes.as_mut().unwrap().targets[0].name = "other".to_owned();
        }),
        ("the same name for another place", Some("ledger"), |bench| {
            bench.undoes.as_mut().unwrap().targets[0].url = Value::from("sqlite:other.db");
        }),
        ("a mark of another attempt", Some("ledger"), |bench| {
            bench.undoes.as_mut().unwrap().attempt = 2;
        }),
    ];
    for (what, ledger, change) in changes {
        let mut bench = added(ledger).await;
        change(&mut bench);
        if ledger.is_some() {
            bench.connect().execute_batch("DELETE FROM ledger").unwrap();
        }
        let done = bench.execute("sql.execute", add(-100)).await;
        assert!(done.is_ok(), "{what}: {done:?}");
        assert_eq!(balance(&bench), 1, "{what}");
    }
}

/// The ledger that the step wrote into is asked, whatever the environment names since.
#[tokio::test]
async fn an_undo_asks_the_ledger_that_its_step_wrote_into() {
    for now in [None, Some("another")] {
        let bench = added(Some("ledger")).await;
        bench.target(|target| target.ledger = now.map(str::to_owned));
        bench.execute("sql.execute", add(-100)).await.unwrap();
        let bench = added(Some("ledger")).await;
        bench.target(|target| target.ledger = now.map(str::to_owned));
        bench.connect().execute_batch("DELETE FROM ledger").unwrap();
        let failure = bench.execute("sql.execute", add(-100)).await.unwrap_err();
        assert_eq!(failure.code, "sql.nothing_to_undo");
    }
}

#[tokio::test]
async fn without_a_ledger_a_mark_is_a_doubt() {
    let bench = Bench::new(ORDERS);
    assert_eq!(
        bench.probe("sql.execute", update()).await.unwrap(),
        Probed::NotDone,
        "no mark"
    );
    bench.execute("sql.execute", update()).await.unwrap();
    match bench.probe("sql.execute", update()).await.unwrap() {
        Probed::InDoubt(why) => assert!(why.contains("ledger"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_statement_that_runs_forever_is_ended() {
    let mut bench = Bench::new(ORDERS);
    bench.timeout = Some(Duration::from_millis(300));
    let writing = format!("INSERT INTO orders (state) {FOREVER}");
    for (kind, sql) in [
        ("sql.query", FOREVER),
        ("sql.execute", &writing),
        ("sql.script", &writing),
    ] {
        let started = tokio::time::Instant::now();
        let failure = bench
            .execute(kind, with(json!({"target": "db", "sql": sql})))
            .await
            .unwrap_err();
        assert!(
            started.elapsed() < StdDuration::from_secs(2),
            "{kind}: {:?}",
            started.elapsed()
        );
        assert_eq!(
            (failure.cause, failure.certainty),
            (Cause::Timeout, Certainty::NoEffect),
            "{kind}"
        );
    }
    // The lock is free again.
    bench.timeout = None;
    bench.execute("sql.execute", update()).await.unwrap();
}

#[tokio::test]
async fn the_target_has_a_timeout_where_the_step_has_none() {
    let bench = Bench::new(ORDERS);
    bench.target(|target| {
        target
            .options
            .insert("statement_timeout".to_owned(), Value::from("200ms"));
    });
    let failure = bench
        .execute("sql.query", with(json!({"target": "db", "sql": FOREVER})))
        .await
        .unwrap_err();
    assert_eq!(failure.cause, Cause::Timeout);
}

#[tokio::test]
async fn a_cancel_ends_the_statement() {
    let bench = Bench::new(ORDERS);
    let cancel = bench.cancel.clone();
    let running = bench.execute("sql.query", with(json!({"target": "db", "sql": FOREVER})));
    let stop = async {
        tokio::time::sleep(StdDuration::from_millis(100)).await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(running, stop);
    let failure = result.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.cause),
        ("sql.cancelled", Cause::Cancelled)
    );
}

#[tokio::test]
async fn a_lock_is_awaited_and_then_given_up() {
    let bench = Bench::new(ORDERS);
    let holder = bench.connect();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut params = json!({"target": "db", "sql": "UPDATE orders SET state = 'x' WHERE id = 1", "lock_timeout": "150ms"});
    let failure = bench
        .execute("sql.execute", with(params.clone()))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.cause, failure.certainty),
        (Cause::LockTimeout, Certainty::NoEffect)
    );
    params["lock_timeout"] = json!("5s");
    let free = async {
        tokio::time::sleep(StdDuration::from_millis(100)).await;
        holder.execute_batch("ROLLBACK").unwrap();
    };
    let (result, ()) = tokio::join!(bench.execute("sql.execute", with(params)), free);
    assert_eq!(result.unwrap().get("rows_affected"), Some(&Value::Int(1)));
}

#[tokio::test]
async fn a_commit_that_a_reader_blocks_is_taken_back_for_certain() {
    let bench = Bench::new(ORDERS);
    let reader = bench.connect();
    reader.execute_batch("BEGIN; SELECT * FROM orders").unwrap();
    let mut statement = reader.prepare("SELECT id FROM orders").unwrap();
    let mut rows = statement.query([]).unwrap();
    rows.next().unwrap();
    let failure = bench
        .execute(
            "sql.execute",
            with(json!({"target": "db", "lock_timeout": "100ms",
            "sql": "UPDATE orders SET state = 'x' WHERE id = 1"})),
        )
        .await
        .unwrap_err();
    assert_eq!(
        (failure.cause, failure.certainty),
        (Cause::LockTimeout, Certainty::NoEffect)
    );
    assert_eq!(
        bench.host.marks.lock().unwrap().len(),
        1,
        "it came as far as the mark"
    );
    drop(rows);
    drop(statement);
    drop(reader);
    assert_eq!(new_rows(&bench), 2);
}

#[tokio::test]
async fn previews_write_nothing() {
    let bench = Bench::new(ORDERS);
    bench.target(|target| target.ledger = Some("ledger".to_owned()));
    let before = bench.snapshot();
    let script =
        with(json!({"target": "db", "sql": "CREATE TABLE x (a); INSERT INTO x VALUES (1)"}));
    let dml = with(
        json!({"target": "db", "sql": "DELETE FROM orders WHERE id = 1; UPDATE orders SET state = 'x' WHERE 1"}),
    );
    let preview = bench.preview("sql.execute", update()).await.unwrap();
    assert_eq!(preview.fidelity, Fidelity::Estimated, "{preview:?}");
    assert!(
        preview
            .lines
            .iter()
            .any(|line| line.text.contains("SET state = 'open'")),
        "{preview:?}"
    );
    assert!(
        preview
            .lines
            .iter()
            .any(|line| line.text.contains("SCAN orders")),
        "{preview:?}"
    );
    assert_eq!(
        preview.binding.get("sql").and_then(Value::as_str),
        update().get("sql").and_then(Value::as_str)
    );
    let preview = bench.rehearse("sql.execute", update()).await.unwrap();
    assert_eq!(
        (preview.fidelity, preview.summary.as_str()),
        (Fidelity::RolledBack, "would affect 2 rows")
    );
    let preview = bench.rehearse("sql.script", dml.clone()).await.unwrap();
    assert!(preview.summary.contains("affect 3 rows"), "{preview:?}");
    for params in [script, dml] {
        bench.preview("sql.script", params.clone()).await.unwrap();
        bench.rehearse("sql.script", params).await.unwrap();
    }
    let preview = bench
        .preview(
            "sql.query",
            with(json!({"target": "db", "sql": "SELECT count(*) AS n FROM orders"})),
        )
        .await
        .unwrap();
    assert_eq!(
        (preview.fidelity, preview.summary.as_str()),
        (Fidelity::Executed, "gives 3")
    );
    assert!(preview.output.unwrap().get("value").is_some());
    assert_eq!(bench.snapshot(), before);
    assert!(bench.host.marks.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_preview_creates_no_file() {
    let bench = Bench::new(ORDERS);
    let path = bench.folder.path().join("new.db");
    let mut target = sqlite_target("new", &path);
    target
        .options
        .insert("create".to_owned(), Value::Bool(true));
    bench.add(target);
    let params = with(json!({"target": "new", "sql": "CREATE TABLE t (a)"}));
    for preview in [
        bench.preview("sql.execute", params.clone()).await.unwrap(),
        bench.rehearse("sql.script", params.clone()).await.unwrap(),
    ] {
        assert_eq!(preview.fidelity, Fidelity::Unknown);
    }
    assert!(!path.exists());
    bench.execute("sql.execute", params).await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn a_script_is_one_transaction() {
    let bench = Bench::new(ORDERS);
    let script = |sql: &str| with(json!({"target": "db", "sql": sql, "params": {"v": "x"}}));
    let failure = bench
        .execute("sql.script", script("UPDATE orders SET state = :v WHERE id = 1;\nCREATE TABLE a (b);\nINSERT INTO nowhere VALUES (1)"))
        .await
        .unwrap_err();
    assert!(
        failure
            .message
            .starts_with("statement 3 of 3 (INSERT INTO nowhere"),
        "{failure}"
    );
    assert_eq!(failure.certainty, Certainty::NoEffect);
    assert_eq!(new_rows(&bench), 2);
    let output = bench
        .execute("sql.script", script(
            "CREATE TABLE log (v);
             CREATE TRIGGER t AFTER UPDATE ON orders BEGIN INSERT INTO log VALUES (new.state); DELETE FROM log WHERE v = ';'; END;
             UPDATE orders SET state = :v WHERE state = 'new'",
        ))
        .await
        .unwrap();
    assert_eq!(output.get("rows_affected"), Some(&Value::Int(2)));
    assert_eq!(
        output.get("statements").unwrap().as_list().unwrap().len(),
        3
    );
    assert_eq!(bench.value::<i64>("SELECT count(*) FROM log"), 2);
}

#[tokio::test]
async fn a_script_without_a_transaction_says_how_far_it_came() {
    let bench = Bench::new(ORDERS);
    let params = with(json!({"target": "db", "transaction": "none",
        "sql": "UPDATE orders SET state = 'x' WHERE id = 1; VACUUM; INSERT INTO nowhere VALUES (1); DELETE FROM orders WHERE id = 2"}));
    let failure = bench
        .execute("sql.script", params.clone())
        .await
        .unwrap_err();
    assert_eq!(failure.certainty, Certainty::Partial);
    assert!(failure.message.starts_with("statement 3 of 4"), "{failure}");
    assert_eq!(
        failure
            .output
            .get("statements")
            .unwrap()
            .as_list()
            .unwrap()
            .len(),
        2,
        "{failure:?}"
    );
    let state = bench.host.progress.lock().unwrap().last().cloned().unwrap();
    // After a crash it goes on behind the last checkpoint.
    bench
        .connect()
        .execute_batch("CREATE TABLE nowhere (a); UPDATE orders SET state = 'y' WHERE id = 1")
        .unwrap();
    let resume = windlass_engine::step::Resume {
        state,
        resumed: true,
        woken: None,
    };
    bench.outcome("sql.script", params, resume).await.unwrap();
    assert_eq!(
        bench.value::<String>("SELECT state FROM orders WHERE id = 1"),
        "y",
        "not run again"
    );
    assert_eq!(bench.value::<i64>("SELECT count(*) FROM orders"), 2);
    let failure = bench
        .outcome("sql.script", with(json!({"target": "db", "transaction": "none", "sql": "INSERT INTO missing VALUES (1)"})), fresh())
        .await
        .unwrap_err();
    assert_eq!(failure.certainty, Certainty::NoEffect, "the first one");
}

#[tokio::test]
async fn without_a_transaction_only_a_person_can_tell() {
    let bench = Bench::new(ORDERS);
    let copy = bench.folder.path().join("copy.db");
    let params = with(
        json!({"target": "db", "sql": "VACUUM INTO :path", "transaction": "none",
        "params": {"path": copy.display().to_string()}}),
    );
    bench.execute("sql.execute", params.clone()).await.unwrap();
    assert!(copy.exists());
    assert!(matches!(
        bench.probe("sql.execute", params.clone()).await.unwrap(),
        Probed::InDoubt(_)
    ));
    let kind = crate::registry();
    let traits = (kind.kind("sql.execute").unwrap().traits_of)(&params);
    assert_eq!(traits.redo, windlass_engine::step::Redo::AskOperator);
}

#[tokio::test]
async fn options_of_a_target_are_checked() {
    let bench = Bench::new(ORDERS);
    let ask = || with(json!({"target": "db", "sql": "SELECT 1"}));
    for (key, value, code) in [
        ("pool", Value::Int(3), "target.option"),
        ("busy_timeout", Value::from("soon"), "target.option"),
        ("statement_timeout", Value::from("0s"), "target.option"),
        ("create", Value::from("yes"), "target.option"),
    ] {
        bench.target(|target| {
            target.options.clear();
            target.options.insert(key.to_owned(), value);
        });
        assert_eq!(
            bench.execute("sql.query", ask()).await.unwrap_err().code,
            code,
            "{key}"
        );
    }
    bench.target(|target| {
        target.options.clear();
        target
            .options
            .insert("read_only".to_owned(), Value::Bool(true));
    });
    bench.execute("sql.query", ask()).await.unwrap();
    assert_eq!(
        bench
            .execute("sql.execute", update())
            .await
            .unwrap_err()
            .code,
        "target.read_only"
    );
}
