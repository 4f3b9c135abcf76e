//! One request and its answer. How far the request came says what happened.
use super::text::{reveal, reveal_json};
use indexmap::IndexMap;
use reqwest::{
    Client, Method, Url,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    redirect, retry,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::{error::Error as _, sync::Arc};
use tokio_util::sync::CancellationToken;
use windlass_engine::{
    step::{Failure, PreviewContext, StepContext, StepHost},
    value::{Duration, Timestamp, Value},
};

/// Whether a proxy is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Proxy {
    /// None, whatever the environment says.
    #[default]
    None,
    /// What HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY of the engine say.
    Environment,
}

/// What the request carries.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// This text.
    Text(Value),
    /// This value as JSON.
    Json(Value),
}

/// A request as the playbook has it; secrets are references.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Value,
    pub(super) query: IndexMap<String, Value>,
    pub(super) headers: IndexMap<String, Value>,
    pub(super) body: Option<Body>,
    /// How long a connection, with its TLS, may take.
    pub(super) connect_timeout: Duration,
    /// The only certificate authorities that are trusted; by default the system's.
    pub(super) ca_file: Option<String>,
    pub(super) proxy: Proxy,
    /// How many redirects to follow, within one scheme, host and port.
    pub(super) redirects: u32,
    /// How many bytes of the answer's body to keep.
    pub(super) max_body: usize,
}

impl Call {
    /// As messages name it.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.method, self.url)
    }
}

/// On whose behalf a request is made.
pub(super) struct Caller {
    pub(super) host: Arc<dyn StepHost>,
    cancel: CancellationToken,
    end: Timestamp,
}

impl Caller {
    /// For a step: until its deadline, else for this long.
    pub(super) fn step(cx: &StepContext, otherwise: Duration) -> Self {
        Self {
            host: cx.host.clone(),
            cancel: cx.cancel.clone(),
            end: cx.deadline.unwrap_or_else(|| otherwise.after(cx.now())),
        }
    }

    /// For a dry run.
    pub(super) fn preview(cx: &PreviewContext, time: Duration) -> Self {
        Self {
            host: cx.host.clone(),
            cancel: cx.cancel.clone(),
            end: time.after(cx.host.now()),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.host.now()
    }

    fn left(&self) -> Duration {
        Duration::between(self.now(), self.end).max(Duration::ZERO)
    }

    /// Why nothing more may be done, if that is so.
    pub(super) fn over(&self) -> Option<End> {
        if self.left() == Duration::ZERO {
            // A step that is told to end at its deadline was not cancelled by anyone.
            Some(End::Timeout)
        } else {
            self.cancel.is_cancelled().then_some(End::Cancelled)
        }
    }

    async fn until_over(&self) -> End {
        loop {
            if let Some(end) = self.over() {
                return end;
            }
            tokio::select! {
                () = self.host.sleep(self.left()) => {}
                () = self.cancel.cancelled() => {}
            }
        }
    }
}

/// A request with its secrets, ready to go.
pub(super) struct Ready {
    client: Client,
    request: reqwest::Request,
    max_body: usize,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// 0 where none came.
    pub(super) status: u16,
    /// Lower-case names; values of one name are joined by commas.
    pub(super) headers: IndexMap<String, String>,
    /// At most `max_body` bytes.
    pub(super) body: Vec<u8>,
    /// Whether there was more.
    pub(super) truncated: bool,
    /// The size of the whole body, as far as it is known.
    pub(super) size: u64,
}

/// How an exchange ended before it was whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The name has no address.
    UnknownHost(String),
    /// The other side's certificate is not trusted, or there is no common TLS.
    Tls(String),
    /// No connection; nothing was sent.
    Connect(String),
    /// It broke off, or no HTTP came back, after the request had begun to go.
    Cut(String),
    /// The step's time was over.
    Timeout,
    /// The step was cancelled.
    Cancelled,
}

fn wrong(code: &str, message: String) -> Failure {
    Failure::new(code, message)
}

/// Puts secrets in. Nothing goes to the network here, and no text of an error holds a secret.
pub(super) async fn ready(call: &Call, caller: &Caller) -> Result<Ready, Failure> {
    let revealed = reveal(caller.host.as_ref(), &call.url).await?;
    let mut url = Url::parse(revealed.expose())
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| {
            wrong(
                "http.url",
                format!("{} is no url of http or https", call.url),
            )
            .help("a secret that holds a url holds all of it: https://host/path")
        })?;
    for (name, value) in &call.query {
        let one = std::slice::from_ref(value);
        for value in value.as_list().unwrap_or(one) {
            let text = reveal(caller.host.as_ref(), value).await?;
            url.query_pairs_mut().append_pair(name, text.expose());
        }
    }
    let client = client(call, &url, caller).await?;
    let mut request = client.request(call.method.clone(), url);
    let mut typed = false;
    for (name, value) in &call.headers {
        let text = reveal(caller.host.as_ref(), value).await?;
        let bad = || {
            wrong(
                "http.header",
                format!("the value of header {name} cannot be sent"),
            )
            .help("a header is one line of visible characters; does the secret end with a line break?")
        };
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(text.expose()).map_err(|_| bad())?;
        value.set_sensitive(true);
        typed |= header == CONTENT_TYPE;
        request = request.header(header, value);
    }
    let (body, media_type) = match &call.body {
        None => (None, None),
        Some(Body::Text(text)) => (
            Some(match text {
                Value::Bytes(bytes) => bytes.to_vec(),
                other => reveal(caller.host.as_ref(), other)
                    .await?
                    .expose()
                    .as_bytes()
                    .to_vec(),
            }),
            Some("text/plain; charset=utf-8"),
        ),
        Some(Body::Json(value)) => (
            Some(
                reveal_json(caller.host.as_ref(), value)
                    .await?
                    .to_string()
                    .into_bytes(),
            ),
            Some("application/json"),
        ),
    };
    if let Some(media_type) = media_type
        && !typed
    {
        request = request.header(CONTENT_TYPE, media_type);
    }
    if let Some(body) = body {
        request = request.body(body);
    }
    let request = request.build().map_err(|error| {
        wrong(
            "http.request",
            format!("{} cannot be sent: {}", call.shown(), deepest(error)),
        )
    })?;
    Ok(Ready {
        client,
        request,
        max_body: call.max_body,
    })
}

