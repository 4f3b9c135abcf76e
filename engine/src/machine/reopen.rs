//! Forward again: what a person's order for a failed node opens, and what is pending again by it.
use super::{
    core::{IllegalEvent, Machine, ScopePhase},
    execution::{At, Change, Stage},
    state::{InstanceId, Role},
    tree::ROOT,
};
use crate::{step::Phase, value::Value};

impl Machine {
    /// A failed node that was given another answer: the containers around it are open, and its scopes go forward again.
    ///
    /// A node in a `finally` that runs opens only what is around it there.
    pub(super) fn reopen_around(&mut self, id: InstanceId) -> Result<(), IllegalEvent> {
        let mut at = id;
        while let Some(container) = self.get(at).parent {
            let in_running_finally = self.get(at).in_finally
                && self.scope_phase(self.get(at).scope) == ScopePhase::Finally;
            if in_running_finally && self.tree.is_finally_step(at) {
                return Ok(());
            }
            self.open_again(container)?;
            let is_scope = matches!(self.get(container).role, Role::Root | Role::Call);
            if is_scope && !in_running_finally {
                self.go_forward(container)?;
            } else if self.is_failing(container) {
                self.ask_about_others(container)?;
            }
            at = container;
        }
        Ok(())
    }

    fn open_again(&mut self, container: InstanceId) -> Result<(), IllegalEvent> {
        if self.tree.stage(container, Phase::Do).is_settled() {
            self.shift(container, Phase::Do, Change::Reopen)?;
            self.tree.get_mut(container).finished_at = None;
        }
        Ok(())
    }

    /// A group or loop that would fail at once again by what else failed in it: that is asked about, too.
    fn ask_about_others(&mut self, container: InstanceId) -> Result<(), IllegalEvent> {
        for id in self.get(container).children.clone() {
            let failed = At::Failed {
                asks: false,
                announced: false,
            };
            if self.get(id).forward.at == failed && self.share(id).fails_container() {
                self.shift(id, Phase::Do, Change::Ask)?;
            }
        }
        Ok(())
    }

    /// A scope goes forward again. What its compensation undid and what its end overtook is pending again; failures that
    /// had ended it ask from now on, or it would end at once by the one that nobody has answered yet.
    pub(super) fn go_forward(&mut self, scope: InstanceId) -> Result<(), IllegalEvent> {
        if self.scope_phase(scope) != ScopePhase::Forward {
            self.set_phase(scope, ScopePhase::Forward)?;
            if scope == ROOT {
                self.overran = false;
                self.watch.total = crate::value::Duration::ZERO;
            }
            for id in self.tree.inside(scope) {
                if self.get(id).undone_by == Some(scope) {
                    self.pending_again(id)?;
                    self.open_between(id, scope)?;
                }
            }
        }
        for id in self.tree.inside(scope) {
            let instance = self.get(id);
            if instance.scope != scope || instance.in_finally {
                continue;
            }
            match (&instance.forward.at, instance.role) {
                (At::Ended, Role::Step | Role::Call) => self.pending_again(id)?,
                (At::Ended, Role::Group | Role::Foreach | Role::Root) => {
                    self.shift(id, Phase::Do, Change::Reopen)?;
                }
                (At::Failed { asks: false, .. }, _) => {
                    let fatal = self.scopes.get(&scope).map(|state| &state.fatal);
                    if fatal.is_some_and(|fatal| fatal.iter().any(|(_, other)| *other == id)) {
                        self.shift(id, Phase::Do, Change::Ask)?;
                    }
                }
                (
                    At::Idle
                    | At::Running { .. }
                    | At::Backoff { .. }
                    | At::Gated
                    | At::Asleep(_)
                    | At::InDoubt { .. }
                    | At::Succeeded
                    | At::Skipped
                    | At::Failed { .. },
                    _,
                ) => {}
            }
        }
        self.touch_inside(scope);
        Ok(())
    }

    /// Opens the containers between a node and a scope around it.
    fn open_between(&mut self, id: InstanceId, scope: InstanceId) -> Result<(), IllegalEvent> {
        for container in self.tree.around(id).collect::<Vec<_>>() {
            if container == scope {
                break;
            }
            self.open_again(container)?;
            if self.get(container).role == Role::Call {
                self.go_forward(container)?;
            }
        }
        Ok(())
    }

    /// A node, and everything inside it, is as if it had not run yet; only its attempts continue to count.
    pub(super) fn pending_again(&mut self, id: InstanceId) -> Result<(), IllegalEvent> {
        let mut all = self.tree.inside(id);
        all.push(id);
        // From the inside outward, so that nothing inside counts any more when its container is set back.
        all.sort_unstable();
        for id in all.into_iter().rev() {
            for phase in [Phase::Undo, Phase::Do] {
                if self.tree.stage(id, phase) != Stage::Idle {
                    self.shift(id, phase, Change::Again)?;
                }
            }
            self.forget(id)?;
        }
        Ok(())
    }

    fn forget(&mut self, id: InstanceId) -> Result<(), IllegalEvent> {
        let instance = self.tree.get_mut(id);
        instance.output = Value::Null;
        instance.started_at = None;
        instance.finished_at = None;
        instance.votes.clear();
        instance.skipped = None;
        instance.took_effect = false;
        instance.by_hand = false;
        instance.undone_by = None;
        instance.start_order = 0;
        for phase in [Phase::Do, Phase::Undo] {
            if instance.execution(phase).attempt == 0 {
                continue;
            }
            let execution = instance.execution_mut(phase);
            execution.begun = false;
            execution.tries = 0;
            execution.part = 0;
            execution.first_started_at = None;
            execution.started_at = None;
            execution.deadline = None;
            execution.capture = None;
            execution.mark = None;
            execution.state = None;
            execution.woken = None;
            execution.next_cause = None;
            execution.failure = None;
        }
        if instance.role == Role::Foreach && instance.expanded {
            // It asks for its items anew. Those that come again take up where the old ones of their path were.
            instance.expanded = false;
            instance.children.clear();
            *self.tally_mut(id) = super::tally::Tally {
                needs: self.tally(id).needs,
                ..Default::default()
            };
        }
        if self.get(id).role == Role::Call {
            self.scopes.remove(&id);
        }
        self.touch(id);
        Ok(())
    }
}
