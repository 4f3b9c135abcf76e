//! Steps of a kind: parameters with their defaults, undo, probe.
use super::{
    references::Names,
    scope::{Scoped, at_key},
    shape::KindInfo,
    values::{With, literal_parts, map_of},
};
use crate::{
    diagnostic::{Diagnostic, codes, suggest},
    expr::{Expr, Template},
    graph::{self, Action, EvidenceDef, ProbeDef, Retry, StepDef},
    playbook::{self, Defaults, Question, Spanned, Step, Undo, Use},
    source::{Entry, Map, Node, NodeKind, Range},
    step::{Cause, Effect, ParamError, Redo, UndoSupport},
    value::{Duration, Value},
};
use indexmap::IndexMap;
use std::rc::Rc;

/// What an action has beside its kind and parameters.
#[derive(Default)]
struct Around {
    retry: Option<Spanned<Retry>>,
    timeout: Option<Duration>,
    when: Option<Expr>,
}

impl<'s> Scoped<'s, '_, '_> {
    /// A step of a kind.
    pub(super) fn step_def(
        &mut self,
        step: &'s Step<'s>,
        uses: &'s Use<'s>,
        names: &Names,
    ) -> Option<StepDef> {
        let around = Around {
            retry: step.retry.clone(),
            timeout: step.timeout,
            when: None,
        };
        let name = format!("`{}`", step.id.value);
        let place = (step.id.range, name.as_str());
        let action = self.probed(uses, around, step.probe.as_ref(), names, place);
        let gate = step.gate.and_then(|node| self.bare(node, "`gate`", names));
        let undo = self.undo(step, action.as_ref(), names);
        let action = action?;
        let traits = action.traits;
        if step.plan_read && traits.effect != Effect::ReadOnly {
            self.reader.error_help(
                codes::EXCLUSIVE,
                step.id.range,
                format!(
                    "`plan: read` is for steps that only read, and {} may write",
                    action.kind
                ),
                "leave `plan` out",
            );
        }
        let evidence = step.evidence.as_ref().map(|evidence| EvidenceDef {
            keep: evidence.keep,
            mask: evidence.mask.clone(),
            keep_for: evidence.keep_for,
        });
        Some(StepDef {
            action,
            gate,
            undo,
            evidence,
            skippable: traits.skippable,
            plan_read: step.plan_read,
        })
    }

    /// An action with its probe, which SQL without a transaction must have. `place` is where it is named, and its name.
    fn probed(
        &mut self,
        uses: &Use<'s>,
        around: Around,
        probe: Option<&'s playbook::Probe<'s>>,
        names: &Names,
        place: (Range, &str),
    ) -> Option<Action> {
        let action = self.action(uses, around, names, &[]);
        let compiled = probe.and_then(|probe| self.probe(probe, action.as_ref(), names));
        let mut action = action?;
        action.probe = compiled.map(Box::new);
        let traits = action.traits;
        if traits.redo == Redo::AskOperator
            && traits.effect != Effect::ReadOnly
            && action.kind.starts_with("sql.")
            && probe.is_none()
        {
            let (range, name) = place;
            self.reader.error_help(
                codes::PROBE_REQUIRED,
                range,
                format!("after a crash nothing could tell whether {name} took effect"),
                "add `probe: { sql: SELECT …, done: \"row.…\" }`, a question that is true once it is done",
            );
        }
        Some(action)
    }

    /// The defaults whose pattern matches a kind, the most exact first.
    fn defaults_of(&self, kind: &str) -> Vec<&'s Defaults<'s>> {
        let mut all: Vec<&'s Defaults<'s>> = self
            .document
            .defaults
            .iter()
            .filter(|defaults| matches(defaults.pattern.value, kind))
            .collect();
        all.sort_by_key(|defaults| {
            let pattern = defaults.pattern.value;
            (pattern.ends_with('*'), std::cmp::Reverse(pattern.len()))
        });
        all
    }

