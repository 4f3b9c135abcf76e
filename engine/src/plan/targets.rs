//! The targets of a plan.
use super::{
    PlanTarget,
    host::not_yet,
    known::{After, Known, Scope},
    walk::Walk,
};
use crate::{
    expr::Template,
    graph::{Action, TargetDecl},
    step::{Failure, Target},
    value::{Map, Value},
};

impl Walk<'_> {
    /// A target by the name of the root playbook; a derived one is bound from what is known.
    pub(super) fn bind(&self, scope: &Scope, name: &str) -> Result<Target, Unbound> {
        let mut target = self.derived(scope, name, 0)?;
        for other in &target.never.clone() {
            let known = self.derived(scope, other, 0)?;
            target.avoid(&known);
            if known.is_written_as(&target) {
                return Err(Unbound::Failed(Failure::new(
                    "target.never",
                    format!("target {name} would be {other}, which `never` forbids"),
                )));
            }
        }
        Ok(target)
    }

    fn derived(&self, scope: &Scope, name: &str, depth: u32) -> Result<Target, Unbound> {
        let unknown = || {
            Unbound::Failed(Failure::new(
                "target.unknown",
                format!("{name:?} is not a declared target"),
            ))
        };
        if let Some(target) = self.request.targets.get(name) {
            return Ok(target.clone());
        }
        let Some(TargetDecl::Derived {
            like, with, never, ..
        }) = self.world.graph.targets.get(name)
        else {
            return Err(unknown());
        };
        if depth > 16 {
            return Err(unknown());
        }
        let base = self.derived(scope, like, depth + 1)?;
        let mut replaced = Map::new();
        for (key, template) in with {
            match self.world.resolve(scope.declaring(name), template) {
                Ok(Known::Value(value)) => {
                    replaced.insert(key.as_str().into(), value);
                }
                Ok(Known::After(after)) => return Err(Unbound::After(after)),
                Err(error) => {
                    return Err(Unbound::Failed(Failure::new(
                        "target.derived",
                        format!("target {name}, {key}: {error}"),
                    )));
                }
            }
        }
        let mut target =
            crate::environment::derive(name, &base, &replaced).map_err(Unbound::Failed)?;
        target.never.clone_from(never);
        Ok(target)
    }

    pub(super) fn targets(&mut self) -> Vec<PlanTarget> {
        let targets: Vec<&Target> = self.request.targets.values().collect();
        let mut all: Vec<PlanTarget> = Vec::new();
        for (name, target) in self.request.targets.iter() {
            let identity = target.identity.as_ref();
            all.push(PlanTarget {
                name: name.clone(),
                kind: target.kind.clone(),
                url: target.url.to_string(),
                instance: identity.map(|identity| identity.instance.clone()),
                system: identity.and_then(|identity| identity.system.clone()),
                role: identity
                    .and_then(|identity| identity.role.clone())
                    .or_else(|| target.role.clone()),
                timeline: identity.and_then(|identity| identity.timeline),
                version: identity.map(|identity| identity.version.clone()),
                unreachable: self.request.unreachable.get(name).cloned(),
                like: None,
            });
        }
        for target in targets {
            self.collect_secrets(&target.url);
            target
                .options
                .values()
                .for_each(|value| self.collect_secrets(value));
        }
        for (name, decl) in &self.world.graph.targets {
            if let TargetDecl::Derived { like, .. } = decl
                && !self.request.targets.contains_key(name)
            {
                all.push(PlanTarget {
                    name: name.clone(),
                    kind: self
                        .request
                        .targets
                        .get(like)
                        .map(|target| target.kind.clone())
                        .unwrap_or_default(),
                    url: "bound on first use".to_owned(),
                    instance: None,
                    system: None,
                    role: None,
                    timeline: None,
                    version: None,
                    unreachable: None,
                    like: Some(like.clone()),
                });
            }
        }
        all
    }
}

pub(super) enum Unbound {
    After(After),
    Failed(Failure),
}

impl From<Unbound> for Failure {
    fn from(unbound: Unbound) -> Self {
        match unbound {
            Unbound::After(after) => not_yet(&after),
            Unbound::Failed(failure) => failure,
        }
    }
}

/// The target names among the resolved parameters.
pub(super) fn targets_in(action: &Action, with: &Value) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for path in &action.targets {
        let found = path.iter().try_fold(with, |value, key| match value {
            Value::List(items) => key.parse::<usize>().ok().and_then(|at| items.get(at)),
            other => other.get(key),
        });
        if let Some(name) = found.and_then(Value::as_str)
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// The target names that stand literally in parameters that are not known as a whole.
pub(super) fn literal_targets(action: &Action) -> Vec<String> {
    let mut names = Vec::new();
    for path in &action.targets {
        let mut at = &action.with;
        let mut rest = path.as_slice();
        let name = loop {
            match (at, rest) {
                (Template::Map(map), [key, more @ ..]) => match map.get(key) {
                    Some(inner) => (at, rest) = (inner, more),
                    None => break None,
                },
                (Template::List(items), [key, more @ ..]) => {
                    match key.parse::<usize>().ok().and_then(|i| items.get(i)) {
                        Some(inner) => (at, rest) = (inner, more),
                        None => break None,
                    }
                }
                (Template::Literal(value), rest) => {
                    break rest
                        .iter()
                        .try_fold(value, |value, key| value.get(key))
                        .and_then(Value::as_str)
                        .map(str::to_owned);
                }
                _ => break None,
            }
        };
        if let Some(name) = name
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}
