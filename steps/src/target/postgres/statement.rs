//! What a connection is asked: statements with their values, queries row by row, and how they would run.
use super::{
    errors, functions, locks,
    session::{PostgresSession, table_name},
    values::{self, Arrays, Typed},
};
use crate::{
    sql::params::Bound,
    target::{Affected, Fingerprint, Rows, Until},
};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Row, postgres::PgRow};
use windlass_engine::{
    step::{Cause, Failure},
    value::{Size, Value},
};

/// Rows that come at a time: few at first, more where they are small.
const FETCH: std::ops::RangeInclusive<usize> = 20..=1_000;
/// What may come at a time, in bytes.
const CHUNK: usize = 4 << 20;
/// How large an answer may be, in bytes: it is kept in the journal.
const LARGEST: usize = 64 << 20;
/// What the server is asked for the types of a statement's values by.
const TYPES: &str = "windlass_types";

/// Whether a statement only reads and writes rows. What does more may be about the session itself, a database or a login.
fn is_about_rows(verb: &str) -> bool {
    matches!(
        verb,
        "SELECT"
            | "VALUES"
            | "TABLE"
            | "SHOW"
            | "EXPLAIN"
            | "INSERT"
            | "UPDATE"
            | "DELETE"
            | "MERGE"
    )
}

fn too_large() -> Failure {
    Failure::new(
        "sql.result_too_large",
        format!(
            "the answer is larger than {}, and the journal keeps answers",
            Size(LARGEST as i64).rounded()
        ),
    )
    .cause(Cause::Refused)
    .help("ask for fewer rows or columns, or let the server count, sum and compare")
}

