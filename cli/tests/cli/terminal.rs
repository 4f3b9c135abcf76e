//! What a person is asked on a terminal, and what a script is not.
use crate::common::Lab;

const UNDONE: &str = r#"
playbook: undone
targets:
  app: { kind: sqlite }
steps:
  - id: table
    uses: sql.execute
    with: { target: app, sql: CREATE TABLE n (i INTEGER) }
    undo:
      uses: sql.execute
      with: { target: app, sql: DROP TABLE n }
  - id: each
    foreach: { items: [1, 2], max_items: 2 }
    uses: sql.execute
    with: { target: app, sql: "INSERT INTO n VALUES (:i)", params: { i: "${{ item }}" } }
    undo:
      uses: sql.execute
      with: { target: app, sql: "DELETE FROM n WHERE i = :i", params: { i: "${{ item }}" } }
finally:
  - id: log
    uses: sql.execute
    with: { target: app, sql: CREATE TABLE IF NOT EXISTS seen (i INTEGER) }
"#;

const BEYOND: &str = r#"
playbook: beyond
inputs:
  really: { type: boolean, default: true }
targets:
  app: { kind: sqlite }
steps:
  - id: table
    uses: sql.execute
    with: { target: app, sql: CREATE TABLE n (i INTEGER) }
    undo:
      uses: sql.execute
      with: { target: app, sql: DROP TABLE n }
  - id: gone
    uses: sql.execute
    when: inputs.really
    with: { target: app, sql: INSERT INTO n VALUES (1) }
    undo: impossible
  - id: after
    uses: sql.execute
    with: { target: app, sql: INSERT INTO n VALUES (2) }
    undo:
      uses: sql.execute
      with: { target: app, sql: DELETE FROM n WHERE i = 2 }
"#;

fn tables(lab: &Lab, name: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM sqlite_master WHERE name = '{name}'");
    lab.count("app.db", &sql)
}

#[test]
fn an_undo_is_shown_and_asked_for_on_a_terminal() {
    let lab = Lab::new();
    lab.write("p.yaml", UNDONE);
    lab.run(&["run", "p.yaml"]).exits(0);
    let before = lab.show()["events"].clone();
    for no in ["n\n", "\n", "", "later\n"] {
        let done = lab.at_terminal(&["undo", "last"], no).exits(2);
        let places: Vec<usize> = [
            "would be undone, in this order:",
            "1. each[1]  by sql.execute on app (sqlite ",
            "2. each[0]  by sql.execute",
            "3. table  by sql.execute",
            "then finally: log",
            "Undo it? [y/N]",
            "not undone: the answer was not yes",
            "--yes",
        ]
        .into_iter()
        .map(|text| {
            done.stdout
                .find(text)
                .unwrap_or_else(|| panic!("{text:?} is not in {}", done.all()))
        })
        .collect();
        assert!(places.is_sorted(), "{}", done.all());
    }
    assert_eq!(tables(&lab, "n"), 1);
    assert_eq!(lab.show()["events"], before, "the question wrote nothing");
    assert!(lab.show()["inbox"].as_array().unwrap().is_empty());
    lab.at_terminal(&["undo", "last"], "y\n")
        .exits(0)
        .says("undone, in this order: each[1], each[0], table");
    assert_eq!(tables(&lab, "n"), 0);
}

#[test]
fn the_rehearsal_of_an_undo_is_what_the_undo_then_does() {
    // Waiting, so that the undo is that of a run that is not over.
    let waits = UNDONE.replace(
        "finally:",
        "  - id: ready\n    uses: wait.signal\n    with: { name: go }\nfinally:",
    );
    let lab = Lab::new();
    lab.write("p.yaml", &waits);
    lab.run(&["run", "p.yaml", "--no-wait"]).exits(4);
    lab.at_terminal(&["undo", "last"], "yes\n")
        .exits(0)
        .says("1. each[1]")
        .says("undone, in this order: each[1], each[0], table");
}

/// What was in flight when the process was killed is part of the picture: a wait ends, and the rest is undone.
#[test]
fn the_undo_of_a_run_that_was_killed_is_shown_as_it_will_be() {
    let lab = Lab::new();
    let slow = UNDONE.replace(
        "finally:",
        "  - id: pause\n    uses: wait.for\n    with: { duration: 1h }\nfinally:",
    );
    lab.write("p.yaml", &slow);
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("pause", "waiting");
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait();
    lab.at_terminal(&["undo", "last"], "n\n")
        .exits(2)
        .says("1. each[1]")
        .says("3. table")
        .says("then finally: log");
    lab.at_terminal(&["undo", "last"], "y\n")
        .exits(0)
        .says("undone, in this order: each[1], each[0], table");
}

