//! PostgreSQL, by its own protocol. Only `SET LOCAL` and no named statements, so that a pooler in between is no matter.
mod acting;
mod activity;
mod backend;
mod connect;
mod doctor;
mod doubt;
mod errors;
mod functions;
mod json;
mod libpq;
mod locking;
mod locks;
mod plan;
mod pool;
mod service;
mod session;
mod statement;
mod values;
mod words;

use super::{Access, Database, Session, Settled, Until, options, place};
use futures_util::future::BoxFuture;
use pool::{Pools, Source};
use session::PostgresSession;
use windlass_engine::{
    step::{
        Activity, Cause, Examination, Failure, Identity, LedgerRecipe, LedgerStanding,
        LeftSessions, Now, Revealed, Target, TargetKind,
    },
    value::{Duration, Value},
};

/// The keys that a target of this kind may have.
const KEYS: &[&str] = &[
    "statement_timeout",
    "lock_timeout",
    "connect_timeout",
    "pool",
    "tls",
    "ca_file",
    "client_cert",
    "client_key",
    "host",
    "port",
    "database",
    "login",
    "password",
];

/// The target kind `postgres`: one database of a server.
pub(crate) struct Postgres;

/// What is asked of a server to know it again.
const WHO: &str = "SELECT (SELECT system_identifier::text FROM pg_control_system()), pg_is_in_recovery(), \
    current_setting('server_version'), current_database()::text, \
    CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint()) \
         ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END";

/// Asks a server who it is.
async fn who(connection: &mut sqlx::PgConnection, place: &str) -> Result<Identity, Failure> {
    let row = sqlx::raw_sql(WHO)
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| errors::failure(&error))?;
    let text = |at: usize| values::text(&row, at);
    let role = match text(1).as_deref() {
        Some("t") => "standby",
        _ => "primary",
    };
    Ok(Identity {
        instance: format!("{place}/{}", text(3).unwrap_or_default()),
        system: text(0).filter(|system| !system.is_empty()),
        role: Some(role.to_owned()),
        timeline: text(4).and_then(|timeline| timeline.parse().ok()),
        version: format!("PostgreSQL {}", text(2).unwrap_or_default()),
    })
}

/// Whether a server has the role that the target asks for.
fn has_role(target: &Target, who: &Identity, place: &str) -> Result<(), Failure> {
    match (target.role.as_deref(), who.role.as_deref()) {
        (Some(wanted), Some(role)) if wanted != role => Err(Failure::new(
            "target.role",
            format!(
                "target {} must be the {wanted}, and {place} is a {role}",
                target.name
            ),
        )
        .cause(Cause::Refused)
        .help(
            "a failover may have happened; point the target at the server that has the role now",
        )),
        _ => Ok(()),
    }
}

/// Whether a server is the one that a step may act on.
fn admitted(target: &Target, who: &Identity, place: &str) -> Result<(), Failure> {
    has_role(target, who, place)?;
    if let Some(failure) = target
        .identity
        .as_ref()
        .and_then(|before| who.differs(&target.name, before))
    {
        return Err(failure);
    }
    if target.avoid.contains(&who.instance) {
        return Err(Failure::new(
            "target.never",
            format!(
                "target {} turned out to be {}, which `never` forbids",
                target.name, who.instance
            ),
        )
        .cause(Cause::Refused));
    }
    Ok(())
}

/// The columns of a ledger, in order.
const LEDGER_COLUMNS: [&str; 6] = ["run", "node", "phase", "attempt", "state", "at"];

/// The table that records which steps took effect.
fn ledger_ddl(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n  \
           run text NOT NULL,\n  node text NOT NULL,\n  phase text NOT NULL,\n  attempt bigint NOT NULL,\n  \
           state text NOT NULL,\n  at timestamptz NOT NULL,\n  PRIMARY KEY (run, node, phase, attempt)\n)",
        session::table_name(table)
    )
}

