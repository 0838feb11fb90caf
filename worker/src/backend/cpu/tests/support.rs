//! Random numbers, matrices, batches, and the backends to compare.

use std::ops::Range;

use checkpoint::{BlockKind, Matrix};
use half::f16;

use crate::backend::cpu::{CpuBackend, Path, Tensor};
use crate::backend::{Backend, MatrixPart};
use crate::batch::{Batch, BatchSlice};

/// Every kind of block, with where its f16 scales lie.
pub(crate) const KINDS: [(BlockKind, &[usize]); 11] = [
    (BlockKind::F32, &[]),
    (BlockKind::F16, &[]),
    (BlockKind::Bf16, &[]),
    (BlockKind::Q4_0, &[0]),
    (BlockKind::Q4_1, &[0, 2]),
    (BlockKind::Q5_0, &[0]),
    (BlockKind::Q5_1, &[0, 2]),
    (BlockKind::Q8_0, &[0]),
    (BlockKind::Q4K, &[0, 2]),
    (BlockKind::Q5K, &[0, 2]),
    (BlockKind::Q6K, &[208]),
];

/// Xorshift: the same numbers in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.bits() >> 11) as usize % end
    }

    /// From -1 to 1.
    pub(crate) fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    pub(crate) fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// Blocks of random bits with sane scales.
    pub(crate) fn blocks(&mut self, kind: BlockKind, rows: usize, columns: usize) -> Vec<u8> {
        let count = rows * columns / kind.block_numbers();
        let scales = KINDS.iter().find(|(it, _)| *it == kind).unwrap().1;
        let mut bytes = Vec::new();
        for _ in 0..count {
            let number = self.number();
            match kind {
                BlockKind::F32 => bytes.extend(number.to_le_bytes()),
                BlockKind::F16 => bytes.extend(f16::from_f32(number).to_le_bytes()),
                BlockKind::Bf16 => bytes.extend(half::bf16::from_f32(number).to_le_bytes()),
                _ => {
                    let start = bytes.len();
                    bytes.extend((0..kind.block_bytes()).map(|_| self.bits() as u8));
                    for at in scales {
                        let scale = f16::from_f32(self.number() * 0.01).to_le_bytes();
                        bytes[start + at..start + at + 2].copy_from_slice(&scale);
                    }
                }
            }
        }
        bytes
    }
}

/// Backends on every path with 1, 2 and 3 threads; the first is the plainest.
pub(crate) fn backends() -> Vec<CpuBackend> {
    let paths = Path::ALL.into_iter().filter(|path| path.available());
    paths
        .flat_map(|path| [1, 2, 3].map(|threads| CpuBackend::with_path(threads, path).unwrap()))
        .collect()
}

pub(crate) fn part(matrix: Matrix<'_>, rows: Range<usize>) -> MatrixPart<'_> {
    MatrixPart { matrix, rows, columns: 0..matrix.columns, bias: None }
}

/// Rows of a matrix as numbers.
pub(crate) fn dequantised(part: &MatrixPart<'_>) -> Vec<Vec<f32>> {
    let mut row = vec![0.0; part.matrix.columns];
    part.rows
        .clone()
        .map(|at| {
            part.matrix.dequantize_row(at, &mut row);
            row[part.columns.clone()].to_vec()
        })
        .collect()
}

pub(crate) fn numbers(backend: &mut CpuBackend, x: &Tensor) -> Vec<f32> {
    let (rows, mut out) = ((0..x.rows).collect::<Vec<_>>(), Vec::new());
    backend.rows(x, &rows, &mut out).unwrap();
    out
}

pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// A batch of slices: `(start, tokens, block table)`.
pub(crate) fn batch(block_size: usize, slices: &[(usize, usize, &[u32])]) -> Batch {
    let mut batch = Batch { block_size, ..Batch::default() };
    for &(start, tokens, table) in slices {
        let rows = batch.tokens.len()..batch.tokens.len() + tokens;
        let blocks = batch.blocks.len()..batch.blocks.len() + table.len();
        for position in start..start + tokens {
            let slot = table[position / block_size] as usize * block_size + position % block_size;
            batch.tokens.push(0);
            batch.positions.push(u32::try_from(position).unwrap());
            batch.slots.push(u32::try_from(slot).unwrap());
        }
        batch.blocks.extend_from_slice(table);
        batch.slices.push(BatchSlice { rows, start, blocks });
    }
    batch
}
