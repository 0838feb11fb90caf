//! Dequantisation against candle's, block by random block.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::borrow::Cow;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use checkpoint::{BlockKind, Matrix, dequantize};
use fixture::random::Random;
use fixture::weights::quantize;

const KINDS: [(BlockKind, GgmlDType); 11] = [
    (BlockKind::F32, GgmlDType::F32),
    (BlockKind::F16, GgmlDType::F16),
    (BlockKind::Bf16, GgmlDType::BF16),
    (BlockKind::Q4_0, GgmlDType::Q4_0),
    (BlockKind::Q4_1, GgmlDType::Q4_1),
    (BlockKind::Q5_0, GgmlDType::Q5_0),
    (BlockKind::Q5_1, GgmlDType::Q5_1),
    (BlockKind::Q8_0, GgmlDType::Q8_0),
    (BlockKind::Q4K, GgmlDType::Q4K),
    (BlockKind::Q5K, GgmlDType::Q5K),
    (BlockKind::Q6K, GgmlDType::Q6K),
];

fn candle(dtype: GgmlDType, bytes: &[u8], numbers: usize) -> Vec<f32> {
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype).unwrap();
    let tensor = QTensor::new(storage, numbers).unwrap();
    tensor.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap()
}

/// Equal to the bit, where NaN is NaN.
fn assert_same(kind: BlockKind, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        assert!(same, "{kind:?}: number {i} is {a}, and candle says {b}");
    }
}

#[test]
fn random_blocks_of_every_kind_mean_what_candle_says() {
    const BLOCKS: usize = 500;
    for (kind, dtype) in KINDS {
        let mut random = Random::new(7);
        let bytes: Vec<u8> =
            (0..BLOCKS * kind.block_bytes()).map(|_| random.bits().to_le_bytes()[0]).collect();
        let mut ours = vec![0.0; BLOCKS * kind.block_numbers()];
        dequantize(kind, &bytes, &mut ours);
        assert_same(kind, &ours, &candle(dtype, &bytes, ours.len()));
    }
}

#[test]
fn quantised_numbers_come_back_near_what_they_were() {
    let mut random = Random::new(3);
    let plain: Vec<f32> = (0..4 * 512).map(|_| random.number()).collect();
    for (kind, _) in KINDS {
        let (bytes, values) = quantize(kind, &plain, 4, 512);
        let matrix = Matrix::new(4, 512, kind, &bytes);
        let mut row = vec![0.0; 512];
        for i in 0..4 {
            matrix.dequantize_row(i, &mut row);
            assert_same(kind, &row, &values[512 * i..512 * (i + 1)]);
            for (a, b) in row.iter().zip(&plain[512 * i..]) {
                assert!((a - b).abs() < 0.15, "{kind:?}: {b} came back as {a}");
            }
        }
    }
}

#[test]
fn columns_of_a_row_are_the_row_cut_at_blocks() {
    let mut random = Random::new(5);
    let plain: Vec<f32> = (0..2 * 1024).map(|_| random.number()).collect();
    for (kind, _) in KINDS {
        let (bytes, _) = quantize(kind, &plain, 2, 1024);
        let matrix = Matrix::new(2, 1024, kind, &bytes);
        let mut row = vec![0.0; 1024];
        matrix.dequantize_row(1, &mut row);
        for columns in [0..0, 0..256, 256..768, 768..1024, 0..1024] {
            let mut part = vec![0.0; columns.len()];
            matrix.dequantize_columns(1, columns.clone(), &mut part);
            assert_eq!(part, row[columns]);
        }
    }
}

#[test]
#[should_panic(expected = "whole blocks")]
fn columns_that_cut_a_block_are_a_mistake() {
    let bytes = [0; 36];
    let matrix = Matrix::new(1, 64, BlockKind::Q4_0, &bytes);
    matrix.dequantize_columns(0, 0..16, &mut [0.0; 16]);
}
