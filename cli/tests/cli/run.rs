//! Runs as scripts and schedulers see them: output, events, exit codes.

use crate::common::{ENVIRONMENT, Lab, settings};
use nix::sys::signal::Signal;
use serde_json::Value as Json;

const COUNT: &str = r#"
playbook: count
targets:
  app: { kind: sqlite }
steps:
  - id: table
    uses: sql.execute
    with: { target: app, sql: CREATE TABLE IF NOT EXISTS n (i INTEGER) }
    undo: none
  - id: one
    uses: sql.execute
    with: { target: app, sql: INSERT INTO n VALUES (1) }
    undo:
      uses: sql.execute
      with: { target: app, sql: DELETE FROM n WHERE i = 1 }
  - id: two
    uses: sql.execute
    with: { target: app, sql: "INSERT INTO n VALUES (:i)", params: { i: 2 } }
    undo:
      uses: sql.execute
      with: { target: app, sql: DELETE FROM n WHERE i = 2 }
  - id: seen
    uses: sql.query
    with: { target: app, sql: SELECT count(*) FROM n }
outputs:
  seen: ${{ steps.seen.output.value }}
"#;

fn failing(on_failure: &str) -> String {
    format!("{COUNT}\npolicy: {{ on_failure: {on_failure} }}\n")
        .replace("SELECT count(*) FROM n }", "SELECT count(*) FROM nowhere }")
}

#[test]
fn a_run_in_a_pipe_is_plain_lines_and_a_summary() {
    let lab = Lab::new();
    lab.write("p.yaml", COUNT);
    let done = lab.run(&["run", "p.yaml"]).exits(0);
    assert!(!done.stdout.contains('\x1b'));
    assert_eq!(done.stderr, "");
    settings(&lab).bind(|| insta::assert_snapshot!("plain_run", done.stdout));
    // Forced colour changes no letter of it.
    let painted = lab.run(&["run", "p.yaml", "--color", "always"]).exits(0);
    assert!(painted.stdout.contains("\x1b["));
    let quiet = lab.run(&["run", "p.yaml", "--quiet"]).exits(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn json_is_one_event_a_line_from_the_first_to_the_last() {
    let lab = Lab::new();
    lab.write("p.yaml", COUNT);
    let done = lab.run(&["run", "p.yaml", "--json"]).exits(0);
    let events: Vec<Json> = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], index + 1);
        assert_eq!(event["run"], events[0]["run"]);
        assert!(
            event["at"].is_string() && event["event"].is_object(),
            "{event}"
        );
    }
    assert!(events[0]["event"]["run_started"].is_object());
    let last = events.last().unwrap();
    assert_eq!(last["event"]["finished"]["outcome"], "succeeded");
    assert_eq!(last["event"]["finished"]["outputs"]["seen"], 2);
    // What another process reads from the journal is the same.
    let watched = lab.run(&["watch", "last", "--json"]).exits(0);
    assert_eq!(watched.stdout, done.stdout);
}

#[test]
fn a_failure_is_undone_in_reverse_order_and_exits_1() {
    let lab = Lab::new();
    lab.write("p.yaml", &failing("undo"));
    let done = lab
        .run(&["run", "p.yaml"])
        .exits(1)
        .says("undone, in this order: two, one");
    settings(&lab).bind(|| insta::assert_snapshot!("compensated_run", done.stdout));
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 0);
}

#[test]
fn a_failure_that_stops_exits_3_and_says_what_to_do() {
    let lab = Lab::new();
    lab.write("p.yaml", &failing("stop"));
    let done = lab.run(&["run", "p.yaml"]).exits(3);
    settings(&lab).bind(|| insta::assert_snapshot!("stopped_run", done.stdout));
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 2);
    // What it says works.
    lab.run(&["undo", "last"]).exits(0);
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 0);
}

#[test]
fn a_run_that_stopped_goes_on_without_the_step_that_is_skipped() {
    let lab = Lab::new();
    lab.write("p.yaml", &failing("stop"));
    lab.run(&["run", "p.yaml"]).exits(3).says("windlass skip");
    lab.run(&[
        "skip",
        "last",
        "seen",
        "--because",
        "it will never be there",
    ])
    .exits(0);
    assert_eq!(lab.state(), "succeeded");
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 2);
    lab.run(&["skip", "last", "seen", "--because", "again"])
        .exits(5)
        .says("the run is over");
}

