//! Numbers instead of tokens: equal where all tokens up to there are, and nothing else can be told.

use std::hash::{BuildHasher, RandomState};

use scheduler::TokenId;

/// Stands for a sequence of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link(u64);

/// How tokens are shown in one recording.
#[derive(Debug)]
pub(super) struct Veil {
    key: RandomState,
    /// They are shown as what they are, by place: whether they end a sequence depends on more than the
    /// token.
    ends: Vec<TokenId>,
}

impl Veil {
    pub(super) fn new(ends: Vec<TokenId>) -> Self {
        Self { key: RandomState::new(), ends }
    }

    /// Before the first token.
    pub(super) const START: Link = Link(0);

    /// What a token is shown as after those of `link`, and what stands for all of them.
    pub(super) fn follow(&self, link: Link, token: TokenId) -> (Link, u32) {
        let next = self.key.hash_one((link.0, token.0));
        let shown = match self.ends.iter().position(|end| *end == token) {
            Some(place) => u32::try_from(place).unwrap_or(u32::MAX),
            None => {
                let least = self.ends.len() as u64;
                let room = (1 << 32) - least;
                u32::try_from(least + (next >> 32) % room).unwrap_or(u32::MAX)
            }
        };
        (Link(next), shown)
    }

    /// A prompt.
    pub(super) fn prompt(&self, tokens: &[TokenId]) -> (Link, Vec<u32>) {
        let mut link = Self::START;
        let shown = tokens.iter().map(|token| {
            let (next, shown) = self.follow(link, *token);
            link = next;
            shown
        });
        let shown = shown.collect();
        (link, shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_beginnings_are_shown_equal_and_what_follows_a_difference_is_not() {
        let tokens = |tokens: &[u32]| tokens.iter().copied().map(TokenId).collect::<Vec<_>>();
        let veil = Veil::new(tokens(&[7, 8]));
        let (link, one) = veil.prompt(&tokens(&[3, 3, 4, 8, 5]));
        let (_, other) = veil.prompt(&tokens(&[3, 3, 6, 8, 5]));
        assert_eq!(one[..2], other[..2]);
        assert_ne!(one[0], one[1], "how often a token comes is not shown");
        assert_ne!(one[2], other[2]);
        assert_eq!((one[3], other[3]), (1, 1), "an end token is one");
        assert_ne!(one[4], other[4]);
        assert_eq!(veil.follow(link, TokenId(9)), veil.follow(link, TokenId(9)));
        let again = Veil::new(tokens(&[7, 8])).prompt(&tokens(&[3, 3, 4, 8, 5])).1;
        assert_ne!(one, again, "each recording has its own key");
    }
}
