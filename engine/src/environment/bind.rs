//! The targets of a playbook, found in an environment.
use super::{Environment, TargetEntry, secrets::Url};
use crate::{
    diagnostic::{Diagnostic, codes, suggest},
    graph::{Graph, TargetDecl},
    step::{Failure, Target},
    value::{Map, Value},
};
use indexmap::IndexMap;
use std::path::Path;

/// Binds the named and many targets of a graph. `overrides` are `--target name=other` or `name=URL`; relative
/// paths of the environment start at `base`. Derived targets are bound when a step first uses them.
///
/// # Errors
/// Every target that is missing or of another kind.
pub fn bind(
    graph: &Graph,
    environment: &Environment,
    overrides: &[(String, String)],
    base: &Path,
) -> Result<IndexMap<String, Target>, Vec<Diagnostic>> {
    let mut bound = IndexMap::new();
    let mut diagnostics = Vec::new();
    let wrong = |message: String, help: String| Diagnostic::bare(codes::TARGET, message).help(help);
    for (name, _) in overrides {
        if !graph.targets.contains_key(name) {
            let help = suggest(name, graph.targets.keys().map(String::as_str))
                .unwrap_or_else(|| "the playbook declares no such target".to_owned());
            diagnostics.push(wrong(
                format!("--target names an unknown target {name:?}"),
                help,
            ));
        }
    }
    for (name, decl) in &graph.targets {
        match decl {
            TargetDecl::Derived { .. } => {}
            TargetDecl::Named { kind, role, .. } => {
                let given = overrides
                    .iter()
                    .rev()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value.as_str());
                let entry = match given {
                    Some(url) if url.contains(':') => {
                        if let Some(diagnostic) = said_aloud(name, url) {
                            diagnostics.push(diagnostic);
                            continue;
                        }
                        Some((
                            TargetEntry {
                                url: url.to_owned(),
                                ..TargetEntry::default()
                            },
                            name.as_str(),
                            Path::new(""),
                        ))
                    }
                    given => {
                        let key = given.unwrap_or(name);
                        environment
                            .targets
                            .get(key)
                            .cloned()
                            .map(|entry| (entry, key, base))
                    }
                };
                match entry {
                    None => {
                        let wanted = given.unwrap_or(name);
                        let help = suggest(wanted, environment.targets.keys().map(String::as_str)).unwrap_or_else(
                            || format!("add it to windlass.yaml under `targets`, or give --target {name}={kind}:…"),
                        );
                        diagnostics.push(wrong(
                            format!("the environment has no target {wanted:?}"),
                            help,
                        ));
                    }
                    Some((entry, key, base)) => {
                        match target(name, kind, role.as_ref(), key, &entry, base) {
                            Ok(target) => {
                                bound.insert(name.clone(), target);
                            }
                            Err(diagnostic) => diagnostics.push(diagnostic),
                        }
                    }
                }
            }
            TargetDecl::Many { kind, select, .. } => {
                let fits = environment
                    .targets
                    .iter()
                    .filter(|(_, entry)| kind_of(entry) == *kind)
                    .filter(|(_, entry)| {
                        select
                            .iter()
                            .all(|(key, value)| entry.labels.get(key) == Some(value))
                    });
                for (index, (key, entry)) in fits.enumerate() {
                    let name = format!("{name}[{index}]");
                    match target(&name, kind, None, key, entry, base) {
                        Ok(target) => {
                            bound.insert(name, target);
                        }
                        Err(diagnostic) => diagnostics.push(diagnostic),
                    }
                }
            }
        }
    }
    if diagnostics.is_empty() {
        Ok(bound)
    } else {
        Err(diagnostics)
    }
}

