//! Connections: what every database can do for a step, and one file a database that does it.
mod notices;
pub(crate) mod options;
mod place;
pub(crate) mod postgres;
pub(crate) mod sqlite;

pub(crate) use notices::listen;

use crate::sql::params::Bound;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use windlass_engine::{
    step::{
        Cause, Evidence, Failure, Identity, Phase, PreviewContext, Resources, Revealed,
        StepContext, StepHost, Target, TargetKind,
    },
    value::{Duration, Timestamp, Value},
};

/// Where neither the step nor the environment says how long a statement may take.
pub(crate) const DEFAULT_STATEMENT_TIMEOUT: Duration = Duration::from_secs(300);

/// Connections to one target, where the environment does not say.
pub(crate) const DEFAULT_POOL: u32 = 10;

/// How a connection will be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only reads; the database refuses the rest.
    Read,
    /// Reads and writes.
    Write,
}

/// A database that steps can open.
pub(crate) trait Database: TargetKind {
    /// Connects.
    fn open<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        access: Access,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, Failure>>;

    /// Whether there is a database to read; a preview creates none.
    fn exists(&self, target: &Target, url: &str) -> Result<bool, Failure>;

    /// Whether the transaction behind the token of [`Session::mark`] was committed. "Not done" only where it
    /// cannot be committed any more.
    fn settle<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        token: &'a Value,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Settled, Failure>> {
        let (_, _, _) = (url, token, until);
        Box::pin(async move {
            Ok(Settled::InDoubt(format!(
                "target {} has no ledger, so nothing shows whether its COMMIT succeeded; \
                 name a `ledger` table for it in the environment, and the next doubt settles itself",
                target.name
            )))
        })
    }

    /// Closes the connections of this process that no step uses.
    fn close_unused(&self, _: &Until) {}

    /// Waits for what a session still does that its client left behind, by the token of [`Session::alone`], and ends the
    /// session. It is gone when this returns without an error.
    fn end_left<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        token: &'a Value,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        let (_, _, _, _) = (target, url, token, until);
        Box::pin(async { Ok(()) })
    }

    /// The variables by which the database's own programs connect to the target.
    fn client_environment(
        &self,
        target: &Target,
        _url: &str,
    ) -> Result<Vec<(&'static str, Revealed)>, Failure> {
        Err(Failure::new(
            "target.no_client",
            format!(
                "target {} is a {}: its programs take no place and login from their environment",
                target.name, target.kind
            ),
        )
        .help("name the place in argv"))
    }

    /// How long to wait for a lock where the step does not say.
    fn lock_timeout(&self, target: &Target) -> Result<Duration, Failure> {
        options::busy_timeout(target)
    }
}

/// Rows as a statement gave them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rows {
    /// Names, in order, each once.
    pub(crate) columns: Vec<String>,
    /// Maps by column.
    pub(crate) rows: Vec<Value>,
    /// Whether there were more than asked for.
    pub(crate) truncated: bool,
}

/// What a statement did.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Affected {
    /// Rows inserted, changed or deleted by the statement itself.
    pub(crate) rows: u64,
    /// The id that the database chose for the last inserted row.
    pub(crate) last_insert_id: Option<i64>,
    /// What it returned.
    pub(crate) returned: Rows,
}

/// All rows of a table in the order of its key, in one number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fingerprint {
    /// How many.
    pub(crate) rows: u64,
    /// SHA-256, in hexadecimal.
    pub(crate) sha256: Option<String>,
}

/// The step that a row of the ledger speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LedgerKey {
    pub(crate) run: String,
    pub(crate) node: String,
    pub(crate) phase: &'static str,
    pub(crate) attempt: u32,
    /// The last attempt that the journal knows to have been committed.
    known: u32,
}

impl LedgerKey {
    pub(crate) fn of(cx: &StepContext, attempt: u32) -> Self {
        Self {
            run: cx.run.id.clone(),
            node: cx.node.to_string(),
            phase: match cx.phase {
                Phase::Do => "do",
                Phase::Undo => "undo",
            },
            attempt,
            known: cx.done_attempt,
        }
    }

    /// The forward attempt that an undo takes back. The rows before it are of what was undone since.
    pub(crate) fn undone(cx: &StepContext, attempt: u32) -> Self {
        Self {
            run: cx.run.id.clone(),
            node: cx.node.to_string(),
            phase: "do",
            attempt,
            known: attempt.saturating_sub(1),
        }
    }

    /// The attempt after which the rows of the ledger matter.
    pub(crate) fn after(&self) -> i64 {
        i64::from(self.known)
    }

