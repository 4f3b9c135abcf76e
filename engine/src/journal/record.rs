//! The stored form of events, and the hash chain over it. Shared by every journal.
//!
//! An event is stored as its time and the JSON of its body. What is large stands once, under its SHA-256, in a
//! *blob*: the graph of a run always, and a whole body beyond [`INLINE_LIMIT`]. A body that stands in a blob is
//! `{"$blob":"<hash>"}`, which no event looks like. The chain covers the stored bytes, so an audit needs nothing
//! but the store.
use super::{Head, JournalError};
use crate::{
    graph::Graph,
    machine::{EVENT_FORMAT, Event, EventBody, RunStarted},
    step::{RunInfo, Target},
    value::{Timestamp, Value},
};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Bodies beyond this many bytes go to a blob.
pub(super) const INLINE_LIMIT: usize = 64 * 1024;
/// What JSON readers accept; a value nested deeper would be written and never read again.
const MAX_DEPTH: usize = 120;
const BLOB_PREFIX: &str = "{\"$blob\":";
const START_PREFIX: &str = "{\"run_started\":";

/// SHA-256.
pub(super) type Hash = [u8; 32];

/// One stored event.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) at: String,
    pub(super) body: String,
    pub(super) hash: Hash,
}

/// Something large, stored once under its hash.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) hash: Hash,
    pub(super) body: String,
}

/// Events in their stored form, ready to be appended after `prev`.
#[derive(Debug)]
pub(super) struct Batch {
    /// The place of the first.
    pub(super) seq: u64,
    pub(super) records: Vec<Record>,
    pub(super) blobs: Vec<Blob>,
    /// Inbox entries that the events take, with the place of the event that does.
    pub(super) takes: Vec<(String, u64)>,
    /// Whether the run ends here.
    pub(super) finished: bool,
    /// The hash of the last event, or of the one before the batch where it is empty.
    pub(super) head: Hash,
    /// The graph to remember once the batch is durable.
    pub(super) graph: Option<(Hash, Arc<Graph>)>,
}

impl Batch {
    /// The place of the last event.
    pub(super) fn last_seq(&self) -> u64 {
        self.seq + self.records.len() as u64 - 1
    }
}

#[derive(Serialize, Deserialize)]
struct BlobRef {
    #[serde(rename = "$blob")]
    blob: String,
}

/// [`RunStarted`] with its graph in a blob.
#[derive(Serialize, Deserialize)]
struct StoredStart<'a> {
    format: u32,
    run: Cow<'a, RunInfo>,
    graph: BlobRef,
    inputs: Cow<'a, Value>,
    targets: Cow<'a, IndexMap<String, Target>>,
    #[serde(default, skip_serializing_if = "nobody")]
    unreachable: Cow<'a, IndexMap<String, String>>,
    #[serde(default)]
    approvers: Cow<'a, IndexMap<String, Vec<String>>>,
    #[serde(default)]
    secrets: Cow<'a, Value>,
    digest: Cow<'a, str>,
    engine: Cow<'a, str>,
}

#[expect(clippy::ptr_arg, reason = "serde's signature")]
fn nobody(unreachable: &Cow<'_, IndexMap<String, String>>) -> bool {
    unreachable.is_empty()
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredBody<'a> {
    RunStarted(Box<StoredStart<'a>>),
}

/// Graphs in memory by their hash, so that runs of one playbook share one graph.
#[derive(Default)]
pub(super) struct Graphs(Mutex<HashMap<Hash, Weak<Graph>>>);

impl Graphs {
    /// The hash of a graph that is stored already.
    fn hash_of(&self, graph: &Arc<Graph>) -> Option<Hash> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .find(|(_, weak)| std::ptr::eq(weak.as_ptr(), Arc::as_ptr(graph)))
            .map(|(hash, _)| *hash)
    }

    fn get(&self, hash: &Hash) -> Option<Arc<Graph>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).and_then(Weak::upgrade)
    }

    /// Remembers a graph that is durable in the store.
    pub(super) fn remember(&self, hash: Hash, graph: &Arc<Graph>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, weak| weak.strong_count() > 0);
        known.entry(hash).or_insert_with(|| Arc::downgrade(graph));
    }
}

/// Where a run's chain begins: bound to its id, so that no run's events pass for another's.
pub(super) fn genesis(run: &str) -> Hash {
    Sha256::digest(run.as_bytes()).into()
}

/// SHA-256 of a blob.
pub(super) fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

