//! From an order to a model on its device, with its cache.

use std::sync::Arc;

use checkpoint::Checkpoint;

use crate::backend::Backend;
use crate::memory::HostMemory;
use crate::model::Model;
use crate::runner::room::{self, Room};
use crate::runner::{LoadError, LoadOrder};

/// What a rank holds once it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// KV blocks reserved.
    pub kv_blocks: usize,
    /// Bytes of this rank's slices, as they are in the file.
    pub weight_bytes: u64,
    /// Bytes reserved for KV blocks on the device.
    pub kv_cache_bytes: u64,
    /// Blocks reserved in host memory.
    pub swap_blocks: usize,
}

/// A model on a backend, with its cache.
pub(super) fn load<B: Backend>(
    backend: B,
    checkpoint: &Arc<Checkpoint>,
    order: &LoadOrder,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Box<Model<B>>, Loaded), LoadError> {
    let config = checkpoint.config();
    let slices = order.shard.slices(config);
    let kv_heads = slices.heads.kv.len();
    let positions = order.positions(config);
    let one = room::shape(order, config, kv_heads, Room { blocks: 1, swap_blocks: 0 });
    backend.keeps(&one)?;
    let mut model = Model::load(backend, checkpoint, &slices, positions, progress)?;
    let block_bytes = model.block_bytes(&one);
    let host = HostMemory::read();
    let room = match model.memory() {
        Some(memory) => room::blocks_on_device(order, positions, block_bytes, (memory, host))?,
        None => room::blocks(order, positions, block_bytes, host)?,
    };
    model.reserve(&room::shape(order, config, kv_heads, room))?;
    let loaded = Loaded {
        kv_blocks: room.blocks,
        weight_bytes: model.weight_bytes(),
        kv_cache_bytes: block_bytes * room.blocks as u64,
        swap_blocks: room.swap_blocks,
    };
    Ok((Box::new(model), loaded))
}
