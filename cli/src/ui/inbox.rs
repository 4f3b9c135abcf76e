//! What waits in a run's inbox, and what was refused.
use super::{Style, again, elapsed, one_line, stamp, words};
use crate::error::short;
use serde_json::{Value as Json, json};
use windlass_engine::{
    machine::{CommandRefused, Event, EventBody, Holder, Machine, Submitted},
    value::Timestamp,
};

/// How many refusals are shown.
const LAST: usize = 3;

/// What people asked of a run and it has not done.
pub(crate) struct Inbox {
    /// Oldest first.
    waiting: Vec<Submitted>,
    /// The last few, oldest first.
    refused: Vec<(Timestamp, CommandRefused)>,
    /// How many were refused before those.
    earlier: usize,
}

impl Inbox {
    /// From the journal's inbox and the run's events.
    pub(crate) fn new(waiting: Vec<Submitted>, events: &[Event]) -> Self {
        let mut all = events.iter().rev().filter_map(|event| match &event.body {
            EventBody::CommandRefused(refused) => Some((event.at, refused)),
            _ => None,
        });
        let last = all.by_ref().take(LAST);
        let mut refused: Vec<_> = last.map(|(at, one)| (at, (**one).clone())).collect();
        refused.reverse();
        Self {
            waiting,
            refused,
            earlier: all.count(),
        }
    }

    /// The run as whoever takes what waits will find it; `None` if nothing waits.
    pub(crate) fn taken(&self, machine: &Machine) -> Option<Machine> {
        // An event that does not fit is a defect of the engine, which the process that drives the run reports.
        (!self.waiting.is_empty())
            .then(|| machine.after_orders(&self.waiting).ok())
            .flatten()
    }

    /// The command that takes what waits, if something waits and no process does.
    pub(crate) fn taken_by(&self, run: &str, holder: Option<&Holder>) -> Option<String> {
        (!self.waiting.is_empty() && holder.is_none())
            .then(|| again::command(&format!("windlass resume {}", short(run))))
    }

    /// As lines under headings; empty if there is nothing.
    pub(crate) fn render(
        &self,
        run: &str,
        holder: Option<&Holder>,
        now: Timestamp,
        style: Style,
    ) -> String {
        let mut text = String::new();
        if !self.waiting.is_empty() {
            text.push_str(&format!("{}\n", style.bold("inbox")));
            for command in &self.waiting {
                text.push_str(&format!(
                    "  {} by {}, waits since {} ({})\n",
                    style.bold(&words::command(&command.command)),
                    one_line(&command.sender()),
                    stamp(command.at),
                    elapsed(command.at, now),
                ));
            }
            text.push_str(&match (holder, self.taken_by(run, holder)) {
                (Some(holder), _) => {
                    format!("  {} drives the run and takes it\n", words::driver(holder))
                }
                (None, Some(command)) => format!(
                    "  no process drives the run; this takes it: {}\n",
                    style.cyan(&command)
                ),
                (None, None) => String::new(),
            });
        }
        if !self.refused.is_empty() {
            let earlier = match self.earlier {
                0 => String::new(),
                n => format!(", and {n} earlier"),
            };
            text.push_str(&format!("{}{earlier}\n", style.bold("refused")));
            for (at, refused) in &self.refused {
                text.push_str(&format!(
                    "  {}  {} by {}: {}\n",
                    style.dim(&stamp(*at)),
                    words::command(&refused.command),
                    one_line(&refused.sender()),
                    one_line(&refused.reason),
                ));
            }
        }
        text
    }

    /// What waits, as JSON.
    pub(crate) fn waiting_json(&self, run: &str, holder: Option<&Holder>) -> Json {
        let taken_by = self.taken_by(run, holder);
        let entries = self.waiting.iter().map(|command| {
            json!({
                "id": command.id,
                "command": command.command,
                "words": words::command(&command.command),
                "who": command.who,
                "account": command.account,
                "since": command.at,
                "taken_by": taken_by,
            })
        });
        entries.collect()
    }

    /// What was refused, as JSON.
    pub(crate) fn refused_json(&self) -> Json {
        let entries = self.refused.iter().map(|(at, refused)| {
            json!({
                "id": refused.id,
                "command": refused.command,
                "words": words::command(&refused.command),
                "who": refused.who,
                "account": refused.account,
                "sent": refused.sent,
                "at": at,
                "reason": refused.reason,
            })
        });
        entries.collect()
    }
}
