//! The KV cache: a buffer to each layer, laid out as the `cpu` backend's; see `kernels/cache.cl`.

use half::f16;
use opencl::{Buffer, Memory};
use proto::worker::KvDtype;

use crate::backend::cpu::cache::Layout;
use crate::backend::opencl::driver::{Driver, failed};
use crate::backend::opencl::programs::{Heads, Part};
use crate::backend::{BackendError, CacheShape};

/// Query heads that may share a read of the cache: the sums of eight stay in registers, and Intel's compiler
/// spills those of seven.
const SHARINGS: [usize; 7] = [1, 2, 3, 4, 5, 6, 8];
/// Numbers of the query heads of a work-group, for each of which it keeps 32 bytes of local memory.
const SHARED_NUMBERS_MAX: usize = 1024;

/// KV blocks of all layers of this rank.
#[derive(Debug)]
pub struct Cache {
    pub(crate) layers: Vec<Buffer>,
    /// In pinned host memory.
    swapped: Vec<Buffer>,
    pub(crate) heads: Heads,
    /// Query heads of a work-group of attention, at most.
    pub(crate) sharing: usize,
    /// Bytes of a block of one layer.
    block_bytes: usize,
}

/// What [`sharing`] comes to for heads of such a size, whatever the model.
pub(crate) fn sharings(head_size: usize) -> impl Iterator<Item = usize> {
    let most = (SHARED_NUMBERS_MAX / head_size.max(1)).max(1);
    SHARINGS.into_iter().filter(move |&sharing| sharing <= most)
}

/// How many query heads of a KV head share a read: lots are few, and alike.
fn sharing(queries_per_kv_head: usize, head_size: usize) -> usize {
    let queries = queries_per_kv_head.max(1);
    let most = sharings(head_size).last().expect("one head is always there");
    let alike = queries.div_ceil(queries.div_ceil(most));
    sharings(head_size).find(|&sharing| sharing >= alike).unwrap_or(most)
}

impl Cache {
    pub(crate) fn new(driver: &mut Driver, shape: &CacheShape) -> Result<Self, BackendError> {
        let layout = Layout::of("opencl", shape)?;
        let CacheShape { head_size, block_size, dtype, queries_per_kv_head, .. } = *shape;
        let heads = Heads { head_size, block_size, codes: dtype == KvDtype::Q8 };
        let sharing = sharing(queries_per_kv_head, head_size);
        for part in [Part::Append(heads), Part::Attention { heads, sharing }] {
            driver.programs.build(part).map_err(|error| failed(&error))?;
        }
        let block_bytes = layout.block() * size_of::<f16>();
        let mut layers = |blocks: usize, memory| {
            (0..shape.layers)
                .map(|_| driver.keep("a layer's KV cache", blocks * block_bytes, memory))
                .collect::<Result<Vec<_>, _>>()
        };
        let on_device = layers(shape.blocks, Memory::Device)?;
        let swapped = layers(shape.swap_blocks, Memory::Host)?;
        Ok(Self { layers: on_device, swapped, heads, sharing, block_bytes })
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
