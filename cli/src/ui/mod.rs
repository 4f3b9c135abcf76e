//! The terminal: the only place that prints.
//!
//! `style.rs` colours and glyphs, `words.rs` events in words with what answers them, `live.rs` the live tree and `tree.rs` its lines, `page.rs` the page of `show`, `question.rs` what an approval asks, `inbox.rs` what was asked and is not done, `confirm.rs` what a person reads before they say yes, `states.rs` what each state means, `summary.rs` the end of a run, `undone.rs` what became of what it did.
pub(crate) mod again;
pub(crate) mod confirm;
pub(crate) mod diagnostics;
pub(crate) mod inbox;
pub(crate) mod live;
pub(crate) mod next;
pub(crate) mod page;
pub(crate) mod question;
pub(crate) mod states;
mod style;
pub(crate) mod summary;
pub(crate) mod tree;
pub(crate) mod undone;
pub(crate) mod words;

pub(crate) use style::{ColorChoice, Glyphs, Style};
pub(crate) use windlass_engine::report::human::{
    clock, cut, elapsed, indented, one_line, span, stamp, value_lines, without_password,
};

use crate::{error::CliError, exit::Exit};
use std::{
    cell::{Cell, RefCell},
    io::{BufRead, ErrorKind, IsTerminal, Write},
};
use tokio::signal::unix::{SignalKind, signal};
use windlass_engine::{
    diagnostic::{Diagnostic, ErrorLine, Line},
    report::human,
};

/// Standard output and standard error.
pub(crate) struct Ui {
    /// How standard output is coloured.
    pub(crate) out: Style,
    /// How standard error is coloured.
    pub(crate) err: Style,
    /// Signs for states.
    pub(crate) glyphs: Glyphs,
    /// Whether standard output is a terminal that can redraw.
    pub(crate) is_live: bool,
    /// Say only what was asked for, and errors.
    pub(crate) quiet: bool,
    /// The name that the reader claims.
    pub(crate) claimed: Option<String>,
    /// Standard error takes lines of JSON alone, as standard output does.
    json: bool,
    /// Diagnostics for the last of these lines.
    kept: RefCell<Vec<Diagnostic>>,
    /// The reader has gone: say nothing more, but go on with what was asked.
    gone: Cell<bool>,
}

impl Ui {
    /// As the process finds it.
    pub(crate) fn new(color: ColorChoice, quiet: bool, json: bool) -> Self {
        let out = std::io::stdout().is_terminal();
        let smart = std::env::var("TERM").is_ok_and(|term| !term.is_empty() && term != "dumb");
        Self {
            out: Style::choose(color, out && smart),
            err: Style::choose(color, std::io::stderr().is_terminal() && smart),
            glyphs: Glyphs::from_locale(),
            is_live: out && smart && !quiet,
            quiet,
            claimed: None,
            json,
            kept: RefCell::default(),
            gone: Cell::new(false),
        }
    }

    /// For a reader who claims this name: what is proposed is proposed to them.
    pub(crate) fn read_by(self, claimed: Option<String>) -> Self {
        Self { claimed, ..self }
    }

    /// Prints a page to standard output: what others wrote in it neither moves the cursor nor hides anything.
    pub(crate) fn print(&self, text: &str) {
        self.write(&human::page(&crate::hygiene::redactor().text(text)));
    }

    /// Prints JSON and a line break to standard output.
    pub(crate) fn json(&self, text: &str) {
        let text = crate::hygiene::redactor().text(text);
        self.write(&format!("{}\n", human::json(&text)));
    }

    /// Prints to standard output what must stay as it is, such as a file, or what moves the cursor.
    pub(crate) fn exactly(&self, text: &str) {
        self.write(&crate::hygiene::redactor().text(text));
    }

