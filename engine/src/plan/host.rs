//! What a step may ask for in a dry run. Nothing here writes.
use super::known::After;
use crate::{
    expr::{Expr, ExprError, Vars},
    step::{
        Cause, Evidence, Failure, Identity, Mark, Resources, Revealed, StepHost, Stream, Target,
    },
    value::{Duration, SecretText, Timestamp, Value},
};
use futures_util::future::BoxFuture;
use std::{collections::HashMap, sync::Arc};

/// Fetches the content of secrets.
pub type Reveal =
    Arc<dyn Fn(SecretText) -> BoxFuture<'static, Result<Revealed, Failure>> + Send + Sync>;

/// The host of one preview.
pub(super) struct PlanHost {
    /// Variables of each bare expression among the parameters, or what they wait for.
    pub(super) expressions: HashMap<String, Result<Vars, After>>,
    pub(super) targets: HashMap<String, Result<Target, Failure>>,
    pub(super) reveal: Reveal,
    pub(super) now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    pub(super) resources: Arc<Resources>,
}

fn refused(what: &str) -> Failure {
    Failure::new(
        "plan.would_write",
        format!("a dry run {what}, which only a run may"),
    )
}

impl StepHost for PlanHost {
    fn mark(&self, _: Mark) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { Err(refused("marked a point of no return")) })
    }

    fn progress(&self, _: Value) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { Err(refused("kept a checkpoint")) })
    }

    fn evaluate(&self, expr: &Expr, extra: Vars) -> Result<Value, ExprError> {
        match self.expressions.get(expr.source()) {
            Some(Ok(vars)) => expr.evaluate(&vars.clone().and(extra)),
            Some(Err(after)) => Err(ExprError {
                message: format!("`{}` is known after {}", expr.source(), words(after)),
                offset: None,
                help: None,
            }),
            None => expr.evaluate(&extra),
        }
    }

    fn target(&self, name: &str) -> Result<Target, Failure> {
        self.targets.get(name).cloned().unwrap_or_else(|| {
            Err(Failure::new(
                "target.unknown",
                format!("{name:?} is not a target that this step names"),
            ))
        })
    }

    /// A plan compares a server with what it was asked for, which opening it does.
    fn met<'a>(&'a self, _: &'a Target, _: &'a Identity) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }

    fn reveal<'a>(&'a self, secret: &'a SecretText) -> BoxFuture<'a, Result<Revealed, Failure>> {
        (self.reveal)(secret.clone())
    }

    fn now(&self) -> Timestamp {
        (self.now)()
    }

    fn of_wall(&self, at: Timestamp) -> Timestamp {
        at
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(duration.to_std()))
    }

    fn keep(&self, _: Evidence) {}

    fn print(&self, _: Stream, _: &str) {}

    /// A plan is cleaned as a whole.
    fn clean(&self, text: String) -> String {
        text
    }

    fn resources(&self) -> &Resources {
        &self.resources
    }
}

pub(super) fn words(after: &After) -> String {
    let mut names: Vec<String> = after.iter().take(5).cloned().collect();
    if after.len() > names.len() {
        names.push(format!("{} more", after.len() - names.len()));
    }
    names.join(", ")
}

/// The failure of a step whose preview needs what is not known yet.
pub(super) fn not_yet(after: &After) -> Failure {
    Failure::new("plan.known_after", format!("known after {}", words(after))).cause(Cause::Refused)
}
