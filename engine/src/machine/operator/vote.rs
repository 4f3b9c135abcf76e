//! Votes on approvals: who may vote, what an answer must be, when a quorum is there.
use super::{Command, Submitted, Verdict};
use crate::{
    machine::{core::Machine, event::*, execution::Stage, state::Instance},
    step::{Account, ApprovalDecision, ApprovalRequest, Phase, Question, Vote, WaitOn, Woken},
    value::{Decimal, Timestamp, Value},
};
use indexmap::IndexMap;

impl Machine {
    /// Whether this account may vote on what a step asks now.
    ///
    /// # Errors
    /// Why not.
    pub fn may_vote(
        &self,
        instance: &Instance,
        who: &str,
        account: Option<&Account>,
    ) -> Result<(), String> {
        let mut waits = [Phase::Undo, Phase::Do]
            .into_iter()
            .filter_map(|phase| instance.execution(phase).wait());
        match waits.next().map(|wait| &wait.on) {
            Some(WaitOn::Approval(request)) => {
                let name = who;
                may_vote(&self.started, request, Person { name, account })
            }
            Some(WaitOn::Timer(_) | WaitOn::Signal(_)) | None => {
                Err(format!("{} asks for no approval", instance.path))
            }
        }
    }

    pub(super) fn judge_vote(&self, submitted: &Submitted, node: &str, sent: Timestamp) -> Verdict {
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
        let phase = if instance.undo.stage() == Stage::AwaitingApproval {
            Phase::Undo
        } else {
            Phase::Do
        };
        let execution = instance.execution(phase);
        let (Stage::AwaitingApproval, Some(wait)) = (execution.stage(), execution.wait()) else {
            return Err(format!(
                "{node} is {}: it asks for no approval now",
                instance.state.as_str()
            ));
        };
        if self.is_cut_off(id, phase) {
            return Err(format!("{node} will not be decided: the run is ending"));
        }
        let WaitOn::Approval(request) = &wait.on else {
            return Err(format!("{node} asks for no approval"));
        };
        if *digest != self.started.digest {
            return Err(
                "the vote is for another plan: its digest is not the digest of this run".to_owned(),
            );
        }
        if *shown_hash != request.shown_hash {
            return Err(
                "the question shows something else now than the voter saw; read it and vote again"
                    .to_owned(),
            );
        }
        if let Some(deadline) = wait.deadline
            && sent > deadline
        {
            return Err(format!(
                "the question of {node} expired at {deadline:.0}; what follows from that is decided when the run is \
                 driven on"
            ));
        }
        let voter = Person {
            name: &submitted.who,
            account: submitted.account.as_ref(),
        };
        may_vote(&self.started, request, voter)?;
        let answers = if *approve {
            check_answers(request, answers)?
        } else {
            IndexMap::new()
        };
        let separated = request.separation_of_duties;
        // The question may have been asked again with another content: who answered that before has not answered this.
        let votes = || {
            let all = instance.votes.iter();
            all.filter(|vote| vote.shown_hash == request.shown_hash)
        };
        // As long as it is not decided a vote may be changed: people who answered differently would wait for ever.
        if let Some(before) = votes().find(|vote| Person::of(vote).is(voter, separated))
            && before.approve == *approve
            && before.answers == answers
        {
            return Err(match (&submitted.account, &before.account) {
                (Some(account), Some(_)) if before.who != submitted.who => format!(
                    "{} has voted already, as {}: one account has one vote, whatever it calls itself",
                    account.name, before.who
                ),
                _ => format!("{} has voted already", submitted.sender()),
            });
        }
        let vote = Vote {
            who: submitted.who.clone(),
            account: submitted.account.clone(),
            at: submitted.at,
            approve: *approve,
            answers,
            reason: reason.clone(),
            shown_hash: shown_hash.clone(),
        };
        let others = votes().filter(|vote| !Person::of(vote).is(voter, separated));
        let mut votes: Vec<Vote> = others.cloned().collect();
        votes.push(vote.clone());
        let mut doing = vec![EventBody::Voted(Box::new(Voted {
            node: instance.path.clone(),
            vote,
        }))];
        if let Some(decision) = decide_votes(request, &votes) {
            doing.push(EventBody::Awoken(Box::new(Awoken {
                node: instance.path.clone(),
                phase,
                by: Woken::Decision(decision),
            })));
        }
        Ok(doing)
    }
}

