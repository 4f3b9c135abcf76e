//! The journal's file as people treat it: moved, put back, linked, copied, read only, empty, another program's; starts by key;
//! starts that are refused; what a command to a finished run leaves alone.
use crate::common::{Done, Lab};
use serde_json::Value as Json;
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    time::{Duration, Instant},
};

/// An account without rights.
const NOBODY: u32 = 65_534;

const SLOW: &str = "
playbook: slow
policy: { locks: [the.lock] }
steps:
  - id: a
    uses: command
    with: { argv: [sleep, '1.5'], idempotent: true }
    undo: none
  - id: b
    uses: command
    with: { argv: [touch, b-ran], idempotent: true }
    undo: none
";

const QUICK: &str = "
playbook: quick
inputs: { n: { type: integer, default: 1 } }
steps:
  - { id: s, uses: script, with: { code: inputs.n } }
outputs: { n: \"${{ steps.s.output.value }}\" }
";

fn lab() -> Lab {
    let lab = Lab::new();
    let environment = format!(
        "journal: state/journal.db\n{}",
        crate::common::ENVIRONMENT.trim_start()
    );
    lab.write("windlass.yaml", &environment);
    lab.write("slow.yaml", SLOW);
    lab.write("quick.yaml", QUICK);
    lab
}

fn files(lab: &Lab) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(lab.path("state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn runs(lab: &Lab) -> Vec<Json> {
    let done = lab.run(&["runs", "--json"]).exits(0);
    serde_json::from_str(&done.stdout).unwrap()
}

#[test]
fn a_run_whose_journal_is_taken_away_stops_before_its_next_step() {
    for replace in [false, true] {
        let lab = lab();
        lab.run(&["run", "quick.yaml"]).exits(0);
        let started = Instant::now();
        let run = lab.spawn("ana", &["run", "slow.yaml"]);
        lab.until_step("a", "running");
        fs::rename(lab.path("state"), lab.path("away")).unwrap();
        if replace {
            lab.run(&["run", "quick.yaml"]).exits(0);
        }
        let done = run.wait().exits(7);
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(
            done.stderr.contains("was changed under this process"),
            "{}",
            done.all()
        );
        let what = if replace {
            "there is another file at"
        } else {
            "moved or deleted"
        };
        assert!(done.stderr.contains(what), "{}", done.all());
        assert!(
            done.stderr.contains("`windlass resume RUN`"),
            "{}",
            done.all()
        );
        assert!(!lab.path("b-ran").exists());
        // When the file is back, the run continues from its place.
        drop(fs::remove_dir_all(lab.path("state")));
        fs::rename(lab.path("away"), lab.path("state")).unwrap();
        lab.run(&["resume", "last"]).exits(0);
        assert!(lab.path("b-ran").exists());
        lab.run(&["audit"]).exits(0);
    }
}

#[test]
fn a_run_whose_journal_is_put_back_to_an_earlier_moment_stops() {
    let lab = lab();
    lab.run(&["run", "quick.yaml"]).exits(0);
    fs::copy(lab.path("state/journal.db"), lab.path("backup.db")).unwrap();
    let run = lab.spawn("ana", &["run", "slow.yaml"]);
    lab.until_step("a", "running");
    // What is new is in the file now, as when its log had grown long.
    let checkpoint = rusqlite::Connection::open(lab.path("state/journal.db"))
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            row.get::<_, i64>(0)
        });
    assert_eq!(checkpoint, Ok(0));
    // As `cp` does: the same file, another content.
    fs::write(
        lab.path("state/journal.db"),
        fs::read(lab.path("backup.db")).unwrap(),
    )
    .unwrap();
    let done = run.wait().exits(7);
    assert!(
        done.stderr.contains("was changed under this process"),
        "{}",
        done.all()
    );
    assert!(!lab.path("b-ran").exists());
}

