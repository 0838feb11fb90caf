//! What must hold after the demo, and whether it does.
//!
//! Drift is told by comparing two quarters of the run: the second, in which everything is warm, and the
//! last. Both have the same waves, so the same must be held and answers must take as long.

use serde::Serialize;

use crate::bench::serve::Reconciliation;
use crate::chart::Unit;
use crate::config::DemoConfig;
use crate::demo::watch::Watched;
use crate::load::{Sample, median};

/// Memory may grow by so much whatever its share is, bytes: allocators keep what was once needed.
const MEMORY_SLACK: f64 = 16.0 * 1024.0 * 1024.0;
/// Handles may grow by so many: connections come and go.
const HANDLES_SLACK: f64 = 4.0;
/// Requests that a quarter must have for its latency to mean something.
const REQUESTS_MIN: usize = 8;

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What.
    pub(super) name: String,
    /// Whether it does.
    pub(super) passed: bool,
    /// What was seen.
    pub(super) found: String,
}

impl Check {
    pub(super) fn passed(name: &str, found: String) -> Self {
        Self { name: name.to_owned(), passed: true, found }
    }

    pub(super) fn failed(name: &str, found: String) -> Self {
        Self { name: name.to_owned(), passed: false, found }
    }

    pub(super) fn that(passed: bool, name: &str, found: String) -> Self {
        Self { name: name.to_owned(), passed, found }
    }

    /// The server's figures are what the clients saw.
    pub(super) fn of_figures(found: &Reconciliation) -> Self {
        let wrong = found.mismatches();
        let shown = format!("{} compared, {wrong} mismatched", found.rows().len());
        Self::that(wrong == 0, "figures are what clients saw", shown)
    }

    /// Memory, handles and latency are what they were; every request was answered.
    pub(super) fn of_drift(
        samples: &[Sample],
        watched: &Watched,
        config: &DemoConfig,
    ) -> Vec<Self> {
        let mut checks = vec![Self::answered(samples)];
        for process in &watched.processes {
            let name = format!("memory of {}", process.name);
            let share = config.memory_drift_max;
            checks.push(Self::held(&name, Unit::Bytes, &process.memory, |early| {
                early + (early * share).max(MEMORY_SLACK)
            }));
            let name = format!("handles of {}", process.name);
            checks.push(Self::held(&name, Unit::Count, &process.handles, |early| {
                early + HANDLES_SLACK
            }));
        }
        let share = config.latency_drift_max;
        checks.push(Self::latency("time to first token", samples, share, |sample| {
            sample.ttft.map(|time| time.as_secs_f64())
        }));
        checks.push(Self::latency("time per output token", samples, share, |sample| {
            sample.tpot().map(|time| time.as_secs_f64())
        }));
        checks
    }

    fn answered(samples: &[Sample]) -> Self {
        let answered = samples.iter().filter(|sample| sample.answered()).count();
        let found = format!("{answered} of {}", samples.len());
        Self::that(answered == samples.len() && answered > 0, "every request answered", found)
    }

    /// The median of the last quarter is no more than `most` of that of the second.
    fn held(name: &str, unit: Unit, values: &[f64], most: impl Fn(f64) -> f64) -> Self {
        let (second, last) = (quarter(values, 1), quarter(values, 3));
        let (Some(early), Some(late)) = (median(second), median(last)) else {
            return Self::failed(name, "too few readings".to_owned());
        };
        let found = format!("{} early, {} late", unit.show(early), unit.show(late));
        Self::that(late <= most(early), name, found)
    }

    fn latency(
        name: &str,
        samples: &[Sample],
        share: f64,
        of: impl Fn(&Sample) -> Option<f64>,
    ) -> Self {
        let mut in_order: Vec<&Sample> = samples.iter().filter(|it| it.answered()).collect();
        in_order.sort_by_key(|sample| sample.start);
        let end = in_order.last().map_or(0.0, |sample| sample.start.as_secs_f64());
        let values = |from: f64, to: f64| -> Vec<f64> {
            let within = in_order.iter().filter(|sample| {
                let at = sample.start.as_secs_f64();
                at >= from * end && at <= to * end
            });
            within.filter_map(|sample| of(sample)).collect()
        };
        let (second, last) = (values(0.25, 0.5), values(0.75, 1.0));
        if second.len().min(last.len()) < REQUESTS_MIN {
            return Self::failed(name, "too few requests to tell: run it for longer".to_owned());
        }
        let (Some(early), Some(late)) = (median(&second), median(&last)) else {
            return Self::failed(name, "nothing was measured".to_owned());
        };
        let found =
            format!("{} early, {} late", Unit::Seconds.show(early), Unit::Seconds.show(late));
        Self::that(late <= early * (1.0 + share), name, found)
    }
}

/// Of four equal parts, the one with this number.
fn quarter(values: &[f64], nth: usize) -> &[f64] {
    &values[values.len() * nth / 4..values.len() * (nth + 1) / 4]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::Ended;

    fn samples(late: f64) -> Vec<Sample> {
        (0..80_u32)
            .map(|at| Sample {
                start: Duration::from_secs(at.into()),
                e2e: Duration::from_secs(1),
                ttft: Some(Duration::from_secs_f64(if at < 60 { 0.1 } else { late })),
                gaps: Vec::new(),
                prompt_tokens: 1,
                output_tokens: 1,
                ended: Ended::Answered("stop".to_owned()),
            })
            .collect()
    }

    #[test]
    fn latency_that_doubles_is_drift() {
        let of = |sample: &Sample| sample.ttft.map(|time| time.as_secs_f64());
        assert!(Check::latency("x", &samples(0.12), 0.5, of).passed);
        assert!(!Check::latency("x", &samples(0.2), 0.5, of).passed);
        assert!(!Check::latency("x", &samples(0.1)[..12], 0.5, of).passed, "too few to tell");
    }

    #[test]
    fn what_is_held_may_grow_a_little() {
        let grown = |late: f64| {
            let values: Vec<f64> = (0..40).map(|at| if at < 30 { 10.0 } else { late }).collect();
            Check::held("x", Unit::Count, &values, |early| early + HANDLES_SLACK).passed
        };
        assert!(grown(14.0) && !grown(15.0));
        assert!(!Check::held("x", Unit::Count, &[], |early| early).passed);
    }

    #[test]
    fn a_request_without_an_answer_fails() {
        let mut all = samples(0.1);
        assert!(Check::answered(&all).passed);
        all[3].ended = Ended::Status(500);
        assert!(!Check::answered(&all).passed && !Check::answered(&[]).passed);
    }
}
