//! PostgreSQL.
use super::{
    Authority, Folder, PATIENCE, Process, Session, as_server, done, free_port, holds_within,
    program, until, write,
};
use nix::sys::signal::Signal;
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

const PACKAGE: &str = "postgresql";

/// The superuser of every server.
pub const SUPERUSER: &str = "app";

/// Its password, where the server asks for one.
const PASSWORD: &str = "a password of the tests";
const PASSWORD_IN_URL: &str = "a%20password%20of%20the%20tests";

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    scram: bool,
    authority: Option<Arc<Authority>>,
    client_certificates: bool,
    settings: Vec<(String, String)>,
}

/// Settings of `postgresql.conf`, as `name=value`.
impl From<&[&str]> for Options {
    fn from(settings: &[&str]) -> Self {
        settings
            .iter()
            .filter_map(|setting| setting.split_once('='))
            .fold(Self::default(), |options, (name, value)| {
                options.set(name, value)
            })
    }
}

impl<const N: usize> From<&[&str; N]> for Options {
    fn from(settings: &[&str; N]) -> Self {
        settings.as_slice().into()
    }
}

impl Options {
    /// Asks everyone who connects by TCP for a password.
    #[must_use]
    pub fn scram(mut self) -> Self {
        self.scram = true;
        self
    }

    /// Takes only TLS by TCP, with a certificate of this authority for `localhost` and `127.0.0.1`.
    #[must_use]
    pub fn tls(mut self, authority: &Arc<Authority>) -> Self {
        self.authority = Some(authority.clone());
        self
    }

    /// Asks also for a client's certificate of the same authority; needs [`Options::tls`].
    #[must_use]
    pub fn client_certificates(mut self) -> Self {
        self.client_certificates = true;
        self
    }

    /// A setting of `postgresql.conf`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A PostgreSQL server with the superuser `app`. Each has a system identifier of its own, but for a standby, which shares
/// that of its primary.
#[derive(Debug)]
pub struct Postgres {
    // Ended before its folder goes.
    process: Option<Process>,
    folder: Arc<Folder>,
    data: PathBuf,
    sockets: PathBuf,
    name: String,
    port: u16,
    options: Options,
    standbys: AtomicU32,
}

impl Postgres {
    /// Makes a cluster and starts it. Options are [`Options`], or settings as `&["name=value"]`.
    ///
    /// # Panics
    /// Where PostgreSQL is not installed or does not start, with its log.
    #[must_use]
    pub fn start(options: impl Into<Options>) -> Self {
        let folder = Folder::new();
        let data = folder.path().join("primary");
        done(
            as_server(program("initdb", PACKAGE))
                .args(["-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"])
                .args(["--no-sync", "--no-instructions", "-U", SUPERUSER, "-D"])
                .arg(&data),
        );
        let mut server = Self::at(Arc::new(folder), "primary", options.into());
        server.start_again();
        if server.options.scram {
            let sql = format!("ALTER ROLE {SUPERUSER} PASSWORD '{PASSWORD}'");
            server.psql(&sql);
        }
        server
    }

    /// One on a data folder that is there, not started.
    fn at(folder: Arc<Folder>, name: &str, options: Options) -> Self {
        let server = Self {
            data: folder.path().join(name),
            sockets: folder.folder("s"),
            name: name.to_owned(),
            port: free_port(),
            options,
            process: None,
            folder,
            standbys: AtomicU32::new(0),
        };
        server.configure();
        server
    }

    /// A server on a data folder beside this one's, which something else made (a restore): with the options of this one,
    /// started, and archiving nothing.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start_on(&self, name: &str) -> Self {
        let options = self.options.clone().set("archive_mode", "off");
        let mut server = Self::at(self.folder.clone(), name, options);
        server.start_again();
        server
    }

    fn configure(&self) {
        let mut hba = String::from("local all all trust\nlocal replication all trust\n");
        let host = if self.options.authority.is_some() {
            "hostssl"
        } else {
            "host"
        };
        let mut method = if self.options.scram {
            "scram-sha-256"
        } else {
            "trust"
        }
        .to_owned();
        if self.options.client_certificates {
            method.push_str(" clientcert=verify-full");
        }
        for database in ["all", "replication"] {
            writeln!(hba, "{host} {database} all 127.0.0.1/32 {method}").unwrap();
        }
        write(&self.data.join("pg_hba.conf"), &hba, 0o600);
        if let Some(authority) = &self.options.authority {
            let names = "DNS:localhost,IP:127.0.0.1";
            authority.server(&self.data, "server", names);
            let ca = fs::read_to_string(authority.certificate()).unwrap();
            write(&self.data.join("ca.crt"), &ca, 0o644);
        }
    }

