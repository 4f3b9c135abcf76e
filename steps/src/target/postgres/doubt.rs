//! Whether a transaction was committed, from its own identity.
use super::{
    backend::{Backend, POLL, one},
    values,
};
use crate::target::{Settled, Until};
use sqlx::PgConnection;
use windlass_engine::{
    step::{Certainty, Failure},
    value::Value,
};

/// The identity of the transaction that a connection is in; `step` is what it was begun for.
pub(super) async fn mark(
    connection: &mut PgConnection,
    me: &Backend,
    step: &str,
) -> Result<Value, Failure> {
    let sql = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), pg_current_xact_id()::text, \
        current_setting('windlass.step', true)";
    let row = one(connection, sql.to_owned()).await?;
    if values::text(&row, 2).as_deref() != Some(step) {
        return Err(Failure::new(
            "sql.transaction_left",
            "this is no longer the transaction that the step began: one of its statements has ended that",
        )
        .certainty(Certainty::Partial)
        .help("what came before it is committed or rolled back already; remove that statement"));
    }
    let text = |at: usize| Value::from(values::text(&row, at).unwrap_or_default());
    Ok(me.token([("timeline", text(0)), ("xid", text(1))]))
}

/// Flushes the log past all that was written so far: else a crash could give the same transaction id to another one.
pub(super) async fn flush(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Only this server's disk matters here; a standby that is away must not hold it up.
    sqlx::raw_sql(
        "BEGIN; SET LOCAL synchronous_commit = local; \
         SELECT pg_logical_emit_message(true, 'windlass', 'mark'); COMMIT",
    )
    .execute(connection)
    .await
    .map(drop)
}

struct Now {
    standby: bool,
    system: String,
    timeline: Option<String>,
    /// Whether the backend of the mark is there.
    alive: bool,
}

async fn look(connection: &mut PgConnection, backend: &Backend) -> Result<Now, Failure> {
    let sql = format!(
        "SELECT pg_is_in_recovery(), (SELECT system_identifier::text FROM pg_control_system()), \
           CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, \
           EXISTS (SELECT 1 FROM pg_stat_activity WHERE {})",
        backend.is_it()
    );
    let row = one(connection, sql).await?;
    let is = |at: usize| values::text(&row, at).as_deref() == Some("t");
    Ok(Now {
        standby: is(0),
        system: values::text(&row, 1).unwrap_or_default(),
        timeline: values::text(&row, 2),
        alive: is(3),
    })
}

async fn status(connection: &mut PgConnection, xid: u64) -> Result<Option<String>, Failure> {
    let row = one(connection, format!("SELECT pg_xact_status('{xid}'::xid8)")).await?;
    Ok(values::text(&row, 0))
}

/// Asks the server. "Not done" is said only where it cannot become false any more.
pub(super) async fn settle(
    connection: &mut PgConnection,
    token: &Value,
    until: &Until,
) -> Result<Settled, Failure> {
    let text = |key: &str| token.get(key).and_then(Value::as_str);
    let xid = text("xid").and_then(|xid| xid.parse().ok());
    let (Some(backend), Some(timeline), Some(xid)) =
        (Backend::marked(token), text("timeline"), xid)
    else {
        return Ok(Settled::InDoubt(
            "the mark does not hold the identity of its transaction".to_owned(),
        ));
    };
    loop {
        let now = look(connection, &backend).await?;
        if now.standby {
            return Ok(Settled::InDoubt(
                "the server is a standby now, and a standby does not know what the primary committed"
                    .to_owned(),
            ));
        }
        if now.system != backend.system {
            return Ok(Settled::InDoubt(format!(
                "this is another server: its system identifier is {}, and the step ran on {}",
                now.system, backend.system
            )));
        }
        if now.timeline.as_deref() != Some(timeline) {
            return Ok(Settled::InDoubt(format!(
                "a failover came in between (timeline {} then, {} now), and the transaction may be on the other side",
                timeline,
                now.timeline.as_deref().unwrap_or("unknown")
            )));
        }
        // Only now: of another timeline the server may not even know that there is such a number.
        let status = match status(connection, xid).await {
            Ok(status) => status,
            Err(failure) => {
                return Ok(Settled::InDoubt(format!(
                    "the server cannot tell of transaction {xid}: {}",
                    failure.message
                )));
            }
        };
        match (status.as_deref(), now.alive) {
            (Some("committed"), _) => return Ok(Settled::Done),
            (Some("aborted"), false) => return Ok(Settled::NotDone),
            (Some("aborted" | "in progress"), true) => backend.terminate(connection).await?,
            // The backend is gone, and the server has yet to say so.
            (Some("in progress"), false) => {}
            (Some(_) | None, _) => {
                return Ok(Settled::InDoubt(format!(
                    "the server no longer knows transaction {xid}"
                )));
            }
        }
        if until.passed().is_some() {
            return Ok(Settled::InDoubt(format!(
                "transaction {xid} of backend {} was still in progress when the time was over",
                backend.pid
            )));
        }
        until.sleep(POLL).await;
    }
}
