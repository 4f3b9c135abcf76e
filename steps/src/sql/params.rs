//! Parameters in SQL: values go by `:name`, identifiers by `:"name"`, quoted literals by `:'name'`.
use super::{
    lex::{Dialect, Kind, LexError, Token, tokens},
    shape::{Shape, shape, split},
};
use indexmap::{IndexMap, IndexSet};
use windlass_engine::{
    step::{Failure, ParamError, StepHost},
    value::Value,
};

/// Values by name, as `params` holds them.
pub(crate) type Params = IndexMap<String, Value>;

/// One statement with its places for parameters.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pieces: Vec<Piece>,
    /// What it does.
    pub(crate) shape: Shape,
    /// Its first line, to name it by.
    pub(crate) first_line: String,
    placeholder: char,
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Value { name: String, in_list: bool },
    Identifier(String),
    Literal(String),
}

/// A statement ready for a driver.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// With `?1`, `?2`, … for values; PostgreSQL has `$1`, `$2`, ….
    pub(crate) sql: String,
    /// The values, in that order.
    pub(crate) values: Vec<Value>,
    /// For people: with the values in it, secrets by their names.
    pub(crate) shown: String,
    /// What it does.
    pub(crate) shape: Shape,
    placeholder: char,
    /// Where each place stands in the SQL, and its number.
    places: Vec<(std::ops::Range<usize>, usize)>,
}

/// Cuts SQL into statements and finds their parameters.
pub(crate) fn parse(sql: &str, dialect: Dialect) -> Result<Vec<Statement>, LexError> {
    let all = tokens(sql, dialect)?;
    Ok(split(&all)
        .into_iter()
        .map(|range| Statement::of(all.get(range).unwrap_or_default(), dialect.placeholder))
        .collect())
}

impl Statement {
    fn of(tokens: &[Token<'_>], placeholder: char) -> Self {
        let blank = |token: &Token<'_>| token.kind == Kind::Blank;
        let from = tokens.iter().position(|t| !blank(t)).unwrap_or(0);
        let to = tokens
            .iter()
            .rposition(|t| !blank(t))
            .map_or(0, |at| at + 1);
        let tokens = tokens.get(from..to).unwrap_or_default();
        let mut pieces: Vec<Piece> = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            let name = token.name().to_owned();
            let piece = match token.kind {
                Kind::Value => Piece::Value {
                    name,
                    in_list: in_list(tokens, at),
                },
                Kind::Identifier => Piece::Identifier(name),
                Kind::QuotedValue => Piece::Literal(name),
                Kind::Blank
                | Kind::Word
                | Kind::Literal
                | Kind::Quoted
                | Kind::Semicolon
                | Kind::Open
                | Kind::Close
                | Kind::Other => {
                    if let Some(Piece::Text(text)) = pieces.last_mut() {
                        text.push_str(token.text);
                        continue;
                    }
                    Piece::Text(token.text.to_owned())
                }
            };
            pieces.push(piece);
        }
        let text: String = tokens.iter().map(|token| token.text).collect();
        let line = text.lines().next().unwrap_or_default().trim();
        let mut first_line: String = line.chars().take(80).collect();
        if first_line.len() < line.len() {
            first_line.push('…');
        }
        Self {
            pieces,
            shape: shape(tokens),
            first_line,
            placeholder,
        }
    }