/// Whether two votes may be of one person.
pub(in crate::machine) fn same_voter(a: &Vote, b: &Vote, separated: bool) -> bool {
    Person::of(a).is(Person::of(b), separated)
}

/// Somebody who votes or starts a run.
#[derive(Clone, Copy)]
struct Person<'a> {
    /// As they call themselves.
    name: &'a str,
    account: Option<&'a Account>,
}

impl<'a> Person<'a> {
    fn of(vote: &'a Vote) -> Self {
        Self {
            name: &vote.who,
            account: vote.account.as_ref(),
        }
    }

    /// Whether both may be one person.
    ///
    /// With separation of duties the accounts alone decide: a claimed name neither makes two people of one account nor
    /// takes the vote away from the one whose name it is. Without it a name is believed, so the same name is the same
    /// person too. If an account is missing (a journal of before they were kept), names are all that there is.
    fn is(self, other: Self, separated: bool) -> bool {
        match (self.account, other.account) {
            (Some(a), Some(b)) => a.is(b) || !separated && self.name == other.name,
            (Some(a), None) => other.name == self.name || other.name == a.name,
            (None, Some(b)) => self.name == other.name || self.name == b.name,
            (None, None) => self.name == other.name,
        }
    }
}

fn may_vote(
    started: &RunStarted,
    request: &ApprovalRequest,
    voter: Person<'_>,
) -> Result<(), String> {
    let shown = crate::step::shown(voter.name, voter.account);
    let starter = Person {
        name: &started.run.by,
        account: started.run.account.as_ref(),
    };
    if request.separation_of_duties && starter.is(voter, true) {
        let who = match voter.account {
            Some(account) if account.name != voter.name => &account.name,
            Some(_) | None => voter.name,
        };
        return Err(format!(
            "{who} started this run and may not vote on it (separation_of_duties)"
        ));
    }
    if request.groups.is_empty() {
        return Ok(());
    }
    let groups = request.groups.join(", ");
    let is_member = |name: &str| {
        let mut members = request
            .groups
            .iter()
            .filter_map(|group| started.approvers.get(group))
            .flatten();
        members.any(|member| member == name)
    };
    match voter.account {
        Some(account) if is_member(&account.name) => Ok(()),
        Some(account) if is_member(voter.name) && request.separation_of_duties => Err(format!(
            "{shown} may not vote: with separation_of_duties the account of the operating system counts, and {} is in \
             none of the groups that may vote ({groups})",
            account.name
        )),
        Some(_) | None if is_member(voter.name) => Ok(()),
        Some(_) | None => Err(format!(
            "{shown} is in none of the groups that may vote ({groups})"
        )),
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
                    "the number of chosen options is {}; it must be between {min} and {max}",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{journal::conformance::started as first, machine::EventBody};
    use proptest::prelude::*;
    use std::{collections::BTreeSet, sync::Arc};

    fn account(uid: u32) -> Account {
        Account {
            name: format!("user{uid}"),
            uid,
            host: "here".to_owned(),
        }
    }

    fn request(groups: &[&str], quorum: u32, separated: bool) -> ApprovalRequest {
        ApprovalRequest {
            prompt: "Go on?".to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            quorum,
            separation_of_duties: separated,
            show: Value::Null,
            shown_hash: "h".to_owned(),
            ask: IndexMap::new(),
        }
    }

    fn run(by: &str, account: Option<Account>, dba: &[String]) -> RunStarted {
        let graph = crate::journal::conformance::graph("steps: []");
        let EventBody::RunStarted(mut started) = first("r1", &Arc::clone(&graph)).body else {
            panic!("a run begins with its start");
        };
        started.run.by = by.to_owned();
        started.run.account = account;
        started.approvers = IndexMap::from([("dba".to_owned(), dba.to_vec())]);
        *started
    }

    fn person<'a>(name: &'a str, account: Option<&'a Account>) -> Person<'a> {
        Person { name, account }
    }

    #[test]
    fn a_claimed_name_opens_no_group_that_separates_duties() {
        let (one, two) = (account(1), account(2));
        let run = run(
            "user1",
            Some(one.clone()),
            &["ana".to_owned(), "user2".to_owned()],
        );
        let separated = request(&["dba"], 1, true);
        let refused = may_vote(&run, &separated, person("ana", Some(&account(3)))).unwrap_err();
        assert!(
            refused.contains("ana (account user3) may not vote"),
            "{refused}"
        );
        assert_eq!(
            may_vote(&run, &separated, person("anything", Some(&two))),
            Ok(())
        );
        let refused = may_vote(&run, &separated, person("ana", Some(&one))).unwrap_err();
        assert!(refused.contains("user1 started this run"), "{refused}");
        // Without separation of duties the name is believed.
        let open = request(&["dba"], 1, false);
        assert_eq!(may_vote(&run, &open, person("ana", Some(&one))), Ok(()));
        assert!(may_vote(&run, &open, person("eve", Some(&one))).is_err());
    }

    #[test]
    fn journals_of_before_accounts_compare_names() {
        let run = run("ana", None, &["ana".to_owned(), "bruno".to_owned()]);
        let separated = request(&["dba"], 2, true);
        assert!(may_vote(&run, &separated, person("ana", None)).is_err());
        assert_eq!(may_vote(&run, &separated, person("bruno", None)), Ok(()));
        let bruno = Account {
            name: "bruno".to_owned(),
            ..account(7)
        };
        assert!(person("bruno", None).is(person("x", Some(&bruno)), true));
        assert!(person("x", Some(&bruno)).is(person("bruno", None), true));
    }

    #[test]
    fn what_was_stored_before_accounts_is_read() {
        let read = |text: &str| serde_json::from_str::<EventBody>(text).unwrap();
        let vote = r#"{"voted":{"node":"a","vote":{"who":"ana","at":"2026-01-01T00:00:00Z","approve":true,"shown_hash":"h"}}}"#;
        let taken = r#"{"command_accepted":{"id":"c","who":"ana","sent":"2026-01-01T00:00:00Z","command":"unpause"}}"#;
        let lease = r#"{"lease_taken":{"epoch":2,"holder":{"user":"ana","host":"h","pid":1,"since":"2026-01-01T00:00:00Z"}}}"#;
        let (
            EventBody::Voted(voted),
            EventBody::CommandAccepted(taken),
            EventBody::LeaseTaken(lease),
        ) = (read(vote), read(taken), read(lease))
        else {
            panic!("other events");
        };
        assert_eq!(
            (voted.vote.account.as_ref(), voted.vote.voter()),
            (None, "ana".to_owned())
        );
        assert_eq!(
            (taken.account.as_ref(), taken.sender()),
            (None, "ana".to_owned())
        );
        assert_eq!(
            (lease.holder.account.as_ref(), lease.holder.who()),
            (None, "ana".to_owned())
        );
    }

    #[test]
    fn a_claim_does_not_take_another_persons_vote_away() {
        let (eve, root) = (
            account(2),
            Account {
                name: "root".to_owned(),
                ..account(0)
            },
        );
        assert!(!person("root", Some(&eve)).is(person("root", Some(&root)), true));
        assert!(person("root", Some(&eve)).is(person("root", Some(&root)), false));
    }

    proptest! {
        /// Whatever people call themselves, the votes that count are of different accounts, none of them the starter's,
        /// all of them in the group: counted here by sets of numbers, which never look at a name that was claimed.
        #[test]
        fn names_never_make_a_quorum(
            starter in 0..5_u32,
            claims in prop::collection::vec((0..5_u32, "[ -~]{0,8}|user[0-4]"), 0..12),
            members in prop::collection::btree_set(0..5_u32, 0..5),
            quorum in 1..4_u32,
        ) {
            let names: Vec<String> = members.iter().map(|uid| format!("user{uid}")).collect();
            let run = run("claimed", Some(account(starter)), &names);
            let request = request(&["dba"], quorum, true);
            let mut votes: Vec<Vote> = Vec::new();
            let mut counted: BTreeSet<u32> = BTreeSet::new();
            for (uid, name) in &claims {
                let account = account(*uid);
                let voter = person(name, Some(&account));
                let refused = may_vote(&run, &request, voter).is_err()
                    || votes.iter().any(|vote| Person::of(vote).is(voter, true));
                let expected = *uid != starter && members.contains(uid) && counted.insert(*uid);
                prop_assert_eq!(!refused, expected, "{} as {}", name, uid);
                if refused {
                    continue;
                }
                votes.push(Vote {
                    who: name.clone(),
                    account: Some(account.clone()),
                    at: run.run.started_at,
                    approve: true,
                    answers: IndexMap::new(),
                    reason: None,
                    shown_hash: "h".to_owned(),
                });
                let decided = decide_votes(&request, &votes).is_some();
                prop_assert_eq!(decided, counted.len() >= quorum as usize);
            }
        }
    }
}
