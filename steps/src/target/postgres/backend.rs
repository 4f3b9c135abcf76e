//! A server's process: known again after a crash, looked for, ended.
use super::{activity::LONGEST_NAME, errors, values};
use crate::target::{Until, session_name};
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgRow};
use windlass_engine::{
    step::{Failure, LeftSessions},
    value::{Duration, Value},
};

/// How often a backend that must end is looked at.
pub(super) const POLL: Duration = Duration::from_millis(50);
/// How often a backend is told to end: for five seconds.
const ENDING_POLLS: u32 = 100;

/// Asks a server which of its processes serves the connection.
pub(super) const WHO: &str = "SELECT (SELECT system_identifier::text FROM pg_control_system()), pg_backend_pid(), \
    (SELECT extract(epoch FROM backend_start)::text FROM pg_stat_activity WHERE pid = pg_backend_pid())";

/// A process of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) system: String,
    pub(super) pid: i32,
    /// Seconds, as the server writes them.
    start: String,
}

impl Backend {
    /// From the answer to [`WHO`].
    pub(super) fn of(row: &PgRow) -> Option<Self> {
        Self::new(
            values::text(row, 0)?,
            values::text(row, 1)?.parse().ok()?,
            values::text(row, 2)?,
        )
    }

    /// From a mark.
    pub(super) fn marked(token: &Value) -> Option<Self> {
        let text = |key: &str| token.get(key).and_then(Value::as_str).map(str::to_owned);
        let pid = token.get("pid").and_then(Value::as_int)?;
        Self::new(
            text("system")?,
            i32::try_from(pid).ok()?,
            text("backend_start")?,
        )
    }

    /// Its parts go into SQL: they are numbers, and nothing else.
    fn new(system: String, pid: i32, start: String) -> Option<Self> {
        let is_number =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
        (is_number(&system) && is_number(&start)).then_some(Self { system, pid, start })
    }

    /// As a mark holds it, with more beside it.
    pub(super) fn token<const N: usize>(&self, more: [(&'static str, Value); N]) -> Value {
        let own = [
            ("system", Value::from(self.system.as_str())),
            ("pid", Value::Int(i64::from(self.pid))),
            ("backend_start", Value::from(self.start.as_str())),
        ];
        Value::map(own.into_iter().chain(more))
    }

    /// A condition on `pg_stat_activity`.
    pub(super) fn is_it(&self) -> String {
        format!(
            "pid = {} AND extract(epoch FROM backend_start)::text = '{}'",
            self.pid, self.start
        )
    }

    /// Tells it to end.
    pub(super) async fn terminate(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        one(
            connection,
            format!("SELECT pg_terminate_backend({})", self.pid),
        )
        .await
        .map(drop)
        .map_err(|failure| {
            failure.help("the backend of the step is still there; end it, then `windlass resume`")
        })
    }
}

/// The one row of a question. By the simple protocol: outside a transaction a pooler may give the messages of the other one
/// to several processes.
pub(super) async fn one(connection: &mut PgConnection, sql: String) -> Result<PgRow, Failure> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .map_err(|error| errors::failure(&error))
}

/// Ends what still runs under the names of the steps that end, except under a name that a spared step may bear as well: the server
/// cuts long names short.
pub(super) async fn end_sessions(
    connection: &mut PgConnection,
    left: LeftSessions<'_>,
) -> Result<usize, Failure> {
    let name = |node: &&str| {
        let whole = session_name(left.short_id, node);
        let end = whole.floor_char_boundary(LONGEST_NAME);
        whole.get(..end).unwrap_or_default().to_owned()
    };
    let spared: Vec<String> = left.spared.iter().map(name).collect();
    let names: Vec<String> = left
        .ended
        .iter()
        .map(name)
        .filter(|name| !spared.contains(name))
        .map(|name| format!("'{}'", name.replace('\'', "''")))
        .collect();
    if names.is_empty() {
        return Ok(0);
    }
    // A session that is idle is another process's pool, or ours.
    let sql = format!(
        "SELECT coalesce(sum(pg_terminate_backend(pid)::int), 0)::text FROM pg_stat_activity \
         WHERE application_name IN ({}) AND state <> 'idle' AND pid <> pg_backend_pid()",
        names.join(", ")
    );
    let mut ended = None;
    for _ in 0..ENDING_POLLS {
        let row = one(connection, sql.clone()).await?;
        let told = values::text(&row, 0).and_then(|told| told.parse().ok());
        let told: usize = told.unwrap_or_default();
        let first = *ended.get_or_insert(told);
        if told == 0 {
            return Ok(first);
        }
        tokio::time::sleep(POLL.to_std()).await;
    }
    Ok(ended.unwrap_or_default())
}

/// Waits for the statement of a session that was left behind, for as long as it may take, and ends the session.
pub(super) async fn end_left(
    connection: &mut PgConnection,
    token: &Value,
    until: &Until,
) -> Result<(), Failure> {
    let Some(left) = Backend::marked(token) else {
        return Err(Failure::new(
            "sql.unknown_session",
            "the mark does not hold the identity of its session, which may still run the statement",
        ));
    };
    let sql = format!(
        "SELECT (SELECT system_identifier::text FROM pg_control_system()), \
           (SELECT coalesce(state, 'hidden') FROM pg_stat_activity WHERE {})",
        left.is_it()
    );
    let mut told = 0;
    loop {
        let row = one(connection, sql.clone()).await?;
        let now = values::text(&row, 0).unwrap_or_default();
        if now != left.system {
            return Err(Failure::new(
                "sql.another_server",
                format!(
                    "this is another server: its system identifier is {now}, and the step ran on {}",
                    left.system
                ),
            ));
        }
        let Some(state) = values::text(&row, 1) else {
            return Ok(());
        };
        let over = until.passed().is_some();
        if state != "active" || over {
            if told > ENDING_POLLS {
                return Err(Failure::new(
                    "sql.still_runs",
                    format!(
                        "backend {} of the step did not end; see pg_stat_activity",
                        left.pid
                    ),
                ));
            }
            told += 1;
            left.terminate(connection).await?;
        }
        if over {
            tokio::time::sleep(POLL.to_std()).await;
        } else {
            until.sleep(POLL).await;
        }
    }
}
