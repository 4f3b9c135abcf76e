//! The player: a journal, a driver, an inbox, a clock, and a process that dies at any moment.
use super::{
    Coverage, Random, Spec, Violation, adapter,
    adapter::{Engine, Job},
    commands, graphs,
    oracle::{Check, Oracle, Stand, Verdict, wrong},
    world::{self, Flight, Move, Slot, World},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};
use windlass_engine::{
    graph::Graph,
    machine::{CANNOT_BE_DONE, Command, Event, EventBody, Report, Submitted},
    step::Phase,
    value::{Duration, Timestamp, Value},
};

/// How many events may follow one another without anything from outside.
const LIVELOCK: usize = 3_000;

/// Of so many runs one is compared with its replay after every append; the others where the process dies and at the end.
const COMPARE: u64 = 32;

/// Whether wrong answers are passed over, so that what follows from them is seen.
static FORGIVE: LazyLock<bool> =
    LazyLock::new(|| std::env::var("WINDLASS_SIM_FORGIVE").is_ok_and(|text| text == "commands"));

pub(super) const PEOPLE: [&str; 4] = ["ana", "bo", "cy", "di"];

/// A command in the inbox, and the move from which on the driver sees it.
struct Entry {
    from: usize,
    submitted: Submitted,
}

pub(super) struct Play {
    spec: Spec,
    pub random: Random,
    graph: Arc<Graph>,
    pub engine: Engine,
    /// What is durable.
    journal: Vec<Event>,
    /// Applied, and not yet durable.
    batch: Vec<Event>,
    pub oracle: Oracle,
    pub world: World,
    pub flights: Vec<Flight>,
    inbox: Vec<Entry>,
    /// Events of attempts that were told to end before they began.
    unbegun: Vec<Event>,
    /// Executions whose driver is gone, and which may answer it all the same.
    late: Vec<Job>,
    taken: BTreeSet<String>,
    sent: BTreeMap<String, Command>,
    pub now: Timestamp,
    /// Of what happens to the wall clock; none in a run in which it is never set.
    clock: Option<Random>,
    /// The offset at which the driver last looked at the wall clock.
    offset: i64,
    /// Who waits for an instant has not looked at it again since the clock was set.
    looks: bool,
    epoch: u64,
    moves: usize,
    /// How many executions of a hundred fail.
    pub failing: usize,
    /// How many appends of a thousand kill the process.
    pub crashing: usize,
    pub coverage: Coverage,
    tell: bool,
    told: Vec<String>,
}

impl Play {
    pub(super) fn new(spec: Spec, tell: bool) -> Self {
        let graph = graphs::graph(spec.seed, spec.size);
        let now = Timestamp::UNIX_EPOCH;
        let first = adapter::started(&graph, now);
        let mut random = Random::new(spec.seed);
        let failing = [0, 10, 20, 35][random.below(4)];
        let crashing = [0, 0, 15, 60][random.below(4)];
        let journal = vec![first];
        Self {
            spec,
            engine: Engine::recover(&journal).unwrap(),
            oracle: Oracle::new(&graph),
            graph,
            journal,
            batch: Vec::new(),
            random,
            world: World::default(),
            flights: Vec::new(),
            inbox: Vec::new(),
            unbegun: Vec::new(),
            late: Vec::new(),
            taken: BTreeSet::new(),
            sent: BTreeMap::new(),
            now,
            clock: spec
                .seed
                .is_multiple_of(6)
                .then(|| Random::new(spec.seed ^ 0xc10c)),
            offset: 0,
            looks: false,
            epoch: 1,
            moves: 0,
            failing,
            crashing,
            coverage: Coverage::default(),
            tell,
            told: Vec::new(),
        }
    }

    pub(super) fn run(&mut self) -> Check {
        for _ in 0..self.spec.moves {
            self.one_move()?;
            if self.engine.finished().is_some() && self.random.percent(30) {
                break;
            }
        }
        self.end_game()?;
        // Commands to a run that is over: most are refused, some open it again.
        for _ in 0..self.random.below(4) {
            if self.sent.len() < self.spec.commands {
                let command = self.some_command();
                self.send(command, 0);
                self.take_inbox()?;
                self.end_game()?;
            }
        }
        self.last_look()
    }

