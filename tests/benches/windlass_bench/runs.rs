//! Whole runs, driven.
use crate::{
    folder, kinds,
    limits::{self, median},
    process::{self, Figures},
    table::Table,
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use windlass_engine::{
    graph::Graph,
    journal::{Journal, SqliteJournal, conformance::holder},
    machine::{EventBody, Machine, Outcome},
    run::{DriveOptions, Driver, Ended, NewRun, RunHandle},
    value::Value,
};

const SPAN: Duration = Duration::from_millis(700);

fn driver(path: &Path) -> (Arc<SqliteJournal>, Driver) {
    let journal = Arc::new(SqliteJournal::open(path).unwrap());
    let driver = Driver::new(journal.clone(), kinds::registry(), holder("bench"));
    (journal, driver)
}

async fn start(driver: &Driver, graph: Arc<Graph>) -> RunHandle {
    let new = NewRun {
        graph,
        inputs: Value::map::<&str>([]),
        targets: Default::default(),
        environment: "bench".to_owned(),
        approvers: Default::default(),
        by: "bench".to_owned(),
        digest: None,
    };
    driver.start(new, DriveOptions::default()).await.unwrap()
}

/// Runs a graph to its end; how long it took.
async fn whole(path: &Path, graph: Arc<Graph>) -> (String, Duration) {
    let (_journal, driver) = driver(path);
    let begin = Instant::now();
    let mut run = start(&driver, graph).await;
    // Whoever watches reads the events; a queue of them would count as the run's memory.
    while run.events.recv().await.is_some() {}
    let ended = run.ended().await.unwrap();
    assert_eq!(ended, Ended::Finished(Outcome::Succeeded));
    (run.id.clone(), begin.elapsed())
}

async fn steps_per_second(graph: Arc<Graph>) -> f64 {
    let steps = graph.nodes.len() as f64;
    let folder = folder();
    let (_, took) = whole(&folder.path().join("journal.db"), graph).await;
    steps / took.as_secs_f64()
}

/// In a process of its own, as a run is recovered: from the file to a machine that can go on. The rate is in milliseconds.
pub(crate) async fn recovered(path: &str, run: &str) -> Figures {
    let begin = Instant::now();
    let journal = SqliteJournal::open(path).unwrap();
    let events = journal.load(run, 1).await.unwrap();
    let machine = Machine::recover(&events).unwrap();
    let all = begin.elapsed().as_secs_f64() * 1e3;
    assert!(machine.finished().is_some() && events.len() > 100_000);
    Figures {
        megabytes: process::peak_megabytes(),
        rate: all,
    }
}

/// A run of 100,000 events is recovered, five times; the median.
async fn recovery() -> Figures {
    let folder = folder();
    let path = folder.path().join("journal.db");
    let (id, _) = whole(&path, kinds::fan_out(50_000)).await;
    let path = path.to_str().unwrap();
    let mut all: Vec<Figures> = (0..5)
        .map(|_| process::child(&["recovery", path, &id]))
        .collect();
    all.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    all.swap_remove(2)
}

/// In a process of its own: a run of 10,000 steps.
pub(crate) async fn memory_of_a_run() -> Figures {
    let folder = folder();
    let path = folder.path().join("journal.db");
    whole(&path, kinds::fan_out(10_000)).await;
    Figures {
        megabytes: process::peak_megabytes(),
        rate: 0.0,
    }
}

/// Whoever watches reads the events; a queue of them would count as the runs' memory. How many of them began to wait.
fn read_events(runs: &mut [RunHandle]) -> usize {
    let mut waiting = 0;
    for run in runs {
        while let Some((_, event)) = run.events.ready() {
            waiting += usize::from(matches!(event.body, EventBody::Suspended(_)));
        }
    }
    waiting
}

/// In a process of its own: 10,000 runs that wait, and then nothing happens for five seconds.
pub(crate) async fn waiting() -> Figures {
    let folder = folder();
    let (_journal, driver) = driver(&folder.path().join("journal.db"));
    let graphs = [kinds::waits(false), kinds::waits(true)];
    let (mut runs, mut waiting) = (Vec::new(), 0);
    for batch in 0..100 {
        let started = (0..100).map(|n| start(&driver, graphs[(batch + n) % 2].clone()));
        runs.extend(futures_util::future::join_all(started).await);
        waiting += read_events(&mut runs);
    }
    while waiting < runs.len() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        waiting += read_events(&mut runs);
    }
    let idle = Duration::from_secs(5);
    let before = process::cpu_seconds();
    tokio::time::sleep(idle).await;
    let used = process::cpu_seconds() - before;
    assert_eq!(runs.len(), 10_000);
    Figures {
        megabytes: process::megabytes(),
        rate: 100.0 * used / idle.as_secs_f64(),
    }
}

/// The rows of the table.
pub(crate) async fn rows(table: &mut Table) {
    let folder = folder();
    let (mut single, mut chain) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        single.push(limits::commits(folder.path(), SPAN));
        chain.push(steps_per_second(kinds::chain(1_000)).await);
    }
    table.share(
        "steps of a chain of 1,000, durable",
        median(chain),
        "commits",
        median(single),
        Some(0.6),
    );
    let (mut batched, mut fan) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        batched.push(limits::batched(folder.path(), SPAN));
        fan.push(steps_per_second(kinds::fan_out(10_000)).await);
    }
    table.share(
        "steps of a fan-out of 10,000, durable",
        median(fan),
        "batched rows",
        median(batched),
        Some(0.15),
    );
    let recovered = recovery().await;
    table.below(
        "recovery of a run of 100,000 events, opening and checking included",
        recovered.rate,
        "ms",
        300.0,
    );
    table.plain(
        "memory of that, at its peak",
        format!("{:.0} MB", recovered.megabytes),
    );
}
