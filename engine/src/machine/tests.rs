//! What people do in between, as sequences of events: found by readers and testers, and out of the simulation's reach or too rare
//! there to be left to chance.
mod ends;
mod later;

use super::*;
use crate::{
    journal::conformance::{holder, started},
    step::{
        ApprovalRequest, Cause, Certainty, Failure, Probed as ProbeAnswer, Wait, WaitOn, Woken,
    },
    value::{Timestamp, Value},
};
use serde_json::{Value as Json, json};
use std::sync::Arc;

const FRIDAY: &str = "2026-11-20T16:00:00Z";
const FRIDAY_NIGHT: &str = "2026-11-20T18:00:00Z";
const MONDAY: &str = "2026-11-23T09:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A step that writes, marks nothing and may be repeated, or must be asked about.
fn step(id: &str, needs: &[u32], redo: &str) -> Json {
    json!({
        "id": id, "place": {"source": 0, "line": 1, "column": 1}, "needs": needs,
        "body": {"step": {
            "action": {
                "kind": "k", "with": {"literal": null},
                "traits": {"effect": "writes", "redo": redo, "marks": false, "captures": false, "undo": "auto",
                    "fidelity": "executed", "skippable": true},
            },
            "undo": {"auto": {}}, "skippable": true,
        }},
    })
}

fn with(mut node: Json, key: &str, value: Json) -> Json {
    node[key] = value;
    node
}

fn each(node: Json, parallel: u32) -> Json {
    let foreach = json!({"items": "[1, 2]", "name": "item", "max_parallel": parallel, "max_failures": {"count": 0}});
    with(node, "foreach", foreach)
}

fn machine(nodes: &[Json], steps: &[u32], policy: Json) -> Machine {
    let graph = json!({
        "format": 1, "playbook": "p", "sources": [], "targets": {}, "policy": policy, "nodes": nodes,
        "root": {"playbook": "p", "steps": steps,
            "inputs": {"n": {"type": "integer", "place": {"source": 0, "line": 1, "column": 1}}}},
    });
    let graph = Arc::new(serde_json::from_value(graph).unwrap());
    let mut first = started("r1", &graph);
    first.at = at(FRIDAY);
    Machine::recover([&first]).unwrap()
}

/// What starts, ends or waits, in short.
fn said(events: &[Event]) -> Vec<String> {
    let short = |event: &Event| match &event.body {
        EventBody::Started(e) => Some(format!("{:?} {} {:?}", e.phase, e.node, e.cause)),
        EventBody::Failed(e) if e.is_final => Some(format!("failed {}", e.node)),
        EventBody::WindowClosed(e) => Some(format!("closed {} until {}", e.node, e.opens)),
        EventBody::Withdrawn(e) => Some(format!("withdrawn {}", e.node)),
        EventBody::Awoken(e) => Some(format!("awoken {}", e.node)),
        EventBody::Finished(e) => Some(format!("{:?}", e.outcome)),
        _ => None,
    };
    events.iter().filter_map(short).collect()
}

fn settle(machine: &mut Machine, now: &str) -> Vec<String> {
    let said = said(&machine.settle(at(now)).unwrap());
    machine.check().unwrap();
    said
}

fn apply(machine: &mut Machine, events: Vec<Event>) {
    for event in events {
        machine.apply(&event).unwrap();
    }
    machine.check().unwrap();
}

fn wanted(machine: &Machine, node: &str) -> Wanted {
    let mut all = machine.wanted();
    all.find(|wanted| &*machine.get(wanted.instance).path == node)
        .unwrap()
}

fn report(machine: &mut Machine, node: &str, report: Report, now: &str) {
    let events = machine.report(&wanted(machine, node), report, at(now));
    assert!(!events.is_empty(), "{node} does not count");
    apply(machine, events);
}

fn done() -> Report {
    Report::Done {
        output: Value::Null,
        evidence: Vec::new(),
    }
}

fn fails() -> Report {
    Report::Failed {
        failure: Failure::new("k.failed", "it fails"),
        evidence: Vec::new(),
    }
}

fn order(command: Command, now: &str) -> Submitted {
    Submitted {
        id: format!("{command:?}"),
        run: "r1".to_owned(),
        who: "bruno".to_owned(),
        account: None,
        at: at(now),
        command,
    }
}

/// Accepted, or why not.
fn orders(machine: &mut Machine, command: Command, now: &str) -> Result<(), String> {
    let order = order(command, now);
    machine.accepts(&order, order.at)?;
    let events = machine.command(&order, order.at);
    apply(machine, events);
    Ok(())
}