    fn last_look(&mut self) -> Check {
        for (id, command) in &self.sent {
            if !self.oracle.answered.contains_key(id) {
                return wrong("P2", format!("{id} was never answered: {command:?}"));
            }
        }
        let outcome = self.engine.finished();
        *self
            .coverage
            .outcomes
            .entry(format!("{outcome:?}"))
            .or_default() += 1;
        if !self.engine.wanted().is_empty() || !self.flights.is_empty() {
            return wrong("P11", "the run is over, and something is in flight");
        }
        // What is stored is read again as text.
        let stored: Vec<Event> = self
            .journal
            .iter()
            .skip(1)
            .map(|event| serde_json::from_str(&serde_json::to_string(event).unwrap()).unwrap())
            .collect();
        let events: Vec<Event> = self.journal.iter().take(1).cloned().chain(stored).collect();
        self.same_as(&events, "at the end")
    }

    fn same_as(&self, events: &[Event], when: &str) -> Check {
        match Engine::recover(events) {
            Err(why) => wrong(
                "P1",
                format!("{when}: the events cannot be replayed: {why}"),
            ),
            Ok(again) if again == self.engine => Ok(()),
            Ok(again) => {
                let (live, again) = (self.engine.face(self.now), again.face(self.now));
                let differ = live.lines().zip(again.lines()).find(|(a, b)| a != b);
                wrong(
                    "P1",
                    format!("{when}: replay differs from live: {differ:?}"),
                )
            }
        }
    }

    // ---- the driver ----------------------------------------------------------------------------------

    /// What is due is decided, appended, and what is wanted is started.
    pub(super) fn turn(&mut self) -> Check {
        self.wake_by_the_clock()?;
        self.settle(self.now)?;
        if self.commit()? {
            self.reconcile();
            for event in std::mem::take(&mut self.unbegun) {
                self.push(event)?;
            }
        }
        Ok(())
    }

    /// The driver notices that the wall clock was set.
    fn look_at_the_clock(&mut self) -> Check {
        if self.engine.finished().is_some() {
            return Ok(());
        }
        let by = self.world.ahead - self.offset;
        if by.abs() >= 1_000 {
            self.offset = self.world.ahead;
            self.push(adapter::clock_stepped(self.now, by, self.world.ahead))?;
        }
        self.looks = true;
        Ok(())
    }

    fn wake_by_the_clock(&mut self) -> Check {
        if !self.looks || self.engine.is_held_up() {
            return Ok(());
        }
        self.looks = false;
        for event in self.engine.woken_by_clock(self.now, self.world.ahead) {
            self.push(event)?;
        }
        Ok(())
    }

    /// A person, or a time server, sets the wall clock.
    fn set_clock(&mut self) -> Check {
        let Some(random) = &mut self.clock else {
            return Ok(());
        };
        if !random.percent(6) {
            return Ok(());
        }
        let span = *random.pick(&[5_000, 100_000, 90_000_000]).unwrap_or(&5_000);
        let by = i64::try_from(1_000 + random.below(span)).unwrap_or(0);
        self.world.ahead += if random.percent(50) { by } else { -by };
        self.say(&format!("-- the clock is {} ms ahead", self.world.ahead));
        self.look_at_the_clock()
    }

    fn settle(&mut self, until: Timestamp) -> Check {
        for _ in 0..LIVELOCK {
            let Some(event) = self.engine.next_event(until) else {
                return Ok(());
            };
            self.push(event)?;
        }
        wrong("P8", "events follow one another without end")
    }

    fn push(&mut self, event: Event) -> Check {
        let engine = &self.engine;
        let seen = Coverage::pair(&event, |path, phase| engine.stage(path, phase));
        self.oracle.check_wall(&event, self.world.ahead)?;
        let applied = self.engine.apply(&event);
        if applied.is_ok() {
            self.coverage.see(&event, seen);
        }
        if self.tell && applied.is_err() {
            self.say(&format!("ILLEGAL {}", short(&event)));
        }
        self.batch.push(event);
        match applied {
            Ok(()) => match self.engine.check() {
                Ok(()) => Ok(()),
                Err(what) => {
                    self.say_batch();
                    wrong("P1", what)
                }
            },
            Err(why) => {
                // What was decided before is told, so that the story is whole.
                let batch = std::mem::take(&mut self.batch);
                for event in &batch {
                    self.say(&short(event));
                }
                wrong("P1", format!("an event that cannot be applied: {why}"))
            }
        }
    }

