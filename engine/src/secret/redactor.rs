//! Known content, found in whatever is about to be written, and replaced by the name of its secret.
use super::{forms, views, views::View};
use crate::value::{Map, SecretPart, SecretText, Value};
use aho_corasick::AhoCorasick;
use std::{
    borrow::Cow,
    sync::{Arc, PoisonError, RwLock},
};

/// The fewest characters that a secret may have. A shorter one could not be told from other text: to hide `1` or
/// `ab` would hide half of a report and say where the secret stood. It is refused when it is fetched.
pub const MIN_CHARS: usize = 4;

/// Encoded text this long is also found where white space stands in it.
const MIN_SQUEEZED: usize = 12;

/// The same for plain text, in which words of two lines may make up a shorter one by chance.
const MIN_WRAPPED: usize = 16;

/// How often escapes are read back: JSON in JSON, a URL in a URL.
const DEPTH: usize = 2;

/// Longer pieces of a secret at the end or the start of a text are not looked for.
const MAX_CUT: usize = 4096;

/// Knows the content of every secret that this process has fetched, and replaces it by `«secret NAME»`.
///
/// It finds the content as it is; quoted for SQL, CSV, a shell or HTML; escaped with `\` as JSON, Rust, C and shells do,
/// or with `%` as URLs and forms do, in part or in full, once or twice; in base64 of both alphabets at every alignment, padded
/// or not, wrapped or not; in hexadecimal; and cut off at the start or the end of a text (8 characters or half of it, at most 16).
/// Of a secret that is a URL, a connection string or JSON, the password inside is a secret by itself; so is each line of
/// 8 characters or more.
///
/// It does not find what cannot be undone (a hash) or guessed (a compression, a secret cut in the middle of a line).
#[derive(Default)]
pub struct Redactor(RwLock<Arc<Known>>);

#[derive(Default)]
struct Known {
    /// Name and part, each pair once.
    parts: Vec<(Arc<str>, String)>,
    /// The parts as they are, for what is decoded.
    plain: Option<Needles>,
    /// The parts quoted and encoded, for what is not.
    direct: Option<Needles>,
}

struct Needles {
    automaton: AhoCorasick,
    about: Vec<About>,
}

#[derive(Clone, Copy)]
struct About {
    /// Place in [`Known::parts`].
    part: usize,
    /// Length in bytes.
    len: usize,
    encoding: Encoding,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Text,
    Hex,
    Base64,
}

/// Bytes that say too much, and the part that they say.
type Found = (usize, usize, usize);

impl Needles {
    fn new(needles: Vec<(String, usize, Encoding)>) -> Option<Self> {
        if needles.is_empty() {
            return None;
        }
        let about = needles
            .iter()
            .map(|(needle, part, encoding)| About {
                part: *part,
                len: needle.len(),
                encoding: *encoding,
            })
            .collect();
        // Too many or too long: never for what providers may give.
        let automaton = AhoCorasick::new(needles.iter().map(|(needle, _, _)| needle)).ok()?;
        Some(Self { automaton, about })
    }

    fn all<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (usize, usize, About)> + 'a {
        self.automaton.find_overlapping_iter(bytes).filter_map(|m| {
            let about = self.about.get(m.pattern().as_usize())?;
            Some((m.start(), m.end(), *about))
        })
    }
}

impl Known {
    fn build(parts: Vec<(Arc<str>, String)>) -> Self {
        let mut plain = Vec::new();
        let mut direct = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for (at, (_, part)) in parts.iter().enumerate() {
            plain.push((part.clone(), at, Encoding::Text));
            let quoted = forms::quoted(part)
                .into_iter()
                .map(|form| (form, Encoding::Text));
            let hex = forms::hex_forms(part)
                .into_iter()
                .map(|form| (form, Encoding::Hex));
            let base64 = forms::base64_cores(part)
                .into_iter()
                .map(|form| (form, Encoding::Base64));
            for (form, encoding) in quoted.chain(hex).chain(base64) {
                if seen.insert(form.clone()) {
                    direct.push((form, at, encoding));
                }
            }
        }
        Self {
            plain: Needles::new(plain),
            direct: Needles::new(direct),
            parts,
        }
    }

