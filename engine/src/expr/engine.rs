//! The one rhai engine: nothing is registered but operators, member access and helpers.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of rhai's many errors few can happen here, and few types of values matter in each place"
)]
use super::{
    ExprError, Reference, Vars, helpers,
    lex::Token,
    nearest,
    ops::{self, Trouble, shown},
    rewrite::{self, MEMBER, OPTIONAL, Rewritten},
};
use crate::value::{Map, Value};
use rhai::{
    AST, Dynamic, Engine, EvalAltResult, FnPtr, ImmutableString, NativeCallContext,
    OptimizationLevel, ParseErrorType, Position, Scope,
};
use std::{
    cell::Cell,
    sync::{Arc, LazyLock},
};

/// Steps of evaluation; a closure over a thousand rows takes some ten thousand.
const MAX_OPERATIONS: u64 = 200_000;
const MAX_DEPTH: usize = 48;
const MAX_CALLS: usize = 12;
const MAX_STRING: usize = 16 << 20;
/// Texts longer than this are shared, not copied into rhai.
const SHORT_TEXT: usize = 256;

/// What one evaluation may cost: items that functions and operators walk, ten for each call of a closure.
/// rhai counts the operations of each closure call for itself, so they are counted here.
const BUDGET: u64 = 1_000_000;
const CLOSURE_CALL: usize = 10;

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// Takes from the budget of the evaluation that runs on this thread.
pub(super) fn charge(items: usize) -> Result<(), Trouble> {
    LEFT.with(|left| match left.get().checked_sub(items as u64) {
        Some(rest) => {
            left.set(rest);
            Ok(())
        }
        None => {
            left.set(0);
            Err(
                Trouble::new("the expression takes more steps than one expression may")
                    .help("let the query do the work, or use a script step"),
            )
        }
    })
}

fn walked(value: &Value) -> usize {
    match value {
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        Value::Text(text) => text.len() / 64,
        _ => 0,
    }
}

type Caught<T> = Result<T, Box<EvalAltResult>>;

/// An expression, ready to be evaluated.
pub(super) struct Compiled {
    ast: AST,
    rewritten: Rewritten,
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let mut engine = Engine::new_raw();
    engine
        .set_fast_operators(false)
        .set_optimization_level(OptimizationLevel::None)
        .set_max_operations(MAX_OPERATIONS)
        .set_max_expr_depths(MAX_DEPTH, MAX_DEPTH)
        .set_max_call_levels(MAX_CALLS)
        .set_max_string_size(MAX_STRING)
        .set_fail_on_invalid_map_property(true)
        .set_strict_variables(false)
        .register_type_with_name::<Value>("value");
    for op in ["==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%"] {
        engine.register_fn(op, move |a: Dynamic, b: Dynamic| -> Caught<Dynamic> {
            let (a, b) = (take(a)?, take(b)?);
            charge(walked(&a).saturating_add(walked(&b))).map_err(caught)?;
            give(ops::binary(op, &a, &b))
        });
    }
    for op in ["!", "-", "+"] {
        engine.register_fn(op, move |a: Dynamic| -> Caught<Dynamic> {
            give(ops::unary(op, &take(a)?))
        });
    }
    engine.register_indexer_get(|of: &mut Value, key: ImmutableString| -> Caught<Dynamic> {
        give(ops::member(of, &Value::text(key.as_str()), false))
    });
    engine.register_indexer_get(|of: &mut Value, key: i64| -> Caught<Dynamic> {
        give(ops::member(of, &Value::Int(key), false))
    });
    engine.register_indexer_get(|_: &mut (), key: Dynamic| -> Caught<Dynamic> {
        give(ops::member(&Value::Null, &take(key)?, false))
    });
    for (name, optional) in [(OPTIONAL, true), (MEMBER, false)] {
        engine.register_fn(
            name,
            move |of: Dynamic, key: ImmutableString| -> Caught<Dynamic> {
                give(ops::member(
                    &take(of)?,
                    &Value::text(key.as_str()),
                    optional,
                ))
            },
        );
    }
    for helper in helpers::ALL {
        register(&mut engine, helper);
    }
    engine
});

