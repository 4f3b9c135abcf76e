//! `sql.script`
use super::{
    alone, binding,
    execute::{
        NOT_REHEARSED, TransactionMode, can_be_rehearsed, kept, leaves_trace, look, positive,
        write_traits,
    },
    guards, open_for_preview,
    params::{Bound, Params, Statement, check},
    statements,
    transaction::{self, Transaction},
};
use crate::target::{self, Access, Session, Until};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Certainty, Effect, Failure, Fidelity, Figure, Mark, Outcome, ParamError, Preview,
        PreviewContext, Probed, Redo, Resume, Step, StepContext, StepKind, StepTraits, Target,
        UndoSupport,
        params::{SqlText, TargetName},
    },
    value::{Duration, Value},
};

/// Runs several statements, in one transaction, exactly once.
///
/// Statements are separated by `;`; a `;` in text, a comment or the body of a trigger separates nothing. All of
/// them see the same `params`. A statement that fails takes the whole script back, and the message names it by
/// its number and first line. Ledger, doubt and undo are as for `sql.execute`.
///
/// **`transaction: none`** runs each statement alone and keeps a checkpoint after each, so that the step
/// continues behind the last one that was done after a crash. The one that was interrupted is in doubt: if the step's
/// `probe` says that all is done, it is; its no leaves the step in doubt. What lasts for a session (`SET`) is refused,
/// since a session ends with a crash. A failure after the first statement is *partial*: what was done is named, it stays, and the step's undo
/// runs. A retry starts at the first statement again, so write the statements to bear that.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScriptParams {
    /// The target to write to.
    target: TargetName,
    /// Statements, separated by `;`.
    sql: SqlText,
    /// The values of the names in `sql`. A list binds as `IN (:list)`.
    #[serde(default)]
    params: Params,
    /// Lets UPDATE and DELETE go without WHERE.
    #[serde(default)]
    all_rows: bool,
    /// How long to wait for a lock; by default the target's `busy_timeout`.
    lock_timeout: Option<Duration>,
    /// `own`: one transaction around all; or `none`: each statement alone.
    #[serde(default)]
    transaction: TransactionMode,
}

/// What a script did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ScriptOutput {
    /// Rows that all statements together inserted, changed or deleted.
    pub(crate) rows_affected: u64,
    /// The statements, in order.
    pub(crate) statements: Vec<StatementOutput>,
}

/// What one statement did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct StatementOutput {
    /// Its number, from 1.
    number: u64,
    /// Its first line.
    statement: String,
    /// Rows that it inserted, changed or deleted.
    rows_affected: u64,
}

impl ScriptOutput {
    fn add(&mut self, statement: &Statement, rows: u64) {
        self.rows_affected += rows;
        self.statements.push(StatementOutput {
            number: self.statements.len() as u64 + 1,
            statement: statement.first_line.clone(),
            rows_affected: rows,
        });
    }
}

pub(crate) struct Script(ScriptParams);

impl StepKind for Script {
    const NAME: &'static str = "sql.script";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::ProbeFirst,
        marks: true,
        captures: false,
        undo: UndoSupport::Impossible,
        fidelity: Fidelity::Estimated,
        skippable: true,
    };
    const EXAMPLE: &'static str = "\
target: orders
sql: |
  ALTER TABLE orders ADD COLUMN region TEXT;
  CREATE INDEX orders_region ON orders (region);
lock_timeout: 2s
";
    type Params = ScriptParams;
    type Step = Self;

    fn traits(with: &Value) -> StepTraits {
        write_traits(with)
    }

    fn prepare(params: ScriptParams) -> Result<Self, Vec<ParamError>> {
        let mut errors = Vec::new();
        let statements = check("sql", &params.sql, &params.params, &mut errors);
        for (at, statement) in statements.iter().enumerate() {
            if let Some(mut error) = guards::unbounded("sql", &statement.shape, params.all_rows) {
                error.message = format!(
                    "statement {} ({}): {}",
                    at + 1,
                    statement.first_line,
                    error.message
                );
                errors.push(error);
            }
        }
        errors.extend(positive("lock_timeout", params.lock_timeout));
        if params.transaction == TransactionMode::Own {
            let refusing = |statement: &Statement| guards::needs_none("sql", &statement.shape);
            errors.extend(statements.iter().filter_map(refusing));
        }
        if params.transaction == TransactionMode::None {
            errors.extend(statements.iter().filter_map(guards::of_session));
        }
        if errors.is_empty() {
            Ok(Self(params))
        } else {
            Err(errors)
        }
    }
}

