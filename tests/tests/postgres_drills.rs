//! The drills that ship, on real servers: backups that are proved by restoring them.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test; how long a process takes is measured from outside of it"
)]
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use windlass_tests::{
    drill::Drill,
    program::windlass as binary,
    servers::{
        free_port,
        pgbackrest::PgBackRest,
        postgres::{Options, Postgres},
        program,
    },
};

/// A shop with some rows, and a secret as its password.
fn shop(server: &Postgres) {
    server.psql("CREATE DATABASE shop");
    server.psql_in(
        "shop",
        "CREATE TABLE customers (id int PRIMARY KEY, email text UNIQUE NOT NULL);
         CREATE TABLE orders (id bigint PRIMARY KEY, customer int REFERENCES customers, total numeric(12, 2),
           created_at timestamptz NOT NULL DEFAULT now());
         INSERT INTO customers SELECT i, 'c' || i || '@example.com' FROM generate_series(1, 500) i;
         INSERT INTO orders SELECT i, 1 + i % 500, i * 1.07 FROM generate_series(1, 5000) i;
         ANALYZE",
    );
}

fn drill(server: &Postgres) -> Drill {
    let drill = Drill::new("backup-verify");
    let url = |database| {
        server.url(database).replace(
            "a%20password%20of%20the%20tests",
            "${{ secret(\"password\") }}",
        )
    };
    drill.environment(&format!(
        "    secrets:\n      password: {{ env: DRILL_PASSWORD }}\n    targets:\n      db: {{ url: '{}', tls: off }}\n      scratch_server: {{ url: '{}', tls: off }}\n",
        url("shop"),
        url("postgres")
    ));
    drill
}

fn databases(server: &Postgres) -> String {
    server.ask(
        "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database WHERE NOT datistemplate",
    )
}

fn dumps(folder: &Path) -> usize {
    std::fs::read_dir(folder)
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().ends_with(".dump")
        })
        .count()
}

#[test]
fn a_dump_is_proved_by_restoring_it_and_nothing_is_left() {
    let server = Postgres::start(Options::default().scram());
    shop(&server);
    let drill = drill(&server);
    let folder = drill.path().to_str().unwrap().to_owned();
    let folder_input = format!("folder={folder}");
    let inputs = [
        "--input",
        &folder_input,
        "--input",
        "newest_table=public.orders",
    ];

    let before = server.client("pg_dump").arg("shop").output().unwrap();
    let planned = drill.call("plan", &inputs).exits(0);
    assert!(planned.all.contains("pg_dump"), "{}", planned.all);
    assert_eq!(databases(&server), "postgres,shop", "a plan makes nothing");

    let told = drill.call("run", &inputs).exits(0);
    assert!(told.all.contains("tables = 2"), "{}", told.all);
    assert_eq!(databases(&server), "postgres,shop");
    assert_eq!(dumps(drill.path()), 0);
    let after = server.client("pg_dump").arg("shop").output().unwrap();
    let plain = |text: Vec<u8>| {
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.contains("restrict "))
            .collect();
        lines.join("\n")
    };
    assert_eq!(plain(before.stdout), plain(after.stdout));

    let report = drill.report();
    assert!(report.contains("Recovery point (RPO)"), "{report}");
    assert!(report.contains("2 tables are equal"), "{report}");
    assert!(!report.contains("password of the tests"), "{report}");

    // Data that is too old fails the drill, and leaves nothing either.
    let late = [&inputs[..], &["--input", "rpo=1ms"]].concat();
    let told = drill.call("run", &late).exits(1);
    assert!(told.all.contains("rpo"), "{}", told.all);
    assert_eq!(databases(&server), "postgres,shop");
    assert_eq!(dumps(drill.path()), 0);
}

