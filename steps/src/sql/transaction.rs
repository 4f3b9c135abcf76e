//! A transaction of a step: ledger row, statements, mark, COMMIT; and the probe that tells whether it happened.
use super::params::Bound;
use crate::target::{self, Access, Affected, LedgerKey, LedgerState, Session, Settled, Until};
use windlass_engine::{
    step::{Certainty, Failure, Mark, Probed, StepContext, Target},
    value::{Duration, Value},
};

/// An open transaction. Dropped, it is taken back by the database.
pub(crate) struct Transaction {
    session: Box<dyn Session>,
    target: Target,
    attempt: u32,
    until: Until,
}

impl Transaction {
    /// Connects and begins. Where the target has a ledger, the step's row goes in first.
    pub(crate) async fn begin(
        cx: &StepContext,
        target: Target,
        lock_timeout: Option<Duration>,
    ) -> Result<Self, Failure> {
        let until = Until::of(cx, &target, lock_timeout)?;
        let session = target::open(cx.host.as_ref(), &target, Access::Write, &until).await?;
        let mut this = Self {
            session,
            target,
            attempt: cx.attempt,
            until,
        };
        this.session.begin(&this.until).await?;
        let entered = this.enter(cx).await;
        this.or_back(entered).await?;
        Ok(this)
    }

    async fn enter(&mut self, cx: &StepContext) -> Result<(), Failure> {
        if let Some(undone) = Undone::on(cx, &self.target) {
            undone
                .is_there(cx, &mut self.session, &self.target, &self.until)
                .await?;
        }
        let Some(ledger) = &self.target.ledger else {
            return Ok(());
        };
        let key = LedgerKey::of(cx, self.attempt);
        match self.session.ledger_ask(ledger, &key, &self.until).await? {
            LedgerState::Absent => {}
            LedgerState::Void => {
                return Err(Failure::new(
                    "sql.voided",
                    "this attempt was given up: a probe has written so into the ledger",
                ));
            }
            LedgerState::Done => return Err(lost_history(ledger, i64::from(self.attempt))),
            LedgerState::Unknown(attempt) => return Err(lost_history(ledger, attempt)),
        }
        self.session
            .ledger_write(ledger, &key, LedgerState::Done, cx.now(), &self.until)
            .await
    }

    /// Runs a statement; a failure takes the transaction back.
    pub(crate) async fn run(
        &mut self,
        cx: &StepContext,
        bound: Bound,
        max_rows: u32,
    ) -> Result<Affected, Failure> {
        let result = match bound.reveal(cx.host.as_ref()).await {
            Ok(bound) => {
                self.session
                    .run(&bound, max_rows as usize, &self.until)
                    .await
            }
            Err(failure) => Err(failure),
        };
        self.or_back(result).await
    }

    /// Takes the transaction back where something failed. Nothing happened then: not even a rollback that
    /// fails commits, and the connection ends with the step.
    pub(crate) async fn or_back<T>(&mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        if result.is_err() {
            // The first failure is the one to tell.
            drop(self.session.rollback().await);
        }
        result
    }

    /// Writes the mark down, then commits.
    pub(crate) async fn commit(mut self, cx: &StepContext, output: Value) -> Result<(), Failure> {
        if let Some(cause) = self.until.passed() {
            return self.or_back(Err(Until::ended(cause))).await;
        }
        let identity = self.session.mark(&self.until).await;
        let identity = self.or_back(identity).await?;
        let marked = cx
            .point_of_no_return(Mark {
                token: Value::map([
                    ("transaction", identity),
                    ("target", Value::from(self.target.name.as_str())),
                    ("attempt", Value::Int(i64::from(self.attempt))),
                    (
                        "ledger",
                        self.target
                            .ledger
                            .as_deref()
                            .map_or(Value::Null, Value::from),
                    ),
                ]),
                capture: None,
                output,
            })
            .await;
        self.or_back(marked).await?;
        self.session.commit(&self.until).await
    }
}

/// What an undo takes back, where the ledger of its own target should know of it.
struct Undone<'a> {
    ledger: &'a str,
    attempt: u32,
}

impl<'a> Undone<'a> {
    /// None in a forward action, where that wrote no row into a ledger or wrote it elsewhere, and where a person settled it.
    fn on(cx: &'a StepContext, target: &Target) -> Option<Self> {
        let undoes = cx.undoes.as_ref()?;
        let said = Said::of(&undoes.mark);
        let is_here = said.target == Some(target.name.as_str()) && undoes.named(target);
        let (ledger, attempt) = said.ledger.zip(said.attempt)?;
        (is_here && attempt == undoes.attempt).then_some(Self { ledger, attempt })
    }

    /// Asks inside a transaction. A server that has lost what the step did must not lose it a second time.
    async fn is_there(
        &self,
        cx: &StepContext,
        session: &mut Box<dyn Session>,
        target: &Target,
        until: &Until,
    ) -> Result<(), Failure> {
        let key = LedgerKey::undone(cx, self.attempt);
        match session.ledger_ask(self.ledger, &key, until).await? {
            // A row of a later attempt is of a history that the journal has lost: the undo's own row tells.
            LedgerState::Done | LedgerState::Unknown(_) => Ok(()),
            LedgerState::Absent | LedgerState::Void => Err(self.is_lost(cx, target)),
        }
    }

    fn is_lost(&self, cx: &StepContext, target: &Target) -> Failure {
        let (place, run, node) = (target.called(), &cx.run.short_id, &cx.node);
        Failure::new(
            "sql.nothing_to_undo",
            format!(
                "the ledger {} of {place} does not hold the row of attempt {} of this step: the server has lost it, by a failover or \
                 a restore, so there is nothing of it to undo",
                self.ledger, self.attempt
            ),
        )
        .help(format!(
            "look at {place}: if it does not have what the step did, `windlass resolve {run} {node} --done --because …`; once it was \
             repaired and has that row again, `windlass retry {run} {node}`"
        ))
    }
}

