use super::{Expr, Template, Vars, helpers, reference_page};
use crate::value::{SecretText, Value};
use std::sync::Arc;

fn decimal(text: &str) -> Value {
    Value::Decimal(text.parse().expect("decimal"))
}

fn vars() -> Vars {
    let row = |n: i64, name: &str| Value::map([("n", Value::Int(n)), ("name", Value::from(name))]);
    let step = |state: &str, output: Value| {
        Value::map([("state", Value::from(state)), ("output", output)])
    };
    let steps = Value::map([
        (
            "fill",
            step(
                "succeeded",
                Value::map([
                    (
                        "rows",
                        Value::list(vec![row(1, "a"), row(2, "b"), row(3, "c")]),
                    ),
                    ("columns", Value::list(vec!["n".into(), "name".into()])),
                    ("truncated", Value::Bool(false)),
                    ("price", decimal("0.10")),
                    ("real", Value::Float(0.1)),
                    ("big", decimal("9007199254740993")),
                    ("null", Value::Null),
                ]),
            ),
        ),
        (
            "cut",
            step(
                "succeeded",
                Value::map([
                    ("rows", Value::list(vec![])),
                    ("columns", Value::list(vec![])),
                    ("truncated", Value::Bool(true)),
                    ("row_count", Value::Int(1_000)),
                ]),
            ),
        ),
        (
            "passed_over",
            Value::map([("state", Value::from("skipped"))]),
        ),
        ("backup-db", step("succeeded", Value::Int(7))),
    ]);
    Vars::new()
        .with(
            "inputs",
            Value::map([
                ("size", Value::Int(2000)),
                ("max_lag", Value::Duration("5s".parse().expect("duration"))),
                ("space", Value::Size("20GiB".parse().expect("size"))),
                ("region", Value::from("eu")),
                ("new", Value::Int(1)),
            ]),
        )
        .with("steps", steps)
        .with(
            "row",
            Value::map([
                ("Region", Value::from("eu")),
                ("new", Value::Int(4)),
                ("default", Value::Int(5)),
                ("A", Value::Int(1)),
                ("a", Value::Int(2)),
            ]),
        )
        .with(
            "at",
            Value::Timestamp("2026-01-02T00:00:00Z".parse().expect("timestamp")),
        )
        .with(
            "key",
            Value::Secret(Arc::new(SecretText::reference("slack"))),
        )
}

fn run(source: &str) -> Result<Value, super::ExprError> {
    Expr::parse(source)?.evaluate(&vars())
}

