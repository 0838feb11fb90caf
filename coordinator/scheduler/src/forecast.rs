//! How long answers become, learned from those that ended: who is let in gets room for what it will
//! probably say, so that few are pushed out again.

use crate::units::TokenCount;

/// Classes for each power of two, so that a forecast is at most a quarter too long.
const FINE: u32 = 4;
const CLASSES: usize = 32 * FINE as usize;
/// At so many answers all counts are halved: what was long ago weighs less and less.
const KEPT: u32 = 1024;

/// Lengths of the answers that ended, by class.
#[derive(Debug)]
pub(crate) struct Forecast {
    counts: [u32; CLASSES],
    total: u32,
}

impl Forecast {
    pub(crate) const fn new() -> Self {
        Self { counts: [0; CLASSES], total: 0 }
    }

    /// A sequence came to its end with so many tokens.
    pub(crate) fn ended(&mut self, generated: TokenCount) {
        self.counts[class(generated)] += 1;
        self.total += 1;
        if self.total >= KEPT {
            for count in &mut self.counts {
                *count /= 2;
            }
            self.total = self.counts.iter().sum();
        }
    }

    /// Nine of ten answers become no longer than this; 0 before any has ended.
    pub(crate) fn expected(&self) -> TokenCount {
        let wanted = self.total - self.total / 10;
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return longest(class);
            }
        }
        TokenCount(0)
    }
}

/// 0 – 3 are classes of their own; from 4 on there are four in each power of two.
fn class(tokens: TokenCount) -> usize {
    if tokens.0 < FINE {
        return tokens.0 as usize;
    }
    let octave = tokens.0.ilog2(); // at least 2
    let fine = (tokens.0 >> (octave - 2)) - FINE; // 0 – 3
    ((octave - 1) * FINE + fine) as usize
}

/// The longest answer of a class.
fn longest(class: usize) -> TokenCount {
    let class = u32::try_from(class).expect("there are few classes");
    if class < FINE {
        return TokenCount(class);
    }
    let octave = class / FINE + 1;
    let next = u64::from(class % FINE + FINE + 1) << (octave - 2);
    TokenCount(u32::try_from(next - 1).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_what_lies_between_its_neighbours() {
        for tokens in (0..5000).chain([1 << 20, u32::MAX - 1, u32::MAX]) {
            let class = class(TokenCount(tokens));
            assert!(longest(class).0 >= tokens, "{tokens}");
            assert!(class == 0 || longest(class - 1).0 < tokens, "{tokens}");
        }
    }

    #[test]
    fn nine_of_ten_are_covered_and_the_past_fades() {
        let mut forecast = Forecast::new();
        assert_eq!(forecast.expected(), TokenCount(0));
        for _ in 0..90 {
            forecast.ended(TokenCount(10));
        }
        for _ in 0..10 {
            forecast.ended(TokenCount(1000));
        }
        assert_eq!(forecast.expected(), TokenCount(11));
        for _ in 0..30 {
            forecast.ended(TokenCount(1000));
        }
        assert_eq!(forecast.expected(), TokenCount(1023));
        for _ in 0..10_000 {
            forecast.ended(TokenCount(3));
        }
        assert_eq!(forecast.expected(), TokenCount(3));
    }
}
