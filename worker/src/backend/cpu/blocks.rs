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

    fn new(scale: f32, minimum: f32, code: impl Fn(usize) -> u8) -> Self {
        Self { codes: std::array::from_fn(code), scales: [scale; 2], minimum }
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
        BlockKind::Q4_0 => Codes::new(half(block, 0), 0.0, |i| nibble(&block[2..], i)),
        BlockKind::Q4_1 => Codes::new(half(block, 0), half(block, 2), |i| nibble(&block[4..], i)),
        BlockKind::Q5_0 => {
            Codes::new(half(block, 0), 0.0, |i| nibble(&block[6..], i) | fifth(&block[2..], i))
        }
        BlockKind::Q5_1 => Codes::new(half(block, 0), half(block, 2), |i| {
            nibble(&block[8..], i) | fifth(&block[4..], i)
        }),
        BlockKind::Q8_0 => Codes::new(half(block, 0), 0.0, |i| block[2 + i] ^ 0x80),
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

/// Column `i` of 32: the low halves of 16 bytes, then the high ones.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    (bytes[i % 16] >> (i / 16 * 4)) & 15
}

/// The fifth bit of column `i` of 32, in its place.
fn fifth(bits: &[u8], i: usize) -> u8 {
    ((bits[i / 8] >> (i % 8)) & 1) << 4
}

/// Scale and minimum of group `j` of a K-block: 6 bits each, packed in 12 bytes.
fn scale_and_minimum(block: &[u8], j: usize) -> (f32, f32) {
    let packed = &block[4..16];
    let (scale, minimum) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (
            (packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4),
            (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4),
        )
    };
    (half(block, 0) * f32::from(scale), -(half(block, 2) * f32::from(minimum)))
}

/// Groups 2c and 2c + 1 are the low and the high halves of the same 32 bytes.
fn q4k(block: &[u8], j: usize) -> Codes {
    let (scale, minimum) = scale_and_minimum(block, j);
    let bytes = &block[16 + j / 2 * 32..];
    Codes::new(scale, minimum, |i| (bytes[i] >> (j % 2 * 4)) & 15)
}

fn q5k(block: &[u8], j: usize) -> Codes {
    let (scale, minimum) = scale_and_minimum(block, j);
    let (high, bytes) = (&block[16..48], &block[48 + j / 2 * 32..]);
    Codes::new(scale, minimum, |i| ((bytes[i] >> (j % 2 * 4)) & 15) | (((high[i] >> j) & 1) << 4))
}

/// Two times 128 columns; of these, groups 0 and 1 are low halves and 2 and 3 high halves of 64 bytes.
fn q6k(block: &[u8], j: usize) -> Codes {
    let (part, j) = (j / 4, j % 4);
    let low = &block[part * 64 + j % 2 * 32..];
    let high = &block[128 + part * 32..];
    let scales = &block[192 + part * 8 + j * 2..];
    let scale = half(block, 208);
    Codes {
        codes: std::array::from_fn(|i| {
            ((low[i] >> (j / 2 * 4)) & 15) | (((high[i] >> (j * 2)) & 3) << 4)
        }),
        scales: [0, 1].map(|i| scale * f32::from(scales[i].cast_signed())),
        minimum: 0.0,
    }
}
