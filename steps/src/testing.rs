//! A host for tests of step kinds: real time, targets and secrets from a map, marks and evidence kept in memory.
use futures_util::future::BoxFuture;
use indexmap::IndexMap;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use windlass_engine::{
    expr::{Expr, ExprError, Vars},
    step::{
        DynStep, Evidence, Failure, Identity, Mark, Outcome, ParamError, Phase, Preview,
        PreviewContext, Probed, Resources, Resume, Revealed, RunInfo, StepContext, StepHost,
        Stream, Target, Undoes, Woken,
    },
    value::{Duration, SecretPart, SecretText, Timestamp, Value},
};

/// What the steps of a test see of their driver, and what they told it.
#[derive(Default)]
pub(crate) struct TestHost {
    targets: Mutex<HashMap<String, Target>>,
    secrets: Mutex<HashMap<String, String>>,
    vars: Vars,
    pub(crate) marks: Mutex<Vec<Mark>>,
    pub(crate) progress: Mutex<Vec<Value>>,
    pub(crate) evidence: Mutex<Vec<Evidence>>,
    pub(crate) printed: Mutex<Vec<(Stream, String)>>,
    /// Called when a mark comes, before it is durable; an error refuses it.
    pub(crate) on_mark: Mutex<Option<OnMark>>,
    resources: Resources,
}

type OnMark = Box<dyn FnMut() -> Result<(), Failure> + Send>;

#[expect(
    clippy::disallowed_methods,
    reason = "the tests' host is the clock of its steps"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

impl StepHost for TestHost {
    fn mark(&self, mark: Mark) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            if let Some(on_mark) = self.on_mark.lock().unwrap().as_mut() {
                on_mark()?;
            }
            self.marks.lock().unwrap().push(mark);
            Ok(())
        })
    }
    fn progress(&self, state: Value) -> BoxFuture<'_, Result<(), Failure>> {
        self.progress.lock().unwrap().push(state);
        Box::pin(async { Ok(()) })
    }
    fn evaluate(&self, expr: &Expr, extra: Vars) -> Result<Value, ExprError> {
        expr.evaluate(&self.vars.clone().and(extra))
    }
    fn target(&self, name: &str) -> Result<Target, Failure> {
        self.targets
            .lock()
            .unwrap()
            .get(name)
            .cloned()
            .ok_or_else(|| Failure::new("target.unknown", name))
    }
    fn met<'a>(
        &'a self,
        target: &'a Target,
        who: &'a Identity,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        let differs = target
            .identity
            .as_ref()
            .and_then(|before| who.differs(&target.name, before));
        Box::pin(async { differs.map_or(Ok(()), Err) })
    }
    fn reveal<'a>(&'a self, secret: &'a SecretText) -> BoxFuture<'a, Result<Revealed, Failure>> {
        let secrets = self.secrets.lock().unwrap();
        let text = secret
            .parts
            .iter()
            .map(|part| match part {
                SecretPart::Text(text) => text.clone(),
                SecretPart::Secret(name) => secrets.get(name).cloned().unwrap_or_default(),
            })
            .collect();
        Box::pin(async { Ok(Revealed::new(text)) })
    }
    fn now(&self) -> Timestamp {
        now()
    }
    fn of_wall(&self, at: Timestamp) -> Timestamp {
        at
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(duration.to_std()))
    }
    fn keep(&self, evidence: Evidence) {
        self.evidence.lock().unwrap().push(evidence);
    }
    fn print(&self, stream: Stream, text: &str) {
        self.printed.lock().unwrap().push((stream, text.to_owned()));
    }
    fn clean(&self, text: String) -> String {
        text
    }
    fn resources(&self) -> &Resources {
        &self.resources
    }
}

/// A folder, a SQLite target `db` in it, and a host.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) host: Arc<TestHost>,
    pub(crate) cancel: CancellationToken,
    pub(crate) timeout: Option<Duration>,
    pub(crate) attempt: u32,
    pub(crate) done_attempt: u32,
    pub(crate) undoes: Option<Undoes>,
    pub(crate) phase: Phase,
}

pub(crate) fn sqlite_target(name: &str, path: &Path) -> Target {
    target(name, "sqlite", &format!("sqlite:{}", path.display()))
}

pub(crate) fn target(name: &str, kind: &str, url: &str) -> Target {
    Target {
        name: name.to_owned(),
        kind: kind.to_owned(),
        url: Value::from(url),
        role: None,
        labels: IndexMap::new(),
        ledger: None,
        options: IndexMap::new(),
        identity: None,
        never: Vec::new(),
        avoid: Vec::new(),
        entry: None,
    }
}

