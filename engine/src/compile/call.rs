//! Calls: another playbook as a scope of the same graph.
use super::{
    Loaded, MAX_CALLS,
    action::call_key,
    normal,
    references::{Names, Output},
    scope::{Place, Scoped, compile_with_targets},
    shape::Shape,
    targets::TargetInfo,
    values::With,
};
use crate::{
    diagnostic::{Diagnostic, codes, suggest},
    expr::Template,
    graph::{Body, CallDef, InputDecl, InputType, NodeId},
    playbook::{self, Document, Reader, Step, TargetSort, Use, inputs},
    source::{Map, Node, Range},
};
use indexmap::IndexMap;
use std::collections::HashMap;

const CALL_KEYS: &[&str] = &["path", "inputs", "targets"];

impl<'s> Scoped<'s, '_, '_> {
    /// A path as it is written, relative to this file.
    fn resolve(&self, written: &str) -> String {
        if written.starts_with('/') {
            return normal(written);
        }
        match self.file.path().rsplit_once('/') {
            Some((folder, _)) => normal(&format!("{folder}/{written}")),
            None => normal(written),
        }
    }

    /// The names of a call's outputs, before it is compiled.
    pub(super) fn call_outputs(&mut self, uses: &Use<'s>) -> Output {
        let path = uses
            .with
            .and_then(|map| map.get("path"))
            .and_then(Node::scalar);
        let Some(path) = path.filter(|path| !path.text.contains("${{")) else {
            return Output::Any;
        };
        let path = self.resolve(&path.text);
        let Ok(loaded) = self.compiler.load(&path) else {
            return Output::Any;
        };
        let outputs = loaded
            .parsed
            .root
            .as_ref()
            .and_then(Node::map)
            .and_then(|map| map.get("outputs"));
        let names = outputs.and_then(Node::map).map(|map| &map.entries);
        Output::Named(
            names
                .into_iter()
                .flatten()
                .map(|entry| entry.key.to_string())
                .collect(),
        )
    }

