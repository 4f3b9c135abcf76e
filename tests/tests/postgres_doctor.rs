//! `windlass doctor` on environments that are broken in one way each.
use std::{
    process::{Command, Stdio},
    sync::Arc,
};
use windlass_tests::{
    program::windlass,
    servers::{
        Authority, free_port,
        postgres::{Options, Postgres},
    },
};

#[test]
fn each_trouble_has_its_own_sentence_and_next_step() {
    let authority = Arc::new(Authority::new());
    let server = Postgres::start(Options::default().tls(&authority).scram());
    let (url, ca) = (server.url("postgres"), authority.certificate());
    let wrong = server.url_as("app:wrong", "postgres");
    let none = url.replace(&server.port().to_string(), &free_port().to_string());
    let nowhere = server.url("nowhere");
    let folder = tempfile::tempdir().unwrap();
    let environment = format!(
        "environments:\n  local:\n    targets:\n\
         \x20     good: {{ url: '{url}', ca_file: '{}' }}\n\
         \x20     password: {{ url: '{wrong}', tls: require }}\n\
         \x20     port: {{ url: '{none}', tls: off }}\n\
         \x20     certificate: {{ url: '{url}' }}\n\
         \x20     database: {{ url: '{nowhere}', tls: require }}\n\
         \x20     host: {{ url: 'postgres://app@no-such-host.invalid/postgres' }}\n\
         \x20     ledger: {{ url: '{url}', tls: require, ledger: windlass_ledger }}\n",
        ca.display()
    );
    std::fs::write(folder.path().join("windlass.yaml"), environment).unwrap();
    let run = |args: &[&str]| {
        let done = Command::new(windlass())
            .args(args)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        (done.status.code(), told)
    };
    let (code, told) = run(&["doctor"]);
    println!("{told}");
    assert_eq!(code, Some(1), "{told}");
    for sentence in [
        "TLSv1.3, verified",
        "refuses the password of app",
        "nothing listens at 127.0.0.1",
        "is not trusted",
        "has no database nowhere",
        "is not known here",
        "windlass_ledger\" is named as the ledger and is not there",
        "ca_file",
        "--init-ledger",
    ] {
        assert!(told.contains(sentence), "{sentence:?} is not in\n{told}");
    }
    assert!(
        !told.contains("wrong@") && !told.contains(":wrong"),
        "the password is shown:\n{told}"
    );
    let (code, told) = run(&["doctor", "ledger", "--init-ledger"]);
    assert_ne!(code, Some(0), "without a terminal nobody was asked: {told}");
    assert_eq!(
        server.ask("SELECT to_regclass('windlass_ledger') IS NULL"),
        "t"
    );
    let (code, told) = run(&["doctor", "ledger", "--init-ledger", "--yes"]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = run(&["doctor", "ledger", "good"]);
    assert_eq!(code, Some(0), "{told}");
}
