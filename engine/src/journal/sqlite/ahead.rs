//! A long run is read by two threads: one reads the file and checks the chain, the other makes events of the texts. Each is about half
//! of the work, and whoever recovers a run waits for both.
use super::read::Stopped;
use crate::{
    journal::record::{self, Graphs, Unreadable},
    machine::Event,
};
use std::{
    panic::resume_unwind,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

/// From so many events on a second thread is worth its start.
pub(super) const LONG: usize = 2_000;

/// How much text goes over at once, in bytes.
const CHUNK: usize = 128 * 1024;

/// How many chunks may wait: reading does not run far ahead of decoding.
const AHEAD: usize = 8;

/// Checked texts, one after another in one allocation, and where the time and the body of each end.
#[derive(Default)]
struct Texts {
    text: String,
    ends: Vec<(usize, usize)>,
}

enum Passed {
    Texts(Texts),
    /// One that names blobs: these only the reader has.
    Event(Box<Event>),
}

/// Takes checked events from the reader, in order.
pub(super) struct Sender {
    pass: SyncSender<Passed>,
    texts: Texts,
}

impl Sender {
    /// An event whose text is all there is of it.
    ///
    /// # Errors
    /// If the decoder has gone. It met an event that it cannot read, which comes before all that is read now: that is what the reader
    /// reports in the end.
    pub(super) fn text(&mut self, at: &str, body: &str) -> Result<(), Unreadable> {
        self.texts.text.push_str(at);
        let middle = self.texts.text.len();
        self.texts.text.push_str(body);
        self.texts.ends.push((middle, self.texts.text.len()));
        if self.texts.text.len() >= CHUNK {
            return self.flush();
        }
        Ok(())
    }

    /// # Errors
    /// As [`Sender::text`].
    pub(super) fn event(&mut self, event: Event) -> Result<(), Unreadable> {
        self.flush()?;
        self.send(Passed::Event(Box::new(event)))
    }

    fn flush(&mut self) -> Result<(), Unreadable> {
        if self.texts.ends.is_empty() {
            return Ok(());
        }
        let texts = std::mem::take(&mut self.texts);
        self.send(Passed::Texts(texts))
    }

    fn send(&self, passed: Passed) -> Result<(), Unreadable> {
        let sent = self.pass.send(passed);
        sent.map_err(|_| Unreadable::Damaged("an event before it cannot be read".to_owned()))
    }
}

/// The events that `read` finds from `from` on. Of several places that do not hold the first is reported: what is decoded was checked
/// before.
pub(super) fn load(
    (from, expected): (u64, usize),
    graphs: &Graphs,
    read: impl FnOnce(&mut Sender) -> Result<(), Stopped>,
) -> Result<Vec<Event>, Stopped> {
    std::thread::scope(|scope| {
        let (pass, passed) = sync_channel(AHEAD);
        let decoder = std::thread::Builder::new()
            .name("decoder".to_owned())
            .spawn_scoped(scope, move || decode((from, expected), graphs, &passed))
            .map_err(|error| Stopped::no_thread(&error))?;
        let mut sender = Sender {
            pass,
            texts: Texts::default(),
        };
        let done = read(&mut sender);
        // What was checked before the reader stopped is decoded all the same: it may hold the first place that does not hold.
        let flushed = sender.flush();
        let done = done.and(flushed.map_err(|error| Stopped::unreadable(from, error)));
        drop(sender);
        let decoded = decoder.join().unwrap_or_else(|panic| resume_unwind(panic));
        let events = decoded.map_err(|(seq, error)| Stopped::unreadable(seq, error))?;
        done.map(|()| events)
    })
}

fn decode(
    (from, expected): (u64, usize),
    graphs: &Graphs,
    passed: &Receiver<Passed>,
) -> Result<Vec<Event>, (u64, Unreadable)> {
    let mut events = Vec::with_capacity(expected);
    for next in passed {
        match next {
            Passed::Event(event) => events.push(*event),
            Passed::Texts(Texts { text, ends }) => {
                let mut start = 0;
                for (middle, end) in ends {
                    let at = text.get(start..middle).unwrap_or_default();
                    let body = text.get(middle..end).unwrap_or_default();
                    start = end;
                    let event = record::decode(at, body, graphs, &mut |_| Ok(None));
                    events.push(event.map_err(|error| (from + events.len() as u64, error))?);
                }
            }
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use crate::{
        journal::{
            Journal, JournalError, SqliteJournal,
            conformance::{create, progressed},
            record::{Hash, link},
        },
        machine::{Event, EventBody},
        value::Value,
    };
    use rusqlite::{Connection, params};
    use std::path::Path;
    use tempfile::TempDir;

    const EVENTS: u64 = 5_000;

    /// A run of many events, of which some are kept beside the chain.
    async fn long_run(path: &Path) -> Vec<Event> {
        let journal = SqliteJournal::open(path).unwrap();
        let lease = create(&journal, "r1").await;
        let events: Vec<Event> = (2..=EVENTS)
            .map(|seq| {
                let large = seq % 700 == 0;
                let state = if large {
                    "x".repeat(100_000)
                } else {
                    seq.to_string()
                };
                progressed(seq, Value::text(state))
            })
            .collect();
        let appended = journal.append(lease.as_ref(), 2, events.clone(), "running");
        appended.await.unwrap();
        events
    }

    /// Changes a body, and chains everything from there on anew, as a Windlass would that knows other events.
    fn rewrite(path: &Path, seq: u64, body: &str) {
        let conn = Connection::open(path).unwrap();
        let hash = |seq: u64| -> Hash {
            conn.query_row("SELECT hash FROM events WHERE seq = ?1", [seq], |row| {
                row.get(0)
            })
            .unwrap()
        };
        conn.execute("BEGIN", []).unwrap();
        conn.execute(
            "UPDATE events SET body = ?2 WHERE seq = ?1",
            params![seq, body],
        )
        .unwrap();
        let mut before = hash(seq - 1);
        for seq in seq..=EVENTS {
            let (at, body): (String, String) = conn
                .query_row("SELECT at, body FROM events WHERE seq = ?1", [seq], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            before = link(&before, seq, at.as_bytes(), body.as_bytes());
            conn.execute(
                "UPDATE events SET hash = ?2 WHERE seq = ?1",
                params![seq, before],
            )
            .unwrap();
        }
        conn.execute("UPDATE runs SET head_hash = ?1", [before])
            .unwrap();
        conn.execute("COMMIT", []).unwrap();
    }

    fn place(loaded: Result<Vec<Event>, JournalError>) -> (u64, String) {
        match loaded {
            Err(JournalError::Corrupt { seq, what, .. }) => (seq, what),
            other => panic!("{:?}", other.map(|events| events.len())),
        }
    }

    #[tokio::test]
    async fn a_long_run_is_read_as_it_was_written() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("journal.db");
        let events = long_run(&path).await;
        let journal = SqliteJournal::read(&path).unwrap();
        let loaded = journal.load("r1", 1).await.unwrap();
        assert!(matches!(loaded[0].body, EventBody::RunStarted(_)));
        assert_eq!(loaded[1..], events);
        assert_eq!(journal.load("r1", 1_501).await.unwrap(), events[1_499..]);
    }

    #[tokio::test]
    async fn of_several_places_the_first_is_reported() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("journal.db");
        long_run(&path).await;
        rewrite(&path, 3_000, "{\"of_the_future\":{}}");
        let journal = SqliteJournal::read(&path).unwrap();
        let (seq, what) = place(journal.load("r1", 1).await);
        assert_eq!(seq, 3_000);
        assert!(what.contains("of_the_future"), "{what}");
        let edit = |seq: u64| {
            Connection::open(&path)
                .unwrap()
                .execute(
                    "UPDATE events SET at = replace(at, 'Z', '') WHERE seq = ?1",
                    [seq],
                )
                .unwrap()
        };
        // The reader is at the end, or the chain breaks, before the decoder comes to its place.
        edit(3_001);
        assert_eq!(place(journal.load("r1", 1).await).0, 3_000);
        edit(2_999);
        assert_eq!(place(journal.load("r1", 1).await).0, 2_999);
    }
}