pub(super) fn link(prev: &Hash, seq: u64, at: &[u8], body: &[u8]) -> Hash {
    let mut sha = Sha256::new();
    sha.update(prev);
    sha.update(seq.to_be_bytes());
    sha.update((at.len() as u64).to_be_bytes());
    sha.update(at);
    sha.update(body);
    sha.finalize().into()
}

/// Puts events into their stored form, chained to `prev`.
pub(super) fn encode(
    run: &str,
    prev: Hash,
    seq: u64,
    events: &[Event],
    graphs: &Graphs,
) -> Result<Batch, JournalError> {
    let mut batch = Batch {
        seq,
        records: Vec::with_capacity(events.len()),
        blobs: Vec::new(),
        takes: Vec::new(),
        finished: false,
        head: prev,
        graph: None,
    };
    for (place, event) in (seq..).zip(events) {
        let unwritable = |error: &dyn std::fmt::Display| {
            JournalError::Store(format!(
                "event {place} of run {run} cannot be written as JSON: {error}; nothing was written"
            ))
        };
        let answered = match &event.body {
            EventBody::CommandAccepted(taken) => Some(&taken.id),
            EventBody::CommandRefused(refused) => Some(&refused.id),
            _ => None,
        };
        batch.takes.extend(answered.map(|id| (id.clone(), place)));
        batch.finished |= matches!(event.body, EventBody::Finished(_));
        let mut body = if let EventBody::RunStarted(start) = &event.body {
            encode_start(start, &mut batch, graphs).map_err(|e| unwritable(&e))?
        } else {
            serde_json::to_string(&event.body).map_err(|e| unwritable(&e))?
        };
        check_depth(&body).map_err(|e| unwritable(&e))?;
        if body.len() > INLINE_LIMIT {
            let hash = sha256(body.as_bytes());
            batch.blobs.push(Blob { hash, body });
            body = format!("{BLOB_PREFIX}\"{}\"}}", hex::encode(hash));
        }
        let at = event.at.to_string();
        let hash = link(&batch.head, place, at.as_bytes(), body.as_bytes());
        batch.head = hash;
        batch.records.push(Record { at, body, hash });
    }
    Ok(batch)
}

fn encode_start(start: &RunStarted, batch: &mut Batch, graphs: &Graphs) -> Result<String, String> {
    // Every field by name: one that is added must be stored, or this does not build.
    let RunStarted {
        format,
        run,
        graph,
        inputs,
        targets,
        unreachable,
        approvers,
        secrets,
        digest,
        engine,
    } = start;
    let hash = if let Some(hash) = graphs.hash_of(graph) {
        hash
    } else {
        let body = serde_json::to_string(graph.as_ref()).map_err(|e| e.to_string())?;
        check_depth(&body)?;
        let hash = sha256(body.as_bytes());
        batch.blobs.push(Blob { hash, body });
        batch.graph = Some((hash, graph.clone()));
        hash
    };
    serde_json::to_string(&StoredBody::RunStarted(Box::new(StoredStart {
        format: *format,
        run: Cow::Borrowed(run),
        graph: BlobRef {
            blob: hex::encode(hash),
        },
        inputs: Cow::Borrowed(inputs),
        targets: Cow::Borrowed(targets),
        unreachable: Cow::Borrowed(unreachable),
        approvers: Cow::Borrowed(approvers),
        secrets: Cow::Borrowed(secrets),
        digest: Cow::Borrowed(digest),
        engine: Cow::Borrowed(engine),
    })))
    .map_err(|e| e.to_string())
}

/// Refuses what would be written and never read again.
fn check_depth(body: &str) -> Result<(), String> {
    let openings = body.bytes().filter(|b| matches!(b, b'{' | b'[')).count();
    if openings <= MAX_DEPTH || depth(body) <= MAX_DEPTH {
        return Ok(());
    }
    Err(format!(
        "a value is nested too deep to be read back (more than {MAX_DEPTH} lists and maps in each other)"
    ))
}

fn depth(json: &str) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' => now -= 1,
            _ => {}
        }
    }
    most
}

/// Why a stored event cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is not what was written.
    Damaged(String),
    /// A newer Windlass wrote it.
    Newer(i64),
    /// The store failed.
    Store(JournalError),
}

impl Unreadable {
    /// As an error about a place in a run.
    pub(super) fn at(self, run: &str, seq: u64) -> JournalError {
        match self {
            Self::Damaged(what) => JournalError::Corrupt {
                run: run.to_owned(),
                seq,
                what,
            },
            Self::Newer(found) => JournalError::Newer {
                found,
                known: EVENT_FORMAT.into(),
            },
            Self::Store(error) => error,
        }
    }
}