impl Bench {
    /// With the target `db` made by this SQL.
    pub(crate) fn new(sql: &str) -> Self {
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
            host: Arc::new(TestHost {
                secrets: Mutex::new(HashMap::from([(
                    "pw".to_owned(),
                    "s3cr3t-canary".to_owned(),
                )])),
                ..TestHost::default()
            }),
            cancel: CancellationToken::new(),
            timeout: None,
            attempt: 1,
            done_attempt: 0,
            undoes: None,
            phase: Phase::Do,
        };
        bench.connect().execute_batch(sql).unwrap();
        bench.add(sqlite_target("db", &bench.path()));
        bench
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("db.sqlite")
    }

    pub(crate) fn add(&self, target: Target) {
        self.host
            .targets
            .lock()
            .unwrap()
            .insert(target.name.clone(), target);
    }

    /// Gives a secret its content.
    pub(crate) fn secret(&self, name: &str, content: &str) {
        let mut secrets = self.host.secrets.lock().unwrap();
        secrets.insert(name.to_owned(), content.to_owned());
    }

    /// Changes the target `db`.
    pub(crate) fn target(&self, change: impl FnOnce(&mut Target)) {
        change(self.host.targets.lock().unwrap().get_mut("db").unwrap());
    }

    pub(crate) fn connect(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    /// One value, read from outside.
    pub(crate) fn value<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.connect().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The bytes of the file and what else lies in the folder.
    pub(crate) fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        let mut all: Vec<(String, Vec<u8>)> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                (path.display().to_string(), std::fs::read(&path).unwrap())
            })
            .collect();
        all.sort();
        all
    }

    fn run(&self) -> RunInfo {
        RunInfo {
            id: "run-0000-1".to_owned(),
            short_id: "000000-1".to_owned(),
            playbook: "test".to_owned(),
            environment: "test".to_owned(),
            by: "ana".to_owned(),
            account: None,
            started_at: now(),
            url: None,
        }
    }

    pub(crate) fn context(&self) -> StepContext {
        StepContext {
            run: self.run(),
            digest: "digest".to_owned(),
            node: "step".into(),
            phase: self.phase,
            attempt: self.attempt,
            done_attempt: self.done_attempt,
            undoes: self.undoes.clone(),
            first_started_at: now(),
            deadline: self.timeout.map(|timeout| timeout.after(now())),
            cancel: self.cancel.clone(),
            host: self.host.clone(),
        }
    }

    pub(crate) fn preview_context(&self, rehearse: bool) -> PreviewContext {
        PreviewContext {
            run: self.run(),
            node: "step".into(),
            rehearse,
            cancel: self.cancel.clone(),
            host: self.host.clone(),
        }
    }

    pub(crate) async fn preview(&self, kind: &str, with: Value) -> Result<Preview, Failure> {
        step(kind, with).preview(&self.preview_context(false)).await
    }

    pub(crate) async fn rehearse(&self, kind: &str, with: Value) -> Result<Preview, Failure> {
        step(kind, with).preview(&self.preview_context(true)).await
    }

    /// Executes, called again at checkpoints, until it is done or suspends.
    pub(crate) async fn outcome(
        &self,
        kind: &str,
        with: Value,
        mut resume: Resume<Value>,
    ) -> Result<Outcome<Value, Value>, Failure> {
        let step = step(kind, with);
        let cx = self.context();
        let capture = step.capture(&cx).await?;
        loop {
            match step.execute(&capture, resume, &cx).await? {
                Outcome::Checkpoint(state) => {
                    resume = Resume {
                        state,
                        resumed: true,
                        woken: None,
                    };
                }
                outcome @ (Outcome::Done(_) | Outcome::Suspend { .. }) => return Ok(outcome),
            }
        }
    }

    /// Executes a step that is done in one go.
    pub(crate) async fn execute(&self, kind: &str, with: Value) -> Result<Value, Failure> {
        match self.outcome(kind, with, fresh()).await? {
            Outcome::Done(output) => Ok(output),
            other @ (Outcome::Checkpoint(_) | Outcome::Suspend { .. }) => {
                panic!("not done: {other:?}")
            }
        }
    }

    /// Probes with the last mark.
    pub(crate) async fn probe(&self, kind: &str, with: Value) -> Result<Probed<Value>, Failure> {
        let mark = self.host.marks.lock().unwrap().last().cloned();
        step(kind, with)
            .probe(&Value::Null, mark.as_ref(), &self.context())
            .await
    }
}

pub(crate) fn fresh() -> Resume<Value> {
    Resume {
        state: Value::Null,
        resumed: false,
        woken: None,
    }
}

pub(crate) fn woken(state: Value, by: Woken) -> Resume<Value> {
    Resume {
        state,
        resumed: true,
        woken: Some(by),
    }
}

/// Parameters, written as JSON.
pub(crate) fn with(json: serde_json::Value) -> Value {
    serde_json::from_value(json).unwrap()
}

pub(crate) fn try_step(kind: &str, with: &Value) -> Result<Arc<dyn DynStep>, Vec<ParamError>> {
    (crate::registry().kind(kind).unwrap().prepare)(with)
}

pub(crate) fn step(kind: &str, with: Value) -> Arc<dyn DynStep> {
    try_step(kind, &with).unwrap()
}
