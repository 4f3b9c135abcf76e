//! One step of a plan: its preview, and what it counts for.
use super::{
    Cost, NodePlan, PlanLine, PlanPreview, PointOfNoReturn, UndoHow, UndoPlan, UndoStep, cost,
    host::{PlanHost, words},
    known::{After, Known, Scope, StepKnown, World},
    targets::{Unbound, literal_targets, targets_in},
    walk::{Around, Planned, Walk, reads_run, reads_steps},
};
use crate::{
    expr::{Expr, Template, TemplatePart},
    graph::{Action, StepDef, Undo},
    step::{DynStep, Effect, Failure, Fidelity, Preview, PreviewContext, Target, UndoSupport},
    value::Value,
};
use std::{collections::HashMap, sync::Arc};

impl Walk<'_> {
    pub(super) async fn step(
        &mut self,
        step: &StepDef,
        mut plan: NodePlan,
        scope: &Scope,
        around: &Around,
    ) -> Planned {
        let action = &step.action;
        let traits = action.traits;
        self.count(step, &plan, around);
        self.template_secrets(&action.with);
        let seen = self.preview(step, &mut plan, scope, around).await;
        let (mut preview, facts) = match seen {
            Ok((preview, facts)) => (preview, facts),
            Err(after) => (
                PlanPreview {
                    fidelity: Fidelity::Unknown,
                    summary: format!("known after {}", words(&after)),
                    lines: self.world.as_far_as_known(scope, &action.with),
                    output: None,
                    known_after: after.into_iter().collect(),
                    error: None,
                    before_the_change: false,
                    ends_within: None,
                },
                Value::Null,
            ),
        };
        if preview.fidelity == Fidelity::Unknown {
            self.counts.unknown += 1;
        }
        if preview.error.is_some() {
            self.counts.failed += 1;
        }
        if around.bound {
            plan.binding = binding(scope, action, &facts);
        }
        let read = preview.output.take();
        let known = match &read {
            // What was read before a change is shown, and later steps may use it: that was asked for.
            Some(output) if traits.effect == Effect::ReadOnly => {
                StepKnown::succeeded(&plan.path, output.clone())
            }
            Some(_) | None => StepKnown::after(&plan.path),
        };
        let hidden = step.evidence.as_ref().map(|evidence| &evidence.mask);
        preview.output = read.map(|output| match hidden {
            Some(mask) if !mask.is_empty() => masked(&output, mask),
            Some(_) | None => output,
        });
        let limit = action.timeout.or(preview.ends_within);
        plan.preview = Some(preview);
        // What has nothing to undo (a message) changed nothing that a later step could read.
        let writes = if traits.effect == Effect::ReadOnly || traits.undo == UndoSupport::None {
            around.writes_before.clone()
        } else {
            // Whoever comes after it comes after those before it too.
            After::from([plan.path.clone()])
        };
        let cost = if cost::is_waiting(&action.kind, &traits) {
            Cost::default()
        } else {
            Cost::of_step(&plan.path, limit, action.retry.as_ref())
        };
        Planned {
            node: plan,
            known,
            writes,
            cost,
        }
    }

    /// The preview of a step, or the steps after which there can be one.
    pub(super) async fn preview(
        &mut self,
        step: &StepDef,
        plan: &mut NodePlan,
        scope: &Scope,
        around: &Around,
    ) -> Result<(PlanPreview, Value), After> {
        let action = &step.action;
        let traits = action.traits;
        let reads = traits.effect == Effect::ReadOnly && traits.fidelity == Fidelity::Executed;
        let changed = &around.writes_before;
        let mut waits = self.world.waits(scope, action.with.expressions());
        if reads && !changed.is_empty() && !step.plan_read {
            waits.extend(changed.iter().cloned());
        }
        let with = match self.world.resolve(scope, &action.with) {
            Ok(Known::Value(with)) if waits.is_empty() => with,
            Ok(_) => {
                plan.targets = literal_targets(action);
                return Err(waits);
            }
            Err(error) => {
                plan.targets = literal_targets(action);
                return Ok((
                    failed_preview(&error.to_string(), error.help.as_deref()),
                    Value::Null,
                ));
            }
        };
        self.collect_secrets(&with);
        plan.targets = targets_in(action, &with);
        let mut targets = HashMap::new();
        for name in &plan.targets {
            match self.bind(scope, &scope.global_target(name)) {
                Ok(target) => {
                    self.collect_secrets(&target.url);
                    target
                        .options
                        .values()
                        .for_each(|value| self.collect_secrets(value));
                    targets.insert(name.clone(), Ok(target));
                }
                Err(Unbound::After(after)) => return Err(after),
                Err(Unbound::Failed(failure)) => {
                    targets.insert(name.clone(), Err(failure));
                }
            }
        }
        let prepared = self.prepare(action, &with);
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(message) => return Ok((failed_preview(&message, None), Value::Null)),
        };
        let down = targets.iter().find_map(|(_, target)| {
            let target = target.as_ref().ok()?;
            self.request.unreachable.get_key_value(&target.name)
        });
        if let Some((name, why)) = down {
            return Ok((self.until_it_answers(scope, action, name, why), Value::Null));
        }
        let cx = PreviewContext {
            run: self.request.run.clone(),
            node: plan.path.as_str().into(),
            rehearse: self.request.rehearse,
            cancel: self.request.cancel.clone(),
            host: Arc::new(self.host(action, scope, targets)),
        };
        let preview = if self.request.cancel.is_cancelled() {
            Err(Failure::new("plan.cancelled", "the plan was interrupted"))
        } else {
            prepared.preview(&cx).await
        };
        match preview {
            Ok(preview) => {
                self.secrets.extend(preview.secrets.iter().cloned());
                let facts = preview.binding.clone();
                let mut shown = shown(preview);
                shown.before_the_change = reads && step.plan_read && !changed.is_empty();
                Ok((shown, facts))
            }
            // A table that a step before it would make is not there yet: that is no mistake.
            Err(_) if !changed.is_empty() && !step.plan_read => Err(changed.clone()),
            Err(failure) => Ok((
                failed_preview(&failure.message, failure.help.as_deref()),
                Value::Null,
            )),
        }
    }

    /// The preview of a step on a target that is down.
    fn until_it_answers(
        &self,
        scope: &Scope,
        action: &Action,
        target: &str,
        why: &str,
    ) -> PlanPreview {
        PlanPreview {
            fidelity: Fidelity::Unknown,
            summary: format!("cannot know until {target} answers: {why}"),
            lines: self.world.as_far_as_known(scope, &action.with),
            output: None,
            known_after: Vec::new(),
            error: None,
            before_the_change: false,
            ends_within: None,
        }
    }

    pub(super) fn prepare(
        &self,
        action: &Action,
        with: &Value,
    ) -> Result<Arc<dyn DynStep>, String> {
        let kind = self
            .request
            .registry
            .kind(&action.kind)
            .ok_or_else(|| format!("this build has no step kind {}", action.kind))?;
        (kind.prepare)(with).map_err(|errors| {
            errors
                .iter()
                .map(|error| match error.path.as_str() {
                    "" => error.message.clone(),
                    path => format!("{path}: {}", error.message),
                })
                .collect::<Vec<_>>()
                .join("; ")
        })
    }

    pub(super) fn host(
        &self,
        action: &Action,
        scope: &Scope,
        targets: HashMap<String, Result<Target, Failure>>,
    ) -> PlanHost {
        let expressions = action
            .expressions
            .iter()
            .map(|expr| {
                let waits = self.world.waits(scope, [expr]);
                let vars = if waits.is_empty() {
                    self.world
                        .vars(scope, [expr])
                        .map_err(|_| After::from(["its `let`".to_owned()]))
                } else {
                    Err(waits)
                };
                (expr.source().to_owned(), vars)
            })
            .collect();
        PlanHost {
            expressions,
            targets,
            reveal: Arc::clone(&self.request.reveal),
            now: Arc::clone(&self.request.now),
            resources: Arc::clone(&self.request.resources),
        }
    }

    pub(super) fn count(&mut self, step: &StepDef, plan: &NodePlan, around: &Around) {
        self.counts.steps += 1;
        match step.action.traits.effect {
            Effect::ReadOnly => {
                self.counts.reads += 1;
                return;
            }
            Effect::Writes => self.counts.writes += 1,
            Effect::Destroys => self.counts.destroys += 1,
        }
        if step.undo == Undo::Impossible {
            self.counts.irreversible += 1;
            if self.point.is_none() {
                self.point = Some(PointOfNoReturn {
                    path: plan.path.clone(),
                    file: plan.file.clone(),
                    line: plan.line,
                    certain: around.certain,
                });
            }
        }
    }

    pub(super) fn collect_secrets(&mut self, value: &Value) {
        match value {
            Value::Secret(secret) => self.secrets.extend(secret.names().map(str::to_owned)),
            Value::List(items) => items.iter().for_each(|item| self.collect_secrets(item)),
            Value::Map(map) => map.values().for_each(|item| self.collect_secrets(item)),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Decimal(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Duration(_)
            | Value::Size(_)
            | Value::Timestamp(_)
            | Value::Bytes(_) => {}
        }
    }

    /// Secrets with a constant name, known before the rest of the parameters is.
    pub(super) fn template_secrets(&mut self, template: &Template) {
        for expr in template.expressions() {
            self.secrets.extend(expr.secrets());
        }
    }
}

