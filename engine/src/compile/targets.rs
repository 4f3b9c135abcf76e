//! Declared targets, and whether what names them names one.
use super::{references::Names, scope::Scoped};
use crate::{
    diagnostic::{Diagnostic, codes, suggest},
    expr::Reference,
    graph::TargetDecl,
    playbook::{Name, Target, TargetSort},
    source::Range,
};
use indexmap::IndexMap;
use std::{collections::HashSet, rc::Rc};

/// What is known of a target.
#[derive(Debug, Clone)]
pub(super) struct TargetInfo {
    /// Its name in the graph.
    pub(super) graph_name: String,
    /// Its name where the scope around this one stands: the caller's, or the graph's for a scope's own.
    pub(super) outer_name: String,
    /// `sqlite`; `None` where it could not be told.
    pub(super) kind: Option<String>,
    pub(super) many: bool,
    /// The steps that a derived target reads.
    pub(super) reads: Rc<Vec<Reference>>,
}

impl<'s> Scoped<'s, '_, '_> {
    /// Reads the declarations; `everything` sees all steps of the scope.
    pub(super) fn read_targets(&mut self, everything: &Names) {
        let document = self.document;
        let mut names = everything.clone();
        names.lenient = true;
        for target in &document.targets {
            self.name(&target.name, "a target");
            let graph_name = self.graph_name(target.name.value);
            let (kind, many) = match &target.sort {
                TargetSort::Named { kind, .. } => (self.target_kind(kind), false),
                TargetSort::Many { kind, .. } => (self.target_kind(kind), true),
                TargetSort::Derived { .. } | TargetSort::Broken => (None, false),
            };
            let info = TargetInfo {
                outer_name: graph_name.clone(),
                graph_name,
                kind,
                many,
                reads: Rc::default(),
            };
            let bound = self
                .place
                .bound
                .as_ref()
                .and_then(|bound| bound.get(target.name.value));
            let info = bound.cloned().unwrap_or(info);
            self.targets.insert(target.name.value, info);
        }
        let mut decls = IndexMap::new();
        for target in &document.targets {
            if let Some(decl) = self.target_decl(target, &names) {
                let bound = self.place.bound.as_ref();
                if bound.is_none_or(|bound| !bound.contains_key(target.name.value)) {
                    decls.insert(self.graph_name(target.name.value), decl);
                }
            }
        }
        self.derived_kinds();
        self.compiler.targets.extend(decls);
    }

