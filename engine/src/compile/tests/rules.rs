//! Each rule of the language, with what breaks it.
use super::*;
use crate::{
    expr::Template,
    graph::{OnFailure, Undo},
    value::Value,
};

#[track_caller]
fn breaks(steps: &str, expected: &[&str]) {
    let compiled = compiled(&playbook(steps));
    // Many of these steps do not use the target that `playbook` declares.
    let unused = |code: &&str| *code != "WL0704";
    let codes: Vec<&str> = compiled
        .diagnostics
        .iter()
        .map(|d| d.code)
        .filter(unused)
        .collect();
    assert_eq!(codes, expected, "{}", rendered(&compiled));
}

#[track_caller]
fn holds(steps: &str) {
    breaks(steps, &[]);
}

fn needs(graph: &Graph) -> Vec<Vec<u32>> {
    graph
        .nodes
        .iter()
        .map(|node| node.needs.iter().map(|need| need.0).collect())
        .collect()
}

#[test]
fn a_sequence_compiles() {
    let graph = graph(&playbook(&format!(
        "{}{}  - id: c\n    uses: sql.execute\n    with: {{ target: db, sql: \"DELETE FROM t WHERE n > :n\", params: {{ n: \"${{{{ steps.a.output.value }}}}\" }} }}\n    undo: none\n",
        query("a"),
        query("b")
    )));
    assert_eq!(needs(&graph), [vec![], vec![0], vec![1]]);
    let Body::Step(step) = &graph.nodes[2].body else {
        panic!("a step")
    };
    assert!(matches!(step.action.with, Template::Map(_)));
    assert_eq!(step.action.targets, [["target"]]);
    assert_eq!(step.undo, Undo::None);
    assert_eq!(graph.nodes[2].place.line, 14);
    assert_eq!(graph.sources.len(), 1);
    let json = serde_json::to_string(&graph).expect("stored");
    assert_eq!(serde_json::from_str::<Graph>(&json).expect("read"), graph);
}

#[test]
fn names() {
    breaks(&query("Backup-DB"), &["WL0301"]);
    breaks(&query("new"), &["WL0302"]);
    breaks(&format!("{}{}", query("a"), query("a")), &["WL0303"]);
    breaks(
        &format!(
            "{}  - id: g\n    steps:\n      - id: a\n        uses: verify\n        with: {{ checks: [] }}\n",
            query("a")
        ),
        &["WL0303"],
    );
    assert_eq!(
        codes_of(
            "playbook: Not_Kebab\nsteps:\n  - { id: a, uses: verify, with: { checks: [] } }\n"
        ),
        ["WL0304"]
    );
}

#[test]
fn order() {
    let two = format!("{}{}", query("a").trim_end(), "\n    needs: []\n");
    let b = "  - id: b\n    uses: verify\n    needs: []\n    with: { checks: [] }\n";
    assert_eq!(
        needs(&graph(&playbook(&format!("{two}{b}{}", query("c"))))),
        [vec![], vec![], vec![0, 1]]
    );
    breaks(
        &format!(
            "{}{}",
            query("first"),
            query("b").replace("uses", "needs: [frist]\n    uses")
        ),
        &["WL0401"],
    );
    let cycle = format!(
        "{}{}{}",
        query("a").replace("uses", "needs: [c]\n    uses"),
        query("b").replace("uses", "needs: [a]\n    uses"),
        query("c").replace("uses", "needs: [b]\n    uses")
    );
    let compiled = compiled(&playbook(&cycle));
    assert!(
        compiled.diagnostics[0].message.contains("a → c → b → a"),
        "{}",
        compiled.diagnostics[0].message
    );
    breaks(
        &query("a").replace("uses", "needs: [a]\n    uses"),
        &["WL0402"],
    );
    breaks(
        &format!(
            "{}  - id: g\n    steps:\n    - id: b\n      needs: [a]\n      uses: verify\n      with: {{ checks: [] }}\n",
            query("a")
        ),
        &["WL0401"],
    );
}

#[test]
fn what_an_expression_may_read() {
    let when = |expr: &str| {
        format!(
            "{}{}",
            query("a"),
            query("b").replace("uses", &format!("when: {expr}\n    uses"))
        )
    };
    holds(&when(
        "steps.a.output.value > inputs.max && run.environment != 'prod'",
    ));
    breaks(&when("inputs.mx > 1"), &["WL0503"]);
    breaks(&when("steps.aa.state == 'failed'"), &["WL0504"]);
    breaks(&when("steps.a.output.vlaue > 1"), &["WL0508"]);
    breaks(&when("steps.a.value > 1"), &["WL0508"]);
    breaks(&when("steps.a.outptu.value > 1"), &["WL0508"]);
    breaks(&when("run.envronment == 'x'"), &["WL0508"]);
    breaks(&when("run.outcome == 'x'"), &["WL0508"]);
    breaks(&when("a.output.value > 1"), &["WL0502"]);
    breaks(&when("item > 1"), &["WL0502"]);
    breaks(&when("steps[inputs.max].output.value > 1"), &["WL0507"]);
    breaks(&when("steps.b.state == 'x'"), &["WL0505"]);
    breaks(&when("inputs.max >"), &["WL0501"]);
    breaks(&when("${{ inputs.max > 1 }}"), &["WL0509"]);
    breaks(&when("targets.dbb == 'x'"), &["WL0701"]);
    breaks(&when("targets.db.reachable"), &[]);
    breaks(&when("targets.db.reachble"), &["WL0508"]);
}

