//! The forms in which the content of a secret may stand in a text.
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

/// Parts of a text that are secret by themselves: the whole, without white space around it, its long lines, and
/// the password inside where it is a URL, a connection string or JSON.
pub(super) fn parts(content: &str, min_chars: usize) -> Vec<String> {
    let mut parts = vec![
        content.to_owned(),
        content.trim().to_owned(),
        percent_decoded(content.trim()),
        // As `echo` of some shells says it.
        read_back(
            super::views::unescaped(&super::views::View::of(content)),
            content,
        ),
    ];
    if content.trim().contains('\n') {
        parts.push(content.replace("\r\n", "\n").replace('\n', "\r\n"));
        let lines = content.lines().map(str::trim);
        // The frame of a PEM file is no secret.
        parts.extend(
            lines
                .filter(|line| line.chars().count() >= 8 && !line.starts_with("-----"))
                .map(str::to_owned),
        );
    }
    for password in [password_of_url(content), password_of_conninfo(content)]
        .into_iter()
        .flatten()
    {
        parts.push(percent_decoded(&password));
        parts.push(password);
    }
    if let Ok(json @ (serde_json::Value::Object(_) | serde_json::Value::Array(_))) =
        serde_json::from_str(content)
    {
        passwords_of_json(&json, &mut parts);
    }
    let mut seen = std::collections::HashSet::new();
    parts.retain(|part| part.chars().count() >= min_chars && seen.insert(part.clone()));
    parts
}

/// `scheme://user:PASSWORD@host`. A password with a bare `@` in it reaches to the last one.
pub(crate) fn password_of_url(text: &str) -> Option<String> {
    let (_, rest) = text.trim().split_once("://")?;
    let end = rest.find(['/', '?', '#', ' ', '\n']).unwrap_or(rest.len());
    let (userinfo, _) = rest.get(..end)?.rsplit_once('@')?;
    let (_, password) = userinfo.split_once(':')?;
    (!password.is_empty()).then(|| password.to_owned())
}

/// `host=db password=PASSWORD`, also `password='…'` and `;` between the keys.
fn password_of_conninfo(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let at = ["password=", "pwd="].iter().find_map(|key| {
        let at = lower.find(key)?;
        let before = lower.get(..at)?.chars().next_back();
        before
            .is_none_or(|c| !c.is_alphanumeric())
            .then_some(at + key.len())
    })?;
    let rest = text.get(at..)?;
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => {
            let mut escaped = false;
            let end = quoted.find(|c| {
                let ends = c == '\'' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })?;
            quoted.get(..end)?.replace("\\'", "'").replace("\\\\", "\\")
        }
        None => rest
            .split(|c: char| c.is_whitespace() || c == ';' || c == '&')
            .next()?
            .to_owned(),
    };
    (!value.is_empty()).then_some(value)
}

/// Whether most of a text is no secret, since it is a URL, a connection string or JSON around one: what is inside is a part by itself.
pub(super) fn is_frame(text: &str) -> bool {
    let is_json = || {
        let json = serde_json::from_str(text);
        matches!(
            json,
            Ok(serde_json::Value::Object(_) | serde_json::Value::Array(_))
        )
    };
    password_of_url(text).is_some() || password_of_conninfo(text).is_some() || is_json()
}

fn passwords_of_json(json: &serde_json::Value, parts: &mut Vec<String>) {
    match json {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let key = key.to_ascii_lowercase();
                let secret = ["password", "passwd", "pwd", "secret", "token", "key"]
                    .iter()
                    .any(|word| key.contains(word));
                match value {
                    serde_json::Value::String(text) if secret => parts.push(text.clone()),
                    other => passwords_of_json(other, parts),
                }
            }
        }
        serde_json::Value::Array(items) => {
            items.iter().for_each(|item| passwords_of_json(item, parts));
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

fn percent_decoded(text: &str) -> String {
    read_back(
        super::views::percent(&super::views::View::of(text), false),
        text,
    )
}

fn read_back(view: Option<super::views::View>, text: &str) -> String {
    match view {
        Some(view) => String::from_utf8_lossy(&view.bytes).into_owned(),
        None => text.to_owned(),
    }
}

/// How a part stands where it is quoted: in SQL, in a shell-like CSV, in HTML. Escapes with `%` and `\` are read
/// back instead ([`super::views`]), since programs disagree on which characters need them.
pub(super) fn quoted(part: &str) -> Vec<String> {
    let html = part
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    vec![
        part.to_owned(),
        part.replace('\'', "''"),
        part.replace('"', "\"\""),
        part.replace('\'', "'\\''"),
        html.clone(),
        html.replace('"', "&quot;").replace('\'', "&#39;"),
        html.replace('"', "&quot;").replace('\'', "&#x27;"),
        html.replace('"', "&#34;").replace('\'', "&#39;"),
    ]
}

/// Hexadecimal, in both cases.
pub(super) fn hex_forms(part: &str) -> [String; 2] {
    [hex::encode(part), hex::encode_upper(part)]
}

/// The characters of base64 that hang on nothing but the part, wherever it begins in what is encoded, in both
/// alphabets. At most one character on each side holds the rest.
pub(super) fn base64_cores(part: &str) -> Vec<String> {
    let mut cores = Vec::new();
    for before in 0..3_usize {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(part.as_bytes());
        let first = (before * 8).div_ceil(6);
        let last = bytes.len() * 8 / 6;
        let encoded = STANDARD_NO_PAD.encode(&bytes);
        if let Some(core) = encoded.get(first..last).filter(|core| core.len() >= 4) {
            cores.push(core.to_owned());
            cores.push(core.replace('+', "-").replace('/', "_"));
        }
    }
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_inside() {
        for (text, password) in [
            ("postgres://app:pw-1234@db:5432/x", Some("pw-1234")),
            ("postgres://app:p@ss@db/x", Some("p@ss")),
            ("postgres://app@db/x", None),
            ("https://example.org/a:b@c", None),
        ] {
            assert_eq!(password_of_url(text).as_deref(), password, "{text}");
        }
        for (text, password) in [
            ("host=db password=hunter22 user=a", Some("hunter22")),
            ("password='it\\'s me' host=db", Some("it's me")),
            ("Server=x;Pwd=hunter22;", Some("hunter22")),
            ("xpassword=1", None),
        ] {
            assert_eq!(password_of_conninfo(text).as_deref(), password, "{text}");
        }
        let json = parts("{\"user\": \"app\", \"password\": \"hunter22\"}", 4);
        assert!(json.contains(&"hunter22".to_owned()) && !json.contains(&"app".to_owned()));
        assert!(parts("postgres://a:p%40ss@db/x", 4).contains(&"p@ss".to_owned()));
    }
}
