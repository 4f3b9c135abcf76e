//! `notify.slack`
use super::{
    client::Proxy,
    webhook::{NOTIFIES, Notify},
};
use indexmap::IndexMap;
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use windlass_engine::{
    step::{ParamError, StepKind, StepTraits, params::Text},
    value::Value,
};

/// Posts a message to Slack, by an incoming webhook.
///
/// `text` is the message, in Slack's own markup; with `blocks` it is what a notification shows of it. In text that comes
/// from a database, Slack reads `<!channel>` and links; `text` and `blocks` are sent as they are.
///
/// The step's `timeout` (10s where it has none) ends the whole request, so that a Slack that is down holds up a run no
/// longer. A notification that fails is a failure like any other: say `on_failure: continue` or `ignore`, or put it into
/// `finally`, where a run should not be undone for it. After a crash it may be sent twice. There is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlackParams {
    /// The url of the webhook, a secret: whoever has it may post.
    webhook: Value,
    /// The message.
    text: Option<Text>,
    /// Blocks of Slack's Block Kit, as a list.
    blocks: Option<Value>,
    /// Whether a proxy is used: `none`, or what the `environment` of the engine says (HTTPS_PROXY, NO_PROXY).
    #[serde(default)]
    proxy: Proxy,
}

pub(crate) struct Slack;

impl StepKind for Slack {
    const NAME: &'static str = "notify.slack";
    const TRAITS: StepTraits = NOTIFIES;
    const EXAMPLE: &'static str = "\
webhook: ${{ secret(\"slack\") }}
text: the backup of orders was verified
";
    type Params = SlackParams;
    type Step = Notify;

    fn prepare(params: SlackParams) -> Result<Notify, Vec<ParamError>> {
        let mut errors = Vec::new();
        let literal = params.webhook.as_str().and_then(|url| Url::parse(url).ok());
        if literal
            .as_ref()
            .and_then(Url::host_str)
            .is_some_and(|host| host == "slack.com" || host.ends_with(".slack.com"))
        {
            errors.push(
                ParamError::new("webhook", "the url of a webhook is a credential")
                    .help("keep it as a secret: webhook: ${{ secret(\"slack\") }}"),
            );
        }
        if params.text.is_none() && params.blocks.is_none() {
            errors.push(
                ParamError::new("", "there is nothing to send").help("give `text` or `blocks`"),
            );
        }
        if params
            .blocks
            .as_ref()
            .is_some_and(|blocks| blocks.as_list().is_none_or(<[Value]>::is_empty))
        {
            errors.push(ParamError::new("blocks", "blocks are a list of blocks"));
        }
        let text = params.text.map(|text| ("text", Value::from(text.0)));
        let blocks = params.blocks.map(|blocks| ("blocks", blocks));
        let payload = Value::map(text.into_iter().chain(blocks));
        Notify::new(
            "webhook",
            params.webhook,
            payload,
            IndexMap::new(),
            (None, params.proxy),
            errors,
        )
    }
}
