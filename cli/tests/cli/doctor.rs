//! `windlass doctor` over files that are there, that are not, and that are something else.
use crate::common::{Done, Lab};
use serde_json::Value as Json;
use std::{
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Stdio,
};

/// Five targets: fit, missing, not a database, to be created, an unknown kind.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.write(
        "windlass.yaml",
        r#"
environments:
  prod:
    targets:
      shop: { url: "sqlite:shop.db", ledger: windlass_ledger }
  broken:
    targets:
      gone: { url: "sqlite:gone.db" }
      text: { url: "sqlite:text.db" }
      folder: { url: "sqlite:folder" }
      later: { url: "sqlite:new/later.db", create: true, ledger: windlass_ledger }
      other: { url: "nosuch://host/db" }
      taken: { url: "sqlite:taken.db", ledger: orders }
default: prod
"#,
    );
    lab.execute("shop.db", "CREATE TABLE orders (id INTEGER PRIMARY KEY)");
    lab.execute("taken.db", "CREATE TABLE orders (id INTEGER PRIMARY KEY)");
    lab.write(
        "text.db",
        "this is a letter, not a database, and longer than a header of a file\n",
    );
    std::fs::create_dir(lab.path("folder")).unwrap();
    lab
}

fn found(lab: &Lab, args: &[&str], code: i32) -> Json {
    let mut all = vec!["doctor", "--json"];
    all.extend(args);
    let done = lab.run(&all).exits(code);
    serde_json::from_str(&done.stdout).unwrap()
}

fn target<'a>(page: &'a Json, name: &str) -> &'a Json {
    let all = page["targets"].as_array().unwrap();
    all.iter().find(|target| target["name"] == name).unwrap()
}

fn files(lab: &Lab) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(lab.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    all.sort();
    all
}

#[test]
fn a_fit_target_says_so() {
    let lab = lab();
    let before = (files(&lab), std::fs::read(lab.path("shop.db")).unwrap());
    let done = lab.run(&["doctor"]).exits(0);
    for said in [
        "environment prod",
        "shop",
        "ok",
        "SQLite 3",
        "reads and writes",
        "windlass_ledger (missing)",
    ] {
        assert!(
            done.stdout.contains(said),
            "{said:?} is not in\n{}",
            done.stdout
        );
    }
    assert!(
        done.stdout
            .contains("note: target shop: the ledger windlass_ledger is not there yet")
    );
    let page = found(&lab, &[], 0);
    assert_eq!(page["fit"], true);
    let shop = target(&page, "shop");
    assert_eq!(shop["state"], "ok");
    assert_eq!(shop["ledger"]["state"], "missing");
    assert!(shop["instance"].as_str().unwrap().ends_with("/shop.db"));
    assert!(shop["latency_ms"].is_u64());
    let after = (files(&lab), std::fs::read(lab.path("shop.db")).unwrap());
    assert_eq!(before, after, "it only reads");
}

#[test]
fn each_trouble_has_its_own_sentence_and_next_step() {
    let lab = lab();
    let page = found(&lab, &["--env", "broken"], 1);
    assert_eq!(page["fit"], false);
    let mut codes = Vec::new();
    for (name, code, said) in [
        ("gone", "target.missing", "there is no database file"),
        ("text", "sql.corrupt", "no sound SQLite database"),
        ("folder", "target.not_a_file", "is no file"),
        ("other", "target.kind", "cannot reach a \"nosuch\""),
        ("taken", "target.ledger_wrong", "is no ledger"),
    ] {
        let target = target(&page, name);
        assert_eq!(target["state"], "problem", "{target:#}");
        let finding = &target["findings"][0];
        assert_eq!(finding["code"], code, "{target:#}");
        assert_eq!(finding["severity"], "problem");
        assert!(
            finding["message"].as_str().unwrap().contains(said),
            "{finding:#}"
        );
        assert!(!finding["help"].as_str().unwrap().is_empty());
        codes.push(code);
    }
    // A file that a run may create is no trouble.
    let later = target(&page, "later");
    assert_eq!(later["findings"][0]["severity"], "advice");
    assert_eq!(later["rights"], "may be created");
    assert!(!lab.path("new").exists(), "nothing is made by looking");
    let text = lab.run(&["doctor", "--env", "broken"]).exits(1).stdout;
    assert_eq!(text.matches("problem: ").count(), codes.len(), "{text}");
}

