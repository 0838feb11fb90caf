//! Attention in tile registers, with AMX-BF16: 32 queries at a time, or 16.
//!
//! Keys and values of a split are put together in pairs once an item, as tile registers want them, and
//! then meet all of the item's queries. Sums are those of [`crate::backend::cpu::stages`], to the bit.

#![expect(unsafe_code, reason = "instructions that not every CPU has")]

use std::arch::asm;
use std::ops::Range;

use bytemuck::{cast, cast_slice};

use crate::backend::cpu::amx::Tiles;
use crate::backend::cpu::attend::SPLIT;
use crate::backend::cpu::lanes::{Avx512, LANES, Lanes, padded};
use crate::backend::cpu::path::Kernel;
use crate::backend::cpu::short::{GROUP, shortened_or_zero};
use crate::backend::cpu::stages::Number;
use crate::backend::cpu::tensor::BLOCK;

/// Pairs of a group: rows of a tile register.
const PAIRS: usize = GROUP / 2;

/// 16 pairs of 16 columns each, of bf16: the lower halves come first.
type Tile = [[u32; LANES]; PAIRS];

/// A thread's working memory.
#[derive(Debug, Default)]
pub(crate) struct Paired {
    /// Queries. `(vectors, pairs)`
    q: Vec<u32>,
    /// Pairs of a query, padded to whole groups.
    pairs: usize,
    /// `(pages, groups of the head)`
    keys: Vec<Tile>,
    /// `(groups of positions, columns / 16)`
    values: Vec<Tile>,
}

impl Paired {
    /// Room for an item's queries.
    pub(crate) fn for_queries(&mut self, vectors: usize, head_size: usize) {
        self.pairs = head_size.next_multiple_of(GROUP) / 2;
        self.q.resize(vectors.next_multiple_of(2 * BLOCK) * self.pairs, 0);
    }
}

/// Takes in a query.
pub(crate) struct PairQuery<'a> {
    pub(crate) avx512: Avx512,
    pub(crate) paired: &'a mut Paired,
    pub(crate) vector: usize,
    pub(crate) q: &'a [f32],
    pub(crate) scale: f32,
}

impl Kernel for PairQuery<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Self { avx512: l, paired, vector, q, scale } = self;
        let to = &mut paired.q[vector * paired.pairs..][..paired.pairs];
        let (to, _) = to.as_chunks_mut::<{ LANES / 2 }>();
        let mut chunks = q.chunks(LANES);
        for to in to {
            let x = padded(chunks.next().unwrap_or_default());
            let x = Lanes::mul(l, Lanes::load(l, &x), Lanes::splat(l, scale));
            l.store_bf16(shortened_or_zero(l, x), to);
        }
    }
}

/// Takes in the pages of a split.
pub(crate) struct PairUp<'a, N> {
    pub(crate) paired: &'a mut Paired,
    pub(crate) avx512: Avx512,
    pub(crate) pages: &'a [&'a [N]],
    pub(crate) head_size: usize,
    pub(crate) value_size: usize,
    /// Positions of the pages that are seen. All others count as 0.
    pub(crate) inside: Range<usize>,
}

impl<N: Number> Kernel for PairUp<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Self { paired, avx512: l, pages, head_size, value_size, inside } = self;
        let groups = paired.pairs / PAIRS;
        let none = [[0; LANES]; PAIRS];
        paired.keys.resize(pages.len().next_multiple_of(2) * groups, none);
        for (page, to) in pages.iter().zip(paired.keys.chunks_exact_mut(groups)) {
            let keys = &page.as_chunks::<LANES>().0[..head_size];
            for (keys, to) in keys.chunks(GROUP).zip(to) {
                let pairs = keys.as_chunks::<2>().0;
                for ([even, odd], to) in pairs.iter().zip(&mut *to) {
                    l.store_pairs(N::load(l, even), N::load(l, odd), to);
                }
                to[pairs.len()..].fill([0; LANES]);
            }
        }
        let columns = value_size / LANES;
        paired.values.resize(pages.len().div_ceil(GROUP / LANES) * columns, none);
        let zero = l.splat(0.0);
        for (group, to) in paired.values.chunks_exact_mut(columns).enumerate() {
            for pair in 0..PAIRS {
                let position = group * GROUP + 2 * pair;
                let page = pages.get(position / LANES);
                let values = page.map_or(&[][..], |page| {
                    let from = page.len() - (LANES - position % LANES) * value_size;
                    &page[from..][..2 * value_size]
                });
                let (even, odd) = (inside.contains(&position), inside.contains(&(position + 1)));
                for (column, to) in to.iter_mut().enumerate() {
                    let at = column * LANES;
                    let (mut a, mut b) = (zero, zero);
                    if even && let Some(values) = values[at..].first_chunk() {
                        a = N::load(l, values);
                    }
                    if odd && let Some(values) = values[value_size + at..].first_chunk() {
                        b = N::load(l, values);
                    }
                    l.store_pairs(a, b, &mut to[pair]);
                }
            }
        }
    }
}

/// Scores of `A` × 16 queries, from `from` on, at the positions of all pages. `scores` is
/// `(A × 16, SPLIT)`.
pub(crate) fn score<const A: usize>(
    tiles: &Tiles,
    paired: &Paired,
    from: usize,
    scores: &mut [[f32; SPLIT]],
) {
    let groups = paired.pairs / PAIRS;
    let q = (&paired.q[from * paired.pairs..], paired.pairs);
    let places = Places { groups, b_step: 1, b_side: groups };
    let to = scores.as_flattened_mut();
    for (at, keys) in paired.keys.chunks_exact(2 * groups).enumerate() {
        products::<A, 2>(tiles, &places, q, keys, (&mut to[at * 2 * LANES..], SPLIT));
    }
}

