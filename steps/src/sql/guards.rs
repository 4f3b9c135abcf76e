//! What no step runs, by what its words say: read in a playbook, and once more as the target's own database reads it.
use super::{params::Statement, shape::Shape};
use windlass_engine::step::{Cause, Failure, ParamError};

/// Whether a database tells how many rows the statement changes.
pub(super) fn counts(shape: &Shape) -> bool {
    matches!(
        shape.verb.as_str(),
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "REPLACE"
    )
}

/// A guard on rows, for a statement whose rows nobody counts.
pub(super) fn uncounted(key: &str, shape: &Shape) -> Option<ParamError> {
    (!counts(shape)).then(|| {
        ParamError::new(
            key,
            format!("the rows that a {} changes are not counted", shape.verb),
        )
        .help("guard an INSERT, UPDATE, DELETE or MERGE of its own")
    })
}

/// UPDATE and DELETE of a whole table must be meant.
pub(super) fn unbounded(path: &str, shape: &Shape, all_rows: bool) -> Option<ParamError> {
    let whole = matches!(shape.verb.as_str(), "UPDATE" | "DELETE") && !shape.has_where;
    (whole && !all_rows).then(|| {
        ParamError::new(
            path,
            format!("{} without WHERE takes every row of the table", shape.verb),
        )
        .help("add a WHERE, or `all_rows: true` where every row is meant")
    })
}

/// What would end the transaction of the step, or wants a client that sends rows.
pub(super) fn out_of_place(path: &str, shape: &Shape) -> Option<ParamError> {
    let ends = shape.prepares_transaction
        || matches!(
            shape.verb.as_str(),
            "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE"
        );
    if ends {
        let error = ParamError::new(
            path,
            format!("{} would break the transaction of the step", shape.verb),
        );
        return Some(error.help("the step begins and commits by itself; leave it out"));
    }
    shape.streams.then(|| {
        ParamError::new(
            path,
            "COPY with STDIN or STDOUT wants a client that sends or takes rows",
        )
        .help("use `command` with psql and `connect`, or a file on the server")
    })
}

/// Both of these, where the statement is about to run.
pub(super) fn admitted(shape: &Shape, all_rows: bool) -> Result<(), Failure> {
    match out_of_place("sql", shape).or_else(|| unbounded("sql", shape, all_rows)) {
        None => Ok(()),
        Some(error) => {
            let failure = Failure::new("sql.guard", error.message).cause(Cause::Refused);
            Err(match error.help {
                Some(help) => failure.help(help),
                None => failure,
            })
        }
    }
}

/// What a database runs in no transaction.
pub(super) fn needs_none(path: &str, shape: &Shape) -> Option<ParamError> {
    shape.refuses_transaction.then(|| {
        ParamError::new(path, format!("this {} refuses a transaction", shape.verb))
            .help("add `transaction: none`, and a `probe` that returns whether it is done")
    })
}

/// What would be missing after a crash, since the session that it is about ends with it.
pub(super) fn of_session(statement: &Statement) -> Option<ParamError> {
    let verb = statement.shape.verb.as_str();
    let is_of_session = matches!(
        verb,
        "SET" | "RESET" | "DISCARD" | "LISTEN" | "LOAD" | "DECLARE" | "PREPARE" | "EXECUTE"
    );
    is_of_session.then(|| {
        ParamError::new(
            "sql",
            format!("{verb} lasts for one session, and a script without a transaction continues in another one after a crash"),
        )
        .help("name schemas and roles in the statements themselves, or leave `transaction: none` out")
    })
}
