//! Who the targets of a run are: asked as it starts, compared as it is resumed, and by the first step that uses one for the
//! rest. A target that is down holds up nothing but the steps that use it.
use super::{api::RunError, driver::Shared, redact};
use crate::{
    graph::{Graph, TargetDecl, WhenDown},
    machine::{EventBody, Failover, Identified, Machine, NodePath},
    secret::RunSecrets,
    step::{Cause, Failure, Identity, LeftSessions, Registry, Revealed, Target},
    value::{Duration, Timestamp, Value},
};
use futures_util::{StreamExt, future::BoxFuture, stream};
use indexmap::IndexMap;
use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Targets that are asked at once: a fleet does not open hundreds of connections in one moment.
const AT_ONCE: usize = 32;

/// How long all targets together have to answer when a run is resumed: dead servers do not hold it up.
const COMPARING: Duration = Duration::from_secs(3);

/// The targets that this process has met as who the run knows, by name.
#[derive(Default)]
pub(super) struct Met(Mutex<HashSet<String>>);

impl Met {
    /// Those of a new run.
    pub(super) fn of(targets: &IndexMap<String, Target>) -> Self {
        let known = targets.values().filter(|target| target.identity.is_some());
        Self(Mutex::new(
            known.map(|target| target.name.clone()).collect(),
        ))
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has(&self, target: &str) -> bool {
        self.names().contains(target)
    }

    pub(super) fn add(&self, target: &str) {
        self.names().insert(target.to_owned());
    }
}

/// The targets of a graph, as they are met now.
#[derive(Debug, Default)]
pub struct Found {
    /// All of them; those that answered have an identity.
    pub targets: IndexMap<String, Target>,
    /// Those that may be down (`when_down: continue`) and are, and why.
    pub unreachable: IndexMap<String, String>,
}

/// Asks every target who it is, many at once. Reads only; a plan asks as a run does.
///
/// # Errors
/// If one that must be up does not answer, or one is not what the playbook wants.
pub async fn identify(
    registry: &Registry,
    graph: &Graph,
    targets: &IndexMap<String, Target>,
    secrets: &RunSecrets,
    now: Timestamp,
) -> Result<Found, RunError> {
    let asked = questions(registry, targets, secrets, now);
    let mut answers = stream::iter(asked).buffered(AT_ONCE);
    let mut found = Found::default();
    let mut refused: Vec<(Target, Failure)> = Vec::new();
    while let Some((target, answer)) = answers.next().await {
        let mut target = target.clone();
        let decl = declaration(graph, &target.name);
        let may_be_down = decl.is_some_and(|decl| decl.when_down() == WhenDown::Continue);
        match answer {
            Ok(who) => {
                TargetDecl::bind(decl, &mut target, who);
            }
            Err(failure) if may_be_down && failure.cause.is_down() => {
                found
                    .unreachable
                    .insert(target.name.clone(), failure.message);
            }
            Err(failure) => {
                refused.push((target, failure));
                continue;
            }
        }
        found.targets.insert(target.name.clone(), target);
    }
    let mut refused = refused.into_iter();
    let Some((target, failure)) = refused.next() else {
        return Ok(found);
    };
    let others: Vec<String> = refused.map(|(target, _)| target.called()).collect();
    Err(RunError::target(&target, failure).beside(&others))
}

/// How the targets of a run that is resumed compare with what the run knows.
#[derive(Default)]
pub(super) struct Compared {
    pub(super) failovers: IndexMap<String, Failover>,
    /// Those that did not answer, and why.
    pub(super) unreachable: IndexMap<String, String>,
    /// Those that answered for the first time.
    pub(super) identified: Vec<EventBody>,
    /// One that is another server, or not what the playbook wants any more.
    pub(super) changed: Option<RunError>,
    pub(super) met: Met,
}

/// Asks all targets at once, and takes what is answered in a short time. What is not compared now, the first step that uses
/// it compares.
pub(super) async fn compare(shared: &Shared, machine: &Machine, secrets: &RunSecrets) -> Compared {
    let mut compared = Compared::default();
    let targets = &machine.started().targets;
    let (registry, now) = (&shared.registry, shared.clock.now());
    let asked = questions(registry, targets, secrets, now);
    let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
    let over = shared.clock.sleep(COMPARING);
    tokio::pin!(over);
    let mut left: IndexMap<&str, String> = targets
        .keys()
        .map(|name| {
            (
                name.as_str(),
                format!("it did not answer within {COMPARING}"),
            )
        })
        .collect();
    loop {
        let (target, answer) = tokio::select! {
            answer = answers.next() => match answer {
                Some(answer) => answer,
                None => break,
            },
            () = &mut over => break,
        };
        let name = target.name.as_str();
        let who = match answer {
            Ok(who) => who,
            Err(failure) => {
                if failure.cause == Cause::Refused {
                    left.shift_remove(name);
                    compared.changed = Some(RunError::target(target, failure));
                } else {
                    left.insert(name, failure.message);
                }
                continue;
            }
        };
        left.shift_remove(name);
        match judge(machine, target, who) {
            Ok(news) => {
                compared.met.add(name);
                match news {
                    Some(Identified {
                        failover: Some(failover),
                        ..
                    }) => {
                        compared.failovers.insert(name.to_owned(), failover);
                    }
                    Some(bound) => compared
                        .identified
                        .push(EventBody::Identified(Box::new(bound))),
                    None => {}
                }
            }
            Err(failure) => compared.changed = Some(RunError::target(target, failure)),
        }
    }
    compared.unreachable = left
        .into_iter()
        .map(|(name, why)| (name.to_owned(), why))
        .collect();
    compared
}

/// Ends what an earlier process of the run has left running on its servers without effect: locks that it holds would be in the
/// way of the attempts that follow, or outlive a run that is ended. Where a server does not answer in a short time, they end as
/// it notices that their client is gone.
pub(super) async fn end_left(shared: &Shared, machine: &Machine, secrets: &RunSecrets) {
    let left = machine.left_behind();
    let spared = machine.left_in_doubt();
    let spared: Vec<&str> = spared.iter().map(|node| &**node).collect();
    let spared = spared.as_slice();
    let short_id = machine.started().run.short_id.as_str();
    let (registry, now) = (&shared.registry, shared.clock.now());
    let one = |(target, nodes): (Target, Vec<NodePath>)| async move {
        let Some(kind) = registry.target(&target.kind) else {
            return;
        };
        let nodes: Vec<&str> = nodes.iter().map(|node| &**node).collect();
        if let Ok(url) = reveal(&target, secrets, now).await {
            // That it could not be ended is seen as a lock that is held, with the name of its session.
            let left = LeftSessions {
                short_id,
                ended: &nodes,
                spared,
            };
            let ended = kind.end_sessions(&target, url.expose(), left);
            drop(ended.await);
        }
    };
    let ending = stream::iter(left.into_iter().map(one)).buffer_unordered(AT_ONCE);
    let all = ending.collect::<Vec<()>>();
    tokio::select! {
        _ = all => {}
        () = shared.clock.sleep(COMPARING) => {}
    }
}

/// What a sight of a target means for a run that knows it, or does not know it yet: nothing new, or what is to be written.
///
/// # Errors
/// If it is another server: what was read of the first does not hold for the second.
pub(super) fn judge(
    machine: &Machine,
    target: &Target,
    who: Identity,
) -> Result<Option<Identified>, Failure> {
    let name = &target.name;
    let Some(before) = &target.identity else {
        return Ok(Some(Identified {
            target: name.clone(),
            identity: who,
            failover: None,
        }));
    };
    if let Some(failure) = who.differs(&target.called(), before) {
        return Err(failure);
    }
    let failover = who
        .promoted_since(before)
        .map(|(from, to)| Failover { from, to })
        .filter(|failover| machine.failovers().get(name) != Some(failover));
    Ok(failover.map(|failover| Identified {
        target: name.clone(),
        identity: who,
        failover: Some(failover),
    }))
}

/// The declaration of a bound target; `fleet[3]` is declared as `fleet`.
fn declaration<'g>(graph: &'g Graph, name: &str) -> Option<&'g TargetDecl> {
    let declared = name.split_once('[').map_or(name, |(many, _)| many);
    graph.targets.get(declared)
}