/// As a transaction does before it acts, for statements that run without one.
pub(super) async fn has_what_is_undone(
    cx: &StepContext,
    session: &mut Box<dyn Session>,
    target: &Target,
    until: &Until,
) -> Result<(), Failure> {
    let Some(undone) = Undone::on(cx, target) else {
        return Ok(());
    };
    session.begin(until).await?;
    let asked = undone.is_there(cx, session, target, until).await;
    let ended = session.rollback().await;
    asked.and(ended)
}

/// What the mark of a transaction says.
struct Said<'a> {
    target: Option<&'a str>,
    ledger: Option<&'a str>,
    attempt: Option<u32>,
}

impl<'a> Said<'a> {
    fn of(mark: &'a Mark) -> Self {
        let text = |key| mark.token.get(key).and_then(Value::as_str);
        let attempt = mark.token.get("attempt").and_then(Value::as_int);
        Self {
            target: text("target"),
            ledger: text("ledger"),
            attempt: attempt.and_then(|attempt| u32::try_from(attempt).ok()),
        }
    }
}

/// The ledger has a COMMIT that the journal does not know. The step does not act a second time: a person tells, since what
/// it gave is lost with that history.
fn lost_history(ledger: &str, attempt: i64) -> Failure {
    Failure::new(
        "sql.already_done",
        lost_words(ledger, attempt),
    )
    .certainty(Certainty::Unknown)
    .help("if the target has what the step does, resolve it as done; a step that reads its output needs `--output`")
}

fn lost_words(ledger: &str, attempt: i64) -> String {
    format!(
        "the ledger {ledger} says that attempt {attempt} of this step was committed, and the journal does not say so: that attempt was \
         in doubt or was declared not done, or the journal was put back from a backup, or another journal drives the same run"
    )
}

/// Whether the transaction behind a mark was committed.
pub(crate) async fn probe<O>(
    mark: Option<&Mark>,
    cx: &StepContext,
    target: Target,
) -> Result<Probed<O>, Failure> {
    let Some(mark) = mark else {
        return without_mark(cx, &target).await;
    };
    let Said {
        ledger, attempt, ..
    } = Said::of(mark);
    // The transaction itself, where the database knows it again: that also ends a session that still holds the row.
    let until = Until::of(cx, &target, None)?;
    let url = target::url(cx.host.as_ref(), &target).await?;
    let token = mark.token.get("transaction").unwrap_or(&Value::Null);
    let settled = target::database(&target)?
        .settle(&target, url.expose(), token, &until)
        .await;
    let (Some(ledger), Some(attempt)) = (ledger, attempt) else {
        return Ok(match settled? {
            Settled::Done => Probed::Done(None),
            Settled::NotDone => Probed::NotDone,
            Settled::InDoubt(why) => Probed::InDoubt(why),
        });
    };
    match settled {
        Ok(Settled::Done) => return Ok(Probed::Done(None)),
        Ok(Settled::NotDone) => return Ok(Probed::NotDone),
        // The row decides.
        Ok(Settled::InDoubt(_)) | Err(_) => {}
    }
    let key = LedgerKey::of(cx, attempt);
    match asked_of_ledger(cx, &target, ledger, &key, &until).await {
        // It came through just now: its row is there.
        Err(failure) if failure.code == "sql.voided" => {
            asked_of_ledger(cx, &target, ledger, &key, &until).await
        }
        answer => answer,
    }
}

/// The journal refuses the mark of a driver that has lost the run, and no commit goes without one: so nothing happened, unless
/// the ledger knows of a commit that the journal has lost.
async fn without_mark<O>(cx: &StepContext, target: &Target) -> Result<Probed<O>, Failure> {
    let Some(ledger) = &target.ledger else {
        return Ok(Probed::NotDone);
    };
    let until = Until::of(cx, target, None)?;
    let key = LedgerKey::of(cx, cx.attempt);
    let mut session = target::open(cx.host.as_ref(), target, Access::Write, &until).await?;
    session.begin(&until).await?;
    let state = session.ledger_ask(ledger, &key, &until).await;
    session.rollback().await?;
    Ok(match state? {
        LedgerState::Absent | LedgerState::Void => Probed::NotDone,
        LedgerState::Done => Probed::Unexplained(lost_words(ledger, i64::from(cx.attempt))),
        LedgerState::Unknown(attempt) => Probed::Unexplained(lost_words(ledger, attempt)),
    })
}

async fn asked_of_ledger<O>(
    cx: &StepContext,
    target: &Target,
    ledger: &str,
    key: &LedgerKey,
    until: &Until,
) -> Result<Probed<O>, Failure> {
    let mut session = target::open(cx.host.as_ref(), target, Access::Write, until).await?;
    session.begin(until).await?;
    let answer = match session.ledger_ask(ledger, key, until).await? {
        LedgerState::Done => Probed::Done(None),
        LedgerState::Void => Probed::NotDone,
        LedgerState::Unknown(attempt) => Probed::Unexplained(lost_words(ledger, attempt)),
        // From here on a COMMIT that is late meets this row and fails.
        LedgerState::Absent => {
            session
                .ledger_write(ledger, key, LedgerState::Void, cx.now(), until)
                .await?;
            session.commit(until).await?;
            return Ok(Probed::NotDone);
        }
    };
    session.rollback().await?;
    Ok(answer)
}
