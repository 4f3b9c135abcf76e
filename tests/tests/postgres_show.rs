//! `windlass show` in the middle of a lock wait: who holds the run up, and what would end that.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "how soon a statement is gone is measured from outside"
)]
use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};
use windlass_tests::{
    drill::Drill,
    servers::{Session, postgres::Postgres, until},
};

const PLAYBOOK: &str = r#"
playbook: waits
targets: { db: { kind: postgres } }
steps:
  - id: change
    uses: sql.execute
    timeout: 2m
    with: { target: db, sql: UPDATE orders SET state = 'b' WHERE id = 1, lock_timeout: 1m }
    undo: none
"#;

/// A run that waits for a session which has forgotten its transaction.
fn blocked(server: &Postgres) -> (Drill, Session, Child) {
    server.psql(
        "CREATE TABLE orders (id int PRIMARY KEY, state text); INSERT INTO orders VALUES (1, 'a')",
    );
    let drill = Drill::on(server, PLAYBOOK);
    let mut holder = server.session();
    holder.run("SET application_name = 'forgotten terminal'; BEGIN; UPDATE orders SET state = 'x'");
    let running = start(&drill);
    until("the run waits", || {
        server.ask("SELECT count(*) FROM pg_locks WHERE NOT granted") == "1"
    });
    (drill, holder, running)
}