/// One question for each target, not asked yet.
fn questions<'a>(
    registry: &'a Registry,
    targets: &'a IndexMap<String, Target>,
    secrets: &'a RunSecrets,
    now: Timestamp,
) -> Vec<BoxFuture<'a, (&'a Target, Result<Identity, Failure>)>> {
    let one = |target: &'a Target| -> BoxFuture<'a, _> {
        Box::pin(async move { (target, ask(registry, target, secrets, now).await) })
    };
    targets.values().map(one).collect()
}

async fn ask(
    registry: &Registry,
    target: &Target,
    secrets: &RunSecrets,
    now: Timestamp,
) -> Result<Identity, Failure> {
    let clean = |failure| redact::failure(secrets.redactor(), failure);
    let kind = registry.target(&target.kind).ok_or_else(|| {
        Failure::new(
            "target.kind",
            format!("this windlass cannot reach a {}", target.kind),
        )
    })?;
    let url = reveal(target, secrets, now).await.map_err(clean)?;
    kind.identify(target, url.expose())
        .await
        .map(|identity| redact::identity(secrets.redactor(), identity))
        .map_err(clean)
}

async fn reveal(
    target: &Target,
    secrets: &RunSecrets,
    now: Timestamp,
) -> Result<Revealed, Failure> {
    match &target.url {
        Value::Secret(secret) => secrets.reveal(secret, now).await,
        plain => Ok(Revealed::new(plain.to_string())),
    }
}