#[test]
fn a_failure_that_pauses_asks_on_call() {
    let lab = Lab::new();
    lab.write("p.yaml", &failing("pause"));
    lab.run(&["run", "p.yaml"])
        .exits(3)
        .says("windlass retry")
        .says("windlass skip")
        .says("--because");
    lab.execute("app.db", "CREATE TABLE nowhere (i INTEGER)");
    lab.run(&["retry", "last", "seen"]).exits(0);
    assert_eq!(lab.state(), "succeeded");
}

#[test]
fn a_plan_that_drifted_is_refused_with_what_changed() {
    let lab = Lab::new();
    let with_input = COUNT
        .replace(
            "targets:\n",
            "inputs:\n  i: { type: integer, default: 2 }\ntargets:\n",
        )
        .replace("params: { i: 2 }", "params: { i: \"${{ inputs.i }}\" }");
    lab.write("p.yaml", &with_input);
    lab.run(&["plan", "p.yaml", "-o", "plan.json"]).exits(0);
    lab.run(&["runs"]).exits(2).says("there is no journal");
    let done = lab
        .run(&["run", "p.yaml", "--plan", "plan.json", "-i", "i=3"])
        .exits(5);
    settings(&lab).bind(|| insta::assert_snapshot!("drift", done.stderr));
    lab.run(&["run", "p.yaml", "--plan", "plan.json"]).exits(0);
    let plan: Json =
        serde_json::from_str(&std::fs::read_to_string(lab.path("plan.json")).unwrap()).unwrap();
    assert_eq!(lab.show()["digest"], plan["digest"]);
    lab.write(
        "p.yaml",
        &with_input.replace("INSERT INTO n VALUES (1)", "INSERT INTO n VALUES (11)"),
    );
    lab.run(&["run", "p.yaml", "--plan", "plan.json"])
        .exits(5)
        .says("p.yaml");
    lab.run(&["run", "p.yaml", "--plan", "p.yaml"])
        .exits(2)
        .says("is not a plan");
}

#[test]
fn a_plan_comes_in_every_format() {
    let lab = Lab::new();
    lab.write("p.yaml", COUNT);
    lab.run(&["plan", "p.yaml"])
        .exits(0)
        .says("Point of no return")
        .says("sql.execute");
    lab.run(&["plan", "p.yaml", "--format", "markdown"])
        .exits(0)
        .says("Digest `");
    lab.run(&["plan", "p.yaml", "--format", "mermaid"])
        .exits(0)
        .says("seen");
    lab.run(&["plan", "p.yaml", "--format", "dot"])
        .exits(0)
        .says("digraph");
    let html = lab.run(&["plan", "p.yaml", "--format", "html"]).exits(0);
    assert!(html.stdout.starts_with("<!doctype html>"));
    assert!(
        !html.stdout.contains("http"),
        "it needs nothing from elsewhere"
    );
    assert!(html.stdout.contains("INSERT INTO n VALUES (1)"));
    let json = lab.run(&["plan", "p.yaml", "--format", "json"]).exits(0);
    let plan: Json = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(plan["playbook"], "count");
}

#[test]
fn a_lock_is_held_by_one_run_at_a_time() {
    let lab = Lab::new();
    let locked = r#"
playbook: locked
policy: { locks: [orders] }
steps:
  - id: ready
    uses: wait.signal
    with: { name: go }
"#;
    lab.write("p.yaml", locked);
    let first = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("ready", "waiting");
    let holder = lab.run_id();
    lab.run(&["run", "p.yaml"])
        .exits(5)
        .says("lock \"orders\" is held by run")
        .says(&holder);
    lab.run(&["signal", &holder, "go"]).exits(0);
    first.wait().exits(0);
    let again = lab.spawn("ana", &["run", "p.yaml"]);
    // The run that was refused stands in the journal too, as cancelled.
    lab.until("a new run", |page| {
        page["run"]["id"] != holder.as_str() && page["state"] == "waiting"
    });
    lab.run(&["cancel", "last", "--leave"]).exits(0);
    again.wait().exits(1);
}

