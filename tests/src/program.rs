//! The real program, built once for the tests that start it.
use std::{path::PathBuf, process::Command, sync::LazyLock};

/// The path of `windlass`, built like the tests themselves.
///
/// # Panics
/// Where it does not build.
#[must_use]
pub fn windlass() -> PathBuf {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(build);
    PROGRAM.clone()
}

#[expect(clippy::unwrap_used, reason = "a test's set-up")]
fn build() -> PathBuf {
    // `target/debug/deps/name-hash` is the running test: the program stands two folders above it.
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--workspace", "--bin", "windlass"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("CARGO_TARGET_DIR", folder.parent().unwrap());
    if folder.ends_with("release") {
        command.arg("--release");
    }
    assert!(
        command.status().unwrap().success(),
        "windlass does not build"
    );
    folder.join("windlass")
}
