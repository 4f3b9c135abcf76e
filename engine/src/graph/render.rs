//! A graph as a tree of text, as Graphviz DOT, as Mermaid.
use super::{Body, Graph, NodeId, Undo};
use std::fmt::{self, Write as _};

impl Graph {
    /// A tree of text, a line for each node: id, kind, what it waits for where that is not the line above.
    #[must_use]
    pub fn to_text(&self) -> String {
        written(|out| {
            writeln!(out, "{}", self.playbook)?;
            let has_finally = !self.root.finally.is_empty();
            self.text_list(out, &self.root.steps, "", !has_finally)?;
            self.text_finally(out, &self.root.finally, "")
        })
    }

    fn text_finally(&self, out: &mut String, nodes: &[NodeId], lead: &str) -> fmt::Result {
        if nodes.is_empty() {
            return Ok(());
        }
        writeln!(out, "{lead}└─ finally")?;
        self.text_list(out, nodes, &format!("{lead}   "), true)
    }

    fn text_list(&self, out: &mut String, nodes: &[NodeId], lead: &str, last: bool) -> fmt::Result {
        for (at, &id) in nodes.iter().enumerate() {
            let node = self.node(id);
            let end = last && at + 1 == nodes.len();
            let before = at.checked_sub(1).and_then(|at| nodes.get(at));
            let in_order = match before {
                None => node.needs.is_empty(),
                Some(before) => node.needs == [*before],
            };
            write!(out, "{lead}{} {}", if end { "└─" } else { "├─" }, node.id)?;
            let facts = self.facts(id);
            if !facts.is_empty() {
                write!(out, "  {}", facts.join(", "))?;
            }
            if !in_order && !node.in_finally {
                let needs: Vec<&str> = node
                    .needs
                    .iter()
                    .map(|need| self.node(*need).id.as_str())
                    .collect();
                let needs = if needs.is_empty() {
                    "nothing".to_owned()
                } else {
                    needs.join(", ")
                };
                write!(out, "  ← {needs}")?;
            }
            writeln!(out)?;
            let inner = format!("{lead}{}  ", if end { ' ' } else { '│' });
            match &node.body {
                Body::Step(_) => {}
                Body::Group { steps } => self.text_list(out, steps, &inner, true)?,
                Body::Call(call) => {
                    let has_finally = !call.scope.finally.is_empty();
                    self.text_list(out, &call.scope.steps, &inner, !has_finally)?;
                    self.text_finally(out, &call.scope.finally, &inner)?;
                }
            }
        }
        Ok(())
    }

    /// What a node is, in a few words each.
    fn facts(&self, id: NodeId) -> Vec<String> {
        let node = self.node(id);
        let mut facts = match &node.body {
            Body::Step(step) => vec![step.action.kind.clone()],
            Body::Group { .. } => Vec::new(),
            Body::Call(call) => vec![format!("calls {}", call.scope.playbook)],
        };
        if let Some(foreach) = &node.foreach {
            facts.push(format!(
                "for each {} of {}",
                foreach.name,
                foreach.items.source()
            ));
        }
        if let Some(when) = &node.when {
            facts.push(format!("when {}", when.source()));
        }
        if let Body::Step(step) = &node.body {
            match &step.undo {
                Undo::Impossible => facts.push("cannot be undone".to_owned()),
                Undo::Steps(_) if node.cleanup => facts.push("cleaned up".to_owned()),
                Undo::Auto { .. } | Undo::None | Undo::Steps(_) => {}
            }
        }
        facts
    }

    /// Graphviz DOT.
    #[must_use]
    pub fn to_dot(&self) -> String {
        written(|out| {
            writeln!(out, "digraph {} {{", dot_text(&self.playbook))?;
            writeln!(
                out,
                "  rankdir=TB; compound=true; node [shape=box, fontname=\"sans-serif\"];"
            )?;
            self.dot_scope(out, &self.root.steps, &self.root.finally, "root", 1)?;
            self.dot_edges(out)?;
            writeln!(out, "}}")
        })
    }

    fn dot_scope(
        &self,
        out: &mut String,
        steps: &[NodeId],
        finally: &[NodeId],
        name: &str,
        depth: usize,
    ) -> fmt::Result {
        self.dot_list(out, steps, depth)?;
        if !finally.is_empty() {
            let pad = "  ".repeat(depth);
            writeln!(out, "{pad}subgraph cluster_finally_{name} {{")?;
            writeln!(out, "{pad}  label=\"finally\"; style=dashed;")?;
            self.dot_list(out, finally, depth + 1)?;
            writeln!(out, "{pad}}}")?;
        }
        Ok(())
    }

    fn dot_list(&self, out: &mut String, nodes: &[NodeId], depth: usize) -> fmt::Result {
        let pad = "  ".repeat(depth);
        for &id in nodes {
            let node = self.node(id);
            let label = self.label(id);
            let (steps, finally): (&[NodeId], &[NodeId]) = match &node.body {
                Body::Step(_) => {
                    let style = if node.when.is_some() {
                        ", style=dashed"
                    } else {
                        ""
                    };
                    writeln!(out, "{pad}n{} [label={}{style}];", id.0, dot_text(&label))?;
                    continue;
                }
                Body::Group { steps } => (steps, &[]),
                Body::Call(call) => (&call.scope.steps, &call.scope.finally),
            };
            writeln!(out, "{pad}subgraph cluster_{} {{", id.0)?;
            writeln!(out, "{pad}  label={};", dot_text(&label))?;
            self.dot_scope(out, steps, finally, &id.0.to_string(), depth + 1)?;
            writeln!(out, "{pad}}}")?;
        }
        Ok(())
    }