    /// The parameters that it names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Value { name, .. } | Piece::Identifier(name) | Piece::Literal(name) => {
                Some(name.as_str())
            }
        })
    }

    /// Puts the parameters in their places.
    pub(crate) fn bind(&self, params: &Params) -> Result<Bound, Failure> {
        let mut bound = Bound {
            sql: String::new(),
            values: Vec::new(),
            shown: String::new(),
            shape: self.shape.clone(),
            placeholder: self.placeholder,
            places: Vec::new(),
        };
        let mut places: IndexMap<&str, usize> = IndexMap::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => bound.text(text),
                Piece::Identifier(name) => {
                    let quoted = identifier(name, given(params, name)?)?;
                    bound.text(&quoted);
                }
                Piece::Literal(name) => {
                    let quoted = literal(name, given(params, name)?)?;
                    bound.text(&quoted);
                }
                Piece::Value { name, in_list } => {
                    let value = given(params, name)?;
                    let items = value.as_list();
                    let alone = *in_list || !self.has_lists();
                    if items.is_some_and(<[Value]>::is_empty) && alone {
                        return Err(Failure::new(
                            "sql.empty_list",
                            format!("the list :{name} is empty, and IN () is no SQL"),
                        )
                        .help("skip the step when the list is empty: `when: len(…) > 0`"));
                    }
                    if let Some(items) = items.filter(|_| *in_list) {
                        for (at, item) in items.iter().enumerate() {
                            if at > 0 {
                                bound.text(", ");
                            }
                            scalar(name, item)?;
                            let place = bound.push(item.clone());
                            bound.place(place, item);
                        }
                    } else {
                        self.bindable(name, value)?;
                        let place = match places.get(name.as_str()) {
                            Some(place) => *place,
                            None => {
                                let place = bound.push(value.clone());
                                places.insert(name, place);
                                place
                            }
                        };
                        bound.place(place, value);
                    }
                }
            }
        }
        Ok(bound)
    }

    /// PostgreSQL has arrays and JSON; only it knows which of them a place takes.
    fn has_lists(&self) -> bool {
        self.placeholder == Dialect::POSTGRES.placeholder
    }

    fn bindable(&self, name: &str, value: &Value) -> Result<(), Failure> {
        match value {
            Value::List(_) | Value::Map(_) if self.has_lists() => Ok(()),
            _ => scalar(name, value),
        }
    }
}

impl Bound {
    /// A statement of our own, without values.
    pub(crate) fn plain(verb: &str, sql: String) -> Self {
        Self {
            shown: sql.clone(),
            sql,
            values: Vec::new(),
            shape: Shape {
                verb: verb.to_owned(),
                ..Shape::default()
            },
            placeholder: '?',
            places: Vec::new(),
        }
    }

    /// The SQL with its places written otherwise.
    pub(crate) fn with_places(&self, written: impl Fn(usize) -> String) -> String {
        let (mut out, mut at) = (String::new(), 0);
        for (range, place) in &self.places {
            out.push_str(self.sql.get(at..range.start).unwrap_or_default());
            out.push_str(&written(*place));
            at = range.end;
        }
        out.push_str(self.sql.get(at..).unwrap_or_default());
        out
    }

    fn text(&mut self, text: &str) {
        self.sql.push_str(text);
        self.shown.push_str(text);
    }

    fn push(&mut self, value: Value) -> usize {
        self.values.push(value);
        self.values.len()
    }

    fn place(&mut self, place: usize, value: &Value) {
        let start = self.sql.len();
        self.sql.push_str(&format!("{}{place}", self.placeholder));
        self.places.push((start..self.sql.len(), place));
        self.shown.push_str(&shown(value));
    }

    /// The names of the secrets among its values.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let names: IndexSet<&str> = self
            .values
            .iter()
            .filter_map(|value| {
                if let Value::Secret(secret) = value {
                    Some(secret.names())
                } else {
                    None
                }
            })
            .flatten()
            .collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// The values with the content of secrets: only for the driver, at the moment of use.
    pub(crate) async fn reveal(mut self, host: &dyn StepHost) -> Result<Self, Failure> {
        for value in &mut self.values {
            if let Value::Secret(secret) = value {
                let content = host.reveal(secret).await?;
                *value = Value::text(content.expose());
            }
        }
        Ok(self)
    }
}

fn in_list(tokens: &[Token<'_>], at: usize) -> bool {
    let solid = |token: &&Token<'_>| token.kind != Kind::Blank;
    let mut before = tokens
        .get(..at)
        .unwrap_or_default()
        .iter()
        .rev()
        .filter(solid);
    let after = tokens.get(at + 1..).unwrap_or_default().iter().find(solid);
    before.next().is_some_and(|token| token.kind == Kind::Open)
        && before
            .next()
            .is_some_and(|token| token.kind == Kind::Word && token.text.eq_ignore_ascii_case("in"))
        && after.is_some_and(|token| token.kind == Kind::Close)
}

fn given<'a>(params: &'a Params, name: &str) -> Result<&'a Value, Failure> {
    params.get(name).ok_or_else(|| {
        Failure::new(
            "sql.parameter_missing",
            format!("the SQL names :{name}, which params does not have"),
        )
    })
}

