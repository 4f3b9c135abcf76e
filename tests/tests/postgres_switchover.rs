//! The planned switchover that ships, under a write load of its own.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test; what clients see is measured from outside"
)]
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use windlass_tests::{
    drill::Drill,
    servers::{postgres::Postgres, until},
};

struct Pair {
    primary: Postgres,
    standby: Postgres,
    drill: Drill,
}

fn pair() -> Pair {
    let primary = Postgres::start(&["wal_keep_size=64MB", "wal_log_hints=on"]);
    primary.psql(
        "CREATE TABLE load (id bigint PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())",
    );
    let standby = primary.standby(&[]);
    let drill = Drill::new("switchover");
    drill.environment(&format!(
        "    targets:\n      primary: {{ url: '{}', tls: off }}\n      standby: {{ url: '{}', tls: off }}\n",
        primary.url("postgres"),
        standby.url("postgres")
    ));
    until("the standby streams", || {
        primary.ask("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1"
    });
    Pair {
        primary,
        standby,
        drill,
    }
}

/// Clients that write one row after the other, where they are sent to. What was acknowledged, and when last on the one and
/// first on the other server.
struct Load {
    stop: AtomicBool,
    on_standby: AtomicBool,
    next: AtomicUsize,
    acknowledged: Mutex<Vec<usize>>,
    last_before: Mutex<Option<Instant>>,
    first_after: Mutex<Option<Instant>>,
}

impl Load {
    fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            on_standby: AtomicBool::new(false),
            next: AtomicUsize::new(1),
            acknowledged: Mutex::default(),
            last_before: Mutex::default(),
            first_after: Mutex::default(),
        }
    }

    fn write(&self, pair: &Pair) {
        while !self.stop.load(Ordering::SeqCst) {
            let id = self.next.fetch_add(1, Ordering::SeqCst);
            let moved = self.on_standby.load(Ordering::SeqCst);
            let server = if moved { &pair.standby } else { &pair.primary };
            if server
                .try_psql(&format!("INSERT INTO load VALUES ({id})"))
                .is_ok()
            {
                self.acknowledged.lock().unwrap().push(id);
                if moved {
                    self.first_after
                        .lock()
                        .unwrap()
                        .get_or_insert_with(Instant::now);
                } else {
                    *self.last_before.lock().unwrap() = Some(Instant::now());
                }
            }
        }
    }

    /// Who sends the clients: one request is all it takes.
    fn listen(&self, listener: &TcpListener) {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = client.read(&mut request).unwrap();
        self.on_standby.store(true, Ordering::SeqCst);
        client
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
    }
}

#[test]
fn no_acknowledged_write_is_lost_and_the_outage_is_told() {
    let pair = pair();
    let load = Load::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "repoint_url=http://{}/primary",
        listener.local_addr().unwrap()
    );
    let told = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| load.write(&pair));
        }
        let router = scope.spawn(|| load.listen(&listener));
        std::thread::sleep(Duration::from_millis(700));
        let told = pair
            .drill
            .call("run", &["--input", "ask=false", "--input", &url]);
        if told.code() == Some(0) {
            router.join().unwrap();
            until("clients write to the new primary", || {
                load.first_after.lock().unwrap().is_some()
            });
            std::thread::sleep(Duration::from_millis(300));
        } else {
            drop(std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        }
        load.stop.store(true, Ordering::SeqCst);
        told
    });
    let told = told.exits(0);
    assert!(told.all.contains("outage = "), "{}", told.all);

    let kept = pair
        .standby
        .ask("SELECT coalesce(json_agg(id), '[]') FROM load");
    let kept: std::collections::HashSet<usize> = serde_json::from_str(&kept).unwrap();
    let acknowledged = load.acknowledged.lock().unwrap();
    let lost: Vec<&usize> = acknowledged
        .iter()
        .filter(|id| !kept.contains(id))
        .collect();
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(
        pair.primary
            .try_psql("INSERT INTO load VALUES (-1)")
            .is_err(),
        "the old primary is fenced"
    );

    let report = pair.drill.told();
    let outage = report["outputs"]["outage"].as_str().unwrap().to_owned();
    let seen =
        load.first_after.lock().unwrap().unwrap() - load.last_before.lock().unwrap().unwrap();
    println!(
        "outage as reported {outage}, as clients saw it {seen:?}; {} writes",
        acknowledged.len()
    );
    assert!(
        report["outputs"]["failback"]
            .as_str()
            .unwrap()
            .contains("pg_rewind")
    );
}

#[test]
fn a_promotion_that_cannot_begin_puts_the_old_primary_back() {
    let pair = pair();
    // Whoever connects to the standby may look, and may not promote.
    pair.primary.psql(
        "CREATE ROLE looker LOGIN; GRANT pg_monitor TO looker;
         GRANT EXECUTE ON FUNCTION pg_control_system(), pg_control_checkpoint() TO looker",
    );
    pair.drill.environment(&format!(
        "    targets:\n      primary: {{ url: '{}', tls: off }}\n      standby: {{ url: '{}', tls: off }}\n",
        pair.primary.url("postgres"),
        pair.standby.url_as("looker", "postgres")
    ));
    until("the role is there too", || {
        pair.standby
            .ask("SELECT count(*) FROM pg_roles WHERE rolname = 'looker'")
            == "1"
    });
    let told = pair.drill.call("run", &["--input", "ask=false"]).exits(1);
    assert!(told.all.contains("promote"), "{}", told.all);
    assert!(pair.standby.in_recovery());
    until("the old primary takes writes again", || {
        pair.primary
            .try_psql("INSERT INTO load VALUES (0) ON CONFLICT DO NOTHING")
            .is_ok()
    });
}

#[test]
fn a_promotion_that_does_not_come_stops_the_run_which_goes_on_once_it_came() {
    let pair = pair();
    until("the standby has all of it", || {
        let last = pair.primary.ask("SELECT pg_current_wal_insert_lsn()");
        pair.standby
            .ask(&format!("SELECT pg_last_wal_replay_lsn() >= '{last}'"))
            == "t"
    });
    // A promotion waits until the receiver has ended, and a stopped process does not end.
    let receiver = pair.standby.ask("SELECT pid FROM pg_stat_wal_receiver");
    let receiver = Pid::from_raw(receiver.parse().unwrap());
    kill(receiver, Signal::SIGSTOP).unwrap();
    let told = pair
        .drill
        .call("run", &["--input", "ask=false", "--input", "promotion=1"]);
    kill(receiver, Signal::SIGCONT).unwrap();
    let told = told.exits(3);
    assert!(told.all.contains("windlass retry"), "{}", told.all);
    assert!(
        pair.primary
            .try_psql("INSERT INTO load VALUES (-2)")
            .is_err(),
        "a promotion that may still come leaves the old primary fenced"
    );
    until("the promotion came", || !pair.standby.in_recovery());
    pair.drill.say(&["retry", "last", "promoted"]).exits(0);
    assert_eq!(pair.drill.told()["state"], "succeeded");
}
