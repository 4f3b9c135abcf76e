//! `windlass fmt`: quotes what needs quotes and lays files out in one way.
use crate::{
    error::CliError,
    exit::Exit,
    files, playbook,
    session::{ENV_FILE, Session},
};
use similar::TextDiff;
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};
use windlass_engine::{
    compile::{mended, mended_yaml},
    diagnostic::Diagnostic,
    source::{LayoutError, laid_out, parse},
};

/// What `fmt` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct FmtArgs {
    /// Files, or folders of which all playbooks, environment and test files are meant, those below included; `-` reads one
    /// from the standard input and prints it
    #[arg(default_value = ".")]
    paths: Vec<PathBuf>,
    /// Write nothing; end with code 1 where a file would change
    #[arg(long)]
    check: bool,
    /// Write nothing; print what would change, and end with code 1 where something would
    #[arg(long)]
    diff: bool,
}

/// What came of one file.
enum Formatted {
    AsItWas,
    Changed {
        text: String,
        mended: Vec<Diagnostic>,
    },
    /// It has mistakes that no quotes mend.
    Mistakes(Vec<Diagnostic>),
    /// A defect of this command.
    Meaning(LayoutError),
}

pub(crate) fn run(session: &Session, args: &FmtArgs) -> Result<Exit, CliError> {
    let mut files = Vec::new();
    for path in &args.paths {
        collect(path, true, &mut files)?;
    }
    let (mut would_change, mut invalid, mut defect) = (false, false, false);
    for path in &files {
        let from_stdin = path.as_os_str() == "-";
        let before = if from_stdin {
            stdin()?
        } else {
            playbook::read(path)?
        };
        let name = path.display().to_string();
        let writes = !args.check && !args.diff;
        match formatted(session, path, &before) {
            Formatted::AsItWas if from_stdin && writes => session.ui.exactly(&before),
            Formatted::AsItWas => {}
            Formatted::Changed { text, .. } if !writes => {
                would_change = true;
                if args.diff {
                    let diff = TextDiff::from_lines(&before, &text);
                    let mut unified = diff.unified_diff();
                    let unified = unified.header(&name, &name).to_string();
                    session.ui.print(&unified);
                } else {
                    session.ui.line(&format!("would change {name}"));
                }
            }
            Formatted::Changed { text, .. } if from_stdin => session.ui.exactly(&text),
            Formatted::Changed { text, mended } => {
                files::replace(path, &text)?;
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
            Formatted::Mistakes(diagnostics) => {
                invalid = true;
                let told =
                    crate::ui::diagnostics::each(&diagnostics, |_| before.as_str(), session.ui.err);
                session.ui.complain(&told);
                session
                    .ui
                    .complain(&format!("{name} is left as it is: mend this first\n"));
            }
            Formatted::Meaning(error) => {
                defect = true;
                let error = CliError::new(Exit::Failed, format!("{name}: {error}"))
                    .note("this is a defect of windlass fmt");
                session.ui.complain(&error.render(session.ui.err));
            }
        }
    }
    Ok(match (invalid, defect || would_change) {
        (true, _) => Exit::Invalid,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Succeeded,
    })
}

fn formatted(session: &Session, path: &Path, before: &str) -> Formatted {
    let name = path.display().to_string();
    let is_playbook = has_key(before, "playbook") && !is_test(path);
    let (text, mended) = if is_playbook {
        mended(&name, before, session.registry())
    } else {
        mended_yaml(&name, before)
    };
    match laid_out(&text) {
        Ok(laid) if laid == before => Formatted::AsItWas,
        Ok(text) => Formatted::Changed { text, mended },
        Err(LayoutError::Mistakes) => {
            // What this command would have mended is not in its way.
            let mut all = parse(&name, before).diagnostics;
            if all.iter().any(|diagnostic| diagnostic.mend.is_none()) {
                all.retain(|diagnostic| diagnostic.mend.is_none());
            }
            Formatted::Mistakes(all)
        }
        Err(error @ LayoutError::Meaning) => Formatted::Meaning(error),
    }
}

fn is_test(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".test.yaml") || name.ends_with(".test.yml")
}

/// Whether the file has this key at its top; it may not be readable yet.
fn has_key(text: &str, key: &str) -> bool {
    text.trim_start_matches('\u{feff}').lines().any(|line| {
        let found = line.split_once(':').map(|(found, _)| found.trim_end());
        found.is_some_and(|found| found.trim_matches(['\'', '"']) == key)
    })
}

/// A playbook, an environment or a test.
fn is_ours(path: &Path) -> Result<bool, CliError> {
    let named = path.file_name().is_some_and(|name| name == ENV_FILE) || is_test(path);
    if named {
        return Ok(true);
    }
    let bytes = fs::read(path).map_err(|error| CliError::file(path, "read", &error))?;
    // What is no text is none of them.
    Ok(String::from_utf8(bytes)
        .is_ok_and(|text| has_key(&text, "playbook") || has_key(&text, "environments")))
}

/// The files of a folder, those below it included; what is hidden, and links to folders, are left out.
fn collect(path: &Path, named: bool, files: &mut Vec<PathBuf>) -> Result<(), CliError> {
    if !path.is_dir() {
        if named || is_ours(path)? {
            files.push(path.to_owned());
        }
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
        let folder = entry.is_dir() && !entry.is_symlink();
        if !hidden && (folder || (yaml && entry.is_file())) {
            collect(&entry, false, files)?;
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