fn retry(node: &str) -> Command {
    Command::Retry {
        node: node.to_owned(),
    }
}

fn taken_over(machine: &mut Machine, now: &str) {
    let taken = LeaseTaken {
        epoch: machine.epoch() + 1,
        holder: holder("ana"),
        failovers: indexmap::IndexMap::new(),
        unreachable: indexmap::IndexMap::new(),
    };
    let body = EventBody::LeaseTaken(Box::new(taken));
    apply(machine, vec![Event { at: at(now), body }]);
}

fn question(deadline: Option<&str>) -> Report {
    let request = ApprovalRequest {
        prompt: "Go on?".to_owned(),
        groups: Vec::new(),
        quorum: 2,
        separation_of_duties: false,
        show: Value::Null,
        shown_hash: "h".to_owned(),
        ask: indexmap::IndexMap::new(),
    };
    Report::Suspended {
        state: Value::Null,
        wait: Wait {
            on: WaitOn::Approval(Box::new(request)),
            deadline: deadline.map(at),
            wall: None,
        },
    }
}

fn vote(machine: &Machine, who: &str, sent: &str) -> Submitted {
    let vote = Command::Vote {
        node: "ask".to_owned(),
        approve: true,
        answers: indexmap::IndexMap::new(),
        reason: None,
        digest: machine.started().digest.clone(),
        shown_hash: "h".to_owned(),
    };
    Submitted {
        who: who.to_owned(),
        id: format!("{who} {sent}"),
        ..order(vote, sent)
    }
}

#[test]
fn a_step_in_a_loop_that_has_failed_for_good_is_tried_again() {
    let nodes = [
        each(step("fill", &[], "repeatable"), 1),
        step("other", &[], "repeatable"),
    ];
    let mut run = machine(&nodes, &[0, 1], json!({"on_failure": "undo"}));
    settle(&mut run, FRIDAY);
    report(&mut run, "fill[0]", fails(), FRIDAY);
    // The loop fails, which ends the run; it waits for the other step.
    assert_eq!(settle(&mut run, FRIDAY), ["failed fill"]);
    orders(&mut run, retry("fill[0]"), FRIDAY).unwrap();
    assert_eq!(settle(&mut run, FRIDAY), ["Do fill[0] Operator"]);
    report(&mut run, "fill[0]", done(), FRIDAY);
    assert_eq!(settle(&mut run, FRIDAY), ["Do fill[1] First"]);
}

#[test]
fn every_item_that_fails_is_counted_before_its_loop_fails() {
    let group = json!({"id": "l", "place": {"source": 0, "line": 1, "column": 1}, "needs": [],
        "body": {"group": {"steps": [1]}}});
    let inner = with(step("x", &[], "repeatable"), "parent", json!(0));
    let mut run = machine(
        &[each(group, 2), inner],
        &[0],
        json!({"on_failure": "stop"}),
    );
    settle(&mut run, FRIDAY);
    report(&mut run, "l[0]/x", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "l[1]/x", fails(), FRIDAY);
    let told = settle(&mut run, FRIDAY);
    assert_eq!(told, ["failed l[1]", "failed l", "Stopped"]);
    let failure = run.instance("l").unwrap().forward.failure.clone().unwrap();
    assert!(
        failure.message.starts_with("2 of 2 items failed"),
        "{}",
        failure.message
    );
}

#[test]
fn nothing_begins_at_its_window_in_a_loop_that_has_failed() {
    let policy = json!({"windows": ["Mon-Fri 09:00-17:00 UTC"]});
    let nodes = [with(
        each(step("host", &[], "repeatable"), 1),
        "on_failure",
        json!("continue"),
    )];
    let mut run = machine(&nodes, &[0], policy);
    settle(&mut run, FRIDAY);
    report(&mut run, "host[0]", fails(), FRIDAY_NIGHT);
    settle(&mut run, FRIDAY_NIGHT);
    assert_eq!(run.instance("host").unwrap().forward.stage(), Stage::Failed);
    assert_eq!(settle(&mut run, MONDAY), [""; 0]);
    // The same with one that waits for its window already.
    let mut node = each(step("host", &[], "repeatable"), 2);
    node["foreach"]["items"] = json!("[1, 2, 3]");
    node["foreach"]["max_failures"] = json!({"count": 1});
    let policy = json!({"windows": ["Mon-Fri 09:00-17:00 UTC"]});
    let mut run = machine(&[with(node, "on_failure", json!("continue"))], &[0], policy);
    settle(&mut run, FRIDAY);
    report(&mut run, "host[0]", fails(), FRIDAY_NIGHT);
    assert_eq!(
        settle(&mut run, FRIDAY_NIGHT),
        [format!("closed host[2] until {MONDAY}")]
    );
    report(&mut run, "host[1]", fails(), FRIDAY_NIGHT);
    assert_eq!(
        settle(&mut run, FRIDAY_NIGHT),
        ["withdrawn host[2]", "failed host", "Failed"]
    );
}

