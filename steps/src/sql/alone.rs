//! A statement that refuses a transaction: its mark, what its failure means, and what is left of it after a crash.
use super::shape::Shape;
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

/// After a crash in a script of several statements: what stands before the mark is done, and of the marked one nobody knows.
/// A probe that tells whether all is done cannot tell that nothing of it is.
pub(super) async fn probe_of_many<O>(
    mark: &Mark,
    cx: &StepContext,
    target: &Target,
) -> Result<Probed<O>, Failure> {
    match probe(mark, cx, target).await? {
        Probed::InDoubt(why) => Err(Failure::new(
            "sql.partly_done",
            format!(
                "{why}; the statements before it are done. If it is resolved as done, the whole script counts as done; if as not done, \
                 it runs again from its first statement"
            ),
        )),
        settled => Ok(settled),
    }
}

/// What a failure means for a statement that ran on its own, without a transaction around it.
pub(super) fn failed(failure: Failure, shape: &Shape) -> Failure {
    if failure.certainty != Certainty::NoEffect {
        return failure;
    }
    let ended = matches!(failure.cause, Cause::Timeout | Cause::Cancelled);
    // What the server did not say itself, or said of an answer that could not be read once the statement was through.
    let is_unsure = failure.cause == Cause::ConnectionLost
        || matches!(
            failure.code.as_str(),
            "sql.connection" | "sql.driver" | "sql.duplicate_column" | "sql.column_type"
        );
    // Refused before it began.
    let is_refused = matches!(
        failure.code.as_str(),
        "sql.error" | "sql.rights" | "sql.not_read_only" | "sql.parameter_type"
    );
    let procedure = matches!(shape.verb.as_str(), "CALL" | "DO");
    // A query runs alone for a function that acts beside its transaction (a promotion, another database): what that has done by the
    // time at which the query is ended, no rollback takes back.
    let asked_for = matches!(shape.verb.as_str(), "SELECT" | "WITH" | "VALUES") && ended;
    // A database takes back one statement as a whole, but not one that commits piece by piece, nor a file beside itself.
    let leaves_file = shape.into && shape.verb == "VACUUM" && ended;
    if is_unsure || asked_for {
        failure.certainty(Certainty::Unknown)
    } else if leaves_file || shape.in_pieces && (procedure || !is_refused) {
        failure.certainty(Certainty::Partial)
    } else {
        failure
    }
}
