//! Numbers with a meaning, and the few conversions between them.

use std::time::Duration;

/// A token's id in the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u32);

/// How many tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TokenCount(pub u32);

/// Which KV block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// How many KV blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockCount(pub u32);

/// Which group; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// Who asks: groups of one tenant share its turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TenantId(pub u32);

/// Which sequence of a group: 0 … n − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId {
    /// Its group.
    pub group: GroupId,
    /// Its place within the group.
    pub index: u32,
}

/// Which step; counts from 1 and never repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u64);

/// A moment: time since the caller's own beginning. Never runs backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub Duration);

impl TokenCount {
    /// How many tokens these are.
    #[must_use]
    pub fn of(tokens: &[TokenId]) -> Self {
        Self(u32::try_from(tokens.len()).unwrap_or(u32::MAX))
    }

    /// How many blocks of `block_size` tokens it takes to hold this many tokens.
    #[must_use]
    pub const fn blocks(self, block_size: Self) -> BlockCount {
        BlockCount(self.0.div_ceil(block_size.0))
    }
}

impl Time {
    /// From `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
