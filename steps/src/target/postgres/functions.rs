//! Functions that act although a transaction only reads.
use crate::sql::lex::{self, Dialect, Kind};
use sqlx::{PgConnection, Row};
use std::collections::BTreeSet;
use windlass_engine::step::{Cause, Failure};

/// Volatile functions of the server, or of an extension, that only read or only wait. Every other volatile function is
/// refused in a query.
const READS: &[&str] = &[
    "clock_timestamp",
    "currval",
    "gen_random_uuid",
    "lastval",
    "pg_available_wal_summaries",
    "pg_blocking_pids",
    "pg_control_checkpoint",
    "pg_control_init",
    "pg_control_recovery",
    "pg_control_system",
    "pg_current_logfile",
    "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn",
    "pg_current_wal_lsn",
    "pg_database_size",
    "pg_get_replication_slots",
    "pg_get_wal_replay_pause_state",
    "pg_hba_file_rules",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_is_wal_replay_paused",
    "pg_isolation_test_session_is_blocked",
    "pg_last_committed_xact",
    "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn",
    "pg_last_xact_replay_timestamp",
    "pg_lock_status",
    "pg_ls_archive_statusdir",
    "pg_ls_dir",
    "pg_ls_logdir",
    "pg_ls_tmpdir",
    "pg_ls_waldir",
    "pg_notification_queue_usage",
    "pg_prepared_xact",
    "pg_relation_size",
    "pg_safe_snapshot_blocking_pids",
    "pg_show_all_file_settings",
    "pg_show_replication_origin_status",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_stat_file",
    "pg_stat_statements",
    "pg_stat_statements_info",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_timezone_names",
    "pg_total_relation_size",
    "pg_walfile_name",
    "pg_walfile_name_offset",
    "pg_xact_commit_timestamp",
    "pg_xact_status",
    "random",
    "random_normal",
    "timeofday",
    "txid_status",
];

/// All of these only show counters.
const READING_PREFIX: &str = "pg_stat_get_";

/// The names of functions that SQL calls, as the server folds them; `None` where they cannot be told.
pub(super) fn called(sql: &str) -> Option<BTreeSet<String>> {
    let tokens = lex::tokens(sql, Dialect::POSTGRES).ok()?;
    let solid: Vec<_> = tokens
        .iter()
        .filter(|token| token.kind != Kind::Blank)
        .collect();
    // `U&"pg_prom\006fte"` is a name too.
    let escaped = solid.windows(3).any(|three| {
        matches!(three, [u, and, name]
            if u.text.eq_ignore_ascii_case("u") && and.text == "&" && name.kind == Kind::Quoted)
    });
    if escaped {
        return None;
    }
    let names = solid.windows(2).filter_map(|pair| match pair {
        [name, open] if open.kind == Kind::Open => match name.kind {
            Kind::Word => Some(name.text.to_lowercase()),
            Kind::Quoted => name
                .text
                .strip_prefix('"')
                .and_then(|text| text.strip_suffix('"'))
                .map(|text| text.replace("\"\"", "\"")),
            _ => None,
        },
        _ => None,
    });
    Some(names.collect())
}

/// Whether a statement that writes gives rows; also where that cannot be told.
pub(super) fn returns(sql: &str) -> bool {
    lex::tokens(sql, Dialect::POSTGRES).map_or(true, |tokens| {
        tokens
            .iter()
            .any(|token| token.kind == Kind::Word && token.text.eq_ignore_ascii_case("returning"))
    })
}

/// What a statement begins with that the server plans.
const QUERIES: [&str; 8] = [
    "SELECT", "VALUES", "WITH", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE",
];

