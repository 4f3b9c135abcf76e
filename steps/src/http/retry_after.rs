//! `Retry-After`: when a service wants to be asked again.
use windlass_engine::value::{Duration, Timestamp};

/// The header as people read it, if it is one of its two forms: seconds or an HTTP date.
pub(super) fn told(header: &str, now: Timestamp) -> Option<String> {
    let at = match header.trim().parse::<u32>() {
        Ok(seconds) => {
            let wait = Duration::from_secs(i64::from(seconds));
            return Some(format!(
                "the service asks for {wait} before the next try, so not before {}",
                seconds_of(wait.after(now))
            ));
        }
        Err(_) => jiff::fmt::rfc2822::DateTimeParser::new()
            .parse_timestamp(header.trim())
            .ok()?,
    };
    Some(format!(
        "the service asks not to be tried again before {}",
        seconds_of(at)
    ))
}

fn seconds_of(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let now: Timestamp = "2026-03-01T10:00:00.5Z".parse().unwrap();
        assert_eq!(
            told("30", now).unwrap(),
            "the service asks for 30s before the next try, so not before 2026-03-01T10:00:30Z"
        );
        assert_eq!(
            told("Sun, 01 Mar 2026 10:05:00 GMT", now).unwrap(),
            "the service asks not to be tried again before 2026-03-01T10:05:00Z"
        );
        assert_eq!(told("soon", now), None);
        assert_eq!(told("-3", now), None);
    }
}
