//! The contract between the engine and the step kinds.
//!
//! A kind implements [`StepKind`] (what it is called, what it takes) and [`Step`] (what it does). The
//! engine sees both through [`Kind`] and [`DynStep`], which erase the types. A step never sees the
//! journal or the machine: all that it may ask for stands on [`StepContext`].
mod account;
mod context;
mod examine;
mod failure;
mod figure;
mod kind;
pub mod params;
mod registry;
mod target;
mod wait;

pub use account::{Account, check_claimed, shown};
pub(crate) use context::speaking;
pub use context::{
    Evidence, PreviewContext, Resource, Resources, Revealed, RunInfo, StepContext, StepHost,
    Stream, Undoes, failed_over, overheard,
};
pub use examine::{Examination, Finding, LedgerRecipe, LedgerStanding, Now, Severity};
pub use failure::{Cause, Certainty, Failure};
pub use figure::{Figure, Measure};
pub use kind::{
    DynStep, Effect, Fidelity, Kind, Mark, Outcome, ParamError, Phase, Preview, PreviewLine,
    Probed, Redo, Resume, Step, StepKind, StepTraits, UndoSupport,
};
pub use registry::Registry;
pub use target::{Activity, Blocker, Identity, LeftSessions, Target, TargetKind};
pub use wait::{
    Answer, ApprovalDecision, ApprovalRequest, Choice, Question, Vote, Wait, WaitOn, Woken,
};