impl TargetKind for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn identify<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
    ) -> BoxFuture<'a, Result<Identity, Failure>> {
        Box::pin(async move {
            let options = connect::options(target, url, "windlass")?;
            let place = connect::place(&options);
            let mut connection = connect::connect(target, &options).await?;
            let who = who(&mut connection, &place).await;
            connect::close(connection).await;
            let who = who?;
            has_role(target, &who, &place)?;
            Ok(who)
        })
    }

    fn activity<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        short_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Activity>, Failure>> {
        Box::pin(async move {
            let password = target.options.get("password");
            let password = password.map(|password| Revealed::new(password.to_string()));
            let url = place::url(target, url, password.as_ref())?;
            activity::of_run(target, url.expose(), short_id).await
        })
    }

    fn end_sessions<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        left: LeftSessions<'a>,
    ) -> BoxFuture<'a, Result<usize, Failure>> {
        Box::pin(async move {
            let options = connect::options(target, url, "windlass resume")?;
            let mut connection = connect::connect(target, &options).await?;
            let ended = backend::end_sessions(&mut connection, left).await;
            connect::close(connection).await;
            ended
        })
    }

    fn examine<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        now: Now<'a>,
    ) -> BoxFuture<'a, Examination> {
        Box::pin(async move {
            let mut seen = Examination {
                ledger: match target.ledger {
                    Some(_) => LedgerStanding::Unknown,
                    None => LedgerStanding::NotNamed,
                },
                ..Examination::default()
            };
            let began = now();
            if let Err(failure) = look(target, url, &mut seen, began, now).await {
                seen.problem(failure);
            }
            seen
        })
    }

    fn ledger_recipe(&self, target: &Target) -> Option<LedgerRecipe> {
        let table = target.ledger.as_deref()?;
        Some(LedgerRecipe {
            ddl: ledger_ddl(table),
            rights: format!(
                "the user of the target needs SELECT and INSERT on {table}; who makes it needs CREATE in its schema"
            ),
        })
    }

    fn make_ledger<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let Some(table) = target.ledger.as_deref() else {
                return Err(Failure::new(
                    "target.no_ledger",
                    format!("the environment names no ledger for target {}", target.name),
                ));
            };
            let options = connect::options(target, url, "windlass doctor")?;
            let mut connection = connect::connect(target, &options).await?;
            let made = sqlx::raw_sql(sqlx::AssertSqlSafe(ledger_ddl(table)))
                .execute(&mut connection)
                .await;
            connect::close(connection).await;
            made.map(drop).map_err(|error| errors::failure(&error))
        })
    }
}

/// All that can be learned of a server, as far as it lets itself be asked.
async fn look(
    target: &Target,
    url: &str,
    seen: &mut Examination,
    began: windlass_engine::value::Timestamp,
    now: Now<'_>,
) -> Result<(), Failure> {
    let options = connect::options(target, url, "windlass doctor")?;
    let place = connect::place(&options);
    let mut connection = connect::connect(target, &options).await?;
    let who = who(&mut connection, &place).await?;
    has_role(target, &who, &place)?;
    seen.identity = Some(who);
    seen.latency = Some(Duration::between(began, now()));
    let ledger = target.ledger.as_deref().map(session::table_name);
    let ledger = ledger.as_deref().map(|name| (name, &LEDGER_COLUMNS[..]));
    let verified = connect::is_verified(target);
    let looked = doctor::look(&mut connection, target, ledger, verified, seen).await;
    connect::close(connection).await;
    if options.get_socket().is_some() {
        seen.tls = None;
    }
    looked.map_err(|error| errors::failure(&error))
}

impl Database for Postgres {
    fn open<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        access: Access,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, Failure>> {
        Box::pin(async move {
            let options = connect::options(target, url, "windlass")?;
            let source = Source::new(target, url, options, until)?;
            let held = source.take(until).await?;
            let session = PostgresSession::new(held, source, access, until.who.clone());
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }

    fn exists(&self, _: &Target, _: &str) -> Result<bool, Failure> {
        Ok(true)
    }

    fn close_unused(&self, until: &Until) {
        until.resources().get::<Pools>().close_unused();
    }

    fn client_environment(
        &self,
        target: &Target,
        url: &str,
    ) -> Result<Vec<(&'static str, Revealed)>, Failure> {
        libpq::environment(target, url)
    }

    fn settle<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        token: &'a Value,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Settled, Failure>> {
        Box::pin(async move {
            let options = connect::options(target, url, &until.who)?;
            let mut connection = connect::connect(target, &options).await?;
            let settled = doubt::settle(&mut connection, token, until).await;
            connect::close(connection).await;
            settled
        })
    }

    fn end_left<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        token: &'a Value,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let options = connect::options(target, url, &until.who)?;
            let mut connection = connect::connect(target, &options).await?;
            let ended = backend::end_left(&mut connection, token, until).await;
            connect::close(connection).await;
            ended
        })
    }

    fn lock_timeout(&self, target: &Target) -> Result<Duration, Failure> {
        options::lock_timeout(target)
    }
}
