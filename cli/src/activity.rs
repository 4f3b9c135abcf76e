//! What the servers do for a run at this moment: asked by `show`, which never waits long for it.
use crate::{clock, session::Session};
use windlass_engine::{
    machine::{Execution, Machine, Stage},
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

/// Asks the servers; nobody is asked where no step is under way.
pub(crate) async fn of(session: &Session, machine: &Machine) -> Now {
    let mut now = Now::default();
    let mut asked: Vec<String> = Vec::new();
    for (name, target) in targets(machine) {
        let place = format!("{} {:?}", target.url, target.options);
        if asked.contains(&place) {
            continue;
        }
        asked.push(place);
        match tokio::time::timeout(PATIENCE, ask(session, machine, target)).await {
            Ok(Ok(all)) => {
                for one in all {
                    // Two targets may be databases of one server, which tells of all its sessions.
                    let is_known = now.seen.iter().any(|(_, known)| {
                        (&known.session, &known.node) == (&one.session, &one.node)
                    });
                    if !is_known {
                        now.seen.push((name.clone(), one));
                    }
                }
            }
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

/// The targets of a run in which a step is under way: those that it started with, and those that its steps derived.
fn targets(machine: &Machine) -> Vec<(&String, &Target)> {
    let busy: Vec<&Execution> = machine
        .instances()
        .flat_map(|instance| [&*instance.forward, &*instance.undo])
        .filter(|execution| matches!(execution.stage(), Stage::Running | Stage::InDoubt))
        .collect();
    let known = (!busy.is_empty()).then(|| machine.started().targets.iter());
    let derived = busy.iter().flat_map(|execution| &execution.targets);
    known.into_iter().flatten().chain(derived).collect()
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
    let url = reveal(session, machine, &target.url).await?;
    let mut target = target.clone();
    if let Some(password) = target.options.get_mut("password") {
        let revealed = reveal(session, machine, password).await?;
        *password = Value::from(revealed.expose());
    }
    kind.activity(&target, url.expose(), &run.short_id).await
}

async fn reveal(session: &Session, machine: &Machine, value: &Value) -> Result<Revealed, Failure> {
    let Value::Secret(secret) = value else {
        return Ok(Revealed::new(value.to_string()));
    };
    let secrets = session.secrets().map_err(|_| {
        Failure::new(
            "secret.environment",
            "the environment that knows its password cannot be read",
        )
    })?;
    let environment = &machine.started().run.environment;
    secrets
        .of_run(environment)
        .reveal(secret, clock::now())
        .await
}
