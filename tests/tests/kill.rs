//! The real program under SIGKILL: at random instants, over a playbook that counts its writes.
//!
//! `WINDLASS_KILL_SEED` repeats a sequence of delays; the instants themselves are the machine's.
#![expect(
    clippy::unwrap_used,
    reason = "what a test shares may panic as the test may"
)]
use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use windlass_engine::{
    journal::{Journal, RunSummary, SqliteJournal},
    machine::{Machine, NodeState},
};
use windlass_tests::{program::windlass, servers::postgres::Postgres};

const PLAYBOOK: &str = r#"
playbook: counting-writes
targets:
  shop: { kind: sqlite }
defaults:
  sql.*: { timeout: 30s, with: { target: shop } }
steps:
  - id: table
    uses: sql.script
    undo: none
    with:
      sql: CREATE TABLE IF NOT EXISTS writes (run TEXT, step TEXT)
  - id: first
    uses: sql.execute
    with:
      sql: INSERT INTO writes VALUES (:run, 'first')
      params: { run: "${{ run.id }}" }
  - id: left
    needs: [first]
    uses: sql.execute
    with:
      sql: INSERT INTO writes VALUES (:run, 'left')
      params: { run: "${{ run.id }}" }
  - id: right
    needs: [first]
    uses: sql.execute
    with:
      sql: INSERT INTO writes VALUES (:run, 'right')
      params: { run: "${{ run.id }}" }
  - id: each
    needs: [left, right]
    foreach: { items: "[0, 1, 2, 3, 4, 5, 6, 7]", max_parallel: 2 }
    uses: sql.execute
    with:
      sql: INSERT INTO writes VALUES (:run, 'each[' || :item || ']')
      params: { run: "${{ run.id }}", item: "${{ item }}" }
  - id: last
    uses: sql.execute
    with:
      sql: INSERT INTO writes VALUES (:run, 'last')
      params: { run: "${{ run.id }}" }
"#;

/// The steps that write.
fn writes() -> Vec<String> {
    let items = (0..8).map(|n| format!("each[{n}]"));
    let named = ["first", "last", "left", "right"].map(str::to_owned);
    items.chain(named).collect()
}

/// Delays that a seed repeats.
struct Delays {
    state: u64,
    most: Duration,
}

