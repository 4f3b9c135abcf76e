//! Known content, found in whatever is about to be written, and replaced by the name of its secret.
use super::{
    forms,
    views::{self, Squeezed, View},
};
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

/// A line of a wrapped secret is known by its first bytes, so many of them.
const LINE: usize = 16;

/// Places in secrets at which the same line may stand; more are not looked at.
const MOST_ALIKE: usize = 8;

/// A secret may have begun where a text ends with so many bytes of its beginning.
const BEGUN: usize = 8;

/// How often escapes are read back: JSON in JSON, a URL in a URL.
const DEPTH: usize = 2;

/// Longer pieces of a secret at the end or the start of a text are not looked for.
const MAX_CUT: usize = 4096;

/// Knows the content of every secret that this process has fetched, and replaces it by `«secret NAME»`.
///
/// It finds the content as it is; quoted for SQL, CSV, a shell or HTML; escaped with `\` as JSON, Rust, C and shells do,
/// or with `%` as URLs and forms do, in part or in full, once or twice; in base64 of both alphabets at every alignment, padded
/// or not; in hexadecimal; and all of these broken into lines of any width; as lines of [`LINE`] bytes or more that are a piece of
/// it, with what comes before and after them; and cut off at the start or the end of a text (8 characters or half of it, at most 16).
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
    /// The same without white space, for what was broken into lines.
    wrapped: Option<Needles>,
    /// What may begin at the end of a text and go on in the next: the forms without white space.
    forms: Vec<Vec<u8>>,
    /// The parts without white space.
    squeezed: Vec<Vec<u8>>,
    /// Each run of [`LINE`] bytes in them, in order, with the part and the place in it.
    runs: Vec<([u8; LINE], usize, usize)>,
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
        let mut wrapped = Vec::new();
        let mut squeezed = Vec::new();
        let mut runs = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut seen_bare = std::collections::HashSet::new();
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
                let bare: String = form.split_ascii_whitespace().collect();
                if seen_bare.insert(bare.clone()) {
                    wrapped.push((bare, at, encoding));
                }
                if seen.insert(form.clone()) {
                    direct.push((form, at, encoding));
                }
            }
            let bare: Vec<u8> = part.split_ascii_whitespace().flat_map(str::bytes).collect();
            // A host in a URL that is secret is no secret itself.
            if !forms::is_frame(part) {
                let each = bare.windows(LINE).enumerate();
                runs.extend(
                    each.filter_map(|(place, run)| Some((run.try_into().ok()?, at, place))),
                );
            }
            squeezed.push(bare);
        }
        runs.sort_unstable();
        let forms = wrapped
            .iter()
            .filter(|(form, _, _)| form.len() > BEGUN)
            .map(|(form, _, _)| form.clone().into_bytes())
            .collect();
        wrapped.retain(|(form, _, encoding)| {
            form.len()
                >= match encoding {
                    Encoding::Text => MIN_WRAPPED,
                    Encoding::Hex | Encoding::Base64 => MIN_SQUEEZED,
                }
        });
        Self {
            plain: Needles::new(plain),
            direct: Needles::new(direct),
            wrapped: Needles::new(wrapped),
            forms,
            squeezed,
            runs,
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
        let shown = views::visible(text);
        if let Some(view) = &shown {
            let all = direct.all(&view.bytes);
            found.extend(all.filter_map(|(start, end, about)| {
                let (start, end) = view.original(start, end)?;
                Some((start, end, about.part))
            }));
        }
        if bytes.iter().any(|b| matches!(b, b'\n' | b'\r')) {
            self.broken(&Squeezed::of(text, shown.as_ref()), &mut found);
        } else if self.may_be_line(bytes) {
            let squeezed = Squeezed::of(text, shown.as_ref());
            found.extend(originals(&squeezed.view, self.lines(&squeezed)));
        }
        for (at, (_, part)) in self.parts.iter().enumerate() {
            let cut = cut(bytes, part.as_bytes());
            found.extend(cut.map(|(start, end)| (start, end, at)));
        }
        found
    }

    /// What was broken into lines.
    fn broken(&self, squeezed: &Squeezed, found: &mut Vec<Found>) {
        let bytes = &squeezed.view.bytes;
        let whole = self.wrapped.iter().flat_map(|needles| needles.all(bytes));
        let whole = whole.map(|(start, end, about)| {
            let (start, end) = match about.encoding {
                Encoding::Base64 => widened(bytes, start, end),
                Encoding::Text | Encoding::Hex => (start, end),
            };
            (start, end, about.part)
        });
        let cut = self.squeezed.iter().enumerate().flat_map(|(at, part)| {
            let cut = cut(bytes, part);
            cut.map(move |(start, end)| (start, end, at))
        });
        found.extend(originals(&squeezed.view, whole.chain(cut)));
        found.extend(originals(&squeezed.view, self.lines(squeezed)));
    }

    /// Whether a text of one line begins like a line of a wrapped secret.
    fn may_be_line(&self, bytes: &[u8]) -> bool {
        let mut first = [0; LINE];
        let mut len = 0;
        let shown = bytes.iter().filter(|byte| !byte.is_ascii_whitespace());
        for (slot, byte) in first.iter_mut().zip(shown) {
            *slot = *byte;
            len += 1;
        }
        // An escape sequence before it is looked through later.
        len == LINE && (first.contains(&0x1b) || self.alike(&first).next().is_some())
    }

    /// The parts in which these bytes stand, and where.
    fn alike(&self, first: &[u8; LINE]) -> impl Iterator<Item = (usize, usize)> {
        let first = *first;
        let from = self.runs.partition_point(|(run, _, _)| *run < first);
        let alike = self.runs.get(from..).unwrap_or_default().iter();
        alike
            .take_while(move |(run, _, _)| *run == first)
            .take(MOST_ALIKE)
            .map(|(_, part, place)| (*part, *place))
    }

    /// Lines that are a piece of a secret, with what of it stands before and after them.
    fn lines(&self, squeezed: &Squeezed) -> Vec<Found> {
        let bytes = &squeezed.view.bytes;
        let mut found = Vec::new();
        let mut upto = 0;
        for &(start, end) in &squeezed.lines {
            let first = bytes.get(start..end).and_then(<[u8]>::first_chunk::<LINE>);
            let Some(first) = first.filter(|_| end > upto) else {
                continue;
            };
            for (part, place) in self.alike(first) {
                let Some((before, after)) =
                    self.squeezed.get(part).map(|part| part.split_at(place))
                else {
                    continue;
                };
                let (text_before, text_after) = bytes.split_at(start);
                let alike = |(a, b): &(&u8, &u8)| a == b;
                let len = text_after.iter().zip(after).take_while(alike).count();
                if start + len < end {
                    continue;
                }
                let back = text_before.iter().rev().zip(before.iter().rev());
                let back = back.take_while(alike).count();
                found.push((start - back, start + len, part));
                upto = upto.max(start + len);
            }
        }
        found
    }

    /// Where a secret begins at the end of a text, of which more may come; the text's end where none does.
    fn begun(&self, text: &str) -> usize {
        let squeezed = Squeezed::of(text, views::visible(text).as_ref());
        let bytes = &squeezed.view.bytes;
        let mut begins = bytes.len();
        for form in &self.forms {
            let most = form.len().saturating_sub(1).min(MAX_CUT).min(bytes.len());
            let len = (BEGUN..=most)
                .rev()
                .find(|&len| form.get(..len).is_some_and(|head| bytes.ends_with(head)));
            begins = begins.min(bytes.len() - len.unwrap_or(0));
        }
        for (start, end, part) in self.lines(&squeezed) {
            let line = bytes.get(start..end).unwrap_or_default();
            let is_end = |part: &Vec<u8>| part.ends_with(line);
            if end == bytes.len() && !self.squeezed.get(part).is_some_and(is_end) {
                begins = begins.min(start);
            }
        }
        if begins == bytes.len() {
            return text.len();
        }
        squeezed
            .view
            .original(begins, bytes.len())
            .map_or(text.len(), |(start, _)| start)
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

/// Ranges of a view as ranges of what it is a view of.
fn originals(view: &View, found: impl IntoIterator<Item = Found>) -> impl Iterator<Item = Found> {
    found.into_iter().filter_map(|(start, end, part)| {
        let (start, end) = view.original(start, end)?;
        Some((start, end, part))
    })
}

/// What stands at the place of what was cut off, or behind it.
const MARKS: [&[u8]; 6] = [
    "…".as_bytes(),
    b".",
    "\u{fffd}".as_bytes(),
    b"\n",
    b"\r",
    b" ",
];

/// A text that ends with the beginning of a secret, or begins with the end of one: it was cut there.
fn cut(text: &[u8], part: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let least = (part.len() / 2).clamp(8, 16);
    let most = part.len().saturating_sub(1).min(MAX_CUT);
    let mut body = text;
    while let Some(rest) = MARKS.iter().find_map(|mark| body.strip_suffix(*mark)) {
        body = rest;
    }
    let tail = (least..=most)
        .rev()
        .find(|&len| part.get(..len).is_some_and(|head| body.ends_with(head)))
        .map(|len| (body.len() - len, body.len()));
    let mut front = text;
    while let Some(rest) = MARKS.iter().find_map(|mark| front.strip_prefix(*mark)) {
        front = rest;
    }
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

    /// Texts that follow on one another without a gap, with what is known in them replaced, also where one begins in it and the next
    /// goes on. `None` where nothing is.
    #[must_use]
    pub fn in_row(&self, texts: &[&str]) -> Option<Vec<String>> {
        in_row(&self.known(), texts, "")
    }

    /// Where a secret has begun at the end of a text, of which more may come; the text's end where none has.
    #[must_use]
    pub fn begun(&self, text: &str) -> usize {
        self.known().begun(text)
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

/// What is known in a text, in order and not overlapping.
fn ranges(known: &Known, text: &str) -> Vec<Found> {
    let mut found = known.find(text);
    found.sort_unstable();
    let mut ranges: Vec<Found> = Vec::new();
    for (start, end, part) in found {
        match ranges.last_mut() {
            Some((_, upto, _)) if start <= *upto => *upto = end.max(*upto),
            Some(_) | None => ranges.push((start, end, part)),
        }
    }
    for (start, end, _) in &mut ranges {
        *start = text.floor_char_boundary(*start);
        *end = text.ceil_char_boundary(*end);
    }
    ranges
}

fn replaced<'t>(known: &Known, text: &'t str) -> Cow<'t, str> {
    match in_row(known, &[text], "").and_then(|mut clean| clean.pop()) {
        Some(clean) => Cow::Owned(clean),
        None => Cow::Borrowed(text),
    }
}

/// Texts that stand in a row, with something between two of them. The name of a secret stands where it begins.
fn in_row(known: &Known, texts: &[&str], between: &str) -> Option<Vec<String>> {
    if known.parts.is_empty() {
        return None;
    }
    let joined: Cow<'_, str> = match texts {
        [one] => Cow::Borrowed(one),
        several => Cow::Owned(several.join(between)),
    };
    let ranges = ranges(known, &joined);
    if ranges.is_empty() {
        return None;
    }
    let mut next = 0;
    let mut named = None;
    let mut from = 0;
    let mut clean = Vec::with_capacity(texts.len());
    for text in texts {
        let to = from + text.len();
        let mut one = String::with_capacity(text.len());
        let mut upto = from;
        while let Some(&(start, end, part)) = ranges.get(next).filter(|(start, _, _)| *start < to) {
            one.push_str(joined.get(upto..start.max(upto)).unwrap_or_default());
            if named != Some(next) {
                one.push_str("«secret ");
                one.push_str(known.name(part));
                one.push('»');
                named = Some(next);
            }
            upto = end.clamp(upto, to);
            if end > to {
                // It goes on in the next text.
                break;
            }
            next += 1;
        }
        one.push_str(joined.get(upto..to).unwrap_or_default());
        clean.push(one);
        from = to + between.len();
    }
    Some(clean)
}

/// The items of a list of texts alone.
fn lines_of(items: &[Value]) -> Option<Vec<&str>> {
    if items.len() < 2 {
        return None;
    }
    let lines = items.iter().map(|item| match item {
        Value::Text(text) => Some(text.as_ref()),
        _ => None,
    });
    lines.collect()
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
            // The lines of what a program printed: a secret may have been broken into several.
            let mut clean: Option<Vec<Value>> = lines_of(items)
                .and_then(|lines| in_row(known, &lines, "\n"))
                .map(|lines| lines.into_iter().map(Value::from).collect());
            for (at, item) in items.iter().enumerate() {
                let item = clean
                    .as_ref()
                    .and_then(|clean| clean.get(at))
                    .unwrap_or(item);
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
