//! Random definitions with every construct.
use super::Random;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use windlass_engine::{
    graph::Graph,
    step::{Effect, Fidelity, Redo, StepTraits, UndoSupport},
};

fn traits(kind: &str) -> StepTraits {
    let writes = StepTraits {
        effect: Effect::Writes,
        redo: Redo::ProbeFirst,
        marks: true,
        captures: true,
        undo: UndoSupport::Auto,
        fidelity: Fidelity::Simulated,
        skippable: true,
    };
    match kind {
        "sim.write" | "sim.slow" => writes,
        "sim.plain" => StepTraits {
            marks: false,
            captures: false,
            ..writes
        },
        "sim.repeat" | "sim.batch" => StepTraits {
            redo: Redo::Repeatable,
            ..writes
        },
        "sim.ask" => StepTraits {
            redo: Redo::AskOperator,
            ..writes
        },
        "sim.approval" | "sim.verify" => StepTraits {
            skippable: false,
            ..StepTraits::READ_ONLY
        },
        _ => StepTraits::READ_ONLY,
    }
}

const WRITES: [&str; 6] = [
    "sim.write",
    "sim.write",
    "sim.plain",
    "sim.repeat",
    "sim.ask",
    "sim.slow",
];
const ON_FAILURE: [&str; 5] = ["undo", "pause", "stop", "continue", "ignore"];

/// Whether the windows are open, if there are any: the first minute of each day.
pub(super) fn is_open(wall_ms: i64) -> bool {
    wall_ms.rem_euclid(86_400_000) < 60_000
}

/// A definition of at most about `size` nodes.
pub(super) fn graph(seed: u64, size: usize) -> Arc<Graph> {
    let mut maker = Maker {
        random: Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 77),
        nodes: Vec::new(),
        left: size,
    };
    let count = 1 + maker.random.below(size.min(6));
    let steps = maker.list(None, count, 0, false);
    let tails = if maker.random.percent(50) {
        1 + maker.random.below(3)
    } else {
        0
    };
    maker.left += tails;
    let finally = maker.finally(None, tails, 0);
    let mut policy = json!({"on_failure": maker.policy()});
    if maker.random.percent(12) {
        policy["max_duration"] = json!(format!("{}ms", 20 + maker.random.below(400)));
    }
    if maker.random.percent(12) {
        policy["windows"] = json!(["* 00:00-00:01 UTC"]);
        policy["outside_window"] = json!(*maker.random.pick(&["wait", "wait", "refuse"]).unwrap());
    }
    let whole = json!({
        "format": 1, "playbook": "sim", "sources": [], "targets": {}, "policy": policy, "nodes": maker.nodes,
        "root": {"playbook": "sim", "steps": steps, "finally": finally, "inputs": {
            "open": {"type": "boolean", "default": false}, "flag": {"type": "boolean", "default": true}}},
    });
    Arc::new(serde_json::from_value(whole).unwrap())
}

struct Maker {
    random: Random,
    nodes: Vec<Json>,
    left: usize,
}

