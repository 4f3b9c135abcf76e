//! What the server's errors mean for a step.
use super::connect::place;
use sqlx::{
    Error,
    postgres::{PgConnectOptions, PgDatabaseError, PgErrorPosition},
};
use windlass_engine::step::{Cause, Certainty, Failure};

/// The SQLSTATE, where the server gave one.
pub(super) fn state(error: &Error) -> Option<String> {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .map(|code| code.into_owned())
}

/// An error of a statement. The server takes back the transaction, so nothing happened; a lost connection inside a
/// transaction is taken back too.
pub(super) fn failure(error: &Error) -> Failure {
    let Some(server) = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
    else {
        return lost(error);
    };
    let mut text = server.message().to_owned();
    if let Some(detail) = server.detail() {
        text.push_str(&format!(" ({detail})"));
    }
    if let Some(PgErrorPosition::Original(at)) = server.position() {
        text.push_str(&format!(", at character {at} of the statement"));
    }
    let state = server.code();
    let (code, what, cause, help) = match state {
        "40001" => (
            "sql.serialization",
            "another transaction came in between",
            Cause::SerializationFailure,
            Some("`retry` runs it again"),
        ),
        "40P01" => (
            "sql.deadlock",
            "the server ended a deadlock",
            Cause::Deadlock,
            Some("`retry` runs it again"),
        ),
        "55P03" => (
            "sql.lock_timeout",
            "another session holds a lock that the statement needs",
            Cause::LockTimeout,
            Some("see who holds it, or raise `lock_timeout`"),
        ),
        "57014" => (
            "sql.timeout",
            "the server ended the statement",
            Cause::Timeout,
            Some("give the step a longer `timeout`, or the target a longer `statement_timeout`"),
        ),
        "57P01" | "57P02" | "57P03" => (
            "sql.server_shutdown",
            "the server ended the connection",
            Cause::ConnectionLost,
            None,
        ),
        "25006" => (
            "sql.not_read_only",
            "the statement writes, and only reading is allowed here",
            Cause::Refused,
            Some("use sql.execute; on a standby nothing can be written"),
        ),
        "53300" | "53200" => (
            "sql.resources",
            "the server has no more room for this",
            Cause::Throttled,
            None,
        ),
        "53100" => (
            "sql.disk_full",
            "the server's disk is full",
            Cause::Permanent,
            None,
        ),
        "42501" => (
            "sql.rights",
            "the user of the target may not do this",
            Cause::Permanent,
            Some("`windlass doctor` shows the user; GRANT what the playbook needs"),
        ),
        _ if state.starts_with("23") => (
            "sql.constraint",
            "a constraint refused",
            Cause::Permanent,
            None,
        ),
        _ => (
            "sql.error",
            "the server refused the statement",
            Cause::Permanent,
            None,
        ),
    };
    let failure = Failure::new(code, format!("{what}: {text} (SQLSTATE {state})")).cause(cause);
    match help.map(str::to_owned).or(server.hint().map(str::to_owned)) {
        Some(help) => failure.help(help),
        None => failure,
    }
}

fn lost(error: &Error) -> Failure {
    match error {
        Error::Io(io) => Failure::new("sql.connection", format!("the connection broke: {io}"))
            .cause(Cause::ConnectionLost),
        Error::Tls(_) => Failure::new("sql.connection", "the encrypted connection broke")
            .cause(Cause::ConnectionLost),
        other => Failure::new("sql.driver", format!("the driver failed: {other}")),
    }
}

/// An error after a COMMIT was sent: only what the server itself says is certain.
pub(super) fn of_commit(error: &Error) -> Failure {
    let certain = state(error).is_some_and(|state| {
        // Constraints and serialization are checked at the COMMIT; a shutdown may come after it.
        !state.starts_with("57") && !state.starts_with("08") && !state.starts_with("XX")
    });
    let failure = failure(error);
    if certain {
        failure
    } else {
        failure.certainty(Certainty::Unknown)
    }
}

