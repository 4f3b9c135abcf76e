//! The changes that ship, while everybody goes on working: another type for a column, another password for a role.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test; how long a client waits is measured from outside"
)]
use std::{
    os::unix::fs::PermissionsExt as _,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use windlass_tests::{
    drill::Drill,
    servers::postgres::{Options, Postgres},
};

fn orders(server: &Postgres) -> Drill {
    server.psql(
        "CREATE TABLE orders (id bigint PRIMARY KEY, amount int NOT NULL, note text);
         INSERT INTO orders SELECT i, i * 2, 'n' || i FROM generate_series(1, 20000) i; ANALYZE",
    );
    let drill = Drill::new("column-change");
    drill.environment(&format!(
        "    targets:\n      db: {{ url: '{}', tls: off }}\n",
        server.url("postgres")
    ));
    drill
}

const CHANGE: [&str; 10] = [
    "--input",
    "table=orders",
    "--input",
    "column=amount",
    "--input",
    "type=int8",
    "--input",
    "batch=2000",
    "--input",
    "not_null=true",
];

fn schema(server: &Postgres) -> String {
    let dump = server
        .client("pg_dump")
        .args(["--schema-only", "postgres"])
        .output()
        .unwrap();
    let text = String::from_utf8(dump.stdout).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("restrict "))
        .collect();
    lines.join("\n")
}

/// Clients that insert and update while a change goes on.
struct Clients {
    stop: AtomicBool,
    next: AtomicUsize,
    slowest: Mutex<Duration>,
    failed: Mutex<Vec<String>>,
}

impl Clients {
    fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            next: AtomicUsize::new(100_001),
            slowest: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    fn work(&self, server: &Postgres) {
        while !self.stop.load(Ordering::SeqCst) {
            let id = self.next.fetch_add(1, Ordering::SeqCst);
            let began = Instant::now();
            let done = server.try_psql(&format!(
                "INSERT INTO orders (id, amount, note) VALUES ({id}, {id} * 2, 'n' || {id}); \
                 UPDATE orders SET amount = id * 2 WHERE id = 1 + {id} % 20000"
            ));
            let mut slowest = self.slowest.lock().unwrap();
            *slowest = began.elapsed().max(*slowest);
            if let Err(why) = done {
                self.failed.lock().unwrap().push(why);
            }
        }
    }

    fn during<T>(&self, server: &Postgres, what: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| self.work(server));
            }
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
            self.stop.store(true, Ordering::SeqCst);
            done.unwrap()
        })
    }
}

#[test]
fn a_column_changes_its_type_while_clients_write() {
    let server = Postgres::start(&[]);
    let drill = orders(&server);
    let clients = Clients::new();
    let before = schema(&server);
    drill.call("plan", &CHANGE).exits(0);
    assert_eq!(schema(&server), before, "a plan changes nothing");
    clients.during(&server, || {
        drill
            .call("run", &[&CHANGE[..], &["--input", "ask=false"]].concat())
            .exits(0)
    });
    let failed = clients.failed.lock().unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    let slowest = *clients.slowest.lock().unwrap();
    println!(
        "the slowest of {} statements took {slowest:?}",
        clients.next.load(Ordering::SeqCst) - 100_001
    );
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert_eq!(
        server.ask("SELECT count(*) FROM orders WHERE amount IS DISTINCT FROM id * 2"),
        "0"
    );
    let written = (clients.next.load(Ordering::SeqCst) - 100_001 + 20_000).to_string();
    assert_eq!(server.ask("SELECT count(*) FROM orders"), written);
    let after = schema(&server);
    assert_eq!(
        after.replace("amount bigint NOT NULL", ""),
        before.replace("amount integer NOT NULL", "").replace(
            "    id bigint NOT NULL,\n    ,\n    note text\n",
            "    id bigint NOT NULL,\n    note text,\n    \n"
        ),
        "nothing but the type and the place of the column is another"
    );
}

#[test]
fn a_change_that_is_refused_late_is_undone_at_each_stage() {
    let server = Postgres::start(&[]);
    let drill = orders(&server);
    let before = schema(&server);
    drill
        .call("run", &[&CHANGE[..], &["--no-wait"]].concat())
        .exits(4);
    let told = drill.say_as("bruno", &["approve", "last", "sign_off", "--drive"]);
    assert!(told.all.contains("sign_off_contract"), "{}", told.all);
    assert_eq!(drill.state_of("sign_off_contract"), "awaiting_approval");
    assert_eq!(
        server.ask("SELECT atttypid::regtype FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'amount'"),
        "bigint"
    );
    // Written after the exchange, and still there after it is undone.
    server.psql("INSERT INTO orders (id, note, amount) VALUES (50000, 'late', 100000)");
    drill
        .say_as(
            "bruno",
            &[
                "reject",
                "last",
                "sign_off_contract",
                "--because",
                "not today",
                "--drive",
            ],
        )
        .exits(1);
    assert_eq!(schema(&server), before);
    assert_eq!(
        server.ask("SELECT amount FROM orders WHERE id = 50000"),
        "100000"
    );
}

