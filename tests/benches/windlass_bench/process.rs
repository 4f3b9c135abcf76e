//! Memory and processor time, each measured in a process of its own.
use crate::table::Table;
use std::{fmt, process::Command};

/// What a child measured of itself.
pub(crate) struct Figures {
    pub(crate) megabytes: f64,
    /// Processor in percent, or rows a second: what the child is asked for.
    pub(crate) rate: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.megabytes, self.rate)
    }
}

fn status(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kilobytes: f64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kilobytes / 1_024.0
}

/// The most memory that this process had so far.
pub(crate) fn peak_megabytes() -> f64 {
    status("VmHWM")
}

/// The memory that this process has now.
pub(crate) fn megabytes() -> f64 {
    status("VmRSS")
}

/// Processor time that this process used so far.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

pub(crate) fn child(what: &[&str]) -> Figures {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .arg("--child")
        .args(what)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{what:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (megabytes, rate) = text.trim().split_once(' ').unwrap();
    Figures {
        megabytes: megabytes.parse().unwrap(),
        rate: rate.parse().unwrap(),
    }
}

/// The rows of the table.
pub(crate) fn memory_rows(table: &mut Table) {
    let run = child(&["memory"]);
    table.below(
        "memory of a run of 10,000 steps, at its peak",
        run.megabytes,
        "MB",
        150.0,
    );
    let waiting = child(&["waiting"]);
    table.below(
        "memory of 10,000 runs that wait",
        waiting.megabytes,
        "MB",
        80.0,
    );
    table.below(
        "processor, 10,000 runs that wait, over 5 s",
        waiting.rate,
        "%",
        5.0,
    );
}

/// The rows of the table.
pub(crate) fn million_rows(table: &mut Table) {
    let read = child(&["million"]);
    table.below(
        "memory, 1,000,000 rows of PostgreSQL read twice",
        read.megabytes,
        "MB",
        150.0,
    );
    table.plain(
        "rows of PostgreSQL read and hashed",
        format!("{:.0} k/s", read.rate / 1_000.0),
    );
}
