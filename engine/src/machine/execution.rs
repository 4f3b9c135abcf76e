//! One execution of a node, forward or undo: where it is, and the one setter, which is the table of all transitions.
use super::event::{SettledBy, StartCause};
use crate::{
    step::{Failure, Mark, Target, Wait, WaitOn, Woken},
    value::{Timestamp, Value},
};
use indexmap::IndexMap;
use std::sync::{Arc, LazyLock};

/// Where an execution is. Forward and undo go through the same places.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum At {
    #[default]
    Idle,
    /// An attempt runs, or the group, call or foreach is open.
    Running {
        /// The lease under which it started. Under a later one nobody runs it any more: it is lost.
        epoch: u64,
        /// It is to end: a forced cancel.
        told: bool,
    },
    Backoff {
        until: Timestamp,
        /// The windows of the policy are closed, and open at this instant of the wall clock; it has not failed.
        shut: Option<Timestamp>,
    },
    /// Its gate is closed; an edited input opens it.
    Gated,
    Asleep(Box<Wait>),
    InDoubt {
        why: String,
        asked: Asked,
    },
    Succeeded,
    Skipped,
    Failed {
        /// The failure had ended its scope, which goes forward again: now it asks.
        asks: bool,
        /// The run was paused for it, once.
        announced: bool,
    },
    /// The end of its scope overtook it: neither passed nor failed. Pending again if the scope goes forward again.
    Ended,
}

/// How far a doubt is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The probe is to be asked.
    Wanted,
    /// The probe could not settle it: a person is needed.
    InVain,
    /// It did not happen, and cannot any more.
    NotDone,
}

/// What moves an execution.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    Start {
        epoch: u64,
    },
    Gate,
    /// The windows of the policy are closed until then, in the time of the run; by the wall clock they open at `opens`.
    Shut {
        until: Timestamp,
        opens: Timestamp,
    },
    Note,
    Suspend(Box<Wait>),
    Wake {
        epoch: u64,
    },
    Succeed,
    NextPart {
        until: Timestamp,
    },
    FailAttempt,
    Fail,
    Retry {
        until: Timestamp,
    },
    Skip,
    End,
    Doubt(String),
    Probe(Option<String>),
    AskAgain,
    ResolveDone,
    ResolveNotDone,
    /// Forward it is pending again, for its needs may have to run first; an undo starts at once.
    OrderRetry {
        at_once: Option<Timestamp>,
    },
    Tell,
    Announce,
    Ask,
    Reopen,
    Again,
}

/// The place of an execution by name, for lists, pages and the printed table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Not started.
    #[default]
    Idle,
    /// An attempt runs, or the group, call or foreach is open.
    Running,
    /// Waits for its next attempt, or for its gate.
    Backoff,
    /// Sleeps until a time or a signal.
    Waiting,
    /// Sleeps until people decide.
    AwaitingApproval,
    /// It is not known whether it took effect.
    InDoubt,
    /// Done.
    Succeeded,
    /// Did not run.
    Skipped,
    /// Failed for good.
    Failed,
    /// The run ended before it could settle.
    Ended,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 10] = [
        Self::Idle,
        Self::Running,
        Self::Backoff,
        Self::Waiting,
        Self::AwaitingApproval,
        Self::InDoubt,
        Self::Succeeded,
        Self::Skipped,
        Self::Failed,
        Self::Ended,
    ];

    /// Whether it sleeps: nothing is in flight, and something may wake it.
    #[must_use]
    pub fn is_asleep(self) -> bool {
        matches!(self, Self::Backoff | Self::Waiting | Self::AwaitingApproval)
    }

    /// Whether it has started and not settled.
    #[must_use]
    pub fn is_active(self) -> bool {
        self.is_asleep() || matches!(self, Self::Running | Self::InDoubt)
    }

    /// Whether it came to its end.
    #[must_use]
    pub fn is_settled(self) -> bool {
        !self.is_active() && self != Self::Idle
    }
}

