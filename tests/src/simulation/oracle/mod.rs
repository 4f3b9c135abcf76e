//! The judge: written from what commands mean, and reading nothing but the definition, the durable events and the world.
//!
//! It keeps no counters and no queues: each question is asked anew of what the events said about each node.
mod ends;
mod finish;
mod people;
mod record;
mod rules;
mod standing;
mod starts;
mod undoing;
mod verdict;
mod windows;

pub(super) use record::Stand;
pub(super) use verdict::Verdict;

use record::{Exec, Rec, Scope, ScopePhase};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use windlass_engine::{
    graph::{Body, Graph, Node, NodeId},
    machine::{Command, Outcome},
};

/// A property that does not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// `P1` to `P13`.
    pub property: &'static str,
    /// What, where.
    pub what: String,
    /// The definition, the events and the commands.
    pub story: String,
}

pub(super) type Check = Result<(), Box<Violation>>;

pub(super) fn wrong<T>(
    property: &'static str,
    what: impl Into<String>,
) -> Result<T, Box<Violation>> {
    Err(Box::new(Violation {
        property,
        what: what.into(),
        story: String::new(),
    }))
}

pub(super) type Path = Arc<str>;

/// What a node is at a path: the list of a foreach is another thing than one of its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Root,
    Foreach,
    Group,
    Call,
    Step,
}

#[derive(Debug, Clone)]
pub(super) struct Oracle {
    graph: Arc<Graph>,
    definitions: Arc<HashMap<String, NodeId>>,
    recs: BTreeMap<Path, Rec>,
    scopes: BTreeMap<Path, Scope>,
    /// A person's pause.
    pub paused: bool,
    pub cancelled: Option<(bool, bool)>,
    undo_ordered: bool,
    pub finished: Option<Outcome>,
    pub closed: bool,
    /// Inbox entries, each with whether it was accepted.
    pub answered: BTreeMap<String, bool>,
    command: Option<Command>,
    pub inputs_open: bool,
    /// How far the wall clock is ahead of the time of the run, in milliseconds.
    ahead: i64,
    starts: u64,
}

impl Oracle {
    pub(super) fn new(graph: &Arc<Graph>) -> Self {
        let mut definitions = HashMap::new();
        let mut stack: Vec<(String, NodeId)> = graph
            .root
            .steps
            .iter()
            .chain(&graph.root.finally)
            .map(|id| (String::new(), *id))
            .collect();
        while let Some((base, id)) = stack.pop() {
            let node = graph.node(id);
            let path = join(&base, &node.id);
            let inside: Vec<NodeId> = match &node.body {
                Body::Step(_) => Vec::new(),
                Body::Group { steps } => steps.clone(),
                Body::Call(call) => call
                    .scope
                    .steps
                    .iter()
                    .chain(&call.scope.finally)
                    .copied()
                    .collect(),
            };
            stack.extend(inside.into_iter().map(|id| (path.clone(), id)));
            definitions.insert(path, id);
        }
        let mut scopes = BTreeMap::new();
        scopes.insert(Path::from(""), Scope::default());
        Self {
            graph: graph.clone(),
            definitions: Arc::new(definitions),
            recs: BTreeMap::new(),
            scopes,
            paused: false,
            cancelled: None,
            undo_ordered: false,
            finished: None,
            closed: false,
            answered: BTreeMap::new(),
            command: None,
            inputs_open: false,
            ahead: 0,
            starts: 0,
        }
    }

    // ---- the definition ------------------------------------------------------------------------------

    pub(super) fn node(&self, path: &str) -> Option<&Node> {
        self.def(path).map(|id| self.graph.node(id))
    }

    /// The graph's node of a path, whatever items are in it.
    pub(super) fn def(&self, path: &str) -> Option<NodeId> {
        let mut plain = String::with_capacity(path.len());
        let mut inside = false;
        for c in path.chars() {
            match c {
                '[' => inside = true,
                ']' => inside = false,
                _ if inside => {}
                c => plain.push(c),
            }
        }
        self.definitions.get(&plain).copied()
    }

    pub(super) fn shape(&self, path: &str) -> Shape {
        match self.node(path) {
            None => Shape::Root,
            Some(node) if node.foreach.is_some() && !is_item(path) => Shape::Foreach,
            Some(node) => match node.body {
                Body::Step(_) => Shape::Step,
                Body::Group { .. } => Shape::Group,
                Body::Call(_) => Shape::Call,
            },
        }
    }

    fn in_finally(&self, path: &str) -> bool {
        self.node(path).is_some_and(|node| node.in_finally)
    }

    /// Whether it stands directly in a `finally`.
    fn is_finally_step(&self, path: &str) -> bool {
        self.in_finally(path)
            && parent(path).is_some_and(|p| matches!(self.shape(p), Shape::Root | Shape::Call))
    }

    /// The scope that a node is in.
    fn scope_of(&self, path: &str) -> Path {
        let mut at = path;
        while let Some(up) = parent(at) {
            if matches!(self.shape(up), Shape::Root | Shape::Call) {
                return up.into();
            }
            at = up;
        }
        "".into()
    }

