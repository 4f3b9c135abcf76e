//! What steps print, on its way to the journal: without the content of secrets, within a cap, in small batches.
//!
//! A step only appends to a text in memory. Whole lines are cleaned and written every [`PACE`], and all that is left when
//! the execution ends, before its report goes out: once the end is durable, so is what was printed before it.
use super::{clock::RunClock, drive::spawn, driver::Shared};
use crate::{
    journal::{JournalError, Printed, Prints},
    secret::Redactor,
    step::{Phase, Stream},
    value::{Duration, Timestamp},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

/// How often what was printed is written.
const PACE: Duration = Duration::from_millis(150);
/// A program that printed nothing for this long is not in the middle of something that spans lines, unless they look like a
/// secret whose end has not come.
const QUIET: Duration = Duration::from_millis(50);
/// How long the end of a secret is waited for.
const STILL: Duration = Duration::from_millis(10_000);
/// Bytes of an execution that are kept from its beginning.
const HEAD: usize = 64 << 10;
/// Bytes of an execution that are kept from its end.
const TAIL: usize = 192 << 10;
/// Bytes that are kept of a run. Beyond, only the last lines of executions that fail are.
const OF_RUN: u64 = 16 << 20;
/// Bytes of the last lines that are kept beyond the run's cap.
const LAST: usize = 4 << 10;
/// A piece is written and forgotten as a whole.
const PIECE: usize = 16 << 10;
/// Text is cleaned at once where there is so much of it, which makes a chatty program wait.
const MOST_RAW: usize = 256 << 10;
/// Text that is held back so that no secret is parted is never longer.
const MOST_HELD: usize = 8 << 10;

/// Which execution prints.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Who {
    pub(super) node: Arc<str>,
    pub(super) phase: Phase,
    pub(super) attempt: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    stream: Stream,
    at: Timestamp,
    text: String,
}

/// How much of what is pending may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Take {
    /// More comes: a secret may be parted by the end of what is there.
    Busy,
    /// All whole lines, but for the last ones where a secret has begun in them.
    Quiet,
    /// All whole lines.
    Still,
    /// Everything.
    End,
}

/// What an execution has printed and is not cleaned yet.
#[derive(Default)]
struct Raw {
    /// Whole lines, in the order in which they came.
    pieces: Vec<Piece>,
    /// Lines without their end, by stream.
    rest: HashMap<Stream, (Timestamp, String)>,
    bytes: usize,
    last_at: Option<Timestamp>,
}

impl Raw {
    fn push(&mut self, stream: Stream, text: &str, now: Timestamp, redactor: &Redactor) {
        self.last_at = Some(now);
        self.bytes += text.len();
        let (at, mut line) = self
            .rest
            .remove(&stream)
            .unwrap_or_else(|| (now, String::new()));
        line.push_str(text);
        // Some programs draw their progress with a bare carriage return.
        let whole = line.rfind(['\n', '\r']).map_or(0, |end| end + 1);
        let rest = line.split_off(whole);
        if !line.is_empty() {
            self.add(stream, line, at);
        }
        if rest.len() > PIECE {
            let held = redactor.longest().min(MOST_HELD);
            let end = redactor.parted(&rest, rest.len() - held);
            let (now_text, later) = rest.split_at_checked(end).unwrap_or((&rest, ""));
            if !now_text.is_empty() {
                self.add(stream, now_text.to_owned(), now);
            }
            self.rest.insert(stream, (now, later.to_owned()));
        } else if !rest.is_empty() {
            self.rest.insert(stream, (now, rest));
        }
    }

    fn add(&mut self, stream: Stream, text: String, at: Timestamp) {
        match self.pieces.last_mut() {
            Some(last) if last.stream == stream && last.text.len() + text.len() <= PIECE => {
                last.text.push_str(&text);
            }
            Some(_) | None => self.pieces.push(Piece { stream, at, text }),
        }
    }

    /// How much may be taken now.
    fn due(&self, now: Timestamp) -> Take {
        let since = self.last_at.map(|last| Duration::between(last, now));
        match since {
            Some(quiet) if quiet < QUIET => Take::Busy,
            Some(quiet) if quiet < STILL => Take::Quiet,
            Some(_) | None => Take::Still,
        }
    }

