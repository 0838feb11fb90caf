//! How fast each rank was, by its own clock: for the shares of the groups to come.

use std::collections::HashMap;
use std::time::Duration;

use crate::cluster::{Group, RankTimes, Roster};

/// Fewer steps say nothing of a rank.
const STEPS_MIN: u32 = 100;

/// What is known of speeds.
#[derive(Debug, Default)]
pub(super) struct Speeds {
    /// By a member's name: weight bytes that a second of computing gets through. At most as many as there are
    /// members.
    known: HashMap<String, f64>,
    /// Since the group formed, in order of rank.
    computed: Vec<Duration>,
    steps: u32,
}

impl Speeds {
    /// The ranks ran a step.
    pub(super) fn step(&mut self, ranks: &[RankTimes]) {
        self.computed.resize(ranks.len(), Duration::ZERO);
        for (computed, times) in self.computed.iter_mut().zip(ranks) {
            *computed += times.compute;
        }
        self.steps = self.steps.saturating_add(1);
    }

    /// The group's time is over: what it showed holds for the next, where its ranks take part. Whoever is no
    /// member any more is forgotten.
    pub(super) fn ended(&mut self, group: &Group, roster: &Roster) {
        let computed = std::mem::take(&mut self.computed);
        let steps = std::mem::take(&mut self.steps);
        if steps >= STEPS_MIN {
            for ((member, rank), time) in group.members().iter().zip(&group.described).zip(computed)
            {
                // Each step read the weights once.
                let read = rank.weight_bytes as f64 * f64::from(steps);
                let speed = read / time.as_secs_f64();
                if speed.is_finite() && speed > 0.0 {
                    self.known.insert(member.name.clone(), speed);
                }
            }
        }
        let there = roster.members.borrow();
        self.known.retain(|name, _| there.iter().any(|member| member.name == *name));
    }

    /// By a member's name, weight bytes a second.
    pub(super) fn known(&self) -> HashMap<String, f64> {
        self.known.clone()
    }
}
