//! Which lock a statement takes, on what, and who stands in its way now.
use super::errors;
use crate::sql::lex::{self, Dialect, Kind};
use sqlx::{PgConnection, Row};
use windlass_engine::{step::Failure, value::Size};

/// A table lock, weakest first, with its name in `pg_locks` and what it holds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lock {
    RowExclusive,
    ShareUpdateExclusive,
    Share,
    ShareRowExclusive,
    AccessExclusive,
}

impl Lock {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::RowExclusive => (
                "ROW EXCLUSIVE",
                "reads and writes go on, but for the rows it changes",
            ),
            Self::ShareUpdateExclusive => (
                "SHARE UPDATE EXCLUSIVE",
                "reads and writes go on; no other maintenance",
            ),
            Self::Share => ("SHARE", "reads go on, writes wait"),
            Self::ShareRowExclusive => ("SHARE ROW EXCLUSIVE", "reads go on, writes wait"),
            Self::AccessExclusive => ("ACCESS EXCLUSIVE", "reads and writes wait"),
        }
    }

    /// The locks of `pg_locks` that it conflicts with.
    fn conflicts(self) -> Vec<&'static str> {
        const ALL: [&str; 8] = [
            "AccessShareLock",
            "RowShareLock",
            "RowExclusiveLock",
            "ShareUpdateExclusiveLock",
            "ShareLock",
            "ShareRowExclusiveLock",
            "ExclusiveLock",
            "AccessExclusiveLock",
        ];
        let from = match self {
            Self::RowExclusive => 4,
            Self::ShareUpdateExclusive => 3,
            Self::Share | Self::ShareRowExclusive => 2,
            Self::AccessExclusive => 0,
        };
        let mut all: Vec<&str> = ALL.iter().skip(from).copied().collect();
        if self == Self::Share {
            all.retain(|mode| *mode != "ShareLock");
        }
        all
    }
}

/// What a statement locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Locking {
    pub(super) lock: Lock,
    /// As it is written.
    pub(super) table: String,
    /// What it does to the table meanwhile, where that takes long.
    pub(super) work: Option<&'static str>,
}

/// The words and names of a statement, words in capitals.
fn words(sql: &str) -> Vec<(String, bool)> {
    let tokens = lex::tokens(sql, Dialect::POSTGRES).unwrap_or_default();
    let mut all: Vec<(String, bool)> = Vec::new();
    let mut joined = false;
    for token in tokens.iter().filter(|token| token.kind != Kind::Blank) {
        if token.text == "." {
            if let Some((last, _)) = all.last_mut() {
                last.push('.');
                joined = true;
            }
            continue;
        }
        if joined && let Some((last, named)) = all.last_mut() {
            last.push_str(token.text);
            *named = true;
            joined = false;
            continue;
        }
        all.push((token.text.to_owned(), token.kind == Kind::Quoted));
    }
    all
}

/// Reads it from the words of the statement, as the manual tells it of each command.
pub(super) fn locking(sql: &str) -> Option<Locking> {
    let all = words(sql);
    let is = |at: usize, word: &str| {
        all.get(at)
            .is_some_and(|(text, quoted)| !quoted && text.eq_ignore_ascii_case(word))
    };
    let find = |word: &str| (0..all.len()).find(|at| is(*at, word));
    let has = |words: &[&str]| {
        (0..all.len()).any(|at| words.iter().enumerate().all(|(n, word)| is(at + n, word)))
    };
    let after = |mut at: usize| {
        while ["IF", "NOT", "EXISTS", "ONLY", "CONCURRENTLY", "TABLE"]
            .iter()
            .any(|word| is(at, word))
        {
            at += 1;
        }
        all.get(at).map(|(text, _)| text.clone())
    };
    let locking =
        |lock, table: Option<String>, work| table.map(|table| Locking { lock, table, work });
    if is(0, "ALTER") && is(1, "TABLE") {
        let table = after(2);
        let (lock, work) = if has(&["VALIDATE", "CONSTRAINT"]) {
            (Lock::ShareUpdateExclusive, Some("reads the whole table"))
        } else if has(&["FOREIGN", "KEY"]) || has(&["ADD", "CONSTRAINT"]) && has(&["REFERENCES"]) {
            let work = (!has(&["NOT", "VALID"]))
                .then_some("reads the whole table; NOT VALID and VALIDATE later do not hold it up");
            (Lock::ShareRowExclusive, work)
        } else if has(&["SET", "STATISTICS"]) || has(&["ATTACH", "PARTITION"]) {
            (Lock::ShareUpdateExclusive, None)
        } else if (0..all.len()).any(|at| is(at, "TYPE") && at > 2) {
            (
                Lock::AccessExclusive,
                Some("may rewrite the whole table and its indexes"),
            )
        } else if has(&["SET", "NOT", "NULL"]) {
            (
                Lock::AccessExclusive,
                Some("reads the whole table, unless a valid CHECK (… IS NOT NULL) proves it"),
            )
        } else if has(&["ADD", "CONSTRAINT"])
            && !has(&["NOT", "VALID"])
            && !has(&["USING", "INDEX"])
        {
            (
                Lock::AccessExclusive,
                Some("reads the whole table; NOT VALID and VALIDATE later do not hold it up"),
            )
        } else if has(&["ADD"]) && has(&["DEFAULT"]) {
            (
                Lock::AccessExclusive,
                Some("rewrites the whole table where the default is volatile"),
            )
        } else if has(&["SET", "TABLESPACE"])
            || has(&["SET", "LOGGED"])
            || has(&["SET", "UNLOGGED"])
        {
            (Lock::AccessExclusive, Some("rewrites the whole table"))
        } else {
            (Lock::AccessExclusive, None)
        };
        return locking(lock, table, work);
    }
    if is(0, "CREATE") && find("INDEX").is_some_and(|at| at <= 2) {
        let table = find("ON").and_then(|at| after(at + 1));
        return if has(&["CONCURRENTLY"]) {
            locking(
                Lock::ShareUpdateExclusive,
                table,
                Some("reads the whole table twice"),
            )
        } else {
            locking(
                Lock::Share,
                table,
                Some("reads the whole table; CONCURRENTLY lets writes go on"),
            )
        };
    }
    if is(0, "CREATE") && has(&["TRIGGER"]) {
        return locking(
            Lock::ShareRowExclusive,
            find("ON").and_then(|at| after(at + 1)),
            None,
        );
    }
    if is(0, "DROP") && is(1, "TABLE") {
        return locking(Lock::AccessExclusive, after(2), None);
    }
    if is(0, "TRUNCATE") {
        return locking(Lock::AccessExclusive, after(1), None);
    }
    if is(0, "VACUUM") || is(0, "ANALYZE") {
        let table = all.last().map(|(text, _)| text.clone());
        return if has(&["FULL"]) {
            locking(
                Lock::AccessExclusive,
                table,
                Some("rewrites the whole table"),
            )
        } else {
            locking(Lock::ShareUpdateExclusive, table, None)
        };
    }
    if is(0, "UPDATE") {
        return locking(Lock::RowExclusive, after(1), None);
    }
    if is(0, "DELETE") || is(0, "INSERT") || is(0, "MERGE") {
        return locking(Lock::RowExclusive, after(2), None);
    }
    None
}

