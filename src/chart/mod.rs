//! Charts for people: inline SVG in a page that needs nothing else, light or dark as they like it.
//!
//! Nothing is told by colour alone: lines differ in their strokes, and every chart has its figures in a
//! table beside it.

mod axis;
mod bars;
mod heat;
mod lines;
mod page;

pub(crate) use page::page;

/// Width of a chart, in its own units.
const WIDTH: f64 = 640.0;
/// Height of a chart.
const HEIGHT: f64 = 250.0;
/// Room at the left, for what the axis says.
const LEFT: f64 = 58.0;
/// Room at the right.
const RIGHT: f64 = 24.0;
/// Room at the top.
const TOP: f64 = 12.0;
/// Room at the bottom, for what the axis says.
const BOTTOM: f64 = 30.0;

/// One picture.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    /// What it shows.
    pub(crate) title: String,
    /// How to read it, in a sentence; empty: it speaks for itself.
    pub(crate) note: String,
    /// What is drawn.
    pub(crate) picture: Picture,
}

/// What is drawn.
#[derive(Debug, Clone)]
pub(crate) enum Picture {
    /// Values over something.
    Lines(Lines),
    /// A value for each of a few names.
    Bars(Bars),
    /// A count for each moment and range.
    Heat(Heat),
}

/// Values over something.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    /// What stands below: `s`, `%`.
    pub(crate) below: &'static str,
    /// Of the values.
    pub(crate) unit: Unit,
    /// The lines.
    pub(crate) lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// What it is.
    pub(crate) name: String,
    /// Where it goes, from left to right. Nothing is drawn where there is no value.
    pub(crate) points: Vec<(f64, Option<f64>)>,
}

/// A value for each of a few names.
#[derive(Debug, Clone)]
pub(crate) struct Bars {
    /// Of the values.
    pub(crate) unit: Unit,
    /// Names and values.
    pub(crate) bars: Vec<(String, f64)>,
}

/// A count for each moment and range.
#[derive(Debug, Clone)]
pub(crate) struct Heat {
    /// Moments, seconds from the start.
    pub(crate) moments: Vec<f64>,
    /// Ranges, the lowest first.
    pub(crate) ranges: Vec<String>,
    /// For each moment the count of each range.
    pub(crate) counts: Vec<Vec<f64>>,
}

/// What values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Seconds; shown as µs, ms or s.
    Seconds,
    /// A share of 1; shown in percent.
    Share,
    /// Bytes; shown as KiB, MiB or GiB.
    Bytes,
    /// A number of something.
    Count,
    /// Something a second.
    PerSecond,
}

impl Unit {
    /// A value with its unit.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value == 0.0 => "0".to_owned(),
            Self::Seconds if value.abs() < 1e-3 => format!("{} µs", digits(value * 1e6)),
            Self::Seconds if value.abs() < 1.0 => format!("{} ms", digits(value * 1e3)),
            Self::Seconds => format!("{} s", digits(value)),
            Self::Share => format!("{} %", digits(value * 100.0)),
            Self::Bytes if value.abs() < 1_048_576.0 => format!("{} KiB", digits(value / 1024.0)),
            Self::Bytes if value.abs() < 1e9 => format!("{} MiB", digits(value / 1_048_576.0)),
            Self::Bytes => format!("{} GiB", digits(value / 1_073_741_824.0)),
            Self::Count => digits(value),
            Self::PerSecond => format!("{}/s", digits(value)),
        }
    }
}

/// As many digits as matter.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    if places == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text as it may stand in a page.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: Vec<(f64, Option<f64>)>) -> Chart {
        let lines = vec![Line { name: "a <b>".to_owned(), points }];
        let picture = Picture::Lines(Lines { below: "s", unit: Unit::Seconds, lines });
        Chart { title: "Time & tide".to_owned(), note: String::new(), picture }
    }

    #[test]
    fn values_are_shown_with_the_unit_that_fits() {
        for (unit, value, shown) in [
            (Unit::Seconds, 0.000_25, "250 µs"),
            (Unit::Seconds, 0.0125, "12.5 ms"),
            (Unit::Seconds, 2.0, "2 s"),
            (Unit::Share, 0.5, "50 %"),
            (Unit::Bytes, 3.0 * 1_048_576.0, "3 MiB"),
            (Unit::Count, 1234.6, "1235"),
            (Unit::PerSecond, 0.0, "0/s"),
        ] {
            assert_eq!(unit.show(value), shown);
        }
    }

    #[test]
    fn a_page_has_every_chart_and_no_markup_from_outside() {
        let charts =
            [line(vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(3.0)), (3.0, Some(2.0))])];
        let text = page("<title>", "<p>facts</p>", &charts);
        assert_eq!(text.matches("<svg class=\"chart\"").count(), 1);
        assert!(text.contains("Time &amp; tide") && text.contains("a &lt;b&gt;"));
        assert!(text.contains("<title>&lt;title&gt;</title>"));
        // A gap parts a line in two: it is never drawn through what nobody measured.
        assert_eq!(text.matches("<polyline").count() + text.matches("<circle").count(), 2);
        assert!(!text.contains("http"), "it needs no other host");
    }

    #[test]
    fn nothing_and_what_is_no_number_can_be_drawn() {
        for points in [vec![], vec![(0.0, None)], vec![(0.0, Some(f64::NAN)), (0.0, Some(0.0))]] {
            let text = page("x", "", &[line(points)]);
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
        let bars = Picture::Bars(Bars { unit: Unit::Count, bars: Vec::new() });
        let heat = Heat { moments: Vec::new(), ranges: Vec::new(), counts: Vec::new() };
        for picture in [bars, Picture::Heat(heat)] {
            let chart = Chart { title: String::new(), note: String::new(), picture };
            assert!(page("x", "", &[chart]).contains("nothing was measured"));
        }
    }
}
