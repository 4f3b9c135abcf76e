//! The document model of a playbook file: what is written, with its places, before names mean anything.
//!
//! Readers collect every mistake and read on. Values of `with`, `inputs` of a call and `outputs` stay
//! nodes of the tree: their types are known only to [`crate::compile`].
mod document;
mod file;
pub mod inputs;
mod read;
mod schema;
mod steps;

pub use document::{PLAYBOOK_KEYS, read};
pub use read::Reader;
pub(crate) use read::first_line;
pub use schema::schema;
pub use steps::STEP_KEYS;

use crate::{
    graph::{InputDecl, MaxFailures, OnFailure, Policy, Retry, WhenDown},
    source::{Map, Node, Range},
    value::Duration,
};

/// Something with its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spanned<T> {
    /// The thing.
    pub value: T,
    /// Where it stands.
    pub range: Range,
}

impl<T> Spanned<T> {
    /// A thing at a place.
    pub fn new(value: T, range: Range) -> Self {
        Self { value, range }
    }
}

/// A name as it is written.
pub type Name<'t> = Spanned<&'t str>;

/// A playbook file.
#[derive(Debug, Clone, Default)]
pub struct Document<'t> {
    /// `playbook`.
    pub name: Option<Name<'t>>,
    /// `description`.
    pub description: Option<&'t str>,
    /// `owner`.
    pub owner: Option<&'t str>,
    /// `inputs`.
    pub inputs: Vec<Input<'t>>,
    /// `targets`.
    pub targets: Vec<Target<'t>>,
    /// `policy`.
    pub policy: Policy,
    /// Where the windows of the policy stand.
    pub windows: Vec<Range>,
    /// `defaults`.
    pub defaults: Vec<Defaults<'t>>,
    /// `let`: names with bare expressions.
    pub lets: Vec<(Name<'t>, &'t Node)>,
    /// `steps`.
    pub steps: Vec<Step<'t>>,
    /// `finally`.
    pub finally: Vec<Step<'t>>,
    /// `outputs`.
    pub outputs: Vec<(Name<'t>, &'t Node)>,
}

/// A declared input.
#[derive(Debug, Clone)]
pub struct Input<'t> {
    /// Its name.
    pub name: Name<'t>,
    /// Its type and limits.
    pub decl: InputDecl,
}

/// A declared target.
#[derive(Debug, Clone)]
pub struct Target<'t> {
    /// Its name.
    pub name: Name<'t>,
    /// `description`.
    pub description: Option<&'t str>,
    /// Which of the three it is.
    pub sort: TargetSort<'t>,
}

/// The sorts of targets.
#[derive(Debug, Clone)]
pub enum TargetSort<'t> {
    /// `{ kind, role, moves, when_down }`
    Named {
        /// `kind`.
        kind: Name<'t>,
        /// `role`.
        role: Option<&'t str>,
        /// `moves`.
        moves: bool,
        /// `when_down`.
        when_down: WhenDown,
    },
    /// `{ like, never, … }`
    Derived {
        /// `like`.
        like: Name<'t>,
        /// `never`.
        never: Vec<Name<'t>>,
        /// Keys that are replaced.
        with: Vec<(Name<'t>, &'t Node)>,
    },
    /// `{ kind, many: true, select, when_down }`
    Many {
        /// `kind`.
        kind: Name<'t>,
        /// `select`.
        select: Vec<(&'t str, &'t str)>,
        /// `when_down`.
        when_down: WhenDown,
    },
    /// Could not be read; its name still counts.
    Broken,
}

/// What steps of some kinds have in common.
#[derive(Debug, Clone)]
pub struct Defaults<'t> {
    /// `sql.*`, `sql.query` or `*`.
    pub pattern: Name<'t>,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `retry`.
    pub retry: Option<Retry>,
    /// `with`.
    pub with: Option<&'t Map>,
}

