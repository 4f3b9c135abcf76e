//! One playbook file: its lists of steps.
use super::{
    Compiler, MAX_NODES, names,
    order::Order,
    references::{Level, ListInfo, Names, Output, StepInfo},
    targets::TargetInfo,
};
use crate::{
    diagnostic::{codes, suggest},
    expr::{Expr, Template},
    graph::{self, Body, Foreach, InputDecl, NodeId, OnFailure, Scope},
    playbook::{self, Document, Name, Reader, Step, StepBody},
    policy::windows::Window,
    source::{Node, Range, SourceFile},
};
use indexmap::IndexMap;
use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

/// Where a scope stands in the graph.
pub(super) struct Place {
    /// The file's index in the graph's sources.
    pub(super) source: u32,
    /// The call.
    pub(super) parent: Option<NodeId>,
    /// The call's static path; empty for the root.
    pub(super) path: String,
    /// The callee's named targets, by the caller's; `None` for the root.
    pub(super) bound: Option<HashMap<String, TargetInfo>>,
}

impl Place {
    pub(super) fn root(source: u32) -> Self {
        Self {
            source,
            parent: None,
            path: String::new(),
            bound: None,
        }
    }
}

/// A `let`.
pub(super) struct Let<'s> {
    pub(super) expr: Expr,
    pub(super) node: &'s Node,
    pub(super) base: usize,
}

/// What is known while a playbook file is compiled.
pub(super) struct Scoped<'s, 'c, 'a> {
    pub(super) compiler: &'c mut Compiler<'a>,
    pub(super) reader: Reader<'s>,
    pub(super) file: &'s SourceFile,
    pub(super) document: &'s Document<'s>,
    pub(super) place: Place,
    pub(super) inputs: IndexMap<String, InputDecl>,
    pub(super) lets: IndexMap<&'s str, Let<'s>>,
    pub(super) targets: IndexMap<&'s str, TargetInfo>,
    pub(super) used: HashSet<String>,
    /// Whether a target is chosen by an expression, so that any may be used.
    pub(super) any_target: bool,
    /// Every id of the scope, for "is inside another group".
    pub(super) ids: HashSet<&'s str>,
}

/// Compiles a document; what is wrong goes to the compiler.
pub(super) fn compile<'s>(
    compiler: &mut Compiler<'_>,
    reader: Reader<'s>,
    document: &'s Document<'s>,
    place: Place,
) -> Scope {
    compile_with_targets(compiler, reader, document, place).0
}

/// Also gives what the scope's targets are called outside.
pub(super) fn compile_with_targets<'s>(
    compiler: &mut Compiler<'_>,
    reader: Reader<'s>,
    document: &'s Document<'s>,
    place: Place,
) -> (Scope, IndexMap<String, String>) {
    let file = reader.file;
    let mut scoped = Scoped {
        compiler,
        reader,
        file,
        document,
        place,
        inputs: IndexMap::new(),
        lets: IndexMap::new(),
        targets: IndexMap::new(),
        used: HashSet::new(),
        any_target: false,
        ids: HashSet::new(),
    };
    let scope = scoped.scope();
    let targets = scoped
        .targets
        .iter()
        .map(|(name, info)| ((*name).to_owned(), info.outer_name.clone()))
        .collect();
    let found = std::mem::take(&mut scoped.reader.diagnostics);
    scoped.compiler.diagnostics.extend(found);
    (scope, targets)
}

impl<'s> Scoped<'s, '_, '_> {
    fn scope(&mut self) -> Scope {
        let document = self.document;
        if let Some(name) = &document.name
            && !names::is_kebab(name.value)
        {
            self.reader.error_help(
                codes::BAD_PLAYBOOK_NAME,
                name.range,
                format!("`{}` is not a playbook name", name.value),
                format!("write `{}`", names::mended(name.value, '-')),
            );
        }
        for input in &document.inputs {
            self.name(&input.name, "an input");
            self.inputs
                .insert(input.name.value.to_owned(), input.decl.clone());
        }
        for (window, range) in document.policy.windows.iter().zip(&document.windows) {
            if let Err(message) = Window::parse(window).map(drop) {
                self.reader.error_help(
                    codes::WINDOW,
                    *range,
                    message,
                    "a window is such as `Mon-Fri 09:00-17:00 America/Sao_Paulo`",
                );
            }
        }
        collect_ids(&document.steps, &mut self.ids);
        collect_ids(&document.finally, &mut self.ids);
        self.read_lets();
        let main = self.list_info(&document.steps, &Names::default(), false);
        let everything = Names::all_of(&main);
        let lets = self.check_lets(&everything);
        self.read_targets(&everything);
        self.check_defaults();
        let steps = self.list(
            &document.steps,
            &main,
            &Names::default(),
            self.place.parent,
            false,
        );
        let mut of_finally = Names::all_of(&main);
        of_finally.in_finally = true;
        if let Some(level) = of_finally.levels.first_mut() {
            level.finished = false;
        }
        let last = self.list_info(&document.finally, &of_finally, true);
        let finally = self.list(
            &document.finally,
            &last,
            &of_finally,
            self.place.parent,
            true,
        );
        let mut outputs = IndexMap::new();
        for (name, node) in &document.outputs {
            self.name(name, "an output");
            let template = self.free_template(node, "an output", &everything);
            outputs.insert(name.value.to_owned(), template);
        }
        self.unused_targets();
        Scope {
            playbook: document
                .name
                .map_or_else(String::new, |name| name.value.to_owned()),
            inputs: std::mem::take(&mut self.inputs),
            lets,
            steps,
            finally,
            outputs,
        }
    }

