//! What an expression may read, and whether what it reads is there.
use super::{order::Order, scope::Scoped, shape::KindInfo};
use crate::{
    diagnostic::{Diagnostic, codes, nearest, suggest},
    expr::{Expr, Reference},
    source::{Node, Range},
};
use std::{collections::HashMap, rc::Rc};

const STEP_MEMBERS: &[&str] = &[
    "output",
    "state",
    "error",
    "started_at",
    "finished_at",
    "duration",
    "attempts",
];
const RUN_MEMBERS: &[&str] = &[
    "id",
    "short_id",
    "url",
    "by",
    "playbook",
    "environment",
    "started_at",
    "outcome",
    "failed",
];
const ITEMS_MEMBERS: &[&str] = &["items", "succeeded", "failed"];

/// What is known of a list of steps.
#[derive(Debug)]
pub(super) struct ListInfo {
    pub(super) ids: HashMap<Box<str>, usize>,
    pub(super) steps: Vec<StepInfo>,
    pub(super) order: Order,
}

#[derive(Debug)]
pub(super) struct StepInfo {
    pub(super) id: Box<str>,
    pub(super) range: Range,
    /// Why it may have no output.
    pub(super) unsure: Option<&'static str>,
    /// The text of its condition.
    pub(super) when: Option<Box<str>>,
    pub(super) output: Output,
}

/// What a step gives.
#[derive(Debug)]
pub(super) enum Output {
    Kind(Rc<KindInfo>),
    /// A `foreach`.
    Items,
    /// A call with the names of its outputs, a group with the ids of its steps.
    Named(Vec<String>),
    Any,
}

/// A list around the place of an expression.
#[derive(Debug, Clone)]
pub(super) struct Level {
    pub(super) list: Rc<ListInfo>,
    /// The step of the list that holds the place; `None` sees all steps.
    pub(super) at: Option<usize>,
    /// Whether the steps of this list that can be seen have run as the order says. Not so in `finally`.
    pub(super) finished: bool,
}

/// What an expression at some place may read.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    /// From the outermost to the innermost.
    pub(super) levels: Vec<Level>,
    /// Names of `foreach` items.
    pub(super) items: Vec<Rc<str>>,
    /// `output` and `capture` of the step itself.
    pub(super) own: bool,
    /// Names that a step kind adds.
    pub(super) extra: Vec<String>,
    pub(super) in_finally: bool,
    /// Steps whose state a condition around the place tests.
    sure: Vec<Rc<str>>,
    /// Conditions around the place.
    conditions: Vec<Rc<str>>,
    /// Whether steps need not be needed or guarded here: checked where the name is used.
    pub(super) lenient: bool,
}

impl Names {
    /// All steps of a list, as outputs of a playbook see them.
    pub(super) fn all_of(list: &Rc<ListInfo>) -> Self {
        let level = Level {
            list: list.clone(),
            at: None,
            finished: true,
        };
        Self {
            levels: vec![level],
            ..Self::default()
        }
    }

    /// Where a step that can be named has its id.
    pub(super) fn range_of(&self, id: &str) -> Option<Range> {
        self.levels.iter().find_map(|level| {
            let at = level.list.ids.get(id)?;
            level.list.steps.get(*at).map(|step| step.range)
        })
    }

    /// A condition holds here.
    pub(super) fn assume(&mut self, condition: &Expr) {
        for reference in condition.references() {
            if let ("steps", [id, member, ..]) =
                (reference.root.as_str(), reference.path.as_slice())
                && member == "state"
            {
                self.sure.push(id.as_str().into());
            }
        }
        self.conditions.push(condition.source().into());
    }

    pub(super) fn with_extra(&self, extra: &[String]) -> Self {
        Self {
            extra: extra.to_vec(),
            ..self.clone()
        }
    }
}

