//! Events and instances in words.
use super::{
    figures,
    human::{clock, elapsed, one_line, span},
    standing::{not_retried, standing},
};
use crate::{
    graph::{Body, Node, Undo},
    machine::{
        EventBody, Execution, Failover, Instance, Machine, NodeState, Outcome, Role, SettledBy,
        SkipCause, Stage, StartCause,
    },
    step::{Evidence, Figure, Phase, Registry, WaitOn, Woken, failed_over},
    value::{Duration, Timestamp},
};
use indexmap::IndexMap;

/// One event in words: whom it is about, what happened, and the state whose colour it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// A node's path; empty for the run.
    pub node: String,
    /// What happened.
    pub text: String,
    /// Its colour.
    pub tone: NodeState,
    /// Whether `--quiet` still says it.
    pub matters: bool,
}

fn line(node: &str, tone: NodeState, text: impl Into<String>) -> Option<Line> {
    Some(Line {
        node: node.to_owned(),
        text: one_line(&text.into()),
        tone,
        matters: matches!(
            tone,
            NodeState::Failed
                | NodeState::InDoubt
                | NodeState::UndoFailed
                | NodeState::AwaitingApproval
        ),
    })
}

/// The execution that an instance is in: its undo once that has begun.
#[must_use]
pub fn current(instance: &Instance) -> (Phase, &Execution) {
    match instance.undo.stage() {
        Stage::Idle | Stage::Skipped | Stage::Ended => (Phase::Do, &instance.forward),
        Stage::Running
        | Stage::Backoff
        | Stage::Waiting
        | Stage::AwaitingApproval
        | Stage::InDoubt
        | Stage::Succeeded
        | Stage::Failed => (Phase::Undo, &instance.undo),
    }
}

/// The graph's node of an instance.
#[must_use]
pub fn node_of<'m>(machine: &'m Machine, instance: &Instance) -> Option<&'m Node> {
    instance.def.map(|def| machine.graph().node(def))
}

/// The kind of a step, or `group`, `playbook`, `foreach`.
#[must_use]
pub fn kind_of<'m>(machine: &'m Machine, instance: &Instance) -> &'m str {
    let Some(node) = node_of(machine, instance) else {
        return "run";
    };
    match (&node.body, instance.role) {
        (_, Role::Foreach) => "foreach",
        (Body::Step(step), _) => &step.action.kind,
        (Body::Group { .. }, _) => "group",
        (Body::Call(_), _) => "playbook",
    }
}

/// The kind of what an execution of a step does: an undo may be of another kind than its step.
#[must_use]
pub fn kind_in<'m>(machine: &'m Machine, instance: &Instance, phase: Phase) -> &'m str {
    let action = machine
        .id_of(&instance.path)
        .filter(|_| phase == Phase::Undo)
        .and_then(|id| machine.action(id, phase));
    action.map_or_else(|| kind_of(machine, instance), |action| &action.kind)
}

/// `playbook.yaml:12`.
#[must_use]
pub fn place_of(machine: &Machine, instance: &Instance) -> Option<String> {
    let node = node_of(machine, instance)?;
    let source = machine.graph().sources.get(node.place.source as usize)?;
    Some(format!("{}:{}", source.path, node.place.line))
}

/// How a step would be undone; `None` for what is no step.
#[must_use]
pub fn undo_of(machine: &Machine, instance: &Instance) -> Option<String> {
    let Body::Step(step) = &node_of(machine, instance)?.body else {
        return None;
    };
    Some(match &step.undo {
        Undo::None => "nothing to undo".to_owned(),
        Undo::Auto { .. } => format!("{} undoes it", step.action.kind),
        Undo::Impossible => "cannot be undone".to_owned(),
        Undo::Steps(actions) => {
            let kinds: Vec<&str> = actions.iter().map(|action| action.kind.as_str()).collect();
            format!("its undo: {}", kinds.join(", then "))
        }
    })
}

/// Whether this step changed something that is still there.
#[must_use]
pub fn remains(machine: &Machine, instance: &Instance) -> bool {
    instance.role == Role::Step
        && instance.took_effect
        && !machine.is_in_finally(instance)
        && !matches!(instance.state, NodeState::Undone | NodeState::InDoubt)
        && !matches!(
            node_of(machine, instance).map(|node| &node.body),
            Some(Body::Step(step)) if step.undo == Undo::None
        )
}