    /// A reader that has gone is no error.
    fn write(&self, text: &str) {
        if self.gone.get() {
            return;
        }
        let mut out = std::io::stdout().lock();
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            self.gone.set(true);
            if error.kind() != ErrorKind::BrokenPipe {
                drop(writeln!(
                    std::io::stderr(),
                    "error: cannot write to standard output: {error}"
                ));
            }
        }
    }

    /// Prints a line to standard output.
    pub(crate) fn line(&self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    /// Says something beside the output, on standard error, unless it shall be quiet.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            self.complain(text);
        }
    }

    /// Prints a line to standard error, always.
    pub(crate) fn complain(&self, text: &str) {
        let text = again::in_text(text.trim_end_matches('\n'));
        if self.json {
            write_line(&Line::Note(text.into_owned()));
        } else {
            write_err(&text);
        }
    }

    /// Prints what is wrong, and how many mistakes there are.
    pub(crate) fn diagnose<'t>(
        &self,
        found: &[Diagnostic],
        text_of: impl Fn(&Diagnostic) -> &'t str,
    ) {
        if self.json {
            self.kept.borrow_mut().extend_from_slice(found);
        } else if !found.is_empty() {
            self.complain(&diagnostics::all(found, text_of, self.err));
        }
    }

    /// Prints what is worth knowing, without the lines of the file: they may hold a password.
    pub(crate) fn warn(&self, found: &[Diagnostic]) {
        if self.json {
            self.kept.borrow_mut().extend_from_slice(found);
        } else if !found.is_empty() {
            self.complain(&diagnostics::each(found, |_| "", self.err));
        }
    }

    /// Prints why the command could not do as asked; the last that it says.
    pub(crate) fn fail(&self, error: &CliError) {
        if self.json {
            let message = match error.message.as_str() {
                "" => "the command line, the playbook or the environment is wrong",
                message => message,
            };
            let plain = |texts: &[String]| {
                let texts = texts.iter().map(|text| again::in_text(text).into_owned());
                texts.collect()
            };
            write_line(&Line::Error(ErrorLine {
                exit: error.exit.code(),
                message: message.to_owned(),
                notes: plain(&error.notes),
                help: plain(&error.help),
                diagnostics: self.kept.take(),
            }));
        } else if !error.said {
            self.complain(&error.render(self.err));
        }
    }

    /// Prints what was kept back for the last line, where the command did as asked.
    pub(crate) fn end(&self) {
        let kept = self.kept.take();
        if !kept.is_empty() {
            write_line(&Line::Warnings(kept));
        }
    }

    /// Whether a person sits there who can be asked: standard input and standard error are a terminal.
    #[expect(
        clippy::unused_self,
        reason = "all output goes by the one object that owns the terminal"
    )]
    pub(crate) fn can_ask(&self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Shows what is asked about, if anything, and asks on standard error, without a line break, so that the answer stands behind
    /// the question. Anything but yes is no, the end of the input too; Ctrl-C ends the command. A person reads it: it is never JSON.
    pub(crate) async fn confirm(&self, page: &str, question: &str) -> Result<bool, CliError> {
        if !page.is_empty() {
            write_err(&again::in_text(page.trim_end_matches('\n')));
        }
        let mut err = std::io::stderr();
        drop(write!(err, "{}", human::page(question)).and_then(|()| err.flush()));
        // What came before, such as a plan, may have taken the signal from the system for good.
        let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| {
            CliError::new(Exit::Broken, format!("cannot listen for signals: {error}"))
        })?;
        let (told, read) = tokio::sync::oneshot::channel();
        // A thread of its own: the end of the process does not wait for a line that never comes.
        std::thread::spawn(move || {
            let mut answer = String::new();
            let read = std::io::stdin().lock().read_line(&mut answer);
            drop(told.send(read.map(|length| (length, answer))));
        });
        let read = tokio::select! {
            read = read => read.map_err(|_| std::io::Error::other("its thread has ended")).flatten(),
            _ = interrupts.recv() => {
                drop(writeln!(err));
                return Err(CliError::new(Exit::Interrupted, "interrupted before the answer")
                    .note("nothing was changed"));
            }
        };
        let (length, answer) = read.map_err(|error| {
            CliError::new(Exit::Broken, format!("cannot read the answer: {error}"))
        })?;
        if length == 0 {
            drop(writeln!(err));
        }
        Ok(matches!(
            answer.trim().to_ascii_lowercase().as_str(),
            "y" | "yes"
        ))
    }
}

/// A line of JSON on standard error.
pub(crate) fn write_line(line: &Line) {
    // Texts alone: there is nothing in it that JSON cannot write.
    write_err(&human::json(
        &serde_json::to_string(line).unwrap_or_default(),
    ));
}

fn write_err(text: &str) {
    // A standard error that is closed leaves no reader.
    drop(writeln!(
        std::io::stderr(),
        "{}",
        human::page(&crate::hygiene::redactor().text(text))
    ));
}
