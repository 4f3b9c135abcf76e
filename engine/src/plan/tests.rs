use super::{Decision, Plan, PlanRequest, UndoHow, diff, plan};
use crate::{
    expr::{Expr, Template, TemplatePart},
    graph::{
        Action, Body, CallDef, EvidenceDef, Foreach, GRAPH_FORMAT, Graph, InputDecl, InputType,
        MaxFailures, Node, NodeId, OnFailure, Place, Policy, Retry, Scope, Source, StepDef,
        TargetDecl, Undo,
    },
    step::{
        Effect, Failure, Fidelity, Identity, Kind, Outcome, ParamError, Preview, PreviewContext,
        Redo, Registry, Resource, Resources, Resume, Revealed, RunInfo, Step, StepContext,
        StepKind, StepTraits, Target, UndoSupport,
        params::{Expression, TargetName},
    },
    value::{Duration, Value},
};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// What the previews did, in order.
#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Resource for Seen {}

fn say(cx: &PreviewContext, what: &str) {
    let seen = cx.host.resources().get::<Seen>();
    seen.0
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push(format!("{} {what}", cx.node));
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default)]
    give: Value,
    #[serde(default)]
    target: Option<TargetName>,
    #[serde(default)]
    expect: Option<Expression>,
    #[serde(default)]
    fail: Option<String>,
    #[serde(default)]
    sql: Option<String>,
}

struct Fake<const WRITES: bool>(Params);

impl<const WRITES: bool> Step for Fake<WRITES> {
    type Capture = ();
    type State = ();
    type Output = Value;

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        say(cx, if WRITES { "estimates" } else { "reads" });
        if let Some(message) = &self.0.fail {
            return Err(Failure::new("fake.failed", message.clone()).help("try another"));
        }
        let mut preview = Preview::new(
            if WRITES {
                Fidelity::Estimated
            } else {
                Fidelity::Executed
            },
            if WRITES { "about 7 rows" } else { "1 row" },
        );
        if let Some(name) = &self.0.target {
            let target = cx.target(name)?;
            let url = cx.reveal(&target.url).await?;
            preview = preview.line("connects to", url.expose().to_owned());
        }
        if let Some(expect) = &self.0.expect {
            let value = cx
                .host
                .evaluate(
                    &expect.0,
                    crate::expr::Vars::new().with("value", self.0.give.clone()),
                )
                .map_err(|error| Failure::new("fake.expect", error.to_string()))?;
            preview = preview.line("expects", value.to_string());
        }
        if let Some(sql) = &self.0.sql {
            preview = preview.line("sql", sql.clone());
        }
        preview.binding =
            Value::map([("sql", Value::from(self.0.sql.clone().unwrap_or_default()))]);
        if !WRITES {
            preview.output = Some(Value::map([("value", self.0.give.clone())]));
        }
        // What a plan's host must refuse.
        let mark = crate::step::Mark {
            token: Value::Null,
            capture: None,
            output: Value::Null,
        };
        assert!(cx.host.mark(mark).await.is_err());
        assert!(cx.host.progress(Value::Null).await.is_err());
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        _: &StepContext,
    ) -> Result<Outcome<Value, ()>, Failure> {
        panic!("a plan executed a step");
    }
}

struct Read;
impl StepKind for Read {
    const NAME: &'static str = "fake.read";
    const TRAITS: StepTraits = StepTraits::READ_ONLY;
    const EXAMPLE: &'static str = "give: 1";
    type Params = Params;
    type Step = Fake<false>;
    fn prepare(params: Params) -> Result<Self::Step, Vec<ParamError>> {
        Ok(Fake(params))
    }
}

struct Write;
impl StepKind for Write {
    const NAME: &'static str = "fake.write";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::ProbeFirst,
        marks: false,
        captures: false,
        undo: UndoSupport::Impossible,
        fidelity: Fidelity::Estimated,
        skippable: true,
    };
    const EXAMPLE: &'static str = "give: 1";
    type Params = Params;
    type Step = Fake<true>;
    fn prepare(params: Params) -> Result<Self::Step, Vec<ParamError>> {
        Ok(Fake(params))
    }
}

