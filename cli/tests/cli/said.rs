//! What is said of a run: figures beside times, loops in one line, why there was no retry, what was undone and what not.
use crate::common::{Lab, settings};
use nix::sys::signal::Signal;
use serde_json::Value as Json;
use std::{fs::Permissions, os::unix::fs::PermissionsExt, process::Stdio};
use windlass_engine::report::human::plain;

const FIGURES: &str = r#"
playbook: figures
targets:
  app: { kind: sqlite }
steps:
  - id: table
    uses: sql.execute
    with: { target: app, sql: "CREATE TABLE n (i INTEGER)" }
    undo: none
  - id: fill
    uses: sql.execute
    with:
      target: app
      sql: |
        WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000) INSERT INTO n SELECT i FROM c
    undo: { uses: sql.execute, with: { target: app, sql: DELETE FROM n, all_rows: true } }
  - id: read
    uses: sql.query
    with: { target: app, sql: SELECT i FROM n, max_result_rows: 10 }
  - id: dump
    uses: command
    with: { argv: [head, -c, "3000", /dev/zero], effect: reads }
  - id: check
    uses: verify
    with:
      target: app
      checks:
        - { name: all, sql: SELECT count(*) FROM n, expect: value == 2000 }
        - { name: odd, sql: SELECT count(*) FROM n, expect: value == 1, severity: warning }
  - id: sums
    uses: script
    with: { code: "[1, 2, 3]" }
  - id: each
    foreach: { items: "[1, 2, 3]" }
    uses: sql.execute
    with: { target: app, sql: "INSERT INTO n VALUES (:i)", params: { i: "${{ item }}" } }
    undo: none
"#;

const FAILS: &str = r#"
  - id: no
    uses: command
    with: { argv: ["false"], effect: reads }
"#;

/// What a step did, in every form.
#[test]
fn every_form_says_what_a_step_did() {
    let lab = Lab::new();
    lab.write("p.yaml", FIGURES);
    let log = lab.run(&["run", "p.yaml"]).exits(0);
    let figures = [
        ("fill", "2,000 rows"),
        ("read", "10 rows kept"),
        ("dump", "exit 0, 2.9 KiB"),
        ("check", "1 of 2 checks passed"),
        ("sums", "3 items"),
        ("each", "3 items, 3 rows"),
    ];
    let page = lab.run(&["show", "last"]).exits(0);
    let report = lab.run(&["report", "last"]).exits(0);
    for (step, text) in figures {
        let line = log
            .stdout
            .lines()
            .find(|line| line.contains(&format!("  {step}: succeeded in ")))
            .unwrap_or_else(|| panic!("{step}: {}", log.all()));
        assert!(line.ends_with(&format!(" · {text}")), "{line}");
        let row = page
            .stdout
            .lines()
            .find(|line| line.contains(&format!(" {step} ")));
        assert!(row.unwrap().contains(&format!(" · {text}")), "{row:?}");
        let text = text.replace(", ", " · ");
        let mut after = report
            .stdout
            .lines()
            .skip_while(|line| !(line.starts_with("### ") && line.contains(&format!(" {step}:"))));
        let beside = after
            .nth(2)
            .unwrap_or_else(|| panic!("{step}: {}", report.all()));
        assert!(beside.contains(&format!(" · {text}")), "{beside}");
    }
    let fill = lab.step("fill");
    assert_eq!(
        fill["figures"],
        serde_json::json!([{ "name": "rows", "unit": "count", "value": 2000, "text": "2,000 rows" }])
    );
    let check = lab.step("check");
    assert_eq!(check["figures"][0]["of"], 2);
    let report = lab.run(&["report", "last", "--format", "json"]).exits(0);
    let report: Json = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["steps"][3]["figures"][1]["value"], 3000);
}

/// An undo says what it did; a failure says what was seen, and what it printed last.
#[test]
fn an_undo_and_a_failure_say_what_they_did() {
    let lab = Lab::new();
    lab.write("p.yaml", &format!("{FIGURES}{FAILS}"));
    lab.run(&["run", "p.yaml"])
        .exits(1)
        .says("fill: undone in ")
        .says("no: failed: false ended with exit code 1 (command.exit) · exit 1");
    let page = lab.run(&["show", "last"]).exits(0);
    assert!(
        page.stdout.contains("undone, in this order: fill"),
        "{}",
        page.all()
    );
    let log = lab.run(&["report", "last", "--format", "json"]).exits(0);
    assert!(log.stdout.contains("2,003 rows"), "{}", log.stdout);
}

