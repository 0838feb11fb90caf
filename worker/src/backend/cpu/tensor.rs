//! A tensor, and what its quantised twin is made of.

use std::cell::OnceCell;

use crate::backend::cpu::pool::Buffer;

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
    /// `(rows, groups)`; rows of blocks hold anything.
    pub(crate) groups: Buffer<Group>,
    /// `(blocks, groups)`, as far as rows fill blocks; empty on paths that have no use for it.
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