fn expr(source: &str) -> Expr {
    Expr::parse(source).expect(source)
}

fn scalar(text: &str) -> Template {
    Template::parse_scalar(text).expect(text)
}

fn with<const N: usize>(pairs: [(&str, Template); N]) -> Template {
    Template::Map(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

fn give(text: &str) -> Template {
    with([("give", scalar(text))])
}

fn step(kind: &str, with: Template) -> StepDef {
    let traits = if kind == "fake.read" {
        Read::TRAITS
    } else {
        Write::TRAITS
    };
    StepDef {
        action: Action {
            kind: kind.to_owned(),
            traits,
            with,
            expressions: Vec::new(),
            targets: Vec::new(),
            retry: None,
            timeout: Some(Duration::from_secs(30)),
            when: None,
            probe: None,
        },
        gate: None,
        undo: if kind == "fake.read" {
            Undo::None
        } else {
            Undo::Impossible
        },
        evidence: None,
        skippable: true,
        plan_read: false,
    }
}

struct Builder {
    graph: Graph,
}

impl Builder {
    fn new() -> Self {
        Self {
            graph: Graph {
                format: GRAPH_FORMAT,
                playbook: "demo".to_owned(),
                description: None,
                owner: None,
                sources: vec![Source {
                    path: "demo.yaml".to_owned(),
                    sha256: "ab".repeat(32),
                    text: String::new(),
                }],
                targets: IndexMap::new(),
                policy: Policy::default(),
                nodes: Vec::new(),
                root: Scope::default(),
            },
        }
    }

    fn node(&mut self, id: &str, parent: Option<NodeId>, needs: &[NodeId], body: Body) -> NodeId {
        let number = u32::try_from(self.graph.nodes.len()).expect("few");
        self.graph.nodes.push(Node {
            id: id.to_owned(),
            parent,
            in_finally: false,
            place: Place {
                source: 0,
                line: number + 10,
                column: 3,
            },
            description: None,
            needs: needs.to_vec(),
            when: None,
            foreach: None,
            body,
            on_failure: None,
            cleanup: false,
        });
        NodeId(number)
    }

    fn step(&mut self, id: &str, needs: &[NodeId], def: StepDef) -> NodeId {
        let id = self.node(id, None, needs, Body::Step(Box::new(def)));
        self.graph.root.steps.push(id);
        id
    }

    fn at(&mut self, id: NodeId) -> &mut Node {
        &mut self.graph.nodes[id.index()]
    }
}

fn target(name: &str, url: Value) -> Target {
    Target {
        name: name.to_owned(),
        kind: "fake".to_owned(),
        url,
        role: None,
        labels: IndexMap::new(),
        ledger: None,
        options: IndexMap::new(),
        identity: Some(Identity {
            instance: format!("{name}:1"),
            system: Some("sys".to_owned()),
            role: Some("primary".to_owned()),
            timeline: Some(1),
            version: "1.0".to_owned(),
        }),
        never: Vec::new(),
        avoid: Vec::new(),
        entry: None,
    }
}

fn request<'a>(graph: &'a Graph, registry: &'a Registry, inputs: Value) -> PlanRequest<'a> {
    let at = "2026-01-02T03:04:05Z".parse().expect("timestamp");
    PlanRequest {
        unreachable: IndexMap::new(),
        graph,
        registry,
        inputs,
        targets: IndexMap::from([("db".to_owned(), target("db", Value::from("fake://db")))]),
        run: RunInfo {
            id: "(run)".to_owned(),
            short_id: "(run)".to_owned(),
            playbook: "demo".to_owned(),
            environment: "test".to_owned(),
            by: "tester".to_owned(),
            account: None,
            started_at: at,
            url: None,
        },
        rehearse: false,
        cancel: CancellationToken::new(),
        reveal: Arc::new(|_| Box::pin(async { Ok(Revealed::new("opened".to_owned())) })),
        now: Arc::new(move || at),
        resources: Arc::new(Resources::default()),
    }
}

fn run(graph: &Graph, inputs: Value) -> (Plan, Vec<String>) {
    let registry = Registry::new(vec![Kind::of::<Read>(), Kind::of::<Write>()], Vec::new());
    let request = request(graph, &registry, inputs);
    let resources = Arc::clone(&request.resources);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let plan = runtime.block_on(plan(request));
    let seen = resources.get::<Seen>().0.lock().expect("lock").clone();
    (plan, seen)
}

fn none() -> Value {
    Value::map::<&str>([])
}

fn node<'p>(plan: &'p Plan, path: &str) -> &'p super::NodePlan {
    plan.all()
        .into_iter()
        .find(|node| node.path == path)
        .unwrap_or_else(|| panic!("no {path} in\n{}", plan.to_text()))
}

