//! What is due: one ordered list, in which a node has at most one line for each of its executions.
//!
//! A line follows from the node and what is around it (`due`), and is found anew whenever one of these may have changed
//! (`touch`). Nothing else is kept: what may start, what sleeps, what is lost, what runs are ranks of this list.
use super::{
    core::{Machine, ScopePhase},
    execution::{Asked, At, Stage},
    state::{InstanceId, Role, Wanted, Work},
};
use crate::{
    step::{Phase, WaitOn},
    value::Timestamp,
};
use std::collections::BTreeSet;

/// Why a node is on the list. The first twelve ask for an event; the others are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Rank {
    /// A driver left it behind.
    Lost,
    /// A doubt that turned out as "not done".
    NotDone,
    /// A failure for which the run pauses.
    Asks,
    /// A foreach without its items, or a container whose inside has settled.
    Closing,
    /// A scope that may turn to its next phase.
    Scope,
    /// A signal is there.
    Signal,
    /// The next attempt, after its delay.
    Retry,
    /// At its time.
    Timer,
    /// Asleep in a scope that ends; or its turn is given back.
    Sleeper,
    /// May start although failures ask: a person ordered it.
    Ordered,
    /// May start.
    Ready,
    /// May be undone.
    Undo,
    /// In flight.
    Runs,
    /// In flight: its probe.
    Probed,
    /// In flight, and told to end.
    Told,
    /// Sleeps until a signal or people come.
    Sleeps,
    /// Its gate is closed.
    Gated,
    /// A doubt that a person must settle.
    Doubt,
    /// A failure that a person must answer.
    Asking,
    /// An undo that failed.
    UndoFailed,
}

/// How many ranks there are.
const RANKS: usize = Rank::UndoFailed as usize + 1;

type Line = (Rank, Timestamp, InstanceId, Phase);
type Due = Option<(Rank, Timestamp)>;

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Agenda {
    lines: BTreeSet<Line>,
    /// The lines of each node, forward and undo.
    of: Vec<[Due; 2]>,
    /// How many lines each rank has: most ranks are empty most of the time, and are asked for with every event.
    counts: [u32; RANKS],
    /// Nodes whose lines may have changed since the last look.
    touched: Vec<InstanceId>,
}

impl Agenda {
    fn of(&self, id: InstanceId, phase: Phase) -> Due {
        let [forward, undo] = self.of.get(id.0 as usize).copied().unwrap_or_default();
        match phase {
            Phase::Do => forward,
            Phase::Undo => undo,
        }
    }

    fn set(&mut self, id: InstanceId, phase: Phase, due: Due) {
        let before = self.of(id, phase);
        if before == due {
            return;
        }
        let place = id.0 as usize;
        if self.of.len() <= place {
            self.of.resize(place + 1, Default::default());
        }
        if let Some([forward, undo]) = self.of.get_mut(place) {
            match phase {
                Phase::Do => *forward = due,
                Phase::Undo => *undo = due,
            }
        }
        if let Some((rank, at)) = before
            && self.lines.remove(&(rank, at, id, phase))
        {
            *self.count(rank) -= 1;
        }
        if let Some((rank, at)) = due
            && self.lines.insert((rank, at, id, phase))
        {
            *self.count(rank) += 1;
        }
    }

    #[expect(clippy::indexing_slicing, reason = "there is a count for each rank")]
    fn count(&mut self, rank: Rank) -> &mut u32 {
        &mut self.counts[rank as usize]
    }

    pub(super) fn of_rank(&self, rank: Rank) -> impl Iterator<Item = &Line> {
        let first = (rank, Timestamp::MIN, InstanceId(0), Phase::Do);
        let lines = self.has(rank).then(|| self.lines.range(first..));
        lines
            .into_iter()
            .flatten()
            .take_while(move |line| line.0 == rank)
    }

    pub(super) fn first(&self, rank: Rank) -> Option<(InstanceId, Phase)> {
        self.of_rank(rank)
            .next()
            .map(|(_, _, id, phase)| (*id, *phase))
    }

    pub(super) fn has(&self, rank: Rank) -> bool {
        self.counts
            .get(rank as usize)
            .is_some_and(|count| *count > 0)
    }
}

impl Machine {
    pub(super) fn touch(&mut self, id: InstanceId) {
        self.agenda.touched.push(id);
    }

    pub(super) fn touch_inside(&mut self, id: InstanceId) {
        let inside = self.tree.inside(id);
        self.agenda.touched.push(id);
        self.agenda.touched.extend(inside);
    }

    /// Touches what stands under a rank: something that all of them depend on has changed.
    pub(super) fn touch_rank(&mut self, rank: Rank) {
        let ids: Vec<InstanceId> = self.agenda.of_rank(rank).map(|line| line.2).collect();
        self.agenda.touched.extend(ids);
    }