#[test]
fn evaluates() {
    for (source, expected) in [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 / 2", "3.5"),
        ("6 / 2", "3"),
        ("1 / 3", "0.33333333333333333333"),
        ("-7 % 3", "-1"),
        ("0.1 + 0.2 == 0.30000000000000004", "true"),
        ("steps.fill.output.price == 0.1", "true"),
        ("steps.fill.output.price * 3", "0.30"),
        ("steps.fill.output.real == steps.fill.output.price", "true"),
        ("steps.fill.output.big > 9007199254740992", "true"),
        ("steps.fill.output.big == 9007199254740993", "true"),
        ("9007199254740993 == 9007199254740992.0", "false"),
        ("12345678901234567890123 + 1", "12345678901234567890124"),
        ("1e3 == 1000", "true"),
        ("'it\\'s' + \" ok\"", "it's ok"),
        ("'a\"b'", "a\"b"),
        ("'a' + 'b'", "ab"),
        ("inputs.max_lag == 5s", "true"),
        ("inputs.max_lag * 2 + 1m", "1m10s"),
        ("1m / 1s", "60"),
        ("90s / 4", "22s500ms"),
        ("inputs.space - 10GiB", "10GiB"),
        ("inputs.space / 1GiB", "20"),
        ("at + 1d - at == 1d", "true"),
        ("at - timestamp('2026-01-01T00:00:00Z')", "1d"),
        ("at > timestamp('2026-01-01T00:00:00Z')", "true"),
        ("row.new + row.default", "9"),
        ("row.region", "eu"),
        ("row['new']", "4"),
        ("row.a + row.A", "3"),
        ("steps['backup-db'].output", "7"),
        ("steps.fill.output.rows[0].name", "a"),
        ("steps.fill.output.rows[-1].n", "3"),
        ("steps.fill.output.rows.len()", "3"),
        ("len(steps.fill.output.rows)", "3"),
        (
            "steps.fill.output.rows.filter(|r| r.n > 1).map(|r| r.name).join('+')",
            "b+c",
        ),
        (
            "filter(steps.fill.output.rows, |r| r.n < inputs.size).len()",
            "3",
        ),
        ("any(steps.fill.output.rows, |r| r.name == 'b')", "true"),
        (
            "all(steps.fill.output.rows, |r| any([1, 2], |x| x == r.n))",
            "false",
        ),
        ("sum(map(steps.fill.output.rows, |r| r.n))", "6"),
        ("steps.fill.output.null == ()", "true"),
        ("steps.fill.output.null != null", "false"),
        ("5 != ()", "true"),
        ("steps.passed_over?.output", "null"),
        ("steps.passed_over?.output.rows.len() == ()", "true"),
        ("steps.passed_over?.output.rows[0].n == ()", "true"),
        ("coalesce(steps.passed_over?.output, 0)", "0"),
        ("steps.passed_over?.output ?? 3", "3"),
        ("if inputs.size > 10 { 'big' } else { 'small' }", "big"),
        ("inputs.size > 10 && !(inputs.region == 'us')", "true"),
        ("false && 1 / 0 == 1", "false"),
        ("'eu' in ['eu', 'us']", "true"),
        ("3 !in [1, 2]", "true"),
        ("#{ a: 1, new: 2 }.new", "2"),
        ("'héllo €'.len()", "7"),
        ("matches('orders_2026', '^orders_\\\\d+$')", "true"),
        ("round(2.345, 2)", "2.35"),
        ("max(1, 2.5)", "2.5"),
        ("avg([1, 2, ()])", "1.5"),
        ("percentile([15, 20, 35, 40, 50], 30)", "20"),
        ("min([])", "null"),
        ("steps.cut.output.row_count", "1000"),
        ("[1, [2]] == [1, [2]]", "true"),
        ("1\n +\n 2", "3"),
    ] {
        match run(source) {
            Ok(value) => assert_eq!(value.to_string(), expected, "{source}"),
            Err(error) => panic!("{source}: {error:?}"),
        }
    }
}