    /// What the rows after that attempt say, each an attempt and its state.
    ///
    /// # Errors
    /// If a state is none that this windlass writes.
    pub(crate) fn read(
        &self,
        table: &str,
        rows: impl IntoIterator<Item = (i64, String)>,
    ) -> Result<LedgerState, Failure> {
        let mut own = LedgerState::Absent;
        for (attempt, state) in rows {
            let is_own = attempt == i64::from(self.attempt);
            match state.as_str() {
                "done" if is_own => own = LedgerState::Done,
                // Committed in a history that the journal has lost: it was put back from a backup.
                "done" => return Ok(LedgerState::Unknown(attempt)),
                "void" if is_own => own = LedgerState::Void,
                "void" => {}
                other => {
                    return Err(Failure::new(
                        "sql.ledger",
                        format!(
                            "the ledger {table} holds the state {other:?}, which this windlass does not know"
                        ),
                    ));
                }
            }
        }
        Ok(own)
    }
}

/// What the ledger says of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LedgerState {
    /// Its transaction was committed.
    Done,
    /// It never will be: the key is taken.
    Void,
    /// Nothing yet.
    Absent,
    /// Another attempt was committed, of which the journal does not know.
    Unknown(i64),
}

/// What a database says of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It was committed.
    Done,
    /// It was not, and cannot be any more.
    NotDone,
    /// It cannot be told, and why.
    InDoubt(String),
}

/// One open connection.
pub(crate) trait Session: Send {
    /// Runs a statement that reads; refuses any other before it acts. At most `max_rows` rows are kept.
    fn read<'a>(
        &'a mut self,
        statement: &'a Bound,
        max_rows: usize,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Rows, Failure>>;

    /// Begins a transaction that may write.
    fn begin<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<(), Failure>>;

    /// Runs a statement.
    fn run<'a>(
        &'a mut self,
        statement: &'a Bound,
        max_rows: usize,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Affected, Failure>>;

    /// Before statements without a transaction: what [`Database::end_left`] will need to know the session again. A database
    /// whose statements end with their client needs nothing.
    fn alone<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<Value, Failure>> {
        let _ = until;
        Box::pin(async { Ok(Value::Null) })
    }

    /// Inside a transaction, just before its COMMIT: what [`Database::settle`] will need to know it again.
    fn mark<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<Value, Failure>> {
        let _ = until;
        Box::pin(async { Ok(Value::Null) })
    }

    /// Commits. An error says whether the transaction is known to be undone (no effect) or not (unknown).
    fn commit<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<(), Failure>>;

    /// Inside a transaction: what the database would check at its COMMIT.
    fn check_deferred(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }

    /// Takes the transaction back.
    fn rollback(&mut self) -> BoxFuture<'_, Result<(), Failure>>;

    /// Inside a transaction: what the ledger says of a key. The table is made where it is missing.
    fn ledger_ask<'a>(
        &'a mut self,
        table: &'a str,
        key: &'a LedgerKey,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<LedgerState, Failure>>;

    /// Inside a transaction: writes a key down; an error where it is taken.
    fn ledger_write<'a>(
        &'a mut self,
        table: &'a str,
        key: &'a LedgerKey,
        state: LedgerState,
        at: Timestamp,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<(), Failure>>;

    /// Inside a transaction: why a statement would leave a trace although the transaction is taken back; `None` where it
    /// leaves none.
    fn trace<'a>(
        &'a mut self,
        statement: &'a Bound,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
        let (_, _) = (statement, until);
        Box::pin(async { Ok(None) })
    }

    /// How the database would run a statement.
    fn explain<'a>(
        &'a mut self,
        statement: &'a Bound,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>>;

    /// The user's tables, by name.
    fn tables<'a>(&'a mut self, until: &'a Until) -> BoxFuture<'a, Result<Vec<String>, Failure>>;

    /// Who answered.
    fn who(&self) -> &Identity;

    /// The timelines when the run started and now, where the target was failed over in between.
    fn failover(&self) -> Option<(u32, u32)> {
        None
    }

    /// Reads a whole table, streamed.
    fn fingerprint<'a>(
        &'a mut self,
        table: &'a str,
        checksum: bool,
        until: &'a Until,
    ) -> BoxFuture<'a, Result<Fingerprint, Failure>>;
}

/// Until when a statement may run, and who may end it before.
pub(crate) struct Until {
    host: std::sync::Arc<dyn StepHost>,
    cancel: CancellationToken,
    end: Timestamp,
    /// How long that was when it began.
    pub(crate) limit: Duration,
    /// How long to wait for a lock.
    pub(crate) lock_timeout: Duration,
    /// Who asks, for the server's own lists: run and step.
    pub(crate) who: String,
    /// Whether the connection counts against the target's `pool`: not the second one of a step, which would wait for the
    /// first one of another.
    pub(crate) counts: bool,
}

impl Until {
    /// For a step: its deadline, else the environment's statement timeout, else five minutes.
    pub(crate) fn of(
        cx: &StepContext,
        target: &Target,
        lock_timeout: Option<Duration>,
    ) -> Result<Self, Failure> {
        let now = cx.now();
        let end = match cx.deadline {
            Some(deadline) => deadline,
            None => options::statement_timeout(target)?.after(now),
        };
        Ok(Self {
            host: cx.host.clone(),
            cancel: cx.cancel.clone(),
            end,
            limit: Duration::between(now, end),
            lock_timeout: match lock_timeout {
                Some(given) => given,
                None => database(target)?.lock_timeout(target)?,
            },
            who: session_name(&cx.run.short_id, &cx.node),
            counts: true,
        })
    }