/// The parameters as written, and the kind's facts where nothing that was read is in them.
fn binding(scope: &Scope, action: &Action, facts: &Value) -> serde_json::Value {
    let with = serde_json::to_value(&action.with).unwrap_or_default();
    let constant = !action
        .with
        .expressions()
        .into_iter()
        .any(|expr| reads_steps(scope, expr) || reads_run(scope, expr));
    let facts = if constant {
        serde_json::to_value(facts).unwrap_or_default()
    } else {
        serde_json::Value::Null
    };
    serde_json::json!({ "with": with, "facts": facts })
}

fn failed_preview(message: &str, help: Option<&str>) -> PlanPreview {
    PlanPreview {
        fidelity: Fidelity::Unknown,
        summary: "the preview failed".to_owned(),
        lines: Vec::new(),
        output: None,
        known_after: Vec::new(),
        error: Some(match help {
            Some(help) => format!("{message}; {help}"),
            None => message.to_owned(),
        }),
        before_the_change: false,
        ends_within: None,
    }
}

fn shown(preview: Preview) -> PlanPreview {
    PlanPreview {
        fidelity: preview.fidelity,
        summary: preview.summary,
        lines: preview
            .lines
            .into_iter()
            .map(|line| PlanLine {
                label: line.label,
                text: line.text,
            })
            .collect(),
        output: preview.output,
        known_after: Vec::new(),
        error: None,
        before_the_change: false,
        ends_within: preview.ends_within,
    }
}

