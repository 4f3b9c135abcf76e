//! Targets that are down, on real servers: a run needs a target when a step uses it, and no earlier.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]
use windlass_tests::{
    drill::Drill,
    servers::{postgres::Postgres, until},
};

fn targets(all: &[(&str, &Postgres)]) -> String {
    let mut text = "    targets:\n".to_owned();
    for (name, server) in all {
        let url = server.url("postgres");
        text.push_str(&format!(
            "      {name}: {{ url: '{url}', tls: off, connect_timeout: 2s, labels: {{ group: a }} }}\n"
        ));
    }
    text
}

/// The journal's events of a run, by name, in order.
fn events(drill: &Drill) -> Vec<String> {
    let journal = rusqlite::Connection::open(drill.path().join("journal.db")).unwrap();
    let mut rows = journal
        .prepare("SELECT body FROM events ORDER BY run_no, seq")
        .unwrap();
    let bodies = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
    bodies
        .map(|body| {
            let body: serde_json::Value = serde_json::from_str(&body.unwrap()).unwrap();
            let name = body.as_object().unwrap().keys().next().unwrap().clone();
            match body["identified"]["target"].as_str() {
                Some(target) => format!("{name} {target}"),
                None => name,
            }
        })
        .collect()
}

const FLEET: &str = "
playbook: fleet
targets:
  fleet: { kind: postgres, many: true, select: { group: a }, when_down: continue }
