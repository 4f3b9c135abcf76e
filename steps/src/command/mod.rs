//! `command`
mod process;
#[cfg(test)]
mod tests;

use crate::target::{Until, client_environment};
use indexmap::IndexMap;
use process::{Caught, Ended, Request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Cause, Certainty, Effect, Evidence, Failure, Fidelity, Figure, Outcome, ParamError,
        Preview, PreviewContext, Redo, Resume, Revealed, Step, StepContext, StepKind, StepTraits,
        UndoSupport,
        params::{TargetName, Text},
    },
    value::{Decimal, Size, Value, to_value},
};

/// Runs a program, without a shell.
///
/// The program gets the arguments as they are: nothing is split, expanded or interpreted. Its environment is empty
/// but for `PATH`, what `inherit_env` names and what `env` sets; a secret goes by `env` or `stdin`, never by an
/// argument, which every process of the host can read.
///
/// The program is the leader of a process group of its own. When the step's timeout comes or it is cancelled, the whole
/// group is asked to end (SIGTERM) and after five seconds is killed. What a program that ended by itself has left in
/// the background is left alone.
///
/// Both outputs are kept as evidence and in the step's output, each up to `max_output`; `windlass logs` shows them while the
/// program runs. An exit code that is not in
/// `expect_exit` fails the step, with its output.
///
/// **After a crash** it is not known whether the program had run, and a program whose engine was killed runs on. So
/// the step is in doubt, unless it has `effect: reads` or `idempotent: true` (then it runs again) or a `probe`. A
/// program that failed or was ended half-way may have done a part of its work: the step's `undo` runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandParams {
    /// The program and its arguments.
    #[schemars(length(min = 1))]
    argv: Vec<Text>,
    /// Variables of its environment; a value may be a secret.
    #[serde(default)]
    env: IndexMap<String, Value>,
    /// A PostgreSQL target that the program connects to: it gets place, login and TLS in the variables of libpq (`PGHOST`,
    /// `PGPASSWORD`, …), after the target was seen to be the one that is meant. Its `HOME` is the engine's, for `.pgpass`.
    connect: Option<TargetName>,
    /// Variables that it takes from the environment of the engine.
    #[serde(default = "path")]
    inherit_env: Vec<String>,
    /// Its working directory; by default the engine's.
    cwd: Option<Text>,
    /// What it reads on its standard input; may be a secret. Without, it reads nothing.
    stdin: Option<Value>,
    /// The exit codes that are a success.
    #[serde(default = "zero")]
    expect_exit: Vec<i32>,
    /// Whether it `reads` only or `writes`.
    #[serde(default)]
    effect: CommandEffect,
    /// Whether running it twice is as good as once, so that recovery may run it again.
    #[serde(default)]
    idempotent: bool,
    /// How much of each output to keep.
    #[serde(default = "mebibyte")]
    max_output: Size,
    /// How to read the standard output as `value`.
    #[serde(default)]
    parse: Parse,
}

