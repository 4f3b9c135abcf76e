//! From the tree of the file to its model, with a place for every mistake.
use super::{
    Environment, EnvironmentFile, JournalEntry, SecretEntry, SharedJournal, TargetEntry,
    secrets::Url,
};
use crate::{
    diagnostic::{Diagnostic, codes, suggest},
    source::{Map, Node, SourceFile, SourceTree},
    value::Duration,
};
use indexmap::IndexMap;

pub(super) fn read(path: &str, text: &str) -> Result<EnvironmentFile, Vec<Diagnostic>> {
    let tree = SourceTree::parse(path, text)?;
    let mut reader = Reader {
        file: &tree.file,
        diagnostics: Vec::new(),
        warnings: Vec::new(),
    };
    let mut file = reader.file(&tree.root);
    file.warnings = std::mem::take(&mut reader.warnings);
    if reader.diagnostics.is_empty() {
        Ok(file)
    } else {
        Err(reader.diagnostics)
    }
}

struct Reader<'f> {
    file: &'f SourceFile,
    diagnostics: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn error(
        &mut self,
        code: &'static str,
        range: crate::source::Range,
        message: String,
        help: Option<String>,
    ) {
        let diagnostic = Diagnostic::error(code, self.file.span(range), message);
        self.diagnostics.push(match help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        });
    }

    fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n Map> {
        if node.map().is_none() {
            self.error(
                codes::WRONG_TYPE,
                node.range,
                format!("{what} must be a map, not {}", node.type_name()),
                None,
            );
        }
        node.map()
    }

    fn keys(&mut self, map: &Map, known: &[&str], what: &str) {
        for entry in &map.entries {
            if !known.contains(&&*entry.key) {
                let help = suggest(&entry.key, known.iter().copied())
                    .unwrap_or_else(|| format!("{what} knows: {}", known.join(", ")));
                self.error(
                    codes::UNKNOWN_KEY,
                    entry.key_range,
                    format!("{what} has no key `{}`", entry.key),
                    Some(help),
                );
            }
        }
    }

    fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = node.scalar().map(|scalar| scalar.text.to_string());
        if text.is_none() {
            self.error(
                codes::WRONG_TYPE,
                node.range,
                format!("{what} must be text, not {}", node.type_name()),
                None,
            );
        }
        text
    }

    fn file(&mut self, root: &Node) -> EnvironmentFile {
        let mut file = EnvironmentFile::default();
        let Some(map) = self.map(root, "an environment file") else {
            return file;
        };
        self.keys(
            map,
            &["default", "journal", "environments", "approvers"],
            "an environment file",
        );
        file.default = map
            .get("default")
            .and_then(|node| self.text(node, "default"));
        file.journal = map.get("journal").and_then(|node| self.journal(node));
        if let Some(groups) = map
            .get("approvers")
            .and_then(|node| self.map(node, "approvers"))
        {
            for entry in &groups.entries {
                let Some(members) = entry.value.list() else {
                    let message = format!("group `{}` must be a list of people", entry.key);
                    self.error(codes::WRONG_TYPE, entry.value.range, message, None);
                    continue;
                };
                let members = members
                    .iter()
                    .filter_map(|node| self.text(node, "a member"))
                    .collect();
                file.approvers.insert(entry.key.to_string(), members);
            }
        }
        if let Some(all) = map
            .get("environments")
            .and_then(|node| self.map(node, "environments"))
        {
            for entry in &all.entries {
                let environment = self.environment(&entry.value);
                file.environments.insert(entry.key.to_string(), environment);
            }
        }
        file
    }

    /// A path, or a path and the group that shares it.
    fn journal(&mut self, node: &Node) -> Option<JournalEntry> {
        if node.scalar().is_some() {
            return self.text(node, "journal").map(JournalEntry::Own);
        }
        let map = self.map(node, "journal")?;
        self.keys(map, &["path", "group"], "journal");
        let Some(path) = map.get("path") else {
            self.error(
                codes::MISSING_KEY,
                node.range,
                "journal has no `path`".to_owned(),
                Some(
                    "such as `journal: { path: /var/lib/windlass/journal.db, group: dba }`"
                        .to_owned(),
                ),
            );
            return None;
        };
        let path = self.text(path, "path")?;
        let group = map.get("group").and_then(|node| self.text(node, "group"));
        Some(JournalEntry::Shared(SharedJournal { path, group }))
    }

    fn environment(&mut self, node: &Node) -> Environment {
        let mut environment = Environment::default();
        let Some(map) = self.map(node, "an environment") else {
            return environment;
        };
        self.keys(map, &["targets", "secrets"], "an environment");
        if let Some(secrets) = map
            .get("secrets")
            .and_then(|node| self.map(node, "secrets"))
        {
            for entry in &secrets.entries {
                let is_name = entry.key.chars().count() <= 64
                    && entry.key.starts_with(|c: char| c.is_ascii_alphabetic())
                    && entry
                        .key
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
                if !is_name {
                    self.error(
                        codes::BAD_ID,
                        entry.key_range,
                        format!("`{}` is no name of a secret", entry.key),
                        Some(
                            "it starts with a letter and holds letters, digits, `_`, `-`, `.` and `/`, at most 64"
                                .to_owned(),
                        ),
                    );
                }
                if let Some(secret) = self.secret(&entry.value, &entry.key) {
                    environment.secrets.insert(entry.key.to_string(), secret);
                }
            }
        }
        if let Some(targets) = map
            .get("targets")
            .and_then(|node| self.map(node, "targets"))
        {
            for entry in &targets.entries {
                if let Some(target) = self.target(&entry.value, &entry.key) {
                    self.url(&entry.value, &entry.key, &target, &environment.secrets);
                    environment.targets.insert(entry.key.to_string(), target);
                }
            }
        }
        environment
    }

    /// The URL of a target: its secrets are there, and no password is.
    fn url(
        &mut self,
        node: &Node,
        name: &str,
        target: &TargetEntry,
        secrets: &IndexMap<String, SecretEntry>,
    ) {
        let Some(place) = node.map().and_then(|map| map.get("url")) else {
            return;
        };
        let url = match Url::read(&target.url) {
            Ok(url) => url,
            Err(wrong) => {
                self.error(
                    codes::NOT_LITERAL,
                    place.range,
                    format!("the url of target `{name}`: {wrong}"),
                    Some("write a secret as `${{ secret(\"name\") }}`".to_owned()),
                );
                return;
            }
        };
        if url.begins_with_a_secret() && target.kind.is_none() {
            self.error(
                codes::MISSING_KEY,
                node.range,
                format!("target `{name}` has a url that begins with a secret, and no `kind`"),
                Some("say what it is, such as `kind: postgres`".to_owned()),
            );
        }
        for secret in url.names() {
            if !secrets.contains_key(secret) {
                let near = suggest(secret, secrets.keys().map(String::as_str));
                self.error(
                    codes::UNKNOWN_SECRET,
                    place.range,
                    format!(
                        "the url of target `{name}` uses secret `{secret}`, which this environment does not have"
                    ),
                    Some(near.unwrap_or_else(|| {
                        format!("add `{secret}: {{ env: VARIABLE }}` to `secrets` beside `targets`")
                    })),
                );
            }
        }
        if url.plain_password().is_some() {
            let warning = Diagnostic::warning(
                codes::PLAIN_PASSWORD,
                self.file.span(place.range),
                format!("the url of target `{name}` holds a password in plain text"),
            );
            self.warnings.push(warning.help(
                "put it into a secret, and write `${{ secret(\"name\") }}` in its place; whoever may read this file \
                 knows it",
            ));
        }
    }

    fn secret(&mut self, node: &Node, name: &str) -> Option<SecretEntry> {
        let what = format!("secret `{name}`");
        let map = self.map(node, &what)?;
        let known = [
            "env",
            "file",
            "command",
            "allow_group_read",
            "inherit_env",
            "timeout",
            "ttl",
        ];
        self.keys(map, &known, &what);
        let sources = ["env", "file", "command"];
        let given: Vec<&str> = sources
            .into_iter()
            .filter(|key| map.get(key).is_some())
            .collect();
        if given.len() != 1 {
            let (code, message) = match given.is_empty() {
                true => (codes::MISSING_KEY, format!("{what} has no source")),
                false => (
                    codes::EXCLUSIVE,
                    format!("{what} has more than one source: {}", given.join(", ")),
                ),
            };
            let help = "write one of `env: VARIABLE`, `file: PATH`, `command: [PROGRAM, ARGUMENT]`";
            self.error(code, node.range, message, Some(help.to_owned()));
            return None;
        }
        for (key, source) in [
            ("allow_group_read", "file"),
            ("inherit_env", "command"),
            ("timeout", "command"),
        ] {
            if let Some(node) = map.get(key)
                && !given.contains(&source)
            {
                let message = format!("`{key}` belongs to `{source}`, which {what} does not have");
                self.error(codes::EXCLUSIVE, node.range, message, None);
            }
        }
        let text = |reader: &mut Self, key: &str| {
            let node = map.get(key)?;
            let text = reader.text(node, key)?;
            if text.trim().is_empty() {
                let message = format!("`{key}` of {what} is empty");
                reader.error(codes::WRONG_TYPE, node.range, message, None);
            }
            Some(text)
        };
        let entry = SecretEntry {
            env: text(self, "env"),
            file: text(self, "file"),
            command: self.texts(map, "command", true),
            allow_group_read: self.boolean(map, "allow_group_read"),
            inherit_env: self.texts(map, "inherit_env", false),
            timeout: self.duration(map, "timeout"),
            ttl: self.duration(map, "ttl"),
        };
        Some(entry)
    }

    /// A list of texts.
    fn texts(&mut self, map: &Map, key: &str, some: bool) -> Option<Vec<String>> {
        let node = map.get(key)?;
        let Some(items) = node.list() else {
            let message = format!("`{key}` must be a list, not {}", node.type_name());
            let help = format!("such as `{key}: [one, two]`");
            self.error(codes::WRONG_TYPE, node.range, message, Some(help));
            return None;
        };
        if some && items.is_empty() {
            let message = format!("`{key}` is empty");
            self.error(codes::EMPTY_LIST, node.range, message, None);
        }
        Some(
            items
                .iter()
                .filter_map(|item| self.text(item, key))
                .collect(),
        )
    }

    fn boolean(&mut self, map: &Map, key: &str) -> Option<bool> {
        let node = map.get(key)?;
        match node.scalar().map(|scalar| &*scalar.text) {
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) | None => {
                self.error(
                    codes::BOOLEAN,
                    node.range,
                    format!("{key} must be true or false"),
                    None,
                );
                None
            }
        }
    }

    fn target(&mut self, node: &Node, name: &str) -> Option<TargetEntry> {
        let what = format!("target `{name}`");
        let map = self.map(node, &what)?;
        let known = [
            "url",
            "kind",
            "labels",
            "ledger",
            "statement_timeout",
            "busy_timeout",
            "lock_timeout",
            "connect_timeout",
            "pool",
            "tls",
            "ca_file",
            "client_cert",
            "client_key",
            "create",
        ];
        self.keys(map, &known, &what);
        let Some(url) = map.get("url") else {
            let message = format!("{what} has no `url`");
            self.error(
                codes::MISSING_KEY,
                node.range,
                message,
                Some("such as `url: sqlite:data/shop.db`".to_owned()),
            );
            return None;
        };
        let mut labels = IndexMap::new();
        if let Some(map) = map.get("labels").and_then(|node| self.map(node, "labels")) {
            for entry in &map.entries {
                labels.extend(
                    self.text(&entry.value, "a label")
                        .map(|text| (entry.key.to_string(), text)),
                );
            }
        }
        let create = self.boolean(map, "create");
        Some(TargetEntry {
            url: self.text(url, "url")?,
            kind: map.get("kind").and_then(|node| self.text(node, "kind")),
            labels,
            ledger: map.get("ledger").and_then(|node| self.text(node, "ledger")),
            statement_timeout: self.duration(map, "statement_timeout"),
            busy_timeout: self.duration(map, "busy_timeout"),
            lock_timeout: self.duration(map, "lock_timeout"),
            connect_timeout: self.duration(map, "connect_timeout"),
            pool: self.count(map, "pool"),
            tls: self.one_of(map, "tls", &["verify", "require", "off"]),
            ca_file: map
                .get("ca_file")
                .and_then(|node| self.text(node, "ca_file")),
            client_cert: map
                .get("client_cert")
                .and_then(|node| self.text(node, "client_cert")),
            client_key: map
                .get("client_key")
                .and_then(|node| self.text(node, "client_key")),
            create,
        })
    }

    fn one_of(&mut self, map: &Map, key: &str, words: &[&str]) -> Option<String> {
        let node = map.get(key)?;
        let text = self.text(node, key)?;
        if !words.contains(&text.as_str()) {
            self.error(
                codes::WRONG_TYPE,
                node.range,
                format!("{key} must be {}", words.join(", ")),
                suggest(&text, words.iter().copied()),
            );
        }
        Some(text)
    }

    fn count(&mut self, map: &Map, key: &str) -> Option<u32> {
        let node = map.get(key)?;
        let count = self
            .text(node, key)?
            .parse()
            .ok()
            .filter(|count| *count > 0);
        if count.is_none() {
            self.error(
                codes::WRONG_TYPE,
                node.range,
                format!("{key} must be a whole number above zero"),
                None,
            );
        }
        count
    }

    fn duration(&mut self, map: &Map, key: &str) -> Option<String> {
        let node = map.get(key)?;
        let text = self.text(node, key)?;
        if let Err(error) = text.parse::<Duration>() {
            self.error(codes::DURATION, node.range, error.to_string(), None);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_tells_every_mistake() {
        let good = "default: dev\njournal: j.db\nenvironments:\n  dev:\n    targets:\n      shop: { url: 'sqlite:a.db', ledger: l, statement_timeout: 5s, create: true }\napprovers:\n  dba: [ana, bruno]\n";
        let file = read("windlass.yaml", good).unwrap();
        assert_eq!(
            file.environments["dev"].targets["shop"].ledger.as_deref(),
            Some("l")
        );
        assert_eq!(file.approvers["dba"], ["ana", "bruno"]);
        assert_eq!(file.journal, Some(JournalEntry::Own("j.db".to_owned())));
        let shared = read("windlass.yaml", "journal: { path: j.db, group: dba }\n").unwrap();
        let shared = shared.journal.unwrap();
        assert_eq!((shared.path(), shared.group()), ("j.db", Some("dba")));
        let wrong = "journal: { group: dba, mode: 7 }\n";
        let wrong = read("windlass.yaml", wrong).unwrap_err();
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        let bad = "defualt: dev\nenvironments:\n  dev:\n    targets:\n      shop: { uri: x, create: yes }\n      other: { url: y, busy_timeout: 5 }\n";
        let codes: Vec<&str> = read("windlass.yaml", bad)
            .unwrap_err()
            .iter()
            .map(|d| d.code)
            .collect();
        assert_eq!(codes.len(), 4, "{codes:?}");
    }
}
