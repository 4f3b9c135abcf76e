//! A bounded, repeatable run over mutations of texts that are right and texts that are nasty.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]
use std::{fs, path::Path};
use windlass_tests::fuzz;

/// How many texts each test makes; `WINDLASS_FUZZ` makes it more.
fn rounds(default: usize) -> usize {
    let given = std::env::var("WINDLASS_FUZZ").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Pseudo-random and always the same (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % (most.max(1) as u64)).unwrap()
    }

    fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.below(all.len())]
    }
}

/// Pieces that have a meaning somewhere.
const PIECES: &[&str] = &[
    "${{",
    "}}",
    "{",
    "}",
    "[",
    "]",
    ": ",
    ":",
    "- ",
    "-",
    "\n",
    "\n  ",
    "\t",
    "\r\n",
    "|",
    ">",
    "|2-",
    "!",
    "!!str ",
    "&a ",
    "*a",
    "<<: ",
    "# ",
    " #",
    "'",
    "\"",
    "\\",
    "\\u{0}",
    "\0",
    "\u{feff}",
    "é",
    "\u{1F980}",
    "~",
    "null",
    "true",
    "014",
    "1e999",
    "9223372036854775808",
    "-",
    "--- ",
    "...",
    "%YAML",
    "steps.",
    "secret(\"x\")",
    "inputs",
    "foreach: ",
    "when: ",
    "undo: ",
    "with: ",
    "5s",
    "20GiB",
    "#{",
    "||",
    "&&",
    "==",
    "if ",
    "let ",
    "while true {",
    "|x| x",
    ".map(",
    "(((((((((",
    "999999999999999999999d",
    "\u{202e}",
    "\u{85}",
    "\u{2028}",
    "\"\\uD800\"",
    "\\x",
    "\r",
    " \t",
    "? ",
    "|+\n",
    ">-2",
    "&a ",
    "<<: *a",
    "\"a\" == b",
    "!a && ",
    "#3 of",
    "yes",
    "${{ inputs.n }}",
    ", ",
];

fn mutated(random: &mut Random, text: &str, other: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(4) {
        let at = random.below(chars.len() + 1);
        match random.below(6) {
            0 => {
                let until = (at + random.below(12)).min(chars.len());
                chars.drain(at..until);
            }
            1 => {
                let piece: Vec<char> = random.of(PIECES).chars().collect();
                chars.splice(at..at, piece);
            }
            2 => {
                let until = (at + random.below(40)).min(chars.len());
                let copy: Vec<char> = chars[at..until].to_vec();
                chars.splice(at..at, copy);
            }
            3 => {
                let foreign: Vec<char> = other.chars().collect();
                let from = random.below(foreign.len() + 1);
                let until = (from + random.below(60)).min(foreign.len());
                chars.splice(at..at, foreign[from..until].iter().copied());
            }
            4 => {
                if let Some(char) = chars.get_mut(at) {
                    *char = char::from(u8::try_from(random.below(128)).unwrap());
                }
            }
            _ => chars.truncate(at),
        }
    }
    chars.into_iter().collect()
}

fn yaml_under(folder: &Path, out: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            yaml_under(&path, out);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            out.push(fs::read_to_string(&path).unwrap());
        }
    }
}

/// What ships, the examples of the code pages, and what no editor would write.
fn playbooks() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all = Vec::new();
    yaml_under(&root.join("examples"), &mut all);
    for code in windlass_engine::diagnostic::CODES {
        let blocks = code.page.split("```yaml\n").skip(1);
        all.extend(blocks.filter_map(|block| Some(block.split_once("```")?.0.to_owned())));
    }
    assert!(all.len() > 60, "{}", all.len());
    all.extend(
        [
            "a: |2\n   x\n  y\nb: >+\n\n\n",
            "? a\n: b\n",
            "{a: {b: [c, {d: }]}}",
            "- - - - x\n",
            "\"\\x00\\uD800\": 1\n",
            "a: 'it''s\n\n  two'\n",
            "a:\n- b:\n  - c\n# d\n",
            "%TAG ! x\n---\na: 1\n",
            "\u{feff}a: 1\r\nb: 2\r\n",
        ]
        .map(str::to_owned),
    );
    all
}

