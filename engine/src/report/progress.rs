//! How far a loop is.
use super::human::span;
use crate::{
    machine::{Instance, Machine, NodeState, Role, Stage},
    value::{Duration, Timestamp},
};
use std::fmt;

/// A loop of more items is one line, with the items that run or fail.
pub const FEW: usize = 10;

/// A rate is of this span where enough happened in it, else of the whole time in which this process drives.
const WINDOW: Duration = Duration::from_secs(60);
/// A rate over a shorter time says nothing.
const LEAST: Duration = Duration::from_secs(2);

/// How far a loop is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Items that have settled; where it is being undone, those that are undone.
    pub done: usize,
    /// Those of them that failed; where it is being undone, those whose undo failed.
    pub failed: usize,
    /// Items in all; where it is being undone, those that took effect.
    pub of: usize,
    /// Whether it is being undone.
    pub is_undo: bool,
    /// Items a second, once enough is known.
    pub rate: Option<f64>,
    /// How long the rest takes at that rate.
    pub left: Option<Duration>,
}

/// Whether an instance is a loop that is told in one line.
#[must_use]
pub fn is_long(instance: &Instance) -> bool {
    instance.role == Role::Foreach && instance.children.len() > FEW
}

/// The outermost loop around an instance that is told in one line.
#[must_use]
pub fn long_loop<'m>(machine: &'m Machine, instance: &'m Instance) -> Option<&'m Instance> {
    let mut found = None;
    let mut up = instance.parent;
    while let Some(id) = up {
        let around = machine.get(id);
        if is_long(around) {
            found = Some(around);
        }
        up = around.parent;
    }
    found
}

/// Whether an item, or a step inside one, is told although the loop is one line: it runs, sleeps, failed or is in doubt.
#[must_use]
pub fn stands_out(instance: &Instance) -> bool {
    !matches!(
        instance.state,
        NodeState::Pending | NodeState::Succeeded | NodeState::Skipped | NodeState::Undone
    )
}

/// How far a loop is. `since` is when the process that drives began to; `None` where nobody drives, and then there is no rate.
#[must_use]
pub fn of(
    machine: &Machine,
    instance: &Instance,
    since: Option<Timestamp>,
    now: Timestamp,
) -> Progress {
    let items = || instance.children.iter().map(|id| machine.get(*id));
    let is_undo = items().any(|item| {
        !matches!(item.undo.stage(), Stage::Idle | Stage::Skipped)
            || matches!(
                item.state,
                NodeState::Undoing | NodeState::Undone | NodeState::UndoFailed
            )
    });
    if is_undo {
        let count = |state| items().filter(|item| item.state == state).count();
        return Progress {
            done: count(NodeState::Undone),
            failed: count(NodeState::UndoFailed),
            of: items()
                .filter(|item| item.took_effect || item.state == NodeState::Undone)
                .count(),
            is_undo,
            rate: None,
            left: None,
        };
    }
    let settled = |item: &&Instance| {
        matches!(
            item.forward.stage(),
            Stage::Succeeded | Stage::Failed | Stage::Skipped
        )
    };
    let done = items().filter(settled).count();
    let failed = items()
        .filter(|item| item.forward.stage() == Stage::Failed)
        .count();
    let of = items().count();
    let from = since
        .zip(instance.forward.first_started_at)
        .map(|(since, started)| since.max(started));
    let rate_from = |from: Timestamp| {
        let time = Duration::between(from, now);
        let settled = items()
            .filter(settled)
            .filter(|item| item.finished_at.is_some_and(|at| at >= from))
            .count();
        // A count of millions loses nothing as a float.
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = settled as f64 * 1_000.0 / time.as_millis().max(1) as f64;
        (settled, (time >= LEAST && settled >= 3).then_some(rate))
    };
    let runs = items().any(|item| item.forward.stage() == Stage::Running);
    let rate = from.filter(|_| runs && done < of).and_then(|from| {
        let window = Duration::from_millis(-WINDOW.as_millis())
            .after(now)
            .max(from);
        match rate_from(window) {
            (5.., Some(rate)) => Some(rate),
            _ => rate_from(from).1,
        }
    });
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a time for people"
    )]
    let left = rate
        .filter(|rate| *rate > 0.0)
        .map(|rate| Duration::from_millis(((of - done) as f64 * 1_000.0 / rate) as i64));
    Progress {
        done,
        failed,
        of,
        is_undo,
        rate,
        left,
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_undo {
            f.write_str("undone ")?;
        }
        write!(f, "{} of {}", self.done, self.of)?;
        if self.failed > 0 {
            write!(f, ", {} failed", self.failed)?;
        }
        if let Some(rate) = self.rate {
            let (per_min, per_h) = (rate * 60.0, rate * 3_600.0);
            match rate {
                10.0.. => write!(f, ", {rate:.0}/s")?,
                1.0.. => write!(f, ", {rate:.1}/s")?,
                _ if per_min >= 1.0 => write!(f, ", {per_min:.0}/min")?,
                _ => write!(f, ", {per_h:.0}/h")?,
            }
        }
        if let Some(left) = self.left {
            let s = left.as_millis() / 1_000;
            if s < 60 {
                write!(f, ", {}s left", s.max(1))?;
            } else {
                write!(f, ", {} left", span(left))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_well() {
        let said = |rate, left: Option<i64>| {
            Progress {
                done: 47,
                of: 401,
                rate,
                left: left.map(Duration::from_secs),
                ..Progress::default()
            }
            .to_string()
        };
        assert_eq!(said(None, None), "47 of 401");
        assert_eq!(said(Some(12.3), Some(29)), "47 of 401, 12/s, 29s left");
        assert_eq!(said(Some(1.25), Some(0)), "47 of 401, 1.2/s, 1s left");
        assert_eq!(said(Some(0.5), Some(708)), "47 of 401, 30/min, 11m48s left");
        assert_eq!(said(Some(0.01), None), "47 of 401, 36/h");
        let undone = Progress {
            done: 3,
            failed: 1,
            of: 5,
            is_undo: true,
            ..Progress::default()
        };
        assert_eq!(undone.to_string(), "undone 3 of 5, 1 failed");
    }
}
