//! The pages of the codes say the truth: what they call wrong is refused by that code, what they call
//! mended compiles.
use super::*;
use crate::diagnostic::CODES;

/// The example after a word, as a whole playbook.
fn example(page: &str, word: &str) -> Option<String> {
    let after = page.split_once(&format!("\n{word}:\n\n```yaml\n"))?.1;
    let text = after.split_once("```")?.0;
    if text.starts_with("playbook:") {
        return Some(text.to_owned());
    }
    let head = "playbook: example\ninputs:\n  size: { type: integer, default: 5 }\n  region: { type: string, default: eu }\ntargets:\n  db: { kind: sqlite }\n";
    if text.starts_with("- ") {
        let steps: String = text.lines().map(|line| format!("  {line}\n")).collect();
        return Some(format!("{head}steps:\n{steps}"));
    }
    let step = "steps:\n  - id: it\n    uses: sql.query\n    with: { target: db, sql: SELECT 1 }\n";
    Some(format!("{head}{text}{step}"))
}

#[test]
fn examples_do_what_they_say() {
    let (mut seen, mut by_fmt) = (0, 0);
    for code in CODES {
        if let Some(wrong) = example(code.page, "Wrong") {
            let compiled = compiled(&wrong);
            let found = compiled.diagnostics.iter().any(|d| d.code == code.code);
            assert!(
                found,
                "{}: the wrong one:\n{wrong}\n{}",
                code.code,
                rendered(&compiled)
            );
            seen += 1;
            if code.page.contains("`windlass fmt`") {
                let (text, _) = mended("x.yaml", &wrong, &fakes::registry());
                let after = super::compiled(&text);
                assert!(
                    !after.diagnostics.iter().any(|d| d.code == code.code),
                    "{}: {text}\n{}",
                    code.code,
                    rendered(&after)
                );
                by_fmt += 1;
            }
        }
        if let Some(mended) = example(code.page, "Mended") {
            let compiled = compiled(&mended);
            assert!(
                compiled.graph.is_some(),
                "{}: the mended one:\n{mended}\n{}",
                code.code,
                rendered(&compiled)
            );
            assert!(
                !compiled.diagnostics.iter().any(|d| d.code == code.code),
                "{}: {}",
                code.code,
                rendered(&compiled)
            );
        }
        assert!(code.page.lines().count() > 4, "{} has a page", code.code);
    }
    assert!(seen > 50, "{seen}");
    assert!(by_fmt > 8, "{by_fmt}");
}
