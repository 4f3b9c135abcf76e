//! Real programs.
use crate::testing::{Bench, step, try_step, with};
use serde_json::json;
use std::{path::Path, sync::Arc, time::Duration as StdDuration};
use windlass_engine::{
    step::{Cause, Certainty, Effect, Failure, Redo, UndoSupport},
    value::{Duration, SecretText, Value},
};

async fn run(bench: &Bench, params: serde_json::Value) -> Result<Value, Failure> {
    bench.execute("command", with(params)).await
}

fn text<'a>(output: &'a Value, key: &str) -> &'a str {
    output.get(key).unwrap().as_str().unwrap()
}

#[tokio::test]
async fn arguments_go_as_they_are() {
    let bench = Bench::new("");
    let output = run(
        &bench,
        json!({"argv": ["printf", "%s|", "a b", "$HOME", "`id`", "; rm", 14]}),
    )
    .await
    .unwrap();
    assert_eq!(text(&output, "stdout"), "a b|$HOME|`id`|; rm|14|");
    assert_eq!(output.get("exit_code"), Some(&Value::Int(0)));
}

#[tokio::test]
async fn only_the_named_environment_is_there() {
    let bench = Bench::new("");
    let secret =
        serde_json::to_value(Value::Secret(Arc::new(SecretText::reference("pw")))).unwrap();
    let output = run(
        &bench,
        json!({"argv": ["env"], "parse": "lines", "env": {"A": "1", "PW": secret}}),
    )
    .await
    .unwrap();
    let mut lines: Vec<String> = output
        .get("value")
        .unwrap()
        .as_list()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    lines.retain(|line| !line.starts_with("PATH="));
    assert_eq!(lines, ["A=1", "PW=s3cr3t-canary"]);
    let secret =
        serde_json::to_value(Value::Secret(Arc::new(SecretText::reference("pw")))).unwrap();
    let errors = try_step("command", &with(json!({"argv": ["echo", secret]})))
        .err()
        .unwrap();
    assert!(errors[0].message.contains("secret"), "{errors:?}");
}

#[tokio::test]
async fn input_folder_and_forms_of_output() {
    let bench = Bench::new("");
    let folder = bench
        .folder
        .path()
        .canonicalize()
        .unwrap()
        .display()
        .to_string();
    let output = run(&bench, json!({"argv": ["pwd"], "cwd": folder}))
        .await
        .unwrap();
    assert_eq!(text(&output, "value"), folder);
    let output = run(&bench, json!({"argv": ["cat"], "stdin": "{\"n\": 18446744073709551615, \"s\": {\"$secret\": [{\"secret\": \"pw\"}]}}", "parse": "json"})).await.unwrap();
    let value = output.get("value").unwrap();
    assert_eq!(value.get("n").unwrap().to_string(), "18446744073709551615");
    assert!(
        value.get("s").unwrap().as_map().is_some(),
        "output of a program is never a reference to a secret"
    );
    let failure = run(&bench, json!({"argv": ["echo", "no"], "parse": "json"}))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.certainty),
        ("command.output", Certainty::Partial)
    );
    // A program that does not read its input is no failure.
    run(
        &bench,
        json!({"argv": ["true"], "stdin": "x".repeat(1 << 20)}),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn an_exit_code_that_is_not_expected() {
    let bench = Bench::new("");
    let script = "echo out; echo first >&2; echo last words >&2; exit 3";
    let failure = run(&bench, json!({"argv": ["sh", "-c", script]}))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.certainty),
        ("command.exit", Certainty::Partial)
    );
    assert!(
        failure.message.ends_with("exit code 3: last words"),
        "{failure}"
    );
    assert_eq!(text(&failure.output, "stdout"), "out\n");
    let evidence: Vec<String> = bench
        .host
        .evidence
        .lock()
        .unwrap()
        .iter()
        .map(|e| e.name.clone())
        .collect();
    assert_eq!(evidence, ["stdout", "stderr"]);
    run(
        &bench,
        json!({"argv": ["sh", "-c", script], "expect_exit": [0, 3]}),
    )
    .await
    .unwrap();
    let failure = run(
        &bench,
        json!({"argv": ["sh", "-c", "exit 1"], "effect": "reads"}),
    )
    .await
    .unwrap_err();
    assert_eq!(failure.certainty, Certainty::NoEffect);
    let failure = run(&bench, json!({"argv": ["sh", "-c", "kill -9 $$"]}))
        .await
        .unwrap_err();
    assert_eq!(failure.code, "command.signal");
    let failure = run(&bench, json!({"argv": ["/no/such/program"]}))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.certainty),
        ("command.not_started", Certainty::NoEffect)
    );
}

