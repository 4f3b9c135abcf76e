//! What a run leaves for those who were not there.
use crate::common::{Lab, settings};
use serde_json::Value as Json;

const PLAYBOOK: &str = r#"
playbook: hostile
description: "<script>alert('x')</script> & <b>more</b>"
targets:
  app: { kind: sqlite }
steps:
  - id: table
    uses: sql.execute
    with: { target: app, sql: "CREATE TABLE people (name TEXT, query TEXT)" }
    undo:
      uses: sql.execute
      with: { target: app, sql: DROP TABLE people }
  - id: fill
    uses: sql.execute
    with:
      target: app
      sql: INSERT INTO people VALUES ('</pre><img src=x>', 'private words'), ('|`a`|', 'private words')
    undo: none
  - id: read
    uses: sql.query
    with: { target: app, sql: "SELECT name, query FROM people" }
    evidence: { mask: [QUERY] }
  - id: quiet
    uses: sql.query
    with: { target: app, sql: "SELECT 'nobody keeps this' AS words" }
    evidence: { keep: false }
  - id: brief
    uses: sql.query
    with: { target: app, sql: "SELECT 'kept for a moment' AS words" }
    evidence: { for: 1ms }
  - id: sign_off
    uses: approval
    with:
      prompt: Is this right?
      show: ${{ steps.read.output.rows }}
      groups: [dba]
  - id: each
    uses: sql.execute
    foreach: { items: [1, 2], max_items: 2 }
    with: { target: app, sql: UPDATE people SET name = name WHERE true }
    undo: none
  - id: check
    uses: verify
    with:
      target: app
      checks:
        - { name: there are three, sql: SELECT count(*) FROM people, expect: value == 3 }
"#;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("p.yaml", PLAYBOOK);
    lab.run(&["run", "p.yaml", "--no-wait"]).exits(4);
    lab
}

fn json(lab: &Lab) -> Json {
    let done = lab.run(&["report", "last", "--format", "json"]).exits(0);
    serde_json::from_str(&done.stdout).unwrap()
}

#[test]
fn a_report_tells_a_run_and_nothing_that_was_not_to_be_kept() {
    let lab = lab();
    let waiting = lab.run(&["report"]).exits(0);
    assert!(
        waiting
            .stdout
            .contains("This run is not over: it is waiting"),
        "{}",
        waiting.all()
    );
    lab.run_as(
        "bruno",
        &[
            "approve",
            "last",
            "sign_off",
            "--because",
            "looked at it",
            "--drive",
        ],
    )
    .exits(1);

    let report = json(&lab);
    assert_eq!(report["state"], "compensated");
    assert_eq!(report["approvals"][0]["votes"][0]["who"], "bruno");
    assert_eq!(report["approvals"][0]["shown"][0]["query"], "(masked)");
    assert_eq!(report["checks"][0]["passed"], false);
    assert_eq!(report["checks"][0]["seen"], 2);
    let audit = lab.run(&[
        "audit",
        "last",
        "--expect",
        report["chain"]["head"].as_str().unwrap(),
    ]);
    audit.exits(0);

    for ending in ["md", "json", "html"] {
        let name = format!("report.{ending}");
        lab.run(&["report", "last", "-o", &name])
            .exits(0)
            .says(&name);
        let text = lab.read(&name);
        for hidden in ["private words", "nobody keeps this", "kept for a moment"] {
            // The statements themselves are the playbook's own text.
            let seen = text
                .lines()
                .filter(|line| line.contains(hidden))
                .filter(|line| !line.contains("INSERT INTO") && !line.contains("SELECT "))
                .count();
            assert_eq!(seen, 0, "{name} tells {hidden:?}:\n{text}");
        }
        assert!(text.contains("looked at it"), "{name}: {text}");
        let again = lab.run(&[
            "report",
            "last",
            "-o",
            "again.md",
            "-f",
            match ending {
                "md" => "markdown",
                other => other,
            },
        ]);
        again.exits(0);
        assert_eq!(
            lab.read("again.md"),
            text,
            "the same journal, the same {name}"
        );
    }
    lab.run(&["report", "last", "-o", "report.pdf"])
        .exits(2)
        .says(".html");
}