#[test]
fn only_steps_that_are_needed() {
    let parallel = format!(
        "{}{}",
        query("a"),
        query("b").replace(
            "uses",
            "needs: []\n    when: steps.a.output.value > 1\n    uses"
        )
    );
    breaks(&parallel, &["WL0505"]);
    let help = compiled(&playbook(&parallel)).diagnostics[0].help.clone();
    assert_eq!(help.as_deref(), Some("give `b` `needs: [a]`"));
    // Through others, and through the group.
    holds(&format!(
        "{}{}  - id: g\n    needs: [b]\n    steps:\n      - id: c\n        uses: verify\n        when: steps.a.output.value > 1\n        with: {{ checks: [] }}\n",
        query("a"),
        query("b").replace("uses", "needs: [a]\n    uses"),
    ));
    breaks(
        &format!(
            "{}  - id: g\n    needs: []\n    steps:\n      - id: c\n        uses: verify\n        when: steps.a.output.value > 1\n        with: {{ checks: [] }}\n",
            query("a"),
        ),
        &["WL0505"],
    );
    // Steps inside another group cannot be read, its output can.
    let group = "  - id: g\n    steps:\n      - id: c\n        uses: verify\n        with: { checks: [] }\n";
    breaks(
        &format!(
            "{group}{}",
            query("d").replace("uses", "when: steps.c.state == 'x'\n    uses")
        ),
        &["WL0504"],
    );
    breaks(
        &format!(
            "{group}{}",
            query("d").replace("uses", "when: steps.g.output.x == 1\n    uses")
        ),
        &["WL0508"],
    );
    holds(&format!(
        "{group}{}",
        query("d").replace("uses", "when: steps.g.output.c.row_count == 1\n    uses")
    ));
}

#[test]
fn outputs_that_may_be_missing_need_a_guard() {
    let pair = |first: &str, expr: &str| {
        format!(
            "{}{}",
            query("a").replace("uses", &format!("{first}\n    uses")),
            query("b").replace("uses", &format!("when: {expr}\n    uses"))
        )
    };
    breaks(
        &pair("when: inputs.max > 1", "steps.a.output.value > 1"),
        &["WL0506"],
    );
    breaks(
        &pair("on_failure: continue", "steps.a.output.value > 1"),
        &["WL0506"],
    );
    breaks(
        &pair("on_failure: ignore", "steps.a.output.value > 1"),
        &["WL0506"],
    );
    holds(&pair("when: inputs.max > 1", "steps.a.output?.value == 1"));
    holds(&pair(
        "when: inputs.max > 1",
        "steps.a.state == 'succeeded' && steps.a.output.value > 1",
    ));
    holds(&pair("when: inputs.max > 1", "steps.a.state == 'skipped'"));
    holds(&pair("on_failure: pause", "steps.a.output.value > 1"));
    // A condition around the place counts, and so does the same condition.
    let with = |when: &str| {
        format!(
            "{}  - id: b\n    when: {when}\n    uses: verify\n    with: {{ checks: [], data: \"${{{{ steps.a.output.value }}}}\" }}\n",
            query("a").replace("uses", "when: inputs.max > 1\n    uses")
        )
    };
    holds(&with("steps.a.state == 'succeeded'"));
    holds(&with("inputs.max > 1"));
    breaks(&with("inputs.max > 2"), &["WL0506"]);
}

#[test]
fn finally_sees_every_step() {
    let text = |expr: &str| {
        playbook(&format!(
            "{}{}finally:\n  - id: tell\n    uses: verify\n    when: {expr}\n    with: {{ checks: [] }}\n",
            query("a"),
            query("b")
        ))
    };
    assert_eq!(
        codes_of(&text("run.outcome == 'failed' && steps.b.state == 'x'")),
        [] as [&str; 0]
    );
    assert_eq!(
        codes_of(&text("steps.a.output?.value == 1")),
        [] as [&str; 0]
    );
    assert_eq!(codes_of(&text("steps.a.output.value == 1")), ["WL0506"]);
    let bad = format!(
        "{}finally:\n  - id: tell\n    uses: verify\n    needs: [a]\n    undo: none\n    with: {{ checks: [] }}\n",
        playbook(&query("a"))
    );
    assert_eq!(codes_of(&bad), ["WL0208", "WL0208"]);
    let graph = graph(&text("true"));
    assert!(graph.nodes[2].in_finally && graph.nodes[2].needs.is_empty());
}

