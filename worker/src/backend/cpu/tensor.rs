//! A tensor, and its quantised twin.

use std::cell::OnceCell;

use crate::backend::cpu::disjoint::by_rows;
use crate::backend::cpu::lanes::{LANES, Lanes};
use crate::backend::cpu::path::{Isa, Kernel};
use crate::backend::cpu::pool::Buffer;
use crate::backend::cpu::team::Team;

/// Columns that share a scale.
pub(crate) const GROUP: usize = 32;

/// `(rows, columns)`, f32, with its rows quantised once somebody asked for them.
#[derive(Debug)]
pub struct Tensor {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Buffer<f32>,
    pub(crate) twin: OnceCell<Twin>,
}

/// Rows of a tensor, quantised.
#[derive(Debug)]
pub(crate) struct Twin {
    /// `(rows, groups)`
    pub(crate) groups: Buffer<Group>,
    /// The same again, `(blocks, groups)`, as far as rows fill blocks; empty on paths that have no use
    /// for it.
    pub(crate) blocks: Buffer<RowBlock>,
}

impl Tensor {
    pub(crate) fn new(values: Buffer<f32>, columns: usize) -> Self {
        Self { rows: values.len() / columns.max(1), columns, values, twin: OnceCell::new() }
    }

    /// Some rows, in the order given. `to` is `(rows, columns)`.
    pub(crate) fn copy_rows(&self, rows: &[usize], to: &mut [f32]) {
        for (to, &row) in to.chunks_exact_mut(self.columns).zip(rows) {
            to.copy_from_slice(&self.values[row * self.columns..][..self.columns]);
        }
    }
}

/// [`GROUP`] columns of a row as 8-bit integers. Columns beyond the end are 0.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Group {
    /// From -127 to 127.
    pub(crate) codes: [i8; GROUP],
    /// A column is its code times this.
    pub(crate) scale: f32,
    /// Sum of all codes, and of the first half: whole numbers.
    pub(crate) sum: f32,
    pub(crate) first_sum: f32,
    /// Sum of all codes, times the scale.
    pub(crate) scaled_sum: f32,
}

impl Group {
    /// Four neighbouring codes, which meet a lane of weights.
    #[inline(always)]
    pub(crate) fn step<const STEP: usize>(&self) -> [i8; 4] {
        let at = 4 * STEP;
        [self.codes[at], self.codes[at + 1], self.codes[at + 2], self.codes[at + 3]]
    }
}

/// Rows that are multiplied together in tile registers.
pub(crate) const BLOCK: usize = 16;

/// [`GROUP`] columns of [`BLOCK`] rows; see [`Group`].
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct RowBlock {
    pub(crate) codes: [[i8; GROUP]; BLOCK],
    pub(crate) scale: [f32; BLOCK],
    pub(crate) sum: [f32; BLOCK],
    pub(crate) first_sum: [f32; BLOCK],
    pub(crate) scaled_sum: [f32; BLOCK],
}

/// How many blocks to make of so many rows: a rest of a few is faster without.
pub(crate) fn blocks_of(rows: usize) -> usize {
    (rows + BLOCK / 2) / BLOCK
}

/// Puts `groups`, `(rows, depth)`, together in `blocks`. Where rows are missing, all is 0.
pub(crate) fn gather(team: &Team, groups: &[Group], depth: usize, blocks: &mut [RowBlock]) {
    let none: &mut [f32] = &mut [];
    let count = blocks.len() / depth.max(1);
    by_rows(team, count, 1, (blocks, depth), (none, 0), &|range, blocks, _| {
        let groups = &groups[range.start * BLOCK * depth..];
        for (at, block) in blocks.iter_mut().enumerate() {
            *block = RowBlock::default();
            for (r, group) in groups.iter().skip(at).step_by(depth).take(BLOCK).enumerate() {
                block.codes[r] = group.codes;
                block.scale[r] = group.scale;
                block.sum[r] = group.sum;
                block.first_sum[r] = group.first_sum;
                block.scaled_sum[r] = group.scaled_sum;
            }
        }
    });
}

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
                let mut x = [0.0; GROUP];
                x[..rest.len()].copy_from_slice(rest);
                quantise_group(l, &x, &mut groups[depth - 1]);
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