/// Where blobs come from; `None` where there is no such blob.
pub(super) type BlobSource<'a> = &'a mut dyn FnMut(&Hash) -> Result<Option<String>, Unreadable>;

/// Whether a stored event is more than its text.
pub(super) fn names_blobs(body: &str) -> bool {
    body.starts_with(BLOB_PREFIX) || body.starts_with(START_PREFIX)
}

/// Reads a stored event back.
pub(super) fn decode(
    at: &str,
    body: &str,
    graphs: &Graphs,
    blobs: BlobSource<'_>,
) -> Result<Event, Unreadable> {
    let at: Timestamp = at
        .parse()
        .map_err(|e| Unreadable::Damaged(format!("its time {at:?} cannot be read: {e}")))?;
    if body.starts_with(BLOB_PREFIX) {
        let body = resolve(body, blobs)?;
        return decode_body(at, &body, graphs, blobs);
    }
    decode_body(at, body, graphs, blobs)
}

fn decode_body(
    at: Timestamp,
    body: &str,
    graphs: &Graphs,
    blobs: BlobSource<'_>,
) -> Result<Event, Unreadable> {
    let not_json = |e: serde_json::Error| {
        Unreadable::Damaged(format!(
            "its text is not an event that this windlass knows: {e}"
        ))
    };
    let body = if body.starts_with(START_PREFIX) {
        if let Some(found) = newer_format(body) {
            return Err(Unreadable::Newer(found));
        }
        let StoredBody::RunStarted(start) = serde_json::from_str(body).map_err(not_json)?;
        EventBody::RunStarted(Box::new(decode_start(*start, graphs, blobs)?))
    } else {
        serde_json::from_str(body).map_err(not_json)?
    };
    Ok(Event { at, body })
}

/// The format of a start that is beyond ours. Looked at first: what follows may not be readable.
fn newer_format(body: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Outer {
        run_started: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        format: i64,
    }
    let outer: Outer = serde_json::from_str(body).ok()?;
    let found = outer.run_started.format;
    (found > i64::from(EVENT_FORMAT)).then_some(found)
}

fn decode_start(
    start: StoredStart<'static>,
    graphs: &Graphs,
    blobs: BlobSource<'_>,
) -> Result<RunStarted, Unreadable> {
    let hash = parse_hash(&start.graph.blob)?;
    let graph = if let Some(graph) = graphs.get(&hash) {
        graph
    } else {
        let body = fetch(&hash, blobs)?;
        let graph: Graph = serde_json::from_str(&body)
            .map_err(|e| Unreadable::Damaged(format!("its graph cannot be read: {e}")))?;
        let graph = Arc::new(graph);
        graphs.remember(hash, &graph);
        graph
    };
    Ok(RunStarted {
        format: start.format,
        run: start.run.into_owned(),
        graph,
        inputs: start.inputs.into_owned(),
        targets: start.targets.into_owned(),
        unreachable: start.unreachable.into_owned(),
        approvers: start.approvers.into_owned(),
        secrets: start.secrets.into_owned(),
        digest: start.digest.into_owned(),
        engine: start.engine.into_owned(),
    })
}

/// Checks every blob that a stored event names.
pub(super) fn check_blobs(body: &str, blobs: BlobSource<'_>) -> Result<(), Unreadable> {
    #[derive(Deserialize)]
    struct Outer {
        run_started: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        graph: BlobRef,
    }
    let whole;
    let body = if body.starts_with(BLOB_PREFIX) {
        whole = resolve(body, blobs)?;
        &whole
    } else {
        body
    };
    if body.starts_with(START_PREFIX) {
        let outer: Outer = serde_json::from_str(body)
            .map_err(|e| Unreadable::Damaged(format!("its text cannot be read: {e}")))?;
        fetch(&parse_hash(&outer.run_started.graph.blob)?, blobs)?;
    }
    Ok(())
}

fn resolve(body: &str, blobs: BlobSource<'_>) -> Result<String, Unreadable> {
    let at: BlobRef = serde_json::from_str(body)
        .map_err(|e| Unreadable::Damaged(format!("its text is not JSON: {e}")))?;
    fetch(&parse_hash(&at.blob)?, blobs)
}

