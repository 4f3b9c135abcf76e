//! `http`
use super::{
    client::{Answer, Body, Call, Caller, Proxy, ready, send},
    failure,
    status::Statuses,
    text::{in_the_clear, secrets, wrong_url},
};
use crate::command::plain;
use indexmap::IndexMap;
use reqwest::{Method, header::HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    expr::Vars,
    step::{
        Effect, Evidence, Failure, Fidelity, Figure, Mark, Outcome, ParamError, Preview,
        PreviewContext, Probed, Redo, Resume, Step, StepContext, StepKind, StepTraits, Stream,
        UndoSupport,
        params::{Expression, Text},
    },
    value::{Duration, Size, Value, to_value},
};

/// How long a request may take where the step has no `timeout`.
const TIME: Duration = Duration::from_secs(30);

/// Makes one HTTP request.
///
/// A request has `effect: writes` unless it says `effect: reads`. One that only reads is really made in
/// `windlass plan`; one that writes never is. The answer is a success when its status is one of `expect.status`
/// (by default any 2xx) and `expect.body` holds. The step's `timeout` (by default 30s) ends the
/// whole request, `connect_timeout` the wait for a connection.
///
/// **What happened** follows from how far a request that writes came. Without a connection nothing was sent, so nothing
/// happened, and `retry` may try again. A connection that was cut, or a time that was over, after the request went
/// leaves it in doubt. Of the answers that are not expected, 4xx, 304, 307, 308, 501, 505, and a 503 with `Retry-After`
/// mean that nothing happened; any other 5xx leaves it in doubt, since a gateway does not know what became of it; all
/// others, and an `expect.body` that does not hold, mean that it happened, at least in part: the step's `undo` runs.
/// `retry` repeats 408, 423, 425, 429, 502, 503 and 504 and lost connections, where nothing happened or the request is
/// `idempotent`.
///
/// **After a crash**, a request that was not sent yet is sent. One that was is in doubt, unless it has `effect: reads` or
/// `idempotent: true` (then it goes again) or the step has a `probe`, which may be an `http` that reads:
/// `probe: { uses: http, with: { url: …, effect: reads }, done: json.promoted }`.
///
/// TLS is verified. Secrets may stand in `url`, `query`, `headers`, `body` and `json`, and are shown nowhere.
/// Cookies that a service sets are not kept. The answer is kept as evidence, and in the output up to `max_body`: the
/// rest is not fetched.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpParams {
    /// `GET`, `POST`, `PUT`, `PATCH`, `DELETE`, `HEAD` or another method.
    #[serde(default = "get")]
    method: Text,
    /// `https://host/path`; may hold secrets.
    url: Value,
    /// Parameters of the url; a list gives one for each item. A value may be a secret.
    #[serde(default)]
    query: IndexMap<String, Value>,
    /// Headers; a value may be a secret or hold one: `Bearer ${{ secret("token") }}`.
    #[serde(default)]
    headers: IndexMap<String, Value>,
    /// The body as text; may be a secret. Its `Content-Type` is `text/plain` unless `headers` says otherwise.
    body: Option<Value>,
    /// The body as JSON, made of this value; secrets may stand anywhere in it.
    json: Option<Value>,
    /// What the answer must be.
    #[serde(default)]
    expect: Expect,
    /// Whether it `reads` only or `writes`.
    #[serde(default)]
    effect: HttpEffect,
    /// Whether the same request twice is as good as once, so that recovery may send it again.
    #[serde(default)]
    idempotent: bool,
    /// How long a connection, with its TLS, may take.
    #[serde(default = "connect_timeout")]
    connect_timeout: Duration,
    /// A file with the only certificate authorities to trust, in PEM form; by default the system's.
    ca_file: Option<Text>,
    /// Whether a proxy is used: `none`, or what the `environment` of the engine says (HTTPS_PROXY, NO_PROXY).
    #[serde(default)]
    proxy: Proxy,
    /// How many redirects to follow, within one scheme, host and port; only with `effect: reads`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10))]
    follow_redirects: u32,
    /// How much of the answer's body to fetch and keep.
    #[serde(default = "mebibyte")]
    max_body: Size,
}

fn get() -> Text {
    Text("GET".to_owned())
}
pub(super) fn connect_timeout() -> Duration {
    Duration::from_secs(5)
}
fn mebibyte() -> Size {
    Size(1 << 20)
}

/// What the answer must be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// The statuses that are a success: `200`, `2xx`, `200-204`, or a list of them.
    status: Option<Value>,
    /// What must hold of the answer: `json.state == "ready"`.
    #[schemars(extend("x-windlass-names" = ["body", "json", "headers", "status"]))]
    body: Option<Expression>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum HttpEffect {
    /// It changes nothing.
    Reads,
    /// It may change something.
    #[default]
    Writes,
}

