//! How a run is told while it goes on: a live tree on a terminal, lines in a pipe, events as JSON.
use crate::{
    clock,
    error::CliError,
    output,
    session::{self, Session},
    ui::{
        Style, Ui, again, indented,
        live::Live,
        next::{quoted, run_of},
        stamp,
        tree::Seen,
        words::{self, Line},
    },
};
use std::collections::HashMap;
use windlass_engine::{
    journal::{Journal, PrintedOf},
    machine::{Event, EventBody, Instance, Machine, RunState, SkipCause},
    report::{
        output::LastLines,
        progress::{self, Progress, is_long, long_loop},
    },
    step::{Registry, WaitOn},
    value::{Duration, Timestamp},
};

/// How often the journal is asked what steps printed.
const LOOK: Duration = Duration::from_millis(300);
/// Lines of output under a failure.
const LINES: usize = 5;

/// A loop tells how far it is each tenth of the time that it runs already, between these bounds.
const OFTEN: Duration = Duration::from_secs(5);
const SELDOM: Duration = Duration::from_secs(60);
/// How often it is looked whether one is due.
const EACH: Duration = Duration::from_secs(1);

enum Mode {
    Live(Live),
    Lines,
    Json,
    Quiet,
}

/// Follows a run and tells it.
pub(crate) struct Reporter<'s> {
    ui: &'s Ui,
    registry: &'s Registry,
    run: String,
    mode: Mode,
    machine: Option<Machine>,
    /// The fate of a command that this process sent, once it is known.
    verdict: Option<Result<(), String>>,
    watched: Option<String>,
    /// What steps printed last.
    output: LastLines,
    looked: Option<Timestamp>,
    /// Since when the process that drives the run does so.
    since: Option<Timestamp>,
    /// When each loop was last told, and how far it was.
    told: HashMap<String, (Timestamp, usize)>,
    /// When the loops were last looked at: a run of many steps has many events a second.
    counted: Option<Timestamp>,
}

impl<'s> Reporter<'s> {
    /// For a run of this id; `json` tells events.
    pub(crate) fn new(session: &'s Session, run: &str, json: bool) -> Self {
        let ui = &session.ui;
        let mode = match (json, ui.is_live, ui.quiet) {
            (true, _, _) => Mode::Json,
            (false, true, _) => Mode::Live(Live::default()),
            (false, false, false) => Mode::Lines,
            (false, false, true) => Mode::Quiet,
        };
        Self {
            ui,
            registry: session.registry(),
            run: run.to_owned(),
            mode,
            machine: None,
            verdict: None,
            watched: None,
            output: LastLines::default(),
            looked: None,
            since: None,
            told: HashMap::new(),
            counted: None,
        }
    }

    /// Looks out for the answer to a command.
    pub(crate) fn look_out(&mut self, command: &str) {
        self.watched = Some(command.to_owned());
    }

    /// Accepted, refused with a reason, or not answered yet.
    pub(crate) fn verdict(&self) -> Option<&Result<(), String>> {
        self.verdict.as_ref()
    }

