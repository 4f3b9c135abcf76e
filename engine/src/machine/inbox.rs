//! What a command from another process does: events, or a refusal with its reason.
use super::{
    command::{Command, Submitted},
    core::{Machine, ROOT, ScopePhase},
    event::*,
    state::{InstanceId, Role, Stage},
};
use crate::{
    step::Phase,
    value::{Timestamp, Value},
};
use indexmap::IndexMap;

pub(super) type Verdict = Result<Vec<EventBody>, String>;

impl Machine {
    /// The events with which a command is taken; the last word on it, so it is consumed with them.
    #[must_use]
    pub fn command(&self, submitted: &Submitted, now: Timestamp) -> Vec<Event> {
        let at = now.max(self.last_at);
        let Submitted {
            id,
            who,
            account,
            at: sent,
            command,
            ..
        } = submitted.clone();
        let bodies = match self.judge(submitted, at) {
            Ok(doing) => {
                let mut bodies = vec![EventBody::CommandAccepted(CommandTaken {
                    id,
                    who,
                    account,
                    sent,
                    command,
                })];
                bodies.extend(doing);
                bodies
            }
            Err(reason) => {
                vec![EventBody::CommandRefused(CommandRefused {
                    id,
                    who,
                    account,
                    sent,
                    command,
                    reason,
                })]
            }
        };
        bodies.into_iter().map(|body| Event { at, body }).collect()
    }

    /// Why a command would be refused at `now`; `None` if it would be accepted.
    #[must_use]
    pub fn would_refuse(&self, submitted: &Submitted, now: Timestamp) -> Option<String> {
        self.judge(submitted, now.max(self.last_at)).err()
    }

    fn judge(&self, submitted: &Submitted, now: Timestamp) -> Verdict {
        // What the events below keep is text for people; only a vote asks who somebody is.
        let sender = submitted.sender();
        let who = sender.as_str();
        if let Some(finished) = &self.finished
            && !matches!(
                submitted.command,
                Command::Undo | Command::Retry { .. } | Command::Skip { .. }
            )
        {
            return Err(format!("the run is over: {}", finished.outcome.as_str()));
        }
        match &submitted.command {
            Command::Vote { node, .. } => self.judge_vote(submitted, node),
            Command::Signal { name, payload } => Ok(vec![EventBody::Signalled(Signalled {
                name: name.clone(),
                payload: payload.clone(),
            })]),
            Command::Pause { because } => {
                if self.paused.is_some() {
                    return Err("it is paused already".to_owned());
                }
                let why = because
                    .clone()
                    .unwrap_or_else(|| "no reason given".to_owned());
                Ok(vec![EventBody::Paused(Paused {
                    who: Some(who.to_owned()),
                    why,
                })])
            }
            Command::Unpause => self.judge_unpause(who),
            Command::Cancel {
                undo,
                force,
                because,
            } => self.judge_cancel(who, *undo, *force, because.as_ref()),
            Command::Resolve {
                node,
                done,
                output,
                because,
            } => {
                let (id, phase) = self.unsettled(node)?;
                let stage = self.get(id).execution(phase).stage;
                if stage != Stage::InDoubt && !*done {
                    return Err(format!(
                        "{node} is {}, not in doubt",
                        self.get(id).state.as_str()
                    ));
                }
                let mut doing = vec![EventBody::Resolved(Box::new(Resolved {
                    node: self.get(id).path.clone(),
                    phase,
                    done: *done,
                    output: output.clone(),
                    who: who.to_owned(),
                    because: because.clone(),
                }))];
                doing.extend(self.unpause_after(id, who));
                Ok(doing)
            }
            Command::Retry { node } => self.judge_retry(node, who),
            Command::Skip {
                node,
                output,
                because,
            } => self.judge_skip(node, output, because, who),
            Command::SetInput { name, value } => self.judge_input(name, value, who),
            Command::Undo => self.judge_undo(who, now),
        }
    }

