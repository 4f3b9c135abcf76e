//! Secrets that a run has used and that this process cannot fetch.
//!
//! They are on the servers now, and in what steps read there. Without their content nothing can be kept out of the journal, so
//! no step acts; what people say of the run, and what only waits, needs none of them.
use super::api::RunError;
use crate::{secret::RunSecrets, value::Timestamp};
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(super) struct Unlearned {
    names: BTreeSet<String>,
    /// Why a command stays in the inbox.
    left: Option<RunError>,
}

impl Unlearned {
    /// Fetches what can be fetched.
    pub(super) async fn of(used: BTreeSet<String>, secrets: &RunSecrets, now: Timestamp) -> Self {
        let mut names = BTreeSet::new();
        for name in used {
            if secrets
                .learn(&BTreeSet::from([name.clone()]), now)
                .await
                .is_err()
            {
                names.insert(name);
            }
        }
        Self { names, left: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Tries once more.
    pub(super) async fn learn(
        &mut self,
        secrets: &RunSecrets,
        now: Timestamp,
    ) -> Result<(), RunError> {
        secrets
            .learn(&self.names, now)
            .await
            .map_err(|failure| RunError::Secret {
                why: format!(
                    "the run has used a secret that cannot be fetched, and a step would act now: {}",
                    failure.message
                ),
                help: failure.help,
            })?;
        self.names.clear();
        Ok(())
    }

    /// A command stays in the inbox.
    pub(super) fn leave(&mut self, why: RunError) {
        self.left = Some(why);
    }

    /// If a command was left: why.
    pub(super) fn nothing_is_left(&mut self) -> Result<(), RunError> {
        self.left.take().map_or(Ok(()), Err)
    }
}
