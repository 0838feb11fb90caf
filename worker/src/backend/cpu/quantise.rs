//! Quantising rows of x to 8 bits.

use crate::backend::cpu::disjoint::by_rows;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::lanes::Avx512;
use crate::backend::cpu::lanes::{LANES, Lanes, padded};
use crate::backend::cpu::path::{Isa, Kernel};
use crate::backend::cpu::team::Team;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::tensor::{BLOCK, RowBlock};
use crate::backend::cpu::tensor::{GROUP, Group};

/// Quantises rows of `columns` numbers to `groups`.
pub(crate) fn quantise(isa: Isa, team: &Team, x: &[f32], columns: usize, groups: &mut [Group]) {
    let rows = x.len() / columns.max(1);
    let depth = columns.div_ceil(GROUP);
    let none: &mut [f32] = &mut [];
    by_rows(team, rows, rows_a_grain(columns), (groups, depth), (none, 0), &|rows, groups, _| {
        isa.run(Quantise { x: &x[rows.start * columns..rows.end * columns], columns, groups });
    });
}

/// Rows worth handing to a thread at a time, for work that reads a row once or twice.
pub(crate) fn rows_a_grain(columns: usize) -> usize {
    (16_384 / columns.max(1)).max(1)
}

struct Quantise<'a> {
    x: &'a [f32],
    columns: usize,
    groups: &'a mut [Group],
}

impl Kernel for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let depth = self.columns.div_ceil(GROUP);
        for (row, groups) in
            self.x.chunks_exact(self.columns).zip(self.groups.chunks_exact_mut(depth))
        {
            let (whole, rest) = row.as_chunks::<GROUP>();
            for (x, group) in whole.iter().zip(&mut *groups) {
                quantise_group(l, x, group);
            }
            if !rest.is_empty() {
                quantise_group(l, &padded(rest), &mut groups[depth - 1]);
            }
        }
    }
}

#[inline(always)]
fn quantise_group<L: Lanes>(l: L, x: &[f32; GROUP], group: &mut Group) {
    let ([low, high], []) = x.as_chunks::<LANES>() else { unreachable!("a group is two vectors") };
    let (low, high) = (l.load(low), l.load(high));
    let greatest = l.greatest(l.max(l.abs(low), l.abs(high)));
    let inverse = if greatest > 0.0 { 127.0 / greatest } else { 0.0 };
    let inverse = l.splat(inverse);
    let (low, high) = (code(l, l.mul(low, inverse)), code(l, l.mul(high, inverse)));
    l.store_i8(low, high, &mut group.codes);
    group.scale = greatest / 127.0;
    group.first_sum = l.sum(low);
    group.sum = group.first_sum + l.sum(high);
    group.scaled_sum = group.sum * group.scale;
}

/// Rounds to a whole number from -127 to 127, ties to even.
#[inline(always)]
pub(crate) fn code<L: Lanes>(l: L, x: L::F) -> L::F {
    let round = l.splat(12_582_912.0); // 1.5 × 2²³
    let inside = l.max(l.min(x, l.splat(127.0)), l.splat(-127.0));
    l.sub(l.add(inside, round), round)
}

/// Quantises rows of `columns` numbers to `blocks`. Where rows are missing, all is 0.
#[cfg(target_arch = "x86_64")]
pub(crate) fn quantise_blocks(
    avx512: Avx512,
    team: &Team,
    x: &[f32],
    columns: usize,
    blocks: &mut [RowBlock],
) {
    let depth = columns.div_ceil(GROUP);
    let count = blocks.len() / depth.max(1);
    let none: &mut [f32] = &mut [];
    by_rows(team, count, 1, (blocks, depth), (none, 0), &|range, blocks, _| {
        let from = range.start * BLOCK * columns;
        let x = &x[from..x.len().min(from + BLOCK * columns)];
        avx512.run(QuantiseBlock { avx512, x, columns, blocks });
    });
}

#[cfg(target_arch = "x86_64")]
struct QuantiseBlock<'a> {
    avx512: Avx512,
    x: &'a [f32],
    columns: usize,
    blocks: &'a mut [RowBlock],
}

#[cfg(target_arch = "x86_64")]
impl Kernel for QuantiseBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Self { avx512: l, x, columns, blocks } = self;
        let zero = l.splat(0.0);
        for (at, block) in blocks.iter_mut().enumerate() {
            let from = at * GROUP;
            let mut rows = [[0.0; GROUP]; BLOCK];
            for (to, x) in rows.iter_mut().zip(x.chunks_exact(columns)) {
                *to = padded(&x[from..]);
            }
            let mut of_rows = [zero; BLOCK];
            for r in 0..BLOCK {
                let ([low, high], []) = rows[r].as_chunks() else { unreachable!("two vectors") };
                of_rows[r] = l.max(l.abs(l.load(low)), l.abs(l.load(high)));
            }
            let greatest = l.greatest_of(of_rows);
            let inverse = l.div(l.splat(127.0), greatest);
            let scale = l.div(greatest, l.splat(127.0));
            l.store(scale, &mut block.scale);
            let mut inverses = [0.0; LANES];
            l.store(l.if_less(zero, greatest, inverse, zero), &mut inverses);
            let mut others = [zero; BLOCK];
            for r in 0..BLOCK {
                let inverse = l.splat(inverses[r]);
                let ([low, high], []) = rows[r].as_chunks() else { unreachable!("two vectors") };
                let (low, high) = (l.mul(l.load(low), inverse), l.mul(l.load(high), inverse));
                let (low, high) = (code(l, low), code(l, high));
                l.store_i8(low, high, &mut block.codes[r]);
                (of_rows[r], others[r]) = (low, high);
            }
            // Whole numbers, so in whatever order.
            let first_sum = l.sums_of(of_rows);
            let sum = l.add(first_sum, l.sums_of(others));
            l.store(first_sum, &mut block.first_sum);
            l.store(sum, &mut block.sum);
            l.store(l.mul(sum, scale), &mut block.scaled_sum);
        }
    }
}
