//! What every command shares: the terminal, the journal, who the user is, which step kinds there are.
use crate::{
    account,
    args::Global,
    clock,
    environment::{self, Loaded},
    error::CliError,
    hygiene,
    ui::{Ui, again},
};
use nix::unistd::Group;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use windlass_engine::{
    environment::JournalEntry,
    journal::{Journal, JournalError, RunSummary, Sharing, SqliteJournal},
    machine::{Command, Event, Holder, Machine, Submitted},
    secret::Secrets,
    step::Registry,
};

/// Where a journal stands when nothing else says so, beside `windlass.yaml`.
const DEFAULT_JOURNAL: &str = ".windlass/journal.db";

/// The name of the environment file.
pub(crate) const ENV_FILE: &str = "windlass.yaml";

/// One call of the command line.
pub(crate) struct Session {
    /// The terminal.
    pub(crate) ui: Ui,
    /// Options that every command takes.
    pub(crate) global: Global,
    registry: OnceLock<Arc<Registry>>,
    environment: OnceLock<Loaded>,
    secrets: OnceLock<Secrets>,
    playbook: OnceLock<PathBuf>,
}

impl Session {
    /// With these options.
    pub(crate) fn new(global: Global, json: bool) -> Self {
        for (option, variable, path) in [
            ("--env-file", "WINDLASS_ENV_FILE", &global.env_file),
            ("--journal", "WINDLASS_JOURNAL", &global.journal),
        ] {
            if let Some(path) = path
                && std::env::var_os(variable).is_none()
            {
                again::remember(option, path);
            }
        }
        Self {
            ui: Ui::new(global.color, global.quiet, json).read_by(global.claimed.clone()),
            global,
            registry: OnceLock::new(),
            environment: OnceLock::new(),
            secrets: OnceLock::new(),
            playbook: OnceLock::new(),
        }
    }

    /// All kinds of steps and targets.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        self.registry
            .get_or_init(|| Arc::new(windlass_steps::registry()))
    }

    /// The playbook that this call is about; an environment file may stand beside it.
    pub(crate) fn about(&self, playbook: &Path) {
        self.playbook.get_or_init(|| playbook.to_owned());
    }

    /// The environment file: as given, or the nearest one upward from the working directory, or upward from the
    /// playbook.
    pub(crate) fn env_file(&self) -> Result<Option<PathBuf>, CliError> {
        if let Some(path) = &self.global.env_file {
            if !path.is_file() {
                return Err(CliError::invalid(format!(
                    "there is no environment file at {}",
                    path.display()
                ))
                .help("`windlass init` writes one"));
            }
            return Ok(Some(path.clone()));
        }
        let here = std::env::current_dir().map_err(|error| {
            CliError::invalid(format!("cannot tell the working directory: {error}"))
        })?;
        if let Some(found) = upward(&here) {
            return Ok(Some(found));
        }
        let found = self
            .playbook
            .get()
            .and_then(|path| upward(&here.join(path)));
        let found = found.map(|path| {
            path.strip_prefix(&here)
                .map_or(path.clone(), Path::to_owned)
        });
        if let Some(path) = &found {
            again::remember("--env-file", path);
        }
        Ok(found)
    }

    /// What the environment file says.
    pub(crate) fn environment(&self) -> Result<&Loaded, CliError> {
        if let Some(loaded) = self.environment.get() {
            return Ok(loaded);
        }
        let loaded = environment::load(self)?;
        Ok(self.environment.get_or_init(|| loaded))
    }

    /// Where the journal is: `--journal`, then `journal` of the environment file, then beside that file.
    pub(crate) fn journal_path(&self) -> Result<PathBuf, CliError> {
        if let Some(path) = &self.global.journal {
            return Ok(path.clone());
        }
        let environment = self.environment()?;
        let named = environment.file.journal.as_ref().map(JournalEntry::path);
        Ok(environment.base.join(named.unwrap_or(DEFAULT_JOURNAL)))
    }

    /// The group that shares the journal, as the environment file says; a journal that `--journal` names is not that one.
    pub(crate) fn journal_group(&self) -> Result<Option<&str>, CliError> {
        if self.global.journal.is_some() {
            return Ok(None);
        }
        let entry = self.environment()?.file.journal.as_ref();
        Ok(entry.and_then(JournalEntry::group))
    }

    /// The journal, made where there is none.
    pub(crate) fn journal(&self) -> Result<Arc<dyn Journal>, CliError> {
        let path = self.journal_path()?;
        let mut sharing = Sharing::default();
        if let Some(name) = self.journal_group()?
            && !path.exists()
        {
            sharing.group = Some(group(name)?.gid.as_raw());
        }
        let journal = SqliteJournal::open_shared(&path, sharing).map_err(|e| at(&path, e))?;
        Ok(Arc::new(journal))
    }

    /// The journal to read what is there: nothing is made, and a file that may not be written to is enough.
    pub(crate) fn reading(&self) -> Result<Arc<dyn Journal>, CliError> {
        let path = self.journal_path()?;
        let journal = SqliteJournal::read(&path).map_err(|e| at(&path, e))?;
        Ok(Arc::new(journal))
    }

    /// The journal for a command that changes a run that exists.
    pub(crate) fn journal_of_runs(&self) -> Result<Arc<dyn Journal>, CliError> {
        // An empty file, or another program's, is not made a journal: there is no run in it.
        drop(self.reading()?);
        self.journal()
    }

    /// Who the user is: as `--as` or `WINDLASS_USER` claims, else the account of the operating system.
    pub(crate) fn user(&self) -> String {
        account::name(self.global.claimed.as_deref()).to_owned()
    }

    /// A command of this user, with an id of its own.
    pub(crate) fn asks(&self, run: &str, command: Command) -> Submitted {
        Submitted {
            id: uuid::Uuid::now_v7().simple().to_string(),
            run: run.to_owned(),
            who: self.user(),
            account: Some(account::ours().clone()),
            at: clock::now(),
            command,
        }
    }

    /// The secrets of the environments; none is fetched before it is used.
    pub(crate) fn secrets(&self) -> Result<&Secrets, CliError> {
        let loaded = self.environment()?;
        Ok(self.secrets.get_or_init(|| {
            loaded
                .file
                .secrets(&loaded.base, hygiene::redactor().clone())
        }))
    }

    /// This process, as the journal names it.
    pub(crate) fn holder(&self) -> Holder {
        Holder {
            user: self.user(),
            host: account::ours().host.clone(),
            account: Some(account::ours().clone()),
            pid: std::process::id(),
            since: clock::now(),
        }
    }
}

