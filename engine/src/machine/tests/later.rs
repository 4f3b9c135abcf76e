//! What comes of a step after it acted: its undo, its doubt, its place behind an approval or a window.
use super::*;

fn set(value: &str) -> Command {
    Command::SetInput {
        name: "n".to_owned(),
        value: value.to_owned(),
    }
}

fn cancel(undo: bool) -> Command {
    Command::Cancel {
        undo,
        force: false,
        because: None,
    }
}

/// Undone by these steps, each with its condition.
fn undone_by(mut node: Json, parts: &[(&str, Option<&str>)]) -> Json {
    let action = node["body"]["step"]["action"].clone();
    let part = |(reads, when): &(&str, Option<&str>)| {
        let mut part = action.clone();
        part["with"] = json!({"map": {"value": {"expr": reads}}});
        if let Some(when) = when {
            part["when"] = json!(when);
        }
        part
    };
    let parts: Vec<Json> = parts.iter().map(part).collect();
    node["body"]["step"]["undo"] = json!({"steps": parts});
    node
}

fn undo_of(run: &Machine, node: &str) -> Stage {
    run.instance(node).unwrap().undo.stage()
}

#[test]
fn an_input_is_not_changed_under_an_undo_or_a_probe_that_reads_it() {
    let nodes = [
        undone_by(step("one", &[], "ask_operator"), &[("inputs.n", None)]),
        step("two", &[0], "repeatable"),
    ];
    let mut run = machine(&nodes, &[0, 1], json!({"on_failure": "pause"}));
    orders(&mut run, set("1"), FRIDAY).unwrap();
    settle(&mut run, FRIDAY);
    let why = orders(&mut run, set("2"), FRIDAY).unwrap_err();
    assert!(
        why.contains("its undo or its probe reads it"),
        "it runs: {why}"
    );
    report(&mut run, "one", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    assert!(orders(&mut run, set("2"), FRIDAY).is_err(), "it has acted");
    report(&mut run, "two", fails(), FRIDAY);
    orders(&mut run, cancel(true), FRIDAY).unwrap();
    settle(&mut run, FRIDAY);
    report(&mut run, "one", done(), FRIDAY);
    assert_eq!(undo_of(&run, "one"), Stage::Succeeded);
}

#[test]
fn an_input_behind_an_approval_stays_until_what_reads_it_is_done() {
    let reads = |node: Json| {
        let mut node = node;
        node["body"]["step"]["action"]["with"] = json!({"map": {"value": {"expr": "inputs.n"}}});
        node
    };
    let group = json!({
        "id": "g", "place": {"source": 0, "line": 1, "column": 1}, "needs": [0], "body": {"group": {"steps": [2]}},
    });
    let nodes = [
        step("ask", &[], "repeatable"),
        group,
        reads(with(step("acts", &[], "repeatable"), "parent", json!(1))),
    ];
    let windows = json!({"windows": ["Mon-Fri 09:00-17:00 UTC"], "on_failure": "pause"});
    let mut run = machine(&nodes, &[0, 1], windows);
    orders(&mut run, set("1"), FRIDAY).unwrap();
    settle(&mut run, FRIDAY);
    report(&mut run, "ask", question(None), FRIDAY);
    assert!(
        orders(&mut run, set("2"), FRIDAY).is_err(),
        "the group has not opened"
    );
    for who in ["bruno", "carla"] {
        let vote = vote(&run, who, FRIDAY);
        let events = run.command(&vote, vote.at);
        apply(&mut run, events);
    }
    report(&mut run, "ask", done(), FRIDAY);
    settle(&mut run, FRIDAY_NIGHT);
    assert!(
        orders(&mut run, set("2"), FRIDAY_NIGHT).is_err(),
        "it waits for its window"
    );
    settle(&mut run, MONDAY);
    report(&mut run, "g/acts", fails(), MONDAY);
    assert!(
        orders(&mut run, set("2"), MONDAY).is_err(),
        "it failed, and may run again"
    );
}

#[test]
fn a_doubt_about_one_step_of_an_undo_is_settled_for_that_step() {
    let nodes = [
        undone_by(
            step("one", &[], "ask_operator"),
            &[("1", None), ("2", None), ("3", None)],
        ),
        step("two", &[0], "repeatable"),
    ];
    let mut run = machine(&nodes, &[0, 1], json!({"on_failure": "undo"}));
    settle(&mut run, FRIDAY);
    report(&mut run, "one", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "two", fails(), FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), ["Undo one First"]);
    taken_over(&mut run, FRIDAY);
    settle(&mut run, FRIDAY);
    report(
        &mut run,
        "one",
        Report::Probed(ProbeAnswer::InDoubt("?".to_owned())),
        FRIDAY,
    );
    let resolve = Command::Resolve {
        node: "one".to_owned(),
        done: true,
        output: Value::Null,
        because: "seen".to_owned(),
    };
    orders(&mut run, resolve, FRIDAY).unwrap();
    for _ in 1..3 {
        assert_eq!(settle(&mut run, FRIDAY), ["Undo one First"]);
        report(&mut run, "one", done(), FRIDAY);
    }
    assert_eq!(settle(&mut run, FRIDAY), ["Compensated"]);
}

