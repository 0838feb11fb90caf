//! What was seen: times as clients have them, and what KV memory held.

use std::collections::BTreeMap;
use std::time::Duration;

use scheduler::{GroupId, SequenceId, StepPlan, Time, TokenCount};

use crate::load::Request;

/// What was seen of a run.
#[derive(Debug, Default)]
pub(crate) struct Told {
    asked: BTreeMap<GroupId, (Request, Time)>,
    first: Vec<(Request, Duration)>,
    last: BTreeMap<SequenceId, Time>,
    /// From one token of a sequence to its next.
    pub(crate) gaps: Vec<Duration>,
    /// From asking to the last token.
    pub(crate) whole: Vec<Duration>,
    pub(crate) preemptions: u64,
    /// Most blocks of host memory that were held at once.
    pub(crate) swapped_max: u32,
    pub(crate) copies: usize,
    pub(crate) copying_steps: usize,
    tokens: u64,
    /// By block: tokens in it.
    filled: Vec<u32>,
    lasted: Duration,
    /// Places for tokens in blocks that are held, times how long, and those with a token.
    held: f64,
    used: f64,
}

impl Told {
    pub(crate) fn asked(&mut self, group: GroupId, request: Request, now: Time) {
        self.asked.insert(group, (request, now));
    }

    /// A step held blocks while it ran.
    pub(crate) fn step(&mut self, plan: &StepPlan, block_size: TokenCount, took: Duration) {
        self.swapped_max = self.swapped_max.max(plan.swap_blocks_held.0);
        self.copies += plan.copies.len();
        self.copying_steps += usize::from(!plan.copies.is_empty());
        // A block that several look at holds as many tokens as the furthest of them has there.
        self.filled.fill(0);
        for slice in &plan.slices {
            let mut left = slice.start.0 + TokenCount::of(&slice.tokens).0;
            for block in slice.blocks.iter() {
                let here = left.min(block_size.0);
                left -= here;
                let place = block.0 as usize;
                if self.filled.len() <= place {
                    self.filled.resize(place + 1, 0);
                }
                self.filled[place] = here.max(self.filled[place]);
            }
        }
        let used: u32 = self.filled.iter().sum();
        let held = f64::from(plan.blocks_held.0) * f64::from(block_size.0);
        self.held += held * took.as_secs_f64();
        self.used += f64::from(used) * took.as_secs_f64();
    }

    pub(crate) fn token(&mut self, sequence: SequenceId, now: Time) {
        self.tokens += 1;
        match self.last.insert(sequence, now) {
            Some(before) => self.gaps.push(now.since(before)),
            None if sequence.index == 0 => {
                let (request, at) = self.asked[&sequence.group];
                self.first.push((request, now.since(at)));
            }
            None => {}
        }
    }

    pub(crate) fn ended(&mut self, group: GroupId, now: Time) {
        let (_, at) = self.asked[&group];
        self.whole.push(now.since(at));
    }

    /// In order of length.
    pub(crate) fn finish(mut self, now: Time) -> Self {
        self.lasted = now.0;
        self.gaps.sort_unstable();
        self.whole.sort_unstable();
        self
    }

    /// Times to the first token of some, in order of length.
    pub(crate) fn first_tokens(&self, wanted: fn(&Request) -> bool) -> Vec<Duration> {
        let some = self.first.iter().filter(|(request, _)| wanted(request));
        let mut times: Vec<Duration> = some.map(|(_, time)| *time).collect();
        times.sort_unstable();
        times
    }

    /// Tokens in a second.
    pub(crate) fn throughput(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let tokens = self.tokens as f64;
        tokens / self.lasted.as_secs_f64()
    }

    /// Share of the held KV memory that held no token.
    pub(crate) fn waste(&self) -> f64 {
        1.0 - self.used / self.held
    }
}

/// Of sorted times; zero if there are none.
pub(crate) fn percentile(sorted: &[Duration], share: usize) -> Duration {
    let place = (sorted.len() * share).div_ceil(100).max(1) - 1;
    sorted.get(place).copied().unwrap_or_default()
}