fn after(plan: &Plan, path: &str) -> Vec<String> {
    node(plan, path)
        .preview
        .as_ref()
        .expect("a preview")
        .known_after
        .clone()
}

/// read → decide by it → write → read after it → read after that
fn chain() -> Graph {
    let mut b = Builder::new();
    let missing = b.step("missing", &[], step("fake.read", give("${{ 40 + 2 }}")));
    let small = b.step("small", &[missing], step("fake.write", give("x")));
    b.at(small).when = Some(expr("steps.missing.output.value < 10"));
    let fill = b.step(
        "fill",
        &[small],
        step(
            "fake.write",
            with([
                ("give", scalar("${{ steps.missing.output.value }}")),
                ("sql", scalar("UPDATE t SET a = 1")),
            ]),
        ),
    );
    b.at(fill).when = Some(expr("steps.missing.output.value == 42"));
    let check = b.step("check", &[fill], step("fake.read", give("${{ 1 }}")));
    let report = b.step(
        "report",
        &[check],
        step("fake.write", give("${{ steps.check.output.value }}")),
    );
    b.at(report).when = Some(expr("steps.check.output.value > 0"));
    b.graph
}

#[test]
fn reads_run_and_what_follows_a_write_is_known_after_it() {
    let (plan, seen) = run(&chain(), none());
    assert_eq!(seen, ["missing reads", "fill estimates"]);
    let missing = node(&plan, "missing").preview.as_ref().expect("preview");
    assert_eq!(missing.fidelity, Fidelity::Executed);
    assert_eq!(
        missing.output.as_ref().and_then(|o| o.get("value")),
        Some(&Value::Int(42))
    );
    let Decision::Skip { because } = &node(&plan, "small").decision else {
        panic!("{:?}", node(&plan, "small").decision);
    };
    assert_eq!(
        because,
        "`steps.missing.output.value < 10`: steps.missing.output.value is 42"
    );
    assert!(matches!(
        &node(&plan, "fill").decision,
        Decision::Run { because: Some(_) }
    ));
    assert_eq!(after(&plan, "check"), ["fill"]);
    let Decision::Unknown { until, condition } = &node(&plan, "report").decision else {
        panic!("decided at run time");
    };
    assert_eq!(until, &["check"]);
    assert_eq!(condition, "steps.check.output.value > 0");
    let counts = plan.counts;
    assert_eq!(
        (
            counts.steps,
            counts.reads,
            counts.writes,
            counts.irreversible
        ),
        (4, 2, 2, 2)
    );
    assert_eq!(
        (
            counts.unknown,
            counts.decided_at_run_time,
            counts.skipped,
            counts.failed
        ),
        (2, 1, 1, 0)
    );
    let point = plan
        .point_of_no_return
        .as_ref()
        .expect("a point of no return");
    assert_eq!(
        (point.path.as_str(), point.line, point.certain),
        ("fill", 12, true)
    );
    assert_eq!(plan.worst_case.time, Duration::from_secs(120));
    insta::assert_snapshot!(plan.to_text().replace(&plan.digest, "(digest)"));
}