/// Whether this step cannot be undone.
#[must_use]
pub fn is_impossible(machine: &Machine, instance: &Instance) -> bool {
    matches!(
        node_of(machine, instance).map(|node| &node.body),
        Some(Body::Step(step)) if step.undo == Undo::Impossible
    )
}

/// Whether this step, or something around it, is undone at the end even if all goes well: `cleanup: always`.
#[must_use]
pub fn is_scratch(machine: &Machine, instance: &Instance) -> bool {
    let mut around =
        std::iter::successors(Some(instance), |at| at.parent.map(|up| machine.get(up)));
    around.any(|at| node_of(machine, at).is_some_and(|node| node.cleanup))
}

/// `1 of 2 votes`.
#[must_use]
pub fn votes(instance: &Instance, quorum: u32) -> String {
    let given = instance.votes.iter().filter(|vote| vote.approve);
    let like = |answers| {
        let same = given.clone().filter(|vote| vote.answers == answers);
        same.count()
    };
    let agree = given.clone().map(|vote| like(vote.answers.clone())).max();
    let (agree, given) = (agree.unwrap_or(0), given.clone().count());
    let of = quorum.max(1);
    if agree < given {
        // Only like answers make a quorum.
        return format!("{agree} of {of} approvals; {given} were given, with different answers");
    }
    format!("{given} of {of} approvals")
}

/// What a sleeping execution waits for.
#[must_use]
pub fn waits_for(
    machine: &Machine,
    instance: &Instance,
    execution: &Execution,
    now: Timestamp,
) -> Option<String> {
    let until = |at: Timestamp| {
        let left = Duration::between(now, at);
        if left > Duration::ZERO {
            format!("{} (in {})", clock(at, now), span(left))
        } else {
            clock(at, now)
        }
    };
    if let Some(at) = execution.window_opens() {
        return Some(format!("for its window, which opens at {}", until(at)));
    }
    if execution.stage() == Stage::Backoff {
        return Some(match execution.not_before() {
            Some(at) => format!("attempt {} at {}", execution.attempt + 1, until(at)),
            None => {
                let id = machine.id_of(&instance.path)?;
                let (gate, _) = machine.closed_gate(id)?;
                format!("for its gate: {}", one_line(gate.source()))
            }
        });
    }
    let wait = execution.wait()?;
    let mut text = match &wait.on {
        WaitOn::Timer(at) => format!("until {}", until(*at)),
        WaitOn::Signal(name) => format!("for signal {name}"),
        WaitOn::Approval(request) => {
            let mut text = format!("for approval, {}", votes(instance, request.quorum));
            if !request.groups.is_empty() {
                text.push_str(&format!(" by {}", request.groups.join(", ")));
            }
            text
        }
    };
    if let Some(deadline) = wait.deadline
        && !matches!(wait.on, WaitOn::Timer(at) if at == deadline)
    {
        text.push_str(&format!(", at most until {}", until(deadline)));
    }
    Some(text)
}

fn can_be_asked(machine: &Machine, node: &str, phase: Phase) -> bool {
    let id = machine.id_of(node);
    id.is_some_and(|id| machine.can_be_asked(id, phase))
}

fn took(machine: &Machine, node: &str, phase: Phase) -> String {
    machine
        .instance(node)
        .and_then(|instance| {
            let from = instance.execution(phase).first_started_at?;
            Some(format!(" in {}", elapsed(from, machine.last_at())))
        })
        .unwrap_or_default()
}

/// Figures behind a time.
fn beside(figures: &[Figure]) -> String {
    figures::said(figures).map_or_else(String::new, |said| format!(" · {said}"))
}