impl Maker {
    /// A run undoes, asks or stops; `continue` and `ignore` are rare for a whole scope.
    fn policy(&mut self) -> &'static str {
        match self.random.below(12) {
            0..=4 => "undo",
            5..=7 => "pause",
            8..=9 => "stop",
            10 => "continue",
            _ => "ignore",
        }
    }

    fn list(
        &mut self,
        parent: Option<usize>,
        count: usize,
        depth: usize,
        in_finally: bool,
    ) -> Vec<usize> {
        let chain = self.random.percent(45);
        let mut list: Vec<usize> = Vec::new();
        for _ in 0..count {
            let needs: Vec<usize> = if chain {
                list.last().copied().into_iter().collect()
            } else {
                let mut needs = list.clone();
                needs.retain(|_| self.random.percent(40));
                needs
            };
            let node = self.node(parent, &needs, depth, in_finally);
            list.push(node);
        }
        list
    }

    fn finally(&mut self, parent: Option<usize>, count: usize, depth: usize) -> Vec<usize> {
        (0..count)
            .map(|_| self.node(parent, &[], depth, true))
            .collect()
    }

    fn node(
        &mut self,
        parent: Option<usize>,
        needs: &[usize],
        depth: usize,
        in_finally: bool,
    ) -> usize {
        let index = self.nodes.len();
        self.left = self.left.saturating_sub(1);
        self.nodes.push(Json::Null);
        let roll = self.random.below(100);
        let roomy = depth < 3 && self.left > 0;
        let mut cleanup = false;
        let body = if roomy && roll < 15 {
            let count = 1 + self.random.below(self.left.min(4));
            json!({"group": {"steps": self.list(Some(index), count, depth + 1, in_finally)}})
        } else if roomy && roll < 28 {
            cleanup = !in_finally && self.random.percent(15);
            self.call(index, depth)
        } else {
            let body = self.step(needs, in_finally);
            let undoable = body["step"]["undo"].is_object();
            cleanup = undoable && self.random.percent(18);
            body
        };
        let mut node = json!({
            "id": format!("n{index}"), "place": {"source": 0, "line": 1, "column": 1},
            "in_finally": in_finally, "needs": needs, "body": body, "cleanup": cleanup,
        });
        if let Some(parent) = parent {
            node["parent"] = json!(parent);
        }
        if self.random.percent(20) {
            node["foreach"] = self.foreach();
        }
        if self.random.percent(35) {
            node["on_failure"] = json!(self.random.pick(&ON_FAILURE).unwrap());
        }
        if self.random.percent(14) {
            node["when"] = self.condition(needs);
        }
        self.nodes[index] = node;
        index
    }

    fn condition(&mut self, needs: &[usize]) -> Json {
        match self.random.below(4) {
            0 => json!("false"),
            1 => json!("inputs.flag"),
            2 => json!("!inputs.flag"),
            _ => match needs.first() {
                Some(need) => json!(format!("steps.n{need}.state == \"succeeded\"")),
                None => json!("true"),
            },
        }
    }

    fn foreach(&mut self) -> Json {
        let items = match self.random.below(12) {
            0 => "[]",
            1 => "[1]",
            2..=4 => "[1, 2]",
            5..=8 => "[1, 2, 3]",
            9..=10 => "[1, 2, 3, 4]",
            // Not a list: the loop fails by itself.
            _ => "if inputs.open { [1, 2] } else { 5 }",
        };
        let failures = if self.random.percent(70) {
            json!({"count": *self.random.pick(&[0, 0, 1, 2]).unwrap()})
        } else {
            json!({"percent": 40})
        };
        let mut foreach = json!({
            "items": items, "name": "x", "max_parallel": 1 + self.random.below(3), "max_failures": failures,
        });
        if self.random.percent(15) {
            foreach["when"] = json!("x != 2");
        }
        foreach
    }

    fn call(&mut self, index: usize, depth: usize) -> Json {
        let count = 1 + self.random.below(self.left.min(4));
        let steps = self.list(Some(index), count, depth + 1, false);
        let tails = usize::from(self.random.percent(30)) + usize::from(self.random.percent(10));
        let finally = self.finally(Some(index), tails, depth + 1);
        let given = if self.random.percent(50) {
            json!({"expr": "inputs.flag"})
        } else {
            json!({"literal": true})
        };
        let limit = self
            .random
            .percent(10)
            .then(|| format!("{}ms", 20 + self.random.below(300)));
        json!({"call": {
            "path": "other.yaml", "max_duration": limit, "inputs": {"flag": given, "open": {"expr": "inputs.open"}}, "targets": {},
            "on_failure": self.policy(),
            "scope": {"playbook": "other", "steps": steps, "finally": finally, "inputs": {
                "flag": {"type": "boolean"}, "open": {"type": "boolean", "default": true}}},
        }})
    }

    fn retry(&mut self) -> Json {
        let attempts = 1 + self.random.below(3);
        if self.random.percent(50) {
            json!({"attempts": attempts, "backoff": "constant", "delay": "5ms", "max_delay": "5ms", "also": ["timeout"]})
        } else {
            json!({"attempts": attempts, "backoff": "exponential", "delay": "10ms", "max_delay": "1s", "also": []})
        }
    }

    fn action(&mut self, kind: &str, with: Json) -> Json {
        let mut action = json!({"kind": kind, "traits": traits(kind), "with": with});
        if self.random.percent(45) {
            action["retry"] = self.retry();
        }
        if self.random.percent(15) {
            action["timeout"] = json!(format!("{}ms", 50 + self.random.below(500)));
        }
        action
    }

    fn step(&mut self, needs: &[usize], in_finally: bool) -> Json {
        let kind = match self.random.below(100) {
            0..=54 => *self.random.pick(&WRITES).unwrap(),
            55..=59 => "sim.batch",
            60..=69 => "sim.read",
            70..=75 => "sim.timer",
            76..=81 => "sim.signal",
            82..=91 => "sim.approval",
            _ => "sim.verify",
        };
        // Only a step's output is read: 7, or nothing where it was skipped.
        let needed = needs
            .iter()
            .filter(|need| self.nodes[**need]["body"]["step"].is_object())
            .filter(|need| self.nodes[**need]["foreach"].is_null())
            .copied()
            .collect::<Vec<_>>();
        let with = match needed.first() {
            Some(need) if self.random.percent(25) => {
                json!({"map": {"read": {"expr": format!("steps.n{need}.output + 1")}}})
            }
            Some(_) | None => json!({"literal": null}),
        };
        let traits = traits(kind);
        let undo = if in_finally || traits.effect == Effect::ReadOnly {
            json!("none")
        } else {
            self.undo()
        };
        let skippable = traits.skippable || self.random.percent(20);
        let mut step =
            json!({"action": self.action(kind, with), "undo": undo, "skippable": skippable});
        if self.random.percent(8) {
            step["gate"] = json!("inputs.open");
        }
        json!({ "step": step })
    }

    fn undo(&mut self) -> Json {
        match self.random.below(20) {
            0..=9 => {
                let mut auto = json!({});
                if self.random.percent(50) {
                    auto["retry"] = self.retry();
                }
                json!({ "auto": auto })
            }
            10..=11 => json!("none"),
            12..=13 => json!("impossible"),
            _ => {
                let parts = 1 + self.random.below(3);
                let parts: Vec<Json> = (0..parts)
                    .map(|part| {
                        let kind = match self.random.below(10) {
                            0..=4 => "sim.write",
                            5..=6 => "sim.plain",
                            7 => "sim.repeat",
                            8 => "sim.ask",
                            // A part that waits: the part before it has undone the effect.
                            _ if part > 0 => {
                                ["sim.timer", "sim.signal", "sim.approval"][self.random.below(3)]
                            }
                            _ => "sim.write",
                        };
                        // Of a step that failed with a part of its effect there is no output.
                        let with = if self.random.percent(10) {
                            json!({"map": {"read": {"expr": "output + 1"}}})
                        } else {
                            json!({"literal": null})
                        };
                        let mut action = self.action(kind, with);
                        if self.random.percent(if part > 0 { 20 } else { 6 }) {
                            action["when"] = json!("false");
                        }
                        action
                    })
                    .collect();
                json!({ "steps": parts })
            }
        }
    }
}

