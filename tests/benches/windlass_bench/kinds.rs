//! Step kinds that do nothing, so that only the engine is measured; and graphs of them.
use std::{collections::BTreeMap, sync::Arc};
use windlass_engine::{
    expr::Template,
    graph::{Action, Body, GRAPH_FORMAT, Graph, Node, NodeId, Place, Policy, Scope, StepDef, Undo},
    step::{
        Failure, Fidelity, Kind, Outcome, ParamError, Preview, PreviewContext, Registry, Resume,
        Step, StepContext, StepKind, StepTraits, Wait, WaitOn,
    },
    value::{Timestamp, Value},
};

type Params = BTreeMap<String, Value>;

/// Does nothing.
pub(crate) struct Noop;

impl StepKind for Noop {
    const NAME: &'static str = "bench.noop";
    const TRAITS: StepTraits = StepTraits::READ_ONLY;
    const EXAMPLE: &'static str = "{}";
    type Params = Params;
    type Step = Self;

    fn prepare(_: Params) -> Result<Self, Vec<ParamError>> {
        Ok(Self)
    }
}

impl Step for Noop {
    type Capture = ();
    type State = ();
    type Output = Value;

    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Ok(Preview::new(Fidelity::Simulated, "nothing"))
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        _: &StepContext,
    ) -> Result<Outcome<Value, ()>, Failure> {
        Ok(Outcome::Done(Value::Null))
    }
}

/// Waits for a time that is far away, or for a signal.
pub(crate) struct Sleep {
    signal: bool,
}

impl StepKind for Sleep {
    const NAME: &'static str = "bench.sleep";
    const TRAITS: StepTraits = StepTraits::READ_ONLY;
    const EXAMPLE: &'static str = "{}";
    type Params = Params;
    type Step = Self;

    fn prepare(params: Params) -> Result<Self, Vec<ParamError>> {
        let signal = params.contains_key("signal");
        Ok(Self { signal })
    }
}

impl Step for Sleep {
    type Capture = ();
    type State = ();
    type Output = Value;

    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        Ok(Preview::new(Fidelity::Simulated, "sleeps"))
    }

    async fn execute(
        &self,
        (): &(),
        resume: Resume<()>,
        _: &StepContext,
    ) -> Result<Outcome<Value, ()>, Failure> {
        if resume.woken.is_some() {
            return Ok(Outcome::Done(Value::Null));
        }
        let on = if self.signal {
            WaitOn::Signal("go".to_owned())
        } else {
            WaitOn::Timer(Timestamp::from_second(7_258_118_400).unwrap())
        };
        let wait = Wait {
            on,
            deadline: None,
            wall: None,
        };
        Ok(Outcome::Suspend { state: (), wait })
    }
}

/// The kinds above.
pub(crate) fn registry() -> Arc<Registry> {
    let kinds = vec![Kind::of::<Noop>(), Kind::of::<Sleep>()];
    Arc::new(Registry::new(kinds, Vec::new()))
}

/// A graph of steps, each with the steps that it needs.
pub(crate) fn graph(
    steps: impl IntoIterator<Item = (&'static str, Value, Vec<u32>)>,
) -> Arc<Graph> {
    let node = |(index, (kind, with, needs)): (usize, (&str, Value, Vec<u32>))| Node {
        id: format!("step_{index}"),
        parent: None,
        in_finally: false,
        place: Place::default(),
        description: None,
        needs: needs.into_iter().map(NodeId).collect(),
        when: None,
        foreach: None,
        body: Body::Step(Box::new(StepDef {
            action: Action {
                kind: kind.to_owned(),
                traits: StepTraits::READ_ONLY,
                with: Template::Literal(with),
                expressions: Vec::new(),
                targets: Vec::new(),
                retry: None,
                timeout: None,
                when: None,
                probe: None,
            },
            gate: None,
            undo: Undo::None,
            evidence: None,
            skippable: true,
            plan_read: false,
        })),
        on_failure: None,
        cleanup: false,
    };
    let nodes: Vec<Node> = steps.into_iter().enumerate().map(node).collect();
    let ids = (0..).map(NodeId).take(nodes.len()).collect();
    Arc::new(Graph {
        format: GRAPH_FORMAT,
        playbook: "bench".to_owned(),
        description: None,
        owner: None,
        sources: Vec::new(),
        targets: Default::default(),
        policy: Policy::default(),
        nodes,
        root: Scope {
            playbook: "bench".to_owned(),
            steps: ids,
            ..Scope::default()
        },
    })
}

fn nothing() -> Value {
    Value::map::<&str>([])
}

/// Steps one after the other.
pub(crate) fn chain(steps: u32) -> Arc<Graph> {
    graph((0..steps).map(|n| {
        (
            "bench.noop",
            nothing(),
            n.checked_sub(1).into_iter().collect(),
        )
    }))
}

/// Steps that all may run at once.
pub(crate) fn fan_out(steps: u32) -> Arc<Graph> {
    graph((0..steps).map(|_| ("bench.noop", nothing(), Vec::new())))
}

/// A step, and then a wait for a time or for a signal.
pub(crate) fn waits(signal: bool) -> Arc<Graph> {
    let with = if signal {
        Value::map([("signal", Value::Bool(true))])
    } else {
        nothing()
    };
    graph([
        ("bench.noop", nothing(), Vec::new()),
        ("bench.sleep", with, vec![0]),
    ])
}