#[test]
fn refuses_with_a_place() {
    for (source, offset, part) in [
        ("", 0, "missing"),
        ("1 +", 2, "not complete"),
        ("(1 + 2", 0, "never closed"),
        ("1)", 1, "closes nothing"),
        ("'abc", 0, "no closing quote"),
        ("'a\\d'", 2, "not an escape"),
        ("1 = 2", 2, "cannot stand"),
        ("let x = 1", 0, "cannot stand"),
        ("eval('1')", 0, "cannot stand"),
        ("lenght([1])", 0, "no function `lenght`"),
        ("5x", 0, "not a number"),
        ("row.", 3, "missing after the dot"),
        ("`a`", 0, "quotes"),
        ("1 // 2", 2, "comment"),
        ("__optional(row, 'a')", 0, "no function"),
        (
            "inputs.region == 5",
            14,
            "text \"eu\" == integer 5: unlike types",
        ),
        ("1 == true", 2, "unlike"),
        ("inputs.max_lag > 5", 15, "unlike types"),
        ("inputs.max_lag == '5s'", 15, "unlike types"),
        ("inputs.space > 5s", 13, "unlike types"),
        ("steps.fill.output.null > 5", 23, "NULL cannot be compared"),
        ("5 < ()", 2, "NULL cannot be compared"),
        ("steps.fill.output.null + 5", 23, "NULL cannot be computed"),
        ("true < false", 5, "no order"),
        ("inputs.siez", 7, "no member `siez`"),
        ("  inputs.size + inputs.siez", 23, "no member `siez`"),
        ("input.size", 0, "no name `input`"),
        ("steps.passed_over.output", 18, "no member `output`"),
        ("steps.fill.output.null.x", 23, "NULL has no member `x`"),
        ("steps.fill.output.rows[9]", 22, "no item 9"),
        ("steps.fill.output.rows.n", 23, "has no member `n`"),
        ("steps.cut.output.rows", 17, "cut at the limit"),
        ("steps.cut.output.rows.len()", 17, "cut at the limit"),
        ("row.rEGION == row.REgion && row.Q", 32, "no member `Q`"),
        ("9223372036854775807 + 1", 20, "beyond the largest integer"),
        ("1 / 0", 2, "divided by zero"),
        ("1 && true", 0, "boolean"),
        ("!1", 0, "needs a boolean"),
        ("if 1 { 2 } else { 3 }", 3, "boolean"),
        ("'a' + 1", 4, "no such operation"),
        ("key == 'x'", 4, "secret"),
        ("len(key)", 0, "secret"),
        ("json([key])", 0, "secret"),
        ("key + 'x'", 4, "secret"),
        ("sha256(secret('slack'))", 0, "secret"),
        ("[key] == ['x']", 6, "secret"),
        ("coalesce(1, 2, 3, 4, 5, 6)", 0, "does not take these"),
        ("filter([1], |x| x)", 0, "boolean from the function"),
        ("map([1], |x| x.y)", 15, "no such member"),
        ("inputs.size.y", 12, "no such member"),
        ("inputs.region.y", 14, "no such member"),
        ("matches('a', '(')", 0, "no regular expression"),
        ("int('1.5')", 0, "no whole number"),
        ("number('x')", 0, "no number"),
        ("|x| x", 0, "not a value"),
    ] {
        match run(source) {
            Ok(value) => panic!("{source} gave {value}"),
            Err(error) => {
                assert!(error.message.contains(part), "{source}: {error:?}");
                assert_eq!(error.offset, Some(offset), "{source}: {error:?}");
            }
        }
    }
    let near = run("inputs.siez").expect_err("misspelt");
    assert_eq!(near.help.as_deref(), Some("did you mean `size`?"));
    let near = run("lenn([1])").expect_err("misspelt");
    assert_eq!(near.help.as_deref(), Some("did you mean `len`?"));
}

#[test]
fn evaluation_is_bounded() {
    let list: Vec<Value> = (0..2_000).map(Value::Int).collect();
    let vars = Vars::new().with("xs", Value::list(list));
    let heavy =
        Expr::parse("all(xs, |x| all(xs, |y| all(xs, |z| x + y + z >= 0)))").expect("parses");
    let error = heavy.evaluate(&vars).expect_err("too many operations");
    assert!(error.message.contains("more steps"), "{error:?}");
    let quadratic = Expr::parse("all(xs, |x| sum(xs) > 0)").expect("parses");
    let error = quadratic.evaluate(&vars).expect_err("too many items");
    assert!(error.message.contains("more steps"), "{error:?}");
    let deep = format!("{}1{}", "(".repeat(2_000), ")".repeat(2_000));
    assert!(Expr::parse(&deep).is_err());
    assert!(Expr::parse(&"1 + ".repeat(10_000)).is_err());
    assert!(run("number('1e999999999') + 1").is_err());
}

