//! Whether the model can be asked anything, and what it can take.

/// Where the engine stands. Watched by `/ready`, by the HTTP layer and by the command's progress bar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// The group of workers forms for the first time.
    Loading {
        /// Bytes of weights that the ranks have loaded, together.
        bytes_done: u64,
        /// Of so many; 0: not known yet.
        bytes_total: u64,
    },
    /// A step went through all ranks.
    Ready(Capacity),
    /// A rank was lost. New groups queue, running ones will be computed again.
    Reforming {
        /// Which rank, and how it was lost.
        cause: String,
        /// What the group could take, and will again.
        capacity: Capacity,
    },
    /// The rank stays away: nothing is accepted until it is back.
    Away {
        /// Which rank, and why.
        cause: String,
    },
    /// Nothing new is accepted; what runs is finished.
    Draining,
    /// The engine has ended.
    Stopped,
}

/// What the group of workers can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Ranks.
    pub world: u32,
    /// Longest sequence, prompt and answer together, tokens.
    pub model_len_max: u32,
    /// KV blocks: the least over the ranks.
    pub blocks: u32,
    /// Blocks of host memory to swap to: the least over the ranks.
    pub swap_blocks: u32,
    /// Tokens a block holds.
    pub block_size: u32,
    /// Bytes of weights, over all ranks.
    pub weight_bytes: u64,
}

impl EngineState {
    /// A new request would be answered now.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready(_))
    }

    /// What can be taken: known once the group has formed, and while it forms anew.
    #[must_use]
    pub const fn capacity(&self) -> Option<Capacity> {
        match self {
            Self::Ready(capacity) | Self::Reforming { capacity, .. } => Some(*capacity),
            Self::Loading { .. } | Self::Away { .. } | Self::Draining | Self::Stopped => None,
        }
    }

    /// One sentence for a client that is turned away. Which rank it was, and where, is not a client's
    /// business.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Loading { bytes_done, bytes_total } if *bytes_total > 0 => {
                format!("loading: {} of {} MiB", bytes_done >> 20, bytes_total >> 20)
            }
            Self::Loading { .. } => "loading".to_owned(),
            Self::Ready(_) => "ready".to_owned(),
            Self::Reforming { .. } => "a worker was lost and is being replaced".to_owned(),
            Self::Away { .. } => "a worker was lost and has not come back".to_owned(),
            Self::Draining => "the server is shutting down".to_owned(),
            Self::Stopped => "the server has stopped".to_owned(),
        }
    }
}