    /// Compiles a call.
    pub(super) fn call(
        &mut self,
        step: &Step<'s>,
        uses: &Use<'s>,
        names: &Names,
        node: NodeId,
    ) -> Option<Body> {
        if let Some(map) = uses.with {
            self.reader
                .known_keys(map, CALL_KEYS, "the `with` of a call");
        }
        let (path_node, path_range) = call_key(uses.with, "path", uses.with_range);
        let Some(path_node) = path_node else {
            self.missing_param(path_range, "path", "`playbook`");
            return None;
        };
        let written = self.reader.literal(path_node, "`path`")?;
        let path = self.resolve(written.value);
        if let Some(from) = self
            .compiler
            .calls
            .iter()
            .position(|caller| *caller == path)
        {
            let cycle: Vec<&str> = self
                .compiler
                .calls
                .iter()
                .skip(from)
                .map(String::as_str)
                .chain([path.as_str()])
                .collect();
            let message = format!("these playbooks call each other: {}", cycle.join(" → "));
            self.reader.error_help(
                codes::CALL_CYCLE,
                written.range,
                message,
                "take one of the calls out",
            );
            return None;
        }
        if self.compiler.calls.len() >= MAX_CALLS {
            let message = format!("calls are nested more than {MAX_CALLS} deep");
            self.reader.error(codes::TOO_MANY, written.range, message);
            return None;
        }
        let loaded = match self.compiler.load(&path) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.reader.error_help(
                    codes::CALL_READ,
                    written.range,
                    format!("{path} cannot be read: {error}"),
                    "the path is relative to the folder of this file",
                );
                return None;
            }
        };
        let root = loaded.parsed.root.as_ref()?;
        // Read for its face; its own mistakes are told when it is compiled.
        let mut face = Reader::new(&loaded.parsed.file);
        let callee = playbook::read(&mut face, root);
        let given = self.call_inputs(uses.with, &callee, names);
        let bound = self.bind(uses, &callee, names);
        self.windows_warning(&callee, written.range);
        let static_path = self.ids_path(step, node);
        self.compile_call(
            &loaded,
            &callee,
            CallPlace {
                path,
                static_path,
                node,
                bound,
            },
        )
        .map(|(scope, targets)| {
            Body::Call(Box::new(CallDef {
                path: written.value.to_owned(),
                inputs: given,
                targets,
                scope,
                on_failure: callee.policy.on_failure,
                max_duration: callee.policy.max_duration,
            }))
        })
    }

    /// Ids from the outermost to the call.
    fn ids_path(&self, step: &Step<'s>, node: NodeId) -> String {
        let mut ids = vec![step.id.value];
        let mut at = self
            .compiler
            .nodes
            .get(node.index())
            .and_then(|node| node.parent);
        while let Some(parent) = at.and_then(|id| self.compiler.nodes.get(id.index())) {
            ids.push(&parent.id);
            at = parent.parent;
        }
        ids.reverse();
        ids.join("/")
    }

    fn compile_call(
        &mut self,
        loaded: &Loaded,
        callee: &Document<'_>,
        at: CallPlace,
    ) -> Option<(crate::graph::Scope, IndexMap<String, String>)> {
        let root = loaded.parsed.root.as_ref()?;
        for lock in &callee.policy.locks {
            if !self.compiler.locks.contains(lock) {
                self.compiler.locks.push(lock.clone());
            }
        }
        let mut reader = Reader::new(&loaded.parsed.file);
        let document = playbook::read(&mut reader, root);
        self.compiler.calls.push(at.path);
        let place = Place {
            source: loaded.index,
            parent: Some(at.node),
            path: at.static_path,
            bound: Some(at.bound),
        };
        let compiled = compile_with_targets(self.compiler, reader, &document, place);
        self.compiler.calls.pop();
        Some(compiled)
    }

    /// Only the root's windows decide when a run and its steps may start.
    fn windows_warning(&mut self, callee: &Document<'_>, range: Range) {
        let root = &self.document.policy.windows;
        if callee.policy.windows.is_empty() || callee.policy.windows == *root {
            return;
        }
        let diagnostic = Diagnostic::warning(
            codes::WINDOW,
            self.file.span(range),
            "the windows of the called playbook are not asked: a run and its steps start by the windows of its own playbook",
        );
        let windows = callee.policy.windows.join("\", \"");
        self.reader.diagnostics.push(diagnostic.help(format!(
            "give this playbook `policy: {{ windows: [\"{windows}\"] }}`"
        )));
    }

    fn call_inputs(
        &mut self,
        with: Option<&'s Map>,
        callee: &Document<'_>,
        names: &Names,
    ) -> IndexMap<String, Template> {
        let mut given = IndexMap::new();
        let decls: IndexMap<&str, &InputDecl> = callee
            .inputs
            .iter()
            .map(|input| (input.name.value, &input.decl))
            .collect();
        let node = with.and_then(|map| map.get("inputs"));
        let map = node.and_then(|node| self.reader.map(node, "`inputs`"));
        for entry in map.into_iter().flat_map(|map| &map.entries) {
            let Some(decl) = decls.get(&*entry.key) else {
                let help = suggest(&entry.key, decls.keys().copied())
                    .unwrap_or_else(|| "the called playbook takes no inputs".to_owned());
                self.reader.error_help(
                    codes::CALL_INPUT,
                    entry.key_range,
                    format!("the called playbook has no input `{}`", entry.key),
                    help,
                );
                continue;
            };
            let template = self.call_input(&entry.value, &entry.key, decl, names);
            given.insert(entry.key.to_string(), template);
        }
        let fallback = with
            .and_then(|map| map.entry("inputs"))
            .map(|entry| entry.key_range)
            .or_else(|| {
                with.and_then(|map| map.entry("path"))
                    .map(|entry| entry.key_range)
            })
            .unwrap_or_default();
        for (name, decl) in &decls {
            if decl.default.is_none() && !given.contains_key(*name) {
                self.reader.error_help(
                    codes::CALL_INPUT,
                    fallback,
                    format!("the called playbook requires the input `{name}`"),
                    format!("add it under `inputs:`; it is {}", inputs::describe(decl)),
                );
            }
        }
        given
    }

    fn call_input(
        &mut self,
        node: &'s Node,
        name: &str,
        decl: &InputDecl,
        names: &Names,
    ) -> Template {
        let what = format!("input `{name}`");
        let shape = shape_of(decl.kind, decl.of);
        let computed = node
            .scalar()
            .is_some_and(|scalar| scalar.text.contains("${{"));
        if computed || shape == Shape::Any {
            return self.free_template(node, &what, names);
        }
        let mut with = With::new(names);
        let template = self.template(node, &shape, &mut with, &what);
        let Template::Literal(_) = &template else {
            return template;
        };
        // Literal throughout: read and judged as the callee will.
        match inputs::from_node(self.file, node, decl.kind, decl.of) {
            Ok(value) => {
                if let Err(message) = inputs::within_limits(decl, &value) {
                    self.reader
                        .error(codes::CALL_INPUT, node.range, format!("{what} {message}"));
                }
                Template::Literal(value)
            }
            Err(_) => template,
        }
    }

    /// The callee's named targets, by this file's.
    fn bind(
        &mut self,
        uses: &Use<'s>,
        callee: &Document<'_>,
        names: &Names,
    ) -> HashMap<String, TargetInfo> {
        let mut bound = HashMap::new();
        let with = uses.with;
        let node = with.and_then(|map| map.get("targets"));
        let map = node.and_then(|node| self.reader.map(node, "`targets`"));
        for entry in map.into_iter().flat_map(|map| &map.entries) {
            let target = callee
                .targets
                .iter()
                .find(|target| target.name.value == &*entry.key);
            let Some(target) = target else {
                let known = callee.targets.iter().map(|target| target.name.value);
                let help = suggest(&entry.key, known).unwrap_or_else(|| "leave it out".to_owned());
                self.reader.error_help(
                    codes::CALL_TARGET,
                    entry.key_range,
                    format!("the called playbook has no target `{}`", entry.key),
                    help,
                );
                continue;
            };
            let Some(name) = self.reader.literal(&entry.value, "a target of a call") else {
                continue;
            };
            if self.targets.contains_key(name.value) && self.many(name.value) {
                self.use_target_in(name.value, name.range, names);
                continue;
            }
            self.use_target_in(name.value, name.range, names);
            if let Some(info) = self.targets.get(name.value).cloned() {
                self.same_kind(target, &info, name.value, name.range);
                let outer_name = name.value.to_owned();
                bound.insert(entry.key.to_string(), TargetInfo { outer_name, ..info });
            }
        }
        let given = |name: &str| map.is_some_and(|map| map.get(name).is_some());
        for target in &callee.targets {
            let TargetSort::Named { kind, .. } = &target.sort else {
                continue;
            };
            let name = target.name.value;
            if given(name) {
                continue;
            }
            let range = super::scope::at_key(with, "targets", uses.kind.range);
            match self.targets.get(name).cloned() {
                Some(info)
                    if !info.many && info.kind.as_deref().is_none_or(|k| k == kind.value) =>
                {
                    self.use_target_in(name, range, names);
                    let outer_name = name.to_owned();
                    bound.insert(name.to_owned(), TargetInfo { outer_name, ..info });
                }
                _ => {
                    let near: Vec<&str> = self
                        .targets
                        .iter()
                        .filter(|(_, info)| info.kind.as_deref() == Some(kind.value) && !info.many)
                        .map(|(name, _)| *name)
                        .collect();
                    let help = match near.first() {
                        Some(near) => {
                            format!("add `targets: {{ {name}: {near} }}` to the call's `with`")
                        }
                        None => format!("declare a target of kind {} and bind it", kind.value),
                    };
                    self.reader.error_help(
                        codes::CALL_TARGET,
                        range,
                        format!("the called playbook's target `{name}` is not bound"),
                        help,
                    );
                }
            }
        }
        bound
    }

    fn many(&self, name: &str) -> bool {
        self.targets.get(name).is_some_and(|info| info.many)
    }

    fn same_kind(
        &mut self,
        target: &playbook::Target<'_>,
        info: &TargetInfo,
        name: &str,
        range: Range,
    ) {
        let wanted = match &target.sort {
            TargetSort::Named { kind, .. } => kind.value,
            TargetSort::Many { .. } | TargetSort::Derived { .. } => {
                let message = format!(
                    "the called playbook makes its target `{}` itself",
                    target.name.value
                );
                self.reader.error_help(
                    codes::CALL_TARGET,
                    range,
                    message,
                    "bind only targets with `kind`",
                );
                return;
            }
            TargetSort::Broken => return,
        };
        if let Some(kind) = info.kind.as_deref().filter(|kind| *kind != wanted) {
            let message = format!(
                "`{name}` is of kind {kind}, and the called playbook's `{}` is of kind {wanted}",
                target.name.value
            );
            self.reader.error(codes::CALL_TARGET, range, message);
        }
    }
}

struct CallPlace {
    path: String,
    static_path: String,
    node: NodeId,
    bound: HashMap<String, TargetInfo>,
}

fn shape_of(kind: InputType, of: Option<InputType>) -> Shape {
    let inner = || Box::new(of.map_or(Shape::Any, |of| shape_of(of, None)));
    match kind {
        InputType::String => Shape::String,
        InputType::Integer => Shape::Integer {
            min: None,
            max: None,
        },
        InputType::Number => Shape::Number,
        InputType::Boolean => Shape::Boolean,
        InputType::Duration => Shape::Duration,
        InputType::Size => Shape::Size,
        InputType::Timestamp => Shape::String,
        InputType::List => Shape::List(inner()),
        InputType::Map => Shape::Map(super::shape::Fields {
            known: IndexMap::new(),
            rest: Some(inner()),
        }),
    }
}
