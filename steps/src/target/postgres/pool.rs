//! The connections of this process: a bounded number to a server at once, each used again while steps follow one another.
use super::connect;
use crate::target::{Until, options as keys};
use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, Timeouts,
};
use scopeguard::ScopeGuard;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, postgres::PgConnectOptions};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use windlass_engine::{
    step::{Cause, Failure, Identity, Resource, Target},
    value::Duration,
};

/// How long an unused connection is kept. Short: `DROP DATABASE` waits five seconds for those of others to go.
const KEPT: Duration = Duration::from_secs(1);

/// A connection, and who the server said it was when the connection was taken.
pub(super) struct Connected {
    pub(super) connection: PgConnection,
    pub(super) who: Identity,
    /// Whether nothing of this step is left in it: the next one may have it.
    pub(super) is_clean: bool,
    /// Whether a step before this one had it.
    is_reused: bool,
}

/// A connection in use. Dropped, it goes back where it is clean, and is closed where it is not.
pub(super) type Held = ScopeGuard<Object<Opening>, fn(Object<Opening>)>;

/// Makes connections, and looks whether one can be used again.
#[derive(Clone)]
pub(super) struct Opening {
    target: Target,
    options: PgConnectOptions,
}

impl Opening {
    fn pool(self, most: usize) -> Result<Pool<Self>, Failure> {
        let name = self.target.name.clone();
        Pool::builder(self)
            .max_size(most)
            .build()
            .map_err(|error| Failure::new("target.pool", format!("target {name}: {error}")))
    }
}

impl Manager for Opening {
    type Type = Connected;
    type Error = Failure;

    async fn create(&self) -> Result<Connected, Failure> {
        let mut connection = connect::connect(&self.target, &self.options).await?;
        let who = super::who(&mut connection, &connect::place(&self.options)).await?;
        Ok(Connected {
            connection,
            who,
            is_clean: false,
            is_reused: false,
        })
    }

    async fn recycle(&self, held: &mut Connected, _: &Metrics) -> RecycleResult<Failure> {
        held.is_clean = false;
        held.is_reused = true;
        let limit = keys::connect_timeout(&self.target)?.to_std();
        let place = connect::place(&self.options);
        let asked = super::who(&mut held.connection, &place);
        held.who = tokio::time::timeout(limit, asked)
            .await
            .map_err(|_| RecycleError::message("the server does not answer"))??;
        Ok(())
    }
}

/// The pools of this process.
#[derive(Default)]
pub(super) struct Pools(Mutex<HashMap<[u8; 32], Pool<Opening>>>);

impl Pools {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Pool<Opening>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes every connection that no step uses: what comes now may need a database for itself, or change a login.
    pub(super) fn close_unused(&self) {
        self.keep_unused(|_| false);
    }

    fn keep_unused(&self, keep: impl Fn(Metrics) -> bool) {
        for pool in self.lock().values() {
            drop(pool.retain(|_, metrics| keep(metrics)));
        }
    }
}

impl Resource for Pools {
    fn tidy(&self) {
        self.keep_unused(|metrics| metrics.last_used() < KEPT.to_std());
    }
}

/// How connections to a server come about: from the pool of its target, else made for one use.
pub(super) struct Source {
    opening: Opening,
    pools: Arc<Pools>,
    pool: Pool<Opening>,
}

impl Source {
    /// The source of a target's connections. One that is reached in another way, or by another login, has another pool.
    pub(super) fn new(
        target: &Target,
        url: &str,
        options: PgConnectOptions,
        until: &Until,
    ) -> Result<Self, Failure> {
        let most = keys::pool(target)? as usize;
        let mut key = Sha256::new();
        key.update(url);
        for (option, value) in &target.options {
            key.update(format!("\n{option}={value}"));
        }
        let opening = Opening {
            target: target.clone(),
            options,
        };
        let pools = until.resources().get::<Pools>();
        let pool = match pools.lock().entry(key.finalize().into()) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => new.insert(opening.clone().pool(most)?).clone(),
        };
        Ok(Self {
            opening,
            pools,
            pool,
        })
    }

    pub(super) fn target(&self) -> &Target {
        &self.opening.target
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.opening.options
    }

    /// A connection to the server that is meant. Where all are in use it waits for one, within the step's own time.
    pub(super) async fn take(&self, until: &Until) -> Result<Held, Failure> {
        if !until.counts {
            return self.for_one_use().await;
        }
        loop {
            let object = tokio::select! {
                object = self.pool.get() => object.map_err(|error| self.failure(error))?,
                cause = until.over() => return Err(self.over(cause)),
            };
            match self.admitted(&object.who) {
                Ok(()) => return Ok(held(object)),
                // The name may lead to another server now: only a new connection tells.
                Err(_) if object.is_reused => drop(Object::take(object)),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// A connection for a short word with the server while a step has its own: never waits for a place.
    pub(super) async fn beside(&self) -> Result<Held, Failure> {
        let at_once = Timeouts::wait_millis(0);
        match self.pool.timeout_get(&at_once).await {
            Ok(object) => Ok(held(object)),
            Err(PoolError::Timeout(_)) => self.for_one_use().await,
            Err(error) => Err(self.failure(error)),
        }
    }

    /// A connection that no other step will have.
    async fn for_one_use(&self) -> Result<Held, Failure> {
        let object = self.opening.clone().pool(1)?.get().await;
        let object = object.map_err(|error| self.failure(error))?;
        self.admitted(&object.who)?;
        Ok(held(object))
    }

    /// See [`Pools::close_unused`].
    pub(super) fn close_unused(&self) {
        self.pools.close_unused();
    }

    fn admitted(&self, who: &Identity) -> Result<(), Failure> {
        super::admitted(self.target(), who, &connect::place(self.options()))
    }

    fn failure(&self, error: PoolError<Failure>) -> Failure {
        match error {
            PoolError::Backend(failure) => failure,
            other => Failure::new(
                "target.pool",
                format!("no connection to target {}: {other}", self.target().name),
            ),
        }
    }

    /// The step's time is over, and it has no connection yet.
    fn over(&self, cause: Cause) -> Failure {
        let status = self.pool.status();
        if status.size < status.max_size || status.available > 0 {
            return Until::ended(cause);
        }
        Failure::new(
            "target.pool",
            format!(
                "all {} connections that this process may have to target {} were in use until the step's time was over",
                status.max_size,
                self.target().name
            ),
        )
        .cause(cause)
        .help("give the target a larger `pool`, the step a longer `timeout`, or lower `max_parallel`")
    }
}

fn held(object: Object<Opening>) -> Held {
    scopeguard::guard(object, |object| {
        if !object.is_clean {
            drop(Object::take(object));
        }
    })
}