fn scalar(name: &str, value: &Value) -> Result<(), Failure> {
    match value {
        Value::List(_) => Err(Failure::new(
            "sql.parameter_type",
            format!("the list :{name} can stand only in IN (:{name}), and holds no lists itself"),
        )),
        Value::Map(_) => Err(Failure::new(
            "sql.parameter_type",
            format!("the map :{name} cannot be bound to SQL"),
        )
        .help("bind its members one by one, or as text with json(…)")),
        Value::Float(x) if x.is_nan() => Err(Failure::new(
            "sql.parameter_type",
            format!(":{name} is not a number (NaN), which databases store as NULL or refuse"),
        )),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Secret(_) => Ok(()),
    }
}

fn plain_text<'a>(name: &str, what: &str, value: &'a Value) -> Result<&'a str, Failure> {
    if let Value::Secret(_) = value {
        return Err(Failure::new(
            "sql.secret_in_text",
            format!("the secret :{name} cannot stand as {what}, since the text of a statement is shown and logged"),
        )
        .help(format!("bind it as a value, :{name}")));
    }
    let text = value.as_str().filter(|text| !text.contains('\0'));
    text.ok_or_else(|| {
        Failure::new(
            "sql.parameter_type",
            format!(
                "{what} :{name} must be text without NUL, not a {}",
                value.type_name()
            ),
        )
    })
}

fn identifier(name: &str, value: &Value) -> Result<String, Failure> {
    let text = plain_text(name, "the identifier", value)?;
    if text.is_empty() {
        return Err(Failure::new(
            "sql.parameter_type",
            format!("the identifier :\"{name}\" is empty"),
        ));
    }
    Ok(quote(text))
}

/// An identifier in double quotes.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn literal(name: &str, value: &Value) -> Result<String, Failure> {
    if let Value::Int(i) = value {
        return Ok(format!("'{i}'"));
    }
    let text = plain_text(name, "the literal", value)?;
    Ok(format!("'{}'", text.replace('\'', "''")))
}

/// A value as SQL would write it, for people.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(_) | Value::Int(_) | Value::Decimal(_) | Value::Float(_) => value.to_string(),
        Value::Secret(secret) => secret.to_string(),
        Value::Bytes(bytes) if bytes.len() <= 32 => format!("X'{}'", hex::encode(bytes)),
        Value::Bytes(bytes) => format!("<{} bytes>", bytes.len()),
        Value::Text(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::List(_)
        | Value::Map(_) => format!("'{}'", value.to_string().replace('\'', "''")),
    }
}