fn begins_query(tokens: &[lex::Token<'_>]) -> bool {
    tokens
        .iter()
        .find(|token| token.kind != Kind::Blank)
        .is_some_and(|token| {
            token.kind == Kind::Open
                || QUERIES
                    .iter()
                    .any(|word| token.text.eq_ignore_ascii_case(word))
        })
}

/// The part of a query that the server plans: all of it, what `EXPLAIN` explains, and nothing of `SHOW`.
pub(super) fn planned_part(sql: &str) -> Option<&str> {
    let tokens = lex::tokens(sql, Dialect::POSTGRES).ok()?;
    let mut at = 0;
    let mut depth = 0_usize;
    for (number, token) in tokens.iter().enumerate() {
        match token.kind {
            // `EXPLAIN (SELECT …)`, but `EXPLAIN (ANALYZE) SELECT …`.
            Kind::Open if depth == 0 && begins_query(tokens.get(number + 1..)?) => {
                return sql.get(at..);
            }
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Word if depth == 0 => {
                let word = token.text.to_ascii_uppercase();
                match word.as_str() {
                    "EXPLAIN" | "ANALYZE" | "ANALYSE" | "VERBOSE" => {}
                    word if QUERIES.contains(&word) => return sql.get(at..),
                    _ => return None,
                }
            }
            _ => {}
        }
        at += token.text.len();
    }
    None
}

/// The volatile ones among functions, but for those that are known to read only. A function of that name in a schema
/// of the user's own is not known.
pub(super) async fn acting(
    connection: &mut PgConnection,
    names: &BTreeSet<String>,
) -> Result<Option<String>, sqlx::Error> {
    if names.is_empty() {
        return Ok(None);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    sqlx::query(
        "SELECT string_agg(DISTINCT CASE n.nspname WHEN 'pg_catalog' THEN '' ELSE n.nspname || '.' END || p.proname, ', ') \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE p.proname::text = ANY ($1) \
           AND (p.provolatile = 'v' OR n.nspname = 'pg_catalog' AND p.proname ~ '^(table|schema|database|query|cursor)_to_xml' \
             OR EXISTS (SELECT 1 FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc f \
               ON f.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn) \
               WHERE a.aggfnoid = p.oid AND f.provolatile = 'v')) \
           AND NOT ((p.proname::text = ANY ($2) OR starts_with(p.proname::text, $3)) \
             AND (n.nspname = 'pg_catalog' OR EXISTS (SELECT 1 FROM pg_catalog.pg_depend d \
               WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')))",
    )
    .bind(names)
    .bind(READS)
    .bind(READING_PREFIX)
    .persistent(false)
    .fetch_one(connection)
    .await?
    .try_get(0)
}

/// What a query gets that calls something that acts.
pub(super) fn refused(names: &str) -> Failure {
    Failure::new(
        "sql.volatile",
        format!("a query may not call {names}: it acts, also where a transaction only reads"),
    )
    .cause(Cause::Refused)
    .help("where it is meant, make it a step that writes: sql.execute")
}

/// What a query gets whose functions cannot be told.
pub(super) fn unreadable() -> Failure {
    Failure::new(
        "sql.volatile",
        "it cannot be told which functions the query calls, so it may call one that acts",
    )
    .cause(Cause::Refused)
    .help("write names plainly or in double quotes, not as U&\"…\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order() {
        assert!(READS.is_sorted());
    }

    #[test]
    fn finds_what_is_called() {
        for (sql, names) in [
            ("SELECT PG_Promote()", vec!["pg_promote"]),
            (
                "SELECT pg_catalog.\"pg_promote\" (true)",
                vec!["pg_promote"],
            ),
            ("SELECT 'pg_promote()', $$pg_promote()$$ -- x()", vec![]),
            (
                "SELECT max(a) FROM f(1) WHERE b IN (1)",
                vec!["f", "in", "max"],
            ),
        ] {
            let found: Vec<String> = called(sql).unwrap().into_iter().collect();
            assert_eq!(found, names, "{sql}");
        }
        for (sql, part) in [
            ("SELECT 1", Some("SELECT 1")),
            (
                "/* x */ WITH a AS (SELECT 1) SELECT 2",
                Some("WITH a AS (SELECT 1) SELECT 2"),
            ),
            ("EXPLAIN (ANALYZE, BUFFERS) SELECT f()", Some("SELECT f()")),
            ("EXPLAIN ANALYZE ((SELECT f()))", Some("((SELECT f()))")),
            (
                "explain analyze verbose delete from t",
                Some("delete from t"),
            ),
            ("SHOW server_version", None),
            ("EXPLAIN EXECUTE x", None),
        ] {
            assert_eq!(planned_part(sql), part, "{sql}");
        }
        assert_eq!(
            called("SELECT u & \"pg_promote\"()"),
            None,
            "U& with blanks between"
        );
        assert_eq!(called("SELECT U&\"pg_prom\\006fte\"()"), None);
    }
}
