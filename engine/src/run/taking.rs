//! Taking a run: its lease, its history, who its targets are; and what a run that begins is made of.
use super::{
    api::{DriveOptions, RunError},
    clock::RunClock,
    driver::Shared,
    targets::{self, Met},
    unlearned::Unlearned,
};
use crate::{
    journal::Lease,
    machine::{Event, EventBody, IllegalEvent, LeaseTaken, Machine},
    secret::RunSecrets,
    value::{Duration, Value},
};
use std::{collections::BTreeSet, sync::Arc};

/// A run that this process may drive.
pub(super) struct Taken {
    pub machine: Box<Machine>,
    pub lease: Box<dyn Lease>,
    pub secrets: Arc<RunSecrets>,
    pub unlearned: Unlearned,
    pub met: Arc<Met>,
    pub clock: Arc<RunClock>,
    /// How far the wall clock was ahead of the run's time when it was last looked at; none if the run was taken just now.
    pub offset: Option<Duration>,
    /// The run was taken for this order alone.
    pub order: Option<String>,
    /// Events that nobody was told yet, and the place of the first.
    pub seen: (u64, Vec<Event>),
}

/// Takes a run where it stands. `told` is the last event that watchers of this process know.
///
/// # Errors
/// If another process drives it, it is over, another run holds a lock that it would need again, a target is another server now, or
/// the journal fails.
pub(super) async fn take(
    shared: &Shared,
    run: &str,
    options: DriveOptions,
    told: Option<u64>,
) -> Result<Taken, RunError> {
    let lease = shared.journal.lease(run, shared.holder_now()).await?;
    let mut events = shared.journal.load(run, 1).await?;
    let mut machine = Box::new(Machine::recover(&events).map_err(|e| replay(run, &e))?);
    // An append of unknown result is not all that may have happened to the journal meanwhile.
    if let Some(told) = told.filter(|told| *told > machine.seq()) {
        return Err(RunError::Replay {
            run: run.to_owned(),
            why: format!(
                "{told} events of it were written, and the journal has {}: it was put back to an earlier state",
                machine.seq()
            ),
        });
    }
    let used = used(&events);
    let clock = Arc::new(RunClock::new(shared.clock.clone(), machine.last_at()));
    if machine.finished().is_some() {
        let orders = shared.journal.inbox(Some(run)).await?;
        if orders.is_empty() {
            return Err(RunError::Over {
                run: run.to_owned(),
                outcome: machine.word(),
            });
        }
        // An order that opens it again needs its locks, which it gave back when it ended. One that is refused needs none. Each is judged
        // at the time at which it was sent, as the driver will.
        let orders = orders.into_iter().map(|mut order| {
            order.at = clock.of_wall(order.at).min(clock.now());
            order
        });
        let orders: Vec<_> = orders.collect();
        let ahead = machine.after_orders(&orders).map_err(|e| replay(run, &e))?;
        if ahead.finished().is_none() {
            let locks = &machine.graph().policy.locks;
            shared.journal.lock(lease.as_ref(), locks).await?;
        }
    }
    let secrets = shared.secrets_of(&machine.started().run.environment);
    let unlearned = Unlearned::of(used, &secrets, clock.now()).await;
    let compared = targets::compare(shared, &machine, &secrets).await;
    // What a person asks of the run goes on without the target: only the steps that use it fail.
    if let Some(changed) = compared.changed
        && !options.even_if_changed
        && told.is_none()
        && shared.journal.inbox(Some(run)).await?.is_empty()
    {
        return Err(changed);
    }
    let at = clock.now().max(machine.last_at());
    let taken = EventBody::LeaseTaken(Box::new(LeaseTaken {
        epoch: lease.epoch(),
        holder: shared.holder_now(),
        failovers: compared.failovers,
        unreachable: compared.unreachable,
    }));
    // What an append of unknown result wrote, nobody was told.
    let known = told.unwrap_or(machine.seq());
    let first = machine.seq() + 1;
    let mut seen = events.split_off(
        usize::try_from(known)
            .unwrap_or(events.len())
            .min(events.len()),
    );
    drop(events);
    let mut new = Vec::new();
    for body in std::iter::once(taken).chain(compared.identified) {
        let event = Event { at, body };
        machine.apply(&event).map_err(|e| replay(run, &e))?;
        new.push(event);
    }
    let state = machine.word();
    shared
        .journal
        .append(lease.as_ref(), first, new.clone(), state)
        .await?;
    targets::end_left(shared, &machine, &secrets).await;
    let begin = first - seen.len() as u64;
    seen.extend(new);
    Ok(Taken {
        machine,
        lease,
        secrets,
        unlearned,
        met: Arc::new(compared.met),
        clock,
        offset: None,
        order: None,
        seen: (begin, seen),
    })
}

pub(super) fn replay(run: &str, error: &IllegalEvent) -> RunError {
    RunError::Replay {
        run: run.to_owned(),
        why: error.to_string(),
    }
}

/// The secrets that a run has used: in its targets, and in the parameters of what it started.
fn used(events: &[Event]) -> BTreeSet<String> {
    fn collect(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Secret(secret) => into.extend(secret.names().map(str::to_owned)),
            Value::List(items) => items.iter().for_each(|item| collect(item, into)),
            Value::Map(map) => map.values().for_each(|value| collect(value, into)),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Decimal(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Duration(_)
            | Value::Size(_)
            | Value::Timestamp(_)
            | Value::Bytes(_) => {}
        }
    }
    let mut names = BTreeSet::new();
    for event in events {
        let targets = match &event.body {
            EventBody::RunStarted(started) => &started.targets,
            EventBody::Started(started) => {
                collect(&started.input, &mut names);
                &started.targets
            }
            _ => continue,
        };
        for target in targets.values() {
            collect(&target.url, &mut names);
            target
                .options
                .values()
                .for_each(|value| collect(value, &mut names));
        }
    }
    names
}