#[test]
fn what_waits_for_its_window_waits_for_what_runs_again_before_it() {
    let policy = json!({"windows": ["Mon-Fri 09:00-17:00 UTC"], "on_failure": "undo"});
    let reads = |id: &str| {
        let mut node = step(id, &[], "repeatable");
        node["body"]["step"]["action"]["traits"]["effect"] = json!("read_only");
        node["body"]["step"]["undo"] = json!("none");
        with(node, "on_failure", json!("continue"))
    };
    let mut run = machine(
        &[reads("look"), step("write", &[0], "repeatable")],
        &[0, 1],
        policy,
    );
    settle(&mut run, FRIDAY);
    report(&mut run, "look", fails(), FRIDAY_NIGHT);
    let told = settle(&mut run, FRIDAY_NIGHT);
    assert_eq!(told, [format!("closed write until {MONDAY}")]);
    orders(&mut run, retry("look"), FRIDAY_NIGHT).unwrap();
    let told = settle(&mut run, FRIDAY_NIGHT);
    assert!(told.contains(&"withdrawn write".to_owned()), "{told:?}");
    assert_eq!(
        settle(&mut run, MONDAY),
        [""; 0],
        "what it needs still runs"
    );
    report(&mut run, "look", done(), MONDAY);
    assert_eq!(settle(&mut run, MONDAY), ["Do write First"]);
}

#[test]
fn a_window_is_of_the_wall_clock() {
    let policy = json!({"windows": ["Mon-Fri 09:00-17:00 UTC"], "on_failure": "undo"});
    let mut run = machine(&[step("one", &[], "repeatable")], &[0], policy);
    // The run's own time is ahead: it was driven while the clock was wrong.
    let step = |by: i64, wall: &str| {
        EventBody::ClockStepped(ClockStepped {
            by: crate::value::Duration::from_secs(by),
            wall: at(wall),
        })
    };
    taken_over(&mut run, "2026-11-20T16:30:00Z");
    let early = Event {
        at: at("2026-11-20T16:30:00Z"),
        body: step(-32_400, "2026-11-20T07:30:00Z"),
    };
    apply(&mut run, vec![early]);
    let told = settle(&mut run, "2026-11-20T16:30:00Z");
    assert_eq!(told, ["closed one until 2026-11-20T09:00:00Z"]);
    // An hour and a half later by the clock that never steps.
    assert_eq!(run.next_timer(), Some(at("2026-11-20T18:00:00Z")));
    assert_eq!(settle(&mut run, "2026-11-20T18:00:00Z"), ["Do one First"]);
}

#[test]
fn votes_outlive_a_look_at_the_clock_and_count_by_the_time_at_which_they_were_sent() {
    let nodes = [
        step("ask", &[], "repeatable"),
        step("act", &[0], "repeatable"),
    ];
    let mut run = machine(&nodes, &[0, 1], json!({}));
    settle(&mut run, FRIDAY);
    report(
        &mut run,
        "ask",
        question(Some("2026-11-20T20:00:00Z")),
        FRIDAY,
    );
    let first = vote(&run, "bruno", "2026-11-20T17:00:00Z");
    let events = run.command(&first, first.at);
    apply(&mut run, events);
    // The clock was set: the step looks again, and asks the same.
    let body = EventBody::Awoken(Box::new(Awoken {
        node: "ask".into(),
        phase: crate::step::Phase::Do,
        by: Woken::Deadline,
    }));
    apply(
        &mut run,
        vec![Event {
            at: at("2026-11-20T18:00:00Z"),
            body,
        }],
    );
    report(
        &mut run,
        "ask",
        question(Some("2026-11-20T20:00:00Z")),
        "2026-11-20T18:00:00Z",
    );
    assert_eq!(run.instance("ask").unwrap().votes.len(), 1);
    // The second vote is in time, and is taken by a process that comes after the question's end.
    let second = vote(&run, "carla", "2026-11-20T19:59:00Z");
    taken_over(&mut run, MONDAY);
    let due = run.wake(second.at).unwrap();
    assert_eq!(said(&due), [""; 0], "nothing had expired when it was sent");
    let events = run.command(&second, second.at);
    apply(&mut run, events);
    assert_eq!(run.instance("ask").unwrap().forward.stage(), Stage::Running);
    // One that was sent too late is refused.
    let mut late = machine(&nodes, &[0, 1], json!({}));
    settle(&mut late, FRIDAY);
    report(
        &mut late,
        "ask",
        question(Some("2026-11-20T20:00:00Z")),
        FRIDAY,
    );
    let third = vote(&late, "carla", "2026-11-20T20:01:00Z");
    let refused = late.accepts(&third, third.at).unwrap_err();
    assert!(refused.contains("expired"), "{refused}");
}

