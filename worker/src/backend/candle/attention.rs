//! Rotary embedding, KV blocks and attention, as plain loops.

use crate::backend::candle::Rope;
use crate::backend::candle::product::dot;
use crate::backend::{AttentionShape, CacheShape};
use crate::batch::{Batch, BatchSlice};

/// Numbers on the host, row after row.
pub(super) type Numbers = Vec<f32>;

/// Keys and values of one layer: `(blocks, block size, KV heads, head size)` each.
#[derive(Debug)]
pub(super) struct Blocks {
    keys: Numbers,
    values: Numbers,
    /// Numbers a block holds, of each.
    block: usize,
    /// Numbers a token has, of each.
    token: usize,
}

impl Blocks {
    pub(super) fn new(shape: &CacheShape, blocks: usize) -> Self {
        let token = shape.kv_heads * shape.head_size;
        let block = shape.block_size * token;
        // zeros from the operating system: a block costs nothing before it is written
        let room = || vec![0.0; blocks * block];
        Self { keys: room(), values: room(), block, token }
    }

    /// Writes row `i` of `keys` and `values` to `slots[i]`.
    pub(super) fn append(&mut self, keys: &[f32], values: &[f32], slots: &[u32]) {
        for (row, &slot) in slots.iter().enumerate() {
            let from = row * self.token..(row + 1) * self.token;
            let to = slot as usize * self.token..(slot as usize + 1) * self.token;
            self.keys[to.clone()].copy_from_slice(&keys[from.clone()]);
            self.values[to].copy_from_slice(&values[from]);
        }
    }

    pub(super) fn copy_within(&mut self, from: u32, to: u32) {
        let source = self.range(from);
        let target = self.range(to).start;
        self.keys.copy_within(source.clone(), target);
        self.values.copy_within(source, target);
    }

    pub(super) fn copy_from(&mut self, to: u32, other: &Self, from: u32) {
        let (target, source) = (self.range(to), other.range(from));
        self.keys[target.clone()].copy_from_slice(&other.keys[source.clone()]);
        self.values[target].copy_from_slice(&other.values[source]);
    }

    fn range(&self, block: u32) -> std::ops::Range<usize> {
        let start = block as usize * self.block;
        start..start + self.block
    }
}

/// Rotates every head of `x`, `(T × heads, head size)`, by its token's position: pairs `(i, i + half)`.
pub(super) fn rotate(x: &mut [f32], heads: usize, rope: &Rope, positions: &[u32]) {
    let head_size = 2 * rope.pairs;
    for (row, head) in x.chunks_exact_mut(head_size).enumerate() {
        let at = positions[row / heads] as usize * rope.pairs;
        let (first, second) = head.split_at_mut(rope.pairs);
        for pair in 0..rope.pairs {
            let (cos, sin) = (rope.cos[at + pair], rope.sin[at + pair]);
            let (a, b) = (first[pair], second[pair]);
            first[pair] = a * cos - b * sin;
            second[pair] = b * cos + a * sin;
        }
    }
}

/// `(T, query heads × head size)`
pub(super) fn attend(
    q: &[f32],
    shape: &AttentionShape,
    kv_of_query: &[usize],
    blocks: &Blocks,
    batch: &Batch,
) -> Numbers {
    let size = shape.head_size;
    let mut out = vec![0.0; q.len()];
    let mut heads = q.chunks_exact(size).zip(out.chunks_exact_mut(size));
    for slice in &batch.slices {
        for row in slice.rows.clone() {
            let places = places(batch, slice, row, shape);
            for &kv_head in kv_of_query {
                let (q, out) = heads.next().expect("a head for each row and query head");
                attend_head(q, shape, kv_head * size, &places, blocks, out);
            }
        }
    }
    out
}

/// Slots of the positions that a row sees, the earliest first.
fn places(batch: &Batch, slice: &BatchSlice, row: usize, shape: &AttentionShape) -> Vec<usize> {
    let table = &batch.blocks[slice.blocks.clone()];
    let end = batch.positions[row] as usize + 1;
    let start = shape.window.map_or(0, |window| end.saturating_sub(window));
    let slot = |position: usize| {
        table[position / batch.block_size] as usize * batch.block_size + position % batch.block_size
    };
    (start..end).map(slot).collect()
}

/// One query head over one KV head, whose numbers begin at `offset` within a token's.
fn attend_head(
    q: &[f32],
    shape: &AttentionShape,
    offset: usize,
    places: &[usize],
    blocks: &Blocks,
    out: &mut [f32],
) {
    let head = |place: usize| {
        let start = place * blocks.token + offset;
        start..start + shape.head_size
    };
    let score = |&place: &usize| dot(q, &blocks.keys[head(place)]) * shape.scale;
    let mut weights: Numbers = places.iter().map(score).collect();
    let largest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for weight in &mut weights {
        *weight = (*weight - largest).exp();
        total += *weight;
    }
    for (&place, weight) in places.iter().zip(&weights) {
        let value = &blocks.values[head(place)];
        for (out, value) in out.iter_mut().zip(value) {
            *out += weight / total * value;
        }
    }
}
