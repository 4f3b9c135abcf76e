//! Who reads the output of a step.
use super::{Body, Graph, Node, NodeId, Scope, StepDef, Undo};
use crate::expr::Expr;

/// An expression that reads the output of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reader {
    /// The node that fails without it. The outputs of a playbook that is called are its call's; those of the root are `None`:
    /// a run ends all the same.
    pub node: Option<NodeId>,
    /// The members that it reads: `rows_affected` of `steps.fill.output.rows_affected`.
    pub member: Vec<String>,
}

/// All that read the output of a node. Names reach siblings, and what is inside them, up to the scope.
pub(crate) fn of(graph: &Graph, node: NodeId) -> Vec<Reader> {
    let id = &graph.node(node).id;
    let parent = graph.node(node).parent;
    let scope = scope_of(graph, node);
    let mut readers = Vec::new();
    let mut read = |reader: Option<NodeId>, expr: &Expr| {
        for path in through_lets(scope, "steps", expr) {
            readers.extend(member_of(id, &path).map(|member| Reader {
                node: reader,
                member,
            }));
        }
    };
    for (index, other) in graph.nodes.iter().enumerate() {
        let reader = NodeId(u32::try_from(index).unwrap_or(u32::MAX));
        if reader != node && is_within(graph, reader, parent) {
            for expr in expressions(other) {
                read(Some(reader), expr);
            }
        }
    }
    // A playbook's outputs name its own steps.
    if parent.is_none_or(|parent| graph.scope(parent).is_some()) {
        for template in scope.outputs.values() {
            for expr in template.expressions() {
                read(parent, expr);
            }
        }
    }
    readers
}

/// Whether a node of the run's own playbook reads an input, by itself or by the `let` names in it. Its gate does not count: it waits
/// for the input to be changed.
pub(crate) fn reads_input(graph: &Graph, node: NodeId, input: &str) -> bool {
    let scope = scope_of(graph, node);
    let node = graph.node(node);
    let gate = node.gate();
    let mut all = expressions(node);
    all.retain(|expr| !gate.is_some_and(|gate| std::ptr::eq(gate, *expr)));
    reads(scope, &all, input)
}

/// Whether the gate of a node of the run's own playbook reads an input.
pub(crate) fn gate_reads_input(graph: &Graph, node: NodeId, input: &str) -> bool {
    let gate = graph.node(node).gate();
    gate.is_some_and(|gate| reads(scope_of(graph, node), &[gate], input))
}

/// Whether what may still come of a node that has started reads an input: its undo, or the probe that settles a doubt about it.
pub(crate) fn reads_input_later(graph: &Graph, node: NodeId, input: &str) -> bool {
    let scope = scope_of(graph, node);
    let Body::Step(step) = &graph.node(node).body else {
        return false;
    };
    let mut later = undo_of(step);
    if let Some(probe) = &step.action.probe {
        later.extend(probe.action.with.expressions());
        later.extend(&probe.action.expressions);
        later.push(&probe.done);
    }
    reads(scope, &later, input)
}

fn reads(scope: &Scope, exprs: &[&Expr], input: &str) -> bool {
    let paths = exprs
        .iter()
        .flat_map(|expr| through_lets(scope, "inputs", expr));
    // `inputs` as a whole reads each.
    paths
        .into_iter()
        .any(|path| path.first().is_none_or(|name| name == input))
}

/// The members of `steps.<id>.output` that a path below `steps` reads; `None` if it reads something else.
fn member_of(id: &str, path: &[String]) -> Option<Vec<String>> {
    match path {
        [name, member, rest @ ..] if name == id && member == "output" => Some(rest.to_vec()),
        _ => None,
    }
}

/// What the undo of a step reads of the step's own output.
pub(crate) fn by_its_undo(graph: &Graph, node: NodeId) -> Vec<Reader> {
    let scope = scope_of(graph, node);
    let Body::Step(step) = &graph.node(node).body else {
        return Vec::new();
    };
    let id = &graph.node(node).id;
    let mut members = Vec::new();
    for expr in undo_of(step) {
        members.extend(through_lets(scope, "output", expr));
        let paths = through_lets(scope, "steps", expr);
        members.extend(paths.iter().filter_map(|path| member_of(id, path)));
    }
    let reader = |member| Reader {
        node: Some(node),
        member,
    };
    members.into_iter().map(reader).collect()
}

/// What an output must hold at least, as JSON to be filled in.
pub(crate) fn skeleton(readers: &[Reader]) -> String {
    let mut whole = serde_json::Value::Null;
    for reader in readers {
        let mut at = &mut whole;
        for member in &reader.member {
            if !at.is_object() {
                *at = serde_json::json!({});
            }
            at = &mut at[member.as_str()];
        }
    }
    if whole.is_null() {
        "…".to_owned()
    } else {
        whole.to_string()
    }
}

fn scope_of(graph: &Graph, node: NodeId) -> &Scope {
    let mut at = graph.node(node).parent;
    while let Some(parent) = at {
        if let Some(scope) = graph.scope(parent) {
            return scope;
        }
        at = graph.node(parent).parent;
    }
    &graph.root
}

/// Whether a node is in a list or below it, and sees its names: a playbook that is called does not.
fn is_within(graph: &Graph, node: NodeId, list: Option<NodeId>) -> bool {
    let mut at = graph.node(node).parent;
    loop {
        if at == list {
            return true;
        }
        match at {
            Some(parent) if graph.scope(parent).is_none() => at = graph.node(parent).parent,
            Some(_) | None => return false,
        }
    }
}

/// The paths below a root (`steps`, `inputs`) that an expression reads, by itself or by the `let` names in it.
fn through_lets(scope: &Scope, root: &str, expr: &Expr) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    let mut queue = vec![expr];
    while let Some(expr) = queue.pop() {
        for reference in expr.references() {
            if reference.root == root {
                found.push(reference.path.clone());
            } else if let Some(named) = scope.lets.get(&reference.root)
                && !seen.contains(&&reference.root)
            {
                seen.push(&reference.root);
                queue.push(named);
            }
        }
    }
    found
}

fn undo_of(step: &StepDef) -> Vec<&Expr> {
    let mut all = Vec::new();
    if let Undo::Steps(parts) = &step.undo {
        for part in parts {
            all.extend(part.with.expressions());
            all.extend(&part.expressions);
            all.extend(&part.when);
        }
    }
    all
}

/// What a node evaluates. Its undo runs only if it ran itself, and may read what ran before it.
fn expressions(node: &Node) -> Vec<&Expr> {
    let mut all: Vec<&Expr> = node.when.iter().collect();
    if let Some(foreach) = &node.foreach {
        all.push(&foreach.items);
        all.extend(&foreach.when);
    }
    match &node.body {
        Body::Step(step) => {
            all.extend(&step.gate);
            all.extend(step.action.with.expressions());
            all.extend(&step.action.expressions);
            all.extend(undo_of(step));
        }
        Body::Group { .. } => {}
        Body::Call(call) => all.extend(call.inputs.values().flat_map(|input| input.expressions())),
    }
    all
}
