//! `windlass fmt`: quotes what needs quotes and lays files out in one way.
use crate::{error::CliError, exit::Exit, playbook, session::Session};
use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};
use windlass_engine::{
    compile::{Disk, mended},
    diagnostic::Diagnostic,
    source::{LayoutError, laid_out, parse},
};

/// What `fmt` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct FmtArgs {
    /// YAML files, or folders whose .yaml files are all meant, those below included; `-` reads one from the standard
    /// input and prints it
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Write nothing; end with code 1 where a file would change
    #[arg(long)]
    check: bool,
}

/// What came of one file.
enum Formatted {
    AsItWas,
    Changed {
        text: String,
        mended: Vec<Diagnostic>,
    },
    /// It has mistakes that no quotes mend.
    Mistakes {
        text: String,
        diagnostics: Vec<Diagnostic>,
    },
}

pub(crate) fn run(session: &Session, args: &FmtArgs) -> Result<Exit, CliError> {
    let mut files = Vec::new();
    for path in &args.paths {
        collect(path, &mut files)?;
    }
    let (mut would_change, mut invalid) = (0, false);
    for path in &files {
        let from_stdin = path.as_os_str() == "-";
        let before = if from_stdin {
            stdin()?
        } else {
            playbook::read(path)?
        };
        let name = path.display().to_string();
        match formatted(&name, &before)? {
            Formatted::AsItWas if from_stdin && !args.check => session.ui.print(&before),
            Formatted::AsItWas => {}
            Formatted::Changed { text, mended } => {
                would_change += 1;
                if args.check {
                    session.ui.line(&format!("would change {name}"));
                    continue;
                }
                if from_stdin {
                    session.ui.print(&text);
                    continue;
                }
                replace(path, &text)?;
                if !session.ui.quiet {
                    session.ui.line(&format!("changed {name}"));
                    for diagnostic in mended {
                        let line = diagnostic.span.map_or(0, |span| span.line);
                        session.ui.line(&format!(
                            "  line {line}: {} ({})",
                            diagnostic.message, diagnostic.code
                        ));
                    }
                }
            }
            Formatted::Mistakes { text, diagnostics } => {
                invalid = true;
                let told =
                    crate::ui::diagnostics::each(&diagnostics, |_| text.as_str(), session.ui.err);
                session.ui.complain(&told);
                session
                    .ui
                    .complain(&format!("{name} is left as it is: mend this first\n"));
            }
        }
    }
    Ok(match (invalid, args.check && would_change > 0) {
        (true, _) => Exit::Invalid,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Succeeded,
    })
}

fn formatted(path: &str, before: &str) -> Result<Formatted, CliError> {
    let is_playbook = before.lines().any(|line| line.starts_with("playbook:"));
    let (text, mended) = if is_playbook {
        mended(path, before, &windlass_steps::registry(), &Disk)
    } else {
        (before.to_owned(), Vec::new())
    };
    match laid_out(&text) {
        Ok(laid) if laid == before => Ok(Formatted::AsItWas),
        Ok(text) => Ok(Formatted::Changed { text, mended }),
        Err(LayoutError::Mistakes) => {
            let diagnostics = parse(path, before).diagnostics;
            let text = before.to_owned();
            Ok(Formatted::Mistakes { text, diagnostics })
        }
        Err(error @ LayoutError::Meaning) => {
            Err(CliError::new(Exit::Failed, format!("{path}: {error}"))
                .note("this is a defect of windlass fmt"))
        }
    }
}

/// The files of a folder, those below it included; hidden folders are left out.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), CliError> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let unreadable = |error| CliError::file(path, "read", &error);
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        entries.push(entry.map_err(unreadable)?.path());
    }
    entries.sort();
    for entry in entries {
        let hidden = entry
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let yaml = entry
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if !hidden && (entry.is_dir() || yaml) {
            collect(&entry, files)?;
        }
    }
    Ok(())
}

fn stdin() -> Result<String, CliError> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| {
            CliError::new(
                Exit::Invalid,
                format!("cannot read the standard input: {error}"),
            )
        })?;
    Ok(text)
}

/// Whoever reads the file meanwhile sees the old one or the new one, never half of one.
fn replace(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::file(path, "write", &error);
    // Through a link, the file that it points to.
    let path = path.canonicalize().map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let permissions = fs::metadata(&path).map_err(failed)?.permissions();
    file.as_file()
        .set_permissions(permissions)
        .map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(())
}
