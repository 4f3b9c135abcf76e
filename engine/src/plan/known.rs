//! What a plan knows at a place in the graph, and after which steps it would know the rest.
use crate::{
    expr::{self, Expr, ExprError, StepView, Template, Vars, View},
    graph::Graph,
    machine::{reachable_value, targets_value},
    step::{RunInfo, Target},
    value::Value,
};
use indexmap::IndexMap;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// The steps after which something is known.
pub(super) type After = BTreeSet<String>;

/// A value, or the steps after which it is known.
#[derive(Debug, Clone)]
pub(super) enum Known {
    Value(Value),
    After(After),
}

impl Known {
    pub(super) fn after(path: &str) -> Self {
        Self::After(BTreeSet::from([path.to_owned()]))
    }
    fn add_to(&self, all: &mut After) {
        if let Self::After(after) = self {
            all.extend(after.iter().cloned());
        }
    }
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Value(value) => value.clone(),
            Self::After(_) => Value::Null,
        }
    }
}

/// What is known of a step that comes before.
#[derive(Debug, Clone)]
pub(super) struct StepKnown {
    pub(super) path: String,
    pub(super) state: Known,
    pub(super) output: Known,
}

impl StepKnown {
    pub(super) fn after(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            state: Known::after(path),
            output: Known::after(path),
        }
    }
    pub(super) fn skipped(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            state: Known::Value(Value::from("skipped")),
            output: Known::Value(Value::Null),
        }
    }
    pub(super) fn succeeded(path: &str, output: Value) -> Self {
        Self {
            path: path.to_owned(),
            state: Known::Value(Value::from("succeeded")),
            output: Known::Value(output),
        }
    }
}

/// The item that a step inside a `foreach` sees.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) index: Known,
    pub(super) value: Known,
}

/// What expressions see in one scope.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) inputs: IndexMap<String, Known>,
    pub(super) lets: Arc<IndexMap<String, Expr>>,
    pub(super) steps: HashMap<String, StepKnown>,
    /// Outermost first.
    pub(super) items: Vec<Item>,
    /// Who called; `None` for the root.
    pub(super) caller: Option<Arc<Caller>>,
}

/// The call that a scope is in.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// What the call itself sees.
    pub(super) scope: Scope,
    /// The caller's names for the targets of the called playbook.
    pub(super) targets: IndexMap<String, String>,
    /// The call's path in the definition.
    pub(super) home: String,
}

/// What holds for the whole plan.
pub(super) struct World<'a> {
    pub(super) graph: &'a Graph,
    pub(super) run: &'a RunInfo,
    pub(super) targets: &'a IndexMap<String, Target>,
}

/// The end of the run: `run.outcome` is known only there.
const END: &str = "the end of the run";

impl World<'_> {
    /// The steps that must run before these expressions can be evaluated.
    pub(super) fn waits<'e>(
        &self,
        scope: &Scope,
        exprs: impl IntoIterator<Item = &'e Expr>,
    ) -> After {
        let mut all = After::new();
        let mut lets: Vec<&str> = Vec::new();
        for expr in exprs {
            self.add_waits(scope, expr, &mut lets, &mut all);
        }
        all
    }

    fn add_waits<'s>(
        &self,
        scope: &'s Scope,
        expr: &Expr,
        lets: &mut Vec<&'s str>,
        all: &mut After,
    ) {
        for reference in expr.references() {
            let first = reference.path.first().map(String::as_str);
            match reference.root.as_str() {
                "inputs" => match first {
                    Some(name) => {
                        if let Some(known) = scope.inputs.get(name) {
                            known.add_to(all);
                        }
                    }
                    None => scope.inputs.values().for_each(|known| known.add_to(all)),
                },
                "steps" => {
                    if let Some(id) = first
                        && !scope.steps.contains_key(id)
                    {
                        all.insert(id.to_owned());
                    }
                    let chosen = scope
                        .steps
                        .iter()
                        .filter(|(id, _)| first.is_none_or(|first| first == *id));
                    for (_, step) in chosen {
                        match reference.path.get(1).map(String::as_str) {
                            Some("state") => step.state.add_to(all),
                            Some("output") => step.output.add_to(all),
                            Some("error") => step.state.add_to(all),
                            // What is skipped never started. The rest is known only when it has run.
                            Some("started_at" | "duration" | "attempts") if is_skipped(step) => {}
                            Some(_) => {
                                all.insert(step.path.clone());
                            }
                            None => {
                                step.state.add_to(all);
                                step.output.add_to(all);
                            }
                        }
                    }
                }
                "run" => {
                    if matches!(first, Some("outcome" | "failed")) {
                        all.insert(END.to_owned());
                    }
                }
                name => {
                    if let Some(item) = scope.item(name) {
                        item.add_to(all);
                    } else if let Some((name, named)) = scope.lets.get_key_value(name)
                        && !lets.contains(&name.as_str())
                    {
                        lets.push(name);
                        self.add_waits(scope, named, lets, all);
                    }
                }
            }
        }
    }

    /// The variables for these expressions; what is not known yet is NULL, so ask [`World::waits`] first.
    pub(super) fn vars<'e>(
        &self,
        scope: &Scope,
        exprs: impl IntoIterator<Item = &'e Expr>,
    ) -> Result<Vars, ExprError> {
        expr::vars(&Seen { world: self, scope }, exprs)
    }

    /// The value of an expression, where it is known.
    pub(super) fn evaluate(&self, scope: &Scope, expr: &Expr) -> Result<Known, ExprError> {
        let waits = self.waits(scope, [expr]);
        if !waits.is_empty() {
            return Ok(Known::After(waits));
        }
        expr.evaluate(&self.vars(scope, [expr])?).map(Known::Value)
    }

    /// The value of a template, where it is known.
    pub(super) fn resolve(&self, scope: &Scope, template: &Template) -> Result<Known, ExprError> {
        let exprs = template.expressions();
        let waits = self.waits(scope, exprs.iter().copied());
        if !waits.is_empty() {
            return Ok(Known::After(waits));
        }
        template
            .evaluate(&self.vars(scope, exprs)?)
            .map(Known::Value)
    }

    /// What an expression saw: `inputs.size` is 2000, …
    pub(super) fn facts(&self, scope: &Scope, expr: &Expr) -> String {
        let mut facts: Vec<String> = Vec::new();
        for reference in expr.references() {
            if reference.dynamic {
                continue;
            }
            let name = std::iter::once(reference.root.as_str())
                .chain(reference.path.iter().map(String::as_str))
                .collect::<Vec<_>>()
                .join(".");
            let Ok(read) = Expr::parse(&name) else {
                continue;
            };
            if let Ok(Known::Value(value)) = self.evaluate(scope, &read) {
                let fact = format!("{name} is {}", short(&value));
                if !facts.contains(&fact) {
                    facts.push(fact);
                }
            }
        }
        facts.join(", ")
    }
}

