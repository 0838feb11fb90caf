//! The pages of keys and values that a split reads, and the numbers that codes stand for.

use std::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut};
use half::f16;
use proto::worker::KvDtype;

use crate::backend::KV_GROUP;
use crate::backend::cpu::attend::{Attend, SPLIT};
use crate::backend::cpu::cache::Layout;
use crate::backend::cpu::lanes::{LANES, Lanes};
use crate::backend::cpu::path::Kernel;
use crate::backend::cpu::plan::RowTile;
use crate::backend::cpu::short::shortened;

/// Pages of a split.
pub(crate) const PAGES_MAX: usize = SPLIT / LANES;

/// The pages of a split, as they are stored, from the one that holds `seen.start`; keys, then values.
#[inline(always)]
pub(crate) fn pages<'a>(
    attend: &Attend<'a>,
    tile: &RowTile,
    kv_head: usize,
    seen: &Range<usize>,
    gathered: &'a mut Vec<f16>,
) -> [&'a [f16]; PAGES_MAX] {
    let layout = attend.layout;
    let slice = &attend.batch.slices[tile.slice];
    let table = &attend.batch.blocks[slice.blocks.clone()];
    let block_size = layout.block_size;
    let stored = layout.stored();
    let first = seen.start / LANES;
    let count = seen.end.div_ceil(LANES) - first;
    let mut pages: [&[f16]; PAGES_MAX] = [&[]; PAGES_MAX];
    if block_size.is_multiple_of(LANES) {
        for (at, page) in pages.iter_mut().enumerate().take(count) {
            let position = (first + at) * LANES;
            let block = table[position / block_size] as usize;
            let start = layout.page(block, kv_head, position % block_size / LANES);
            *page = &attend.layer[start..start + stored];
        }
        return pages;
    }
    gathered.resize(PAGES_MAX * stored, f16::ZERO);
    for position in seen.clone() {
        let block = table[position / block_size] as usize;
        let within = position % block_size;
        let start = layout.page(block, kv_head, within / LANES);
        let from = &attend.layer[start..start + stored];
        let to = &mut gathered[(position / LANES - first) * stored..][..stored];
        let lanes = (within % LANES, position % LANES);
        match layout.dtype {
            KvDtype::F16 => copy_position(lanes, layout.key_page(), from, to),
            KvDtype::Q8 => {
                let numbers = layout.numbers();
                let (from, to) = (cast_slice::<f16, i8>(from), cast_slice_mut::<f16, i8>(to));
                let (from, from_scales) = from.split_at(numbers);
                let (to, to_scales) = to.split_at_mut(numbers);
                copy_position(lanes, layout.key_page(), from, to);
                let (from, to) = (cast_slice::<i8, f16>(from_scales), cast_slice_mut(to_scales));
                copy_position(lanes, layout.groups() * LANES, from, to);
            }
        }
    }
    for (page, gathered) in pages.iter_mut().zip(gathered.chunks_exact(stored)).take(count) {
        *page = gathered;
    }
    pages
}

/// Copies one position from lane to lane of two pages: what is kept of k, `keys` long and a lane at a
/// time, and what is kept of v, a position at a time.
fn copy_position<T: Copy>(lanes: (usize, usize), keys: usize, from: &[T], to: &mut [T]) {
    let (from_keys, from_values) = from.split_at(keys);
    let (to_keys, to_values) = to.split_at_mut(keys);
    for (to_key, from_key) in to_keys.chunks_exact_mut(LANES).zip(from_keys.chunks_exact(LANES)) {
        to_key[lanes.1] = from_key[lanes.0];
    }
    let size = from_values.len() / LANES;
    to_values[lanes.1 * size..][..size].copy_from_slice(&from_values[lanes.0 * size..][..size]);
}

/// Turns stored pages of codes into pages of numbers.
pub(crate) struct Dequantise<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) pages: &'a [&'a [f16]],
    /// `(pages, numbers of keys and values)`
    pub(crate) numbers: &'a mut [f32],
}

impl Kernel for Dequantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { layout, pages, numbers } = self;
        let groups = layout.groups();
        for (page, to) in pages.iter().zip(numbers.chunks_exact_mut(layout.numbers())) {
            let (codes, scales) = page.split_at(layout.numbers() / 2);
            let (keys, values) = cast_slice::<f16, i8>(codes).split_at(layout.key_page());
            let (key_scales, value_scales) = scales.split_at(groups * LANES);
            let (to_keys, to_values) = to.split_at_mut(layout.key_page());
            let keys =
                keys.chunks_exact(KV_GROUP * LANES).zip(to_keys.chunks_exact_mut(KV_GROUP * LANES));
            for ((keys, to), scales) in keys.zip(key_scales.as_chunks::<LANES>().0) {
                let scales = l.load_f16(scales);
                numbers_of(l, keys, scales, to);
            }
            let values = values.chunks_exact(KV_GROUP).zip(to_values.chunks_exact_mut(KV_GROUP));
            for ((values, to), scale) in values.zip(value_scales) {
                numbers_of(l, values, l.splat(scale.to_f32()), to);
            }
        }
    }
}

/// Codes times scales, rounded to what attention multiplies.
#[inline(always)]
fn numbers_of<L: Lanes>(l: L, codes: &[i8], scales: L::F, to: &mut [f32]) {
    for (codes, to) in codes.as_chunks::<LANES>().0.iter().zip(to.as_chunks_mut::<LANES>().0) {
        let codes = codes.map(f32::from);
        l.store(shortened(l, l.mul(l.load(&codes), scales)), to);
    }
}