/// Weighted sums of values for `A` × 16 queries. `weights` is `(A × 16, SPLIT)`, with weights at
/// `positions` positions; nothing of use is left in it. `sums` is `(A × 16, value size)`.
pub(crate) fn weigh<const A: usize>(
    (tiles, avx512): (&Tiles, Avx512),
    paired: &Paired,
    (weights, positions): (&mut [[f32; SPLIT]], usize),
    (sums, value_size): (&mut [f32], usize),
) {
    let groups = positions.div_ceil(GROUP);
    avx512.run(Shorten { avx512, weights, positions });
    let a = (cast_slice::<f32, u32>(weights.as_flattened()), SPLIT);
    let columns = value_size / LANES;
    let places = Places { groups, b_step: columns, b_side: 1 };
    let mut column = 0;
    while column < columns {
        let (b, to) = (&paired.values[column..], (&mut sums[column * LANES..], value_size));
        if columns - column >= 2 {
            products::<A, 2>(tiles, &places, a, b, to);
        } else {
            products::<A, 1>(tiles, &places, a, b, to);
        }
        column += 2;
    }
}

/// Puts weights as bf16 in the first half of their row; 0 up to a whole group.
struct Shorten<'a> {
    avx512: Avx512,
    weights: &'a mut [[f32; SPLIT]],
    positions: usize,
}

impl Kernel for Shorten<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Self { avx512: l, weights, positions } = self;
        for row in weights {
            for at in 0..positions.div_ceil(GROUP) * (GROUP / LANES) {
                let mut pairs = [0; LANES / 2];
                if at * LANES < positions
                    && let Some(weights) = row[at * LANES..].first_chunk()
                {
                    l.store_bf16(Lanes::load(l, weights), &mut pairs);
                }
                // What lies before has been read.
                if let Some(to) = row[at * (LANES / 2)..].first_chunk_mut::<{ LANES / 2 }>() {
                    *to = cast(pairs);
                }
            }
        }
    }
}

/// Where the operands of [`products`] lie.
struct Places {
    /// Tiles that are added up.
    groups: usize,
    /// Tiles from one group of `b` to the next.
    b_step: usize,
    /// Tiles from one column's `b` to the next one's.
    b_side: usize,
}

/// `A` × `B` blocks of 16 × 16 sums, each of 16 rows of `a` and a column of `b`; either number is 1 or
/// 2. `a` is rows of groups of pairs, so many pairs apart; `to` rows of sums, so many sums apart.
#[inline(always)]
fn products<const A: usize, const B: usize>(
    _tiles: &Tiles,
    places: &Places,
    (a, a_row): (&[u32], usize),
    b: &[Tile],
    (to, to_row): (&mut [f32], usize),
) {
    const { assert!(1 <= A && A <= 2 && 1 <= B && B <= 2) };
    let Places { groups, b_step, b_side } = *places;
    assert!(groups > 0 && a.len() >= (A * BLOCK - 1) * a_row + groups * PAIRS, "rows of groups");
    assert!(b.len() > (groups - 1) * b_step + (B - 1) * b_side, "a tile for each group");
    assert!(to.len() >= (A * BLOCK - 1) * to_row + B * LANES, "rows of sums");
    // SAFETY (of all below): tile registers are configured as 16 rows of 64 bytes, and the value that
    // says so is at hand; the slices are as long as asserted, so that all that is read or written lies
    // within them.
    macro_rules! tiles {
        ($($line:literal),* $(; $name:ident = $value:expr)*) => {
            // SAFETY: see above.
            unsafe {
                asm!($($line,)* $($name = in(reg) $value,)* options(nostack, preserves_flags));
            }
        };
    }
    tiles!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3");
    let (a_bytes, b_bytes) = (a_row * size_of::<u32>(), LANES * size_of::<u32>());
    for group in 0..groups {
        let a = a[group * PAIRS..].as_ptr();
        let b = b[group * b_step..].as_ptr();
        tiles!("tileloadd tmm4, [{a} + {row}*1]"; a = a; row = a_bytes);
        tiles!("tileloadd tmm6, [{b} + {row}*1]"; b = b; row = b_bytes);
        tiles!("tdpbf16ps tmm0, tmm4, tmm6");
        if B == 2 {
            tiles!("tileloadd tmm7, [{b} + {row}*1]"; b = b.wrapping_add(b_side); row = b_bytes);
            tiles!("tdpbf16ps tmm1, tmm4, tmm7");
        }
        if A == 2 {
            let a = a.wrapping_add(BLOCK * a_row);
            tiles!("tileloadd tmm5, [{a} + {row}*1]"; a = a; row = a_bytes);
            tiles!("tdpbf16ps tmm2, tmm5, tmm6");
            if B == 2 {
                tiles!("tdpbf16ps tmm3, tmm5, tmm7");
            }
        }
    }
    let (to, row) = (to.as_mut_ptr(), to_row * size_of::<f32>());
    let below = to.wrapping_add((A - 1) * BLOCK * to_row);
    tiles!("tilestored [{to} + {row}*1], tmm0"; to = to; row = row);
    if B == 2 {
        tiles!("tilestored [{to} + {row}*1 + 64], tmm1"; to = to; row = row);
    }
    if A == 2 {
        tiles!("tilestored [{to} + {row}*1], tmm2"; to = below; row = row);
        if B == 2 {
            tiles!("tilestored [{to} + {row}*1 + 64], tmm3"; to = below; row = row);
        }
    }
}
