//! Which transitions of the table, which events and which commands were seen.
use super::adapter;
use std::collections::BTreeMap;
use windlass_engine::{
    machine::{Event, EventBody, SkipCause, Stage, Trigger},
    step::Phase,
};

/// How often each was seen.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    /// Stage and trigger, forward and undo, by name.
    pub pairs: BTreeMap<(String, String), [u64; 2]>,
    /// Event types by their stored names.
    pub events: BTreeMap<String, u64>,
    /// Commands by name and answer.
    pub commands: BTreeMap<(String, bool), u64>,
    /// How the runs ended.
    pub outcomes: BTreeMap<String, u64>,
    /// How often the process died.
    pub crashes: u64,
}

impl Coverage {
    /// Adds what another run has seen.
    pub fn add(&mut self, other: &Self) {
        for (pair, counts) in &other.pairs {
            let own = self.pairs.entry(pair.clone()).or_default();
            own.iter_mut().zip(counts).for_each(|(own, n)| *own += n);
        }
        for (name, n) in &other.events {
            *self.events.entry(name.clone()).or_default() += n;
        }
        for (name, n) in &other.commands {
            *self.commands.entry(name.clone()).or_default() += n;
        }
        for (name, n) in &other.outcomes {
            *self.outcomes.entry(name.clone()).or_default() += n;
        }
        self.crashes += other.crashes;
    }

    /// Pairs of the table that were never seen in a phase, as `Stage Trigger do`.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (stage, trigger) in adapter::table() {
            let key = (format!("{stage:?}"), format!("{trigger:?}"));
            let seen = self.pairs.get(&key).copied().unwrap_or_default();
            for (name, n) in ["do", "undo"].iter().zip(seen) {
                if n == 0 {
                    missing.push(format!("{} {} {name}", key.0, key.1));
                }
            }
        }
        missing
    }

    /// The events that were never seen.
    #[must_use]
    pub fn missing_events(&self) -> Vec<&'static str> {
        EVENTS
            .iter()
            .copied()
            .filter(|name| !self.events.contains_key(*name))
            .collect()
    }

    /// As a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from("transition                          do       undo\n");
        for ((stage, trigger), [forward, undo]) in &self.pairs {
            text += &format!(
                "{:<32}{forward:>8} {undo:>8}\n",
                format!("{stage} {trigger}")
            );
        }
        text += "\nevent\n";
        for (name, n) in &self.events {
            text += &format!("{name:<32}{n:>8}\n");
        }
        text += "\ncommand (accepted, refused)\n";
        let mut commands: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
        for ((name, accepted), n) in &self.commands {
            commands.entry(name).or_default()[usize::from(!accepted)] += n;
        }
        for (name, [yes, no]) in commands {
            text += &format!("{name:<32}{yes:>8} {no:>8}\n");
        }
        text += &format!("\noutcomes {:?}\ncrashes {}\n", self.outcomes, self.crashes);
        text
    }

    /// The transition that an event is.
    pub(super) fn pair(
        event: &Event,
        stage: impl Fn(&str, Phase) -> Option<Stage>,
    ) -> Option<(Stage, Trigger, Phase)> {
        let (node, phase, trigger) = trigger(&event.body)?;
        Some((stage(node, phase)?, trigger, phase))
    }

    /// An event was applied.
    pub(super) fn see(&mut self, event: &Event, pair: Option<(Stage, Trigger, Phase)>) {
        *self
            .events
            .entry(adapter::event_name(&event.body))
            .or_default() += 1;
        if let Some((stage, trigger, phase)) = pair {
            let key = (format!("{stage:?}"), format!("{trigger:?}"));
            self.pairs.entry(key).or_default()[usize::from(phase == Phase::Undo)] += 1;
        }
    }
}

/// Every event that this simulation should see.
const EVENTS: [&str; 35] = [
    "lease_taken",
    "expanded",
    "started",
    "captured",
    "marked",
    "progressed",
    "suspended",
    "awoken",
    "succeeded",
    "failed",
    "retry_scheduled",
    "gated",
    "withdrawn",
    "window_closed",
    "clock_stepped",
    "skipped",
    "doubted",
    "probed",
    "voted",
    "signalled",
    "command_accepted",
    "command_refused",
    "resolved",
    "retry_ordered",
    "input_edited",
    "paused",
    "unpaused",
    "cancelled",
    "overran",
    "compensation_started",
    "cleanup_started",
    "finally_started",
    "finished",
    "reopened",
    "closed",
];

/// What an event does to an execution.
fn trigger(body: &EventBody) -> Option<(&str, Phase, Trigger)> {
    use EventBody as B;
    Some(match body {
        B::Expanded(e) => (&e.node, Phase::Do, Trigger::Note),
        B::Started(e) => (&e.node, e.phase, Trigger::Start),
        B::Captured(e) => (&e.node, e.phase, Trigger::Note),
        B::Marked(e) => (&e.node, e.phase, Trigger::Note),
        B::Progressed(e) => (&e.node, e.phase, Trigger::Note),
        B::Suspended(e) => (&e.node, e.phase, Trigger::Suspend),
        B::Awoken(e) => (&e.node, e.phase, Trigger::Wake),
        B::Succeeded(e) => (&e.node, e.phase, Trigger::Succeed),
        B::Failed(e) if e.is_final => (&e.node, e.phase, Trigger::Fail),
        B::Failed(e) => (&e.node, e.phase, Trigger::FailAttempt),
        B::RetryScheduled(e) => (&e.node, e.phase, Trigger::Retry),
        B::Gated(e) => (&e.node, Phase::Do, Trigger::Gate),
        B::WindowClosed(e) => (&e.node, Phase::Do, Trigger::Shut),
        B::Skipped(e) if e.why == SkipCause::Ended => (&e.node, e.phase, Trigger::End),
        B::Skipped(e) => (&e.node, e.phase, Trigger::Skip),
        B::Doubted(e) => (&e.node, e.phase, Trigger::Doubt),
        B::Probed(e) => (&e.node, e.phase, Trigger::Probe),
        B::Resolved(e) if e.done => (&e.node, e.phase, Trigger::ResolveDone),
        B::Resolved(e) => (&e.node, e.phase, Trigger::ResolveNotDone),
        B::RetryOrdered(e) => (&e.node, e.phase, Trigger::OrderRetry),
        _ => return None,
    })
}
