//! The live tree on the terminal: redrawn in place.
use super::{
    Ui,
    tree::{Figures, Seen, tree},
};
use windlass_engine::report::human;

/// What stands on the terminal now.
#[derive(Default)]
pub(crate) struct Live {
    lines: u16,
    tick: usize,
    notes: Vec<String>,
    figures: Figures,
}

impl Live {
    /// A line that stays above the tree.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Draws the tree over what was drawn before.
    pub(crate) fn draw(&mut self, seen: &Seen<'_>) {
        let ui = seen.ui;
        let (width, height) = crossterm::terminal::size().unwrap_or((80, 24));
        let lines = tree(
            seen,
            &mut self.figures,
            self.tick,
            usize::from(width),
            usize::from(height).saturating_sub(2),
        );
        self.tick = self.tick.wrapping_add(1);
        // Begin and end of a synchronised update: no flicker where the terminal knows it.
        let mut text = String::from("\x1b[?2026h");
        self.clear_into(&mut text);
        for note in self.notes.drain(..) {
            text.push_str(&human::page(&note));
            text.push('\n');
        }
        for line in &lines {
            text.push_str(&human::page(line));
            text.push('\n');
        }
        text.push_str("\x1b[?2026l");
        self.lines = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        ui.exactly(&text);
    }

    fn clear_into(&self, text: &mut String) {
        text.push('\r');
        if self.lines > 0 {
            text.push_str(&format!("\x1b[{}A", self.lines));
        }
        text.push_str("\x1b[J");
    }

    /// Takes the tree away.
    pub(crate) fn clear(&mut self, ui: &Ui) {
        let mut text = String::new();
        self.clear_into(&mut text);
        self.lines = 0;
        for note in self.notes.drain(..) {
            text.push_str(&human::page(&note));
            text.push('\n');
        }
        ui.exactly(&text);
    }
}
