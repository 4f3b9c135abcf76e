//! What the events said about each node.
use super::Path;
use windlass_engine::{
    machine::Outcome,
    step::{Certainty, Failure, Vote},
};

/// Where an execution stands, as the events tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stand {
    #[default]
    Pending,
    /// A person ordered it to run again, and it has not started yet.
    Ordered,
    Running,
    Backoff,
    Gated,
    /// Waits for the next window, without an attempt that has begun.
    Shut,
    Asleep,
    Asking,
    Doubt,
    Succeeded,
    Skipped,
    Failed,
    /// Asleep or lost when its scope ended.
    Ended,
}

impl Stand {
    pub(crate) fn is_active(self) -> bool {
        matches!(
            self,
            Self::Running
                | Self::Backoff
                | Self::Asleep
                | Self::Asking
                | Self::Doubt
                | Self::Gated
                | Self::Shut
        )
    }

    pub(crate) fn is_settled(self) -> bool {
        matches!(self, Self::Succeeded | Self::Skipped | Self::Failed)
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Exec {
    pub stand: Stand,
    /// The last attempt; attempts are never used twice, whatever happens to the node.
    pub attempt: u32,
    pub part: u32,
    /// The driver that ran it is gone.
    pub lost: bool,
    /// The probe, or a person, said that it did not happen.
    pub not_done: bool,
    pub marked: bool,
    pub started: bool,
    pub failure: Option<Failure>,
    /// Of an undo: an attempt that failed or was lost may have taken something away.
    pub acted: bool,
    pub votes: Vec<Vote>,
    /// What the last decision on it was.
    pub approved: Option<bool>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Rec {
    pub forward: Exec,
    pub undo: Exec,
    /// It may have changed the world, and that is not undone.
    pub effect: bool,
    pub by_hand: bool,
    /// Its undo was left by a person.
    pub left: bool,
    /// Its undo has failed for good since it began, whatever became of it then.
    pub undo_failed: bool,
    /// The scope whose compensation undid it.
    pub undone_in: Option<Path>,
    pub items: Option<usize>,
    pub order: u64,
    /// Opened again by a person's order, perhaps without a start of its own.
    pub reopened: bool,
    /// Opened again by an order to run something in it: it starts whatever asks elsewhere, even if what was ordered is skipped since.
    pub ordered: bool,
    /// Its failure had ended a scope that goes forward again: it asks now.
    pub asks: bool,
    /// A call that failed since the scope around it ended.
    pub outer_end: bool,
    /// A foreach or call whose failure has no failed node inside.
    pub by_itself: bool,
}

impl Rec {
    /// It runs anew, or was done anew: its undo was left of the life before.
    pub(super) fn leave_no_more(&mut self) {
        if std::mem::take(&mut self.left) && self.undo.stand == Stand::Skipped {
            self.undo.stand = Stand::Pending;
            self.undo.part = 0;
        }
    }

    /// It is done, and an undo of it began, did not come to its end, and is not known to have done nothing.
    pub(super) fn is_half_undone(&self) -> bool {
        let left = matches!(
            self.undo.stand,
            Stand::Skipped | Stand::Failed | Stand::Ended
        );
        let failure = self.undo.failure.as_ref();
        let nothing = failure.is_some_and(|failure| failure.certainty == Certainty::NoEffect);
        self.forward.stand == Stand::Succeeded
            && self.effect
            && self.undo.started
            && left
            && (self.undo.part > 0 || self.undo.acted || !nothing)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ScopePhase {
    #[default]
    Forward,
    Undoing,
    Cleaning,
    Finally,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending {
    pub undo: bool,
    /// Whether what ends it by itself undoes: a stop around it may say otherwise for a while.
    pub own: bool,
    pub cancelled: bool,
    /// It ends since the scope around it does.
    pub outer: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    pub phase: ScopePhase,
    pub ending: Option<Ending>,
    pub outcome: Option<Outcome>,
    /// A cancel in its `finally` that undoes: nothing more of it starts.
    pub turns_back: bool,
    pub finally_failed: Vec<Path>,
}