    fn dot_edges(&self, out: &mut String) -> fmt::Result {
        for (at, node) in self.nodes.iter().enumerate() {
            let to = NodeId(u32::try_from(at).unwrap_or(u32::MAX));
            for &from in &node.needs {
                // An edge ends at a leaf; `lhead` and `ltail` cut it at the border of the group.
                let (Some(tail), Some(head)) = (self.leaf(from, true), self.leaf(to, false)) else {
                    continue;
                };
                let mut attributes = Vec::new();
                if tail != from {
                    attributes.push(format!("ltail=cluster_{}", from.0));
                }
                if head != to {
                    attributes.push(format!("lhead=cluster_{}", to.0));
                }
                let attributes = match attributes.is_empty() {
                    true => String::new(),
                    false => format!(" [{}]", attributes.join(", ")),
                };
                writeln!(out, "  n{} -> n{}{attributes};", tail.0, head.0)?;
            }
        }
        Ok(())
    }

    /// The first or last step inside a node, or the step itself.
    fn leaf(&self, id: NodeId, last: bool) -> Option<NodeId> {
        let inside = match &self.node(id).body {
            Body::Step(_) => return Some(id),
            Body::Group { steps } => steps,
            Body::Call(call) => &call.scope.steps,
        };
        let next = if last { inside.last() } else { inside.first() };
        self.leaf(*next?, last)
    }

    /// Mermaid, for a page that renders it.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        written(|out| {
            writeln!(out, "flowchart TD")?;
            self.mermaid_scope(out, &self.root.steps, &self.root.finally, "root", 1)?;
            for (at, node) in self.nodes.iter().enumerate() {
                for need in &node.needs {
                    writeln!(out, "  n{} --> n{at}", need.0)?;
                }
            }
            Ok(())
        })
    }

    fn mermaid_scope(
        &self,
        out: &mut String,
        steps: &[NodeId],
        finally: &[NodeId],
        name: &str,
        depth: usize,
    ) -> fmt::Result {
        self.mermaid_list(out, steps, depth)?;
        if !finally.is_empty() {
            let pad = "  ".repeat(depth);
            writeln!(out, "{pad}subgraph finally_{name}[\"finally\"]")?;
            self.mermaid_list(out, finally, depth + 1)?;
            writeln!(out, "{pad}end")?;
        }
        Ok(())
    }

    fn mermaid_list(&self, out: &mut String, nodes: &[NodeId], depth: usize) -> fmt::Result {
        let pad = "  ".repeat(depth);
        for &id in nodes {
            let label = mermaid_text(&self.label(id));
            let (steps, finally): (&[NodeId], &[NodeId]) = match &self.node(id).body {
                Body::Step(_) => {
                    writeln!(out, "{pad}n{}[\"{label}\"]", id.0)?;
                    continue;
                }
                Body::Group { steps } => (steps, &[]),
                Body::Call(call) => (&call.scope.steps, &call.scope.finally),
            };
            writeln!(out, "{pad}subgraph n{}[\"{label}\"]", id.0)?;
            self.mermaid_scope(out, steps, finally, &id.0.to_string(), depth + 1)?;
            writeln!(out, "{pad}end")?;
        }
        Ok(())
    }

    /// Lines of a box.
    fn label(&self, id: NodeId) -> String {
        let mut lines = vec![self.node(id).id.clone()];
        lines.extend(self.facts(id));
        lines.join("\n")
    }
}

/// Writing into a string cannot fail; what was written stands.
fn written(write: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut out = String::new();
    match write(&mut out) {
        Ok(()) | Err(fmt::Error) => out,
    }
}

fn dot_text(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}

fn mermaid_text(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\n', "<br/>")
}

#[cfg(test)]
mod tests {
    use crate::compile::{NoFiles, compile, tests::fakes};

    #[test]
    fn the_three_forms() {
        let text = "playbook: shapes
targets: { db: { kind: sqlite } }
inputs: { names: { type: list } }
steps:
  - { id: a, uses: sql.query, with: { target: db, sql: x } }
  - { id: b, needs: [], when: \"run.by == 'x'\", uses: sql.execute, with: { target: db, sql: x } }
  - id: g
    foreach: { items: inputs.names, as: name }
    steps:
      - { id: c, uses: sql.query, with: { target: db, sql: x } }
      - { id: d, uses: sql.query, with: { target: db, sql: x } }
  - { id: e, uses: verify, with: { checks: [] } }
finally:
  - { id: tell, uses: verify, with: { checks: [] } }
";
        let graph = compile("x.yaml", text, &fakes::registry(), &NoFiles)
            .graph
            .expect("a graph");
        insta::assert_snapshot!("text", graph.to_text());
        insta::assert_snapshot!("dot", graph.to_dot());
        insta::assert_snapshot!("mermaid", graph.to_mermaid());
    }
}
