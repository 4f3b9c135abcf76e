//! One connection, and what a step does on it.
use super::{
    connect, doubt, errors, functions, ledger_ddl, locks,
    values::{self, Typed},
};
use crate::{
    sql::params::{Bound, quote},
    target::{Access, Affected, Fingerprint, LedgerKey, LedgerState, Rows, Session, Until},
};
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use sqlx::{
    AssertSqlSafe, PgConnection, Row,
    postgres::{PgConnectOptions, PgRow},
};
use tokio::sync::OwnedSemaphorePermit;
use windlass_engine::{
    step::{Cause, Certainty, Failure, Target},
    value::{Duration, Timestamp, Value},
};

/// Rows that come at a time.
const FETCH: usize = 1_000;
/// How long a statement that was told to end may take to do so.
const ENDING: Duration = Duration::from_secs(10);

/// A connection and the means to end what it does.
pub(super) struct PostgresSession {
    connection: PgConnection,
    options: PgConnectOptions,
    access: Access,
    target: Target,
    /// The server's process for this connection.
    pid: Option<i32>,
    in_transaction: bool,
    /// Its place among the connections of the target.
    _place: Option<OwnedSemaphorePermit>,
    /// What may be prepared under its name: that outlives a transaction, and a pooler would hand it on.
    prepared: Option<&'static str>,
}

/// What the server is asked for the types of a statement's values by.
const TYPES: &str = "windlass_types";

