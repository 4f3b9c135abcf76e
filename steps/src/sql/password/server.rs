//! A PostgreSQL of the tests' own, on a free port in a temporary folder; it ends with the value.
use nix::unistd::{Uid, User};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

const INSTALL: &str = "PostgreSQL is missing; install it (apt-get install postgresql)";

pub(super) struct Server {
    folder: TempDir,
    pub(super) port: u16,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The newest server programs that Debian installed, else those in the PATH.
fn program(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|all| all.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    found.sort();
    let newest = found.pop().map(|folder| folder.join("bin").join(name));
    newest
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// PostgreSQL refuses to run as root.
fn as_server(program: &Path) -> Command {
    if !Uid::effective().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}

impl Server {
    /// With `app` as superuser over the socket and TCP, and passwords for everybody else.
    pub(super) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        if Uid::effective().is_root() {
            let user = User::from_name("postgres").unwrap().expect(INSTALL);
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = folder.path().join("data");
        let made = as_server(&program("initdb"))
            .arg("-D")
            .arg(&data)
            .args("-A trust -U app -E UTF8 --locale=C.UTF-8 --no-sync".split(' '))
            .output()
            .expect(INSTALL);
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let lines = "local all all trust\nhost all app 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), lines).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = as_server(&program("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args([
                "-c",
                &format!("unix_socket_directories={}", folder.path().display()),
            ])
            // Everything that a server can be told to write down.
            .args([
                "-c",
                "log_statement=all",
                "-c",
                "log_min_duration_statement=0",
            ])
            .args([
                "-c",
                "log_min_error_statement=debug5",
                "-c",
                "log_min_messages=info",
            ])
            .args(["-c", "fsync=off"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self {
            folder,
            port,
            child,
        };
        for _ in 0..600 {
            if server.try_sql("SELECT 1").is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the server does not start: {}", server.log())
    }

    fn try_sql(&self, sql: &str) -> Result<String, String> {
        let output = Command::new("psql")
            .args([
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "app",
                "-d",
                "postgres",
                "-h",
            ])
            .arg(self.folder.path())
            .args(["-p", &self.port.to_string(), "-c", sql])
            .output()
            .expect(INSTALL);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    /// As the superuser, from outside.
    pub(super) fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap()
    }

    /// Whether a role may log in with a password, by libpq.
    pub(super) fn logs_in(&self, role: &str, password: &str) -> bool {
        Command::new("psql")
            .args([
                "-XAtq",
                "-w",
                "-U",
                role,
                "-d",
                "postgres",
                "-h",
                "127.0.0.1",
            ])
            .args(["-p", &self.port.to_string(), "-c", "SELECT 1"])
            .env("PGPASSWORD", password)
            .output()
            .unwrap()
            .status
            .success()
    }

    /// All that the server wrote down.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}
