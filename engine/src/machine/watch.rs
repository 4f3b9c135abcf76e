//! `max_duration` of a run and of each playbook that is called: for how long steps have run in it. Approvals and waits are not counted.
use super::{
    core::{IllegalEvent, Machine},
    event::{EventBody, Overran},
    state::InstanceId,
    tree::ROOT,
};
use crate::{
    graph::Body,
    value::{Duration, Timestamp},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watch {
    /// How many steps run in the scope, at any depth.
    pub busy: u32,
    /// Since when, if any does.
    since: Timestamp,
    /// What ran before that.
    total: Duration,
    /// The time was over; the scope ends.
    pub overran: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            busy: 0,
            since: Timestamp::MIN,
            total: Duration::ZERO,
            overran: false,
        }
    }
}

impl Watch {
    /// Whoever orders the scope to continue gives it its time again.
    pub(super) fn again(&mut self) {
        if std::mem::take(&mut self.overran) {
            self.total = Duration::ZERO;
        }
    }

    /// The time in which no process drove the run does not count; what ran until the last event before it does.
    fn passes_over(&mut self, from: Timestamp, to: Timestamp) {
        self.add(from);
        self.since = to;
    }

    fn add(&mut self, until: Timestamp) {
        let passed = Duration::between(self.since, until).as_millis().max(0);
        let total = self.total.as_millis().saturating_add(passed);
        self.total = Duration::from_millis(total);
    }

    /// A step begins to run, or ends.
    fn count(&mut self, ends: bool, now: Timestamp) -> Option<()> {
        if ends {
            self.busy = self.busy.checked_sub(1)?;
            if self.busy == 0 {
                self.add(now);
            }
            return Some(());
        }
        if self.busy == 0 {
            self.since = now;
        }
        self.busy = self.busy.checked_add(1)?;
        Some(())
    }
}

impl Machine {
    pub(super) fn limit_of(&self, scope: InstanceId) -> Option<Duration> {
        if scope == ROOT {
            return self.graph.policy.max_duration;
        }
        match self.def(scope).map(|node| &node.body) {
            Some(Body::Call(call)) => call.max_duration,
            Some(Body::Step(_) | Body::Group { .. }) | None => None,
        }
    }

    /// A step begins to run, or ends: the watches of the scopes around it count.
    pub(super) fn count_busy(&mut self, step: InstanceId, ends: bool) -> Option<()> {
        let now = self.last_at;
        for scope in self.tree.scopes_around(step).collect::<Vec<_>>() {
            if self.limit_of(scope).is_none() {
                continue;
            }
            let watch = &mut self.scopes.get_mut(&scope)?.watch;
            watch.count(ends, now)?;
            if watch.busy == 0 {
                self.watching.remove(&scope);
            } else {
                self.watching.insert(scope);
            }
        }
        Some(())
    }

    pub(super) fn watches_pass_over(&mut self, from: Timestamp) {
        for scope in &self.watching {
            if let Some(state) = self.scopes.get_mut(scope) {
                state.watch.passes_over(from, self.last_at);
            }
        }
    }

    /// When the time of a scope is over, as long as steps run in it.
    fn overruns(&self) -> impl Iterator<Item = (Timestamp, InstanceId, Duration)> {
        self.watching.iter().filter_map(|scope| {
            let (watch, limit) = (&self.scopes.get(scope)?.watch, self.limit_of(*scope)?);
            if watch.overran || !self.goes_forward(*scope) {
                return None;
            }
            let left = limit.as_millis().saturating_sub(watch.total.as_millis());
            let at = Duration::from_millis(left.max(0)).after(watch.since);
            Some((at, *scope, limit))
        })
    }

    pub(super) fn overrun_at(&self) -> Option<Timestamp> {
        self.overruns().map(|(at, ..)| at).min()
    }

    pub(super) fn next_overrun(&self, now: Timestamp) -> Option<EventBody> {
        let (_, scope, limit) = self.overruns().find(|(at, ..)| *at <= now)?;
        Some(EventBody::Overran(Overran {
            limit,
            scope: self.get(scope).path.clone(),
        }))
    }

    pub(super) fn on_overran(&mut self, e: &Overran) -> Result<(), IllegalEvent> {
        let scope = self.find(&e.scope)?;
        match self.scopes.get_mut(&scope) {
            Some(state) => state.watch.overran = true,
            None => return Err(self.misplaced("only a playbook has a max_duration")),
        }
        self.touch_inside(scope);
        Ok(())
    }
}