    /// Finds the lines of all that was touched anew.
    pub(super) fn refresh(&mut self) {
        let mut touched = std::mem::take(&mut self.agenda.touched);
        touched.sort_unstable();
        touched.dedup();
        for id in touched.drain(..) {
            for phase in [Phase::Do, Phase::Undo] {
                let due = self.due(id, phase);
                self.agenda.set(id, phase, due);
            }
        }
        self.agenda.touched = touched;
    }

    /// Compares the lines of a node with what is due of it.
    pub(super) fn check_lines(&self, id: InstanceId) -> Result<(), String> {
        for phase in [Phase::Do, Phase::Undo] {
            let kept = self.agenda.of(id, phase);
            let due = self.due(id, phase);
            if kept != due {
                let path = &self.get(id).path;
                return Err(format!(
                    "{path:?} {phase:?}: {kept:?} is listed, and {due:?} is due"
                ));
            }
        }
        Ok(())
    }

    /// What an execution has due, found from the node and what is around it.
    fn due(&self, id: InstanceId, phase: Phase) -> Due {
        const NOW: Timestamp = Timestamp::MIN;
        // What a foreach no longer has among its items is out of the run.
        if self.finished.is_some() || !self.is_listed(id) {
            return None;
        }
        let role = self.get(id).role;
        let at = &self.get(id).execution(phase).at;
        let rank = match (at, role) {
            (At::Running { .. }, Role::Root | Role::Call) => self.turn(id).map(|_| Rank::Scope)?,
            (At::Running { .. }, Role::Group | Role::Foreach) => self.open_container(id)?,
            (At::Running { epoch, told }, Role::Step) => match (*epoch == self.epoch, told) {
                (false, _) => Rank::Lost,
                (true, false) => Rank::Runs,
                (true, true) => Rank::Told,
            },
            (At::Idle, _) if phase == Phase::Undo => self
                .tally(id)
                .undo
                .may_start(self, id)
                .then_some(Rank::Undo)?,
            (At::Idle, _) => self.startable(id)?,
            (At::Backoff { .. } | At::Gated | At::Asleep(_), _)
                if self.is_cut_off(id, phase)
                    || phase == Phase::Do && self.is_withdrawn(id, at) =>
            {
                Rank::Sleeper
            }
            (At::Backoff { until, shut }, _) => {
                let rank = if shut.is_some() {
                    Rank::Timer
                } else {
                    Rank::Retry
                };
                return Some((rank, *until));
            }
            (At::Gated, _) => Rank::Gated,
            (At::Asleep(wait), _) => match &wait.on {
                WaitOn::Signal(name) if self.signals.contains_key(name) => Rank::Signal,
                WaitOn::Timer(at) => {
                    let until = wait.deadline.map_or(*at, |deadline| deadline.min(*at));
                    return Some((Rank::Timer, until));
                }
                WaitOn::Signal(_) | WaitOn::Approval(_) => match wait.deadline {
                    Some(deadline) => return Some((Rank::Timer, deadline)),
                    None => Rank::Sleeps,
                },
            },
            (At::InDoubt { asked, .. }, _) => match asked {
                Asked::Wanted => Rank::Probed,
                Asked::InVain => Rank::Doubt,
                Asked::NotDone => Rank::NotDone,
            },
            (At::Failed { .. }, _) if phase == Phase::Undo => {
                let given_up = self.is_cut_off(id, phase);
                (!given_up).then_some(Rank::UndoFailed)?
            }
            (At::Failed { announced, .. }, _) => {
                // What is in a container that has settled is answered with it.
                let around = self.tree.around(id);
                let is_open = |at| !self.tree.stage(at, Phase::Do).is_settled();
                let asks = self.asking.contains(&id) && around.into_iter().all(is_open);
                match (asks && !self.is_halted(id), announced) {
                    (false, _) => return None,
                    (true, false) => Rank::Asks,
                    (true, true) => Rank::Asking,
                }
            }
            (At::Succeeded | At::Skipped | At::Ended, _) => return None,
        };
        Some((rank, NOW))
    }

    pub(super) fn is_listed(&self, id: InstanceId) -> bool {
        let instance = self.get(id);
        instance.parent.is_none_or(|parent| {
            let list = &self.get(parent).children;
            list.get(instance.position as usize) == Some(&id)
        })
    }

    fn open_container(&self, id: InstanceId) -> Option<Rank> {
        let tally = self.tally(id);
        let is_foreach = self.get(id).role == Role::Foreach;
        // One that fails is counted by what is around it, even if that fails already.
        if self.is_failing(id) {
            return (tally.active == 0 && !self.is_halted(id)).then_some(Rank::Closing);
        }
        if self.is_held(id) {
            return None;
        }
        if tally.open == 0 || is_foreach && !self.get(id).expanded {
            return Some(Rank::Closing);
        }
        // Open again, and what it needs runs again: its items wait for that, too.
        if !is_foreach || tally.needs > 0 {
            return None;
        }
        self.next_item(id).map(|item| self.start_rank(item))
    }

