//! Secrets: where their content comes from, who fetched it, and that it is written nowhere.
//!
//! A secret is a reference ([`crate::value::SecretText`]) until the moment of use. Then the store of its run asks
//! the provider that the environment names, and teaches the content to the process's one [`Redactor`] before anybody
//! else sees it. Everything that a step says passes that redactor before it is applied to the machine, so what is
//! live is what a replay gives.
//!
//! | file | what lives there |
//! |---|---|
//! | `provider.rs` | the trait, and what goes wrong with one |
//! | `sources.rs` | `env`, `file`, `command` |
//! | `store.rs` | the secrets of the environments; what one run has fetched |
//! | `redactor.rs`, `forms.rs`, `views.rs` | known content found and replaced, also encoded, escaped or cut |
mod forms;
mod provider;
mod redactor;
mod sources;
mod store;
mod views;

pub(crate) use forms::password_of_url;
pub use provider::{SecretError, SecretProvider};
pub use redactor::{MIN_CHARS, Redactor};
pub use sources::{CommandSource, EnvSource, FileSource, PlainSource};
pub use store::{Declared, RunSecrets, Secrets};
