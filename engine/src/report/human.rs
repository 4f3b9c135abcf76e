//! Times and values as people read them.
//!
//! Text of others reaches people through here: it must neither move the cursor nor read otherwise than it is.
use crate::value::{Duration, Timestamp, Value};
use std::{borrow::Cow, fmt::Write};

/// A span as people say it: `850ms`, `4.2s`, `3m10s`, `2h05m`, `3d4h`.
#[must_use]
pub fn span(duration: Duration) -> String {
    let ms = duration.as_millis().max(0);
    let s = ms / 1_000;
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{s}.{}s", ms % 1_000 / 100),
        60_000..3_600_000 => format!("{}m{:02}s", s / 60, s % 60),
        3_600_000..86_400_000 => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d{}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// The span between two instants.
#[must_use]
pub fn elapsed(from: Timestamp, to: Timestamp) -> String {
    span(Duration::between(from, to))
}

/// `2026-11-20 23:53:43Z`: always UTC, so that two people on two continents read the same.
#[must_use]
pub fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `23:53:43Z`, or with the date where it is another day than `today`.
#[must_use]
pub fn clock(at: Timestamp, today: Timestamp) -> String {
    let day = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
    if day(at) == day(today) {
        at.strftime("%H:%M:%SZ").to_string()
    } else {
        stamp(at)
    }
}

/// At most so many characters, with an ellipsis where something was cut.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

/// Whether a character is not seen, or turns the direction of what follows, so that a line reads otherwise than it is.
fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Puts a character of others into a line: what is hidden is shown by its number, and control characters are left out.
fn put(c: char, into: &mut String) {
    if is_hidden(c) {
        write!(into, "\\u{{{:x}}}", u32::from(c)).ok();
    } else if !c.is_control() {
        into.push(c);
    }
}

/// Whether each character of a text may go to people as it is.
fn is_harmless(text: &str) -> bool {
    let harmless = |c: char| matches!(c, '\n' | '\t') || !c.is_control() && !is_hidden(c);
    text.chars().all(harmless)
}

/// A text of several lines in which nothing is hidden: no control characters but for the ends of lines and tabs.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if is_harmless(text) {
        return Cow::Borrowed(text);
    }
    let mut seen = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => seen.push(c),
            c => put(c, &mut seen),
        }
    }
    Cow::Owned(seen)
}

/// The same for a page on a terminal, which keeps its colours.
#[must_use]
pub fn page(text: &str) -> Cow<'_, str> {
    if is_harmless(text) {
        return Cow::Borrowed(text);
    }
    let mut seen = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        let (before, escape) = rest.split_at(at);
        seen.push_str(&visible(before));
        let len = colour(escape);
        let (escape, after) = escape.split_at(len.max(1));
        if len > 0 {
            seen.push_str(escape);
        }
        rest = after;
    }
    seen.push_str(&visible(rest));
    Cow::Owned(seen)
}

/// How long the colour is with which a text begins; 0 where it does not begin with one. There are others, of which some hide
/// what they colour.
fn colour(text: &str) -> usize {
    const KNOWN: [&str; 9] = ["0", "1", "2", "1;31", "32", "33", "1;34", "35", "36"];
    text.strip_prefix("\x1b[")
        .and_then(|code| code.split_once('m'))
        .filter(|(code, _)| KNOWN.contains(code))
        .map_or(0, |(code, _)| code.len() + "\x1b[m".len())
}

/// Written JSON, in which everything is escaped that a terminal obeys or does not show. It says the same.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    if is_harmless(text) {
        return Cow::Borrowed(text);
    }
    let mut seen = String::with_capacity(text.len());
    for c in text.chars() {
        if !matches!(c, '\n' | '\t') && (c.is_control() || is_hidden(c)) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(seen, "\\u{unit:04x}").ok();
            }
        } else {
            seen.push(c);
        }
    }
    Cow::Owned(seen)
}

/// All white space as single spaces, and control characters gone: text of others must not move the cursor.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() && !is_hidden(c)) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        word.chars().for_each(|c| put(c, &mut line));
    }
    line
}

/// A line of what a program printed: without its end, colours and other escapes, tabs as spaces.
#[must_use]
pub fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.next() {
                // A control sequence ends with a letter or a sign, a command to the terminal with BEL or ESC \. One without
                // its end hides nothing.
                Some('[') => {
                    for c in chars.by_ref() {
                        if ('@'..='~').contains(&c) {
                            break;
                        }
                    }
                }
                Some(']') => {
                    let mut after = chars.clone();
                    let has_end = loop {
                        match after.next() {
                            Some('\x07') => break true,
                            Some('\x1b') if after.next_if_eq(&'\\').is_some() => break true,
                            Some(_) => {}
                            None => break false,
                        }
                    };
                    if has_end {
                        chars = after;
                    } else {
                        text.push(']');
                    }
                }
                Some(_) | None => {}
            },
            '\t' => text.push_str("    "),
            c => put(c, &mut text),
        }
    }
    text
}