/// The answer as `windlass logs` tells it: what was asked, its status, its body as far as it is kept.
fn answered(shown: &str, output: &HttpOutput) -> String {
    let body = match &output.body {
        Value::Null => String::new(),
        Value::Bytes(bytes) => format!("{} bytes that are no text\n", bytes.len()),
        text => format!("{}\n", text.to_string().trim_end_matches('\n')),
    };
    let cut = if output.truncated {
        "the rest of the body was not fetched: it is longer than max_body\n"
    } else {
        ""
    };
    format!("{shown}: {}\n{body}{cut}", output.status)
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct HttpOutput {
    /// Its status, such as `200`.
    status: u16,
    /// Its headers by their lower-case names.
    headers: IndexMap<String, String>,
    /// Its body: text, or bytes where it is not UTF-8.
    body: Value,
    /// Its body read as JSON; `null` where it is none, or was cut.
    json: Value,
    /// Whether the body was longer than `max_body`, and the rest was not fetched.
    truncated: bool,
    /// How long the exchange took.
    duration: Value,
}

pub(crate) struct Http {
    call: Call,
    statuses: Statuses,
    holds: Option<Expression>,
    writes: bool,
    idempotent: bool,
}

impl StepKind for Http {
    const NAME: &'static str = "http";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::AskOperator,
        marks: true,
        captures: false,
        undo: UndoSupport::Impossible,
        fidelity: Fidelity::Simulated,
        skippable: true,
    };
    const EXAMPLE: &'static str = "\
method: PUT
url: https://proxy.example.com/v1/backends/orders
headers:
  Authorization: Bearer ${{ secret(\"proxy\") }}
json:
  primary: db2.example.com
  port: 5432
expect:
  status: [200, 202]
  body: json.accepted == true
idempotent: true
";
    type Params = HttpParams;
    type Step = Self;

    fn traits(with: &Value) -> StepTraits {
        if with.get("effect").and_then(Value::as_str) == Some("reads") {
            return StepTraits::READ_ONLY;
        }
        let mut traits = Self::TRAITS;
        if with.get("idempotent").and_then(Value::as_bool) == Some(true) {
            traits.redo = Redo::Repeatable;
        }
        traits
    }

    fn prepare(params: HttpParams) -> Result<Self, Vec<ParamError>> {
        let mut errors = Vec::new();
        let writes = params.effect == HttpEffect::Writes;
        let method = Method::from_bytes(params.method.as_bytes()).ok();
        if method
            .as_ref()
            .is_none_or(|method| method.as_str().chars().any(|c| c.is_ascii_lowercase()))
        {
            errors.push(
                ParamError::new("method", format!("{:?} is no method", params.method.0))
                    .help("methods are written in capitals: GET, POST, PUT, PATCH, DELETE, HEAD"),
            );
        }
        if let Some((message, help)) = wrong_url(&params.url) {
            errors.push(ParamError::new("url", message).help(help));
        }
        for (name, value) in &params.query {
            let one = std::slice::from_ref(value);
            if value.as_list().unwrap_or(one).iter().any(nested) {
                errors.push(
                    ParamError::new(
                        format!("query.{name}"),
                        "a parameter of a url is text, or a list of texts",
                    )
                    .help("write json(…) to pass a structure"),
                );
            }
        }
        headers(&params.headers, &mut errors);
        let body = match (params.body, params.json) {
            (Some(_), Some(_)) => {
                errors.push(ParamError::new(
                    "json",
                    "a request has one body: give `body` or `json`",
                ));
                None
            }
            (Some(text), None) => {
                if nested(&text) {
                    errors.push(
                        ParamError::new(
                            "body",
                            format!("a body is text, not a {}", text.type_name()),
                        )
                        .help("give a structure as `json`"),
                    );
                }
                Some(Body::Text(text))
            }
            (None, Some(json)) => Some(Body::Json(json)),
            (None, None) => None,
        };
        let statuses = match params.expect.status.as_ref().map(Statuses::parse) {
            None => Statuses::success(),
            Some(Ok(statuses)) => statuses,
            Some(Err(message)) => {
                errors.push(ParamError::new("expect.status", message));
                Statuses::success()
            }
        };
        if params.connect_timeout <= Duration::ZERO {
            errors.push(ParamError::new(
                "connect_timeout",
                "must be longer than nothing",
            ));
        }
        if params.max_body.0 <= 0 {
            errors.push(ParamError::new("max_body", "must be more than nothing"));
        }
        if params.follow_redirects > 0 && writes {
            errors.push(
                ParamError::new(
                    "follow_redirects",
                    "a request that writes is not sent on to another place",
                )
                .help("name the place in `url`, or say `effect: reads` if it only reads"),
            );
        }
        if params.follow_redirects > 10 {
            errors.push(ParamError::new("follow_redirects", "10 is the most"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            call: Call {
                method: method.unwrap_or(Method::GET),
                url: params.url,
                query: params.query,
                headers: params.headers,
                body,
                connect_timeout: params.connect_timeout,
                ca_file: params.ca_file.map(|path| path.0),
                proxy: params.proxy,
                redirects: params.follow_redirects,
                max_body: usize::try_from(params.max_body.0).unwrap_or(usize::MAX),
            },
            statuses,
            holds: params.expect.body,
            writes,
            idempotent: params.idempotent,
        })
    }
}

fn nested(value: &Value) -> bool {
    matches!(value, Value::List(_) | Value::Map(_) | Value::Null)
}

/// Headers that a playbook may set.
pub(super) fn headers(headers: &IndexMap<String, Value>, errors: &mut Vec<ParamError>) {
    for (name, value) in headers {
        let path = format!("headers.{name}");
        match HeaderName::from_bytes(name.as_bytes()) {
            Err(_) => errors.push(ParamError::new(path, format!("{name:?} is no header"))),
            Ok(header)
                if [
                    "content-length",
                    "transfer-encoding",
                    "connection",
                    "expect",
                    "upgrade",
                ]
                .contains(&header.as_str()) =>
            {
                errors.push(ParamError::new(
                    path,
                    format!("{name} follows from the request and cannot be set"),
                ));
            }
            Ok(_) if nested(value) => errors.push(ParamError::new(
                path,
                format!("a header is text, not a {}", value.type_name()),
            )),
            Ok(_) => {}
        }
    }
}

/// The body of an answer: text, or bytes where it is not UTF-8. A character that the cap cut in two is left out.
fn content(answer: &Answer) -> Value {
    match std::str::from_utf8(&answer.body) {
        Ok(text) => Value::from(text),
        Err(error) if answer.truncated && error.error_len().is_none() => {
            let whole = answer.body.get(..error.valid_up_to()).unwrap_or_default();
            Value::from(String::from_utf8_lossy(whole).into_owned())
        }
        Err(_) => Value::Bytes(answer.body.as_slice().into()),
    }
}

impl HttpOutput {
    fn of(answer: &Answer, took: Duration) -> Self {
        let mut headers = answer.headers.clone();
        if let Some(cookie) = headers.get_mut("set-cookie") {
            "(not kept)".clone_into(cookie);
        }
        Self {
            status: answer.status,
            headers,
            body: content(answer),
            json: if answer.truncated {
                Value::Null
            } else {
                serde_json::from_slice(&answer.body).map_or(Value::Null, plain)
            },
            truncated: answer.truncated,
            duration: Value::Duration(took),
        }
    }

    fn vars(&self) -> Vars {
        let headers = self.headers.iter();
        Vars::new()
            .with("body", self.body.clone())
            .with("json", self.json.clone())
            .with("status", Value::Int(i64::from(self.status)))
            .with(
                "headers",
                Value::map(
                    headers.map(|(name, value)| (name.as_str(), Value::from(value.as_str()))),
                ),
            )
    }
}

impl Http {
    /// Sends the request and judges the answer. The output is there as far as an answer came.
    async fn exchange(
        &self,
        ready: super::client::Ready,
        caller: &Caller,
    ) -> Result<HttpOutput, Failure> {
        let shown = self.call.shown();
        let began = caller.now();
        let (answer, end) = send(ready, caller).await;
        let output = HttpOutput::of(&answer, Duration::between(began, caller.now()));
        if answer.status != 0 {
            caller
                .host
                .print(Stream::Answer, &answered(&shown, &output));
            caller.host.keep(Evidence {
                name: "answer".to_owned(),
                media_type: "application/json".to_owned(),
                content: Value::map([
                    ("request", Value::from(shown.as_str())),
                    ("status", Value::Int(i64::from(output.status))),
                    ("headers", to_value(&output.headers).unwrap_or_default()),
                    ("body", output.body.clone()),
                ]),
                size: answer.size,
                truncated: answer.truncated || end.is_some(),
            });
        }
        let seen = |failure: Failure| {
            if answer.status == 0 {
                failure
            } else {
                failure.output(to_value(&output).unwrap_or_default())
            }
        };
        if let Some(end) = end {
            return Err(seen(failure::ended(&shown, end, &answer, self.writes)));
        }
        if !self.statuses.contains(answer.status) {
            let expected = self.statuses.to_string();
            return Err(seen(failure::status(
                &shown,
                &answer,
                &expected,
                self.writes,
                caller.now(),
            )));
        }
        if let Some(holds) = &self.holds {
            let source = holds.0.source();
            let unexpected = |why: String| {
                let message = format!("{shown} was answered {}, and {source} {why}", answer.status);
                seen(failure::unexpected(message, self.writes))
            };
            match caller.host.evaluate(&holds.0, output.vars()) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Err(unexpected("does not hold".to_owned())),
                Ok(other) => {
                    return Err(unexpected(format!(
                        "gives a {}, where true or false is needed",
                        other.type_name()
                    )));
                }
                Err(error) => return Err(unexpected(format!("fails: {}", error.message))),
            }
        }
        Ok(output)
    }

    fn expected(&self) -> String {
        let status = format!("status {}", self.statuses);
        match &self.holds {
            Some(holds) => format!("{status}; {}", holds.0.source()),
            None => status,
        }
    }

    /// The preview of what would be sent.
    fn described(&self, mut preview: Preview) -> Preview {
        let call = &self.call;
        preview = preview.line("request", call.shown());
        if !call.query.is_empty() {
            preview = preview.line("query", shown_map(&call.query));
        }
        if !call.headers.is_empty() {
            preview = preview.line("headers", shown_map(&call.headers));
        }
        let body = match &call.body {
            None => None,
            Some(Body::Text(text)) => Some(text.to_string()),
            Some(Body::Json(json)) => Some(json.to_plain_json().to_string()),
        };
        if let Some(body) = &body {
            preview = preview.line("body", body.chars().take(2_000).collect::<String>());
        }
        preview = preview.line("expects", self.expected());
        if in_the_clear(&call.url) {
            preview = preview.line("tls", "none: the request goes in the clear");
        }
        let names = &mut preview.secrets;
        secrets(&call.url, names);
        call.query.values().for_each(|value| secrets(value, names));
        call.headers
            .values()
            .for_each(|value| secrets(value, names));
        if let Some(Body::Text(value) | Body::Json(value)) = &call.body {
            secrets(value, names);
        }
        preview.binding = Value::map([
            ("request", Value::from(call.shown())),
            ("query", Value::from(shown_map(&call.query))),
            ("headers", Value::from(shown_map(&call.headers))),
            ("body", body.map_or(Value::Null, Value::from)),
        ]);
        preview
    }
}

fn shown_map(map: &IndexMap<String, Value>) -> String {
    let pairs = map.iter().map(|(name, value)| format!("{name}: {value}"));
    pairs.collect::<Vec<_>>().join("\n")
}

impl Step for Http {
    type Capture = ();
    type State = ();
    type Output = HttpOutput;

    fn figures(output: &HttpOutput) -> Vec<Figure> {
        let body = match &output.body {
            Value::Text(text) => text.len() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            _ => 0,
        };
        let mut figures = vec![Figure::code("status", "http", i64::from(output.status))];
        if body > 0 {
            let what = if output.truncated { "kept" } else { "" };
            figures.push(Figure::bytes("body", body, what));
        }
        figures
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        if self.writes {
            let preview = Preview::new(Fidelity::Simulated, "would send a request");
            let after = if self.idempotent {
                "it goes again"
            } else {
                "it is in doubt, if it was sent"
            };
            return Ok(self.described(preview).line("after a crash", after));
        }
        let caller = Caller::preview(cx, TIME);
        let ready = ready(&self.call, &caller).await?;
        let output = self.exchange(ready, &caller).await?;
        let summary = format!("answers {}", output.status);
        let mut preview = Preview::new(Fidelity::Executed, summary);
        preview.output = Some(
            to_value(&output)
                .map_err(|error| Failure::new("step.stored_format", error.to_string()))?,
        );
        Ok(self.described(preview))
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<HttpOutput, ()>, Failure> {
        let caller = Caller::step(cx, TIME);
        let ready = ready(&self.call, &caller).await?;
        if self.writes {
            if let Some(end) = caller.over() {
                return Err(failure::not_sent(&self.call.shown(), end));
            }
            cx.point_of_no_return(Mark {
                token: Value::map([
                    ("request", Value::from(self.call.shown())),
                    ("sent_at", Value::Timestamp(cx.now())),
                ]),
                capture: None,
                output: Value::Null,
            })
            .await?;
        }
        Ok(Outcome::Done(self.exchange(ready, &caller).await?))
    }

    async fn probe(
        &self,
        (): &(),
        mark: Option<&Mark>,
        _: &StepContext,
    ) -> Result<Probed<HttpOutput>, Failure> {
        let sent_at = mark.and_then(|mark| mark.token.get("sent_at"));
        let when = sent_at.map(|at| format!(" at {at}")).unwrap_or_default();
        Ok(Probed::InDoubt(format!(
            "{} was sent{when} and no answer was kept; only the service knows, so ask it, or give the step a `probe`",
            self.call.shown()
        )))
    }
}