    /// The scopes around a node, the innermost first.
    fn scopes_around(&self, path: &str) -> Vec<Path> {
        let mut all = Vec::new();
        let mut at: Path = path.into();
        while !at.is_empty() {
            at = self.scope_of(&at);
            all.push(at.clone());
        }
        all
    }

    fn needs(&self, path: &str) -> Vec<Path> {
        match (self.node(path), parent(path)) {
            (Some(node), Some(up)) if !is_item(path) => node
                .needs
                .iter()
                .map(|id| join(up, &self.graph.node(*id).id).into())
                .collect(),
            _ => Vec::new(),
        }
    }

    /// What is directly inside, without `finally`.
    fn inside(&self, path: &str) -> Vec<Path> {
        let below = |list: &[NodeId]| {
            list.iter()
                .map(|id| join(path, &self.graph.node(*id).id).into())
                .collect()
        };
        match (self.shape(path), self.node(path)) {
            (Shape::Root, _) => below(&self.graph.root.steps),
            (Shape::Foreach, _) => (0..self.rec(path).items.unwrap_or(0))
                .map(|i| format!("{path}[{i}]").into())
                .collect(),
            (_, Some(node)) => match &node.body {
                Body::Step(_) => Vec::new(),
                Body::Group { steps } => below(steps),
                Body::Call(call) => below(&call.scope.steps),
            },
            (_, None) => Vec::new(),
        }
    }

    fn finally_of(&self, scope: &str) -> Vec<Path> {
        let list = match self.node(scope).map(|node| &node.body) {
            None => &self.graph.root.finally,
            Some(Body::Call(call)) => &call.scope.finally,
            Some(Body::Step(_) | Body::Group { .. }) => return Vec::new(),
        };
        list.iter()
            .map(|id| join(scope, &self.graph.node(*id).id).into())
            .collect()
    }

    /// The siblings that need a node, directly or through others.
    fn dependents(&self, path: &str) -> Vec<Path> {
        let Some(up) = parent(path).filter(|_| !is_item(path)) else {
            return Vec::new();
        };
        let mut found: Vec<Path> = vec![path.into()];
        let mut all = Vec::new();
        for sibling in self.inside(up) {
            // A list is in an order in which each names only earlier ones.
            if self.needs(&sibling).iter().any(|need| found.contains(need)) {
                found.push(sibling.clone());
                all.push(sibling);
            }
        }
        all
    }

    /// The steps below a path (or the step itself), without those of a `finally`.
    fn steps_in(&self, path: &str) -> Vec<Path> {
        if self.shape(path) == Shape::Step {
            return vec![path.into()];
        }
        self.inside(path)
            .iter()
            .flat_map(|inner| self.steps_in(inner))
            .collect()
    }

    fn rec(&self, path: &str) -> &Rec {
        static NONE: std::sync::LazyLock<Rec> = std::sync::LazyLock::new(Rec::default);
        self.recs.get(path).unwrap_or(&NONE)
    }

    fn rec_mut(&mut self, path: &str) -> &mut Rec {
        self.recs.entry(path.into()).or_default()
    }

    fn scope(&self, path: &str) -> Scope {
        self.scopes.get(path).cloned().unwrap_or(Scope {
            phase: ScopePhase::Over,
            ..Scope::default()
        })
    }

    pub(super) fn stand(&self, path: &str) -> Stand {
        self.rec(path).forward.stand
    }

    pub(super) fn undo_stand(&self, path: &str) -> Stand {
        self.rec(path).undo.stand
    }

    pub(super) fn exec_of(&self, path: &str, phase: windlass_engine::step::Phase) -> &Exec {
        self.exec(path, phase)
    }

    /// Failures that hold the run.
    pub(super) fn holders(&self) -> Vec<Path> {
        self.asking()
    }

    /// Every node that an event has named, with where it stands.
    pub(super) fn known(&self) -> impl Iterator<Item = (&Path, &Exec, &Exec)> {
        self.recs
            .iter()
            .map(|(path, rec)| (path, &rec.forward, &rec.undo))
    }
}

fn join(base: &str, id: &str) -> String {
    if base.is_empty() {
        id.to_owned()
    } else {
        format!("{base}/{id}")
    }
}

pub(super) fn is_item(path: &str) -> bool {
    path.ends_with(']')
}

/// The path around: of an item its foreach.
fn parent(path: &str) -> Option<&str> {
    if path.is_empty() {
        return None;
    }
    let cut = if is_item(path) {
        path.rfind('[')
    } else {
        path.rfind('/')
    };
    Some(cut.and_then(|at| path.get(..at)).unwrap_or(""))
}

/// Whether a path lies below another, or is it.
fn within(path: &str, outer: &str) -> bool {
    outer.is_empty()
        || path == outer
        || path
            .strip_prefix(outer)
            .is_some_and(|rest| rest.starts_with('/') || rest.starts_with('['))
}