/// What moves an execution, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// An attempt starts, or a container opens.
    Start,
    /// The gate does not hold.
    Gate,
    /// The windows of the policy are closed.
    Shut,
    /// Something is journalled while it runs: a capture, a mark, a checkpoint, the items of a foreach.
    Note,
    /// It sleeps until a time, a signal or a decision.
    Suspend,
    /// It is called again.
    Wake,
    /// It succeeded.
    Succeed,
    /// One of several undo steps is done; the next follows.
    NextPart,
    /// An attempt failed; what follows in the same batch says how it continues.
    FailAttempt,
    /// It failed for good.
    Fail,
    /// The next attempt is set.
    Retry,
    /// It does not run.
    Skip,
    /// The end of its scope overtakes it.
    End,
    /// It is not known whether it took effect.
    Doubt,
    /// A probe answered, and settled nothing by itself.
    Probe,
    /// A doubt is put to its probe once more.
    AskAgain,
    /// A person says that it took effect.
    ResolveDone,
    /// A person says that it did not.
    ResolveNotDone,
    /// A person orders another attempt, or another probe.
    OrderRetry,
    /// It is to end: a forced cancel.
    Tell,
    /// The run is paused for its failure.
    Announce,
    /// Its failure asks, although it had ended the scope.
    Ask,
    /// A container is open again.
    Reopen,
    /// What was undone or ended is pending again.
    Again,
}

impl Trigger {
    /// Every trigger.
    pub const ALL: [Self; 24] = [
        Self::Start,
        Self::Gate,
        Self::Shut,
        Self::Note,
        Self::Suspend,
        Self::Wake,
        Self::Succeed,
        Self::NextPart,
        Self::FailAttempt,
        Self::Fail,
        Self::Retry,
        Self::Skip,
        Self::End,
        Self::Doubt,
        Self::Probe,
        Self::AskAgain,
        Self::ResolveDone,
        Self::ResolveNotDone,
        Self::OrderRetry,
        Self::Tell,
        Self::Announce,
        Self::Ask,
        Self::Reopen,
        Self::Again,
    ];
}

impl Change {
    pub(super) fn trigger(&self) -> Trigger {
        match self {
            Self::Start { .. } => Trigger::Start,
            Self::Gate => Trigger::Gate,
            Self::Shut { .. } => Trigger::Shut,
            Self::Note => Trigger::Note,
            Self::Suspend(_) => Trigger::Suspend,
            Self::Wake { .. } => Trigger::Wake,
            Self::Succeed => Trigger::Succeed,
            Self::NextPart { .. } => Trigger::NextPart,
            Self::FailAttempt => Trigger::FailAttempt,
            Self::Fail => Trigger::Fail,
            Self::Retry { .. } => Trigger::Retry,
            Self::Skip => Trigger::Skip,
            Self::End => Trigger::End,
            Self::Doubt(_) => Trigger::Doubt,
            Self::Probe(_) => Trigger::Probe,
            Self::AskAgain => Trigger::AskAgain,
            Self::ResolveDone => Trigger::ResolveDone,
            Self::ResolveNotDone => Trigger::ResolveNotDone,
            Self::OrderRetry { .. } => Trigger::OrderRetry,
            Self::Tell => Trigger::Tell,
            Self::Announce => Trigger::Announce,
            Self::Ask => Trigger::Ask,
            Self::Reopen => Trigger::Reopen,
            Self::Again => Trigger::Again,
        }
    }
}

