//! A target that was put back from a backup: of what it has lost, its ledger knows nothing, and no undo takes it back a second
//! time.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]
use rusqlite::Connection;
use windlass_tests::drill::Drill;

struct Lab(Drill);

impl Lab {
    /// Adds 100 to what is in the target `db`. Its undo has two steps, and the first is on another target.
    fn new(kind: &str, ledger: &str) -> Self {
        let drill = Drill::of(&format!(
            "
playbook: restored
targets: {{ db: {{ kind: sqlite }}, books: {{ kind: sqlite }} }}
defaults: {{ sql.*: {{ with: {{ all_rows: true }} }} }}
steps:
  - id: add
    uses: {kind}
    with: {{ target: db, sql: UPDATE acct SET v = v + 100 }}
    undo:
      - uses: sql.execute
        with: {{ target: books, sql: UPDATE acct SET v = v + 1 }}
      - uses: {kind}
        with: {{ target: db, sql: UPDATE acct SET v = v - 100 }}
"
        ));
        drill.environment(&format!(
            "    targets:\n      db: {{ url: 'sqlite:db.sqlite'{ledger} }}\n      books: {{ url: 'sqlite:books.sqlite'{ledger} }}\n"
        ));
        let lab = Self(drill);
        for name in ["db", "books"] {
            let made = "CREATE TABLE acct (v INTEGER); INSERT INTO acct VALUES (1)";
            lab.file(name).execute_batch(made).unwrap();
        }
        lab
    }

    fn file(&self, name: &str) -> Connection {
        Connection::open(self.0.path().join(format!("{name}.sqlite"))).unwrap()
    }

    /// What is in `db` and in `books`.
    fn balances(&self) -> [i64; 2] {
        ["db", "books"].map(|name| {
            let file = self.file(name);
            file.query_row("SELECT v FROM acct", [], |row| row.get(0))
                .unwrap()
        })
    }

    /// The run, after which `db` is as it was before, in the same file.
    fn run_and_put_back(&self) {
        let [file, copy] = ["db.sqlite", "copy"].map(|name| self.0.path().join(name));
        std::fs::copy(&file, &copy).unwrap();
        self.0.call("run", &[]).exits(0);
        assert_eq!(self.balances(), [101, 1]);
        std::fs::copy(&copy, &file).unwrap();
        assert_eq!(self.balances(), [1, 1]);
    }

    fn say(&self, args: &[&str], code: i32) -> String {
        self.0.say(args).exits(code).all
    }
}

const LEDGER: &str = ", ledger: windlass_ledger";

#[test]
fn what_the_ledger_of_a_restored_target_has_lost_is_not_undone() {
    for kind in ["sql.execute", "sql.script"] {
        let lab = Lab::new(kind, LEDGER);
        lab.run_and_put_back();
        let told = lab.say(&["undo", "last"], 3);
        let lost =
            "the ledger windlass_ledger of db does not hold the row of attempt 1 of this step";
        assert!(told.contains(lost), "{told}");
        assert!(!told.contains("compensated"), "{told}");
        assert_eq!(lab.0.told()["state"], "stuck");
        // The other target was not asked for what it never had.
        assert_eq!(lab.balances(), [1, 2]);
        // Asked again, the ledger says the same.
        lab.say(&["retry", "last", "add"], 3);
        assert_eq!(lab.balances(), [1, 2]);
        let because = "the backup is of before the step";
        lab.say(
            &["resolve", "last", "add", "--done", "--because", because],
            1,
        );
        assert_eq!(lab.0.told()["state"], "compensated");
        assert_eq!(lab.balances(), [1, 2]);
    }
}

#[test]
fn what_the_ledger_has_again_is_undone_by_a_retry() {
    let lab = Lab::new("sql.execute", LEDGER);
    let [file, copy] = ["db.sqlite", "copy"].map(|name| lab.0.path().join(name));
    std::fs::copy(&file, &copy).unwrap();
    lab.0.call("run", &[]).exits(0);
    let after = std::fs::read(&file).unwrap();
    std::fs::copy(&copy, &file).unwrap();
    lab.say(&["undo", "last"], 3);
    std::fs::write(&file, after).unwrap();
    lab.say(&["retry", "last", "add"], 1);
    assert_eq!(lab.0.told()["state"], "compensated");
    assert_eq!(lab.balances(), [1, 2]);
}

#[test]
fn what_the_ledger_holds_is_undone() {
    let lab = Lab::new("sql.execute", LEDGER);
    lab.0.call("run", &[]).exits(0);
    lab.say(&["undo", "last"], 0);
    assert_eq!(lab.0.told()["state"], "compensated");
    assert_eq!(lab.balances(), [1, 2]);
}

/// Nothing there says whether the target has lost anything.
#[test]
fn without_a_ledger_an_undo_asks_nothing() {
    let lab = Lab::new("sql.execute", "");
    lab.run_and_put_back();
    lab.say(&["undo", "last"], 0);
    assert_eq!(lab.balances(), [-99, 2]);
}