    /// Whether the process lives on.
    pub(super) fn commit(&mut self) -> Result<bool, Box<Violation>> {
        if self.batch.is_empty() {
            return Ok(true);
        }
        let (before, after) = (self.dies(), self.dies());
        if before {
            self.say("-- the process dies before an append");
            self.crash()?;
            return Ok(false);
        }
        let batch = std::mem::take(&mut self.batch);
        for event in &batch {
            self.say(&short(event));
            if let EventBody::CommandAccepted(taken) = &event.body {
                self.answered(&taken.id, &taken.command, true);
            }
            if let EventBody::CommandRefused(refused) = &event.body {
                self.answered(&refused.id, &refused.command, false);
            }
            self.oracle.observe(event, &mut self.world)?;
        }
        self.journal.extend(batch);
        if after || self.spec.seed.is_multiple_of(COMPARE) {
            self.same_as(&self.journal, "after an append")?;
        }
        if after {
            self.say("-- the process dies after an append");
            self.crash()?;
            return Ok(false);
        }
        for flight in &mut self.flights {
            flight.waiting = false;
        }
        Ok(true)
    }

    fn answered(&mut self, id: &str, command: &Command, accepted: bool) {
        self.inbox.retain(|entry| entry.submitted.id != id);
        let key = (commands::name(command).to_owned(), accepted);
        *self.coverage.commands.entry(key).or_default() += 1;
    }

    fn dies(&mut self) -> bool {
        self.crashing > 0 && self.random.below(1_000) < self.crashing
    }

    fn crash(&mut self) -> Check {
        self.coverage.crashes += 1;
        for flight in std::mem::take(&mut self.flights) {
            flight.orphan(&mut self.world);
            self.late.push(flight.job);
        }
        self.batch.clear();
        self.taken.clear();
        self.engine = match Engine::recover(&self.journal) {
            Ok(engine) => engine,
            Err(why) => {
                return wrong(
                    "P1",
                    format!("the durable events cannot be replayed: {why}"),
                );
            }
        };
        self.epoch += 1;
        // Its time begins with the wall clock, and never before what is written.
        let wall = Duration::from_millis(self.world.ahead).after(self.now);
        self.now = self.now.max(wall);
        self.world.ahead = self.world.ahead.min(0);
        self.offset = 0;
        let lease = adapter::lease(self.epoch, self.now);
        self.push(lease)?;
        for event in std::mem::take(&mut self.batch) {
            self.say(&short(&event));
            self.oracle.observe(&event, &mut self.world)?;
            self.journal.push(event);
        }
        if self.clock.is_some() {
            self.look_at_the_clock()?;
        }
        Ok(())
    }

    fn reconcile(&mut self) {
        let wanted = self.engine.wanted();
        for flight in &mut self.flights {
            flight.cancelled |= !wanted.contains(&flight.job);
        }
        let mut never = Vec::new();
        for job in self.engine.unwanted() {
            if !self.flights.iter().any(|flight| flight.job == job) {
                never.push(job);
            }
        }
        for job in never {
            let report = self.engine.unbegun(&job);
            self.unbegun
                .extend(self.engine.report(&job, report, self.now));
        }
        for job in wanted {
            if !self.flights.iter().any(|flight| flight.job == job) {
                self.start(job);
            }
        }
    }

    fn start(&mut self, job: Job) {
        let brief = self.engine.brief(&job);
        let Some(node) = self.oracle.node(&brief.path) else {
            return;
        };
        let Some((action, auto)) = world::action(node, brief.phase, brief.part) else {
            return;
        };
        let flight = Flight::new(job, brief, action, auto, &mut self.random, self.failing);
        self.flights.push(flight);
    }

    // ---- moves ---------------------------------------------------------------------------------------

    fn one_move(&mut self) -> Check {
        self.moves += 1;
        self.set_clock()?;
        if self.random.percent(75) {
            self.turn()?;
        }
        let ready = self.flights.iter().any(|flight| !flight.waiting);
        match self.random.below(100) {
            0..=54 if ready => self.fly(),
            0..=54 => self.pass_time(),
            55..=72 if self.sent.len() < self.spec.commands => {
                let command = self.some_command();
                let late = self.random.below(8);
                self.send(command, late);
                Ok(())
            }
            55..=84 => self.take_inbox(),
            85..=93 => self.pass_time(),
            94..=95 => self.stray(),
            96..=97 => self.late_answer(),
            _ if self.dies() || self.random.percent(10) && self.crashing > 0 => {
                self.say("-- the process dies");
                self.crash()
            }
            _ => Ok(()),
        }
    }

