//! The last lines that steps printed, as far as the journal keeps them.
use super::human::plain;
use crate::{
    journal::Printed,
    step::{Phase, Stream},
};
use std::collections::{HashMap, VecDeque};

/// Lines that are kept of an execution.
const MOST: usize = 40;

/// The last lines of executions.
#[derive(Debug, Default)]
pub struct LastLines {
    by: HashMap<(String, Phase), Lines>,
    last: u64,
}

#[derive(Debug, Default)]
struct Lines {
    attempt: u32,
    lines: VecDeque<(Stream, String)>,
    /// The last line of this stream has not ended.
    open: Option<Stream>,
    /// Lines before these, as far as it is known that there are some.
    more: bool,
}

impl LastLines {
    /// Takes pieces in the order of their places.
    pub fn take(&mut self, pieces: &[Printed]) {
        for piece in pieces {
            self.last = self.last.max(piece.no);
            let lines = self
                .by
                .entry((piece.node.clone(), piece.phase))
                .or_default();
            if piece.attempt > lines.attempt {
                *lines = Lines {
                    attempt: piece.attempt,
                    ..Lines::default()
                };
            }
            if piece.attempt == lines.attempt {
                lines.take(piece);
            }
        }
    }

    /// The last place that was taken.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Pieces up to here were seen, or are not asked for.
    pub fn go_on_after(&mut self, no: u64) {
        self.last = self.last.max(no);
    }

    /// Nobody asks for these any more.
    pub fn forget(&mut self, node: &str, phase: Phase) {
        self.by.remove(&(node.to_owned(), phase));
    }

    /// At most so many last lines of an execution, and whether there are more before them.
    #[must_use]
    pub fn of(&self, node: &str, phase: Phase, attempt: u32, most: usize) -> (Vec<&str>, bool) {
        let Some(lines) = self
            .by
            .get(&(node.to_owned(), phase))
            .filter(|lines| lines.attempt == attempt)
        else {
            return (Vec::new(), false);
        };
        let skip = lines.lines.len().saturating_sub(most);
        let shown = lines.lines.iter().skip(skip);
        (
            shown.map(|(_, line)| line.as_str()).collect(),
            lines.more || skip > 0,
        )
    }
}

impl Lines {
    fn take(&mut self, piece: &Printed) {
        self.more |= piece.cut > 0;
        for line in piece.text.split_inclusive(['\n', '\r']) {
            let text = plain(line);
            match (self.open, self.lines.back_mut()) {
                (Some(stream), Some((_, last))) if stream == piece.stream => last.push_str(&text),
                // A line that says nothing is no last line.
                _ if text.trim().is_empty() => {}
                _ => self.lines.push_back((piece.stream, text)),
            }
            self.open = (!line.ends_with(['\n', '\r'])).then_some(piece.stream);
        }
        while self.lines.len() > MOST {
            self.lines.pop_front();
            self.more = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Timestamp;

    fn piece(no: u64, attempt: u32, stream: Stream, text: &str) -> Printed {
        Printed {
            no,
            at: Timestamp::UNIX_EPOCH,
            node: "dump".to_owned(),
            phase: Phase::Do,
            attempt,
            stream,
            cut: 0,
            text: text.to_owned(),
        }
    }

    #[test]
    fn the_last_lines_of_the_last_attempt() {
        let mut last = LastLines::default();
        last.take(&[
            piece(1, 1, Stream::Stdout, "old\n"),
            piece(2, 2, Stream::Stdout, "one\n\n\x1b[31mtwo\x1b[0m\nthr"),
            piece(3, 2, Stream::Stdout, "ee\n"),
            piece(4, 2, Stream::Stderr, "10%\r20%\r"),
        ]);
        let of = |attempt, most| last.of("dump", Phase::Do, attempt, most);
        assert_eq!(of(2, 9), (vec!["one", "two", "three", "10%", "20%"], false));
        assert_eq!(of(2, 2), (vec!["10%", "20%"], true));
        assert_eq!(of(1, 9), (vec![], false));
        assert_eq!(last.last(), 4);
    }
}
