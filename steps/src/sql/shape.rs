//! Statements of SQL: where each ends, and what it does.
use super::lex::{Kind, Token};
use std::ops::Range;

/// The statements of a script, as ranges of its tokens, without the semicolons. What stands in parentheses (the actions of a
/// rule) and the body of a trigger or of a function in SQL are part of their statement.
pub(crate) fn split(tokens: &[Token<'_>]) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut start = 0;
    let mut words: Vec<String> = Vec::new();
    // `BEGIN`, and inside of it `CASE`, which ends with END, too.
    let (mut blocks, mut parentheses) = (0_usize, 0_usize);
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Word => {
                let word = token.text.to_ascii_uppercase();
                match word.as_str() {
                    "BEGIN" if parentheses == 0 && has_body(&words) => blocks += 1,
                    "CASE" if parentheses == 0 && blocks > 0 => blocks += 1,
                    "END" if parentheses == 0 => blocks = blocks.saturating_sub(1),
                    _ => {}
                }
                if words.len() < 4 {
                    words.push(word);
                }
            }
            Kind::Open => parentheses += 1,
            Kind::Close => parentheses = parentheses.saturating_sub(1),
            Kind::Semicolon if blocks == 0 && parentheses == 0 => {
                all.push(start..at);
                start = at + 1;
                words.clear();
            }
            Kind::Semicolon
            | Kind::Blank
            | Kind::Literal
            | Kind::Quoted
            | Kind::Value
            | Kind::Identifier
            | Kind::QuotedValue
            | Kind::Other => {}
        }
    }
    all.push(start..tokens.len());
    all.retain(|range| {
        tokens
            .get(range.clone())
            .unwrap_or_default()
            .iter()
            .any(|token| token.kind != Kind::Blank)
    });
    all
}

/// Whether a statement that begins with these words may have a body between BEGIN and END.
fn has_body(words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ["CREATE", rest @ ..] = words.as_slice() else {
        return false;
    };
    let made = match rest {
        ["OR", "REPLACE", made, ..] | ["TEMP" | "TEMPORARY", made, ..] | [made, ..] => made,
        [] => return false,
    };
    matches!(*made, "TRIGGER" | "FUNCTION" | "PROCEDURE")
}

/// What a statement does, as far as its words tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Shape {
    /// The word that says it, in capitals; behind `WITH` the main one.
    pub(crate) verb: String,
    /// Whether the statement itself, not a query inside it, has a `WHERE`.
    pub(crate) has_where: bool,
    /// `VACUUM INTO` and its like.
    pub(crate) into: bool,
    /// `PREPARE TRANSACTION`, which ends the transaction of the step.
    pub(crate) prepares_transaction: bool,
    /// What commits by itself, piece by piece: `CONCURRENTLY`, procedures.
    pub(crate) in_pieces: bool,
    /// `VACUUM`, `CREATE DATABASE` and their like.
    pub(crate) refuses_transaction: bool,
    /// `COPY … FROM STDIN`, which wants a client that sends rows.
    pub(crate) streams: bool,
}

/// Reads what one statement does.
pub(crate) fn shape(tokens: &[Token<'_>]) -> Shape {
    let mut shape = Shape::default();
    let mut depth = 0_usize;
    let (mut with, mut returning) = (false, false);
    // Whether the word before was the first one.
    let mut first = false;
    for token in tokens {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            // `(SELECT …) UNION …`: nothing but parentheses so far.
            Kind::Word if depth == 0 || (shape.verb.is_empty() && !with) => {
                let word = token.text.to_ascii_uppercase();
                let second =
                    std::mem::replace(&mut first, shape.verb.is_empty()) && !shape.verb.is_empty();
                match word.as_str() {
                    "WITH" if shape.verb.is_empty() => with = true,
                    "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "VALUES" | "MERGE"
                    | "TABLE"
                        if shape.verb.is_empty() =>
                    {
                        shape.verb = word;
                    }
                    _ if shape.verb.is_empty() && !with => shape.verb = word,
                    // Behind it stand columns and their names.
                    "RETURNING" => returning = true,
                    "WHERE" if !returning => shape.has_where = true,
                    "INTO" => shape.into = true,
                    "CONCURRENTLY" if shape.verb != "REFRESH" => {
                        shape.in_pieces = true;
                        shape.refuses_transaction = true;
                    }
                    "DATABASE" | "TABLESPACE"
                        if second && matches!(shape.verb.as_str(), "CREATE" | "DROP") =>
                    {
                        shape.refuses_transaction = true;
                    }
                    "SYSTEM" if second && shape.verb == "ALTER" => {
                        shape.refuses_transaction = true;
                    }
                    "TRANSACTION" if shape.verb == "PREPARE" => shape.prepares_transaction = true,
                    "STDIN" | "STDOUT" if shape.verb == "COPY" => shape.streams = true,
                    _ => {}
                }
            }
            Kind::Blank
            | Kind::Word
            | Kind::Literal
            | Kind::Quoted
            | Kind::Value
            | Kind::Identifier
            | Kind::QuotedValue
            | Kind::Semicolon
            | Kind::Other => {}
        }
    }
    shape.in_pieces |= matches!(shape.verb.as_str(), "CALL" | "DO");
    shape.refuses_transaction |= shape.verb == "VACUUM";
    shape
}

