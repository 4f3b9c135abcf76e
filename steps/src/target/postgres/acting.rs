//! What a statement would do beyond its rows: asked of its text, and then of the server's plan of it.
use super::{
    functions,
    plan::Plan,
    session::PostgresSession,
    values::{self, Typed},
};
use crate::{sql::params::Bound, target::Until};
use std::collections::BTreeSet;
use windlass_engine::step::Failure;

impl PostgresSession {
    /// Refuses a query that calls what acts: inside `BEGIN READ ONLY`, `pg_promote()` promotes and
    /// `pg_terminate_backend()` ends.
    ///
    /// Seen are the functions in its text, before the server plans it, and in its plan, where views are expanded. Not
    /// seen are those behind operators and casts, and what a function calls that is declared stable.
    pub(super) async fn refuse_acting(
        &mut self,
        typed: &Typed,
        bound: &Bound,
        until: &Until,
    ) -> Result<(), Failure> {
        self.refuse_calls(functions::called(&typed.sql), until)
            .await?;
        let Some(planned) = functions::planned_part(&typed.sql) else {
            return match bound.shape.verb.as_str() {
                "EXPLAIN" => Err(functions::unreadable()),
                _ => Ok(()),
            };
        };
        let plan = self.plan(planned, typed, until).await?;
        let calls = (!plan.is_unreadable).then_some(plan.calls);
        self.refuse_calls(calls, until).await
    }

    async fn refuse_calls(
        &mut self,
        calls: Option<BTreeSet<String>>,
        until: &Until,
    ) -> Result<(), Failure> {
        let calls = calls.ok_or_else(functions::unreadable)?;
        let acting = self
            .work(until, async move |connection| {
                functions::acting(connection, &calls).await
            })
            .await?;
        acting.map_or(Ok(()), |names| Err(functions::refused(&names)))
    }

    /// How the server would run a statement, without running it.
    async fn plan(&mut self, planned: &str, typed: &Typed, until: &Until) -> Result<Plan, Failure> {
        let sql = format!("EXPLAIN (VERBOSE, FORMAT JSON) {planned}");
        let rows = self
            .work(until, async move |connection| {
                typed.fetch(sql, connection).await
            })
            .await?;
        let text = rows.first().and_then(|row| values::text(row, 0));
        text.as_deref().and_then(Plan::of).ok_or_else(|| {
            Failure::new(
                "sql.driver",
                "the server's plan of the statement cannot be read",
            )
        })
    }

    pub(super) async fn trace_of(
        &mut self,
        bound: &Bound,
        until: &Until,
    ) -> Result<Option<String>, Failure> {
        let Some(named) = functions::called(&bound.sql) else {
            return Ok(Some("it cannot be told what it calls".to_owned()));
        };
        // What its own text calls is asked before the server plans it.
        let acting = self
            .work(until, async move |connection| {
                functions::acting(connection, &named).await
            })
            .await?;
        if let Some(names) = acting {
            return Ok(Some(format!(
                "it calls {names}, and not all that this does is taken back"
            )));
        }
        let typed = self.typed(bound, until).await?;
        let plan = self.plan(&typed.sql, &typed, until).await?;
        self.work(until, async move |connection| plan.trace(connection).await)
            .await
    }
}
