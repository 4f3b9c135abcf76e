//! `windlass init`: an environment file and a first playbook.
use crate::{error::CliError, exit::Exit, session::Session};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

const ENVIRONMENT: &str = include_str!("init/windlass.yaml");
const PLAYBOOK: &str = include_str!("init/playbook.yaml");
const IGNORED: &str = ".windlass/";

/// What `init` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// The folder; made where there is none
    #[arg(default_value = ".")]
    folder: PathBuf,
}

pub(crate) fn run(session: &Session, args: &InitArgs) -> Result<Exit, CliError> {
    let folder = &args.folder;
    let playbooks = folder.join("playbooks/first");
    std::fs::create_dir_all(&playbooks)
        .map_err(|error| CliError::file(&playbooks, "make the folder", &error))?;
    write(session, &folder.join(crate::session::ENV_FILE), ENVIRONMENT)?;
    write(session, &playbooks.join("playbook.yaml"), PLAYBOOK)?;
    ignore(session, &folder.join(".gitignore"))?;
    let there = if folder == Path::new(".") {
        String::new()
    } else {
        format!("cd {} && ", folder.display())
    };
    session.ui.say(&format!(
        "next: {there}windlass plan playbooks/first && windlass run playbooks/first"
    ));
    Ok(Exit::Succeeded)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}

/// Writes a file that is not there yet.
fn write(session: &Session, path: &Path, text: &str) -> Result<(), CliError> {
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path);
    match opened {
        Ok(mut file) => {
            file.write_all(text.as_bytes())
                .map_err(|error| CliError::file(path, "write", &error))?;
            session.ui.line(&format!("wrote {}", shown(path)));
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            session
                .ui
                .line(&format!("kept {}, which already exists", path.display()));
            Ok(())
        }
        Err(error) => Err(CliError::file(path, "write", &error)),
    }
}

/// The journal belongs to this machine, not to the repository.
fn ignore(session: &Session, path: &Path) -> Result<(), CliError> {
    let mut text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(CliError::file(path, "read", &error)),
    };
    if text
        .lines()
        .any(|line| line.trim().trim_start_matches('/') == IGNORED)
    {
        return Ok(());
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(IGNORED);
    text.push('\n');
    std::fs::write(path, text).map_err(|error| CliError::file(path, "write", &error))?;
    session
        .ui
        .line(&format!("added {IGNORED} to {}", path.display()));
    Ok(())
}
