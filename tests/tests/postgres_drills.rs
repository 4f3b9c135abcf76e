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
    program::windlass,
    servers::postgres::{Options, Postgres},
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
        let mut running = Command::new(windlass())
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
        if runs.all.contains("\"running\"") {
            drill.say(&["resume", "last"]).exits(0);
        }
        assert_eq!(databases(&server), "postgres,shop", "killed after {at} ms");
        assert_eq!(dumps(drill.path()), 0, "killed after {at} ms");
    }
    assert!(killed > 1);
}
