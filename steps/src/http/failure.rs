//! What each end of a request means for the run.
//!
//! | what came | a request that writes |
//! |---|---|
//! | no connection, no trust, unknown host | nothing happened: nothing was sent |
//! | it broke off, or the time was over, after the request went | unknown |
//! | 4xx, 304, 307, 308, 501, 505; 503 with `Retry-After` | nothing happened: the service refused |
//! | any other 5xx | unknown: a gateway does not know what became of it |
//! | any other answer that is not expected, or an `expect.body` that does not hold | it happened, at least in part |
//!
//! For a request that only reads, nothing ever happened.
use super::{
    client::{Answer, End},
    retry_after,
};
use windlass_engine::{
    step::{Cause, Certainty, Failure},
    value::Timestamp,
};

/// The failure of an exchange that did not come to its end. `shown` names the request.
pub(super) fn ended(shown: &str, end: End, answer: &Answer, writes: bool) -> Failure {
    let after = if !writes {
        Certainty::NoEffect
    } else {
        Certainty::Unknown
    };
    let how_far = if answer.status == 0 {
        "before an answer came".to_owned()
    } else {
        format!("in the middle of the answer (status {})", answer.status)
    };
    let ask = "ask the service whether it took effect, or give the step a `probe`; a request that may go twice is `idempotent: true`";
    let doubt = |failure: Failure| {
        if writes {
            failure.certainty(after).help(ask)
        } else {
            failure
        }
    };
    match end {
        End::UnknownHost(why) => Failure::new(
            "http.unknown_host",
            format!("{shown}: the host is not known ({why}); nothing was sent"),
        )
        .cause(Cause::ConnectionLost)
        .help("check the host in the url, and the name service of this host"),
        End::Tls(why) => Failure::new(
            "http.tls",
            format!("{shown}: the connection is not trusted ({why}); nothing was sent"),
        )
        .help("is it the right host? For a certificate authority of your own give `ca_file`"),
        End::Connect(why) => Failure::new(
            "http.connect",
            format!("{shown}: no connection ({why}); nothing was sent"),
        )
        .cause(Cause::ConnectionLost)
        .help("is the service up, and does a network of this host lead there?"),
        End::Cut(why) => doubt(
            Failure::new(
                "http.cut",
                format!("{shown}: the exchange broke off {how_far} ({why})"),
            )
            .cause(Cause::ConnectionLost),
        ),
        End::Timeout => {
            let failure = doubt(
                Failure::new(
                    "http.timeout",
                    format!("{shown}: the time was over {how_far}"),
                )
                .cause(Cause::Timeout),
            );
            if writes {
                failure
            } else {
                failure.help("give the step a longer `timeout`")
            }
        }
        End::Cancelled => doubt(
            Failure::new(
                "http.cancelled",
                format!("{shown}: the step was cancelled {how_far}"),
            )
            .cause(Cause::Cancelled),
        ),
    }
}

/// The failure of a step that ended before its request went.
pub(super) fn not_sent(shown: &str, end: End) -> Failure {
    let answer = Answer::default();
    let mut failure = ended(shown, end, &answer, false);
    failure.message.push_str("; nothing was sent");
    failure
}

/// The failure of an answer whose status is not expected.
pub(super) fn status(
    shown: &str,
    answer: &Answer,
    expected: &str,
    writes: bool,
    now: Timestamp,
) -> Failure {
    let status = answer.status;
    let retry_after = answer.headers.get("retry-after");
    let reason = reqwest::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .map(|reason| format!(" {reason}"))
        .unwrap_or_default();
    let said = first_line(&answer.body)
        .map(|line| format!(": {line}"))
        .unwrap_or_default();
    let failure = Failure::new(
        "http.status",
        format!("{shown} was answered {status}{reason}, where {expected} is expected{said}"),
    )
    .cause(cause(status))
    .certainty(if writes {
        certainty(status, retry_after.is_some())
    } else {
        Certainty::NoEffect
    });
    let location = answer.headers.get("location");
    match (retry_after.and_then(|header| retry_after::told(header, now)), location) {
        (Some(wait), _) => failure.help(wait),
        (None, Some(location)) if (300..400).contains(&status) => failure.help(format!(
            "the service names {location} instead; redirects are followed only by a request with `effect: reads` and \
             `follow_redirects`, within one host"
        )),
        (None, _) => match status {
            401 | 403 => failure.help("check the credential that the headers carry, and its rights"),
            404 | 410 => failure.help("check the path of the url"),
            500..=599 if writes => failure.help(
                "a server that fails may have done a part of it: ask it, or give the step a `probe`",
            ),
            _ => failure,
        },
    }
}

/// The failure of an answer that is not as `expect.body` wants it.
pub(super) fn unexpected(message: String, writes: bool) -> Failure {
    Failure::new("http.expect", message)
        .cause(Cause::Refused)
        .certainty(if writes {
            Certainty::Partial
        } else {
            Certainty::NoEffect
        })
}

fn cause(status: u16) -> Cause {
    match status {
        425 | 429 | 503 => Cause::Throttled,
        423 => Cause::LockTimeout,
        408 | 502 | 504 => Cause::ConnectionLost,
        _ => Cause::Permanent,
    }
}

fn certainty(status: u16, retry_after: bool) -> Certainty {
    match status {
        304 | 307 | 308 | 400..=499 | 501 | 505 => Certainty::NoEffect,
        503 if retry_after => Certainty::NoEffect,
        500..=599 => Certainty::Unknown,
        _ => Certainty::Partial,
    }
}

/// The first line of a body that people can read.
fn first_line(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let line = text.lines().find(|line| !line.trim().is_empty())?.trim();
    let plain = !line.starts_with('<') && !line.chars().any(char::is_control);
    plain.then(|| line.chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each class of statuses, with what it means for a request that writes.
    #[test]
    fn statuses_say_what_happened() {
        use Certainty::{NoEffect, Partial, Unknown};
        for (status, retry_after, expected, passing) in [
            (200, false, Partial, false),
            (302, false, Partial, false),
            (307, false, NoEffect, false),
            (400, false, NoEffect, false),
            (408, false, NoEffect, true),
            (423, false, NoEffect, true),
            (429, false, NoEffect, true),
            (429, true, NoEffect, true),
            (500, false, Unknown, false),
            (501, false, NoEffect, false),
            (502, false, Unknown, true),
            (503, false, Unknown, true),
            (503, true, NoEffect, true),
            (504, true, Unknown, true),
        ] {
            assert_eq!(certainty(status, retry_after), expected, "{status}");
            assert_eq!(cause(status).is_transient(), passing, "{status}");
        }
    }

    #[test]
    fn a_page_is_no_message() {
        assert_eq!(first_line(b"\n no_service \nmore").unwrap(), "no_service");
        assert_eq!(first_line(b"<html>"), None);
        assert_eq!(first_line(&[0xff]), None);
    }
}
