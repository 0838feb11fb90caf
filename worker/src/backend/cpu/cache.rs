//! The KV cache, laid out for [`crate::backend::cpu::attend`].
//!
//! Positions of a block come in *pages* of [`LANES`]. A page of keys holds, for each of the head's
//! numbers, that number of all 16 positions, so that scores of 16 positions come out in one vector. A
//! page of values holds the 16 positions one after another, each padded to whole vectors.
//!
//! With [`KvDtype::F16`] these numbers are f16, of the 8 significant bits that attention multiplies. With
//! [`KvDtype::Q8`] they are codes of a byte, in the same order, and behind both pages stand the scales,
//! f16: for every [`KV_GROUP`] numbers of a head, those of the 16 positions for the keys; for every
//! position, those of its groups for the values. A number is its code times its scale.

use half::f16;
use proto::worker::KvDtype;

use crate::backend::cpu::lanes::LANES;
use crate::backend::cpu::memory::Region;
use crate::backend::{BackendError, CacheShape, KV_GROUP};

/// KV blocks of all layers of this rank, on the device and in host memory. Here these are the same
/// memory; swapped blocks only leave room for others.
#[derive(Debug)]
pub struct Cache {
    pub(crate) layout: Layout,
    /// For each layer, its blocks; of codes, two in place of each f16.
    layers: Vec<Region<f16>>,
    /// For each layer, its swapped blocks.
    swapped: Vec<Region<f16>>,
}

/// Where numbers lie within a layer's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) kv_heads: usize,
    pub(crate) head_size: usize,
    pub(crate) block_size: usize,
    pub(crate) dtype: KvDtype,
}

impl Layout {
    fn new(shape: &CacheShape) -> Self {
        let CacheShape { kv_heads, head_size, block_size, dtype, .. } = *shape;
        Self { kv_heads, head_size, block_size, dtype }
    }

    /// The layout of a cache that can be had.
    ///
    /// # Errors
    /// Codes for heads that are not whole groups, which is told in the name of `backend`.
    pub(crate) fn of(backend: &'static str, shape: &CacheShape) -> Result<Self, BackendError> {
        let layout = Self::new(shape);
        let head_size = layout.head_size;
        if layout.dtype == KvDtype::Q8 && !head_size.is_multiple_of(KV_GROUP) {
            let what = format!("heads of {head_size} numbers are not whole groups of {KV_GROUP}");
            return Err(BackendError::Unsupported { backend, what });
        }
        Ok(layout)
    }

    /// Numbers a value takes, padded to whole vectors.
    pub(crate) fn value_size(&self) -> usize {
        self.head_size.next_multiple_of(LANES)
    }

    /// Numbers in a page of keys.
    pub(crate) fn key_page(&self) -> usize {
        self.head_size * LANES
    }

    /// Numbers in a page of values.
    pub(crate) fn value_page(&self) -> usize {
        self.value_size() * LANES
    }

    /// Groups of a head that have a scale each.
    pub(crate) fn groups(&self) -> usize {
        self.head_size / KV_GROUP
    }

    /// Numbers in a page of keys and its page of values.
    pub(crate) fn numbers(&self) -> usize {
        self.key_page() + self.value_page()
    }

    /// What a page of keys and its page of values take, counted in f16.
    pub(crate) fn stored(&self) -> usize {
        match self.dtype {
            KvDtype::F16 => self.numbers(),
            KvDtype::Q8 => self.numbers() / 2 + 2 * self.groups() * LANES,
        }
    }

    fn pages(&self) -> usize {
        self.block_size.div_ceil(LANES)
    }

    /// What a block of one layer takes, counted in f16.
    pub(crate) fn block(&self) -> usize {
        self.kv_heads * self.pages() * self.stored()
    }

    /// Where a page of keys begins; that of the values follows.
    pub(crate) fn page(&self, block: usize, head: usize, page: usize) -> usize {
        block * self.block() + (head * self.pages() + page) * self.stored()
    }

    /// The page that holds a slot, and the slot's lane in it.
    pub(crate) fn place(&self, slot: usize, head: usize) -> (usize, usize) {
        let within = slot % self.block_size;
        (self.page(slot / self.block_size, head, within / LANES), within % LANES)
    }
}

impl Cache {
    pub(crate) fn new(shape: &CacheShape, memory: u64) -> Result<Self, BackendError> {
        let layout = Layout::of("cpu", shape)?;
        let wanted = block_bytes(shape) * (shape.blocks as u64 + shape.swap_blocks as u64);
        if wanted > memory {
            return Err(BackendError::Memory { what: "KV cache", wanted, available: memory });
        }
        let layers = |blocks: usize| {
            (0..shape.layers)
                .map(|_| Region::alone(blocks * layout.block(), "KV cache"))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { layout, layers: layers(shape.blocks)?, swapped: layers(shape.swap_blocks)? })
    }

    pub(crate) fn layer(&self, layer: usize) -> &[f16] {
        self.layers[layer].as_slice()
    }

    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut [f16] {
        self.layers[layer].as_mut_slice()
    }

    pub(crate) fn copy_blocks(&mut self, pairs: &[(u32, u32)]) {
        for layer in &mut self.layers {
            for &(from, to) in pairs {
                let from = part(&self.layout, from);
                layer.as_mut_slice().copy_within(from, to as usize * self.layout.block());
            }
        }
    }

    pub(crate) fn swap_out(&mut self, pairs: &[(u32, u32)]) {
        for (layer, swapped) in self.layers.iter().zip(&mut self.swapped) {
            for &(device, host) in pairs {
                let from = &layer.as_slice()[part(&self.layout, device)];
                swapped.as_mut_slice()[part(&self.layout, host)].copy_from_slice(from);
            }
        }
    }

    pub(crate) fn swap_in(&mut self, pairs: &[(u32, u32)]) {
        for (layer, swapped) in self.layers.iter_mut().zip(&self.swapped) {
            for &(host, device) in pairs {
                let from = &swapped.as_slice()[part(&self.layout, host)];
                layer.as_mut_slice()[part(&self.layout, device)].copy_from_slice(from);
            }
        }
    }
}

fn part(layout: &Layout, block: u32) -> std::ops::Range<usize> {
    let start = block as usize * layout.block();
    start..start + layout.block()
}

/// Bytes of a block over all layers.
pub(crate) fn block_bytes(shape: &CacheShape) -> u64 {
    (shape.layers * Layout::new(shape).block() * size_of::<f16>()) as u64
}
