//! A tensor on the device, and its quantised twin.

use std::cell::OnceCell;

use crate::backend::cpu::tensor::GROUP;
use crate::backend::opencl::pool::Lease;

/// Bytes of a group's scale and sums; see `kernels/arithmetic.cl`.
pub(crate) const GROUP_BYTES: usize = 16;

/// `(rows, columns)`, f32, with its rows quantised where somebody wants them so.
#[derive(Debug)]
pub struct Tensor {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Lease,
    pub(crate) twin: OnceCell<Twin>,
}

/// Rows of a tensor as 8-bit integers.
#[derive(Debug)]
pub(crate) struct Twin {
    /// `(rows, groups, 32)`, one byte each.
    pub(crate) codes: Lease,
    /// `(rows, groups, 4)`, f32.
    pub(crate) groups: Lease,
}

impl Tensor {
    pub(crate) fn new(rows: usize, columns: usize, values: Lease) -> Self {
        Self { rows, columns, values, twin: OnceCell::new() }
    }

    /// Groups of a row.
    pub(crate) fn depth(&self) -> usize {
        self.columns.div_ceil(GROUP)
    }
}