const PRINTS: &str = r#"
playbook: prints
steps:
  - id: dump
    uses: command
    with:
      argv:
        - sh
        - -c
        - 'echo one; echo "to standard error" >&2; printf "\033[31mred\033[0m\n"; for i in 1 2 3 4 5 6; do echo "line $i"; done; exit 3'
      effect: reads
"#;

/// What a program printed stands under its failure, and whole in `logs`, without escapes that move a cursor.
#[test]
fn a_failed_step_shows_its_last_lines() {
    let lab = Lab::new();
    lab.write("p.yaml", PRINTS);
    let done = lab.run(&["run", "p.yaml"]).exits(1);
    assert!(done.stdout.contains("\n    | line 6\n"), "{}", done.all());
    assert!(!done.stdout.contains("| one\n"), "{}", done.all());
    assert!(done.stdout.contains("windlass logs "), "{}", done.all());
    let page = lab.run(&["show", "last"]).exits(0);
    assert!(page.stdout.contains("      | line 6\n"), "{}", page.all());
    let logs = lab.run(&["logs", "last", "dump"]).exits(0);
    let mut lines: Vec<&str> = logs.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "line 1",
            "line 2",
            "line 3",
            "line 4",
            "line 5",
            "line 6",
            "one",
            "red",
            "to standard error"
        ]
    );
    let all = lab.run(&["logs"]).exits(0);
    assert!(
        all.stdout
            .lines()
            .any(|line| line.ends_with("  dump stderr: to standard error")),
        "{}",
        all.all()
    );
    let json = lab.run(&["logs", "last", "--json"]).exits(0);
    for line in json.stdout.lines() {
        let piece: Json = serde_json::from_str(line).unwrap();
        assert_eq!(piece["node"], "dump");
        assert_eq!(piece["attempt"], 1);
    }
    assert_eq!(lab.step("dump")["last_lines"].as_array().unwrap().len(), 9);
    let report = lab.run(&["report", "last"]).exits(0);
    assert!(report.stdout.contains("line 6"), "{}", report.stdout);
    lab.run(&["logs", "last", "dmp"])
        .exits(2)
        .says("has no step \"dmp\"")
        .says("windlass logs ");
    lab.run(&["logs", "none"]).exits(2).says("no run none");
    lab.run(&["audit"]).exits(0);
}

const LONG: &str = r#"
playbook: long
steps:
  - id: dump
    uses: command
    with: { argv: [sh, -c, "echo before; sleep 30; echo never"], effect: reads }
"#;

/// What was printed before the engine was killed is there; while the step runs it is read and followed.
#[test]
fn what_was_printed_before_a_kill_is_there() {
    let lab = Lab::new();
    lab.write("p.yaml", LONG);
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until("printed", |page| {
        page["steps"][0]["last_lines"][0] == "before"
    });
    let page = lab.run(&["show", "last"]).exits(0);
    assert!(page.stdout.contains("      | before\n"), "{}", page.all());
    let mut follows = lab.spawn("ana", &["logs", "last", "-f"]);
    let lines = follows.lines(1);
    assert!(lines[0].ends_with("  dump: before"), "{lines:?}");
    running.signal(Signal::SIGKILL);
    running.wait();
    let done = lab.run(&["logs", "last", "dump"]).exits(0);
    assert_eq!(done.stdout, "before\n");
    lab.run(&["show", "last"])
        .exits(0)
        .says("interrupted after");
    assert_eq!(lab.state(), "interrupted");
    // It runs again: the second attempt prints beside the first.
    let running = lab.spawn("ana", &["resume", "last"]);
    lab.until("the second attempt printed", |_| {
        lab.run(&["logs", "last", "dump"])
            .stdout
            .matches("before")
            .count()
            == 2
    });
    lab.run(&["cancel", "last", "--leave", "--force"]).exits(0);
    running.wait().exits(1);
}

const CHATTY: &str = r#"
playbook: chatty
steps:
  - id: dump
    uses: command
    with: { argv: [sh, -c, "seq 1 2000000"], effect: reads, max_output: 1KiB }
"#;

/// A chatty program keeps its beginning and its end, says how much is missing, and does not fill the journal.
#[test]
fn a_chatty_program_is_cut_in_the_middle() {
    let lab = Lab::new();
    lab.write("p.yaml", CHATTY);
    lab.run(&["run", "p.yaml"])
        .exits(0)
        .says("exit 0, 14.1 MiB");
    let logs = lab.run(&["logs", "last", "dump"]).exits(0);
    assert!(logs.stdout.starts_with("1\n2\n3\n"));
    assert!(logs.stdout.ends_with("\n1999999\n2000000\n"));
    assert!(logs.stdout.len() < 300_000, "{}", logs.stdout.len());
    let cut = logs
        .stdout
        .lines()
        .filter(|line| line.contains("are not kept"))
        .count();
    assert_eq!(cut, 1);
    let size = std::fs::metadata(lab.path(".windlass/journal.db"))
        .unwrap()
        .len();
    assert!(size < 4 << 20, "{size}");
}