fn start(drill: &Drill) -> Child {
    drill
        .command("ana", &["run", drill.playbook()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn the_page_names_who_holds_a_step_up() {
    let server = Postgres::start(&[]);
    let (drill, mut holder, mut running) = blocked(&server);
    let pid = holder.backend();
    let page = drill.say(&["show", "last"]).exits(0).all;
    for said in [
        format!("held up by backend {pid}, app (forgotten terminal)"),
        "idle in transaction".to_owned(),
        format!("SELECT pg_terminate_backend({pid})"),
        "waits for Lock transactionid".to_owned(),
    ] {
        assert!(page.contains(&said), "{said:?} is not in\n{page}");
    }
    let json = drill.say(&["show", "last", "--json"]).exits(0).all;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["on_the_servers"][0]["activity"]["blockers"][0]["session"],
        format!("backend {pid}")
    );
    // What the page proposes is what helps.
    server.psql(&format!("SELECT pg_terminate_backend({pid})"));
    assert!(running.wait().unwrap().success());
    assert_eq!(server.ask("SELECT state FROM orders"), "b");
}

#[test]
fn the_page_asks_the_targets_that_the_run_derived() {
    let server = Postgres::start(&[]);
    let other = Postgres::start(&[]);
    other.psql(
        "CREATE TABLE orders (id int PRIMARY KEY, state text); INSERT INTO orders VALUES (1, 'a')",
    );
    let playbook = PLAYBOOK
        .replace(
            "targets: { db: { kind: postgres } }",
            &format!(
                "targets: {{ db: {{ kind: postgres }}, copy: {{ like: db, port: {} }} }}",
                other.port()
            ),
        )
        .replace("target: db", "target: copy");
    let drill = Drill::on(&server, &playbook);
    let mut holder = other.session();
    holder.run("BEGIN; UPDATE orders SET state = 'x'");
    let mut running = start(&drill);
    until("the run waits", || {
        other.ask("SELECT count(*) FROM pg_locks WHERE NOT granted") == "1"
    });
    let page = drill.say(&["show", "last"]).exits(0).all;
    let said = format!("held up by backend {}", holder.backend());
    assert!(page.contains(&said), "{said:?} is not in\n{page}");
    holder.run("ROLLBACK");
    assert!(running.wait().unwrap().success());
}

#[test]
fn a_server_that_is_gone_does_not_hold_up_the_page() {
    let mut server = Postgres::start(&[]);
    let (drill, _holder, mut running) = blocked(&server);
    running.kill().unwrap();
    running.wait().unwrap();
    server.stop_immediate();
    let page = drill.say(&["show", "last"]).exits(0).all;
    assert!(
        page.contains("what its servers do now is not known"),
        "{page}"
    );
}

#[test]
fn a_statement_is_gone_from_the_server_when_its_time_is_over_or_it_is_cancelled() {
    let server = Postgres::start(&[]);
    let gone = |what: &str| {
        let start = Instant::now();
        until(what, || {
            server.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'windlass/%' AND state = 'active'") == "0"
        });
        start.elapsed()
    };
    let sleeps = |timeout: &str| {
        format!(
            "playbook: sleeps\ntargets: {{ db: {{ kind: postgres }} }}\nsteps:\n  - id: long\n    uses: sql.query\n    timeout: {timeout}\n    with: {{ target: db, sql: SELECT pg_sleep(600) }}\n"
        )
    };
    let by_time = Drill::on(&server, &sleeps("1s"));
    by_time.call("run", &[]).exits(1);
    let took = gone("the statement is gone after its timeout");
    println!("gone {took:?} after the step ended by its timeout");
    assert!(took < Duration::from_secs(5), "{took:?}");

    let by_hand = Drill::on(&server, &sleeps("10m"));
    let mut running = start(&by_hand);
    until("it sleeps on the server", || {
        server.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'windlass/%' AND state = 'active'") == "1"
    });
    let told = by_hand.say(&["cancel", "last", "--undo", "--force"]);
    let took = gone("the statement is gone after the cancel");
    println!("gone {took:?} after the cancel was accepted");
    assert!(took < Duration::from_secs(5), "{took:?}\n{}", told.all);
    assert_eq!(running.wait().unwrap().code(), Some(1));
}

/// The second Ctrl-C ends the statement on the server, and the step starts anew: nothing had happened.
#[test]
fn a_second_ctrl_c_ends_the_statement_and_keeps_the_place() {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int); CREATE TABLE wait (s int); INSERT INTO wait VALUES (600)");
    let drill = Drill::on(
        &server,
        "playbook: sleeps\ntargets: { db: { kind: postgres } }\nsteps:\n  - id: long\n    uses: sql.execute\n    \
         with: { target: db, sql: \"INSERT INTO n SELECT 1 FROM wait, pg_sleep(wait.s)\" }\n    undo: none\n",
    );
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'windlass/%' AND state = 'active'";
    let mut running = start(&drill);
    until("it sleeps on the server", || server.ask(sleeping) == "1");
    let pid = Pid::from_raw(i32::try_from(running.id()).unwrap());
    for _ in 0..2 {
        kill(pid, Signal::SIGINT).unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(running.wait().unwrap().code(), Some(130));
    assert_eq!(server.ask(sleeping), "0");
    server.psql("UPDATE wait SET s = 0");
    drill.say(&["resume", "last"]).exits(0);
    assert_eq!(server.ask("SELECT count(*) FROM n"), "1");
}

/// A service file and a password file, as for `psql`.
#[test]
fn services_and_password_files_are_honoured() {
    use windlass_tests::servers::postgres::Options;
    let server = Postgres::start(Options::default().scram());
    let drill = Drill::of(
        "playbook: asks\ntargets: { db: { kind: postgres } }\nsteps:\n  - id: one\n    uses: sql.query\n    with: { target: db, sql: SELECT current_user::text AS who }\noutputs: { who: \"${{ steps.one.output.value }}\" }\n",
    );
    drill.environment("    targets:\n      db: { url: 'postgres:///?service=orders', tls: off }\n");
    let service = format!(
        "[orders]\nhost=127.0.0.1\nport={}\nuser=app\ndbname=postgres\n",
        server.port()
    );
    std::fs::write(drill.path().join(".pg_service.conf"), service).unwrap();
    let told = drill.call("run", &[]).exits(6).all;
    assert!(told.contains("password"), "{told}");
    let pass = drill.path().join(".pgpass");
    let line = format!(
        "127.0.0.1:{}:*:app:{}\n",
        server.port(),
        server.password().unwrap()
    );
    std::fs::write(&pass, line).unwrap();
    std::fs::set_permissions(&pass, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let told = drill.call("run", &[]).exits(0).all;
    assert!(told.contains("who = app"), "{told}");
}

const NOTICES: &str = r#"
playbook: notices
targets: { db: { kind: postgres } }
steps:
  - id: quiet
    uses: sql.query
    with: { target: db, sql: SELECT 1 }
  - id: clean
    needs: []
    uses: sql.script
    with:
      target: db
      sql: |
        DROP TABLE IF EXISTS nowhere;
        DO $$ BEGIN RAISE WARNING 'half of % is gone', 'it'; RAISE NOTICE 'copied 3 of 7'; RAISE DEBUG 'never kept'; END $$;
    undo: none
  - id: fails
    needs: [clean]
    uses: sql.script
    with:
      target: db
      sql: |
        DO $$ BEGIN RAISE NOTICE 'before the failure'; RAISE EXCEPTION 'enough'; END $$;
    undo: none
"#;

/// What the server says beside its answers is kept with the step that spoke to it, and stands under the one that failed.
#[test]
fn notices_are_kept_with_their_step() {
    let server = Postgres::start(&[]);
    let drill = Drill::on(&server, NOTICES);
    let done = drill.say(&["run", drill.playbook()]).exits(1).all;
    assert!(
        done.contains("    | NOTICE: before the failure\n"),
        "{done}"
    );
    assert!(done.contains("clean: succeeded in "), "{done}");
    let logs = drill.say(&["logs", "last", "clean"]).exits(0).all;
    assert_eq!(
        logs.trim(),
        "NOTICE: table \"nowhere\" does not exist, skipping\nWARNING: half of it is gone\nNOTICE: copied 3 of 7"
    );
    let none = drill.say(&["logs", "last", "quiet"]).exits(0).all;
    assert!(none.contains("quiet has printed nothing"), "{none}");
}