    pub(super) fn named(&self, node: &str) -> Result<InstanceId, String> {
        self.id_of(node).filter(|id| *id != ROOT).ok_or_else(|| {
            let near = self
                .instances()
                .map(|instance| instance.path.to_string())
                .min_by_key(|path| strsim::levenshtein(path, node));
            match near {
                Some(near) => format!("there is no step {node:?}; did you mean {near:?}?"),
                None => format!("there is no step {node:?}"),
            }
        })
    }

    /// The execution of a node that a person may settle: in doubt, or failed for good.
    fn unsettled(&self, node: &str) -> Result<(InstanceId, Phase), String> {
        let id = self.named(node)?;
        let instance = self.get(id);
        for phase in [Phase::Undo, Phase::Do] {
            if matches!(
                instance.execution(phase).stage,
                Stage::InDoubt | Stage::Failed
            ) {
                return Ok((id, phase));
            }
        }
        Err(format!(
            "{node} is {}: there is nothing to settle",
            instance.state.as_str()
        ))
    }

    /// Going on with the node that the run was paused for ends the pause.
    fn unpause_after(&self, id: InstanceId, who: &str) -> Option<EventBody> {
        let asked = self
            .paused
            .as_ref()
            .is_some_and(|paused| paused.who.is_none());
        (asked && self.get(id).forward.stage == Stage::Failed).then(|| {
            EventBody::Unpaused(Unpaused {
                who: who.to_owned(),
            })
        })
    }

    fn judge_unpause(&self, who: &str) -> Verdict {
        let Some(paused) = &self.paused else {
            return Err("it is not paused".to_owned());
        };
        let failed = self.nodes.iter().find(|instance| {
            paused.who.is_none()
                && instance.forward.stage == Stage::Failed
                && paused.why.starts_with(&format!("{} failed", instance.path))
        });
        match failed {
            Some(failed) => Err(format!(
                "{0} failed: `retry` it, `skip` it, or `cancel` the run",
                failed.path
            )),
            None => Ok(vec![EventBody::Unpaused(Unpaused {
                who: who.to_owned(),
            })]),
        }
    }

    fn judge_cancel(
        &self,
        who: &str,
        undo: bool,
        force: bool,
        because: Option<&String>,
    ) -> Verdict {
        match self.scope_phase(ROOT) {
            ScopePhase::Undoing | ScopePhase::Cleaning if !force => {
                return Err("it is undoing what it did; `pause` holds it, `cancel --force` gives the undo up".to_owned());
            }
            ScopePhase::Undoing | ScopePhase::Cleaning => {
                return Err(
                    "an undo is not given up half-way: `skip` or `resolve` the steps that hold it"
                        .to_owned(),
                );
            }
            ScopePhase::Finally if !force => {
                return Err(
                    "it is in its finally; `cancel --force` passes over the rest".to_owned(),
                );
            }
            ScopePhase::Forward | ScopePhase::Finally | ScopePhase::Over => {}
        }
        if self.cancelled.is_some() && !force {
            return Err(
                "it is cancelled already; `cancel --force` ends running steps too".to_owned(),
            );
        }
        Ok(vec![EventBody::Cancelled(Cancelled {
            undo,
            force,
            who: who.to_owned(),
            because: because.cloned(),
        })])
    }

    fn judge_retry(&self, node: &str, who: &str) -> Verdict {
        let (id, phase) = self.unsettled(node)?;
        let instance = self.get(id);
        if instance.role != Role::Step {
            return Err(format!(
                "{node} is not a step; retry the step inside it that failed"
            ));
        }
        let mut doing = self.reopened(who)?;
        if doing.is_empty()
            && phase == Phase::Do
            && instance.forward.stage == Stage::Failed
            && self.is_halted(id)
        {
            return Err("the run is ending; wait until it has ended".to_owned());
        }
        doing.push(EventBody::RetryOrdered(RetryOrdered {
            node: instance.path.clone(),
            phase,
            who: who.to_owned(),
        }));
        doing.extend(self.unpause_after(id, who));
        Ok(doing)
    }