/// Why there is no connection. No text of it holds a password.
pub(super) fn connecting(error: &Error, target: &str, options: &PgConnectOptions) -> Failure {
    let place = place(options);
    let user = options.get_username();
    let failure = |code: &str, what: String| Failure::new(code, format!("target {target}: {what}"));
    if let Some(state) = state(error) {
        let said = error
            .as_database_error()
            .map(|error| error.message().to_owned())
            .unwrap_or_default();
        return match state.as_str() {
            "28P01" => failure(
                "target.password",
                format!("{place} refuses the password of {user}"),
            )
            .help("check the secret or the .pgpass line; a rotation may have changed it"),
            "28000" => failure("target.login", format!("{place} refuses {user}: {said}"))
                .help("the server's pg_hba.conf decides who may connect from where, and how"),
            "3D000" => failure(
                "target.no_database",
                format!(
                    "{place} has no database {}",
                    options.get_database().unwrap_or(user)
                ),
            )
            .help("correct the database in the url of the target"),
            "53300" => failure(
                "target.too_many_connections",
                format!("{place} has no connection left: {said}"),
            )
            .cause(Cause::Throttled)
            .help("end idle sessions, raise max_connections, or connect through a pooler"),
            "57P03" => failure(
                "target.starting",
                format!("{place} does not take connections: {said}"),
            )
            .cause(Cause::ConnectionLost)
            .help("wait until it has started or recovered"),
            _ => failure(
                "target.refused",
                format!("{place} refuses the connection: {said} (SQLSTATE {state})"),
            ),
        };
    }
    match error {
        Error::Io(io) => match io.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                failure("target.port", format!("nothing listens at {place}"))
                    .cause(Cause::ConnectionLost)
                    .help("is the server up, and is the port right?")
            }
            std::io::ErrorKind::NotFound if is_local(options) => {
                failure("target.port", format!("nothing listens at {place}: {io}"))
                    .cause(Cause::ConnectionLost)
                    .help("is the server up, and is the folder of its socket right?")
            }
            std::io::ErrorKind::NotFound => failure(
                "target.file",
                format!("a file for the connection to {place} is not there: {io}"),
            )
            .help("check ca_file, client_cert and client_key"),
            _ if io.to_string().contains("peer certificate") => {
                untrusted(&place, &io.to_string(), failure)
            }
            _ if io.to_string().contains("lookup") => failure(
                "target.host",
                format!("the host of {place} is not known here"),
            )
            .cause(Cause::ConnectionLost)
            .help("correct the host in the url, or check the name server"),
            _ => failure(
                "target.unreachable",
                format!("{place} cannot be reached: {io}"),
            )
            .cause(Cause::ConnectionLost),
        },
        Error::Tls(tls) => {
            let text = tls.to_string();
            if text.contains("server does not support TLS") || text.contains("does not support SSL")
            {
                failure("target.no_tls", format!("{place} offers no TLS")).help(
                    "turn it on at the server; or, on a private network, `tls: off` for the target",
                )
            } else {
                untrusted(&place, &text, failure)
            }
        }
        Error::Configuration(why) => failure("target.url", format!("cannot connect: {why}")),
        other => failure(
            "target.unreachable",
            format!("{place} cannot be reached: {other}"),
        )
        .cause(Cause::ConnectionLost),
    }
}

/// Whether a server is reached by a socket of this host.
pub(super) fn is_local(options: &PgConnectOptions) -> bool {
    options.get_socket().is_some() || options.get_host().starts_with('/')
}

fn untrusted(place: &str, text: &str, failure: impl Fn(&str, String) -> Failure) -> Failure {
    // The library names its own types; people want the reason.
    let why = match text {
        text if text.contains("UnknownIssuer") => "its issuer is not trusted here",
        text if text.contains("NotValidForName") => "it is for another host",
        text if text.contains("Expired") => "it has expired",
        text if text.contains("NotValidYet") => "it is not valid yet",
        other => other,
    };
    failure(
        "target.certificate",
        format!("the certificate of {place} is not trusted: {why}"),
    )
    .help("give the target `ca_file: …` with the authority that signed it; `tls: require` encrypts without checking who answers")
}
