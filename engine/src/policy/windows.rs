//! Windows: when a run and its writing steps may start, such as `Mon-Fri 09:00-17:00 America/Sao_Paulo`.
use jiff::{
    Timestamp, ToSpan,
    civil::Weekday,
    tz::{AmbiguousOffset, TimeZone},
};

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

    /// The first instant from `now` on that lies inside; `None` if there is none within [`HORIZON`].
    ///
    /// A window opens when a clock on the wall comes to its hour, or when a switch of that clock leads into it. So these
    /// instants are tried, all of them: an hour that comes twice in the night of a switch opens twice, and one that the
    /// clock passes over opens at the switch, or not at all.
    fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        if self.contains(now) {
            return Some(now);
        }
        let today = now.to_zoned(self.zone.clone()).date();
        let first = today.yesterday().ok()?;
        let hours = first.series(1.day()).take(HORIZON).flat_map(|day| {
            let opens = day
                .to_datetime(jiff::civil::Time::midnight())
                .checked_add(i64::from(self.from).minutes());
            opens.map_or_else(|_| Vec::new(), |opens| self.instants(opens))
        });
        let until = first
            .checked_add(i64::try_from(HORIZON).unwrap_or(0).days())
            .ok()?
            .to_zoned(self.zone.clone())
            .ok()?
            .timestamp();
        let switches = self
            .zone
            .following(now)
            .map(|switch| switch.timestamp())
            .take_while(|at| *at <= until);
        hours
            .chain(switches)
            .filter(|at| *at > now && self.contains(*at))
            .min()
    }

    /// When a clock on the wall shows this: once, twice or never.
    fn instants(&self, shown: jiff::civil::DateTime) -> Vec<Timestamp> {
        let offsets = match self.zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => vec![offset],
            AmbiguousOffset::Fold { before, after } => vec![before, after],
            AmbiguousOffset::Gap { .. } => Vec::new(),
        };
        offsets
            .into_iter()
            .filter_map(|offset| offset.to_timestamp(shown).ok())
            .collect()
    }
}

/// How many days are looked at: more than a week, since the one day of a week may fall into a switch of the clock.
const HORIZON: usize = 30;

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

/// The first instant from `now` on that lies in one of the windows: `now` itself if they are open, or if there are none.
/// `None` if they open at no time, as far as can be told.
#[must_use]
pub fn next_opening(windows: &[String], now: Timestamp) -> Option<Timestamp> {
    if windows.is_empty() {
        return Some(now);
    }
    windows
        .iter()
        .filter_map(|text| Window::parse(text).ok()?.next_opening(now))
        .min()
}

