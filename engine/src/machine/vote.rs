//! Votes on approvals: who may vote, what an answer must be, when a quorum is there.
use super::{
    command::{Command, Submitted},
    core::Machine,
    event::*,
    inbox::Verdict,
    state::Stage,
};
use crate::{
    step::{ApprovalDecision, ApprovalRequest, Phase, Question, Vote, WaitOn, Woken},
    value::{Decimal, Value},
};
use indexmap::IndexMap;

impl Machine {
    pub(super) fn judge_vote(&self, submitted: &Submitted, node: &str) -> Verdict {
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
