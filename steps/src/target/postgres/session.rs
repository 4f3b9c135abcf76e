//! One connection, and what a step does on it.
use super::{
    backend::{self, Backend},
    connect, doubt, errors, ledger_ddl,
    pool::{Held, Source},
    values::{self, Arrays},
};
use crate::{
    sql::params::{Bound, quote},
    target::{Access, Affected, Fingerprint, LedgerKey, LedgerState, Rows, Session, Until},
};
use futures_util::future::BoxFuture;
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgRow};
use windlass_engine::{
    step::{Cause, Certainty, Failure, Identity},
    value::{Duration, Timestamp, Value},
};

/// How long a statement that was told to end may take to do so.
const ENDING: Duration = Duration::from_secs(10);

/// A connection and the means to end what it does.
pub(super) struct PostgresSession {
    pub(super) held: Held,
    pub(super) source: Source,
    access: Access,
    /// Run and step, for the server's own lists.
    who: String,
    /// The server's process for this connection, asked before a statement could change whom the server takes us for.
    me: Option<Backend>,
    in_transaction: bool,
    /// Whether a statement may have left what a reset does not take away.
    pub(super) is_spoiled: bool,
    /// Types that its rows have brought so far.
    pub(super) arrays: Arrays,
    /// What may be prepared under its name: that outlives a transaction, and a pooler would hand it on.
    pub(super) prepared: Option<&'static str>,
}

/// The longest name of an application that the server keeps, in bytes.
const LONGEST_NAME: usize = 63;

/// Takes away what functions and triggers may have left in the session, so that another step can have it. Each of these is
/// harmless through a pooler, too.
const RESET: &str = "CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ALL; UNLISTEN *; DISCARD SEQUENCES; DISCARD TEMP; \
    SELECT pg_advisory_unlock_all(); SELECT count(*) FROM pg_prepared_statements";

/// `ledger` or `schema.ledger`, quoted.
pub(super) fn table_name(table: &str) -> String {
    let mut in_quotes = false;
    let parts = table.split(|c: char| {
        in_quotes ^= c == '"';
        c == '.' && !in_quotes
    });
    let parts = parts.map(|part| {
        let inner = part
            .strip_prefix('"')
            .and_then(|part| part.strip_suffix('"'));
        match inner {
            // As the server itself writes it; a quote that ends it too early is part of a name that nobody quoted.
            Some(inner) if !inner.replace("\"\"", "").contains('"') => part.to_owned(),
            _ => quote(part),
        }
    });
    parts.collect::<Vec<_>>().join(".")
}

/// What to do where the ledger that the environment names is not there.
pub(super) fn no_ledger(table: &str) -> Failure {
    Failure::new(
        "sql.no_ledger",
        format!("the ledger {table} that the environment names is not there"),
    )
    .cause(Cause::Refused)
    .help(format!(
        "`windlass doctor --init-ledger` makes it after asking:\n{}",
        ledger_ddl(table)
    ))
}

impl PostgresSession {
    pub(super) fn new(held: Held, source: Source, access: Access, who: String) -> Self {
        Self {
            held,
            source,
            access,
            who: who.chars().take(LONGEST_NAME).collect(),
            me: None,
            in_transaction: false,
            is_spoiled: false,
            arrays: Arrays::default(),
            prepared: None,
        }
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.held.connection
    }

    async fn simple(&mut self, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .fetch_all(self.connection())
            .await
    }

    /// Begins, with limits that end with the transaction.
    async fn start(&mut self, until: &Until) -> Result<(), Failure> {
        let read_only = match self.access {
            Access::Read => " READ ONLY",
            Access::Write => "",
        };
        let left = millis(until.left());
        self.held.is_clean = false;
        let sql = format!(
            "BEGIN{read_only}; SET LOCAL application_name = {}; SET LOCAL statement_timeout = {left}; SET LOCAL lock_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = {}; SET LOCAL DateStyle = 'ISO, MDY'; \
             SET LOCAL IntervalStyle = 'postgres'; SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1; \
             SET LOCAL standard_conforming_strings = on; \
             SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') IN ('off', 'local'); \
             SET LOCAL windlass.step = {}; {}",
            self.name(),
            millis(until.lock_timeout),
            left.saturating_add(60_000),
            self.name(),
            backend::WHO,
        );
        let rows = self.simple(sql).await.map_err(|e| errors::failure(&e))?;
        self.in_transaction = true;
        self.me = rows.last().and_then(Backend::of);
        Ok(())
    }

