//! One journal of several accounts, as the README says: real users of the operating system, made for the test and removed.
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Two members of a group, and one who is not.
struct People {
    group: String,
    ana: String,
    bruno: String,
    stranger: String,
}

fn root(program: &str, args: &[&str]) -> bool {
    let done = Command::new(program)
        .args(args)
        .env(
            "PATH",
            "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
        )
        .output();
    done.is_ok_and(|done| done.status.success())
}

impl People {
    /// `None` where this test may not make users.
    fn new() -> Option<Self> {
        let id = std::process::id();
        let people = Self {
            group: format!("wlg{id}"),
            ana: format!("wla{id}"),
            bruno: format!("wlb{id}"),
            stranger: format!("wlc{id}"),
        };
        let made = nix::unistd::Uid::effective().is_root()
            && root("groupadd", &["--system", &people.group])
            && [&people.ana, &people.bruno, &people.stranger]
                .iter()
                .all(|user| {
                    root(
                        "useradd",
                        &["--system", "--no-create-home", "--user-group", user],
                    )
                })
            && [&people.ana, &people.bruno]
                .iter()
                .all(|user| root("usermod", &["-aG", &people.group, user]));
        made.then_some(people)
    }
}

impl Drop for People {
    fn drop(&mut self) {
        for user in [&self.ana, &self.bruno, &self.stranger] {
            root("userdel", &[user]);
        }
        root("groupdel", &[&self.group]);
    }
}

struct Host {
    dir: TempDir,
    people: People,
}

impl Host {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, user: &str, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", user, "--regid", user, "--init-groups", "--"])
            .arg(self.path("windlass"))
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What it printed, where it ended with this code.
    #[track_caller]
    fn run(&self, user: &str, args: &str, code: i32) -> String {
        let args: Vec<&str> = args.split(' ').collect();
        let done = self.command(user, &args).output().unwrap();
        let all = format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        assert_eq!(done.status.code(), Some(code), "{user} {args:?}: {all}");
        all
    }

    fn state(&self, user: &str) -> String {
        let page = self.run(user, "runs --json", 0);
        let runs: Vec<serde_json::Value> = serde_json::from_str(&page).unwrap();
        runs[0]["state"].as_str().unwrap().to_owned()
    }

    /// A run that this account drives until it is killed.
    fn drive(&self, user: &str) -> Child {
        let child = self.command(user, &["run", "slow.yaml"]).spawn().unwrap();
        let start = Instant::now();
        while !self
            .run(user, "runs --json", 0)
            .contains("\"playbook\": \"slow\"")
        {
            assert!(start.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(50));
        }
        child
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn two_users_start_vote_and_drive_by_one_journal() {
    let Some(people) = People::new() else {
        eprintln!("skipped: this test makes users, which only root may do, by useradd");
        return;
    };
    let host = Host {
        dir: tempfile::tempdir().unwrap(),
        people,
    };
    let People {
        group,
        ana,
        bruno,
        stranger,
    } = &host.people;
    fs::copy(env!("CARGO_BIN_EXE_windlass"), host.path("windlass")).unwrap();
    fs::set_permissions(host.path("windlass"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(host.dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(
        host.path("windlass.yaml"),
        format!(
            "journal: {{ path: state/journal.db, group: {group} }}\napprovers: {{ dba: [{ana}, {bruno}] }}\n\
             environments:\n  local:\n    targets:\n      app: {{ url: 'sqlite:app.db' }}\n"
        ),
    )
    .unwrap();
    fs::write(host.path("app.db"), "").unwrap();
    fs::write(
        host.path("asks.yaml"),
        "playbook: asks\nsteps:\n  - { id: sign_off, uses: approval, with: { prompt: 'Go?', groups: [dba] } }\n  \
         - { id: after, uses: script, with: { code: '1' } }\n",
    )
    .unwrap();
    fs::write(
        host.path("slow.yaml"),
        "playbook: slow\npolicy: { locks: [slow] }\nsteps:\n  - id: a\n    uses: command\n    undo: none\n    \
         with: { argv: [sleep, '3'], idempotent: true }\n",
    )
    .unwrap();
    // Ana's umask would keep Bruno out; the journal is for the group all the same.
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    host.run(ana, "run asks.yaml --no-wait", 4);
    nix::sys::stat::umask(old);
    assert_eq!(mode(&host.path("state")), 0o2770);
    let gid = nix::unistd::Group::from_name(group)
        .unwrap()
        .unwrap()
        .gid
        .as_raw();
    for file in ["journal.db", "journal.db.locks"] {
        let file = host.path("state").join(file);
        assert_eq!(mode(&file), 0o660, "{}", file.display());
        assert_eq!(fs::metadata(&file).unwrap().gid(), gid);
    }
    // Bruno votes, and drives it to its end where the vote has not.
    host.run(bruno, "approve last sign_off", 0);
    if host.state(bruno) != "succeeded" {
        host.run(bruno, "resume last", 0);
    }
    assert_eq!(host.state(ana), "succeeded");
    // Bruno starts, Ana is kept out while he drives, and takes over when he is gone.
    let mut child = host.drive(bruno);
    for ending in ["-wal", "-shm"] {
        let file = host.path(&format!("state/journal.db{ending}"));
        assert_eq!(mode(&file), 0o660, "{}", file.display());
        assert_eq!(fs::metadata(&file).unwrap().gid(), gid);
    }
    let held = host.run(ana, "resume last", 5);
    assert!(held.contains(&format!("is driven by {bruno}")), "{held}");
    let held = host.run(ana, "run slow.yaml", 5);
    assert!(held.contains("lock \"slow\" is held by run"), "{held}");
    child.kill().unwrap();
    child.wait().unwrap();
    host.run(ana, "resume last", 0);
    assert_eq!(host.state(bruno), "succeeded");
    for user in [ana, bruno] {
        host.run(user, "audit", 0);
        let fit = host.run(user, "doctor", 0);
        assert!(fit.contains(&format!("group {group}: ok")), "{fit}");
    }
    // Whoever is not in the group reads nothing, and is told why.
    let refused = host.run(stranger, "runs", 2);
    assert!(refused.contains("Permission denied"), "{refused}");
    let unfit = host.run(stranger, "doctor", 1);
    assert!(
        unfit.contains(&format!("usermod -aG {group} {stranger}")),
        "{unfit}"
    );
    // What was changed by hand is found, and the command that doctor prints puts it right.
    for (path, wrong) in [
        ("state/journal.db", 0o600),
        ("state/journal.db.locks", 0o644),
        ("state", 0o700),
    ] {
        fs::set_permissions(host.path(path), fs::Permissions::from_mode(wrong)).unwrap();
        let unfit = host.run(ana, "doctor", 1);
        let help = unfit
            .lines()
            .find_map(|line| line.split_once("help: ").map(|(_, help)| help))
            .unwrap();
        assert!(help.starts_with("chgrp "), "{unfit}");
        assert!(root("sh", &["-c", help]), "{help}");
        host.run(bruno, "doctor", 0);
        host.run(bruno, "runs", 0);
    }
}
