//! What is told of a file that the parser stops at, and how reading goes on.
use super::{
    MAX_DEPTH, Range, SourceFile, before_comment,
    build::{MAX_MENDS, offset_of},
    quoted,
};
use crate::diagnostic::{Diagnostic, codes};
use granit_parser::{ErrorKind, Parser, ScanError};

/// Where the parser stops, if it stops.
fn stops_at(file: &SourceFile, text: &str) -> Option<usize> {
    Parser::new_from_str_with_options(text, options())
        .find_map(Result::err)
        .map(|error| offset_of(&error, file))
}

pub(super) fn options() -> granit_parser::Options {
    granit_parser::options! { emit_comments: false, emit_unresolved_aliases: true }
}

/// Works around the mistakes that are ours to explain: the text with the place masked, byte for byte.
pub(super) fn mend(
    file: &SourceFile,
    masked: &str,
    error: &ScanError,
    at: usize,
    mends: &[Range],
) -> Option<(Range, String, Diagnostic)> {
    // Each mistake costs a few passes over the file, so a huge one is not read on for long.
    let most = MAX_MENDS.min(1 + (8 << 20) / masked.len().max(1));
    if mends.len() >= most {
        return None;
    }
    let candidates = [
        flow_expression(file, masked, at),
        leading_bang(file, masked, at),
        whole_value(file, masked, error, at),
    ];
    candidates
        .into_iter()
        .flatten()
        .find_map(|(range, diagnostic)| {
            let mut bytes = masked.as_bytes().to_vec();
            for byte in bytes.get_mut(range.bytes())? {
                // Line ends stay, so that indentation is still what it was.
                if *byte != b'\n' {
                    *byte = b'x';
                }
            }
            let text = String::from_utf8(bytes).ok()?;
            // Only what lets the parser get further was the cause.
            stops_at(file, &text)
                .is_none_or(|next| next > at)
                .then_some((range, text, diagnostic))
        })
}

/// The `${{ }}` at or before the place where the parser stopped.
fn flow_expression(file: &SourceFile, masked: &str, at: usize) -> Option<(Range, Diagnostic)> {
    let until = (at + 3).min(masked.len());
    let before = masked.get(..until).or_else(|| masked.get(..at))?;
    let start = before.rfind("${{")?;
    let end = start + masked.get(start..)?.find("}}")? + 2;
    if end + 200 < at {
        return None;
    }
    let range = Range::new(start, end);
    let expression = file.slice(range);
    let diagnostic = Diagnostic::error(
        codes::FLOW_EXPRESSION,
        file.span(range),
        "inside `{ }` or `[ ]` YAML reads `${{ }}` as nested maps",
    )
    .label("needs quotes")
    .mended_by(range.bytes(), quoted(expression));
    Some((range, diagnostic))
}

/// A value that starts with `!` on the line where the parser stopped, or the one before.
fn leading_bang(file: &SourceFile, masked: &str, at: usize) -> Option<(Range, Diagnostic)> {
    let line_start = masked.get(..at)?.rfind('\n').map_or(0, |at| at + 1);
    let earlier = masked
        .get(..line_start.saturating_sub(1))?
        .rfind('\n')
        .map_or(0, |at| at + 1);
    [line_start, earlier].into_iter().find_map(|from| {
        let line = masked.get(from..)?.lines().next()?;
        let bang = [": !", "- !"]
            .into_iter()
            .find_map(|lead| line.find(lead))?
            + 2;
        let start = from + bang;
        let text = before_comment(file.rest_of_line(start));
        Some((
            Range::new(start, start + 1),
            bang_diagnostic(file, Range::new(start, start + text.len())),
        ))
    })
}

/// The value of a key in the line where the parser stopped: one text or expression that needs quotes.
fn whole_value(
    file: &SourceFile,
    masked: &str,
    error: &ScanError,
    at: usize,
) -> Option<(Range, Diagnostic)> {
    let from = masked.get(..at)?.rfind('\n').map_or(0, |at| at + 1);
    let line = masked.get(from..)?.lines().next()?;
    let key = line.trim_start().trim_start_matches("- ");
    let colon = key.find(": ")?;
    let name = key.get(..colon)?;
    if name.is_empty()
        || !name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*'))
    {
        return None;
    }
    let value = before_comment(key.get(colon + 2..)?.trim());
    // Collections and block texts are not one text; what they hold has its own mistakes. What is opened and not closed
    // wants its end, not quotes.
    let count = |sign: char| value.chars().filter(|c| *c == sign).count();
    let open = match value.chars().next()? {
        '{' | '|' | '>' | '#' => true,
        '[' => count('[') != count(']'),
        quote @ ('"' | '\'') => count(quote) % 2 == 1,
        _ => false,
    };
    if open {
        return None;
    }
    let start = value.as_ptr() as usize - masked.as_ptr() as usize;
    let range = Range::new(start, start + value.len());
    let diagnostic = Diagnostic::error(
        codes::SYNTAX,
        file.span(range),
        format!("this is not YAML: {}", error.kind()),
    )
    .label("one text or expression needs quotes")
    .mended_by(range.bytes(), quoted(file.slice(range)));
    Some((range, diagnostic))
}