#[test]
fn what_stays_after_an_undo_is_said_before_it() {
    let lab = Lab::new();
    lab.write("p.yaml", BEYOND);
    lab.run(&["run", "p.yaml"]).exits(0);
    lab.at_terminal(&["undo", "last"], "n\n")
        .exits(2)
        .says("1. after  by sql.execute")
        .says("stays: gone: cannot be undone")
        .says("stays: table: is needed by a step that cannot be undone");
}

#[test]
fn an_undo_without_a_terminal_or_with_yes_asks_nothing() {
    let lab = Lab::new();
    lab.write("p.yaml", UNDONE);
    lab.run(&["run", "p.yaml"]).exits(0);
    let done = lab.run(&["undo", "last"]).exits(0);
    assert!(!done.stderr.contains("[y/N]"), "{}", done.all());
    lab.run(&["run", "p.yaml"]).exits(0);
    let done = lab.at_terminal(&["undo", "last", "--yes"], "").exits(0);
    assert!(!done.stdout.contains("[y/N]"), "{}", done.all());
    // What the machine refuses is refused without a question.
    let done = lab.at_terminal(&["undo", "last"], "y\n").exits(5);
    assert!(!done.stdout.contains("[y/N]"), "{}", done.all());
}

#[test]
fn a_run_that_passes_a_point_of_no_return_is_asked_for_on_a_terminal() {
    let lab = Lab::new();
    lab.write("p.yaml", BEYOND);
    let done = lab
        .at_terminal(&["run", "p.yaml"], "n\n")
        .exits(2)
        .says("beyond in environment local passes a point of no return")
        .says("target app: sqlite ")
        .says("writes table (sql.execute)")
        .says("writes gone (sql.execute)")
        .says("Run it? [y/N]")
        .says("not started");
    let gone: Vec<&str> = done
        .stdout
        .lines()
        .filter(|line| line.trim_end().ends_with("cannot be undone"))
        .collect();
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert_eq!(lab.run(&["runs", "--json"]).stdout.trim(), "[]");
    lab.at_terminal(&["run", "p.yaml"], "y\n").exits(0);
    lab.execute("app.db", "DROP TABLE n");
    // With these inputs the point is not reached, or nobody wants to be asked, or nobody is there.
    let skipped = ["run", "p.yaml", "-i", "really=false"];
    let done = lab.at_terminal(&skipped, "").exits(0);
    assert!(!done.stdout.contains("[y/N]"), "{}", done.all());
    lab.execute("app.db", "DROP TABLE n");
    let done = lab.at_terminal(&["run", "p.yaml", "-y"], "").exits(0);
    assert!(!done.stdout.contains("[y/N]"), "{}", done.all());
    lab.execute("app.db", "DROP TABLE n");
    lab.run(&["run", "p.yaml"]).exits(0);
}

/// A plan, which is made before the question, takes the signal from the system for good.
#[test]
fn ctrl_c_at_a_question_ends_the_command() {
    let lab = Lab::new();
    lab.write("p.yaml", BEYOND);
    lab.interrupted_at(&["run", "p.yaml"], "[y/N]")
        .exits(130)
        .says("interrupted before the answer")
        .says("nothing was changed");
    assert_eq!(lab.run(&["runs", "--json"]).stdout.trim(), "[]");
    lab.run(&["run", "p.yaml"]).exits(0);
    lab.interrupted_at(&["undo", "last"], "[y/N]").exits(130);
    assert_eq!(lab.state(), "succeeded");
}

#[test]
fn an_approved_plan_is_shown_in_short_too() {
    let lab = Lab::new();
    lab.write("p.yaml", BEYOND);
    lab.run(&["plan", "p.yaml", "-o", "plan.json"]).exits(0);
    let run = ["run", "p.yaml", "--plan", "plan.json"];
    lab.at_terminal(&run, "n\n")
        .exits(2)
        .says("passes a point of no return");
    lab.at_terminal(&run, "y\n").exits(0);
}

#[test]
fn a_run_that_can_be_undone_is_not_asked_for() {
    let lab = Lab::new();
    lab.write("p.yaml", UNDONE);
    let done = lab.at_terminal(&["run", "p.yaml"], "").exits(0);
    assert!(!done.stdout.contains("[y/N]"), "{}", done.all());
}