    /// For one of many statements of a step: no longer than the environment's statement timeout either.
    pub(crate) fn one_of(cx: &StepContext, target: &Target) -> Result<Self, Failure> {
        let mut until = Self::of(cx, target, None)?;
        until.end = until
            .end
            .min(options::statement_timeout(target)?.after(cx.now()));
        Ok(until)
    }

    /// For a preview.
    pub(crate) fn preview(cx: &PreviewContext, target: &Target) -> Result<Self, Failure> {
        let limit = options::statement_timeout(target)?;
        Ok(Self {
            host: cx.host.clone(),
            cancel: cx.cancel.clone(),
            end: limit.after(cx.host.now()),
            limit,
            lock_timeout: database(target)?.lock_timeout(target)?,
            who: format!("windlass/plan/{}", cx.node),
            counts: true,
        })
    }

    /// What steps share in this process.
    pub(crate) fn resources(&self) -> &Resources {
        self.host.resources()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.host.now()
    }

    /// Time left.
    pub(crate) fn left(&self) -> Duration {
        Duration::between(self.now(), self.end).max(Duration::ZERO)
    }

    /// Waits; ends early where the step is cancelled.
    pub(crate) async fn sleep(&self, duration: Duration) {
        tokio::select! {
            () = self.host.sleep(duration) => {}
            () = self.cancel.cancelled() => {}
        }
    }

    /// Waits for the end.
    pub(crate) async fn over(&self) -> Cause {
        loop {
            if let Some(cause) = self.passed() {
                return cause;
            }
            self.sleep(self.left()).await;
        }
    }

    /// Why no more may be done, if that is so.
    pub(crate) fn passed(&self) -> Option<Cause> {
        if self.cancel.is_cancelled() {
            // A step that was told to end at its deadline was not cancelled by anyone.
            Some(if self.now() >= self.end {
                Cause::Timeout
            } else {
                Cause::Cancelled
            })
        } else {
            (self.left() == Duration::ZERO).then_some(Cause::Timeout)
        }
    }

    /// The failure of a statement that was ended.
    pub(crate) fn ended(cause: Cause) -> Failure {
        if cause == Cause::Cancelled {
            Failure::new(
                "sql.cancelled",
                "the statement was ended: the step is cancelled",
            )
        } else {
            Failure::new("sql.timeout", "the statement was ended: its time is over").help(
                "give the step a longer `timeout`, or the target a longer `statement_timeout`",
            )
        }
        .cause(cause)
    }
}

/// What a session of a step is called on its server: `show` and the next process of the run find it by that.
pub(crate) fn session_name(short_id: &str, node: &str) -> String {
    format!("windlass/{short_id}/{node}")
}

/// The database of a target.
pub(crate) fn database(target: &Target) -> Result<&'static dyn Database, Failure> {
    match target.kind.as_str() {
        "sqlite" => Ok(&sqlite::Sqlite),
        "postgres" => Ok(&postgres::Postgres),
        other => Err(Failure::new(
            "target.kind",
            format!(
                "target {} is a {other}, which SQL steps cannot reach",
                target.name
            ),
        )
        .help("SQL steps reach: sqlite, postgres")),
    }
}

/// The target's url with its secrets, and with what a derived target says in place of its parts.
pub(crate) async fn url(host: &dyn StepHost, target: &Target) -> Result<Revealed, Failure> {
    let url = text(host, &target.url).await?;
    let password = match target.options.get("password") {
        Some(password) => Some(text(host, password).await?),
        None => None,
    };
    place::url(target, url.expose(), password.as_ref())
}

async fn text(host: &dyn StepHost, value: &Value) -> Result<Revealed, Failure> {
    match value {
        Value::Secret(secret) => host.reveal(secret).await,
        plain => Ok(Revealed::new(plain.to_string())),
    }
}

/// The variables by which the database's own programs connect to a target, once it has been seen to be the one that is
/// meant.
pub(crate) async fn client_environment(
    host: &dyn StepHost,
    target: &Target,
    until: &Until,
) -> Result<Vec<(&'static str, Revealed)>, Failure> {
    drop(open(host, target, Access::Read, until).await?);
    let url = url(host, target).await?;
    let database = database(target)?;
    database.close_unused(until);
    database.client_environment(target, url.expose())
}

/// Connects to a target.
pub(crate) async fn open(
    host: &dyn StepHost,
    target: &Target,
    access: Access,
    until: &Until,
) -> Result<Box<dyn Session>, Failure> {
    let url = url(host, target).await?;
    let session = database(target)?
        .open(target, url.expose(), access, until)
        .await?;
    host.met(target, session.who()).await?;
    if let Some((from, to)) = session.failover() {
        host.keep(Evidence::failover(&target.name, from, to));
    }
    Ok(session)
}