    /// An attempt that was lost answers: it counts no more, whatever has become of its step.
    fn late_answer(&mut self) -> Check {
        if self.late.is_empty() {
            return Ok(());
        }
        let at = self.random.below(self.late.len());
        let job = self.late.swap_remove(at);
        if self.engine.wanted().contains(&job) {
            return Ok(());
        }
        let done = Report::Done {
            output: Value::Int(7),
            evidence: Vec::new(),
        };
        match self.engine.report(&job, done, self.now).first() {
            Some(event) => wrong("P10", format!("a late answer counts: {}", short(event))),
            None => Ok(()),
        }
    }

    pub(super) fn stray(&mut self) -> Check {
        self.world.stray(&mut self.random);
        self.look_outside()
    }

    fn look_outside(&mut self) -> Check {
        match self.world.wrong.take() {
            Some(what) => wrong("P5", what),
            None => Ok(()),
        }
    }

    pub(super) fn pass_time(&mut self) -> Check {
        let ms = i64::try_from(1 + self.random.below(60)).unwrap_or(1);
        let by = Duration::from_millis(ms).after(self.now);
        self.now = match self.engine.next_timer() {
            Some(at) if at > self.now && self.random.percent(70) => at,
            // Long enough for windows to close.
            _ if !self.graph.policy.windows.is_empty() && self.random.percent(30) => {
                Duration::from_secs(40).after(self.now)
            }
            _ => by,
        };
        Ok(())
    }

    /// One execution does one thing.
    pub(super) fn fly(&mut self) -> Check {
        let ready: Vec<usize> = (0..self.flights.len())
            .filter(|at| self.flights.get(*at).is_some_and(|f| !f.waiting))
            .collect();
        let Some(at) = self.random.pick(&ready).copied() else {
            return Ok(());
        };
        let mut flight = self.flights.swap_remove(at);
        let next = flight.next(&mut self.world, &mut self.random, self.now);
        self.look_outside()?;
        match next {
            Move::Acted => self.flights.push(flight),
            Move::Tell(report) => {
                let events = self.engine.report(&flight.job, report, self.now);
                if events.is_empty() {
                    // It no longer counts, is told so, and does not act.
                    let slot = Slot::of(flight.brief.phase, flight.brief.part);
                    self.world
                        .forbid(&flight.brief.path, slot, flight.brief.attempt);
                    return Ok(());
                }
                flight.waiting = true;
                self.flights.push(flight);
                for event in events {
                    self.push(event)?;
                }
            }
            Move::End(report) => {
                for event in self.engine.report(&flight.job, report, self.now) {
                    self.push(event)?;
                }
            }
        }
        Ok(())
    }

    // ---- people --------------------------------------------------------------------------------------

    fn some_command(&mut self) -> Command {
        let mut proposed = commands::proposals(&self.oracle);
        if self.random.percent(70) {
            // Most of the time people want the run to go on.
            proposed.retain(|command| !matches!(command, Command::Cancel { .. } | Command::Undo));
        }
        match self.random.pick(&proposed).cloned() {
            Some(command) if self.random.percent(55) => command,
            _ => commands::arbitrary(&self.engine, &mut self.random),
        }
    }

    pub(super) fn send(&mut self, command: Command, late: usize) -> String {
        let who = self.random.pick(&PEOPLE).copied().unwrap_or("ana");
        self.send_as(who, command, late)
    }

    pub(super) fn send_as(&mut self, who: &str, command: Command, late: usize) -> String {
        let id = format!("c{:03}", self.sent.len());
        self.say(&format!("-- {who} sends {id}: {command:?}"));
        self.sent.insert(id.clone(), command.clone());
        self.inbox.push(Entry {
            from: self.moves + late,
            submitted: Submitted {
                id: id.clone(),
                run: "r".to_owned(),
                who: who.to_owned(),
                account: None,
                at: self.now,
                command,
            },
        });
        id
    }

