//! A folder of its own, an empty environment, and the real binary.
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value as Json;
use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ENVIRONMENT: &str = r#"
environments:
  local:
    targets:
      app: { url: "sqlite:app.db", create: true, ledger: windlass_ledger }
approvers:
  dba: [ana, bruno, carla, daemon, bin]
"#;

const WINDLASS: &str = env!("CARGO_BIN_EXE_windlass");

/// Whether a process may see itself as another account, with the rights on files that it has.
fn may_unshare() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        let tried = Command::new("unshare")
            .args(["--user", "--map-user=1", "true"])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    })
}

pub(crate) struct Lab {
    dir: TempDir,
}

pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Done {
    /// Both streams, for a message.
    pub(crate) fn all(&self) -> String {
        format!("exit {}\n{}\n{}", self.code, self.stdout, self.stderr)
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.all());
        self
    }

    /// Whether either stream holds a text; under which account a name was claimed is left out, if the text has none.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let said = format!("{}\n{}", self.stdout, self.stderr);
        assert!(
            said.contains(text) || without_accounts(&said).contains(text),
            "{text:?} is not in\n{}",
            self.all()
        );
        self
    }
}

/// `ana (account root)` as `ana`: which account runs a test is the machine's.
fn without_accounts(text: &str) -> String {
    let mut parts = text.split(" (account ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((_, rest)) => out.push_str(rest),
            None => out.push_str(&format!(" (account {part}")),
        }
    }
    out
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        lab.write("windlass.yaml", ENVIRONMENT);
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.trim_start_matches('\n')).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The binary in the folder, with nothing of the environment around the test. Each of the people has an account of
    /// the operating system: ana the one that runs the tests, bruno and carla one of their own in the group dba, and
    /// everyone else one outside of it.
    pub(crate) fn command(&self, who: &str, args: &[&str]) -> Command {
        let mut command = match who {
            "ana" => Command::new(WINDLASS),
            "bruno" => self.by_account(1),
            "carla" => self.by_account(2),
            _ => self.by_account(3),
        };
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("WINDLASS_USER", who)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The binary as another account of the operating system sees it.
    pub(crate) fn by_account(&self, uid: u32) -> Command {
        let mut command;
        if may_unshare() {
            command = Command::new("unshare");
            command.args(["--user", &format!("--map-user={uid}")]);
        } else {
            command = self.by_real_account(uid);
        }
        command.arg(WINDLASS);
        command
    }

    /// What starts a program under another account for good; only root may. The folder is opened for everyone first.
    pub(crate) fn by_real_account(&self, uid: u32) -> Command {
        let opened = Command::new("chmod")
            .args(["-R", "a+rwX"])
            .arg(self.dir.path())
            .status();
        assert!(opened.unwrap().success());
        let mut command = Command::new("setpriv");
        command.args([
            format!("--reuid={uid}"),
            format!("--regid={uid}"),
            "--clear-groups".to_owned(),
        ]);
        command
    }

    pub(crate) fn run_as(&self, who: &str, args: &[&str]) -> Done {
        self.command(who, args).output().unwrap().into()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.run_as("ana", args)
    }

    /// The binary on a terminal of its own, by ana, who types this; both streams come as one.
    pub(crate) fn at_terminal(&self, args: &[&str], typed: &str) -> Done {
        let mut child = self.on_a_terminal(args);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(typed.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap().into()
    }

    /// As `at_terminal`, but Ctrl-C is typed once this was printed.
    pub(crate) fn interrupted_at(&self, args: &[&str], printed: &str) -> Done {
        let mut child = self.on_a_terminal(args);
        let mut stdin = child.stdin.take().unwrap();
        let stdout = child.stdout.as_mut().unwrap();
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while !String::from_utf8_lossy(&seen).contains(printed) {
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{printed:?} never came");
            seen.push(byte[0]);
        }
        stdin.write_all(b"\x03").unwrap();
        let mut output = child.wait_with_output().unwrap();
        seen.append(&mut output.stdout);
        output.stdout = seen;
        output.into()
    }

    fn on_a_terminal(&self, args: &[&str]) -> std::process::Child {
        let words: Vec<String> = std::iter::once(WINDLASS)
            .chain(args.iter().copied())
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
            .collect();
        let mut command = Command::new("script");
        command
            .args([
                "--quiet",
                "--return",
                "--command",
                &words.join(" "),
                "/dev/null",
            ])
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .env("WINDLASS_USER", "ana")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    pub(crate) fn spawn(&self, who: &str, args: &[&str]) -> Running {
        Running(Some(self.command(who, args).spawn().unwrap()))
    }

    pub(crate) fn show(&self) -> Json {
        let done = self.run(&["show", "last", "--json"]).exits(0);
        serde_json::from_str(&done.stdout).unwrap()
    }

    pub(crate) fn state(&self) -> String {
        self.show()["state"].as_str().unwrap().to_owned()
    }

    pub(crate) fn step(&self, path: &str) -> Json {
        let page = self.show();
        let steps = page["steps"].as_array().unwrap();
        steps
            .iter()
            .find(|step| step["path"] == path)
            .unwrap_or_else(|| panic!("no step {path} in {page:#}"))
            .clone()
    }

    pub(crate) fn run_id(&self) -> String {
        self.show()["run"]["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the last run's page says so.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Json) -> bool) -> Json {
        let start = Instant::now();
        loop {
            let done = self.run(&["show", "last", "--json"]);
            if let Ok(page) = serde_json::from_str::<Json>(&done.stdout)
                && holds(&page)
            {
                return page;
            }
            assert!(start.elapsed() < PATIENCE, "never {what}: {}", done.all());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    pub(crate) fn until_step(&self, path: &str, state: &str) -> Json {
        self.until(&format!("{path} {state}"), |page| {
            page["steps"].as_array().is_some_and(|steps| {
                steps
                    .iter()
                    .any(|step| step["path"] == path && step["state"] == state)
            })
        })
    }

    /// One number from a database in the folder.
    pub(crate) fn count(&self, db: &str, sql: &str) -> i64 {
        rusqlite::Connection::open(self.path(db))
            .unwrap()
            .query_row(sql, [], |row| row.get(0))
            .unwrap()
    }

    pub(crate) fn execute(&self, db: &str, sql: &str) {
        rusqlite::Connection::open(self.path(db))
            .unwrap()
            .execute_batch(sql)
            .unwrap();
    }
}

/// A process that goes on beside the test, and ends with it.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.0.as_ref().unwrap().id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    #[track_caller]
    pub(crate) fn wait(mut self) -> Done {
        let mut child = self.0.take().unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut err = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).unwrap();
            text
        });
        let mut stderr = String::new();
        err.read_to_string(&mut stderr).unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        Done {
            code: status.code().unwrap_or(-1),
            stdout: reader.join().unwrap(),
            stderr,
        }
    }

    /// The first lines that it prints.
    pub(crate) fn lines(&mut self, count: usize) -> Vec<String> {
        let out = self.0.as_mut().unwrap().stdout.take().unwrap();
        BufReader::new(out)
            .lines()
            .take(count)
            .map(Result::unwrap)
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// What differs from run to run, by name.
pub(crate) fn settings(lab: &Lab) -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    let folder = lab.dir.path().display().to_string();
    settings.set_prepend_module_to_snapshot(false);
    settings.add_filter(&folder, "[folder]");
    settings.add_filter(r" \(account [^)]*\)", "");
    settings.add_filter(r"\b[0-9a-f]{64}\b", "[hash]");
    settings.add_filter(r"\b[0-9a-f]{32}\b", "[run]");
    settings.add_filter(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "[time]");
    settings.add_filter(r"\d\d:\d\d:\d\dZ", "[time]");
    settings.add_filter(r"\(in [0-9a-z.]+\)", "(in [span])");
    settings.add_filter(r" {2,}\d+(\.\d+s|ms)\b", "  [took]");
    settings.add_filter(r"\b\d+(\.\d+s|ms)\b", "[took]");
    settings.add_filter(r"process \d+", "process [pid]");
    settings.add_filter(r" on [^ ,]+, process", " on [host], process");
    settings.add_filter(r"SQLite \d+\.\d+\.\d+", "SQLite [version]");
    settings.add_filter(r"\b[0-9a-f]{8}\b", "[short]");
    settings
}
