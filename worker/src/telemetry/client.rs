//! What this process takes of a card, as the kernel accounts it with each file that is open to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::telemetry::card::Card;
use crate::telemetry::machine::{names, text};

/// What this process has on a card and did with it, over all its clients of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clients {
    /// Memory on the card, bytes.
    pub memory_bytes: u64,
    /// How long its engines worked for us, by the driver's name of the engine.
    pub engines: BTreeMap<String, EngineTime>,
}

/// How long the engines of a kind have worked for this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineTime {
    /// As `i915` counts.
    Nanoseconds {
        /// All engines of the kind together.
        busy: u64,
        /// How many there are.
        engines: u64,
    },
    /// As `xe` counts.
    Cycles {
        /// All engines of the kind together.
        busy: u64,
        /// Cycles that have passed.
        passed: u64,
        /// How many there are.
        engines: u64,
    },
}

impl EngineTime {
    /// The share of the time since `before` in which the engines worked for us, from 0 to 1. None
    /// when no time has passed, or the two were counted differently.
    #[must_use]
    pub fn busy_ratio(self, before: Self, seconds: f64) -> Option<f64> {
        let (busy, whole) = match (self, before) {
            (Self::Nanoseconds { busy, engines }, Self::Nanoseconds { busy: was, .. }) => {
                (busy.checked_sub(was)?, seconds * 1e9 * engines as f64)
            }
            (
                Self::Cycles { busy, passed, engines },
                Self::Cycles { busy: was, passed: from, .. },
            ) => {
                let passed = passed.checked_sub(from)?;
                (busy.checked_sub(was)?, passed as f64 * engines as f64)
            }
            _ => return None,
        };
        // Clocks of a card and of the machine do not agree to the last digit.
        (whole > 0.0).then(|| (busy as f64 / whole).clamp(0.0, 1.0))
    }
}

impl Card {
    /// Reads what this process takes of the card. Needs no rights.
    #[must_use]
    pub fn clients(&self) -> Clients {
        let folder = self.machine().path("proc/self/fdinfo");
        let address = self.address.to_string();
        let mut seen = BTreeSet::new();
        let mut clients = Clients::default();
        for name in names(&folder) {
            let Some(text) = text(&folder.join(name)) else { continue };
            let of = |key| field(&text, key);
            if of("drm-pdev") != Some(address.as_str()) {
                continue;
            }
            // Descriptors that were duplicated are one client.
            if of("drm-client-id").is_some_and(|client| seen.insert(client.to_owned())) {
                clients.add(&text);
            }
        }
        clients
    }
}

impl Clients {
    fn add(&mut self, text: &str) {
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let Some(value) = quantity(value) else { continue };
            let engines = |engine: &str| {
                let capacity = field(text, &format!("drm-engine-capacity-{engine}"));
                capacity.and_then(quantity).unwrap_or(1).max(1)
            };
            if matches!(key, "drm-resident-local0" | "drm-resident-vram0") {
                self.memory_bytes = self.memory_bytes.saturating_add(value);
            } else if let Some(engine) = key.strip_prefix("drm-cycles-") {
                let passed = field(text, &format!("drm-total-cycles-{engine}"));
                let Some(passed) = passed.and_then(quantity) else { continue };
                self.work(
                    engine,
                    EngineTime::Cycles { busy: value, passed, engines: engines(engine) },
                );
            } else if let Some(engine) = key.strip_prefix("drm-engine-")
                && !engine.starts_with("capacity-")
            {
                let time = EngineTime::Nanoseconds { busy: value, engines: engines(engine) };
                self.work(engine, time);
            }
        }
    }

    /// Adds what another client's engines did.
    fn work(&mut self, engine: &str, time: EngineTime) {
        let all = self.engines.entry(engine.to_owned()).or_insert(match time {
            EngineTime::Nanoseconds { engines, .. } => EngineTime::Nanoseconds { busy: 0, engines },
            EngineTime::Cycles { engines, .. } => {
                EngineTime::Cycles { busy: 0, passed: 0, engines }
            }
        });
        match (all, time) {
            (EngineTime::Nanoseconds { busy, .. }, EngineTime::Nanoseconds { busy: more, .. }) => {
                *busy = busy.saturating_add(more);
            }
            (
                EngineTime::Cycles { busy, passed, .. },
                EngineTime::Cycles { busy: more, passed: now, .. },
            ) => {
                *busy = busy.saturating_add(more);
                *passed = now.max(*passed);
            }
            // One driver counts in one way.
            _ => {}
        }
    }
}

/// The value of a key.
fn field<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key == wanted).then(|| value.trim())
    })
}

/// A number with or without a unit.
fn quantity(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    match words.next() {
        None | Some("ns") => Some(number),
        Some("KiB") => number.checked_mul(1 << 10),
        Some("MiB") => number.checked_mul(1 << 20),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_time_or_of_cycles_and_of_all_engines() {
        let ns = |busy| EngineTime::Nanoseconds { busy, engines: 2 };
        assert_eq!(ns(1_500_000_000).busy_ratio(ns(500_000_000), 1.0), Some(0.5));
        let cycles = |busy, passed| EngineTime::Cycles { busy, passed, engines: 1 };
        assert_eq!(cycles(30, 200).busy_ratio(cycles(10, 100), 9.0), Some(0.2));
    }

    #[test]
    fn a_counter_that_went_back_or_stood_still_has_no_ratio() {
        let cycles = |busy, passed| EngineTime::Cycles { busy, passed, engines: 1 };
        assert_eq!(cycles(5, 200).busy_ratio(cycles(10, 100), 1.0), None);
        assert_eq!(cycles(5, 100).busy_ratio(cycles(5, 100), 1.0), None);
        let ns = EngineTime::Nanoseconds { busy: 1, engines: 1 };
        assert_eq!(ns.busy_ratio(cycles(0, 0), 1.0), None);
        assert_eq!(ns.busy_ratio(ns, 0.0), None);
    }

    #[test]
    fn quantities_have_units_or_none() {
        assert_eq!(quantity(" 12 ns"), Some(12));
        assert_eq!(quantity("3 KiB"), Some(3072));
        assert_eq!(quantity("3 parsecs"), None);
        assert_eq!(quantity("99999999999999999999"), None);
    }
}
