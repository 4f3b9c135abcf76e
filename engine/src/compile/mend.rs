//! Mends what quotes mend, as the diagnostics say.
use super::{NoFiles, compile};
use crate::{
    diagnostic::{Diagnostic, Mend},
    source::{Node, NodeKind, Range, parse},
    step::Registry,
};

/// Each round mends what the one before it uncovered.
const MAX_ROUNDS: usize = 64;

/// Writes what the diagnostics of a playbook propose; gives the text and what was mended. No other file is read.
#[must_use]
pub fn mended(path: &str, text: &str, registry: &Registry) -> (String, Vec<Diagnostic>) {
    rounds(text, |text| {
        compile(path, text, registry, &NoFiles).diagnostics
    })
}

/// The same for a file that is no playbook: only what is wrong with it as YAML is mended.
#[must_use]
pub fn mended_yaml(path: &str, text: &str) -> (String, Vec<Diagnostic>) {
    rounds(text, |text| parse(path, text).diagnostics)
}

fn rounds(text: &str, find: impl Fn(&str) -> Vec<Diagnostic>) -> (String, Vec<Diagnostic>) {
    let mut text = text.to_owned();
    let mut done = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let (after, mends, mut told) = round(&text, find(&text));
        if mends.is_empty() || !says_the_same(&text, &after, &mends) {
            break;
        }
        text = after;
        done.append(&mut told);
    }
    done.sort_by_key(|d| d.span.as_ref().map(|span| span.start));
    (text, done)
}

/// One round: the text after it, what was written and why.
fn round(text: &str, found: Vec<Diagnostic>) -> (String, Vec<Mend>, Vec<Diagnostic>) {
    let mut todo: Vec<(Mend, Diagnostic)> = found
        .into_iter()
        .filter_map(|d| d.mend.clone().map(|mend| (mend, d)))
        .collect();
    // From the end, so that the places before stay; of two that overlap, the earlier one waits a round.
    todo.sort_by_key(|(mend, _)| std::cmp::Reverse(mend.bytes.start));
    let mut after = text.to_owned();
    let mut from = usize::MAX;
    let (mut mends, mut told) = (Vec::new(), Vec::new());
    for (mend, diagnostic) in todo {
        let stands = text.get(mend.bytes.clone());
        if mend.bytes.end <= from && stands.is_some_and(|stands| stands != mend.text) {
            from = mend.bytes.start;
            after.replace_range(mend.bytes.clone(), &mend.text);
            mends.push(mend);
            told.push(diagnostic);
        }
    }
    (after, mends, told)
}

/// Whether nothing but the mended places reads otherwise. A file that could not be read at all says nothing yet.
fn says_the_same(before: &str, after: &str, mends: &[Mend]) -> bool {
    let Some(tree) = parse("", before).root else {
        return true;
    };
    // A value that YAML took for a comment is nothing; its place is that of its colon.
    let touched = |range: Range| {
        let range = range.bytes();
        mends.iter().map(|mend| &mend.bytes).any(|mend| {
            let overlap = range.start <= mend.end && mend.start <= range.end;
            let gap = before.get(range.end..mend.start);
            let follows = gap.is_some_and(|gap| gap.trim_start_matches(':').trim().is_empty());
            overlap || (range.is_empty() && follows)
        })
    };
    parse("", after)
        .root
        .is_some_and(|after| same(&tree, &after, &touched))
}

fn same(before: &Node, after: &Node, touched: &dyn Fn(Range) -> bool) -> bool {
    match (&before.kind, &after.kind) {
        (NodeKind::Scalar(a), NodeKind::Scalar(b)) => a.text == b.text || touched(before.range),
        (NodeKind::List(a), NodeKind::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, touched))
        }
        (NodeKind::Map(a), NodeKind::Map(b)) => {
            let mut pairs = a.entries.iter().zip(&b.entries);
            a.entries.len() == b.entries.len()
                && pairs.all(|(a, b)| a.key == b.key && same(&a.value, &b.value, touched))
        }
        (NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_), _) => false,
    }
}
