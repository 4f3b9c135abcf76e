//! Connecting: TLS, timeouts, and what each refusal means.
use super::{KEYS, errors, service};
use crate::target::options as keys;
use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use std::str::FromStr;
use windlass_engine::{
    step::{Cause, Failure, Target},
    value::Value,
};

fn text<'a>(target: &'a Target, key: &str) -> Option<&'a str> {
    target.options.get(key).and_then(Value::as_str)
}

/// Whether the server's certificate is checked.
pub(super) fn is_verified(target: &Target) -> bool {
    text(target, "tls").is_none_or(|mode| mode == "verify")
}

/// What the driver needs, from the URL and the keys of the target.
pub(super) fn options(
    target: &Target,
    url: &str,
    application: &str,
) -> Result<PgConnectOptions, Failure> {
    keys::known(target, KEYS)?;
    let wrong = |why: String| {
        Failure::new(
            "target.url",
            format!("the url of target {} cannot be used: {why}", target.name),
        )
        .help("write postgres://user@host:5432/database; the password goes by ${{ secret(\"name\") }} or .pgpass")
    };
    // The text of the driver's error could hold a part of the URL, and so of the password.
    let mut options = PgConnectOptions::from_str(&service::resolved(target, url)?)
        .map_err(|_| wrong("it is no PostgreSQL URL".to_owned()))?
        .application_name(&application.chars().take(63).collect::<String>())
        .statement_cache_capacity(0)
        // A pooler refuses what it does not know at the start of a connection; the transaction sets it.
        .extra_float_digits(None);
    let local = errors::is_local(&options);
    let mode = match text(target, "tls") {
        Some("verify") => PgSslMode::VerifyFull,
        None if !local => PgSslMode::VerifyFull,
        Some("require") => PgSslMode::Require,
        Some("off") | None => PgSslMode::Disable,
        Some(other) => {
            return Err(Failure::new(
                "target.option",
                format!(
                    "tls of target {} must be verify, require or off, not {other}",
                    target.name
                ),
            )
            .help("correct it in the environment file"));
        }
    };
    options = options.ssl_mode(mode);
    if let Some(file) = text(target, "ca_file") {
        options = options.ssl_root_cert(file);
    }
    if let Some(file) = text(target, "client_cert") {
        options = options.ssl_client_cert(file);
    }
    if let Some(file) = text(target, "client_key") {
        options = options.ssl_client_key(file);
    }
    Ok(options)
}

/// Host and port, or the socket, for people and to know the server again.
pub(super) fn place(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => format!("{}:{}", socket.display(), options.get_port()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// Connects within the target's `connect_timeout`.
pub(super) async fn connect(
    target: &Target,
    options: &PgConnectOptions,
) -> Result<PgConnection, Failure> {
    let limit = keys::connect_timeout(target)?;
    match tokio::time::timeout(limit.to_std(), options.connect()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(errors::connecting(&error, &target.called(), options)),
        Err(_) => Err(Failure::new(
            "target.connect_timeout",
            format!(
                "target {}: {} did not answer within {limit}",
                target.called(),
                place(options)
            ),
        )
        .cause(Cause::ConnectionLost)
        .help("check the host, the port and the firewall; `connect_timeout` of the target makes it longer")),
    }
}

/// Says goodbye; a server that is gone is no matter.
pub(super) async fn close(connection: PgConnection) {
    drop(connection.close().await);
}
