use super::{Sqlite, path_of};
use crate::testing::{Bench, sqlite_target};
use std::path::Path;
use windlass_engine::{step::TargetKind, value::Value};

#[test]
fn urls() {
    let target = sqlite_target("db", Path::new("x"));
    for (url, path) in [
        ("sqlite:a/b.db", "a/b.db"),
        ("sqlite:///a/b.db", "/a/b.db"),
        ("sqlite:/a/b.db", "/a/b.db"),
        ("a/b.db", "a/b.db"),
    ] {
        assert_eq!(path_of(&target, url).unwrap(), Path::new(path), "{url}");
    }
    for bad in [
        "",
        "sqlite:",
        "sqlite://host/a.db",
        "sqlite::memory:",
        ":memory:",
        "postgres://h/db",
        "a.db?mode=rw",
    ] {
        assert!(path_of(&target, bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_file_is_known_by_its_path_and_inode() {
    let bench = Bench::new("CREATE TABLE t (a)");
    let target = sqlite_target("db", &bench.path());
    let url = format!("sqlite:{}", bench.path().display());
    let first = Sqlite.identify(&target, &url).await.unwrap();
    assert!(first.system.is_some());
    assert_eq!(
        first.instance,
        bench.path().canonicalize().unwrap().display().to_string()
    );
    let other = bench.folder.path().join("other");
    std::fs::copy(bench.path(), &other).unwrap();
    std::fs::rename(&other, bench.path()).unwrap();
    let second = Sqlite.identify(&target, &url).await.unwrap();
    assert_ne!(first.system, second.system, "another file in its place");
    assert_eq!(
        Sqlite.identify(&target, "gone.db").await.unwrap_err().code,
        "target.missing"
    );
    let mut target = target;
    target
        .options
        .insert("create".to_owned(), Value::Bool(true));
    let made = Sqlite.identify(&target, "gone.db").await.unwrap();
    assert_eq!(made.system, None);
    assert!(made.instance.starts_with('/'));
}
