//! The secrets that a graph names.
use super::{Action, Body, Graph, NodeId, Scope, TargetDecl, Undo};
use crate::expr::{Expr, Template};
use indexmap::IndexMap;

struct Users(IndexMap<String, Vec<String>>);

impl Users {
    fn expr(&mut self, expr: &Expr, who: &str) {
        for name in expr.secrets() {
            let users = self.0.entry(name).or_default();
            if users.last().is_none_or(|last| last != who) {
                users.push(who.to_owned());
            }
        }
    }

    fn template(&mut self, template: &Template, who: &str) {
        for expr in template.expressions() {
            self.expr(expr, who);
        }
    }

    fn action(&mut self, action: &Action, who: &str) {
        self.template(&action.with, who);
        for expr in &action.expressions {
            self.expr(expr, who);
        }
        if let Some(probe) = &action.probe {
            self.action(&probe.action, &format!("the probe of {who}"));
        }
    }

    fn scope(&mut self, scope: &Scope) {
        for (name, expr) in &scope.lets {
            self.expr(expr, &format!("`let` {name} of {}", scope.playbook));
        }
        for (name, output) in &scope.outputs {
            self.template(output, &format!("output {name} of {}", scope.playbook));
        }
    }
}

impl Graph {
    /// Every secret whose name stands in an expression, with who uses it: ``step `fill` ``.
    #[must_use]
    pub fn secrets(&self) -> IndexMap<String, Vec<String>> {
        let mut users = Users(IndexMap::new());
        users.scope(&self.root);
        for (name, target) in &self.targets {
            if let TargetDecl::Derived { with, .. } = target {
                for value in with.values() {
                    users.template(value, &format!("target `{name}`"));
                }
            }
        }
        for node in &self.nodes {
            let who = format!("step `{}`", self.shown_path(node));
            match &node.body {
                Body::Group { .. } => {}
                Body::Call(call) => {
                    for input in call.inputs.values() {
                        users.template(input, &who);
                    }
                    users.scope(&call.scope);
                }
                Body::Step(step) => {
                    users.action(&step.action, &who);
                    if let Undo::Steps(actions) = &step.undo {
                        for action in actions {
                            users.action(action, &format!("the undo of {who}"));
                        }
                    }
                }
            }
        }
        users.0
    }

    fn shown_path(&self, node: &super::Node) -> String {
        let mut path = node.id.clone();
        let mut at: Option<NodeId> = node.parent;
        while let Some(parent) = at {
            let parent = self.node(parent);
            path = format!("{}/{path}", parent.id);
            at = parent.parent;
        }
        path
    }
}