/// A step as it is written.
#[derive(Debug, Clone)]
pub struct Step<'t> {
    /// The whole step.
    pub range: Range,
    /// `id`; without one the step was not readable as such.
    pub id: Name<'t>,
    /// `description`.
    pub description: Option<&'t str>,
    /// `uses` or `steps`.
    pub body: StepBody<'t>,
    /// `needs`, where it is given.
    pub needs: Option<Vec<Name<'t>>>,
    /// `when`, a bare expression.
    pub when: Option<&'t Node>,
    /// `foreach`.
    pub foreach: Option<Foreach<'t>>,
    /// `retry`.
    pub retry: Option<Spanned<Retry>>,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `gate`, a bare expression.
    pub gate: Option<&'t Node>,
    /// `on_failure`.
    pub on_failure: Option<OnFailure>,
    /// `undo`.
    pub undo: Option<Spanned<Undo<'t>>>,
    /// `cleanup: always`.
    pub cleanup: Option<Range>,
    /// `probe`.
    pub probe: Option<Probe<'t>>,
    /// `evidence`.
    pub evidence: Option<Evidence>,
    /// `plan: read`.
    pub plan_read: bool,
}

/// What a step is.
#[derive(Debug, Clone)]
pub enum StepBody<'t> {
    /// `uses` and `with`.
    Uses(Use<'t>),
    /// `steps`.
    Group(Vec<Step<'t>>),
    /// Neither; told already.
    Broken,
}

/// A step kind with its parameters.
#[derive(Debug, Clone)]
pub struct Use<'t> {
    /// `uses`.
    pub kind: Name<'t>,
    /// `with`.
    pub with: Option<&'t Map>,
    /// Where `with` stands; `uses` where it is absent.
    pub with_range: Range,
}

/// `foreach`.
#[derive(Debug, Clone)]
pub struct Foreach<'t> {
    /// Where it stands.
    pub range: Range,
    /// `items`, a bare expression.
    pub items: Option<&'t Node>,
    /// `as`.
    pub name: Option<Name<'t>>,
    /// `when`, a bare expression.
    pub when: Option<&'t Node>,
    /// `max_parallel`.
    pub max_parallel: u32,
    /// `max_failures`.
    pub max_failures: MaxFailures,
    /// `max_items`.
    pub max_items: Option<u32>,
}

/// `undo`.
#[derive(Debug, Clone)]
pub enum Undo<'t> {
    /// `auto`.
    Auto,
    /// `none`.
    None,
    /// `impossible`.
    Impossible,
    /// `{ uses, with, when, retry, timeout }`, or a list of them.
    Steps(Vec<UndoStep<'t>>),
    /// Could not be read; told already.
    Broken,
}

/// One step of an undo.
#[derive(Debug, Clone)]
pub struct UndoStep<'t> {
    /// `uses` and `with`.
    pub uses: Use<'t>,
    /// `when`, a bare expression.
    pub when: Option<&'t Node>,
    /// `retry`.
    pub retry: Option<Spanned<Retry>>,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `probe`.
    pub probe: Option<Probe<'t>>,
}

/// `probe`.
#[derive(Debug, Clone)]
pub struct Probe<'t> {
    /// Where it stands.
    pub range: Range,
    /// What is asked.
    pub question: Question<'t>,
    /// `done`, a bare expression.
    pub done: Option<&'t Node>,
}

/// What a probe asks.
#[derive(Debug, Clone)]
pub enum Question<'t> {
    /// `sql`: a query on the step's own target, with `params`.
    Sql {
        /// `sql`.
        sql: &'t Node,
        /// `params`.
        params: Option<(Name<'t>, &'t Node)>,
    },
    /// `uses` and `with`.
    Uses(Use<'t>),
    /// Could not be read; told already.
    Broken,
}

/// `evidence`.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// `keep`.
    pub keep: bool,
    /// `mask`.
    pub mask: Vec<String>,
    /// `for`.
    pub keep_for: Option<Duration>,
}
