//! What a rank is told to load, checked.

use checkpoint::ModelConfig;
use proto::worker::{KvDtype, LoadRequest, ShardPlan};

use crate::backend::KV_GROUP;
use crate::shard::{Shard, ShardError};

/// Tokens a block may hold. More would only waste the end of every sequence.
const BLOCK_SIZE_MAX: usize = 1024;

/// Take this rank, with this much room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOrder {
    /// Of the group; from 1.
    pub epoch: u64,
    /// Which rank of which world.
    pub shard: Shard,
    /// Tokens a KV block holds.
    pub block_size: usize,
    /// KV blocks to reserve; 0: as many as `kv_cache_bytes` hold.
    pub kv_blocks: usize,
    /// Bytes for the KV cache; 0: this rank decides.
    pub kv_cache_bytes: u64,
    /// What keys and values are kept as.
    pub kv_dtype: KvDtype,
    /// Blocks in host memory, to swap to; 0: as many as `swap_bytes` hold.
    pub swap_blocks: usize,
    /// Bytes of host memory, to swap to; none: this rank decides.
    pub swap_bytes: Option<u64>,
    /// Tokens of the longest sequence; 0: the model's context.
    pub model_len_max: usize,
    /// Tokens of a step.
    pub step_tokens_max: usize,
    /// Slices of a step.
    pub step_sequences_max: usize,
    /// Ranks of the group on this machine, which share its memory.
    pub ranks_here: usize,
    /// This rank's place among them, from 0.
    pub place_here: usize,
}

/// What an order must not say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No rank was given.
    #[error("the order names no shard")]
    NoShard,
    /// The rank makes no sense.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A pipeline stage, which is not served yet.
    #[error("layers {first} to {end} of {layers} were asked for; a rank holds them all")]
    Layers {
        /// First layer asked for.
        first: u32,
        /// End of the layers asked for.
        end: u64,
        /// Layers of the model.
        layers: usize,
    },
    /// Not one address for each rank.
    #[error("{peers} peers for a world of {world}")]
    Peers {
        /// Addresses given.
        peers: usize,
        /// Ranks there are.
        world: usize,
    },
    /// A dtype that this version does not know.
    #[error("{0} is no KV dtype of this version")]
    Dtype(i32),
    /// Heads that are not whole groups of numbers with a scale.
    #[error(
        "--kv-cache-dtype q8_0 takes heads of a multiple of {KV_GROUP} numbers; this model's have {0}"
    )]
    HeadSize(usize),
    /// A number out of its range.
    #[error("{name} is {value}; it may be {min} to {max}")]
    Range {
        /// Which number.
        name: &'static str,
        /// What it is.
        value: u64,
        /// The least it may be.
        min: u64,
        /// The most it may be.
        max: u64,
    },
}

impl LoadOrder {
    /// Reads and checks a request for a model.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn from_wire(request: &LoadRequest, config: &ModelConfig) -> Result<Self, OrderError> {
        let plan = request.shard.as_ref().ok_or(OrderError::NoShard)?;
        let rank = usize::try_from(plan.rank).unwrap_or(usize::MAX);
        let shard = Shard::new(rank, plan.shares.clone())?;
        check_layers(plan, config.layers.len())?;
        let (peers, world) = (request.peers.len(), shard.world());
        if peers != 0 && peers != world {
            return Err(OrderError::Peers { peers, world });
        }
        let (place_here, ranks_here) = place_here(&request.peers, &shard);
        let order = Self {
            epoch: request.epoch,
            block_size: request.block_size as usize,
            kv_blocks: request.kv_blocks as usize,
            kv_cache_bytes: request.kv_cache_bytes,
            kv_dtype: KvDtype::try_from(request.kv_dtype)
                .map_err(|_| OrderError::Dtype(request.kv_dtype))?,
            swap_blocks: request.swap_blocks as usize,
            swap_bytes: request.swap_bytes,
            model_len_max: request.model_len_max as usize,
            step_tokens_max: request.step_tokens_max as usize,
            step_sequences_max: request.step_sequences_max as usize,
            ranks_here,
            place_here,
            shard,
        };
        order.check(config)?;
        Ok(order)
    }

    /// Whether every number is in its range.
    pub(super) fn check(&self, config: &ModelConfig) -> Result<(), OrderError> {
        let u32_max = u32::MAX as usize;
        check_range("the epoch", self.epoch, 1, u64::MAX)?;
        check_size("the block size", self.block_size, 1, BLOCK_SIZE_MAX)?;
        check_size("the longest sequence", self.model_len_max, 0, config.context)?;
        check_size("tokens of a step", self.step_tokens_max, 1, u32_max)?;
        check_size("sequences of a step", self.step_sequences_max, 1, u32_max)?;
        if self.kv_dtype == KvDtype::Q8 && !config.head_size.is_multiple_of(KV_GROUP) {
            return Err(OrderError::HeadSize(config.head_size));
        }
        let blocks_max = u32_max / self.block_size; // slots are numbered in 32 bits
        check_size("KV blocks", self.kv_blocks, 0, blocks_max)?;
        check_size("swap blocks", self.swap_blocks, 0, blocks_max)
    }

    /// Tokens of the longest sequence.
    pub(super) fn positions(&self, config: &ModelConfig) -> usize {
        if self.model_len_max == 0 { config.context } else { self.model_len_max }
    }
}

fn check_layers(plan: &ShardPlan, layers: usize) -> Result<(), OrderError> {
    let end = u64::from(plan.first_layer) + u64::from(plan.layer_count);
    let whole = plan.layer_count == 0 || end == layers as u64;
    if plan.first_layer == 0 && whole {
        return Ok(());
    }
    Err(OrderError::Layers { first: plan.first_layer, end, layers })
}

fn check_size(name: &'static str, value: usize, min: usize, max: usize) -> Result<(), OrderError> {
    check_range(name, value as u64, min as u64, max as u64)
}

fn check_range(name: &'static str, value: u64, min: u64, max: u64) -> Result<(), OrderError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(OrderError::Range { name, value, min, max })
}

/// The rank's place among ranks at the same address but for the port, and how many they are; without
/// addresses all ranks share this process.
fn place_here(peers: &[String], shard: &Shard) -> (usize, usize) {
    let host =
        |peer: &String| peer.rsplit_once(':').map_or(peer.clone(), |(host, _)| host.to_owned());
    let rank = shard.rank();
    match peers.get(rank).map(host) {
        Some(own) => {
            let here = |peers: &[String]| peers.iter().filter(|&peer| host(peer) == own).count();
            (here(&peers[..rank]), here(peers))
        }
        None => (rank, shard.world()),
    }
}
