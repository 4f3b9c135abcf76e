//! The planned switchover that ships, killed at each of its steps with the old primary lost for good: what `windlass show`
//! prints leads to an end, forward and undo.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test; when a step begins is watched from outside"
)]
use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};
use windlass_tests::{
    drill::Drill,
    servers::{postgres::Postgres, until},
};

fn pair() -> (Postgres, Postgres, Drill) {
    let primary = Postgres::start(&["wal_keep_size=64MB", "wal_log_hints=on"]);
    let standby = primary.standby(&[]);
    let drill = Drill::new("switchover");
    drill.environment(&format!(
        "    targets:\n      primary: {{ url: '{}', tls: off, connect_timeout: 2s }}\n      \
         standby: {{ url: '{}', tls: off }}\n",
        primary.url("postgres"),
        standby.url("postgres")
    ));
    until("the standby streams", || {
        primary.ask("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1"
    });
    (primary, standby, drill)
}

/// The last attempt that began, as the journal has it: `fence`, `undo fence`.
fn last_started(drill: &Drill) -> String {
    let path = drill.path().join("journal.db");
    let Ok(journal) =
        rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
    else {
        return String::new();
    };
    let sql = "SELECT body ->> '$.started.phase', body ->> '$.started.node' FROM events \
               WHERE body LIKE '{\"started\"%' ORDER BY seq DESC LIMIT 1";
    journal
        .query_row(sql, [], |row| {
            let (phase, node): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(if phase == "undo" {
                format!("undo {node}")
            } else {
                node
            })
        })
        .unwrap_or_default()
}

fn start(drill: &Drill, args: &[&str]) -> Child {
    let mut command = drill.command("ana", args);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills a run as a step begins. Whether the step was reached before the run ended.
fn kill_at(drill: &Drill, mut run: Child, step: &str) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        if last_started(drill) == step {
            run.kill().unwrap();
            run.wait().unwrap();
            return true;
        }
        if run.try_wait().unwrap().is_some() {
            return false;
        }
    }
    run.kill().unwrap();
    panic!("{step} is never reached");
}

fn page(drill: &Drill) -> serde_json::Value {
    let text = drill.say(&["show", "last", "--json"]).exits(0).all;
    serde_json::from_str(&text).unwrap()
}

fn is_over(state: &str) -> bool {
    ["succeeded", "failed", "compensated", "cancelled"].contains(&state)
}

/// What a person copies who knows that the old primary is gone: the first line of `next`, but that nothing is done there any
/// more. A reason is put in where one is asked for.
fn copied(page: &serde_json::Value, tried: &[String]) -> Vec<String> {
    let next = page["next"].as_array().unwrap();
    let commands = next.iter().map(|one| one["command"].as_str().unwrap());
    let steps = page["steps"].as_array().unwrap();
    let stage_of_undo = |path: &str| {
        let step = steps.iter().find(|step| step["path"] == path);
        step.and_then(|step| step["undoing"]["stage"].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let wanted = |command: &str| {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.get(1).copied() {
            Some("resume") => true,
            // What was to be undone on a server that is gone is as good as undone; what was in doubt there, did not happen.
            Some("resolve") => {
                let undo = !stage_of_undo(words[3].trim_matches('\'')).is_empty();
                command.contains(if undo { "--done" } else { "--not-done" })
            }
            Some("undo") => true,
            Some("cancel") => command.contains("--leave"),
            _ => false,
        }
    };
    let found = commands
        .filter(|command| !tried.contains(&(*command).to_owned()))
        .find(|command| wanted(command))
        .unwrap_or_else(|| panic!("nothing leads on: {page:#}"));
    let because = found.replace("\"…\"", "the-server-is-gone");
    because
        .split_whitespace()
        .skip(1)
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}

/// Follows `show` until the run is over.
#[track_caller]
fn to_the_end(drill: &Drill, what: &str) -> serde_json::Value {
    let mut said = Vec::new();
    for _ in 0..12 {
        let page = page(drill);
        if is_over(page["state"].as_str().unwrap()) {
            return page;
        }
        let args = copied(&page, &[]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let told = drill.say(&args);
        said.push(format!("{args:?}: {:?}\n{}", told.code(), told.all));
        assert!(
            [0, 1, 3].contains(&told.code().unwrap()),
            "{what}: {}",
            said.join("\n")
        );
    }
    panic!("{what} comes to no end: {}", said.join("\n"));
}

const BEFORE: [&str; 12] = [
    "primary_before",
    "standby_before",
    "preflight",
    "lag",
    "fence",
    "reload",
    "fenced",
    "end_sessions",
    "silence",
    "caught_up",
    "still_silent",
    "promote",
];
const AFTER: [&str; 4] = ["promoted", "writes", "nothing_lost", "ends"];

/// Each step in a process and a pair of its own; two at once, as the machine of a developer has cores.
fn each(steps: &[&str], test: impl Fn(&str) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(step) =
                    steps.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
                {
                    test(step);
                }
            });
        }
    });
}

#[test]
fn forward_it_comes_to_its_end() {
    each(&[&BEFORE[..], &AFTER[..]].concat(), |step| {
        let (mut primary, standby, drill) = pair();
        let run = start(&drill, &["run", drill.playbook(), "--input", "ask=false"]);
        if !kill_at(&drill, run, step) {
            eprintln!("{step}: over before it could be killed");
            return;
        }
        primary.crash();
        let page = to_the_end(&drill, step);
        let state = page["state"].as_str().unwrap();
        let promoted = !standby.in_recovery();
        eprintln!("killed at {step}: {state}, promoted: {promoted}");
        if AFTER.contains(&step) {
            // The old primary has no last word any more, and the run says so; all else is done.
            assert!(promoted, "{step}");
            assert!(page["outputs"]["failback"].is_string(), "{step}: {page:#}");
        }
    });
}

#[test]
fn its_undo_comes_to_its_end() {
    each(&["undo fence"], |step| {
        let (mut primary, _standby, drill) = pair();
        // A promotion that cannot begin has the fence taken down again.
        let looker = "CREATE ROLE looker LOGIN; GRANT pg_monitor TO looker;
             GRANT EXECUTE ON FUNCTION pg_control_system(), pg_control_checkpoint() TO looker";
        primary.psql(looker);
        let environment = std::fs::read_to_string(drill.path().join("windlass.yaml")).unwrap();
        let (head, tail) = environment.split_once("standby:").unwrap();
        std::fs::write(
            drill.path().join("windlass.yaml"),
            format!(
                "{head}standby:{}",
                tail.replace("postgres://app@", "postgres://looker@")
            ),
        )
        .unwrap();
        until("the role is there too", || {
            _standby.ask("SELECT count(*) FROM pg_roles WHERE rolname = 'looker'") == "1"
        });
        let run = start(&drill, &["run", drill.playbook(), "--input", "ask=false"]);
        assert!(kill_at(&drill, run, step), "{step} is reached");
        primary.crash();
        let page = to_the_end(&drill, step);
        assert_eq!(page["state"], "compensated", "{page:#}");
    });
}