fn path() -> Vec<String> {
    vec!["PATH".to_owned()]
}
fn zero() -> Vec<i32> {
    vec![0]
}
fn mebibyte() -> Size {
    Size(1 << 20)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum CommandEffect {
    /// It changes nothing.
    Reads,
    /// It may change something.
    #[default]
    Writes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Parse {
    /// As text, without the line break at its end.
    #[default]
    Text,
    /// As JSON.
    Json,
    /// As a list of lines.
    Lines,
}

/// What the program gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CommandOutput {
    /// Its exit code; 128 and the signal's number where a signal ended it.
    exit_code: i32,
    /// Its standard output.
    stdout: String,
    /// Its standard error.
    stderr: String,
    /// How many bytes it wrote to its standard output, those that are not kept included.
    #[serde(default)]
    stdout_bytes: u64,
    /// How many bytes it wrote to its standard error, those that are not kept included.
    #[serde(default)]
    stderr_bytes: u64,
    /// The standard output as `parse` reads it.
    value: Value,
    /// Whether an output was longer than `max_output`, and the rest is lost.
    truncated: bool,
}

pub(crate) struct Command(CommandParams);

impl StepKind for Command {
    const NAME: &'static str = "command";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::AskOperator,
        marks: false,
        captures: false,
        undo: UndoSupport::Impossible,
        fidelity: Fidelity::Simulated,
        skippable: true,
    };
    const EXAMPLE: &'static str = "\
argv: [pgbackrest, info, --output=json]
inherit_env: [PATH, HOME]
effect: reads
parse: json
";
    type Params = CommandParams;
    type Step = Self;

    fn traits(with: &Value) -> StepTraits {
        let reads = with.get("effect").and_then(Value::as_str) == Some("reads");
        let idempotent = with.get("idempotent").and_then(Value::as_bool) == Some(true);
        let mut traits = Self::TRAITS;
        if reads {
            traits.effect = Effect::ReadOnly;
            traits.undo = UndoSupport::None;
        }
        if reads || idempotent {
            traits.redo = Redo::Repeatable;
        }
        traits
    }

    fn retried(with: &Value) -> &'static [Cause] {
        let traits = Self::traits(with);
        match (traits.redo == Redo::Repeatable, with.get("connect")) {
            // It asks a server only for the target that it connects to.
            (true, None | Some(Value::Null)) => &[Cause::Timeout, Cause::Permanent],
            (true, Some(_)) => &[Cause::ConnectionLost, Cause::Timeout, Cause::Permanent],
            // Once it has started, a part of its work may be done; what is left is that it cannot be started.
            (false, None | Some(Value::Null)) => &[Cause::Permanent],
            (false, Some(_)) => &[Cause::ConnectionLost, Cause::Permanent],
        }
    }

    fn prepare(params: CommandParams) -> Result<Self, Vec<ParamError>> {
        let mut errors = Vec::new();
        if params.argv.first().is_none_or(|program| program.is_empty()) {
            errors.push(ParamError::new("argv", "the program is missing"));
        }
        for (at, arg) in params.argv.iter().enumerate() {
            if arg.contains('\0') {
                errors.push(ParamError::new(
                    format!("argv[{at}]"),
                    "an argument cannot hold NUL",
                ));
            }
        }
        for name in params.env.keys().chain(&params.inherit_env) {
            if name.is_empty() || name.contains(['=', '\0']) {
                errors.push(ParamError::new(
                    "env",
                    format!("{name:?} is no name of a variable"),
                ));
            }
        }
        for (name, value) in &params.env {
            if matches!(value, Value::List(_) | Value::Map(_) | Value::Null) {
                errors.push(
                    ParamError::new(
                        format!("env.{name}"),
                        format!("a variable is text, not a {}", value.type_name()),
                    )
                    .help("write json(…) to pass a structure"),
                );
            }
        }
        if params.max_output.0 <= 0 {
            errors.push(ParamError::new("max_output", "must be more than nothing"));
        }
        if params.expect_exit.is_empty() {
            errors.push(ParamError::new(
                "expect_exit",
                "no exit code would be a success",
            ));
        }
        if errors.is_empty() {
            Ok(Self(params))
        } else {
            Err(errors)
        }
    }
}

/// JSON of a program is data: a map that looks like one of the engine's tagged values stays a map.
pub(crate) fn plain(json: serde_json::Value) -> Value {
    use serde_json::Value as J;
    match json {
        J::Null => Value::Null,
        J::Bool(b) => Value::Bool(b),
        J::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::Int(i),
            (None, Some(u)) => Value::Decimal(Decimal::from(u)),
            (None, None) => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        J::String(text) => Value::from(text),
        J::Array(items) => Value::list(items.into_iter().map(plain).collect()),
        J::Object(map) => Value::map(map.into_iter().map(|(key, value)| (key, plain(value)))),
    }
}

