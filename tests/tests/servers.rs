//! The servers of the tests themselves: they start, fail, come back, and leave nothing behind.
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use windlass_tests::servers::{
    Authority, holds_within, is_alive,
    pgbackrest::PgBackRest,
    pgbouncer::{PgBouncer, PoolMode},
    postgres::{Options, Postgres},
    until,
};

/// A server on its own: what is committed outlives a crash, what is not does not.
#[test]
fn a_server_crashes_and_comes_back() {
    let mut server = Postgres::start(&[]);
    server.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let mut open = server.session();
    open.ask("BEGIN");
    open.ask("INSERT INTO t VALUES (2)");
    assert_eq!(open.ask("SELECT count(*) FROM t"), "2");
    let backend = open.backend();

    server.crash();
    until("the backend ends with its server", || !is_alive(backend));
    assert!(server.try_psql("SELECT 1").is_err());
    server.start_again();
    assert_eq!(server.ask("SELECT count(*) FROM t"), "1");
    assert!(server.log().contains("was interrupted"), "{}", server.log());

    server.stop_immediate();
    server.start_again();
    server.stop();
    server.start_again();
    assert_eq!(server.ask("SELECT count(*) FROM t"), "1");
    let error = server.try_psql("SELECT nothing").unwrap_err();
    assert!(
        error.contains("column \"nothing\" does not exist"),
        "{error}"
    );

    let (pid, folder) = (server.pid(), server.data().to_owned());
    drop(server);
    assert!(!is_alive(pid) && !folder.exists());
}

/// Two servers are two; a standby is its primary's twin, and can take over.
#[test]
fn a_standby_follows_and_is_promoted() {
    let identity = "SELECT system_identifier FROM pg_control_system()";
    let mut primary = Postgres::start(&[]);
    let other = Postgres::start(&[]);
    assert_ne!(primary.ask(identity), other.ask(identity));
    drop(other);

    let standby = primary.standby(&[]);
    assert_eq!(primary.ask(identity), standby.ask(identity));
    primary.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    primary.wait_for(&standby);
    assert_eq!(standby.ask("SELECT count(*) FROM t"), "1");
    assert!(standby.in_recovery());

    // A COMMIT that waits for a standby which does not listen is visible to nobody.
    primary.sync_standby(true);
    let mut waiting = primary.session();
    waiting.ask("SET synchronous_commit = remote_apply");
    standby.pause_replay(true);
    waiting.send("INSERT INTO t VALUES (2)");
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    until("the commit waits", || primary.ask(waits) == "1");
    assert_eq!(
        primary.ask("SET synchronous_commit = local; SELECT count(*) FROM t"),
        "1"
    );
    standby.pause_replay(false);
    assert_eq!(waiting.answer(), "");
    primary.sync_standby(false);

    primary.crash();
    standby.promote();
    assert!(!standby.in_recovery());
    standby.psql("INSERT INTO t VALUES (3)");
    assert_eq!(standby.ask("SELECT count(*) FROM t"), "3");
}

#[test]
fn who_connects_may_be_asked_for_tls_and_a_password() {
    let authority = Arc::new(Authority::new());
    let server = Postgres::start(Options::default().scram().tls(&authority));
    let psql = |url: String| {
        let output = Command::new(windlass_tests::servers::program(
            "psql",
            "postgresql-client",
        ))
        .args([
            "-X",
            "-A",
            "-t",
            "-c",
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        ])
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(error),
        }
    };
    let url = server.url("postgres");
    let verified = format!(
        "{url}?sslmode=verify-full&sslrootcert={}",
        authority.certificate().display()
    );
    assert_eq!(psql(verified), Ok("t".to_owned()));
    let stranger = Authority::new();
    let untrusted = format!(
        "{url}?sslmode=verify-full&sslrootcert={}",
        stranger.certificate().display()
    );
    assert!(
        psql(untrusted)
            .unwrap_err()
            .contains("certificate verify failed")
    );
    assert!(
        psql(format!("{url}?sslmode=disable"))
            .unwrap_err()
            .contains("no pg_hba.conf entry")
    );
    let wrong = url.replace("%20tests", "");
    assert!(
        psql(wrong)
            .unwrap_err()
            .contains("password authentication failed")
    );
}

#[test]
fn pgbouncer_stands_in_between() {
    let server = Postgres::start(&[]);
    let pool = PgBouncer::start(&server, PoolMode::Transaction);
    let output = Command::new(windlass_tests::servers::program(
        "psql",
        "postgresql-client",
    ))
    .args([
        "-X",
        "-A",
        "-t",
        "-c",
        "SELECT inet_client_port(), current_setting('port')",
    ])
    .arg(pool.url("postgres"))
    .output()
    .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.trim().ends_with(&format!("|{}", server.port())),
        "{text}{}",
        pool.log()
    );
}

#[test]
fn pgbackrest_restores_to_a_moment() {
    let mut server = Postgres::start(&[]);
    server.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let repository = PgBackRest::start(&mut server);
    repository.backup();
    server.psql("INSERT INTO t VALUES (2)");
    let moment = server.ask("SELECT clock_timestamp()");
    server.psql("DROP TABLE t");
    server.psql("SELECT pg_switch_wal()");
    let restored = repository.restore(&server, "restored", &moment);
    assert_eq!(restored.ask("SELECT count(*) FROM t"), "2");
    assert!(server.try_psql("SELECT count(*) FROM t").is_err());
}

const ORPHAN: &str = "WINDLASS_TEST_STARTS_A_SERVER_TO_BE_LEFT_BEHIND";

/// A process that is killed cannot clean up; its server ends nevertheless.
#[test]
fn a_server_ends_with_a_killed_process() {
    if std::env::var_os(ORPHAN).is_some() {
        let server = Postgres::start(&[]);
        println!("server {} in {}", server.pid(), server.data().display());
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_server_ends_with_a_killed_process",
            "--nocapture",
        ])
        .env(ORPHAN, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.split_once("server ").map(|(_, rest)| rest.to_owned()))
        .unwrap();
    let (pid, data) = line.split_once(" in ").unwrap();
    let pid: u32 = pid.parse().unwrap();
    assert!(is_alive(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        holds_within(Duration::from_secs(10), || !is_alive(pid)),
        "{pid} goes on"
    );
    // Nobody was left to do this.
    let folder = std::path::Path::new(data).parent().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}