steps:
  - id: each
    foreach: { items: targets.fleet, as: db, max_parallel: 5, max_failures: 1 }
    uses: sql.execute
    with: { target: \"${{ db }}\", sql: INSERT INTO seen VALUES (1) }
    undo: none
  - id: count
    uses: verify
    with: { checks: [ { name: all but one, expect: len(targets.fleet.reachable) == 4 } ] }
";

#[test]
fn a_member_of_a_fleet_that_is_down_fails_its_own_item_by_name() {
    let mut servers: Vec<Postgres> = (0..5).map(|_| Postgres::start(&[])).collect();
    for server in &servers {
        server.psql("CREATE TABLE seen (i int)");
    }
    let names = ["eu-1", "eu-2", "us-1", "us-2", "br-1"];
    let all: Vec<(&str, &Postgres)> = names.iter().copied().zip(&servers).collect();
    let environment = targets(&all);
    let place = format!("127.0.0.1:{}", servers[2].port());
    servers[2].crash();

    let drill = Drill::of(FLEET);
    drill.environment(&environment);
    let plan = drill.call("plan", &[]).exits(0).all;
    let until_it_answers = "cannot know until fleet[2] answers";
    assert!(plan.contains(until_it_answers), "{plan}");
    assert!(plan.contains("does not answer"), "{plan}");

    let told = drill.call("run", &[]).exits(0).all;
    assert!(
        told.contains("fleet[2] (us-1)") && told.contains(&place),
        "{told}"
    );
    for (at, server) in servers.iter().enumerate() {
        if at != 2 {
            assert_eq!(server.ask("SELECT count(*) FROM seen"), "1");
        }
    }
    let states: Vec<String> = (0..5)
        .map(|at| drill.state_of(&format!("each[{at}]")))
        .collect();
    let expected = ["succeeded", "succeeded", "failed", "succeeded", "succeeded"];
    assert_eq!(states, expected);

    // No failure is allowed: the run fails, and what the others did is what `undo: none` leaves.
    let strict = Drill::of(&FLEET.replace("max_failures: 1", "max_failures: 0"));
    strict.environment(&environment);
    strict.call("run", &[]).exits(1);

    // By default nothing starts, and every one that is down is named.
    servers[4].crash();
    let refusing = Drill::of(&FLEET.replace(", when_down: continue", ""));
    refusing.environment(&environment);
    let told = refusing.call("run", &[]).exits(6).all;
    assert!(
        told.contains("fleet[2] (us-1)") && told.contains("fleet[4] (br-1)"),
        "{told}"
    );
    assert!(told.contains("when_down: continue"), "{told}");
    refusing.call("plan", &[]).exits(6);
    assert_eq!(
        refusing.say(&["show", "last"]).code(),
        Some(2),
        "nothing was started"
    );
}

const VOTE: &str = "
playbook: vote
targets: { db: { kind: postgres } }
steps:
  - id: before
    uses: sql.query
    with: { target: db, sql: SELECT 1 }
  - id: sign_off
    uses: approval
    with: { prompt: Go on?, groups: [dba] }
  - id: after
    uses: sql.query
    with: { target: db, sql: SELECT 2 }
";

#[test]
fn a_run_that_waits_for_a_vote_on_a_dead_target_is_rejected_and_cancelled() {
    let mut server = Postgres::start(&[]);
    let environment = targets(&[("db", &server)]);
    let waiting = || {
        let drill = Drill::of(VOTE);
        drill.environment(&environment);
        drill.call("run", &["--no-wait"]).exits(4);
        drill
    };
    let (rejected, left, undone, resumed) = (waiting(), waiting(), waiting(), waiting());
    server.crash();

    let told = rejected.say_as("bruno", &["reject", "last", "--because", "not today"]);
    // Whoever votes need not drive.
    if told.code() == Some(4) || rejected.state_of("sign_off") == "awaiting_approval" {
        rejected.say(&["resume", "last"]).exits(1);
    }
    assert_eq!(rejected.told()["state"], "failed");
    left.say(&["cancel", "last", "--leave"]).exits(0);
    assert_eq!(left.told()["state"], "cancelled");
    undone.say(&["cancel", "last", "--undo"]).exits(0);
    assert_eq!(undone.told()["state"], "cancelled");
    let told = resumed.say(&["resume", "last", "--no-wait"]).exits(4).all;
    assert!(told.contains("db cannot be reached"), "{told}");
}

/// `stop` and `start` are asked of the test by a file, and answered by another.
const SERVICE: &str = "
playbook: service
targets: { db: { kind: postgres } }
steps:
  - id: note
    uses: sql.execute
    with: { target: db, sql: INSERT INTO n VALUES (1) }
    undo: { uses: sql.execute, with: { target: db, sql: DELETE FROM n WHERE i = 1 } }
  - id: stop
    uses: command
    with: { argv: [sh, -c, 'touch stop; until [ -e stopped ]; do sleep 0.02; done'] }
    undo: { uses: command, with: { argv: [sh, -c, 'touch start; until [ -e started ]; do sleep 0.02; done'] } }
  - id: maintenance
    uses: wait.signal
    with: { name: done }
";

#[test]
fn an_undo_brings_back_the_server_that_its_own_run_stopped() {
    let mut server = Postgres::start(&[]);
    server.psql("CREATE TABLE n (i int)");
    let drill = Drill::of(SERVICE);
    drill.environment(&targets(&[("db", &server)]));
    let asked = |name: &str| drill.path().join(name).exists();
    let answer = |name: &str| std::fs::write(drill.path().join(name), "").unwrap();
    let mut run = drill
        .command("ana", &["run", drill.playbook(), "--no-wait"])
        .spawn()
        .unwrap();
    until("the run stops the server", || asked("stop"));
    server.stop();
    answer("stopped");
    assert_eq!(run.wait().unwrap().code(), Some(4));

    drill.say(&["resume", "last", "--no-wait"]).exits(4);
    let mut undo = drill
        .command("ana", &["cancel", "last", "--undo"])
        .spawn()
        .unwrap();
    until("the undo starts the server", || asked("start"));
    server.start_again();
    answer("started");
    assert_eq!(undo.wait().unwrap().code(), Some(0));
    assert_eq!(drill.told()["state"], "cancelled");
    assert_eq!(server.ask("SELECT count(*) FROM n"), "0");
}

/// The target is down while the run is resumed; `pause` lets the test decide who answers next.
const FIRST_USE: &str = "
playbook: first-use
targets: { db: { kind: postgres } }
steps:
  - id: before
    uses: sql.query
    with: { target: db, sql: SELECT 1 }
  - id: signal
    uses: wait.signal
    with: { name: go }
  - id: pause
    uses: command
    with: { argv: [sh, -c, 'touch paused; until [ -e answered ]; do sleep 0.02; done'] }
    undo: none
  - id: act
    uses: sql.execute
    with: { target: db, sql: CREATE TABLE acted (i int) }
    undo: none
";

/// Runs up to `pause` with the server down, does what is given there, and resumes to the end.
fn meanwhile(server: &mut Postgres, text: &str, then: impl FnOnce(&mut Postgres)) -> (Drill, i32) {
    let drill = Drill::of(text);
    drill.environment(&targets(&[("db", server)]));
    drill.call("run", &["--no-wait"]).exits(4);
    server.crash();
    drill.say(&["signal", "last", "go", "--queue"]).exits(0);
    let mut resumed = drill.command("ana", &["resume", "last"]).spawn().unwrap();
    until("it is resumed without the server", || {
        drill.path().join("paused").exists()
    });
    then(server);
    std::fs::write(drill.path().join("answered"), "").unwrap();
    let code = resumed.wait().unwrap().code().unwrap();
    (drill, code)
}

#[test]
fn a_server_that_is_another_one_at_its_first_use_is_not_acted_on() {
    let mut server = Postgres::start(&[]);
    let mut other = None;
    let (drill, code) = meanwhile(&mut server, FIRST_USE, |server| {
        let mut impostor = Postgres::start(&[]);
        impostor.stop();
        impostor.take_place_of(server);
        impostor.start_again();
        other = Some(impostor);
    });
    assert_eq!(code, 1);
    let page = drill.say(&["show", "last", "--json"]).all;
    assert!(page.contains("target.changed"), "{page}");
    assert_eq!(
        other.unwrap().ask("SELECT to_regclass('acted') IS NULL"),
        "t"
    );
}

#[test]
fn a_resume_onto_another_server_is_refused_and_there_are_ways_on() {
    let mut server = Postgres::start(&[]);
    let drill = Drill::of(FIRST_USE);
    drill.environment(&targets(&[("db", &server)]));
    drill.call("run", &["--no-wait"]).exits(4);
    server.stop();
    let mut impostor = Postgres::start(&[]);
    impostor.stop();
    impostor.take_place_of(&server);
    impostor.start_again();

    let before = events(&drill).len();
    let told = drill.say(&["resume", "last", "--no-wait"]).exits(5).all;
    assert!(told.contains("another server"), "{told}");
    assert!(told.contains("--even-if-changed"), "{told}");
    assert_eq!(
        events(&drill).len(),
        before,
        "a refused resume writes nothing"
    );
    drill
        .say(&["resume", "last", "--no-wait", "--even-if-changed"])
        .exits(4);
    std::fs::write(drill.path().join("answered"), "").unwrap();
    drill.say(&["signal", "last", "go", "--drive"]).exits(1);
    let page = drill.say(&["show", "last", "--json"]).all;
    assert!(page.contains("target.changed"), "{page}");
    assert_eq!(impostor.ask("SELECT to_regclass('acted') IS NULL"), "t");
}

#[test]
fn a_failover_before_the_first_use_is_noticed() {
    let mut server = Postgres::start(&[]);
    let (drill, code) = meanwhile(&mut server, FIRST_USE, |server| {
        std::fs::write(server.data().join("standby.signal"), "").unwrap();
        server.start_again();
        server.promote();
    });
    assert_eq!(code, 0);
    assert!(events(&drill).contains(&"identified db".to_owned()));
    let page = drill.say(&["show", "last"]).exits(0).all;
    assert!(
        page.contains("was failed over since the run started"),
        "{page}"
    );
}

const LATE: &str = "
playbook: late
targets: { db: { kind: postgres, when_down: continue } }
steps:
  - id: early
    uses: sql.query
    when: targets.db.reachable
    with: { target: db, sql: SELECT 1 }
  - id: comes
    uses: wait.condition
    with: { target: db, sql: SELECT 1 AS up, until: row.up == 1, every: 100ms, on_error: retry }
    timeout: 1m
  - id: act
    uses: sql.execute
    when: targets.db.reachable
    with: { target: db, sql: CREATE TABLE acted (i int) }
    undo: { uses: sql.execute, with: { target: db, sql: DROP TABLE acted } }
  - id: hold
    uses: wait.signal
    with: { name: go }
";

#[test]
fn a_target_that_comes_late_is_bound_by_the_first_step_that_reaches_it() {
    let mut server = Postgres::start(&[]);
    server.stop();
    let drill = Drill::of(LATE);
    drill.environment(&targets(&[("db", &server)]));
    let mut run = drill
        .command("ana", &["run", drill.playbook(), "--no-wait"])
        .spawn()
        .unwrap();
    until("it waits for the server", || {
        let state = drill.state_of("comes");
        state == "waiting" || state == "running"
    });
    let page = drill.say(&["show", "last"]).exits(0).all;
    assert!(page.contains("has not answered yet"), "{page}");
    server.start_again();
    assert_eq!(run.wait().unwrap().code(), Some(4));
    assert_eq!(drill.state_of("early"), "skipped");
    assert_eq!(drill.state_of("act"), "succeeded");
    let all = events(&drill);
    let at = |name: &str| all.iter().position(|event| event == name).unwrap();
    assert!(at("identified db") < at("succeeded"), "{all:?}");
    assert_eq!(
        all.iter().filter(|event| *event == "identified db").count(),
        1
    );

    // From here on it is that server and no other.
    server.stop();
    let mut impostor = Postgres::start(&[]);
    impostor.stop();
    impostor.take_place_of(&server);
    impostor.start_again();
    drill.say(&["resume", "last", "--no-wait"]).exits(5);
}
