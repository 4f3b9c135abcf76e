//! How a run is told while it goes on: a live tree on a terminal, lines in a pipe, events as JSON.
use crate::{
    clock,
    error::CliError,
    session,
    ui::{
        Style, Ui,
        live::Live,
        stamp,
        words::{self, Line},
    },
};
use windlass_engine::{
    journal::Journal,
    machine::{Event, EventBody, Machine},
};

enum Mode {
    Live(Live),
    Lines,
    Json,
    Quiet,
}

/// Follows a run and tells it.
pub(crate) struct Reporter<'s> {
    ui: &'s Ui,
    run: String,
    mode: Mode,
    machine: Option<Machine>,
    /// The fate of a command that this process sent, once it is known.
    verdict: Option<Result<(), String>>,
    watched: Option<String>,
}

impl<'s> Reporter<'s> {
    /// For a run of this id; `json` tells events.
    pub(crate) fn new(ui: &'s Ui, run: &str, json: bool) -> Self {
        let mode = match (json, ui.is_live, ui.quiet) {
            (true, _, _) => Mode::Json,
            (false, true, _) => Mode::Live(Live::default()),
            (false, false, false) => Mode::Lines,
            (false, false, true) => Mode::Quiet,
        };
        Self {
            ui,
            run: run.to_owned(),
            mode,
            machine: None,
            verdict: None,
            watched: None,
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

    /// Whether the tree wants to be redrawn from time to time.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.mode, Mode::Live(_))
    }

    /// The run as far as it was told.
    pub(crate) fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref()
    }

    /// Takes one durable event.
    pub(crate) async fn take(
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
                self.machine = Some(session::recover(
                    &self.run,
                    events.get(..before).unwrap_or(&events),
                )?);
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
        self.judge(event);
        self.tell(seq, event)
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

    fn tell(&mut self, seq: u64, event: &Event) -> Result<(), CliError> {
        let Some(machine) = &self.machine else {
            return Ok(());
        };
        match &mut self.mode {
            Mode::Json => self.ui.line(&json_line(&self.run, seq, event)?),
            Mode::Quiet => {}
            Mode::Lines => {
                if let Some(line) = words::describe(&event.body, machine) {
                    self.ui.line(&plain_line(event, &line, self.ui.out));
                }
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
                if keep && let Some(line) = words::describe(&event.body, machine) {
                    live.note(plain_line(event, &line, self.ui.out));
                }
            }
        }
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
            live.draw(self.ui, machine, clock::now());
        }
    }

    /// The last drawing, which stays.
    pub(crate) fn settle(&mut self) {
        self.draw();
        if let Mode::Live(live) = &mut self.mode {
            *live = Live::default();
        }
    }

    /// Takes the tree away, before an error is said.
    pub(crate) fn clear(&mut self) {
        if let Mode::Live(live) = &mut self.mode {
            live.clear(self.ui);
        }
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