#[test]
fn outside_its_window_a_run_is_refused() {
    let lab = Lab::new();
    // A day that is neither today nor tomorrow.
    let today = std::process::Command::new("date")
        .args(["-u", "+%u"])
        .output()
        .unwrap();
    let today: usize = String::from_utf8(today.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let day = days[(today + 3) % 7];
    lab.write(
        "p.yaml",
        &format!(
            "playbook: w\npolicy: {{ windows: [\"{day} 09:00-17:00 Etc/UTC\"] }}\nsteps:\n  - id: a\n    uses: wait.for\n    with: {{ duration: 1ms }}\n"
        ),
    );
    lab.run(&["run", "p.yaml"])
        .exits(5)
        .says("outside the windows")
        .says(day);
    assert_eq!(lab.run(&["runs", "--json"]).stdout.trim(), "[]");
}

#[test]
fn ctrl_c_lets_what_runs_finish_and_keeps_the_place() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        r#"
playbook: slow
steps:
  - id: work
    uses: command
    with: { argv: [sh, -c, "sleep 1; echo done > work.txt"] }
    undo: none
  - id: after
    uses: command
    with: { argv: [sh, -c, "echo done > after.txt"] }
    undo: none
"#,
    );
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("work", "running");
    running.signal(Signal::SIGINT);
    let done = running
        .wait()
        .exits(130)
        .says("windlass resume")
        .says("letting work finish");
    assert!(done.stdout.contains("work: succeeded"), "{}", done.all());
    assert!(lab.path("work.txt").exists());
    assert!(!lab.path("after.txt").exists());
    lab.run(&["resume", "last"]).exits(0);
    assert!(lab.path("after.txt").exists());
    assert_eq!(lab.step("work")["forward"]["attempts"], 1);
    // As often as it is asked, without an event more.
    let events = lab.show()["events"].clone();
    for _ in 0..2 {
        lab.run(&["resume", "last"]).exits(0).says("succeeded");
    }
    assert_eq!(lab.show()["events"], events);
}

/// The second ends what runs, and the run keeps its place: the step starts anew where nothing happened.
#[test]
fn a_second_ctrl_c_ends_what_runs_and_keeps_the_place() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        "playbook: slow\nsteps:\n  - id: work\n    uses: command\n    \
         with: { idempotent: true, argv: [sh, -c, 'echo begun >> begun; [ -e quick ] || exec sleep 50'] }\n    undo: none\n",
    );
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("work", "running");
    running.signal(Signal::SIGINT);
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.signal(Signal::SIGINT);
    let start = std::time::Instant::now();
    let done = running.wait().exits(130);
    assert!(start.elapsed().as_secs() < 20, "{}", done.all());
    let done = done
        .says("ending work; ")
        .says("the run keeps its place")
        .says("leaves at once");
    assert!(!done.all().contains("cancelled"), "{}", done.all());
    assert!(
        ["interrupted", "waiting"].contains(&lab.state().as_str()),
        "{}",
        lab.state()
    );
    lab.write("quick", "");
    lab.run(&["resume", "last"]).exits(0);
    assert_eq!(lab.read("begun").lines().count(), 2);
}

/// In an undo as well: it has not failed, and continues.
#[test]
fn a_second_ctrl_c_in_an_undo_keeps_its_place() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        "playbook: slow\nsteps:\n  - id: work\n    uses: command\n    with: { argv: [\"true\"] }\n    undo:\n      uses: command\n      \
         with: { idempotent: true, argv: [sh, -c, '[ -e quick ] || exec sleep 50'] }\n  - id: fails\n    uses: command\n    with: { argv: [\"false\"] }\n    undo: none\n",
    );
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("work", "undoing");
    running.signal(Signal::SIGINT);
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.signal(Signal::SIGINT);
    running
        .wait()
        .exits(130)
        .says("ending work; ")
        .says("windlass resume");
    assert_eq!(lab.state(), "interrupted");
    lab.write("quick", "");
    lab.run(&["resume", "last"]).exits(1);
    assert_eq!(lab.state(), "compensated");
}