const SECRET: &str = r#"
playbook: secret
steps:
  - id: leak
    uses: command
    with:
      argv: [sh, -c, 'echo "it is $PW"; echo "$PW" >&2; printf %s "$PW" | base64; exit 1']
      env: { PW: "${{ secret(\"pw\") }}" }
      effect: reads
"#;

/// A secret that a program prints is not kept.
#[test]
fn a_secret_is_not_kept() {
    let lab = Lab::new();
    lab.write(
        "windlass.yaml",
        "environments:\n  local:\n    targets: {}\n    secrets:\n      pw: { file: pw }\n",
    );
    lab.write("pw", "hunter2-and-much-more");
    std::fs::set_permissions(lab.path("pw"), Permissions::from_mode(0o600)).unwrap();
    lab.write("p.yaml", SECRET);
    let done = lab
        .run(&["run", "p.yaml"])
        .exits(1)
        .says("it is «secret pw»");
    for text in [&done.stdout, &lab.run(&["logs"]).stdout] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let base64 = "aHVudGVyMi1hbmQtbXVjaC1tb3Jl";
    for file in ["journal.db", "journal.db-wal"] {
        let Ok(bytes) = std::fs::read(lab.path(".windlass").join(file)) else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !text.contains("hunter2-and") && !text.contains(base64),
            "{file}"
        );
    }
}

const FOLDED: &str = r#"
playbook: folded
steps:
  - id: leak
    uses: command
    with:
      argv: [sh, -c, 'printf %s "$PW" | fold -w 40; printf "\n%s" "$PW" | fold -w 53 | while read -r line || [ "$line" ]; do echo "$line"; sleep 0.3; done; printf %s "$PW" | fold -w 51 >&2; exit 1']
      env: { PW: "${{ secret(\"pw\") }}" }
      effect: reads
    on_failure: continue
  - id: lines
    uses: command
    with:
      argv: [sh, -c, 'printf %s "$PW" | fold -w 57']
      env: { PW: "${{ secret(\"pw\") }}" }
      effect: reads
      parse: lines
"#;

