use super::helpers;
use std::fmt::Write as _;

/// The page of `windlass explain expressions`, in Markdown.
#[must_use]
pub fn reference_page() -> String {
    let mut page = String::from(INTRODUCTION);
    for helper in helpers::ALL {
        let (example, gives) = helper.example;
        // Writing to a String cannot fail.
        if writeln!(
            page,
            "| `{}` | {} | `{}` is `{}` |",
            cell(helper.usage),
            cell(helper.about),
            cell(example),
            cell(gives)
        )
        .is_err()
        {
            break;
        }
    }
    page
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

const INTRODUCTION: &str = "\
# Expressions

An expression stands bare in `when`, `until`, `expect`, `gate` and `items`, and as `${{ … }}` in any other value.
A whole `${{ … }}` keeps its type; inside text its value is written out. It reads no file, no clock and nothing
random, so the same run always decides the same.

## Values

| type | written | notes |
|---|---|---|
| integer, number | `5`, `1.5`, `1_000` | integers have 64 bits, and overflow is an error; decimals are exact; `7 / 2` is `3.5` |
| text | `'a'`, `\"a\"` | `\\n`, `\\t`, `\\\\`, `\\\"`, `\\x41`, `\\u00e9` |
| boolean | `true`, `false` | |
| NULL | `()`, `null` | only `==` and `!=` take it |
| duration | `250ms`, `5s`, `1h30m`, `7d` | `+ -` durations, `* /` numbers; duration / duration is a number |
| size | `512B`, `20GiB`, `20GB` | as durations |
| timestamp | `timestamp(\"2026-01-02T03:04:05Z\")` | timestamp - timestamp is a duration; timestamp ± duration |
| list, map | `[1, 2]`, `#{ a: 1 }` | `list[0]`, `list[-1]`, `map.a`, `map[\"a\"]` |

## Operators

`== != < <= > >=` `+ - * / %` `&& || !` `in` `!in` `a ?? b` (b where a is NULL) `if a { b } else { c }`

**Types bite.** Comparing unlike types, or NULL with `<` or `>`, fails the step instead of answering false.
A missing member fails too. `a?.b` is NULL where a is NULL or has no b, and so is all that follows it.

## Names

`inputs.x` · names under `let:` · `steps.ID.output`, `.state`, `.error`, `.started_at`, `.finished_at`, `.duration`,
`.attempts` · `run.id`, `.short_id`, `.url`, `.by`, `.playbook`, `.environment`, `.started_at`, `.outcome`, `.failed` ·
`item` and `index` in a `foreach` · `targets.NAME` (of many targets a list), `targets.NAME.reachable` (whether the run has
reached it; of many targets the list of those that it has)

## Functions

Each may be called as `f(x)` or as `x.f()`.

| function | gives | example |
|---|---|---|
";