/// The definition in short, for a report.
pub(super) fn brief(graph: &Graph) -> String {
    let mut text = format!("policy {:?}", graph.policy.on_failure);
    if let Some(limit) = graph.policy.max_duration {
        text += &format!(", max_duration {limit}");
    }
    if !graph.policy.windows.is_empty() {
        text += &format!(
            ", windows {:?}, outside {:?}",
            graph.policy.windows, graph.policy.outside_window
        );
    }
    text += &format!(
        "\nsteps {:?} finally {:?}\n",
        graph.root.steps, graph.root.finally
    );
    for node in &graph.nodes {
        let json = serde_json::to_value(node).unwrap();
        text += &format!("  {}", node.id);
        for key in ["needs", "when", "on_failure", "cleanup", "in_finally"] {
            if !json[key].is_null() {
                text += &format!(" {key}={}", json[key]);
            }
        }
        if let Some(foreach) = &node.foreach {
            text += &format!(
                " foreach {} parallel={} failures={:?}",
                foreach.items.source(),
                foreach.max_parallel,
                foreach.max_failures
            );
        }
        text += &match &node.body {
            windlass_engine::graph::Body::Step(step) => {
                let undo = match &step.undo {
                    windlass_engine::graph::Undo::Steps(parts) => {
                        let parts: Vec<&str> = parts.iter().map(|p| p.kind.as_str()).collect();
                        parts.join("+")
                    }
                    other => serde_json::to_string(other).unwrap(),
                };
                format!(
                    ": {} undo {undo} retry {:?} gate {:?} skippable {} with {}",
                    step.action.kind,
                    step.action.retry.as_ref().map(|r| r.attempts),
                    step.gate.as_ref().map(windlass_engine::expr::Expr::source),
                    step.skippable,
                    serde_json::to_string(&step.action.with).unwrap()
                )
            }
            windlass_engine::graph::Body::Group { steps } => format!(": group {steps:?}"),
            windlass_engine::graph::Body::Call(call) => format!(
                ": call {:?} steps {:?} finally {:?}",
                call.on_failure, call.scope.steps, call.scope.finally
            ),
        };
        text += "\n";
    }
    text
}