/// Names the statement that failed, and what was done before it.
fn named(mut failure: Failure, at: usize, all: usize, statement: &Statement) -> Failure {
    failure.message = format!(
        "statement {} of {all} ({}): {}",
        at + 1,
        statement.first_line,
        failure.message
    );
    failure
}

impl Script {
    fn bound(&self, target: &Target) -> Result<Vec<(Statement, Bound)>, Failure> {
        let all = statements(target, &self.0.sql)?;
        let many = all.len();
        all.into_iter()
            .enumerate()
            .map(|(at, statement)| {
                let bound = guards::admitted(&statement.shape, self.0.all_rows)
                    .and_then(|()| statement.bind(&self.0.params))
                    .map_err(|failure| named(failure, at, many, &statement))?;
                Ok((statement, bound))
            })
            .collect()
    }

    async fn in_transaction(
        &self,
        cx: &StepContext,
        target: Target,
    ) -> Result<ScriptOutput, Failure> {
        let all = self.bound(&target)?;
        let many = all.len();
        let mut transaction = Transaction::begin(cx, target, self.0.lock_timeout).await?;
        let mut output = ScriptOutput::default();
        for (at, (statement, bound)) in all.into_iter().enumerate() {
            let affected = transaction
                .run(cx, bound, 0)
                .await
                .map_err(|failure| named(failure, at, many, &statement))?;
            output.add(&statement, affected.rows);
        }
        let kept = transaction.or_back(kept(&output)).await?;
        transaction.commit(cx, kept).await?;
        Ok(output)
    }

    async fn one_by_one(
        &self,
        cx: &StepContext,
        target: Target,
        mut output: ScriptOutput,
    ) -> Result<ScriptOutput, Failure> {
        let all = self.bound(&target)?;
        let many = all.len();
        let until = Until::of(cx, &target, self.0.lock_timeout)?;
        let mut session = target::open(cx.host.as_ref(), &target, Access::Write, &until).await?;
        let done = output.statements.len();
        transaction::has_what_is_undone(cx, &mut session, &target, &until)
            .await
            .map_err(|failure| match done {
                0 => failure,
                _ => failure.certainty(Certainty::Partial),
            })?;
        for (at, (statement, bound)) in all.into_iter().enumerate().skip(done) {
            let shape = bound.shape.clone();
            let before = output.clone();
            let partly = |failure: Failure| {
                let mut failure = named(failure, at, many, &statement);
                if at > 0 {
                    failure.certainty = match failure.certainty {
                        Certainty::NoEffect | Certainty::Partial => Certainty::Partial,
                        Certainty::Unknown => Certainty::Unknown,
                    };
                    failure.help = Some(format!(
                        "the {at} statements before it are done and stay; undo them or finish by hand"
                    ));
                }
                match kept(&before) {
                    Ok(kept) => failure.output(kept),
                    Err(_) => failure,
                }
            };
            let bound = bound.reveal(cx.host.as_ref()).await.map_err(partly)?;
            alone::mark(cx, &mut session, at + 1, &until)
                .await
                .map_err(partly)?;
            let affected = session
                .run(&bound, 0, &until)
                .await
                .map_err(|failure| partly(alone::failed(failure, &shape)))?;
            output.add(&statement, affected.rows);
            cx.progress(&output)
                .await
                .map_err(|failure| partly(failure).certainty(Certainty::Unknown))?;
        }
        Ok(output)
    }
}

/// Runs all of it and takes it back.
async fn rehearsed(
    session: &mut Box<dyn Session>,
    all: &[(&Statement, Bound)],
    until: &Until,
) -> Result<Preview, Failure> {
    session.begin(until).await?;
    let mut preview = Preview::new(Fidelity::RolledBack, "");
    let (mut rows, mut fails) = (0, None);
    for (at, (statement, bound)) in all.iter().enumerate() {
        match session.run(bound, 0, until).await {
            Ok(affected) => {
                rows += affected.rows;
                preview = preview.line(
                    format!("statement {}", at + 1),
                    format!("{}: {} rows", statement.first_line, affected.rows),
                );
            }
            Err(failure) => {
                fails = Some(named(failure, at, all.len(), statement));
                break;
            }
        }
    }
    session.rollback().await?;
    preview.summary = match fails {
        Some(failure) => format!("would fail: {failure}"),
        None => format!("would run {} statements and affect {rows} rows", all.len()),
    };
    Ok(preview)
}