impl At {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::Idle => Stage::Idle,
            Self::Running { .. } => Stage::Running,
            Self::Backoff { .. } | Self::Gated => Stage::Backoff,
            Self::Asleep(wait) => match wait.on {
                WaitOn::Timer(_) | WaitOn::Signal(_) => Stage::Waiting,
                WaitOn::Approval(_) => Stage::AwaitingApproval,
            },
            Self::InDoubt { .. } => Stage::InDoubt,
            Self::Succeeded => Stage::Succeeded,
            Self::Skipped => Stage::Skipped,
            Self::Failed { .. } => Stage::Failed,
            Self::Ended => Stage::Ended,
        }
    }

    /// The whole table: where a change leads from here; `None` where the two cannot meet.
    fn after(&self, change: Change) -> Option<Self> {
        use Change as C;
        let failed = Self::Failed {
            asks: false,
            announced: false,
        };
        Some(match (self, change) {
            // Running → Running: an attempt that the end of a driver interrupted starts anew.
            // InDoubt → Running: journals of before started a settled doubt without a backoff.
            (
                Self::Idle
                | Self::Backoff { .. }
                | Self::Gated
                | Self::Running { .. }
                | Self::InDoubt { .. },
                C::Start { epoch },
            ) => Self::Running { epoch, told: false },
            (Self::Idle | Self::Backoff { .. } | Self::Gated, C::Gate) => Self::Gated,
            (Self::Idle | Self::Backoff { .. } | Self::Gated, C::Shut { until, opens }) => {
                Self::Backoff {
                    until,
                    shut: Some(opens),
                }
            }
            (Self::Running { .. }, C::Note | C::FailAttempt) => self.clone(),
            (Self::Running { .. }, C::Suspend(wait)) => Self::Asleep(wait),
            // The lease of whoever wakes it: the attempt runs under that one from here on.
            (Self::Asleep(_), C::Wake { epoch }) => Self::Running { epoch, told: false },
            (Self::Running { .. } | Self::InDoubt { .. }, C::Succeed) => Self::Succeeded,
            // Idle, Backoff: the last undo step has nothing to do, and those before it have done theirs.
            (Self::Idle | Self::Backoff { .. }, C::Succeed) => Self::Succeeded,
            (
                Self::Running { .. }
                | Self::InDoubt { .. }
                | Self::Idle
                | Self::Backoff { .. }
                | Self::Failed { .. },
                C::NextPart { until },
            ) => Self::Backoff { until, shut: None },
            // Idle → Failed: an expression that is needed to start fails. Asleep → Failed: a cancel in `finally`.
            (
                Self::Idle
                | Self::Running { .. }
                | Self::Backoff { .. }
                | Self::Gated
                | Self::Asleep(_)
                | Self::InDoubt { .. },
                C::Fail,
            ) => failed,
            // Gated: a gate that is asked again.
            (Self::Running { .. } | Self::InDoubt { .. } | Self::Gated, C::Retry { until }) => {
                Self::Backoff { until, shut: None }
            }
            // Failed → Skipped: a person passes over it.
            (
                Self::Idle
                | Self::Backoff { .. }
                | Self::Gated
                | Self::Asleep(_)
                | Self::Failed { .. },
                C::Skip,
            ) => Self::Skipped,
            // Running, InDoubt: nothing happened, and nothing will in a scope that ends.
            (
                Self::Running { .. }
                | Self::Backoff { .. }
                | Self::Gated
                | Self::Asleep(_)
                | Self::InDoubt { .. },
                C::End,
            ) => Self::Ended,
            (Self::Running { .. }, C::Doubt(why)) => Self::InDoubt {
                why,
                asked: Asked::Wanted,
            },
            (Self::InDoubt { why, .. }, C::Probe(answer)) => match answer {
                Some(why) => Self::InDoubt {
                    why,
                    asked: Asked::InVain,
                },
                None => Self::InDoubt {
                    why: why.clone(),
                    asked: Asked::NotDone,
                },
            },
            (Self::InDoubt { why, .. }, C::ResolveNotDone) => Self::InDoubt {
                why: why.clone(),
                asked: Asked::NotDone,
            },
            (Self::InDoubt { why, .. }, C::AskAgain | C::OrderRetry { .. }) => Self::InDoubt {
                why: why.clone(),
                asked: Asked::Wanted,
            },
            (Self::InDoubt { .. } | Self::Failed { .. }, C::ResolveDone) => Self::Succeeded,
            // Idle: journals of before ordered a failed undo of a clean-up before its turn in the compensation.
            (
                Self::Idle,
                C::OrderRetry {
                    at_once: Some(until),
                },
            ) => Self::Backoff { until, shut: None },
            (Self::Failed { .. }, C::OrderRetry { at_once }) => {
                at_once.map_or(Self::Idle, |until| Self::Backoff { until, shut: None })
            }
            (Self::Running { epoch, .. }, C::Tell) => Self::Running {
                epoch: *epoch,
                told: true,
            },
            (Self::Failed { asks, .. }, C::Announce) => Self::Failed {
                asks: *asks,
                announced: true,
            },
            // Ended: it may have acted before it slept, so that it is not started again unasked. Succeeded: its undo may have acted.
            (Self::Failed { .. } | Self::Ended | Self::Succeeded, C::Ask) => Self::Failed {
                asks: true,
                announced: false,
            },
            // Containers. What they are open for is inside them.
            (Self::Succeeded | Self::Skipped | Self::Failed { .. } | Self::Ended, C::Reopen) => {
                Self::Running {
                    epoch: 0,
                    told: false,
                }
            }
            // Steps that were undone or ended; an undo that failed or was given up, and is asked for anew; `finally`; items that wait
            // for a slot again; a gate that is asked again; a turn at a window that is given back. InDoubt, and what is open around it: in
            // the `finally` of a run that a person closed in doubt, and that is undone.
            (
                Self::Idle
                | Self::Running { .. }
                | Self::InDoubt { .. }
                | Self::Gated
                | Self::Backoff { shut: Some(_), .. }
                | Self::Succeeded
                | Self::Skipped
                | Self::Failed { .. }
                | Self::Ended,
                C::Again,
            ) => Self::Idle,
            _ => return None,
        })
    }
}