    /// What lets a run that was stopped go on; nothing where it is not over.
    fn reopened(&self, who: &str) -> Verdict {
        match self.finished.as_ref().map(|finished| finished.outcome) {
            None => Ok(Vec::new()),
            Some(Outcome::Stopped) => Ok(vec![EventBody::Reopened(Reopened {
                who: who.to_owned(),
                undo: false,
            })]),
            Some(
                over @ (Outcome::Succeeded
                | Outcome::Failed
                | Outcome::Compensated
                | Outcome::Cancelled),
            ) => Err(format!("the run is over: {}", over.as_str())),
        }
    }

    fn judge_skip(&self, node: &str, output: &Value, because: &str, who: &str) -> Verdict {
        let id = self.named(node)?;
        let instance = self.get(id);
        let mut doing = self.reopened(who)?;
        let why = SkipCause::Operator {
            who: who.to_owned(),
            because: because.to_owned(),
            output: output.clone(),
        };
        if matches!(instance.undo.stage, Stage::Failed | Stage::Backoff) {
            doing.push(EventBody::Skipped(Skipped {
                node: instance.path.clone(),
                phase: Phase::Undo,
                why,
            }));
            return Ok(doing);
        }
        if let Some(crate::graph::Body::Step(step)) = self.def(id).map(|node| &node.body)
            && !step.skippable
        {
            return Err(format!(
                "{node} is a {}, which cannot be skipped",
                step.action.kind
            ));
        }
        match instance.forward.stage {
            Stage::Idle
            | Stage::Backoff
            | Stage::Waiting
            | Stage::AwaitingApproval
            | Stage::Failed => {}
            Stage::Running => return Err(format!("{node} runs; pause or cancel the run first")),
            Stage::InDoubt => return Err(format!("{node} is in doubt: `resolve` it")),
            Stage::Succeeded | Stage::Skipped => {
                return Err(format!("{node} is {} already", instance.state.as_str()));
            }
        }
        if doing.is_empty() && self.is_halted(id) {
            return Err("the run is ending: it will not start".to_owned());
        }
        doing.push(EventBody::Skipped(Skipped {
            node: instance.path.clone(),
            phase: Phase::Do,
            why,
        }));
        doing.extend(self.unpause_after(id, who));
        Ok(doing)
    }

    fn judge_input(&self, name: &str, value: &str, who: &str) -> Verdict {
        let Some(decl) = self.graph.root.inputs.get(name) else {
            return Err(format!("there is no input {name:?}"));
        };
        let decls: IndexMap<_, _> = [(name.to_owned(), decl.clone())].into();
        let checked = crate::compile::inputs::check(&decls, &[(name.to_owned(), value.to_owned())])
            .map_err(|diagnostics| {
                diagnostics
                    .into_iter()
                    .map(|d| d.message)
                    .collect::<Vec<_>>()
                    .join("; ")
            })?;
        let value = checked.get(name).cloned().unwrap_or_default();
        Ok(vec![EventBody::InputEdited(InputEdited {
            name: name.to_owned(),
            value,
            who: who.to_owned(),
        })])
    }

    fn judge_undo(&self, who: &str, _now: Timestamp) -> Verdict {
        match &self.finished {
            Some(finished) => match finished.outcome {
                Outcome::Compensated => Err("it is undone already".to_owned()),
                Outcome::Succeeded | Outcome::Failed | Outcome::Stopped | Outcome::Cancelled => {
                    Ok(vec![EventBody::Reopened(Reopened {
                        who: who.to_owned(),
                        undo: true,
                    })])
                }
            },
            None if self.root_forward() => Ok(vec![EventBody::Cancelled(Cancelled {
                undo: true,
                force: false,
                who: who.to_owned(),
                because: None,
            })]),
            None => Err("it is ending already".to_owned()),
        }
    }
}