    /// A value without a declared type.
    pub(super) fn free_template(&mut self, node: &'s Node, what: &str, names: &Names) -> Template {
        let mut with = super::values::With::new(names);
        self.template(node, &super::shape::Shape::Any, &mut with, what)
    }

    /// Checks a name of the language.
    pub(super) fn name(&mut self, name: &Name<'_>, what: &str) -> bool {
        self.told(names::check(name.value), name, what)
    }

    /// Checks a name that stands bare in expressions.
    pub(super) fn bare_name(&mut self, name: &Name<'_>, what: &str) -> bool {
        self.told(names::check_bare(name.value), name, what)
    }

    fn told(&mut self, checked: Result<(), names::NameError>, name: &Name<'_>, what: &str) -> bool {
        match checked {
            Ok(()) => true,
            Err(names::NameError::Shape) => {
                self.reader.error_help(
                    codes::BAD_ID,
                    name.range,
                    format!("`{}` cannot be the name of {what}", name.value),
                    format!(
                        "names are lower-case letters, digits and `_`: write `{}`",
                        names::mended(name.value, '_')
                    ),
                );
                false
            }
            Err(names::NameError::Reserved) => {
                self.reader.error_help(
                    codes::RESERVED,
                    name.range,
                    format!("`{}` is a word of the expression language", name.value),
                    format!("write `{}_` or another name", name.value),
                );
                false
            }
        }
    }

