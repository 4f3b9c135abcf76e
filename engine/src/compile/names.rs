//! What may be a name.

/// Words that the expression language keeps for itself.
const RESERVED: &[&str] = &[
    "as",
    "async",
    "await",
    "break",
    "call",
    "case",
    "catch",
    "const",
    "continue",
    "curry",
    "debug",
    "default",
    "do",
    "else",
    "eval",
    "exit",
    "export",
    "false",
    "fn",
    "for",
    "go",
    "goto",
    "if",
    "import",
    "in",
    "is",
    "is_def_fn",
    "is_def_var",
    "is_shared",
    "let",
    "loop",
    "match",
    "module",
    "new",
    "nil",
    "null",
    "package",
    "print",
    "private",
    "protected",
    "public",
    "return",
    "shared",
    "spawn",
    "static",
    "super",
    "switch",
    "sync",
    "this",
    "thread",
    "throw",
    "true",
    "try",
    "type_of",
    "until",
    "use",
    "var",
    "void",
    "while",
    "with",
    "yield",
];

/// Names that expressions always have.
pub(super) const ROOTS: &[&str] = &[
    "inputs", "steps", "run", "targets", "item", "index", "output", "capture", "secret",
];

pub(super) enum NameError {
    Shape,
    Reserved,
}

/// Checks the name of a step, an input, a target or an output.
pub(super) fn check(name: &str) -> Result<(), NameError> {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_lowercase());
    if !first || !chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return Err(NameError::Shape);
    }
    if RESERVED.binary_search(&name).is_ok() {
        return Err(NameError::Reserved);
    }
    Ok(())
}

/// Checks a name that stands bare in expressions: a `let` or a `foreach` item.
pub(super) fn check_bare(name: &str) -> Result<(), NameError> {
    check(name)?;
    if ROOTS.contains(&name) {
        Err(NameError::Reserved)
    } else {
        Ok(())
    }
}

/// A playbook's name.
pub(super) fn is_kebab(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('-').all(|part| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        })
}

/// A written name made into one that is allowed.
pub(super) fn mended(name: &str, joint: char) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.ends_with(joint) && !out.is_empty() {
            out.push(joint);
        }
    }
    let out = out
        .trim_matches(joint)
        .trim_start_matches(|c: char| c.is_ascii_digit() || c == joint);
    if out.is_empty() {
        "a_name".to_owned()
    } else {
        out.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_language_says() {
        assert!(RESERVED.windows(2).all(|pair| pair[0] < pair[1]), "sorted");
        for ok in ["a", "fill_2", "check"] {
            assert!(check(ok).is_ok(), "{ok}");
        }
        for bad in ["", "A", "2a", "a-b", "_a", "é", "new", "default"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check_bare("steps").is_err() && check_bare("db").is_ok());
        assert!(
            is_kebab("orders-2")
                && !is_kebab("orders--2")
                && !is_kebab("Orders")
                && !is_kebab("a_b")
        );
        assert_eq!(mended("Backup DB!", '_'), "backup_db");
        assert_eq!(mended("2Fast", '-'), "fast");
        assert_eq!(mended("!!", '-'), "a_name");
    }
}
