//! Document → graph and diagnostics: names, order, references, types, calls. Touches no target.
//!
//! One [`scope::Scoped`] compiles one playbook file; a call compiles the callee into the same arena. All
//! mistakes are told at once, in the order of their places.
mod action;
mod call;
mod expressions;
mod mend;
mod names;
mod order;
mod references;
mod scope;
mod shape;
mod targets;
mod values;

#[cfg(test)]
pub(crate) mod tests;

pub use crate::playbook::inputs;

pub use mend::{mended, mended_yaml};

use crate::{
    diagnostic::Diagnostic,
    graph::{Body, GRAPH_FORMAT, Graph, Node, NodeId, Place, Source, TargetDecl},
    playbook::{self, Reader},
    source::{self, Parsed},
    step::Registry,
};
use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use shape::KindInfo;
use std::{collections::HashMap, collections::HashSet, io, rc::Rc};

/// How many nodes a graph may have.
pub const MAX_NODES: usize = 200_000;
/// How deep calls may be nested.
pub const MAX_CALLS: usize = 16;

/// Where called playbooks are read from.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn read(&self, path: &str) -> io::Result<String>;
}

/// The file system, with paths relative to the working directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// No files: calls cannot be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> io::Result<String> {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "there are no files here",
        ))
    }
}

/// What came of a playbook.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The graph; `None` where there is an error.
    pub graph: Option<Graph>,
    /// Errors and warnings, by place.
    pub diagnostics: Vec<Diagnostic>,
    /// The files that were read; the first is the playbook itself.
    pub sources: Vec<Source>,
}

impl Compiled {
    /// The text of the file that a diagnostic names.
    #[must_use]
    pub fn text_of(&self, diagnostic: &Diagnostic) -> &str {
        let file = diagnostic.span.as_ref().map(|span| &*span.file);
        self.sources
            .iter()
            .find(|source| Some(source.path.as_str()) == file)
            .map_or("", |source| &source.text)
    }
}

/// Compiles a playbook with all that it calls.
#[must_use]
pub fn compile(path: &str, text: &str, registry: &Registry, files: &dyn Files) -> Compiled {
    let mut compiler = Compiler {
        registry,
        files,
        nodes: Vec::new(),
        diagnostics: Vec::new(),
        sources: Vec::new(),
        parsed: HashMap::new(),
        kinds: HashMap::new(),
        targets: IndexMap::new(),
        calls: vec![normal(path)],
        locks: Vec::new(),
        full: false,
    };
    let parsed = compiler.add(path, text);
    let graph = compiler.root(&parsed);
    let mut diagnostics = compiler.diagnostics;
    let sources = compiler.sources;
    let rank = |diagnostic: &Diagnostic| {
        diagnostic.span.as_ref().map(|span| {
            let file = sources.iter().position(|source| *source.path == *span.file);
            (file.unwrap_or(usize::MAX), span.start, span.len)
        })
    };
    diagnostics.sort_by_cached_key(rank);
    // A playbook that is called twice has its mistakes once.
    let mut seen = HashSet::new();
    diagnostics.retain(|diagnostic| {
        let place = diagnostic
            .span
            .as_ref()
            .map(|span| (span.file.clone(), span.start));
        seen.insert((place, diagnostic.code, diagnostic.message.clone()))
    });
    let graph = graph
        .filter(|_| !diagnostics.iter().any(Diagnostic::is_error))
        .map(|mut graph| {
            graph.sources.clone_from(&sources);
            graph
        });
    Compiled {
        graph,
        diagnostics,
        sources,
    }
}

/// A file that was read.
struct Loaded {
    index: u32,
    parsed: Rc<Parsed>,
}

struct Compiler<'a> {
    registry: &'a Registry,
    files: &'a dyn Files,
    nodes: Vec<Node>,
    diagnostics: Vec<Diagnostic>,
    sources: Vec<Source>,
    /// By normalised path.
    parsed: HashMap<String, Rc<Loaded>>,
    kinds: HashMap<&'static str, Rc<KindInfo>>,
    targets: IndexMap<String, TargetDecl>,
    /// The files whose calls lead here, by normalised path.
    calls: Vec<String>,
    /// Locks of called playbooks.
    locks: Vec<String>,
    /// Whether the limit on nodes was told.
    full: bool,
}

impl Compiler<'_> {
    /// Takes a file in and parses it.
    fn add(&mut self, path: &str, text: &str) -> Rc<Loaded> {
        let parsed = source::parse(path, text);
        self.diagnostics.extend(parsed.diagnostics.iter().cloned());
        let loaded = Rc::new(Loaded {
            index: u32::try_from(self.sources.len()).unwrap_or(u32::MAX),
            parsed: Rc::new(parsed),
        });
        self.sources.push(Source {
            path: path.to_owned(),
            sha256: hex::encode(Sha256::digest(text.as_bytes())),
            text: text.to_owned(),
        });
        self.parsed.insert(normal(path), loaded.clone());
        loaded
    }

    /// A called file, read once.
    fn load(&mut self, path: &str) -> io::Result<Rc<Loaded>> {
        if let Some(loaded) = self.parsed.get(&normal(path)) {
            return Ok(loaded.clone());
        }
        let text = self.files.read(path)?;
        Ok(self.add(path, &text))
    }

    fn root(&mut self, loaded: &Loaded) -> Option<Graph> {
        let root = loaded.parsed.root.as_ref()?;
        let mut reader = Reader::new(&loaded.parsed.file);
        let document = playbook::read(&mut reader, root);
        let scope = scope::compile(self, reader, &document, scope::Place::root(loaded.index));
        let mut policy = document.policy.clone();
        for lock in std::mem::take(&mut self.locks) {
            if !policy.locks.contains(&lock) {
                policy.locks.push(lock);
            }
        }
        Some(Graph {
            format: GRAPH_FORMAT,
            playbook: scope.playbook.clone(),
            description: document.description.map(str::to_owned),
            owner: document.owner.map(str::to_owned),
            sources: Vec::new(),
            targets: std::mem::take(&mut self.targets),
            policy,
            nodes: std::mem::take(&mut self.nodes),
            root: scope,
        })
    }

    /// The kind of this name with its schemas read.
    fn kind(&mut self, name: &str) -> Option<Rc<KindInfo>> {
        if let Some(info) = self.kinds.get(name) {
            return Some(info.clone());
        }
        let kind = self.registry.kind(name)?;
        let info = Rc::new(KindInfo::new(kind));
        self.kinds.insert(kind.name, info.clone());
        Some(info)
    }

    /// Makes room for a node, so that it stands before its children.
    fn reserve(&mut self, id: &str, parent: Option<NodeId>, place: Place) -> NodeId {
        let node = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Node {
            id: id.to_owned(),
            parent,
            in_finally: false,
            place,
            description: None,
            needs: Vec::new(),
            when: None,
            foreach: None,
            body: Body::Group { steps: Vec::new() },
            on_failure: None,
            cleanup: false,
        });
        node
    }
}

/// A path with `.` and `..` taken out.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            "" if !parts.is_empty() => {}
            ".." if parts
                .last()
                .is_some_and(|last| !last.is_empty() && *last != "..") =>
            {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