#[test]
fn an_input_stays_as_it_was_when_people_were_asked() {
    let mut act = step("act", &[0], "repeatable");
    act["body"]["step"]["action"]["with"] = json!({"map": {"n": {"expr": "inputs.n"}}});
    let nodes = [step("ask", &[], "repeatable"), act];
    let mut run = machine(&nodes, &[0, 1], json!({}));
    settle(&mut run, FRIDAY);
    let set = || Command::SetInput {
        name: "n".to_owned(),
        value: "99".to_owned(),
    };
    report(&mut run, "ask", question(None), FRIDAY);
    let refused = orders(&mut run, set(), FRIDAY).unwrap_err();
    assert!(refused.contains("act reads n"), "{refused}");
    for who in ["bruno", "carla"] {
        let vote = vote(&run, who, FRIDAY);
        let events = run.command(&vote, vote.at);
        apply(&mut run, events);
    }
    report(&mut run, "ask", done(), FRIDAY);
    let refused = orders(&mut run, set(), FRIDAY).unwrap_err();
    assert!(refused.contains("act reads n"), "{refused}");
}

/// A question that waits for its gate was not put to anybody: the input that opens it may be one that the question shows.
#[test]
fn a_gate_before_a_question_can_be_opened() {
    let mut ask = step("ask", &[], "repeatable");
    ask["body"]["step"]["gate"] = json!("inputs.n == 5");
    ask["body"]["step"]["action"]["traits"]["skippable"] = json!(false);
    ask["body"]["step"]["action"]["with"] = json!({"map": {"n": {"expr": "inputs.n"}}});
    let mut run = machine(&[ask], &[0], json!({}));
    let set = |value: &str| Command::SetInput {
        name: "n".to_owned(),
        value: value.to_owned(),
    };
    orders(&mut run, set("1"), FRIDAY).unwrap();
    assert_eq!(settle(&mut run, FRIDAY), [""; 0]);
    orders(&mut run, set("5"), FRIDAY).unwrap();
    assert_eq!(settle(&mut run, FRIDAY), ["Do ask First"]);
    let refused = orders(&mut run, set("6"), FRIDAY).unwrap_err();
    assert!(refused.contains("ask reads n"), "{refused}");
}

#[test]
fn a_failure_before_does_not_decide_a_doubt_of_a_later_attempt() {
    let mut node = step("act", &[], "probe_first");
    node["body"]["step"]["action"]["retry"] =
        json!({"attempts": 2, "backoff": "constant", "delay": "1s", "max_delay": "1s"});
    let mut run = machine(&[node], &[0], json!({}));
    settle(&mut run, FRIDAY);
    let busy = Failure::new("k.busy", "busy").cause(Cause::LockTimeout);
    report(
        &mut run,
        "act",
        Report::Failed {
            failure: busy,
            evidence: Vec::new(),
        },
        FRIDAY,
    );
    assert_eq!(settle(&mut run, "2026-11-20T16:00:01Z"), ["Do act Retry"]);
    taken_over(&mut run, FRIDAY_NIGHT);
    settle(&mut run, FRIDAY_NIGHT);
    report(
        &mut run,
        "act",
        Report::Probed(ProbeAnswer::NotDone),
        FRIDAY_NIGHT,
    );
    assert_eq!(settle(&mut run, FRIDAY_NIGHT), ["Do act Interrupted"]);
}

#[test]
fn what_ran_before_a_crash_counts_for_the_longest_time() {
    let mut run = machine(
        &[step("one", &[], "repeatable")],
        &[0],
        json!({"max_duration": "1h"}),
    );
    settle(&mut run, FRIDAY);
    let notes = |run: &mut Machine, now: &str| {
        report(run, "one", Report::Progressed(Value::Null), now);
    };
    notes(&mut run, "2026-11-20T16:40:00Z");
    taken_over(&mut run, "2026-11-20T20:00:00Z");
    settle(&mut run, "2026-11-20T20:00:00Z");
    notes(&mut run, "2026-11-20T20:19:00Z");
    assert!(run.ending().is_none());
    settle(&mut run, "2026-11-20T20:21:00Z");
    assert!(run.ending().unwrap().contains("longer than max_duration"));
}

