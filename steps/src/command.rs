//! `command`
use indexmap::IndexMap;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use windlass_engine::{
    step::{
        Cause, Certainty, Effect, Evidence, Failure, Fidelity, Outcome, ParamError, Preview,
        PreviewContext, Redo, Resume, Step, StepContext, StepKind, StepTraits, UndoSupport,
        params::Text,
    },
    value::{Duration, Size, Value},
};

/// Runs a program, without a shell. Its process group is ended on a timeout or a cancel.
///
/// Where the engine is killed the program runs on, so a command that writes is then in doubt, unless it is
/// `idempotent`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandParams {
    /// The program and its arguments.
    pub argv: Vec<Text>,
    /// Environment variables; a value may be a secret.
    #[serde(default)]
    pub env: IndexMap<String, Value>,
    /// Variables of the engine's own environment that are passed on; PATH where not given.
    #[serde(default = "path")]
    pub inherit_env: Vec<Text>,
    /// The working directory.
    #[serde(default)]
    pub cwd: Option<Text>,
    /// What it reads on its standard input.
    #[serde(default)]
    pub stdin: Option<Text>,
    /// Exit codes that are a success.
    #[serde(default = "zero")]
    pub expect_exit: Vec<i32>,
    /// `reads` where it changes nothing: then it may run again.
    #[serde(default)]
    pub effect: CommandEffect,
    /// Whether twice is as good as once.
    #[serde(default)]
    pub idempotent: bool,
    /// How much of each stream is kept.
    #[serde(default = "mebibyte")]
    pub max_output: Size,
    /// How the output is read into `value`.
    #[serde(default)]
    pub parse: Parse,
}

/// Whether a command changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandEffect {
    /// It does.
    #[default]
    Writes,
    /// It does not.
    Reads,
}

/// How output becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Parse {
    /// As text, without the last line break.
    #[default]
    Text,
    /// As JSON.
    Json,
    /// As a list of lines.
    Lines,
}

fn path() -> Vec<Text> {
    vec![Text("PATH".to_owned())]
}
fn zero() -> Vec<i32> {
    vec![0]
}
fn mebibyte() -> Size {
    Size(1 << 20)
}

/// How a command ended.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct CommandOutput {
    /// Its exit code; absent where a signal ended it.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Standard output, up to `max_output`.
    pub stdout: String,
    /// Standard error, up to `max_output`.
    pub stderr: String,
    /// Standard output as `parse` reads it.
    #[serde(default)]
    pub value: Value,
    /// Whether output was cut.
    pub truncated: bool,
}

/// The kind `command`.
pub struct Command;
/// A prepared command.
pub struct CommandStep(CommandParams);

impl StepKind for Command {
    const NAME: &'static str = "command";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::AskOperator,
        marks: false,
        captures: false,
        undo: UndoSupport::Impossible,
        fidelity: Fidelity::Unknown,
        skippable: true,
    };
    const EXAMPLE: &'static str = "argv: [pg_dump, --version]\neffect: reads\n";
    type Params = CommandParams;
    type Step = CommandStep;

    fn prepare(params: CommandParams) -> Result<CommandStep, Vec<ParamError>> {
        if params.argv.first().is_none_or(|program| program.is_empty()) {
            return Err(vec![ParamError::new("argv", "no program")]);
        }
        Ok(CommandStep(params))
    }

    fn traits(with: &Value) -> StepTraits {
        if with.get("effect").and_then(Value::as_str) == Some("reads") {
            return StepTraits {
                fidelity: Fidelity::Unknown,
                ..StepTraits::READ_ONLY
            };
        }
        if with.get("idempotent").and_then(Value::as_bool) == Some(true) {
            return StepTraits {
                redo: Redo::Repeatable,
                ..Self::TRAITS
            };
        }
        Self::TRAITS
    }
}

