//! Named parameters in SQL, found without reading inside strings, comments and dollar quotes.
//!
//! `:name` is a value, bound by the driver; a list binds as many as it holds. `:"name"` is an identifier and
//! `:'name'` a quoted literal, for statements that take no bound value. `::` and `:=` are left alone.
use indexmap::{IndexMap, IndexSet};
use windlass_engine::{step::ParamError, value::Value};

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// `:name`
    Value(String),
    /// `:"name"`
    Identifier(String),
    /// `:'name'`
    Literal(String),
}

/// One statement, cut at its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statement {
    /// The pieces.
    pub pieces: Vec<Piece>,
}

/// A statement ready for the driver.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// With `?` for each value.
    pub sql: String,
    /// The values, in order.
    pub values: Vec<Value>,
}

impl Statement {
    /// The names that it takes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Value(name) | Piece::Identifier(name) | Piece::Literal(name) => {
                Some(name.as_str())
            }
        })
    }

    /// The text without comments and literals' content, for guards and for people.
    #[must_use]
    pub fn text(&self) -> String {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Value(name) => format!(":{name}"),
                Piece::Identifier(name) => format!(":\"{name}\""),
                Piece::Literal(name) => format!(":'{name}'"),
            })
            .collect()
    }

    /// Puts parameters in.
    ///
    /// # Errors
    /// Where one is missing, or cannot stand where it is named.
    pub fn bind(&self, params: &IndexMap<String, Value>) -> Result<Bound, String> {
        let mut sql = String::new();
        let mut values = Vec::new();
        for piece in &self.pieces {
            let get = |name: &str| {
                params
                    .get(name)
                    .ok_or_else(|| format!("parameter :{name} is not given"))
            };
            match piece {
                Piece::Text(text) => sql.push_str(text),
                Piece::Value(name) => match get(name)? {
                    Value::List(items) if items.is_empty() => {
                        return Err(format!(
                            "parameter :{name} is an empty list, which no IN () can hold"
                        ));
                    }
                    Value::List(items) => {
                        sql.push_str(&vec!["?"; items.len()].join(", "));
                        values.extend(items.iter().cloned());
                    }
                    value => {
                        sql.push('?');
                        values.push(value.clone());
                    }
                },
                Piece::Identifier(name) => {
                    let value = get(name)?;
                    let text = value
                        .as_str()
                        .ok_or_else(|| format!("identifier :\"{name}\" must be text"))?;
                    if text.is_empty() || text.contains('\0') {
                        return Err(format!(
                            "identifier :\"{name}\" is empty or holds a zero byte"
                        ));
                    }
                    sql.push_str(&format!("\"{}\"", text.replace('"', "\"\"")));
                }
                Piece::Literal(name) => match get(name)? {
                    Value::Secret(_) => {
                        return Err(format!("a secret cannot be the literal :'{name}'"));
                    }
                    Value::List(_) | Value::Map(_) | Value::Bytes(_) => {
                        return Err(format!("literal :'{name}' must be a scalar"));
                    }
                    Value::Null => sql.push_str("NULL"),
                    scalar => {
                        let text = scalar.to_string();
                        if text.contains('\0') {
                            return Err(format!("literal :'{name}' holds a zero byte"));
                        }
                        sql.push_str(&format!("'{}'", text.replace('\'', "''")));
                    }
                },
            }
        }
        Ok(Bound { sql, values })
    }
}

/// Cuts a script at its semicolons, and each statement at its parameters. A trigger ends at its `END;`.
#[must_use]
pub fn parse(script: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut pieces = Vec::new();
    let mut text = String::new();
    let chars: Vec<char> = script.chars().collect();
    let at = |i: usize| chars.get(i).copied();
    let mut words: Vec<String> = Vec::new();
    let mut i = 0;
    let name_from = |from: usize| {
        let len = chars
            .iter()
            .skip(from)
            .take_while(|c| c.is_ascii_alphanumeric() || **c == '_')
            .count();
        let starts = at(from).is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        (starts && len > 0).then(|| chars.iter().skip(from).take(len).collect::<String>())
    };
    // The end of a quoted stretch, the doubled quote taken as one.
    let quoted = |from: usize, close: char| {
        let mut j = from + 1;
        while let Some(c) = at(j) {
            if c == close {
                if at(j + 1) != Some(close) || close == ']' {
                    return j + 1;
                }
                j += 1;
            }
            j += 1;
        }
        chars.len()
    };
    while let Some(c) = at(i) {
        let end = match c {
            '\'' | '"' | '`' => quoted(i, c),
            '[' => quoted(i, ']'),
            '-' if at(i + 1) == Some('-') => chars
                .iter()
                .skip(i)
                .position(|c| *c == '\n')
                .map_or(chars.len(), |n| i + n),
            '/' if at(i + 1) == Some('*') => {
                let mut j = i + 2;
                while j < chars.len() && !(at(j) == Some('*') && at(j + 1) == Some('/')) {
                    j += 1;
                }
                (j + 2).min(chars.len())
            }
            '$' => dollar_end(&chars, i).unwrap_or(i + 1),
            _ => i,
        };
        if end > i {
            let comment = matches!(c, '-' | '/');
            if comment {
                text.push(' ');
            } else {
                text.extend(chars.iter().skip(i).take(end - i));
            }
            i = end;
            continue;
        }
        if c == ':' {
            if matches!(at(i + 1), Some(':' | '=')) {
                text.push(c);
                text.extend(at(i + 1));
                i += 2;
                continue;
            }
            let quote = at(i + 1).filter(|c| matches!(c, '"' | '\''));
            let from = if quote.is_some() { i + 2 } else { i + 1 };
            if let Some(name) = name_from(from) {
                let next = from + name.chars().count();
                let closed = quote.is_none() || at(next) == quote;
                if closed {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                    pieces.push(match quote {
                        None => Piece::Value(name),
                        Some('"') => Piece::Identifier(name),
                        Some(_) => Piece::Literal(name),
                    });
                    i = next + usize::from(quote.is_some());
                    continue;
                }
            }
        }
        if let Some(word) = name_from(i) {
            i += word.chars().count();
            text.push_str(&word);
            words.push(word.to_ascii_uppercase());
            continue;
        }
        let is = |n: usize, word: &str| words.get(n).is_some_and(|w| w == word);
        let in_trigger = is(0, "CREATE")
            && (is(1, "TRIGGER") || is(2, "TRIGGER"))
            && words.last().is_none_or(|w| w != "END");
        if c == ';' && !in_trigger {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            push_statement(&mut statements, std::mem::take(&mut pieces));
            words.clear();
            i += 1;
            continue;
        }
        text.push(c);
        i += 1;
    }
    pieces.push(Piece::Text(text));
    push_statement(&mut statements, pieces);
    statements
}