    /// What may be cleaned now.
    fn take(&mut self, take: Take, redactor: &Redactor) -> Vec<Piece> {
        let mut taken = std::mem::take(&mut self.pieces);
        match take {
            Take::End => {
                let rest = std::mem::take(&mut self.rest);
                taken.extend(rest.into_iter().map(|(stream, (at, text))| Piece {
                    stream,
                    at,
                    text,
                }));
            }
            Take::Still => {}
            Take::Busy | Take::Quiet => {
                let longest = redactor.longest().min(MOST_HELD);
                if longest > 0 {
                    let mut held: HashMap<Stream, usize> = HashMap::new();
                    for piece in &taken {
                        held.entry(piece.stream).or_default();
                    }
                    for (stream, bytes) in &mut held {
                        *bytes = begun(&taken, *stream, longest, redactor);
                    }
                    if take == Take::Busy
                        && let Some(last) = taken.last()
                    {
                        let upto = last.text.len().saturating_sub(longest);
                        let end = line_start(&last.text, redactor.parted(&last.text, upto));
                        let bytes = held.entry(last.stream).or_default();
                        *bytes = (*bytes).max(last.text.len() - end);
                    }
                    self.pieces = hold(&mut taken, held);
                }
            }
        }
        let left = self.pieces.iter().map(|piece| piece.text.len());
        let rests = self.rest.values().map(|(_, text)| text.len());
        self.bytes = left.chain(rests).sum();
        taken
    }

    fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// Where the line begins in which a place is.
fn line_start(text: &str, at: usize) -> usize {
    text.get(..at)
        .and_then(|text| text.rfind(['\n', '\r']))
        .map_or(0, |end| end + 1)
}

/// Bytes at the end of a stream, whole lines of them, in which a secret has begun whose end has not come.
fn begun(pieces: &[Piece], stream: Stream, longest: usize, redactor: &Redactor) -> usize {
    let mut texts: Vec<&str> = Vec::new();
    let mut bytes = 0;
    // A secret that is split over lines takes more bytes than the secret itself.
    for piece in pieces.iter().rev().filter(|piece| piece.stream == stream) {
        texts.push(&piece.text);
        bytes += piece.text.len();
        if bytes > longest * 2 {
            break;
        }
    }
    let tail: String = texts.into_iter().rev().collect();
    let begins = redactor.begun(&tail);
    if begins == tail.len() {
        return 0;
    }
    let held = tail.len() - line_start(&tail, begins);
    if held > MOST_HELD { 0 } else { held }
}

/// Takes so many bytes from the end of each stream.
fn hold(pieces: &mut Vec<Piece>, mut bytes: HashMap<Stream, usize>) -> Vec<Piece> {
    let mut held = Vec::new();
    for piece in pieces.iter_mut().rev() {
        let Some(left) = bytes.get_mut(&piece.stream).filter(|left| **left > 0) else {
            continue;
        };
        let at = piece.text.len().saturating_sub(*left);
        let text = piece.text.split_off(piece.text.floor_char_boundary(at));
        *left = left.saturating_sub(text.len());
        held.push(Piece { text, ..*piece });
    }
    pieces.retain(|piece| !piece.text.is_empty());
    held.reverse();
    held
}

/// What is kept of an execution: its beginning, its end, and how much is missing between them.
#[derive(Default)]
struct Kept {
    /// Clean pieces that are not written, and whether they belong to the beginning.
    unwritten: VecDeque<(bool, Piece)>,
    head: usize,
    /// Places and lengths of what is written of the end.
    tail: VecDeque<(u64, usize)>,
    tail_bytes: usize,
    /// Places to empty, and what stands there.
    forget: Vec<(u64, usize)>,
    cut: u64,
    cut_said: u64,
    /// The place between beginning and end.
    cut_no: Option<(u64, Timestamp, Stream)>,
    /// Beyond the run's cap: the last lines.
    last: VecDeque<Piece>,
}

impl Kept {
    fn push(&mut self, piece: Piece, run_is_full: bool) {
        let len = piece.text.len();
        if run_is_full {
            self.cut += len as u64;
            self.last.push_back(piece);
            let mut bytes: usize = self.last.iter().map(|piece| piece.text.len()).sum();
            while bytes > LAST && self.last.len() > 1 {
                bytes -= self.last.pop_front().map_or(0, |piece| piece.text.len());
            }
            return;
        }
        // There is room again: what comes now is newer than these, which are counted as missing.
        self.last.clear();
        let is_head = self.cut_no.is_none() && self.cut == 0 && self.head + len <= HEAD;
        if is_head {
            self.head += len;
        } else {
            // From here on there is an end, even if this one would still have found room.
            self.head = HEAD;
            self.tail_bytes += len;
        }
        self.unwritten.push_back((is_head, piece));
        while self.tail_bytes > TAIL {
            let gone = if let Some((no, len)) = self.tail.pop_front() {
                self.forget.push((no, len));
                len
            } else {
                let Some(at) = self.unwritten.iter().position(|(is_head, _)| !is_head) else {
                    break;
                };
                self.unwritten
                    .remove(at)
                    .map_or(0, |(_, piece)| piece.text.len())
            };
            self.tail_bytes -= gone;
            self.cut += gone as u64;
        }
    }

