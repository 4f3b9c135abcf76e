//! Windows of the policy, and the wall clock that they are of.
use super::{Check, Oracle, Path, Shape, parent, record::Stand, wrong};
use crate::simulation::{graphs, world::World};
use windlass_engine::{
    graph::OutsideWindow,
    machine::{Event, EventBody, Failed, WindowClosed},
    step::{Certainty, Phase},
    value::Timestamp,
};

impl Oracle {
    /// Whether the windows say when it may start: a step that writes, in no `finally`.
    pub(super) fn is_bound_by_windows(&self, path: &str) -> bool {
        let mut around = std::iter::successors(Some(path), |at| parent(at));
        !self.graph.policy.windows.is_empty()
            && self.shape(path) == Shape::Step
            && self.writes(path)
            && !around.any(|at| self.in_finally(at))
    }

    pub(super) fn is_open(&self, at: Timestamp) -> bool {
        graphs::is_open(at.as_millisecond() + self.ahead)
    }

    /// Whatever the machine has noticed of it: what starts, starts inside a window of the wall clock as it is. What is less than a
    /// second is no step of the clock.
    pub(crate) fn check_wall(&self, event: &Event, ahead: i64) -> Check {
        let EventBody::Started(e) = &event.body else {
            return Ok(());
        };
        let wall = event.at.as_millisecond() + ahead;
        let open = [-1_000, 0, 1_000]
            .iter()
            .any(|off| graphs::is_open(wall + off));
        if e.phase == Phase::Do && self.is_bound_by_windows(&e.node) && !open {
            return wrong(
                "P13",
                format!("{} starts outside the windows of the wall clock", e.node),
            );
        }
        Ok(())
    }

    fn check_shut(&self, path: &str, at: Timestamp, outside: OutsideWindow) -> Check {
        let bound = self.is_bound_by_windows(path);
        if !bound || self.is_open(at) || self.graph.policy.outside_window != outside {
            return wrong(
                "P13",
                format!("no window keeps {path} from its start, or not so"),
            );
        }
        Ok(())
    }

    pub(super) fn on_window_closed(&mut self, e: &WindowClosed, at: Timestamp) -> Check {
        self.check_shut(&e.node, at, OutsideWindow::Wait)?;
        let stand = self.stand(&e.node);
        match stand {
            Stand::Pending
            | Stand::Ordered
            | Stand::Backoff
            | Stand::Gated
            | Stand::Shut
            | Stand::Ended => {
                // An attempt that was interrupted, or failed, is followed by another, whatever runs again before it.
                if stand != Stand::Backoff {
                    self.check_needs(&e.node)?;
                }
                let rec = self.rec_mut(&e.node);
                rec.ordered |= stand == Stand::Ordered;
                rec.forward.stand = Stand::Shut;
            }
            _ => {
                return wrong(
                    "P1",
                    format!("{} waits for a window and is {stand:?}", e.node),
                );
            }
        }
        Ok(())
    }

    pub(super) fn on_window_refused(
        &mut self,
        e: &Failed,
        at: Timestamp,
        world: &mut World,
    ) -> Check {
        if e.phase != Phase::Do {
            return wrong("P13", format!("a window refuses an undo of {}", e.node));
        }
        self.check_shut(&e.node, at, OutsideWindow::Refuse)?;
        if e.failure.certainty == Certainty::Partial {
            // An attempt before may have acted, and nobody asks about it.
            world.effects.entry(e.node.clone()).or_default().maybe = true;
        }
        Ok(())
    }

    /// Who waits for a window looks again when the clock is set.
    pub(super) fn set_clock(&mut self, ahead: i64) {
        if self.ahead == ahead {
            return;
        }
        self.ahead = ahead;
        let shut: Vec<Path> = self
            .recs
            .iter()
            .filter(|(_, rec)| rec.forward.stand == Stand::Shut)
            .map(|(path, _)| path.clone())
            .filter(|path| self.goes_forward(path).is_ok())
            .filter(|path| self.needs_around(path).is_empty())
            .filter(|path| self.broken_around(path).is_none())
            .collect();
        for path in shut {
            self.rec_mut(&path).forward.stand = Stand::Pending;
        }
    }
}