/// What can be told about SQL and its parameters before anything runs.
pub(crate) fn check(
    path: &str,
    sql: &str,
    params: &Params,
    errors: &mut Vec<ParamError>,
) -> Vec<Statement> {
    let within = |name: &str| match path.rsplit_once('.') {
        Some((before, _)) => format!("{before}.{name}"),
        None => name.to_owned(),
    };
    let statements = match parse(sql, Dialect::COMMON) {
        Ok(statements) => statements,
        Err(error) => {
            errors.push(ParamError::new(path, error.to_string()));
            return Vec::new();
        }
    };
    if statements.is_empty() {
        errors.push(ParamError::new(path, "there is no statement in the SQL"));
        return statements;
    }
    for statement in &statements {
        errors.extend(super::guards::out_of_place(path, &statement.shape));
    }
    let named: IndexSet<&str> = statements.iter().flat_map(Statement::names).collect();
    for name in &named {
        if !params.contains_key(*name) {
            errors.push(
                ParamError::new(
                    path,
                    format!("the SQL names :{name}, which params does not have"),
                )
                .help(format!("add `params: {{ {name}: … }}`")),
            );
        }
    }
    for name in params.keys() {
        if !named.contains(name.as_str()) {
            errors.push(
                ParamError::new(
                    within(&format!("params.{name}")),
                    format!("the SQL does not name :{name}"),
                )
                .help("a parameter inside quotes or a comment is only text"),
            );
        }
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use windlass_engine::value::SecretText;

    fn bind(sql: &str, params: &[(&str, Value)]) -> Result<Bound, Failure> {
        let params = params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        parse(sql, Dialect::SQLITE).expect("parses")[0].bind(&params)
    }

    #[test]
    fn values_identifiers_and_literals_go_to_their_places() {
        let bound = bind(
            "SELECT :\"c\" FROM t WHERE a = :a AND b IN (:l) AND a2 = :a AND d = :'d'",
            &[
                ("c", Value::from("we\"ird")),
                ("a", Value::from("x' OR 1=1 --")),
                ("l", Value::list(vec![Value::Int(1), Value::Null])),
                ("d", Value::from("it's")),
            ],
        )
        .expect("binds");
        assert_eq!(
            bound.sql,
            "SELECT \"we\"\"ird\" FROM t WHERE a = ?1 AND b IN (?2, ?3) AND a2 = ?1 AND d = 'it''s'"
        );
        assert_eq!(bound.values.len(), 3);
        assert!(
            bound.shown.contains("a = 'x'' OR 1=1 --'"),
            "{}",
            bound.shown
        );
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        let secret = Value::Secret(Arc::new(SecretText::reference("pw")));
        let list = Value::list(vec![Value::Int(1)]);
        for (sql, value, code) in [
            ("SELECT :v", list.clone(), "sql.parameter_type"),
            ("SELECT 1 IN (:v)", Value::list(vec![]), "sql.empty_list"),
            (
                "SELECT 1 IN (:v)",
                Value::list(vec![list]),
                "sql.parameter_type",
            ),
            (
                "SELECT :v",
                Value::map([("a", Value::Null)]),
                "sql.parameter_type",
            ),
            ("SELECT :v", Value::Float(f64::NAN), "sql.parameter_type"),
            ("SELECT :'v'", secret.clone(), "sql.secret_in_text"),
            ("SELECT :\"v\"", secret, "sql.secret_in_text"),
            ("SELECT :\"v\"", Value::from("a\0b"), "sql.parameter_type"),
            ("SELECT :\"v\"", Value::from(""), "sql.parameter_type"),
            ("SELECT :\"v\"", Value::Int(1), "sql.parameter_type"),
        ] {
            let failure = bind(sql, &[("v", value)]).expect_err(sql);
            assert_eq!(failure.code, code, "{sql}: {failure}");
        }
        assert_eq!(
            bind("SELECT :w", &[]).expect_err("missing").code,
            "sql.parameter_missing"
        );
    }

    #[test]
    fn missing_and_unused_parameters_are_told_before_anything_runs() {
        let mut errors = Vec::new();
        let params = Params::from([("unused".to_owned(), Value::Null)]);
        check(
            "checks[1].sql",
            "SELECT :missing, ':unused'",
            &params,
            &mut errors,
        );
        let told: Vec<(&str, bool)> = errors
            .iter()
            .map(|error| (error.path.as_str(), error.message.contains(":missing")))
            .collect();
        assert_eq!(
            told,
            [("checks[1].sql", true), ("checks[1].params.unused", false)]
        );
        let mut errors = Vec::new();
        check(
            "sql",
            "BEGIN; DELETE FROM t WHERE 1",
            &Params::new(),
            &mut errors,
        );
        assert!(errors[0].message.contains("BEGIN"), "{errors:?}");
    }

    #[test]
    fn a_secret_is_shown_by_its_name() {
        let secret = Value::Secret(Arc::new(SecretText::reference("pw")));
        let bound = bind("SELECT :v", &[("v", secret)]).expect("binds");
        assert_eq!(bound.shown, "SELECT secret(pw)");
        assert_eq!(bound.secrets(), ["pw"]);
    }
}
