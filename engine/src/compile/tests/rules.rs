use super::*;
use crate::{expr::Template, graph::Undo};

#[test]
fn a_sequence_compiles() {
    let graph = graph(&playbook(&format!(
        "{}{}  - id: c\n    uses: sql.execute\n    with: {{ target: db, sql: \"DELETE FROM t WHERE n > :n\", params: {{ n: \"${{{{ steps.a.output.value }}}}\" }} }}\n    undo: none\n",
        query("a"),
        query("b")
    )));
    let needs: Vec<Vec<u32>> = graph
        .nodes
        .iter()
        .map(|node| node.needs.iter().map(|need| need.0).collect())
        .collect();
    assert_eq!(needs, [vec![], vec![0], vec![1]]);
    let Body::Step(step) = &graph.nodes[2].body else {
        panic!("a step")
    };
    assert!(matches!(step.action.with, Template::Map(_)));
    assert_eq!(step.action.targets, [["target"]]);
    assert_eq!(step.undo, Undo::None);
    assert_eq!(graph.nodes[2].place.line, 14);
    assert_eq!(graph.sources.len(), 1);
}