/// One execution of an instance: forward, or undo.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Execution {
    pub(super) at: At,
    /// The last attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// The last attempt that is known to have taken effect; 0 if none. It outlives an undo, as `attempt` does.
    pub done_attempt: u32,
    /// Who found that it did; none if there is none.
    pub(super) done_by: Option<SettledBy>,
    /// Whether an attempt started since it was pending: its condition is decided.
    pub(super) begun: bool,
    /// An attempt before the last one failed, or was lost, and may have acted: of an undo, which may have taken something away.
    pub(super) acted_before: bool,
    /// What it is in doubt about is on the target, and the run does not know how.
    pub unexplained: bool,
    /// Who found that the last attempt did not happen; none if it was lost, or failed.
    pub not_done_by: Option<SettledBy>,
    /// A person left this undo as it is: no later compensation looks at it again.
    pub(super) left: bool,
    /// Attempts that count against `retry`.
    pub tries: u32,
    /// Which undo step, where the undo has several.
    pub part: u32,
    /// When the first attempt started.
    pub first_started_at: Option<Timestamp>,
    /// When the last attempt started.
    pub started_at: Option<Timestamp>,
    /// When the last attempt is over.
    pub deadline: Option<Timestamp>,
    /// Resolved parameters.
    pub input: Value,
    /// Derived targets as bound for the last attempt.
    pub targets: IndexMap<String, Target>,
    /// What was captured in the last attempt.
    pub capture: Option<Value>,
    /// The mark of the last attempt.
    pub mark: Option<Box<Mark>>,
    /// The last checkpoint.
    pub state: Option<Value>,
    /// What woke it, until the step is called with it.
    pub woken: Option<Box<Woken>>,
    /// Why the next attempt starts.
    pub next_cause: Option<StartCause>,
    /// The last failure.
    pub failure: Option<Box<Failure>>,
    /// The attempt that it was.
    pub(super) failed_attempt: u32,
}

impl Execution {
    /// One that has not begun; all of them are the same one.
    pub(super) fn idle() -> Arc<Self> {
        static IDLE: LazyLock<Arc<Execution>> = LazyLock::new(Arc::default);
        IDLE.clone()
    }