/// Whether a run may start now; without windows it always may.
///
/// # Errors
/// The windows, in words, and when the next one opens, if `now` lies in none of them.
pub fn check(windows: &[String], now: Timestamp) -> Result<(), String> {
    if windows.is_empty() {
        return Ok(());
    }
    for text in windows {
        if Window::parse(text)?.contains(now) {
            return Ok(());
        }
    }
    let all = windows.join("; ");
    Err(match next_opening(windows, now) {
        Some(opens) => format!("{all}; the next one opens at {opens:.0}"),
        None => all,
    })
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

    /// Whether an instant lies in a window, read off a clock on the wall as a person would: by text.
    fn is_inside(text: &str, at: Timestamp) -> bool {
        let parts: Vec<&str> = text.split(' ').collect();
        let local = at.in_tz(parts[2]).unwrap();
        let (from, to) = parts[1].split_once('-').unwrap();
        let clock = local.strftime("%H:%M").to_string();
        let day = |back: i64| {
            let date = local.date().checked_sub(back.days()).unwrap();
            let name = date.strftime("%a").to_string();
            parts[0] == "*" || parts[0].split(',').any(|day| day == name)
        };
        if from < to {
            day(0) && *from <= *clock && *clock < *to
        } else {
            day(0) && *from <= *clock || day(1) && *clock < *to
        }
    }

    /// Minute after minute, until the windows are open.
    fn walked(windows: &[String], now: Timestamp, limit: i64) -> Option<Timestamp> {
        let minute = now.as_second() - now.as_second().rem_euclid(60);
        let later = (1..=limit).map(|n| Timestamp::from_second(minute + n * 60).unwrap());
        std::iter::once(now)
            .chain(later)
            .find(|at| windows.iter().any(|window| is_inside(window, *at)))
    }

    #[test]
    fn the_next_opening_over_a_weekend_and_over_switches_of_the_clock() {
        let opens = |window: &str, now: &str| {
            next_opening(&[window.to_owned()], now.parse().unwrap())
                .unwrap()
                .to_string()
        };
        let office = "Mon-Fri 09:00-17:00 America/Sao_Paulo";
        assert_eq!(
            opens(office, "2026-11-20T20:00:00Z"),
            "2026-11-23T12:00:00Z"
        );
        assert_eq!(
            opens(office, "2026-11-20T19:59:59Z"),
            "2026-11-20T19:59:59Z",
            "open now"
        );
        // Spring: the clock goes from 02:00 to 03:00, and a window that begins between opens at the switch.
        let spring = "Sun 02:30-04:00 Europe/Berlin";
        assert_eq!(
            opens(spring, "2026-03-28T12:00:00Z"),
            "2026-03-29T01:00:00Z"
        );
        // One that lies between altogether does not open that day.
        let inside = "Sun 02:10-02:40 Europe/Berlin";
        assert_eq!(
            opens(inside, "2026-03-28T12:00:00Z"),
            "2026-04-05T00:10:00Z"
        );
        // Autumn: 02:30 comes twice.
        let autumn = "Sun 02:30-02:45 Europe/Berlin";
        assert_eq!(
            opens(autumn, "2026-10-24T12:00:00Z"),
            "2026-10-25T00:30:00Z"
        );
        assert_eq!(
            opens(autumn, "2026-10-25T00:50:00Z"),
            "2026-10-25T01:30:00Z"
        );
        // The switch itself leads back into a window that was over.
        let back = "Sun 02:00-02:30 Europe/Berlin";
        assert_eq!(opens(back, "2026-10-25T00:40:00Z"), "2026-10-25T01:00:00Z");
        assert_eq!(
            next_opening(&[], Timestamp::UNIX_EPOCH),
            Some(Timestamp::UNIX_EPOCH)
        );
    }

    use proptest::prelude::*;

    fn window() -> impl Strategy<Value = String> {
        let zone = prop_oneof![
            Just("Europe/Berlin"),
            Just("America/New_York"),
            Just("America/Sao_Paulo"),
            Just("Australia/Lord_Howe"),
            Just("Asia/Kathmandu"),
            Just("Pacific/Apia"),
            Just("Africa/Casablanca"),
            Just("Etc/UTC"),
        ];
        let days = prop_oneof![
            Just("*".to_owned()),
            prop::sample::subsequence(vec!["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], 1..4)
                .prop_map(|days| days.join(",")),
        ];
        let minute = prop_oneof![0..1440_u32, 0..240_u32];
        (days, minute.clone(), minute, zone)
            .prop_filter("a window of no length", |(_, from, to, _)| from != to)
            .prop_map(|(days, from, to, zone)| {
                let clock = |m: u32| format!("{:02}:{:02}", m / 60, m % 60);
                format!("{days} {}-{} {zone}", clock(from), clock(to))
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// Around every kind of switch of a clock the next opening is the one that a walk from minute to minute meets.
        #[test]
        fn the_next_opening_is_the_first_that_a_walk_meets(
            windows in prop::collection::vec(window(), 1..3),
            // Days around which clocks are switched somewhere, and any others.
            start in prop_oneof![
                Just("2026-03-08T00:00:00Z"), Just("2026-03-29T00:00:00Z"), Just("2026-04-04T12:00:00Z"),
                Just("2026-10-03T12:00:00Z"), Just("2026-10-25T00:00:00Z"), Just("2026-11-01T00:00:00Z"),
                Just("2026-02-15T00:00:00Z"), Just("2026-03-22T00:00:00Z"), Just("2011-12-29T12:00:00Z"),
                Just("2026-06-30T00:00:00Z"),
            ],
            shift in -200_000..200_000_i64,
        ) {
            let start: Timestamp = start.parse().unwrap();
            let now = Timestamp::from_second(start.as_second() + shift).unwrap();
            let found = next_opening(&windows, now);
            match walked(&windows, now, 15 * 1440) {
                Some(walked) => prop_assert_eq!(found, Some(walked), "{:?} at {}", windows, now),
                None => prop_assert!(found.is_none_or(|at| at.as_second() > now.as_second() + 15 * 86_400)),
            }
        }
    }
}