    /// What is known of a list before its steps are compiled: ids, order, outputs.
    fn list_info(&mut self, steps: &'s [Step<'s>], outer: &Names, in_order: bool) -> Rc<ListInfo> {
        let mut ids: HashMap<Box<str>, usize> = HashMap::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            let id = step.id.value;
            if id.is_empty() {
                continue;
            }
            self.name(&step.id, "a step");
            let first = ids
                .get(id)
                .and_then(|first| steps.get(*first))
                .map(|first| first.id.range)
                .or_else(|| outer.range_of(id));
            if let Some(first) = first {
                let (line, column) = self.file.line_column(first.start as usize);
                self.reader.error_help(
                    codes::DUPLICATE_ID,
                    step.id.range,
                    format!("the id `{id}` is taken by the step in line {line}, column {column}"),
                    "give one of the two another id",
                );
                continue;
            }
            ids.insert(id.into(), at);
        }
        let mut explicit = Vec::with_capacity(steps.len());
        for step in steps {
            explicit.push(step.needs.as_ref().filter(|_| !in_order).map(|needs| {
                needs
                    .iter()
                    .filter_map(|need| self.need(need, steps, step.id.value, &ids, outer))
                    .collect()
            }));
        }
        let order = Order::new(explicit);
        for cycle in order.cycles() {
            let path: Vec<&str> = cycle
                .iter()
                .chain(cycle.first())
                .filter_map(|at| steps.get(*at))
                .map(|step| step.id.value)
                .collect();
            if let Some(step) = cycle.first().and_then(|at| steps.get(*at)) {
                self.reader.error_help(
                    codes::CYCLE,
                    step.id.range,
                    format!("these steps wait for each other: {}", path.join(" → ")),
                    "take one of them out of the `needs` of the one before it in this line",
                );
            }
        }
        let infos = steps.iter().map(|step| self.step_info(step)).collect();
        Rc::new(ListInfo {
            ids,
            steps: infos,
            order,
        })
    }

    fn need(
        &mut self,
        need: &Name<'_>,
        steps: &[Step<'_>],
        own: &str,
        ids: &HashMap<Box<str>, usize>,
        outer: &Names,
    ) -> Option<usize> {
        if let Some(at) = ids.get(need.value) {
            return Some(*at);
        }
        if outer.range_of(need.value).is_some() {
            self.reader.error_help(
                codes::UNKNOWN_NEED,
                need.range,
                format!("`{}` is outside this group", need.value),
                "put it into the `needs` of the group: what the group needs, its steps may read",
            );
        } else if self.ids.contains(need.value) {
            self.reader.error_help(
                codes::UNKNOWN_NEED,
                need.range,
                format!("`{}` is inside another group", need.value),
                "need the group",
            );
        } else {
            let others = steps
                .iter()
                .map(|step| step.id.value)
                .filter(|id| !id.is_empty() && *id != own);
            let help = suggest(need.value, others)
                .unwrap_or_else(|| "name a step of this list".to_owned());
            self.reader.error_help(
                codes::UNKNOWN_NEED,
                need.range,
                format!("there is no step `{}` in this list", need.value),
                help,
            );
        }
        None
    }

    fn step_info(&mut self, step: &Step<'s>) -> StepInfo {
        let unsure = if step.when.is_some() {
            Some("may be skipped, since it has `when`")
        } else {
            match step.on_failure {
                Some(OnFailure::Continue | OnFailure::Ignore) => {
                    Some("may have failed, since its `on_failure` lets the run continue")
                }
                Some(OnFailure::Undo | OnFailure::Pause | OnFailure::Stop) | None => None,
            }
        };
        let output = match &step.body {
            _ if step.foreach.is_some() => Output::Items,
            StepBody::Uses(uses) if uses.kind.value == "playbook" => self.call_outputs(uses),
            StepBody::Uses(uses) => self
                .compiler
                .kind(uses.kind.value)
                .map_or(Output::Any, Output::Kind),
            StepBody::Group(steps) => {
                Output::Named(steps.iter().map(|step| step.id.value.to_owned()).collect())
            }
            StepBody::Broken => Output::Any,
        };
        let when = step
            .when
            .and_then(Node::scalar)
            .map(|scalar| scalar.text.trim().into());
        StepInfo {
            id: step.id.value.into(),
            range: step.id.range,
            unsure,
            when,
            output,
        }
    }

    /// Compiles the steps of a list.
    fn list(
        &mut self,
        steps: &'s [Step<'s>],
        info: &Rc<ListInfo>,
        outer: &Names,
        parent: Option<NodeId>,
        top_of_finally: bool,
    ) -> Vec<NodeId> {
        let mut nodes = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            if self.compiler.nodes.len() >= MAX_NODES {
                if !std::mem::replace(&mut self.compiler.full, true) {
                    self.reader.error_help(
                        codes::TOO_MANY,
                        step.id.range,
                        format!("with this step the graph has more than {MAX_NODES} nodes"),
                        "run over items with `foreach` instead of writing or calling each",
                    );
                }
                return nodes;
            }
            let mut names = outer.clone();
            names.levels.push(Level {
                list: info.clone(),
                at: Some(at),
                finished: !top_of_finally,
            });
            nodes.push(self.step(step, names, parent));
        }
        if !top_of_finally {
            for (at, node) in nodes.iter().enumerate() {
                let needs = info
                    .order
                    .needs(at)
                    .iter()
                    .filter_map(|need| nodes.get(*need))
                    .copied();
                if let Some(node) = self.compiler.nodes.get_mut(node.index()) {
                    node.needs = needs.collect();
                }
            }
        }
        nodes
    }

    fn step(&mut self, step: &'s Step<'s>, mut names: Names, parent: Option<NodeId>) -> NodeId {
        let (line, column) = self.file.line_column(step.id.range.start as usize);
        let place = graph::Place {
            source: self.place.source,
            line,
            column,
        };
        let id = self.compiler.reserve(step.id.value, parent, place);
        let when = step.when.and_then(|node| self.bare(node, "`when`", &names));
        if let Some(when) = &when {
            names.assume(when);
        }
        let foreach = step
            .foreach
            .as_ref()
            .and_then(|foreach| self.foreach(foreach, &mut names));
        let (body, cleanup) = self.body(step, &names, id);
        if let Some(node) = self.compiler.nodes.get_mut(id.index()) {
            node.in_finally = names.in_finally;
            node.description = step.description.map(str::to_owned);
            node.when = when;
            node.foreach = foreach;
            node.on_failure = step.on_failure;
            node.cleanup = cleanup;
            if let Some(body) = body {
                node.body = body;
            }
        }
        id
    }

    fn body(&mut self, step: &'s Step<'s>, names: &Names, id: NodeId) -> (Option<Body>, bool) {
        match &step.body {
            StepBody::Broken => (None, false),
            StepBody::Group(steps) => {
                let info = self.list_info(steps, names, false);
                let nodes = self.list(steps, &info, names, Some(id), false);
                (Some(Body::Group { steps: nodes }), false)
            }
            StepBody::Uses(uses) if uses.kind.value == "playbook" => {
                (self.call(step, uses, names, id), step.cleanup.is_some())
            }
            StepBody::Uses(uses) => {
                let def = self.step_def(step, uses, names);
                (
                    def.map(|def| Body::Step(Box::new(def))),
                    step.cleanup.is_some(),
                )
            }
        }
    }

    fn foreach(&mut self, foreach: &playbook::Foreach<'s>, names: &mut Names) -> Option<Foreach> {
        let items = foreach.items.and_then(|node| self.items(node, names));
        if let Some(items) = &items
            && foreach.max_items.is_none()
            && !self.known_before(items)
        {
            self.reader.error_help(
                codes::MAX_ITEMS,
                foreach.range,
                "how many items there are is known only at run time",
                "add `max_items: 100` (or another limit): the step fails where there are more",
            );
        }
        let name = match &foreach.name {
            Some(name) => {
                if self.bare_name(name, "an item") && self.lets.contains_key(name.value) {
                    self.reader.error_help(
                        codes::DUPLICATE_ID,
                        name.range,
                        format!("`{}` is a `let` already", name.value),
                        "give the item another name",
                    );
                }
                name.value
            }
            None => "item",
        };
        names.items.push("item".into());
        names.items.push(name.into());
        let when = foreach
            .when
            .and_then(|node| self.bare(node, "`when` of `foreach`", names));
        if let Some(when) = &when {
            names.assume(when);
        }
        Some(Foreach {
            items: items?,
            name: name.to_owned(),
            when,
            max_parallel: foreach.max_parallel,
            max_failures: foreach.max_failures,
            max_items: foreach.max_items,
        })
    }

    /// Whether an expression reads only what is known before the run starts.
    fn known_before(&self, expr: &Expr) -> bool {
        expr.references()
            .iter()
            .all(|reference| match reference.root.as_str() {
                "inputs" | "targets" => true,
                name => self
                    .lets
                    .get(name)
                    .is_some_and(|found| self.known_before(&found.expr)),
            })
    }

    fn read_lets(&mut self) {
        for (name, node) in &self.document.lets {
            if !self.bare_name(name, "a `let`") {
                continue;
            }
            if let Some((expr, base)) = self.parse_bare(node, &format!("`{}`", name.value)) {
                self.lets.insert(name.value, Let { expr, node, base });
            }
        }
    }

    /// Checks what the lets read; gives them in an order in which each reads only earlier ones.
    fn check_lets(&mut self, names: &Names) -> IndexMap<String, Expr> {
        let mut names = names.clone();
        names.lenient = true;
        let all: Vec<(&'s str, Expr, &'s Node, usize)> = self
            .lets
            .iter()
            .map(|(name, one)| (*name, one.expr.clone(), one.node, one.base))
            .collect();
        let indexes: HashMap<&str, usize> = all
            .iter()
            .enumerate()
            .map(|(at, (name, ..))| (*name, at))
            .collect();
        let mut reads = Vec::with_capacity(all.len());
        for (_, expr, node, base) in &all {
            self.check(expr, node, *base, &names);
            let own: Vec<usize> = expr
                .references()
                .iter()
                .filter_map(|reference| indexes.get(reference.root.as_str()).copied())
                .collect();
            reads.push(Some(own));
        }
        let order = Order::new(reads);
        let mut in_cycle = HashSet::new();
        for cycle in order.cycles() {
            let path: Vec<&str> = cycle
                .iter()
                .chain(cycle.first())
                .filter_map(|at| all.get(*at).map(|(name, ..)| *name))
                .collect();
            if let Some((_, _, node, _)) = cycle.first().and_then(|at| all.get(*at)) {
                self.reader.error_help(
                    codes::LET_CYCLE,
                    node.range,
                    format!(
                        "these names are defined by each other: {}",
                        path.join(" → ")
                    ),
                    "define one of them without the others",
                );
            }
            in_cycle.extend(cycle);
        }
        if !in_cycle.is_empty() {
            // Taken out, so that following them ends.
            self.lets.clear();
            return IndexMap::new();
        }
        let mut sorted = IndexMap::new();
        let mut open: Vec<(usize, bool)> = (0..all.len()).rev().map(|at| (at, false)).collect();
        while let Some((at, ready)) = open.pop() {
            let Some((name, expr, ..)) = all.get(at) else {
                continue;
            };
            if sorted.contains_key(*name) {
                continue;
            }
            if ready {
                sorted.insert((*name).to_owned(), expr.clone());
            } else {
                open.push((at, true));
                open.extend(order.needs(at).iter().map(|need| (*need, false)));
            }
        }
        sorted
    }
}

fn collect_ids<'s>(steps: &'s [Step<'s>], into: &mut HashSet<&'s str>) {
    for step in steps {
        into.insert(step.id.value);
        if let StepBody::Group(inner) = &step.body {
            collect_ids(inner, into);
        }
    }
}

/// The place of a key, for a value that is not there.
pub(super) fn at_key(with: Option<&crate::source::Map>, key: &str, fallback: Range) -> Range {
    with.and_then(|map| map.entry(key))
        .map_or(fallback, |entry| entry.key_range)
}