/// `ledger` or `schema.ledger`, quoted.
pub(super) fn table_name(table: &str) -> String {
    table.split('.').map(quote).collect::<Vec<_>>().join(".")
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
    pub(super) fn new(
        connection: PgConnection,
        options: PgConnectOptions,
        access: Access,
        target: Target,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            connection,
            options,
            access,
            target,
            pid: None,
            in_transaction: false,
            _place: place,
            prepared: None,
        }
    }

    async fn simple(&mut self, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .fetch_all(&mut self.connection)
            .await
    }

    /// Begins, with limits that end with the transaction.
    async fn start(&mut self, until: &Until) -> Result<(), Failure> {
        let read_only = match self.access {
            Access::Read => " READ ONLY",
            Access::Write => "",
        };
        let left = millis(until.left());
        let sql = format!(
            "BEGIN{read_only}; SET LOCAL statement_timeout = {left}; SET LOCAL lock_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = {}; SET LOCAL DateStyle = 'ISO, MDY'; \
             SET LOCAL IntervalStyle = 'postgres'; SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1; \
             SET LOCAL standard_conforming_strings = on; \
             SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') IN ('off', 'local'); \
             SELECT pg_backend_pid()",
            millis(until.lock_timeout),
            left.saturating_add(60_000),
        );
        let rows = self.simple(sql).await.map_err(|e| errors::failure(&e))?;
        self.in_transaction = true;
        self.pid = rows
            .last()
            .and_then(|row| row.try_get_raw(0).ok())
            .and_then(|value| value.as_str().ok())
            .and_then(|text| text.parse().ok());
        Ok(())
    }

    /// A second connection of the same user, for what the first one cannot do while it is busy.
    async fn beside(&self) -> Result<PgConnection, Failure> {
        connect::connect(&self.target, &self.options).await
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
        let (pid, target, options) = (self.pid, self.target.clone(), self.options.clone());
        let mut working = Box::pin(work(&mut self.connection));
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
                    let ended = end(pid, &target, &options).await;
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
                        blockers = who_blocks(pid, &target, &options).await.unwrap_or_default();
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

    /// The statement with its values typed as the server infers them: each goes as text and is read by the server.
    pub(super) async fn typed(&mut self, bound: &Bound, until: &Until) -> Result<Typed, Failure> {
        if bound.values.is_empty() {
            return Ok(Typed::plain(bound.sql.clone()));
        }
        let sql = bound.sql.clone();
        self.prepared = Some(TYPES);
        let rows = self
            .work(until, async move |connection| {
                // In this transaction and by this name only; a pooler sees neither after it.
                let prepare = format!("PREPARE {TYPES} AS {sql}");
                sqlx::raw_sql(AssertSqlSafe(prepare))
                    .execute(&mut *connection)
                    .await?;
                let rows = sqlx::raw_sql(
                    "SELECT unnest(parameter_types)::text FROM pg_prepared_statements WHERE name = 'windlass_types'",
                )
                .fetch_all(&mut *connection)
                .await?;
                sqlx::raw_sql("DEALLOCATE windlass_types")
                    .execute(connection)
                    .await?;
                Ok(rows)
            })
            .await?;
        self.prepared = None;
        let types: Vec<String> = rows
            .iter()
            .map(|row| {
                let raw = row.try_get_raw(0).ok();
                raw.and_then(|value| value.as_str().ok().map(str::to_owned))
                    .unwrap_or_default()
            })
            .collect();
        Typed::new(bound, &types)
    }

    async fn statement(
        &mut self,
        bound: &Bound,
        max_rows: usize,
        until: &Until,
    ) -> Result<Affected, Failure> {
        use futures_util::TryStreamExt as _;
        let typed = self.typed(bound, until).await?;
        let changes = matches!(
            bound.shape.verb.as_str(),
            "INSERT" | "UPDATE" | "DELETE" | "MERGE"
        );
        if !typed.is_plain() && changes && !functions::returns(&bound.sql) {
            let done = self
                .work(until, async move |connection| {
                    sqlx::query_with(AssertSqlSafe(typed.sql.clone()), typed.arguments())
                        .persistent(false)
                        .execute(connection)
                        .await
                })
                .await?;
            return Ok(Affected {
                rows: done.rows_affected(),
                ..Affected::default()
            });
        }
        // The extended protocol, which takes values, gives rows in binary, and not every type can be read from that.
        let (sql, in_one) = if typed.is_plain() {
            (typed.sql, None)
        } else {
            self.prepared = Some(values::STATEMENT);
            let in_one = typed.in_one();
            (in_one.execute, Some((in_one.values, in_one.prepare)))
        };
        let (rows, count, more) = self
            .work(until, async move |connection| {
                let is_prepared = in_one.is_some();
                if let Some((values, prepare)) = in_one {
                    sqlx::query_with(values::SET, values)
                        .persistent(false)
                        .execute(&mut *connection)
                        .await?;
                    sqlx::raw_sql(AssertSqlSafe(prepare))
                        .execute(&mut *connection)
                        .await?;
                }
                let mut rows = Vec::new();
                let (mut count, mut more) = (0_u64, false);
                {
                    let mut stream = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(&mut *connection);
                    while let Some(step) = stream.try_next().await? {
                        match step {
                            sqlx::Either::Left(done) => count += done.rows_affected(),
                            sqlx::Either::Right(row) if rows.len() < max_rows => rows.push(row),
                            sqlx::Either::Right(_) => more = true,
                        }
                    }
                }
                if is_prepared {
                    sqlx::raw_sql(values::UNSET).execute(connection).await?;
                }
                Ok((rows, count, more))
            })
            .await?;
        self.prepared = None;
        let mut returned = values::rows(&rows)?;
        returned.truncated = more;
        Ok(Affected {
            rows: if changes { count } else { 0 },
            last_insert_id: None,
            returned,
        })
    }

    /// Rows by a cursor: all types as the server writes them, as many at a time as are needed.
    async fn cursor(
        &mut self,
        typed: &Typed,
        until: &Until,
        mut each: impl FnMut(&[PgRow]) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let sql = format!("DECLARE windlass_rows NO SCROLL CURSOR FOR {}", typed.sql);
        self.work(until, async move |connection| {
            if typed.is_plain() {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await
            } else {
                sqlx::query_with(AssertSqlSafe(sql), typed.arguments())
                    .persistent(false)
                    .execute(connection)
                    .await
            }
        })
        .await?;
        loop {
            let rows = self
                .work(until, async |connection| {
                    sqlx::raw_sql(AssertSqlSafe(format!("FETCH {FETCH} FROM windlass_rows")))
                        .fetch_all(connection)
                        .await
                })
                .await?;
            let last = rows.len() < FETCH;
            if !each(&rows)? || last {
                return Ok(());
            }
        }
    }

    async fn query(
        &mut self,
        bound: &Bound,
        max_rows: usize,
        until: &Until,
    ) -> Result<Rows, Failure> {
        let cursor = matches!(bound.shape.verb.as_str(), "SELECT" | "VALUES");
        let simple = matches!(bound.shape.verb.as_str(), "SHOW" | "EXPLAIN" | "TABLE");
        if !cursor && !simple {
            return Err(Failure::new(
                "sql.not_read_only",
                format!("{} is not a statement that only reads", bound.shape.verb),
            )
            .cause(Cause::Refused)
            .help("use sql.execute"));
        }
        let typed = self.typed(bound, until).await?;
        self.refuse_acting(&typed, bound, until).await?;
        let mut found = Rows::default();
        if cursor {
            self.cursor(&typed, until, |rows| {
                let more = values::rows(rows)?;
                if found.columns.is_empty() {
                    found.columns = more.columns;
                }
                found.rows.extend(more.rows);
                found.truncated = found.rows.len() > max_rows;
                Ok(!found.truncated)
            })
            .await?;
        } else {
            let rows = self
                .work(until, async move |connection| {
                    sqlx::raw_sql(AssertSqlSafe(typed.sql))
                        .fetch_all(connection)
                        .await
                })
                .await?;
            found = values::rows(&rows)?;
            found.truncated = found.rows.len() > max_rows;
        }
        found.rows.truncate(max_rows);
        Ok(found)
    }

    async fn ended<T>(&mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        let sql = match self.prepared.take() {
            Some(name) => format!("ROLLBACK; DEALLOCATE {name}"),
            None => "ROLLBACK".to_owned(),
        };
        // Nothing was written; a rollback that fails changes nothing.
        drop(self.simple(sql).await);
        self.in_transaction = false;
        result
    }

    async fn fingerprint_of(
        &mut self,
        table: &str,
        checksum: bool,
        until: &Until,
    ) -> Result<Fingerprint, Failure> {
        let name = table_name(table);
        if !checksum {
            let rows = self
                .query(
                    &Bound::plain("SELECT", format!("SELECT count(*) FROM {name}")),
                    1,
                    until,
                )
                .await?;
            let count = rows
                .rows
                .first()
                .and_then(|row| row.get("count"))
                .and_then(Value::as_int)
                .unwrap_or_default();
            return Ok(Fingerprint {
                rows: u64::try_from(count).unwrap_or_default(),
                sha256: None,
            });
        }
        let key = sqlx::query(
            "SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY array_position(i.indkey::int2[], a.attnum)) \
             FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
             WHERE i.indrelid = to_regclass($1) AND i.indisprimary",
        )
        .bind(&name)
        .persistent(false)
        .fetch_one(&mut self.connection)
        .await
        .map_err(|error| errors::failure(&error))?
        .try_get::<Option<String>, _>(0)
        .unwrap_or_default();
        // Without a key, the whole row is the order; equal rows are alike.
        let order = key.unwrap_or_else(|| "t::text COLLATE \"C\"".to_owned());
        let bound = Bound::plain("SELECT", format!("SELECT * FROM {name} t ORDER BY {order}"));
        let (mut hasher, mut count) = (Sha256::new(), 0_u64);
        self.cursor(&Typed::plain(bound.sql), until, |rows| {
            for row in rows {
                if count == 0 {
                    values::digest_columns(&mut hasher, row);
                }
                values::digest_row(&mut hasher, row)?;
                count += 1;
            }
            Ok(true)
        })
        .await?;
        Ok(Fingerprint {
            rows: count,
            sha256: Some(hex::encode(hasher.finalize())),
        })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.to_std().as_millis())
        .unwrap_or(i64::MAX)
        .clamp(1, i64::from(i32::MAX))
}