#[test]
fn finds_references() {
    let read = |source: &str| -> Vec<String> {
        Expr::parse(source)
            .unwrap_or_else(|error| panic!("{source}: {error:?}"))
            .references()
            .iter()
            .map(|r| {
                format!(
                    "{}{}{}@{}",
                    std::iter::once(r.root.as_str())
                        .chain(r.path.iter().map(String::as_str))
                        .collect::<Vec<_>>()
                        .join("."),
                    if r.dynamic { "[]" } else { "" },
                    if r.guarded { "?" } else { "" },
                    r.offset
                )
            })
            .collect()
    };
    for (source, expected) in [
        ("1 + 2", &[][..]),
        ("inputs.size", &["inputs.size@0"]),
        ("steps.fill.output.rows", &["steps.fill.output.rows@0"]),
        ("steps['backup-db'].output", &["steps.backup-db.output@0"]),
        ("steps.a.output.rows[0].n", &["steps.a.output.rows.0.n@0"]),
        (
            "steps.a.output[inputs.k].n",
            &["steps.a.output[]@0", "inputs.k@15"],
        ),
        (
            "steps.a.output.rows.len() > x",
            &["steps.a.output.rows@0", "x@28"],
        ),
        (
            "filter(steps.a.output.rows, |r| r.n > inputs.n)",
            &["steps.a.output.rows@7", "inputs.n@38"],
        ),
        ("xs.map(|x, i| x + i + y)", &["xs@0", "y@22"]),
        ("[x, #{ k: y }, 'z']", &["x@1", "y@10"]),
        ("coalesce(steps.a?.output, 0)", &["steps.a.output?@9"]),
        ("steps?.a.output", &["steps.a.output@0"]),
        ("steps.a.output?.n", &["steps.a.output.n?@0"]),
        (
            "steps.a.state == 'succeeded' && steps.a.output.n > 1",
            &["steps.a.state@0", "steps.a.output.n?@32"],
        ),
        (
            "'succeeded' == steps.a.state && steps.a.output",
            &["steps.a.state@15", "steps.a.output?@32"],
        ),
        (
            "steps.a.state != 'skipped' && steps.a.output.n > 1",
            &["steps.a.state@0", "steps.a.output.n?@30"],
        ),
        (
            "steps.a.state == 'skipped' && steps.a.output",
            &["steps.a.state@0", "steps.a.output@30"],
        ),
        (
            "steps.a.state == 'skipped' || steps.a.output",
            &["steps.a.state@0", "steps.a.output?@30"],
        ),
        (
            "steps.a.state == 'succeeded' || steps.a.output",
            &["steps.a.state@0", "steps.a.output@32"],
        ),
        (
            "steps.a.state == 'succeeded' && steps.b.output",
            &["steps.a.state@0", "steps.b.output@32"],
        ),
        (
            "(steps.a.state == 'succeeded' && x) || steps.a.output",
            &["steps.a.state@1", "x@33", "steps.a.output@39"],
        ),
        (
            "(steps.a.state == 'succeeded') && (x || steps.a.output)",
            &["steps.a.state@1", "x@35", "steps.a.output?@40"],
        ),
        (
            "!(steps.a.state == 'succeeded') && steps.a.output",
            &["steps.a.state@2", "steps.a.output@35"],
        ),
        (
            "if steps.a.state == 'succeeded' { steps.a.output } else { steps.a.output }",
            &["steps.a.state@3", "steps.a.output?@34", "steps.a.output@58"],
        ),
        (
            "if steps.a.state != 'succeeded' { 0 } else { steps.a.output }",
            &["steps.a.state@3", "steps.a.output?@45"],
        ),
        (
            "if x { 1 } else if y { 2 } else { z }",
            &["x@3", "y@19", "z@34"],
        ),
        (
            "1 + if steps.a.state == 'succeeded' { steps.a.output } else { 0 }",
            &["steps.a.state@7", "steps.a.output?@38"],
        ),
    ] {
        assert_eq!(read(source), expected, "{source}");
    }
}

