//! The table of what steps printed.
use super::{open::store_error, read::Reader, writer::Writer};
use crate::journal::{JournalError, Printed, PrintedOf, PrintedSize, Prints};
use rusqlite::{Connection, Row, params, types::Type};
use serde::{Serialize, de::DeserializeOwned};

/// Made beside the schema, also in a journal of before, which a windlass of before goes on reading.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS printed (
  run_no INTEGER NOT NULL,
  no INTEGER NOT NULL,
  at TEXT NOT NULL,
  node TEXT NOT NULL,
  phase TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  stream TEXT NOT NULL,
  cut INTEGER NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (run_no, no)
) STRICT, WITHOUT ROWID;
";

/// The word of an enumeration.
fn word(of: &impl Serialize) -> String {
    match serde_json::to_value(of) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(_) | Err(_) => String::new(),
    }
}

fn read_word<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let word: String = row.get(at)?;
    serde_json::from_value(serde_json::Value::String(word))
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, error.into()))
}

impl Writer {
    pub(super) fn print(
        &self,
        run: &str,
        (epoch, no): (u64, i64),
        prints: &Prints,
    ) -> rusqlite::Result<Result<(), JournalError>> {
        let mut lease = self
            .conn
            .prepare_cached("SELECT 1 FROM leases WHERE run_no = ?1 AND epoch = ?2")?;
        if !lease.exists(params![no, epoch])? {
            let run = run.to_owned();
            return Ok(Err(JournalError::LeaseLost { run }));
        }
        let mut forget = self
            .conn
            .prepare_cached("DELETE FROM printed WHERE run_no = ?1 AND no = ?2")?;
        for place in &prints.forget {
            forget.execute(params![no, place])?;
        }
        let mut keep = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO printed (run_no, no, at, node, phase, attempt, stream, cut, text)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for one in &prints.keep {
            keep.execute(params![
                no,
                one.no,
                one.at.to_string(),
                one.node,
                word(&one.phase),
                one.attempt,
                word(&one.stream),
                one.cut,
                one.text,
            ])?;
        }
        Ok(Ok(()))
    }
}

/// Whether the table is there: a journal of before that may only be read has none.
fn is_there(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'printed'")?
        .exists([])
}

impl Reader<'_> {
    pub(super) fn printed(&self, run: &str, of: &PrintedOf) -> Result<Vec<Printed>, JournalError> {
        let no = self.number(run)?;
        let read = || {
            if !is_there(self.conn)? {
                return Ok(Vec::new());
            }
            // Bound, not put into the text: the only difference is the order.
            let order = if of.newest { "DESC" } else { "ASC" };
            let mut select = self.conn.prepare_cached(&format!(
                "SELECT no, at, node, phase, attempt, stream, cut, text FROM printed
                 WHERE run_no = ?1 AND no > ?2
                 AND (?3 IS NULL OR node = ?3 OR substr(node, 1, length(?3) + 1) IN (?3 || '/', ?3 || '['))
                 ORDER BY no {order} LIMIT ?4"
            ))?;
            let rows = select.query_map(params![no, of.after, of.step, of.most], |row| {
                let at: String = row.get(1)?;
                Ok(Printed {
                    no: row.get(0)?,
                    at: at.parse().map_err(|error: jiff::Error| {
                        rusqlite::Error::FromSqlConversionFailure(1, Type::Text, error.into())
                    })?,
                    node: row.get(2)?,
                    phase: read_word(row, 3)?,
                    attempt: row.get(4)?,
                    stream: read_word(row, 5)?,
                    cut: row.get(6)?,
                    text: row.get(7)?,
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<Printed>>>()
        };
        let mut found = read().map_err(|error| store_error(self.path, &error))?;
        if of.newest {
            found.reverse();
        }
        Ok(found)
    }

    pub(super) fn printed_size(&self, run: &str) -> Result<PrintedSize, JournalError> {
        let no = self.number(run)?;
        let read = || {
            if !is_there(self.conn)? {
                return Ok(PrintedSize::default());
            }
            let mut select = self.conn.prepare_cached(
                "SELECT coalesce(max(no), 0), coalesce(sum(length(CAST(text AS BLOB))), 0) FROM printed WHERE run_no = ?1",
            )?;
            select.query_row([no], |row| {
                Ok(PrintedSize {
                    last: row.get(0)?,
                    bytes: row.get(1)?,
                })
            })
        };
        read().map_err(|error| store_error(self.path, &error))
    }
}
