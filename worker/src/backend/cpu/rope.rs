//! Rotary embedding, and k and v on their way to the cache.

#![expect(unsafe_code, reason = "threads write to slots of one cache")]

use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use bytemuck::{cast, cast_slice_mut};
use half::f16;
use proto::worker::KvDtype;

use crate::backend::cpu::cache::Layout;
use crate::backend::cpu::disjoint::{Disjoint, by_rows};
use crate::backend::cpu::lanes::{LANES, Lanes, padded};
use crate::backend::cpu::memory::{Arena, Region};
use crate::backend::cpu::path::{Isa, Kernel};
use crate::backend::cpu::quantise::{code, rows_a_grain};
use crate::backend::cpu::rows::norm_row;
use crate::backend::cpu::short::shortened;
use crate::backend::cpu::team::Team;
use crate::backend::{AttentionShape, BackendError, KV_GROUP};

/// Positions tabulated at a time.
const PAGE: usize = 256;
/// The largest finite f16 of 8 bits. Values are kept finite, so that a weight of 0 always makes them 0.
const SHORT_MAX: f32 = 65_280.0;

/// `cos` and `sin` for every position and pair, tabulated where they are first asked for: a page of them
/// costs memory only then.
#[derive(Debug)]
pub struct Rope {
    inverse_frequencies: Vec<f32>,
    factor: f32,
    pages: Vec<OnceLock<Region<f32>>>,
    /// Room for those that nobody has asked for yet.
    reserved: Mutex<Vec<Region<f32>>>,
}

impl Rope {
    pub(crate) fn new(
        arena: &mut Arena,
        inverse_frequencies: &[f32],
        factor: f32,
        positions: usize,
    ) -> Result<Self, BackendError> {
        let numbers = PAGE * 2 * inverse_frequencies.len();
        let pages = positions.div_ceil(PAGE);
        let reserved = (0..pages).map(|_| arena.take(numbers)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            inverse_frequencies: inverse_frequencies.to_vec(),
            factor,
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
            reserved: Mutex::new(reserved),
        })
    }

    /// `cos` and `sin` of each pair at a position.
    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let pairs = self.inverse_frequencies.len();
        let page = self.pages[position / PAGE].get_or_init(|| self.tabulate(position / PAGE));
        page.as_slice()[position % PAGE * 2 * pairs..][..2 * pairs].split_at(pairs)
    }

    fn tabulate(&self, page: usize) -> Region<f32> {
        let pairs = self.inverse_frequencies.len();
        let reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut table = reserved.expect("there is room for each page");
        for (at, row) in table.as_mut_slice().chunks_exact_mut((2 * pairs).max(1)).enumerate() {
            rotations(&self.inverse_frequencies, self.factor, page * PAGE + at, row);
        }
        table
    }
}

/// `cos` of each pair at a position, then `sin`, to `row`.
#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the point")]
#[expect(clippy::cast_precision_loss, reason = "positions are far below 2^53")]
pub(crate) fn rotations(frequencies: &[f32], factor: f32, position: usize, row: &mut [f32]) {
    let (cos, sin) = row.split_at_mut(frequencies.len());
    for (i, frequency) in frequencies.iter().enumerate() {
        let angle = position as f64 * f64::from(*frequency);
        cos[i] = (angle.cos() * f64::from(factor)) as f32;
        sin[i] = (angle.sin() * f64::from(factor)) as f32;
    }
}

/// Norm weights of query and key heads, and what is added to the mean square.
pub(crate) type HeadNorms<'a> = (&'a [f32], &'a [f32], f32);

/// What [`rope_append`] works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Append<'a> {
    pub(crate) norms: Option<HeadNorms<'a>>,
    pub(crate) rope: &'a Rope,
    pub(crate) shape: &'a AttentionShape,
    pub(crate) layout: &'a Layout,
    pub(crate) positions: &'a [u32],
    pub(crate) slots: &'a [u32],
}

/// Norms and rotates q and k, puts k and v in the cache's `layer`, and q in `out`.
pub(crate) fn rope_append(
    isa: Isa,
    team: &Team,
    qkv: &mut [f32],
    append: Append<'_>,
    layer: &mut [f16],
    out: &mut [f32],
) {
    let shape = append.shape;
    let wide = (shape.query_heads + 2 * shape.kv_heads) * shape.head_size;
    let narrow = shape.query_heads * shape.head_size;
    let layer = Slots::new(append.layout, layer);
    let grain = rows_a_grain(2 * wide);
    let rows = append.positions.len();
    by_rows(team, rows, grain, (qkv, wide), (out, narrow), &|rows, qkv, out| {
        isa.run(RopeRows { rows, qkv, out, append, layer: &layer });
    });
}

/// A layer's cache, in the pieces that rows write.
enum Slots<'a> {
    F16(Disjoint<'a, f16>),
    /// Codes; two in place of a scale.
    Q8(Disjoint<'a, i8>),
}

impl<'a> Slots<'a> {
    fn new(layout: &Layout, layer: &'a mut [f16]) -> Self {
        match layout.dtype {
            KvDtype::F16 => Self::F16(Disjoint::new(layer)),
            KvDtype::Q8 => Self::Q8(Disjoint::new(cast_slice_mut(layer))),
        }
    }
}

struct RopeRows<'a> {
    rows: Range<usize>,
    qkv: &'a mut [f32],
    out: &'a mut [f32],
    append: Append<'a>,
    layer: &'a Slots<'a>,
}

