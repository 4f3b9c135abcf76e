//! What people ask of a run, and what it does: events, or a refusal with its reason.
//!
//! | file | what |
//! |---|---|
//! | `command.rs` | what may be asked, as it comes through the inbox |
//! | `answer.rs` | `retry`, `skip`, `resolve`: an answer to what failed, is in doubt or waits |
//! | `end.rs` | `cancel`, `undo`, `close` |
//! | `vote.rs` | `approve`, `reject` |
mod answer;
mod command;
mod end;
mod vote;

pub use command::{Command, Submitted};

use super::{core::Machine, event::*, state::InstanceId, tree::ROOT};
use crate::value::Timestamp;
use indexmap::IndexMap;

/// The events that a command causes, or why it is refused.
type Verdict = Result<Vec<EventBody>, String>;

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
        let bodies = match self.verdict(submitted, at) {
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

    /// Whether a command would be taken now.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn accepts(&self, submitted: &Submitted, now: Timestamp) -> Result<(), String> {
        self.verdict(submitted, now.max(self.last_at)).map(drop)
    }

    /// A command is judged, and then tried: one whose events could not be applied is refused before anything is written.
    /// Otherwise the run would die of it each time that it is loaded.
    fn verdict(&self, submitted: &Submitted, at: Timestamp) -> Verdict {
        let doing = self.judge(submitted)?;
        // Votes and signals only add; they come by the thousand, and a copy of the machine is as large as the run.
        if matches!(
            submitted.command,
            Command::Vote { .. } | Command::Signal { .. }
        ) {
            return Ok(doing);
        }
        let mut tried = self.clone();
        for body in &doing {
            let event = Event {
                at,
                body: body.clone(),
            };
            tried
                .apply(&event)
                .map_err(|error| format!("it cannot be done now: {error}"))?;
        }
        self.check_retry(submitted, &tried, at)?;
        Ok(doing)
    }

    fn judge(&self, submitted: &Submitted) -> Verdict {
        // What the events below keep is text for people; only a vote asks who somebody is.
        let sender = submitted.sender();
        let who = sender.as_str();
        if let Some(finished) = &self.finished {
            let may_reopen = match &submitted.command {
                Command::Undo | Command::Close { .. } => true,
                Command::Retry { .. } | Command::Skip { .. } | Command::Resolve { .. } => {
                    if let Some(closed) = &self.closed {
                        return Err(format!("{} has closed the run", closed.who));
                    }
                    finished.outcome == Outcome::Stopped
                }
                Command::Vote { .. }
                | Command::Signal { .. }
                | Command::Pause { .. }
                | Command::Unpause
                | Command::Cancel { .. }
                | Command::SetInput { .. } => false,
            };
            if !may_reopen {
                return Err(format!("the run is over: {}", finished.outcome.as_str()));
            }
        }
        match &submitted.command {
            Command::Vote { node, .. } => self.judge_vote(submitted, node),
            Command::Signal { name, payload } => Ok(vec![EventBody::Signalled(Signalled {
                name: name.clone(),
                payload: payload.clone(),
            })]),
            Command::Pause { because } => self.judge_pause(who, because.as_deref()),
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
            } => self.judge_resolve(node, *done, output, who, because),
            Command::Retry { node } => self.judge_retry(node, who),
            Command::Skip {
                node,
                output,
                because,
            } => self.judge_skip(node, output, because, who),
            Command::SetInput { name, value } => self.judge_input(name, value, who),
            Command::Undo => self.judge_undo(who),
            Command::Close { because } => self.judge_close(who, because),
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

    fn judge_pause(&self, who: &str, because: Option<&str>) -> Verdict {
        if let Some(paused) = &self.paused {
            let by = paused.who.as_deref().unwrap_or_default();
            return Err(format!("it is paused already, by {by}"));
        }
        Ok(vec![EventBody::Paused(Paused {
            who: Some(who.to_owned()),
            why: because.unwrap_or("no reason given").to_owned(),
            node: None,
        })])
    }

    fn judge_unpause(&self, who: &str) -> Verdict {
        if self.paused.is_some() {
            return Ok(vec![EventBody::Unpaused(Unpaused {
                who: who.to_owned(),
            })]);
        }
        match self.questions().next() {
            Some(failed) => Err(format!(
                "{0} failed, and the run waits for an answer: `retry` it, `skip` it, or `cancel` the run",
                failed.path
            )),
            None => Err("it is not paused".to_owned()),
        }
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
}
