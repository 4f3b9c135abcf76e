//! Scopes that end, and go on after that.
use super::*;

fn with_finally(nodes: &[Json], steps: &[u32], finally: &[u32]) -> Machine {
    let graph = json!({
        "format": 1, "playbook": "p", "sources": [], "targets": {}, "policy": {}, "nodes": nodes,
        "root": {"playbook": "p", "steps": steps, "finally": finally},
    });
    let graph = Arc::new(serde_json::from_value(graph).unwrap());
    let mut first = started("r1", &graph);
    first.at = at(FRIDAY);
    Machine::recover([&first]).unwrap()
}

fn waits_until(until: &str) -> Report {
    Report::Suspended {
        state: Value::Null,
        wait: Wait {
            on: WaitOn::Timer(at(until)),
            deadline: None,
            wall: Some(at(until)),
        },
    }
}

fn stops(node: Json) -> Json {
    with(node, "on_failure", json!("stop"))
}

fn skip(node: &str) -> Command {
    Command::Skip {
        node: node.to_owned(),
        output: Value::Null,
        because: "not needed".to_owned(),
    }
}

/// Reads, so that what it leaves behind as it is ended is nothing.
fn reads(id: &str) -> Json {
    let mut node = step(id, &[], "repeatable");
    node["body"]["step"]["action"]["traits"]["effect"] = json!("read_only");
    node["body"]["step"]["undo"] = json!("none");
    node
}

fn call(id: &str, steps: &[u32]) -> Json {
    json!({
        "id": id, "place": {"source": 0, "line": 1, "column": 1}, "needs": [],
        "body": {"call": {
            "path": "other.yaml", "inputs": {}, "targets": {}, "on_failure": "pause",
            "scope": {"playbook": "other", "steps": steps, "finally": []},
        }},
    })
}

fn stage(run: &Machine, node: &str) -> Stage {
    run.instance(node).unwrap().forward.stage()
}

#[test]
fn a_loop_in_finally_that_fails_leaves_nothing_open() {
    let group = |id: &str, steps: &[u32]| {
        json!({"id": id, "place": {"source": 0, "line": 1, "column": 1}, "needs": [], "in_finally": true,
            "body": {"group": {"steps": steps}}})
    };
    let inner = |id: &str, needs: &[u32]| {
        with(
            with(step(id, needs, "repeatable"), "in_finally", json!(true)),
            "parent",
            json!(1),
        )
    };
    let nodes = [
        step("one", &[], "repeatable"),
        each(group("f", &[2, 3]), 2),
        inner("x", &[]),
        inner("y", &[2]),
    ];
    let mut run = with_finally(&nodes, &[0], &[1]);
    settle(&mut run, FRIDAY);
    report(&mut run, "one", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "f[0]/x", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "f[1]/x", done(), FRIDAY);
    assert!(settle(&mut run, FRIDAY).contains(&"Succeeded".to_owned()));
    assert_ne!(
        run.instance("f[1]").unwrap().forward.stage(),
        Stage::Running
    );
    orders(&mut run, Command::Undo, FRIDAY).unwrap();
    assert_eq!(settle(&mut run, FRIDAY), ["Undo one First"]);
}