impl Kernel for RopeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Append { norms, rope, shape, layout, positions, slots } = self.append;
        let size = shape.head_size;
        let query = shape.query_heads * size;
        let keys = shape.kv_heads * size;
        for (row, (qkv, out)) in self
            .rows
            .zip(self.qkv.chunks_exact_mut(query + 2 * keys).zip(self.out.chunks_exact_mut(query)))
        {
            let (cos, sin) = rope.at(positions[row] as usize);
            let (q, kv) = qkv.split_at_mut(query);
            let (k, v) = kv.split_at_mut(keys);
            out.copy_from_slice(q);
            for head in out.chunks_exact_mut(size) {
                if let Some((weight, _, epsilon)) = norms {
                    norm_row(l, head, weight, epsilon);
                }
                rotate(head, cos, sin);
            }
            let slot = slots[row] as usize;
            for (at, (k, v)) in k.chunks_exact_mut(size).zip(v.chunks_exact(size)).enumerate() {
                if let Some((_, weight, epsilon)) = norms {
                    norm_row(l, k, weight, epsilon);
                }
                rotate(k, cos, sin);
                match self.layer {
                    Slots::F16(layer) => append_head(l, layout, layer, (slot, at), (k, v)),
                    Slots::Q8(layer) => {
                        append_quantised(l, layout, layer, (slot, at), (k, v));
                    }
                }
            }
        }
    }
}

/// Rotates the pairs `i`, `i + size / 2`.
#[inline(always)]
fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (low, high) = head.split_at_mut(head.len() / 2);
    for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// Puts a head's k and v in their slot.
#[inline(always)]
fn append_head<L: Lanes>(
    l: L,
    layout: &Layout,
    layer: &Disjoint<'_, f16>,
    (slot, head): (usize, usize),
    (k, v): (&[f32], &[f32]),
) {
    let (keys, lane) = layout.place(slot, head);
    let values = keys + layout.key_page() + lane * layout.value_size();
    for (at, k) in k.chunks(LANES).enumerate() {
        for (i, number) in to_f16(l, k).into_iter().enumerate().take(k.len()) {
            // SAFETY: this slot and head are this row's alone.
            unsafe { layer.set(keys + (at * LANES + i) * LANES + lane, number) };
        }
    }
    for (at, v) in v.chunks(LANES).enumerate() {
        let from = values + at * LANES;
        // SAFETY: this slot and head are this row's alone.
        unsafe { layer.part(from..from + LANES) }.copy_from_slice(&to_f16(l, v));
    }
}

/// Puts a head's k and v in their slot, as codes and scales.
#[inline(always)]
fn append_quantised<L: Lanes>(
    l: L,
    layout: &Layout,
    layer: &Disjoint<'_, i8>,
    (slot, head): (usize, usize),
    (k, v): (&[f32], &[f32]),
) {
    let (page, lane) = layout.place(slot, head);
    let keys = size_of::<f16>() * page;
    let values = keys + layout.key_page() + lane * layout.value_size();
    let key_scales = keys + layout.numbers();
    let value_scales = key_scales + size_of::<f16>() * layout.groups() * (LANES + lane);
    let scale_at = |start, at| start + size_of::<f16>() * at..start + size_of::<f16>() * (at + 1);
    for (at, k) in k.as_chunks::<KV_GROUP>().0.iter().enumerate() {
        let (codes, scale) = to_q8(l, k);
        for (i, code) in codes.into_iter().enumerate() {
            // SAFETY: this slot and head are this row's alone.
            unsafe { layer.set(keys + (at * KV_GROUP + i) * LANES + lane, code) };
        }
        // SAFETY: as above.
        unsafe { layer.part(scale_at(key_scales, at * LANES + lane)) }.copy_from_slice(&scale);
    }
    for (at, v) in v.as_chunks::<KV_GROUP>().0.iter().enumerate() {
        let (codes, scale) = to_q8(l, v);
        let from = values + at * KV_GROUP;
        // SAFETY: this slot and head are this row's alone.
        unsafe { layer.part(from..from + KV_GROUP) }.copy_from_slice(&codes);
        // SAFETY: as above.
        unsafe { layer.part(scale_at(value_scales, at)) }.copy_from_slice(&scale);
    }
}

/// The codes of a group, and the bytes of their scale, kept finite.
#[inline(always)]
fn to_q8<L: Lanes>(l: L, x: &[f32; KV_GROUP]) -> ([i8; KV_GROUP], [i8; 2]) {
    let ([low, high], []) = x.as_chunks::<LANES>() else { unreachable!("a group is two vectors") };
    let (low, high) = (l.load(low), l.load(high));
    let greatest = l.greatest(l.max(l.abs(low), l.abs(high)));
    let mut scale = [f16::ZERO; LANES];
    l.store_f16(l.min(l.splat(greatest / 127.0), l.splat(SHORT_MAX)), &mut scale);
    let scale = scale[0];
    // What is too small for a scale is 0.
    let divisor = l.splat(if scale == f16::ZERO { f32::INFINITY } else { scale.to_f32() });
    let mut codes = [0; KV_GROUP];
    l.store_i8(code(l, l.div(low, divisor)), code(l, l.div(high, divisor)), &mut codes);
    (codes, cast(scale))
}

/// Up to a vector of numbers, rounded to what attention multiplies and kept finite; 0 beyond.
#[inline(always)]
fn to_f16<L: Lanes>(l: L, x: &[f32]) -> [f16; LANES] {
    let inside = l.max(l.min(l.load(&padded(x)), l.splat(SHORT_MAX)), l.splat(-SHORT_MAX));
    let mut rounded = [f16::ZERO; LANES];
    // Exact, subnormals aside; those have fewer bits still.
    l.store_f16(shortened(l, inside), &mut rounded);
    rounded
}
