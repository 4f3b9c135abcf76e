//! `windlass logs`: what programs and servers printed in a run.
use super::watch::ALONE;
use crate::{
    error::{CliError, short},
    exit::Exit,
    session::{self, Session},
    ui::{Style, stamp},
};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use windlass_engine::{
    diagnostic,
    journal::{Journal, Printed, PrintedOf},
    machine::{Machine, RunState, Stage},
    report::{human::plain, words},
    step::{Figure, Phase, Stream},
};

/// How often the journal is asked for news.
const POLL: Duration = Duration::from_millis(200);

/// What `logs` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// The run: its id, the beginning or end of it, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// Only this step and what is inside it, such as dump or fill[17]; of one step the bare text is printed
    step: Option<String>,
    /// Go on with what is printed from now on, until the run or the step ends, or no process drives the run
    #[arg(long, short)]
    follow: bool,
    /// Print the pieces as JSON, one a line, with their time, attempt and stream
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &LogsArgs) -> Result<Exit, CliError> {
    let journal = session.reading()?;
    let run = session::find(journal.as_ref(), &args.run).await?;
    let machine = session::machine(journal.as_ref(), &run).await?;
    if let Some(step) = &args.step {
        known(&machine, step)?;
    }
    let bare = args.step.as_ref().is_some_and(|step| {
        machine
            .instance(step)
            .is_none_or(|instance| instance.children.is_empty())
    });
    let mut printer = Printer {
        session,
        run: &run,
        json: args.json,
        bare,
        open: None,
        after: 0,
        shown: false,
    };
    if args.follow {
        let exit = follow(session, journal.as_ref(), &mut printer, args).await?;
        printer.end_line();
        return Ok(exit);
    }
    printer.news(journal.as_ref(), args.step.as_deref()).await?;
    printer.end_line();
    if !printer.shown {
        let who = args.step.as_deref().unwrap_or("the run");
        session.ui.say(&format!(
            "{who} has printed nothing; `windlass show {}` says what it did",
            short(&run)
        ));
    }
    Ok(Exit::Succeeded)
}

/// A step is named by its path; one that has not begun is known as well.
fn known(machine: &Machine, step: &str) -> Result<(), CliError> {
    if machine.instance(step).is_some() {
        return Ok(());
    }
    let paths: Vec<&str> = machine.instances().map(|one| one.path.as_ref()).collect();
    let run = short(&machine.started().run.id);
    let error = CliError::invalid(format!("run {run} has no step {step:?}"));
    Err(match diagnostic::nearest(step, paths.iter().copied()) {
        Some(near) => error.help(format!("did you mean `windlass logs {run} {near}`?")),
        None => error.help(format!("`windlass show {run}` lists its steps")),
    })
}

async fn follow(
    session: &Session,
    journal: &dyn Journal,
    printer: &mut Printer<'_>,
    args: &LogsArgs,
) -> Result<Exit, CliError> {
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| {
        CliError::new(Exit::Broken, format!("cannot listen for signals: {error}"))
    })?;
    let mut ticks = tokio::time::interval(POLL);
    let (mut version, mut alone) = (None, 0_u32);
    let mut is_over = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = interrupts.recv() => return Ok(Exit::Interrupted),
        }
        let now = journal.version().await?;
        if version != Some(now) {
            version = Some(now);
            // What it printed is durable before its end is: asked in this order, nothing is missed.
            let machine = session::machine(journal, printer.run).await?;
            is_over = matches!(machine.state(), RunState::Finished(_))
                || args
                    .step
                    .as_ref()
                    .is_some_and(|step| has_settled(&machine, step));
            printer.news(journal, args.step.as_deref()).await?;
        }
        if is_over {
            return Ok(Exit::Succeeded);
        }
        let driven = session::summary(journal, printer.run).await?.holder;
        alone = if driven.is_some() { 0 } else { alone + 1 };
        if alone >= ALONE {
            session.ui.say(&format!(
                "no process drives the run now; `windlass show {}` shows its state",
                short(printer.run)
            ));
            return Ok(Exit::Succeeded);
        }
    }
}