/// How the database would run each of them.
async fn estimated(
    cx: &PreviewContext,
    session: &mut Box<dyn Session>,
    all: &[(&Statement, Bound)],
    until: &Until,
) -> Preview {
    let mut preview = Preview::new(
        Fidelity::Estimated,
        format!("would run {} statements", all.len()),
    );
    for (at, (statement, bound)) in all.iter().enumerate() {
        let one = look(cx, session, bound, until).await;
        // A later statement may need what an earlier one makes.
        preview.fidelity = if one.fidelity == Fidelity::Estimated {
            preview.fidelity
        } else {
            one.fidelity
        };
        let mut text = format!("{}: {}", statement.first_line, one.summary);
        for line in one.lines {
            text.push_str(&format!("; {}", line.text.replace('\n', "; ")));
        }
        preview = preview.line(format!("statement {}", at + 1), text);
    }
    preview
}

impl Step for Script {
    type Capture = ();
    type State = ScriptOutput;
    type Output = ScriptOutput;

    fn figures(output: &ScriptOutput) -> Vec<Figure> {
        let statements = output.statements.len() as u64;
        vec![
            Figure::count("statements", statements, "statement", "statements"),
            Figure::rows(output.rows_affected),
        ]
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let target = cx.target(&self.0.target)?;
        let until = Until::preview(cx, &target)?;
        let all = self.bound(&target)?;
        let rehearse = cx.rehearse
            && self.0.transaction == TransactionMode::Own
            && all.iter().all(|(_, bound)| can_be_rehearsed(bound));
        let mut secrets: Vec<String> = all.iter().flat_map(|(_, bound)| bound.secrets()).collect();
        secrets.dedup();
        let shown: Vec<String> = all.iter().map(|(_, bound)| bound.shown.clone()).collect();
        let access = if rehearse {
            Access::Write
        } else {
            Access::Read
        };
        let mut preview = match open_for_preview(cx, &target, access, &until).await? {
            Err(preview) => preview,
            Ok(mut session) => {
                let mut revealed = Vec::with_capacity(all.len());
                for (_, bound) in &all {
                    revealed.push(bound.clone().reveal(cx.host.as_ref()).await?);
                }
                let statements: Vec<_> = all
                    .iter()
                    .map(|(statement, _)| statement)
                    .zip(revealed)
                    .collect();
                let trace = if rehearse {
                    let bounds: Vec<&Bound> = statements.iter().map(|(_, bound)| bound).collect();
                    leaves_trace(&mut session, &bounds, &until).await?
                } else {
                    None
                };
                match trace {
                    None if rehearse => rehearsed(&mut session, &statements, &until).await?,
                    trace => {
                        let preview = estimated(cx, &mut session, &statements, &until).await;
                        match trace {
                            Some(why) => preview.line(NOT_REHEARSED, why),
                            None => preview,
                        }
                    }
                }
            }
        };
        preview = preview.line("sql", shown.join(";\n"));
        preview.binding = binding(&self.0.sql);
        preview.ends_within = Some(until.limit);
        preview.secrets = secrets;
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        resume: Resume<ScriptOutput>,
        cx: &StepContext,
    ) -> Result<Outcome<ScriptOutput, ScriptOutput>, Failure> {
        let target = cx.target(&self.0.target)?;
        let output = match self.0.transaction {
            TransactionMode::Own => self.in_transaction(cx, target).await?,
            TransactionMode::None => self.one_by_one(cx, target, resume.state).await?,
        };
        Ok(Outcome::Done(output))
    }

    async fn probe(
        &self,
        (): &(),
        mark: Option<&Mark>,
        cx: &StepContext,
    ) -> Result<Probed<ScriptOutput>, Failure> {
        let target = cx.target(&self.0.target)?;
        match (mark, self.0.transaction) {
            (Some(mark), TransactionMode::None) if self.bound(&target)?.len() > 1 => {
                alone::probe_of_many(mark, cx, &target).await
            }
            (Some(mark), TransactionMode::None) => alone::probe(mark, cx, &target).await,
            _ => transaction::probe(mark, cx, target).await,
        }
    }
}