#[test]
fn lets() {
    let text = |lets: &str, expr: &str| {
        format!(
            "{}let:\n{lets}",
            playbook(&format!(
                "{}{}",
                query("a"),
                query("b").replace("uses", &format!("when: {expr}\n    uses"))
            ))
        )
    };
    let ok = text(
        "  many: double > inputs.max\n  double: steps.a.output.value * 2\n",
        "many",
    );
    assert_eq!(codes_of(&ok), [] as [&str; 0]);
    let keys: Vec<String> = graph(&ok).root.lets.keys().cloned().collect();
    assert_eq!(keys, ["double", "many"]);
    assert_eq!(
        codes_of(&text("  one: two\n  two: one\n", "true")),
        ["WL0511"]
    );
    assert_eq!(codes_of(&text("  steps: 1\n", "true")), ["WL0302"]);
    assert_eq!(
        codes_of(&text("  late: steps.b.output.value\n", "late > 1")),
        ["WL0505"]
    );
    assert_eq!(
        codes_of(&text("  wrong: inputs.nothing\n", "true")),
        ["WL0503"]
    );
}

#[test]
fn foreach() {
    let each = |foreach: &str, data: &str| {
        format!(
            "{}  - id: each\n    foreach: {foreach}\n    uses: verify\n    with: {{ checks: [], data: \"{data}\" }}\n",
            query("a")
        )
    };
    holds(&each(
        "{ items: inputs.names, as: name }",
        "${{ name }} ${{ index }} ${{ item }}",
    ));
    holds(&each(
        "{ items: [eu, us], max_failures: 10%, max_parallel: 2 }",
        "${{ item }}",
    ));
    breaks(
        &each("{ items: steps.a.output.rows }", "${{ item }}"),
        &["WL0609"],
    );
    holds(&each(
        "{ items: steps.a.output.rows, max_items: 10, when: item.ok }",
        "${{ item }}",
    ));
    breaks(
        &each("{ items: inputs.names, as: steps }", "x"),
        &["WL0302"],
    );
    breaks(
        &each("{ items: inputs.names, max_failures: some }", "x"),
        &["WL0207"],
    );
    breaks(&each("{ item: inputs.names }", "x"), &["WL0202", "WL0201"]);
    breaks(
        &format!(
            "{}{}",
            each("{ items: inputs.names }", "x"),
            query("c").replace("uses", "when: steps.each.output.item == 1\n    uses")
        ),
        &["WL0508"],
    );
    let graph = graph(&playbook(&each(
        "{ items: [eu, 014, 1.5, true], as: region }",
        "x",
    )));
    let foreach = graph.nodes[1].foreach.as_ref().expect("foreach");
    assert_eq!(foreach.items.source(), r#"["eu", "014", 1.5, true]"#);
    assert_eq!((foreach.name.as_str(), foreach.max_parallel), ("region", 1));
}

#[test]
fn parameters_by_their_type() {
    let verify = |with: &str| {
        format!("  - id: a\n    uses: verify\n    with:\n      checks: []\n      {with}\n")
    };
    breaks(&verify("chekcs: []"), &["WL0602"]);
    breaks("  - id: a\n    uses: verify\n    with: {}\n", &["WL0603"]);
    breaks(&verify("max: many"), &["WL0604"]);
    breaks(&verify("max: 256"), &["WL0207"]);
    breaks(&verify("max: [1]"), &["WL0604"]);
    breaks(&verify("strict: yes"), &["WL0204"]);
    breaks(&verify("labels: 5"), &["WL0604"]);
    breaks("  - id: a\n    uses: verfy\n    with: {}\n", &["WL0601"]);
    breaks(&verify("target: dbb"), &["WL0701"]);
    breaks(
        "  - id: a\n    uses: sql.query\n    with: { target: db, sql: DROP TABLE t }\n",
        &["WL0605"],
    );
    breaks(
        "  - id: a\n    uses: sql.query\n    with: { target: db, sql: \"SELECT ${{ inputs.max }}\" }\n",
        &["WL0606"],
    );
    breaks(
        "  - id: a\n    uses: sql.execute\n    with: { target: db, sql: x, transaction: nnone }\n",
        &["WL0205"],
    );
    breaks(
        "  - id: a\n    uses: sql.query\n    with: { target: db, sql: x, lock_timeout: soon }\n",
        &["WL0604"],
    );
    breaks(
        "  - id: a\n    uses: sql.query\n    with: { target: db, sql: x, params: \"a ${{ inputs.max }}\" }\n",
        &["WL0604"],
    );
    holds(
        "  - id: a\n    uses: sql.query\n    with: { target: db, sql: x, params: \"${{ #{} }}\", lock_timeout: \"${{ 5s }}\" }\n",
    );
}

#[test]
fn scalars_stay_what_they_are() {
    let graph = graph(&playbook(
        "  - id: a\n    uses: verify\n    with:\n      target: db\n      checks: [{ name: 014, expect: value == 1 }]\n      labels: { account: 0123, big: 1_000, yes: no }\n      data: { n: 14, padded: 014, text: \"14\", dec: 1.50, none: null, on: true }\n",
    ));
    let Body::Step(step) = &graph.nodes[0].body else {
        panic!("a step")
    };
    let Template::Literal(with) = &step.action.with else {
        panic!("literal")
    };
    let text = |path: &[&str]| {
        path.iter()
            .try_fold(with, |value, key| value.get(key))
            .cloned()
    };
    assert_eq!(text(&["labels", "account"]), Some("0123".into()));
    assert_eq!(text(&["labels", "big"]), Some("1_000".into()));
    assert_eq!(text(&["labels", "yes"]), Some("no".into()));
    assert_eq!(text(&["data", "n"]), Some(Value::Int(14)));
    assert_eq!(text(&["data", "padded"]), Some("014".into()));
    assert_eq!(text(&["data", "text"]), Some("14".into()));
    assert_eq!(
        text(&["data", "dec"]).map(|v| v.to_string()).as_deref(),
        Some("1.50")
    );
    assert_eq!(text(&["data", "none"]), Some(Value::Null));
    assert_eq!(step.action.expressions.len(), 1);
}

#[test]
fn the_guards_that_vanish_in_yaml() {
    let when = |value: &str| {
        format!(
            "{}{}",
            query("a"),
            query("b").replace("uses", &format!("when: {value}\n    uses"))
        )
    };
    breaks(&when("steps.a.output.value == \"x #1\""), &["WL0113"]);
    breaks(&when("!steps.a.output.value"), &["WL0103"]);
    breaks(&when("#steps.a.output.value"), &["WL0114"]);
    breaks(
        "  - id: a\n    uses: verify\n    with: { checks: [], data: { n: ${{ inputs.max }} } }\n",
        &["WL0112"],
    );
    breaks(
        "  - id: a\n    uses: verify\n    with:\n      checks: []\n      data: a ${{ \"b #c\" }}\n",
        &["WL0113"],
    );
    breaks(
        "  - id: a\n    uses: verify\n    with:\n      checks: []\n      data: a ${{ inputs.max\n",
        &["WL0510"],
    );
    // A comment after a whole expression is a comment.
    holds(&when("steps.a.output.value == 1 # only then"));
    let help = compiled(&playbook(&when("steps.a.output.value == \"x #1\""))).diagnostics[0]
        .help
        .clone();
    assert_eq!(
        help.as_deref(),
        Some("write 'steps.a.output.value == \"x #1\"', or let `windlass fmt` do it")
    );
}

#[test]
fn undo_probe_and_cleanup() {
    let execute = |rest: &str| {
        format!("  - id: a\n    uses: sql.execute\n    with: {{ target: db, sql: x }}\n{rest}")
    };
    let undo = |steps: &str| {
        let graph = graph(&playbook(steps));
        let Body::Step(step) = &graph.nodes[0].body else {
            panic!("a step")
        };
        (**step).clone()
    };
    assert_eq!(undo(&execute("")).undo, Undo::Impossible);
    assert_eq!(undo(&query("a")).undo, Undo::None);
    let own = "    undo: { uses: sql.execute, with: { target: db, sql: \"DELETE WHERE id = :id\", params: { id: \"${{ output.value }}\", was: \"${{ capture.x }}\" } }, when: output.row_count > 0, timeout: 5s }\n    cleanup: always\n";
    let step = undo(&execute(own));
    let Undo::Steps(steps) = &step.undo else {
        panic!("steps")
    };
    assert!(steps[0].when.is_some() && steps[0].timeout.is_some());
    breaks(&execute("    undo: auto\n"), &["WL0607"]);
    breaks(&execute("    cleanup: always\n"), &["WL0607"]);
    breaks(&execute("    undo: [] \n"), &["WL0210"]);
    breaks(
        &execute("    undo: { uses: playbook, with: { path: x } }\n"),
        &["WL0607"],
    );
    breaks(&execute("    undo: never\n"), &["WL0205"]);
    breaks(&execute("    when: output.value > 1\n"), &["WL0502"]);
    let without =
        "  - id: a\n    uses: sql.execute\n    with: { target: db, sql: x, transaction: none }\n";
    breaks(without, &["WL0608"]);
    let step = undo(&format!(
        "{without}    probe: {{ sql: SELECT 1 AS done, done: \"row.done == 1 && row_count == 1\" }}\n"
    ));
    let probe = step.action.probe.expect("a probe");
    assert_eq!(probe.action.kind, "sql.query");
    assert_eq!(probe.action.targets, [["target"]]);
    let Template::Literal(with) = &probe.action.with else {
        panic!("literal")
    };
    assert_eq!(with.get("target"), Some(&"db".into()));
    breaks(
        &format!(
            "{without}    probe: {{ uses: sql.execute, with: {{ target: db, sql: x }}, done: \"true\" }}\n"
        ),
        &["WL0611"],
    );
    breaks(&format!("{without}    probe: {{ sql: x }}\n"), &["WL0202"]);
    // The same holds for the steps of an undo.
    let alone = "uses: sql.execute, with: { target: db, sql: x, transaction: none }";
    breaks(&execute(&format!("    undo: {{ {alone} }}\n")), &["WL0608"]);
    let step = undo(&execute(&format!(
        "    undo: {{ {alone}, probe: {{ sql: 'SELECT :n AS done', params: {{ n: '${{{{ output.rows_affected }}}}' }}, done: row.done == 1 }} }}\n"
    )));
    let Undo::Steps(steps) = step.undo else {
        panic!("steps")
    };
    assert!(steps[0].probe.is_some());
    breaks(&execute("    plan: read\n"), &["WL0208"]);
}

#[test]
fn defaults_are_merged_under_the_steps_own() {
    let text = "playbook: test\ntargets:\n  db: { kind: sqlite }\n  other: { kind: sqlite }\ndefaults:\n  sql.*: { timeout: 30s, retry: { attempts: 7 }, with: { target: db, lock_timeout: 2s, expect_rows: 1 } }\n  sql.execute: { timeout: 5s }\nsteps:\n  - id: a\n    uses: sql.query\n    with: { sql: x }\n  - id: b\n    uses: sql.execute\n    timeout: 1s\n    with: { sql: x, target: other }\n  - id: c\n    uses: sql.execute\n    with: { sql: x }\n";
    let graph = graph(text);
    let steps: Vec<_> = graph
        .nodes
        .iter()
        .map(|node| match &node.body {
            Body::Step(step) => &step.action,
            Body::Group { .. } | Body::Call(_) => panic!("a step"),
        })
        .collect();
    let with = |at: usize, key: &str| match &steps[at].with {
        Template::Literal(value) => value.get(key).cloned(),
        other @ (Template::Expr(_) | Template::Text(_) | Template::List(_) | Template::Map(_)) => {
            panic!("not literal: {other:?}")
        }
    };
    assert_eq!(with(0, "target"), Some("db".into()));
    assert_eq!(with(0, "expect_rows"), None, "the query does not know it");
    assert_eq!(with(1, "target"), Some("other".into()));
    assert_eq!(with(2, "expect_rows"), Some(Value::Int(1)));
    let timeouts: Vec<String> = steps
        .iter()
        .map(|s| s.timeout.map(|t| t.to_string()).unwrap_or_default())
        .collect();
    assert_eq!(timeouts, ["30s", "1s", "5s"]);
    assert!(
        steps
            .iter()
            .all(|s| s.retry.as_ref().is_some_and(|r| r.attempts == 7))
    );
    assert_eq!(
        codes_of(
            "playbook: a\ndefaults:\n  sqll.*: { timeout: 1s }\n  sql.*: { with: { tagret: db } }\n  verify: { with: { traget: x } }\nsteps:\n  - { id: a, uses: verify, with: { checks: [] } }\n"
        ),
        ["WL0610", "WL0610", "WL0610", "WL0602"]
    );
}

#[test]
fn targets() {
    let text =
        |targets: &str, steps: &str| format!("playbook: test\ntargets:\n{targets}steps:\n{steps}");
    let codes = |targets: &str, steps: &str| codes_of(&text(targets, steps));
    let none: [&str; 0] = [];
    let db = "  db: { kind: sqlite }\n";
    assert_eq!(codes("  db: { kind: sqltie }\n", &query("a")), ["WL0702"]);
    assert_eq!(codes("  db: { role: primary }\n", &query("a")), ["WL0202"]);
    assert_eq!(
        codes(&format!("{db}  other: {{ kind: sqlite }}\n"), &query("a")),
        ["WL0704"]
    );
    assert_eq!(
        codes(&format!("{db}  x: {{ like: dbb }}\n"), &query("a")),
        ["WL0704", "WL0701"]
    );
    assert_eq!(
        codes("  db: { like: two }\n  two: { like: db }\n", &query("a")),
        ["WL0703"]
    );
    assert_eq!(
        codes(
            "  db: { kind: sqlite, many: true, select: { env: prod } }\n",
            &query("a")
        ),
        ["WL0706"]
    );
    assert_eq!(
        codes(
            "  db: { kind: sqlite, select: { env: prod } }\n",
            &query("a")
        ),
        ["WL0208"]
    );
    let fleet = "  fleet: { kind: sqlite, many: true, select: { env: prod } }\n";
    let over = "  - id: a\n    foreach: { items: targets.fleet, as: one }\n    uses: sql.query\n    with: { target: \"${{ one }}\", sql: x }\n";
    assert_eq!(codes(fleet, over), none);
    // What a start does if it is down.
    for (target, expected) in [
        ("{ kind: sqlite, when_down: continue }", &[][..]),
        ("{ kind: sqlite, when_down: refuse }", &[]),
        ("{ kind: sqlite, when_down: ignore }", &["WL0205"]),
        ("{ kind: sqlite, when_down: true }", &["WL0205"]),
    ] {
        let db = format!("  db: {target}\n");
        assert_eq!(codes(&db, &query("a")), expected, "{target}");
    }
    let many = "  fleet: { kind: sqlite, many: true, select: { a: b }, when_down: continue }\n";
    assert_eq!(codes(many, over), none);
    let like = format!("{db}  two: {{ like: db, path: x, when_down: continue }}\n");
    assert_eq!(codes(&like, &query("a")), ["WL0704", "WL0208"]);
    let asks = "  - { id: a, when: targets.two.reachable, uses: verify, with: { checks: [] } }\n";
    let like = format!("{db}  two: {{ like: db, path: x }}\n");
    assert_eq!(codes(&like, &format!("{}{asks}", query("b"))), ["WL0508"]);
    // A derived target brings what it reads.
    let scratch = format!(
        "{db}  scratch: {{ like: db, path: \"${{{{ steps.a.output.value }}}}\", never: [db] }}\n"
    );
    let on_scratch = |needs: &str| {
        format!(
            "{}  - id: b\n    {needs}uses: sql.query\n    with: {{ target: scratch, sql: x }}\n",
            query("a")
        )
    };
    assert_eq!(codes(&scratch, &on_scratch("")), none);
    assert_eq!(codes(&scratch, &on_scratch("needs: []\n    ")), ["WL0505"]);
    let graph = graph(&text(&scratch, &on_scratch("")));
    assert!(
        matches!(&graph.targets["scratch"], TargetDecl::Derived { like, never, .. } if like == "db" && never == &["db"])
    );
}

#[test]
fn policy_and_inputs() {
    let codes = |head: &str| {
        codes_of(&format!(
            "playbook: a\n{head}\nsteps:\n  - {{ id: a, uses: verify, with: {{ checks: [] }} }}\n"
        ))
    };
    let none: [&str; 0] = [];
    assert_eq!(
        codes(
            "policy: { windows: [\"Mon-Fri 09:00-17:00 America/Sao_Paulo\"], locks: [x], max_duration: 4h, on_failure: pause }"
        ),
        none
    );
    for word in ["wait", "refuse"] {
        let windows = "windows: [\"* 09:00-17:00 Etc/UTC\"]";
        assert_eq!(
            codes(&format!("policy: {{ {windows}, outside_window: {word} }}")),
            none
        );
    }
    assert_eq!(codes("policy: { outside_window: wait }"), ["WL0205"]);
    assert_eq!(
        codes("policy: { windows: [\"* 09:00-17:00 Etc/UTC\"], outside_window: skip }"),
        ["WL0205"]
    );
    assert_eq!(
        codes(
            "policy: { windows: [\"Mon-Fri 9-17 UTC\"], max_duration: long, on_failure: ignore }"
        ),
        ["WL0209", "WL0206", "WL0205"]
    );
    assert_eq!(
        codes(
            "inputs: { a: { type: integer, default: 5, min: 1, max: 10 }, b: { type: list, of: duration, default: [5s] } }"
        ),
        none
    );
    assert_eq!(
        codes("inputs: { a: { type: integer, default: 50, max: 10 } }"),
        ["WL0905"]
    );
    assert_eq!(codes("inputs: { a: { type: integr } }"), ["WL0205"]);
    assert_eq!(codes("inputs: { a: { default: 1 } }"), ["WL0202"]);
    assert_eq!(
        codes("inputs: { a: { type: string, pattern: \"(\" } }"),
        ["WL0905"]
    );
    assert_eq!(
        codes("inputs: { a: { type: boolean, default: yes, min: 1 } }"),
        ["WL0905", "WL0905"]
    );
    assert_eq!(codes("owners: x"), ["WL0201"]);
    assert_eq!(codes_of("steps: []\n"), ["WL0202", "WL0210"]);
    assert_eq!(codes_of("- a\n"), ["WL0203"]);
}

#[test]
fn steps_by_their_sort() {
    breaks(
        "  - id: g\n    timeout: 5s\n    steps:\n      - id: a\n        uses: verify\n        with: { checks: [] }\n",
        &["WL0208"],
    );
    breaks("  - id: a\n", &["WL0202"]);
    breaks("  - uses: verify\n    with: { checks: [] }\n", &["WL0202"]);
    breaks(
        "  - id: a\n    uses: verify\n    with: { checks: [] }\n    on_failure: contniue\n    retry: { attempts: 0, backof: x }\n    timeout: 5\n",
        &["WL0205", "WL0207", "WL0201", "WL0206"],
    );
    let graph = graph(&playbook(
        "  - id: a\n    uses: verify\n    description: why\n    with: { checks: [] }\n    on_failure: continue\n    gate: inputs.max > 1\n    evidence: { mask: [secret], for: 400d }\n",
    ));
    let node = &graph.nodes[0];
    assert_eq!(node.on_failure, Some(OnFailure::Continue));
    let Body::Step(step) = &node.body else {
        panic!("a step")
    };
    assert!(
        step.gate.is_some() && !step.skippable && step.evidence.as_ref().is_some_and(|e| e.keep)
    );
}

/// A `retry` is judged by what its kind can fail with, not by the kind's name, and only where the step itself asks for it.
#[test]
fn a_retry_that_can_never_happen_is_warned_of() {
    let codes = |retry: &str, more: &str| -> Vec<&'static str> {
        let text = format!(
            "  - id: a\n    uses: verify\n    with: {{ checks: [] }}\n{retry}  - id: b\n    uses: sql.execute\n    with: {{ target: db, sql: x }}\n    retry: {{ attempts: 3 }}\n    undo: {{ uses: verify, with: {{ checks: [] }}{more} }}\n"
        );
        let compiled = compiled(&playbook(Box::leak(text.into_boxed_str())));
        assert!(compiled.graph.is_some(), "{}", rendered(&compiled));
        compiled.diagnostics.iter().map(|d| d.code).collect()
    };
    assert!(codes("", "").is_empty());
    let retry = "    retry: { attempts: 3 }\n";
    assert_eq!(codes(retry, ""), ["WL0612"]);
    assert_eq!(codes("", ", retry: { attempts: 2 }"), ["WL0612"]);
    assert!(codes("    retry: { attempts: 1 }\n", "").is_empty());
    assert!(codes("    retry: { attempts: 3, also: [timeout] }\n", "").is_empty());
    assert_eq!(
        codes("    retry: { attempts: 3, also: [permanent] }\n", ""),
        ["WL0612"]
    );
}

