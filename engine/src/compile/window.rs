//! The syntax of a window: `Mon-Fri 09:00-17:00 America/Sao_Paulo`.

const DAYS: &[&str] = &["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Checks a window; says what is wrong with it.
pub(super) fn check(text: &str) -> Result<(), String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (days, hours, zone) = match words.as_slice() {
        [days, hours, zone] => (*days, *hours, *zone),
        _ => return Err("a window is days, hours and a time zone".to_owned()),
    };
    for part in days.split(',') {
        let mut ends = part.split('-');
        let known = ends.by_ref().take(2).all(|day| DAYS.contains(&day));
        if !known || ends.next().is_some() {
            return Err(format!(
                "`{part}` is not a day or a range of days; write Mon, Sat,Sun or Mon-Fri"
            ));
        }
    }
    let Some((from, to)) = hours.split_once('-') else {
        return Err(format!(
            "`{hours}` is not a range of hours; write 09:00-17:00"
        ));
    };
    for time in [from, to] {
        if minutes(time).is_none() {
            return Err(format!("`{time}` is not a time of day; write 09:00"));
        }
    }
    if minutes(from) == minutes(to) {
        return Err(format!("`{hours}` is empty; a whole day is 00:00-24:00"));
    }
    jiff::tz::TimeZone::get(zone)
        .map(drop)
        .map_err(|_| format!("`{zone}` is not a time zone; write one such as Europe/Lisbon or UTC"))
}

fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |part: &str| {
        (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<u32>().ok())?
    };
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= 24 * 60).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_windows() {
        for ok in [
            "Mon-Fri 09:00-17:00 America/Sao_Paulo",
            "Sat,Sun 00:00-24:00 UTC",
            "Fri-Mon 22:00-06:00 Europe/Lisbon",
        ] {
            assert_eq!(check(ok), Ok(()), "{ok}");
        }
        for bad in [
            "",
            "Mon-Fri 09:00-17:00",
            "Mo 09:00-17:00 UTC",
            "Mon-Tue-Wed 09:00-17:00 UTC",
            "Mon 9-17 UTC",
            "Mon 09:00-25:00 UTC",
            "Mon 09:00-09:00 UTC",
            "Mon 09:00-17:00 Mars/Olympus",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
