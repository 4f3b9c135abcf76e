//! A text with its escapes read back, and where each of its bytes stood.

/// The bytes of a text, decoded, each with the range of the original that it came from.
pub(super) struct View {
    pub(super) bytes: Vec<u8>,
    /// Start and end in the original, for each byte.
    places: Vec<(usize, usize)>,
}

impl View {
    pub(super) fn of(text: &str) -> Self {
        Self {
            bytes: text.as_bytes().to_vec(),
            places: (0..text.len()).map(|at| (at, at + 1)).collect(),
        }
    }

    fn empty(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
            places: Vec::with_capacity(capacity),
        }
    }

    fn push(&mut self, byte: u8, place: (usize, usize)) {
        self.bytes.push(byte);
        self.places.push(place);
    }

    /// Where a range of this view stood in the original.
    pub(super) fn original(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let first = self.places.get(start)?;
        let last = self.places.get(end.checked_sub(1)?)?;
        Some((first.0, last.1))
    }

    /// Where the bytes from `at`, `len` of them, stood.
    fn span(&self, at: usize, len: usize) -> Option<(usize, usize)> {
        self.original(at, at + len)
    }
}

fn digit(byte: Option<&u8>) -> Option<u32> {
    char::from(*byte?).to_digit(16)
}

/// A text without what a terminal does not show: escape sequences, and control characters but for the ends of lines and tabs. None
/// where there is none of it.
pub(super) fn visible(text: &str) -> Option<View> {
    let hidden = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if !text.contains(hidden) {
        return None;
    }
    let mut view = View::empty(text.len());
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\x1b' && chars.next_if(|(_, c)| *c == '[').is_some() {
            // A control sequence ends with a letter or a sign.
            while chars.next().is_some_and(|(_, c)| !('@'..='~').contains(&c)) {}
        } else if !hidden(c) {
            for byte in at..at + c.len_utf8() {
                if let Some(value) = text.as_bytes().get(byte) {
                    view.push(*value, (byte, byte + 1));
                }
            }
        }
    }
    Some(view)
}

/// `%41` read back; with `plus`, a `+` is a space. None where there is nothing to read.
pub(super) fn percent(view: &View, plus: bool) -> Option<View> {
    let bytes = &view.bytes;
    let has_escapes = bytes.contains(&b'%') || (plus && bytes.contains(&b'+'));
    if !has_escapes {
        return None;
    }
    let mut decoded = View::empty(bytes.len());
    let mut at = 0;
    let mut changed = false;
    while let Some(&byte) = bytes.get(at) {
        let pair = (byte == b'%')
            .then(|| Some(digit(bytes.get(at + 1))? * 16 + digit(bytes.get(at + 2))?))
            .flatten();
        let (byte, len) = match pair.and_then(|pair| u8::try_from(pair).ok()) {
            Some(byte) => (byte, 3),
            None if plus && byte == b'+' => (b' ', 1),
            None => (byte, 1),
        };
        changed |= len == 3 || (plus && byte == b' ');
        if let Some(place) = view.span(at, len) {
            decoded.push(byte, place);
        }
        at += len;
    }
    changed.then_some(decoded)
}

/// `\n`, `\"`, `\u0041`, `\u{41}`, `\x41` and any `\c` read back, as JSON, Rust, C and shells write them.
pub(super) fn unescaped(view: &View) -> Option<View> {
    let bytes = &view.bytes;
    if !bytes.contains(&b'\\') {
        return None;
    }
    let mut decoded = View::empty(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let (len, text) = if byte == b'\\' {
            escape(bytes, at)
        } else {
            (1, None)
        };
        if let Some(place) = view.span(at, len) {
            match text {
                Some(c) => {
                    let mut buffer = [0; 4];
                    for byte in c.encode_utf8(&mut buffer).bytes() {
                        decoded.push(byte, place);
                    }
                }
                None => decoded.push(byte, place),
            }
        }
        at += len;
    }
    Some(decoded)
}