impl<'s> Scoped<'s, '_, '_> {
    /// Checks everything that an expression reads; `base` is where it starts in the node's text.
    pub(super) fn check(&mut self, expr: &Expr, node: &Node, base: usize, names: &Names) {
        for reference in expr.references() {
            let source = expr.source().get(reference.offset..).unwrap_or("");
            let len = source
                .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '?')))
                .unwrap_or(source.len());
            let word = source.get(..len).unwrap_or("").trim_end_matches(['.', '?']);
            let range = self
                .file
                .within(node, base + reference.offset, word.len().max(1));
            self.reference(reference, range, names);
        }
    }

    fn reference(&mut self, reference: &Reference, range: Range, names: &Names) {
        let root = reference.root.as_str();
        if names.extra.iter().any(|name| name == root)
            || names.items.iter().any(|name| &**name == root)
        {
            return;
        }
        match root {
            "inputs" => self.input_reference(reference, range),
            "steps" => self.step_reference(reference, range, names, ""),
            "run" => self.run_reference(reference, range, names),
            "targets" => self.target_reference(reference, range),
            "index" if !names.items.is_empty() => {}
            "output" | "capture" if names.own => {}
            name => match self.lets.get(name).map(|found| found.expr.clone()) {
                Some(expr) if !names.lenient => {
                    // What the name reads is read here.
                    for inner in expr.references() {
                        match inner.root.as_str() {
                            "steps" => {
                                let via = format!("`{name}` reads it, and ");
                                self.step_reference(inner, range, names, &via);
                            }
                            other if self.lets.contains_key(other) => {
                                self.reference(inner, range, names);
                            }
                            _ => {}
                        }
                    }
                }
                Some(_) => {}
                None => self.unknown_name(name, range, names),
            },
        }
    }

    fn unknown_name(&mut self, name: &str, range: Range, names: &Names) {
        let diagnostic = Diagnostic::error(
            codes::UNKNOWN_NAME,
            self.file.span(range),
            format!("there is no `{name}` here"),
        );
        let help = match name {
            "item" | "index" => match names.items.last() {
                Some(item) => format!("the item is called `{item}` here"),
                None => "`item` and `index` are there only inside `foreach`".to_owned(),
            },
            "output" | "capture" => {
                "`output` and `capture` of the step itself are there only inside its `undo`"
                    .to_owned()
            }
            _ if names.range_of(name).is_some() || self.ids.contains(name) => {
                format!("did you mean `steps.{name}`?")
            }
            _ if self.inputs.contains_key(name) => format!("did you mean `inputs.{name}`?"),
            _ if self.targets.contains_key(name) => format!("did you mean `targets.{name}`?"),
            _ => {
                let known = ["inputs", "steps", "run", "targets"]
                    .into_iter()
                    .chain(self.lets.keys().copied())
                    .chain(names.items.iter().map(|item| &**item))
                    .chain(names.extra.iter().map(String::as_str));
                let known: Vec<&str> = known.collect();
                match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}; text needs quotes", known.join(", ")),
                }
            }
        };
        self.reader.diagnostics.push(diagnostic.help(help));
    }

    fn input_reference(&mut self, reference: &Reference, range: Range) {
        let Some(name) = reference.path.first() else {
            return;
        };
        if !self.inputs.contains_key(name) {
            let help = suggest(name, self.inputs.keys().map(String::as_str)).unwrap_or_else(|| {
                format!("declare it under `inputs:`: `{name}: {{ type: string }}`")
            });
            self.reader.error_help(
                codes::UNKNOWN_INPUT,
                range,
                format!("there is no input `{name}`"),
                help,
            );
        }
    }

    fn run_reference(&mut self, reference: &Reference, range: Range, names: &Names) {
        let Some(name) = reference.path.first() else {
            return;
        };
        if !RUN_MEMBERS.contains(&name.as_str()) {
            self.unknown_member("run", name, RUN_MEMBERS, range);
        } else if matches!(name.as_str(), "outcome" | "failed")
            && !names.in_finally
            && !names.lenient
            && !names.own
        {
            self.reader.error_help(
                codes::UNKNOWN_MEMBER,
                range,
                format!("`run.{name}` is known only in `finally`"),
                "read `steps.ID.state` of a step that this one needs",
            );
        }
    }

    fn target_reference(&mut self, reference: &Reference, range: Range) {
        let Some(name) = reference.path.first() else {
            self.any_target = true;
            return;
        };
        if !self.use_target(name, range) {
            return;
        }
        let Some(member) = reference.path.get(1) else {
            return;
        };
        let of = format!("targets.{name}");
        if member != "reachable" {
            self.unknown_member(&of, member, &["reachable"], range);
        } else if self.is_derived(name) {
            self.reader.error_help(
                codes::UNKNOWN_MEMBER,
                range,
                format!("`{of}.reachable` is not known: `{name}` is like another target"),
                "a target with `like` is reached by the step that uses it; read `reachable` of one with a `kind`",
            );
        }
    }

    fn unknown_member(&mut self, of: &str, name: &str, known: &[&str], range: Range) {
        let help = suggest(name, known.iter().copied())
            .unwrap_or_else(|| format!("known here: {}", known.join(", ")));
        self.reader.error_help(
            codes::UNKNOWN_MEMBER,
            range,
            format!("`{of}` has no member `{name}`"),
            help,
        );
    }

    /// Checks the read of a step; `via` says through which name.
    pub(super) fn step_reference(
        &mut self,
        reference: &Reference,
        range: Range,
        names: &Names,
        via: &str,
    ) {
        let Some(id) = reference.path.first() else {
            let message = if reference.dynamic {
                "which step is read must be written down, not computed"
            } else {
                "`steps` alone cannot be read"
            };
            self.reader.error_help(
                codes::DYNAMIC,
                range,
                format!("{via}{message}"),
                "write `steps.ID.output`, or pass the values through a `foreach`",
            );
            return;
        };
        let found = names
            .levels
            .iter()
            .enumerate()
            .rev()
            .find_map(|(depth, level)| {
                level
                    .list
                    .ids
                    .get(id.as_str())
                    .map(|at| (depth, level, *at))
            });
        let Some((depth, level, at)) = found else {
            self.unknown_step(id, range, names, via);
            return;
        };
        if !names.lenient && !self.is_before(level, depth, at, id, range, names, via) {
            return;
        }
        let Some(step) = level.list.steps.get(at) else {
            return;
        };
        let Some(member) = reference.path.get(1) else {
            return;
        };
        if !STEP_MEMBERS.contains(&member.as_str()) {
            let of = format!("steps.{id}");
            let in_output = match &step.output {
                Output::Kind(info) => {
                    let path = reference.path.get(1..).unwrap_or_default();
                    info.output() != &super::shape::Shape::Any && info.output().member(path).is_ok()
                }
                Output::Items => ITEMS_MEMBERS.contains(&member.as_str()),
                Output::Named(outputs) => outputs.contains(member),
                Output::Any => false,
            };
            if in_output {
                self.reader.error_help(
                    codes::UNKNOWN_MEMBER,
                    range,
                    format!("`{of}` has no member `{member}`"),
                    format!("did you mean `{of}.output.{member}`?"),
                );
            } else {
                self.unknown_member(&of, member, STEP_MEMBERS, range);
            }
            return;
        }
        if member != "output" {
            return;
        }
        if !reference.guarded && !names.lenient {
            self.guard(step, level, id, range, names, via);
        }
        self.output_member(step, id, reference, range);
    }

    fn unknown_step(&mut self, id: &str, range: Range, names: &Names, via: &str) {
        let (message, help) = if self.ids.contains(id) {
            (
                format!("{via}`{id}` is inside another group, where it cannot be read"),
                "put the reading step into the same group, or the step that is read outside"
                    .to_owned(),
            )
        } else {
            let known = names
                .levels
                .iter()
                .flat_map(|level| &level.list.steps)
                .map(|step| &*step.id);
            let help = suggest(id, known).unwrap_or_else(|| "check the id".to_owned());
            (format!("{via}there is no step `{id}`"), help)
        };
        self.reader
            .error_help(codes::UNKNOWN_STEP, range, message, help);
    }

    /// Whether the step that is read comes before the place, by `needs`.
    #[expect(clippy::too_many_arguments, reason = "one place, told once")]
    fn is_before(
        &mut self,
        level: &Level,
        depth: usize,
        at: usize,
        id: &str,
        range: Range,
        names: &Names,
        via: &str,
    ) -> bool {
        let Some(own) = level.at else { return true };
        if own == at {
            if names.own && depth + 1 == names.levels.len() {
                return true;
            }
            let (message, help) = if depth + 1 == names.levels.len() {
                (
                    "a step cannot read itself",
                    "in `undo`, `output` and `capture` are those of the step",
                )
            } else {
                (
                    "a step cannot read the group around it",
                    "read the steps of the group",
                )
            };
            self.reader
                .error_help(codes::NOT_NEEDED, range, format!("{via}{message}"), help);
            return false;
        }
        if level.list.order.reaches(own, at) {
            return true;
        }
        let holder = level.list.steps.get(own).map_or("", |step| &*step.id);
        let inner = depth + 1 == names.levels.len();
        let who = if inner {
            format!("`{holder}`")
        } else {
            format!("the group `{holder}`")
        };
        let message = format!("{via}{who} does not need `{id}`, so `{id}` may not have run yet");
        let help = if level.list.order.reaches(at, own) {
            format!("`{id}` itself needs `{holder}`; read it in a later step")
        } else {
            let mut needs: Vec<&str> = level
                .list
                .order
                .needs(own)
                .iter()
                .filter_map(|need| level.list.steps.get(*need).map(|step| &*step.id))
                .collect();
            needs.push(id);
            if needs.len() > 4 {
                format!("add `{id}` to the `needs` of {who}, or move `{id}` above it")
            } else {
                format!("give {who} `needs: [{}]`", needs.join(", "))
            }
        };
        self.reader
            .error_help(codes::NOT_NEEDED, range, message, help);
        false
    }

    fn guard(
        &mut self,
        step: &StepInfo,
        level: &Level,
        id: &str,
        range: Range,
        names: &Names,
        via: &str,
    ) {
        let why = match (step.unsure, level.finished) {
            (_, false) => "may not have run: `finally` runs whatever happened",
            (Some(why), true) => why,
            (None, true) => return,
        };
        let same_condition = level.finished
            && step
                .when
                .as_ref()
                .is_some_and(|when| names.conditions.iter().any(|c| **c == **when));
        if same_condition || names.sure.iter().any(|sure| &**sure == id) {
            return;
        }
        self.reader.error_help(
            codes::UNGUARDED,
            range,
            format!("{via}`{id}` {why}, and then it has no output"),
            format!(
                "write `steps.{id}.output?.…`, which is `()` then, or test `steps.{id}.state == \"succeeded\"` first"
            ),
        );
    }

    fn output_member(&mut self, step: &StepInfo, id: &str, reference: &Reference, range: Range) {
        let path = reference.path.get(2..).unwrap_or_default();
        let Some(first) = path.first() else { return };
        let of = format!("steps.{id}.output");
        match &step.output {
            Output::Any => {}
            Output::Items => {
                if !ITEMS_MEMBERS.contains(&first.as_str()) {
                    self.unknown_member(&of, first, ITEMS_MEMBERS, range);
                }
            }
            Output::Named(outputs) => {
                if !outputs.contains(first) {
                    let known: Vec<&str> = outputs.iter().map(String::as_str).collect();
                    self.unknown_member(&of, first, &known, range);
                }
            }
            Output::Kind(info) => {
                if let Err((at, known)) = info.output().member(path) {
                    let before = path.get(..at).unwrap_or_default();
                    let of = before
                        .iter()
                        .fold(of, |of, member| format!("{of}.{member}"));
                    let name = path.get(at).map_or("", String::as_str);
                    self.unknown_member(&of, name, &known, range);
                }
            }
        }
    }
}
