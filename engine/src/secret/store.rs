//! The secrets of the environments, and what one run has fetched of them.
use super::{Redactor, SecretError, SecretProvider};
use crate::{
    diagnostic::nearest,
    step::{Failure, Revealed},
    value::{Duration, SecretPart, SecretText, Timestamp, Value},
};
use indexmap::IndexMap;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

/// A secret of an environment.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Where it comes from.
    pub provider: Arc<dyn SecretProvider>,
    /// How long its content is used before it is fetched again; by default for the life of the run.
    pub ttl: Option<Duration>,
}

/// The secrets of every environment that this process may drive runs of, and what it knows of their content.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    environments: Arc<HashMap<String, IndexMap<String, Declared>>>,
    redactor: Arc<Redactor>,
}

impl Secrets {
    /// Those of the environments, by their names. The redactor learns what is fetched.
    #[must_use]
    pub fn new(
        environments: impl IntoIterator<Item = (String, IndexMap<String, Declared>)>,
        redactor: Arc<Redactor>,
    ) -> Self {
        Self {
            environments: Arc::new(environments.into_iter().collect()),
            redactor,
        }
    }

    /// What all that is written passes.
    #[must_use]
    pub fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// For one run in one environment: nothing is fetched yet.
    #[must_use]
    pub fn of_run(&self, environment: &str) -> Arc<RunSecrets> {
        Arc::new(RunSecrets {
            environment: environment.to_owned(),
            declared: self
                .environments
                .get(environment)
                .cloned()
                .unwrap_or_default(),
            redactor: self.redactor.clone(),
            fetched: Mutex::default(),
        })
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<(Timestamp, Revealed)>>>;

/// The secrets of one run: each is fetched once, on first use.
#[derive(Debug)]
pub struct RunSecrets {
    environment: String,
    declared: IndexMap<String, Declared>,
    redactor: Arc<Redactor>,
    fetched: Mutex<HashMap<String, Slot>>,
}

impl RunSecrets {
    /// The text with the content of its secrets in it. The redactor knows each before this returns.
    ///
    /// # Errors
    /// Where the environment has no such secret, or its provider does not give it.
    pub async fn reveal(&self, text: &SecretText, now: Timestamp) -> Result<Revealed, Failure> {
        let mut whole = String::new();
        for part in &text.parts {
            match part {
                SecretPart::Text(plain) => whole.push_str(plain),
                SecretPart::Secret(name) => {
                    whole.push_str(self.fetch(name, now).await?.expose());
                }
            }
        }
        Ok(Revealed::new(whole))
    }

    /// Fetches all secrets of these names, so that the redactor knows them.
    ///
    /// # Errors
    /// The first that cannot be fetched.
    pub async fn learn(&self, names: &BTreeSet<String>, now: Timestamp) -> Result<(), Failure> {
        for name in names {
            self.fetch(name, now).await?;
        }
        Ok(())
    }

    async fn fetch(&self, name: &str, now: Timestamp) -> Result<Revealed, Failure> {
        let Some(declared) = self.declared.get(name) else {
            return Err(self.unknown(name).failure(name));
        };
        let slot = self
            .fetched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name.to_owned())
            .or_default()
            .clone();
        // Steps that need it at the same time wait for one answer.
        let mut slot = slot.lock().await;
        if let Some((at, content)) = slot.as_ref()
            && declared.ttl.is_none_or(|ttl| now < ttl.after(*at))
        {
            return Ok(content.clone());
        }
        let content = declared
            .provider
            .fetch()
            .await
            .map_err(|error| error.failure(name))?;
        self.redactor.learn(name, content.expose());
        *slot = Some((now, content.clone()));
        Ok(content)
    }

    fn unknown(&self, name: &str) -> SecretError {
        let add = format!(
            "add it to windlass.yaml, under `secrets` of environment {}: `{name}: {{ env: VARIABLE }}`, or `file`, or \
             `command`",
            self.environment
        );
        SecretError::Unknown {
            name: name.to_owned(),
            help: match nearest(name, self.declared.keys().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}? Else {add}"),
                None => add,
            },
        }
    }

    /// What all that is written passes.
    #[must_use]
    pub fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// The names of the secrets that the environment has, for the journal.
    #[must_use]
    pub fn names(&self) -> Value {
        if self.declared.is_empty() {
            return Value::Null;
        }
        Value::list(
            self.declared
                .keys()
                .map(|name| Value::from(name.as_str()))
                .collect(),
        )
    }
}