/// The same for several lines, each of which ends with a line break or a bare carriage return.
#[must_use]
pub fn plain_lines(text: &str) -> Vec<String> {
    text.lines()
        .flat_map(|line| line.split('\r'))
        .map(plain)
        .collect()
}

/// A value in lines: text as it is, anything else as JSON, at most so many lines.
#[must_use]
pub fn value_lines(value: &Value, most: usize) -> Vec<String> {
    let text = match value {
        Value::List(_) | Value::Map(_) => serde_json::to_string_pretty(&value.to_plain_json())
            .unwrap_or_else(|_| value.to_string()),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Secret(_) => value.to_string(),
    };
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let mut seen = String::with_capacity(line.len());
            line.chars().for_each(|c| put(c, &mut seen));
            seen
        })
        .collect();
    if lines.len() > most {
        let more = lines.len() - most;
        lines.truncate(most);
        lines.push(format!("… {more} more lines"));
    }
    lines
}

/// Every line behind a lead.
#[must_use]
pub fn indented(lead: &str, lines: &[String]) -> String {
    lines.iter().map(|line| format!("{lead}{line}\n")).collect()
}

/// A URL without the password: what stands between the user's name and the host, and options that hold one.
#[must_use]
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let path = match path.split_once('?') {
        Some((place, options)) if options.to_lowercase().contains("pass") => place,
        _ => path,
    };
    match authority.rsplit_once('@') {
        Some((login, host)) => {
            let user = login.split(':').next().unwrap_or("");
            format!("{scheme}://{user}@{host}{path}")
        }
        None => format!("{scheme}://{authority}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well() {
        let of = |ms| span(Duration::from_millis(ms));
        assert_eq!(of(0), "0ms");
        assert_eq!(of(999), "999ms");
        assert_eq!(of(4_250), "4.2s");
        assert_eq!(of(190_000), "3m10s");
        assert_eq!(of(7_500_000), "2h05m");
        assert_eq!(of(86_400_000 * 3 + 4 * 3_600_000), "3d4h");
    }

    #[test]
    fn text_of_others_stays_on_its_line() {
        assert_eq!(one_line("a\n b\x1b[2J\tc"), "a b[2J c");
        assert_eq!(
            one_line("pay\u{202e}oot\u{2028}x\u{feff}"),
            "pay\\u{202e}oot\\u{2028}x\\u{feff}"
        );
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }

    #[test]
    fn what_programs_print_is_plain() {
        assert_eq!(plain("\x1b[1;31mred\x1b[0m\tx\n"), "red    x");
        assert_eq!(plain("\x1b]0;title\x07a\x1b]8;;u\x1b\\b"), "ab");
        assert_eq!(plain("a\x1b"), "a");
        assert_eq!(plain("a\u{202e}b\u{2066}c"), "a\\u{202e}b\\u{2066}c");
        assert_eq!(plain("a\x1b]0;no end"), "a]0;no end");
        assert_eq!(plain_lines("1%\r2%\r\n\x1b[1mb\0\n"), ["1%", "2%", "b"]);
        assert_eq!(plain("\x1b[2J\x1b(Bz\u{9b}31m"), "Bz31m");
    }

    /// The characters that turn a line or are not seen are shown wherever text goes to people, and JSON says the same.
    #[test]
    fn nothing_is_hidden() {
        let hidden = ('\u{200b}'..='\u{200f}')
            .chain('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
            .chain(['\u{feff}', '\u{e0041}']);
        for c in hidden {
            let text = format!("a{c}b\r\x1b]0;owned\x07\x1b[2J\0\u{9b}2Jc");
            let shown = format!("a\\u{{{:x}}}b]0;owned[2J2Jc", u32::from(c));
            assert_eq!(visible(&text), shown);
            assert_eq!(page(&text), shown);
            assert_eq!(
                value_lines(&Value::text(text.as_str()), 9),
                [shown.as_str()]
            );
            assert_eq!(one_line(&text.replace('\r', "")), shown);
            let written = serde_json::to_string(&text).unwrap();
            let written = json(&written).into_owned();
            assert!(is_harmless(&written), "{written}");
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
        let coloured = "\x1b[1;31mred\x1b[0m\n\tx é 😀";
        assert_eq!(page(coloured), coloured);
        assert_eq!(page("\x1b[8mconcealed\x1b[0m"), "[8mconcealed\x1b[0m");
        assert_eq!(visible("x\n\ty é 😀"), "x\n\ty é 😀");
    }

    #[test]
    fn a_url_keeps_no_password() {
        assert_eq!(
            without_password("postgres://a:b@h:1/d"),
            "postgres://a@h:1/d"
        );
        assert_eq!(without_password("postgres://h/d"), "postgres://h/d");
        assert_eq!(
            without_password("postgres://a@h/d?sslpassword=x"),
            "postgres://a@h/d"
        );
        assert_eq!(without_password("sqlite:a@b.db"), "sqlite:a@b.db");
        assert_eq!(without_password("mysql://u:p@ss@h"), "mysql://u@h");
    }
}