/// As a user who may not read the file. For root there are no such files, so the binary runs as another.
#[test]
fn a_file_that_may_not_be_read_or_written() {
    let lab = lab();
    lab.execute("other.db", "CREATE TABLE t (a)");
    lab.write(
        "windlass.yaml",
        "environments:\n  a:\n    targets:\n      shop: { url: 'sqlite:shop.db' }\n      other: { url: 'sqlite:other.db' }\n",
    );
    let mode = |name: &str, mode: u32| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(lab.path(name), permissions).unwrap();
    };
    mode("shop.db", 0o000);
    mode("other.db", 0o444);
    mode(".", 0o755);
    let mut command = lab.command("ana", &["doctor", "--json"]);
    if nix::unistd::Uid::effective().is_root() {
        // The binary itself may stand where only root can look.
        let binary = lab.path("windlass");
        std::fs::copy(env!("CARGO_BIN_EXE_windlass"), &binary).unwrap();
        command = std::process::Command::new(&binary);
        command
            .args(["doctor", "--json"])
            .current_dir(lab.path("."))
            .uid(65_534)
            .gid(65_534)
            .stdin(Stdio::null());
    }
    let done = Done::from(command.output().unwrap()).exits(1);
    let page: Json = serde_json::from_str(&done.stdout).unwrap();
    let shop = target(&page, "shop");
    assert_eq!(shop["findings"][0]["code"], "target.rights", "{shop:#}");
    assert_eq!(shop["rights"], "none");
    let other = target(&page, "other");
    assert_eq!(other["rights"], "reads only");
    assert_eq!(other["findings"][0]["code"], "target.read_only");
    assert_eq!(other["findings"][0]["severity"], "advice");
}

#[test]
fn a_ledger_is_made_only_after_a_yes() {
    let lab = lab();
    let standing = |lab: &Lab| {
        lab.count(
            "shop.db",
            "SELECT count(*) FROM sqlite_schema WHERE name = 'windlass_ledger'",
        )
    };
    // No terminal and no --yes: the statements are shown, nothing is made.
    let done = lab.run(&["doctor", "--init-ledger"]).exits(5);
    assert!(
        done.stderr
            .contains("CREATE TABLE IF NOT EXISTS \"windlass_ledger\""),
        "{}",
        done.all()
    );
    assert!(done.stderr.contains("rights: "), "{}", done.all());
    assert!(done.stderr.contains("--yes"), "{}", done.all());
    assert_eq!(standing(&lab), 0);
    lab.run(&["doctor", "--yes"]).exits(2);
    for (answer, made) in [("\n", 0), ("n\n", 0), ("y\n", 1)] {
        // `script` gives it a terminal.
        let command = lab.command("ana", &[]);
        let binary = command.get_program().to_owned().into_string().unwrap();
        let line = format!("{binary} doctor --init-ledger shop");
        let mut terminal = std::process::Command::new("script");
        terminal
            .args(["-qec", &line, "/dev/null"])
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .current_dir(lab.path("."))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = terminal
            .spawn()
            .expect("script is missing; install bsdutils");
        // The question first, then the answer: what is typed ahead is an answer as well.
        child
            .stdin
            .take()
            .unwrap()
            .write_all(answer.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("make it on shop? [y/N]"), "{said}");
        assert_eq!(standing(&lab), made, "{answer:?} {said}");
    }
    let page = found(&lab, &[], 0);
    let shop = target(&page, "shop");
    assert_eq!(shop["ledger"]["state"], "ready");
    assert_eq!(shop["findings"].as_array().unwrap().len(), 0);
    lab.run(&["doctor", "--init-ledger", "--yes"])
        .exits(0)
        .says("the ledger windlass_ledger exists");

    // For a script, in a file that is not there yet.
    lab.run(&[
        "doctor",
        "--env",
        "broken",
        "later",
        "--init-ledger",
        "--yes",
    ])
    .exits(0)
    .says("the ledger is made");
    let rows = lab.count("new/later.db", "SELECT count(*) FROM windlass_ledger");
    assert_eq!(rows, 0);
}

#[test]
fn wrong_names_are_told() {
    let lab = lab();
    lab.run(&["doctor", "shpo"]).exits(2).says("shop");
    lab.run(&["doctor", "--env", "prdo"]).exits(2).says("prod");
    lab.run(&["doctor", "--timeout", "0s"]).exits(2);
    lab.write("windlass.yaml", "environments:\n  empty: {}\n");
    lab.run(&["doctor"]).exits(2).says("has no targets");
}

/// A playbook says which targets it wants.
#[test]
fn the_targets_of_a_playbook() {
    let lab = lab();
    lab.write(
        "p.yaml",
        "playbook: p\ntargets:\n  shop: { kind: sqlite }\nsteps:\n  - id: a\n    uses: sql.query\n    with: { target: shop, sql: SELECT 1 }\n",
    );
    let page = found(&lab, &["--playbook", "p.yaml"], 0);
    assert_eq!(page["targets"].as_array().unwrap().len(), 1);
    lab.run(&["doctor", "--playbook", "p.yaml", "--env", "broken"])
        .exits(2)
        .says("shop");
}

/// Somebody holds the file's lock: told as such, and told in time.
#[test]
fn a_locked_file_does_not_hang() {
    let lab = lab();
    let holder = rusqlite::Connection::open(lab.path("shop.db")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let page = found(&lab, &[], 1);
    let finding = &target(&page, "shop")["findings"][0];
    assert_eq!(finding["code"], "sql.lock_timeout", "{finding:#}");
    let page = found(&lab, &["--timeout", "200ms"], 1);
    let finding = &target(&page, "shop")["findings"][0];
    assert_eq!(finding["code"], "target.no_answer", "{finding:#}");
    assert!(finding["help"].as_str().unwrap().contains("--timeout"));
    holder.execute_batch("ROLLBACK").unwrap();
    found(&lab, &[], 0);
}