/// The call comes before the step whose failure ended the run: both are looked at as the failure is answered.
#[test]
fn what_the_end_overtook_in_a_playbook_that_still_ran_is_pending_again() {
    let inside = |node: Json| with(node, "parent", json!(0));
    let nodes = [
        call("call", &[1, 2]),
        inside(reads("waits")),
        inside(step("runs", &[], "repeatable")),
        stops(step("fatal", &[], "repeatable")),
    ];
    let mut run = with_finally(&nodes, &[0, 3], &[]);
    settle(&mut run, FRIDAY);
    report(&mut run, "call/waits", waits_until(MONDAY), FRIDAY);
    report(&mut run, "fatal", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    assert_eq!(stage(&run, "call/waits"), Stage::Ended);
    // What runs in it keeps the run from its end.
    orders(&mut run, retry("fatal"), FRIDAY).unwrap();
    assert_eq!(stage(&run, "call/waits"), Stage::Idle);
    assert_eq!(
        settle(&mut run, FRIDAY),
        ["Do fatal Operator", "Do call/waits First"]
    );
}

/// So is a playbook that had come to its end in one that still ran.
#[test]
fn a_playbook_in_one_that_still_ran_runs_again() {
    let nodes = [
        call("outer", &[1, 3]),
        with(call("inner", &[2]), "parent", json!(0)),
        with(reads("waits"), "parent", json!(1)),
        with(step("runs", &[], "repeatable"), "parent", json!(0)),
        stops(step("fatal", &[], "repeatable")),
    ];
    let mut run = with_finally(&nodes, &[0, 4], &[]);
    settle(&mut run, FRIDAY);
    report(&mut run, "outer/inner/waits", waits_until(MONDAY), FRIDAY);
    report(&mut run, "fatal", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    assert_eq!(stage(&run, "outer/inner"), Stage::Failed);
    assert_eq!(stage(&run, "outer"), Stage::Running);
    orders(&mut run, retry("fatal"), FRIDAY).unwrap();
    assert_eq!(
        settle(&mut run, FRIDAY),
        ["Do fatal Operator", "Do outer/inner/waits First"]
    );
}

#[test]
fn a_clock_that_is_set_wakes_nothing_that_ends() {
    let nodes = [
        reads("waits"),
        stops(step("fatal", &[], "repeatable")),
        step("runs", &[], "repeatable"),
    ];
    let mut run = with_finally(&nodes, &[0, 1, 2], &[]);
    settle(&mut run, FRIDAY);
    report(&mut run, "waits", waits_until(MONDAY), FRIDAY);
    report(&mut run, "fatal", fails(), FRIDAY);
    let set = |at: Timestamp| crate::value::Duration::from_secs(-3_600).after(at);
    let woken = run.look_at_the_clock(at(FRIDAY), set).unwrap();
    assert_eq!(said(&woken), [""; 0]);
}

#[test]
fn a_cancel_in_finally_leaves_the_outcome_and_says_so() {
    let nodes = [
        step("one", &[], "repeatable"),
        with(reads("last"), "in_finally", json!(true)),
    ];
    let mut run = with_finally(&nodes, &[0], &[1]);
    settle(&mut run, FRIDAY);
    report(&mut run, "one", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "last", waits_until(MONDAY), FRIDAY);
    let cancel = Command::Cancel {
        undo: false,
        force: false,
        because: None,
    };
    orders(&mut run, cancel, FRIDAY).unwrap();
    let ending = run.ending().unwrap();
    assert!(
        ending.ends_with("cancelled its `finally`; the outcome stays succeeded"),
        "{ending}"
    );
    assert_eq!(settle(&mut run, FRIDAY), ["Succeeded"]);
    let failed = &run.finished().unwrap().finally_failed;
    assert_eq!(failed.len(), 1, "what was cut short: {failed:?}");
}

/// What its scope would end by at once, since a run that was cancelled waits for no answer, leaves no room for a retry.
#[test]
fn a_retry_that_would_not_run_is_refused() {
    let in_finally = |node: Json| with(node, "in_finally", json!(true));
    let inside = |node: Json| with(node, "parent", json!(1));
    let nodes = [
        step("one", &[], "repeatable"),
        in_finally(call("f", &[2, 3])),
        inside(with(reads("x"), "on_failure", json!("continue"))),
        inside(with(step("y", &[], "ask_operator"), "cleanup", json!(true))),
        in_finally(reads("g")),
    ];
    let mut run = with_finally(&nodes, &[0], &[1, 4]);
    settle(&mut run, FRIDAY);
    report(&mut run, "one", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    let cancel = Command::Cancel {
        undo: false,
        force: false,
        because: None,
    };
    orders(&mut run, cancel, FRIDAY).unwrap();
    report(&mut run, "f/x", fails(), FRIDAY);
    report(&mut run, "f/y", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    let half = Failure::new("k.failed", "it fails").certainty(Certainty::Partial);
    let half = Report::Failed {
        failure: half,
        evidence: Vec::new(),
    };
    report(&mut run, "f/y", half, FRIDAY);
    let skip = Command::Skip {
        node: "f/y".to_owned(),
        output: Value::Null,
        because: "left".to_owned(),
    };
    orders(&mut run, skip, FRIDAY).unwrap();
    assert_eq!(settle(&mut run, FRIDAY), ["failed f", "Do g First"]);
    let refused = orders(&mut run, retry("f/x"), FRIDAY).unwrap_err();
    assert!(
        refused.contains("f/x would not run: f/y failed"),
        "{refused}"
    );
}

/// The loop was between two items as its group failed; a step of the group that is passed over opens nothing of it.
#[test]
fn a_loop_in_a_group_that_is_passed_over_takes_up_no_more_items() {
    let group = json!({
        "id": "g", "place": {"source": 0, "line": 1, "column": 1}, "needs": [],
        "body": {"group": {"steps": [1, 2]}},
    });
    let inside = |node: Json| with(node, "parent", json!(0));
    let nodes = [
        group,
        inside(each(step("loop", &[], "repeatable"), 1)),
        inside(step("x", &[], "repeatable")),
        step("last", &[0], "repeatable"),
    ];
    let mut run = machine(&nodes, &[0, 3], json!({"on_failure": "ignore"}));
    settle(&mut run, FRIDAY);
    report(&mut run, "g/x", fails(), FRIDAY);
    report(&mut run, "g/loop[0]", done(), FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), ["failed g", "Do last First"]);
    for node in ["g", "g/x"] {
        orders(&mut run, skip(node), FRIDAY).unwrap();
    }
    assert_eq!(settle(&mut run, FRIDAY), [""; 0]);
    assert_eq!(stage(&run, "g/loop"), Stage::Ended);
}

/// The first attempt of the undo was lost and may have acted; that the second one fails without an effect says nothing of it.
#[test]
fn an_undo_of_which_an_attempt_was_lost_is_half_done() {
    let nodes = [
        step("made", &[], "repeatable"),
        step("fatal", &[0], "repeatable"),
    ];
    let mut run = machine(&nodes, &[0, 1], json!({"on_failure": "undo"}));
    settle(&mut run, FRIDAY);
    report(&mut run, "made", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "fatal", fails(), FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), ["Undo made First"]);
    taken_over(&mut run, FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), ["Undo made Interrupted"]);
    report(&mut run, "made", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    orders(&mut run, skip("made"), FRIDAY).unwrap();
    settle(&mut run, FRIDAY);
    orders(&mut run, retry("fatal"), FRIDAY).unwrap();
    assert_eq!(settle(&mut run, FRIDAY), ["Do made First"]);
}

/// Its first undo step is done, and the second was left: it runs again, and until it does only the second is left to be undone.
#[test]
fn what_is_half_undone_is_undone_from_where_it_was_left() {
    let mut made = step("made", &[], "repeatable");
    let action = made["body"]["step"]["action"].clone();
    made["body"]["step"]["undo"] = json!({"steps": [action.clone(), action]});
    let nodes = [made, step("fatal", &[0], "repeatable"), reads("other")];
    let mut run = machine(&nodes, &[0, 1, 2], json!({"on_failure": "undo"}));
    settle(&mut run, FRIDAY);
    report(&mut run, "other", done(), FRIDAY);
    report(&mut run, "made", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "fatal", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "made", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "made", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    orders(&mut run, skip("made"), FRIDAY).unwrap();
    settle(&mut run, FRIDAY);
    orders(&mut run, retry("fatal"), FRIDAY).unwrap();
    assert_eq!(stage(&run, "made"), Stage::Idle);
    orders(&mut run, Command::Undo, FRIDAY).unwrap();
    settle(&mut run, FRIDAY);
    let undo = &run.instance("made").unwrap().undo;
    assert_eq!((undo.part, undo.stage()), (1, Stage::Running));
}