const CALLEE: &str = "playbook: callee\ninputs:\n  size: { type: integer, max: 10 }\n  account: { type: string, default: x }\ntargets:\n  main: { kind: sqlite }\n  copy: { like: main, path: \"${{ steps.make.output.value }}\" }\npolicy: { locks: [callee], on_failure: stop }\nsteps:\n  - id: make\n    uses: sql.query\n    with: { target: main, sql: x }\n  - id: look\n    uses: sql.query\n    with: { target: copy, sql: x }\noutputs:\n  made: ${{ steps.make.output.value }}\n";

fn call(with: &str, files: &[(&'static str, &'static str)], after: &str) -> Compiled {
    let text = format!(
        "playbook: caller\ntargets:\n  db: {{ kind: sqlite }}\n  pg: {{ kind: postgres }}\nsteps:\n  - id: first\n    uses: sql.query\n    with: {{ target: db, sql: x }}\n  - id: it\n    uses: playbook\n    with: {with}\n  - id: other\n    uses: sql.query\n    with: {{ target: pg, sql: x }}\n{after}"
    );
    let files = Memory(files.iter().copied().collect());
    let text: &'static str = Box::leak(text.into_boxed_str());
    compile("books/caller.yaml", text, &fakes::registry(), &files)
}

#[test]
fn calls() {
    let files = [("books/sub/callee.yaml", CALLEE)];
    let codes = |with: &str| -> Vec<&'static str> {
        call(with, &files, "")
            .diagnostics
            .iter()
            .map(|d| d.code)
            .collect()
    };
    let ok = "{ path: sub/callee.yaml, inputs: { size: 5, account: 014 }, targets: { main: db } }";
    let compiled = call(
        ok,
        &files,
        "outputs:\n  made: ${{ steps.it.output.made }}\n",
    );
    assert_eq!(rendered(&compiled), "");
    let graph = compiled.graph.expect("a graph");
    assert_eq!(graph.sources.len(), 2);
    assert_eq!(graph.policy.locks, ["callee"]);
    let Body::Call(call_def) = &graph.nodes[1].body else {
        panic!("a call")
    };
    assert_eq!(call_def.on_failure, OnFailure::Stop);
    assert_eq!(call_def.targets["main"], "db");
    assert_eq!(call_def.targets["copy"], "it/copy");
    assert!(matches!(&graph.targets["it/copy"], TargetDecl::Derived { like, .. } if like == "db"));
    assert_eq!(call_def.inputs["account"], Template::Literal("014".into()));
    assert_eq!(graph.nodes[2].parent, Some(NodeId(1)));
    assert_eq!(
        (graph.nodes[2].place.source, graph.nodes[2].place.line),
        (1, 10)
    );
    assert_eq!(graph.static_path(NodeId(3)), "it/look");
    assert_eq!(codes("{ path: nowhere.yaml }"), ["WL0801"]);
    assert_eq!(codes("{ inputs: {} }"), ["WL0603"]);
    assert_eq!(codes("{ path: \"${{ inputs.x }}\" }"), ["WL0512"]);
    assert_eq!(
        codes("{ path: sub/callee.yaml, inputs: { size: 11, szie: 1 }, targets: { main: db } }"),
        ["WL0803", "WL0803"]
    );
    assert_eq!(
        codes("{ path: sub/callee.yaml, targets: { main: db } }"),
        ["WL0803"]
    );
    assert_eq!(
        codes("{ path: sub/callee.yaml, inputs: { size: 5 } }"),
        ["WL0705"]
    );
    assert_eq!(
        codes("{ path: sub/callee.yaml, inputs: { size: 5 }, targets: { main: pg } }"),
        ["WL0705"]
    );
    assert_eq!(
        codes(
            "{ path: sub/callee.yaml, inputs: { size: many }, targets: { main: db, nothing: db } }"
        ),
        ["WL0604", "WL0705"]
    );
    let unknown = call(
        ok,
        &files,
        "outputs:\n  made: ${{ steps.it.output.nothing }}\n",
    );
    assert_eq!(unknown.diagnostics[0].code, "WL0508");
    // The callee's mistakes have their own file.
    let broken = [(
        "books/b.yaml",
        "playbook: b\nsteps:\n  - { id: a, uses: nothing }\n",
    )];
    let broken = call("{ path: b.yaml }", &broken, "");
    assert_eq!(broken.diagnostics.len(), 1);
    assert_eq!(
        broken.diagnostics[0]
            .span
            .as_ref()
            .map(|s| s.file.to_string())
            .as_deref(),
        Some("books/b.yaml")
    );
    assert!(rendered(&broken).contains("uses: nothing"));
}

