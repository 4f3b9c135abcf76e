//! How expressions see a run. A plan sees what it knows of one in the same way, so that it cannot differ from it.
use super::{Expr, ExprError, REACHABLE, Vars};
use crate::value::Value;
use indexmap::IndexMap;
use std::collections::BTreeSet;

/// What the names in expressions mean at one place.
pub trait View {
    /// `steps.NAME`, if it is there.
    fn step(&self, name: &str) -> Option<StepView>;
    /// `inputs`.
    fn inputs(&self) -> Value;
    /// `run`.
    fn run(&self) -> Value;
    /// `targets`, and which of them are reachable.
    fn targets(&self) -> (Value, Value);
    /// `item`, `index`, or the name that a `foreach` gives its items; the innermost one.
    fn item(&self, name: &str) -> Option<Value>;
    /// The `let` names of the playbook, each of which names only earlier ones.
    fn lets(&self) -> &IndexMap<String, Expr>;
}

/// What `steps.NAME` reads; NULL for what is not there yet.
#[derive(Debug, Clone, Default)]
pub struct StepView {
    /// What it gave.
    pub output: Value,
    /// Its state, as a word.
    pub state: Value,
    /// The code and the message of its failure.
    pub error: Value,
    /// When it started.
    pub started_at: Value,
    /// When it settled.
    pub finished_at: Value,
    /// How long that took.
    pub duration: Value,
    /// How often it was tried.
    pub attempts: Value,
}

impl From<StepView> for Value {
    fn from(step: StepView) -> Self {
        Self::map([
            ("output", step.output),
            ("state", step.state),
            ("error", step.error),
            ("started_at", step.started_at),
            ("finished_at", step.finished_at),
            ("duration", step.duration),
            ("attempts", step.attempts),
        ])
    }
}

/// The variables that these expressions need, and no others: what a run holds is large.
///
/// # Errors
/// Where a `let` expression fails.
pub fn vars<'e>(
    view: &impl View,
    exprs: impl IntoIterator<Item = &'e Expr>,
) -> Result<Vars, ExprError> {
    let mut steps: IndexMap<String, Value> = IndexMap::new();
    let mut roots: BTreeSet<String> = BTreeSet::new();
    let mut lets: Vec<(usize, &String, &Expr)> = Vec::new();
    let mut queue: Vec<&Expr> = exprs.into_iter().collect();
    while let Some(expr) = queue.pop() {
        for reference in expr.references() {
            if reference.root == "steps"
                && let Some(name) = reference.path.first()
                && !steps.contains_key(name)
                && let Some(step) = view.step(name)
            {
                steps.insert(name.clone(), step.into());
            }
            if roots.insert(reference.root.clone())
                && let Some(named) = view.lets().get_full(&reference.root)
            {
                queue.push(named.2);
                lets.push(named);
            }
        }
    }
    let mut vars = Vars::new();
    for root in &roots {
        match root.as_str() {
            "steps" => vars.set("steps", Value::map(std::mem::take(&mut steps))),
            "inputs" => vars.set("inputs", view.inputs()),
            "run" => vars.set("run", view.run()),
            "targets" => {
                let (targets, reachable) = view.targets();
                vars.set(REACHABLE, reachable);
                vars.set("targets", targets);
            }
            name => {
                if let Some(item) = view.item(name) {
                    vars.set(name, item);
                }
            }
        }
    }
    // A `let` names only earlier ones, so their order is an order of evaluation.
    lets.sort_by_key(|(at, ..)| *at);
    for (_, name, expr) in lets {
        let value = expr.evaluate(&vars)?;
        vars.set(name.as_str(), value);
    }
    Ok(vars)
}
