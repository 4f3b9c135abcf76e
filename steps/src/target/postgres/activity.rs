//! What a server does for a run at this moment, and who holds it up.
use super::{super::session_name, connect, errors};
use sqlx::{AssertSqlSafe, Row};
use windlass_engine::{
    step::{Activity, Blocker, Failure, Target},
    value::Duration,
};

/// The longest name of an application that the server keeps.
pub(super) const LONGEST_NAME: usize = 63;

/// The sessions that bear the run's id.
pub(super) async fn of_run(
    target: &Target,
    url: &str,
    short_id: &str,
) -> Result<Vec<Activity>, Failure> {
    let options = connect::options(target, url, "windlass show")?;
    let mut connection = connect::connect(target, &options).await?;
    let prefix = session_name(short_id, "");
    let longest = prefix.len();
    let prefix = format!("'{}'", prefix.replace('\'', "''"));
    let sql = format!(
        "SELECT a.pid, substr(a.application_name, length({prefix}) + 1), coalesce(a.state, 'hidden'), \
           coalesce(a.wait_event_type || ' ' || a.wait_event, ''), \
           (extract(epoch FROM clock_timestamp() - a.query_start) * 1000)::bigint, \
           left(regexp_replace(a.query, '\\s+', ' ', 'g'), 200), \
           b.pid, coalesce(b.usename::text, '-'), coalesce(nullif(b.application_name, ''), '-'), \
           coalesce(host(b.client_addr), 'local'), coalesce(b.state, '-'), \
           (extract(epoch FROM clock_timestamp() - b.xact_start) * 1000)::bigint, \
           left(regexp_replace(b.query, '\\s+', ' ', 'g'), 200) \
         FROM pg_stat_activity a \
         LEFT JOIN LATERAL (SELECT * FROM pg_stat_activity o WHERE o.pid = ANY (pg_blocking_pids(a.pid))) b ON true \
         WHERE starts_with(a.application_name, {prefix}) AND a.pid <> pg_backend_pid() \
         ORDER BY a.pid, b.xact_start"
    );
    // By the simple protocol, which a pooler gives to one process.
    let rows = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_all(&mut connection)
        .await;
    connect::close(connection).await;
    let rows = rows.map_err(|error| errors::failure(&error))?;
    let mut all: Vec<Activity> = Vec::new();
    for row in &rows {
        let text = |at: usize| {
            row.try_get::<Option<String>, _>(at)
                .ok()
                .flatten()
                .unwrap_or_default()
        };
        let span = |at: usize| {
            let ms = row.try_get::<Option<i64>, _>(at).ok().flatten();
            Duration::from_millis(ms.unwrap_or_default().max(0))
        };
        let pid: i32 = row.try_get(0).unwrap_or_default();
        let session = format!("backend {pid}");
        if all.last().is_none_or(|last| last.session != session) {
            all.push(Activity {
                node: text(1),
                is_cut: longest + text(1).len() >= LONGEST_NAME,
                session,
                state: text(2),
                waits_for: Some(text(3)).filter(|wait| !wait.is_empty()),
                since: span(4),
                statement: text(5),
                blockers: Vec::new(),
            });
        }
        if let (Some(activity), Ok(Some(pid))) = (all.last_mut(), row.try_get::<Option<i32>, _>(6))
        {
            activity.blockers.push(Blocker {
                session: format!("backend {pid}"),
                who: format!("{} ({}) from {}", text(7), text(8), text(9)),
                state: text(10),
                since: span(11),
                statement: text(12),
                end: format!("SELECT pg_terminate_backend({pid})"),
            });
        }
    }
    Ok(all)
}
