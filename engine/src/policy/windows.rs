//! Windows: when a run may start, such as `Mon-Fri 09:00-17:00 America/Sao_Paulo`.
use jiff::{Timestamp, civil::Weekday, tz::TimeZone};

/// A recurring span of a week in a time zone.
#[derive(Debug, Clone)]
pub struct Window {
    days: Vec<Weekday>,
    /// Minutes after midnight.
    from: u16,
    /// Minutes after midnight; not after `from` means that it ends on the next day.
    to: u16,
    zone: TimeZone,
}

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

impl Window {
    /// Reads `DAYS HH:MM-HH:MM ZONE`; days are `Mon`, `Mon-Fri` or `Sat,Sun`, or `*` for all.
    ///
    /// # Errors
    /// What is wrong, with an example.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{what} in window {text:?}; write it as \"Mon-Fri 09:00-17:00 Europe/Berlin\"")
        };
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [days, hours, zone] = parts.as_slice() else {
            return Err(wrong("three parts are needed"));
        };
        let (from, to) = hours
            .split_once('-')
            .ok_or_else(|| wrong("no span of hours"))?;
        let from = minutes(from).ok_or_else(|| wrong("no hour"))?;
        let to = minutes(to).ok_or_else(|| wrong("no hour"))?;
        let zone = TimeZone::get(zone).map_err(|_| wrong("an unknown time zone"))?;
        let mut all = Vec::new();
        for part in days.split(',') {
            all.extend(days_of(part).ok_or_else(|| wrong("an unknown day"))?);
        }
        Ok(Self {
            days: all,
            from,
            to,
            zone,
        })
    }

    /// Whether an instant lies inside.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        let local = at.to_zoned(self.zone.clone());
        let minute = u16::try_from(local.hour()).unwrap_or(0) * 60
            + u16::try_from(local.minute()).unwrap_or(0);
        let today = local.weekday();
        if self.from < self.to {
            return self.days.contains(&today) && (self.from..self.to).contains(&minute);
        }
        self.days.contains(&today) && minute >= self.from
            || self.days.contains(&today.previous()) && minute < self.to
    }
}

fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    (hour < 24 && minute < 60 || hour == 24 && minute == 0).then_some(hour * 60 + minute)
}

fn days_of(text: &str) -> Option<Vec<Weekday>> {
    if text == "*" {
        return Some(DAYS.iter().map(|(_, day)| *day).collect());
    }
    let place = |name: &str| {
        DAYS.iter()
            .position(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    match text.split_once('-') {
        None => Some(vec![DAYS.get(place(text)?)?.1]),
        Some((first, last)) => {
            let (first, last) = (place(first)?, place(last)?);
            let count = (last + 7 - first) % 7 + 1;
            DAYS.iter()
                .cycle()
                .skip(first)
                .take(count)
                .map(|(_, day)| Some(*day))
                .collect()
        }
    }
}

/// Whether a run may start now; without windows it always may.
///
/// # Errors
/// The windows, in words, where `now` lies in none of them.
pub fn check(windows: &[String], now: Timestamp) -> Result<(), String> {
    if windows.is_empty() {
        return Ok(());
    }
    for text in windows {
        if Window::parse(text)?.contains(now) {
            return Ok(());
        }
    }
    Err(windows.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_and_nights() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let office = Window::parse("Mon-Fri 09:00-17:00 America/Sao_Paulo").unwrap();
        assert!(
            office.contains(at("2026-11-20T12:00:00Z")),
            "Friday, 09:00 there"
        );
        assert!(!office.contains(at("2026-11-20T11:59:00Z")));
        assert!(
            !office.contains(at("2026-11-20T20:00:00Z")),
            "the end is not inside"
        );
        assert!(!office.contains(at("2026-11-21T13:00:00Z")), "Saturday");
        let night = Window::parse("Fri 22:00-04:00 UTC").unwrap();
        assert!(
            night.contains(at("2026-11-21T03:59:00Z")),
            "Saturday morning belongs to Friday's night"
        );
        assert!(!night.contains(at("2026-11-20T03:59:00Z")));
        for bad in [
            "",
            "Mon-Fri 09:00 UTC",
            "Xyz 09:00-10:00 UTC",
            "Mon 09:00-10:00 Nowhere/City",
            "Mon 25:00-26:00 UTC",
        ] {
            assert!(Window::parse(bad).is_err(), "{bad}");
        }
    }
}