/// A secret that a program wraps is not kept, also where its last line has no end, lines come slowly, and a message says the last.
#[test]
fn a_wrapped_secret_is_not_kept() {
    const PW: &str = "k3Jx9-Qz7.PwLm2vB8nYt5RcHd4sGf6aEu1iOo0TqWjXyZbNrMlKpVhCgFeDdSsAa-2q3w4e5r6t7y8u9i0o_PzXcVbNm.LkJhGfDsAqWeRtYuIoP0123";
    let lab = Lab::new();
    lab.write(
        "windlass.yaml",
        "environments:\n  local:\n    targets: {}\n    secrets:\n      pw: { file: pw }\n",
    );
    lab.write("pw", PW);
    std::fs::set_permissions(lab.path("pw"), Permissions::from_mode(0o600)).unwrap();
    lab.write("p.yaml", FOLDED);
    let run = lab.run(&["run", "p.yaml"]);
    let mut all = vec![run.all()];
    for args in [
        &["logs"][..],
        &["logs", "--json"],
        &["show", "last"],
        &["show", "last", "--json"],
        &["report"],
    ] {
        all.push(lab.run(args).exits(0).all());
    }
    for file in ["journal.db", "journal.db-wal"] {
        if let Ok(bytes) = std::fs::read(lab.path(".windlass").join(file)) {
            all.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    for text in all {
        for piece in PW.as_bytes().windows(5) {
            let piece = std::str::from_utf8(piece).unwrap();
            assert!(!text.contains(piece), "{piece} is in {text}");
        }
    }
}

const LOOP: &str = r#"
playbook: loop
targets:
  app: { kind: sqlite }
steps:
  - id: list
    uses: sql.query
    with:
      target: app
      sql: WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM c WHERE i < 400) SELECT i FROM c
  - id: each
    foreach: { items: steps.list.output.rows, max_parallel: 4, max_failures: 2, max_items: 1000 }
    uses: verify
    with: { checks: [{ name: even, expect: item.i != 7 && item.i != 400 }] }
"#;

/// A loop of hundreds is a line of progress and its failures, not hundreds of lines.
#[test]
fn a_long_loop_is_one_line_and_its_failures() {
    let lab = Lab::new();
    lab.write("p.yaml", LOOP);
    lab.execute("app.db", "CREATE TABLE n (i INTEGER)");
    let done = lab.run(&["run", "p.yaml"]);
    let about: Vec<&str> = done
        .stdout
        .lines()
        .filter(|line| line.contains("Z  each"))
        .collect();
    assert!(about.len() < 8, "{}", done.all());
    assert!(
        about.iter().any(|line| line.contains("each[7]: failed")),
        "{}",
        done.all()
    );
    assert!(
        about.iter().any(|line| line.contains("each: 401 items")),
        "{}",
        done.all()
    );
    let page = lab.run(&["show", "last"]).exits(0);
    let steps: Vec<&str> = page
        .stdout
        .lines()
        .filter(|line| line.contains(" each"))
        .collect();
    assert!(
        steps
            .iter()
            .any(|line| line.contains("401 items, 2 failed")),
        "{}",
        page.all()
    );
    assert!(
        steps.iter().any(|line| line.contains("each[400]")),
        "{}",
        page.all()
    );
    assert!(
        !steps.iter().any(|line| line.contains("each[8] ")),
        "{}",
        page.all()
    );
    let each = lab.step("each");
    assert_eq!(each["progress"]["of"], 401);
    assert_eq!(each["progress"]["failed"], 2);
}

const RETRY: &str = r#"
playbook: retry
steps:
  - id: permanent
    on_failure: continue
    uses: command
    with: { argv: ["false"], idempotent: true }
    retry: { attempts: 3 }
  - id: partial
    on_failure: continue
    needs: []
    uses: command
    with: { argv: ["false"] }
    retry: { attempts: 3, also: [permanent] }
  - id: used
    on_failure: continue
    needs: []
    uses: command
    with: { argv: ["false"], effect: reads }
    retry: { attempts: 2, delay: 10ms, also: [permanent] }
  - id: none
    on_failure: continue
    needs: []
    uses: command
    with: { argv: ["false"], effect: reads }
"#;

/// A step with a `retry` that is not repeated says why, everywhere; one without says nothing.
#[test]
fn a_retry_says_why_it_did_not_happen() {
    let lab = Lab::new();
    lab.write("p.yaml", RETRY);
    lab.run(&["validate", "p.yaml"])
        .exits(0)
        .says("WL0612")
        .says("this `retry` can never happen")
        .says("`also: [timeout, permanent]`");
    let done = lab.run(&["run", "p.yaml"]).exits(1);
    let page = lab.run(&["show", "last"]).exits(0);
    let report = lab.run(&["report", "last"]).exits(0);
    for (step, why) in [
        (
            "permanent",
            "not retried: its cause is permanent, and retry is for passing causes; `retry.also: [permanent]` widens it",
        ),
        (
            "partial",
            "not retried: it may have taken effect in part, and running it twice is not as good as once",
        ),
        ("used", "not retried: 2 of 2 attempts are used"),
    ] {
        let of_step = |line: &&str| line.contains(&format!("{step}: failed"));
        let lines: Vec<&str> = done.stdout.lines().filter(of_step).collect();
        assert!(lines.last().unwrap().contains(why), "{}", done.all());
        assert!(
            page.stdout.contains(&format!("    = {why}\n")),
            "{}",
            page.all()
        );
        assert!(
            report.stdout.contains(why.split(';').next().unwrap()),
            "{}",
            report.all()
        );
        let json = lab.step(step);
        assert_eq!(json["forward"]["not_retried"], why);
    }
    assert_eq!(lab.step("none")["forward"]["not_retried"], Json::Null);
    // An attempt that is followed by another has nothing to explain.
    let first = done
        .stdout
        .lines()
        .find(|line| line.contains("used: failed"))
        .unwrap();
    assert!(!first.contains("not retried"), "{first}");
}

const IMPOSSIBLE: &str = r#"
playbook: impossible
targets:
  app: { kind: sqlite }
steps:
  - id: table
    uses: sql.execute
    with: { target: app, sql: "CREATE TABLE n (i INTEGER)" }
    undo: { uses: sql.execute, with: { target: app, sql: DROP TABLE n } }
  - id: beside
    needs: []
    uses: command
    with: { argv: ["true"] }
    undo: { uses: command, with: { argv: ["true"] } }
  - id: pay
    needs: [table]
    uses: command
    with: { argv: [sh, -c, "sleep 1"] }
  - id: broken
    needs: [pay, beside]
    uses: command
    with: { argv: ["false"], effect: reads }
"#;

/// While a step runs that cannot be undone `show` says so; afterwards it lists what was undone, what not, and why.
#[test]
fn the_point_of_no_return_and_what_was_not_undone_are_said() {
    let lab = Lab::new();
    lab.write("p.yaml", IMPOSSIBLE);
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("pay", "running");
    lab.run(&["show", "last"])
        .exits(0)
        .says("it cannot be undone, and may have taken effect already")
        .says("the point of no return is being passed by pay");
    let done = running.wait().exits(3);
    let page = lab.run(&["show", "last"]).exits(0);
    for text in [&done.stdout, &page.stdout] {
        assert!(text.contains("undone, in this order: beside"), "{text}");
        assert!(
            text.contains("not undone: pay: it cannot be undone"),
            "{text}"
        );
        assert!(
            text.contains("not undone: table: pay needs it, and is not undone"),
            "{text}"
        );
        assert!(
            text.contains("stopped after")
                && text.contains(" cannot be undone; a person is needed"),
            "{text}"
        );
    }
    assert_eq!(
        lab.step("table")["not_undone"],
        "pay needs it, and is not undone"
    );
}

/// A run that failed before it did anything is not called compensated.
#[test]
fn nothing_to_undo_is_failed() {
    let lab = Lab::new();
    lab.write("p.yaml", "playbook: p\nsteps:\n  - id: no\n    uses: command\n    with: { argv: [\"false\"], effect: reads }\n");
    lab.run(&["run", "p.yaml"])
        .exits(1)
        .says("failed after")
        .says("there was nothing to undo");
    assert_eq!(lab.state(), "failed");
    let runs = lab.run(&["runs"]).exits(0);
    assert!(
        runs.stdout.contains("failed") && !runs.stdout.contains("compensated"),
        "{}",
        runs.all()
    );
}

/// Every word for where a run or a step stands has its sentence.
#[test]
fn states_are_explained() {
    let lab = Lab::new();
    let page = lab.run(&["explain", "states"]).exits(0);
    settings(&lab).bind(|| insta::assert_snapshot!("states", page.stdout));
    lab.run(&["explain"]).exits(0).says("states");
}

const ASKS: &str = r#"
playbook: asks
steps:
  - id: dump
    uses: command
    with: { argv: [sh, -c, "echo a line of output that is so long that no terminal of eighty columns shows all of it in one line; sleep 1"], effect: reads }
  - id: ask
    uses: approval
    with:
      prompt: Which replica takes the writes?
      groups: [dba]
      ask: { replica: { choose: one, from: [r1.example.net, r2.example.net], label: item } }
"#;

/// On a terminal: the last line of output under the step that runs, the question with its options and the command that answers
/// under the approval, and no line is wider than the terminal.
#[test]
fn a_terminal_shows_output_and_questions() {
    for columns in [80_usize, 120] {
        let lab = Lab::new();
        lab.write("p.yaml", ASKS);
        let command = lab.command("ana", &["run", "p.yaml"]);
        let program = command.get_program().to_str().unwrap().to_owned();
        let typed = format!("stty cols {columns} rows 24; {program} run p.yaml");
        let mut terminal = std::process::Command::new("script");
        terminal
            .args(["-qec", &typed, "/dev/null"])
            .current_dir(command.get_current_dir().unwrap())
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("TERM", "xterm-256color")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let terminal = terminal.spawn().unwrap();
        lab.until_step("ask", "awaiting_approval");
        // Some frames of the question.
        std::thread::sleep(std::time::Duration::from_millis(500));
        lab.run_as(
            "bruno",
            &["approve", "last", "ask", "--answer", "replica=2"],
        )
        .exits(0);
        let output = terminal.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let plain: Vec<String> = text.split('\n').map(plain).collect();
        let plain = plain.join("\n");
        for said in [
            "    | a line of output that is so long",
            "Which replica takes the writes?",
            "question replica: choose 1",
            "1  r1.example.net",
            "2  r2.example.net",
            "ask --answer replica=NUMBER",
            "by bruno",
        ] {
            assert!(plain.contains(said), "{said:?} is not in\n{plain}");
        }
        // Every frame is a tree; what comes after the last is a summary, which may be as wide as it likes.
        let tree = plain.rsplit_once("asks ").unwrap().0;
        for line in tree.lines() {
            let width = line.chars().count();
            assert!(width <= columns, "{width} columns of {columns}: {line}");
        }
    }
}