    /// As if it had not run yet: only its attempts continue to count.
    pub(super) fn forget(&mut self) {
        *self = Self {
            at: std::mem::take(&mut self.at),
            attempt: self.attempt,
            done_attempt: self.done_attempt,
            done_by: self.done_by,
            input: std::mem::take(&mut self.input),
            targets: std::mem::take(&mut self.targets),
            ..Self::default()
        };
    }

    /// An attempt is known to have taken effect.
    pub(super) fn took_effect(&mut self, attempt: u32, by: SettledBy) {
        (self.done_attempt, self.done_by) = (attempt, Some(by));
    }

    /// The mark of the last attempt, if the step itself or a probe found that this one took effect. What a person says of it
    /// is no word of the target's.
    #[must_use]
    pub fn mark_of_done(&self) -> Option<&Mark> {
        let is_known = self.done_attempt == self.attempt
            && matches!(self.done_by, Some(SettledBy::Step | SettledBy::Probe));
        self.mark.as_deref().filter(|_| is_known)
    }

    /// The failure of the last attempt; none if only one before it failed.
    pub(super) fn own_failure(&self) -> Option<&Failure> {
        let failure = self.failure.as_deref();
        failure.filter(|_| self.failed_attempt == self.attempt)
    }

    /// The only way from place to place.
    pub(super) fn on(&mut self, change: Change) -> Result<(), (Stage, Trigger)> {
        let (stage, trigger) = (self.at.stage(), change.trigger());
        self.at = self.at.after(change).ok_or((stage, trigger))?;
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.at.stage()
    }

    /// What it sleeps on.
    #[must_use]
    pub fn wait(&self) -> Option<&Wait> {
        match &self.at {
            At::Asleep(wait) => Some(wait),
            _ => None,
        }
    }

    /// Whether its gate does not hold.
    #[must_use]
    pub fn is_gated(&self) -> bool {
        self.at == At::Gated
    }

    /// Why it is in doubt.
    #[must_use]
    pub fn doubt(&self) -> Option<&str> {
        match &self.at {
            At::InDoubt { why, .. } => Some(why),
            _ => None,
        }
    }

