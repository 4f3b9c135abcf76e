//! Whether a transaction was committed, from its own identity.
use super::{errors, values};
use crate::target::{Settled, Until};
use sqlx::{PgConnection, Row};
use windlass_engine::{
    step::Failure,
    value::{Duration, Value},
};

/// How often a backend that must end is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How often a backend is told to end: for five seconds.
const ENDING_POLLS: u32 = 100;

/// The identity of a session, for a statement that runs without a transaction.
pub(super) async fn session(connection: &mut PgConnection) -> Result<Value, sqlx::Error> {
    let row = sqlx::raw_sql(
        "SELECT (SELECT system_identifier::text FROM pg_control_system()), pg_backend_pid(), \
                (SELECT extract(epoch FROM backend_start)::text FROM pg_stat_activity WHERE pid = pg_backend_pid())",
    )
    .fetch_one(connection)
    .await?;
    let text = |at: usize| Value::from(values::text(&row, at).unwrap_or_default());
    let pid = values::text(&row, 1).and_then(|pid| pid.parse().ok());
    Ok(Value::map([
        ("system", text(0)),
        ("pid", pid.map_or(Value::Null, Value::Int)),
        ("backend_start", text(2)),
    ]))
}

/// Waits for the statement of a session that was left behind, for as long as it may take, and ends the session.
pub(super) async fn end_left(
    connection: &mut PgConnection,
    token: &Value,
    until: &Until,
) -> Result<(), Failure> {
    let text = |key: &str| token.get(key).and_then(Value::as_str);
    let (Some(system), Some(pid), Some(start)) =
        (text("system"), pid(token), text("backend_start"))
    else {
        return Err(Failure::new(
            "sql.unknown_session",
            "the mark does not hold the identity of its session, which may still run the statement",
        ));
    };
    let sql = "SELECT (SELECT system_identifier::text FROM pg_control_system()), \
        (SELECT coalesce(state, 'hidden') FROM pg_stat_activity WHERE pid = $1 AND extract(epoch FROM backend_start)::text = $2)";
    let mut ending = 0;
    loop {
        let row = sqlx::query(sql)
            .bind(pid)
            .bind(start)
            .persistent(false)
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| errors::failure(&error))?;
        let now: String = row.try_get(0).unwrap_or_default();
        if now != system {
            return Err(Failure::new(
                "sql.another_server",
                format!(
                    "this is another server: its system identifier is {now}, and the step ran on {system}"
                ),
            ));
        }
        let Some(state) = row.try_get::<Option<String>, _>(1).unwrap_or_default() else {
            return Ok(());
        };
        let over = until.passed().is_some();
        if state != "active" || over {
            if ending > ENDING_POLLS {
                return Err(Failure::new(
                    "sql.still_runs",
                    format!("backend {pid} of the step did not end; see pg_stat_activity"),
                ));
            }
            ending += 1;
            sqlx::query("SELECT pg_terminate_backend($1)")
                .bind(pid)
                .persistent(false)
                .execute(&mut *connection)
                .await
                .map_err(|error| still_there(&error))?;
        }
        if over {
            tokio::time::sleep(POLL.to_std()).await;
        } else {
            until.sleep(POLL).await;
        }
    }
}

fn pid(token: &Value) -> Option<i32> {
    let pid = token.get("pid").and_then(Value::as_int)?;
    i32::try_from(pid).ok()
}

fn still_there(error: &sqlx::Error) -> Failure {
    errors::failure(error)
        .help("the backend of the step is still there; end it, then `windlass resume`")
}

/// The identity of the transaction that a connection is in.
pub(super) async fn mark(connection: &mut PgConnection) -> Result<Value, sqlx::Error> {
    let row = sqlx::raw_sql(
        "SELECT (SELECT system_identifier::text FROM pg_control_system()), \
                substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), pg_current_xact_id()::text, pg_backend_pid(), \
                (SELECT extract(epoch FROM backend_start)::text FROM pg_stat_activity WHERE pid = pg_backend_pid())",
    )
    .fetch_one(connection)
    .await?;
    let text = |at: usize| Value::from(values::text(&row, at).unwrap_or_default());
    let pid = values::text(&row, 3).and_then(|pid| pid.parse().ok());
    Ok(Value::map([
        ("system", text(0)),
        ("timeline", text(1)),
        ("xid", text(2)),
        ("pid", pid.map_or(Value::Null, Value::Int)),
        ("backend_start", text(4)),
    ]))
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

async fn look(connection: &mut PgConnection, pid: i32, start: &str) -> Result<Now, sqlx::Error> {
    let row = sqlx::query(
        "SELECT pg_is_in_recovery(), (SELECT system_identifier::text FROM pg_control_system()), \
                CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, \
                EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND extract(epoch FROM backend_start)::text = $2)",
    )
    .bind(pid)
    .bind(start)
    .persistent(false)
    .fetch_one(&mut *connection)
    .await?;
    Ok(Now {
        standby: row.try_get(0)?,
        system: row.try_get(1)?,
        timeline: row.try_get(2)?,
        alive: row.try_get(3)?,
    })
}

async fn status(connection: &mut PgConnection, xid: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query("SELECT pg_xact_status($1::text::xid8)")
        .bind(xid)
        .persistent(false)
        .fetch_one(connection)
        .await?
        .try_get(0)
}

/// Asks the server. "Not done" is said only where it cannot become false any more.
pub(super) async fn settle(
    connection: &mut PgConnection,
    token: &Value,
    until: &Until,
) -> Result<Settled, Failure> {
    let text = |key: &str| token.get(key).and_then(Value::as_str);
    let (Some(system), Some(timeline), Some(xid), Some(pid), Some(start)) = (
        text("system"),
        text("timeline"),
        text("xid"),
        pid(token),
        text("backend_start"),
    ) else {
        return Ok(Settled::InDoubt(
            "the mark does not hold the identity of its transaction".to_owned(),
        ));
    };
    loop {
        let now = look(connection, pid, start)
            .await
            .map_err(|error| errors::failure(&error))?;
        if now.standby {
            return Ok(Settled::InDoubt(
                "the server is a standby now, and a standby does not know what the primary committed"
                    .to_owned(),
            ));
        }
        if now.system != system {
            return Ok(Settled::InDoubt(format!(
                "this is another server: its system identifier is {}, and the step ran on {system}",
                now.system
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
            Err(error) => {
                return Ok(Settled::InDoubt(format!(
                    "the server cannot tell of transaction {xid}: {}",
                    errors::failure(&error).message
                )));
            }
        };
        match (status.as_deref(), now.alive) {
            (Some("committed"), _) => return Ok(Settled::Done),
            (Some("aborted"), false) => return Ok(Settled::NotDone),
            (Some("aborted" | "in progress"), true) => {
                sqlx::query("SELECT pg_terminate_backend($1)")
                    .bind(pid)
                    .persistent(false)
                    .execute(&mut *connection)
                    .await
                    .map_err(|error| still_there(&error))?;
            }
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
                "transaction {xid} of backend {pid} was still in progress when the time was over"
            )));
        }
        until.sleep(POLL).await;
    }
}