impl Command {
    fn shown(&self) -> String {
        let words = self.0.argv.iter().map(|arg| {
            let bare = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
            if !arg.is_empty() && arg.chars().all(bare) {
                arg.0.clone()
            } else {
                format!("'{}'", arg.replace('\'', "'\\''"))
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// What a program that started and did not succeed may have done.
    fn certainty(&self) -> Certainty {
        match self.0.effect {
            CommandEffect::Reads => Certainty::NoEffect,
            CommandEffect::Writes => Certainty::Partial,
        }
    }

    async fn request(&self, cx: &StepContext) -> Result<Request, Failure> {
        let mut env: Vec<(String, Revealed)> = Vec::new();
        for name in &self.0.inherit_env {
            if let Ok(value) = std::env::var(name) {
                env.push((name.clone(), Revealed::new(value)));
            }
        }
        if let Some(name) = &self.0.connect {
            let target = cx.target(name)?;
            let until = Until::of(cx, &target, None)?;
            for (name, value) in client_environment(cx.host.as_ref(), &target, &until).await? {
                env.push((name.to_owned(), value));
            }
            if let Ok(home) = std::env::var("HOME") {
                env.push(("HOME".to_owned(), Revealed::new(home)));
            }
        }
        for (name, value) in &self.0.env {
            env.push((name.clone(), cx.reveal(value).await?));
        }
        Ok(Request {
            argv: self.0.argv.iter().map(|arg| arg.0.clone()).collect(),
            env,
            cwd: self.0.cwd.as_ref().map(|cwd| cwd.0.clone()),
            stdin: match &self.0.stdin {
                Some(stdin) => Some(cx.reveal(stdin).await?),
                None => None,
            },
            cap: usize::try_from(self.0.max_output.0).unwrap_or(usize::MAX),
        })
    }

    fn value(&self, stdout: &str, truncated: bool) -> Result<Value, String> {
        Ok(match self.0.parse {
            Parse::Text => Value::from(stdout.strip_suffix('\n').unwrap_or(stdout)),
            Parse::Lines => Value::list(stdout.lines().map(Value::from).collect()),
            Parse::Json if truncated => {
                return Err(
                    "its output is longer than max_output, so it is no whole JSON".to_owned(),
                );
            }
            Parse::Json => plain(
                serde_json::from_str(stdout)
                    .map_err(|error| format!("its output is no JSON: {error}"))?,
            ),
        })
    }

    fn keep(cx: &StepContext, name: &str, caught: &Caught) {
        if caught.size > 0 {
            cx.host.keep(Evidence {
                name: name.to_owned(),
                media_type: "text/plain".to_owned(),
                content: Value::from(caught.text()),
                size: caught.size,
                truncated: caught.truncated(),
            });
        }
    }
}

impl Step for Command {
    type Capture = ();
    type State = ();
    type Output = CommandOutput;

    fn figures(output: &CommandOutput) -> Vec<Figure> {
        let mut figures = vec![Figure::code("exit", "exit", i64::from(output.exit_code))];
        for (name, size, kept, what) in [
            ("stdout", output.stdout_bytes, output.stdout.len(), ""),
            (
                "stderr",
                output.stderr_bytes,
                output.stderr.len(),
                "on stderr",
            ),
        ] {
            // Outputs of before do not have the size.
            let size = size.max(kept as u64);
            if size > 0 {
                figures.push(Figure::bytes(name, size, what));
            }
        }
        figures
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let mut preview =
            Preview::new(Fidelity::Simulated, "would run a program").line("argv", self.shown());
        if let Some(cwd) = &self.0.cwd {
            preview = preview.line("cwd", cwd.0.clone());
        }
        if let Some(name) = &self.0.connect {
            let target = cx.target(name)?;
            let place = target
                .identity
                .map(|who| format!(", which is {}", who.instance));
            preview = preview.line(
                "connects to",
                format!("{}{}", target.name, place.unwrap_or_default()),
            );
        }
        let names: Vec<&str> = self
            .0
            .inherit_env
            .iter()
            .chain(self.0.env.keys())
            .map(String::as_str)
            .collect();
        preview = preview.line("environment", names.join(", "));
        for value in self.0.env.values().chain(&self.0.stdin) {
            if let Value::Secret(secret) = value {
                preview.secrets.extend(secret.names().map(str::to_owned));
            }
        }
        preview = preview.line(
            "after a crash",
            if self.0.idempotent || self.0.effect == CommandEffect::Reads {
                "it runs again"
            } else {
                "it is in doubt"
            },
        );
        preview.binding = Value::map([
            (
                "argv",
                Value::list(
                    self.0
                        .argv
                        .iter()
                        .map(|arg| Value::from(arg.0.as_str()))
                        .collect(),
                ),
            ),
            (
                "cwd",
                self.0
                    .cwd
                    .as_ref()
                    .map_or(Value::Null, |cwd| Value::from(cwd.0.as_str())),
            ),
        ]);
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<CommandOutput, ()>, Failure> {
        let program = self
            .0
            .argv
            .first()
            .map(|arg| arg.0.clone())
            .unwrap_or_default();
        let request = self.request(cx).await?;
        let ran = process::run(request, cx).await.map_err(|error| {
            Failure::new(
                "command.not_started",
                format!("{program} could not be started: {error}"),
            )
            .help("check argv, cwd and the PATH of the engine")
        })?;
        Self::keep(cx, "stdout", &ran.stdout);
        Self::keep(cx, "stderr", &ran.stderr);
        let stdout = ran.stdout.text();
        let truncated = ran.stdout.truncated() || ran.stderr.truncated();
        let read = self.value(&stdout, ran.stdout.truncated());
        let mut output = CommandOutput {
            exit_code: match ran.ended {
                Ended::Exit(code) => code,
                Ended::Signal(signal) => 128 + signal,
                Ended::Stopped { .. } => 128 + 15,
            },
            stderr: ran.stderr.text(),
            stdout_bytes: ran.stdout.size,
            stderr_bytes: ran.stderr.size,
            value: Value::Null,
            stdout,
            truncated,
        };
        let failed = |code: &str, message: String, output: &CommandOutput| {
            Failure::new(code, message)
                .certainty(self.certainty())
                .output(to_value(output).unwrap_or_default())
        };
        let last = ran
            .stderr
            .last_line(cx)
            .or_else(|| ran.stdout.last_line(cx));
        let said = last.map(|line| format!(": {line}")).unwrap_or_default();
        match ran.ended {
            Ended::Exit(code) if self.0.expect_exit.contains(&code) => {
                output.value = read.map_err(|why| {
                    failed(
                        "command.output",
                        format!("{program} ended well, but {why}"),
                        &output,
                    )
                })?;
                Ok(Outcome::Done(output))
            }
            Ended::Exit(code) => Err(failed(
                "command.exit",
                format!("{program} ended with exit code {code}{said}"),
                &output,
            )),
            Ended::Signal(signal) => Err(failed(
                "command.signal",
                format!("{program} was ended by signal {signal}{said}"),
                &output,
            )),
            Ended::Stopped { timed_out, gone } => {
                let (code, why, cause) = if timed_out {
                    ("command.timeout", "its time was over", Cause::Timeout)
                } else {
                    (
                        "command.cancelled",
                        "the step is cancelled",
                        Cause::Cancelled,
                    )
                };
                let failure = failed(
                    code,
                    format!("{program} and what it had started were ended: {why}{said}"),
                    &output,
                )
                .cause(cause);
                if gone {
                    return Err(failure);
                }
                Err(failure.certainty(Certainty::Unknown).help(
                    "a process of it did not end even when it was killed; look for it on this host",
                ))
            }
        }
    }
}