/// Whether nothing more is printed by a step, unless a person orders it.
fn has_settled(machine: &Machine, step: &str) -> bool {
    machine.instance(step).is_some_and(|instance| {
        let (phase, execution) = words::current(instance);
        let undone_later = phase == Phase::Do
            && instance.took_effect
            && matches!(machine.state(), RunState::Compensating | RunState::Stuck);
        matches!(
            execution.stage(),
            Stage::Succeeded | Stage::Failed | Stage::Skipped
        ) && !undone_later
    })
}

struct Printer<'s> {
    session: &'s Session,
    run: &'s str,
    json: bool,
    /// One step was asked for: its text stands alone.
    bare: bool,
    /// Whose line has not ended.
    open: Option<(String, Stream)>,
    after: u64,
    shown: bool,
}

impl Printer<'_> {
    async fn news(&mut self, journal: &dyn Journal, step: Option<&str>) -> Result<(), CliError> {
        loop {
            let of = PrintedOf {
                step: step.map(str::to_owned),
                ..PrintedOf::after(self.after)
            };
            let pieces = journal.printed(self.run, of).await?;
            let Some(last) = pieces.last() else {
                return Ok(());
            };
            self.after = last.no;
            self.shown = true;
            for piece in &pieces {
                if self.json {
                    self.tell_json(piece)?;
                } else {
                    self.tell(piece);
                }
            }
        }
    }

    fn tell_json(&self, piece: &Printed) -> Result<(), CliError> {
        let unwritable = |error: serde_json::Error| {
            CliError::new(Exit::Broken, format!("a piece cannot be written: {error}"))
        };
        let mut line = serde_json::Map::new();
        line.insert("run".to_owned(), self.run.into());
        if let serde_json::Value::Object(fields) =
            serde_json::to_value(piece).map_err(unwritable)?
        {
            line.extend(fields);
        }
        let line = serde_json::to_string(&line).map_err(unwritable)?;
        self.session.ui.json(&line);
        Ok(())
    }

    fn end_line(&mut self) {
        if self.open.take().is_some() {
            self.session.ui.print("\n");
        }
    }

    fn tell(&mut self, piece: &Printed) {
        let style = self.session.ui.out;
        let who = who(piece);
        let lead = if self.bare {
            String::new()
        } else {
            let beside = match piece.stream {
                Stream::Stdout => String::new(),
                other => format!(" {}", other.as_str()),
            };
            format!(
                "{}  {}{}: ",
                style.dim(&stamp(piece.at)),
                style.bold(&who),
                style.dim(&beside)
            )
        };
        if piece.cut > 0 {
            self.end_line();
            let cut = Figure::bytes("cut", piece.cut, "");
            let text = format!("… {cut} of {who} are not kept: it printed more than the cap");
            self.session.ui.line(&style.yellow(&text));
        }
        let mut text = String::new();
        for line in piece.text.split_inclusive(['\n', '\r']) {
            match self.open.take() {
                Some((node, stream)) if node == who && stream == piece.stream => {}
                Some(_) => {
                    text.push('\n');
                    text.push_str(&lead);
                }
                None => text.push_str(&lead),
            }
            text.push_str(&coloured(style, piece.stream, &plain(line)));
            if line.ends_with(['\n', '\r']) {
                text.push('\n');
            } else {
                self.open = Some((who.clone(), piece.stream));
            }
        }
        self.session.ui.print(&text);
    }
}

fn coloured(style: Style, stream: Stream, text: &str) -> String {
    match stream {
        Stream::Stdout | Stream::Answer => text.to_owned(),
        Stream::Stderr => style.yellow(text),
        Stream::Notice => style.cyan(text),
    }
}

/// `undo of dump, attempt 2`.
fn who(piece: &Printed) -> String {
    let what = match piece.phase {
        Phase::Do => "",
        Phase::Undo => "undo of ",
    };
    let attempt = if piece.attempt > 1 {
        format!(", attempt {}", piece.attempt)
    } else {
        String::new()
    };
    format!("{what}{}{attempt}", piece.node)
}
