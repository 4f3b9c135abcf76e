//! Values of a request: shown with secrets as references, sent with their content.
use reqwest::Url;
use windlass_engine::{
    step::{Failure, Revealed, StepHost},
    value::Value,
};

/// Text with the content of its secrets.
pub(super) async fn reveal(host: &dyn StepHost, value: &Value) -> Result<Revealed, Failure> {
    if let Value::Secret(secret) = value {
        host.reveal(secret).await
    } else {
        Ok(Revealed::new(value.to_string()))
    }
}

/// JSON with the content of its secrets.
pub(super) async fn reveal_json(
    host: &dyn StepHost,
    value: &Value,
) -> Result<serde_json::Value, Failure> {
    use serde_json::Value as J;
    Ok(match value {
        Value::Secret(secret) => J::String(host.reveal(secret).await?.expose().to_owned()),
        Value::List(items) => {
            let mut all = Vec::with_capacity(items.len());
            for item in items.iter() {
                all.push(Box::pin(reveal_json(host, item)).await?);
            }
            J::Array(all)
        }
        Value::Map(map) => {
            let mut all = serde_json::Map::new();
            for (key, item) in map.iter() {
                all.insert(key.to_string(), Box::pin(reveal_json(host, item)).await?);
            }
            J::Object(all)
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_) => value.to_plain_json(),
    })
}

/// The names of all secrets in a value.
pub(super) fn secrets(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Secret(secret) => names.extend(secret.names().map(str::to_owned)),
        Value::List(items) => items.iter().for_each(|item| secrets(item, names)),
        Value::Map(map) => map.values().for_each(|item| secrets(item, names)),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_) => {}
    }
}

/// Why a text cannot be the url of a request, if that is so. What is wrong with a url that holds a secret shows only
/// when it is used.
pub(super) fn wrong_url(url: &Value) -> Option<(String, &'static str)> {
    let help = "write http://host/path or https://host/path";
    match url {
        Value::Secret(_) => None,
        Value::Text(text) => match Url::parse(text) {
            Err(error) => Some((format!("{text:?} is no url: {error}"), help)),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                Some((format!("{} is not http or https", url.scheme()), help))
            }
            Ok(url) if url.password().is_some() || !url.username().is_empty() => Some((
                "the url holds a credential".to_owned(),
                "leave it out of the url and send a header: Authorization: ${{ secret(\"…\") }}",
            )),
            Ok(_) => None,
        },
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Decimal(_)
        | Value::Float(_)
        | Value::Duration(_)
        | Value::Size(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::List(_)
        | Value::Map(_) => Some((format!("a url is text, not a {}", url.type_name()), help)),
    }
}

/// Whether the request goes in the clear, as far as its text tells.
pub(super) fn in_the_clear(url: &Value) -> bool {
    url.to_string().to_ascii_lowercase().starts_with("http://")
}
