//! Times and values as people read them.
use crate::value::{Duration, Timestamp, Value};

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

/// All white space as single spaces, and control characters gone: text of others must not move the cursor.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().filter(|c| !c.is_control()));
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
                // A control sequence ends with a letter or a sign, a command to the terminal with BEL or ESC \.
                Some('[') => {
                    for c in chars.by_ref() {
                        if ('@'..='~').contains(&c) {
                            break;
                        }
                    }
                }
                Some(']') => {
                    while let Some(c) = chars.next() {
                        if c == '\x07' || c == '\x1b' && chars.next_if_eq(&'\\').is_some() {
                            break;
                        }
                    }
                }
                Some(_) | None => {}
            },
            '\t' => text.push_str("    "),
            c if c.is_control() || turns(c) => {}
            c => text.push(c),
        }
    }
    text
}

/// Whether a character turns the direction of what follows, so that a line reads otherwise than it is.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
        .map(|line| line.chars().filter(|c| !c.is_control()).collect())
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
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }

    #[test]
    fn what_programs_print_is_plain() {
        assert_eq!(plain("\x1b[1;31mred\x1b[0m\tx\n"), "red    x");
        assert_eq!(plain("\x1b]0;title\x07a\x1b]8;;u\x1b\\b"), "ab");
        assert_eq!(plain("a\x1b"), "a");
        assert_eq!(plain("a\u{202e}b\u{2066}c"), "abc");
        assert_eq!(plain("\x1b[2J\x1b(Bz\u{9b}31m"), "Bz31m");
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