/// Every target of an environment, bound by itself: what no playbook says (its role, what it must never be) is not there.
///
/// # Errors
/// Every target whose entry is wrong.
pub fn every(
    environment: &Environment,
    base: &Path,
) -> Result<IndexMap<String, Target>, Vec<Diagnostic>> {
    let mut bound = IndexMap::new();
    let mut diagnostics = Vec::new();
    for (name, entry) in &environment.targets {
        match target(name, &kind_of(entry), None, name, entry, base) {
            Ok(target) => {
                bound.insert(name.clone(), target);
            }
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    if diagnostics.is_empty() {
        Ok(bound)
    } else {
        Err(diagnostics)
    }
}

fn kind_of(entry: &TargetEntry) -> String {
    entry.kind.clone().unwrap_or_else(|| {
        let url = Url::read(&entry.url).ok();
        match url.as_ref().and_then(Url::scheme) {
            Some("postgresql") => "postgres",
            scheme => scheme.unwrap_or_default(),
        }
        .to_owned()
    })
}

/// A password on the command line is refused: every process of the host can read it there.
fn said_aloud(name: &str, url: &str) -> Option<Diagnostic> {
    let password = Url::read(url).ok()?.plain_password();
    password.is_some().then(|| {
        Diagnostic::bare(
            codes::PLAIN_PASSWORD,
            format!("--target {name} holds a password, which the process list shows to everybody"),
        )
        .help(
            "put the target into windlass.yaml and name it, or write `${{ secret(\"name\") }}` in its place; and change \
             the password",
        )
    })
}

fn target(
    name: &str,
    kind: &str,
    role: Option<&String>,
    key: &str,
    entry: &TargetEntry,
    base: &Path,
) -> Result<Target, Diagnostic> {
    let found = kind_of(entry);
    if found != kind {
        return Err(Diagnostic::bare(
            codes::TARGET,
            format!("target {name:?} is a {found}, the playbook wants a {kind}"),
        )
        .help("bind another one with --target, or mend windlass.yaml"));
    }
    let url = Url::read(&entry.url).map_err(|wrong| {
        Diagnostic::bare(
            codes::TARGET,
            format!("the url of target {name:?}: {wrong}"),
        )
        .help("write a secret as `${{ secret(\"name\") }}`")
    })?;
    let mut options = IndexMap::new();
    for (key, value) in [
        ("statement_timeout", &entry.statement_timeout),
        ("busy_timeout", &entry.busy_timeout),
        ("lock_timeout", &entry.lock_timeout),
        ("connect_timeout", &entry.connect_timeout),
        ("tls", &entry.tls),
    ] {
        if let Some(text) = value {
            options.insert(key.to_owned(), Value::from(text.as_str()));
        }
    }
    for (key, file) in [
        ("ca_file", &entry.ca_file),
        ("client_cert", &entry.client_cert),
        ("client_key", &entry.client_key),
    ] {
        if let Some(file) = file {
            let file = base.join(file).display().to_string();
            options.insert(key.to_owned(), Value::from(file));
        }
    }
    if let Some(pool) = entry.pool {
        options.insert("pool".to_owned(), Value::Int(i64::from(pool)));
    }
    if let Some(create) = entry.create {
        options.insert("create".to_owned(), Value::Bool(create));
    }
    Ok(Target {
        name: name.to_owned(),
        kind: kind.to_owned(),
        url: url.value(key, base),
        role: role.cloned(),
        labels: entry.labels.clone(),
        ledger: entry.ledger.clone(),
        options,
        identity: None,
        never: Vec::new(),
        avoid: Vec::new(),
        entry: (key != name).then(|| key.to_owned()),
    })
}

/// A derived target: another one with some keys replaced. `url` and `path`, or `host`, `port` and `database` say where it
/// is, `login` and `password` who connects; every other key is an option of the target.
///
/// A database elsewhere keeps no ledger unless `ledger` names one.
///
/// # Errors
/// Where a key has a value that it cannot have.
pub fn derive(name: &str, base: &Target, overrides: &Map) -> Result<Target, Failure> {
    let mut target = base.clone();
    name.clone_into(&mut target.name);
    target.identity = None;
    target.entry = None;
    target.avoid.clear();
    if ["host", "port", "database"]
        .iter()
        .any(|key| overrides.contains_key(*key))
    {
        target.ledger = None;
    }
    for (key, value) in overrides {
        let text = || {
            value.as_str().ok_or_else(|| {
                Failure::new(
                    "target.derive",
                    format!(
                        "{key} of target {name} must be text, not {}",
                        value.type_name()
                    ),
                )
            })
        };
        match &**key {
            "url" => {
                target.url = match value {
                    Value::Secret(_) => value.clone(),
                    _ => Value::from(text()?),
                }
            }
            "path" => {
                // Relative to the folder of the target that it is like.
                let base = base
                    .url
                    .as_str()
                    .and_then(|url| url.strip_prefix("sqlite:"))
                    .unwrap_or_default();
                let folder = Path::new(base).parent().unwrap_or(Path::new(""));
                target.url = Value::from(format!("sqlite:{}", folder.join(text()?).display()));
            }
            "ledger" => target.ledger = Some(text()?.to_owned()),
            "host" | "database" | "login" => {
                target.options.insert(key.to_string(), Value::from(text()?));
            }
            other => {
                target.options.insert(other.to_owned(), value.clone());
            }
        }
    }
    Ok(target)
}
