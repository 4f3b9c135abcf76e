//! Every code that a user can meet, with its page.
//!
//! WL01: the YAML file. WL02: its shape. WL03: names. WL04: order. WL05: expressions. WL06: steps and
//! their parameters. WL07: targets. WL08: calls. WL09: inputs that were given. WL10: the environment.

/// One code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// `WL0101`.
    pub code: &'static str,
    /// A few words, lower case.
    pub title: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// What `windlass explain` shows: Markdown.
    pub page: &'static str,
}

/// The code of this name (`WL0101`, in any case).
#[must_use]
pub fn find(code: &str) -> Option<&'static Code> {
    CODES
        .iter()
        .find(|known| known.code.eq_ignore_ascii_case(code))
}

macro_rules! codes {
    ($($name:ident = $code:literal, $title:literal, $summary:literal;)*) => {
        $(#[doc = $title] pub const $name: &str = $code;)*

        /// All codes, by number.
        pub const CODES: &[Code] = &[$(Code {
            code: $code,
            title: $title,
            summary: $summary,
            page: include_str!(concat!("pages/", $code, ".md")),
        }),*];
    };
}

codes! {
    SYNTAX = "WL0101", "not valid YAML",
        "The file is not YAML 1.2: the parser stopped at the marked place and could not read on.";
    TAB = "WL0102", "a tab in the indentation",
        "YAML is indented with spaces; a tab in front of a key or an item is refused.";
    TAG = "WL0103", "a YAML tag",
        "`!name` in front of a value is a YAML tag, which playbooks do not use; a value that starts with `!` needs quotes.";
    ANCHOR = "WL0104", "a YAML anchor or alias",
        "`&name` and `*name` copy parts of a file, so that what a reader sees is not what runs; use `let`, `defaults` or a call.";
    MERGE = "WL0105", "a YAML merge key",
        "`<<` merges another map into this one; use `defaults` or write the keys out.";
    DUPLICATE_KEY = "WL0106", "the same key twice",
        "A map holds this key twice; one of the two values would be lost.";
    NESTING = "WL0107", "nested too deep",
        "Maps and lists may be nested 64 deep.";
    TOO_LARGE = "WL0108", "the file is too large",
        "A playbook or environment file may have 16 MiB.";
    DOCUMENTS = "WL0109", "more than one document",
        "A file holds one document; `---` starts another.";
    KEY_TYPE = "WL0110", "a key that is not text",
        "A key must be text; quote a key that reads as a number, a boolean or null.";
    EMPTY_FILE = "WL0111", "nothing in the file",
        "The file holds no keys.";
    FLOW_EXPRESSION = "WL0112", "`${{ }}` without quotes inside `{ }`",
        "Inside braces YAML reads `${{ }}` as nested maps; the value needs quotes.";
    CUT_EXPRESSION = "WL0113", "an expression that YAML cuts",
        "YAML takes everything after ` #` as a comment; an expression that holds ` #` needs quotes.";
    SWALLOWED = "WL0114", "a value that YAML swallows",
        "A value that starts with `#` is a comment to YAML, so the key has no value; quote it.";
    UNKNOWN_KEY = "WL0201", "an unknown key",
        "The key is not one that this place knows.";
    MISSING_KEY = "WL0202", "a key is missing",
        "A key that this place must have is not there.";
    WRONG_TYPE = "WL0203", "a value of another type",
        "The value is a map, a list or a scalar where the key takes another of these.";
    BOOLEAN = "WL0204", "not a boolean",
        "Booleans are `true` and `false`; `yes`, `no`, `on` and `off` are text in YAML 1.2.";
    NOT_ALLOWED = "WL0205", "not one of the words allowed here",
        "The key takes one of a few words.";
    DURATION = "WL0206", "not a duration",
        "A duration is a number and a unit, such as 250ms, 30s, 5m, 4h, 7d or 1h30m.";
    NUMBER = "WL0207", "not a number that fits",
        "The key takes a number within limits.";
    EXCLUSIVE = "WL0208", "keys that exclude each other",
        "Two keys that cannot stand together, or a key that does not belong to this sort of step.";
    WINDOW = "WL0209", "not a window",
        "A window is days, hours and a time zone, such as `Mon-Fri 09:00-17:00 America/Sao_Paulo`.";
    EMPTY_LIST = "WL0210", "an empty list",
        "The list must hold something.";
    BAD_ID = "WL0301", "not a name",
        "Names start with a lower-case letter and hold lower-case letters, digits and `_`.";
    RESERVED = "WL0302", "a reserved word as a name",
        "The name means something else in expressions.";
    DUPLICATE_ID = "WL0303", "the same id twice",
        "A step's id is taken by another step in its list or in a list around it.";
    BAD_PLAYBOOK_NAME = "WL0304", "not a playbook name",
        "A playbook's name is kebab-case: lower-case letters, digits and single hyphens.";
    UNKNOWN_NEED = "WL0401", "`needs` names no step",
        "`needs` names steps of the same list; this one is not there.";
    CYCLE = "WL0402", "steps that wait for each other",
        "The steps need each other in a circle, so that none could ever start.";
    EXPRESSION = "WL0501", "not an expression",
        "The expression cannot be parsed.";
    UNKNOWN_NAME = "WL0502", "an unknown name in an expression",
        "An expression reads inputs, `let` names, steps, `run` and, inside `foreach`, its item; nothing else.";
    UNKNOWN_INPUT = "WL0503", "an unknown input",
        "The expression reads an input that the playbook does not declare.";
    UNKNOWN_STEP = "WL0504", "an unknown step",
        "The expression reads a step that is not there, or that is inside another group.";
    NOT_NEEDED = "WL0505", "a step that is not needed",
        "The expression reads a step that may not have run yet, because this step does not need it.";
    UNGUARDED = "WL0506", "an output that may be missing",
        "The step that is read may be skipped or failed, so that it has no output.";
    DYNAMIC = "WL0507", "a step chosen at run time",
        "`steps[...]` takes a constant, so that what is read is known before anything runs.";
    UNKNOWN_MEMBER = "WL0508", "an unknown member",
        "What is read has no member of this name.";
    WRAPPED = "WL0509", "`${{ }}` around a bare expression",
        "`when`, `until`, `expect`, `items` and their like hold an expression already, without `${{ }}`.";
    UNCLOSED = "WL0510", "`${{` without its end",
        "An expression in text starts with `${{` and ends with `}}`.";
    LET_CYCLE = "WL0511", "names that are defined by each other",
        "The `let` names read each other in a circle.";
    NOT_LITERAL = "WL0512", "an expression where a literal must stand",
        "This place is read before anything runs, so it cannot hold `${{ }}`.";
    UNKNOWN_KIND = "WL0601", "an unknown step kind",
        "`uses` names a step kind that this build does not have.";
    UNKNOWN_PARAM = "WL0602", "an unknown parameter",
        "The step kind does not take this parameter.";
    MISSING_PARAM = "WL0603", "a parameter is missing",
        "The step kind cannot do without this parameter.";
    PARAM_TYPE = "WL0604", "a parameter of another type",
        "The value does not fit the type that the step kind declares.";
    PARAM_REFUSED = "WL0605", "a parameter that the kind refuses",
        "The value has the right type, and the step kind says why it cannot be used.";
    SQL_EXPRESSION = "WL0606", "`${{ }}` inside SQL",
        "Values are bound by name, never put into the text of a statement.";
    UNDO = "WL0607", "an undo that cannot be",
        "The step kind or this place does not allow this form of undo.";
    PROBE_REQUIRED = "WL0608", "a probe is required",
        "After a crash nothing could tell whether this step took effect; the step must say how to ask.";
    MAX_ITEMS = "WL0609", "`max_items` is required",
        "Items known only at run time need a limit.";
    DEFAULTS = "WL0610", "defaults for nothing",
        "The pattern matches no step kind, or the kind does not take what is given.";
    READ_ONLY_REQUIRED = "WL0611", "a probe that writes",
        "A probe asks a question; its step kind must only read.";
    RETRY_NEVER = "WL0612", "a retry that can never happen",
        "`retry` is for causes that pass by themselves, and this step cannot fail with one.";
    UNKNOWN_TARGET = "WL0701", "an unknown target",
        "The name is not a declared target.";
    UNKNOWN_TARGET_KIND = "WL0702", "an unknown kind of target",
        "`kind` names a kind of target that this build does not have.";
    TARGET_CYCLE = "WL0703", "targets that are like each other",
        "Derived targets must end at a named one.";
    UNUSED_TARGET = "WL0704", "a target that nothing uses",
        "The target is declared, and no step names it.";
    CALL_TARGET = "WL0705", "a called playbook's target is not bound",
        "Each named target of a called playbook must be bound to one of the caller's, of the same kind.";
    MANY_TARGET = "WL0706", "many targets where one must stand",
        "A target with `many: true` is a list; run over it with `foreach`.";
    CALL_READ = "WL0801", "a called playbook cannot be read",
        "The file of the call cannot be read.";
    CALL_CYCLE = "WL0802", "playbooks that call each other",
        "A playbook calls itself, directly or through others.";
    CALL_INPUT = "WL0803", "an input of the called playbook",
        "The call gives an input that the callee does not declare, or leaves out one that it requires.";
    TOO_MANY = "WL0804", "too many steps or calls",
        "The playbook with all that it calls is larger than a graph may be.";
    UNKNOWN_GIVEN_INPUT = "WL0901", "an unknown input was given",
        "The playbook does not declare this input.";
    MISSING_INPUT = "WL0902", "an input is missing",
        "The playbook requires this input.";
    INPUT_TYPE = "WL0903", "an input of another type",
        "The value cannot be read as the type that the input declares.";
    INPUT_LIMIT = "WL0904", "an input outside its limits",
        "The value has the right type and is outside `enum`, `pattern`, `min` or `max`.";
    INPUT_DECLARATION = "WL0905", "an input's declaration contradicts itself",
        "The default, the limits or the pattern of the input do not fit its type.";
    ENVIRONMENT = "WL0906", "no such environment",
        "The environment file does not have the environment that was chosen.";
    TARGET = "WL0907", "a target that cannot be bound",
        "The environment has no such target, or one of another kind.";
    UNKNOWN_SECRET = "WL0908", "a secret that the environment does not have",
        "A playbook or a target names a secret, and the chosen environment does not say where it comes from.";
    PLAIN_PASSWORD = "WL0909", "a password in plain text",
        "A URL holds a password that everybody can read who sees the file or the command line.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_sorted_and_have_a_page() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        for code in CODES {
            assert!(
                code.page.starts_with(&format!("# {}", code.code)),
                "{}",
                code.code
            );
            assert!(code.page.contains(code.title), "{}", code.code);
            assert!(code.summary.ends_with('.'), "{}", code.code);
        }
        assert_eq!(find("wl0101").map(|code| code.code), Some("WL0101"));
    }
}