    /// The item that a foreach starts next, as far as its slots go.
    pub(super) fn next_item(&self, foreach: InstanceId) -> Option<InstanceId> {
        let tally = self.tally(foreach);
        let slots = self.def(foreach)?.foreach.as_ref()?.max_parallel.max(1);
        if tally.idle == 0 || tally.in_use >= slots {
            return None;
        }
        let children = &self.get(foreach).children;
        if tally.ordered > 0 {
            let is_ordered = |item: &&InstanceId| self.share(**item).is_ordered();
            return children.iter().find(is_ordered).copied();
        }
        children.get(tally.cursor as usize).copied()
    }

    fn startable(&self, id: InstanceId) -> Option<Rank> {
        let parent = self.get(self.get(id).parent?);
        let is_open = self.tree.stage(self.get(id).parent?, Phase::Do) == Stage::Running;
        if !is_open || parent.role == Role::Foreach || self.tally(id).needs > 0 || self.is_held(id)
        {
            return None;
        }
        if self.tree.is_finally_step(id) && !self.is_finally_turn(id) {
            return None;
        }
        Some(self.start_rank(id))
    }

    fn start_rank(&self, id: InstanceId) -> Rank {
        match self.get(id).forward.next_cause {
            Some(super::StartCause::Operator) => Rank::Ordered,
            Some(_) | None => Rank::Ready,
        }
    }

    /// Whether an instance must not start: its scope ends or is past its steps, or a container around it fails.
    pub(super) fn is_held(&self, id: InstanceId) -> bool {
        // A group that is open although what it needs runs again: what is inside waits for that, too. A playbook that is called
        // runs to its end, or what waits for that end would wait for ever.
        self.is_halted(id)
            || self
                .tree
                .around(id)
                .take_while(|at| !matches!(self.get(*at).role, Role::Root | Role::Call))
                .any(|around| self.tally(around).needs > 0 || self.is_failing(around))
    }

    /// Whether a node that only waits for its gate or its window would not start if it were pending: what it needs runs again, or
    /// a container around it fails.
    fn is_withdrawn(&self, id: InstanceId, at: &At) -> bool {
        let waits = matches!(at, At::Gated | At::Backoff { shut: Some(_), .. });
        waits && (self.tally(id).needs > 0 || self.is_held(id))
    }

    /// Whether the scope of an instance no longer runs what the instance belongs to.
    pub(super) fn is_halted(&self, id: InstanceId) -> bool {
        if self.finished.is_some() {
            return true;
        }
        if let Some(scope) = self.tree.finally_of(id) {
            let state = self.scopes.get(&scope);
            return state
                .is_none_or(|state| state.phase != ScopePhase::Finally || state.turns_back);
        }
        !self.goes_forward(self.get(id).scope)
    }

    /// Whether an execution that sleeps is not to be woken any more.
    pub(super) fn is_cut_off(&self, id: InstanceId, phase: Phase) -> bool {
        match phase {
            Phase::Do => self.is_halted(id),
            Phase::Undo => self.undo_is_given_up(id),
        }
    }

    // ---- what is in flight ---------------------------------------------------------------------------

    fn wanted_line(&self, line: &Line, work: Work) -> Wanted {
        let (_, _, instance, phase) = *line;
        Wanted {
            instance,
            phase,
            attempt: self.get(instance).execution(phase).attempt,
            work,
        }
    }

    /// What should be in flight.
    pub fn wanted(&self) -> impl Iterator<Item = Wanted> {
        let runs = self.agenda.of_rank(Rank::Runs);
        let probed = self.agenda.of_rank(Rank::Probed);
        runs.map(|line| self.wanted_line(line, Work::Execute))
            .chain(probed.map(|line| self.wanted_line(line, Work::Probe)))
    }

    /// What is to end: cancelled where it is in flight, and reported as not begun where it never was.
    pub fn unwanted(&self) -> impl Iterator<Item = Wanted> {
        let told = self.agenda.of_rank(Rank::Told);
        told.map(|line| self.wanted_line(line, Work::Execute))
    }

    /// Whether an execution in flight is to be awaited rather than ended.
    #[must_use]
    pub fn is_wanted(&self, wanted: &Wanted) -> bool {
        let rank = match wanted.work {
            Work::Execute => Rank::Runs,
            Work::Probe => Rank::Probed,
        };
        let of = self.agenda.of(wanted.instance, wanted.phase);
        of.is_some_and(|(listed, _)| listed == rank)
            && self.get(wanted.instance).execution(wanted.phase).attempt == wanted.attempt
    }
}
