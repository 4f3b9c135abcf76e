//! Which target a name means, from where a step stands.
use super::{
    core::{IllegalEvent, Machine},
    event::Identified,
    state::{InstanceId, Role},
    tree::ROOT,
};
use crate::{
    graph::{Body, TargetDecl, definition},
    step::{Cause, Failure, Phase, Target},
};
use std::sync::Arc;

impl Machine {
    /// The target that a name means for an instance, as it stands in the run or was bound for the last attempt.
    #[must_use]
    pub fn target(&self, id: InstanceId, phase: Phase, name: &str) -> Option<&Target> {
        self.get(id)
            .execution(phase)
            .targets
            .get(name)
            .or_else(|| self.started.targets.get(&self.global_name(id, name)))
    }

    /// Whom a name means among the targets of the environment: its name in the run. A derived target is none of them.
    #[must_use]
    pub fn declared_target(&self, id: InstanceId, name: &str) -> Option<&Target> {
        self.started.targets.get(&self.global_name(id, name))
    }

    /// A target that a step reached for the first time is known from here on; one that was failed over has a history.
    pub(super) fn on_identified(&mut self, e: &Identified) -> Result<(), IllegalEvent> {
        if !self.started.targets.contains_key(&e.target) {
            return Err(self.misplaced(&format!("the run has no target {:?}", e.target)));
        }
        let declared = e
            .target
            .split_once('[')
            .map_or(&*e.target, |(many, _)| many);
        // The first one binds: whoever comes later was compared with it.
        if let Some(target) = Arc::make_mut(&mut self.started).targets.get_mut(&e.target)
            && target.identity.is_none()
        {
            TargetDecl::bind(self.graph.targets.get(declared), target, e.identity.clone());
        }
        if let Some(failover) = e.failover {
            self.failovers.insert(e.target.clone(), failover);
        }
        Ok(())
    }

    /// The name that the root playbook uses for a name of the scope that an instance is in.
    fn global_name(&self, id: InstanceId, name: &str) -> String {
        self.global_in(self.get(id).scope, name)
    }

    /// The same, for a name of this scope.
    pub(super) fn global_in(&self, mut scope: InstanceId, name: &str) -> String {
        let mut name = name.to_owned();
        while scope != ROOT && self.get(scope).role == Role::Call {
            if let Some(Body::Call(call)) = self.def(scope).map(|node| &node.body)
                && let Some(outer) = call.targets.get(&name)
            {
                name.clone_from(outer);
            }
            scope = self.get(scope).scope;
        }
        name
    }

    /// The binding that an attempt must keep: of a derived target, or of one that a call renames.
    ///
    /// # Errors
    /// Where the name is not a declared target, or would be one that it must never be.
    pub fn bind_target(
        &self,
        id: InstanceId,
        phase: Phase,
        name: &str,
    ) -> Result<Option<Target>, Failure> {
        let global = self.global_name(id, name);
        if let Some(target) = self.started.targets.get(&global) {
            return Ok((global != name).then(|| target.clone()));
        }
        let mut target = self.derive(id, phase, &global, 0)?;
        for other in &target.never.clone() {
            let known = self.derive(id, phase, other, 0)?;
            // A server that nobody has seen cannot be told from the one that is meant.
            if known.identity.is_none() && self.started.unreachable.contains_key(other) {
                return Err(Failure::new(
                    "target.never",
                    format!(
                        "target {name} must never be {other}, and who {other} is, is not known: it has not answered since the run \
                         started; nothing was started"
                    ),
                )
                .cause(Cause::Refused)
                .help(format!("`windlass retry` when {other} answers")));
            }
            target.avoid(&known);
            if known.is_written_as(&target) {
                return Err(Failure::new(
                    "target.never",
                    format!(
                        "target {name} would be {other}, which `never` forbids; nothing was started"
                    ),
                ));
            }
        }
        Ok(Some(target))
    }

    /// The instance that sees what the declaration of a target sees: itself, or a call around it.
    fn declared_around(&self, id: InstanceId, global: &str) -> InstanceId {
        let home = global.rsplit_once('/').map_or("", |(home, _)| home);
        let mut at = id;
        loop {
            let scope = self.get(at).scope;
            if scope == ROOT || definition(&self.get(scope).path) == home {
                return at;
            }
            at = scope;
        }
    }

    fn derive(
        &self,
        id: InstanceId,
        phase: Phase,
        name: &str,
        depth: u32,
    ) -> Result<Target, Failure> {
        let unknown = || {
            Failure::new(
                "target.unknown",
                format!("{name:?} is not a declared target"),
            )
        };
        if let Some(target) = self.started.targets.get(name) {
            return Ok(target.clone());
        }
        let Some(TargetDecl::Derived {
            like, with, never, ..
        }) = self.graph.targets.get(name)
        else {
            return Err(unknown());
        };
        if depth > 16 {
            return Err(unknown());
        }
        let base = self.derive(id, phase, like, depth + 1)?;
        let mut overrides = crate::value::Map::new();
        let seen_from = self.declared_around(id, name);
        // Only the step itself is being undone, not the calls around it.
        let phase = if seen_from == id { phase } else { Phase::Do };
        for (key, template) in with {
            let label = format!("target {name}, {key}");
            let value = self.evaluate(seen_from, phase, &label, template)?;
            overrides.insert(key.as_str().into(), value);
        }
        let mut target = crate::environment::derive(name, &base, &overrides)?;
        target.never.clone_from(never);
        Ok(target)
    }
}

impl Machine {
    /// The target names that stand in the parameters of an action.
    #[must_use]
    pub fn target_names(
        &self,
        action: &crate::graph::Action,
        input: &crate::value::Value,
    ) -> Vec<String> {
        action
            .targets
            .iter()
            .filter_map(|path| super::start::at_path(input, path))
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    }
}