#[test]
fn a_read_may_be_asked_for_before_the_change() {
    let mut graph = chain();
    if let Body::Step(step) = &mut graph.nodes[3].body {
        step.plan_read = true;
    }
    let (plan, seen) = run(&graph, none());
    assert!(seen.contains(&"check reads".to_owned()), "{seen:?}");
    let check = node(&plan, "check").preview.as_ref().expect("preview");
    assert!(check.before_the_change);
    assert!(matches!(
        &node(&plan, "report").decision,
        Decision::Run { .. }
    ));
}

#[test]
fn a_read_beside_a_write_runs() {
    let mut b = Builder::new();
    let first = b.step("first", &[], step("fake.read", give("1")));
    b.step("write", &[first], step("fake.write", give("1")));
    b.step("beside", &[first], step("fake.read", give("2")));
    let (plan, seen) = run(&b.graph, none());
    assert_eq!(seen, ["first reads", "write estimates", "beside reads"]);
    // Side by side, so one timeout after the other only along a path.
    assert_eq!(plan.worst_case.time, Duration::from_secs(60));
}

#[test]
fn a_skipped_write_changes_nothing() {
    let mut b = Builder::new();
    let write = b.step("write", &[], step("fake.write", give("1")));
    b.at(write).when = Some(expr("inputs.go"));
    b.step(
        "read",
        &[write],
        step("fake.read", give("${{ steps.write.state }}")),
    );
    let (plan, seen) = run(&b.graph, Value::map([("go", Value::Bool(false))]));
    assert_eq!(seen, ["read reads"]);
    assert_eq!(plan.point_of_no_return, None);
    let output = node(&plan, "read")
        .preview
        .as_ref()
        .and_then(|p| p.output.clone());
    assert_eq!(
        output.as_ref().and_then(|o| o.get("value")),
        Some(&Value::from("skipped"))
    );
}

/// As the run will read it: `duration` of what never started is NULL there, not zero.
#[test]
fn what_a_plan_knows_of_a_skipped_step_is_what_the_run_reads() {
    let mut b = Builder::new();
    let write = b.step("write", &[], step("fake.write", give("1")));
    b.at(write).when = Some(expr("inputs.go"));
    let reads = [
        (
            "never",
            "steps.write.attempts == 0 && steps.write.duration == () && steps.write.started_at == ()",
        ),
        ("short", "steps.write.duration < 5s"),
        ("later", "steps.write.finished_at < run.started_at"),
    ];
    for (id, when) in reads {
        let read = b.step(id, &[write], step("fake.read", give("1")));
        b.at(read).when = Some(expr(when));
    }
    let (plan, seen) = run(&b.graph, Value::map([("go", Value::Bool(false))]));
    assert_eq!(seen, ["never reads", "later reads"]);
    assert!(matches!(
        node(&plan, "short").decision,
        Decision::Fails { .. }
    ));
    assert!(matches!(
        &node(&plan, "later").decision,
        Decision::Unknown { until, .. } if until == &["write"]
    ));
}

#[test]
fn a_condition_that_fails_is_told() {
    let mut b = Builder::new();
    let a = b.step("a", &[], step("fake.read", give("1")));
    b.at(a).when = Some(expr("inputs.n == 'x'"));
    let c = b.step("c", &[], step("fake.read", give("1")));
    b.at(c).when = Some(expr("inputs.n"));
    let (plan, seen) = run(&b.graph, Value::map([("n", Value::Int(1))]));
    assert!(seen.is_empty());
    for (path, part) in [("a", "unlike types"), ("c", "must be true or false")] {
        let Decision::Fails { because } = &node(&plan, path).decision else {
            panic!("{path} fails");
        };
        assert!(because.contains(part), "{because}");
    }
    assert_eq!(plan.counts.failed, 2);
}