#[test]
fn call_cycles_are_printed() {
    let back = [(
        "books/b.yaml",
        "playbook: b\nsteps:\n  - { id: a, uses: playbook, with: { path: ./caller.yaml } }\n",
    )];
    let compiled = call("{ path: b.yaml }", &back, "");
    let cycle = compiled
        .diagnostics
        .iter()
        .find(|d| d.code == "WL0802")
        .expect("a cycle");
    assert!(
        cycle
            .message
            .contains("books/caller.yaml → books/b.yaml → books/caller.yaml"),
        "{}",
        cycle.message
    );
}

#[test]
fn all_at_once() {
    let text = "playbook: Ten_Mistakes
owner: 014
inputs:
  size: { type: integer, default: 20, max: 10 }
targets:
  db: { kind: sqlite }
policy:
  windows: [Mon-Fri 9-17 UTC]
steps:
  - id: count
    uses: sql.query
    with:
      target: db
      sql: SELECT count(*) FROM orders WHERE region = '${{ inputs.region }}'
  - id: fill
    uses: sql.exceute
    when: steps.count.output.valu > 0
    with: { target: db, sql: UPDATE orders SET region = 1 }
  - id: check
    uses: verify
    needs: [fil]
    timeout: 30
    with:
      target: dbb
      checks:
        - name: nothing is left
          expect: steps.count.output.value == \"a #1\"
      strict: yes
  - id: check
    uses: verify
    when: !steps.count.output.value
    with: { checks: [] }
";
    let compiled = compiled(text);
    insta::assert_snapshot!(rendered(&compiled));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, ..Default::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "(?s).{0,200}") {
        let compiled = compiled(&text);
        proptest::prop_assert!(compiled.graph.is_some() || !compiled.diagnostics.is_empty());
    }

    #[test]
    fn mutated_playbooks_never_panic(at in 0usize..1200, len in 0usize..40, put in "[a-z :{}\\[\\]$!#'\"\n-]{0,12}") {
        let text = format!("{CALLEE}finally:\n  - id: tell\n    uses: verify\n    foreach: {{ items: [a, b], as: x }}\n    with: {{ checks: [{{ name: a, expect: value == 1 }}] }}\nlet:\n  a: inputs.size\n");
        let start = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let end = (start..=(start + len).min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(start);
        let mut mutated = text.clone();
        mutated.replace_range(start..end, &put);
        let compiled = compiled(&mutated);
        for diagnostic in &compiled.diagnostics {
            proptest::prop_assert!(!diagnostic.render(&mutated).is_empty());
        }
        proptest::prop_assert_eq!(compiled.graph.is_none(), compiled.diagnostics.iter().any(Diagnostic::is_error));
    }
}
