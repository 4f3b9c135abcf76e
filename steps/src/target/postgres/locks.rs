//! Which lock a statement takes, on what, and who stands in its way now.
use super::{
    errors,
    locking::{Locking, locking},
};
use sqlx::{PgConnection, Row};
use windlass_engine::{step::Failure, value::Size};

/// For each table: the lock, the table's size, what is done to it, and who holds a lock in the way now.
pub(super) async fn lines(
    connection: &mut PgConnection,
    sql: &str,
) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for locking in locking(sql) {
        of_table(&mut *connection, &locking, &mut lines).await?;
    }
    Ok(lines)
}

async fn of_table(
    connection: &mut PgConnection,
    locking: &Locking,
    lines: &mut Vec<String>,
) -> Result<(), Failure> {
    let Locking {
        lock,
        relation,
        work,
    } = locking;
    // A lock on an index is told as that on its table.
    let row = sqlx::query(
        "SELECT s.size, s.rows, \
           (SELECT string_agg(DISTINCT format('pid %s (%s, %s, %s) %s', a.pid, a.usename, \
               coalesce(nullif(a.application_name, ''), '-'), a.state, l.mode), '; ') \
            FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
            WHERE l.relation = c.oid AND l.granted AND l.pid <> pg_backend_pid() AND l.mode = ANY ($2)), \
           CASE WHEN i.indexrelid IS NOT NULL THEN c.oid::regclass::text END, \
           (SELECT count(*) FROM pg_inherits h WHERE h.inhparent = c.oid) \
         FROM (SELECT to_regclass($1) AS named) r \
         LEFT JOIN pg_index i ON i.indexrelid = r.named \
         JOIN pg_class c ON c.oid = coalesce(i.indrelid, r.named) \
         CROSS JOIN LATERAL ( \
           SELECT sum(pg_total_relation_size(p.oid))::bigint AS size, \
                  CASE WHEN bool_and(p.reltuples >= 0) THEN sum(p.reltuples)::bigint END AS rows \
           FROM pg_class p WHERE p.oid = c.oid AND c.relkind <> 'p' OR c.relkind = 'p' AND p.relkind <> 'p' \
             AND p.oid IN (SELECT relid FROM pg_partition_tree(c.oid))) s",
    )
    .bind(relation)
    .bind(lock.conflicts())
    .persistent(false)
    .fetch_optional(connection)
    .await
    .map_err(|error| errors::failure(&error))?;
    let table = row
        .as_ref()
        .and_then(|row| row.try_get::<Option<String>, _>(3).ok().flatten())
        .unwrap_or_else(|| relation.clone());
    let takes = format!("takes {} on {table}: {}", lock.name(), lock.meaning());
    if !lines.contains(&takes) {
        lines.push(takes);
    }
    lines.extend(work.map(str::to_owned));
    let Some(row) = row else {
        lines.push(format!("{relation} is not there now"));
        return Ok(());
    };
    let number = |at: usize| row.try_get::<Option<i64>, _>(at).ok().flatten();
    let size = Size(number(0).unwrap_or_default()).rounded();
    let has = match number(1) {
        Some(rows) => format!("{table} has {size} and about {rows} rows"),
        None => format!("{table} has {size}; how many rows is not known before ANALYZE"),
    };
    if !lines.contains(&has) {
        lines.push(has);
    }
    if let Some(heirs @ 1..) = number(4) {
        let heirs =
            format!("so are its {heirs} partitions or heirs, unless the statement says ONLY");
        if !lines.contains(&heirs) {
            lines.push(heirs);
        }
    }
    if let Ok(Some(holders)) = row.try_get::<Option<String>, _>(2) {
        let waits = format!("would wait now for {holders}");
        if !lines.contains(&waits) {
            lines.push(waits);
        }
    }
    Ok(())
}
