//! Playbooks from files, and what a run of one is made of.
use crate::{args::pair, error::CliError, exit::Exit, session::Session};
use indexmap::IndexMap;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use windlass_engine::{
    compile::{self, Compiled, Disk, inputs},
    diagnostic::Diagnostic,
    environment,
    graph::Graph,
    run::NewRun,
    source::SourceTree,
    step::Target,
    value::Value,
};

/// The playbook's file in a folder.
const PLAYBOOK: &str = "playbook.yaml";

/// What names a playbook and what it is given.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Given {
    /// The playbook: a file, or a folder that holds playbook.yaml
    pub(crate) path: PathBuf,
    /// An input, as NAME=VALUE; may be given often
    #[arg(long = "input", short = 'i', value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) inputs: Vec<(String, String)>,
    /// A file of inputs, YAML or JSON; --input wins over it
    #[arg(long = "inputs", value_name = "FILE")]
    pub(crate) inputs_file: Option<PathBuf>,
    /// The environment of windlass.yaml
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// A target that is another one here, as NAME=OTHER or NAME=URL; may be given often
    #[arg(long = "target", value_name = "NAME=OTHER", value_parser = pair)]
    pub(crate) targets: Vec<(String, String)>,
}

/// All that a plan or a run needs.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) graph: Arc<Graph>,
    pub(crate) inputs: Value,
    pub(crate) targets: IndexMap<String, Target>,
    pub(crate) environment: String,
    pub(crate) approvers: IndexMap<String, Vec<String>>,
}

/// The file of a path: a folder means the playbook.yaml in it.
pub(crate) fn file_of(path: &Path) -> Result<PathBuf, CliError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let inside = path.join(PLAYBOOK);
    if inside.is_file() {
        return Ok(inside);
    }
    Err(
        CliError::invalid(format!("{} holds no {PLAYBOOK}", path.display()))
            .help("name the playbook's file, or a folder with a playbook.yaml"),
    )
}

/// Reads a file, with help where it is not there.
pub(crate) fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| {
        let wrong = CliError::file(path, "read", &error);
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                wrong.help("check the path; `windlass init` writes a first playbook")
            }
            std::io::ErrorKind::InvalidData => wrong.help("a playbook is UTF-8 text"),
            _ => wrong,
        }
    })
}

/// Compiles a file.
pub(crate) fn compile(session: &Session, path: &Path) -> Result<Compiled, CliError> {
    let file = file_of(path)?;
    session.about(&file);
    let text = read(&file)?;
    let shown = file.display().to_string();
    let shown = shown.strip_prefix("./").unwrap_or(&shown);
    Ok(compile::compile(shown, &text, session.registry(), &Disk))
}

/// Prints diagnostics on standard error.
pub(crate) fn complain(session: &Session, compiled: &Compiled) {
    if compiled.diagnostics.iter().any(Diagnostic::is_error) || !session.ui.quiet {
        session
            .ui
            .diagnose(&compiled.diagnostics, |d| compiled.text_of(d));
    }
}

/// The graph of a file; its mistakes are printed.
pub(crate) fn graph(session: &Session, path: &Path) -> Result<Arc<Graph>, CliError> {
    let compiled = compile(session, path)?;
    complain(session, &compiled);
    compiled
        .graph
        .map(Arc::new)
        .ok_or_else(|| CliError::said(Exit::Invalid))
}

/// Compiles, checks the inputs, finds the targets. All that is wrong is printed at once.
pub(crate) fn prepare(session: &Session, given: &Given) -> Result<Prepared, CliError> {
    let graph = graph(session, &given.path)?;
    let mut mistakes = Vec::new();
    let mut pairs = match &given.inputs_file {
        Some(path) => inputs_of(session, path)?,
        None => Vec::new(),
    };
    for (name, value) in &given.inputs {
        pairs.retain(|(known, _)| known != name);
        pairs.push((name.clone(), value.clone()));
    }
    let inputs = inputs::check(&graph.root.inputs, &pairs).unwrap_or_else(|wrong| {
        mistakes.extend(wrong);
        Value::Null
    });
    let loaded = session.environment()?;
    let (name, environment) = loaded.choose(session, given.env.as_deref())?;
    let targets = environment::bind(&graph, &environment, &given.targets, &loaded.base)
        .unwrap_or_else(|wrong| {
            mistakes.extend(wrong);
            IndexMap::new()
        });
    mistakes.extend(environment::missing_secrets(
        &graph,
        &targets,
        &name,
        &environment,
    ));
    loaded.warn(session);
    if !mistakes.is_empty() {
        session.ui.diagnose(&mistakes, |_| "");
        return Err(CliError::said(Exit::Invalid));
    }
    Ok(Prepared {
        graph,
        inputs,
        targets,
        environment: name,
        approvers: loaded.file.approvers.clone(),
    })
}

/// The inputs of a file as they would be typed.
fn inputs_of(session: &Session, path: &Path) -> Result<Vec<(String, String)>, CliError> {
    let text = read(path)?;
    let tree = SourceTree::parse(&path.display().to_string(), &text).map_err(|wrong| {
        session.ui.diagnose(&wrong, |_| &text);
        CliError::said(Exit::Invalid)
    })?;
    let Some(map) = tree.root.map() else {
        return Err(
            CliError::invalid(format!("{} is no map of inputs", path.display()))
                .help("write one input a line, as name: value"),
        );
    };
    Ok(map
        .entries
        .iter()
        .map(|entry| {
            let value = entry.value.scalar().map_or_else(
                || inputs::untyped(&entry.value).to_plain_json().to_string(),
                |scalar| scalar.text.to_string(),
            );
            (entry.key.to_string(), value)
        })
        .collect())
}

impl Prepared {
    /// A new run of it.
    pub(crate) fn new_run(self, by: String, digest: Option<String>) -> NewRun {
        NewRun {
            graph: self.graph,
            inputs: self.inputs,
            targets: self.targets,
            environment: self.environment,
            approvers: self.approvers,
            by,
            digest,
        }
    }
}