/// Orders whose `int` key runs full.
fn full(server: &Postgres) -> Drill {
    let drill = orders(server);
    server.psql(
        "DROP TABLE orders;
         CREATE TABLE orders (id serial CONSTRAINT \"the key\" PRIMARY KEY, amount bigint NOT NULL, note text);
         INSERT INTO orders (amount, note) SELECT i * 2, 'n' || i FROM generate_series(1, 20000) i;
         SELECT setval('orders_id_seq', 100000); ANALYZE",
    );
    drill
}

const KEY: [&str; 8] = [
    "--input",
    "table=orders",
    "--input",
    "column=id",
    "--input",
    "type=int8",
    "--input",
    "batch=2000",
];

#[test]
fn a_key_that_runs_full_becomes_a_bigint_while_clients_write() {
    let server = Postgres::start(&[]);
    let drill = full(&server);
    let clients = Clients::new();
    clients.during(&server, || {
        drill
            .call("run", &[&KEY[..], &["--input", "ask=false"]].concat())
            .exits(0)
    });
    let failed = clients.failed.lock().unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(*clients.slowest.lock().unwrap() < Duration::from_secs(5));
    assert_eq!(
        server.ask("SELECT count(*) FROM orders WHERE amount IS DISTINCT FROM id * 2"),
        "0"
    );
    server
        .psql("SELECT setval('orders_id_seq', 3000000000); INSERT INTO orders (amount) VALUES (1)");
    assert_eq!(
        server.ask("SELECT id FROM orders WHERE amount = 1"),
        "3000000001"
    );
    let keys = "SELECT string_agg(indexrelid::regclass::text || ' ' || indisprimary || ' ' || indisvalid, ',') FROM pg_index \
        WHERE indrelid = 'orders'::regclass";
    assert_eq!(server.ask(keys), "\"the key\" true true");
    assert_eq!(
        server.ask("SELECT pg_get_serial_sequence('orders', 'id')"),
        "public.orders_id_seq"
    );
    assert!(!schema(&server).contains("windlass"), "{}", schema(&server));
}

#[test]
fn a_key_is_put_back_as_it_was() {
    let server = Postgres::start(&[]);
    let drill = full(&server);
    let before = schema(&server);
    drill
        .call("run", &[&KEY[..], &["--no-wait"]].concat())
        .exits(4);
    let told = drill.say_as("bruno", &["approve", "last", "sign_off", "--drive"]);
    assert!(told.all.contains("sign_off_contract"), "{}", told.all);
    assert_eq!(
        server.ask("SELECT atttypid::regtype FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'id'"),
        "bigint"
    );
    server.psql("INSERT INTO orders (note, amount) VALUES ('late', 7)");
    let no = [
        "reject",
        "last",
        "sign_off_contract",
        "--because",
        "not today",
        "--drive",
    ];
    drill.say_as("bruno", &no).exits(1);
    assert_eq!(schema(&server), before);
    assert_eq!(
        server.ask("SELECT id FROM orders WHERE note = 'late'"),
        "100001"
    );
}

#[test]
fn a_column_that_cannot_be_changed_so_is_left_alone() {
    let server = Postgres::start(&[]);
    let drill = orders(&server);
    let others = [
        (
            "CREATE INDEX ON orders ((amount + 1))",
            "DROP INDEX orders_expr_idx",
            "it is in no index",
        ),
        (
            "CREATE STATISTICS s ON amount, id FROM orders",
            "DROP STATISTICS s",
            "no trigger, policy, statistics",
        ),
        (
            "CREATE VIEW seen AS SELECT amount FROM orders",
            "DROP VIEW seen",
            "no view reads it",
        ),
        (
            "GRANT UPDATE (amount) ON orders TO pg_monitor",
            "SELECT 1",
            "no trigger, policy, statistics",
        ),
    ];
    for (stands, goes, said) in others {
        server.psql(stands);
        let before = schema(&server);
        let told = drill
            .call("run", &[&CHANGE[..], &["--input", "ask=false"]].concat())
            .exits(1);
        assert!(told.all.contains(said), "{stands}: {}", told.all);
        assert_eq!(schema(&server), before, "{stands}");
        server.psql(goes);
    }
}

const OLD: &str = "old-canary-7Hq2Lw";
const NEW: &str = "new-canary-9Zx4Rt";

fn roles(server: &Postgres) -> Drill {
    server.psql(&format!(
        "CREATE ROLE app_rights; CREATE ROLE app1 LOGIN PASSWORD '{OLD}' IN ROLE app_rights"
    ));
    server.psql("ALTER SYSTEM SET log_statement = 'all'; ");
    server.psql("SELECT pg_reload_conf()");
    let drill = Drill::new("rotate-password");
    let secret = drill.path().join("new");
    std::fs::write(&secret, NEW).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    drill.environment(&format!(
        "    secrets:\n      admin: {{ env: DRILL_PASSWORD }}\n      new_password: {{ file: new }}\n    targets:\n      db: {{ url: '{}', tls: off }}\n",
        server.url("postgres").replace("a%20password%20of%20the%20tests", "${{ secret(\"admin\") }}")
    ));
    drill
}

fn logs_in(server: &Postgres, role: &str, password: &str) -> bool {
    let mut psql = server.client("psql");
    psql.env("PGPASSWORD", password).args([
        "-h",
        "127.0.0.1",
        "-U",
        role,
        "-d",
        "postgres",
        "-Atc",
        "SELECT 1",
    ]);
    psql.output().unwrap().status.success()
}

#[track_caller]
fn nowhere(server: &Postgres, drill: &Drill, told: &str) {
    assert!(!server.log().contains(NEW), "the server's log");
    assert!(!told.contains(NEW), "{told}");
    assert!(!drill.told().to_string().contains(NEW), "the report");
    let journal = std::fs::read(drill.path().join("journal.db")).unwrap();
    assert!(
        !journal
            .windows(NEW.len())
            .any(|bytes| bytes == NEW.as_bytes()),
        "the journal"
    );
}

#[test]
fn a_password_is_rotated_and_appears_nowhere() {
    let server = Postgres::start(Options::default().scram());
    let drill = roles(&server);
    let inputs = ["--input", "role=app1", "--input", "ask=false"];
    let planned = drill.call("plan", &inputs).exits(0);
    assert!(logs_in(&server, "app1", OLD) && !planned.all.contains(NEW));
    let told = drill.call("run", &inputs).exits(0);
    assert!(logs_in(&server, "app1", NEW) && !logs_in(&server, "app1", OLD));
    nowhere(&server, &drill, &told.all);
}

#[test]
fn a_login_that_does_not_work_puts_the_old_password_back() {
    let server = Postgres::start(Options::default().scram());
    let drill = roles(&server);
    // Nobody may connect as this role any more, so that the check of the login fails.
    server.psql("ALTER ROLE app1 CONNECTION LIMIT 0");
    let told = drill
        .call("run", &["--input", "role=app1", "--input", "ask=false"])
        .exits(1);
    server.psql("ALTER ROLE app1 CONNECTION LIMIT -1");
    assert!(logs_in(&server, "app1", OLD) && !logs_in(&server, "app1", NEW));
    nowhere(&server, &drill, &told.all);
}

#[test]
fn a_successor_takes_over_from_a_role() {
    let server = Postgres::start(Options::default().scram());
    let drill = roles(&server);
    let inputs = [
        "--input",
        "role=app1",
        "--input",
        "successor=app2",
        "--input",
        "group=app_rights",
    ];
    drill
        .call("run", &[&inputs[..], &["--no-wait"]].concat())
        .exits(4);
    assert!(
        logs_in(&server, "app1", OLD) && logs_in(&server, "app2", NEW),
        "both work until all have moved"
    );
    let told = drill
        .say_as("bruno", &["approve", "last", "sign_off", "--drive"])
        .exits(0);
    assert!(!logs_in(&server, "app1", OLD) && logs_in(&server, "app2", NEW));
    nowhere(&server, &drill, &told.all);
    // Another try that is refused puts back what it did.
    server.psql("ALTER ROLE app1 LOGIN");
    let again = [
        "--input",
        "role=app2",
        "--input",
        "successor=app3",
        "--input",
        "group=app_rights",
        "--no-wait",
    ];
    drill.call("run", &again).exits(4);
    drill
        .say_as(
            "bruno",
            &["reject", "last", "sign_off", "--because", "no", "--drive"],
        )
        .exits(1);
    assert_eq!(
        server.ask("SELECT count(*) FROM pg_roles WHERE rolname = 'app3'"),
        "0"
    );
    assert!(logs_in(&server, "app2", NEW));
    // What is granted to the role itself would not pass to its successor.
    server.psql("CREATE TABLE own (i int); GRANT SELECT ON own TO app2");
    let told = drill.call("run", &again).exits(1).all;
    assert!(told.contains("a successor would lose nothing"), "{told}");
}
