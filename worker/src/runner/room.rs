//! How many KV blocks a rank reserves.

use crate::backend::{CacheShape, DeviceMemory};
use crate::memory::HostMemory;
use crate::runner::{LoadError, LoadOrder};

/// Of what memory is free, the ranks of a machine take one part in so many for their caches where
/// nobody says how much; the rest is for what else runs there.
const FREE_PARTS: u64 = 4;

/// Where nobody says how many blocks of host memory stand behind a device's own: one for so many. More than were
/// ever used in a simulated load that wants twice the blocks there are (docs/scheduling.md).
const BLOCKS_FOR_SWAP_BLOCK: usize = 16;

/// Blocks of a rank's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// On the device.
    pub(super) blocks: usize,
    /// In host memory.
    pub(super) swap_blocks: usize,
}

/// The device and host blocks to reserve. `block_bytes` are over all layers; 0 on a rank without
/// heads, which can follow any number of blocks.
pub(super) fn blocks(
    order: &LoadOrder,
    positions: usize,
    block_bytes: u64,
    memory: HostMemory,
) -> Result<Room, LoadError> {
    let per_block = block_bytes.max(1);
    let blocks_max = u32::MAX as usize / order.block_size; // slots are numbered in 32 bits
    let most = order.step_sequences_max.saturating_mul(positions.div_ceil(order.block_size));
    let fit = |bytes: u64| usize::try_from(bytes / per_block).unwrap_or(usize::MAX);
    let free = memory.available_bytes / FREE_PARTS / order.ranks_here.max(1) as u64;
    let blocks = match (order.kv_blocks, order.kv_cache_bytes) {
        (0, 0) => most.min(fit(free)),
        (0, bytes) => fit(bytes),
        (blocks, _) => blocks,
    };
    let blocks = blocks.min(blocks_max);
    // The cache is in host memory itself: more of it serves better than what it could be swapped to.
    let swap_blocks = swap_blocks(order, block_bytes).unwrap_or(0);
    let bytes = block_bytes.saturating_mul(blocks as u64 + swap_blocks as u64);
    if blocks == 0 {
        let offered = if order.kv_cache_bytes > 0 { order.kv_cache_bytes } else { free };
        return Err(LoadError::NoBlock { block_bytes, offered });
    }
    if bytes > memory.total_bytes {
        return Err(LoadError::NoRoom {
            blocks,
            swap_blocks,
            bytes,
            memory_bytes: memory.total_bytes,
        });
    }
    Ok(Room { blocks, swap_blocks })
}

/// Blocks in host memory that were asked for, if anybody said how many.
fn swap_blocks(order: &LoadOrder, block_bytes: u64) -> Option<usize> {
    let blocks_max = u32::MAX as usize / order.block_size;
    if order.swap_blocks > 0 {
        return Some(order.swap_blocks);
    }
    let fit = usize::try_from(order.swap_bytes? / block_bytes.max(1)).unwrap_or(blocks_max);
    Some(fit.min(blocks_max))
}

/// As [`blocks`], on a device whose memory is nobody else's.
pub(super) fn blocks_on_device(
    order: &LoadOrder,
    positions: usize,
    block_bytes: u64,
    (memory, host): (DeviceMemory, HostMemory),
) -> Result<Room, LoadError> {
    let per_block = block_bytes.max(1);
    let blocks_max = u32::MAX as usize / order.block_size; // slots are numbered in 32 bits
    let most = order.step_sequences_max.saturating_mul(positions.div_ceil(order.block_size));
    let fit = |bytes: u64| usize::try_from(bytes / per_block).unwrap_or(usize::MAX);
    let room = fit(memory.free_bytes());
    let blocks = match (order.kv_blocks, order.kv_cache_bytes) {
        (0, 0) => most.min(room),
        (0, bytes) => fit(bytes),
        (blocks, _) => blocks,
    };
    let blocks = blocks.min(blocks_max).max(1);
    if blocks > room {
        return Err(LoadError::NoDeviceRoom { blocks, block_bytes, memory });
    }
    let spare = host.available_bytes / FREE_PARTS / order.ranks_here.max(1) as u64;
    let swap_blocks = swap_blocks(order, block_bytes)
        .unwrap_or_else(|| (blocks / BLOCKS_FOR_SWAP_BLOCK).min(fit(spare)));
    let bytes = block_bytes.saturating_mul(swap_blocks as u64);
    if bytes > host.total_bytes {
        let memory_bytes = host.total_bytes;
        return Err(LoadError::NoRoom { blocks: 0, swap_blocks, bytes, memory_bytes });
    }
    Ok(Room { blocks, swap_blocks })
}

/// The cache of this rank.
pub(super) fn shape(
    order: &LoadOrder,
    config: &checkpoint::ModelConfig,
    kv_heads: usize,
    room: Room,
) -> CacheShape {
    CacheShape {
        layers: config.layers.len(),
        kv_heads,
        head_size: config.head_size,
        block_size: order.block_size,
        blocks: room.blocks,
        swap_blocks: room.swap_blocks,
        dtype: order.kv_dtype,
        queries_per_kv_head: config.query_heads / config.kv_heads,
    }
}

#[cfg(test)]
mod tests {
    use proto::worker::KvDtype;

    use super::*;
    use crate::shard::Shard;

    const MEMORY: HostMemory = HostMemory { total_bytes: 10_000, available_bytes: 8_000 };

