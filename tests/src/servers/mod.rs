//! Real servers for the tests: each on a free port of 127.0.0.1, in a temporary folder of its own.
//!
//! A server ends with the value that stands for it, also where the test panics, and with the test's process, also
//! where that is killed. As root it runs as its package's own user. A program that is missing fails the test with the
//! command that installs it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test's set-up: it panics where a test would, and waits by the machine's clock"
)]
mod authority;
pub mod pgbackrest;
pub mod pgbouncer;
pub mod postgres;
mod session;

pub use authority::Authority;
pub use session::Session;

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, chown, geteuid},
};
use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

/// How long a server may take for anything before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The user of Debian's PostgreSQL packages; `pgbouncer` and `pgbackrest` run as it too.
const SERVER_USER: &str = "postgres";

/// Waits until something holds.
///
/// # Panics
/// Where it does not within [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, holds), "never: {what}");
}

/// Whether something comes to hold within a time.
pub fn holds_within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if began.elapsed() > time {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where a program of a server stands: PostgreSQL's own folders (the newest version first), then PATH.
///
/// # Panics
/// Where there is none, with how to install it.
#[must_use]
pub fn program(name: &str, package: &str) -> PathBuf {
    let mut folders: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    folders.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .collect();
    folders
        .into_iter()
        .map(|(_, folder)| folder)
        .chain(path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!(
                "this test starts {name}, which is not here. `tests/install-servers` installs it as root; \
                 by hand: apt-get install {package}"
            )
        })
}

/// A port of 127.0.0.1 that nobody listens on. It is below those that the system gives to clients, so that no
/// connection takes it before the server does.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        // Processes of one test run start far from one another.
        let start = std::process::id().wrapping_mul(7919) % 16_000;
        AtomicU16::new(u16::try_from(start).unwrap_or(0))
    });
    loop {
        let port = 16_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 16_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A temporary folder that a server's user may write to, and everybody may pass through.
#[derive(Debug)]
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("windlass-")
            .tempdir()
            .unwrap();
        give(folder.path());
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// A folder inside.
    fn folder(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).unwrap();
        give(&path);
        path
    }
}

/// Gives a path to the server's user; keeps a folder open to all.
pub(crate) fn give(path: &Path) {
    if path.is_dir() {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    if let Some(user) = server_user() {
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

/// Writes a file that the server's user owns.
fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    give(path);
}

/// As root: the user that servers run as, since they refuse root. Else nobody but oneself.
fn server_user() -> Option<User> {
    if !geteuid().is_root() {
        return None;
    }
    let user = User::from_name(SERVER_USER).unwrap();
    Some(user.unwrap_or_else(|| {
        panic!("servers do not run as root, and there is no user {SERVER_USER}: apt-get install postgresql")
    }))
}

/// A command as the server's user, with nothing of the environment around the test. It ends with its parent.
pub(crate) fn as_server(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.env_clear();
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin");
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = server_user() {
        command.arg(format!("--reuid={}", user.uid));
        command.arg(format!("--regid={}", user.gid));
        command.arg("--clear-groups");
    }
    command.arg("--").arg(program).current_dir("/");
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
///
/// # Panics
/// With all that it said, where it fails.
#[track_caller]
fn done(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{command:?}\n{stdout}{}",
        String::from_utf8_lossy(&stderr)
    );
    stdout
}

/// Starts a process from a thread that lives as long as the test's process: the signal that ends a server with its
/// parent is sent when the parent's *thread* ends.
fn spawn(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static STARTER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (send, orders) = mpsc::channel::<Order>();
        std::thread::Builder::new()
            .name("servers".to_owned())
            .spawn(move || {
                for (mut command, answer) in orders {
                    drop(answer.send(command.spawn()));
                }
            })
            .unwrap();
        send
    });
    let (answer, child) = mpsc::channel();
    STARTER.send((command, answer)).unwrap();
    child.recv().unwrap().unwrap_or_else(|error| {
        panic!("setpriv cannot be started: {error}; it is in Debian's util-linux")
    })
}

/// A server's process, ended on drop.
#[derive(Debug)]
struct Process {
    child: Child,
    log: PathBuf,
    /// What asks it to end at once.
    end: Signal,
}

impl Process {
    /// Starts it, with what it says going to the end of a file.
    fn start(mut command: Command, log: &Path, end: Signal) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self {
            child: spawn(command),
            log: log.to_owned(),
            end,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for it to end by itself.
    fn wait(&mut self, what: &str) {
        let ended = holds_within(PATIENCE, || self.has_ended());
        assert!(ended, "{what}\n{}", self.log());
    }

    /// SIGKILL to it and to all that it started.
    fn kill_all(&mut self) {
        let children = children(self.pid());
        drop(self.child.kill());
        for child in children {
            kill(child, Signal::SIGKILL).ok();
        }
        drop(self.child.wait());
    }

    /// The last lines of its log.
    fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            kill(self.pid(), self.end).ok();
            if !holds_within(Duration::from_secs(5), || self.has_ended()) {
                self.kill_all();
            }
        }
    }
}

/// The processes that a process started.
fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.to_string();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // pid (name) state ppid …; the name may hold anything.
            let (_, rest) = stat.rsplit_once(')')?;
            (rest.split_whitespace().nth(1)? == parent).then(|| Pid::from_raw(pid))
        })
        .collect()
}

/// Whether a process is there and has not ended.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    })
}