/// A value with the named columns or keys hidden, at any depth.
pub(super) fn masked(value: &Value, mask: &[String]) -> Value {
    match value {
        Value::Map(map) => Value::Map(Arc::new(
            map.iter()
                .map(|(key, value)| {
                    let hide = mask.iter().any(|name| name.eq_ignore_ascii_case(key));
                    let value = if hide {
                        Value::from("(masked)")
                    } else {
                        masked(value, mask)
                    };
                    (Arc::clone(key), value)
                })
                .collect(),
        )),
        Value::List(items) => Value::list(items.iter().map(|item| masked(item, mask)).collect()),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Secret(_) => value.clone(),
    }
}

pub(super) fn undo(world: &World<'_>, scope: &Scope, step: &StepDef, cleanup: bool) -> UndoPlan {
    let (how, steps) = match &step.undo {
        Undo::Auto { .. } => (UndoHow::Auto, Vec::new()),
        Undo::None => (UndoHow::None, Vec::new()),
        Undo::Impossible => (UndoHow::Impossible, Vec::new()),
        Undo::Steps(actions) => (
            UndoHow::Steps,
            actions
                .iter()
                .map(|action| UndoStep {
                    kind: action.kind.clone(),
                    when: action.when.as_ref().map(|when| when.source().to_owned()),
                    with: world
                        .as_far_as_known(scope, &action.with)
                        .into_iter()
                        .map(|line| (line.label, line.text))
                        .collect(),
                })
                .collect(),
        ),
    };
    UndoPlan {
        how,
        cleanup,
        steps,
    }
}

impl World<'_> {
    /// Parameters, with what is known now put in and the rest as it is written.
    fn as_far_as_known(&self, scope: &Scope, with: &Template) -> Vec<PlanLine> {
        match self.partly(scope, with) {
            Value::Null => Vec::new(),
            Value::Map(map) => map
                .iter()
                .map(|(key, value)| PlanLine {
                    label: key.to_string(),
                    text: laid_out(value),
                })
                .collect(),
            other => vec![PlanLine {
                label: "with".to_owned(),
                text: laid_out(&other),
            }],
        }
    }

    fn partly(&self, scope: &Scope, template: &Template) -> Value {
        let one = |expr: &Expr| match self.evaluate(scope, expr) {
            Ok(Known::Value(value)) => value,
            // What is wrong with it is told where it is decided.
            Ok(Known::After(_)) | Err(_) => Value::from(format!("${{{{ {} }}}}", expr.source())),
        };
        match template {
            Template::Literal(value) => value.clone(),
            Template::Expr(expr) => one(expr),
            Template::Text(parts) => Value::from(
                parts
                    .iter()
                    .map(|part| match part {
                        TemplatePart::Text(text) => text.clone(),
                        TemplatePart::Expr(expr) => one(expr).to_string(),
                    })
                    .collect::<String>(),
            ),
            Template::List(items) => {
                Value::list(items.iter().map(|item| self.partly(scope, item)).collect())
            }
            Template::Map(map) => Value::map(
                map.iter()
                    .map(|(key, value)| (key.as_str(), self.partly(scope, value))),
            ),
        }
    }
}

/// Longer lists and maps take a line for each member.
const ONE_LINE: usize = 80;

/// A value for people to read, as YAML would have it.
fn laid_out(value: &Value) -> String {
    let short = in_line(value);
    if short.chars().count() <= ONE_LINE {
        return short;
    }
    let indented = |text: String| text.replace('\n', "\n  ");
    match value {
        Value::List(items) => items
            .iter()
            .map(|item| format!("- {}", indented(laid_out(item))))
            .collect::<Vec<_>>()
            .join("\n"),
        Value::Map(map) => map
            .iter()
            .map(|(key, value)| {
                let text = laid_out(value);
                let block = text.contains('\n') || matches!(value, Value::List(_) | Value::Map(_));
                match (block, text == in_line(value)) {
                    (true, false) => format!("{key}:\n  {}", indented(text)),
                    (true, true) | (false, _) => format!("{key}: {}", indented(text)),
                }
            })
            .collect::<Vec<_>>()
            .join("\n"),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Secret(_) => short,
    }
}

fn in_line(value: &Value) -> String {
    match value {
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(in_line).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let members: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}: {}", in_line(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Secret(_) => value.to_string(),
    }
}