    fn settings(&self) -> Vec<(String, String)> {
        let given = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut settings = vec![
            given("port", &self.port.to_string()),
            given("listen_addresses", "127.0.0.1"),
            given("unix_socket_directories", &self.sockets.to_string_lossy()),
            given("cluster_name", &self.name),
            // The machine is not killed here, only processes are: what is written stays.
            given("fsync", "off"),
            given("shared_buffers", "32MB"),
            given("max_connections", "60"),
            given("wal_log_hints", "on"),
            given("log_line_prefix", "%m [%p] %a %q%u@%d "),
            given("timezone", "UTC"),
        ];
        if self.options.authority.is_some() {
            settings.push(given("ssl", "on"));
            settings.push(given("ssl_ca_file", "ca.crt"));
        }
        settings.extend(self.options.settings.clone());
        settings
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        let options = std::mem::take(&mut self.options);
        self.options = options.set(name, value);
    }

    /// Starts a server that was ended.
    ///
    /// # Panics
    /// Where it does not start, with its log.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let mut command = as_server(program("postgres", PACKAGE));
        command.arg("-D").arg(&self.data);
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // One that was killed leaves this behind; its status would be taken for the new server's.
        drop(fs::remove_file(self.data.join("postmaster.pid")));
        let mut process = Process::start(command, &self.log_file(), Signal::SIGQUIT);
        let ready = holds_within(PATIENCE, || process.has_ended() || self.says_ready());
        assert!(
            ready && !process.has_ended(),
            "PostgreSQL does not start:\n{}",
            process.log()
        );
        self.process = Some(process);
    }

    /// As `pg_ctl` asks: the last line of the file that the server keeps.
    fn says_ready(&self) -> bool {
        fs::read_to_string(self.data.join("postmaster.pid")).is_ok_and(|text| {
            let status = text.lines().nth(7).map(str::trim_end);
            matches!(status, Some("ready" | "standby"))
        })
    }

    fn process(&mut self) -> Process {
        let name = &self.name;
        self.process
            .take()
            .unwrap_or_else(|| panic!("{name} is not running"))
    }

    /// Ends it as an operator would: clients are thrown out, everything is written.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn stop(&mut self) {
        let mut process = self.process();
        process.signal(Signal::SIGINT);
        process.wait("PostgreSQL does not stop");
    }

    /// Ends it at once; it recovers at the next start.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn stop_immediate(&mut self) {
        let mut process = self.process();
        process.signal(Signal::SIGQUIT);
        process.wait("PostgreSQL does not stop");
    }

    /// SIGKILL to the server and all its processes: what was only in memory is gone.
    ///
    /// # Panics
    /// Where it is not running.
    pub fn crash(&mut self) {
        self.process().kill_all();
    }

    /// Whether it was started and not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// The server's process.
    ///
    /// # Panics
    /// Where it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().child.id()
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The folder of its Unix sockets.
    #[must_use]
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// A folder beside its data folder, which its user owns.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.folder(name)
    }

    /// What it wrote to its log so far.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join(format!("{}.log", self.name))
    }

    /// The password of the superuser, where the server asks for one.
    #[must_use]
    pub fn password(&self) -> Option<&'static str> {
        self.options.scram.then_some(PASSWORD)
    }

    /// Where a database of it is, for the superuser, by TCP.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let password = if self.options.scram {
            format!(":{PASSWORD_IN_URL}")
        } else {
            String::new()
        };
        format!(
            "postgres://{SUPERUSER}{password}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// Where a database of it is, for a role.
    #[must_use]
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// A program of PostgreSQL's, set up to reach this server by its socket, as the server's user.
    #[must_use]
    pub fn client(&self, name: &str) -> Command {
        let mut command = as_server(program(name, PACKAGE));
        command
            .env("PGHOST", &self.sockets)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGAPPNAME", "tests");
        command
    }

    fn psql_command(&self, database: &str) -> Command {
        let mut psql = self.client("psql");
        psql.args(["-X", "-q", "-A", "-t", "-F", "\t", "-d", database]);
        psql
    }

    /// Runs SQL in the database `postgres`: its rows as lines, a tab between fields.
    ///
    /// # Errors
    /// With the server's words.
    ///
    /// # Panics
    /// Where psql cannot be started.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        self.try_psql_in("postgres", sql)
    }

    /// Runs SQL in a database.
    ///
    /// # Errors
    /// With the server's words.
    ///
    /// # Panics
    /// Where psql cannot be started.
    pub fn try_psql_in(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = self
            .psql_command(database)
            .args(["-v", "ON_ERROR_STOP=1", "-c", sql])
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout)
                .trim_end()
                .to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Runs SQL in the database `postgres`: its rows as lines, a tab between fields.
    ///
    /// # Panics
    /// With the server's error.
    #[track_caller]
    #[must_use]
    pub fn ask(&self, sql: &str) -> String {
        self.ask_in("postgres", sql)
    }

    /// Runs SQL in a database.
    ///
    /// # Panics
    /// With the server's error.
    #[track_caller]
    #[must_use]
    pub fn ask_in(&self, database: &str, sql: &str) -> String {
        match self.try_psql_in(database, sql) {
            Ok(answer) => answer,
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// Runs SQL in the database `postgres`, without an answer.
    ///
    /// # Panics
    /// With the server's error.
    #[track_caller]
    pub fn psql(&self, sql: &str) {
        drop(self.ask(sql));
    }

    /// Runs SQL in a database, without an answer.
    ///
    /// # Panics
    /// With the server's error.
    #[track_caller]
    pub fn psql_in(&self, database: &str, sql: &str) {
        drop(self.ask_in(database, sql));
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

    /// A client that stays connected to the database `postgres`.
    ///
    /// # Panics
    /// Where psql cannot be started.
    #[must_use]
    pub fn session(&self) -> Session {
        self.session_in("postgres")
    }

    /// A client that stays connected to a database.
    ///
    /// # Panics
    /// Where psql cannot be started.
    #[must_use]
    pub fn session_in(&self, database: &str) -> Session {
        let mut psql = self.psql_command(database);
        // What the server says of an error belongs to the answer.
        let (output, into) = std::io::pipe().unwrap();
        psql.stdin(Stdio::piped())
            .stdout(into.try_clone().unwrap())
            .stderr(into);
        Session::new(psql.spawn().unwrap(), output)
    }

    /// A standby that streams from this server through a slot of its own, with the settings of this one and its own. The
    /// first is named `standby1`, the next `standby2`.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn standby(&self, settings: &[&str]) -> Self {
        let number = self.standbys.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("standby{number}");
        done(
            // The name goes into what the standby connects with.
            self.client("pg_basebackup")
                .env("PGAPPNAME", &name)
                .args(["-R", "-X", "stream", "-c", "fast", "--no-sync"])
                .args(["-C", "-S", &name, "-D"])
                .arg(self.folder.path().join(&name)),
        );
        let mut options = self.options.clone();
        options.settings.extend(Options::from(settings).settings);
        let mut standby = Self::at(self.folder.clone(), &name, options);
        standby.start_again();
        let streams = format!(
            "SELECT 1 FROM pg_stat_replication WHERE application_name = '{name}' AND state = 'streaming'"
        );
        until("the standby streams", || self.ask(&streams) == "1");
        standby
    }

    /// Waits until a standby has replayed all that is written here.
    ///
    /// # Panics
    /// Where it does not come that far.
    pub fn wait_for(&self, standby: &Self) {
        let here = self.ask("SELECT pg_current_wal_flush_lsn()");
        let there = format!("SELECT pg_last_wal_replay_lsn() >= '{here}'");
        until("the standby has caught up", || standby.ask(&there) == "t");
    }

    /// From its next start on it answers where another server did, as after a failover behind one address.
    pub fn take_place_of(&mut self, other: &Self) {
        self.port = other.port;
    }

    /// Makes a standby the primary, and waits until it takes writes.
    ///
    /// # Panics
    /// Where it refuses.
    pub fn promote(&self) {
        assert_eq!(self.ask("SELECT pg_promote(true, 60)"), "t");
    }

    /// Whether this server is a standby.
    ///
    /// # Panics
    /// Where it does not answer.
    #[must_use]
    pub fn in_recovery(&self) -> bool {
        self.ask("SELECT pg_is_in_recovery()") == "t"
    }

    /// Makes every COMMIT wait for `standby1`, or for nobody.
    ///
    /// # Panics
    /// Where the server refuses.
    pub fn sync_standby(&self, on: bool) {
        let names = if on { "standby1" } else { "" };
        self.psql(&format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{names}'"
        ));
        self.psql("SELECT pg_reload_conf()");
        until("the setting holds", || {
            self.ask("SHOW synchronous_standby_names") == names
        });
    }

    /// Holds back what a standby replays, or lets it go on.
    ///
    /// # Panics
    /// Where the standby refuses.
    pub fn pause_replay(&self, on: bool) {
        let verb = if on { "pause" } else { "resume" };
        self.psql(&format!("SELECT pg_wal_replay_{verb}()"));
    }
}