    /// Whether events are told as JSON.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.mode, Mode::Json)
    }

    /// Whether [`Self::frame`] has something to do from time to time.
    pub(crate) fn wants_frames(&self) -> bool {
        matches!(self.mode, Mode::Live(_) | Mode::Lines)
    }

    /// The run as far as it was told.
    pub(crate) fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref()
    }

    /// Takes one durable event. What another process wrote since the last one comes first.
    pub(crate) async fn take(
        &mut self,
        journal: &dyn Journal,
        seq: u64,
        event: &Event,
    ) -> Result<(), CliError> {
        if let Some(next) = self.machine.as_ref().map(|machine| machine.seq() + 1)
            && seq > next
        {
            let missed = journal.load(&self.run, next).await?;
            for (at, event) in (next..seq).zip(&missed) {
                self.take_next(journal, at, event).await?;
            }
        }
        self.take_next(journal, seq, event).await
    }

    async fn take_next(
        &mut self,
        journal: &dyn Journal,
        seq: u64,
        event: &Event,
    ) -> Result<(), CliError> {
        if self.machine.is_none() {
            if seq == 1 {
                self.machine = Some(session::recover(&self.run, std::slice::from_ref(event))?);
            } else {
                let events = journal.load(&self.run, 1).await?;
                let before = usize::try_from(seq).unwrap_or(usize::MAX).min(events.len());
                let before = events.get(..before).unwrap_or(&events);
                self.since = before.iter().rev().find_map(driven_since);
                self.machine = Some(session::recover(&self.run, before)?);
            }
        } else if let Some(machine) = &mut self.machine
            && seq > machine.seq()
        {
            machine.apply(event).map_err(|error| {
                CliError::from(windlass_engine::run::RunError::Replay {
                    run: self.run.clone(),
                    why: error.to_string(),
                })
            })?;
        }
        self.since = driven_since(event).or(self.since);
        if let EventBody::Succeeded(done) = &event.body {
            self.output.forget(&done.node, done.phase);
        }
        self.judge(event);
        self.tell(journal, seq, event).await
    }

    fn judge(&mut self, event: &Event) {
        let Some(watched) = &self.watched else { return };
        if let EventBody::CommandAccepted(taken) = &event.body
            && taken.id == *watched
        {
            self.verdict = Some(Ok(()));
        }
        if let EventBody::CommandRefused(refused) = &event.body
            && refused.id == *watched
        {
            self.verdict = Some(Err(refused.reason.clone()));
        }
    }

    async fn tell(
        &mut self,
        journal: &dyn Journal,
        seq: u64,
        event: &Event,
    ) -> Result<(), CliError> {
        let Some(machine) = &self.machine else {
            return Ok(());
        };
        match &mut self.mode {
            Mode::Json => self.ui.json(&json_line(&self.run, seq, event)?),
            Mode::Quiet => {}
            Mode::Lines => {
                if let Some(line) = words::describe(&event.body, machine, self.registry) {
                    let instance = machine.instance(&line.node);
                    let around = instance.and_then(|instance| long_loop(machine, instance));
                    if around.is_none() || is_told_in_loop(&event.body, instance) {
                        self.ui.line(&plain_line(event, &line, self.ui.out));
                        let most = if around.is_some() { 1 } else { LINES };
                        self.last_lines(journal, event, most).await?;
                    }
                }
                self.loops(event.at);
            }
            Mode::Live(live) => {
                // What a tree does not keep: refusals and what people did.
                let keep = matches!(
                    event.body,
                    EventBody::CommandRefused(_)
                        | EventBody::Voted(_)
                        | EventBody::Resolved(_)
                        | EventBody::Cancelled(_)
                        | EventBody::CompensationStarted(_)
                );
                if keep && let Some(line) = words::describe(&event.body, machine, self.registry) {
                    live.note(plain_line(event, &line, self.ui.out));
                }
            }
        }
        Ok(())
    }

    /// What a step that failed, or is in doubt, printed last.
    async fn last_lines(
        &self,
        journal: &dyn Journal,
        event: &Event,
        most: usize,
    ) -> Result<(), CliError> {
        let EventBody::Failed(failed) = &event.body else {
            return Ok(());
        };
        let (node, phase, attempt) = (&failed.node, failed.phase, failed.attempt);
        let Some(machine) = &self.machine else {
            return Ok(());
        };
        let mut last = LastLines::default();
        last.take(&output::of_step(journal, machine, node).await?);
        let (lines, more) = last.of(node, phase, attempt, most);
        // A program that said one thing has said it in the line above.
        let is_said = |line: &&str| failed.failure.message.ends_with(*line);
        if lines.is_empty() || lines.len() == 1 && !more && lines.iter().all(is_said) {
            return Ok(());
        }
        let mut text: Vec<String> = lines.into_iter().map(str::to_owned).collect();
        if more {
            let all = format!("windlass logs {} {}", run_of(machine), quoted(node));
            text.insert(0, format!("… all of it: {}", again::command(&all)));
        }
        self.ui.print(&self.ui.out.dim(&indented("    | ", &text)));
        Ok(())
    }

    /// How far the loops are that are one line, where that was not told for a while.
    fn loops(&mut self, now: Timestamp) {
        let Some(machine) = &self.machine else { return };
        if self
            .counted
            .is_some_and(|counted| Duration::between(counted, now) < EACH)
        {
            return;
        }
        self.counted = Some(now);
        let is_undoing = machine.state() == RunState::Compensating;
        let open = machine.instances().filter(|instance| {
            is_long(instance)
                && long_loop(machine, instance).is_none()
                && (is_undoing || instance.forward.stage().is_active())
        });
        let mut due: Vec<(String, Progress)> = Vec::new();
        for instance in open {
            let progress = progress::of(machine, instance, self.since, now);
            let Some(began) = instance.forward.first_started_at else {
                continue;
            };
            let (last, done) = *self
                .told
                .entry(instance.path.to_string())
                .or_insert((began, 0));
            let tenth = Duration::between(began, now).as_millis() / 10;
            let wait = Duration::from_millis(tenth).clamp(OFTEN, SELDOM);
            if progress.done < progress.of
                && progress.done != done
                && Duration::between(last, now) >= wait
            {
                due.push((instance.path.to_string(), progress));
            }
        }
        for (path, progress) in due {
            let style = self.ui.out;
            self.ui.line(&format!(
                "{}  {}: {}",
                style.dim(&stamp(now)),
                style.bold(&path),
                style.cyan(&progress.to_string())
            ));
            self.told.insert(path, (now, progress.done));
        }
    }

    /// From time to time: draws the tree, or tells how far loops are.
    pub(crate) async fn frame(&mut self, journal: &dyn Journal) -> Result<(), CliError> {
        let now = clock::now();
        match self.mode {
            Mode::Live(_) => {
                self.look(journal, now).await?;
                self.draw();
            }
            Mode::Lines => self.loops(now),
            Mode::Json | Mode::Quiet => {}
        }
        Ok(())
    }

    /// Reads what was printed since the last time.
    async fn look(&mut self, journal: &dyn Journal, now: Timestamp) -> Result<(), CliError> {
        let Some(machine) = &self.machine else {
            return Ok(());
        };
        match self.looked {
            Some(looked) if Duration::between(looked, now) < LOOK => return Ok(()),
            Some(_) => {
                let of = PrintedOf::after(self.output.last());
                self.output.take(&journal.printed(&self.run, of).await?);
            }
            // Of a run that printed megabytes, only the ends are read.
            None => {
                let size = journal.printed_size(&self.run).await?;
                self.output = output::of_run(journal, machine).await?;
                self.output.go_on_after(size.last);
            }
        }
        self.looked = Some(now);
        Ok(())
    }

    /// Says something beside the events.
    pub(crate) fn note(&mut self, text: &str) {
        match &mut self.mode {
            Mode::Live(live) => live.note(self.ui.out.yellow(text)),
            Mode::Lines | Mode::Json | Mode::Quiet => self.ui.complain(text),
        }
    }

    /// Draws the tree.
    pub(crate) fn draw(&mut self) {
        if let (Mode::Live(live), Some(machine)) = (&mut self.mode, &self.machine) {
            live.draw(&Seen {
                ui: self.ui,
                registry: self.registry,
                machine,
                output: &self.output,
                since: self.since,
                now: clock::now(),
            });
        }
    }

    /// The last drawing, which stays.
    pub(crate) fn settle(&mut self) {
        self.draw();
        if let Mode::Live(live) = &mut self.mode {
            *live = Live::default();
        }
    }

    /// As `settle`, of a run that no process drives any more.
    pub(crate) fn let_go(&mut self) {
        self.since = None;
        self.settle();
    }

    /// Takes the tree away, before an error is said.
    pub(crate) fn clear(&mut self) {
        if let Mode::Live(live) = &mut self.mode {
            live.clear(self.ui);
        }
    }
}