    /// When the next attempt may start.
    #[must_use]
    pub fn not_before(&self) -> Option<Timestamp> {
        match &self.at {
            At::Backoff { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// When the window of the policy opens that it waits for, by the wall clock; `None` if it waits for none.
    #[must_use]
    pub fn window_opens(&self) -> Option<Timestamp> {
        match self.at {
            At::Backoff { shut, .. } => shut,
            _ => None,
        }
    }
}

/// The transitions that exist, by the names of their places and changes.
#[must_use]
pub fn transitions() -> Vec<(Stage, Trigger)> {
    let mut all = Vec::new();
    for at in places() {
        for change in changes() {
            let pair = (at.stage(), change.trigger());
            if at.after(change).is_some() && !all.contains(&pair) {
                all.push(pair);
            }
        }
    }
    all
}

/// One of each place.
fn places() -> Vec<At> {
    let wait = |on| {
        At::Asleep(Box::new(Wait {
            on,
            deadline: None,
            wall: None,
        }))
    };
    vec![
        At::Idle,
        At::Running {
            epoch: 1,
            told: false,
        },
        At::Backoff {
            until: Timestamp::UNIX_EPOCH,
            shut: None,
        },
        At::Backoff {
            until: Timestamp::UNIX_EPOCH,
            shut: Some(Timestamp::MIN),
        },
        At::Gated,
        wait(WaitOn::Timer(Timestamp::UNIX_EPOCH)),
        wait(WaitOn::Signal("go".to_owned())),
        At::InDoubt {
            why: "cut".to_owned(),
            asked: Asked::InVain,
        },
        At::Succeeded,
        At::Skipped,
        At::Failed {
            asks: false,
            announced: false,
        },
        At::Ended,
    ]
}

/// One of each change.
fn changes() -> Vec<Change> {
    let wait = Box::new(Wait {
        on: WaitOn::Signal("go".to_owned()),
        deadline: None,
        wall: None,
    });
    vec![
        Change::Start { epoch: 1 },
        Change::Gate,
        Change::Shut {
            until: Timestamp::UNIX_EPOCH,
            opens: Timestamp::MIN,
        },
        Change::Note,
        Change::Suspend(wait),
        Change::Wake { epoch: 1 },
        Change::Succeed,
        Change::NextPart {
            until: Timestamp::UNIX_EPOCH,
        },
        Change::FailAttempt,
        Change::Fail,
        Change::Retry {
            until: Timestamp::UNIX_EPOCH,
        },
        Change::Skip,
        Change::End,
        Change::Doubt("cut".to_owned()),
        Change::Probe(None),
        Change::AskAgain,
        Change::ResolveDone,
        Change::ResolveNotDone,
        Change::OrderRetry { at_once: None },
        Change::Tell,
        Change::Announce,
        Change::Ask,
        Change::Reopen,
        Change::Again,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(at: &At) -> String {
        match at {
            At::Gated => "Gated".to_owned(),
            At::Backoff { shut: Some(_), .. } => "Shut".to_owned(),
            _ => format!("{:?}", at.stage()),
        }
    }

    /// The whole truth table, every place by every change, as a person would review it.
    #[test]
    fn truth_table() {
        let mut table = format!("{:<15}", "");
        for at in places() {
            table += &format!(" {:<10}", name(&at));
        }
        table = table.trim_end().to_owned() + "\n";
        for change in changes() {
            let mut row = format!("{:<15}", format!("{:?}", change.trigger()));
            for at in places() {
                let to = at.after(change.clone());
                row += &format!(" {:<10}", to.map_or("-".to_owned(), |to| name(&to)));
            }
            table += &(row.trim_end().to_owned() + "\n");
        }
        insta::assert_snapshot!(table);
    }

    /// An undo is told what it takes back only where the step or a probe found that the last attempt took effect.
    #[test]
    fn the_mark_of_what_took_effect() {
        let mark = Mark {
            token: Value::Int(1),
            capture: None,
            output: Value::Null,
        };
        let mut execution = Execution {
            attempt: 2,
            mark: Some(Box::new(mark.clone())),
            ..Execution::default()
        };
        assert_eq!(execution.mark_of_done(), None, "it failed, or is in doubt");
        for (attempt, by, known) in [
            (1, SettledBy::Step, false),
            (2, SettledBy::Step, true),
            (2, SettledBy::Probe, true),
            (2, SettledBy::Operator, false),
        ] {
            execution.took_effect(attempt, by);
            let found = execution.mark_of_done();
            assert_eq!(found, known.then_some(&mark), "{attempt} {by:?}");
        }
        execution.mark = None;
        execution.took_effect(2, SettledBy::Step);
        assert_eq!(execution.mark_of_done(), None, "it left none");
    }

    #[test]
    fn every_trigger_is_in_the_table() {
        let triggers: Vec<Trigger> = changes().iter().map(Change::trigger).collect();
        assert_eq!(triggers, Trigger::ALL);
    }

    /// What has settled moves only by a person's order, or because its scope goes forward again.
    #[test]
    fn settled_is_settled() {
        for at in places().into_iter().filter(|at| at.stage().is_settled()) {
            for change in changes() {
                let by_order = matches!(
                    change.trigger(),
                    Trigger::Skip
                        | Trigger::ResolveDone
                        // Of a step of an undo: those after it follow.
                        | Trigger::NextPart
                        | Trigger::OrderRetry
                        | Trigger::Announce
                        | Trigger::Ask
                        | Trigger::Reopen
                        | Trigger::Again
                );
                if !by_order {
                    assert_eq!(at.after(change.clone()), None, "{at:?} {change:?}");
                }
            }
        }
    }
}