    fn find(&self, text: &str) -> Vec<Found> {
        let (Some(plain), Some(direct)) = (&self.plain, &self.direct) else {
            return Vec::new();
        };
        let bytes = text.as_bytes();
        let mut found: Vec<Found> = direct
            .all(bytes)
            .map(|(start, end, about)| match about.encoding {
                Encoding::Text | Encoding::Hex => (start, end, about.part),
                Encoding::Base64 => {
                    let (start, end) = widened(bytes, start, end);
                    (start, end, about.part)
                }
            })
            .collect();
        if bytes.iter().any(|b| matches!(b, b'%' | b'+' | b'\\')) {
            decoded(View::of(text), plain, DEPTH, &mut found);
        }
        // A reader leaves these out, and what they part is whole again: colours, NULs of UTF-16.
        if let Some(view) = views::visible(text) {
            let shown = direct.all(&view.bytes);
            found.extend(shown.filter_map(|(start, end, about)| {
                let (start, end) = view.original(start, end)?;
                Some((start, end, about.part))
            }));
        }
        if bytes.contains(&b'\n')
            && let Some(view) = views::squeezed(&View::of(text))
        {
            let long = direct.all(&view.bytes).filter(|(_, _, about)| {
                let least = match about.encoding {
                    Encoding::Text => MIN_WRAPPED,
                    Encoding::Hex | Encoding::Base64 => MIN_SQUEEZED,
                };
                about.len >= least
            });
            for (start, end, about) in long {
                let (start, end) = match about.encoding {
                    Encoding::Base64 => widened(&view.bytes, start, end),
                    Encoding::Text | Encoding::Hex => (start, end),
                };
                found.extend(
                    view.original(start, end)
                        .map(|(start, end)| (start, end, about.part)),
                );
            }
        }
        for (at, (_, part)) in self.parts.iter().enumerate() {
            found.extend(cut(text, part).map(|(start, end)| (start, end, at)));
        }
        found
    }

    fn name(&self, part: usize) -> &str {
        self.parts.get(part).map_or("", |(name, _)| name)
    }
}

/// One more character on each side, which holds some bits of the secret, and the padding.
fn widened(bytes: &[u8], start: usize, end: usize) -> (usize, usize) {
    let is_digit = |at: usize| {
        bytes
            .get(at)
            .is_some_and(|b| b.is_ascii_alphanumeric() || b"+/-_".contains(b))
    };
    let start = match start.checked_sub(1) {
        Some(before) if is_digit(before) => before,
        Some(_) | None => start,
    };
    let mut end = if is_digit(end) { end + 1 } else { end };
    while bytes.get(end) == Some(&b'=') {
        end += 1;
    }
    (start, end)
}

/// Looks in what the escapes of a view mean, and in what the escapes of that mean.
fn decoded(view: View, plain: &Needles, depth: usize, found: &mut Vec<Found>) {
    if depth == 0 {
        return;
    }
    let views = [
        views::percent(&view, false),
        views::percent(&view, true),
        views::unescaped(&view),
    ];
    drop(view);
    for view in views.into_iter().flatten() {
        found.extend(plain.all(&view.bytes).filter_map(|(start, end, about)| {
            let (start, end) = view.original(start, end)?;
            Some((start, end, about.part))
        }));
        decoded(view, plain, depth - 1, found);
    }
}

/// A text that ends with the beginning of a secret, or begins with the end of one: it was cut there.
fn cut(text: &str, part: &str) -> impl Iterator<Item = (usize, usize)> {
    let least = (part.len() / 2).clamp(8, 16);
    let most = part.len().saturating_sub(1).min(MAX_CUT);
    let body = text.trim_end_matches(['…', '.', '\u{fffd}', '\n', ' ']);
    let tail = (least..=most)
        .rev()
        .find(|&len| part.get(..len).is_some_and(|head| body.ends_with(head)))
        .map(|len| (body.len() - len, body.len()));
    let front = text.trim_start_matches(['…', '.', '\u{fffd}', '\n', ' ']);
    let skipped = text.len() - front.len();
    let head = (least..=most)
        .rev()
        .find(|&len| {
            part.get(part.len() - len..)
                .is_some_and(|end| front.starts_with(end))
        })
        .map(|len| (skipped, skipped + len));
    [tail, head].into_iter().flatten()
}

impl Redactor {
    /// From here on, the content of this secret is replaced by its name. Parts of fewer than [`MIN_CHARS`] characters
    /// are not.
    pub fn learn(&self, name: &str, content: &str) {
        let parts = forms::parts(content, MIN_CHARS);
        let is_new = |known: &Known| {
            parts
                .iter()
                .any(|part| !known.parts.iter().any(|(_, other)| other == part))
        };
        if !is_new(&self.known()) {
            return;
        }
        let mut slot = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = slot.parts.clone();
        for part in parts {
            if !all.iter().any(|(_, other)| *other == part) {
                all.push((name.into(), part));
            }
        }
        *slot = Arc::new(Known::build(all));
    }