#[test]
fn a_failed_preview_stands_beside_its_step() {
    let mut b = Builder::new();
    let a = b.step(
        "a",
        &[],
        step("fake.write", with([("fail", scalar("no table t"))])),
    );
    b.step(
        "b",
        &[a],
        step("fake.write", with([("fail", scalar("no table made by a"))])),
    );
    b.step(
        "c",
        &[],
        step("fake.read", with([("nonsense", scalar("1"))])),
    );
    b.step("d", &[], step("fake.read", give("${{ 1 / 0 }}")));
    let (plan, _) = run(&b.graph, none());
    let error = |path: &str| {
        node(&plan, path)
            .preview
            .as_ref()
            .and_then(|p| p.error.clone())
    };
    assert_eq!(error("a").as_deref(), Some("no table t; try another"));
    // What a step before it would make is not there yet.
    assert_eq!(error("b"), None);
    assert_eq!(after(&plan, "b"), ["a"]);
    assert!(
        error("c").is_some_and(|e| e.contains("nonsense")),
        "{:?}",
        error("c")
    );
    assert!(
        error("d").is_some_and(|e| e.contains("divided by zero")),
        "{:?}",
        error("d")
    );
    assert_eq!(plan.counts.failed, 3);
}

fn each(items: &str, max_items: Option<u32>) -> Foreach {
    Foreach {
        items: expr(items),
        name: "db".to_owned(),
        when: None,
        max_parallel: 2,
        max_failures: MaxFailures::default(),
        max_items,
    }
}

#[test]
fn a_foreach_is_expanded_where_its_items_are_known() {
    let mut b = Builder::new();
    let names = b.step(
        "names",
        &[],
        step("fake.read", give("${{ ['a', 'b', 'c'] }}")),
    );
    let all = b.step(
        "all",
        &[names],
        step("fake.read", give("${{ db + text(index) }}")),
    );
    b.at(all).foreach = Some(each("steps.names.output.value", None));
    b.at(all).foreach.as_mut().expect("foreach").when = Some(expr("db != 'b'"));
    b.step(
        "sum",
        &[all],
        step(
            "fake.read",
            give("${{ steps.all.output.items.map(|i| i.output.value).join() }}"),
        ),
    );
    let (plan, _) = run(&b.graph, none());
    // `join` takes a separator: the mistake is seen in the plan.
    assert!(
        node(&plan, "sum")
            .preview
            .as_ref()
            .is_some_and(|p| p.error.is_some())
    );
    if let Body::Step(step) = &mut b.graph.nodes[2].body {
        step.action.with = give("${{ steps.all.output.items.map(|i| i.output.value).join('+') }}");
    }
    let (plan, seen) = run(&b.graph, none());
    assert_eq!(
        seen,
        ["names reads", "all[0] reads", "all[1] reads", "sum reads"]
    );
    let output = node(&plan, "sum")
        .preview
        .as_ref()
        .and_then(|p| p.output.clone());
    assert_eq!(
        output.as_ref().and_then(|o| o.get("value")),
        Some(&Value::from("a0+c1"))
    );
    let foreach = node(&plan, "all").foreach.as_ref().expect("foreach");
    assert_eq!((foreach.items, foreach.shown), (Some(2), 2));
}

#[test]
fn a_foreach_of_unknown_size_says_after_what() {
    let mut b = Builder::new();
    let write = b.step("write", &[], step("fake.write", give("1")));
    let names = b.step("names", &[write], step("fake.read", give("${{ [1] }}")));
    let all = b.step("all", &[names], step("fake.write", give("${{ db }}")));
    b.at(all).foreach = Some(each("steps.names.output.value", Some(50)));
    let (plan, seen) = run(&b.graph, none());
    assert_eq!(seen, ["write estimates"]);
    let foreach = node(&plan, "all").foreach.as_ref().expect("foreach");
    assert_eq!((foreach.items, foreach.max_items), (None, Some(50)));
    assert_eq!(foreach.known_after, ["names"]);
    assert_eq!(after(&plan, "all[…]"), ["names"]);
    // 30 s for each of the two, and 25 rounds of two items.
    assert_eq!(plan.worst_case.time, Duration::from_secs(60 + 25 * 30));
}

