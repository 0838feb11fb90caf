//! GGUF's blocks, read: [`GROUP`] columns at a time, as codes with a scale and a minimum.
//!
//! A number is `(code − zero) × scale + minimum`, with `zero` a constant of the kind. All of it is
//! exact: a scale of a K-block is the product of an f16 and an integer of few bits, which f32 holds.

use checkpoint::BlockKind;
use half::f16;

use crate::backend::cpu::tensor::GROUP;

/// [`GROUP`] columns of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Codes {
    /// Unsigned, of as many bits as the kind has.
    pub(crate) codes: [u8; GROUP],
    /// For the first and the second half; they differ for [`BlockKind::Q6K`] only.
    pub(crate) scales: [f32; 2],
    /// 0 where the kind has none.
    pub(crate) minimum: f32,
}

impl Codes {
    /// No weights.
    pub(crate) const NONE: Self = Self { codes: [0; GROUP], scales: [0.0; 2], minimum: 0.0 };

    /// The number in a column, rounded once.
    pub(crate) fn number(&self, zero: u8, column: usize) -> f32 {
        let code = f32::from(self.codes[column]) - f32::from(zero);
        code.mul_add(self.scales[column / (GROUP / 2)], self.minimum)
    }

    fn new(scale: f32, minimum: f32, codes: [u8; GROUP]) -> Self {
        Self { codes, scales: [scale; 2], minimum }
    }
}

/// What is taken off a code of this kind.
pub(crate) const fn zero(kind: BlockKind) -> u8 {
    match kind {
        BlockKind::Q4_0 => 8,
        BlockKind::Q5_0 => 16,
        BlockKind::Q6K => 32,
        BlockKind::Q8_0 => 128,
        _ => 0,
    }
}

/// Group `group` of a row of quantised blocks.
pub(crate) fn group(kind: BlockKind, row: &[u8], group: usize) -> Codes {
    let groups_a_block = kind.block_numbers() / GROUP;
    let start = group / groups_a_block * kind.block_bytes();
    let block = &row[start..start + kind.block_bytes()];
    let within = group % groups_a_block;
    match kind {
        BlockKind::Q4_0 => Codes::new(half(block, 0), 0.0, nibbles(bytes(block, 2))),
        BlockKind::Q4_1 => Codes::new(half(block, 0), half(block, 2), nibbles(bytes(block, 4))),
        BlockKind::Q5_0 => {
            let codes = nibbles_and_fifths(bytes(block, 6), bytes(block, 2));
            Codes::new(half(block, 0), 0.0, codes)
        }
        BlockKind::Q5_1 => {
            let codes = nibbles_and_fifths(bytes(block, 8), bytes(block, 4));
            Codes::new(half(block, 0), half(block, 2), codes)
        }
        BlockKind::Q8_0 => {
            Codes::new(half(block, 0), 0.0, bytes::<GROUP>(block, 2).map(|code| code ^ 0x80))
        }
        BlockKind::Q4K => q4k(block, within),
        BlockKind::Q5K => q5k(block, within),
        BlockKind::Q6K => q6k(block, within),
        BlockKind::F32 | BlockKind::F16 | BlockKind::Bf16 => {
            unreachable!("plain numbers have no groups")
        }
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `N` bytes of a block. A known length is what lets the compiler do many at once.
#[inline(always)]
fn bytes<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..].first_chunk().expect("a block has all its bytes")
}

/// 32 columns: the low halves of 16 bytes, then the high ones.
#[inline(always)]
fn nibbles(bytes: &[u8; GROUP / 2]) -> [u8; GROUP] {
    let mut codes = [0; GROUP];
    let (low, high) = codes.split_at_mut(GROUP / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    codes
}

/// As [`nibbles`], each with its fifth bit from `bits`, lowest bit first.
#[inline(always)]
fn nibbles_and_fifths(bytes: &[u8; GROUP / 2], bits: &[u8; GROUP / 8]) -> [u8; GROUP] {
    let low = nibbles(bytes);
    std::array::from_fn(|i| low[i] | u8::from(bits[i / 8] & (1 << (i % 8)) != 0) << 4)
}

/// What scales and minima of a group are made of in kinds whose blocks have 256 numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Integers {
    /// Scale and minimum; or, for [`BlockKind::Q6K`], the signed scales of the halves.
    pub(crate) scales: [u8; 2],
    /// What those are multiplied by: one number each, or the same for both halves.
    pub(crate) supers: [f16; 2],
}

