//! What the black-box tests share: compile a playbook, run it on real databases in a temporary folder.
pub mod drill;
pub mod fuzz;
pub mod program;
pub mod servers;
pub mod simulation;

use std::{io, path::Path, sync::Arc};
use windlass_engine::{
    compile::{self, Files},
    environment::{self, EnvironmentFile},
    graph::Graph,
    journal::{Journal, SqliteJournal},
    machine::{Holder, Machine, NodeState},
    run::{DriveOptions, Driver, Ended, NewRun},
    value::Value,
};

struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// A folder with a journal and an environment.
pub struct House {
    folder: tempfile::TempDir,
    environment: EnvironmentFile,
    journal: Arc<SqliteJournal>,
}

impl House {
    /// With an environment, as YAML.
    ///
    /// # Panics
    /// Where the environment is wrong.
    #[must_use]
    #[expect(clippy::unwrap_used, reason = "a test's set-up")]
    pub fn new(environment: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = EnvironmentFile::parse("windlass.yaml", environment).unwrap();
        let journal = Arc::new(SqliteJournal::open(folder.path().join("journal.db")).unwrap());
        Self {
            folder,
            environment,
            journal,
        }
    }

    /// With a PostgreSQL as the target `db`, and more keys of it, such as `, pool: 2`.
    #[must_use]
    pub fn on(server: &servers::postgres::Postgres, more: &str) -> Self {
        Self::new(&format!(
            "environments:\n  local:\n    targets:\n      db: {{ url: '{}', tls: off{more} }}\n",
            server.url("postgres")
        ))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Arc<SqliteJournal> {
        &self.journal
    }

    /// A driver on the journal.
    #[must_use]
    pub fn driver(&self) -> Driver {
        let holder = Holder {
            user: "ana".to_owned(),
            account: None,
            host: "here".to_owned(),
            pid: std::process::id(),
            since: windlass_engine::value::Timestamp::UNIX_EPOCH,
        };
        Driver::new(
            self.journal.clone(),
            Arc::new(windlass_steps::registry()),
            holder,
        )
    }

    /// Compiles a playbook.
    ///
    /// # Panics
    /// With every diagnostic, where it does not compile.
    #[must_use]
    #[expect(clippy::panic, reason = "a test's set-up")]
    pub fn compile(playbook: &str) -> Arc<Graph> {
        let compiled = compile::compile(
            "playbook.yaml",
            playbook,
            &windlass_steps::registry(),
            &Disk,
        );
        match compiled.graph {
            Some(graph) => Arc::new(graph),
            None => {
                let all: Vec<String> = compiled
                    .diagnostics
                    .iter()
                    .map(|d| d.render(playbook))
                    .collect();
                panic!("{}", all.join("\n"))
            }
        }
    }

    /// A run of a playbook, not started.
    ///
    /// # Panics
    /// Where a target or an input is missing.
    #[must_use]
    #[expect(clippy::unwrap_used, reason = "a test's set-up")]
    pub fn new_run(&self, graph: Arc<Graph>, inputs: &[(&str, &str)]) -> NewRun {
        let (name, section) = self.environment.choose(None).unwrap();
        let targets = environment::bind(&graph, &section, &[], self.path()).unwrap();
        let given: Vec<(String, String)> = inputs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let inputs = compile::inputs::check(&graph.root.inputs, &given).unwrap();
        NewRun {
            graph,
            inputs,
            targets,
            environment: name,
            approvers: self.environment.approvers.clone(),
            by: "ana".to_owned(),
            digest: None,
        }
    }

    /// Runs a playbook to where the driver gives it back.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[expect(clippy::unwrap_used, reason = "a test's set-up")]
    pub async fn run(&self, playbook: &str, inputs: &[(&str, &str)]) -> (String, Ended, Machine) {
        let new = self.new_run(Self::compile(playbook), inputs);
        let options = DriveOptions {
            leave_when_waiting: true,
            ..DriveOptions::default()
        };
        let mut handle = self.driver().start(new, options).await.unwrap();
        let ended = handle.ended().await.unwrap();
        let machine = self.machine(&handle.id).await;
        (handle.id.clone(), ended, machine)
    }

    /// The machine of a run, as the journal has it.
    ///
    /// # Panics
    /// Where the journal cannot be read.
    #[expect(clippy::unwrap_used, reason = "a test's set-up")]
    pub async fn machine(&self, run: &str) -> Machine {
        let events = self.journal.load(run, 1).await.unwrap();
        Machine::recover(&events).unwrap()
    }

    /// A connection to a database of the folder.
    ///
    /// # Panics
    /// Where it cannot be opened.
    #[must_use]
    #[expect(clippy::unwrap_used, reason = "a test's set-up")]
    pub fn database(&self, name: &str) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path().join(name)).unwrap()
    }
}

/// What a step gave.
///
/// # Panics
/// Where it is not there or did not succeed.
#[must_use]
#[expect(
    clippy::unwrap_used,
    reason = "a step that is not there is a failed test"
)]
pub fn output<'m>(machine: &'m Machine, step: &str) -> &'m Value {
    let instance = machine.instance(step).unwrap();
    assert_eq!(
        instance.state,
        NodeState::Succeeded,
        "{step}: {:?}",
        instance.forward.failure
    );
    &instance.output
}
