//! pgbouncer.
use super::{
    Folder, PATIENCE, Process, as_server, free_port, holds_within,
    postgres::{Postgres, SUPERUSER},
    program, write,
};
use nix::sys::signal::Signal;
use std::net::TcpStream;

/// When a client's server connection goes back to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// When the client leaves.
    Session,
    /// When the transaction ends: settings and prepared statements of a session do not hold.
    Transaction,
    /// When the statement ends: no transaction of several statements.
    Statement,
}

/// A pool in front of a PostgreSQL server.
#[derive(Debug)]
pub struct PgBouncer {
    // Ended before its folder goes.
    process: Process,
    folder: Folder,
    port: u16,
}

impl PgBouncer {
    /// Starts one. Everyone who the server trusts may come in; the pool is of two connections a database.
    ///
    /// # Panics
    /// Where it does not start, with its log.
    #[must_use]
    pub fn start(server: &Postgres, mode: PoolMode) -> Self {
        let folder = Folder::new();
        let port = free_port();
        let mode = match mode {
            PoolMode::Session => "session",
            PoolMode::Transaction => "transaction",
            PoolMode::Statement => "statement",
        };
        let users = folder.path().join("users.txt");
        let password = server.password().unwrap_or_default();
        write(&users, &format!("\"{SUPERUSER}\" \"{password}\"\n"), 0o600);
        let method = if server.password().is_some() {
            "scram-sha-256"
        } else {
            "trust"
        };
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = {method}\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = 2\n\
             admin_users = {SUPERUSER}\nignore_startup_parameters = extra_float_digits\n",
            server.port(),
            users.display(),
        );
        let file = folder.path().join("pgbouncer.ini");
        write(&file, &settings, 0o600);
        let mut command = as_server(program("pgbouncer", "pgbouncer"));
        command.arg(&file);
        let log = folder.path().join("pgbouncer.log");
        let mut process = Process::start(command, &log, Signal::SIGTERM);
        let ready = holds_within(PATIENCE, || {
            process.has_ended() || TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert!(
            ready && !process.has_ended(),
            "pgbouncer does not start:\n{}",
            process.log()
        );
        Self {
            folder,
            port,
            process,
        }
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// What it wrote to its log so far.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("pgbouncer.log")).unwrap()
    }

    /// Where a database behind it is, for the superuser of a server without passwords.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }
}