    /// The execution is over: beyond the run's cap, a failure brings its last lines.
    fn end(&mut self, failed: bool) {
        let last = std::mem::take(&mut self.last);
        if failed {
            for piece in last {
                self.cut = self.cut.saturating_sub(piece.text.len() as u64);
                self.unwritten.push_back((false, piece));
            }
        }
    }

    /// Gives everything that is to be written its place. Returns how many bytes leave the journal.
    fn write(&mut self, who: &Who, next: &mut u64, now: Timestamp, into: &mut Prints) -> u64 {
        let mut place = || {
            *next += 1;
            *next
        };
        let said = |no, at, stream, cut, text| Printed {
            no,
            at,
            node: who.node.to_string(),
            phase: who.phase,
            attempt: who.attempt,
            stream,
            cut,
            text,
        };
        let mut freed = 0;
        for (no, len) in std::mem::take(&mut self.forget) {
            into.forget.push(no);
            freed += len as u64;
        }
        for (is_head, piece) in std::mem::take(&mut self.unwritten) {
            if !is_head && self.cut_no.is_none() {
                self.cut_no = Some((place(), piece.at, piece.stream));
            }
            let no = place();
            if !is_head {
                self.tail.push_back((no, piece.text.len()));
            }
            into.keep
                .push(said(no, piece.at, piece.stream, 0, piece.text));
        }
        if self.cut != self.cut_said {
            let (no, at, stream) = *self
                .cut_no
                .get_or_insert_with(|| (place(), now, Stream::Stdout));
            self.cut_said = self.cut;
            into.keep
                .push(said(no, at, stream, self.cut, String::new()));
        }
        freed
    }

    /// A piece could not be written: it is missing, and there is nothing to empty later.
    fn lose(&mut self, no: u64, bytes: usize) {
        self.cut += bytes as u64;
        if let Some(at) = self.tail.iter().position(|(place, _)| *place == no) {
            self.tail.remove(at);
            self.tail_bytes -= bytes;
        }
    }
}

#[derive(Default)]
struct Source {
    raw: Raw,
    kept: Kept,
}

impl Source {
    fn clean(&mut self, take: Take, redactor: &Redactor, run_is_full: bool) {
        let mut pieces = self.raw.take(take, redactor);
        let mut streams: HashMap<Stream, Vec<&mut Piece>> = HashMap::new();
        for piece in &mut pieces {
            streams.entry(piece.stream).or_default().push(piece);
        }
        // What another stream printed in between parts no line from the next.
        for of_stream in streams.into_values() {
            let texts: Vec<&str> = of_stream.iter().map(|piece| piece.text.as_str()).collect();
            if let Some(clean) = redactor.in_row(&texts) {
                for (piece, text) in of_stream.into_iter().zip(clean) {
                    piece.text = text;
                }
            }
        }
        for piece in pieces {
            if !piece.text.is_empty() {
                self.kept.push(piece, run_is_full);
            }
        }
    }
}

/// Where the next piece goes, and how much there is already.
#[derive(Default)]
struct Writing {
    last: u64,
    /// What the journal holds, without what was written and emptied since.
    bytes: u64,
    /// It is not known what the last write left: the journal says it.
    is_stale: bool,
}

/// What is to be written, and what it adds to the journal and takes from it.
struct Batch {
    prints: Prints,
    added: u64,
    freed: u64,
}

impl Writing {
    fn is_full(&self) -> bool {
        self.bytes > OF_RUN
    }

    /// What there is to be written of all executions; of one that has ended, everything.
    fn gather(
        &mut self,
        sources: &mut HashMap<Who, Source>,
        ended: Option<(&Who, bool)>,
        now: Timestamp,
        redactor: &Redactor,
    ) -> Batch {
        let full = self.is_full();
        let mut prints = Prints::default();
        let mut freed = 0;
        for (who, source) in sources.iter_mut() {
            match ended {
                Some((over, failed)) if over == who => {
                    source.clean(Take::End, redactor, full);
                    source.kept.end(failed);
                }
                Some(_) => continue,
                None => source.clean(source.raw.due(now), redactor, full),
            }
            freed += source.kept.write(who, &mut self.last, now, &mut prints);
        }
        if let Some((who, _)) = ended {
            sources.remove(who);
        }
        let added = prints.keep.iter().map(|one| one.text.len() as u64).sum();
        Batch {
            prints,
            added,
            freed,
        }
    }

