//! Two step kinds that only have a face, and a target kind.
use crate::{
    step::{
        Cause, Effect, Failure, Identity, Kind, Outcome, ParamError, Preview, PreviewContext, Redo,
        Registry, Resume, Step, StepContext, StepKind, StepTraits, Target, TargetKind, UndoSupport,
        params::{Expression, SqlText, TargetName, Text},
    },
    value::{Duration, Value},
};
use futures_util::future::BoxFuture;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Does nothing.
pub(super) struct Nothing;

impl Step for Nothing {
    type Capture = ();
    type State = ();
    type Output = Rows;

    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Err(Failure::new("fake", "a face only"))
    }
    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        _: &StepContext,
    ) -> Result<Outcome<Rows, ()>, Failure> {
        Err(Failure::new("fake", "a face only"))
    }
}

/// The output of a query.
#[derive(Serialize, Deserialize, JsonSchema, Default)]
pub(super) struct Rows {
    rows: Vec<Value>,
    row: Value,
    value: Value,
    row_count: u64,
}

/// A query.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryParams {
    /// Where.
    #[expect(dead_code, reason = "read by its schema only")]
    target: TargetName,
    /// What.
    sql: SqlText,
    /// Values that the statement binds.
    #[serde(default)]
    #[expect(dead_code, reason = "read by its schema only")]
    params: IndexMap<String, Value>,
    /// How long to wait for a lock.
    #[expect(dead_code, reason = "read by its schema only")]
    lock_timeout: Option<Duration>,
}

pub(super) struct Query;

impl StepKind for Query {
    const NAME: &'static str = "sql.query";
    const TRAITS: StepTraits = StepTraits::READ_ONLY;
    const EXAMPLE: &'static str = "target: db\nsql: SELECT 1\n";
    type Params = QueryParams;
    type Step = Nothing;
    fn prepare(params: QueryParams) -> Result<Nothing, Vec<ParamError>> {
        if params.sql.contains("DROP") {
            return Err(vec![
                ParamError::new("sql", "a query cannot drop").help("use sql.execute"),
            ]);
        }
        Ok(Nothing)
    }
}

/// How a statement runs.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Transaction {
    /// In one.
    Required,
    /// Without one.
    None,
}

/// A statement.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by its schema only")]
pub(super) struct ExecuteParams {
    /// Where.
    target: TargetName,
    /// What.
    sql: SqlText,
    /// Values that the statement binds.
    #[serde(default)]
    params: IndexMap<String, Value>,
    /// Rows that it must change.
    expect_rows: Option<u32>,
    /// Whether it runs in a transaction.
    transaction: Option<Transaction>,
    /// How long to wait for a lock.
    lock_timeout: Option<Duration>,
}

pub(super) struct Execute;

impl StepKind for Execute {
    const NAME: &'static str = "sql.execute";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::ProbeFirst,
        marks: true,
        undo: UndoSupport::Impossible,
        ..StepTraits::READ_ONLY
    };
    const EXAMPLE: &'static str = "target: db\nsql: DELETE FROM t\n";
    type Params = ExecuteParams;
    type Step = Nothing;
    fn prepare(_: ExecuteParams) -> Result<Nothing, Vec<ParamError>> {
        Ok(Nothing)
    }
    fn traits(with: &Value) -> StepTraits {
        if with.get("transaction").and_then(Value::as_str) == Some("none") {
            StepTraits {
                redo: Redo::AskOperator,
                marks: false,
                ..Self::TRAITS
            }
        } else {
            Self::TRAITS
        }
    }
}

/// A named check.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by its schema only")]
pub(super) struct Check {
    /// Its name.
    name: Text,
    /// What must hold.
    #[schemars(extend("x-windlass-names" = ["value", "row"]))]
    expect: Expression,
    /// The query.
    sql: Option<SqlText>,
}

/// Checks.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by its schema only")]
pub(super) struct VerifyParams {
    /// Where.
    target: Option<TargetName>,
    /// What must hold.
    checks: Vec<Check>,
    /// Free labels.
    #[serde(default)]
    labels: IndexMap<String, Text>,
    /// Anything.
    #[serde(default)]
    data: Value,
    /// At most so many.
    max: Option<u8>,
    /// Yes or no.
    strict: Option<bool>,
}

pub(super) struct Verify;

impl StepKind for Verify {
    const NAME: &'static str = "verify";
    const TRAITS: StepTraits = StepTraits {
        skippable: false,
        ..StepTraits::READ_ONLY
    };
    const EXAMPLE: &'static str = "checks: [{ name: one, expect: 1 == 1 }]\n";
    type Params = VerifyParams;
    type Step = Nothing;
    fn retried(_: &Value) -> &'static [Cause] {
        &[Cause::Refused, Cause::Timeout]
    }
    fn prepare(_: VerifyParams) -> Result<Nothing, Vec<ParamError>> {
        Ok(Nothing)
    }
}

struct FakeTarget(&'static str);

impl TargetKind for FakeTarget {
    fn name(&self) -> &'static str {
        self.0
    }
    fn identify<'a>(
        &'a self,
        _: &'a Target,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Identity, Failure>> {
        Box::pin(async { Err(Failure::new("fake", "a face only")) })
    }
}

/// All of them.
pub(crate) fn registry() -> Registry {
    Registry::new(
        vec![
            Kind::of::<Query>(),
            Kind::of::<Execute>(),
            Kind::of::<Verify>(),
        ],
        vec![
            Arc::new(FakeTarget("sqlite")),
            Arc::new(FakeTarget("postgres")),
        ],
    )
}
