//! One transaction on a target: the ledger row, the statements, the mark, the COMMIT.
use super::{
    Rows,
    params::{Bound, Statement},
    rows,
};
use crate::target::sqlite::{self, Access};
use indexmap::IndexMap;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{Certainty, Failure, Mark, Phase, Probed, StepContext, Target},
    value::{Value, to_value},
};

/// The ledger's key of one attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Key {
    table: String,
    run: String,
    node: String,
    phase: String,
    attempt: u32,
}

/// What the mark of a transaction says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Token {
    ledger: Option<Key>,
}

/// What one statement did.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub rows_affected: u64,
    pub last_insert_id: i64,
    pub rows: Rows,
}

fn key(cx: &StepContext, target: &Target) -> Option<Key> {
    let table = target.ledger.clone()?;
    let phase = match cx.phase {
        Phase::Do => "do",
        Phase::Undo => "undo",
    };
    Some(Key {
        table,
        run: cx.run.id.clone(),
        node: cx.node.to_string(),
        phase: phase.to_owned(),
        attempt: cx.attempt,
    })
}

impl Key {
    fn quoted(&self) -> String {
        format!("\"{}\"", self.table.replace('"', "\"\""))
    }

    fn ensure(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {} (run TEXT NOT NULL, node TEXT NOT NULL, phase TEXT NOT NULL, \
             attempt INTEGER NOT NULL, state TEXT NOT NULL, PRIMARY KEY (run, node, phase, attempt))",
            self.quoted()
        ))
    }

    fn insert(&self, connection: &Connection, state: &str) -> rusqlite::Result<usize> {
        connection.execute(
            &format!("INSERT INTO {} VALUES (?1, ?2, ?3, ?4, ?5)", self.quoted()),
            (&self.run, &self.node, &self.phase, self.attempt, state),
        )
    }

    fn find(&self, connection: &Connection) -> rusqlite::Result<Option<String>> {
        connection
            .query_row(
                &format!(
                    "SELECT state FROM {} WHERE run = ?1 AND node = ?2 AND phase = ?3 AND attempt = ?4",
                    self.quoted()
                ),
                (&self.run, &self.node, &self.phase, self.attempt),
                |row| row.get(0),
            )
            .optional()
    }
}

/// Runs statements in one transaction. `judge` sees what they did and gives the output, or refuses, and
/// then nothing has happened.
pub(super) async fn run<O: Serialize + Send + 'static>(
    cx: &StepContext,
    target: &str,
    statements: Vec<Statement>,
    params: &IndexMap<String, Value>,
    judge: impl FnOnce(&[Done]) -> Result<O, Failure> + Send + 'static,
) -> Result<O, Failure> {
    let target = cx.target(target)?;
    let url = super::url(cx, &target).await?;
    let params = super::revealed(params, cx.host.as_ref()).await?;
    let bound = statements
        .iter()
        .map(|s| super::bind(s, &params))
        .collect::<Result<Vec<_>, _>>()?;
    let ledger = key(cx, &target);
    let host = cx.host.clone();
    let runtime = tokio::runtime::Handle::current();
    sqlite::with(
        &target,
        &url,
        Access::Write,
        super::limits(cx),
        move |connection| {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(sqlite::failure)?;
            if let Some(key) = &ledger {
                key.ensure(&transaction).map_err(sqlite::failure)?;
                // The row decides: where a probe has written `void` first, this attempt must not commit.
                key.insert(&transaction, "done").map_err(sqlite::failure)?;
            }
            let mut done = Vec::new();
            for (index, bound) in bound.iter().enumerate() {
                done.push(statement(&transaction, bound).map_err(|mut failure| {
                    if statements.len() > 1 {
                        failure.message = format!(
                            "statement {} ({}): {}",
                            index + 1,
                            first_line(statements.get(index)),
                            failure.message
                        );
                    }
                    failure
                })?);
            }
            let output = judge(&done)?;
            let stored = |e: windlass_engine::value::FromValueError| {
                Failure::new("step.stored_format", e.to_string())
            };
            let mark = Mark {
                token: to_value(&Token { ledger }).map_err(stored)?,
                capture: None,
                output: to_value(&output).map_err(stored)?,
            };
            runtime.block_on(host.mark(mark))?;
            if let Err(error) = transaction.execute_batch("COMMIT") {
                let still_open = !transaction.is_autocommit();
                let failure = sqlite::failure(error);
                if still_open && transaction.rollback().is_ok() {
                    return Err(failure);
                }
                return Err(failure.certainty(Certainty::Unknown));
            }
            // The transaction's guard would roll back what is committed; there is nothing left to roll back.
            drop(transaction);
            Ok(output)
        },
    )
    .await
}

pub(super) fn first_line(statement: Option<&Statement>) -> String {
    statement
        .map(|s| {
            s.text()
                .trim()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .unwrap_or_default()
}

/// Runs one statement, with the rows that it returns.
pub(super) fn statement(connection: &Connection, bound: &Bound) -> Result<Done, Failure> {
    let before = connection.total_changes();
    let rows = rows(connection, bound, 1_000)?;
    let changed = connection.total_changes().saturating_sub(before);
    Ok(Done {
        rows_affected: changed,
        last_insert_id: connection.last_insert_rowid(),
        rows,
    })
}

/// Asks the ledger. An attempt that it does not know can never commit any more: its place is taken.
pub(super) async fn probe<O>(
    cx: &StepContext,
    target: &str,
    mark: Option<&Mark>,
) -> Result<Probed<O>, Failure> {
    let Some(mark) = mark else {
        return Ok(Probed::NotDone);
    };
    let token: Token = windlass_engine::value::from_value(&mark.token)
        .map_err(|e| Failure::new("step.stored_format", e.to_string()))?;
    let Some(key) = token.ledger else {
        return Ok(Probed::InDoubt(
            "the transaction was about to commit, and the target has no ledger that could tell whether it did".to_owned(),
        ));
    };
    let target = cx.target(target)?;
    let url = super::url(cx, &target).await?;
    sqlite::with(
        &target,
        &url,
        Access::Write,
        super::limits(cx),
        move |connection| {
            let ask = || -> rusqlite::Result<bool> {
                let transaction =
                    connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                key.ensure(&transaction)?;
                let found = key.find(&transaction)?;
                if found.is_none() {
                    key.insert(&transaction, "void")?;
                }
                transaction.commit()?;
                Ok(found.as_deref() == Some("done"))
            };
            let mut ask = ask;
            ask().map_err(sqlite::failure)
        },
    )
    .await
    .map(|done| {
        if done {
            Probed::Done(None)
        } else {
            Probed::NotDone
        }
    })
}
