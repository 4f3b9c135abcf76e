//! Windows of the policy: they bind each forward start of a step that writes.
//!
//! Undo and `finally` are not bound: what must be put right is put right at any hour.
use super::{
    core::Machine,
    state::{InstanceId, Role},
};
use crate::{
    graph::OutsideWindow,
    policy::windows::next_opening,
    step::{Cause, Certainty, Effect, Failure, Phase, Redo},
    value::{Duration, Timestamp},
};

impl Machine {
    /// An instant of the wall clock in the time of the run.
    pub(super) fn of_wall(&self, at: Timestamp) -> Timestamp {
        Duration::from_millis(-self.wall_ahead.as_millis()).after(at)
    }

    /// When the windows let a forward start of this instance happen, by the wall clock; `None` if it may start now.
    pub(super) fn window_opens(&self, id: InstanceId, now: Timestamp) -> Option<Timestamp> {
        let windows = &self.graph.policy.windows;
        if windows.is_empty() || self.get(id).role != Role::Step || self.tree.is_in_finally(id) {
            return None;
        }
        let writes = self
            .action(id, Phase::Do)
            .is_some_and(|action| action.traits.effect != Effect::ReadOnly);
        if !writes {
            return None;
        }
        // A window that never opens is waited for to the end of time: nothing is written outside of it.
        let wall = self.wall_ahead.after(now);
        let opens = next_opening(windows, wall).unwrap_or(Timestamp::MAX);
        (opens > wall).then_some(opens)
    }