#[test]
fn a_lock_belongs_to_the_file_whatever_name_leads_to_it() {
    let lab = lab();
    fs::create_dir(lab.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../state/journal.db", lab.path("elsewhere/link.db")).unwrap();
    let run = lab.spawn("ana", &["run", "slow.yaml"]);
    lab.until_step("a", "running");
    let by_link = |args: &[&str]| {
        let mut all = vec!["--journal", "elsewhere/link.db"];
        all.extend(args);
        lab.run(&all)
    };
    by_link(&["run", "slow.yaml"])
        .exits(5)
        .says("lock \"the.lock\" is held by run");
    by_link(&["resume", "last"])
        .exits(5)
        .says("is driven by ana");
    run.wait().exits(0);
    // A second name of the file has no log of its own.
    fs::hard_link(lab.path("state/journal.db"), lab.path("elsewhere/name.db")).unwrap();
    let by_name = |args: &[&str]| {
        let mut all = vec!["--journal", "elsewhere/name.db"];
        all.extend(args);
        lab.run(&all)
    };
    by_name(&["run", "slow.yaml"]).exits(2).says("hard links");
    by_name(&["show", "last"]).exits(0).says("succeeded");
    let names: Vec<_> = fs::read_dir(lab.path("elsewhere")).unwrap().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    // A copy is another file with the same runs.
    fs::copy(lab.path("state/journal.db"), lab.path("copy.db")).unwrap();
    lab.run(&["--journal", "copy.db", "undo", "last"])
        .exits(5)
        .says("is a copy of the journal");
    lab.run(&["--journal", "copy.db", "audit"])
        .exits(0)
        .says("holds");
}

/// As an account that may not write: `None` where this test has no right to become one.
fn as_nobody(lab: &Lab, args: &[&str]) -> Option<Done> {
    if !nix::unistd::Uid::effective().is_root() {
        return None;
    }
    // Its own account, and not a namespace in which it would still be root to the files.
    let mut command = lab.command("ana", args);
    command
        .env("WINDLASS_USER", "auditor")
        .uid(NOBODY)
        .gid(NOBODY);
    Some(command.output().unwrap().into())
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_journal_that_may_only_be_read_is_shown_audited_and_reported() {
    let lab = lab();
    lab.run(&["run", "quick.yaml"]).exits(0);
    let reads = [
        "audit",
        "runs",
        "show last",
        "report last",
        "watch last",
        "logs last",
        "runs --refused",
        "runs --json",
        "show last --json",
    ];
    // The owner of a file of mode 0400 is refused as everybody is; root is not, so that this needs another account.
    if as_nobody(&lab, &["runs"]).is_none() {
        eprintln!("skipped: this test becomes another account, which only root may do");
        return;
    }
    let journal = lab.path("state/journal.db");
    let done = as_nobody(&lab, &["runs"]).unwrap().exits(2);
    assert!(done.stderr.contains("cannot be opened"), "{}", done.all());
    chmod(&lab.path(""), 0o755);
    chmod(&lab.path("state"), 0o755);
    chmod(&journal, 0o600);
    let done = as_nobody(&lab, &["runs"]).unwrap().exits(2);
    assert!(
        done.stderr.contains("may not be read; it belongs to root")
            && done.stderr.contains("mode 0600"),
        "{}",
        done.all()
    );
    chmod(&journal, 0o444);
    let read_all = || {
        for command in reads {
            let args: Vec<&str> = command.split(' ').collect();
            let done = as_nobody(&lab, &args).unwrap();
            assert_eq!(done.code, 0, "{command}: {}", done.all());
        }
    };
    let before = files(&lab);
    read_all();
    assert_eq!(files(&lab), before);
    // In a folder where it might make files, it makes none.
    chmod(&lab.path("state"), 0o777);
    read_all();
    assert_eq!(files(&lab), before);
    chmod(&lab.path("state"), 0o755);
    // What would change it says so.
    for command in ["run quick.yaml", "undo last", "resume last"] {
        let args: Vec<&str> = command.split(' ').collect();
        let done = as_nobody(&lab, &args).unwrap().exits(2);
        assert!(
            done.stderr
                .contains("may not be written to by this account"),
            "{command}: {}",
            done.all()
        );
    }
    // While another process writes to it, and the newest events are only in the log.
    let run = lab.spawn("ana", &["run", "slow.yaml"]);
    lab.until_step("a", "running");
    let wal = lab.path("state/journal.db-wal");
    let done = as_nobody(&lab, &["show", "last"]).unwrap();
    assert_eq!(done.code, 0, "{}", done.all());
    assert!(done.stdout.contains("slow"), "{}", done.all());
    // Only the owner may read the lock file. The reader still learns that a process drives the run.
    assert_eq!(
        lab.path("state/journal.db.locks")
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    done.says("driven by    ana on");
    chmod(&wal, 0o600);
    let done = as_nobody(&lab, &["show", "last"]).unwrap().exits(2);
    assert!(
        done.stderr.contains("holds what was written last"),
        "{}",
        done.all()
    );
    chmod(&wal, 0o644);
    run.signal(nix::sys::signal::Signal::SIGKILL);
    drop(run);
    // Killed: the log stays, and its index may be gone, as after a restart of the host or in a copy.
    for index in [true, false] {
        if !index {
            fs::remove_file(lab.path("state/journal.db-shm")).unwrap();
        }
        let before = files(&lab);
        let done = as_nobody(&lab, &["runs"]).unwrap();
        assert!(done.stdout.contains("slow"), "{index}: {}", done.all());
        as_nobody(&lab, &["audit"]).unwrap().exits(0);
        assert_eq!(files(&lab), before);
    }
}

#[test]
fn what_is_no_journal_is_told_and_left_alone() {
    let lab = lab();
    lab.write("state/empty.db", "");
    lab.write("state/notes.txt", &"these are notes\n".repeat(400));
    lab.execute("state/orders.db", "CREATE TABLE orders (id INTEGER)");
    lab.execute(
        "state/newer.db",
        "PRAGMA application_id = 1464421956; PRAGMA user_version = 9; CREATE TABLE x (y)",
    );
    for (file, says) in [
        ("state/empty.db", "it is empty"),
        ("state/notes.txt", "it is no SQLite database"),
        ("state/orders.db", "the database of another program"),
        ("state/newer.db", "has format 9, this windlass writes 1"),
        ("state", "it is a folder"),
        ("state/none.db", "there is no journal at"),
        ("nowhere/none.db", "there is no journal at"),
    ] {
        let before = fs::read(lab.path(file)).ok();
        for command in [
            "runs",
            "audit",
            "show last",
            "resume last",
            "cancel last --undo",
        ] {
            let mut args: Vec<&str> = vec!["--journal", file];
            args.extend(command.split(' '));
            let done = lab.run(&args);
            assert_eq!(done.code, 2, "{file}, {command}: {}", done.all());
            assert!(
                done.stderr.contains(says)
                    && done.stderr.contains(file)
                    && !done.stderr.contains("no runs"),
                "{file}, {command}: {}",
                done.all()
            );
        }
        assert_eq!(fs::read(lab.path(file)).ok(), before, "{file}");
    }
    assert_eq!(
        files(&lab),
        ["empty.db", "newer.db", "notes.txt", "orders.db"]
    );
    lab.run(&["runs", "--state", "won"])
        .exits(2)
        .says("possible values: running, interrupted, waiting");
}

/// Standard error of a command with `--json`: lines of JSON, and nothing else.
fn lines(done: &Done) -> Vec<Json> {
    done.stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {}", done.all())))
        .collect()
}

#[test]
fn errors_of_json_commands_are_json() {
    let lab = lab();
    lab.write(
        "wrong.yaml",
        "playbook: Wrong\nsteps:\n  - id: a\n    uses: nothing\n",
    );
    for (command, exit, says) in [
        ("runs --json", 2, "there is no journal"),
        ("show last --json", 2, "there is no journal"),
        ("watch last --json", 2, "there is no journal"),
        ("audit --json", 2, "there is no journal"),
        ("resume last --json", 2, "there is no journal"),
        ("retry last a --json", 2, "there is no journal"),
        ("runs --json --state won", 2, "possible values"),
        ("runs --json --no-such-option", 2, "--no-such-option"),
        ("run missing.yaml --json", 2, "missing.yaml"),
        ("validate missing.yaml --json", 2, "missing.yaml"),
        ("doctor nothing --json", 2, "no target"),
        ("steps no.such.kind --json", 2, "no.such.kind"),
        ("run quick.yaml --json --env nowhere", 2, "wrong"),
    ] {
        let args: Vec<&str> = command.split(' ').collect();
        let done = lab.run(&args);
        assert_eq!(done.code, exit, "{command}: {}", done.all());
        assert_eq!(done.stdout, "", "{command}");
        let lines = lines(&done);
        let error = &lines.last().unwrap()["error"];
        assert_eq!(error["exit"], exit, "{command}: {}", done.all());
        assert!(
            error["message"].as_str().unwrap().contains(says),
            "{command}: {}",
            done.all()
        );
        assert!(error["help"].is_array() && error["notes"].is_array());
    }
    let done = lab.run(&["run", "wrong.yaml", "--json"]).exits(2);
    let error = lines(&done).remove(0);
    let found = error["error"]["diagnostics"].as_array().unwrap();
    assert!(found.len() >= 2, "{error:#}");
    assert!(
        found
            .iter()
            .all(|one| one["code"].as_str().unwrap().starts_with("WL"))
    );
    let schema: Json =
        serde_json::from_str(&lab.run(&["schema", "error"]).exits(0).stdout).unwrap();
    assert!(jsonschema::is_valid(&schema, &error), "{error:#}");
    // A run that is refused, and one whose command is.
    let run = lab.spawn("ana", &["run", "slow.yaml"]);
    lab.until_step("a", "running");
    let done = lab.run(&["run", "slow.yaml", "--json"]).exits(5);
    assert!(
        lines(&done)[0]["error"]["message"]
            .as_str()
            .unwrap()
            .contains("the.lock")
    );
    run.wait().exits(0);
    let done = lab.run(&["retry", "last", "a", "--json"]).exits(5);
    let error = lines(&done).pop().unwrap();
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("refused"),
        "{error:#}"
    );
    assert!(jsonschema::is_valid(&schema, &error), "{error:#}");
}

#[test]
fn a_key_starts_one_run_and_tells_its_outcome() {
    let lab = lab();
    let first = lab.run(&["run", "quick.yaml", "--key", "k1"]).exits(0);
    assert!(!first.stderr.contains("this key"), "{}", first.all());
    let again = lab.run(&["run", "quick.yaml", "--key", "k1"]).exits(0);
    let id = lab.run_id();
    let (_, short) = id.split_at(id.len() - 8);
    assert!(
        again
            .stderr
            .contains(&format!("this key has started run {short}")),
        "{}",
        again.all()
    );
    assert!(again.stdout.contains("succeeded"), "{}", again.all());
    assert_eq!(runs(&lab).len(), 1);
    assert_eq!(runs(&lab)[0]["key"], "k1");
    // As JSON it is what the first start told.
    let json = lab
        .run(&["run", "quick.yaml", "--key", "k1", "--json"])
        .exits(0);
    let events: Vec<Json> = json
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events[0]["run"], id);
    assert!(events.last().unwrap()["event"]["finished"].is_object());
    // Anything else is another start.
    lab.write(
        "other.yaml",
        &QUICK.replace("playbook: quick", "playbook: other"),
    );
    for (args, differs) in [
        (
            vec!["run", "quick.yaml", "--key", "k1", "-i", "n=2"],
            "other inputs",
        ),
        (vec!["run", "other.yaml", "--key", "k1"], "another playbook"),
    ] {
        let done = lab.run(&args).exits(5);
        assert!(
            done.stderr.contains(differs)
                && done.stderr.contains(&id)
                && done.stderr.contains("nothing was started"),
            "{}",
            done.all()
        );
    }
    lab.run(&["run", "quick.yaml", "--key", "a b"]).exits(2);
    assert_eq!(runs(&lab).len(), 1);
    // A run that failed has failed, as often as it is asked for.
    lab.write(
        "fails.yaml",
        "
playbook: fails
steps:
  - { id: s, uses: command, undo: none, with: { argv: ['false'], idempotent: true } }
",
    );
    for _ in 0..3 {
        lab.run(&["run", "fails.yaml", "--key", "k2"]).exits(1);
    }
    assert_eq!(runs(&lab).len(), 2);
}

#[test]
fn a_start_by_key_drives_on_what_nobody_drives_and_waits_for_who_does() {
    let lab = lab();
    let run = lab.spawn("ana", &["run", "slow.yaml", "--key", "k"]);
    lab.until_step("a", "running");
    let again = lab.spawn("bruno", &["run", "slow.yaml", "--key", "k"]);
    let third = lab.spawn("carla", &["run", "slow.yaml", "--key", "k", "--json"]);
    let again = again.wait().exits(0);
    assert!(again.stderr.contains("is driven by ana"), "{}", again.all());
    third.wait().exits(0);
    run.wait().exits(0);
    assert_eq!(runs(&lab).len(), 1);
    fs::remove_file(lab.path("b-ran")).unwrap();
    // Killed in the midst, by the next key: whoever asks again drives it on, and who waited takes over.
    let run = lab.spawn("ana", &["run", "slow.yaml", "--key", "l"]);
    lab.until_step("a", "running");
    let waits = lab.spawn("bruno", &["run", "slow.yaml", "--key", "l"]);
    std::thread::sleep(Duration::from_millis(400));
    run.signal(nix::sys::signal::Signal::SIGKILL);
    drop(run);
    waits.wait().exits(0);
    assert!(lab.path("b-ran").exists());
    assert_eq!(runs(&lab).len(), 2);
    // Without --wait the output says that the run waits.
    lab.write(
        "waits.yaml",
        "
playbook: waits
steps:
  - { id: w, uses: wait.signal, with: { name: go } }
",
    );
    for _ in 0..2 {
        lab.run(&["run", "waits.yaml", "--key", "m", "--no-wait"])
            .exits(4);
    }
    let drives = lab.spawn("ana", &["run", "waits.yaml", "--key", "m"]);
    lab.until("driven", |page| page["driven_by"].is_object());
    lab.run(&["run", "waits.yaml", "--key", "m", "--no-wait"])
        .exits(4);
    lab.run(&["signal", "last", "go"]).exits(0);
    drives.wait().exits(0);
    assert_eq!(runs(&lab).len(), 3);
}

#[test]
fn many_processes_that_start_by_one_key_start_one_run() {
    let lab = lab();
    for round in 0..4 {
        let key = format!("k{round}");
        let all: Vec<_> = (0..8)
            .map(|_| lab.spawn("ana", &["run", "quick.yaml", "--key", &key]))
            .collect();
        let mut started = 0;
        for one in all {
            let done = one.wait().exits(0);
            started += u32::from(!done.stderr.contains("this key has started run"));
            assert!(done.stdout.contains("succeeded"), "{}", done.all());
        }
        assert_eq!(started, 1);
        assert_eq!(runs(&lab).len(), round + 1);
    }
}

#[test]
fn a_refused_start_is_no_run() {
    let lab = lab();
    lab.run(&["run", "quick.yaml"]).exits(0);
    let last = lab.run_id();
    lab.write(
        "closed.yaml",
        &format!("{QUICK}policy: {{ windows: ['Mon 00:00-00:01 UTC', 'Thu 00:00-00:01 UTC'] }}\n")
            .replace("playbook: quick", "playbook: closed"),
    );
    let done = lab.run(&["run", "closed.yaml", "--key", "k9"]).exits(5);
    assert!(
        done.stderr.contains("outside the windows"),
        "{}",
        done.all()
    );
    let run = lab.spawn("ana", &["run", "slow.yaml"]);
    let driven = lab.until("driven", |page| page["run"]["playbook"] == "slow");
    lab.run_as("bruno", &["run", "slow.yaml"])
        .exits(5)
        .says("the.lock");
    assert_eq!(lab.run_id(), driven["run"]["id"]);
    run.wait().exits(0);
    let names: Vec<Json> = runs(&lab)
        .iter()
        .map(|run| run["playbook"].clone())
        .collect();
    assert_eq!(names, ["slow", "quick"]);
    assert_ne!(lab.run_id(), last);
    let done = lab.run(&["runs", "--refused", "--json"]).exits(0);
    let refused: Vec<Json> = serde_json::from_str(&done.stdout).unwrap();
    let told: Vec<_> = refused
        .iter()
        .map(|start| {
            (
                &start["refused_by"],
                &start["by"],
                &start["playbook"],
                &start["exit"],
            )
        })
        .collect();
    assert_eq!(told.len(), 2, "{refused:#?}");
    assert_eq!(
        (told[0].0, told[0].1, told[0].2),
        (
            &Json::from("lock"),
            &Json::from("bruno"),
            &Json::from("slow")
        )
    );
    assert_eq!(
        (told[1].0, told[1].3),
        (&Json::from("window"), &Json::from(5))
    );
    assert_eq!(refused[1]["key"], "k9");
    lab.run(&["runs", "--refused"]).exits(0).says("the.lock");
    // The key is free: no run came of it.
    lab.write(
        "closed.yaml",
        &QUICK.replace("playbook: quick", "playbook: closed"),
    );
    lab.run(&["run", "closed.yaml", "--key", "k9"]).exits(0);
}

#[test]
fn a_command_to_a_finished_run_changes_nothing_of_it() {
    let lab = lab();
    lab.run(&["run", "quick.yaml"]).exits(0);
    let report = || {
        lab.run(&["report", "last", "--format", "json"])
            .exits(0)
            .stdout
    };
    let comparable = |text: String| {
        let mut report: Json = serde_json::from_str(&text).unwrap();
        report.as_object_mut().unwrap().remove("generated_at");
        report
    };
    let summary = |run: &Json| (run["updated_at"].clone(), run["state"].clone());
    let (before, run) = (comparable(report()), runs(&lab).remove(0));
    let head = before["chain"]["head"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(1_100));
    for command in [
        "retry last s",
        "skip last s --because x",
        "pause last",
        "cancel last --undo",
        "cancel last --leave",
    ] {
        let args: Vec<&str> = command.split(' ').collect();
        lab.run(&args).exits(5).says("nothing was recorded");
    }
    assert_eq!(comparable(report()), before);
    // One that came by another way is refused by whoever takes it.
    lab.run(&["retry", "last", "s", "--queue"]).exits(0);
    lab.run(&["resume", "last"]).exits(0);
    assert_eq!(comparable(report()), before);
    assert_eq!(summary(&runs(&lab).remove(0)), summary(&run));
    let shown = lab.run(&["show", "last"]).exits(0).stdout;
    assert!(!shown.contains("after 1."), "{shown}");
    lab.run(&["audit", "last", "--expect", &head])
        .exits(0)
        .says("after its end that changed nothing");
    lab.run(&["audit"]).exits(0);
}

/// Another view of the same folder has the same locks; a view of the single file has no log, and is refused. Only root may mount.
#[test]
fn a_mount_of_the_folder_has_the_same_locks() {
    let lab = lab();
    for folder in ["view", "solo", "frozen"] {
        fs::create_dir(lab.path(folder)).unwrap();
    }
    lab.write("solo/journal.db", "");
    lab.run(&["run", "quick.yaml"]).exits(0);
    let script = format!(
        "set -e
         mount --bind state view; mount --bind state/journal.db solo/journal.db
         mount --bind state frozen; mount -o remount,ro,bind frozen
         W={}; try() {{ set +e; $W \"$@\" >out 2>&1; echo \"$? $(head -1 out)\"; set -e; }}
         $W run slow.yaml >/dev/null 2>&1 & P=$!
         until $W runs --state running 2>/dev/null | grep -q slow; do sleep 0.1; done
         try run slow.yaml --journal view/journal.db
         try run slow.yaml --journal solo/journal.db
         try runs --journal solo/journal.db
         try run slow.yaml --journal frozen/journal.db
         try runs --state running --journal frozen/journal.db; grep -c slow out
         wait $P
         try audit --journal solo/journal.db
         ls solo",
        env!("CARGO_BIN_EXE_windlass")
    );
    let done: Done = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .current_dir(lab.path(""))
        .output()
        .unwrap()
        .into();
    if done.stderr.contains("unshare") || done.stderr.contains("mount:") {
        eprintln!(
            "skipped: this test mounts, which it may not do here: {}",
            done.stderr
        );
        return;
    }
    let lines: Vec<&str> = done.stdout.lines().collect();
    let expected = [
        "5 error: lock \"the.lock\" is held by run",
        "2 error: the journal",
        "2 error: the journal",
        "2 error: the journal",
        "0 RUN",
        "1",
        "0 holds run",
        "journal.db",
    ];
    assert_eq!(lines.len(), expected.len(), "{}", done.all());
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{expected}: {}", done.all());
    }
}

/// A run that is over gave its locks back; to undo it takes them again, or is refused and leaves nothing behind that would act later.
#[test]
fn an_undo_takes_the_locks_of_its_run_again() {
    let lab = lab();
    lab.write(
        "made.yaml",
        "
playbook: made
policy: { locks: [the.lock] }
steps:
  - id: a
    uses: command
    with: { argv: [touch, made], idempotent: true }
    undo: { uses: command, with: { argv: [rm, made], idempotent: true } }
",
    );
    lab.run(&["run", "made.yaml"]).exits(0);
    let made = lab.run_id();
    let rival = lab.spawn("ana", &["run", "slow.yaml"]);
    lab.until("slow", |page| page["run"]["playbook"] == "slow");
    lab.run(&["undo", &made])
        .exits(5)
        .says("lock \"the.lock\" is held by run");
    assert!(lab.path("made").exists());
    rival.wait().exits(0);
    lab.run(&["resume", &made]).exits(0);
    assert!(lab.path("made").exists());
    lab.run(&["undo", &made]).exits(0);
    assert!(!lab.path("made").exists());
}

/// What a run did makes its plan another one: the key is asked before the plan.
#[test]
fn a_start_by_plan_and_key_is_asked_for_again() {
    let lab = lab();
    lab.write(
        "writes.yaml",
        "
playbook: writes
targets: { app: { kind: sqlite } }
steps:
  - { id: t, uses: sql.script, undo: none, with: { target: app, sql: 'CREATE TABLE t (x); INSERT INTO t VALUES (1)' } }
",
    );
    lab.execute("app.db", "CREATE TABLE unrelated (x)");
    lab.run(&["plan", "writes.yaml", "-o", "plan.json"])
        .exits(0);
    let run = ["run", "writes.yaml", "--plan", "plan.json", "--key", "k"];
    lab.run(&run).exits(0);
    lab.run(&run).exits(0).says("this key has started run");
    // Without the key the plan refuses another start of other inputs, and that is kept as a refused start.
    lab.write("quick2.yaml", QUICK);
    lab.run(&["plan", "quick2.yaml", "-o", "quick.json"])
        .exits(0);
    lab.run(&[
        "run",
        "quick2.yaml",
        "-i",
        "n=7",
        "--plan",
        "quick.json",
        "--key",
        "l",
    ])
    .exits(5);
    let done = lab.run(&["runs", "--refused", "--json"]).exits(0);
    let refused: Vec<Json> = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(
        (&refused[0]["refused_by"], &refused[0]["key"]),
        (&Json::from("plan"), &Json::from("l"))
    );
    assert_eq!(runs(&lab).len(), 1);
}

/// A journal that another process has locked exclusively is reported as locked, not as empty.
#[test]
fn a_journal_that_is_held_by_another_is_told() {
    let lab = lab();
    lab.run(&["run", "quick.yaml"]).exits(0);
    let alone = rusqlite::Connection::open(lab.path("state/journal.db")).unwrap();
    alone
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; UPDATE runs SET state = state; COMMIT")
        .unwrap();
    let done = lab.run(&["runs", "--json"]).exits(2);
    let error = lines(&done).remove(0);
    let message = error["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("state/journal.db cannot be opened: it was held by another process for more than 10 seconds"),
        "{message}"
    );
}