#[test]
fn templates() {
    let parse = |text: &str| Template::parse_scalar(text);
    let evaluate = |text: &str| parse(text).and_then(|t| t.evaluate(&vars()));
    assert_eq!(evaluate("plain"), Ok(Value::from("plain")));
    assert_eq!(evaluate("${{ inputs.size }}"), Ok(Value::Int(2000)));
    assert_eq!(
        evaluate("${{inputs.max_lag}}").map(|v| v.type_name()),
        Ok("duration")
    );
    assert_eq!(
        evaluate("a ${{ inputs.size }}-${{ inputs.region }}."),
        Ok("a 2000-eu.".into())
    );
    assert_eq!(evaluate("${{ 1 }}${{ 2 }}"), Ok("12".into()));
    assert_eq!(
        evaluate("${{ #{ a: #{ b: '}}' } }.a.b }}!"),
        Ok("}}!".into())
    );
    assert_eq!(evaluate("${{ \"}}\\\"}}\" }}"), Ok("}}\"}}".into()));
    let whole = evaluate("${{ secret('slack') }}").expect("secret");
    assert!(matches!(whole, Value::Secret(_)));
    let Ok(Value::Secret(inside)) =
        evaluate("Bearer ${{ secret('slack') }} for ${{ inputs.region }}")
    else {
        panic!("a text with a secret inside is a secret");
    };
    assert_eq!(inside.to_string(), "Bearer secret(slack) for eu");
    assert_eq!(inside.names().collect::<Vec<_>>(), ["slack"]);
    let error = evaluate("n: ${{ steps.fill.output.null }}").expect_err("NULL inside text");
    assert!(error.message.contains("NULL"), "{error:?}");
    let error = parse("abc ${{ 1 + }} def").expect_err("incomplete");
    assert_eq!(error.offset, Some(10), "{error:?}");
    let error = parse("abc ${{ nope(1) }}").expect_err("unknown");
    assert_eq!(error.offset, Some(8), "{error:?}");
    assert_eq!(parse("abc ${{ 1").expect_err("open").offset, Some(4));
    let nested = Template::Map(
        [(
            "a".to_owned(),
            Template::List(vec![parse("${{ 1 + 1 }}").expect("parses")]),
        )]
        .into_iter()
        .collect(),
    );
    assert_eq!(
        nested.evaluate(&Vars::new()),
        Ok(Value::map([("a", Value::list(vec![Value::Int(2)]))]))
    );
}

#[test]
fn every_function_is_documented_and_its_example_holds() {
    let page = reference_page();
    for helper in helpers::ALL {
        let (example, gives) = helper.example;
        assert!(
            page.contains(&helper.usage.replace('|', "\\|")),
            "{}",
            helper.name
        );
        assert!(!helper.about.is_empty());
        assert!(
            example.contains(helper.name) || example.contains(" in "),
            "{}",
            helper.name
        );
        let got = run(example).unwrap_or_else(|error| panic!("{example}: {error:?}"));
        let wanted = run(gives).unwrap_or_else(|error| panic!("{gives}: {error:?}"));
        assert_eq!(got.to_string(), wanted.to_string(), "{example}");
        assert_eq!(
            run(&format!("({example}) == ({gives})")),
            Ok(Value::Bool(true)),
            "{example}"
        );
    }
}

#[test]
fn a_large_value_is_shared_and_not_copied() {
    let rows: Vec<Value> = (0..20_000)
        .map(|i| Value::map([("n", Value::Int(i)), ("text", Value::from("x".repeat(50)))]))
        .collect();
    let rows = Arc::new(rows);
    let output = Value::map([("rows", Value::List(Arc::clone(&rows)))]);
    let Value::Map(output) = output else {
        panic!("a map")
    };
    let vars = Vars::new().with("output", Value::Map(Arc::clone(&output)));
    let whole = Expr::parse("output.rows").expect("parses");
    let part =
        Expr::parse("output.rows[19999].n > 5 && output.rows.len() == 20000").expect("parses");
    for _ in 0..10_000 {
        let Ok(Value::List(got)) = whole.evaluate(&vars) else {
            panic!("a list")
        };
        assert!(Arc::ptr_eq(&got, &rows), "the list was copied");
        assert_eq!(part.evaluate(&vars), Ok(Value::Bool(true)));
    }
    // Nothing keeps what an evaluation saw.
    assert_eq!(Arc::strong_count(&rows), 2);
    assert_eq!(Arc::strong_count(&output), 2);
    assert!(Arc::ptr_eq(
        &rows,
        match vars.get("output").and_then(|o| o.get("rows")) {
            Some(Value::List(rows)) => rows,
            _ => panic!("a list"),
        }
    ));
}

