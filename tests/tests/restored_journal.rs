//! A journal that was put back from a backup: what it has lost, the ledger in the target still knows, and no step acts a
//! second time. On both databases, for every kind that writes a row into the ledger, forward and undo.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]
use std::path::PathBuf;
use windlass_tests::{drill::Drill, servers::postgres::Postgres};

/// Where the steps act.
enum Target {
    Sqlite,
    Postgres(Box<Postgres>),
}

struct Lab {
    drill: Drill,
    target: Target,
}

const TABLE: &str = "CREATE TABLE log (x TEXT)";

impl Lab {
    fn new(postgres: bool, b: &str) -> Self {
        let kind = if postgres { "postgres" } else { "sqlite" };
        let drill = Drill::of(&format!(
            "
playbook: restored
targets: {{ db: {{ kind: {kind} }} }}
defaults: {{ sql.*: {{ with: {{ target: db }} }} }}
steps:
  - id: hold
    uses: wait.signal
    with: {{ name: go }}
  - id: b
    uses: {b}
    undo: {{ uses: {undo}, with: {{ sql: INSERT INTO log VALUES ('undone') }} }}
  - id: more
    uses: wait.signal
    with: {{ name: more }}
",
            undo = b.split('\n').next().unwrap().trim_end_matches('\n'),
        ));
        let (url, target) = if postgres {
            let server = Postgres::start(&[]);
            server.psql(TABLE);
            server.make_ledger();
            let url = format!("{}', tls: 'off", server.url("postgres"));
            (url, Target::Postgres(Box::new(server)))
        } else {
            let file = rusqlite::Connection::open(drill.path().join("db.sqlite")).unwrap();
            file.execute_batch(TABLE).unwrap();
            ("sqlite:db.sqlite".to_owned(), Target::Sqlite)
        };
        drill.environment(&format!(
            "    targets:\n      db: {{ url: '{url}', ledger: windlass_ledger }}\n"
        ));
        Self { drill, target }
    }

    fn log(&self) -> String {
        let sql = "SELECT x FROM log ORDER BY x";
        match &self.target {
            Target::Postgres(server) => server.ask(sql).replace('\n', " "),
            Target::Sqlite => {
                let file = rusqlite::Connection::open(self.drill.path().join("db.sqlite")).unwrap();
                let mut asked = file.prepare(sql).unwrap();
                let rows = asked.query_map([], |row| row.get::<_, String>(0)).unwrap();
                rows.map(Result::unwrap).collect::<Vec<_>>().join(" ")
            }
        }
    }

    fn journal(&self) -> [(PathBuf, PathBuf); 3] {
        ["journal.db", "journal.db-wal", "journal.db-shm"].map(|name| {
            let folder = self.drill.path();
            (folder.join(name), folder.join(format!("{name}.backup")))
        })
    }

    fn back_up(&self) {
        for (file, copy) in self.journal() {
            drop(std::fs::copy(file, copy));
        }
    }

    fn put_back(&self) {
        for (file, copy) in self.journal() {
            drop(std::fs::remove_file(&file));
            drop(std::fs::copy(copy, file));
        }
    }

    fn say(&self, args: &[&str], code: i32) -> String {
        self.drill.say(args).exits(code).all
    }
}

const EXECUTE: &str = "sql.execute\n    with: { sql: INSERT INTO log VALUES ('b') }";
/// Its own probe says that it was not done, which the ledger knows better.
const PROBED: &str = "sql.execute\n    with: { sql: INSERT INTO log VALUES ('b') }\n    \
    probe: { sql: SELECT count(*) AS n FROM log WHERE x = 'never', done: row.n == 1 }";
const SCRIPT: &str = "sql.script\n    with: { sql: INSERT INTO log VALUES ('b') }";

fn each(test: impl Fn(Lab)) {
    for postgres in [false, true] {
        for b in [EXECUTE, SCRIPT, PROBED] {
            test(Lab::new(postgres, b));
        }
    }
}

#[test]
fn what_a_restored_journal_has_lost_is_not_done_again() {
    each(|lab| {
        lab.drill.call("run", &["--no-wait"]).exits(4);
        lab.back_up();
        lab.say(&["signal", "last", "go", "--drive"], 4);
        assert_eq!(lab.log(), "b");
        lab.put_back();

        let told = lab.say(&["signal", "last", "go", "--drive"], 3);
        assert!(told.contains("put back from a backup"), "{told}");
        assert!(told.contains("windlass resolve"), "{told}");
        assert_eq!(lab.drill.state_of("b"), "in_doubt");
        assert_eq!(lab.log(), "b", "it acts no second time");
        // Asked again, the ledger says the same.
        lab.say(&["retry", "last", "b"], 3);
        assert_eq!(lab.log(), "b");
        lab.say(
            &["resolve", "last", "b", "--done", "--because", "it is there"],
            4,
        );
        lab.say(&["cancel", "last", "--undo"], 0);
        assert_eq!(lab.log(), "b undone");
    });
}

#[test]
fn an_undo_that_a_restored_journal_has_lost_is_not_done_again() {
    each(|lab| {
        lab.drill.call("run", &["--no-wait"]).exits(4);
        lab.say(&["signal", "last", "go", "--drive"], 4);
        lab.back_up();
        lab.say(&["cancel", "last", "--undo"], 0);
        assert_eq!(lab.log(), "b undone");
        lab.put_back();

        let told = lab.say(&["cancel", "last", "--undo"], 3);
        assert!(told.contains("put back from a backup"), "{told}");
        assert_eq!(lab.log(), "b undone", "it acts no second time");
        lab.say(
            &[
                "resolve",
                "last",
                "b",
                "--done",
                "--because",
                "it is undone",
            ],
            1,
        );
        assert_eq!(lab.drill.told()["state"], "cancelled");
        assert_eq!(lab.log(), "b undone");
    });
}

/// A step that runs again by order of a person after its undo is no lost history.
#[test]
fn what_the_journal_knows_is_no_lost_history() {
    each(|lab| {
        lab.drill.call("run", &["--no-wait"]).exits(4);
        lab.say(&["signal", "last", "go", "--drive"], 4);
        lab.say(&["signal", "last", "more", "--drive"], 0);
        lab.say(&["undo", "last"], 0);
        assert_eq!(lab.log(), "b undone");
    });
}
