//! Times as Webex writes them: `2026-11-22T10:04:05.678Z`. Pure.

/// Milliseconds since 1970; `None` if it is no time, or one before 1970. Always UTC: the service says no other.
pub(super) fn unix_ms(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':')?;
    let is_time = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !is_time || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: String = fraction.chars().chain("00".chars()).take(3).collect();
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(seconds * 1000 + millis.parse::<u64>().ok()?)
}

/// The same of `Date`, as servers write it today (RFC 9110 section 5.6.7): `Sun, 22 Nov 2026 10:04:05 GMT`.
pub(super) fn of_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_once(", ")?.1.strip_suffix(" GMT")?.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    unix_ms(&format!("{year}-{month}-{day}T{time}Z"))
}

fn numbers(text: &str, mark: char) -> Option<[u64; 3]> {
    let mut parts = text.split(mark).map(|part| part.parse().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

/// Days since 1970, in the Gregorian calendar; years begin with March, so that the leap day is their last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    const BEFORE_1970: u64 = 719_468;
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + of_year - BEFORE_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_answers_are_read() {
        for (text, expected) in [
            ("Sun, 22 Nov 2026 10:04:05 GMT", Some(1_795_341_845_000)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sunday, 22-Nov-26 10:04:05 GMT", None),
            ("Sun, 22 Nov 2026 10:04:05 CET", None),
            ("Sun, 22 Foo 2026 10:04:05 GMT", None),
            ("", None),
        ] {
            assert_eq!(of_date(text), expected, "{text}");
        }
    }

    #[test]
    fn times_of_the_service_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("2026-11-22T10:04:05.678Z", Some(1_795_341_845_678)),
            ("2026-11-22T10:04:05Z", Some(1_795_341_845_000)),
            ("2026-11-22T10:04:05.6Z", Some(1_795_341_845_600)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2000-03-01T00:00:00.123456Z", Some(951_868_800_123)),
            ("2026-11-22T10:04:05+01:00", None),
            ("2026-13-22T10:04:05Z", None),
            ("2026-11-22", None),
            ("1969-12-31T23:59:59Z", None),
            ("", None),
        ] {
            assert_eq!(unix_ms(text), expected, "{text}");
        }
    }
}
