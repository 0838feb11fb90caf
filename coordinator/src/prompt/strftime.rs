//! Dates for templates that tell the model what day it is.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A moment in UTC, formatted as C's `strftime` would in the C locale. A directive that is not known
/// stays as it is.
pub(crate) fn strftime(format: &str, now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (year, month, day) = civil(days);
    let month_name = MONTHS[usize::try_from(month - 1).unwrap_or(0)];
    let day_name = DAYS[usize::try_from((days + 4) % 7).unwrap_or(0)];
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let directive = letters.next().unwrap_or('%');
        // Writing to a string does not fail.
        let _ = match directive {
            'Y' => write!(text, "{year}"),
            'y' => write!(text, "{:02}", year % 100),
            'm' => write!(text, "{month:02}"),
            'd' => write!(text, "{day:02}"),
            'e' => write!(text, "{day:2}"),
            'B' => write!(text, "{month_name}"),
            'b' | 'h' => write!(text, "{}", &month_name[..3]),
            'A' => write!(text, "{day_name}"),
            'a' => write!(text, "{}", &day_name[..3]),
            'H' => write!(text, "{hour:02}"),
            'I' => write!(text, "{:02}", (hour + 11) % 12 + 1),
            'M' => write!(text, "{minute:02}"),
            'S' => write!(text, "{:02}", second % 60),
            'p' => write!(text, "{}", if hour < 12 { "AM" } else { "PM" }),
            'F' => write!(text, "{year}-{month:02}-{day:02}"),
            'T' => write!(text, "{hour:02}:{minute:02}:{:02}", second % 60),
            'Z' => write!(text, "UTC"),
            'z' => write!(text, "+0000"),
            '%' => write!(text, "%"),
            other => write!(text, "%{other}"),
        };
    }
    text
}

/// Year, month and day of a day since 1970, by counting 400-year cycles that begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    (cycle * 400 + year + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(strftime("%d %b %Y %H:%M:%S %A", at(0)), "01 Jan 1970 00:00:00 Thursday");
        assert_eq!(strftime("%F %T", at(951_827_696)), "2000-02-29 12:34:56");
        assert_eq!(strftime("%e %B %y %I %p %a", at(1_709_164_799)), "28 February 24 11 PM Wed");
        assert_eq!(strftime("%Q 100%% %", at(0)), "%Q 100% %");
    }
}
