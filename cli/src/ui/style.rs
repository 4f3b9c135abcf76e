//! Colours and signs.
use windlass_engine::machine::NodeState;

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whether text is coloured, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    on: bool,
}

impl Style {
    /// Plain text.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { on: false };

    /// An explicit choice wins over NO_COLOR, NO_COLOR over the terminal.
    pub(crate) fn choose(choice: ColorChoice, terminal: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            on: match choice {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => terminal && !no_color,
            },
        }
    }

    /// Whether there is colour.
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
    pub(crate) fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }
    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }
    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }
    pub(crate) fn blue(self, text: &str) -> String {
        self.paint("1;34", text)
    }
    pub(crate) fn magenta(self, text: &str) -> String {
        self.paint("1;35", text)
    }
    pub(crate) fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// In the colour of a state.
    pub(crate) fn state(self, state: NodeState, text: &str) -> String {
        match state {
            NodeState::Pending | NodeState::Skipped | NodeState::Ended => self.dim(text),
            NodeState::Running => self.cyan(text),
            NodeState::Backoff
            | NodeState::Waiting
            | NodeState::AwaitingApproval
            | NodeState::Undoing => self.yellow(text),
            NodeState::InDoubt => self.magenta(text),
            NodeState::Succeeded => self.green(text),
            NodeState::Failed | NodeState::UndoFailed => self.red(text),
            NodeState::Undone => self.blue(text),
        }
    }

    /// In the colour of a run's state, by its word.
    pub(crate) fn run(self, word: &str) -> String {
        match word {
            "succeeded" => self.green(word),
            "running" => self.cyan(word),
            "waiting" | "paused" | "compensating" => self.yellow(word),
            "failed" | "stuck" | "stopped" => self.red(word),
            "compensated" | "cancelled" => self.blue(word),
            _ => word.to_owned(),
        }
    }
}

/// Signs for states: one column wide, plain where the locale knows no UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glyphs {
    unicode: bool,
}

impl Glyphs {
    /// By the locale of the process.
    pub(crate) fn from_locale() -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .unwrap_or_default()
            .to_ascii_lowercase();
        Self {
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    /// The sign of a state; `tick` turns the wheel of what runs.
    pub(crate) fn state(self, state: NodeState, tick: usize) -> &'static str {
        const WHEEL: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
        const PLAIN: [&str; 4] = ["|", "/", "-", "\\"];
        let turn =
            |wheel: &[&'static str]| wheel.get(tick % wheel.len().max(1)).copied().unwrap_or("*");
        match (state, self.unicode) {
            (NodeState::Pending, true) => "·",
            (NodeState::Pending, false) => ".",
            (NodeState::Running, true) => turn(&WHEEL),
            (NodeState::Running, false) => turn(&PLAIN),
            (NodeState::Backoff, true) => "↻",
            (NodeState::Backoff, false) => "r",
            (NodeState::Waiting, true) => "◷",
            (NodeState::Waiting, false) => "w",
            (NodeState::AwaitingApproval, true) => "◆",
            (NodeState::AwaitingApproval, false) => "a",
            (NodeState::InDoubt, _) => "?",
            (NodeState::Succeeded, true) => "✓",
            (NodeState::Succeeded, false) => "+",
            (NodeState::Skipped | NodeState::Ended, _) => "-",
            (NodeState::Failed, true) => "✗",
            (NodeState::Failed, false) => "x",
            (NodeState::Undoing, true) => "↶",
            (NodeState::Undoing, false) => "<",
            (NodeState::Undone, true) => "↩",
            (NodeState::Undone, false) => "u",
            (NodeState::UndoFailed, _) => "!",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_choice_wins() {
        assert!(Style::choose(ColorChoice::Always, false).is_on());
        assert!(!Style::choose(ColorChoice::Never, true).is_on());
        assert_eq!(Style::PLAIN.red("x"), "x");
        assert_eq!(
            Style::choose(ColorChoice::Always, false).bold("x"),
            "\x1b[1mx\x1b[0m"
        );
    }
}
