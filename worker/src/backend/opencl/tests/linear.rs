//! Multiplications by weights.

use checkpoint::{Activation, BlockKind, Matrix};

use super::{ROWS, assert_same, backends, numbers};
use crate::backend::cpu::tests::support::{KINDS, Random};
use crate::backend::{Backend, MatrixPart};

/// A matrix of random blocks.
struct Case {
    kind: BlockKind,
    rows: usize,
    columns: usize,
    bytes: Vec<u8>,
}

impl Case {
    fn new(kind: BlockKind, rows: usize, columns: usize) -> Self {
        let bytes = Random::new(rows as u64).blocks(kind, rows, columns);
        Self { kind, rows, columns, bytes }
    }

    fn part(
        &self,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
    ) -> MatrixPart<'_> {
        let matrix = Matrix::new(self.rows, self.columns, self.kind, &self.bytes);
        MatrixPart { matrix, rows, columns, bias: None }
    }
}

/// The product with all rows of `x`, and as logits the last row's.
fn linear<B: Backend>(backend: &mut B, parts: &[MatrixPart<'_>], x: &[f32]) -> Vec<f32> {
    let columns = parts[0].columns.len();
    let (weight, rows) = (backend.matrix(parts).unwrap(), x.len() / columns);
    let x = backend.upload(x, columns);
    let y = backend.linear(&x, &weight);
    let mut all = numbers(backend, &y, rows);
    let mut logits = Vec::new();
    backend.logits(&x, &[rows - 1], &weight, &mut logits).unwrap();
    all.extend(logits);
    all
}

fn glu<B: Backend>(backend: &mut B, case: &Case, x: &[f32], activation: Activation) -> Vec<f32> {
    let half = case.rows / 2;
    let gate = case.part(0..half, 0..case.columns);
    let up = case.part(half..2 * half, 0..case.columns);
    let weight = backend.gated(&gate, &up).unwrap();
    let rows = x.len() / case.columns;
    let x = backend.upload(x, case.columns);
    let y = backend.glu(&x, &weight, activation);
    numbers(backend, &y, rows)
}

/// Partial sums of some columns, and what one rank alone makes of them.
fn segmented<B: Backend>(
    backend: &mut B,
    part: &MatrixPart<'_>,
    segment: usize,
    x: &[f32],
) -> (Vec<f64>, Vec<f32>) {
    let columns = part.columns.len();
    let (weight, rows) = (backend.segmented(part, segment).unwrap(), x.len() / columns);
    let x = backend.upload(x, columns);
    let mut sums = Vec::new();
    backend.partial(&x, &weight, &mut sums).unwrap();
    let whole = backend.whole(&x, &weight, part.rows.len()).unwrap();
    (sums, numbers(backend, &whole, rows))
}

fn columns_of(kind: BlockKind) -> usize {
    if kind.block_numbers() == 1 { 72 } else { kind.block_numbers().max(128) * 2 }
}

#[test]
fn a_linear_has_the_cpu_s_bits_for_every_kind_and_number_of_rows() {
    let (mut cpu, devices) = backends();
    for mut device in devices {
        for (kind, _) in KINDS {
            let case = Case::new(kind, 83, columns_of(kind));
            for rows in ROWS {
                let x = Random::new(rows as u64).numbers(rows * case.columns);
                let mut parts =
                    [case.part(3..70, 0..case.columns), case.part(70..83, 0..case.columns)];
                parts[1].bias = Some(Random::new(8).numbers(13));
                let expected = linear(&mut cpu, &parts, &x);
                assert_same(&linear(&mut device, &parts, &x), &expected, &(kind, rows));
            }
        }
    }
}

#[test]
fn gate_and_up_have_the_cpu_s_bits_for_every_kind_and_both_activations() {
    let (mut cpu, devices) = backends();
    for mut device in devices {
        for (kind, _) in KINDS {
            let case = Case::new(kind, 70, columns_of(kind));
            for (rows, activation) in [(1, Activation::Silu), (9, Activation::GeluTanh)] {
                let x = Random::new(rows as u64).numbers(rows * case.columns);
                let expected = glu(&mut cpu, &case, &x, activation);
                assert_same(&glu(&mut device, &case, &x, activation), &expected, &(kind, rows));
            }
        }
    }
}

#[test]
fn partial_sums_have_the_cpu_s_bits_and_add_up_over_ranks() {
    let (mut cpu, devices) = backends();
    for mut device in devices {
        for (kind, _) in KINDS {
            // The columns of the second rank begin within a large block.
            let (columns, cut, segment) = (768, 288, 96);
            let case = Case::new(kind, 40, columns);
            for rows in [1, 3, 33] {
                let x = Random::new(rows as u64).numbers(rows * columns);
                let side = |range: std::ops::Range<usize>| -> Vec<f32> {
                    x.chunks(columns).flat_map(|row| row[range.clone()].to_vec()).collect()
                };
                let mut totals = vec![0.0; rows * 40];
                for range in [0..cut, cut..columns] {
                    let (part, x) = (case.part(0..40, range.clone()), side(range));
                    let (expected, narrow) = segmented(&mut cpu, &part, segment, &x);
                    let (found, rounded) = segmented(&mut device, &part, segment, &x);
                    assert_eq!(found, expected, "{kind:?}");
                    assert_same(&rounded, &narrow, &kind);
                    totals.iter_mut().zip(found).for_each(|(total, sum)| *total += sum);
                }
                let (whole, _) = segmented(&mut device, &case.part(0..40, 0..columns), segment, &x);
                assert_eq!(totals, whole, "{kind:?}");
            }
        }
    }
}

#[test]
fn what_is_no_number_stays_so() {
    let (_, devices) = backends();
    for mut device in devices {
        let case = Case::new(BlockKind::F32, 2, 64);
        let mut x = vec![1.0; 64];
        x[40] = f32::NAN;
        let (sums, rounded) = segmented(&mut device, &case.part(0..2, 0..64), 32, &x);
        assert!(sums.iter().all(|sum| sum.is_nan()) && rounded.iter().all(|sum| sum.is_nan()));
    }
}

/// A quarter of a 32B's layer and head: 40 heads of 128, 5120 hidden, 27648 inner numbers, 152064 tokens.
#[test]
fn a_quarter_of_a_large_model_s_layer_has_the_cpu_s_bits() {
    let (mut cpu, devices) = backends();
    let kind = BlockKind::Q4_0;
    let (qkv, gate_up) = (Case::new(kind, 1792, 5120), Case::new(kind, 13_824, 5120));
    let (output, down) = (Case::new(kind, 5120, 1280), Case::new(kind, 5120, 6912));
    let head = Case::new(kind, 38_016, 5120);
    for mut device in devices {
        for rows in [1, 9] {
            let x = Random::new(rows as u64).numbers(rows * 6912);
            let of = |columns| &x[..rows * columns];
            for (case, name) in [(&qkv, "qkv"), (&head, "head")] {
                let part = [case.part(0..case.rows, 0..5120)];
                let expected = linear(&mut cpu, &part, of(5120));
                assert_same(&linear(&mut device, &part, of(5120)), &expected, &(name, rows));
            }
            let expected = glu(&mut cpu, &gate_up, of(5120), Activation::Silu);
            let found = glu(&mut device, &gate_up, of(5120), Activation::Silu);
            assert_same(&found, &expected, &("gate and up", rows));
            for (case, columns, segment) in [(&output, 1280, 128), (&down, 6912, 192)] {
                let part = case.part(0..5120, 0..columns);
                let (expected, _) = segmented(&mut cpu, &part, segment, of(columns));
                let (found, _) = segmented(&mut device, &part, segment, of(columns));
                assert!(found == expected, "{columns} columns, {rows} rows");
            }
        }
    }
}
