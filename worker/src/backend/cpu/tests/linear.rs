//! Multiplications by weights.

use checkpoint::{Activation, BlockKind, Matrix};

use super::support::{KINDS, Random, backends, bits, dequantised, numbers, part};
use crate::backend::cpu::CpuBackend;
use crate::backend::{Backend, BackendError, MatrixPart, SUM_GRID};

const ROWS: [usize; 9] = [1, 2, 3, 7, 8, 9, 32, 33, 130];

/// x as the backend sees it: 8-bit codes in groups of 32, or itself.
fn seen(x: &[f32], kind: BlockKind) -> Vec<f64> {
    if kind.block_numbers() == 1 {
        return x.iter().map(|&x| f64::from(x)).collect();
    }
    let group = |x: &[f32]| {
        let greatest = x.iter().fold(0.0f32, |greatest, x| greatest.max(x.abs()));
        let (inverse, scale) = (127.0 / greatest, greatest / 127.0);
        let code = |x: f32| (x * inverse).round_ties_even();
        x.iter().map(|&x| f64::from(code(x)) * f64::from(scale)).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(group).collect()
}

/// The product in f64, and the sum of magnitudes.
fn product(x: &[f64], weights: &[f32]) -> (f64, f64) {
    x.iter().zip(weights).fold((0.0, 0.0), |(sum, size), (x, w)| {
        let term = x * f64::from(*w);
        (sum + term, size + term.abs())
    })
}

fn check(out: &[f32], x: &[f32], columns: usize, parts: &[MatrixPart<'_>]) {
    let mut at = 0;
    for x in x.chunks_exact(columns) {
        for part in parts {
            let x = seen(x, part.matrix.kind);
            for (row, weights) in dequantised(part).iter().enumerate() {
                let (sum, size) = product(&x, weights);
                let bias = part.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
                let error = (f64::from(out[at]) - sum - bias).abs();
                assert!(error <= 3e-6 * (size + bias.abs()), "{} for {sum}", out[at]);
                at += 1;
            }
        }
    }
    assert_eq!(at, out.len());
}

/// `compute` gives the same bits for each row alone and for all together, on every backend.
fn same_everywhere(
    x: &[f32],
    columns: usize,
    compute: impl Fn(&mut CpuBackend, &[f32]) -> Vec<f32>,
) -> Vec<f32> {
    let mut all = backends();
    let whole = compute(&mut all[0], x);
    for backend in &mut all {
        assert_eq!(bits(&compute(backend, x)), bits(&whole));
    }
    let last = all.last_mut().unwrap();
    for (x, whole) in x.chunks_exact(columns).zip(whole.chunks(whole.len() / (x.len() / columns))) {
        assert_eq!(bits(&compute(last, x)), bits(whole));
    }
    whole
}

#[test]
fn a_linear_is_the_product_with_the_dequantised_matrix_for_every_kind_and_number_of_rows() {
    let mut random = Random::new(1);
    for (kind, _) in KINDS {
        for (at, rows) in ROWS.into_iter().enumerate() {
            let columns = [256, 512, 768][at % 3];
            let outputs = [1, 16, 17, 40, 100][at % 5];
            let bytes = random.blocks(kind, outputs, columns);
            let parts = [part(Matrix::new(outputs, columns, kind, &bytes), 0..outputs)];
            let x = random.numbers(rows * columns);
            let out = same_everywhere(&x, columns, |backend, x| {
                let weight = backend.matrix(&parts).unwrap();
                let x = backend.upload(x, columns);
                let out = backend.linear(&x, &weight);
                numbers(backend, &out)
            });
            check(&out, &x, columns, &parts);
        }
    }
}

#[test]
fn a_row_among_1_to_64_has_the_bits_it_has_alone() {
    let mut random = Random::new(9);
    for kind in [BlockKind::Q4_1, BlockKind::Q8_0, BlockKind::Q6K] {
        let (columns, outputs) = (256, 48);
        let bytes = random.blocks(kind, outputs, columns);
        let parts = [part(Matrix::new(outputs, columns, kind, &bytes), 0..outputs)];
        let x = random.numbers(64 * columns);
        for backend in &mut backends() {
            let weight = backend.matrix(&parts).unwrap();
            let mut multiply = |x: &[f32]| {
                let x = backend.upload(x, columns);
                let out = backend.linear(&x, &weight);
                bits(&numbers(backend, &out))
            };
            let alone: Vec<u32> = x.chunks_exact(columns).flat_map(&mut multiply).collect();
            for rows in 1..=64 {
                assert_eq!(multiply(&x[..rows * columns]), alone[..rows * outputs], "{rows} rows");
            }
        }
    }
}

#[test]
fn parts_of_different_kinds_with_biases_stand_one_after_another() {
    let mut random = Random::new(2);
    let kinds = [BlockKind::Q4K, BlockKind::Q4K, BlockKind::Q6K, BlockKind::F16];
    let bytes = kinds.map(|kind| random.blocks(kind, 50, 256));
    let mut parts: Vec<MatrixPart<'_>> = (kinds.iter().zip(&bytes))
        .map(|(&kind, bytes)| part(Matrix::new(50, 256, kind, bytes), 3..40))
        .collect();
    parts[1].bias = Some(random.numbers(37));
    parts[3].bias = Some(random.numbers(37));
    let x = random.numbers(5 * 256);
    let out = same_everywhere(&x, 256, |backend, x| {
        let weight = backend.matrix(&parts).unwrap();
        let x = backend.upload(x, 256);
        let out = backend.linear(&x, &weight);
        numbers(backend, &out)
    });
    check(&out, &x, 256, &parts);
}

#[test]
fn a_slice_of_columns_may_begin_inside_a_block_and_end_anywhere() {
    let mut random = Random::new(3);
    for (kind, columns) in [
        (BlockKind::Q4K, 32..128),
        (BlockKind::Q6K, 224..288),
        (BlockKind::Q4_1, 32..75),
        (BlockKind::F32, 5..44),
    ] {
        let bytes = random.blocks(kind, 20, 512);
        let mut slice = part(Matrix::new(20, 512, kind, &bytes), 0..20);
        slice.columns = columns.clone();
        let x = random.numbers(3 * columns.len());
        let out = same_everywhere(&x, columns.len(), |backend, x| {
            let weight = backend.matrix(std::slice::from_ref(&slice)).unwrap();
            let x = backend.upload(x, columns.len());
            let out = backend.linear(&x, &weight);
            numbers(backend, &out)
        });
        check(&out, &x, columns.len(), std::slice::from_ref(&slice));
    }
}

#[test]
fn extreme_codes_are_exact() {
    for kind in [BlockKind::Q8_0, BlockKind::Q4_0, BlockKind::Q5_1, BlockKind::Q6K] {
        let columns = 256;
        let mut bytes = vec![0x80; columns / kind.block_numbers() * kind.block_bytes()];
        for block in bytes.chunks_exact_mut(kind.block_bytes()) {
            if kind == BlockKind::Q6K {
                block.fill(0xFF);
                block[192..208].fill(0x7F);
                block[208..].copy_from_slice(&[0, 0x3C]);
            } else {
                block[..2].copy_from_slice(&[0, 0x3C]); // 1.0
            }
        }
        let parts = [part(Matrix::new(1, columns, kind, &bytes), 0..1)];
        for x in [vec![1.0; columns], vec![-1.0; columns]] {
            let out = same_everywhere(&x, columns, |backend, x| {
                let weight = backend.matrix(&parts).unwrap();
                let x = backend.upload(x, columns);
                let out = backend.linear(&x, &weight);
                numbers(backend, &out)
            });
            check(&out, &x, columns, &parts);
        }
    }
}

#[test]
fn a_glu_is_the_activated_gate_times_up() {
    let mut random = Random::new(4);
    let kinds = [
        (BlockKind::Q4_1, BlockKind::Q4_1),
        (BlockKind::Q8_0, BlockKind::Q8_0),
        (BlockKind::Q4_0, BlockKind::Q6K),
    ];
    for activation in [Activation::Silu, Activation::GeluTanh] {
        for (gate, up) in kinds {
            let (gate_bytes, up_bytes) = (random.blocks(gate, 60, 256), random.blocks(up, 60, 256));
            let gate = part(Matrix::new(60, 256, gate, &gate_bytes), 2..43);
            let up = part(Matrix::new(60, 256, up, &up_bytes), 2..43);
            let x = random.numbers(6 * 256);
            let out = same_everywhere(&x, 256, |backend, x| {
                let weight = backend.gated(&gate, &up).unwrap();
                let x = backend.upload(x, 256);
                let out = backend.glu(&x, &weight, activation);
                numbers(backend, &out)
            });
            let (gates, ups) = (dequantised(&gate), dequantised(&up));
            let plain = gate.matrix.kind != up.matrix.kind;
            let kind = if plain { BlockKind::F32 } else { gate.matrix.kind };
            let mut out = out.iter();
            for x in x.chunks_exact(256) {
                let x = seen(x, kind);
                for (gate, up) in gates.iter().zip(&ups) {
                    let ((gate, size), (up, up_size)) = (product(&x, gate), product(&x, up));
                    let bent = match activation {
                        Activation::Silu => gate / (1.0 + (-gate).exp()),
                        Activation::GeluTanh => {
                            let u = 0.797_884_560_802_865 * (gate + 0.044_715 * gate.powi(3));
                            0.5 * gate * (1.0 + u.tanh())
                        }
                    };
                    let error = (f64::from(*out.next().unwrap()) - bent * up).abs();
                    let scale = (bent.abs() + size) * up_size + bent.abs() * up.abs();
                    assert!(error <= 1e-5 * scale, "off by {error} of {scale}");
                }
            }
        }
    }
}

#[test]
fn the_sum_of_slices_is_the_whole_to_the_bit() {
    let mut random = Random::new(5);
    for kind in [BlockKind::Q4_1, BlockKind::Q6K, BlockKind::F16] {
        let (outputs, columns, segment) = (37, 512, 64);
        let bytes = random.blocks(kind, outputs, columns);
        let whole = part(Matrix::new(outputs, columns, kind, &bytes), 0..outputs);
        let x = random.numbers(9 * columns);
        let compute = |backend: &mut CpuBackend, slice: std::ops::Range<usize>| {
            let mut part = whole.clone();
            part.columns = slice.clone();
            let weight = backend.segmented(&part, segment).unwrap();
            let x: Vec<f32> = x.chunks(columns).flat_map(|x| x[slice.clone()].to_vec()).collect();
            let x = backend.upload(&x, slice.len());
            let mut out = vec![1.0];
            backend.partial(&x, &weight, &mut out).unwrap();
            out
        };
        let mut all = backends();
        let total = compute(&mut all[0], 0..columns);
        for backend in &mut all {
            for cuts in [vec![0, 512], vec![0, 256, 512], vec![0, 64, 448, 512]] {
                let mut sum = vec![0.0; total.len()];
                for cut in cuts.windows(2) {
                    let slice = compute(backend, cut[0]..cut[1]);
                    sum.iter_mut().zip(slice).for_each(|(sum, slice)| *sum += slice);
                }
                assert_eq!(sum, total);
            }
        }
        assert!(total.iter().all(|x| (x / SUM_GRID).fract() == 0.0));
        let weights = dequantised(&whole);
        for (at, total) in total.iter().enumerate() {
            let x = seen(&x[at / outputs * columns..][..columns], kind);
            let (sum, size) = product(&x, &weights[at % outputs]);
            assert!((total - sum).abs() <= 3e-6 * size + 8.0 * SUM_GRID);
        }
        let inputs = x.clone();
        for backend in &mut all {
            let weight = backend.segmented(&whole, segment).unwrap();
            let x = backend.upload(&inputs, columns);
            let at_once = backend.whole(&x, &weight, outputs).unwrap();
            let rounded: Vec<f32> = total.iter().map(|&total| total as f32).collect();
            assert_eq!(bits(&numbers(backend, &at_once)), bits(&rounded));
        }
        let x = all[0].sum(&total, outputs);
        let rounded: Vec<f32> = total.iter().map(|&total| total as f32).collect();
        assert_eq!(numbers(&mut all[0], &x), rounded);
    }
}

#[test]
fn logits_are_those_of_the_wanted_rows() {
    let mut random = Random::new(6);
    let bytes = random.blocks(BlockKind::Q8_0, 70, 64);
    let head = part(Matrix::new(70, 64, BlockKind::Q8_0, &bytes), 10..70);
    for backend in &mut backends() {
        let head = backend.matrix(std::slice::from_ref(&head)).unwrap();
        let x = backend.upload(&random.numbers(8 * 64), 64);
        let all = backend.linear(&x, &head);
        let all = numbers(backend, &all);
        let mut out = vec![0.0; 3];
        backend.logits(&x, &[6, 1, 6], &head, &mut out).unwrap();
        let wanted: Vec<f32> =
            [6, 1, 6].iter().flat_map(|row| all[row * 60..(row + 1) * 60].to_vec()).collect();
        assert_eq!(bits(&out), bits(&wanted));
        backend.logits(&x, &[], &head, &mut out).unwrap();
        assert!(out.is_empty());
    }
}

#[test]
fn a_step_without_rows_computes_nothing() {
    let mut random = Random::new(7);
    let bytes = random.blocks(BlockKind::Q4_0, 20, 64);
    let whole = part(Matrix::new(20, 64, BlockKind::Q4_0, &bytes), 0..20);
    for backend in &mut backends() {
        let weight = backend.matrix(std::slice::from_ref(&whole)).unwrap();
        let x = backend.upload(&[], 64);
        let x = backend.norm(&x, &vec![1.0; 64], 1e-5);
        let out = backend.linear(&x, &weight);
        assert!(numbers(backend, &out).is_empty());
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused_in_words() {
    let mut backend = CpuBackend::new(1).unwrap();
    let bytes = Random::new(8).blocks(BlockKind::Q4_0, 4, 128);
    let mut slice = part(Matrix::new(4, 128, BlockKind::Q4_0, &bytes), 0..4);
    let error = backend.segmented(&slice, 40).unwrap_err();
    assert!(error.to_string().contains("segments of 40 columns"), "{error}");
    slice.columns = 16..128;
    let error = backend.matrix(&[slice]).unwrap_err();
    assert!(matches!(error, BackendError::Unsupported { backend: "cpu", .. }), "{error}");
}
