//! Prometheus' text format, read: what a `/metrics` page says.

use std::collections::BTreeMap;

/// What a page said. Lines that are none of a series are passed over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exposition {
    series: BTreeMap<String, Vec<Series>>,
}

/// One series of a name.
#[derive(Debug, Clone, PartialEq)]
struct Series {
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A histogram, or what it grew by.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram {
    /// Upper bounds, the last is infinite, each with how many observations are no more.
    pub(crate) buckets: Vec<(f64, f64)>,
    /// Sum of all observations.
    pub(crate) sum: f64,
    /// How many there are.
    pub(crate) count: f64,
}

impl Exposition {
    /// Reads a page.
    pub(crate) fn read(page: &str) -> Self {
        let mut all = Self::default();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, series)) = line_of(line) {
                all.series.entry(name.to_owned()).or_default().push(series);
            }
        }
        all
    }

    /// Both pages as one.
    pub(crate) fn with(mut self, other: Self) -> Self {
        for (name, series) in other.series {
            self.series.entry(name).or_default().extend(series);
        }
        self
    }

    /// The sum of all series of a name that have these labels; none where there is none.
    pub(crate) fn total(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found =
            self.series.get(name)?.iter().filter(|series| series.has(labels)).peekable();
        found.peek()?;
        Some(found.map(|series| series.value).sum())
    }

    /// A histogram, summed over all its series; none where there is none.
    pub(crate) fn histogram(&self, name: &str) -> Option<Histogram> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for series in self.series.get(&format!("{name}_bucket"))? {
            let bound = series.labels.get("le")?.parse::<f64>().ok()?;
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += series.value,
                None => buckets.push((bound, series.value)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        Some(Histogram {
            buckets,
            sum: self.total(&format!("{name}_sum"), &[])?,
            count: self.total(&format!("{name}_count"), &[])?,
        })
    }
}

impl Series {
    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(*name).is_some_and(|has| has == value))
    }
}

impl Histogram {
    /// What it grew by since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let earlier = |bound: f64| {
            before
                .buckets
                .iter()
                .find(|(known, _)| *known == bound)
                .map_or(0.0, |(_, count)| *count)
        };
        Self {
            buckets: self.buckets.iter().map(|(le, count)| (*le, count - earlier(*le))).collect(),
            sum: self.sum - before.sum,
            count: self.count - before.count,
        }
    }

    /// The mean; none where nothing was observed.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }

    /// Which bucket holds the observation at this share; none where nothing was observed.
    pub(crate) fn bucket_at(&self, share: f64) -> Option<usize> {
        (self.count > 0.0).then_some(())?;
        self.buckets.iter().position(|(_, count)| *count >= share * self.count)
    }

    /// Which bucket a value falls into.
    pub(crate) fn bucket_of(&self, value: f64) -> Option<usize> {
        self.buckets.iter().position(|(bound, _)| value <= *bound)
    }

    /// A quantile, as Prometheus' `histogram_quantile` has it: spread evenly within a bucket.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let at = self.bucket_at(share)?;
        let (bound, count) = self.buckets[at];
        let (lower, below) = at.checked_sub(1).map_or((0.0, 0.0), |before| self.buckets[before]);
        if bound.is_infinite() {
            return Some(lower);
        }
        let part = if count > below { (share * self.count - below) / (count - below) } else { 1.0 };
        Some(lower + (bound - lower) * part)
    }
}

/// `name{label="value",…} 1.5`
fn line_of(line: &str) -> Option<(&str, Series)> {
    let name_end = line.find(['{', ' '])?;
    let name = &line[..name_end];
    let mut labels = BTreeMap::new();
    let mut rest = &line[name_end..];
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?;
    let value = if value == "+Inf" { f64::INFINITY } else { value.parse().ok()? };
    Some((name, Series { labels, value }))
}

/// What stands before the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP a what\n\
        a{x=\"1\",y=\"say \\\"hi\\\", {ok}\"} 2\n\
        a{x=\"2\"} 3 1700000000\n\
        plain 1e3\n\
        broken{x=\"1 5\n\
        h_bucket{le=\"1\"} 2\nh_bucket{le=\"2\"} 6\nh_bucket{le=\"+Inf\"} 8\nh_sum 14\nh_count 8\n";

    #[test]
    fn series_are_found_by_name_and_label() {
        let page = Exposition::read(PAGE);
        assert_eq!(page.total("a", &[]), Some(5.0));
        assert_eq!(page.total("a", &[("x", "1")]), Some(2.0));
        assert_eq!(page.total("a", &[("y", "say \"hi\", {ok}")]), Some(2.0));
        assert_eq!(page.total("a", &[("x", "3")]), None);
        assert_eq!(page.total("plain", &[]), Some(1000.0));
        assert_eq!(page.total("broken", &[]), None);
    }

    #[test]
    fn a_histogram_has_quantiles() {
        let all = Exposition::read(PAGE).histogram("h").unwrap();
        assert_eq!(all.mean(), Some(1.75));
        assert_eq!(all.quantile(0.5), Some(1.5));
        assert_eq!(all.quantile(1.0), Some(2.0));
        assert_eq!((all.bucket_at(0.25), all.bucket_of(1.5)), (Some(0), Some(1)));
        let none = all.since(&all);
        assert_eq!((none.count, none.quantile(0.5)), (0.0, None));
    }
}
