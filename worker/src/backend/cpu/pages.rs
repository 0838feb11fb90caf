//! The pages of keys and values that a split reads.

use std::ops::Range;

use half::f16;

use crate::backend::cpu::attend::{Attend, SPLIT};
use crate::backend::cpu::cache::Layout;
use crate::backend::cpu::lanes::LANES;
use crate::backend::cpu::plan::RowTile;

/// Pages of a split.
pub(crate) const PAGES_MAX: usize = SPLIT / LANES;

/// The pages of a split from the one that holds `seen.start`; keys, then values.
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
    let numbers = layout.key_page() + layout.value_page();
    let first = seen.start / LANES;
    let count = seen.end.div_ceil(LANES) - first;
    let mut pages: [&[f16]; PAGES_MAX] = [&[]; PAGES_MAX];
    if block_size.is_multiple_of(LANES) {
        for (at, page) in pages.iter_mut().enumerate().take(count) {
            let position = (first + at) * LANES;
            let block = table[position / block_size] as usize;
            let start = layout.page(block, kv_head, position % block_size / LANES);
            *page = &attend.layer[start..start + numbers];
        }
        return pages;
    }
    gathered.resize(PAGES_MAX * numbers, f16::ZERO);
    for position in seen.clone() {
        let block = table[position / block_size] as usize;
        let within = position % block_size;
        let start = layout.page(block, kv_head, within / LANES);
        let from = &attend.layer[start..start + numbers];
        let to = &mut gathered[(position / LANES - first) * numbers..][..numbers];
        copy_position(layout, (within % LANES, position % LANES), from, to);
    }
    for (page, gathered) in pages.iter_mut().zip(gathered.chunks_exact(numbers)).take(count) {
        *page = gathered;
    }
    pages
}

/// Copies k and v of one position from lane to lane of two pages.
fn copy_position(layout: &Layout, lanes: (usize, usize), from: &[f16], to: &mut [f16]) {
    let (from_keys, from_values) = from.split_at(layout.key_page());
    let (to_keys, to_values) = to.split_at_mut(layout.key_page());
    for (to_key, from_key) in to_keys.chunks_exact_mut(LANES).zip(from_keys.chunks_exact(LANES)) {
        to_key[lanes.1] = from_key[lanes.0];
    }
    let size = layout.value_size();
    to_values[lanes.1 * size..][..size].copy_from_slice(&from_values[lanes.0 * size..][..size]);
}