/// Deaf to its own end, the program outlives two; a third leaves it.
#[test]
fn a_third_ctrl_c_leaves_at_once() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        "playbook: deaf\nsteps:\n  - id: work\n    uses: command\n    \
         with: { argv: [sh, -c, 'trap \"\" TERM INT; touch up; for i in 1 2 3 4 5 6 7 8; do sleep 1; done'] }\n    undo: none\n",
    );
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until("the program is up", |_| lab.path("up").exists());
    for _ in 0..3 {
        running.signal(Signal::SIGINT);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let start = std::time::Instant::now();
    let done = running
        .wait()
        .exits(130)
        .says("leaving at once")
        .says("windlass resume");
    assert!(start.elapsed().as_secs() < 3, "{}", done.all());
    // As after a kill: nobody knows what became of it.
    lab.run(&["resume", "last"]).exits(3);
    assert_eq!(lab.state(), "stuck");
}

#[test]
fn sigterm_is_one_ctrl_c() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        "playbook: waits\nsteps:\n  - id: ready\n    uses: wait.signal\n    with: { name: go }\n",
    );
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("ready", "waiting");
    running.signal(Signal::SIGTERM);
    running.wait().exits(130).says("windlass resume");
}

#[test]
fn a_reader_that_goes_away_stops_nothing() {
    let lab = Lab::new();
    lab.write("p.yaml", COUNT);
    let mut running = lab.spawn("ana", &["run", "p.yaml"]);
    assert_eq!(running.lines(1).len(), 1);
    lab.until("over", |page| page["state"] == "succeeded");
}

#[test]
fn runs_are_listed_and_found_by_any_end_of_their_id() {
    let lab = Lab::new();
    lab.run(&["runs"]).exits(2).says("there is no journal");
    lab.run(&["show", "last"])
        .exits(2)
        .says("there is no journal");
    lab.write("p.yaml", COUNT);
    lab.run(&["run", "p.yaml", "-q"]).exits(0);
    lab.run(&["run", "p.yaml", "-q"]).exits(0);
    let runs: Vec<Json> =
        serde_json::from_str(&lab.run(&["runs", "--json"]).exits(0).stdout).unwrap();
    assert_eq!(runs.len(), 2);
    let id = runs[0]["id"].as_str().unwrap();
    let page = lab.run(&["show", id.split_at(24).1]).exits(0);
    assert!(page.stdout.contains(id));
    lab.run(&["show", id.split_at(4).0])
        .exits(2)
        .says("fits 2 runs");
    lab.run(&["show", "zzzz"]).exits(2).says("no run zzzz");
    lab.run(&["runs", "--state", "failed"])
        .exits(0)
        .says("no run is failed");
    // Another journal is another world.
    lab.run(&["runs", "--journal", "other.db"])
        .exits(2)
        .says("there is no journal");
}

#[test]
fn an_environment_beside_the_playbook_is_found_and_named_in_what_comes_next() {
    let lab = Lab::new();
    std::fs::remove_file(lab.path("windlass.yaml")).unwrap();
    lab.write("sub folder/windlass.yaml", ENVIRONMENT);
    lab.write(
        "sub folder/drill/playbook.yaml",
        "playbook: drill\nsteps:\n  - id: sign_off\n    uses: approval\n    with: { prompt: Go?, groups: [dba] }\n",
    );
    let run = lab.run(&["run", "--no-wait", "sub folder/drill"]).exits(4);
    let option = "--env-file 'sub folder/windlass.yaml'";
    let proposed: Vec<&str> = run
        .stdout
        .lines()
        .filter(|line| line.trim_start().starts_with("windlass "))
        .collect();
    assert!(proposed.len() >= 4, "{}", run.all());
    for line in proposed {
        assert_eq!(line.matches(option).count(), 1, "{line}");
    }
    lab.run(&["runs"]).exits(2).says("so there is no run yet");
    lab.run(&["show", "last", "--env-file", "sub folder/windlass.yaml"])
        .exits(0)
        .says("sign_off")
        .says(option);
}