#[test]
fn is_kept_as_its_source() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    let expr = Expr::parse("inputs.size > 5s").expect("parses");
    shared(&expr);
    let json = serde_json::to_string(&expr).expect("writes");
    assert_eq!(json, "\"inputs.size > 5s\"");
    let back: Expr = serde_json::from_str(&json).expect("reads");
    assert_eq!(back, expr);
    assert_eq!(back.references(), expr.references());
    let tampered: Expr = serde_json::from_str("\"1 +\"").expect("reads");
    assert!(tampered.evaluate(&Vars::new()).is_err());
}

mod properties {
    //! The oracle evaluates its own tree with 128-bit rationals; only the text is shared with the code.
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Num {
        Int(i32),
        /// Hundredths, written as a decimal of the database.
        Cents(i32),
        Add(Box<Num>, Box<Num>),
        Sub(Box<Num>, Box<Num>),
        Mul(Box<Num>, Box<Num>),
        Neg(Box<Num>),
        If(Box<Truth>, Box<Num>, Box<Num>),
    }

    #[derive(Debug, Clone)]
    enum Truth {
        Is(bool),
        Compare(&'static str, Box<Num>, Box<Num>),
        And(Box<Truth>, Box<Truth>),
        Or(Box<Truth>, Box<Truth>),
        Not(Box<Truth>),
    }

    /// A number as hundredths to the power of `scale`.
    #[derive(Clone, Copy)]
    struct Exact {
        value: i128,
        scale: u32,
    }

    impl Exact {
        fn aligned(self, other: Self) -> Option<(i128, i128, u32)> {
            let scale = self.scale.max(other.scale);
            let up = |x: Self| x.value.checked_mul(100_i128.checked_pow(scale - x.scale)?);
            Some((up(self)?, up(other)?, scale))
        }
    }

    impl Num {
        fn source(&self) -> String {
            match self {
                Num::Int(i) if *i < 0 => format!("({i})"),
                Num::Int(i) => i.to_string(),
                Num::Cents(c) => format!(
                    "number('{}{}.{:02}')",
                    if *c < 0 { "-" } else { "" },
                    c.unsigned_abs() / 100,
                    c.unsigned_abs() % 100
                ),
                Num::Add(a, b) => format!("({} + {})", a.source(), b.source()),
                Num::Sub(a, b) => format!("({} - {})", a.source(), b.source()),
                Num::Mul(a, b) => format!("({} * {})", a.source(), b.source()),
                Num::Neg(a) => format!("(-{})", a.source()),
                Num::If(c, a, b) => format!(
                    "if {} {{ {} }} else {{ {} }}",
                    c.source(),
                    a.source(),
                    b.source()
                ),
            }
        }
        fn value(&self) -> Option<Exact> {
            let joined = |a: &Num, b: &Num, f: fn(i128, i128) -> Option<i128>| {
                let (a, b, scale) = a.value()?.aligned(b.value()?)?;
                Some(Exact {
                    value: f(a, b)?,
                    scale,
                })
            };
            match self {
                Num::Int(i) => Some(Exact {
                    value: i128::from(*i),
                    scale: 0,
                }),
                Num::Cents(c) => Some(Exact {
                    value: i128::from(*c),
                    scale: 1,
                }),
                Num::Add(a, b) => joined(a, b, i128::checked_add),
                Num::Sub(a, b) => joined(a, b, i128::checked_sub),
                Num::Mul(a, b) => {
                    let (a, b) = (a.value()?, b.value()?);
                    Some(Exact {
                        value: a.value.checked_mul(b.value)?,
                        scale: a.scale + b.scale,
                    })
                }
                Num::Neg(a) => a.value().map(|a| Exact {
                    value: -a.value,
                    ..a
                }),
                Num::If(c, a, b) => {
                    if c.value()? {
                        a.value()
                    } else {
                        b.value()
                    }
                }
            }
        }
        /// Whether an integer operation inside leaves 64 bits: there the code must refuse.
        fn integral(&self) -> bool {
            match self {
                Num::Int(_) => true,
                Num::Cents(_) => false,
                Num::Add(a, b) | Num::Sub(a, b) | Num::Mul(a, b) => a.integral() && b.integral(),
                Num::Neg(a) => a.integral(),
                Num::If(c, a, b) => match c.value() {
                    Some(true) => a.integral(),
                    _ => b.integral(),
                },
            }
        }
        fn overflows(&self) -> bool {
            let own =
                self.integral() && self.value().is_none_or(|v| i64::try_from(v.value).is_err());
            own || match self {
                Num::Int(_) | Num::Cents(_) => false,
                Num::Add(a, b) | Num::Sub(a, b) | Num::Mul(a, b) => a.overflows() || b.overflows(),
                Num::Neg(a) => a.overflows(),
                Num::If(c, a, b) => {
                    c.overflows()
                        || match c.value() {
                            Some(true) => a.overflows(),
                            _ => b.overflows(),
                        }
                }
            }
        }
    }