    fn known(&self) -> Arc<Known> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The text, with what is known in it replaced.
    #[must_use]
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        replaced(&self.known(), text)
    }

    /// The same for a text that is there to be kept.
    #[must_use]
    pub fn string(&self, text: String) -> String {
        match self.text(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(redacted) => redacted,
        }
    }

    /// The value, with what is known in its texts, keys, bytes and numbers replaced. What holds nothing is not copied.
    #[must_use]
    pub fn value(&self, value: Value) -> Value {
        let known = self.known();
        if known.parts.is_empty() {
            return value;
        }
        changed(&known, &value).unwrap_or(value)
    }

    /// The same for JSON, keys included.
    #[must_use]
    pub fn json(&self, json: serde_json::Value) -> serde_json::Value {
        use serde_json::Value as Json;
        match json {
            Json::String(text) => Json::String(self.string(text)),
            Json::Array(items) => items.into_iter().map(|item| self.json(item)).collect(),
            Json::Object(map) => map
                .into_iter()
                .map(|(key, value)| (self.string(key), self.json(value)))
                .collect(),
            Json::Number(number) => match self.text(&number.to_string()) {
                Cow::Owned(clean) if clean.starts_with('«') && clean.ends_with('»') => {
                    Json::String(clean)
                }
                Cow::Owned(_) | Cow::Borrowed(_) => Json::Number(number),
            },
            Json::Null | Json::Bool(_) => json,
        }
    }

    /// Bytes that the longest form of anything known may take, escapes included; 0 where nothing is known.
    #[must_use]
    pub fn longest(&self) -> usize {
        let known = self.known();
        let forms = [&known.plain, &known.direct];
        let longest = forms
            .into_iter()
            .flatten()
            .flat_map(|needles| needles.about.iter().map(|about| about.len))
            .max();
        // `%41` for one character, and what wraps a line.
        longest.map_or(0, |bytes| bytes * 3 + bytes / 16)
    }

    /// The last place of a text, up to `at`, where it can be parted without parting anything known.
    #[must_use]
    pub fn parted(&self, text: &str, at: usize) -> usize {
        let mut at = at.min(text.len());
        let mut found = self.known().find(text);
        found.sort_unstable();
        for (start, end, _) in found.into_iter().rev() {
            if start < at && at < end {
                at = start;
            }
        }
        text.floor_char_boundary(at)
    }

    /// Whether anything in this value is known.
    #[must_use]
    pub fn finds(&self, value: &Value) -> bool {
        let known = self.known();
        !known.parts.is_empty() && changed(&known, value).is_some()
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} parts)", self.known().parts.len())
    }
}

fn replaced<'t>(known: &Known, text: &'t str) -> Cow<'t, str> {
    let mut found = known.find(text);
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    found.sort_unstable();
    let mut clean = String::with_capacity(text.len());
    let mut upto = 0;
    let mut ranges = found.into_iter().peekable();
    while let Some((start, mut end, part)) = ranges.next() {
        while let Some((_, more, _)) = ranges.next_if(|(next, _, _)| *next <= end) {
            end = end.max(more);
        }
        let start = text.floor_char_boundary(start);
        let end = text.ceil_char_boundary(end);
        clean.push_str(text.get(upto..start).unwrap_or_default());
        clean.push_str("«secret ");
        clean.push_str(known.name(part));
        clean.push('»');
        upto = end;
    }
    clean.push_str(text.get(upto..).unwrap_or_default());
    Cow::Owned(clean)
}

/// The value without what is known; `None` where nothing of it is in there.
fn changed(known: &Known, value: &Value) -> Option<Value> {
    let text = |text: &str| match replaced(known, text) {
        Cow::Borrowed(_) => None,
        Cow::Owned(clean) => Some(clean),
    };
    // A number is a secret where it is all of it: else every longer number would be suspect.
    let whole = |text: String| {
        let (name, _) = known.parts.iter().find(|(_, part)| *part == text)?;
        Some(Value::from(format!("«secret {name}»")))
    };
    match value {
        Value::Text(content) => text(content).map(Value::from),
        Value::Int(number) => whole(number.to_string()),
        Value::Decimal(number) => whole(number.to_string()),
        Value::Float(number) => whole(number.to_string()),
        Value::Bytes(bytes) => text(&String::from_utf8_lossy(bytes))
            .map(|clean| Value::Bytes(clean.into_bytes().into())),
        Value::List(items) => {
            let mut clean: Option<Vec<Value>> = None;
            for (at, item) in items.iter().enumerate() {
                if let Some(item) = changed(known, item) {
                    let clean = clean.get_or_insert_with(|| items.to_vec());
                    if let Some(slot) = clean.get_mut(at) {
                        *slot = item;
                    }
                }
            }
            clean.map(Value::list)
        }
        Value::Map(map) => {
            let edits: Vec<(Option<String>, Option<Value>)> = map
                .iter()
                .map(|(key, value)| (text(key), changed(known, value)))
                .collect();
            if edits
                .iter()
                .all(|(key, value)| key.is_none() && value.is_none())
            {
                return None;
            }
            let clean: Map = map
                .iter()
                .zip(edits)
                .map(|((key, value), (new_key, new_value))| {
                    (
                        new_key.map_or_else(|| key.clone(), Into::into),
                        new_value.unwrap_or_else(|| value.clone()),
                    )
                })
                .collect();
            Some(Value::Map(Arc::new(clean)))
        }
        Value::Secret(secret) => {
            let parts: Vec<SecretPart> = secret
                .parts
                .iter()
                .map(|part| match part {
                    SecretPart::Text(plain) => {
                        SecretPart::Text(text(plain).unwrap_or_else(|| plain.clone()))
                    }
                    SecretPart::Secret(name) => SecretPart::Secret(name.clone()),
                })
                .collect();
            (parts != secret.parts).then(|| Value::Secret(Arc::new(SecretText { parts })))
        }
        Value::Null
        | Value::Bool(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_) => None,
    }
}

#[cfg(test)]
#[path = "redactor_tests.rs"]
mod tests;