fn register(engine: &mut Engine, helper: &'static helpers::Helper) {
    match helper.call {
        helpers::Call::Each(call) => {
            engine.register_fn(
                helper.name,
                move |context: NativeCallContext, list: Dynamic, f: FnPtr| -> Caught<Dynamic> {
                    let mut failed = None;
                    let result = call(&take(list)?, &mut |item| {
                        charge(CLOSURE_CALL)?;
                        match f.call_within_context::<Dynamic>(&context, (to_dynamic(item),)) {
                            Ok(value) => from_dynamic(value),
                            Err(error) => {
                                failed = Some(error);
                                Err(Trouble::new("the function failed"))
                            }
                        }
                    });
                    match failed {
                        Some(error) => Err(error),
                        None => give(result),
                    }
                },
            );
        }
        helpers::Call::Plain(call) => {
            let name = helper.name;
            for count in helper.arguments.clone() {
                match count {
                    1 => engine.register_fn(name, move |a: Dynamic| plain(helper, call, [a])),
                    2 => engine.register_fn(name, move |a: Dynamic, b: Dynamic| {
                        plain(helper, call, [a, b])
                    }),
                    3 => engine.register_fn(name, move |a: Dynamic, b: Dynamic, c: Dynamic| {
                        plain(helper, call, [a, b, c])
                    }),
                    4 => engine.register_fn(
                        name,
                        move |a: Dynamic, b: Dynamic, c: Dynamic, d: Dynamic| {
                            plain(helper, call, [a, b, c, d])
                        },
                    ),
                    _ => engine.register_fn(
                        name,
                        move |a: Dynamic, b: Dynamic, c: Dynamic, d: Dynamic, e: Dynamic| {
                            plain(helper, call, [a, b, c, d, e])
                        },
                    ),
                };
            }
        }
    }
}

fn plain<const N: usize>(
    helper: &helpers::Helper,
    call: helpers::Plain,
    args: [Dynamic; N],
) -> Caught<Dynamic> {
    let mut values = Vec::with_capacity(N);
    for arg in args {
        values.push(take(arg)?);
    }
    if values.iter().any(|value| matches!(value, Value::Secret(_))) {
        return give(Err(Trouble::secret()));
    }
    if !matches!(helper.name, "len" | "first" | "last" | "coalesce") {
        charge(values.iter().map(walked).sum()).map_err(caught)?;
    }
    give(call(&values))
}

fn take(value: Dynamic) -> Caught<Value> {
    from_dynamic(value).map_err(caught)
}

fn give(result: Result<Value, Trouble>) -> Caught<Dynamic> {
    result.map(|value| to_dynamic(&value)).map_err(caught)
}

fn caught(trouble: Trouble) -> Box<EvalAltResult> {
    EvalAltResult::ErrorRuntime(Dynamic::from(trouble), Position::NONE).into()
}

/// Scalars as rhai has them, all else shared.
fn to_dynamic(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(b) => Dynamic::from(*b),
        Value::Int(i) => Dynamic::from(*i),
        Value::Float(x) => Dynamic::from(*x),
        Value::Text(text) if text.len() <= SHORT_TEXT => Dynamic::from(text.to_string()),
        Value::Text(_)
        | Value::Decimal(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Secret(_) => Dynamic::from(value.clone()),
    }
}