/// Ends what a backend does.
async fn end(pid: Option<i32>, target: &Target, options: &PgConnectOptions) -> Result<(), Failure> {
    let Some(pid) = pid else {
        return Ok(());
    };
    let mut beside = connect::connect(target, options).await?;
    let told = sqlx::query("SELECT pg_cancel_backend($1)")
        .bind(pid)
        .persistent(false)
        .execute(&mut beside)
        .await;
    connect::close(beside).await;
    told.map(drop).map_err(|error| errors::failure(&error))
}

/// Who holds what a backend waits for, in words.
async fn who_blocks(
    pid: i32,
    target: &Target,
    options: &PgConnectOptions,
) -> Result<Option<String>, Failure> {
    let mut beside = connect::connect(target, options).await?;
    let row = sqlx::query(
        "SELECT string_agg(format('pid %s (%s, %s, %s since %s): %s', a.pid, coalesce(a.usename, '-'), \
            coalesce(nullif(a.application_name, ''), '-'), coalesce(a.state, '-'), \
            to_char(coalesce(a.xact_start, a.state_change), 'HH24:MI:SS'), left(regexp_replace(a.query, '\\s+', ' ', 'g'), 120)), '; ') \
         FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids($1))",
    )
    .bind(pid)
    .persistent(false)
    .fetch_one(&mut beside)
    .await;
    connect::close(beside).await;
    row.map_err(|error| errors::failure(&error))
        .map(|row| row.try_get(0).unwrap_or_default())
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
                let limits = format!(
                    "SET statement_timeout = {}; SET lock_timeout = {}; SET standard_conforming_strings = on; SELECT pg_backend_pid()",
                    millis(until.left()),
                    millis(until.lock_timeout)
                );
                let rows = self.simple(limits).await.map_err(|e| errors::failure(&e))?;
                self.pid = rows
                    .last()
                    .and_then(|row| row.try_get_raw(0).ok())
                    .and_then(|value| value.as_str().ok())
                    .and_then(|text| text.parse().ok());
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

    fn mark<'a>(&'a mut self, _: &'a Until) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async move {
            let mark = doubt::mark(&mut self.connection)
                .await
                .map_err(|error| errors::failure(&error))?;
            let mut beside = self.beside().await?;
            let flushed = doubt::flush(&mut beside).await;
            connect::close(beside).await;
            flushed.map_err(|error| errors::failure(&error))?;
            Ok(mark)
        })
    }

    fn commit<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            self.in_transaction = false;
            tokio::select! {
                done = sqlx::raw_sql("COMMIT").execute(&mut self.connection) => {
                    done.map(drop).map_err(|error| errors::of_commit(&error))
                }
                // Ending a COMMIT decides nothing: it may be through already.
                cause = until.over() => Err(Until::ended(cause).certainty(Certainty::Unknown)),
            }
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
                "SELECT state FROM {} WHERE run = $1 AND node = $2 AND phase = $3 AND attempt = $4",
                table_name(table)
            );
            let row = sqlx::query(AssertSqlSafe(sql))
                .bind(&key.run)
                .bind(&key.node)
                .bind(key.phase)
                .bind(i64::from(key.attempt))
                .persistent(false)
                .fetch_optional(&mut self.connection)
                .await
                .map_err(|error| ledger_failure(&error, table))?;
            let state: Option<String> = row.and_then(|row| row.try_get(0).ok());
            match state.as_deref() {
                None => Ok(LedgerState::Absent),
                Some("done") => Ok(LedgerState::Done),
                Some("void") => Ok(LedgerState::Void),
                Some(other) => Err(Failure::new(
                    "sql.ledger",
                    format!(
                        "the ledger {table} holds the state {other:?}, which this windlass does not know"
                    ),
                )),
            }
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
                LedgerState::Done | LedgerState::Absent => "done",
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
                .execute(&mut self.connection)
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

    fn tables<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            let sql = "SELECT CASE WHEN n.nspname = current_schema() THEN c.relname ELSE n.nspname || '.' || c.relname END AS name \
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

impl PostgresSession {
    async fn explained(&mut self, bound: &Bound, until: &Until) -> Result<Vec<String>, Failure> {
        let mut lines = locks::lines(&mut self.connection, &bound.sql).await?;
        let plans = matches!(
            bound.shape.verb.as_str(),
            "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "VALUES"
        );
        if !plans {
            return Ok(lines);
        }
        let typed = self.typed(bound, until).await?;
        let sql = format!("EXPLAIN {}", typed.sql);
        let rows = self
            .work(until, async move |connection| {
                sqlx::query_with(AssertSqlSafe(sql), typed.arguments())
                    .persistent(false)
                    .fetch_all(connection)
                    .await
            })
            .await?;
        lines.extend(
            rows.iter()
                .filter_map(|row| row.try_get::<String, _>(0).ok()),
        );
        Ok(lines)
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
