//! The real program under commands from other processes, while the process that drives the run is killed and the run is resumed:
//! every command is answered once, every accepted one takes effect once, and every write happens once.
//!
//! `WINDLASS_ROUNDS=2000` is for the night; `WINDLASS_ROUND_SEED` repeats a sequence of choices, though not its instants.
#![expect(
    clippy::unwrap_used,
    reason = "what a test shares may panic as the test may"
)]
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use windlass_engine::{
    journal::{Journal, SqliteJournal},
    machine::{Command as Order, Event, EventBody, Machine, SettledBy, SkipCause, Stage},
    step::Phase,
};
use windlass_tests::program::windlass;

/// In `./test`; the night has more.
const ROUNDS: u64 = 20;
/// Commands of a round, at most.
const COMMANDS: usize = 10;
/// By so many commands copied from `show` every run comes to its end.
const WAY_OUT: usize = 60;

struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % most.max(1) as u64).unwrap()
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let at = self.below(all.len());
        all.get(at).unwrap()
    }
}

fn write(id: &str, more: &str, indent: &str) -> String {
    let item = if more.contains("foreach") {
        "-${{ item }}"
    } else {
        ""
    };
    let insert = |what: &str| {
        format!(
            "{{ sql: \"INSERT INTO writes (step, what) VALUES (:step, '{what}')\", params: {{ step: '{id}{item}' }} }}"
        )
    };
    let mut text = format!("{indent}- id: {id}\n{indent}  uses: sql.execute\n{more}");
    text += &format!("{indent}  with: {}\n", insert("do"));
    // What is in `finally` is never undone.
    if id != "bye" {
        text += &format!(
            "{indent}  undo: {{ uses: sql.execute, with: {} }}\n",
            insert("undo")
        );
    }
    text
}

/// Writes alone, in groups, in a loop, behind an approval and a signal; `finally` writes too.
fn playbook(random: &mut Random) -> String {
    let policy = random.pick(&["undo", "stop", "pause"]);
    let group = random.pick(&["", "    on_failure: continue\n", "    on_failure: pause\n"]);
    let mut text = format!(
        "playbook: commands\npolicy: {{ on_failure: {policy} }}\ntargets: {{ shop: {{ kind: sqlite }} }}\ndefaults:\n  sql.*: \
         {{ timeout: 20s, with: {{ target: shop }} }}\nsteps:\n"
    );
    text += &write("one", "", "  ");
    if random.percent(60) {
        text += "  - id: ask\n    uses: approval\n    with: { prompt: continue?, separation_of_duties: false }\n";
    }
    let budget = random.below(2);
    let each = format!(
        "    foreach: {{ items: \"[1, 2, 3, 4]\", max_parallel: 2, max_failures: {budget} }}\n"
    );
    text += &write("each", &each, "  ");
    if random.percent(50) {
        text += "  - id: hold\n    uses: wait.signal\n    with: { name: go }\n";
    }
    text += &format!("  - id: both\n{group}    steps:\n");
    text += &write("left", "", "      ");
    text += &write("right", "        needs: [left]\n", "      ");
    text += &write("last", "", "  ");
    text += "finally:\n";
    text += &write("bye", "", "  ");
    text
}

struct Round {
    folder: TempDir,
    random: Random,
    children: Vec<Child>,
    story: Vec<String>,
}

