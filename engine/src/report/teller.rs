//! From the state that events lead to, and what was gathered on the way, to the steps of a report.
use super::{
    figures,
    gather::{Gathered, instant},
    masks::Masks,
    model::*,
    output::LastLines,
    words,
};
use crate::{
    graph::{Body, EvidenceDef},
    machine::{Instance, InstanceId, Machine, Role, Stage},
    step::{Registry, Vote},
    value::{Duration, Timestamp, Value},
};

/// What a report needs beside the events.
pub struct Aside<'a> {
    /// The kinds of steps, which say what a step did.
    pub registry: &'a Registry,
    /// What steps printed last.
    pub output: &'a LastLines,
    /// Now.
    pub now: Timestamp,
}

/// Lines of what a step printed last.
const MOST_LINES: usize = 20;

pub(super) struct Teller<'a> {
    pub(super) machine: &'a Machine,
    pub(super) masks: &'a Masks,
    pub(super) aside: &'a Aside<'a>,
    pub(super) gathered: &'a Gathered,
}

impl Teller<'_> {
    pub(super) fn steps(&self) -> Vec<StepReport> {
        let root = self.machine.root();
        root.children.iter().map(|id| self.step(*id)).collect()
    }

    fn kept(&self, instance: &Instance) -> Option<&EvidenceDef> {
        match &words::node_of(self.machine, instance)?.body {
            Body::Step(step) => step.evidence.as_ref(),
            Body::Group { .. } | Body::Call(_) => None,
        }
    }

    /// Why the output and the evidence of a step are not told.
    fn left_out(&self, instance: &Instance) -> Option<String> {
        let kept = self.kept(instance)?;
        if !kept.keep {
            return Some("left out: the playbook says evidence.keep: false".to_owned());
        }
        let until = kept
            .keep_for?
            .after(instance.finished_at.unwrap_or(self.machine.last_at()));
        (self.aside.now > until)
            .then(|| format!("left out: they were kept until {}", instant(until)))
    }

    fn step(&self, id: InstanceId) -> StepReport {
        let machine = self.machine;
        let instance = machine.get(id);
        let node = words::node_of(machine, instance);
        let past = self.gathered.nodes.get(&*instance.path);
        let left_out = self.left_out(instance);
        let evidence = past
            .map(|past| past.evidence.as_slice())
            .unwrap_or_default();
        // The output of what holds others is the output of those.
        let is_view = matches!(instance.role, Role::Foreach | Role::Group);
        StepReport {
            path: instance.path.to_string(),
            kind: words::kind_of(machine, instance).to_owned(),
            description: node.and_then(|node| node.description.clone()),
            place: words::place_of(machine, instance),
            state: instance.state.as_str().to_owned(),
            needs: node
                .filter(|_| instance.item.is_none())
                .map(|node| {
                    let around = instance.path.rsplit_once('/').map(|(around, _)| around);
                    node.needs
                        .iter()
                        .map(|need| {
                            let id = &machine.graph().node(*need).id;
                            around.map_or_else(|| id.clone(), |around| format!("{around}/{id}"))
                        })
                        .collect()
                })
                .unwrap_or_default(),
            is_cleanup: node.is_some_and(|node| node.cleanup),
            in_finally: node.is_some_and(|node| node.in_finally),
            item: instance
                .item
                .as_ref()
                .map(|(_, item)| self.masks.json(item))
                .unwrap_or_default(),
            started_at: instance.started_at.map(instant),
            finished_at: instance.finished_at.map(instant),
            took_ms: instance
                .started_at
                .zip(instance.finished_at)
                .map(|(from, to)| Duration::between(from, to).as_millis()),
            figures: self.figures(instance, left_out.is_some()),
            last_lines: self.last_lines(instance, left_out.is_some()),
            skipped: instance.skipped.clone(),
            undo: words::undo_of(machine, instance),
            attempts: past
                .map(|past| past.attempts.clone())
                .unwrap_or_default()
                .into_iter()
                .map(|attempt| AttemptReport {
                    figures: if left_out.is_some() {
                        Vec::new()
                    } else {
                        attempt.figures
                    },
                    ..attempt
                })
                .collect(),
            output: if is_view || left_out.is_some() {
                serde_json::Value::Null
            } else {
                self.masks.json(&instance.output)
            },
            evidence: evidence
                .iter()
                .filter(|_| left_out.is_none())
                .map(|one| EvidenceReport {
                    name: one.name.clone(),
                    media_type: one.media_type.clone(),
                    content: self.masks.json(&one.content),
                    size: one.size,
                    truncated: one.truncated,
                })
                .collect(),
            left_out,
            doubts: past.map(|past| past.doubts.clone()).unwrap_or_default(),
            steps: instance.children.iter().map(|id| self.step(*id)).collect(),
        }
    }

    /// What a step printed last that failed, runs or is in doubt; what is masked elsewhere is masked here.
    fn last_lines(&self, instance: &Instance, is_left_out: bool) -> Vec<String> {
        let (phase, execution) = words::current(instance);
        let is_told = instance.role == Role::Step
            && matches!(
                execution.stage(),
                Stage::Failed | Stage::Running | Stage::InDoubt
            );
        if is_left_out || !is_told {
            return Vec::new();
        }
        let (lines, _) = self
            .aside
            .output
            .of(&instance.path, phase, execution.attempt, MOST_LINES);
        lines
            .into_iter()
            .map(|line| self.masks.value(&Value::from(line)).to_string())
            .collect()
    }

    /// What it did; what was masked is counted by nobody.
    fn figures(&self, instance: &Instance, is_left_out: bool) -> Vec<FigureReport> {
        if is_left_out {
            return Vec::new();
        }
        let figures = if instance.role == Role::Step {
            let seen = self.masks.value(figures::seen(instance));
            figures::of_output(
                self.aside.registry,
                words::kind_of(self.machine, instance),
                &seen,
            )
        } else {
            figures::of_instance(self.machine, self.aside.registry, instance)
        };
        figures.iter().map(FigureReport::from).collect()
    }

    /// The checks in an output: a list `checks` of maps with `name`, `passed`, `expected` and `seen`.
    pub(super) fn checks(&self, instance: &Instance, into: &mut Vec<CheckReport>) {
        if instance.role != Role::Step || self.left_out(instance).is_some() {
            return;
        }
        let output = self.masks.value(&instance.output);
        let text = |check: &Value, key: &str| {
            check
                .get(key)
                .filter(|value| !value.is_null())
                .map(ToString::to_string)
        };
        let checks = output.get("checks").and_then(Value::as_list);
        for check in checks.unwrap_or_default() {
            let (Some(name), Some(passed)) = (
                text(check, "name"),
                check.get("passed").and_then(Value::as_bool),
            ) else {
                continue;
            };
            into.push(CheckReport {
                step: instance.path.to_string(),
                name,
                passed,
                severity: text(check, "severity").unwrap_or_else(|| "error".to_owned()),
                expected: text(check, "expected").unwrap_or_default(),
                seen: check
                    .get("seen")
                    .map(Value::to_plain_json)
                    .unwrap_or_default(),
                error: text(check, "error"),
            });
        }
    }

    pub(super) fn approval(&self, instance: &Instance) -> Option<ApprovalReport> {
        let request = self.gathered.nodes.get(&*instance.path)?.request.as_ref()?;
        Some(ApprovalReport {
            step: instance.path.to_string(),
            prompt: request.prompt.clone(),
            shown: self.masks.json(&request.show),
            shown_hash: request.shown_hash.clone(),
            groups: request.groups.clone(),
            quorum: request.quorum.max(1),
            separation_of_duties: request.separation_of_duties,
            votes: instance.votes.iter().map(|vote| self.vote(vote)).collect(),
        })
    }

    fn vote(&self, vote: &Vote) -> VoteReport {
        VoteReport {
            who: vote.who.clone(),
            account: vote.account.clone(),
            at: instant(vote.at),
            approve: vote.approve,
            reason: vote.reason.clone(),
            answers: vote
                .answers
                .iter()
                .map(|(name, answer)| (name.clone(), self.masks.json(answer)))
                .collect(),
            shown_hash: vote.shown_hash.clone(),
        }
    }
}