#[test]
fn the_page_needs_nothing_else_and_text_of_others_is_no_markup() {
    let lab = lab();
    let page = lab
        .run(&["report", "last", "--format", "html"])
        .exits(0)
        .stdout;
    for foreign in [
        "<script", "<img", "<link", "http:", "https:", "@import", "url(",
    ] {
        assert!(!page.contains(foreign), "{foreign} in\n{page}");
    }
    assert!(page.contains("&lt;script&gt;"), "{page}");
    assert!(page.contains("viewport") && page.contains("@media print"));
    assert!(page.contains("<svg") && page.contains("class=\"timeline\""));
    assert_eq!(page.matches("<div").count(), page.matches("</div>").count());
    assert_eq!(
        page.matches("<table").count(),
        page.matches("</table>").count()
    );
}

#[test]
fn the_report_for_a_ticket_reads_well() {
    let lab = lab();
    lab.run_as("bruno", &["approve", "last", "sign_off", "--drive"])
        .exits(1);
    let text = lab.run(&["report"]).exits(0).stdout;
    let mut settings = settings(&lab);
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[instant]");
    settings.add_filter(
        r"\| (ana|bruno) \| [^|]+ \| \d+ \|",
        "| $1 | [host] | [pid] |",
    );
    settings.add_filter(r#""took": "[^"]*""#, r#""took": "[took]""#);
    settings.bind(|| insta::assert_snapshot!("report", text));
}

#[test]
fn a_damaged_journal_gives_no_report() {
    let lab = lab();
    lab.execute(
        ".windlass/journal.db",
        "UPDATE events SET body = replace(body, 'hostile', 'hostilf') WHERE seq = 1",
    );
    let told = lab.run(&["report", "last"]);
    assert_eq!(told.code, 7, "{}", told.all());
    told.says("damaged run");
}

#[test]
fn every_command_has_a_manual_page() {
    let lab = Lab::new();
    lab.run(&["man"]).exits(0).says(".TH");
    lab.run(&["man", "-o", "man"]).exits(0);
    for page in ["windlass.1", "windlass-run.1", "windlass-report.1"] {
        assert!(lab.read(&format!("man/{page}")).contains(".SH"), "{page}");
    }
}

const PRINTS: &str = r#"
playbook: prints
description: "transfer \u202ESDNUOP\u202C\u200B now"
steps:
  - id: dump
    uses: command
    with:
      argv: [sh, -c, 'printf "\033]0;owned\007\033[2J\033[31mred\033[0m 10%%\r20%%\000\302\233\342\200\256x\n"; exit 1']
      effect: reads
    on_failure: continue
  - id: sign_off
    uses: approval
    with:
      prompt: "Pay \u202E000,1\u202C to \uFEFFbob\u2066?"
      show: { "na\u200Fme": "va\u202Dlue\u009b2J" }
      groups: [dba]
"#;

/// What programs and playbooks say neither reaches the terminal as a command nor reads otherwise than it is, in any form.
#[test]
fn no_form_obeys_or_hides_what_others_wrote() {
    let lab = Lab::new();
    lab.write("p.yaml", PRINTS);
    let plan = lab.run(&["plan", "p.yaml"]);
    let run = lab.run(&["run", "p.yaml", "--no-wait"]).exits(4);
    let mut all = vec![plan, run];
    for args in [
        &["show", "last"][..],
        &["show", "last", "--json"],
        &["logs"],
        &["logs", "--json"],
        &["logs", "last", "dump"],
        &["report"],
        &["report", "last", "--format", "json"],
        &["report", "last", "--format", "html"],
        &["plan", "p.yaml", "--format", "markdown"],
        &["plan", "p.yaml", "--format", "html"],
        &["plan", "p.yaml", "--format", "json"],
        &["runs"],
    ] {
        all.push(lab.run(args).exits(0));
    }
    let question = lab.run_as("bruno", &["approve", "last", "sign_off", "--drive"]);
    all.push(question);
    for done in &all {
        let bad = format!("{}{}", done.stdout, done.stderr)
            .chars()
            .find(|&c| {
                c.is_control() && !matches!(c, '\n' | '\t')
                    || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
            });
        assert_eq!(bad, None, "{}", done.all().escape_debug());
    }
    let asked = "Pay \\u{202e}000,1\\u{202c} to \\u{feff}bob\\u{2066}?";
    assert!(all[2].stdout.contains(asked), "{}", all[2].stdout);
    // The journal keeps the text, and JSON says it.
    let report: Json = json(&lab);
    assert_eq!(
        report["approvals"][0]["prompt"],
        "Pay \u{202e}000,1\u{202c} to \u{feff}bob\u{2066}?"
    );
}