fn from_dynamic(value: Dynamic) -> Result<Value, Trouble> {
    let value = value.flatten();
    if value.is_unit() {
        Ok(Value::Null)
    } else if let Ok(b) = value.as_bool() {
        Ok(Value::Bool(b))
    } else if let Ok(i) = value.as_int() {
        Ok(Value::Int(i))
    } else if let Ok(x) = value.as_float() {
        Ok(Value::Float(x))
    } else if value.is_string() {
        Ok(Value::text(value.into_string().unwrap_or_default()))
    } else if let Ok(c) = value.as_char() {
        Ok(Value::text(c.to_string()))
    } else if value.is::<Value>() {
        Ok(value.cast())
    } else if value.is_array() {
        let items = value.into_array().unwrap_or_default();
        Ok(Value::list(
            items
                .into_iter()
                .map(from_dynamic)
                .collect::<Result<_, _>>()?,
        ))
    } else if value.is_map() {
        let mut map = Map::new();
        for (key, value) in value.cast::<rhai::Map>() {
            map.insert(key.as_str().into(), from_dynamic(value)?);
        }
        Ok(Value::Map(Arc::new(map)))
    } else {
        Err(Trouble::new("a function is not a value")
            .help("a closure `|x| …` is allowed only in filter, map, any and all"))
    }
}

