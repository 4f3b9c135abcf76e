//! `cargo bench -p windlass-tests`: what the engine reaches, each figure beside what this machine can do at all,
//! measured in the same run and in the same folder. Prints one Markdown table.
//!
//! The folder is `WINDLASS_BENCH_DIR`, or one below the target folder: it must be on the disk that is meant.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures time, and ends where something fails"
)]
mod compile;
mod journal;
mod kinds;
mod limits;
mod postgres;
mod process;
mod runs;
mod table;

use std::path::PathBuf;
use table::Table;
use tempfile::TempDir;

/// A new folder on the disk that is measured.
fn folder() -> TempDir {
    let parent = std::env::var_os("WINDLASS_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    TempDir::new_in(parent).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, what, rest @ ..] = args.as_slice()
        && child == "--child"
    {
        let figures = match (what.as_str(), rest) {
            ("memory", []) => runtime().block_on(runs::memory_of_a_run()),
            ("waiting", []) => runtime().block_on(runs::waiting()),
            ("recovery", [path, run]) => runtime().block_on(runs::recovered(path, run)),
            ("million", []) => runtime().block_on(postgres::million()),
            other => panic!("no child {other:?}"),
        };
        println!("{figures}");
        return;
    }
    // `cargo bench -- journal` measures one part alone.
    let wanted = |part: &str| {
        let mut parts = args.iter().filter(|arg| !arg.starts_with('-')).peekable();
        parts.peek().is_none() || parts.any(|arg| part.contains(arg.as_str()))
    };
    let mut table = Table::default();
    if wanted("limits") {
        limits::rows(&mut table);
    }
    if wanted("journal") {
        runtime().block_on(journal::rows(&mut table));
    }
    if wanted("runs") {
        runtime().block_on(runs::rows(&mut table));
    }
    if wanted("compile") {
        compile::rows(&mut table);
    }
    if wanted("postgres") {
        runtime().block_on(postgres::rows(&mut table));
        process::million_rows(&mut table);
    }
    if wanted("memory") {
        process::memory_rows(&mut table);
    }
    println!("{table}");
}