/// An event in words, after the machine has applied it. `None` where nobody needs to read it.
#[must_use]
pub fn describe(body: &EventBody, machine: &Machine, registry: &Registry) -> Option<Line> {
    use NodeState as S;
    let now = machine.last_at();
    match body {
        EventBody::RunStarted(started) => line(
            "",
            S::Running,
            format!(
                "run {} of {} started by {} in environment {}{}",
                started.run.id,
                started.run.playbook,
                started.run.starter(),
                started.run.environment,
                unreachable(&started.unreachable)
                    .map(|text| format!("; {text}"))
                    .collect::<String>()
            ),
        ),
        EventBody::LeaseTaken(taken) if taken.epoch > 1 => line(
            "",
            S::Running,
            format!(
                "resumed by {} on {}, process {}{}",
                taken.holder.who(),
                taken.holder.host,
                taken.holder.pid,
                failovers(&taken.failovers)
                    .chain(unreachable(&taken.unreachable))
                    .map(|text| format!("; {text}"))
                    .collect::<String>()
            ),
        ),
        EventBody::ClockStepped(step) => line(
            "",
            S::Running,
            clock_step(step.by, &format!("{:.0}", step.wall)),
        ),
        EventBody::Identified(met) => line(
            "",
            S::Running,
            match &met.failover {
                Some(Failover { from, to }) => failed_over(&met.target, *from, *to),
                None => format!(
                    "{} answers, and is {}, {}",
                    met.target, met.identity.instance, met.identity.version
                ),
            },
        ),
        EventBody::LeaseTaken(_)
        | EventBody::Captured(_)
        | EventBody::Marked(_)
        | EventBody::Progressed(_)
        | EventBody::CommandAccepted(_) => None,
        EventBody::Expanded(expanded) => line(
            &expanded.node,
            S::Running,
            format!("{} items", expanded.items.len()),
        ),
        EventBody::Started(started) => {
            let instance = machine.instance(&started.node);
            if instance.is_some_and(|instance| instance.role != Role::Step) && started.attempt <= 1
            {
                return None;
            }
            let what = match started.phase {
                Phase::Do => "started",
                Phase::Undo => "undo started",
            };
            let why = match started.cause {
                StartCause::First => String::new(),
                StartCause::Retry => format!(", attempt {}", started.attempt),
                StartCause::Interrupted => {
                    let by = instance.and_then(|at| at.execution(started.phase).not_done_by);
                    let why = match by {
                        Some(SettledBy::Operator) => {
                            "a person says that the one before did not happen"
                        }
                        Some(SettledBy::Probe | SettledBy::Step) => {
                            "its probe found that the one before did not happen"
                        }
                        None => "the one before was interrupted, and can safely be repeated",
                    };
                    format!(", attempt {}: {why}", started.attempt)
                }
                StartCause::Operator => {
                    format!(", attempt {}, by a person's order", started.attempt)
                }
            };
            let tone = match started.phase {
                Phase::Do => S::Running,
                Phase::Undo => S::Undoing,
            };
            line(&started.node, tone, format!("{what}{why}"))
        }
        EventBody::Suspended(suspended) => {
            let instance = machine.instance(&suspended.node)?;
            let waits = waits_for(machine, instance, instance.execution(suspended.phase), now)?;
            let tone = if matches!(suspended.wait.on, WaitOn::Approval(_)) {
                S::AwaitingApproval
            } else {
                S::Waiting
            };
            line(&suspended.node, tone, format!("waits {waits}"))
        }
        EventBody::Awoken(awoken) => {
            let by = match &awoken.by {
                // A step that polls wakes many times; nobody reads that.
                Woken::Timer => return None,
                Woken::Deadline => "its time to wait is over".to_owned(),
                Woken::Signal(_) => "the signal came".to_owned(),
                Woken::Decision(decision) if decision.approved => "approved".to_owned(),
                Woken::Decision(_) => "rejected".to_owned(),
            };
            line(&awoken.node, S::Running, by)
        }
        EventBody::Succeeded(done) => {
            let who = match done.by {
                SettledBy::Step => "",
                SettledBy::Probe => ": its probe found it done",
                SettledBy::Operator => ": a person says that it is done",
            };
            let took = took(machine, &done.node, done.phase);
            let figures =
                machine
                    .instance(&done.node)
                    .map(|instance| match (instance.role, done.phase) {
                        (Role::Step, _) | (_, Phase::Undo) => {
                            let place = (done.phase, done.part);
                            figures::of_execution(machine, registry, instance, place, &done.output)
                        }
                        (_, Phase::Do) => figures::of_instance(machine, registry, instance),
                    });
            let did = beside(&figures.unwrap_or_default());
            let kept = done
                .evidence
                .iter()
                .find(|kept| kept.name == Evidence::FAILOVER);
            let but = kept.map_or_else(String::new, |kept| format!("; {}", kept.content));
            match done.phase {
                Phase::Do => line(
                    &done.node,
                    S::Succeeded,
                    format!("succeeded{took}{who}{did}{but}"),
                ),
                Phase::Undo => {
                    let parts = machine
                        .id_of(&done.node)
                        .map_or(1, |id| machine.undo_parts(id));
                    let number = done.part + 1;
                    let (tone, what) = if number < parts {
                        (
                            S::Undoing,
                            format!("step {number} of {parts} of its undo is done"),
                        )
                    } else {
                        (S::Undone, "undone".to_owned())
                    };
                    line(&done.node, tone, format!("{what}{took}{who}{did}{but}"))
                }
            }
        }
        EventBody::Failed(failed) => {
            let mut text = match failed.phase {
                Phase::Do => String::new(),
                Phase::Undo => "undo ".to_owned(),
            };
            text.push_str(&format!(
                "failed: {} ({})",
                failed.failure.message, failed.failure.code
            ));
            if let Some(instance) = machine.instance(&failed.node) {
                let place = (failed.phase, failed.part);
                let seen = &failed.failure.output;
                text.push_str(&beside(&figures::of_execution(
                    machine, registry, instance, place, seen,
                )));
            }
            if let Some(why) = not_retried(machine, &failed.node, failed.phase, &failed.failure) {
                text.push_str(&format!("; {why}"));
            }
            if let Some(help) = failed.failure.help.as_ref().filter(|_| failed.is_final) {
                text.push_str(&format!("; help: {help}"));
            }
            let tone = match failed.phase {
                Phase::Do => S::Failed,
                Phase::Undo => S::UndoFailed,
            };
            line(&failed.node, tone, text)
        }
        EventBody::RetryScheduled(retry) => line(
            &retry.node,
            S::Backoff,
            format!(
                "next attempt in {}",
                span(Duration::between(now, retry.not_before))
            ),
        ),
        EventBody::Gated(gated) => line(
            &gated.node,
            S::Backoff,
            format!("waits: its gate does not hold: {}", gated.gate.expr),
        ),
        EventBody::WindowClosed(closed) => line(
            &closed.node,
            S::Backoff,
            format!(
                "waits for its window ({}), which opens at {}{}",
                machine.graph().policy.windows.join("; "),
                clock(closed.opens, now),
                // The time of the run may be ahead of the wall clock, of which the window is.
                Some(Duration::between(now, closed.opens))
                    .filter(|left| *left > Duration::ZERO)
                    .map(|left| format!(" (in {})", span(left)))
                    .unwrap_or_default()
            ),
        ),
        EventBody::Withdrawn(withdrawn) => line(
            &withdrawn.node,
            S::Pending,
            "is pending again: what it needs runs again, or what it is part of fails",
        ),
        EventBody::Skipped(skipped) => {
            if skipped.phase == Phase::Undo {
                return match &skipped.why {
                    SkipCause::Blocked => line(
                        &skipped.node,
                        S::UndoFailed,
                        "not undone: something that needs it cannot be undone",
                    ),
                    SkipCause::When(_)
                    | SkipCause::Ended
                    | SkipCause::Operator { .. }
                    | SkipCause::NoEffect => None,
                };
            }
            let why = match &skipped.why {
                SkipCause::When(fact) => format!("skipped: {} is {}", fact.expr, fact.value),
                SkipCause::Ended | SkipCause::NoEffect | SkipCause::Blocked => return None,
                SkipCause::Operator { who, because, .. } => format!("skipped by {who}: {because}"),
            };
            line(&skipped.node, S::Skipped, why)
        }
        EventBody::Doubted(doubted) => line(
            &doubted.node,
            S::InDoubt,
            format!(
                "in doubt whether it happened: {}{}",
                doubted.why,
                if can_be_asked(machine, &doubted.node, doubted.phase) {
                    "; asking its probe"
                } else {
                    ""
                }
            ),
        ),
        EventBody::Probed(probed) => match &probed.in_doubt {
            None => line(
                &probed.node,
                S::Running,
                "its probe found that it did not happen",
            ),
            Some(why) => line(
                &probed.node,
                S::InDoubt,
                if can_be_asked(machine, &probed.node, probed.phase) {
                    format!("its probe cannot tell: {why}")
                } else {
                    format!("still in doubt: {why}")
                },
            ),
        },
        EventBody::Voted(voted) => {
            let word = if voted.vote.approve {
                "approves"
            } else {
                "rejects"
            };
            let why = voted
                .vote
                .reason
                .as_ref()
                .map(|why| format!(": {why}"))
                .unwrap_or_default();
            line(
                &voted.node,
                S::Waiting,
                format!("{} {word}{why}", voted.vote.voter()),
            )
        }
        EventBody::Signalled(signal) => {
            line("", S::Running, format!("signal {} came", signal.name))
        }
        EventBody::CommandRefused(refused) => line(
            "",
            S::AwaitingApproval,
            format!(
                "refused the command of {}: {}",
                refused.sender(),
                refused.reason
            ),
        ),
        EventBody::Resolved(resolved) => {
            let word = match (resolved.done, resolved.phase) {
                (true, Phase::Do) => "done",
                (true, Phase::Undo) => "undone",
                (false, _) => "not done",
            };
            line(
                &resolved.node,
                S::Running,
                format!("{} says it is {word}: {}", resolved.who, resolved.because),
            )
        }
        EventBody::RetryOrdered(order) => line(
            &order.node,
            S::Running,
            format!("{} ordered another attempt", order.who),
        ),
        EventBody::InputEdited(edit) => line(
            "",
            S::Running,
            format!("{} set input {} to {}", edit.who, edit.name, edit.value),
        ),
        EventBody::Paused(paused) => {
            let who = paused
                .who
                .as_ref()
                .map(|who| format!(" by {who}"))
                .unwrap_or_default();
            line(
                "",
                S::AwaitingApproval,
                format!("paused{who}: {}", paused.why),
            )
        }
        EventBody::Unpaused(unpaused) => {
            line("", S::Running, format!("unpaused by {}", unpaused.who))
        }
        EventBody::Cancelled(cancelled) => {
            let what = if cancelled.undo {
                "undoing what it did"
            } else {
                "leaving what it did"
            };
            let force = if cancelled.force {
                ", ending running steps"
            } else {
                ""
            };
            let why = cancelled
                .because
                .as_ref()
                .map(|why| format!(": {why}"))
                .unwrap_or_default();
            line(
                "",
                S::AwaitingApproval,
                format!("cancelled by {}, {what}{force}{why}", cancelled.who),
            )
        }
        EventBody::Overran(overran) => line(
            &overran.scope,
            S::Failed,
            format!("took longer than policy.max_duration, {}", overran.limit),
        ),
        EventBody::CompensationStarted(started) => line(
            &started.scope,
            S::Undoing,
            format!("undoing what was done: {}", started.why),
        ),
        EventBody::CleanupStarted(scope) => {
            line(&scope.scope, S::Undoing, "cleaning up scratch resources")
        }
        EventBody::FinallyStarted(_) => None,
        EventBody::Finished(finished) => {
            let stands = standing(machine, false);
            let tone = if finished.outcome == Outcome::Succeeded {
                S::Succeeded
            } else {
                S::Failed
            };
            line(
                "",
                tone,
                format!(
                    "{} after {}{}",
                    stands.word,
                    elapsed(machine.started().run.started_at, now),
                    if stands.means.is_empty() {
                        String::new()
                    } else {
                        format!(": {}", stands.means)
                    }
                ),
            )
        }
        EventBody::Reopened(reopened) => {
            let what = if reopened.undo {
                "undoes it"
            } else if reopened.only_finally {
                "lets its finally continue"
            } else {
                "lets it continue"
            };
            line("", S::Running, format!("reopened: {} {what}", reopened.who))
        }
        EventBody::Closed(closed) => line(
            "",
            S::Failed,
            format!("closed by {}: {}", closed.who, closed.because),
        ),
    }
}

/// What a promotion that the run had no part in means for it.
pub fn failovers(all: &IndexMap<String, Failover>) -> impl Iterator<Item = String> {
    all.iter()
        .map(|(target, Failover { from, to })| failed_over(target, *from, *to))
}

/// Targets that did not answer, in words.
pub fn unreachable(all: &IndexMap<String, String>) -> impl Iterator<Item = String> {
    all.iter().map(|(target, why)| {
        format!("{target} cannot be reached; only the steps that use it fail: {why}")
    })
}

/// A step of the wall clock, in words.
fn clock_step(by: Duration, wall: &str) -> String {
    let far = Duration::from_millis(by.as_millis().abs());
    let what = if by > Duration::ZERO {
        format!("went forward by {far} (or this machine was suspended)")
    } else {
        format!("went back by {far}")
    };
    format!(
        "the clock of this machine {what}, to {wall}: timeouts and delays are not touched, what waits for an instant follows it"
    )
}
