//! Crash simulation of the pure machine, with every construct and every operator command at every moment.
//!
//! | file | what |
//! |---|---|
//! | `graphs.rs` | random definitions |
//! | `world.rs` | the world outside: effects, and the executions that commit them |
//! | `play.rs` | the player: a journal, a driver, crashes, a clock, an inbox |
//! | `commands.rs` | what people ask: sensible and arbitrary |
//! | `endgame.rs` | from any state, accepted commands lead to an end |
//! | `oracle/` | the judge, written from the semantics and not from the machine |
//! | `coverage.rs` | which transitions and events were seen |
//! | `adapter.rs` | the only file that knows the machine's interface |
#![expect(
    clippy::unwrap_used,
    reason = "what a test shares may panic as the test may"
)]
mod adapter;
mod commands;
mod coverage;
mod endgame;
mod graphs;
mod oracle;
mod play;
mod world;

pub use coverage::Coverage;
pub use oracle::Violation;

use play::Play;

/// What makes a run: the same numbers make the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Of all randomness.
    pub seed: u64,
    /// How many nodes the definition has at most.
    pub size: usize,
    /// How many commands people send before the end game.
    pub commands: usize,
    /// How many moves are played before the end game.
    pub moves: usize,
}

impl Spec {
    /// The run of a seed: small ones come as often as large ones.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5bd1_e995);
        Self {
            seed,
            size: 2 + random.below(13),
            commands: random.below(13),
            moves: 5 + random.below(120),
        }
    }
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            seed,
            size,
            commands,
            moves,
        } = self;
        write!(f, "{seed}:{size}:{commands}:{moves}")
    }
}

impl std::str::FromStr for Spec {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':');
        let mut spec = Self::of(parts.next().unwrap_or_default().parse()?);
        for (slot, part) in [&mut spec.size, &mut spec.commands, &mut spec.moves]
            .into_iter()
            .zip(parts)
        {
            *slot = part.parse()?;
        }
        Ok(spec)
    }
}

/// Plays one run to its end; its story is told if `tell`.
///
/// # Errors
/// The first property that does not hold.
pub fn simulate(spec: Spec, coverage: &mut Coverage, tell: bool) -> Result<(), Box<Violation>> {
    let mut play = Play::new(spec, tell);
    let result = play.run();
    coverage.add(&play.coverage);
    result.map_err(|mut violation| {
        violation.story = play.story();
        violation
    })
}

/// A smaller run that breaks the same property, found by trying.
#[must_use]
pub fn shrink(spec: Spec, property: &str) -> Spec {
    let breaks = |spec: Spec| {
        simulate(spec, &mut Coverage::default(), false)
            .is_err_and(|violation| violation.property == property)
    };
    let mut best = spec;
    for size in 1..best.size {
        let smaller = Spec { size, ..best };
        if breaks(smaller) {
            best = smaller;
            break;
        }
    }
    for moves in 1..best.moves {
        let smaller = Spec { moves, ..best };
        if breaks(smaller) {
            best = smaller;
            break;
        }
    }
    for commands in 0..best.commands {
        let smaller = Spec { commands, ..best };
        if breaks(smaller) {
            best = smaller;
            break;
        }
    }
    best
}

/// SplitMix64: small, and the same everywhere.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % n.max(1)
    }
    fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }
    fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len()))
    }
}
