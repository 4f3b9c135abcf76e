//! Mends what quotes mend, as the diagnostics say.
use super::{Files, compile};
use crate::{
    diagnostic::{Diagnostic, Mend},
    step::Registry,
};

/// Each round mends what the one before it uncovered.
const MAX_ROUNDS: usize = 64;

/// Writes what the diagnostics of a playbook's own file propose; gives the text and what was mended.
#[must_use]
pub fn mended(
    path: &str,
    text: &str,
    registry: &Registry,
    files: &dyn Files,
) -> (String, Vec<Diagnostic>) {
    let mut text = text.to_owned();
    let mut done = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let found = compile(path, &text, registry, files).diagnostics;
        let mut todo: Vec<(Mend, Diagnostic)> = found
            .into_iter()
            .filter(|d| d.span.as_ref().is_some_and(|span| *span.file == *path))
            .filter_map(|d| d.mend.clone().map(|mend| (mend, d)))
            .collect();
        // From the end, so that the places before stay; of two that overlap, the later one waits a round.
        todo.sort_by_key(|(mend, _)| std::cmp::Reverse(mend.bytes.start));
        let mut from = usize::MAX;
        let before = done.len();
        for (mend, diagnostic) in todo {
            let stands = text.get(mend.bytes.clone());
            if mend.bytes.end <= from && stands.is_some_and(|stands| stands != mend.text) {
                from = mend.bytes.start;
                text.replace_range(mend.bytes, &mend.text);
                done.push(diagnostic);
            }
        }
        if done.len() == before {
            break;
        }
    }
    done.sort_by_key(|d| d.span.as_ref().map(|span| span.start));
    (text, done)
}
