//! How long a step may take before a rank counts as lost: derived from steps that were measured.
//!
//! Steps are put into classes by their size, a class for each power of two of tokens. A step's deadline
//! is 8 × the slowest of its class's last 64 steps, and never under 2 s: a shared machine
//! may pause a process that long. A class that has not been seen yet is judged by the nearest one
//! that has, in proportion to its tokens, and gets 10 s at least, as its first step touches fresh memory.
//! A heartbeat computes next to nothing: no other step is judged by it. Before anything was measured,
//! and at most, a step has `step_max`. A deadline that passed counts as a measurement: if it was too
//! tight, the next one is not.
//!
//! A rank in another process that is stopped, or out of reach, is noticed within 4 s by its connection,
//! however long its step may take: so a step may be long without hiding a loss.

use std::collections::VecDeque;
use std::time::Duration;

/// The slowest step is compared with this many before it.
const KEPT: usize = 64;
/// A step may take this many times the slowest one like it.
const FACTOR: u32 = 8;
/// No deadline is shorter.
const KNOWN_MIN: Duration = Duration::from_secs(2);
/// Nor one for a size that has not been measured.
const UNKNOWN_MIN: Duration = Duration::from_secs(10);
/// Classes: 0 tokens, 1, 2 – 3, 4 – 7 … up to any u32.
const CLASSES: usize = 33;

/// Step times by size.
#[derive(Debug)]
pub(crate) struct Deadlines {
    /// Longest deadline.
    step_max: Duration,
    /// For each class, the last steps' times.
    seen: Vec<VecDeque<Duration>>,
}

impl Deadlines {
    /// Nothing measured yet.
    pub(crate) fn new(step_max: Duration) -> Self {
        Self { step_max, seen: vec![VecDeque::new(); CLASSES] }
    }

    /// For a step of this many tokens.
    pub(crate) fn deadline(&self, tokens: usize) -> Duration {
        let class = class(tokens);
        let slowest = |class: usize| self.seen[class].iter().max().copied();
        let (time, least) = if let Some(time) = slowest(class) {
            (time, KNOWN_MIN)
        } else {
            let smaller = (1..class).rev().find_map(|near| Some((near, slowest(near)?)));
            let larger = (class + 1..CLASSES).find_map(|near| Some((near, slowest(near)?)));
            match (smaller, larger) {
                (Some((near, time)), _) => {
                    // A class up is twice the tokens. 2^16 × any time is beyond every deadline.
                    let doublings = u32::try_from((class - near).min(16)).unwrap_or(16);
                    (time.saturating_mul(1 << doublings), UNKNOWN_MIN)
                }
                (None, Some((_, time))) => (time, UNKNOWN_MIN),
                (None, None) => return self.step_max,
            }
        };
        time.saturating_mul(FACTOR).max(least).min(self.step_max)
    }

    /// A step of this many tokens took this long, or longer if its deadline passed.
    pub(crate) fn measured(&mut self, tokens: usize, time: Duration) {
        let seen = &mut self.seen[class(tokens)];
        if seen.len() == KEPT {
            seen.pop_front();
        }
        seen.push_back(time);
    }
}

/// 0 → 0, 1 → 1, 2..4 → 2, 4..8 → 3 …
fn class(tokens: usize) -> usize {
    let bits = usize::BITS - tokens.leading_zeros();
    usize::try_from(bits).unwrap_or(CLASSES).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(60);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_step_of_unknown_size_has_all_the_time_there_is_until_something_was_measured() {
        let mut deadlines = Deadlines::new(MAX);
        assert_eq!(deadlines.deadline(512), MAX);
        deadlines.measured(0, seconds(0.001));
        assert_eq!(deadlines.deadline(512), MAX, "a heartbeat says nothing about a prefill");
        deadlines.measured(1, seconds(0.001));
        assert_eq!(deadlines.deadline(1), seconds(2.0));
        assert_eq!(deadlines.deadline(3), seconds(10.0));
        assert_eq!(deadlines.deadline(512), seconds(10.0));
        assert_eq!(deadlines.deadline(usize::MAX), MAX);
    }

    #[test]
    fn a_known_size_gets_eight_times_its_slowest_within_bounds() {
        let mut deadlines = Deadlines::new(MAX);
        deadlines.measured(16, seconds(0.2));
        deadlines.measured(31, seconds(0.05));
        assert_eq!(deadlines.deadline(20), seconds(2.0));
        deadlines.measured(16, seconds(0.5));
        assert_eq!(deadlines.deadline(20), seconds(4.0));
        deadlines.measured(1, seconds(0.02));
        assert_eq!(deadlines.deadline(1), seconds(2.0));
        deadlines.measured(1, seconds(50.0));
        assert_eq!(deadlines.deadline(1), MAX);
    }

    #[test]
    fn what_was_slow_once_is_forgotten() {
        let mut deadlines = Deadlines::new(MAX);
        deadlines.measured(1, seconds(1.0));
        for _ in 0..KEPT {
            deadlines.measured(1, seconds(0.2));
        }
        assert_eq!(deadlines.deadline(1), seconds(2.0));
    }

    #[test]
    fn a_deadline_that_passed_makes_the_next_one_longer() {
        let mut deadlines = Deadlines::new(MAX);
        deadlines.measured(1, seconds(0.01));
        let first = deadlines.deadline(1);
        deadlines.measured(1, first);
        assert!(deadlines.deadline(1) > first);
    }
}
