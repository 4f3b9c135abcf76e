fn main() {
    use windlass_engine::{compile, source};
    let registry = windlass_steps::registry();
    if let Some(path) = std::env::args().nth(1) {
        let text = std::fs::read_to_string(&path).unwrap();
        let c = compile::compile(&path, &text, &registry, &compile::Disk);
        for d in &c.diagnostics {
            println!("{}", d.render(c.text_of(d)));
        }
        println!("{}", c.graph.is_some());
        std::fs::write(
            "/tmp/playbook.schema.json",
            serde_json::to_string_pretty(&windlass_engine::playbook::schema(&registry)).unwrap(),
        )
        .unwrap();
        return;
    }
    for kind in registry.kinds() {
        let with: String = kind
            .example
            .lines()
            .map(|l| format!("      {l}\n"))
            .collect();
        let text = format!(
            "playbook: a\ntargets:\n  db: {{ kind: sqlite }}\n  orders: {{ kind: sqlite }}\nsteps:\n  - id: it\n    uses: {}\n    with:\n{with}",
            kind.name
        );
        let c = compile::compile("x", &text, &registry, &compile::NoFiles);
        for d in c.diagnostics.iter().filter(|d| d.is_error()) {
            println!("{}", d.render(c.text_of(d)));
        }
    }
    for n in [10_000usize, 40_000] {
        for (what, step) in [
            ("compact", "- {id: s%, uses: script, with: {script: '1'}}\n"),
            (
                "sql",
                "- id: s%\n  uses: sql.query\n  with: { target: db, sql: SELECT 1 }\n",
            ),
            (
                "expr",
                "- id: s%\n  uses: sql.query\n  when: inputs.n > 0\n  with: { target: db, sql: SELECT 1 }\n",
            ),
        ] {
            let mut text = String::from(
                "playbook: big\ninputs: { n: { type: integer, default: 1 } }\ntargets: { db: { kind: sqlite } }\nsteps:\n",
            );
            for i in 0..n {
                text.push_str(&step.replace('%', &i.to_string()));
            }
            let t = std::time::Instant::now();
            let p = source::parse("x", &text);
            let a = t.elapsed();
            let t = std::time::Instant::now();
            let c = compile::compile("x", &text, &registry, &compile::NoFiles);
            println!(
                "{n} {what}: {} bytes parse {a:?} ({}) compile {:?} ({})",
                text.len(),
                p.diagnostics.len(),
                t.elapsed(),
                c.diagnostics.len()
            );
            if let Some(d) = c.diagnostics.first() {
                println!("{}", d.message);
            }
        }
    }
}