#[test]
fn a_drill_that_is_killed_goes_on_and_leaves_nothing() {
    let server = Postgres::start(Options::default().scram());
    shop(&server);
    let drill = drill(&server);
    let folder_input = format!("folder={}", drill.path().display());
    let mut killed = 0;
    for at in [60, 180, 300, 450, 700] {
        let mut running = Command::new(binary())
            .args(["run", drill.playbook(), "--input", &folder_input])
            .current_dir(drill.path())
            .env("DRILL_PASSWORD", server.password().unwrap())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(at) && running.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if running.try_wait().unwrap().is_some() {
            continue;
        }
        running.kill().unwrap();
        running.wait().unwrap();
        killed += 1;
        let runs = drill.say(&["runs", "--json"]);
        if runs.all.contains("\"interrupted\"") {
            drill.say(&["resume", "last"]).exits(0);
        }
        assert_eq!(databases(&server), "postgres,shop", "killed after {at} ms");
        assert_eq!(dumps(drill.path()), 0, "killed after {at} ms");
    }
    assert!(killed > 1);
}

fn pitr(server: &Postgres, repository: &PgBackRest) -> (Drill, Vec<String>) {
    let drill = Drill::by_the_servers_user("pitr-drill");
    drill.environment(&format!(
        "    targets:\n      db: {{ url: '{}', tls: off }}\n",
        server.url("postgres")
    ));
    let bin = program("pg_ctl", "postgresql");
    let bin = bin.parent().unwrap();
    let inputs = [
        format!("config={}", repository.config().display()),
        format!("stanza={}", repository.stanza()),
        format!("folder={}", drill.path().display()),
        format!("port={}", free_port()),
        format!("bin={}", bin.display()),
    ];
    let inputs = inputs
        .into_iter()
        .flat_map(|input| ["--input".to_owned(), input])
        .collect();
    (drill, inputs)
}

fn restores(drill: &Drill) -> usize {
    std::fs::read_dir(drill.path())
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("pitr-") && name != "pitr-drill"
        })
        .count()
}

#[test]
fn a_server_is_restored_to_a_moment_and_nothing_is_left() {
    let mut server = Postgres::start(&[]);
    let repository = PgBackRest::start(&mut server);
    server.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    repository.backup();
    let moment = server.ask("SELECT now()");
    std::thread::sleep(Duration::from_millis(1_100));
    server.psql("INSERT INTO t VALUES (2)");
    server.psql("SELECT pg_switch_wal()");

    let (drill, inputs) = pitr(&server, &repository);
    let mut inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    drill.call("plan", &inputs).exits(0);
    assert_eq!(restores(&drill), 0, "a plan restores nothing");
    let told = drill.call("run", &inputs).exits(0);
    assert!(told.all.contains("restored_to"), "{}", told.all);
    assert_eq!(restores(&drill), 0);

    let to = format!("to={moment}");
    inputs.extend(["--input", &to]);
    drill.call("run", &inputs).exits(0);
    let told = drill.told();
    let log = told["outputs"]["recovery"].to_string();
    assert!(log.contains("recovery stopping before commit"), "{log}");
    assert_eq!(restores(&drill), 0);
    assert_eq!(
        server.ask("SELECT count(*) FROM t"),
        "2",
        "the source is as it was"
    );

    // A moment before the backup cannot be reached: the drill fails, says so, and leaves nothing.
    let too_early = ["--input", "to=2020-01-01 00:00:00+00"];
    let told = drill.call("run", &[&inputs[..inputs.len() - 2], &too_early].concat());
    let told = told.exits(1);
    assert!(told.all.contains("restore"), "{}", told.all);
    assert_eq!(restores(&drill), 0);
}

#[test]
fn a_restore_that_is_killed_goes_on() {
    let mut server = Postgres::start(&[]);
    let repository = PgBackRest::start(&mut server);
    server
        .psql("CREATE TABLE t AS SELECT i, repeat('x', 500) AS x FROM generate_series(1, 20000) i");
    repository.backup();
    let (drill, inputs) = pitr(&server, &repository);
    let mut args = vec!["run", drill.playbook()];
    args.extend(inputs.iter().map(String::as_str));
    let mut running = drill.command("ana", &args).spawn().unwrap();
    let start = Instant::now();
    while restores(&drill) == 0 {
        assert!(start.elapsed() < Duration::from_secs(60));
        assert!(running.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(150));
    running.kill().unwrap();
    running.wait().unwrap();
    let told = drill.say(&["resume", "last"]).exits(0);
    assert!(told.all.contains("succeeded"), "{}", told.all);
    assert_eq!(restores(&drill), 0);
}