impl Delays {
    fn next(&mut self) -> Duration {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.most
            .mul_f64((self.state >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

fn seed() -> u64 {
    let seed = match std::env::var("WINDLASS_KILL_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => u64::from(std::process::id()).wrapping_mul(0x9E37_79B9_7F4A_7C15),
    };
    println!("WINDLASS_KILL_SEED={seed}");
    seed | 1
}

/// A folder with the playbook, its environment and a journal.
struct Place {
    folder: TempDir,
    /// The server that is written to; without one, a SQLite file.
    server: Option<Postgres>,
    kills: usize,
    /// How many of the kills left a run unfinished.
    struck: usize,
}

impl Place {
    fn new(server: Option<Postgres>, ledger: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (target, kind) = match &server {
            None => (
                "url: 'sqlite:shop.db', create: true, busy_timeout: 20s".to_owned(),
                "sqlite",
            ),
            Some(server) => (
                format!("url: '{}', tls: off", server.url("postgres")),
                "postgres",
            ),
        };
        let ledger = if ledger {
            ", ledger: windlass_ledger"
        } else {
            ""
        };
        let environment = format!(
            "default: dev\njournal: journal.db\nenvironments:\n  dev:\n    targets:\n      \
             shop: {{ {target}{ledger} }}\n"
        );
        let playbook = PLAYBOOK.replace("kind: sqlite", &format!("kind: {kind}"));
        std::fs::write(folder.path().join("windlass.yaml"), environment).unwrap();
        std::fs::write(folder.path().join("playbook.yaml"), playbook).unwrap();
        Self {
            folder,
            server,
            kills: 0,
            struck: 0,
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn start(&self, args: &[&str]) -> Child {
        Command::new(windlass())
            .args(args)
            .current_dir(self.path())
            .env_remove("WINDLASS_JOURNAL")
            .env_remove("WINDLASS_ENV_FILE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs the program to its end: its exit code.
    fn finish(&self, args: &[&str]) -> (i32, String) {
        let output = self.start(args).wait_with_output().unwrap();
        let mut told = String::from_utf8_lossy(&output.stdout).into_owned();
        told.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), told)
    }

    /// Runs the program for a while: its exit code, or none where it was killed.
    fn kill_after(&mut self, args: &[&str], delay: Duration) -> Option<(i32, String)> {
        let mut child = self.start(args);
        std::thread::sleep(delay);
        // SIGKILL; one that has ended by itself keeps its code.
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.signal() == Some(9) {
            self.kills += 1;
            return None;
        }
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        Some((output.status.code().unwrap(), told))
    }

    async fn newest(&self) -> Option<(RunSummary, Machine)> {
        let path = self.path().join("journal.db");
        if !path.exists() {
            return None;
        }
        let journal = SqliteJournal::open(path).unwrap();
        let run = journal.runs().await.unwrap().into_iter().next()?;
        let audit = journal.audit(&run.id).await.unwrap();
        assert_eq!(audit.broken, None, "a kill broke the chain of {}", run.id);
        let events = journal.load(&run.id, 1).await.unwrap();
        Some((run, Machine::recover(&events).unwrap()))
    }

    /// How often each step of a run wrote.
    fn written(&self, run: &str) -> BTreeMap<String, u32> {
        if let Some(server) = &self.server {
            if !self.table_exists() {
                return BTreeMap::new();
            }
            let rows = server.ask(&format!(
                "SELECT step, count(*) FROM writes WHERE run = '{run}' GROUP BY step"
            ));
            let pairs = rows.lines().map(|row| row.split_once('\t').unwrap());
            return pairs
                .map(|(step, count)| (step.to_owned(), count.parse().unwrap()))
                .collect();
        }
        let shop = rusqlite::Connection::open(self.path().join("shop.db")).unwrap();
        shop.busy_timeout(Duration::from_secs(20)).unwrap();
        let made = "SELECT 1 FROM sqlite_master WHERE name = 'writes'";
        if !shop.prepare(made).unwrap().exists([]).unwrap() {
            return BTreeMap::new();
        }
        let mut select = shop
            .prepare("SELECT step, count(*) FROM writes WHERE run = ?1 GROUP BY step")
            .unwrap();
        let counts = select.query_map([run], |row| Ok((row.get(0)?, row.get(1)?)));
        counts.unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn table_exists(&self) -> bool {
        if let Some(server) = &self.server {
            return server.ask("SELECT to_regclass('writes') IS NOT NULL") == "t";
        }
        let shop = rusqlite::Connection::open(self.path().join("shop.db")).unwrap();
        let made = "SELECT 1 FROM sqlite_master WHERE name = 'writes'";
        shop.prepare(made).unwrap().exists([]).unwrap()
    }

    /// Settles every doubt of a run as the database has it; how many there were.
    async fn resolve(&self, run: &str) -> usize {
        let mut doubts = 0;
        loop {
            let (_, machine) = self.newest().await.unwrap();
            let doubted = machine
                .instances()
                .find(|instance| instance.state == NodeState::InDoubt)
                .map(|instance| instance.path.to_string());
            let Some(path) = doubted else {
                return doubts;
            };
            doubts += 1;
            assert!(doubts < 100, "doubts without end");
            let done = match path.as_str() {
                "table" => self.table_exists(),
                path => self.written(run).contains_key(path),
            };
            let verdict = if done { "--done" } else { "--not-done" };
            let because = ["--because", "looked at the table", "--queue"];
            let args = [&["resolve", run, &path, verdict], &because[..]].concat();
            let (code, told) = self.finish(&args);
            assert_eq!(code, 0, "{told}");
            let (code, told) = self.finish(&["resume", run]);
            assert!(code == 0 || code == 3, "{code}: {told}");
        }
    }
}

/// One run, killed up to `kills` times and then driven to its end; how many doubts were told.
async fn one_life(place: &mut Place, delays: &mut Delays, kills: usize, may_doubt: bool) -> usize {
    let before = place.newest().await.map(|(run, _)| run.id);
    let mut doubts = 0;
    for _ in 0..kills {
        let newest = place.newest().await;
        let current = newest.filter(|(run, _)| Some(&run.id) != before.as_ref());
        let ended = match &current {
            None => place.kill_after(&["run", "playbook.yaml"], delays.next()),
            Some((run, machine)) if machine.finished().is_none() => {
                place.struck += 1;
                assert_eq!(run.holder, None, "a lease outlived its process");
                place.kill_after(&["resume", &run.id], delays.next())
            }
            Some(_) => break,
        };
        match ended {
            None | Some((0, _)) => {}
            Some((3, _)) if may_doubt => {
                let (run, _) = place.newest().await.unwrap();
                doubts += place.resolve(&run.id).await;
            }
            Some((code, told)) => panic!("{code}: {told}"),
        }
    }
    let newest = place.newest().await;
    let current = newest.filter(|(run, _)| Some(&run.id) != before.as_ref());
    let (code, told) = match &current {
        None => place.finish(&["run", "playbook.yaml"]),
        Some((_, machine)) if machine.finished().is_some() => (0, String::new()),
        Some((run, _)) => {
            place.struck += 1;
            place.finish(&["resume", &run.id])
        }
    };
    assert!(code == 0 || may_doubt && code == 3, "{code}: {told}");
    let (run, _) = place.newest().await.unwrap();
    doubts += place.resolve(&run.id).await;
    let (run, machine) = place.newest().await.unwrap();
    assert_eq!(run.state, "succeeded");
    assert!(machine.finished().is_some());
    let once = writes().into_iter().map(|step| (step, 1)).collect();
    assert_eq!(place.written(&run.id), once, "run {}", run.id);
    doubts
}

/// As long as a whole run takes here, and a little more.
#[expect(
    clippy::disallowed_methods,
    reason = "the instants of the kills are spread over the time that the program takes"
)]
fn whole_run(place: &Place) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..2 {
        let begin = std::time::Instant::now();
        let (code, told) = place.finish(&["run", "playbook.yaml"]);
        assert_eq!(code, 0, "{told}");
        took = begin.elapsed();
    }
    took.mul_f64(1.1)
}

/// `WINDLASS_KILLS` makes it more.
fn at_least(default: usize) -> usize {
    let given = std::env::var("WINDLASS_KILLS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn many_kills(mut place: Place, kills: usize, may_doubt: bool) -> usize {
    let most = whole_run(&place);
    let state = seed();
    let mut delays = Delays { state, most };
    let mut doubts = 0;
    while place.kills < kills {
        doubts += one_life(&mut place, &mut delays, 12, may_doubt).await;
    }
    println!(
        "{} kills, {} of them with a run under way, {doubts} doubts told; a whole run takes {most:?}",
        place.kills, place.struck
    );
    assert!(
        place.struck > kills / 4,
        "too few kills met a run: {}",
        place.struck
    );
    doubts
}

#[tokio::test]
async fn with_a_ledger_every_write_happens_exactly_once() {
    let doubts = many_kills(Place::new(None, true), at_least(200), false).await;
    assert_eq!(doubts, 0);
}

#[tokio::test]
async fn without_a_ledger_a_write_happens_exactly_once_or_is_told_as_in_doubt() {
    many_kills(Place::new(None, false), at_least(200), true).await;
}

#[tokio::test]
async fn on_postgres_with_a_ledger_every_write_happens_exactly_once() {
    let server = Postgres::start(&[]);
    server.make_ledger();
    let doubts = many_kills(Place::new(Some(server), true), at_least(60), false).await;
    assert_eq!(doubts, 0);
}

#[tokio::test]
async fn on_postgres_the_transaction_itself_tells() {
    let server = Postgres::start(&[]);
    let doubts = many_kills(Place::new(Some(server), false), at_least(60), false).await;
    assert_eq!(doubts, 0);
}