/// Since when a process drives the run, by its first event or the one with which it was taken over.
fn driven_since(event: &Event) -> Option<Timestamp> {
    match event.body {
        EventBody::RunStarted(_) | EventBody::LeaseTaken(_) => Some(event.at),
        _ => None,
    }
}

/// What is told of an item although its loop is one line: what fails for good, and what needs or had a person.
fn is_told_in_loop(body: &EventBody, instance: Option<&Instance>) -> bool {
    match body {
        // A container fails because of what is inside it, which is told there.
        EventBody::Failed(failed) => {
            failed.is_final && instance.is_none_or(|instance| instance.children.is_empty())
        }
        EventBody::Probed(probed) => probed.in_doubt.is_some(),
        EventBody::Suspended(suspended) => !matches!(suspended.wait.on, WaitOn::Timer(_)),
        EventBody::Skipped(skipped) => {
            matches!(skipped.why, SkipCause::Operator { .. } | SkipCause::Blocked)
        }
        EventBody::Doubted(_)
        | EventBody::Voted(_)
        | EventBody::Resolved(_)
        | EventBody::RetryOrdered(_) => true,
        _ => false,
    }
}

fn plain_line(event: &Event, line: &Line, style: Style) -> String {
    let who = if line.node.is_empty() {
        String::new()
    } else {
        format!("{}: ", style.bold(&line.node))
    };
    format!(
        "{}  {who}{}",
        style.dim(&stamp(event.at)),
        style.state(line.tone, &line.text)
    )
}

/// One event a line.
pub(crate) fn json_line(run: &str, seq: u64, event: &Event) -> Result<String, CliError> {
    let unwritable = |error: serde_json::Error| {
        CliError::new(
            crate::exit::Exit::Broken,
            format!("event {seq} cannot be written: {error}"),
        )
    };
    let mut line = serde_json::Map::new();
    line.insert("seq".to_owned(), seq.into());
    line.insert("run".to_owned(), run.into());
    if let serde_json::Value::Object(fields) = serde_json::to_value(event).map_err(unwritable)? {
        line.extend(fields);
    }
    serde_json::to_string(&line).map_err(unwritable)
}
