//! How runs begin, and what became of starts that were refused.
use super::{
    open::has_table,
    read::Reader,
    writer::{Create, Reply, Tried, Writer},
};
use crate::journal::{JournalError, Keyed, REFUSED_KEPT, RefusedStart, StartOf, record};
use rusqlite::{Connection, OptionalExtension, params};

impl Writer {
    /// Makes a run with its key, its locks and its lease. What refuses it is asked first; a lease that cannot be had after that
    /// takes the rest back.
    pub(super) fn create(&self, create: &Create) -> Tried<Reply> {
        if let Some(key) = &create.terms.key
            && let Some(first) = keyed(&self.conn, &key.key)?
        {
            return Ok(Ok(Reply::KeyUsed(first)));
        }
        if let Some((name, run)) = self.taken(&create.id, &create.terms.locks)? {
            return Ok(Ok(Reply::Taken { name, run }));
        }
        self.whole(|| self.make(create))
    }

    fn make(&self, create: &Create) -> Tried<Reply> {
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO runs (id, playbook, environment, \"by\", started_at, updated_at, state, head_seq, head_hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'running', ?7, ?8) ON CONFLICT (id) DO NOTHING",
        )?;
        let batch = &create.batch;
        let updated_at = batch.records.last().map_or(&create.started_at, |r| &r.at);
        let inserted = insert.execute(params![
            create.id,
            create.playbook,
            create.environment,
            create.by,
            create.started_at,
            updated_at,
            batch.last_seq(),
            batch.head,
        ])?;
        if inserted == 0 {
            return Ok(Err(JournalError::SequenceTaken {
                run: create.id.clone(),
                seq: 1,
            }));
        }
        let no = self.conn.last_insert_rowid();
        self.write(no, batch)?;
        if let Some(key) = &create.terms.key {
            let StartOf {
                playbook,
                inputs,
                place,
            } = &key.of;
            let mut insert = self.conn.prepare_cached(
                "INSERT INTO start_keys (key, run, playbook, inputs, place) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            insert.execute([&key.key, &create.id, playbook, inputs, place])?;
        }
        self.take(&create.id, &create.terms.locks)?;
        self.grant(&create.id, no, &create.holder, batch.last_seq(), batch.head)
    }

    /// The first of these locks that another run holds, and which.
    pub(super) fn taken(
        &self,
        run: &str,
        names: &[String],
    ) -> rusqlite::Result<Option<(String, String)>> {
        let mut holder = self.conn.prepare_cached(
            "SELECT run, state FROM locks JOIN runs ON id = run WHERE name = ?1 AND run <> ?2",
        )?;
        for name in names {
            let holder = holder.query_row([name.as_str(), run], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            });
            if let Some((holder, state)) = holder.optional()?
                && !record::is_over(&state)
            {
                return Ok(Some((name.clone(), holder)));
            }
        }
        Ok(None)
    }

    pub(super) fn take(&self, run: &str, names: &[String]) -> rusqlite::Result<()> {
        let mut take = self
            .conn
            .prepare_cached("INSERT OR REPLACE INTO locks (name, run) VALUES (?1, ?2)")?;
        for name in names {
            take.execute([name.as_str(), run])?;
        }
        Ok(())
    }

    pub(super) fn refuse(&self, body: &str) -> Tried<Reply> {
        self.conn
            .prepare_cached("INSERT INTO refused_starts (body) VALUES (?1)")?
            .execute([body])?;
        let last = self.conn.last_insert_rowid();
        let kept = i64::try_from(REFUSED_KEPT).unwrap_or(i64::MAX);
        self.conn
            .prepare_cached("DELETE FROM refused_starts WHERE no <= ?1")?
            .execute([last.saturating_sub(kept)])?;
        Ok(Ok(Reply::Done))
    }
}

fn keyed(conn: &Connection, key: &str) -> rusqlite::Result<Option<Keyed>> {
    let mut select =
        conn.prepare_cached("SELECT run, playbook, inputs, place FROM start_keys WHERE key = ?1")?;
    let first = select.query_row([key], |row| {
        Ok(Keyed {
            run: row.get(0)?,
            of: StartOf {
                playbook: row.get(1)?,
                inputs: row.get(2)?,
                place: row.get(3)?,
            },
        })
    });
    first.optional()
}

impl Reader<'_> {
    /// The run that a key started.
    pub(super) fn keyed(&self, key: &str) -> Result<Option<Keyed>, JournalError> {
        let read = || {
            if has_table(self.conn, "start_keys")? {
                keyed(self.conn, key)
            } else {
                Ok(None)
            }
        };
        read().map_err(|error| self.failed(&error))
    }

    /// The starts that were refused, newest first.
    pub(super) fn refused(&self) -> Result<Vec<RefusedStart>, JournalError> {
        let read = || {
            if !has_table(self.conn, "refused_starts")? {
                return Ok(Vec::new());
            }
            let mut select = self
                .conn
                .prepare_cached("SELECT body FROM refused_starts ORDER BY no DESC")?;
            let bodies = select.query_map([], |row| row.get(0))?;
            bodies.collect::<rusqlite::Result<Vec<String>>>()
        };
        let bodies = read().map_err(|error| self.failed(&error))?;
        let read = |body: &String| {
            serde_json::from_str(body).map_err(|error| {
                JournalError::Store(format!(
                    "{}: a refused start cannot be read: {error}",
                    self.path.display()
                ))
            })
        };
        bodies.iter().map(read).collect()
    }
}