/// The lock, the table's size, what it costs, and who holds a lock in its way now.
pub(super) async fn lines(
    connection: &mut PgConnection,
    sql: &str,
) -> Result<Vec<String>, Failure> {
    let Some(Locking { lock, table, work }) = locking(sql) else {
        return Ok(Vec::new());
    };
    let (name, meaning) = lock.words();
    let mut lines = vec![format!("takes {name} on {table}: {meaning}")];
    lines.extend(work.map(str::to_owned));
    let row = sqlx::query(
        "SELECT pg_total_relation_size(c.oid), greatest(c.reltuples, 0)::bigint, \
           (SELECT string_agg(DISTINCT format('pid %s (%s, %s, %s) %s', a.pid, a.usename, \
               coalesce(nullif(a.application_name, ''), '-'), a.state, l.mode), '; ') \
            FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
            WHERE l.relation = c.oid AND l.granted AND l.pid <> pg_backend_pid() AND l.mode = ANY ($2)) \
         FROM pg_class c WHERE c.oid = to_regclass($1)",
    )
    .bind(&table)
    .bind(lock.conflicts())
    .persistent(false)
    .fetch_optional(connection)
    .await
    .map_err(|error| errors::failure(&error))?;
    let Some(row) = row else {
        lines.push(format!("{table} is not there now"));
        return Ok(lines);
    };
    let (size, rows): (i64, i64) = (
        row.try_get(0).unwrap_or_default(),
        row.try_get(1).unwrap_or_default(),
    );
    lines.push(format!(
        "{table} has {} and about {rows} rows",
        Size(size).rounded()
    ));
    if let Ok(Some(holders)) = row.try_get::<Option<String>, _>(2) {
        lines.push(format!("would wait now for {holders}"));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_by_the_manual() {
        for (sql, lock, table, works) in [
            (
                "ALTER TABLE IF EXISTS ONLY app.orders ADD COLUMN c int",
                Lock::AccessExclusive,
                "app.orders",
                false,
            ),
            (
                "ALTER TABLE orders ALTER c TYPE bigint",
                Lock::AccessExclusive,
                "orders",
                true,
            ),
            (
                "alter table \"Or ders\" validate constraint c",
                Lock::ShareUpdateExclusive,
                "\"Or ders\"",
                true,
            ),
            (
                "ALTER TABLE o ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES b (a) NOT VALID",
                Lock::ShareRowExclusive,
                "o",
                false,
            ),
            ("CREATE INDEX i ON o (a)", Lock::Share, "o", true),
            (
                "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON o (a)",
                Lock::ShareUpdateExclusive,
                "o",
                true,
            ),
            ("DROP TABLE IF EXISTS o", Lock::AccessExclusive, "o", false),
            ("TRUNCATE TABLE o", Lock::AccessExclusive, "o", false),
            ("VACUUM (FULL, ANALYZE) o", Lock::AccessExclusive, "o", true),
            ("UPDATE o SET a = 1", Lock::RowExclusive, "o", false),
            (
                "DELETE FROM app.\"o\" WHERE a = 1",
                Lock::RowExclusive,
                "app.\"o\"",
                false,
            ),
        ] {
            let found = locking(sql).expect(sql);
            assert_eq!(
                (found.lock, found.table.as_str(), found.work.is_some()),
                (lock, table, works),
                "{sql}"
            );
        }
        assert_eq!(locking("SELECT 1"), None);
    }
}
