//! Random definitions, random commands at every moment, and the death of the process before and after every append.
//!
//! `WINDLASS_SIM=200000` plays as many runs, with all cores; `WINDLASS_SIM_SEED=n` plays one and tells its story;
//! `WINDLASS_SIM_COUNT=1` plays all of them and prints how often each property did not hold;
//! `WINDLASS_SIM_FORGIVE=commands` passes over wrong answers to commands, so that what follows from them is seen.
#![expect(
    clippy::unwrap_used,
    reason = "what a test shares may panic as the test may"
)]
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use windlass_tests::simulation::{Coverage, Spec, shrink, simulate};

/// In `./test`; the night has more.
const RUNS: u64 = 3_000;
/// From so many runs on every pair of the table must have been seen.
const LONG: u64 = 50_000;

/// Transitions that the simulation cannot reach, each with its reason.
const NEVER: [(&str, &str); 15] = [
    ("Idle Gate undo", "an undo has no gate"),
    ("Backoff Gate undo", "an undo has no gate"),
    ("Idle Shut undo", "windows do not bind an undo"),
    ("Backoff Shut undo", "windows do not bind an undo"),
    (
        "Idle Succeed do",
        "only an undo whose last part has nothing to do",
    ),
    ("Idle Succeed undo", "written as a skip: nothing to undo"),
    (
        "Backoff Succeed do",
        "only an undo whose last part has nothing to do",
    ),
    ("Backoff Succeed undo", "written as a skip: nothing to undo"),
    (
        "Backoff Retry do",
        "journals of before asked a gate again so",
    ),
    ("Backoff Retry undo", "an undo has no gate"),
    (
        "Waiting Fail undo",
        "a cancel cuts short what sleeps in a `finally`, in which nothing is undone",
    ),
    ("InDoubt Start do", "journals of before started so"),
    ("InDoubt Start undo", "journals of before started so"),
    ("InDoubt Again undo", "in a `finally` nothing is undone"),
    ("Running Again undo", "in a `finally` nothing is undone"),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// How often, and the first runs with what was wrong.
type Broken = (u64, Vec<(Spec, String)>);

/// What is found over a range of seeds: per property how often, and the first seeds.
#[derive(Default)]
struct Found {
    coverage: Coverage,
    wrong: BTreeMap<&'static str, Broken>,
}

fn play(seeds: std::ops::Range<u64>, all: bool) -> Found {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(Found::default());
    let workers = if seeds.end - seeds.start > 10_000 {
        std::thread::available_parallelism().map_or(1, usize::from)
    } else {
        1
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut coverage = Coverage::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let spec = Spec::of(seed);
                    if let Err(violation) = simulate(spec, &mut coverage, false) {
                        let mut found = found.lock().unwrap();
                        let (count, list) = found.wrong.entry(violation.property).or_default();
                        *count += 1;
                        if list.len() < 400 {
                            list.push((spec, violation.what));
                        }
                        if !all {
                            next.store(seeds.end, Ordering::Relaxed);
                        }
                    }
                }
                found.lock().unwrap().coverage.add(&coverage);
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn nothing_strands_a_run_and_nothing_is_a_wrong_success() {
    if let Ok(text) = std::env::var("WINDLASS_SIM_SEED") {
        let spec: Spec = text.parse().unwrap();
        let result = simulate(spec, &mut Coverage::default(), true);
        if let Err(violation) = result {
            panic!(
                "{}\n{}: {}",
                violation.story, violation.property, violation.what
            );
        }
        println!("{spec}: every property holds");
        return;
    }
    let runs = number("WINDLASS_SIM").unwrap_or(RUNS);
    let first = number("WINDLASS_SIM_FIRST").unwrap_or(0);
    let count = number("WINDLASS_SIM_COUNT").is_some();
    let found = play(first..first + runs, count);
    println!("{}", found.coverage.table());
    if count {
        for (property, (n, list)) in &found.wrong {
            println!("{property}: {n} of {runs} runs");
            for (spec, what) in list {
                println!("    {spec}  {what}");
            }
        }
    }
    println!(
        "never seen: {:?}, {:?}",
        found.coverage.missing(),
        found.coverage.missing_events()
    );
    if let Some((property, (_, list))) = found.wrong.iter().next()
        && let Some((spec, what)) = list.first()
    {
        if count {
            panic!("{property} does not hold of {spec}: {what}");
        }
        let small = shrink(*spec, property);
        let violation = simulate(small, &mut Coverage::default(), true).unwrap_err();
        panic!(
            "{}\n{}: {}\n(the smallest of seed {})",
            violation.story, violation.property, violation.what, spec
        );
    }
    let unseen: Vec<String> = found
        .coverage
        .missing()
        .into_iter()
        .filter(|pair| !NEVER.iter().any(|(never, _)| never == pair))
        .collect();
    if runs >= LONG {
        assert!(
            unseen.is_empty(),
            "never seen, and no reason given: {unseen:?}"
        );
        assert_eq!(found.coverage.missing_events(), Vec::<&str>::new());
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..30 {
        let tell = || {
            let mut coverage = Coverage::default();
            let result = simulate(Spec::of(seed), &mut coverage, true);
            (result.err().map(|v| (v.what, v.story)), coverage.table())
        };
        assert_eq!(tell(), tell(), "seed {seed}");
    }
}
