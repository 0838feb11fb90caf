//! What the steps that were run say of two rates: computing a token, carrying a block. The scheduler
//! weighs them when somebody has to give way.

use std::time::Duration;

use scheduler::Rates;

/// A step of fewer tokens costs what its weights cost, and says little about one token more.
const TOKENS_MIN: u32 = 32;
/// A new measurement counts as one of so many.
const WEIGHT: u32 = 8;

/// Means of what was measured lately.
#[derive(Debug, Default)]
pub(super) struct Learned {
    token: Option<Duration>,
    block: Option<Duration>,
}

impl Learned {
    /// A step of so many tokens took `computing`, and carrying so many blocks took `swapping`.
    pub(super) fn step(
        &mut self,
        (tokens, computing): (usize, Duration),
        (blocks, swapping): (usize, Duration),
    ) {
        if let Some(tokens) = u32::try_from(tokens).ok().filter(|tokens| *tokens >= TOKENS_MIN) {
            self.token = Some(mean(self.token, computing / tokens));
        }
        if let Some(blocks) = u32::try_from(blocks).ok().filter(|blocks| *blocks > 0) {
            self.block = Some(mean(self.block, swapping / blocks));
        }
    }

    /// What is known so far. A rate that was never measured is zero: blocks are carried once, which
    /// measures it.
    pub(super) fn rates(&self) -> Rates {
        Rates { token: self.token.unwrap_or_default(), block: self.block.unwrap_or_default() }
    }
}

fn mean(before: Option<Duration>, new: Duration) -> Duration {
    before.map_or(new, |before| (before * (WEIGHT - 1) + new) / WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn small_steps_say_nothing_about_a_token_and_the_past_fades() {
        let mut learned = Learned::default();
        learned.step((31, 31 * MS), (0, Duration::ZERO));
        assert_eq!(learned.rates(), Rates::default());
        learned.step((32, 64 * MS), (4, 8 * MS));
        assert_eq!(learned.rates(), Rates { token: 2 * MS, block: 2 * MS });
        learned.step((32, 32 * 10 * MS), (0, Duration::ZERO));
        assert_eq!(learned.rates(), Rates { token: 3 * MS, block: 2 * MS });
    }
}