/// A group of the operating system.
pub(crate) fn group(name: &str) -> Result<Group, CliError> {
    let found = Group::from_name(name).ok().flatten();
    found.ok_or_else(|| {
        CliError::invalid(format!(
            "`journal.group` names the group {name}, which this host does not have"
        ))
        .help(format!(
            "as root: groupadd {name}; then usermod -aG {name} USER for each who shares the journal"
        ))
    })
}

/// An error of a journal that is opened: it says which file it is, and no run was touched.
fn at(path: &Path, error: JournalError) -> CliError {
    let is_named = !matches!(error, JournalError::Newer { .. });
    let error = CliError::from(match error {
        JournalError::Store(why) => JournalError::Unusable {
            path: path.display().to_string(),
            why,
        },
        other => other,
    });
    if is_named {
        error
    } else {
        error.note(format!("the journal is {}", path.display()))
    }
}

/// The nearest environment file in a folder or above it.
fn upward(from: &Path) -> Option<PathBuf> {
    from.ancestors()
        .map(|folder| folder.join(ENV_FILE))
        .find(|path| path.is_file())
}

/// A run of the journal: its id in full. `last` is the newest.
pub(crate) async fn find(journal: &dyn Journal, run: &str) -> Result<String, CliError> {
    if run == "last" {
        return journal
            .runs()
            .await?
            .into_iter()
            .next()
            .map(|summary| summary.id)
            .ok_or_else(|| {
                CliError::invalid("there is no run in this journal")
                    .help("`windlass run PLAYBOOK` starts one")
            });
    }
    Ok(journal.find(run).await?)
}

/// The summary of a run: who drives it, among other things.
pub(crate) async fn summary(journal: &dyn Journal, run: &str) -> Result<RunSummary, CliError> {
    let found = journal
        .runs()
        .await?
        .into_iter()
        .find(|summary| summary.id == run);
    found.ok_or_else(|| JournalError::NoSuchRun(run.to_owned()).into())
}

/// The machine of a run, from its events.
pub(crate) async fn machine(journal: &dyn Journal, run: &str) -> Result<Machine, CliError> {
    let events = journal.load(run, 1).await?;
    recover(run, &events)
}

/// The machine after these events.
pub(crate) fn recover(run: &str, events: &[Event]) -> Result<Machine, CliError> {
    Machine::recover(events).map_err(|error| {
        windlass_engine::run::RunError::Replay {
            run: run.to_owned(),
            why: error.to_string(),
        }
        .into()
    })
}
