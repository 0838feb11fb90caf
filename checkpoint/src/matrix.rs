//! A matrix as it lies in a file: rows of quantised blocks.

use std::ops::Range;

use crate::block::BlockKind;
use crate::dequantize::dequantize;
use crate::stored::Stored;

/// A matrix in a mapped file, `(rows, columns)`, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// Output features.
    pub rows: usize,
    /// Input features; a multiple of the kind's block.
    pub columns: usize,
    /// How the numbers are stored.
    pub kind: BlockKind,
    bytes: &'a [u8],
    /// Rows of each head of this size are stored interleaved (0, half, 1, half + 1, …), as llama-type
    /// GGUF files do; 0: as they are. [`Matrix::row`] undoes it.
    interleaved_head: usize,
}

/// Where a matrix lies in the files of a checkpoint: found once, read often.
#[derive(Debug, Clone)]
pub struct MatrixPlace {
    pub(crate) stored: Stored,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) interleaved_head: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix over `bytes`, whose rows are in the order of the model.
    ///
    /// # Panics
    /// When `columns` is not whole blocks, or `bytes` is not `rows` rows.
    #[must_use]
    pub fn new(rows: usize, columns: usize, kind: BlockKind, bytes: &'a [u8]) -> Self {
        Self::interleaved(rows, columns, kind, bytes, 0)
    }

    pub(crate) fn interleaved(
        rows: usize,
        columns: usize,
        kind: BlockKind,
        bytes: &'a [u8],
        interleaved_head: usize,
    ) -> Self {
        assert!(columns.is_multiple_of(kind.block_numbers()), "rows are whole blocks");
        let matrix = Self { rows, columns, kind, bytes, interleaved_head };
        assert_eq!(bytes.len(), rows * matrix.row_bytes(), "as many bytes as rows");
        matrix
    }

    /// Bytes in a row.
    #[must_use]
    pub const fn row_bytes(&self) -> usize {
        self.columns / self.kind.block_numbers() * self.kind.block_bytes()
    }

    /// The blocks of row `i`, as they are in the file: aligned to nothing, not even to their numbers.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row(&self, i: usize) -> &'a [u8] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        let start = stored_row(i, self.interleaved_head) * self.row_bytes();
        &self.bytes[start..start + self.row_bytes()]
    }

    /// The numbers of row `i`; `out` holds `columns` of them.
    ///
    /// # Panics
    /// When there is no such row, or `out` is of another length.
    pub fn dequantize_row(&self, i: usize, out: &mut [f32]) {
        dequantize(self.kind, self.row(i), out);
    }

    /// The numbers of some columns of row `i`, whole blocks of them.
    ///
    /// # Panics
    /// When there is no such row, `columns` is outside the row or cuts a block, or `out` is not as
    /// long as `columns`.
    pub fn dequantize_columns(&self, i: usize, columns: Range<usize>, out: &mut [f32]) {
        let block = self.kind.block_numbers();
        for end in [columns.start, columns.end] {
            assert!(end.is_multiple_of(block), "columns are whole blocks");
        }
        let bytes = columns.start / block * self.kind.block_bytes()
            ..columns.end / block * self.kind.block_bytes();
        dequantize(self.kind, &self.row(i)[bytes], out);
    }
}

/// Where row `i` lies when heads of `interleaved_head` rows (0: none) are interleaved: the model's
/// pair `(j, j + half)` is stored side by side.
pub(crate) const fn stored_row(i: usize, interleaved_head: usize) -> usize {
    if interleaved_head == 0 {
        return i;
    }
    let (head, within, half) = (i / interleaved_head, i % interleaved_head, interleaved_head / 2);
    head * interleaved_head + within % half * 2 + within / half
}
