//! Secrets of an environment: their sources, and references to them in URLs.
use super::{Environment, EnvironmentFile};
use crate::{
    diagnostic::{Diagnostic, codes, suggest},
    expr::{Template, Vars},
    graph::Graph,
    secret::{
        CommandSource, Declared, EnvSource, FileSource, PlainSource, Redactor, SecretProvider,
        Secrets,
    },
    step::{Revealed, Target},
    value::{Duration, SecretPart, SecretText, Value},
};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc};

/// How long a program may take to give a secret.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a secret comes from: one of `env`, `file` and `command`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["env"] }, { "required": ["file"] }, { "required": ["command"] }]))]
pub struct SecretEntry {
    /// The variable of Windlass's own environment that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// The file that holds it; a relative path starts at this file. The line break at its end is not part of it. A file
    /// that others may read is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The program that writes it to its standard output, with its arguments; no shell reads them. It runs in the folder
    /// of this file. What it writes to its standard error is not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// `file`: its group may read it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_group_read: Option<bool>,
    /// `command`: variables that it takes from the environment of Windlass; by default `[PATH, HOME]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherit_env: Option<Vec<String>>,
    /// `command`: how long it may take; by default `30s`. Then its whole process group is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// How long it is used before it is fetched again, such as `15m`; by default for the life of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

impl SecretEntry {
    /// As it was read, every duration is one.
    fn declared(&self, base: &Path) -> Option<Declared> {
        let duration = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        let provider: Arc<dyn SecretProvider> = if let Some(variable) = &self.env {
            Arc::new(EnvSource {
                variable: variable.clone(),
            })
        } else if let Some(path) = &self.file {
            Arc::new(FileSource {
                path: base.join(path),
                allow_group_read: self.allow_group_read.unwrap_or(false),
            })
        } else {
            Arc::new(CommandSource {
                argv: self.command.clone()?,
                inherit_env: self
                    .inherit_env
                    .clone()
                    .unwrap_or_else(|| vec!["PATH".to_owned(), "HOME".to_owned()]),
                timeout: duration(&self.timeout).unwrap_or(TIMEOUT),
                folder: base.to_owned(),
            })
        };
        Some(Declared {
            provider,
            ttl: duration(&self.ttl),
        })
    }
}

/// The name under which the plain password in a target's URL is kept out of what is written.
fn plain_name(target: &str) -> String {
    format!("password of {target}")
}

impl Environment {
    /// Its secrets with their providers; a plain password in a URL is one too. Relative paths start at `base`.
    #[must_use]
    pub fn secrets(&self, base: &Path) -> IndexMap<String, Declared> {
        let declared = self
            .secrets
            .iter()
            .filter_map(|(name, entry)| Some((name.clone(), entry.declared(base)?)));
        let plain = self.targets.iter().filter_map(|(target, entry)| {
            let url = Url::read(&entry.url).ok()?;
            let provider = PlainSource {
                place: format!("the url of target {target}"),
                content: Revealed::new(url.plain_password()?),
            };
            let declared = Declared {
                provider: Arc::new(provider),
                ttl: None,
            };
            Some((plain_name(target), declared))
        });
        declared.chain(plain).collect()
    }
}

impl EnvironmentFile {
    /// The secrets of all its environments. Relative paths start at `base`; the redactor learns what is fetched.
    #[must_use]
    pub fn secrets(&self, base: &Path, redactor: Arc<Redactor>) -> Secrets {
        let environments = self
            .environments
            .iter()
            .map(|(name, environment)| (name.clone(), environment.secrets(base)));
        Secrets::new(environments, redactor)
    }
}

/// A URL in which secrets may stand.
pub(super) struct Url {
    parts: Vec<SecretPart>,
}

impl Url {
    /// Reads `postgres://app:${{ secret("orders") }}@db/orders`.
    ///
    /// # Errors
    /// What is wrong with it, in one sentence.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let template = Template::parse_scalar(text).map_err(|error| error.message)?;
        let only = || {
            "an environment file knows `${{ secret(\"name\") }}`, and no other expression"
                .to_owned()
        };
        let of_secrets =
            |expr: &crate::expr::Expr| expr.references().is_empty() && !expr.secrets().is_empty();
        if !template.expressions().into_iter().all(of_secrets) {
            return Err(only());
        }
        match template.evaluate(&Vars::default()) {
            Ok(Value::Secret(secret)) => Ok(Self {
                parts: secret.parts.clone(),
            }),
            Ok(Value::Text(text)) => Ok(Self {
                parts: vec![SecretPart::Text(text.to_string())],
            }),
            Ok(_) | Err(_) => Err(only()),
        }
    }

