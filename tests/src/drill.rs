//! A playbook that ships, called in a folder of its own by the real binary.
#![expect(
    clippy::expect_used,
    reason = "a test's set-up: it panics where a test would"
)]
use crate::{
    program::windlass,
    servers::{self, postgres::Postgres},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// The password that a drill's environment may name as `env: DRILL_PASSWORD`: that of the servers of the tests.
const PASSWORD: &str = "a password of the tests";

/// A folder with an environment, and a playbook of `playbooks/postgres`.
#[derive(Debug)]
pub struct Drill {
    folder: TempDir,
    playbook: PathBuf,
    /// The binary, where the server's user runs it.
    binary: Option<PathBuf>,
}

/// What a call printed, and how it ended.
#[derive(Debug)]
pub struct Told {
    /// Both outputs.
    pub all: String,
    code: Option<i32>,
}

impl Told {
    /// How it ended.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// With this code, or the test fails with what was printed.
    #[track_caller]
    #[expect(clippy::must_use_candidate, reason = "it is an assertion")]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.all);
        self
    }
}

impl Drill {
    /// A drill of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap_or(Path::new("."));
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            playbook: root.join("playbooks/postgres").join(name),
            binary: None,
        }
    }

    /// A playbook of this text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut drill = Self::new("");
        drill.playbook = drill.path().join("playbook.yaml");
        std::fs::write(&drill.playbook, text).expect("a playbook");
        drill
    }

    /// The same, whose target `db` is this server's own database.
    #[must_use]
    pub fn on(server: &Postgres, text: &str) -> Self {
        let drill = Self::of(text);
        drill.environment(&format!(
            "    targets:\n      db: {{ url: '{}', tls: off }}\n",
            server.url("postgres")
        ));
        drill
    }

    /// One that ships, run by the user of the servers: the programs of a server refuse the superuser of the host. All that it
    /// needs is in a folder that this user may read.
    #[must_use]
    pub fn by_the_servers_user(name: &str) -> Self {
        let mut drill = Self::new(name);
        let copy = drill.path().join(name);
        std::fs::create_dir(&copy).expect("a folder");
        let from = drill.playbook.join("playbook.yaml");
        std::fs::copy(from, copy.join("playbook.yaml")).expect("the playbook");
        let binary = drill.path().join("windlass");
        std::fs::copy(windlass(), &binary).expect("the binary");
        servers::give(drill.path());
        drill.playbook = copy;
        drill.binary = Some(binary);
        drill
    }

    /// The keys of the environment `local`, indented by four. The account of bruno is the group dba.
    pub fn environment(&self, keys: &str) {
        let text = format!(
            "journal: journal.db\napprovers: {{ dba: [daemon, bin] }}\nenvironments:\n  local:\n{keys}"
        );
        std::fs::write(self.path().join("windlass.yaml"), text).expect("an environment file");
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The playbook, as an argument.
    #[must_use]
    pub fn playbook(&self) -> &str {
        self.playbook.to_str().expect("a path that is text")
    }

    /// `windlass VERB PLAYBOOK ARGS`, by ana.
    #[must_use]
    pub fn call(&self, verb: &str, args: &[&str]) -> Told {
        self.say(&[&[verb, self.playbook()], args].concat())
    }

    /// `windlass ARGS`, by ana.
    #[must_use]
    pub fn say(&self, args: &[&str]) -> Told {
        self.say_as("ana", args)
    }

    /// `windlass ARGS`, by someone.
    #[must_use]
    pub fn say_as(&self, who: &str, args: &[&str]) -> Told {
        let done = self.command(who, args).output().expect("windlass runs");
        Told {
            all: format!(
                "{}{}",
                String::from_utf8_lossy(&done.stdout),
                String::from_utf8_lossy(&done.stderr)
            ),
            code: done.status.code(),
        }
    }

    /// The command, to be started in the background.
    #[must_use]
    pub fn command(&self, who: &str, args: &[&str]) -> Command {
        let binary = self.binary.clone().unwrap_or_else(windlass);
        // Everyone but ana acts under another account of the operating system, with the same rights on files.
        let other = ["--user", "--map-user=1"];
        let mut command = match (&self.binary, who) {
            (Some(_), "ana") => servers::as_server(&binary),
            (None, "ana") => Command::new(&binary),
            (Some(_), _) => servers::as_server(Path::new("unshare")),
            (None, _) => Command::new("unshare"),
        };
        if who != "ana" {
            command.args(other).arg(&binary);
        }
        command
            .args(args)
            .current_dir(self.path())
            .env("HOME", self.path())
            .env("WINDLASS_USER", who)
            .env("DRILL_PASSWORD", PASSWORD);
        command
    }

    /// The state of a step of the last run; empty where it is not there yet.
    #[must_use]
    pub fn state_of(&self, step: &str) -> String {
        let page = self.say(&["show", "last", "--json"]).all;
        let page: serde_json::Value = serde_json::from_str(&page).unwrap_or_default();
        let steps = page.get("steps").and_then(serde_json::Value::as_array);
        let found = steps
            .into_iter()
            .flatten()
            .find(|one| one.get("path").and_then(serde_json::Value::as_str) == Some(step));
        found
            .and_then(|one| one.get("state")?.as_str())
            .unwrap_or_default()
            .to_owned()
    }

    /// The report of the last run.
    #[track_caller]
    #[must_use]
    pub fn report(&self) -> String {
        self.say(&["report", "last"]).exits(0).all
    }

    /// The last run's outputs and all else that a report holds.
    #[track_caller]
    #[must_use]
    pub fn told(&self) -> serde_json::Value {
        let text = self.say(&["report", "last", "-f", "json"]).exits(0).all;
        serde_json::from_str(&text).expect("a report in JSON")
    }
}
