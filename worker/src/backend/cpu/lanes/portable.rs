//! The path for any CPU, and the definition of what the others compute.

use half::{bf16, f16};

use crate::backend::cpu::lanes::{BYTES, LANES, Lanes};

/// 1.5 × 2²⁸: an f64 of this size is spaced by [`crate::backend::SUM_GRID`], so adding it rounds.
pub(crate) const GRID_MAGIC: f64 = 402_653_184.0;

/// Plain Rust.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

impl Lanes for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type U = [u8; BYTES];
    type H = [i32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }

    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32; LANES]) {
        *to = x;
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        each(|i| x[i].to_f32())
    }

    #[inline(always)]
    fn store_f16(self, x: Self::F, to: &mut [f16; LANES]) {
        *to = x.map(f16::from_f32);
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        each(|i| f32::from_bits(u32::from(x[i].to_bits()) << 16))
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        a.map(f32::abs)
    }

    #[inline(always)]
    fn if_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        each(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "whole numbers from -126 to 127")]
    #[expect(clippy::cast_sign_loss, reason = "127 was added")]
    fn exp2(self, n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn sum(self, mut a: Self::F) -> f32 {
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                a[i] += a[i + width];
            }
        }
        a[0]
    }

    #[inline(always)]
    fn greatest(self, mut a: Self::F) -> f32 {
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                a[i] = if a[i] > a[i + width] { a[i] } else { a[i + width] };
            }
        }
        a[0]
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "whole numbers from -127 to 127")]
    fn store_i8(self, low: Self::F, high: Self::F, to: &mut [i8; 2 * LANES]) {
        for i in 0..LANES {
            to[i] = low[i] as i8;
            to[i + LANES] = high[i] as i8;
        }
    }

    #[inline(always)]
    fn add_on_grid(self, sums: &mut [f64; LANES], x: Self::F) {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += (f64::from(x) + GRID_MAGIC) - GRID_MAGIC;
        }
    }

    #[inline(always)]
    fn zero(self) -> Self::I {
        [0; LANES]
    }

    #[inline(always)]
    #[expect(clippy::cast_precision_loss, reason = "sums stay below 2^24")]
    fn float(self, x: Self::I) -> Self::F {
        x.map(|x| x as f32)
    }

    #[inline(always)]
    fn load_bytes(self, x: &[u8; BYTES]) -> Self::U {
        *x
    }

    #[inline(always)]
    fn low(self, x: Self::U) -> Self::U {
        x.map(|byte| byte & 15)
    }

    #[inline(always)]
    fn high(self, x: Self::U) -> Self::U {
        x.map(|byte| byte >> 4)
    }

    #[inline(always)]
    fn shifted<const BITS: i32>(self, x: Self::U, mask: u8) -> Self::U {
        x.map(|byte| if BITS < 0 { byte >> -BITS } else { byte << BITS } & mask)
    }

    #[inline(always)]
    fn or(self, a: Self::U, b: Self::U) -> Self::U {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn none(self) -> Self::H {
        [0; LANES]
    }

    #[inline(always)]
    fn mac(self, sum: Self::H, a: Self::U, x: [i8; 4]) -> Self::H {
        std::array::from_fn(|i| {
            (0..4).fold(sum[i], |sum, j| sum + i32::from(a[4 * i + j]) * i32::from(x[j]))
        })
    }

    #[inline(always)]
    fn widen(self, sum: Self::I, narrow: Self::H) -> Self::I {
        std::array::from_fn(|i| sum[i] + narrow[i])
    }

    #[inline(always)]
    fn mac_centred(self, sum: Self::I, a: Self::U, x: [i8; 4]) -> Self::I {
        std::array::from_fn(|i| {
            (0..4).fold(sum[i], |sum, j| sum + (i32::from(a[4 * i + j]) - 128) * i32::from(x[j]))
        })
    }
}