    /// Run and step as a literal.
    fn name(&self) -> String {
        format!("'{}'", self.who.replace('\'', "''"))
    }

    /// Does work on the connection. Where `until` comes first, the statement is ended on the server and awaited.
    /// Where it waits long for a lock, whoever holds it is named.
    pub(super) async fn work<T>(
        &mut self,
        until: &Until,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Failure> {
        if let Some(cause) = until.passed() {
            return Err(Until::ended(cause));
        }
        let (pid, source) = (self.me.as_ref().map(|me| me.pid), &self.source);
        let mut working = Box::pin(work(&mut self.held.connection));
        let mut blockers: Option<String> = None;
        // Just before the server gives up, so that who holds the lock is still known.
        let mut look = Box::pin(until.sleep(Duration::from_millis(
            until.lock_timeout.as_millis() / 10 * 8,
        )));
        let mut looked = false;
        let result = loop {
            tokio::select! {
                result = &mut working => break result,
                cause = until.over() => {
                    let ended = end(pid, source).await;
                    let gone = tokio::time::timeout(ENDING.to_std(), &mut working).await;
                    return match (ended, gone) {
                        // It was through before it could be ended.
                        (_, Ok(Ok(value))) => Ok(value),
                        (_, Ok(Err(_))) => Err(Until::ended(cause)),
                        (ended, Err(_)) => Err(Until::ended(cause).certainty(Certainty::Unknown).help(format!(
                            "the statement of backend {} may still run on the server{}; see pg_stat_activity",
                            pid.unwrap_or_default(),
                            ended.err().map(|f| format!(" ({})", f.message)).unwrap_or_default()
                        ))),
                    };
                }
                () = &mut look, if !looked => {
                    looked = true;
                    if let Some(pid) = pid {
                        blockers = who_blocks(pid, source).await.unwrap_or_default();
                    }
                }
            }
        };
        result.map_err(|error| {
            let failure = errors::failure(&error);
            match (failure.cause, blockers) {
                (Cause::LockTimeout, Some(blockers)) => {
                    let message = format!("{}; it is held by {blockers}", failure.message);
                    Failure { message, ..failure }
                }
                _ => failure,
            }
        })
    }

    async fn ended<T>(&mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        let sql = match self.prepared.take() {
            Some(name) => format!("ROLLBACK; DEALLOCATE {name}"),
            None => "ROLLBACK".to_owned(),
        };
        // Nothing was written; a rollback that fails changes nothing.
        let ended = self.simple(sql).await;
        self.in_transaction = false;
        // A transaction that only reads leaves nothing behind.
        self.held.is_clean = ended.is_ok() && result.is_ok() && self.access == Access::Read;
        result
    }
}

fn unknown() -> Failure {
    Failure::new(
        "sql.driver",
        "the server did not tell which of its processes serves the step",
    )
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.to_std().as_millis())
        .unwrap_or(i64::MAX)
        .clamp(1, i64::from(i32::MAX))
}

/// Ends what a backend does.
async fn end(pid: Option<i32>, source: &Source) -> Result<(), Failure> {
    let Some(pid) = pid else {
        return Ok(());
    };
    let mut beside = connect::connect(source.target(), source.options()).await?;
    let told = backend::one(&mut beside, format!("SELECT pg_cancel_backend({pid})")).await;
    connect::close(beside).await;
    told.map(drop)
}

/// Who holds what a backend waits for, in words.
async fn who_blocks(pid: i32, source: &Source) -> Result<Option<String>, Failure> {
    let mut beside = connect::connect(source.target(), source.options()).await?;
    let sql = format!(
        "SELECT string_agg(format('pid %s (%s, %s, %s since %s): %s', a.pid, coalesce(a.usename, '-'), \
            coalesce(nullif(a.application_name, ''), '-'), coalesce(a.state, '-'), \
            to_char(coalesce(a.xact_start, a.state_change), 'HH24:MI:SS'), left(regexp_replace(a.query, '\\s+', ' ', 'g'), 120)), '; ') \
         FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids({pid}))"
    );
    let row = backend::one(&mut beside, sql).await;
    connect::close(beside).await;
    row.map(|row| values::text(&row, 0))
}

