//! What the servers do for a run at this moment: asked by `show`, which never waits long for it.
use crate::{clock, session::Session};
use windlass_engine::{
    machine::{Machine, Stage},
    step::{Activity, Failure, Revealed, Target},
    value::Value,
};

/// How long one server may take to say it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// What was seen, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Now {
    /// By target.
    pub(crate) seen: Vec<(String, Activity)>,
    /// Targets that did not say, and why.
    pub(crate) unknown: Vec<String>,
}

impl Now {
    /// What is done for one step.
    pub(crate) fn of_node(&self, path: &str) -> impl Iterator<Item = &(String, Activity)> {
        self.seen.iter().filter(move |(_, activity)| {
            activity.node == path || (activity.is_cut && path.starts_with(&activity.node))
        })
    }
}

/// Asks the targets of a run in which a step is under way; nobody else is asked.
pub(crate) async fn of(session: &Session, machine: &Machine) -> Now {
    let mut now = Now::default();
    let busy = machine.instances().any(|instance| {
        [&instance.forward, &instance.undo]
            .iter()
            .any(|execution| matches!(execution.stage, Stage::Running | Stage::InDoubt))
    });
    if !busy {
        return now;
    }
    let mut asked: Vec<String> = Vec::new();
    for (name, target) in &machine.started().targets {
        let place = target.url.to_string();
        if asked.contains(&place) {
            continue;
        }
        asked.push(place);
        match tokio::time::timeout(PATIENCE, ask(session, machine, target)).await {
            Ok(Ok(all)) => now
                .seen
                .extend(all.into_iter().map(|one| (name.clone(), one))),
            Ok(Err(failure)) => now
                .unknown
                .push(format!("target {name}: {}", failure.message)),
            Err(_) => now.unknown.push(format!(
                "target {name}: no answer within {} seconds",
                PATIENCE.as_secs()
            )),
        }
    }
    now
}

async fn ask(
    session: &Session,
    machine: &Machine,
    target: &Target,
) -> Result<Vec<Activity>, Failure> {
    let Some(kind) = session.registry().target(&target.kind) else {
        return Ok(Vec::new());
    };
    let run = &machine.started().run;
    let url = match &target.url {
        Value::Secret(secret) => {
            let secrets = session
                .secrets()
                .map_err(|_| {
                    Failure::new(
                        "secret.environment",
                        "the environment that knows its password cannot be read",
                    )
                })?
                .of_run(&run.environment);
            secrets.reveal(secret, clock::now()).await?
        }
        plain => Revealed::new(plain.to_string()),
    };
    kind.activity(target, url.expose(), &run.short_id).await
}
