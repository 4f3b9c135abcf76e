//! The environment file, read once for each call of the command line.
use crate::{error::CliError, exit::Exit, session::Session};
use std::path::{Path, PathBuf};
use windlass_engine::environment::{Environment, EnvironmentFile, without_passwords};

/// `windlass.yaml` as it was found; empty where there is none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    /// Where relative paths start.
    pub(crate) base: PathBuf,
    /// What it says.
    pub(crate) file: EnvironmentFile,
}

/// Reads the environment file; its mistakes are printed.
pub(crate) fn load(session: &Session) -> Result<Loaded, CliError> {
    let Some(path) = session.env_file()? else {
        return Ok(Loaded::default());
    };
    let text =
        std::fs::read_to_string(&path).map_err(|error| CliError::file(&path, "read", &error))?;
    let shown = shown(&path);
    match EnvironmentFile::parse(&shown, &text) {
        Ok(file) => Ok(Loaded {
            base: path.parent().unwrap_or(Path::new("")).to_owned(),
            file,
        }),
        Err(mistakes) => {
            let shown = without_passwords(&text);
            session.ui.diagnose(&mistakes, |_| &shown);
            Err(CliError::said(Exit::Invalid))
        }
    }
}

/// The path as the user would write it from the working directory.
fn shown(path: &Path) -> String {
    std::env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned))
        .unwrap_or_else(|| path.to_owned())
        .display()
        .to_string()
}

impl Loaded {
    /// Prints what is worth knowing of the file. The line of a password is not shown.
    pub(crate) fn warn(&self, session: &Session) {
        if !session.ui.quiet {
            session.ui.warn(&self.file.warnings);
        }
    }

    /// The environment of this name, or the default.
    pub(crate) fn choose(
        &self,
        session: &Session,
        name: Option<&str>,
    ) -> Result<(String, Environment), CliError> {
        self.file.choose(name).map_err(|mistake| {
            session.ui.diagnose(&[mistake], |_| "");
            CliError::said(Exit::Invalid)
        })
    }
}