fn push_statement(statements: &mut Vec<Statement>, mut pieces: Vec<Piece>) {
    pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
    let blank = pieces
        .iter()
        .all(|piece| matches!(piece, Piece::Text(text) if text.trim().is_empty()));
    if !blank {
        statements.push(Statement { pieces });
    }
}

/// The end of a dollar-quoted string that starts here.
fn dollar_end(chars: &[char], start: usize) -> Option<usize> {
    let tag_len = chars
        .iter()
        .skip(start + 1)
        .take_while(|c| c.is_ascii_alphanumeric() || **c == '_')
        .count();
    if chars.get(start + 1 + tag_len) != Some(&'$') {
        return None;
    }
    if chars.get(start + 1).is_some_and(char::is_ascii_digit) {
        return None;
    }
    let tag: Vec<char> = chars
        .iter()
        .skip(start)
        .take(tag_len + 2)
        .copied()
        .collect();
    let mut at = start + tag.len();
    while at + tag.len() <= chars.len() {
        if chars.get(at..at + tag.len()) == Some(&tag) {
            return Some(at + tag.len());
        }
        at += 1;
    }
    None
}

/// Every parameter that is named must be given, and every one that is given must be named.
#[must_use]
pub fn check(statements: &[Statement], params: &IndexMap<String, Value>) -> Vec<ParamError> {
    let named: IndexSet<&str> = statements.iter().flat_map(Statement::names).collect();
    let missing = named
        .iter()
        .filter(|name| !params.contains_key(**name))
        .map(|name| {
            ParamError::new(
                "params",
                format!("the SQL names :{name}, which is not given"),
            )
            .help(format!("add `{name}` to `params`"))
        });
    let unused = params
        .keys()
        .filter(|name| !named.contains(name.as_str()))
        .map(|name| {
            ParamError::new(
                format!("params.{name}"),
                format!("the SQL does not name :{name}"),
            )
        });
    missing.chain(unused).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(sql: &str, params: &[(&str, Value)]) -> Result<Bound, String> {
        let params = params
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect();
        parse(sql).remove(0).bind(&params)
    }

    #[test]
    fn values_lists_identifiers_and_literals() {
        let bound = bind(
            "SELECT :\"col\" FROM t WHERE a = :a AND b IN (:list) AND c = :'lit' AND d::text = ':x' -- :no\n/* :no */",
            &[
                ("col", Value::from("we\"ird")),
                ("a", Value::Int(1)),
                ("list", Value::list(vec![Value::Int(1), Value::Null])),
                ("lit", Value::from("o'clock")),
            ],
        )
        .unwrap();
        assert_eq!(
            bound.sql.trim(),
            "SELECT \"we\"\"ird\" FROM t WHERE a = ? AND b IN (?, ?) AND c = 'o''clock' AND d::text = ':x'"
        );
        assert_eq!(bound.values, [Value::Int(1), Value::Int(1), Value::Null]);
    }

    #[test]
    fn nothing_is_read_inside_quotes_and_injections_stay_values() {
        for sql in [
            "SELECT ':a'",
            "SELECT \":a\"",
            "SELECT $$ :a $$",
            "SELECT $x$ :a $x$",
            "SELECT a::int",
            "SET x := 1",
        ] {
            assert_eq!(parse(sql)[0].names().count(), 0, "{sql}");
        }
        let bound = bind("SELECT :a", &[("a", Value::from("1; DROP TABLE t"))]).unwrap();
        assert_eq!(bound.sql, "SELECT ?");
        assert!(bind("SELECT :a IN (:a)", &[("a", Value::list(vec![]))]).is_err());
        assert!(bind("SELECT :a", &[]).is_err());
    }

    #[test]
    fn scripts_are_cut_at_statements() {
        let script = "CREATE TABLE t(a); -- one; two\nINSERT INTO t VALUES (';');\n\
            CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET a = 1; DELETE FROM t; END;\nSELECT 1;;";
        let statements = parse(script);
        assert_eq!(statements.len(), 4, "{statements:?}");
        assert!(statements[2].text().trim().ends_with("END"));
    }
}
