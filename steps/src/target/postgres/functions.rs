//! Functions that act although a transaction only reads.
use super::errors;
use crate::sql::lex::{self, Dialect, Kind};
use sqlx::{PgConnection, Row};
use windlass_engine::step::{Cause, Failure};

/// Volatile functions that only read or only wait. Every other volatile function is refused in a query.
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

fn is_read(name: &str) -> bool {
    READS.binary_search(&name).is_ok() || name.starts_with(READING_PREFIX)
}

/// The names that stand before a parenthesis, as the server folds them.
fn called(sql: &str) -> Vec<String> {
    let Ok(tokens) = lex::tokens(sql, Dialect::POSTGRES) else {
        return Vec::new();
    };
    let solid: Vec<_> = tokens
        .iter()
        .filter(|token| token.kind != Kind::Blank)
        .collect();
    let mut names: Vec<String> = solid
        .windows(2)
        .filter_map(|pair| match pair {
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
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Refuses functions that act: inside `BEGIN READ ONLY`, `pg_promote()` promotes and `pg_terminate_backend()` ends.
///
/// Seen are the functions that the statement itself calls, also in views of its own making; not those behind
/// operators, casts and views, of which the read-only transaction holds back what writes to tables.
pub(super) async fn refuse_acting(connection: &mut PgConnection, sql: &str) -> Result<(), Failure> {
    let suspects: Vec<String> = called(sql)
        .into_iter()
        .filter(|name| !is_read(name))
        .collect();
    if suspects.is_empty() {
        return Ok(());
    }
    let row = sqlx::query(
        "SELECT string_agg(DISTINCT proname::text, ', ' ORDER BY proname::text) FROM pg_proc \
         WHERE proname::text = ANY ($1) AND provolatile = 'v'",
    )
    .bind(&suspects)
    .persistent(false)
    .fetch_one(connection)
    .await
    .map_err(|error| errors::failure(&error))?;
    match row.try_get::<Option<String>, _>(0) {
        Ok(None) => Ok(()),
        Ok(Some(names)) => Err(Failure::new(
            "sql.volatile",
            format!("a query may not call {names}: it acts, also where a transaction only reads"),
        )
        .cause(Cause::Refused)
        .help("where it is meant, make it a step that writes: sql.execute")),
        Err(error) => Err(errors::failure(&error)),
    }
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
            assert_eq!(called(sql), names, "{sql}");
        }
        assert!(!is_read("pg_promote") && !is_read("nextval") && is_read("pg_relation_size"));
    }
}