#[tokio::test]
async fn output_is_capped() {
    let bench = Bench::new("");
    let output = run(
        &bench,
        json!({"argv": ["sh", "-c", "yes line | head -c 300000"], "max_output": "1000B"}),
    )
    .await
    .unwrap();
    assert_eq!(text(&output, "stdout").len(), 1000);
    assert_eq!(output.get("truncated"), Some(&Value::Bool(true)));
    let evidence = bench.host.evidence.lock().unwrap();
    assert_eq!((evidence[0].size, evidence[0].truncated), (300_000, true));
}

/// Whether a process lives: not gone, and not dead and unreaped.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim().starts_with('Z'))
}

async fn grandchild(file: &Path) -> String {
    loop {
        match std::fs::read_to_string(file) {
            Ok(pid) if pid.ends_with('\n') => return pid.trim().to_owned(),
            _ => tokio::time::sleep(StdDuration::from_millis(10)).await,
        }
    }
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group() {
    let mut bench = Bench::new("");
    bench.timeout = Some(Duration::from_millis(500));
    let file = bench.folder.path().join("pid");
    let script = format!("sleep 300 & echo $! > {}; wait", file.display());
    let started = tokio::time::Instant::now();
    let failure = run(&bench, json!({"argv": ["sh", "-c", script]}))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.cause),
        ("command.timeout", Cause::Timeout)
    );
    let pid = grandchild(&file).await;
    assert!(!lives(&pid), "the grandchild {pid} runs on");
    assert!(started.elapsed() < StdDuration::from_secs(10));
}

#[tokio::test]
async fn a_cancel_kills_what_does_not_want_to_end() {
    let bench = Bench::new("");
    let file = bench.folder.path().join("pid");
    let script = format!(
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 1; done'",
        file.display()
    );
    let params = json!({"argv": ["sh", "-c", script]});
    let stop = async {
        let pid = grandchild(&file).await;
        bench.cancel.cancel();
        pid
    };
    let (result, pid) = tokio::join!(run(&bench, params), stop);
    let failure = result.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.cause),
        ("command.cancelled", Cause::Cancelled)
    );
    assert!(!lives(&pid));
}

#[tokio::test]
async fn a_step_that_is_dropped_leaves_nothing() {
    let bench = Bench::new("");
    let file = bench.folder.path().join("pid");
    let script = format!("sleep 300 & echo $! > {}; wait", file.display());
    {
        let running = run(&bench, json!({"argv": ["sh", "-c", script]}));
        tokio::select! {
            _ = running => panic!("it sleeps"),
            _ = grandchild(&file) => {}
        }
    }
    let pid = grandchild(&file).await;
    for _ in 0..100 {
        if !lives(&pid) {
            return;
        }
        tokio::time::sleep(StdDuration::from_millis(20)).await;
    }
    panic!("{pid} lives");
}

#[tokio::test]
async fn what_is_left_in_the_background_does_not_hold_the_step() {
    let bench = Bench::new("");
    let started = tokio::time::Instant::now();
    let output = run(&bench, json!({"argv": ["sh", "-c", "sleep 4 & echo done"]}))
        .await
        .unwrap();
    assert_eq!(text(&output, "value"), "done");
    assert!(started.elapsed() < StdDuration::from_secs(3));
}

#[tokio::test]
async fn a_plan_runs_nothing() {
    let bench = Bench::new("");
    let file = bench.folder.path().join("made");
    let preview = bench
        .preview(
            "command",
            with(json!({"argv": ["touch", file.display().to_string(), "a b"]})),
        )
        .await
        .unwrap();
    assert!(!file.exists());
    assert!(preview.lines[0].text.ends_with("'a b'"), "{preview:?}");
}

#[test]
fn what_it_says_decides_what_recovery_does() {
    let registry = crate::registry();
    let kind = registry.kind("command").unwrap();
    for (params, redo, effect, undo) in [
        (
            json!({}),
            Redo::AskOperator,
            Effect::Writes,
            UndoSupport::Impossible,
        ),
        (
            json!({"effect": "reads"}),
            Redo::Repeatable,
            Effect::ReadOnly,
            UndoSupport::None,
        ),
        (
            json!({"idempotent": true}),
            Redo::Repeatable,
            Effect::Writes,
            UndoSupport::Impossible,
        ),
    ] {
        let traits = (kind.traits_of)(&with(params.clone()));
        assert_eq!(
            (traits.redo, traits.effect, traits.undo),
            (redo, effect, undo),
            "{params}"
        );
    }
    for wrong in [
        json!({"argv": []}),
        json!({"argv": ["a"], "max_output": "0B"}),
        json!({"argv": ["a"], "env": {"A=B": "1"}}),
        json!({"argv": ["a"], "env": {"A": [1]}}),
        json!({"argv": ["a"], "expect_exit": []}),
    ] {
        assert!(
            try_step("command", &with(wrong.clone())).is_err(),
            "{wrong}"
        );
    }
    step("command", with(json!({"argv": ["a"]})));
}
