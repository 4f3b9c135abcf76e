use super::{Kind, TargetKind};
use std::{collections::BTreeMap, sync::Arc};

/// All kinds of steps and targets that this build has.
#[derive(Default, Clone)]
pub struct Registry {
    kinds: BTreeMap<&'static str, Kind>,
    targets: BTreeMap<&'static str, Arc<dyn TargetKind>>,
}

impl Registry {
    /// With these kinds.
    #[must_use]
    pub fn new(kinds: Vec<Kind>, targets: Vec<Arc<dyn TargetKind>>) -> Self {
        Self {
            kinds: kinds.into_iter().map(|kind| (kind.name, kind)).collect(),
            targets: targets
                .into_iter()
                .map(|target| (target.name(), target))
                .collect(),
        }
    }

    /// The step kind of this name.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.get(name)
    }

    /// All step kinds, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.values()
    }

    /// The target kind of this name.
    #[must_use]
    pub fn target(&self, name: &str) -> Option<&Arc<dyn TargetKind>> {
        self.targets.get(name)
    }

    /// The names of all target kinds.
    pub fn target_kinds(&self) -> impl Iterator<Item = &'static str> {
        self.targets.keys().copied()
    }
}