#[test]
fn many_items_are_shown_in_part() {
    let mut b = Builder::new();
    let all = b.step("all", &[], step("fake.read", give("${{ db }}")));
    b.at(all).foreach = Some(each("inputs.list", None));
    let list = Value::list((0..250).map(Value::Int).collect());
    let (plan, seen) = run(&b.graph, Value::map([("list", list)]));
    assert_eq!(seen.len(), 100);
    assert_eq!(plan.all().len(), 101);
    let foreach = node(&plan, "all").foreach.as_ref().expect("foreach");
    assert_eq!((foreach.items, foreach.shown), (Some(250), 100));
    assert!(plan.to_text().contains("… and 150 more items"));
    assert!(plan.to_markdown().contains("… and 150 more items"));
}

/// A group, a call with its own inputs, names, targets and `finally`, undo by steps, secrets, a derived target.
fn house() -> Graph {
    let mut b = Builder::new();
    b.graph.policy = Policy {
        locks: vec!["orders".to_owned()],
        windows: vec!["Mon-Fri 09:00-17:00 UTC".to_owned()],
        outside_window: crate::graph::OutsideWindow::Wait,
        max_duration: Some(Duration::from_secs(60)),
        on_failure: OnFailure::Undo,
    };
    b.graph.targets = IndexMap::from([
        (
            "db".to_owned(),
            TargetDecl::Named {
                kind: "fake".to_owned(),
                role: None,
                description: None,
                moves: false,
                when_down: crate::graph::WhenDown::Refuse,
            },
        ),
        (
            "scratch".to_owned(),
            TargetDecl::Derived {
                like: "db".to_owned(),
                with: IndexMap::from([(
                    "url".to_owned(),
                    scalar("fake://${{ steps.prepare.state }}"),
                )]),
                never: vec!["db".to_owned()],
                description: None,
            },
        ),
    ]);
    b.graph.root.lets = IndexMap::from([("twice".to_owned(), expr("inputs.n * 2"))]);
    let group = b.node("prepare", None, &[], Body::Group { steps: Vec::new() });
    let mut restore = step(
        "fake.write",
        with([
            ("give", scalar("host-${{ twice }}")),
            ("sql", scalar("CREATE DATABASE x")),
        ]),
    );
    restore.undo = Undo::Steps(vec![Action {
        with: with([
            ("sql", scalar("DROP DATABASE x")),
            ("give", scalar("${{ run.id }}")),
        ]),
        ..step("fake.write", give("x")).action
    }]);
    restore.action.retry = Some(Retry::default());
    let inner = b.node("restore", Some(group), &[], Body::Step(Box::new(restore)));
    b.at(inner).cleanup = true;
    b.at(group).body = Body::Group { steps: vec![inner] };
    b.graph.root.steps.push(group);

    let mut peek = step(
        "fake.read",
        with([
            ("give", scalar("${{ inputs.size }}")),
            ("target", scalar("here")),
            (
                "expect",
                Template::Literal(Value::from("value == inputs.size")),
            ),
        ]),
    );
    peek.action.targets = vec![vec!["target".to_owned()]];
    peek.action.expressions = vec![expr("value == inputs.size")];
    peek.evidence = Some(EvidenceDef {
        keep: true,
        mask: vec!["VALUE".to_owned()],
        keep_for: None,
    });
    let call = b.node("child", None, &[], Body::Group { steps: Vec::new() });
    let peek = b.node("peek", Some(call), &[], Body::Step(Box::new(peek)));
    let tell = b.node(
        "tell",
        Some(call),
        &[],
        Body::Step(Box::new(step(
            "fake.write",
            Template::Map(IndexMap::from([(
                "give".to_owned(),
                Template::Text(vec![
                    TemplatePart::Text("token ".to_owned()),
                    TemplatePart::Expr(expr("secret('slack')")),
                ]),
            )])),
        ))),
    );
    let size = InputDecl {
        kind: InputType::Integer,
        description: None,
        default: Some(Value::Int(1)),
        allowed: vec![],
        pattern: None,
        min: None,
        max: None,
        of: None,
    };
    b.at(call).body = Body::Call(Box::new(CallDef {
        path: "child.yaml".to_owned(),
        inputs: IndexMap::from([("size".to_owned(), scalar("${{ twice }}"))]),
        targets: IndexMap::from([("here".to_owned(), "db".to_owned())]),
        scope: Scope {
            playbook: "child".to_owned(),
            inputs: IndexMap::from([("size".to_owned(), size)]),
            lets: IndexMap::new(),
            steps: vec![peek],
            finally: vec![tell],
            outputs: IndexMap::from([(
                "seen".to_owned(),
                scalar("${{ steps.peek.output.value }}"),
            )]),
        },
        on_failure: OnFailure::Undo,
        max_duration: None,
    }));
    b.graph.root.steps.push(call);
    let mut on_scratch = step("fake.read", with([("target", scalar("scratch"))]));
    on_scratch.action.targets = vec![vec!["target".to_owned()]];
    on_scratch.plan_read = true;
    b.step(
        "use_child",
        &[call],
        step("fake.read", give("${{ steps.child.output.seen }}")),
    );
    b.step("verify", &[group], on_scratch);
    b.graph
}

