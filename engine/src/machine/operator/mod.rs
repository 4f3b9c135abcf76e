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

pub(super) use vote::same_voter;

pub use command::{Command, Submitted};

use super::{
    core::{IllegalEvent, Machine},
    event::*,
    execution::Stage,
    state::{InstanceId, Role},
    tree::ROOT,
};
use crate::{
    graph::{InputDecl, NodeId, readers},
    step::Phase,
    value::Timestamp,
};
use indexmap::IndexMap;

/// The events that a command causes, or why it is refused.
type Verdict = Result<Vec<EventBody>, String>;

/// Why a command is refused whose events the machine would not apply. The rules refuse all such commands before, each with its
/// own reason: one that comes to this is a defect, from which no run dies.
pub const CANNOT_BE_DONE: &str = "it cannot be done now";

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
        let bodies = match self.verdict(submitted, now) {
            Ok(doing) => {
                let mut bodies = vec![EventBody::CommandAccepted(Box::new(CommandTaken {
                    id,
                    who,
                    account,
                    sent,
                    command,
                }))];
                bodies.extend(doing);
                bodies
            }
            Err(reason) => {
                vec![EventBody::CommandRefused(Box::new(CommandRefused {
                    id,
                    who,
                    account,
                    sent,
                    command,
                    reason,
                }))]
            }
        };
        bodies.into_iter().map(|body| Event { at, body }).collect()
    }

    /// The run as its next driver finds it: what was in flight is lost, and doubts are asked about once more.
    ///
    /// # Errors
    /// Never: an error is a defect of the engine.
    pub fn taken_over(&self) -> Result<Self, IllegalEvent> {
        let mut ahead = self.clone();
        if ahead.finished.is_none() {
            ahead.begin_epoch(self.epoch + 1)?;
            ahead.refresh();
        }
        Ok(ahead)
    }

    /// The run as its driver finds it after it has taken these orders, each at its own time.
    ///
    /// # Errors
    /// Never: an error is a defect of the engine.
    pub fn after_orders<'a>(
        &self,
        orders: impl IntoIterator<Item = &'a Submitted>,
    ) -> Result<Self, IllegalEvent> {
        let mut ahead = self.clone();
        let mut sent = Timestamp::MIN;
        for order in orders {
            // In the order in which they came, whatever the clocks of those who sent them say.
            sent = sent.max(order.at);
            ahead.wake(sent)?;
            for event in ahead.command(order, sent) {
                ahead.apply(&event)?;
            }
        }
        Ok(ahead)
    }

    /// Whether a command would be taken now.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn accepts(&self, submitted: &Submitted, now: Timestamp) -> Result<(), String> {
        self.verdict(submitted, now).map(drop)
    }

    /// A command is judged, and then tried: one whose events could not be applied is refused before anything is written.
    /// Otherwise the run would die of it each time that it is loaded. `sent` is in the time of the run.
    fn verdict(&self, submitted: &Submitted, sent: Timestamp) -> Verdict {
        let doing = self.judge(submitted, sent)?;
        let at = sent.max(self.last_at);
        // Votes and signals add, or wake what sleeps, which can always be done; they come by the thousand, and a copy of the
        // machine is as large as the run.
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
                .map_err(|error| format!("{CANNOT_BE_DONE}: {error}"))?;
        }
        self.check_retry(submitted, &tried, at)?;
        Ok(doing)
    }

    fn judge(&self, submitted: &Submitted, sent: Timestamp) -> Verdict {
        // What the events below keep is text for people; only a vote asks who somebody is.
        let sender = submitted.sender();
        let who = sender.as_str();
        if let Some(finished) = &self.finished {
            let may_follow = match &submitted.command {
                Command::Undo | Command::Close { .. } => true,
                // With another input a retry may succeed.
                Command::Retry { .. }
                | Command::Skip { .. }
                | Command::Resolve { .. }
                | Command::SetInput { .. } => {
                    if let Some(closed) = &self.closed {
                        return Err(format!("{} has closed the run", closed.who));
                    }
                    finished.outcome == Outcome::Stopped
                }
                Command::Vote { .. }
                | Command::Signal { .. }
                | Command::Pause { .. }
                | Command::Unpause
                | Command::Cancel { .. } => false,
            };
            if !may_follow {
                let is_undo = matches!(&submitted.command, Command::Cancel { undo: true, .. });
                let undoes = if is_undo && self.something_to_undo().is_ok() {
                    "; `undo` undoes what it did"
                } else {
                    ""
                };
                return Err(format!("the run is over: {}{undoes}", self.word()));
            }
        }
        match &submitted.command {
            Command::Vote { node, .. } => self.judge_vote(submitted, node, sent),
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

    /// The step, group, call or loop at a path that a person typed.
    ///
    /// # Errors
    /// That it is not there, and what is spelled alike.
    pub fn named(&self, node: &str) -> Result<InstanceId, String> {
        // What a loop no longer has among its items is out of the run.
        let listed = |id: &InstanceId| *id != ROOT && self.is_listed(*id);
        self.id_of(node).filter(listed).ok_or_else(|| {
            let paths = self.instances().map(|instance| instance.path.as_ref());
            match crate::diagnostic::nearest(node, paths) {
                Some(near) => format!("there is no step {node:?}; did you mean {near:?}?"),
                None => format!("there is no step {node:?}"),
            }
        })
    }

    /// Whether the step or input that a command names is there.
    ///
    /// # Errors
    /// That it is not, and what is spelled alike.
    pub fn names(&self, command: &Command) -> Result<(), String> {
        match command {
            Command::Retry { node }
            | Command::Skip { node, .. }
            | Command::Resolve { node, .. }
            | Command::Vote { node, .. } => self.named(node).map(drop),
            Command::SetInput { name, .. } => self.input_named(name).map(drop),
            Command::Signal { .. }
            | Command::Pause { .. }
            | Command::Unpause
            | Command::Cancel { .. }
            | Command::Undo
            | Command::Close { .. } => Ok(()),
        }
    }

    fn input_named(&self, name: &str) -> Result<&InputDecl, String> {
        let inputs = &self.graph.root.inputs;
        inputs.get(name).ok_or_else(|| {
            let near = crate::diagnostic::nearest(name, inputs.keys().map(String::as_str));
            match near {
                Some(near) => format!("there is no input {name:?}; did you mean {near:?}?"),
                None => format!("there is no input {name:?}"),
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
                "{0} failed, and the run waits for an answer: `retry`, `resolve` or `skip` it, or `cancel` the run",
                failed.path
            )),
            None => Err("it is not paused".to_owned()),
        }
    }

    /// What people approved, or are asked to, is what they were shown: an input cannot be changed under it that the question reads, or
    /// something behind it that is not done.
    fn no_approval_covers(&self, input: &str) -> Result<(), String> {
        for approval in self.tree.ids() {
            let at = self.get(approval);
            // What may not be passed over is asked, or checked, with the values that it started with; behind its gate it has none yet.
            let judges = self
                .tree
                .step(approval)
                .is_some_and(|step| !step.action.traits.skippable);
            let stage = self.tree.stage(approval, Phase::Do);
            let asks = stage == Stage::AwaitingApproval
                || judges && matches!(stage, Stage::Running | Stage::Waiting);
            let Some(def) = at.def.filter(|_| asks || !at.votes.is_empty()) else {
                continue;
            };
            if self.tree.finally_of(approval).is_some() || at.scope != ROOT {
                continue;
            }
            let behind = self.graph.behind(def).into_iter();
            let mut readers = asks
                .then_some(def)
                .into_iter()
                .chain(behind.filter(|node| !self.is_done(*node)))
                .filter(|node| readers::reads_input(&self.graph, *node, input));
            if let Some(reader) = readers.next() {
                let (asked, reader) = (&at.path, self.graph.static_path(reader));
                return Err(format!(
                    "{reader} reads {input}, and {asked} was asked for with its value: a change would not be what was approved; \
                     `cancel` the run and start it with the other value"
                ));
            }
        }
        Ok(())
    }

    /// What people were shown of a step's output, and are asked about or have approved, stays as it was shown.
    pub(super) fn not_shown(&self, id: InstanceId) -> Result<(), String> {
        let Some(def) = self.get(id).def else {
            return Ok(());
        };
        let read = readers::of(&self.graph, def);
        for approval in self.tree.ids() {
            let at = self.get(approval);
            let asks = self.tree.stage(approval, Phase::Do) == Stage::AwaitingApproval;
            let (Some(asked), true) = (at.def, asks || !at.votes.is_empty()) else {
                continue;
            };
            let shows = read.iter().any(|reader| reader.node == Some(asked));
            let acts = |node: &NodeId| !self.is_done(*node);
            if shows && (asks || self.graph.behind(asked).iter().any(acts)) {
                return Err(format!(
                    "{} shows the output of {}: another one would not be what was approved; `reject` it, or `cancel` the run",
                    at.path,
                    self.get(id).path
                ));
            }
        }
        Ok(())
    }

    /// Whether every instance of a node has succeeded, or was skipped: what failed, or has not opened yet, may still run.
    fn is_done(&self, node: NodeId) -> bool {
        let of_node = |id: &InstanceId| self.get(*id).def == Some(node);
        let mut all = self.tree.ids().filter(of_node).peekable();
        let done = |id| {
            matches!(
                self.tree.stage(id, Phase::Do),
                Stage::Succeeded | Stage::Skipped
            )
        };
        all.peek().is_some() && all.all(done)
    }

    /// What undoes an act, or tells whether it happened, must mean what the act meant.
    fn nothing_acted_by(&self, input: &str) -> Result<(), String> {
        for id in self.tree.ids() {
            let at = self.get(id);
            let Some(def) = at.def.filter(|_| at.scope == ROOT && at.role == Role::Step) else {
                continue;
            };
            let open =
                at.took_effect || at.forward.stage().is_active() || at.undo.stage().is_active();
            if open && readers::reads_input_later(&self.graph, def, input) {
                return Err(format!(
                    "{0} has acted, or runs, by {input}, and its undo or its probe reads it: with another value they would be about \
                     something else; `cancel` the run and start it with the other value",
                    at.path
                ));
            }
        }
        Ok(())
    }

    fn judge_input(&self, name: &str, value: &str, who: &str) -> Verdict {
        let decl = self.input_named(name)?;
        self.no_approval_covers(name)?;
        self.nothing_acted_by(name)?;
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
