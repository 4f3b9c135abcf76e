//! What `windlass doctor` asks of a PostgreSQL server that it could connect to. Every question only reads.
use sqlx::{PgConnection, Row};
use windlass_engine::step::{Examination, Failure, LedgerStanding, Target};

/// One question for all that is about the user and the server.
const STANDING: &str = "SELECT current_user::text AS me, me.rolsuper AS superuser, pg_is_in_recovery() AS standby, \
  current_setting('transaction_read_only')::boolean AS read_only, \
  pg_has_role(current_user, 'pg_monitor', 'USAGE') AS monitors, \
  me.rolvaliduntil IS NOT NULL AND me.rolvaliduntil < now() + interval '14 days' AS expires, \
  me.rolvaliduntil::text AS valid_until, \
  (SELECT ssl.version FROM pg_stat_ssl ssl WHERE ssl.pid = pg_backend_pid() AND ssl.ssl) AS tls \
  FROM pg_catalog.pg_roles me WHERE me.rolname = current_user";

/// What the user may do with the tables of the database that are not the system's.
const TABLES: &str = "SELECT count(*) AS tables, \
  count(*) FILTER (WHERE has_table_privilege(c.oid, 'SELECT')) AS readable, \
  count(*) FILTER (WHERE has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE')) AS writable \
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
  WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'";

/// The ledger's columns, and what may be done with it.
const LEDGER: &str = "SELECT has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') AS usable, \
  (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_catalog.pg_attribute a \
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns \
  FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p') AND c.oid = to_regclass($1)";

/// Fills in what an open connection can tell, in a transaction, which a pooler gives to one process. `ledger` is the ledger's name, quoted as SQL, with its columns.
pub(super) async fn look(
    connection: &mut PgConnection,
    target: &Target,
    ledger: Option<(&str, &[&str])>,
    verified: bool,
    seen: &mut Examination,
) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    let looked = examine(connection, target, ledger, verified, seen).await;
    sqlx::raw_sql("ROLLBACK").execute(connection).await?;
    looked
}

async fn examine(
    connection: &mut PgConnection,
    target: &Target,
    ledger: Option<(&str, &[&str])>,
    verified: bool,
    seen: &mut Examination,
) -> Result<(), sqlx::Error> {
    let row = sqlx::query(STANDING)
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
    let me: String = row.try_get("me")?;
    let (superuser, standby): (bool, bool) = (row.try_get("superuser")?, row.try_get("standby")?);
    let read_only: bool = row.try_get("read_only")?;
    seen.tls = Some(match row.try_get::<Option<String>, _>("tls")? {
        None => "off".to_owned(),
        Some(version) if verified => format!("{version}, verified"),
        Some(version) => format!("{version}, not verified"),
    });
    if row.try_get("expires")? {
        let until: Option<String> = row.try_get("valid_until")?;
        seen.advice(
            Failure::new(
                "target.password_expires",
                format!(
                    "target {}: the password of {me} is valid until {}",
                    target.name,
                    until.unwrap_or_default()
                ),
            )
            .help("give it another one in time: sql.set_password, and ALTER ROLE … VALID UNTIL"),
        );
    }
    let monitors: bool = row.try_get("monitors")?;
    if !monitors && !superuser {
        seen.advice(
            Failure::new(
                "target.no_monitor",
                format!(
                    "target {}: {me} does not see what others run, nor the lag of a standby (NULL)",
                    target.name
                ),
            )
            .help(format!(
                "grant it, if steps look at that: GRANT pg_monitor TO {me}"
            )),
        );
    }
    let tables = sqlx::query(TABLES)
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
    let count = |name: &str| tables.try_get::<i64, _>(name);
    let (all, readable, writable) = (count("tables")?, count("readable")?, count("writable")?);
    seen.rights = Some(match (superuser, standby || read_only) {
        (true, false) => "superuser".to_owned(),
        (true, true) => "superuser, reads only".to_owned(),
        (false, true) => format!("reads {readable} of {all} tables"),
        (false, false) => format!("reads {readable}, writes {writable} of {all} tables"),
    });
    if all > 0 && readable == 0 {
        seen.advice(
            Failure::new(
                "target.rights",
                format!(
                    "target {}: {me} may read none of the {all} tables of this database",
                    target.name
                ),
            )
            .help(format!(
                "is it the right database? Else: GRANT pg_read_all_data TO {me}"
            )),
        );
    }
    seen.user = Some(me.clone());
    if let Some((name, columns)) = ledger {
        let found = sqlx::query(LEDGER)
            .bind(name)
            .persistent(false)
            .fetch_optional(&mut *connection)
            .await?;
        seen.ledger = match found {
            None => LedgerStanding::Missing,
            Some(row) => {
                let have: Vec<String> = row.try_get("columns")?;
                let usable: bool = row.try_get("usable")?;
                if have != columns {
                    LedgerStanding::Wrong
                } else {
                    if !usable {
                        seen.problem(
                            Failure::new(
                                "target.ledger_rights",
                                format!(
                                    "target {}: {me} may not read and write the ledger {name}",
                                    target.name
                                ),
                            )
                            .help(format!("GRANT SELECT, INSERT ON {name} TO {me}")),
                        );
                    }
                    LedgerStanding::Ready
                }
            }
        };
        standing(target, name, seen);
    }
    Ok(())
}

fn standing(target: &Target, name: &str, seen: &mut Examination) {
    let finding = |code: &str, what: &str| {
        Failure::new(code, format!("target {}: {name} {what}", target.name))
    };
    match seen.ledger {
        LedgerStanding::Missing => seen.problem(
            finding(
                "target.ledger_missing",
                "is named as the ledger and is not there, so steps that write would fail",
            )
            .help(format!(
                "`windlass doctor {} --init-ledger` shows how it is made, and makes it after asking",
                target.name
            )),
        ),
        LedgerStanding::Wrong => seen.problem(
            finding("target.ledger_wrong", "is there and is no ledger: its columns are others")
                .help("name another table as `ledger` in the environment"),
        ),
        LedgerStanding::NotNamed | LedgerStanding::Ready | LedgerStanding::Unknown => {}
    }
}