#[cfg(test)]
mod tests {
    use super::super::lex::{Dialect, tokens};
    use super::*;

    #[test]
    fn scripts_are_split_where_statements_end() {
        for (sql, wanted) in [
            ("", &[][..]),
            (" ; ;-- x\n;", &[]),
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT ';';SELECT 2;", &["SELECT ';'", "SELECT 2"]),
            (
                "SELECT 1 -- ;\n;/* ; */ SELECT 2",
                &["SELECT 1 -- ;", "/* ; */ SELECT 2"],
            ),
            (
                "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET b = CASE WHEN 1 THEN 2 END; DELETE FROM c; END; SELECT 2",
                &[
                    "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET b = CASE WHEN 1 THEN 2 END; DELETE FROM c; END",
                    "SELECT 2",
                ],
            ),
            (
                "create temp trigger if not exists t after delete on a begin select 1; end;select 3",
                &[
                    "create temp trigger if not exists t after delete on a begin select 1; end",
                    "select 3",
                ],
            ),
            (
                "CREATE OR REPLACE FUNCTION f(\"end\" int) RETURNS int BEGIN ATOMIC SELECT CASE WHEN 1 THEN 2 END; SELECT (CASE WHEN 1 THEN 2 END); END; SELECT 5",
                &[
                    "CREATE OR REPLACE FUNCTION f(\"end\" int) RETURNS int BEGIN ATOMIC SELECT CASE WHEN 1 THEN 2 END; SELECT (CASE WHEN 1 THEN 2 END); END",
                    "SELECT 5",
                ],
            ),
            (
                "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b); SELECT 6",
                &[
                    "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b)",
                    "SELECT 6",
                ],
            ),
            (
                "CREATE TABLE \"begin\" (a); SELECT CASE WHEN 1 THEN 2 END; SELECT 4",
                &[
                    "CREATE TABLE \"begin\" (a)",
                    "SELECT CASE WHEN 1 THEN 2 END",
                    "SELECT 4",
                ],
            ),
        ] {
            let all = tokens(sql, Dialect::SQLITE).expect("lexes");
            let texts: Vec<String> = split(&all)
                .into_iter()
                .map(|range| {
                    all[range]
                        .iter()
                        .map(|token| token.text)
                        .collect::<String>()
                        .trim()
                        .to_owned()
                })
                .collect();
            assert_eq!(texts, wanted, "{sql}");
        }
    }

    #[test]
    fn what_refuses_a_transaction() {
        for (sql, refuses) in [
            ("VACUUM t", true),
            ("CREATE INDEX CONCURRENTLY i ON t (a)", true),
            ("CREATE DATABASE d", true),
            ("DROP TABLESPACE t", true),
            ("ALTER SYSTEM SET a = 1", true),
            ("CREATE TABLE database (a int)", false),
            ("ALTER TABLE system ADD a int", false),
            ("REFRESH MATERIALIZED VIEW CONCURRENTLY v", false),
            ("COMMENT ON DATABASE d IS 'x'", false),
        ] {
            let all = tokens(sql, Dialect::POSTGRES).expect("lexes");
            assert_eq!(shape(&all).refuses_transaction, refuses, "{sql}");
        }
    }

    #[test]
    fn shapes() {
        for (sql, verb, has_where) in [
            ("delete from t", "DELETE", false),
            ("DELETE FROM t RETURNING i AS where", "DELETE", false),
            ("(SELECT 1 a) UNION ((SELECT 2))", "SELECT", false),
            ("WITH x AS (SELECT 1) TABLE x", "TABLE", false),
            ("DELETE FROM t WHERE id = 1", "DELETE", true),
            (
                "UPDATE t SET a = (SELECT b FROM c WHERE c.id = t.id)",
                "UPDATE",
                false,
            ),
            (
                "WITH x AS (SELECT 1 WHERE 1) DELETE FROM t",
                "DELETE",
                false,
            ),
            (
                "WITH RECURSIVE x(n) AS (SELECT 1) SELECT * FROM x",
                "SELECT",
                false,
            ),
            ("-- c\n/* d */ UPDATE t SET a = 'WHERE'", "UPDATE", false),
            ("PRAGMA integrity_check", "PRAGMA", false),
            ("VACUUM INTO 'x'", "VACUUM", false),
        ] {
            let all = tokens(sql, Dialect::SQLITE).expect("lexes");
            let shape = shape(&all);
            assert_eq!(
                (shape.verb.as_str(), shape.has_where),
                (verb, has_where),
                "{sql}"
            );
        }
    }
}