    impl Truth {
        fn source(&self) -> String {
            match self {
                Truth::Is(b) => b.to_string(),
                Truth::Compare(op, a, b) => format!("({} {op} {})", a.source(), b.source()),
                Truth::And(a, b) => format!("({} && {})", a.source(), b.source()),
                Truth::Or(a, b) => format!("({} || {})", a.source(), b.source()),
                Truth::Not(a) => format!("(!{})", a.source()),
            }
        }
        fn value(&self) -> Option<bool> {
            match self {
                Truth::Is(b) => Some(*b),
                Truth::Compare(op, a, b) => {
                    let (a, b, _) = a.value()?.aligned(b.value()?)?;
                    Some(match *op {
                        "==" => a == b,
                        "!=" => a != b,
                        "<" => a < b,
                        "<=" => a <= b,
                        ">" => a > b,
                        _ => a >= b,
                    })
                }
                Truth::And(a, b) => Some(a.value()? && b.value()?),
                Truth::Or(a, b) => Some(a.value()? || b.value()?),
                Truth::Not(a) => Some(!a.value()?),
            }
        }
        fn overflows(&self) -> bool {
            match self {
                Truth::Is(_) => false,
                Truth::Compare(_, a, b) => a.overflows() || b.overflows(),
                Truth::And(a, b) => a.overflows() || (a.value() != Some(false) && b.overflows()),
                Truth::Or(a, b) => a.overflows() || (a.value() != Some(true) && b.overflows()),
                Truth::Not(a) => a.overflows(),
            }
        }
    }

