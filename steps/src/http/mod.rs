//! Steps that speak HTTP: one request each.
//!
//! [`client`] sends a request and tells how far it came, [`failure`] says what each end means for the run, [`text`]
//! puts secrets in at the moment of use.
mod client;
mod failure;
pub(crate) mod request;
mod retry_after;
pub(crate) mod slack;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod webhook;
