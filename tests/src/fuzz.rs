//! What any text must bear: `source`, `expr`, `playbook` and `fmt` never panic, and what they say points into it.
//!
//! The functions serve the bounded run of the tests (`tests/fuzz.rs`) and the endless one of `fuzz/`.
use windlass_engine::{
    compile::{Files, compile, mended},
    diagnostic::Diagnostic,
    environment::EnvironmentFile,
    expr::{Expr, Template, Vars},
    source::{LayoutError, laid_out, parse},
    value::Value,
};

/// No other file is there.
struct Alone;

impl Files for Alone {
    fn read(&self, path: &str) -> std::io::Result<String> {
        Err(std::io::Error::new(std::io::ErrorKind::NotFound, path))
    }
}

/// A place lies within the text, between characters, and can be shown.
fn check(diagnostics: &[Diagnostic], text: &str) {
    for diagnostic in diagnostics {
        if let Some(span) = &diagnostic.span {
            let end = span.start + span.len;
            assert!(
                text.get(span.start..end).is_some(),
                "{}: {}..{end} of {}",
                diagnostic.code,
                span.start,
                text.len()
            );
            assert!(span.line > 0 && span.column > 0, "{diagnostic:?}");
        }
        if let Some(mend) = &diagnostic.mend {
            assert!(text.get(mend.bytes.clone()).is_some(), "{diagnostic:?}");
        }
        assert!(diagnostic.render(text).contains(diagnostic.code));
        assert!(
            windlass_engine::diagnostic::codes::find(diagnostic.code).is_some(),
            "{} has no page",
            diagnostic.code
        );
    }
}

/// YAML to a tree.
///
/// # Panics
/// Where a diagnostic points out of the text.
pub fn source(text: &str) {
    let parsed = parse("fuzz.yaml", text);
    check(&parsed.diagnostics, parsed.file.text());
    assert!(parsed.root.is_some() || !parsed.diagnostics.is_empty());
}

/// A layout says the same, and laid out again it stays.
///
/// # Panics
/// Where it does not.
pub fn layout(text: &str) {
    match laid_out(text) {
        Ok(laid) => assert_eq!(laid_out(&laid).as_deref(), Ok(&*laid), "from {text:?}"),
        Err(error) => assert_eq!(error, LayoutError::Mistakes, "{text:?}"),
    }
}

/// A whole playbook, compiled and mended.
///
/// # Panics
/// Where a diagnostic points out of the text, or no graph comes without an error.
pub fn playbook(text: &str) {
    let registry = windlass_steps::registry();
    let compiled = compile("fuzz.yaml", text, &registry, &Alone);
    check(&compiled.diagnostics, text);
    let wrong = compiled.diagnostics.iter().any(Diagnostic::is_error);
    assert_eq!(compiled.graph.is_none(), wrong, "from {text:?}");
}

/// What `windlass fmt` does to a playbook: it ends, mends nothing twice, and comes to rest at once.
///
/// # Panics
/// Where it does not.
pub fn fmt(text: &str) {
    let registry = windlass_steps::registry();
    let (after, told) = mended("fuzz.yaml", text, &registry);
    check(
        &compile("fuzz.yaml", &after, &registry, &Alone).diagnostics,
        &after,
    );
    assert_eq!(told.is_empty(), after == text, "from {text:?}");
    let again = mended("fuzz.yaml", &after, &registry);
    assert!(again == (after.clone(), Vec::new()), "from {text:?}");
    layout(&after);
    if let Ok(laid) = laid_out(&after) {
        let again = mended("fuzz.yaml", &laid, &registry);
        assert!(again == (laid, Vec::new()), "from {text:?}");
    }
}

/// An environment file.
///
/// # Panics
/// Where a diagnostic points out of the text.
pub fn environment(text: &str) {
    if let Err(diagnostics) = EnvironmentFile::parse("fuzz.yaml", text) {
        assert!(!diagnostics.is_empty(), "from {text:?}");
        check(&diagnostics, text);
    }
}

/// An expression, parsed and evaluated within its limits.
///
/// # Panics
/// Where an error points out of the text.
pub fn expression(text: &str) {
    let vars = Vars::new()
        .with(
            "inputs",
            Value::map([("n", Value::Int(3)), ("s", Value::from("x y"))]),
        )
        .with("value", Value::Int(i64::MAX))
        .with("rows", Value::list(vec![Value::Null, Value::Bool(true)]));
    for parsed in [
        Expr::parse(text).map(|expr| expr.evaluate(&vars)),
        Template::parse_scalar(text).map(|template| template.evaluate(&vars)),
    ] {
        match parsed {
            Ok(Ok(_)) => {}
            Err(error) | Ok(Err(error)) => {
                assert!(!error.message.is_empty());
                if let Some(at) = error.offset {
                    assert!(text.get(at..).is_some(), "{at} in {text:?}");
                }
            }
        }
    }
}