fn parse_hash(text: &str) -> Result<Hash, Unreadable> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash)
        .map_err(|e| Unreadable::Damaged(format!("{text:?} is not the hash of a blob: {e}")))?;
    Ok(hash)
}

fn fetch(hash: &Hash, blobs: BlobSource<'_>) -> Result<String, Unreadable> {
    let name = || hex::encode(hash);
    let body = blobs(hash)?.ok_or_else(|| {
        Unreadable::Damaged(format!("the blob {} that it names is missing", name()))
    })?;
    if sha256(body.as_bytes()) == *hash {
        Ok(body)
    } else {
        Err(Unreadable::Damaged(format!(
            "the blob {} that it names was changed",
            name()
        )))
    }
}

/// Walks a stored chain and says where it does not hold.
pub(super) struct Chain {
    /// The hash of the last event that holds.
    pub(super) hash: Hash,
    /// How many hold.
    pub(super) seq: u64,
    /// Where the run ended, while nothing but refusals comes after.
    ended: Option<(u64, Hash)>,
}

impl Chain {
    /// After so many events, the last with this hash.
    pub(super) fn from(seq: u64, hash: Hash) -> Self {
        let ended = None;
        Self { hash, seq, ended }
    }

    /// The head of what holds.
    pub(super) fn head(&self) -> Head {
        Head {
            seq: self.seq,
            hash: hex::encode(self.hash),
        }
    }

    /// The head when the run ended.
    pub(super) fn ended(&self) -> Option<Head> {
        self.ended.map(|(seq, hash)| Head {
            seq,
            hash: hex::encode(hash),
        })
    }

    /// A driver that takes a command for a run that is over, and refuses it, changes nothing about the run; nor does who its targets
    /// are by then, nor a clock that was set.
    fn note_end(&mut self, body: &[u8]) {
        // Bodies are `{"name":…`.
        let name = body.get(2..).and_then(|rest| {
            let end = rest.iter().position(|byte| *byte == b'"')?;
            rest.get(..end)
        });
        match name.unwrap_or_default() {
            b"finished" => self.ended = Some((self.seq, self.hash)),
            // A run that stopped, and is closed after that, is over with its closing.
            b"closed" if self.ended.is_some() => self.ended = Some((self.seq, self.hash)),
            b"lease_taken" | b"command_refused" | b"identified" | b"clock_stepped" => {}
            _ => self.ended = None,
        }
    }

    /// Checks the next stored event.
    pub(super) fn check(
        &mut self,
        seq: u64,
        at: &[u8],
        body: &[u8],
        hash: &[u8],
    ) -> Result<(), (u64, String)> {
        let expected = self.seq + 1;
        if seq != expected {
            return Err((
                expected,
                format!("it is missing; the next event there is {seq}"),
            ));
        }
        let computed = link(&self.hash, seq, at, body);
        if computed != hash {
            return Err((
                seq,
                "its time, its text or its hash was changed after it was written".to_owned(),
            ));
        }
        self.hash = computed;
        self.seq = seq;
        self.note_end(body);
        Ok(())
    }

    /// Checks that the chain ends where the run's head says.
    pub(super) fn check_head(&self, seq: u64, hash: &[u8]) -> Result<(), (u64, String)> {
        if self.seq < seq {
            return Err((
                self.seq + 1,
                format!(
                    "it is missing: the run has {seq} events, and the last one there is {}",
                    self.seq
                ),
            ));
        }
        if self.seq > seq {
            return Err((
                seq + 1,
                format!("it is after the end of the run, which has {seq} events"),
            ));
        }
        if self.hash != hash {
            return Err((
                seq,
                "the hash in the run's head is not that of its last event".to_owned(),
            ));
        }
        Ok(())
    }
}

/// Whether a state of the list is that of a run that is over.
pub(super) fn is_over(state: &str) -> bool {
    use crate::machine::Outcome;
    [
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::Compensated,
        Outcome::Stopped,
        Outcome::Cancelled,
    ]
    .iter()
    .any(|outcome| outcome.as_str() == state)
        || state == crate::machine::CLOSED
}

/// What lists show of a run, from its first event.
pub(super) fn first_event<'a>(
    run: &str,
    events: &'a [Event],
) -> Result<&'a RunStarted, JournalError> {
    if let Some(Event {
        body: EventBody::RunStarted(start),
        ..
    }) = events.first()
    {
        Ok(start)
    } else {
        Err(JournalError::Store(format!(
            "run {run} does not begin with run_started; nothing was written"
        )))
    }
}