#[test]
fn a_run_that_was_closed_and_is_undone_can_be_closed_again() {
    let mut run = machine(
        &[
            step("one", &[], "repeatable"),
            step("two", &[0], "repeatable"),
        ],
        &[0, 1],
        json!({"on_failure": "stop"}),
    );
    settle(&mut run, FRIDAY);
    report(&mut run, "one", done(), FRIDAY);
    settle(&mut run, FRIDAY);
    report(&mut run, "two", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    let close = || Command::Close {
        because: "by hand".to_owned(),
    };
    orders(&mut run, close(), FRIDAY).unwrap();
    assert_eq!(run.word(), CLOSED);
    assert!(orders(&mut run, close(), FRIDAY).is_err());
    orders(&mut run, Command::Undo, FRIDAY).unwrap();
    assert_eq!(settle(&mut run, FRIDAY), ["Undo one First"]);
    report(&mut run, "one", fails(), FRIDAY);
    settle(&mut run, FRIDAY);
    assert_eq!(run.state(), RunState::Stuck);
    // What is proposed is what the next driver finds: a doubt that it asks about is no reason to refuse.
    orders(&mut run, close(), FRIDAY).unwrap();
    assert_eq!(run.word(), CLOSED);
}

#[test]
fn a_run_in_doubt_is_closed_even_while_its_probe_is_asked_again() {
    let mut run = machine(&[step("one", &[], "ask_operator")], &[0], json!({}));
    settle(&mut run, FRIDAY);
    taken_over(&mut run, FRIDAY_NIGHT);
    settle(&mut run, FRIDAY_NIGHT);
    report(
        &mut run,
        "one",
        Report::Probed(ProbeAnswer::InDoubt("nobody knows".to_owned())),
        FRIDAY_NIGHT,
    );
    assert_eq!(run.state(), RunState::Stuck);
    taken_over(&mut run, MONDAY);
    let asked = wanted(&run, "one");
    orders(
        &mut run,
        Command::Close {
            because: "by hand".to_owned(),
        },
        MONDAY,
    )
    .unwrap();
    let late = run.report(&asked, Report::Probed(ProbeAnswer::NotDone), at(MONDAY));
    assert_eq!(late, []);
}

#[test]
fn a_pause_is_obeyed_before_an_interrupted_step_begins_anew() {
    let mut run = machine(&[step("one", &[], "repeatable")], &[0], json!({}));
    settle(&mut run, FRIDAY);
    taken_over(&mut run, FRIDAY_NIGHT);
    orders(&mut run, Command::Pause { because: None }, FRIDAY_NIGHT).unwrap();
    assert_eq!(settle(&mut run, FRIDAY_NIGHT), [""; 0]);
    assert_eq!(run.state(), RunState::Paused);
    orders(&mut run, Command::Unpause, FRIDAY_NIGHT).unwrap();
    assert_eq!(settle(&mut run, FRIDAY_NIGHT), ["Do one Interrupted"]);
}

#[test]
fn people_who_answered_differently_may_change_their_votes() {
    let asks = |machine: &mut Machine| {
        let Report::Suspended { state, mut wait } = question(None) else {
            unreachable!()
        };
        if let WaitOn::Approval(request) = &mut wait.on {
            let question = crate::step::Question::Value {
                kind: "integer".to_owned(),
                allowed: Vec::new(),
            };
            request.ask.insert("how".to_owned(), question);
        }
        report(machine, "ask", Report::Suspended { state, wait }, FRIDAY);
    };
    let mut run = machine(&[step("ask", &[], "repeatable")], &[0], json!({}));
    settle(&mut run, FRIDAY);
    asks(&mut run);
    let says = |run: &Machine, who: &str, how: &str| {
        let mut vote = vote(run, who, FRIDAY);
        if let Command::Vote { answers, .. } = &mut vote.command {
            answers.insert("how".to_owned(), how.to_owned());
        }
        vote
    };
    for (who, how) in [("bruno", "1"), ("carla", "2")] {
        let vote = says(&run, who, how);
        let events = run.command(&vote, vote.at);
        apply(&mut run, events);
    }
    let asked = |run: &Machine| run.instance("ask").unwrap().forward.stage();
    assert_eq!(
        asked(&run),
        Stage::AwaitingApproval,
        "two of two, who do not agree"
    );
    let again = says(&run, "carla", "2");
    assert!(
        run.accepts(&again, again.at).is_err(),
        "the same vote once more"
    );
    let changed = says(&run, "carla", "1");
    let events = run.command(&changed, changed.at);
    apply(&mut run, events);
    assert_eq!(asked(&run), Stage::Running);
}