#[test]
fn groups_calls_undo_and_derived_targets() {
    let (plan, seen) = run(&house(), Value::map([("n", Value::Int(4))]));
    assert_eq!(
        seen,
        [
            "prepare/restore estimates",
            "child/peek reads",
            "child/tell estimates"
        ]
    );
    let peek = node(&plan, "child/peek");
    assert_eq!(peek.targets, ["here"]);
    let preview = peek.preview.as_ref().expect("preview");
    let lines: Vec<(&str, &str)> = preview
        .lines
        .iter()
        .map(|l| (l.label.as_str(), l.text.as_str()))
        .collect();
    assert_eq!(lines, [("connects to", "fake://db"), ("expects", "true")]);
    // Masked in the plan, known to the plan.
    assert_eq!(
        preview.output.as_ref().and_then(|o| o.get("value")),
        Some(&Value::from("(masked)"))
    );
    // The child's own finally writes, so what reads after the call is known after it.
    assert_eq!(after(&plan, "use_child"), ["child/tell"]);
    // `verify` is asked for before the change, but its target does not exist before `restore`.
    assert_eq!(after(&plan, "verify"), ["prepare"]);
    let undo = node(&plan, "prepare/restore").undo.as_ref().expect("undo");
    assert_eq!(
        (undo.how, undo.cleanup, undo.steps.len()),
        (UndoHow::Steps, true, 1)
    );
    assert_eq!(
        undo.steps[0].with.get("sql").map(String::as_str),
        Some("DROP DATABASE x")
    );
    assert_eq!(plan.secrets, ["slack"]);
    // Three attempts of 30 s and two pauses of 1 s and 2 s, then what stands beside or after.
    assert_eq!(plan.worst_case.time, Duration::from_secs(123));
    assert!(
        plan.to_text().contains("2m3s of 1m allowed, TOO LONG"),
        "{}",
        plan.to_text()
    );
    insta::assert_snapshot!(
        "house_text",
        plan.to_text().replace(&plan.digest, "(digest)")
    );
    insta::assert_snapshot!(
        "house_markdown",
        plan.to_markdown().replace(&plan.digest, "(digest)")
    );
}

#[test]
fn the_plan_fits_its_schema_and_reads_back() {
    let (plan, _) = run(&house(), Value::map([("n", Value::Int(4))]));
    let json = serde_json::to_value(&plan).expect("writes");
    let back: Plan = serde_json::from_value(json.clone()).expect("reads");
    assert_eq!(back, plan);
    let schema = super::schema();
    let required = schema["required"].as_array().expect("required keys");
    assert!(
        required
            .iter()
            .all(|key| json.get(key.as_str().expect("text")).is_some())
    );
    let properties = schema["properties"].as_object().expect("properties");
    assert!(
        json.as_object()
            .expect("object")
            .keys()
            .all(|key| properties.contains_key(key))
    );
}