    /// The names of the secrets in it.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            SecretPart::Secret(name) => Some(name.as_str()),
            SecretPart::Text(_) => None,
        })
    }

    pub(super) fn begins_with_a_secret(&self) -> bool {
        matches!(self.parts.first(), Some(SecretPart::Secret(_)))
    }

    /// What it begins with, up to the colon; `None` where a secret stands there.
    pub(super) fn scheme(&self) -> Option<&str> {
        match self.parts.first() {
            Some(SecretPart::Text(text)) => text.split_once(':').map(|(scheme, _)| scheme),
            Some(SecretPart::Secret(_)) | None => None,
        }
    }

    /// The password, where it stands there in plain text.
    pub(super) fn plain_password(&self) -> Option<String> {
        let joined: String = self
            .parts
            .iter()
            .map(|part| match part {
                SecretPart::Text(text) => text.as_str(),
                SecretPart::Secret(_) => "\0",
            })
            .collect();
        let password = crate::secret::password_of_url(&joined)?;
        (!password.contains('\0')).then_some(password)
    }

    /// The value that a target of this name keeps: a plain password in it is a reference too.
    pub(super) fn value(mut self, target: &str, base: &Path) -> Value {
        if let Some(password) = self.plain_password() {
            let around = format!(":{password}@");
            let split = self.parts.iter().enumerate().find_map(|(at, part)| {
                let SecretPart::Text(text) = part else {
                    return None;
                };
                let (before, after) = text.rsplit_once(&around)?;
                Some((at, format!("{before}:"), format!("@{after}")))
            });
            if let Some((at, before, after)) = split {
                self.parts.splice(
                    at..=at,
                    [
                        SecretPart::Text(before),
                        SecretPart::Secret(plain_name(target)),
                        SecretPart::Text(after),
                    ],
                );
            }
        }
        if let Some(SecretPart::Text(text)) = self.parts.first_mut() {
            *text = place(text, base);
        }
        match self.parts.as_mut_slice() {
            [SecretPart::Text(text)] => Value::from(std::mem::take(text)),
            _ => Value::Secret(Arc::new(SecretText { parts: self.parts })),
        }
    }
}

/// A relative path of a file-based URL starts where the environment file is. One that begins with a secret is taken
/// as it is.
fn place(url: &str, base: &Path) -> String {
    match url.strip_prefix("sqlite:") {
        Some("") | None => url.to_owned(),
        Some(path) => {
            let path = path.strip_prefix("//").unwrap_or(path);
            format!("sqlite:{}", base.join(path).display())
        }
    }
}

/// Secrets that the playbook or its targets name and the environment does not have. Names that an expression makes
/// are known when it runs.
#[must_use]
pub fn missing_secrets(
    graph: &Graph,
    targets: &IndexMap<String, Target>,
    name: &str,
    environment: &Environment,
) -> Vec<Diagnostic> {
    let mut users = graph.secrets();
    for target in targets.values() {
        for value in std::iter::once(&target.url).chain(target.options.values()) {
            if let Value::Secret(secret) = value {
                for secret in secret.names() {
                    let place = format!("target `{}`", target.name);
                    users.entry(secret.to_owned()).or_default().push(place);
                }
            }
        }
    }
    let plain: Vec<String> = environment
        .targets
        .keys()
        .map(|key| plain_name(key))
        .collect();
    let mut missing = Vec::new();
    for (secret, users) in users {
        if environment.secrets.contains_key(&secret) || plain.contains(&secret) {
            continue;
        }
        let near = suggest(&secret, environment.secrets.keys().map(String::as_str))
            .filter(|near| near.starts_with("did you mean"));
        let add = format!(
            "add it to windlass.yaml, under `environments: {name}: secrets:`, such as `{secret}: {{ env: {} }}`",
            secret
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                })
                .collect::<String>()
        );
        let diagnostic = Diagnostic::bare(
            codes::UNKNOWN_SECRET,
            format!(
                "{} uses secret {secret:?}, which environment {name:?} does not have",
                users.join(", ")
            ),
        );
        missing.push(diagnostic.help(match near {
            Some(near) => format!("{near} Else {add}"),
            None => add,
        }));
    }
    missing
}

/// The text of an environment file with the passwords of its URLs blotted out, byte for byte, so that places in it stay
/// where they are: for showing a line of it.
#[must_use]
pub fn without_passwords(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while let Some(at) = rest.find("://") {
            let (before, after) = rest.split_at(at + 3);
            clean.push_str(before);
            let end = after
                .find(|c: char| c == '/' || c == '?' || c == '\'' || c == '"' || c.is_whitespace())
                .unwrap_or(after.len());
            let (authority, more) = after.split_at(end);
            match authority
                .rsplit_once('@')
                .and_then(|(user, host)| Some((user.split_once(':')?, host)))
            {
                Some(((user, password), host)) => {
                    clean.push_str(user);
                    clean.push(':');
                    clean.push_str(&"*".repeat(password.len()));
                    clean.push('@');
                    clean.push_str(host);
                }
                None => clean.push_str(authority),
            }
            rest = more;
        }
        clean.push_str(rest);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Value {
        Url::read(text).unwrap().value("orders", Path::new("/base"))
    }

    #[test]
    fn urls_hold_references() {
        assert_eq!(
            url("sqlite:data/a.db"),
            Value::from("sqlite:/base/data/a.db")
        );
        assert_eq!(
            url("postgres://app:${{ secret(\"pw\") }}@db/x").to_string(),
            "postgres://app:secret(pw)@db/x"
        );
        assert_eq!(url("${{ secret('dsn') }}").to_string(), "secret(dsn)");
        assert_eq!(
            url("postgres://app:hunter22@db/x").to_string(),
            "postgres://app:secret(password of orders)@db/x"
        );
        for wrong in [
            "a:${{ 1 }}",
            "a:${{ inputs.x }}",
            "a:${{ secret(1) }}",
            "a:${{ ",
        ] {
            assert!(Url::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_shown_line_holds_no_password() {
        let text = "a: { url: postgres://app:hunter22@db/x }\nb: https://example.org/c:d@e\n";
        assert_eq!(
            without_passwords(text),
            "a: { url: postgres://app:********@db/x }\nb: https://example.org/c:d@e\n"
        );
    }
}