/// How long an escape is, and the character that it means.
fn escape(bytes: &[u8], at: usize) -> (usize, Option<char>) {
    let number = |from: usize, count: usize| -> Option<u32> {
        (from..from + count).try_fold(0_u32, |sum, at| Some(sum * 16 + digit(bytes.get(at))?))
    };
    let Some(&next) = bytes.get(at + 1) else {
        return (1, None);
    };
    match next {
        b'n' => (2, Some('\n')),
        b'r' => (2, Some('\r')),
        b't' => (2, Some('\t')),
        b'b' => (2, Some('\u{8}')),
        b'f' => (2, Some('\u{c}')),
        b'x' => match number(at + 2, 2).and_then(char::from_u32) {
            Some(c) => (4, Some(c)),
            None => (1, None),
        },
        b'u' if bytes.get(at + 2) == Some(&b'{') => {
            let digits = (at + 3..at + 9)
                .take_while(|&at| digit(bytes.get(at)).is_some())
                .count();
            match number(at + 3, digits).and_then(char::from_u32) {
                Some(c) if digits > 0 && bytes.get(at + 3 + digits) == Some(&b'}') => {
                    (digits + 4, Some(c))
                }
                Some(_) | None => (1, None),
            }
        }
        b'u' => match number(at + 2, 4) {
            // Two halves of a character beyond the basic plane.
            Some(high @ 0xd800..0xdc00) if bytes.get(at + 6) == Some(&b'\\') => {
                match number(at + 8, 4) {
                    Some(low @ 0xdc00..0xe000) => (
                        12,
                        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)),
                    ),
                    Some(_) | None => (1, None),
                }
            }
            Some(number) => match char::from_u32(number) {
                Some(c) => (6, Some(c)),
                None => (1, None),
            },
            None => (1, None),
        },
        ascii if ascii.is_ascii_graphic() || ascii == b' ' => (2, Some(char::from(ascii))),
        _ => (1, None),
    }
}

/// A text without white space, since programs break long lines, and the ranges of its lines.
pub(super) struct Squeezed {
    pub(super) view: View,
    /// Lines that hold anything, as ranges of the view.
    pub(super) lines: Vec<(usize, usize)>,
}

impl Squeezed {
    /// Of a text, or of what is shown of it.
    pub(super) fn of(text: &str, shown: Option<&View>) -> Self {
        match shown {
            Some(view) => Self::gather(view.bytes.iter().copied().zip(view.places.iter().copied())),
            None => Self::gather(text.bytes().zip((0..).map(|at| (at, at + 1)))),
        }
    }

    fn gather(bytes: impl Iterator<Item = (u8, (usize, usize))>) -> Self {
        let mut view = View::empty(bytes.size_hint().0);
        let mut lines = Vec::new();
        let mut start = 0;
        for (byte, place) in bytes {
            if !byte.is_ascii_whitespace() {
                view.push(byte, place);
            } else if matches!(byte, b'\n' | b'\r') && view.bytes.len() > start {
                lines.push((start, view.bytes.len()));
                start = view.bytes.len();
            }
        }
        if view.bytes.len() > start {
            lines.push((start, view.bytes.len()));
        }
        Self { view, lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(view: Option<View>) -> Option<String> {
        view.map(|view| String::from_utf8_lossy(&view.bytes).into_owned())
    }

    #[test]
    fn reads_back() {
        let of = View::of;
        assert_eq!(
            text(percent(&of("a%20b%zz%c3%A9+"), false)).as_deref(),
            Some("a b%zzé+")
        );
        assert_eq!(text(percent(&of("a+b"), true)).as_deref(), Some("a b"));
        assert_eq!(text(percent(&of("100%"), false)), None);
        assert_eq!(
            text(unescaped(&of(
                r#"a\"b\\c\n\u00e9\u{1F600}\ud83d\ude00\x41\/\"#
            )))
            .as_deref(),
            Some("a\"b\\c\né😀😀A/\\")
        );
        let squeezed = Squeezed::of("a b\r\nc\n\nde", None);
        assert_eq!(squeezed.lines, [(0, 2), (2, 3), (3, 5)]);
        assert_eq!(squeezed.view.original(2, 4), Some((5, 9)));
        assert_eq!(text(Some(squeezed.view)).as_deref(), Some("abcde"));
        let view = percent(&of("xy%41z"), false).unwrap();
        assert_eq!(view.original(2, 3), Some((2, 5)));
        assert_eq!(view.original(3, 4), Some((5, 6)));
    }
}