/// The integers of group `group` of a row of quantised blocks.
///
/// # Panics
/// For a kind that has none.
pub(crate) fn integers(kind: BlockKind, row: &[u8], group: usize) -> Integers {
    let groups_a_block = kind.block_numbers() / GROUP;
    let start = group / groups_a_block * kind.block_bytes();
    let block = &row[start..start + kind.block_bytes()];
    let within = group % groups_a_block;
    let f16_at = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]);
    match kind {
        BlockKind::Q4K | BlockKind::Q5K => {
            let (scale, minimum) = packed_scales(block, within);
            Integers { scales: [scale, minimum], supers: [f16_at(0), f16_at(2)] }
        }
        BlockKind::Q6K => {
            let at = 192 + 2 * within;
            Integers { scales: [block[at], block[at + 1]], supers: [f16_at(208); 2] }
        }
        _ => unreachable!("{kind:?} has scales of f16"),
    }
}

/// Scale and minimum of group `j` of a K-block.
fn scale_and_minimum(block: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = packed_scales(block, j);
    (half(block, 0) * f32::from(scale), -(half(block, 2) * f32::from(minimum)))
}

/// The same as integers: 6 bits each, packed in 12 bytes.
fn packed_scales(block: &[u8], j: usize) -> (u8, u8) {
    let packed = &block[4..16];
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (
            (packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4),
            (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4),
        )
    }
}

/// Groups 2c and 2c + 1 are the low and the high halves of the same 32 bytes.
fn q4k(block: &[u8], j: usize) -> Codes {
    let (scale, minimum) = scale_and_minimum(block, j);
    let shift = j % 2 * 4;
    let codes = bytes::<GROUP>(block, 16 + j / 2 * 32).map(|byte| (byte >> shift) & 15);
    Codes::new(scale, minimum, codes)
}

fn q5k(block: &[u8], j: usize) -> Codes {
    let (scale, minimum) = scale_and_minimum(block, j);
    let (low, high) = (bytes::<GROUP>(block, 48 + j / 2 * 32), bytes::<GROUP>(block, 16));
    let shift = j % 2 * 4;
    let code = |i| ((low[i] >> shift) & 15) | (((high[i] >> j) & 1) << 4);
    Codes::new(scale, minimum, std::array::from_fn(code))
}

/// Two times 128 columns; of these, groups 0 and 1 are low halves and 2 and 3 high halves of 64 bytes.
fn q6k(block: &[u8], j: usize) -> Codes {
    let (part, j) = (j / 4, j % 4);
    let low = bytes::<GROUP>(block, part * 64 + j % 2 * 32);
    let high = bytes::<GROUP>(block, 128 + part * 32);
    let scales = &block[192 + part * 8 + j * 2..];
    let scale = half(block, 208);
    let (low_shift, high_shift) = (j / 2 * 4, j * 2);
    let code = |i| ((low[i] >> low_shift) & 15) | (((high[i] >> high_shift) & 3) << 4);
    Codes {
        codes: std::array::from_fn(code),
        scales: [0, 1].map(|i| scale * f32::from(scales[i].cast_signed())),
        minimum: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use checkpoint::Matrix;
    use proptest::prelude::*;

    use super::*;
    use crate::backend::cpu::tests::support::KINDS;

    proptest! {
        #[test]
        fn codes_scales_and_minima_make_the_numbers_that_the_file_means(
            noise in prop::collection::vec(any::<u8>(), 256),
        ) {
            for (kind, scales) in KINDS.into_iter().filter(|(kind, _)| kind.block_numbers() > 1) {
                let mut block = noise[..kind.block_bytes()].to_vec();
                // Scales and minima that are numbers.
                for at in scales {
                    block[at + 1] &= 0x3b;
                }
                let columns = kind.block_numbers();
                let mut expected = vec![0.0; columns];
                Matrix::new(1, columns, kind, &block).dequantize_row(0, &mut expected);
                for (at, &expected) in expected.iter().enumerate() {
                    let codes = group(kind, &block, at / GROUP);
                    let number = codes.number(zero(kind), at % GROUP);
                    // One rounding instead of two, after terms of at most this size.
                    let half = at % GROUP / (GROUP / 2);
                    let terms = (codes.scales[half] * 255.0).abs() + codes.minimum.abs();
                    prop_assert!(
                        (number - expected).abs() <= terms * f32::EPSILON,
                        "{kind:?}, column {at}: {number} for {expected}"
                    );
                }
            }
        }
    }
}
