//! PostgreSQL.
use super::{free_port, programs, unprivileged};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The server's user of the operating system.
const USER: &str = "postgres";

/// A server of its own.
pub struct Postgres {
    folder: TempDir,
    bin: PathBuf,
    port: u16,
    server: Option<Child>,
    settings: Vec<String>,
}

#[expect(clippy::unwrap_used, reason = "a test's set-up")]
impl Postgres {
    /// Makes a cluster and starts it. Settings are `name=value`.
    ///
    /// # Panics
    /// Where PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start(settings: &[&str]) -> Self {
        let bin = programs("/usr/lib/postgresql", "postgres", "postgresql");
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let data = folder.path().join("data");
        let made = unprivileged(&bin.join("initdb"), USER)
            .args([
                "-A",
                "trust",
                "-U",
                "app",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "-D",
            ])
            .arg(&data)
            .stdout(Stdio::null())
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut this = Self {
            folder,
            bin,
            port: free_port(),
            server: None,
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
        };
        this.start_again();
        this
    }

    /// A standby that streams from this server, with a slot of its own.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn standby(&self, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let made = unprivileged(&self.bin.join("pg_basebackup"), USER)
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "app",
                "-R",
                "-X",
                "stream",
                "-C",
                "-S",
                "standby1",
                "-c",
                "fast",
            ])
            .args(["-p", &self.port.to_string(), "-D"])
            .arg(folder.path().join("data"))
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut this = Self {
            folder,
            bin: self.bin.clone(),
            port: free_port(),
            server: None,
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
        };
        this.start_again();
        this
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server, as it was left.
    ///
    /// # Panics
    /// Where it does not start.
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a server takes is measured from outside of it"
    )]
    pub fn start_again(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = unprivileged(&self.bin.join("postgres"), USER);
        command
            .arg("-D")
            .arg(self.data())
            .args([
                "-p",
                &self.port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
            ])
            .arg(format!(
                "unix_socket_directories={}",
                self.folder.path().display()
            ));
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let server = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.server = Some(server);
        let start = Instant::now();
        while self.try_psql("SELECT 1").is_err() {
            assert!(
                start.elapsed() < PATIENCE,
                "the server does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the server and all its processes at once, as a power cut would.
    ///
    /// # Panics
    /// Where it is not running.
    pub fn crash(&mut self) {
        let mut server = self.server.take().unwrap();
        let pid = server.id();
        // A killed postmaster leaves its children to end by themselves; a power cut does not.
        let children = Command::new("pgrep")
            .args(["-P", &pid.to_string()])
            .output()
            .unwrap();
        server.kill().unwrap();
        for child in String::from_utf8_lossy(&children.stdout).lines() {
            if let Ok(child) = child.trim().parse() {
                signal(child, Signal::SIGKILL);
            }
        }
        server.wait().unwrap();
        drop(std::fs::remove_file(self.data().join("postmaster.pid")));
    }

    /// From its next start on it answers where another server did, as after a failover behind one address.
    pub fn take_place_of(&mut self, other: &Self) {
        self.port = other.port;
    }

    /// Makes a standby a primary.
    ///
    /// # Panics
    /// Where it does not become one.
    pub fn promote(&self) {
        self.psql("SELECT pg_promote(true, 30)");
    }

    /// The URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://app@127.0.0.1:{}/{database}", self.port)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.bin
    }

    /// What the server logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs SQL by the server's own client; values without headers, tab by tab.
    ///
    /// # Errors
    /// What the client said.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        let done = Command::new(self.bin.join("psql"))
            .args([
                "-X",
                "-q",
                "-At",
                "-F",
                "\t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
                "-U",
                "app",
                "-d",
                "postgres",
            ])
            .args(["-p", &self.port.to_string(), "-c", sql])
            .env("PGCONNECT_TIMEOUT", "5")
            .output()
            .unwrap();
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&done.stderr).into_owned())
        }
    }

    /// The same.
    ///
    /// # Panics
    /// Where the server refuses.
    #[expect(clippy::panic, reason = "a test's set-up")]
    #[must_use]
    pub fn ask(&self, sql: &str) -> String {
        self.try_psql(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same, without an answer.
    ///
    /// # Panics
    /// Where the server refuses.
    pub fn psql(&self, sql: &str) {
        drop(self.ask(sql));
    }

    /// Makes the ledger `windlass_ledger`, as `windlass doctor --init-ledger` does.
    ///
    /// # Panics
    /// Where the server refuses.
    pub fn make_ledger(&self) {
        self.psql(
            "CREATE TABLE windlass_ledger (run text NOT NULL, node text NOT NULL, phase text NOT NULL, \
             attempt bigint NOT NULL, state text NOT NULL, at timestamptz NOT NULL, \
             PRIMARY KEY (run, node, phase, attempt))",
        );
    }

    /// A session that stays open; it ends when it is dropped.
    ///
    /// # Panics
    /// Where the client does not start.
    #[must_use]
    pub fn session(&self) -> Client {
        let child = Command::new(self.bin.join("psql"))
            .args([
                "-X",
                "-q",
                "-At",
                "-h",
                "127.0.0.1",
                "-U",
                "app",
                "-d",
                "postgres",
            ])
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Client(child)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Fast shutdown; the folder goes anyway.
            let pid = i32::try_from(server.id()).unwrap_or_default();
            signal(pid, Signal::SIGQUIT);
            drop(server.wait());
        }
    }
}

/// A process that has gone needs no signal.
fn signal(pid: i32, signal: Signal) {
    if kill(Pid::from_raw(pid), signal).is_err() {
        // It has gone.
    }
}

/// A client of a test that holds something open.
pub struct Client(Child);

#[expect(clippy::unwrap_used, reason = "a test's set-up")]
impl Client {
    /// Runs SQL and waits until it is through.
    ///
    /// # Panics
    /// Where the client has gone.
    pub fn run(&mut self, sql: &str) {
        use std::io::{BufRead as _, BufReader, Write as _};
        let stdin = self.0.stdin.as_mut().unwrap();
        writeln!(stdin, "{sql};\nSELECT 'through';").unwrap();
        stdin.flush().unwrap();
        let mut line = String::new();
        let mut out = BufReader::with_capacity(1, self.0.stdout.as_mut().unwrap());
        while line.trim() != "through" {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "the client has gone");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