impl Session for PostgresSession {
    fn read<'a>(
        &'a mut self,
        statement: &'a Bound,
        max_rows: usize,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Rows, Failure>> {
        Box::pin(async move {
            if self.in_transaction {
                return self.query(statement, max_rows, until).await;
            }
            self.start(until).await?;
            let result = self.query(statement, max_rows, until).await;
            self.ended(result).await
        })
    }

    fn begin<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.start(until))
    }

    fn run<'a>(
        &'a mut self,
        statement: &'a Bound,
        max_rows: usize,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Affected, Failure>> {
        Box::pin(async move {
            if !self.in_transaction {
                // A statement that refuses a transaction: its limits hold for the session, which ends with the step.
                self.is_spoiled = true;
                let limits = format!(
                    "SET application_name = {}; SET statement_timeout = {}; SET lock_timeout = {}; \
                     SET standard_conforming_strings = on; SET bytea_output = 'hex'",
                    self.name(),
                    millis(until.left()),
                    millis(until.lock_timeout)
                );
                self.simple(limits).await.map_err(|e| errors::failure(&e))?;
                if !statement.values.is_empty() {
                    return Err(Failure::new(
                        "sql.parameter_type",
                        "a statement outside a transaction takes no values on PostgreSQL",
                    )
                    .help("write :'name' for a quoted literal, :\"name\" for an identifier"));
                }
            }
            self.statement(statement, max_rows, until).await
        })
    }

    fn alone<'a>(&'a mut self, _: &'a Until) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async move {
            self.is_spoiled = true;
            if self.me.is_none() {
                let rows = self
                    .simple(backend::WHO.to_owned())
                    .await
                    .map_err(|e| errors::failure(&e))?;
                self.me = rows.last().and_then(Backend::of);
            }
            self.me.as_ref().map(|me| me.token([])).ok_or_else(unknown)
        })
    }

    fn mark<'a>(&'a mut self, _: &'a Until) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async move {
            let me = self.me.clone().ok_or_else(unknown)?;
            let step = self.who.clone();
            let mark = doubt::mark(self.connection(), &me, &step).await?;
            let mut beside = self.source.beside().await?;
            doubt::flush(&mut beside.connection)
                .await
                .map_err(|error| errors::failure(&error))?;
            beside.is_clean = true;
            Ok(mark)
        })
    }

    fn commit<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            self.in_transaction = false;
            tokio::select! {
                done = sqlx::raw_sql("COMMIT").execute(self.connection()) => {
                    done.map_err(|error| errors::of_commit(&error))?;
                }
                // Ending a COMMIT decides nothing: it may be through already.
                cause = until.over() => return Err(Until::ended(cause).certainty(Certainty::Unknown)),
            }
            if !self.is_spoiled {
                let reset = tokio::time::timeout(ENDING.to_std(), self.simple(RESET.to_owned()));
                // What is prepared under a name would be in the way of the next; through a pooler it may be another's.
                let left = match reset.await {
                    Ok(Ok(rows)) => rows.last().and_then(|row| values::text(row, 0)),
                    Ok(Err(_)) | Err(_) => None,
                };
                self.held.is_clean = left.as_deref() == Some("0");
            }
            Ok(())
        })
    }

    fn check_deferred(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.simple("SET CONSTRAINTS ALL IMMEDIATE".to_owned())
                .await
                .map(drop)
                .map_err(|error| errors::failure(&error))
        })
    }

    fn rollback(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move { self.ended(Ok(())).await })
    }

    fn ledger_ask<'a>(
        &'a mut self,
        table: &'a str,
        key: &'a LedgerKey,
        _: &'a Until,
    ) -> BoxFuture<'a, Result<LedgerState, Failure>> {
        Box::pin(async move {
            let sql = format!(
                "SELECT attempt::bigint, state FROM {} WHERE run = $1 AND node = $2 AND phase = $3 AND attempt > $4",
                table_name(table)
            );
            let rows = sqlx::query_as::<_, (i64, String)>(AssertSqlSafe(sql))
                .bind(&key.run)
                .bind(&key.node)
                .bind(key.phase)
                .bind(key.after())
                .persistent(false)
                .fetch_all(self.connection())
                .await
                .map_err(|error| ledger_failure(&error, table))?;
            key.read(table, rows)
        })
    }

    fn ledger_write<'a>(
        &'a mut self,
        table: &'a str,
        key: &'a LedgerKey,
        state: LedgerState,
        at: Timestamp,
        _: &'a Until,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let state = match state {
                LedgerState::Void => "void",
                LedgerState::Done | LedgerState::Absent | LedgerState::Unknown(_) => "done",
            };
            let sql = format!(
                "INSERT INTO {} (run, node, phase, attempt, state, at) VALUES ($1, $2, $3, $4, $5, $6::text::timestamptz)",
                table_name(table)
            );
            sqlx::query(AssertSqlSafe(sql))
                .bind(&key.run)
                .bind(&key.node)
                .bind(key.phase)
                .bind(i64::from(key.attempt))
                .bind(state)
                .bind(at.to_string())
                .persistent(false)
                .execute(self.connection())
                .await
                .map(drop)
                .map_err(|error| ledger_failure(&error, table))
        })
    }

    fn trace<'a>(
        &'a mut self,
        statement: &'a Bound,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
        Box::pin(self.trace_of(statement, until))
    }

    fn explain<'a>(
        &'a mut self,
        statement: &'a Bound,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            self.start(until).await?;
            let lines = self.explained(statement, until).await;
            self.ended(lines).await
        })
    }

    fn who(&self) -> &Identity {
        &self.held.who
    }

    fn failover(&self) -> Option<(u32, u32)> {
        let before = self.source.target().identity.as_ref()?;
        self.held.who.promoted_since(before)
    }

    fn tables<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            let sql = "SELECT CASE WHEN n.nspname = current_schema() THEN '' ELSE quote_ident(n.nspname) || '.' END \
                   || quote_ident(c.relname) AS name \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT LIKE 'pg\\_%' \
                 AND n.nspname <> 'information_schema' ORDER BY 1";
            let rows = self
                .read(&Bound::plain("SELECT", sql.to_owned()), 100_000, until)
                .await?;
            Ok(rows
                .rows
                .iter()
                .filter_map(|row| row.get("name").and_then(Value::as_str).map(str::to_owned))
                .collect())
        })
    }

    fn fingerprint<'a>(
        &'a mut self,
        table: &'a str,
        checksum: bool,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Fingerprint, Failure>> {
        Box::pin(async move {
            self.start(until).await?;
            let result = self.fingerprint_of(table, checksum, until).await;
            self.ended(result).await
        })
    }
}

fn ledger_failure(error: &sqlx::Error, table: &str) -> Failure {
    match errors::state(error).as_deref() {
        Some("42P01" | "3F000") => no_ledger(table),
        Some("23505") => Failure::new(
            "sql.voided",
            "this attempt is in the ledger already: it was given up, or another process runs it",
        ),
        _ => errors::failure(error),
    }
}

#[cfg(test)]
mod tests {
    use super::table_name;

    #[test]
    fn names_of_tables_hold_nothing_but_names() {
        for (given, quoted) in [
            ("orders", "\"orders\""),
            ("app.orders", "\"app\".\"orders\""),
            ("\"My.Tab\"", "\"My.Tab\""),
            ("app.\"a \"\"b\"\"\"", "\"app\".\"a \"\"b\"\"\""),
            (
                "\"a\" (i int); DROP TABLE t; --\"",
                "\"\"\"a\"\" (i int); DROP TABLE t; --\"\"\"",
            ),
            ("a\"; DROP TABLE t", "\"a\"\"; DROP TABLE t\""),
        ] {
            assert_eq!(table_name(given), quoted, "{given}");
        }
    }
}