    /// One thing to do. `given` are parameters that the compiler adds.
    fn action(
        &mut self,
        uses: &Use<'s>,
        around: Around,
        names: &Names,
        given: &[(&'s str, &'s Node, Range)],
    ) -> Option<Action> {
        let name = uses.kind.value;
        let Some(info) = self.compiler.kind(name) else {
            self.unknown_kind(name, uses.kind.range);
            // What stands in `with` has its own mistakes.
            if let Some(map) = uses.with {
                for entry in &map.entries {
                    self.free_template(&entry.value, "a parameter", names);
                }
            }
            return None;
        };
        let before = self.reader.diagnostics.len();
        let defaults = self.defaults_of(name);
        let mut with = With::new(names);
        let mut all: IndexMap<String, Template> = IndexMap::new();
        let mut nodes: Vec<(&'s str, Range, &'s Node)> = Vec::new();
        for (key, node, range) in given {
            if let Some(field) = info.params.known.get(*key) {
                with.path.push((*key).to_owned());
                let template = self.template(node, &field.shape, &mut with, &format!("`{key}`"));
                with.path.pop();
                all.insert((*key).to_owned(), template);
                nodes.push((*key, *range, *node));
            }
        }
        let own = uses
            .with
            .into_iter()
            .flat_map(|map| &map.entries)
            .map(|entry| (entry, false));
        let theirs = defaults.iter().flat_map(|defaults| {
            let pattern = defaults.pattern.value.ends_with('*');
            let entries = defaults.with.into_iter().flat_map(|map| &map.entries);
            entries.map(move |entry| (entry, pattern))
        });
        let entries: Vec<(&'s Entry, bool)> = own.chain(theirs).collect();
        for (entry, pattern) in entries {
            let key = &*entry.key;
            let unknown = info.params.rest.is_none() && !info.params.known.contains_key(key);
            if all.contains_key(key) || (pattern && unknown) {
                continue;
            }
            if let Some(template) = self.field(entry, &info.params, &mut with, &format!("`{name}`"))
            {
                all.insert(key.to_owned(), template);
                nodes.push((key, entry.key_range, &entry.value));
            }
        }
        for (key, field) in &info.params.known {
            if field.required && !all.contains_key(key) {
                self.missing_param(uses.with_range, key, &format!("`{name}`"));
            }
        }
        let template = map_of(all);
        let traits = (info.kind.traits_of)(&literal_parts(&template));
        if let (Template::Literal(literal), true) =
            (&template, self.reader.diagnostics.len() == before)
        {
            self.prepare(&info, literal, &nodes, uses.with_range);
        }
        if let Some(retry) = &around.retry {
            self.retries(retry, &info, &literal_parts(&template));
        }
        let first = |of: fn(&Defaults<'s>) -> Option<Retry>| defaults.iter().find_map(|d| of(d));
        Some(Action {
            kind: name.to_owned(),
            traits,
            with: template,
            expressions: with.expressions,
            targets: with.targets,
            retry: around
                .retry
                .map(|retry| retry.value)
                .or_else(|| first(|defaults| defaults.retry.clone())),
            timeout: around
                .timeout
                .or_else(|| defaults.iter().find_map(|defaults| defaults.timeout)),
            when: around.when,
            probe: None,
        })
    }

    /// Warns of a `retry` that covers nothing with which the step can fail.
    fn retries(&mut self, retry: &Spanned<Retry>, info: &KindInfo, with: &Value) {
        let causes = (info.kind.retried)(with);
        let covered = |cause: &Cause| cause.is_transient() || retry.value.also.contains(cause);
        if retry.value.attempts <= 1 || causes.iter().any(covered) {
            return;
        }
        let names: Vec<&str> = causes.iter().map(|cause| cause.as_str()).collect();
        let kind = info.kind.name;
        let range = crate::playbook::first_line(self.file, retry.range);
        let (why, help) = if names.is_empty() {
            (
                format!("no failure of {kind} here leaves things as they were"),
                "leave `retry` out".to_owned(),
            )
        } else {
            (
                format!(
                    "what fails in {kind} here and could be repeated is {}, which does not pass by itself",
                    names.join(" or ")
                ),
                format!(
                    "`also: [{}]` repeats it all the same; or leave `retry` out",
                    names.join(", ")
                ),
            )
        };
        let message = format!("this `retry` can never happen: {why}");
        let diagnostic =
            Diagnostic::warning(codes::RETRY_NEVER, self.file.span(range), message).help(help);
        self.reader.diagnostics.push(diagnostic);
    }

    pub(super) fn unknown_kind(&mut self, name: &str, range: Range) {
        let known: Vec<&str> = self
            .compiler
            .registry
            .kinds()
            .map(|kind| kind.name)
            .chain(["playbook"])
            .collect();
        let help = suggest(name, known).unwrap_or_else(|| "`windlass steps` lists them".to_owned());
        let message = format!("there is no step kind `{name}`");
        self.reader
            .error_help(codes::UNKNOWN_KIND, range, message, help);
    }

    /// Lets the kind look at parameters that are all literal.
    fn prepare(
        &mut self,
        info: &Rc<KindInfo>,
        literal: &Value,
        nodes: &[(&'s str, Range, &'s Node)],
        fallback: Range,
    ) {
        let Err(errors) = (info.kind.prepare)(literal) else {
            return;
        };
        for ParamError {
            path,
            message,
            help,
        } in errors
        {
            let range = place_of(&path, nodes).unwrap_or(fallback);
            let range = crate::playbook::first_line(self.file, range);
            let diagnostic =
                Diagnostic::error(codes::PARAM_REFUSED, self.file.span(range), message);
            self.reader.diagnostics.push(match help {
                Some(help) => diagnostic.help(help),
                None => diagnostic,
            });
        }
    }

    fn undo(&mut self, step: &'s Step<'s>, action: Option<&Action>, names: &Names) -> graph::Undo {
        if names.in_finally {
            return graph::Undo::None;
        }
        let auto = || graph::Undo::Auto {
            retry: action.and_then(|action| action.retry.clone()),
            timeout: action.and_then(|action| action.timeout),
        };
        let support = action.map(|action| action.traits.undo);
        let (undo, range) = match &step.undo {
            None => {
                let undo = match support {
                    Some(UndoSupport::Auto) => auto(),
                    Some(UndoSupport::None) | None => graph::Undo::None,
                    Some(UndoSupport::Impossible) => graph::Undo::Impossible,
                };
                (undo, step.cleanup.unwrap_or(step.id.range))
            }
            Some(spanned) => {
                let undo = match &spanned.value {
                    Undo::Broken => return graph::Undo::None,
                    Undo::None => graph::Undo::None,
                    Undo::Impossible => graph::Undo::Impossible,
                    Undo::Auto => {
                        if let Some(support) =
                            support.filter(|support| *support != UndoSupport::Auto)
                        {
                            let help = match support {
                                UndoSupport::Impossible => {
                                    "say how: `undo: { uses: …, with: … }`, or accept `undo: impossible`"
                                }
                                UndoSupport::None | UndoSupport::Auto => {
                                    "there is nothing to undo; leave it out"
                                }
                            };
                            let kind = action.map_or("this kind", |action| action.kind.as_str());
                            self.reader.error_help(
                                codes::UNDO,
                                spanned.range,
                                format!("`{kind}` has no undo of its own here"),
                                help,
                            );
                        }
                        auto()
                    }
                    Undo::Steps(steps) => {
                        let mut names = names.clone();
                        names.own = true;
                        graph::Undo::Steps(
                            steps
                                .iter()
                                .filter_map(|step| self.undo_step(step, &names))
                                .collect(),
                        )
                    }
                };
                (undo, spanned.range)
            }
        };
        if let Some(cleanup) = step.cleanup
            && action.is_some()
            && matches!(undo, graph::Undo::None | graph::Undo::Impossible)
        {
            let place = if step.undo.is_some() { range } else { cleanup };
            self.reader.error_help(
                codes::UNDO,
                place,
                "`cleanup: always` runs the step's undo, and there is none",
                "say how it is cleaned up: `undo: { uses: …, with: … }`",
            );
        }
        undo
    }

    fn undo_step(&mut self, step: &'s playbook::UndoStep<'s>, names: &Names) -> Option<Action> {
        let mut names = names.clone();
        let when = step
            .when
            .and_then(|node| self.bare(node, "`when` of `undo`", &names));
        if let Some(when) = &when {
            names.assume(when);
        }
        if step.uses.kind.value == "playbook" {
            self.reader.error_help(
                codes::UNDO,
                step.uses.kind.range,
                "a playbook cannot be called to undo a step",
                "write its steps as a list under `undo`",
            );
            return None;
        }
        let around = Around {
            retry: step.retry.clone(),
            timeout: step.timeout,
            when,
        };
        let place = (step.uses.kind.range, "this step of the undo");
        self.probed(&step.uses, around, step.probe.as_ref(), &names, place)
    }

    fn probe(
        &mut self,
        probe: &'s playbook::Probe<'s>,
        action: Option<&Action>,
        names: &Names,
    ) -> Option<ProbeDef> {
        let mut names = names.clone();
        names.own = true;
        let compiled = match &probe.question {
            Question::Broken => None,
            Question::Uses(uses) => self.action(uses, Around::default(), &names, &[]),
            Question::Sql { sql, params } => {
                let kind = playbook::Spanned::new("sql.query", probe.range);
                let uses = Use {
                    kind,
                    with: None,
                    with_range: probe.range,
                };
                let mut given = vec![("sql", *sql, sql.range)];
                given.extend(params.map(|(name, node)| ("params", node, name.range)));
                self.query_on_own_target(&uses, &given, action, &names)
            }
        };
        if let Some(compiled) = compiled
            .as_ref()
            .filter(|a| a.traits.effect != Effect::ReadOnly)
        {
            self.reader.error_help(
                codes::READ_ONLY_REQUIRED,
                probe.range,
                format!("a probe asks a question, and `{}` may write", compiled.kind),
                "use a kind that only reads, such as sql.query",
            );
        }
        let info = compiled
            .as_ref()
            .and_then(|action| self.compiler.kind(&action.kind));
        let mut extra = vec!["output".to_owned()];
        extra.extend(info.iter().flat_map(|info| info.output().members()));
        let names = names.with_extra(&extra);
        let done = probe
            .done
            .and_then(|node| self.bare(node, "`done`", &names));
        Some(ProbeDef {
            action: compiled?,
            done: done?,
        })
    }

    /// A `sql.query` on the target of the step that is probed.
    fn query_on_own_target(
        &mut self,
        uses: &Use<'s>,
        given: &[(&'s str, &'s Node, Range)],
        action: Option<&Action>,
        names: &Names,
    ) -> Option<Action> {
        let before = self.reader.diagnostics.len();
        let mut query = self.action(uses, Around::default(), names, given);
        let target = action.and_then(|action| {
            let [key] = action.targets.first()?.as_slice() else {
                return None;
            };
            let template = match &action.with {
                Template::Map(map) => map.get(key).cloned(),
                Template::Literal(value) => value.get(key).cloned().map(Template::Literal),
                Template::Expr(_) | Template::Text(_) | Template::List(_) => None,
            };
            Some((key.clone(), template?))
        });
        let Some((key, target)) = target else {
            return query;
        };
        // The step's own target is what `sql.query` was told to miss.
        let missing = format!("needs the parameter `{key}`");
        let found = self.reader.diagnostics.split_off(before);
        self.reader.diagnostics.extend(
            found
                .into_iter()
                .filter(|d| d.code != codes::MISSING_PARAM || !d.message.ends_with(&missing)),
        );
        if let Some(query) = &mut query {
            let mut all = match std::mem::take(&mut query.with) {
                Template::Map(map) => map,
                Template::Literal(Value::Map(map)) => map
                    .iter()
                    .map(|(key, value)| (key.to_string(), Template::Literal(value.clone())))
                    .collect(),
                Template::Literal(_)
                | Template::Expr(_)
                | Template::Text(_)
                | Template::List(_) => IndexMap::new(),
            };
            all.insert(key.clone(), target);
            query.with = map_of(all);
            query.targets = vec![vec![key]];
        }
        query
    }

    /// Checks the patterns of `defaults`.
    pub(super) fn check_defaults(&mut self) {
        for defaults in &self.document.defaults {
            let pattern = defaults.pattern.value;
            let kinds: Vec<&'static str> = self
                .compiler
                .registry
                .kinds()
                .map(|kind| kind.name)
                .filter(|kind| matches(pattern, kind))
                .collect();
            if kinds.is_empty() {
                let known = self.compiler.registry.kinds().map(|kind| kind.name);
                let help = suggest(pattern, known)
                    .unwrap_or_else(|| "write a kind, or a family such as `sql.*`".to_owned());
                self.reader.error_help(
                    codes::DEFAULTS,
                    defaults.pattern.range,
                    format!("`{pattern}` matches no step kind"),
                    help,
                );
                continue;
            }
            let mut infos = Vec::with_capacity(kinds.len());
            for kind in kinds {
                infos.extend(self.compiler.kind(kind));
            }
            for entry in defaults.with.into_iter().flat_map(|map| &map.entries) {
                let takes = |info: &Rc<KindInfo>| {
                    info.params.rest.is_some() || info.params.known.contains_key(&*entry.key)
                };
                if !infos.iter().any(takes) {
                    let known: Vec<&str> = infos
                        .iter()
                        .flat_map(|info| info.params.known.keys())
                        .map(String::as_str)
                        .collect();
                    let help =
                        suggest(&entry.key, known).unwrap_or_else(|| "leave it out".to_owned());
                    let key = &entry.key;
                    self.reader.error_help(
                        codes::DEFAULTS,
                        entry.key_range,
                        format!("no step kind of `{pattern}` has a parameter `{key}`"),
                        help,
                    );
                }
            }
        }
    }
}

fn matches(pattern: &str, kind: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(lead) => kind.starts_with(lead) && (lead.is_empty() || lead.ends_with('.')),
        None => pattern == kind,
    }
}

/// The place of a path such as `checks[1].expect`.
fn place_of(path: &str, nodes: &[(&str, Range, &Node)]) -> Option<Range> {
    let mut parts = path
        .split(['.', '['])
        .map(|part| part.trim_end_matches(']'))
        .filter(|p| !p.is_empty());
    let first = parts.next()?;
    let (_, key, mut node) = nodes.iter().copied().find(|(name, ..)| *name == first)?;
    let mut range = if node.scalar().is_some() {
        node.range
    } else {
        key
    };
    for part in parts {
        let next = match &node.kind {
            NodeKind::Map(map) => map.get(part),
            NodeKind::List(items) => part.parse::<usize>().ok().and_then(|at| items.get(at)),
            NodeKind::Scalar(_) => None,
        };
        let Some(next) = next else { break };
        node = next;
        range = node.range;
    }
    Some(range)
}

/// The parameters that a call takes, and their places.
pub(super) fn call_key<'s>(
    with: Option<&'s Map>,
    key: &str,
    fallback: Range,
) -> (Option<&'s Node>, Range) {
    (
        with.and_then(|map| map.get(key)),
        at_key(with, key, fallback),
    )
}