impl PostgresSession {
    /// The statement with its values typed as the server infers them: each goes as text and is read by the server.
    pub(super) async fn typed(&mut self, bound: &Bound, until: &Until) -> Result<Typed, Failure> {
        if bound.values.is_empty() {
            return Ok(Typed::plain(bound.sql.clone()));
        }
        if !is_about_rows(&bound.shape.verb) {
            return Err(Failure::new(
                "sql.parameter_type",
                format!(
                    "{} takes no values on PostgreSQL: only statements that read and write rows do",
                    bound.shape.verb
                ),
            )
            .help("write :'name' for a quoted literal, :\"name\" for an identifier"));
        }
        // EXPLAIN cannot be prepared; what it explains can.
        let sql = match bound.shape.verb.as_str() {
            "EXPLAIN" => functions::planned_part(&bound.sql).unwrap_or(&bound.sql),
            _ => &bound.sql,
        };
        self.prepared = Some(TYPES);
        let rows = self
            .work(until, async move |connection| {
                // In this transaction and by this name only; a pooler sees neither after it.
                let prepare = format!("PREPARE {TYPES} AS {sql}");
                sqlx::query(AssertSqlSafe(prepare))
                    .persistent(false)
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
            .map(|row| values::text(row, 0).unwrap_or_default())
            .collect();
        Typed::new(bound, &types)
    }

    pub(super) async fn statement(
        &mut self,
        bound: &Bound,
        max_rows: usize,
        until: &Until,
    ) -> Result<Affected, Failure> {
        use futures_util::TryStreamExt as _;
        if !is_about_rows(&bound.shape.verb) {
            self.is_spoiled = true;
            self.source.close_unused();
        }
        let typed = self.typed(bound, until).await?;
        let changes = matches!(
            bound.shape.verb.as_str(),
            "INSERT" | "UPDATE" | "DELETE" | "MERGE"
        );
        let returns = functions::returns(&bound.sql);
        if changes && !returns {
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
        let verb = bound.shape.verb.as_str();
        let reads = matches!(verb, "SELECT" | "VALUES" | "TABLE") && !bound.shape.into;
        if !changes && !reads && verb != "CALL" {
            return self.utility(typed, until).await;
        }
        // The extended protocol, which takes values and no more than one statement, gives rows in binary, and not every
        // type can be read from that. A procedure can be called in no other way.
        let (sql, in_one) = if verb == "CALL" {
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
                    if let Some(values) = values {
                        sqlx::query_with(values::SET, values)
                            .persistent(false)
                            .execute(&mut *connection)
                            .await?;
                    }
                    sqlx::query(AssertSqlSafe(prepare))
                        .persistent(false)
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
        self.learn(&rows, until).await?;
        let mut returned = values::rows(&rows, &self.arrays)?;
        returned.truncated = more;
        Ok(Affected {
            rows: if changes { count } else { 0 },
            last_insert_id: None,
            returned,
        })
    }

    /// A statement that defines or maintains; what it may answer with is text.
    async fn utility(&mut self, typed: Typed, until: &Until) -> Result<Affected, Failure> {
        let rows = self
            .work(until, async |connection| {
                typed.fetch(typed.sql.clone(), connection).await
            })
            .await?;
        self.learn(&rows, until).await?;
        Ok(Affected {
            returned: values::rows(&rows, &self.arrays)?,
            ..Affected::default()
        })
    }

    /// Rows by a cursor: all types as the server writes them, as many at a time as are needed.
    async fn cursor(
        &mut self,
        typed: &Typed,
        until: &Until,
        mut each: impl FnMut(&[PgRow], &Arrays) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let sql = format!("DECLARE windlass_rows NO SCROLL CURSOR FOR {}", typed.sql);
        self.work(until, async move |connection| {
            typed.fetch(sql, connection).await
        })
        .await?;
        let mut many = *FETCH.start();
        loop {
            let sql = format!("FETCH {many} FROM windlass_rows");
            let rows = self
                .work(until, async move |connection| {
                    sqlx::raw_sql(AssertSqlSafe(sql))
                        .fetch_all(connection)
                        .await
                })
                .await?;
            self.learn(&rows, until).await?;
            let last = rows.len() < many;
            if !each(&rows, &self.arrays)? || last {
                return Ok(());
            }
            many = if rows.iter().map(values::size).sum::<usize>() > CHUNK {
                (many / 2).max(1)
            } else {
                (many * 4).min(*FETCH.end())
            };
        }
    }

    async fn learn(&mut self, rows: &[PgRow], until: &Until) -> Result<(), Failure> {
        let Some(row) = rows.first() else {
            return Ok(());
        };
        let mut arrays = std::mem::take(&mut self.arrays);
        let learned = self
            .work(until, async |connection| {
                arrays.learn(row, connection).await
            })
            .await;
        self.arrays = arrays;
        learned
    }

    pub(super) async fn query(
        &mut self,
        bound: &Bound,
        max_rows: usize,
        until: &Until,
    ) -> Result<Rows, Failure> {
        let cursor = matches!(bound.shape.verb.as_str(), "SELECT" | "VALUES" | "TABLE");
        let simple = matches!(bound.shape.verb.as_str(), "SHOW" | "EXPLAIN");
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
        let mut size = 0;
        if cursor {
            self.cursor(&typed, until, |rows, arrays| {
                size += rows.iter().map(values::size).sum::<usize>();
                if size > LARGEST {
                    return Err(too_large());
                }
                let more = values::rows(rows, arrays)?;
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
                .work(until, async |connection| {
                    typed.fetch(typed.sql.clone(), connection).await
                })
                .await?;
            self.learn(&rows, until).await?;
            found = values::rows(&rows, &self.arrays)?;
            found.truncated = found.rows.len() > max_rows;
        }
        found.rows.truncate(max_rows);
        Ok(found)
    }

    pub(super) async fn fingerprint_of(
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
            "SELECT string_agg(quote_ident(a.attname) || CASE WHEN a.attcollation <> 0 THEN ' COLLATE \"C\"' ELSE '' END, ', ' \
               ORDER BY array_position(i.indkey::int2[], a.attnum)) \
             FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
             WHERE i.indrelid = to_regclass($1) AND i.indisprimary",
        )
        .bind(&name)
        .persistent(false)
        .fetch_one(self.connection())
        .await
        .map_err(|error| errors::failure(&error))?
        .try_get::<Option<String>, _>(0)
        .unwrap_or_default();
        // Without a key, the whole row is the order; equal rows are alike.
        let order = key.unwrap_or_else(|| "t::text COLLATE \"C\"".to_owned());
        let bound = Bound::plain("SELECT", format!("SELECT * FROM {name} t ORDER BY {order}"));
        let (mut hasher, mut count) = (Sha256::new(), 0_u64);
        self.cursor(&Typed::plain(bound.sql), until, |rows, _| {
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

    pub(super) async fn explained(
        &mut self,
        bound: &Bound,
        until: &Until,
    ) -> Result<Vec<String>, Failure> {
        let mut lines = locks::lines(self.connection(), &bound.sql).await?;
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
            .work(until, async |connection| typed.fetch(sql, connection).await)
            .await?;
        lines.extend(rows.iter().filter_map(|row| values::text(row, 0)));
        Ok(lines)
    }
}
