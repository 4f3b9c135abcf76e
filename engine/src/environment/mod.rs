//! Where things are: `windlass.yaml`, and the targets of a playbook found in it.
mod bind;
mod read;
mod secrets;

pub use bind::{bind, derive, every};
pub use secrets::{SecretEntry, missing_secrets, without_passwords};

use crate::diagnostic::Diagnostic;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An environment file, `windlass.yaml`, found upward from the working directory.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentFile {
    /// The environment that is used where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The embedded journal; by default `.windlass/journal.db` beside this file, for the account that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalEntry>,
    /// Environments by name.
    #[serde(default)]
    pub environments: IndexMap<String, Environment>,
    /// Groups of people who may vote on approvals, by their accounts of the operating system.
    #[serde(default)]
    pub approvers: IndexMap<String, Vec<String>>,
    /// What is worth knowing of a file that can be used: passwords in plain text.
    #[serde(skip)]
    #[schemars(skip)]
    pub warnings: Vec<Diagnostic>,
}

/// Where the journal is, and who may use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum JournalEntry {
    /// A file, relative to this file, for the account that makes it.
    Own(String),
    /// A file that several accounts of the host use.
    Shared(SharedJournal),
}

/// A journal that several accounts of a host use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedJournal {
    /// The file, relative to this file.
    pub path: String,
    /// The group of the operating system whose members read and write it. Whoever makes the journal gives its folder and its files
    /// to the group; `windlass doctor` checks them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl JournalEntry {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Own(path) => path,
            Self::Shared(shared) => &shared.path,
        }
    }

    /// The group that shares it.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Own(_) => None,
            Self::Shared(shared) => shared.group.as_deref(),
        }
    }
}

/// One environment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Targets by the name that playbooks use.
    #[serde(default)]
    pub targets: IndexMap<String, TargetEntry>,
    /// Secrets by the name that `secret("…")` uses, in playbooks and in the URLs of targets.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub secrets: IndexMap<String, SecretEntry>,
}

/// A target of an environment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetEntry {
    /// Where it is, such as `sqlite:data/shop.db`; a relative path starts at this file. Secrets stand in it as
    /// `${{ secret("name") }}`.
    pub url: String,
    /// `sqlite`; by default what the URL begins with. Needed if the URL begins with a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Labels, for targets that a playbook selects.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub labels: IndexMap<String, String>,
    /// The table that records which steps took effect; made on first use. Without it, a step that is killed
    /// between its COMMIT and the journal is in doubt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// The longest that a statement may take, such as `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_timeout: Option<String>,
    /// The longest to wait for a lock, such as `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_timeout: Option<String>,
    /// The longest to wait for a lock of a server, such as `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_timeout: Option<String>,
    /// The longest that connecting may take, such as `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<String>,
    /// How many connections one process may have to a server at once; by default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<u32>,
    /// TLS to a server: `verify` (the default), `require` (encrypted, but the certificate is not checked), `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// The authorities that may have signed the server's certificate, PEM; a relative path starts at this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// The client's certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<String>,
    /// The key of the client's certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    /// Whether the database, and its folder, may be created by the first step that writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<bool>,
}

impl EnvironmentFile {
    /// Reads a file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(path: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        read::read(path, text)
    }

    /// The environment of a name, or the default, or the only one, or an empty one named `local`.
    ///
    /// # Errors
    /// Where the name is not there, or several are and none is the default.
    pub fn choose(&self, name: Option<&str>) -> Result<(String, Environment), Diagnostic> {
        let known = || self.environments.keys().map(String::as_str);
        let wrong = |message: String, help: Option<String>| {
            let diagnostic = Diagnostic::bare(crate::diagnostic::codes::ENVIRONMENT, message);
            match help {
                Some(help) => diagnostic.help(help),
                None => diagnostic,
            }
        };
        let name = match name.or(self.default.as_deref()) {
            Some(name) => name,
            None => match self.environments.len() {
                0 => return Ok(("local".to_owned(), Environment::default())),
                1 => known().next().unwrap_or("local"),
                _ => {
                    let all: Vec<&str> = known().collect();
                    return Err(wrong(
                        "several environments and none is chosen".to_owned(),
                        Some(format!(
                            "name one with --env ({}), or set `default`",
                            all.join(", ")
                        )),
                    ));
                }
            },
        };
        self.environments
            .get(name)
            .map(|environment| (name.to_owned(), environment.clone()))
            .ok_or_else(|| {
                let help = crate::diagnostic::suggest(name, known());
                wrong(format!("there is no environment {name:?}"), help)
            })
    }
}

/// The JSON Schema of an environment file.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(EnvironmentFile).to_value()
}
