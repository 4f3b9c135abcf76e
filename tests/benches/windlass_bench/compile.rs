//! From text to a graph, and `windlass validate` as a whole process.
use crate::{folder, kinds, limits::median, table::Table};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};
use windlass_engine::{
    compile::{NoFiles, compile},
    step::Registry,
};

/// A playbook of so many steps, one after the other, each with a condition, SQL and a parameter of the one before.
fn playbook(steps: u32) -> String {
    let mut text = String::from(
        "playbook: bench\ninputs:\n  least: { type: integer, default: 1 }\ntargets:\n  orders: { kind: sqlite }\n\
         defaults:\n  sql.*: { timeout: 30s, with: { target: orders } }\nsteps:\n",
    );
    for n in 0..steps {
        let before = match n {
            0 => "inputs.least".to_owned(),
            n => format!("steps.step_{}.output.value", n - 1),
        };
        write!(
            text,
            "  - id: step_{n}\n    uses: sql.query\n    with:\n      sql: SELECT count(*) FROM orders WHERE id > :least\n      \
             params:\n        least: ${{{{ {before} + inputs.least }}}}\n    retry: {{ attempts: 3, delay: 1s }}\n",
        )
        .unwrap();
    }
    text
}

/// As small as steps can be: 100,000 of them are within what a file may have.
fn small(steps: u32) -> String {
    let mut text = String::from("playbook: bench\nsteps:\n");
    for n in 0..steps {
        writeln!(text, "- {{ id: s{n}, uses: bench.noop }}").unwrap();
    }
    text
}

fn milliseconds(text: &str, registry: &Registry, steps: usize) -> f64 {
    let begin = Instant::now();
    let compiled = compile("bench.yaml", text, registry, &NoFiles);
    let took = begin.elapsed().as_secs_f64() * 1e3;
    if let Some(first) = compiled.diagnostics.first() {
        panic!("{first:?}");
    }
    assert_eq!(compiled.graph.unwrap().nodes.len(), steps);
    took
}

/// The program, built like this benchmark.
fn program() -> Option<PathBuf> {
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--profile",
            "bench",
            "-p",
            "windlass-cli",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let program = target.join("release/windlass");
    (built.ok()?.success() && program.exists()).then_some(program)
}

fn process(program: &Path, args: &[&str], folder: &Path) -> f64 {
    let begin = Instant::now();
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    let took = begin.elapsed().as_secs_f64() * 1e3;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    took
}

/// The rows of the table.
pub(crate) fn rows(table: &mut Table) {
    let measure = |text: &str, registry: &Registry, steps| {
        median(
            (0..5)
                .map(|_| milliseconds(text, registry, steps))
                .collect(),
        )
    };
    let real = measure(&playbook(10_000), &windlass_steps::registry(), 10_000);
    table.below(
        "compile 10,000 steps with SQL and expressions",
        real,
        "ms",
        250.0,
    );
    let kinds = kinds::registry();
    let ten = measure(&small(10_000), &kinds, 10_000);
    table.plain("compile 10,000 small steps", format!("{ten:.0} ms"));
    let hundred = measure(&small(100_000), &kinds, 100_000);
    table.below(
        "compile 100,000 small steps (linear: ten times as long)",
        hundred,
        "ms",
        10.0 * ten,
    );
    let Some(program) = program() else {
        table.plain(
            "validate 50 steps, whole process",
            "not measured: the program does not build".to_owned(),
        );
        return;
    };
    let folder = folder();
    std::fs::write(folder.path().join("playbook.yaml"), playbook(50)).unwrap();
    let args = ["validate", "playbook.yaml"];
    process(&program, &args, folder.path());
    let whole = median(
        (0..21)
            .map(|_| process(&program, &args, folder.path()))
            .collect(),
    );
    let bare = median(
        (0..21)
            .map(|_| process(Path::new("/bin/true"), &[], folder.path()))
            .collect(),
    );
    table.below("validate 50 steps, whole process", whole, "ms", 30.0);
    table.plain(
        "this machine: a process that does nothing",
        format!("{bare:.2} ms"),
    );
}