async fn client(call: &Call, url: &Url, caller: &Caller) -> Result<Client, Failure> {
    // A connection that cannot be made is told as such, and not as a request without an answer: it has to give up first.
    let left = Duration::from_millis(caller.left().as_millis() / 10 * 9);
    let mut builder = Client::builder()
        .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(call.connect_timeout.min(left).to_std())
        // Whether a request may go twice is for the playbook to say.
        .retry(retry::never())
        .pool_max_idle_per_host(0)
        .referer(false)
        .redirect(follow(call.redirects));
    if call.proxy == Proxy::None {
        builder = builder.no_proxy();
    }
    if let Some(path) = &call.ca_file {
        let unreadable = |why: String| {
            wrong(
                "http.ca_file",
                format!("ca_file {path} cannot be used: {why}"),
            )
            .help("it is to hold one or more certificates in PEM form")
        };
        let pem = tokio::fs::read(path)
            .await
            .map_err(|error| unreadable(error.to_string()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| unreadable(deepest(error)))?;
        if certificates.is_empty() {
            return Err(unreadable("there is no certificate in it".to_owned()));
        }
        builder = builder.tls_certs_only(certificates);
    } else if url.scheme() == "http" && call.proxy == Proxy::None {
        // No TLS, so no need for the system's certificates, which a small container lacks.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| {
        wrong(
            "http.client",
            format!(
                "no connection with TLS can be made on this host: {}",
                deepest(error)
            ),
        )
        .help("install the system's certificate authorities (ca-certificates), or give ca_file")
    })
}

/// Follows so many redirects, and none that leads elsewhere: headers may hold secrets.
fn follow(redirects: u32) -> redirect::Policy {
    if redirects == 0 {
        return redirect::Policy::none();
    }
    redirect::Policy::custom(move |attempt| {
        let origin = |url: &Url| {
            (
                url.scheme().to_owned(),
                url.host_str().map(str::to_owned),
                url.port_or_known_default(),
            )
        };
        let home = attempt.previous().first().map(origin);
        let so_far = u32::try_from(attempt.previous().len()).unwrap_or(u32::MAX);
        if so_far > redirects || home != Some(origin(attempt.url())) {
            attempt.stop()
        } else {
            attempt.follow()
        }
    })
}

/// Sends it and reads the answer. What was read until an end is there beside the end.
pub(super) async fn send(ready: Ready, caller: &Caller) -> (Answer, Option<End>) {
    let mut answer = Answer::default();
    let end = {
        let exchange = exchange(ready, &mut answer);
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            ended = &mut exchange => ended.err(),
            end = caller.until_over() => Some(end),
        }
    };
    (answer, end)
}

async fn exchange(ready: Ready, answer: &mut Answer) -> Result<(), End> {
    let mut response = ready.client.execute(ready.request).await.map_err(end)?;
    answer.status = response.status().as_u16();
    for name in response.headers().keys() {
        let values: Vec<String> = response
            .headers()
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        answer
            .headers
            .insert(name.as_str().to_owned(), values.join(", "));
    }
    let announced = response.content_length();
    answer.size = announced.unwrap_or(0);
    while let Some(chunk) = response.chunk().await.map_err(end)? {
        let room = ready.max_body - answer.body.len();
        answer.body.extend(chunk.iter().take(room));
        if chunk.len() > room {
            // The rest is not fetched: dropping the response closes the connection.
            answer.truncated = true;
            let seen = answer.body.len() + (chunk.len() - room);
            answer.size = announced.unwrap_or(seen as u64);
            return Ok(());
        }
        answer.size = announced.unwrap_or(answer.body.len() as u64);
    }
    Ok(())
}

fn end(error: reqwest::Error) -> End {
    let (connect, dns, timeout) = (error.is_connect(), error.is_dns(), error.is_timeout());
    let why = deepest(error);
    match (connect, dns) {
        (_, true) => End::UnknownHost(why),
        (true, false) if why.contains("certificate") || why.contains("Alert") => End::Tls(why),
        (true, false) if timeout => End::Connect("no answer to the connection in time".to_owned()),
        (true, false) => End::Connect(why),
        (false, false) => End::Cut(why),
    }
}

/// The innermost reason; the outer ones name the url.
fn deepest(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}