    fn order() -> LoadOrder {
        LoadOrder {
            epoch: 1,
            shard: Shard::solo(),
            block_size: 16,
            kv_blocks: 0,
            kv_cache_bytes: 0,
            kv_dtype: KvDtype::F16,
            swap_blocks: 0,
            swap_bytes: Some(0),
            model_len_max: 100,
            step_tokens_max: 64,
            step_sequences_max: 2,
            ranks_here: 1,
            place_here: 0,
        }
    }

    #[test]
    fn a_rank_takes_what_it_can_use_and_no_more_than_its_part_of_what_is_free() {
        assert_eq!(
            blocks(&order(), 100, 10, MEMORY).unwrap().blocks,
            14,
            "twice 7 blocks of 16 tokens"
        );
        assert_eq!(blocks(&order(), 100, 200, MEMORY).unwrap().blocks, 10, "2000 bytes are free");
        let shared = LoadOrder { ranks_here: 2, ..order() };
        assert_eq!(blocks(&shared, 100, 200, MEMORY).unwrap().blocks, 5);
        assert_eq!(blocks(&order(), 100, 0, MEMORY).unwrap().blocks, 14, "a rank without heads");
    }

    #[test]
    fn what_was_asked_for_counts() {
        let number = LoadOrder { kv_blocks: 3, ..order() };
        assert_eq!(blocks(&number, 100, 200, MEMORY).unwrap().blocks, 3);
        let bytes = LoadOrder { kv_cache_bytes: 999, ..order() };
        assert_eq!(blocks(&bytes, 100, 200, MEMORY).unwrap().blocks, 4);
    }

    #[test]
    fn blocks_to_swap_to_are_as_many_as_their_bytes_hold() {
        let bytes = LoadOrder { swap_bytes: Some(999), kv_blocks: 1, ..order() };
        assert_eq!(blocks(&bytes, 100, 200, MEMORY).unwrap().swap_blocks, 4);
        let number = LoadOrder { swap_blocks: 3, ..bytes };
        assert_eq!(blocks(&number, 100, 200, MEMORY).unwrap().swap_blocks, 3);
    }

    #[test]
    fn a_device_s_cache_is_what_weights_and_steps_leave() {
        let memory = DeviceMemory { total_bytes: 10_000, taken_bytes: 7_000, kept_free_bytes: 600 };
        let blocks = |order: &LoadOrder, bytes| {
            blocks_on_device(order, 100, bytes, (memory, MEMORY)).map(|room| room.blocks)
        };
        assert_eq!(blocks(&order(), 10).unwrap(), 14, "no more than it can use");
        assert_eq!(blocks(&order(), 200).unwrap(), 12, "2400 bytes are free");
        let asked = LoadOrder { kv_blocks: 13, ..order() };
        assert_eq!(
            blocks(&asked, 200).unwrap_err().to_string(),
            "13 KV blocks of 200 bytes do not fit: of the device's 10000 bytes weights take 7000 and \
             600 are kept free, which leaves 2400; lower --kv-blocks or --kv-cache-memory, or share \
             the model among more ranks"
        );
        assert!(blocks(&order(), 2_500).is_err(), "not one");
    }

    #[test]
    fn a_device_s_cache_can_be_swapped_to_a_sixteenth_of_it_unless_it_is_said_to_how_much() {
        let memory = DeviceMemory { total_bytes: 10_000, taken_bytes: 0, kept_free_bytes: 0 };
        let swap = |order: &LoadOrder, host| {
            blocks_on_device(order, 100, 100, (memory, host)).unwrap().swap_blocks
        };
        let many = LoadOrder { kv_blocks: 64, swap_bytes: None, ..order() };
        assert_eq!(swap(&many, MEMORY), 4);
        assert_eq!(swap(&LoadOrder { ranks_here: 8, ..many.clone() }, MEMORY), 2, "of 8000 bytes");
        assert_eq!(swap(&LoadOrder { swap_bytes: Some(0), ..many.clone() }, MEMORY), 0);
        assert_eq!(swap(&LoadOrder { swap_bytes: Some(999), ..many.clone() }, MEMORY), 9);
        let host = blocks(&LoadOrder { kv_blocks: 64, ..many }, 100, 100, MEMORY).unwrap();
        assert_eq!(host.swap_blocks, 0, "host memory behind host memory");
    }

    #[test]
    fn too_much_is_said_of_a_device_too() {
        let memory = DeviceMemory { total_bytes: 10_000, taken_bytes: 7_000, kept_free_bytes: 600 };
        let blocks = |order: &LoadOrder, bytes| {
            blocks_on_device(order, 100, bytes, (memory, MEMORY)).map(|room| room.blocks)
        };
        let swap = LoadOrder { swap_blocks: 51, ..order() };
        assert!(matches!(blocks(&swap, 200), Err(LoadError::NoRoom { .. })), "the host's memory");
    }

    #[test]
    fn too_little_and_too_much_are_said_with_numbers() {
        assert_eq!(
            blocks(&order(), 100, 2001, MEMORY).unwrap_err().to_string(),
            "not one KV block of 2001 bytes fits in the 2000 bytes there are for the cache"
        );
        let swap = LoadOrder { kv_blocks: 30, swap_blocks: 30, ..order() };
        assert_eq!(
            blocks(&swap, 100, 200, MEMORY).unwrap_err().to_string(),
            "30 KV blocks and 30 swap blocks need 12000 bytes and this machine has 10000"
        );
    }
}
