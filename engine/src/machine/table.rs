//! The transitions of one execution, forward or undo, as a table.
use super::state::Stage;

/// What moves an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// An attempt starts, or a container opens.
    Start,
    /// The gate does not hold.
    Gate,
    /// Something is journalled while it runs: a capture, a mark, a checkpoint, the items of a foreach.
    Note,
    /// It sleeps until a time or a signal.
    Suspend,
    /// It sleeps until people decide.
    AskPeople,
    /// It is called again.
    Wake,
    /// It succeeded.
    Succeed,
    /// An attempt failed; what follows in the same batch says how it goes on.
    FailAttempt,
    /// It failed for good.
    Fail,
    /// The next attempt is set.
    ScheduleRetry,
    /// It does not run, or is ended asleep.
    Skip,
    /// It is not known whether it took effect.
    Doubt,
    /// A probe answered, and settled nothing by itself.
    Probe,
    /// A person says that it took effect.
    ResolveDone,
    /// A person says that it did not.
    ResolveNotDone,
    /// A person orders another attempt, or another probe.
    OrderRetry,
}

impl Trigger {
    /// Every trigger.
    pub const ALL: [Self; 16] = [
        Self::Start,
        Self::Gate,
        Self::Note,
        Self::Suspend,
        Self::AskPeople,
        Self::Wake,
        Self::Succeed,
        Self::FailAttempt,
        Self::Fail,
        Self::ScheduleRetry,
        Self::Skip,
        Self::Doubt,
        Self::Probe,
        Self::ResolveDone,
        Self::ResolveNotDone,
        Self::OrderRetry,
    ];
}

/// The stage after a trigger; `None` where the two cannot meet.
#[must_use]
pub fn next_stage(stage: Stage, trigger: Trigger) -> Option<Stage> {
    use Stage as S;
    use Trigger as T;
    let rows: &[(Stage, Stage)] = match trigger {
        // Running → Running: an attempt that the end of a driver interrupted starts anew.
        T::Start => &[
            (S::Idle, S::Running),
            (S::Backoff, S::Running),
            (S::Running, S::Running),
            (S::InDoubt, S::Running),
        ],
        T::Gate => &[(S::Idle, S::Backoff), (S::Backoff, S::Backoff)],
        T::Note => &[(S::Running, S::Running)],
        T::Suspend => &[(S::Running, S::Waiting)],
        T::AskPeople => &[(S::Running, S::AwaitingApproval)],
        T::Wake => &[(S::Waiting, S::Running), (S::AwaitingApproval, S::Running)],
        T::Succeed => &[(S::Running, S::Succeeded), (S::InDoubt, S::Succeeded)],
        T::FailAttempt => &[(S::Running, S::Running)],
        // Idle → Failed: an expression that is needed to start fails.
        T::Fail => &[
            (S::Idle, S::Failed),
            (S::Running, S::Failed),
            (S::Backoff, S::Failed),
            (S::InDoubt, S::Failed),
        ],
        T::ScheduleRetry => &[(S::Running, S::Backoff), (S::InDoubt, S::Backoff)],
        // Failed → Skipped: a person passes over a failed node.
        T::Skip => &[
            (S::Idle, S::Skipped),
            (S::Backoff, S::Skipped),
            (S::Waiting, S::Skipped),
            (S::AwaitingApproval, S::Skipped),
            (S::Failed, S::Skipped),
        ],
        T::Doubt => &[(S::Running, S::InDoubt)],
        T::Probe => &[(S::InDoubt, S::InDoubt)],
        T::ResolveDone => &[(S::InDoubt, S::Succeeded), (S::Failed, S::Succeeded)],
        T::ResolveNotDone => &[(S::InDoubt, S::InDoubt)],
        T::OrderRetry => &[(S::Failed, S::Backoff), (S::InDoubt, S::InDoubt)],
    };
    rows.iter()
        .find(|(from, _)| *from == stage)
        .map(|(_, to)| *to)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole truth table, every stage by every trigger, as a person would review it.
    #[test]
    fn truth_table() {
        let mut table = format!("{:<16}", "");
        for stage in Stage::ALL {
            table += &format!(" {:<16}", format!("{stage:?}"));
        }
        table = table.trim_end().to_owned() + "\n";
        for trigger in Trigger::ALL {
            let mut row = format!("{:<16}", format!("{trigger:?}"));
            for stage in Stage::ALL {
                let to = next_stage(stage, trigger).map_or("-".to_owned(), |to| format!("{to:?}"));
                row += &format!(" {to:<16}");
            }
            table += &(row.trim_end().to_owned() + "\n");
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn settled_stages_move_only_by_people() {
        for stage in [Stage::Succeeded, Stage::Skipped, Stage::Failed] {
            for trigger in Trigger::ALL {
                let by_people = matches!(
                    trigger,
                    Trigger::Skip | Trigger::ResolveDone | Trigger::OrderRetry
                );
                if !by_people {
                    assert_eq!(next_stage(stage, trigger), None, "{stage:?} {trigger:?}");
                }
            }
        }
    }
}
