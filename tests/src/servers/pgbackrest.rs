//! pgBackRest.
use super::{
    as_server, done,
    postgres::{Postgres, SUPERUSER},
    program, write,
};
use std::{path::PathBuf, process::Command};

const STANZA: &str = "main";

/// A repository of one server's backups and WAL, in the server's own temporary folder.
#[derive(Debug)]
pub struct PgBackRest {
    config: PathBuf,
}

impl PgBackRest {
    /// Makes the repository and its stanza, and lets the server archive into it; the server is started again for that.
    ///
    /// # Panics
    /// Where pgBackRest or the server refuses.
    #[must_use]
    pub fn start(server: &mut Postgres) -> Self {
        let config = server.folder("pgbackrest").join("pgbackrest.conf");
        let folder = |name| server.folder(name).display().to_string();
        let text = format!(
            "[global]\nrepo1-path={}\nrepo1-retention-full=2\nlog-path={}\nspool-path={}\nlock-path={}\n\
             log-level-console=warn\nlog-level-file=off\nstart-fast=y\ncompress-type=lz4\narchive-timeout=60\n\n\
             [{STANZA}]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user={SUPERUSER}\npg1-database=postgres\n",
            folder("repository"),
            folder("pgbackrest-log"),
            folder("pgbackrest-spool"),
            folder("pgbackrest-lock"),
            server.data().display(),
            server.port(),
            server.sockets().display(),
        );
        write(&config, &text, 0o644);
        let here = Self { config };
        let push = here.command(&["archive-push"]);
        server.set("archive_mode", "on");
        server.set("archive_command", &format!("{push} %p"));
        server.stop();
        server.start_again();
        here.run(&["stanza-create"]);
        here
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> &PathBuf {
        &self.config
    }

    /// Its stanza.
    #[must_use]
    pub fn stanza(&self) -> &'static str {
        STANZA
    }

    /// A command line of it, as text.
    fn command(&self, args: &[&str]) -> String {
        format!(
            "{} --config={} --stanza={STANZA} {}",
            program("pgbackrest", "pgbackrest").display(),
            self.config.display(),
            args.join(" ")
        )
    }

    /// Runs one of its commands as the server's user: what it prints.
    ///
    /// # Panics
    /// With its words, where it fails.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        done(self.invoke().args(args))
    }

    fn invoke(&self) -> Command {
        let mut command = as_server(program("pgbackrest", "pgbackrest"));
        command
            .arg(format!("--config={}", self.config.display()))
            .arg(format!("--stanza={STANZA}"));
        command
    }

    /// A full backup. Any moment after it can be restored to.
    ///
    /// # Panics
    /// With its words, where it fails.
    pub fn backup(&self) {
        self.run(&["--type=full", "backup"]);
        // It compares whole seconds.
        std::thread::sleep(std::time::Duration::from_millis(1_100));
    }

    /// A second server, restored to a moment (`2026-01-31 12:00:00.5+00`), taking writes.
    ///
    /// # Panics
    /// Where the moment cannot be reached.
    #[must_use]
    pub fn restore(&self, server: &Postgres, name: &str, moment: &str) -> Postgres {
        let into = server.folder(name);
        done(
            self.invoke()
                .arg(format!("--pg1-path={}", into.display()))
                .args(["--type=time", &format!("--target={moment}")])
                .args(["--target-action=promote", "restore"]),
        );
        let restored = server.start_on(name);
        super::until("the restored server takes writes", || {
            !restored.in_recovery()
        });
        restored
    }
}
