//! Real servers, each started by the test that needs it on a free port in a temporary folder, and ended with it.
pub mod postgres;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

/// A port of the loopback that nobody listens on now.
///
/// # Panics
/// Where there is none.
#[must_use]
#[expect(clippy::unwrap_used, reason = "a test's set-up")]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The newest folder of a server's programs below a parent, such as `/usr/lib/postgresql/15/bin`.
///
/// # Panics
/// Where the server is not installed, with how to install it.
#[must_use]
#[expect(
    clippy::panic,
    reason = "a server that is missing fails the run and says how to get it"
)]
pub fn programs(parent: &str, program: &str, package: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join(program).exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!("{program} is not installed: `apt-get install -y {package}`, or run ./test as root, which does it")
    })
}

/// A program that runs as a user of its own where the test is root: servers refuse to be root.
#[must_use]
pub fn unprivileged(program: &Path, user: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args([
            &format!("--reuid={user}"),
            &format!("--regid={user}"),
            "--clear-groups",
            // The server goes when the test does, however that ends.
            "--pdeathsig=KILL",
        ]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    }
}