    fn number() -> impl Strategy<Value = Num> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(Num::Int),
            (-20..20).prop_map(Num::Int),
            (-100_000..100_000).prop_map(Num::Cents),
        ];
        leaf.prop_recursive(4, 12, 3, |inner| {
            let two = || {
                (
                    inner.clone().prop_map(Box::new),
                    inner.clone().prop_map(Box::new),
                )
            };
            prop_oneof![
                two().prop_map(|(a, b)| Num::Add(a, b)),
                two().prop_map(|(a, b)| Num::Sub(a, b)),
                two().prop_map(|(a, b)| Num::Mul(a, b)),
                inner.clone().prop_map(|a| Num::Neg(Box::new(a))),
                (two(), two()).prop_map(|((a, b), (c, d))| Num::If(
                    Box::new(Truth::Compare("<", a, b)),
                    c,
                    d
                )),
            ]
        })
    }

    fn truth() -> impl Strategy<Value = Truth> {
        let op = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
        let leaf = prop_oneof![
            1 => any::<bool>().prop_map(Truth::Is),
            4 => (op, number(), number()).prop_map(|(op, a, b)| Truth::Compare(op, Box::new(a), Box::new(b))),
        ];
        leaf.prop_recursive(3, 8, 2, |inner| {
            let two = || {
                (
                    inner.clone().prop_map(Box::new),
                    inner.clone().prop_map(Box::new),
                )
            };
            prop_oneof![
                two().prop_map(|(a, b)| Truth::And(a, b)),
                two().prop_map(|(a, b)| Truth::Or(a, b)),
                inner.clone().prop_map(|a| Truth::Not(Box::new(a))),
            ]
        })
    }

    proptest! {
        #[test]
        fn conditions_agree_with_an_exact_oracle(truth in truth()) {
            prop_assume!(truth.value().is_some());
            let source = truth.source();
            prop_assume!(source.len() < 8_000);
            let got = Expr::parse(&source).and_then(|e| e.evaluate(&Vars::new()));
            if truth.overflows() {
                prop_assert!(got.is_err(), "{} gave {:?}", source, got);
            } else {
                prop_assert_eq!(got, Ok(Value::Bool(truth.value().expect("assumed"))), "{}", source);
            }
        }

        #[test]
        fn anything_is_read_or_refused(source in "\\PC{0,60}") {
            if let Ok(expr) = Expr::parse(&source) {
                let result = expr.evaluate(&vars());
                if let Err(error) = result && let Some(offset) = error.offset {
                    prop_assert!(offset <= source.len());
                }
            }
            let scalar = Template::parse_scalar(&source);
            if let Err(error) = scalar && let Some(offset) = error.offset {
                prop_assert!(offset <= source.len());
            }
        }

        #[test]
        fn any_tokens_are_read_or_refused(parts in prop::collection::vec(prop::sample::select(vec![
            "steps", ".", "?.", "fill", "output", "rows", "[", "]", "(", ")", "{", "}", "#{", "|", "||", "&&", "==", "<",
            "1", "5s", "'a'", "if", "else", "in", "!", "-", "+", "*", "/", ",", ":", "len", "filter", "x", "null", "?[", "??", "true",
        ]), 0..24)) {
            let source = parts.join(" ");
            if let Ok(expr) = Expr::parse(&source) {
                prop_assert!(expr.references().iter().all(|r| source.get(r.offset..).is_some_and(|s| s.starts_with(&r.root))));
                drop(expr.evaluate(&vars()));
            }
        }

        #[test]
        fn text_in_either_quote_is_that_text(text in "\\PC{0,30}") {
            for quote in ['"', '\''] {
                let mut source = String::from(quote);
                for c in text.chars() {
                    if c == quote || c == '\\' {
                        source.push('\\');
                    }
                    source.push(c);
                }
                source.push(quote);
                prop_assert_eq!(Expr::parse(&source).and_then(|e| e.evaluate(&Vars::new())), Ok(Value::from(text.as_str())));
            }
        }
    }
}

#[test]
fn a_target_is_a_text_or_a_list_and_says_whether_it_is_reachable() {
    let fleet = || Value::list(vec![Value::from("fleet[0]"), Value::from("fleet[1]")]);
    let vars = Vars::new()
        .with(
            "targets",
            Value::map([("db", Value::from("db")), ("fleet", fleet())]),
        )
        .with(
            super::REACHABLE,
            Value::map([
                ("db", Value::Bool(false)),
                ("fleet", Value::list(vec![Value::from("fleet[1]")])),
            ]),
        );
    for (source, expected) in [
        ("targets.db", Value::from("db")),
        ("targets.db.reachable", Value::Bool(false)),
        (
            "!targets.db.reachable && targets.db == 'db'",
            Value::Bool(true),
        ),
        ("targets.fleet", fleet()),
        (
            "targets.fleet.reachable",
            Value::list(vec![Value::from("fleet[1]")]),
        ),
        ("len(targets.fleet.reachable)", Value::Int(1)),
        ("'fleet[0]' in targets.fleet.reachable", Value::Bool(false)),
        (
            "filter(targets.fleet, |t| t in targets.fleet.reachable)",
            Value::list(vec![Value::from("fleet[1]")]),
        ),
    ] {
        let expr = Expr::parse(source).unwrap();
        assert_eq!(expr.evaluate(&vars), Ok(expected), "{source}");
        assert_eq!(
            expr.references().first().map(|reference| &*reference.root),
            Some("targets")
        );
    }
    let error = Expr::parse("targets.db.reachble")
        .unwrap()
        .evaluate(&vars)
        .unwrap_err();
    assert!(!error.message.contains("__"), "{error}");
}
