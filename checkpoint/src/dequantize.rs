//! Blocks of quantised numbers back to f32, as GGUF defines them.

use half::{bf16, f16};

use crate::block::BlockKind;

/// Writes the numbers of whole blocks to `out`.
///
/// # Panics
/// When `out` is not whole blocks, or `bytes` is not as long as they are.
pub fn dequantize(kind: BlockKind, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % kind.block_numbers(), 0, "whole blocks");
    assert_eq!(bytes.len(), out.len() / kind.block_numbers() * kind.block_bytes(), "as many bytes");
    match kind {
        BlockKind::F32 => blocks::<4, 1>(bytes, out, |b, y| y[0] = f32::from_le_bytes(*b)),
        BlockKind::F16 => blocks::<2, 1>(bytes, out, |b, y| y[0] = half_at(b, 0)),
        BlockKind::Bf16 => {
            blocks::<2, 1>(bytes, out, |b, y| y[0] = bf16::from_le_bytes(*b).to_f32());
        }
        BlockKind::Q4_0 => blocks(bytes, out, q4_0),
        BlockKind::Q4_1 => blocks(bytes, out, q4_1),
        BlockKind::Q5_0 => blocks(bytes, out, q5_0),
        BlockKind::Q5_1 => blocks(bytes, out, q5_1),
        BlockKind::Q8_0 => blocks(bytes, out, q8_0),
        BlockKind::Q4K => blocks(bytes, out, q4_k),
        BlockKind::Q5K => blocks(bytes, out, q5_k),
        BlockKind::Q6K => blocks(bytes, out, q6_k),
    }
}

/// One block after another: `BYTES` in, `NUMBERS` out.
fn blocks<const BYTES: usize, const NUMBERS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; NUMBERS]),
) {
    let (bytes, _) = bytes.as_chunks::<BYTES>();
    let (out, _) = out.as_chunks_mut::<NUMBERS>();
    for (from, to) in bytes.iter().zip(out) {
        block(from, to);
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn low(byte: u8) -> u8 {
    byte & 0x0f
}

fn high(byte: u8) -> u8 {
    byte >> 4
}

/// Scale, 16 bytes of nibbles: low ones first, then high ones.
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for i in 0..16 {
        out[i] = (f32::from(low(block[2 + i])) - 8.0) * scale;
        out[i + 16] = (f32::from(high(block[2 + i])) - 8.0) * scale;
    }
}

/// Scale, minimum, nibbles.
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for i in 0..16 {
        out[i] = f32::from(low(block[4 + i])) * scale + minimum;
        out[i + 16] = f32::from(high(block[4 + i])) * scale + minimum;
    }
}

/// The fifth bit of number `i`, in its place.
fn fifth(bits: u32, i: usize) -> u8 {
    u8::from(bits >> i & 1 == 1) << 4
}

/// Scale, 32 fifth bits, nibbles.
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    let bits = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for i in 0..16 {
        out[i] = (f32::from(low(block[6 + i]) | fifth(bits, i)) - 16.0) * scale;
        out[i + 16] = (f32::from(high(block[6 + i]) | fifth(bits, i + 16)) - 16.0) * scale;
    }
}

/// Scale, minimum, 32 fifth bits, nibbles.
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let bits = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for i in 0..16 {
        out[i] = f32::from(low(block[8 + i]) | fifth(bits, i)) * scale + minimum;
        out[i + 16] = f32::from(high(block[8 + i]) | fifth(bits, i + 16)) * scale + minimum;
    }
}

/// Scale, signed bytes.
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for i in 0..32 {
        out[i] = f32::from(block[2 + i].cast_signed()) * scale;
    }
}

/// Scale and minimum of the `j`th of eight groups of 32, six bits each, packed in 12 bytes.
fn group(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (low(packed[j + 4]) | packed[j - 4] >> 6 << 4, high(packed[j + 4]) | packed[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

/// Scale, scale of minimums, packed groups, nibbles.
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (groups, nibbles) = (&block[4..16], &block[16..144]);
    for pair in 0..4 {
        let (low_scale, low_minimum) = group(groups, 2 * pair);
        let (high_scale, high_minimum) = group(groups, 2 * pair + 1);
        for i in 0..32 {
            let byte = nibbles[32 * pair + i];
            out[64 * pair + i] = scale * low_scale * f32::from(low(byte)) - minimum * low_minimum;
            out[64 * pair + 32 + i] =
                scale * high_scale * f32::from(high(byte)) - minimum * high_minimum;
        }
    }
}

/// Scale, scale of minimums, packed groups, fifth bits by group, nibbles.
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (groups, fifths, nibbles) = (&block[4..16], &block[16..48], &block[48..176]);
    for pair in 0..4 {
        let (low_scale, low_minimum) = group(groups, 2 * pair);
        let (high_scale, high_minimum) = group(groups, 2 * pair + 1);
        for i in 0..32 {
            let byte = nibbles[32 * pair + i];
            let bits = u32::from(fifths[i]);
            let first = f32::from(low(byte) | fifth(bits, 2 * pair));
            let second = f32::from(high(byte) | fifth(bits, 2 * pair + 1));
            out[64 * pair + i] = scale * low_scale * first - minimum * low_minimum;
            out[64 * pair + 32 + i] = scale * high_scale * second - minimum * high_minimum;
        }
    }
}

/// Low nibbles, high pairs of bits, signed scales of 16 groups of 16, scale.
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let scale = half_at(block, 208);
    for half in 0..2 {
        let nibbles = &block[64 * half..64 * half + 64];
        let pairs = &block[128 + 32 * half..160 + 32 * half];
        let groups = &block[192 + 8 * half..200 + 8 * half];
        for i in 0..32 {
            let sixes = [
                low(nibbles[i]) | (pairs[i] & 3) << 4,
                low(nibbles[i + 32]) | (pairs[i] >> 2 & 3) << 4,
                high(nibbles[i]) | (pairs[i] >> 4 & 3) << 4,
                high(nibbles[i + 32]) | (pairs[i] >> 6) << 4,
            ];
            for (quarter, six) in sixes.into_iter().enumerate() {
                let group = f32::from(groups[i / 16 + 2 * quarter].cast_signed());
                out[128 * half + 32 * quarter + i] = scale * group * (f32::from(six) - 32.0);
            }
        }
    }
}
