//! The KV cache: a buffer to each layer, laid out as `kernels/attention.cl` says.

use opencl::{Buffer, Memory};

use crate::backend::opencl::driver::Driver;
use crate::backend::{BackendError, CacheShape};

/// Positions of a page.
const PAGE: usize = 16;

/// KV blocks of all layers of this rank.
#[derive(Debug)]
pub struct Cache {
    pub(crate) layers: Vec<Buffer>,
    /// In pinned host memory.
    swapped: Vec<Buffer>,
    pub(crate) block_size: usize,
    /// Bytes of a block of one layer.
    block_bytes: usize,
}

/// Bytes of a block of one layer.
pub(crate) fn layer_block_bytes(shape: &CacheShape) -> usize {
    let numbers = (shape.head_size + shape.head_size.next_multiple_of(PAGE)) * PAGE;
    shape.block_size.div_ceil(PAGE) * shape.kv_heads * numbers * 2
}

impl Cache {
    pub(crate) fn new(driver: &mut Driver, shape: &CacheShape) -> Result<Self, BackendError> {
        let block_bytes = layer_block_bytes(shape);
        let mut layers = |blocks: usize, memory| {
            (0..shape.layers)
                .map(|_| driver.keep("a layer's KV cache", blocks * block_bytes, memory))
                .collect::<Result<Vec<_>, _>>()
        };
        let on_device = layers(shape.blocks, Memory::Device)?;
        let swapped = layers(shape.swap_blocks, Memory::Host)?;
        Ok(Self { layers: on_device, swapped, block_size: shape.block_size, block_bytes })
    }

    pub(crate) fn copy_blocks(&self, driver: &mut Driver, pairs: &[(u32, u32)]) {
        for layer in &self.layers {
            for &(from, to) in pairs.iter().filter(|(from, to)| from != to) {
                driver.copy((layer, self.at(from)), (layer, self.at(to)), self.block_bytes);
            }
        }
    }

    pub(crate) fn swap_out(&self, driver: &mut Driver, pairs: &[(u32, u32)]) {
        for (layer, swapped) in self.layers.iter().zip(&self.swapped) {
            for &(device, host) in pairs {
                driver.copy((layer, self.at(device)), (swapped, self.at(host)), self.block_bytes);
            }
        }
    }

    pub(crate) fn swap_in(&self, driver: &mut Driver, pairs: &[(u32, u32)]) {
        for (layer, swapped) in self.layers.iter().zip(&self.swapped) {
            for &(host, device) in pairs {
                driver.copy((swapped, self.at(host)), (layer, self.at(device)), self.block_bytes);
            }
        }
    }

    fn at(&self, block: u32) -> usize {
        block as usize * self.block_bytes
    }
}