/// It had nothing to undo when the run failed; what it needs is undone later all the same.
#[test]
fn an_undo_that_had_nothing_to_do_blocks_nothing_later() {
    let nodes = [
        step("base", &[], "repeatable"),
        undone_by(step("top", &[0], "repeatable"), &[("1", Some("false"))]),
        step("last", &[1], "repeatable"),
    ];
    let mut run = machine(&nodes, &[0, 1, 2], json!({"on_failure": "undo"}));
    for node in ["base", "top"] {
        settle(&mut run, FRIDAY);
        report(&mut run, node, done(), FRIDAY);
    }
    settle(&mut run, FRIDAY);
    report(&mut run, "last", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "base", fails(), FRIDAY);
    orders(&mut run, cancel(false), FRIDAY).unwrap();
    assert_eq!(settle(&mut run, FRIDAY), ["Cancelled"]);
    orders(&mut run, Command::Undo, FRIDAY).unwrap();
    assert_eq!(settle(&mut run, FRIDAY), ["Undo base First"]);
    report(&mut run, "base", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    let again = orders(&mut run, Command::Undo, FRIDAY);
    assert!(
        again.is_err(),
        "nothing is left, and it is not proposed for ever"
    );
}

#[test]
fn a_cancel_that_undoes_takes_back_one_that_leaves() {
    let nodes = [
        step("one", &[], "repeatable"),
        step("two", &[0], "repeatable"),
        step("last", &[1], "repeatable"),
    ];
    let mut run = machine(&nodes, &[0, 1, 2], json!({"on_failure": "undo"}));
    for node in ["one", "two"] {
        settle(&mut run, FRIDAY);
        report(&mut run, node, done(), FRIDAY);
    }
    settle(&mut run, FRIDAY);
    report(&mut run, "last", fails(), FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), ["Undo two First"]);
    orders(&mut run, cancel(false), FRIDAY).unwrap();
    assert!(orders(&mut run, cancel(false), FRIDAY).is_err());
    orders(&mut run, cancel(true), FRIDAY).unwrap();
    report(&mut run, "two", done(), FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), ["Undo one First"]);
    report(&mut run, "one", done(), FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), ["Cancelled"]);
}

/// Its group has failed: the run does not wait for Monday to end.
#[test]
fn an_interrupted_attempt_gives_its_window_back_if_its_group_fails() {
    let group = json!({
        "id": "g", "place": {"source": 0, "line": 1, "column": 1}, "needs": [], "on_failure": "continue", "body": {"group": {"steps": [1, 2]}},
    });
    let inside = |node: Json| with(node, "parent", json!(0));
    let mut reads = inside(step("looks", &[], "repeatable"));
    reads["body"]["step"]["action"]["traits"]["effect"] = json!("read_only");
    reads["body"]["step"]["undo"] = json!("none");
    let nodes = [group, inside(step("writes", &[], "repeatable")), reads];
    let windows = json!({"windows": ["Mon-Fri 09:00-17:00 UTC"], "on_failure": "undo"});
    let mut run = machine(&nodes, &[0], windows);
    settle(&mut run, FRIDAY);
    taken_over(&mut run, FRIDAY_NIGHT);
    settle(&mut run, FRIDAY_NIGHT);
    report(&mut run, "g/looks", fails(), FRIDAY_NIGHT);
    let told = settle(&mut run, FRIDAY_NIGHT);
    assert!(told.contains(&"withdrawn g/writes".to_owned()), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("Failed"), "{told:?}");
    assert!(
        run.instance("g/writes").unwrap().took_effect,
        "it may have acted"
    );
}

/// A call undoes itself, and waits in that, while a step elsewhere asks.
#[test]
fn what_is_being_undone_is_woken_while_another_failure_asks() {
    let call = json!({
        "id": "call", "place": {"source": 0, "line": 1, "column": 1}, "needs": [],
        "body": {"call": {
            "path": "other.yaml", "inputs": {}, "targets": {}, "on_failure": "undo",
            "scope": {"playbook": "other", "steps": [1, 2], "finally": []},
        }},
    });
    let inside = |node: Json| with(node, "parent", json!(0));
    let nodes = [
        call,
        inside(undone_by(step("made", &[], "repeatable"), &[("1", None)])),
        inside(step("broke", &[1], "repeatable")),
        step("asks", &[], "repeatable"),
    ];
    let mut run = machine(&nodes, &[0, 3], json!({"on_failure": "pause"}));
    settle(&mut run, FRIDAY);
    report(&mut run, "call/made", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "call/broke", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    let wait = Wait {
        on: WaitOn::Signal("go".to_owned()),
        deadline: None,
        wall: None,
    };
    let state = Value::Null;
    report(
        &mut run,
        "call/made",
        Report::Suspended { state, wait },
        FRIDAY,
    );
    report(&mut run, "asks", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    let signal = Command::Signal {
        name: "go".to_owned(),
        payload: Value::Null,
    };
    orders(&mut run, signal, FRIDAY).unwrap();
    assert_eq!(settle(&mut run, FRIDAY), ["awoken call/made"]);
}

/// A fleet of which one member is down: the others are undone all the same.
#[test]
fn an_item_that_cannot_be_undone_holds_up_no_other() {
    let nodes = [
        each(step("fix", &[], "repeatable"), 2),
        step("last", &[0], "repeatable"),
    ];
    let mut run = machine(&nodes, &[0, 1], json!({"on_failure": "undo"}));
    settle(&mut run, FRIDAY);
    for node in ["fix[0]", "fix[1]"] {
        report(&mut run, node, done(), FRIDAY);
    }
    settle(&mut run, FRIDAY);
    report(&mut run, "last", fails(), FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), ["Undo fix[1] First"]);
    report(&mut run, "fix[1]", fails(), FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), ["Undo fix[0] First"]);
    report(&mut run, "fix[0]", done(), FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), [""; 0]);
    assert_eq!(run.state(), RunState::Stuck);
    orders(&mut run, retry("fix[1]"), FRIDAY).unwrap();
    settle(&mut run, FRIDAY);
    report(&mut run, "fix[1]", done(), FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), ["Compensated"]);
}
