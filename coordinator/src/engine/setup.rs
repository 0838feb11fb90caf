//! What an engine is made of, and what follows from it: what is asked of the ranks, what the scheduler
//! works within.

use std::sync::Arc;

use scheduler::{BlockCount, Limits, LimitsError, TokenCount, TokenId};

use crate::cluster::{ClusterError, Group, Roster, Wish};
use crate::config::{ConfigError, Patience, ServingLimits};
use crate::engine::state::Capacity;
use crate::metrics::Metrics;
use crate::record::Recording;

/// What the engine has to know of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// Identifies its files; equal on every rank.
    pub digest: Vec<u8>,
    /// Decoder layers.
    pub layers: u32,
    /// Bytes of its files.
    pub weight_bytes: u64,
    /// Longest sequence it was made for, tokens.
    pub context: u32,
    /// Tokens that end an answer.
    pub end_tokens: Vec<u32>,
}

/// What an engine is made of.
#[derive(Debug)]
pub struct EngineSetup {
    /// What is served, and how much of it at once; validated.
    pub limits: ServingLimits,
    /// How long anything may take.
    pub patience: Patience,
    /// The model.
    pub model: ModelFacts,
    /// Who may be a rank.
    pub roster: Roster,
    /// Where the figures go.
    pub metrics: Arc<Metrics>,
    /// Of what the scheduler is told and plans.
    pub recording: Option<Recording>,
}

/// Why an engine ended, other than by being asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The ranks cannot be one group.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// What was asked for does not fit what the ranks have.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The limits make no sense together.
    #[error(transparent)]
    Limits(#[from] LimitsError),
}

impl EngineSetup {
    /// What every rank is asked for. Once a group has formed, the next must hold as many blocks.
    pub(super) fn wish(&self, formed: Option<Capacity>) -> Result<Wish, ConfigError> {
        let limits = &self.limits;
        Ok(Wish {
            model_digest: self.model.digest.clone(),
            layers: self.model.layers,
            weight_bytes: self.model.weight_bytes,
            block_size: limits.block_size,
            kv_blocks: formed.map_or(limits.kv_blocks.unwrap_or(0), |capacity| capacity.blocks),
            kv_cache_bytes: limits.kv_cache_bytes.filter(|_| formed.is_none()).unwrap_or(0),
            kv_dtype: limits.kv_dtype,
            swap_blocks: formed.map_or(0, |capacity| capacity.swap_blocks),
            // Once formed, it is the number of blocks that counts, and it may be none.
            swap_bytes: formed.map_or(limits.swap_bytes, |_| Some(0)),
            model_len_max: limits.model_len_wanted(self.model.context)?,
            step_tokens_max: limits.step_tokens_max,
            step_sequences_max: limits.sequences_max,
            load_silence_max: self.patience.load_silence_max,
            step_max: self.patience.step_max,
        })
    }

    /// What a group can take.
    pub(super) fn capacity(&self, group: &Group) -> Result<Capacity, ConfigError> {
        Ok(Capacity {
            world: u32::try_from(group.world()).unwrap_or(u32::MAX),
            model_len_max: self.limits.model_len(self.model.context, group.blocks)?,
            blocks: group.blocks,
            swap_blocks: group.swap_blocks,
            block_size: self.limits.block_size,
            weight_bytes: group.weight_bytes,
        })
    }

    /// What the scheduler works within.
    pub(super) fn scheduler_limits(&self, capacity: &Capacity) -> Limits {
        Limits {
            block_size: TokenCount(capacity.block_size),
            blocks: BlockCount(capacity.blocks),
            swap_blocks: BlockCount(capacity.swap_blocks),
            sequences_max: self.limits.sequences_max,
            step_tokens_max: TokenCount(self.limits.step_tokens_max),
            model_len_max: TokenCount(capacity.model_len_max),
            generation_max: self.limits.ceiling.sequence.map(TokenCount),
            waiting_max: self.limits.queue_max,
            policy: self.limits.policy,
            admission: self.limits.admission,
            prefix_cache: self.limits.prefix_cache,
            end_tokens: self.model.end_tokens.iter().copied().map(TokenId).collect(),
        }
    }
}