impl Round {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let environment = "default: dev\njournal: journal.db\nenvironments:\n  dev:\n    targets:\n      \
             shop: { url: 'sqlite:shop.db', busy_timeout: 20s, ledger: windlass_ledger }\n";
        std::fs::write(folder.path().join("windlass.yaml"), environment).unwrap();
        let text = playbook(&mut random);
        std::fs::write(folder.path().join("playbook.yaml"), &text).unwrap();
        let round = Self {
            folder,
            random,
            children: Vec::new(),
            story: vec![text],
        };
        round.shop().execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE writes (no INTEGER PRIMARY KEY, step TEXT, what TEXT);
             CREATE TABLE broken (step TEXT, what TEXT);
             CREATE TRIGGER breaks BEFORE INSERT ON writes
               WHEN EXISTS (SELECT 1 FROM broken WHERE NEW.step LIKE step || '%' AND what = NEW.what)
               BEGIN SELECT RAISE(ABORT, 'it is broken'); END;",
        )
        .unwrap();
        let (_, told) = round.finish(&["doctor", "dev", "--init-ledger", "--yes"]);
        assert!(!told.is_empty());
        round
    }

    fn shop(&self) -> rusqlite::Connection {
        let shop = rusqlite::Connection::open(self.path().join("shop.db")).unwrap();
        shop.busy_timeout(Duration::from_secs(20)).unwrap();
        shop
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(windlass());
        command
            .args(args)
            .current_dir(self.path())
            .env_remove("WINDLASS_JOURNAL")
            .env_remove("WINDLASS_ENV_FILE")
            .stdin(Stdio::null());
        command
    }

    fn start(&mut self, args: &[&str]) {
        self.story.push(format!("& windlass {}", args.join(" ")));
        let mut command = self.command(args);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.children.push(child.unwrap());
    }

    fn finish(&self, args: &[&str]) -> (i32, String) {
        let output = self.command(args).output().unwrap();
        let mut told = String::from_utf8_lossy(&output.stdout).into_owned();
        told.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), told)
    }

    fn kill_all(&mut self) {
        for mut child in std::mem::take(&mut self.children) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.story.push("kill -9".to_owned());
    }

    async fn journal(&self) -> Option<(SqliteJournal, String)> {
        let path = self.path().join("journal.db");
        if !path.exists() {
            return None;
        }
        let journal = SqliteJournal::open(path).unwrap();
        let run = journal.runs().await.unwrap().into_iter().next()?;
        Some((journal, run.id))
    }

    /// The lines under "next" of the page.
    fn proposed(&self) -> Vec<Vec<String>> {
        let (_, page) = self.finish(&["show", "last", "--json"]);
        let page: serde_json::Value = serde_json::from_str(&page).unwrap_or_default();
        let next = page.get("next").and_then(serde_json::Value::as_array);
        next.into_iter()
            .flatten()
            .filter_map(|next| next.get("command")?.as_str().map(words))
            .collect()
    }

    /// What a person might type: mostly what is proposed. No `resolve`: nothing is in doubt with a ledger, and a false answer to
    /// anything else makes its own wrong.
    fn some_command(&mut self) -> Vec<String> {
        let mut proposed = self.proposed();
        proposed.retain(|words| {
            !matches!(
                words.get(1).map(String::as_str),
                Some("resolve" | "watch" | "show")
            )
        });
        if !proposed.is_empty() && self.random.percent(70) {
            return self.random.pick(&proposed).clone();
        }
        let steps = [
            "one",
            "ask",
            "each",
            "each[1]",
            "hold",
            "both",
            "both/left",
            "both/right",
            "last",
            "bye",
        ];
        let step = *self.random.pick(&steps);
        let verb = *self.random.pick(&[
            "retry", "skip", "approve", "reject", "signal", "pause", "unpause", "cancel", "undo",
            "close", "resume",
        ]);
        let mut all = vec!["windlass", verb, "last"];
        match verb {
            "retry" | "approve" => all.push(step),
            "skip" | "reject" => all.extend([step, "--because", "a test"]),
            "signal" => all.push("go"),
            "close" => all.extend(["--because", "a test"]),
            "cancel" => {
                all.push(*self.random.pick(&["--undo", "--leave"]));
                if self.random.percent(30) {
                    all.push("--force");
                }
            }
            _ => {}
        }
        all.into_iter().map(str::to_owned).collect()
    }

    fn breaks(&mut self) {
        let step = *self
            .random
            .pick(&["one", "each", "each-2", "left", "right", "last", "bye"]);
        let what = if self.random.percent(75) {
            "do"
        } else {
            "undo"
        };
        self.story.push(format!("{what} of {step} is broken"));
        self.shop()
            .execute("INSERT INTO broken VALUES (?1, ?2)", [step, what])
            .unwrap();
    }

    async fn play(&mut self) {
        if self.random.percent(70) {
            self.breaks();
        }
        let most = if self.random.percent(50) { 120 } else { 600 };
        self.start(&["run", "playbook.yaml"]);
        for _ in 0..self.random.below(COMMANDS) + 1 {
            std::thread::sleep(Duration::from_millis(self.random.below(most) as u64));
            if self.random.percent(30) {
                self.kill_all();
            }
            if self.journal().await.is_none() {
                if self.children.is_empty() {
                    self.start(&["run", "playbook.yaml"]);
                }
                continue;
            }
            if self.random.percent(15) {
                self.story.push("all is whole".to_owned());
                self.shop().execute("DELETE FROM broken", []).unwrap();
            }
            let words = self.some_command();
            let mut args: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
            let is_order = !matches!(args.first(), Some(&"resume" | &"run"));
            if is_order && self.random.percent(25) {
                args.push("--queue");
            }
            self.start(&args);
            if self.random.percent(30) {
                self.start(&["resume", "last"]);
            }
        }
        std::thread::sleep(Duration::from_millis(self.random.below(most) as u64));
        self.kill_all();
    }

    /// Leads the run to its end by what `show` proposes, copied, with everything whole again.
    async fn lead_out(&mut self) {
        self.shop().execute("DELETE FROM broken", []).unwrap();
        if self.journal().await.is_none() {
            let (_, told) = self.finish(&["run", "playbook.yaml", "--no-wait"]);
            self.story.push(told);
        }
        for _ in 0..WAY_OUT {
            let found = self.journal().await;
            let (journal, run) = found.unwrap_or_else(|| panic!("no run began\n{}", self.told()));
            let events = journal.load(&run, 1).await.unwrap();
            let machine = Machine::recover(&events).unwrap();
            if machine.finished().is_some() && journal.inbox(Some(&run)).await.unwrap().is_empty() {
                return;
            }
            if machine.finished().is_some() {
                self.finish(&["resume", "last", "--no-wait"]);
                continue;
            }
            let mut proposed = self.proposed();
            // What ends a run early is one way out of several; most people want it done.
            let ends = |words: &Vec<String>| {
                matches!(
                    words.get(1).map(String::as_str),
                    Some("cancel" | "close" | "undo")
                )
            };
            if proposed.iter().any(|words| !ends(words)) && self.random.percent(80) {
                proposed.retain(|words| !ends(words));
            }
            proposed.retain(|words| {
                !matches!(
                    words.get(1).map(String::as_str),
                    Some("resolve" | "watch" | "show")
                )
            });
            assert!(
                !proposed.is_empty(),
                "nothing leads out of it\n{}",
                self.told()
            );
            let words = self.random.pick(&proposed).clone();
            let mut args: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
            if args.first() == Some(&"resume") {
                args.push("--no-wait");
            }
            let (code, told) = self.finish(&args);
            self.story
                .push(format!("windlass {} -> {code}", args.join(" ")));
            assert!(
                ![2, 5, 7, -1].contains(&code),
                "what was proposed is refused: {args:?} -> {code}: {told}\n{}",
                self.told()
            );
        }
        panic!(
            "{WAY_OUT} proposed commands lead to no end\n{}",
            self.told()
        );
    }

    fn told(&self) -> String {
        let (_, page) = self.finish(&["show", "last"]);
        format!("{}\n{page}", self.story.join("\n"))
    }

    async fn check(&self) -> usize {
        let (journal, run) = self.journal().await.unwrap();
        assert_eq!(journal.audit(&run).await.unwrap().broken, None);
        assert!(
            journal.inbox(Some(&run)).await.unwrap().is_empty(),
            "a command is not answered\n{}",
            self.told()
        );
        let events = journal.load(&run, 1).await.unwrap();
        let machine = Machine::recover(&events).unwrap();
        machine.check().unwrap();
        let accepted = once_each(&events).unwrap_or_else(|what| panic!("{what}\n{}", self.told()));
        self.writes_once(&events, &machine)
            .unwrap_or_else(|what| panic!("{what}\n{}", self.told()));
        accepted
    }

    /// Each write is there as often as the journal says that its step succeeded, and what is undone was done before.
    fn writes_once(&self, events: &[Event], machine: &Machine) -> Result<(), String> {
        let mut said: BTreeMap<(String, &str), usize> = BTreeMap::new();
        for event in events {
            if let EventBody::Succeeded(done) = &event.body
                && done.by != SettledBy::Operator
                && let Some(step) = written_by(machine, &done.node)
            {
                let what = if done.phase == Phase::Do {
                    "do"
                } else {
                    "undo"
                };
                *said.entry((step, what)).or_default() += 1;
            }
        }
        let shop = self.shop();
        let mut select = shop
            .prepare("SELECT step, what FROM writes ORDER BY no")
            .unwrap();
        let rows = select.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        });
        let mut there: BTreeMap<(String, &str), usize> = BTreeMap::new();
        for row in rows.unwrap() {
            let (step, what) = row.unwrap();
            let what = if what == "do" { "do" } else { "undo" };
            let undone = there
                .get(&(step.clone(), "undo"))
                .copied()
                .unwrap_or_default();
            let done = there
                .get(&(step.clone(), "do"))
                .copied()
                .unwrap_or_default();
            if what == "undo" && undone >= done {
                return Err(format!("{step} is undone more often than it was done"));
            }
            *there.entry((step, what)).or_default() += 1;
        }
        // A person may close a run in doubt: the journal says so, and the write is there or not.
        for one in machine.instances().filter(|_| machine.closed().is_some()) {
            for (phase, what) in [(Phase::Do, "do"), (Phase::Undo, "undo")] {
                if one.execution(phase).stage() == Stage::InDoubt
                    && let Some(step) = written_by(machine, &one.path)
                {
                    let known = said.entry((step.clone(), what)).or_default();
                    let found = there.get(&(step.clone(), what)).copied();
                    *known += usize::from(found == Some(*known + 1));
                    if *known == 0 {
                        said.remove(&(step, what));
                    }
                }
            }
        }
        if said == there {
            return Ok(());
        }
        Err(format!(
            "the journal says {said:?}, and the database has {there:?}"
        ))
    }
}

