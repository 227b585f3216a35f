//! Wall-clock time, for people: nothing that must hold depends on it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970-01-01 UTC; 0 if the clock stands before that.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// ISO 8601 in UTC with milliseconds: `2026-11-22T04:08:55.123Z`.
pub fn iso8601(time_ns: i64) -> String {
    let millis = time_ns.div_euclid(1_000_000);
    let (seconds, millis) = (millis.div_euclid(1000), millis.rem_euclid(1000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// `2 hours ago`, the way people say it.
pub fn relative(time_ns: i64, now_ns: i64) -> String {
    let seconds = (now_ns - time_ns).div_euclid(1_000_000_000);
    let (count, unit) = match seconds {
        ..0 => return iso8601(time_ns),
        0..5 => return "just now".to_owned(),
        5..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

// Days since 1970-01-01 to year, month, day in the proleptic Gregorian calendar: eras of 400 years of 146,097 days,
// years counted from March so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_read_as_their_dates() {
        assert_eq!(iso8601(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso8601(951_782_400_000_000_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(iso8601(1_732_233_599_999_000_000), "2024-11-21T23:59:59.999Z");
        assert_eq!(iso8601(-1_000_000), "1969-12-31T23:59:59.999Z");
        assert_eq!(iso8601(4_107_542_400_000_000_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn relative_times_use_the_largest_fitting_unit() {
        let hour = 3_600_000_000_000;
        assert_eq!(relative(0, hour), "1 hour ago");
        assert_eq!(relative(0, 49 * hour), "2 days ago");
        assert_eq!(relative(0, 3_000_000_000), "just now");
    }
}
