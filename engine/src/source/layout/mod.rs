//! One way to lay out a file: two spaces a level, one empty line at most, `{ a: b }` and `[a, b]`, quotes only where they
//! say something. What the file says and its comments stay.
mod flow;
mod write;

use super::{Node, NodeKind, Range, Scalar, Style, core_value, parse, yaml_11_boolean};
use granit_parser::{Event, Parser};
use write::Writer;

/// Why a file was not laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// It is not YAML that playbooks use.
    #[error("the file has mistakes that must be mended first")]
    Mistakes,
    /// A defect: laid out, it would say something else.
    #[error("laid out, the file would say something else; it was left as it is")]
    Meaning,
}

/// Spaces a level.
const STEP: usize = 2;

/// Lays a file out. What comes of it was read again: it says the same, and has the same comments.
///
/// # Errors
/// Where it cannot be read, or would not say the same.
pub fn laid_out(text: &str) -> Result<String, LayoutError> {
    let text = text.trim_start_matches(['\u{feff}', '\n', '\r']);
    // To YAML each of the three ends a line.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let before = read(&text).ok_or(LayoutError::Mistakes)?;
    let marks = Marks::of(&text);
    let laid = Writer::new(&text, &marks).document(&before);
    let kept = read(&laid).is_some_and(|after| same(&before, &after))
        && comments(&text, &marks).eq(comments(&laid, &Marks::of(&laid)));
    if kept {
        Ok(laid)
    } else {
        Err(LayoutError::Meaning)
    }
}

fn read(text: &str) -> Option<Node> {
    let parsed = parse("", text);
    // A file that is one block text is none of ours, and where its comments begin is not told.
    let is_block = |node: &Node| matches!(&node.kind, NodeKind::Scalar(scalar) if matches!(scalar.style, Style::Literal | Style::Folded));
    parsed
        .root
        .filter(|root| parsed.diagnostics.is_empty() && !is_block(root))
}

/// What a file holds beside its tree.
#[derive(Default)]
struct Marks {
    /// The comments, by place.
    comments: Vec<Range>,
    /// `---`, where it is written.
    start: Option<Range>,
}

impl Marks {
    fn of(text: &str) -> Self {
        let mut marks = Self::default();
        let options =
            granit_parser::options! { emit_comments: true, emit_unresolved_aliases: true };
        for (event, span) in Parser::new_from_str_with_options(text, options).map_while(Result::ok)
        {
            let Some(range) = span.byte_range() else {
                continue;
            };
            let range = Range::new(range.start, range.end);
            match event {
                Event::Comment(..) => marks.comments.push(range),
                Event::DocumentStart(true, _) => marks.start = Some(range),
                _ => {}
            }
        }
        // That of a block text's head comes after the text.
        marks.comments.sort();
        marks
    }
}

fn comments<'t>(text: &'t str, marks: &'t Marks) -> impl Iterator<Item = &'t str> {
    let texts = marks.comments.iter().map(|range| text.get(range.bytes()));
    texts.map(|text| text.unwrap_or("").trim_end())
}

/// Whether two trees say the same, wherever it stands.
fn same(before: &Node, after: &Node) -> bool {
    match (&before.kind, &after.kind) {
        (NodeKind::Scalar(a), NodeKind::Scalar(b)) => {
            let unquoted = says_nothing(a) && b.style == Style::Plain;
            let quoted = a.style == Style::Plain && is_mark(&a.text);
            a.text == b.text && (a.style == b.style || unquoted || quoted)
        }
        (NodeKind::List(a), NodeKind::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (NodeKind::Map(a), NodeKind::Map(b)) => {
            let mut pairs = a.entries.iter().zip(&b.entries);
            a.entries.len() == b.entries.len()
                && pairs.all(|(a, b)| a.key == b.key && same(&a.value, &b.value))
        }
        (NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_), _) => false,
    }
}

/// Whether the quotes of a scalar say nothing: every reader takes the text for the same text without them.
fn says_nothing(scalar: &Scalar) -> bool {
    matches!(scalar.style, Style::SingleQuoted | Style::DoubleQuoted) && is_tame(&scalar.text)
}

/// Whether a text has nothing in it that means something to any YAML reader, wherever it stands.
fn is_tame(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && !text.ends_with(' ')
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || " _-./()=<>+*%|&;".contains(c))
        && core_value(text).is_none()
        && yaml_11_boolean(text).is_none()
        && !text.eq_ignore_ascii_case("null")
}

/// Whether a text would be, or may be taken for, a mark: at the start of a line that of a document, before a space that of
/// a key.
fn is_mark(text: &str) -> bool {
    text == "?" || text.starts_with("---") || text.starts_with("...")
}

#[cfg(test)]
mod tests;