/// What a step writes as its name.
fn written_by(machine: &Machine, path: &str) -> Option<String> {
    let instance = machine.instance(path)?;
    let name = path.rsplit('/').next()?;
    match (&instance.item, name) {
        (Some((_, item)), _) => Some(format!("each-{item}")),
        (None, "each" | "both" | "ask" | "hold" | "") => None,
        (None, name) => Some(name.to_owned()),
    }
}

/// Words of a line as a shell takes them, as far as `show` prints them.
fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            (' ', None) => all.push(std::mem::take(&mut word)),
            (c, _) => word.push(c),
        }
    }
    all.push(word);
    all
}

/// Every command is answered once, and each accepted one is followed by what it means, once.
fn once_each(events: &[Event]) -> Result<usize, String> {
    let mut answered: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut ordered, mut done) = (
        BTreeMap::<&str, usize>::new(),
        BTreeMap::<&str, usize>::new(),
    );
    for event in events {
        let happened = match &event.body {
            EventBody::CommandAccepted(taken) => {
                *answered.entry(&taken.id).or_default() += 1;
                let what = match taken.command {
                    Order::Retry { .. } => "retry",
                    Order::Skip { .. } => "skip",
                    Order::Vote { .. } => "vote",
                    Order::Signal { .. } => "signal",
                    Order::Pause { .. } => "pause",
                    Order::Unpause => "unpause",
                    Order::Close { .. } => "close",
                    Order::Cancel { .. }
                    | Order::Undo
                    | Order::Resolve { .. }
                    | Order::SetInput { .. } => "end",
                };
                *ordered.entry(what).or_default() += 1;
                continue;
            }
            EventBody::CommandRefused(refused) => {
                *answered.entry(&refused.id).or_default() += 1;
                continue;
            }
            EventBody::RetryOrdered(_) => "retry",
            EventBody::Skipped(skipped) if matches!(skipped.why, SkipCause::Operator { .. }) => {
                "skip"
            }
            EventBody::Voted(_) => "vote",
            EventBody::Signalled(_) => "signal",
            EventBody::Paused(paused) if paused.who.is_some() => "pause",
            EventBody::Unpaused(_) => "unpause",
            EventBody::Closed(_) => "close",
            EventBody::Cancelled(_) => "end",
            EventBody::Reopened(reopened) if reopened.undo => "end",
            _ => continue,
        };
        *done.entry(happened).or_default() += 1;
    }
    if let Some((id, times)) = answered.iter().find(|(_, times)| **times > 1) {
        return Err(format!("command {id} is answered {times} times"));
    }
    if ordered != done {
        return Err(format!("accepted were {ordered:?}, and {done:?} happened"));
    }
    Ok(ordered.values().sum())
}

#[tokio::test]
async fn every_accepted_command_takes_effect_once() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let rounds = number("WINDLASS_ROUNDS").unwrap_or(ROUNDS);
    let first = number("WINDLASS_ROUND_SEED").unwrap_or(1);
    let mut accepted = 0;
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for seed in first..first + rounds {
        println!("WINDLASS_ROUND_SEED={seed}");
        let mut round = Round::new(seed);
        round.play().await;
        round.lead_out().await;
        accepted += round.check().await;
        let (journal, run) = round.journal().await.unwrap();
        let machine = Machine::recover(&journal.load(&run, 1).await.unwrap()).unwrap();
        assert!(
            machine.closed().is_some()
                || machine
                    .instances()
                    .all(|one| one.forward.stage() != Stage::InDoubt)
        );
        *ends.entry(machine.word().to_owned()).or_default() += 1;
    }
    println!(
        "{rounds} rounds, {accepted} commands accepted, each took effect once; ends: {ends:?}"
    );
    assert!(accepted > 0);
}