#[test]
fn the_digest_binds_what_was_planned_and_not_what_was_read() {
    let inputs = || Value::map([("n", Value::Int(4))]);
    let (plan, _) = run(&house(), inputs());
    let (again, _) = run(&house(), inputs());
    assert_eq!(plan.digest, again.digest);
    assert!(diff(&plan, &again).is_empty());
    assert_eq!(plan.digest.len(), 64);

    let (other, _) = run(&house(), Value::map([("n", Value::Int(5))]));
    assert_eq!(diff(&plan, &other), ["input n: was 4, is 5"]);

    let mut graph = house();
    graph.sources[0].sha256 = "cd".repeat(32);
    if let Body::Step(step) = &mut graph.nodes[1].body {
        step.action.with = with([("give", scalar("x")), ("sql", scalar("CREATE DATABASE y"))]);
        step.undo = Undo::Impossible;
    }
    let (other, _) = run(&graph, inputs());
    let changes = diff(&plan, &other);
    assert!(
        changes.contains(&"demo.yaml: its text changed".to_owned()),
        "{changes:?}"
    );
    assert!(
        changes.contains(&"step prepare/restore: its undo changed".to_owned()),
        "{changes:?}"
    );
    assert!(
        changes.iter().any(|c| c.contains("CREATE DATABASE y")),
        "{changes:?}"
    );

    let registry = Registry::new(vec![Kind::of::<Read>(), Kind::of::<Write>()], Vec::new());
    let graph = house();
    let mut moved = request(&graph, &registry, inputs());
    moved
        .targets
        .get_mut("db")
        .and_then(|t| t.identity.as_mut())
        .expect("identity")
        .instance = "other:1".to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let moved = runtime.block_on(super::plan(moved));
    assert_eq!(
        diff(&plan, &moved),
        ["target db, instance: was db:1, is other:1"]
    );

    // A value that a step read decides a condition, a number of items, a parameter: none of it binds.
    let count = |n: &str| {
        let mut b = Builder::new();
        let read = b.step("read", &[], step("fake.read", give("1")));
        let each_one = b.step("each_one", &[read], step("fake.read", give("${{ db }}")));
        b.at(each_one).foreach = Some(each("steps.read.output.value", None));
        let maybe = b.step(
            "maybe",
            &[read],
            step("fake.write", give("${{ steps.read.output.value }}")),
        );
        b.at(maybe).when = Some(expr("steps.read.output.value.len() > 1"));
        // As if the database had answered otherwise: the value comes from an input that is taken out again.
        if let Body::Step(step) = &mut b.at(read).body {
            step.action.with = give("${{ inputs.answer }}");
        }
        let answer = Value::list(n.chars().map(|c| Value::from(c.to_string())).collect());
        run(&b.graph, Value::map([("answer", answer)])).0
    };
    let (mut one, mut two) = (count("a"), count("ab"));
    assert_ne!(one.all().len(), two.all().len());
    one.inputs = none();
    two.inputs = none();
    assert_eq!(super::digest::digest(&one), super::digest::digest(&two));
}

#[test]
fn an_interrupted_plan_asks_nothing_more() {
    let graph = chain();
    let registry = Registry::new(vec![Kind::of::<Read>(), Kind::of::<Write>()], Vec::new());
    let request = request(&graph, &registry, none());
    request.cancel.cancel();
    let resources = Arc::clone(&request.resources);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let plan = runtime.block_on(super::plan(request));
    assert!(resources.get::<Seen>().0.lock().expect("lock").is_empty());
    assert!(plan.counts.failed > 0);
}

#[test]
fn a_long_playbook_is_planned_in_linear_space() {
    let mut b = Builder::new();
    let mut last: Vec<NodeId> = Vec::new();
    for i in 0..2_000 {
        let id = b.step(&format!("s{i}"), &last, step("fake.write", give("1")));
        last = vec![id];
    }
    b.step("read", &last, step("fake.read", give("1")));
    let (plan, _) = run(&b.graph, none());
    // Only the last writer is named: those before it go without saying.
    assert_eq!(after(&plan, "read"), ["s1999"]);
    assert_eq!(plan.counts.writes, 2_000);
}