/// A value in a few words.
pub(super) fn short(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{:?}", cut(text)),
        Value::List(items) => format!("a list of {}", items.len()),
        Value::Map(map) => format!("a map of {}", map.len()),
        Value::Null => "NULL".to_owned(),
        Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Secret(_) => cut(&value.to_string()),
    }
}

fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

fn is_skipped(step: &StepKnown) -> bool {
    matches!(&step.state, Known::Value(state) if state.as_str() == Some("skipped"))
}

/// A run as far as a plan knows it.
struct Seen<'w> {
    world: &'w World<'w>,
    scope: &'w Scope,
}

impl View for Seen<'_> {
    fn step(&self, name: &str) -> Option<StepView> {
        let step = self.scope.steps.get(name)?;
        Some(StepView {
            output: step.output.value(),
            state: step.state.value(),
            // Of a step that is skipped; of another it is known only after it.
            attempts: Value::Int(0),
            ..StepView::default()
        })
    }

    fn inputs(&self) -> Value {
        let inputs = self.scope.inputs.iter();
        Value::map(inputs.map(|(name, known)| (name.as_str(), known.value())))
    }

    fn run(&self) -> Value {
        self.world.run.view(Value::Null, Value::Null)
    }

    fn targets(&self) -> (Value, Value) {
        let (graph, bound) = (self.world.graph, self.world.targets);
        let names = self.scope.target_names(graph);
        (
            targets_value(graph, &names, bound),
            reachable_value(graph, &names, bound),
        )
    }

    fn item(&self, name: &str) -> Option<Value> {
        self.scope.item(name).map(|known| known.value())
    }

    fn lets(&self) -> &IndexMap<String, Expr> {
        &self.scope.lets
    }
}

impl Scope {
    /// What `item`, `index` or a `foreach`'s own name reads; the innermost wins.
    fn item(&self, name: &str) -> Option<Known> {
        let innermost = self.items.last()?;
        match name {
            "item" => Some(innermost.value.clone()),
            "index" => Some(innermost.index.clone()),
            name => self
                .items
                .iter()
                .rev()
                .find(|item| item.name == name)
                .map(|item| item.value.clone()),
        }
    }

    /// The name that the root playbook uses for a target of this scope.
    pub(super) fn global_target(&self, name: &str) -> String {
        let mut name = name.to_owned();
        let mut at = self;
        while let Some(caller) = &at.caller {
            if let Some(outer) = caller.targets.get(&name) {
                name.clone_from(outer);
            }
            at = &caller.scope;
        }
        name
    }

    /// The scope around this one, or itself, whose playbook declares a target.
    pub(super) fn declaring(&self, global: &str) -> &Self {
        let home = global.rsplit_once('/').map_or("", |(home, _)| home);
        let mut at = self;
        while let Some(caller) = &at.caller
            && caller.home != home
        {
            at = &caller.scope;
        }
        at
    }

    /// The targets that expressions of this scope see, each with its name in the root playbook.
    pub(super) fn target_names(&self, graph: &Graph) -> Vec<(String, String)> {
        match &self.caller {
            None => graph.root_targets(),
            Some(caller) => caller
                .targets
                .keys()
                .map(|name| (name.clone(), self.global_target(name)))
                .collect(),
        }
    }
}
