//! A statement that refuses a transaction: its mark, what its failure means, and what is left of it after a crash.
use crate::target::{self, Session, Until};
use windlass_engine::{
    step::{Cause, Certainty, Failure, Mark, Probed, StepContext, Target},
    value::Value,
};

/// Written down before the statement runs: which session runs it, and which statement of the step it is, from 1.
pub(super) async fn mark(
    cx: &StepContext,
    session: &mut Box<dyn Session>,
    statement: usize,
    until: &Until,
) -> Result<(), Failure> {
    let left = session.alone(until).await?;
    let number = i64::try_from(statement).unwrap_or(i64::MAX);
    cx.point_of_no_return(Mark {
        token: Value::map([("statement", Value::Int(number)), ("session", left)]),
        capture: None,
        output: Value::Null,
    })
    .await
}

/// After a crash: the statement may still run on the server, where it outlives its client. Only once it does not, can the
/// step's own probe be asked.
pub(super) async fn probe<O>(
    mark: &Mark,
    cx: &StepContext,
    target: &Target,
) -> Result<Probed<O>, Failure> {
    let until = Until::of(cx, target, None)?;
    if let Some(session) = mark.token.get("session").filter(|token| !token.is_null()) {
        let url = target::url(cx.host.as_ref(), target).await?;
        target::database(target)?
            .end_left(target, url.expose(), session, &until)
            .await?;
    }
    let number = mark.token.get("statement").unwrap_or(&Value::Null);
    Ok(Probed::InDoubt(format!(
        "its statement {number} ran without a transaction, so only the step's own `probe` or a person can tell"
    )))
}

/// What a failure means for a statement that ran on its own, without a transaction around it.
pub(super) fn failed(failure: Failure, leaves_files: bool) -> Failure {
    // A database takes back one statement as a whole; a file that it wrote beside itself may stay.
    let ended = matches!(failure.cause, Cause::Timeout | Cause::Cancelled);
    if leaves_files && ended {
        failure.certainty(Certainty::Partial)
    } else {
        failure
    }
}