pub(super) fn compile(tokens: &[Token<'_>]) -> Result<Compiled, ExprError> {
    let rewritten = rewrite::rewrite(tokens)?;
    match ENGINE.compile_expression(&rewritten.text) {
        Ok(ast) => Ok(Compiled { ast, rewritten }),
        Err(error) => {
            let offset = error
                .position()
                .position()
                .map(|column| rewritten.offset(column));
            Err(parse_error(&error, offset, tokens))
        }
    }
}

fn parse_error(error: &rhai::ParseError, offset: Option<usize>, tokens: &[Token<'_>]) -> ExprError {
    let (message, help) = match &*error.0 {
        ParseErrorType::Reserved(word) => (
            format!("`{word}` is a reserved word"),
            Some(format!(
                "as a member it is read after a dot or as [\"{word}\"]; as a name choose another"
            )),
        ),
        ParseErrorType::UnexpectedEOF | ParseErrorType::ExprExpected(_) => {
            ("the expression is not complete".to_owned(), None)
        }
        ParseErrorType::ExprTooDeep => (
            "the expression is nested too deeply".to_owned(),
            Some("name its parts under `let:`".to_owned()),
        ),
        ParseErrorType::MissingToken(token, _) => (
            format!("`{}` is missing here", token.trim_matches('\'')),
            None,
        ),
        ParseErrorType::BadInput(_) => ("this cannot stand here".to_owned(), None),
        other => (first_lower(&other.to_string()), None),
    };
    ExprError {
        message,
        offset: offset.or_else(|| tokens.last().map(|token| token.start)),
        help,
    }
}

fn first_lower(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

pub(super) fn evaluate(
    compiled: &Compiled,
    references: &[Reference],
    vars: &Vars,
) -> Result<Value, ExprError> {
    let mut scope = Scope::new();
    for (i, reference) in references.iter().enumerate() {
        if references[..i]
            .iter()
            .any(|earlier| earlier.root == reference.root)
        {
            continue;
        }
        let Some(value) = vars.get(&reference.root) else {
            let near = nearest(&reference.root, vars.iter().map(|(name, _)| &**name));
            return Err(ExprError::at(
                reference.offset,
                format!("there is no name `{}` here", reference.root),
            )
            .maybe_help(near.map(|near| format!("did you mean `{near}`?"))));
        };
        scope.push_dynamic(reference.root.as_str(), to_dynamic(value));
    }
    if let Some(value) = vars.get(rewrite::REACHABLE) {
        scope.push_dynamic(rewrite::REACHABLE, to_dynamic(value));
    }
    LEFT.with(|left| left.set(BUDGET));
    ENGINE
        .eval_ast_with_scope::<Dynamic>(&mut scope, &compiled.ast)
        .and_then(take)
        .map_err(|error| failed(*error, &compiled.rewritten, references))
}

fn failed(error: EvalAltResult, rewritten: &Rewritten, references: &[Reference]) -> ExprError {
    let mut error = error;
    let mut outer = Position::NONE;
    loop {
        match error {
            EvalAltResult::ErrorInFunctionCall(_, _, inner, position) => {
                outer = position;
                error = *inner;
            }
            other => {
                error = other;
                break;
            }
        }
    }
    let position = error.position();
    let offset = position
        .position()
        .or_else(|| outer.position())
        .map(|column| rewritten.offset(column))
        .or_else(|| references.first().map(|reference| reference.offset))
        .or(Some(0));
    let (message, help) = explain(error);
    ExprError {
        message,
        offset,
        help,
    }
}

fn explain(error: EvalAltResult) -> (String, Option<String>) {
    match error {
        EvalAltResult::ErrorRuntime(value, _) => match value.try_cast::<Trouble>() {
            Some(trouble) => (trouble.message, trouble.help),
            None => ("the expression failed".to_owned(), None),
        },
        EvalAltResult::ErrorTooManyOperations(_) => (
            format!("the expression takes more than {MAX_OPERATIONS} steps"),
            Some("let the query do the work, or use a script step".to_owned()),
        ),
        EvalAltResult::ErrorStackOverflow(_) => {
            ("the expression calls itself too deeply".to_owned(), None)
        }
        EvalAltResult::ErrorMismatchDataType(wanted, _, _) if wanted != "bool" => no_member(),
        EvalAltResult::ErrorMismatchDataType(wanted, got, _) => (
            format!(
                "a {} is needed here, not {}",
                plain_type(&wanted),
                plain_type(&got)
            ),
            Some("`&&`, `||`, `!` and `if` take booleans only; compare explicitly".to_owned()),
        ),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => no_function(&signature),
        EvalAltResult::ErrorPropertyNotFound(name, _) => {
            (format!("there is no member `{name}`"), None)
        }
        EvalAltResult::ErrorArrayBounds(len, index, _) => (
            format!("there is no item {index} in a list of {len} items"),
            None,
        ),
        EvalAltResult::ErrorIndexingType(..) => no_member(),
        EvalAltResult::ErrorVariableNotFound(name, _) => {
            (format!("there is no name `{name}` here"), None)
        }
        EvalAltResult::ErrorDataTooLarge(what, _) => {
            (format!("{} is too large", first_lower(&what)), None)
        }
        other => (first_lower(&plain_types(&other)), None),
    }
}

fn no_member() -> (String, Option<String>) {
    (
        "this value has no such member".to_owned(),
        Some("it is a text, a number or a boolean, not a map or a list".to_owned()),
    )
}

fn plain_types(error: &EvalAltResult) -> String {
    let text = error.to_string();
    match text.rfind(" (line ") {
        Some(at) => text.get(..at).unwrap_or_default().to_owned(),
        None => text,
    }
}

fn plain_type(name: &str) -> &str {
    match name {
        "()" => "NULL",
        "bool" => "boolean",
        "i64" => "integer",
        "f64" => "number",
        "string" | "char" | "&str | ImmutableString | String" => "text",
        "array" => "list",
        "value" => "value of another type",
        other => other,
    }
}

/// `len (i64, i64)`: a helper that was given what it does not take.
fn no_function(signature: &str) -> (String, Option<String>) {
    let name = signature.split([' ', '(']).next().unwrap_or_default();
    if let Some(helper) = helpers::find(name) {
        return (
            format!("`{name}` does not take these arguments"),
            Some(format!("it is used as {}", helper.usage)),
        );
    }
    if signature.contains('[') || name.starts_with("index$") {
        return no_member();
    }
    let types: Vec<&str> = signature
        .split_once('(')
        .map(|(_, args)| {
            args.trim_end_matches(')')
                .split(", ")
                .map(plain_type)
                .collect()
        })
        .unwrap_or_default();
    (
        format!("`{name}` is no operation of {}", types.join(" and ")),
        None,
    )
}

/// Where a template puts a value into text.
pub(super) fn inside_text(value: &Value) -> Result<String, Trouble> {
    match value {
        Value::Null => Err(
            Trouble::new("the value is NULL, and this text has no word for it")
                .help("give one: coalesce(x, \"none\")"),
        ),
        Value::Bytes(_) => Err(Trouble::new(format!(
            "{} cannot stand in text",
            shown(value)
        ))),
        other => Ok(other.to_string()),
    }
}
