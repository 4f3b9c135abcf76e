pub(crate) mod fakes;
mod mend;
mod pages;
mod rules;

use super::*;
use std::collections::BTreeMap;

/// Files that are only in memory.
#[derive(Default)]
pub(super) struct Memory(BTreeMap<&'static str, &'static str>);

impl Files for Memory {
    fn read(&self, path: &str) -> io::Result<String> {
        match self.0.get(path) {
            Some(text) => Ok((*text).to_owned()),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        }
    }
}

pub(super) fn compiled(text: &str) -> Compiled {
    compile("x.yaml", text, &fakes::registry(), &NoFiles)
}

/// All diagnostics as text.
pub(super) fn rendered(compiled: &Compiled) -> String {
    let all: Vec<String> = compiled
        .diagnostics
        .iter()
        .map(|d| d.render(compiled.text_of(d)))
        .collect();
    all.join("\n")
}

/// The graph of a playbook without mistakes.
pub(super) fn graph(text: &str) -> Graph {
    let compiled = compiled(text);
    let rendered = rendered(&compiled);
    compiled.graph.unwrap_or_else(|| panic!("{rendered}"))
}

/// A playbook of these steps, on a target `db`.
pub(super) fn playbook(steps: &str) -> String {
    format!(
        "playbook: test\ntargets:\n  db: {{ kind: sqlite }}\ninputs:\n  max: {{ type: integer, default: 5 }}\n  names: {{ type: list, of: string, default: [a] }}\nsteps:\n{steps}"
    )
}

pub(super) fn codes_of(text: &str) -> Vec<&'static str> {
    let compiled = compiled(text);
    assert_eq!(
        compiled.graph.is_none(),
        compiled.diagnostics.iter().any(Diagnostic::is_error)
    );
    compiled.diagnostics.iter().map(|d| d.code).collect()
}

/// One query.
pub(super) fn query(id: &str) -> String {
    format!("  - id: {id}\n    uses: sql.query\n    with: {{ target: db, sql: SELECT 1 }}\n")
}