    fn graph_name(&self, name: &str) -> String {
        if self.place.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.place.path)
        }
    }

    fn target_kind(&mut self, kind: &Name<'_>) -> Option<String> {
        if self.compiler.registry.target(kind.value).is_some() {
            return Some(kind.value.to_owned());
        }
        let known: Vec<&str> = self.compiler.registry.target_kinds().collect();
        let help = suggest(kind.value, known.iter().copied())
            .unwrap_or_else(|| format!("known here: {}", known.join(", ")));
        self.reader.error_help(
            codes::UNKNOWN_TARGET_KIND,
            kind.range,
            format!("there is no kind of target `{}`", kind.value),
            help,
        );
        None
    }

    fn target_decl(&mut self, target: &Target<'s>, names: &Names) -> Option<TargetDecl> {
        let description = target.description.map(str::to_owned);
        Some(match &target.sort {
            TargetSort::Broken => return None,
            TargetSort::Named {
                kind,
                role,
                moves,
                when_down,
            } => TargetDecl::Named {
                kind: kind.value.to_owned(),
                role: role.map(str::to_owned),
                description,
                moves: *moves,
                when_down: *when_down,
            },
            TargetSort::Many {
                kind,
                select,
                when_down,
            } => TargetDecl::Many {
                kind: kind.value.to_owned(),
                select: select
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
                description,
                when_down: *when_down,
            },
            TargetSort::Derived { like, never, with } => {
                self.single(like);
                let mut forbidden = Vec::new();
                for name in never {
                    self.single(name);
                    forbidden.extend(
                        self.targets
                            .get(name.value)
                            .map(|info| info.graph_name.clone()),
                    );
                }
                let mut templates = IndexMap::new();
                let mut reads = Vec::new();
                for (key, node) in with {
                    let template = self.free_template(node, &format!("`{}`", key.value), names);
                    for expr in template.expressions() {
                        reads.extend(self.step_reads(expr, 0));
                    }
                    templates.insert(key.value.to_owned(), template);
                }
                if let Some(info) = self.targets.get_mut(target.name.value) {
                    info.reads = Rc::new(reads);
                }
                let like = self
                    .targets
                    .get(like.value)
                    .map(|info| info.graph_name.clone())?;
                TargetDecl::Derived {
                    like,
                    with: templates,
                    never: forbidden,
                    description,
                }
            }
        })
    }

    /// The steps that an expression reads, also through `let`.
    fn step_reads(&self, expr: &crate::expr::Expr, depth: usize) -> Vec<Reference> {
        let mut all = Vec::new();
        for reference in expr.references() {
            if reference.root == "steps" {
                // Bound on first use: a step that was skipped fails the binding, not the compilation.
                all.push(Reference {
                    guarded: true,
                    ..reference.clone()
                });
            } else if let Some(found) = self
                .lets
                .get(reference.root.as_str())
                .filter(|_| depth < 64)
            {
                all.extend(self.step_reads(&found.expr, depth + 1));
            }
        }
        all
    }

    /// A name that must be a single declared target.
    fn single(&mut self, name: &Name<'_>) {
        if self.use_target(name.value, name.range) && self.is_many(name.value) {
            self.many_target(name.value, name.range);
        }
    }

    pub(super) fn is_derived(&self, name: &str) -> bool {
        let mut all = self.document.targets.iter();
        all.any(|target| {
            target.name.value == name && matches!(target.sort, TargetSort::Derived { .. })
        })
    }

    fn is_many(&self, name: &str) -> bool {
        self.targets.get(name).is_some_and(|info| info.many)
    }

    fn many_target(&mut self, name: &str, range: Range) {
        self.reader.error_help(
            codes::MANY_TARGET,
            range,
            format!("`{name}` is many targets, and here one must stand"),
            format!("run over them: `foreach: {{ items: targets.{name}, as: db }}` and `target: \"${{{{ db }}}}\"`"),
        );
    }

    /// Finds the kinds of derived targets and the circles among them.
    fn derived_kinds(&mut self) {
        let document = self.document;
        let like_of = |name: &str| {
            document
                .targets
                .iter()
                .find(|target| target.name.value == name)
                .and_then(|target| match &target.sort {
                    TargetSort::Derived { like, .. } => Some(like),
                    TargetSort::Named { .. } | TargetSort::Many { .. } | TargetSort::Broken => None,
                })
        };
        let mut told: HashSet<&str> = HashSet::new();
        for target in &document.targets {
            let mut path = vec![target.name.value];
            let mut at = target.name.value;
            while let Some(like) = like_of(at) {
                at = like.value;
                if let Some(from) = path.iter().position(|name| *name == at) {
                    let cycle: Vec<&str> = path.iter().skip(from).copied().chain([at]).collect();
                    if !cycle.iter().any(|name| told.contains(name)) {
                        self.reader.error_help(
                            codes::TARGET_CYCLE,
                            target.name.range,
                            format!("these targets are like each other: {}", cycle.join(" → ")),
                            "one of them must have a `kind`",
                        );
                        told.extend(cycle);
                    }
                    break;
                }
                path.push(at);
            }
            let kind = self.targets.get(at).and_then(|info| info.kind.clone());
            // What a target reads, so does one that is like it.
            let reads: Vec<Reference> = path
                .iter()
                .filter_map(|name| self.targets.get(name))
                .flat_map(|info| info.reads.iter().cloned())
                .collect();
            if let Some(info) = self.targets.get_mut(target.name.value)
                && info.kind.is_none()
            {
                info.kind = kind;
                info.reads = Rc::new(reads);
            }
        }
    }

    /// Whether a name is a declared target; tells where it is not.
    pub(super) fn use_target(&mut self, name: &str, range: Range) -> bool {
        if self.targets.contains_key(name) {
            self.used.insert(name.to_owned());
            return true;
        }
        let known = self.targets.keys().copied();
        let help = suggest(name, known).unwrap_or_else(|| {
            format!("declare it under `targets:`: `{name}: {{ kind: sqlite }}`")
        });
        self.reader.error_help(
            codes::UNKNOWN_TARGET,
            range,
            format!("there is no target `{name}`"),
            help,
        );
        false
    }

    /// A step names a target: it must be one, and what the target itself reads must come before the step.
    pub(super) fn use_target_in(&mut self, name: &str, range: Range, names: &Names) {
        if !self.use_target(name, range) {
            return;
        }
        if self.is_many(name) {
            self.many_target(name, range);
        }
        // The reads of a bound target are those of the caller, checked at the call.
        let own = self
            .place
            .bound
            .as_ref()
            .is_none_or(|bound| !bound.contains_key(name));
        let reads = self
            .targets
            .get(name)
            .filter(|_| own)
            .map(|info| info.reads.clone());
        for reference in reads.iter().flat_map(|reads| reads.iter()) {
            let via = format!("the target `{name}` reads it, and ");
            self.step_reference(reference, range, names, &via);
        }
    }

    /// Warns of targets that nothing names.
    pub(super) fn unused_targets(&mut self) {
        if self.any_target {
            return;
        }
        for target in &self.document.targets {
            if !self.used.contains(target.name.value) && !matches!(target.sort, TargetSort::Broken)
            {
                let diagnostic = Diagnostic::warning(
                    codes::UNUSED_TARGET,
                    self.file.span(target.name.range),
                    format!("nothing uses the target `{}`", target.name.value),
                );
                self.reader
                    .diagnostics
                    .push(diagnostic.help("take it out, or name it in a step"));
            }
        }
    }
}