    pub(super) fn has_mail(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Takes every command that has arrived, each at its own time.
    pub(super) fn take_inbox(&mut self) -> Check {
        let waiting: Vec<Submitted> = self
            .inbox
            .iter()
            .filter(|entry| entry.from <= self.moves)
            .map(|entry| entry.submitted.clone())
            .collect();
        self.moves += 1;
        for submitted in waiting {
            if !self.taken.insert(submitted.id.clone()) {
                continue;
            }
            while let Some(event) = self.engine.next_wake(submitted.at.min(self.now)) {
                self.push(event)?;
            }
            let looks = matches!(submitted.command, Command::Resolve { .. });
            if (looks || self.random.percent(70)) && !self.commit()? {
                return Ok(());
            }
            self.obey(submitted)?;
        }
        Ok(())
    }

    fn obey(&mut self, mut submitted: Submitted) -> Check {
        let at = submitted.at.min(self.now);
        self.look_before(&mut submitted.command);
        let verdict = if self.batch.is_empty() && !*FORGIVE {
            self.oracle.verdict(&submitted)
        } else {
            Verdict::Either
        };
        let events = self.engine.command(&submitted, at);
        let accepted = matches!(
            events.first().map(|event| &event.body),
            Some(EventBody::CommandAccepted(_))
        );
        let face = (!accepted && self.random.percent(15)).then(|| self.engine.face(self.now));
        let reason = match events.first().map(|event| &event.body) {
            Some(EventBody::CommandRefused(refused)) => refused.reason.clone(),
            _ => String::new(),
        };
        if reason.starts_with(CANNOT_BE_DONE) {
            return wrong(
                "commands",
                format!(
                    "no rule refuses it, and it cannot be applied: {:?}: {reason}",
                    submitted.command
                ),
            );
        }
        let was_over = self.engine.finished().is_some();
        for event in events {
            self.push(event)?;
        }
        if was_over && self.engine.finished().is_none() && self.clock.is_some() {
            self.look_at_the_clock()?;
        }
        if face.is_some_and(|face| face != self.engine.face(self.now)) {
            return wrong(
                "P2",
                format!(
                    "a refused command changed the machine: {:?}",
                    submitted.command
                ),
            );
        }
        let what = format!("{} {:?}", submitted.id, submitted.command);
        match verdict {
            Verdict::Accept if !accepted => {
                self.say_batch();
                wrong(
                    "commands",
                    format!("refused, and must be accepted: {what}: {reason}"),
                )
            }
            Verdict::Refuse(why) if accepted => {
                self.say_batch();
                wrong(
                    "commands",
                    format!("accepted, and must be refused ({why}): {what}"),
                )
            }
            Verdict::Accept | Verdict::Refuse(_) | Verdict::Either => Ok(()),
        }
    }

    /// Who settles a doubt looks at the world first, and makes sure that what is not done stays so.
    fn look_before(&mut self, command: &mut Command) {
        let Command::Resolve {
            node, done, output, ..
        } = command
        else {
            return;
        };
        let path: Arc<str> = node.as_str().into();
        for phase in [Phase::Undo, Phase::Do] {
            let exec = self.oracle.exec_of(&path, phase);
            if exec.stand != Stand::Doubt {
                continue;
            }
            let slot = Slot::of(phase, exec.part);
            *done = self.world.did(&path, slot, exec.attempt);
            if *done && output.is_null() {
                *output = Value::Int(7);
            }
            if !*done {
                self.world.forbid(&path, slot, exec.attempt);
            }
            return;
        }
    }

    // ---- the story -----------------------------------------------------------------------------------

    pub(super) fn say(&mut self, what: &str) {
        if self.tell {
            self.told.push(what.to_owned());
        }
    }

    fn say_batch(&mut self) {
        let lines: Vec<String> = self.batch.iter().map(short).collect();
        for line in lines {
            self.say(&line);
        }
    }

    pub(super) fn story(&self) -> String {
        if !self.tell {
            return String::new();
        }
        format!(
            "WINDLASS_SIM_SEED={}\n{}\n{}\n",
            self.spec,
            graphs::brief(&self.graph),
            self.told.join("\n")
        )
    }
}

fn short(event: &Event) -> String {
    let text = serde_json::to_string(&event.body).unwrap();
    let cut: String = text.chars().take(260).collect();
    let at = event.at.as_millisecond();
    format!("{at:>6} {cut}")
}
