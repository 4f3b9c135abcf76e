//! Waits.
use crate::testing::{Bench, fresh, try_step, with, woken};
use serde_json::json;
use std::time::Duration as StdDuration;
use windlass_engine::{
    step::{Cause, Failure, Outcome, Wait, WaitOn, Woken},
    value::{Duration, Value},
};

fn suspended(outcome: Result<Outcome<Value, Value>, Failure>) -> (Value, Wait) {
    match outcome.unwrap() {
        Outcome::Suspend { state, wait } => (state, wait),
        other @ (Outcome::Done(_) | Outcome::Checkpoint(_)) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_timer_keeps_its_instant() {
    let bench = Bench::new("");
    let hour = with(json!({"duration": "1h"}));
    let (state, first) = suspended(bench.outcome("wait.for", hour.clone(), fresh()).await);
    // After a crash it is called again with its state, and waits for the same instant.
    let again = windlass_engine::step::Resume {
        state,
        resumed: true,
        woken: None,
    };
    let (_, second) = suspended(bench.outcome("wait.for", hour.clone(), again).await);
    assert_eq!(first.on, second.on);
    let WaitOn::Timer(at) = first.on else {
        panic!("{first:?}")
    };
    let left = Duration::between(bench.context().now(), at);
    assert!(
        left > Duration::from_secs(3_590) && left <= Duration::from_secs(3_600),
        "{left}"
    );
    assert!(try_step("wait.for", &with(json!({"duration": "-1s"}))).is_err());
}

#[tokio::test]
async fn what_has_passed_is_no_wait() {
    let mut bench = Bench::new("");
    let output = bench
        .execute("wait.for", with(json!({"duration": "0s"})))
        .await
        .unwrap();
    assert!(matches!(output.get("until"), Some(Value::Timestamp(_))));
    bench
        .execute("wait.until", with(json!({"time": "2020-01-01T00:00:00Z"})))
        .await
        .unwrap();
    bench
        .execute(
            "wait.until",
            with(json!({"time": {"$timestamp": "2020-01-01T00:00:00Z"}})),
        )
        .await
        .unwrap();
    assert!(try_step("wait.until", &with(json!({"time": "tomorrow"}))).is_err());
    bench.timeout = Some(Duration::from_secs(60));
    let far = with(json!({"time": "2999-01-01T00:00:00Z"}));
    let (state, wait) = suspended(bench.outcome("wait.until", far.clone(), fresh()).await);
    assert!(wait.deadline.is_some(), "the step's timeout");
    let failure = bench
        .outcome("wait.until", far, woken(state, Woken::Deadline))
        .await
        .unwrap_err();
    assert_eq!(failure.cause, Cause::Timeout);
}

#[tokio::test]
async fn a_signal_brings_its_payload() {
    let bench = Bench::new("");
    let params = with(json!({"name": "moved", "expires": "1h"}));
    let (state, wait) = suspended(bench.outcome("wait.signal", params.clone(), fresh()).await);
    assert_eq!(wait.on, WaitOn::Signal("moved".to_owned()));
    assert!(wait.deadline.is_some());
    let came = woken(state.clone(), Woken::Signal(Value::Int(7)));
    let outcome = bench
        .outcome("wait.signal", params.clone(), came)
        .await
        .unwrap();
    assert_eq!(
        outcome,
        Outcome::Done(Value::map([("payload", Value::Int(7))]))
    );
    // Woken before it expires (somebody has set the clock back): it waits on.
    let early = woken(state.clone(), Woken::Deadline);
    suspended(bench.outcome("wait.signal", params.clone(), early).await);
    let mut bench = bench;
    bench.timeout = Some(Duration::ZERO);
    let failure = bench
        .outcome("wait.signal", params, woken(state, Woken::Deadline))
        .await
        .unwrap_err();
    assert_eq!(failure.cause, Cause::Timeout);
    assert!(try_step("wait.signal", &with(json!({"name": " "}))).is_err());
}

fn condition(extra: &[(&str, serde_json::Value)]) -> Value {
    let mut params = json!({"target": "db", "sql": "SELECT count(*) FROM t", "until": "value >= 2", "every": "20ms"});
    for (key, value) in extra {
        params[*key] = value.clone();
    }
    with(params)
}

#[tokio::test]
async fn a_condition_is_polled_until_it_holds() {
    let bench = Bench::new("CREATE TABLE t (a)");
    let writer = async {
        for _ in 0..2 {
            tokio::time::sleep(StdDuration::from_millis(60)).await;
            bench
                .connect()
                .execute_batch("INSERT INTO t VALUES (1)")
                .unwrap();
        }
    };
    let (output, ()) = tokio::join!(bench.execute("wait.condition", condition(&[])), writer);
    let output = output.unwrap();
    assert_eq!(
        output.get("answer").unwrap().get("value"),
        Some(&Value::Int(2))
    );
    assert!(output.get("polls").unwrap().as_int().unwrap() >= 2);
    assert!(
        bench.host.progress.lock().unwrap().is_empty(),
        "nothing is journalled meanwhile"
    );
}

#[tokio::test]
async fn a_condition_that_never_holds_times_out_with_the_last_answer() {
    let mut bench = Bench::new("CREATE TABLE t (a)");
    bench.timeout = Some(Duration::from_millis(150));
    let failure = bench
        .execute("wait.condition", condition(&[]))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.cause),
        ("wait.timeout", Cause::Timeout)
    );
    assert_eq!(failure.output.get("value"), Some(&Value::Int(0)));
}

#[tokio::test]
async fn errors_of_a_condition() {
    let mut bench = Bench::new("CREATE TABLE t (a)");
    bench.timeout = Some(Duration::from_secs(5));
    let missing = ("sql", json!("SELECT count(*) FROM later"));
    let failure = bench
        .execute("wait.condition", condition(std::slice::from_ref(&missing)))
        .await
        .unwrap_err();
    assert_eq!(failure.code, "sql.error", "on_error: fail is the default");
    let retry = ("on_error", json!("retry"));
    let maker = async {
        tokio::time::sleep(StdDuration::from_millis(80)).await;
        bench
            .connect()
            .execute_batch("CREATE TABLE later (a); INSERT INTO later VALUES (1), (2)")
            .unwrap();
    };
    let (output, ()) = tokio::join!(
        bench.execute("wait.condition", condition(&[missing, retry.clone()])),
        maker
    );
    output.unwrap();
    for until in ["value", "value > 'a'", "nothing"] {
        let failure = bench
            .execute(
                "wait.condition",
                condition(&[("until", json!(until)), retry.clone()]),
            )
            .await
            .unwrap_err();
        assert!(
            failure.code.starts_with("expression."),
            "{until}: a wrong expression stays wrong: {failure}"
        );
    }
}

#[tokio::test]
async fn a_condition_is_cancelled() {
    let bench = Bench::new("CREATE TABLE t (a)");
    let stop = async {
        tokio::time::sleep(StdDuration::from_millis(80)).await;
        bench.cancel.cancel();
    };
    let slow = condition(&[("every", json!("1h"))]);
    let (result, ()) = tokio::join!(bench.execute("wait.condition", slow), stop);
    assert_eq!(result.unwrap_err().cause, Cause::Cancelled);
}
