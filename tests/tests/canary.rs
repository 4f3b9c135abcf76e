//! Secrets that are planted, used and echoed in every way, and then searched for wherever Windlass writes.
#![expect(
    clippy::unwrap_used,
    reason = "what a test shares may panic as the test may"
)]
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;
use windlass_tests::program::windlass;

const BY_ENV: &str = "canary-env-Zq8'x/+7 w&Ft";
const BY_FILE: &str = "canary-file-9fKw\"2\\bT%41z";
const BY_COMMAND: &str = "canary-command-7yLm4RtQx";
const IN_PATH: &str = "canary-path-3hVn8Bd";
const PLAIN: &str = "canary-plain-5tGc1Ws";
/// No secret: the search must find it, or it finds nothing.
const CONTROL: &str = "control-4kPj6Xe-no-secret";

const SECRETS: [&str; 5] = [BY_ENV, BY_FILE, BY_COMMAND, IN_PATH, PLAIN];

/// A folder with an environment in which a secret comes from everywhere, and a database whose path holds one.
struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        lab.write(
            "windlass.yaml",
            "\
environments:
  local:
    secrets:
      by_env: { env: CANARY_ENV }
      by_file: { file: keep/file }
      by_command: { command: [./keep/give, now] }
      folder: { env: CANARY_PATH, ttl: 5m }
    targets:
      shop: { url: 'sqlite:data/${{ secret(\"folder\") }}/shop.db', create: true, ledger: ledger }
",
        );
        lab.write("keep/file", &format!("{BY_FILE}\n"));
        lab.mode("keep/file", 0o600);
        lab.write(
            "keep/give",
            &format!(
                "#!/bin/sh\necho 'asking the vault for {BY_COMMAND}' >&2\necho '{BY_COMMAND}'\n"
            ),
        );
        lab.mode("keep/give", 0o700);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(windlass());
        command
            .args(args)
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("WINDLASS_USER", "ana")
            .env("CANARY_ENV", BY_ENV)
            .env("CANARY_PATH", IN_PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Every file that Windlass wrote here: not where the secrets are kept, and not the database that a secret names.
    fn written(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        collect(self.0.path(), &mut files);
        files.retain(|(name, _)| {
            !name.contains("/keep/") && !name.contains("/data/") && !name.ends_with(".yaml")
        });
        files
    }
}

fn collect(folder: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            into.push((path.display().to_string(), bytes));
        }
    }
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// In which form a text stands in these bytes, if it does.
fn found(haystack: &[u8], secret: &str) -> Option<String> {
    let mut forms = vec![
        secret.to_owned(),
        secret.replace('\'', "''"),
        serde_json::to_string(secret)
            .unwrap()
            .trim_matches('"')
            .to_owned(),
        secret.bytes().map(|b| format!("%{b:02x}")).collect(),
        secret.bytes().map(|b| format!("%{b:02X}")).collect(),
        secret.bytes().map(|b| format!("{b:02x}")).collect(),
        // A piece of it is as bad.
        secret.chars().skip(7).collect(),
    ];
    for before in ["", "x", "xx"] {
        let encoded = STANDARD_NO_PAD.encode(format!("{before}{secret}"));
        let skipped = [0, 2, 3][before.len()];
        let kept = encoded.len() - skipped - 2;
        let core: String = encoded.chars().skip(skipped).take(kept).collect();
        forms.push(core.replace('+', "-").replace('/', "_"));
        forms.push(core);
    }
    forms
        .into_iter()
        .find(|form| holds(haystack, form.as_bytes()))
}

#[track_caller]
fn clean(what: &str, bytes: &[u8]) {
    for secret in SECRETS {
        if let Some(form) = found(bytes, secret) {
            panic!(
                "{what} holds {form}:\n{}",
                String::from_utf8_lossy(bytes)
                    .chars()
                    .take(6_000)
                    .collect::<String>()
            );
        }
    }
}

#[track_caller]
fn clean_output(what: &str, output: &Output) {
    clean(what, &output.stdout);
    clean(what, &output.stderr);
}

const PLAYBOOK: &str = r#"
playbook: canaries
targets:
  shop: { kind: sqlite }