impl Step for CommandStep {
    type Capture = ();
    type State = ();
    type Output = CommandOutput;

    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        let argv: Vec<String> = self
            .0
            .argv
            .iter()
            .map(|arg| format!("{:?}", arg.0))
            .collect();
        let mut preview = Preview::new(Fidelity::Unknown, "would run a program; a plan does not")
            .line("argv", argv.join(" "));
        preview.binding = Value::list(
            self.0
                .argv
                .iter()
                .map(|arg| Value::from(arg.0.as_str()))
                .collect(),
        );
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<CommandOutput, ()>, Failure> {
        let mut child = self.spawn(cx).await?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        let max = usize::try_from(self.0.max_output.0).unwrap_or(0);
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let stdin = child.stdin.take();
        let input = self.0.stdin.as_ref().map(|text| text.0.clone());
        let feed = async move {
            if let (Some(mut pipe), Some(text)) = (stdin, input) {
                // A program that does not read its input to the end says so by its exit code.
                drop(pipe.write_all(text.as_bytes()).await);
            }
        };
        let work =
            async { tokio::join!(child.wait(), capped(stdout, max), capped(stderr, max), feed) };
        tokio::pin!(work);
        let late = async {
            match cx.remaining() {
                Some(left) => cx.host.sleep(left).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = &mut work => ended,
            () = late => return Err(self.end(group, work, Cause::Timeout).await),
            () = cx.cancel.cancelled() => return Err(self.end(group, work, Cause::Cancelled).await),
        };
        let (status, (stdout, cut), (stderr, cut_too), ()) = ended;
        let status = status.map_err(|e| {
            Failure::new("command.wait", e.to_string()).certainty(Certainty::Unknown)
        })?;
        for (name, text, truncated) in [("stdout", &stdout, cut), ("stderr", &stderr, cut_too)] {
            if !text.is_empty() {
                cx.host.keep(Evidence {
                    name: name.to_owned(),
                    media_type: "text/plain".to_owned(),
                    content: Value::from(text.as_str()),
                    size: text.len() as u64,
                    truncated,
                });
            }
        }
        let output = CommandOutput {
            exit_code: status.code(),
            value: Value::Null,
            stdout,
            stderr,
            truncated: cut || cut_too,
        };
        self.judge(output, &status.to_string()).map(Outcome::Done)
    }
}

impl CommandStep {
    async fn spawn(&self, cx: &StepContext) -> Result<tokio::process::Child, Failure> {
        let program = self
            .0
            .argv
            .first()
            .map(|arg| arg.0.clone())
            .unwrap_or_default();
        let mut command = tokio::process::Command::new(&program);
        command
            .args(self.0.argv.iter().skip(1).map(|arg| &arg.0))
            .env_clear();
        for name in &self.0.inherit_env {
            if let Some(value) = std::env::var_os(&name.0) {
                command.env(&name.0, value);
            }
        }
        for (name, value) in &self.0.env {
            command.env(name, cx.reveal(value).await?.expose());
        }
        if let Some(cwd) = &self.0.cwd {
            command.current_dir(&cwd.0);
        }
        command
            .stdin(if self.0.stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                Failure::new("command.not_started", format!("{program}: {error}"))
                    .help("check that the program is installed where the engine runs, and PATH")
            })
    }

    /// Asks the whole group to end, then kills it.
    async fn end(
        &self,
        group: Option<Pid>,
        work: impl Future<Output = impl Sized>,
        cause: Cause,
    ) -> Failure {
        let signal = |signal| {
            if let Some(group) = group {
                // It may have ended meanwhile: then there is nothing to end.
                killpg(group, signal).ok();
            }
        };
        signal(Signal::SIGTERM);
        let mut ended = false;
        tokio::pin!(work);
        for _ in 0..50 {
            tokio::select! {
                _ = &mut work => { ended = true; }
                () = pause(Duration::from_millis(100)) => {}
            }
            if ended {
                break;
            }
        }
        signal(Signal::SIGKILL);
        let why = if cause == Cause::Timeout {
            "took too long"
        } else {
            "was cancelled"
        };
        let argv = self.0.argv.first().map(|a| a.0.clone()).unwrap_or_default();
        let certainty = if self.0.effect == CommandEffect::Reads {
            Certainty::NoEffect
        } else {
            Certainty::Unknown
        };
        Failure::new(
            "command.ended",
            format!("{argv} {why}; its process group was ended"),
        )
        .cause(cause)
        .certainty(certainty)
    }

    fn judge(&self, mut output: CommandOutput, status: &str) -> Result<CommandOutput, Failure> {
        let failed = |output: &CommandOutput, code: &str, message: String| {
            let certainty = if self.0.effect == CommandEffect::Reads {
                Certainty::NoEffect
            } else {
                Certainty::Partial
            };
            Failure::new(code, message)
                .certainty(certainty)
                .output(windlass_engine::value::to_value(output).unwrap_or_default())
        };
        if !output
            .exit_code
            .is_some_and(|code| self.0.expect_exit.contains(&code))
        {
            let last = output
                .stderr
                .trim_end()
                .lines()
                .last()
                .unwrap_or_default()
                .to_owned();
            let argv = self.0.argv.first().map(|a| a.0.clone()).unwrap_or_default();
            return Err(failed(
                &output,
                "command.failed",
                format!("{argv} ended with {status}: {last}"),
            ));
        }
        output.value = match self.0.parse {
            Parse::Text => Value::from(output.stdout.trim_end_matches('\n')),
            Parse::Lines => Value::list(output.stdout.lines().map(Value::from).collect()),
            Parse::Json => match serde_json::from_str(&output.stdout) {
                Ok(value) => value,
                Err(error) => {
                    return Err(failed(
                        &output,
                        "command.not_json",
                        format!("its output is not JSON: {error}"),
                    ));
                }
            },
        };
        Ok(output)
    }
}

/// A short pause that no cancel ends.
async fn pause(duration: Duration) {
    tokio::time::sleep(duration.to_std()).await;
}

/// Reads a stream to its end and keeps the first `max` bytes.
async fn capped(stream: Option<impl AsyncReadExt + Unpin>, max: usize) -> (String, bool) {
    let Some(mut stream) = stream else {
        return (String::new(), false);
    };
    let mut kept = Vec::new();
    let mut cut = false;
    let mut buffer = vec![0; 8_192];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        let room = max.saturating_sub(kept.len());
        cut |= read > room;
        kept.extend(buffer.iter().take(read.min(room)));
    }
    (String::from_utf8_lossy(&kept).into_owned(), cut)
}
