//! What a command from another process does: events, or a refusal with its reason.
use super::{
    command::{Command, Submitted},
    core::{Machine, ROOT, ScopePhase},
    event::*,
    state::{InstanceId, Role, Stage},
};
use crate::{
    step::{ApprovalDecision, ApprovalRequest, Phase, Question, Vote, WaitOn, Woken},
    value::{Decimal, Timestamp, Value},
};
use indexmap::IndexMap;

type Verdict = Result<Vec<EventBody>, String>;

impl Machine {
    /// The events with which a command is taken; the last word on it, so it is consumed with them.
    #[must_use]
    pub fn command(&self, submitted: &Submitted, now: Timestamp) -> Vec<Event> {
        let at = now.max(self.last_at);
        let Submitted {
            id,
            who,
            at: sent,
            command,
            ..
        } = submitted.clone();
        let bodies = match self.judge(submitted, at) {
            Ok(doing) => {
                let mut bodies = vec![EventBody::CommandAccepted(CommandTaken {
                    id,
                    who,
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
                    sent,
                    command,
                    reason,
                })]
            }
        };
        bodies.into_iter().map(|body| Event { at, body }).collect()
    }

    fn judge(&self, submitted: &Submitted, now: Timestamp) -> Verdict {
        let who = submitted.who.as_str();
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

    fn named(&self, node: &str) -> Result<InstanceId, String> {
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

    // ---- votes ---------------------------------------------------------------------------------------

    fn judge_vote(&self, submitted: &Submitted, node: &str) -> Verdict {
        let Command::Vote {
            approve,
            answers,
            reason,
            digest,
            shown_hash,
            ..
        } = &submitted.command
        else {
            return Err("not a vote".to_owned());
        };
        let id = self.named(node)?;
        let instance = self.get(id);
        let phase = if instance.undo.stage == Stage::AwaitingApproval {
            Phase::Undo
        } else {
            Phase::Do
        };
        let execution = instance.execution(phase);
        let (Stage::AwaitingApproval, Some(wait)) = (execution.stage, &execution.wait) else {
            return Err(format!(
                "{node} is {}: it asks for no approval now",
                instance.state.as_str()
            ));
        };
        let WaitOn::Approval(request) = &wait.on else {
            return Err(format!("{node} asks for no approval"));
        };
        let who = submitted.who.as_str();
        if *digest != self.started.digest {
            return Err("the vote is for another plan: its digest is not this run's".to_owned());
        }
        if *shown_hash != request.shown_hash {
            return Err("what is shown with the question has changed since; look again".to_owned());
        }
        if let Some(deadline) = wait.deadline
            && submitted.at > deadline
        {
            return Err(format!("the approval expired at {deadline}"));
        }
        self.may_vote(who, request)?;
        if instance.votes.iter().any(|vote| vote.who == who) {
            return Err(format!("{who} has voted already"));
        }
        let answers = if *approve {
            check_answers(request, answers)?
        } else {
            IndexMap::new()
        };
        let vote = Vote {
            who: who.to_owned(),
            at: submitted.at,
            approve: *approve,
            answers,
            reason: reason.clone(),
            shown_hash: shown_hash.clone(),
        };
        let mut votes = instance.votes.clone();
        votes.push(vote.clone());
        let mut doing = vec![EventBody::Voted(Voted {
            node: instance.path.clone(),
            vote,
        })];
        if let Some(decision) = decide_votes(request, &votes) {
            doing.push(EventBody::Awoken(Awoken {
                node: instance.path.clone(),
                phase,
                by: Woken::Decision(decision),
            }));
        }
        Ok(doing)
    }

    fn may_vote(&self, who: &str, request: &ApprovalRequest) -> Result<(), String> {
        if request.separation_of_duties && who == self.started.run.by {
            return Err(format!(
                "{who} started this run and may not vote on it (separation_of_duties)"
            ));
        }
        if request.groups.is_empty() {
            return Ok(());
        }
        let member = request.groups.iter().any(|group| {
            self.started
                .approvers
                .get(group)
                .is_some_and(|members| members.iter().any(|m| m == who))
        });
        if member {
            return Ok(());
        }
        Err(format!(
            "{who} is in none of the groups that may vote ({})",
            request.groups.join(", ")
        ))
    }
}

/// A rejection decides at once; an approval when enough votes agree on the answers too.
fn decide_votes(request: &ApprovalRequest, votes: &[Vote]) -> Option<ApprovalDecision> {
    if votes.iter().any(|vote| !vote.approve) {
        return Some(ApprovalDecision {
            approved: false,
            votes: votes.to_vec(),
            answers: IndexMap::new(),
        });
    }
    let last = votes.last()?;
    let agreeing = votes
        .iter()
        .filter(|vote| vote.answers == last.answers)
        .count();
    (agreeing >= request.quorum.max(1) as usize).then(|| ApprovalDecision {
        approved: true,
        votes: votes.to_vec(),
        answers: last.answers.clone(),
    })
}

fn check_answers(
    request: &ApprovalRequest,
    given: &IndexMap<String, String>,
) -> Result<IndexMap<String, Value>, String> {
    if let Some(unknown) = given.keys().find(|name| !request.ask.contains_key(*name)) {
        let known: Vec<&str> = request.ask.keys().map(String::as_str).collect();
        return Err(format!(
            "there is no question {unknown:?}; the questions are: {}",
            known.join(", ")
        ));
    }
    request
        .ask
        .iter()
        .map(|(name, question)| {
            let answer = given
                .get(name)
                .ok_or_else(|| format!("question {name:?} is not answered"))?;
            let value = check_answer(question, answer)
                .map_err(|why| format!("answer to {name:?}: {why}"))?;
            Ok((name.clone(), value))
        })
        .collect()
}

fn check_answer(question: &Question, answer: &str) -> Result<Value, String> {
    match question {
        Question::Choose {
            from,
            min,
            max,
            many,
        } => {
            let mut chosen: Vec<usize> = Vec::new();
            for part in answer
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
            {
                let number: usize = part
                    .parse()
                    .map_err(|_| format!("{part:?} is not the number of an option"))?;
                if number == 0 || number > from.len() {
                    return Err(format!(
                        "there is no option {number}; there are {}",
                        from.len()
                    ));
                }
                if !chosen.contains(&number) {
                    chosen.push(number);
                }
            }
            if chosen.len() < *min as usize || chosen.len() > *max as usize {
                return Err(format!(
                    "{} chosen, but between {min} and {max} must be",
                    chosen.len()
                ));
            }
            chosen.sort_unstable();
            let mut values = chosen
                .into_iter()
                .filter_map(|number| from.get(number - 1))
                .map(|choice| choice.value.clone());
            Ok(if *many {
                Value::list(values.collect())
            } else {
                values.next().unwrap_or_default()
            })
        }
        Question::Value { kind, allowed } => {
            let value = typed_answer(kind, answer)?;
            if !allowed.is_empty() && !allowed.contains(&value) {
                let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
                return Err(format!("{answer:?} is not one of: {}", allowed.join(", ")));
            }
            Ok(value)
        }
    }
}

fn typed_answer(kind: &str, answer: &str) -> Result<Value, String> {
    let wrong = || format!("{answer:?} is not a {kind}");
    Ok(match kind {
        "integer" => Value::Int(answer.parse().map_err(|_| wrong())?),
        "number" => match answer.parse::<i64>() {
            Ok(int) => Value::Int(int),
            Err(_) => Value::Decimal(answer.parse::<Decimal>().map_err(|_| wrong())?),
        },
        "boolean" => Value::Bool(answer.parse().map_err(|_| wrong())?),
        "duration" => Value::Duration(answer.parse().map_err(|e| format!("{e}"))?),
        "size" => Value::Size(answer.parse().map_err(|e| format!("{e}"))?),
        "timestamp" => Value::Timestamp(answer.parse().map_err(|_| wrong())?),
        _ => Value::from(answer),
    })
}
