//! Votes and signals: recorded, answered at once, bound to the account that cast them; none of them drives the run.
use crate::{
    approvals::asking,
    common::{Done, Lab},
};
use nix::unistd::Uid;
use serde_json::Value as Json;
use std::os::unix::fs::PermissionsExt;

fn waiting(with: &str) -> Lab {
    let lab = asking(with);
    lab.run(&["run", "p.yaml", "--no-wait"]).exits(4);
    lab
}

fn names(list: &Json, key: &str) -> Vec<String> {
    let list = list.as_array().unwrap();
    list.iter()
        .map(|entry| entry[key].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_vote_is_recorded_and_does_not_drive() {
    let lab = waiting("      quorum: 2");
    lab.run_as("bruno", &["approve", "last", "--because", "fine"])
        .exits(0)
        .says("recorded: sign_off has your approval; it has 1 of 2 approvals")
        .says("no process drives the run: it waits in the run's inbox; `windlass resume ");
    assert_eq!(lab.state(), "waiting");
    assert_eq!(lab.step("sign_off")["votes"].as_array().unwrap().len(), 0);
    let page = lab.show();
    assert_eq!(names(&page["inbox"], "words"), ["approve sign_off"]);
    assert_eq!(page["inbox"][0]["who"], "bruno");
    let resume = page["inbox"][0]["taken_by"].as_str().unwrap().to_owned();
    assert_eq!(page["next"][0]["command"], resume.as_str());
    let page = lab.run(&["show", "last"]).exits(0);
    page.says("approve sign_off by bruno, waits since")
        .says("no process drives the run; this takes it: windlass resume ");
    // What waits in the inbox counts for the next voter.
    lab.run_as("bruno", &["approve", "last"])
        .exits(5)
        .says("has voted already")
        .says("nothing was recorded");
    lab.run_as("carla", &["approve", "last"])
        .exits(0)
        .says("1 of 2 approvals by dba")
        .says("recorded: sign_off has your approval; it is decided");
    lab.run_as("bruno", &["approve", "last"])
        .exits(5)
        .says("no step of this run asks for an approval now");
    // The command that was printed, as it was printed.
    let args: Vec<&str> = resume.split(' ').skip(1).collect();
    lab.run(&args).exits(0);
    assert_eq!(lab.state(), "succeeded");
    assert!(lab.show()["inbox"].as_array().unwrap().is_empty());
}

#[test]
fn who_may_not_vote_reads_so_beside_the_command() {
    let lab = waiting("      quorum: 1");
    lab.run_as("bruno", &["show", "last"])
        .exits(0)
        .says("# approve\n");
    let why = "not by you: mallory is in none of the groups that may vote (dba)";
    lab.run_as("mallory", &["show", "last"])
        .exits(0)
        .says(&format!("# approve; {why}"))
        .says(&format!("# reject; {why}"));
    let next = lab.run_as("mallory", &["show", "last", "--json"]).exits(0);
    next.says(why);
}

#[test]
fn a_vote_says_which_process_drives_the_run() {
    let lab = asking("      expires: 1h");
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("sign_off", "awaiting_approval");
    lab.run_as("mallory", &["approve", "last"])
        .exits(5)
        .says("mallory is in none of the groups");
    let driver = format!("process {} of ana on ", running.pid());
    lab.run_as("bruno", &["approve", "last"])
        .exits(0)
        .says("accepted: sign_off has your approval; it is decided")
        .says(&driver)
        .says(" drives the run; `windlass watch ");
    running.wait().exits(0);
    let page = lab.show();
    assert_eq!(names(&page["refused"], "words"), ["approve sign_off"]);
    let reason = page["refused"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("in none of the groups"), "{reason}");
    lab.run(&["show", "last"])
        .exits(0)
        .says("approve sign_off by mallory: mallory");
}

#[test]
fn a_vote_that_would_not_count_is_refused_at_once() {
    let lab = waiting("      ask:\n        how: { type: string, enum: [cancel, stop] }");
    let refused = |who: &str, args: &[&str], code: i32, why: &str| {
        let args = [&["approve", "last", "sign_off"], args].concat();
        lab.run_as(who, &args)
            .exits(code)
            .says(why)
            .says("nothing was recorded");
    };
    refused("bruno", &[], 2, "is not answered");
    refused(
        "bruno",
        &["--answer", "how=x"],
        5,
        "is not one of: cancel, stop",
    );
    refused(
        "bruno",
        &["--answer", "how=stop", "--answer", "more=1"],
        2,
        "sign_off asks no question \"more\"",
    );
    refused(
        "mallory",
        &["--answer", "how=stop"],
        5,
        "in none of the groups",
    );
    refused("ana", &["--answer", "how=stop"], 5, "started this run");
    lab.run_as("bruno", &["approve", "last", "one"])
        .exits(5)
        .says("these steps do: sign_off");
    lab.run_as("bruno", &["approve", "nonsense"]).exits(2);
    assert!(lab.show()["inbox"].as_array().unwrap().is_empty());
    assert!(lab.show()["refused"].as_array().unwrap().is_empty());
    let lab = waiting("      expires: 50ms");
    std::thread::sleep(std::time::Duration::from_millis(60));
    lab.run_as("bruno", &["approve", "last"])
        .exits(5)
        .says("the question of sign_off expired at");
    lab.run(&["resume", "last"]).exits(1);
    lab.run_as("bruno", &["approve", "last"])
        .exits(5)
        .says("the run is compensated");
}

#[test]
fn a_vote_needs_neither_the_environment_nor_its_secrets() {
    let lab = asking("      expires: 1h");
    lab.write(
        "windlass.yaml",
        "environments:\n  local:\n    targets:\n      app: { url: \"sqlite:${{ secret('file') }}\", create: true }\n    secrets:\n      file: { file: secret.txt }\napprovers:\n  dba: [daemon, bin]\n",
    );
    lab.write("secret.txt", "hidden.db");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(lab.path("secret.txt"), private).unwrap();
    lab.run(&["run", "p.yaml", "--no-wait"]).exits(4);
    std::fs::rename(lab.path("windlass.yaml"), lab.path("away.yaml")).unwrap();
    std::fs::rename(lab.path("secret.txt"), lab.path("away.txt")).unwrap();
    std::fs::rename(lab.path("hidden.db"), lab.path("away.db")).unwrap();
    lab.run_as(
        "bruno",
        &["approve", "last", "--journal", ".windlass/journal.db"],
    )
    .exits(0)
    .says("recorded")
    .says("--journal .windlass/journal.db` drives the run and takes it");
    lab.run_as(
        "carla",
        &["signal", "last", "go", "--journal", ".windlass/journal.db"],
    )
    .exits(0);
    assert!(!lab.path("hidden.db").exists(), "no target was opened");
    std::fs::rename(lab.path("away.yaml"), lab.path("windlass.yaml")).unwrap();
    std::fs::rename(lab.path("away.txt"), lab.path("secret.txt")).unwrap();
    std::fs::rename(lab.path("away.db"), lab.path("hidden.db")).unwrap();
    lab.run(&["resume", "last"]).exits(0);
}

/// Whoever drives the run answers: who asks opens nothing but the journal.
#[test]
fn a_run_that_a_process_drives_is_cancelled_from_an_account_without_the_environment() {
    let lab = asking("      expires: 1h");
    let running = lab.spawn("ana", &["run", "p.yaml"]);
    lab.until_step("sign_off", "awaiting_approval");
    std::fs::rename(lab.path("windlass.yaml"), lab.path("away.yaml")).unwrap();
    let journal = ["--journal", ".windlass/journal.db"];
    let cancel = ["cancel", "last", "--undo", "--because", "wrong day"];
    lab.run_as("mallory", &[&cancel[..], &journal].concat())
        .exits(0)
        .says("accepted: the run ends as soon as what runs has ended");
    running
        .wait()
        .exits(1)
        .says("cancelled by mallory, undoing");
    assert_eq!(lab.count("app.db", "SELECT count(*) FROM n"), 0);
}

#[test]
fn the_answer_is_json_where_json_is_asked_for() {
    let lab = waiting("      expires: 1h");
    let done = lab
        .run_as("bruno", &["reject", "last", "--because", "no", "--json"])
        .exits(0);
    let answer: Json = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(answer["answer"], "recorded");
    assert_eq!(answer["driven_by"], Json::Null);
    assert!(
        answer["next"]
            .as_str()
            .unwrap()
            .starts_with("windlass resume ")
    );
    assert!(done.stderr.is_empty(), "{}", done.all());
    lab.run(&["resume", "last"])
        .exits(1)
        .says("bruno rejects: no");
}

#[test]
fn a_signal_is_recorded_and_does_not_drive() {
    let lab = Lab::new();
    lab.write(
        "p.yaml",
        "playbook: s\nsteps:\n  - id: ready\n    uses: wait.signal\n    with: { name: go }\n",
    );
    lab.run(&["run", "p.yaml", "--no-wait"]).exits(4);
    lab.run(&["signal", "last", "went"])
        .exits(0)
        .says("no step waits for it now")
        .says("ready waits for signal go");
    lab.run(&["signal", "last", "go"])
        .exits(0)
        .says("recorded: signal go")
        .says("`windlass resume ");
    assert_eq!(lab.state(), "waiting");
    lab.run(&["resume", "last"]).exits(0);
    lab.run(&["signal", "last", "go"])
        .exits(5)
        .says("the run is over")
        .says("nothing was recorded");
    let end = lab.show()["last_event_at"].clone();
    lab.run(&["signal", "last", "go"]).exits(5);
    assert_eq!(lab.show()["last_event_at"], end);
}

#[test]
fn a_claimed_name_is_shown_with_its_account_and_makes_no_second_voter() {
    let lab = waiting("      quorum: 2");
    let me = nix::unistd::User::from_uid(Uid::current())
        .unwrap()
        .unwrap()
        .name;
    // Who started the run may not vote on it, whatever they call themselves.
    let as_bruno = ["approve", "last", "--as", "bruno"];
    lab.run(&as_bruno)
        .exits(5)
        .says(&format!("{me} started this run"));
    // One account has one vote.
    lab.run_as("bruno", &["approve", "last"]).exits(0);
    lab.run_as("bruno", &["approve", "last", "--as", "carla"])
        .exits(5)
        .says("has voted already, as bruno: one account has one vote");
    // A claimed name opens no group.
    lab.run_as("mallory", &["approve", "last", "--as", "bruno"])
        .exits(5)
        .says("bruno (account ")
        .says("with separation_of_duties the account of the operating system counts");
    lab.run_as("carla", &["approve", "last", "--as", "Carla Souza"])
        .exits(0);
    lab.run(&["resume", "last"]).exits(0);
    let votes = lab.step("sign_off")["votes"].clone();
    assert_eq!(names(&votes, "who"), ["bruno", "Carla Souza"]);
    assert_eq!(votes[0]["account"]["uid"], 1);
    assert_eq!(votes[1]["account"]["uid"], 2);
    let account = |vote: usize| votes[vote]["account"]["name"].as_str().unwrap().to_owned();
    let shown = |done: Done, text: &str| {
        assert!(
            done.stdout.contains(text),
            "{text:?} is not in {}",
            done.all()
        );
    };
    let started = format!("by ana (account {me})");
    shown(lab.run(&["show", "last"]), &started);
    shown(lab.run(&["runs"]), &format!("ana (account {me})"));
    shown(lab.run(&["audit"]), &format!("started {started}"));
    for format in ["markdown", "html"] {
        shown(lab.run(&["report", "--format", format]), &started);
        let voter = format!("Carla Souza (account {})", account(1));
        shown(lab.run(&["report", "--format", format]), &voter);
    }
    let report = lab.run(&["report", "--format", "json"]).exits(0);
    let report: Json = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["account"]["name"], me.as_str());
    assert_eq!(report["drivers"][0]["account"]["name"], me.as_str());
    assert_eq!(report["commands"][0]["account"]["uid"], 1);
    let runs = lab.run(&["runs", "--json"]).exits(0);
    let runs: Json = serde_json::from_str(&runs.stdout).unwrap();
    assert_eq!(runs[0]["by"], "ana");
    assert_eq!(runs[0]["account"]["name"], me.as_str());
    let output = &lab.step("sign_off")["output"]["approved_by"];
    assert_eq!(output[1], format!("Carla Souza (account {})", account(1)));
}

#[test]
fn a_name_that_could_pass_for_an_account_is_refused() {
    let lab = waiting("      expires: 1h");
    let long = "x".repeat(65);
    for name in [
        "root (account root)",
        "a\nb",
        "a\u{1b}[2J",
        "a\u{202e}b",
        long.as_str(),
    ] {
        let done = lab
            .run_as("bruno", &["approve", "last", "--as", name])
            .exits(2);
        assert!(!done.stderr.contains('\u{1b}'), "{:?}", done.stderr);
        let mut command = lab.command("bruno", &["approve", "last"]);
        command.env("WINDLASS_USER", name);
        Done::from(command.output().unwrap()).exits(2);
    }
    assert!(lab.show()["inbox"].as_array().unwrap().is_empty());
    // An empty name is none.
    let mut command = lab.command("bruno", &["approve", "last"]);
    command.env("WINDLASS_USER", "");
    Done::from(command.output().unwrap()).exits(0);
    let inbox = lab.show()["inbox"].clone();
    assert_eq!(inbox[0]["who"], inbox[0]["account"]["name"]);
}

/// Two accounts for good, as only root can make them: no user namespace, no name that is claimed.
#[test]
fn two_accounts_of_the_operating_system_make_a_quorum() {
    if !Uid::current().is_root() {
        eprintln!("not root: another account cannot be taken on");
        return;
    }
    let lab = waiting("      quorum: 2");
    let vote = |uid: u32| -> Done {
        let mut command = lab.by_real_account(uid);
        command
            .arg(env!("CARGO_BIN_EXE_windlass"))
            .args(["approve", "last"])
            .current_dir(lab.path(""))
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        command.output().unwrap().into()
    };
    vote(1).exits(0).says("it has 1 of 2 approvals");
    vote(1).exits(5).says("has voted already");
    vote(3).exits(5).says("in none of the groups");
    vote(2).exits(0).says("it is decided");
    lab.run(&["resume", "last"]).exits(0);
    let votes = lab.step("sign_off")["votes"].clone();
    for (vote, uid) in [(0, 1), (1, 2)] {
        assert_eq!(votes[vote]["account"]["uid"], uid);
        assert_eq!(votes[vote]["who"], votes[vote]["account"]["name"]);
    }
}
