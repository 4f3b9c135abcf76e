//! How many connections steps may have to one server at once.
use super::connect;
use crate::target::{Until, options as keys};
use sqlx::postgres::PgConnectOptions;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use windlass_engine::step::{Cause, Failure, Target};

/// The places of this process, by server, database and user.
#[derive(Default)]
struct Places(Mutex<HashMap<String, Arc<Semaphore>>>);

/// Waits for a place among the connections of a target, within the step's own time. The place is free again when it is
/// dropped.
///
/// Short helpers that end a statement or flush the log are not counted: a step that has its place must be able to end.
pub(super) async fn place(
    target: &Target,
    options: &PgConnectOptions,
    until: &Until,
) -> Result<OwnedSemaphorePermit, Failure> {
    let most = keys::pool(target)?;
    let key = format!(
        "{}/{}/{}/{most}",
        connect::place(options),
        options.get_database().unwrap_or_default(),
        options.get_username()
    );
    let semaphore = until
        .resources()
        .get::<Places>()
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(key)
        .or_insert_with(|| Arc::new(Semaphore::new(most as usize)))
        .clone();
    tokio::select! {
        permit = semaphore.acquire_owned() => permit.map_err(|_| full(target, most)),
        cause = until.over() => Err(full(target, most).cause(cause)),
    }
}

fn full(target: &Target, most: u32) -> Failure {
    Failure::new(
        "target.pool",
        format!(
            "all {most} connections that this process may have to target {} were in use until the step's time was over",
            target.name
        ),
    )
    .cause(Cause::Throttled)
    .help("give the target a larger `pool`, the step a longer `timeout`, or lower `max_parallel`")
}