const EXPRESSIONS: &[&str] = &[
    "inputs.n > 2 && rows.len() == 2",
    "first(filter(rows, |r| r != ())) == true",
    "if value > 5 { 'a' } else { \"b\" }",
    "5s + 1h30m < 2h && 20GiB >= 1.5GB",
    "percentile([1, 2.5, 3], 95) ?? 0",
    "#{ a: 1, b: [1, 2] }.a + sum([1, 2])",
    "matches(inputs.s, '^x .*$') || split(inputs.s, ' ')[1] == 'y'",
    "timestamp('2026-01-01T00:00:00Z') - 5m",
    "`a ${value} b`",
    "size: ${{ inputs.n }} of ${{ #{ a: \"}}\" }.a }}",
];

fn run(seed: u64, count: usize, corpus: &[String], mut test: impl FnMut(&str)) {
    let mut random = Random(seed);
    for text in corpus {
        test(text);
    }
    for _ in 0..count {
        let (text, other) = (random.of(corpus), random.of(corpus));
        test(&mutated(&mut random, text, other));
    }
}

#[test]
fn any_text_is_read_or_refused_with_its_place() {
    run(1, rounds(20_000), &playbooks(), fuzz::source);
}

#[test]
fn any_layout_is_stable() {
    run(2, rounds(8_000), &playbooks(), fuzz::layout);
}

#[test]
fn any_playbook_compiles_or_says_why() {
    run(3, rounds(10_000), &playbooks(), fuzz::playbook);
}

#[test]
fn any_playbook_is_mended_and_laid_out_once() {
    run(5, rounds(4_000), &playbooks(), fuzz::fmt);
}

#[test]
fn any_environment_is_read_or_refused() {
    let mut corpus = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    yaml_under(&root.join("examples"), &mut corpus);
    corpus.retain(|text| text.contains("\nenvironments:"));
    corpus.push("environments: { a: { targets: { b: { url: 'sqlite:x', labels: { c: d }, create: true } } } }\napprovers: { dba: [x] }\n".to_owned());
    assert!(corpus.len() > 1);
    run(6, rounds(10_000), &corpus, fuzz::environment);
}

#[test]
fn any_expression_ends() {
    let corpus: Vec<String> = EXPRESSIONS.iter().map(|text| (*text).to_owned()).collect();
    run(4, rounds(60_000), &corpus, fuzz::expression);
}

#[test]
fn what_is_huge_or_deep_is_refused_soon() {
    let deep = "[".repeat(100_000);
    let nested: String = (0..5_000)
        .map(|n| format!("{}a:\n", " ".repeat(n)))
        .collect();
    let long = format!("a: \"{}\"\n", "x".repeat(1 << 20));
    let wide: String = (0..50_000).map(|n| format!("k{n}: !x\n")).collect();
    let lines = format!("a: |\n{}", "  x\n".repeat(250_000));
    let digits = format!("a: {}\n", "9".repeat(1 << 20));
    let comments = "# x\n".repeat(100_000);
    let quotes = format!("a: '{}\n", "''".repeat(1 << 19));
    for text in [
        &deep, &nested, &long, &wide, &lines, &digits, &comments, &quotes,
    ] {
        fuzz::source(text);
        fuzz::layout(text);
        fuzz::environment(text);
    }
    let playbook = format!(
        "playbook: huge\ntargets:\n  db: {{ kind: sqlite }}\nsteps:\n  - id: it\n    uses: sql.query\n    timeout: {}s\n    when: {} == 1\n    with: {{ target: db, sql: \"SELECT {}\" }}\n",
        "9".repeat(1_000),
        "9".repeat(1_000),
        "x".repeat(1 << 20)
    );
    fuzz::playbook(&playbook);
    fuzz::fmt(&playbook);
    for text in [
        "(".repeat(20_000),
        "!".repeat(20_000),
        "a.".repeat(8_000),
        format!("[{}", "1,".repeat(8_000)),
    ] {
        fuzz::expression(&text);
    }
}
