//! Why a step is not begun, one variant a fault, each with the numbers that disagree.

/// Why a step was not even begun. Slices are counted from 0.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// It belongs to another group.
    #[error("the step is of epoch {got}, this rank is in epoch {expected}")]
    Epoch {
        /// The step's.
        got: u64,
        /// Ours.
        expected: u64,
    },
    /// It is not the next one.
    #[error("step {got} came where step {expected} was due")]
    Order {
        /// The step's number.
        got: u64,
        /// The number due.
        expected: u64,
    },
    /// The group failed earlier and must be formed anew.
    #[error("this group ended at step {step}; it has to be formed anew")]
    Ended {
        /// Where it failed.
        step: u64,
    },
    /// More slices than agreed at load.
    #[error("{slices} slices in a step that may have {max}")]
    Sequences {
        /// How many came.
        slices: usize,
        /// How many may.
        max: usize,
    },
    /// More tokens than agreed at load.
    #[error("{tokens} tokens in a step that may have {max}")]
    Tokens {
        /// How many came.
        tokens: usize,
        /// How many may.
        max: usize,
    },
    /// A slice extends its sequence by nothing.
    #[error("slice {slice} has no tokens")]
    Empty {
        /// Which slice.
        slice: usize,
    },
    /// A sequence would grow too long.
    #[error("slice {slice} ends at position {end}, past the longest sequence of {max} tokens")]
    Length {
        /// Which slice.
        slice: usize,
        /// Where it ends.
        end: usize,
        /// Where it may.
        max: usize,
    },
    /// No such token.
    #[error("slice {slice} has token {token}, and the vocabulary has {vocabulary}")]
    Token {
        /// Which slice.
        slice: usize,
        /// The token.
        token: u32,
        /// Tokens there are.
        vocabulary: usize,
    },
    /// A block table does not cover its slice.
    #[error("slice {slice} has {blocks} blocks where its tokens need {needed}")]
    Table {
        /// Which slice.
        slice: usize,
        /// Blocks it has.
        blocks: usize,
        /// Blocks it needs.
        needed: usize,
    },
    /// No such block.
    #[error("{place} refers to block {block}, and there are {blocks}")]
    Block {
        /// Where it says so.
        place: Place,
        /// The block.
        block: u32,
        /// How many there are.
        blocks: usize,
    },
    /// Two tokens would be written over each other.
    #[error("two tokens of the step go to offset {offset} of block {block}")]
    Collision {
        /// Which block.
        block: usize,
        /// Where in it.
        offset: usize,
    },
    /// A sampling parameter out of its range.
    #[error("slice {slice} has {parameter} = {value}")]
    Sampling {
        /// Which slice.
        slice: usize,
        /// Which parameter.
        parameter: &'static str,
        /// What it was.
        value: f32,
    },
    /// A slice follows a token that the step before does not give.
    #[error("slice {slice} follows token {place} of the step before, which gives {sampled}")]
    FollowsNothing {
        /// Which slice.
        slice: usize,
        /// Which token it follows.
        place: u32,
        /// Tokens that the step before gives.
        sampled: usize,
    },
    /// A slice follows the token of another sequence, or one of its own from elsewhere.
    #[error("slice {slice} follows token {place} of the step before, which is another sequence's")]
    FollowsAnother {
        /// Which slice.
        slice: usize,
        /// Which token it follows.
        place: u32,
    },
    /// A slice follows a token and brings others.
    #[error("slice {slice} follows token {place} of the step before and brings tokens of its own")]
    FollowsAndBrings {
        /// Which slice.
        slice: usize,
        /// Which token it follows.
        place: u32,
    },
    /// Lists that belong together differ in length, or one is longer or in another order than it may.
    #[error("slice {slice} has a list of {list} that makes no sense")]
    List {
        /// Which slice.
        slice: usize,
        /// Which list.
        list: &'static str,
    },
}

/// Where in a request a block is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The block table of a slice.
    Slice(usize),
    /// Device to host.
    SwapOut,
    /// Host to device.
    SwapIn,
    /// Device to device.
    Copy,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Slice(slice) => write!(f, "the block table of slice {slice}"),
            Self::SwapOut => f.write_str("a swap-out"),
            Self::SwapIn => f.write_str("a swap-in"),
            Self::Copy => f.write_str("a copy"),
        }
    }
}