pub(super) fn bang_diagnostic(file: &SourceFile, range: Range) -> Diagnostic {
    Diagnostic::error(
        codes::TAG,
        file.span(range),
        "a value that starts with `!` is a tag to YAML, not an expression",
    )
    .label("needs quotes")
    .mended_by(range.bytes(), quoted(file.slice(range)))
}

pub(super) fn syntax(file: &SourceFile, masked: &str, error: &ScanError, at: usize) -> Diagnostic {
    let (line, _) = file.line_column(at);
    let line_start = file
        .text()
        .get(..at)
        .and_then(|lead| lead.rfind('\n'))
        .map_or(0, |at| at + 1);
    let text = file.rest_of_line(line_start);
    let indent: &str = text
        .get(..text.len() - text.trim_start().len())
        .unwrap_or("");
    let here = Range::new(
        at,
        at + file
            .rest_of_line(at)
            .chars()
            .next()
            .map_or(0, char::len_utf8),
    );
    let about_tabs = matches!(
        error.kind(),
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart
    );
    if about_tabs || indent.contains('\t') {
        let near = if indent.contains('\t') {
            line_start
        } else {
            at
        };
        let rest = file.text().get(near..).unwrap_or("");
        let start = near + rest.find('\t').unwrap_or(0);
        let diagnostic = Diagnostic::error(
            codes::TAB,
            file.span(Range::new(start, start + 1)),
            "a tab in the indentation",
        );
        let line_start = file
            .text()
            .get(..start)
            .and_then(|lead| lead.rfind('\n'))
            .map_or(0, |at| at + 1);
        return match spaces(file, masked, line_start) {
            Some((range, text)) => Diagnostic {
                help: Some("indent with spaces, or let `windlass fmt` do it".to_owned()),
                ..diagnostic.mended_by(range.bytes(), text)
            },
            None => diagnostic.help("indent with spaces"),
        };
    }
    if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
        return too_deep(file, here);
    }
    let diagnostic = Diagnostic::error(
        codes::SYNTAX,
        file.span(here),
        format!("this is not YAML: {}", error.kind()),
    );
    let value = text.split_once(": ").map(|(_, value)| value.trim());
    match value {
        Some(value)
            if value.contains(": ")
                || value.starts_with(['"', '\'', '[', '{', '%', '@', '`', '&', '*', '|', '>']) =>
        {
            diagnostic.help(format!(
                "if the value in line {line} is one text or one expression, quote it as a whole: {}",
                quoted(value)
            ))
        }
        _ => diagnostic.help("check the indentation and the quotes in this line and the one above"),
    }
}

/// Spaces for the tabs that indent this line, and for those of all later lines that begin with one: as many for each as
/// let the parser get furthest.
fn spaces(file: &SourceFile, masked: &str, line_start: usize) -> Option<(Range, String)> {
    let lead = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let rest = masked.get(line_start..)?;
    let first = rest.get(..lead(rest))?;
    first.find('\t')?;
    let end = if first.starts_with('\t') {
        let last = rest.rfind("\n\t").map_or(0, |at| at + 1);
        last + lead(rest.get(last..)?)
    } else {
        first.len()
    };
    let (head, tail) = (masked.get(..line_start)?, rest.get(end..)?);
    let spaced = |text: &str, width: usize| -> String {
        let lines = text.split_inclusive('\n').enumerate();
        let lines = lines.map(|(index, line)| match line.split_at_checked(lead(line)) {
            Some((indent, text)) if index == 0 || indent.starts_with('\t') => {
                format!("{}{text}", indent.replace('\t', &" ".repeat(width)))
            }
            Some(_) | None => line.to_owned(),
        });
        lines.collect()
    };
    let unread = |width: &usize| {
        let text = format!(
            "{head}{}{tail}",
            spaced(rest.get(..end).unwrap_or(""), *width)
        );
        let stops = Parser::new_from_str_with_options(&text, options()).find_map(Result::err);
        stops.map_or(0, |error| {
            text.len() - error.marker().byte_offset().unwrap_or(0).min(text.len())
        })
    };
    let width = [2, 4, 8].into_iter().min_by_key(unread)?;
    // The line itself must have been read.
    let line = rest.find('\n').map_or(0, |at| rest.len() - at);
    let range = Range::new(line_start, line_start + end);
    (unread(&width) <= line).then(|| (range, spaced(file.slice(range), width)))
}

pub(super) fn too_deep(file: &SourceFile, range: Range) -> Diagnostic {
    Diagnostic::error(
        codes::NESTING,
        file.span(range),
        format!("maps and lists are nested more than {MAX_DEPTH} deep"),
    )
    .help("put the inner part into a playbook of its own and call it")
}