    fn wrote(&mut self, added: u64, freed: u64) {
        self.bytes = (self.bytes + added).saturating_sub(freed);
    }
}

/// Writes what the steps of one run print.
pub(super) struct Printer {
    run: String,
    epoch: u64,
    shared: Arc<Shared>,
    clock: Arc<RunClock>,
    redactor: Arc<Redactor>,
    sources: Mutex<HashMap<Who, Source>>,
    writing: tokio::sync::Mutex<Option<Writing>>,
    is_full: AtomicBool,
    /// The lease is another's: nothing more is kept.
    is_over: AtomicBool,
    is_awake: AtomicBool,
}

impl Printer {
    pub(super) fn new(
        run: String,
        epoch: u64,
        (shared, clock): (Arc<Shared>, Arc<RunClock>),
        redactor: Arc<Redactor>,
    ) -> Arc<Self> {
        Arc::new(Self {
            run,
            epoch,
            shared,
            clock,
            redactor,
            sources: Mutex::default(),
            writing: tokio::sync::Mutex::new(None),
            is_full: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_awake: AtomicBool::new(false),
        })
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<Who, Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn print(self: &Arc<Self>, who: &Who, stream: Stream, text: &str) {
        if text.is_empty() || self.is_over.load(Ordering::Relaxed) {
            return;
        }
        let now = self.clock.now();
        {
            let mut sources = self.sources();
            if !sources.contains_key(who) {
                sources.insert(who.clone(), Source::default());
            }
            let Some(source) = sources.get_mut(who) else {
                return;
            };
            source.raw.push(stream, text, now, &self.redactor);
            if source.raw.bytes > MOST_RAW {
                let full = self.is_full.load(Ordering::Relaxed);
                source.clean(Take::Busy, &self.redactor, full);
            }
        }
        self.wake();
    }

    /// One task writes for all executions of the run, as long as there is something to write.
    fn wake(self: &Arc<Self>) {
        if self.is_awake.swap(true, Ordering::SeqCst) {
            return;
        }
        let this: Weak<Self> = Arc::downgrade(self);
        let clock = self.clock.clone();
        spawn(async move {
            loop {
                clock.sleep_until(PACE.after(clock.now())).await;
                let Some(printer) = this.upgrade() else {
                    return;
                };
                printer.flush(None).await;
                if printer.has_more() {
                    continue;
                }
                printer.is_awake.store(false, Ordering::SeqCst);
                // What came between the two lines above woke nobody.
                if !printer.has_more() || printer.is_awake.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
        });
    }

    fn has_more(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
            && self
                .sources()
                .values()
                .any(|source| !source.raw.is_empty() || !source.kept.unwritten.is_empty())
    }

    /// An execution is over: what it printed is durable when this returns.
    pub(super) async fn end(&self, who: &Who, failed: bool) {
        if self.sources().contains_key(who) {
            self.flush(Some((who, failed))).await;
        }
    }

    /// Writes what is there; of an execution that has ended, everything.
    async fn flush(&self, ended: Option<(&Who, bool)>) {
        let mut writing = self.writing.lock().await;
        if writing.as_ref().is_none_or(|writing| writing.is_stale) {
            // A journal that cannot be read fails the run elsewhere.
            let size = self
                .shared
                .journal
                .printed_size(&self.run)
                .await
                .unwrap_or_default();
            // Places that were given stay given, though nothing may stand there.
            let given = writing.as_ref().map_or(0, |writing| writing.last);
            *writing = Some(Writing {
                last: size.last.max(given),
                bytes: size.bytes,
                is_stale: false,
            });
        }
        let Some(writing) = writing.as_mut() else {
            return;
        };
        self.is_full.store(writing.is_full(), Ordering::Relaxed);
        let Batch {
            prints,
            added,
            freed,
        } = {
            let mut sources = self.sources();
            writing.gather(&mut sources, ended, self.clock.now(), &self.redactor)
        };
        if prints == Prints::default() {
            return;
        }
        let lost: Vec<(Who, u64, usize)> = prints
            .keep
            .iter()
            .map(|one| {
                let who = Who {
                    node: one.node.as_str().into(),
                    phase: one.phase,
                    attempt: one.attempt,
                };
                (who, one.no, one.text.len())
            })
            .collect();
        match self
            .shared
            .journal
            .print(&self.run, self.epoch, prints)
            .await
        {
            Ok(()) => writing.wrote(added, freed),
            Err(JournalError::LeaseLost { .. }) => {
                self.is_over.store(true, Ordering::Relaxed);
                self.sources().clear();
            }
            // What is printed decides nothing: the run goes on, and says how much is missing once it can be said.
            Err(_) => {
                writing.is_stale = true;
                let mut sources = self.sources();
                for (who, no, bytes) in lost {
                    if let Some(source) = sources.get_mut(&who) {
                        source.kept.lose(no, bytes);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