steps:
  - id: echo
    uses: command
    undo: none
    on_failure: continue
    with:
      argv:
        - sh
        - -c
        - |
          read -r line
          echo "control is $CONTROL"
          echo "env is $ENV_ONE and file is $line and both are $BOTH"
          printf %s "$ENV_ONE" | base64
          printf %s "app:$line" | base64 -w 0; echo
          printf %s "xx$ENV_ONE" | base64 -w 10
          printf %s "$ENV_ONE" | od -An -v -tx1 | tr -d ' \n'; echo
          printf %s "$line" | od -An -v -tx1 | tr -d '\n' | tr ' ' '%'; echo
          printf '%s' "$BOTH" | sed "s/'/''/g"; echo
          echo "on the way out: $ENV_ONE" >&2
      env:
        CONTROL: control-4kPj6Xe-no-secret
        ENV_ONE: ${{ secret("by_env") }}
        BOTH: "a ${{ secret('by_command') }} b ${{ secret('by_env') }}"
      stdin: |
        ${{ secret("by_file") }}
  - id: fails
    uses: command
    undo: none
    on_failure: continue
    with:
      argv: [sh, -c, 'echo "cannot log in with $PW" >&2; exit 3']
      env:
        PW: ${{ secret("by_command") }}
  - id: table
    uses: sql.script
    undo: none
    with:
      target: shop
      sql: CREATE TABLE IF NOT EXISTS users (name TEXT, password TEXT)
  - id: keep
    uses: sql.execute
    undo: none
    with:
      target: shop
      sql: INSERT INTO users VALUES ('app', :pw)
      params: { pw: "${{ secret('by_file') }}" }
  - id: read
    uses: sql.query
    with:
      target: shop
      sql: SELECT name, password, hex(password) AS hexed, length(password) AS size FROM users
  - id: again
    uses: command
    undo: none
    with:
      argv: [echo, "${{ steps.read.output.rows[0].password }}"]
outputs:
  first: ${{ steps.read.output.rows[0].password }}
"#;

/// Nothing that Windlass writes or prints holds a secret, and what is no secret is there.
#[test]
fn nothing_is_found_anywhere() {
    let lab = Lab::new();
    lab.write("canary.yaml", PLAYBOOK);
    let mut said = Vec::new();
    for format in ["text", "markdown", "json", "mermaid", "dot", "html"] {
        let plan = lab.run(&["plan", "canary.yaml", "--format", format]);
        clean_output(&format!("plan --format {format}"), &plan);
        assert!(
            plan.status.success(),
            "{}",
            String::from_utf8_lossy(&plan.stderr)
        );
        said.extend(plan.stdout);
    }
    let said = String::from_utf8(said).unwrap();
    for name in ["by_env", "by_file", "by_command", "folder"] {
        assert!(said.contains(name), "a plan names {name}:\n{said}");
    }
    let run = lab.run(&["run", "canary.yaml"]);
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert_eq!(
        run.status.code(),
        Some(1),
        "{text}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    clean_output("run", &run);
    let json = lab.run(&["run", "canary.yaml", "--json"]);
    clean_output("run --json", &json);
    let text = String::from_utf8(json.stdout).unwrap();
    assert!(text.contains(CONTROL), "{text}");
    for name in ["by_env", "by_file", "by_command"] {
        assert!(text.contains(&format!("«secret {name}»")), "{name}: {text}");
    }
    for format in ["markdown", "json", "html"] {
        let report = lab.run(&["report", "last", "--format", format]);
        let text = String::from_utf8_lossy(&report.stdout).into_owned();
        assert!(text.contains(CONTROL), "report --format {format}: {text}");
        clean_output(&format!("report --format {format}"), &report);
    }
    let pages: [&[&str]; 6] = [
        &["show", "last"],
        &["show", "last", "--json"],
        &["runs"],
        &["audit"],
        &["watch", "last"],
        &["doctor"],
    ];
    for page in pages {
        let output = lab.run(page);
        assert!(
            !output.stdout.is_empty(),
            "{page:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        clean_output(&page.join(" "), &output);
    }
    let written = lab.written();
    assert!(
        written
            .iter()
            .any(|(name, bytes)| name.contains("journal.db") && holds(bytes, CONTROL.as_bytes())),
        "the search finds what is there"
    );
    for (name, bytes) in &written {
        clean(name, bytes);
    }
}