    /// The failure of a step that the policy refuses outside the windows; `None` if it waits.
    pub(super) fn window_refuses(&self, id: InstanceId, opens: Timestamp) -> Option<Failure> {
        match self.graph.policy.outside_window {
            OutsideWindow::Wait => return None,
            OutsideWindow::Refuse => {}
        }
        // An attempt before may have written something, if the step can be run again whatever it did.
        let again = self.get(id).forward.begun && self.redo(id, Phase::Do) == Redo::Repeatable;
        let failure = Failure::new(
            "policy.window",
            format!(
                "outside the windows of this playbook ({}), and `outside_window` is `refuse`",
                self.graph.policy.windows.join("; ")
            ),
        );
        Some(
            failure
                .cause(Cause::Refused)
                .certainty(if again {
                    Certainty::Partial
                } else {
                    Certainty::NoEffect
                })
                .help(format!("the next one opens at {opens:.0}")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        journal::conformance::started,
        machine::{
            Cancelled, Event, EventBody, LeaseTaken, Outcome, Report, RunState, StartCause, Work,
        },
        policy::windows::check,
        step::Probed,
        value::Value,
    };
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};
    use std::sync::Arc;

    const OFFICE: &str = "Mon-Fri 09:00-17:00 UTC";
    const FRIDAY_16: &str = "2026-11-20T16:00:00Z";
    const FRIDAY_18: &str = "2026-11-20T18:00:00Z";
    const MONDAY_9: &str = "2026-11-23T09:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Reads, then writes twice, then `finally` writes.
    fn machine(outside: &str, redo: &str) -> Machine {
        let traits = |effect: &str| {
            json!({
                "effect": effect, "redo": if effect == "read_only" { "repeatable" } else { redo }, "marks": false,
                "captures": false, "undo": "auto", "fidelity": "executed", "skippable": true,
            })
        };
        let node = |id: &str, needs: &[u32], effect: &str, in_finally: bool| -> Json {
            let retry = json!({
                "attempts": 5, "backoff": "constant", "delay": "10m", "max_delay": "10m",
            });
            json!({
                "id": id, "place": {"source": 0, "line": 1, "column": 1}, "needs": needs, "in_finally": in_finally,
                "body": {"step": {
                    "action": {"kind": "k", "traits": traits(effect), "with": {"literal": null}, "retry": retry},
                    "undo": if effect == "read_only" || in_finally { json!("none") } else { json!({"auto": {}}) },
                    "skippable": true,
                }},
            })
        };
        let graph = json!({
            "format": 1, "playbook": "p", "sources": [], "targets": {},
            "policy": {"windows": [OFFICE], "outside_window": outside, "on_failure": "undo"},
            "nodes": [
                node("look", &[], "read_only", false), node("one", &[0], "writes", false),
                node("two", &[1], "writes", false), node("last", &[], "writes", true),
            ],
            "root": {"playbook": "p", "steps": [0, 1, 2], "finally": [3]},
        });
        let graph = Arc::new(serde_json::from_value(graph).unwrap());
        let mut first = started("r1", &graph);
        first.at = at(FRIDAY_16);
        Machine::recover([&first]).unwrap()
    }

    /// What the machine decides at a time, in short.
    fn settle(machine: &mut Machine, now: &str) -> Vec<String> {
        let events = machine.settle(at(now)).unwrap();
        events
            .iter()
            .filter_map(|event| said(&event.body))
            .collect()
    }

    fn said(body: &EventBody) -> Option<String> {
        let mut said = None;
        if let EventBody::Started(e) = body {
            said = Some(format!("{:?} {} {:?}", e.phase, e.node, e.cause));
        }
        if let EventBody::WindowClosed(e) = body {
            said = Some(format!("closed {} until {}", e.node, e.opens));
        }
        if let EventBody::Failed(e) = body {
            said = Some(format!("failed {} {}", e.node, e.failure.code));
        }
        if let EventBody::Doubted(e) = body {
            said = Some(format!("doubted {}", e.node));
        }
        if let EventBody::Finished(e) = body {
            said = Some(format!("{:?}", e.outcome));
        }
        if let EventBody::RetryScheduled(e) = body {
            said = Some(format!("retry {}", e.node));
        }
        said
    }

    fn report(machine: &mut Machine, report: Report, now: &str) {
        let wanted = machine.wanted().next().unwrap();
        for event in machine.report(&wanted, report, at(now)) {
            machine.apply(&event).unwrap();
        }
    }

    fn done() -> Report {
        Report::Done {
            output: Value::Null,
            evidence: Vec::new(),
        }
    }

    fn apply(machine: &mut Machine, body: EventBody, now: &str) {
        machine.apply(&Event { at: at(now), body }).unwrap();
    }

    fn lease(machine: &mut Machine, now: &str) {
        let taken = LeaseTaken {
            epoch: machine.epoch() + 1,
            holder: crate::journal::conformance::holder("ana"),
            failovers: indexmap::IndexMap::new(),
            unreachable: indexmap::IndexMap::new(),
        };
        apply(machine, EventBody::LeaseTaken(Box::new(taken)), now);
    }

    #[test]
    fn a_step_that_writes_waits_for_the_next_opening() {
        let mut run = machine("wait", "ask_operator");
        assert_eq!(settle(&mut run, FRIDAY_16), ["Do look First"]);
        report(&mut run, done(), FRIDAY_18);
        assert_eq!(
            settle(&mut run, FRIDAY_18),
            [format!("closed one until {MONDAY_9}")]
        );
        assert_eq!(run.state(), RunState::Waiting);
        assert_eq!(run.next_timer(), Some(at(MONDAY_9)));
        assert_eq!(settle(&mut run, "2026-11-22T12:00:00Z"), [""; 0]);
        assert_eq!(settle(&mut run, MONDAY_9), ["Do one First"]);
        // A timer that fires late, in the next night, is no opening.
        let mut late = machine("wait", "ask_operator");
        settle(&mut late, FRIDAY_16);
        report(&mut late, done(), FRIDAY_18);
        settle(&mut late, FRIDAY_18);
        let again = settle(&mut late, "2026-11-23T20:00:00Z");
        assert_eq!(again, ["closed one until 2026-11-24T09:00:00Z"]);
    }

    #[test]
    fn or_it_is_refused_and_undo_and_finally_are_not_bound() {
        let mut run = machine("refuse", "ask_operator");
        settle(&mut run, FRIDAY_16);
        report(&mut run, done(), FRIDAY_16);
        assert_eq!(settle(&mut run, FRIDAY_16), ["Do one First"]);
        report(&mut run, done(), FRIDAY_18);
        assert_eq!(
            settle(&mut run, FRIDAY_18),
            ["failed two policy.window", "Undo one First"]
        );
        report(&mut run, done(), FRIDAY_18);
        assert_eq!(settle(&mut run, FRIDAY_18), ["Do last First"]);
        report(&mut run, done(), FRIDAY_18);
        assert_eq!(settle(&mut run, FRIDAY_18), ["Compensated"]);
        assert_eq!(run.state(), RunState::Finished(Outcome::Compensated));
    }

    #[test]
    fn a_run_that_waits_for_its_window_can_be_cancelled_and_undone_in_the_night() {
        let mut run = machine("wait", "ask_operator");
        settle(&mut run, FRIDAY_16);
        report(&mut run, done(), FRIDAY_16);
        settle(&mut run, FRIDAY_16);
        report(&mut run, done(), FRIDAY_18);
        settle(&mut run, FRIDAY_18);
        let cancelled = Cancelled {
            undo: true,
            force: false,
            who: "ana".to_owned(),
            because: None,
        };
        apply(&mut run, EventBody::Cancelled(cancelled), FRIDAY_18);
        assert_eq!(settle(&mut run, FRIDAY_18), ["Undo one First"]);
    }

    #[test]
    fn what_a_crash_interrupted_is_begun_anew_inside_a_window_only() {
        let until = format!("closed one until {MONDAY_9}");
        let mut run = machine("wait", "repeatable");
        settle(&mut run, FRIDAY_16);
        report(&mut run, done(), FRIDAY_16);
        settle(&mut run, FRIDAY_16);
        lease(&mut run, FRIDAY_18);
        assert_eq!(settle(&mut run, FRIDAY_18), ["retry one", &until]);
        assert_eq!(settle(&mut run, MONDAY_9), ["Do one Interrupted"]);
        // One that must be asked about is asked at any hour, and begun anew in its window.
        let mut run = machine("wait", "probe_first");
        settle(&mut run, FRIDAY_16);
        report(&mut run, done(), FRIDAY_16);
        settle(&mut run, FRIDAY_16);
        lease(&mut run, FRIDAY_18);
        assert_eq!(settle(&mut run, FRIDAY_18), ["doubted one"]);
        report(&mut run, Report::Probed(Probed::NotDone), FRIDAY_18);
        assert_eq!(settle(&mut run, FRIDAY_18), ["retry one", &until]);
        // What may have written before is not said to have done nothing.
        let mut run = machine("refuse", "repeatable");
        settle(&mut run, FRIDAY_16);
        report(&mut run, done(), FRIDAY_16);
        settle(&mut run, FRIDAY_16);
        lease(&mut run, FRIDAY_18);
        let told = settle(&mut run, FRIDAY_18);
        assert_eq!(told[..2], ["retry one", "failed one policy.window"]);
        assert_eq!(told.get(2).map(String::as_str), Some("Undo one First"));
    }

    proptest! {
        /// However long each step takes, fails and is interrupted: no forward start of a step that writes is ever outside
        /// the windows, live equals replay, and the run comes to its end.
        #[test]
        fn nothing_starts_to_write_outside_the_windows(
            turns in prop::collection::vec((0..40_000_i64, 0..5_u8), 0..24),
            refuse in any::<bool>(),
            repeatable in any::<bool>(),
        ) {
            let mut run = machine(
                if refuse { "refuse" } else { "wait" },
                if repeatable { "repeatable" } else { "ask_operator" },
            );
            let first = Event { at: at(FRIDAY_16), body: EventBody::RunStarted(Box::new(run.started().clone())) };
            let mut events = vec![first];
            let mut now = at(FRIDAY_16);
            let endless = (0..1_000).map(|_| (3_600, 0));
            for (pass, turn) in turns.into_iter().chain(endless) {
                events.extend(run.settle(now).unwrap());
                if run.finished().is_some() {
                    break;
                }
                now = Timestamp::from_second(now.as_second() + pass).unwrap();
                let Some(wanted) = run.wanted().next() else { continue };
                let answer = match (wanted.work, turn) {
                    (Work::Probe, _) => Report::Probed(Probed::NotDone),
                    // An undo that fails is stuck, which a person ends.
                    (Work::Execute, 2) if wanted.phase == Phase::Undo => done(),
                    (Work::Execute, 0..=1) => done(),
                    (Work::Execute, 2) => Report::Failed {
                        failure: Failure::new("k.busy", "busy").cause(Cause::LockTimeout),
                        evidence: Vec::new(),
                    },
                    (Work::Execute, _) => {
                        let taken = Event {
                            at: now,
                            body: EventBody::LeaseTaken(Box::new(LeaseTaken {
                                epoch: run.epoch() + 1,
                                holder: crate::journal::conformance::holder("ana"),
                                failovers: indexmap::IndexMap::new(),
                                unreachable: indexmap::IndexMap::new(),
                            })),
                        };
                        run.apply(&taken).unwrap();
                        events.push(taken);
                        continue;
                    }
                };
                for event in run.report(&wanted, answer, now) {
                    run.apply(&event).unwrap();
                    events.push(event);
                }
            }
            prop_assert!(run.finished().is_some(), "{:?}", run.state());
            let windows = [OFFICE.to_owned()];
            for event in &events {
                if let EventBody::Started(started) = &event.body
                    && started.phase == Phase::Do
                    && ["one", "two"].contains(&&*started.node)
                {
                    prop_assert!(check(&windows, event.at).is_ok(), "{} at {}", started.node, event.at);
                    prop_assert!(started.cause != StartCause::Operator);
                }
            }
            let replayed = Machine::recover(&events).unwrap();
            let whole = |run: &Machine| {
                let instances: Vec<String> = run.instances().map(|one| format!("{one:?}")).collect();
                (instances, run.state(), run.next_timer(), run.wanted().collect::<Vec<_>>())
            };
            prop_assert!(whole(&replayed) == whole(&run), "live is not the replay");
        }
    }
}
