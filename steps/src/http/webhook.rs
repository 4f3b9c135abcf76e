//! `notify.webhook`
use super::{
    client::{Body, Call, Caller, Proxy, ready, send},
    failure,
    request::{connect_timeout, headers},
    text::{in_the_clear, secrets, wrong_url},
};
use indexmap::IndexMap;
use reqwest::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Effect, Failure, Fidelity, Figure, Outcome, ParamError, Preview, PreviewContext, Redo,
        Resume, Step, StepContext, StepKind, StepTraits, UndoSupport, params::Text,
    },
    value::{Duration, Value},
};

/// How long a notification may take where the step has no `timeout`.
pub(super) const TIME: Duration = Duration::from_secs(10);

/// What holds for notifications. There is nothing to undo, and after a crash a message goes again: twice is better than
/// never.
pub(super) const NOTIFIES: StepTraits = StepTraits {
    effect: Effect::Writes,
    redo: Redo::Repeatable,
    marks: false,
    captures: false,
    undo: UndoSupport::None,
    fidelity: Fidelity::Simulated,
    skippable: true,
};

/// Posts JSON to a webhook.
///
/// `payload` is what the service wants; `text` is short for `payload: { text: … }`, which Slack, Mattermost,
/// Rocket.Chat and Microsoft Teams understand. Any answer but 2xx fails the step.
///
/// The step's `timeout` (10s where it has none) ends the whole request, so that a service that is down holds up a run no
/// longer. A notification that fails is a failure like any other: say `on_failure: continue` or `ignore`, or put it into
/// `finally`, where a run should not be undone for it. After a crash it may be sent twice. There is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookParams {
    /// The url of the webhook; as a rule a secret, since whoever has it may post: `${{ secret("hook") }}`.
    url: Value,
    /// The JSON to post; secrets may stand anywhere in it.
    payload: Option<Value>,
    /// Text to post as `{"text": …}`.
    text: Option<Text>,
    /// Headers; a value may be a secret.
    #[serde(default)]
    headers: IndexMap<String, Value>,
    /// A file with the only certificate authorities to trust, in PEM form; by default the system's.
    ca_file: Option<Text>,
    /// Whether a proxy is used: `none`, or what the `environment` of the engine says (HTTPS_PROXY, NO_PROXY).
    #[serde(default)]
    proxy: Proxy,
}

/// How the service took it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct NotifyOutput {
    /// The status of its answer.
    status: u16,
}

/// A message on its way, of any notifying kind.
pub(crate) struct Notify(pub(super) Call);

pub(crate) struct Webhook;

impl StepKind for Webhook {
    const NAME: &'static str = "notify.webhook";
    const TRAITS: StepTraits = NOTIFIES;
    const EXAMPLE: &'static str = "\
url: ${{ secret(\"pager\") }}
payload:
  summary: the backup of orders was verified
  severity: info
";
    type Params = WebhookParams;
    type Step = Notify;

    fn prepare(params: WebhookParams) -> Result<Notify, Vec<ParamError>> {
        let mut errors = Vec::new();
        headers(&params.headers, &mut errors);
        let payload = match (params.payload, params.text) {
            (Some(payload), None) => payload,
            (None, Some(text)) => Value::map([("text", Value::from(text.0))]),
            (Some(_), Some(_)) => {
                errors.push(ParamError::new(
                    "text",
                    "give `payload` or `text`, not both",
                ));
                Value::Null
            }
            (None, None) => {
                errors.push(
                    ParamError::new("", "there is nothing to send")
                        .help("give `payload` or `text`"),
                );
                Value::Null
            }
        };
        Notify::new(
            "url",
            params.url,
            payload,
            params.headers,
            (params.ca_file, params.proxy),
            errors,
        )
    }
}

impl Notify {
    pub(super) fn new(
        key: &str,
        url: Value,
        payload: Value,
        headers: IndexMap<String, Value>,
        (ca_file, proxy): (Option<Text>, Proxy),
        mut errors: Vec<ParamError>,
    ) -> Result<Self, Vec<ParamError>> {
        if let Some((message, help)) = wrong_url(&url) {
            errors.push(ParamError::new(key, message).help(help));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self(Call {
            method: Method::POST,
            url,
            query: IndexMap::new(),
            headers,
            body: Some(Body::Json(payload)),
            connect_timeout: connect_timeout(),
            ca_file: ca_file.map(|path| path.0),
            proxy,
            redirects: 0,
            max_body: 4_096,
        }))
    }
}

impl Step for Notify {
    type Capture = ();
    type State = ();
    type Output = NotifyOutput;

    fn figures(output: &NotifyOutput) -> Vec<Figure> {
        vec![Figure::code("status", "http", i64::from(output.status))]
    }

    async fn preview(&self, _: &PreviewContext) -> Result<Preview, Failure> {
        let call = &self.0;
        let mut preview = Preview::new(Fidelity::Simulated, "would send a message")
            .line("to", call.url.to_string());
        let mut names = Vec::new();
        secrets(&call.url, &mut names);
        call.headers
            .values()
            .for_each(|value| secrets(value, &mut names));
        let mut text = String::new();
        if let Some(Body::Json(payload)) = &call.body {
            secrets(payload, &mut names);
            text = payload.to_plain_json().to_string();
        }
        preview = preview.line("payload", text.chars().take(2_000).collect::<String>());
        if in_the_clear(&call.url) {
            preview = preview.line("tls", "none: the message goes in the clear");
        }
        preview.binding = Value::map([
            ("to", Value::from(call.url.to_string())),
            ("payload", Value::from(text)),
        ]);
        preview.secrets = names;
        Ok(preview)
    }

    async fn execute(
        &self,
        (): &(),
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<NotifyOutput, ()>, Failure> {
        let caller = Caller::step(cx, TIME);
        let shown = self.0.shown();
        let ready = ready(&self.0, &caller).await?;
        let (answer, end) = send(ready, &caller).await;
        if let Some(end) = end {
            return Err(failure::ended(&shown, end, &answer, true));
        }
        if !(200..300).contains(&answer.status) {
            return Err(failure::status(&shown, &answer, "2xx", true, caller.now()));
        }
        Ok(Outcome::Done(NotifyOutput {
            status: answer.status,
        }))
    }
}
