//! Each mistake that YAML makes of what was meant: told, mended as told, and then right.
use super::*;
use crate::source::laid_out;

/// Two steps: one to read, and one with these lines.
fn with_lines(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    playbook(&format!(
        "{}  - id: it\n    uses: verify\n{lines}",
        query("a")
    ))
}

#[test]
fn each_guard_is_mended_as_its_help_says() {
    let checks = "with: { checks: [] }";
    for (code, wrong, right) in [
        (
            "WL0103",
            "when: !steps.a.output.value",
            "when: '!steps.a.output.value'",
        ),
        (
            "WL0103",
            "when: !steps.a.output.value # why",
            "when: '!steps.a.output.value' # why",
        ),
        (
            "WL0103",
            "when: !(run.by == \"x #1\") # why",
            "when: '!(run.by == \"x #1\")' # why",
        ),
        (
            "WL0103",
            "when: !steps.a.output.value && run.by == 'a #1'",
            "when: \"!steps.a.output.value && run.by == 'a #1'\"",
        ),
        (
            "WL0113",
            "when: run.by == \"batch #1\" # why",
            "when: 'run.by == \"batch #1\"' # why",
        ),
        (
            "WL0113",
            "when: run.by == \"a\" ||\n  run.by == \"b #1\"",
            "when: 'run.by == \"a\" || run.by == \"b #1\"'",
        ),
        (
            "WL0101",
            "when: \"prod\" == run.environment # why",
            "when: '\"prod\" == run.environment' # why",
        ),
        (
            "WL0101",
            "when: 'x #1' == run.environment # why",
            "when: \"'x #1' == run.environment\" # why",
        ),
        (
            "WL0509",
            "when: ${{ inputs.max > 10 }} # why",
            "when: inputs.max > 10 # why",
        ),
        (
            "WL0509",
            "when: ${{ inputs.names == [\"a\"] }}",
            "when: 'inputs.names == [\"a\"]'",
        ),
        (
            "WL0114",
            "description: #3 of the migration",
            "description: '#3 of the migration'",
        ),
    ] {
        check(code, &format!("{wrong}\n{checks}"), right);
    }
    for (code, wrong, right) in [
        (
            "WL0112",
            "with: { checks: [], data: x-${{ inputs.max }}-y }",
            "data: 'x-${{ inputs.max }}-y' }",
        ),
        (
            "WL0112",
            "with: { checks: [], data: [${{ inputs.max }}, 1] }",
            "data: ['${{ inputs.max }}', 1] }",
        ),
        (
            "WL0112",
            "with: { checks: [], data: ${{ inputs.max }} + ${{ inputs.max }} }",
            "data: '${{ inputs.max }} + ${{ inputs.max }}' }",
        ),
        (
            "WL0110",
            "with: { checks: [], data: { 1: first, true: b, on: c } }",
            "data: { '1': first, 'true': b, on: c } }",
        ),
        (
            "WL0204",
            "with: { checks: [], strict: yes }",
            "strict: true }",
        ),
        (
            "WL0204",
            "with: { checks: [], strict: 'Off' }",
            "strict: false }",
        ),
        (
            "WL0102",
            "with:\n\tchecks: []\n\tdata:\n\t\ta: 1",
            "    with:\n      checks: []\n      data:\n        a: 1\n",
        ),
    ] {
        check(code, wrong, right);
    }
    let flow = playbook(&format!(
        "{}  - {{ id: it, uses: verify, when: !steps.a.output.value, with: {{ checks: [] }} }}\n",
        query("a")
    ));
    check_file("WL0103", &flow, "when: '!steps.a.output.value', with:");
}

fn check(code: &str, wrong: &str, right: &str) {
    // The tabs of the lines indent on their own.
    check_file(
        code,
        &with_lines(wrong)
            .replace("    \t\t", "\t\t\t\t")
            .replace("    \t", "\t\t\t"),
        right,
    );
}

fn check_file(code: &str, wrong: &str, right: &str) {
    let before = compiled(wrong);
    let told = before.diagnostics.iter().find(|d| d.code == code);
    let told = told.unwrap_or_else(|| panic!("{code}: {wrong}\n{}", rendered(&before)));
    let help = told.help.clone().unwrap_or_default();
    assert!(
        help.ends_with(", or let `windlass fmt` do it"),
        "{code}: {help}"
    );
    let (text, done) = mended("x.yaml", wrong, &fakes::registry());
    assert!(
        done.iter().any(|d| d.code == code),
        "{code}: {wrong}\n{done:?}"
    );
    let laid = laid_out(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(laid.contains(right), "{code}: {right}\n{laid}");
    let after = compiled(&laid);
    assert!(
        after.graph.is_some(),
        "{code}: {laid}\n{}",
        rendered(&after)
    );
    assert_eq!(
        mended("x.yaml", &laid, &fakes::registry()),
        (laid, Vec::new())
    );
}

#[test]
fn what_quotes_do_not_mend_is_left() {
    for lines in [
        "when: inputs.max > # more to come\nwith: { checks: [] }",
        "when: # only in production\nwith: { checks: [] }",
        "with: # nothing yet",
        "when: inputs.max >\nwith: { checks: [] }",
        "with: { checks: [], strict: perhaps }",
        "with: { checks: [], data: \"${{ inpu\"ts.max }}\" }",
        "with: { checks: [",
        "with: { checks: [], data: \"open }",
        "when: \"open\nwith: { checks: [] }",
        "when: !!str a\nwith: { checks: [] }",
        "when: &a b\nwith: { checks: [] }",
    ] {
        let text = with_lines(lines);
        assert!(compiled(&text).graph.is_none(), "{lines}");
        assert_eq!(
            mended("x.yaml", &text, &fakes::registry()),
            (text, Vec::new()),
            "{lines}"
        );
    }
}
